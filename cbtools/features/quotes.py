"""Trades against the book: the quote that prevailed at a trade, and an audit of the trade's side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, warn
from cbtools.features import clock as clocks
from cbtools.features.clock import Clock
from cbtools.features.links import NO_TIME, Products, order_of, times_of
from cbtools.features.stage import check_frame
from cbtools.lazy import source, values_of
from cbtools.schema import BOOK_STATE, TIME, Column
from cbtools.spans import span_ns

I64 = npt.NDArray[np.int64]

_NO_QUOTE: Final = "there is no quote"
QUOTE: Final = (
    Column("best_bid", pl.Float64, "quote currency", "best bid of the prevailing quote", _NO_QUOTE),
    Column("best_bid_size", pl.Float64, "base currency", "size at the best bid", _NO_QUOTE),
    Column("best_ask", pl.Float64, "quote currency", "best ask of the prevailing quote", _NO_QUOTE),
    Column("best_ask_size", pl.Float64, "base currency", "size at the best ask", _NO_QUOTE),
    Column("mid", pl.Float64, "quote currency", "middle of best bid and ask", _NO_QUOTE),
    Column(
        "quote_time",
        TIME,
        "ns UTC",
        "server_time of the quote's row of the book; with clock='receive', when it was received",
        f"{_NO_QUOTE}, or its row has no server_time",
    ),
)
"""The columns that a prevailing quote adds to a trade."""

_BEST: Final = {
    "best_bid": "bid_price_1",
    "best_bid_size": "bid_size_1",
    "best_ask": "ask_price_1",
    "best_ask_size": "ask_size_1",
}
_TIMES: Final = frozenset({"trade_time", "server_time", "capture_time"})
MOST_PAST: Final = 0.25
"""A recording begins with trades of snapshots: of so large a share there is a warning."""
FOUND_BY: Final = ("product_id", "book_state", "server_time", "capture_time")
"""The columns of a book by which the row is found that prevailed at a trade."""
FOUND_FOR: Final = ("product_id", "is_snapshot", "trade_time", "server_time", "capture_time")
"""The columns of trades for which it is found."""


class Found(NamedTuple):
    """Of each trade the place of its quote in the book, -1 if there is none; and the trade's time."""

    places: I64
    happened: I64


class Prevailing:
    """Finds the row of a book that is the quote of each trade, batch by batch.

    The whole book is given at once; each product's rows and trades are in the order in which they came.
    """

    def __init__(self, book: pl.DataFrame, clock: Clock) -> None:
        from cbtools._kernels import quotes as kernels

        self._kernels, self._by_receipt = kernels, clock == "receive"
        self._products, products = Products(), Products()
        self._codes: I64 = np.zeros(0, np.int64)  # of the book, by those of trades
        codes = products(book)
        self._names = products.names
        counts = np.bincount(codes, minlength=len(self._names))
        ends = np.cumsum(counts)
        self._kept = np.full((len(counts), 5), NO_TIME)
        self._kept[:, kernels.BEGIN] = self._kept[:, kernels.NEXT] = ends - counts
        self._kept[:, kernels.END], self._kept[:, kernels.TOP] = ends, 0
        self._order = order_of(codes)
        self._state = self._state_of(book)[self._order]
        self._received = times_of(book, *clocks.RECEIVED)[self._order]
        self._sent = times_of(book, "server_time")[self._order]
        kernels.lay(self._kept, self._state, self._received, self._sent, self._by_receipt)
        self._stack = np.empty(book.height, np.int64)

    def _state_of(self, book: pl.DataFrame) -> npt.NDArray[np.int8]:
        kernels, state = self._kernels, book["book_state"]
        kind = np.full(book.height, kernels.NO_QUOTE, np.int8)
        for name, value in (("unproven", kernels.BREAK), ("ok", kernels.QUOTE)):
            kind[(state == name).fill_null(value=False).to_numpy()] = value
        return kind

    def __call__(self, trades: pl.DataFrame, oldest: int | None = None) -> Found:
        """Find the quotes of the next trades.

        ``oldest`` is how old it may be, ns. A quote whose age is not known is too old.
        """
        received, happened = (times_of(trades, *names).copy() for names in (clocks.RECEIVED, ["trade_time"]))
        out = np.empty(trades.height, np.int64)
        wanted = ~pl.col("is_snapshot").fill_null(value=False)
        if not self._by_receipt:
            wanted &= ~clocks.is_late().fill_null(value=False)
        self._kernels.prevailing(
            self._codes_of(trades), trades.select(wanted).to_series().to_numpy(), received, happened,
            self._by_receipt, self._kept, self._state, self._received, self._sent, self._stack, out,
        )  # fmt: skip
        if oldest is not None:
            known = np.flatnonzero(out >= 0)
            sent = self._sent[out[known]]
            out[known[happened[known] - sent > oldest]] = -1
        found = out >= 0
        out[found] = self._order[out[found]]
        return Found(out, happened)

    def _codes_of(self, trades: pl.DataFrame) -> I64:
        """Return the book's code of each trade's product, -1 if it has no book."""
        codes, names = self._products(trades), self._products.names
        if len(names) > len(self._codes):
            self._codes = np.array([self._names.get(name, -1) for name in names], np.int64)
        return self._codes[codes]


