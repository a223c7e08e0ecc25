"""LangGraph's own calls of a store, with their namespaces looked at first.

LangGraph goes through a namespace label by label, whatever it is: a text falls into its letters, and None ends in a
bare TypeError. What is wrong with a label is for LangGraph to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from langgraph.store.base import BaseStore

from ckpt.repository.memory_address import labels_of

_Call = TypeVar("_Call", bound=Callable[..., Any])


def _check(given: Sequence[object], named: Mapping[str, object]) -> None:
    """Raise InvalidInputError where a call's arguments have something else in the place of a namespace."""
    namespaces = [*given[:1], *([named["namespace"]] if "namespace" in named else [])]
    namespaces += [named[name] for name in ("prefix", "suffix") if named.get(name) is not None]
    for namespace in namespaces:
        if not isinstance(namespace, tuple | list):
            labels_of(namespace)


def _checked(call: _Call) -> _Call:
    @wraps(call)
    def checking(store: BaseStore, /, *given: Any, **named: Any) -> Any:
        _check(given, named)
        return call(store, *given, **named)

    @wraps(call)
    async def achecking(store: BaseStore, /, *given: Any, **named: Any) -> Any:
        _check(given, named)
        return await call(store, *given, **named)

    return cast(_Call, achecking if iscoroutinefunction(call) else checking)


class StoreCalls(BaseStore):
    """A store whose calls raise InvalidInputError for what is no namespace, before LangGraph looks at its labels."""

    get = _checked(BaseStore.get)
    put = _checked(BaseStore.put)
    delete = _checked(BaseStore.delete)
    search = _checked(BaseStore.search)
    list_namespaces = _checked(BaseStore.list_namespaces)
    aget = _checked(BaseStore.aget)
    aput = _checked(BaseStore.aput)
    adelete = _checked(BaseStore.adelete)
    asearch = _checked(BaseStore.asearch)
    alist_namespaces = _checked(BaseStore.alist_namespaces)
