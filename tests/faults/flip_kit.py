"""A small store with one of everything, and what its readers say when one byte of it is wrong."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from engine_kit import Question, put, put_writes, questions

import ckpt
from ckpt.errors import IntegrityError, StoreError
from ckpt.repository import Repository


class Lie(NamedTuple):
    """A flip that was not noticed, or not reported as what it is."""

    offset: int
    question: str
    answer: str


def build(path: Path) -> None:
    """Make the store in a file; see `fill`."""
    with ckpt.open(path) as repository:
        fill(repository)


def fill(repository: Repository) -> None:
    """Put threads with subgraphs, pending writes early, late and many, forks, a tag, a deleted thread."""
    text = "".join(random.Random(4).choices("abcdefghijklmnop \n", k=9000))
    parent = None
    for step in range(6):
        name = f"c{step}"
        messages = [f"{j}: {text[j * 300 : j * 300 + 200]}" for j in range(step + 2)]
        put(repository, "alpha", name, {"messages": messages, "n": step}, parent=parent)
        writes = [(0, "n", step), (-1, "__error__", f"e{step}"), (1, "messages", text[:200] + name)]
        put_writes(repository, "alpha", name, f"task-{step}", writes)
        if step % 2:
            before = None if step == 1 else f"s{step - 2}"
            put(repository, "alpha", f"s{step}", {"inner": [step] * 3}, namespace="sub:1", parent=before)
            put_writes(repository, "alpha", f"s{step}", "inner", [(0, "inner", step)], namespace="sub:1")
        parent = name
    put_writes(repository, "beta", "b0", "early", [(0, "x", "before its checkpoint")])
    put(repository, "beta", "b0", {"x": text[:5000]})
    put(repository, "beta", "b1", {"x": text[:6000], "y": None}, parent="b0")
    for task in range(12):
        put_writes(repository, "beta", "b1", f"task {task}", [(0, "x", text[task * 400 : task * 500])])
    put(repository, "beta", "b1x", {"x": "another head"}, parent="b0")
    repository.copy_thread("alpha", "fork")
    put(repository, "fork", "c6", {"n": 99}, parent="c5")
    put_writes(repository, "fork", "c5", "late", [(0, "n", "written to a checkpoint of its base")])
    put(repository, "fork", "s6", {"inner": "of the fork"}, namespace="sub:1", parent="s5")
    put(repository, "alpha", "c6", {"n": "not the fork's"}, parent="c5")
    repository.fork('thread:"alpha"~3', "older")
    repository.tag("v1", "thread:beta")
    put(repository, "gone", "g0", {"x": "deleted"})
    repository.delete("gone")


def all_questions(path: Path) -> list[Question]:
    """Return every question about the store, with those about what is not in it."""
    with ckpt.open(path) as repository:
        return everything_asked(repository)


def everything_asked(repository: Repository) -> list[Question]:
    """Return what `all_questions` does, for an open store."""
    asked = questions(repository)
    # The answer to this one costs hundreds of reads, so it is not asked where it cannot differ.
    asked.sort(key=lambda question: question[0] == "names")
    return [
        *asked,
        ("deleted thread", lambda repo: repo.read("gone")),
        ("tags", lambda repo: {name: info.id for name, info in repo.tags().items()}),
        ("operations", lambda repo: [(done.kind, done.text) for done in repo.operations()]),
    ]


def lies(path: Path, offsets: Iterable[int], mask: int) -> list[Lie]:
    """Flip each of these bytes of a store in turn, ask everything, and return what was neither right nor an error."""
    whole = path.read_bytes()
    asked = all_questions(path)
    with ckpt.open(path) as repository:
        truth = {label: ask(repository) for label, ask in asked}
    found: list[Lie] = []
    file = os.open(path, os.O_RDWR)
    try:
        for offset in offsets:
            os.pwrite(file, bytes([whole[offset] ^ mask]), offset)
            found += _ask(path, offset, asked, truth)
            os.pwrite(file, whole[offset : offset + 1], offset)
    finally:
        os.close(file)
    assert path.read_bytes() == whole, "reading has changed the file"
    return found


def _ask(path: Path, offset: int, asked: list[Question], truth: dict[str, object]) -> list[Lie]:
    try:
        repository: Repository = ckpt.open(path, create=offset < 100)
    except (IntegrityError, StoreError):
        return []
    except Exception as error:
        return [Lie(offset, "open", repr(error))]
    found: list[Lie] = []
    with repository:
        for label, ask in asked:
            try:
                answer = ask(repository)
            except (IntegrityError, StoreError):
                continue
            except Exception as error:
                found.append(Lie(offset, label, repr(error)))
            else:
                if answer != truth[label]:
                    found.append(Lie(offset, label, f"{answer!r} instead of {truth[label]!r}"))
    return found


def structural(path: Path) -> set[int]:
    """Return the offsets of the file's header and of each page's header and first cell pointers."""
    size = path.stat().st_size
    return set(range(100)) | {page + i for page in range(0, size, 4096) for i in range(32)}


def explain(path: Path, found: Iterable[Lie]) -> str:
    """Return a line per byte: which page and whose, the first question answered wrongly, and how many more."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as plain:
        owners = dict(plain.execute("SELECT rootpage, name FROM sqlite_master"))
    byte: dict[int, list[Lie]] = {}
    for lie in found:
        byte.setdefault(lie.offset, []).append(lie)
    lines = []
    for offset, lies_told in byte.items():
        page, rest = divmod(offset, 4096)
        owner = "header and schema" if page == 0 else owners.get(page + 1, "not a root")
        first = f"{lies_told[0].question}: {lies_told[0].answer[:150]}"
        lines.append(f"{offset} (page {page + 1}+{rest}, {owner}): {first} (and {len(lies_told) - 1} more)")
    return "\n".join(lines)
