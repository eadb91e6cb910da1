"""run_job side by side: whatever the recording and whoever works, it ends as one segment after the other."""

from __future__ import annotations

import gzip
import os
import random
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import book_flows
import jobs
import polars as pl
import pytest
import tiers
import timeline
import wire
from hypothesis import assume, given
from hypothesis import strategies as st

import cbtools as cb
from cbtools.run.pool import WorkerPool

Segment = tuple[str, bytes]

# by their seeds: a recording is not made clearer by shrinking
dices = st.builds(random.Random, st.integers(0, 2**32 - 1))
NAMES = [*"abcdefghij"]
CONFIGS: list[Any] = [
    None,
    None,
    {"level2": {"processor_options": {"gaps": "raise", "depth": 3}}, "ticker": {}},
    {"level2": {"processor_options": {"gaps": "drop", "on": "bbo"}}, "market_trades": {"partition_cols": []}},
    {"level2": {"processor_options": {"reconstruct_lob": False}}, "heartbeats": {}, "errors": {}},
]
BAD = [b"\x00\x01\x02" * 50, b"\n\n", b"?\n" * 3, gzip.compress(b"?" * 500, mtime=0)[:15]]


class Feed(book_flows.Feed):
    """Draws tickers, too; its clock is that of the whole recording."""

    def line(self) -> bytes:
        if self.dice.random() > 0.12:
            return super().line()
        time, number = self.time(), self.number
        self.number += 1
        frame = wire.ticker(number, self.dice.choice(self.products)) | {"timestamp": time}
        self.sent.append(wire.record(frame, time))
        return self.sent[-1]


