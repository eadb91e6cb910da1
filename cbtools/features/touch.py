"""Features of the best bid and ask."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.features.define import NOT_OK, of_row
from cbtools.features.view import View

F64 = npt.NDArray[np.float64]

IS_OK: Final = pl.col("book_state") == "ok"

_QUOTE = "quote currency"


@of_row("mid", "book", definition="(a + b) / 2", unit=_QUOTE, null=NOT_OK, ok=IS_OK)
def mid(view: View) -> F64:
    """Give the middle of the best bid and ask."""
    return view.mid()


@of_row("spread", "book", definition="a - b", unit=_QUOTE, ok=IS_OK)
def spread(view: View) -> F64:
    """Give the distance of the best ask from the best bid."""
    return view.price("ask") - view.price("bid")


@of_row("spread_bps", "book", definition="1e4 (a - b) / m", unit="bps of mid", ok=IS_OK)
def spread_bps(view: View) -> F64:
    """Give the spread relative to mid."""
    return 1e4 * (view.price("ask") - view.price("bid")) / view.mid()


def _above_mid(view: View) -> F64:
    """Give microprice - m, the differences first: their digits would be lost in the prices'."""
    above, below = view.price("ask") - view.mid(), view.price("bid") - view.mid()
    bid_size, ask_size = view.size("bid"), view.size("ask")
    return (above * bid_size + below * ask_size) / (bid_size + ask_size)


_GATHERAL = "Gatheral & Oomen 2010 (weighted mid)"


@of_row("microprice", "book", definition="(a qb + b qa) / (qb + qa)", unit=_QUOTE, source=_GATHERAL, ok=IS_OK)
def microprice(view: View) -> F64:
    """Give the mid weighted by the sizes at the other side: near the side that has less."""
    bid_size, ask_size = view.size("bid"), view.size("ask")
    return (view.price("ask") * bid_size + view.price("bid") * ask_size) / (bid_size + ask_size)


@of_row(
    "microprice_dev_bps",
    "book",
    definition="1e4 (microprice - m) / m",
    unit="bps of mid",
    source=_GATHERAL,
    ok=IS_OK,
)
def microprice_dev_bps(view: View) -> F64:
    """Give how far the microprice is from mid."""
    return 1e4 * _above_mid(view) / view.mid()


FEATURES: Final = tuple(
    function.feature for function in (mid, spread, spread_bps, microprice, microprice_dev_bps)
)
