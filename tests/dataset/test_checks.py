"""What the writer refuses, and that nothing is left of it then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from dataset.frames import level2, parts, tree

from cbtools.dataset import DatasetWriter, write_dataset
from cbtools.errors import ConfigError, DatasetError
from cbtools.schema import TIME, Column


@pytest.mark.parametrize("segment", ["", "a/b", "a\\b", "a\0b", "a\nb", "x" * 250])
def test_a_segment_that_cannot_name_a_file_is_refused(tmp_path: Path, segment: str) -> None:
    with pytest.raises(ConfigError, match="segment"):
        write_dataset(level2(), tmp_path, partition_by=[], segment=segment)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"partition_by": "produkt_id"}, "unknown partition column 'produkt_id': did you mean 'product_id'"),
        ({"partition_by": "price"}, "Float64"),
        ({"partition_by": "server_time"}, "'date' or 'hour'"),
        ({"partition_by": "a=b"}, "letters, digits"),
        ({"partition_by": "_private"}, "letters, digits"),
        ({"partition_by": ["date", "date"]}, "twice"),
        ({"partition_by": "date", "table": "levle2"}, "did you mean 'level2'"),
    ],
)
def test_arguments_that_cannot_be_meant(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    frame = level2().with_columns(pl.lit(1).alias("a=b"), pl.lit(1).alias("_private"))
    for given_frame in (frame, frame.lazy()):
        with pytest.raises(ConfigError, match=message):
            write_dataset(given_frame, tmp_path, **arguments)
    assert tree(tmp_path) == {}


def test_date_is_unknown_without_a_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown partition column 'date'"):
        write_dataset(pl.DataFrame({"x": [1]}), tmp_path, partition_by="date")


def test_at_least_one_column_must_be_left(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is left"):
        write_dataset(pl.DataFrame({"x": [1]}), tmp_path, partition_by="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("price", "size"), "level2 needs price, size, which"),
        (
            lambda f: f.with_columns(pl.col("price").cast(pl.Float32)),
            "level2.price is Float32, but must be Float64",
        ),
        (
            lambda f: f.with_columns(pl.col("side").cast(pl.String)),
            r"level2.side is String, but must be Enum",
        ),
        (lambda f: f.with_columns(date=pl.lit("x")), "level2.date is String, but must be Date"),
    ],
)
def test_frames_that_are_not_of_the_table(tmp_path: Path, change: Any, message: str) -> None:
    for frame in (change(level2()), change(level2().lazy())):
        with pytest.raises(DatasetError, match=message):
            write_dataset(frame, tmp_path, table="level2", partition_by="date")
    assert tree(tmp_path) == {}


def test_a_null_where_none_may_be(tmp_path: Path) -> None:
    frame = level2().with_columns(
        is_snapshot=pl.when(pl.col("line") > 4).then("is_snapshot"), event_time=pl.lit(None, TIME)
    )
    with pytest.raises(DatasetError, match=r"level2\.is_snapshot is never null, but 4 of 6 rows"):
        write_dataset(frame, tmp_path, table="level2", partition_by="date")
    assert tree(tmp_path) == {}


def test_frames_of_one_run_have_the_same_columns(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, partition_by=[]) as writer:
        writer.write(pl.DataFrame({"a": [1], "b": [2]}))
        writer.write(pl.DataFrame({"b": [4], "a": [3]}))
        with pytest.raises(DatasetError, match=r"a is missing; c is new; b is String and was Int64"):
            writer.write(pl.DataFrame({"b": ["x"], "c": [3]}))
        writer.publish()
    assert parts(tmp_path) == {"part_data.parquet": [(1, 2), (3, 4)]}


def test_a_dataset_keeps_its_partition_columns(tmp_path: Path) -> None:
    write_dataset(level2(), tmp_path, partition_by="product_id", segment="a")
    with pytest.raises(DatasetError, match="is partitioned by product_id, not by date"):
        write_dataset(level2(), tmp_path, partition_by="date", segment="b")
    write_dataset(level2(1), tmp_path, partition_by="hour", segment="a")  # all that was there is replaced
    assert list(parts(tmp_path)) == ["hour=12/part_a.parquet"]


def test_the_text_that_stands_for_null_is_no_value(tmp_path: Path) -> None:
    frame = pl.DataFrame({"k": ["a", "__HIVE_DEFAULT_PARTITION__"], "x": [1, 2]})
    with pytest.raises(DatasetError, match="stands for null"):
        write_dataset(frame, tmp_path, partition_by="k")
    assert tree(tmp_path) == {}


def test_columns_can_be_given_for_a_table_that_the_schema_does_not_list(tmp_path: Path) -> None:
    columns = [Column("x", pl.Int64, "lots", "how many")]
    (part,) = write_dataset(
        pl.DataFrame({"y": [1], "x": [2]}), tmp_path, table="mine", partition_by=[], columns=columns
    ).parts
    assert part.path == tmp_path / "mine" / "part_data.parquet"
    assert pq.ParquetFile(part.path).schema_arrow.names == ["x", "y"]
    with pytest.raises(DatasetError, match="mine needs x"):
        write_dataset(pl.DataFrame({"y": [1]}), tmp_path, table="mine", partition_by=[], columns=columns)
