"""Random rows of books, and of trades against them: what the features are computed of.

Rows are dicts as the oracles take them, times in ns; `frame_of` makes the package's frames of them. Prices
and sizes are dyadic, so that sums and differences of them are exact in doubles, in whatever order. All
functions take a `random.Random`, which hypothesis may play.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import polars as pl

from cbtools import lazy, schema

Row = dict[str, Any]

PRODUCTS = ("BTC-USD", "ETH-USD", "Ü-€")
NOON = 1_772_625_600_000_000_000  # 2026-03-04 12:00 UTC
MS = 1_000_000
MIDNIGHT = NOON + 43_200_000 * MS
STARTS = (NOON, NOON, NOON + 1, MIDNIGHT - 2000 * MS, -1500 * MS)  # the last before the epoch
STEPS = (0, 0, 1, MS, 10 * MS, 100 * MS, 250 * MS, 250 * MS, 1000 * MS)
QUIET = (3000 * MS, 10_000 * MS, 75_000 * MS)
FAULTS = ("back", "back", "no clock", "gap", "snapshot", "connection", "crossed", "one_sided", "thin")
SIDES = ("bid", "ask")
TICK = 1 / 64


class Ladder:
    """One product's book, by ticks; what is faulty in it lasts for some rows."""

    def __init__(self, dice: random.Random, depth: int) -> None:
        self.dice, self.depth = dice, depth
        self.scale = dice.choice([1, 1, 4, 64])  # ticks of a step
        self.middle = dice.choice([256, 6400, 6400, 192_000])
        self.rough = dice.choice([0.2, 0.6, 0.9])
        self.ill = 0
        self.since: int | None = None
        self.sizes: dict[str, dict[int, float]] = {}
        self.fill()

    def fill(self) -> None:
        """Draw the book afresh: as a snapshot does."""
        shown = self.dice.choice([1, 2, self.depth, self.depth + 3])
        self.sizes = {
            "bid": {self.middle - k * self.scale: self.size() for k in range(1, shown + 1)},
            "ask": {self.middle + k * self.scale: self.size() for k in range(1, shown + 1)},
        }

    def size(self) -> float:
        return self.dice.choice([1, 2, 3, 4, 8, 12, 20, 160, 2**30]) / 8

    def ranked(self, side: str) -> list[int]:
        return sorted(self.sizes[side], reverse=side == "bid")

    def change(self) -> None:
        """Let a message change some levels; or let the mid take a step."""
        if self.dice.random() < self.rough:
            for _ in range(self.dice.choice([1, 1, 2, 4])):
                self.change_level(self.dice.choice(SIDES))
        else:
            self.step(self.dice.choice([-1, 1]))
        self.heal()

    def change_level(self, side: str) -> None:
        levels, ranked = self.sizes[side], self.ranked(side)
        kind = self.dice.choice(["size", "size", "size", "new", "gone"])
        if kind == "new":
            away = self.dice.randint(1, self.depth + 3) * self.scale
            price = self.middle - away if side == "bid" else self.middle + away
            if price > 0:
                levels[price] = self.size()
        elif ranked:
            price = ranked[min(self.dice.choice([0, 0, 0, 1, 2, 9]), len(ranked) - 1)]
            if kind == "gone" and len(ranked) > 1:
                del levels[price]
            else:
                levels[price] = self.size()

    def step(self, direction: int) -> None:
        """Move the mid: one side's levels go, the other side's come."""
        if self.middle <= 3 * self.scale:
            direction = 1
        self.middle += direction * self.scale
        for side, sign in (("bid", 1), ("ask", -1)):
            beyond = [p for p in self.sizes[side] if sign * (p - self.middle) >= 0]
            for price in beyond:
                del self.sizes[side][price]
            if not self.sizes[side] or self.dice.random() < 0.5:
                self.sizes[side][self.middle - sign * self.scale] = self.size()

    def spoil(self, kind: str) -> None:
        self.ill = self.dice.choice([1, 1, 2, 4])
        if kind == "crossed":
            self.sizes["bid"][self.middle + self.dice.choice([1, 2]) * self.scale] = self.size()
        elif kind == "one_sided":
            for side in self.dice.choice([("bid",), ("ask",), SIDES]):
                self.sizes[side] = {}
        else:  # thin: the best level alone
            self.sizes = {side: {p: self.sizes[side][p] for p in self.ranked(side)[:1]} for side in SIDES}

    def heal(self) -> None:
        """End what is faulty, when it has lasted."""
        self.ill -= 1
        if self.ill == 0:
            self.step(self.dice.choice([-1, 1]))

    def state(self) -> str:
        if self.since is None:
            return "unproven"
        best = [self.ranked(side)[:1] for side in SIDES]
        if not all(best):
            return "one_sided" if any(best) else "empty"
        return "ok" if best[0][0] < best[1][0] else "crossed"

    def row(self) -> Row:
        row: Row = {}
        for side in SIDES:
            prices = [*self.ranked(side)[: self.depth], *[None] * self.depth][: self.depth]
            for k, p in enumerate(prices, start=1):
                row[f"{side}_price_{k}"] = None if p is None else p * TICK
            for k, p in enumerate(prices, start=1):
                row[f"{side}_size_{k}"] = None if p is None else self.sizes[side][p]
        counts = {"n_bids": len(self.sizes["bid"]), "n_asks": len(self.sizes["ask"])}
        return row | counts | {"book_state": self.state(), "proven_since": self.since}


