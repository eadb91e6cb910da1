"""A job killed at any instant: what readers see then is whole, and the next run ends as if nothing had been.

With ``--ci`` some instants of each kind; with ``--full`` every change of the file system, and random ones.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jobs
import polars as pl
import pytest
from job_process import Process, session, wait_for
from job_program import Change
from tiers import FULL

import cbtools as cb

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are watched by way of /proc"),
]

STRIDES = 20 if FULL else 2
INSTANTS = range(200 if FULL else 1)
STEPS = ("claim", "first part", "last part", "quarantine", "manifest", "state", "release")


# --- an undisturbed run


@dataclass(frozen=True)
class Undisturbed:
    """A recording, and what a run of it makes when nothing happens."""

    ready: Path
    out: Path
    changes: dict[bool, tuple[Change, ...]]
    seconds: float

    @cached_property
    def names(self) -> set[str]:
        return {path.name for path in self.ready.iterdir()}

    @cached_property
    def parts(self) -> dict[str, pl.DataFrame]:
        return jobs.parts(self.out)

    @cached_property
    def checksums(self) -> dict[str, str]:
        return jobs.checksums(self.ready)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Simulate a recording in which a gap and a reconnect break the books."""
    return jobs.recording(tmp_path_factory.mktemp("recording"), gaps=1, reconnects=1)


@pytest.fixture(scope="module")
def whole(recorded, take, tmp_path_factory) -> Undisturbed:
    """Run it as it is, once with the sources kept and once with them deleted, and write the changes down."""
    process, changes, seconds = take(), {}, 0.0
    for delete in (True, False):
        folder = tmp_path_factory.mktemp("whole")
        ready, out = jobs.copy_of(recorded, folder), folder / "out"
        ended = process.begin(ready, out, delete_after_processing=delete).answer()
        assert (ended.error, ended.outcomes) == ("", ("done",) * 3), ended.trace
        changes[delete] = tuple(relative(change, folder) for change in ended.changes)
        seconds = ended.seconds
    return Undisturbed(recorded, out, changes, seconds)


def relative(change: Change, folder: Path) -> Change:
    """Give paths as they stand in the folder of the recording and the output."""
    event, *paths = change
    return (event, *(Path(path).relative_to(folder).as_posix() for path in paths))


def test_books_go_on_from_segment_to_segment_and_there_is_quarantine(whole):
    """Or the tests below would show little."""
    cb.run_segment(max(whole.ready.iterdir()), alone := whole.out.with_name("alone"))
    book = jobs.tables(whole.out)["book"].filter(segment=max(whole.names).split(".")[0])
    assert book["book_state"].null_count() == 0 < book.height
    assert jobs.tables(whole.out)["level2"]["side"].null_count() >= 4  # markers of breaks
    assert "book" not in jobs.tables(alone)
    assert len(jobs.quarantine(whole.out)) == 1
    assert jobs.leftovers(whole.out.parent / "raw/ready/coinbase", whole.out) == []
    assert len({Path(path).parent for path in whole.parts}) > 10


# --- the order of the steps


def steps(changes: Sequence[Change], segment: str) -> dict[str, int]:
    """Give the numbers (from 1) of the changes that are a segment's steps."""
    found: dict[str, int] = {}
    for number, (event, *paths) in enumerate(changes, start=1):
        to, file = paths[-1], Path(paths[-1]).name
        if event == "os.rename" and segment in file:
            if "/processing/" in to:
                found["claim"] = number
            elif file == f"part_{segment}.parquet":
                found.setdefault("first part", number)
                found["last part"] = number
            elif to.startswith(("out/_quarantine/", "out/_runs/", "out/_state/")):
                kind = {"_quarantine": "quarantine", "_runs": "manifest", "_state": "state"}
                found[kind[to.split("/")[1]]] = number
            elif "/done/" in to:
                found["release"] = number
        elif event == "os.remove" and "/processing/" in to and segment in file:
            found["release"] = number
    return found


