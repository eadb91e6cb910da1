"""VPIN and the spread of highs and lows: the oracle's, whatever the cut; and what is often got wrong."""

from __future__ import annotations

import math
import random
from typing import Any

import bar_flows
import laws
import polars as pl
import pytest
import tiers
from bar_flows import in_pieces
from hypothesis import given
from hypothesis import strategies as st
from oracles import bars as oracle

import cbtools as cb
from cbtools.features.bars import trade_bars
from cbtools.features.open_bars import BARS, schema_of
from cbtools.features.toxicity import VPIN, add_bar_features, vpin

Row = dict[str, Any]
CLOSE = 1e-12
TINY = 1e-40
"""The oracle's decimals round where two logarithms cancel."""

each_way = pytest.mark.parametrize("classify", ["aggressor", "bulk"])
some = tiers.examples(5, full=60)


def drawn(dice: random.Random) -> tuple[list[Row], dict[str, Any]]:
    rows = bar_flows.trades(dice, dice.choice([1, 20, 50]))
    options = {"bucket_volume": dice.choice([0.5, 1.0, 1 / 3, 2.5, 7.0]), "n_buckets": dice.choice([2, 3, 7])}
    return rows, options | {"holes": dice.choice(["restart", "ignore"])}


def same_as_oracle(rows: list[Row], **options: Any) -> pl.DataFrame:
    got = vpin(bar_flows.frame(rows), **options).collect()
    expected = oracle.vpin(rows, **options)
    bar_flows.same_bars(got, expected, near=CLOSE)
    return got


def buys(*sizes: float, price: float = 100.0, begin: int = 1) -> list[Row]:
    """Write trades down; a negative size is a sell."""
    return [
        {
            "product_id": "BTC-USD",
            "trade_id": number,
            "price": price,
            "size": abs(size),
            "maker_side": "sell" if size > 0 else "buy",
            "aggressor_side": "buy" if size > 0 else "sell",
            "trade_time": bar_flows.NOON + number,
            "is_snapshot": False,
            "server_time": None,
            "capture_time": bar_flows.NOON + number,
            "sequence_num": number,
            "connection": 1,
            "line": number,
        }
        for number, size in enumerate(sizes, start=begin)
    ]


# --- vpin


@pytest.mark.slow
@each_way
@given(st.randoms(use_true_random=False))
@some
def test_it_is_the_oracle_s(classify: str, dice: random.Random):
    rows, options = drawn(dice)
    same_as_oracle(rows, classify=classify, **options)


@each_way
@given(st.randoms(use_true_random=False))
@some
def test_any_cut_gives_the_same(classify: Any, dice: random.Random):
    rows, options = drawn(dice)
    frame = bar_flows.frame(rows)
    whole = vpin(frame, classify=classify, **options).collect()
    laws.assert_same(vpin(in_pieces(dice, frame), classify=classify, **options).collect(), whole, classify)


@each_way
@given(st.randoms(use_true_random=False))
@some
def test_products_do_not_mix(classify: Any, dice: random.Random):
    rows, options = drawn(dice)
    frame, options = bar_flows.frame(rows), options | {"classify": classify}
    whole = vpin(frame, **options).collect()
    for product_id in {row["product_id"] for row in rows}:
        is_it = pl.col("product_id") == product_id
        laws.assert_same(vpin(frame.filter(is_it), **options).collect(), whole.filter(is_it), product_id)
        laws.assert_same(vpin(frame, **options).filter(is_it).collect(), whole.filter(is_it), product_id)


@each_way
@given(st.randoms(use_true_random=False))
@some
def test_the_first_buckets_are_those_of_the_whole(classify: Any, dice: random.Random):
    rows, options = drawn(dice)
    frame, options = bar_flows.frame(rows), options | {"classify": classify}
    first = vpin(frame.head(dice.randint(0, len(rows))), **options).collect()
    laws.assert_same(first, vpin(frame, **options).collect().head(first.height), classify)


def test_a_split_takes_from_a_trade_once():
    """Were what fills a bucket taken from the trade twice, a buy of 3 would fill two buckets of 1."""
    assert same_as_oracle(buys(3.0), bucket_volume=1.0, n_buckets=1)["vpin"].to_list() == [1.0, 1.0, 1.0]


def test_it_is_of_what_aggressors_did():
    rows = buys(1.0, -1.0, 2.0, -1.5, 0.5)
    assert same_as_oracle(rows, bucket_volume=2.0, n_buckets=2)["vpin"].to_list() == [None, 0.5, 0.75]


def test_the_last_bucket_is_left_out_unless_it_is_full():
    assert same_as_oracle(buys(1.5), bucket_volume=1.0, n_buckets=1)["volume"].to_list() == [1.0]


