"""An encrypted store: opening it, the forms of a key, what a raw dump shows, and what stays as it was."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

import ckpt
from ckpt.encryption import HEADER_KEY, KeyProvider, encrypted, header, rotate, rotation, userkeys
from ckpt.errors import (
    DamagedRecordError,
    FormatTooNewError,
    InvalidInputError,
    StoreError,
    WrongKeyError,
)
from ckpt.langgraph import CkptSaver
from ckpt.storage.base import Batch, Exclusive
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.sqlite import SqliteStorage

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
PASSPHRASE = "correct horse battery staple"


class Vault:
    """A provider that keeps its key to itself, as a KMS does."""

    def __init__(self, key_id: str = "projects/p/keys/1") -> None:
        self.key_id = key_id
        self.pad = os.urandom(32)
        self.calls: list[str] = []

    def wrap(self, data_key: bytes) -> bytes:
        self.calls.append("wrap")
        return bytes(a ^ b for a, b in zip(data_key, self.pad, strict=True))

    def unwrap(self, wrapped: bytes) -> bytes:
        self.calls.append("unwrap")
        return bytes(a ^ b for a, b in zip(wrapped, self.pad, strict=True))


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.glob(path.name + "*")}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with ckpt.open(path, encryption_key=KEY) as repository:
        repository.thread("t").commit({"text": "hello"})
    return path


# -- opening ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "again"),
    [
        (KEY, KEY),
        (KEY, "hex:" + KEY.hex()),
        ("hex:" + KEY.hex().upper(), KEY),
        ("\ufeff\r\n Hex:" + KEY.hex() + "\n", KEY),
        (" " + PASSPHRASE, " " + PASSPHRASE),
        (PASSPHRASE, PASSPHRASE),
        ("\ud800 half a pair", "\ud800 half a pair"),
    ],
)
def test_every_form_of_key_opens_what_it_made(tmp_path: Path, key: bytes | str, again: bytes | str) -> None:
    with ckpt.open(tmp_path / "store.db", encryption_key=key) as repository:
        repository.thread("t").commit({"text": "hello"})
    with ckpt.open(tmp_path / "store.db", encryption_key=again, readonly=True) as repository:
        assert repository.thread("t").state() == {"text": "hello"}


def test_a_provider_wraps_the_stores_key_and_nothing_else(tmp_path: Path) -> None:
    vault = Vault()
    assert isinstance(vault, KeyProvider)
    with ckpt.open(tmp_path / "store.db", encryption_key=vault) as repository:
        repository.thread("t").commit({"text": "hello"})
    with ckpt.open(tmp_path / "store.db", encryption_key=vault) as repository:
        repository.thread("t").commit({"text": "again"})
        assert repository.thread("t").state() == {"text": "again"}
    assert vault.calls == ["wrap", "unwrap", "unwrap"]


def test_a_provider_that_cannot_tell_its_key_is_the_cause(tmp_path: Path) -> None:
    class Unreachable:
        wrap, unwrap = Vault.wrap, Vault.unwrap

        @property
        def key_id(self) -> str:
            raise ConnectionError("no answer")

    with pytest.raises(WrongKeyError, match="ConnectionError") as caught:
        ckpt.open(tmp_path / "store.db", encryption_key=Unreachable())
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (OTHER, "this is not the key of the store"),
        ("hex:" + OTHER.hex(), "this is not the key of the store"),
        (PASSPHRASE, "a key of 32 bytes, and a passphrase was given"),
        (Vault(), "a key of 32 bytes, and a key provider was given"),
        (None, "is encrypted, and no key was given"),
    ],
)
def test_a_wrong_key_or_none_fails_at_open_and_touches_nothing(
    store: Path, key: bytes | str | Vault | None, says: str
) -> None:
    before = files(store)
    for readonly in (True, False):
        with pytest.raises(WrongKeyError, match=says) as caught:
            ckpt.open(store, encryption_key=key, readonly=readonly)
        assert isinstance(caught.value, StoreError)
        assert caught.value.exit_code == 12
        assert caught.value.hints
    assert files(store) == before


def test_a_wrong_passphrase_is_told_from_a_damaged_header(tmp_path: Path) -> None:
    storage = MemoryStorage()
    encrypted(storage, PASSPHRASE)
    with pytest.raises(WrongKeyError, match="this is not the key"):
        encrypted(storage, PASSPHRASE + " ")
    raw = storage.read([HEADER_KEY])[0]
    assert raw is not None
    storage.publish(Batch(records={HEADER_KEY: raw[:-1] + bytes((raw[-1] ^ 1,))}))
    with pytest.raises(DamagedRecordError, match="header"):
        encrypted(storage, PASSPHRASE)


def test_a_store_that_went_back_behind_a_rotation_says_what_to_do() -> None:
    storage = MemoryStorage()
    opened = encrypted(storage, KEY)
    opened.publish(Batch(records={b"a": b"1"}))
    before = dict(storage.scan(b"", b"\xff" * 9))
    rotation.reseal(opened)
    assert opened.read([b"a"]) == [b"1"]
    storage.publish(Batch(records=before))
    with pytest.raises(DamagedRecordError, match="an earlier encryption header than before") as caught:
        opened.read([b"a"])
    assert "restart the program" in caught.value.hints[0]
    assert encrypted(storage, KEY).read([b"a"]) == [b"1"]


def test_every_flipped_byte_of_the_header_is_an_error() -> None:
    storage = MemoryStorage()
    encrypted(storage, KEY)
    raw = storage.read([HEADER_KEY])[0]
    assert raw is not None
    for position in range(len(raw)):
        storage.publish(
            Batch(records={HEADER_KEY: raw[:position] + bytes((raw[position] ^ 0x41,)) + raw[position + 1 :]})
        )
        with pytest.raises((DamagedRecordError, WrongKeyError, FormatTooNewError)):
            encrypted(storage, KEY)
    for size in range(0, len(raw), 7):
        storage.publish(Batch(records={HEADER_KEY: raw[:size]}))
        with pytest.raises(DamagedRecordError):
            encrypted(storage, KEY)


def test_a_header_cannot_ask_for_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for hostile in (
        {"log_n": 40},
        {"log_n": 24, "r": 64},
        {"r": 1 << 30},
        {"p": 1 << 20},
        {"salt": 5},
        {"log_n": "17"},
    ):
        parameters = {"salt": bytes(16), "log_n": 4, "r": 8, "p": 1, **hostile}
        with pytest.raises(DamagedRecordError):
            userkeys._scrypt(b"x", parameters)


@pytest.mark.parametrize(
    "hostile",
    [
        {"log_n": 16, "r": 1},
        {"log_n": 17, "r": 1},
        {"log_n": 30, "r": 1},
        {"log_n": 1, "r": 1, "p": 1 << 25},
        {"log_n": 1, "r": 1 << 14, "p": 1 << 11},
        {"log_n": 1, "r": 1 << 22},
        {"log_n": 19, "r": 8, "p": 16},
        {"log_n": 20, "r": 8, "p": 2},
        {"log_n": 17, "r": 8, "p": 9},
        {"log_n": 10**9},
        {"p": True},
        {"salt": bytes(1 << 20)},
    ],
)
def test_what_scrypt_refuses_or_takes_long_for_is_a_damaged_header(hostile: dict[str, object]) -> None:
    begun = time.monotonic()
    with pytest.raises(DamagedRecordError):
        userkeys._scrypt(b"x", {"salt": bytes(16), "log_n": 4, "r": 8, "p": 1, **hostile})
    assert time.monotonic() - begun < 1


def test_a_later_version_may_ask_for_eight_times_the_work() -> None:
    asked: list[dict[str, int]] = []

    class Scrypt:
        def __init__(self, **parameters: Any) -> None:
            asked.append(parameters)

        def derive(self, passphrase: bytes) -> bytes:
            return passphrase

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cryptography.hazmat.primitives.kdf.scrypt.Scrypt", Scrypt)
        for log_n, p in ((17, 1), (17, 8), (18, 4), (20, 1)):
            userkeys._scrypt(b"x", {"salt": bytes(32), "log_n": log_n, "r": 8, "p": p})
    assert [(each["n"], each["p"]) for each in asked] == [(1 << 17, 1), (1 << 17, 8), (1 << 18, 4), (1 << 20, 1)]


def test_a_wrapped_key_is_bound_to_how_it_was_wrapped() -> None:
    key = userkeys._RawKey(KEY)
    wrapped = key.wrap(b"d" * 32)
    assert key.unwrap_any(wrapped) == b"d" * 32
    with pytest.raises(DamagedRecordError):
        key.unwrap_any(wrapped._replace(kind="scrypt"))


def test_a_header_of_a_newer_format_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    with monkeypatch.context() as patched:
        patched.setattr(header, "_FORMAT", 2)
        encrypted(storage, KEY)
    with pytest.raises(FormatTooNewError):
        encrypted(storage, KEY)


def test_a_plain_store_is_not_opened_with_a_key(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with ckpt.open(path) as repository:
        repository.thread("t").commit({"text": "hello"})
    before = files(path)
    with pytest.raises(WrongKeyError, match="is not encrypted"):
        ckpt.open(path, encryption_key=KEY)
    assert files(path) == before
    with ckpt.open(path) as repository:
        assert repository.thread("t").state() == {"text": "hello"}


def test_an_empty_store_becomes_encrypted_when_it_is_opened_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    ckpt.open(path).close()
    with pytest.raises(WrongKeyError, match="empty and not encrypted yet"):
        ckpt.open(path, encryption_key=KEY, readonly=True)
    ckpt.open(path, encryption_key=KEY).close()
    with pytest.raises(WrongKeyError):
        ckpt.open(path)
    ckpt.open(path, encryption_key=KEY, readonly=True).close()


def test_of_two_who_begin_one_store_both_use_the_same_header(tmp_path: Path) -> None:
    class Slow(MemoryStorage):
        """Somebody else begins the store between the look at the header and the writing of one."""

        @contextmanager
        def exclusive(self) -> Iterator[Exclusive]:
            if not self.begun:
                self.begun = True
                first.append(encrypted(self, KEY))
                first[0].publish(Batch(records={b"a": b"1"}))
            with super().exclusive() as session:
                yield session

        begun = False

    first: list[Any] = []
    second = encrypted(Slow(), KEY)
    assert second.read([b"a"]) == [b"1"]
    second.publish(Batch({b"a": b"1"}, {b"a": b"2"}))
    assert first[0].read([b"a"]) == [b"2"]


@pytest.mark.parametrize(
    "key", [b"", bytes(31), bytes(33), "", " \n", "hex:", "hex:" + "1" * 63, "hex:" + "g" * 64, 7, [KEY]]
)
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, key: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ckpt.open(tmp_path / "store.db", encryption_key=key)
    assert "g" * 64 not in str(caught.value)
    assert "1" * 63 not in "".join(traceback.format_exception(caught.value))


def test_a_provider_that_fails_is_the_cause_of_the_error(tmp_path: Path) -> None:
    vault = Vault()
    storage = MemoryStorage()
    encrypted(storage, vault)
    vault.pad = os.urandom(32)
    with pytest.raises(DamagedRecordError):
        encrypted(storage, vault)
    vault.pad = b"short"
    with pytest.raises(WrongKeyError, match="could not unwrap") as caught:
        encrypted(storage, vault)
    assert isinstance(caught.value.__cause__, ValueError)


class Odd(Vault):
    """A provider one of whose members is wrong."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong
        if wrong == "an int as key_id":
            self.key_id = 7  # type: ignore[assignment]
        elif wrong == "nothing as key_id":
            self.key_id = None  # type: ignore[assignment]

    def wrap(self, data_key: bytes) -> Any:
        if self.wrong == "not allowed to wrap":
            raise PermissionError("arn:secret")
        wrapped = super().wrap(data_key)
        return "vault:v1:" + wrapped.hex() if self.wrong == "wraps into text" else wrapped

    def unwrap(self, wrapped: bytes) -> bytes:
        if self.wrong == "not allowed to unwrap":
            raise PermissionError("arn:secret")
        data_key = super().unwrap(wrapped)
        return data_key[::-1] if self.wrong == "unwraps into another key" else data_key


