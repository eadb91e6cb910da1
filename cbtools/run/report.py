"""What a run did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cbtools.book.report import BookReport
from cbtools.dataset import Written
from cbtools.raw.report import RawReport, as_html, as_text, counted, listed

_USUAL_AGREEMENT: Final = 0.99
_WHY_LOW: Final = (
    "below 99%: a ticker names the best prices at its own instant, level2 those at the end of a batch; "
    "docs/reports.md explains how to judge this"
)


@dataclass(frozen=True)
class SegmentReport:
    """What `run_segment` found in a segment and wrote.

    Attributes
    ----------
    segment : str
        The segment's name.
    raw : RawReport
        What was found in it.
    book : BookReport or None
        What the rebuilt books met; None if they were not rebuilt.
    started_from : str
        Of which segment the state was that the run started from.
    written : dict
        Table → `Written`: the parts, with rows and bytes.
    quarantine : pathlib.Path or None
        The file of the lines that were not understood, if there are any.
    seconds : float
        How long the run took.
    source_bytes : int
        Size of the segment's file.
    """

    segment: str
    raw: RawReport
    book: BookReport | None = None
    started_from: str = "nothing"
    written: Mapping[str, Written] = field(default_factory=dict)
    quarantine: Path | None = None
    seconds: float = 0.0
    source_bytes: int = 0

    @property
    def rows(self) -> dict[str, int]:
        """Table → rows written."""
        return {table: written.rows for table, written in self.written.items()}

    @property
    def mb_per_s(self) -> float:
        """Megabytes of lines (after decompression) a second."""
        return self.raw.raw_bytes / 1e6 / self.seconds if self.seconds else 0.0

    def items(self) -> list[tuple[str, str]]:
        """Give the report as pairs of a label and a text, as it is printed."""
        shown = [*self.raw.items(), ("started from", self.started_from)]
        shown += self.book.items() if self.book else []
        for table, written in self.written.items():
            megabytes = written.bytes / 1e6
            shown.append(
                (
                    f"{table} written",
                    f"{written.rows:,} rows, {len(written.parts):,} parts, {megabytes:,.2f} MB",
                )
            )
        left = {
            table: sum(rows.values()) for table, rows in self.raw.rows.items() if table not in self.written
        }
        shown.append(("not written", counted({table: n for table, n in left.items() if n}, 10)))
        shown.append(("quarantine", str(self.quarantine) if self.quarantine else "none"))
        shown.append(("time", f"{self.seconds:,.2f} s, {self.mb_per_s:,.0f} MB/s"))
        return shown

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        return as_html(f"Segment {listed([self.segment])}", self.items())


@dataclass(frozen=True)
class InspectReport:
    """What `inspect_raw` found.

    Attributes
    ----------
    raw : RawReport
        What was found in the lines.
    book : BookReport
        What the books met that were rebuilt from them, and how far the tickers agree with them.
    """

    raw: RawReport
    book: BookReport

    def items(self) -> list[tuple[str, str]]:
        """Return the report as pairs of a label and a text, as it is printed."""
        agreement = self.book.agreement
        low = agreement is not None and agreement < _USUAL_AGREEMENT
        return [*self.raw.items(), *self.book.items(), *([("ticker agreement", _WHY_LOW)] if low else [])]

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        return as_html("Inspection", self.items())
