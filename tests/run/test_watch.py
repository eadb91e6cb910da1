"""A folder is watched: what comes is worked, and a signal ends it with nothing lost and nothing in hand."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jobs
import pytest
import timeline
import wire

import cbtools as cb

TESTS = str(Path(jobs.__file__).parent)
PROGRAM = "from cbtools.cli import main; main()"
FULL = bool(os.environ.get("CBTOOLS_FULL"))
STOPS = [(signal.SIGTERM, 1), (signal.SIGINT, 2)]
STOPS += [(signal.SIGINT, 1), (signal.SIGTERM, 2)] if FULL else []
LIVELINESS = 120
"""Seconds after which what should come is taken to be missing."""
QUICK = ("--poll-seconds", "0.02")


# --- recordings


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Path:
    """Record six segments whose books rest on one another, with a reconnect, gaps, bad lines and repeats."""
    ready = jobs.recording(
        tmp_path_factory.mktemp("recording"),
        megabytes=0.6,
        segment_mb=0.1,
        reconnects=1,
        gaps=2,
        duplicates=3,
    )
    assert len(list(ready.iterdir())) >= 6
    return ready


@pytest.fixture(scope="module")
def names(ready) -> list[str]:
    return sorted(path.name for path in ready.iterdir())


@pytest.fixture(scope="module")
def one_after_another(ready, tmp_path_factory) -> Path:
    """Run the segments one by one, without a job."""
    out = tmp_path_factory.mktemp("segments")
    for path in sorted(ready.iterdir()):
        cb.run_segment(path, out)
    return out


@pytest.fixture(scope="module")
def whole(ready, tmp_path_factory) -> Path:
    """Run all of it as one job."""
    folder = tmp_path_factory.mktemp("whole")
    cb.run_job(jobs.copy_of(ready, folder), folder / "out", progress=False)
    return folder / "out"


@pytest.fixture
def mine(ready, tmp_path) -> Path:
    return jobs.copy_of(ready, tmp_path)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


# --- a process that watches


class Watch:
    """A program in a process group of its own, and what it has printed up to now."""

    def __init__(self, ready: Path, out: Path, *command: str) -> None:
        self.done, self.processing = jobs.beside(ready, "done"), jobs.beside(ready, "processing")
        self.out = out
        self.lines: list[str] = []
        as_users_have = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=as_users_have | {"PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.lines.extend(self._process.stdout)  # each as soon as it is there

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIVELINESS
        while not condition():
            assert self._process.poll() is None, f"it ended, before {what}:\n{self.said}"
            assert time.monotonic() < end, f"not in time: {what}\n{self.said}"
            time.sleep(0.001)

    def until_done(self, *names: str) -> None:
        for name in names:
            self.until((self.done / name).exists, f"{name} is done")

    def signal(self, *numbers: signal.Signals, group: bool = False) -> None:
        for number in numbers:
            (os.killpg if group else os.kill)(self.pid, number)

    def stop_in_hand(self) -> str:
        """Stop it and its workers while a segment is begun and nothing of it published; give its file."""
        while True:
            self.until(lambda: bool(parts_in(self.out, temporary=True)), "it is writing")
            self.signal(signal.SIGSTOP, group=True)
            self._wait_until_stopped()
            written, published = (parts_in(self.out, temporary=temporary) for temporary in (True, False))
            for held in self.processing.glob("[!.]*"):
                if any(held.stem in n for n in written) and not any(held.stem in n for n in published):
                    return held.name
            self.signal(signal.SIGCONT, group=True)

    def _wait_until_stopped(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def end(self, seconds: float = LIVELINESS) -> int:
        """Wait for its end; give its exit code, negative when a signal killed it."""
        code = self._process.wait(seconds)
        self._reader.join(LIVELINESS)
        return code

    def kill(self) -> None:
        if self._process.poll() is None:  # else its number may be another's by now
            self.signal(signal.SIGKILL, group=True)
        self.end()
        assert self._process.stdout is not None
        self._process.stdout.close()


def parts_in(out: Path, *, temporary: bool) -> list[str]:
    """Give the names of the parts that are there, or of those that are being written."""
    names = [name for _, _, files in os.walk(out) for name in files]  # and no matter what vanishes meanwhile
    return fnmatch.filter(names, ".part_*.tmp" if temporary else "part_*.parquet")


@contextlib.contextmanager
def started(ready: Path, out: Path, *command: str) -> Iterator[Watch]:
    watch = Watch(ready, out, *command)
    try:
        yield watch
    finally:
        watch.kill()


def watching(ready: Path, out: Path, *options: str) -> contextlib.AbstractContextManager[Watch]:
    return started(ready, out, PROGRAM, "watch", str(ready), "--out", str(out), *(options or QUICK))


def ended(ready: Path, out: Path, *options: str) -> tuple[int, str]:
    """Let a watch run until it ends by itself; give its exit code and what it said."""
    with watching(ready, out, *options) as watch:
        code = watch.end()
    assert "Traceback" not in watch.said
    return code, " ".join(watch.said.split())


def another_ends_it(
    ready: Path, out: Path, names: list[str], whole: Path, number: signal.Signals | None = None
) -> None:
    """Check that a job takes what is left, or (with a signal) a watch, and that all is as after one run."""
    if number is None:
        cb.run_job(ready, out, progress=False)
    else:
        with watching(ready, out) as watch:
            watch.until_done(*names)
            watch.signal(number)
            assert watch.end() == 0
    jobs.ended_well(ready, out, whole, names=set(names))


# --- what comes


def test_it_takes_what_is_there_and_then_what_comes(mine, out, names, whole, one_after_another, tmp_path):
    active, stems = tmp_path / "raw" / "active" / mine.name, [Path(name).stem for name in names]
    active.mkdir(parents=True)
    for name in names[2:]:
        (mine / name).rename(active / name)
    growing = active / "segment_20251127T01_00001.ndjson"
    growing.write_bytes((mine / names[0]).read_bytes()[:-100])
    before = growing.stat()
    with watching(mine, out) as watch:
        watch.until_done(*names[:2])
        for name in names[2:]:
            (active / name).rename(mine / name)
            watch.until_done(name)
        others = [line for line in watch.lines if not any(stem in line for stem in stems)]
        assert len(others) <= 3, "a line a segment, and no heartbeat yet"
        watch.signal(signal.SIGTERM)
        assert watch.end() == 0
    assert "Traceback" not in watch.said
    jobs.ended_well(mine, out, whole, names=set(names))
    jobs.same_rows(jobs.tables(out), jobs.tables(one_after_another))
    after = growing.stat()
    assert [path.name for path in active.iterdir()] == [growing.name]
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )


def test_what_it_knows_and_what_cannot_be_read_do_not_stop_it(mine, out, names, whole, tmp_path):
    known, bad = "segment_20260101T00_00001", "segment_20260101T00_00002"
    later, aside = tmp_path / names[-1], tmp_path / "aside"
    (mine / names[-1]).rename(later)
    with watching(mine, out) as watch:
        watch.until_done(*names[:-1])
        aside.write_bytes((jobs.beside(mine, "done") / names[0]).read_bytes())
        aside.rename(mine / f"{known}.ndjson")
        aside.write_bytes(b"no line\nof these\nis understood\n")
        aside.rename(mine / f"{bad}.ndjson")
        told = jobs.beside(mine, "failed") / f"{bad}.ndjson.error.txt"
        watch.until(told.exists, "the bad one is put aside")
        later.rename(mine / names[-1])
        watch.until_done(names[-1], f"{known}.ndjson")
        watch.signal(signal.SIGTERM)
        watch.end()
    places = jobs.places(mine)
    assert places.pop(f"{known}.ndjson") == ["done"]
    assert places.pop(f"{bad}.ndjson") == places.pop(told.name) == ["failed"]
    assert places == {name: ["done"] for name in names}
    assert jobs.leftovers(mine, out) == []
    jobs.same_dataset(out, whole)
    for segment, outcome in ((known, "skipped"), (bad, "failed")):
        assert outcome in next(line for line in watch.lines if segment in line)


def test_the_heart_beats_while_nothing_comes_and_a_signal_wakes_it(mine, out, names):
    with watching(mine, out, "--poll-seconds", "3600", "--heartbeat-seconds", "0.1") as watch:
        watch.until_done(*names)

        def beats() -> list[str]:
            return [line for line in watch.lines if not any(Path(name).stem in line for name in names)]

        before = len(beats())
        watch.until(lambda: len(beats()) >= before + 3, "the heart beats")
        watch.signal(signal.SIGTERM)
        assert watch.end() == 0


# --- it is stopped


@pytest.mark.parametrize(("number", "workers"), STOPS, ids=str)
def test_a_signal_lets_it_finish_what_is_in_hand(mine, out, names, whole, number, workers):
    """With two workers they get the signal too, as from a terminal or from systemd."""
    with watching(mine, out, *QUICK, "--workers", str(workers)) as watch:
        held = watch.stop_in_hand()
        watch.signal(number, group=workers > 1)
        watch.signal(signal.SIGCONT, group=True)
        assert watch.end() == 0
    assert "Traceback" not in watch.said
    places = jobs.places(mine)
    assert places.keys() == set(names)
    assert set(map(tuple, places.values())) <= {("ready",), ("done",)}
    assert places[held] == ["done"]
    assert set(jobs.manifests(out)) == {Path(name).stem for name in names if places[name] == ["done"]}
    jobs.partly(out, jobs.parts(whole))
    another_ends_it(mine, out, names, whole, number if number == signal.SIGTERM else None)


@pytest.mark.parametrize("workers", [1, 2] if FULL else [1])
def test_a_second_signal_gives_back_what_is_in_hand(mine, out, names, whole, workers):
    with watching(mine, out, *QUICK, "--workers", str(workers)) as watch:
        held = watch.stop_in_hand()
        watch.signal(signal.SIGINT, signal.SIGTERM, group=workers > 1)
        watch.signal(signal.SIGCONT, group=True)
        assert watch.end() == 0
    assert "Traceback" not in watch.said
    places = jobs.places(mine)
    assert places.keys() == set(names)
    assert set(map(tuple, places.values())) <= {("ready",), ("done",)}
    assert places[held] == ["ready"]
    jobs.partly(out, jobs.parts(whole))
    another_ends_it(mine, out, names, whole)


def test_one_that_is_killed_leaves_no_lock_and_the_next_one_ends_well(mine, out, names, whole):
    with watching(mine, out) as watch:
        watch.stop_in_hand()
        watch.signal(signal.SIGKILL, group=True)
        assert watch.end() == -signal.SIGKILL
    another_ends_it(mine, out, names, whole)


# --- what it cannot work with


def test_another_job_has_the_folder_or_the_output(mine, out, names, whole, ready, tmp_path):
    """And the one that has it sleeps meanwhile, from which a signal wakes it."""
    other = jobs.copy_of(ready, tmp_path / "other")
    with watching(mine, out, "--poll-seconds", "3600", "--heartbeat-seconds", "3600") as watch:
        watch.until_done(*names)
        watch.until(lambda: all(Path(name).stem in watch.said for name in names), "it says so at once")
        for input_dir, output_dir in [(mine, tmp_path / "elsewhere"), (other, out)]:
            code, said = ended(input_dir, output_dir)
            assert code == 75
            assert re.search(rf"\b{watch.pid}\b", said), "it says who has it"
        watch.signal(signal.SIGTERM)
        assert watch.end() == 0
    assert jobs.places(other) == {name: ["ready"] for name in names}
    jobs.ended_well(mine, out, whole, names=set(names))


@pytest.mark.parametrize("folder", ["raw/ready/none", "raw/active/coinbase"])
def test_a_folder_that_cannot_be_meant(mine, out, names, tmp_path, folder):
    active = tmp_path / "raw" / "active" / "coinbase"
    active.mkdir(parents=True)
    (mine / names[0]).rename(active / names[0])
    code, said = ended(tmp_path / folder, out)
    assert code == 78
    assert str(tmp_path / folder) in said
    assert [path.name for path in active.iterdir()] == [names[0]]


@pytest.mark.parametrize("file", ["out", "out/level2"])
def test_an_output_that_cannot_be_written_and_the_watch_after_it(mine, out, names, whole, tmp_path, file):
    in_the_way = tmp_path / file
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("in the way")
    code, said = ended(mine, out)
    assert code == 74
    assert str(out) in said
    places = jobs.places(mine)
    assert places.keys() == set(names)
    assert set(map(tuple, places.values())) <= {("ready",), ("processing",)}
    assert in_the_way.read_text() == "in the way"
    in_the_way.unlink()
    another_ends_it(mine, out, names, whole)


# --- the function


CALLED = """
import json, os, signal, sys
import cbtools as cb

