"""What is counted of segments while they are read: the report in the making."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl

from cbtools.raw.delays import COUNTED, LATE, Delays, line_delays
from cbtools.raw.formats import GENERAL, KIND
from cbtools.raw.piece import Decoded, Reject
from cbtools.raw.report import RawReport, counted
from cbtools.raw.rows import Tally
from cbtools.raw.sequence import NO_FEED, NO_TIME
from cbtools.raw.tracking import Tracked
from cbtools.schema import CHANNELS

_NEVER: Final = int(np.iinfo(np.int64).max)

Span = tuple[str, int, int, int]
"""A product, its least and its greatest trade id, and how many there are."""


class Counts:
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
        self.headers = 0
        self.formats: Counter[str] = Counter()
        self.first_reason = ""
        self.tally = Tally()
        self.trade_ids: dict[str, tuple[int, int, int]] = {}

    def start_segment(self, name: str) -> None:
        """Begin a segment: trade ids are looked at within each."""
        self.segments.append(name)
        self.trade_ids = {}

    def add_lines(self, decoded: Decoded, tracked: Tracked) -> None:
        """Add a piece's lines, its rejects and what was noted beside rows."""
        lines = decoded.lines
        if self.delays is not None:
            self.server_time = lines.server_time
            self.line_delays = line_delays(lines.server_time, lines.capture_time)
        kept = lines.framed & ~lines.rejected & ~tracked.repeated
        self.raw_bytes += decoded.piece.size + decoded.piece.left_out
        self.lines += len(lines)
        self.frames += int(kept.sum())
        self.tally.unusual += Counter(CRLF=int((decoded.crlf & kept).sum()))
        self.duplicates += int((tracked.repeated & ~lines.rejected).sum())
        self.gaps += len(tracked.gaps)
        self.lost_frames += sum(got - expected for _, expected, got, *_ in tracked.gaps)
        has_header = lines.framed & (~lines.rejected | (lines.feed != NO_FEED))
        self.headers += int(has_header.sum())
        for reject in decoded.rejects:
            self.add_reject(reject, has_header=reject.line < len(lines) and bool(has_header[reject.line]))
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

    def add_reject(self, reject: Reject, *, has_header: bool) -> None:
        """Add a rejected line; of one in another format, what looks like a header is not counted as one."""
        kind, _, what = reject.reason.partition(": ")
        self.rejects[kind] += 1
        self.first_reason = self.first_reason or reject.reason
        if kind == KIND:
            self.formats[what] += 1
            self.headers -= has_header

    def add_rows(self, table: str, frame: pl.DataFrame) -> None:
        """Add a table's rows, without the markers of breaks."""
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
        """Add the trades that came late."""
        sent = self.server_time[trades["line"].to_numpy()]
        late = sent - trades["trade_time"].to_physical().fill_null(_NEVER).to_numpy() > LATE
        if late.any():
            late &= sent != NO_TIME
            self.late_trades.update(_by_product(trades.filter(~trades["is_snapshot"] & pl.Series(late))))

    def is_above(self, spans: Iterable[Span]) -> bool:
        """Return whether no product's trade ids reach back to those that it had in this segment."""
        ids = self.trade_ids
        return all(product not in ids or low > ids[product][1] for product, low, _, _ in spans)

    def add_duplicate_trades(self, trades: pl.DataFrame, fresh: pl.DataFrame) -> None:
        """Add the trades that are not among the fresh ones."""
        duplicates = Counter(_by_product(trades))
        duplicates.subtract(_by_product(fresh))
        self.duplicate_trades.update(+duplicates)

    def add_trade_ids(self, spans: Iterable[Span]) -> None:
        """Add trade ids that are new in the segment."""
        for product, low, high, n in spans:
            was = self.trade_ids.get(product, (low, high, 0))
            self.trade_ids[product] = min(low, was[0]), max(high, was[1]), n + was[2]

    def end_segment(self) -> None:
        """End a segment: count the trades missing in it."""
        for product, (low, high, n) in self.trade_ids.items():
            if high - low + 1 > n:
                self.trade_holes[product] += high - low + 1 - n

    def no_recording(self) -> str:
        """Return why the lines are no recording, and what they appear to be; nothing if they are one."""
        if self.headers or not self.rejects:
            return ""
        if not self.lines:
            return f"nothing of it can be read ({self.first_reason})"
        told = f"none of its lines is a message of the feed ({counted(self.rejects)})"
        if not self.formats:
            return f"{told}; the first: {self.first_reason}"
        found = max(self.formats, key=lambda name: (name not in GENERAL, self.formats[name]))
        return f"{told}; it appears to be {found}"

    def report(self, connections: int) -> RawReport:
        """Return what was counted so far."""
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
            unusual=dict(sorted(self.tally.unusual.items())),
            errors=self.rows["errors"].total(),
            long_numbers=self.tally.long_numbers,
            receive_delays={} if self.delays is None else self.delays.found(),
            late_trades=dict(sorted(self.late_trades.items())),
            no_recording=self.no_recording(),
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
