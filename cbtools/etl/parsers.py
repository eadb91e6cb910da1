"""The parsers: raw messages → the tables of `cbtools.schema`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import polars as pl

from cbtools.errors import ConfigError, SegmentError, unknown_name
from cbtools.etl.counts import Counted
from cbtools.etl.processors import BaseProcessor
from cbtools.etl.readers import NDJSONReader
from cbtools.lazy import source as lazy_source
from cbtools.lazy import values_of
from cbtools.raw.decode import decode_line
from cbtools.raw.files import Source, find_segments
from cbtools.raw.piece import Wanted
from cbtools.raw.report import RawReport
from cbtools.raw.scan import Channel
from cbtools.raw.stream import Batch, Reading
from cbtools.raw.values import NotUnderstood
from cbtools.schema import CHANNELS, FRAME, TIME, schema

MIXED: Final = tuple(channel for channel in CHANNELS if channel != "subscriptions")
"""The channels that a parser without a channel puts into one table."""

_RENAMED: Final = {"ticker": {"side": "taker_side"}, "ticker_batch": {"side": "taker_side"}}
"""Table → what its columns are called among those of all channels, where ``side`` is the book's."""

_UNTOLD: Final = ("stream", "connection", "line", "unbroken_since")
"""What one message alone does not tell."""


def mixed_schema() -> pl.Schema:
    """Return the columns of the table of all channels: ``channel``, then those of each, once.

    The side of a ticker is called ``taker_side`` there, since ``side`` is that of a level of the book.

    Returns
    -------
    polars.Schema

    Examples
    --------
    >>> mixed_schema().names()[:5]
    ['channel', 'product_id', 'is_snapshot', 'side', 'price']
    """
    merged: dict[str, Any] = {"channel": pl.String()}
    for channel in MIXED:
        merged |= _mixed(channel)
    frame = [column.name for column in FRAME]
    return pl.Schema({name: merged[name] for name in [*(n for n in merged if n not in frame), *frame]})


def _mixed(channel: str) -> dict[str, Any]:
    """Return a channel's columns by their names in the table of all channels."""
    renamed = _RENAMED.get(channel, {})
    return {renamed.get(name, name): dtype for name, dtype in schema(channel).items()}


