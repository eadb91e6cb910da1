"""What is drawn of correlations: those of the rows that both columns have, nothing where there is none."""

from __future__ import annotations

import math
import re

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib import colors

import cbtools as cb


def columns_of(n: int, k: int = 4, *, seed: int = 1) -> pl.DataFrame:
    draws = np.random.default_rng(seed)
    common = draws.normal(size=n)
    return pl.DataFrame({f"c{i}": common * (i - 1) + draws.standard_t(3, n) for i in range(k)})


def drawn(ax) -> np.ndarray:
    (image,) = ax.images
    return np.ma.filled(np.ma.masked_invalid(image.get_array()), np.nan)


def plain(frame: pl.DataFrame, method: str) -> np.ndarray:
    """Correlate pair by pair, by Polars, over the rows in which both are finite."""
    found = np.full((frame.width,) * 2, np.nan)
    for i, a in enumerate(frame.columns):
        for j, b in enumerate(frame.columns):
            both = frame.select(a=pl.col(a).cast(pl.Float64), b=pl.col(b).cast(pl.Float64))
            both = both.filter(pl.all_horizontal(pl.all().is_finite()))
            if both.height >= 3 and both["a"].n_unique() > 1 and both["b"].n_unique() > 1:
                found[i, j] = both.select(pl.corr("a", "b", method=method)).item()
    return found


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_a_cell_is_the_correlation_of_its_columns(method):
    frame = columns_of(300)
    found = drawn(cb.plot.correlations(frame, method=method))
    np.testing.assert_allclose(found, plain(frame, method), atol=1e-12)
    assert found[0, 1] != found[0, 2] != found[0, 3]


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_equal_values_share_their_rank_and_rows_without_both_are_left_out(method):
    frame = columns_of(200, 5).with_columns(pl.col("c1", "c2").round(0), c3=(pl.col("c3") * 2).cast(pl.Int64))
    row = pl.int_range(200)
    frame = frame.with_columns(
        c1=pl.when(row % 3 > 0).then("c1"),
        c2=pl.when(row % 5 > 0).then("c2").otherwise(float("nan")),
        c4=pl.when(row > 50).then("c4").otherwise(float("inf")),
    )
    np.testing.assert_allclose(
        drawn(cb.plot.correlations(frame, method=method)), plain(frame, method), atol=1e-12
    )


def test_ranks_are_taken_anew_in_the_rows_that_both_have():
    frame = pl.DataFrame(
        {"a": [1.0, 2.0, 3.0, 4.0, 9.0], "b": [1.0, None, 2.0, 3.0, -5.0], "c": [4, 1, 3, None, 2]}
    )
    np.testing.assert_allclose(drawn(cb.plot.correlations(frame)), plain(frame, "spearman"), atol=1e-12)


def test_large_and_tiny_numbers_do_not_overflow():
    frame = pl.DataFrame({"a": [1e200, 2e200, 4e200], "b": [1e-200, 3e-200, 4e-200]})
    found = drawn(cb.plot.correlations(frame, method="pearson"))
    np.testing.assert_allclose(found, np.corrcoef([1, 2, 4], [1, 3, 4]), rtol=1e-12)


def test_the_columns_are_in_the_order_given():
    frame = columns_of(50)
    ax = cb.plot.correlations(frame, ["c2", "c0", "c3"])
    np.testing.assert_allclose(drawn(ax), plain(frame.select("c2", "c0", "c3"), "spearman"), atol=1e-12)
    for axis in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [text.get_text() for text in axis] == ["c2", "c0", "c3"]


@pytest.mark.parametrize("constant", [0.1, 0.0, 1e9 + 0.3])
@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_a_constant_column_is_left_empty_and_told(constant, method):
    frame = columns_of(50, 3).with_columns(c1=pl.lit(constant))
    ax = cb.plot.correlations(frame, method=method)
    found = drawn(ax)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[np.ix_([0, 2], [0, 2])]).all()
    assert {text.get_position() for text in ax.texts} == {(0, 0), (2, 0), (0, 2), (2, 2)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["constant, or fewer than 3 rows"]
    (below,) = ax.patches
    assert below.get_hatch()
    assert below.get_zorder() < ax.images[0].get_zorder()
    assert ax.images[0].get_cmap()(np.nan)[3] == 0.0


def test_a_column_constant_where_the_other_is_known_is_empty_there_alone():
    frame = pl.DataFrame({"a": [1.0, 1.0, 1.0, 2.0], "b": [1.0, 2.0, 3.0, None], "c": [1.0, 2.0, 4.0, 3.0]})
    assert np.isnan(drawn(cb.plot.correlations(frame))).tolist() == [
        [False, True, False], [True, False, False], [False, False, False]
    ]  # fmt: skip


def test_two_rows_are_too_few():
    frame = pl.DataFrame({"a": [1.0, 2.0, None, 4.0], "b": [None, 2.0, 3.0, 4.0]})
    found = drawn(cb.plot.correlations(frame))
    assert np.isnan(found).tolist() == [[False, True], [True, False]]


def test_where_all_is_defined_nothing_is_hatched():
    ax = cb.plot.correlations(columns_of(50))
    assert ax.get_legend() is None
    assert not ax.patches


def test_the_colours_diverge_from_0_and_the_bar_tells_what_they_are():
    ax = cb.plot.correlations(columns_of(50))
    (image,) = ax.images
    assert image.get_clim() == (-1, 1)
    assert image.colorbar.ax.get_ylabel() == "rank correlation"
    middle, low, high = (np.array(image.get_cmap()(at)[:3]) for at in (0.5, 0.0, 1.0))
    assert middle.min() > 0.95
    assert low[0] > low[2]  # red
    assert high[0] < high[2]  # blue
    pearson = cb.plot.correlations(columns_of(50), method="pearson")
    assert pearson.images[0].colorbar.ax.get_ylabel() == "correlation"


def test_up_to_15_columns_have_numbers():
    ax = cb.plot.correlations(columns_of(100, 15))
    found = drawn(ax)
    assert len(ax.texts) == 15 * 15
    for text in ax.texts:
        x, y = text.get_position()
        assert text.get_text() == (
            "1" if x == y else f"{found[y, x]:.2f}".replace("-0.00", "0.00").replace("-", "−")
        )
        dark = abs(found[y, x]) > 0.6
        assert colors.to_hex(text.get_color()) == ("#ffffff" if dark else "#000000")
    assert not cb.plot.correlations(columns_of(100, 16)).texts


def test_the_title_asks():
    frame = columns_of(50)
    assert cb.plot.correlations(frame).get_title(loc="left") == "Which columns move together?"
    frame = frame.with_columns(product_id=pl.lit("BTC-USD"))
    assert cb.plot.correlations(frame).get_title(loc="left") == "BTC-USD: which columns move together?"


# --- which columns by default


def names(ax) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels()]


