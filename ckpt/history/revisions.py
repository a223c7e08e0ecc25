"""The grammar of revisions: from text to every reading it can have, and from a reading back to text.

A revision names one checkpoint: an anchor (a thread, tag, id, …) and any number of suffixes that walk
from there. Thread ids are arbitrary strings, often chosen by strangers, so a bare word such as `acme~1`
can be a thread of that name as well as the parent of `acme`'s head. This module lists such readings; it
never asks a store which of them exist, and it never prefers one. That is the job of
`ckpt.repository`.

The rule to keep in mind: explicit forms (`thread:"…"`, `tag:`, `id:`, `ckpt:`, `op:`) and forms relative
to a thread given elsewhere (`@`, `@~2`, `#7`) have exactly one reading, whatever threads exist.
"""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from typing import Final

from ckpt.errors import RevisionSyntaxError
from ckpt.history.readings import (
    ID_PREFIX,
    ID_PREFIX_LENGTH_MIN,
    OPERATION_PREFIX,
    SUFFIXES_MAX,
    Ago,
    Ancestor,
    AtStep,
    AtTime,
    BeforeNode,
    CheckpointName,
    EarlierHead,
    IdPrefix,
    InRun,
    OperationPrefix,
    Parent,
    Reading,
    Relative,
    Suffix,
    TagName,
    ThreadName,
    Unit,
    WithId,
    malformed,
    quote,
    require,
)

_TAG_NAME = re.compile(r"\w[\w.+/-]*")
_CHECKPOINT_WORD = re.compile(r"\w[\w.-]*")
_BRACED_WORD = re.compile(r"\w[\w.:+/-]*")
_SUFFIX_MARK = re.compile(r"[~^#]|@\{")
_COUNTED = re.compile(r"([~^])([0-9]{0,9})|#(-?[0-9]{1,9})")
_BRACED = re.compile(r"@\{([^{}\"]*)\}")
_BRACED_ID = re.compile(r"@\{id:([^{}\"]*)\}")
_BRACED_QUOTED = re.compile(r"@\{(next|run):(?=\")")
_AGO = re.compile(r"([0-9]{1,6}) ?(s|m(?:in)?|h|d|w) ago")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# Set operators that a later revision language needs; bare words must not use them up.
_RESERVED = re.compile(r"[()&|]|\.\.")
_EXPLICIT = re.compile(r"(thread|tag|id|ckpt|op):")
_RELATIVE = re.compile(r"(?:HEAD|@)(?=$|[~^#]|@\{)")
_STRING = json.JSONDecoder(strict=False)


def is_tag_name(name: str) -> bool:
    """Return whether `name` may name a tag: letters, digits and `_ . + / -` without `..`.

    Such a name can never be mistaken for a revision with a suffix.
    """
    return _TAG_NAME.fullmatch(name) is not None and ".." not in name


def parse(text: str) -> tuple[Reading, ...]:
    """Return every reading of `text`, the ones with the longest anchor first; never an empty tuple.

    Explicit and relative forms have one reading. A bare word has one for each thread name, tag or id
    prefix that it could stand for, as a whole and cut before each tail that forms valid suffixes.
    Raise RevisionSyntaxError if there is no reading at all, or if `@{id:…}` in a bare word has no id in it.
    """
    if not text:
        raise malformed(text, "it is empty", ["@ is the head of the thread given with -t"])
    explicit = _EXPLICIT.match(text)
    if explicit:
        return (_explicit(text, explicit[1], explicit.end()),)
    relative = _RELATIVE.match(text)
    if relative:
        return (Reading(Relative(), _suffixes(text, relative.end())),)
    if _SUFFIX_MARK.match(text):
        suffixes = _tails(text).get(0)
        if suffixes is not None:
            return (Reading(Relative(), suffixes),)
    return _bare(text)


def format_revision(reading: Reading) -> str:
    """Return the shortest text that has this reading and no other, whatever the store holds."""
    suffixes = "".join(_format_suffix(suffix) for suffix in reading.suffixes)
    match reading.anchor:
        case ThreadName(name):
            return f"thread:{quote(name)}{suffixes}"
        case TagName(name):
            return f"tag:{name if is_tag_name(name) else quote(name)}{suffixes}"
        case IdPrefix(prefix):
            return f"id:{prefix}{suffixes}"
        case CheckpointName(name):
            return f"ckpt:{name if _CHECKPOINT_WORD.fullmatch(name) else quote(name)}{suffixes}"
        case OperationPrefix(prefix):
            return f"op:{prefix}"
        case Relative():
            return suffixes if suffixes.startswith("@") else f"@{suffixes}"


