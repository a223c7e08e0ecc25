"""Arguments of the wrong kind, method by method: an error that says what and why, nothing written, all goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg_pool
import pytest
import redis
from saver_kit import Calls, checkpoint, config, put, values

import ckpt
from ckpt.errors import CkptError, InvalidInputError, UnstorableValueError
from ckpt.langgraph import CkptSaver, CkptStore
from ckpt.repository.plain import is_plain
from ckpt.storage.memory import MemoryStorage

THING = SimpleNamespace()
NO_MAPPING: list[Any] = [0, 1, "ab", b"x", [1], [("a", 1)], {1}, THING, object]
NO_CONFIG: list[Any] = [0, 1, "ab", b"x", [1], [("a", 1)], {1}, {1: 2}, THING, object]
NO_COUNT: list[Any] = ["5", 1.5, 0.0, True, False, float("nan"), float("inf"), [], b"1", THING, -1]
NO_LIST: list[Any] = [None, 0, 1.5, "ab", b"ab", THING, object]
NO_TEXT: list[Any] = [None, 0, 1.5, True, b"x", [], ["a"], {}, ("a",), THING]
AT = config("t", "2")

Refused = tuple[list[Any], Callable[[Calls, Any], object]]
REFUSED: dict[str, Refused] = {
    "put: config": ([None, *NO_CONFIG], lambda api, odd: api.put(odd, checkpoint("9"), {}, {})),
    "put: checkpoint": ([None, {}, *NO_CONFIG], lambda api, odd: api.put(AT, odd, {}, {})),
    "put: values": (
        NO_MAPPING,
        lambda api, odd: api.put(AT, {**checkpoint("9"), "channel_values": odd}, {}, {}),
    ),
    "put: versions": (
        NO_MAPPING,
        lambda api, odd: api.put(AT, {**checkpoint("9", {"a": 2}), "channel_versions": odd}, {}, {}),
    ),
    "put: metadata": ([None, *NO_MAPPING], lambda api, odd: api.put(AT, checkpoint("9"), odd, {})),
    "put: the config's metadata": (
        NO_MAPPING[1:],
        lambda api, odd: api.put({**AT, "metadata": odd}, checkpoint("9"), {}, {}),
    ),
    "put: new_versions": ([None, *NO_MAPPING], lambda api, odd: api.put(AT, checkpoint("9", {"a": 2}), {}, odd)),
    "put: a value": ([THING, object], lambda api, odd: api.put(AT, checkpoint("9", {"a": [odd]}), {}, {})),
    "put: a value of metadata": ([THING, object], lambda api, odd: api.put(AT, checkpoint("9"), {"why": odd}, {})),
    "put_writes: writes": (
        [*NO_LIST, [None], [1], ["ab"], [b"ab"], [("a",)], [("a", 1, 2)], [("a", 1), None], {"ab": 1}, [{1, 2}]],
        lambda api, odd: api.put_writes(AT, odd, "task"),
    ),
    "put_writes: a value": ([THING], lambda api, odd: api.put_writes(AT, [("a", 1), ("b", odd)], "task")),
    "put_writes: task": (NO_TEXT, lambda api, odd: api.put_writes(AT, [("a", 1)], odd)),
    "get_tuple": ([None, *NO_CONFIG], lambda api, odd: api.get_tuple(odd)),
    "get_tuple: no thread": ([None], lambda api, odd: api.get_tuple(config(odd))),
    "list: config": (NO_CONFIG, lambda api, odd: api.list(odd)),
    "list: limit": (NO_COUNT, lambda api, odd: api.list(config("t"), limit=odd)),
    "list: filter": (NO_MAPPING, lambda api, odd: api.list(config("t"), filter=odd)),
    "list: before": (NO_CONFIG, lambda api, odd: api.list(config("t"), before=odd)),
    "history: channels": (
        [*NO_LIST, [1], [None], [["a"]]],
        lambda api, odd: api.get_delta_channel_history(config=AT, channels=odd),
    ),
    "delete_thread": ([None], lambda api, odd: api.delete_thread(odd)),
    "delete_for_runs": (NO_LIST, lambda api, odd: api.delete_for_runs(odd)),
    "copy_thread: source": ([None], lambda api, odd: api.copy_thread(odd, "new")),
    "copy_thread: target": ([None, "t"], lambda api, odd: api.copy_thread("t", odd)),
    "prune: ids": ([*NO_LIST, ["t", None]], lambda api, odd: api.prune(odd)),
    "prune: strategy": ([*NO_TEXT, "keep", ""], lambda api, odd: api.prune(["t"], strategy=odd)),
    "config: revision": (NO_TEXT, lambda api, odd: api.saver.config(odd)),
    "config: thread": (NO_TEXT, lambda api, odd: api.saver.config("@", thread=odd)),
    "next version": ([[], {}, b"", "x", THING], lambda api, odd: api.saver.get_next_version(odd, None)),
}

OPTIONS: dict[str, list[Any]] = {
    "store": [None, 1, b"x", [], THING, ""],
    "serde": [1, "json", [], {}, THING, object],
    "graph": NO_TEXT,
    "max_checkpoint_size": [None, *NO_COUNT, 0],
    "ttl": ["", "5", "-1d", 5, float("nan"), True, [], {"default_ttl": float("nan")}, {"default_ttl": -1}, {1: 2}],
    "retention": ["", "x", 5, True, [], {}, {"keep_last": 0}, {"keep_last": 1.5}, {"keep_within": 5}, THING],
    "configurable_keys": [0, True, "user", b"user", THING, [1], [["user"]], {None}],
    "on_conflict": NO_TEXT,
    "encryption_key": [0, 1.5, b"x", "", [], {}, THING],
}


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CkptSaver]:
    with CkptSaver("memory://" if request.param == "memory" else tmp_path / "store.db") as saver:
        put(saver, "t", "1", {"a": 1})
        put(saver, "t", "2", {"a": 2}, parent="1", metadata={"run_id": "r"})
        yield saver


def records(saver: CkptSaver) -> list[tuple[bytes, bytes]]:
    """Return every record of the store as it lies there."""
    return saver.repository.storage.scan(b"", b"\xff" * 8)


def refused(call: Callable[[], object]) -> CkptError:
    """Return the error of a call; its message and hints must be for people."""
    with pytest.raises(CkptError) as caught:
        call()
    told = [caught.value.message, *caught.value.hints]
    assert all(told)
    # A traceback shows them.
    assert getattr(caught.value, "__notes__", []) == [*caught.value.hints]
    assert "Traceback" not in "".join(told)
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_written(api: Calls, saver: CkptSaver, name: str) -> None:
    before = records(saver)
    odds, call = REFUSED[name]
    for odd in odds:
        error = refused(lambda odd=odd: call(api, odd))  # type: ignore[misc]
        assert isinstance(error, InvalidInputError) or odd == "t", (odd, error)
        assert records(saver) == before, odd
    api.put(AT, checkpoint("3", {"a": 3}), {}, {"a": 9})
    api.put_writes(config("t", "3"), [("b", 4)], "task")
    found = api.get_tuple(config("t"))
    assert (found.checkpoint["channel_values"], found.pending_writes) == ({"a": 3}, [("task", "b", 4)])
    assert [each.config["configurable"]["checkpoint_id"] for each in api.list(None)] == ["3", "2", "1"]


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_refused_before_anything_is_opened(tmp_path: Path, name: str) -> None:
    for odd in OPTIONS[name]:
        path = tmp_path / "store.db"
        given: dict[str, Any] = {"store": path} | {name: odd}
        assert isinstance(refused(lambda given=given: CkptSaver(**given)), InvalidInputError), odd  # type: ignore[misc]


def test_writes_may_come_from_a_generator(api: Calls) -> None:
    api.put_writes(AT, (pair for pair in [("b", 3), ("c", 4)]), "task")
    assert api.get_tuple(AT).pending_writes == [("task", "b", 3), ("task", "c", 4)]


def test_a_limit_above_all_that_can_be_counted_is_no_limit(api: Calls) -> None:
    assert len(api.list(config("t"), limit=10**30)) == 2


def test_keys_of_a_config_that_are_no_texts_are_left_out(api: Calls) -> None:
    given = config("t", "2")
    given["configurable"] |= {1: "a", None: "b", ("c",): "d", "user": "ana"}
    api.put(given | {"metadata": {2: "e", "team": "x"}}, checkpoint("3"), {}, {})
    assert api.get_tuple(config("t")).metadata == {"user": "ana", "team": "x"}


def test_what_the_serde_refuses_is_said_with_its_channel(api: Calls) -> None:
    for call, path in [
        (lambda: api.put(AT, checkpoint("9", {"fine": 1, "plan": THING}), {}, {}), "plan"),
        (lambda: api.put_writes(AT, [("fine", 1), ("plan", THING)], "task"), "plan"),
        (lambda: api.put(AT, checkpoint("9"), {"why": THING}, {}), "the metadata"),
    ]:
        with pytest.raises(UnstorableValueError, match=f"cannot store {path}: .*SimpleNamespace") as caught:
            call()
        assert caught.value.path == path
        assert isinstance(caught.value.__cause__, TypeError)


class Returning:
    """A serde that makes the same of everything."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def dumps_typed(self, value: object) -> Any:
        return self.made

    def loads_typed(self, data: tuple[str, bytes]) -> object:
        return data


