"""The features that a run adds to its rows as they stream: to the book, and to trades."""

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
from cbtools.features.stage import Adder
from cbtools.features.trades import trade_rows
from cbtools.schema import Column, book_columns, columns, schema

_OF_TRADES: Final = choose(["notional", "signed_size"], TRADES, "trade")
"""Of one trade alone: which quote it met is the reader's to choose, by the clock of `cbtools.join_quotes`."""


def of_book(options: BookOptions) -> list[Chosen]:
    """Choose the features of a book. Between rows of the best alone, deeper levels change unseen."""
    return choose(usual_of_book(options.depth, deep_flow=options.on != "bbo"), BOOK, "book")


def book_table(options: BookOptions, *, features: bool) -> tuple[Column, ...]:
    """Give the columns of the book's table."""
    more = tuple(chosen.column for chosen in of_book(options)) if features else ()
    return (*book_columns(options.depth, options.bands_bps), *more)


def trades_table(*, features: bool) -> tuple[Column, ...]:
    """Give the columns of the table of trades."""
    more = tuple(chosen.column for chosen in _OF_TRADES) if features else ()
    return (*columns("market_trades"), *more)


class Features:
    """Adds features to the tables of a run's batches."""

    def __init__(self, options: BookOptions, state: BookState | None, *, of_trades: bool) -> None:
        self._of_trades = of_trades
        ignore = options.gaps == "ignore"
        chosen = of_book(options)
        rows = pl.Schema({c.name: c.dtype for c in book_columns(options.depth, options.bands_bps)})
        self._book = Adder(chosen, book_rows(), rows)
        before = rows_before(BookState() if state is None else state, options.depth, ignore_gaps=ignore)
        if before.height:
            self._book(before)
        self._trades = Adder(_OF_TRADES, trade_rows(), schema("market_trades"))

    def __call__(self, tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        """Take the next batch's tables; give them with the features of the book and of trades."""
        made, book, trades = dict(tables), tables.get("book"), tables.get("market_trades")
        if self._of_trades and trades is not None:
            made["market_trades"] = trades.hstack(self._trades(trades))
        if book is not None:
            made["book"] = book.hstack(self._book(book))
        return made
