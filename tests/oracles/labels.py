"""What stands beside the features, written to be read: level flow, labels, integrated OFI, samples and bars.

Rows, runs and arithmetic are those of `oracles.features`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from oracles.clocks import receive_times
from oracles.features import Row, Step, defined, log_return, mid, ofi, parsed, runs, spread

SIDES = ("bid", "ask")
MAKER = {"bid": "buy", "ask": "sell"}
"""Who rests on a side: a buyer's order stands among the bids."""


# --- level flow


def level_flow(
    rows: Sequence[Row], trades: Sequence[Row], levels: int, depth: int, clock: str = "capture_time"
) -> list[Row]:
    """Give for every row what was added, executed and cancelled at its levels since the row before."""
    whats = ("added", "executed", "cancelled", "unexplained")
    names = [f"{what}_{side}_{k}" for what in whats for side in SIDES for k in range(1, levels + 1)]
    found: list[Row] = [dict.fromkeys(names) for _ in rows]
    for run in runs(rows, clock):
        for before, now in itertools.pairwise(run):
            told = found[now.place]
            traded = None if before.time is None else trades_between(trades, before, now, clock)
            for side in SIDES:
                for k in range(1, levels + 1):
                    told[f"added_{side}_{k}"] = added(before.row, now.row, side, k, depth)
                    taken = executed_cancelled_unexplained(before.row, now.row, side, k, depth, traded)
                    for what, value in zip(whats[1:], taken, strict=True):
                        told[f"{what}_{side}_{k}"] = value
    return found


def trades_between(trades: Sequence[Row], before: Step, now: Step, clock: str) -> list[Row]:
    """Give the product's trades in (T_before, T_now].

    The book rows' times are the effective ones; a trade's is its own clock as it stands, since trades may
    step back (or restart) independently of the book.
    """
    return [
        trade
        for trade in trades
        if trade["product_id"] == now.row["product_id"]
        and not trade["is_snapshot"]
        and trade[clock] is not None
        and before.time < trade[clock] <= now.time
    ]


def shown(row: Row, side: str, depth: int) -> dict[float, float]:
    """Give a side's levels, price to size."""
    pairs = [(row[f"{side}_price_{k}"], row[f"{side}_size_{k}"]) for k in range(1, depth + 1)]
    return {price: size for price, size in pairs if price is not None}


def size_at(price: float, row: Row, side: str, depth: int) -> float | None:
    """Give the size at a price; None if the price lies beyond what the row shows."""
    there = shown(row, side, depth)
    if price in there:
        return there[price]
    whole_side = len(there) < depth
    if whole_side or (price > min(there) if side == "bid" else price < max(there)):
        return 0.0
    return None


def added(before: Row, now: Row, side: str, k: int, depth: int) -> float | None:
    price = now[f"{side}_price_{k}"]
    if price is None:
        return None
    size_before = size_at(price, before, side, depth)
    return None if size_before is None else max(0.0, now[f"{side}_size_{k}"] - size_before)


def executed_cancelled_unexplained(
    before: Row, now: Row, side: str, k: int, depth: int, trades: Sequence[Row] | None
) -> tuple[float | None, ...]:
    price = before[f"{side}_price_{k}"]
    size_now = None if price is None else size_at(price, now, side, depth)
    if size_now is None or trades is None:
        return None, None, None
    decrease = max(0.0, before[f"{side}_size_{k}"] - size_now)
    traded = math.fsum(
        trade["size"] for trade in trades if trade["maker_side"] == MAKER[side] and trade["price"] == price
    )
    executed = min(decrease, traded)
    return executed, decrease - executed, max(0.0, traded - decrease)


# --- labels: they look ahead


def moved_bps(step: Step, later: Step) -> float:
    """Give the move in doubles, as the formula stands: this decides whether a barrier is just touched."""
    m = mid(step.row)
    return 1e4 * (mid(later.row) - m) / m


def label_return(run: Sequence[Step], i: int, h: int) -> float | None:
    end = run[i].time + h
    if run[-1].time < end:
        return None
    last = [step for step in run if step.time <= end][-1]
    return log_return(run[i].row, last.row)


