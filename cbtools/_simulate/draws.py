"""Random whole numbers, and the tables they are looked up in.

Only the raw bits of the generator are used: NumPy promises to keep those for ever, and whole numbers come out
the same on every machine, which the last digit of a logarithm does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

TABLE_SIZE: Final = 8_192
"""Entries of a table that spreads a distribution."""

_BLOCK: Final = 8_192
_HALF: Final = np.uint64(32)


class Draws:
    """A stream of random numbers, named by a few whole numbers."""

    def __init__(self, *seed: int) -> None:
        self.bits = np.random.PCG64(seed)

    def below(self, bound: int, count: int) -> NDArray[np.int64]:
        """Draw whole numbers from 0 to ``bound - 1``, at most 2**32 - 1."""
        upper = self.bits.random_raw(count) >> _HALF
        return (upper * np.uint64(bound) >> _HALF).astype(np.int64)

    def one_below(self, bound: int) -> int:
        """Draw one whole number from 0 to ``bound - 1``."""
        return int(self.below(bound, 1)[0])

    def fractions(self, count: int) -> NDArray[np.float64]:
        """Draw numbers from 0 to below 1."""
        return self.below(1 << 32, count) / 2.0**32

    def rolls(self) -> Iterator[int]:
        """Draw whole numbers from 0 to 2**20 - 1, for ever."""
        while True:
            yield from self.below(1 << 20, _BLOCK).tolist()


@cache
def quantiles(probabilities: tuple[float, ...], values: tuple[float, ...]) -> list[float]:
    """Spread a quantile function over a table, log-linear between its knots."""
    logs = [math.log(value) for value in values]
    places = [(i + 0.5) / TABLE_SIZE for i in range(TABLE_SIZE)]
    return [math.exp(x) for x in np.interp(places, probabilities, logs).tolist()]


@cache
def normals() -> list[float]:
    """Spread the normal distribution over a table."""
    normal = NormalDist()
    return [normal.inv_cdf((i + 0.5) / TABLE_SIZE) for i in range(TABLE_SIZE)]


@cache
def lognormals(sigma: float) -> list[float]:
    """Spread the lognormal distribution of median 1 over a table."""
    return [math.exp(sigma * z) for z in normals()]


def three_digits(units: float) -> int:
    """Round to three significant digits."""
    return round(round(units), 2 - math.floor(math.log10(units))) if units >= 1 else 1
