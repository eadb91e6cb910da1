"""What cannot be fetched from an object store, or not be reached, is told, and never left out."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import cloud
import jobs
import polars as pl
import pytest
from cloud import CHANGES, Bucket, Failing, Fault
from tiers import FULL

import cbtools as cb

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.recording(tmp_path_factory.mktemp("recording"))


# --- reading


UNFETCHED = [("403", ""), ("cut", ".gz"), ("cut", ""), ("cut", ".zst"), ("500", ".gz")]


@pytest.mark.parametrize(("fault", "ending"), UNFETCHED if FULL else UNFETCHED[:2])
def test_a_segment_that_cannot_be_fetched_is_not_taken_for_a_damaged_one(
    bucket: Bucket, recorded: Path, tmp_path: Path, fault: Fault, ending: str
) -> None:
    content = min(recorded.iterdir()).read_bytes()
    bucket.put(f"x.ndjson{ending}", jobs.put(tmp_path / "raw", f"x.ndjson{ending}", content).read_bytes())
    url = bucket.url(f"x.ndjson{ending}")
    with bucket.server.failing(Failing(1, fault, verbs=("get",), then="all")):
        for call in (cb.read_raw, lambda url: cb.run_segment(url, tmp_path / "out")):
            with pytest.raises(cb.SegmentError, match=url):
                call(url)
    assert cloud.files(tmp_path / "out") == []


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_segment_that_is_cut_once_is_fetched_again(
    bucket: Bucket, recorded: Path, tmp_path: Path, ending: str
) -> None:
    content = min(recorded.iterdir()).read_bytes()
    path = jobs.put(tmp_path / "raw", f"x.ndjson{ending}", content)
    bucket.put(path.name, path.read_bytes())
    rule = Failing(1, "cut", verbs=("get",), then="once")
    with bucket.server.failing(rule):
        rows = cb.read_raw(bucket.url(path.name))
    assert rule.hits == 1
    assert rows.report == cb.read_raw(path).report
    assert rows.level2.equals(cb.read_raw(path).level2)


# --- what cannot be reached

Call = Callable[[str], object]
ONE = pl.DataFrame({"x": [1]})
CALLS: dict[str, Call] = {
    "read_raw": cb.read_raw,
    "inspect_raw": cb.inspect_raw,
    "scan_raw": lambda url: cb.scan_raw(f"{url}/*.ndjson", "ticker"),
    "scan_dataset": cb.scan_dataset,
    "dataset_report": cb.dataset_report,
    "compact_dataset": cb.compact_dataset,
    "query_dataset": lambda url: cb.query_dataset(url, "SELECT 1 AS a"),
    "write_dataset": lambda url: cb.write_dataset(ONE, url, partition_by=[]),
    "run_segment": lambda url: cb.run_segment(min(cb.sample_path().iterdir()), url),
    "book_at": lambda url: cb.book_at(url, "2025-11-27", "BTC-USD"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_wrong_credentials_are_told(bucket: Bucket, call: Call) -> None:
    for key in ("lake/x.ndjson", "lake/part_s1.parquet"):
        bucket.put(key, b"")
    with (
        bucket.server.failing(lambda _: "403"),
        pytest.raises(cb.CbtoolsError, match=bucket.url("lake")) as told,
    ):
        call(bucket.url("lake"))
    assert "a secret" not in str(told.value)
    assert bucket.server.asked(*CHANGES) == []


@pytest.mark.more
@pytest.mark.parametrize(
    "name", CALLS if FULL else ("read_raw", "scan_dataset", "write_dataset", "run_segment")
)
def test_an_endpoint_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            cloud.bucket(monkeypatch, tmp_path / "scratch", endpoint=endpoint) as bucket,
            pytest.raises(cb.CbtoolsError, match=bucket.url("lake")),
        ):
            CALLS[name](bucket.url("lake"))


def test_a_bucket_that_is_not_there_is_told_and_not_made(bucket: Bucket, recorded: Path) -> None:
    url = "s3://no-such-bucket/lake"
    for name in ("write_dataset", "run_segment"):
        with pytest.raises(cb.DatasetError, match=url):
            CALLS[name](url)
    made = bucket.server.client.list_buckets()["Buckets"]
    assert "no-such-bucket" not in [one["Name"] for one in made]
    with pytest.raises(cb.CbtoolsError, match="s3://"):
        cb.write_dataset(ONE, "s3://", partition_by=[])


def test_parts_that_cannot_be_fetched_are_not_left_out(bucket: Bucket) -> None:
    for segment in ("s1", "s2"):
        cb.write_dataset(ONE, bucket.url("lake"), partition_by=[], segment=segment)
    frame = cb.scan_dataset(bucket.url("lake"))
    bucket.delete("lake/part_s2.parquet")
    with pytest.raises((cb.CbtoolsError, pl.exceptions.PolarsError, OSError), match=r"part_s2\.parquet"):
        frame.collect()
