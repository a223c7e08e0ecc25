"""The built-in serializer: what comes back, what is refused, and what hostile bytes may do (nothing)."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import struct
import subprocess
import sys
import threading
import types
import uuid
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel

from ckpt.errors import DamagedObjectError, UnstorableValueError
from ckpt.values.kinds import MAX_DEPTH, TAG, Opaque
from ckpt.values.serializer import Serializer

SERIALIZER = Serializer()
RAN: list[str] = []


@dataclasses.dataclass
class Note:
    text: Any
    extra: Any = None
    later: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        RAN.append("__post_init__")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    left: Any
    right: Any = 3


@dataclasses.dataclass
class Cached(Note):
    @cached_property
    def size(self) -> int:
        return 1


@dataclasses.dataclass
class DictBased(dict):  # type: ignore[type-arg]
    text: str = ""


class Point(NamedTuple):
    x: Any
    y: Any = 0


class LoosePoint(Point):
    """A subclass without slots, whose instances have a `__dict__`."""


class Color(enum.Enum):
    RED = "r"
    ALSO_RED = "r"  # noqa: PIE796  an alias is the case
    BLUE = ("b", 1)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    HELLO = "hello"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class IntRight(enum.IntFlag):
    READ = 1
    WRITE = 2


class User(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: Any
    age: Any = 3
    _secret: Any = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        RAN.append("model_post_init")


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True)
    inner: Any = None


class Items(RootModel[list[int]]):
    pass


class Text(str):
    pass


class Whole(int):
    pass


class Named(dict):  # type: ignore[type-arg]
    pass


class Zone(tzinfo):
    pass


def state(value: Any) -> Any:
    if isinstance(value, BaseModel):
        names = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
        return [dict(value.__dict__), *(getattr(value, name) for name in names)]
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)}


def same(a: Any, b: Any) -> bool:
    """Equal in value and type at every depth, order of dicts and NaN included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, complex):
        return same([a.real, a.imag], [b.real, b.imag])
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()  # type: ignore[no-any-return]
    if isinstance(a, enum.Enum):
        # Of bits without a name some versions of Python make a flag anew each time.
        return a is b or (isinstance(a, enum.Flag) and type(a)(a._value_) is not a and a == b)
    if isinstance(a, datetime | time):
        return a.isoformat() == b.isoformat() and a.fold == b.fold and same(a.tzinfo, b.tzinfo)
    if isinstance(a, timezone):
        return a == b and a.tzname(None) == b.tzname(None)  # type: ignore[no-any-return]
    if isinstance(a, dict):
        if isinstance(a, defaultdict) and a.default_factory is not b.default_factory:
            return False
        return len(a) == len(b) and all(
            same(p, q) for left, right in zip(a.items(), b.items(), strict=True)
            for p, q in zip(left, right, strict=True)
        )  # fmt: skip
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(p, q) for q in b) for p in a)
    if isinstance(a, list | tuple | deque):
        return (
            len(a) == len(b)
            and getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
            and all(same(p, q) for p, q in zip(a, b, strict=True))
        )
    if isinstance(a, BaseModel) or dataclasses.is_dataclass(a):
        return same(state(a), state(b))
    return bool(a == b) and (type(a) is int or repr(a) == repr(b))


def roundtrip(value: object) -> Any:
    return SERIALIZER.loads_typed(SERIALIZER.dumps_typed(value))


ZONES = st.none() | st.sampled_from([UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")]) | st.builds(
    timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
) | st.just(timezone(timedelta(hours=1), "odd"))  # fmt: skip
TEXT = st.text(st.characters(codec=None)) | st.sampled_from(["\0", "\ud800", "\ud83d\ude00", "ü\udfff"])
HASHABLE_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=True)
    | TEXT
    | st.binary()
    | st.datetimes(timezones=ZONES)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.sampled_from([*Color, *Level, *Word, *IntRight, Right(0), Right.READ | Right.WRITE, IntRight(12)])
    | st.sampled_from([Path("a/b"), PurePosixPath("/x/\ud800"), PureWindowsPath("C:\\x"), UTC, ZoneInfo("UTC")])
)
LEAVES = (
    HASHABLE_LEAVES
    | st.binary().map(bytearray)
    | st.decimals()
    | st.sampled_from([Decimal("sNaN12"), Decimal("-NaN"), Decimal("1E+400"), complex(math.nan, -0.0), {}, []])
    | st.builds(Items, st.lists(st.integers(), max_size=2))
)
HASHABLE = st.recursive(
    HASHABLE_LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(Frozen, inner, inner)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=4,
)


