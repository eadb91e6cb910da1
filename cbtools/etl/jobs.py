"""ETLJob: a folder of segments, by the functions of `cbtools.run`."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from cbtools.etl.config import ChannelConfig, read_channel_config
from cbtools.etl.counts import Counted
from cbtools.etl.days import days
from cbtools.etl.parsers import check_source
from cbtools.run.job import run_job
from cbtools.run.job_report import JobReport
from cbtools.run.report import SegmentReport
from cbtools.run.segment import run_segment


@dataclass(frozen=True)
class ETLJob(Counted):
    """Turns a folder of raw segments into partitioned Parquet, by `cbtools.run_job`.

    Parameters
    ----------
    input_dir : path-like
        The folder of closed segments, as ``raw/ready/coinbase``.
    output_dir : path-like
        Root of the datasets, as ``processed/coinbase``.
    channel_config : mapping, optional
        As in `cbtools.run_segment`. ``max_levels`` is another word for ``depth``. ``add_derived_fields`` and
        ``infer_aggressor`` are taken and change nothing: mid, spread and the like are among the features of
        the book, and the aggressor's side is always there. (Of tickers nothing is derived: it warns.)
    delete_after_processing : bool
        Delete a segment when its rows are in the dataset, instead of moving it to ``done/``.
    processing_dir : path-like, optional
        Where segments are claimed to, on the same file system; by default beside ``ready``.
    source : {"coinbase"}
        Whose segments.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ConfigError
        If the configuration is not understood, or the source is not known.

    Notes
    -----
    What is not as in the earlier package:

    - The input is kept, in ``done/``, unless ``delete_after_processing=True`` says otherwise (that was the
      default).
    - Nothing is swallowed. A bad segment goes to ``failed/`` with its error, and the report names it; a line
      that is not understood goes to ``_quarantine/``; an input folder that is not there raises.
    - The book is rebuilt and has its features unless ``reconstruct_lob`` and ``compute_features`` say
      otherwise; it is a table of its own, ``book``, beside ``level2``.
    - Columns have the names, dtypes and units of `cbtools.schema`: numbers where there were texts, and
      ``price`` and ``size``, not ``price_level`` and ``new_quantity``.
    - A segment's parts are named after it: run again, it replaces them.
    - Days are those of the content (UTC), not of the files' names.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cb.simulate_segments(folder, levels=50, megabytes=0.3, segment_mb=0.2)
    ...     job = ETLJob(f"{folder}/raw/ready/coinbase", f"{folder}/processed", progress=False)
    ...     report = job.process_all()
    >>> report.done, job.get_stats()["segments_done"]
    (2, 2)
    """

    input_dir: str | os.PathLike[str]
    output_dir: str | os.PathLike[str]
    _: KW_ONLY
    channel_config: ChannelConfig | None = None
    delete_after_processing: bool = False
    processing_dir: str | os.PathLike[str] | None = None
    source: Literal["coinbase"] = "coinbase"
    progress: bool = True

    def __post_init__(self) -> None:
        check_source(self.source)
        read_channel_config(self.channel_config)

    def process_all(self) -> JobReport:
        """Run all segments of the folder, each exactly once.

        Returns
        -------
        JobReport
            What was done, skipped and failed, and what the segments held.

        Raises
        ------
        ConfigError, JobError, DatasetError
            As `cbtools.run_job`.
        """
        return self._run()

    def process_date_range(self, start_date: str | date, end_date: str | date | None = None) -> JobReport:
        """Run the segments with frames of these days (UTC); the others stay where they are.

        Parameters
        ----------
        start_date, end_date : str, datetime.date or datetime.datetime
            The first and the last day, both included; without an end, the first alone.

        Returns
        -------
        JobReport

        Raises
        ------
        ConfigError
            If one is no day, or the last comes before the first; and as `process_all`.
        """
        since, until = days(start_date, end_date)
        return self._run(since=since, until=until)

    def process_segment(self, path: str | os.PathLike[str]) -> SegmentReport:
        """Run one segment, wherever it is, by `cbtools.run_segment`.

        It stays where it is, or is deleted when its rows are in the dataset. A later job on its folder runs
        it again and replaces its parts. Leave it alone while a job is at work on the folder.

        Parameters
        ----------
        path : path-like
            The raw segment.

        Returns
        -------
        SegmentReport
            What was found and what was written.

        Raises
        ------
        SegmentError, DatasetError
            As `cbtools.run_segment`; the segment is not deleted then.
        """
        config = read_channel_config(self.channel_config)
        report = run_segment(path, self.output_dir, channel_config=config, progress=self.progress)
        if self.delete_after_processing:
            Path(path).unlink()
        self._count(done=1, lines=report.raw.lines, rows=report.rows.values(), rejects=report.raw.rejected)
        return report

    def _run(self, **when: Any) -> JobReport:
        report = run_job(
            self.input_dir,
            self.output_dir,
            channel_config=read_channel_config(self.channel_config),
            delete_after_processing=self.delete_after_processing,
            processing_dir=self.processing_dir,
            progress=self.progress,
            **when,
        )
        found = report.segments
        self._count(
            done=report.done,
            skipped=report.skipped,
            failed=report.failed,
            lines=int(found["lines"].sum()),
            rows=found["rows"].drop_nulls(),
            rejects=int(found["rejects"].sum()),
        )
        return report

    def _count(
        self, *, lines: int, rows: Any, rejects: int, done: int = 0, skipped: int = 0, failed: int = 0
    ) -> None:
        self.stats["segments_done"] += done
        self.stats["segments_skipped"] += skipped
        self.stats["segments_failed"] += failed
        self.stats["records_read"] += lines
        self.stats["records_written"] += sum(rows)
        self.stats["errors"] += rejects
