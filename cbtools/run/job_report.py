"""What a job did: a row a segment, and what the segments held."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from cbtools.raw.delays import DELAYS, ReceiveDelay, delays_frame
from cbtools.raw.report import as_html, as_text, counted, listed
from cbtools.run.coverage import HOURS, MINUTES, added, by_hour
from cbtools.run.draft import Drafted
from cbtools.schema import TIME, schema

Outcome = Literal["done", "skipped", "failed", "would run", "would skip"]

SEGMENTS: Final = pl.Schema(
    {
        **dict.fromkeys(("segment", "source", "outcome", "reason", "started_from"), pl.String()),
        **dict.fromkeys(("first_time", "last_time"), TIME),
        **dict.fromkeys(("source_bytes", "raw_bytes", "lines", "rows"), pl.Int64()),
        **dict.fromkeys(("gaps", "lost_frames", "rejects"), pl.Int64()),
        "seconds": pl.Float64(),
    }
)
GAPS: Final = pl.Schema({"segment": pl.String(), **schema("gaps")})
SEGMENT_DELAYS: Final = pl.Schema({"segment": pl.String(), **DELAYS})
QUARANTINE: Final = pl.Schema({"segment": pl.String(), "reason": pl.String(), "lines": pl.Int64()})


@dataclass(frozen=True)
class JobReport:
    """What a job did.

    Attributes
    ----------
    segments : polars.DataFrame
        A row a segment, in the order of the work: ``segment``, its name; ``source``, its file's name;
        ``outcome``: "done", "skipped" (its content is in the dataset already), "failed", or, of a dry run,
        "would run" and "would skip"; ``reason``, where there is one; ``started_from``, the segment whose
        state it started from; ``first_time`` and ``last_time`` of its frames; ``source_bytes`` of the file
        and ``raw_bytes`` of its lines; ``lines``; ``rows`` of all tables; ``gaps``, ``lost_frames``,
        ``rejects`` (lines); ``seconds``. Null where a segment was not run.
    gaps : polars.DataFrame
        ``segment`` and the columns of the table of gaps: a row for each break of a connection's sequence.
    quarantine : polars.DataFrame
        ``segment``, ``reason`` and ``lines``: the lines that were not understood, counted.
    coverage : polars.DataFrame
        A row for each product and hour (of server_time, UTC): ``product_id``, ``hour``; ``minutes``, in which
        there are level2 messages; ``messages``; ``ok``, of these, behind which the book is ok (0 where no
        books are rebuilt at each message); ``trades``.
    delays : polars.DataFrame
        ``segment`` and the columns of `RawReport.delays`: the receive delays by segment and product.
    seconds : float
        How long the job took.
    done, skipped, failed : int
        How many segments were, also of those of which `segments` no longer tells (it keeps the last 1,000 of
        a watch).
    """

    segments: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SEGMENTS))
    gaps: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=GAPS))
    quarantine: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUARANTINE))
    coverage: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=HOURS))
    delays: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SEGMENT_DELAYS))
    seconds: float = 0.0
    done: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def mb_per_s(self) -> float:
        """Megabytes of lines (after decompression) a second, of the segments that were run."""
        return _sum(self.segments, "raw_bytes") / 1e6 / self.seconds if self.seconds else 0.0

    def items(self) -> list[tuple[str, str]]:
        """Give the report as pairs of a label and a text, as it is printed."""
        run = self.segments.filter(pl.col("lines").is_not_null())
        outcomes = dict(self.segments["outcome"].value_counts(sort=True).iter_rows())
        ok, messages = _sum(self.coverage, "ok"), _sum(self.coverage, "messages")
        reasons = dict(self.quarantine.group_by("reason").agg(pl.col("lines").sum()).iter_rows())
        shown = [
            ("segments", counted({name: n for name, n in outcomes.items() if n})),
            ("lines", f"{_sum(run, 'lines'):,} ({_sum(run, 'raw_bytes') / 1e6:,.1f} MB)"),
            ("rows", f"{_sum(run, 'rows'):,}"),
            ("gaps", f"{_sum(run, 'gaps'):,} ({_sum(run, 'lost_frames'):,} frames lost)"),
            ("quarantine", counted(reasons)),
            ("coverage", self._coverage()),
            ("book ok", f"{ok / messages:.2%} of {messages:,} messages" if messages else "no messages"),
            *([("clock is off", self.clock)] if self.clock else []),
            ("time", f"{self.seconds:,.2f} s, {self.mb_per_s:,.0f} MB/s"),
        ]
        told = self.segments.filter(pl.col("outcome").is_in(["failed", "skipped"]))
        for segment, outcome, reason in told.select("segment", "outcome", "reason").head(20).iter_rows():
            shown.append((outcome, f"{segment}: {reason}"))
        if told.height > 20:
            shown.append(("", f"and {told.height - 20:,} more: see .segments"))
        return shown

    @property
    def clock(self) -> str:
        """In how many segments the recorder's clock is off, and of which products; empty if in none."""
        off = self.delays.filter("clock_is_off")
        if off.is_empty():
            return ""
        n, of = off["segment"].n_unique(), self.delays["segment"].n_unique()
        return f"in {n:,} of {of:,} segments, {listed(sorted(set(off['product_id'])))}: see .delays"

    def _coverage(self) -> str:
        if self.coverage.is_empty():
            return "none"
        hours: list[str] = self.coverage["hour"].sort().dt.strftime("%F %H").to_list()
        products = self.coverage["product_id"].n_unique()
        return f"{products:,} product{'s'[: products > 1]}, {hours[0]}:00 to {hours[-1]}:59 UTC"

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        columns = ("segment", "outcome", "lines", "rows", "gaps", "rejects")
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, fmt_str_lengths=60):
            return as_html("Job", self.items()) + self.segments.select(columns)._repr_html_()