@pytest.mark.parametrize("delete", [False, True])
def test_each_step_comes_after_the_one_before_it(whole, delete):
    for name in sorted(whole.names):
        segment = name.split(".")[0]
        found = steps(whole.changes[delete], segment)
        expected = [step for step in STEPS if step != "quarantine" or segment.endswith("23_00002")]
        assert sorted(found, key=lambda step: found[step]) == expected


@pytest.mark.parametrize("delete", [False, True])
def test_what_a_step_rests_on_is_on_the_disk_before_it(whole, delete):
    """A power cut forgets what was not synced: files are before their names, names before what follows."""
    changes = whole.changes[delete]
    synced = [paths[0] if event == "fsync" else "" for event, *paths in changes]
    renames = {
        paths[-1]: (number, paths[0])
        for number, (event, *paths) in enumerate(changes)
        if event == "os.rename" and paths[-1].startswith("out/")
    }
    seen = [
        path.relative_to(whole.out.parent).as_posix() for path in whole.out.rglob("*.*") if path.is_file()
    ]
    published = {path for path in seen if not Path(path).name.startswith(".")}
    assert renames.keys() == published
    for path, (number, temporary) in renames.items():
        assert temporary in synced[:number] or path in synced[:number], f"{path} has a name before its bytes"
    for name in whole.names:
        segment = name.split(".")[0]
        found = {step: number - 1 for step, number in steps(changes, segment).items()}
        for path, (number, _) in renames.items():
            if Path(path).name == f"part_{segment}.parquet" or path.startswith("out/_quarantine/" + segment):
                for folder in Path(path).parents[:-2]:  # all those below the output folder
                    until = synced[number : found["manifest"]]
                    assert folder.as_posix() in until, f"{folder} is not synced before the manifest"
        assert "out/_runs" in synced[found["manifest"] : found["release"]]
        assert "out/_state" in synced[found["state"] : found["release"]]


# --- killed, and run again


@dataclass(frozen=True)
class Broken:
    """A copy of the recording whose job was killed."""

    whole: Undisturbed
    ready: Path
    out: Path
    options: dict[str, Any]

    @classmethod
    def make(cls, whole: Undisturbed, folder: Path, **options: Any) -> Broken:
        return cls(whole, jobs.copy_of(whole.ready, folder), folder / "out", options)

    @property
    def delete(self) -> bool:
        return bool(self.options.get("delete_after_processing"))

    def begin(self, process: Process, **how: Any) -> Process:
        return process.begin(self.ready, self.out, **self.options, **how)

    def check(self) -> None:
        """Check what is there after a kill: nothing in part, nothing twice, no source lost."""
        jobs.partly(self.out, self.whole.parts)
        known = {manifest["source"]["sha256"] for manifest in jobs.manifests(self.out).values()}
        places = jobs.places(self.ready)
        assert places.keys() <= self.whole.names
        for name, checksum in self.whole.checksums.items():
            if checksum in known:  # all of it is there, as `partly` has seen
                assert places.get(name) in (["ready"], ["processing"], None if self.delete else ["done"])
            else:
                assert places.get(name) in (["ready"], ["processing"]), f"{name} is gone, and has no manifest"

    def mend(self) -> None:
        """Run it again, undisturbed, and check that all is as if nothing had been."""
        report = cb.run_job(self.ready, self.out, progress=False, **self.options)
        assert set(report.segments["outcome"]) <= {"done", "skipped"}
        jobs.ended_well(self.ready, self.out, self.whole.out, names=self.whole.names, deleted=self.delete)


def crash(broken: Broken, process: Process, before: int | str, *, after: bool = False) -> None:
    """Kill it before a change or after it, and check what is there."""
    assert broken.begin(process, before=before, after=after).end().code == -signal.SIGKILL
    broken.check()


def pattern(changes: Sequence[Change], step: str) -> str:
    """Give the pattern of a step of the second segment."""
    event, *paths = changes[steps(changes, "segment_20251126T23_00002")[step] - 1]
    return f"^{re.escape(event)} .*/{re.escape(paths[-1])}$"


