"""run_job's order: by content, not by names; and which segments, products and tables are asked for."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jobs
import polars as pl
import pytest
import tiers
import timeline
import wire
from jobs import Segment, put, run, run_one_by_one, same_as_segments, same_content

from cbtools.run import order
from cbtools.schema import schema

ETH = "ETH-USD"
LIGHT: dict[str, Any] = {"level2": {"processor_options": {"compute_features": False}}, "market_trades": {}}
"""Features are of no interest where the order is: the book and the trades tell it."""


def begins(second: float = 0, product_id: str = "BTC-USD", number: int = 0) -> list[bytes]:
    """Give a connection's first frames: snapshot, a trade, a ticker, and two changes of this product."""
    frames = [
        wire.snapshot(number, product_id),
        wire.trades(number + 1, wire.trade(str(number + 1), product_id=product_id)),
        wire.ticker(number + 2, product_id),
    ]
    lines = [timeline.received(frame, second + place) for place, frame in enumerate(frames)]
    return [*lines, *timeline.changes(number + 3, number + 4, second + 3, product_id)]


def silent(second: float) -> bytes:
    """Give a frame of the feed that has no numbers."""
    return timeline.received(wire.exchange_update(["buy", "98", "3"]), second)


FIRST, SECOND, THIRD = begins(), timeline.changes(5, 9), timeline.changes(10, 14)
ORDERS: dict[str, list[Segment]] = {
    "names in order": [("a", FIRST), ("b", SECOND), ("c", THIRD)],
    "names in another order": [("c", FIRST), ("a", SECOND), ("b", THIRD)],
    "the clock steps back": [
        ("b", begins(20)),
        ("c", timeline.changes(5, 9, 8)),
        ("a", timeline.changes(10, 14, 13)),
    ],
    "the clock steps back twice": [
        ("c", begins(40)),
        ("b", timeline.changes(5, 9, 20)),
        ("a", timeline.changes(10, 14, 3)),
    ],
    "the hour of the name": [("segment_20260304T06_00002", FIRST), ("segment_20260304T05_00003", SECOND)],
    "begun in mid-connection": [
        ("b", timeline.changes(7_000, 7_004, 1)),
        ("a", timeline.changes(7_005, 7_009, 6)),
    ],
    "numbers begin again": [
        ("d", FIRST),
        ("c", SECOND),
        ("b", begins(30)),
        ("a", timeline.changes(5, 9, 35)),
    ],
    "one is missing": [("c", FIRST), ("b", THIRD), ("a", timeline.changes(20, 24))],
    "one frame is missing": [("b", FIRST), ("a", timeline.changes(6, 9))],
    "a repeat of the last frame": [("b", FIRST), ("a", [FIRST[-1], *SECOND])],
    "a repeat of the last frame, of a clock that was set back": [
        ("b", [*begins(20), *timeline.changes(5, 6, 8)]),
        ("a", [*timeline.changes(6, 6, 9), *timeline.changes(7, 9, 10)]),
    ],
    "noise before the first frame": [
        ("b", begins(20)),
        ("a", [b"?", b"", *timeline.changes(5, 9, 3)]),
    ],
    "a first frame that is rejected": [
        ("b", begins(20)),
        ("a", [timeline.received(wire.change(5, price="much"), 3), *timeline.changes(6, 9, 4)]),
    ],
    "no numbers": [("c", [silent(1), silent(2)]), ("b", [silent(3)]), ("a", [silent(4), silent(5)])],
    "an empty one": [("b", FIRST), ("a", SECOND), ("nothing", [])],
    "over midnight": [
        ("b", timeline.changes(1, 5, 19 * 3600 - 3)),
        ("a", timeline.changes(6, 9, 19 * 3600 + 2)),
    ],
}


@tiers.parametrize("case", ORDERS, every=4)
def test_segments_are_worked_in_the_order_of_their_content(tmp_path, ready, out, case):
    segments = ORDERS[case]
    for name, lines in segments:
        put(ready, f"{name}.ndjson", lines)
    report = run(ready, out, channel_config=LIGHT)
    worked = report.segments.filter(pl.col("lines") > 0)  # where an empty one stands is of no interest
    assert worked["segment"].to_list() == [name for name, lines in segments if lines]
    started_from = run_one_by_one(tmp_path / "whole", *segments, channel_config=LIGHT)
    told = dict(report.segments.select("segment", "started_from").iter_rows())
    assert [told[name] for name, _ in segments] == started_from
    same_content(out, tmp_path / "whole")


@tiers.parametrize(
    "names",
    [("c.ndjson.zst", "b.ndjson.gz", "a.ndjson"), ("b.ndjson.gz", "a.ndjson", "c.ndjson.zst")],
    every=2,
)
def test_compressed_ones_too(tmp_path, ready, out, names):
    for name, lines in zip(names, (FIRST, SECOND, THIRD), strict=True):
        put(ready, name, lines)
    assert run(ready, out, channel_config=LIGHT).segments["source"].to_list() == [*names]
    stems = [name.partition(".")[0] for name in names]
    segments = zip(stems, (FIRST, SECOND, THIRD), strict=True)
    same_as_segments(out, tmp_path, *segments, channel_config=LIGHT)


