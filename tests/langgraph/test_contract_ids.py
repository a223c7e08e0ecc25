"""Thread ids, namespaces and checkpoint ids of every shape: each names exactly one thing, and no other."""

from __future__ import annotations

import enum
import uuid
from typing import Any

import pytest
from saver_kit import Calls, config, ids, put, values

HOSTILE = [
    "plain",
    "Plain",
    "plain ",
    "",
    " ",
    "'",
    '"',
    "''; DROP TABLE checkpoints; --",
    '" OR "1"="1',
    "%",
    "_",
    "*",
    "?",
    "[a-z]*",
    "a:b",
    "a",
    "b|c",
    "a:b|c",
    "a\\:b",
    "plain\x00",
    "\x00",
    "plain\n",
    "line\nbreak",
    "{tag}",
    "$ne",
    "../../etc/passwd",
    "ünï",
    "u\u0308ni\u0308",
    "😀",
    "\ud800",
    "\udfff lone",
    "\U0010ffff",
    "L" * 65_536,
    "L" * 65_535,
    "L" * 65_535 + "M",
]
ENCODABLE = [name for name in HOSTILE if not any("\ud800" <= letter <= "\udfff" for letter in name)]


class Tenant(str, enum.Enum):  # noqa: UP042 - of which `str` is another text
    ACME = "acme"


def test_hostile_thread_ids_never_mix(api: Calls) -> None:
    for n, name in enumerate(HOSTILE):
        put(api, name, "1", {"n": n}, metadata={"n": n})
        api.put_writes(config(name, "1"), [("ch", n)], "task")
    for n, name in enumerate(HOSTILE):
        found = api.get_tuple(config(name))
        assert found.config["configurable"]["thread_id"] == name
        assert found.checkpoint["channel_values"] == {"n": n}
        assert found.pending_writes == [("task", "ch", n)]
        assert [each.metadata for each in api.list(config(name))] == [{"n": n}]
    assert {found.config["configurable"]["thread_id"] for found in api.list(None)} == set(HOSTILE)


@pytest.mark.parametrize("victim", ["%", "*", "plain", "", "a:b", "\x00", "\ud800", "L" * 65_535], ids=repr)
def test_deleting_or_pruning_a_hostile_id_touches_no_other(saver: Any, victim: str) -> None:
    for n, name in enumerate(HOSTILE):
        put(saver, name, "1", {"n": n})
        put(saver, name, "2", {"n": n}, parent="1")
    saver.prune([victim])
    assert len(list(saver.list(None))) == 2 * len(HOSTILE) - 1
    saver.copy_thread(victim, "copy of it")
    saver.delete_thread(victim)
    assert saver.get_tuple(config(victim)) is None
    left = [name for name in HOSTILE if saver.get_tuple(config(name)) is not None]
    assert left == [name for name in HOSTILE if name != victim]
    assert values(saver, "copy of it") == {"n": HOSTILE.index(victim)}


def test_hostile_namespaces_never_mix(api: Calls) -> None:
    for n, name in enumerate(HOSTILE):
        put(api, "t", "1", {"n": n}, ns=name)
        api.put_writes(config("t", "1", name), [("ch", n)], "task")
    for n, name in enumerate(HOSTILE):
        found = api.get_tuple(config("t", ns=name))
        assert found.config["configurable"]["checkpoint_ns"] == name
        assert found.checkpoint["channel_values"] == {"n": n}
        assert found.pending_writes == [("task", "ch", n)]
        assert len(api.list(config("t", ns=name))) == 1
    assert len(api.list(config("t", ns=None))) == len(HOSTILE)


def test_hostile_checkpoint_ids_never_mix(api: Calls) -> None:
    names = [name for name in ENCODABLE if 0 < len(name) < 100]
    for n, name in enumerate(names):
        put(api, "t", name, {"n": n})
        api.put_writes(config("t", name), [("ch", n)], "task")
    for n, name in enumerate(names):
        found = api.get_tuple(config("t", name))
        assert found.checkpoint["id"] == name
        assert found.checkpoint["channel_values"] == {"n": n}
        assert found.pending_writes == [("task", "ch", n)]
    assert ids(api.list(config("t"))) == sorted(names, reverse=True)
    assert set(ids(api.list(config("t"), before=config("t", "a")))) == {name for name in names if name < "a"}


def test_hostile_task_ids_and_channels_never_mix(api: Calls) -> None:
    put(api, "t", "1")
    for n, name in enumerate(ENCODABLE):
        api.put_writes(config("t", "1"), [(name, n)], name, name)
    found = {task: (channel, n) for task, channel, n in api.get_tuple(config("t")).pending_writes}
    assert found == {name: (name, n) for n, name in enumerate(ENCODABLE)}


def test_two_parts_of_an_address_cannot_be_shifted_into_each_other(api: Calls) -> None:
    places = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("a|b", ""),
        ("a", "|b"),
        ("a\x00b", "c"),
        ("a", "b\x00c"),
        ("", "a"),
    ]
    for n, (thread, ns) in enumerate(places):
        put(api, thread, "1", {"n": n}, ns=ns)
    for n, (thread, ns) in enumerate(places):
        assert values(api, thread, ns=ns) == {"n": n}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (7, "7"),
        (-1, "-1"),
        (uuid.UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
        # Texts of a class of their own are the text that they are, whatever `str` says of them.
        (Tenant.ACME, "acme"),
    ],
)
def test_other_thread_ids_are_their_text(api: Calls, given: object, name: str) -> None:
    returned = put(api, given, "1", {"a": 1})
    assert returned["configurable"]["thread_id"] == name
    api.put_writes(config(given, "1"), [("ch", 1)], "task")
    for thread in (given, name):
        found = api.get_tuple(config(thread))
        assert found.config["configurable"]["thread_id"] == name
        assert found.pending_writes == [("task", "ch", 1)]
        assert len(api.list(config(thread))) == 1
    put(api, name, "2", {"a": 2}, parent="1")
    assert values(api, given) == {"a": 2}
    api.copy_thread(given, 8)
    assert values(api, "8") == {"a": 2}
    api.prune([given])
    assert ids(api.list(config(name))) == ["2"]
    api.delete_thread(given)
    assert api.get_tuple(config(name)) is None
