"""Jobs in a hostile place: disks that are full or read-only, other jobs, readers, workers that die.

Whatever it was: when it is mended, running again ends with the dataset of a run undisturbed.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jobs
import pytest
from jobs import Ended, Process

import cbtools as cb

resource = pytest.importorskip("resource", reason="there are no limits to set")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched by way of /proc")

FULL = bool(os.environ.get("CBTOOLS_FULL"))
STRIDES = 20 if FULL else 2


class Place:
    """A copy of the recording, with an output folder."""

    def __init__(self, recorded: Path, folder: Path, whole: Path) -> None:
        self.whole = whole
        self.names = {path.name for path in recorded.iterdir()}
        self.ready, self.out = jobs.copy_of(recorded, folder), folder / "out"

    def begin(self, process: Process, **how: Any) -> Process:
        return process.begin(self.ready, self.out, **how)

    def run(self, **options: Any) -> cb.JobReport:
        return cb.run_job(self.ready, self.out, progress=False, **options)

    def check(self) -> None:
        """Check that nothing is there in part or twice, and no source is lost, nor taken to be bad."""
        jobs.partly(self.out, jobs.parts(self.whole))
        known = {manifest["source"]["name"] for manifest in jobs.manifests(self.out).values()}
        places = jobs.places(self.ready)
        assert places.keys() == self.names
        for name, where in places.items():
            assert where in (["ready"], ["processing"], ["done"])
            assert where != ["done"] or name in known

    def check_end(self) -> None:
        """Check that all is as if nothing had been."""
        jobs.ended_well(self.ready, self.out, self.whole, names=self.names)

    def mend(self) -> None:
        """Run it again, and check that all is as if nothing had been."""
        assert set(self.run().segments["outcome"]) <= {"done", "skipped"}
        self.check_end()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return jobs.recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def whole(recorded, tmp_path_factory) -> Path:
    """Run it undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    cb.run_job(jobs.copy_of(recorded, folder), folder / "out", progress=False)
    return folder / "out"


@pytest.fixture(scope="module")
def take(recorded) -> Iterator[Callable[[], Process]]:
    with jobs.spares(recorded) as take:
        yield take


@pytest.fixture(scope="module")
def helper(take) -> Process:
    """Give a process for runs that end by themselves."""
    return take()


@pytest.fixture
def place(recorded, whole, tmp_path) -> Place:
    return Place(recorded, tmp_path, whole)


def is_dataset_error(ended: Ended, *words: str) -> None:
    assert ended.error == "DatasetError", ended.trace or "there was no error"
    for word in words:
        assert word in ended.message


# --- the output cannot be written


@pytest.fixture(scope="module")
def changes(recorded, whole, helper, tmp_path_factory) -> dict[str, tuple[jobs.Change, ...]]:
    """Give the changes of a run undisturbed: of the output alone, and of the recording's folders, too."""
    found = {}
    for where in ("out", "all"):
        place = Place(recorded, tmp_path_factory.mktemp("counted"), whole)
        found[where] = place.begin(helper, where=where).answer().changes
        place.check_end()
    return found


def some_of(changes: tuple[jobs.Change, ...], nth: int) -> Sequence[int | str]:
    """Give numbers of changes, each in strides. By default one, and first that which is critical.

    That is where the second segment has its manifest, and not its state yet.
    """
    if FULL:
        return range(1 + nth, len(changes) + 1, STRIDES)
    return [1 + nth * len(changes) // STRIDES] if nth else ["^fsync .*/_state/[^/]*23_00002[^/]*$"]


@pytest.mark.slow
@pytest.mark.parametrize("nth", range(STRIDES))
@pytest.mark.parametrize(("do", "where"), [("full", "out"), ("read-only", "out"), ("full", "all")])
def test_a_disk_that_fails_from_any_change_on(recorded, whole, helper, changes, tmp_path, do, where, nth):
    """It is no segment's fault: nothing goes to failed, and all that was claimed stays or is given back."""
    for run, number in enumerate(some_of(changes[where], nth)):
        place = Place(recorded, tmp_path / str(run), whole)
        ended = place.begin(helper, before=number, do=do, where=where).answer()
        if ended.error or not FULL:  # what fails at the very end may be no harm
            is_dataset_error(ended, os.strerror(errno.ENOSPC if do == "full" else errno.EROFS))
        place.check()
        place.mend()


@pytest.mark.slow
@pytest.mark.parametrize("nth", range(STRIDES))
def test_a_job_interrupted_before_any_change(recorded, whole, helper, changes, tmp_path, nth):
    """As by Ctrl-C: it may give back what it has claimed, and nothing is lost."""
    for run, number in enumerate(some_of(changes["all"], nth)):
        place = Place(recorded, tmp_path / str(run), whole)
        ended = place.begin(helper, before=number, do="interrupt").answer()
        assert ended.error in ("KeyboardInterrupt", ""), ended.trace
        place.check()
        place.mend()


@contextmanager
def limited(process: Process, size: int) -> Iterator[None]:
    """Limit the size of the files that a process writes."""
    was = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, was[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, was)


@pytest.mark.parametrize(("size", "workers"), [(0, 1), (20_000, 1), (10_000, 2)])
def test_files_that_cannot_grow(place, helper, size, workers):
    """A limit on the size of files fails as a full disk does, wherever files are written."""
    with limited(helper, size):
        ended = place.begin(helper, workers=workers).answer()
    is_dataset_error(ended)
    place.check()
    place.mend()


@pytest.mark.parametrize(
    "blocked", ["", "book", "level2/product_id=ETH-USD", "_quarantine", "_runs", "_state"]
)
def test_a_file_where_a_folder_should_be(place, blocked):
    in_the_way = place.out / blocked
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("in the way")
    with pytest.raises(cb.DatasetError) as caught:
        place.run()
    assert str(place.out) in str(caught.value)
    in_the_way.unlink()
    place.check()
    place.mend()


@pytest.fixture(scope="module")
def apart(recorded, tmp_path_factory) -> Iterator[Process]:
    """Give a process that sees disks that nobody else sees."""
    within = ["unshare", "--map-root-user", "--mount"]
    probe = [*within, "mount", "-t", "tmpfs", "none", str(tmp_path_factory.mktemp("probe"))]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here: it needs root, or namespaces for users")
    process = Process(recorded, within)
    yield process
    process.close()


def mount(out: Path, options: str) -> str:
    """Write the statements that mount a disk in memory at the output folder, or mount it anew."""
    out.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(out)]
    return f"import subprocess; subprocess.run({command}, check=True)"


