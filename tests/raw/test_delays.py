"""Receive delays: by product, from the times of its frames; and the rule by which a clock is off."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import timeline
import wire
from timeline import moment

import cbtools as cb
from cbtools.raw.delays import MOST_NEGATIVE, Delays, ReceiveDelay, line_delays
from cbtools.raw.sequence import NO_TIME

BTC, ETH, SOL = "BTC-USD", "ETH-USD", "SOL-USD"
MS = 10**6


def after(frame: wire.Json, ms: float | None, second: float = 60) -> bytes:
    """Write a frame received so many milliseconds after it was sent; None: not by the recorder's envelope."""
    frame = frame | {"timestamp": timeline.text(moment(second))}
    if ms is None:
        return wire.line(frame)
    return wire.record(frame, timeline.text(moment(second) + timedelta(milliseconds=ms)))


def report_of(folder: Path, *lines: bytes, **more: Any) -> cb.RawReport:
    return cb.inspect_raw(timeline.write(folder, 1, *lines), **more).raw


def exact(delays: list[int]) -> tuple[int, int, int, int]:
    """Give the number, the least, and the median and p99 as the smallest that so many do not exceed."""
    ordered = sorted(delays)
    quantiles = (ordered[int(np.ceil(q * len(ordered))) - 1] for q in (0.5, 0.99))
    return len(ordered), ordered[0], *quantiles


@pytest.mark.parametrize("scale", [1, 1000, MS, 10**10, 10**17])
@pytest.mark.parametrize("shift", [0.0, -0.3, -5.0])
def test_quantiles_are_within_one_percent_and_the_rest_is_exact(scale, shift):
    dice = random.Random(f"{scale} {shift}")
    found, drawn = Delays(), {BTC: [], ETH: []}
    for _ in range(3):
        line = np.arange(3000)
        products = [dice.choice([BTC, ETH]) for _ in line]
        delays = [round((dice.lognormvariate(0, 1) + shift) * scale) for _ in line]
        for product, delay in zip(products, delays, strict=True):
            drawn[product].append(delay)
        found.add(line, pl.Series(products), np.array(delays))
    for product, delay in found.found().items():
        frames, least, *quantiles = exact(drawn[product])
        assert (delay.frames, delay.min) == (frames, least)
        assert delay.negative == sum(one < 0 for one in drawn[product])
        for got, right in zip((delay.median, delay.p99), quantiles, strict=True):
            assert abs(got - right) <= 0.01 * abs(right)


def test_small_delays_are_exact():
    delays = Delays()
    delays.add(np.arange(5), pl.Series([BTC] * 5), np.array([-1, 0, 0, 0, 1]))
    assert delays.found() == {BTC: ReceiveDelay(5, -1, 0, 1, 1)}


def test_a_frame_counts_once_for_each_product_and_table():
    delays = Delays()
    line = np.array([0, 0, 0, 0, 2, 2])
    rows = delays.add(line, pl.Series([BTC, ETH, BTC, BTC, ETH, ETH]), np.array([5, 6, 7]))
    assert rows == {BTC: 3, ETH: 3}
    rows = delays.add(np.array([1, 1]), pl.Series([ETH, ETH]), np.array([5, 6, 7]))
    assert rows == {ETH: 2}
    assert delays.add(np.empty(0, np.int64), pl.Series([], dtype=pl.String), np.array([1])) == {}
    found = delays.found()
    assert {name: (one.frames, one.min) for name, one in found.items()} == {BTC: (1, 5), ETH: (3, 5)}


def test_a_time_that_is_not_known_or_not_of_this_world_is_left_out():
    server = np.array([10, NO_TIME, 10, -(2**63) + 1, 2**63 - 1])
    capture = np.array([25, 10, NO_TIME, 2**63 - 1, 0])
    delays = Delays()
    delays.add(np.arange(5), pl.Series([BTC] * 5), line_delays(server, capture))
    assert delays.found()[BTC] == ReceiveDelay(1, 15, 15, 15, 0)
    unknown = Delays()
    unknown.add(np.array([1, 2]), pl.Series([BTC, ETH]), line_delays(server, capture))
    assert unknown.found() == {}


