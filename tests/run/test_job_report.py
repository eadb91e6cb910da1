"""run_job's report and manifests: what was found and written, counted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jobs
import polars as pl
import pytest
import timeline
import wire
from jobs import put, run
from oracles import raw as oracle

import cbtools as cb
from cbtools.schema import SCHEMA_VERSION, TIME, schema

ETH = "ETH-USD"
NOISE = [b"?", b"", b'{"data":{"channel":"l2_data","sequ']


def frame(number: int) -> wire.Json:
    """Give the frame of a number: snapshots first, then trades and tickers among changes."""
    product_id = ("BTC-USD", ETH)[number % 2]
    if number < 2:
        return wire.snapshot(number, product_id)
    if number % 5 == 3:
        return wire.trades(number, wire.trade(str(number), product_id=product_id))
    return wire.ticker(number, product_id) if number % 5 == 4 else wire.change(number, product_id)


def frames(*numbers: int, second: float = 0) -> list[bytes]:
    """Give lines received seven seconds apart, so that they are of several minutes."""
    return [timeline.received(frame(number), second + 7 * number) for number in numbers]


OLD = [timeline.received(wire.heartbeat(number, "now", 1), number - 300_000) for number in range(2)]
FIRST = frames(*range(10))
SECOND = [
    *frames(10, 11), NOISE[0], *frames(13), *frames(13), NOISE[1], *frames(14, 17, 18, 19, 18, 19, 20, 21),
    NOISE[2], *frames(0, 1, 2, 5, second=3600),
]  # fmt: skip
"""With a gap (15), a new connection and a gap in it (3), three repeats and three rejects."""


class Job(NamedTuple):
    ready: Path
    out: Path
    report: cb.JobReport


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    """Run a job with a segment of each outcome; another job was before it."""
    root = tmp_path_factory.mktemp("job")
    ready, out = root / "raw" / "ready" / "coinbase", root / "processed"
    put(ready, "old.ndjson", OLD)
    run(ready, out)
    put(ready, "copy.ndjson", OLD)
    put(ready, "a.ndjson", FIRST)
    put(ready, "b.ndjson.zst", SECOND)
    put(ready, "bad.ndjson", b"no\nJSON\n")
    return Job(ready, out, run(ready, out))


# --- the manifest


def manifest(out: Path, segment: str) -> dict[str, Any]:
    return json.loads((out / "_runs" / f"{segment}.json").read_bytes())


KEYS = {
    "version", "segment", "source", "tables", "lines", "frames", "connections", "gaps", "lost_frames",
    "duplicates", "rejects", "quarantine", "started_from", "time_span", "coverage", "parameters", "software",
    "schema", "seconds", "finished_at",
}  # fmt: skip


def test_each_segment_done_has_a_manifest(job):
    assert jobs.manifests(job.out).keys() == {"a", "b", "old"}
    for segment in "ab":
        assert manifest(job.out, segment).keys() >= KEYS


@pytest.mark.parametrize(
    ("segment", "file", "lines"), [("a", "a.ndjson", FIRST), ("b", "b.ndjson.zst", SECOND)]
)
def test_the_manifest_says_of_what_it_is(job, segment, file, lines):
    told, text = manifest(job.out, segment), wire.segment(*lines)
    assert told["segment"] == segment
    assert told["source"] == {
        "name": file,
        "size": (jobs.beside(job.ready, "done") / file).stat().st_size,
        "sha256": hashlib.sha256(text).hexdigest(),
        "raw_bytes": len(text),
    }
    assert told["software"] == version("cbtools")
    assert told["schema"] == SCHEMA_VERSION
    assert told["seconds"] > 0
    finished = datetime.fromisoformat(told["finished_at"])
    assert finished.tzinfo is not None
    assert 0 <= (datetime.now(UTC) - finished).total_seconds() < 3600
    assert told["started_from"] == {"a": "old", "b": "a"}[segment]


def test_the_manifest_counts_what_the_oracle_counts(job):
    both = oracle.decode([wire.segment(*FIRST), wire.segment(*SECOND)])
    first = oracle.decode([wire.segment(*FIRST)])
    told = manifest(job.out, "b")
    assert told["lines"] == len(SECOND)
    assert told["duplicates"] == both.duplicates == 3
    assert sum(told["rejects"].values()) == len(both.rows["rejects"]) == 3
    assert told["frames"] == len(SECOND) - 3 - 3
    gaps = [(gap["connection"], gap["expected"], gap["got"], gap["line"]) for gap in told["gaps"]]
    assert gaps == [
        (gap["connection"] + 1, gap["expected"], gap["got"], gap["line"])  # that of old.ndjson is the first
        for gap in both.rows["gaps"]
    ]
    assert [gap[1:3] for gap in gaps] == [(12, 13), (15, 17), (3, 5)]
    assert told["lost_frames"] == 5
    of_first = manifest(job.out, "a")
    assert (of_first["lines"], of_first["frames"], of_first["connections"]) == (10, 10, 1)
    assert (of_first["gaps"], of_first["lost_frames"], of_first["duplicates"]) == ([], 0, 0)
    assert (of_first["rejects"], of_first["quarantine"]) == ({}, None)
    for table in ("level2", "market_trades", "ticker"):
        counts = Counter(row["product_id"] for row in both.rows[table])
        before = Counter(row["product_id"] for row in first.rows[table])
        assert of_first["tables"][table]["rows"] == before
        assert told["tables"][table]["rows"] == counts - before


def test_the_manifest_says_what_was_written(job):
    for segment in "ab":
        told = manifest(job.out, segment)["tables"]
        assert told.keys() == set(jobs.TABLES)
        for table, written in told.items():
            found = sorted((job.out / table).rglob(f"part_{segment}.parquet"))
            assert sorted(part["path"] for part in written["parts"]) == (
                sorted(path.relative_to(job.out).as_posix() for path in found)
            )
            for part in written["parts"]:
                path = job.out / part["path"]
                frame = pl.read_parquet(path, hive_partitioning=False, glob=False)
                assert (part["rows"], part["bytes"]) == (frame.height, path.stat().st_size)
            rows = cb.scan_dataset(job.out, table, segment=True).filter(segment=segment).collect()
            assert written["rows"] == Counter(rows["product_id"].to_list())
    quarantine = job.out / manifest(job.out, "b")["quarantine"]
    assert quarantine == job.out / "_quarantine" / "b.ndjson"
    assert len(quarantine.read_bytes().splitlines()) == 3


def test_the_manifest_tells_the_time_span_and_the_parameters(job, ready, out):
    for segment, first, last in (("a", 0, 63), ("b", 70, 3635)):
        span = [datetime.fromisoformat(text) for text in manifest(job.out, segment)["time_span"]]
        assert span == [timeline.moment(second) - timeline.LATENCY for second in (first, last)]
    put(ready, "a.ndjson", FIRST)
    config = {"ticker": {"partition_cols": ["product_id"]}, "level2": {"processor_options": {"depth": 3}}}
    run(ready, out, channel_config=config, products=[ETH])
    parameters = manifest(out, "a")["parameters"]
    assert parameters["products"] == [ETH]
    assert manifest(job.out, "a")["parameters"]["products"] is None
    for told in ('"ticker": ["product_id"]', '"depth": 3'):
        assert told in json.dumps(parameters)
        assert told not in json.dumps(manifest(job.out, "a")["parameters"])


# --- the report

SEGMENTS = {
    "segment": pl.String, "source": pl.String, "outcome": pl.String, "reason": pl.String,
    "started_from": pl.String, "first_time": TIME, "last_time": TIME, "source_bytes": pl.Int64,
    "raw_bytes": pl.Int64, "lines": pl.Int64, "rows": pl.Int64, "gaps": pl.Int64, "lost_frames": pl.Int64,
    "rejects": pl.Int64, "seconds": pl.Float64,
}  # fmt: skip
COVERAGE = ["product_id", "hour", "minutes", "messages", "ok", "trades"]


def test_the_report_of_an_empty_job_has_the_same_columns(job, ready, out):
    empty = run(ready, out)
    for report in (empty, job.report):
        assert report.segments.columns == [*SEGMENTS]
        assert report.gaps.columns == ["segment", *schema("gaps")]
        assert report.quarantine.columns == ["segment", "reason", "lines"]
        assert report.coverage.columns == COVERAGE
        assert report.gaps.drop("segment").schema == schema("gaps")
    for table in ("segments", "gaps", "quarantine", "coverage"):
        assert getattr(empty, table).schema == getattr(job.report, table).schema
        assert getattr(empty, table).height == 0
    for name, dtype in SEGMENTS.items():
        found = empty.segments.schema[name]
        assert found == dtype or (dtype == pl.Int64 and found.is_integer()), name


def test_the_report_tells_what_became_of_each_segment(job):
    report = job.report
    assert (report.done, report.skipped, report.failed) == (2, 1, 1)
    assert report.seconds >= sum(report.segments["seconds"].drop_nulls()) * 0.5
    rows = {row["source"]: row for row in report.segments.iter_rows(named=True)}
    outcomes = {source: row["outcome"] for source, row in rows.items()}
    assert outcomes == {
        "a.ndjson": "done", "b.ndjson.zst": "done", "bad.ndjson": "failed", "copy.ndjson": "skipped",
    }  # fmt: skip
    for row in rows.values():
        assert (row["reason"] is None) is (row["outcome"] == "done")
    assert "old" in rows["copy.ndjson"]["reason"]


@pytest.mark.parametrize("segment", ["a", "b"])
def test_the_report_counts_what_the_manifest_counts(job, segment):
    told = job.report.segments.row(by_predicate=pl.col("segment") == segment, named=True)
    counts = manifest(job.out, segment)
    assert told["source"] == counts["source"]["name"]
    assert (told["source_bytes"], told["raw_bytes"]) == (
        counts["source"]["size"],
        counts["source"]["raw_bytes"],
    )
    assert (told["lines"], told["lost_frames"]) == (counts["lines"], counts["lost_frames"])
    assert (told["gaps"], told["rejects"]) == (len(counts["gaps"]), sum(counts["rejects"].values()))
    assert told["started_from"] == counts["started_from"]
    assert told["rows"] == sum(part["rows"] for table in counts["tables"].values() for part in table["parts"])
    span = [datetime.fromisoformat(text) for text in counts["time_span"]]
    assert [told["first_time"], told["last_time"]] == span
    assert told["seconds"] > 0
    gaps = job.report.gaps.filter(segment=segment)
    assert gaps.select("expected", "got", "line").rows() == (
        [(gap["expected"], gap["got"], gap["line"]) for gap in counts["gaps"]]
    )
    lines = job.report.quarantine.filter(segment=segment).select("reason", "lines")
    assert dict(lines.iter_rows()) == counts["rejects"]


def test_the_gaps_are_rows_of_the_table_of_gaps(job):
    copies = [put(job.out.parent / "copies", name, lines) for name, lines in (("a", FIRST), ("b", SECOND))]
    expected = cb.read_raw(copies, segment=True).gaps
    expected = expected.with_columns(pl.col("connection") + 1)  # that of old.ndjson is the first
    assert job.report.gaps.drop("segment").equals(expected.drop("segment"))
    assert job.report.gaps["segment"].to_list() == ["b"] * 3


def test_the_coverage_counts_messages_and_trades(job):
    key = ["product_id", "connection", "sequence_num", "line"]
    changes = cb.scan_dataset(job.out, "level2").filter(pl.col("side").is_not_null()).collect()
    book = cb.scan_dataset(job.out, "book").collect().join(changes, on=key, how="semi")
    trades = cb.scan_dataset(job.out, "market_trades").collect()
    hour = pl.col("server_time").dt.truncate("1h")
    expected = {key for frame in (book, trades) for key in frame.select("product_id", hour).iter_rows()}
    assert set(job.report.coverage.select("product_id", "hour").iter_rows()) == expected
    assert len(expected) == job.report.coverage.height > 4
    for row in job.report.coverage.iter_rows(named=True):
        mine = (pl.col("product_id") == row["product_id"]) & (hour == row["hour"])
        messages = book.filter(mine)
        assert row["messages"] == messages.height > 0
        assert row["ok"] == messages.filter(pl.col("book_state") == "ok").height
        assert row["trades"] == trades.filter(mine).height
        assert row["minutes"] == messages["server_time"].dt.truncate("1m").n_unique()
    assert job.report.coverage["ok"].sum() < job.report.coverage["messages"].sum()


def test_the_coverage_counts_messages_before_a_snapshot(ready, out):
    put(ready, "a.ndjson", timeline.changes(5, 9))
    told = run(ready, out).coverage.select("product_id", "minutes", "messages", "ok", "trades")
    assert told.rows() == [("BTC-USD", 1, 5, 0, 0)]


def test_the_report_is_frozen_and_shows_itself(job):
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.report.seconds = 0.0  # type: ignore[misc]
    text, html = str(job.report), job.report._repr_html_()
    for said in ("bad", "2", "1"):
        assert re.search(rf"\b{said}\b", text)
    assert "<table" in html
    assert "bad" in html


def test_html_is_escaped(ready, out):
    put(ready, "a<b>&c.ndjson", [*FIRST, b"<script>"])
    put(ready, "<i>.ndjson", b"<script>")
    html = run(ready, out)._repr_html_()
    assert "<script>" not in html
    assert "<i>" not in html
    assert "&lt;i&gt;" in html
