"""add_book_features and its siblings: the columns of features, by their names, added to a frame."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from cbtools.book.state import BookState
from cbtools.book.top import top_of
from cbtools.errors import ConfigError
from cbtools.features import clock as clocks
from cbtools.features.catalogue import choose
from cbtools.features.clock import Clock
from cbtools.features.flow import book_rows
from cbtools.features.impact import interval_rows
from cbtools.features.links import Holes, ignores
from cbtools.features.listing import BOOK, INTERVALS, TRADES
from cbtools.features.quotes import require
from cbtools.features.stage import add_columns, check_frame
from cbtools.features.trades import trade_rows
from cbtools.features.trades_at import windows_at
from cbtools.features.view import depth_of
from cbtools.schema import BOOK_DEPTH, book_columns

Names = str | Iterable[str]


def usual_of_book(levels: int, *, deep_flow: bool = True) -> tuple[str, ...]:
    """Give the usual set for a book of so many levels: what a row shows, order flow, and the log return."""
    k = min(levels, BOOK_DEPTH)
    shown = [
        *("mid", "spread", "spread_bps", "microprice", "microprice_dev_bps"),
        *(f"imbalance_{i}" for i in (1, 3, 5, 10) if i <= k),
        *(f"{side}_{what}_{k}" for what in ("depth", "depth_notional") for side in ("bid", "ask")),
        f"vamp_{k}",
        *("sweep_buy_10000_bps", "sweep_sell_10000_bps"),
        *(f"{side}_slope_{k}" for side in ("bid", "ask") if k > 1),
        *(f"{side}_concentration_{k}" for side in ("bid", "ask")),
        f"center_of_gravity_bps_{k}",
        f"smart_depth_imbalance_{k}_5bps",
    ]
    ranks = range(1, min(k, 5) + 1) if deep_flow else range(1, 2)
    return (*shown, "ofi", *(f"ofi_{i}" for i in ranks), "log_return")


def add_book_features(
    book: pl.LazyFrame | pl.DataFrame,
    features: Names | None = None,
    *,
    start: BookState | None = None,
    clock: str = "capture_time",
) -> pl.LazyFrame:
    """Add features to the rows of a book.

    Parameters
    ----------
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, each product's in the order in which they came, as `rebuild_book` gives them; rows
        that are not ok included, or what follows a gap cannot be told from what went on.
    features : str or iterable of str, optional
        Names with their parameters in them, as ``"imbalance_5"`` or ``"ofi_1m30s"``, and patterns, as
        ``"imbalance_*"``, which stand for the usual names that they match: see `catalogue`. By default the
        usual set: what a row shows, to 10 levels; ofi; ofi_1 to ofi_5; log_return.
    start : BookState, optional
        The state before the first row, from which the rows before the first are taken, so that ofi and
        log_return have a value at once. (Windows begin with the rows given.)
    clock : str
        Which time windows are of: those of the last w are the rows in (t - w, t]. It may step back: its
        running maximum counts. A row without it counts at the time of the row before.

    Returns
    -------
    polars.LazyFrame
        The rows with a column for each feature, Float64; columns of these names are replaced. Null where
        book_state is not ok, and wherever an input is undefined. What needs rows before is null where they
        are not of the same run: a run ends at a gap, a snapshot, a new connection, or a row that is not ok.

    Raises
    ------
    ConfigError
        If a name is not known (it names the nearest), or the frame lacks what a feature needs; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"]).pipe(cb.rebuild_book)
    >>> cb.add_book_features(book, ["mid", "ofi_1s", "imbalance_[15]"]).collect_schema().names()[-4:]
    ['mid', 'ofi_1s', 'imbalance_1', 'imbalance_5']
    """
    levels = depth_of(check_frame(book, "book"))
    if features is None and not levels:
        raise ConfigError("the frame shows no levels (bid_price_1, ...): give rows of a book")
    chosen = choose(usual_of_book(levels) if features is None else features, BOOK, "book")
    if start is not None and not isinstance(start, BookState):
        raise ConfigError(f"start must be a BookState, not {start!r}")
    before = None if start is None else rows_before(start, levels, clock)
    return add_columns(book, chosen, book_rows(), clock=clock, before=before)


def rows_before(
    start: BookState, levels: int, clock: str = "capture_time", *, ignore_gaps: bool = False
) -> pl.DataFrame:
    """Give the rows of the book that a state ended with, by which the next rows are judged."""
    columns = {column.name: column.dtype for column in book_columns(levels)}
    rows = top_of(start, levels, ignore_gaps=ignore_gaps)
    missing = [pl.lit(None, dtype).alias(n) for n, dtype in columns.items() if n not in rows.columns]
    clocks = [pl.lit(None, columns["capture_time"]).alias(clock)] if clock not in columns else []
    return rows.with_columns(*missing, *clocks)


def add_trade_features(
    trades: pl.LazyFrame | pl.DataFrame,
    features: Names | None = None,
    *,
    at: pl.LazyFrame | pl.DataFrame | None = None,
    at_clock: str | None = None,
    holes: Holes = "restart",
    clock: Clock = "exchange",
) -> pl.LazyFrame:
    """Add features to trades, or what was traded over windows to the rows of another frame.

    A row depends on nothing that was received after it, by either clock.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Rows of ``market_trades``, each product's in the order in which they came. For effective_spread_bps
        and lee_ready with the quotes that `join_quotes` adds.
    features : str or iterable of str, optional
        Names and patterns, as in `add_book_features`. By default notional, signed_size and, of trades with
        quotes, effective_spread_bps.
    at : polars.LazyFrame or polars.DataFrame, optional
        Rows of a book, or of a grid of times: each gets the features of the trades in the window before it,
        as far as they were received by then. They must be features over windows (but not roll_spread).
        Needed are product_id, server_time and capture_time. The rows stream; the trades are held in memory.
    at_clock : str, optional
        With ``clock="receive"``, the column of the time of receipt of these rows, such as ``"sample_time"``
        of those that `sample_time` gives. (By the exchange's clock a row needs two times: that at which its
        window ends, and that by which trades were received.)
    holes : {"restart", "ignore"}
        What a missing trade_id means: trades are missing, and windows begin anew; or nothing, for trades that
        were filtered. A new connection, or a snapshot, always begins anew.
    clock : {"exchange", "receive"}
        Whose time windows are of. By the exchange's clock those of the last w are the trades with trade_time
        in (t - w, t], where t is trade_time of the row, or server_time of a row of ``at``. By the other,
        times are of receipt: capture_time, or server_time where that is null. Times may step back: the
        running maximum counts (of trade_time, in the run). A trade without one counts at that of the trade
        before.

    Returns
    -------
    polars.LazyFrame
        The rows of trades, or of ``at``, with a column for each feature: Float64, signs Int8. Over windows:
        null until the window is covered by the run, and where there is no trade in it.

    Raises
    ------
    ConfigError
        If a name is not known (it names the nearest), there is no such clock, a frame lacks what a feature
        needs, or ``at_clock`` is given with the exchange's clock; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades = cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"])
    >>> cb.add_trade_features(trades, ["vwap_10s", "tick_rule"]).collect_schema()["tick_rule"]
    Int8
    """
    schema = check_frame(trades, "market_trades")
    ignore = ignores(holes)
    usual = ["notional", "signed_size", *(["effective_spread_bps"] if "mid" in schema else [])]
    chosen = choose(usual if features is None else features, TRADES, "trade")
    time = clocks.of_windows(clock)
    if any(one.feature.terms is not None for one in chosen):
        require(schema, clocks.times("market_trades", clock), "market_trades")
    if at is not None:
        return windows_at(trades, at, chosen, ignore_holes=ignore, clock=clock, at_clock=at_clock)
    if at_clock is not None:
        raise ConfigError("at_clock is the time of the rows of at, and there is no at")
    return add_columns(trades, chosen, trade_rows(ignore_holes=ignore), clock=time)


def add_impact_features(
    intervals: pl.LazyFrame | pl.DataFrame, features: Names = ("kyle_lambda_5m", "amihud_5m")
) -> pl.LazyFrame:
    """Add measures of price impact, over windows of intervals.

    Parameters
    ----------
    intervals : polars.LazyFrame or polars.DataFrame
        From `impact_intervals`.
    features : str or iterable of str
        Names and patterns, as in `add_book_features`; windows of several intervals.

    Returns
    -------
    polars.LazyFrame
        The rows with a column for each feature, Float64, null until the window is covered by a run of
        intervals with a mid change.

    Raises
    ------
    ConfigError
        If a name is not known (it names the nearest), or the frame lacks what a feature needs; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> intervals = cb.impact_intervals(trades, cb.rebuild_book(level2, depth=1))
    >>> cb.add_impact_features(intervals, "kyle_*_1m").collect_schema().names()[-1]
    'kyle_lambda_r2_1m'
    """
    check_frame(intervals, "intervals")
    chosen = choose(features, INTERVALS, "impact")
    return add_columns(intervals, chosen, interval_rows(), clock="interval_end")
