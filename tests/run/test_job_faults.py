"""Jobs among others: other jobs, readers, workers that die.

Whatever it was: running again ends with the dataset of a run undisturbed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jobs
import polars as pl
import pytest
from job_process import PATIENCE, Process, is_stopped, session, wait_for, workers
from jobs import Place
from tiers import FULL

import cbtools as cb
from cbtools.book.state import Follower

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are watched by way of /proc"),
]


# --- other jobs


@contextmanager
def held(place: Place, process: Process, before: int = 60) -> Iterator[Process]:
    """Have a job stop in the middle; afterwards it goes on, and is to end well."""
    place.begin(process, before=before, do="stop")
    wait_for(lambda: is_stopped(process.pid), "the job does not get so far")
    try:
        yield process
    finally:
        process.signal(signal.SIGCONT)
    ended = process.answer()
    assert ended.error == "", ended.trace
    place.check_end()


def is_refused(job: Callable[[], object], holder: Process) -> None:
    with pytest.raises(cb.JobError) as caught:
        job()
    assert re.search(rf"\b{holder.pid}\b", str(caught.value))
    assert os.uname().nodename in str(caught.value)


def test_a_second_job_on_a_folder_is_refused(place, helper, recorded, tmp_path):
    """On one of the two folders or on both, by whatever path, with whatever options."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "raw", target_is_directory=True)
    other = jobs.copy_of(recorded, tmp_path / "other")
    with held(place, helper) as holder:
        is_refused(place.run, holder)
        is_refused(lambda: place.run(workers=2, delete_after_processing=True), holder)
        is_refused(lambda: cb.run_job(place.ready, tmp_path / "elsewhere", progress=False), holder)
        is_refused(lambda: cb.run_job(link / "ready/coinbase", tmp_path / "out2", progress=False), holder)
        is_refused(lambda: cb.run_job(other, place.out, progress=False), holder)
        is_refused(lambda: cb.run_job(other, tmp_path / "raw/../out", progress=False), holder)
        assert jobs.places(other) == {name: ["ready"] for name in place.names}
    assert cb.run_job(other, tmp_path / "elsewhere", progress=False).done == 3
    jobs.same_dataset(tmp_path / "elsewhere", place.whole)


def test_jobs_on_other_folders_are_not(place, helper, recorded, whole, tmp_path):
    beside = Place(recorded, tmp_path / "beside", whole)
    with held(place, helper):
        assert beside.run().done == 3
        beside.check_end()


@pytest.mark.parametrize("seed", range(20 if FULL else 1))
def test_two_jobs_at_once(place, take, helper, seed):
    """One works, or one after the other if they are not quite at once: but never both."""
    one, other = (helper, take())[:: 1 if seed % 2 else -1]
    for process in (one, other):
        process.warm_up()
    place.begin(one)
    place.begin(other)
    ended = [one.answer(), other.answer()]
    done = sum(job.outcomes.count("done") for job in ended)
    assert done == 3
    for job, holder in zip(ended, (other, one), strict=True):
        if job.error:
            assert job.error == "JobError", job.trace
            assert str(holder.pid) in job.message
    place.check_end()


def test_a_lock_whose_holder_was_killed_is_none(place, take):
    """Nor if a process with its number lives again."""
    killed = take()
    assert place.begin(killed, before=60).end().code == -signal.SIGKILL
    named = [path for path in small_files(place) if str(killed.pid) in path.read_text(errors="replace")]
    for path in named:
        path.write_text(path.read_text().replace(str(killed.pid), str(os.getppid())))
    place.mend()


def small_files(place: Place) -> list[Path]:
    roots = (place.ready.parent.parent, place.out)
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return [path for path in files if path.stat().st_size < 2_000]


# --- readers


class Reader(threading.Thread):
    """Scans a dataset again and again, and finds no torn part and no row more than there is in the end."""

    def __init__(self, out: Path, whole: Path) -> None:
        super().__init__(daemon=True)
        self.out = out
        self.rows = {table: Counter(frame.hash_rows()) for table, frame in jobs.tables(whole).items()}
        self.columns = {table: frame.columns for table, frame in jobs.tables(whole).items()}
        self.scans = 0
        self.partial = 0
        self.error: BaseException | None = None
        self._ends = threading.Event()

    def run(self) -> None:
        try:
            while not self._ends.wait(0.01):
                self._scan()
                self.scans += 1
        except BaseException as error:
            self.error = error

    def _scan(self) -> None:
        for table, rows in self.rows.items():
            if next((self.out / table).rglob("part_*.parquet"), None) is None:
                continue
            frame = cb.scan_dataset(self.out, table, segment=True).select(self.columns[table]).collect()
            assert Counter(frame.hash_rows()) <= rows, f"{table} has rows that it does not have in the end"
            self.partial += frame.height < rows.total()

    def wait_for_scans(self, more: int = 2) -> None:
        """Wait until it has scanned so many times more from the beginning to the end."""
        until = self.scans + more
        wait_for(lambda: self.error is not None or self.scans >= until, "the reader hangs")
        assert self.error is None, self.error

    def end(self) -> None:
        self._ends.set()
        self.join(PATIENCE)


def test_a_reader_never_sees_anything_in_part(place, take, helper):
    """Neither while jobs run and are killed, nor in between."""
    dice = random.Random(1)
    reader = Reader(place.out, place.whole)
    reader.start()
    try:
        for before in sorted(dice.sample(range(40, 140), 5 if FULL else 1)):
            killed = place.begin(take(), before=before).end().code == -signal.SIGKILL
            assert killed or FULL  # the later ones may find little to be done
            reader.wait_for_scans()
        ended = place.begin(helper).answer()
        assert ended.error == "", ended.trace
        reader.wait_for_scans()
    finally:
        reader.end()
    assert reader.error is None, reader.error
    assert reader.partial > 0  # or nothing was tried
    place.check_end()


