"""What `list` yields: which checkpoints, in which order, how many, and while others write."""

from __future__ import annotations

import threading
from typing import Any

import numpy
import pytest
from saver_kit import Calls, config, ids, put


def fill(api: Calls, thread: str, count: int, ns: str = "") -> None:
    for n in range(1, count + 1):
        parent = str(n - 1) if n > 1 else None
        put(api, thread, str(n), {"n": n}, parent=parent, ns=ns, metadata={"step": n, "odd": n % 2 == 1})


def test_newest_first_and_complete(api: Calls) -> None:
    fill(api, "t", 5)
    api.put_writes(config("t", "3"), [("ch", "w")], "task")
    listed = api.list(config("t"))
    assert ids(listed) == ["5", "4", "3", "2", "1"]
    for found in listed:
        single = api.get_tuple(config("t", found.config["configurable"]["checkpoint_id"]))
        assert found.checkpoint == single.checkpoint
        assert found.metadata == single.metadata
        assert found.parent_config == single.parent_config
        assert found.pending_writes == single.pending_writes


def test_without_a_namespace_all_are_covered_and_get_tuple_takes_the_root(api: Calls) -> None:
    put(api, "t", "2")
    put(api, "t", "1", ns="child:1")
    put(api, "t", "3", ns="child:1|grand:2")
    assert ids(api.list(config("t", ns=None))) == ["3", "2", "1"]
    assert ids(api.list(config("t"))) == ["2"]
    assert ids(api.list(config("t", ns="child:1"))) == ["1"]
    assert ids([api.get_tuple(config("t", ns=None))]) == ["2"]
    namespaces = [found.config["configurable"]["checkpoint_ns"] for found in api.list(config("t", ns=None))]
    assert namespaces == ["child:1|grand:2", "", "child:1"]


def test_an_id_in_the_config_selects(api: Calls) -> None:
    fill(api, "t", 3)
    put(api, "t", "2", ns="child:1")
    assert ids(api.list(config("t", "2"))) == ["2"]
    assert api.list(config("t", "9")) == []
    selected = api.list(config("t", "2", ns=None))
    assert {found.config["configurable"]["checkpoint_ns"] for found in selected} == {"", "child:1"}


def test_any_whole_number_is_a_limit(api: Calls) -> None:
    for thread in ("a", "b"):
        put(api, thread, "1")
        put(api, thread, "2", parent="1")
    assert ids(api.list(None, limit=numpy.int64(3))) == ["2", "2", "1"]


def test_before_is_strictly_less_by_id(api: Calls) -> None:
    fill(api, "t", 5)
    assert ids(api.list(config("t"), before=config("t", "3"))) == ["2", "1"]
    assert ids(api.list(config("t"), before=config("t", "3-never-stored"))) == ["3", "2", "1"]
    assert ids(api.list(config("t"), before=config("t", "1"))) == []
    assert ids(api.list(config("t"), before=config("t"))) == ["5", "4", "3", "2", "1"]


def test_before_goes_by_id_even_when_the_head_does_not(api: Calls) -> None:
    put(api, "t", "9")
    put(api, "t", "3", parent="9")
    assert ids(api.list(config("t"), before=config("t", "9"))) == ["3"]
    assert ids(api.list(config("t"), before=config("t", "3"))) == []


def test_limit_counts_after_the_filter(api: Calls) -> None:
    fill(api, "t", 7)
    assert ids(api.list(config("t"), limit=2)) == ["7", "6"]
    assert ids(api.list(config("t"), filter={"odd": False}, limit=2)) == ["6", "4"]
    assert ids(api.list(config("t"), filter={"odd": True}, before=config("t", "6"), limit=2)) == ["5", "3"]
    assert ids(api.list(config("t"), limit=100)) == ["7", "6", "5", "4", "3", "2", "1"]


def test_limit_zero_yields_nothing_and_a_negative_one_is_an_error(api: Calls) -> None:
    fill(api, "t", 2)
    assert api.list(config("t"), limit=0) == []
    assert api.list(None, limit=0) == []
    with pytest.raises(ValueError, match="limit"):
        api.list(config("t"), limit=-1)
    with pytest.raises(ValueError, match="limit"):
        api.list(None, limit=-5)


def test_none_covers_all_threads(api: Calls) -> None:
    fill(api, "t", 2)
    fill(api, "u", 3)
    put(api, "u", "1", ns="child:1", metadata={"step": 1})
    everything = api.list(None)
    places = [tuple(found.config["configurable"].values()) for found in everything]
    assert len(places) == len(set(places)) == 6
    assert {found.config["configurable"]["thread_id"] for found in everything} == {"t", "u"}
    assert len(api.list(None, filter={"step": 1})) == 3
    assert len(api.list(None, limit=4)) == 4
    assert sorted(ids(api.list(None, before=config("t", "2")))) == ["1", "1", "1"]


