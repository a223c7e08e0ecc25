"""`--json` and `--jsonl` of every command against the published schemas."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cli_kit import SUPPORT, WAITING, document, run, succeed

from ckpt.cli.main import COMMANDS
from ckpt.cli.schemas import SCHEMAS

# In this order they are one session on the store of the graph.
SESSION: list[tuple[str, str]] = [
    ("init", "init elsewhere"),
    ("init", "init elsewhere"),
    ("graphs", "graphs"),
    ("threads", "threads"),
    ("log", "log"),
    ("log", "log support-42 --subgraphs"),
    ("show", "show support-42"),
    ("show", "show support-43 --internal"),
    ("show", "show support-43 --writes"),
    ("show", "show support-42 --meta"),
    ("show", "show support-42 --state"),
    ("show", "show support-42 messages[1] ticket.status"),
    ("diff", "diff support-42~2"),
    ("diff", "diff support-42~6"),
    ("diff", "diff support-42 support-43 --internal"),
    ("tag", "tag good support-42~1 -n"),
    ("tag", "tag good support-42~1"),
    ("tags", "tag"),
    ("tag", "tag -d good"),
    ("undo", "undo -n"),
    ("undo", "undo"),
    ("fork", "fork support-42~2 retry -n"),
    ("fork", "fork support-42~2 retry --set ticket.status=1"),
    ("diff", "diff support-42~2 retry"),
    ("checkout", "checkout support-42~1 -n"),
    ("checkout", "checkout support-42~1"),
    ("checkout", "rewind support-43"),
    ("op", "op log"),
    ("prune", "prune --all --keep-last 2 -n"),
    ("prune", "prune support-42 --keep-last 2 -y"),
    ("prune", "prune support-42 --keep-within 30d -n"),
    ("expire", "expire support-43 30d -n"),
    ("expire", "expire support-43 30d"),
    ("expire", "expire support-42 never"),
    ("threads", "threads"),
    ("delete", "delete support-43 -n"),
    ("delete", "delete support-43 -y"),
    ("delete", "delete support-42 -n"),
    ("gc", "gc -n --grace 0s"),
    ("gc", "gc --grace 0s"),
    ("stats", "stats"),
    ("fsck", "fsck"),
    ("schemas", "schema"),
]
LISTS = {"graphs", "threads", "log", "tags", "op"}


def check(name: str, found: Any) -> None:
    jsonschema.validate(found, SCHEMAS[name](), cls=jsonschema.Draft202012Validator)


def records(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        yield json.loads(line)


def test_every_document_fits_its_schema(graph_store: Path) -> None:
    for name, line in SESSION:
        result = run(*shlex.split(line), "--json")
        assert result.exit_code == 0, (line, result.output)
        assert result.stdout.count("\n") == 1, line
        assert result.stdout.isascii()
        check(name, json.loads(result.stdout))


def test_every_record_fits_the_items_of_its_schema(graph_store: Path) -> None:
    for name, line in SESSION:
        arguments = shlex.split(line)
        text = succeed(*arguments, "--jsonl")
        if name in LISTS:
            item = SCHEMAS[name]()["properties"]["items"]["items"]
            for record in records(text):
                jsonschema.validate(record, item, cls=jsonschema.Draft202012Validator)
        elif name == "diff":
            item = SCHEMAS[name]()["properties"]["changes"]["items"]
            for record in records(text):
                jsonschema.validate(record, item, cls=jsonschema.Draft202012Validator)
        else:
            check(name, json.loads(text))


def test_the_session_uses_every_schema_and_every_command() -> None:
    assert {name for name, _ in SESSION} | {"error", "key"} == set(SCHEMAS)
    assert {shlex.split(line)[0] for _, line in SESSION} == set(COMMANDS) - {"completion", "help", "key"}


def test_items_have_a_spec_that_names_them_again(graph_store: Path) -> None:
    items = document("log", "--subgraphs", "--all", "-n", "99")["items"]
    assert len(items) == 14
    assert {item["ns"] for item in items} > {""}
    for item in items:
        assert document("show", item["spec"], "--meta")["checkpoint"]["id"] == item["id"]
    for thread in document("threads")["items"]:
        assert document("show", thread["spec"], "--meta")["checkpoint"]["thread"] == thread["thread"]


@pytest.mark.parametrize("name", ['odd "one"~1', "a@b#2", "-x", "日本"])
def test_the_spec_of_what_a_fork_shares_means_the_fork(plain_store: Path, name: str) -> None:
    succeed("fork", "--", "plans", name)
    before = document("log", "plans")["items"]
    items = document("log", "-t", name, "@")["items"]
    assert [item["id"] for item in items] == [item["id"] for item in before]
    moved = document("checkout", items[1]["spec"])
    assert [moved[each]["thread"] for each in ("target", "old_head", "head")] == [name] * 3
    assert document("tag", "first", items[2]["spec"])["checkpoint"]["thread"] == name
    assert document("log", "plans")["items"][:2] == before[:2]


def test_a_log_says_what_it_shows(graph_store: Path) -> None:
    items = document("log", SUPPORT)["items"]
    newest, before = items[0], items[1]
    assert (newest["step"], newest["source"], newest["nodes"]) == (5, "loop", ["archive"])
    assert (newest["heads"], newest["is_head"], newest["status"]) == ([SUPPORT], True, "done")
    assert newest["parents"] == [before["id"]]
    assert newest["ts"].endswith("Z")
    assert before["changed"] == [{"key": "messages", "add": 1, "change": 0, "remove": 0}]
    waiting = document("log", WAITING)["items"][0]
    assert (waiting["status"], waiting["next"]) == ("interrupted", ["approve"])
    succeed("fork", SUPPORT, "twin")
    assert document("log")["items"][0]["heads"] in ([WAITING], [SUPPORT, "twin"])
    shared = next(item for item in document("log")["items"] if item["id"] == newest["id"])
    assert shared["heads"] == [SUPPORT, "twin"]


def test_a_diff_says_what_it_shows(graph_store: Path) -> None:
    found = document("diff", f"{SUPPORT}~2")
    changes = {(*change["path"],): change for change in found["changes"]}
    path = ["ticket", "status"]
    value = {"ns": "", "path": path, "op": "change", "kind": "value", "from": "open", "to": "refunded"}
    assert changes["ticket", "status"] == value
    added = changes["messages", 2]
    assert (added["op"], added["kind"]) == ("add", "message")
    assert added["to"]["fields"]["content"] == "refund booked as R-881"
    assert found["stat"] | {"keys": 2, "add": 2, "change": 1, "remove": 0, "move": 0} == found["stat"]


def test_what_json_cannot_hold_is_marked(plain_store: Path) -> None:
    import ckpt

    with ckpt.open(str(plain_store)) as repository:
        repository.thread("odd").commit({"bytes": b"\x00\xff", "text": "a\ud800", "map": {1: 2}, "nan": 1e999})
    state = document("show", "odd", "--state")["state"]
    assert state["bytes"] == {"$bytes": "AP8="}
    assert state["text"]["text_b64"]
    assert state["map"] == {"$map": [[1, 2]]}
    assert state["nan"] == {"$float": "inf"}


@pytest.mark.parametrize("line", ["show nothing", "log -t nothing", "show support-42 a..b", "undo op:fff"])
def test_errors_are_documents_on_stderr(graph_store: Path, line: str) -> None:
    result = run(*shlex.split(line), "--json")
    assert result.stdout == ""
    found = json.loads(result.stderr.splitlines()[-1])
    check("error", found)
    assert found["exit"] == result.exit_code != 0
