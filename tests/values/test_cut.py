"""Cutting values into pieces: nothing is lost, nothing depends on what was cut before, equal parts are shared."""

from __future__ import annotations

import random
from itertools import product
from zlib import crc32

import msgpack
import pytest
from cut_kit import EXAMPLES, Objects, cut_pieces, pack, pieces_of_text
from hypothesis import example, given
from hypothesis import strategies as st

from ckpt.errors import DamagedObjectError
from ckpt.objects.ids import ObjectId
from ckpt.values.cut import CHUNK_MAX, INLINE_MAX, LEAF_MAX, Cut
from ckpt.values.rope import assemble


def texts(size_max: int) -> st.SearchStrategy[str]:
    """Texts of any length up to a bound, long ones made of lines."""
    return st.builds(
        lambda seed, size, lines: "".join(random.Random(seed).choices("abc déf\n" if lines else "abcdef", k=size)),
        st.integers(0, 30),
        st.sampled_from([0, 1, 20, 90, 127, 128, 130, 700, 4096, size_max]),
        st.booleans(),
    )


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts(9000)
    | texts(300)
    | st.binary(max_size=200)
)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(texts(200), inner, max_size=12)
        | st.builds(lambda value: msgpack.ExtType(5, msgpack.packb(value)), inner)
        | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=300))
        | st.builds(lambda value, times: [value] * times, inner, st.integers(0, 70))
    ),
    max_leaves=25,
)
containers = st.lists(documents, max_size=60) | st.dictionaries(texts(200), documents, max_size=40)


@EXAMPLES
@given(documents)
def test_a_document_is_put_together_again(value: object) -> None:
    Objects().cut(pack(value))


@EXAMPLES
@given(st.binary(max_size=400), st.integers(0, 60), st.binary(max_size=10), st.sampled_from(["msgpack", "pickle"]))
def test_any_bytes_are_put_together_again(data: bytes, times: int, end: bytes, type_: str) -> None:
    Objects().cut(data * times + end, type_=type_)


@EXAMPLES
@given(documents, st.data())
def test_broken_documents_are_put_together_again(value: object, data: st.DataObject) -> None:
    whole = bytearray(pack([value, "x" * LEAF_MAX]))
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[position] ^= data.draw(st.integers(1, 255))
    length = data.draw(st.integers(0, len(whole)))
    Objects().cut(bytes(whole[:length]))
    Objects().cut(bytes(whole))


