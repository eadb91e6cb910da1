"""What is drawn: the artists hold the frames' numbers, and the picture says what they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib import dates

import cbtools as cb
from cbtools.schema import TIME, TRADE_SIDE

START = datetime(2025, 11, 26, 14, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


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
def test_many_quotes_are_thinned_evenly(rows):
    quotes = quotes_frame(1).select(pl.all().repeat_by(rows).explode()).with_columns(
        best_bid=100.0 + pl.int_range(rows), best_ask=101.0 + pl.int_range(rows)
    )  # fmt: skip
    ax = cb.plot.trades_on_quotes(trades_frame(), quotes, "BTC-USD")
    drawn = ax.lines[0].get_ydata()
    assert len(drawn) <= 4_001
    assert len(drawn) == rows if rows <= 4_000 else len(drawn) >= 2_000
    assert len(set(np.diff(drawn[:-1]))) == 1
    assert (drawn[0], drawn[-1]) == (100.0, 100.0 + rows - 1)


def test_trades_are_not_thinned():
    trades = trades_frame().head(1).select(pl.all().repeat_by(20_000).explode())
    ax = cb.plot.trades_on_quotes(trades, quotes_frame(), "BTC-USD")
    assert len(scatters(ax)["buy aggressor"].get_offsets()) == 20_000


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
