"""Bars of trades and of books: the oracle's, whatever the cut; and what is often got wrong, by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import bar_flows
import feature_flows
import laws
import polars as pl
import pytest
import tiers
from bar_flows import KINDS, SPANS, in_pieces, same_as_oracle, same_bars
from feature_flows import MS, NOON
from hypothesis import given
from hypothesis import strategies as st
from oracles import labels as book_oracle

import cbtools as cb
from cbtools.features import open_bars
from cbtools.features.bars import book_bars, trade_bars

Row = dict[str, Any]

each_kind = pytest.mark.parametrize("by", KINDS)
some = tiers.examples(5, full=60)


def drawn(dice: random.Random, by: str) -> tuple[list[Row], dict[str, Any]]:
    rows = bar_flows.trades(dice, dice.choice([1, 10, 60, 120]))
    return rows, bar_flows.options(dice, by, rows)


def made(frame: pl.DataFrame | pl.LazyFrame, **options: Any) -> pl.DataFrame:
    return trade_bars(frame, **options).collect()


def trade(number: int, price: float = 100.0, size: float = 1.0, **told: Any) -> Row:
    return {
        "product_id": "BTC-USD",
        "trade_id": number,
        "price": price,
        "size": size,
        "maker_side": "sell",
        "aggressor_side": "buy",
        "trade_time": NOON + number * 100 * MS,
        "is_snapshot": False,
        "server_time": None,
        "capture_time": NOON + number * 100 * MS + 1,
        "sequence_num": number,
        "connection": 1,
        "line": number,
    } | told


def bars_of(rows: Sequence[Row], by: str, size: Any, *names: str, **options: Any) -> list[tuple[Any, ...]]:
    return same_as_oracle(rows, by, size, **options).select(names).rows()


# --- laws


@each_kind
@given(st.randoms(use_true_random=False))
@some
def test_they_are_the_oracle_s(by: str, dice: random.Random):
    rows, options = drawn(dice, by)
    same_as_oracle(rows, **options)


@each_kind
@given(st.randoms(use_true_random=False))
@some
def test_any_cut_gives_the_same(by: str, dice: random.Random):
    """However the rows are cut into batches, and however often the output is full."""
    rows, options = drawn(dice, by)
    frame = bar_flows.frame(rows)
    whole = made(frame, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_bars, "_ROOM", dice.choice([2, 3, 10, 8192]))
        laws.assert_same(made(in_pieces(dice, frame), **options), whole, by)


@each_kind
@given(st.randoms(use_true_random=False))
@some
def test_products_do_not_mix(by: str, dice: random.Random):
    rows, options = drawn(dice, by)
    frame = bar_flows.frame(rows)
    whole = made(frame, **options)
    for product_id in {row["product_id"] for row in rows}:
        is_it = pl.col("product_id") == product_id
        laws.assert_same(made(frame.filter(is_it), **options), whole.filter(is_it), product_id)
        laws.assert_same(
            trade_bars(frame, **options).filter(is_it).collect(), whole.filter(is_it), product_id
        )


def closed(bars: pl.DataFrame) -> pl.DataFrame:
    """Leave the bars out that only the end of the rows has closed: they are each product's last."""
    is_open = ~pl.col("is_complete") & (pl.int_range(pl.len()) == pl.len() - 1).over("product_id")
    return bars.filter(~is_open)


@each_kind
@given(st.randoms(use_true_random=False))
@some
def test_the_first_bars_are_those_of_the_whole(by: str, dice: random.Random):
    rows, options = drawn(dice, by)
    frame = bar_flows.frame(rows)
    first = closed(made(frame.head(dice.randint(0, len(rows))), **options))
    laws.assert_same(first, made(frame, **options).head(first.height), by)


@each_kind
def test_columns_are_those_asked_for(by: str):
    dice = random.Random(1)
    rows, options = drawn(dice, by)
    lazy = trade_bars(bar_flows.frame(rows), **options)
    whole = lazy.collect()
    assert lazy.collect_schema() == whole.schema == open_bars.schema_of(open_bars.BARS)
    laws.assert_same(lazy.select("vwap", "bar").collect(), whole.select("vwap", "bar"), by)
    laws.assert_same(lazy.head(1).collect(), whole.head(1), by)


