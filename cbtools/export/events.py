"""Messages of level2, and trades → hftbacktest's event array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.book.rebuild import rebuild_book
from cbtools.book.state import BookState
from cbtools.errors import DatasetError, StateError

Events = npt.NDArray[np.void]
Gaps = Literal["drop", "raise", "ignore"]

EVENT: Final = np.dtype(
    [
        ("ev", "<u8"),
        ("exch_ts", "<i8"),
        ("local_ts", "<i8"),
        ("px", "<f8"),
        ("qty", "<f8"),
        ("order_id", "<u8"),
        ("ival", "<i8"),
        ("fval", "<f8"),
    ],
    align=True,
)
"""hftbacktest's ``event_dtype``; the last three say nothing of a feed of levels, and are 0."""

DEPTH, TRADE, CLEAR, SNAPSHOT = 1, 2, 3, 4
EXCHANGE, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28

# The order of a message's events: what it deletes goes first, so that no book between them is crossed.
_CLEAR, _BEFORE, _DELETE, _SET, _BEST = range(5)
_EVENTS: Final = pl.Schema(
    {
        "message": pl.Int64,
        "rank": pl.Int8,
        "kind": pl.UInt64,
        "side": pl.UInt64,
        "price": pl.Float64,
        "size": pl.Float64,
    }
)
_BEST_LEVELS: Final = ("bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1")


def messages_of(changes: pl.DataFrame, start: BookState | None, gaps: Gaps, product: str) -> pl.DataFrame:
    """Return a row for each message: its times, the best of its book, and what becomes of its changes.

    A marker of a break has a row, too: it ends the book, and has no changes.
    """
    found = changes.group_by("message", maintain_order=True).agg(
        pl.first("line", "connection", "sequence_num", "server_time", "capture_time"),
        pl.max("event_time"),
        snapshot=pl.col("is_snapshot").any(),
        marker=(pl.col("side").is_null() & ~pl.col("is_snapshot")).all(),
    )
    found = _with_times(found, "event_time", "level2").with_columns(pl.col("exch", "local").cum_max())
    shown = (*_BEST_LEVELS, "book_state")
    numbered = changes.with_columns(line=pl.col("message"))
    book = rebuild_book(numbered, depth=1, start=start).select(*shown, message="line").collect()
    found = found.join(book, on="message", how="left", maintain_order="left").with_columns(
        # a break of what is broken already has no row of its own
        pl.when("marker").then(pl.col(shown).forward_fill()).otherwise(pl.col(shown))
    )
    unproven = (pl.col("book_state") == "unproven").fill_null(value=False)
    if gaps == "raise" and not found.filter(unproven).is_empty():
        at = found.filter(unproven).row(0, named=True)
        raise StateError(
            f"the book of {product} is unproven at line {at['line']} (connection {at['connection']}, "
            f"sequence_num {at['sequence_num']}): frames are missing since its last snapshot; gaps='drop' "
            "has no book until the next one, gaps='ignore' goes on with what there is"
        )
    crossed = (pl.col("bid_price_1") >= pl.col("ask_price_1")).fill_null(value=False)
    has_book = pl.col("book_state").is_not_null()
    dropped = unproven if gaps == "drop" else pl.lit(value=False)
    found = found.with_columns(
        early=~has_book & ~pl.col("marker"),
        written=has_book & ~pl.col("marker") & ~dropped,
        ends_book=dropped & ~dropped.shift(fill_value=False),
        was_crossed=crossed.shift(fill_value=False) & ~crossed,
    )
    if not found["written"].any():
        has_none = (found["early"] | found["marker"]).all()
        why = "come before a snapshot" if has_none else "have a book that is not proven"
        raise DatasetError(
            f"level2 of {product} has no book to write: all messages {why}; begin with a snapshot, or give "
            "start, the BookState before the first row"
        )
    return found


def happened_trades(trades: pl.DataFrame) -> pl.DataFrame:
    """Give the trades that are written, with their times."""
    for name in ("trade_id", "price", "size", "aggressor_side", "is_snapshot"):
        if trades[name].null_count():
            raise DatasetError(f"market_trades has a null in {name}: there can be none in a trade")
    return _with_times(trades.filter(~pl.col("is_snapshot")), "trade_time", "market_trades")


def _with_times(rows: pl.DataFrame, happened: str, table: str) -> pl.DataFrame:
    """Add when the exchange did it and when it was received, ns."""
    told = rows.with_columns(
        exch=pl.coalesce(happened, "server_time", "capture_time").dt.epoch("ns"),
        local=pl.coalesce("capture_time", "server_time").dt.epoch("ns"),
    )
    if told["local"].null_count():
        raise DatasetError(
            f"{table} has rows with neither capture_time nor server_time: when they came is not known"
        )
    return told


