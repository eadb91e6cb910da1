"""The order of rows in a part: by server_time, sequence_num and line, stable, nulls first.

A part with rows of which server_time is not known is in the order of receipt instead, by line: snapshots of
the Exchange feed have none, and would all come before the changes between them.

Input is nearly always in order already; so the order is checked, and only what is not in order is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import pairwise
from pathlib import Path
from typing import Final

import polars as pl

ORDER: Final = ("server_time", "sequence_num", "line")
"""The columns a part's rows are sorted by."""

RECEIVED: Final = ("line",)
"""The column that the rows are sorted by where server_time is not known of all."""

Key = tuple[int | None, ...]
"""A row's place in the order: the sort columns' values, times in their unit since the epoch."""

_ARRIVAL = "__arrival"


def sort_columns(schema: Mapping[str, pl.DataType]) -> list[str]:
    """Give the sort columns that a frame has (as whole numbers or times: others have no order here)."""
    return [
        name for name in ORDER if name in schema and (schema[name].is_integer() or schema[name].is_temporal())
    ]


def by_receipt(by: Sequence[str], nulls: int) -> bool:
    """Return whether rows are sorted by receipt: some of them (``nulls``) have no server_time."""
    return nulls > 0 and by[0] == ORDER[0] and by[-1] == ORDER[-1]


def in_order(frame: pl.DataFrame, by: Sequence[str]) -> bool:
    """Tell whether no row stands before one that sorts lower."""
    if all(frame[name].is_sorted() for name in by):  # nearly always, and the quickest to see
        return True
    return not frame.select(_falls(tuple(by))).item()


@cache
def _falls(by: tuple[str, ...]) -> pl.Expr:
    return _less([(pl.col(name), pl.col(name).shift(1)) for name in by]).slice(1).any()


def _less(pairs: Sequence[tuple[pl.Expr, pl.Expr]]) -> pl.Expr:
    """Compare row by row, first pair first; null is less than any value."""

    def either(rest: pl.Expr, pair: tuple[pl.Expr, pl.Expr]) -> pl.Expr:
        left, right = pair
        less = (left < right).fill_null(left.is_null() & right.is_not_null())
        return less | (left.eq_missing(right) & rest)

    return reduce(either, reversed(pairs), pl.lit(False))


def ends(frame: pl.DataFrame, by: Sequence[str]) -> tuple[Key, Key]:
    """Give the keys of the first and of the last row."""
    first, last = (_key(frame.slice(row, 1), by) for row in (0, frame.height - 1))
    return first, last


def extremes(frame: pl.DataFrame, column: str) -> tuple[Key, Key]:
    """Return the keys of the least and of the greatest value of a column."""
    least, greatest = frame.select(low=pl.col(column).min(), high=pl.col(column).max()).row(0)
    return (None if frame[column].null_count() else least,), (greatest,)


def _key(row: pl.DataFrame, by: Sequence[str]) -> Key:
    return tuple(
        column[0] if column.dtype.is_integer() else column.cast(_number(column.dtype))[0]
        for column in (row[name] for name in by)
    )


def _number(dtype: pl.DataType) -> type[pl.DataType]:
    return pl.Int32 if dtype == pl.Date else pl.Int64


def rank(key: Key) -> tuple[tuple[bool, int], ...]:
    """Make a key comparable: null is less than any value."""
    return tuple((value is not None, value or 0) for value in key)


@dataclass(frozen=True)
class Run:
    """Rows in a file, in order among themselves: a row group."""

    path: Path
    offset: int
    rows: int
    first: Key
    last: Key

    def read(self) -> pl.DataFrame:
        """Read the run's rows."""
        scan = pl.scan_parquet(str(self.path), glob=False, hive_partitioning=False)
        return scan.slice(self.offset, self.rows).collect()


def merge(runs: Sequence[Run], by: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Merge runs into frames in order: the stable sort of all their rows, in the order they were written.

    Parameters
    ----------
    runs : sequence of Run
        In the order of writing.
    by : sequence of str
        The sort columns.

    Yields
    ------
    polars.DataFrame
        Rows which nothing that follows sorts before. What is held at a time is the runs that overlap: two or
        so of a feed whose clock jitters, everything only of rows that were shuffled.
    """
    arrival, total = [], 0
    for run in runs:
        arrival.append(total)
        total += run.rows
    order: list[int | None] = [*sorted(range(len(runs)), key=lambda i: rank(runs[i].first)), None]
    held: list[pl.DataFrame] = []
    for here, after in pairwise(order):
        assert here is not None
        held.append(runs[here].read().with_row_index(_ARRIVAL, arrival[here]))
        frame = pl.concat(held).sort([*by, _ARRIVAL], nulls_last=False)
        ready = frame.height if after is None else _count_before(frame, by, runs[after].first)
        yield frame.head(ready).drop(_ARRIVAL)
        held = [frame.slice(ready)]


def _count_before(frame: pl.DataFrame, by: Sequence[str], key: Key) -> int:
    pairs = [(pl.col(name).to_physical(), pl.lit(value)) for name, value in zip(by, key, strict=True)]
    return int(frame.select(_less(pairs).sum()).item())
