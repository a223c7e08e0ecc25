"""Which serializer is used: the one `saver.serde` names when the call comes, also in copies of the saver."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from saver_kit import Calls, NonceCipher, config, put, values

from ckpt.errors import StateTooLargeError, UnstorableValueError


@dataclass
class Point:
    x: int
    y: int


class Marking(JsonPlusSerializer):
    """Stores under a type of its own, not msgpack, and counts what passes."""

    def __init__(self, mark: bytes) -> None:
        super().__init__()
        self.mark = mark
        self.dumped: list[Any] = []

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        self.dumped.append(obj)
        kind, data = super().dumps_typed(obj)
        return f"marked:{kind}", self.mark + data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, body = data
        assert kind.startswith("marked:")
        assert body.startswith(self.mark)
        return super().loads_typed((kind.removeprefix("marked:"), body[len(self.mark) :]))


class Untyped:
    """A serializer of the older protocol: bytes without a type."""

    def dumps(self, obj: Any) -> bytes:
        return repr(obj).encode()

    def loads(self, data: bytes) -> Any:
        return eval(data.decode(), {"__builtins__": {}})


def test_a_custom_serializer_stores_and_loads_channels_and_writes(make_saver: Any) -> None:
    serde = Marking(b"!")
    saver = make_saver(serde=serde)
    put(saver, "t", "1", {"a": [1, 2], "b": "text"})
    saver.put_writes(config("t", "1"), [("ch", {"k": 1})], "task")
    found = make_saver(serde=Marking(b"!")).get_tuple(config("t"))
    assert found.checkpoint["channel_values"] == {"a": [1, 2], "b": "text"}
    assert found.pending_writes == [("task", "ch", {"k": 1})]
    for value in ([1, 2], "text", {"k": 1}):
        assert value in serde.dumped


def test_an_untyped_serializer_works(make_saver: Any) -> None:
    saver = make_saver(serde=Untyped())
    put(saver, "t", "1", {"a": (1, {2, 3}), "b": None})
    saver.put_writes(config("t", "1"), [("ch", (4,))], "task")
    found = make_saver(serde=Untyped()).get_tuple(config("t"))
    assert found.checkpoint["channel_values"] == {"a": (1, {2, 3}), "b": None}
    assert found.pending_writes == [("task", "ch", (4,))]


def test_the_serializer_is_looked_up_when_called(api: Calls) -> None:
    put(api, "t", "1", {"a": "default"})
    ours = Marking(b"?")
    api.saver.serde = ours
    put(api, "t", "2", {"a": "marked"}, parent="1")
    api.put_writes(config("t", "2"), [("ch", "marked write")], "task")
    assert values(api, "t", "2") == {"a": "marked"}
    assert {"marked", "marked write"} <= {each for each in ours.dumped if isinstance(each, str)}
    api.saver.serde = JsonPlusSerializer()
    assert values(api, "t", "1") == {"a": "default"}


def test_a_copy_of_the_saver_shares_the_store_and_not_the_serializer(api: Calls) -> None:
    twin = Calls(copy.copy(api.saver), api.asynchronous)
    twin.saver.serde = Marking(b"#")
    put(api, "t", "1", {"a": 1})
    put(twin, "u", "1", {"a": 2})
    assert values(twin, "u") == {"a": 2}
    assert not isinstance(api.saver.serde, Marking)
    assert values(api, "t") == {"a": 1}


def test_with_allowlist_gives_a_saver_on_the_same_store(make_saver: Any) -> None:
    saver = make_saver(serde=JsonPlusSerializer(allowed_msgpack_modules=()))
    allowed = saver.with_allowlist([(Point.__module__, Point.__name__)])
    assert type(allowed) is type(saver)
    assert allowed is not saver
    put(allowed, "t", "1", {"p": Point(1, 2)})
    assert values(allowed, "t") == {"p": Point(1, 2)}
    assert values(saver, "t") != {"p": Point(1, 2)}
    put(saver, "t", "2", {"p": 3}, parent="1")
    assert values(allowed, "t") == {"p": 3}
    assert allowed.repository is saver.repository


def test_an_encrypting_serializer_works(make_saver: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saver = make_saver(serde=EncryptedSerializer(NonceCipher()))
        again = make_saver(serde=EncryptedSerializer(NonceCipher()))
    for name, parent in (("1", None), ("2", "1"), ("3", "2")):
        put(saver, "t", name, {"a": ["secret", name]}, parent=parent)
        saver.put_writes(config("t", name), [("ch", ["w", name])], "task")
    for name in ("1", "2", "3"):
        found = again.get_tuple(config("t", name))
        assert found.checkpoint["channel_values"] == {"a": ["secret", name]}
        assert found.pending_writes == [("task", "ch", ["w", name])]


WARNING_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from saver_kit import NonceCipher, put
from ckpt.langgraph import CkptSaver
plain = CkptSaver("memory://")
put(plain, "t", "1", {"a": 1})
print("plain done", file=sys.stderr)
for _ in range(2):
    saver = CkptSaver("memory://", serde=EncryptedSerializer(NonceCipher()))
    put(saver, "t", "1", {"a": 1})
    put(saver, "t", "2", {"a": 2}, parent="1")
"""


