"""Every feature of the catalogue: the names it is tried with, what computes it, and what it is by the oracle.

One table behind the tests of the laws: a feature that is not in it fails a test, and so does one that is in
it and in no catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import feature_flows
import polars as pl
from oracles import bars as bar_oracle
from oracles import clocks as clock_oracle
from oracles import features as book_oracle
from oracles import labels as label_oracle
from oracles import trades as trade_oracle

import cbtools as cb

Row = dict[str, Any]
Frame = pl.LazyFrame | pl.DataFrame
Mirror = Literal["same", "negated", "swapped", ""]
SECOND = 10**9
DEPTH = 4


@dataclass(frozen=True)
class Case:
    """A feature, the names it is tried with, and what it does when the world is changed.

    ``price`` and ``size``: it is multiplied by c to this power where all prices, or all sizes, are multiplied
    by c; None where that is another question. ``mirror``: what it becomes where bids and asks, buys and sells
    change places. ``near``: the absolute difference from the oracle that rounding can make where the true
    value is nearly 0. ``vanishes``: below 0 it is null, so that rounding may do away with what is nearly 0.
    """

    feature: str
    names: tuple[str, ...]
    price: int | None = 0
    size: int | None = 0
    mirror: Mirror = ""
    near: float = 0.0
    vanishes: bool = False


BPS = 1e-11  # a distance from mid of 1 bps has an error of the price's last digit
PART = 1e-15

BOOK = (
    Case("mid", ("mid",), price=1, mirror="same"),
    Case("spread", ("spread",), price=1, mirror="same"),
    Case("spread_bps", ("spread_bps",), mirror="same", near=BPS),
    Case("microprice", ("microprice",), price=1),
    Case("microprice_dev_bps", ("microprice_dev_bps",), mirror="negated", near=BPS),
    Case("imbalance_{k}", ("imbalance_1", "imbalance_2", "imbalance_4"), mirror="negated", near=PART),
    Case("bid_depth_{k}", ("bid_depth_1", "bid_depth_4"), size=1, mirror="swapped"),
    Case("ask_depth_{k}", ("ask_depth_1", "ask_depth_4"), size=1, mirror="swapped"),
    Case("bid_depth_notional_{k}", ("bid_depth_notional_3",), price=1, size=1),
    Case("ask_depth_notional_{k}", ("ask_depth_notional_3",), price=1, size=1),
    Case("vamp_{k}", ("vamp_1", "vamp_4"), price=1),
    Case("sweep_buy_{notional}_bps", ("sweep_buy_300_bps", "sweep_buy_2500.5_bps"), None, None, near=BPS),
    Case("sweep_sell_{notional}_bps", ("sweep_sell_300_bps", "sweep_sell_2500.5_bps"), None, None, near=BPS),
    Case("bid_slope_{k}", ("bid_slope_2", "bid_slope_4"), size=1, mirror="swapped"),
    Case("ask_slope_{k}", ("ask_slope_2", "ask_slope_4"), size=1, mirror="swapped"),
    Case("bid_concentration_{k}", ("bid_concentration_4",), mirror="swapped"),
    Case("ask_concentration_{k}", ("ask_concentration_4",), mirror="swapped"),
    Case("center_of_gravity_bps_{k}", ("center_of_gravity_bps_4",), mirror="negated", near=BPS),
    Case(
        "smart_depth_imbalance_{k}_{decay}bps",
        ("smart_depth_imbalance_4_5bps", "smart_depth_imbalance_2_33.5bps"),
        mirror="negated",
        near=PART,
    ),
    Case("ofi", ("ofi",), size=1, mirror="negated"),
    Case("ofi_{k}", ("ofi_1", "ofi_2", "ofi_4"), size=1, mirror="negated"),
    Case("log_return", ("log_return",)),
    Case("ofi_{w}", ("ofi_1s", "ofi_1ns", "ofi_1m30s"), size=1, mirror="negated"),
    Case("ofi_{k}_{w}", ("ofi_1_1s", "ofi_3_250ms"), size=1, mirror="negated"),
    Case("return_{w}", ("return_1s", "return_5s"), near=1e-16),
    Case("realized_variance_{w}", ("realized_variance_1s", "realized_variance_5s")),
    Case("realized_volatility_{w}", ("realized_volatility_1s",)),
    Case("bipower_variation_{w}", ("bipower_variation_1s", "bipower_variation_5s")),
    Case("two_scale_variance_{w}_{K}", ("two_scale_variance_1s_2", "two_scale_variance_5s_4"), near=1e-18),
    Case("spread_twa_{w}", ("spread_twa_1s", "spread_twa_3s"), price=1, mirror="same"),
)

TRADES = (
    Case("notional", ("notional",), price=1, size=1, mirror="same"),
    Case("signed_size", ("signed_size",), size=1, mirror="negated"),
    Case("effective_spread_bps", ("effective_spread_bps",), near=BPS, mirror="negated"),
    Case("tick_rule", ("tick_rule",), mirror="same"),
    Case("lee_ready", ("lee_ready",), mirror="same"),
    Case("vwap_{w}", ("vwap_1s", "vwap_5s"), price=1, mirror="same"),
    Case("volume_{w}", ("volume_1s", "volume_250ms"), size=1, mirror="same"),
    Case("trade_count_{w}", ("trade_count_1s", "trade_count_10s"), mirror="same"),
    Case("trade_imbalance_{w}", ("trade_imbalance_1s", "trade_imbalance_5s"), mirror="negated", near=PART),
    Case("roll_spread_{w}", ("roll_spread_1s", "roll_spread_5s"), price=1, mirror="same"),
)

INTERVALS = (
    Case("kyle_lambda_{w}", ("kyle_lambda_5s", "kyle_lambda_20s"), 1, -1, "negated", 1e-16),
    Case("kyle_lambda_se_{w}", ("kyle_lambda_se_5s", "kyle_lambda_se_20s"), 1, -1, "same"),
    Case("kyle_lambda_t_{w}", ("kyle_lambda_t_5s", "kyle_lambda_t_20s"), 0, 0, "negated", 1e-12),
    Case("kyle_lambda_r2_{w}", ("kyle_lambda_r2_5s", "kyle_lambda_r2_20s"), 0, 0, "same", 1e-15),
    Case(
        "hasbrouck_lambda_{w}", ("hasbrouck_lambda_5s", "hasbrouck_lambda_20s"), None, None, "negated", 1e-16
    ),
    Case("amihud_{w}", ("amihud_5s", "amihud_20s"), -1, -1, "same"),
)


LEVEL_FLOW = tuple(
    Case(f"{what}_{side}_{{k}}", (f"{what}_{side}_1", f"{what}_{side}_2"), size=1, mirror="")
    for side in ("bid", "ask")
    for what in ("added", "executed", "cancelled", "unexplained")
)

BARS = (Case("corwin_schultz", ("corwin_schultz",), near=1e-11, vanishes=True),)
VPIN = (Case("vpin", ("vpin",), size=None, near=PART),)

LABELS = (
    Case("label_return_{h}", ("label_return_1s", "label_return_5s"), near=1e-16),
    Case("label_triple_barrier_{up}_{down}bps_{h}", ("label_triple_barrier_5_2.5bps_3s",)),
    Case("label_time_to_move_{x}bps", ("label_time_to_move_3bps",)),
)
TRADE_LABELS = (
    Case("label_realized_spread_{h}_bps", ("label_realized_spread_1s_bps",), near=BPS),
    Case("label_price_impact_{h}_bps", ("label_price_impact_1s_bps",), near=BPS),
)

JUDGED_ELSEWHERE = {
    "n_bids": "test_book_properties.py",
    "n_asks": "test_book_properties.py",
    "bid_depth_{x}bps": "test_book_properties.py",
    "ask_depth_{x}bps": "test_book_properties.py",
    "imbalance_{x}bps": "test_book_properties.py",
    "integrated_ofi": "features/test_integrated.py",
}
"""Features that are not added by their names, and the tests that compare them with their oracle."""


CLOSE = 1e-12


def differs(case: Case, got: float | None, expected: float | None) -> bool:
    if got is None or expected is None:
        either = expected if got is None else got
        return got is not expected and not (case.vanishes and either is not None and abs(either) <= case.near)
    return not math.isclose(got, expected, rel_tol=CLOSE, abs_tol=case.near)


def names_of(cases: Sequence[Case]) -> list[str]:
    return [name for case in cases for name in case.names]


def book_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    del trades
    return book_oracle.book_features(book, names)


def add_to_trades(book: Frame, trades: Frame, names: Sequence[str]) -> pl.LazyFrame:
    return cb.add_trade_features(cb.join_quotes(trades, book), names)


def trades_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    return trade_oracle.trade_features(trade_oracle.join_quotes(trades, book), names)


def add_to_intervals(book: Frame, trades: Frame, names: Sequence[str]) -> pl.LazyFrame:
    """Add them to intervals of receipt: by the exchange's clock an interval is known only after its end."""
    return cb.add_impact_features(cb.impact_intervals(trades, book, every="1s", clock="receive"), names)


