"""scan_raw and read_raw: raw segments as lazy tables, or all of their tables at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, Protocol, get_args

import polars as pl

from cbtools.errors import ConfigError, unknown_name, warn
from cbtools.lazy import source as lazy_source
from cbtools.lazy import values_of
from cbtools.raw.files import MAX_LINE_MB, Source, check_max_line, find_segments
from cbtools.raw.piece import Wanted
from cbtools.raw.report import RawReport
from cbtools.raw.sequence import Stream
from cbtools.raw.stream import CHUNK_BYTES, Reading, check_chunk
from cbtools.schema import CHANNELS, RAW, SEGMENT, schema

Channel = Literal[
    "level2",
    "market_trades",
    "ticker",
    "ticker_batch",
    "candles",
    "heartbeats",
    "status",
    "subscriptions",
    "errors",
]


class Start(Protocol):
    """What has a stream to go on from: a `cbtools.BookState`."""

    @property
    def stream(self) -> Stream:
        """The state of the stream."""


_MOST_PRODUCTS = 1000
"""More than so many names are not looked for while decoding, but filtered afterwards."""


def scan_raw(
    source: Source,
    channel: Channel,
    *,
    products: Collection[str] | None = None,
    segment: bool = False,
    start: Start | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    max_line_mb: float = MAX_LINE_MB,
) -> pl.LazyFrame:
    """Scan one channel of raw segments lazily.

    Nothing is read before the query runs; then the segments are read as one stream, in bounded memory, on all
    cores. Only what the query needs is decoded: lines of other channels and of products ruled out by
    ``products`` or by the query's predicate are skipped behind their header, and columns not needed are not
    built. Lines that are not understood are left out here: `read_raw` gives them.

    Some rows of level2 are markers, with null in side, price and size. With is_snapshot, the product's book
    is empty from here; without it, its sequence is broken from here (a gap, a reconnect, a lost line), and a
    book is unproven until the next snapshot. A product that had rows has one for each break, unless its last
    row is one already. So the rows of one product alone tell what its book is worth. A marker has the times
    of the line that shows the break; a server_time that is null there, or before the connection's latest,
    is raised to that, so that the marker sorts behind the rows before it.

    A line is read as a whole or rejected as a whole: of a frame with one bad ticker, no ticker is a row. What
    can be read of a rejected line counts: its number, so that it is not reported as lost, and the products
    whose changes it holds, whose books alone it breaks. Of a line of which nothing can be read, the next
    number shows whether it was a frame; where there are no numbers, as on the Exchange feed, the next frame
    breaks all books. A message of the Exchange feed without levels breaks none. A frame is a repeat only if
    all but its capture_ts is the same; else a number that was there before begins a new connection, and so
    does a frame of the other feed. Of a damaged compressed file, all lines are read that its bytes yield.

    Parameters
    ----------
    source : path-like, or list of path-like
        A segment, a glob pattern, a folder of segments, or a list of these; plain, gzip or zstd; of the disk,
        or of a store by URLs (``s3://bucket/raw/*.ndjson``; ``pip install "cbtools[cloud]"``). Files of a
        pattern or a folder are read in the order of their names, as one stream: a connection that goes on in
        the next file goes on in the table.
    channel : str
        A table of messages: one of `cbtools.schema.CHANNELS`.
    products : collection of str, optional
        Only rows of these products.
    segment : bool
        Add the column ``segment``: the name of the file that the row's ``line`` counts in.
    start : BookState, optional
        The state before the first line: its connection goes on where the state ended, if the numbers of the
        frames say so. For a segment that starts in mid-connection.
    chunk_bytes : int
        About how much of a file is held at a time, bytes. It does not change the result.
    max_line_mb : float
        A longer line, MiB, is not read, and never in memory as a whole.

    Returns
    -------
    polars.LazyFrame
        The columns of ``cbtools.schema.TABLES[channel]``, in the order of the lines.

    Raises
    ------
    ConfigError
        If the channel does not exist, start is not a state, chunk_bytes is below 1, or max_line_mb is not
        above 0.
    SegmentError
        If the source names no file (at once), or a file cannot be read (when the query runs).

    Examples
    --------
    >>> import cbtools as cb
    >>> trades = cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"])
    >>> trades.select("price", "aggressor_side").head(2).collect().shape
    (2, 2)
    """
    if channel not in CHANNELS:
        raise unknown_name("channel", channel, get_args(Channel))
    paths = find_segments(source)
    wanted_products = check_products(products)
    check_chunk(chunk_bytes)
    check_max_line(max_line_mb)
    stream = stream_of(start)
    columns = _with_segment(channel, segment)

    def batches(names: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        chosen = wanted_products
        if predicate is not None and "product_id" in columns:
            ruled_in = values_of(predicate, "product_id")
            if ruled_in is not None:
                chosen = tuple(ruled_in if chosen is None else ruled_in & set(chosen))
        late = chosen is not None and len(chosen) > _MOST_PRODUCTS
        asked = frozenset(names) | ({"product_id"} if late else set())
        wanted = Wanted({channel: asked}, None if late else chosen)
        reading = Reading(paths, wanted, chunk_bytes=chunk_bytes, max_line_mb=max_line_mb, start=stream)
        for batch in reading:
            frame = batch.tables.get(channel)
            if frame is not None:
                yield frame.filter(pl.col("product_id").is_in(chosen or ())) if late else frame
        for name, why in reading.report.no_recording.items():
            warn(f"{name} is not a recording: {why}")

    return lazy_source(batches, columns, f"RAW {channel}")


@dataclass(frozen=True)
class RawTables:
    """Every table of raw segments, and what was found in them."""

    level2: pl.DataFrame
    market_trades: pl.DataFrame
    ticker: pl.DataFrame
    ticker_batch: pl.DataFrame
    candles: pl.DataFrame
    heartbeats: pl.DataFrame
    status: pl.DataFrame
    subscriptions: pl.DataFrame
    errors: pl.DataFrame
    gaps: pl.DataFrame
    rejects: pl.DataFrame
    report: RawReport

    def __str__(self) -> str:
        return str(self.report)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def read_raw(
    source: Source,
    *,
    segment: bool = False,
    start: Start | None = None,
    strict: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    max_line_mb: float = MAX_LINE_MB,
) -> RawTables:
    """Read all channels of raw segments in one pass.

    Parameters
    ----------
    source : path-like, or list of path-like
        As in `scan_raw`.
    segment : bool
        Add the column ``segment`` to every table: the name of the file that the row's ``line`` counts in.
    start : BookState, optional
        The state before the first line, as in `scan_raw`.
    strict : bool
        Raise at the first line that is not understood, where it would else become a row of ``rejects``.
    chunk_bytes : int
        About how much of a file is held at a time while decoding, bytes. It does not change the result.
    max_line_mb : float
        A longer line, MiB, is rejected with its first 4,096 bytes; it is never in memory as a whole.

    Returns
    -------
    RawTables
        A frame for each table in `cbtools.schema.RAW`, and ``report``.

    Raises
    ------
    ConfigError
        If start is not a state, chunk_bytes is below 1, or max_line_mb is not above 0.
    SegmentError
        If the source names no file, a file cannot be read, or (strict) a line is not understood.

    Examples
    --------
    >>> import cbtools as cb
    >>> tables = cb.read_raw(cb.sample_path())
    >>> tables.gaps.columns
    ['stream', 'connection', 'expected', 'got', 'capture_time', 'line', 'products']
    """
    wanted = Wanted({table: frozenset(_with_segment(table, segment)) for table in RAW}, whole=True)
    reading = Reading(
        find_segments(source),
        wanted,
        chunk_bytes=chunk_bytes,
        max_line_mb=max_line_mb,
        strict=strict,
        start=stream_of(start),
    )
    frames = {table: [_empty(table, segment)] for table in RAW}
    for batch in reading:
        for table, frame in batch.tables.items():
            frames[table].append(frame)
    tables: dict[str, Any] = {table: pl.concat(found).rechunk() for table, found in frames.items()}
    assert {field.name for field in fields(RawTables)} == {*tables, "report"}
    return RawTables(**tables, report=reading.report)


@cache
def _empty(table: str, segment: bool) -> pl.DataFrame:
    """Return a table without rows. Making all for each call took a third of a small file's time."""
    return pl.DataFrame(schema=_with_segment(table, segment))


def _with_segment(table: str, segment: bool) -> pl.Schema:
    return pl.Schema({**schema(table), SEGMENT.name: SEGMENT.dtype}) if segment else schema(table)


def stream_of(start: Start | None) -> Stream | None:
    """Give the stream to start from, or refuse what has none."""
    stream = None if start is None else getattr(start, "stream", start)
    if stream is not None and not isinstance(stream, Stream):
        raise ConfigError(f"start must be a BookState, not {start!r}")
    return stream


def check_products(products: Collection[str] | None) -> tuple[str, ...] | None:
    """Check a list of products; None stands for all."""
    if products is None:
        return None
    listed = isinstance(products, Collection) and not isinstance(products, str)
    if not listed or not all(isinstance(product, str) for product in products):
        raise ConfigError(f"products must be a list of product ids, e.g. ['BTC-USD'], not {products!r}")
    return tuple(dict.fromkeys(products))
