"""Mistakes that other libraries make, each with the numbers that it would give."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import feature_flows
import polars as pl
import pytest

import cbtools as cb

Row = dict[str, Any]
SECOND = 10**9
NOON = feature_flows.NOON


def row(second: float, bid: float = 99.0, ask: float = 101.0, **more: Any) -> Row:
    """Give a row of a book with two levels a side."""
    time = NOON + round(second * SECOND)
    levels = {
        "bid_price_1": bid, "bid_price_2": bid - 1, "bid_size_1": 5.0, "bid_size_2": 1.0,
        "ask_price_1": ask, "ask_price_2": ask + 1, "ask_size_1": 3.0, "ask_size_2": 7.0,
    }  # fmt: skip
    told = {"server_time": time, "capture_time": time, "sequence_num": 0, "connection": 1, "line": 1}
    state = {"n_bids": 2, "n_asks": 2, "book_state": "ok", "proven_since": NOON}
    return {"product_id": "BTC-USD", **told, **levels, **state, **more}


def trade(second: float, price: float, size: float, aggressor: str, **more: Any) -> Row:
    time = NOON + round(second * SECOND)
    maker = {"buy": "sell", "sell": "buy"}[aggressor]
    sides = {"maker_side": maker, "aggressor_side": aggressor, "trade_time": time, "is_snapshot": False}
    told = {"server_time": time, "capture_time": time, "sequence_num": 0, "connection": 1, "line": 1}
    return {"product_id": "BTC-USD", "trade_id": 1, "price": price, "size": size, **sides, **told, **more}


def numbered(trades: list[Row]) -> pl.DataFrame:
    numbers = enumerate(trades, start=1)
    return feature_flows.frame_of([one | {"trade_id": n} for n, one in numbers], "market_trades")


def book_of(rows: list[Row]) -> pl.DataFrame:
    return feature_flows.frame_of(rows, "book", 2)


def of_book(rows: list[Row], *names: str) -> pl.DataFrame:
    return cb.add_book_features(book_of(rows), names).collect()


def test_the_second_level_does_not_overwrite_the_best_s_size():
    got = of_book([row(0)], "imbalance_1", "microprice")
    assert got["imbalance_1"].item() == (5 - 3) / (5 + 3)
    assert got["microprice"].item() == (101 * 5 + 99 * 3) / 8


def test_realized_volatility_is_no_standard_deviation():
    """Three returns of the same size and sign: their sample standard deviation would be 0."""
    mids = [100.0, 101.0, 102.01, 103.0301]
    got = of_book([row(k, mid - 1, mid + 1) for k, mid in enumerate(mids)], "realized_volatility_3s")
    assert got["realized_volatility_3s"][-1] == pytest.approx(math.sqrt(3) * math.log(1.01), rel=1e-9)


def test_realized_volatility_does_not_shrink_with_quiet_updates():
    """Updates that move nothing add nothing; a mean over updates would halve it."""
    moving = [row(0), row(1, 100, 102), row(2, 101, 103)]
    quiet = [row(0), row(0.5), row(1, 100, 102), row(1.5, 100, 102), row(2, 101, 103)]
    one, two = (
        of_book(rows, "realized_volatility_2s")["realized_volatility_2s"][-1] for rows in (moving, quiet)
    )
    assert one == two


def test_windows_empty_as_time_passes():
    trades = numbered([trade(0, 50, 1, "buy"), trade(1, 100, 1, "buy"), trade(100, 200, 2, "sell")])
    got = cb.add_trade_features(trades, ["vwap_5s", "volume_5s", "trade_count_5s", "trade_imbalance_5s"])
    assert got.collect().row(-1)[-4:] == (200.0, 2.0, 1.0, -1.0)
    grid = pl.DataFrame({"product_id": ["BTC-USD"] * 3, "time": [NOON + k * SECOND for k in (6, 8, 105)]})
    grid = grid.with_columns(pl.col("time").cast(pl.Datetime("ns", "UTC")))
    rows = grid.select("product_id", server_time="time", capture_time="time")
    for options in ({"at": rows}, {"at": grid, "at_clock": "time", "clock": "receive"}):
        at = cb.add_trade_features(trades, ["vwap_6s", "volume_6s"], **options).collect()
        assert at["vwap_6s"].to_list() == [100.0, None, 200.0]  # at 8 s the trade of 1 s has left
        assert at["volume_6s"].to_list() == [1.0, None, 2.0]


def test_a_day_ends_at_midnight_utc():
    """A day, not one to the left or right of it: the last nanosecond of a Saturday is Saturday's."""
    saturday = 1_772_841_600 * SECOND - 1  # 2026-03-06 23:59:59.999999999, and the next nanosecond
    for clock, time in (("exchange", "trade_time"), ("receive", "capture_time")):
        trades = numbered([trade(0, 100, 1, "buy") | {time: saturday + k} for k in (0, 1)])
        audit = cb.side_audit(cb.join_quotes(trades, book_of([row(0)])), clock=clock).collect()
        assert audit["date"].to_list() == [date(2026, 3, 6), date(2026, 3, 7)]
    assert date(2026, 3, 7).weekday() == 5  # Saturday


def intervals(changes: list[float], volumes: list[float]) -> pl.DataFrame:
    n = len(changes)
    return pl.DataFrame(
        {
            "product_id": ["BTC-USD"] * (n + 1),
            "interval_end": [NOON + k * SECOND for k in range(n + 1)],
            "mid": [100.0] * (n + 1),
            "proven_since": [NOON] * (n + 1),
            "mid_change": [None, *changes],
            "signed_volume": [0.0, *volumes],
        }
    ).with_columns(pl.col("interval_end", "proven_since").cast(pl.Datetime("ns", "UTC")))


