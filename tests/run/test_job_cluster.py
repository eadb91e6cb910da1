"""A job on a dask cluster: the rows of one worker, also when workers die in mid-run, or the whole cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jobs
import pytest

import cbtools as cb

dask = pytest.importorskip("dask", reason="jobs on a cluster: pip install 'cbtools[cluster]'")
distributed = pytest.importorskip("distributed", reason="jobs on a cluster: pip install 'cbtools[cluster]'")
cloudpickle = pytest.importorskip("cloudpickle")  # which distributed needs

FULL = bool(os.environ.get("CBTOOLS_FULL"))
DEATHS = [("writing", {1}), ("over", {4})]
DEATHS += [("begun", {1}), ("begun", {1, 5, 9}), ("over", {1, 4, 7})] if FULL else []
LIVELINESS = 120
"""Seconds after which what should end is taken to hang."""
CONFIG = {
    "distributed.comm.timeouts.connect": "10s",  # so long a client seeks a scheduler that is gone
    "distributed.deploy.lost-worker-timeout": "1h",  # else a nanny may be sent away while its worker is anew
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.profile.enabled": False,
}


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
def names(ready) -> set[str]:
    return {path.name for path in ready.iterdir()}


@pytest.fixture(scope="module")
def one_after_another(ready, tmp_path_factory) -> Path:
    """Run the segments one by one, without a job."""
    out = tmp_path_factory.mktemp("segments")
    for path in sorted(ready.iterdir()):
        cb.run_segment(path, out)
    return out


@pytest.fixture(scope="module")
def whole(ready, tmp_path_factory) -> Path:
    """Run the job with one worker."""
    folder = tmp_path_factory.mktemp("whole")
    cb.run_job(jobs.copy_of(ready, folder), folder / "out", progress=False)
    return folder / "out"


@pytest.fixture
def mine(ready, tmp_path) -> Path:
    return jobs.copy_of(ready, tmp_path)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


# --- the cluster


@pytest.fixture(scope="module", autouse=True)
def settings() -> Iterator[None]:
    """Start workers as from a notebook: they import neither what is ``__main__`` here, nor this file."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch, dask.config.set(CONFIG):
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # it tells a lot of every death
        yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@contextlib.contextmanager
def local_cluster() -> Iterator[tuple[Any, Any]]:
    """Start two workers, each a process with a nanny that starts it anew when it dies."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",  # None means 8787, which may be another's
            memory_limit=0,
            silence_logs="CRITICAL",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield cluster, client


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


def at_tasks_of(client: Any, call: Callable[[str], None]) -> None:
    """Have every worker call a function when a task is begun, or over.

    It is called with ``"begun"``, or with ``"over"``, when the result is not told yet.
    """

    class AtTasks(distributed.WorkerPlugin):
        name = "at tasks"

        def __init__(self, call: Callable[[str], None]) -> None:
            self.call = call

        def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
            del key, start, kwargs
            if finish in ("executing", "memory"):
                self.call("begun" if finish == "executing" else "over")

    client.register_plugin(AtTasks(call))


@contextlib.contextmanager
def cluster_of_processes(folder: Path) -> Iterator[tuple[Any, list[subprocess.Popen[bytes]]]]:
    """Start a scheduler and two workers, as ``dask scheduler`` and ``dask worker`` do; give their address."""
    at = folder / "scheduler.json"
    alone = ["--no-dashboard", "--scheduler-file", str(at)]
    worker = ["dask_worker", *alone, "--no-nanny", "--nthreads", "1", "--memory-limit", "0"]
    programs = [["dask_scheduler", *alone, "--host", "127.0.0.1", "--port", "0"], worker, worker]
    with contextlib.ExitStack() as stack:
        started = []
        for number, (program, *options) in enumerate(programs):
            log = stack.enter_context((folder / f"log_{number}").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{program}", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
            )
            stack.callback(killed, process)
            started.append(process)
        eventually(at.exists, "the scheduler starts")
        with distributed.Client(scheduler_file=str(at), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=LIVELINESS)
            yield client, started


def killed(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(LIVELINESS)


# --- in time


def eventually(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIVELINESS
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)


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


# --- what happens at tasks


def drafts(out: Path) -> set[str]:
    """Give the parts that are being written."""
    every = (name for _, _, names in os.walk(out) for name in names)  # no matter what vanishes meanwhile
    return {name for name in every if name.startswith(".part_") and name.endswith(".tmp")}


def number_in(folder: Path) -> Callable[[], int]:
    """Make a function that counts its calls, from 1 on, by whatever process: a file each."""

    def number() -> int:
        folder.mkdir(exist_ok=True)
        at = 1
        while True:
            try:
                (folder / str(at)).touch(exist_ok=False)
            except FileExistsError:
                at += 1
            else:
                return at

    return number


def tell(folder: Path) -> Callable[[str], None]:
    """Leave a file for each process that begins a task."""

    def told(event: str) -> None:
        if event == "begun":
            (folder / str(os.getpid())).touch()

    return told


def die(folder: Path, out: Path, when: str, turns: set[int]) -> Callable[[str], None]:
    """Kill the worker when for the n-th time a task is begun, or over, or (once) when it is writing."""
    number = number_in(folder / "turns")
    deaths = number_in(folder / "deaths")
    shot = signal.SIGKILL

    def die() -> None:
        if number() in turns:
            deaths()
            os.kill(os.getpid(), shot)

    def die_writing() -> None:
        while not drafts(out):
            time.sleep(0.0005)
        die()

    def dies(event: str) -> None:
        if event == when:
            die()
        elif when == "writing" and event == "begun":
            threading.Thread(target=die_writing, daemon=True).start()

    return dies


def freeze(folder: Path, out: Path, turn: int) -> Callable[[str], None]:
    """Let the worker hang as soon as so many tasks that wrote are over, before the last one's result is told.

    It leaves the file ``frozen``, and goes on when there is a file ``go``.
    """
    number = number_in(folder / "turns")

    def freezes(event: str) -> None:
        if event == "over" and drafts(out) and number() >= turn:
            (folder / "frozen").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)

    return freezes


# --- the same rows


def test_the_rows_are_those_of_one_worker(
    mine, out, names, whole, one_after_another, client, at_tasks, tmp_path
):
    (tmp_path / "told").mkdir()
    at_tasks(tell(tmp_path / "told"))
    report = run(mine, out, client.get_executor())
    assert len(list((tmp_path / "told").iterdir())) == 2  # both workers had tasks
    assert report.segments["outcome"].to_list() == ["done"] * len(names)
    assert report.segments["segment"].to_list() == [Path(name).stem for name in sorted(names)]
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


def nothing_is_lost(ready: Path, out: Path, names: set[str], whole: Path) -> None:
    places = jobs.places(ready)
    assert places.keys() == names
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


@pytest.mark.parametrize("turn", [1, 6])
def test_an_executor_that_takes_no_more_tasks_is_an_error_of_ours(mine, out, names, whole, cluster, turn):
    with distributed.Client(cluster, set_as_default=False) as other:
        executor = Closing(other, turn)
        with pytest.raises(cb.JobError):
            run(mine, out, executor)
    assert executor.turn <= 0
    nothing_is_lost(mine, out, names, whole)
    run(mine, out)
    jobs.ended_well(mine, out, whole, names=names)