@pytest.mark.parametrize(
    "size", [0, 1, INLINE_MAX - 1, INLINE_MAX, LEAF_MAX, LEAF_MAX + 1, CHUNK_MAX, 2 * CHUNK_MAX + 7]
)
@pytest.mark.parametrize("type_", ["msgpack", "bytes"])
def test_every_size_is_put_together_again(size: int, type_: str) -> None:
    objects = Objects()
    for data in (
        random.Random(size).randbytes(size),
        pack("ü" * (size // 2)),
        pack(bytes(size)),
        pack("line\n" * (size // 5)),
    ):
        objects.cut(data, type_=type_)
        assert max(map(len, objects.stored.values()), default=0) <= CHUNK_MAX


def test_deep_nesting_ends() -> None:
    value: object = "x" * 5000
    for _ in range(400):
        value = [value, "y" * 200]
    Objects().cut(pack(value))
    for levels in (100, 1500):
        document = pack("z" * 5000)
        for _ in range(levels):
            document = pack(msgpack.ExtType(1, document))
        Objects().cut(document)


def test_what_lies_too_deep_to_be_cut_is_still_no_object_without_bound() -> None:
    value: object = ["x" * 300] * (CHUNK_MAX // 150)
    for _ in range(70):
        value = [value]
    objects = Objects()
    objects.cut(pack(value))
    assert max(map(len, objects.stored.values())) == CHUNK_MAX


# -- the previous version ------------------------------------------------------------------------------


def cut_both_ways(objects: Objects, data: bytes, previous: Cut | None) -> Cut | None:
    """Assert that a cut that was shown the previous version is the cut that was not; return its memo."""
    rope, memo, _ = objects.cut(data, previous)
    fresh = Objects()
    wanted, fresh_memo, _ = fresh.cut(data)
    assert rope == wanted
    assert (memo is None) == (fresh_memo is None)
    if memo is not None and fresh_memo is not None:
        assert (memo.body, memo.form, memo.ends, memo.items) == (
            fresh_memo.body,
            fresh_memo.form,
            fresh_memo.ends,
            fresh_memo.items,
        )
    assert fresh.stored.keys() <= objects.stored.keys()
    return memo


@EXAMPLES
@given(st.lists(containers, min_size=2, max_size=4))
def test_what_was_cut_before_does_not_matter(versions: list[object]) -> None:
    objects, memo = Objects(), None
    for version in versions:
        memo = cut_both_ways(objects, pack(version), memo)


@EXAMPLES
@given(st.lists(documents, min_size=1, max_size=90), st.data())
def test_edits_of_a_list_cut_as_if_it_were_new(items: list[object], data: st.DataObject) -> None:
    objects, memo = Objects(), None
    memo = cut_both_ways(objects, pack(items), memo)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(items)))
        end = data.draw(st.integers(start, min(len(items), start + 5)))
        items = items[:start] + data.draw(st.lists(leaves, max_size=4)) + items[end:]
        memo = cut_both_ways(objects, pack(items), memo)


@EXAMPLES
@given(st.dictionaries(texts(200), leaves, min_size=1, max_size=60), st.data())
def test_edits_of_a_dict_cut_as_if_it_were_new(entries: dict[str, object], data: st.DataObject) -> None:
    objects, memo = Objects(), None
    memo = cut_both_ways(objects, pack(entries), memo)
    for _ in range(data.draw(st.integers(1, 4))):
        entries = dict(entries)
        if entries and data.draw(st.booleans()):
            del entries[data.draw(st.sampled_from(sorted(entries)))]
        entries.update(data.draw(st.dictionaries(texts(200), leaves, max_size=3)))
        memo = cut_both_ways(objects, pack(entries), memo)


@EXAMPLES
@given(st.integers(0, 10**6), st.integers(0, 3000), st.integers(-3, 12))
def test_long_lists_of_small_and_large_values_cut_as_if_they_were_new(seed: int, length: int, edits: int) -> None:
    chance = random.Random(seed)

    def value() -> object:
        kind = chance.random()
        return chance.randrange(1000) if kind < 0.6 else f"{chance.randrange(50)} " * chance.choice([1, 40, 300, 2000])

    items = [value() for _ in range(length // 10 if edits > 3 else length)]
    objects = Objects()
    memo = cut_both_ways(objects, pack(items), None)
    for _ in range(max(edits, 1)):
        position = chance.choice([0, len(items), chance.randrange(len(items) + 1)])
        items[position : position + chance.randrange(3)] = [value() for _ in range(chance.randrange(4))]
        memo = cut_both_ways(objects, pack(items), memo)


# -- sharing -------------------------------------------------------------------------------------------


def messages(count: int) -> list[dict[str, object]]:
    chance = random.Random(7)
    return [
        {"id": f"{i}", "role": "user", "content": f"{i}: " + "".join(chance.choices("abcdefgh ", k=300))}
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: {"messages": value, "other": 1},
        lambda value: ["Send", "node", {"messages": value}],
        lambda value: msgpack.ExtType(5, msgpack.packb(["module", "Class", {"messages": value}])),
        lambda value: [{"before": "b" * 5000}, value],
    ],
    ids=["channel", "send", "extension", "neighbour"],
)
def test_the_same_value_elsewhere_is_the_same_objects(wrap: object) -> None:
    objects = Objects()
    value = messages(300)
    _, _, alone = objects.cut(pack(value))
    _, _, inside = objects.cut(pack(wrap(value)))  # type: ignore[operator]
    new = sum(len(objects.stored[oid]) for oid in inside - alone)
    assert len(alone & inside) >= 300
    assert new < 12_000


def cut_text(text: bytes) -> list[bytes]:
    """The pieces of a text of more than LEAF_MAX bytes."""
    array, header, *pieces = cut_pieces(pack([text.decode()]))
    assert array == b"\x91"
    assert header + text == pack(text.decode())
    return pieces


@EXAMPLES
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0, 1, 7, 40, 300, 600, 9000]), st.booleans()), max_size=6),
)
def test_long_text_is_cut_where_the_format_says(seed: int, blocks: list[tuple[int, int, bool]]) -> None:
    chosen = random.Random(seed)
    body = "".join(
        ("\n" if empty else "") + "".join(chosen.choices("abc \t", k=chosen.randint(0, width))) + "\n"
        for count, width, empty in blocks
        for _ in range(count)
    )
    # Long enough to be cut, and with a last line that has no end.
    text = body.encode() + b"x" * max(LEAF_MAX + 1 - len(body), 3)
    assert cut_text(text) == pieces_of_text(text)


