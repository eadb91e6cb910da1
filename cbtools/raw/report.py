"""What was found in raw segments, counted."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from cbtools.raw.delays import ReceiveDelay, delays_frame, delays_text, off_text


@dataclass(frozen=True)
class RawReport:
    """What a reading of raw segments found: every line is in rows, in duplicates or in rejects.

    Attributes
    ----------
    segments : tuple of str
        Names of the segments, in the order read.
    raw_bytes : int
        Bytes of lines, after decompression.
    lines, frames : int
        Lines read; lines understood and not dropped as repeats.
    rows : dict
        Table → product → rows (``""`` for rows that name no product).
    markers : dict
        Product → markers among the rows of level2, which ``rows`` does not count: of breaks of its sequence
        and of empty snapshots.
    time_span : tuple of datetime, or None
        First and last server_time (capture_time where a frame has none), UTC, to the microsecond.
    connections, gaps, lost_frames : int
        Connections seen; breaks of their sequence; frames missing in these.
    duplicates : int
        Lines dropped as exact repeats of a frame.
    duplicate_trades, trade_holes : dict
        Product → trades dropped since already seen in their segment; trade ids missing between the smallest
        and the largest of a segment.
    rejects : dict
        Kind of reason → lines not understood.
    formats : dict
        Other formats that some of these lines appear to have, and how to convert them → lines.
    damages : dict
        Segment → what is wrong with its compressed file, and how much of it could not be read.
    unknown_keys : dict
        Where and which → how often a key came that is not known; the rows are kept.
    unusual : dict
        What another recorder writes than the usual one → lines that were read all the same: ``CRLF``, a
        ``byte order mark``, ``capture_ts`` in another form. Repeats are not counted.
    errors : int
        Error frames sent by the server.
    long_numbers : int
        Number texts with more than 15 significant digits, which a double may not keep.
    receive_delays : dict
        Product → `cbtools.raw.delays.ReceiveDelay`: by how much capture_time is after server_time.
    late_trades : dict
        Product → trades sent more than 5 s after they happened (without snapshots): with the exchange's
        clock, they have no quote.
    no_recording : dict
        Segment → why it is not a recording, the format that it appears to have, and how to convert it: of
        none of its lines a frame's header could be read.
    """

    segments: tuple[str, ...] = ()
    raw_bytes: int = 0
    lines: int = 0
    frames: int = 0
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    markers: Mapping[str, int] = field(default_factory=dict)
    time_span: tuple[datetime, datetime] | None = None
    connections: int = 0
    gaps: int = 0
    lost_frames: int = 0
    duplicates: int = 0
    duplicate_trades: Mapping[str, int] = field(default_factory=dict)
    trade_holes: Mapping[str, int] = field(default_factory=dict)
    rejects: Mapping[str, int] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    damages: Mapping[str, str] = field(default_factory=dict)
    unknown_keys: Mapping[str, int] = field(default_factory=dict)
    unusual: Mapping[str, int] = field(default_factory=dict)
    errors: int = 0
    long_numbers: int = 0
    receive_delays: Mapping[str, ReceiveDelay] = field(default_factory=dict)
    late_trades: Mapping[str, int] = field(default_factory=dict)
    no_recording: Mapping[str, str] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Lines not understood."""
        return sum(self.rejects.values())

    def delays(self) -> pl.DataFrame:
        """Return the receive delays as a frame, one row per product, the worst clock first.

        Returns
        -------
        polars.DataFrame
            product_id, frames; min, median, p99 (Duration); share_negative; clock_is_off: more than 1 % of
            the delays are negative, or the median exceeds 5 s.

        Examples
        --------
        >>> import cbtools as cb
        >>> delays = cb.inspect_raw(cb.sample_path()).raw.delays()
        >>> delays.select("product_id", "frames", "share_negative", "clock_is_off").row(0)
        ('ETH-USD', 3968, 0.0, False)
        """
        return delays_frame(self.receive_delays)

    def items(self) -> list[tuple[str, str]]:
        """Return the report as pairs of a label and a text, as it is printed."""
        clock = off_text(self.receive_delays)
        span = (
            ""
            if self.time_span is None
            else f"{self.time_span[0]:%F %T.%f} to {self.time_span[1]:%F %T.%f} UTC"
        )
        shown = [
            ("segments", listed(self.segments)),
            ("lines", f"{self.lines:,} ({self.raw_bytes / 1e6:,.1f} MB), {self.frames:,} frames kept"),
            ("time span", span or "none"),
            ("connections", f"{self.connections:,}"),
            ("gaps", f"{self.gaps:,} ({self.lost_frames:,} frames lost)"),
            ("duplicates", f"{self.duplicates:,} frames, {sum(self.duplicate_trades.values()):,} trades"),
            ("missing trades", counted(self.trade_holes)),
            ("late trades", counted(self.late_trades)),
            ("receive delay", delays_text(self.receive_delays)),
            *([("clock is off", clock)] if clock else []),
            ("rejects", counted(self.rejects)),
            *(("another format", f"{n:,} of the lines: {what}") for what, n in self.formats.items()),
            *(("damaged file", f"{segment}: {what}") for segment, what in self.damages.items()),
            ("unknown keys", counted(self.unknown_keys)),
            ("unusual lines", counted(self.unusual)),
            ("server errors", f"{self.errors:,}"),
            ("long numbers", f"{self.long_numbers:,}"),
            *(("not a recording", f"{segment}: {why}") for segment, why in self.no_recording.items()),
        ]
        for table, products in self.rows.items():
            if products:
                shown.append((f"{table} rows", f"{sum(products.values()):,}: {counted(products, 8)}"))
            if table == "level2" and self.markers:
                shown.append(("level2 markers", counted(self.markers)))
        return shown

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        return as_html("Raw report", self.items())


def counted(counts: Mapping[str, int], most: int = 5) -> str:
    """Show counts, the largest first."""
    top = Counter(counts).most_common(most)
    rest = len(counts) - len(top)
    text = ", ".join(f"{name} {count:,}" if name else f"{count:,}" for name, count in top)
    return (text + (f" and {rest} more" if rest else "")) or "none"


def number(n: int, what: str) -> str:
    """Show how many there are of a thing."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def listed(names: Iterable[str], most: int = 3) -> str:
    """Show names, the first few."""
    names = list(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def as_text(items: Iterable[tuple[str, Any]]) -> str:
    """Show pairs as aligned lines."""
    pairs = [(label, str(text)) for label, text in items]
    width = max((len(label) for label, _ in pairs), default=0)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in pairs)


def as_html(title: str, items: Iterable[tuple[str, Any]]) -> str:
    """Show pairs as a table for a notebook."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
        f"<td style='text-align:left'>{html.escape(str(text))}</td></tr>"
        for label, text in items
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
