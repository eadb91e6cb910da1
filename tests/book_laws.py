"""What holds for every book: helpers that compare the package's book with the oracle's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import laws
import polars as pl
from oracles import book as oracle

import cbtools as cb
from cbtools import schema
from cbtools.schema import TIME

Row = dict[str, Any]
STATE = pl.Enum(["ok", "unproven", "crossed", "one_sided", "empty"])
PER_LEVEL = ("bid_price", "bid_size", "ask_price", "ask_size")
PER_BAND = ("bid_depth", "ask_depth", "imbalance")


def as_rows(level2: pl.DataFrame) -> list[Row]:
    """Give the rows of a table as the oracle takes them: times in ns."""
    return list(level2.with_columns(pl.col(TIME).cast(pl.Int64)).iter_rows(named=True))


def as_level2(rows: Iterable[Row]) -> pl.DataFrame:
    """Make a level2 table of rows with times in ns."""
    columns = schema.schema("level2")
    numbers = {name: pl.Int64 if dtype == TIME else dtype for name, dtype in columns.items()}
    return pl.DataFrame(list(rows), schema=numbers, orient="row").cast(dict(columns))


def book_schema(depth: int = 10, bands_bps: Sequence[float] = ()) -> pl.Schema:
    """Write down the columns of a book's rows."""
    frame = schema.schema("level2")
    columns: dict[str, Any] = {name: frame[name] for name in ("product_id", *oracle.TOLD)}
    columns |= {f"{name}_{k}": pl.Float64() for name in PER_LEVEL for k in range(1, depth + 1)}
    columns |= {"n_bids": pl.Int32(), "n_asks": pl.Int32(), "book_state": STATE, "proven_since": TIME}
    return pl.Schema(columns | {f"{name}_{x:g}bps": pl.Float64() for x in bands_bps for name in PER_BAND})


def same_rows(
    got: pl.DataFrame, expected: list[Row], depth: int = 10, bands_bps: Sequence[float] = ()
) -> None:
    """Check a book against the oracle's rows: every column, every row, bit by bit."""
    columns = book_schema(depth, bands_bps)
    assert got.schema == columns, "another schema"
    assert all(list(row) == list(columns) for row in expected), "the oracle has other columns"
    for name in columns:
        values = [laws.bits(row[name]) for row in expected]
        if (found := laws.plain(got[name])) != values:
            raise AssertionError(f"{name}: {laws.first_difference(found, values, expected)}")


def same_as_oracle(
    level2: pl.LazyFrame | pl.DataFrame,
    rows: list[Row],
    *,
    depth: int = 10,
    bands_bps: Sequence[float] = (),
    **options: Any,
) -> pl.DataFrame:
    """Rebuild with the package and with the oracle: the same rows."""
    got = cb.rebuild_book(level2, depth=depth, bands_bps=bands_bps, **options).collect()
    same_rows(got, oracle.rebuild(rows, depth=depth, bands_bps=bands_bps, **options), depth, bands_bps)
    return got


def dropped_breaks_change_nothing(level2: pl.DataFrame, **options: Any) -> None:
    """Check that without the markers of breaks each other message's row stays as it was.

    unbroken_since says the same as the markers, as long as there are changes to have it.
    """
    is_break = pl.col("side").is_null() & ~pl.col("is_snapshot")
    kept = level2.filter(~is_break)
    by = ["product_id", *oracle.TOLD]
    book = cb.rebuild_book(level2, **options).collect()
    of_others = book.join(kept, on=by, how="semi", nulls_equal=True)
    got = cb.rebuild_book(kept, **options).collect()
    for (product_id,), rows in got.group_by("product_id"):  # within a frame a marker may stand before others
        laws.assert_same(rows, of_others.filter(pl.col("product_id") == product_id), str(product_id))
    assert got.height == of_others.height


def same_state(state: cb.BookState, books: dict[str, oracle.Book]) -> None:
    """Check the levels of a state, and what it says of its products, against the oracle's books."""
    columns = ("product_id", "side", "price", "size")
    levels = state.levels
    assert set(columns) <= set(levels.columns)
    expected = oracle.levels(books)
    for name in columns:
        values = [laws.bits(row[name]) for row in expected]
        assert laws.plain(levels[name]) == values, f"levels.{name}"
    told = {row["product_id"]: row for row in as_rows(state.products)}
    assert told.keys() == books.keys()
    for product_id, book in books.items():
        row = told[product_id]
        assert (row["has_book"], row["snapshots"]) == (book.has_book, book.snapshots), row
        if book.has_book:
            assert row["proven"] == book.proven, row
        if book.proven:
            assert row["proven_since"] == book.snapshot_name, row