def build_model(name: Any, extra: Any, secret: Any) -> User:
    user = User(name=name, other=extra)  # type: ignore[call-arg]
    user._secret = secret
    return user


def build_note(text: Any, later: Any) -> Note:
    note = Note(text)
    note.later = later
    return note


VALUES = st.recursive(
    LEAVES | HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(HASHABLE, max_size=3)
        | st.dictionaries(TEXT, inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(TEXT, inner, max_size=3).map(lambda d: defaultdict(list, d))
        | st.dictionaries(HASHABLE, st.integers(), max_size=3).map(Counter)
        | st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=4))
        | st.builds(Note, inner, inner)
        | st.builds(build_note, inner, inner)
        | st.builds(Point, inner, inner)
        | st.builds(LoosePoint, inner, inner)
        | st.builds(build_model, inner, inner, inner)
        | inner.map(lambda value: Strict(inner=value))
    ),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_comes_back_equal_in_value_and_type(value: object) -> None:
    tag, data = SERIALIZER.dumps_typed(value)
    back = SERIALIZER.loads_typed((tag, data))
    assert tag == TAG
    assert same(value, back), (value, back)
    assert SERIALIZER.dumps_typed(back) == (tag, data)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        time(2, 30, fold=1, tzinfo=UTC),
        -0.0, math.inf, -math.inf, math.nan, 2**63, 2**64, -(2**63) - 1, 10**5000, True, 1, 1.0,
        {1: "int", "1": "str", None: 0, 1.5: [], b"k": ()},
        {(1, (2, Frozen(1))): {Point(1, 2)}},
        bytearray(b"x"), [bytearray(b"x"), {"a": [bytearray()]}], (bytearray(b"x"),), {(): bytearray(b"")},
        uuid.uuid1(), uuid.UUID(int=5), date.max, timedelta.min, timezone.max, Fraction(-1, 3),
        msgpack.ExtType(5, b"x"), [msgpack.ExtType(40, b"x")], msgpack.Timestamp(1, 2),
        defaultdict(None, {"a": 1}), defaultdict(int, {(1,): 2}), deque(), deque([1], maxlen=1), Items([1]),
        Level.LOW, Word.HELLO, Color.ALSO_RED, Right.READ | Right.WRITE, IntRight(0), IntRight(8),
        User.model_construct(_fields_set=set()), Note.__new__(Note),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_particular_values_come_back(value: object) -> None:
    assert same(value, roundtrip(value))


def test_the_utc_singleton_stays_itself() -> None:
    assert roundtrip(datetime.now(UTC)).tzinfo is UTC


def test_a_shared_object_comes_back_at_each_place() -> None:
    part = (1, [2])
    assert roundtrip([part, {"a": part}, (part,)]) == [part, {"a": part}, (part,)]


def test_plain_data_is_plain_msgpack() -> None:
    value = {"a": [1, 2.5, None, True, "x", b"y"], "b": {"c": {}}}
    assert SERIALIZER.dumps_typed(value) == (TAG, msgpack.packb(value))


def test_extensions_hold_documents_as_the_table_says() -> None:
    tag, data = SERIALIZER.dumps_typed((1, Frozen("a")))
    extension = msgpack.unpackb(data)
    assert (tag, extension.code) == (TAG, 34)
    one, inner = msgpack.unpackb(extension.data)
    assert (one, inner.code) == (1, 55)
    assert msgpack.unpackb(inner.data) == [__name__, "Frozen", {"left": "a", "right": 3}, []]


def test_private_attributes_extras_and_fields_set_of_models_are_kept() -> None:
    user = build_model("ann", [1], (2,))
    back = roundtrip(user)
    assert back == user
    assert (back._secret, back.other, back.model_fields_set) == ((2,), [1], {"name", "other"})


