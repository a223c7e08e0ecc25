"""Finding by meaning: which texts of a value are embedded, how vectors are kept, and how near they are.

A vector is kept as 32-bit floats beside the value it came from, so that a new process searches without
embedding anything again. A search compares with every candidate, here or in the database: exact, and in proportion
to their number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import islice
from math import sqrt
from operator import mul
from typing import Any

import msgpack
from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, PutOp, ensure_embeddings, get_text_at_path, tokenize_path

from ckpt.errors import InvalidInputError

Texts = dict[str, str]
"""The texts of one value that are embedded, by the path they stand at."""


class Index:
    """What an `index` configuration says: how texts become vectors, and which texts."""

    def __init__(self, config: IndexConfig) -> None:
        self.embeddings: Embeddings = ensure_embeddings(config.get("embed"))
        self._dims = config.get("dims")
        self._fields = list(config.get("fields") or ["$"])

    def texts(self, op: PutOp) -> Texts:
        """Return what is to be embedded of a put; nothing for a deletion or with `index=False`."""
        if op.value is None or op.index is False:
            return {}
        found: Texts = {}
        for path in self._fields if op.index is None else op.index:
            texts = get_text_at_path(dict(op.value), path if path == "$" else tokenize_path(path))
            several = len(texts) > 1
            found |= {f"{path}.{at}" if several else path: text for at, text in enumerate(texts)}
        return found

    def embed(self, texts: Iterable[Texts]) -> dict[str, Sequence[float]]:
        """Return the vector of each different text."""
        wanted = _different(texts)
        return self._checked(wanted, self.embeddings.embed_documents(wanted)) if wanted else {}

    async def aembed(self, texts: Iterable[Texts]) -> dict[str, Sequence[float]]:
        """Do what `embed` does, without blocking the event loop."""
        wanted = _different(texts)
        return self._checked(wanted, await self.embeddings.aembed_documents(wanted)) if wanted else {}

    def _checked(self, texts: list[str], vectors: Sequence[Sequence[float]]) -> dict[str, Sequence[float]]:
        if len(vectors) != len(texts):
            raise InvalidInputError(f"the embedding function returned {len(vectors)} vectors for {len(texts)} texts")
        for vector in vectors:
            if self._dims is not None and len(vector) != self._dims:
                raise InvalidInputError(
                    f"the embedding function returned {len(vector)} dimensions, and the index has {self._dims}",
                    hints=["set dims of the index to what the model returns"],
                )
        return dict(zip(texts, vectors, strict=True))


def _different(texts: Iterable[Texts]) -> list[str]:
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


def best_similarities(query: Sequence[float], lists: Sequence[Sequence[bytes]]) -> list[float]:
    """Return, for each of several lists of vectors, the greatest of its `similarities`."""
    near = iter(similarities(query, [vector for each in lists for vector in each]))
    return [max(islice(near, len(each))) for each in lists]


def similarities(query: Sequence[float], vectors: Sequence[bytes]) -> list[float]:
    """Return the cosine of the angle between a vector and each of others; 0 where one has no length.

    Vectors of another number of dimensions than the query's are compared as far as both reach. Equal vectors have
    equal cosines, to the last bit.
    """
    different = list(dict.fromkeys(vectors))
    # Where a vector stands in a matrix shows in how its product is rounded.
    cosines = dict(zip(different, _cosines(query, different), strict=True))
    return [cosines[vector] for vector in vectors]


def _cosines(query: Sequence[float], vectors: Sequence[bytes]) -> list[float]:
    numpy = _numpy()
    if numpy is not None and len({len(vector) for vector in vectors}) == 1 and len(vectors[0]) == 4 * len(query):
        matrix = numpy.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1).astype("f8")
        wanted = numpy.asarray(query, dtype="f8")
        lengths = numpy.linalg.norm(matrix, axis=1) * numpy.linalg.norm(wanted)
        products = matrix @ wanted
        near = numpy.divide(products, lengths, out=numpy.zeros_like(products), where=lengths != 0)
        return [float(each) for each in near]
    length = sqrt(sum(map(mul, query, query)))
    return [_cosine(query, length, struct.unpack(f"<{len(vector) // 4}f", vector)) for vector in vectors]


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
