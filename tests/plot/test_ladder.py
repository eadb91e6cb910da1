"""A ladder: a row a level, evenly spaced, asks above the spread and bids below it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import polars as pl
import pytest

import cbtools as cb


def levels(*pairs: tuple[float, float]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"price": pl.Float64, "size": pl.Float64}, orient="row")


BIDS = levels((99.5, 2.0), (98.25, 1.0), (50.0, 9.0))
ASKS = levels((100.5, 0.5), (102.0, 4.0), (500.0, 7.0), (501.0, 8.0))


def bars(ax) -> dict[str, dict[float, float]]:
    """Side → the middle of each bar → how far it reaches from 0."""
    found = {}
    for drawn in ax.containers:
        assert {bar.get_x() for bar in drawn} <= {0.0}
        middles = [round(bar.get_y() + bar.get_height() / 2, 9) for bar in drawn]
        found[drawn.get_label()] = dict(zip(middles, [bar.get_width() for bar in drawn], strict=True))
    return found


def prices(ax) -> dict[float, str]:
    return dict(zip(ax.get_yticks(), [text.get_text() for text in ax.get_yticklabels()], strict=True))


def spread(ax) -> str:
    """Give what is written between the sides."""
    (text,) = (text for text in ax.texts if text.get_transform() == ax.get_yaxis_transform())
    assert text.get_position()[1] == 0
    return text.get_text()


def sizes(ax) -> list[str]:
    """Give what is written at the bars."""
    return [text.get_text() for text in ax.texts if text.get_transform() != ax.get_yaxis_transform()]


def test_a_row_is_a_level_asks_above_and_bids_below():
    ax = cb.plot.ladder(BIDS, ASKS, "BTC-USD")
    assert bars(ax) == {
        "asks": {1: 0.5, 2: 4.0, 3: 7.0, 4: 8.0},
        "bids": {-1: 2.0, -2: 1.0, -3: 9.0},
    }


def test_the_rows_are_named_by_their_prices():
    named = prices(cb.plot.ladder(BIDS, ASKS, "BTC-USD"))
    assert {row: text for row, text in named.items() if row > 0} == (
        {1: "100.50", 2: "102.00", 3: "500.00", 4: "501.00"}
    )
    assert {row: text for row, text in named.items() if row < 0} == {-1: "99.50", -2: "98.25", -3: "50.00"}
    assert 0 not in named


def test_only_the_best_levels_are_drawn():
    ax = cb.plot.ladder(BIDS, ASKS, "BTC-USD", levels=2)
    assert bars(ax) == {"asks": {1: 0.5, 2: 4.0}, "bids": {-1: 2.0, -2: 1.0}}
    assert ax.get_title(loc="left") == "BTC-USD: how much rests at each of the best 2 levels?"
    low, high = ax.get_ylim()
    assert -3 < low < -2.4
    assert 2.4 < high < 3


@pytest.mark.parametrize(
    ("bid", "ask", "expected"),
    [
        (99.5, 100.5, "spread 1 USD = 100 bps"),
        (87_012.33, 87_012.34, "spread 0.01 USD = 0.00115 bps"),
        (0.00000852, 0.00000853, "spread 0.00000001 USD = 11.7 bps"),
        (0.1, 0.3, "spread 0.2 USD = 10,000 bps"),
        (100.0, 100.0, "spread 0 USD = 0 bps"),
        (100.5, 99.5, "crossed: spread -1 USD = -100 bps"),
    ],
)
def test_the_spread_is_told_between_the_sides(bid, ask, expected):
    ax = cb.plot.ladder(levels((bid, 1.0)), levels((ask, 1.0)), "BTC-USD")
    assert spread(ax) == expected


@pytest.mark.parametrize(("side", "told"), [("bids", "no bids"), ("asks", "no asks")])
def test_a_side_may_be_empty(side, told):
    bids, asks = (BIDS.clear(), ASKS) if side == "bids" else (BIDS, ASKS.clear())
    ax = cb.plot.ladder(bids, asks, "BTC-USD")
    assert spread(ax) == told
    assert side not in bars(ax)
    assert len(prices(ax)) == (4 if side == "bids" else 3)
    ax.figure.canvas.draw()


def test_a_book_without_levels_is_refused():
    with pytest.raises(cb.ConfigError, match="'BTC-USD' has no levels to draw"):
        cb.plot.ladder(BIDS.clear(), ASKS.clear(), "BTC-USD")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "5", None])
def test_levels_that_cannot_be_meant(wrong):
    with pytest.raises(cb.ConfigError, match="levels must be a positive whole number"):
        cb.plot.ladder(BIDS, ASKS, "BTC-USD", levels=wrong)
    assert plt.get_fignums() == []


def test_it_says_what_it_is():
    ax = cb.plot.ladder(BIDS, ASKS, "ETH-BTC")
    assert ax.get_xlabel() == "size (ETH)"
    assert ax.get_ylabel() == "price (BTC), a row a level: not to scale"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["asks", "bids"]
    assert ax.get_title(loc="left") == "ETH-BTC: how much rests at each of the best 4 levels?"
    one = cb.plot.ladder(BIDS, ASKS, "ETH-BTC", levels=1)
    assert one.get_title(loc="left") == "ETH-BTC: how much rests at the best level?"


def test_the_sides_differ_in_colour():
    asks, bids = cb.plot.ladder(BIDS, ASKS, "BTC-USD").containers
    assert asks[0].get_facecolor() != bids[0].get_facecolor()


def test_each_size_is_written_at_its_bar():
    asks = levels((101.0, 0.000123456), (102.0, 12.5), (103.0, 60_123_456.0), (104.0, 1.0))
    ax = cb.plot.ladder(BIDS.head(1), asks, "BTC-USD")
    assert sizes(ax) == ["0.000123", "12.5", "60,100,000", "1", "2"]
    low, high = ax.get_xlim()
    assert low == 0
    assert high > 60_123_456


@pytest.mark.parametrize(("n", "written"), [(20, 20), (21, 11), (40, 20), (41, 14), (200, 20)])
def test_of_many_levels_all_are_drawn_and_some_are_named(n, written):
    many = pl.DataFrame({"price": 100.0 + pl.int_range(n, eager=True), "size": [1.0] * n})
    ax = cb.plot.ladder(BIDS.clear(), many, "BTC-USD", levels=n)
    drawn = list(bars(ax)["asks"])
    assert drawn == [drawn[0] + k for k in range(n)]
    named = prices(ax)
    assert len(named) == written
    assert all(text == f"{100 + row - drawn[0]:.0f}" for row, text in named.items())
    assert drawn[0] in named  # the best
    assert len(sizes(ax)) == (n if n <= 20 else 0)
    assert drawn[0] >= 1 + n // 40  # room for the spread
    assert ax.get_ylim()[1] > drawn[-1] + 0.4


def test_a_book_draws_its_ladder():
    book = cb.book_at(cb.scan_raw(cb.sample_path(), "level2"), "2025-11-26T14:03:00Z", "BTC-USD")
    _, (left, right) = plt.subplots(1, 2)
    ax = book.plot_ladder(levels=4, ax=right)
    assert ax is right
    assert not left.containers
    for side, upwards in (("bids", -1), ("asks", 1)):
        best = getattr(book, side)["size"].head(4)
        assert bars(ax)[side] == {upwards * (k + 1): size for k, size in enumerate(best)}
    assert len(bars(book.plot_ladder())["bids"]) == 15
