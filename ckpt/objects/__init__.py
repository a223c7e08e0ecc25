"""Objects: immutable bytes named by their hash, and the packs they are laid down in.

Pure code plus the read and write paths over the storage seam. What the bytes mean is the business of
`ckpt.values` (ropes) and `ckpt.history` (commits).
"""