def join_quotes(
    trades: pl.LazyFrame | pl.DataFrame,
    book: pl.LazyFrame | pl.DataFrame,
    *,
    tolerance: str | None = None,
    clock: Clock = "exchange",
) -> pl.LazyFrame:
    """Join to each trade the quote that prevailed: the best bid and ask that it met.

    By the exchange's clock this is the last row of the product's book with server_time <= trade_time, of the
    rows received at or before the trade and since the last break (a row that is unproven) received by then.
    It depends on nothing received after the trade. Coinbase sends trades in batches of 250 ms and books every
    50 ms: by the time that a trade is received, the book shows what came after it.

    The trades stream. Of the book the best levels are held in memory while the query runs.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Rows of ``market_trades``, each product's in the order in which they came.
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, of whatever depth, each product's in the order in which they came, rows that are not
        ok included.
    tolerance : str, optional
        How old a quote may be, as ``"5s"``, by the clock.
    clock : {"exchange", "receive"}
        ``"receive"``: the last row of the book received at or before the trade. The time of receipt is
        capture_time, or server_time where that is null; its running maximum counts, since the local clock may
        step back.

    Returns
    -------
    polars.LazyFrame
        The trades in their order, with best_bid, best_ask, mid (Float64, quote currency), best_bid_size,
        best_ask_size (Float64, base currency) and quote_time: server_time of the quote's row, or with
        ``clock="receive"`` when it was received. They are null where that row is not ok, or there is none
        since the last break; for trades of snapshots, and those without a time; and by the exchange's clock
        for trades that were sent more than 5 s after they happened. A row of the book without server_time
        counts at that of the row before it; if none since the break has one, it is never the quote, since it
        may have been sent after the trade.

    Raises
    ------
    ConfigError
        If a frame lacks a column, tolerance is no time span, or there is no such clock; at once.

    Warns
    -----
    CbtoolsWarning
        If more than a quarter of the trades came in snapshots, when the query has run.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> quoted = cb.join_quotes(trades, cb.rebuild_book(level2, depth=1))
    >>> spread = cb.add_trade_features(quoted, "effective_spread_bps").select("effective_spread_bps")
    >>> spread.min().collect().item() >= 0.0
    True
    """
    schema, of_book = check_frame(trades, "market_trades"), check_frame(book, "book")
    clocks.check_name(clock)
    require(schema, FOUND_FOR, "market_trades")
    require(of_book, (*FOUND_BY, *_BEST.values()), "book")
    oldest = None if tolerance is None else span_ns(tolerance)
    names = [column.name for column in QUOTE]
    kept_schema = {name: dtype for name, dtype in schema.items() if name not in names}
    made = pl.Schema({**kept_schema, **{column.name: column.dtype for column in QUOTE}})

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        rows, of_rows = of_asked(trades.lazy(), predicate), of_asked(book.lazy(), predicate)
        kept = [name for name in columns if name not in names]
        if len(kept) == len(columns):
            yield from rows.select(columns).collect_batches(maintain_order=True)
            return
        held = of_rows.select(*FOUND_BY, *_BEST.values()).collect()
        find, quotes = Prevailing(held, clock), _quotes(held, clock)
        del held
        needed = [name for name in schema if name in {*kept, *FOUND_FOR}]
        past, of = 0, 0
        for batch in rows.select(needed).collect_batches(maintain_order=True):
            past, of = past + int(batch["is_snapshot"].sum()), of + batch.height
            places = find(batch, oldest).places
            index = pl.Series(places).set(pl.Series(places < 0), None)
            yield batch.with_columns(quotes.select(pl.all().gather(index))).select(columns)
        if past > MOST_PAST * of:
            warn(
                f"join_quotes: {past:,} of {of:,} trades came in snapshots, after they happened, and have no "
                "quote: filter by is_snapshot to leave them out of what is counted"
            )

    return source(batches, made, "QUOTES of market_trades")


