"""The bars that are open, of trades or of a book, batch by batch; those that close become a frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, DatasetError
from cbtools.features import touch
from cbtools.features.catalogue import Names
from cbtools.features.flow import book_rows
from cbtools.features.links import NO_TIME, Links, ProvenLinks, TradeLinks, times_of
from cbtools.features.view import Carried, View
from cbtools.schema import TIME, Column

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

By = Literal[
    "time",
    "tick",
    "volume",
    "notional",
    "tick_imbalance",
    "volume_imbalance",
    "notional_imbalance",
    "tick_runs",
    "volume_runs",
    "notional_runs",
]
_QUOTE, _BASE = "quote currency", "base currency"
_PRODUCT: Final = Column("product_id", pl.String, "", "product")
_COMPLETE: Final = "false where a restart or the end of the rows closed it"

BARS: Final = (
    _PRODUCT,
    Column("bar", pl.Int64, "", "number of the bar in the product (from 0)"),
    Column(
        "start", TIME, "ns UTC", "start of the bar's interval, a multiple of its length since the epoch",
        "not a bar of time, or none of its trades nor any before in the run has a time",
    ),
    Column("open", pl.Float64, _QUOTE, "price of the first trade"),
    Column("high", pl.Float64, _QUOTE, "highest price"),
    Column("low", pl.Float64, _QUOTE, "lowest price"),
    Column("close", pl.Float64, _QUOTE, "price of the last trade"),
    Column("vwap", pl.Float64, _QUOTE, "notional / volume", "volume is 0"),
    Column("volume", pl.Float64, _BASE, "Σ size"),
    Column("notional", pl.Float64, _QUOTE, "Σ price · size"),
    Column("buy_volume", pl.Float64, _BASE, "Σ size of trades whose aggressor bought"),
    Column("n_trades", pl.Int64, "trades", "trades, a part of one counting as one"),
    Column("first_time", TIME, "ns UTC", "clock of the first trade (capture_time if null)", "both are"),
    Column("last_time", TIME, "ns UTC", "clock of the last trade (capture_time if null)", "both are"),
    Column("first_trade_id", pl.Int64, "", "number of the first trade"),
    Column("last_trade_id", pl.Int64, "", "number of the last trade"),
    Column("is_complete", pl.Boolean, "", _COMPLETE),
    Column("run", pl.Int64, "", "restarts of the product before (from 0)"),
)  # fmt: skip
"""The columns of bars of trades."""

BOOK_BARS: Final = (
    _PRODUCT,
    Column(
        "start", TIME, "ns UTC", "start of the interval, a multiple of its length since the epoch",
        "none of its rows nor any before in the run has a time",
    ),
    Column("open", pl.Float64, _QUOTE, "first mid"),
    Column("high", pl.Float64, _QUOTE, "highest mid"),
    Column("low", pl.Float64, _QUOTE, "lowest mid"),
    Column("close", pl.Float64, _QUOTE, "last mid"),
    Column("ofi", pl.Float64, _BASE, "Σ ofi of the rows that follow one", "none does"),
    Column("mean_spread", pl.Float64, _QUOTE, "mean of the rows' spreads"),
    Column("n_updates", pl.Int64, "rows", "rows of the book"),
    Column("first_time", TIME, "ns UTC", "clock of the first row (capture_time if null)", "both are"),
    Column("last_time", TIME, "ns UTC", "clock of the last row (capture_time if null)", "both are"),
    Column("is_complete", pl.Boolean, "", _COMPLETE),
)  # fmt: skip
"""The columns of bars of the book."""

_PLACES: Final = {
    "product_id": "CODE",
    "n_trades": "N",
    "n_updates": "N",
    "first_trade_id": "FIRST_ID",
    "last_trade_id": "LAST_ID",
    "mean_spread": "SPREAD",
    "is_complete": "COMPLETE",
}
"""Where the kernel has what a column holds, unless its place is named alike."""
_ROOM: Final = 8192
"""So many bars are written at a time."""
_LARGEST: Final = 1e150
"""Prices and sizes are smaller: their products are finite, with some digits to spare."""
_MOST_PARTS: Final = 2.0**32
"""Into more bars than this one trade is not split: they would fill any memory."""


def schema_of(columns: Sequence[Column]) -> pl.Schema:
    """Give the Polars schema of columns."""
    return pl.Schema({column.name: column.dtype for column in columns})


@dataclass(frozen=True)
class Rule:
    """When a bar is complete: ``units`` are ns or trades, ``full`` another amount; 0 where it is not so."""

    by: By
    units: int
    full: float
    adaptive: int

    def codes(self) -> tuple[int, int]:
        """Give by what the bar is complete, and what counts, in the kernel's numbers."""
        from cbtools._kernels import bars as k

        what, _, how = self.by.partition("_")
        counted = {"volume": k.SIZES, "notional": k.NOTIONALS}.get(what, k.TICKS)
        plain = {"time": k.BY_TIME, "tick": k.BY_TICK, "volume": k.BY_VOLUME, "notional": k.BY_NOTIONAL}
        return int({"": plain[what], "imbalance": k.BY_IMBALANCE, "runs": k.BY_RUNS}[how]), int(counted)


