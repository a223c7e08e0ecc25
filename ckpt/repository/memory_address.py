"""Where an item stands, as callers say it: checked, and as the engine takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ckpt.errors import InvalidInputError
from ckpt.history import keys
from ckpt.history.items import NAMESPACE_LABELS_MAX, TEXT_MAX
from ckpt.repository.memory_look import Address

Namespace = Sequence[str]


def labels_of(namespace: Any) -> tuple[str, ...]:
    """Return the labels of a namespace, or raise InvalidInputError for what is none or is too long."""
    if not isinstance(namespace, tuple | list) or not all(isinstance(label, str) for label in namespace):
        raise InvalidInputError(
            f"the namespace {namespace!r} is no sequence of texts",
            hints=["write it as in ('users', 'ana'), and one label as ('users',)"],
        )
    labels = tuple(namespace)
    if len(labels) > NAMESPACE_LABELS_MAX or sum(len(keys.encode_text(label)) for label in labels) > TEXT_MAX:
        raise InvalidInputError(
            f"a namespace of {len(labels)} labels is too long; "
            f"{NAMESPACE_LABELS_MAX} labels of {TEXT_MAX:,} bytes together are allowed"
        )
    return labels


def address_of(namespace: Namespace, key: str) -> Address:
    """Return the address of an item, or raise InvalidInputError for one that no item can have."""
    if not isinstance(key, str):
        raise InvalidInputError(f"the key {key!r} is no text")
    if len(encoded := keys.encode_text(key)) > TEXT_MAX:
        raise InvalidInputError(f"a key of {len(encoded):,} bytes is too long; {TEXT_MAX:,} bytes are allowed")
    return Address(labels_of(namespace), key)
