"""The catalogue: every feature there is, whichever function makes it."""

from __future__ import annotations

from typing import Final

import polars as pl

from cbtools.features import depth, flow, impact, touch, trades, volatility
from cbtools.features.catalogue import Feature

MADE_BY_REBUILD: Final = tuple(
    Feature(name, "book", definition, unit, "", usual, null)
    for name, definition, unit, usual, null in (
        ("n_bids", "bid levels in the whole book", "levels", ("n_bids",), ""),
        ("n_asks", "ask levels in the whole book", "levels", ("n_asks",), ""),
        ("bid_depth_{x}bps", "Σ size of all bids at most x bps from mid: rebuild_book(bands_bps=[x])",
         "base currency", (), "book_state is not ok"),
        ("ask_depth_{x}bps", "Σ size of all asks at most x bps from mid: rebuild_book(bands_bps=[x])",
         "base currency", (), "book_state is not ok"),
        ("imbalance_{x}bps", "(B - A) / (B + A) of these: rebuild_book(bands_bps=[x])",
         "", (), "book_state is not ok, or both are 0"),
    )
)  # fmt: skip
"""Features of the full book, which `rebuild_book` makes, since they need every level."""

BOOK: Final = (
    *touch.FEATURES,
    *depth.FEATURES,
    *MADE_BY_REBUILD,
    *flow.FEATURES,
    *volatility.FEATURES,
)
TRADES: Final = trades.FEATURES
INTERVALS: Final = impact.FEATURES
EVERY: Final = (*BOOK, *TRADES, *INTERVALS)


def catalogue() -> pl.DataFrame:
    """List all features.

    Returns
    -------
    polars.DataFrame
        A row a feature: ``name``, with its parameters in braces; ``table`` that it is of; ``definition``;
        ``unit``; ``looks_ahead`` (Boolean): only labels do; ``source``.

    Examples
    --------
    >>> import cbtools as cb
    >>> cb.catalogue().filter(name="ofi")["source"].item()
    'Cont, Kukanov & Stoikov 2014'
    """
    columns = ("name", "table", "definition", "unit", "looks_ahead", "source")
    rows = [tuple(getattr(feature, column) for column in columns) for feature in EVERY]
    types = {column: pl.Boolean if column == "looks_ahead" else pl.String for column in columns}
    return pl.DataFrame(rows, schema=types, orient="row")
