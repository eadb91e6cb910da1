"""Rows and checks for the tests of object stores."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import cloud
import polars as pl
from cloud import Bucket

import cbtools as cb
from cbtools.schema import TIME

START = dt.datetime(2025, 11, 26, 22, tzinfo=dt.UTC)
BY = ("product_id", "date")

Put = Callable[[str, pl.DataFrame], None]


def same_raw(a: cb.RawTables, b: cb.RawTables) -> None:
    for field in fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        same = one.equals(other) if isinstance(one, pl.DataFrame) else one == other
        assert same, field.name


def ticks(first: int = 0, rows: int = 40, products: Sequence[str | None] = ("A/B", None)) -> pl.DataFrame:
    """Give rows of the products over some hours and midnight; of some the time is not known."""
    line = pl.int_range(first, first + rows, eager=True)
    time = pl.Series([START + dt.timedelta(minutes=7 * n) if n % 11 else None for n in line], dtype=TIME)
    return pl.DataFrame(
        {
            "product_id": [products[n % len(products)] for n in line],
            "server_time": time,
            "line": line,
            "price": line / 8,
        }
    ).with_columns(capture_time=pl.col("server_time"))


def same_places(bucket: Bucket, local: Path, prefix: str = "lake") -> None:
    """Check that the bucket has the objects, and no others, that the folder has as files."""
    assert bucket.listed(f"{prefix}/") == [f"{prefix}/{name}" for name in cloud.files(local)]
    assert bucket.uploads() == []
