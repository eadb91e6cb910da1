"""run_segment: one raw segment → partitioned Parquet, in one pass; inspect_raw: the same without writing."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from cbtools.dataset import DatasetWriter
from cbtools.errors import DatasetError, SegmentError
from cbtools.raw.files import Source, find_segments, segment_name
from cbtools.raw.piece import Wanted
from cbtools.raw.report import RawReport
from cbtools.raw.stream import CHUNK_BYTES, Batch, Reading
from cbtools.run.config import read_config
from cbtools.run.quarantine import Quarantine
from cbtools.run.report import SegmentReport
from cbtools.schema import CHANNELS, schema

_BEHIND: Final = 6
"""How many batches may wait to be written; a row group of several is encoded at once, in bursts."""
_COUNTED: Final = frozenset({"product_id"})
_REJECTS: Final = frozenset(schema("rejects"))


def run_segment(
    segment: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    channel_config: Mapping[str, Mapping[str, Any]] | None = None,
    strict: bool = False,
    progress: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> SegmentReport:
    """Turn one raw segment into partitioned Parquet, in one pass over the file.

    Nothing is seen in ``out`` before the whole segment has been read and its parts are on disk; running the
    segment again replaces its parts and touches no others. Lines that are not understood go to
    ``out/_quarantine/<segment>.ndjson``, one object a line: line, byte_offset, reason, and raw as text (or as
    ``raw_base64``, where the bytes are no UTF-8).

    Parameters
    ----------
    segment : path-like
        The raw segment: plain, gzip or zstd.
    out : path-like
        Root of the datasets: each table is a folder of it.
    channel_config : mapping, optional
        Table → ``{"partition_cols": [...], "processor_options": {...}}``; the tables named are written. By
        default level2 and market_trades by product_id and date, and ticker by date and hour.
    strict : bool
        Raise at the first line that is not understood, and write nothing.
    progress : bool
        Show a progress bar over the file's bytes.
    chunk_bytes : int
        About how much of the file is held at a time, bytes. It does not change the result.

    Returns
    -------
    SegmentReport
        What was found and what was written.

    Raises
    ------
    ConfigError
        If the configuration is not understood; at once.
    SegmentError
        If the segment is not one file, cannot be read, or (strict) holds a line not understood.
    DatasetError
        If ``out`` cannot be written to, or holds the table partitioned by other columns.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as out:
    ...     report = cb.run_segment(sorted(cb.sample_path().iterdir())[0], out)
    >>> list(report.written)
    ['level2', 'market_trades', 'ticker']
    """
    started = time.perf_counter()
    configs = read_config(channel_config)
    paths = find_segments(segment)
    if len(paths) != 1:
        raise SegmentError(
            f"run_segment takes one segment, and {segment} names {len(paths)}: call it for each"
        )
    path, name, root = paths[0], segment_name(paths[0]), Path(out)
    columns = {table: _COUNTED & frozenset(schema(table)) for table in CHANNELS}
    columns |= {config.table: frozenset(schema(config.table)) for config in configs}
    try:
        with ExitStack() as stack:
            writers = {}
            for config in configs:
                writer = DatasetWriter(
                    root, table=config.table, partition_by=config.partition_by, segment=name
                )
                writers[config.table] = stack.enter_context(writer)
            quarantine = stack.enter_context(Quarantine(root, name))
            pool = stack.enter_context(ThreadPoolExecutor(1, "cbtools-write"))
            with _progress_bar(path.stat().st_size, name, shown=progress) as told:
                wanted = Wanted(columns | {"rejects": _REJECTS}, whole=True)
                reading = Reading(paths, wanted, chunk_bytes=chunk_bytes, progress=told, strict=strict)
                _write_behind(reading, writers, quarantine, pool)
            for writer in writers.values():
                writer.finish()
            written = {table: writer.publish() for table, writer in writers.items()}
            kept = quarantine.publish()
    except OSError as error:  # reading raises a SegmentError: this is of writing
        raise DatasetError(f"cannot write to {root}: {error.strerror or error}") from error
    return SegmentReport(
        segment=name,
        raw=reading.report,
        written=written,
        quarantine=kept,
        seconds=time.perf_counter() - started,
        source_bytes=path.stat().st_size,
    )


def inspect_raw(source: Source, *, progress: bool = False, chunk_bytes: int = CHUNK_BYTES) -> RawReport:
    """Read raw segments for what is in them, and write nothing.

    Parameters
    ----------
    source : path-like, or list of path-like
        As in `cbtools.scan_raw`.
    progress : bool
        Show a progress bar over the files' bytes.
    chunk_bytes : int
        About how much of a file is held at a time, bytes.

    Returns
    -------
    RawReport

    Raises
    ------
    SegmentError
        If the source names no file, or a file cannot be read.

    Examples
    --------
    >>> import cbtools as cb
    >>> cb.inspect_raw(cb.sample_path()).connections
    2
    """
    paths = find_segments(source)
    columns = {table: _COUNTED & frozenset(schema(table)) for table in CHANNELS}
    size = sum(path.stat().st_size for path in paths)
    with _progress_bar(size, f"{len(paths)} segments", shown=progress) as told:
        reading = Reading(paths, Wanted(columns, whole=True), chunk_bytes=chunk_bytes, progress=told)
        for _ in reading:
            pass
    return reading.report


def _write_behind(
    reading: Reading, writers: Mapping[str, DatasetWriter], quarantine: Quarantine, pool: ThreadPoolExecutor
) -> None:
    """Write batches in the other thread, in order, while the next ones are decoded."""

    def write(batch: Batch) -> None:
        for table, frame in batch.tables.items():
            if table in writers:
                writers[table].write(frame)
            elif table == "rejects":
                quarantine.write(frame)

    waiting: deque[Future[None]] = deque()
    for batch in reading:
        waiting.append(pool.submit(write, batch))
        if len(waiting) > _BEHIND:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()


class _progress_bar:
    """A bar over bytes while the block runs, or none; the block gets what is to be told of bytes read."""

    def __init__(self, total: int, name: str, *, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc=name, unit="B", unit_scale=True, leave=False)

    def __enter__(self) -> Callable[[int], object] | None:
        return None if self._bar is None else self._bar.update

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
