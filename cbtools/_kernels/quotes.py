"""The row of a book that prevailed at each trade: of those received by then, and sent by when it happened.

The rows of the book stand product by product, each product's in the order of receipt. Trades come in any
number of batches, products interleaved, each product's in the order of receipt, too. What is kept between two
batches is a row of ``kept`` for each product, and its part of ``stack``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

B1 = npt.NDArray[np.bool_]
I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]

NONE, NEVER = np.iinfo(np.int64).min + np.int64(0), np.iinfo(np.int64).max + np.int64(0)
# what a row of the book is: a break, after which nothing before it counts; a quote; or neither
BREAK, QUOTE, NO_QUOTE = np.arange(3)
# columns of `kept`: where the product's rows begin and end, the first that no trade has seen yet, how many
# are on its stack, and when its last trade was received
BEGIN, END, NEXT, TOP, REACHED = np.arange(5)


@kernel
def lay(kept: I64, state: I8, received: I64, sent: I64, by_receipt: bool) -> None:
    """Let the book's times be those by which its rows count.

    Times of receipt become running maxima. A row counts from when it was ``sent``: without that, from when
    the row before it was, or never if none since the break has it. By receipt it counts from then.
    """
    for c in range(len(kept)):
        reached, last = NONE, NEVER
        for j in range(kept[c, BEGIN], kept[c, END]):
            reached = received[j] = max(reached, received[j])
            if state[j] == BREAK:
                last = NEVER
            elif sent[j] != NONE:
                last = sent[j]
            sent[j] = reached if by_receipt else last


@inner
def _see(of: I64, until: np.int64, state: I8, received: I64, sent: I64, stack: I64) -> None:
    """See the rows that were received by a time.

    The stack holds those that may still be the last one sent by some time. Each was sent after the one under
    it, since a row that was sent no later than one after it is never the last. So the search in it is binary,
    and each row goes on and comes off once, however far the server's clock steps back.
    """
    while of[NEXT] < of[END] and received[of[NEXT]] <= until:
        j = of[NEXT]
        of[NEXT] = j + 1
        if received[j] == NONE:  # nothing is compared with a row of which that is not known
            continue
        if state[j] == BREAK:
            of[TOP] = 0
            continue
        while of[TOP] > 0 and sent[stack[of[BEGIN] + of[TOP] - 1]] >= sent[j]:
            of[TOP] -= 1
        stack[of[BEGIN] + of[TOP]] = j
        of[TOP] += 1


@kernel
def prevailing(
    codes: I64, wanted: B1, trade_received: I64, happened: I64, by_receipt: bool, kept: I64, state: I8,
    received: I64, sent: I64, stack: I64, out: I64,
) -> None:  # fmt: skip
    """Find the row of the book that is each trade's quote; -1 if there is none.

    ``codes`` are the products' rows of ``kept``, -1 for a product without a book. ``wanted`` are trades that
    can have a quote. The times of receipt become running maxima; by receipt, ``happened`` becomes the same.
    """
    for i in range(len(codes)):
        out[i] = -1
        if codes[i] < 0:
            continue
        of = kept[codes[i]]
        of[REACHED] = trade_received[i] = max(of[REACHED], trade_received[i])
        if by_receipt:
            happened[i] = of[REACHED]
        if not wanted[i] or of[REACHED] == NONE or happened[i] == NONE:
            continue
        _see(of, of[REACHED], state, received, sent, stack)
        low, high = of[BEGIN], of[BEGIN] + of[TOP]  # the last on the stack that was sent by then
        while low < high:
            middle = (low + high) // 2
            if sent[stack[middle]] <= happened[i]:
                low = middle + 1
            else:
                high = middle
        if low > of[BEGIN] and state[stack[low - 1]] == QUOTE:
            out[i] = stack[low - 1]
