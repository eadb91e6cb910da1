"""Segments → frames of every table asked for, in one pass: pieces side by side, put in order again.

What depends on more than one piece is done here, in the order of the lines: the sequence of the connections,
repeats, the deduplication of trades, and the counts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, SegmentError
from cbtools.raw.delays import COUNTED, LATE, Delays, line_delays
from cbtools.raw.files import Buffer, Piece, Progress, read_pieces
from cbtools.raw.markers import break_rows, insert_breaks
from cbtools.raw.piece import Decoded, Decoder, Reject, Wanted, times
from cbtools.raw.report import RawReport
from cbtools.raw.rows import Tally
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
_NEVER: Final = int(np.iinfo(np.int64).max)

Span = tuple[str, int, int, int]
"""A product, its least and its greatest trade id, and how many there are."""


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
        progress: Progress | None = None,
        strict: bool = False,
        start: Stream | None = None,
    ) -> None:
        check_chunk(chunk_bytes)
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
        self._spare: deque[Buffer] = deque()
        self.stream = Stream() if start is None else start.copy()
        self._first_connection = 0
        self._seen_trades: list[pl.DataFrame] = []
        self._segment, self._first_line = "", 1
        self._count = _Counts(delays=wanted.whole)

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

    def _pieces(self) -> Iterator[Piece]:
        for path in self._paths:
            yield from read_pieces(path, self._piece_bytes, self._progress, self._spare)

    def _in_order(self, decoded: Decoded) -> Batch:
        """Finish a piece's frames by what went before it."""
        piece = decoded.piece
        if piece.offset == 0:
            self._segment, self._first_line, self._seen_trades = piece.segment, 1, []
            self._count.start_segment(piece.segment)
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
                (self._first_line + r.line, r.byte_offset, None, r.reason, r.raw) for r in decoded.rejects
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
    since, runs = (
        since.copy(),
        pl.DataFrame(
            tracked.runs, schema={"line": pl.Int64, "product": pl.String, "run": pl.Int64}, orient="row"
        ),
    )
    for (product_id,), own in runs.group_by("product"):
        rows = np.flatnonzero((product == product_id).to_numpy())
        at = np.searchsorted(own["line"].to_numpy(), line[rows], "right") - 1
        own_run = (at >= 0) & own["run"].is_not_null().to_numpy()[at]
        rows, at = rows[own_run], at[own_run]
        since[rows] = own["run"].fill_null(0).to_numpy()[at]
    return since


def _gaps(tracked: Tracked) -> pl.DataFrame:
    rows = [(None, *gap[:3], None if gap[3] == NO_TIME else gap[3], *gap[4:]) for gap in tracked.gaps]
    columns = schema("gaps")
    return pl.DataFrame(rows, schema={**columns, "capture_time": pl.Int64}, orient="row").cast(columns)


