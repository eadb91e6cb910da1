"""run_job and segments that fail: they go aside with the reason, leave nothing behind, the others go on."""

from __future__ import annotations

import errno
import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import jobs
import polars as pl
import pytest
import tiers
import timeline
import wire
from jobs import outcomes, put, run, same_as_segments

import cbtools as cb
from cbtools.dataset import DatasetWriter
from cbtools.raw import files

BINARY = bytes(range(256)) * 8
REJECTED = b'{"capture_ts":"2026-03-04T05:00:00Z","data":{"chan'
SNAPSHOT = timeline.received(wire.snapshot(0), 0)
FIRST, SECOND, THIRD = [SNAPSHOT, *timeline.changes(1, 4)], timeline.changes(5, 9), timeline.changes(10, 14)
LATER = [timeline.received(wire.snapshot(0), 50), *timeline.changes(1, 3, 51)]  # of another connection


class Broken(Exception):
    """What goes wrong in a segment."""


def failed(ready: Path, out: Path, report: cb.JobReport, name: str) -> str:
    """Check that a segment has failed and left nothing; give what its error's file says."""
    row = report.segments.row(by_predicate=pl.col("source") == name, named=True)
    assert row["outcome"] == "failed"
    assert row["reason"]
    assert jobs.places(ready)[name] == ["failed"]
    segment = row["segment"]
    its = {f"part_{segment}.parquet", *(f"{segment}.{ending}" for ending in ("json", "parquet", "ndjson"))}
    assert [path for path in out.rglob("*") if path.name in its] == []
    assert jobs.leftovers(ready, out) == []
    return (jobs.beside(ready, "failed") / f"{name}.error.txt").read_text(encoding="utf-8")


# --- why a segment fails


@pytest.mark.slow
@tiers.parametrize(
    ("name", "content"),
    [
        ("bad.ndjson", BINARY),
        ("bad.ndjson", b"\n \n\n"),
        ("bad.ndjson", b"Traceback (most recent call last):"),
        ("bad.ndjson", wire.segment(wire.change(7, side="?"), {"data": {}})),
        ("bad.ndjson.gz", BINARY),
    ],
    every=3,
)
def test_a_segment_of_which_no_line_is_understood(tmp_path, ready, out, name, content):
    put(ready, "a.ndjson", FIRST)
    bad = put(ready, name, content).read_bytes()
    put(ready, "z.ndjson", SECOND)
    report = run(ready, out)
    assert (report.done, report.failed) == (2, 1)
    said = failed(ready, out, report, name)
    assert "bad" in said
    assert "Traceback (" not in said.replace(content.decode("latin1"), "")
    assert (jobs.beside(ready, "failed") / name).read_bytes() == bad
    same_as_segments(out, tmp_path, ("a", FIRST), ("z", SECOND))


@pytest.mark.parametrize("bytes_left", [2, 12])
def test_a_compressed_file_of_which_nothing_can_be_read(ready, out, bytes_left):
    put(ready, "bad.ndjson.gz", FIRST)
    (ready / "bad.ndjson.gz").write_bytes(gzip.compress(wire.segment(*FIRST))[:bytes_left])
    put(ready, "a.ndjson", SECOND)
    report = run(ready, out)
    failed(ready, out, report, "bad.ndjson.gz")
    assert outcomes(report)["a.ndjson"] == "done"


def test_a_file_of_which_nothing_can_be_read_is_not_taken_for_an_empty_one(ready, out):
    """It may hold what nobody else has, and must not be deleted as known."""
    put(ready, "a.ndjson", b"")
    run(ready, out)
    put(ready, "bad.ndjson.gz", FIRST)
    (ready / "bad.ndjson.gz").write_bytes(gzip.compress(wire.segment(*FIRST))[:12])
    failed(ready, out, run(ready, out, delete_after_processing=True), "bad.ndjson.gz")


def test_a_compressed_file_cut_behind_some_lines_is_done(tmp_path, ready, out):
    path = put(
        ready,
        "a.ndjson.gz",
        [SNAPSHOT, *timeline.changes(1, 400), random.Random(1).randbytes(30_000).hex().encode()],
    )
    path.write_bytes(path.read_bytes()[:-3_000])
    shutil.copy(path, tmp_path / "a.ndjson.gz")
    report = run(ready, out)
    assert outcomes(report) == {"a.ndjson.gz": "done"}
    whole = cb.run_segment(tmp_path / "a.ndjson.gz", tmp_path / "whole")
    assert whole.raw.frames == 401
    jobs.same_rows(jobs.tables(out), jobs.tables(tmp_path / "whole"))
    assert report.segments["rejects"].to_list() == [whole.raw.rejected]
    assert whole.raw.rejected > 0


@pytest.mark.ci
def test_a_segment_whose_processing_raises(tmp_path, ready, out, monkeypatch):
    whole = DatasetWriter.write

    def breaks(writer: DatasetWriter, rows: pl.DataFrame) -> Any:
        if "product_id" in rows.columns and (rows["product_id"] == "BAD-USD").any():
            raise Broken("of no use")
        return whole(writer, rows)

    monkeypatch.setattr(DatasetWriter, "write", breaks)
    spoiled = timeline.changes(5, 9, product_id="BAD-USD")
    for name, lines in (("a", FIRST), ("b", spoiled), ("c", THIRD)):
        put(ready, f"{name}.ndjson", lines)
    report = run(ready, out)
    assert outcomes(report) == {"a.ndjson": "done", "b.ndjson": "failed", "c.ndjson": "done"}
    said = failed(ready, out, report, "b.ndjson")
    assert "Traceback (most recent call last)" in said
    assert "Broken: of no use" in said
    same_as_segments(out, tmp_path, ("a", FIRST), ("c", THIRD))
    monkeypatch.undo()  # mended: the segment is put back and run, and is no stranger to the job
    shutil.move(jobs.beside(ready, "failed") / "b.ndjson", ready)
    assert outcomes(run(ready, out)) == {"b.ndjson": "done"}
    assert jobs.tables(out)["level2"].filter(segment="b").height == 5


