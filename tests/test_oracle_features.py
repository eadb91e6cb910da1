"""Pins the oracles of the book's features, flows, labels, samples and bars by numbers worked out by hand."""

import math

import pytest
from oracles import features, labels

SECOND = 10**9


def book(t, bids=((99, 1),), asks=((101, 1),), *, depth=3, product="BTC-USD", state="ok", since=1):
    """Write a book row, t in seconds (None: no clock); levels are (price, size), best first."""
    time = None if t is None else round(t * SECOND)
    row = {"product_id": product, "book_state": state, "proven_since": since}
    row |= {"server_time": time, "capture_time": time}
    for side, levels in (("bid", bids), ("ask", asks)):
        for k in range(depth):
            price, size = levels[k] if k < len(levels) else (None, None)
            row[f"{side}_price_{k + 1}"] = None if price is None else float(price)
            row[f"{side}_size_{k + 1}"] = None if size is None else float(size)
    return row


def of_mid(t, m, half=1.0, **more):
    """Write a book row by its mid and half its spread."""
    return book(t, ((m - half, 1),), ((m + half, 1),), **more)


def trade(t, price, size, maker_side, **more):
    row = {"product_id": "BTC-USD", "capture_time": round(t * SECOND), "is_snapshot": False}
    return row | {"price": float(price), "size": float(size), "maker_side": maker_side} | more


def column(rows, name):
    return [row[name] for row in features.book_features(rows, [name])]


def label(rows, name):
    return [row[name] for row in labels.labels(rows, [name])]


def near(value):
    return pytest.approx(value, rel=1e-14, abs=0)


# --- of one row

# mid 100. Bids 1 and 3 at 99 and 98 (100 and 200 bps away), asks 2, 1 and 5 at 101, 102 and 105.
DEEP = book(0, ((99, 1), (98, 3)), ((101, 2), (102, 1), (105, 5)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mid", 100.0),
        ("spread", 2.0),
        ("spread_bps", 200.0),
        # (101*1 + 99*2) / 3 = 299/3, a third below the mid
        ("microprice", 299 / 3),
        ("microprice_dev_bps", -100 / 3),
        ("imbalance_1", -1 / 3),
        ("imbalance_2", (4 - 3) / (4 + 3)),
        ("imbalance_3", (4 - 8) / (4 + 8)),  # two bids are all there are
        ("bid_depth_1", 1.0),
        ("bid_depth_3", 4.0),
        ("ask_depth_2", 3.0),
        ("bid_depth_notional_3", 99 + 3 * 98),
        ("ask_depth_notional_2", 202 + 102),
        # Vb = 393/4, QB = 4; Va = 304/3, QA = 3
        ("vamp_2", (393 / 4 * 3 + 304 / 3 * 4) / 7),
        # 253 = 202 (the 2 at 101) + 51 (0.5 at 102): 253/2.5 = 101.2
        ("sweep_buy_253_bps", 120.0),
        ("sweep_buy_202_bps", 100.0),
        ("sweep_buy_829_bps", 1e4 * (829 / 8 - 100) / 100),  # all there is: 202 + 102 + 525
        ("sweep_buy_829.5_bps", None),
        # 148 = 99 + 49 (0.5 at 98): 148/1.5 = 98.666...
        ("sweep_sell_148_bps", 1e4 * (100 - 148 / 1.5) / 100),
        ("sweep_sell_1000_bps", None),
        # (100 bps, 1), (200 bps, 4)
        ("bid_slope_3", 0.03),
        ("bid_slope_1", None),
        # (100, 2), (200, 3), (500, 8): x-mean 800/3, y-mean 13/3;
        # Sxy = 4800 - 800*13/3 = 4000/3, Sxx = 300000 - 640000/3 = 260000/3
        ("ask_slope_3", 4000 / 260000),
        ("bid_concentration_2", (1 + 9) / 16),
        ("ask_concentration_3", (4 + 1 + 25) / 64),
        ("ask_concentration_1", 1.0),
        # (99 + 294 + 202 + 102) / 7 = 697/7
        ("center_of_gravity_bps_2", 1e4 * (697 / 7 - 100) / 100),
        # at the best both sides weigh the same
        ("smart_depth_imbalance_1_50bps", -1 / 3),
        # divided by e^-1: bids 1 + 3/e, asks 2 + 1/e
        ("smart_depth_imbalance_2_100bps", (2 / math.e - 1) / (3 + 4 / math.e)),
    ],
)
def test_of_one_row(name, value):
    assert column([DEEP], name) == [value if value is None else near(value)]


