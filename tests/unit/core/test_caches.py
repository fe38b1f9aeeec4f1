"""What is remembered for speed must not grow with time."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import _lru_cache_wrapper
from importlib import import_module
from typing import Any

import pytest

import polywan.core
from polywan.core.ruleset import model as nft
from polywan.core.ruleset.model import NftRule


def caches() -> Iterator[Any]:
    for found in pkgutil.walk_packages(polywan.core.__path__, "polywan.core."):
        for kept in vars(import_module(found.name)).values():
            if isinstance(kept, _lru_cache_wrapper):
                yield pytest.param(kept, id=f"{found.name}.{kept.__name__}")


@pytest.mark.parametrize("kept", list(caches()))
def test_every_cache_of_the_core_has_a_bound(kept: _lru_cache_wrapper[Any]) -> None:
    assert kept.cache_info().maxsize is not None


def test_rules_of_addresses_that_came_and_went_are_forgotten() -> None:
    most = nft._comment.cache_info().maxsize
    assert most is not None
    for number in range(most + 100):
        assert NftRule(f"ip saddr 192.0.2.1 mark {number}", "was ours").comment
    assert nft._comment.cache_info().currsize == most
