"""watch_job: a job that goes on, for segments as the recorder closes them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any, Final, Self

from cbtools.errors import ConfigError
from cbtools.raw.files import MAX_LINE_MB
from cbtools.raw.report import number
from cbtools.raw.stream import CHUNK_BYTES
from cbtools.run.exactly_once import Job, begun_job
from cbtools.run.job_report import JobReport, RunLog
from cbtools.run.options import read_options
from cbtools.run.pool import WorkerPool
from cbtools.run.states import KEEP_STATES
from cbtools.stores import tells_trouble

_TOLD: Final = 1000
"""So many segments the report of a watch tells of, the last ones."""
_STEP: Final = 1.0
"""After so many seconds it looks up from its work, to see whether a heartbeat is due."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@tells_trouble
def watch_job(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    poll_seconds: float = 1.0,
    heartbeat_seconds: float = 60.0,
    log: Callable[[str], object] = print,
    channel_config: Mapping[str, Mapping[str, Any]] | None = None,
    channels: Collection[str] | None = None,
    products: Collection[str] | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    delete_after_processing: bool = False,
    processing_dir: str | os.PathLike[str] | None = None,
    done_dir: str | os.PathLike[str] | None = None,
    failed_dir: str | os.PathLike[str] | None = None,
    keep_states: int = KEEP_STATES,
    strict: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    max_line_mb: float = MAX_LINE_MB,
) -> JobReport:
    """Run the segments of a folder as they come, until SIGTERM or SIGINT.

    It does what `run_job` does with those that are there, then looks for new ones every poll_seconds. A
    signal (where it is called in the main thread) has it finish the segments in hand, give back those that
    are claimed and not begun, and return; a second signal has it give back those in hand, too.

    Parameters
    ----------
    input_dir, output_dir : path-like
        As in `run_job`.
    poll_seconds : float
        How long to wait before it looks for new segments again, seconds.
    heartbeat_seconds : float
        How often to say that it is alive, seconds.
    log : callable
        Takes a line of text: one for each segment, and the heartbeat.
    channel_config, channels, products, workers, executor, delete_after_processing : optional
        As in `run_job`.
    processing_dir, done_dir, failed_dir, keep_states, strict, chunk_bytes, max_line_mb : optional
        As in `run_job`.

    Returns
    -------
    JobReport
        Of the whole watch; its frames tell of the last 1,000 segments.

    Raises
    ------
    ConfigError, JobError, DatasetError, SegmentError, StateError
        As `run_job`.

    Examples
    --------
    In a terminal it is ``cbtools watch raw/ready/coinbase --out processed/coinbase``; here it stops itself:

    >>> import signal, tempfile
    >>> import cbtools as cb
    >>> def stop(line):
    ...     if "alive: 2 segments" in line:
    ...         signal.raise_signal(signal.SIGTERM)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cb.simulate_segments(folder, levels=50, megabytes=0.3, segment_mb=0.2)
    ...     raw, out = f"{folder}/raw/ready/coinbase", f"{folder}/processed"
    ...     report = cb.watch_job(raw, out, log=stop, heartbeat_seconds=0.1, poll_seconds=0.1)
    >>> report.done
    2
    """
    for name, seconds in (("poll_seconds", poll_seconds), ("heartbeat_seconds", heartbeat_seconds)):
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < 1e9:
            raise ConfigError(f"{name} must be a number of seconds above 0, not {seconds!r}")
    options = read_options(
        input_dir,
        output_dir,
        channel_config=channel_config,
        channels=channels,
        products=products,
        delete_after_processing=delete_after_processing,
        processing_dir=processing_dir,
        done_dir=done_dir,
        failed_dir=failed_dir,
        keep_states=keep_states,
        strict=strict,
        chunk_bytes=chunk_bytes,
        max_line_mb=max_line_mb,
    )
    found, pool = RunLog(_TOLD), WorkerPool(workers, executor)
    pulse = _Pulse(found, log, heartbeat_seconds)
    with _Signals() as signals:
        try:
            with begun_job(options, pool, found, pulse.tell) as job:
                signals.stop(job)
                log(f"{_now()} watching {input_dir}")
                while not job.stopping:
                    for _ in job.work(job.waiting(), min(heartbeat_seconds, _STEP)):
                        pulse.beat()
                    pulse.beat()
                    signals.wait(min(poll_seconds, pulse.due()))
        except _AtOnceError:
            pass  # what was in hand is given back
    log(f"{_now()} stopped: {pulse.sums()}")
    return found.report(pulse.seconds)


class _AtOnceError(BaseException):
    """Raised by a second signal, to have all given back."""


class _Signals:
    """Has signals stop a job, in the main thread, to which they go."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._came = threading.Event()
        self._before: dict[int, Any] = {}

    def stop(self, job: Job) -> None:
        """Have them stop this job; perhaps one came already."""
        self._job = job
        job.stopping = self._came.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for one, but not for longer."""
        self._came.wait(seconds)

    def _take(self, *_: object) -> None:
        again = self._came.is_set()
        self._came.set()
        if self._job is not None:
            self._job.stopping = True
            if again and self._job.has_in_hand:
                self._job = None  # not once more, while they are given back
                raise _AtOnceError

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {which: signal.signal(which, self._take) for which in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)


class _Pulse:
    """Says what was done, and from time to time that it is alive."""

    def __init__(self, found: RunLog, log: Callable[[str], object], every: float) -> None:
        self._found, self._log, self._every = found, log, every
        self._begun = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def due(self) -> float:
        """Give the seconds until the next heartbeat."""
        return max(0.0, self._last + self._every - time.monotonic())

    def beat(self) -> None:
        """Say that it is alive, if it is time."""
        if not self.due():
            self._last = time.monotonic()
            self._log(f"{_now()} alive: {self.sums()}")

    def sums(self) -> str:
        """Say what was done so far."""
        outcomes = self._found.outcomes
        done = f"{number(outcomes['done'], 'segment')}, {self._found.raw_bytes / 1e6:,.1f} MB"
        others = f"{outcomes['skipped']:,} skipped, {outcomes['failed']:,} failed"
        return f"{done}, {number(self._found.rows, 'row')}, {others}"

    def tell(self, row: Mapping[str, Any]) -> None:
        """Say what became of a segment."""
        text = f"{row['outcome']} {row['segment']}"
        if row["lines"] is not None:
            counts = ", ".join(number(row[f"{what}s"], what) for what in ("row", "gap", "reject"))
            text += f": {counts}, {row['seconds']:.2f} s"
        self._log(f"{_now()} {text}" + (f": {row['reason']}" if row["reason"] else ""))


def _now() -> str:
    return f"{datetime.now(UTC):%FT%TZ}"
