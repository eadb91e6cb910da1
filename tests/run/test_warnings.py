"""What is warned of, in which words, at whose line; once a call."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import timeline
import wire

import cbtools as cb

BTC = "BTC-USD"


@pytest.fixture
def good(tmp_path) -> Path:
    """Give a segment of which nothing is to be warned of."""
    lines = [timeline.received(wire.snapshot(0), 1), *timeline.changes(1, 5)]
    return timeline.write(tmp_path / "raw", 1, *lines, timeline.received(wire.trades(6, wire.trade("1")), 6))


@pytest.fixture
def unverified(tmp_path) -> Path:
    """Give a segment with a gap, after which no snapshot comes."""
    lines = [timeline.received(wire.snapshot(0), 1), *timeline.changes(2, 4)]
    return timeline.write(tmp_path / "raw", 2, *lines)


@pytest.fixture
def early(tmp_path) -> Path:
    """Give a segment that was received before it was sent."""
    return timeline.write(tmp_path / "raw", 3, before_it_was_sent(1))


def before_it_was_sent(second: float) -> bytes:
    snapshot = wire.snapshot(0, timestamp=timeline.text(timeline.moment(second + 2)))
    return wire.record(snapshot, timeline.text(timeline.moment(second)))


def warned(function: Any, *arguments: Any, **more: Any) -> list[str]:
    """Give the messages of the warnings of a call, all at this line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*arguments, **more)
    assert {(one.filename, one.category) for one in caught} <= {(__file__, cb.CbtoolsWarning)}
    return [str(one.message) for one in caught]


def test_it_is_a_user_warning():
    assert issubclass(cb.CbtoolsWarning, UserWarning)


def test_of_a_damaged_file(good, tmp_path):
    packed = tmp_path / "a.ndjson.gz"
    packed.write_bytes(gzip.compress(good.read_bytes())[:-8])
    (message,) = warned(cb.run_segment, packed, tmp_path / "out")
    assert message.startswith("a: the file is damaged: the checksum of a gzip member is cut off (byte ")
    assert message.endswith("). All lines that its bytes yield were read") or "read to the end" in message


@pytest.mark.parametrize(("bad", "count"), [(2, 0), (3, 1)])
def test_of_lines_of_which_more_than_a_quarter_was_rejected(good, tmp_path, bad, count):
    lines = good.read_bytes().splitlines()[:6]
    good.write_bytes(wire.segment(*lines, *[b'1772600767 {"type":"heartbeat"}'] * bad))
    messages = warned(cb.run_segment, good, tmp_path / "out")
    assert len(messages) == count
    for message in messages:
        assert message.startswith(
            f"{good.stem}: 3 of 9 lines were rejected (another format 3); 3 appear to be a "
        )


def test_of_a_good_recording_nothing_is_warned(good, tmp_path):
    assert warned(cb.run_segment, good, tmp_path / "out") == []
    assert warned(cb.inspect_raw, good) == []
    assert warned(cb.run_job, good.parent, tmp_path / "job", progress=False) == []


def test_a_clock_that_is_off(early, tmp_path):
    said = (
        "segment_20260304T05_00003: the recorder's clock is off: 100.00% of the frames of BTC-USD were "
        "received before they were sent; the median delay is -2 s. By capture_time, rows are shifted"
    )
    for found in (warned(cb.run_segment, early, tmp_path / "out"), warned(cb.inspect_raw, early)):
        assert len(found) == 1
        assert found[0].startswith(said)


def test_a_book_that_was_hardly_ever_verified(unverified, tmp_path):
    said = (
        "segment_20260304T05_00002: for most messages, there was no verified book: "
        "BTC-USD (75% of 4). Frames are missing"
    )
    for found in (warned(cb.run_segment, unverified, tmp_path / "out"), warned(cb.inspect_raw, unverified)):
        assert len(found) == 1
        assert found[0].startswith(said)
    without = {"level2": {"processor_options": {"reconstruct_lob": False}}}
    assert warned(cb.run_segment, unverified, tmp_path / "out", channel_config=without) == []


def test_half_of_a_book_is_not_most_of_it(tmp_path):
    path = timeline.write(tmp_path, 1, timeline.received(wire.snapshot(0), 1), *timeline.changes(2, 2))
    assert warned(cb.inspect_raw, path) == []


def test_no_rows_of_what_was_asked_for(good, tmp_path):
    def of(**more: Any) -> list[str]:
        return warned(cb.run_segment, good, tmp_path / "out", **more)

    name = "segment_20260304T05_00001"
    assert of(products=[BTC, "BTC-USDX", "A-B"]) == [
        f"{name}: no rows of A-B, BTC-USDX: is the name right (as BTC-USD), and was it recorded?"
    ]
    assert of(products=[BTC]) == []
    assert of(channel_config={"ticker": {}, "level2": {}, "errors": {}}) == [
        f"{name}: no rows of ticker: was the channel recorded, and of these products?"
    ]


def test_a_job_warns_once_of_all_its_segments(good, early, tmp_path):
    timeline.write(early.parent, 4, before_it_was_sent(9))
    found = warned(cb.run_job, good.parent, tmp_path / "job", products=[BTC, "A-B"], progress=False)
    assert found == [
        "the recorder's clock is off in 2 of 3 segments, BTC-USD: see .delays. Synchronize it (NTP); by "
        "capture_time, rows are shifted",
        "all segments that were run: no rows of A-B: is the name right (as BTC-USD), and was it recorded?",
    ]
    assert warned(cb.run_job, good.parent, tmp_path / "job", products=["A-B"], progress=False) == []


def test_a_job_s_report_has_the_delays(good, early, tmp_path):
    report = cb.run_job(good.parent, tmp_path / "job", progress=False)
    assert report.delays.select("segment", "product_id", "clock_is_off").rows() == [
        ("segment_20260304T05_00001", BTC, False),
        ("segment_20260304T05_00003", BTC, True),
    ]
    assert dict(report.items())["clock is off"] == "in 1 of 2 segments, BTC-USD: see .delays"


def test_trades_of_snapshots_left_out_for_hftbacktest(tmp_path):
    def trades(live: int) -> pl.DataFrame:
        lines = [timeline.received(wire.trades(1, wire.trade("1"), kind="snapshot"), 1)]
        lines += [timeline.received(wire.trades(2 + n, wire.trade(str(2 + n))), 2) for n in range(live)]
        return cb.read_raw(timeline.write(tmp_path, 1, *lines)).market_trades

    level2 = cb.read_raw(timeline.write(tmp_path, 2, timeline.received(wire.snapshot(0), 1))).level2
    found = warned(cb.to_hftbacktest, level2, trades(2), tmp_path / "few.npz")
    assert [one.split(":")[0] for one in found] == ["to_hftbacktest leaves out 1 of 3 trades"]
    assert warned(cb.to_hftbacktest, level2, trades(3), tmp_path / "some.npz") == []
    assert warned(cb.to_hftbacktest, level2, None, tmp_path / "none.npz") == []


@pytest.mark.filterwarnings("always::cbtools.CbtoolsWarning")
@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens:UserWarning")
def test_the_command_line_shows_it_as_a_line(call, early):
    done = call("inspect", early, "--no-progress")
    assert done.code == 0
    assert done.err.splitlines() == [f"warning: {message}" for message in warned(cb.inspect_raw, early)]