ODD = {
    "an int as key_id": (InvalidInputError, "has a int as key_id"),
    "nothing as key_id": (InvalidInputError, "has a NoneType as key_id"),
    "wraps into text": (InvalidInputError, "its wrap returned a str"),
    "not allowed to wrap": (WrongKeyError, "could not wrap the store's key \\(PermissionError\\)"),
    "not allowed to unwrap": (WrongKeyError, "could not unwrap the store's key"),
    "unwraps into another key": (WrongKeyError, "did not give back what it had wrapped"),
}


@pytest.mark.parametrize("wrong", ODD)
def test_a_store_that_a_provider_could_not_open_again_is_not_begun(tmp_path: Path, wrong: str) -> None:
    error, says = ODD[wrong]
    for _ in range(2):
        with pytest.raises(error, match=says) as caught:
            ckpt.open(tmp_path / "store.db", encryption_key=Odd(wrong))
        assert "arn:secret" not in str(caught.value)
    with ckpt.open(tmp_path / "store.db", encryption_key=KEY) as repository:
        assert repository.threads() == []


@pytest.mark.parametrize("wrong", ODD)
def test_a_key_that_could_not_open_the_store_again_does_not_take_the_place_of_another(store: Path, wrong: str) -> None:
    error, says = ODD[wrong]
    with pytest.raises(error, match=says):
        rotate(store, KEY, new_key=Odd(wrong), data=True)
    with ckpt.open(store, encryption_key=KEY, readonly=True) as repository:
        assert repository.thread("t").state() == {"text": "hello"}


