"""The features that a run adds to its rows as they stream: to the book, and to trades by the book."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from cbtools.book.rebuilder import BookOptions
from cbtools.book.state import BookState
from cbtools.features.add import rows_before, usual_of_book
from cbtools.features.catalogue import Chosen, choose
from cbtools.features.flow import book_rows
from cbtools.features.listing import BOOK, TRADES
from cbtools.features.quotes import QUOTE, quotes_of
from cbtools.features.stage import Adder
from cbtools.features.trades import trade_rows
from cbtools.schema import Column, book_columns, columns, schema

_QUOTE: Final = tuple(column for column in QUOTE if column.name != "quote_time")
"""A state does not tell when its last quote came, and the cut of the input must not change a column."""
_QUOTED: Final = ("product_id", "line", *(column.name for column in _QUOTE))
_OF_BOOK: Final = (
    *("product_id", "line", "book_state"),
    *("bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1"),
)
_LIVE: Final = tuple(
    pl.when(~pl.col("is_snapshot")).then(pl.col(column.name)).alias(column.name) for column in _QUOTE
)
"""The quote's columns, but not of trades in a snapshot: they happened before."""
_OF_TRADES: Final = choose(["notional", "signed_size", "effective_spread_bps"], TRADES, "trade")


def of_book(options: BookOptions) -> list[Chosen]:
    """Choose the features of a book. Between rows of the best alone, deeper levels change unseen."""
    return choose(usual_of_book(options.depth, deep_flow=options.on != "bbo"), BOOK, "book")


def book_table(options: BookOptions, *, features: bool) -> tuple[Column, ...]:
    """Give the columns of the book's table."""
    more = tuple(chosen.column for chosen in of_book(options)) if features else ()
    return (*book_columns(options.depth, options.bands_bps), *more)


def trades_table(*, features: bool) -> tuple[Column, ...]:
    """Give the columns of the table of trades."""
    plain = columns("market_trades")
    if not features:
        return plain
    first, second, third = (chosen.column for chosen in _OF_TRADES)
    return (*plain, first, second, *_QUOTE, third)


class Quotes:
    """Finds for trades the quote that prevailed when they were received, batch by batch.

    It begins with the quotes of ``before``, the rows of the book that a state ended with.
    """

    def __init__(self, before: pl.DataFrame) -> None:
        known = quotes_of(before.lazy().select(_OF_BOOK).with_columns(line=pl.lit(-1, pl.Int64)), "line")
        self._last = known.select(_QUOTED).collect()

    def __call__(self, trades: pl.DataFrame | None, book: pl.DataFrame | None) -> pl.DataFrame | None:
        """Take a batch's trades and rows of the book; give the trades with the quotes before them."""
        quotes = self._last
        if book is not None:
            shown = pl.DataFrame([book[name] for name in _OF_BOOK])  # a query over all columns is slower
            new = quotes_of(shown.lazy(), "line").select(_QUOTED).collect()
            quotes = pl.concat([quotes, new])
            self._last = _newest(quotes).with_columns(line=pl.lit(-1, pl.Int64))
        if trades is None:
            return None
        joined = trades.lazy().join_asof(
            quotes.lazy(), on="line", by="product_id", strategy="backward", check_sortedness=False
        )
        return joined.with_columns(_LIVE).collect()


def _newest(quotes: pl.DataFrame) -> pl.DataFrame:
    """Give each product's last row."""
    product = quotes["product_id"]
    if quotes.is_empty() or (product == product[0]).all():
        return quotes.tail(1)
    return quotes.unique("product_id", keep="last", maintain_order=True)


class Features:
    """Adds features to the tables of a run's batches."""

    def __init__(self, options: BookOptions, state: BookState | None, *, of_trades: bool) -> None:
        self._of_trades = of_trades
        self._drop, ignore = options.gaps == "drop", options.gaps == "ignore"
        chosen = of_book(options)
        rows = pl.Schema({c.name: c.dtype for c in book_columns(options.depth, options.bands_bps)})
        self._book = Adder(chosen, book_rows(), rows)
        before = rows_before(BookState() if state is None else state, options.depth, ignore_gaps=ignore)
        if before.height:
            self._book(before)
        self._quotes = Quotes(before)
        trades = pl.Schema({**schema("market_trades"), **{c.name: c.dtype for c in _QUOTE}})
        self._trades = Adder(_OF_TRADES, trade_rows(), trades)
        self._order = [column.name for column in trades_table(features=True)]

    def __call__(self, tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        """Take the next batch's tables; give them with the features of the book and of trades."""
        made, book, trades = dict(tables), tables.get("book"), tables.get("market_trades")
        if self._of_trades:
            quoted = self._quotes(trades, book)
            if quoted is not None:
                made["market_trades"] = quoted.hstack(self._trades(quoted)).select(self._order)
        if book is not None:
            made["book"] = self._with_features(book)
        return made

    def _with_features(self, book: pl.DataFrame) -> pl.DataFrame:
        book = book.hstack(self._book(book))
        # until now they are there, so that it can be told what follows what
        return book.filter(pl.col("book_state") == "ok") if self._drop else book
