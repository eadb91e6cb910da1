"""Windows over time: what is summed in them, and the rows that are still in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cbtools.features.links import NO_TIME

B1 = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_VALUE, _PRODUCT, _LOG_CHANGE, _INTEGRAL = range(4)
_ROOM: Final = 1024


class Term(NamedTuple):
    """What a row adds to a sum: by which kind, of which columns, and with how many rows before it."""

    kind: int
    column: str
    other: str = ""
    shift: int = 0
    lag: int = 0


def value(column: str, *, lag: int = 0) -> Term:
    """Sum a column, each value as long as the ``lag`` rows before its own are in the window, too."""
    return Term(_VALUE, column, lag=lag)


def product(column: str, other: str) -> Term:
    """Sum the products of two columns, exactly: for what cancels behind them."""
    return Term(_PRODUCT, column, other)


def log_change(column: str, rows: int) -> Term:
    """Sum the squares of a column's log changes over so many rows."""
    return Term(_LOG_CHANGE, column, "", rows, rows - 1)


def integral(column: str) -> Term:
    """Integrate a column that holds from row to row, over ns."""
    return Term(_INTEGRAL, column)


def encoded(term: Term, place: Mapping[str, int]) -> I64:
    """Return a term as kernels read it, given the places of the columns."""
    return np.array([term.kind, place[term.column], place.get(term.other, 0), term.shift, term.lag])


class Sums(NamedTuple):
    """The sums over a window, of each row: ``total[m]`` of term m, and in ``rest[m]`` its further digits.

    NaN where the window is not covered, or holds something undefined. ``rows`` are those in it.
    """

    total: list[F64]
    rest: list[F64]
    rows: I64
    span: int

    def of(self, terms: list[int]) -> Sums:
        """Give those of some terms."""
        return Sums([self.total[m] for m in terms], [self.rest[m] for m in terms], self.rows, self.span)

    def moments(self, n: F64) -> F64:
        """Give n² times var(x), cov(x, y) and var(y), where the terms are x, y, xx, xy and yy."""
        from cbtools._kernels.windows import regress

        out = np.empty((3, len(n)))
        regress(n, np.stack(self.total[:5]), np.stack(self.rest[:5]), out)
        return out


class Window(NamedTuple):
    """One window: its span in ns, and what is summed in it."""

    span: int
    terms: tuple[Term, ...]


class Tape:
    """One product's rows, as far as they may still be in a window, with the sums of the windows so far."""

    def __init__(self, columns: Sequence[str], windows: Sequence[Window]) -> None:
        from cbtools._kernels import windows as kernels

        self._kernels = kernels
        self._windows = list(windows)
        self._time, self._values = np.empty(_ROOM, np.int64), np.empty((len(columns), _ROOM))
        self._end = 0
        place = {column: i for i, column in enumerate(columns)}
        self._terms = [[encoded(term, place) for term in terms] for _, terms in self._windows]
        self._marks = np.array([[0, NO_TIME] for _ in self._windows], np.int64).reshape(-1, 2)
        self._sums = [np.zeros((len(window.terms), 5)) for window in self._windows]

    def __call__(self, time: I64, values: Sequence[F64], fresh: B1) -> list[Sums]:
        """Take the next rows, of which ``fresh`` ones begin a run; give each window's sums at them."""
        n = len(time)
        begin = self._make_room(n)
        end = self._end = begin + n
        self._time[begin:end] = time
        for kept, new in zip(self._values, values, strict=True):
            kept[begin:end] = new
        return [self._slide(w, fresh, begin, end) for w in range(len(self._windows))]

    def _slide(self, w: int, fresh: B1, begin: int, end: int) -> Sums:
        """Slide a window over the rows from ``begin`` on."""
        kernels, n, span = self._kernels, end - begin, self._windows[w].span
        tails, rows, begins = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.bool_)
        kernels.edges(self._time, fresh, begin, end, span, self._marks[w], tails, begins, rows)
        sums: list[list[F64]] = [[np.empty(n) for _ in self._terms[w]] for _ in range(2)]
        total, rest = sums
        for m, (term, kept) in enumerate(zip(self._terms[w], self._sums[w], strict=True)):
            kernels.slide(
                self._time, self._values, begin, end, span, term, tails, begins, rows, kept, total[m], rest[m]
            )
        return Sums(total, rest, rows, span)

    def _make_room(self, n: int) -> int:
        """Forget the rows that are in no window any more, if the room is needed; give where to go on."""
        if self._end + n <= len(self._time):
            return self._end
        tail = self._kernels.TAIL
        first = max(0, int(self._marks[:, tail].min(initial=self._end)) - 1)  # and the row before a window
        live = self._end - first
        time, values = self._time[first : self._end], self._values[:, first : self._end]
        if 2 * (live + n) > len(self._time):
            self._time = np.empty(2 * (live + n), np.int64)
            self._values = np.empty((len(values), 2 * (live + n)))
        self._time[:live], self._values[:, :live] = time.copy(), values.copy()
        self._marks[:, tail] -= first
        for sums in self._sums:
            sums[:, self._kernels.FIRST] -= first
        self._end = live
        return live
