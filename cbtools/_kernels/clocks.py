"""What was known at each boundary of a grid of times.

A product's rows give out boundaries as they come: a row those from the time of the product's row before it
up to its own, which is left for the next. Of rows before, ``last`` keeps what is needed, a row a product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

# columns of `last`: its effective time (NONE: no row yet), where it stands, how many rows of the product have
# their time behind the boundary before its time, and whether its book is unproven
TIME, PLACE, COUNT, BROKEN = np.arange(4)
NONE = np.iinfo(np.int64).min + np.int64(0)


@inner
def _up(t: np.int64, every: np.int64) -> np.int64:
    """Give the first boundary at or after a time."""
    return -((-t) // every) * every


@kernel
def due(
    codes: I64, t: I64, unproven: B1, every: int, last: I64, begin: int, source: I64, first: I64,
    updates: I64, count: I64,
) -> int:  # fmt: skip
    """Tell which boundaries each row gives out: the first, how many, and of what row before they are.

    ``source`` is that row's place; those of the rows given begin at ``begin``. ``updates`` are those of the
    first boundary; a row with which a book becomes unproven is a break, and no update. ``t`` becomes the
    running maximum. Returns how many boundaries there are in all.
    """
    total = 0
    for i in range(len(codes)):
        c = codes[i]
        before = last[c, TIME]
        count[i] = 0
        is_update = not unproven[i] or last[c, BROKEN] != 0
        last[c, BROKEN] = unproven[i]
        if before == NONE:
            last[c, COUNT] = 1
        else:
            t[i] = max(t[i], before)
            boundary = _up(before, every)
            count[i] = (_up(t[i], every) - boundary) // every
            if count[i] > 0:
                source[i], first[i], updates[i] = last[c, PLACE], boundary, last[c, COUNT]
                total += count[i]
                last[c, COUNT] = 0
            last[c, COUNT] += is_update
        last[c, TIME], last[c, PLACE] = t[i], begin + i
    return total


@kernel
def lay(
    source: I64,
    first: I64,
    updates: I64,
    count: I64,
    time_of: I64,
    every: int,
    out_source: I64,
    out_time: I64,
    out_staleness: I64,
    out_updates: I64,
) -> None:
    """Lay the boundaries that are due, one after the other; ``time_of`` gives the time of a place."""
    k = 0
    for i in range(len(count)):
        for j in range(count[i]):
            out_source[k] = source[i]
            out_time[k] = first[i] + j * every
            out_staleness[k] = out_time[k] - time_of[source[i]]
            out_updates[k] = updates[i] if j == 0 else 0
            k += 1
