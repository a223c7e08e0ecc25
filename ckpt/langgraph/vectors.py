"""Finding by meaning: which texts of a value are embedded, how vectors are kept, and how near they are.

A vector is kept as 32-bit floats beside the value it came from, so that a new process searches without
embedding anything again. A search compares with every candidate, here or in the database: exact, and in proportion
to their number.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import islice, takewhile
from math import isfinite, sqrt
from operator import mul
from typing import Any, Literal, TypeVar, get_args

import msgpack
from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, PutOp, ensure_embeddings, get_text_at_path, tokenize_path
from pydantic import BaseModel

from ckpt.errors import InvalidInputError
from ckpt.repository.arguments import check_mapping, check_names
from ckpt.values.kinds import MAX_DEPTH

Distance = Literal["cosine", "inner_product", "l2"]

_NAMES = ("ann_index_config", "dims", "distance_type", "embed", "fields")
_DISTANCES: tuple[Distance, ...] = get_args(Distance)
_KINDS = ("hnsw", "ivfflat", "flat")
_VECTOR_TYPES = ("vector", "halfvec")

Texts = dict[str, str]
"""The texts of one value that are embedded, by the path they stand at."""

Vectors = dict[str, Sequence[float]]
"""The vector of each text."""

_Word = TypeVar("_Word", bound=str)


class Index:
    """What an `index` configuration says: how texts become vectors, which texts, and what is near.

    Also that of LangGraph's PostgresStore. `distance_type` counts. `ann_index_config` asks for an index that finds
    most of what is nearest; it is read, and gets a scan that finds all of it.
    """

    def __init__(self, config: IndexConfig) -> None:
        given: Mapping[str, Any] = {**config}
        check_names("index", given, _NAMES)
        self.embeddings: Embeddings = ensure_embeddings(given.get("embed"))
        self._dims = _dimensions(given.get("dims"))
        fields = given.get("fields") or ["$"]
        self._fields = [fields] if isinstance(fields, str) else list(fields)
        self.distance: Distance = _one_of("distance_type", given, _DISTANCES)
        approximate = given.get("ann_index_config") or {}
        check_mapping("ann_index_config", approximate)
        _one_of("kind", approximate, _KINDS)
        _one_of("vector_type", approximate, _VECTOR_TYPES)

    def paths(self, op: PutOp) -> Sequence[str]:
        """Return where there may be something to be embedded of a put: nowhere in a deletion, or with `index=False`."""
        if op.value is None or op.index is False:
            return ()
        return self._fields if op.index is None else op.index

    def texts(self, op: PutOp) -> Texts:
        """Return what is to be embedded of a put, which takes time in proportion to that."""
        found: Texts = {}
        for path in self.paths(op):
            texts = _texts_at(op.value, "" if path == "$" else path)
            several = len(texts) > 1
            found |= {f"{path}.{at}" if several else path: text for at, text in enumerate(texts)}
        return found

    def embed(self, texts: list[str]) -> Vectors:
        """Return the vector of each of several different texts."""
        return self.checked(texts, self.embeddings.embed_documents(texts)) if texts else {}

    async def aembed(self, texts: list[str]) -> Any:
        """Return what is made of the texts, for `checked`."""
        return await self.embeddings.aembed_documents(texts) if texts else []

    def embed_queries(self, queries: list[str]) -> Vectors:
        """Return the vector of each of several different queries."""
        return self.checked(queries, [self.embeddings.embed_query(each) for each in queries])

    async def aembed_queries(self, queries: list[str]) -> Any:
        """Return what is made of the queries, for `checked`."""
        return await asyncio.gather(*map(self.embeddings.aembed_query, queries))

    def checked(self, texts: list[str], vectors: Any) -> Vectors:
        """Return the vector of each text as floats, or raise InvalidInputError for what is no vector of the index."""
        made = _sequence(vectors)
        if len(made) != len(texts):
            raise InvalidInputError(f"the embedding function returned {len(made)} vectors for {len(texts)} texts")
        found: Vectors = {text: _floats(vector) for text, vector in zip(texts, made, strict=True)}
        for vector in found.values():
            if self._dims is not None and len(vector) != self._dims:
                raise InvalidInputError(
                    f"the embedding function returned {len(vector)} dimensions, and the index has {self._dims}",
                    hints=["set dims of the index to what the model returns"],
                )
        return found


def _sequence(given: Any) -> list[Any]:
    """Return what an embedding function gave as a list."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidInputError(
            f"the embedding function returned a {type(given).__name__}", hints=["return one list of floats per text"]
        )
    return list(given)


def _floats(vector: Any) -> list[float]:
    """Return a vector as floats that are finite in 32 bits: others would be as near to everything as to nothing."""
    numbers = _sequence(vector)
    try:
        struct.pack(f"<{len(numbers)}f", *numbers)
        floats = [float(number) for number in numbers]
    except (struct.error, OverflowError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the embedding function returned a vector of what are no 32-bit floats: {error}",
            hints=["return one list of floats per text"],
        ) from error
    if not all(map(isfinite, floats)):
        raise InvalidInputError(
            "the embedding function returned a vector with a number that is not finite",
            hints=["look at what the model does with this text, or leave it out with index=False"],
        )
    return floats


def _texts_at(value: Any, path: str) -> list[str]:
    """Return the texts at a path. Only what its names lead to is made legible, not all that stands beside it."""
    tokens = tokenize_path(path)
    names = [*takewhile(lambda token: token[0] not in "[{*", tokens)]
    for name in names:
        found = _entry(value, name)
        if not found:
            return []
        [value] = found
    # Under its last name, as a path that leads nowhere would stand for JSON.
    last = names[-1:]
    legible = _legible(value)
    return get_text_at_path({last[0]: legible} if last else legible, [*last, *tokens[len(names) :]])