def book(
    dice: random.Random, rows: int, depth: int, products: Sequence[str] | None = None, faults: float = 0.1
) -> list[Row]:
    """Draw rows of the book table, of interleaved products.

    ``faults`` is how often a row is faulty: a clock that steps back or lacks, a gap (unproven rows, until
    a snapshot), a snapshot, a new connection, a crossed or one-sided book, or one with a single level.
    """
    products = products or dice.sample(PRODUCTS, dice.choice([1, 1, 2, 3]))
    ladders = {product_id: Ladder(dice, depth) for product_id in products}
    now, connection = dice.choice(STARTS), 1
    for ladder in ladders.values():
        ladder.since = now
    made = []
    for number in range(rows):
        now += dice.choice(QUIET) if dice.random() < 0.04 else dice.choice(STEPS)
        product_id = dice.choice(list(ladders))
        ladder, received = ladders[product_id], now
        ladder.change()
        fault = dice.choice(FAULTS) if dice.random() < faults else ""
        if fault == "back":
            received -= dice.choice([1, 5 * MS, 1000 * MS])
        elif fault in ("gap", "connection"):
            connection += fault == "connection"
            for other in ladders.values():
                other.since = None
        elif fault in ("crossed", "one_sided", "thin"):
            ladder.spoil(fault)
        if fault == "snapshot" or (ladder.since is None and dice.random() < 0.4):
            ladder.since = now + number  # no two snapshots are named alike
            ladder.fill()
        times = _times(dice, received, faults, no_clock=fault == "no clock")
        told = {"sequence_num": number, "stream": None, "connection": connection, "line": number + 1}
        made.append({"product_id": product_id, **times, **told, **ladder.row()})
    return made


def _times(dice: random.Random, received: int, faults: float, *, no_clock: bool) -> Row:
    server = None if dice.random() < faults / 10 else received - dice.choice([0, MS, 20 * MS])
    return {"server_time": server, "capture_time": None if no_clock else received}


def trades(dice: random.Random, book_rows: Sequence[Row], faults: float = 0.1) -> list[Row]:
    """Draw trades that fit a book's rows: prints at its prices, where sizes go, and some that fit nothing.

    ``faults`` is how often one is faulty: missing trades before it, a new connection, a snapshot of past
    trades, a clock that steps back or lacks.
    """
    often = dice.choice([0.3, 0.6, 0.9])
    befores: dict[str, Row] = {}
    known = [row["capture_time"] for row in book_rows if row["capture_time"] is not None]
    tape = _Tape(dice, faults, min(known, default=NOON))
    for row in book_rows:
        before = befores.get(row["product_id"])
        befores[row["product_id"]] = row
        if before is not None and dice.random() < often:
            for price, size, maker_side in _prints(dice, before, row):
                tape.print(row["product_id"], before, row, price, size, maker_side)
    return tape.rows


