"""What strangers chose: thread ids that look like revisions or options, texts that steer terminals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cli_kit import Support, approve, copied, document, place, question, run, succeed, support_graph
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph

import ckpt
from ckpt.cli.escape import _UNSAFE
from ckpt.cli.output import Output, Settings
from ckpt.cli.values import one_line
from ckpt.langgraph import CkptSaver
from ckpt.values.inert import InertObject, to_json
from ckpt.values.kinds import INT, Opaque

EVIL = "a\x1b[31m\x1b]0;title\x07 \x9b2J\x90\x85 \x08\x7f \u202edcba\u2066\u200f\u061c \u2028\U000e0041 \r\n\tz"
BROKEN = EVIL + "\ud800"
IDS = [
    "acme", "acme~1", "acme~1^", "@", "HEAD", "@~1", "#0", "#-1", "tag:good", "good", "id:abcd", "abcd",
    'thread:"acme"', 'thread:"acme"~1', "thread:acme", "ckpt:x", "--json", "-n", "--", "-t", "a b", "a/b",
    "(a|b)&c", "$HOME`x`", "*", "[a]", "'", '"', "\\", "é漢😀", "\u202eevil", "\x1b[31m", "a\nb", "\ud800",
    "@{next:x}", "acme@{1}", "NUL\x00", "op:1", "a..b", "0", " ",
]  # fmt: skip


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose threads have odd ids; each says in its state which one it is."""
    path = tmp_path_factory.mktemp("odd") / "odd.db"
    with ckpt.open(f"sqlite:///{path}?synchronous=off") as repository:
        for name in IDS:
            for version in (1, 2):
                repository.thread(name).commit({"name": name, "version": version})
        repository.tag("good", "@~1", thread="acme")
    return path


