"""Trades against the book: the quote that prevailed when a trade was received, and an audit of its side."""

from __future__ import annotations

from typing import Final

import polars as pl

from cbtools.errors import ConfigError
from cbtools.features.catalogue import span_ns
from cbtools.features.stage import check_clock, check_frame
from cbtools.schema import TIME, Column

QUOTE: Final = (
    Column(
        "best_bid",
        pl.Float64,
        "quote currency",
        "best bid of the last ok row of the book when the trade was received",
        "there is no quote",
    ),
    Column("best_bid_size", pl.Float64, "base currency", "size at the best bid", "there is no quote"),
    Column(
        "best_ask",
        pl.Float64,
        "quote currency",
        "best ask of the last ok row of the book when the trade was received",
        "there is no quote",
    ),
    Column("best_ask_size", pl.Float64, "base currency", "size at the best ask", "there is no quote"),
    Column("mid", pl.Float64, "quote currency", "middle of best bid and ask", "there is no quote"),
    Column(
        "quote_time", TIME, "ns UTC", "when the quote's row of the book was received", "there is no quote"
    ),
)
"""The columns that a prevailing quote adds to a trade."""

_BEST: Final = {
    "best_bid": "bid_price_1",
    "best_bid_size": "bid_size_1",
    "best_ask": "ask_price_1",
    "best_ask_size": "ask_size_1",
}
_BOOK: Final = ("product_id", *_BEST.values(), "book_state")
_TRADES: Final = ("product_id", "is_snapshot")
_KEY, _INDEX = "__time", "__index"


def quotes_of(book: pl.LazyFrame, clock: str) -> pl.LazyFrame:
    """Give the rows of a book that tell a quote, or that there is none: proven no more, all are null.

    Crossed, one-sided and empty books are passed over: the last quote stands until there is a new one.
    """
    tells = pl.col("book_state").is_in(["ok", "unproven"])
    is_ok = pl.col("book_state") == "ok"
    quote = {name: pl.when(is_ok).then(pl.col(level)) for name, level in _BEST.items()}
    mid = pl.when(is_ok).then((pl.col("ask_price_1") + pl.col("bid_price_1")) / 2.0)
    time = pl.when(is_ok).then(pl.col(clock))
    return book.filter(tells).with_columns(**quote, mid=mid, quote_time=time)


def join_quotes(
    trades: pl.LazyFrame | pl.DataFrame,
    book: pl.LazyFrame | pl.DataFrame,
    *,
    tolerance: str | None = None,
    clock: str = "capture_time",
    book_clock: str | None = None,
) -> pl.LazyFrame:
    """Join to each trade the quote that prevailed: the last ok row of its product's book at or before it.

    After a row that is unproven there is no quote until the book is ok again; a crossed or one-sided row is
    passed over. Trades of snapshots, which happened before they were received, get none. The frames are held
    in memory while the query runs (an as-of join); `run_segment` does the same as it streams.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Rows of ``market_trades``.
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, of whatever depth, each product's in the order in which they came.
    tolerance : str, optional
        How old a quote may be, as ``"5s"``.
    clock : str
        The trades' time by which "before" is told.
    book_clock : str, optional
        The book's; by default the same. Coinbase sends trades in batches of 250 ms, in which time the book
        has gone on: by their receipt, trades meet a quote that they may have made. ``clock="trade_time",
        book_clock="server_time"`` finds the quote that the exchange had sent before the trade happened. Where
        the book's time steps back, its running maximum counts.

    Returns
    -------
    polars.LazyFrame
        The trades in their order, with best_bid, best_ask, mid (Float64, quote currency), best_bid_size,
        best_ask_size (Float64, base currency) and quote_time (the clock of the book's row), null where there
        is no quote.

    Raises
    ------
    ConfigError
        If a frame lacks a column, or tolerance is no time span; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> quoted = cb.join_quotes(trades, cb.rebuild_book(level2, depth=1, on="bbo"))
    >>> quoted.select(pl.col("mid").count() > 1000).collect().item()
    True
    """
    schemas = check_frame(trades, "market_trades"), check_frame(book, "book")
    book_clock = clock if book_clock is None else book_clock
    for schema, time, what, needed in zip(
        schemas, (clock, book_clock), ("market_trades", "book"), (_TRADES, _BOOK), strict=True
    ):
        check_clock(schema, time, what)
        require(schema, needed, what)
    if schemas[0][clock] != schemas[1][book_clock]:
        raise ConfigError(
            f"{clock} of the trades is {schemas[0][clock]}, and {book_clock} of the book "
            f"{schemas[1][book_clock]}: cast one of them"
        )
    oldest = None if tolerance is None else span_ns(tolerance)
    names = [column.name for column in QUOTE]
    quotes = (
        quotes_of(_by_time(book, book_clock), book_clock)
        .select("product_id", _KEY, *names)
        .sort(_KEY, maintain_order=True)
    )
    live = trades.lazy().drop(names, strict=False).with_row_index(_INDEX)
    joined = live.sort(clock, maintain_order=True).join_asof(
        quotes, left_on=clock, right_on=_KEY, by="product_id", strategy="backward", check_sortedness=False
    )
    known = ~pl.col("is_snapshot") & pl.col(clock).is_not_null()
    if oldest is not None:
        known &= (pl.col(clock) - pl.col("quote_time")).dt.total_nanoseconds() <= oldest
    return (
        joined.with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in names)
        .sort(_INDEX)
        .drop(_INDEX, _KEY, strict=False)
    )