Kernel = Callable[[int, I64, F64], tuple[int, int]]
"""Takes the rows from a place on, and the output; gives how far it came, and how many bars have closed."""


class _Open(ABC):
    """What is open of each product; the bars that close become a frame."""

    def __init__(
        self, columns: Sequence[Column], linker: TradeLinks | ProvenLinks, full: float = 0.0
    ) -> None:
        from cbtools._kernels import bars

        self._kernels, self._columns, self._linker, self._full = bars, columns, linker, full
        self._wholes = np.zeros((0, bars.WHOLE), np.int64)
        self._reals = np.zeros((0, 2, bars.REAL))

    def __call__(self, batch: pl.DataFrame | None) -> pl.DataFrame:
        """Take the next rows, or None at their end; give the bars that close."""
        if batch is None:
            return self._frame(*self._rest())
        if batch.is_empty():
            return self._frame(*self._output(0))
        links = self._linker(batch)
        self._make_room(len(self._linker.products.names))
        return self._frame(*self._closed(batch.height, self._kernel(batch, links)))

    @abstractmethod
    def _kernel(self, batch: pl.DataFrame, links: Links) -> Kernel:
        """Give the kernel with its rows."""

    def _make_room(self, codes: int) -> None:
        """Let there be so many products."""
        kernels, new = self._kernels, codes - len(self._wholes)
        if new <= 0:
            return
        wholes, reals = np.zeros((new, kernels.WHOLE), np.int64), np.zeros((new, 2, kernels.REAL))
        wholes[:, kernels.RUN] = -1
        wholes[:, [kernels.START, kernels.T]] = kernels.NONE
        reals[:, 0, kernels.THRESHOLD] = self._full
        self._wholes = np.concatenate([self._wholes, wholes])
        self._reals = np.concatenate([self._reals, reals])

    def _closed(self, rows: int, kernel: Kernel) -> tuple[I64, F64]:
        """Run a kernel over the rows of a batch, as often as the output is full; give the bars."""
        parts, begin = [], 0
        while begin < rows:
            out = self._output(_ROOM)
            begin, bars = kernel(begin, *out)
            parts.append([values[:, :bars] for values in out])
        whole, real = (np.concatenate(values, axis=1) for values in zip(*parts, strict=True))
        return whole, real

    def _rest(self) -> tuple[I64, F64]:
        """Close what is open."""
        whole, real = self._output(len(self._wholes))
        bars = self._kernels.flush(self._wholes, self._reals, self._columns is BOOK_BARS, whole, real)
        return whole[:, :bars], real[:, :bars]

    def _output(self, bars: int) -> tuple[I64, F64]:
        kernels = self._kernels
        return np.empty((kernels.WHOLE_OUT, bars), np.int64), np.empty((kernels.REAL_OUT, bars))

    def _frame(self, whole: I64, real: F64) -> pl.DataFrame:
        """Make the frame of what the kernel wrote down."""

        def column(of: Column) -> pl.Series:
            place = getattr(self._kernels, _PLACES.get(of.name, of.name.upper()))
            if of.dtype == pl.Float64:
                return pl.Series(of.name, real[place]).fill_nan(None)
            values = pl.Series(of.name, whole[place])
            if of.name == _PRODUCT.name:
                return pl.Series(of.name, [*self._linker.products.names], dtype=pl.String).gather(values)
            if of.dtype == TIME:
                values = values.set(values == NO_TIME, None)
            return values.cast(of.dtype)

        return pl.DataFrame([column(of) for of in self._columns])


