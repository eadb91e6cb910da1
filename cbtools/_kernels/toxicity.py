"""VPIN: what bars of equal volume tell. Its means are taken afresh at each bucket, and so do not drift."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Pair = tuple[float, float]

# places in `counts`, a row a code: run of the last bucket; its shares and price changes so far
RUN, SHARES, CHANGES = np.arange(3)

_MISSING = np.nan


@inner
def _two_sum(a: float, b: float) -> Pair:
    """Add two doubles exactly (Knuth)."""
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


@kernel
def vpin(
    codes: I64, run: I64, close: F64, volume: F64, bought: F64, by_price: bool, counts: I64, last_close: F64,
    shares: F64, changes: F64, out: F64,
) -> None:  # fmt: skip
    """Give the mean of |Vb - Vs| / V over the last buckets of the run; not a number until there are so many.

    ``shares`` and ``changes`` are rings, a row a code, of what the last buckets had.
    """
    n = shares.shape[1]
    for i in range(len(codes)):
        code = codes[i]
        count = counts[code]
        out[i] = _MISSING
        is_first = count[RUN] != run[i]
        if is_first:
            count[RUN], count[SHARES], count[CHANGES] = run[i], 0, 0
        change = close[i] - last_close[code]
        last_close[code] = close[i]
        share = abs(2.0 * bought[i] - volume[i]) / volume[i]
        if by_price:
            if is_first:
                continue
            changes[code, count[CHANGES] % n] = change
            count[CHANGES] += 1
            if count[CHANGES] < n:
                continue
            share = _share_by_price(changes[code], change)
        shares[code, count[SHARES] % n] = share
        count[SHARES] += 1
        if count[SHARES] >= n:
            out[i] = _mean(shares[code])


@inner
def _mean(values: F64) -> float:
    total, low = 0.0, 0.0
    for value in values:
        total, rest = _two_sum(total, value)
        low += rest
    return (total + low) / len(values)


@inner
def _share_by_price(changes: F64, change: float) -> float:
    """Give |Vb - Vs| / V with Vb = V Φ(z), z = change / σ: it is |2 Φ(z) - 1| = |erf(z / √2)|."""
    # from the first on: what they have in common would leave nothing of what they differ in
    base, mean = changes[0], 0.0
    for value in changes:
        mean += (value - base) / len(changes)
    squares, low, same = 0.0, 0.0, True
    for value in changes:
        same = same and value == base
        squares, rest = _two_sum(squares, (value - base - mean) ** 2)
        low += rest
    if same:  # σ is 0: half was bought
        return 0.0
    return abs(math.erf(change / math.sqrt(2.0 * (squares + low) / (len(changes) - 1))))
