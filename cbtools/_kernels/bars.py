"""Bars of trades and of the book: one pass over the rows.

What is open of a product stands in a row of two tables, ``whole`` (of whole numbers) and ``real``, whose
places are named below; a bar that closes is written behind the last one, a column a bar. Where the output is
full, a kernel tells how far it came, and goes on from there.

Sums are kept in two doubles, some 32 digits: sizes and notionals, in which a trade is split at the edge of a
bar, are added up as if exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Pair = tuple[float, float]

# when a bar is complete, and what is counted where that is by an imbalance or by runs
BY_TIME, BY_TICK, BY_VOLUME, BY_NOTIONAL, BY_IMBALANCE, BY_RUNS = np.arange(6)
TICKS, SIZES, NOTIONALS = np.arange(3)
# places of `whole`; the first ten are given out. N: trades (or rows of the book) so far; T: the run's time;
# LEARNT: bars that the threshold is learnt from
BAR, RUN, START, N, FIRST_TIME, LAST_TIME, FIRST_ID, LAST_ID, CODE, COMPLETE = np.arange(10)
BUYS, T, LEARNT = np.arange(10, 13)
# places of `real`, each in two parts; the first eight are given out. The means are those that a threshold is
# learnt from: of trades in a bar, and per trade of what is bought (or of the imbalance) and sold
OPEN, HIGH, LOW, CLOSE, VWAP, VOLUME, NOTIONAL, BUY_VOLUME = np.arange(8)
BUY_NOTIONAL, THRESHOLD, MEAN_N, MEAN_BUY, MEAN_SELL = np.arange(8, 13)
# and of the book: sums, in the same places; BUYS are the rows that follow one
OFI, SPREAD = np.arange(4, 6)
FLOWS = BUYS
WHOLE, REAL, WHOLE_OUT, REAL_OUT = 13, 13, 10, 8
# places in `left`: what is left of a trade when the output is full: size, notional; and whether there is
LEFT_SIZE, LEFT_NOTIONAL, LEFT = 0, 2, 4

NONE = np.iinfo(np.int64).min + np.int64(0)
_MISSING = np.nan
_SPLIT = 134217729.0  # 2**27 + 1
_ROUNDING = 2.0**-90
"""What two parts lose is less: two learnt numbers as near as this are the same number."""


# --- numbers in two parts


@inner
def _two_sum(a: float, b: float) -> Pair:
    """Add two doubles exactly (Knuth)."""
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


@inner
def _add(high: float, low: float, p: float, e: float) -> Pair:
    s, rest = _two_sum(high, p)
    return _two_sum(s, rest + (low + e))


@inner
def _times(a: float, b: float) -> Pair:
    """Multiply two doubles exactly (Dekker 1971)."""
    p = a * b
    x = a * _SPLIT
    a1 = x - (x - a)
    y = b * _SPLIT
    b1 = y - (y - b)
    a2, b2 = a - a1, b - b1
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


@inner
def _multiply(high: float, low: float, p: float, e: float) -> Pair:
    product, rest = _times(high, p)
    return _two_sum(product, rest + (high * e + low * p))


@inner
def _divide(high: float, low: float, p: float, e: float) -> Pair:
    """Divide as on paper, a double a digit."""
    first = high / p
    product, rest = _multiply(p, e, first, 0.0)
    remains, further = _add(high, low, -product, -rest)
    return _two_sum(first, (remains + further) / p)


@inner
def _sum_into(real: F64, place: np.int64, p: float, e: float) -> None:
    real[0, place], real[1, place] = _add(real[0, place], real[1, place], p, e)


# --- an open bar


@inner
def _price(whole: I64, real: F64, price: float, moment: np.int64) -> None:
    """Take a price, which maybe opens the bar. An undefined one leaves high and low undefined."""
    if whole[N] == 0:
        real[0, OPEN] = real[0, HIGH] = real[0, LOW] = price
        whole[FIRST_TIME] = moment
    if price > real[0, HIGH] or price != price:
        real[0, HIGH] = price
    if price < real[0, LOW] or price != price:
        real[0, LOW] = price
    real[0, CLOSE] = price
    whole[LAST_TIME] = moment
    whole[N] += 1


@inner
def _trade(
    whole: I64, real: F64, price: float, size: Pair, notional: Pair, is_buy: bool, moment: np.int64,
    trade_id: np.int64,
) -> None:  # fmt: skip
    """Take a trade, or a part of one, into the open bar."""
    if whole[N] == 0:
        whole[FIRST_ID] = trade_id
    whole[LAST_ID] = trade_id
    _price(whole, real, price, moment)
    _sum_into(real, VOLUME, size[0], size[1])
    _sum_into(real, NOTIONAL, notional[0], notional[1])
    if is_buy:
        whole[BUYS] += 1
        _sum_into(real, BUY_VOLUME, size[0], size[1])
        _sum_into(real, BUY_NOTIONAL, notional[0], notional[1])


@inner
def _close(
    whole: I64, real: F64, code: np.int64, complete: bool, of_book: bool, out_whole: I64, out_real: F64,
    bar: int,
) -> None:  # fmt: skip
    """Write down the open bar, and begin another."""
    whole[CODE], whole[COMPLETE] = code, complete
    if of_book:
        real[0, OFI] = real[0, OFI] if whole[FLOWS] > 0 else _MISSING
        real[0, SPREAD] = _divide(real[0, SPREAD], real[1, SPREAD], np.float64(whole[N]), 0.0)[0]
    elif real[0, VOLUME] == 0.0:
        real[0, VWAP] = _MISSING
    else:
        real[0, VWAP] = _divide(real[0, NOTIONAL], real[1, NOTIONAL], real[0, VOLUME], real[1, VOLUME])[0]
    for m in range(WHOLE_OUT):
        out_whole[m, bar] = whole[m]
    for m in range(REAL_OUT):
        out_real[m, bar] = real[0, m]
    whole[BAR] += 1
    whole[START], whole[N], whole[BUYS] = NONE, 0, 0
    real[:, VWAP : BUY_NOTIONAL + 1] = 0.0


@inner
def _start_of(whole: I64, time: np.int64, every: int) -> np.int64:
    """Move the run's time on; give where its interval begins. Rows without a clock are of the time before."""
    if time > whole[T]:
        whole[T] = time
    return NONE if whole[T] == NONE else whole[T] // every * every


