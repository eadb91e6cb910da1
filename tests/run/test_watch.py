"""A folder is watched: what comes is worked, and a signal ends it with nothing lost and nothing in hand."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import jobs
import pytest
import timeline
import wire
from job_watch import QUICK, ended, started, watching
from tiers import FULL

import cbtools as cb

pytestmark = pytest.mark.ci

STOPS = [(signal.SIGTERM, 2)]
STOPS += [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)] if FULL else []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return jobs.long_recording(tmp_path_factory.mktemp("recording"))


def all_in(ready: Path, names: list[str], *folders: str) -> dict[str, list[str]]:
    """Check that each source file is in one of these folders; tell where each is."""
    places = jobs.places(ready)
    assert places.keys() == set(names)
    assert set(map(tuple, places.values())) <= {(folder,) for folder in folders}
    return places


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
    jobs.ended_well(ready, out, whole, names=names)


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
    jobs.ended_well(mine, out, whole, names=names)
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
    places = all_in(mine, names, "ready", "done")
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
    places = all_in(mine, names, "ready", "done")
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


def test_another_job_has_the_folder_or_the_output(mine, out, names, whole, recorded, tmp_path):
    """And the one that has it sleeps meanwhile, from which a signal wakes it."""
    other = jobs.copy_of(recorded, tmp_path / "other")
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
    jobs.ended_well(mine, out, whole, names=names)


@pytest.mark.parametrize("folder", ["raw/ready/none", "raw/active/coinbase"])
def test_a_folder_that_cannot_be_meant(mine, out, names, tmp_path, folder):
    active = tmp_path / "raw" / "active" / "coinbase"
    active.mkdir(parents=True)
    (mine / names[0]).rename(active / names[0])
    code, said = ended(tmp_path / folder, out)
    assert code == 78
    assert str(tmp_path / folder) in said
    assert [path.name for path in active.iterdir()] == [names[0]]


@pytest.mark.parametrize("file", [".", "level2"])
def test_an_output_that_cannot_be_written_and_the_watch_after_it(mine, out, names, whole, file):
    in_the_way = out / file
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("in the way")
    code, said = ended(mine, out)
    assert code == 74
    assert str(out) in said
    all_in(mine, names, "ready", "processing")
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


@pytest.mark.more
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
    jobs.ended_well(mine, out, whole, names=names)


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


@pytest.mark.more
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read in /proc")
def test_memory_stays_as_it_is(tmp_path, ready, out):
    """Of a thousand segments (with --full) the first third warm it up; the report's rows are all it keeps."""
    count = 1_000 if FULL else 30
    aside = tmp_path / "aside"
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
