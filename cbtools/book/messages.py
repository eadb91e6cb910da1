"""Rows of level2 → whole messages, in the form that the kernels of `_kernels.book` take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.book.ladder import NO_VALUE
from cbtools.errors import DatasetError
from cbtools.schema import SIDE, TIME

I64 = npt.NDArray[np.int64]

OF_ROW: Final = ("product_id", "is_snapshot", "side", "price", "size")
OF_FRAME: Final = ("server_time", "capture_time", "sequence_num", "connection", "line")
RUN: Final = "unbroken_since"
STREAM: Final = "stream"
OF_CHANGE: Final = ("side", "price", "size")
"""Null in a marker, all of them."""
OF_MESSAGE: Final = pl.col("side").is_not_null() | pl.col("is_snapshot")
"""Selects the rows of messages: all but the markers of breaks."""

NO_SIDE: Final = len(SIDE.categories)
"""Stands for the side of a marker, as in the kernels."""

_ROWS: Final = 524_288
"""So many rows of a larger batch are taken at a time: more would only need more memory."""
_NEAR: Final = 4096
"""Among so many rows the last frame's beginning is looked for first."""


@dataclass(frozen=True)
class Rows:
    """The rows of a batch, an entry a row."""

    price: npt.NDArray[np.float64]
    side: npt.NDArray[np.uint8]
    size: npt.NDArray[np.float64]
    snapshot: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Messages:
    """The messages of one product in a batch, and their pieces.

    Rows of ``pieces`` are from, to, message; of ``messages`` run, time, number, row. That is the
    message's place among those of all products, in the order of their first rows.
    """

    product: str
    pieces: I64
    messages: I64


@dataclass(frozen=True)
class Batch:
    """Whole messages: their rows, by product, and the index of each message's first row."""

    rows: Rows
    products: list[Messages]
    first_rows: I64


def read_batch(level2: pl.DataFrame, runs: I64) -> Batch:
    """Divide rows into messages; ``runs`` names each row's unbroken run.

    A message is all rows of one product in one frame.
    """
    numbers = _frame_numbers(level2)
    new_frame = _starts(numbers)
    changes = _changes(level2["product_id"])
    starts = np.flatnonzero(new_frame if changes is None else new_frame | changes)
    ends = np.append(starts[1:], level2.height)
    if changes is None:
        names = [level2["product_id"][0]]
        order: npt.NDArray[np.intp] = np.arange(len(starts))
        ordered: I64 = np.zeros(len(starts), np.int64)
        begins: npt.NDArray[np.bool_] = np.ones(len(starts), np.bool_)
    else:
        frame = np.cumsum(new_frame)[starts]
        names, codes = _codes(level2["product_id"].gather(starts))
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        begins = np.append(True, (np.diff(ordered) != 0) | (np.diff(frame[order]) != 0))
    first_piece = order[begins]
    row = np.empty(len(first_piece), np.int64)
    by_row = np.argsort(first_piece)
    row[by_row] = np.arange(len(first_piece))
    first_rows = starts[first_piece]
    time = numbers["capture_time"][first_rows]
    time = np.where(time == NO_VALUE, numbers["server_time"][first_rows], time)
    time = np.where(time == NO_VALUE, 0, time)
    pieces = np.stack([starts[order], ends[order], np.cumsum(begins) - 1])
    messages = np.stack([runs[first_rows], time, numbers["sequence_num"][first_rows], row])
    products = []
    bounds = np.searchsorted(ordered, np.arange(len(names) + 1))
    for name, a, b in zip(names, bounds[:-1], bounds[1:], strict=True):
        of_product = pieces[:, a:b].copy()
        m = of_product[2]
        whole = messages[:, m[0] : m[-1] + 1].copy()
        m -= m[0]
        products.append(Messages(name, of_product, whole))
    return Batch(_rows(level2), products, first_rows[by_row])


def _rows(level2: pl.DataFrame) -> Rows:
    for name in ("product_id", "is_snapshot"):
        if level2[name].null_count():
            raise DatasetError(f"level2 has a null in {name}: there can be none in a row of a book")
    codes = pl.col("side").to_physical().cast(pl.UInt8)
    if any(level2[name].null_count() for name in OF_CHANGE):
        level2 = _with_markers(level2)
        codes = codes.fill_null(NO_SIDE)
    price, side, size = level2.select("price", codes, "size")
    return Rows(
        _read_only(price.to_numpy()),
        _read_only(side.to_numpy()),
        _read_only(size.to_numpy()),
        _read_only(level2["is_snapshot"].to_numpy().view(np.uint8)),
    )