class _Tape:
    """Writes trades down: numbers them, and lets some be faulty."""

    def __init__(self, dice: random.Random, faults: float, now: int) -> None:
        self.dice, self.faults = dice, faults
        self.rows: list[Row] = []
        self.numbers: dict[str, int] = {}
        self.connection, self.past, self.now = 1, 0, now

    def print(
        self, product_id: str, before: Row, row: Row, price: float, size: float, maker_side: str
    ) -> None:
        dice = self.dice
        number = self.numbers.get(product_id, dice.choice([0, 7])) + 1
        # receipt: at one of the two rows' times, or between them; and never before the last trade's
        between = [one["capture_time"] for one in (before, row) if one["capture_time"] is not None]
        low, high = min(between, default=self.now), max(between, default=self.now)
        at = dice.choice([low, high, high, dice.randint(low, high)])
        received = self.now = max(self.now, at)
        fault = dice.choice(["back", "no clock", "hole", "connection", "past", "repeat"])
        if dice.random() >= self.faults:
            fault = ""
        if fault == "back":
            received -= dice.choice([1, 5 * MS, 1000 * MS])
        elif fault == "hole":
            number += dice.choice([1, 1, 50])
        elif fault == "repeat":  # a number that went before, as of late trades
            number -= dice.choice([1, 3])
        elif fault in ("connection", "past"):
            self.connection += fault == "connection"
            self.past = dice.choice([0, 1, 3])
        is_snapshot = self.past > 0
        self.past -= is_snapshot
        self.numbers[product_id] = max(number, self.numbers.get(product_id, number))
        engine = None if dice.random() < self.faults / 10 else received - dice.choice([0, MS, 30 * MS])
        taker = "sell" if maker_side == "buy" else "buy"
        times = _times(dice, received, self.faults, no_clock=fault == "no clock")
        of_exchange = dict.fromkeys(("maker_order_id", "taker_order_id", "sequence"))
        self.rows.append(
            {"product_id": product_id, "trade_id": number, "price": price, "size": size}
            | {"maker_side": maker_side, "aggressor_side": taker, "trade_time": engine}
            | {"is_snapshot": is_snapshot, **of_exchange, **times, "sequence_num": len(self.rows)}
            | {"stream": None, "connection": self.connection, "line": len(self.rows) + 1}
        )


def _prints(dice: random.Random, before: Row, row: Row) -> Iterator[tuple[float, float, str]]:
    """Draw price, size and maker's side of the trades between two rows."""
    for side, maker_side in (("bid", "buy"), ("ask", "sell")):
        for k in (1, 1, 2):
            price, size = before.get(f"{side}_price_{k}"), before.get(f"{side}_size_{k}")
            if price is None or dice.random() < 0.5:
                continue
            maker = maker_side
            if dice.random() < 0.1:  # at no level, or of the wrong side
                price += dice.choice([0, TICK, -TICK / 2])
                maker = dice.choice(["buy", "sell"])
            now = _size_at(row, side, price)
            taken = size - now if size is not None and now < size else dice.choice([1, 3, 8]) / 8
            yield price, dice.choice([taken, taken / 2, taken * 2, 0.125]), maker


def _size_at(row: Row, side: str, price: float) -> float:
    k = 1
    while f"{side}_price_{k}" in row:
        if row[f"{side}_price_{k}"] == price:
            return float(row[f"{side}_size_{k}"])
        k += 1
    return 0.0


_MORE = dict.fromkeys(("best_bid", "best_bid_size", "best_ask", "best_ask_size", "mid"), pl.Float64)


def frame_of(rows: Sequence[Row], kind: str, depth: int = schema.BOOK_DEPTH) -> pl.DataFrame:
    """Make the frame of rows of the ``"book"`` or of ``"market_trades"``, maybe with quotes joined to them.

    It has the columns that the first row has; of no rows, those of the table (with so many levels).
    """
    every = 200 if rows else depth
    columns = schema.book_columns(every) if kind == "book" else schema.columns(kind)
    dtypes = {column.name: column.dtype for column in columns}
    names = list(rows[0]) if rows else list(dtypes)
    dtypes |= _MORE | {"quote_time": schema.TIME}
    made = []
    for name in names:
        is_time = dtypes[name] == schema.TIME
        values = pl.Series(name, [row[name] for row in rows], dtype=pl.Int64 if is_time else dtypes[name])
        made.append(values.cast(dtypes[name]))
    return pl.DataFrame(made)


# --- what tests do with them


def in_pieces(dice: random.Random, frame: pl.DataFrame) -> pl.LazyFrame:
    """Lay a frame out in batches of any size, some of them empty."""
    cuts = sorted(dice.randint(0, frame.height) for _ in range(dice.choice([0, 1, 5, 40])))

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        del predicate
        for low, high in pairwise([0, *cuts, frame.height]):
            yield frame.select(columns).slice(low, high - low)

    return lazy.source(batches, frame.schema, "PIECES")


def same_as_oracle(got: pl.DataFrame, expected: Sequence[Row], names: Sequence[str]) -> None:
    """Check columns against the oracle's rows: doubles to 1e-12, all else exactly."""
    assert got.height == len(expected)
    for name in names:
        column = got[name].cast(pl.Int64) if got[name].dtype == schema.TIME else got[name]
        for place, (value, row) in enumerate(zip(column.to_list(), expected, strict=True)):
            other = row[name]
            if isinstance(value, float) and isinstance(other, float):
                assert math.isclose(value, other, rel_tol=1e-12), (name, place, value, other)
            else:
                assert value == other, (name, place, value, other)