def _entry(value: Any, name: str) -> list[Any]:
    """Return what a mapping or an object has under a name, if it does."""
    fields = _fields_of(value)
    if not isinstance(fields, Mapping):
        return []
    if name in fields:
        return [fields[name]]
    # Keys that JSON lacks, or cannot sort, stand there as texts.
    legible = name in _legible(dict.fromkeys(fields))
    return [each for key, each in fields.items() if str(key) == name][-1:] if legible else []


def _fields_of(value: Any) -> Any:
    """Return the fields of an object that has some, and all else as it is."""
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def _legible(value: Any) -> Any:
    """Return a value as texts can be taken of it: as it is if it is JSON, else with text for what JSON lacks."""
    try:
        json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return _as_json(value, 0)
    return value


def _as_json(value: Any, depth: int) -> Any:
    value = _fields_of(value)
    # What is deeper cannot be stored, as whoever stores it will say.
    if depth > MAX_DEPTH:
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _as_json(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_as_json(each, depth + 1) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((_as_json(each, depth + 1) for each in value), key=str)
    return str(value)


def _dimensions(dims: Any) -> int | None:
    """Return a number of dimensions, also one given as text, as PostgresStore takes it."""
    if dims is None:
        return None
    try:
        number = int(dims)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"dims of the index is {dims!r}, which is no number") from error
    if number < 1:
        raise InvalidInputError(f"dims of the index is {number}; a vector has at least one dimension")
    return number


def _one_of(name: str, config: Mapping[str, Any], known: tuple[_Word, ...]) -> _Word:
    """Return what a configuration says, the first of the known words where it says nothing."""
    value = config.get(name, known[0])
    for word in known:
        if value == word:
            return word
    raise InvalidInputError(
        f"{name} of the index is {value!r}, which is not known", hints=[f"write one of {', '.join(known)}"]
    )


def different(texts: Iterable[Texts]) -> list[str]:
    return list(dict.fromkeys(text for each in texts for text in each.values()))


def encode_vectors(texts: Mapping[str, str], vectors: Mapping[str, Sequence[float]]) -> bytes:
    """Return the vectors of one value as bytes; empty when it has none."""
    if not texts:
        return b""
    packed = [[path, struct.pack(f"<{len(vectors[text])}f", *vectors[text])] for path, text in texts.items()]
    data: bytes = msgpack.packb(packed)
    return data


def decode_vectors(data: bytes) -> list[bytes]:
    """Return the vectors of one value, each as little-endian 32-bit floats."""
    return [vector for _, vector in msgpack.unpackb(data)] if data else []


def best_similarities(
    query: Sequence[float], lists: Sequence[Sequence[bytes]], distance: Distance = "cosine"
) -> list[float | None]:
    """Return, for each of several lists of vectors, the greatest of its `similarities`, None where it has none."""
    near = iter(similarities(query, [vector for each in lists for vector in each], distance))
    return [max((score for score in islice(near, len(each)) if score is not None), default=None) for each in lists]


def similarities(query: Sequence[float], vectors: Sequence[bytes], distance: Distance = "cosine") -> list[float | None]:
    """Return how near each of several vectors is to another; the nearer the greater.

    That is the cosine of the angle between them, 0 where one has no length; or their inner product; or for `l2` the
    distance between their ends, with a minus before it. None for vectors that cannot be compared: of another number of
    dimensions than the query, as another model makes them, or not finite. Equal vectors are equally near, to the last
    bit.
    """
    # Where a vector stands in a matrix shows in how its product is rounded.
    different = list(dict.fromkeys(vector for vector in vectors if len(vector) == 4 * len(query)))
    near = dict(zip(different, _similarities(query, different, distance), strict=True))
    return [score if (score := near.get(vector)) is not None and isfinite(score) else None for vector in vectors]


def _similarities(query: Sequence[float], vectors: Sequence[bytes], distance: Distance) -> list[float]:
    numpy = _numpy()
    if numpy is not None and vectors:
        with numpy.errstate(all="ignore"):
            return _by_numpy(numpy, query, vectors, distance)
    unpacked = [struct.unpack(f"<{len(query)}f", vector) for vector in vectors]
    if distance == "l2":
        return [-sqrt(sum((a - b) ** 2 for a, b in zip(query, vector, strict=True))) for vector in unpacked]
    if distance == "inner_product":
        return [sum(map(mul, query, vector)) for vector in unpacked]
    length = sqrt(sum(map(mul, query, query)))
    return [_cosine(query, length, vector) for vector in unpacked]


def _by_numpy(numpy: Any, query: Sequence[float], vectors: Sequence[bytes], distance: Distance) -> list[float]:
    matrix = numpy.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1).astype("f8")
    wanted = numpy.asarray(query, dtype="f8")
    if distance == "l2":
        return [-float(each) for each in numpy.linalg.norm(matrix - wanted, axis=1)]
    if distance == "inner_product":
        return [float(each) for each in matrix @ wanted]
    lengths = numpy.linalg.norm(matrix, axis=1) * numpy.linalg.norm(wanted)
    products = matrix @ wanted
    near = numpy.divide(products, lengths, out=numpy.zeros_like(products), where=lengths != 0)
    return [float(each) for each in near]


def _cosine(query: Sequence[float], length: float, vector: Sequence[float]) -> float:
    lengths = length * sqrt(sum(map(mul, vector, vector)))
    return sum(map(mul, query, vector)) / lengths if lengths else 0.0


@lru_cache(maxsize=1)
def _numpy() -> Any:
    """Return numpy if it is installed: it is many times faster, and nothing else."""
    try:
        return import_module("numpy")
    except ImportError:
        return None
