"""The grammar of revisions: no printed revision ever means anything but what it was printed for."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckpt.errors import RevisionSyntaxError
from ckpt.history.readings import (
    SUFFIXES_MAX,
    Ago,
    Ancestor,
    AtStep,
    AtTime,
    BeforeNode,
    CheckpointName,
    EarlierHead,
    IdPrefix,
    InRun,
    OperationPrefix,
    Parent,
    Reading,
    Relative,
    Suffix,
    TagName,
    ThreadName,
    WithId,
    quote,
)
from ckpt.history.revisions import format_revision, is_tag_name, parse

# Pieces that mean something to the grammar, so that random ids are nasty rather than merely random.
PIECES = [
    "acme", "8c1f", "beef", "v1", "HEAD", "@", "@{", "}", "{", "~", "~1", "^", "^2", "#", "#7", "#-1", "@{1}",
    "@{next:a}", '@{next:"', "@{run:", "@{id:8c1f}", "@{2h ago}", "@{2026-01-31T10:00Z}", '"', "\\", ":", "thread:",
    "tag:", "id:", "ckpt:", "op:", "..", "(", ")", "&", "|", "-", "/", " ", "", "\n", "\x00", "\x9b", "\u202e", "é",
    "漢", "\ud800", "\udc00", "\U0001f600", "\U000e0041", "12",
]  # fmt: skip
NASTY = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(
    st.characters(exclude_categories=()), max_size=12
)
HEX = st.text("0123456789abcdef", min_size=4, max_size=64)
NUMBERS = st.integers(0, 999_999_999)
SUFFIXES = st.one_of(
    NUMBERS.map(Ancestor),
    st.integers(1, 999_999_999).map(Parent),
    st.integers(-999_999_999, 999_999_999).map(AtStep),
    NUMBERS.map(EarlierHead),
    NASTY.map(BeforeNode),
    NASTY.map(InRun),
    HEX.map(WithId),
    st.builds(Ago, st.integers(0, 999_999), st.sampled_from(["s", "min", "h", "d", "w"])),
    st.datetimes(timezones=st.just(UTC)).map(AtTime),
)
CHAINS = st.lists(SUFFIXES, max_size=5).map(tuple)
ANCHORS = st.one_of(
    NASTY.map(ThreadName),
    NASTY.map(TagName),
    HEX.map(IdPrefix),
    NASTY.map(CheckpointName),
    st.just(Relative()),
)
READINGS = st.builds(Reading, ANCHORS, CHAINS) | HEX.map(OperationPrefix).map(Reading)


@given(READINGS)
@example(Reading(ThreadName("\ud83d\ude00")))
@example(Reading(Relative(), (EarlierHead(1),)))
@example(Reading(ThreadName('a"}~1'), (BeforeNode('"}@{next:"'), Ancestor(2))))
def test_a_printed_revision_reads_back_as_itself_alone(reading: Reading) -> None:
    assert parse(format_revision(reading)) == (reading,)


@given(NASTY, CHAINS)
def test_a_bare_thread_name_always_has_its_own_reading_unless_it_is_a_special_form(
    name: str, suffixes: tuple[Suffix, ...]
) -> None:
    text = name + format_revision(Reading(ThreadName(""), suffixes)).removeprefix('thread:""')
    if not name or re.match(r"(thread|tag|id|ckpt|op):", text) or re.search(r"[()&|]|\.\.", name):
        return
    try:
        readings = parse(text)
    except RevisionSyntaxError:
        assert text.startswith(("@", "HEAD"))  # relative forms never fall back to a name
        return
    if readings[0].anchor != Relative():
        assert Reading(ThreadName(name), suffixes) in readings


@given(NASTY)
def test_every_reading_of_any_text_can_be_printed_on_its_own(text: str) -> None:
    try:
        readings = parse(text)
    except RevisionSyntaxError:
        return
    assert readings
    assert len(set(readings)) == len(readings)
    for reading in readings:
        assert parse(format_revision(reading)) == (reading,)


@given(NASTY)
def test_quoted_text_prints_cleanly_and_comes_back(text: str) -> None:
    quoted = quote(text)
    assert json.loads(quoted, strict=True) == text
    assert all(char.isprintable() or 0xDC00 <= ord(char) <= 0xDFFF for char in quoted)


def test_a_word_is_a_thread_a_tag_or_an_id_as_a_whole_and_at_each_cut() -> None:
    assert parse("beef~1~2") == (
        Reading(ThreadName("beef~1~2")),
        Reading(ThreadName("beef~1"), (Ancestor(2),)),
        Reading(ThreadName("beef"), (Ancestor(1), Ancestor(2))),
        Reading(TagName("beef"), (Ancestor(1), Ancestor(2))),
        Reading(IdPrefix("beef"), (Ancestor(1), Ancestor(2))),
    )


@pytest.mark.parametrize(
    ("text", "suffixes"),
    [
        ("@", ()),
        ("HEAD", ()),
        ("@~2", (Ancestor(2),)),
        ("HEAD~", (Ancestor(1),)),
        ("~", (Ancestor(1),)),
        ("@^^2", (Parent(1), Parent(2))),
        ("#7", (AtStep(7),)),
        ("@#-1", (AtStep(-1),)),
        ("@{3}", (EarlierHead(3),)),
        ("@@{3}", (EarlierHead(3),)),
        ("@{next:tools}", (BeforeNode("tools"),)),
        ('@{next:"a}\\"b"}~1', (BeforeNode('a}"b'), Ancestor(1))),
        ("@{run:7b0e-11}", (InRun("7b0e-11"),)),
        ("@{id:8C1F}~1", (WithId("8c1f"), Ancestor(1))),
        ("@{2h ago}", (Ago(2, "h"),)),
        ("@{90min ago}", (Ago(90, "min"),)),
        ("@{5m ago}", (Ago(5, "min"),)),
        ("@{2026-01-31T10:00Z}", (AtTime(datetime(2026, 1, 31, 10, tzinfo=UTC)),)),
        ("@{2026-01-31T10:00:01.5+02:00}", (AtTime(datetime(2026, 1, 31, 8, 0, 1, 500000, UTC)),)),
    ],
)
def test_forms_relative_to_a_given_thread_have_one_reading(text: str, suffixes: tuple[Suffix, ...]) -> None:
    assert parse(text) == (Reading(Relative(), suffixes),)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ('thread:"any \\"string\\""', Reading(ThreadName('any "string"'))),
        ('thread:"acme~1"', Reading(ThreadName("acme~1"))),
        ('thread:"acme"~1', Reading(ThreadName("acme"), (Ancestor(1),))),
        ('thread:""', Reading(ThreadName(""))),
        ("thread:support-42", Reading(ThreadName("support-42"))),
        ("thread:user:7@example.com", Reading(ThreadName("user:7@example.com"))),
        ('thread:"a}@{id:beef}"@{id:8c1f}', Reading(ThreadName("a}@{id:beef}"), (WithId("8c1f"),))),
        ("tag:v1~2", Reading(TagName("v1"), (Ancestor(2),))),
        ('tag:"odd one"', Reading(TagName("odd one"))),
        ("id:8C1F#3", Reading(IdPrefix("8c1f"), (AtStep(3),))),
        (
            "ckpt:1f1e53f3-3a1c-6c09-8008-241761cd5b1d^1",
            Reading(CheckpointName("1f1e53f3-3a1c-6c09-8008-241761cd5b1d"), (Parent(1),)),
        ),
        ('ckpt:"2 inner"', Reading(CheckpointName("2 inner"))),
        ("op:3f", Reading(OperationPrefix("3f"))),
    ],
)
def test_explicit_forms_have_one_reading(text: str, reading: Reading) -> None:
    assert parse(text) == (reading,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("@~x", "not a suffix"),
        ("HEAD#", "not a suffix"),
        ("@^0", "not a suffix"),
        ("@@{yesterday}", "not a suffix"),
        ("@@{2026-13-31T10:00Z}", "not a suffix"),
        ("@@{2026-01-31T10:00}", "not a suffix"),
        ("@@{0001-01-01T00:00+14:00}", "not a suffix"),
        ('@@{next:"open}', "not a suffix"),
        ("@~1234567890", "not a suffix"),
        ("@" + "~" * (SUFFIXES_MAX + 1), "more than 32 suffixes"),
        ("thread:", "nothing follows thread:"),
        ("thread:acme~1", "written in quotes"),
        ("thread:two words", "written in quotes"),
        ('thread:"open', "not valid JSON"),
        ('thread:"acme"x', "not a suffix"),
        ("tag:a b", "cannot be the name of a tag"),
        ("tag:a..b", "cannot be the name of a tag"),
        ("id:8c1", "at least 4"),
        ("id:card", "hex digits"),
        ('id:"8c1f"', "hex digits"),
        ("ckpt:a b", "needs quotes"),
        ("op:xyz", "hex digits"),
        ("@@{id:8c1}", "at least 4"),
        ("@~1@{id:card}", "hex digits"),
        ("@{id:8c1}", "at least 4"),
        ("acme@{id:8c1}~1", "at least 4"),
        ('thread:"acme@{id:8c1}"@{id:8c}', 'the id in "@{id:8c}" is not'),
        ("op:3f~1", "takes no suffix"),
        ("a..b", "reserved"),
        ("(acme)", "reserved"),
        ("acme|other~1", "reserved"),
    ],
)
def test_malformed_revisions_say_what_why_and_what_to_do(text: str, why: str) -> None:
    with pytest.raises(RevisionSyntaxError) as caught:
        parse(text)
    assert why in str(caught.value)
    assert caught.value.exit_code == 2
    assert "ckpt help revisions explains the syntax" in caught.value.hints


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("a..b", "ckpt diff a b"),
        ("a~1...b", "ckpt diff 'a~1' b"),
        ("@~2..@", "ckpt diff '@~2' @"),
        ('thread:"a b"..b', "ckpt diff 'thread:\"a b\"' b"),
    ],
)
def test_who_means_a_range_is_told_how_to_compare(text: str, command: str) -> None:
    with pytest.raises(RevisionSyntaxError) as caught:
        parse(text)
    assert caught.value.hints[0] == f"to compare two checkpoints write: {command}"


@pytest.mark.parametrize("text", ["..b", "a..", "(a)", "@~1x"])
def test_no_range_without_two_ends(text: str) -> None:
    with pytest.raises(RevisionSyntaxError) as caught:
        parse(text)
    assert not any("compare" in hint for hint in caught.value.hints)


def test_reserved_characters_in_one_cut_leave_the_other_cuts_alone() -> None:
    assert parse("acme@{next:a(b)}") == (
        Reading(ThreadName("acme"), (BeforeNode("a(b)"),)),
        Reading(TagName("acme"), (BeforeNode("a(b)"),)),
    )


def test_long_hostile_words_are_read_in_linear_time_and_space() -> None:
    for word in ("~" * 50_000, "@{" * 50_000, '@{next:"' * 20_000, "@{1}" * 20_000, "a#7" * 20_000):
        assert len(parse("x" + word)) <= 3 * (SUFFIXES_MAX + 1)


def test_readings_that_cannot_be_written_cannot_be_made() -> None:
    for make in (
        lambda: IdPrefix("XYZ"),
        lambda: WithId("8C1F"),
        lambda: Parent(0),
        lambda: Ancestor(-1),
        lambda: AtTime(datetime(2026, 1, 31)),
        lambda: Reading(Relative(), (Ancestor(1),) * (SUFFIXES_MAX + 1)),
        lambda: Reading(OperationPrefix("3f"), (Ancestor(1),)),
    ):
        with pytest.raises(RevisionSyntaxError):
            make()


def test_an_age_becomes_a_moment_and_never_overflows() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert Ago(2, "h").moment(now) == now - timedelta(hours=2)
    assert Ago(999_999, "w").moment(now) == datetime.min.replace(tzinfo=UTC)


def test_tag_names_are_words_that_no_suffix_can_hide_in() -> None:
    assert all(map(is_tag_name, ["v1", "good", "release/1.0+a_b-c", "größe"]))
    assert not any(map(is_tag_name, ["", "-v", "a~1", "a b", "a#1", "a..b", "a@{1}", ".hidden"]))
