"""What the books met is counted, by product, and the feed's tickers are held against them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tiers
import timeline
import wire

import cbtools as cb
from cbtools.book.report import STATES, BookCounts

Line = bytes
BTC, ETH = "BTC-USD", "ETH-USD"


def level2(number: int | None, *events: wire.Json) -> Line:
    return timeline.received(wire.l2(number, *events), number or 0)


def event(*levels: tuple[str, float, float], of: str = BTC, kind: str = "update") -> wire.Json:
    return wire.book(
        of, *(wire.update(side, str(price), str(size)) for side, price, size in levels), kind=kind
    )


def begin(number: int = 0, of: str = BTC) -> Line:
    """Give a snapshot: bids at 99.5 and 99, asks at 100.5 and 101."""
    return timeline.received(wire.snapshot(number, of), number)


def change(number: int, side: str = "bid", price: float = 99.5, size: float = 7, of: str = BTC) -> Line:
    return level2(number, event((side, price, size), of=of))


def ticker(number: int, bid: Any = "99.5", ask: Any = "100.5", of: str = BTC) -> Line:
    return timeline.received(wire.ticker(number, of, best_bid=bid, best_ask=ask), number)


@pytest.fixture
def inspect(tmp_path) -> Callable[..., cb.BookReport]:
    """Write lines into segments, each list of them into one, and inspect these."""

    def inspect(*segments: list[Line] | Line, **more: Any) -> cb.BookReport:
        whole = [segments] if isinstance(segments[0], bytes) else segments
        paths = [timeline.write(tmp_path, n, *lines) for n, lines in enumerate(whole, start=1)]
        return cb.inspect_raw(paths, **more).book

    return inspect


# --- counts


def test_messages_changes_and_snapshots(inspect):
    report = inspect(
        begin(0),
        level2(
            1, event(("bid", 98, 1), ("offer", 102, 1)), event(("bid", 98, 2), of=ETH), event(("bid", 97, 1))
        ),
        begin(2),
        change(3, of=ETH),
    )
    btc, eth = report.products[BTC], report.products[ETH]
    assert (btc.messages, btc.changes, btc.snapshots) == (3, 4 + 3 + 4, 2)
    assert (eth.messages, eth.changes, eth.snapshots) == (2, 2, 0)
    assert list(report.products) == [BTC, ETH]


def test_changes_before_the_first_snapshot_are_early(inspect):
    report = inspect(
        level2(0, event(("bid", 98, 1), ("bid", 97, 0))),
        change(1),
        begin(2),
        change(3),
        change(4, of=ETH),
    )
    btc, eth = report.products[BTC], report.products[ETH]
    assert (btc.early_changes, btc.absent_deletes) == (3, 0)
    assert sum(btc.states.values()) == 2 == btc.messages - 2
    assert (eth.early_changes, dict(eth.states)) == (1, {})


def test_changes_before_the_snapshot_of_the_same_message_are_not_early(inspect):
    report = inspect(level2(0, event(("bid", 98, 1)), event(("bid", 99, 1), kind="snapshot")))
    assert report.products[BTC] == BookCounts(messages=1, changes=2, snapshots=1, states={"one_sided": 1})


def test_deletes_of_levels_that_are_not_there(inspect):
    report = inspect(
        begin(0),
        change(1, "bid", 99.5, 0),
        change(2, "bid", 99.5, 0),  # gone already
        change(3, "bid", 100.5, 0),  # an ask
        change(4, "offer", 100.5, 0),
        level2(5, event(("bid", 98, 0), ("bid", 98, 1), ("bid", 98, 0), ("bid", 98, 0))),
        level2(6, event(("bid", 90, 0), ("bid", 91, 1), kind="snapshot")),  # no level, and no delete
        change(7, "bid", 99, 0, of=ETH),  # early
    )
    assert report.products[BTC].absent_deletes == 2 + 2
    assert report.products[ETH].absent_deletes == 0


def test_states_are_those_that_the_messages_left(inspect):
    report = inspect(
        begin(0),
        change(1, "bid", 100.5, 1),
        change(2, "bid", 100.5, 0),
        level2(3, event(("offer", 100.5, 0), ("offer", 101, 0))),
        level2(4, event(("bid", 99.5, 0), ("bid", 99, 0))),
        change(5, "offer", 101),
        begin(6),
        change(8),  # 7 is missing
        change(9),
    )
    expected = {"ok": 3, "unproven": 2, "crossed": 1, "one_sided": 2, "empty": 1}
    assert report.products[BTC].states == expected
    assert list(report.products[BTC].states) == list(STATES)


def test_breaks_are_those_by_which_a_product_s_book_ceased_to_be_proven(inspect):
    report = inspect(
        begin(0),
        begin(1, ETH),
        change(3),  # 2 is missing
        change(4),
        change(7),  # 5 and 6: it is unproven already
        change(8, of=ETH),
        timeline.received(wire.snapshot(0), 20),  # another connection proves it again
        timeline.received(wire.change(1), 21),
        timeline.received(wire.change(3), 22),
    )
    assert {name: counts.breaks for name, counts in report.products.items()} == {BTC: 2, ETH: 1}
    assert report.products[BTC].states == {"ok": 3, "unproven": 4}
    assert report.products[ETH].states == {"ok": 1, "unproven": 1}


def test_a_break_counts_from_the_frame_that_shows_it(inspect):
    """Whatever frame that is; the marker is no message and no change."""
    report = inspect(begin(0), change(1), timeline.received(wire.heartbeat(9, "now", 1), 9))
    counts = report.products[BTC]
    assert (counts.breaks, counts.messages, counts.changes) == (1, 2, 5)
    assert counts.states == {"ok": 2}


def test_an_empty_snapshot_is_a_message_without_changes(inspect):
    report = inspect(begin(0), level2(1, wire.book(BTC, kind="snapshot")), change(2, "bid", 50, 1))
    counts = report.products[BTC]
    assert (counts.messages, counts.changes, counts.snapshots, counts.breaks) == (3, 5, 2, 0)
    assert counts.states == {"ok": 1, "empty": 1, "one_sided": 1}


def test_a_rejected_message_breaks_the_book_of_its_product(inspect):
    spoiled = level2(2, wire.book(BTC, wire.update("bid", "much", "1")))
    report = inspect(begin(0), begin(1, ETH), spoiled, change(3), change(4, of=ETH))
    assert report.products[BTC].states == {"ok": 1, "unproven": 1}
    assert report.products[ETH].states == {"ok": 2}
    assert {name: counts.breaks for name, counts in report.products.items()} == {BTC: 1, ETH: 0}


def test_repeats_are_not_counted(inspect):
    once = [begin(0), change(1), change(2, "bid", 1, 0), ticker(3)]
    twice = [line for line in once for _ in range(2)]
    assert inspect(twice) == inspect(once)


def test_several_segments_are_one_stream(inspect):
    lines = [begin(0), change(1), ticker(2), change(3, "offer", 100.25), ticker(4, ask="100.25"), change(6)]
    whole = inspect(lines)
    assert whole.products[BTC].states == {"ok": 3, "unproven": 1}
    for cut in range(len(lines) + 1):
        assert inspect(lines[:cut], lines[cut:]) == whole


@tiers.parametrize("chunk_bytes", [1, 700, 1 << 20], every=3)
def test_the_size_of_chunks_changes_no_count(inspect, chunk_bytes):
    sides = [("bid", 99 + n / 100) for n in range(40)] + [("offer", 101 - n / 100) for n in range(40)]
    lines = [begin(0)]
    for n, (side, price) in enumerate(sides):
        lines += [change(2 * n + 1, side, price), ticker(2 * n + 2, ask="100.5")]
    assert inspect(lines, chunk_bytes=chunk_bytes) == inspect(lines)


def test_without_level2_there_is_nothing(inspect):
    report = inspect(ticker(0), timeline.received(wire.trades(1, wire.trade(1)), 1), b"not JSON")
    assert report == cb.BookReport()
    assert report.products == {}


# --- the tickers


def test_a_ticker_agrees_with_the_book_at_its_number(inspect):
    """It tells the book as of the frames before it, not of those behind it."""
    report = inspect(
        begin(0),
        ticker(1),
        change(2, "bid", 100),
        ticker(3, bid="100"),
        ticker(4, bid="99.5"),  # which is past
        change(5, "bid", 100, 0),
        ticker(6, bid="99.50"),
    )
    counts = report.products[BTC]
    assert (counts.tickers, counts.agreeing) == ({"ok": 4}, {"ok": 3})
    assert counts.agreement == 0.75


@pytest.mark.parametrize(
    ("bid", "ask", "agrees"),
    [
        ("99.5", "100.5", 1),
        ("99.500", "1.005e2", 1),
        ("99.49", "100.5", 0),
        ("99.5", "100.51", 0),
        ("100.5", "99.5", 0),
        ("0", "0", 0),
    ],
)
def test_both_prices_must_agree(inspect, bid, ask, agrees):
    counts = inspect(begin(0), ticker(1, bid, ask)).products[BTC]
    assert (counts.tickers, counts.agreeing) == ({"ok": 1}, {"ok": agrees})
    assert counts.agreement == agrees


def test_sizes_are_not_compared(inspect):
    other = timeline.received(wire.ticker(1, best_bid_quantity="9", best_ask_quantity="9"), 1)
    assert inspect(begin(0), other).products[BTC].agreement == 1


def test_tickers_are_counted_by_the_state_of_the_book(inspect):
    report = inspect(
        begin(0),
        ticker(1),
        change(2, "bid", 100.5, 1),
        ticker(3, bid="100.5"),
        ticker(4),
        level2(5, event(("bid", 100.5, 0), ("offer", 100.5, 0), ("offer", 101, 0))),
        ticker(6),  # there is no ask that it could agree with
        change(7, "offer", 100.5),
        ticker(9),  # 8 is missing
        change(10, "offer", 100.25),
        ticker(11, ask="100.25"),
        ticker(12),
    )
    counts = report.products[BTC]
    assert counts.tickers == {"ok": 1, "crossed": 2, "one_sided": 1, "unproven": 3}
    assert counts.agreeing == {"ok": 1, "crossed": 1, "one_sided": 0, "unproven": 2}
    assert counts.agreement == 1.0


def test_each_product_has_its_own(inspect):
    report = inspect(
        begin(0),
        level2(1, event(("bid", 5, 1), ("offer", 6, 1), of=ETH, kind="snapshot")),
        ticker(2, of=ETH),
        ticker(3, "5", "6", of=ETH),
        ticker(4),
    )
    assert {name: counts.agreement for name, counts in report.products.items()} == {BTC: 1.0, ETH: 0.5}


def test_tickers_that_name_no_best_and_those_before_a_book_are_not_counted(inspect):
    report = inspect(
        ticker(0),
        change(1),
        ticker(2),
        begin(3),
        timeline.received(wire.ticker(4, best_bid=None), 4),
        timeline.received(wire.ticker(5, channel="ticker_batch"), 5),
        ticker(6, of=ETH),
    )
    assert (report.products[BTC].tickers, report.products[BTC].agreement) == ({}, None)
    assert list(report.products) == [BTC]


def test_a_ticker_of_the_next_segment_has_the_book_of_the_one_before(inspect):
    report = inspect(
        [*[b""] * 50, begin(0)], [ticker(1), change(2, "bid", 100)], [b"", ticker(3, "100"), ticker(4)]
    )
    assert (report.products[BTC].tickers, report.products[BTC].agreeing) == ({"ok": 3}, {"ok": 2})


def test_run_segment_counts_no_tickers(tmp_path):
    path = timeline.write(tmp_path, 1, begin(0), ticker(1))
    counts = cb.run_segment(path, tmp_path / "out").book.products[BTC]
    assert counts == BookCounts(messages=1, changes=4, snapshots=1, states={"ok": 1})
    assert counts.agreement is None


# --- as a frame, and printed


@pytest.fixture
def report(inspect) -> cb.BookReport:
    """Inspect a recording in which each count of BTC-USD is another."""
    lines = [
        change(0),
        level2(1, event(("bid", 99.5, 1)), event(("bid", 5, 1), ("offer", 6, 1), of=ETH, kind="snapshot")),
        begin(2),
        *(change(n, "bid", 90 + n / 10) for n in range(3, 9)),
        change(9, "bid", 1, 0),
        change(11),  # 10 is missing
        begin(12, ETH),
        ticker(13, of=ETH),
        begin(14),
        *(ticker(n) for n in range(15, 18)),
        ticker(18, "99"),
        change(19, "bid", 200),
        ticker(20, "200"),
    ]
    return inspect(lines)


def test_to_frame_has_a_row_a_product(report):
    frame = report.to_frame()
    expected = {
        "product_id": [BTC, ETH],
        "messages": [13, 2],
        "changes": [19, 6],
        "snapshots": [2, 2],
        "ok": [9, 2],
        "unproven": [1, 0],
        "crossed": [1, 0],
        "one_sided": [0, 0],
        "empty": [0, 0],
        "early_changes": [2, 0],
        "absent_deletes": [1, 0],
        "breaks": [1, 1],
        "tickers": [4, 1],
        "agreeing": [3, 1],
    }
    assert frame.to_dict(as_series=False) == expected
    assert frame.schema == {"product_id": pl.String, **dict.fromkeys(list(expected)[1:], pl.Int64)}


def test_to_frame_of_nothing_has_the_same_columns(report):
    empty = cb.BookReport().to_frame()
    assert empty.schema == report.to_frame().schema
    assert empty.is_empty()


def test_it_is_printed(report):
    assert report.items() == [
        ("book", "15 messages, 25 changes, 4 snapshots"),
        ("book states", "ok 11, unproven 1, crossed 1"),
        ("before a snapshot", "BTC-USD 2 changes"),
        ("absent deletes", "BTC-USD 1 changes"),
        ("breaks met", "BTC-USD 1, ETH-USD 1"),
        ("ticker agrees, ok", "80.00% of 5: BTC-USD 75.00%, ETH-USD 100.00%"),
        ("ticker agrees, crossed", "100.00% of 1"),
    ]
    width = max(len(label) for label, _ in report.items())
    assert str(report).splitlines() == [f"{label:<{width}}  {text}" for label, text in report.items()]


def test_as_html_it_holds_the_same(report):
    html = report._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == len(report.items())
    for label, text in report.items():
        assert label in html
        assert text in html


def test_nothing_is_printed_as_nothing():
    items = dict(cb.BookReport().items())
    assert items["book"] == "0 messages, 0 changes, 0 snapshots"
    assert {items[label] for label in items if label != "book"} == {"none"}
    assert not [label for label in items if label.startswith("ticker")]


def test_the_worst_agreements_are_named_first_and_a_few_of_them():
    products = {f"P{n}-USD": BookCounts(tickers={"ok": 100}, agreeing={"ok": 100 - n}) for n in range(9)}
    said = dict(cb.BookReport(products).items())["ticker agrees, ok"]
    named = ", ".join(f"P{n}-USD {100 - n}.00%" for n in (8, 7, 6, 5, 4))
    assert said == f"96.00% of 900: {named}"


def test_the_inspection_is_both_reports(tmp_path):
    path: Path = timeline.write(tmp_path, 1, begin(0), ticker(1), b"not JSON")
    both = cb.inspect_raw(path)
    assert both.items() == [*both.raw.items(), *both.book.items()]
    assert both.raw == cb.read_raw(path).report
    for label, text in both.items():
        assert f"\n{label} " in f"\n{both}"
        assert label in both._repr_html_()
        assert text in str(both)
    assert isinstance(both, cb.InspectReport)
