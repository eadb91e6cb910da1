"""Real recordings, where they lie beside the checkout: what is known of real flow holds for the features."""

from __future__ import annotations

import math
from pathlib import Path

import cases
import polars as pl
import pytest
from oracles import features as book_oracle
from oracles import trades as trade_oracle

import cbtools as cb

REAL = Path(__file__).parents[2] / "shared" / "real"

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(
        not REAL.is_dir(), reason="the real recordings (shared/real beside the checkout) are not here"
    ),
]

BTCUSDT = sorted((REAL / "btcusdt").glob("*.ndjson.gz")) if REAL.is_dir() else []
COINBASE = REAL / "coinbase_2021" / "advanced"


@pytest.fixture(scope="module")
def book() -> pl.DataFrame:
    return cb.scan_raw(BTCUSDT, "level2").pipe(cb.rebuild_book).collect()


@pytest.fixture(scope="module")
def trades() -> pl.DataFrame:
    return cb.scan_raw(BTCUSDT, "market_trades").collect()


def test_the_aggressor_agrees_with_the_last_book_before_the_trade(book, trades):
    """By receipt at least 94 %; by the exchange's own clock more, since trades do not wait there."""
    total = pl.col("n_agree").sum() / pl.col("n_trades").sum()
    by_receipt = cb.side_audit(cb.join_quotes(trades, book, clock="receive"), clock="receive")
    assert by_receipt.select(total).collect().item() >= 0.94
    audit = cb.side_audit(cb.join_quotes(trades, book))
    assert audit.select(total).collect().item() >= 0.97
    assert audit.collect()["date"].n_unique() == 2
    assert audit.select(pl.col("n_trades").sum()).collect().item() == 19_903


@pytest.mark.parametrize(("span", "least", "n"), [("1s", 0.4, 649), ("10s", 0.5, 64)])
def test_order_flow_explains_what_mid_does(book, span, least, n):
    """The R² of mid changes on order flow imbalance, over windows that do not overlap (Cont et al. 2014)."""
    rows = book.pipe(cb.add_book_features, ["mid", f"ofi_{span}", f"return_{span}"])
    sampled = rows.pipe(cb.sample_time, span).with_columns(change=pl.col("mid").diff())
    for y in ("change", f"return_{span}"):
        (told,) = cb.regress(sampled, y, f"ofi_{span}").collect().iter_rows(named=True)
        assert told["r2"] > least
        assert told["slope"] > 0
        assert told["n"] == n


def test_kyle_s_lambda_is_that_of_the_regression(book, trades):
    """Over the whole recording, the window's lambda is the line's slope."""
    intervals = cb.impact_intervals(trades, book).collect()
    features = ["kyle_lambda_10m", "kyle_lambda_t_10m", "kyle_lambda_r2_10m"]
    got = cb.add_impact_features(intervals, features).collect().row(-1)[-3:]
    line = cb.regress(intervals.tail(600), "mid_change", "signed_volume").collect()
    assert got == pytest.approx(line.select("slope", "t", "r2").row(0), rel=1e-9)
    assert got[1] > 5


def differences(got: pl.DataFrame, expected, family: tuple[cases.Case, ...]) -> list[str]:
    return [
        f"{name}, row {place}: {value} and {row[name]}"
        for case in family
        for name in case.names
        for place, (value, row) in enumerate(zip(got[name], expected, strict=True))
        if (value is None) != (row[name] is None)
        or (value is not None and not math.isclose(value, row[name], rel_tol=1e-10, abs_tol=case.near * 10))
    ]


def test_coinbase_s_books_and_trades_are_the_oracle_s():
    """Ten products at once: decimal prices, of 1e-8 up."""
    book = cb.scan_raw(COINBASE, "level2").pipe(cb.rebuild_book, depth=4).collect()
    some = book.group_by("product_id", maintain_order=True).head(150)
    names = cases.names_of(cases.BOOK)
    got = cb.add_book_features(some, names).collect()
    assert differences(got, book_oracle.book_features(cases.rows_of(some), names), cases.BOOK) == []
    trades = cb.scan_raw(COINBASE, "market_trades").collect()
    quoted = cb.join_quotes(trades, book).collect()
    rows = trade_oracle.join_quotes(cases.rows_of(trades), cases.rows_of(book))
    assert cases.rows_of(quoted) == rows
    family = tuple(case for case in cases.TRADES if not case.feature.startswith("roll"))
    names = cases.names_of(family)
    got = cb.add_trade_features(quoted, names).collect()
    assert differences(got, trade_oracle.trade_features(rows, names), family) == []


def test_what_was_executed_is_what_was_traded(book, trades):
    """Executed and unexplained together are the trades at the price that was best."""
    flow = cb.add_level_flow(book, trades, levels=3, clock="exchange").collect()
    for side in ("bid", "ask"):
        executed, unexplained = (flow[f"{what}_{side}_1"].sum() for what in ("executed", "unexplained"))
        assert executed > 2 * unexplained
