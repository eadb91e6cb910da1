"""What is counted of segments while they are read: the report in the making."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl

from cbtools.raw.delays import COUNTED, LATE, Delays, line_delays
from cbtools.raw.formats import GENERAL, KIND
from cbtools.raw.piece import DAMAGED, FORMS, Decoded, Reject
from cbtools.raw.report import RawReport, counted
from cbtools.raw.rows import Tally
from cbtools.raw.sequence import NO_FEED, NO_TIME
from cbtools.raw.tracking import Lines, Tracked
from cbtools.schema import CHANNELS

_NEVER: Final = int(np.iinfo(np.int64).max)

Span = tuple[str, int, int, int]
"""A product, its least and its greatest trade id, and how many there are."""


class _Found:
    """What was found of one segment, by which it is known to be a recording."""

    def __init__(self) -> None:
        self.lines = self.headers = 0
        self.rejects: Counter[str] = Counter()
        self.formats: Counter[str] = Counter()
        self.damages: list[str] = []
        self.first_reason = ""

    def add(self, lines: Lines, rejects: Iterable[Reject]) -> None:
        """Add a piece's lines; of one in another format, what looks like a header is not counted as one."""
        has_header = lines.framed & (~lines.rejected | (lines.feed != NO_FEED))
        self.lines += len(lines)
        self.headers += int(has_header.sum())
        for reject in rejects:
            kind, _, what = reject.reason.partition(": ")
            self.first_reason = self.first_reason or reject.reason
            if kind == DAMAGED:
                self.damages.append(what)
                continue
            self.rejects[kind] += 1
            if kind == KIND:
                self.formats[what] += 1
                self.headers -= bool(has_header[reject.line])

    def no_recording(self) -> str:
        """Return why the lines are not a recording, and what they appear to be; nothing if they are one."""
        if self.headers or not self.first_reason:
            return ""
        if not self.lines:
            return f"nothing of it can be read ({self.first_reason})"
        why = f"none of its lines is a message of the feed ({counted(self.rejects)})"
        if not self.formats:
            return f"{why}; the first: {self.first_reason}"
        first = self.first_reason.removeprefix(f"{KIND}: ")
        known = [name for name in self.formats if name not in GENERAL]
        if first not in known:
            first = max(known or self.formats, key=self.formats.__getitem__)
        return f"{why}; it appears to be {first}"


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
        self.found: list[_Found] = []
        self.tally = Tally()
        self.trade_ids: dict[str, tuple[int, int, int]] = {}

    def start_segment(self, name: str) -> None:
        """Begin a segment: trade ids are looked at within each."""
        self.segments.append(name)
        self.found.append(_Found())
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
        if decoded.forms.any():
            for bit, form in FORMS.items():
                self.tally.unusual[form] += int(((decoded.forms & bit > 0) & kept).sum())
        self.duplicates += int((tracked.repeated & ~lines.rejected).sum())
        self.gaps += len(tracked.gaps)
        self.lost_frames += sum(got - expected for _, expected, got, *_ in tracked.gaps)
        self.found[-1].add(lines, decoded.rejects)
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

    @property
    def headers(self) -> int:
        """How many lines a frame's header was read of."""
        return sum(found.headers for found in self.found)

    def total(self, what: str) -> dict[str, int]:
        """Add up what was counted of each segment."""
        return _sorted(sum((getattr(found, what) for found in self.found), Counter()))

    def of_segments(self, what: Callable[[_Found], str]) -> dict[str, str]:
        """Return the texts that there are, by the segments' names."""
        texts = zip(self.segments, map(what, self.found), strict=True)
        return {segment: text for segment, text in texts if text}

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
            rejects=self.total("rejects"),
            formats=self.total("formats"),
            damages=self.of_segments(lambda found: "; ".join(found.damages)),
            unknown_keys=dict(sorted(self.tally.unknown_keys.items())),
            unusual=_sorted(self.tally.unusual),
            errors=self.rows["errors"].total(),
            long_numbers=self.tally.long_numbers,
            receive_delays={} if self.delays is None else self.delays.found(),
            late_trades=dict(sorted(self.late_trades.items())),
            no_recording=self.of_segments(_Found.no_recording),
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