def _explicit(text: str, kind: str, start: int) -> Reading:
    if text.startswith('"', start):
        name, end = _string(text, start)
        quoted = True
    else:
        mark = _SUFFIX_MARK.search(text, start)
        end = mark.start() if mark else len(text)
        name, quoted = text[start:end], False
    suffixes = _suffixes(text, end)
    if not quoted and not name:
        raise malformed(text, f"nothing follows {kind}:", [_EXAMPLES[kind]])
    match kind:
        case "thread":
            if not quoted and (suffixes or not _is_plain(name)):
                # A template such as f"thread:{id}" would let the id decide what the suffix is.
                raise malformed(
                    text,
                    "a thread id that is odd or followed by a suffix is written in quotes",
                    ["write 'thread:\"…\"': a shell removes quotes that are not quoted themselves"],
                )
            return Reading(ThreadName(name), suffixes)
        case "tag":
            if not quoted and not is_tag_name(name):
                raise malformed(text, f"{quote(name)} cannot be the name of a tag", [_EXAMPLES[kind]])
            return Reading(TagName(name), suffixes)
        case "ckpt":
            if not quoted and not _CHECKPOINT_WORD.fullmatch(name):
                raise malformed(text, "this checkpoint id needs quotes", [f"write 'ckpt:{quote(name)}'"])
            return Reading(CheckpointName(name), suffixes)
        case _:
            what, pattern = ("operation", OPERATION_PREFIX) if kind == "op" else ("checkpoint", ID_PREFIX)
            if quoted or not pattern.fullmatch(name.lower()):
                least = "" if kind == "op" else f" (at least {ID_PREFIX_LENGTH_MIN})"
                raise malformed(
                    text,
                    f"the id of {'an' if kind == 'op' else 'a'} {what} is hex digits{least}",
                    [f"for the thread of this name write 'thread:{quote(text)}'"],
                )
            if kind == "id":
                return Reading(IdPrefix(name.lower()), suffixes)
            return Reading(OperationPrefix(name.lower()), suffixes)


def _bare(text: str) -> tuple[Reading, ...]:
    _require_ids(text, 0)
    tails: dict[int, tuple[Suffix, ...]] = {len(text): (), **_tails(text)}
    readings: list[Reading] = []
    for cut in sorted(tails, reverse=True):
        word, suffixes = text[:cut], tails[cut]
        if not word:
            continue
        if not _RESERVED.search(word):
            readings.append(Reading(ThreadName(word), suffixes))
        if is_tag_name(word):
            readings.append(Reading(TagName(word), suffixes))
        if ID_PREFIX.fullmatch(word.lower()):
            readings.append(Reading(IdPrefix(word.lower()), suffixes))
    if not readings:
        raise malformed(
            text,
            "( ) & | and .. are reserved in bare words",
            [
                *_compared(text),
                f"for the thread of this name write 'thread:{quote(text)}', or use -t, which is never parsed",
            ],
        )
    return tuple(readings)


def _tails(text: str) -> dict[int, tuple[Suffix, ...]]:
    """Map every position from which `text` is nothing but suffixes to those suffixes."""
    tails: dict[int, tuple[Suffix, ...]] = {len(text): ()}
    for mark in reversed(list(_SUFFIX_MARK.finditer(text))):
        found = _suffix_at(text, mark.start())
        if found is None:
            continue
        suffix, end = found
        rest = tails.get(end)
        if rest is not None and len(rest) < SUFFIXES_MAX:
            tails[mark.start()] = (suffix, *rest)
    del tails[len(text)]
    return tails


def _suffixes(text: str, start: int) -> tuple[Suffix, ...]:
    """Read suffixes from `start` to the end, or raise RevisionSyntaxError."""
    suffixes: list[Suffix] = []
    while start < len(text):
        found = _suffix_at(text, start)
        if found is None:
            _require_ids(text, start)
            raise malformed(
                text,
                f"{quote(text[start:])} is not a suffix",
                [*_compared(text), f"suffixes are {_SUFFIXES}"],
            )
        suffix, start = found
        suffixes.append(suffix)
    require(len(suffixes) <= SUFFIXES_MAX, text, f"more than {SUFFIXES_MAX} suffixes")
    return tuple(suffixes)


