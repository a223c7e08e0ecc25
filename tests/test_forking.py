"""What is renewed in forked processes is known as long as it lives, and keeps nothing else from working."""

from __future__ import annotations

import gc
import weakref

from ckpt import forking
from ckpt.objects.cache import Cache


def test_nothing_is_called_when_it_is_let_go() -> None:
    """What a handler of signals raises in a callback in Python is printed, and reaches nobody."""
    cache: Cache[int, int] = Cache(10)
    assert [each.__callback__ for each in weakref.getweakrefs(cache)] == [None]


def test_those_that_are_gone_are_forgotten_and_the_others_are_not() -> None:
    kept: list[Cache[int, int]] = [Cache(10) for _ in range(10)]
    for _ in range(2000):
        Cache[int, int](10)
    gc.collect()
    known = [made() for made in forking._renewables._made]
    assert len(known) < 1000 + sum(made is not None for made in known)
    assert {id(cache) for cache in kept} <= {id(made) for made in known}