def test_reviving_runs_no_code_of_the_class() -> None:
    data = SERIALIZER.dumps_typed([Note(1), build_model(1, 2, 3)])
    RAN.clear()
    SERIALIZER.loads_typed(data)
    assert RAN == []


# --- what is refused ---


class Plain:
    pass


class Hidden:
    class Enum(enum.Enum):
        A = 1


def shadowed() -> object:
    @dataclasses.dataclass
    class Note:
        text: str

    Note.__qualname__ = "Note"
    return Note("x")


def local() -> object:
    @dataclasses.dataclass
    class Local:
        text: str

    return Local("x")


def noted(note: Note, **attributes: object) -> Note:
    vars(note).update(attributes)
    return note


def cached() -> Cached:
    made = Cached("x")
    assert made.size == 1
    return made


def loose_point() -> LoosePoint:
    made = LoosePoint(1)
    made.label = "x"  # type: ignore[attr-defined]
    return made


def ordered() -> OrderedDict[str, int]:
    made = OrderedDict(a=1)
    made.label = "x"  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (Plain(), "", "Plain cannot be stored"),
        ({"messages": [0, 1, 2, {"user": {"a.b": Plain()}}]}, 'messages[3].user["a.b"]', "Plain"),
        ([Note(Point(1, {"k": Plain()}))], "[0].text.y.k", "Plain"),
        ({"m": User(name=Plain())}, "m.name", "Plain"),
        ({"m": User(name=1, other=Plain())}, "m.other", "Plain"),  # type: ignore[call-arg]
        ({"m": build_model(1, 2, Plain())}, "m._secret", "Plain"),
        ({"s": {Frozen(Plain())}}, "s[*].left", "Plain"),
        ({"d": {Plain(): 1}}, "d[<Plain>]", "Plain"),
        ({"d": {(1, Plain()): 1}}, "d[<tuple>][1]", "Plain"),
        ({1: {None: Plain()}}, "[1][None]", "Plain"),
        ({"q": deque([1, Plain()])}, "q[1]", "Plain"),
        ({"o": OrderedDict(k=[Plain()])}, "o.k[0]", "Plain"),
        ({"o": defaultdict(list, k=[Plain()])}, "o.k[0]", "Plain"),
        ({"o": defaultdict(lambda: 1)}, "o", "default_factory"),
        ({"o": ordered()}, "o.label", "lost"),
        ([Text("x")], "[0]", "Text"),
        ([Whole(1)], "[0]", "Whole"),
        ({Text("x"): 1}, "[<Text>]", "Text"),
        ([Named()], "[0]", "Named"),
        ([UserDict()], "[0]", "UserDict"),
        ([DictBased("x")], "[0]", "DictBased"),
        ([memoryview(b"x")], "[0]", "memoryview"),
        ([object()], "[0]", "object"),
        ([print], "[0]", "builtin"),
        ([int], "[0]", "type"),
        ([ValueError("x")], "[0]", "ValueError"),
        ([range(3)], "[0]", "range"),
        ([datetime(2026, 1, 1, tzinfo=Zone())], "[0].tzinfo", "ZoneInfo"),  # type: ignore[abstract]
        ([Zone()], "[0]", "Zone"),  # type: ignore[abstract]
        ([noted(Note("x"), strange=1)], "[0].strange", "not a field"),
        ([cached()], "[0].size", "not a field"),
        ([loose_point()], "[0].label", "not a field"),
        ([local()], "[0]", "cannot be found again"),
        ([shadowed()], "[0]", "cannot be found again"),
        ([Opaque("", "", "no such kind", b"")], "[0]", "Opaque"),
        ([Opaque("", "", "ext:200", b"")], "[0]", "Opaque"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_would_not_come_back_is_refused_with_its_path(value: object, path: str, reason: str) -> None:
    with pytest.raises(UnstorableValueError) as caught:
        SERIALIZER.dumps_typed(value)
    assert caught.value.path == path
    assert reason in str(caught.value)
    assert "; " in str(caught.value)  # what to do follows


def test_a_nested_class_is_found_by_its_qualified_name() -> None:
    assert roundtrip(Hidden.Enum.A) is Hidden.Enum.A


def test_containers_that_hold_themselves_are_refused() -> None:
    direct: list[Any] = [1]
    direct.append(direct)
    through_tuple: dict[str, Any] = {"a": []}
    through_tuple["a"].append((through_tuple["a"],))
    twice: list[Any] = []
    twice += [twice, twice]
    note = Note(1)
    note.extra = {"me": note}
    for value, path in [(direct, "[1]"), (through_tuple, "a[0][0]"), (twice, "[0]"), (note, "extra.me")]:
        with pytest.raises(UnstorableValueError, match="contains itself") as caught:
            SERIALIZER.dumps_typed(value)
        assert caught.value.path == path


def nested(kind: Any, levels: int) -> Any:
    value: Any = kind([])
    for _ in range(levels - 1):
        value = kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_nesting_is_bounded_and_fits_a_small_stack(kind: Any) -> None:
    outcome: list[bool] = []
    old = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(
            target=lambda: outcome.append(roundtrip(nested(kind, MAX_DEPTH)) == nested(kind, MAX_DEPTH))
        )
        thread.start()
        thread.join()
    finally:
        threading.stack_size(old)
    assert outcome == [True]
    with pytest.raises(UnstorableValueError, match=f"more than {MAX_DEPTH} levels") as caught:
        SERIALIZER.dumps_typed(nested(kind, MAX_DEPTH + 1))
    assert caught.value.path.count("[") >= MAX_DEPTH - 1


def test_a_much_too_deep_value_is_refused_not_recursed_into() -> None:
    with pytest.raises(UnstorableValueError, match="levels"):
        SERIALIZER.dumps_typed(nested(list, 100_000))


def test_one_object_shared_at_every_level_does_not_multiply_the_walk() -> None:
    value: list[Any] = []
    for _ in range(MAX_DEPTH + 5):
        value = [value, value]
    with pytest.raises(UnstorableValueError, match="levels"):
        SERIALIZER.dumps_typed(value)


# --- classes that are not there ---


@pytest.fixture
def passing_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module whose classes are gone as soon as a test takes it out of `sys.modules`."""
    module = types.ModuleType("ckpt_test_passing")
    source = (
        "import dataclasses, enum, typing, pydantic\n"
        "@dataclasses.dataclass(frozen=True)\nclass D:\n    a: object\n    b: object = 2\n"
        "class E(enum.Enum):\n    A = 1\n"
        "class F(enum.Flag):\n    A = 1\n    B = 2\n"
        "class N(typing.NamedTuple):\n    a: object\n"
        "class M(pydantic.BaseModel):\n    a: object\n"
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(source, vars(module))
    return module


def test_values_of_classes_that_are_gone_survive_a_save_byte_for_byte(
    passing_module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = passing_module
    made = {
        "d": m.D((1,)),
        "e": m.E.A,
        "f": m.F.A | m.F.B,
        "n": m.N([1]),
        "m": m.M(a=1),
        "k": {m.D(1): {m.D(2)}},
    }
    data = SERIALIZER.dumps_typed(made)
    monkeypatch.delitem(sys.modules, m.__name__)
    foreign: Any = SERIALIZER.loads_typed(data)
    assert {name: value.kind for name, value in foreign.items() if isinstance(value, Opaque)} == {
        "d": "dataclass", "e": "enum", "f": "flag", "n": "namedtuple", "m": "model"
    }  # fmt: skip
    assert (foreign["d"].module, foreign["d"].name) == (m.__name__, "D")
    assert repr(foreign["d"]) == f"<Opaque dataclass {m.__name__}.D, {len(foreign['d'].raw)} bytes>"
    assert SERIALIZER.dumps_typed(foreign) == data
    monkeypatch.setitem(sys.modules, m.__name__, m)
    assert SERIALIZER.loads_typed(SERIALIZER.dumps_typed(foreign)) == made


@pytest.mark.parametrize(
    "redefine",
    [
        "class D: pass",
        "D = 3",
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    a: object\n    c: object = 1",
    ],
)
def test_a_class_that_became_another_gives_an_opaque_value(passing_module: Any, redefine: str) -> None:
    data = SERIALIZER.dumps_typed(passing_module.D(1))
    exec(redefine, vars(passing_module))
    value = SERIALIZER.loads_typed(data)
    assert isinstance(value, Opaque)
    assert SERIALIZER.dumps_typed([value])[1] == b"\x91" + data[1]


def test_items_that_became_equal_or_unhashable_do_not_vanish(passing_module: Any) -> None:
    data = SERIALIZER.dumps_typed([{passing_module.D(1), passing_module.D(2)}, {passing_module.D(1): 1}])
    for hash_ in (lambda self: 1, None, lambda self: 1 / 0):
        passing_module.D.__eq__ = lambda self, other: True
        passing_module.D.__hash__ = hash_
        back: Any = SERIALIZER.loads_typed(data)
        assert isinstance(back[0], Opaque)
        assert SERIALIZER.dumps_typed(back) == data


def test_named_types_are_revived_wherever_they_are_defined() -> None:
    value = local()
    named = Serializer(types=[type(value)])
    assert named.loads_typed(named.dumps_typed(value)) == value
    assert isinstance(SERIALIZER.loads_typed(named.dumps_typed(value)), Opaque)


def test_other_tags_and_unknown_extensions_survive() -> None:
    foreign = SERIALIZER.loads_typed(("msgpack", b"\xc0"))
    assert foreign == Opaque("", "msgpack", "document", b"\xc0")
    assert SERIALIZER.dumps_typed(foreign) == ("msgpack", b"\xc0")
    assert roundtrip([foreign]) == [foreign]
    data = (TAG, msgpack.packb([msgpack.ExtType(5, b"anything"), msgpack.ExtType(60, b"\xc1")]))
    assert [each.kind for each in SERIALIZER.loads_typed(data)] == ["ext:5", "ext:60"]  # type: ignore[attr-defined]
    assert SERIALIZER.dumps_typed(SERIALIZER.loads_typed(data)) == data


def packed(code: int, payload: object) -> tuple[str, bytes]:
    return TAG, msgpack.packb(msgpack.ExtType(code, msgpack.packb(payload)))


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (38, [2026, 13, 1, 0, 0, 0, 0, 0, None]),
        (38, [2026, 1, 1, 0, 0, 0, 0, 0, None, "more"]),
        (43, "No/Such_Zone"),
        (43, "Europe.Berlin/x"),
        (43, "../../etc/passwd"),
        (45, "no number"),
        (48, ["WindowsPath" if sys.platform != "win32" else "PosixPath", "x"]),
        (48, ["Path.home", "x"]),
        (51, ["eval", []]),
        (51, ["__import__", []]),
        (35, "text"),
        (53, ["os", "system", "x"]),
        (54, [__name__, "Color", 1]),
        (53, [__name__, "Color", "__class__"]),
        (55, [__name__, "Plain", {}, []]),
        (55, [__name__, "Frozen", {"left": 1}, []]),
        (55, [__name__, "Frozen", {"left": 1, "right": 2, "more": 3}, []]),
        (55, [__name__, "DictBased", {"text": 1}, []]),
        (55, [__name__, "User", {"name": 1, "age": 2}, []]),
        (55, [__name__, "Hidden.Enum.A", {}, []]),
        (55, [1, 2, {}, []]),
        (56, [__name__, "Point", {"y": 1, "x": 2}]),
        (56, ["builtins", "tuple", {}]),
        (57, [__name__, "Frozen", {"left": 1, "right": 2}, [], [], None, None]),
        (57, [__name__, "User", {"name": 1, "age": 2}, []]),
        (58, [1, 2]),
    ],
)
def test_what_does_not_fit_is_opaque(code: int, payload: object) -> None:
    data = packed(code, payload)
    value = SERIALIZER.loads_typed(data)
    assert isinstance(value, Opaque)
    assert SERIALIZER.dumps_typed(value) == data


def test_reviving_never_imports(tmp_path: Path) -> None:
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Bird: pass\n")
    (tmp_path / "lazy.py").write_text("def __getattr__(name):\n    import canary\n    return canary.Bird\n")
    script = """
import sys, msgpack, lazy, importlib.util
sys.path.insert(0, sys.argv[1])
spec = importlib.util.find_spec("canary")
loader = importlib.util.LazyLoader(spec.loader)
spec.loader = loader
late = importlib.util.module_from_spec(spec)
sys.modules["late"] = late
loader.exec_module(late)
from ckpt.values.serializer import Serializer
names = [("canary", "Bird"), ("lazy", "Bird"), ("late", "Bird"), ("canary.sub", "x"), ("lazy", "a.b")]
for module, name in names:
    for code in range(64):
        tail = [{}, [], [], None, None] if code == 57 else [{}, []] if code == 55 else [{}]
        raw = msgpack.packb(msgpack.ExtType(code, msgpack.packb([module, name, *tail])))
        value = Serializer().loads_typed(("ckpt", raw))
        assert Serializer().dumps_typed(value) == ("ckpt", raw) or code in (34, 35, 36), (code, value)
assert "canary" not in sys.modules
"""
    run_python(script, str(tmp_path), path=str(tmp_path))
    assert not (tmp_path / "imported").exists()


def run_python(script: str, *arguments: str, path: str = "", seed: str = "0") -> str:
    environment = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{path}", "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_equal_values_give_equal_bytes_under_every_hash_seed() -> None:
    script = """
from ckpt.values.serializer import Serializer
words = [str(n) for n in range(50)]
value = [set(words), frozenset((w, frozenset(words[:5])) for w in words), {frozenset(words): set(words)}]
print(Serializer().dumps_typed(value)[1].hex())
"""
    assert len({run_python(script, seed=seed) for seed in ("0", "1", "2")}) == 1


# --- hostile bytes ---


def load_hostile(data: bytes) -> None:
    try:
        value = SERIALIZER.loads_typed((TAG, data))
    except DamagedObjectError:
        return
    with contextlib.suppress(UnstorableValueError):  # nested deeper than is written
        SERIALIZER.dumps_typed(value)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc0\xc0")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\xdb\xff\xff\xff\xff")
@example(b"\xc9\xff\xff\xff\xff\x22")
@example(b"\xa1\xff")
@example(b"\x81\x90\x90")
@example(b"\xd4\xfe\x00")
@example(b"\xd4\x22\xc1")
@example(b"\xc1")
@example(b"\x91" * 100_000)
def test_random_bytes_only_ever_raise_the_stated_error(data: bytes) -> None:
    load_hostile(data)


@given(st.integers(32, 63), st.binary(max_size=60))
def test_random_extensions_only_ever_raise_the_stated_error(code: int, payload: bytes) -> None:
    load_hostile(msgpack.packb(msgpack.ExtType(code, payload)))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
    | st.sampled_from([__name__, "Frozen", "User", "Point", "Color"]),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.integers(32, 63), PLAIN)
def test_documents_of_the_wrong_shape_give_something_storable(code: int, payload: object) -> None:
    load_hostile(packed(code, payload)[1])


@given(VALUES, st.data())
def test_truncated_and_flipped_bytes_only_ever_raise_the_stated_error(value: object, data: st.DataObject) -> None:
    raw = SERIALIZER.dumps_typed(value)[1]
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(DamagedObjectError):
        SERIALIZER.loads_typed((TAG, raw[:cut]))
    load_hostile(raw[:cut] + bytes([raw[cut] ^ data.draw(st.integers(1, 255))]) + raw[cut + 1 :])


def test_a_nest_of_extensions_is_damage_not_a_crash() -> None:
    raw = msgpack.packb(None)
    for _ in range(2_000):
        raw = msgpack.packb(msgpack.ExtType(34, b"\x91" + raw))
    with pytest.raises(DamagedObjectError):
        SERIALIZER.loads_typed((TAG, raw))


def test_surrogates_at_every_level_are_decoded_once_more_not_exponentially_often() -> None:
    value: Any = "\ud800"
    for _ in range(MAX_DEPTH - 1):
        value = (value, "\ud800")
    assert roundtrip(value) == value
