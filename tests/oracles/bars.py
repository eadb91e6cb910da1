"""Bars of trades and what is told by them, written to be read: the judge of the package's bars.

A bar is the list of its parts, and a part is a trade or what an edge left of it. Sizes and notionals are
exact (rationals of the doubles), so a trade is split where the edge is; so are the learnt thresholds.
It knows nothing of the package, and it is slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from oracles.trades import DIGITS, Row, runs_of

SPLIT = ("volume", "notional")


class Part(NamedTuple):
    """A trade in a bar, whole or split."""

    trade: Row
    size: Fraction
    notional: Fraction


@dataclass
class Threshold:
    """What an imbalance or runs bar is full at. The first of the means is that of trades in a bar."""

    value: Fraction
    adaptive: int | None
    mean: list[Fraction] = field(default_factory=list)

    def learn(self, n: int, per_trade: list[Fraction]) -> None:
        if self.adaptive is None:
            return
        new = [Fraction(n), *per_trade]
        if not self.mean:
            self.mean = new
        else:
            a = Fraction(2, self.adaptive + 1)
            self.mean = [mean + a * (value - mean) for mean, value in zip(self.mean, new, strict=True)]
        # one mean of an imbalance, which has a sign; two of runs, which have none
        value = self.mean[0] * max(abs(mean) for mean in self.mean[1:])
        if value != 0:
            self.value = value


@dataclass
class Tape:
    """What is open of a product."""

    product_id: str
    threshold: Threshold
    run: int = 0
    bars: int = 0
    parts: list[Part] = field(default_factory=list)
    time: int | None = None
    start: int | None = None


def trade_bars(
    trades: Sequence[Row],
    by: str,
    size: float,
    adaptive: int | None = None,
    holes: str = "restart",
    clock: str = "trade_time",
) -> list[Row]:
    tapes: dict[str, Tape] = {}
    found: list[Row] = []
    for trade, (run, place) in zip(trades, runs_of(trades, [None] * len(trades), holes), strict=True):
        product_id = trade["product_id"]
        if product_id not in tapes:
            tapes[product_id] = Tape(product_id, Threshold(Fraction(size), adaptive))
        tape = tapes[product_id]
        if place == 0:
            close(tape, found, clock, complete=False)
            tape.run, tape.time = run.number, None
        take(tape, found, trade, by, size, clock)
    for tape in tapes.values():
        close(tape, found, clock, complete=False)
    return found


def take(tape: Tape, found: list[Row], trade: Row, by: str, size: float, clock: str) -> None:
    """Put a trade into the open bar, and close the bars that it completes."""
    whole = Part(trade, Fraction(trade["size"]), Fraction(trade["price"]) * Fraction(trade["size"]))
    if by in SPLIT:
        take_in_parts(tape, found, whole, by, Fraction(size), clock)
    elif by == "time":
        take_in_time(tape, found, whole, int(size), clock)
    else:
        tape.parts.append(whole)
        if by == "tick":
            if len(tape.parts) == size:
                close(tape, found, clock, complete=True)
        elif theta(tape.parts, by) >= tape.threshold.value:
            tape.threshold.learn(len(tape.parts), per_trade(tape.parts, by))
            close(tape, found, clock, complete=True)


def take_in_parts(tape: Tape, found: list[Row], whole: Part, by: str, full: Fraction, clock: str) -> None:
    """Fill bars to the edge. A trade of size 0 is a part of size 0, and may open a bar."""
    trade, left = whole.trade, whole
    amount = "size" if by == "volume" else "notional"
    while True:
        room = full - sum(getattr(part, amount) for part in tape.parts)
        if getattr(left, amount) < room:
            tape.parts.append(left)
            return
        size = room if by == "volume" else room / Fraction(trade["price"])
        part = Part(trade, size, size * Fraction(trade["price"]))
        tape.parts.append(part)
        close(tape, found, clock, complete=True)
        left = Part(trade, left.size - part.size, left.notional - part.notional)
        if left.size == 0:
            return


def take_in_time(tape: Tape, found: list[Row], whole: Part, every: int, clock: str) -> None:
    """Close the bar if the time has gone on to another interval: time is the running maximum in the run.

    A trade without a clock goes with those before it, or into a bar without a start.
    """
    time = whole.trade[clock]
    if time is not None:
        tape.time = time if tape.time is None else max(tape.time, time)
    start = None if tape.time is None else tape.time // every * every
    if start != tape.start:
        close(tape, found, clock, complete=True)
    tape.start = start
    tape.parts.append(whole)


def moment(trade: Row, clock: str) -> int | None:
    time: int | None = trade["capture_time"] if trade[clock] is None else trade[clock]
    return time


def theta(parts: list[Part], by: str) -> Fraction:
    bought, sold = amounts(parts, by)
    return abs(bought - sold) if by.endswith("_imbalance") else max(bought, sold)


def per_trade(parts: list[Part], by: str) -> list[Fraction]:
    bought, sold = amounts(parts, by)
    n = len(parts)
    return [(bought - sold) / n] if by.endswith("_imbalance") else [bought / n, sold / n]


def amounts(parts: list[Part], by: str) -> tuple[Fraction, Fraction]:
    """Sum up what was bought, and what was sold: trades, size or notional."""
    kind = by.split("_")[0]
    bought = sold = Fraction()
    for part in parts:
        amount = {"tick": Fraction(1), "volume": part.size, "notional": part.notional}[kind]
        if is_buy(part):
            bought += amount
        else:
            sold += amount
    return bought, sold


def is_buy(part: Part) -> bool:
    return bool(part.trade["aggressor_side"] == "buy")


def close(tape: Tape, found: list[Row], clock: str, *, complete: bool) -> None:
    """Write down the open bar, if there is one. Its times are what its first and its last trade tell."""
    parts = tape.parts
    start, tape.parts, tape.start = tape.start, [], None
    if not parts:
        return
    prices = [part.trade["price"] for part in parts]
    volume = sum(part.size for part in parts)
    notional = sum(part.notional for part in parts)
    found.append(
        {
            "product_id": tape.product_id,
            "bar": tape.bars,
            "start": start,
            "open": prices[0],
            "high": max(prices),
            "low": min(prices),
            "close": prices[-1],
            "vwap": None if volume == 0 else float(notional / volume),
            "volume": float(volume),
            "notional": float(notional),
            "buy_volume": float(sum(part.size for part in parts if is_buy(part))),
            "n_trades": len(parts),
            "first_time": moment(parts[0].trade, clock),
            "last_time": moment(parts[-1].trade, clock),
            "first_trade_id": parts[0].trade["trade_id"],
            "last_trade_id": parts[-1].trade["trade_id"],
            "is_complete": complete,
            "run": tape.run,
        }
    )
    tape.bars += 1


# --- of bars


def corwin_schultz(bars: Sequence[Row]) -> list[Row]:
    before: dict[str, Row] = {}
    found = []
    for bar in bars:
        last = before.get(bar["product_id"])
        goes_on = (
            last is not None and last["run"] == bar["run"] and last["is_complete"] and bar["is_complete"]
        )
        found.append({"corwin_schultz": high_low_spread(last, bar) if last and goes_on else None})
        before[bar["product_id"]] = bar
    return found


def high_low_spread(before: Row, bar: Row) -> float | None:
    """Give Corwin and Schultz's spread, in decimals: alpha is a small difference of what is not small."""
    told = [before["high"], before["low"], bar["high"], bar["low"]]
    if any(value is None or not math.isfinite(value) or value <= 0 for value in told):
        return None
    high_1, low_1, high_2, low_2 = (Decimal(value) for value in told)

    def squared_log(high: Decimal, low: Decimal) -> Decimal:
        log = DIGITS.ln(DIGITS.divide(high, low))
        return DIGITS.multiply(log, log)

    def root(value: Decimal) -> Decimal:
        return DIGITS.sqrt(value)

    beta = DIGITS.add(squared_log(high_1, low_1), squared_log(high_2, low_2))
    gamma = squared_log(max(high_1, high_2), min(low_1, low_2))
    k = DIGITS.subtract(Decimal(3), DIGITS.multiply(Decimal(2), root(Decimal(2))))
    first = DIGITS.divide(DIGITS.subtract(root(DIGITS.multiply(Decimal(2), beta)), root(beta)), k)
    growth = DIGITS.exp(DIGITS.subtract(first, root(DIGITS.divide(gamma, k))))
    above = DIGITS.multiply(Decimal(2), DIGITS.subtract(growth, Decimal(1)))
    spread = float(DIGITS.divide(above, DIGITS.add(Decimal(1), growth)))
    return None if spread < 0 else spread


