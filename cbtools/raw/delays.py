"""Receive delays: how long after a frame was sent it was received, by product, from a pass over segments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.spans import about

I64 = npt.NDArray[np.int64]

_PRODUCT: Final = frozenset({"product_id"})
COUNTED: Final = {
    "level2": _PRODUCT,
    "market_trades": _PRODUCT | {"trade_time", "is_snapshot"},
    "ticker": _PRODUCT,
}
"""A frame counts once for each product and each of these tables that it has rows of; by these columns."""

MOST_NEGATIVE: Final = 0.01
"""A clock is off if more of a product's delays are below zero: nothing arrives before it is sent."""
LONGEST_MEDIAN: Final = 5 * 10**9
"""A clock is off (or the recorder far behind) if the median delay exceeds this, nanoseconds: over the
internet it is some milliseconds to some hundred."""
LATE: Final = 5 * 10**9
"""A trade sent more than this after it happened is late, ns: it has no quote by the exchange's clock."""

_BITS: Final = 46
"""A bin is a double's sign, exponent and first 52 - 46 bits: 64 bins from each power of two to the next. The
middle of a bin is at most 1/128 off."""
_ONE: Final = int(np.float64(1).view(np.int64)) >> _BITS
_FLUSH: Final = 1 << 16
"""Frames that may wait to be counted."""
_FAR: Final = 1 << 62
"""Times so far from 1970, and NO_TIME, are not compared: their difference may be no 64-bit number."""
_UNKNOWN: Final = -(1 << 63)

DELAYS: Final = pl.Schema(
    {
        "product_id": pl.String(),
        "frames": pl.Int64(),
        **dict.fromkeys(("min", "median", "p99"), pl.Duration("ns")),
        "share_negative": pl.Float64(),
        "clock_is_off": pl.Boolean(),
    }
)


@dataclass(frozen=True)
class ReceiveDelay:
    """The delays capture_time − server_time of one product's frames, nanoseconds.

    Attributes
    ----------
    frames : int
        Frames with both times, once for each of the tables level2, market_trades and ticker that they have
        rows of the product in; without snapshots of trades, which the Exchange feed sends with old times.
    min : int
        The least delay, exact.
    median, p99 : int
        Quantiles, to 1 %.
    negative : int
        Frames received before they were sent, by the two clocks.
    """

    frames: int
    min: int
    median: int
    p99: int
    negative: int

    @property
    def share_negative(self) -> float:
        """Share of the frames that were received before they were sent."""
        return self.negative / self.frames

    @property
    def is_off(self) -> bool:
        """Whether the recorder's clock must be off: more than 1 % negative, or a median over 5 s."""
        return self.share_negative > MOST_NEGATIVE or self.median > LONGEST_MEDIAN

    def __str__(self) -> str:
        return (
            f"median {about(self.median)}, p99 {about(self.p99)}, min {about(self.min)}, "
            f"negative {self.share_negative:.2%}"
        )


def delays_frame(delays: Mapping[str, ReceiveDelay]) -> pl.DataFrame:
    """Make a frame of delays, one row per product, the worst clock first."""
    rows = [
        (product, d.frames, d.min, d.median, d.p99, d.share_negative, d.is_off)
        for product, d in worst_first(delays)
    ]
    numbers = {name: pl.Int64() if dtype == pl.Duration("ns") else dtype for name, dtype in DELAYS.items()}
    return pl.DataFrame(rows, schema=numbers, orient="row").cast(DELAYS)


def worst_first(delays: Mapping[str, ReceiveDelay]) -> list[tuple[str, ReceiveDelay]]:
    """Order products: those whose clock is off first, then by the share negative and the median."""

    def how_bad(item: tuple[str, ReceiveDelay]) -> tuple[bool, float, int]:
        return not item[1].is_off, -item[1].share_negative, -item[1].median

    return sorted(delays.items(), key=how_bad)


def delays_text(delays: Mapping[str, ReceiveDelay], most: int = 3) -> str:
    """Show delays in one line, the worst clock first."""
    shown = [f"{product} {delay}" for product, delay in worst_first(delays)[:most]]
    rest = len(delays) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest else "") or "not known"


def off_text(delays: Mapping[str, ReceiveDelay]) -> str:
    """Say what is wrong with the clock, of the worst product; empty if nothing is."""
    off = [(product, delay) for product, delay in worst_first(delays) if delay.is_off]
    if not off:
        return ""
    product, delay = off[0]
    others = f" (and of {len(off) - 1} more)" if len(off) > 1 else ""
    if delay.share_negative > MOST_NEGATIVE:
        what = f"{delay.share_negative:.2%} of the frames of {product}{others} were received before they were"
        return f"{what} sent; the median delay is {about(delay.median)}"
    return (
        f"the median delay of {product}{others} is {about(delay.median)}, more than {about(LONGEST_MEDIAN)}"
    )


