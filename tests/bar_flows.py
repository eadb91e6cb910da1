"""Random trades for bars, their options, and how bars are compared with the oracle's.

Prices and sizes are dyadic, where much ties, or not; a trade may be large. Rows are dicts as the oracles take
them. All functions take a `random.Random`, which hypothesis may play.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import polars as pl
from feature_flows import MS, NOON, PRODUCTS, frame_of
from oracles import bars as oracle

from cbtools import lazy
from cbtools.features.bars import trade_bars

Row = dict[str, Any]

CLOSE = 1e-14
KINDS = (
    *("time", "tick", "volume", "notional"),
    *(f"{what}_{how}" for how in ("imbalance", "runs") for what in ("tick", "volume", "notional")),
)
EVEN_PRICES = (96, 98.5, 100, 100.25, 104, 128)
EVEN_SIZES = (0, 0.125, 0.25, 0.5, 0.5, 1, 1, 1.75, 3, 20)
CENTS = (64_930.57, 64_930.58, 64_931.1, 64_929.99)
SATOSHIS = (1e-8, 0.1, 0.2, 0.3, 0.7, 1.1, 0.00012345, 9.9)
THIRDS = (1 / 3, 1.0, 2 / 3, 0.1, 0.7, 7.7)
VALUES = ((EVEN_PRICES, EVEN_SIZES), (CENTS, SATOSHIS), (EVEN_PRICES, THIRDS), (THIRDS, EVEN_SIZES))
"""Prices and sizes: sums of their products have no more digits than two doubles, or nothing ties."""
SPANS = {"1ns": 1, "7ms": 7 * MS, "1s": 1000 * MS, "1m30s": 90_000 * MS}
FAULTS = ("hole", "connection", "past", "back", "no clock", "no time", "repeat")


def trades(dice: random.Random, count: int, faults: float | None = None) -> list[Row]:
    """Draw trades; ``faults`` is how often one is faulty."""
    faults = dice.choice([0, 0, 0.02, 0.2]) if faults is None else faults
    prices, sizes = dice.choice(VALUES)
    products = {name: dice.choice([0, 7]) for name in dice.sample(PRODUCTS, dice.choice([1, 1, 2, 3]))}
    now, connection, past, rows = dice.choice([NOON, NOON + 1, -1500 * MS]), 1, 0, []
    buys = dice.choice([0.2, 0.5, 0.5, 1.0])
    for _ in range(count):
        now += dice.choice([0, 0, 1, MS, 100 * MS, 700 * MS, 12_000 * MS])
        product_id = dice.choice(list(products))
        fault = dice.choice(FAULTS) if dice.random() < faults else ""
        number = products[product_id] + 1
        if fault == "hole":
            number += dice.choice([1, 50])
        elif fault == "repeat":
            number -= dice.choice([1, 3])
        elif fault in ("connection", "past"):
            connection += fault == "connection"
            past = dice.choice([0, 1, 3])
        products[product_id] = max(number, products[product_id])
        at = now - dice.choice([1, 500 * MS]) if fault == "back" else now
        is_buy = dice.random() < buys
        rows.append(
            {"product_id": product_id, "trade_id": number, "price": float(dice.choice(prices))}
            | {"size": float(dice.choice(sizes)), "maker_side": "sell" if is_buy else "buy"}
            | {"aggressor_side": "buy" if is_buy else "sell"}
            | {"trade_time": None if fault in ("no clock", "no time") else at, "is_snapshot": past > 0}
            | {"server_time": None, "capture_time": None if fault == "no time" else now + 3 * MS}
            | {"sequence_num": len(rows), "connection": connection, "line": len(rows) + 1}
        )
        past -= past > 0
    return rows


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return frame_of(rows, "market_trades")


def options(dice: random.Random, by: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Draw options that suit the trades: some bars are of many trades, and some trades of many bars."""
    chosen: dict[str, Any] = {"by": by, "holes": dice.choice(["restart", "restart", "ignore"])}
    chosen["clock"] = dice.choice(["trade_time", "trade_time", "capture_time"])
    if by == "time":
        return chosen | {"size": dice.choice(list(SPANS))}
    if by == "tick":
        return chosen | {"size": dice.choice([1, 2, 3, 7])}
    most = dice.choice(rows)["price"] if by.startswith("notional") else 1.0
    if by.startswith("tick"):
        size = dice.choice([1, 2, 3, 4.5])
    else:
        size = most * dice.choice([0.125, 0.3, 0.5, 1, 1, 2.5, 7, 1 / 3])
    if by not in ("volume", "notional"):
        chosen["adaptive"] = dice.choice([None, 1, 2, 3, 5, 20])
    return chosen | {"size": size}


def same_as_oracle(rows: Sequence[Row], by: str, size: Any, **chosen: Any) -> pl.DataFrame:
    """Check bars against the oracle's; give them."""
    got = trade_bars(frame(rows), by, size, **chosen).collect()
    same_bars(got, oracle.trade_bars(rows, by, SPANS.get(size, size), **chosen))
    return got


def same_bars(got: pl.DataFrame, expected: Sequence[Row], near: float = 0.0) -> None:
    """Check that rows are those expected: doubles to the last digits (or as ``near``), all else exactly."""
    assert got.height == len(expected), f"{got.height} rows, expected {len(expected)}"
    times = [name for name, dtype in got.schema.items() if isinstance(dtype, pl.Datetime)]
    found = got.with_columns(pl.col(times).cast(pl.Int64)).rows(named=True)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert list(one) == list(other)
        wrong = {name: (one[name], other[name]) for name in one if not alike(one[name], other[name], near)}
        assert not wrong, f"row {number}: {wrong} of {other}"


def alike(one: Any, other: Any, near: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=near)
    return type(one) is type(other) and bool(one == other)


def in_pieces(dice: random.Random, whole: pl.DataFrame) -> pl.LazyFrame:
    """Lay a frame out in batches of any size, some of them empty."""
    cuts = sorted(dice.randint(0, whole.height) for _ in range(dice.choice([1, 5, 40])))
    bounds = [0, *cuts, whole.height]

    def batches(columns: list[str], predicate: pl.Expr | None) -> Any:
        del predicate
        for low, high in pairwise(bounds):
            yield whole.select(columns).slice(low, high - low)

    return lazy.source(batches, whole.schema, "PIECES")
