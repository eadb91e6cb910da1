"""Who does a job's tasks: this process, processes of its own, or somebody's executor."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar
from uuid import uuid4

import polars as pl

from cbtools.errors import ConfigError, JobError

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = "POLARS_MAX_THREADS"
_CHANCES: Final = 3
"""So often processes of ours may die without a task getting done in between."""


class WorkerPool:
    """Does tasks, ``size`` at a time; worker processes of its own that died are made anew."""

    def __init__(self, workers: int | None, executor: Executor | None) -> None:
        if workers is not None and (type(workers) is not int or workers < 1):
            raise ConfigError(f"workers must be a whole number from 1 on, not {workers!r}")
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise ConfigError(
                f"executor must be a concurrent.futures.Executor, as a cluster's client.get_executor(), "
                f"not {executor!r}"
            )
        self.size = workers or (1 if executor is None else pl.thread_pool_size())
        self._given = executor
        self._executor: Executor | None = executor
        self._doing: set[Future[Any]] = set()
        self._leash: Connection | None = None
        self._deaths = 0

    def check(self, folders: Sequence[Path]) -> None:
        """Have a worker of somebody's executor look whether it sees folders.

        Raises
        ------
        JobError
            If it does not: it would take every segment for unreadable.
        """
        if self._given is None:
            return
        try:
            self.submit(_see, folders).result()
        except Exception as error:  # whatever the executor raises
            raise JobError(
                f"the executor's workers cannot be used: {type(error).__name__}: {error}. They need cbtools, "
                "and the file system of this process under the same paths"
            ) from error

    def submit(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a task done."""
        if self._executor is None:
            self._executor = self._make()
        try:
            if self._given is not None:
                return self._given.submit(partial(_once, uuid4().hex, task, *args, **kwargs))
            with _fewer_threads(self.size):  # a task may start a process
                future = self._executor.submit(task, *args, **kwargs)
            self._doing.add(future)
            future.add_done_callback(self._doing.discard)
            return future
        except Exception as error:
            if not isinstance(error, RuntimeError) and not is_trouble(error):
                raise
            failed: Future[T] = Future()
            failed.set_exception(error if is_trouble(error) else BrokenExecutor(str(error)))
            return failed

    def _make(self) -> Executor:
        if self.size == 1:
            return ThreadPoolExecutor(1, "cbtools-job")
        # not forked: threads of this process may hold locks, and the lock of the folder would be inherited
        context = get_context("spawn")
        reader, self._leash = context.Pipe(duplex=False)
        return ProcessPoolExecutor(self.size, context, _begin_work, (reader,))

    def done(self) -> None:
        """Note that a task was done."""
        self._deaths = 0

    def mend(self, error: BaseException) -> None:
        """Put new workers in the place of those that died.

        Raises
        ------
        JobError
            If they were not ours, or the new ones die, too.
        """
        self._deaths += 1
        if self._given is not None:
            raise JobError(
                f"the executor cannot go on: {type(error).__name__}: {error}. Nothing is lost: run again"
            ) from error
        self.close(at_once=True)
        if self._deaths >= _CHANCES:
            raise JobError(
                f"the worker processes died {_CHANCES} times without getting a task done: perhaps for want "
                "of memory (give fewer workers, or smaller chunk_bytes), or because the program that calls "
                "run_job does not guard the call by if __name__ == '__main__'. Nothing is lost: run again"
            ) from error

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, if they are its own: when their tasks are done, or at once."""
        if self._given is not None or self._executor is None:
            return
        if not at_once:
            wait(list(self._doing))
        # before the executor: if a worker was killed, that would wait for ever for others that wait for tasks
        if self._leash is not None:
            self._leash.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._leash = self._executor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=error is not None)


@contextmanager
def _fewer_threads(workers: int) -> Iterator[None]:
    """Have processes that are started in the block share the cores, where each would take all of them."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = str(max(1, pl.thread_pool_size() // workers))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


def _once(token: str, task: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Do a task; the token has a cluster know it from an equal one, whose result it may have kept."""
    return task(*args, **kwargs)


def _see(folders: Sequence[Path]) -> None:
    for folder in folders:
        folder.stat()


def is_trouble(error: BaseException) -> bool:
    """Tell whether an error is of the workers, and not of the task."""
    return isinstance(error, BrokenExecutor | CancelledError) or (
        type(error).__module__.partition(".")[0] == "distributed"
    )


def _begin_work(leash: Connection) -> None:
    """Prepare a worker: it ends with its job, however that ends, and not by the signals meant for that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def wait_for_end() -> None:
        leash.poll(None)  # nothing is ever sent: it ends when the other end is closed
        os._exit(1)

    threading.Thread(target=wait_for_end, name="cbtools-leash", daemon=True).start()