before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
lines = []

def log(line):
    lines.append(line)
    if len([line for line in lines if "segment_" in line]) == 2:
        os.kill(os.getpid(), signal.SIGTERM)

report = cb.watch_job(sys.argv[1], sys.argv[2], poll_seconds=0.02, heartbeat_seconds=3600, log=log)
after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
told = {"segments": report.segments["segment"].to_list(), "outcomes": report.segments["outcome"].to_list()}
print(json.dumps(told | {"done": report.done, "lines": lines, "as before": before == after}))
"""


def test_the_report_is_of_the_whole_watch(mine, out, names, whole):
    """It is stopped after the second segment: what is in hand then is done, the others are not touched."""
    with started(mine, out, CALLED, str(mine), str(out)) as watch:
        assert watch.end() == 0, watch.said
    told = json.loads(watch.lines[-1])
    stems, done = [Path(name).stem for name in names], told["done"]
    assert 2 <= done < len(names)
    assert told["segments"] == stems[:done]
    assert told["outcomes"] == ["done"] * done
    assert told["as before"], "the handlers of signals are as before"
    assert len(watch.lines) == 1, "what it has to say goes to log"
    for stem in stems:
        assert sum(stem in line for line in told["lines"]) == (stem in stems[:done])
    assert jobs.places(mine) == {name: ["done" if name in names[:done] else "ready"] for name in names}
    another_ends_it(mine, out, names, whole)


AT_INSTANTS = """
import contextlib, os, signal, sys
from pathlib import Path

