"""The two clocks by which trades are compared with the book: the exchange's, and that of receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import polars as pl

from cbtools.errors import ConfigError
from cbtools.features.catalogue import Table
from cbtools.raw.delays import LATE

Clock = Literal["exchange", "receive"]
"""By which times trades and books are compared; ``docs/clocks.md`` says what that means in each function."""

RECEIVED: Final = ("capture_time", "server_time")
"""The time of receipt is the first of these that is not null."""

_TIMES: Final[Mapping[tuple[Table, Clock], tuple[str, ...]]] = {
    ("market_trades", "exchange"): ("trade_time",),
    ("market_trades", "receive"): RECEIVED,
    ("book", "exchange"): ("server_time",),
    ("book", "receive"): RECEIVED,
}


def check_name(clock: Any) -> Clock:
    """Return the name of a clock, or raise the error that names both."""
    if clock not in get_args(Clock):
        raise ConfigError(
            "clock must be 'exchange' (trade_time of trades, server_time of the book) or 'receive' "
            f"(capture_time, or server_time where that is null), not {clock!r}"
        )
    name: Clock = clock
    return name


def times(table: Table, clock: Clock) -> tuple[str, ...]:
    """Return the columns of a table that hold the time of a row: the first of them that is not null."""
    return _TIMES[table, clock]


def of_windows(clock: Any) -> str | tuple[str, ...]:
    """Return the time of windows over trades: as they happened, or of receipt."""
    return "trade_time" if check_name(clock) == "exchange" else RECEIVED


def received(*, by_product: bool = True) -> pl.Expr:
    """Return the times of receipt: of each product the running maximum, since the local clock may step back.

    A row without a time was received at the time of the product's row before it.
    """
    return latest(RECEIVED, by_product=by_product)


def latest(columns: tuple[str, ...], *, by_product: bool = True) -> pl.Expr:
    """Return the latest time of each row's product so far."""
    time = pl.coalesce(columns).cum_max().forward_fill()
    return time.over("product_id") if by_product else time


def is_late() -> pl.Expr:
    """Return whether a trade was sent so late that its quote by the exchange's clock is not looked for."""
    return (pl.col("server_time") - pl.col("trade_time")).dt.total_nanoseconds() > LATE