def intervals_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    """Judge the regressions on the package's own intervals, which test_clock.py compares with the oracle's.

    A fit without residuals but rounding has no standard error, here and there.
    """
    frames = feature_flows.frame_of(trades, "market_trades"), feature_flows.frame_of(book, "book", DEPTH)
    intervals = rows_of(cb.impact_intervals(*frames, every="1s", clock="receive").collect())
    made = trade_oracle.impact_features(intervals, names, SECOND)
    for row in made:
        for name in [name for name in names if name.startswith(("kyle_lambda_se", "kyle_lambda_t"))]:
            r2 = row["kyle_lambda_r2_" + name.rpartition("_")[2]]
            if r2 is None or 1 - r2 < 2e-13:
                row[name] = None
    return made


def rows_of(frame: pl.DataFrame) -> list[Row]:
    """Give rows as the oracles take them, times in ns."""
    return frame.with_columns(pl.col(pl.Datetime("ns", "UTC")).cast(pl.Int64)).to_dicts()


def labels_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    del trades
    return label_oracle.labels(book, names)


def trade_labels_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    return trade_oracle.trade_labels(trade_oracle.join_quotes(trades, book), book, names)


def level_flow_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    del names
    return label_oracle.level_flow(by_receipt(book), by_receipt(trades), 2, DEPTH)


