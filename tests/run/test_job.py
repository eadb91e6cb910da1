"""run_job: where segments go, which are seen again, and that they wait while nothing can be written."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jobs
import polars as pl
import pytest
import tiers
import timeline
import wire
from jobs import outcomes, put, run, same_as_segments, tree

import cbtools as cb
from cbtools.dataset import DatasetWriter

BINARY = bytes(range(256)) * 8
REJECTED = b'{"capture_ts":"2026-03-04T05:00:00Z","data":{"chan'


def frame(number: int) -> wire.Json:
    """Give the frame of a number: trades and tickers among changes, and a snapshot at the beginning."""
    if number == 0:
        return wire.snapshot(0)
    if number % 5 == 3:
        return wire.trades(number, wire.trade(str(number)))
    if number % 5 == 4:
        return wire.ticker(number, price=str(number))
    return wire.change(number, price=str(50 + number % 40))


def frames(first: int, last: int) -> list[bytes]:
    """Give the lines of these frames of one connection, received a second apart."""
    return [timeline.received(frame(number), number) for number in range(first, last + 1)]


FIRST, SECOND, THIRD = frames(0, 4), frames(5, 9), frames(10, 14)
LATER = [timeline.received(wire.snapshot(0), 50), *timeline.changes(1, 3, 51)]  # of another connection


def dataset(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Give the files of a dataset that are seen: parts, manifests, states, rejected lines."""
    there = tree(out).items()
    return {path: told for path, told in there if told[2] and not any(p[0] == "." for p in Path(path).parts)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*") if path.is_file())


def checksum(lines: Iterable[bytes]) -> str:
    return hashlib.sha256(wire.segment(*lines)).hexdigest()


# --- folders


@tiers.parametrize(
    ("folder", "beside"),
    [
        ("raw/ready/coinbase", "raw/{}/coinbase"),
        ("ready", "{}"),
        ("ready/a/ready/b/c", "ready/a/{}/b/c"),
        ("recording", "recording/{}"),
        ("already/unready/x", "already/unready/x/{}"),
    ],
    every=3,
)
def test_the_folders_beside_it(tmp_path, out, folder, beside):
    root = tmp_path / "root"
    put(root / folder, "b.ndjson", SECOND)
    put(root / folder, "bad.ndjson", BINARY)
    put(root / beside.format("processing"), "a.ndjson", FIRST)  # a job was killed that had claimed it
    report = run(root / folder, out)
    assert outcomes(report) == {"a.ndjson": "done", "b.ndjson": "done", "bad.ndjson": "failed"}
    assert names(root / folder) == names(root / beside.format("processing")) == []
    assert names(root / beside.format("done")) == ["a.ndjson", "b.ndjson"]
    assert names(root / beside.format("failed")) == ["bad.ndjson", "bad.ndjson.error.txt"]
    assert len([path for path in root.rglob("[!.]*") if path.is_file()]) == 4
    same_as_segments(out, tmp_path, ("a", FIRST), ("b", SECOND))


def test_other_folders_may_be_named(tmp_path, ready, out):
    put(ready, "b.ndjson", SECOND)
    put(ready, "bad.ndjson", BINARY)
    put(tmp_path / "claimed", "a.ndjson", FIRST)
    there = {f"{name}_dir": tmp_path / name for name in ("done", "failed")}
    report = run(ready, out, processing_dir=str(tmp_path / "claimed"), **there)
    assert (report.done, report.failed) == (2, 1)
    assert names(tmp_path / "claimed") == []
    assert names(tmp_path / "done") == ["a.ndjson", "b.ndjson"]
    assert names(tmp_path / "failed") == ["bad.ndjson", "bad.ndjson.error.txt"]
    assert [path for path in (tmp_path / "raw").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("option", ["processing_dir", "done_dir", "failed_dir"])
def test_a_folder_on_another_file_system_is_refused(tmp_path, ready, out, option):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    put(ready, "a.ndjson", FIRST)
    before = tree(tmp_path)
    other = elsewhere / f"cbtools-{os.getpid()}-{option}"
    try:
        with pytest.raises(cb.ConfigError, match=option):
            run(ready, out, **{option: other})
        assert list(other.rglob("*")) == []
    finally:
        shutil.rmtree(other, ignore_errors=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("folder", ["raw/active/coinbase", "active"])
def test_what_is_being_recorded_is_refused(tmp_path, out, folder):
    put(tmp_path / folder, "a.ndjson", FIRST)
    before = tree(tmp_path)
    with pytest.raises(cb.ConfigError, match="active"):
        run(tmp_path / folder, out)
    assert tree(tmp_path) == before


def test_a_folder_that_is_not_there(tmp_path, out):
    with pytest.raises(cb.ConfigError, match="raw/ready/nowhere"):
        run(tmp_path / "raw" / "ready" / "nowhere", out)
    path = put(tmp_path, "a.ndjson", FIRST)
    with pytest.raises(cb.ConfigError, match=r"a\.ndjson"):
        run(path, out)
    assert list(tree(tmp_path)) == ["a.ndjson"]


def test_an_empty_folder_is_a_job_of_no_segments(ready, out):
    report = run(ready, out)
    assert (report.done, report.skipped, report.failed) == (0, 0, 0)
    assert report.segments.height == 0
    assert jobs.tables(out) == {}


@pytest.mark.ci
def test_nothing_but_segments_is_taken(tmp_path, ready, out):
    put(ready, "a.ndjson", FIRST)
    put(ready, "b.ndjson.gz", SECOND)
    put(ready, "c.ndjson.zst", THIRD)
    for name in ("notes.txt", "a.json", "a.ndjson.tmp", "a.ndjson.gz.part", "ndjson", "sub/d.ndjson"):
        put((ready / name).parent, Path(name).name, LATER)
    (ready / "e.ndjson").mkdir()
    put(tmp_path / "raw" / "active" / "coinbase", "f.ndjson", LATER)
    before = tree(tmp_path / "raw")
    report = run(ready, out)
    assert outcomes(report) == dict.fromkeys(["a.ndjson", "b.ndjson.gz", "c.ndjson.zst"], "done")
    after = tree(tmp_path / "raw")
    left = [path for path in before if not path.endswith((*outcomes(report), "coinbase", "ready"))]
    assert len(left) == 10
    assert {path: after[path] for path in left} == {path: before[path] for path in left}
    same_as_segments(out, tmp_path, ("a", FIRST), ("b", SECOND), ("c", THIRD))


def test_a_segment_done_is_kept_as_it_was_or_deleted(tmp_path, ready, out):
    for folder, delete in ((ready, False), (tmp_path / "other" / "ready", True)):
        path = put(folder, "a.ndjson.gz", FIRST)
        content = path.read_bytes()
        run(folder, out / str(delete), delete_after_processing=delete)
        kept = folder.parent.parent / "done" / "coinbase" if folder == ready else folder.parent / "done"
        assert names(kept) == ([] if delete else ["a.ndjson.gz"])
        assert delete or (kept / "a.ndjson.gz").read_bytes() == content
        assert not path.exists()
    jobs.same_rows(jobs.tables(out / "True"), jobs.tables(out / "False"))


# --- seen again


@tiers.parametrize(
    ("again", "delete"),
    [
        ("a.ndjson", False),
        ("z.ndjson", False),
        ("a.ndjson.gz", True),
        ("z.ndjson.zst", False),
        ("a.ndjson", True),
    ],
    every=2,
)
def test_equal_content_is_skipped_whatever_its_name(ready, out, again, delete):
    put(ready, "a.ndjson", FIRST)
    run(ready, out)
    before = dataset(out)
    put(ready, again, FIRST)
    report = run(ready, out, delete_after_processing=delete)
    assert outcomes(report) == {again: "skipped"}
    assert (report.done, report.skipped, report.failed) == (0, 1, 0)
    assert report.segments["reason"][0]
    assert dataset(out) == before
    assert names(ready) == names(jobs.beside(ready, "processing")) == []
    done = jobs.beside(ready, "done")
    assert (done / "a.ndjson").read_bytes() == wire.segment(*FIRST)
    assert (again in names(done)) is (not delete or again == "a.ndjson")


def test_equal_content_in_one_job_is_run_once(tmp_path, ready, out):
    for name in ("b.ndjson", "a.ndjson.gz", "c.ndjson.zst"):
        put(ready, name, FIRST)
    put(ready, "d.ndjson", SECOND)
    report = run(ready, out)
    assert sorted(outcomes(report).values()) == ["done", "done", "skipped", "skipped"]
    assert outcomes(report)["d.ndjson"] == "done"
    (once,) = report.segments.filter(pl.col("outcome") == "done")["segment"].to_list()[:1]
    same_as_segments(out, tmp_path, (once, FIRST), ("d", SECOND))
    assert len(names(jobs.beside(ready, "done"))) == 4


@pytest.mark.ci
def test_a_name_used_again_is_another_segment(tmp_path, ready, out):
    contents, segments = (FIRST, SECOND, THIRD), []
    for lines in contents:
        put(ready, "a.ndjson", lines)
        report = run(ready, out)
        assert outcomes(report) == {"a.ndjson": "done"}
        segments += report.segments["segment"].to_list()
    assert segments == ["a", *(f"a-{checksum(lines)[:8]}" for lines in contents[1:])]
    same_as_segments(out, tmp_path, *zip(segments, contents, strict=True))
    assert jobs.manifests(out).keys() == jobs.states(out).keys() == set(segments)
    done = jobs.beside(ready, "done")
    assert names(done) == sorted(f"{segment}.ndjson" for segment in segments)
    for segment, lines in zip(segments, contents, strict=True):
        assert (done / f"{segment}.ndjson").read_bytes() == wire.segment(*lines)
    for lines in contents:
        put(ready, "a.ndjson", lines)
        assert outcomes(run(ready, out)) == {"a.ndjson": "skipped"}


@pytest.mark.ci
def test_a_name_used_twice_in_one_job(tmp_path, ready, out):
    put(ready, "a.ndjson.gz", SECOND)
    put(ready, "a.ndjson", FIRST)
    put(ready, "a.ndjson.zst", THIRD)
    report = run(ready, out)
    assert report.segments["source"].to_list() == ["a.ndjson", "a.ndjson.gz", "a.ndjson.zst"]
    segments = report.segments["segment"].to_list()
    assert segments == ["a", f"a-{checksum(SECOND)[:8]}", f"a-{checksum(THIRD)[:8]}"]
    same_as_segments(out, tmp_path, *zip(segments, (FIRST, SECOND, THIRD), strict=True))
    kept = [f"{segments[0]}.ndjson", f"{segments[1]}.ndjson.gz", f"{segments[2]}.ndjson.zst"]
    assert names(jobs.beside(ready, "done")) == sorted(kept)


def test_nothing_in_done_or_failed_is_overwritten(ready, out):
    for name, mine in (("done", "a.ndjson"), ("failed", "bad.ndjson"), ("failed", "bad.ndjson.error.txt")):
        put(jobs.beside(ready, name), mine, b"mine")
    put(ready, "a.ndjson", FIRST)
    put(ready, "bad.ndjson", BINARY)
    report = run(ready, out)
    assert outcomes(report) == {"a.ndjson": "done", "bad.ndjson": "failed"}
    kept = {name: list(jobs.beside(ready, name).iterdir()) for name in ("done", "failed")}
    contents = {name: sorted(path.read_bytes() for path in paths) for name, paths in kept.items()}
    assert contents["done"] == sorted([b"mine", wire.segment(*FIRST)])
    assert contents["failed"].count(b"mine") == 2
    assert BINARY in contents["failed"]
    assert len(contents["failed"]) == 4  # with the error's file


@tiers.parametrize("name", ["a", "b", "c"], every=3)
def test_without_its_manifest_a_segment_is_run_again(ready, out, name):
    for segment, lines in (("a", FIRST), ("b", [*SECOND, REJECTED]), ("c", THIRD)):
        put(ready, f"{segment}.ndjson", lines)
    run(ready, out)
    before = jobs.tables(out), jobs.states(out), jobs.quarantine(out), jobs.manifests(out)
    (out / "_runs" / f"{name}.json").unlink()
    (jobs.beside(ready, "done") / f"{name}.ndjson").rename(ready / f"{name}.ndjson")
    assert outcomes(run(ready, out)) == {f"{name}.ndjson": "done"}
    jobs.same_rows(jobs.tables(out), before[0])
    assert (jobs.states(out), jobs.quarantine(out), jobs.manifests(out)) == before[1:]


# --- places that cannot be written to


def waiting(ready: Path) -> list[str]:
    """Give the names of what is still to be run; nothing may have failed."""
    places = jobs.places(ready)
    assert not any("failed" in where for where in places.values())
    return [name for name, where in places.items() if where in (["ready"], ["processing"])]


@tiers.parametrize("in_the_way", ["", "level2", "_runs", "_state"], every=3)
def test_an_output_in_whose_place_a_file_stands(tmp_path, ready, out, in_the_way):
    put(ready, "a.ndjson", FIRST)
    put(ready, "b.ndjson", SECOND)
    (out / in_the_way).parent.mkdir(exist_ok=True)
    (out / in_the_way).write_text("in the way")
    with pytest.raises(cb.DatasetError):
        run(ready, out)
    assert waiting(ready) == ["a.ndjson", "b.ndjson"]
    (out / in_the_way).unlink()
    assert run(ready, out).done == 2
    same_as_segments(out, tmp_path, ("a", FIRST), ("b", SECOND))
    assert jobs.leftovers(ready, out) == []


@pytest.mark.ci
def test_a_full_disk_is_no_segment_s_fault(tmp_path, ready, out, monkeypatch):
    second = timeline.changes(5, 9, product_id="ETH-USD")
    for name, lines in (("a", FIRST), ("b", second), ("c", THIRD)):
        put(ready, f"{name}.ndjson", lines)
    whole = DatasetWriter.write

    def is_full(writer: DatasetWriter, rows: pl.DataFrame) -> Any:
        if "product_id" in rows.columns and (rows["product_id"] == "ETH-USD").any():
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(writer, rows)

    monkeypatch.setattr(DatasetWriter, "write", is_full)
    began = time.monotonic()
    with pytest.raises(cb.DatasetError, match="No space left on device"):
        run(ready, out)
    assert time.monotonic() - began < 20, "it waits for what it has called off itself"
    assert waiting(ready) == ["b.ndjson", "c.ndjson"]
    same_as_segments(out, tmp_path / "first", ("a", FIRST))
    monkeypatch.undo()
    assert run(ready, out).done == 2
    same_as_segments(out, tmp_path / "then", ("a", FIRST), ("b", second), ("c", THIRD))
    assert jobs.leftovers(ready, out) == []


def test_a_dataset_partitioned_otherwise(ready, out):
    put(ready, "a.ndjson", FIRST)
    run(ready, out)
    before = dataset(out)
    put(ready, "b.ndjson", SECOND)
    with pytest.raises(cb.DatasetError, match="is partitioned by product_id, date, not by date"):
        run(ready, out, channel_config={"level2": {"partition_cols": ["date"]}})
    assert waiting(ready) == ["b.ndjson"]
    assert dataset(out) == before