def two_recorders(behind: float) -> list[Segment]:
    """Give two recorders' segments by turns, the second one's clock being behind from its second one on."""
    mine = [begins(0.5), timeline.changes(5, 9, 5.5), timeline.changes(10, 14, 10.5)]
    other = [
        begins(1, ETH, 800),
        timeline.changes(805, 809, 6 - behind, ETH),
        timeline.changes(810, 814, 11 - behind, ETH),
    ]
    return [*zip("feb", mine, strict=True), *zip("cda", other, strict=True)]


@pytest.mark.ci
@tiers.parametrize(("behind", "keep_states"), [(0, 32), (7.25, 32), (7.25, 1), (0, 2)], every=2)
def test_two_recorders_streams_in_one_folder(tmp_path, ready, out, behind, keep_states):
    segments = dict(two_recorders(behind))
    for name, lines in segments.items():
        put(ready, f"{name}.ndjson", lines)
    options: dict[str, Any] = {"keep_states": keep_states, "channel_config": LIGHT}
    report = run(ready, out, **options)
    order = report.segments["segment"].to_list()
    for stream in ("feb", "cda"):
        assert [name for name in order if name in stream] == [*stream]
    assert behind or order == [*"fcedba"]
    started_from = run_one_by_one(tmp_path / "whole", *((name, segments[name]) for name in order), **options)
    assert report.segments["started_from"].to_list() == started_from
    if keep_states == 32:
        told = dict(zip(order, started_from, strict=True))
        assert [told[name] for name in "ebda"] == [*"fecd"]
    same_content(out, tmp_path / "whole")
    assert len(jobs.states(out)) == min(keep_states, 6)


# --- from job to job


@pytest.mark.ci
def test_the_next_job_goes_on_where_the_last_one_stopped(tmp_path, ready, out):
    segments = [("d", FIRST), ("a", SECOND), ("c", THIRD), ("b", timeline.changes(16, 19))]
    for jobs_segments in (segments[:1], segments[1:3], segments[3:]):
        for name, lines in jobs_segments:
            put(ready, f"{name}.ndjson", lines)
        report = run(ready, out)
        assert report.done == len(jobs_segments)
    assert report.segments["started_from"].to_list() == ["c"]
    assert run_one_by_one(tmp_path / "whole", *segments) == ["nothing", "d", "a", "c"]
    same_content(out, tmp_path / "whole")


def test_one_that_comes_late_goes_on_from_the_one_before_it(tmp_path, ready, out):
    segments = [("a", FIRST), ("c", THIRD), ("b", SECOND)]
    for job in (segments[:2], segments[2:]):
        for name, lines in job:
            put(ready, f"{name}.ndjson", lines)
        report = run(ready, out)
    assert report.segments["started_from"].to_list() == ["a"]
    same_as_segments(out, tmp_path, *segments)


def test_what_was_claimed_by_a_job_that_died_is_worked_in_its_place(tmp_path, ready, out):
    put(ready, "c.ndjson", FIRST)
    put(jobs.beside(ready, "processing"), "b.ndjson", SECOND)
    put(ready, "a.ndjson", THIRD)
    assert run(ready, out).segments["segment"].to_list() == [*"cba"]
    same_as_segments(out, tmp_path, ("c", FIRST), ("b", SECOND), ("a", THIRD))
    assert jobs.leftovers(ready, out) == []


# --- since, until


def at(second: float) -> bytes:
    """Give a frame that was sent and received at this second."""
    time = timeline.text(timeline.moment(second))
    return wire.record(wire.change(int(second), timestamp=time), time)


HOUR = 3600
SPANS = {"a": (10, 20), "b": (21, 30), "c": (31, 40), "d": (19 * HOUR, 19 * HOUR + 5)}  # d: of the next day
BEGIN = timeline.BEGIN
NEXT = BEGIN.date() + timedelta(days=1)
INDIA = timezone(timedelta(hours=5, minutes=30))


def after(second: float) -> datetime:
    return timeline.moment(second)


