"""Segments → frames of every table asked for, in one pass: pieces side by side, put in order again.

What depends on more than one piece is done here, in the order of the lines: the sequence of the connections,
repeats, the deduplication of trades, and the counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, SegmentError
from cbtools.raw.columns import times
from cbtools.raw.counts import Counts, Span
from cbtools.raw.delays import COUNTED
from cbtools.raw.files import MAX_LINE_MB, Buffer, Piece, Progress, check_max_line, read_pieces
from cbtools.raw.markers import break_rows, insert_breaks
from cbtools.raw.piece import Decoded, Decoder, Reject, Wanted
from cbtools.raw.report import RawReport
from cbtools.raw.sequence import NO_TIME, Stream
from cbtools.raw.tracking import Tracked, track
from cbtools.schema import CHANNELS, SEGMENT, schema

CHUNK_BYTES: Final = 64 << 20
"""How much of a file is held at a time, by default."""

I64 = npt.NDArray[np.int64]

_PIECES: Final = 4
"""A chunk's worth of memory goes to so many pieces: those being decoded and those waiting in line. With more
and smaller ones, what is done for each piece whatever its size is an eighth of the time."""

_KEY: Final = ("product_id", "trade_id")


@dataclass(frozen=True)
class Batch:
    """The rows of some lines of one segment, in the order of the lines; of the tables that have any."""

    segment: str
    tables: dict[str, pl.DataFrame]


def check_chunk(chunk_bytes: int) -> None:
    """Refuse a size of chunks that is none."""
    if not isinstance(chunk_bytes, int) or chunk_bytes < 1:
        raise ConfigError(f"chunk_bytes must be a whole number of bytes from 1 on, not {chunk_bytes!r}")


class Reading:
    """One pass over segments: iterate over it for the batches; then `report` tells what was found.

    ``start`` is the stream that the segments continue; `stream` what has become of it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        wanted: Wanted,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        max_line_mb: float = MAX_LINE_MB,
        progress: Progress | None = None,
        strict: bool = False,
        start: Stream | None = None,
    ) -> None:
        check_chunk(chunk_bytes)
        check_max_line(max_line_mb)
        columns = {table: names for table, names in wanted.columns.items() if table in CHANNELS}
        # needed here, whatever is asked for: trades are told apart by their keys, and runs by their products
        if "market_trades" in columns:
            columns["market_trades"] |= set(_KEY)
        if "unbroken_since" in columns.get("level2", ()):
            columns["level2"] |= {"product_id"}
        if wanted.whole:  # delays are counted
            columns |= {table: columns[table] | COUNTED[table] for table in COUNTED if table in columns}
        self._asked = wanted.columns
        self._wanted = Wanted(columns, wanted.products, wanted.whole)
        self._paths, self._progress, self._strict = paths, progress, strict
        self._threads = pl.thread_pool_size()  # of the cores that are ours, or as many as Polars was told
        self._piece_bytes = max(1, chunk_bytes // _PIECES)
        self._max_line_mb = max_line_mb
        self._spare: deque[Buffer] = deque(maxlen=self._threads + 2)
        self.stream = Stream() if start is None else start.copy()
        self._first_connection = 0
        self._seen_trades: list[pl.DataFrame] = []
        self._segment, self._first_line, self._at_start = "", 1, True
        self._count = Counts(delays=wanted.whole)

    def __iter__(self) -> Iterator[Batch]:
        decoder = Decoder(self._wanted)
        with ThreadPoolExecutor(self._threads, "cbtools-decode") as pool:
            waiting: deque[Future[Decoded]] = deque()
            try:
                for piece in self._pieces():
                    waiting.append(pool.submit(decoder, piece))
                    if len(waiting) > self._threads:
                        yield self._in_order(waiting.popleft().result())
                while waiting:
                    yield self._in_order(waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()

    @property
    def report(self) -> RawReport:
        """What was found so far."""
        first = self._first_connection
        return self._count.report(self.stream.connection - first + 1 if first else 0)

    @property
    def has_frames(self) -> bool:
        """Whether of any line so far a frame's header could be read."""
        return self._count.headers > 0

    def _pieces(self) -> Iterator[Piece]:
        for path in self._paths:
            yield from read_pieces(path, self._piece_bytes, self._progress, self._spare, self._max_line_mb)

    def _in_order(self, decoded: Decoded) -> Batch:
        """Finish a piece's frames by what went before it."""
        piece = decoded.piece
        if self._at_start:  # damage at a file's start leaves several pieces at its byte 0
            self._segment, self._first_line, self._seen_trades = piece.segment, 1, []
            self._count.start_segment(piece.segment)
        self._at_start = piece.last
        if self._strict and decoded.rejects:
            raise self._refusal(decoded.rejects[0])
        tracked = track(self.stream, decoded.lines, self._first_line)
        if not self._first_connection and decoded.lines.framed.any():
            self._first_connection = int(tracked.connection[np.argmax(decoded.lines.framed)])
        self._count.add_lines(decoded, tracked)
        found, breaks = decoded.tables, self._breaks(decoded, tracked)
        if breaks is not None and "level2" not in found:
            found = {**found, "level2": breaks.clear()}
        tables = {
            table: self._finish(table, frame, tracked, breaks if table == "level2" else None)
            for table, frame in found.items()
        }
        if "gaps" in self._asked and tracked.gaps:
            tables["gaps"] = _gaps(tracked)
        if "rejects" in self._asked and decoded.rejects:
            rows = [
                (self._first_line + r.line, r.byte_offset, len(r.raw) + r.left_out, None, r.reason, r.raw)
                for r in decoded.rejects
            ]
            tables["rejects"] = pl.DataFrame(rows, schema=schema("rejects"), orient="row")
        for table, frame in tables.items():
            if SEGMENT.name in self._asked[table]:
                tables[table] = frame.with_columns(pl.lit(self._segment).alias(SEGMENT.name))
        self._first_line += len(decoded.lines)
        if piece.damage:
            self.stream.lost_line()
        if piece.last:
            self._count.end_segment()
        self._spare.append(piece.buffer)
        return Batch(piece.segment, {table: frame for table, frame in tables.items() if frame.height})

    def _refusal(self, reject: Reject) -> SegmentError:
        return SegmentError(
            f"segment {self._segment}, line {self._first_line + reject.line} (byte {reject.byte_offset}): "
            f"{reject.reason}; without strict=True the line would go to quarantine"
        )

    def _breaks(self, decoded: Decoded, tracked: Tracked) -> pl.DataFrame | None:
        """Return the markers of breaks, if there are any and they are asked for."""
        markers, products = tracked.markers, self._wanted.products
        if products is not None:
            wanted = frozenset(products)
            markers = [marker for marker in markers if marker[1] in wanted]
        if not markers or "level2" not in self._wanted.columns:
            return None
        self._count.markers.update(marker[1] for marker in markers)
        return break_rows(decoded.lines, markers, self._wanted.columns["level2"])

    def _finish(
        self, table: str, frame: pl.DataFrame, tracked: Tracked, breaks: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Return a table's rows with the columns that only the stream can tell, and count them."""
        asked = self._asked[table]
        line = frame["line"].to_numpy()
        if tracked.repeated.any():
            frame = frame.filter(pl.Series(~tracked.repeated[line]))
            line = frame["line"].to_numpy()
        if table == "market_trades":
            frame = self._first_seen(frame)
            line = frame["line"].to_numpy()
        self._count.add_rows(table, frame)
        if breaks is not None:
            frame = insert_breaks(breaks, frame.select(breaks.columns))
            line = frame["line"].to_numpy()
        made = {"line": pl.Series(line + self._first_line)}
        if "stream" in asked:
            made["stream"] = pl.Series([None], dtype=pl.String).new_from_index(0, len(line))
        if "connection" in asked:
            made["connection"] = pl.Series(_of_lines(tracked.connection, line))
        if "unbroken_since" in asked:
            since = _of_lines(tracked.unbroken_since, line)
            if tracked.runs:
                since = _with_own_runs(since, line, frame["product_id"], tracked)
            made["unbroken_since"] = times(since)
        made = {**frame.to_dict(), **made}
        return pl.DataFrame({name: made[name] for name in schema(table) if name in asked})

    def _first_seen(self, trades: pl.DataFrame) -> pl.DataFrame:
        """Drop the trades already seen in this segment."""
        spans, fresh = _rising(trades), trades
        if spans is None or not self._count.is_above(spans):
            fresh = trades.unique(_KEY, keep="first", maintain_order=True)
            for seen in self._seen_trades:
                fresh = fresh.join(seen, on=_KEY, how="anti", maintain_order="left")
            self._count.add_duplicate_trades(trades, fresh)
            spans = _spans(fresh)
        self._seen_trades.append(pl.DataFrame([fresh[name] for name in _KEY]))
        if len(self._seen_trades) > 8:
            self._seen_trades = [pl.concat(self._seen_trades)]
        self._count.add_trade_ids(spans)
        return fresh


def _rising(trades: pl.DataFrame) -> list[Span] | None:
    """Give the spans of trade ids, if each product's only rise: nearly always, and the quickest to see."""
    if not trades.height:
        return []
    product, ids = trades["product_id"], trades["trade_id"].to_numpy()
    codes = product.cast(pl.Categorical()).to_physical().to_numpy()
    order = np.argsort(codes, kind="stable")
    codes, ids = codes[order], ids[order]
    same = codes[1:] == codes[:-1]
    if (ids[1:] <= ids[:-1])[same].any():
        return None
    starts = np.append(0, np.flatnonzero(~same) + 1)
    ends = np.append(starts[1:], len(ids))
    names = product.gather(order[starts])
    return list(
        zip(names, ids[starts].tolist(), ids[ends - 1].tolist(), (ends - starts).tolist(), strict=True)
    )


def _spans(trades: pl.DataFrame) -> list[Span]:
    """Give for each product the least and the greatest trade id, and how many there are."""
    ids = pl.col("trade_id")
    spans = trades.group_by("product_id").agg(ids.min().alias("low"), ids.max().alias("high"), pl.len())
    return list(spans.iter_rows())


def _of_lines(values: npt.NDArray[Any], line: I64) -> npt.NDArray[Any]:
    """Give each row its line's value: nearly always one for all, and to fill is quicker than to fetch."""
    if len(values) and (values == values[0]).all():
        return np.full(len(line), values[0])
    return values[line]


def _with_own_runs(since: I64, line: I64, product: pl.Series, tracked: Tracked) -> I64:
    """Put in the runs that only some products have, each from its line to the product's next one."""
    runs = pl.DataFrame(
        tracked.runs, schema={"line": pl.Int64, "product": pl.String, "run": pl.Int64}, orient="row"
    )
    rows = pl.DataFrame({"line": line, "product": product, "since": since})
    # the order is that of the lines, by which both are sorted; within a line the last run counts
    found = rows.join_asof(runs, on="line", by="product", check_sortedness=False)
    return found.select(pl.coalesce("run", "since")).to_series().to_numpy()


def _gaps(tracked: Tracked) -> pl.DataFrame:
    rows = [(None, *gap[:3], None if gap[3] == NO_TIME else gap[3], *gap[4:]) for gap in tracked.gaps]
    columns = schema("gaps")
    return pl.DataFrame(rows, schema={**columns, "capture_time": pl.Int64}, orient="row").cast(columns)
