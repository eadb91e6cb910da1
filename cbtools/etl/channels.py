"""The processors of one channel's rows: the book of level2, features of trades, what a ticker tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from cbtools.book.rebuild import rebuild_book
from cbtools.book.rebuilder import BookOptions
from cbtools.errors import ConfigError
from cbtools.etl.processors import BaseProcessor
from cbtools.features.add import add_book_features, add_trade_features
from cbtools.schema import BOOK_DEPTH

DERIVED: Final = ("mid", "spread", "spread_bps")
"""What ``add_derived_fields`` adds to a book."""


def _switches(**options: object) -> None:
    for name, value in options.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, not {value!r}")


@dataclass(frozen=True)
class Level2Processor(BaseProcessor):
    """Rebuilds the order book from rows of ``level2``, and adds features to it.

    Counted are ``records_processed`` and ``records_output``.

    Parameters
    ----------
    reconstruct_lob : bool
        Give the rows of the book, by `cbtools.rebuild_book`. False, and no features: the rows as they are.
    compute_features : bool
        Add the usual features, by `cbtools.add_book_features`; the book is then rebuilt, too. A frame that is
        a book already gets them as it is.
    add_derived_fields : bool
        Add mid, spread and spread_bps to the book. (Of one change of a level nothing can be derived.)
    max_levels : int
        Levels of a side that a row of the book shows.

    Raises
    ------
    ConfigError
        If an argument cannot be meant.

    Examples
    --------
    >>> import cbtools as cb
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"])
    >>> book = Level2Processor(reconstruct_lob=True, max_levels=1)(level2)
    >>> book.collect_schema().names()[-3:]
    ['mid', 'spread', 'spread_bps']
    """

    reconstruct_lob: bool = False
    compute_features: bool = False
    add_derived_fields: bool = True
    max_levels: int = BOOK_DEPTH

    def __post_init__(self) -> None:
        _switches(
            reconstruct_lob=self.reconstruct_lob,
            compute_features=self.compute_features,
            add_derived_fields=self.add_derived_fields,
        )
        BookOptions(self.max_levels, "message", "mark", ())

    @property
    def rebuilds(self) -> bool:
        """Whether it makes a book of changes of levels."""
        return self.reconstruct_lob or self.compute_features

    def process(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Rebuild the book and add what is asked for.

        Parameters
        ----------
        frame : polars.LazyFrame
            Rows of ``level2`` as `cbtools.rebuild_book` takes them, or of a book.

        Returns
        -------
        polars.LazyFrame

        Raises
        ------
        ConfigError
            If the frame lacks a column.
        """
        if "book_state" in frame.collect_schema():
            book = frame
        elif self.rebuilds:
            book = rebuild_book(frame, depth=self.max_levels)
        else:
            return frame
        if self.compute_features:  # mid, spread and spread_bps are among them
            return add_book_features(book)
        return add_book_features(book, DERIVED) if self.add_derived_fields else book


@dataclass(frozen=True)
class TradesProcessor(BaseProcessor):
    """Adds features to rows of ``market_trades``, by `cbtools.add_trade_features`.

    Counted are ``records_processed`` and ``records_output``.

    Parameters
    ----------
    add_derived_fields : bool
        Add notional and signed_size, and of trades with quotes effective_spread_bps.
    infer_aggressor : bool
        Kept for code that was written for the earlier package: the column aggressor_side is there in either
        case, known from the side of the maker.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades = cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"])
    >>> TradesProcessor()(trades).collect_schema().names()[-2:]
    ['notional', 'signed_size']
    """

    add_derived_fields: bool = True
    infer_aggressor: bool = False

    def __post_init__(self) -> None:
        _switches(add_derived_fields=self.add_derived_fields, infer_aggressor=self.infer_aggressor)

    def process(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Add the features.

        Parameters
        ----------
        frame : polars.LazyFrame
            Rows of ``market_trades``.

        Returns
        -------
        polars.LazyFrame

        Raises
        ------
        ConfigError
            If the frame lacks a column.
        """
        return add_trade_features(frame) if self.add_derived_fields else frame


@dataclass(frozen=True)
class TickerProcessor(BaseProcessor):
    """Adds to rows of ``ticker`` what follows from them.

    These are Float64: ``mid``, (bid + ask) / 2, ``spread``, ask - bid, and ``spread_bps``, of mid, null where
    a price is, or where they are crossed or locked; ``range_24h``, high_24h - low_24h, and ``range_24h_pct``,
    in % of low_24h, null where one of them is, or low_24h is not above 0 (the latter).

    Counted are ``records_processed`` and ``records_output``.

    Parameters
    ----------
    add_derived_fields : bool
        Whether to add them.

    Examples
    --------
    >>> day = {"low_24h": [80.0], "high_24h": [100.0]}
    >>> tickers = pl.DataFrame({"best_bid": [99.0], "best_ask": [101.0], **day})
    >>> TickerProcessor()(tickers).drop(tickers.columns).collect().row(0)
    (100.0, 2.0, 200.0, 20.0, 25.0)
    """

    add_derived_fields: bool = True

    def __post_init__(self) -> None:
        _switches(add_derived_fields=self.add_derived_fields)

    def process(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Add the columns.

        Parameters
        ----------
        frame : polars.LazyFrame
            Rows of ``ticker``.

        Returns
        -------
        polars.LazyFrame

        Raises
        ------
        ConfigError
            If the frame lacks a column.
        """
        if not self.add_derived_fields:
            return frame
        known = frame.collect_schema()
        if missing := [name for name in _OF_TICKER if name not in known]:
            raise ConfigError(f"the frame lacks {', '.join(missing)}: give rows of ticker")
        bid, ask, low, high = (pl.col(name) for name in _OF_TICKER)
        mid, spread, day = (bid + ask) / 2, ask - bid, high - low
        quoted = {"mid": mid, "spread": spread, "spread_bps": 1e4 * spread / mid}
        return frame.with_columns(
            *(pl.when(bid < ask).then(value).alias(name) for name, value in quoted.items()),
            day.alias("range_24h"),
            pl.when(low > 0).then(100 * day / low).alias("range_24h_pct"),
        )


_OF_TICKER: Final = ("best_bid", "best_ask", "low_24h", "high_24h")
