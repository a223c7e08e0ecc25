"""The commands on PostgreSQL and Redis: each says there what it says of a file; what goes wrong is said plainly."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cli_kit import run, succeed, write_graph_store
from stores import store_url

from ckpt.cli.main import COMMANDS
from ckpt.cli.schemas import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cret"
TIMEOUT = {"postgresql": "connect_timeout", "redis": "socket_connect_timeout"}
SESSION = [
    ["init"],
    ["graphs"],
    ["threads"],
    ["log", "support-42", "-n", "4"],
    ["log", "--all"],
    ["show", "support-42"],
    ["show", "support-42", "messages[0].content"],
    ["diff", "support-42~2", "support-42"],
    ["diff", "support-42~2", "support-42", "--stat"],
    ["tag", "good", "support-42~1"],
    ["tag"],
    ["fork", "support-43", "what-if"],
    ["threads", "--status", "interrupted"],
    ["checkout", "good"],
    ["rewind", "what-if"],
    ["op", "log"],
    ["undo"],
    ["expire", "what-if", "30d"],
    ["prune", "support-42", "--keep-last", "2", "--dry-run"],
    ["prune", "support-42", "--keep-last", "2", "-y"],
    ["delete", "what-if", "-y"],
    ["gc", "--grace", "0s", "--dry-run"],
    ["gc", "--grace", "0s"],
    ["stats"],
    ["fsck"],
    ["show", "support-43", "--state"],
    ["log", "nobody"],
    ["show", "support-43", "no.such.part"],
    ["fork", "support-42", "support-43"],
]
ELSEWHERE = {"completion", "help", "key", "schema"}
"""Those that open no store, and `key`, which needs an encrypted one."""

_VARYING = [
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"), "UUID"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?([+]\d\d:\d\d|Z)?"), "WHEN"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "WHEN"),
    (re.compile(r"\b(now|\d+ s)\b"), "AGO"),
    (re.compile(r"(?<![0-9a-f])([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{8})(?![0-9a-f])"), "ID"),
    (re.compile(r"[\d,]+(\.\d)? k?B\b|\b\d+%|\b\d+\.\dx"), "SIZE"),
    (re.compile(r"\b\d+ (objects|references)\b"), "COUNT"),
    (re.compile(r" +"), " "),
]
_SIZES = re.compile(r"^data$|bytes|objects|references|ratio|dedup|compression|share")


@pytest.fixture(params=["postgres", "redis"])
def server(request: pytest.FixtureRequest) -> str:
    return store_url(str(request.param), request)


def normal(text: str, url: str) -> str:
    """Return output without what differs from run to run and from store to store."""
    text = text.replace(url, "STORE")
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def without_sizes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "SIZE" if _SIZES.search(key) else without_sizes(each) for key, each in value.items()}
    return [without_sizes(each) for each in value] if isinstance(value, list) else value


def wrong(line: list[str]) -> bool:
    return line in SESSION[-3:]


def session(url: str) -> list[tuple[list[str], int, str, str]]:
    """Run all commands on a new store that holds the work of a graph, and return what each printed."""
    write_graph_store(url)
    shown = json.loads(run("--store", url, "init", "--json").stdout)["store"]["url"]
    results = [(line, run("--store", url, *line)) for line in SESSION]
    assert [line for line, done in results if (done.exit_code != 0) != wrong(line)] == []
    return [(line, done.exit_code, normal(done.stdout, shown), normal(done.stderr, shown)) for line, done in results]


def documents(url: str) -> list[tuple[list[str], Any]]:
    """Do the same with `--json`, and return the documents, each checked against its schema."""
    write_graph_store(url)
    shown = json.loads(run("--store", url, "init", "--json").stdout)["store"]["url"]
    found = []
    for line in SESSION:
        done = run("--store", url, *line, "--json")
        assert (done.exit_code != 0) == wrong(line), done.output
        document = json.loads(done.stdout if done.exit_code == 0 else done.stderr.splitlines()[-1])
        name = document["schema"].removeprefix("ckpt.").removesuffix("/1")
        jsonschema.validate(document, SCHEMAS[name](), cls=jsonschema.Draft202012Validator)
        found.append((line, json.loads(normal(json.dumps(without_sizes(document)), json.dumps(shown)[1:-1]))))
    return found


def test_each_command_says_of_a_server_what_it_says_of_a_file(server: str, tmp_path: Path) -> None:
    assert session(server) == session(str(tmp_path / "store.db"))


def test_each_command_has_the_same_json_on_a_server_as_on_a_file(server: str, tmp_path: Path) -> None:
    assert documents(server) == documents(str(tmp_path / "store.db"))


def test_no_command_is_left_out() -> None:
    assert {line[0] for line in SESSION} | ELSEWHERE == set(COMMANDS)


# -- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "redis"])
@pytest.mark.parametrize("line", [["threads"], ["fork", "a", "b"], ["init"], ["gc"]])
def test_a_server_that_is_down_is_named_without_its_password(scheme: str, line: list[str]) -> None:
    done = run("--store", f"{scheme}://ana:{SECRET}@127.0.0.1:1/0?{TIMEOUT[scheme]}=1", *line, "--json")
    assert done.exit_code == 11
    document = json.loads(done.stderr.splitlines()[-1])
    assert document["code"] == "STORE_UNREACHABLE"
    assert document["message"].startswith(f"{scheme}://ana@127.0.0.1:1/0")
    assert "refused" in document["message"]
    assert document["hints"]
    assert SECRET not in done.output


def test_a_wrong_password_is_refused_and_not_shown(postgres_dsn: str, redis_url: str) -> None:
    # The PostgreSQL of the tests asks nobody for a password, but has no such user.
    wrong = [
        re.sub(r"://[^/]*@", f"://ana:{SECRET}@", postgres_dsn),
        redis_url.replace("redis://", f"redis://ana:{SECRET}@"),
    ]
    for url in wrong:
        done = run("--store", url, "threads", "--json")
        assert done.exit_code == 11
        assert json.loads(done.stderr.splitlines()[-1])["code"] == "STORE_UNAVAILABLE"
        assert re.search(r"^error: .*(does not exist|authentication failed|refuses)", done.stderr)
        assert "hint: " in done.stderr
        assert SECRET not in done.output


@pytest.mark.parametrize("backend", ["sqlite", "postgres", "redis"])
@pytest.mark.parametrize("named", ["--store", "CKPT_STORE"])
def test_where_there_is_no_store_the_hint_makes_it(
    backend: str, named: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store_url(backend, request).replace("store.ckpt", "my store.db")
    line = ["threads"]
    if named == "--store":
        line += ["--store", url]
    else:
        monkeypatch.setenv("CKPT_STORE", url)
    done = run(*line)
    assert done.exit_code == 10
    hint = done.stderr.splitlines()[-1].removeprefix("hint: create one with: ")
    ckpt, *command = shlex.split(hint)
    assert (ckpt, command[:2]) == ("ckpt", ["init", "--store"])
    succeed(*command)
    succeed(*line)


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [
        ("psycopg", "postgresql://ana:s3cret@h/db", "postgres"),
        ("psycopg_pool", "postgresql://ana:s3cret@h/db", "postgres"),
        ("redis", "redis://ana:s3cret@h", "redis"),
    ],
)
def test_without_the_package_of_a_server_the_extra_is_named(package: str, url: str, extra: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None\nfrom ckpt.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--store", url, "threads"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'ckpt-store[{extra}]'" in done.stderr
    assert SECRET not in done.stderr
