"""What the features of the book are, written to be read: the judge of the package's expressions and kernels.

Rows are dicts: product_id, the levels (bid_price_1, ...; None where there is none), book_state, proven_since
and the clocks (int, ns, or None). It knows nothing of the package, and it is slow: every window is walked
afresh for every row.

Two kinds of arithmetic. What is a formula of one row is exact (rationals of the given doubles) and rounded
once at the end; so is what combines several sums. But m is the double (a + b) / 2, and `ofi`, `log_return`
and `spread` are the doubles that stand in their columns: the windows sum those, by `math.fsum`.

Undefined is None. A division by zero, the logarithm of what is not positive, and whatever is not finite are
all undefined, and Python raises for each of them: that is caught in one place, `defined`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Row = dict[str, Any]
Level = tuple[Fraction, Fraction]
"""Price and size."""


@dataclass
class Step:
    """A row of a run: where it stands in the frame, and its effective time (None: none is known yet)."""

    place: int
    row: Row
    time: Any


# --- runs: the one rule behind "never spans a gap"


def runs(rows: Sequence[Row], clock: str) -> list[list[Step]]:
    """Part the rows into runs; a row that is not ok is in none."""
    found: list[list[Step]] = []
    running: dict[Any, list[Step]] = {}
    befores: dict[Any, Row] = {}
    for place, row in enumerate(rows):
        product = row.get("product_id")
        before = befores.get(product)
        befores[product] = row
        if row["book_state"] != "ok":
            continue
        if before is None or not follows(before, row):
            running[product] = []
            found.append(running[product])
        # The clock may step back, or lack; the effective time does neither, once there is one.
        so_far = [step.time for step in running[product][-1:]]
        time = max((one for one in (*so_far, row[clock]) if one is not None), default=None)
        running[product].append(Step(place, row, time))
    return found


def follows(before: Row, row: Row) -> bool:
    both_ok = before["book_state"] == "ok" and row["book_state"] == "ok"
    same_book = row["proven_since"] is not None and before["proven_since"] == row["proven_since"]
    return both_ok and same_book


def window_start(run: Sequence[Step], i: int, width: int) -> int | None:
    """Give the first step of the window (T_i - width, T_i], None if the run does not cover it.

    A covered window begins at the run's first time or later, and is open there: the step that is given has
    one before it.
    """
    if run[i].time is None:
        return None
    begin = run[i].time - width
    if begin < next(step.time for step in run if step.time is not None):
        return None
    first = i
    while run[first - 1].time > begin:
        first -= 1
    return first


# --- of one row


def levels(row: Row, side: str, k: int | None = None) -> list[Level]:
    """Give the first k levels of those there are (all that the row shows), best first."""
    found = []
    rank = 1
    while f"{side}_price_{rank}" in row and (k is None or rank <= k):
        price, size = row[f"{side}_price_{rank}"], row[f"{side}_size_{rank}"]
        if price is not None and size is not None:
            found.append((Fraction(price), Fraction(size)))
        rank += 1
    return found


def mid(row: Row) -> float:
    return finite((row["bid_price_1"] + row["ask_price_1"]) / 2)


def spread(row: Row) -> float:
    return finite(row["ask_price_1"] - row["bid_price_1"])


def finite(value: float) -> float:
    if not math.isfinite(value):
        raise OverflowError(value)
    return value


def bps(value: Fraction, m: float) -> Fraction:
    return 10_000 * value / Fraction(m)


def distance(row: Row, price: Fraction) -> Fraction:
    m = mid(row)
    return bps(abs(price - Fraction(m)), m)


def spread_bps(row: Row) -> Fraction:
    return bps(Fraction(spread(row)), mid(row))


def microprice(row: Row) -> Fraction:
    ((b, qb),) = levels(row, "bid", 1)
    ((a, qa),) = levels(row, "ask", 1)
    return (a * qb + b * qa) / (qb + qa)


def microprice_dev_bps(row: Row) -> Fraction:
    m = mid(row)
    # The microprice of the formula, not the rounded one of the column: the difference is small.
    return bps(microprice(row) - Fraction(m), m)


def depth(row: Row, side: str, k: int) -> Fraction:
    return sum((size for _, size in levels(row, side, k)), Fraction(0))


def depth_notional(row: Row, side: str, k: int) -> Fraction:
    return sum((price * size for price, size in levels(row, side, k)), Fraction(0))


def imbalance(row: Row, k: int) -> Fraction:
    bids, asks = depth(row, "bid", k), depth(row, "ask", k)
    return (bids - asks) / (bids + asks)


def vamp(row: Row, k: int) -> Fraction:
    bids, asks = depth(row, "bid", k), depth(row, "ask", k)
    mean_bid = depth_notional(row, "bid", k) / bids
    mean_ask = depth_notional(row, "ask", k) / asks
    return (mean_bid * asks + mean_ask * bids) / (bids + asks)


def sweep(row: Row, way: str, x: float) -> Fraction | None:
    left, base = Fraction(x), Fraction(0)
    for price, size in levels(row, "ask" if way == "buy" else "bid"):
        if left == 0:
            break
        spent = min(left, price * size)
        base += spent / price
        left -= spent
    if left > 0:
        return None
    m = mid(row)
    mean = Fraction(x) / base
    return bps(mean - Fraction(m) if way == "buy" else Fraction(m) - mean, m)


def slope(row: Row, side: str, k: int) -> Fraction | None:
    """Give the least squares' slope of cumulative size on distance from mid."""
    shown = levels(row, side, k)
    n = len(shown)
    if n < 2:
        return None
    xs = [distance(row, price) for price, _ in shown]
    ys = [sum((size for _, size in shown[: i + 1]), Fraction(0)) for i in range(n)]
    x_mean, y_mean = sum(xs, Fraction(0)) / n, sum(ys, Fraction(0)) / n
    xy = sum(((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)), Fraction(0))
    xx = sum(((x - x_mean) ** 2 for x in xs), Fraction(0))
    return xy / xx


