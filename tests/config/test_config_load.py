"""`ckpt.config.load`: what a document may say, where it may say it, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from config_kit import POSTGRES, SECRET, refused

import ckpt
from ckpt.config import Config, from_environment, load
from ckpt.errors import InvalidInputError

REDIS = "redis://cache:6379/0"


# -- which store --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "url"),
    [
        ({"type": "memory"}, "memory", "memory://"),
        ({"url": "memory://"}, "memory", "memory://"),
        ({"type": "sqlite", "path": "a.db"}, "sqlite", "sqlite:///a.db"),
        ({"path": "/var/a.db"}, "sqlite", "sqlite:////var/a.db"),
        ({"path": "a b?c#d%e.db"}, "sqlite", "sqlite:///a%20b%3Fc%23d%25e.db"),
        ({"url": "sqlite:///a.db"}, "sqlite", "sqlite:///a.db"),
        (
            {"path": "a.db", "synchronous": "normal", "cache_kb": 512, "busy_timeout": "1m5s"},
            "sqlite",
            "sqlite:///a.db?synchronous=normal&cache_kb=512&busy_timeout=65.0",
        ),
        (
            {"url": "sqlite:///a.db?cache_kb=1", "synchronous": "OFF"},
            "sqlite",
            "sqlite:///a.db?cache_kb=1&synchronous=off",
        ),
        ({"type": "postgres", "url": POSTGRES}, "postgres", POSTGRES),
        ({"type": "postgresql", "url": "postgres://h/d"}, "postgres", "postgres://h/d"),
        (
            {"url": f"{POSTGRES}?sslmode=require", "schema": "my agents", "pool_size": 4},
            "postgres",
            f"{POSTGRES}?sslmode=require&schema=my%20agents&pool_size=4",
        ),
        ({"type": "redis", "url": REDIS, "key_prefix": "a&b"}, "redis", f"{REDIS}?key_prefix=a%26b"),
        ({"url": "rediss://cache"}, "redis", "rediss://cache"),
        (
            {"type": "redis", "url": "unix:///run/redis.sock?db=2", "key_prefix": "agents"},
            "redis",
            "unix:///run/redis.sock?db=2&key_prefix=agents",
        ),
    ],
)
def test_the_store_is_the_one_that_was_said(source: dict[str, object], kind: str, url: str) -> None:
    config = load(source)
    assert config.type == kind
    assert config.open_options() == (url, {})


def test_what_is_said_of_a_sqlite_store_reaches_it(tmp_path: Path) -> None:
    path = tmp_path / "odd ?#%name.db"
    url, keywords = load({"path": str(path), "synchronous": "normal", "max_checkpoint_size": 1000}).open_options()
    with ckpt.open(url, **keywords) as repository:
        with pytest.raises(InvalidInputError, match=r"max_checkpoint_size \(1,000\)"):
            repository.thread("t").commit({"text": "x" * 2000})
        repository.thread("t").commit({"text": "short"})
    assert path.is_file()


def test_only_what_is_set_becomes_a_keyword() -> None:
    given = {
        "type": "memory",
        "graph": "support",
        "encryption_key": SECRET,
        "ttl": "30d",
        "retention": {"keep_last": 20, "keep_within": "2w"},
        "max_checkpoint_size": 1 << 20,
    }
    everything = {
        "graph": "support",
        "encryption_key": SECRET,
        "ttl": timedelta(days=30),
        "retention": {"keep_last": 20, "keep_within": timedelta(days=14)},
        "max_checkpoint_size": 1 << 20,
    }
    assert load(given).open_options() == ("memory://", everything)
    for name, value in everything.items():
        assert load({"type": "memory", name: given[name]}).open_options() == ("memory://", {name: value})


def test_a_key_of_bytes_stays_bytes() -> None:
    assert load({"type": "memory", "encryption_key": b"\x00" * 32}).encryption_key == b"\x00" * 32


@pytest.mark.parametrize("mode", ["everything", "keep_latest"])
def test_a_retention_in_one_word(mode: str) -> None:
    assert load({"type": "memory", "retention": mode}).open_options()[1] == {"retention": mode}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "the configuration is empty | say which store"),
        ({"ttl": "1d"}, "type is missing, and neither path nor url"),
        ({"type": "sqlite"}, "path is missing for a store of type sqlite"),
        ({"type": "redis"}, "url is missing for a store of type redis"),
        ({"type": "postgres", "schema": "s"}, "url is missing for a store of type postgres"),
        ({"type": "redis", "path": "a.db"}, "path means nothing for a store of type redis | it is for sqlite"),
        ({"type": "memory", "path": "a.db"}, "path means nothing for a store of type memory"),
        ({"url": REDIS, "path": "a.db"}, "path and url name a store each | keep one"),
        ({"type": "sqlite", "path": "a.db", "url": "sqlite:///b.db"}, "path and url name a store each"),
        ({"type": "postgres", "url": REDIS}, "url is not of type postgres"),
        ({"type": "memory", "url": REDIS}, "url is not of type memory"),
        ({"url": REDIS, "schema": "s"}, "schema means nothing for a store of type redis | it is for postgres"),
        ({"url": POSTGRES, "key_prefix": "p"}, "key_prefix means nothing for a store of type postgres"),
        ({"url": REDIS, "cache_kb": 1}, "cache_kb means nothing for a store of type redis"),
        ({"path": "a.db", "pool_size": 1}, "pool_size means nothing for a store of type sqlite"),
        ({"url": "sqlite:///a.db?cache_kb=1", "cache_kb": 2}, "cache_kb is also set in the URL"),
        ({"url": "mysql://h/d"}, "url is a URL of a kind that is not known | write sqlite:///…"),
        ({"url": "a.db"}, "url is not a URL |"),
        ({"url": "redis://:pa#ss@h"}, "url holds a #, behind which nothing would be read | write it as %23"),
        ({"path": "redis://h"}, "path is a URL | write url instead"),
        ({"type": "sqlite", "path": ":memory:"}, "path names no file | write type: memory"),
        ({"checkpointer": "sqllite"}, "neither a type of store nor a URL | did you mean sqlite? | write sqlite:///…"),
        ({"checkpointer": "agent.json"}, "[checkpointer] is a text that is neither a type of store nor a URL | types"),
        ({"checkpointer": "agent.json"}, "the name of a configuration file ends in .toml, .yaml, .yml"),
        ({"checkpointer": "mysql://h/d"}, "url is a URL of a kind that is not known"),
        ({"checkpointer": ""}, "text is empty"),
        ({"checkpointer": "${NO_SUCH}"}, "text needs the variable NO_SUCH, which is not set"),
        ({"type": "sqllite"}, "type is none of memory, sqlite, postgres, postgresql, redis | did you mean sqlite?"),
        ({"path": "a.db", "synchronous": "fast"}, "synchronous is none of full, normal, extra, off"),
        ({"type": "memory", "retention": "keep_lately"}, "retention is none of everything, keep_latest | did you mean"),
        (
            {"type": "memory", "retention": {"keep_lats": 1}},
            "retention.keep_lats is not known | did you mean retention.keep_last?",
        ),
        ({"type": "memory", "retention": {}}, "retention is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(source: dict[str, object], words: str) -> None:
    assert words in refused(source)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("type", 1, "type is a number, not text"),
        ("path", None, "path is nothing, not text"),
        ("path", "", "path is empty"),
        ("path", "a\x00b", "path holds a character that no name can have"),
        ("graph", ["a"], "graph is a list, not text"),
        ("graph", "\udcff", "graph holds a character"),
        ("encryption_key", 12345678, "encryption_key is a number, not text"),
        ("encryption_key", b"", "encryption_key is a bytes, not text"),
        ("encryption_key", " ", "encryption_key is blank | give it a value, or leave it out to use no key"),
        ("encryption_key", "\t\n", "encryption_key is blank"),
        ("encryption_key", None, "encryption_key is nothing, not text"),
        ("max_checkpoint_size", "10", "max_checkpoint_size is text, not a whole number"),
        ("max_checkpoint_size", True, "max_checkpoint_size is true or false, not a whole number"),
        ("max_checkpoint_size", 1.5, "max_checkpoint_size is a number, not a whole number"),
        ("max_checkpoint_size", 0, "max_checkpoint_size is less than 1"),
        ("max_checkpoint_size", 10**18, "max_checkpoint_size has more than 18 digits"),
        ("retention", 5, "retention is a number, not everything"),
        ("retention", {"keep_last": "5"}, "retention.keep_last is text, not a whole number"),
        ("retention", {"keep_within": 5}, 'retention.keep_within is a number without a unit | write "5s"'),
        ("busy_timeout", 5, 'busy_timeout is a number without a unit | write "5s"'),
    ],
)
def test_each_key_has_its_type(name: str, value: object, words: str) -> None:
    assert words in refused({"path": "a.db", name: value})


def test_a_number_too_long_to_be_shown_is_refused() -> None:
    huge = 1 << 20000
    for name, value, words in (
        ("cache_kb", huge, "cache_kb has more than 18 digits"),
        ("max_checkpoint_size", -huge, "max_checkpoint_size is less than 1"),
        ("retention", {"keep_last": huge}, "retention.keep_last has more than 18 digits"),
        ("ttl", huge, "ttl is not a duration | write a duration such as"),
        ("ttl", {"default_ttl": -huge}, "ttl.default_ttl is not a duration"),
        ("busy_timeout", huge, "busy_timeout is not a duration"),
    ):
        assert words in refused({"path": "a.db", name: value})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("paht", "path"),
        ("encryption-key", "encryption_key"),
        ("Schema", "schema"),
        ("max_connections", "pool_size"),
        ("conn_string", "url"),
        ("default_ttl", "ttl"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(name: str, near: str) -> None:
    assert refused({name: 1}) == f"the configuration: {name} is not known | did you mean {near}?"


def test_a_key_like_no_other_lists_the_known_ones_and_the_sections() -> None:
    words = refused({"type": "memory", "zzzz": 1})
    assert "zzzz is not known | known are type, path, url, " in words
    assert "stands under tool.ckpt, ckpt, checkpointer" in words
    assert "a key is a number, and keys are text" in refused({1: "memory"})


# -- where it stands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flat.toml", 'path = "here.db"\nttl = "1d"'),
        ("flat.yaml", "path: here.db\nttl: 1d"),
        ("merged.yaml", "x: &a {path: x.db, ttl: 1d}\ny: &b {<<: *a, path: y.db}\nckpt: {<<: *b, path: here.db}"),
        ("app.TOML", '[ckpt]\npath = "here.db"\nttl = "1d"\n[other]\npath = "${UNSET}"'),
        ("pyproject.toml", '[project]\nname = "x"\n[tool.other]\na = 1\n[tool.ckpt]\npath = "here.db"\nttl = "1d"'),
        ("graph.yml", "version: '1.0'\nname: g\ncheckpointer:\n  path: here.db\n  ttl: 1440\nnodes: {a: '${UNSET}'}"),
        ("bom.toml", '\ufeffpath = "here.db"\nttl = "1d"'),
    ],
)
def test_a_file_is_read_whole_or_by_its_section(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    for source in (path, str(path)):
        assert load(source, environment={}) == Config(type="sqlite", path="here.db", ttl=timedelta(days=1))


def test_a_section_of_a_mapping_is_read_too() -> None:
    inner = {"path": "here.db"}
    for document in ({"ckpt": inner}, {"checkpointer": inner, "nodes": {}}, {"tool": {"ckpt": inner}, "project": {}}):
        assert load(document) == load(inner)


def test_under_checkpointer_a_word_is_the_type() -> None:
    assert load({"checkpointer": "memory"}) == Config(type="memory")
    assert load({"checkpointer": "${KIND}"}, environment={"KIND": "memory"}) == Config(type="memory")
    assert "the configuration [ckpt] is text, not a table" in refused({"ckpt": "memory"})


def test_two_sections_are_one_too_many() -> None:
    words = refused({"ckpt": {"type": "memory"}, "tool": {"ckpt": {"path": "a.db"}}})
    assert "the configuration has more than one configuration: tool.ckpt and ckpt" in words


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "checkpointer:\n  pth: x", "a.yaml [checkpointer]: pth is not known | did you mean path?"),
        ("a.toml", "[tool.ckpt]\npath = 5", "a.toml [tool.ckpt]: path is a number, not text"),
        ("a.toml", "[build-system]\nrequires = []", "stands under tool.ckpt, ckpt, checkpointer"),
        ("a.yaml", "checkpointer:", "a.yaml [checkpointer] is nothing, not a table of keys"),
        ("a.yaml", "checkpointer: {}", "a.yaml [checkpointer] is empty"),
        ("a.yaml", "", "a.yaml holds nothing, not a table of keys"),
        ("a.yaml", "- type", "a.yaml holds a list, not a table of keys"),
        ("a.toml", "path = ", "a.toml is not TOML: Invalid value (at "),
        ("a.yaml", "path: [a\nttl: 1d", "a.yaml is not YAML at line 2, column 4"),
        ("a.yaml", "ttl: 2024-13-45", "a.yaml is not YAML |"),
        ("a.yaml", "path: a\nttl: 1d\npath: b", "a.yaml has a key twice at line 3, column 1 | keep one of them"),
        ("a.yaml", "x: [{a: 1, 'a': 2}]\npath: a", "a.yaml has a key twice at line 1, column 12"),
        ("a.toml", f"x = 1{5000 * '9'}\n[ckpt]\ntype = 'memory'", "a.toml is not a configuration: a number in it has"),
        ("a.json", "{}", "a.json is no configuration file by its name | one ends in .toml, .yaml, .yml"),
    ],
)
def test_an_error_in_a_file_names_the_file_and_the_key(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert words in refused(path)
    assert str(tmp_path) in refused(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"there is no configuration file {tmp_path / 'none.toml'}" in refused(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml cannot be read: Is a directory" in refused(tmp_path / "folder.toml")
    (tmp_path / "latin.toml").write_bytes(b'path = "\xff"')
    assert "latin.toml cannot be read: it is not UTF-8 text" in refused(tmp_path / "latin.toml")


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "{b=" * 5000, "a." * 5000 + "b = 1"])
def test_a_document_nested_too_deeply_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text(text)
    assert "deep.toml" in refused(tmp_path / "deep.toml")


def bomb(levels: int, merged: str = "[*a{0}, *a{0}]") -> str:
    """Return a file of tables each of which merges the one before it, so that the last has it many times."""
    tables = [f"a{level}: &a{level} {{<<: {merged.format(level - 1)}}}" for level in range(1, levels)]
    return "\n".join(["a0: &a0 {x: 1}", *tables, "checkpointer: {type: memory}"])


@pytest.mark.parametrize(
    "text",
    [
        bomb(14),
        bomb(60),
        "a: &a {x: 1}\nb: &b [" + 6000 * "*a," + "]\nc: {<<: *b}\nd: {<<: *b}",
        "checkpointer: &a {<<: *a, type: memory}",
        "checkpointer: &a {type: memory, <<: {<<: [*a, *a]}}",
    ],
    ids=["short", "long", "wide", "itself", "around"],
)
def test_tables_that_grow_without_bound_by_merging_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    begun = time.monotonic()
    assert "merges a table into itself, or more than 10,000 keys into its tables | write" in refused(path)
    assert time.monotonic() - begun < 5


def test_tables_may_merge_others(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    shared = ", ".join(f"k{number}: {number}" for number in range(100))
    path.write_text(f"s: &s {{{shared}}}\n" + "".join(f"t{n}: {{<<: [*s]}}\n" for n in range(90)) + bomb(9))
    assert load(path, environment={}) == Config(type="memory")


@pytest.mark.parametrize(
    ("source", "kind"),
    [(None, "nothing"), ([], "a list"), (["a.toml"], "a list"), (1, "a number"), (b"a.toml", "a bytes")],
)
def test_what_is_neither_a_mapping_nor_a_path_is_refused(source: object, kind: str) -> None:
    assert f"the configuration is {kind}, not a table" in refused(source)


MISTYPED = [
    f"postgres:u:{SECRET}@h", f"host=h password={SECRET}", f"Redis:/:{SECRET}@h", f" sqlite:{SECRET}",
    f"postgresql//u:{SECRET}@h/db", f"//u:{SECRET}@h/db", f"https:{SECRET}", f"file:{SECRET}?mode=ro",
]  # fmt: skip


@pytest.mark.parametrize("text", MISTYPED)
def test_a_mistyped_address_is_no_path_and_not_repeated(text: str) -> None:
    found = refused({"path": text})
    assert "path begins as a URL or a connection string does" in found
    with pytest.raises(InvalidInputError, match="CKPT_STORE begins as") as caught:
        from_environment({"CKPT_STORE": text})
    assert SECRET not in found + str(caught.value) + str(caught.value.hints)
    assert load({"path": f"./{text}"}).path == f"./{text}"


@pytest.mark.parametrize("text", [*MISTYPED, f"postgresql://u:{SECRET}@h/db", f"redis://:{SECRET}@h/0", "memory://"])
def test_a_url_in_the_place_of_a_file_is_not_repeated(text: str) -> None:
    found = refused(text)
    assert "is named by a URL, not by the path of a file" in found
    with pytest.raises(InvalidInputError, match="is named by a URL") as caught:
        from_environment({"CKPT_CONFIG": text})
    assert SECRET not in found + str(caught.value) + str(caught.value.hints)


def test_without_pyyaml_the_extra_is_named_and_toml_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("type: memory", encoding="utf-8")
    (tmp_path / "a.toml").write_text('type = "memory"', encoding="utf-8")
    words = refused(tmp_path / "a.yaml")
    assert "needs PyYAML, which is not installed | pip install 'ckpt-store[yaml]'" in words
    assert load(tmp_path / "a.toml").type == "memory"


def test_reading_a_configuration_loads_neither_the_engine_nor_langgraph_nor_yaml() -> None:
    script = (
        "import sys, ckpt.config as c; c.load({'path': 'x.db', 'ttl': '1d'}).open_options(); "
        "print(sorted({'yaml', 'langgraph', 'sqlite3', 'ckpt.repository', 'ckpt.storage'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