@dataclass(frozen=True)
class RawParser(BaseProcessor):
    """Makes tables of the raw segments that an `NDJSONReader` names.

    In an `ETLPipeline` it stands directly behind the reader, and reads the segments itself, lazily: with a
    channel, the table that `cbtools.scan_raw` gives; without, the rows of all channels in the order of their
    lines, with the column ``channel``, and null in the columns that a row's channel does not have.
    (Subscriptions are left out there: they tell of the connection, not of the market.) Markers of level2 are
    left out, since code for the earlier package expects a price in every row; a `Level2Processor` that
    rebuilds the book directly after it gets them all the same.

    Counted are ``records_processed`` (lines), ``records_output`` (rows that the query asked for), ``errors``
    (lines that are not understood: `cbtools.read_raw` gives them) and ``duplicates`` (repeats dropped).

    Parameters
    ----------
    source : {"coinbase"}
        Whose messages.
    channel : str, optional
        A table of messages: one of `cbtools.schema.CHANNELS`. By default all of them in one.

    Raises
    ------
    ConfigError
        If the source or the channel is not known.

    Examples
    --------
    >>> import cbtools as cb
    >>> parser = RawParser(channel="market_trades")
    >>> parser.scan(cb.sample_path()).select("price").collect().height
    2425
    >>> parser.get_stats()["errors"]
    2
    """

    source: Literal["coinbase"] = "coinbase"
    channel: Channel | None = None

    def __post_init__(self) -> None:
        check_source(self.source)
        if self.channel is not None and self.channel not in CHANNELS:
            raise unknown_name("channel", self.channel, CHANNELS)

    def scan(
        self, source: Source, reader: NDJSONReader | None = None, *, markers: bool = False
    ) -> pl.LazyFrame:
        """Scan raw segments lazily.

        Parameters
        ----------
        source : path-like, or list of path-like
            As in `cbtools.scan_raw`.
        reader : NDJSONReader, optional
            Says whether a line that is not understood raises; gets the counts of the lines.
        markers : bool
            Keep the markers of level2: rows without side, price and size, for an empty snapshot or a break.

        Returns
        -------
        polars.LazyFrame
            The columns of the channel's table; without a channel those of `mixed_schema`.

        Raises
        ------
        SegmentError
            If the source names no file (at once), or a file cannot be read (when the query runs).
        """
        paths = find_segments(source)
        columns = mixed_schema() if self.channel is None else schema(self.channel)
        strict = reader is not None and reader.strict

        def batches(names: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            channels, products = self._limits(predicate)
            tables = {table: self._columns(table, names) | {"line"} for table in channels}
            if "level2" in tables:
                tables["level2"] |= {"side"}
            # whole: a line that is not understood is counted, whatever the query asks for
            reading = Reading(paths, Wanted(tables, products, whole=True), strict=strict)
            own, of_reader = self.stats, Counter() if reader is None else reader.stats
            try:
                for batch in reading:
                    frame = self._rows(batch if markers else _without_markers(batch), names, columns)
                    own["records_output"] += frame.height
                    yield frame
            finally:
                _count(reading.report, own, of_reader)

        return lazy_source(batches, columns, f"RAW {self.channel or 'all channels'}")

    def _limits(self, predicate: pl.Expr | None) -> tuple[list[str], tuple[str, ...] | None]:
        """Tell to which channels and products a predicate limits the rows."""
        channels = None if predicate is None else values_of(predicate, "channel")
        products = None if predicate is None else values_of(predicate, "product_id")
        if self.channel is not None:
            chosen: list[str] = [self.channel]
        else:
            chosen = [channel for channel in MIXED if channels is None or channel in channels]
        return chosen, None if products is None else tuple(sorted(products))

    def _columns(self, table: str, names: list[str]) -> frozenset[str]:
        """Return the columns of a table that are asked for by these names."""
        if self.channel is not None:
            return frozenset(names)
        return frozenset(own for own, name in zip(schema(table), _mixed(table), strict=True) if name in names)

    def _rows(self, batch: Batch, names: list[str], columns: pl.Schema) -> pl.DataFrame:
        if self.channel is not None:
            found = batch.tables.get(self.channel)
            return (columns.to_frame() if found is None else found).select(names)
        asked = {name: columns[name] for name in ["line", *names]}
        frames = [pl.DataFrame(schema=asked)]
        for channel, found in batch.tables.items():
            rows = found.rename(_RENAMED.get(channel, {}), strict=False)
            frames.append(rows.with_columns(pl.lit(channel).alias("channel")) if "channel" in asked else rows)
        return pl.concat(frames, how="diagonal").sort("line", maintain_order=True).select(names)

    def process(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Refuse a frame: what a message means is told by those before it, so the segments are read whole.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            "RawParser reads the segments itself: put it directly behind an NDJSONReader, first of an "
            "ETLPipeline's processors, or call RawParser(...).scan(path)"
        )


def _without_markers(batch: Batch) -> Batch:
    level2 = batch.tables.get("level2")
    if level2 is None or not level2["side"].null_count():
        return batch
    return Batch(batch.segment, {**batch.tables, "level2": level2.filter(pl.col("side").is_not_null())})


def _count(report: RawReport, own: Counter[str], of_reader: Counter[str]) -> None:
    own["records_processed"] += report.lines
    own["errors"] += report.rejected
    own["duplicates"] += report.duplicates + sum(report.duplicate_trades.values())
    of_reader["files_processed"] += len(report.segments)
    of_reader["records_read"] += report.lines
    of_reader["errors"] += report.rejected


RawProcessor = RawParser
"""`RawParser` by the other name that it had in the earlier package."""


@dataclass(frozen=True)
class CoinbaseParser(Counted):
    """Parses single messages: the records of `NDJSONReader.read`, or bare messages of a WebSocket.

    Counted are ``records_processed``, ``records_output`` and ``errors``.

    Examples
    --------
    >>> import cbtools as cb
    >>> records = NDJSONReader().read(cb.sample_path())
    >>> message = next(record for record in records if record["data"]["channel"] == "ticker")
    >>> (row,) = CoinbaseParser().parse_record(message)
    >>> row["channel"], row["product_id"], row["price"]
    ('ticker', 'BTC-USD', 87012.35)
    """

    def parse_record(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """Give the rows of a message.

        Parameters
        ----------
        record : dict
            A message, with or without the recorder's envelope.

        Returns
        -------
        list of dict
            A row a change, trade, ticker, ...: ``channel``, and the columns of its table but those that one
            message alone does not tell (stream, connection, line, unbroken_since). Times are Python's, to the
            microsecond. Of subscriptions, ``subscribed`` is the channel subscribed to.

        Raises
        ------
        SegmentError
            If the message is not understood; the reason says why.
        ConfigError
            If it is no dict.
        """
        if not isinstance(record, dict):
            raise ConfigError(f"a record must be a dict, as NDJSONReader().read(path) gives, not {record!r}")
        self.stats["records_processed"] += 1
        try:
            frame = decode_line(orjson.dumps(record))
        except (NotUnderstood, orjson.JSONEncodeError) as error:
            self.stats["errors"] += 1
            raise SegmentError(f"a record is not understood: {error}") from None
        columns = pl.Schema((n, dtype) for n, dtype in schema(frame.table).items() if n not in _UNTOLD)
        header = (frame.server_time, frame.capture_time, frame.sequence_num)
        sent = {name: pl.Int64() if dtype == TIME else dtype for name, dtype in columns.items()}
        changes = [row for row in frame.rows if frame.table != "level2" or row[2] is not None]
        rows = pl.DataFrame([(*row, *header) for row in changes], schema=sent, orient="row").cast(columns)
        self.stats["records_output"] += rows.height
        if frame.table == "subscriptions":  # whose own channel is another's
            rows = rows.rename({"channel": "subscribed"})
        return [{"channel": frame.table, **row} for row in rows.iter_rows(named=True)]


def check_source(source: str) -> None:
    """Refuse a source that is not known."""
    if source != "coinbase":
        raise unknown_name("source", source, ["coinbase"])