def test_by_default_features_of_a_book_are_taken_and_nothing_recorded():
    book = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"]).pipe(cb.rebuild_book, bands_bps=[5])
    wanted = ["mid", "microprice", "vamp_10", "spread", "imbalance_5", "ofi_1s", "return_1s"]
    seconds = book.pipe(cb.add_book_features, wanted).pipe(cb.sample_time, "1s").collect()
    assert names(cb.plot.correlations(seconds)) == [
        "bid_depth_5bps", "ask_depth_5bps", "imbalance_5bps", "spread", "imbalance_5", "ofi_1s", "return_1s"
    ]  # fmt: skip


def test_by_default_bars_are_taken_without_their_numbers_and_prices():
    trades = cb.read_raw(cb.sample_path()).market_trades.filter(pl.col("product_id") == "BTC-USD")
    bars = cb.trade_bars(trades, "time", "10s").collect()
    assert names(cb.plot.correlations(bars)) == ["volume", "notional", "buy_volume", "n_trades"]


def test_what_is_left_out_by_default_can_be_asked_for():
    frame = columns_of(20, 2).rename({"c0": "mid", "c1": "bid_size_1"})
    assert names(cb.plot.correlations(frame, ["mid", "bid_size_1"])) == ["mid", "bid_size_1"]


# --- many rows


@pytest.mark.parametrize("rows", [50_000, 50_001, 120_000])
def test_of_many_rows_evenly_spaced_ones_are_taken_and_that_is_told(rows):
    frame = columns_of(rows, 2)
    ax = cb.plot.correlations(frame)
    label = ax.images[0].colorbar.ax.get_ylabel()
    step = 1
    if rows > 50_000:
        step = int(re.fullmatch(r"rank correlation, of one row in (\d+)", label)[1])
        assert 2 < rows / step < 50_000
        assert math.gcd(step, 60) == 1  # else of rows a second the same seconds of each minute would be taken
    else:
        assert label == "rank correlation"
    np.testing.assert_allclose(drawn(ax), plain(frame.gather_every(step), "spearman"), atol=1e-12)


# --- how it is called


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.lazy(), {}, "the frame must be a polars.DataFrame: collect it"),
        (lambda f: f.clear(), {}, "the frame has no rows"),
        (lambda f: f, {"columns": ["c0", "c9"]}, "unknown column of the frame 'c9'"),
        (lambda f: f, {"columns": ["c0"]}, r"columns must be two or more, each once, not \['c0'\]"),
        (lambda f: f, {"columns": ["c0", "c1", "c0"]}, "columns must be two or more, each once"),
        (lambda f: f, {"columns": []}, "columns must be two or more"),
        (lambda f: f, {"columns": "c0"}, "columns must be a list of names, not 'c0'"),
        (lambda f: f.select("c0", mid="c1"), {}, r"columns must be two or more, each once, not \['c0'\]"),
        (lambda f: f.with_columns(c1=pl.lit(True)), {"columns": ["c0", "c1"]}, "c1 must be a column of num"),
        (lambda f: f, {"method": "kendall"}, "unknown method 'kendall'"),
        (
            lambda f: f.with_columns(product_id=(pl.col("c0") > 0).cast(pl.String)),
            {},
            r"several products \(false, true\): filter it to one product",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_told_before_anything_is_drawn(change, options, message):
    with pytest.raises(cb.ConfigError, match=message):
        cb.plot.correlations(change(columns_of(30)), **options)
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_it_draws_on_a_given_axes_and_changes_no_frame():
    _, (left, right) = plt.subplots(1, 2)
    frame = columns_of(30).with_columns(c1=None)
    frame = frame.cast({"c1": pl.Float64})
    before = frame.clone()
    assert cb.plot.correlations(frame, ax=right) is right
    assert not left.has_data()
    assert plt.get_fignums() == [1]
    assert frame.equals(before)


@pytest.mark.ci
def test_the_picture_can_be_saved(tmp_path):
    ax = cb.plot.correlations(columns_of(30).with_columns(c1=pl.lit(1.0)))
    for kind in ("png", "svg", "pdf"):
        ax.figure.savefig(tmp_path / f"picture.{kind}")
        assert (tmp_path / f"picture.{kind}").stat().st_size > 1_000
