"""What a recording covers: for each product and minute, how many messages and trades there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import numpy as np
import polars as pl

from cbtools.book.messages import OF_MESSAGE
from cbtools.schema import TIME

MINUTES: Final = pl.Schema(
    {
        "product_id": pl.String(),
        "minute": TIME,
        "messages": pl.Int64(),
        "ok": pl.Int64(),
        "trades": pl.Int64(),
    }
)
"""``messages`` of level2; ``ok``, of these, behind which the book is ok; ``trades`` without snapshots'."""
HOURS: Final = pl.Schema(
    {
        **{"product_id": pl.String(), "hour": TIME, "minutes": pl.Int64()},
        **{"messages": pl.Int64(), "ok": pl.Int64(), "trades": pl.Int64()},
    }
)
"""``minutes``: in how many of the hour's there are messages."""

_KEY: Final = ("product_id", "minute")
_MINUTE: Final = pl.coalesce("server_time", "capture_time").dt.truncate("1m").alias("minute")
_COUNTS: Final = ("messages", "ok", "trades")
_TOLD_BY: Final = ("product_id", "server_time", "capture_time")


class Coverage:
    """Counts the rows of a run's batches by product and minute, of the tables that are written.

    ``book``: there is a row of it for each message.
    """

    def __init__(self, written: Collection[str], *, book: bool) -> None:
        self._written = {name for name in written if name != "book" or book}
        self._found: list[pl.DataFrame] = []

    def add(self, tables: Mapping[str, pl.DataFrame]) -> None:
        """Take the tables of a batch."""
        level2, book, trades = (
            tables[name] if name in tables and name in self._written else None
            for name in ("level2", "book", "market_trades")
        )
        if level2 is not None:
            self._count(_messages(level2), messages=pl.len())
        if book is not None:
            self._count(_narrow(book, "book_state").filter(pl.col("book_state") == "ok"), ok=pl.len())
        if trades is not None:
            self._count(_narrow(trades, "is_snapshot").filter(~pl.col("is_snapshot")), trades=pl.len())

    def _count(self, rows: pl.DataFrame, **counts: pl.Expr) -> None:
        self._found.append(rows.group_by("product_id", _MINUTE).agg(**counts))
        if len(self._found) > 64:
            self._found = [self.frame()]

    def frame(self) -> pl.DataFrame:
        """Give the counts so far, as `MINUTES`, sorted."""
        return added(self._found)


def _narrow(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    return pl.DataFrame([frame[name] for name in (*_TOLD_BY, *names)])


def _messages(level2: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each message: all rows of a product in a line. The marker of a break is not one."""
    if level2["side"].null_count():
        level2 = level2.filter(OF_MESSAGE)
        if level2.is_empty():
            return _narrow(level2, "line")
    line, product = level2["line"].to_numpy(), level2["product_id"]
    begins = np.append(True, line[1:] != line[:-1])
    if product.n_unique() > 1:
        begins |= product.ne_missing(product.shift(1)).to_numpy()
    starts = np.flatnonzero(begins)
    rows = _narrow(level2, "line")[starts]
    if (np.diff(line[starts]) > 0).all():
        return rows
    return rows.unique(("line", "product_id"))  # in one line products may take turns


def added(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Add up counts by product and minute."""
    empty = pl.DataFrame(schema=MINUTES)
    together = pl.concat(
        [empty, *(frame.cast({n: pl.Int64 for n in _COUNTS if n in frame.columns}) for frame in frames)],
        how="diagonal",
    )
    sums = together.drop_nulls("minute").group_by(_KEY).agg(pl.col(_COUNTS).sum())
    return sums.select(MINUTES.names()).sort(_KEY)


def by_hour(minutes: pl.DataFrame) -> pl.DataFrame:
    """Give the counts by product and hour, as `HOURS`, sorted."""
    hour = pl.col("minute").dt.truncate("1h").alias("hour")
    covered = (pl.col("messages") > 0).sum().cast(pl.Int64).alias("minutes")
    return (
        minutes.group_by("product_id", hour)
        .agg(covered, pl.col(_COUNTS).sum())
        .select(HOURS.names())
        .sort("product_id", "hour")
    )
