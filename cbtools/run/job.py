"""run_job: a folder of segments → partitioned Parquet, each segment exactly once."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from typing import Any

from cbtools.errors import SegmentError
from cbtools.raw.files import MAX_LINE_MB
from cbtools.raw.stream import CHUNK_BYTES
from cbtools.run.doubts import warn_of_job
from cbtools.run.exactly_once import begun_job
from cbtools.run.folders import checksum
from cbtools.run.job_report import JobReport, Outcome, RunLog
from cbtools.run.known import Known
from cbtools.run.manifest import parameters_of
from cbtools.run.options import Instant, Options, read_options
from cbtools.run.order import Waiting, waiting_in
from cbtools.run.pool import WorkerPool
from cbtools.run.states import KEEP_STATES
from cbtools.stores import tells_trouble


@tells_trouble
def run_job(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    channel_config: Mapping[str, Mapping[str, Any]] | None = None,
    channels: Collection[str] | None = None,
    products: Collection[str] | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    delete_after_processing: bool = False,
    processing_dir: str | os.PathLike[str] | None = None,
    done_dir: str | os.PathLike[str] | None = None,
    failed_dir: str | os.PathLike[str] | None = None,
    keep_states: int = KEEP_STATES,
    strict: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    chunk_bytes: int = CHUNK_BYTES,
    max_line_mb: float = MAX_LINE_MB,
) -> JobReport:
    """Turn a folder of raw segments into partitioned Parquet, each of them exactly once.

    Each segment is claimed (one rename, from ``ready/`` to ``processing/``), written under temporary names,
    published, recorded in ``output_dir/_runs/<segment>.json``, its state kept, and only then released: moved
    to ``done/``, or deleted. After a crash at any instant the next job finishes or repeats what was in hand,
    and the dataset ends the same, row for row. One job at a time works on a folder.

    Segments are run in the order of their frames: one whose first frame has the number due behind another's
    last follows it, whatever their names and clocks say. The rows are those of `run_segment` called for one
    after another in that order, however many are run side by side.

    A segment whose content is in the dataset already is skipped; one with the name of another, but of other
    content, is run as ``<name>-<8 digits of its checksum>``. One that cannot be read, or in which no line is
    understood, goes to ``failed/``, with its error beside it, and the others go on.

    Parameters
    ----------
    input_dir : path-like
        The folder of closed segments, as ``raw/ready/coinbase``.
    output_dir : path-like
        Root of the datasets, as ``processed/coinbase``; or its URL in a store, where nothing is locked: see
        to it that no other job or compaction works on it. (Workers of an `executor` then share the temporary
        folder, too.)
    channel_config : mapping, optional
        As in `run_segment`.
    channels : collection of str, optional
        Write only these tables.
    products : collection of str, optional
        Write only rows of these products.
    since, until : datetime, date or str, optional
        Only segments with frames in [since, until), by the times of their first and last frame; without a
        zone, UTC. The others stay where they are.
    workers : int, optional
        How many segments are worked on at a time. From 2 on each in a process of its own (guard the call by
        ``if __name__ == "__main__"`` in a script), else in this one, which uses several cores, too.
    executor : concurrent.futures.Executor, optional
        Who does the work instead: e.g. ``Client(...).get_executor()`` of dask.distributed, over many machines
        that share a file system. It is given ``workers`` tasks at a time (by default as many as there are
        cores here).
    delete_after_processing : bool
        Delete a segment, when its rows are in the dataset and recorded there, instead of moving it to
        ``done/``.
    processing_dir, done_dir, failed_dir : path-like, optional
        Where segments are claimed to and released to; on the same file system. By default beside ``ready``:
        ``raw/processing/coinbase``; or in input_dir, where there is no ``ready`` in its path.
    keep_states : int
        As in `run_segment`.
    strict : bool
        A line that is not understood makes a segment bad; and the first bad segment ends the job.
    dry_run : bool
        Move and write nothing; report what would be done. (The segments are read, for their checksums.)
    progress : bool
        Show a progress bar over the segments' bytes.
    chunk_bytes : int
        About how much of a segment each worker holds at a time, bytes. It does not change the result.
    max_line_mb : float
        As in `run_segment`.

    Returns
    -------
    JobReport
        A row a segment, gaps, quarantine, and coverage by product and hour.

    Raises
    ------
    ConfigError
        If an argument cannot be meant; nothing is moved then.
    JobError
        If another job works on the folder, or the workers die again and again.
    DatasetError
        If output_dir or a folder cannot be written to; what was in hand is given back.
    SegmentError, StateError
        With ``strict``, at the first bad segment.

    Warns
    -----
    CbtoolsWarning
        Once for all segments: if a recorder's clock was off in any, or if no segment has rows of a product
        that was asked for.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cb.simulate_segments(folder, levels=50, megabytes=0.3, segment_mb=0.2)
    ...     report = cb.run_job(f"{folder}/raw/ready/coinbase", f"{folder}/processed", progress=False)
    >>> report.segments["outcome"].to_list()
    ['done', 'done']
    """
    started = time.perf_counter()
    options = read_options(
        input_dir,
        output_dir,
        channel_config=channel_config,
        channels=channels,
        products=products,
        since=since,
        until=until,
        delete_after_processing=delete_after_processing,
        processing_dir=processing_dir,
        done_dir=done_dir,
        failed_dir=failed_dir,
        keep_states=keep_states,
        strict=strict,
        chunk_bytes=chunk_bytes,
        max_line_mb=max_line_mb,
    )
    pool, log = WorkerPool(workers, executor), RunLog()
    with _Bar(shown=progress) as bar:
        if dry_run:
            _look(options, log, bar)
        else:
            with begun_job(options, pool, log, bar.tell) as job:
                waiting = job.waiting()
                bar.begin(waiting)
                for _ in job.work(waiting):
                    pass
    report = log.report(time.perf_counter() - started)
    warn_of_job(report.clock, set(products or ()) - log.seen if report.done else ())
    return report


def _look(options: Options, log: RunLog, bar: _Bar) -> None:
    """Tell what would be done."""
    folders, parameters = options.folders, parameters_of(options.task)
    known, waiting = Known(options.task.root), waiting_in(options.folders, options.takes)
    claimed = {one.segment for one in waiting if folders.is_claimed(one.path)}
    bar.begin(waiting)
    for one in waiting:
        outcome: Outcome = "would run"
        segment, reason = one.segment, None
        try:
            content = checksum(one.path)
        except SegmentError as error:
            reason = str(error)
        else:
            there = known.segment_of(content)
            if there is not None and not (there == segment and folders.is_claimed(one.path)):
                outcome, reason = "would skip", known.reason(content, parameters)
            elif not folders.is_claimed(one.path):
                segment = known.name_for(segment, content, claimed)
            known.add(content.sha256, there or segment, parameters)
        bar.tell(
            log.add(
                outcome, segment=segment, source=one.path.name, source_bytes=one.source_bytes, reason=reason
            )
        )


class _Bar:
    """A progress bar over the bytes of segments, or none."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None
        self._segments = self._done = 0

    def begin(self, waiting: Collection[Waiting]) -> None:
        """Show what is to be done."""
        if self._shown:
            from tqdm.auto import tqdm

            self._segments = len(waiting)
            total = sum(one.source_bytes for one in waiting)
            self._bar = tqdm(total=total, desc=f"0/{self._segments} segments", unit="B", unit_scale=True)

    def tell(self, row: Mapping[str, Any]) -> None:
        """Note what became of a segment."""
        if self._bar is not None:
            self._done += 1
            self._bar.set_description(f"{self._done}/{self._segments} segments", refresh=False)
            self._bar.update(row["source_bytes"])

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