@pytest.mark.parametrize("state", ["crossed", "one_sided", "empty", "unproven"])
def test_a_row_that_is_not_ok_has_no_features(state):
    names = ["mid", "spread", "imbalance_3", "ask_depth_1", "sweep_buy_1_bps", "ask_slope_3", "ofi", "ofi_1s"]
    rows = [DEEP, DEEP | {"book_state": state, "capture_time": SECOND}]
    assert features.book_features(rows, names)[1] == dict.fromkeys(names)


def test_the_mid_is_the_double():
    row = book(0, ((0.1, 1),), ((0.2, 1),))
    m = 0.15000000000000002  # the sum of the two doubles lies between two doubles, and is rounded up by 2^-55
    assert column([row], "mid") == [m]
    # the microprice is the exact mean of the two doubles, to which the mid is not corrected
    assert column([row], "microprice_dev_bps") == [near(-1e4 * 2.0**-56 / m)]


def test_what_is_not_finite_is_undefined():
    row = book(0, ((99, math.inf),))
    assert column([row], "bid_depth_1") == [None]
    assert column([row], "imbalance_1") == [None]
    assert column([row], "ask_depth_1") == [1.0]
    assert column([book(0, ((-1, 1),), ((1, 1),))], "spread_bps") == [None]


def test_an_unknown_name():
    for name in ("imbalance", "ofi_0", "ofi_5x", "return_5", "two_scale_variance_5s"):
        with pytest.raises(ValueError, match=name):
            features.book_features([], [name])


# --- of the change


def test_ofi():
    rows = [
        book(0, ((99, 5),), ((101, 7),)),
        book(1, ((99, 8),), ((101, 6),)),  # equal, equal: +3 - (-1) = 4
        book(2, ((99.5, 2),), ((100.5, 3),)),  # bid rose +2, ask fell: -3
        book(3, ((99, 4),), ((101, 9),)),  # bid fell -2, ask rose: -(-3)
    ]
    assert column(rows, "ofi") == [None, 4.0, -1.0, 1.0]
    assert column(rows, "ofi_1") == column(rows, "ofi")


def test_ofi_at_a_rank():
    rows = [
        book(0, ((99, 5), (98, 1)), ((101, 7), (102, 2))),
        book(1, ((99, 5), (98, 4)), ((101, 7), (103, 5))),  # +3, ask rose: -(-2)
        book(2, ((99, 5),), ((101, 7), (103, 5))),  # no second bid
        book(3, ((99, 5), (98, 4)), ((101, 7), (103, 5))),  # none before
    ]
    assert column(rows, "ofi_2") == [None, 5.0, None, None]
    assert column(rows, "ofi_1") == [None, 0.0, 0.0, 0.0]


def test_log_return():
    assert column([of_mid(0, 100), of_mid(1, 110), of_mid(2, 11)], "log_return") == [
        None,
        near(math.log1p(0.1)),
        near(-math.log(10)),
    ]
    tiny = column([of_mid(0, 2.0**20), of_mid(1, 2.0**20 + 2.0**-20)], "log_return")[1]
    assert tiny == near(2.0**-40 - 2.0**-81)


def test_restarts():
    rows = [
        of_mid(0, 100),
        of_mid(1, 101),  # follows
        of_mid(2, 102, since=2),  # another snapshot
        of_mid(3, 103, since=2),  # follows
        of_mid(4, 104, since=2, state="crossed"),
        of_mid(5, 105, since=2),  # the row before is not ok
        of_mid(None, 106, since=2),  # follows: the clock does not matter
        of_mid(7, 107, since=2),  # follows
        of_mid(8, 108, since=2, state="unproven"),
        of_mid(9, 109, since=None),
        of_mid(10, 110, since=None),  # an equal null is no proof
    ]
    follows = [1, 3, 6, 7]
    for name in ("ofi", "log_return"):
        assert [i for i, value in enumerate(column(rows, name)) if value is not None] == follows
    assert column(rows, "mid")[4] is None
    assert column(rows, "mid")[6] == 106


