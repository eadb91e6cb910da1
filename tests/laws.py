"""What holds for every input: helpers that compare the package with the oracles."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import tiers
from oracles import raw

import cbtools as cb
from cbtools import schema

Source = bytes | Path | Sequence[bytes] | Sequence[Path]


def write_segments(segments: Sequence[bytes], folder: Path) -> list[Path]:
    """Write segments under the recorder's names; the order of the names is the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, segment in enumerate(segments, start=1):
        path = folder / f"segment_20260304T05_{number:05d}.ndjson"
        path.write_bytes(segment)
        paths.append(path)
    return paths


def read_segment(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def paths_of(source: Source, tmp_path: Path) -> Path | list[Path]:
    """Write bytes into files; give the path of one segment, the list of several."""
    several = list(source) if not isinstance(source, bytes | Path) else [source]
    if several and isinstance(several[0], bytes):
        several = write_segments(several, tmp_path)
    return several[0] if len(several) == 1 else several


def same_as_oracle(source: Source, tmp_path: Path) -> cb.RawTables:
    """Read with the package and with the oracle: every table is the same, row by row and bit by bit.

    Gives what the package read, so that a test can go on with it.
    """
    several = list(source) if not isinstance(source, bytes | Path) else [source]
    segments = [one if isinstance(one, bytes) else read_segment(one) for one in several]
    got = cb.read_raw(paths_of(source, tmp_path))
    expected = raw.decode(segments)
    for table in schema.RAW:
        same_table(table, getattr(got, table), expected.rows[table])
    same_report(got.report, expected, segments)
    return got


def scan_is_read(source: Source, tmp_path: Path, got: cb.RawTables) -> None:
    """Check that `scan_raw` returns each channel's table as `read_raw` did, and selected products.

    By default it checks only level2 and the channels that have rows: the other queries took four fifths of
    the time of these tests. So a test that calls this is marked ``more``.
    """
    paths = paths_of(source, tmp_path)
    for channel in schema.CHANNELS:
        table = getattr(got, channel)
        if not tiers.CI and table.is_empty() and channel != "level2":
            continue
        scan = cb.scan_raw(paths, channel)
        assert scan.collect_schema() == table.schema, channel
        assert_same(scan.collect(), table, channel)
        if channel in ("level2", "market_trades", "ticker", "candles"):
            for products in products_to_ask_for(table):
                asked = cb.scan_raw(paths, channel, products=products).collect()
                assert_same(
                    asked, table.filter(pl.col("product_id").is_in(products)), f"{channel} of {products}"
                )


def products_to_ask_for(table: pl.DataFrame) -> list[list[str]]:
    """Choose lists of products: one that is there, all that are there, and one that is not."""
    names = table["product_id"].unique(maintain_order=True).to_list()
    if not tiers.CI:
        return [names[:1] or ["NOT-THERE"]]
    return [names[:1], names, ["NOT-THERE"]] if names else [["NOT-THERE"]]


def assert_same(got: pl.DataFrame, expected: pl.DataFrame, what: str) -> None:
    assert got.schema == expected.schema, f"{what}: another schema"
    for name in expected.columns:
        assert plain(got[name]) == plain(expected[name]), f"{what}: {name} differs"


def same_table(table: str, frame: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    """Check one table against the oracle's rows; the wording of a reject's reason is free."""
    assert frame.schema == schema.schema(table), f"{table}: another schema"
    for name in frame.columns:
        if (table, name) == ("rejects", "reason"):
            assert all(frame["reason"].to_list()), "a reject without a reason"
            continue
        got = plain(frame[name])
        expected = [bits(row[name]) for row in rows]
        if got != expected:
            raise AssertionError(f"{table}.{name}: {first_difference(got, expected, rows)}")


def plain(column: pl.Series) -> list[Any]:
    """Give the values as the oracle writes them: times in ns, doubles by their bits."""
    if isinstance(column.dtype, pl.Datetime):
        column = column.cast(pl.Int64)
    return [bits(value) for value in column.to_list()]


def bits(value: Any) -> Any:
    """Write a double so that equal means the same bits (0.0 is not -0.0)."""
    return value.hex() if isinstance(value, float) else value


def first_difference(got: list[Any], expected: list[Any], rows: list[dict[str, Any]]) -> str:
    for index, (one, other) in enumerate(zip(got, expected, strict=False)):
        if one != other:
            return f"row {index}: got {one!r}, expected {other!r} in {rows[index]}"
    more = f", the first missing one {rows[len(got)]}" if len(got) < len(rows) else ""
    return f"{len(got)} rows, expected {len(expected)}{more}"


def same_report(report: Any, expected: raw.Tables, segments: Sequence[bytes]) -> None:
    """Check every count of the report that the oracle's tables tell."""
    rows = expected.rows
    assert report.lines == sum(len(raw.lines_of(segment)) for segment in segments)
    assert report.gaps == len(rows["gaps"])
    assert report.lost_frames == sum(row["got"] - row["expected"] for row in rows["gaps"])
    assert report.duplicates == expected.duplicates
    assert without_zeros(report.duplicate_trades) == without_zeros(expected.duplicate_trades)
    assert sum(report.rejects.values()) == len(rows["rejects"])
    assert report.errors == len(rows["errors"])
    assert by_last_word(report.unknown_keys) == by_last_word(expected.unknown_keys)
    assert without_zeros(report.unusual) == without_zeros(expected.unusual)
    if expected.connections:
        assert report.connections == expected.connections
    for table in ("level2", "market_trades", "ticker", "ticker_batch", "candles", "status"):
        assert without_zeros(report.rows.get(table, {})) == without_zeros(expected.counts(table)), table
    assert without_zeros(report.markers) == without_zeros(expected.markers)
    if len(segments) == 1:
        assert without_zeros(report.trade_holes) == without_zeros(trade_holes(rows["market_trades"]))


def without_zeros(counts: Any) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def by_last_word(counts: Any) -> dict[str, int]:
    """Add the counts of keys up, wherever they were found."""
    total: Counter[str] = Counter()
    for name, count in counts.items():
        total[name.rsplit(".", 1)[-1]] += count
    return dict(total)


def trade_holes(trades: list[dict[str, Any]]) -> dict[str, int]:
    """Count the trade ids of a product that are missing between its smallest and its largest."""
    ids: dict[str, set[int]] = {}
    for trade in trades:
        ids.setdefault(trade["product_id"], set()).add(trade["trade_id"])
    return {product_id: max(seen) - min(seen) + 1 - len(seen) for product_id, seen in ids.items()}