class _Counts:
    """The report in the making."""

    def __init__(self, *, delays: bool) -> None:
        self.delays = Delays() if delays else None
        self.segments: list[str] = []
        self.raw_bytes = self.lines = self.frames = 0
        self.rows: dict[str, Counter[str]] = {table: Counter() for table in CHANNELS}
        self.markers: Counter[str] = Counter()
        self.first_time = self.last_time = NO_TIME
        self.gaps = self.lost_frames = self.duplicates = 0
        self.duplicate_trades: Counter[str] = Counter()
        self.trade_holes: Counter[str] = Counter()
        self.late_trades: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self.tally = Tally()
        self.trade_ids: dict[str, tuple[int, int, int]] = {}

    def start_segment(self, name: str) -> None:
        self.segments.append(name)
        self.trade_ids = {}

    def add_lines(self, decoded: Decoded, tracked: Tracked) -> None:
        lines = decoded.lines
        if self.delays is not None:
            self.server_time = lines.server_time
            self.line_delays = line_delays(lines.server_time, lines.capture_time)
        kept = lines.framed & ~lines.rejected & ~tracked.repeated
        self.raw_bytes += decoded.piece.size
        self.lines += len(lines)
        self.frames += int(kept.sum())
        self.duplicates += int((tracked.repeated & ~lines.rejected).sum())
        self.gaps += len(tracked.gaps)
        self.lost_frames += sum(got - expected for _, expected, got, *_ in tracked.gaps)
        self.rejects.update(reject.reason.split(":")[0] for reject in decoded.rejects)
        for line, tally in decoded.tallies:
            if not tracked.repeated[line]:
                self.tally.add(tally)
        markers = Counter(product for line, product in decoded.markers if not tracked.repeated[line])
        self.markers += markers
        self.rows["level2"].subtract(markers)  # `add_rows` takes them for changes
        times = np.where(lines.server_time == NO_TIME, lines.capture_time, lines.server_time)[kept]
        times = times[times != NO_TIME]
        if len(times):
            first = int(times.min())
            self.first_time = first if self.first_time == NO_TIME else min(self.first_time, first)
            self.last_time = max(self.last_time, int(times.max()))

    def add_rows(self, table: str, frame: pl.DataFrame) -> None:
        counts = self.rows[table]
        if self.delays is not None and table in COUNTED:
            if table == "market_trades":
                self.add_late(frame)
                if (snapshots := frame["is_snapshot"]).any():  # their frames may be of the trades' times
                    counts.update(_by_product(frame.filter(snapshots)))
                    frame = frame.filter(~snapshots)
            line, product = frame["line"].to_numpy(), frame["product_id"]
            counts.update(self.delays.add(line, product, self.line_delays))
        elif "product_id" in frame.columns:
            counts.update(_by_product(frame))
        elif frame.height:
            counts[""] += frame.height

    def add_late(self, trades: pl.DataFrame) -> None:
        sent = self.server_time[trades["line"].to_numpy()]
        late = sent - trades["trade_time"].to_physical().fill_null(_NEVER).to_numpy() > LATE
        if late.any():
            late &= sent != NO_TIME
            self.late_trades.update(_by_product(trades.filter(~trades["is_snapshot"] & pl.Series(late))))

    def is_above(self, spans: Iterable[Span]) -> bool:
        """Tell whether no product's trade ids reach back to those that it had in this segment."""
        ids = self.trade_ids
        return all(product not in ids or low > ids[product][1] for product, low, _, _ in spans)

    def add_duplicate_trades(self, trades: pl.DataFrame, fresh: pl.DataFrame) -> None:
        duplicates = Counter(_by_product(trades))
        duplicates.subtract(_by_product(fresh))
        self.duplicate_trades.update(+duplicates)

    def add_trade_ids(self, spans: Iterable[Span]) -> None:
        for product, low, high, n in spans:
            was = self.trade_ids.get(product, (low, high, 0))
            self.trade_ids[product] = min(low, was[0]), max(high, was[1]), n + was[2]

    def end_segment(self) -> None:
        for product, (low, high, n) in self.trade_ids.items():
            if high - low + 1 > n:
                self.trade_holes[product] += high - low + 1 - n

    def report(self, connections: int) -> RawReport:
        span = None
        if self.first_time != NO_TIME:
            span = _moment(self.first_time), _moment(self.last_time)
        return RawReport(
            segments=tuple(self.segments),
            raw_bytes=self.raw_bytes,
            lines=self.lines,
            frames=self.frames,
            rows={table: _sorted(counts) for table, counts in self.rows.items() if +counts},
            markers=_sorted(self.markers),
            time_span=span,
            connections=connections,
            gaps=self.gaps,
            lost_frames=self.lost_frames,
            duplicates=self.duplicates,
            duplicate_trades=dict(sorted(self.duplicate_trades.items())),
            trade_holes=dict(sorted(self.trade_holes.items())),
            rejects=dict(sorted(self.rejects.items())),
            unknown_keys=dict(sorted(self.tally.unknown_keys.items())),
            errors=self.rows["errors"].total(),
            long_numbers=self.tally.long_numbers,
            receive_delays={} if self.delays is None else self.delays.found(),
            late_trades=dict(sorted(self.late_trades.items())),
        )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted((+counts).items()))


def _by_product(frame: pl.DataFrame) -> dict[str, int]:
    product = frame["product_id"]
    if product.len() and not product.null_count() and (product == product[0]).all():
        return {product[0]: product.len()}
    return {name or "": n for name, n in product.value_counts().iter_rows()}


def _moment(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 10**9, UTC).replace(microsecond=ns % 10**9 // 1000)