def look_into(place: Place, process: Process) -> None:
    """See the output folder as the process sees it."""
    place.out = Path(f"/proc/{process.pid}/root{place.out}")


@pytest.mark.parametrize("size", ["100k", "320k"])
def test_a_small_disk(place, apart, size):
    """It is full in the first segment, or when that is done."""
    out = place.out
    is_dataset_error(place.begin(apart, first=mount(out, f"size={size}")).answer(), os.strerror(errno.ENOSPC))
    look_into(place, apart)
    place.check()
    if size == "320k":
        assert list(jobs.manifests(place.out)) == ["segment_20251126T23_00001"]
    mended = apart.begin(place.ready, out, first=mount(out, "remount,size=32m")).answer()
    assert mended.error == "", mended.trace
    place.check_end()


@pytest.mark.parametrize("done", [0, 1])
def test_a_disk_that_is_read_only(place, apart, done):
    """It is when the job begins; or it becomes so (as ext4 does after an error) when a segment is done."""
    out, later = place.out, sorted(path.name for path in place.ready.iterdir())[done:]
    aside = place.ready.with_name("aside")
    aside.mkdir()
    for name in later:
        (place.ready / name).rename(aside / name)
    assert place.begin(apart, first=mount(out, "size=32m")).answer().error == ""
    for name in later:
        (aside / name).rename(place.ready / name)
    refused = place.begin(apart, first=mount(out, "remount,ro")).answer()
    is_dataset_error(refused, os.strerror(errno.EROFS))
    mended = place.begin(apart, first=mount(out, "remount,rw")).answer()
    assert mended.error == "", mended.trace
    look_into(place, apart)
    place.check_end()


# --- other jobs


@contextmanager
def held(place: Place, process: Process, before: int = 60) -> Iterator[Process]:
    """Have a job stop in the middle; afterwards it goes on, and is to end well."""
    place.begin(process, before=before, do="stop")
    jobs.wait_for(lambda: jobs.is_stopped(process.pid), "the job does not get so far")
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
        jobs.wait_for(lambda: self.error is not None or self.scans >= until, "the reader hangs")
        assert self.error is None, self.error

    def end(self) -> None:
        self._ends.set()
        self.join(jobs.PATIENCE)


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


@pytest.mark.slow
@pytest.mark.parametrize("before", [*range(1, 60), *["any"] * 60] if FULL else [24])
def test_a_worker_that_is_killed(place, helper, before, request):
    """Before a change that it makes, or at a random instant: the job goes on with other workers."""
    if before == "any":
        dice = random.Random(request.node.name)
        place.begin(helper, workers=2)
        jobs.wait_for(lambda: jobs.workers(helper.pid) or helper.has_ended, "the job hangs")
        time.sleep(dice.uniform(0, 3))
        for worker in list(jobs.workers(helper.pid))[:1]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    else:
        place.begin(helper, workers=2, in_worker=(before, "kill", 1))
    ended = helper.answer()
    assert (ended.error, ended.outcomes) == ("", ("done",) * 3), ended.trace
    place.check_end()


def test_a_worker_that_is_killed_when_all_is_written(place, take):
    """The job ends all the same; it does not wait for the others for ever."""
    process = place.begin(take(), workers=2, before="^os.rename .*/done/.*/segment_20251127T00", do="stop")
    jobs.wait_for(lambda: jobs.is_stopped(process.pid), "the job does not get so far")
    os.kill(max(jobs.workers(process.pid)), signal.SIGKILL)
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
    is_there = lambda: any(map(jobs.is_stopped, jobs.workers(process.pid)))  # noqa: E731
    jobs.wait_for(lambda: is_there() or process.has_ended, "the job hangs")
    assert is_there(), process.answer()
    others = jobs.session(process.pid) - {process.pid}
    process.signal(signal.SIGKILL)
    process.end()
    place.mend()
    for other in others & jobs.session(process.pid):
        os.kill(other, signal.SIGCONT)
    jobs.wait_for(lambda: not jobs.session(process.pid), "workers live on without their job", 30)
    jobs.same_dataset(place.out, place.whole)
