"""Keys of records: how names, threads, checkpoints and tags are laid out in a store's ordered map.

    d <bucket>                             directory: how many names stand in this bucket, and their digest
    n <bucket> <hash of name>              name: which thread has this name now
    o                                      how many operations there are
    o <number>                             operation, for `op log` and `undo`
    g                                      how many tags there are, and their digest
    g <hash of name>                       tag
    t <thread>                             thread
    t <thread> l <namespace>               line: the namespace's head
    t <thread> c <namespace> <id>          checkpoint: its commits and its pending writes
    t <thread> n <path>                    namespace of a memory: census of its items
    t <thread> i <path> 0 <hash of key>    item of a memory: its versions
    r <hash of kind and graph>             registry: which graph the scope of this hash belongs to
    s <hash of kind and graph> <key>       a record of another scope than the default graph, under its key there

Numbers are a length byte and big-endian bytes, so that they sort as numbers. Caller text occurs in a key only as
a hash or, for checkpoint ids (which must sort as they are), behind a fixed prefix. The path of a memory's namespace
is the byte 1 and a hash for each of its labels, so that all that lies below a namespace is one range.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from blake3 import blake3

from ckpt.errors import InvalidInputError

BUCKETS = 256
CHECKPOINT_ID_MAX = 1000
_NAME_HASH_SIZE = 16
_STEP_SIZE = 1 + _NAME_HASH_SIZE


def encode_text(text: str) -> bytes:
    """Return any string as bytes, lone surrogates included; sorts as the strings do.

    Raises InvalidInputError for what is no string.
    """
    try:
        return text.encode("utf-8", "surrogatepass")
    except AttributeError:
        check_text("what names a part of the store", text)
        raise


def check_text(what: str, *given: object) -> None:
    """Raise InvalidInputError unless all are strings: nothing else that is written could be read again."""
    for each in given:
        if not isinstance(each, str):
            raise InvalidInputError(f"{what} is a {type(each).__name__}, not a str", hints=["give a str"])


def decode_text(data: bytes) -> str:
    """Undo `encode_text`."""
    return data.decode("utf-8", "surrogatepass")


def _hash(text: str) -> bytes:
    return blake3(encode_text(text)).digest(_NAME_HASH_SIZE)


def number_key(number: int) -> bytes:
    """Return a number >= 0 as bytes that sort as numbers do."""
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes((len(data),)) + data


def directory_key(bucket: int) -> bytes:
    """Return the key of the directory record of a bucket."""
    return b"d" + bytes((bucket,))


def name_bucket(name: str) -> int:
    """Return the bucket that a thread name belongs to."""
    return _hash(name)[0]


def name_key(name: str) -> bytes:
    """Return the key of the record that says which thread has this name."""
    digest = _hash(name)
    return b"n" + digest[:1] + digest


def bucket_range(bucket: int) -> tuple[bytes, bytes]:
    """Return the range of the names of one bucket."""
    start = b"n" + bytes((bucket,))
    return start, after_prefix(start)


ALL_BUCKETS = (b"d", b"e")
ALL_NAMES = (b"n", b"o")
ALL_OPERATIONS = (b"o\x00", b"p")
ALL_TAGS = (b"g\x00", b"h")
ALL_REGISTRATIONS = (b"r", b"s")
ALL_SCOPES = (b"s", b"t")
ALL_THREADS = (b"t", b"u")
COUNTERS = b"c"
"""The record that hands out thread numbers."""

OPERATIONS = b"o"
"""The record that says how many operations there are. It stands before all of them."""

TAGS = b"g"
"""The record that counts the tags."""


def scope_prefix(kind: str, graph: str) -> bytes:
    """Return what stands before every key of a scope: nothing for the threads of the default graph."""
    return b"s" + _hash(kind + graph) if (kind, graph) != ("g", "") else b""


def registration_key(prefix: bytes) -> bytes:
    """Return the key of the record that says what a scope other than the default graph's is."""
    return b"r" + prefix[1:]


def scope_of(key: bytes) -> bytes:
    """Return the prefix of the scope that a key within `ALL_SCOPES` belongs to."""
    return key[: 1 + _NAME_HASH_SIZE]


def operation_key(number: int) -> bytes:
    """Return the key of an operation."""
    return b"o" + number_key(number)


