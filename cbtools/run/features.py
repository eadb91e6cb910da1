"""The features that a run adds to its rows as they stream: to the book, and to trades by the book."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from cbtools.book.rebuilder import BookOptions
from cbtools.book.state import BookState
from cbtools.book.top import top_of
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


@dataclass
class Quotes:
    """Finds for trades the quote that prevailed when they were received, batch by batch."""

    last: pl.DataFrame

    @classmethod
    def after(cls, state: BookState | None, *, ignore_gaps: bool) -> Quotes:
        """Begin with the quotes that a state ended with."""
        book = top_of(BookState() if state is None else state, 1, ignore_gaps=ignore_gaps)
        known = quotes_of(book.lazy().with_columns(line=pl.lit(-1, pl.Int64)), "line")
        return cls(known.select(_QUOTED).collect())

    def __call__(self, trades: pl.DataFrame | None, book: pl.DataFrame) -> pl.DataFrame | None:
        """Take the next rows of both; give the trades with their quotes."""
        quotes = pl.concat([self.last, quotes_of(book.lazy(), "line").select(_QUOTED).collect()])
        self.last = quotes.unique("product_id", keep="last", maintain_order=True).with_columns(
            line=pl.lit(-1, pl.Int64)
        )
        if trades is None:
            return None
        names = [column.name for column in _QUOTE]
        joined = trades.join_asof(
            quotes, on="line", by="product_id", strategy="backward", check_sortedness=False
        )
        live = ~pl.col("is_snapshot")
        return joined.with_columns(pl.when(live).then(pl.col(name)).alias(name) for name in names)


class Features:
    """Adds features to the tables of a run's batches."""

    def __init__(self, options: BookOptions, state: BookState | None, *, of_trades: bool) -> None:
        self._of_trades = of_trades
        self._drop, ignore = options.gaps == "drop", options.gaps == "ignore"
        chosen = of_book(options)
        rows = pl.Schema({c.name: c.dtype for c in book_columns(options.depth, options.bands_bps)})
        self._book = Adder(chosen, book_rows(), rows)
        if state is not None:
            before = rows_before(state, options.depth, ignore_gaps=ignore)
            if before.height:
                self._book(before)
        self._quotes = Quotes.after(state, ignore_gaps=ignore)
        trades = pl.Schema({**schema("market_trades"), **{c.name: c.dtype for c in _QUOTE}})
        self._trades = Adder(_OF_TRADES, trade_rows(), trades)
        self._order = [column.name for column in trades_table(features=True)]

    def book(self, book: pl.DataFrame) -> pl.DataFrame:
        """Add those of the book; rows that are not ok are there until now, so that they can be told."""
        if not book.height:
            return book
        book = book.hstack(self._book(book))
        return book.filter(pl.col("book_state") == "ok") if self._drop else book

    def trades(self, trades: pl.DataFrame | None, book: pl.DataFrame) -> pl.DataFrame | None:
        """Add those of trades, which the rows of the book in the same batch are needed for."""
        quoted = self._quotes(trades, book) if self._of_trades else None
        if quoted is None or not quoted.height:
            return trades
        return quoted.hstack(self._trades(quoted)).select(self._order)
