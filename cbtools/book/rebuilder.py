"""The engine: batches of whole messages → rows of the book, with the books between two batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.book.ladder import NO_VALUE, Ladder
from cbtools.book.messages import STREAM, Messages, Rows, read_batch
from cbtools.book.runs import Runs
from cbtools.errors import ConfigError, StateError, unknown_name
from cbtools.raw.sequence import Stream
from cbtools.schema import BOOK_DEPTH, BOOK_STATE, FRAME, TIME, book_columns

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

When = Literal["message", "bbo", "depth"]
Gaps = Literal["mark", "drop", "raise", "ignore"]

MOST_LEVELS: Final = 10_000
_UNPROVEN = BOOK_STATE.categories.to_list().index("unproven")
_STATES: Final = pl.DataFrame({"book_state": BOOK_STATE.categories}, schema={"book_state": BOOK_STATE})
_OF_FRAME: Final = ("product_id", *(column.name for column in FRAME))


@dataclass(frozen=True)
class BookOptions:
    """What a rebuilt book shows, checked."""

    depth: int = BOOK_DEPTH
    on: When = "message"
    gaps: Gaps = "mark"
    bands_bps: Sequence[float] = ()

    def __post_init__(self) -> None:
        if type(self.depth) is not int or not 1 <= self.depth <= MOST_LEVELS:
            raise ConfigError(f"depth must be a number of levels, 1 to {MOST_LEVELS:,}, not {self.depth!r}")
        for name, value, known in (("on", self.on, get_args(When)), ("gaps", self.gaps, get_args(Gaps))):
            if value not in known:
                raise unknown_name(f"value of {name}", value, known)
        bands = self.bands_bps
        if not isinstance(bands, list | tuple) or not all(map(_is_distance, bands)):
            raise ConfigError(
                f"bands_bps must be a list of distances from mid in basis points, e.g. (5, 10), not {bands!r}"
            )
        if len({f"{band:g}" for band in bands}) < len(bands):
            raise ConfigError(f"bands_bps names a distance twice: {bands!r}")
        object.__setattr__(self, "bands_bps", tuple(bands))  # the list given may change before the query runs

    @property
    def schema(self) -> pl.Schema:
        """Name → dtype of all columns, in order."""
        return pl.Schema({column.name: column.dtype for column in book_columns(self.depth, self.bands_bps)})


def _is_distance(band: object) -> bool:
    return isinstance(band, int | float) and not isinstance(band, bool) and 0 < band < float("inf")


class Rebuilder:
    """Rebuilds the books of a stream of whole messages, batch by batch; between two batches it has `books`.

    ``stream`` and ``books`` are those to start from; ``begin`` makes the book of a product that is not there.
    """

    def __init__(
        self,
        options: BookOptions,
        columns: Collection[str],
        stream: Stream | None = None,
        books: dict[str, Ladder] | None = None,
        begin: Callable[[str], Ladder] = lambda product: Ladder(),
    ) -> None:
        from cbtools._kernels import book as kernels

        self._kernels, self._options = kernels, options
        self.schema = pl.Schema({name: dtype for name, dtype in options.schema.items() if name in columns})
        self.empty = pl.DataFrame(schema=self.schema)
        self._shown = _Shown(options, columns)
        when = {"message": kernels.EACH, "bbo": kernels.BEST, "depth": kernels.SHOWN}[options.on]
        gaps = options.gaps
        self._how = np.array([when, self._shown.depth, gaps == "ignore", gaps == "drop"], np.int64)
        self._runs = Runs(stream)
        self.books = {} if books is None else books
        self._begin = begin

    def __call__(self, level2: pl.DataFrame) -> pl.DataFrame:
        """Take the next rows, of whole frames; give the book's rows."""
        if level2.is_empty():
            return self.empty
        batch = read_batch(level2, self._runs(level2))
        n = len(batch.first_rows)
        told: I64 = np.empty((5, n), np.int64)
        columns: F64 = np.empty((len(self._shown.places) + 3 * len(self._shown.bands), n))
        slots = np.empty(level2.height, np.uint32)
        fewest = np.full(2, self._shown.depth)
        for messages in batch.products:
            book = self.books.get(messages.product)
            if book is None:
                book = self.books[messages.product] = self._begin(messages.product)
            self._rebuild(book, batch.rows, messages, slots, columns, told, fewest)
        if not self.schema:  # only the books are asked for
            return self.empty
        kept = told[self._kernels.TOLD_KEPT] == 1
        if self._options.gaps == "raise":
            unproven = np.flatnonzero(kept & (told[self._kernels.TOLD_STATE] == _UNPROVEN))
            if len(unproven):
                raise _refusal(level2.row(int(batch.first_rows[unproven[0]]), named=True))
        first_rows = batch.first_rows
        if not kept.all():
            first_rows, told, columns = first_rows[kept], told[:, kept], columns[:, kept]
        of_frame = [level2[name] for name in _OF_FRAME if name in self.schema and name in level2]
        made = {series.name: series for series in pl.DataFrame(of_frame)[first_rows]} if of_frame else {}
        made |= self._shown.series(columns, fewest) | self._told(told)
        if STREAM in self.schema and STREAM not in made:
            made[STREAM] = pl.Series([None], dtype=pl.String).new_from_index(0, len(first_rows))
        frame = pl.DataFrame([made[name] for name in self.schema])
        frame.columns = list(self.schema)
        return frame

    def _rebuild(
        self, book: Ladder, rows: Rows, messages: Messages, slots: npt.NDArray[np.uint32], columns: F64,
        told: I64, fewest: I64,
    ) -> None:  # fmt: skip
        kernels = self._kernels
        book.find(rows.price, rows.side, messages.pieces, slots)
        shown = slice(kernels.FEWEST_BIDS, kernels.FEWEST_ASKS + 1)
        book.marks[shown] = self._shown.depth
        kernels.rebuild(
            slots, rows.side, rows.size, rows.snapshot, messages.pieces, messages.messages, book.slot_at,
            book.level, book.bits, book.marks, self._how, self._shown.top, self._shown.places,
            self._shown.bands, columns, told,
        )  # fmt: skip
        np.minimum(fewest, book.marks[shown], out=fewest)

    def _told(self, told: I64) -> dict[str, pl.Series]:
        kernels, made = self._kernels, {}
        if "n_bids" in self.schema:
            made["n_bids"] = pl.Series(told[kernels.TOLD_BIDS].astype(np.int32))
        if "n_asks" in self.schema:
            made["n_asks"] = pl.Series(told[kernels.TOLD_ASKS].astype(np.int32))
        if "book_state" in self.schema:
            made["book_state"] = _STATES[told[kernels.TOLD_STATE]].to_series()
        if "proven_since" in self.schema:
            since = pl.Series(told[kernels.TOLD_SINCE])
            if (told[kernels.TOLD_SINCE] == NO_VALUE).any():
                since = since.set(since == NO_VALUE, None)
            made["proven_since"] = since.cast(TIME)
        return made


