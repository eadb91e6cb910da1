"""Clusters of dask for tests, and what is to happen on them when a task is begun or over.

The workers of a cluster do not import this file: what they call is sent to them (`sent_by_value`).
"""

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
from pathlib import Path
from typing import Any

import pytest

dask = pytest.importorskip("dask", reason="jobs on a cluster: pip install 'cbtools[cluster]'")
distributed = pytest.importorskip("distributed", reason="jobs on a cluster: pip install 'cbtools[cluster]'")
cloudpickle = pytest.importorskip("cloudpickle")  # which distributed needs

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


# --- clusters


@contextlib.contextmanager
def sent_by_value() -> Iterator[None]:
    """Start workers as from a notebook: they import neither what is ``__main__`` here, nor this file."""
    this = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(this)
    with pytest.MonkeyPatch.context() as patch, dask.config.set(CONFIG):
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # it tells a lot of every death
        yield
    cloudpickle.unregister_pickle_by_value(this)


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


def eventually(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIVELINESS
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)


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
