"""Pins the oracles of trades and of bars: small cases, with the numbers worked out by hand."""

import math

import pytest
from oracles import bars as bar_oracle
from oracles import clocks
from oracles import trades as oracle

NOON = 1_772_625_600_000_000_000  # 2026-03-04 12:00 UTC
SECOND = 1_000_000_000


def seconds(time):
    return None if time is None else NOON + round(time * SECOND)


def trade(number, time=None, price=100.0, size=1.0, side="buy", **more):
    """Write a trade, at a second after noon (its number, unless told)."""
    at = seconds(number if time is None else time)
    return {
        "product_id": "BTC-USD",
        "trade_id": number,
        "price": price,
        "size": size,
        "maker_side": "sell" if side == "buy" else "buy",
        "aggressor_side": side,
        "is_snapshot": False,
        "connection": 1,
        "capture_time": at,
        "trade_time": at,
        "server_time": at,
        **more,
    }


def quote(time, bid=99.0, ask=101.0, **more):
    """Write a book row that is sent and received at a second after noon (None: no times)."""
    return {
        "product_id": "BTC-USD",
        "bid_price_1": bid,
        "bid_size_1": 2.0,
        "ask_price_1": ask,
        "ask_size_1": 3.0,
        "book_state": "ok",
        "proven_since": 1,
        "server_time": seconds(time),
        "capture_time": seconds(time),
        **more,
    }


def unproven(time, **more):
    return quote(time, book_state="unproven", proven_since=None, **more)


def received(time, **more):
    """Write the times of a row that was received later than it was sent."""
    return {"capture_time": seconds(time)} | more


def of(rows, *names):
    told = [tuple(row[name] for name in names) for row in rows]
    return [one[0] for one in told] if len(names) == 1 else told


def feature(trades, name, **options):
    return of(oracle.trade_features(trades, [name], **options), name)


def near(value):
    return pytest.approx(value, rel=1e-14, abs=0)


# --- of one trade


