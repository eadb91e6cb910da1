"""A job on a dask cluster: the rows of one worker, also when workers die in mid-run, or the whole cluster."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jobs
import pytest
from job_cluster import (
    LIVELINESS,
    at_tasks_of,
    cluster_of_processes,
    die,
    distributed,
    drafts,
    eventually,
    freeze,
    killed,
    local_cluster,
    sent_by_value,
    tell,
)
from tiers import FULL

import cbtools as cb

pytestmark = pytest.mark.ci

DEATHS = [("writing", {1}), ("over", {4})]
DEATHS += [("begun", {1}), ("begun", {1, 5, 9}), ("over", {1, 4, 7})] if FULL else []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return jobs.long_recording(tmp_path_factory.mktemp("recording"))


# --- the cluster


@pytest.fixture(scope="module", autouse=True)
def settings() -> Iterator[None]:
    with sent_by_value():
        yield


@pytest.fixture(scope="module")
def cluster_of_all() -> Iterator[tuple[Any, Any]]:
    with local_cluster() as both:
        yield both


@pytest.fixture
def cluster(cluster_of_all) -> Any:
    return cluster_of_all[0]


@pytest.fixture
def client(cluster_of_all) -> Iterator[Any]:
    """Give a client of the cluster; both workers are there again at the end of the test."""
    client = cluster_of_all[1]
    yield client
    client.wait_for_workers(2, timeout=LIVELINESS)


@pytest.fixture
def at_tasks(client) -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Give `at_tasks_of` for this cluster, until the end of the test."""
    yield lambda call: at_tasks_of(client, call)
    with contextlib.suppress(ValueError):  # there is none
        client.unregister_worker_plugin("at tasks")


# --- in time