@each_kind
def test_without_trades_there_are_no_bars(by: str):
    assert made(bar_flows.frame([]), by=by, size="1s" if by == "time" else 1).height == 0


# --- what is often got wrong


def test_a_bar_does_not_open_with_the_last_trade_of_the_one_before():
    rows = [trade(number, price=100.0 + number) for number in range(1, 6)]
    names = ("open", "first_trade_id", "last_trade_id", "n_trades", "is_complete")
    expected = [(101.0, 1, 2, 2, True), (103.0, 3, 4, 2, True), (105.0, 5, 5, 1, False)]
    assert bars_of(rows, "volume", 2.0, *names) == expected
    assert bars_of(rows, "tick", 2, *names) == expected
    assert bars_of(rows, "volume_imbalance", 2.0, *names) == expected


def test_the_last_bar_is_given_out_as_not_complete():
    assert bars_of([trade(1)], "volume", 2.0, "volume", "is_complete") == [(1.0, False)]


def test_a_trade_that_ends_at_the_edge_leaves_no_bar_behind():
    assert bars_of([trade(1, size=4.0)], "volume", 2.0, "bar", "is_complete") == [(0, True), (1, True)]


def test_a_trade_is_split_at_the_edge():
    rows = [trade(1, size=1.5), trade(2, price=50.0, size=2.0)]
    names = ("volume", "notional", "vwap", "n_trades", "first_trade_id", "last_trade_id")
    assert bars_of(rows, "volume", 2.0, *names) == [
        (2.0, 175.0, 87.5, 2, 1, 2),
        (1.5, 75.0, 50.0, 1, 2, 2),
    ]
    assert bars_of(rows, "notional", 200.0, *names) == [
        (2.5, 200.0, 80.0, 2, 1, 2),
        (1.0, 50.0, 50.0, 1, 2, 2),
    ]


@pytest.mark.parametrize("size", [0.1, 1 / 3, 0.7, 12.3456789])
@pytest.mark.parametrize("by", ["volume", "notional"])
def test_a_complete_bar_is_exactly_full(by: str, size: float):
    rows = [trade(number, price=0.3 + number, size=0.1 * (number % 7)) for number in range(1, 80)]
    bars = same_as_oracle(rows, by, size)
    assert set(bars.filter("is_complete")[by]) == {size}


def test_one_trade_may_complete_more_bars_than_are_written_at_a_time():
    count = 3 * open_bars._ROOM + 1
    rows = [trade(1, size=0.5), trade(2, size=count + 0.25), trade(3, size=0.25)]
    bars = made(bar_flows.frame(rows), by="volume", size=1.0)
    assert bars["bar"].to_list() == list(range(count + 1))
    assert bars["is_complete"].all()
    assert bars["n_trades"].to_list() == [2, *[1] * (count - 1), 2]


def test_sums_do_not_drift():
    """0.1 is more than a tenth: ten of them are more than 1, and what is more is the next bar's."""
    rows = [trade(number, size=0.1) for number in range(1, 1001)]
    bars = same_as_oracle(rows, "volume", 1.0)
    assert bars["is_complete"].to_list() == [True] * 100 + [False]
    assert 0.0 < bars["volume"][-1] < 1e-12


@pytest.mark.parametrize(
    "told",
    [{"trade_id": 4}, {"connection": 2}, {"is_snapshot": True}],
    ids=["hole", "connection", "snapshot"],
)
def test_no_bar_spans_a_restart(told: Row):
    rows = [trade(1), trade(2), trade(3) | told]
    expected = [(0, 2, False), (1, 1, False)]
    for by, size in (
        ("tick", 10),
        ("volume", 10.0),
        ("notional", 1e4),
        ("time", "1m30s"),
        ("tick_runs", 10.0),
    ):
        assert bars_of(rows, by, size, "run", "n_trades", "is_complete") == expected


