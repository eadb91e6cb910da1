"""Features by their names: what is asked for is added, lazily; what cannot be meant is refused at once."""

from __future__ import annotations

import doctest
import math
import random
from typing import Any

import feature_flows
import laws
import numpy as np
import polars as pl
import pytest
import tiers
from oracles import trades as oracle

import cbtools as cb
from cbtools import lazy
from cbtools.features import catalogue
from cbtools.features.listing import EVERY
from cbtools.features.windows import Tape, Window, product, value

DEPTH = 4
CLOCKS = "clock must be 'exchange' .* or 'receive' .*"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return feature_flows.book(random.Random(3), 400, DEPTH, products=["BTC-USD", "ETH-USD"], faults=0.02)


@pytest.fixture(scope="module")
def book(rows) -> pl.DataFrame:
    return feature_flows.frame_of(rows, "book", DEPTH)


@pytest.fixture(scope="module")
def trades(rows) -> pl.DataFrame:
    return feature_flows.frame_of(feature_flows.trades(random.Random(4), rows, 0.0), "market_trades")


# --- names


def test_names_and_patterns_in_their_order_each_once(book):
    names = ["imbalance_[13]", "mid", "imbalance_1", "ofi_1s"]
    got = cb.add_book_features(book, names).collect_schema().names()[book.width :]
    assert got == ["imbalance_1", "imbalance_3", "mid", "ofi_1s"]


def test_one_name_is_enough(book):
    assert cb.add_book_features(book, "mid").collect_schema().names()[-1] == "mid"


