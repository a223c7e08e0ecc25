"""Every error `ckpt` raises on purpose, grouped by what the handler will do.

    CkptError                          1   base class
    ├─ InvalidInputError (ValueError)  2   fix the call
    │  ├─ RevisionSyntaxError               a revision that cannot be read
    │  ├─ UnstorableValueError              a value that would not come back equal
    │  └─ StateTooLargeError                a checkpoint above `max_checkpoint_size`
    ├─ NotFoundError (LookupError)     3   name something that exists
    │  ├─ ThreadNotFoundError
    │  ├─ RevisionNotFoundError
    │  ├─ PathNotFoundError
    │  └─ AmbiguousRevisionError            name it in explicit form
    ├─ ConflictError                   4   read again, then retry
    │  ├─ HeadMovedError
    │  ├─ AlreadyExistsError
    │  └─ ThreadDeletedError
    ├─ IntegrityError                  5   stop: stored bytes are missing or damaged
    │  ├─ ObjectMissingError
    │  ├─ DamagedObjectError
    │  ├─ DamagedRecordError
    │  └─ PartlyDoneError             6   all else was done
    └─ StoreError                     10   look at the store itself
       ├─ StoreNotFoundError          10
       ├─ NotAStoreError              10
       ├─ StoreUnavailableError       11   wait, then retry
       │  ├─ StoreLockedError              another process writes to it for too long
       │  └─ StoreUnreachableError         its server cannot be reached
       ├─ WrongKeyError               12   give the store's encryption key
       └─ FormatTooNewError           13   update ckpt

The number is the exit code of the command line and `code` the name used in JSON. Facts are
attributes; `hints` are sentences that say what to do. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class CkptError(Exception):
    """Base of every error `ckpt` raises on purpose."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "ERROR"

    def __init__(self, message: str, *, hints: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hints = tuple(hints)
        for hint in self.hints:
            self.add_note(hint)  # so that a traceback has them


class InvalidInputError(CkptError, ValueError):
    """The call or an argument is wrong; nothing was changed."""

    exit_code = 2
    code = "INVALID_INPUT"


class RevisionSyntaxError(InvalidInputError):
    """A revision cannot be read."""

    code = "REV_SYNTAX"


class UnstorableValueError(InvalidInputError):
    """A value would not come back equal in value and type; `path` says where it stands."""

    code = "UNSTORABLE"

    def __init__(self, message: str, *, path: str, hints: Sequence[str] = ()) -> None:
        super().__init__(message, hints=hints)
        self.path = path


class StateTooLargeError(InvalidInputError):
    """A checkpoint is larger than `max_checkpoint_size`; nothing was written.

    `size` and `limit` are bytes; `channels` maps the largest channels to their sizes in bytes.
    """

    code = "STATE_TOO_LARGE"

    def __init__(self, *, size: int, limit: int, channels: Mapping[str, int]) -> None:
        largest = ", ".join(f"{name} ({length:,} bytes)" for name, length in channels.items())
        super().__init__(
            f"the checkpoint holds {size:,} bytes, more than max_checkpoint_size ({limit:,}); largest: {largest}",
            hints=["keep large values out of the state, or open the store with a higher max_checkpoint_size"],
        )
        self.size, self.limit, self.channels = size, limit, dict(channels)


class NotFoundError(CkptError, LookupError):
    """The thing named does not exist."""

    exit_code = 3
    code = "NOT_FOUND"


class ThreadNotFoundError(NotFoundError):
    """No thread has this name."""

    code = "THREAD_NOT_FOUND"


class RevisionNotFoundError(NotFoundError):
    """No checkpoint matches the revision."""

    code = "REV_NOT_FOUND"


class PathNotFoundError(NotFoundError):
    """The state holds nothing at this path."""

    code = "PATH_NOT_FOUND"


class AmbiguousRevisionError(NotFoundError):
    """A bare word can mean several things; `candidates` lists them in explicit form."""

    code = "REV_AMBIGUOUS"

    def __init__(self, message: str, *, candidates: Sequence[str], hints: Sequence[str] = ()) -> None:
        super().__init__(message, hints=hints)
        self.candidates = tuple(candidates)


class ConflictError(CkptError):
    """Somebody else changed what this call relied on; nothing was written."""

    exit_code = 4
    code = "CONFLICT"


class HeadMovedError(ConflictError):
    """The head of a thread is no longer where the caller said it was."""

    code = "HEAD_MOVED"


class AlreadyExistsError(ConflictError):
    """The name to be created is taken."""

    code = "EXISTS"


class ThreadDeletedError(ConflictError):
    """A late write named a checkpoint of a thread that has been deleted."""

    code = "THREAD_DELETED"


class IntegrityError(CkptError):
    """Stored bytes are missing or damaged. What was asked for is not returned, and nothing is guessed."""

    exit_code = 5
    code = "INTEGRITY"


class ObjectMissingError(IntegrityError):
    """Objects that a checkpoint needs are not in the store; `ids` names them in hex."""

    code = "OBJECT_MISSING"

    def __init__(self, message: str, *, ids: Sequence[str] = (), hints: Sequence[str] = ()) -> None:
        super().__init__(message, hints=hints)
        self.ids = tuple(ids)


class DamagedObjectError(IntegrityError):
    """The bytes of an object or of a value are not what was stored."""

    code = "OBJECT_DAMAGED"


class DamagedRecordError(IntegrityError):
    """A record (thread, checkpoint, tag …) is damaged or missing although the store says it exists."""

    code = "RECORD_DAMAGED"


class PartlyDoneError(IntegrityError):
    """Some of what was named is damaged and was left as it is; `done` is what was returned for all else."""

    exit_code = 6
    code = "PARTLY_DONE"

    def __init__(self, message: str, *, done: Sequence[Any] = (), hints: Sequence[str] = ()) -> None:
        super().__init__(message, hints=hints)
        self.done = tuple(done)


def damage_among(
    what: str, damaged: Mapping[str, IntegrityError], *, done: Sequence[Any], hints: Sequence[str] = ()
) -> IntegrityError:
    """Return the error for some damaged ones among what was named: of the first one's kind where nothing was `done`."""
    told = ", ".join(f"{name!r} ({error.message})" for name, error in damaged.items())
    given = dict.fromkeys(hint for error in damaged.values() for hint in error.hints)
    if done:
        return PartlyDoneError(f"{what} {told}", done=done, hints=[*given, *hints])
    return type(next(iter(damaged.values())))(f"{what} {told}", hints=[*given, *hints])


class StoreError(CkptError):
    """The store itself cannot be used."""

    exit_code = 10
    code = "STORE"


class StoreNotFoundError(StoreError):
    """There is no store at this place."""

    code = "STORE_MISSING"


class NotAStoreError(StoreError):
    """What stands at this place is something else; it was left untouched."""

    code = "NOT_A_STORE"


class StoreUnavailableError(StoreError):
    """The store cannot be used for now: it is full, closed, may not be written to, or one of the cases below."""

    exit_code = 11
    code = "STORE_UNAVAILABLE"


class StoreLockedError(StoreUnavailableError):
    """Another process has the store locked, and went on for longer than we wait."""

    code = "STORE_LOCKED"


class StoreUnreachableError(StoreUnavailableError):
    """The server of the store does not answer, or the connection to it was lost."""

    code = "STORE_UNREACHABLE"


class WrongKeyError(StoreError):
    """The encryption key is not the store's, or is missing, or the store is not encrypted; nothing was changed."""

    exit_code = 12
    code = "WRONG_KEY"


class FormatTooNewError(StoreError):
    """The store was written by a newer `ckpt`."""

    exit_code = 13
    code = "FORMAT_TOO_NEW"
