"""LangGraph's own conformance package, every capability of it, and that each method is really ours."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from ckpt.langgraph import CkptSaver

METHODS = (
    "get_tuple",
    "list",
    "put",
    "put_writes",
    "delete_thread",
    "delete_for_runs",
    "copy_thread",
    "prune",
    "get_delta_channel_history",
)


def run_conformance(make_saver: Any, capabilities: set[str] | None = None) -> dict[str, Any]:
    """The package's results by capability."""

    @checkpointer_test(name="CkptSaver")
    async def registered() -> AsyncIterator[CkptSaver]:
        yield make_saver()

    report = asyncio.run(validate(registered, capabilities=capabilities))
    return dict(report.results)


@pytest.mark.parametrize("capability", [each.value for each in Capability])
def test_capability(make_saver: Any, capability: str) -> None:
    result = run_conformance(make_saver, {capability})[capability]
    assert result.failures == []
    assert result.detected
    assert result.passed
    assert result.tests_passed > 0
    assert result.tests_failed == result.tests_skipped == 0


def test_all_eight_capabilities_are_detected_and_pass_in_one_run(make_saver: Any) -> None:
    results = run_conformance(make_saver)
    assert len(results) == 8
    assert {name: (each.detected, each.passed) for name, each in results.items()} == dict.fromkeys(
        results, (True, True)
    )


@pytest.mark.parametrize("name", [*METHODS, *(f"a{name}" for name in METHODS)])
def test_each_method_is_our_own_with_the_signature_langgraph_calls(name: str) -> None:
    owner = next(each for each in CkptSaver.__mro__ if name in vars(each))
    assert owner.__module__.split(".")[0] == "ckpt"
    ours = inspect.signature(getattr(CkptSaver, name)).parameters
    theirs = inspect.signature(getattr(BaseCheckpointSaver, name)).parameters
    assert list(ours) == list(theirs)
    assert [each.kind for each in ours.values()] == [each.kind for each in theirs.values()]
    assert [each.default for each in ours.values()] == [each.default for each in theirs.values()]