def test_products_do_not_meet():
    rows = [of_mid(0, 100), of_mid(1, 7, product="X"), of_mid(2, 101), of_mid(3, 8, product="X")]
    assert column(rows, "log_return") == [None, None, near(math.log1p(0.01)), near(math.log1p(1 / 7))]


# --- windows

FLOWS = [book(t, ((99, size),)) for t, size in [(0, 1), (1, 2), (2, 4), (2, 8), (3, 16), (3.5, 32)]]
# ofi: None, 1, 2, 4, 8, 16


def test_window_edges():
    # At 1: begins at -1, before the first row. At 2: (0, 2] is 1 + 2; the second row at 2: 1 + 2 + 4, and
    # nothing of it for the first. At 3: (1, 3]: not the 1 at 1. At 3.5: (1.5, 3.5]: 2 + 4 + 8 + 16.
    assert column(FLOWS, "ofi_2s") == [None, None, 3.0, 7.0, 14.0, 30.0]
    assert column(FLOWS, "ofi_1_2s") == column(FLOWS, "ofi_2s")
    assert column(FLOWS, "ofi_500ms") == [None, 1.0, 2.0, 6.0, 8.0, 16.0]  # at 3.5: not the 8 at 3
    assert column(FLOWS, "ofi_3s500ms") == [None] * 5 + [31.0]  # covered just so
    assert column(FLOWS, "ofi_3s500ms1ns") == [None] * 6


def test_the_first_time_is_in_no_window():
    rows = [book(t, ((99, size),)) for t, size in [(0, 1), (0, 2), (1, 4)]]
    assert column(rows, "ofi") == [None, 1.0, 2.0]
    assert column(rows, "ofi_1s") == [None, None, 2.0]


def test_a_window_does_not_span_a_restart():
    rows = [book(t, ((99, t + 1),), since=1 if t < 3 else 2) for t in range(7)]
    assert column(rows, "ofi_1s") == [None, 1.0, 1.0, None, 1.0, 1.0, 1.0]
    assert column(rows, "ofi_2s") == [None, None, 2.0, None, None, 2.0, 2.0]


def test_the_clock_steps_back():
    # Effective times 0, 2, 2, 2, 3.
    rows = [book(t, ((99, size),)) for t, size in [(0, 1), (2, 2), (1, 4), (1.5, 8), (3, 16)]]
    assert column(rows, "ofi_1s") == [None, 1.0, 3.0, 7.0, 8.0]
    assert column(rows, "ofi_2s") == [None, 1.0, 3.0, 7.0, 15.0]
    # After a restart the time is not held back by what was before it.
    again = [book(5, ((99, 1),)), book(1, ((99, 1),), since=2), book(2, ((99, 3),), since=2)]
    assert column(again, "ofi_1s") == [None, None, 2.0]


def test_a_row_without_clock():
    # It counts at the time of the row before it: 0, 1, 1, 2; before the first time nothing is known.
    rows = [book(t, ((99, size),)) for t, size in [(0, 1), (1, 2), (None, 4), (2, 8)]]
    assert column(rows, "ofi") == [None, 1.0, 2.0, 4.0]
    assert column(rows, "ofi_1s") == [None, 1.0, 3.0, 4.0]
    rows = [book(t, ((99, size),)) for t, size in [(None, 1), (None, 2), (1, 4), (1, 8), (2, 16)]]
    assert column(rows, "ofi") == [None, 1.0, 2.0, 4.0, 8.0]
    assert column(rows, "ofi_1s") == [None, None, None, None, 8.0]