def test_names_of_windows():
    assert oracle.parted("vwap_5s") == ("vwap", 5 * SECOND)
    assert oracle.parted("roll_spread_1m30s") == ("roll_spread", 90 * SECOND)
    assert oracle.parted("kyle_lambda_se_500ms") == ("kyle_lambda_se", SECOND // 2)
    assert oracle.parted("tick_rule") is None
    with pytest.raises(ValueError, match="vwop_5s"):
        feature([trade(1)], "vwop_5s")


def test_notional_and_signed_size():
    trades = [trade(1, price=20.0, size=1.5), trade(2, price=30.0, size=0.5, side="sell")]
    assert oracle.trade_features(trades, ["notional", "signed_size"]) == [
        {"notional": 30.0, "signed_size": 1.5},
        {"notional": 15.0, "signed_size": -0.5},
    ]


def test_the_tick_rule_keeps_the_last_sign_and_forgets_it_with_the_run():
    prices = [100.0, 100.0, 101.0, 101.0, 99.0, 99.0]
    trades = [trade(i, price=price) for i, price in enumerate(prices)]
    assert feature(trades, "tick_rule") == [None, None, 1, 1, -1, -1]
    trades += [trade(6, price=98.0, connection=2), trade(7, price=98.0, connection=2)]
    assert feature(trades, "tick_rule")[6:] == [None, None]


# --- runs


def runs(*trades, holes="restart"):
    return oracle.runs_of(trades, clocks.trade_times(trades, "exchange"), holes)


def in_runs(*trades, holes="restart"):
    return [(run.number, place) for run, place in runs(*trades, holes=holes)]


def test_a_missing_trade_breaks():
    assert in_runs(trade(1), trade(2), trade(4), trade(5)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert in_runs(trade(1), trade(2), trade(4), holes="ignore") == [(0, 0), (0, 1), (0, 2)]


def test_trades_out_of_order_do_not_break():
    assert in_runs(trade(3), trade(1), trade(2), trade(4)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert in_runs(trade(3), trade(1), trade(5)) == [(0, 0), (0, 1), (1, 0)]


def test_a_connection_breaks():
    assert in_runs(trade(1), trade(2, connection=2), trade(3, connection=2)) == [(0, 0), (1, 0), (1, 1)]


def test_a_snapshot_breaks_where_it_begins():
    past = {"is_snapshot": True}
    trades = [trade(1), trade(2, **past), trade(3, **past), trade(4)]
    assert in_runs(*trades) == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_a_trade_without_clock_counts_at_the_time_of_the_one_before():
    trades = [trade(1), trade(2, trade_time=None), trade(3), trade(4)]
    assert in_runs(*trades) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    ((run, _), *_) = runs(*trades)
    assert run.times[1] == run.times[0]


def test_products_are_apart():
    other = {"product_id": "ETH-USD"}
    assert in_runs(trade(1), trade(70, **other), trade(2), trade(71, **other)) == [
        *((0, 0), (0, 0)),
        *((0, 1), (0, 1)),
    ]


# --- windows


def test_windows_are_null_until_covered_and_leave_their_far_edge_out():
    trades = [trade(i, size=2.0**i) for i in range(5)]
    assert feature(trades, "volume_2s") == [None, None, 2 + 4, 4 + 8, 8 + 16]
    assert feature(trades, "trade_count_2s") == [None, None, 2, 2, 2]


def test_a_window_holds_earlier_rows_of_its_own_time_only():
    trades = [trade(0, 0), trade(1, 2), trade(2, 2)]
    assert feature(trades, "trade_count_1s") == [None, 1, 2]


def test_the_clock_of_a_run_does_not_step_back():
    trades = [trade(0, 0), trade(1, 5), trade(2, 3), trade(3, 6)]
    assert feature(trades, "trade_count_1500ms") == [None, 1, 2, 3]


def test_windows_begin_anew_behind_a_hole():
    trades = [trade(i, i) for i in (0, 1, 2, 4, 5)]
    assert feature(trades, "trade_count_1s") == [None, 1, 1, None, 1]
    assert feature(trades, "trade_count_1s", holes="ignore") == [None, 1, 1, 1, 1]


def test_vwap_and_imbalance():
    trades = [
        trade(0),
        trade(1, price=10.0, size=1.0),
        trade(2, price=20.0, size=3.0, side="sell"),
    ]
    assert feature(trades, "vwap_2s")[2] == 17.5  # (10 + 60) / 4
    assert feature(trades, "trade_imbalance_2s")[2] == -0.5  # (1 - 3) / 4


def test_what_is_not_finite_makes_its_windows_null():
    trades = [trade(0), trade(1, price=math.nan), trade(2), trade(3)]
    assert feature(trades, "vwap_1s") == [None, None, 100.0, 100.0]
    assert feature(trades, "volume_1s") == [None, 1.0, 1.0, 1.0]


def roll(*prices):
    return feature(
        [trade(i, price=price) for i, price in enumerate(prices)], f"roll_spread_{len(prices) - 1}s"
    )


def test_roll_of_a_bounce():
    # changes 1 -1 1 -1; pairs (-1, 1) (1, -1) (-1, 1): means -1/3 and 1/3,
    # sum of xy -3, and so cov = (-3 + 1/3) / 2 = -4/3
    assert roll(100.0, 101.0, 100.0, 101.0, 100.0) == [None] * 4 + [near(2 * math.sqrt(4 / 3))]


def test_roll_is_null_for_a_covariance_that_is_not_negative():
    assert roll(100.0, 101.0, 103.0, 106.0, 110.0)[-1] is None  # changes 1 2 3 4
    assert roll(100.0, 100.0, 100.0, 100.0)[-1] is None


def test_roll_needs_two_pairs_and_takes_a_change_before_the_window():
    prices = [100.0, 101.0, 99.0, 102.0]  # changes 1 -2 3
    trades = [trade(i, price=price) for i, price in enumerate(prices)]
    # both pairs in the window of rows 2 and 3: (-2, 1) (3, -2); means 1/2, -1/2; cov = -8 + 1/2 = -7.5
    assert feature(trades, "roll_spread_2s") == [None, None, None, near(2 * math.sqrt(7.5))]
    assert feature(trades, "roll_spread_1s") == [None] * 4


def at_row(time, **more):
    return {"product_id": "BTC-USD", "server_time": seconds(time), "capture_time": seconds(time), **more}


def test_windows_at_other_rows_empty_as_time_passes():
    trades = [trade(0, 0), trade(1, 1, price=10.0), trade(2, 2, price=20.0, size=3.0, side="sell")]
    at = [at_row(time) for time in (-1, 1, 2, 3, 3.5, 4, 9)] + [at_row(9) | {"server_time": None}]
    names = ["vwap_2s", "volume_2s", "trade_count_2s", "trade_imbalance_2s"]
    rows = of(oracle.trade_features_at(trades, at, names), *names)
    nothing = (None,) * 4
    last = (20.0, 3.0, 1, -1.0)
    both = (17.5, 4.0, 2, -0.5)
    assert rows == [nothing, nothing, both, last, last, nothing, nothing, nothing]


def test_windows_at_other_rows_do_not_reach_across_a_break():
    trades = [trade(0, 0), trade(1, 1), trade(3, 5), trade(4, 6)]
    at = [at_row(time) for time in (1, 1.5, 5, 5.5, 6, 6.5)]
    rows = oracle.trade_features_at(trades, at, ["trade_count_1s"])
    assert of(rows, "trade_count_1s") == [1, 1, None, None, 1, 1]
    other = [at_row(6, product_id="ETH-USD")]
    assert oracle.trade_features_at(trades, other, ["volume_1s"]) == [{"volume_1s": None}]


def test_windows_are_of_the_exchange_s_time_or_of_receipt():
    # happened at 0, 1, 2 and received at 0, 3, 3: by receipt the second window holds one trade, its own
    trades = [trade(0), trade(1, **received(3)), trade(2, **received(3)), trade(3, **received(2))]
    assert feature(trades, "trade_count_1500ms") == [None, None, 2, 2]
    # the last was received after those before it, whatever its clock says
    assert feature(trades, "trade_count_1500ms", clock="receive") == [None, 1, 2, 3]
    with pytest.raises(ValueError, match="capture_time"):
        feature(trades, "trade_count_1500ms", clock="capture_time")


def test_the_receive_time_of_a_trade_without_one_is_its_server_time():
    trades = [trade(0), trade(1, capture_time=None, server_time=seconds(4)), trade(2, capture_time=None)]
    assert clocks.receive_times(trades) == [seconds(0), seconds(4), seconds(4)]
    nothing = {"capture_time": None, "server_time": None}
    trades = [trade(0, **nothing), trade(1), trade(2, **nothing), trade(3, product_id="ETH-USD", **nothing)]
    assert clocks.receive_times(trades) == [None, seconds(1), seconds(1), None]


def test_windows_at_other_rows_hold_what_was_received_by_then():
    trades = [trade(0), trade(1, **received(2)), trade(2, **received(4))]
    at = [at_row(1), at_row(1, **received(2)), at_row(2, **received(3)), at_row(3, **received(4)), at_row(2)]
    counts = of(oracle.trade_features_at(trades, at, ["trade_count_1s"]), "trade_count_1s")
    # the second trade counts at 1, and so no longer at 2; the last row was received after the one before it
    assert counts == [None, 1, None, None, 1]
    counts = of(oracle.trade_features_at(trades, at, ["trade_count_1s"], clock="receive"), "trade_count_1s")
    assert counts == [None, 1, None, 1, 1]


def test_a_break_is_known_at_other_rows_when_it_is_received():
    trades = [trade(0), trade(1), trade(2), trade(5, 2.5, **received(4))]
    at = [at_row(2.5, **received(3)), at_row(2.5, **received(4))]
    assert of(oracle.trade_features_at(trades, at, ["trade_count_1s"]), "trade_count_1s") == [1, None]


# --- the quote


def mids(trades, book, **options):
    return of(oracle.join_quotes(trades, book, **options), "mid")


def test_a_quote_in_full():
    joined = oracle.join_quotes([trade(1, 5)], [quote(4), quote(5, 98.0, 101.0), quote(5.5)])
    told = {"best_bid": 98.0, "best_bid_size": 2.0, "best_ask": 101.0, "best_ask_size": 3.0}
    assert joined == [trade(1, 5) | told | {"mid": 99.5, "quote_time": seconds(5)}]


def test_of_equal_times_the_last_row_counts():
    assert mids([trade(1, 5)], [quote(5, 98.0, 100.0), quote(5, 98.0, 102.0)]) == [100.0]


def test_no_quote_where_the_book_is_not_ok():
    crossed = quote(2, 102.0, 101.0, book_state="crossed")
    book = [quote(1), crossed, quote(2.6), unproven(3), quote(4, 97.0, 99.0)]
    trades = [trade(i, time) for i, time in enumerate((0.5, 1, 2.5, 2.7, 3, 3.5, 4))]
    for clock in ("exchange", "receive"):
        assert mids(trades, book, clock=clock) == [None, 100.0, None, 100.0, None, None, 98.0]


def test_the_quote_is_null_for_snapshots_without_a_time_and_past_the_tolerance():
    unknown = {"capture_time": None, "server_time": None}
    trades = [
        trade(1, 2, is_snapshot=True),
        trade(2, 2, trade_time=None),
        trade(3, 2),
        trade(4, 2.5),
        trade(5, 2, product_id="ETH-USD", **unknown),
    ]
    book = [quote(1), quote(1, product_id="ETH-USD")]
    assert mids(trades, book, tolerance_ns=SECOND) == [None, None, 100.0, None, None]
    assert mids(trades, book, tolerance_ns=SECOND, clock="receive") == [None, 100.0, 100.0, None, None]
    assert mids([trade(1, 2)], book[1:]) == [None]


def test_the_quote_is_of_the_time_of_the_trade_and_not_of_its_receipt():
    book = [quote(1), quote(2, 97.0, 99.0), quote(3, 96.0, 98.0)]
    trades = [trade(1, 1.5, **received(2.5)), trade(2, 3, **received(3.5)), trade(3, 3, **received(3))]
    names = "mid", "quote_time"
    at_exchange = [(100.0, seconds(1)), (97.0, seconds(3)), (97.0, seconds(3))]
    assert of(oracle.join_quotes(trades, book), *names) == at_exchange
    at_receipt = [(98.0, seconds(2)), (97.0, seconds(3)), (97.0, seconds(3))]
    assert of(oracle.join_quotes(trades, book, clock="receive"), *names) == at_receipt


def test_a_quote_must_be_received_before_the_trade():
    book = [quote(1), quote(2, 97.0, 99.0, **received(4))]
    trades = [trade(1, 3, **received(3.9)), trade(2, 3, **received(4))]
    assert mids(trades, book) == [100.0, 98.0]


def test_a_book_received_out_of_its_order_was_received_after_what_stands_before_it():
    book = [quote(1, **received(6)), quote(2, 97.0, 99.0, **received(5))]
    assert mids([trade(1, 3, **received(5.5))], book) == [None]
    joined = oracle.join_quotes([trade(1, 3, **received(6))], book, clock="receive")
    assert of(joined, "mid", "quote_time") == [(98.0, seconds(6))]


def test_the_last_row_in_order_is_the_quote_where_server_times_step_back():
    book = [quote(1), quote(3, 97.0, 99.0), quote(2, 96.0, 98.0, **received(3.5))]
    trades = [trade(1, time, **received(4)) for time in (1, 2, 3)]
    assert mids(trades, book) == [100.0, 97.0, 97.0]


def test_a_row_without_server_time_counts_at_that_of_the_row_before_it():
    bare = {"server_time": None}
    book = [
        quote(1, 97.0, 99.0, **bare),
        quote(2),
        quote(3, 96.0, 98.0, **bare),
        unproven(4, **bare),
        quote(5, 95.0, 97.0, **bare),  # nothing before it since the break
        quote(6),
    ]
    trades = [
        trade(i, time, **received(at))
        for i, (time, at) in enumerate([(0.5, 1), (0.5, 3), (2, 3), (2, 4), (0, 5), (5, 6)])
    ]
    names = "mid", "quote_time"
    assert of(oracle.join_quotes(trades, book), *names) == [
        *((None, None), (None, None), (97.0, None)),
        *((None, None), (None, None), (None, None)),
    ]
    # its age is that from the time at which it counts
    assert mids(trades, book, tolerance_ns=SECOND) == [None, None, 97.0, None, None, None]


def test_a_break_hides_what_was_received_before_it():
    """As in a gap that a trade shows: what happened in it is received after it."""
    book = [quote(0), unproven(8), quote(10, 97.0, 99.0, proven_since=2)]
    trades = [trade(1, 5, **received(7)), trade(2, 5, **received(9)), trade(3, 5, **received(10))]
    assert mids(trades, book) == [100.0, None, None]
    assert mids(trades, book, clock="receive") == [100.0, None, 98.0]
    # the same across a reconnect, until the snapshot of the new connection
    book = [quote(0), quote(1), unproven(20), quote(22, 100.2, 100.9, proven_since=2)]
    trades = [trade(1, 2), trade(2, 0, **received(20)), trade(3, 1, **received(21)), trade(4, 22)]
    assert mids(trades, book) == [100.0, None, None, near(100.55)]


def test_a_trade_sent_late_has_no_quote_by_the_exchange():
    sent = [{"server_time": seconds(1 + delay), **received(9)} for delay in (5, 5.1)]
    trades = [trade(1, 1, **sent[0]), trade(2, 1, **sent[1]), trade(3, 1, server_time=None, **received(9))]
    book = [quote(0)]
    assert mids(trades, book) == [100.0, None, 100.0]
    assert mids(trades, book, clock="receive") == [100.0, 100.0, 100.0]
    past = trade(4, 1, **sent[1], is_snapshot=True)
    for clock in ("exchange", "receive"):
        audit = oracle.side_audit(oracle.join_quotes([*trades, past], book, clock=clock), clock=clock)
        assert of(audit, "n_trades", "n_late") == [(3, 1)]


def test_effective_spread_and_lee_ready():
    book = [quote(0)]  # mid 100
    sides = [("buy", 100.5), ("sell", 99.0), ("sell", 100.0), ("buy", 100.0), ("buy", 99.5)]
    trades = [trade(i, side=side, price=price) for i, (side, price) in enumerate(sides)]
    joined = oracle.join_quotes(trades, book)
    assert feature(joined, "effective_spread_bps") == [100.0, 200.0, 0.0, 0.0, -100.0]
    # at the mid: 99 -> 100 was an uptick, and stays the last change
    assert feature(joined, "lee_ready") == [1, -1, 1, 1, -1]
    assert feature(oracle.join_quotes(trades, []), "lee_ready") == [None] * 5
    assert feature(oracle.join_quotes(trades, []), "effective_spread_bps") == [None] * 5


def test_side_audit():
    book = [quote(0)]
    trades = [
        trade(1, 0, is_snapshot=True),
        trade(2, -1),  # no quote yet
        trade(3, 1, price=100.0),  # at the mid
        trade(4, 2, price=100.5),  # agrees
        trade(5, 3, price=100.5, side="sell"),  # does not
        trade(6, 4, price=99.5, side="sell"),  # agrees
        trade(7, 12 * 3600, price=100.0),  # the next day, at the mid
    ]
    assert oracle.side_audit(oracle.join_quotes(trades, book)) == [
        {
            "product_id": "BTC-USD",
            "date": "2026-03-04",
            "n_trades": 5,
            "n_late": 0,
            "n_quoted": 4,
            "n_at_mid": 1,
            "n_agree": 2,
            "agreement": 2 / 3,
        },
        {
            "product_id": "BTC-USD",
            "date": "2026-03-05",
            "n_trades": 1,
            "n_late": 0,
            "n_quoted": 1,
            "n_at_mid": 1,
            "n_agree": 0,
            "agreement": None,
        },
    ]


def test_side_audit_counts_by_the_days_of_its_clock():
    midnight = 12 * 3600
    trades = [trade(1, midnight - 1, **received(midnight + 1)), trade(2, trade_time=None)]
    joined = oracle.join_quotes(trades, [])
    names = "date", "n_trades"
    assert of(oracle.side_audit(joined), *names) == [("2026-03-04", 1), (None, 1)]
    # received after the first, the second is of that day
    assert of(oracle.side_audit(joined, clock="receive"), *names) == [("2026-03-05", 2)]


def test_labels():
    book = [quote(0), quote(3, 100.0, 102.0), quote(9)]  # mids 100, 101, 100
    joined = oracle.join_quotes([trade(1, 1, price=100.5), trade(2, 1, price=99.5, side="sell")], book)
    names = ["label_realized_spread_2s_bps", "label_price_impact_2s_bps"]
    # buy: 2e4 * (100.5 - 101) / 100 and 2e4 * (101 - 100) / 100; they add up to the effective spread, 100
    assert of(oracle.trade_labels(joined, book, names), *names) == [(-100.0, 200.0), (300.0, -200.0)]


def test_labels_are_null_past_the_end_and_across_books():
    name = "label_price_impact_2s_bps"
    joined = oracle.join_quotes([trade(1, 1)], [quote(0)])
    for after, value in [
        ([quote(3)], 0.0),
        ([quote(2.9)], None),
        ([quote(2, proven_since=2), quote(4, proven_since=2)], None),
        ([unproven(2), quote(4)], None),
        ([quote(3.1, proven_since=2)], 0.0),
    ]:
        assert oracle.trade_labels(joined, [quote(0), *after], [name]) == [{name: value}]
    unquoted = oracle.join_quotes([trade(1, 1)], [])
    assert oracle.trade_labels(unquoted, [quote(0), quote(9)], [name]) == [{name: None}]


def test_the_mid_at_the_end_of_a_label_is_the_last_row_s():
    name = "label_price_impact_2s_bps"
    (joined,) = oracle.join_quotes([trade(1, 1)], [quote(0)])
    crossed = quote(2.5, 102.0, 101.0, book_state="crossed")
    # crossed at the end: not passed over; and where server_time steps back, the latest so far counts
    for after, value in [
        ([crossed, quote(4)], None),
        ([crossed, quote(2.6, 100.0, 102.0), quote(4)], 200.0),
        ([quote(3.5, 100.0, 102.0), quote(2, 90.0, 91.0)], 0.0),
        ([quote(2, 100.0, 102.0), quote(None, 101.0, 103.0), quote(3.5)], 400.0),
    ]:
        assert oracle.trade_labels([joined], [quote(0), *after], [name]) == [{name: value}]


def test_the_horizon_of_a_label_is_of_its_clock():
    name = "label_price_impact_2s_bps"
    book = [quote(0), quote(3, 100.0, 102.0, **received(3.5)), quote(9)]
    trades = [trade(1, 1, **received(1.4))]
    for clock, value in [("exchange", 200.0), ("receive", 0.0)]:
        joined = oracle.join_quotes(trades, book, clock=clock)
        assert oracle.trade_labels(joined, book, [name], clock=clock) == [{name: value}]


# --- impact


def test_intervals():
    moved = quote(1.5, 100.0, 102.0), quote(2.1, 100.0, 102.0)
    book = [quote(0.5), *moved, unproven(2.5), quote(3.5, proven_since=2), quote(5)]
    trades = [
        trade(1, 1, price=4.0, size=4.0),  # at the boundary: of the interval that ends there
        trade(2, 1.1, price=9.0),
        trade(3, 2, price=16.0, side="sell"),
        trade(4, 2, is_snapshot=True),
        trade(5, 2, trade_time=None),
    ]
    rows = oracle.impact_intervals(trades, book, SECOND)
    assert of(rows, "interval_end") == [seconds(i) for i in range(1, 6)]
    assert of(rows, "mid") == [100.0, 101.0, None, 100.0, 100.0]
    assert of(rows, "proven_since") == [1, 1, None, 2, 1]
    assert of(rows, "mid_change") == [None, 1.0, None, None, None]
    assert of(rows, "log_return") == [None, near(math.log(1.01)), None, None, None]
    names = "signed_volume", "signed_sqrt_notional", "notional", "n_trades"
    assert of(rows, *names) == [(4.0, 4.0, 16.0, 1), (0.0, 3.0 - 4.0, 25.0, 2), *[(0.0, 0.0, 0.0, 0)] * 3]


def test_of_an_interval_behind_the_last_row_before_a_break_the_mid_is_not_known():
    book = [quote(0.5), quote(2), unproven(4.5), quote(5.5, proven_since=2)]
    assert of(oracle.impact_intervals([], book, SECOND), "mid") == [100.0, 100.0, None, None, None]


def test_intervals_are_of_their_clock():
    book = [quote(1), quote(1.5, 100.0, 102.0, **received(2.5)), quote(3)]
    trades = [trade(1, 1.9, **received(2.1)), trade(2, 2.5, **received(2))]
    names = "mid", "signed_volume", "mid_change"
    rows = oracle.impact_intervals(trades, book, SECOND)
    assert of(rows, *names) == [(100.0, 0.0, None), (101.0, 1.0, 1.0), (100.0, 1.0, -1.0)]
    rows = oracle.impact_intervals(trades, book, SECOND, clock="receive")
    assert of(rows, *names) == [(100.0, 0.0, None), (100.0, 0.0, 0.0), (100.0, 2.0, 0.0)]


def interval(end, x=0.0, y=0.0, **more):
    told = {"product_id": "BTC-USD", "interval_end": seconds(end), "mid_change": y, "log_return": y}
    return told | {"signed_volume": x, "signed_sqrt_notional": x, "notional": abs(x)} | more


def impact(intervals, *names):
    return of(oracle.impact_features(intervals, names, SECOND), *names)


def test_kyle_lambda_with_intercept():
    # x 1 2 3, y 1 2 4: Sxx 2, Sxy 3, Syy 14/3; slope 3/2 (through the origin it were 17/14);
    # RSS = 14/3 - 9/2 = 1/6, se = sqrt(1/6 / 1 / 2), t = slope / se, R2 = 9 / (2 * 14/3)
    rows = [interval(0, 9.0, 9.0), interval(1, 1.0, 1.0), interval(2, 2.0, 2.0), interval(3, 3.0, 4.0)]
    names = [f"{name}_3s" for name in oracle.KYLE]
    slope, se, t, r2 = impact(rows, *names)[3]
    assert (slope, se, r2) == (1.5, near(math.sqrt(1 / 12)), near(27 / 28))
    assert t == near(1.5 / math.sqrt(1 / 12))
    assert impact(rows, *names)[:2] == [(None,) * 4] * 2
    assert impact(rows, "hasbrouck_lambda_3s")[3] == 1.5


def test_kyle_lambda_is_null_where_it_is_not_defined():
    names = [f"{name}_3s" for name in oracle.KYLE]
    same_x = [interval(i, 1.0, float(i)) for i in range(3)]
    assert impact(same_x, *names)[2] == (None,) * 4
    on_a_line = [interval(i, float(i), 2.0 * i) for i in range(3)]
    assert impact(on_a_line, *names)[2] == (2.0, None, None, 1.0)
    flat = [interval(i, float(i), 0.0) for i in range(3)]
    assert impact(flat, *names)[2] == (0.0, None, None, None)
    assert impact(on_a_line, "kyle_lambda_2s") == [None] * 3


def test_impact_begins_anew_where_intervals_or_mids_are_missing():
    rows = [interval(i, float(i), 2.0 * i) for i in (0, 1, 2, 4, 5, 6)]
    assert impact(rows, "kyle_lambda_3s") == [None, None, 2.0, None, None, 2.0]
    rows = [interval(i, float(i), None if i == 2 else 2.0 * i) for i in range(6)]
    assert impact(rows, "kyle_lambda_3s") == [None] * 5 + [2.0]


def test_amihud_leaves_quiet_intervals_out():
    rows = [interval(0, 4.0, 1.0), interval(1, 0.0, 9.0), interval(2, -2.0, -1.0)]
    assert impact(rows, "amihud_3s") == [None, None, 0.375]  # (1/4 + 1/2) / 2
    assert impact(rows, "amihud_1s") == [0.25, None, 0.5]


# --- bars


def told(trades, by, size, *names, **options):
    return of(bar_oracle.trade_bars(trades, by, size, **options), *names)


def sized(*sizes):
    """Write trades of these sizes, a negative one a sell; the price is the number."""
    return [
        trade(i + 1, price=float(i + 1), size=abs(size), side="buy" if size > 0 else "sell")
        for i, size in enumerate(sizes)
    ]


def test_a_bar_in_full_and_the_last_one_is_flushed_as_incomplete():
    trades = [
        trade(7, price=10.0),
        trade(8, price=12.0, size=2.0, side="sell", trade_time=None),
        trade(9, price=9.0, size=3.0),
    ]
    assert bar_oracle.trade_bars(trades, "tick", 2) == [
        {
            "product_id": "BTC-USD",
            "bar": 0,
            "start": None,
            "open": 10.0,
            "high": 12.0,
            "low": 10.0,
            "close": 12.0,
            "vwap": 34 / 3,
            "volume": 3.0,
            "notional": 34.0,
            "buy_volume": 1.0,
            "n_trades": 2,
            "first_time": seconds(7),
            "last_time": seconds(8),
            "first_trade_id": 7,
            "last_trade_id": 8,
            "is_complete": True,
            "run": 0,
        },
        {
            "product_id": "BTC-USD",
            "bar": 1,
            "start": None,
            "open": 9.0,
            "high": 9.0,
            "low": 9.0,
            "close": 9.0,
            "vwap": 9.0,
            "volume": 3.0,
            "notional": 27.0,
            "buy_volume": 3.0,
            "n_trades": 1,
            "first_time": seconds(9),
            "last_time": seconds(9),
            "first_trade_id": 9,
            "last_trade_id": 9,
            "is_complete": False,
            "run": 0,
        },
    ]


def test_a_restart_closes_the_bar():
    trades = [trade(1), trade(2), trade(4), trade(5, connection=2), trade(6, connection=2)]
    names = "bar", "run", "first_trade_id", "last_trade_id", "is_complete"
    assert told(trades, "tick", 2, *names) == [
        (0, 0, 1, 2, True),
        (1, 1, 4, 4, False),
        (2, 2, 5, 6, True),
    ]
    assert told(trades, "tick", 2, "run", "is_complete", holes="ignore")[:2] == [(0, True), (0, False)]


def test_bars_come_as_they_close():
    other = {"product_id": "ETH-USD"}
    trades = [trade(1), trade(1, **other), trade(2, **other), trade(3, **other), trade(2), trade(3)]
    names = "product_id", "bar", "is_complete"
    assert told(trades, "tick", 2, *names) == [
        ("ETH-USD", 0, True),
        ("BTC-USD", 0, True),
        ("BTC-USD", 1, False),
        ("ETH-USD", 1, False),
    ]


def test_time_bars():
    times = [0, 1.9, 1.5, 2, 7, 6.5]
    trades = [trade(i, time) for i, time in enumerate(times)]
    names = "start", "n_trades", "first_time", "last_time", "is_complete"
    assert told(trades, "time", 2 * SECOND, *names) == [
        (seconds(0), 3, seconds(0), seconds(1.5), True),
        (seconds(2), 1, seconds(2), seconds(2), True),
        (seconds(6), 2, seconds(7), seconds(6.5), False),
    ]


def test_a_time_bar_takes_trades_without_a_clock():
    trades = [trade(0), trade(1, trade_time=None), trade(2, 9, trade_time=None)]
    names = "start", "n_trades", "last_time"
    assert told(trades, "time", 2 * SECOND, *names) == [(seconds(0), 3, seconds(9))]
    # none is open: a bar without a start
    trades = [trade(0, 1, trade_time=None), trade(1, 3, trade_time=None), trade(2, 9)]
    bars = [(None, 2, seconds(3)), (seconds(8), 1, seconds(9))]
    assert told(trades, "time", 2 * SECOND, *names) == bars


def test_volume_bars_split_trades():
    names = "volume", "n_trades", "buy_volume", "first_trade_id", "last_trade_id", "is_complete"
    assert told(sized(3.0, -9.0, 1.0), "volume", 4.0, *names) == [
        (4.0, 2, 3.0, 1, 2, True),
        (4.0, 1, 0.0, 2, 2, True),
        (4.0, 1, 0.0, 2, 2, True),  # full to the edge: it leaves nothing behind
        (1.0, 1, 1.0, 3, 3, False),
    ]


def test_a_volume_bar_opens_with_its_own_first_trade():
    assert told(sized(2.0, 2.0, 3.0, 1.0), "volume", 4.0, "open", "close") == [(1.0, 2.0), (3.0, 4.0)]
    assert told(sized(3.0, 2.0, 3.0), "volume", 4.0, "open", "close") == [(1.0, 2.0), (2.0, 3.0)]


def test_the_edge_is_that_of_the_doubles():
    # three doubles 0.1 are more than the double 0.3, by 2^-55
    assert told(sized(0.1, 0.1, 0.1), "volume", 0.3, "volume", "n_trades", "is_complete") == [
        (0.3, 3, True),
        (2.0**-55, 1, False),
    ]


def test_notional_bars_split_trades():
    trades = [trade(1, price=3.0, size=1.0), trade(2, price=7.0, size=2.0)]
    # 10 = 3 + 7 of the 14: the edge is at size 1; what is left is 7
    names = "notional", "volume", "vwap", "n_trades", "is_complete"
    assert told(trades, "notional", 10.0, *names) == [(10.0, 2.0, 5.0, 2, True), (7.0, 1.0, 7.0, 1, False)]
    # edges in thirds, and yet the third bar ends with the trade
    assert (
        told([trade(1, price=3.0, size=1.0)], "notional", 1.0, "notional", "volume", "is_complete")
        == [(1.0, 1 / 3, True)] * 3
    )


def test_imbalance_bars():
    trades = sized(1.0, -2.0, -3.0, 4.0, 5.0, -1.0)
    # tick: 1 0 -1 0 1 0; volume: 1 -1 -4 | 4 | 5 | -1; notional: 1 -3 -12 | 16 | 25 | -6
    assert told(trades, "tick_imbalance", 2, "n_trades", "is_complete") == [(6, False)]
    assert told(trades, "volume_imbalance", 4, "n_trades", "is_complete") == [
        (3, True),
        (1, True),
        (1, True),
        (1, False),
    ]
    assert told(trades, "notional_imbalance", 12, "n_trades") == [3, 1, 1, 1]


def test_runs_bars():
    trades = sized(1.0, -2.0, -3.0, 4.0, 5.0, -1.0)
    # tick: sells reach 2 at the third trade, buys at the fifth
    assert told(trades, "tick_runs", 2, "n_trades", "is_complete") == [(3, True), (2, True), (1, False)]
    assert told(trades, "volume_runs", 5, "n_trades") == [3, 2, 1]
    assert told(trades, "notional_runs", 13, "n_trades") == [3, 1, 1, 1]


def test_an_adaptive_imbalance():
    # a = 1/2. Bar 0: theta 2 of 2 trades: T 2, b 1, threshold 2. Bar 1: 1 0 -1 -2: T 3, b = 1/4, 0.75.
    # Bar 2: -1 of 1: T 2, b = -3/8, 0.75. Bar 3: 1 of 1: T 3/2, b = 5/16, 15/32
    trades = sized(1, 1, 1, -1, -1, -1, -1, 1)
    names = "n_trades", "is_complete"
    bars = [(2, True), (4, True), (1, True), (1, True)]
    assert told(trades, "tick_imbalance", 2, *names, adaptive=3) == bars


def test_an_adaptive_threshold_of_0_is_left_as_it_was():
    # Bar 0: b 1, T 2; bar 1: theta -2 of 2: b = 1 - 1 = 0, so the threshold stays 2
    trades = sized(1, 1, -1, -1, 1, 1)
    assert told(trades, "tick_imbalance", 2, "n_trades", adaptive=3) == [2, 2, 2]


def test_an_adaptive_threshold_outlives_a_restart():
    # Bar 0: theta 3 of 3: threshold 3; a hole; then 2 do not do, nor does what was cut off count
    trades = [trade(i) for i in (1, 2, 3, 4, 6, 7, 8)]
    names = "n_trades", "is_complete"
    assert told(trades, "tick_imbalance", 2.5, *names, adaptive=3) == [(3, True), (1, False), (3, True)]


def test_adaptive_runs():
    # Bar 0: buys 2 of 3 trades: T 3, buy 2/3, sell 1/3, threshold 2. Bar 1: sells 2 of 2: T 5/2,
    # buy 1/3, sell 2/3, threshold 5/3: full at 2
    assert told(sized(1, -1, 1, -1, -1, 1, 1), "tick_runs", 2, "n_trades", adaptive=3) == [3, 2, 2]


# --- of bars


def bar(high, low, **more):
    return {"product_id": "BTC-USD", "run": 0, "high": high, "low": low, "is_complete": True, **more}


def spreads(*bars):
    return of(bar_oracle.corwin_schultz(bars), "corwin_schultz")


def test_corwin_schultz():
    # the same range x = ln(H/L) twice: alpha = x, and so S = 2 (H - L) / (H + L)
    assert spreads(bar(102.0, 100.0), bar(102.0, 100.0)) == [None, near(4 / 202)]
    assert spreads(bar(100.0, 100.0), bar(100.0, 100.0)) == [None, 0.0]
    # no range in the bars but one between them: all of it is volatility
    assert spreads(bar(100.0, 100.0), bar(101.0, 101.0)) == [None, None]


def test_corwin_schultz_by_the_formula():
    beta = math.log(1.02) ** 2 + math.log(1.01) ** 2
    gamma = math.log(102.01 / 100) ** 2  # 101 * 1.01 is the higher high
    k = 3 - 2 * math.sqrt(2)
    alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / k - math.sqrt(gamma / k)
    value = 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha))
    assert spreads(bar(102.0, 100.0), bar(102.01, 101.0))[1] == pytest.approx(value, rel=1e-10)


def test_corwin_schultz_takes_complete_neighbours_of_one_run():
    one = bar(102.0, 100.0)
    part = one | {"is_complete": False}
    other = one | {"product_id": "ETH-USD"}
    known = near(4 / 202)
    assert spreads(one, part, one, one) == [None, None, None, known]
    assert spreads(one, one | {"run": 1}, one | {"run": 1}) == [None, None, known]
    assert spreads(one, other, one, other) == [None, None, known, known]


def vpins(trades, size, n, **options):
    return of(bar_oracle.vpin(trades, size, n, **options), "vpin")


def test_a_single_buy_fills_three_buckets():
    assert vpins(sized(3.0), 1.0, 1) == [1.0, 1.0, 1.0]
    assert vpins(sized(3.0), 1.0, 3) == [None, None, 1.0]


def test_vpin_of_aggressors():
    # buckets of 4: 3 bought of 4 (1/2), all sold (1), 2 of 4 (0), and one that is not full
    trades = sized(3.0, -5.0, 2.0, -2.0, 1.0, -0.5)
    rows = bar_oracle.vpin(trades, 4.0, 2)
    assert of(rows, "buy_volume", "vpin") == [(3.0, None), (0.0, 0.75), (2.0, 0.5)]


def test_vpin_begins_anew_with_the_run():
    trades = [trade(i, size=1.0) for i in (1, 2, 4, 5, 6)]
    assert vpins(trades, 1.0, 2) == [None, 1.0, None, 1.0, 1.0]
    rows = bar_oracle.vpin([trade(1, size=1.5), trade(3, size=1.0)], 1.0, 1)
    assert of(rows, "bar", "run") == [(0, 0), (2, 1)]  # bar 1 was cut off


def test_vpin_in_bulk():
    # closes 10 11 13 12: changes 1 2 -1. sigma of (1, 2) is sqrt(1/2), of (2, -1) sqrt(9/2);
    # |2 Phi(z) - 1| = erf(|z| / sqrt 2): erf(2 / 1) and erf(1 / 3). Four buckets for a mean of two
    trades = [trade(i, price=price) for i, price in enumerate((10.0, 11.0, 13.0, 12.0))]
    value = near((math.erf(2) + math.erf(1 / 3)) / 2)
    assert vpins(trades, 1.0, 2, classify="bulk") == [None, None, None, value]
    assert vpins(trades, 1.0, 1, classify="bulk") == [None] * 4


def test_vpin_in_bulk_without_variance():
    trades = [trade(i, price=10.0 + i) for i in range(4)]
    assert vpins(trades, 1.0, 2, classify="bulk") == [None, None, None, 0.0]
