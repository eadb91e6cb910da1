"""Candles are the bars: as high, as wide and as full as they are, and told apart without colour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib import dates
from matplotlib.collections import LineCollection, PolyCollection

import cbtools as cb
from cbtools.schema import TIME

START = datetime(2025, 11, 26, 14, tzinfo=UTC)
UP, DOWN, SAME = "closed higher", "closed lower", "closed as it opened"


def times(*seconds: float | None) -> pl.Series:
    return pl.Series([None if s is None else START + timedelta(seconds=s) for s in seconds], dtype=TIME)


def bars_frame() -> pl.DataFrame:
    """Make three bars of ten seconds: one up, one down, and, after an interval without, one unchanged."""
    return pl.DataFrame(
        {
            "product_id": ["BTC-USD"] * 3,
            "start": times(0, 10, 30),
            "open": [100.0, 104.0, 102.0],
            "high": [105.0, 104.0, 103.0],
            "low": [99.0, 100.0, 101.0],
            "close": [104.0, 101.0, 102.0],
            "volume": [8.0, 4.0, 1.0],
            "buy_volume": [6.0, 1.0, 1.0],
            "first_time": times(1, 12, 31),
            "last_time": times(7, 19, 31),
            "is_complete": [True, True, False],
            "run": [0, 0, 0],
        }
    )


def volume_bars(n: int = 3) -> pl.DataFrame:
    """Make bars that are 1, 2, 3, ... seconds wide, one after the other; each closes 1 higher."""
    step = pl.int_range(n, eager=True)
    ends = (step + 1).cum_sum()
    return bars_frame()[:1].select(pl.all().repeat_by(n).explode()).with_columns(
        start=pl.lit(None, TIME),
        first_time=START + (ends - step - 1) * timedelta(seconds=1),
        last_time=START + ends * timedelta(seconds=1),
        open=100.0 + step, high=102.0 + step, low=99.0 + step, close=101.0 + step,
    )  # fmt: skip


def book_bars() -> pl.DataFrame:
    return bars_frame().drop("volume", "buy_volume", "run").with_columns(ofi=pl.Series([3.0, None, -2.0]))


def boxes(ax, label: str) -> list[tuple[float, float, float, float]]:
    """Give the boxes of a kind: from and to which second, from and to which height."""
    (drawn,) = (d for d in ax.collections if d.get_label() == label)
    assert isinstance(drawn, PolyCollection)
    corners = np.array([path.vertices[:4] for path in drawn.get_paths()])
    seconds = (corners[:, :, 0] - dates.date2num(START)) * 86_400
    ys = corners[:, :, 1]
    return [*zip(seconds.min(1), seconds.max(1), ys[:, 0], ys[:, 2], strict=True)]


def wicks(ax) -> list[tuple[float, float, float]]:
    """Give the wicks that have a length: at which second, from and to which price."""
    lines = [line for d in ax.collections if isinstance(d, LineCollection) for line in d.get_segments()]
    seconds = [(line[0, 0] - dates.date2num(START)) * 86_400 for line in lines]
    found = zip(seconds, (line[0, 1] for line in lines), (line[1, 1] for line in lines), strict=True)
    return sorted((when, low, high) for when, low, high in found if low != high)


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def near(*values: float):
    return pytest.approx(values, abs=2e-6)  # of a day in a double


# --- the candles


def test_a_body_is_from_open_to_close_and_as_wide_as_its_interval():
    upper, _ = cb.plot.candles(bars_frame(), "BTC-USD")
    assert boxes(upper, UP) == [near(0.6, 9.4, 100, 104)]
    assert boxes(upper, DOWN) == [near(10.6, 19.4, 101, 104)]
    assert boxes(upper, SAME) == [near(30.6, 39.4, 102, 102)]


def test_wicks_reach_to_high_and_low_and_not_through_the_body():
    upper, _ = cb.plot.candles(bars_frame(), "BTC-USD")
    expected = [(5, 99, 100), (5, 104, 105), (15, 100, 101), (35, 101, 102), (35, 102, 103)]
    assert wicks(upper) == [near(*wick) for wick in expected]


def test_up_is_hollow_and_down_is_filled():
    upper, _ = cb.plot.candles(bars_frame(), "BTC-USD")
    up, down = (next(d for d in upper.collections if d.get_label() == label) for label in (UP, DOWN))
    assert len(up.get_facecolor()) == 0
    np.testing.assert_array_equal(down.get_facecolor(), down.get_edgecolor())
    assert not np.allclose(up.get_edgecolor(), down.get_edgecolor())


def test_bars_of_volume_are_as_wide_as_their_trades_take():
    upper, lower = cb.plot.candles(volume_bars(), "BTC-USD")
    widths = [right - left for left, right, *_ in boxes(upper, UP)]
    np.testing.assert_allclose(widths, np.array([1, 2, 3]) * 0.88, atol=1e-5)
    middles = [(left + right) / 2 for left, right, *_ in boxes(upper, UP)]
    np.testing.assert_allclose(middles, [0.5, 2.0, 4.5], atol=1e-5)
    assert [box[:2] for box in boxes(lower, "buy aggressor")] == [box[:2] for box in boxes(upper, UP)]


def test_a_bar_of_one_trade_is_seen():
    bars = volume_bars().with_columns(last_time="first_time")
    upper, _ = cb.plot.candles(bars, "BTC-USD")
    (drawn,) = (d for d in upper.collections if d.get_label() == UP)
    assert drawn.get_linewidth()[0] > 0.5
    assert all(left == right for left, right, *_ in boxes(upper, UP))


def test_bars_that_share_an_interval_share_its_width():
    """A restart in the first interval: a bar before it and one behind it."""
    bars = bars_frame().with_columns(
        start=times(0, 0, 10), first_time=times(1, 6, 11), last_time=times(4, 9, 12)
    )
    upper, _ = cb.plot.candles(bars, "BTC-USD")
    assert boxes(upper, UP) == [near(0.24, 3.76, 100, 104)]
    assert boxes(upper, DOWN) == [near(6.24, 9.76, 101, 104)]


def test_the_interval_is_what_all_starts_are_multiples_of():
    upper, _ = cb.plot.candles(bars_frame().with_columns(start=times(0, 20, 50)), "BTC-USD")
    assert boxes(upper, UP) == [near(0.6, 9.4, 100, 104)]


def test_a_bar_alone_is_as_wide_as_its_trades_take():
    upper, _ = cb.plot.candles(bars_frame()[:1], "BTC-USD")
    assert boxes(upper, UP) == [near(1.36, 6.64, 100, 104)]


def test_a_bar_of_one_instant_alone_is_a_second_wide():
    upper, _ = cb.plot.candles(bars_frame()[2:], "BTC-USD")
    assert boxes(upper, SAME) == [near(31.06, 31.94, 102, 102)]
    left, right = ((edge - dates.date2num(START)) * 86_400 for edge in upper.get_xlim())
    assert 30 < left < 31.06 < 31.94 < right < 33


@pytest.mark.parametrize("undefined", [None, float("nan")])
@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
def test_a_bar_without_a_price_is_a_gap(column, undefined):
    kept = pl.when(pl.int_range(3) != 1).then(column).otherwise(pl.lit(undefined, pl.Float64))
    upper, lower = cb.plot.candles(bars_frame().with_columns(kept.alias(column)), "BTC-USD")
    assert texts(upper) == [UP, SAME]
    assert boxes(upper, UP) == [near(0.6, 9.4, 100, 104)]
    assert [box[0] for box in boxes(lower, "buy aggressor")] == near(0.6, 30.6)


# --- below


def test_volume_is_stacked_of_buys_and_sells():
    _, lower = cb.plot.candles(bars_frame(), "BTC-USD")
    assert [box[2:] for box in boxes(lower, "buy aggressor")] == [(0, 6), (0, 1), (0, 1)]
    assert [box[2:] for box in boxes(lower, "sell aggressor")] == [(6, 8), (1, 4), (1, 1)]
    bottom, top = lower.get_ylim()
    assert bottom == 0
    assert 8 < top < 9


def test_volume_without_sides_is_one():
    _, lower = cb.plot.candles(bars_frame().drop("buy_volume"), "BTC-USD")
    assert [box[2:] for box in boxes(lower, "volume")] == [(0, 8), (0, 4), (0, 1)]
    assert texts(lower) == ["volume"]


def test_bars_of_a_book_have_order_flow_below():
    upper, lower = cb.plot.candles(book_bars(), "BTC-USD")
    assert boxes(upper, UP) == [near(0.6, 9.4, 100, 104)]
    assert boxes(lower, "net buying") == [near(0.6, 9.4, 0, 3)]
    assert boxes(lower, "net selling") == [near(30.6, 39.4, 0, -2)]
    assert [list(line.get_ydata()) for line in lower.lines] == [[0, 0]]


def test_nothing_traded_is_a_picture():
    _, lower = cb.plot.candles(bars_frame().with_columns(volume=0.0, buy_volume=0.0), "BTC-USD")
    lower.figure.canvas.draw()
    assert lower.get_ylim() == (0, 1)


# --- many bars


def test_many_bars_of_volume_are_merged_by_count():
    n = 1_000
    upper, lower = cb.plot.candles(volume_bars(n), "BTC-USD")
    drawn = boxes(upper, UP)
    assert len(drawn) == 250
    for k in (0, 7, 249):
        first, last = 4 * k, 4 * k + 3
        left, right = first * (first + 1) / 2, (last + 1) * (last + 2) / 2
        free = 0.06 * (right - left)
        assert drawn[k] == pytest.approx((left + free, right - free, 100 + first, 101 + last), abs=1e-4)
    lows = {round(low, 6) for _, low, high in wicks(upper) if low % 4 == 3}
    assert len(lows) == 250  # 99, 103, ...: of the first of each four
    assert [box[2:] for box in boxes(lower, "buy aggressor")] == [(0, 24)] * 250
    assert [box[2:] for box in boxes(lower, "sell aggressor")] == [(24, 32)] * 250
    assert texts(upper)[-1] == "a candle is 4 bars"


def test_a_merged_bar_reaches_from_the_lowest_low_to_the_highest_high():
    step = pl.int_range(600)
    either = (step + step // 2) % 2  # of two neighbours sometimes the first, sometimes the second
    bars = volume_bars(600).with_columns(open=100.0, close=101.0, high=110.0 + either, low=90.0 + either)
    upper, _ = cb.plot.candles(bars, "BTC-USD")
    assert {wick[1:] for wick in wicks(upper)} == {(90, 100), (101, 111)}
    assert len(wicks(upper)) == 600


def test_as_many_as_can_be_told_apart_are_drawn_each():
    upper, _ = cb.plot.candles(volume_bars(300), "BTC-USD")
    assert len(boxes(upper, UP)) == 300
    assert texts(upper) == [UP]
    upper, _ = cb.plot.candles(volume_bars(301), "BTC-USD")
    assert len(boxes(upper, UP)) == 151
    assert texts(upper) == [UP, "a candle is 2 bars"]


def test_many_bars_of_time_are_merged_by_interval():
    """Every third of 1,200 intervals has no trades: a candle is of four intervals all the same."""
    n = 1_200
    step = pl.int_range(n, eager=True)
    bars = bars_frame()[:1].select(pl.all().repeat_by(n).explode()).with_columns(
        start=START + step * timedelta(seconds=10),
        first_time=START + step * timedelta(seconds=10),
        last_time=START + step * timedelta(seconds=10, milliseconds=5),
    )  # fmt: skip
    bars = bars.filter(step % 3 != 1)
    upper, lower = cb.plot.candles(bars, "BTC-USD")
    lefts = np.array([box[0] for box in boxes(upper, UP)])
    assert len(lefts) == 300
    begins = [round(left / 10) * 10 for left in lefts]
    assert [begin // 40 for begin in begins] == [*range(300)]
    traded = [sum(8 for i in range(4 * k, 4 * k + 4) if i % 3 != 1) for k in range(300)]
    assert [box[3] for box in boxes(lower, "sell aggressor")] == traded
    assert texts(upper)[-1] == "a candle is 4 intervals"


def test_bars_are_not_merged_across_a_restart():
    runs = pl.Series([0] * 301 + [1] * 300)
    upper, _ = cb.plot.candles(volume_bars(601).with_columns(run=runs), "BTC-USD")
    opens = [box[2] - 100 for box in boxes(upper, UP)]
    assert 301 in opens
    assert texts(upper)[-1] == "a candle is 3 bars"


def test_order_flow_of_merged_bars_is_summed():
    bars = volume_bars(600).drop("volume", "buy_volume").with_columns(
        ofi=pl.when(pl.int_range(600) < 300).then(pl.int_range(600) % 2 + 1.0).otherwise(-5.0)
    )  # fmt: skip
    _, lower = cb.plot.candles(bars, "BTC-USD")
    assert [box[3] for box in boxes(lower, "net buying")] == [3.0] * 150
    assert [box[3] for box in boxes(lower, "net selling")] == [-10.0] * 150


# --- what it says, and how it is called


@pytest.mark.slow
def test_it_says_what_it_is():
    axes = cb.plot.candles(bars_frame().with_columns(product_id=pl.lit("ETH-BTC")), "ETH-BTC")
    assert [ax.get_ylabel() for ax in axes] == ["price (BTC)", "volume (ETH)"]
    assert [ax.get_xlabel() for ax in axes] == ["", "time (UTC)"]
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["ETH-BTC: where does the price go, and on what volume?", ""]
    assert [texts(ax) for ax in axes] == [[UP, DOWN, SAME], ["buy aggressor", "sell aggressor"]]


def test_bars_of_a_book_say_what_they_are():
    axes = cb.plot.candles(book_bars(), "BTC-USD")
    assert [ax.get_ylabel() for ax in axes] == ["mid (USD)", "order flow\nimbalance (BTC)"]
    assert axes[0].get_title(loc="left") == "BTC-USD: where does mid go, and does order flow push it?"
    assert texts(axes[1]) == ["net buying", "net selling"]


def test_prices_are_written_whole_and_nothing_overlaps():
    dear = bars_frame().with_columns(pl.col("open", "high", "low", "close") / 1e3 + 87_000)
    upper, lower = cb.plot.candles(dear, "BTC-USD")
    upper.figure.canvas.draw()
    assert all(label.get_text().startswith("8") for label in upper.get_yticklabels() if label.get_text())
    assert upper.get_tightbbox().y0 >= lower.get_tightbbox().y1


def test_all_is_in_the_picture_and_both_share_their_time():
    upper, lower = cb.plot.candles(bars_frame(), "BTC-USD")
    assert upper.get_xlim() == lower.get_xlim()
    left, right = ((edge - dates.date2num(START)) * 86_400 for edge in upper.get_xlim())
    assert -2 < left < 0.6
    assert 39.4 < right < 42
    bottom, top = upper.get_ylim()
    assert bottom < 99 < 105 < top


def test_bars_in_any_order_and_of_others_draw_the_same():
    other = bars_frame().with_columns(product_id=pl.lit("ETH-USD"), high=999.0)
    upper, lower = cb.plot.candles(pl.concat([other, bars_frame().reverse()]), "BTC-USD")
    plain = cb.plot.candles(bars_frame(), "BTC-USD")
    assert wicks(upper) == wicks(plain[0])
    assert boxes(lower, "sell aggressor") == boxes(plain[1], "sell aggressor")


def test_the_sample_s_bars_are_drawn():
    trades = cb.scan_raw(cb.sample_path(), "market_trades")
    bars = cb.trade_bars(trades, "time", "10s").collect()
    upper, lower = cb.plot.candles(bars, "SOL-USD")
    bars = bars.filter(pl.col("product_id") == "SOL-USD")
    drawn = sorted(box[2:] for label in (UP, DOWN, SAME) for box in boxes(upper, label))
    ends = bars.select(low=pl.min_horizontal("open", "close"), high=pl.max_horizontal("open", "close"))
    assert drawn == sorted(ends.rows())
    assert sum(box[3] - box[2] for box in boxes(lower, "buy aggressor")) == pytest.approx(
        bars["buy_volume"].sum()
    )
    book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=1)
    upper, _ = cb.plot.candles(cb.book_bars(book, every="10s").collect(), "SOL-USD")
    upper.figure.canvas.draw()


def test_it_draws_on_given_axes():
    _, axes = plt.subplots(2, 1, sharex=True)
    assert cb.plot.candles(bars_frame(), "BTC-USD", axes=axes) == tuple(axes)
    assert plt.get_fignums() == [1]


def test_frames_are_not_changed():
    bars = bars_frame()
    cb.plot.candles(bars, "BTC-USD")
    assert bars.equals(bars_frame())


@pytest.mark.parametrize(
    ("bars", "told"),
    [
        (bars_frame().with_columns(product_id=pl.lit("A-B")), "no bars of 'BTC-USD' to draw"),
        (bars_frame().drop("high"), "unknown column of the frame 'high'"),
        (bars_frame().drop("last_time"), "unknown column of the frame 'last_time'"),
        (bars_frame().drop("volume"), "unknown column of the frame 'volume'"),
        (bars_frame().with_columns(low=pl.lit(None, pl.Float64)), "no bar of 'BTC-USD' has open, high, low"),
        (bars_frame().with_columns(first_time=pl.lit(None, TIME)), "no bars of 'BTC-USD' to draw"),
    ],
)
def test_bad_use_is_told_before_anything_is_drawn(bars, told):
    with pytest.raises(cb.ConfigError, match=told):
        cb.plot.candles(bars, "BTC-USD")
    assert plt.get_fignums() == []


def test_other_than_two_axes_are_refused():
    _, axes = plt.subplots(3, 1)
    with pytest.raises(cb.ConfigError, match="axes must be 2, one a panel, not 3"):
        cb.plot.candles(bars_frame(), "BTC-USD", axes=axes)
    assert not any(ax.collections for ax in axes)