def test_holes_can_be_of_no_meaning():
    rows = [trade(1), trade(9)]
    assert bars_of(rows, "tick", 2, "n_trades", "is_complete", holes="ignore") == [(2, True)]


def test_a_trade_without_a_clock_goes_into_the_open_bar():
    late = NOON + 100_000 * MS
    rows = [trade(1), trade(2, trade_time=None, capture_time=late), trade(30)]
    bars = same_as_oracle(rows, "time", "1s")
    assert bars["n_trades"].to_list() == [2, 1]
    assert bars["last_time"].cast(pl.Int64)[0] == late  # received then, whenever it happened


def test_a_bar_of_trades_without_a_clock_has_no_start():
    rows = [trade(1, trade_time=None), trade(2, trade_time=None, capture_time=None), trade(3)]
    bars = same_as_oracle(rows, "time", "1s")
    assert bars["start"].is_null().to_list() == [True, False]
    assert bars["last_time"].is_null().to_list() == [True, False]


def test_a_learnt_threshold_is_met_exactly():
    """After bars of 5 trades with -3/5 and 3/5 each, b is -1/5 and T 5: one trade is enough, not two."""
    rows = [
        trade(number, aggressor_side={"b": "buy", "s": "sell"}[side])
        for number, side in enumerate("sbsss" + "bbsbb" + "b", start=1)
    ]
    names = ("n_trades", "is_complete")
    assert bars_of(rows, "tick_imbalance", 3, *names, adaptive=5) == [(5, True), (5, True), (1, True)]


def test_a_learnt_threshold_of_nothing_is_not_taken():
    """Two fifths of the way from -1/3 to 1/2 is 0, whatever is rounded: the threshold stays 2."""
    rows = [
        trade(number, aggressor_side={"b": "buy", "s": "sell"}[side])
        for number, side in enumerate("bsbsss" + "sbbb" + "b", start=1)
    ]
    names = ("n_trades", "is_complete")
    assert bars_of(rows, "tick_imbalance", 2, *names, adaptive=4) == [(6, True), (4, True), (1, False)]


def test_time_begins_anew_with_the_run():
    rows = [trade(20), trade(1, connection=2)]
    bars = same_as_oracle(rows, "time", "1s")
    assert bars["start"].cast(pl.Int64).to_list() == [NOON + 2000 * MS, NOON]


def test_a_learnt_threshold_outlives_a_restart():
    rows = [trade(1), trade(2), trade(3), trade(9), trade(10), trade(11), trade(12)]
    names = ("run", "n_trades", "is_complete")
    learnt = [(0, 3, True), (1, 3, True), (1, 1, False)]
    assert bars_of(rows, "volume_imbalance", 2.5, *names, adaptive=5) == learnt


# --- bad use


@pytest.mark.parametrize(
    ("by", "size", "options", "message"),
    [
        ("tikc", 1, {}, "did you mean 'tick'"),
        ("time", 60, {}, "time span, e.g. '1m', not 60"),
        ("time", "1x", {}, "'1x' is no time span"),
        ("tick", 1.5, {}, "whole number, 1 or more, not 1.5"),
        ("tick", 0, {}, "not 0"),
        ("tick", True, {}, "not True"),
        ("volume", 0.0, {}, "finite number above 0, not 0.0"),
        ("volume", float("nan"), {}, "not nan"),
        ("notional", float("inf"), {}, "not inf"),
        ("volume_runs", "1m", {}, "not '1m'"),
        ("volume", 1.0, {"adaptive": 5}, "adaptive=5 is for bars by imbalance or runs, not by volume"),
        ("tick_runs", 1.0, {"adaptive": 0}, "adaptive must be a whole number, 1 or more, not 0"),
        ("tick", 1, {"holes": "skip"}, "unknown value of holes 'skip'"),
        ("tick", 1, {"clock": "trade_tim"}, "did you mean 'trade_time'"),
    ],
)
def test_arguments_that_cannot_be_meant(by: Any, size: Any, options: Row, message: str):
    with pytest.raises(cb.ConfigError, match=message):
        trade_bars(bar_flows.frame([]), by, size, **options)