def test_a_provider_that_wraps_no_more_does_not_stop_half_way(store: Path) -> None:
    vault = Odd("")
    rotate(store, KEY, new_key=vault)
    vault.wrong = "not allowed to wrap"
    with pytest.raises(WrongKeyError, match="could not wrap"):
        rotate(store, vault, data=True)
    with ckpt.open(store, encryption_key=vault) as repository:
        assert repository.thread("t").state() == {"text": "hello"}
    vault.wrong = ""
    assert rotate(store, vault, data=True).records > 3


def test_without_the_library_the_error_says_what_to_install(store: Path) -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import ckpt\n"
        "ckpt.open('memory://').thread('t').commit({'a': 1})\n"
        f"try: ckpt.open({str(store)!r}, encryption_key=bytes(32))\n"
        "except ckpt.CkptError as error: print(type(error).__name__, error.hints[0])\n"
        f"try: ckpt.open({str(store)!r})\n"
        "except ckpt.CkptError as error: print(type(error).__name__)\n"
        "from ckpt.encryption import rotate\n"
        f"try: rotate({str(store)!r}, bytes(32), data=True)\n"
        "except ckpt.CkptError as error: print(error.hints[0])\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == [
        "InvalidInputError install it with: pip install 'ckpt-store[encryption]'",
        "WrongKeyError",
        "install it with: pip install 'ckpt-store[encryption]'",
    ], done.stderr