def of_asked(rows: pl.LazyFrame, predicate: pl.Expr | None) -> pl.LazyFrame:
    """Return the rows of the products that a query's predicate asks for, as far as it says so."""
    products = None if predicate is None else values_of(predicate, "product_id")
    return rows if products is None else rows.filter(pl.col("product_id").is_in(sorted(products)))


def _quotes(book: pl.DataFrame, clock: Clock) -> pl.DataFrame:
    """Return the columns of the quote that each row of a book would be."""
    mid = (pl.col("ask_price_1").cast(pl.Float64) + pl.col("bid_price_1").cast(pl.Float64)) / 2.0
    time = pl.col("server_time") if clock == "exchange" else clocks.received()
    best = [pl.col(level).cast(pl.Float64).alias(name) for name, level in _BEST.items()]
    return book.select(*best, mid.alias("mid"), time.cast(TIME).alias("quote_time"))


def require(schema: pl.Schema, columns: tuple[str, ...], what: str) -> None:
    """Raise an error if a frame lacks a column, or has a time or a state that cannot be compared."""
    for name in columns:
        if name not in schema:
            raise ConfigError(f"the {what} frame lacks the column {name}: it has {', '.join(schema)}")
        dtype = schema[name]
        if name in _TIMES and not (isinstance(dtype, pl.Datetime) and dtype.time_zone == "UTC"):
            raise ConfigError(f"{name} of the {what} frame must be {TIME}, not {dtype}: cast it")
        if name == "book_state" and dtype not in (BOOK_STATE, pl.String):
            raise ConfigError(f"{name} of the {what} frame must be {BOOK_STATE}, not {dtype}: cast it")


def side_audit(trades: pl.LazyFrame | pl.DataFrame, *, clock: Clock = "exchange") -> pl.LazyFrame:
    """Count how often the aggressor's side agrees with the quote of the trade.

    A buyer pays more than mid, and a seller gets less. If `maker_side` were taken for the aggressor's, nearly
    no trade would agree.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Trades with quotes, from `join_quotes`. Those of snapshots are left out.
    clock : {"exchange", "receive"}
        The clock by whose UTC day they are counted: that of trade_time, or of the time of receipt.

    Returns
    -------
    polars.LazyFrame
        One row per product and day, in the order of the trades: product_id; date; n_trades; n_late, those
        sent more than 5 s after they happened, which have no quote by the exchange's clock; n_quoted, those
        with a quote; n_at_mid, those at mid, which tell nothing; n_agree (all UInt32); and agreement
        (Float64), n_agree over n_quoted - n_at_mid, null if that is 0.

    Raises
    ------
    ConfigError
        If the frame lacks a column, or there is no such clock; at once.

    References
    ----------
    Lee & Ready 1991.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> quoted = cb.join_quotes(trades, cb.rebuild_book(level2, depth=1))
    >>> cb.side_audit(quoted).select(pl.col("agreement").min() > 0.95).collect().item()
    True
    """
    schema = check_frame(trades, "market_trades")
    clocks.check_name(clock)
    require(schema, (*FOUND_FOR, "price", "aggressor_side", "mid"), "market_trades")
    time = pl.col("trade_time") if clock == "exchange" else clocks.received()
    beyond = (pl.col("price") - pl.col("mid")).sign()
    side = pl.when(pl.col("aggressor_side") == "buy").then(1.0).otherwise(-1.0)
    told = pl.col("n_quoted") - pl.col("n_at_mid")
    return (
        trades.lazy()
        .with_columns(date=time.dt.date())
        .filter(~pl.col("is_snapshot"))
        .group_by("product_id", "date", maintain_order=True)
        .agg(
            pl.len().alias("n_trades"),
            clocks.is_late().sum().alias("n_late"),
            pl.col("mid").count().alias("n_quoted"),
            (beyond == 0.0).sum().alias("n_at_mid"),
            (beyond == side).sum().alias("n_agree"),
        )
        .with_columns(agreement=pl.when(told > 0).then(pl.col("n_agree") / told))
    )
