"""Sums over the levels that rows of the book show, each taken afresh from the best outwards.

``price`` and ``size`` are of one side, a row a level and a column a row of the book; a level that is not
there is NaN in both, and so are those behind it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import kernel

F64 = npt.NDArray[np.float64]

_MISSING = np.nan


@kernel
def add_sizes(size: F64, end: int, out: F64) -> None:
    """Add the sizes of the levels."""
    for k in range(end):
        for i in range(size.shape[1]):
            q = size[k, i]
            out[i] += q if q == q else 0.0


@kernel
def add_notionals(price: F64, size: F64, end: int, out: F64) -> None:
    """Add price times size of the levels."""
    for k in range(end):
        for i in range(size.shape[1]):
            v = price[k, i] * size[k, i]
            out[i] += v if v == v else 0.0


@kernel
def add_squares(size: F64, total: F64, end: int, out: F64) -> None:
    """Add the squares of the levels' shares in the total."""
    for k in range(end):
        for i in range(size.shape[1]):
            share = size[k, i] / total[i]
            out[i] += share * share if share == share else 0.0


@kernel
def add_weighted(price: F64, size: F64, mid: F64, decay_bps: float, end: int, out: F64) -> None:
    """Add the sizes, weighted by exp(-distance / decay)."""
    for i in range(size.shape[1]):
        scale = -1e4 / (mid[i] * decay_bps)
        total = 0.0
        for k in range(end):
            if size[k, i] != size[k, i]:
                break
            total += size[k, i] * np.exp(abs(price[k, i] - mid[i]) * scale)
        out[i] = total


@kernel
def add_deviations(price: F64, size: F64, mid: F64, end: int, out: F64) -> None:
    """Add (price - mid) times size: the difference first, or its digits are lost in the price's."""
    for k in range(end):
        for i in range(size.shape[1]):
            v = (price[k, i] - mid[i]) * size[k, i]
            out[i] += v if v == v else 0.0


@kernel
def fill_notional(price: F64, size: F64, mid: F64, notional: float, out: F64) -> None:
    """Give how far from mid, in the mean, a notional is filled, best levels first; NaN if they are few."""
    for i in range(size.shape[1]):
        left, quantity, deviation = notional, 0.0, 0.0
        for k in range(size.shape[0]):
            p, q = price[k, i], size[k, i]
            if q != q or left <= 0.0:
                break
            whole = p * q < left
            filled = q if whole else left / p
            left = left - p * q if whole else 0.0
            quantity += filled
            deviation += (p - mid[i]) * filled
        out[i] = deviation / quantity if left <= 0.0 else _MISSING


@kernel
def fit_slopes(price: F64, size: F64, mid: F64, end: int, out: F64) -> None:
    """Regress cumulative size on distance from mid in bps, with intercept; NaN with fewer than 2 levels."""
    for i in range(size.shape[1]):
        n, sum_x, sum_y, total = 0, 0.0, 0.0, 0.0
        for k in range(end):
            if size[k, i] != size[k, i]:
                break
            n += 1
            total += size[k, i]
            sum_x += abs(price[k, i] - mid[i])
            sum_y += total
        out[i] = _MISSING
        if n < 2:
            continue
        mean_x, mean_y = sum_x / n, sum_y / n
        total, sxx, sxy = 0.0, 0.0, 0.0
        for k in range(n):
            total += size[k, i]
            x = abs(price[k, i] - mid[i]) - mean_x
            sxx += x * x
            sxy += x * (total - mean_y)
        if sxx > 0.0:
            out[i] = sxy / sxx * (mid[i] / 1e4)