STORED: dict[str, dict[str, Any]] = {
    "empty": {},
    "none": {"k": None},
    "one": {"k": 1},
    "true": {"k": True},
    "false": {"k": False},
    "zero": {"k": 0},
    "text": {"k": "1"},
    "nested": {"k": {"a": 1}},
    "wider": {"k": {"a": 1, "b": 2}},
    "deep": {"k": {"a": {"b": [1, {"c": None}]}}},
    "array": {"k": [1, 2]},
    "odd names": {"a.b": 1, 'quo"te': 2, "it's": 3, "per%cent_": 4, "": 5, "$.k": 6, "ключ": 7, "x]": 8},
    "parted": {"a": {"b": 1}},
}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, set(STORED)),
        ({"k": 1}, {"one"}),
        ({"k": True}, {"true"}),
        ({"k": False}, {"false"}),
        ({"k": 0}, {"zero"}),
        ({"k": "1"}, {"text"}),
        ({"k": None}, {"none"}),
        ({"k": {"a": 1}}, {"nested"}),
        ({"k": {"b": 2, "a": 1}}, {"wider"}),
        ({"k": {"a": {"b": [1, {"c": None}]}}}, {"deep"}),
        ({"k": {}}, set()),
        ({"k": [1, 2]}, {"array"}),
        ({"k": [2, 1]}, set()),
        ({"a.b": 1}, {"odd names"}),
        ({'quo"te': 2}, {"odd names"}),
        ({"it's": 3}, {"odd names"}),
        ({"per%cent_": 4}, {"odd names"}),
        ({"": 5}, {"odd names"}),
        ({"$.k": 6}, {"odd names"}),
        ({"ключ": 7, "x]": 8}, {"odd names"}),
        ({"ключ": 7, "x]": 9}, set()),
        ({"missing": None}, set()),
        ({"k') OR 1=1 --": 1}, set()),
        ({"k": "' OR '1'='1"}, set()),
        ({"k": {"$ne": 1}}, set()),
        ({"%": 1}, set()),
    ],
)
def test_a_filter_compares_by_equality(api: Calls, wanted: dict[str, Any], found: set[str]) -> None:
    for name, metadata in STORED.items():
        put(api, "t", name, metadata=metadata)
    assert set(ids(api.list(config("t"), filter=wanted))) == found
    assert set(ids(api.list(None, filter=wanted))) == found


def test_puts_and_reads_while_a_list_is_half_read(saver: Any, make_saver: Any) -> None:
    fill(saver, "t", 6)
    other = make_saver()
    seen = []
    for position, found in enumerate(saver.list(config("t"))):
        name = found.config["configurable"]["checkpoint_id"]
        seen.append(name)
        assert saver.get_tuple(config("t", name)).checkpoint == found.checkpoint
        put(saver, "t", f"9-{position}", parent=name)
        saver.put_writes(config("t", name), [("ch", position)], "task")
        put(other, "t", f"8-{position}", parent=name)
    assert [name for name in seen if len(name) == 1] == ["6", "5", "4", "3", "2", "1"]
    assert len(list(saver.list(config("t")))) == 18


def test_a_list_left_half_read_blocks_nobody(saver: Any, make_saver: Any) -> None:
    fill(saver, "t", 4)
    left = saver.list(config("t"))
    assert ids([next(left)]) == ["4"]
    also_left = saver.list(None)
    next(also_left)
    put(make_saver(), "t", "5", parent="4")
    put(saver, "u", "1")
    saver.delete_thread("u")
    assert ids(saver.list(config("t"))) == ["5", "4", "3", "2", "1"]
    assert ids(left)[-3:] == ["3", "2", "1"]


def test_lists_from_several_threads_while_one_puts(saver: Any) -> None:
    fill(saver, "t", 20)
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                names = ids(saver.list(config("t")))
                assert [name for name in names if name.isdigit()] == sorted(map(str, range(1, 21)), reverse=True)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for n in range(20):
        put(saver, "t", f"x-{n:02}", {"n": n})
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(ids(saver.list(config("t")))) == 40


def test_one_iterator_may_be_advanced_from_several_threads(saver: Any) -> None:
    fill(saver, "t", 9)
    iterator = saver.list(config("t"))
    names: list[str] = []
    for _ in range(3):
        worker = threading.Thread(target=lambda: names.extend(ids(next(iterator) for _ in range(3))))
        worker.start()
        worker.join()
    assert names == ["9", "8", "7", "6", "5", "4", "3", "2", "1"]
