"""What was written for hftbacktest, replayed by hftbacktest: its book is ours at every message."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import book_laws
import hftbacktest as hft
import numba
import numpy as np
import polars as pl
import pytest
import tiers
from hftbacktest.data.validation import correct_event_order, validate_event_order

import cbtools as cb
from cbtools.errors import ConfigError, DatasetError, StateError
from cbtools.export import events as ours
from cbtools.export.hftbacktest import to_hftbacktest
from cbtools.schema import TIME, schema

REAL = Path(__file__).parents[3] / "shared" / "real"
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real recordings (shared/real beside the checkout) are not here"
)
DEPTH = 10
TICK, LOT = 0.01, 1e-8
NO_BID, NO_ASK = np.iinfo(np.int64).min, np.iinfo(np.int64).max
SECOND = 10**9
START = 1_764_165_600 * SECOND


@numba.njit
def replay(hbt, times, bid_ticks, ask_ticks, best, found):
    """Walk its book at each time from its best to the last level that we show, and write down every level."""
    hbt.elapse(0)
    for i in range(len(times)):
        if hbt.elapse(times[i] - hbt.current_timestamp) > 1:
            return False
        depth = hbt.depth(0)
        best[i, 0], best[i, 1] = depth.best_bid_tick, depth.best_ask_tick
        for side in range(2):
            ticks = ask_ticks[i] if side else bid_ticks[i]
            n, step, last, at = 0, 2 * side - 1, ticks[0], best[i, side]
            for tick in ticks:
                last = tick if tick else last
            while last and n < found.shape[2] and (last - at) * step >= 0:
                size = depth.ask_qty_at_tick(at) if side else depth.bid_qty_at_tick(at)
                if size > 0:
                    found[side, i, n, 0], found[side, i, n, 1] = at, size
                    n += 1
                at += step
    return True


@numba.njit
def buy_at_each(hbt, times, prices):
    """Buy one at the market at each time, and write down what was paid."""
    hbt.elapse(0)
    for i in range(len(times)):
        before = hbt.state_values(0).balance
        hbt.elapse(times[i] - hbt.current_timestamp)
        hbt.submit_buy_order(0, i, 0.0, 1.0, hft.GTC, hft.MARKET, True)
        prices[i] = before - hbt.state_values(0).balance


@numba.njit
def trades_seen(hbt, seen):
    n = 0
    hbt.elapse(0)
    while hbt.elapse(100_000_000) == 0:
        for trade in hbt.last_trades(0):
            seen[n] = trade
            n += 1
        hbt.clear_last_trades(0)
    for trade in hbt.last_trades(0):
        seen[n] = trade
        n += 1
    return n


def backtest(path, tick=TICK, lot=LOT):
    asset = (
        hft.BacktestAsset()
        .data([str(path)])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(tick)
        .lot_size(lot)
        .last_trades_capacity(100_000)
    )
    return hft.HashMapMarketDepthBacktest([asset])


def read(path):
    events = np.load(path)["data"]
    validate_event_order(events)
    assert (events["exch_ts"] <= events["local_ts"]).all()
    return events


def ticks_of(book, side, tick):
    """Give our levels as its ticks; 0 where there is none."""
    prices = book.select(pl.col(rf"^{side}_price_\d+$").fill_null(0.0)).to_numpy()
    ticks = np.round(prices / tick).astype(np.int64)
    assert np.allclose(ticks * tick, prices, rtol=0, atol=tick * 1e-3), "the tick does not divide the prices"
    return ticks


def same_at_every_message(path, book, tick=TICK, lot=LOT, but=""):
    """Check the best and the first levels of its book against ours; where ours is nothing, so is its.

    Of several messages received at once it shows what is after the last. Books of the state ``but`` are
    not compared.
    """
    received = pl.col("capture_time").dt.epoch("ns").cum_max().alias("received")
    book = book.with_columns(received).unique("received", keep="last", maintain_order=True)
    book = book.filter(pl.col("book_state") != but)
    bids, asks = ticks_of(book, "bid", tick), ticks_of(book, "ask", tick)
    best = np.zeros((book.height, 2), np.int64)
    found = np.zeros((2, book.height, DEPTH, 2))
    assert replay(backtest(path, tick, lot), book["received"].to_numpy(), bids, asks, best, found)
    assert (best[:, 0] == np.where(bids[:, 0] == 0, NO_BID, bids[:, 0])).all()
    assert (best[:, 1] == np.where(asks[:, 0] == 0, NO_ASK, asks[:, 0])).all()
    for side, (name, ticks) in enumerate((("bid", bids), ("ask", asks))):
        sizes = book.select(pl.col(rf"^{name}_size_\d+$").fill_null(0.0)).to_numpy()
        assert (found[side, :, :, 0] == ticks).all()
        assert (found[side, :, :, 1] == sizes).all()
    return book.height


def full_depth(path, tick=TICK, lot=LOT):
    """Give its whole book at the end."""
    hbt = backtest(path, tick, lot)
    assert hbt._goto_end() in (0, 1)
    depth = hbt.depth(0)
    levels = depth.snapshot().copy()
    side = np.where(levels["ev"] & hft.BUY_EVENT > 0, "bid", "ask")
    return sorted(
        (str(name), round(price / tick), size)
        for name, price, size in zip(side, levels["px"], levels["qty"], strict=True)
    )


def our_depth(state, product, tick=TICK):
    rows = state.levels.filter(product_id=product).select("side", "price", "size").rows()
    return sorted((side, round(price / tick), size) for side, price, size in rows)


@pytest.fixture(scope="module")
def sample():
    """Read the tables of the sample, which has a gap, a reconnect, repeats and trades of snapshots."""
    tables = cb.read_raw(cb.sample_path())
    return tables.level2, tables.market_trades


def of(tables, product):
    return [table.filter(product_id=product) for table in tables]


def as_unproven_is_nothing(book):
    shown = pl.col("^(bid|ask)_(price|size)_.*$")
    return book.with_columns(pl.when(pl.col("book_state") != "unproven").then(shown))


def made(rows):
    """Make level2 of (second, message's snapshot flag, side, price, size) and perhaps more columns."""
    columns = schema("level2")
    frame = []
    for second, is_snapshot, side, price, size, *more in rows:
        row = dict.fromkeys(columns, None)
        row |= {"product_id": "A-B", "is_snapshot": is_snapshot, "side": side, "price": price, "size": size}
        row |= {"server_time": START + second * SECOND, "capture_time": START + second * SECOND + 1000}
        row |= {"sequence_num": second, "connection": 1, "line": second + 1, "unbroken_since": START}
        frame.append(row | (more[0] if more else {}))
    return book_laws.as_level2(frame)


def trades_of(rows):
    columns = schema("market_trades")
    frame = [dict.fromkeys(columns, None) | {"product_id": "A-B", "is_snapshot": False} | row for row in rows]
    numbers = {name: pl.Int64 if dtype == TIME else dtype for name, dtype in columns.items()}
    return pl.DataFrame(frame, schema=numbers, orient="row").cast(dict(columns))


def kinds(events):
    """Name each event."""
    names = {1: "set", 2: "trade", 3: "clear", 4: "snapshot"}
    sides = {0: "both", hft.BUY_EVENT: "bid", hft.SELL_EVENT: "ask"}
    return [
        (
            "delete" if ev & 0xFF == 1 and size == 0 else names[ev & 0xFF],
            sides[ev & (hft.BUY_EVENT | hft.SELL_EVENT)],
            price,
            size,
        )
        for ev, price, size in zip(
            events["ev"].tolist(), events["px"].tolist(), events["qty"].tolist(), strict=True
        )
    ]


BOOK = [(0, True, "bid", 99.0, 1.0), (0, True, "bid", 98.0, 2.0), (0, True, "ask", 101.0, 3.0)]


def test_the_events_are_of_its_type_and_flags(tmp_path):
    assert hft.types.event_dtype == ours.EVENT
    to_hftbacktest(made(BOOK), None, tmp_path / "events.npz")
    assert read(tmp_path / "events.npz").dtype == hft.types.event_dtype
    assert [ours.DEPTH, ours.TRADE, ours.CLEAR, ours.SNAPSHOT] == [
        hft.DEPTH_EVENT,
        hft.TRADE_EVENT,
        hft.DEPTH_CLEAR_EVENT,
        hft.DEPTH_SNAPSHOT_EVENT,
    ]
    assert [ours.EXCHANGE, ours.LOCAL, ours.BUY, ours.SELL] == [
        hft.EXCH_EVENT,
        hft.LOCAL_EVENT,
        hft.BUY_EVENT,
        hft.SELL_EVENT,
    ]


@pytest.mark.ci
@tiers.parametrize("product", ["BTC-USD", "ETH-USD", "SOL-USD"], every=3)
def test_its_book_is_ours_at_every_message_and_nothing_where_ours_is_not_proven(sample, product, tmp_path):
    level2, trades = of(sample, product)
    wrote = to_hftbacktest(level2, trades, tmp_path / "events.npz")
    book = cb.rebuild_book(level2).collect()
    key = ["connection", "sequence_num", "line"]
    of_message = level2.filter(pl.col("side").is_not_null()).select(key).unique()
    assert wrote.unproven == book.filter(book_state="unproven").join(of_message, on=key, how="semi").height
    assert wrote.messages == book.filter(pl.col("book_state") != "unproven").height
    assert wrote.snapshots == 2
    assert wrote.unproven > 100
    assert same_at_every_message(tmp_path / "events.npz", as_unproven_is_nothing(book)) > 1000


@pytest.mark.ci
def test_with_gaps_ignored_it_goes_on_as_ours_does(sample, tmp_path):
    level2, _ = of(sample, "BTC-USD")
    wrote = to_hftbacktest(level2, None, tmp_path / "events.npz", gaps="ignore")
    assert wrote.unproven == 0
    book = cb.rebuild_book(level2, gaps="ignore").collect()
    assert book.filter(book_state="crossed").height > 10, "no longer tried: books that missing frames crossed"
    same_at_every_message(tmp_path / "events.npz", book, but="crossed")
    assert full_depth(tmp_path / "events.npz") == our_depth(cb.BookState.read(cb.sample_path()), "BTC-USD")


def test_with_gaps_raised_nothing_is_written(sample, tmp_path):
    level2, _ = of(sample, "BTC-USD")
    at = cb.rebuild_book(level2).filter(book_state="unproven").head(1).collect()
    with pytest.raises(StateError, match=rf"BTC-USD is unproven at line {at['line'].item()} .*gaps='drop'"):
        to_hftbacktest(level2, None, tmp_path / "events.npz", gaps="raise")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ci
def test_segments_in_mid_connection_start_from_the_state_before_them(tmp_path):
    """Without it there is no book. A clear goes first, so that the file may also follow another."""
    paths = cb.simulate_segments(tmp_path, minutes=0.5, seed=7, segment_mb=0.5).paths
    state = cb.BookState.read(paths[:3])
    level2, trades = (
        cb.scan_raw(list(paths[3:]), channel, start=state) for channel in ("level2", "market_trades")
    )
    wrote = to_hftbacktest(level2, trades, tmp_path / "events.npz", start=state)
    assert (wrote.early, wrote.unproven, wrote.snapshots) == (0, 0, 0)
    of_book = [event for event in kinds(read(tmp_path / "events.npz")) if event[0] != "trade"]
    before = of_book[: state.levels.height + 1]
    assert before[0] == ("clear", "both", 0, 0)
    assert sorted(before[1:]) == sorted(
        ("snapshot", *level) for level in state.levels.select("side", "price", "size").rows()
    )
    book = cb.rebuild_book(level2, start=state).collect()
    assert wrote.messages == book.height > 100
    same_at_every_message(tmp_path / "events.npz", book)
    assert full_depth(tmp_path / "events.npz") == our_depth(cb.BookState.read(paths), "BTC-USD")
    with pytest.raises(DatasetError, match="give start, the BookState before the first row"):
        to_hftbacktest(level2, trades, tmp_path / "alone.npz")
    behind_a_gap = cb.scan_raw(list(paths[4:]), "level2", start=state)
    with pytest.raises(DatasetError, match="all messages have a book that is not proven"):
        to_hftbacktest(behind_a_gap, None, tmp_path / "alone.npz", start=state)


@pytest.mark.ci
def test_what_comes_before_the_first_snapshot_is_left_out_and_counted(tmp_path):
    early = [(0, False, "bid", 99.0, 1.0), (1, False, "ask", 99.5, 1.0)]
    later = [(second + 2, *row) for second, *row in BOOK]
    wrote = to_hftbacktest(made([*early, *later]), trades_of([]), tmp_path / "events.npz")
    assert (wrote.early, wrote.messages, wrote.trades) == (2, 1, 0)
    assert full_depth(tmp_path / "events.npz") == [
        ("ask", 10_100, 3.0),
        ("bid", 9_800, 2.0),
        ("bid", 9_900, 1.0),
    ]


@pytest.mark.ci
@needs_real
def test_a_real_recording_with_clocks_that_disagree(tmp_path):
    source = REAL / "btcusdt"
    level2, trades = (cb.scan_raw(source, channel).collect() for channel in ("level2", "market_trades"))
    wrote = to_hftbacktest(level2, trades, tmp_path / "events.npz")
    assert (wrote.messages, wrote.trades, wrote.unproven) == (level2["line"].rle_id().max() + 1, 19_903, 0)
    # the recorder's clock was this much behind the exchange's
    behind = level2.select((pl.col("server_time") - pl.col("capture_time")).max().dt.total_nanoseconds())
    assert wrote.shift_ns >= behind.item() > SECOND
    book = cb.rebuild_book(level2).collect()
    assert same_at_every_message(tmp_path / "events.npz", book, lot=1e-5) > 6_000
    assert full_depth(tmp_path / "events.npz", lot=1e-5) == our_depth(cb.BookState.read(source), "BTC-USDT")


@pytest.mark.ci
@needs_real
@pytest.mark.parametrize("feed", ["exchange", "advanced"])
def test_a_real_recording_of_coinbase(feed, tmp_path):
    source = REAL / "coinbase_2021" / feed
    level2 = cb.scan_raw(source, "level2").collect()
    for product in level2["product_id"].value_counts(sort=True)["product_id"].head(3):
        rows = level2.filter(product_id=product)
        tick = 10.0 ** min(Decimal(repr(price)).normalize().as_tuple().exponent for price in rows["price"])
        to_hftbacktest(rows, None, tmp_path / "events.npz")
        same_at_every_message(tmp_path / "events.npz", cb.rebuild_book(rows).collect(), tick)


@pytest.mark.ci
@needs_real
def test_a_real_full_book(tmp_path):
    """Its asks reach to 139 million: to clear a side tick by tick would take minutes."""
    source = REAL / "full_book"
    level2 = cb.scan_raw(source, "level2").collect()
    later = pl.col("server_time", "capture_time") + pl.duration(seconds=1, time_unit="ns")
    twice = pl.concat([level2, level2.with_columns(later, line=pl.col("line") + 1)])
    assert to_hftbacktest(twice, None, tmp_path / "events.npz").snapshots == 2
    product = level2["product_id"][0]
    assert full_depth(tmp_path / "events.npz") == our_depth(cb.BookState.read(source), product)


def test_a_snapshot_is_one_clear_of_both_sides_and_its_levels(tmp_path):
    again = [(2, True, "ask", 105.0, 1.0), (2, True, "bid", 103.0, 0.0)]
    to_hftbacktest(made([*BOOK, (1, False, "bid", 99.0, 5.0), *again]), None, tmp_path / "events.npz")
    assert kinds(read(tmp_path / "events.npz")) == [
        ("clear", "both", 0, 0),
        ("snapshot", "bid", 99.0, 1.0),
        ("snapshot", "bid", 98.0, 2.0),
        ("snapshot", "ask", 101.0, 3.0),
        ("set", "bid", 99.0, 5.0),
        ("clear", "both", 0, 0),
        ("snapshot", "ask", 105.0, 1.0),
    ]
    assert full_depth(tmp_path / "events.npz") == [("ask", 10_500, 1.0)]


def test_of_a_message_the_last_word_on_a_level_counts_and_deletions_go_first(tmp_path):
    """As sent, the bid at 101 would cross the ask there, and hftbacktest would lose sight of it."""
    message = [
        (1, False, "bid", 101.0, 7.0),
        (1, False, "ask", 102.0, 4.0),
        (1, False, "bid", 101.0, 8.0),
        (1, False, "ask", 101.0, 0.0),
        (1, False, "bid", 98.0, 0.0),
    ]
    to_hftbacktest(made([*BOOK, *message]), None, tmp_path / "events.npz")
    assert kinds(read(tmp_path / "events.npz"))[4:] == [
        ("delete", "ask", 101.0, 0),
        ("delete", "bid", 98.0, 0),
        ("set", "ask", 102.0, 4.0),
        ("set", "bid", 101.0, 8.0),
    ]


def test_a_message_with_a_snapshot_in_its_middle_counts_from_there_on(tmp_path):
    message = [
        (1, False, "bid", 97.0, 7.0),
        (1, True, "bid", 96.0, 1.0),
        (1, True, "ask", 103.0, 1.0),
        (1, False, "bid", 96.5, 2.0),
        (1, False, "ask", 103.0, 0.0),
        (1, False, "ask", 104.0, 6.0),
    ]
    level2 = made([*BOOK, *message])
    to_hftbacktest(level2, None, tmp_path / "events.npz")
    assert full_depth(tmp_path / "events.npz") == [
        ("ask", 10_400, 6.0),
        ("bid", 9_600, 1.0),
        ("bid", 9_650, 2.0),
    ]
    same_at_every_message(tmp_path / "events.npz", cb.rebuild_book(level2).collect())


@pytest.mark.parametrize(("side", "price", "far"), [("bid", 101.0, 103.0), ("ask", 99.0, 97.0)])
def test_after_a_crossed_book_its_best_is_ours_again(side, price, far, tmp_path):
    other = "ask" if side == "bid" else "bid"
    level2 = made(
        [
            *BOOK,
            (0, True, other, far, 9.0),
            (1, False, side, price, 7.0),  # crossed: hftbacktest passes over the other side's best
            (2, False, other, far, 0.0),
            (3, False, side, price, 0.0),
        ]
    )
    book = cb.rebuild_book(level2).collect()
    assert book["book_state"].to_list() == ["ok", "crossed", "crossed", "ok"]
    to_hftbacktest(level2, None, tmp_path / "events.npz")
    same_at_every_message(tmp_path / "events.npz", book.filter(book_state="ok"))


def test_a_side_that_ran_empty_has_no_best(tmp_path):
    level2 = made([*BOOK, (1, False, "ask", 101.0, 0.0), (2, False, "ask", 102.0, 1.0)])
    book = cb.rebuild_book(level2).collect()
    assert book["book_state"].to_list() == ["ok", "one_sided", "ok"]
    to_hftbacktest(level2, None, tmp_path / "events.npz")
    same_at_every_message(tmp_path / "events.npz", book)


def test_a_message_happens_when_its_last_change_did_and_no_clock_runs_back(tmp_path):
    event_time = [{"event_time": START + ns} for ns in (1_900_000_000, 1_800_000_000, 1_850_000_000)]
    level2 = made(
        [
            *BOOK,
            (2, False, "bid", 99.0, 1.5, event_time[1]),
            (2, False, "bid", 98.0, 1.5, event_time[0]),
            (3, False, "bid", 99.0, 1.6, event_time[2]),
            (4, False, "bid", 99.0, 1.7, {"capture_time": START + 1 * SECOND}),
        ]
    )
    wrote = to_hftbacktest(level2, None, tmp_path / "events.npz")
    events = read(tmp_path / "events.npz")[4:]
    received = START + np.array([2, 2, 3, 3]) * SECOND + 1000
    assert events["local_ts"].tolist() == received.tolist()
    assert wrote.shift_ns == SECOND - 1000  # the last was received a second before it was sent
    happened = START + np.array([1_900_000_000, 1_900_000_000, 1_900_000_000, 4 * SECOND]) - wrote.shift_ns
    assert events["exch_ts"].tolist() == happened.tolist()
    assert repr(wrote).endswith("exchange times are 999.999 ms earlier than said")


def test_each_trade_is_once_for_each_clock_and_before_the_changes_of_its_time(tmp_path):
    level2 = made([*BOOK, (1, False, "bid", 99.0, 0.5), (2, False, "bid", 99.0, 0.25)])
    at = {"server_time": START + 2 * SECOND, "capture_time": START + 2 * SECOND + 2000}
    rows = [
        {
            "trade_id": 8,
            "price": 99.0,
            "size": 0.25,
            "aggressor_side": "sell",
            "trade_time": START + 2 * SECOND,
        },
        {"trade_id": 7, "price": 99.0, "size": 0.5, "aggressor_side": "sell", "trade_time": START + SECOND},
        {"trade_id": 9, "price": 101.0, "size": 1.0, "aggressor_side": "buy", "trade_time": None},
        {"trade_id": 6, "price": 98.0, "size": 1.0, "aggressor_side": "buy", "is_snapshot": True},
    ]
    wrote = to_hftbacktest(level2, trades_of([row | at for row in rows]), tmp_path / "events.npz")
    assert (wrote.trades, wrote.past_trades, wrote.shift_ns) == (3, 1, 0)
    events = read(tmp_path / "events.npz")[4:]
    named = kinds(events)
    clocks = [
        ("E" if ev & hft.EXCH_EVENT else "") + ("L" if ev & hft.LOCAL_EVENT else "")
        for ev in events["ev"].tolist()
    ]
    sold, sold_more, bought = ("ask", 99.0, 0.5), ("ask", 99.0, 0.25), ("bid", 101.0, 1.0)
    assert list(zip(clocks, named, strict=True)) == [
        ("E", ("trade", *sold)),
        ("EL", ("set", "bid", 99.0, 0.5)),
        ("E", ("trade", *sold_more)),
        ("E", ("trade", *bought)),
        ("EL", ("set", "bid", 99.0, 0.25)),
        ("L", ("trade", *sold)),
        ("L", ("trade", *sold_more)),
        ("L", ("trade", *bought)),
    ]


@pytest.mark.ci
def test_it_sees_our_trades_when_we_received_them(sample, tmp_path):
    level2, trades = of(sample, "BTC-USD")
    to_hftbacktest(level2, trades, tmp_path / "events.npz")
    seen = np.zeros(2 * trades.height, ours.EVENT)
    seen = seen[: trades_seen(backtest(tmp_path / "events.npz"), seen)]
    expected = trades.filter(~pl.col("is_snapshot")).sort("capture_time", "trade_id")
    assert seen["local_ts"].tolist() == expected["capture_time"].dt.epoch("ns").to_list()
    assert seen["exch_ts"].tolist() == expected["trade_time"].dt.epoch("ns").to_list()
    assert seen["px"].tolist() == expected["price"].to_list()
    assert seen["qty"].tolist() == expected["size"].to_list()
    bought = (seen["ev"] & hft.BUY_EVENT > 0).tolist()
    assert bought == (expected["aggressor_side"] == "buy").to_list()


@pytest.mark.ci
def test_each_clock_has_the_events_that_its_own_tools_would_make(sample, tmp_path):
    """Its own correct_event_order, given the same rows, puts those of a clock in the same order."""
    level2, trades = of(sample, "ETH-USD")
    to_hftbacktest(level2, trades, tmp_path / "events.npz")
    events = read(tmp_path / "events.npz")
    both = hft.EXCH_EVENT | hft.LOCAL_EVENT
    once = events[(events["ev"] & hft.EXCH_EVENT) > 0].astype(hft.types.event_dtype)
    once["ev"] &= ~np.uint64(both)
    theirs = correct_event_order(
        once,
        np.argsort(once["exch_ts"], kind="stable"),
        np.argsort(once["local_ts"], kind="stable"),
    )
    for clock, time in ((hft.EXCH_EVENT, "exch_ts"), (hft.LOCAL_EVENT, "local_ts")):
        a, b = ([row.tolist() for row in once_by(array, clock, time)] for array in (events, theirs))
        assert a == b


def once_by(events, clock, time):
    """Give the events of a clock without their clocks; of the same time, trades go first, as with us."""
    rows = events[(events["ev"] & clock) > 0]
    rows["ev"] &= ~np.uint64(hft.EXCH_EVENT | hft.LOCAL_EVENT)
    return rows[np.lexsort(((rows["ev"] & 0xFF) != hft.TRADE_EVENT, rows[time]))]


@pytest.mark.ci
def test_orders_fill_at_the_best_that_the_exchange_had_by_then(sample, tmp_path):
    """The exchange's book is ahead of the strategy's: an order meets the last message that had happened."""
    level2, trades = of(sample, "BTC-USD")
    to_hftbacktest(level2, trades, tmp_path / "events.npz", gaps="ignore")
    book = cb.rebuild_book(level2, depth=1, gaps="ignore").collect()
    events = read(tmp_path / "events.npz")
    depth = events[(events["ev"] & 0xFF) != hft.TRADE_EVENT]
    happened = depth["exch_ts"][np.flatnonzero(np.diff(depth["local_ts"], prepend=0))]
    assert len(happened) == book.height
    times = happened[50:-50:60] + 1  # it happened, and was not received
    paid = np.zeros(len(times))
    buy_at_each(backtest(tmp_path / "events.npz"), times, paid)
    met = np.searchsorted(happened, times, side="right") - 1
    whole = (book["book_state"][met] != "crossed").to_numpy()
    expected = book["ask_price_1"].to_numpy()[met]
    assert np.allclose(paid[whole], expected[whole], rtol=0, atol=1e-6)
    assert (expected != book["ask_price_1"].to_numpy()[met - 1]).any(), "it shows which book was met"


def test_lazy_frames_give_the_same_file(sample, tmp_path):
    level2, trades = of(sample, "SOL-USD")
    to_hftbacktest(level2, trades, tmp_path / "frames.npz")
    to_hftbacktest(level2.lazy(), trades.lazy(), str(tmp_path / "lazy.npz"))
    assert (tmp_path / "frames.npz").read_bytes() == (tmp_path / "lazy.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npz", "lazy.npz"]


def test_rows_without_unbroken_since_are_proven_by_their_numbers(sample, tmp_path):
    level2 = of(sample, "SOL-USD")[0].drop("unbroken_since")
    only = level2.filter(pl.col("side").is_not_null()).with_columns(
        sequence_num=pl.col("line").rle_id().cast(pl.Int64), connection=pl.lit(1, pl.Int32)
    )
    assert to_hftbacktest(only, None, tmp_path / "events.npz").unproven == 0


def test_the_report_says_what_is_there_and_what_is_not(sample, tmp_path):
    level2, trades = of(sample, "BTC-USD")
    wrote = to_hftbacktest(level2, trades, tmp_path / "a<b>.npz")
    assert wrote.events == len(read(wrote.path))
    assert wrote.trades + wrote.past_trades == trades.height
    assert repr(wrote).splitlines() == [
        f"{wrote.events:,} events in a<b>.npz: {wrote.messages:,} messages (2 of them snapshots) and "
        f"{wrote.trades:,} trades",
        f"left out: {wrote.unproven:,} messages of a book not proven, "
        f"{wrote.past_trades:,} trades of snapshots",
    ]
    assert "a&lt;b&gt;.npz" in wrote._repr_html_()


def test_several_products_are_refused(sample, tmp_path):
    level2, trades = sample
    with pytest.raises(ConfigError, match="BTC-USD, ETH-USD, SOL-USD: filter both by product_id"):
        to_hftbacktest(level2, None, tmp_path / "events.npz")
    with pytest.raises(ConfigError, match="these are of BTC-USD, ETH-USD, SOL-USD"):
        to_hftbacktest(level2.filter(product_id="BTC-USD"), trades, tmp_path / "events.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "events.npy"}, r"ends in \.npz"),
        ({"path": None}, r"ends in \.npz"),
        ({"gaps": "mark"}, "unknown value of gaps 'mark'"),
        ({"start": 3}, "start must be a BookState"),
        ({"level2": [1]}, "level2 must be a Polars frame"),
        ({"trades": "trades"}, "trades must be a Polars frame"),
        ({"level2": made(BOOK).drop("event_time")}, "level2 lacks the column event_time"),
        ({"trades": trades_of([]).drop("trade_time")}, "market_trades lacks the column trade_time"),
        ({"trades": trades_of([]).cast({"price": pl.Int64})}, "price of market_trades must be Float64"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message, tmp_path):
    given = {"level2": made(BOOK), "trades": trades_of([]), "path": tmp_path / "events.npz"} | arguments
    with pytest.raises(ConfigError, match=message):
        to_hftbacktest(given.pop("level2"), given.pop("trades"), given.pop("path"), **given)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_make_no_book_are_refused(tmp_path):
    path = tmp_path / "events.npz"
    with pytest.raises(DatasetError, match="no rows"):
        to_hftbacktest(made([]), None, path)
    with pytest.raises(DatasetError, match="all messages come before a snapshot"):
        to_hftbacktest(made([(1, False, "bid", 99.0, 1.0)]), None, path)
    nowhen = {"server_time": None, "capture_time": None}
    with pytest.raises(DatasetError, match="neither capture_time nor server_time"):
        to_hftbacktest(made([(0, True, "bid", 99.0, 1.0, nowhen)]), None, path)
    trade = {"trade_id": 1, "price": None, "size": 1.0, "aggressor_side": "buy", "server_time": START}
    with pytest.raises(DatasetError, match="null in price"):
        to_hftbacktest(made(BOOK), trades_of([trade]), path)
    assert list(tmp_path.iterdir()) == []


def test_the_package_does_not_import_it():
    code = "import sys, cbtools.export.hftbacktest; print('hftbacktest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
