"""Jobs on small recordings: what they leave behind, compared row for row, and processes that can be killed.

Recordings
    `recording(folder)` simulates one, `copy_of(ready, folder)` takes a copy of it: both give the folder
    ``raw/ready/coinbase``; the others are ``beside(ready, "done")`` and so on.
What is there
    `tables`, `quarantine`, `manifests`, `states` of an output folder; `same_dataset(out, whole)` checks all
    of them. `places` tells where each source file is; `leftovers` what should not be there.
    `partly(out, whole)` checks what a reader may see at any instant.
Processes
    ``with spares(ready) as take: job = take()`` gives a process that has warmed up: ``job.begin(ready, out,
    **options)`` lets it work, as `cb.run_job`; ``job.end()`` waits for the process and tells how it ended
    (``job.answer()`` only for the run: then it may begin another). It can be told to kill itself before its
    n-th change of the file system, to stop there, or to have it fail; and it tells all changes it made.
    `session` and `workers` give the processes that one started.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

import cbtools as cb

Json = dict[str, Any]

TABLES = ("level2", "book", "market_trades", "ticker")
FOLDERS = ("ready", "processing", "done", "failed")
START = datetime(2025, 11, 26, 23, 59, 59, 300_000, tzinfo=UTC)
REJECTED = b'{"capture_ts":"2025-11-27T00:00:00+00:00","data":{"chan\n'
PATIENCE = 120
"""Seconds after which a process that should end is taken to hang."""


# --- recordings


def recording(folder: Path, *, rejected: bool = True, **options: Any) -> Path:
    """Simulate a recording of three segments, of two products, over midnight; give its folder ready/coinbase.

    The first segment alone has snapshots: the books of the others rest on it. By default, the second one has
    a line that is not understood, and is otherwise whole. Options are those of `cbtools.simulate_segments`.
    """
    usual = {"products": ["BTC-USD", "ETH-USD"], "start": START, "levels": 40, "seed": 5}
    if "minutes" not in options:
        usual |= {"megabytes": 0.3, "segment_mb": 0.1}
    made = cb.simulate_segments(folder, **(usual | options))
    if rejected:
        path = made.paths[min(1, len(made.paths) - 1)]
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:3], REJECTED, *lines[3:]]))
    return made.paths[0].parent


def copy_of(ready: Path, folder: Path) -> Path:
    """Copy what is ready into another recording's folder, and give that one's ready/coinbase."""
    to = folder / "raw" / "ready" / ready.name
    shutil.copytree(ready, to)
    return to


def beside(ready: Path, name: str) -> Path:
    """Give the folder ``processing``, ``done`` or ``failed`` that belongs to a folder ``ready``."""
    return ready.parent.parent / name / ready.name


# --- what is there


def tables(out: Path) -> dict[str, pl.DataFrame]:
    """Give all rows of each table that is there, with the column segment, in one order."""
    found = {}
    for folder in sorted(out.glob("[!._]*")):
        if next(folder.rglob("part_*.parquet"), None) is not None:
            found[folder.name] = in_order(cb.scan_dataset(out, folder.name, segment=True).collect())
    return found


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by all their columns: equal frames have the same rows equally often."""
    first = [name for name in ("segment", "product_id", "line") if name in frame.columns]
    others = [n for n, dtype in frame.schema.items() if n not in first and not dtype.is_nested()]
    return frame.sort(*first, *others, maintain_order=True)


def same_rows(a: Mapping[str, pl.DataFrame], b: Mapping[str, pl.DataFrame]) -> None:
    """Check that two results of `tables` hold the same rows."""
    assert a.keys() == b.keys()
    for table in a:
        assert a[table].schema == b[table].schema, table
        counts = [frame.group_by("segment").len().sort("segment").rows() for frame in (a[table], b[table])]
        assert counts[0] == counts[1], table
        assert a[table].equals(b[table]), f"{table}: other values"


def quarantine(out: Path) -> dict[str, bytes]:
    """Give the files of rejected lines: name → content."""
    return {path.name: path.read_bytes() for path in sorted((out / "_quarantine").glob("*"))}


def manifests(out: Path) -> dict[str, Json]:
    """Give the manifests, by the names of their files, without what another run has otherwise."""
    found = {}
    for path in sorted((out / "_runs").glob("[!.]*.json")):
        manifest = json.loads(path.read_bytes())
        found[path.stem] = {k: v for k, v in manifest.items() if k not in ("seconds", "finished_at")}
    return found


