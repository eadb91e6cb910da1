"""How much a test does in which tier: a few examples, the number of ``--ci``, or that of ``--full``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., None])

TIER = os.environ.get("CBTOOLS_TIER", "")  # set by conftest.py, for the processes that tests start, too
CI = TIER in ("ci", "full")
FULL = TIER == "full"


def by_tier(few: T, ci: T, full: T) -> T:
    """Return the value for the current tier."""
    return full if FULL else ci if CI else few


def examples(ci: int, *, full: int = 80, suppress: Collection[HealthCheck] = ()) -> Callable[[F], F]:
    """Return a decorator that sets the number of examples: `ci` with ``--ci``, ``ci * full`` with ``--full``.

    By default it is a quarter of `ci`, and at least three.
    """
    number = by_tier(min(ci, max(3, ci // 4)), ci, ci * full)
    limits = settings(max_examples=number, deadline=None, suppress_health_check=list(suppress))
    return lambda test: pytest.mark.more(limits(test))


def parametrize(
    names: str | tuple[str, ...], values: Iterable[Any], *, every: int, **options: Any
) -> pytest.MarkDecorator:
    """Return pytest's mark; by default only every `every`-th value runs, from the first on."""
    several = not isinstance(names, str)
    parameters = [
        value if place % every == 0 else pytest.param(*(value if several else (value,)), marks=pytest.mark.ci)
        for place, value in enumerate(values)
    ]
    return pytest.mark.parametrize(names, parameters, **options)
