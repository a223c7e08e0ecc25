"""A PostgreSQL store under the engine and LangGraph: hostile text, shared work, sizes beside PostgresSaver."""

from __future__ import annotations

import operator
from contextlib import closing
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import END, START, StateGraph
from postgres_server import schema_of
from postgres_wire import counted, wire_to
from psycopg.rows import dict_row

import ckpt
from ckpt.langgraph import CkptSaver
from ckpt.repository.repository import Repository
from ckpt.storage.base import Batch
from ckpt.storage.postgres import PostgresStorage

Admin = psycopg.Connection[tuple[Any, ...]]


class Tiny(TypedDict):
    count: Annotated[int, operator.add]


class Text(TypedDict):
    text: str
    texts: list[str]


HOSTILE = ["a\x00b", "\x00", "\ud800 lone", "\udfff", "x" * 65_536, "'; DROP TABLE record; --", "%s %b {0}", "ünï 名"]


def tiny(saver: Any, thread: str, steps: int) -> None:
    builder = StateGraph(Tiny)
    builder.add_node("step", lambda state: {"count": 1})
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: END if state["count"] >= steps else "step", ["step", END])
    config: Any = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 5}
    builder.compile(checkpointer=saver).invoke({"count": 0}, config, durability="sync")


def chat(saver: Any, thread: str, turns: int) -> None:
    builder = StateGraph(Text)
    builder.add_node("answer", lambda state: {"texts": [*state["texts"], state["text"][::-1] * 10]})
    builder.add_edge(START, "answer")
    graph = builder.compile(checkpointer=saver)
    texts: list[str] = []
    for turn in range(turns):
        texts = [*texts, f"{turn} {thread} asks a question of some length, as people do"]
        config: Any = {"configurable": {"thread_id": thread}}
        texts = graph.invoke({"text": texts[-1], "texts": texts}, config, durability="sync")["texts"]


def test_any_text_is_kept_in_any_place(postgres_url: str) -> None:
    with closing(ckpt.open(postgres_url)) as repository:
        for text in HOSTILE:
            repository.thread(text).commit({text: text, "list": [text, {text: text + "!"}]}, metadata={"note": text})
    with closing(ckpt.open(postgres_url)) as repository:
        for text in HOSTILE:
            assert repository.thread(text).state() == {text: text, "list": [text, {text: text + "!"}]}
        assert {thread.name for thread in repository.threads()} == set(HOSTILE)
        assert repository.fsck().problems == []


def test_text_with_nul_and_long_text_pass_through_a_graph(postgres_url: str) -> None:
    builder = StateGraph(Text)
    builder.add_node("keep", lambda state: {"texts": [state["text"], state["text"] + "!"]})
    builder.add_edge(START, "keep")
    texts = [text for text in HOSTILE if text.isprintable() or "\x00" in text]
    assert len(texts) == 6
    with CkptSaver(postgres_url) as saver:
        graph = builder.compile(checkpointer=saver)
        for text in texts:
            config: Any = {"configurable": {"thread_id": text}, "metadata": {"note": text}}
            graph.invoke({"text": text, "texts": []}, config)
    with CkptSaver(postgres_url) as saver:
        graph = builder.compile(checkpointer=saver)
        for text in texts:
            state = graph.get_state({"configurable": {"thread_id": text}})
            assert state.values == {"text": text, "texts": [text, text + "!"]}
            assert dict(state.metadata or {})["note"] == text


def test_what_one_process_began_another_continues_and_collects(postgres_url: str) -> None:
    with CkptSaver(postgres_url) as one, CkptSaver(postgres_url) as two:
        chat(one, "t", 4)
        chat(two, "u", 3)
        chat(two, "t", 2)
        one.repository.delete("u")
        one.repository.gc(grace=timedelta(0))
        chat(one, "t", 2)
        assert two.repository.fsck().problems == []
        state = two.get_tuple({"configurable": {"thread_id": "t"}})
        assert state is not None
        assert len(state.checkpoint["channel_values"]["texts"]) == 4