def by_receipt(rows: list[Row]) -> list[Row]:
    """Write the time of receipt into capture_time, which is the clock of that oracle."""
    times = clock_oracle.receive_times(rows)
    return [row | {"capture_time": time} for row, time in zip(rows, times, strict=True)]


def bars_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    del book, names
    return bar_oracle.corwin_schultz(bar_oracle.trade_bars(trades, "time", SECOND))


MOST = 20.0
"""A trade of a billion would fill as many buckets."""


def vpin_of(book: Frame, trades: Frame, names: Sequence[str]) -> pl.LazyFrame:
    del book, names
    return cb.vpin(trades.lazy().with_columns(pl.col("size").clip(upper_bound=MOST)), 2.5, n_buckets=3)


def vpin_by_oracle(book: list[Row], trades: list[Row], names: Sequence[str]) -> list[Row]:
    del book, names
    small = [row | {"size": min(row["size"], MOST)} for row in trades]
    return bar_oracle.vpin(small, 2.5, 3, "aggressor")


@dataclass(frozen=True)
class Family:
    """Features that are computed together.

    ``time`` is the column that says by when a row was known; without it (labels, which look ahead, and bars,
    whose rows are none of the input's) the laws of time are tested in the family's own tests.
    """

    name: str
    cases: tuple[Case, ...]
    ours: Callable[[Frame, Frame, Sequence[str]], pl.LazyFrame]
    oracle: Callable[[list[Row], list[Row], Sequence[str]], list[Row]]
    time: str = ""


FAMILIES = (
    Family("book", BOOK, lambda b, t, names: cb.add_book_features(b, names), book_by_oracle, "capture_time"),
    Family("market_trades", TRADES, add_to_trades, trades_by_oracle, "capture_time"),
    Family("intervals", INTERVALS, add_to_intervals, intervals_by_oracle, "interval_end"),
    Family(
        "level_flow",
        LEVEL_FLOW,
        lambda b, t, names: cb.add_level_flow(b, t, levels=2),
        level_flow_by_oracle,
        "capture_time",
    ),
    Family(
        "bars",
        BARS,
        lambda b, t, names: cb.add_bar_features(cb.trade_bars(t, "time", "1s"), names),
        bars_by_oracle,
    ),
    Family("vpin", VPIN, vpin_of, vpin_by_oracle),
    Family("labels", LABELS, lambda b, t, names: cb.add_labels(b, names), labels_by_oracle),
    Family(
        "trade_labels",
        TRADE_LABELS,
        lambda b, t, names: cb.add_trade_labels(cb.join_quotes(t, b), b, names),
        trade_labels_by_oracle,
    ),
)
