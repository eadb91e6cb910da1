"""The program of `job_process`: it runs jobs, and does something to itself at one of their changes of files.

A line of its input is a job, and a line of its output tells how that was.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbtools as cb

Json = dict[str, Any]
Change = tuple[str, ...]
"""What was done, e.g. os.rename, and the paths it was done to."""

IN_WORKER = "JOBS_IN_WORKER"
_PATHS = {
    "os.chmod": 1,
    "os.link": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.truncate": 1,
}
_WRITES = os.O_CREAT | os.O_TRUNC | os.O_APPEND
_SIGNALS = {"kill": "SIGKILL", "stop": "SIGSTOP", "interrupt": "SIGINT"}  # Windows has not all of them
_NEEDS_SPACE = ("open", "os.mkdir", "os.symlink", "fsync")


def line_of(change: Change) -> str:
    """Write a change as a line: what was done, and last the path that was made, written or removed."""
    return " ".join(change)


class Changes:
    """Sees what this process changes in some folders, and does something before the n-th change."""

    def __init__(self) -> None:
        self.seen: list[Change] = []
        self._roots: list[str] = []
        self._before: int | str = 0
        self._do = ""
        self._tokens: str | None = None
        self._after = self._since = False
        self._thread: int | None = None
        self._lock = threading.RLock()
        sys.addaudithook(self._audited)
        for name in ("fsync", "fdatasync"):  # these are not audited
            setattr(os, name, self._seen_before(getattr(os, name)))

    def watch(
        self, roots: list[str], before: int | str, do: str, *, after: bool = False, tokens: str | None = None
    ) -> None:
        self.seen, self._before, self._after, self._do, self._tokens = [], before, after, do, tokens
        self._since, self._thread = False, None
        self._roots = roots
        if tokens is not None and before == 0:
            self._act()

    def rest(self) -> None:
        self._roots = []

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._roots:
            if event == "open" and arguments[2] & _WRITES:
                self._change(event, arguments[0])
            elif event in _PATHS:
                self._change(event, *arguments[: _PATHS[event]])

    def _seen_before(self, sync: Callable[[int], None]) -> Callable[[Any], None]:
        def seen_before(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            if self._roots:
                self._change("fsync", number)
            sync(number)

        return seen_before

    def _change(self, event: str, *paths: Any) -> None:
        files = (
            Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else path for path in paths
        )
        names = [os.fsdecode(Path(os.fsdecode(file)).absolute()) for file in files]
        if not any(f"{name}/".startswith(f"{root}/") for name in names for root in self._roots):
            return
        with self._lock:
            self.seen.append((event, *names))
            now = self._is_now()
            self._since |= now
        if now:
            self._act()
        if self._since and self._do == "full" and event in _NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), names[0])
        if self._since and self._do == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), names[0])

    def _is_now(self) -> bool:
        """Tell whether to do it before the last change seen."""
        if self._since:
            return False
        if self._thread is not None:  # the one before which it is was done by this thread
            return self._thread == threading.get_ident()
        if isinstance(self._before, int):
            it_is = len(self.seen) == self._before
        else:
            it_is = re.search(self._before, line_of(self.seen[-1])) is not None
        if it_is and self._after:
            self._thread = threading.get_ident()
        return it_is and not self._after

    def _act(self) -> None:
        if (self._tokens is None or self._take_token(Path(self._tokens))) and self._do in _SIGNALS:
            os.kill(os.getpid(), getattr(signal, _SIGNALS[self._do]))

    @staticmethod
    def _take_token(folder: Path) -> bool:
        for token in folder.iterdir():
            with suppress(FileNotFoundError):
                token.unlink()
                return True
        return False


def _run(order: Json, changes: Changes) -> Json:
    """Run one job, and tell how it was."""
    os.environ[IN_WORKER] = json.dumps(order["in_worker"])
    exec(order["first"], {"os": os, "signal": signal, "cb": cb})
    told: Json = {"outcomes": [], "error": "", "message": "", "trace": ""}
    started = time.perf_counter()
    changes.watch(order["roots"], order["before"], order["do"], after=order["after"])
    try:
        report = cb.run_job(order["ready"], order["out"], **order["options"])
        told["outcomes"] = report.segments["outcome"].to_list()
    except (Exception, KeyboardInterrupt) as error:
        told |= {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
    finally:
        changes.rest()
    return told | {"changes": changes.seen, "seconds": time.perf_counter() - started}


def main() -> None:
    """Warm up on a segment; then run a job for each line of the input."""
    changes = Changes()
    with tempfile.TemporaryDirectory() as folder:
        cb.run_segment(sys.argv[1], folder)
    print("warm", flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line), changes)), flush=True)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__" and (wish := json.loads(os.environ.get(IN_WORKER, "null"))):  # in a worker
    Changes().watch(**wish)