def test_another_clock():
    rows = [row | {"server_time": 10 * row["capture_time"]} for row in FLOWS]
    assert [row["ofi_10s"] for row in features.book_features(rows, ["ofi_10s"], clock="server_time")] == [
        None, 1.0, 2.0, 6.0, 8.0, 24.0,
    ]  # fmt: skip


def test_an_undefined_input_makes_the_window_undefined():
    second = ((99, 1), (98, 1))
    rows = [book(t, second if t != 2 else second[:1], ((101, 1), (102, 1))) for t in range(6)]
    assert column(rows, "ofi_2") == [None, 0.0, None, None, 0.0, 0.0]
    assert column(rows, "ofi_2_2s") == [None, None, None, None, None, 0.0]
    assert column(rows, "ofi_1_2s") == [None, None, 0.0, 0.0, 0.0, 0.0]


L = math.log1p(0.01)
# Log mids in units of ln(1.01): 0, 1, 0, 2, 2
STEPS = [of_mid(t, 100 * 1.01**power) for t, power in enumerate([0, 1, 0, 2, 2])]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("return_4s", 2 * L),
        ("return_2s", 2 * L),
        # returns 1, -1, 2, 0
        ("realized_variance_4s", 6 * L**2),
        ("realized_volatility_4s", math.sqrt(6) * L),
        ("bipower_variation_4s", math.pi / 2 * (1 + 2 + 0) * L**2),
        ("bipower_variation_2s", 0.0),  # 2*0: the pair with the return before the window is not in it
        ("bipower_variation_1s", None),  # one return
        # K = 2, n = 4: avg = (0 + 1 + 4)/2, nbar = 3/2, nbar/n = 3/8: (5/2 - 18/8) / (5/8)
        ("two_scale_variance_4s_2", 0.4 * L**2),
        # K = 2, n = 3 (0 is -1 relative to Y_0 = 1; 2 is 1; 2 is 1): avg = (1 + 4)/2; nbar/n = 1/3;
        # sum r^2 = 5: (5/2 - 5/3) / (2/3)
        ("two_scale_variance_3s_2", 1.25 * L**2),
        # K = n = 4: avg = 4/4, nbar = 1/4, nbar/n = 1/16: (1 - 6/16) / (15/16)
        ("two_scale_variance_4s_4", 2 / 3 * L**2),
        ("two_scale_variance_4s_5", None),
        ("two_scale_variance_5s_2", None),  # not covered
    ],
)
def test_volatility(name, last):
    # The mids are rounded, and 1e-13 is what is left of it in the returns.
    assert column(STEPS, name)[-1] == (last if last is None else pytest.approx(last, rel=1e-12, abs=0))


def test_a_mid_of_zero_has_no_return():
    rows = [of_mid(0, 1), of_mid(1, 1), of_mid(2, 0), of_mid(3, 1), of_mid(4, 1)]
    assert column(rows, "log_return") == [None, 0.0, None, None, 0.0]
    assert column(rows, "return_1s") == [None, 0.0, None, None, 0.0]


def test_spread_twa():
    rows = [of_mid(t, 100, half) for t, half in [(0, 1), (3, 2), (3, 50), (3, 4), (5, 8), (4, 16)]]
    # At 3: (1, 3] at spread 2, whatever begins at 3. At 5: (3, 5] at 8. The row at 4 stands at 5.
    assert column(rows, "spread_twa_2s") == [None, 2.0, 2.0, 2.0, 8.0, 8.0]
    # At 5: (1, 3] at 2, (3, 5] at 8; the row of no duration does not count.
    assert column(rows, "spread_twa_4s") == [None, None, None, None, 5.0, 5.0]
    assert column(rows, "spread_twa_5s")[-1] == near((3 * 2 + 2 * 8) / 5)


# --- level flow


def flow(before, now, *trades, levels=2, depth=3):
    """Give the flow of the second of two rows, a second apart, without the nulls."""
    told = labels.level_flow([before, now], trades, levels, depth)
    assert set(told[0].values()) == {None}
    return {name: value for name, value in told[1].items() if value is not None}


def taken(side, k, executed, cancelled, unexplained):
    return {
        f"executed_{side}_{k}": executed,
        f"cancelled_{side}_{k}": cancelled,
        f"unexplained_{side}_{k}": unexplained,
    }


