"""run_segment: one raw segment → partitioned Parquet, in one pass; inspect_raw: the same without writing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cbtools.book.rebuilder import BookOptions
from cbtools.book.state import LEVEL2, BookState, Follower
from cbtools.book.states import check_state_folder, keep_state
from cbtools.book.tickers import BOOK, TICKER, Agreement
from cbtools.errors import ConfigError, DatasetError, SegmentError
from cbtools.raw.files import MAX_LINE_MB, Source, check_max_line, find_segments, segment_name
from cbtools.raw.piece import Wanted
from cbtools.raw.report import listed
from cbtools.raw.scan import check_products
from cbtools.raw.stream import CHUNK_BYTES, Reading, check_chunk
from cbtools.run.config import read_config
from cbtools.run.doubts import warn_of_books, warn_of_clock, warn_of_lines, warn_of_no_rows
from cbtools.run.draft import Task, columns_counted, draft_segment
from cbtools.run.report import InspectReport, SegmentReport
from cbtools.run.states import KEEP_STATES, Found, check_keep, find_state, first_of_recording
from cbtools.stores import as_place, tells_trouble


@tells_trouble
def run_segment(
    segment: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    channel_config: Mapping[str, Mapping[str, Any]] | None = None,
    products: Collection[str] | None = None,
    state: BookState | None = None,
    keep_states: int = KEEP_STATES,
    strict: bool = False,
    progress: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    max_line_mb: float = MAX_LINE_MB,
) -> SegmentReport:
    """Turn one raw segment into partitioned Parquet, in one pass over the file, with the book rebuilt.

    Nothing is seen in ``out`` before the whole segment has been read and its parts are on disk; running the
    segment again replaces its parts and touches no others. Lines that are not understood go to
    ``out/_quarantine/<segment>.ndjson``, one object a line: line, byte_offset, size, reason, and raw as text
    (or as ``raw_base64``, where the bytes are no UTF-8).

    The books and the connection go on from segment to segment: the state after each is kept under
    ``out/_state/``, and a segment starts from the one that its first frame continues. Where there is none, it
    starts from the last state before it, and its first frame breaks all books until their next snapshot; so
    does a run with other ``products`` or without level2 to the books whose rows it leaves out. Without any
    state (none is kept any more, ``state=BookState()``, or segments run out of order) nothing is known of
    the products before, and no marker ends their last row: `book_at` shows its age.
    (The Exchange feed has no numbers, so that a segment left out is not seen in it.)

    Parameters
    ----------
    segment : path-like
        The raw segment: plain, gzip or zstd; its path, or its URL in a store.
    out : path-like
        Root of the datasets: each table is a folder of it. A path, or a URL in a store: what that changes in
        publishing, see `cbtools.write_dataset`.
    channel_config : mapping, optional
        Table → ``{"partition_cols": [...], "processor_options": {...}}``; the tables named are written. By
        default level2 and market_trades by product_id and date, and ticker by date and hour. Options of
        level2: ``reconstruct_lob`` (the table ``book`` beside level2; true by default), ``depth``, ``on``,
        ``gaps`` and ``bands_bps`` as in `cbtools.rebuild_book`, and ``compute_features`` (true by default):
        the usual features of the book, as of `cbtools.add_book_features` over all segments as one stream
        (of ``on="bbo"`` without order flow below the best); and to trades notional and signed_size. Quotes
        are not written beside trades: see `cbtools.join_quotes`. False: without these, and no bands.
    products : collection of str, optional
        Write only rows of these products.
    state : BookState, optional
        The state to start from, whatever is in ``out/_state/``; ``BookState()`` to start from nothing.
    keep_states : int
        How many states are kept in ``out/_state/``, those written last. A segment from further back, run
        again, starts from nothing: its rows before the next snapshot are then gone. Give its ``state``.
    strict : bool
        Raise at the first line that is not understood, and write nothing.
    progress : bool
        Show a progress bar over the file's bytes.
    chunk_bytes : int
        About how much of the file is held at a time, bytes. It does not change the result.
    max_line_mb : float
        A longer line, MiB, is rejected with its first 4,096 bytes; it is never in memory as a whole.

    Returns
    -------
    SegmentReport
        What was found and what was written.

    Raises
    ------
    ConfigError
        If the configuration is not understood, or another argument cannot be meant; at once.
    StateError
        With the option ``gaps="raise"``, at the first unproven row of a book; nothing is written then.
    SegmentError
        If the segment is not one file, cannot be read, is not a recording (of none of its lines a frame's
        header can be read; the message names the apparent format), or (strict) holds a line not understood.
    DatasetError
        If ``out`` cannot be written to, or holds the table partitioned by other columns.

    Warns
    -----
    CbtoolsWarning
        If the recorder's clock is off (see `RawReport.delays`), more than half of the messages of a product
        left its book unproven, or there are no rows of a product or table that was asked for by name.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as out:
    ...     report = cb.run_segment(sorted(cb.sample_path().iterdir())[0], out)
    >>> list(report.written)
    ['level2', 'market_trades', 'ticker', 'book']
    """
    started = time.perf_counter()
    config = read_config(channel_config)
    check_keep(keep_states)
    check_chunk(chunk_bytes)
    check_max_line(max_line_mb)
    if state is not None and not isinstance(state, BookState):
        raise ConfigError(f"state must be a BookState, e.g. BookState.load(path), not {state!r}")
    paths = find_segments(segment)
    if len(paths) != 1:
        raise SegmentError(
            f"run_segment takes one segment, and {segment} names {len(paths)}: call it for each"
        )
    path, name, root = paths[0], segment_name(paths[0]), as_place(out)
    task = Task(root, config, chunk_bytes, check_products(products), strict, max_line_mb)
    first = first_of_recording(path, max_line_mb)
    check_state_folder(root)
    found = Found(state, "the state given") if state is not None else find_state(root, first, name)
    with _ProgressBar(path.stat().st_size, name, shown=progress) as told:
        drafted = draft_segment(task, path, name, found.state, told)
    try:
        written, quarantine = drafted.publish()
        keep_state(root, name, drafted.state, keep_states)
    except OSError as error:
        raise DatasetError(f"cannot write to {root}: {error.strerror or error}") from error
    finally:
        drafted.drop()  # of what is published nothing is left to drop
    warn_of_no_rows(drafted.rows, task.products or (), _asked(channel_config), name)
    warn_of_lines(drafted.raw, name)
    warn_of_clock(drafted.raw.receive_delays, name)
    warn_of_books(drafted.book, name)
    return SegmentReport(
        segment=name,
        raw=drafted.raw,
        book=drafted.book,
        started_from=found.whence,
        written=written,
        quarantine=quarantine,
        seconds=time.perf_counter() - started,
        source_bytes=drafted.source_bytes,
    )


def inspect_raw(
    source: Source,
    *,
    progress: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    max_line_mb: float = MAX_LINE_MB,
) -> InspectReport:
    """Read raw segments for what is in them, rebuild the books, and write nothing.

    The best prices that each ticker of the feed names are compared with those of the product's book after the
    last message before it.

    Parameters
    ----------
    source : path-like, or list of path-like
        As in `cbtools.scan_raw`.
    progress : bool
        Show a progress bar over the files' bytes.
    chunk_bytes : int
        About how much of a file is held at a time, bytes.
    max_line_mb : float
        A longer line, MiB, is rejected with its first 4,096 bytes; it is never in memory as a whole.

    Returns
    -------
    InspectReport
        ``raw``: what was found in the lines; ``book``: what the books met.

    Raises
    ------
    ConfigError
        If chunk_bytes is below 1, or max_line_mb not above 0.
    SegmentError
        If the source names no file, or a file cannot be read.

    Warns
    -----
    CbtoolsWarning
        If the recorder's clock is off (see `RawReport.delays`), or more than half of the messages of a
        product left its book unproven.

    Examples
    --------
    >>> import cbtools as cb
    >>> report = cb.inspect_raw(cb.sample_path())
    >>> report.raw.connections, report.book.products["BTC-USD"].agreement
    (2, 1.0)
    """
    paths = find_segments(source)
    columns = columns_counted()
    columns |= {"level2": LEVEL2, "ticker": frozenset(TICKER)}
    size = sum(path.stat().st_size for path in paths)
    with _ProgressBar(size, f"{len(paths)} segments", shown=progress) as told:
        wanted = Wanted(columns, whole=True)
        reading = Reading(paths, wanted, chunk_bytes=chunk_bytes, max_line_mb=max_line_mb, progress=told)
        follower, agreement = Follower(reading, BookOptions(depth=1), columns=BOOK), Agreement()
        for batch in reading:
            agreement.add(follower(batch.tables.get("level2")), batch.tables.get("ticker"))
    report = InspectReport(reading.report, follower.report(agreement.found()))
    where = listed(report.raw.segments)
    warn_of_clock(report.raw.receive_delays, where)
    warn_of_books(report.book, where)
    return report


def _asked(channel_config: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """Return the tables that were asked for by name; that there are no errors is as it should be."""
    return [table for table in channel_config or {} if table != "errors"]


class _ProgressBar:
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
