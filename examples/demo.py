"""`make demo`: an agent works on `ckpt`, then its history is looked at and changed on the command line.

No network and no keys: the model is made of rules (`support_agent.py`). Everything happens in a temporary
directory that is removed at the end; `--keep` leaves it.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from langgraph.types import Command
from support_agent import build, talk

from ckpt.langgraph import CkptSaver

CONVERSATIONS = {
    "support-42": [
        "Hello, my order A-1001 arrived broken.",
        "I want my money back, please.",
        "Thank you!",
    ],
    "support-43": [f"Where is my order A-{number}?" for number in range(2001, 2041)],
}
TURNS_SHOWN = 3


def heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def say(who: str, text: str) -> None:
    print(f"  {who:<9} {text}")


def ckpt(folder: Path, line: str) -> None:
    """Run one command line and show it with its output."""
    print(f"\n$ ckpt --store store.db {line}", flush=True)
    command = [sys.executable, "-m", "ckpt", "--no-pager", "--store", "store.db", *shlex.split(line)]
    subprocess.run(command, cwd=folder, check=True)


def on_sqlite_saver(path: Path) -> int:
    """Lead the same conversations on LangGraph's own saver; return the bytes it wrote."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(path)) as saver:
        graph = build(saver)
        for thread, texts in CONVERSATIONS.items():
            talk(graph, thread, texts, lambda who, text: None)
    return size(path)


def size(path: Path) -> int:
    """Return the bytes of a database with everything beside it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def demo(folder: Path) -> None:
    store = folder / "store.db"

    heading("1. A LangGraph agent works through two threads on CkptSaver")
    with CkptSaver(store) as saver:
        graph = build(saver)
        for thread, texts in CONVERSATIONS.items():
            print(f" {thread}")
            talk(graph, thread, texts[:TURNS_SHOWN], say)
            if more := texts[TURNS_SHOWN:]:
                print(f"  … and {len(more)} more turns like these")
                talk(graph, thread, more, lambda who, text: None, first=TURNS_SHOWN)
    written = size(store)

    heading("2. The same store on the command line")
    ckpt(folder, "threads")
    ckpt(folder, "log support-42 -n 12")
    ckpt(folder, "diff 'support-42@{next:approve}' support-42")

    heading("3. Fork: what if the manager had said no?")
    ckpt(folder, "fork 'support-42@{next:approve}' support-42-no")
    with CkptSaver(store) as saver:
        graph = build(saver)
        config = {"configurable": {"thread_id": "support-42-no"}}
        print("\n>>> graph.invoke(None, config)")
        result = graph.invoke(None, config)
        say("waiting", f"approve {result['__interrupt__'][0].value}?")
        print('>>> graph.invoke(Command(resume="no"), config)')
        result = graph.invoke(Command(resume="no"), config)
        say("agent", result["messages"][-1].text)
    ckpt(folder, "log support-42-no -n 5")
    ckpt(folder, "diff support-42 support-42-no")

    heading("4. Rewind, and undo")
    ckpt(folder, "rewind support-43 3")
    ckpt(folder, "log support-43 -n 6")
    ckpt(folder, "undo")

    heading("5. What it takes")
    ckpt(folder, "stats")
    theirs = on_sqlite_saver(folder / "langgraph.db")
    print(
        f"\nThe two threads of part 1 took {written:,} bytes on CkptSaver.\nOn LangGraph's SqliteSaver "
        f"the same run took {theirs:,}, {theirs / written:.1f} times as many; longer threads, wider gap."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the temporary directory")
    keep: bool = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="ckpt-demo-"))
    print(f"Working in {folder}")
    try:
        demo(folder)
    finally:
        if keep:
            print(f"\nKept {folder}; look around with: ckpt --store {folder / 'store.db'} log support-42")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            print(f"Removed {folder} (--keep leaves it)")


if __name__ == "__main__":
    main()