def depth_array(
    changes: pl.DataFrame, messages: pl.DataFrame, before: pl.DataFrame | None, shift: int
) -> Events:
    """Write down the book's events. Both their times rise with the messages: one event serves both clocks."""
    events = _depth_events(changes, messages, before)
    at = events["message"].to_numpy()
    kind = (events["kind"] | events["side"] | (EXCHANGE | LOCAL)).to_numpy()
    exch, local = (messages[name].to_numpy()[at] for name in ("exch", "local"))
    return _array(kind, exch - shift, local, events["price"].to_numpy(), events["size"].to_numpy())


def with_trades(depth: Events, trades: pl.DataFrame, shift: int) -> Events:
    """Insert the trades by each clock: by the exchange's, one is often before what was received before it."""
    side = pl.when(pl.col("aggressor_side") == "buy").then(BUY).otherwise(SELL).cast(pl.UInt64)
    places, inserted = [], []
    for clock, time, flag in (("exch", "exch_ts", EXCHANGE), ("local", "local_ts", LOCAL)):
        rows = trades.sort(clock, "trade_id").select(
            side | (TRADE | flag), pl.col("exch") - shift, "local", "price", "size"
        )
        array = _array(*(column.to_numpy() for column in rows))
        places.append(np.searchsorted(depth[time], array[time], side="left"))
        inserted.append(array)
    return np.insert(depth, np.concatenate(places), np.concatenate(inserted))


def shift_of(frames: Sequence[pl.DataFrame]) -> int:
    """Tell by how much exchange times must be earlier, so that nothing is received before it happens."""
    late = [frame.select((pl.col("exch") - pl.col("local")).max()).item() for frame in frames]
    return max([0, *(int(ns) for ns in late if ns is not None)])


def _depth_events(changes: pl.DataFrame, messages: pl.DataFrame, before: pl.DataFrame | None) -> pl.DataFrame:
    """Give the events of the book, in order, each with its message."""
    new = pl.col("message") != pl.col("message").shift(fill_value=-1)
    marker = pl.col("side").is_null()
    begins = pl.col("is_snapshot") & (new | marker | ~pl.col("is_snapshot").shift(fill_value=False))
    is_deletion = pl.col("size") <= 0
    levels = (
        changes.lazy()
        .select("message", "is_snapshot", "side", "price", "size", row=pl.int_range(pl.len()), begins=begins)
        # what a message says before its last snapshot begins, that snapshot does away with
        .with_columns(since=pl.when("begins").then("row").max().over("message").fill_null(-1))
        .filter(
            pl.lit(messages["written"].gather(changes["message"])), pl.col("row") >= pl.col("since"), ~marker
        )
        .unique(["message", "side", "price"], keep="last", maintain_order=True)
        .filter((pl.col("since") < 0) | ~is_deletion)
        .select(
            "message",
            rank=pl.when(is_deletion).then(_DELETE).otherwise(_SET),
            kind=pl.when("is_snapshot").then(SNAPSHOT).otherwise(DEPTH),
            side=pl.when(pl.col("side") == "bid").then(BUY).otherwise(SELL),
            price="price",
            size="size",
        )
        .collect()
    )
    clears = messages.filter((pl.col("written") & pl.col("snapshot")) | pl.col("ends_book"))
    frames = [levels, _events(clears, _CLEAR, CLEAR)]
    first = messages.filter(~pl.col("marker")).head(1)
    if before is not None and first.filter(pl.col("written") & ~pl.col("snapshot")).height:
        frames.append(_events(first, _CLEAR, CLEAR))
        for side, flag in (("bid", BUY), ("ask", SELL)):
            rows = before.filter(pl.col("side") == side).with_columns(message=first["message"].item())
            frames.append(_events(rows, _BEFORE, SNAPSHOT, flag, "price", "size"))
    mended = messages.filter(pl.col("written") & pl.col("was_crossed"))
    for side, flag in (("bid", BUY), ("ask", SELL)):
        price, size = f"{side}_price_1", f"{side}_size_1"
        frames.append(_events(mended.drop_nulls(price), _BEST, DEPTH, flag, price, size))
    return pl.concat([frame.cast(_EVENTS) for frame in frames]).sort("message", "rank", maintain_order=True)


def _events(
    rows: pl.DataFrame, rank: int, kind: int, side: int = 0, price: str = "", size: str = ""
) -> pl.DataFrame:
    """Make an event of each row; without a column for them, price and size are 0."""
    return rows.select(
        "message",
        rank=pl.lit(rank),
        kind=pl.lit(kind),
        side=pl.lit(side),
        price=pl.col(price) if price else pl.lit(0.0),
        size=pl.col(size) if size else pl.lit(0.0),
    )


def _array(kind: Any, exch: Any, local: Any, price: Any, size: Any) -> Events:
    array = np.zeros(len(exch), EVENT)
    columns = (kind, exch, local, price, size)
    for name, values in zip(("ev", "exch_ts", "local_ts", "px", "qty"), columns, strict=True):
        array[name] = values
    return array
