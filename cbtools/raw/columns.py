"""Rows that the kernel wrote → columns of the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.raw.sequence import NO_TIME
from cbtools.schema import FRAME, SIDE, TIME, TRADE_SIDE, schema

if TYPE_CHECKING:
    from cbtools._kernels.decode import Rows

I64 = npt.NDArray[np.int64]

_NO_SIDE: Final = 2
"""Stands for the side of a marker in the kernel's codes."""
_EXCHANGE_ONLY: Final = {
    "market_trades": ("maker_order_id", "taker_order_id", "sequence"),
    "ticker": ("open_24h", "volume_30d", "last_size", "side", "trade_id", "sequence"),
}
_TICKER_NUMBERS: Final = tuple(
    name
    for name in schema("ticker")
    if name not in {"product_id", *_EXCHANGE_ONLY["ticker"], *(column.name for column in FRAME)}
)
"""The columns that both feeds fill, all numbers, in the order in which the kernel writes them."""
_NULLS: Final = {
    table: {name: pl.Series([None], dtype=schema(table)[name]) for name in names}
    for table, names in _EXCHANGE_ONLY.items()
}


def _nulls(table: str, n: int) -> dict[str, pl.Series]:
    """Return the columns that only the Exchange feed fills: the kernel decodes none of its lines."""
    return {name: one.new_from_index(0, n) for name, one in _NULLS[table].items()}


def times(values: I64) -> pl.Series:
    """Make a column of times, null where NO_TIME."""
    return null_where(values, NO_TIME).cast(TIME)


def null_where(values: I64, missing: int) -> pl.Series:
    """Return a column that is null where a value stands for none."""
    series = pl.Series(values)
    if (values == missing).any():
        return pl.select(pl.when(series != missing).then(series)).to_series()
    return series


def _enum(codes: I64, dtype: pl.Enum) -> pl.Series:
    return pl.Series(codes.astype(np.uint8)).cat.to(dtype)


def with_markers(rows: Rows, n: int, at: I64) -> Rows:
    """Insert markers, which have no side, before these of the first rows."""
    if not len(at):
        return rows
    at = at - np.arange(len(at))  # among the rows without markers
    ints = np.insert(rows.ints[:2, :n], at, [[_NO_SIDE], [NO_TIME]], axis=1)
    return type(rows)(ints, np.insert(rows.floats[:2, :n], at, np.nan, axis=1))


def level2(
    rows: Rows,
    n: int,
    wanted: frozenset[str],
    product: pl.Series,
    snapshot: npt.NDArray[np.bool_],
) -> dict[str, pl.Series]:
    """Make those of level2, of its first rows."""
    made = {}
    changes = rows.ints[0, :n] != _NO_SIDE
    has_markers = not changes.all()
    if "product_id" in wanted:
        made["product_id"] = product
    if "is_snapshot" in wanted:
        made["is_snapshot"] = pl.Series(snapshot)
    if "side" in wanted:
        side = _enum(rows.ints[0, :n] * changes, SIDE)
        made["side"] = side.set(pl.Series(~changes), None) if has_markers else side
    if "price" in wanted:
        made["price"] = pl.Series(rows.floats[0, :n].copy(), nan_to_null=has_markers)
    if "size" in wanted:
        made["size"] = pl.Series(rows.floats[1, :n].copy(), nan_to_null=has_markers)
    if "event_time" in wanted:
        made["event_time"] = times(rows.ints[1, :n].copy())
    return made


def trades(
    rows: Rows, n: int, wanted: frozenset[str], event: I64, snapshot: npt.NDArray[np.bool_], names: pl.Series
) -> dict[str, pl.Series]:
    """Make those of market_trades, of its first rows, each event's in the order of the trade ids."""
    order = np.lexsort((rows.ints[1, :n], event))  # within an event, by trade_id; stable
    ints, floats = rows.ints[:, order], rows.floats[:, order]
    made = {
        "product_id": names.gather(pl.Series(ints[0])),
        "trade_id": pl.Series(ints[1]),
        "price": pl.Series(floats[0]),
        "size": pl.Series(floats[1]),
        "maker_side": _enum(ints[2], TRADE_SIDE),
        "aggressor_side": _enum(1 - ints[2], TRADE_SIDE),
        "trade_time": times(ints[3]),
        "is_snapshot": pl.Series(snapshot),
    } | _nulls("market_trades", len(order))
    return {name: series for name, series in made.items() if name in wanted}


def tickers(
    rows: Rows, n: int, wanted: frozenset[str], here: npt.NDArray[np.bool_], names: pl.Series
) -> dict[str, pl.Series]:
    """Make those of a ticker's table, of these of its first rows."""
    made = {"product_id": names.gather(pl.Series(rows.ints[0, :n][here]))}
    for k, name in enumerate(_TICKER_NUMBERS):
        if name in wanted:
            made[name] = pl.Series(rows.floats[k, :n][here], nan_to_null=True)
    made |= _nulls("ticker", int(here.sum()))
    return {name: series for name, series in made.items() if name in wanted}