def _refusal(row: Mapping[str, Any]) -> StateError:
    return StateError(
        f"the book of {row['product_id']} is unproven at line {row['line']} (connection {row['connection']}, "
        f"sequence_num {row['sequence_num']}): frames are missing since its last snapshot; gaps='mark' shows "
        "such rows as unproven, gaps='drop' leaves out all but the first"
    )


class _Shown:
    """The columns of levels and bands that are asked for, and how the kernel is told of them."""

    def __init__(self, options: BookOptions, columns: Collection[str]) -> None:
        self._levels: list[tuple[str, int, int]] = []
        deepest = options.depth if options.on == "depth" else 1
        for of_side, side in enumerate(("bid", "ask")):
            for of_what, what in enumerate(("price", "size")):
                for k in range(1, options.depth + 1):
                    if f"{side}_{what}_{k}" in columns:
                        self._levels.append((f"{side}_{what}_{k}", 2 * of_side + of_what, k))
                        deepest = max(deepest, k)
        self.depth = deepest
        self.places = np.array([kind * deepest + k - 1 for _, kind, k in self._levels], np.int64)
        self.top = np.full(4 * deepest, np.nan)
        bands = sorted(options.bands_bps)
        names = [
            name
            for x in bands
            for name in (f"bid_depth_{x:g}bps", f"ask_depth_{x:g}bps", f"imbalance_{x:g}bps")
        ]
        wanted = any(name in columns for name in names)
        self.bands = np.array(bands if wanted else [], np.float64)
        self._band_names = names if wanted else []

    def series(self, columns: F64, fewest: I64) -> dict[str, pl.Series]:
        """Make columns of what the kernel wrote; a level that not every row has is null where it is NaN."""
        n = columns.shape[1]
        every = pl.Series(columns.ravel())  # cut, which is ten times as fast as to make each
        cut = [every.slice(i * n, n) for i in range(len(columns))]
        made = {}
        for (name, kind, k), series in zip(self._levels, cut, strict=False):
            made[name] = series if fewest[kind // 2] >= k else series.fill_nan(None)
        for name, series in zip(self._band_names, cut[len(self._levels) :], strict=True):
            made[name] = series.fill_nan(None)
        return made
