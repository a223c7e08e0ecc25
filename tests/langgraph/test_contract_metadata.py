"""What becomes of metadata: merged with the config's, secrets left out, everything else as it was given."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import numpy
import pytest
from saver_kit import Calls, checkpoint, config, put

from ckpt.langgraph import CkptSaver

SECRETS = {
    "db_password": "hunter2-a",
    "PASSWORD": "hunter2-b",
    "client_secret": "hunter2-c",
    "access_token": "hunter2-d",
    "my_api_key": "hunter2-e",
    "X-API-Key": "hunter2-f",
    "openaiApiKey": "hunter2-g",
    "aws_credentials": "hunter2-h",
    "credential": "hunter2-i",
    "Authorization": "hunter2-j",
}


def put_with(saver: Any, configurable: dict[str, Any], given: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Put a checkpoint under a rich config and return the metadata it comes back with."""
    rich = {"configurable": {"thread_id": "t", "checkpoint_ns": "", **configurable}, **rest}
    saver.put(rich, checkpoint("1"), given, {})
    found = saver.get_tuple(config("t", "1"))
    listed = next(iter(saver.list(config("t"))))
    assert listed.metadata == found.metadata
    return dict(found.metadata)


def test_plain_values_of_the_config_are_merged_in(api: Calls) -> None:
    configurable = {
        "checkpoint_id": "0",
        "checkpoint_map": {"": "0"},
        "model": "gpt",
        "temperature": 0.5,
        "flag": True,
        "count": 3,
        "an_object": object(),
        "a_list": [1],
        "nothing": None,
        "__pregel_private": "x",
    }
    merged = put_with(
        api,
        configurable,
        {"source": "loop", "step": 1, "model": "the call's own wins", "nested": {"k": [1, None]}},
        metadata={
            "user": "ana",
            "flag": "the first to say it wins",
            "langgraph_step": 4,
            "checkpoint_ns": "no",
        },
    )
    assert merged == {
        "source": "loop",
        "step": 1,
        "model": "the call's own wins",
        "nested": {"k": [1, None]},
        "user": "ana",
        "flag": "the first to say it wins",
        "temperature": 0.5,
        "count": 3,
    }


def test_merged_values_can_be_filtered_by(api: Calls) -> None:
    for name, user in (("1", "ana"), ("2", "bo")):
        rich = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "user": user}}
        api.put(rich, checkpoint(name), {}, {})
    assert [found.checkpoint["id"] for found in api.list(None, filter={"user": "ana"})] == ["1"]


def test_metadata_comes_back_as_it_was_given(api: Calls) -> None:
    given = {
        "source": "loop",
        "step": -1,
        "parents": {"": "1", "child:1": "2"},
        "run_id": "run",
        "none": None,
        "writes": {"node": {"messages": ["kept"]}},
        "counters_since_delta_snapshot": {"ch": [1, 2]},
        "deep": {"a": [{"b": None}, 1.5, "é\n"]},
        "": "unnamed",
    }
    put(api, "t", "1", metadata=given)
    assert api.get_tuple(config("t")).metadata == given


def test_values_that_look_like_secrets_are_not_stored(api: Calls) -> None:
    merged = put_with(api, {**SECRETS, "model": "m"}, {"step": 1}, metadata={**SECRETS, "user": "ana"})
    assert merged == {"step": 1, "model": "m", "user": "ana"}


def test_settings_of_a_model_are_no_secrets(api: Calls) -> None:
    settings = {"max_tokens": 256, "token_budget": 0.5, "tokenizer": "cl100k", "detokenise": True}
    hidden = {"tokens": "hunter2", "pin_secret": 1234, "api_token_password": 7}
    assert put_with(api, {**settings, **hidden}, {"step": 1}) == {"step": 1, **settings}


class Role(str, enum.Enum):  # noqa: UP042 - of which `str` is another text
    ADMIN = "admin"


class Tier(enum.IntEnum):
    GOLD = 3


def test_texts_and_numbers_of_other_classes_are_stored_plain(api: Calls) -> None:
    odd = {"role": Role.ADMIN, "tier": Tier.GOLD, "temperature": numpy.float64(0.5), "flag": True}
    merged = put_with(api, odd, {"step": 1})
    assert merged == {"step": 1, "role": "admin", "tier": 3, "temperature": 0.5, "flag": True}
    kinds = {name: type(value) for name, value in merged.items()}
    assert kinds == {"step": int, "role": str, "tier": int, "temperature": float, "flag": bool}
    assert len(api.list(config("t"), filter={"role": "admin", "tier": 3})) == 1


def test_no_byte_of_a_secret_reaches_the_file(tmp_path: Path) -> None:
    saver = CkptSaver(tmp_path / "store.ckpt")
    put_with(saver, SECRETS, {"step": 1}, metadata=SECRETS)
    saver.put_writes({"configurable": {**config("t", "1")["configurable"], **SECRETS}}, [("ch", 1)], "task")
    saver.close()
    for path in tmp_path.iterdir():
        assert b"hunter2" not in path.read_bytes()


def test_what_is_kept_of_the_config_can_be_set(make_saver: Any) -> None:
    listed = make_saver(configurable_keys=["db_password", "model"])
    merged = put_with(listed, {**SECRETS, "model": "m", "tenant": "acme"}, {"step": 1})
    assert merged == {"step": 1, "model": "m", "db_password": "hunter2-a"}
    nothing = make_saver(configurable_keys=())
    assert put_with(nothing, {"model": "m"}, {"step": 2}) == {"step": 2}


ODD_TEXT = [
    "",
    "nul \x00 inside",
    "\x00",
    "new\nline",
    "quote ' \" `",
    "%_*?[",
    "😀 é́ \u202e right to left",
    "a" * 70_000,
]


@pytest.mark.parametrize("text", ODD_TEXT, ids=range(len(ODD_TEXT)))
def test_odd_text_comes_back_wherever_it_stands(api: Calls, text: str) -> None:
    put(api, "t", "1", {"value": text, f"name {text}": [text], "map": {text: text}}, metadata={"step": 1})
    api.put_writes(config("t", "1"), [("ch", text), (f"channel {text}", 1)], f"task {text}", f"path {text}")
    found = api.get_tuple(config("t"))
    assert found.checkpoint["channel_values"] == {"value": text, f"name {text}": [text], "map": {text: text}}
    assert found.pending_writes == [(f"task {text}", "ch", text), (f"task {text}", f"channel {text}", 1)]


@pytest.mark.parametrize("text", [each for each in ODD_TEXT if "\x00" not in each], ids=range(6))
def test_odd_text_in_metadata_comes_back_and_is_found(api: Calls, text: str) -> None:
    put(api, "t", "1", metadata={"value": text, f"key {text}": {text: 1}})
    put(api, "t", "2", metadata={"value": "another"})
    assert api.get_tuple(config("t", "1")).metadata == {"value": text, f"key {text}": {text: 1}}
    assert [found.checkpoint["id"] for found in api.list(config("t"), filter={f"key {text}": {text: 1}})] == ["1"]
    assert [found.checkpoint["id"] for found in api.list(config("t"), filter={"value": text})] == ["1"]