@pytest.fixture
def many(odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied(odd, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", IDS, ids=ascii)
def test_a_thread_given_apart_is_never_parsed(many: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ([f"--thread={name}"], ["-t", name]):
        if name == "--" and arguments[0] == "-t":
            continue  # click and every other parser keep this one for themselves
        found = document("show", "@~1", *arguments)
        shown = to_json({"name": name, "version": 1})
        assert (found["checkpoint"]["thread"], found["state"]) == (name, shown)
    assert document("log", f"--thread={name}")["items"][0]["thread"] == name
    if "\x00" not in name and "\ud800" not in name:
        monkeypatch.setenv("CKPT_THREAD", name)
        assert document("show", "#0")["checkpoint"]["thread"] == name
        monkeypatch.delenv("CKPT_THREAD")
    spec = next(each["spec"] for each in document("threads")["items"] if each["thread"] == name)
    assert document("show", spec)["state"] == to_json({"name": name, "version": 2})
    assert document("show", f"{spec}~1")["state"] == to_json({"name": name, "version": 1})
    assert run("rewind", f"--thread={name}").exit_code == 0
    assert document("show", spec)["state"]["version"] == 1
    assert run("delete", "-y", f"--thread={name}").exit_code == 0
    assert name not in {each["thread"] for each in document("threads")["items"]}
    assert len(document("threads")["items"]) == len(IDS) - 1


@pytest.mark.parametrize(
    ("word", "readings"),
    [
        ("acme~1", ['thread:"acme~1"', 'thread:"acme"~1']),
        ("acme~1^", ['thread:"acme~1^"', 'thread:"acme~1"^1', 'thread:"acme"~1^1']),
        ("good", ['thread:"good"', "tag:good"]),
    ],
)
def test_a_word_with_several_meanings_lists_them_all(many: Path, word: str, readings: list[str]) -> None:
    plain, as_json = run("show", word), run("show", word, "--json")
    assert plain.exit_code == as_json.exit_code == 3
    found = json.loads(as_json.stderr.splitlines()[-1])
    existing = [each for each in readings if run("show", each).exit_code == 0]
    assert found["code"] == "REV_AMBIGUOUS"
    assert found["candidates"] == existing
    assert all(each in plain.stderr for each in existing)
    assert len(existing) > 1


def hostile_graph(saver: CkptSaver) -> Any:
    """A graph whose one node has a name that steers a terminal, and waits."""
    builder = StateGraph(Support)
    builder.add_node(f"node {EVIL}", approve)
    builder.add_edge(START, f"node {EVIL}")
    return builder.compile(checkpointer=saver)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in which everything that can be named or said steers a terminal."""
    path = tmp_path / "hostile.db"
    metadata = {"source": EVIL, "run_id": EVIL, EVIL: EVIL}
    call = {"name": BROKEN, "args": BROKEN}
    message = {"type": "ai", "content": BROKEN, "id": EVIL, "name": EVIL, "tool_calls": [call]}
    more = {"messages": [message, {**message, "id": "2"}], "list": [BROKEN], "map": {BROKEN: 1}}
    with CkptSaver(path) as saver:
        support_graph(saver).invoke(question(EVIL), place("chat"))
        hostile_graph(saver).invoke(question(EVIL), place("odd graph"))
        thread = saver.repository.thread(EVIL)
        thread.commit({EVIL: BROKEN, "messages": [message]}, metadata=metadata)
        thread.commit({EVIL: f"{BROKEN}!", **more}, metadata=metadata)
        thread.fork(f"fork {EVIL}")
    monkeypatch.setenv("CKPT_STORE", str(path))
    return path


def commands(name: str) -> list[list[str]]:
    at = ["-t", name]
    return [
        ["threads"], ["threads", name], ["log"], ["log", *at], ["log", *at, "--oneline", "--ascii"],
        ["log", "--all", "--subgraphs"], ["show", *at], ["show", *at, "--meta"], ["show", *at, "--writes"],
        ["show", *at, "--internal"], ["show", "@", f"/{EVIL.replace('/', '~1')}", "messages", "list", *at],
        ["show", "@", "nothing", *at], ["show", "@", "map.x", *at], ["diff", *at], ["diff", *at, "--words"],
        ["diff", *at, "--full"], ["diff", *at, "--stat"], ["diff", *at, "--keys"], ["diff", "@", "chat", *at],
        ["diff", "@~1", "@", *at, "--", f"/{EVIL}"], ["diff", "@", *at, "--", EVIL], ["stats"], ["fsck"],
        ["op", "log"], ["op", "log", "-v"], ["tag", "v1", *at], ["tag"], ["tag", EVIL, *at],
        ["fork", "@", f"again {EVIL}", "--set", f"x={json.dumps(EVIL)}", *at], ["show", "odd graph"],
        ["fork", "@", f"fork {EVIL}", *at], ["fork", "@", "n", "-n", *at], ["checkout", "@~1", "-n", *at],
        ["checkout", "@~1", *at], ["undo", "-n"], ["undo"], ["rewind", name], ["rewind", "odd graph"],
        ["diff", "odd graph", "--internal"], ["prune", "--all", "--keep-last", "1", "-n"],
        ["prune", name, "--keep-last", "1", "-y"], ["delete", name, "-n"], ["delete", name],
        ["delete", name, "-y"], ["delete", name, "-y"], ["show", EVIL], ["show", *at], [EVIL],
        ["log", f"--{EVIL}"],
        ["gc", "--grace", "0s"], ["gc", "--grace", EVIL], ["help", EVIL], ["undo", EVIL], ["tag", "-d", EVIL],
        ["--store", EVIL.replace("\x00", ""), "threads"], ["show", "@", "--ns", EVIL, *at],
    ]  # fmt: skip


@pytest.mark.parametrize("extra", [[], ["--json"], ["--jsonl"]], ids=["plain", "json", "jsonl"])
def test_nothing_stored_or_typed_reaches_the_terminal_as_it_is(hostile: Path, extra: list[str]) -> None:
    codes = set()
    for arguments in commands(EVIL):
        at = arguments.index("--") if "--" in arguments else len(arguments)
        result = run(*arguments[:at], *extra, *arguments[at:])
        codes.add(result.exit_code)
        assert result.exit_code < 70, (arguments, result.output)
        for text in (result.stdout, result.stderr):
            found = set(_UNSAFE.findall(text)) - {"\n"}
            assert not found, (arguments, found, text)
    assert codes == {0, 2, 3, 4, 10}


def test_what_was_escaped_can_be_had_raw(hostile: Path) -> None:
    assert "\x1b[31m" in run("show", "-t", EVIL, "--state", "--raw").stdout
    assert document("show", "-t", EVIL)["state"]["list"][0]["text_b64"]


VAST: int = 10**5000
"""An integer that Python refuses to write in decimal."""


def forged(code: int, *payload: object) -> Opaque:
    """Return an extension of LangGraph's, in which 10**5000 may stand where it writes a name."""
    whole = msgpack.ExtType(INT, msgpack.packb(VAST.to_bytes(2100, "big")))
    raw = msgpack.packb(msgpack.ExtType(code, msgpack.packb([whole if each is VAST else each for each in payload])))
    return Opaque("", "ckpt", "document", raw)


@pytest.fixture
def vast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with such an integer wherever one can be."""
    path = tmp_path / "vast.db"
    message = {"type": "ai", "content": "hi", "id": VAST, "name": VAST, "tool_calls": [{"name": VAST, "args": VAST}]}
    block = {"type": {"a": VAST}, "text": VAST}
    large = ["x" * 9_000, "y" * 9_000, "z" * 9_000]
    with CkptSaver(path) as saver:
        repository = saver.repository
        for content in ([block], "hi"):
            repository.thread("calls").commit({"messages": [{**message, "content": content}]})
        for step in (VAST, True, 2**64):
            repository.thread("steps").commit({"x": 1}, metadata={"step": step, "source": step, "run_id": step})
        for number in range(2):
            state = {
                "map": {VAST: number, -VAST - number: 1},
                "record": {"id": VAST, "x": number},
                "delta": VAST + number,
            }
            nodes = {"join:a+b:c": {VAST, "b"}, "branch:to:d": VAST, "__pregel_tasks": [VAST]}
            repository.thread("keys").commit({**state, **nodes})
            objects = {"list": forged(0, VAST, "set", [*large, number]), "set": forged(0, "a", VAST, [*large, number])}
            fields = forged(0, VAST, "b", {"text": large, "number": number, "more": large})
            repository.thread("objects").commit({**objects, "fields": fields})
        config: Any = place("seen", checkpoint_ns="")
        seen: Any = {**empty_checkpoint(), "versions_seen": {"node": {"x": 1}, 7: {"x": 1}}}
        saver.put(config, seen, {}, {})
    monkeypatch.setenv("CKPT_STORE", str(path))
    return path


@pytest.mark.parametrize("name", ["calls", "steps", "keys", "objects", "seen"])
def test_integers_too_long_for_decimal_digits_are_shown_everywhere(vast: Path, name: str) -> None:
    for arguments in (
        ["threads"], ["log"], ["log", "--all"], ["log", name], ["log", name, "--oneline"], ["show", name],
        ["show", name, "--meta"], ["show", name, "--internal"], ["show", name, "messages", "map", "list"],
        ["show", name, "map.x"], ["show", name, "messages[0].x"], ["diff", name], ["diff", name, "--full"],
        ["diff", name, "--words"], ["diff", name, "--stat"], ["diff", name, "--internal"], ["diff", name, "map.x"],
        ["fork", name, "new", "-n"], ["tag", "new", name, "-n"], ["rewind", name, "-n"], ["stats"], ["fsck"],
    ):  # fmt: skip
        for extra in ([], ["--json"]):
            result = run(*arguments, *extra)
            assert result.exit_code in (0, 2, 3), (arguments, result.output)


def test_what_should_be_a_name_is_shown_as_any_value(vast: Path) -> None:
    shown = hex(VAST)[:20]
    assert f"ai: hi {shown}" in succeed("log", "calls")
    assert f'[{{"a": {shown}' in succeed("show", "calls~1")
    assert f"its keys are {shown}" in run("show", "keys", "map.x").stderr
    assert f'["{shown}' in succeed("diff", "keys")


def test_what_is_no_size_is_shown_as_any_value() -> None:
    for size in (VAST, -VAST, True, "1"):
        value = InertObject("", "text", {"size": size, "hash": "h"})
        assert one_line(Output(Settings()), value, 30).startswith("text(size=")


def test_what_is_no_number_of_a_step_is_none(vast: Path) -> None:
    assert [each["step"] for each in document("log", "steps")["items"]] == [None, None, None]