@pytest.mark.parametrize("line", ["\n", "\r\n", "-\n", "a line of twenty byte\n", "0\n1\n2\n"])
def test_a_text_of_lines_that_are_all_alike_costs_few_hashes(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    monkeypatch.setattr("ckpt.values.cut.crc32", lambda data: hashed.append(data) or crc32(data))
    text = (line * 300_000).encode()[:300_000]
    pieces = cut_text(text)
    assert pieces == pieces_of_text(text)
    assert 18 <= len(pieces) <= 300
    assert len(hashed) <= 513 * len(pieces) + 1
    assert sum(map(len, hashed)) < 5 * len(text)


@pytest.mark.parametrize(
    ("before", "length"), [(0, 1023), (0, 1024), (0, 1025), (100, 923), (100, 924), (1021, 2), (1022, 2), (980, 44)]
)
def test_a_piece_of_text_ends_behind_its_1024th_byte_at_the_earliest(before: int, length: int) -> None:
    ends = before + length
    for wanted in (True, False):
        text = lines_of(before, length, ends=wanted) + b"x" * LEAF_MAX
        assert cut_text(text) == ([text[:ends], text[ends:]] if wanted and ends >= 1024 else [text])


def lines_of(before: int, length: int, *, ends: bool) -> bytes:
    """A line behind one of `before` bytes, or alone, whose hash ends a piece, or does not."""
    start = b" " * (before - 1) + b"\n" if before else b""
    for pair in product(range(0x20, 0x7F), repeat=2):
        text = bytearray(start + b" " * (length - 1) + b"\n")
        text[-12:-10] = bytes(pair)
        if (not crc32(text[min(before, len(text) - 64) :]) & (0b111 if length >= 16 else 0b111111)) is ends:
            return bytes(text)
    raise AssertionError("no such line")


def runs_of(values: list[bytes]) -> list[bytes]:
    """What docs/format.md says of runs of small values, word by word."""
    runs: list[bytes] = []
    run: list[bytes] = []
    for value in values:
        run.append(value)
        whole = b"".join(run)
        if len(whole) >= 512 and len(run) >= 6:
            last = len(b"".join(run[-6:]))
            zeros = 0b1111 if last > 64 else 0b111111
            if not crc32(whole[-max(64, last) :]) & zeros or len(whole) > 4096:
                runs.append(whole)
                run = []
    return runs + [b"".join(run)] * bool(run)


@EXAMPLES
@example(45574, 200, 126, 6).via("the first six end a run")
@given(st.integers(0, 2**32), st.integers(200, 3000), st.sampled_from([1, 5, 12, 60, 126]), st.integers(1, 9))
def test_small_values_are_joined_as_the_format_says(seed: int, count: int, width: int, kinds: int) -> None:
    chance = random.Random(seed)
    some = ["".join(chance.choices("abcdef", k=chance.randrange(width))) for _ in range(kinds)]
    values = [chance.choice(some) for _ in range(count)]
    header, *runs = cut_pieces(pack(values))
    assert runs == runs_of([pack(value) for value in values])
    large = "L" * 200
    assert cut_pieces(pack([*values, large, *values]))[1:] == [*runs, pack(large), *runs]
    assert len(header) <= 3


def test_appending_to_a_long_list_makes_few_objects() -> None:
    objects = Objects()
    items = messages(10_000)
    _, memo, _ = objects.cut(pack(items))
    total = set(objects.stored)
    count = size = most = 0
    for step in range(50):
        items.append({"id": f"new {step}", "role": "ai", "content": f"{step} " * 100})
        _, memo, emitted = objects.cut(pack(items), memo)
        fresh = emitted - total
        total |= fresh
        count += len(fresh)
        most = max(most, len(fresh))
        size += sum(len(objects.stored[oid]) for oid in fresh) - len(pack(items[-1]))
    assert most <= 8
    assert count <= 50 * 3
    assert size / 50 < 2_500


@pytest.mark.parametrize("position", [0, 1, 5_000, 9_999])
def test_editing_a_long_list_makes_few_objects(position: int) -> None:
    objects = Objects()
    items = messages(10_000)
    _, memo, _ = objects.cut(pack(items))
    before = set(objects.stored)
    edits: list[list[dict[str, object]]] = [
        [*items[:position], {"id": "edited", "content": "e" * 300}, *items[position + 1 :]],
        [*items[:position], {"id": "inserted", "content": "i" * 300}, *items[position:]],
        [*items[:position], *items[position + 1 :]],
    ]
    for edited in edits:
        _, _, emitted = objects.cut(pack(edited), memo)
        fresh = emitted - before
        assert len(fresh) <= 16
        assert sum(len(objects.stored[oid]) for oid in fresh) < 20_000


FEW = {
    "bits": [0, 1],
    "booleans": [False, True],
    "rarely true": [False] * 49 + [True],
    "ratings": [1, 2, 3, 4, 5],
    "labels": ["ok", "fail", "skip"],
    "long labels": ["completed without any errors", "failed for a reason unknown"],
    "records": [{"role": role, "state": "done", "by": "agent"} for role in ("user", "assistant", "tool")],
    "lines of two": ["ok\n", "fail\n"],
    "lines of three": ["heartbeat ok\n", "heartbeat missed\n", "restarted\n"],
    "lines of bits": ["0\n", "1\n"],
}


@pytest.mark.parametrize("kinds", FEW.values(), ids=FEW)
@pytest.mark.parametrize("count", [10_000, 80_000])
def test_many_values_of_few_kinds_are_shared_but_for_what_differs(kinds: list[object], count: int) -> None:
    values = random.Random(1).choices(kinds, k=count)
    old = cut_new(values)
    for edited in (
        [*values, kinds[0]],
        [kinds[0], *values],
        [kinds[-1], *values[1:]],
        [*values[1:], kinds[0]],
        [*values[count // 40 :], *values[: count // 40]],
    ):
        new = cut_new(edited)
        assert sum(len(new[oid]) for oid in new.keys() - old.keys()) < 16_000


def cut_new(values: list[object]) -> dict[ObjectId, bytes]:
    """The objects of a list, or of a text made of lines."""
    objects = Objects()
    lines = [value for value in values if isinstance(value, str) and value.endswith("\n")]
    objects.cut(pack("".join(lines) if lines else values))
    return objects.stored


def test_appending_to_a_text_of_one_line_over_and_over_costs_one_piece() -> None:
    for count in (10_000, 300_000):
        old, new = cut_new(["same\n"] * count), cut_new(["same\n"] * (count + 1))
        assert sum(len(new[oid]) for oid in new.keys() - old.keys()) < 20_000


def test_a_rope_that_lies_about_lengths_is_damaged() -> None:
    objects = Objects()
    rope, _, emitted = objects.cut(pack(messages(300)))
    for oid in emitted:
        whole = objects.stored[oid]
        objects.stored[oid] = whole + b"\x00"
        with pytest.raises(DamagedObjectError):
            assemble([rope], objects.load)
        objects.stored[oid] = whole