@kernel
def flush(wholes: I64, reals: F64, of_book: bool, out_whole: I64, out_real: F64) -> int:
    """Close all open bars, of each product one at most; give how many there are."""
    bars = 0
    for code in range(len(wholes)):
        if wholes[code, N] > 0:
            _close(wholes[code], reals[code], code, False, of_book, out_whole, out_real, bars)
            bars += 1
    return bars


# --- thresholds of imbalance and runs


@inner
def _bought_and_sold(whole: I64, real: F64, counted: int) -> tuple[float, float, float, float]:
    if counted == TICKS:
        return np.float64(whole[BUYS]), 0.0, np.float64(whole[N] - whole[BUYS]), 0.0
    total, bought = (VOLUME, BUY_VOLUME) if counted == SIZES else (NOTIONAL, BUY_NOTIONAL)
    b, b_low = real[0, bought], real[1, bought]
    s, s_low = _add(real[0, total], real[1, total], -b, -b_low)
    return b, b_low, s, s_low


@inner
def _larger(a: float, a_low: float, b: float, b_low: float) -> Pair:
    if a > b or (a == b and a_low >= b_low):
        return a, a_low
    return b, b_low


@inner
def _learn_mean(real: F64, place: np.int64, value: Pair, adaptive: int) -> None:
    """Move a mean by 2 / (adaptive + 1) of the way to a value."""
    mean = real[0, place]
    way, way_low = _add(value[0], value[1], -mean, -real[1, place])
    step, step_low = _divide(2.0 * way, 2.0 * way_low, np.float64(adaptive + 1), 0.0)
    _sum_into(real, place, step, step_low)
    if abs(real[0, place]) < _ROUNDING * abs(mean):  # it is 0 but for what was rounded
        real[:, place] = 0.0