def test_level_flow_at_standing_prices():
    before = book(0, ((99, 5), (98, 4)), ((101, 3), (102, 2)))
    now = book(1, ((99, 2), (98, 6)), ((101, 3), (102, 1)))
    trades = [
        trade(0.5, 99, 1, "buy"),
        trade(1, 99, 1.5, "buy"),  # the right edge counts
        trade(0, 99, 100, "buy"),  # the left does not
        trade(0.5, 99, 100, "sell"),  # an ask at that price
        trade(0.5, 99, 100, "buy", is_snapshot=True),
        trade(0.5, 99, 100, "buy", product_id="X"),
        trade(0.5, 101, 0.25, "sell"),  # the level stayed as it was
        trade(1.5, 102, 100, "sell"),
    ]
    assert flow(before, now, *trades) == {
        "added_bid_1": 0.0, "added_bid_2": 2.0, "added_ask_1": 0.0, "added_ask_2": 0.0,
        **taken("bid", 1, 2.5, 0.5, 0.0), **taken("bid", 2, 0.0, 0.0, 0.0),
        **taken("ask", 1, 0.0, 0.0, 0.25), **taken("ask", 2, 0.0, 1.0, 0.0),
    }  # fmt: skip


def test_level_flow_when_the_best_moves():
    # A bid at 99.5 comes, and the one at 98 leaves what is shown: what became of it is not known. The
    # ask at 101 goes (3 traded of 4: 1 cancelled), and 103 comes from beyond what was shown.
    before = book(0, ((99, 5), (98, 4)), ((101, 4), (102, 2)), depth=2)
    now = book(1, ((99.5, 7), (99, 5)), ((102, 2), (103, 9)), depth=2)
    assert flow(before, now, trade(1, 101, 3, "sell"), depth=2) == {
        "added_bid_1": 7.0, "added_bid_2": 0.0, "added_ask_1": 0.0,
        **taken("bid", 1, 0.0, 0.0, 0.0),
        **taken("ask", 1, 3.0, 1.0, 0.0), **taken("ask", 2, 0.0, 0.0, 0.0),
    }  # fmt: skip


def test_level_flow_where_the_whole_side_is_shown():
    # Fewer levels than the depth: what is not shown is not there.
    before = book(0, ((99, 5), (98, 4)), ((101, 4),))
    now = book(1, ((99, 5),), ((101, 4), (103, 9)))
    assert flow(before, now) == {
        "added_bid_1": 0.0, "added_ask_1": 0.0, "added_ask_2": 9.0,
        **taken("bid", 1, 0.0, 0.0, 0.0), **taken("bid", 2, 0.0, 4.0, 0.0),
        **taken("ask", 1, 0.0, 0.0, 0.0),
    }  # fmt: skip


def test_level_flow_needs_a_row_that_follows():
    rows = [book(0), book(1, since=2), book(2, state="crossed", since=2), book(3, since=2)]
    assert all(set(row.values()) == {None} for row in labels.level_flow(rows, [], 1, 3))


def test_level_flow_uses_effective_times():
    # The third row's clock steps back: its time is 2, and (2, 2] holds no trade.
    rows = [book(0, ((99, 3),)), book(2, ((99, 2),)), book(1, ((99, 1),))]
    told = labels.level_flow(rows, [trade(1, 99, 1, "buy"), trade(2, 99, 1, "buy")], 1, 3)
    names = ("executed_bid_1", "cancelled_bid_1", "unexplained_bid_1")
    assert [tuple(row[name] for name in names) for row in told] == [
        (None, None, None), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0),
    ]  # fmt: skip


def test_level_flow_without_a_clock():
    rows = [book(t, ((99, size),)) for t, size in [(None, 3), (1, 2), (None, 1), (2, 0.5)]]
    told = labels.level_flow(rows, [trade(1, 99, 1, "buy"), trade(2, 99, 0.5, "buy")], 1, 3)
    names = ("added_bid_1", "executed_bid_1", "cancelled_bid_1", "unexplained_bid_1")
    assert [tuple(row[name] for name in names) for row in told] == [
        (None,) * 4, (0.0, None, None, None), (0.0, 0.0, 1.0, 0.0), (0.0, 0.5, 0.0, 0.0),
    ]  # fmt: skip