def rows_and_bytes(admin: Admin, schema: str) -> tuple[int, int]:
    """Return the rows of all tables of a schema, and the bytes they take with their indexes."""
    rows = size = 0
    tables = "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables WHERE schemaname = %s"
    for (table,) in admin.execute(tables, (schema,)).fetchall():
        (count,) = admin.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() or (0,)
        (length,) = admin.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone() or (0,)
        rows, size = rows + count, size + length
    return rows, size


@pytest.mark.parametrize("run", [tiny, chat])
def test_a_store_is_smaller_than_that_of_postgressaver(
    postgres_dsn: str, postgres_url: str, admin: Admin, run: Any
) -> None:
    peer = schema_of(postgres_url) + "peer"
    admin.execute(f"CREATE SCHEMA {peer}".encode())
    try:
        with psycopg.connect(
            postgres_dsn, autocommit=True, row_factory=dict_row, options=f"-c search_path={peer}"
        ) as connection:
            theirs = PostgresSaver(connection)
            theirs.setup()
            for number in range(3):
                run(theirs, f"thread {number}", 100 if run is tiny else 12)
        with CkptSaver(postgres_url) as ours:
            for number in range(3):
                run(ours, f"thread {number}", 100 if run is tiny else 12)
        mine, others = rows_and_bytes(admin, schema_of(postgres_url)), rows_and_bytes(admin, peer)
        assert mine[0] < others[0]
        assert mine[1] < others[1]
    finally:
        admin.execute(f"DROP SCHEMA {peer} CASCADE".encode())


def test_a_record_that_is_always_written_again_stays_where_it_is(postgres_url: str, admin: Admin) -> None:
    """A thread's record changes with every checkpoint: its page is reused and its index left alone."""
    schema = schema_of(postgres_url)
    with closing(PostgresStorage(postgres_url)) as storage:
        old = None
        for turn in range(500):
            new = b"%d" % turn + bytes(200)
            storage.publish(Batch({b"t": old}, {b"t": new, b"c%d" % turn: bytes(150)}))
            old = new
    size = admin.execute("SELECT pg_relation_size(%s), pg_indexes_size(%s)", (f"{schema}.record",) * 2).fetchone()
    # 500 checkpoints of about 200 bytes; 500 versions of the record and its index entries would double that. In between
    # lies what autovacuum, looking at any table, keeps from being reused meanwhile.
    assert size is not None
    assert size[0] < 170_000
    assert size[1] <= 40_960


def test_the_saver_asks_for_no_more_than_the_seam_does(postgres_dsn: str, postgres_url: str) -> None:
    """One statement for each call of the seam, also below LangGraph."""
    with wire_to(postgres_dsn) as wire:
        storage = PostgresStorage(wire.url, schema=schema_of(postgres_url))
        calls: list[str] = []

        class Counting:
            def __getattr__(self, name: str) -> Any:
                thing = getattr(storage, name)
                if callable(thing):
                    calls.append(name)
                return thing

        counting: Any = Counting()
        with CkptSaver(Repository(counting)) as saver:
            tiny(saver, "warm", 5)
            calls.clear()
            trips = counted(wire, lambda: tiny(saver, "t", 20))
            assert trips == len([name for name in calls if name not in ("check", "close")])
        storage.close()


def test_a_new_process_reads_a_head_with_four_statements(postgres_dsn: str, postgres_url: str) -> None:
    """What the store is, the name, the thread with its last checkpoint, and the objects of the state."""
    with CkptSaver(postgres_url) as saver:
        tiny(saver, "t", 5)
    with wire_to(postgres_dsn) as wire:

        def read() -> None:
            with CkptSaver(f"{wire.url}&schema={schema_of(postgres_url)}") as saver:
                state = saver.get_tuple({"configurable": {"thread_id": "t"}})
                assert state is not None
                assert state.checkpoint["channel_values"]["count"] == 5

        assert counted(wire, read) - len([request for request in wire.requests if request[:1] not in b"PQ"]) == 4