@inner
def _learn(whole: I64, real: F64, b: Pair, s: Pair, theta: Pair, adaptive: int) -> None:
    """Learn the threshold from a complete bar: its trades, and what they counted each."""
    n = np.float64(whole[N])
    of_buy, of_sell = _divide(b[0], b[1], n, 0.0), _divide(s[0], s[1], n, 0.0)
    whole[LEARNT] += 1
    if whole[LEARNT] == 1:  # the bar's own values: n times theta / n
        real[0, MEAN_N], real[1, MEAN_N] = n, 0.0
        real[0, MEAN_BUY], real[1, MEAN_BUY] = of_buy
        real[0, MEAN_SELL], real[1, MEAN_SELL] = of_sell
        real[0, THRESHOLD], real[1, THRESHOLD] = theta
        return
    _learn_mean(real, MEAN_N, (n, 0.0), adaptive)
    _learn_mean(real, MEAN_BUY, of_buy, adaptive)
    _learn_mean(real, MEAN_SELL, of_sell, adaptive)
    sign = -1.0 if real[0, MEAN_BUY] < 0.0 else 1.0
    most, most_low = _larger(
        sign * real[0, MEAN_BUY], sign * real[1, MEAN_BUY], real[0, MEAN_SELL], real[1, MEAN_SELL]
    )
    if most != 0.0:
        learnt = _multiply(real[0, MEAN_N], real[1, MEAN_N], most, most_low)
        real[0, THRESHOLD], real[1, THRESHOLD] = learnt


@inner
def _is_reached(whole: I64, real: F64, by: int, counted: int, adaptive: int) -> bool:
    """Tell whether the open bar is full by its imbalance or runs; then learn, if that is wanted."""
    b, b_low, s, s_low = _bought_and_sold(whole, real, counted)
    if by == BY_IMBALANCE:
        b, b_low = _add(b, b_low, -s, -s_low)
        s, s_low = 0.0, 0.0
        theta = (b, b_low) if b >= 0.0 else (-b, -b_low)
    else:
        theta = _larger(b, b_low, s, s_low)
    threshold = real[0, THRESHOLD]
    beyond = _add(theta[0], theta[1], -threshold, -real[1, THRESHOLD])[0]
    # a learnt threshold is rounded, one that is given is exact
    if beyond < (-_ROUNDING * threshold if whole[LEARNT] > 0 else 0.0):
        return False
    if adaptive > 0:
        _learn(whole, real, (b, b_low), (s, s_low), theta, adaptive)
    return True


# --- bars of trades


@kernel
def trade_bars(
    codes: I64, follows: B1, price: F64, size: F64, is_buy: B1, time: I64, moment: I64, trade_id: I64,
    by: int, counted: int, units: int, full: float, adaptive: int, begin: int, wholes: I64, reals: F64,
    left: F64, out_whole: I64, out_real: F64,
) -> tuple[int, int]:  # fmt: skip
    """Put the trades from ``begin`` on into bars; give how far that came, and how many bars have closed.

    ``units`` are the ns of an interval or the trades of a bar, ``full`` the volume or notional of one;
    ``adaptive`` is 0 where thresholds are not learnt. The output has room for two bars at least.
    """
    bars, most = 0, out_whole.shape[1]
    for i in range(begin, len(codes)):
        if bars + 2 > most:
            return i, bars
        code = codes[i]
        whole, real = wholes[code], reals[code]
        if left[LEFT] == 0.0:
            if not follows[i]:
                if whole[N] > 0:
                    _close(whole, real, code, False, False, out_whole, out_real, bars)
                    bars += 1
                whole[RUN] += 1
                whole[T] = NONE
            left[LEFT_SIZE], left[LEFT_SIZE + 1] = size[i], 0.0
            left[LEFT_NOTIONAL], left[LEFT_NOTIONAL + 1] = _times(price[i], size[i])
        if by in (BY_VOLUME, BY_NOTIONAL):
            bars = _fill(
                whole, real, code, price[i], is_buy[i], moment[i], trade_id[i], by, full, left, out_whole,
                out_real, bars,
            )  # fmt: skip
            if left[LEFT] != 0.0:
                return i, bars
            continue
        if by == BY_TIME:
            start = _start_of(whole, time[i], units)
            if whole[N] > 0 and start != whole[START]:
                _close(whole, real, code, True, False, out_whole, out_real, bars)
                bars += 1
            whole[START] = start
        of_size = (left[LEFT_SIZE], left[LEFT_SIZE + 1])
        of_notional = (left[LEFT_NOTIONAL], left[LEFT_NOTIONAL + 1])
        _trade(whole, real, price[i], of_size, of_notional, is_buy[i], moment[i], trade_id[i])
        if by == BY_TIME:
            continue
        if whole[N] == units if by == BY_TICK else _is_reached(whole, real, by, counted, adaptive):
            _close(whole, real, code, True, False, out_whole, out_real, bars)
            bars += 1
    return len(codes), bars


