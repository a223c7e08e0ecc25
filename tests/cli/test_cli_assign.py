"""`--set`: parts of stored values replaced without reviving them, and what LangGraph makes of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cli_kit import SUPPORT, WAITING, document, place, run, succeed, support_graph
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command

import ckpt
from ckpt.cli.assign import assigned
from ckpt.errors import InvalidInputError, PathNotFoundError
from ckpt.langgraph import CkptSaver
from ckpt.values.kinds import Opaque
from ckpt.values.serializer import Serializer


@dataclass
class Place:
    city: str
    at: UUID


def changed(state: Mapping[str, object], assignments: Iterable[str]) -> dict[str, Any]:
    """Assign on a state of the built-in serializer, and revive what changed."""
    serializer = Serializer()
    stored = {name: serializer.dumps_typed(value) for name, value in state.items()}
    found = assigned({name: each[0] for name, each in stored.items()}, lambda key: stored[key][1], assignments)
    return {name: serializer.loads_typed(serializer.dumps_typed(value)) for name, value in found.items()}


def test_only_what_a_path_names_changes() -> None:
    state = {"ticket": {"status": "open", "log": [1, 2]}, "other": 1, "pair": (1, UUID(int=5)), "n": [[1], 2]}
    found = changed(
        state,
        [
            'ticket.status="closed"', "ticket.log[1]=5", "new={}", "pair[0]=9", 'ticket["a=b"]=1',
            "n[0][-1]=7", "ticket.log[0]=null",
        ],
    )  # fmt: skip
    assert found == {
        "ticket": {"status": "closed", "log": [None, 5], "a=b": 1},
        "new": {},
        "pair": (9, UUID(int=5)),
        "n": [[7], 2],
    }


def test_instances_keep_their_class_and_every_other_field() -> None:
    found = changed({"home": [Place("Bonn", UUID(int=7))]}, ['home[0].city="Köln"'])
    assert found == {"home": [Place("Köln", UUID(int=7))]}


def test_what_langgraph_wrote_stays_what_langgraph_reads() -> None:
    serde = JsonPlusSerializer()
    messages = [HumanMessage("a", id="1"), AIMessage("b", id="2", tool_calls=[])]
    stored = {"messages": serde.dumps_typed(messages), "none": serde.dumps_typed(None)}
    found = assigned(
        {name: each[0] for name, each in stored.items()},
        lambda key: stored[key][1],
        ['messages[1].content="c"', "none=[1]", 'new={"a": 1.5}'],
    )
    assert (found["none"], found["new"]) == ([1], {"a": 1.5})
    edited = found["messages"]
    assert isinstance(edited, Opaque)
    read = serde.loads_typed((edited.name, edited.raw))
    assert read == [messages[0], AIMessage("c", id="2", tool_calls=[])]


@pytest.mark.parametrize(
    "text", ["ticket", "=1", "ticket=open", "a..b=1", "other.x=1", "home.city.x=1", f"other={2**70}"]
)
def test_assignments_that_are_none_say_how_to_write_one(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        changed({"other": 1, "home": Place("Bonn", UUID(int=1))}, [text])
    assert caught.value.hints


@pytest.mark.parametrize(
    "text", ["ticket.x.y=1", "ticket.log[2]=1", "nothing.x=1", "home.nothing=1", "home.nothing.x=1"]
)
def test_assignments_do_not_invent_what_leads_to_them(text: str) -> None:
    with pytest.raises(PathNotFoundError):
        changed({"ticket": {"log": [1, 2]}, "home": Place("Bonn", UUID(int=1))}, [text])


@pytest.mark.parametrize("type_", ["msgpack+aes", "pickle"])
def test_what_cannot_be_understood_is_not_replaced(type_: str) -> None:
    with pytest.raises(InvalidInputError, match="not understood"):
        assigned({"a": type_}, lambda key: b"", ["a=1"])


def test_a_fork_with_new_values_takes_another_path(graph_store: Path) -> None:
    succeed("fork", f"{SUPPORT}@{{next:tools}}", "retry", "--set", 'ticket.customer_id="C-7"')
    with CkptSaver(graph_store) as saver:
        graph = support_graph(saver)
        assert graph.get_state(place("retry")).next == ("tools",)
        values = graph.invoke(None, place("retry"))
        assert values["ticket"] == {"status": "refunded", "customer_id": "C-7", "refund_ref": "R-881"}
        assert values["messages"][-1].content == "Refund issued, reference R-881"
        original = graph.get_state(place(SUPPORT))
        assert original.values["ticket"]["customer_id"] == "C-1902"
    assert document("show", "retry")["checkpoint"]["status"] == "done"


def test_a_message_of_a_graph_can_be_set(graph_store: Path) -> None:
    succeed("fork", f"{SUPPORT}@{{next:tools}}", "retry", "--set", 'messages[0].content="refund half of it"')
    with CkptSaver(graph_store) as saver:
        values = support_graph(saver).invoke(None, place("retry"))
    assert values["messages"][0] == HumanMessage("refund half of it", id="human-0")


def test_what_the_command_line_changes_is_what_the_graph_continues_from(graph_store: Path) -> None:
    succeed("rewind", SUPPORT, "2")
    succeed("fork", WAITING, "twin")
    succeed("checkout", f"{WAITING}@{{next:agent}}")
    with CkptSaver(graph_store) as saver:
        graph = support_graph(saver)
        assert graph.get_state(place(SUPPORT)).next == ("agent",)
        assert graph.invoke(None, place(SUPPORT))["messages"][-1].content == "Refund issued, reference R-881"
        assert graph.get_state(place("twin")).interrupts
        assert graph.invoke(Command(resume="fine"), place("twin"))["notes"][0] == "approved: fine"
        assert graph.get_state(place(WAITING)).next == ("agent",)
        assert graph.invoke(None, place(WAITING))["__interrupt__"]
    heads = [item["id"] for item in document("log", SUPPORT, "--heads", "-n", "99")["items"] if item["is_head"]]
    assert len(heads) == 2


def test_a_fork_on_a_plain_store_reads_back_as_plain_values(plain_store: Path) -> None:
    text = succeed("fork", "plans~2", "c", "--set", 'steps[0]="z"', "--set", "size=null", "--set", 'more={"a": [1]}')
    assert "3 keys set (more not there before), head" in text
    assert "not there" not in succeed("fork", "plans~2", "b", "--set", "size=7")
    with ckpt.open(str(plain_store)) as repository:
        state = repository.thread("c").state()
    assert (state["steps"], state["size"], state["more"]) == (["z", "b"], None, {"a": [1]})
    assert run("fork", "plans~2", "d", "--set", "steps[9]=1").exit_code == 3
    assert run("show", "d").exit_code == 3


@pytest.mark.parametrize(
    "assignment", ['x="a\ud800"', 'd.a="\udfff"', 'd={"\ud800": 1}', 'd["\ud800"]=1', 'new="\ud83d"']
)
def test_half_of_a_surrogate_pair_is_set_only_where_it_can_be_read(assignment: str) -> None:
    state = {"x": "old", "d": {"a": 1}}
    assert changed(state, [assignment])
    written = {name: JsonPlusSerializer().dumps_typed(value) for name, value in state.items()}
    with pytest.raises(InvalidInputError, match="half of a surrogate pair"):
        assigned({name: each[0] for name, each in written.items()}, lambda key: written[key][1], [assignment])
    assert assigned({"x": "msgpack"}, lambda _: b"", ['x="\\ud83d\\ude00"']) == {"x": "😀"}