# --- vpin


def vpin(
    trades: Sequence[Row],
    bucket_volume: float,
    n_buckets: int = 50,
    classify: str = "aggressor",
    holes: str = "restart",
    clock: str = "trade_time",
) -> list[Row]:
    bars = trade_bars(trades, "volume", bucket_volume, holes=holes, clock=clock)
    buckets = [bar for bar in bars if bar["is_complete"]]
    found = []
    for i, bucket in enumerate(buckets):
        run = [bar for bar in buckets[: i + 1] if all(bar[of] == bucket[of] for of in ("product_id", "run"))]
        # one value for every bucket of the run, None where it is not known yet
        shares: list[float | None]
        if classify == "aggressor":
            shares = [aggressor_share(bar) for bar in run]
        else:
            shares = [bulk_share(run[: k + 1], n_buckets) for k in range(len(run))]
        found.append(bucket | {"vpin": mean_of_last(shares, n_buckets)})
    return found


def mean_of_last(values: list[float | None], n: int) -> float | None:
    last = [value for value in values[-n:] if value is not None]
    return math.fsum(last) / n if len(last) == n else None


def aggressor_share(bucket: Row) -> float:
    """Give |Vb - Vs| / V, with Vb the column."""
    volume, bought = Fraction(bucket["volume"]), Fraction(bucket["buy_volume"])
    return float(abs(2 * bought - volume) / volume)


def bulk_share(run: list[Row], n: int) -> float | None:
    """Give |Vb - Vs| / V of a run's last bucket: |2 Phi(z) - 1| = |erf(z / sqrt 2)|, z = dp / sigma."""
    closes: list[Any] = [Fraction(bucket["close"]) for bucket in run]
    changes = [now - before for before, now in pairwise(closes)][-n:]
    if len(changes) < n or n < 2:  # a single change has no standard deviation
        return None
    mean = sum(changes) / n
    variance = sum((change - mean) ** 2 for change in changes) / (n - 1)
    if variance == 0:
        return 0.0
    return abs(math.erf(float(changes[-1]) / math.sqrt(2 * variance)))
