"""Every command and every piece of code in README.md and docs/ runs, and prints what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_kit import ROOT, Page, agrees, blocks, make_store, pages, servers_named, steps
from docs_reference import written
from stores import store_url

PAGES = pages()
RUN = {"console", "python"}
SHOWN = {"", "text", "json", "sql"}
# What sets a machine or a shell up is run elsewhere, by .ci/run on a fresh machine; the example where examples are.
SET_UP = {
    "pip install '.[langgraph]' langgraph",
    "make demo",
    "make test",
    "python examples/three_threads.py",
    'eval "$(ckpt completion bash)"',
}
FORBIDDEN = {
    "a path of some machine": re.compile(r"(?<![\w.])/(?:tmp|home|root|Users|work|private)/"),
    "a package registry": re.compile(r"pypi\.org|pythonhosted|anaconda\.org|test\.pypi"),
    "unfinished": re.compile("|".join(["TO" + "DO", "FIX" + "ME", r"\bX" + r"XX\b"])),
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "store.db"
    make_store(path)
    return path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_shows_happens(page: Path, store: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text(encoding="utf-8")
    found = blocks(text)
    run = Page(tmp_path, store, {backend: store_url(backend, request) for backend in servers_named(text)})
    printed: dict[int, str] = {}
    for block in found:
        where = f"{name(page)}:{block.line}"
        if block.language == "python":
            printed[block.line] = run.python(block, where)
        elif block.language == "console":
            for step in steps(block):
                output, code = run.shell(step.command)
                here = f"{name(page)}:{step.line}: $ {step.command}"
                assert step.may_end_with(code), f"{here}\nended with {code}\n{output}"
                if step.shown:
                    assert agrees(step.shown, output), f"{here}\nprinted\n{output}"
        elif block.language == "text" and block.directly_after in printed:
            output = printed[block.directly_after]
            assert agrees(block.lines, output), f"{where}\nprinted\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_block_escapes_being_run(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{name(page)}:{block.line}"
        if block.language == "sh":
            assert set(filter(None, block.lines)) <= SET_UP, f"{where}: make this a console block"
        elif block.language not in RUN:
            assert block.language in SHOWN, f"{where}: nothing runs {block.language!r}"
            prompts = [line for line in block.lines if line.startswith(("$ ", ">>> "))]
            assert not prompts, f"{where}: make this a console or python block"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_no_machine_and_no_registry(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = {what: match[0] for what, pattern in FORBIDDEN.items() if (match := pattern.search(text))}
    assert found == {}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            path, _, fragment = target.partition("#")
            assert (page.parent / path).exists(), f"{name(page)} links to {target}"
            if fragment:
                titles = re.findall(r"^#+ (.*)$", (page.parent / path).read_text(encoding="utf-8"), re.M)
                assert fragment in map(slug, titles), f"{name(page)} links to {target}"


def slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_command_reference_is_what_the_commands_say() -> None:
    page = ROOT / "docs" / "cli.md"
    text = page.read_text(encoding="utf-8")
    assert text == written(text), "run python tests/docs/refresh.py"
