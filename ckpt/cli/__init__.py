"""The command line: parses, calls one method of the repository, prints. It has no logic of its own.

Start with `main`. One file per command in `commands`; every line a user reads goes through `output`.
"""
