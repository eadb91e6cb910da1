"""What is asked of an object store, and what is told where the extra for it is missing."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cloud
import polars as pl
import pytest
from cloud import Bucket
from cloud_rows import BY, Put, ticks

import cbtools as cb

pytestmark = pytest.mark.ci

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