# -- nothing shows ----------------------------------------------------------------------------------------

SECRET = "The-Owl-Flies-At-Dusk"


class Secret(TypedDict):
    owl_messages: Annotated[list[str], add]
    owl_files: dict[str, str]


def ask(state: Secret) -> dict[str, Any]:
    answer = interrupt({"question": f"{SECRET} interrupt"})
    return {"owl_messages": [f"{SECRET} answer {answer}"], "owl_files": {f"{SECRET}.txt": f"{SECRET} line\n" * 400}}


def run_graph(saver: CkptSaver) -> None:
    """Leave behind channels, pending writes, metadata, a subgraph's namespace, forks, tags and deleted threads."""
    inner = StateGraph(Secret)
    inner.add_node("owl_inner", lambda state: {"owl_messages": [f"{SECRET} inner"]})
    inner.add_edge(START, "owl_inner")
    builder = StateGraph(Secret)
    builder.add_node("owl_ask", ask)
    builder.add_node("owl_subgraph", inner.compile(checkpointer=True))
    builder.add_edge(START, "owl_ask")
    builder.add_edge("owl_ask", "owl_subgraph")
    builder.add_edge("owl_subgraph", END)
    graph = builder.compile(checkpointer=saver)
    for number in range(3):
        config: Any = {
            "configurable": {"thread_id": f"owl-thread-{number}", "owl_user": f"{SECRET} user"},
            "metadata": {"owl_note": f"{SECRET} note"},
        }
        graph.invoke({"owl_messages": [f"{SECRET} hello"], "owl_files": {}}, config)
        if number:
            graph.invoke(Command(resume=f"{SECRET} resume"), config)
    repository = saver.repository
    repository.tag("owl-tag", "owl-thread-1~1")
    repository.fork("owl-thread-1~2", "owl-fork")
    repository.delete("owl-thread-2")


