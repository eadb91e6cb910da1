"""The report of a dataset is what its rows say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import cbtools as cb
from cbtools.dataset import dataset_report, write_dataset
from cbtools.schema import TIME

START = datetime(2025, 11, 26, 22, tzinfo=UTC)


def rows(*hours: float, product_id: str = "A-B") -> pl.DataFrame:
    times = [START + timedelta(hours=hour) for hour in hours]
    return pl.DataFrame(
        {
            "product_id": [product_id] * len(hours),
            "server_time": pl.Series(times, dtype=TIME),
            "x": [*map(float, hours)],
        }
    )


def test_it_counts_parts_rows_bytes_and_tells_the_times(tmp_path):
    one = write_dataset(rows(0, 1, 1.5), tmp_path, partition_by=["product_id", "date"], segment="s1")
    two = write_dataset(rows(0.5, 3), tmp_path, partition_by=["product_id", "date"], segment="s2")
    report = dataset_report(tmp_path)
    sizes = [part.bytes for part in (*one.parts, *two.parts)]
    assert report.partitions.rows() == [
        (
            *(tmp_path.name, "product_id=A-B/date=2025-11-26", 2, 4, sizes[0] + sizes[1]),
            *(START, START + timedelta(hours=1.5)),
        ),
        (
            *(tmp_path.name, "product_id=A-B/date=2025-11-27", 1, 1, sizes[2]),
            *(START + timedelta(hours=3), START + timedelta(hours=3)),
        ),
    ]
    assert report.holes.is_empty()
    assert report.to_frame().row(0)[1:5] == (2, 3, 5, sum(sizes))


def test_missing_days_are_holes_of_their_product(tmp_path):
    frame = pl.concat([rows(0, 72), rows(0, 24, 48, product_id="C-D")])
    write_dataset(frame, tmp_path, partition_by=["product_id", "date"], segment="s1")
    assert dataset_report(tmp_path).holes.rows() == [
        (tmp_path.name, "product_id=A-B", "2025-11-27"),
        (tmp_path.name, "product_id=A-B", "2025-11-28"),
    ]


def test_missing_hours_are_holes_over_midnight_too(tmp_path):
    write_dataset(rows(0, 3), tmp_path, partition_by=["date", "hour"], segment="s1")
    assert dataset_report(tmp_path).holes["missing"].to_list() == ["2025-11-26 23", "2025-11-27 00"]


def test_a_dataset_without_time_has_neither_times_nor_holes(tmp_path):
    write_dataset(pl.DataFrame({"k": ["a"], "x": [1]}), tmp_path, partition_by="k")
    report = dataset_report(tmp_path)
    assert report.partitions.row(0)[-2:] == (None, None)
    assert report.holes.is_empty()


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_of_any_unit(tmp_path, unit):
    frame = rows(0, 1).with_columns(pl.col("server_time").cast(pl.Datetime(unit, "UTC")))
    write_dataset(frame, tmp_path, partition_by=[])
    assert dataset_report(tmp_path).partitions["last_time"].to_list() == [START + timedelta(hours=1)]


@pytest.mark.ci
def test_all_tables_of_an_output(tmp_path):
    segments = sorted(cb.sample_path().iterdir())
    counted = [cb.run_segment(segment, tmp_path).rows for segment in segments]
    report = dataset_report(tmp_path)
    found = dict(report.to_frame().select("table", "rows").rows())
    assert found == {table: sum(one[table] for one in counted) for table in counted[0]}
    ticker = cb.scan_dataset(tmp_path, "ticker").select(
        first=pl.col("server_time").min(), last=pl.col("server_time").max()
    )
    told = report.to_frame().filter(table="ticker").select("first_time", "last_time")
    assert told.row(0) == ticker.collect().row(0)
    assert dataset_report(tmp_path, "book").to_frame()["table"].to_list() == ["book"]
    assert "level2" in repr(report)
    assert "level2" in report._repr_html_()


def test_a_compacted_dataset_is_counted_once(tmp_path):
    for k in range(3):
        write_dataset(rows(k), tmp_path, partition_by="product_id", segment=f"s{k}")
    cb.compact_dataset(tmp_path)
    assert dataset_report(tmp_path).partitions.select("parts", "rows").row(0) == (1, 3)


def test_where_there_is_none_it_says_so(tmp_path):
    with pytest.raises(cb.DatasetError, match="no dataset in"):
        dataset_report(tmp_path)


def test_a_damaged_part_is_named(tmp_path):
    (part,) = write_dataset(rows(0), tmp_path, partition_by="product_id").parts
    part.path.write_bytes(b"PAR1")
    with pytest.raises(cb.DatasetError, match=r"part_data\.parquet cannot be read"):
        dataset_report(tmp_path)
