"""run_job on what feeds, recorders and crashes really produce: every line of it is accounted for.

The inputs keep their numbers in the list of nasty inputs. Each is a segment of its own day, so that none
goes on from another; and once more all are of one day, where they repeat and contradict each other.
"""

from __future__ import annotations

import base64
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jobs
import laws
import polars as pl
import pytest
import test_nasty_inputs as nasty
import wire
from jobs import put

import cbtools as cb
from cbtools.schema import CHANNELS, schema

pytestmark = pytest.mark.ci

Lines = list[bytes]

EVERYTHING: dict[str, dict[str, Any]] = {table: {} for table in CHANNELS}
SIDES = ("bid", "buy", "", None, "ask", "offer")
NO_TIMES = ("1970-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z")
OFFSETS = ("2026-03-04T05:06:07Z", "2026-03-04T05:06:07.987654321+00:00", "2026-03-04T10:36:07.1+05:30")
BEATS = [("2026-03-04 05:06:07.5 +0000 UTC m=+8", 1), ("", "2"), (None, None), (17, "many"), ("now", 2**63)]
PRINTS = [("snapshot", (13, 12, 10)), ("update", (15, 14, 13)), ("update", (12, 13)), ("snapshot", (20, 9))]


def written(*frames: wire.Json) -> Lines:
    """Write the lines of one connection, whose frames say their numbers."""
    return [wire.record(frame) for frame in frames]


def changes(*numbers: int) -> Lines:
    return written(*(wire.change(number) for number in numbers))


def levels(number: int, *prices: str, kind: str = "update") -> wire.Json:
    """Give a level2 frame of these prices, in turn of a bid and an ask."""
    updates = [wire.update(("bid", "offer")[place % 2], price, "1") for place, price in enumerate(prices)]
    return wire.l2(number, wire.book("BTC-USD", *updates, kind=kind))


def event(product_id: str, price: str, kind: str = "update") -> wire.Json:
    return wire.book(product_id, wire.update("bid", price, "1"), kind=kind)


def of_numbers(value: Any) -> Lines:
    return written(
        wire.change(None, price=value),
        wire.change(None, size=value),
        wire.trades(None, wire.trade(str(len(str(value))), value)),
        wire.ticker(None, price=value),
        wire.candles(None, wire.candle(volume=value)),
        wire.exchange_update(["buy", "1", value]),
    )


def of_times(text: Any) -> Lines:
    timed = wire.book("BTC-USD", wire.update("bid", "1", "2", text))
    return [
        wire.record(wire.l2(None, timed, timestamp=text), text),
        wire.record(wire.trades(None, wire.trade("1", time=text))),
        wire.record(wire.exchange_update(["buy", "1", "1"], time=text)),
    ]


def strange_spellings() -> Lines:
    frames = [wire.envelope(frame | {"foo": {"a": 1}}) for frame in nasty.PLAIN]
    bare = {key: value for key, value in wire.change(6).items() if key != "client_id"}
    spaced = [b" \t" + json.dumps(wire.change(number), indent=None).encode() + b" " for number in (4, 5)]
    return [*(wire.line(nasty.reordered(frame)) for frame in frames), *spaced, wire.line({"data": bare})]


def five_megabytes() -> Lines:
    bids = [wire.update("bid", f"{70_000 - 0.01 * k:.2f}", f"0.{k:08d}") for k in range(1, 20_001)]
    asks = [wire.update("offer", f"{70_000 + 0.01 * k:.2f}", f"1.{k:08d}") for k in range(1, 20_001)]
    return written(
        wire.ack(0), wire.l2(1, wire.book("BTC-USD", *bids, *asks, kind="snapshot")), wire.change(2)
    )


def many_products() -> Lines:
    events = [event("BTC-USD", "1", "snapshot"), event("ETH-USD", "3"), event("BTC-USD", "4")]
    trades = wire.trades(1, wire.trade("8", product_id="ETH-USD"), wire.trade("7"), wire.trade("9"))
    return written(wire.l2(0, *events), trades, wire.change(2))