def needles() -> set[bytes]:
    words = {SECRET, "owl", "owl_messages", "owl-thread-1", "owl-tag", "owl_ask", "messages", "branch:to:", "__start__"}
    found = {word.encode() for word in words}
    return found | {base64.b64encode(word)[:-4] for word in found if len(word) > 8} | {w[::-1] for w in found}


def test_no_plaintext_is_in_a_raw_dump_after_a_real_run(tmp_path: Path) -> None:
    path, plain = tmp_path / "encrypted" / "store.db", tmp_path / "plain" / "store.db"
    for each, options in ((path, {"encryption_key": KEY}), (plain, {})):
        each.parent.mkdir()
        with CkptSaver(each, **options) as saver:
            run_graph(saver)
            # Before closing, so that the write-ahead log is looked at too.
            shutil.copytree(each.parent, each.parent.with_suffix(".live"))
            saver.repository.gc(grace=timedelta(0))
    for folder in (path.parent, path.parent.with_suffix(".live")):
        dump = b"".join(file.read_bytes() for file in folder.iterdir())
        assert len(dump) > 20_000
        assert {word for word in needles() if word in dump} == set()
        assert KEY not in dump
    # The same search finds what a plain store shows, so it can fail.
    live = b"".join(file.read_bytes() for file in plain.parent.with_suffix(".live").iterdir())
    assert {b"owl", SECRET.encode(), b"owl-thread-1", b"owl-tag"} <= {word for word in needles() if word in live}


def test_hashes_of_names_and_content_do_not_lie_in_the_store(tmp_path: Path) -> None:
    from ckpt.history import keys
    from ckpt.objects.ids import Kind, object_id

    text = "a document that somebody guesses " * 50
    with ckpt.open(tmp_path / "store.db", encryption_key=KEY) as repository:
        info = repository.thread("ana@example.org").commit({"text": text})
        repository.tag("v1", "ana@example.org")
    dump = b"".join(files(tmp_path / "store.db").values())
    for digest in (
        keys.name_key("ana@example.org")[2:],
        keys.tag_key("v1")[1:],
        bytes.fromhex(info.id)[:16],
        object_id(Kind.BLOB, text.encode())[:16],
    ):
        assert digest[:8] not in dump


def test_keys_do_not_show_in_repr_or_errors(tmp_path: Path) -> None:
    storage = encrypted(MemoryStorage(), PASSPHRASE)
    ring = storage.keys.ring
    hidden = [KEY.hex(), PASSPHRASE, *(key.hex() for key in ring._data_keys.values()), ring._disguise_key.hex()]
    hidden += [repr(key)[2:-1] for key in ring._data_keys.values()]
    shown = [repr(each) for each in (storage, storage.keys, storage.keys.user_key, ring, ring.disguise)]
    for key in (KEY, "another passphrase"):
        with pytest.raises(WrongKeyError) as caught:
            encrypted(storage.inner, key)
        shown += traceback.format_exception(caught.value)
        shown.append(repr(caught.value))
    assert [word for word in [*hidden, "another passphrase"] if word in "".join(shown).replace(repr(KEY), "")] == []


