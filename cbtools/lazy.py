"""How a generator of frames becomes a lazy, streaming source of a Polars query: the one mechanism."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl
from polars.io.plugins import register_io_source

Batches = Callable[[list[str], pl.Expr | None], Iterator[pl.DataFrame]]
"""Given the columns that the query needs and its predicate (to skip by, if it can), gives the frames."""


def source(batches: Batches, schema: pl.Schema, name: str) -> pl.LazyFrame:
    """Make a lazy frame of a generator of frames.

    The projection is what the generator is asked for, and the predicate and the row limit are applied to what
    it gives; a query that has enough rows stops it. Every execution of the query calls ``batches`` anew.

    Parameters
    ----------
    batches : callable
        ``batches(columns, predicate)`` yields frames that hold at least these columns, in any cut; they
        are those of the projection and of the predicate, in the schema's order.
    schema : polars.Schema
        All columns that there are.
    name : str
        Shown in the query's plan.

    Returns
    -------
    polars.LazyFrame

    Examples
    --------
    >>> def count(columns, predicate):
    ...     for k in range(3):
    ...         yield pl.DataFrame({"n": [2 * k, 2 * k + 1]})
    >>> frame = source(count, pl.Schema({"n": pl.Int64}), "COUNT")
    >>> frame.filter(pl.col("n") > 1).head(2).collect()["n"].to_list()
    [2, 3]
    """

    def generate(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        shown = list(schema) if with_columns is None else with_columns
        needed = set(shown) | set(predicate.meta.root_names() if predicate is not None else ())
        left = n_rows
        frames = batches([column for column in schema if column in needed], predicate)
        try:
            for frame in frames:
                # the limit is on rows before the predicate: Polars pushes it down only where that is the same
                if left is not None:
                    frame = frame.head(left)
                    left -= frame.height
                if predicate is not None:
                    frame = frame.filter(predicate)
                yield frame.select(shown)
                if left == 0:
                    return
        finally:
            if hasattr(frames, "close"):
                frames.close()

    return register_io_source(generate, schema=schema, validate_schema=True, explain_name=name)
