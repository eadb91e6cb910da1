"""The two clocks of rows, written to be read: when the exchange sent a row, and when it was received.

``"exchange"`` is the exchange's own time: trade_time of a trade, server_time of a book row. ``"receive"`` is
the receive time: capture_time, or server_time where there is no capture_time. A receive time never falls from
one row of a product to the next: what is received after a row was not known before it. A row whose time is
unknown has the time of the product's row before it, and none (None) if no time is known yet; a row without
a time was received at no known time, so nothing uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


def running_maximum(rows: Sequence[Row], time_of: Callable[[Row], int | None]) -> list[int | None]:
    """Return the latest time of each row's product so far."""
    latest: dict[Any, int | None] = {}
    found = []
    for row in rows:
        product = row.get("product_id")
        times = [time for time in (latest.get(product), time_of(row)) if time is not None]
        latest[product] = max(times, default=None)
        found.append(latest[product])
    return found


def receive_times(rows: Sequence[Row]) -> list[int | None]:
    return running_maximum(
        rows, lambda row: row["server_time"] if row["capture_time"] is None else row["capture_time"]
    )


def book_times(rows: Sequence[Row], clock: str) -> list[int | None]:
    """Return the time of each book row, as a running maximum over its product's rows."""
    if clock == "exchange":
        return running_maximum(rows, lambda row: row["server_time"])
    if clock == "receive":
        return receive_times(rows)
    raise ValueError(clock)


def trade_times(trades: Sequence[Row], clock: str) -> list[int | None]:
    """Return the time of each trade: by the exchange's clock as it stands, since trades may step back."""
    if clock == "exchange":
        return [trade["trade_time"] for trade in trades]
    if clock == "receive":
        return receive_times(trades)
    raise ValueError(clock)