import jobs

import cbtools as cb

ready, whole, folder = map(Path, sys.argv[1:4])
signals, every = map(int, sys.argv[4:])
names = {path.name for path in ready.iterdir()}
place, changes, at = None, [], 0

def changed(event, arguments):
    writes = event == "open" and arguments[2] & os.O_CREAT
    if place is None or not writes and event not in ("os.rename", "os.remove", "os.mkdir"):
        return
    path = Path(os.fsdecode(arguments[0]))
    if path.is_relative_to(place) and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        changes.append(path.relative_to(place).parts[:2])
        if len(changes) == at:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)

def watch(name):
    global place
    mine, done = jobs.copy_of(ready, folder / name), set()

    def log(line):
        done.update(name for name in names if Path(name).stem in line)
        if done == names:
            done.clear()
            os.kill(os.getpid(), signal.SIGTERM)

    changes.clear()
    place = folder / name
    with contextlib.suppress(KeyboardInterrupt):
        cb.watch_job(mine, place / "out", poll_seconds=0.01, log=log)
    place = None
    return mine

sys.addaudithook(changed)
watch("all")
first_of_each_folder = {changes.index(change) + 1 for change in changes}
instants = range(1, len(changes) + 1) if every else sorted(first_of_each_folder)
for at in instants:
    try:
        mine, out = watch(str(at)), folder / str(at) / "out"
        places = jobs.places(mine)
        assert places.keys() == names, places
        allowed = ["ready", "done", "processing"] if signals > 1 else ["ready", "done"]
        assert all(len(folders) == 1 and folders[0] in allowed for folders in places.values()), places
        cb.run_job(mine, out, progress=False)
        jobs.ended_well(mine, out, whole, names=names)
    except BaseException as error:
        raise AssertionError(f"signals at change {at}") from error