def test_our_own_error_is_told_without_a_traceback(ready, out):
    config = {"level2": {"processor_options": {"gaps": "raise"}}}
    put(ready, "a.ndjson", FIRST)
    put(ready, "b.ndjson", timeline.changes(6, 9))  # one frame is missing
    put(ready, "c.ndjson", LATER)
    report = run(ready, out, channel_config=config)
    assert outcomes(report) == {"a.ndjson": "done", "b.ndjson": "failed", "c.ndjson": "done"}
    said = failed(ready, out, report, "b.ndjson")
    assert "unproven" in said
    assert "Traceback" not in said


def test_a_segment_that_cannot_be_read(ready, out, monkeypatch):
    whole = files._open

    def refuses(path: Path, *more: Any) -> Any:
        if path.name.startswith("b."):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path, *more)

    monkeypatch.setattr(files, "_open", refuses)
    for name, lines in (("a", FIRST), ("b", SECOND), ("c", THIRD)):
        put(ready, f"{name}.ndjson", lines)
    report = run(ready, out)
    assert outcomes(report) == {"a.ndjson": "done", "b.ndjson": "failed", "c.ndjson": "done"}
    assert "Permission denied" in failed(ready, out, report, "b.ndjson")


def test_one_that_fails_leaves_the_other_of_its_name_alone(ready, out):
    put(ready, "a.ndjson", FIRST)
    run(ready, out)
    before = {path: path.read_bytes() for path in out.rglob("*a.*")}
    assert before
    put(ready, "a.ndjson", BINARY)
    report = run(ready, out)
    assert report.failed == 1
    assert {path: path.read_bytes() for path in out.rglob("*a.*")} == before
    assert (jobs.beside(ready, "done") / "a.ndjson").read_bytes() == wire.segment(*FIRST)
    assert BINARY in [path.read_bytes() for path in jobs.beside(ready, "failed").iterdir()]


def test_a_compressed_file_without_lines_is_empty(ready, out):
    put(ready, "a.ndjson.gz", b"")
    assert outcomes(run(ready, out)) == {"a.ndjson.gz": "done"}
    put(ready, "b.ndjson", b"")
    assert outcomes(run(ready, out)) == {"b.ndjson": "skipped"}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        SECOND[-2:],  # nothing but repeats of what was there before
        [timeline.received(wire.l2(10), 10)],
        [timeline.received(wire.error(), 10)],
    ],
    ids=["empty", "repeats", "no events", "an error frame"],
)
def test_a_segment_without_rows_is_done(ready, out, lines):
    put(ready, "a.ndjson", [*FIRST, *SECOND])
    run(ready, out)
    rows = jobs.tables(out)
    put(ready, "b.ndjson", lines)
    report = run(ready, out)
    assert outcomes(report) == {"b.ndjson": "done"}
    assert report.segments.select("lines", "rows", "rejects").row(0) == (len(lines), 0, 0)
    jobs.same_rows(jobs.tables(out), rows)
    assert json.loads((out / "_runs" / "b.json").read_bytes())["lines"] == len(lines)


def test_repeats_are_understood(ready, out):
    put(ready, "a.ndjson", [*FIRST, *SECOND])
    put(ready, "b.ndjson", [*SECOND[-2:], b"?"])
    report = run(ready, out)
    assert outcomes(report) == {"a.ndjson": "done", "b.ndjson": "done"}
    assert report.segments["rejects"].to_list() == [0, 1]


# --- strict


@pytest.mark.ci
def test_strict_raises_for_the_first_line_not_understood(tmp_path, ready, out):
    put(ready, "a.ndjson", FIRST)
    put(ready, "b.ndjson", [*SECOND[:2], REJECTED, *SECOND[2:]])
    put(ready, "c.ndjson", [*THIRD, REJECTED])
    with pytest.raises(cb.SegmentError, match="segment b, line 3 "):
        run(ready, out, strict=True)
    places = jobs.places(ready)
    assert places.pop("a.ndjson") == ["done"]
    assert places.pop("b.ndjson") == places.pop("b.ndjson.error.txt") == ["failed"]
    assert places in ({"c.ndjson": ["ready"]}, {"c.ndjson": ["processing"]})
    assert "line 3 " in (jobs.beside(ready, "failed") / "b.ndjson.error.txt").read_text(encoding="utf-8")
    same_as_segments(out, tmp_path / "first", ("a", FIRST))
    assert outcomes(run(ready, out)) == {"c.ndjson": "done"}
    same_as_segments(out, tmp_path / "then", ("a", FIRST), ("c", [*THIRD, REJECTED]))


def test_strict_runs_what_has_no_fault(tmp_path, ready, out):
    put(ready, "a.ndjson", FIRST)
    put(ready, "b.ndjson", [*SECOND, SECOND[-1]])  # a repeat is none
    report = run(ready, out, strict=True)
    assert report.done == 2
    same_as_segments(out, tmp_path, ("a", FIRST), ("b", [*SECOND, SECOND[-1]]))