def test_of_a_recording(tmp_path):
    """Level2, trades and tickers; no heartbeat, no snapshot of trades, no repeat, no frame with one time."""
    lines = [
        after(wire.snapshot(0), 8),
        after(wire.heartbeat(1, "now", 1), 4000),
        after(wire.trades(2, wire.trade("1"), kind="snapshot"), 3000),
        after(wire.trades(3, wire.trade("2"), wire.trade("1", product_id=ETH)), 12),
        after(wire.ticker(4), 10),
        after(wire.ticker(4), 10),
        after(wire.ticker(5), None),
        after(wire.l2(6, wire.book(BTC, wire.update("bid", "1", "1")), wire.book(ETH)), -2),
        after(wire.ticker(7, SOL), -4),
    ]
    report = report_of(tmp_path, *lines)
    found = {name: (one.frames, one.min, one.negative) for name, one in report.receive_delays.items()}
    assert found == {BTC: (4, -2 * MS, 1), ETH: (1, 12 * MS, 0), SOL: (1, -4 * MS, 1)}
    assert report.rows["market_trades"] == {BTC: 2, ETH: 1}
    for chunk_bytes in (1, 400):
        assert report_of(tmp_path, *lines, chunk_bytes=chunk_bytes) == report
    assert cb.read_raw(tmp_path).report == report


def test_in_the_report(tmp_path):
    lines = [after(wire.ticker(n, product), ms) for n, (product, ms) in enumerate([(BTC, 7.5), (ETH, -4)])]
    report = report_of(tmp_path, *lines)
    shown = dict(report.items())
    assert shown["receive delay"].split("; ") == [
        "ETH-USD median -4 ms, p99 -4 ms, min -4 ms, negative 100.00%",
        "BTC-USD median 7.5 ms, p99 7.5 ms, min 7.5 ms, negative 0.00%",
    ]
    assert shown["clock is off"] == (
        "100.00% of the frames of ETH-USD were received before they were sent; the median delay is -4 ms"
    )
    frame = report.delays()
    assert frame["product_id"].to_list() == [ETH, BTC]
    assert frame["clock_is_off"].to_list() == [True, False]
    assert frame["min"].to_list() == [timedelta(milliseconds=-4), timedelta(milliseconds=7.5)]
    assert frame.schema["p99"] == pl.Duration("ns")


def test_without_times_there_is_none(tmp_path):
    report = report_of(tmp_path, after(wire.ticker(0), None))
    assert dict(report.items())["receive delay"] == "not known"
    assert "clock is off" not in dict(report.items())
    assert report.delays().is_empty()
    assert report.delays().schema == report_of(tmp_path, after(wire.ticker(0), 1)).delays().schema


def test_many_products_are_shown_by_the_worst():
    of = {f"P{n}-USD": ReceiveDelay(10, n, n * MS, n * MS, n == 2) for n in range(1, 6)}
    shown = dict(cb.RawReport(receive_delays=of).items())["receive delay"].split("; ")
    assert [one.split()[0] for one in shown] == ["P2-USD", "P5-USD", "P4-USD", "and"]
    assert shown[-1] == "and 2 more"


@pytest.mark.parametrize(
    ("delay", "off"),
    [
        (ReceiveDelay(1000, -5, 10, 10, 10), False),
        (ReceiveDelay(1000, -5, 10, 10, 11), True),
        (ReceiveDelay(1000, 0, 5 * 10**9, 10**12, 0), False),
        (ReceiveDelay(1000, 0, 5 * 10**9 + 1, 10**12, 0), True),
    ],
)
def test_a_clock_is_off(delay, off):
    """Many frames received before they were sent, or half of them very late; a late hundredth is none."""
    assert MOST_NEGATIVE == 0.01
    assert delay.is_off is off
    assert ("clock is off" in dict(cb.RawReport(receive_delays={BTC: delay}).items())) is off


def test_late_trades(tmp_path):
    def trade(n: int, waited: float, product_id: str = BTC) -> wire.Json:
        return wire.trade(str(n), time=timeline.text(moment(60 - waited)), product_id=product_id)

    lines = [
        after(wire.trades(0, trade(1, 900), kind="snapshot"), 7),
        after(wire.trades(1, trade(2, 5), trade(3, 5.001), trade(4, -3)), 7),
        after(wire.trades(2, trade(3, 5.001), trade(5, 60), trade(1, 60, ETH)), 7),  # 3 again
    ]
    report = report_of(tmp_path, *lines)
    assert report.late_trades == {BTC: 2, ETH: 1}
    assert dict(report.items())["late trades"] == "BTC-USD 2, ETH-USD 1"
    assert dict(cb.RawReport().items())["late trades"] == "none"
    without = cb.run_segment(tmp_path, tmp_path / "out", channel_config={"ticker": {}}).raw
    assert without.late_trades == report.late_trades
