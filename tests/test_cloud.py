"""Segments are read from an object store, and datasets written and read there, as those on a disk are."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import cloud
import jobs
import polars as pl
import pyarrow as pa
import pytest
from cloud import Bucket
from dataset import frames
from upath import UPath

import cbtools as cb
from cbtools.dataset import DatasetWriter
from cbtools.schema import TIME

FULL = bool(os.environ.get("CBTOOLS_FULL"))

START = dt.datetime(2025, 11, 26, 22, tzinfo=dt.UTC)
ODD = ("A/B", "ü", "with a space", "100%", "%2F", "a+b", "a=b&c", "BTC-USD", "#?", None)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    with cloud.bucket(monkeypatch, tmp_path / "scratch") as made:
        yield made


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of three segments: plain, gzip and zstd; the second has a line not understood."""
    ready = jobs.recording(tmp_path_factory.mktemp("recording"))
    for path, ending in zip(sorted(ready.iterdir()), ("", ".gz", ".zst"), strict=True):
        jobs.put(ready, path.name + ending, path.read_bytes())
        if ending:
            path.unlink()
    return ready


@pytest.fixture(scope="module")
def whole(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run its segments one by one, on the disk."""
    out = tmp_path_factory.mktemp("whole")
    for path in sorted(recorded.iterdir()):
        cb.run_segment(path, out)
    return out


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


BY = ("product_id", "date")

Put = Callable[[str, pl.DataFrame], None]


@pytest.fixture
def put(bucket: Bucket, tmp_path: Path) -> Put:
    """Give a function that writes a segment twice: to the folder "local", and to "lake" in the bucket."""

    def both(segment: str, frame: pl.DataFrame) -> None:
        for root in (tmp_path / "local", bucket.url("lake")):
            cb.write_dataset(frame, root, partition_by=BY, segment=segment)

    return both


def same_places(bucket: Bucket, local: Path, prefix: str = "lake") -> None:
    """Check that the bucket has the objects, and no others, that the folder has as files."""
    assert bucket.listed(f"{prefix}/") == [f"{prefix}/{name}" for name in cloud.files(local)]
    assert bucket.uploads() == []


# --- sources


WAYS = ("raw", "raw/", "raw/*", "ra?/segment_2025112[67]T*", "**/segment_*")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_name_segments_names_those_it_names_on_a_disk(
    bucket: Bucket, recorded: Path, way: str
) -> None:
    bucket.upload(recorded, "raw")
    same_raw(cb.read_raw(bucket.url(way), segment=True), cb.read_raw(recorded, segment=True))


def test_files_are_read_in_the_order_of_a_list_also_among_local_ones(bucket: Bucket, recorded: Path) -> None:
    bucket.upload(recorded, "raw")
    paths = sorted(recorded.iterdir(), reverse=True)
    there = [bucket.url("raw", path.name) for path in paths]
    expected = cb.read_raw(paths, segment=True)
    same_raw(cb.read_raw(there, segment=True), expected)
    same_raw(cb.read_raw([there[0], paths[1], UPath(there[2])], segment=True), expected)
    same_raw(cb.read_raw([str(paths[0]), UPath(there[1]), there[2]], segment=True), expected)


def test_a_folder_s_other_objects_and_its_marker_are_none_of_its_segments(
    bucket: Bucket, recorded: Path, tmp_path: Path
) -> None:
    """A marker is what consoles write for a folder: an empty object, whose key ends in a slash."""
    first, second, _ = sorted(recorded.iterdir())
    local = tmp_path / "raw"
    for name in (first.name, f"deeper/{second.name}", "notes.txt", "x.ndjson.tmp"):
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes((second if name.startswith("deeper") else first).read_bytes())
    bucket.upload(local, "raw")
    bucket.upload(local, "raw_too")
    for marker in ("raw/", "raw/deeper/", "raw/x.ndjson/"):
        bucket.put(marker, b"")
    same_raw(cb.read_raw(bucket.url("raw"), segment=True), cb.read_raw(local, segment=True))
    for way in ("raw/*.ndjson*", "raw/**/*.ndjson*", "raw/*/*"):
        same_raw(cb.read_raw(bucket.url(way), segment=True), cb.read_raw(str(tmp_path / way), segment=True))


def test_hidden_objects_are_found_as_hidden_files_are(bucket: Bucket, recorded: Path, tmp_path: Path) -> None:
    """A folder's are its segments; a pattern must name the dot."""
    for name, path in zip((".a.ndjson", "b.ndjson", ".d/c.ndjson"), sorted(recorded.iterdir()), strict=True):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(path.read_bytes())
    bucket.upload(tmp_path / "raw", "raw")
    for way in ("raw", "raw/*", "raw/.*", "raw/**/*.ndjson", "raw/.d/*", "**/[!z]*.ndjson"):
        there, here = cb.read_raw(bucket.url(way)), cb.read_raw(str(tmp_path / way))
        assert there.report.segments == here.report.segments


@pytest.mark.parametrize("name", ["a b.ndjson", "ü.ndjson", "100%.ndjson", "%2F.ndjson", "a+b.ndjson"])
def test_a_segment_may_have_any_name(bucket: Bucket, recorded: Path, tmp_path: Path, name: str) -> None:
    first = min(recorded.iterdir())
    bucket.put(f"raw/{name}", first.read_bytes())
    (tmp_path / name).write_bytes(first.read_bytes())
    expected = cb.read_raw(tmp_path / name, segment=True)
    for way in (f"raw/{name}", "raw", "raw/*"):
        same_raw(cb.read_raw(bucket.url(way), segment=True), expected)


def test_segments_may_lie_in_the_bucket_itself(bucket: Bucket, recorded: Path) -> None:
    bucket.upload(recorded)
    for way in ((), ("",), ("*.ndjson*",)):
        same_raw(cb.read_raw(bucket.url(*way)), cb.read_raw(recorded))


@pytest.mark.parametrize("chunk_bytes", [1_000, 30_000])
def test_how_a_segment_is_cut_does_not_change_the_rows(
    bucket: Bucket, recorded: Path, chunk_bytes: int
) -> None:
    bucket.upload(recorded, "raw")
    for path in recorded.iterdir():
        cut = cb.read_raw(bucket.url("raw", path.name), chunk_bytes=chunk_bytes)
        same_raw(cut, cb.read_raw(path))
    rows = cb.scan_raw(
        bucket.url("raw"), "level2", chunk_bytes=chunk_bytes, segment=True, products=["BTC-USD"]
    )
    local = cb.scan_raw(recorded, "level2", segment=True, products=["BTC-USD"])
    assert rows.collect().equals(local.collect())
    assert rows.head(3).collect().equals(local.head(3).collect())
    assert rows.collect(engine="streaming").equals(local.collect())


def test_inspect_raw_tells_the_same(bucket: Bucket, recorded: Path) -> None:
    bucket.upload(recorded, "raw")
    there, here = cb.inspect_raw(bucket.url("raw")), cb.inspect_raw(recorded)
    assert (there.raw, there.book, str(there)) == (here.raw, here.book, str(here))


@pytest.mark.parametrize(("ending", "left"), [(".gz", 0), (".gz", 3), (".gz", 0.75), (".zst", 0.75)])
def test_a_damaged_segment_is_read_as_far_as_on_a_disk(
    bucket: Bucket, recorded: Path, tmp_path: Path, ending: str, left: float
) -> None:
    content = next(recorded.glob(f"*{ending}")).read_bytes()
    path = tmp_path / f"cut.ndjson{ending}"
    path.write_bytes(content[: int(left if left > 1 else len(content) * left)])
    bucket.upload(tmp_path)
    for chunk_bytes in (1 << 20, 5_000):
        there = cb.read_raw(bucket.url(path.name), chunk_bytes=chunk_bytes)
        same_raw(there, cb.read_raw(path))


@pytest.mark.parametrize("call", [cb.read_raw, cb.inspect_raw, lambda way: cb.scan_raw(way, "ticker")])
def test_what_is_not_there_is_told(bucket: Bucket, call: Callable[[str], object]) -> None:
    bucket.put("other/notes.txt", b"x")
    bucket.put("marked/", b"")
    ways = [
        "raw/x.ndjson",
        "raw",
        "raw/",
        "raw/*.ndjson",
        "**/*.ndjson",
        "other",
        "marked/",
        "oth",
        "",
        "raw/x",
    ]
    for way in [bucket.url(way) for way in ways]:
        with pytest.raises(cb.SegmentError) as told:
            call(way)
        assert way.rstrip("/") in str(told.value)
    for way in ("s3://no-such-bucket/raw", "s3://no-such-bucket/raw/*", "s3://no-such-bucket/x.ndjson"):
        with pytest.raises(cb.SegmentError, match="no-such-bucket"):
            call(way)


def test_run_segment_reads_from_there(bucket: Bucket, recorded: Path, whole: Path, tmp_path: Path) -> None:
    bucket.upload(recorded, "raw")
    for path in sorted(recorded.iterdir()):
        cb.run_segment(bucket.url("raw", path.name), tmp_path / "out", chunk_bytes=20_000)
    jobs.same_content(tmp_path / "out", whole)
    with pytest.raises(cb.SegmentError, match="one segment"):
        cb.run_segment(bucket.url("raw"), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens:UserWarning")  # as meant
def test_the_command_line_takes_urls(bucket: Bucket, recorded: Path, tmp_path: Path, call: Any) -> None:
    first = min(recorded.iterdir())
    bucket.upload(first.parent, "raw")
    told = call("inspect", bucket.url("raw"))
    assert (told.code, told.out) == (0, call("inspect", recorded).out)
    told = call("run", bucket.url("raw/*26T23_00001*"), "--out", bucket.url("lake"))
    assert (told.code, told.err) == (0, "")
    cb.run_segment(first, tmp_path / "local")
    same_places(bucket, tmp_path / "local")
    jobs.put(tmp_path / "raw" / "ready", first.name, first.read_bytes())
    told = call("run", tmp_path / "raw" / "ready", "--out", bucket.url("by_job"))
    assert (told.code, told.err) == (0, "")
    assert bucket.listed("by_job/_runs/") == [f"by_job/_runs/{first.stem}.json"]
    sql = "SELECT count(*) AS n FROM level2"
    told = call("query", bucket.url("lake"), sql, "--format", "csv")
    assert (told.code, told.out) == (0, call("query", tmp_path / "local", sql, "--format", "csv").out)
    told = call("describe", bucket.url("lake"))
    assert (told.code, told.out) == (0, call("describe", tmp_path / "local").out)
    told = call("compact", bucket.url("lake"), "--table", "ticker", "--dry-run")
    assert (told.code, told.out) == (0, "nothing to compact\n")
    told = call("repartition", bucket.url("lake"), bucket.url("by_day"), "--by", "date", "--table", "ticker")
    assert (told.code, told.err) == (0, "")
    assert bucket.listed("by_day/") == [f"by_day/ticker/date=2025-11-26/part_{first.stem}.parquet"]
    told = call("inspect", bucket.url("none"))
    assert told.code == 65
    assert bucket.url("none") in told.err


# --- roots


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


@pytest.mark.slow
def test_a_large_part_is_written_whole(bucket: Bucket, full: bool) -> None:
    """In full, so large a one that a store takes it in several parts."""
    rows = (120 << 20) // 8 if full else 50_000
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


# --- runs


def test_segments_go_on_from_one_another(bucket: Bucket, recorded: Path, whole: Path, tmp_path: Path) -> None:
    root, local = bucket.url("lake"), tmp_path / "local"
    for number, path in enumerate(sorted(recorded.iterdir())):
        there = cb.run_segment(path, root if number else UPath(root))
        here = cb.run_segment(path, local)
        assert there.started_from == here.started_from
        assert (there.raw, there.book) == (here.raw, here.book)
        assert there.written.keys() == here.written.keys()
        for table, written in there.written.items():
            assert written.to_frame().equals(here.written[table].to_frame())
            assert all(str(part.path).startswith(f"{root}/{table}/") for part in written.parts)
        if here.quarantine is not None:
            assert str(there.quarantine) == f"{root}/_quarantine/{here.quarantine.name}"
        assert (there.quarantine is None) == (here.quarantine is None)
    assert there.started_from != "nothing"
    same_places(bucket, local)
    jobs.same_content(bucket.download(tmp_path / "copy", "lake"), whole)
    for when in ("2025-11-26T23:59:59.9Z", "2025-11-27T00:00:00.7Z", "2025-11-27T01:00:00Z"):
        there, here = (cb.book_at(place, when, "BTC-USD") for place in (root, local))
        assert str(there) == str(here)
        assert there.bids.equals(here.bids)
        assert there.asks.equals(here.asks)


def test_a_book_is_taken_from_the_nearest_state(bucket: Bucket, whole: Path) -> None:
    bucket.upload(whole, "lake")
    bucket.server.log.clear()
    cb.book_at(bucket.url("lake"), "2025-11-27T01:00:00Z", "BTC-USD")
    assert any(key.startswith("lake/_state/") for key in bucket.server.asked("get"))


def test_a_segment_run_again_is_the_same_again(bucket: Bucket, recorded: Path, whole: Path) -> None:
    bucket.upload(whole, "lake")
    second = sorted(recorded.iterdir())[1]
    before = bucket.objects()
    assert cb.run_segment(second, bucket.url("lake")).started_from.startswith("segment_")
    after = bucket.objects()
    assert after.keys() == before.keys()
    assert all(
        after[key] == before[key] for key in before if f"{cb.raw.files.segment_name(second)}" not in key
    )
    cb.run_segment(second, bucket.url("lake"), products=["ETH-USD"])
    gone = {key for key in before if "product_id=BTC-USD" in key and "23_00002" in key}
    assert set(bucket.listed()) == before.keys() - gone


def test_so_many_states_are_kept(bucket: Bucket, recorded: Path) -> None:
    first, second, third = sorted(recorded.iterdir())
    for path in (first, second, third):
        few = {"level2": {"processor_options": {"reconstruct_lob": False}}}
        cb.run_segment(path, bucket.url("lake"), keep_states=2, channel_config=few)
    names = [key.rpartition("/")[2].partition(".")[0] for key in bucket.listed("lake/_state/")]
    assert names == [path.name.partition(".")[0] for path in (second, third)]


@pytest.mark.parametrize("workers", [1, 2] if FULL else [2])
def test_a_job_writes_there(bucket: Bucket, recorded: Path, tmp_path: Path, workers: int) -> None:
    here, there = (jobs.copy_of(recorded, tmp_path / name) for name in ("a", "b"))
    jobs.run(here, tmp_path / "local")
    report = jobs.run(there, bucket.url("lake"), workers=workers)
    names = sorted(path.name for path in recorded.iterdir())
    assert jobs.outcomes(report) == dict.fromkeys(names, "done")
    same_places(bucket, tmp_path / "local")
    jobs.same_dataset(bucket.download(tmp_path / "copy", "lake"), tmp_path / "local")
    assert jobs.places(there) == {name: ["done"] for name in names}
    assert cb.job_status(there, bucket.url("lake")).runs == 3


def test_what_a_job_has_done_there_is_not_done_again(bucket: Bucket, recorded: Path, tmp_path: Path) -> None:
    here, there, again = (jobs.copy_of(recorded, tmp_path / name) for name in ("a", "b", "c"))
    jobs.run(here, tmp_path / "local")
    bucket.upload(tmp_path / "local", "lake")
    before = bucket.objects()
    dry = jobs.run(again, bucket.url("lake"), dry_run=True)
    assert set(jobs.outcomes(dry).values()) == {"would skip"}
    assert set(jobs.outcomes(jobs.run(again, bucket.url("lake"))).values()) == {"skipped"}
    assert bucket.objects() == before
    cb.compact_dataset(bucket.url("lake"), "level2")
    assert set(jobs.outcomes(jobs.run(there, bucket.url("lake"))).values()) == {"skipped"}


def test_a_job_goes_on_from_what_another_left_there(bucket: Bucket, recorded: Path, tmp_path: Path) -> None:
    paths = sorted(recorded.iterdir())
    for name, some in (("a", paths[:1]), ("b", paths[1:])):
        ready = tmp_path / name / "raw" / "ready" / "coinbase"
        for path in some:
            jobs.put(ready, path.name.partition(".gz")[0].partition(".zst")[0], _plain(path))
        jobs.run(ready, bucket.url("lake"), channels=["level2"])
    jobs.run(jobs.copy_of(recorded, tmp_path / "c"), tmp_path / "local", channels=["level2"])
    jobs.same_content(bucket.download(tmp_path / "copy", "lake"), tmp_path / "local")


def _plain(path: Path) -> bytes:
    content: bytes = pa.input_stream(str(path)).read() if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".zst":
        content = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    return content


def test_a_job_takes_no_folder_there_to_claim_from(bucket: Bucket, recorded: Path, tmp_path: Path) -> None:
    bucket.upload(recorded, "raw/ready/coinbase")
    local = jobs.copy_of(recorded, tmp_path)
    source, out = bucket.url("raw/ready/coinbase"), tmp_path / "out"
    calls: list[Callable[[], object]] = [
        lambda: jobs.run(source, out),  # type: ignore[arg-type]
        lambda: jobs.run(UPath(source), bucket.url("lake")),
        lambda: jobs.run(local, out, done_dir=bucket.url("done")),
        lambda: jobs.run(local, out, processing_dir=bucket.url("processing")),
        lambda: jobs.run(local, out, failed_dir=bucket.url("failed")),
        lambda: cb.watch_job(source, out),
    ]
    for call in calls:
        with pytest.raises(cb.ConfigError, match=r"s3://.*renam"):
            call()
    with pytest.raises(cb.ConfigError, match="run_segment"):
        jobs.run(source, out)  # type: ignore[arg-type]
    assert len(bucket.listed()) == len(list(local.iterdir())) == 3
    assert cloud.files(out) == []


# --- what is asked of the store


def test_a_query_opens_only_its_partitions(bucket: Bucket, put: Put) -> None:
    for segment in range(2):
        put(f"s{segment}", ticks(1000 * segment, 600, ("A", "B", "C")))
    frame = cb.scan_dataset(bucket.url("lake"))
    bucket.server.log.clear()
    assert frame.filter(product_id="B").collect().height == 400
    assert {key.split("/")[1] for key in bucket.server.asked("get")} == {"product_id=B"}
    bucket.server.log.clear()
    assert frame.filter(product_id="B", date=dt.date(2025, 11, 28)).collect().height > 0
    assert {"/".join(key.split("/")[1:3]) for key in bucket.server.asked("get")} == {
        "product_id=B/date=2025-11-28"
    }
    bucket.server.log.clear()
    sql = "SELECT sum(price) AS s FROM lake WHERE product_id = 'C' AND date = '2025-11-27'"
    cb.query_dataset(bucket.url(), sql).collect()
    opened = Counter(bucket.server.asked("get"))
    others = [n for key, n in opened.items() if "product_id=C/date=2025-11-27/" not in key]
    assert max(others, default=0) <= 2, "more than a footer was read"


def test_nothing_is_read_before_a_frame_is_collected_but_footers(bucket: Bucket) -> None:
    numbers = pl.DataFrame({"x": pl.int_range(300_000, eager=True).hash(1)})
    size = cb.write_dataset(numbers, bucket.url("lake"), partition_by=[], segment="s1").bytes
    bucket.server.log.clear()
    frame = cb.scan_dataset(bucket.url("lake"))
    told = bucket.server.sent("lake/part_s1.parquet")
    assert told < size / 4
    frame.collect()
    assert bucket.server.sent("lake/part_s1.parquet") >= size * 0.9


def test_listings_are_never_stale(bucket: Bucket, recorded: Path, tmp_path: Path) -> None:
    """What another client wrote or deleted a moment ago is there, or is not."""
    root, local = bucket.url("lake"), tmp_path / "local"
    for segment in ("s1", "s2"):
        cb.write_dataset(ticks(), local, partition_by=BY, segment=segment)
    ours = [name for name in cloud.files(local) if name.endswith("part_s2.parquet")]
    cb.write_dataset(ticks(), root, partition_by=BY, segment="s1")
    assert cb.scan_dataset(root).collect().height == 40
    for name in ours:
        bucket.put(f"lake/{name}", (local / name).read_bytes())
    assert cb.scan_dataset(root).collect().height == 80
    assert cb.dataset_report(root).partitions["rows"].sum() == 80
    bucket.delete(*(f"lake/{name}" for name in ours))
    assert cb.scan_dataset(root).collect().height == 40
    assert cb.dataset_report(root).partitions["rows"].sum() == 40
    bucket.delete(*bucket.listed("lake/"))
    with pytest.raises(cb.DatasetError):
        cb.scan_dataset(root)

    first, second, _ = sorted(recorded.iterdir())
    with pytest.raises(cb.SegmentError):
        cb.read_raw(bucket.url("raw"))
    bucket.put("raw/a.ndjson", first.read_bytes())
    one = cb.read_raw(bucket.url("raw")).report.segments
    bucket.put("raw/b.ndjson", second.read_bytes())
    assert (one, cb.read_raw(bucket.url("raw/*")).report.segments) == (("a",), ("a", "b"))
    bucket.put("raw/a.ndjson", second.read_bytes())
    assert cb.read_raw(bucket.url("raw/a.ndjson")).level2.equals(cb.read_raw(second).level2)
    bucket.delete("raw/a.ndjson")
    assert cb.read_raw(bucket.url("raw")).report.segments == ("b",)
    with pytest.raises(cb.SegmentError):
        cb.read_raw(bucket.url("raw/a.ndjson"))


def test_a_part_another_wrote_in_the_place_of_one_is_read(bucket: Bucket) -> None:
    root = bucket.url("lake")
    other = cb.write_dataset(pl.DataFrame({"x": range(999)}), bucket.url("o"), partition_by=[], segment="s1")
    cb.write_dataset(pl.DataFrame({"x": [1]}), root, partition_by=[], segment="s1")
    assert cb.scan_dataset(root).collect().height == 1
    bucket.put("lake/part_s1.parquet", bucket.get("o/part_s1.parquet"))
    assert cb.scan_dataset(root).collect().height == other.rows
    assert cb.dataset_report(root).partitions["rows"].to_list() == [999]


# --- without the extra


@pytest.mark.parametrize(
    "call",
    [
        cb.read_raw,
        cb.inspect_raw,
        cb.scan_dataset,
        cb.dataset_report,
        cb.compact_dataset,
        lambda url: cb.run_segment(url, "out"),
        lambda url: cb.scan_raw([url], "ticker"),
        lambda url: cb.write_dataset(ticks(), url, partition_by="product_id"),
        lambda url: cb.query_dataset(url, "SELECT 1 AS a"),
        lambda url: cb.repartition_dataset(url, "other", "product_id"),
        lambda url: cb.book_at(url, "2025-11-27", "BTC-USD"),
        lambda url: cb.run_segment(cb.sample_path() / "segment_20251126T14_00001.ndjson.gz", url),
    ],
)
def test_without_the_extra_what_to_install_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[[str], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(cb.ConfigError, match=r'pip install "cbtools\[cloud\]"'):
        call(bucket.url("lake"))
    assert bucket.server.log == []


def test_importing_the_package_loads_no_store() -> None:
    code = "import sys, cbtools; print({'upath', 'fsspec', 's3fs', 'botocore'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
