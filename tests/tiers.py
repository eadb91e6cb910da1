"""How much a test does in which tier: a few examples, the number of ``--ci``, or that of ``--full``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TypeVar

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
