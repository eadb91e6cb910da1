"""What tests of jobs begin with: an empty place, or a recording and what comes of it undisturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jobs
import pytest
from job_process import Process, spares

import cbtools as cb


@pytest.fixture
def ready(tmp_path) -> Path:
    """Give an empty folder of segments that are ready, in the recorder's place."""
    folder = tmp_path / "raw" / "ready" / "coinbase"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "processed"


# --- a recording; a file of tests may have another one in its place


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return jobs.recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def names(recorded) -> list[str]:
    return sorted(path.name for path in recorded.iterdir())


@pytest.fixture(scope="module")
def one_after_another(recorded, tmp_path_factory) -> Path:
    """Run its segments one by one, without a job."""
    out = tmp_path_factory.mktemp("segments")
    for path in sorted(recorded.iterdir()):
        cb.run_segment(path, out)
    return out


@pytest.fixture(scope="module")
def whole(recorded, tmp_path_factory) -> Path:
    """Run it as one job of one worker, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    jobs.run(jobs.copy_of(recorded, folder), folder / "out")
    return folder / "out"


@pytest.fixture
def mine(recorded, tmp_path) -> Path:
    """Give a copy of it, for one test."""
    return jobs.copy_of(recorded, tmp_path)


@pytest.fixture
def place(recorded, whole, tmp_path) -> jobs.Place:
    return jobs.Place(recorded, tmp_path, whole)


# --- processes


@pytest.fixture(scope="module")
def take(recorded) -> Iterator[Callable[[], Process]]:
    """Give a function that gives a process that has warmed up."""
    with spares(recorded) as take:
        yield take


@pytest.fixture(scope="module")
def helper(take) -> Process:
    """Give a process for runs that end by themselves."""
    return take()
