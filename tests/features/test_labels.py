"""Labels: the oracles', of runs alone, and known as soon as a barrier is touched."""

from __future__ import annotations

import random

import feature_flows as flows
import interpreted
import laws
import numpy as np
import polars as pl
import pytest
import tiers
from hypothesis import given
from hypothesis import strategies as st
from oracles import labels as oracle
from oracles import trades as trade_oracle

from cbtools._kernels import labels as kernels
from cbtools.errors import ConfigError
from cbtools.features.catalogue import choose
from cbtools.features.labels import FEATURES, TRADE_FEATURES, add_labels, add_trade_labels

OF_BOOK = (
    *("label_return_250ms", "label_return_1s", "label_return_30s"),
    *("label_triple_barrier_20_20bps_1s", "label_triple_barrier_0.5_100bps_30s"),
    *("label_triple_barrier_100_50bps_5s", "label_triple_barrier_30.5_0.01bps_1ms"),
    *("label_time_to_move_1bps", "label_time_to_move_40bps", "label_time_to_move_312.5bps"),
)
OF_TRADES = (
    *("label_realized_spread_250ms_bps", "label_realized_spread_5s_bps"),
    *("label_price_impact_1s_bps", "label_price_impact_1m30s_bps", "label_price_impact_5s_bps"),
)
dices = st.randoms(use_true_random=False)
some = tiers.examples(5, full=60)


def draw(dice: random.Random, depth: int = 1) -> list[flows.Row]:
    return flows.book(dice, dice.choice([1, 3, 60]), depth, faults=dice.choice([0.0, 0.05, 0.3]))


def draw_trades(dice: random.Random, clock: str = "exchange") -> tuple[list[flows.Row], list[flows.Row]]:
    """Draw a book, and trades against it with their quotes."""
    book = draw(dice)
    trades = flows.trades(dice, book, faults=dice.choice([0.0, 0.1]))
    return book, trade_oracle.join_quotes(trades, book, dice.choice([None, 3000 * flows.MS]), clock)


def compare(dice: random.Random) -> None:
    rows = draw(dice)
    clock = dice.choice(["exchange", "receive"])
    got = add_labels(flows.frame_of(rows, "book"), OF_BOOK, clock=clock).collect()
    flows.same_as_oracle(got, oracle.labels(rows, OF_BOOK, clock), OF_BOOK)
    book, joined = draw_trades(dice, clock)
    frames = flows.frame_of(joined, "market_trades"), flows.frame_of(book, "book")
    if joined:
        got = add_trade_labels(*frames, OF_TRADES, clock=clock).collect()
        flows.same_as_oracle(got, trade_oracle.trade_labels(joined, book, OF_TRADES, clock), OF_TRADES)


@given(dices)
@some
def test_they_are_the_oracle_s(dice):
    compare(dice)


@given(dices)
@some
def test_any_cut_gives_the_same(dice):
    book, joined = draw_trades(dice)
    frame = flows.frame_of(book, "book")
    whole = add_labels(frame, OF_BOOK).collect()
    laws.assert_same(add_labels(flows.in_pieces(dice, frame), OF_BOOK).collect(), whole, "book")
    if joined:
        trades = flows.frame_of(joined, "market_trades")
        whole = add_trade_labels(trades, frame, OF_TRADES).collect()
        pieces = flows.in_pieces(dice, trades), flows.in_pieces(dice, frame)
        laws.assert_same(add_trade_labels(*pieces, OF_TRADES).collect(), whole, "trades")


@given(dices)
@some
def test_products_do_not_mix(dice):
    frame = flows.frame_of(draw(dice), "book")
    whole = add_labels(frame, OF_BOOK).collect()
    for product_id in frame["product_id"].unique():
        alone = frame.filter(product_id=product_id)
        laws.assert_same(
            add_labels(alone.drop("product_id"), OF_BOOK).collect(),
            whole.filter(product_id=product_id).drop("product_id"),
            product_id,
        )


@given(dices)
@some
def test_they_do_not_depend_on_the_unit_of_price(dice):
    frame = flows.frame_of(draw(dice), "book")
    scaled = frame.with_columns(pl.col("^.*_price_1$") * 2)
    columns = [pl.col(name) for name in OF_BOOK]
    expected = add_labels(frame, OF_BOOK).select(columns).collect()
    laws.assert_same(add_labels(scaled, OF_BOOK).select(columns).collect(), expected, "scaled")


