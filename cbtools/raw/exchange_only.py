"""The columns that only the Exchange feed fills: null in what the kernel decodes, which is the other's."""

from __future__ import annotations

from typing import Final

import polars as pl

from cbtools.schema import FRAME, schema

_EXCHANGE_ONLY: Final = {
    "market_trades": ("maker_order_id", "taker_order_id", "sequence"),
    "ticker": ("open_24h", "volume_30d", "last_size", "side", "trade_id", "sequence"),
}
TICKER_NUMBERS: Final = tuple(
    name
    for name in schema("ticker")
    if name not in {"product_id", *_EXCHANGE_ONLY["ticker"], *(column.name for column in FRAME)}
)
"""The columns that both feeds fill, all numbers, in the order in which the kernel writes them."""
_NULLS: Final = {
    table: {name: pl.Series([None], dtype=schema(table)[name]) for name in names}
    for table, names in _EXCHANGE_ONLY.items()
}


def nulls(table: str, n: int, wanted: frozenset[str]) -> dict[str, pl.Series]:
    """Return these columns of a table, as far as they are wanted, for so many rows.

    Parameters
    ----------
    table : {"market_trades", "ticker"}
        The table; ``ticker_batch`` has the columns of ``ticker``.
    n : int
        Rows.
    wanted : frozenset of str
        Columns that are asked for.

    Returns
    -------
    dict of str to polars.Series
        All null, in the table's order.

    Examples
    --------
    >>> nulls("market_trades", 2, frozenset({"price", "sequence"}))["sequence"].to_list()
    [None, None]
    """
    return {name: one.new_from_index(0, n) for name, one in _NULLS[table].items() if name in wanted}
