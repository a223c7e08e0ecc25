"""House rules that no linter knows, checked over the sources of `ckpt` themselves.

What ruff, mypy and import-linter can say is theirs to say; this file holds the rest.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckpt

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ckpt"
SOURCES = sorted(PACKAGE.rglob("*.py"))
BELOW_CLI = [path for path in SOURCES if PACKAGE / "cli" not in path.parents]
# A configuration is made to name variables, so the module that loads one may look them up. libpq reads variables of its
# own, so the module that calls it may look whether there are any. Neither does anything else of the kind.
LOOKING_UP = [
    (PACKAGE / "config" / "loading.py", "os.environ"),
    (PACKAGE / "storage" / "postgres_connect.py", "os.environ"),
]

LINES_MAX = 450
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]))


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def forbidden_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and name of all that prints, exits or reads the environment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"print", "input", "exit", "quit", "SystemExit"}:
                yield node.lineno, node.func.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted = f"{node.value.id}.{node.attr}"
            if dotted in {
                "os.environ",
                "os.environb",
                "os.getenv",
                "os.putenv",
                "sys.exit",
                "sys.stdout",
                "sys.stderr",
            }:
                yield node.lineno, dotted
        elif isinstance(node, ast.ImportFrom) and node.module in {"os", "sys"}:
            for alias in node.names:
                if alias.name in {"environ", "environb", "getenv", "putenv", "exit", "stdout", "stderr"}:
                    yield node.lineno, f"{node.module}.{alias.name}"


def modules_after(statement: str) -> tuple[set[str], int]:
    """Run a statement in a fresh interpreter; return the top-level modules loaded and the threads alive."""
    script = (
        f"{statement}\n"
        "import json, sys, threading\n"
        "print(json.dumps([sorted({m.partition('.')[0] for m in sys.modules}), threading.active_count()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    modules, threads = json.loads(done.stdout)
    return set(modules), threads


def test_there_are_sources_to_check() -> None:
    assert len(BELOW_CLI) > 10
    assert len(SOURCES) > len(BELOW_CLI)


def test_no_file_outgrows_its_idea() -> None:
    lengths = {where(path, 1): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}


def test_every_module_says_what_it_is_for() -> None:
    assert [where(path, 1) for path in SOURCES if not ast.get_docstring(parse(path))] == []


def test_nothing_is_left_unfinished() -> None:
    found = [
        where(path, number)
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_only_the_command_line_prints_exits_or_reads_the_environment() -> None:
    found = [
        f"{where(path, line)} {name}"
        for path in BELOW_CLI
        for line, name in forbidden_names(parse(path))
        if (path, name) not in LOOKING_UP
    ]
    assert found == []


@pytest.mark.parametrize("name", sorted(ckpt.__all__))
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    thing = getattr(ckpt, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return  # a constant has no docstring of its own
    own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert own, f"ckpt.{name} has no docstring"
    assert not own.startswith(f"{name}("), f"ckpt.{name} has only the docstring that dataclasses make up"


def test_the_package_and_the_project_agree_on_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ckpt.__version__ == project["version"]


def test_importing_ckpt_is_cheap_and_starts_nothing() -> None:
    modules, threads = modules_after("import ckpt")
    assert modules & {"langgraph", "langchain_core", "sqlite_utils", "click", "asyncio"} == set()
    assert threads == 1


def test_the_command_line_starts_without_what_it_may_not_need() -> None:
    modules, threads = modules_after("import ckpt.cli.main")
    assert modules & {"langgraph", "langchain_core", "sqlite_utils", "pydantic"} == set()
    assert threads == 1


def test_imports_point_downward() -> None:
    pytest.importorskip("importlinter", reason="the layering contract needs import-linter (the dev extra)")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
            "--no-logo",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
