"""The texts of `ckpt help TOPIC`."""

from __future__ import annotations

from typing import Final

_REVISIONS: Final = """
A revision names one checkpoint.

  support-42             the head of a thread; a tag or the beginning of an id work as well
  support-42~3           its third ancestor
  @  @~3  #7             relative to the thread given with -t or CKPT_THREAD (HEAD is another word for @)

In scripts use -t ID: the id is never parsed, so no odd id can change the meaning of a command.

A bare word can mean several things. If more than one exists, the command stops with exit code 3 and lists
them in explicit form:

  thread:"any \\"string\\""   the thread of exactly this name, a JSON string
  tag:v1                    a tag
  id:8c1f                   an id, or the beginning of one (at least 4 hex digits)
  ckpt:1f1e53f3-…           a LangGraph checkpoint id
  op:3f                     an operation of ckpt op log (for ckpt undo)

Suffixes walk from there and can be repeated:

  ~N              the N-th ancestor
  ^N              the N-th parent
  #N              the nearest ancestor, or itself, at LangGraph step N; #-1 is the input
  @{N}            where the head was N moves ago
  @{next:NODE}    the last point before NODE runs
  @{run:ID}       the last checkpoint of a run
  @{id:8c1f}      the checkpoint of the same thread whose id begins so, an ancestor or not
  @{2h ago}       as of then; units s, min, h, d, w
  @{2026-01-31T10:00Z}

Shells act on some of these characters. Quote revisions: in bash and zsh 'thread:"acme~1"', in PowerShell
anything with @, in cmd anything with ^. The characters ( ) & | and .. are reserved in bare words.
"""

_JSON: Final = """
--json prints one document on stdout, --jsonl one record a line (log, threads, graphs, tag,
op log, diff).

Every document has a "schema" such as "ckpt.log/1"; ckpt schema NAME prints its JSON Schema. Fields are added,
never renamed; ignore fields and values you do not know. A change that breaks readers raises the number.

Times are RFC 3339 in UTC, sizes are bytes, paths are arrays. Every checkpoint has a "spec", a revision that
means it in its thread and nothing else. Values that JSON cannot hold:

  {"$bytes": base64}                              bytes
  {"$type": "module.Name", "fields": ...}         an instance of a class (which is never imported)
  {"$map": [[key, value], ...]}                   a mapping whose keys are not all text
  {"$float": "nan"}                               NaN and the infinities
  {"text": approximation, "text_b64": base64}     text that is not valid Unicode

Errors are on stderr; their last line is a document of the schema ckpt.error/1.
"""

_EXIT_CODES: Final = """
   0   done, or nothing to do
   1   the answer is no: diff --exit-code found differences, or you said no
   2   wrong usage, or a malformed revision
   3   thread, revision or path not found, or ambiguous
   4   conflict: the head moved, the target exists, undo is no longer safe
   5   damage was found
   6   finished, but some items failed or were skipped
  10   there is no store
  11   the store is locked, cannot be reached, or cannot be used for now
  12   the encryption key is wrong or missing
  13   the store has a newer format than this ckpt knows
  70   internal error
  74   the output cannot be written, as on a full disk; what the command changes is changed
 130   interrupted
 141   whoever read the output stopped reading

Treat any other code as failure.
"""

_ENVIRONMENT: Final = """
  CKPT_STORE                the store, if --store is not given; else the nearest .ckpt/ upwards is used
  CKPT_GRAPH                the graph, if --graph is not given
  CKPT_THREAD               the thread, if -t is not given (delete, prune and expire never use it)
  CKPT_ENCRYPTION_KEY       the key of an encrypted store: a passphrase, or hex: and 64 digits
  CKPT_ENCRYPTION_KEY_FILE  a file that holds it
  CKPT_PAGER                the pager; then PAGER, then less -FRX. Only on a terminal and only for long output
  NO_COLOR                  no colours
  FORCE_COLOR               colours although stdout is not a terminal
  COLUMNS                   the width of the output
  TZ                        the zone in which times are shown (--utc overrides it)
"""

_GIT: Final = """
A thread is what a branch is to git, and a checkpoint what a commit is. There is no working copy and no index.

  git log                        ckpt log THREAD
  git show REV                   ckpt show REV
  git diff A B                   ckpt diff A B
  git show REV (as a patch)      ckpt diff REV           against its parent: there is nothing else to compare with
  git branch -v                  ckpt threads
  git branch NEW REV             ckpt fork REV NEW       nothing is copied
  git reset --hard REV           ckpt checkout REV       in the same thread; the old tip stays as another head
  git reset --hard HEAD~2        ckpt rewind THREAD 2
  git tag NAME REV               ckpt tag NAME REV       also protects from prune
  git branch -D NAME             ckpt delete THREAD      with ckpt undo as the way back
  git reflog                     ckpt op log             what people did; steps of runs are not listed
  (none)                         ckpt undo               takes back the last of these
  git gc, git fsck               ckpt gc, ckpt fsck
  git count-objects -vH          ckpt stats

  HEAD, HEAD~2, HEAD^            @, @~2, @^              with -t THREAD; or THREAD, THREAD~2, THREAD^
  HEAD@{1}                       THREAD@{1}              where its head was one move ago
  a1b2c3d                        id:a1b2c3d              or the digits alone

A thread moves only forward: going back appends a checkpoint with the older state, because LangGraph takes the
newest checkpoint of a thread as the current one. It restores state, not the world: what follows runs again.
"""

TOPICS: Final = {
    "revisions": _REVISIONS,
    "json": _JSON,
    "exit-codes": _EXIT_CODES,
    "environment": _ENVIRONMENT,
    "git": _GIT,
}