def label_triple_barrier(run: Sequence[Step], i: int, x: float, y: float, h: int) -> int | None:
    end = run[i].time + h
    for later in run[i + 1 :]:
        if later.time > end:
            break
        move = moved_bps(run[i], later)
        if move >= x:
            return 1
        if move <= -y:
            return -1
    return 0 if run[-1].time >= end else None


def label_time_to_move(run: Sequence[Step], i: int, x: float) -> int | None:
    for later in run[i + 1 :]:
        if abs(moved_bps(run[i], later)) >= x:
            return later.time - run[i].time
    return None


LABELS: dict[str, Callable[..., Any]] = {
    "label_return_{h}": label_return,
    "label_triple_barrier_{x}_{y}bps_{h}": label_triple_barrier,
    "label_time_to_move_{x}bps": label_time_to_move,
}


def labels(rows: Sequence[Row], names: Sequence[str], clock: str = "exchange") -> list[Row]:
    """Return for every row the labels that are named; horizons are of server_time, or of the receive time."""
    if clock not in ("exchange", "receive"):
        raise ValueError(clock)
    column = "server_time" if clock == "exchange" else "receive_time"
    timed_rows = [row | {"receive_time": time} for row, time in zip(rows, receive_times(rows), strict=True)]
    found: list[Row] = [dict.fromkeys(names) for _ in rows]
    for name in names:
        label = parsed(name, LABELS)
        if label is None:
            raise ValueError(f"no such label: {name}")
        function, parts = label
        for run in runs(timed_rows, column):
            timed = [step for step in run if step.time is not None]
            for i, step in enumerate(timed):
                found[step.place][name] = defined(function, timed, i, **parts)
    return found


# --- integrated OFI


def integrated_weights(rows_of_ofis: Sequence[Sequence[float | None]]) -> Row:
    """Give the first principal component's weights, and the share of the variance that it explains.

    ``rows_of_ofis`` holds (ofi_1, ..., ofi_k) of each row; rows with a None are left out.
    """
    known = [[Fraction(one) for one in row if one is not None] for row in rows_of_ofis if None not in row]
    n, k = len(known), len(known[0])
    means = [sum(row[i] for row in known) / n for i in range(k)]
    covariance = [
        [float(sum((row[i] - means[i]) * (row[j] - means[j]) for row in known) / (n - 1)) for j in range(k)]
        for i in range(k)
    ]
    variances, components = np.linalg.eigh(np.array(covariance))
    first = [float(one) for one in components[:, -1]]  # eigh gives the variances in ascending order
    length = math.fsum(abs(one) for one in first)
    sign = 1 if math.fsum(first) >= 0 else -1
    total = math.fsum(covariance[i][i] for i in range(k))
    return {"weights": [sign * one / length for one in first], "share": float(variances[-1]) / total}


def mean_depth(rows: Sequence[Row], levels: int) -> float:
    """Give the mean of (bid size + ask size) / 2 over the ok rows' ranks at which both sides have a level."""
    pairs = [
        (row[f"bid_size_{k}"], row[f"ask_size_{k}"])
        for row in rows
        if row["book_state"] == "ok"
        for k in range(1, levels + 1)
    ]
    known = [pair for pair in pairs if None not in pair]
    return float(sum(Fraction(bid) + Fraction(ask) for bid, ask in known) / 2 / len(known))


def integrated_ofi(ofis: Sequence[float | None], weights: Sequence[float], depth: float) -> float | None:
    if None in ofis:
        return None
    terms = [Fraction(w) * Fraction(one) for w, one in zip(weights, ofis, strict=True) if one is not None]
    return float(sum(terms) / Fraction(depth))


# --- samples and bars: rows come in the order of the row that gives them out

AT_THE_END = math.inf