def test_an_encrypting_serializer_warns_once_that_nothing_is_shared() -> None:
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", WARNING_SCRIPT, str(here)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=here.parent.parent,
    )
    before, _, after = done.stderr.partition("plain done")
    assert "crypt" not in before.lower()
    assert after.count("EncryptedSerializer") == 1, done.stderr


def test_values_come_back_as_the_serializer_alone_would_return_them(api: Calls) -> None:
    serde = api.saver.serde
    odd: dict[str, Any] = {
        "none": None,
        "empty": [],
        "bytes": bytes(range(256)) * 40,
        "bytearray": bytearray(b"xyz"),
        "set": {1, 2},
        "tuple": (1, (2, "three")),
        "big text": "line of text\n" * 5000,
        "many": [{"id": n, "text": f"message {n}"} for n in range(2000)],
        "float": [1.5, float("inf"), -0.0],
        "deep": [[[[[[{"k": {"k": {"k": [None]}}}]]]]]],
    }
    put(api, "t", "1", odd)
    expected = {name: serde.loads_typed(serde.dumps_typed(value)) for name, value in odd.items()}
    found = values(api, "t")
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


def test_a_checkpoint_above_the_limit_is_refused_with_nothing_written(make_saver: Any) -> None:
    saver = make_saver(max_checkpoint_size=100_000)
    put(saver, "t", "1", {"small": "x"})
    with pytest.raises(StateTooLargeError) as caught:
        put(
            saver,
            "t",
            "2",
            {"small": "x", "huge": os.urandom(200_000), "large": os.urandom(50_000)},
            parent="1",
        )
    assert "huge" in str(caught.value)
    assert caught.value.channels["huge"] >= 200_000
    assert caught.value.size > caught.value.limit == 100_000
    assert values(saver, "t") == {"small": "x"}
    assert saver.get_tuple(config("t", "2")) is None
    put(saver, "t", "2", {"small": "y"}, parent="1")
    assert values(saver, "t") == {"small": "y"}


def test_writes_of_one_channel_are_counted_together(make_saver: Any) -> None:
    saver = make_saver(max_checkpoint_size=100_000)
    put(saver, "t", "1", {"small": "x"})
    with pytest.raises(StateTooLargeError) as caught:
        saver.put_writes(config("t", "1"), [("many", os.urandom(60_000)), ("many", os.urandom(60_000))], "task")
    assert caught.value.size == caught.value.channels["many"] == 120_000
    assert saver.get_tuple(config("t")).pending_writes == []


def test_no_limit_is_higher_than_what_can_be_read(make_saver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpt.repository.options.LENGTH_MAX", 100_000)
    saver = make_saver(max_checkpoint_size=10**15)
    with pytest.raises(StateTooLargeError) as caught:
        put(saver, "t", "1", {"huge": os.urandom(200_000)})
    assert caught.value.limit == 100_000


@pytest.mark.parametrize("serde", [Marking(b"!"), EncryptedSerializer(NonceCipher())], ids=["marking", "encrypted"])
@pytest.mark.parametrize("name", ["x", "new"])
def test_a_fork_sets_nothing_that_a_serde_of_its_own_could_not_read(make_saver: Any, serde: Any, name: str) -> None:
    saver = make_saver(serde=serde)
    put(saver, "t", "1", {"x": "old"})
    with pytest.raises(UnstorableValueError, match="by a serde of its own") as caught:
        saver.repository.fork("t", "f", values={name: "a secret"})
    assert caught.value.path == name
    assert saver.get_tuple(config("f")) is None
    saver.repository.fork("t", "f")
    assert values(saver, "f") == {"x": "old"}


@pytest.mark.parametrize("value", ["a\ud800b", {"\udfff": 1}, ["deep", {"a": "\ud800"}]])
def test_a_fork_sets_no_text_that_langgraph_could_not_read(make_saver: Any, value: object) -> None:
    saver = make_saver()
    put(saver, "t", "1", {"x": "old"})
    with pytest.raises(UnstorableValueError, match="x is nothing that a framework could read"):
        saver.repository.fork("t", "f", values={"x": value})
    assert [found.config["configurable"]["thread_id"] for found in saver.list(None)] == ["t"]