def begin(call: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
    """Call a function in a thread; the program can end while it hangs."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **options))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def begin_job(ready: Path, out: Path, executor: Executor | None) -> Future[Any]:
    return begin(cb.run_job, ready, out, executor=executor, progress=False)


def run(ready: Path, out: Path, executor: Executor | None = None) -> cb.JobReport:
    return begin_job(ready, out, executor).result(LIVELINESS)


# --- the same rows


@pytest.mark.slow
def test_the_rows_are_those_of_one_worker(
    mine, out, names, whole, one_after_another, client, at_tasks, tmp_path
):
    (tmp_path / "told").mkdir()
    at_tasks(tell(tmp_path / "told"))
    report = run(mine, out, client.get_executor())
    assert len(list((tmp_path / "told").iterdir())) == 2  # both workers had tasks
    assert report.segments["outcome"].to_list() == ["done"] * len(names)
    assert report.segments["segment"].to_list() == [Path(name).stem for name in names]
    jobs.ended_well(mine, out, whole, names=names)
    jobs.same_rows(jobs.tables(out), jobs.tables(one_after_another))
    assert jobs.quarantine(out) == jobs.quarantine(one_after_another)


class TakenForLost(Executor):
    """Has each task begun again as soon as it has written: as a cluster that takes its worker for lost.

    That is not, and goes on; but only what comes of the second one counts. One after the other, so that the
    parts being written are those of the first.
    """

    def __init__(self, executor: Executor, out: Path) -> None:
        self.executor, self.out = executor, out
        self.turns = ThreadPoolExecutor(1)
        self.overlapping = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def twice() -> Any:
            before = drafts(self.out)
            lost = self.executor.submit(fn, *args, **kwargs)
            eventually(lambda: lost.done() or bool(drafts(self.out) - before), "a task writes, or ends")
            self.overlapping += not lost.done()
            result = self.executor.submit(fn, *args, **kwargs).result(LIVELINESS)
            lost.exception(LIVELINESS)  # it may have failed, but it has ended
            return result

        return self.turns.submit(twice)


def test_tasks_that_are_done_twice_leave_nothing_twice(mine, out, names, whole, client):
    executor = TakenForLost(client.get_executor(pure=False), out)
    with executor.turns:
        assert run(mine, out, executor).done == len(names)
    assert executor.overlapping
    assert run(mine, out).segments.is_empty()
    jobs.ended_well(mine, out, whole, names=names)


# --- a worker dies


@pytest.mark.parametrize(("when", "turns"), DEATHS)
def test_the_job_goes_on_when_a_worker_is_killed(
    mine, out, names, whole, client, at_tasks, tmp_path, when, turns
):
    at_tasks(die(tmp_path, out, when, turns))
    report = run(mine, out, client.get_executor())
    assert (tmp_path / "deaths" / "1").exists()
    assert report.segments["outcome"].to_list() == ["done"] * len(names)
    jobs.ended_well(mine, out, whole, names=names)


def test_a_cluster_that_does_not_repeat_what_was_lost(
    mine, out, names, whole, cluster, client, at_tasks, tmp_path, monkeypatch
):
    """It is no fault of the segment, which is not put with those that failed; the next run is not told of it.

    Dask keeps what came of a task as long as somebody holds it: here the error does, as in a notebook.
    """
    at_tasks(die(tmp_path, out, "over", {4}))
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(cb.JobError) as error:
        run(mine, out, client.get_executor())
    monkeypatch.undo()
    nothing_is_lost(mine, out, names, whole)
    assert run(mine, out, client.get_executor()).failed == 0
    assert error.value.__traceback__ is not None
    jobs.ended_well(mine, out, whole, names=names)


# --- the cluster is gone


def nothing_is_lost(ready: Path, out: Path, names: list[str], whole: Path) -> None:
    places = jobs.places(ready)
    assert places.keys() == set(names)
    assert {len(folders) for folders in places.values()} == {1}
    assert {folder for folders in places.values() for folder in folders} <= {"ready", "processing", "done"}
    if out.exists():
        jobs.partly(out, jobs.parts(whole))


@pytest.mark.parametrize("who", ["all", "scheduler"] if FULL else ["all"])
def test_a_cluster_that_is_killed_is_an_error_of_ours_and_the_next_run_ends_well(
    mine, out, names, whole, tmp_path, who
):
    with cluster_of_processes(tmp_path) as (client, processes):
        at_tasks_of(client, freeze(tmp_path, out, 4))
        job = begin_job(mine, out, client.get_executor())
        eventually((tmp_path / "frozen").exists, "the job is in mid-run")
        killed(*(processes if who == "all" else processes[:1]))
        with pytest.raises(cb.JobError):
            job.result(LIVELINESS)
        nothing_is_lost(mine, out, names, whole)
        report = run(mine, out)
    assert 0 < report.done <= len(names)
    jobs.ended_well(mine, out, whole, names=names)


def test_a_client_that_is_closed_is_an_error_of_ours_and_another_one_ends_the_job(
    mine, out, names, whole, cluster, client, at_tasks, tmp_path
):
    at_tasks(freeze(tmp_path, out, 4))
    try:
        with distributed.Client(cluster, set_as_default=False) as other:
            job = begin_job(mine, out, other.get_executor())
            eventually((tmp_path / "frozen").exists, "the job is in mid-run")
        with pytest.raises(cb.JobError):
            job.result(LIVELINESS)
        nothing_is_lost(mine, out, names, whole)
    finally:
        (tmp_path / "go").touch()
    busy = lambda dask_worker: len(dask_worker.active_threads)  # noqa: E731 (sent by value)
    # what the closed client's task writes now is the next job's to remove
    eventually(lambda: not any(client.run(busy).values()), "the frozen task has ended")
    assert run(mine, out, client.get_executor()).failed == 0
    jobs.ended_well(mine, out, whole, names=names)


class Closing(Executor):
    """Loses its client before the n-th task is handed over."""

    def __init__(self, client: Any, turn: int) -> None:
        self.client, self.turn = client, turn
        self.executor = client.get_executor()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.turn -= 1
        if self.turn == 0:
            self.client.close()
        return self.executor.submit(fn, *args, **kwargs)


@pytest.mark.parametrize("turn", [1, 6] if FULL else [6])
def test_an_executor_that_takes_no_more_tasks_is_an_error_of_ours(mine, out, names, whole, cluster, turn):
    with distributed.Client(cluster, set_as_default=False) as other:
        executor = Closing(other, turn)
        with pytest.raises(cb.JobError):
            run(mine, out, executor)
    assert executor.turn <= 0
    nothing_is_lost(mine, out, names, whole)
    run(mine, out)
    jobs.ended_well(mine, out, whole, names=names)