@inner
def _fill(
    whole: I64, real: F64, code: np.int64, price: float, is_buy: bool, moment: np.int64, trade_id: np.int64,
    by: int, full: float, left: F64, out_whole: I64, out_real: F64, bars: int,
) -> int:  # fmt: skip
    """Fill bars to the edge with what is left of a trade; where the output is full, mark the rest."""
    place, amount = (VOLUME, LEFT_SIZE) if by == BY_VOLUME else (NOTIONAL, LEFT_NOTIONAL)
    left[LEFT] = 0.0
    while True:
        size = (left[LEFT_SIZE], left[LEFT_SIZE + 1])
        notional = (left[LEFT_NOTIONAL], left[LEFT_NOTIONAL + 1])
        room, room_low = _add(full, 0.0, -real[0, place], -real[1, place])
        rest, rest_low = _add(left[amount], left[amount + 1], -room, -room_low)
        if rest < 0.0:
            _trade(whole, real, price, size, notional, is_buy, moment, trade_id)
            return bars
        if bars == out_whole.shape[1]:
            left[LEFT] = 1.0
            return bars
        if rest > 0.0 and by == BY_VOLUME:
            left[LEFT_SIZE], left[LEFT_SIZE + 1] = rest, rest_low
            left[LEFT_NOTIONAL], left[LEFT_NOTIONAL + 1] = _multiply(rest, rest_low, price, 0.0)
            size, notional = (room, room_low), _multiply(room, room_low, price, 0.0)
        elif rest > 0.0:
            part, part_low = _divide(room, room_low, price, 0.0)
            left[LEFT_NOTIONAL], left[LEFT_NOTIONAL + 1] = rest, rest_low
            left[LEFT_SIZE], left[LEFT_SIZE + 1] = _add(size[0], size[1], -part, -part_low)
            size, notional = (part, part_low), (room, room_low)
        _trade(whole, real, price, size, notional, is_buy, moment, trade_id)
        real[0, place], real[1, place] = full, 0.0  # whatever was rounded
        _close(whole, real, code, True, False, out_whole, out_real, bars)
        bars += 1
        if rest == 0.0:
            return bars


# --- bars of the book


@kernel
def book_bars(
    codes: I64, follows: B1, usable: B1, mid: F64, spread: F64, ofi: F64, time: I64, moment: I64, every: int,
    begin: int, wholes: I64, reals: F64, out_whole: I64, out_real: F64,
) -> tuple[int, int]:  # fmt: skip
    """Put the rows of a book from ``begin`` on into bars, as `trade_bars` does."""
    bars, most = 0, out_whole.shape[1]
    for i in range(begin, len(codes)):
        if bars == most:
            return i, bars
        code = codes[i]
        whole, real = wholes[code], reals[code]
        begins = not follows[i]
        if begins:
            whole[T] = NONE
        start = _start_of(whole, time[i], every) if usable[i] else NONE
        if whole[N] > 0 and (begins or start != whole[START]):
            _close(whole, real, code, not begins, True, out_whole, out_real, bars)
            bars += 1
        if not usable[i]:
            continue
        whole[START] = start
        _price(whole, real, mid[i], moment[i])
        _sum_into(real, SPREAD, spread[i], 0.0)
        if follows[i]:
            whole[FLOWS] += 1
            _sum_into(real, OFI, ofi[i], 0.0)
    return len(codes), bars
