"""What is drawn: the artists hold the frames' numbers, and the picture says what they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib import dates

import cbtools as cb
from cbtools.plot import canvas
from cbtools.schema import BOOK_STATE, TIME, TRADE_SIDE

START = datetime(2025, 11, 26, 14, tzinfo=UTC)


def quotes_frame(rows: int = 5, product_id: str = "BTC-USD") -> pl.DataFrame:
    step = pl.int_range(rows, eager=True)
    return pl.DataFrame(
        {
            "product_id": [product_id] * rows,
            "server_time": pl.Series([START + timedelta(seconds=i) for i in range(rows)], dtype=TIME),
            "best_bid": 100.0 + step,
            "best_ask": 101.0 + step * 1.5,
        }
    )


def trades_frame() -> pl.DataFrame:
    """Two buys, a sell, a trade of a snapshot, and one of another product; not in order of time."""
    return pl.DataFrame(
        {
            "product_id": ["BTC-USD", "BTC-USD", "BTC-USD", "BTC-USD", "ETH-USD"],
            "trade_time": pl.Series([START + timedelta(seconds=s) for s in (3, 1, 2, 0, 1)], dtype=TIME),
            "price": [104.0, 101.5, 101.0, 99.0, 7.0],
            "size": [4.0, 1.0, 0.25, 9.0, 100.0],
            "aggressor_side": pl.Series(["buy", "buy", "sell", "sell", "buy"], dtype=TRADE_SIDE),
            "is_snapshot": [False, False, False, True, False],
        }
    )


def at(*seconds: float) -> list[float]:
    return [dates.date2num(START + timedelta(seconds=s)) for s in seconds]


def scatters(ax) -> dict:
    return {drawn.get_label(): drawn for drawn in ax.collections if drawn.get_label().endswith("aggressor")}


def band(ax):
    (drawn,) = (d for d in ax.collections if d.get_label() not in scatters(ax))
    return drawn


# --- what is drawn


def test_the_points_are_the_trades():
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")
    drawn = {label: points.get_offsets().data for label, points in scatters(ax).items()}
    assert list(drawn) == ["buy aggressor", "sell aggressor"]
    np.testing.assert_allclose(
        drawn["buy aggressor"], [*zip(at(1, 3), [101.5, 104.0], strict=True)], rtol=1e-15
    )
    np.testing.assert_allclose(drawn["sell aggressor"], [*zip(at(2), [101.0], strict=True)], rtol=1e-15)


def test_a_larger_trade_is_drawn_larger():
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")
    small, large = scatters(ax)["buy aggressor"].get_sizes()
    (smallest,) = scatters(ax)["sell aggressor"].get_sizes()
    assert 0 < smallest < small < large


def test_the_sides_differ_in_colour_and_shape():
    buy, sell = scatters(cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")).values()
    assert not np.allclose(buy.get_facecolor(), sell.get_facecolor())
    up, down = (points.get_paths()[0].vertices for points in (buy, sell))
    np.testing.assert_allclose(up, -down, atol=1e-12)


def test_the_lines_are_the_best_bid_and_ask():
    quotes = quotes_frame()
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes, "BTC-USD")
    bid, ask = ax.lines
    for line, column in ((bid, "best_bid"), (ask, "best_ask")):
        assert line.get_drawstyle() == "steps-post"  # a quote holds until the next
        np.testing.assert_array_equal(line.get_ydata(), quotes[column].to_numpy())
        np.testing.assert_array_equal(line.get_xdata(), quotes["server_time"].to_numpy())


def test_the_band_lies_between_the_lines():
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")
    ys = band(ax).get_paths()[0].vertices[:, 1]
    assert (ys.min(), ys.max()) == (100.0, 107.0)


def test_trades_and_quotes_are_drawn_in_order_of_time():
    shuffled = quotes_frame(50).sample(fraction=1.0, shuffle=True, seed=1)
    ax = cb.plot.trades_on_quotes(trades_frame(), shuffled, "BTC-USD")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), quotes_frame(50)["best_bid"].to_numpy())


def test_quotes_of_one_side_are_left_out():
    quotes = quotes_frame().with_columns(best_ask=pl.when(pl.col("best_bid") != 102.0).then("best_ask"))
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes, "BTC-USD")
    assert list(ax.lines[0].get_ydata()) == [100.0, 101.0, 103.0, 104.0]


def test_the_sample_s_numbers_are_drawn():
    tables = cb.read_raw(cb.sample_path())
    trades = tables.market_trades.filter(~pl.col("is_snapshot"), pl.col("product_id") == "SOL-USD")
    ax = cb.plot.trades_on_quotes(tables.market_trades, tables.ticker, "SOL-USD")
    for side in ("buy", "sell"):
        expected = trades.filter(pl.col("aggressor_side") == side)["price"].sort().to_numpy()
        points = scatters(ax)[f"{side} aggressor"].get_offsets().data
        np.testing.assert_array_equal(np.sort(points[:, 1]), expected)
    ticker = tables.ticker.filter(pl.col("product_id") == "SOL-USD")
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), ticker["best_ask"].to_numpy())


# --- what it says


def test_axes_have_names_and_units():
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")
    assert ax.get_ylabel() == "price (USD)"
    assert ax.get_xlabel() == "exchange time (UTC)"
    assert ax.get_title(loc="left") == "BTC-USD: at which prices do trades happen?"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["best bid and ask", "buy aggressor", "sell aggressor"]


def test_the_unit_is_the_quote_currency():
    trades, quotes = (f.with_columns(product_id=pl.lit("ETH-BTC")) for f in (trades_frame(), quotes_frame()))
    assert cb.plot.trades_on_quotes(trades, quotes, "ETH-BTC").get_ylabel() == "price (BTC)"


def test_prices_are_written_whole():
    quotes = quotes_frame().with_columns(pl.col("best_bid", "best_ask") / 1e4 + 87_000)
    ax = cb.plot.trades_on_quotes(trades_frame().clear(), quotes, "BTC-USD")
    ax.figure.canvas.draw()
    assert ax.yaxis.get_offset_text().get_text() == ""
    assert all(label.get_text().startswith("8") for label in ax.get_yticklabels() if label.get_text())


# --- many rows


@pytest.mark.parametrize("rows", [3_999, 4_000, 4_001, 9_000, 100_000])
def test_many_quotes_are_thinned_and_keep_their_shape(rows):
    quotes = quotes_frame(1).select(pl.all().repeat_by(rows).explode()).with_columns(
        server_time=pl.col("server_time") + pl.duration(milliseconds=pl.int_range(rows)),
        best_bid=100.0 + (pl.int_range(rows) == rows // 3) * 7.0,  # one row stands out
        best_ask=101.0 - (pl.int_range(rows) == rows // 2) * 0.5,
    )  # fmt: skip
    bid, ask = cb.plot.trades_on_quotes(trades_frame(), quotes, "BTC-USD").lines
    drawn = bid.get_ydata()
    assert len(drawn) == rows if rows <= 4_000 else 1_000 <= len(drawn) <= 6_000
    assert (drawn.max(), ask.get_ydata().min()) == (107.0, 100.5)
    when = quotes["server_time"].to_numpy()
    assert (bid.get_xdata()[0], bid.get_xdata()[-1]) == (when[0], when[-1])
    assert bid.get_xdata()[drawn.argmax()] == when[rows // 3]


def test_many_trades_are_summed_where_they_fall_together():
    n = 20_000
    trades = trades_frame().head(1).select(pl.all().repeat_by(n).explode()).with_columns(
        trade_time=pl.col("trade_time") + pl.duration(milliseconds=pl.int_range(n)),
        price=100.0 + pl.int_range(n) % 3,
        size=1.0 + pl.int_range(n) % 2,
    )  # fmt: skip
    summed = canvas.summed_trades(trades)
    assert 1_000 < summed.height < 4_000
    assert summed["size"].sum() == trades["size"].sum()
    assert set(summed["price"].round(9)) == {100.0, 101.0, 102.0}
    assert summed["trade_time"].is_between(trades["trade_time"][0], trades["trade_time"][-1]).all()
    ax = cb.plot.trades_on_quotes(trades, quotes_frame(), "BTC-USD")
    assert len(scatters(ax)["buy aggressor"].get_offsets()) == summed.height


# --- how it is called


def test_it_draws_on_a_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD", ax=right)
    assert ax is right
    assert not left.collections
    assert plt.get_fignums() == [1]


def test_it_makes_a_figure_of_its_own():
    first = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")
    second = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")
    assert first.figure is not second.figure


def test_frames_are_not_changed():
    trades, quotes = trades_frame(), quotes_frame()
    cb.plot.trades_on_quotes(trades, quotes, "BTC-USD")
    assert trades.equals(trades_frame())
    assert quotes.equals(quotes_frame())


@pytest.mark.parametrize("missing", ["trades", "quotes"])
def test_one_of_the_frames_may_have_no_rows(missing):
    trades, quotes = trades_frame(), quotes_frame()
    if missing == "trades":
        ax = cb.plot.trades_on_quotes(trades.clear(), quotes, "BTC-USD")
        assert [len(points.get_offsets()) for points in scatters(ax).values()] == [0, 0]
    else:
        ax = cb.plot.trades_on_quotes(trades, quotes.clear(), "BTC-USD")
        assert len(scatters(ax)["buy aggressor"].get_offsets()) == 2
    ax.figure.canvas.draw()


def test_a_product_that_is_not_there_is_named():
    with pytest.raises(cb.ConfigError, match="no trades and no quotes of 'BTC-UDS'"):
        cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-UDS")
    assert plt.get_fignums() == []


def test_the_picture_can_be_saved(tmp_path):
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes_frame(), "BTC-USD")
    for name in ("picture.png", "picture.svg", "picture.pdf"):
        ax.figure.savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1_000


# --- quotes: the best bid and ask over time


def book_frame(states: str = "oouuo", product_id: str = "BTC-USD") -> pl.DataFrame:
    """Make a row a second; a state is told by its first letter, one_sided by 1."""
    names = {"o": "ok", "u": "unproven", "c": "crossed", "1": "one_sided", "e": "empty"}
    step = pl.int_range(len(states), eager=True)
    return pl.DataFrame(
        {
            "product_id": [product_id] * len(states),
            "server_time": pl.Series([START + timedelta(seconds=i) for i in range(len(states))], dtype=TIME),
            "bid_price_1": 100.0 + step,
            "ask_price_1": 101.0 + step * 1.5,
            "book_state": pl.Series([names[letter] for letter in states], dtype=BOOK_STATE),
        }
    )


def shades(ax) -> dict[str, list[tuple[float, float]]]:
    """State → the stretches of the time axis that are shaded over the full height."""
    found = {}
    for drawn in ax.collections:
        corners = drawn.get_paths()[0].vertices
        assert set(corners[:, 1]) <= {0.0, 1.0}
        assert drawn.get_transform() == ax.get_xaxis_transform()
        high = np.unique(corners[corners[:, 1] == 1.0, 0])
        found[drawn.get_label()] = [*zip(high[::2], high[1::2], strict=True)]
    return found


def stretch(start: float, end: float) -> tuple[float, float]:
    return pytest.approx(tuple(at(start, end)), rel=1e-15)


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_best_bid_and_ask_are_the_book_s():
    book = book_frame()
    ax = cb.plot.quotes(book, "BTC-USD")
    assert [line.get_label() for line in ax.lines] == ["best bid", "best ask"]
    for line, column in zip(ax.lines, ("bid_price_1", "ask_price_1"), strict=True):
        assert line.get_drawstyle() == "steps-post"  # a row holds until the next
        np.testing.assert_array_equal(line.get_ydata(), book[column].to_numpy())
        np.testing.assert_array_equal(line.get_xdata(), book["server_time"].to_numpy())


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("ooooo", {}),
        ("oouuo", {"unproven": [(2, 4)]}),
        ("ouoou", {"unproven": [(1, 2)]}),  # nothing is known behind the last row
        ("uuuuu", {"unproven": [(0, 4)]}),
        ("ouuou", {"unproven": [(1, 3)]}),
        ("oooou", {}),
        ("uouuo", {"unproven": [(0, 1), (2, 4)]}),
        ("uccoo", {"unproven": [(0, 1)], "crossed": [(1, 3)]}),
        ("oceuo", {"crossed": [(1, 2)], "empty": [(2, 3)], "unproven": [(3, 4)]}),
        ("o11eo", {"one-sided": [(1, 3)], "empty": [(3, 4)]}),
    ],
)
def test_shaded_is_where_the_book_is_not_ok(states, expected):
    found = shades(cb.plot.quotes(book_frame(states), "BTC-USD"))
    assert found == {state: [stretch(*ends) for ends in runs] for state, runs in expected.items()}


def test_the_shades_differ_in_colour_and_are_told_in_the_legend():
    ax = cb.plot.quotes(book_frame("ouc1eo"), "BTC-USD")
    assert legend(ax) == ["best bid", "best ask", "unproven", "crossed", "one-sided", "empty"]
    assert len({tuple(drawn.get_facecolor()[0]) for drawn in ax.collections}) == 4


def test_a_shade_does_not_change_the_prices_shown():
    plain = cb.plot.quotes(book_frame("ooooo"), "BTC-USD")
    shaded = cb.plot.quotes(book_frame("uuuuu"), "BTC-USD")
    assert shaded.get_ylim() == plain.get_ylim()


def test_the_sample_s_unproven_stretch_is_shaded():
    book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=1).collect()
    ax = cb.plot.quotes(book, "BTC-USD")
    btc = book.filter(pl.col("product_id") == "BTC-USD")
    unproven = btc["book_state"] == "unproven"
    start = btc.filter(unproven)["server_time"][0]
    end = btc.filter(~unproven, pl.col("server_time") > start)["server_time"][0]
    ((first, last),) = shades(ax)["unproven"]
    assert (first, last) == pytest.approx((dates.date2num(start), dates.date2num(end)), rel=1e-12)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), btc["ask_price_1"].to_numpy())


def test_many_rows_are_thinned_and_their_shades_are_not():
    rows = 9_000
    book = book_frame("o" * rows).with_columns(
        book_state=pl.when(pl.int_range(rows) == 4_321)  # between two rows that are drawn
        .then(pl.lit("unproven"))
        .otherwise("book_state")
        .cast(BOOK_STATE)
    )
    ax = cb.plot.quotes(book, "BTC-USD")
    assert 2_000 <= len(ax.lines[0].get_ydata()) <= 6_000
    assert shades(ax) == {"unproven": [stretch(4_321, 4_322)]}


def test_a_side_without_levels_is_a_gap_in_its_line():
    empty = pl.col("book_state") == "one_sided"
    book = book_frame("oo11o").with_columns(ask_price_1=pl.when(~empty).then("ask_price_1"))
    bid, ask = cb.plot.quotes(book, "BTC-USD").lines
    assert np.isnan(ask.get_ydata()).tolist() == [False, False, True, True, False]
    assert not np.isnan(bid.get_ydata()).any()


def test_rows_are_drawn_in_order_of_time_and_those_without_left_out():
    book = book_frame("oouuo").with_columns(
        server_time=pl.when(pl.col("bid_price_1") != 101.0).then("server_time")
    )
    ax = cb.plot.quotes(book.reverse(), "BTC-USD")
    assert list(ax.lines[0].get_ydata()) == [100.0, 102.0, 103.0, 104.0]
    assert shades(ax) == {"unproven": [stretch(2, 4)]}


def test_other_products_are_not_drawn():
    book = pl.concat([book_frame("uuuuu", "ETH-USD"), book_frame("ooooo")])
    ax = cb.plot.quotes(book, "BTC-USD")
    assert len(ax.lines[0].get_ydata()) == 5
    assert shades(ax) == {}


def test_quotes_say_what_they_are():
    ax = cb.plot.quotes(book_frame(product_id="ETH-BTC"), "ETH-BTC")
    assert ax.get_ylabel() == "price (BTC)"
    assert ax.get_xlabel() == "exchange time (UTC)"
    assert ax.get_title(loc="left") == "ETH-BTC: can the best bid and ask be trusted?"


def test_quotes_are_drawn_on_a_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert cb.plot.quotes(book_frame(), "BTC-USD", ax=right) is right
    assert not left.lines
    assert plt.get_fignums() == [1]


def test_quotes_of_a_product_that_is_not_there():
    with pytest.raises(cb.ConfigError, match="no book of 'BTC-UDS' to draw"):
        cb.plot.quotes(book_frame(), "BTC-UDS")
    assert plt.get_fignums() == []


def test_a_lazy_frame_is_to_be_collected():
    with pytest.raises(cb.ConfigError, match="not of a LazyFrame: collect it"):
        cb.plot.quotes(book_frame().lazy(), "BTC-USD")
    assert plt.get_fignums() == []
