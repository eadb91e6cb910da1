"""What to do with an unproven book where the other format cannot say that it is."""

from __future__ import annotations

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


def markers_as_changes(level2: pl.DataFrame) -> pl.DataFrame:
    """Write empty snapshots in the manner of Tardis, and leave out the breaks, for which it has nothing.

    A reader of its files discards its book at a snapshot that follows a change. So each is a change and a
    snapshot, both a deletion of a level that is not there.
    """
    marker = pl.all_horizontal(pl.col(name).is_null() for name in OF_CHANGE)
    rows = level2.with_row_index().filter(pl.col("is_snapshot") | ~marker)
    changes = rows.filter(marker).with_columns(is_snapshot=False)
    return (
        pl.concat([changes, rows])
        .sort("index", maintain_order=True)
        .drop("index")
        .with_columns(
            pl.when(marker).then(pl.lit(value).cast(schema("level2")[name])).otherwise(name).alias(name)
            for name, value in zip(OF_CHANGE, ("bid", 0.0, 0.0), strict=True)
        )
    )
