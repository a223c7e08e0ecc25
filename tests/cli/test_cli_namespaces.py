"""Namespaces of subgraphs, while the thread's line leads through them and after it was rewound past them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import SUPPORT, document, run, succeed

import ckpt
from ckpt.repository.incoming import NewCheckpoint, Typed


@pytest.fixture
def namespace(graph_store: Path) -> str:
    """The namespace of the subgraph that ran last; the thread was rewound to a point before it."""
    [found] = {each["ns"] for each in document("log", SUPPORT, "--subgraphs")["items"]} - {""}
    assert len(document("log", SUPPORT, "--ns", found)["items"]) == 4
    succeed("rewind", SUPPORT, "3")
    return str(found)


def test_the_log_of_a_namespace_off_the_line_lists_it_by_the_thread_or_its_head(namespace: str) -> None:
    listed = [document("log", *more, "--ns", namespace)["items"] for more in ([SUPPORT], ["@", "-t", SUPPORT])]
    assert listed[0] == listed[1] == document("log", "-t", SUPPORT, "--ns", namespace)["items"]
    assert [each["ns"] for each in listed[0]] == [namespace] * 4


@pytest.fixture
def remembering(graph_store: Path) -> str:
    """The namespace of a subgraph that remembers; the thread was rewound to a point before all of it."""
    nothing = Typed("null", b"")
    with ckpt.open(graph_store) as repository:
        for parent, made in ((None, "1"), ("1", "2"), ("2", "3"), ("3", "4")):
            repository.put(NewCheckpoint(SUPPORT, "memory", made, parent, None, nothing, nothing, {}))
    succeed("rewind", SUPPORT, "3")
    return "memory"


def test_what_a_task_made_stays_where_it_is(namespace: str) -> None:
    newest = document("log", SUPPORT, "--ns", namespace)["items"][0]
    assert document("show", SUPPORT, "--ns", namespace)["checkpoint"]["id"] == newest["id"]
    assert len(document("log", f"{SUPPORT}~1", "--ns", namespace)["items"]) == 3


def test_a_point_off_the_line_is_named_by_its_id(remembering: str) -> None:
    namespace = remembering
    newest = document("log", SUPPORT, "--ns", namespace)["items"][0]
    for line in (["show", SUPPORT], ["log", f"{SUPPORT}~1"], ["diff", SUPPORT]):
        result = run(*line, "--ns", namespace)
        assert result.exit_code == 3
        assert f"namespace '{namespace}' of thread '{SUPPORT}' has no checkpoint on the current line" in result.stderr
        assert "name one by its id" in result.stderr
    assert document("show", newest["spec"])["checkpoint"]["ns"] == namespace
    assert len(document("log", f"{newest['spec']}~1", "--ns", namespace)["items"]) == 3


def test_a_namespace_that_is_not_there_is_not_listed(namespace: str) -> None:
    result = run("log", SUPPORT, "--ns", "nowhere")
    assert result.exit_code == 3
    assert f"namespace 'nowhere' of thread '{SUPPORT}' has no checkpoints" in result.stderr


def test_the_head_of_a_subgraph_is_a_revision_in_its_own_namespace(graph_store: Path) -> None:
    [found] = {each["ns"] for each in document("log", SUPPORT, "--subgraphs")["items"]} - {""}
    inside = document("log", SUPPORT, "--ns", found)["items"]
    head = inside[0]
    succeed("tag", "sub", head["spec"])
    for revision in (head["spec"], f"id:{head['id']}", "tag:sub"):
        for more in ([], ["--heads"]):
            listed = document("log", revision, *more)["items"]
            assert [each["id"] for each in listed] == [each["id"] for each in inside]
        refused = run("log", f"{revision}~1", "--subgraphs")
        assert refused.exit_code == 2
        assert "--subgraphs lists whole threads" in refused.stderr
    root = document("show", SUPPORT)["checkpoint"]["spec"]
    every = document("log", SUPPORT, "--subgraphs")["items"]
    assert document("log", f"{SUPPORT}~1", "--subgraphs", "--heads")["items"] == every
    assert {each["ns"] for each in every} == {"", found}
    for more in ([], ["--ns", found]):
        assert {each["ns"] for each in document("log", root, *more)["items"]} == {""}
