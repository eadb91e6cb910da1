"""Bars: trades, or rows of the book, put together until a time, a count, a volume or an imbalance is full."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Final, get_args

import numpy as np
import polars as pl

from cbtools.errors import ConfigError, unknown_name
from cbtools.features.links import Holes, TradeLinks, ignores
from cbtools.features.open_bars import BARS, BOOK_BARS, By, OfBook, OfTrades, Rule, schema_of
from cbtools.features.quotes import require
from cbtools.features.stage import check_clock, check_frame
from cbtools.lazy import Step, stateful
from cbtools.spans import span_ns

_TRADES: Final = (*TradeLinks.columns, "price", "size", "aggressor_side")
_BOOK: Final = (
    *("product_id", "book_state", "proven_since"),
    *("bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1"),
)


def trade_bars(
    trades: pl.LazyFrame | pl.DataFrame,
    by: By,
    size: str | float,
    *,
    adaptive: int | None = None,
    holes: Holes = "restart",
    clock: str = "trade_time",
) -> pl.LazyFrame:
    """Put trades together into bars, of time, of equal activity, or by the imbalance of buying and selling.

    A bar never spans a gap: where a trade is missing, at a snapshot of past trades and at a new connection,
    the open bar is closed as not complete, and another begins; so it is at the end of the rows.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Rows of ``market_trades``, each product's in the order in which they came.
    by : {"time", "tick", "volume", "notional", "{tick,volume,notional}_imbalance", "..._runs"}
        When a bar is complete. By time, as a trade of another interval comes (no bar is of an interval
        without trades). By tick, with its ``size``-th trade. By volume or notional, when that is reached: a
        trade is split at the edge, so that every complete bar has it exactly, and a large trade may complete
        many. By imbalance, when |Σ D x| >= ``size``, x being 1, the trade's size or its notional, D = +1 for
        a buy aggressor and -1 for a sell; by runs, when Σ x of the buys or of the sells is.
    size : str or float
        A time span, as ``"1m"``; a whole number of trades; base or quote currency; or the threshold of
        imbalance or runs.
    adaptive : int, optional
        Learn the threshold, with ``size`` for the first bar: T E[|b|], T the mean of the complete bars'
        trades and b of their imbalance per trade (of runs: the larger of buys and sells per trade), by
        exponentially weighted means of so many bars (weight 2 / (adaptive + 1); the first bar sets them).
        Restarts do not reset it; a threshold of 0 is not taken.
    holes : {"restart", "ignore"}
        What a missing trade_id means: trades are missing; or nothing, for trades that were filtered.
    clock : str
        Which time bars are of; its running maximum in the run counts, and a row without it counts at the
        time of the row before.

    Returns
    -------
    polars.LazyFrame
        A row a bar, in the order in which they close, at the end the open ones: product_id; bar (Int64, from
        0 in each product); start (Datetime ns UTC, of bars by time, else null); open, high, low, close, vwap
        (Float64, quote currency; vwap is null if volume is 0); volume, buy_volume (Float64, base currency);
        notional (Float64, quote currency); n_trades (Int64; parts of a trade count as one each); first_time,
        last_time (Datetime ns UTC; capture_time where the clock is null); first_trade_id, last_trade_id
        (Int64); is_complete (Boolean); run (Int64: restarts of the product so far).

    Raises
    ------
    ConfigError
        If an argument cannot be meant, or the frame lacks a column; at once. If one trade were split into
        more than 2**32 bars; when the query runs.
    DatasetError
        If a price or size is null or not finite, or a size is negative; when the query runs.

    References
    ----------
    López de Prado 2018, ch. 2. (Imbalance there is E[T]·|2v⁺ - E[v]|, which is this one's T |E[b]|.)

    Examples
    --------
    >>> import cbtools as cb
    >>> trades = cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"])
    >>> bars = cb.trade_bars(trades, "volume", 0.5)
    >>> bars.filter("is_complete").select(pl.col("volume").unique()).collect().item()
    0.5
    """
    schema = check_frame(trades, "market_trades")
    rule = _rule(by, size, adaptive)
    ignore_holes = ignores(holes)
    check_clock(schema, clock, "market_trades")
    require(schema, _TRADES, "market_trades")
    needed = _needed(_TRADES, clock, schema)

    def start(columns: list[str]) -> tuple[list[str], Step]:
        open_bars = OfTrades(rule, clock, ignore_holes=ignore_holes)
        return needed, lambda batch: open_bars(batch).select(columns)

    return stateful(trades.lazy(), start, schema_of(BARS), f"BARS by {by}", by="product_id")


def book_bars(
    book: pl.LazyFrame | pl.DataFrame, *, every: str = "1m", clock: str = "capture_time"
) -> pl.LazyFrame:
    """Put the rows of a book together into bars of time: mid, order flow and spread.

    Only rows that are ok count. A row that is not closes the open bar as not complete, and so does one that
    rests on another snapshot, and the end of the rows. No bar is of an interval without rows.

    Parameters
    ----------
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, of whatever depth, each product's in the order in which they came.
    every : str
        Length of a bar's interval, as ``"1m"``; it starts at a multiple of it since the epoch.
    clock : str
        The time that intervals are of; its running maximum in the run counts, and a row without it counts
        at the time of the row before.

    Returns
    -------
    polars.LazyFrame
        A row a bar, in the order in which they close, at the end the open ones: product_id; start (Datetime
        ns UTC); open, high, low, close of mid (Float64, quote currency); ofi (Float64, base currency: Σ ofi
        over the rows that follow one of the run, null if none does); mean_spread (Float64, quote currency:
        the mean over rows); n_updates (Int64, rows); first_time, last_time (Datetime ns UTC; capture_time
        where the clock is null); is_complete (Boolean).

    Raises
    ------
    ConfigError
        If every is no time span, or the frame lacks a column; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"])
    >>> bars = cb.book_bars(cb.rebuild_book(level2, depth=1), every="10s")
    >>> bars.select((pl.col("low") <= pl.col("close")).all()).collect().item()
    True
    """
    span = span_ns(every)
    schema = check_frame(book, "book")
    check_clock(schema, clock, "book")
    require(schema, _BOOK, "book")
    needed = _needed(_BOOK, clock, schema)

    def start(columns: list[str]) -> tuple[list[str], Step]:
        open_bars = OfBook(span, clock)
        return needed, lambda batch: open_bars(batch).select(columns)

    return stateful(book.lazy(), start, schema_of(BOOK_BARS), "BARS of book", by="product_id")


# --- arguments


def _needed(columns: Sequence[str], clock: str, schema: pl.Schema) -> list[str]:
    """Give the columns that bars need; capture_time stands in for a clock that is null, if it is there."""
    return [name for name in schema if name in {*columns, clock, "capture_time"}]


def _rule(by: By, size: str | float, adaptive: int | None) -> Rule:
    if by not in get_args(By):
        raise unknown_name("kind of bar", by, get_args(By))
    learns = by.endswith(("_imbalance", "_runs"))
    if adaptive is not None and not learns:
        raise ConfigError(
            f"adaptive={adaptive!r} is for bars by imbalance or runs, not by {by}: leave it out"
        )
    if adaptive is not None:
        adaptive = whole_number("adaptive", adaptive)
    if by == "time":
        if not isinstance(size, str):
            raise ConfigError(f"the size of bars by time is a time span, e.g. '1m', not {size!r}")
        return Rule(by, span_ns(size), 0.0, 0)
    if by == "tick":
        return Rule(by, whole_number("the size of bars by tick", size), 0.0, 0)
    return Rule(by, 0, amount(f"the size of bars by {by}", size), adaptive or 0)


def whole_number(what: str, value: Any) -> int:
    """Refuse what is no whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value < 2**62:
        raise ConfigError(f"{what} must be a whole number, 1 or more, not {value!r}")
    return int(value)


def amount(what: str, value: Any) -> float:
    """Refuse what is no finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < float(value) < math.inf:
        raise ConfigError(f"{what} must be a finite number above 0, not {value!r}")
    return float(value)
