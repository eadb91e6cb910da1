"""What a row adds to the row before it of the same product: which row that is, and order flow between them.

Rows of several products come interleaved; ``before`` names for each row the product's row before it, by its
place in the batch, or as -1 - code for the last row of an earlier batch, which is carried over by code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_MISSING = np.nan
# columns of `last`, a row a code: place in the batch (-1: none yet), 1 if the row was usable, its key
PLACE, USABLE, KEY = np.arange(3)
# the same of trades: 1 if there was one, its connection, the run's largest trade id, 1 if of a snapshot
THERE, CONNECTION, LARGEST, SNAPSHOT = np.arange(1, 5)
# columns of `last_quote`: best bid and its size, best ask and its size
BID, BID_SIZE, ASK, ASK_SIZE = np.arange(4)


@kernel
def encode(numbers: I64, code_of: I64, codes: I64, first: I64) -> int:
    """Give numbers others, from 0 on, in the order in which they come; and tell how many there are.

    ``code_of`` is -1 everywhere. ``first`` gets the place of each one's first.
    """
    n = 0
    for i in range(len(numbers)):
        if code_of[numbers[i]] < 0:
            code_of[numbers[i]], first[n] = n, i
            n += 1
        codes[i] = code_of[numbers[i]]
    return n


@inner
def _before(code: np.int64, last: I64, i: int) -> np.int64:
    place = last[code, PLACE]
    last[code, PLACE] = i
    return place if place >= 0 else -1 - code


@kernel
def follow(codes: I64, usable: B1, key: I64, last: I64, before: I64, follows: B1) -> None:
    """Tell which row follows which: both usable, and of one key."""
    for i in range(len(codes)):
        code = codes[i]
        before[i] = _before(code, last, i)
        follows[i] = usable[i] and last[code, USABLE] != 0 and key[i] == last[code, KEY]
        last[code, USABLE], last[code, KEY] = usable[i], key[i]


@kernel
def follow_trades(
    codes: I64, connection: I64, trade_id: I64, snapshot: B1, ignore_holes: bool, last: I64, before: I64,
    follows: B1,
) -> None:  # fmt: skip
    """Tell which trade follows which: of one connection, with none missing, and not into a snapshot."""
    for i in range(len(codes)):
        code, trade = codes[i], trade_id[i]
        before[i] = _before(code, last, i)
        largest = last[code, LARGEST]
        follows[i] = (
            last[code, THERE] != 0
            and connection[i] == last[code, CONNECTION]
            and (ignore_holes or trade <= largest + 1)
            and not (snapshot[i] and last[code, SNAPSHOT] == 0)
        )
        last[code, THERE], last[code, CONNECTION], last[code, SNAPSHOT] = 1, connection[i], snapshot[i]
        last[code, LARGEST] = max(trade, largest) if follows[i] else trade


@kernel
def reach(codes: I64, time: I64, reached: I64) -> None:
    """Let times be the running maxima of their products; ``reached`` keeps the last of each code."""
    for i in range(len(codes)):
        reached[codes[i]] = time[i] = max(reached[codes[i]], time[i])


@kernel
def lag(values: F64, codes: I64, before: I64, carried: F64, out: F64) -> None:
    """Give each row the value of the product's row before it, and carry the last ones over."""
    for i in range(len(values)):
        k = before[i]
        out[i] = values[k] if k >= 0 else carried[-1 - k]
    for i in range(len(values)):
        carried[codes[i]] = values[i]


@kernel
def order_flow(
    bid: F64, bid_size: F64, ask: F64, ask_size: F64, codes: I64, before: I64, follows: B1, last_quote: F64,
    out: F64,
) -> None:  # fmt: skip
    """Give Δbid - Δask of Cont, Kukanov and Stoikov; NaN where a row follows none, or a level is missing."""
    for i in range(len(bid)):
        out[i] = _MISSING
        if not follows[i]:
            continue
        k = before[i]
        if k >= 0:
            b, qb, a, qa = bid[k], bid_size[k], ask[k], ask_size[k]
        else:
            c = -1 - k
            b, qb = last_quote[c, BID], last_quote[c, BID_SIZE]
            a, qa = last_quote[c, ASK], last_quote[c, ASK_SIZE]
        if b != b or a != a or bid[i] != bid[i] or ask[i] != ask[i]:
            continue
        of_bid = bid_size[i] if bid[i] > b else -qb if bid[i] < b else bid_size[i] - qb
        of_ask = ask_size[i] if ask[i] < a else -qa if ask[i] > a else ask_size[i] - qa
        out[i] = of_bid - of_ask
    for i in range(len(bid)):
        c = codes[i]
        last_quote[c, BID], last_quote[c, BID_SIZE] = bid[i], bid_size[i]
        last_quote[c, ASK], last_quote[c, ASK_SIZE] = ask[i], ask_size[i]


@kernel
def tick_signs(change: F64, codes: I64, follows: B1, last_sign: F64, out: F64) -> None:
    """Give the sign of the last price change that was not zero, in the run; NaN before there is one."""
    for i in range(len(change)):
        sign = last_sign[codes[i]] if follows[i] else _MISSING
        if follows[i] and change[i] != 0.0:
            sign = 1.0 if change[i] > 0.0 else -1.0
        out[i] = last_sign[codes[i]] = sign
