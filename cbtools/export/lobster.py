"""The book as a pair of CSV files in the manner of LOBSTER: an orderbook file and its message file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from cbtools.durable import replace_file
from cbtools.errors import ConfigError, DatasetError
from cbtools.export.gaps import EndedBooks, Gaps, check_columns, check_gaps, refusal
from cbtools.schema import book_columns

PRICE_SCALE: Final = 10_000
_NO_ASK: Final = 9_999_999_999
_NO_BID: Final = -9_999_999_999
_ROUND_THE_CLOCK: Final = "0_86400000"  # from which to which millisecond of the day a file is
_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _NS
_MESSAGE: Final = ("time", "type", "order_id", "message_size", "message_price", "direction")


def to_lobster(
    book: pl.LazyFrame | pl.DataFrame,
    folder: str | os.PathLike[str],
    *,
    price_scale: int = PRICE_SCALE,
    size_scale: int | None = None,
    gaps: Gaps = "drop",
) -> list[Path]:
    """Write rows of the book as CSV files in the manner of LOBSTER, a pair a product and UTC day.

    The orderbook file has, best level first, ask price, ask size, bid price, bid size of each level that the
    book shows. A level that is not there has the price 9999999999 (ask) or -9999999999 (bid) and the size 0.
    The message file has a line for each of these: time (seconds after midnight UTC, 9 decimals, of
    server_time, or of capture_time where that is null), event type, order ID, size, price, direction. Neither
    has a header.

    LOBSTER's messages are single orders, and a level2 feed has none: a row of the book is the effect of all
    level changes of a frame. So only the time is told, and the five others are 0, a type that LOBSTER does
    not use: who looks for its submissions, deletions or executions finds none, rather than wrong ones.
    LOBSTER cannot say that a book is not proven either. So such rows are left out, but for the first, which
    is written without levels: a reader has no book until the next snapshot. Crossed books are written as they
    are.

    Parameters
    ----------
    book : polars.LazyFrame or polars.DataFrame
        Rows of the ``book`` table, as `rebuild_book` or `scan_dataset` give them; ``on="depth"`` gives rows
        as LOBSTER has them, where a level that is shown has changed. A lazy frame is streamed.
    folder : path-like
        Gets the files, ``{product}_{date}_0_86400000_orderbook_{depth}.csv`` and the same with ``message``;
        made if need be. They appear whole or not at all, and replace what has their names.
    price_scale : int
        What a price is multiplied by to be a whole number; LOBSTER's is 10000. A price is never rounded.
    size_scale : int, optional
        The same for sizes, e.g. 100_000_000. By default they are decimals: LOBSTER's are whole shares, and
        those of a coin are not.
    gaps : {"drop", "raise", "ignore"}
        What to do with unproven rows: leave them out, as described above; raise at the first; or write them
        like the others.

    Returns
    -------
    list of pathlib.Path
        The files, in the order of their names.

    Raises
    ------
    ConfigError
        If an argument cannot be meant, or the frame is no book; at once.
    StateError
        At the first unproven row with ``gaps="raise"``.
    DatasetError
        If a price or a size is no multiple of 1 / scale, or a row has no time.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> from cbtools.export.lobster import to_lobster
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for path in to_lobster(level2.pipe(cb.rebuild_book, depth=1, on="depth"), folder):
    ...         print(path.name, path.read_text().splitlines()[0])
    BTC-USD_2025-11-26_0_86400000_message_1.csv 50400.004461243,0,0,0,0,0
    BTC-USD_2025-11-26_0_86400000_orderbook_1.csv 870123500,0.017,870123400,0.10292637
    """
    check_gaps(gaps)
    for name, scale in (("price_scale", price_scale), ("size_scale", size_scale)):
        whole = isinstance(scale, int) and not isinstance(scale, bool) and scale > 0
        if not whole and not (scale is None and name == "size_scale"):
            raise ConfigError(f"{name} must be a whole number above 0, e.g. {PRICE_SCALE}, not {scale!r}")
    depth = _depth_of(book)
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file: give a folder, which gets a pair of files a product and day")
    needed = ["product_id", "server_time", "capture_time", "book_state", *_levels(depth)]
    scales = {"price": price_scale, "size": size_scale}
    drafts: dict[Path, Path] = {}
    ended = EndedBooks(_levels(depth))
    with ExitStack() as files:
        for rows in book.lazy().select(needed).collect_batches(maintain_order=True):
            if gaps == "raise":
                _check_proven(rows)
            wide = _wide(rows if gaps == "ignore" else ended(rows), depth, scales)
            for (product, date), part in wide.partition_by("product", "date", as_dict=True).items():
                name = f"{quote(str(product), safe='')}_{date}_{_ROUND_THE_CLOCK}"
                for kind, columns in (("message", _MESSAGE), ("orderbook", _levels(depth))):
                    path = target / f"{name}_{kind}_{depth}.csv"
                    if path not in drafts:
                        drafts[path] = files.enter_context(replace_file(path))
                        drafts[path].unlink(missing_ok=True)  # of a run that was killed
                    with drafts[path].open("ab") as file:
                        part.select(columns).write_csv(file, include_header=False, float_scientific=False)
    return sorted(drafts)


def _depth_of(book: object) -> int:
    """Give how many levels the book shows; refuse what is no book."""
    if not isinstance(book, pl.LazyFrame | pl.DataFrame):
        raise ConfigError(f"book must be a Polars frame, e.g. of cb.rebuild_book, not {book!r}")
    found = book.lazy().collect_schema()
    depth = max(1, len(list(takewhile(lambda k: f"ask_price_{k}" in found, count(1)))))
    dtypes: dict[str, Any] = {column.name: column.dtype for column in book_columns(depth)}
    needed = ("product_id", "server_time", "capture_time", "book_state", *_levels(depth))
    check_columns(book.lazy(), "book", {name: dtypes[name] for name in needed})
    return depth


def _levels(depth: int) -> list[str]:
    """Give the columns of the levels in LOBSTER's order."""
    return [
        f"{side}_{what}_{k}"
        for k in range(1, depth + 1)
        for side in ("ask", "bid")
        for what in ("price", "size")
    ]


