"""Integrated order flow imbalance: the oracle's weights, applied to other rows."""

from __future__ import annotations

import random

import feature_flows as flows
import polars as pl
import pytest
import tiers
from hypothesis import given
from hypothesis import strategies as st
from oracles import features as feature_oracle
from oracles import labels as oracle

from cbtools.errors import ConfigError
from cbtools.features.integrated import FEATURE, IntegratedOfi

LEVELS = 3
FLOWS = [f"ofi_{k}" for k in range(1, LEVELS + 1)]


def draw(dice: random.Random, n: int) -> tuple[list[flows.Row], pl.DataFrame]:
    """Draw rows of one product, with the oracle's order flow."""
    rows = flows.book(dice, n, LEVELS, products=["X"], faults=dice.choice([0.0, 0.1]))
    added = feature_oracle.book_features(rows, FLOWS)
    told = [row | more for row, more in zip(rows, added, strict=True)]
    ofis = [pl.Series(name, [row[name] for row in told], dtype=pl.Float64) for name in FLOWS]
    return told, flows.frame_of(rows, "book").with_columns(ofis)


@given(st.randoms(use_true_random=False))
@tiers.examples(10, full=60)
def test_it_is_the_oracle_s(dice):
    levels = dice.randint(1, LEVELS)
    rows, frame = draw(dice, dice.choice([3, 100]))
    ofis = [[row[name] for name in FLOWS[:levels]] for row in rows]
    known = [one for one in ofis if None not in one]
    if len(known) < 2 or all(one == known[0] for one in known):
        with pytest.raises(ConfigError, match=r"rows have ofi_1|does not vary"):
            IntegratedOfi.fit(frame, levels)
        return
    got = IntegratedOfi.fit(frame.lazy(), levels)
    expected = oracle.integrated_weights(ofis)
    assert got.mean_depth == pytest.approx(oracle.mean_depth(rows, levels), rel=1e-12)
    assert got.share == pytest.approx(expected["share"], rel=1e-9)
    assert sum(map(abs, got.weights)) == pytest.approx(1.0)
    if got.share > 0.6 and abs(sum(got.weights)) > 1e-3:  # else two components may be alike, or signs
        assert got.weights == pytest.approx(expected["weights"], rel=1e-6, abs=1e-6)
    largest = max(abs(one) for row in known for one in row)
    integrated = frame.select(got.apply())["integrated_ofi"].to_list()
    for value, row in zip(integrated, ofis, strict=True):
        other = oracle.integrated_ofi(row, got.weights, got.mean_depth)
        assert value == (other if other is None else pytest.approx(other, abs=1e-12 * largest))


def test_weights_of_one_line():
    frame = pl.DataFrame(
        {
            "ofi_1": [1.0, -1.0, 3.0, None, 5.0],
            "ofi_2": [-3.0, 3.0, -9.0, 5.0, None],
            **dict.fromkeys(("bid_size_1", "ask_size_1", "bid_size_2"), [2.0] * 5),
            "ask_size_2": [4.0, None, None, None, None],
            "book_state": ["ok"] * 5,
        }
    )
    got = IntegratedOfi.fit(frame, levels=2)
    assert got.weights == pytest.approx((-0.25, 0.75))
    assert got.share == pytest.approx(1.0)
    assert got.mean_depth == pytest.approx((5 * 2 + 3) / 6)
    assert frame.select(got.apply()).to_series().null_count() == 2


def test_the_catalogue_has_it():
    assert FEATURE.read("integrated_ofi").parameters == {}
    assert not FEATURE.looks_ahead


def sample(n: int = 3) -> pl.DataFrame:
    sizes = dict.fromkeys(("bid_size_1", "ask_size_1"), [1.0] * n)
    return pl.DataFrame({"ofi_1": [float(k) for k in range(n)], **sizes, "book_state": ["ok"] * n})


@pytest.mark.parametrize(
    ("frame", "levels", "message"),
    [
        (sample(), 0, "levels must be a whole number, 1 or more, not 0"),
        (sample(), 2, r"lacks ofi_2: add_book_features\(book, \[..., 'ofi_2'\]\) adds it"),
        (sample().drop("bid_size_1"), 1, "the book frame lacks the column bid_size_1"),
        (sample(1), 1, "only 1 rows have ofi_1: give a longer sample"),
        (sample().with_columns(ofi_1=2.0), 1, "does not vary"),
        (sample().with_columns(book_state=pl.lit("crossed")), 1, "no row of the sample is ok"),
        ("frame", 1, "must be a Polars frame"),
    ],
)
def test_what_cannot_be_meant(frame, levels, message):
    with pytest.raises(ConfigError, match=message):
        IntegratedOfi.fit(frame, levels)