def nothing_in_them() -> Lines:
    return written(
        wire.l2(0),
        wire.l2(1, wire.book("BTC-USD"), wire.book("ETH-USD", kind="snapshot")),
        wire.trades(2),
        wire.advanced("ticker", 3, {"tickers": []}),
        wire.candles(4),
        wire.status(5),
        wire.ack(6),
        wire.exchange_snapshot(bids=[], asks=[]),
        wire.exchange_update(),
        wire.change(7) | {"events": [[]]},
    )


def prints() -> Lines:
    frames = [
        wire.trades(number, *(wire.trade(str(one)) for one in ids), kind=kind)
        for number, (kind, ids) in enumerate(PRINTS)
    ]
    return written(*frames, wire.trades(len(PRINTS), wire.trade("x")))


def other_names() -> Lines:
    """Subscribe to a product that the messages call otherwise; of every channel."""
    candle, batch = wire.candles(3, wire.candle()), wire.ticker(4, channel="ticker_batch")
    status = wire.status(5, wire.product(), wire.product("ETH-USD"))
    return written(wire.ack(0, level2=["BTC-USDC"]), wire.snapshot(1), wire.change(2), candle, batch, status)


def clock_steps_back() -> Lines:
    seconds = {15_158: 30, 15_159: 10, 15_160: 20}
    return [wire.record(wire.change(number), nasty.at(second)) for number, second in seconds.items()]


NASTY: dict[str, Lines] = {
    "01": five_megabytes(),
    "02": strange_spellings(),
    "03": written(wire.change(0), wire.error("slow"), {"channel": "error", "message": "no"}, wire.change(1)),
    "04": written(*(wire.change(number, side=side) for number, side in enumerate(SIDES))),
    "05": written(*(wire.change(number, size=zero) for number, zero in enumerate(nasty.ZEROS))),
    "06": [*changes(0, 1), *written(wire.snapshot(2))],
    "07": [*written(wire.snapshot(40), wire.change(41, "ETH-USD"), wire.ticker(42)), *changes(45, 48)],
    "08": [*written(wire.snapshot(8), wire.change(9), wire.snapshot(0)), *changes(1, 5, 2)],
    "09": [*nasty.GOOD, *nasty.GOOD[2:], *nasty.GOOD[4:]],
    "10": changes(1, 2, 4, 5, 7, 8, 10),
    "11": written(wire.snapshot(0), wire.change(1), wire.snapshot(2), wire.change(3)),
    "12": written(wire.snapshot(0), wire.ack(1, level2=["BTC-USD"]), wire.change(2)),
    "13": written(levels(0, "9", "12", "10", "11", "9", "12", kind="snapshot"), levels(1, "8", "13", "8")),
    "14": written(levels(0, "0.01", "138991023.41", "1e-8", "99999999999999999999", kind="snapshot")),
    "15": [line for text in NO_TIMES for line in of_times(text)],
    "16": [line for text in (*OFFSETS, *nasty.ILLEGAL_TIMES) for line in of_times(text)],
    "17": written(*(wire.heartbeat(number, *beat) for number, beat in enumerate(BEATS))),
    "18": many_products(),
    "19": nothing_in_them(),
    "20": prints(),
    "21": other_names(),
    "22": written(levels(0, "99", "101", kind="snapshot"), levels(1, "101"), levels(2, "500", "98")),
    "23": [line for text in (*nasty.LEGAL_NUMBERS, *nasty.ILLEGAL_NUMBERS) for line in of_numbers(text)],
    "24": [*nasty.GOOD[:3], *nasty.QUARANTINED.values(), *nasty.GOOD[3:]],
    "25": clock_steps_back(),
}
NOT_UNDERSTOOD: dict[str, Lines] = {
    "blank": [b"", b" "],
    "noise": [b"?", b"{}", b"\x00" * 50],
    "sides": written(wire.change(0, side="?")),
}
ENDS = {"02": b"", "24": b"\n" + nasty.CUT}
"""What stands in the place of the last newline."""


