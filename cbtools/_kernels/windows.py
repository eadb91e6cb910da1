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

# kinds of terms: the value of a column; the product of two; the square of the log change over `shift` rows;
# the integral over time of a column that holds from row to row
VALUE, PRODUCT, LOG_CHANGE, INTEGRAL = np.arange(4)
# columns of `terms`, a row a term
KIND, A, B, SHIFT, LAG = np.arange(5)
# places in `marks`: the first row in the window, and the time of the run's first row
TAIL, SINCE = np.arange(2)
# places in `kept`: the sum in two parts; how many values in it are undefined, and how many are not zero; and
# the first row
HIGH, LOW, UNDEFINED, SOMETHING, FIRST = np.arange(5)

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
def _term(kind: np.int64, a: F64, b: F64, shift: np.int64, i: np.int64, t: I64) -> tuple[float, float]:
    """Give what row ``i`` adds, exactly."""
    if kind == VALUE:
        return a[i], 0.0
    if kind == PRODUCT:
        return _times(a[i], b[i])
    if kind == LOG_CHANGE:
        y = np.log1p((a[i] - a[i - shift]) / a[i - shift])
        return _times(y, y)
    return _times(a[i - 1], np.float64(t[i] - t[i - 1]))


@kernel
def edges(
    t: I64, fresh: B1, begin: int, end: int, span: int, marks: I64, tails: I64, begins: B1, rows: I64
) -> None:
    """Find the window of each row from ``begin`` to ``end``: its first row, and how many there are.

    ``fresh`` rows begin a run. ``t`` becomes the running maximum in it. ``rows`` is 0 where the run does not
    cover the window; ``begins`` marks the rows behind which the next windows begin.
    """
    tail, since = marks[TAIL], marks[SINCE]
    for i in range(begin, end):
        k = i - begin
        if not fresh[k]:
            t[i] = max(t[i], t[i - 1])
        begins[k] = fresh[k] or since == NONE  # or no row of the run had a time yet
        if begins[k]:
            tail, since = np.int64(i + 1), t[i]
            tails[k], rows[k] = tail, 0
            continue
        edge = t[i] - span
        while t[tail] <= edge:
            tail += 1
        tails[k] = tail
        rows[k] = i - tail + 1 if edge >= since else 0
    marks[TAIL], marks[SINCE] = tail, since


@kernel
def slide(
    t: I64, x: F64, begin: int, end: int, span: int, term: I64, tails: I64, begins: B1, rows: I64, kept: F64,
    out: F64, out_low: F64,
) -> None:  # fmt: skip
    """Give a term's sum over the window of each row, and in ``out_low`` its second part.

    It is NaN where the window is not covered, or holds something undefined.
    """
    kind, a, b, shift, lag = term[KIND], x[term[A]], x[term[B]], term[SHIFT], term[LAG]
    high, low, undefined, something = kept[HIGH], kept[LOW], kept[UNDEFINED], kept[SOMETHING]
    tail = np.int64(kept[FIRST])
    for i in range(begin, end):
        k = i - begin
        out[k] = out_low[k] = _MISSING
        if begins[k]:
            tail, high, low, undefined, something = tails[k], 0.0, 0.0, 0.0, 0.0
            continue
        # what row i adds less what leaves the window, first by itself: the sums wait for one addition a row
        leaves, tail = tail, tails[k]
        plus, plus_low = 0.0, 0.0
        if i - lag >= tail:
            p, e = _term(kind, a, b, shift, np.int64(i), t)
            if p - p != 0.0 or e - e != 0.0:  # not finite
                undefined += 1.0
            elif p != 0.0:
                something += 1.0
                plus, plus_low = p, e
        for j in range(leaves + lag, min(tail + lag, i)):
            p, e = _term(kind, a, b, shift, j, t)
            if p - p != 0.0 or e - e != 0.0:
                undefined -= 1.0
            elif p != 0.0:
                something -= 1.0
                plus, plus_low = _add(plus, plus_low, -p, -e)
        high, low = _add(high, low, plus, plus_low)
        if something == 0.0:  # exactly, whatever was rounded before
            high, low = 0.0, 0.0
        if rows[k] == 0 or undefined != 0.0:
            continue
        out[k], out_low[k] = high, low
        if kind == INTEGRAL:  # of the first row's stretch, what lies before the window
            p, e = _times(a[tail - 1], np.float64(t[i] - span - t[tail - 1]))
            out[k], out_low[k] = _add(high, low, -p, -e)
    kept[HIGH], kept[LOW], kept[UNDEFINED], kept[SOMETHING] = high, low, undefined, something
    kept[FIRST] = tail