def _check_proven(rows: pl.DataFrame) -> None:
    unproven = rows.filter((pl.col("book_state") == "unproven").fill_null(False))
    if unproven.height:
        raise refusal(unproven.row(0, named=True))


def _wide(rows: pl.DataFrame, depth: int, scales: Mapping[str, int | None]) -> pl.DataFrame:
    """Give both files' columns side by side."""
    time = pl.coalesce("server_time", "capture_time")
    if rows.select(time.is_null().any()).item():
        row = rows.filter(time.is_null()).row(0, named=True)
        raise DatasetError(f"the book has a row without a time, which LOBSTER needs: {row}")
    ns = time.to_physical() % _DAY_NS
    second, fraction = (ns // _NS).cast(pl.String), (ns % _NS).cast(pl.String).str.zfill(9)
    return rows.select(
        pl.col("product_id").alias("product"),
        time.dt.date().alias("date"),
        pl.concat_str(second, pl.lit("."), fraction).alias("time"),
        *(pl.lit(0).alias(name) for name in _MESSAGE[1:]),
        *(_whole(rows, column, scales) for column in _levels(depth)),
    )


def _whole(rows: pl.DataFrame, column: str, scales: Mapping[str, int | None]) -> pl.Series:
    """Give a column as it is written: by its scale, and with what stands for a level that is not there."""
    side, what, _ = column.split("_")
    values, scale = rows[column], scales[what]
    absent = 0 if what == "size" else _NO_ASK if side == "ask" else _NO_BID
    if scale is None:
        return values.fill_null(absent)
    numbers = (values * scale).round().cast(pl.Int64, strict=False)
    # A whole number over the scale, divided exactly, is the double nearest to that decimal; so is a price.
    # (Polars divides by a scalar as a product with its reciprocal, numpy does not.)
    exact = pl.Series(numbers.cast(pl.Float64).to_numpy() / scale, nan_to_null=True)
    differs = exact.ne_missing(values)
    if differs.any():
        row = rows.row(int(differs.arg_max() or 0), named=True)
        raise DatasetError(
            f"{column} of {row['product_id']} at {row['server_time'] or row['capture_time']} is "
            f"{row[column]}, which is no whole number by {what}_scale={scale}: give a larger one, "
            "e.g. 100_000_000"
        )
    return numbers.fill_null(absent)
