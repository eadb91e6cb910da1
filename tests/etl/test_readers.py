"""Readers: the same records as a stream of dicts and as a lazy frame; every line is counted."""

from __future__ import annotations

import gzip
import json
from functools import partial

import polars as pl
import pytest

import cbtools as cb
from cbtools.etl import BaseReader, CSVReader, NDJSONReader, ParquetReader, readers


@pytest.fixture
def lines(ready) -> list[bytes]:
    return [line for path in sorted(ready.iterdir()) for line in path.read_bytes().splitlines()]


def as_json(line: bytes) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def test_ndjson_reads_each_line_as_json_and_counts_what_is_none(ready, lines):
    reader = NDJSONReader()
    records = [json.loads(line) for line in lines if as_json(line)]
    assert list(reader.read(ready)) == records
    assert reader.get_stats() == {
        "files_processed": len(list(ready.iterdir())),
        "records_read": len(lines),
        "errors": len(lines) - len(records),
    }
    assert reader.get_stats()["errors"] > 0


def test_ndjson_scans_the_lines_as_they_are(ready, lines, monkeypatch):
    monkeypatch.setattr(readers, "_PIECE_BYTES", 5_000)
    reader = NDJSONReader()
    found = reader.scan(ready).collect()
    assert found["raw"].to_list() == lines
    for path in ready.iterdir():
        of_file = found.filter(segment=path.stem)
        assert of_file["line"].to_list() == list(range(1, of_file.height + 1))
        whole = path.read_bytes()
        for offset, raw in of_file.select("byte_offset", "raw").iter_rows():
            assert whole[offset : offset + len(raw)] == raw
    assert reader.get_stats()["records_read"] == len(lines)


def test_ndjson_reads_compressed_segments(tmp_path):
    path = tmp_path / "s.ndjson.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n{"a":2}'))
    assert list(NDJSONReader().read(path)) == [{"a": 1}, {"a": 2}]


