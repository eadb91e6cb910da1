"""What was added, cancelled and executed at a book's levels, from one row to the next.

Of each row the levels of one side stand in a row of ``prices`` and ``sizes``, the best first, NaN where there
is none. The products' last rows of earlier batches stand before those of the batch, by code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

NONE = np.iinfo(np.int64).min + np.int64(0)
_MISSING = np.nan
# places in the first dimension of `out`
ADDED, CANCELLED, EXECUTED, UNEXPLAINED = np.arange(4)


@kernel
def advance(codes: I64, t: I64, follows: B1, last_time: I64) -> None:
    """Let the times be running maxima in their runs; ``last_time`` is kept by code."""
    for i in range(len(t)):
        c = codes[i]
        if follows[i]:
            t[i] = max(t[i], last_time[c])
        last_time[c] = t[i]


@kernel
def last_places(codes: I64, begin: int, last: I64) -> None:
    """Note where each product's last row stands."""
    for i in range(len(codes)):
        last[codes[i]] = begin + i


@inner
def _size_at(price: float, prices: F64, sizes: F64, sign: float) -> float:
    """Give the size at a price, 0 where a row shows that there is none, NaN where it does not show so far.

    ``sign`` is 1 for bids, of which the best is the highest, and -1 for asks.
    """
    for k in range(len(prices)):
        if prices[k] == price:
            return float(sizes[k])
        if not sign * (prices[k] - price) > 0.0:  # there is no such level, or a worse one: it would be here
            return 0.0
    return _MISSING


@inner
def _traded(price: float, prices: F64, sizes: F64, first: np.int64, end: np.int64) -> float:
    total = 0.0
    for j in range(first, end):
        if prices[j] == price:
            total += sizes[j]
    return total


@kernel
def level_flow(
    prices: F64, sizes: F64, sign: float, before: I64, begin: int, follows: B1, seen_before: I64, seen: I64,
    trade_prices: F64, trade_sizes: F64, out: F64,
) -> None:  # fmt: skip
    """Compare each row with the one before it, at as many ranks as ``out`` has.

    Between the two the trades from ``seen_before`` to ``seen`` were received; -1: that is not known.
    """
    for i in range(len(before)):
        out[:, :, i] = _MISSING
        if not follows[i]:
            continue
        now = begin + i
        then = begin + before[i] if before[i] >= 0 else -1 - before[i]
        for k in range(out.shape[1]):
            price = prices[now, k]
            if price == price:
                size = _size_at(price, prices[then], sizes[then], sign)
                out[ADDED, k, i] = max(sizes[now, k] - size, 0.0) if size == size else _MISSING
            price = prices[then, k]
            if price != price or seen_before[i] < 0:
                continue
            size = _size_at(price, prices[now], sizes[now], sign)
            if size != size:
                continue
            decrease = max(sizes[then, k] - size, 0.0)
            traded = _traded(price, trade_prices, trade_sizes, seen_before[i], seen[i])
            executed = min(decrease, traded)
            out[EXECUTED, k, i], out[CANCELLED, k, i] = executed, decrease - executed
            out[UNEXPLAINED, k, i] = max(traded - decrease, 0.0)