@pytest.mark.parametrize(
    "made",
    [None, 1, "ab", ("a",), ("a", "b"), ("a", None), ("a", [1]), (1, b"x"), (None, b"x"), (b"a", b"x"), ("a", b"x", 1)],
    ids=repr,
)
def test_a_serde_that_makes_no_text_and_bytes_is_refused(api: Calls, saver: CkptSaver, made: object) -> None:
    before, sound = records(saver), saver.serde
    saver.serde = Returning(made)
    for call in (
        lambda: api.put(AT, checkpoint("9", {"a": 1}), {}, {}),
        lambda: api.put_writes(AT, [("a", 1)], "task"),
    ):
        with pytest.raises(InvalidInputError, match=r"the serde Returning made no \(str, bytes\)"):
            call()
    assert records(saver) == before
    saver.serde = sound
    assert values(saver, "t") == {"a": 2}


@pytest.mark.parametrize("data", [b"xyz", bytearray(b"xyz"), memoryview(b"xyz")], ids=lambda data: type(data).__name__)
def test_a_serde_may_make_any_kind_of_bytes(api: Calls, saver: CkptSaver, data: object) -> None:
    saver.serde = Returning(("mine", data))
    api.put_writes(AT, [("a", 1)], "task")
    saver.serde = Returning(None)
    stored = saver.repository.read("t")
    assert stored is not None
    assert saver.repository.load(stored.values())[-1] == b"xyz"


