"""How a generator of frames becomes a lazy, streaming source of a Polars query: the one mechanism."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

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


Step = Callable[[pl.DataFrame | None], pl.DataFrame | None]
"""Takes the next rows of a path-dependent transform, or None at their end, and gives what they complete, if
there is anything."""


def stateful(
    upstream: pl.LazyFrame,
    start: Callable[[list[str]], tuple[list[str], Step]],
    schema: pl.Schema,
    name: str,
    *,
    by: str | None = None,
) -> pl.LazyFrame:
    """Make a lazy, streaming frame of a transform that carries state from row to row.

    Parameters
    ----------
    upstream : polars.LazyFrame
        The rows, in the order in which they count.
    start : callable
        ``start(columns)``, given the columns that the query needs, gives the columns that the transform needs
        of upstream, and the step to be called with each of its batches in turn, and at last with None; it
        gives a frame that has at least the columns that the query needs, or None for no rows. It is called
        anew for every execution of the query, and so must give a fresh state.
    schema : polars.Schema
        All columns that the transform can give.
    name : str
        Shown in the query's plan.
    by : str, optional
        A text column of both frames such that rows of one value do not depend on those of another: what the
        query's predicate says of it goes upstream.

    Returns
    -------
    polars.LazyFrame

    Examples
    --------
    >>> def running_total(columns):
    ...     total = 0
    ...
    ...     def step(batch):
    ...         nonlocal total
    ...         if batch is None or batch.is_empty():
    ...             return None
    ...         batch = batch.with_columns(total=pl.col("n").cum_sum() + total)
    ...         total = batch["total"][-1]
    ...         return batch
    ...
    ...     return ["n"], step
    >>> frame, schema = pl.LazyFrame({"n": [1, 2, 3]}), pl.Schema({"n": pl.Int64, "total": pl.Int64})
    >>> stateful(frame, running_total, schema, "TOTAL").collect()["total"].to_list()
    [1, 3, 6]
    """

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        needed, step = start(columns)
        rows = upstream
        if by is not None and predicate is not None:
            values = values_of(predicate, by)
            if values is not None:
                rows = rows.filter(pl.col(by).is_in(sorted(values)))
        for batch in rows.select(needed).collect_batches(maintain_order=True):
            yield from _some(step(batch))
        yield from _some(step(None))

    return source(batches, schema, name)


def _some(frame: pl.DataFrame | None) -> Iterator[pl.DataFrame]:
    if frame is not None:
        yield frame


def values_of(predicate: pl.Expr, column: str) -> set[str] | None:
    """Tell to which texts of a column a predicate limits the rows, where that can be read from it for sure.

    Read are conjunctions that hold ``column == "..."``, an ``is_in`` of literals, or a disjunction of such;
    anything else limits nothing (None), and is left to the filter, which is always applied.

    Parameters
    ----------
    predicate : polars.Expr
        What a query filters by.
    column : str
        Name of a text column.

    Returns
    -------
    set of str, or None

    Examples
    --------
    >>> sorted(values_of(pl.col("a").is_in(["x", "y"]) & (pl.col("b") > 1), "a"))
    ['x', 'y']
    """
    try:
        tree = json.loads(predicate.meta.serialize(format="json"))
    except (ValueError, pl.exceptions.PolarsError):
        return None
    return _values_in(tree, column)


def _values_in(node: Any, column: str) -> set[str] | None:
    match node:
        case {"BinaryExpr": {"left": left, "op": "And" | "LogicalAnd", "right": right}}:
            a, b = _values_in(left, column), _values_in(right, column)
            return a & b if a is not None and b is not None else b if a is None else a
        case {"BinaryExpr": {"left": left, "op": "Or" | "LogicalOr", "right": right}}:
            a, b = _values_in(left, column), _values_in(right, column)
            return a | b if a is not None and b is not None else None
        case {"BinaryExpr": {"left": {"Column": name}, "op": "Eq", "right": {"Literal": literal}}}:
            return _text_of(literal) if name == column else None
        case {"BinaryExpr": {"left": {"Literal": literal}, "op": "Eq", "right": {"Column": name}}}:
            return _text_of(literal) if name == column else None
        case {"Function": {"input": [{"Column": name}, literal], "function": {"Boolean": {"IsIn": _}}}}:
            return _texts_of(literal) if name == column else None
    return None


def _texts_of(literal: Any) -> set[str] | None:
    """Give the texts of a literal list; it is serialised in a form that only Polars reads."""
    expression = pl.Expr.deserialize(io.StringIO(json.dumps(literal)), format="json")
    if not expression.meta.is_literal():
        return None
    values = pl.select(expression).to_series().explode().to_list()
    return set(values) if all(isinstance(value, str) for value in values) else None


def _text_of(literal: Any) -> set[str] | None:
    match literal:
        case {"Scalar": {"String": text}} | {"Dyn": {"Str": text}} if isinstance(text, str):
            return {text}
    return None