print(len(instants))
"""


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2] if FULL else [2])
def test_signals_at_any_instant(tmp_path, signals):
    """At the first change of each folder, and with --full at every change.

    A second one cuts anything off: what is published in part then stays claimed, for the next job.
    """
    ready = jobs.recording(tmp_path / "recording")
    names = {path.name for path in ready.iterdir()}
    mine, whole = jobs.copy_of(ready, tmp_path / "whole"), tmp_path / "whole" / "out"
    cb.run_job(mine, whole, progress=False)
    jobs.ended_well(mine, whole, whole, names=names)
    arguments = [ready, whole, tmp_path / "watched", signals, int(FULL)]
    with started(ready, whole, AT_INSTANTS, *map(str, arguments)) as watch:
        assert watch.end(3600) == 0, watch.said
    assert int(watch.lines[-1]) > (60 if FULL else 6)


IN_A_THREAD = """
import os, signal, sys, threading, time
import cbtools as cb

threading.Thread(target=cb.watch_job, args=sys.argv[1:3], kwargs={"poll_seconds": 0.02}, daemon=True).start()
while len(os.listdir(sys.argv[3])) < int(sys.argv[4]):
    time.sleep(0.01)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_in_a_thread_it_leaves_the_signals_alone(mine, out, names, whole):
    done = jobs.beside(mine, "done")
    done.mkdir(parents=True)
    with started(mine, out, IN_A_THREAD, str(mine), str(out), str(done), str(len(names))) as watch:
        assert watch.end() == -signal.SIGTERM, watch.said
    jobs.ended_well(mine, out, whole, names=set(names))


