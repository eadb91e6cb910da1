"""What we write, read by others: DuckDB, pyarrow's datasets, and Polars on its own."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from dataset.frames import NOON, level2

from cbtools.dataset import scan_dataset, write_dataset
from cbtools.schema import TIME

ODD = ["BTC-USD", "A/B", "ü", "a=b", "%", "%2F", " ", "..", "a b", "é", "*", "[a]", "#?", "'", '"', "\\", "~"]


def odd_values(root: Path) -> pl.DataFrame:
    frame = pl.DataFrame({"i": range(len(ODD) + 1), "k": [*ODD, None]})
    write_dataset(frame, root, partition_by="k")
    return frame


def duck(root: Path, query: str) -> pl.DataFrame:
    """Ask DuckDB, with the dataset as the table ``rows``."""
    source = f"read_parquet('{root}/**/*.parquet', hive_partitioning=true)"
    with duckdb.connect() as connection:
        answer = connection.sql(f"with rows as (from {source}) {query}").to_arrow_table()
    frame = pl.from_arrow(answer)
    assert isinstance(frame, pl.DataFrame)
    return frame


@pytest.fixture
def nanoseconds(tmp_path: Path) -> tuple[Path, pl.DataFrame]:
    """Write a table whose times need all nine digits."""
    frame = level2(50).with_columns(
        pl.col("server_time", "capture_time") + pl.duration(nanoseconds=pl.col("line") * 7 + 1)
    )
    by = ["product_id", "date", "hour"]
    write_dataset(frame, tmp_path, table="level2", partition_by=by, segment="segment_x_00001")
    return tmp_path / "level2", frame.sort("line")


def test_duckdb_reads_the_same_rows(nanoseconds: tuple[Path, pl.DataFrame]) -> None:
    root, frame = nanoseconds
    got = duck(root, "select * from rows order by line")
    plain = frame.cast({"side": pl.String}).select(set(frame.columns) - {"server_time"})
    assert got.select(plain.columns).cast(dict(plain.schema)).equals(plain)
    assert set(got.columns) == {*frame.columns, "date", "hour"}
    kinds = dict(duck(root, "select column_name, column_type from (describe rows)").rows())
    assert (kinds["side"], kinds["product_id"], kinds["date"]) == ("VARCHAR", "VARCHAR", "DATE")
    (count,) = duck(root, "select count(*) from rows where product_id = 'ETH-USD' and hour = 12").row(0)
    assert count == 25


def test_duckdb_keeps_the_nanoseconds(nanoseconds: tuple[Path, pl.DataFrame]) -> None:
    root, frame = nanoseconds
    time = frame["server_time"].cast(pl.Int64)
    (kind,) = duck(root, "select column_type from (describe rows) where column_name = 'server_time'").row(0)
    got = duck(root, "select epoch_ns(server_time) as time from rows order by line")["time"]
    if kind == "TIMESTAMPTZ_NS":  # DuckDB 2
        assert got.equals(time)
    else:  # before it: cut to microseconds
        assert got.equals(time // 1000 * 1000)


def test_duckdb_reads_odd_values(tmp_path: Path) -> None:
    frame = odd_values(tmp_path)
    assert duck(tmp_path, "select i, k from rows order by i").rows() == frame.rows()
    assert duck(tmp_path, "select i from rows where k = 'A/B'").rows() == [(1,)]


def test_pyarrow_reads_the_same_rows(nanoseconds: tuple[Path, pl.DataFrame]) -> None:
    root, frame = nanoseconds
    dataset = ds.dataset(root, partitioning="hive")
    got = dataset.to_table().sort_by("line")
    assert pa.types.is_dictionary(got.schema.field("side").type)
    assert got["side"].to_pylist() == frame["side"].to_list()
    assert got["server_time"].cast(pa.int64()).to_pylist() == frame["server_time"].cast(pl.Int64).to_list()
    assert {str(fragment.path).partition("product_id=")[2][:7] for fragment in dataset.get_fragments()} == {
        "BTC-USD",
        "ETH-USD",
    }
    back = pl.from_arrow(got.select(frame.columns))
    assert isinstance(back, pl.DataFrame)
    assert back.cast({"product_id": pl.String}).equals(frame)
    assert dataset.count_rows(filter=(ds.field("product_id") == "ETH-USD") & (ds.field("hour") == 12)) == 25


def test_pyarrow_reads_odd_values(tmp_path: Path) -> None:
    frame = odd_values(tmp_path)
    got = ds.dataset(tmp_path, partitioning="hive").to_table().sort_by("i")
    assert list(zip(got["i"].to_pylist(), got["k"].to_pylist(), strict=True)) == frame.rows()


def test_polars_alone_reads_the_same_rows(nanoseconds: tuple[Path, pl.DataFrame], tmp_path: Path) -> None:
    root, frame = nanoseconds
    got = pl.scan_parquet(f"{root}/**/*.parquet", hive_partitioning=True).sort("line").collect()
    assert got.select(frame.columns).equals(frame)
    assert got.equals(scan_dataset(tmp_path, "level2").sort("line").select(got.columns).collect())
    odd = odd_values(tmp_path / "odd")
    back = pl.scan_parquet(tmp_path / "odd" / "**" / "*.parquet", hive_partitioning=True).sort("i")
    assert back.collect().rows() == odd.rows()


def test_what_others_filter_by_statistics_is_right(tmp_path: Path) -> None:
    """An Enum's smallest and largest are of its text in the file, and of its rank in Polars."""
    line = pl.int_range(1000, eager=True)
    grades = pl.Series(["zed", "mid", "alpha"], dtype=pl.Enum(["zed", "mid", "alpha"]))
    frame = pl.DataFrame(
        {
            "server_time": (NOON + line).cast(TIME),
            "grade": grades.gather(line // 334),
        }
    )
    write_dataset(frame, tmp_path, partition_by=[])
    grade = pl.col("grade")
    for asked in (grade == "mid", grade > "zed", grade < "alpha", grade.is_in(["alpha"]), grade <= "zed"):
        assert scan_dataset(tmp_path).filter(asked).collect().equals(frame.filter(asked))
    counted = duck(tmp_path, "select count(*) from rows where grade < 'b'").item()
    assert counted == frame.filter(grade == "alpha").height
