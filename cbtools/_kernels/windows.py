"""Sums over the last stretch of time, row by row, in constant time a row and without drift.

A sum is kept in two doubles, some 32 digits, to which what comes is added and from which exactly the same is
taken when it leaves: what the window held before leaves no trace in the 16 digits that are given out.

A *term* is what a row adds: see the kinds below. It may need the ``lag`` rows before its own; then it counts
as long as all of them are in the window.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

# kinds of terms: the value of a column; the product of one with another `shift` rows before; the square of the
# log change over `shift` rows; the integral over time of a column that holds from row to row
VALUE, PRODUCT, LOG_CHANGE, INTEGRAL = np.arange(4)
# columns of `terms`, a row a term
KIND, A, B, SHIFT, LAG = np.arange(5)
# places in `marks`: the first row in the window, and the time of the run's first row
TAIL, SINCE = np.arange(2)
# rows of `sums`, a column a term: the sum in two parts, and how many values in it are undefined, or not zero
HIGH, LOW, UNDEFINED, SOMETHING = np.arange(4)

NONE = np.iinfo(np.int64).min + np.int64(0)
_MISSING = np.nan
_SPLIT = 134217729.0  # 2**27 + 1


@inner
def _times(a: float, b: float) -> tuple[float, float]:
    """Multiply exactly: the product, and what rounding it left out (Dekker 1971)."""
    p = a * b
    x = a * _SPLIT
    a1 = x - (x - a)
    y = b * _SPLIT
    b1 = y - (y - b)
    a2, b2 = a - a1, b - b1
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


@inner
def _add(high: float, low: float, p: float, e: float) -> tuple[float, float]:
    """Add two sums of two parts (Knuth's two-sum, then renormalised)."""
    s = high + p
    v = s - high
    rest = ((high - (s - v)) + (p - v)) + (low + e)
    total = s + rest
    return total, rest - (total - s)


@inner
def _term(terms: I64, m: int, i: int, t: I64, x: F64) -> tuple[float, float]:
    """Give what row ``i`` adds to term ``m``, exactly."""
    kind, a = terms[m, KIND], terms[m, A]
    if kind == VALUE:
        return x[a, i], 0.0
    if kind == PRODUCT:
        return _times(x[a, i], x[terms[m, B], i - terms[m, SHIFT]])
    if kind == LOG_CHANGE:
        before = x[a, i - terms[m, SHIFT]]
        y = np.log1p((x[a, i] - before) / before)
        return _times(y, y)
    return _times(x[a, i - 1], np.float64(t[i] - t[i - 1]))


@inner
def _count(terms: I64, m: int, i: int, t: I64, x: F64, sign: float, sums: F64) -> None:
    """Add what row ``i`` adds to term ``m``, or take it away."""
    p, e = _term(terms, m, i, t, x)
    if p - p != 0.0 or e - e != 0.0:  # not finite
        sums[UNDEFINED, m] += sign
        return
    if p == 0.0:
        return
    sums[SOMETHING, m] += sign
    if sums[SOMETHING, m] == 0.0:  # exactly, whatever was rounded before
        sums[HIGH, m] = sums[LOW, m] = 0.0
    else:
        sums[HIGH, m], sums[LOW, m] = _add(sums[HIGH, m], sums[LOW, m], sign * p, sign * e)


@kernel
def slide(
    t: I64, x: F64, fresh: B1, begin: int, end: int, span: int, terms: I64, marks: I64, sums: F64,
    out: F64, out_low: F64, rows: I64,
) -> None:  # fmt: skip
    """Slide the window over rows ``begin`` to ``end``; give each term's sum, and how many rows are in it.

    ``fresh`` tells of each of these rows whether it begins a run. ``t`` becomes the running maximum. The sum
    is NaN where the window is not covered, or holds something undefined; ``out_low`` is its second part.
    """
    for i in range(begin, end):
        k = i - begin
        rows[k] = 0
        for m in range(len(terms)):
            out[m, k] = out_low[m, k] = _MISSING
        if fresh[k]:
            marks[TAIL], marks[SINCE] = i + 1, t[i]
            sums[:] = 0.0
            continue
        t[i] = max(t[i], t[i - 1])
        if marks[SINCE] == NONE:  # no row of the run has a time yet
            marks[TAIL], marks[SINCE] = i + 1, t[i]
            continue
        edge, tail = t[i] - span, marks[TAIL]
        while t[tail] <= edge:
            for m in range(len(terms)):
                if tail + terms[m, LAG] < i:
                    _count(terms, m, tail + terms[m, LAG], t, x, -1.0, sums)
            tail += 1
        marks[TAIL] = tail
        n = i - tail + 1
        for m in range(len(terms)):
            if n > terms[m, LAG]:
                _count(terms, m, i, t, x, 1.0, sums)
        if edge < marks[SINCE]:
            continue
        rows[k] = n
        for m in range(len(terms)):
            if sums[UNDEFINED, m] != 0.0:
                continue
            high, low = sums[HIGH, m], sums[LOW, m]
            if terms[m, KIND] == INTEGRAL:  # of the first row's stretch, what lies before the window
                p, e = _times(x[terms[m, A], tail - 1], np.float64(edge - t[tail - 1]))
                high, low = _add(high, low, -p, -e)
            out[m, k], out_low[m, k] = high, low


@inner
def _moment(n: float, xy: float, xy_low: float, x: float, x_low: float, y: float, y_low: float) -> float:
    """Give n Σxy - Σx Σy, which cancels: in two parts."""
    p, e = _times(n, xy)
    q, f = _times(x, y)
    return _add(p, e + n * xy_low, -q, -(f + x * y_low + y * x_low))[0]


@kernel
def regress(n: F64, sums: F64, low: F64, out: F64) -> None:
    """Regress y on x with intercept: n² times var(x), cov(x, y) and var(y), from Σx, Σy, Σxx, Σxy and Σyy."""
    for i in range(len(n)):
        x, x_low, y, y_low = sums[0, i], low[0, i], sums[1, i], low[1, i]
        out[0, i] = _moment(n[i], sums[2, i], low[2, i], x, x_low, x, x_low)
        out[1, i] = _moment(n[i], sums[3, i], low[3, i], x, x_low, y, y_low)
        out[2, i] = _moment(n[i], sums[4, i], low[4, i], y, y_low, y, y_low)
