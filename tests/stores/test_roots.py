"""Datasets are written and read in an object store as those on a disk are."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import cloud
import jobs
import polars as pl
import pytest
from cloud import Bucket
from cloud_rows import BY, Put, same_places, ticks
from dataset import frames
from tiers import FULL
from upath import UPath

import cbtools as cb
from cbtools.dataset import DatasetWriter

pytestmark = pytest.mark.ci

ODD = ("A/B", "ü", "with a space", "100%", "%2F", "a+b", "a=b&c", "BTC-USD", "#?", None)


@pytest.mark.slow
def test_a_dataset_has_the_same_rows_in_the_same_places(bucket: Bucket, tmp_path: Path) -> None:
    local, root = tmp_path / "local", bucket.url("lake")
    for segment, first in (("s1", 0), ("ü 2%", 100)):
        one = cb.write_dataset(ticks(first), local, partition_by=BY, segment=segment)
        other = cb.write_dataset(ticks(first).lazy(), root, partition_by=BY, segment=segment)
        assert other.to_frame().equals(one.to_frame())
        assert (other.rows, other.bytes, str(other)) == (one.rows, one.bytes, str(one))
        assert [part.values for part in other.parts] == [part.values for part in one.parts]
        paths = [f"{root}/{part.path.relative_to(local).as_posix()}" for part in one.parts]
        assert [str(part.path) for part in other.parts] == paths
    same_places(bucket, local)
    for options in (
        {},
        {"segment": True},
        {"segments": ["s1"]},
        {"footers": "all", "columns": ["line", "date"]},
    ):
        here, there = (cb.scan_dataset(place, **options) for place in (local, root))
        assert there.collect_schema() == here.collect_schema()
        assert there.collect().equals(here.collect())
    assert cb.scan_dataset(UPath(root)).collect().equals(cb.scan_dataset(local).collect())
    assert cb.scan_dataset(f"{root}/").collect().equals(cb.scan_dataset(local).collect())
    assert frames.parts(bucket.download(tmp_path / "copy", "lake")) == frames.parts(local)


def test_products_of_any_name_are_found(bucket: Bucket, tmp_path: Path) -> None:
    rows = ticks(rows=20, products=ODD)
    for root in (tmp_path / "local", bucket.url("lake")):
        cb.write_dataset(rows, root, partition_by="product_id", segment="s1")
    same_places(bucket, tmp_path / "local")
    frame = cb.scan_dataset(bucket.url("lake"))
    for product in ODD:
        is_it = pl.col("product_id").eq_missing(pl.lit(product, pl.String))
        assert sorted(frame.filter(is_it).collect()["line"]) == rows.filter(is_it)["line"].to_list()


def test_a_segment_written_again_replaces_its_parts_and_no_other_s(
    put: Put, bucket: Bucket, tmp_path: Path
) -> None:
    put("s1", ticks())
    put("s2", ticks(7))
    before = bucket.objects()
    again = ticks(3, 20, ("ü", "new", None))
    put("s1", again)
    same_places(bucket, tmp_path / "local")
    rows = cb.scan_dataset(bucket.url("lake"), segment=True).collect()
    assert rows.equals(cb.scan_dataset(tmp_path / "local", segment=True).collect())
    assert sorted(rows.filter(segment="s1")["line"]) == list(range(3, 23))
    for key in [key for key in before if key.endswith("part_s2.parquet")]:
        assert bucket.get(key) == before[key]
    put("s1", again.clear())
    assert bucket.objects() == {
        key: content for key, content in before.items() if key.endswith("part_s2.parquet")
    }


def test_what_was_removed_is_told(bucket: Bucket) -> None:
    root = bucket.url("lake")
    cb.write_dataset(ticks(products=("A", "B")), root, partition_by="product_id", segment="s1")
    written = cb.write_dataset(ticks(products=("A",)), root, partition_by="product_id", segment="s1")
    assert [str(path) for path in written.removed] == [f"{root}/product_id=B/part_s1.parquet"]
    assert bucket.listed() == ["lake/product_id=A/part_s1.parquet"]


def test_a_writer_shows_nothing_before_it_publishes(bucket: Bucket, tmp_path: Path) -> None:
    small = {"partition_by": "product_id", "segment": "s1", "buffer_bytes": 1_000}
    with DatasetWriter(bucket.url("lake"), **small) as writer:
        for first in (60, 0, 30):
            writer.write(ticks(first, 30))
        writer.finish()
        assert bucket.listed() == bucket.uploads() == []
        assert list((tmp_path / "scratch").rglob("*.*")) != []
        written = writer.publish()
    with DatasetWriter(tmp_path / "local", **small) as writer:
        for first in (60, 0, 30):
            writer.write(ticks(first, 30))
        assert written.to_frame().equals(writer.publish().to_frame())
    same_places(bucket, tmp_path / "local")
    there, here = (cb.scan_dataset(root).collect() for root in (bucket.url("lake"), tmp_path / "local"))
    assert there.equals(here)


@pytest.mark.parametrize("how", ["raises", "leaves", "fails"])
def test_a_writer_that_is_left_changes_nothing(bucket: Bucket, how: str) -> None:
    root = bucket.url("lake")
    cb.write_dataset(ticks(), root, partition_by="product_id", segment="s1")
    before = bucket.server.log.copy()
    if how == "fails":
        with pytest.raises(pl.exceptions.InvalidOperationError):
            cb.write_dataset(
                ticks().lazy().with_columns(pl.lit("x").cast(pl.Int64)),
                root,
                partition_by="product_id",
                segment="s1",
            )
    else:
        with (
            pytest.raises(KeyError) if how == "raises" else nullcontext(),
            DatasetWriter(root, partition_by="product_id", segment="s1") as writer,
        ):
            writer.write(ticks(5))
            writer.finish()
            if how == "raises":
                raise KeyError
    made = [one for one in bucket.server.log[len(before) :] if one.verb in cloud.CHANGES]
    assert made == []


@pytest.mark.more
def test_a_large_part_is_written_whole(bucket: Bucket) -> None:
    """In full, so large a one that a store takes it in several parts."""
    rows = (120 << 20) // 8 if FULL else 50_000
    numbers = pl.DataFrame({"x": pl.int_range(rows, eager=True).hash(7)})
    written = cb.write_dataset(numbers, bucket.url("lake"), partition_by=[], segment="s1")
    assert written.bytes == len(bucket.get("lake/part_s1.parquet")) > 8 * rows * 0.9
    assert bucket.server.asked("put") == ["lake/part_s1.parquet"]
    assert cb.scan_dataset(bucket.url("lake")).collect().equals(numbers)
    assert bucket.uploads() == []


def test_other_columns_are_told_and_nothing_is_written(bucket: Bucket) -> None:
    root = bucket.url("lake")
    cb.write_dataset(ticks(), root, partition_by="product_id", segment="s1")
    before = bucket.objects()
    with pytest.raises(cb.DatasetError, match=rf"{root}.*partitioned by product_id, not by date"):
        cb.write_dataset(ticks(), root, partition_by="date", segment="s2")
    assert bucket.objects() == before


def test_queries_and_reports_are_the_same(bucket: Bucket, whole: Path) -> None:
    bucket.upload(whole, "lake")
    root = bucket.url("lake")
    for sql in (
        "SELECT product_id, count(*) AS n, max(size) AS size FROM market_trades GROUP BY ALL ORDER BY ALL",
        "SELECT max(t.price) AS p FROM book JOIN ticker t USING (product_id, date) WHERE date > '2025-11-26'",
    ):
        assert cb.query_dataset(root, sql).collect().equals(cb.query_dataset(whole, sql).collect())
    sql = "SELECT line, price FROM self ORDER BY ALL LIMIT 5"
    there, here = (cb.query_dataset(place, sql) for place in (f"{root}/ticker", whole / "ticker"))
    assert there.collect().equals(here.collect())
    there, here = (cb.dataset_report(place) for place in (root, whole))
    assert (str(there), there.partitions.rows()) == (str(here), here.partitions.rows())
    assert there.holes.equals(here.holes)
    there, here = (cb.dataset_report(place, "ticker").to_frame() for place in (root, whole))
    assert there.equals(here)
    for call in (cb.scan_dataset, cb.dataset_report, cb.compact_dataset):
        for place in (bucket.url("none"), "s3://no-such-bucket/lake"):
            with pytest.raises(cb.DatasetError, match=place):
                call(place)
    with pytest.raises(cb.DatasetError, match="none"):
        cb.query_dataset(bucket.url("none"), "SELECT 1 AS a")


def test_compaction_makes_the_same_parts(bucket: Bucket, whole: Path, tmp_path: Path) -> None:
    local, root = bucket_and_copy(bucket, whole, tmp_path)
    before = jobs.tables(local)
    told = cb.compact_dataset(root, dry_run=True)
    assert told.groups.equals(cb.compact_dataset(local, dry_run=True).groups)
    same_places(bucket, local)
    assert cb.compact_dataset(root, "ticker").groups.equals(cb.compact_dataset(local, "ticker").groups)
    same_places(bucket, local)
    assert cb.compact_dataset(root).groups.equals(cb.compact_dataset(local).groups)
    same_places(bucket, local)
    jobs.same_rows(jobs.tables(bucket.download(tmp_path / "copy", "lake")), before)
    for table in before:
        there, here = (cb.scan_dataset(place, table, segment=True).collect() for place in (root, local))
        assert there.equals(here)
    bucket.server.log.clear()
    assert cb.compact_dataset(root).groups.is_empty()
    assert bucket.server.asked(*cloud.CHANGES) == []


def bucket_and_copy(bucket: Bucket, whole: Path, tmp_path: Path) -> tuple[Path, str]:
    """Put two tables into the bucket, and a copy of them on the disk."""
    for table in ("market_trades", "ticker"):
        bucket.upload(whole / table, f"lake/{table}")
    return bucket.download(tmp_path / "local", "lake"), bucket.url("lake")


def test_a_segment_in_a_compacted_part_can_be_run_again(bucket: Bucket, put: Put, tmp_path: Path) -> None:
    local = tmp_path / "local"
    for segment in range(4):
        put(f"s{segment}", ticks(100 * segment, 40, ("A", "B")))
    for root in (local, bucket.url("lake")):
        cb.compact_dataset(root)
    put("s1", ticks(500, 10, ("B", "C")))
    same_places(bucket, local)
    there, here = (cb.scan_dataset(root, segment=True).collect() for root in (bucket.url("lake"), local))
    assert there.equals(here)
    assert sorted(there.filter(segment="s1")["line"]) == list(range(500, 510))
    assert there.height == 3 * 40 + 10


@pytest.mark.parametrize(("from_there", "to_there"), [(False, True), (True, False), (True, True)])
def test_a_dataset_is_repartitioned_across(
    bucket: Bucket, whole: Path, tmp_path: Path, from_there: bool, to_there: bool
) -> None:
    bucket.upload(whole, "lake")
    source = bucket.url("lake") if from_there else whole
    target = bucket.url("other") if to_there else tmp_path / "other"
    by = ["date", "product_id"]
    written = cb.repartition_dataset(source, target, by, table="market_trades")
    expected = cb.repartition_dataset(whole, tmp_path / "expected", by, table="market_trades")
    assert written.to_frame().equals(expected.to_frame())
    copy = bucket.download(tmp_path / "copy", "other") if to_there else tmp_path / "other"
    assert cloud.files(copy) == cloud.files(tmp_path / "expected")
    jobs.same_rows(jobs.tables(copy), jobs.tables(tmp_path / "expected"))
    there = cb.scan_dataset(target, "market_trades", segment=True).collect()
    assert there.equals(cb.scan_dataset(tmp_path / "expected", "market_trades", segment=True).collect())


def test_a_dataset_in_a_bucket_is_not_repartitioned_in_place(bucket: Bucket, put: Put) -> None:
    put("s1", ticks())
    for other in (bucket.url("lake"), bucket.url("lake", ""), UPath(bucket.url("lake"))):
        with pytest.raises(cb.ConfigError, match="in place"):
            cb.repartition_dataset(bucket.url("lake"), other, "date")
