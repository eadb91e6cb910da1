"""Samples at regular times: the oracle's, however the rows are cut, and known at the time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import feature_flows as flows
import interpreted
import laws
import polars as pl
import pytest
import tiers
from hypothesis import given
from hypothesis import strategies as st
from oracles import labels as oracle

from cbtools import lazy
from cbtools._kernels import clocks as kernels
from cbtools.errors import ConfigError
from cbtools.features.clocks import sample_time

SPANS = {"250ms": 250 * flows.MS, "1s": 1000 * flows.MS, "7s": 7000 * flows.MS, "1d": 86_400_000 * flows.MS}
dices = st.randoms(use_true_random=False)
some = tiers.examples(5, full=60)


def draw(dice: random.Random) -> tuple[list[flows.Row], pl.DataFrame]:
    """Draw rows of a book or trades, maybe of one product whose name is not told."""
    rows = flows.book(dice, dice.choice([1, 3, 80]), 1, faults=dice.choice([0.0, 0.1, 0.4]))
    kind = dice.choice(["book", "book", "market_trades"])
    if kind == "market_trades":
        rows = flows.trades(dice, rows)
    if dice.random() < 0.2:
        rows = [{name: value for name, value in row.items() if name != "product_id"} for row in rows]
    return rows, flows.frame_of(rows, kind, 1)


def compare(dice: random.Random) -> None:
    rows, frame = draw(dice)
    every, clock = dice.choice(list(SPANS)), dice.choice(["capture_time", "capture_time", "server_time"])
    got = sample_time(frame, every, clock=clock).collect()
    expected = oracle.sampled(rows, SPANS[every], clock)
    if expected:
        assert list(got.columns) == list(expected[0])
    flows.same_as_oracle(got, expected, got.columns)


@given(dices)
@some
def test_it_is_the_oracle_s(dice):
    compare(dice)


@given(dices)
@some
def test_any_cut_gives_the_same(dice):
    _, frame = draw(dice)
    every = dice.choice(list(SPANS))
    whole = sample_time(frame, every).collect()
    laws.assert_same(sample_time(flows.in_pieces(dice, frame), every).collect(), whole, every)


@given(dices)
@some
def test_products_do_not_mix(dice):
    rows = flows.book(dice, dice.choice([1, 80]), 1)
    frame = flows.frame_of(rows, "book")
    whole = sample_time(frame).collect()
    for product_id in frame["product_id"].unique():
        alone = sample_time(frame.filter(product_id=product_id)).collect()
        laws.assert_same(whole.filter(product_id=product_id), alone, product_id)


@given(dices)
@some
def test_a_prefix_gives_out_the_first_ones(dice):
    """What is given out before the end is given out for good."""
    rows = flows.book(dice, dice.choice([1, 80]), 1)
    frame = flows.frame_of(rows, "book").with_row_index()
    first = frame.head(dice.randint(0, frame.height))
    last = first.group_by("product_id").agg(last=pl.col("capture_time").max())
    samples = sample_time(first).collect().join(last, on="product_id", maintain_order="left")
    given_out = samples.filter(pl.col("sample_time") < pl.col("last")).drop("last")
    whole = sample_time(frame).collect()
    laws.assert_same(whole.head(given_out.height), given_out, "prefix")


def test_every_column_is_kept_as_it_is():
    times = pl.Series([500, 1500, 4000]).cast(pl.Datetime("ms", "Europe/Berlin"))
    frame = pl.DataFrame(
        {
            "text": ["a", None, "c"],
            "at": times,
            "list": [[1], [], None],
            "pair": [{"x": 1, "y": "b"}, None, {"x": 3, "y": None}],
            "level": pl.Series(["low", "high", "low"], dtype=pl.Enum(["low", "high"])),
            "raw": [b"\x00", b"", None],
        }
    )
    got = sample_time(frame, "1s", clock="at").collect()
    assert got.schema == {
        "sample_time": pl.Datetime("ns", "Europe/Berlin"), **frame.schema,
        "staleness_ns": pl.Int64, "n_updates": pl.Int64,
    }  # fmt: skip
    assert got.select(frame.columns).equals(frame[[0, 1, 1, 2]])
    assert got["staleness_ns"].to_list() == [500 * flows.MS, 500 * flows.MS, 1500 * flows.MS, 0]
    assert got["n_updates"].to_list() == [1, 1, 0, 1]


def test_without_rows_or_times_there_are_no_samples():
    frame = flows.frame_of(flows.book(random.Random(1), 5, 1), "book")
    for none in (frame.clear(), frame.with_columns(capture_time=pl.lit(None, pl.Datetime("ns", "UTC")))):
        got = sample_time(none).collect()
        assert got.is_empty()
        assert got.schema == sample_time(none).collect_schema()


def test_only_what_the_query_needs_is_asked_of_upstream():
    frame = flows.frame_of(flows.book(random.Random(2), 50, 3, products=["X"]), "book")
    asked = []

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        asked.append((columns, None if predicate is None else str(predicate)))
        yield frame.select(columns)

    samples = sample_time(lazy.source(batches, frame.schema, "ROWS"), "1s")
    whole = sample_time(frame, "1s").collect()
    got = samples.select("sample_time", "bid_price_2").collect()
    laws.assert_same(got, whole.select("sample_time", "bid_price_2"), "projection")
    assert samples.select(pl.len()).collect().item() == whole.height
    assert samples.filter(pl.col("product_id") == "Y").collect().is_empty()
    assert asked[0] == (["product_id", "capture_time", "bid_price_2"], None)
    assert set(asked[1][0]) <= {"product_id", "capture_time"}
    assert "product_id" in asked[2][1]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"every": "1"}, "'1' is no time span"),
        ({}, {"clock": "capture_tim"}, "did you mean 'capture_time'"),
        ({}, {"clock": "product_id"}, "unknown clock of the sampled frame 'product_id'"),
        ({"n_updates": pl.lit(1)}, {}, "already has a column n_updates: rename it"),
    ],
)
def test_what_cannot_be_meant(change, options, message):
    frame = flows.frame_of([], "book", 1).with_columns(**change)
    with pytest.raises(ConfigError, match=message):
        sample_time(frame, **options)


def test_it_takes_a_frame():
    with pytest.raises(ConfigError, match="must be a Polars frame"):
        sample_time([1, 2])


@pytest.mark.ci
@pytest.mark.more
def test_interpreted():
    interpreted.run(__file__)


if __name__ == "__main__":
    assert not hasattr(kernels.due, "signatures"), "compiled"
    for seed in range(tiers.by_tier(10, 40, 40)):
        compare(random.Random(seed))