@each_way
def test_it_begins_anew_with_the_run(classify: str):
    rows = [*buys(*[1.0] * 9), *buys(*[1.0] * 9, begin=11)]
    got = same_as_oracle(rows, bucket_volume=1.0, n_buckets=2, classify=classify)
    known = 1 if classify == "aggressor" else 3
    assert got["vpin"].is_null().to_list() == 2 * [*[True] * known, *[False] * (9 - known)]


def test_without_deviation_half_is_bought():
    rows = [row for k in range(6) for row in buys(1.0, price=0.1 + 0.1 * k, begin=k + 1)]
    same_as_oracle(rows, bucket_volume=1.0, n_buckets=2, classify="bulk")
    rows = [row for k in range(6) for row in buys(1.0, price=100.0 + k, begin=k + 1)]
    got = same_as_oracle(rows, bucket_volume=1.0, n_buckets=2, classify="bulk")
    assert got["vpin"].to_list() == [None, None, None, 0.0, 0.0, 0.0]


@each_way
def test_columns_are_those_asked_for(classify: Any):
    rows = bar_flows.trades(random.Random(1), 100)
    lazy = vpin(bar_flows.frame(rows), 0.5, n_buckets=2, classify=classify)
    whole = lazy.collect()
    assert lazy.collect_schema() == whole.schema == schema_of((*BARS, VPIN))
    for columns in (["vpin"], ["bar", "close"], ["vpin", "product_id"]):
        laws.assert_same(lazy.select(columns).collect(), whole.select(columns), str(columns))
    nothing = vpin(bar_flows.frame([]), 0.5, classify=classify)
    assert nothing.select("bar").collect().height == nothing.collect().height == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket_volume": 0}, "bucket_volume must be a finite number above 0, not 0"),
        ({"n_buckets": 0}, "n_buckets must be a whole number, 1 or more, not 0"),
        ({"n_buckets": 1, "classify": "bulk"}, "n_buckets must be 2 or more with classify='bulk'"),
        ({"classify": "bluk"}, "unknown value of classify 'bluk': did you mean 'bulk'"),
        ({"holes": "skip"}, "unknown value of holes 'skip'"),
        ({"clock": "never"}, "unknown clock of the market_trades frame 'never'"),
    ],
)
def test_arguments_that_cannot_be_meant(options: Row, message: str):
    with pytest.raises(cb.ConfigError, match=message):
        vpin(bar_flows.frame([]), **{"bucket_volume": 1.0, **options})


# --- the spread of highs and lows


def same_spreads(bars: pl.DataFrame) -> pl.DataFrame:
    got = add_bar_features(bars).collect()
    expected = [row["corwin_schultz"] for row in oracle.corwin_schultz(bars.rows(named=True))]
    for one, other in zip(got["corwin_schultz"], expected, strict=True):
        # where the bars' ranges and that of both cancel, the oracle has what its decimals round to
        if one == 0.0:
            assert other is None or other < TINY
        else:
            assert (one is None) == (other is None), (one, other)
            assert one is None or math.isclose(one, other, rel_tol=1e-9)
    return got


@given(st.randoms(use_true_random=False))
@some
def test_the_spread_is_the_oracle_s(dice: random.Random):
    rows = bar_flows.trades(dice, 100)
    frame = bar_flows.frame(rows)
    options = bar_flows.options(dice, dice.choice(["tick", "volume", "time"]), rows)
    bars = trade_bars(frame, **options).collect()
    whole = same_spreads(bars)
    lazily = add_bar_features(trade_bars(in_pieces(dice, frame), **options), "corwin_schultz").collect()
    laws.assert_same(lazily, whole, "in pieces")


def test_the_spread_of_two_bars_of_one_range_is_that_range():
    """Without volatility both bars go from bid to ask: the spread is (a - b) / m, by a hair."""
    rows = [row for k in range(4) for row in buys(1.0, price=100.0 + k % 2, begin=k + 1)]
    got = same_spreads(trade_bars(bar_flows.frame(rows), "tick", 2).collect())
    assert got["corwin_schultz"].to_list() == [None, pytest.approx(1 / 100.5, rel=1e-4)]


def test_no_spread_spans_a_restart_or_is_of_an_open_bar():
    rows = [row for k in (1, 2, 3, 4, 6, 7, 8, 9, 10) for row in buys(1.0, price=100.0 + k % 2, begin=k)]
    got = same_spreads(trade_bars(bar_flows.frame(rows), "tick", 2).collect())
    assert got["corwin_schultz"].is_null().to_list() == [True, False, True, False, True]


def test_features_of_bars_that_cannot_be_meant():
    bars = trade_bars(bar_flows.frame([]), "tick", 2)
    with pytest.raises(cb.ConfigError, match="did you mean 'corwin_schultz'"):
        add_bar_features(bars, "corwin_shultz")
    with pytest.raises(cb.ConfigError, match="corwin_schultz needs the column run, which the frame lacks"):
        add_bar_features(bars.drop("run"))
    with pytest.raises(cb.ConfigError, match="bars must be a Polars frame"):
        add_bar_features(None)  # type: ignore[arg-type]
