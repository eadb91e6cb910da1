"""What was traded over windows, at the rows of another frame: of a book, or of a grid of times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.features.catalogue import Chosen
from cbtools.features.links import Links, TradeLinks
from cbtools.features.quotes import require
from cbtools.features.stage import Rows, add_columns, check_clock, check_frame
from cbtools.features.trades import trade_rows

_OF_TRADES: Final = (
    *("product_id", "price", "size", "aggressor_side"),
    *("connection", "trade_id", "is_snapshot"),
)
_INDEX, _REACHED = "__index", "__reached"


class _LinksAt(TradeLinks):
    """Links trades, and rows between them, which have no trade_id: those go on with the product's run."""

    def __init__(self, *, ignore_holes: bool) -> None:
        super().__init__(ignore_holes=ignore_holes)
        self._begun: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)

    def __call__(self, frame: pl.DataFrame) -> Links:
        is_trade = frame["trade_id"].is_not_null()
        codes, traded = self.products(frame), is_trade.to_numpy().copy()
        follows = np.zeros(frame.height, np.bool_)
        follows[traded] = super().__call__(frame.filter(is_trade)).follows
        first = np.full(len(self.products.names), frame.height)
        np.minimum.at(first, codes[traded], np.flatnonzero(traded))
        first[: len(self._begun)][self._begun] = -1
        between = ~traded & (np.arange(frame.height) > first[codes])
        self._begun = first < frame.height
        return Links(codes, np.zeros_like(codes), follows | between, traded | between)


def windows_at(
    trades: pl.LazyFrame | pl.DataFrame,
    at: pl.LazyFrame | pl.DataFrame,
    chosen: Sequence[Chosen],
    *,
    ignore_holes: bool,
    clock: str,
    at_clock: str,
) -> pl.LazyFrame:
    """Add the trades' windows to the rows of another frame; see `add_trade_features`."""
    for one in chosen:
        if one.feature.terms is None or one.feature.name.startswith("roll_spread"):
            raise ConfigError(
                f"{one.name} belongs to a trade: at other rows there are only sums over windows"
            )
    for frame, time, what, needed in (
        (trades, clock, "market_trades", _OF_TRADES),
        (at, at_clock, "at", ("product_id",)),
    ):
        schema = check_frame(frame, what)
        check_clock(schema, time, what)
        require(schema, needed, what)
    numbered = at.lazy().with_row_index(_INDEX)
    timed = numbered.filter(pl.col(at_clock).is_not_null())
    rows_at = timed.select("product_id", _INDEX, pl.col(at_clock).alias(clock), price=0.0, size=0.0)
    # a trade without a clock counts at the time of the one before
    reached = pl.col(clock).cum_max().forward_fill().over("product_id").alias(_REACHED)
    known = trades.lazy().select(*_OF_TRADES, clock, reached)
    # at equal times the trades come first: a window is closed on the right
    merged = pl.concat([known, rows_at.with_columns(pl.col(clock).alias(_REACHED))], how="diagonal")
    merged = merged.sort(_REACHED, maintain_order=True)
    rows = Rows("market_trades", trade_rows().features, partial(_LinksAt, ignore_holes=ignore_holes))
    made = add_columns(merged, chosen, rows, clock=clock).filter(pl.col(_INDEX).is_not_null())
    names = [one.name for one in chosen]
    joined = numbered.drop(names, strict=False).join(made.select(_INDEX, *names), on=_INDEX, how="left")
    return joined.sort(_INDEX).drop(_INDEX)