@tiers.parametrize(
    ("since", "until", "taken"),
    [
        (after(20), None, "abcd"),  # its last frame is in
        (after(20.000001), None, "bcd"),
        (after(25), None, "bcd"),
        (None, after(21), "a"),  # its first frame is not
        (None, after(21.000001), "ab"),
        (after(12), after(13), "a"),  # no frame is, and it goes on around it
        (after(20.5), after(20.75), ""),
        (after(22), after(32), "bc"),
        (after(25).replace(tzinfo=None), after(31).replace(tzinfo=None), "b"),
        (after(25).astimezone(INDIA), after(31).astimezone(INDIA), "b"),
        (after(25).isoformat(), after(31).isoformat(), "b"),
        (after(25).replace(tzinfo=None).isoformat(), f"{after(31):%Y-%m-%dT%H:%M:%SZ}", "b"),
        (after(25).astimezone(INDIA).isoformat(), f"{after(31):%Y-%m-%d %H:%M:%S}", "b"),
        (BEGIN.date(), NEXT, "abc"),
        (NEXT, None, "d"),
        (str(NEXT), None, "d"),
        (None, str(NEXT), "abc"),
        (date(2026, 1, 1), date(2027, 1, 1), "abcd"),
    ],
    every=3,
)
def test_segments_of_a_time(ready, out, since, until, taken):
    for name, seconds in SPANS.items():
        put(ready, f"{name}.ndjson", [at(second) for second in seconds])
    before = {path: path.stat() for path in ready.iterdir()}
    report = run(ready, out, since=since, until=until, channels=["ticker"])
    assert report.segments["segment"].to_list() == [*taken]
    assert report.done == len(taken)
    left = sorted(path.name for path in ready.iterdir())
    assert left == [f"{name}.ndjson" for name in SPANS if name not in taken]
    for name in left:
        old, new = before[ready / name], (ready / name).stat()
        assert (new.st_ino, new.st_mtime_ns, new.st_size) == (old.st_ino, old.st_mtime_ns, old.st_size)
    assert jobs.manifests(out).keys() == set(taken)


@pytest.mark.ci
def test_whole_segments_are_taken_and_the_others_by_the_next_job(tmp_path, ready, out):
    segments = [("a", FIRST), ("b", SECOND), ("c", THIRD)]
    for name, lines in segments:
        put(ready, f"{name}.ndjson", lines)
    assert run(ready, out, until=timeline.moment(7)).done == 2
    assert run(ready, out).done == 1
    same_as_segments(out, tmp_path, *segments)


# --- products, channels


def of_two_products(ready: Path) -> list[Segment]:
    """Put two segments with changes of two products by turns, and a line that is not understood."""
    more = [timeline.received(wire.change(n, (ETH, "BTC-USD")[n % 2], size=str(n)), n) for n in range(10, 20)]
    segments = [("b", [*begins(), *begins(5, ETH, 5)]), ("a", [*more, b"?"])]
    for name, lines in segments:
        put(ready, f"{name}.ndjson", lines)
    return segments


@tiers.parametrize("products", [[ETH], ("BTC-USD", ETH), {"BTC-USD", "NO-NE"}], every=3)
def test_only_these_products_rows(tmp_path, ready, out, products):
    run_one_by_one(tmp_path / "whole", *of_two_products(ready))
    report = run(ready, out, products=products)
    assert report.done == 2
    whole = jobs.tables(tmp_path / "whole")
    assert whole.keys() == set(jobs.TABLES)
    expected = {
        table: frame.filter(pl.col("product_id").is_in([*products])) for table, frame in whole.items()
    }
    assert all(frame.height for frame in expected.values())
    jobs.same_rows(jobs.tables(out), expected)
    assert jobs.quarantine(out) == jobs.quarantine(tmp_path / "whole")


@tiers.parametrize(
    ("channels", "tables"),
    [
        (["ticker"], {"ticker"}),
        (["level2"], {"level2", "book"}),
        (("market_trades", "ticker"), {"market_trades", "ticker"}),
    ],
    every=3,
)
def test_only_these_tables(tmp_path, ready, out, channels, tables):
    run_one_by_one(tmp_path / "whole", *of_two_products(ready))
    run(ready, out, channels=channels)
    expected = {table: frame for table, frame in jobs.tables(tmp_path / "whole").items() if table in tables}
    found = jobs.tables(out)
    assert found.keys() == tables
    for table in tables:
        columns = [name for name in found[table].columns if name in schema(table)]
        assert found[table].select(columns).equals(expected[table].select(columns))


def test_only_these_tables_of_a_configuration(ready, out):
    of_two_products(ready)
    config = {"ticker": {"partition_cols": ["product_id"]}, "level2": {}, "candles": {}}
    run(ready, out, channel_config=config, channels=["ticker"])
    assert {path.name for path in out.glob("[!._]*")} == {"ticker"}
    assert {path.name for path in (out / "ticker").iterdir()} == {"product_id=BTC-USD", f"product_id={ETH}"}


@pytest.mark.parametrize("most_bytes", [1 << 26, 3_000])
@pytest.mark.parametrize("end", [b"", b"x" * 20_000, b"not JSON\n" * 2_000])
def test_the_last_frames_are_found_in_bounded_memory(tmp_path, monkeypatch, most_bytes, end):
    """However far before the end of the file they are: then it is read from its start on."""
    monkeypatch.setattr(order, "_END_BYTES", 500)
    monkeypatch.setattr(order, "_MOST_END_BYTES", most_bytes)
    path = tmp_path / "x.ndjson"
    path.write_bytes(wire.segment(*FIRST, *SECOND) + end)
    last = order.last_frames(path)
    assert last.last == 9
    assert last.recent[-1][0] == 9