def test_no_run_is_not_a_run_named_none(api: Calls) -> None:
    for wanted in (["None"], [None], ["other"]):
        api.delete_for_runs(wanted)
        assert len(api.list(config("t"))) == 2
    api.delete_for_runs(["r"])
    assert [each.config["configurable"]["checkpoint_id"] for each in api.list(config("t"))] == ["1"]


def test_what_is_open_already_is_told_its_way_in() -> None:
    """Other savers take a connection or a pool; a URL is not the only thing that could be meant."""
    pool = psycopg_pool.ConnectionPool("", open=False)
    with redis.Redis() as client:
        for thing, way in (
            (pool, "Repository(PostgresStorage(connection))"),
            (client, "Repository(RedisStorage(client))"),
            (MemoryStorage(), "Repository("),
        ):
            unusable: Any = thing
            for open_it in (CkptSaver, CkptStore, ckpt.open):
                with pytest.raises(InvalidInputError, match=f"not by a {type(thing).__name__}") as caught:
                    open_it(unusable)
                assert way in caught.value.hints[1]


def test_values_of_a_fork_may_be_deep_and_not_without_end(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(450):
        deep = [deep]
    deeper, wide, round_about = [deep], 1, list[Any]()
    for _ in range(100):
        deeper, wide = [{"a": deeper}], [wide, wide]
    round_about.append(round_about)
    with CkptSaver(tmp_path / "a.db") as saver:
        saver.put(config("t"), checkpoint("1", {"a": 1}), {}, {"a": 1})
        saver.repository.fork("t", "deep", values={"a": deep})
        assert saver.get_tuple(config("deep")).checkpoint["channel_values"] == {"a": deep}
        for odd in (deeper, round_about):
            with pytest.raises(UnstorableValueError, match="a is not plain data"):
                saver.repository.fork("t", "deeper", values={"a": odd})
        assert is_plain(wide)
