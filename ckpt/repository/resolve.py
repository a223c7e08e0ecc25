"""Resolving: from a revision as text to the checkpoint that it names."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise

from ckpt.errors import AmbiguousRevisionError, InvalidInputError, NotFoundError, RevisionNotFoundError
from ckpt.history import clock, keys
from ckpt.history.checkpoints import Put, current_put, decode_events
from ckpt.history.commits import Commit, decode_commit
from ckpt.history.readings import (
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
    WithId,
)
from ckpt.history.records import ThreadRecord
from ckpt.history.revisions import format_revision, parse
from ckpt.objects.ids import INDEX_KEY_SIZE, Kind, ObjectId, index_key
from ckpt.repository.arguments import check_place
from ckpt.repository.browse import Browser
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.infos import CheckpointInfo
from ckpt.repository.mark import rows
from ckpt.repository.scopes import GraphInfo, graphs
from ckpt.repository.tags import Tags
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Place

_LIKE_A_MOMENT = re.compile(r"@\{[^{}]*(ago|\d{4}-\d\d)[^{}]*\}")
_PREFIX_MATCHES = 200
_ID_DIGITS = 64
_ORDER_SAMPLE = 64
"""Index entries that show whether the index is ordered by key; a smaller index is looked at as a whole."""


class Resolver:
    """Resolves revisions in one repository."""

    def __init__(self, core: Core, directory: Directory, tags: Tags) -> None:
        self._core = core
        self._directory = directory
        self._tags = tags

    def resolve(self, revision: str, *, thread: str | None = None, namespace: str = "") -> CheckpointInfo:
        """Return the one checkpoint that a revision means; `@` and bare suffixes start at the head of `thread`.

        Raises RevisionSyntaxError, RevisionNotFoundError, or AmbiguousRevisionError naming every meaning.
        """
        return _Resolution(self._core, self._directory, self._tags).end(revision, thread, namespace)

    def resolve_with_head(
        self, revision: str, *, thread: str | None = None, namespace: str = ""
    ) -> tuple[CheckpointInfo, CheckpointInfo]:
        """Return what `resolve` does, and the head of its thread at that very moment.

        Raises RevisionNotFoundError too for what is in a namespace of a thread that has no head.
        """
        resolution = _Resolution(self._core, self._directory, self._tags)
        info = resolution.end(revision, thread, namespace)
        return info, resolution.head_of(info)

    def browser(self, thread: str) -> Browser | None:
        """Return what describes the checkpoints of a thread, or None when there is no such thread."""
        found = self._directory.find(thread)
        return self._browser(found[0]) if found else None

    def require_browser(self, thread: str) -> Browser:
        """Return what `browser` does, or raise ThreadNotFoundError."""
        return self._browser(self._directory.require(thread)[0])

    def describe(self, thread: str, namespace: str, checkpoint_id: str) -> CheckpointInfo | None:
        """Return the description of one checkpoint, or None."""
        browser = self.browser(thread)
        return _described(browser, namespace, checkpoint_id) if browser is not None else None

    def describe_in(self, thread: ThreadRecord, namespace: str, checkpoint_id: str) -> CheckpointInfo | None:
        """Return the description of one checkpoint in a thread as it stood, whatever its name leads to now."""
        return _described(self._browser(thread), namespace, checkpoint_id)

    def _browser(self, thread: ThreadRecord) -> Browser:
        return Browser(self._core, Timeline(self._core, thread), self._tags.by_commit())


class _Resolution(Resolver):
    """One resolution, which sees each thread that it comes to as it was at one moment, however it moves meanwhile."""

    def __init__(self, core: Core, directory: Directory, tags: Tags) -> None:
        super().__init__(core, directory, tags)
        self._seen: dict[str, Browser] = {}

    def browser(self, thread: str) -> Browser | None:
        """Return what describes the checkpoints of a thread, by what was seen of it before."""
        return self._seen.get(thread) or super().browser(thread)

    def require_browser(self, thread: str) -> Browser:
        """Return what `browser` does, or raise ThreadNotFoundError."""
        return self._seen.get(thread) or super().require_browser(thread)

    def describe(self, thread: str, namespace: str, checkpoint_id: str) -> CheckpointInfo | None:
        """Return the description of one checkpoint, or None; a thread that has it is seen from here on."""
        browser = self.browser(thread)
        info = _described(browser, namespace, checkpoint_id) if browser is not None else None
        if browser is not None and info is not None:
            self._seen[thread] = browser
        return info

    def head_of(self, info: CheckpointInfo) -> CheckpointInfo:
        """Return the head of the thread of what was found, or raise RevisionNotFoundError."""
        return next(self._head(info.thread, "", required=True))

    def end(self, revision: str, thread: str | None, namespace: str) -> CheckpointInfo:
        """Return what `resolve` does."""
        keys.check_text("a revision", revision)
        check_place(thread, namespace)
        readings = parse(revision)
        found: list[tuple[Reading, CheckpointInfo]] = []
        failure: NotFoundError | None = None
        for reading in readings:
            try:
                within = f" in thread {thread!r}" if isinstance(reading.anchor, Relative) else ""
                ends = self._ends(reading, thread, namespace, f"{revision!r}{within}")
            except NotFoundError as error:
                failure = failure or error
                continue
            found += [(reading, info) for info in ends]
        distinct = {(info.thread, info.namespace, info.id): (reading, info) for reading, info in found}
        if len(distinct) == 1:
            return next(iter(distinct.values()))[1]
        if distinct:
            raise self._ambiguous(revision, [reading for reading, _ in distinct.values()], found)
        raise failure or self._nothing(revision)

    # -- anchors --------------------------------------------------------------------------------------

    def _anchor(self, reading: Reading, thread: str | None, namespace: str) -> Iterator[CheckpointInfo]:
        anchor = reading.anchor
        if isinstance(anchor, Relative):
            yield from self._head(_given(thread), namespace, required=True)
        elif isinstance(anchor, ThreadName):
            yield from self._head(anchor.name, namespace, required=False)
        elif isinstance(anchor, TagName):
            yield from self._tagged(anchor.name, thread)
        elif isinstance(anchor, IdPrefix):
            yield from self._prefixed(anchor.prefix, thread)
        elif isinstance(anchor, CheckpointName):
            yield from self._everywhere(namespace, anchor.checkpoint_id, None, thread)
        elif isinstance(anchor, OperationPrefix):
            raise InvalidInputError(
                f"op:{anchor.prefix} names an operation, not a checkpoint",
                hints=[f"undo it with: ckpt undo op:{anchor.prefix}"],
            )

    def _head(self, name: str, namespace: str, *, required: bool) -> Iterator[CheckpointInfo]:
        browser = self.browser(name)
        if browser is not None:
            self._seen[name] = browser
        head = browser.timeline.head(namespace) if browser is not None else None
        info = self.describe(name, namespace, head) if head is not None else None
        if info is not None:
            yield info
        elif required or browser is not None:
            if browser is not None and namespace and next(browser.timeline.newest_first(namespace), None) is not None:
                raise RevisionNotFoundError(
                    f"namespace {namespace!r} of thread {name!r} has no checkpoint on the current line",
                    hints=["name one by its id; ckpt log with --ns shows those that are off the line"],
                )
            what = f"namespace {namespace!r} of thread {name!r}" if namespace else f"thread {name!r}"
            hint = "ckpt log --subgraphs --json names all namespaces" if namespace else "ckpt threads lists all threads"
            raise RevisionNotFoundError(f"{what} has no checkpoints", hints=[hint])

    def _tagged(self, name: str, thread: str | None) -> Iterator[CheckpointInfo]:
        tag, _ = self._tags.get(name)
        if tag is None:
            return
        raw = self._core.storage.read([keys.thread_key(tag.thread)])[0]
        owner = ThreadRecord.decode(tag.thread, raw) if raw is not None else None
        if thread is None and owner is not None and not owner.deleted and not owner.lapsed(clock.now_ms()):
            # Where a fork and its base share the checkpoint, the tag is on the one that it was put on.
            browser = self._browser(owner)
            own = _described(browser, tag.namespace, tag.checkpoint_id)
            if own is not None and own.id == tag.commit.hex():
                self._seen[owner.name] = browser
                yield own
                return
        for info in self._everywhere(tag.namespace, tag.checkpoint_id, None, thread):
            if info.id == tag.commit.hex():
                yield info
                return
        if owner is not None and not owner.deleted:
            Timeline(self._core, owner).prove(tag.namespace)

    def _prefixed(self, prefix: str, thread: str | None) -> Iterator[CheckpointInfo]:
        for oid, commit in self._commits(prefix).items():
            yield from self._everywhere(commit.namespace, commit.checkpoint_id, oid, thread)

    def _commits(self, prefix: str) -> dict[ObjectId, Commit]:
        """Return the commits whose ids begin so, by a look at the index, or at all records where it has no order."""
        storage = self._core.storage
        if len(prefix) == _ID_DIGITS:
            whole = ObjectId(bytes.fromhex(prefix))
            if found := self._among(storage.locate([index_key(whole)]).values(), prefix):
                return found
        digits = prefix[: 2 * INDEX_KEY_SIZE]
        entries = storage.scan_index(b"", _ORDER_SAMPLE)
        if len(entries) == _ORDER_SAMPLE:
            if not _in_order(entries):
                puts = (each for row in rows(storage) if row.part == "c" for each in decode_events(row.key, row.value))
                named = {put.commit for put in puts if isinstance(put, Put) and put.commit.hex().startswith(prefix)}
                return self._core.commits(named)
            start = bytes.fromhex(digits + "0" * (len(digits) % 2))
            entries = storage.scan_index(_before(start), _PREFIX_MATCHES)
        return self._among([place for key, place in entries if key.hex().startswith(digits)], prefix)

    def _among(self, places: Collection[Place], prefix: str) -> dict[ObjectId, Commit]:
        return {
            oid: decode_commit(obj.data)
            for oid, obj in self._core.objects.at(places).items()
            if obj.kind == Kind.COMMIT and oid.hex().startswith(prefix)
        }

    def _everywhere(
        self, namespace: str, checkpoint_id: str, commit: bytes | None, thread: str | None
    ) -> Iterator[CheckpointInfo]:
        """Yield the checkpoint from the threads that own its row, or as the given thread sees it.

        Forks see the rows of their base too; the base answers for them while it has its name and shows the checkpoint.
        """
        if thread is not None:
            info = self._seen_in(thread, namespace, checkpoint_id, commit)
            yield from [] if info is None else [info]
            return
        numbers = {each.number: each.name for each in self._directory.threads()}
        former: set[int] = set()
        for name in self._directory.names():
            former.update(name.former)
            if name.thread is not None and name.thread not in numbers:
                former.add(name.thread)
        everyone = [*numbers, *former]
        wanted = [keys.checkpoint_key(number, namespace, checkpoint_id) for number in everyone]
        owners = [
            number
            for number, key, raw in zip(everyone, wanted, self._core.storage.read(wanted), strict=True)
            if raw is not None and current_put(decode_events(key, raw)) is not None
        ]
        if not owners:
            return
        live = [numbers[number] for number in owners if number in numbers]
        found = [info for each in live if (info := self._seen_in(each, namespace, checkpoint_id, commit)) is not None]
        yield from found
        # What its own thread does not show any more, a fork may.
        others = [] if found else [name for name in numbers.values() if name not in live]
        for each in others:
            if (info := self._seen_in(each, namespace, checkpoint_id, commit)) is not None:
                yield info
                return

    def _seen_in(self, thread: str, namespace: str, checkpoint_id: str, commit: bytes | None) -> CheckpointInfo | None:
        info = self.describe(thread, namespace, checkpoint_id)
        return info if info is not None and (commit is None or info.id == commit.hex()) else None

    # -- suffixes -------------------------------------------------------------------------------------

    def _ends(self, reading: Reading, thread: str | None, namespace: str, typed: str) -> list[CheckpointInfo]:
        """Return what a reading leads to: nothing, or several checkpoints, where too few digits of an id are given."""
        anchor, suffixes = reading.anchor, reading.suffixes
        if suffixes and isinstance(suffixes[0], WithId) and isinstance(anchor, ThreadName | Relative):
            # Not by way of the head, which a thread need not have.
            name = anchor.name if isinstance(anchor, ThreadName) else _given(thread)
            if isinstance(anchor, ThreadName) and self._directory.find(name) is None:
                return []
            ends, suffixes = self._with_id(suffixes[0], name, typed), suffixes[1:]
        else:
            ends = list(self._anchor(reading, thread, namespace))
        for suffix in suffixes:
            if isinstance(suffix, WithId):
                ends = [end for each in ends for end in self._with_id(suffix, each.thread, typed)]
            else:
                ends = [self._step(suffix, each, typed) for each in ends]
        return ends

    def _with_id(self, suffix: WithId, thread: str, typed: str) -> list[CheckpointInfo]:
        if found := list(self._prefixed(suffix.prefix, thread)):
            return found
        why = f"thread {thread!r} has no checkpoint whose id begins so"
        raise _nowhere(typed, why, "ckpt log --subgraphs --json shows all ids")

    def _step(self, suffix: Suffix, info: CheckpointInfo, typed: str) -> CheckpointInfo:
        browser = self.require_browser(info.thread)
        line = browser.ancestors(info.namespace, info.checkpoint_id)
        if isinstance(suffix, Ancestor):
            return _nth(line, suffix.distance, f"~{suffix.distance}", typed)
        if isinstance(suffix, Parent):
            if suffix.number > max(len(info.parents), 1):
                why = f"^{suffix.number} starts from a checkpoint with {_counted(len(info.parents), 'parent')}"
                raise _nowhere(typed, why, "^N chooses among parents; to go further back write ~N")
            return _nth(line, 1, f"^{suffix.number}", typed)
        if isinstance(suffix, EarlierHead):
            moves = browser.timeline.head_moves(info.namespace)
            last = len(moves) - 1
            if suffix.distance > last:
                why = f"the head of thread {info.thread!r} has moved {_counted(last, 'time')}"
                raise _nowhere(typed, why, f"the earliest head is @{{{last}}}")
            earlier = self.describe(info.thread, info.namespace, moves[last - suffix.distance])
            if earlier is None:
                why = f"what was the head of thread {info.thread!r} {_counted(suffix.distance, 'move')} ago was pruned"
                raise _nowhere(typed, why, "ckpt log shows what is left")
            return earlier
        test, what = _condition(suffix)
        for ancestor in line:
            if test(ancestor):
                return ancestor
        hint = "ckpt log shows the steps, nodes and times there are, and with --json the runs"
        raise _nowhere(typed, f"none up to there {what}", hint)

    # -- errors ---------------------------------------------------------------------------------------

    def _ambiguous(
        self, revision: str, readings: list[Reading], found: list[tuple[Reading, CheckpointInfo]]
    ) -> AmbiguousRevisionError:
        names = list(dict.fromkeys(format_revision(reading) for reading in readings))
        if len(names) > 1:
            return AmbiguousRevisionError(
                f"{revision!r} can mean {len(names)} things: {', '.join(names)}",
                candidates=names,
                hints=[f"write one of: {' '.join(repr(name) for name in names)}", "in scripts use -t"],
            )
        infos = sorted({info.spec: info for _, info in found}.values(), key=lambda info: (info.thread, info.id))
        specs = [f"id:{info.id[:16]} in thread {info.thread!r}" for info in infos]
        return AmbiguousRevisionError(
            f"{revision!r} matches {len(specs)} checkpoints",
            candidates=[info.spec for info in infos],
            hints=[f"matches are: {', '.join(specs[:5])}", "give more digits, or the thread with -t"],
        )

    def _nothing(self, revision: str) -> RevisionNotFoundError:
        if revision.startswith("tag:"):
            return RevisionNotFoundError(f"no tag matches {revision!r}", hints=["ckpt tag lists all tags"])
        names = [record.name for record in self._directory.threads()]
        longer = [name for name in names if name.startswith(revision)]
        close = longer or difflib.get_close_matches(revision, names, 1)
        # A name that reads as something else is written out.
        meant = format_revision(Reading(ThreadName(revision), ())) if revision in close else "".join(close[:1])
        guess = f"did you mean {shlex.quote(meant)}?  " if meant else ""
        listing = f"ckpt threads lists all {len(names)}" if len(names) > 1 else "ckpt threads lists them"
        hints = [f"{guess}{listing}"] if names else [elsewhere(graphs(self._core)) or "there are no threads yet"]
        if _LIKE_A_MOMENT.search(revision):
            hints.append("a moment is written @{2h ago}, units s, min, h, d, w, or with its zone: @{2026-01-31T10:00Z}")
        if any(mark in revision for mark in "~^#{"):
            hints.append("ckpt help revisions explains what may follow a name")
        return RevisionNotFoundError(f"no thread or checkpoint matches {revision!r}", hints=hints)


def elsewhere(found: Iterable[GraphInfo]) -> str | None:
    """Return the hint, where a graph has no threads, that other graphs of the store have some; None if none has."""
    names = ["the default one" if not each.name else repr(each.name) for each in found if each.threads]
    if not names:
        return None
    return f"this graph has no threads; these have: {', '.join(names)}. Choose one with --graph, in Python with graph="


def _in_order(entries: list[tuple[bytes, Place]]) -> bool:
    """Return whether the first keys of an index ascend.

    A store that disguises its keys has an order of its own, which does so by chance once in 64! cases.
    """
    return all(one[0] < other[0] for one, other in pairwise(entries))


def _before(start: bytes) -> bytes:
    """Return a key just before `start`, since an index scan begins behind the key it is given."""
    number = int.from_bytes(start.ljust(INDEX_KEY_SIZE, b"\x00"), "big")
    return (number - 1).to_bytes(INDEX_KEY_SIZE, "big") if number else b""


def _given(thread: str | None) -> str:
    """Return the thread that a relative revision starts from, or raise InvalidInputError."""
    if thread is None:
        raise InvalidInputError(
            "this revision is relative, and no thread is given",
            hints=["name the thread with -t THREAD"],
        )
    return thread


def _described(browser: Browser, namespace: str, checkpoint_id: str) -> CheckpointInfo | None:
    found = browser.timeline.find(namespace, checkpoint_id)
    if found is None or found.shown is None:
        return None
    return browser.describe([found])[0]


def _nth(line: Iterator[CheckpointInfo], distance: int, suffix: str, typed: str) -> CheckpointInfo:
    position = 0
    for position, ancestor in enumerate(line):
        if position == distance:
            return ancestor
    why = f"{suffix} starts from a checkpoint with {_counted(position, 'ancestor')}"
    raise _nowhere(typed, why, "ckpt log shows how far back it goes")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _nowhere(typed: str, why: str, hint: str) -> RevisionNotFoundError:
    return RevisionNotFoundError(f"no checkpoint matches {typed}: {why}", hints=[hint])


def _condition(suffix: Suffix) -> tuple[Callable[[CheckpointInfo], bool], str]:
    if isinstance(suffix, AtStep):
        return lambda info: info.step == suffix.step, f"is at step {suffix.step}"
    if isinstance(suffix, BeforeNode):
        return lambda info: suffix.node in info.next, f"runs {suffix.node!r} next"
    if isinstance(suffix, InRun):
        return lambda info: info.run_id == suffix.run_id, f"was made by run {suffix.run_id}"
    if isinstance(suffix, Ago):
        moment = suffix.moment(datetime.now(UTC))
    else:
        assert isinstance(suffix, AtTime)
        moment = suffix.moment
    return lambda info: _older(info, moment), f"is from {moment.isoformat()} or earlier"


def _older(info: CheckpointInfo, moment: datetime) -> bool:
    try:
        stamp = datetime.fromisoformat(info.timestamp or "")
    except ValueError:
        return False
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)) <= moment