class InAnyOrder(Executor):
    """Does one task after the other, of those that wait the one that is chosen."""

    def __init__(self, choose: Callable[[list[Any]], Any]) -> None:
        self.choose, self.waiting = choose, list[Any]()
        self.change, self.ended = threading.Condition(), False
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def submit(self, task: Any, /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self.change:
            self.waiting.append((future, task, args, named))
            self.change.notify()
        return future

    def work(self) -> None:
        while True:
            with self.change:
                self.change.wait_for(lambda: self.waiting or self.ended)
                if self.ended:
                    return
                while self.change.wait(0.003):  # until no more come
                    pass
                one = self.choose(self.waiting)
                self.waiting.remove(one)
            self.do(*one)

    def do(self, future: Future[Any], task: Any, args: Any, named: Any) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(task(*args, **named))
            except BaseException as error:
                future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        del cancel_futures
        with self.change:
            self.ended = True
            self.change.notify()
        if wait:
            self.thread.join()


def the_first(waiting: list[Any]) -> Any:
    return waiting[0]


def the_last(waiting: list[Any]) -> Any:
    return waiting[-1]


def recorded(dice: random.Random, most: int = 5) -> list[Segment]:
    """Draw the segments of one or two recorders, in the order in which they were begun.

    Their names are in any order. Now and then one is missing, is none at all, or begins with lines that the
    one before it has, too.
    """
    faults = dice.choice([0.0, 0.1, 0.4])
    feeds = [Feed(dice, faults, mixed=dice.random() < 0.5) for _ in range(dice.choice([1, 1, 2]))]
    feeds[-1].number += 500_000 * (len(feeds) - 1)
    segments, now = [], 0
    for _ in range(dice.randint(2, most)):
        feed = dice.choice(feeds)
        feed.now = now
        again = feed.sent[-1:] if dice.random() < 0.15 else []
        lines = [*again, *(feed.line() for _ in range(dice.choice([0, 1, 3, 6, 12])))]
        now = feed.now
        if dice.random() > 0.1:
            segments.append(wire.segment(*lines))
        if dice.random() < 0.15:
            segments.append(dice.choice(BAD))
    contents = [gzip.compress(one, mtime=0) if dice.random() < 0.2 else one for one in segments]
    return [*zip(dice.sample(NAMES, len(contents)), contents, strict=True)]


def text_of(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") and content not in BAD else content


def is_told(segments: Sequence[Segment]) -> bool:
    """Tell whether the segments' times and numbers agree on one order: none repeats, and none falls back."""
    times: list[bytes] = []
    numbers: list[set[int]] = []
    for _, content in segments:
        text = text_of(content)
        times += re.findall(rb"05:06:07\.(\d{6})Z", text)[:1]
        numbers.append({int(number) for number in re.findall(rb'"sequence_num":(\d+)', text)})
    follows = [
        (place, other)
        for place, mine in enumerate(numbers)
        for other, others in enumerate(numbers[:place])
        if {number + 1 for number in mine} & others
    ]
    return not follows and all(a < b for a, b in pairwise(times))


def put(folder: Path, segments: Sequence[Segment]) -> Path:
    ready = folder / "raw" / "ready" / "coinbase"
    ready.mkdir(parents=True, exist_ok=True)
    for name, content in segments:
        ending = ".ndjson.gz" if content.startswith(b"\x1f\x8b") else ".ndjson"
        (ready / f"{name}{ending}").write_bytes(content)
    return ready


def one_after_another(folder: Path, segments: Sequence[Segment], **options: Any) -> dict[str, str]:
    """Call run_segment for each in this order; tell what becomes of them in a job: outcome and start."""
    became: dict[str, str] = {}
    contents: list[bytes] = []
    for name, content in segments:
        (path,) = put(folder / name, [(name, content)]).iterdir()
        found = cb.inspect_raw(path).raw
        understood = found.lines - sum(found.rejects.values()) + bool(found.rejects.get("damaged file"))
        if text_of(content) in contents:
            became[name] = "skipped"
            continue
        if found.rejects and understood <= 0:
            became[name] = "failed"
            continue
        try:
            report = cb.run_segment(path, folder / "out", **options)
        except cb.StateError:  # of the option gaps="raise"
            became[name] = "failed"
            continue
        became[name] = f"done from {report.started_from}"
        contents.append(text_of(content))
    return became


def outcomes(report: cb.JobReport) -> dict[str, str]:
    """Tell what became of each source, and what it was started from, in the order of the work."""
    rows = report.segments.select("source", "outcome", "started_from").iter_rows()
    return {
        source.partition(".")[0]: f"done from {start}" if outcome == "done" else outcome
        for source, outcome, start in rows
    }


def same_report(one: cb.JobReport, other: cb.JobReport) -> None:
    differ = ["seconds", "reason"]  # a reason names the folder
    mine, others = (report.segments.drop(differ).sort("source") for report in (one, other))
    assert mine.equals(others)  # those that are skipped may be so at any time
    for table in ("gaps", "quarantine", "coverage"):
        assert getattr(one, table).equals(getattr(other, table)), table


@pytest.mark.ci
@given(dices)
@tiers.examples(6, full=60)
def test_whoever_works_it_ends_as_one_segment_after_the_other(dice):
    segments = recorded(dice)
    options = {"channel_config": dice.choice(CONFIGS), "chunk_bytes": dice.choice([700, 1 << 26])}
    others = InAnyOrder(dice.choice) if dice.random() < 0.5 else ThreadPoolExecutor(3)
    with tempfile.TemporaryDirectory() as temporary, others:
        folder = Path(temporary)
        alone = cb.run_job(put(folder / "a", segments), folder / "a/out", progress=False, **options)
        became = outcomes(alone)
        in_order = sorted(segments, key=lambda segment: [*became].index(segment[0]))
        assert one_after_another(folder / "whole", in_order, **options) == became
        if is_told(segments):
            timed = [name for name, content in segments if b"05:06:07" in text_of(content)]
            timed = [name for name in timed if became[name].startswith("done")]
            assert [name for name in became if name in timed] == timed
        jobs.same_content(folder / "a/out", folder / "whole/out")
        ready = put(folder / "b", segments)
        side_by_side = cb.run_job(
            ready, folder / "b/out", executor=others, workers=3, progress=False, **options
        )
        assert outcomes(side_by_side) == became
        same_report(side_by_side, alone)
        jobs.same_dataset(folder / "b/out", folder / "a/out")
        assert jobs.places(ready) == jobs.places(folder / "a/raw/ready/coinbase")
        assert jobs.leftovers(ready, folder / "b/out") == []


@pytest.mark.ci
@given(dices)
@tiers.examples(2, full=60)
def test_in_how_many_jobs_does_not_matter(dice):
    segments = recorded(dice, most=4)
    assume(is_told(segments))
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(3) as threads:
        folder = Path(temporary)
        report = cb.run_job(put(folder / "a", segments), folder / "a/out", executor=threads, progress=False)
        in_order = sorted(segments, key=lambda segment: [*outcomes(report)].index(segment[0]))
        cut = dice.randint(0, len(in_order))
        for part, executor in ((in_order[:cut], threads), (in_order[cut:], None)):
            cb.run_job(put(folder / "b", part), folder / "b/out", executor=executor, progress=False)
        jobs.same_dataset(folder / "b/out", folder / "a/out")


def usual() -> list[Segment]:
    """Give five segments of a recorder's stream, with a gap, a reconnect, repeats, rejects; one is none."""
    dice = random.Random(7)
    feed = Feed(dice, 0.1)
    contents = [wire.segment(*(feed.line() for _ in range(60))) for _ in range(5)]
    return [*zip("ecadb", [*contents[:2], BAD[0], *contents[3:]], strict=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Run them with one worker."""
    folder = tmp_path_factory.mktemp("alone")
    report = cb.run_job(put(folder, usual()), folder / "out", workers=1, progress=False)
    assert [*outcomes(report).values()].count("failed") == 1
    assert report.gaps.height > 0
    assert report.segments["rejects"].sum() > 1
    assert one_after_another(folder / "whole", usual()) == outcomes(report)
    jobs.same_rows(jobs.tables(folder / "out"), jobs.tables(folder / "whole/out"))
    return folder


@pytest.mark.slow
def test_two_processes(alone, tmp_path):
    ready = put(tmp_path, usual())
    report = cb.run_job(ready, tmp_path / "out", workers=2, progress=False)
    assert (report.done, report.failed) == (4, 1)
    jobs.same_dataset(tmp_path / "out", alone / "out")
    assert jobs.places(ready) == jobs.places(alone / "raw/ready/coinbase")
    assert jobs.leftovers(ready, tmp_path / "out") == []


@pytest.mark.ci
@tiers.parametrize("choose", [the_first, the_last, random.Random(3).choice], every=3)
def test_what_was_told_ahead_and_did_not_come_true_leaves_no_trace(tmp_path, choose):
    """The second one's effect can be read before it is known that it fails."""
    spoiled = [timeline.received(wire.change(number, side="?"), number) for number in range(5, 10)]
    first = [timeline.received(wire.snapshot(0), 0), *timeline.changes(1, 4)]
    later = [timeline.changes(10, 14), timeline.changes(15, 19), timeline.changes(20, 24)]
    contents = [wire.segment(*lines) for lines in (first, spoiled, *later)]
    segments = [*zip("cdaeb", contents, strict=True)]
    ready, out = put(tmp_path, segments), tmp_path / "out"
    with InAnyOrder(choose) as executor:
        report = cb.run_job(ready, out, executor=executor, workers=4, progress=False)
    assert one_after_another(tmp_path / "whole", segments) == outcomes(report)
    assert [*outcomes(report).values()] == ["done from nothing", "failed", *(f"done from {n}" for n in "cae")]
    jobs.same_rows(jobs.tables(out), jobs.tables(tmp_path / "whole/out"))
    assert jobs.states(out) == jobs.states(tmp_path / "whole/out")


@pytest.mark.ci
def test_strict_stops_at_the_first_bad_one_whoever_works(tmp_path):
    numbers = [(0, 3), (4, 5), (6, 9), (10, 11), (12, 15)]
    segments = []
    for name, (first, last) in zip("edcba", numbers, strict=True):
        lines = [*timeline.changes(first, last), *([b"?"] if name in "ca" else [])]
        segments.append((name, wire.segment(*lines)))
    found = []
    with ThreadPoolExecutor(3) as threads:
        for number, executor in enumerate((None, threads)):
            ready, out = put(tmp_path / str(number), segments), tmp_path / str(number) / "out"
            with pytest.raises(cb.SegmentError, match="segment c, line 5 "):
                cb.run_job(ready, out, executor=executor, strict=True, progress=False)
            places = jobs.places(ready)
            assert places["e.ndjson"] == places["d.ndjson"] == ["done"]
            assert places["c.ndjson"] == places["c.ndjson.error.txt"] == ["failed"]
            assert "failed" not in (*places["a.ndjson"], *places["b.ndjson"])
            assert cb.run_job(ready, out, executor=executor, progress=False).failed == 0
            assert [where for name, where in jobs.places(ready).items() if name[0] != "c"] == [["done"]] * 4
            found.append(jobs.tables(out))
    assert set(found[0]["level2"]["segment"]) == {*"edba"}
    jobs.same_rows(*found)


@pytest.mark.ci
def test_an_executor_is_the_caller_s(tmp_path):
    """The job neither shuts it down nor needs it to be empty."""
    with ThreadPoolExecutor(2) as threads:
        for number in (1, 2):
            folder = tmp_path / str(number)
            report = cb.run_job(put(folder, usual()), folder / "out", executor=threads, progress=False)
            assert report.done == 4
        assert threads.submit(int, "5").result() == 5


@pytest.mark.ci
@tiers.parametrize("told", [None, "7"], every=2)
def test_worker_processes_share_the_cores(monkeypatch, told):
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("POLARS_MAX_THREADS", told)
    with WorkerPool(2, None) as pool:
        both = [pool.submit(pl.thread_pool_size) for _ in range(2)]
        assert {one.result() for one in both} == {max(1, pl.thread_pool_size() // 2)}
        assert os.environ.get("POLARS_MAX_THREADS") == told
