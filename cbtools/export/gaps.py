"""What to do with an unproven book where the other format cannot say that it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import polars as pl

from cbtools.book.messages import OF_CHANGE, RUN
from cbtools.errors import ConfigError, StateError, unknown_name
from cbtools.schema import TIME, schema

Gaps = Literal["drop", "raise", "ignore"]


def check_gaps(gaps: str) -> None:
    """Refuse what is none of the words."""
    if gaps not in get_args(Gaps):
        raise unknown_name("value of gaps", gaps, get_args(Gaps))


def check_columns(frame: pl.LazyFrame, what: str, expected: dict[str, pl.DataType]) -> None:
    """Refuse a frame that lacks a column, or has it in another dtype."""
    found = frame.collect_schema()
    for name, dtype in expected.items():
        if name not in found:
            raise ConfigError(f"{what} lacks the column {name}: it has {', '.join(found) or 'none'}")
        if found[name] != dtype:
            raise ConfigError(f"{name} of {what} must be {dtype}, not {found[name]}: cast it")


def refusal(row: dict[str, Any]) -> StateError:
    """Say where the book is unproven."""
    return StateError(
        f"the book of {row['product_id']} is unproven at {row['server_time'] or row['capture_time']}: frames "
        "are missing since its last snapshot, or there was none. gaps='drop' leaves such rows out, "
        "gaps='ignore' writes them like the others"
    )


class Proven:
    """Leaves out the rows of books that are not proven, batch by batch, and clears such a book first."""

    def __init__(self, gaps: Gaps) -> None:
        self._raises = gaps == "raise"
        self._known = pl.DataFrame(schema={"product_id": pl.String, "run": TIME, "proven": pl.Boolean})
        """Of each product: the run of its last snapshot, and whether its last row was proven."""

    def __call__(self, level2: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that are proven; an empty snapshot stands for the first of the others."""
        of_snapshot = pl.when("is_snapshot").then(RUN).forward_fill().over("product_id")
        rows = (
            level2.join(self._known, on="product_id", how="left", maintain_order="left")
            .with_columns(run=pl.coalesce(of_snapshot, "run"), before=pl.col("proven"))
            .with_columns(proven=(pl.col("run") == pl.col(RUN)).fill_null(False))
            .with_columns(
                before=pl.coalesce(pl.col("proven").shift(1).over("product_id"), "before").fill_null(False)
            )
        )
        if self._raises and not rows["proven"].all():
            raise refusal(rows.filter(~pl.col("proven")).row(0, named=True))
        last = rows.group_by("product_id").agg(pl.last("run", "proven"))
        self._known = pl.concat([self._known.join(last, on="product_id", how="anti"), last])
        proven = pl.col("proven")
        change = (pl.when("proven").then(name).alias(name) for name in OF_CHANGE)
        return rows.filter(proven | pl.col("before")).with_columns(
            *change, is_snapshot=pl.col("is_snapshot") | ~proven
        )


class Snapshots:
    """Writes snapshots so that a reader of Tardis' files sees where each begins, batch by batch.

    It discards its book at a snapshot that follows a change. So one that follows another, or is empty, has a
    change before it; an empty one is a snapshot of one level. Both are deletions of a level that is not
    there. Breaks, for which the format has nothing, are left out.
    """

    def __init__(self) -> None:
        self._last = pl.DataFrame(schema={"product_id": pl.String, "last": pl.Boolean, "last_line": pl.Int64})

    def __call__(self, level2: pl.DataFrame) -> pl.DataFrame:
        """Return the next rows, with what stands for their markers."""
        marker = pl.all_horizontal(pl.col(name).is_null() for name in OF_CHANGE)
        rows = level2.filter(pl.col("is_snapshot") | ~marker)
        shown = pl.col("is_snapshot") & ~marker  # what an empty one leaves, the next one need not discard
        before = [one.shift(1).over("product_id") for one in (shown, pl.col("line"))]
        rows = (
            rows.join(self._last, on="product_id", how="left", maintain_order="left")
            .with_row_index()
            .with_columns(
                last=pl.coalesce(before[0], "last").fill_null(False),
                last_line=pl.coalesce(before[1], "last_line"),
            )
        )
        again = pl.col("is_snapshot") & pl.col("last") & (pl.col("line") != pl.col("last_line"))
        none = {
            name: pl.lit(value).cast(schema("level2")[name])
            for name, value in zip(OF_CHANGE, ("bid", 0.0, 0.0), strict=True)
        }
        changes = rows.filter(marker | again).with_columns(is_snapshot=pl.lit(False), **none)
        spelt = [pl.when(marker).then(value).otherwise(name).alias(name) for name, value in none.items()]
        ends = rows.group_by("product_id").agg(last=shown.last(), last_line=pl.last("line"))
        self._last = pl.concat([self._last.join(ends, on="product_id", how="anti"), ends])
        both = pl.concat([changes, rows.with_columns(spelt)]).sort("index", maintain_order=True)
        return both.select(level2.columns)


class EndedBooks:
    """Leaves out the rows of a book that are unproven, batch by batch; the first is one without levels."""

    def __init__(self, levels: Sequence[str]) -> None:
        self._levels = levels
        self._last = pl.DataFrame(schema={"product_id": pl.String, "last": pl.Boolean})

    def __call__(self, book: pl.DataFrame) -> pl.DataFrame:
        """Return the next rows that are written."""
        unproven = (pl.col("book_state") == "unproven").fill_null(False)
        rows = book.join(self._last, on="product_id", how="left", maintain_order="left").with_columns(
            unproven=unproven,
            before=pl.coalesce(unproven.shift(1).over("product_id"), "last").fill_null(True),
        )
        ends = rows.group_by("product_id").agg(last=pl.last("unproven"))
        self._last = pl.concat([self._last.join(ends, on="product_id", how="anti"), ends])
        shown = [pl.when("unproven").then(None).otherwise(name).alias(name) for name in self._levels]
        written = rows.filter(~pl.col("unproven") | ~pl.col("before"))
        return written.with_columns(shown).select(book.columns)