def line_delays(server_time: I64, capture_time: I64) -> I64:
    """Return each line's delay; _UNKNOWN where one of its times is not known, or out of all reason."""
    known = (np.minimum(server_time, capture_time) > -_FAR) & (np.maximum(server_time, capture_time) < _FAR)
    return np.where(known, capture_time - server_time, _UNKNOWN)


class Delays:
    """Counts delays in bins: memory is bounded, and the result does not depend on how the input is cut."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._waiting: list[tuple[I64, I64]] = []
        self._n_waiting = 0
        self._bins: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._least: dict[str, int] = {}
        self._found: dict[str, ReceiveDelay] = {}

    def add(self, line: I64, product: pl.Series, delays: I64) -> dict[str, int]:
        """Count the frames of some rows of one table, and return the number of rows by product.

        ``delays`` is by line. To find the runs of rows first, and then their products, costs less than to
        count the products of all rows did.
        """
        if not len(line):
            return {}
        new = np.append(True, line[1:] != line[:-1])
        if (product == product[0]).all():
            first, names, codes = np.flatnonzero(new), [product[0]], None
            rows = {product[0]: len(line)}
        else:
            new_product = np.append(True, (product[1:] != product[:-1]).to_numpy())
            first = np.flatnonzero(new | new_product)
            names, codes = _codes(product.gather(first))
            n = np.bincount(codes, np.diff(np.append(first, len(line)))).astype(np.int64)
            rows = dict(zip(names, n.tolist(), strict=True))
            if (new_product & ~new).any():  # of several products: each counts once
                _, once = np.unique(line[first] * len(names) + codes, return_index=True)
                first, codes = first[once], codes[once]
        numbers = np.array([self._numbers.setdefault(name, len(self._numbers)) for name in names])
        delay = delays[line[first]]
        of_row = np.full(len(first), numbers[0]) if codes is None else numbers[codes]
        self._waiting.append((of_row, delay))
        self._n_waiting += len(first)
        if self._n_waiting >= _FLUSH:
            self._count()
        return rows

    def found(self) -> dict[str, ReceiveDelay]:
        """Return the delays so far, by product."""
        self._count()
        if not self._found:
            self._found = {name: _summary(self._bins[name], self._least[name]) for name in sorted(self._bins)}
        return dict(self._found)

    def _count(self) -> None:
        if not self._waiting:
            return
        codes = np.concatenate([codes for codes, _ in self._waiting])
        delay = np.concatenate([delay for _, delay in self._waiting])
        self._waiting, self._n_waiting, self._found = [], 0, {}
        known = delay != _UNKNOWN
        codes, delay = codes[known], delay[known]
        if not len(delay):
            return
        place, names = _bin(delay), list(self._numbers)
        lowest = int(place.min())
        width = int(place.max()) - lowest + 1
        counts = np.bincount(codes * width + (place - lowest))
        least = np.full(len(names), np.iinfo(np.int64).max)
        np.minimum.at(least, codes, delay)
        there = np.flatnonzero(counts)
        for at, n in zip(there.tolist(), counts[there].tolist(), strict=True):
            name, of_bin = names[at // width], at % width + lowest
            self._bins[name][of_bin] = self._bins[name].get(of_bin, 0) + n
        for code in np.unique(there // width).tolist():
            low = int(least[code])
            self._least[names[code]] = min(low, self._least.get(names[code], low))


def _codes(product: pl.Series) -> tuple[list[str], I64]:
    """Return the products' names, and each row's number among them."""
    physical = product.cast(pl.Categorical()).to_physical().to_numpy()
    row = np.full(int(physical.max()) + 1, -1, np.int64)
    row[physical] = np.arange(len(physical))
    there = np.flatnonzero(row >= 0)
    number = np.empty(len(row), np.int64)
    number[there] = np.arange(len(there))
    return product.gather(row[there]).to_list(), number[physical]


def _bin(delay: I64) -> I64:
    """Return each delay's bin: they rise as the delays do, below zero too."""
    place = (np.abs(delay).astype(np.float64).view(np.int64) >> _BITS) - (_ONE - 1)
    signed: I64 = np.sign(delay) * np.maximum(place, 0)
    return signed


def _middle(place: int) -> int:
    """Return the middle of a bin."""
    edges = np.array([abs(place), abs(place) + 1], np.int64) + (_ONE - 1)
    low, high = (edges << _BITS).view(np.float64).tolist()
    return round((low + high) / 2) * (1 if place > 0 else -1) if place else 0


def _summary(bins: dict[int, int], least: int) -> ReceiveDelay:
    places = np.array(sorted(bins), np.int64)
    counts = np.array([bins[place] for place in places.tolist()], np.int64)
    below, frames = np.cumsum(counts), int(counts.sum())

    def quantile(q: float) -> int:
        place = int(places[np.searchsorted(below, q * frames)])
        return max(least, _middle(place))

    negative = int(counts[places < 0].sum())
    return ReceiveDelay(frames, least, quantile(0.5), quantile(0.99), negative)
