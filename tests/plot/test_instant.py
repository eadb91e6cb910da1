"""A book at an instant: the depth is summed from the best, and the ladder is its levels."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest

import cbtools as cb


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def levels(*pairs: tuple[float, float]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"price": pl.Float64, "size": pl.Float64}, orient="row")


BIDS, ASKS = levels((99.0, 2.0), (98.0, 1.0), (50.0, 9.0)), levels((101.0, 0.5), (102.0, 4.0), (500.0, 7.0))


def size_at(line, price: float) -> float:
    """Give what a line of steps shows at a price; it begins at the best, and holds until the next."""
    xs, ys = line.get_xdata(), line.get_ydata()
    reached = [y for x, y in zip(xs, ys, strict=True) if abs(x - xs[0]) <= abs(price - xs[0])]
    return reached[-1]


def test_depth_is_the_size_from_the_best_to_a_price():
    ax = cb.plot.depth(BIDS, ASKS, "BTC-USD", within_bps=300)
    bids, asks, _ = ax.lines
    assert {line.get_drawstyle() for line in (bids, asks)} == {"steps-post"}
    for price in (99.0, 98.5, 98.0, 97.2):
        assert size_at(bids, price) == BIDS.filter(pl.col("price") >= price)["size"].sum()
    for price in (101.0, 101.5, 102.0, 102.9):
        assert size_at(asks, price) == ASKS.filter(pl.col("price") <= price)["size"].sum()


@pytest.mark.parametrize(("within_bps", "bids", "asks"), [(100, 2, 0.5), (199, 2, 0.5), (200, 3, 4.5)])
def test_depth_ends_at_the_distance(within_bps, bids, asks):
    ax = cb.plot.depth(BIDS, ASKS, "BTC-USD", within_bps=within_bps)
    assert [line.get_ydata()[-1] for line in ax.lines[:2]] == [bids, asks]
    edges = (100 * (1 - within_bps / 1e4), 100 * (1 + within_bps / 1e4))
    assert ax.get_xlim() == pytest.approx(edges)
    assert [line.get_xdata()[-1] for line in ax.lines[:2]] == pytest.approx(edges)


def test_depth_within_the_spread_is_none():
    ax = cb.plot.depth(BIDS, ASKS, "BTC-USD", within_bps=10)
    assert [max(line.get_ydata()) for line in ax.lines[:2]] == [0, 0]


def test_depth_of_a_crossed_book_is_from_the_best_outwards():
    bids = levels((110.0, 1.0), (99.0, 2.0))
    ax = cb.plot.depth(bids, levels((90.0, 4.0), (101.0, 0.5)), "BTC-USD", within_bps=200)
    drawn, asks, _ = ax.lines
    assert [size_at(drawn, price) for price in (109.0, 99.0)] == [1.0, 3.0]
    assert [size_at(asks, price) for price in (91.0, 101.5)] == [4.0, 4.5]


def test_depth_says_what_it_is():
    ax = cb.plot.depth(BIDS, ASKS, "ETH-BTC", within_bps=12.5)
    assert ax.get_ylabel() == "cumulative size (ETH)"
    assert ax.get_xlabel() == "price (BTC)"
    assert ax.get_title(loc="left") == "ETH-BTC: how much rests within 12.5 bps of mid?"
    assert legend(ax) == ["bids", "asks", "mid 100"]


def test_depth_is_drawn_on_a_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert cb.plot.depth(BIDS, ASKS, "BTC-USD", ax=right) is right
    assert not left.lines


@pytest.mark.parametrize(("bids", "asks"), [(BIDS.clear(), ASKS), (BIDS, ASKS.clear())])
def test_depth_without_a_side_is_refused(bids, asks):
    with pytest.raises(cb.ConfigError, match="'BTC-USD' has an empty side"):
        cb.plot.depth(bids, asks, "BTC-USD")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("within_bps", [0, -1.0, float("nan")])
def test_depth_within_no_distance_is_refused(within_bps):
    with pytest.raises(cb.ConfigError, match="within_bps must be a positive distance"):
        cb.plot.depth(BIDS, ASKS, "BTC-USD", within_bps=within_bps)


def test_a_book_draws_its_depth():
    book = cb.book_at(cb.scan_raw(cb.sample_path(), "level2"), "2025-11-26T14:03:00Z", "BTC-USD")
    ours, theirs = book.plot(within_bps=20), cb.plot.depth(book.bids, book.asks, "BTC-USD", within_bps=20)
    for a, b in zip(ours.lines, theirs.lines, strict=True):
        np.testing.assert_array_equal(a.get_xydata(), b.get_xydata())