# --- labels

PATH = [of_mid(t, m) for t, m in [(0, 100), (1, 101), (1, 102), (2, 99), (4, 100)]]


def test_label_return():
    # One second on, the last row at 1 counts; from 2 on, nothing comes until 4; 4 + 1 is not covered.
    up = math.log(1.02)
    assert label(PATH, "label_return_1s") == [
        near(up), near(math.log(99 / 101)), near(math.log(99 / 102)), 0.0, None,
    ]  # fmt: skip
    assert label(PATH, "label_return_4s") == [0.0, None, None, None, None]
    assert label(PATH, "label_return_4s1ns") == [None] * 5


def test_label_triple_barrier():
    # up 150, down 200 bps, within 1 s. From 100: 102 is up 200. From 101: 102 is up 99, 99 down 198.
    # From 102: 99 is down 294. From 99 at 2: nothing until 3, and 4 covers it. From 100: the run ends.
    assert label(PATH, "label_triple_barrier_150_200bps_1s") == [1, 0, -1, 0, None]
    # exactly touched: 100 -> 101 is up 100
    assert label(PATH, "label_triple_barrier_100_1000bps_1s")[0] == 1
    # 3 s: from 99, the 100 at 4 is up 101; a touch is known although the run ends before 5
    assert label(PATH, "label_triple_barrier_100_1000bps_3s") == [1, 0, 0, 1, None]
    assert label(PATH, "label_triple_barrier_300_1000bps_3s") == [0, 0, 0, None, None]
    # the first touch counts
    down_then_up = [of_mid(t, m) for t, m in [(0, 100), (1, 90), (2, 110)]]
    assert label(down_then_up, "label_triple_barrier_500.5_500bps_1m") == [-1, 1, None]


def test_label_time_to_move():
    assert label(PATH, "label_time_to_move_150bps") == [SECOND, SECOND, SECOND, None, None]
    assert label(PATH, "label_time_to_move_90bps") == [SECOND, 0, SECOND, 2 * SECOND, None]


def test_labels_end_with_the_run():
    rows = [of_mid(t, 100 + t, since=1 if t < 3 else 2) for t in range(6)]
    rows.append(of_mid(6, 106, state="crossed", since=2))
    assert [value is None for value in label(rows, "label_return_2s")] == [
        False, True, True, False, True, True, True,
    ]  # fmt: skip
    # From 102 nothing follows in its run, though 103 comes a second later.
    assert label(rows, "label_time_to_move_50bps") == [SECOND, SECOND, None, SECOND, SECOND, None, None]
    assert label(rows, "label_triple_barrier_50_50bps_1s") == [1, 1, None, 1, 1, None, None]


def test_labels_when_the_clock_steps_back():
    # Effective times 0, 2, 2, 3.
    rows = [of_mid(t, m) for t, m in [(0, 100), (2, 101), (1, 102), (3, 103)]]
    assert label(rows, "label_return_1s") == [0.0, near(math.log(103 / 101)), near(math.log(103 / 102)), None]
    assert label(rows, "label_time_to_move_50bps") == [2 * SECOND, 0, SECOND, None]


def test_labels_without_a_clock():
    # Effective times: none, 0, 0, 1.
    rows = [of_mid(t, m) for t, m in [(None, 50), (0, 100), (None, 101), (1, 102)]]
    assert label(rows, "label_return_1s") == [None, near(math.log(1.02)), near(math.log(102 / 101)), None]
    assert label(rows, "label_time_to_move_50bps") == [None, 0, SECOND, None]
    assert label(rows, "label_triple_barrier_50_50bps_1s") == [None, 1, 1, None]