def content(name: str, lines: Lines) -> bytes:
    return b"\n".join(lines) + ENDS.get(name, b"\n")


def on_its_day(number: int, text: bytes) -> bytes:
    """Move what happened on the usual day to a day that nothing else is near."""
    return text.replace(b"2026-03-04", str(date(2026, 5, 1) + timedelta(days=4 * number)).encode())


# --- all of them in one job


class Job(NamedTuple):
    """A job that ran: its folders, copies of its segments, its report, and all rows by table."""

    copies: Path
    ready: Path
    out: Path
    report: cb.JobReport
    rows: dict[str, pl.DataFrame]

    def of(self, table: str, segment: str) -> pl.DataFrame:
        """Give a segment's rows of a table, in the order of its lines."""
        return by_line(self.rows[table].filter(segment=segment).select(schema(table).names()))


def by_line(frame: pl.DataFrame) -> pl.DataFrame:
    by = ["line", *({"product_id"} & {*frame.columns})]
    return frame.sort(by, maintain_order=True)


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    """Run a job over all of them, every table written."""
    root = tmp_path_factory.mktemp("nasty")
    copies, ready, out = root / "copies", root / "raw" / "ready" / "coinbase", root / "out"
    for number, (name, lines) in enumerate((NASTY | NOT_UNDERSTOOD).items()):
        text = on_its_day(number, content(name, lines))
        put(copies, f"nasty_{name}.ndjson", text)
        put(ready, f"nasty_{name}.ndjson", text)
    report = cb.run_job(ready, out, channel_config=EVERYTHING, progress=False)
    rows = {table: cb.scan_dataset(out, table, segment=True).collect() for table in (*CHANNELS, "book")}
    return Job(copies, ready, out, report, rows)


def test_the_job_ends_and_each_segment_is_in_its_place(job):
    done = {f"nasty_{name}.ndjson": "done" for name in NASTY}
    bad = {f"nasty_{name}.ndjson": "failed" for name in NOT_UNDERSTOOD}
    assert jobs.outcomes(job.report) == done | bad
    aside = {file: ["failed"] for name in bad for file in (name, f"{name}.error.txt")}
    assert jobs.places(job.ready) == {name: ["done"] for name in done} | aside
    for path in job.copies.iterdir():
        kept = jobs.beside(job.ready, "done" if path.name in done else "failed") / path.name
        assert kept.read_bytes() == path.read_bytes()
    assert jobs.leftovers(job.ready, job.out) == []
    assert jobs.manifests(job.out).keys() == {Path(name).stem for name in done}
    for name in bad:
        assert [path for path in job.out.rglob(f"*{Path(name).stem}*") if path.is_file()] == []


@pytest.mark.parametrize("name", NASTY)
def test_its_rows_are_the_raw_rows(job, name):
    segment = f"nasty_{name}"
    told = job.report.segments.row(by_predicate=pl.col("segment") == segment, named=True)
    start = None
    if told["started_from"] != "nothing":  # days before: its first frame breaks the books of that state
        start = cb.BookState.load(job.out / "_state" / f"{told['started_from']}.parquet").aged()
    raw = cb.read_raw(job.copies / f"{segment}.ndjson", start=start)
    expected = {table: getattr(raw, table) for table in CHANNELS}
    book = cb.rebuild_book(raw.level2, start=start).collect()
    expected["book"] = book.select(schema("book").names())
    for table, frame in expected.items():
        laws.assert_same(job.of(table, segment), by_line(frame), table)
    gaps = job.report.gaps.filter(segment=segment)
    laws.assert_same(gaps.select(schema("gaps").names()), raw.gaps, "gaps")
    for count in ("lines", "raw_bytes", "gaps", "lost_frames"):
        assert told[count] == getattr(raw.report, count), count
    assert told["rejects"] == raw.rejects.height


