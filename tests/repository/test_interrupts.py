"""Interrupts at the worst moment, clocks that go back, and forked processes: what is acknowledged stays readable."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt.history import clock
from ckpt.objects.open_packs import OpenPacks, _OpenPack
from ckpt.objects.packs import Beginning, PackStream
from ckpt.repository import Repository

TEXT = "a line of some length that is worth an object of its own, and then some more of it " * 3 + "{}"


def state(number: int) -> dict[str, object]:
    return {"texts": [TEXT.format(each) for each in range(number + 1)], "n": number}


def interrupted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, late: bool) -> None:
    """Have a method interrupted once, before or after it did its work."""
    original: Callable[..., Any] = getattr(owner, name)

    def once(*args: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        if late:
            original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, once)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(OpenPacks, "stored"), (_OpenPack, "stored"), (Beginning, "add"), (PackStream, "append"), (OpenPacks, "append")],
)
def test_what_is_acknowledged_after_an_interrupt_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, late: bool
) -> None:
    with ckpt.open(tmp_path / "store.db") as repository:
        thread = repository.thread("t")
        thread.commit(state(0))
        interrupted(monkeypatch, owner, name, late=late)
        with pytest.raises(KeyboardInterrupt):
            thread.commit(state(1))
        for number in range(2, 8):
            thread.commit(state(number))
            repository.thread(f"t{number}").commit(state(number))
    with ckpt.open(tmp_path / "store.db") as repository:
        assert repository.fsck().problems == []
        assert [repository.state(info.id) for info in repository.thread("t").log()][:6] == [
            state(number) for number in range(7, 1, -1)
        ]
        assert all(repository.thread(f"t{number}").state() == state(number) for number in range(2, 8))


def test_ids_do_not_grow_while_the_clock_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    ahead = clock.next_checkpoint_id("")
    monkeypatch.setattr(clock.time, "time_ns", lambda: now - 3600 * 10**9)
    ids = [ahead]
    for _ in range(200):
        ids.append(clock.next_checkpoint_id(ids[-1]))
    assert ids == sorted(set(ids))
    assert {len(each) for each in ids} == {36}
    named = ["zz-given"]
    for _ in range(200):
        named.append(clock.next_checkpoint_id(named[-1]))
    assert named == sorted(set(named))
    assert {len(each) for each in named[1:]} == {len("zz-given.") + 36}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_is_not_stopped_by_a_lock_of_its_parent(tmp_path: Path) -> None:
    with ckpt.open(tmp_path / "store.db") as repository:
        repository.thread("t").commit(state(0))
        stop = threading.Event()

        def work(number: int) -> None:
            turn = 0
            while not stop.is_set():
                repository.thread(f"busy{number}").commit(state(turn % 5))
                turn += 1

        busy = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for each in busy:
            each.start()
        try:
            for turn in range(8):
                child = os.fork()
                if not child:
                    _in_child(repository, turn)
                assert _ended(child), "the child hangs"
        finally:
            stop.set()
            for each in busy:
                each.join()
        assert repository.fsck().problems == []
        for turn in range(8):
            assert repository.thread(f"child{turn}").state() == state(3)


def _in_child(repository: Repository, turn: int) -> None:
    try:
        signal.alarm(30)
        repository.thread(f"child{turn}").commit(state(3))
    except BaseException:
        os._exit(1)
    os._exit(0)


def _ended(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0