def test_labels_are_of_the_exchange_s_time_or_of_receipt():
    rows = [of_mid(t, m) for t, m in [(0, 100), (1, 101), (2, 102), (3, 103)]]
    # received at 0, 3, 3 (after the one before it, whatever its clock says) and 3
    rows = [row | {"capture_time": round(t * SECOND)} for row, t in zip(rows, (0, 3, 2.5, 3), strict=True)]
    for clock, steps in [("exchange", [SECOND] * 3), ("receive", [3 * SECOND, 0, 0])]:
        found = labels.labels(rows, ["label_time_to_move_50bps"], clock=clock)
        assert [row["label_time_to_move_50bps"] for row in found] == [*steps, None]
    with pytest.raises(ValueError, match="capture_time"):
        labels.labels(rows, ["label_time_to_move_50bps"], clock="capture_time")


# --- integrated OFI


def test_integrated_weights():
    # All on the line ofi_2 = 2 ofi_1: one component, (1, 2) scaled to (1/3, 2/3).
    found = labels.integrated_weights([(1.0, 2.0), (-1.0, -2.0), (None, 5.0), (3.0, 6.0)])
    assert found["weights"] == [near(1 / 3), near(2 / 3)]
    assert found["share"] == near(1.0)
    # Variances 4/3 * (4 and 1), no covariance: the first alone, and 4 of 5 of the variance.
    cross = [(2.0, 1.0), (2.0, -1.0), (-2.0, 1.0), (-2.0, -1.0)]
    found = labels.integrated_weights(cross)
    assert found["weights"] == pytest.approx([1, 0], rel=1e-14, abs=1e-15)
    assert found["share"] == near(0.8)
    # The sign: ofi_2 = -3 ofi_1, w = ±(1, -3)/4, and the sum is to be positive.
    found = labels.integrated_weights([(1.0, -3.0), (-1.0, 3.0)])
    assert found["weights"] == [near(-0.25), near(0.75)]


def test_mean_depth_and_integrated_ofi():
    rows = [
        book(0, ((99, 1), (98, 2)), ((101, 3), (102, 4))),  # 2 and 3
        book(1, ((99, 7),), ((101, 7), (102, 100))),  # 7; no second bid
        book(2, ((99, 50),), ((101, 50),), state="crossed"),
    ]
    assert labels.mean_depth(rows, 2) == 4.0
    assert labels.integrated_ofi([4.0, -2.0], [0.25, 0.75], 4.0) == near(-0.125)
    assert labels.integrated_ofi([4.0, None], [0.25, 0.75], 4.0) is None


# --- samples


def samples(rows):
    return [
        (one["sample_time"] / SECOND, one["value"], one["staleness_ns"] / SECOND, one["n_updates"])
        for one in labels.sampled(rows, SECOND)
    ]


def at(t, value, **more):
    return {"capture_time": None if t is None else round(t * SECOND), "value": value, **more}


def test_sampled():
    rows = [at(0.5, "a"), at(0.75, "b"), at(1, "c"), at(None, "?"), at(3.5, "d"), at(5, "e")]
    assert samples(rows) == [
        (1, "c", 0, 3),  # at the boundary counts; (0, 1]
        (2, "c", 1, 0),  # quiet
        (3, "c", 2, 0),
        (4, "d", 0.5, 1),
        (5, "e", 0, 1),  # (4, 5]
    ]


def test_sampled_at_the_ends():
    assert samples([at(1, "a"), at(1.5, "b")]) == [(1, "a", 0, 1)]  # 2 is not reached
    assert samples([at(1.25, "a"), at(1.5, "b")]) == []
    assert samples([at(2, "a"), at(2, "b")]) == [(2, "b", 0, 2)]
    assert samples([at(None, "a")]) == []


def test_sampled_when_the_clock_steps_back():
    # Effective times 0.5, 2.5, 2.5, 3: the last state at or before 3 is the last row.
    rows = [at(0.5, "a"), at(2.5, "b"), at(1, "c"), at(3, "d")]
    assert samples(rows) == [(1, "a", 0.5, 1), (2, "a", 1.5, 0), (3, "d", 0, 3)]