def test_kyle_s_lambda_has_an_intercept():
    """Mid drifts by 1 whatever is traded: through the origin, the slope would be 22/14."""
    frame = intervals([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert cb.add_impact_features(frame, "kyle_lambda_3s").collect()["kyle_lambda_3s"][-1] == 1.0


def test_kyle_s_t_is_by_the_standard_error_and_not_by_the_variance():
    names = ["kyle_lambda_4s", "kyle_lambda_se_4s", "kyle_lambda_t_4s", "kyle_lambda_r2_4s"]
    frame = intervals([1.0, 1.0, 3.0, 3.0], [1.0, 2.0, 3.0, 4.0])
    slope, se, t, r2 = cb.add_impact_features(frame, names).collect().row(-1)[-4:]
    # Sxx = 5, Sxy = 4, Syy = 4: slope 0.8, residuals 0.8, their variance 0.8 / 2
    assert (slope, se) == (pytest.approx(0.8), pytest.approx(math.sqrt(0.4 / 5)))
    assert t == pytest.approx(0.8 / math.sqrt(0.08))
    assert r2 == pytest.approx(0.8)


def test_roll_s_spread_of_a_trend_is_none():
    """Prices that go on rising have a covariance above 0: no root of its absolute value is taken."""
    rising = [100.0, 101.0, 103.0, 106.0, 110.0, 115.0]
    trades = numbered([trade(k, price, 1, "buy") for k, price in enumerate(rising)])
    got = cb.add_trade_features(trades, "roll_spread_5s").collect()
    assert got["roll_spread_5s"][-1] is None
    bouncing = numbered([trade(k, 100.0 + k % 2, 1, "buy") for k in range(6)])
    assert cb.add_trade_features(bouncing, "roll_spread_5s").collect()["roll_spread_5s"][-1] > 1.0


def test_a_level_that_is_missing_is_no_price_of_0():
    thin = row(0) | dict.fromkeys(("bid_price_2", "bid_size_2"))
    got = of_book([thin], "vamp_2", "bid_slope_2", "center_of_gravity_bps_2", "bid_depth_notional_2")
    vamp, slope, gravity, notional = got.row(0)[-4:]
    ask = (101 * 3 + 102 * 7) / 10
    assert vamp == pytest.approx((99 * 10 + ask * 5) / 15)
    assert slope is None
    assert gravity == pytest.approx(100 * ((99 * 5 + 101 * 3 + 102 * 7) / 15 - 100))
    assert notional == 99 * 5


@pytest.mark.parametrize(
    "told", [{"proven_since": NOON + 9 * SECOND}, {"book_state": "unproven", "proven_since": None}]
)
def test_features_do_not_run_across_a_reconnect(told: Row):
    rows = [row(k, 99 + k, 101 + k) for k in range(9)]
    later = [row(9, 500, 502, **told)]
    behind = [row(k, 500, 502, proven_since=NOON + 9 * SECOND, connection=2) for k in range(10, 13)]
    names = ["ofi", "log_return", "return_2s", "realized_variance_2s", "spread_twa_2s"]
    got = of_book([*rows, *later, *behind], *names)
    assert got["log_return"].abs().max() < 0.011  # the jump from 108 to 501 is no return
    assert got["realized_variance_2s"].max() < 3e-4
    assert got["return_2s"].to_list()[9:11] == [None, None]
    restarted = 11 if "book_state" not in told else 12
    assert got["return_2s"].to_list()[restarted:] == [0.0] * (13 - restarted)


def test_the_maker_s_side_is_not_the_aggressor_s():
    """A buyer pays the ask; the exchange sends the maker's side, which is sell."""
    trades = numbered([trade(1, 101, 1, "buy"), trade(2, 99, 1, "sell")])
    quoted = cb.join_quotes(trades, book_of([row(0)]))
    got = cb.add_trade_features(quoted, ["signed_size", "effective_spread_bps", "lee_ready"]).collect()
    assert got["signed_size"].to_list() == [1.0, -1.0]
    assert got["effective_spread_bps"].to_list() == [200.0, 200.0]  # a cost for both
    assert got["lee_ready"].to_list() == [1, -1]
    assert cb.side_audit(quoted).collect()["agreement"].item() == 1.0


def test_a_quote_is_not_of_before_a_gap():
    rows = [row(0), row(1, book_state="unproven", proven_since=None), row(5, proven_since=NOON + 5 * SECOND)]
    trades = numbered([trade(k, 101, 1, "buy") for k in (0.5, 2, 6)])
    assert cb.join_quotes(trades, book_of(rows)).collect()["mid"].to_list() == [100.0, None, 100.0]


def test_a_crossed_row_is_no_quote_and_ends_a_run():
    rows = [row(0), row(1, 103, 101, book_state="crossed"), row(2), row(3)]
    trades = numbered([trade(t, 101, 1, "buy") for t in (0.5, 1.5, 2.5)])
    for clock in ("exchange", "receive"):
        quoted = cb.join_quotes(trades, book_of(rows), clock=clock).collect()
        assert quoted["mid"].to_list() == [100.0, None, 100.0]
    assert of_book(rows, "mid", "ofi")["ofi"].to_list() == [None, None, None, 0.0]
    assert of_book(rows, "mid")["mid"].to_list() == [100.0, None, 100.0, 100.0]