def check_numbers(level2: pl.DataFrame) -> None:
    """Raise an error for NaN (which no slot of the book can hold), infinities and negative sizes."""
    wrong = ~pl.col("price").is_finite() | ~pl.col("size").is_finite() | (pl.col("size") < 0.0)
    if level2.select(wrong.any()).item():
        row = level2.filter(wrong).row(0, named=True)
        raise DatasetError(
            f"level2 has price {row['price']} and size {row['size']} at line {row['line']} of "
            f"{row['product_id']}: expected finite numbers, and no size below 0"
        )


def _with_markers(level2: pl.DataFrame) -> pl.DataFrame:
    """Fill what is null in markers; a change of a level has no nulls."""
    missing = [pl.col(name).is_null() for name in OF_CHANGE]
    partly = level2.select(pl.any_horizontal(missing) & ~pl.all_horizontal(missing)).to_series()
    if partly.any():
        row = level2.row(int(partly.arg_max() or 0), named=True)
        null = ", ".join(name for name in OF_CHANGE if row[name] is None)
        raise DatasetError(
            f"level2 has a null in {null} at line {row['line']} of {row['product_id']}: expected a change of "
            "a level, with side, price and size, or a marker, with none of them"
        )
    return level2.with_columns(pl.col("price", "size").fill_null(0.0))


def _frame_numbers(level2: pl.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Give the columns that tell a row's frame, as whole numbers; NO_VALUE where they are null."""
    numbers = {}
    for name in OF_FRAME:
        series = level2[name]
        if series.dtype == pl.Int64 and series.null_count():
            series = series.fill_null(NO_VALUE)
        values = series.to_numpy()  # a time that is null is numpy's NaT, which has the bits of NO_VALUE
        numbers[name] = _read_only(values.view(np.int64) if series.dtype == TIME else values)
    return numbers


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Have all arrays alike: some come so from Polars, and a kernel would be compiled anew for the others."""
    array.flags.writeable = False
    return array


def _starts(numbers: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Tell in which rows a frame begins."""
    from cbtools._kernels.frames import mark_frames

    starts = np.empty(len(numbers["line"]), np.bool_)
    mark_frames(
        numbers["line"],
        numbers["sequence_num"],
        numbers["connection"],
        numbers["server_time"],
        numbers["capture_time"],
        starts,
    )
    return starts


def _changes(product: pl.Series) -> npt.NDArray[np.bool_] | None:
    """Tell in which rows another product begins; None if there is only one."""
    if (product == product[0]).all():
        return None
    return (product != product.shift(1)).fill_null(True).to_numpy()


def _codes(names: pl.Series) -> tuple[list[str], I64]:
    """Give each name a number, and the names by these."""
    numbers = names.cast(pl.Categorical()).to_physical().to_numpy()
    _, first, codes = np.unique(numbers, return_index=True, return_inverse=True)
    return names.gather(first).to_list(), codes.astype(np.int64)


class Whole:
    """Holds back the last frame of what has come, until it is known to be whole."""

    def __init__(self) -> None:
        self._held: list[pl.DataFrame] = []

    def __call__(self, level2: pl.DataFrame | None) -> Iterator[pl.DataFrame]:
        """Take the next rows, or None at their end; give those of whole frames, some at a time."""
        rest = pl.DataFrame() if level2 is None else level2
        while rest.height:
            rows = rest.head(_ROWS)
            cut = _last_start(rows)
            if cut:
                yield pl.concat([*self._held, rows.head(cut)]) if self._held else rows.head(cut)
                self._held = []
            else:  # of one frame alone, perhaps the one that is held
                if self._held and not _same_frame(self._held[-1], rows):
                    yield pl.concat(self._held)
                    self._held = []
                self._held.append(rows)
            rest = rest.slice(cut or rows.height)
        if level2 is None and self._held:
            yield pl.concat(self._held)
            self._held = []


def _last_start(rows: pl.DataFrame) -> int:
    """Give the first row of the last frame, which is not far from the end but in a snapshot."""
    for n in (min(_NEAR, rows.height), rows.height):
        starts = _starts(_frame_numbers(rows.tail(n)))
        last = int(n - 1 - np.argmax(starts[::-1]))
        if last:
            return rows.height - n + last
    return 0


def _same_frame(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    return one.select(OF_FRAME).row(-1) == other.select(OF_FRAME).row(0)