def test_frames_that_lack_something():
    with pytest.raises(cb.ConfigError, match="market_trades frame lacks the column aggressor_side"):
        trade_bars(bar_flows.frame([]).drop("aggressor_side"), "tick", 1)
    with pytest.raises(cb.ConfigError, match="must be a Polars frame"):
        trade_bars(None, "tick", 1)  # type: ignore[arg-type]
    with pytest.raises(cb.ConfigError, match="book frame lacks the column proven_since"):
        book_bars(feature_flows.frame_of([], "book", 1).drop("proven_since"))
    with pytest.raises(cb.ConfigError, match="'1' is no time span"):
        book_bars(feature_flows.frame_of([], "book", 1), every="1")


@pytest.mark.parametrize(
    "told", [{"price": None}, {"size": None}, {"price": float("nan")}, {"size": float("inf")}, {"size": -1.0}]
)
def test_values_that_cannot_be_summed(told: Row):
    with pytest.raises(cb.DatasetError, match=r"product_id BTC-USD, trade_id 2, .*: bars need finite prices"):
        made(bar_flows.frame([trade(1), trade(2) | told]), by="tick", size=1)


def test_a_trade_that_would_be_split_without_end():
    with pytest.raises(cb.ConfigError, match=r"trade_id 1, .* more than 2\*\*32 bars of 1e-10"):
        made(bar_flows.frame([trade(1)]), by="volume", size=1e-10)


# --- bars of the book


def book_drawn(dice: random.Random) -> tuple[list[Row], pl.DataFrame, dict[str, Any]]:
    depth = dice.choice([1, 3])
    rows = feature_flows.book(dice, dice.choice([1, 30, 150]), depth, faults=dice.choice([0.0, 0.1, 0.3]))
    clock = dice.choice(["capture_time", "capture_time", "server_time"])
    options = {"every": dice.choice(list(SPANS)), "clock": clock}
    return rows, feature_flows.frame_of(rows, "book", depth), options


@given(st.randoms(use_true_random=False))
@tiers.examples(10, full=60)
def test_bars_of_books_are_the_oracle_s(dice: random.Random):
    rows, frame, options = book_drawn(dice)
    expected = book_oracle.book_bars(rows, SPANS[options["every"]], options["clock"])
    same_bars(book_bars(frame, **options).collect(), expected)


def apart(dice: random.Random, frame: pl.DataFrame, options: dict[str, Any], whole: pl.DataFrame) -> None:
    del dice
    for product_id in frame["product_id"].unique():
        is_it = pl.col("product_id") == product_id
        alone = book_bars(frame.filter(is_it), **options).collect()
        laws.assert_same(alone, whole.filter(is_it), product_id)


def cut(dice: random.Random, frame: pl.DataFrame, options: dict[str, Any], whole: pl.DataFrame) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_bars, "_ROOM", dice.choice([1, 3, 8192]))
        laws.assert_same(book_bars(in_pieces(dice, frame), **options).collect(), whole, "in pieces")


def first(dice: random.Random, frame: pl.DataFrame, options: dict[str, Any], whole: pl.DataFrame) -> None:
    """Bars that are complete stay so (others may be open, and those that a restart closed look alike)."""
    begin = book_bars(frame.head(dice.randint(0, frame.height)), **options).collect().filter("is_complete")
    laws.assert_same(begin, whole.filter("is_complete").head(begin.height), "first")


@pytest.mark.parametrize("law", [apart, cut, first])
@given(st.randoms(use_true_random=False))
@tiers.examples(5, full=60)
def test_laws_of_bars_of_books(law: Callable[..., None], dice: random.Random):
    _, frame, options = book_drawn(dice)
    law(dice, frame, options, book_bars(frame, **options).collect())


def test_without_rows_there_are_no_bars_of_the_book():
    bars = book_bars(feature_flows.frame_of([], "book", 1))
    assert bars.collect_schema() == open_bars.schema_of(open_bars.BOOK_BARS)
    assert bars.collect().height == 0