def _by_time(frame: pl.LazyFrame | pl.DataFrame, clock: str) -> pl.LazyFrame:
    """Add the time that counts: the running maximum of the product's clock. Rows without one are left out."""
    known = frame.lazy().filter(pl.col(clock).is_not_null())
    return known.with_columns(pl.col(clock).cum_max().over("product_id").alias(_KEY))


def require(schema: pl.Schema, columns: tuple[str, ...], what: str) -> None:
    """Refuse a frame that lacks a column."""
    for name in columns:
        if name not in schema:
            raise ConfigError(f"the {what} frame lacks the column {name}: it has {', '.join(schema)}")


def side_audit(trades: pl.LazyFrame | pl.DataFrame, *, clock: str = "capture_time") -> pl.LazyFrame:
    """Tell how often the aggressor's side agrees with the quote before the trade.

    A buyer pays more than mid, and a seller gets less. If `maker_side` were taken for the aggressor's, nearly
    no trade would agree.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Trades with quotes, from `join_quotes`. Those of snapshots are left out.
    clock : str
        The time whose UTC day they are counted under.

    Returns
    -------
    polars.LazyFrame
        A row a product and day, in the order of the trades: product_id; date; n_trades; n_quoted, those with
        a quote; n_at_mid, those at mid, which tell nothing; n_agree (all UInt32); and agreement (Float64),
        n_agree over n_quoted - n_at_mid, null if that is 0.

    Raises
    ------
    ConfigError
        If the frame lacks a column; at once.

    References
    ----------
    Lee & Ready 1991.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> by_the_exchange = {"clock": "trade_time", "book_clock": "server_time"}
    >>> quoted = cb.join_quotes(trades, cb.rebuild_book(level2, depth=1), **by_the_exchange)
    >>> cb.side_audit(quoted).select(pl.col("agreement").min() > 0.95).collect().item()
    True
    """
    schema = check_frame(trades, "market_trades")
    check_clock(schema, clock, "market_trades")
    require(schema, ("product_id", "price", "aggressor_side", "is_snapshot", "mid"), "market_trades")
    beyond = (pl.col("price") - pl.col("mid")).sign()
    side = pl.when(pl.col("aggressor_side") == "buy").then(1.0).otherwise(-1.0)
    told = pl.col("n_quoted") - pl.col("n_at_mid")
    return (
        trades.lazy()
        .filter(~pl.col("is_snapshot"))
        .group_by("product_id", pl.col(clock).dt.date().alias("date"), maintain_order=True)
        .agg(
            pl.len().alias("n_trades"),
            pl.col("mid").count().alias("n_quoted"),
            (beyond == 0.0).sum().alias("n_at_mid"),
            (beyond == side).sum().alias("n_agree"),
        )
        .with_columns(agreement=pl.when(told > 0).then(pl.col("n_agree") / told))
    )