def quarantined(out: Path, segment: str) -> dict[int, bytes]:
    """Give the rejected lines of a segment, by their numbers."""
    path = out / "_quarantine" / f"{segment}.ndjson"
    rejects = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    for one in rejects:
        assert one["reason"]
    assert len({one["line"] for one in rejects}) == len(rejects)
    return {
        one["line"]: one["raw"].encode() if "raw" in one else base64.b64decode(one["raw_base64"])
        for one in rejects
    }


def leaves_no_rows(line: bytes, before: Lines, trades: set[tuple[str, int]]) -> bool:
    """Tell of a legal line whether it is right that it has no rows: it says nothing, or nothing new."""
    if line in before:
        return True
    frame = json.loads(line)
    frame = frame.get("data", frame)
    lists = [v for event in frame.get("events", [frame]) for v in event.values() if isinstance(v, list)]
    said = [item for one in lists for item in one]
    return all("trade_id" in one and (one["product_id"], int(one["trade_id"])) in trades for one in said)


@pytest.mark.parametrize("name", NASTY)
def test_every_line_of_it_is_accounted_for(job, name):
    segment = f"nasty_{name}"
    text = (job.copies / f"{segment}.ndjson").read_bytes()
    lines = text.removesuffix(b"\n").split(b"\n")
    rows = [job.of(table, segment) for table in CHANNELS]
    rows = [
        frame.filter(pl.col("side").is_not_null() | pl.col("is_snapshot")) if "event_time" in frame else frame
        for frame in rows
    ]
    with_rows = {line for frame in rows for line in frame["line"]}
    rejected = quarantined(job.out, segment)
    assert not with_rows & rejected.keys()
    assert {number: lines[number - 1] for number in rejected} == rejected
    trades = set(job.of("market_trades", segment).select("product_id", "trade_id").iter_rows())
    left = set(range(1, len(lines) + 1)) - with_rows - rejected.keys()
    for number in left:
        assert leaves_no_rows(lines[number - 1], lines[: number - 1], trades), number
    manifest = jobs.manifests(job.out)[segment]
    repeats = manifest["duplicates"]
    assert manifest["lines"] == len(lines) == manifest["frames"] + repeats + len(rejected)
    assert repeats == sum(lines[number - 1] in lines[: number - 1] for number in left)
    assert sum(manifest["rejects"].values()) == len(rejected)
    told = job.report.quarantine.filter(segment=segment).select("reason", "lines")
    assert dict(told.iter_rows()) == manifest["rejects"]
    assert all(manifest["rejects"].values())


@pytest.fixture(scope="module")
def one_day(tmp_path_factory) -> tuple[Path, Path]:
    """Put most of them into one day, where they repeat and contradict each other."""
    root = tmp_path_factory.mktemp("one_day")
    for name, lines in (NASTY | NOT_UNDERSTOOD).items():
        if name not in ("01", "10", "13", "14", "17", "21", "22", "23"):  # of one more of a kind, or large
            put(root / "ready", f"{name}.ndjson", content(name, lines))
            put(root / "copies", f"{name}.ndjson", content(name, lines))
    return root / "ready", root / "copies"


def test_whatever_they_go_on_from_it_is_what_run_segment_goes_on_from(one_day, tmp_path):
    ready, copies = one_day
    report = cb.run_job(ready, tmp_path / "out", progress=False)
    assert report.done + report.failed == report.segments.height == len(list(copies.iterdir()))
    for segment, source, outcome, started_from in report.segments.select(
        "segment", "source", "outcome", "started_from"
    ).iter_rows():
        if outcome == "done":
            assert cb.run_segment(copies / source, tmp_path / "whole").started_from == started_from, segment
    jobs.same_content(tmp_path / "out", tmp_path / "whole")