def concentration(row: Row, side: str, k: int) -> Fraction:
    # "Side size" is that of the same k levels: shares add up to 1.
    total = depth(row, side, k)
    return sum(((size / total) ** 2 for _, size in levels(row, side, k)), Fraction(0))


def center_of_gravity_bps(row: Row, k: int) -> Fraction:
    shown = levels(row, "bid", k) + levels(row, "ask", k)
    center = sum(price * size for price, size in shown) / sum((size for _, size in shown), Fraction(0))
    return bps(center - Fraction(mid(row)), mid(row))


def smart_depth_imbalance(row: Row, k: int, x: float) -> Fraction:
    weighted = {"bid": Fraction(0), "ask": Fraction(0)}
    for side in weighted:
        for price, size in levels(row, side, k):
            weighted[side] += size * Fraction(math.exp(-distance(row, price) / Fraction(x)))
    return (weighted["bid"] - weighted["ask"]) / (weighted["bid"] + weighted["ask"])


# --- of the change from the row before


def ofi(before: Row, row: Row, k: int = 1) -> float | None:
    """Give the order flow imbalance at rank k, in doubles as the formula stands."""
    names = [f"{side}_{what}_{k}" for side in ("bid", "ask") for what in ("price", "size")]
    if any(one[name] is None for one in (before, row) for name in names):
        return None
    b, qb, a, qa = (row[name] for name in names)
    b_before, qb_before, a_before, qa_before = (before[name] for name in names)
    bid_change = qb if b > b_before else -qb_before if b < b_before else qb - qb_before
    ask_change = qa if a < a_before else -qa_before if a > a_before else qa - qa_before
    return finite(bid_change - ask_change)


def log_return(before: Row, row: Row) -> float:
    """Give ln(m / m_before), also right where the two are close, or far from each other."""
    m_before, m = Fraction(mid(before)), Fraction(mid(row))
    change = (m - m_before) / m_before
    return math.log1p(change) if abs(change) < Fraction(1, 2) else math.log(m / m_before)


# --- of a window: the steps first..last of a run


def returns(run: Sequence[Step], first: int, last: int) -> list[float]:
    return [log_return(run[j - 1].row, run[j].row) for j in range(first, last + 1)]


def window_ofi(run: Sequence[Step], first: int, last: int, w: int, k: int = 1) -> float | None:
    flows = [ofi(run[j - 1].row, run[j].row, k) for j in range(first, last + 1)]
    known = [flow for flow in flows if flow is not None]
    return math.fsum(known) if len(known) == len(flows) else None


def window_return(run: Sequence[Step], first: int, last: int, w: int) -> float:
    return math.fsum(returns(run, first, last))


def realized_variance(run: Sequence[Step], first: int, last: int, w: int) -> float:
    return math.fsum(r * r for r in returns(run, first, last))


def realized_volatility(run: Sequence[Step], first: int, last: int, w: int) -> float:
    return math.sqrt(realized_variance(run, first, last, w))


def bipower_variation(run: Sequence[Step], first: int, last: int, w: int) -> float | None:
    rs = returns(run, first, last)
    if len(rs) < 2:
        return None
    return math.pi / 2 * math.fsum(abs(rs[i]) * abs(rs[i - 1]) for i in range(1, len(rs)))


