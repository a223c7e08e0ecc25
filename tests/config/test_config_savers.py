"""Savers from a configuration: `get_checkpointer` and the `checkpointer` of a `langgraph.json`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from redis_server import running

from ckpt.config import from_environment, load
from ckpt.errors import InvalidInputError, StateTooLargeError, WrongKeyError
from ckpt.langgraph import CkptSaver, checkpointer, get_checkpointer


class State(TypedDict):
    count: int
    text: str


def graph(saver: CkptSaver) -> Any:
    """Return a graph that counts its runs."""
    builder = StateGraph(State)
    builder.add_node("add", lambda state: {"count": state.get("count", 0) + 1})
    builder.add_edge(START, "add")
    builder.add_edge("add", END)
    return builder.compile(checkpointer=saver)


CONFIG: Any = {"configurable": {"thread_id": "t"}}


def got(config: Any, **options: Any) -> CkptSaver:
    saver = get_checkpointer(config, **options)
    assert type(saver) is CkptSaver
    return saver


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_no_configuration_is_no_saver(nothing: Any) -> None:
    assert get_checkpointer(nothing) is None
    assert get_checkpointer(nothing, async_mode=True) is None


@pytest.mark.parametrize("form", ["inner", "outer", "path", "text", "config"])
def test_every_form_of_a_configuration_opens_the_same_store(form: str, tmp_path: Path) -> None:
    inner: dict[str, object] = {"type": "sqlite", "path": str(tmp_path / "a.db")}
    file = tmp_path / "graph.yaml"
    file.write_text(f"name: g\ncheckpointer:\n  type: sqlite\n  path: {tmp_path / 'a.db'}\n", encoding="utf-8")
    forms: dict[str, Any] = {
        "inner": inner,
        "outer": {"name": "g", "checkpointer": inner},
        "path": file,
        "text": str(file),
        "config": load(inner),
    }
    with got({"path": str(tmp_path / "a.db")}) as first:
        graph(first).invoke({"count": 4}, CONFIG)
    with got(forms[form]) as again:
        assert graph(again).get_state(CONFIG).values == {"count": 5}


@pytest.mark.parametrize("async_mode", [False, True])
async def test_one_saver_is_both_sync_and_async(async_mode: bool, tmp_path: Path) -> None:
    async with got({"path": str(tmp_path / "a.db")}, async_mode=async_mode) as saver:
        await graph(saver).ainvoke({"count": 1}, CONFIG)
        assert graph(saver).get_state(CONFIG).values == {"count": 2}
    assert (tmp_path / "a.db").is_file()


def test_a_plain_word_is_the_type() -> None:
    with got("memory") as saver, got({"type": "memory"}) as other:
        graph(saver).invoke({"count": 1}, CONFIG)
        assert graph(other).get_state(CONFIG).values == {}


def test_a_plain_url_is_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTS", f"sqlite:///{tmp_path / 'a.db'}")
    with got(f"sqlite:///{tmp_path / 'a.db'}") as saver:
        graph(saver).invoke({"count": 4}, CONFIG)
    for again in ("${AGENTS}", {"checkpointer": "${AGENTS}"}):
        with got(again) as saver:
            assert graph(saver).get_state(CONFIG).values == {"count": 5}


def test_a_redis_behind_a_unix_socket_is_a_store() -> None:
    with TemporaryDirectory(prefix="ckpt-socket-") as folder, running("--unixsocket", f"{folder}/redis.sock"):
        url = f"unix://{folder}/redis.sock?db=1"
        with got({"type": "redis", "url": url, "key_prefix": "agents"}) as saver:
            graph(saver).invoke({"count": 4}, CONFIG)
        with got(from_environment({"CKPT_STORE": f"{url}&key_prefix=agents"})) as saver:
            assert graph(saver).get_state(CONFIG).values == {"count": 5}


def test_what_stands_under_checkpointer_may_count_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lifetime itself is the store's matter: here it counts only which options the saver is made with."""
    seen: list[object] = []
    factory = importlib.import_module("ckpt.langgraph.factory")
    monkeypatch.setattr(factory, "CkptSaver", lambda url, **keywords: seen.append((url, keywords)))
    minutes = load({"checkpointer": {"type": "memory", "ttl": 60}}).open_options()
    get_checkpointer({"type": "memory", "ttl": 60})
    assert seen == [minutes]
    with pytest.raises(InvalidInputError, match="ttl is a number without a unit"):
        get_checkpointer({"ckpt": {"type": "memory", "ttl": 60}})
    assert seen == [minutes]


