"""Where the frames begin in rows of level2."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import kernel

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@kernel
def mark_frames(
    line: I64, number: I64, connection: I32, server: I64, capture: I64, starts: npt.NDArray[np.bool_]
) -> None:
    """Mark the rows in which a frame begins: the first, and where any of these is not as before."""
    for i in range(len(line)):
        k = max(i - 1, 0)
        starts[i] = (
            i == 0
            or line[i] != line[k]
            or number[i] != number[k]
            or connection[i] != connection[k]
            or server[i] != server[k]
            or capture[i] != capture[k]
        )