def two_scale_variance(run: Sequence[Step], first: int, last: int, w: int, scale: int) -> Fraction | None:
    """Give Zhang, Mykland & Aït-Sahalia's estimate, in the form for small samples."""
    # The prices Y_0..Y_n: the row before the window's first, and the window's rows.
    rows = [run[j].row for j in range(first - 1, last + 1)]
    n = len(rows) - 1
    if n < scale:
        return None
    fast = sum(Fraction(log_return(rows[i - 1], rows[i])) ** 2 for i in range(1, n + 1))
    slow = sum(Fraction(log_return(rows[i - scale], rows[i])) ** 2 for i in range(scale, n + 1)) / scale
    share = Fraction(n - scale + 1, scale) / n
    return (slow - share * fast) / (1 - share)


def spread_twa(run: Sequence[Step], first: int, last: int, w: int) -> Fraction:
    begin = run[last].time - w
    area = Fraction(0)
    # The window opens on the spread of the row before its first; the last row's begins to hold at its end.
    for j in range(first - 1, last):
        area += Fraction(spread(run[j].row)) * (run[j + 1].time - max(run[j].time, begin))
    return area / w


# --- names

OF_A_ROW: dict[str, Callable[..., Any]] = {
    "mid": mid,
    "spread": spread,
    "spread_bps": spread_bps,
    "microprice": microprice,
    "microprice_dev_bps": microprice_dev_bps,
    "imbalance_{k}": imbalance,
    "{side}_depth_{k}": depth,
    "{side}_depth_notional_{k}": depth_notional,
    "vamp_{k}": vamp,
    "sweep_{way}_{x}_bps": sweep,
    "{side}_slope_{k}": slope,
    "{side}_concentration_{k}": concentration,
    "center_of_gravity_bps_{k}": center_of_gravity_bps,
    "smart_depth_imbalance_{k}_{x}bps": smart_depth_imbalance,
}
"""n_bids, n_asks and the bands are not here: the rebuild makes them, and `oracles.book` judges it."""

OF_A_CHANGE: dict[str, Callable[..., Any]] = {"ofi": ofi, "ofi_{k}": ofi, "log_return": log_return}

OF_A_WINDOW: dict[str, Callable[..., Any]] = {
    "ofi_{w}": window_ofi,
    "ofi_{k}_{w}": window_ofi,
    "return_{w}": window_return,
    "realized_variance_{w}": realized_variance,
    "realized_volatility_{w}": realized_volatility,
    "bipower_variation_{w}": bipower_variation,
    "two_scale_variance_{w}_{scale}": two_scale_variance,
    "spread_twa_{w}": spread_twa,
}

UNITS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}


def duration(text: str) -> int:
    """Give the nanoseconds of "1m30s"."""
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)(ns|us|ms|s|m|h|d)", text))


WHOLE, NUMBER = r"[1-9]\d*", r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
SPAN = r"(?:\d+(?:ns|us|ms|s|m|h|d))+"
PARTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "side": ("bid|ask", str),
    "way": ("buy|sell", str),
    "k": (WHOLE, int),
    "scale": (WHOLE, int),
    "x": (NUMBER, float),
    "y": (NUMBER, float),
    "w": (SPAN, duration),
    "h": (SPAN, duration),
}


def parsed(name: str, forms: dict[str, Callable[..., Any]]) -> tuple[Callable[..., Any], Row] | None:
    """Find the form that a name has: its function, and what stands in the place of the braces."""
    for form, function in forms.items():
        pattern = re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{PARTS[part[1]][0]})", form)
        match = re.fullmatch(pattern, name)
        if match:
            return function, {part: PARTS[part][1](text) for part, text in match.groupdict().items()}
    return None


def defined(function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """Call a function; undefined is None."""
    try:
        value = function(*arguments, **more)
        return float(value) if isinstance(value, Fraction) else value
    except (ArithmeticError, ValueError):
        return None


def book_features(rows: Sequence[Row], names: Sequence[str], clock: str = "capture_time") -> list[Row]:
    """Give for every row the features that are named."""
    found: list[Row] = [dict.fromkeys(names) for _ in rows]
    for name in names:
        if of_a_row := parsed(name, OF_A_ROW):
            function, parts = of_a_row
            for row, told in zip(rows, found, strict=True):
                if row["book_state"] == "ok":
                    told[name] = defined(function, row, **parts)
        elif of_a_change := parsed(name, OF_A_CHANGE):
            function, parts = of_a_change
            for run in runs(rows, clock):
                for i in range(1, len(run)):
                    told = found[run[i].place]
                    told[name] = defined(function, run[i - 1].row, run[i].row, **parts)
        elif of_a_window := parsed(name, OF_A_WINDOW):
            function, parts = of_a_window
            for run in runs(rows, clock):
                for i in range(len(run)):
                    first = window_start(run, i, parts["w"])
                    if first is not None:
                        found[run[i].place][name] = defined(function, run, first, i, **parts)
        else:
            raise ValueError(f"no such feature: {name}")
    return found
