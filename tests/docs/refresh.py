"""Write into README.md and docs/ what the commands and the code there really print.

`python tests/docs/refresh.py [PAGE …]`. Output that agrees with the page, ids and times aside, stays as it
is; one that does not, but has a line `…`, is named and left to be mended by hand.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from docs_kit import ROOT, Block, Page, agrees, blocks, make_store, pages, servers_named, steps
from docs_reference import BEGIN, written

# The servers of the tests lie a folder above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import postgres_server
import redis_server


def refreshed(page: Path, run: Page) -> str:
    """Return the text of a page with its outputs renewed."""
    text = page.read_text(encoding="utf-8")
    if BEGIN in text:
        text = written(text)
    lines = text.splitlines()
    changes: list[tuple[int, int, list[str]]] = []
    printed: dict[int, str] = {}

    def compare(shown: tuple[str, ...], output: str, start: int) -> None:
        if agrees(shown, output):
            return
        if any(line.strip() == "…" for line in shown):
            print(f"{page.name}:{start + 1}: does not agree; mend it by hand\n{output}", file=sys.stderr)
            return
        changes.append((start, start + len(shown), [line.rstrip() for line in output.splitlines()]))

    for block in blocks(text):
        if block.language == "python":
            printed[block.line] = run.python(block, f"{page.name}:{block.line}")
        elif block.language == "console":
            _console(block, run, compare)
        elif block.language == "text" and block.directly_after in printed:
            compare(block.lines, printed[block.directly_after], block.line - 1)
    for start, end, new in reversed(changes):
        lines[start:end] = new
    return "\n".join(lines) + "\n"


def _console(block: Block, run: Page, compare: Callable[[tuple[str, ...], str, int], None]) -> None:
    for step in steps(block):
        output, code = run.shell(step.command)
        if not step.may_end_with(code):
            print(f"line {step.line}: $ {step.command}\nended with {code}\n{output}", file=sys.stderr)
        elif step.shown:
            compare(step.shown, output, step.line - 1 + len(step.command.splitlines()))


@contextmanager
def started(backends: list[str]) -> Iterator[dict[str, str]]:
    """Start the servers that a page needs, and yield their URLs."""
    start = {"postgres": contextmanager(postgres_server.running), "redis": redis_started}
    with ExitStack() as stack:
        yield {backend: stack.enter_context(start[backend]()) for backend in backends}


@contextmanager
def redis_started() -> Iterator[str]:
    with redis_server.running() as server:
        yield server.url


def main() -> None:
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store.db"
        make_store(store)
        for page in chosen:
            with started(servers_named(page.read_text(encoding="utf-8"))) as servers:
                new = refreshed(page, Page(Path(scratch) / page.stem, store, servers))
            if new != page.read_text(encoding="utf-8"):
                page.write_text(new, encoding="utf-8")
                print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
