"""The catalogue: every feature there is, whichever function makes it."""

from __future__ import annotations

from typing import Final

import polars as pl

from cbtools.features import (
    depth,
    flow,
    impact,
    integrated,
    labels,
    touch,
    toxicity,
    trades,
    volatility,
)
from cbtools.features.catalogue import Feature

VPIN: Final = Feature(
    "vpin",
    "bars",
    "mean of |Vb - Vs| / V over the last n buckets of volume V: vpin(bucket_volume, n_buckets, classify)",
    "",
    "Easley, López de Prado & O'Hara 2012",
    (),
    toxicity.VPIN.null,
)

_NOT_OK: Final = "book_state is not ok"
MADE_BY_REBUILD: Final = tuple(
    Feature(name, "book", f"{definition}: rebuild_book", unit, "", (), null)
    for name, definition, unit, null in (
        ("n_bids", "bid levels in the whole book", "levels", ""),
        ("n_asks", "ask levels in the whole book", "levels", ""),
        ("bid_depth_{x}bps", "Σ size of all bids at most x bps from mid", "base currency", _NOT_OK),
        ("ask_depth_{x}bps", "Σ size of all asks at most x bps from mid", "base currency", _NOT_OK),
        ("imbalance_{x}bps", "(B - A) / (B + A) of these", "", f"{_NOT_OK}, or both are 0"),
    )
)
"""Features of the full book, which are made while it is rebuilt, since they need every level."""

_NO_FLOW: Final = f"{_NOT_OK}, the row before is not of the same run, or the level is not seen in both"
MADE_BY_LEVEL_FLOW: Final = tuple(
    Feature(
        f"{what}_{side}_{{k}}", "book", f"{definition}: add_level_flow", "base currency", "", (), _NO_FLOW
    )
    for side in ("bid", "ask")
    for what, definition in (
        ("added", "increase of size at the price of rank k"),
        ("executed", "decrease at the price that was of rank k, as far as it was traded there"),
        ("cancelled", "the rest of that decrease"),
        ("unexplained", "what was traded there beyond the decrease"),
    )
)

BOOK: Final = (
    *touch.FEATURES,
    *depth.FEATURES,
    *MADE_BY_REBUILD,
    *flow.FEATURES,
    *volatility.FEATURES,
    *MADE_BY_LEVEL_FLOW,
    integrated.FEATURE,
)
TRADES: Final = trades.FEATURES
INTERVALS: Final = impact.FEATURES
BARS: Final = toxicity.FEATURES
LABELS: Final = labels.FEATURES
TRADE_LABELS: Final = labels.TRADE_FEATURES
EVERY: Final = (*BOOK, *TRADES, *INTERVALS, *BARS, VPIN, *LABELS, *TRADE_LABELS)


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
