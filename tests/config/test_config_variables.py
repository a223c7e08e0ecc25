"""Variables in a configuration, the environment, and secrets that no error shows."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from config_kit import POSTGRES, SECRET, refused

import ckpt
from ckpt.config import Config, from_environment, load
from ckpt.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[2]

# -- variables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "environment", "path"),
    [
        ("${A}", {"A": "x.db"}, "x.db"),
        ("a/${A}-${B}.db", {"A": "1", "B": "2"}, "a/1-2.db"),
        ("${A:-d.db}", {}, "d.db"),
        ("${A:-d.db}", {"A": ""}, "d.db"),
        ("${A:-d.db}", {"A": "x.db"}, "x.db"),
        ("x${A}", {"A": ""}, "x"),
        ("${A:-a $5 :-b}", {}, "a $5 :-b"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A $ {A}", {"A": "x"}, "$A $ {A}"),
        ("${A}", {"A": "${B}"}, "${B}"),
        ("${A}", {"A": "x\ntype: memory"}, "x\ntype: memory"),
    ],
)
def test_variables_are_expanded(written: str, environment: dict[str, str], path: str) -> None:
    assert load({"path": written}, environment=environment).path == path


def test_variables_are_expanded_at_any_depth_and_checked_as_what_they_hold() -> None:
    environment = {"SIZE": "7", "LIFE": "2h", "YES": "true", "COUNT": "3", "SWEEP": "5"}
    source = {
        "url": POSTGRES,
        "pool_size": "${SIZE}",
        "ttl": {"default_ttl": "${LIFE}", "refresh_on_read": "${YES}", "sweep_interval_minutes": "${SWEEP}"},
        "retention": {"keep_last": "${COUNT}"},
    }
    assert load(source, environment=environment) == Config(
        type="postgres",
        url=POSTGRES,
        pool_size=7,
        ttl=timedelta(hours=2),
        ttl_refresh_on_read=True,
        ttl_sweep_interval=timedelta(minutes=5),
        retention={"keep_last": 3},
    )


def test_a_variable_cannot_add_a_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("path: ${A}\n", encoding="utf-8")
    assert load(path, environment={"A": "a.db\ngraph: other"}) == Config(type="sqlite", path="a.db\ngraph: other")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            {"type": "redis", "url": "${REDIS_URL}"},
            "url needs the variable REDIS_URL, which is not set | set it, or write ${REDIS_URL:-default}",
        ),
        ({"type": "memory", "ttl": {"default_ttl": "${LIFE}"}}, "ttl.default_ttl needs the variable LIFE,"),
        ({"path": "${A"}, "path has a ${ that is not the beginning of a variable"),
        ({"path": "${}"}, "path has a ${"),
        ({"path": "${A-b}"}, "path has a ${"),
        ({"path": "${A:?gone}"}, "path has a ${"),
        ({"path": "${A:-${B}}"}, "path has a ${"),
        ({"path": "${1A}"}, "path has a ${"),
    ],
)
def test_a_variable_that_cannot_be_expanded_is_an_error(source: dict[str, object], words: str) -> None:
    assert words in refused(source)


def test_a_variable_that_holds_a_blank_key_is_an_error() -> None:
    assert "encryption_key is blank" in refused({"type": "memory", "encryption_key": "${A}"}, {"A": " "})
    assert load({"type": "memory", "encryption_key": " a b "}).encryption_key == " a b "


def test_a_variable_that_is_set_but_empty_is_what_it_is() -> None:
    assert "url is empty" in refused({"type": "redis", "url": "${A}"}, {"A": ""})
    assert "encryption_key is empty" in refused({"type": "memory", "encryption_key": "${A:-}"})


def test_the_environment_is_that_of_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_TEST_PATH", "from-process.db")
    assert load({"path": "${CONFIG_TEST_PATH}"}).path == "from-process.db"
    monkeypatch.delenv("CONFIG_TEST_PATH")
    with pytest.raises(InvalidInputError, match="CONFIG_TEST_PATH, which is not set"):
        load({"path": "${CONFIG_TEST_PATH}"})


# -- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{SECRET}@cache:6379/0", "redis://***@cache:6379/0"),
        (f"postgresql://me:{SECRET}@a,b:5433/agents?sslmode=require", "postgresql://***@a,b:5433/agents?***"),
        (f"postgresql://db/agents?password={SECRET}", "postgresql://db/agents?***"),
        (f"redis://:a/{SECRET}?x@b@cache/0", "redis://***"),
        (f"postgresql://db/agents?password=x@{SECRET}", "postgresql://***"),
        ("redis://cache/0", "redis://cache/0"),
    ],
)
def test_the_repr_hides_secrets_and_shows_the_rest(url: str, shown: str) -> None:
    config = load({"url": "${A}", "encryption_key": "${B}", "graph": "support"}, environment={"A": url, "B": SECRET})
    assert repr(config) == f"Config(type={config.type!r}, url={shown!r}, graph='support', encryption_key='***')"
    assert config.open_options()[0] == url
    assert SECRET not in f"{config} {[config]} {config!r}"


KEYS = [
    "type", "path", "url", "synchronous", "cache_kb", "busy_timeout", "schema", "pool_size", "key_prefix", "graph",
    "ttl", "retention", "max_checkpoint_size",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("secret", [f"mysql://u:{SECRET}@h", SECRET, f"{SECRET}\x00", f"postgresql://u:{SECRET}@h#x"])
def test_no_error_shows_what_a_variable_holds(key: str, secret: str) -> None:
    """The secret stands under every key in turn, where it is wrong, and beside a key that is wrong."""
    for source in ({key: "${A}", "zz": 1}, {key: "${A}", "type": "redis"}, {"url": "${A}", key: "${A}", "path": 1}):
        with pytest.raises(InvalidInputError) as caught:
            load(source, environment={"A": secret})
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error!r} {error} {getattr(error, 'hints', ())}"
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "line",
    [
        f"encryption_key: *{SECRET}",
        f"encryption_key: !{SECRET} x",
        f"encryption_key: @{SECRET}",
        f'encryption_key: "{SECRET}\n',
        f"encryption_key: {SECRET}: {SECRET}: x",
        f"encryption_key: [{SECRET}",
    ],
)
def test_a_yaml_error_does_not_quote_the_file(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"type: memory\n{line}\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="is not YAML at line") as caught:
        load(path)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET not in str(caught.value)


def test_a_config_can_be_copied_compared_and_sent_but_not_changed() -> None:
    config = load({"path": "a.db", "retention": {"keep_last": 2}, "ttl": "1d"})
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(copy.copy(config))
    assert config != load({"path": "a.db", "retention": {"keep_last": 3}, "ttl": "1d"})
    with pytest.raises(AttributeError):
        config.path = "b.db"  # type: ignore[misc]
    config.open_options()[1]["retention"]["keep_last"] = 9
    assert config.retention == {"keep_last": 2}


# -- the environment ----------------------------------------------------------------------------------------


def test_a_store_or_a_file_is_named_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('path = "${NAME}"\ngraph = "g"', encoding="utf-8")
    assert from_environment({"CKPT_STORE": "a.db", "CKPT_CONFIG": ""}) == Config(type="sqlite", path="a.db")
    assert from_environment({"CKPT_STORE": "redis://:$${x}@h"}).open_options() == ("redis://:$${x}@h", {})
    assert from_environment({"CKPT_CONFIG": str(path), "NAME": "b.db"}) == Config(type="sqlite", path="b.db", graph="g")


def test_the_folder_that_init_makes_stands_for_the_store_in_it(tmp_path: Path) -> None:
    for folder in (tmp_path / ".ckpt", tmp_path / "made" / ".ckpt"):
        folder.parent.mkdir(exist_ok=True)
        for named in (folder, folder, folder.parent):
            url, options = from_environment({"CKPT_STORE": str(named)}).open_options()
            with ckpt.open(url, **options) as repository:
                assert repository.url == f"sqlite:///{folder}/store.db"


def test_the_key_is_that_of_the_environment(tmp_path: Path) -> None:
    file, key = tmp_path / "a.toml", tmp_path / "a.key"
    file.write_text("path = 'b.db'", encoding="utf-8")
    key.write_text(f"{SECRET}\n", encoding="utf-8")
    for store, path in (({"CKPT_STORE": "a.db"}, "a.db"), ({"CKPT_CONFIG": str(file)}, "b.db")):
        for variable in ({"CKPT_ENCRYPTION_KEY": SECRET}, {"CKPT_ENCRYPTION_KEY_FILE": str(key)}):
            assert from_environment(store | variable) == Config(type="sqlite", path=path, encryption_key=SECRET)
    file.write_text("path = 'b.db'\nencryption_key = '${CKPT_ENCRYPTION_KEY}'", encoding="utf-8")
    config = {"CKPT_CONFIG": str(file)}
    assert from_environment(config | {"CKPT_ENCRYPTION_KEY": SECRET}).encryption_key == SECRET
    file.write_text("path = 'b.db'\nencryption_key = 'its own'", encoding="utf-8")
    assert from_environment(config).encryption_key == "its own"
    with pytest.raises(InvalidInputError, match="or its file holds another") as caught:
        from_environment(config | {"CKPT_ENCRYPTION_KEY_FILE": str(key)})
    assert SECRET not in f"{caught.value} {caught.value.hints}"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CKPT_STORE": "a.db", "CKPT_ENCRYPTION_KEY": ""}, "CKPT_ENCRYPTION_KEY is set but empty"),
        ({"CKPT_STORE": "a.db", "CKPT_ENCRYPTION_KEY_FILE": " "}, "CKPT_ENCRYPTION_KEY_FILE is set but empty"),
        ({"CKPT_STORE": "a.db", "CKPT_ENCRYPTION_KEY_FILE": "no.key"}, "the key file no.key cannot be read"),
        (
            {"CKPT_STORE": "a.db", "CKPT_ENCRYPTION_KEY": "k", "CKPT_ENCRYPTION_KEY_FILE": "no.key"},
            "CKPT_ENCRYPTION_KEY and CKPT_ENCRYPTION_KEY_FILE are both set",
        ),
        ({}, "it is not said which store to open | set CKPT_STORE to a path or URL, or CKPT_CONFIG"),
        ({"CKPT_STORE": "", "CKPT_CONFIG": ""}, "it is not said which store to open"),
        ({"CKPT_STORE": "a.db", "CKPT_CONFIG": "a.toml"}, "both CKPT_STORE and CKPT_CONFIG are set"),
        ({"CKPT_STORE": "mysql://h"}, "CKPT_STORE: url is a URL of a kind that is not known"),
        ({"CKPT_CONFIG": "none.toml"}, "there is no configuration file none.toml"),
    ],
)
def test_an_environment_that_names_no_store_is_an_error(environment: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        from_environment(environment)
    assert words in " | ".join([str(caught.value), *caught.value.hints])


def test_a_key_in_the_environment_is_read_as_utf8_whatever_the_locale() -> None:
    script = "import os; from ckpt.keysources import key_from; print(ascii(key_from(os.environ)))"
    command = [sys.executable, "-c", script]
    printed = set()
    for more in ({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        environment = {**os.environb, b"CKPT_ENCRYPTION_KEY": "café".encode()} | {
            name.encode(): value.encode() for name, value in more.items()
        }
        environment.pop(b"CKPT_ENCRYPTION_KEY_FILE", None)
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True, cwd=ROOT)
        printed.add(done.stdout.strip())
    assert printed == {"'caf\\xe9'"}