# -- what stays as it was ---------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path) -> Iterator[list[ckpt.Repository]]:
    with ckpt.open(tmp_path / "encrypted.db", encryption_key=KEY) as one, ckpt.open(tmp_path / "plain.db") as two:
        yield [one, two]


def test_a_value_in_two_threads_costs_once(both: list[ckpt.Repository]) -> None:
    big = base64.b64encode(os.urandom(300_000)).decode()
    for repository in both:
        repository.thread("one").commit({"text": big})
        once = repository.storage.usage()
        repository.thread("two").commit({"text": big})
        twice = repository.storage.usage()
        assert once.frames > 200_000
        assert twice.frames - once.frames < 2000
        assert twice.objects == once.objects + 1


def test_an_encrypted_store_is_little_larger(both: list[ckpt.Repository]) -> None:
    for repository in both:
        for turn in range(100):
            repository.thread("t").commit({"messages": [f"message {number} of the thread" for number in range(turn)]})
    one, two = (repository.storage.usage() for repository in both)
    assert abs(one.frames - two.frames) < two.frames * 0.1
    assert one.disk < 1.3 * two.disk


def test_the_same_commits_are_found_by_the_beginning_of_their_ids(both: list[ckpt.Repository]) -> None:
    for repository in both:
        ids = [repository.thread(f"t{n % 5}").commit({"number": n, "text": "x" * 300 + str(n)}).id for n in range(120)]
        assert len(repository.storage.scan_index(b"", 500)) > 120
        for each in (ids[0], ids[60], ids[-1]):
            for size in (8, 9, 31, 32, 33, 64):
                assert repository.resolve(f"id:{each[:size]}").id == each
        wanted = [each for each in ids if sum(other.startswith(each[:4]) for other in ids) == 1]
        assert [repository.resolve(f"id:{each[:4]}").id for each in wanted] == wanted
        with pytest.raises(ckpt.CkptError, match="no thread or checkpoint matches"):
            repository.resolve("id:" + "0" * 64)


def test_commits_are_found_by_their_ids_in_a_small_store(both: list[ckpt.Repository]) -> None:
    for repository in both:
        for number in range(12):
            info = repository.thread(f"t{number}").commit({"number": number})
            assert repository.resolve(f"id:{info.id[:8]}").id == info.id


def test_graphs_share_one_encrypted_store(tmp_path: Path) -> None:
    for graph in ("", "billing", "support"):
        with ckpt.open(tmp_path / "store.db", encryption_key=KEY, graph=graph) as repository:
            repository.thread("t").commit({"graph": graph, "text": "shared " * 100})
    for graph in ("", "billing", "support"):
        with ckpt.open(tmp_path / "store.db", encryption_key=KEY, graph=graph) as repository:
            repository.gc(grace=timedelta(0))
            assert repository.thread("t").state()["graph"] == graph
            assert repository.fsck().problems == []
            assert [info.name for info in repository.graphs()] == ["", "billing", "support"]
    dump = b"".join(files(tmp_path / "store.db").values())
    assert b"billing" not in dump


def test_a_saver_takes_the_key(tmp_path: Path) -> None:
    with CkptSaver.from_conn_string(str(tmp_path / "store.db"), encryption_key=KEY) as saver:
        run_graph(saver)
        config: Any = {"configurable": {"thread_id": "owl-thread-1"}}
        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"]["owl_messages"][0] == f"{SECRET} hello"
        with pytest.raises(InvalidInputError, match="open already"):
            CkptSaver(saver.repository, encryption_key=KEY)
    with pytest.raises(WrongKeyError):
        CkptSaver(tmp_path / "store.db")


def test_closing_closes_what_is_below(tmp_path: Path) -> None:
    inner = SqliteStorage(tmp_path / "store.db")
    encrypted(inner, KEY).close()
    with pytest.raises(StoreError, match="closed"):
        inner.epoch()
    with closing(SqliteStorage(tmp_path / "store.db")) as again, pytest.raises(WrongKeyError):
        encrypted(again, OTHER)