def test_the_usual_set_fits_the_depth(book):
    got = cb.add_book_features(book).collect_schema().names()[book.width :]
    assert {"mid", "imbalance_3", "bid_depth_4", "ofi", "ofi_4", "log_return"} <= {*got}
    assert not {"imbalance_5", "ofi_5", "bid_depth_10"} & {*got}
    one = cb.add_book_features(book.select(pl.all().exclude("^(bid|ask)_(price|size)_[234]$")))
    assert "bid_slope_1" not in one.collect_schema()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("imblance_5", "unknown book feature 'imblance_5': did you mean 'imbalance_5'"),
        (["mid", "spread_bp"], "did you mean 'spread_bps'"),
        ("ofi_5x", "unknown book feature 'ofi_5x'"),
        ("nothing_*", r"no book feature fits the pattern 'nothing_\*'.*: mid, "),
        ("imbalance_0", r"k of imbalance_\{k\} must be 1 or more"),
        ("two_scale_variance_1m_1", "K of two_scale_variance.* must be 2 or more"),
        ("sweep_buy_0_bps", "notional of .* must be above 0"),
        ("ofi_0s", "the time span '0s' must be longer than nothing"),
        (
            "imbalance_9",
            r"imbalance_9 needs 9 levels of a side, and the frame has 4: rebuild_book\(..., depth=9\)",
        ),
        ("ofi_5", "ofi_5 needs 5 levels"),
        ("bid_depth_5bps", "bid_depth_5bps is not in the frame; it is made by: .*rebuild_book"),
        ("integrated_ofi", r"integrated_ofi is not in the frame; it is made by: .*IntegratedOfi"),
        ("label_return_5s", "unknown book feature 'label_return_5s'"),
        (5, "features must be names"),
        ([5], "a feature is named by a text"),
        ({"mid": 1}, "features must be names"),
    ],
)
def test_a_name_that_cannot_be_meant(book, names, said):
    with pytest.raises(cb.ConfigError, match=said):
        cb.add_book_features(book, names)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda b, t: cb.add_book_features("book", "mid"), "book must be a Polars frame, not 'book'"),
        (
            lambda b, t: cb.add_book_features(b, "ofi_1s", clock="time"),
            "unknown clock of the book frame 'time'",
        ),
        (lambda b, t: cb.add_book_features(b, "mid", start=3), "start must be a BookState, not 3"),
        (lambda b, t: cb.add_book_features(t), "the frame shows no levels"),
        (lambda b, t: cb.add_book_features(b.drop("proven_since"), "ofi"), "needs the column proven_since"),
        (
            lambda b, t: cb.add_trade_features(t, "lee_ready"),
            "lee_ready needs the column mid, which the frame lacks: join_quotes adds it",
        ),
        (lambda b, t: cb.add_trade_features(t, "vwap_5s", holes="no"), "unknown value of holes 'no'"),
        (lambda b, t: cb.add_trade_features(t, "tick_rule", at=b), "tick_rule belongs to a trade"),
        (lambda b, t: cb.add_trade_features(t, "roll_spread_5s", at=b), "roll_spread_5s belongs to a trade"),
        (
            lambda b, t: cb.add_trade_features(t, "vwap_5s", at=b.drop("product_id")),
            "lacks the column product_id",
        ),
        (lambda b, t: cb.add_impact_features(b, "kyle_lambda_5s"), "kyle_lambda_5s needs the column mid"),
        (lambda b, t: cb.join_quotes(t, b, tolerance="5"), "'5' is no time span"),
        (lambda b, t: cb.join_quotes(t, b, clock="x"), f"{CLOCKS}, not 'x'"),
        (lambda b, t: cb.join_quotes(t, b, clock="capture_time"), f"{CLOCKS}, not 'capture_time'"),
        (lambda b, t: cb.side_audit(cb.join_quotes(t, b), clock="trade_time"), f"{CLOCKS}, not 'trade_time'"),
        (lambda b, t: cb.impact_intervals(t, b, clock=None), f"{CLOCKS}, not None"),
        (
            lambda b, t: cb.add_trade_features(t, "vwap_5s", clock="server_time"),
            f"{CLOCKS}, not 'server_time'",
        ),
        (lambda b, t: cb.features.vwap(t, "5s", clock="capture_time"), f"{CLOCKS}, not 'capture_time'"),
        (
            lambda b, t: cb.add_trade_features(t, "vwap_5s", at=b, at_clock="server_time"),
            "at_clock='server_time' goes with clock='receive': .* needs two times",
        ),
        (lambda b, t: cb.add_trade_features(t, "vwap_5s", at_clock="server_time"), "there is no at"),
        (lambda b, t: cb.add_trade_features(t.drop("trade_time"), "vwap_5s"), "lacks the column trade_time"),
        (
            lambda b, t: cb.add_trade_features(t, "vwap_5s", at=b.drop("capture_time")),
            "unknown clock of the at frame 'capture_time'",
        ),
        (
            lambda b, t: cb.join_quotes(t.drop("capture_time"), b),
            "market_trades frame lacks the column capture",
        ),
        (lambda b, t: cb.join_quotes(t, b.drop("server_time")), "book frame lacks the column server_time"),
        (lambda b, t: cb.join_quotes(b, t), "lacks the column is_snapshot"),
        (lambda b, t: cb.side_audit(t), "lacks the column mid"),
        (lambda b, t: cb.impact_intervals(t, b, every="0s"), "longer than nothing"),
        (lambda b, t: cb.regress(b, "nothing", "n_bids"), "unknown column of the frame 'nothing'"),
        (lambda b, t: cb.regress(b, "n_bids", "book_state"), "book_state must be a column of numbers"),
        (lambda b, t: cb.features.ofi_w(b, "5"), "unknown book feature 'ofi_5'"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_the_query_is_built(book, trades, call, said):
    with pytest.raises(cb.ConfigError, match=said):
        call(book, trades)


# --- lazy


def test_only_what_the_query_needs_is_asked_of_upstream(book):
    asked: list[list[str]] = []

    def frames(columns, predicate):
        asked.append(list(columns))
        yield book.select(columns)

    lazily = lazy.source(frames, book.schema, "SPY")
    cb.add_book_features(lazily, ["mid", "imbalance_4", "ofi_1s"]).select("mid").collect()
    assert asked == [["bid_price_1", "ask_price_1", "book_state"]]
    asked.clear()
    cb.add_book_features(lazily, ["mid", "ofi_1s"]).select("ofi_1s").collect()
    needed = {"product_id", "capture_time", "book_state", "proven_since"}
    touch = {f"{side}_{what}_1" for side in ("bid", "ask") for what in ("price", "size")}
    assert {*asked[0]} == needed | touch
    asked.clear()
    cb.add_book_features(lazily, "mid").select("line").collect()
    assert asked == [["line"]]


def test_a_filter_on_products_goes_upstream(book):
    seen: list[int] = []

    def frames(columns, predicate):
        frame = book if predicate is None else book.filter(predicate)
        seen.append(frame.height)
        yield frame.select(columns)

    lazily = lazy.source(frames, book.schema, "SPY")
    of_one = cb.add_book_features(lazily, "ofi_1s").filter(pl.col("product_id") == "ETH-USD").collect()
    expected = cb.add_book_features(book, "ofi_1s").filter(pl.col("product_id") == "ETH-USD").collect()
    laws.assert_same(of_one, expected, "ETH-USD")
    assert seen == [book.filter(product_id="ETH-USD").height]


def test_a_column_of_the_name_is_replaced(book):
    there = book.with_columns(mid=pl.lit("old"))
    got = cb.add_book_features(there, "mid").collect()
    assert got.columns == there.columns
    assert got["mid"].dtype == pl.Float64


def test_a_feature_of_a_feature_s_frame(book):
    once = cb.add_book_features(book, ["mid", "ofi_1s"])
    twice = cb.add_book_features(cb.add_book_features(book, "mid"), "ofi_1s")
    laws.assert_same(twice.collect(), once.collect(), "twice")


def test_nothing_asked_and_nothing_there(book):
    assert cb.add_book_features(book, []).collect().equals(book)
    empty = cb.add_book_features(book.clear(), ["mid", "ofi_1s"]).collect()
    assert empty.height == 0
    assert empty.columns[-2:] == ["mid", "ofi_1s"]


def test_a_frame_without_product_id_is_of_one_product(book):
    one = book.filter(product_id="BTC-USD")
    got = cb.add_book_features(one.drop("product_id"), ["ofi_1s", "mid"]).collect()
    laws.assert_same(got, cb.add_book_features(one, ["ofi_1s", "mid"]).drop("product_id").collect(), "one")


# --- the functions of the single features


NAMES = [name for name in vars(cb.features) if hasattr(vars(cb.features)[name], "feature")]


def test_every_computed_feature_has_its_function():
    found = {vars(cb.features)[name].feature.name for name in NAMES}
    computed = {f.name for f in EVERY if f.compute is not None and not f.looks_ahead}
    assert found == computed


@pytest.mark.parametrize("name", NAMES)
def test_a_function_gives_what_its_name_gives(book, trades, name):
    function = vars(cb.features)[name]
    feature = function.feature
    usual = feature.usual[0]
    values = list(catalogue.parameters_of(feature).values())
    if "k" in catalogue.parameters_of(feature):
        values[list(catalogue.parameters_of(feature)).index("k")] = 2
        usual = catalogue.named(feature, values).name
    quoted = cb.join_quotes(trades, book)
    intervals = cb.impact_intervals(trades, book, every="1s")
    frame, add = {
        "book": (book.lazy(), cb.add_book_features),
        "market_trades": (quoted, cb.add_trade_features),
        "intervals": (intervals, cb.add_impact_features),
        "bars": (cb.trade_bars(trades, "time", "1s"), cb.add_bar_features),
    }[feature.table]
    expected = add(frame, [usual]).select(usual).collect()
    if feature.of_one_row:
        levels = {"levels": DEPTH} if "sweep" in name else {}
        got = frame.select(function(*values, **levels)).collect()
    else:
        got = function(frame, *values).select(usual).collect()
    laws.assert_same(got, expected, name)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_its_docs_runs(name):
    function = vars(cb.features)[name]
    examples = doctest.DocTestParser().get_doctest(function.__doc__, {}, name, None, 0)
    assert len(examples.examples) > 2
    results = doctest.DocTestRunner().run(examples, out=lambda text: pytest.fail(text))
    assert results.failed == 0


def test_expressions_compose_with_polars(book):
    got = book.select((cb.features.imbalance(2) > 0).sum(), cb.features.mid().mean().alias("mean"))
    mid = cb.add_book_features(book, "mid").collect()["mid"]
    assert got["mean"].item() == pytest.approx(mid.mean())


# --- windows of trades at other rows


def test_windows_of_trades_at_the_rows_of_a_book(book, trades, rows):
    names = ["vwap_1s", "volume_5s", "trade_count_5s", "trade_imbalance_1s"]
    got = cb.add_trade_features(trades, names, at=book).collect()
    told = feature_flows.trades(random.Random(4), rows, 0.0)
    expected = oracle.trade_features_at(told, rows, names)
    assert got.columns == [*book.columns, *names]
    for name in names:
        for ours, of_row in zip(got[name], expected, strict=True):
            assert (ours is None) == (of_row[name] is None)
            assert ours is None or math.isclose(ours, of_row[name], rel_tol=1e-12, abs_tol=1e-15)
    assert got["vwap_1s"].count() > 20


def test_a_quote_may_be_too_old(book, trades):
    live = trades.filter(~pl.col("is_snapshot"))
    for tolerance, most in (("1ns", 1), ("500ms", 500_000_000)):
        age = pl.col("trade_time") - pl.col("quote_time")
        ages = cb.join_quotes(live, book, tolerance=tolerance).select(age.dt.total_nanoseconds().max())
        assert (ages.collect().item() or 0) <= most
    strict, loose = (cb.join_quotes(live, book, tolerance=t).collect()["mid"] for t in ("1ns", "1d"))
    assert strict.null_count() > loose.null_count()


# --- sums that do not drift


@pytest.mark.slow
@pytest.mark.more
def test_ten_million_rows_without_drift():
    """Large values come and go; what is left in the window is summed as if they had never been."""
    n = 10_000_000 if tiers.FULL else 300_000
    draw = np.random.default_rng(5)
    values = draw.normal(size=n) * 10.0 ** draw.integers(-6, 12, n)
    time = np.cumsum(draw.integers(0, 3, n))
    fresh = np.zeros(n, np.bool_)
    fresh[0] = True
    window = Window(2000, (value("x"), product("x", "x")))
    tape = Tape(["x"], [window])
    parts = [
        tape(time[k : k + 32768], [values[k : k + 32768]], fresh[k : k + 32768])[0]
        for k in range(0, n, 32768)
    ]
    total = [np.concatenate([part.total[m] for part in parts]) for m in range(2)]
    for i in [*draw.integers(5000, n, 300), n - 1]:
        inside = values[np.searchsorted(time, time[i] - 2000, side="right") : i + 1]
        assert math.isclose(total[0][i], math.fsum(inside), rel_tol=1e-12, abs_tol=1e-12 * abs(inside).max())
        assert math.isclose(total[1][i], math.fsum(inside**2), rel_tol=1e-12)


# --- the line through two columns


def test_regress_is_numpy_s_line(book):
    made = cb.add_book_features(book, ["ofi_1s", "return_1s"]).collect()
    got = cb.regress(made, "return_1s", "ofi_1s").collect()
    whole = made.drop_nulls(["ofi_1s", "return_1s"])
    assert got["product_id"].to_list() == whole["product_id"].unique(maintain_order=True).to_list()
    for told in got.iter_rows(named=True):
        known = whole.filter(product_id=told["product_id"])
        x, y = known["ofi_1s"].to_numpy(), known["return_1s"].to_numpy()
        slope, intercept = np.polyfit(x, y, 1)
        rest = y - intercept - slope * x
        se = math.sqrt(rest @ rest / (len(x) - 2) / ((x - x.mean()) @ (x - x.mean())))
        assert told["n"] == len(x)
        expected = (slope, intercept, se, slope / se, np.corrcoef(x, y)[0, 1] ** 2)
        assert [told[k] for k in ("slope", "intercept", "se", "t", "r2")] == pytest.approx(expected, rel=1e-7)


def test_regress_of_little_is_null():
    frame = pl.DataFrame({"x": [1.0, 2.0, None, float("nan")], "y": [1.0, 2.0, 3.0, 4.0]})
    assert cb.regress(frame, "y", "x").collect().rows() == [(2, None, None, None, None, None)]
    constant = pl.DataFrame({"x": [1.0, 1.0, 1.0], "y": [1, 2, 3]})
    assert cb.regress(constant, "y", "x").collect().rows() == [(3, None, None, None, None, None)]