@inner
def _first_after(t: I64, low: np.int64, high: np.int64, time: np.int64) -> np.int64:
    """Find the first place from ``low`` on whose time is later."""
    while low < high:
        middle = (low + high) // 2
        if t[middle] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def seen_at(codes: I64, received_at: I64, ends: I64, received: I64, seen: I64) -> None:
    """Find for each row of another frame the place after the last row of its product received by then.

    The rows here stand product by product, each product's in the order of receipt; ``ends`` are the places
    where products end, after a 0. ``seen`` is -1 where none was received, or that is not known.
    """
    for k in range(len(codes)):
        seen[k] = -1
        if codes[k] >= 0 and received_at[k] != NONE:
            begin = ends[codes[k]]
            place = _first_after(received, begin, ends[codes[k] + 1], received_at[k])
            if place > begin and received[place - 1] != NONE:
                seen[k] = place


@kernel
def edges_at(t: I64, run: I64, begins: I64, seen: I64, end: I64, span: int, first: I64, rows: I64) -> None:
    """Find the window (end - span, end] of each row of another frame: the first row in it, and how many.

    It is of the ``run`` of the last row seen, which begins at its place in ``begins``; in it ``t`` does not
    step back. ``rows`` is 0 where the run does not cover the window.
    """
    for k in range(len(end)):
        first[k] = rows[k] = 0
        if seen[k] < 0 or end[k] == NONE:
            continue
        begin = _first_after(t, begins[run[seen[k] - 1]], seen[k], NONE)  # those before have no time
        if begin == seen[k] or end[k] - span < t[begin]:
            continue
        first[k] = _first_after(t, begin, seen[k], end[k] - span)
        rows[k] = _first_after(t, first[k], seen[k], end[k]) - first[k]


@kernel
def add_up(x: F64, term: I64, run: I64, sums: F64) -> None:
    """Sum a term from the start of each run, so that windows may come in any order: see `total_at`.

    Runs are numbered from 0 on. ``sums`` holds those before each row of a run and at its end: HIGH, LOW,
    UNDEFINED, SOMETHING. The term is a value, or a product, of a row by itself.
    """
    kind, a, b = term[KIND], x[term[A]], x[term[B]]
    high = low = undefined = something = 0.0
    for i in range(len(run)):
        place = i + run[i]
        if i == 0 or run[i] != run[i - 1]:
            high = low = undefined = something = 0.0
            _keep(sums[place], high, low, undefined, something)
        p, e = _term(kind, a, b, term[SHIFT], np.int64(i), run)
        if p - p != 0.0 or e - e != 0.0:  # not finite
            undefined += 1.0
        elif p != 0.0:
            something += 1.0
            high, low = _add(high, low, p, e)
        _keep(sums[place + 1], high, low, undefined, something)


@inner
def _keep(kept: F64, high: float, low: float, undefined: float, something: float) -> None:
    kept[HIGH], kept[LOW], kept[UNDEFINED], kept[SOMETHING] = high, low, undefined, something


@kernel
def total_at(sums: F64, run: I64, first: I64, rows: I64, out: F64, out_low: F64) -> None:
    """Compute a term's sum over the windows of `edges_at`, and in ``out_low`` its second part."""
    for k in range(len(rows)):
        out[k] = out_low[k] = _MISSING
        if rows[k] == 0:
            continue
        place = first[k] + run[first[k]]
        low, high = sums[place], sums[place + rows[k]]
        if high[UNDEFINED] != low[UNDEFINED]:
            continue
        out[k] = out_low[k] = 0.0
        if high[SOMETHING] != low[SOMETHING]:  # else exactly, whatever was rounded before
            out[k], out_low[k] = _add(high[HIGH], high[LOW], -low[HIGH], -low[LOW])


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
