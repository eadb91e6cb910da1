"""Segments are read from an object store as those on a disk are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import pytest
from cloud import Bucket
from cloud_rows import same_places, same_raw
from upath import UPath

import cbtools as cb

pytestmark = pytest.mark.ci

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