@pytest.mark.parametrize(
    ("when", "step"),
    [
        *(("before", step) for step in ("last part", "manifest", "state", "release")[:: 1 if FULL else 2]),
        ("after", "release"),
    ],
)
def test_killed_at_a_step(whole, take, tmp_path, step, when):
    broken = Broken.make(whole, tmp_path)
    crash(broken, take(), pattern(whole.changes[False], step), after=when == "after")
    broken.mend()


@pytest.mark.slow
def test_killed_before_the_source_is_deleted(whole, take, tmp_path):
    broken = Broken.make(whole, tmp_path, delete_after_processing=True)
    crash(broken, take(), pattern(whole.changes[True], "release"))
    broken.mend()


def test_the_next_job_tidies_up_though_it_writes_other_tables(whole, take, tmp_path):
    broken = Broken.make(whole, tmp_path)
    tables = {table: {} for table in ("level2", "market_trades", "ticker", "subscriptions")}
    process = broken.begin(take(), before="^os.rename .*/part_", channel_config=tables)
    assert process.end().code == -signal.SIGKILL
    assert any("/subscriptions/" in path for path in jobs.leftovers(broken.ready, broken.out))
    broken.mend()


@pytest.mark.more
@pytest.mark.parametrize("nth", range(STRIDES))
@pytest.mark.parametrize("delete", [False, True] if FULL else [False])
def test_killed_before_any_change(whole, take, tmp_path, delete, nth):
    last = len(whole.changes[delete])
    for number in range(1 + nth, last + 1, STRIDES) if FULL else [1 + (2 * nth + 1) * last // (2 * STRIDES)]:
        broken = Broken.make(whole, tmp_path / str(number), delete_after_processing=delete)
        crash(broken, take(), number)
        broken.mend()


@pytest.mark.more
@pytest.mark.parametrize("seed", range(60 if FULL else 1))
def test_killed_again_while_it_recovers(whole, take, tmp_path, seed):
    dice = random.Random(seed)
    broken = Broken.make(whole, tmp_path, delete_after_processing=dice.random() < 0.5)
    last = len(whole.changes[broken.delete])
    for number in (dice.randint(last // 4, last), dice.randint(1, last // 2)):
        ended = broken.begin(take(), before=number).end()
        assert ended.code == -signal.SIGKILL or (ended.code, ended.error) == (0, ""), ended.trace
        broken.check()
    broken.mend()


@pytest.mark.more
@pytest.mark.parametrize("seed", INSTANTS)
def test_killed_at_a_random_instant(whole, take, tmp_path, seed):
    dice = random.Random(seed)
    broken = Broken.make(whole, tmp_path, delete_after_processing=dice.random() < 0.2)
    process = broken.begin(take())
    time.sleep(dice.uniform(0, whole.seconds))
    process.signal(signal.SIGKILL)
    process.end()
    broken.check()
    broken.mend()


# --- what becomes of others than new segments


@pytest.fixture(scope="module")
def odd(recorded, tmp_path_factory) -> Path:
    """Lay out a job of which all things come: the folder has one segment done before, and its raw/ and out/.

    Then: another segment of that one's name, that one again (compressed, under another name), one that is
    no recording, an empty one, and one that goes on from the first.
    """
    folder = tmp_path_factory.mktemp("odd")
    first, second, third = sorted(recorded.iterdir())
    ready = folder / "raw/ready/coinbase"
    ready.mkdir(parents=True)
    shutil.copy(first, ready / "a.ndjson")
    assert cb.run_job(ready, folder / "out", progress=False).done == 1
    shutil.copy(second, ready / "a.ndjson")
    (ready / "z.ndjson.gz").write_bytes(gzip.compress(first.read_bytes()))
    (ready / "bad.ndjson").write_bytes(b"no recording\n")
    (ready / "empty.ndjson").write_bytes(b"")
    shutil.copy(third, ready / "b.ndjson")
    return folder


@dataclass(frozen=True)
class Found:
    """What an odd job leaves when nothing happens, and its changes."""

    out: Path
    places: dict[str, list[str]]
    errors: dict[str, bytes]
    changes: tuple[Change, ...]


def copy_odd(odd: Path, folder: Path) -> tuple[Path, Path]:
    shutil.copytree(odd, folder)
    return folder / "raw/ready/coinbase", folder / "out"


def errors(ready: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in jobs.beside(ready, "failed").glob("*.error.txt")}


def contents(ready: Path) -> Counter[bytes]:
    """Count the files of each content, wherever they are."""
    folders = [ready, *(jobs.beside(ready, name) for name in jobs.FOLDERS[1:])]
    files = [path for folder in folders for path in folder.glob("[!.]*")]
    return Counter(path.read_bytes() for path in files if not path.name.endswith(".error.txt"))


@pytest.fixture(scope="module")
def odd_found(odd, take, tmp_path_factory) -> Found:
    ready, out = copy_odd(odd, tmp_path_factory.mktemp("odd-whole") / "copy")
    ended = take().begin(ready, out).end()
    assert sorted(ended.outcomes) == ["done", "done", "done", "failed", "skipped"], ended.trace
    places = jobs.places(ready)
    assert sorted(places.values()) == [["done"]] * 5 + [["failed"]] * 2
    assert len(jobs.manifests(out)) == 4
    return Found(out, places, errors(ready), ended.changes)


@pytest.mark.more
@pytest.mark.parametrize("nth", range(STRIDES if FULL else 1))
def test_killed_while_other_things_become_of_segments(odd, odd_found, take, tmp_path, nth):
    """Others of its name, ones seen before, bad ones and empty ones end where they belong, and once."""
    last = len(odd_found.changes)
    for number in range(1 + nth, last + 1, STRIDES) if FULL else [last // 2]:
        ready, out = copy_odd(odd, tmp_path / str(number))
        assert take().begin(ready, out, before=number).end().code == -signal.SIGKILL
        jobs.partly(out, jobs.parts(odd_found.out))
        assert contents(ready) == contents(odd / "raw/ready/coinbase")
        cb.run_job(ready, out, progress=False)
        jobs.same_dataset(out, odd_found.out)
        assert contents(ready) == contents(odd / "raw/ready/coinbase")
        assert jobs.places(ready) == odd_found.places
        assert errors(ready).keys() == odd_found.errors.keys()
        assert all(errors(ready).values())
        assert jobs.leftovers(ready, out) == []


# --- with workers


@pytest.mark.more
@pytest.mark.parametrize("seed", INSTANTS)
@pytest.mark.parametrize("killed", ["the job alone", "all at once"] if FULL else ["the job alone"])
def test_killed_with_workers(whole, take, tmp_path, seed, killed):
    """Workers die with their job and publish nothing; nor do they disturb the next one if it is quick."""
    dice = random.Random(seed)
    broken = Broken.make(whole, tmp_path, workers=2)
    if killed == "all at once":
        process = broken.begin(take())
        time.sleep(dice.uniform(0.5, 4))  # workers need a second to begin with
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process = broken.begin(take(), before=dice.randint(1, len(whole.changes[False])))
    process.end()
    broken.check()
    if seed % 2 == 0:
        before = seen(broken)
        wait_for(lambda: not session(process.pid), "workers live on without their job", 30)
        assert seen(broken) == before
    broken.options["workers"] = dice.choice([None, 1])
    broken.mend()
    wait_for(lambda: not session(process.pid), "workers live on without their job", 30)
    jobs.ended_well(broken.ready, broken.out, whole.out, names=whole.names)


def seen(broken: Broken) -> dict[Path, tuple[int, int]]:
    """Give all files that are not hidden, with what would change if one were written again."""
    files = [path for root in (broken.ready.parent.parent, broken.out) for path in root.rglob("[!.]*")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if path.is_file()}
