"""What comes after a row, in its run: the label kernels look ahead.

The rows of all runs stand one run behind the other; ``ends`` gives for each row the place behind its run.
``t`` is the effective time, NONE for the first rows of a run if they have none. What is not known is
MISSING, of doubles NaN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

NONE = np.iinfo(np.int64).min + np.int64(0)
MISSING = NONE
_MISSING = np.nan


@kernel
def lay_runs(t: I64, fresh: B1, ends: I64) -> None:
    """Let the times be running maxima in their runs, which ``fresh`` rows begin; find where those end."""
    for i in range(1, len(t)):
        if not fresh[i]:
            t[i] = max(t[i], t[i - 1])
    end = np.int64(len(t))
    for i in range(len(t) - 1, -1, -1):
        ends[i] = end
        if fresh[i]:
            end = np.int64(i)


@kernel
def later(t: I64, ends: I64, x: F64, horizon: int, out: F64) -> None:
    """Give the value that holds a horizon later; NaN where the run does not reach so far."""
    j = 0
    for i in range(len(t)):
        out[i] = _MISSING
        if t[i] == NONE or t[ends[i] - 1] < t[i] + horizon:
            continue
        j = max(i, j)  # a run's rows reach ever later, and no further than its end
        while j + 1 < ends[i] and t[j + 1] <= t[i] + horizon:
            j += 1
        out[i] = x[j]


@inner
def _reaches(x: float, other: float, bps: float, sign: float) -> bool:
    return sign * (1e4 * (other - x) / x) >= bps


@kernel
def first_move(x: F64, ends: I64, bps: float, sign: float, stack: I64, out: I64) -> None:
    """Find the first later row of the run that is so many bps higher (sign 1) or lower (-1); -1 if none is.

    From the end on, ``stack`` holds the rows that are higher than all between them and the row at hand, the
    nearest at its top: the first that is high enough is among them, and they are in order of height.
    """
    top = 0
    for i in range(len(x) - 1, -1, -1):
        if ends[i] == i + 1:
            top = 0
        while top > 0 and sign * (x[stack[top - 1]] - x[i]) <= 0.0:
            top -= 1
        # stack[:low] is high enough, stack[high:] is not
        low, high = 0, top
        while low < high:
            middle = (low + high) // 2
            if _reaches(x[i], x[stack[middle]], bps, sign):
                low = middle + 1
            else:
                high = middle
        out[i] = stack[low - 1] if low > 0 else -1
        stack[top] = i
        top += 1


@kernel
def triple_barrier(t: I64, ends: I64, up: I64, down: I64, horizon: int, out: I64) -> None:
    """Tell which barrier is met first: 1, -1, or 0 if neither by the horizon."""
    for i in range(len(t)):
        out[i] = MISSING
        if t[i] == NONE:
            continue
        end = t[i] + horizon
        above, below = up[i] >= 0 and t[up[i]] <= end, down[i] >= 0 and t[down[i]] <= end
        if above and (not below or up[i] < down[i]):
            out[i] = 1
        elif below:
            out[i] = -1
        elif t[ends[i] - 1] >= end:
            out[i] = 0


@kernel
def time_to_move(t: I64, up: I64, down: I64, out: I64) -> None:
    """Give the time until the first of two rows, of those that there are."""
    for i in range(len(t)):
        out[i] = MISSING
        if t[i] == NONE or (up[i] < 0 and down[i] < 0):
            continue
        j = up[i] if down[i] < 0 else down[i] if up[i] < 0 else min(up[i], down[i])
        out[i] = t[j] - t[i]
