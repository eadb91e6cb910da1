"""Processes that run jobs, and can be killed, stopped or have their disk fail in the middle of one.

``with spares(ready) as take: process = take()`` gives a process that has warmed up: ``process.begin(ready,
out, **options)`` lets it work, as `cb.run_job`; ``process.end()`` waits for the process and tells how it
ended (``process.answer()`` only for the run: then it may begin another). It can be told to kill itself before
its n-th change of the file system, to stop there, or to have it fail; and it tells all changes it made.
`session` and `workers` give the processes that one started.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import job_program
from job_program import Change, Json

PATIENCE = 120
"""Seconds after which a process that should end is taken to hang."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: the process' return code (None: it lives); what its report or its error said.

    ``error`` is the name of the error's class, ``trace`` its traceback; ``changes`` are what it did in the
    recording's and the output's folders, in order; ``seconds`` are those of the run.
    """

    code: int | None = None
    outcomes: tuple[str, ...] = ()
    error: str = ""
    message: str = ""
    trace: str = ""
    changes: tuple[Change, ...] = ()
    seconds: float = 0.0


class Process:
    """A Python process in a session of its own, which warms up and then waits for jobs.

    Parameters
    ----------
    ready : Path
        Folder of segments: it warms up on the smallest one, which it leaves as it is.
    within : sequence of str
        A command that runs the process, as ``["nice"]``.
    """

    def __init__(self, ready: Path, within: Sequence[str] = ()) -> None:
        sample = min(ready.iterdir(), key=lambda path: path.stat().st_size)
        self._process = subprocess.Popen(
            [*within, sys.executable, job_program.__file__, str(sample)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=one, daemon=True) for one in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()
        self._is_warm = False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line)
        self._said.put("")

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._code() is None

    def _code(self, *, wait: bool = False) -> int | None:
        """Tell its return code, or None if it runs; it stays a zombie: nobody else gets its number."""
        if self._process.returncode is not None:
            return self._process.returncode
        until = time.monotonic() + (PATIENCE if wait else 0)
        while (told := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
            if time.monotonic() >= until:
                assert not wait, f"process {self.pid} does not end"
                return None
            time.sleep(0.002)
        return told.si_status if told.si_code == os.CLD_EXITED else -told.si_status

    @property
    def has_ended(self) -> bool:
        """Whether its run is over, or it is itself."""
        return not self.is_running or not self._said.empty()

    def warm_up(self) -> None:
        """Wait until it is warm."""
        if not self._is_warm:
            assert self._said.get(timeout=PATIENCE), "".join(self._errors)
            self._is_warm = True

    def begin(
        self,
        ready: Path,
        out: Path,
        *,
        before: int | str = 0,
        after: bool = False,
        do: Literal["kill", "stop", "interrupt", "full", "read-only"] = "kill",
        where: Literal["all", "out"] = "all",
        in_worker: tuple[int, Literal["kill", "stop"], int] | None = None,
        first: str = "",
        **options: Any,
    ) -> Process:
        """Let it run a job of these options.

        Before so many changes of the file system (from 1 on; 0: never), or the first one that a pattern fits
        as `job_program.line_of` writes it, or right `after` that one, it is to kill itself; to stop itself
        (until SIGCONT); to interrupt itself (as by Ctrl-C); or to find the disk full or read-only from there
        on. Changes are those in the recording's and the output's folders, or in the output's alone. (Their
        number may differ by a few from run to run: threads.)
        `in_worker` has its workers do that, before which of their changes (0: when they begin) of the output,
        and how often (over all workers).
        `first` are statements that it runs before.
        """
        self.warm_up()
        roots = [out] if where == "out" else [ready.parent.parent, out]
        order = {
            "ready": str(ready),
            "out": str(out),
            "roots": [str(root) for root in roots],
            "before": before,
            "after": after,
            "do": do,
            "in_worker": None if in_worker is None else self._tokens(out, *in_worker),
            "first": first,
            "options": {"progress": False} | options,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self

    def _tokens(self, out: Path, before: int, do: str, times: int) -> Json:
        """Lay a file beside the output for each time that workers do it; who does it takes one away."""
        folder = out.with_name(f"{out.name}-tokens")
        folder.mkdir()
        for number in range(times):
            (folder / str(number)).touch()
        return {"roots": [str(out)], "before": before, "do": do, "tokens": str(folder)}

    def answer(self) -> Ended:
        """Wait for the end of the run, and tell how it was."""
        line = self._said.get(timeout=PATIENCE)
        assert line, f"it died with {self._code(wait=True)}: {''.join(self._errors)}"
        told = json.loads(line)
        told["changes"] = tuple(tuple(change) for change in told["changes"])
        return Ended(None, tuple(told.pop("outcomes")), **told)

    def end(self) -> Ended:
        """Wait for the end of the process, which is to be killed or to end its run, and tell how it was."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._code(wait=True)
        if code == -signal.SIGKILL:
            return Ended(code)
        return replace(self.answer(), code=code)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def close(self) -> None:
        """Kill it and all that it started."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@contextmanager
def spares(ready: Path) -> Iterator[Callable[[], Process]]:
    """Give a function that gives warm processes; meanwhile another warms up, unless others test, too."""
    ahead = 0 if "PYTEST_XDIST_WORKER" in os.environ else 1
    made: list[Process] = []
    waiting: list[Process] = []

    def take() -> Process:
        while len(waiting) <= ahead:
            waiting.append(Process(ready))
            made.append(waiting[-1])
        return waiting.pop(0)

    try:
        yield take
    finally:
        for process in made:
            process.close()


def session(pid: int) -> set[int]:
    """Give the live processes of a session (its leader's, and all those started from there)."""
    return {one for one, (_, leader) in _processes().items() if leader == pid}


def workers(pid: int) -> set[int]:
    """Give the live worker processes (of multiprocessing's spawn) that a process has started."""
    found = set()
    for one, (parent, _) in _processes().items():
        with suppress(OSError):
            if parent == pid and b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes():
                found.add(one)
    return found


def is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped by a signal."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def _processes() -> dict[int, tuple[int, int]]:
    """Give all live processes: parent and session."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent, _, leader = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                found[int(folder.name)] = (int(parent), int(leader))
    return found


def wait_for(what: Callable[[], object], why: str, seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, why
        time.sleep(0.002)
