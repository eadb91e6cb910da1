"""How much a test does in which tier: a few examples, the number of ``--ci``, or that of ``--full``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., None])

TIER = os.environ.get("CBTOOLS_TIER", "")
CI = TIER in ("ci", "full")
FULL = TIER == "full"


def by_tier(few: T, ci: T, full: T) -> T:
    """Return what belongs to the tier that runs."""
    return full if FULL else ci if CI else few


def examples(ci: int, *, full: int = 80, suppress: Collection[HealthCheck] = ()) -> Callable[[F], F]:
    """Return what sets the examples of a property test: `ci` with ``--ci``, in full `full` times as many.

    By default a quarter of them, and at least three.
    """
    number = by_tier(min(ci, max(3, ci // 4)), ci, ci * full)
    limits = settings(max_examples=number, deadline=None, suppress_health_check=list(suppress))
    return lambda test: pytest.mark.more(limits(test))


def parametrize(
    names: str | tuple[str, ...], values: Iterable[Any], *, every: int, **options: Any
) -> pytest.MarkDecorator:
    """Return pytest's mark; by default only each `every`-th of the parameters is tried, from the first on."""
    several = not isinstance(names, str)
    parameters = [
        value if place % every == 0 else pytest.param(*(value if several else (value,)), marks=pytest.mark.ci)
        for place, value in enumerate(values)
    ]
    return pytest.mark.parametrize(names, parameters, **options)