def _require_ids(text: str, start: int) -> None:
    """Refuse what is written as `@{id:…}` from `start` on and names no id: nobody would take it for part of a name."""
    for braced in _BRACED_ID.finditer(text, start):
        if not ID_PREFIX.fullmatch(braced[1].lower()):
            raise malformed(
                text,
                f"the id in {quote(braced[0])} is not hex digits (at least {ID_PREFIX_LENGTH_MIN})",
                [f"for the thread of this name write 'thread:{quote(text)}', or use -t, which is never parsed"],
            )


def _compared(text: str) -> list[str]:
    """Return what to write instead of a range of two checkpoints, when a text looks like one."""
    ends = re.split(r"\.{2,3}", text, maxsplit=1)
    return [f"to compare two checkpoints write: ckpt diff {shlex.join(ends)}"] if len(ends) == 2 and all(ends) else []


def _suffix_at(text: str, start: int) -> tuple[Suffix, int] | None:
    """Return the suffix that begins at `start` and where it ends; None if there is none."""
    counted = _COUNTED.match(text, start)
    if counted:
        sign, digits, step = counted.groups()
        if step is not None:
            return AtStep(int(step)), counted.end()
        number = int(digits or "1")
        if sign == "~":
            return Ancestor(number), counted.end()
        return (Parent(number), counted.end()) if number else None
    quoted = _BRACED_QUOTED.match(text, start)
    if quoted:
        try:
            word, end = _string(text, quoted.end())
        except RevisionSyntaxError:
            return None
        if not text.startswith("}", end):
            return None
        return (BeforeNode(word) if quoted[1] == "next" else InRun(word)), end + 1
    braced = _BRACED.match(text, start)
    suffix = _braced(braced[1]) if braced else None
    return (suffix, braced.end()) if braced and suffix else None


def _braced(content: str) -> Suffix | None:
    kind, colon, word = content.partition(":")
    if colon and word and kind in ("next", "run"):
        return BeforeNode(word) if kind == "next" else InRun(word)
    if colon and kind == "id":
        return WithId(word.lower()) if ID_PREFIX.fullmatch(word.lower()) else None
    if content.isascii() and content.isdigit() and len(content) <= 9:
        return EarlierHead(int(content))
    ago = _AGO.fullmatch(content)
    if ago:
        unit: Unit = "min" if ago[2] == "m" else ago[2]  # type: ignore[assignment]  # the pattern admits no other
        return Ago(int(ago[1]), unit)
    if _MOMENT.fullmatch(content):
        try:
            return AtTime(datetime.fromisoformat(content.upper()).astimezone(UTC))
        except (ValueError, OverflowError):
            return None
    return None


def _format_suffix(suffix: Suffix) -> str:
    match suffix:
        case Ancestor(distance):
            return f"~{distance}"
        case Parent(number):
            return f"^{number}"
        case AtStep(step):
            return f"#{step}"
        case EarlierHead(distance):
            return f"@{{{distance}}}"
        case BeforeNode(node):
            return f"@{{next:{_braced_word(node)}}}"
        case InRun(run_id):
            return f"@{{run:{_braced_word(run_id)}}}"
        case WithId(prefix):
            return f"@{{id:{prefix}}}"
        case Ago(count, unit):
            return f"@{{{count}{unit} ago}}"
        case AtTime(moment):
            written = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
            return f"@{{{written}Z}}"


def _braced_word(word: str) -> str:
    return word if _BRACED_WORD.fullmatch(word) else quote(word)


def _string(text: str, start: int) -> tuple[str, int]:
    try:
        value, end = _STRING.raw_decode(text, start)
    except ValueError as error:
        raise malformed(text, f"the quoted string is not valid JSON ({error})") from None
    return str(value), end


def _is_plain(name: str) -> bool:
    return name.isprintable() and not any(char in name for char in " \"'\\") and not _SUFFIX_MARK.search(name)


_SUFFIXES: Final = "~N ^N #N @{N} @{next:NODE} @{run:ID} @{id:8c1f} @{2h ago} @{2026-01-31T10:00Z}"
_EXAMPLES: Final = {
    "thread": 'write thread:"support-42", or use -t, which is never parsed',
    "tag": "a tag is letters, digits and _ . + / - as in tag:v1",
    "id": "write at least 4 hex digits, as in id:8c1f",
    "ckpt": "write a LangGraph checkpoint id, as in ckpt:1f1e53f3-3a1c-6c09-8008-241761cd5b1d",
    "op": "write the id of an operation, as in op:3f",
}