# --- on and on


def little(number: int) -> bytes:
    """Write a segment of one snapshot, of 400 levels a side."""
    sides = [("bid", -1), ("offer", 1)]
    levels = [wire.update(side, str(5000 + sign * k), "1") for side, sign in sides for k in range(1, 401)]
    frame = wire.l2(number, wire.book("BTC-USD", *levels, kind="snapshot"))
    return wire.segment(timeline.received(frame, number))


def resident(pid: int) -> int:
    """Give the memory that a process holds, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read in /proc")
def test_memory_stays_as_it_is(tmp_path, full):
    """Of a thousand segments (with --full) the first third warm it up; the report's rows are all it keeps."""
    count = 1_000 if full else 30
    ready, out, aside = tmp_path / "raw" / "ready" / "coinbase", tmp_path / "out", tmp_path / "aside"
    ready.mkdir(parents=True)
    aside.mkdir()
    held = []
    with watching(ready, out, "--poll-seconds", "0.01") as watch:
        for number in range(count):
            path = aside / f"segment_20260304T05_{number:05d}.ndjson"
            path.write_bytes(little(number))
            path.rename(ready / path.name)
            if number % 5 == 4:
                watch.until_done(path.name)
                held.append(resident(watch.pid))
        watch.signal(signal.SIGTERM)
        assert watch.end() == 0
    assert set(map(tuple, jobs.places(ready).values())) == {("done",)}
    assert len(jobs.manifests(out)) == count
    warm = held[len(held) // 3 :]
    assert max(warm) <= warm[0] + 60 + count // 10, held