def test_sampled_per_product_in_the_order_of_what_gives_them_out():
    rows = [
        at(0, "x0", product_id="X"),
        at(1, "y1", product_id="Y"),
        at(1, "x1", product_id="X"),  # gives out X's 0
        at(3.5, "y3", product_id="Y"),  # gives out Y's 1, 2, 3
        at(2, "x2", product_id="X"),  # gives out X's 1; the end gives out its 2
    ]
    found = labels.sampled(rows, SECOND)
    assert [(row["product_id"], row["sample_time"] // SECOND, row["value"]) for row in found] == [
        ("X", 0, "x0"), ("Y", 1, "y1"), ("Y", 2, "y1"), ("Y", 3, "y1"), ("X", 1, "x1"), ("X", 2, "x2"),
    ]  # fmt: skip
    assert list(found[0]) == [
        "product_id", "sample_time", "capture_time", "value", "staleness_ns", "n_updates",
    ]  # fmt: skip


# --- bars of the book


def test_book_bars():
    rows = [
        book(0.25, ((99, 1),), ((101, 1),)),
        book(0.5, ((99, 3),), ((103, 1),)),  # mid 101, ofi 2 + 1
        book(0.75, ((98, 3),), ((100, 1),)),  # mid 99, ofi -3 - 1
        book(1, ((98, 4),), ((100, 1),)),  # the next interval; ofi 1
        book(3.5, ((98, 4),), ((100, 3),)),  # none for the quiet one; ofi -2
    ]
    bars = labels.book_bars(rows, SECOND)
    assert bars[0] == {
        "product_id": "BTC-USD", "start": 0, "open": 100.0, "high": 101.0, "low": 99.0, "close": 99.0,
        "ofi": -1.0, "mean_spread": near(8 / 3), "n_updates": 3,
        "first_time": SECOND // 4, "last_time": 3 * SECOND // 4, "is_complete": True,
    }  # fmt: skip
    names = ("start", "close", "ofi", "n_updates", "is_complete")
    assert [tuple(bar[name] for name in names) for bar in bars[1:]] == [
        (SECOND, 99.0, 1.0, 1, True),
        (3 * SECOND, 99.0, -2.0, 1, False),
    ]


def test_book_bars_restart():
    rows = [
        of_mid(0.1, 100),
        of_mid(0.2, 101, state="crossed"),  # closes
        of_mid(0.3, 102),  # begins another, of the same interval
        of_mid(0.4, 103),
        of_mid(1.5, 104, since=2),  # another run: the bar before is not complete
        of_mid(None, 105, since=2),  # at the time of the row before
        of_mid(2.5, 105, since=2),
        of_mid(None, 106, since=3),  # closes, and is in a bar without a start
    ]
    bars = labels.book_bars(rows, SECOND)
    names = ("start", "open", "close", "ofi", "n_updates", "is_complete")
    assert [tuple(bar[name] for name in names) for bar in bars] == [
        (0, 100.0, 100.0, None, 1, False),  # a run's first row has no flow
        (0, 102.0, 103.0, 2.0, 2, False),  # bid rose: 1; ask rose: +1
        (SECOND, 104.0, 105.0, 2.0, 2, True),
        (2 * SECOND, 105.0, 105.0, 0.0, 1, False),
        (None, 106.0, 106.0, None, 1, False),
    ]


def test_book_bars_order_and_times():
    rows = [
        of_mid(0.5, 1, half=0.5, product="X"),
        of_mid(0.5, 100),
        of_mid(1.5, 100),  # closes the first of BTC-USD
        of_mid(1.25, 100),  # steps back, within the bar
        of_mid(1.75, 1, half=0.5, product="X"),
    ]
    bars = labels.book_bars(rows, SECOND)
    names = ("product_id", "start", "first_time", "last_time", "n_updates")
    assert [tuple(bar[name] for name in names) for bar in bars] == [
        ("BTC-USD", 0, SECOND // 2, SECOND // 2, 1),
        ("X", 0, SECOND // 2, SECOND // 2, 1),
        ("X", SECOND, 7 * SECOND // 4, 7 * SECOND // 4, 1),  # at the end, in order of first appearance
        ("BTC-USD", SECOND, 3 * SECOND // 2, 5 * SECOND // 4, 2),
    ]
