"""Where subgraphs stood at each root checkpoint, against the model, after rewinds and puts that come late or again."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgpack
from history_model import Event, Line, Put, Reset, length_at, view
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckpt.repository import Repository
from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.storage.memory import MemoryStorage

SUBS = ("sub", "sub|deep")
ACTS = [
    *("root", "root", "sub", "sub", "checkout", "checkout"),
    *("root behind", "sub behind", "late root", "late sub", "late sub behind", "root again", "sub again"),
]
"""`behind`: of a host whose clock is. `late`: of a run that began at any earlier checkpoint, or at none."""


def packed(value: object) -> Typed:
    return Typed("msgpack", msgpack.packb(value))


class History:
    def __init__(self) -> None:
        self.repository = Repository(MemoryStorage())
        self.events: list[Event] = []
        self.numbers = count(1)

    def put(self, namespace: str, checkpoint_id: str, parent: str | None) -> None:
        self.repository.put(
            NewCheckpoint("t", namespace, checkpoint_id, parent, None, packed({}), packed({}), {}),
        )
        self.events.append(Put(namespace, checkpoint_id, parent, {}))

    def act(self, what: str, data: st.DataObject) -> None:
        told = view(self.events)
        namespace = data.draw(st.sampled_from(("sub", *SUBS))) if "sub" in what else ""
        there = told.ids(namespace)
        if what == "checkout" and there:
            self.checkout(data.draw(st.sampled_from(there)))
        elif "again" in what and there:
            put = told.puts[namespace, data.draw(st.sampled_from(there))]
            self.put(namespace, put.checkpoint_id, put.parent)
        else:
            parent = told.lines.get(namespace, Line()).head
            if "late" in what:
                parent = data.draw(st.sampled_from([None, *there]))
            self.put(namespace, f"{'0' if 'behind' in what else '9'}{next(self.numbers):05}", parent)

    def checkout(self, checkpoint_id: str) -> None:
        made = self.repository.checkout(f'ckpt:"{checkpoint_id}"', thread="t").checkpoint_id
        if made != checkpoint_id:
            length = length_at(self.events, checkpoint_id)
            self.events += [Put("", made, checkpoint_id, {}), Reset(length)]

    def check(self) -> None:
        timeline, told = self.repository.timeline("t"), view(self.events)
        assert timeline is not None
        for namespace in ("", *SUBS):
            head = told.lines.get(namespace, Line()).head
            assert timeline.head(namespace) == head, namespace
            found: Any = self.repository.read("t", namespace)
            assert (found and found.checkpoint_id) == head
            for each in told.ids(namespace):
                assert self.repository.read("t", namespace, each) is not None
        for root in told.ids(""):
            then = view(self.events[: length_at(self.events, root)]).lines
            moment = timeline.moment(root)
            assert moment is not None
            for namespace in SUBS:
                head = timeline.head_at(moment[0], namespace, moment[1])
                assert head == then.get(namespace, Line()).head, f"{namespace} at {root}"


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data(), acts=st.lists(st.sampled_from(ACTS), min_size=4, max_size=25))
def test_a_root_checkpoint_knows_where_its_subgraphs_stood(data: st.DataObject, acts: list[str]) -> None:
    history = History()
    for what in acts:
        history.act(what, data)
        history.check()
    assert history.repository.fsck().problems == []
