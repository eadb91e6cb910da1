"""Segments and jobs are run into an object store as onto a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cloud
import jobs
import pyarrow as pa
import pytest
from cloud import Bucket
from cloud_rows import same_places
from tiers import FULL
from upath import UPath

import cbtools as cb

pytestmark = pytest.mark.ci


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
    for when in ("2025-11-26T23:59:59.9Z", "2025-11-27T00:00:00.7Z"):
        there, here = (cb.book_at(place, when, "BTC-USD") for place in (root, local))
        assert str(there) == str(here)
        assert there.bids.equals(here.bids)
        assert there.asks.equals(here.asks)


def test_a_book_is_taken_from_the_nearest_state(bucket: Bucket, whole: Path) -> None:
    bucket.upload(whole, "lake")
    bucket.server.log.clear()
    cb.book_at(bucket.url("lake"), "2025-11-27T00:00:00.7Z", "BTC-USD")
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