class OfTrades(_Open):
    """Bars of trades, batch by batch."""

    def __init__(self, rule: Rule, clock: str, *, ignore_holes: bool) -> None:
        super().__init__(BARS, TradeLinks(ignore_holes=ignore_holes), rule.full)
        self._rule, self._clock = rule, clock
        self._left = np.zeros(5)

    def _kernel(self, batch: pl.DataFrame, links: Links) -> Kernel:
        rule = self._rule
        _check_values(batch, rule)
        price, size = (batch[name].cast(pl.Float64).to_numpy() for name in ("price", "size"))
        is_buy = (batch["aggressor_side"] == "buy").fill_null(value=False).to_numpy()
        times, trade_id = _times(batch, self._clock), batch["trade_id"].to_numpy()
        rows = _inputs(links.codes, links.follows, price, size, is_buy, *times, trade_id)
        when = (*rule.codes(), rule.units, rule.full, rule.adaptive)

        def kernel(begin: int, whole: I64, real: F64) -> tuple[int, int]:
            given = (begin, self._wholes, self._reals, self._left, whole, real)
            done: tuple[int, int] = self._kernels.trade_bars(*rows, *when, *given)
            return done

        return kernel


class OfBook(_Open):
    """Bars of a book, batch by batch."""

    def __init__(self, every: int, clock: str) -> None:
        super().__init__(BOOK_BARS, ProvenLinks(touch.IS_OK))
        self._every, self._clock, self._carried = every, clock, Carried()
        self._names = Names(book_rows().features)

    def _kernel(self, batch: pl.DataFrame, links: Links) -> Kernel:
        view = View(batch, self._names, links, self._carried, depth=1)
        values = [view.column(name) for name in ("mid", "spread", "ofi")]
        rows = _inputs(links.codes, links.follows, links.usable, *values, *_times(batch, self._clock))

        def kernel(begin: int, whole: I64, real: F64) -> tuple[int, int]:
            given = (begin, self._wholes, self._reals, whole, real)
            done: tuple[int, int] = self._kernels.book_bars(*rows, self._every, *given)
            return done

        return kernel


def _inputs(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Give arrays that are read only, as those of Polars mostly are: a kernel is compiled for these alone."""
    views = [array.view() for array in arrays]
    for view in views:
        view.flags.writeable = False
    return views


def _times(frame: pl.DataFrame, clock: str) -> tuple[I64, I64]:
    """Give the clock, and the same with capture_time where it is null."""
    time = times_of(frame, clock)
    if clock == "capture_time" or "capture_time" not in frame.columns or not frame[clock].null_count():
        return time, time
    return time, np.where(time == NO_TIME, times_of(frame, "capture_time"), time)


def _check_values(trades: pl.DataFrame, rule: Rule) -> None:
    """Refuse prices and sizes that cannot be summed, and trades that would be split without end."""
    price, size = pl.col("price").abs(), pl.col("size")
    usable = (price <= _LARGEST) & (size >= 0.0) & (size <= _LARGEST)
    unusable = trades.filter(~usable.fill_null(value=False))
    if unusable.height:
        raise DatasetError(
            f"{_named(unusable)}: bars need finite prices and sizes, no size below 0; filter such rows out"
        )
    if rule.by in ("volume", "notional"):
        most = rule.full * _MOST_PARTS
        huge = trades.filter((size if rule.by == "volume" else price * size) > most)
        if huge.height:
            raise ConfigError(
                f"{_named(huge)} would fill more than 2**32 bars of {rule.full:g}: make them larger"
            )


def _named(trades: pl.DataFrame) -> str:
    row = trades.row(0, named=True)
    told = ", ".join(f"{name} {row[name]}" for name in ("product_id", "trade_id", "price", "size"))
    return f"the trade with {told}"