def test_options_reach_the_saver() -> None:
    with got({"type": "memory", "max_checkpoint_size": 500}) as saver, pytest.raises(StateTooLargeError):
        graph(saver).invoke({"count": 1, "text": "x" * 1000}, CONFIG)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "redis", "url": "${NO_SUCH_URL}"}, "url needs the variable NO_SUCH_URL"),
        ({"type": "redis"}, "url is missing"),
        ({"type": "sqlite"}, "path is missing"),
        ({"ttl": 60}, "type is missing"),
        ("postgres", "url is missing"),
        ("nothing-like-it", "is a text that is neither a type of store nor a URL"),
        ("missing.yaml", "there is no configuration file missing.yaml"),
    ],
)
def test_there_is_no_falling_back_to_memory(config: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    with pytest.raises(InvalidInputError, match=words):
        get_checkpointer(config)


# -- langgraph.json -----------------------------------------------------------------------------------------


async def test_the_server_gets_the_saver_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CKPT_CONFIG", raising=False)
    monkeypatch.setenv("CKPT_STORE", str(tmp_path / "a.db"))
    async with checkpointer() as saver:
        await graph(saver).ainvoke({"count": 1}, CONFIG)
    with pytest.raises(Exception, match="closed"):
        saver.get_tuple(CONFIG)
    (tmp_path / "c.toml").write_text(f"path = '{tmp_path / 'a.db'}'\nmax_checkpoint_size = 300", encoding="utf-8")
    monkeypatch.delenv("CKPT_STORE")
    monkeypatch.setenv("CKPT_CONFIG", str(tmp_path / "c.toml"))
    async with checkpointer() as saver, checkpointer() as beside:
        assert (await graph(saver).aget_state(CONFIG)).values == {"count": 2}
        assert (await graph(beside).aget_state(CONFIG)).values == {"count": 2}
        with pytest.raises(StateTooLargeError):
            await graph(saver).ainvoke({"count": 1, "text": "x" * 1000}, {"configurable": {"thread_id": "other"}})


async def test_the_server_encrypts_when_the_environment_has_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CKPT_CONFIG", raising=False)
    monkeypatch.setenv("CKPT_STORE", str(tmp_path / ".ckpt"))
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY", "hex:" + "ab" * 32)
    async with checkpointer() as saver:
        await graph(saver).ainvoke({"count": 1}, CONFIG)
    with pytest.raises(WrongKeyError):
        CkptSaver(tmp_path / ".ckpt" / "store.db")
    async with checkpointer() as saver:
        assert (await graph(saver).aget_state(CONFIG)).values == {"count": 2}


async def test_a_server_without_a_store_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CKPT_STORE", raising=False)
    monkeypatch.delenv("CKPT_CONFIG", raising=False)
    with pytest.raises(InvalidInputError, match="it is not said which store to open"):
        async with checkpointer():
            raise AssertionError("a saver on nothing")


def test_the_name_is_in_the_module_and_importing_it_runs_nothing(tmp_path: Path) -> None:
    """The server looks the name up in the module's own dictionary, so loading it on demand would not do."""
    script = (
        "import os, threading, ckpt.langgraph as module; "
        "print(callable(vars(module)['checkpointer']), threading.active_count(), os.listdir())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "CKPT_STORE": "a.db", "CKPT_CONFIG": "none.toml"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "True 1 []\n"
