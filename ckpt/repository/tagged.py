"""The checkpoints that carry tags, thread by thread: each is looked through once, however many tags it has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ckpt.errors import IntegrityError
from ckpt.history import clock, keys
from ckpt.history.records import ThreadRecord
from ckpt.repository.browse import Browser
from ckpt.repository.core import Core
from ckpt.repository.infos import CheckpointInfo
from ckpt.repository.tags import Tag, by_commit
from ckpt.repository.timeline import Timeline


def in_own_threads(core: Core, tags: Sequence[Tag]) -> dict[str, CheckpointInfo]:
    """Return, by tag, the checkpoints that are shown by the threads that the tags were put on.

    Left out are those of threads that are gone or damaged, and what its thread does not show: others may show it.
    """
    places: defaultdict[tuple[int, str], list[Tag]] = defaultdict(list)
    for tag in tags:
        places[tag.thread, tag.namespace].append(tag)
    numbers = sorted({number for number, _ in places})
    raws = core.storage.read([keys.thread_key(number) for number in numbers])
    records = dict(zip(numbers, raws, strict=True))
    names = by_commit(tags)
    now = clock.now_ms()
    found: dict[str, CheckpointInfo] = {}
    for (number, namespace), here in places.items():
        raw = records[number]
        # What was removed meanwhile looks like damage too.
        with suppress(IntegrityError):
            thread = ThreadRecord.decode(number, raw) if raw is not None else None
            if thread is not None and not thread.deleted and not thread.lapsed(now):
                browser = Browser(core, Timeline(core, thread), names)
                found |= _described(browser, namespace, here)
    return found


def _described(browser: Browser, namespace: str, tags: Iterable[Tag]) -> dict[str, CheckpointInfo]:
    ids = list(dict.fromkeys(tag.checkpoint_id for tag in tags))
    shown = [found for found in browser.timeline.find_many(namespace, ids) if found is not None and found.shown]
    infos = {info.checkpoint_id: info for info in browser.describe(shown)}
    own = ((tag, infos.get(tag.checkpoint_id)) for tag in tags)
    return {tag.name: info for tag, info in own if info is not None and info.id == tag.commit.hex()}
