"""Parquet, bytes a level change: as run_segment writes it, and each column by each encoding. Target: 14.

zstd at the same level, the same parts and row groups; of each encoding only the column's own bytes count, and
the time to write it. Beside it what a row of the other tables takes.
"""

from __future__ import annotations

import argparse
import io
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from measure import Claim, Table, arguments, figure, inputs, tell

import cbtools as cb

TABLES = ("level2", "book", "market_trades", "ticker")
PLAIN, DICTIONARY, DELTA, SPLIT = "plain", "dictionary", "delta", "byte-stream split"


def column_bytes(path: Path) -> tuple[int, Counter[str], dict[str, str]]:
    """Give a part's rows, each column's bytes (compressed), and how its values are encoded."""
    meta = pq.read_metadata(path)
    sizes: Counter[str] = Counter()
    encodings: dict[str, str] = {}
    for group in range(meta.num_row_groups):
        for k in range(meta.num_columns):
            column = meta.row_group(group).column(k)
            sizes[column.path_in_schema] += column.total_compressed_size
            encodings[column.path_in_schema] = ", ".join(sorted({*column.encodings} - {"RLE"}))
    return meta.num_rows, sizes, encodings


def encodings_for(kind: pa.DataType) -> dict[str, str]:
    """Give the encodings that a type can have, and their names in Parquet."""
    found = {PLAIN: "PLAIN", DICTIONARY: ""}
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        found |= {DELTA: "DELTA_BINARY_PACKED", SPLIT: "BYTE_STREAM_SPLIT"}
    if pa.types.is_floating(kind):
        found |= {SPLIT: "BYTE_STREAM_SPLIT"}
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found |= {DELTA: "DELTA_BYTE_ARRAY"}
    return found


def encoded(column: pa.ChunkedArray, encoding: str, group: int) -> tuple[int, float]:
    """Write a column alone; give its bytes and the seconds."""
    table, out = pa.table({"x": column}), io.BytesIO()
    options = {"use_dictionary": True} if not encoding else {"use_dictionary": False}
    if encoding:
        options["column_encoding"] = {"x": encoding}
    started = time.perf_counter()
    pq.write_table(table, out, row_group_size=group, compression="zstd", compression_level=1, **options)
    seconds = time.perf_counter() - started
    meta = pq.read_metadata(out)
    groups = range(meta.num_row_groups)
    return sum(meta.row_group(k).column(0).total_compressed_size for k in groups), seconds


def by_encoding(paths: list[Path], name: str) -> dict[str, tuple[int, float]]:
    """Write a column of all parts by each encoding that it can have; bytes and seconds."""
    found: dict[str, tuple[int, float]] = {}
    for path in paths:
        file = pq.ParquetFile(path)
        column = file.read([name]).column(0)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        group = file.metadata.row_group(0).num_rows
        for way, encoding in encodings_for(column.type).items():
            size, seconds = encoded(column, encoding, group)
            before = found.get(way, (0, 0.0))
            found[way] = before[0] + size, before[1] + seconds
    return found


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    out = options.folder / "storage-out"
    for name, path in inputs(options).items():
        shutil.rmtree(out, ignore_errors=True)
        cb.run_segment(path, out)
        for table in TABLES:
            parts = sorted((out / table).rglob("*.parquet"))
            rows = sum(pq.read_metadata(part).num_rows for part in parts)
            size = sum(part.stat().st_size for part in parts)
            if not rows:
                continue
            target = 14 if table == "level2" else None
            claim = f"{table}, a row with its share of the footers, {len(parts)} parts, {name}"
            yield Claim(claim, "bytes", [size / rows], target, less=True)
        yield columns_of(sorted((out / "level2").rglob("*.parquet")), name)
        shutil.rmtree(out)


def columns_of(parts: list[Path], name: str) -> Table:
    """Tell what each column of level2 takes, as it is and by each encoding."""
    total, sizes, ways = 0, Counter[str](), dict[str, str]()
    for part in parts:
        rows, of_part, encodings = column_bytes(part)
        total, sizes, ways = total + rows, sizes + of_part, ways | encodings
    lines, best = [], 0
    for column in ways:
        made = by_encoding(parts, column)
        least = min(size for size, _ in made.values())
        best += min(least, sizes[column])
        cells = [
            f"{figure(made[way][0] / total)} ({figure(made[way][1] / total * 1e9)} ns)" if way in made else ""
            for way in (PLAIN, DICTIONARY, DELTA, SPLIT)
        ]
        lines.append([column, ways[column], figure(sizes[column] / total), *cells])
    lines.append(["all", "", figure(sum(sizes.values()) / total), f"{figure(best / total)}: least of each"])
    lines[-1] += [""] * (7 - len(lines[-1]))
    return Table(
        f"level2 of {name}, {total:,} rows in {len(parts)} parts: bytes a row (and ns to write it)",
        ["column", "as written", "bytes", PLAIN, DICTIONARY, DELTA, SPLIT],
        lines,
    )


def main() -> None:
    options = arguments(__doc__, quick=24)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
