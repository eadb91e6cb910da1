"""Frames to write, and the plain way to read a dataset: file by file with pyarrow."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cbtools import schema
from cbtools.schema import TIME

SECOND = 1_000_000_000
NOON = 1_764_158_400 * SECOND  # 2025-11-26T12:00:00Z


def plain(value: pa.ChunkedArray) -> list[Any]:
    """Give values, times as whole numbers: Python's datetime has no nanoseconds."""
    return (value.cast(pa.int64()) if pa.types.is_timestamp(value.type) else value).to_pylist()


def part_rows(path: Path) -> list[tuple[Any, ...]]:
    table = pq.ParquetFile(path).read()
    return list(zip(*(plain(column) for column in table.columns), strict=True))


def parts(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All parts: path inside the root (unquoted) → rows."""
    found = sorted(root.rglob("part_*.parquet"))
    return {unquote(path.relative_to(root).as_posix()): part_rows(path) for path in found}


def tree(root: Path) -> dict[str, bytes]:
    """Every folder and file there is."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else b"" for p in sorted(root.rglob("*"))}


def ticks(*rows: tuple[Any, ...]) -> pl.DataFrame:
    """Rows of (product_id, server_time, sequence_num, line)."""
    columns = {"product_id": pl.String, "server_time": TIME, "sequence_num": pl.Int64, "line": pl.Int64}
    return pl.DataFrame(rows, schema={**columns, "server_time": pl.Int64}, orient="row").cast(
        {"server_time": TIME}
    )


def level2(rows: int = 6) -> pl.DataFrame:
    line = pl.int_range(rows, eager=True)
    time = (NOON + line * SECOND).cast(TIME)
    return pl.DataFrame(
        {
            "product_id": pl.Series(["BTC-USD", "ETH-USD"]).gather(line % 2),
            "is_snapshot": line < 2,
            "side": pl.Series(["bid", "ask"], dtype=schema.SIDE).gather(line % 2),
            "price": 100.0 + line,
            "size": line / 8,
            "event_time": time,
            "server_time": time,
            "capture_time": time,
            "sequence_num": line,
            "stream": pl.Series([None], dtype=pl.String).new_from_index(0, rows),
            "connection": pl.Series([1], dtype=pl.Int32).new_from_index(0, rows),
            "line": line + 1,
            "unbroken_since": time,
        }
    )


EVERY = pl.DataFrame(
    {
        "enum": pl.Series(["ask", None, "bid"], dtype=schema.SIDE),
        "texts": [["a", "ü"], [], None],
        "raw": [b"\x00\xff", b"", None],
        "flag": [True, None, False],
        "time": pl.Series([NOON + 1, None, -1]).cast(TIME),
        "date": [dt.date(2025, 1, 1), None, dt.date(1960, 1, 1)],
        "float": [0.1, float("inf"), None],
        "small": pl.Series([-1, None, 127], dtype=pl.Int8),
        "unsigned": pl.Series([2**64 - 1, None, 0], dtype=pl.UInt64),
        "lists": [[1, 2], None, []],
        "struct": [{"a": 1}, {"a": None}, None],
        "text": ["", None, "x" * 1000],
    }
)
