"""Programs that watch a folder, in processes that get signals; and what they have printed up to now."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jobs

TESTS = str(Path(__file__).parent)
PROGRAM = "from cbtools.cli import main; main()"
LIVELINESS = 120
"""Seconds after which what should come is taken to be missing."""
QUICK = ("--poll-seconds", "0.02")


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
