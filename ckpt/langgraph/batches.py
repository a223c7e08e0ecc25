"""Operations as LangGraph gives them to a store, by kind: checked, and as jobs that are done together with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, Op, PutOp, Result, SearchOp

from ckpt.errors import InvalidInputError
from ckpt.history.keys import check_text
from ckpt.langgraph.filters import check_filter, common_prefix
from ckpt.langgraph.plain import plain
from ckpt.langgraph.vectors import Texts, encode_vectors
from ckpt.repository import Memory, Put
from ckpt.repository.arguments import check_count, check_mapping, several
from ckpt.repository.lifetimes import minutes
from ckpt.repository.memory_address import address_of, labels_of
from ckpt.repository.memory_look import Address
from ckpt.repository.memory_writer import NewVersion


class OpBatch:
    """Operations by kind, and the results as they come in."""

    def __init__(self, ops: Iterable[Op]) -> None:
        self.results: list[Result] = []
        self.puts: dict[Address, PutOp] = {}
        self.reads: dict[int, GetOp | SearchOp | ListNamespacesOp] = {}
        addresses: dict[Address, None] = {}
        prefixes: dict[tuple[str, ...], None] = {}
        queries: dict[str, None] = {}
        for at, op in enumerate(several(ops, "ops")):
            self.results.append(None)
            if isinstance(op, PutOp):
                address = address_of(op.namespace, op.key)
                # As the last one, also in order.
                self.puts.pop(address, None)
                self.puts[address] = op
                continue
            if isinstance(op, GetOp):
                addresses[address_of(op.namespace, op.key)] = None
            elif isinstance(op, SearchOp):
                _check_search(op)
                prefixes[labels_of(op.namespace_prefix)] = None
                queries |= {op.query: None} if op.query else {}
            elif isinstance(op, ListNamespacesOp):
                _check_listing(op)
                prefixes[common_prefix(op.match_conditions or ())] = None
            else:
                raise InvalidInputError(f"Unknown operation type: {type(op)}")
            self.reads[at] = op
        self.addresses, self.prefixes, self.queries = list(addresses), list(prefixes), list(queries)


class Getting:
    """A batch that only gets items."""

    claims: frozenset[Address] = frozenset()

    def __init__(self, batch: OpBatch) -> None:
        self.batch = batch

    def prepare(self) -> int:
        return 0


class Putting:
    """What a batch puts."""

    def __init__(
        self,
        memory: Memory,
        puts: Mapping[Address, PutOp],
        texts: Mapping[Address, Texts],
        vectors: Mapping[str, Sequence[float]],
    ) -> None:
        self._memory = memory
        self._given = puts, texts, vectors
        self.claims = puts.keys()
        self.versions: list[NewVersion] = []

    def prepare(self) -> int:
        self.versions = self._memory.prepare(changes_of(*self._given))
        return sum(version.size for version in self.versions)


def changes_of(
    puts: Mapping[Address, PutOp], texts: Mapping[Address, Texts], vectors: Mapping[str, Sequence[float]]
) -> Iterator[Put]:
    """Yield puts as a memory takes them; `texts` are what each is to be found by, `vectors` those of the texts."""
    for address, op in puts.items():
        value = plain(op.value) if op.value is not None else None
        packed = encode_vectors(texts.get(address, {}), vectors)
        yield Put(*address, value, ttl=_lifetime(op), vectors=packed)


def _lifetime(op: PutOp) -> timedelta | None:
    return minutes(op.ttl, "ttl") if op.value is not None else None


def _check_search(op: SearchOp) -> None:
    check_mapping("a filter", {} if op.filter is None else op.filter)
    check_filter(op.filter or {})
    check_text("a query", "" if op.query is None else op.query)
    _check_page(op)


def _check_listing(op: ListNamespacesOp) -> None:
    for condition in several(op.match_conditions or (), "match_conditions"):
        if not isinstance(condition, MatchCondition):
            raise InvalidInputError(f"a condition is a {type(condition).__name__}, not a MatchCondition")
        labels_of(condition.path)
    check_count("max_depth", 0 if op.max_depth is None else op.max_depth, least=0)
    _check_page(op)


def _check_page(op: SearchOp | ListNamespacesOp) -> None:
    check_count("limit", op.limit, least=0)
    check_count("offset", op.offset, least=0)