@given(dices)
@some
def test_what_is_realized_and_the_impact_add_up_to_the_effective_spread(dice):
    book, joined = draw_trades(dice)
    names = ["label_realized_spread_1s_bps", "label_price_impact_1s_bps"]
    if not joined:
        return
    frame = flows.frame_of(joined, "market_trades")
    got = add_trade_labels(frame, flows.frame_of(book, "book"), names).drop_nulls(names).collect()
    direction = np.where(got["aggressor_side"] == "buy", 1.0, -1.0)
    effective = 2e4 * direction * (got["price"] - got["mid"]) / got["mid"]
    assert np.allclose(got[names[0]] + got[names[1]], effective, rtol=1e-9, atol=1e-9)


def test_columns_are_asked_for_by_the_query():
    frame = flows.frame_of(flows.book(random.Random(4), 40, 2), "book")
    labelled = add_labels(frame, ["label_return_1s", "label_time_to_move_*"])
    names = [
        "label_return_1s",
        "label_time_to_move_1bps",
        "label_time_to_move_5bps",
        "label_time_to_move_10bps",
    ]
    whole = labelled.collect()
    assert whole.columns == [*frame.columns, *names]
    assert whole.select(frame.columns).equals(frame)
    assert labelled.select(pl.len()).collect().item() == 40
    laws.assert_same(labelled.select(names[1]).collect(), whole.select(names[1]), "projection")
    laws.assert_same(labelled.select("line").collect(), whole.select("line"), "no label")
    only = labelled.filter(product_id="BTC-USD").collect()
    laws.assert_same(only, whole.filter(product_id="BTC-USD"), "predicate")
    assert add_labels(frame.clear(), names).collect().schema == whole.schema
    again = add_labels(whole, "label_return_1s").collect()
    laws.assert_same(again, whole, "added again")


def test_dtypes():
    frame = flows.frame_of(flows.book(random.Random(5), 40, 1), "book")
    names = ["label_return_1s", "label_triple_barrier_5_5bps_10s", "label_time_to_move_5bps"]
    assert add_labels(frame, names).collect().schema.dtypes()[-3:] == [pl.Float64, pl.Int8, pl.Int64]


@pytest.mark.parametrize("feature", [*FEATURES, *TRADE_FEATURES], ids=lambda feature: feature.name)
def test_they_say_that_they_look_ahead(feature):
    assert feature.looks_ahead
    assert feature.name.startswith("label_")
    assert [one.feature for one in choose(feature.usual, [feature], "label")] == [feature] * len(
        feature.usual
    )


@pytest.mark.parametrize(
    ("change", "labels", "clock", "message"),
    [
        ({}, "label_retrun_1s", "exchange", "did you mean 'label_return_1s'"),
        ({}, "label_return_0s", "exchange", "must be longer than nothing"),
        ({}, "label_time_to_move_0bps", "exchange", "x of label_time_to_move_{x}bps must be above 0"),
        (
            {},
            "label_return_1s",
            "server_time",
            "clock must be 'exchange' .* or 'receive' .*, not 'server_time'",
        ),
        ({"proven_since"}, "label_return_1s", "exchange", "lacks the column proven_since"),
        ({"server_time"}, "label_return_1s", "exchange", "lacks the column server_time"),
        ({"capture_time"}, "label_return_1s", "receive", "lacks the column capture_time"),
    ],
)
def test_what_cannot_be_meant(change, labels, clock, message):
    with pytest.raises(ConfigError, match=message):
        add_labels(flows.frame_of([], "book", 1).drop(change), labels, clock=clock)


def test_trades_need_quotes():
    trades, book = flows.frame_of([], "market_trades"), flows.frame_of([], "book", 1)
    label = "label_price_impact_1s_bps"
    with pytest.raises(ConfigError, match=r"lacks the column mid: join_quotes\(trades, book\) adds it"):
        add_trade_labels(trades, book, label)
    quoted = trades.with_columns(mid=pl.lit(None, pl.Float64))
    assert add_trade_labels(quoted, book, label).collect().is_empty()
    with pytest.raises(ConfigError, match="the book frame lacks the column ask_price_1"):
        add_trade_labels(quoted, book.drop("ask_price_1"), label)
    with pytest.raises(ConfigError, match=r"clock must be 'exchange' .* or 'receive' .*, not 'trade_time'"):
        add_trade_labels(quoted, book, label, clock="trade_time")
    with pytest.raises(ConfigError, match="the market_trades frame lacks the column trade_time"):
        add_trade_labels(quoted.drop("trade_time"), book, label)
    with pytest.raises(ConfigError, match="did you mean 'label_price_impact_1m_bps'"):
        add_trade_labels(quoted, book, "label_price_impact_bps")


@pytest.mark.ci
@pytest.mark.more
def test_interpreted():
    interpreted.run(__file__)


if __name__ == "__main__":
    assert not hasattr(kernels.later, "signatures"), "compiled"
    for seed in range(tiers.by_tier(10, 40, 40)):
        compare(random.Random(seed))