def states(out: Path) -> dict[str, cb.BookState]:
    """Load the states that are kept, by segment."""
    return {path.stem: cb.BookState.load(path) for path in sorted((out / "_state").glob("[!.]*.parquet"))}


def parts(out: Path) -> dict[str, pl.DataFrame]:
    """Read every part that is seen, by its path in the dataset."""
    found = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("part_*.parquet"))}
    return {
        name: pl.read_parquet(path, hive_partitioning=False, glob=False)
        for name, path in found.items()
        if not any(folder[0] in "._" for folder in Path(name).parts)
    }


def same_dataset(out: Path, whole: Path) -> None:
    """Check that two datasets are the same: rows, quarantine, manifests, states; and fit their manifests."""
    same_rows(tables(out), tables(whole))
    assert quarantine(out) == quarantine(whole)
    assert manifests(out) == manifests(whole)
    assert states(out) == states(whole)
    listed: dict[str, tuple[int, int]] = {}
    for segment in manifests(out):
        for path, told in listed_parts(out, segment).items():
            assert path not in listed, f"two manifests list {path}"
            listed[path] = told
    there = {name: (frame.height, (out / name).stat().st_size) for name, frame in parts(out).items()}
    assert listed == there


def listed_parts(out: Path, segment: str) -> dict[str, tuple[int, int]]:
    """Give what a segment's manifest lists: path → rows and bytes."""
    manifest = json.loads((out / "_runs" / f"{segment}.json").read_bytes())
    listed = [part for table in manifest["tables"].values() for part in table["parts"]]
    return {part["path"]: (part["rows"], part["bytes"]) for part in listed}


def partly(out: Path, whole: Mapping[str, pl.DataFrame]) -> None:
    """Check what a reader sees at any instant, against the `parts` of the whole dataset.

    Each part is there whole or not at all, and those of a segment with a manifest all are; a table's scan
    succeeds and has no row twice.
    """
    there = parts(out)
    assert there.keys() <= whole.keys()
    for name, frame in there.items():
        assert frame.equals(whole[name]), f"{name} is there in part"
    for segment in manifests(out):
        assert listed_parts(out, segment).keys() <= there.keys(), f"{segment} has a manifest, and lacks parts"
        of_it = {name for name in whole if name.endswith(f"/part_{segment}.parquet")}
        assert listed_parts(out, segment).keys() == of_it
    for table in TABLES:
        expected = sum(frame.height for name, frame in there.items() if name.startswith(f"{table}/"))
        if expected:
            assert cb.scan_dataset(out, table).select(pl.len()).collect().item() == expected


def places(ready: Path) -> dict[str, list[str]]:
    """Tell where each source file is: name → which of the folders ready, processing, done, failed."""
    found: dict[str, list[str]] = {}
    for name in FOLDERS:
        folder = ready if name == "ready" else beside(ready, name)
        for path in sorted(folder.glob("[!.]*")):
            if path.is_file():
                found.setdefault(path.name, []).append(name)
    return found


def checksums(ready: Path) -> dict[str, str]:
    """Give the checksum of each plain file in a folder, as manifests have it."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(ready.glob("[!.]*"))
        if path.is_file()
    }


def leftovers(ready: Path, out: Path) -> list[str]:
    """Give what no job may leave behind: temporary files, and what lies in processing."""
    raw = ready.parent.parent
    temporary = [path for root in (raw, out) for path in root.rglob("*") if path.name.endswith(".tmp")]
    held = [path for path in beside(ready, "processing").rglob("[!.]*") if path.is_file()]
    return [str(path.relative_to(raw.parent)) for path in (*temporary, *held)]


def ended_well(ready: Path, out: Path, whole: Path, *, names: set[str], deleted: bool = False) -> None:
    """Check that all is as after an undisturbed run: the dataset, the source files, nothing left behind."""
    same_dataset(out, whole)
    assert leftovers(ready, out) == []
    assert places(ready) == ({} if deleted else {name: ["done"] for name in names})


# --- processes

Change = tuple[str, ...]
"""What was done, e.g. os.rename, and the paths it was done to."""


def line_of(change: Change) -> str:
    """Write a change as a line: what was done, and last the path that was made, written or removed."""
    return " ".join(change)


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
            [*within, sys.executable, __file__, str(sample)],
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
        as `line_of` writes it, or right `after` that one, it is to kill itself; to stop itself (until
        SIGCONT); to interrupt itself (as by Ctrl-C); or to find the disk full or read-only from there on.
        Changes are those in the recording's and the output's folders, or in the output's alone. (Their number
        may differ by a few from run to run: threads.)
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


# --- in the process

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