def tag_key(name: str) -> bytes:
    """Return the key of a tag."""
    return b"g" + _hash(name)


@lru_cache(maxsize=1024)
def thread_key(thread: int) -> bytes:
    """Return the key of a thread, which is also the prefix of all its records."""
    return b"t" + number_key(thread)


def _namespace(namespace: str) -> bytes:
    return b"\x01" + _hash(namespace) if namespace else b"\x00"


def line_key(thread: int, namespace: str) -> bytes:
    """Return the key of the line of a namespace other than the root's, which is kept in the thread's record."""
    return thread_key(thread) + b"l" + _namespace(namespace)


def lines_range(thread: int) -> tuple[bytes, bytes]:
    """Return the range of all line records of a thread."""
    start = thread_key(thread) + b"l"
    return start, after_prefix(start)


def checkpoint_key(thread: int, namespace: str, checkpoint_id: str) -> bytes:
    """Return the key of a checkpoint, or raise InvalidInputError when its id is too long to be one."""
    encoded = encode_text(checkpoint_id)
    if len(encoded) > CHECKPOINT_ID_MAX:
        raise InvalidInputError(
            f"a checkpoint id of {len(encoded)} bytes is too long; {CHECKPOINT_ID_MAX} bytes are allowed"
        )
    return thread_key(thread) + b"c" + _namespace(namespace) + encoded


def checkpoints_range(thread: int, namespace: str | None) -> tuple[bytes, bytes]:
    """Return the range of the checkpoints of one namespace, or of all (None)."""
    start = thread_key(thread) + b"c"
    if namespace is not None:
        start += _namespace(namespace)
    return start, after_prefix(start)


def namespace_path(labels: Iterable[str]) -> bytes:
    """Return what the keys of a memory's namespace, and of all below it, have in common."""
    return b"".join([b"\x01" + _hash(label) for label in labels])


def namespace_key(thread: int, path: bytes) -> bytes:
    """Return the key of the record that counts the items of a memory's namespace."""
    return thread_key(thread) + b"n" + path


def namespaces_range(thread: int, path: bytes) -> tuple[bytes, bytes]:
    """Return the range of a namespace's record and of those below it."""
    start = thread_key(thread) + b"n" + path
    return start, after_prefix(start)


def item_key(thread: int, path: bytes, key: str) -> bytes:
    """Return the key of an item in the namespace of this path."""
    return thread_key(thread) + b"i" + path + b"\x00" + _hash(key)


def items_range(thread: int, path: bytes) -> tuple[bytes, bytes]:
    """Return the range of the items of a namespace and of those below it."""
    start = thread_key(thread) + b"i" + path
    return start, after_prefix(start)


def own_items_range(thread: int, path: bytes) -> tuple[bytes, bytes]:
    """Return the range of the items of a namespace alone."""
    start = thread_key(thread) + b"i" + path + b"\x00"
    return start, after_prefix(start)


def path_of(key: bytes, thread: int) -> bytes:
    """Return the path of the namespace that an item's or a namespace's key belongs to."""
    path = key[len(thread_key(thread)) + 1 :]
    return path[:-_STEP_SIZE] if path[-_STEP_SIZE:-_NAME_HASH_SIZE] == b"\x00" else path


def checkpoints_of(key: bytes, thread: int) -> bytes:
    """Return where the range of the checkpoints of a namespace begins, given the key of one of them."""
    offset = len(thread_key(thread)) + 1
    return key[: offset + (_STEP_SIZE if key[offset : offset + 1] == b"\x01" else 1)]


def checkpoint_id_of(key: bytes, thread: int) -> str:
    """Return the checkpoint id that a checkpoint's key ends with."""
    return decode_text(key[len(checkpoints_of(key, thread)) :])


def within_thread(key: bytes, thread: int) -> bytes:
    """Return what follows the thread in the key of one of its records: the same for the same in another thread."""
    return key[len(thread_key(thread)) :]


def thread_range(thread: int) -> tuple[bytes, bytes]:
    """Return the range of all records of a thread."""
    start = thread_key(thread)
    return start, after_prefix(start)


def after_prefix(prefix: bytes) -> bytes:
    """Return the first key behind all keys with this prefix (which must not end in 0xFF bytes only)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))
