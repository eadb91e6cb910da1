"""rebuild_book: rows of level2 → rows of the book, after each whole message and each break."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cbtools.book.messages import OF_FRAME, OF_ROW, RUN, STREAM, Whole, check_numbers
from cbtools.book.rebuilder import BookOptions, Gaps, Rebuilder, When
from cbtools.book.state import BookState
from cbtools.errors import ConfigError
from cbtools.lazy import Step, stateful
from cbtools.schema import BOOK_DEPTH, schema

_OPTIONAL = (STREAM, RUN)
"""Columns of level2 without which a book can be rebuilt."""


def rebuild_book(
    level2: pl.LazyFrame | pl.DataFrame,
    *,
    depth: int = BOOK_DEPTH,
    on: When = "message",
    start: BookState | None = None,
    gaps: Gaps = "mark",
    bands_bps: Sequence[float] = (),
) -> pl.LazyFrame:
    """Rebuild the order book: a row with the best levels after each whole message, and where a break ends it.

    A message is all changes of one product in one frame; what the book is between two of them is never seen.
    A snapshot replaces the book, and there are no rows before a product's first. Where frames are missing,
    level2 has a marker, and the book a row with the levels of before that is unproven, until the product's
    next snapshot. The books are rebuilt in full depth, each product's by its own rows, streaming: memory is
    bounded by the books and a batch.

    Filter level2 by product and time before rebuilding, and by anything else after it: a filter by price,
    side or size drops the markers, and the breaks are then seen only with the product's next message.

    Parameters
    ----------
    level2 : polars.LazyFrame or polars.DataFrame
        Rows of the ``level2`` table in the order of their lines, as `scan_raw` gives them, or of one product
        as `scan_dataset` does. Needed are product_id, is_snapshot, side, price, size, server_time,
        capture_time, sequence_num, connection, line and unbroken_since; stream, if the frame has it, is
        copied. Without unbroken_since, only the
        numbers that the rows themselves have can prove that none is missing: where sequence_num does not
        rise by 0 or 1 from row to row, all books are unproven.
    depth : int
        Levels of a side that a row shows.
    on : {"message", "bbo", "depth"}
        When there is a row: after each message; when price or size of the best bid or ask, or book_state, or
        the snapshot that the book rests on, is not what it was after the product's message before; or when
        any of the levels shown is not.
    start : BookState, optional
        The books to start from: the state before the first row. Give it to `scan_raw` too, so that the rows
        say that they continue it; books that they do not continue are unproven.
    gaps : {"mark", "drop", "raise", "ignore"}
        What to do where frames are missing: mark the rows as unproven until the product's next snapshot;
        leave out the rows that are not ok, but for the one with which a book ceases to be ok (so that no row
        before it is taken for the book of later) or becomes unproven; raise at the first unproven row; or
        ignore it, for a recording that is known to lack frames.
    bands_bps : sequence of float
        Also give the depth within these distances of mid, basis points: bid_depth_{x}bps, ask_depth_{x}bps
        and their imbalance_{x}bps, summed over the full book, from the best outwards, afresh for each row.

    Returns
    -------
    polars.LazyFrame
        The columns of ``cbtools.schema.book_columns(depth, bands_bps)``, in the order of the messages. A
        level that is not there is null.

    Raises
    ------
    ConfigError
        If an argument cannot be meant, or level2 lacks a column, or has it in another dtype; at once.
    StateError
        At the first unproven row with ``gaps="raise"``, when the query runs.
    DatasetError
        If a row has a null product_id or is_snapshot, or some but not all of side, price and size, when the
        query runs.

    Examples
    --------
    >>> import cbtools as cb
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"])
    >>> book = level2.pipe(cb.rebuild_book, depth=1, on="bbo")
    >>> book.select("bid_price_1", "ask_price_1", "book_state").head(1).collect()["book_state"].to_list()
    ['ok']
    """
    options = BookOptions(depth, on, gaps, bands_bps)
    if start is not None and not isinstance(start, BookState):
        raise ConfigError(f"start must be a BookState, not {start!r}")
    optional = check_level2(level2)

    def begin(columns: list[str]) -> tuple[list[str], Step]:
        rebuilder, whole = _rebuilder(options, columns, start), Whole()

        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            if batch is not None:
                check_numbers(batch)
            frames = [rebuilder(rows) for rows in whole(batch)]
            return pl.concat(frames) if frames else rebuilder.empty

        return [*OF_ROW, *OF_FRAME, *optional], step

    by = "product_id" if RUN in optional else None  # else the rows of one product tell of the others' gaps
    return stateful(level2.lazy(), begin, options.schema, "BOOK", by=by)


def check_level2(level2: pl.LazyFrame | pl.DataFrame) -> list[str]:
    """Check that a frame has the columns of level2; return those that it may lack and has."""
    if not isinstance(level2, pl.LazyFrame | pl.DataFrame):
        raise ConfigError(f"level2 must be a Polars frame, e.g. cb.scan_raw(path, 'level2'), not {level2!r}")
    found, expected = level2.lazy().collect_schema(), schema("level2")
    for name in (*OF_ROW, *OF_FRAME, *_OPTIONAL):
        if name not in found and name not in _OPTIONAL:
            raise ConfigError(f"level2 lacks the column {name}: it has {', '.join(found) or 'none'}")
        if name in found and found[name] != expected[name]:
            raise ConfigError(f"{name} of level2 must be {expected[name]}, not {found[name]}: cast it")
    return [name for name in _OPTIONAL if name in found]


def _rebuilder(options: BookOptions, columns: list[str], start: BookState | None) -> Rebuilder:
    if start is None:
        return Rebuilder(options, columns)
    return Rebuilder(options, columns, start.stream, start.ladders(), start.begin)