# --- workers that die


@pytest.mark.more
@pytest.mark.parametrize("before", [*range(1, 60), *["any"] * 60] if FULL else [24])
def test_a_worker_that_is_killed(place, helper, before, request):
    """Before a change that it makes, or at a random instant: the job goes on with other workers."""
    if before == "any":
        dice = random.Random(request.node.name)
        place.begin(helper, workers=2)
        wait_for(lambda: workers(helper.pid) or helper.has_ended, "the job hangs")
        time.sleep(dice.uniform(0, 3))
        for worker in list(workers(helper.pid))[:1]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    else:
        place.begin(helper, workers=2, in_worker=(before, "kill", 1))
    ended = helper.answer()
    assert (ended.error, ended.outcomes) == ("", ("done",) * 3), ended.trace
    place.check_end()


@pytest.mark.parametrize("which", [min, max])
def test_a_worker_that_is_killed_when_all_is_written(place, take, which):
    """The job ends all the same; it does not wait for the others for ever.

    One of two idle workers has the lock under which both take their tasks.
    """
    process = place.begin(take(), workers=2, before="^os.rename .*/done/.*/segment_20251127T00", do="stop")
    wait_for(lambda: is_stopped(process.pid), "the job does not get so far")
    os.kill(which(workers(process.pid)), signal.SIGKILL)
    process.signal(signal.SIGCONT)
    ended = process.answer()
    assert (ended.error, ended.outcomes) == ("", ("done",) * 3), ended.trace
    place.check_end()


def test_workers_that_are_killed_whenever_they_begin(place, helper):
    """The job gives up in the end, and nothing is lost."""
    ended = place.begin(helper, workers=2, in_worker=(0, "kill", 50)).answer()
    assert ended.error == "JobError", ended.trace
    place.check()
    place.mend()


@pytest.mark.parametrize("before", [1, 12, 24] if FULL else [24])
def test_workers_that_outlive_their_job_do_not_disturb_the_next(place, take, before):
    """They are stopped while they write; their job is killed; they go on when the next one has ended."""
    process = place.begin(take(), workers=2, in_worker=(before, "stop", 1))
    is_there = lambda: any(map(is_stopped, workers(process.pid)))  # noqa: E731
    wait_for(lambda: is_there() or process.has_ended, "the job hangs")
    assert is_there(), process.answer()
    others = session(process.pid) - {process.pid}
    process.signal(signal.SIGKILL)
    process.end()
    place.mend()
    for other in others & session(process.pid):
        os.kill(other, signal.SIGCONT)
    wait_for(lambda: not session(process.pid), "workers live on without their job", 30)
    jobs.same_dataset(place.out, place.whole)


# --- a task that runs twice at once

AGAIN = "begun again"


class Doubles(ThreadPoolExecutor):
    """Begins a segment's task a second time when it has written; what the first one gave is what counts.

    So does a cluster that takes a worker for lost which is not. The second one removes what the first wrote,
    as if that had been killed. It ends before the first one is told of; or, `held`, it begins to write when
    it is let go.
    """

    def __init__(self, segment: str, out: Path, *, held: bool) -> None:
        super().__init__(1)
        self.segment, self.out, self.held = segment, out, held
        self.others = ThreadPoolExecutor(1, AGAIN)
        self.again: Future[Any] | None = None
        self.is_held, self.goes_on = threading.Event(), threading.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def twice() -> Any:
            told = fn(*args, **kwargs)
            if self.again is None and drafts(self.out, self.segment):
                self.again = again = self.others.submit(fn, *args, **kwargs)
                wait_for(lambda: self.is_held.is_set() or again.done(), "the second one hangs")
            return told

        return super().submit(twice)

    def hold(self) -> None:
        """Hold the second one, if this is it."""
        if self.held and threading.current_thread().name.startswith(AGAIN):
            self.is_held.set()
            assert self.goes_on.wait(PATIENCE)

    def let_go(self) -> None:
        self.goes_on.set()
        self.others.shutdown()


def drafts(out: Path, segment: str) -> list[Path]:
    return list(out.rglob(f".part_{segment}.*.tmp"))


@pytest.mark.parametrize(("nth", "held"), [(0, False), (0, True), (1, False), (1, True)])
def test_a_task_that_runs_twice_at_once(place, monkeypatch, nth, held):
    """The job is broken off, as parts that it was told of are gone; the next one ends well.

    Of the first segment nothing is in the dataset; the second one was claimed by a job before.
    """
    name = sorted(place.names)[nth]
    if nth:
        claimed = jobs.beside(place.ready, "processing")
        claimed.mkdir(parents=True)
        (place.ready / name).rename(claimed / name)
    segment, follow = Path(name).stem, Follower.__call__
    with Doubles(segment, place.out, held=held) as executor:

        def held_up(follower: Follower, rows: pl.DataFrame | None) -> pl.DataFrame:
            executor.hold()
            return follow(follower, rows)

        monkeypatch.setattr(Follower, "__call__", held_up)
        try:
            with pytest.raises(cb.DatasetError, match=rf"/\.part_{segment}\..*: No such file"):
                place.run(executor=executor, workers=1)
            place.check()
            assert len(jobs.manifests(place.out)) == nth
            place.mend()
        finally:
            executor.let_go()
    assert bool(drafts(place.out, segment)) is held  # it has written when all was done
    assert place.run().segments.is_empty()
    place.check_end()
