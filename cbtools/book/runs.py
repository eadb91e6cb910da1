"""Which unbroken run of frames each row is of, where level2 does not say it itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.book.ladder import NO_VALUE
from cbtools.book.messages import RUN
from cbtools.raw.sequence import Stream

I64 = npt.NDArray[np.int64]


class Runs:
    """Names the runs of a stream of rows, batch by batch.

    Rows without ``unbroken_since`` prove only what their own numbers prove: a run ends where sequence_num
    does not stay or rise by one, and where the connection changes. (Without numbers, nothing is seen.)
    """

    def __init__(self, stream: Stream | None) -> None:
        self._name = 0 if stream is None else stream.run.name
        self._number: int | None = None if stream is None or stream.last < 0 else stream.last
        self._connection: int | None = None

    def __call__(self, level2: pl.DataFrame) -> I64:
        """Give each row's run."""
        if RUN in level2.columns:
            return level2[RUN].to_numpy().view(np.int64)  # a null is NaT, which has the bits of NO_VALUE
        number = level2["sequence_num"].fill_null(NO_VALUE).to_numpy()
        connection = level2["connection"].to_numpy()
        before = number[:1] if self._number is None else np.array([self._number])
        last = connection[:1] if self._connection is None else np.array([self._connection])
        step = np.diff(np.concatenate([before, number]))
        breaks = (step < 0) | (step > 1) | (np.diff(np.concatenate([last, connection])) != 0)
        names = self._name + np.cumsum(breaks)
        self._name = int(names[-1])
        self._number, self._connection = int(number[-1]), int(connection[-1])
        return names
