"""History: the shape of what hangs on a thread. Pure code: records as bytes, commits, heads, pending writes,
and the grammar of revisions. Reading and writing them in a store is the business of `ckpt.repository`."""