def test_ndjson_tells_of_a_damaged_file(tmp_path):
    path = tmp_path / "s.ndjson.gz"
    whole = gzip.compress(b"".join(b'{"a":%d}\n' % k for k in range(100_000)))
    path.write_bytes(whole[: len(whole) // 2])
    reader = NDJSONReader()
    assert 0 < len(list(reader.read(path))) < 100_000
    assert reader.get_stats()["errors"] >= 1
    with pytest.raises(cb.SegmentError, match="damaged behind line"):
        reader.scan(path).collect()


def test_ndjson_reads_on_behind_damage_and_numbers_the_lines_on(tmp_path):
    first, second = (gzip.compress(b'{"a":1}\n{"a":2}\n{"a":', 0), gzip.compress(b'{"a":4}\n[]\n'))
    path = tmp_path / "s.ndjson.gz"
    path.write_bytes(first[:-9] + second)
    assert list(NDJSONReader().read(path)) == [{"a": 1}, {"a": 2}, {"a": 4}]
    told = [(piece.damage != "", first) for piece, first in readers._numbered(path)]
    assert told == [(True, 1), (False, 4)]


def test_ndjson_reads_no_line_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "read_pieces", partial(readers.read_pieces, max_line_mb=0.01))
    path = tmp_path / "s.ndjson"
    path.write_bytes(b'{"a":1}\n{"a":"' + b"x" * 20_000 + b'"}\n{"a":2}\n')
    reader = NDJSONReader()
    assert list(reader.read(path)) == [{"a": 1}, {"a": 2}]
    assert reader.get_stats() == {"files_processed": 1, "records_read": 3, "errors": 1}
    with pytest.raises(cb.SegmentError, match="line 2: line too long: 20,008 bytes"):
        list(NDJSONReader(strict=True).read(path))
    with pytest.raises(cb.SegmentError, match="line 2: line too long: 20,008 bytes"):
        reader.scan(path).collect()


@pytest.mark.parametrize(
    ("second", "reason"), [(b"[1]", "not an object"), (b'{"a":', "not JSON"), (b"", "not JSON")]
)
def test_strict_stops_at_the_first_line_that_is_no_record(tmp_path, second, reason):
    path = tmp_path / "s.ndjson"
    path.write_bytes(b'{"a":1}\n' + second + b'\n{"a":2}\n')
    records = NDJSONReader(strict=True).read(path)
    assert next(records) == {"a": 1}
    with pytest.raises(cb.SegmentError, match=rf"line 2: {reason}"):
        next(records)
    assert list(NDJSONReader().read(path)) == [{"a": 1}, {"a": 2}]


def test_a_segment_that_is_not_there_is_told_at_once(tmp_path):
    for method in (NDJSONReader().read, NDJSONReader().scan):
        with pytest.raises(cb.SegmentError, match="no such segment"):
            method(tmp_path / "none.ndjson")


@pytest.fixture
def dataset(tables, tmp_path):
    cb.write_dataset(tables.ticker, tmp_path / "ticker", partition_by=["product_id", "date"])
    return tmp_path / "ticker"


@pytest.mark.parametrize("use_polars", [True, False])
def test_parquet_reads_a_dataset_by_scan_dataset(dataset, use_polars, monkeypatch):
    asked = []
    monkeypatch.setattr(readers, "scan_dataset", lambda root: asked.append(root) or cb.scan_dataset(root))
    reader = ParquetReader(use_polars=use_polars)
    expected = cb.scan_dataset(dataset).collect()
    assert reader.scan(dataset).collect().equals(expected)
    assert list(ParquetReader().read(dataset)) == expected.to_dicts()
    assert asked == [dataset, dataset]
    assert reader.get_stats() == {"records_read": expected.height}


def test_a_filter_reaches_the_files(dataset):
    (other,) = dataset.glob("product_id=ETH-USD/*/*")
    frame, reader = ParquetReader().scan(dataset), ParquetReader()
    other.write_bytes(b"garbage")  # fails if it is opened
    chosen = reader.scan(dataset).filter(pl.col("product_id") == "BTC-USD")
    assert chosen.select("price").collect().height == reader.get_stats()["records_read"] > 0
    with pytest.raises(pl.exceptions.PolarsError):
        frame.collect()


def test_parquet_reads_a_part_with_the_columns_of_its_path(dataset):
    (part,) = dataset.glob("product_id=BTC-USD/*/*.parquet")
    whole = cb.scan_dataset(dataset).filter(product_id="BTC-USD").collect()
    assert ParquetReader().scan(part).select(whole.columns).collect().equals(whole)


def test_parquet_reads_other_peoples_folders_and_patterns(tmp_path):
    for k in range(3):
        (tmp_path / f"day={k}").mkdir()
        pl.DataFrame({"x": [k, k + 10]}).write_parquet(tmp_path / f"day={k}/some.parquet")
    for source in (tmp_path, f"{tmp_path}/day=*/*.parquet"):
        found = ParquetReader().scan(source).collect()
        assert found.rows() == [(k + more, k) for k in range(3) for more in (0, 10)]


def test_parquet_that_is_not_there_is_told(tmp_path):
    for source in (tmp_path, tmp_path / "none.parquet", f"{tmp_path}/*.parquet"):
        with pytest.raises(cb.DatasetError, match="no Parquet in"):
            ParquetReader().scan(source)


def test_csv_is_read_with_dtypes_of_ones_own(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id;price;day\n007;1.5;2025-11-26\n", encoding="utf-8")
    reader = CSVReader(separator=";", schema={"id": pl.String})
    frame = reader.scan(path)
    assert frame.collect_schema() == {"id": pl.String, "price": pl.Float64, "day": pl.Date}
    assert [(r["id"], r["price"]) for r in CSVReader(separator=";").read(path)] == [(7, 1.5)]
    assert frame.collect().height == reader.get_stats()["records_read"] == 1
    with pytest.raises(cb.DatasetError, match=r"none\.csv"):
        reader.scan(tmp_path / "none.csv")


def test_a_reader_of_ones_own_overrides_either_method():
    class Records(BaseReader):
        def read(self, source):
            yield from ({"x": k} for k in range(source))

    class Frames(BaseReader):
        def scan(self, source):
            return pl.LazyFrame({"x": range(source)})

    class Neither(BaseReader):
        pass

    assert Records().scan(3).collect()["x"].to_list() == [0, 1, 2]
    assert list(Frames().read(2)) == [{"x": 0}, {"x": 1}]
    for method in (Neither().read, Neither().scan):
        with pytest.raises(cb.ConfigError, match="Neither must override"):
            list(method("somewhere"))
