"""job_status: how far the jobs on a folder are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cbtools.lock import holder
from cbtools.raw.report import as_html, as_text, number
from cbtools.run.folders import Folders, segments_in
from cbtools.run.manifest import read_manifests
from cbtools.stores import as_place, tells_trouble


@dataclass(frozen=True)
class JobStatus:
    """How far the jobs on a folder are.

    Attributes
    ----------
    ready, processing, done, failed : int
        Segments in these folders.
    ready_bytes : int
        Bytes of the files that are ready.
    holder : str or None
        Which job works on it, if one does.
    runs : int
        Segments that are in the dataset, by their manifests.
    rows, raw_bytes, gaps, rejects : int
        Rows of all tables, bytes of lines, breaks of the sequence and lines not understood, of all runs.
    last : str or None
        The segment finished last.
    last_finished : datetime.datetime or None
        When it was.
    last_time : datetime.datetime or None
        The latest time of a frame in the dataset, UTC.
    failures : tuple of pathlib.Path
        The segments that failed; beside each lies what is wrong with it.
    """

    ready: int = 0
    processing: int = 0
    done: int = 0
    failed: int = 0
    ready_bytes: int = 0
    holder: str | None = None
    runs: int = 0
    rows: int = 0
    raw_bytes: int = 0
    gaps: int = 0
    rejects: int = 0
    last: str | None = None
    last_finished: datetime | None = None
    last_time: datetime | None = None
    failures: tuple[Path, ...] = ()

    def items(self) -> list[tuple[str, str]]:
        """Give the status as pairs of a label and a text, as it is printed."""
        shown = [
            ("job", self.holder or "none is at work"),
            ("ready", f"{number(self.ready, 'segment')}, {self.ready_bytes / 1e6:,.1f} MB"),
            ("processing", number(self.processing, "segment")),
            ("done", number(self.done, "segment")),
            ("failed", number(self.failed, "segment")),
            ("in the dataset", f"{number(self.runs, 'segment')}, {number(self.rows, 'row')}"),
            ("raw", f"{self.raw_bytes / 1e6:,.1f} MB of lines"),
            ("gaps", f"{self.gaps:,}"),
            ("rejects", number(self.rejects, "line")),
        ]
        if self.last_finished is not None:
            shown.append(("last", f"{self.last}, finished {self.last_finished:%F %T} UTC"))
        if self.last_time is not None:
            shown.append(("latest frame", f"{self.last_time:%F %T} UTC"))
        shown += [("failure", str(path)) for path in self.failures]
        return shown

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        return as_html("Status", self.items())


@tells_trouble
def job_status(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    processing_dir: str | os.PathLike[str] | None = None,
    done_dir: str | os.PathLike[str] | None = None,
    failed_dir: str | os.PathLike[str] | None = None,
) -> JobStatus:
    """Tell how far the jobs on a folder are; nothing is touched.

    Parameters
    ----------
    input_dir, output_dir, processing_dir, done_dir, failed_dir : path-like
        As in `run_job`.

    Returns
    -------
    JobStatus

    Raises
    ------
    ConfigError
        If input_dir is no folder of segments.
    DatasetError
        If a manifest cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cb.simulate_segments(folder, levels=50, megabytes=0.3, segment_mb=0.2)
    ...     status = cb.job_status(f"{folder}/raw/ready/coinbase", f"{folder}/processed")
    >>> status.ready, status.runs
    (2, 0)
    """
    folders, root = Folders.of(input_dir, processing_dir, done_dir, failed_dir), as_place(output_dir)
    waiting, failed = segments_in(folders.ready), segments_in(folders.failed)
    last, spans = None, []
    runs = rows = raw_bytes = gaps = rejects = 0
    for manifest in read_manifests(root):
        told = manifest.told
        runs += 1
        rows += manifest.rows
        raw_bytes += told["source"]["raw_bytes"]
        gaps += len(told["gaps"])
        rejects += sum(told["rejects"].values())
        last = manifest if last is None or last.told["finished_at"] <= told["finished_at"] else last
        spans += told["time_span"][1:]
    return JobStatus(
        ready=len(waiting),
        processing=len(segments_in(folders.processing)),
        done=len(segments_in(folders.done)),
        failed=len(failed),
        ready_bytes=sum(path.stat().st_size for path in waiting),
        holder=holder(folders.processing),
        runs=runs,
        rows=rows,
        raw_bytes=raw_bytes,
        gaps=gaps,
        rejects=rejects,
        last=None if last is None else last.segment,
        last_finished=None if last is None else datetime.fromisoformat(last.told["finished_at"]),
        last_time=max((datetime.fromisoformat(text) for text in spans), default=None),
        failures=tuple(failed),
    )