def by_product(rows: Sequence[Row]) -> dict[Any, list[tuple[int, Row]]]:
    """Give each product's rows with their places, products in order of first appearance."""
    found: dict[Any, list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        found.setdefault(row.get("product_id"), []).append((place, row))
    return found


def sampled(rows: Sequence[Row], every_ns: int, clock: str = "capture_time") -> list[Row]:
    """Give what was known at every boundary; gaps do not matter, an unproven row is what was known."""
    timed = [row for row in rows if row[clock] is not None]
    found = []
    for order, own in enumerate(by_product(timed).values()):
        times = list(itertools.accumulate((row[clock] for _, row in own), max))
        boundary = -(-times[0] // every_ns) * every_ns
        while boundary <= times[-1]:
            known = [i for i, time in enumerate(times) if time <= boundary]
            later = [place for (place, _), time in zip(own, times, strict=True) if time > boundary]
            new = [i for i in known if times[i] > boundary - every_ns and not is_break(own, i)]
            told = sample(own[known[-1]][1], boundary, boundary - times[known[-1]], len(new))
            found.append(((later[0] if later else AT_THE_END, order, boundary), told))
            boundary += every_ns
    return [told for _, told in sorted(found, key=lambda one: one[0])]


def is_break(rows: Sequence[tuple[int, Row]], i: int) -> bool:
    """Return whether a product's book becomes unproven with a row, which is then no update of it."""
    states = [row.get("book_state") for _, row in rows[max(i - 1, 0) : i + 1]]
    return len(states) == 2 and states[1] == "unproven" != states[0]


def sample(row: Row, boundary: int, staleness: int, n_updates: int) -> Row:
    told: Row = {"product_id": row["product_id"]} if "product_id" in row else {}
    told["sample_time"] = boundary
    told |= {name: value for name, value in row.items() if name != "product_id"}
    return told | {"staleness_ns": staleness, "n_updates": n_updates}


def book_bars(rows: Sequence[Row], every_ns: int, clock: str = "capture_time") -> list[Row]:
    """Give the bars of the mid, in the order in which they close."""
    products = by_product(rows)
    order = {product: n for n, product in enumerate(products)}
    found = []
    for run in runs(rows, clock):
        product = run[0].row.get("product_id")
        intervals: dict[int | None, list[int]] = {}
        for i, step in enumerate(run):
            # Rows before the run's first known time are in a bar without a start.
            interval = None if step.time is None else step.time // every_ns
            intervals.setdefault(interval, []).append(i)
        bars = list(intervals.values())
        for bar, next_bar in itertools.zip_longest(bars, bars[1:]):
            if next_bar is not None:
                closed_at: float = run[next_bar[0]].place
            else:
                # Whatever row of the product comes next has ended the run.
                later = [place for place, _ in products[product] if place > run[-1].place]
                closed_at = later[0] if later else AT_THE_END
            told = book_bar(run, bar, every_ns, clock, is_complete=next_bar is not None)
            found.append(((closed_at, order[product]), told))
    return [told for _, told in sorted(found, key=lambda one: one[0])]


def book_bar(run: Sequence[Step], bar: Sequence[int], every_ns: int, clock: str, *, is_complete: bool) -> Row:
    first, last = run[bar[0]], run[bar[-1]]
    mids = [mid(run[i].row) for i in bar]
    # A run's first row has no flow; where there is no other, the bar's flow is not known, and not 0.
    flows = [ofi(run[i - 1].row, run[i].row) for i in bar if i > 0]
    known = [flow for flow in flows if flow is not None]
    return {
        "product_id": first.row.get("product_id"),
        "start": None if first.time is None else first.time // every_ns * every_ns,
        "open": mids[0],
        "high": max(mids),
        "low": min(mids),
        "close": mids[-1],
        "ofi": math.fsum(known) if known else None,
        "mean_spread": math.fsum(spread(run[i].row) for i in bar) / len(bar),
        "n_updates": len(bar),
        "first_time": moment(first.row, clock),
        "last_time": moment(last.row, clock),
        "is_complete": is_complete,
    }


def moment(row: Row, clock: str) -> int | None:
    time: int | None = row.get("capture_time") if row[clock] is None else row[clock]
    return time