def _sum(frame: pl.DataFrame, column: str) -> int:
    return int(frame[column].sum())


class RunLog:
    """A report in the making; of a long watch it keeps the last ``most`` segments."""

    def __init__(self, most: int | None = None) -> None:
        self._rows: deque[dict[str, Any]] = deque(maxlen=most)
        self._gaps: deque[pl.DataFrame] = deque(maxlen=most)
        self._quarantine: deque[dict[str, Any]] = deque(maxlen=most)
        self._coverage: deque[pl.DataFrame] = deque(maxlen=most)
        self._delays: deque[tuple[str, Mapping[str, ReceiveDelay]]] = deque(maxlen=most)
        self.seen: set[str] = set()
        """The products that had rows."""
        self.outcomes: Counter[str] = Counter()
        self.raw_bytes = self.rows = 0

    def add(
        self,
        outcome: Outcome,
        *,
        segment: str,
        source: str,
        source_bytes: int,
        reason: str | None = None,
        started_from: str | None = None,
        drafted: Drafted | None = None,
        rows: int | None = None,
    ) -> Mapping[str, Any]:
        """Add a segment; what is told of it."""
        row: dict[str, Any] = dict.fromkeys(SEGMENTS)
        row |= {"segment": segment, "source": source, "outcome": outcome, "reason": reason}
        row |= {"source_bytes": source_bytes, "started_from": started_from, "rows": rows}
        if drafted is not None:
            row |= self._of(drafted)
        self._rows.append(row)
        self.outcomes[outcome] += 1
        self.raw_bytes += row["raw_bytes"] or 0
        self.rows += row["rows"] or 0
        return row

    def _of(self, drafted: Drafted) -> dict[str, Any]:
        raw = drafted.raw
        self._gaps.append(drafted.gaps.select(pl.lit(drafted.segment).alias("segment"), pl.all()))
        for reason, n in raw.rejects.items():
            self._quarantine.append({"segment": drafted.segment, "reason": reason, "lines": n})
        for damage in raw.damages.values():
            self._quarantine.append(
                {"segment": drafted.segment, "reason": f"damaged file: {damage}", "lines": 0}
            )
        self._coverage.append(drafted.coverage)
        self._delays.append((drafted.segment, raw.receive_delays))
        self.seen |= {product for rows in drafted.rows.values() for product, n in rows.items() if n}
        first, last = raw.time_span or (None, None)
        return {
            "first_time": first,
            "last_time": last,
            "raw_bytes": raw.raw_bytes,
            "lines": raw.lines,
            "rows": sum(part.rows for table in drafted.tables.values() for part in table.parts),
            "gaps": raw.gaps,
            "lost_frames": raw.lost_frames,
            "rejects": raw.rejected,
            "seconds": drafted.seconds,
        }

    def report(self, seconds: float) -> JobReport:
        """Give the report so far."""
        minutes = added(self._coverage) if self._coverage else pl.DataFrame(schema=MINUTES)
        delays = (
            delays_frame(found).select(pl.lit(segment).alias("segment"), pl.all())
            for segment, found in self._delays
        )
        return JobReport(
            segments=pl.DataFrame(list(self._rows), schema=SEGMENTS),
            gaps=pl.concat([pl.DataFrame(schema=GAPS), *self._gaps]),
            quarantine=pl.DataFrame(list(self._quarantine), schema=QUARANTINE),
            coverage=by_hour(minutes),
            delays=pl.concat([pl.DataFrame(schema=SEGMENT_DELAYS), *delays]),
            seconds=seconds,
            done=self.outcomes["done"],
            skipped=self.outcomes["skipped"],
            failed=self.outcomes["failed"],
        )
