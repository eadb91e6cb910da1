"""What pictures of any columns have in common: checks, and how columns are named."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cbtools.errors import ConfigError, unknown_name


def check_frame(frame: pl.DataFrame, what: str, columns: Sequence[str], numeric: Sequence[str] = ()) -> None:
    """Raise ConfigError if a frame lacks a column, or one is not of numbers that must be."""
    if not isinstance(frame, pl.DataFrame):
        raise ConfigError(f"{what} must be a polars.DataFrame: collect it, if it is lazy")
    for name in columns:
        if name not in frame.columns:
            raise unknown_name(f"column of {what}", name, frame.columns)
    for name in numeric:
        if not frame.schema[name].is_numeric():
            raise ConfigError(f"{name} must be a column of numbers, not of {frame.schema[name]}")


def product_of(frame: pl.DataFrame) -> str | None:
    """Give the product that all rows are of, if they tell; raise ConfigError if they are of several."""
    if "product_id" not in frame.columns or frame.is_empty():
        return None
    product = frame["product_id"]
    if product.ne_missing(product[0]).any():
        names = product.drop_nulls().unique().sort().to_list()
        several = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        mend = f"filter it to one product, as by frame.filter(pl.col('product_id') == {names[0]!r})"
        raise ConfigError(f"the frame has several products ({several}): {mend}")
    return product[0]  # type: ignore[no-any-return]


def title_of(product: str | None, question: str) -> str:
    """Begin a question with the product, if there is one."""
    return question[0].upper() + question[1:] if product is None else f"{product}: {question}"


def label_of(name: str, unit: str | None) -> str:
    """Name a column, with its unit if that is known."""
    return f"{name} ({unit})" if unit else name
