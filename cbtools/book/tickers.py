"""The feed's own proof of the book: its tickers name a best bid and ask."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

import polars as pl

from cbtools.book.report import Tickers

BOOK: Final = ("product_id", "line", "bid_price_1", "ask_price_1", "book_state")
"""Columns of the book that are compared; of a row a message."""
TICKER: Final = ("product_id", "line", "best_bid", "best_ask")

_KEY: Final = "product_id"


class Agreement:
    """Compares tickers with the book after the last row before them, over the batches of a reading."""

    def __init__(self) -> None:
        self._last: pl.DataFrame | None = None
        self._tickers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._agreeing: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, book: pl.DataFrame, tickers: pl.DataFrame | None) -> None:
        """Take the rows of the same lines: of the book, and of the tickers, if there are any."""
        if self._last is not None:
            book = pl.concat([self._last, book])
        if book.is_empty():
            return
        if tickers is not None:
            self._compare(book, tickers.drop_nulls(("best_bid", "best_ask")))
        before_all = pl.lit(0, pl.Int64).alias("line")  # of the next lines: their numbers may start anew
        self._last = book.unique(_KEY, keep="last", maintain_order=True).with_columns(before_all)

    def _compare(self, book: pl.DataFrame, tickers: pl.DataFrame) -> None:
        beside = tickers.sort("line").join_asof(
            book.sort("line"), on="line", by=_KEY, strategy="backward", check_sortedness=False
        )
        agrees = (pl.col("best_bid") == pl.col("bid_price_1")) & (pl.col("best_ask") == pl.col("ask_price_1"))
        counts = (
            beside.drop_nulls("book_state")
            .group_by(_KEY, pl.col("book_state").cast(pl.String))
            .agg(pl.len(), agrees.fill_null(False).sum().alias("agreeing"))
        )
        for product, state, n, agreeing in counts.iter_rows():
            self._tickers[product][state] += n
            self._agreeing[product][state] += agreeing

    def found(self) -> Tickers:
        """Give what was found so far."""
        return {
            product: {state: (n, self._agreeing[product][state]) for state, n in counts.items()}
            for product, counts in self._tickers.items()
        }
