"""DeltaChannel: what is rebuilt from the store equals the live state at every step, also after pruning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from graph_kit import Delta1, Delta2, Delta4, Delta1000, at_step, delta_graph, history, plain, state, thread
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, StateGraph
from saver_kit import NonceCipher

from ckpt.langgraph import CkptSaver

SCHEMAS = pytest.mark.parametrize("schema", [Delta4, Delta1000])
TURNS = 5


@SCHEMAS
def test_rebuilt_equals_live_after_each_step(same: Callable[..., Any], schema: type) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        live = []
        for turn in range(TURNS):
            graph = delta_graph(open_saver(), schema)
            for chunk in graph.stream({"log": [f"in {turn}"], "turn": turn}, thread(), stream_mode="values"):
                live.append(plain(chunk["log"]))
            assert state(delta_graph(open_saver(), schema), thread())["values"]["log"] == live[-1]
        past = history(delta_graph(open_saver(), schema), thread())
        rebuilt = [each["values"]["log"] for each in past[::-1] if each["step"] % 4 != 3]
        return live, rebuilt, past

    live, rebuilt, _ = same(scenario)
    assert len(live[-1]) == 4 * TURNS
    assert rebuilt == live


@SCHEMAS
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_under_each_durability(same: Callable[..., Any], schema: type, durability: Any) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        for turn in range(TURNS):
            delta_graph(open_saver(), schema).invoke(
                {"log": [f"in {turn}"], "turn": turn}, thread(), durability=durability
            )
        return history(delta_graph(open_saver(), schema), thread())

    assert len(same(scenario)[0]["values"]["log"]) == 4 * TURNS


@SCHEMAS
def test_update_state_and_a_branch(same: Callable[..., Any], schema: type) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        def build() -> Any:
            return delta_graph(open_saver(), schema)

        for turn in range(3):
            build().invoke({"log": [f"in {turn}"], "turn": turn}, thread())
        build().update_state(thread(), {"log": ["edited"]})
        edited = state(build(), thread())
        place = at_step(build(), thread(), 5)
        branch = build().update_state(place, {"log": ["branched"]}, as_node="end")
        branched = plain(build().get_state(branch).values)
        build().invoke({"log": ["in 9"], "turn": 9}, branch)
        return edited, branched, history(build(), thread())

    edited, branched, _ = same(scenario)
    assert edited["values"]["log"][-1] == "edited"
    assert len(edited["values"]["log"]) == 13
    assert branched["log"][-1] == "branched"


@SCHEMAS
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_prune_then_reload_and_go_on(make_saver: Any, schema: type, turns: int) -> None:
    def run(saver: Any, turn: int) -> None:
        delta_graph(saver, schema).invoke({"log": [f"in {turn}"], "turn": turn}, thread())

    plain_run, pruned_run = make_saver(), make_saver()
    graph = delta_graph(pruned_run, schema)
    for turn in range(turns):
        run(pruned_run, turn)
    pruned_run.copy_thread("t", "whole")
    before = state(graph, thread())
    pruned_run.prune(["t"], strategy="keep_latest")
    for saver in (pruned_run, make_saver()):
        assert state(delta_graph(saver, schema), thread()) == before
    pruned_run.repository.gc()
    run(pruned_run, 7)
    pruned_run.prune(["t"], strategy="keep_latest")
    run(make_saver(), 8)
    for turn in (7, 8):
        delta_graph(plain_run, schema).invoke({"log": [f"in {turn}"], "turn": turn}, thread("whole"))
    after = state(delta_graph(make_saver(), schema), thread())
    assert after["values"] == state(graph, thread("whole"))["values"]
    assert len(after["values"]["log"]) == 4 * (turns + 2)


@SCHEMAS
def test_copies_and_forks_rebuild_after_their_source_is_gone(make_saver: Any, schema: type) -> None:
    saver = make_saver()
    graph = delta_graph(saver, schema)
    for turn in range(4):
        graph.invoke({"log": [f"in {turn}"], "turn": turn}, thread())
    whole = history(graph, thread())
    middle = graph.get_state(at_step(graph, thread(), 6))
    saver.copy_thread("t", "copy")
    saver.repository.fork(f"ckpt:{middle.config['configurable']['checkpoint_id']}", "fork", thread="t")
    saver.delete_thread("t")
    saver.repository.gc()
    graph = delta_graph(make_saver(), schema)
    assert history(graph, thread("copy")) == whole
    assert state(graph, thread("fork"))["values"] == plain(middle.values)
    graph.invoke({"log": ["in 9"], "turn": 9}, thread("fork"))
    log = state(graph, thread("fork"))["values"]["log"]
    assert log[: len(middle.values["log"])] == middle.values["log"]
    assert len(log) > len(middle.values["log"]) + 3


def one_writer_of_three(saver: Any, schema: type) -> Any:
    """Nodes in a row of which only the first writes to the delta channel, so that snapshots lie behind the head."""
    builder = StateGraph(schema)
    builder.add_node("writes", lambda state: {"log": [f"turn {state['turn']}"]})
    builder.add_node("then", lambda state: {"turn": state["turn"]})
    builder.add_node("last", lambda state: {"turn": state["turn"]})
    builder.add_edge(START, "writes")
    builder.add_edge("writes", "then")
    builder.add_edge("then", "last")
    builder.add_edge("last", END)
    return builder.compile(checkpointer=saver)


def keep_latest(saver: CkptSaver) -> None:
    saver.prune(["t"], strategy="keep_latest")


def keep_last_two(saver: CkptSaver) -> None:
    saver.repository.prune(["t"], keep_last=2)
    saver.repository.gc(grace=timedelta(0))


@pytest.mark.parametrize("hidden", [False, True], ids=["readable", "encrypted by LangGraph"])
@pytest.mark.parametrize("prune", [keep_latest, keep_last_two])
@pytest.mark.parametrize("schema", [Delta1, Delta2, Delta4])
def test_a_prune_keeps_the_snapshot_that_nothing_was_written_to_since(
    make_saver: Any, schema: type, prune: Callable[[CkptSaver], None], hidden: bool
) -> None:
    def saver() -> CkptSaver:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make_saver(serde=EncryptedSerializer(NonceCipher())) if hidden else make_saver()

    expected: list[str] = []
    for turn in range(6):
        one_writer_of_three(saver(), schema).invoke({"turn": turn}, thread())
        expected.append(f"turn {turn}")
        prune(saver())
        assert state(one_writer_of_three(saver(), schema), thread())["values"]["log"] == expected
    rows = saver().repository.timeline("t").newest_first("", hidden=True)
    assert len(list(rows)) <= 30
    # What is out of sight because a kept checkpoint is rebuilt from it awaits no collection.
    saver().repository.gc(grace=timedelta(0))
    found = saver().repository.stats()
    assert found.bytes_reclaimable == saver().repository.storage.usage().free
    assert found.bytes_restorable == 0
    visible = saver().repository.timeline("t").newest_first("")
    assert found.checkpoints == len(list(visible))


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_checkout_of_the_beginning_leaves_out_what_a_first_run_stored_at_its_exit(
    make_saver: Any, durability: Any
) -> None:
    saver = make_saver()
    graph = delta_graph(saver, Delta1000)
    graph.invoke({"log": ["left"], "turn": 0}, thread(), durability="exit")
    beginning = history(graph, thread())[-1]
    assert beginning["step"] == -2
    oldest = saver.repository.log(thread=thread()["configurable"]["thread_id"])[-1]
    saver.repository.checkout(oldest.spec)
    graph.invoke({"log": ["anew"], "turn": 0}, thread(), durability=durability)
    other = {"configurable": {"thread_id": "never left"}}
    graph.invoke({"log": ["anew"], "turn": 0}, other, durability=durability)
    assert state(graph, thread())["values"] == state(graph, other)["values"]
