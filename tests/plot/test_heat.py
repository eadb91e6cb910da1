"""The heat map's cells are the book's sizes, and what is not known is not drawn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib import dates

import cbtools as cb
from cbtools.schema import BOOK_STATE, TIME, TRADE_SIDE

START = datetime(2025, 11, 26, 14, tzinfo=UTC)
NAN = float("nan")


def level(side: str, prices: list, sizes: list, n: int) -> dict:
    return {f"{side}_price_{n}": prices, f"{side}_size_{n}": sizes}


def book_frame() -> pl.DataFrame:
    """Three rows, the book of a second each but the last; two levels a side, prices a tick of 1 apart."""
    return pl.DataFrame(
        {
            "product_id": ["A-USD"] * 3,
            "server_time": pl.Series([START + timedelta(seconds=s) for s in (0, 1, 2)], dtype=TIME),
            "book_state": pl.Series(["ok", "ok", "ok"], dtype=BOOK_STATE),
            **level("bid", [99.0, 100.0, 100.0], [1.0, 5.0, 5.0], 1),
            **level("bid", [97.0, 99.0, 99.0], [2.0, 1.0, 1.0], 2),
            **level("ask", [101.0, 101.0, 101.0], [4.0, 8.0, 8.0], 1),
            **level("ask", [102.0, 104.0, 104.0], [16.0, 32.0, 32.0], 2),
        }
    )


def trades_frame() -> pl.DataFrame:
    """Make a buy, a sell of a quarter, one of a snapshot, one of later, one off the picture, another's."""
    return pl.DataFrame(
        {
            "product_id": ["A-USD"] * 5 + ["B-USD"],
            "trade_time": pl.Series([START + timedelta(seconds=s) for s in (1, 0.5, 0, 9, 1, 1)], dtype=TIME),
            "price": [101.0, 99.0, 99.0, 101.0, 500.0, 101.0],
            "size": [4.0, 1.0, 64.0, 64.0, 64.0, 64.0],
            "aggressor_side": pl.Series(["buy", "sell", "buy", "buy", "buy", "buy"], dtype=TRADE_SIDE),
            "is_snapshot": [False, False, True, False, False, False],
        }
    )


def cells(ax) -> np.ndarray:
    """Give the image's sizes, 0 for the darkest."""
    shown = ax.images[0].get_array().filled(NAN)
    return np.where(shown == ax.images[0].norm.vmin / 10, 0.0, shown)


def at(ax, seconds: float, price: float) -> float:
    """Read the picture at a time and a price."""
    left, right, bottom, top = ax.images[0].get_extent()
    rows, columns = cells(ax).shape
    when = dates.date2num(START + timedelta(seconds=seconds))
    column, row = (when - left) / (right - left) * columns, (price - bottom) / (top - bottom) * rows
    return cells(ax)[int(row), int(column)]


# --- the cells


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        # price    96   97   98   99   100  101  102   103  104   105
        (0.0, [NAN, 2.0, 0.0, 1.0, 0.0, 4.0, 16.0, NAN, NAN, NAN]),
        (0.99, [NAN, 2.0, 0.0, 1.0, 0.0, 4.0, 16.0, NAN, NAN, NAN]),
        (1.01, [NAN, NAN, NAN, 1.0, 5.0, 8.0, 0.0, 0.0, 32.0, NAN]),
        (1.99, [NAN, NAN, NAN, 1.0, 5.0, 8.0, 0.0, 0.0, 32.0, NAN]),
    ],
)
def test_a_cell_is_the_size_that_rests_then_and_there(seconds, sizes):
    ax = cb.plot.heatmap(book_frame(), "A-USD", within_bps=500)
    drawn = [at(ax, seconds, price) for price in range(96, 106)]
    np.testing.assert_array_equal(drawn, sizes)


@pytest.mark.ci
def test_levels_that_fall_together_are_summed():
    price = pl.Series([100.0 + i * 0.01 for i in range(1, 1001)])
    row = {"product_id": "A-USD", "server_time": START, "book_state": "ok"}
    row |= {f"ask_price_{i + 1}": price[i] for i in range(1000)} | {
        f"ask_size_{i + 1}": 1.0 for i in range(1000)
    }
    row |= {f"bid_price_{i + 1}": 100.0 - i * 0.01 for i in range(1000)}
    row |= {f"bid_size_{i + 1}": 1.0 for i in range(1000)}
    ax = cb.plot.heatmap(pl.DataFrame([row]), "A-USD", within_bps=900)
    shown = cells(ax)[:, 0]
    assert len(shown) <= 241
    ticks = round(np.diff(ax.images[0].get_extent()[2:])[0] / len(shown) / 0.01)
    assert ticks > 1
    assert set(shown[20:-20]) == {float(ticks)}  # one size a tick
    assert ax.images[0].colorbar.ax.get_ylabel() == f"size resting at {ticks * 0.01:.6g} USD (A)"


def test_a_price_that_moves_by_a_tick_moves_by_a_row():
    ax = cb.plot.heatmap(book_frame(), "A-USD", within_bps=500)
    bottom, top = ax.images[0].get_extent()[2:]
    assert (top - bottom) / cells(ax).shape[0] == pytest.approx(1.0)
    assert bottom % 1 == pytest.approx(0.5)  # a price is in the middle of its row


def test_an_instant_shows_no_later_row():
    """Of 4,000 rows, a column shows the last one before it begins."""
    n = 4_000
    book = book_frame()[:1].select(pl.all().repeat_by(n).explode()).with_columns(
        server_time=pl.col("server_time") + pl.duration(milliseconds=pl.int_range(n)),
        bid_size_1=100.0 + pl.int_range(n),
    )  # fmt: skip
    ax = cb.plot.heatmap(book, "A-USD", within_bps=500)
    (row,) = (line for line in cells(ax) if line[-1] > 3_000)
    columns = len(row)
    assert columns == 800
    begins = np.arange(columns) * (n - 1) / columns
    np.testing.assert_array_equal(row, 100 + np.floor(begins))


def test_a_row_that_shows_a_whole_side_tells_that_there_is_no_more():
    book = book_frame().with_columns(
        ask_price_1=pl.when(pl.int_range(3) != 1).then("ask_price_1"),
        ask_price_2=pl.when(pl.int_range(3) != 1).then("ask_price_2"),
        book_state=pl.Series(["ok", "one_sided", "ok"], dtype=BOOK_STATE),
    )
    ax = cb.plot.heatmap(book, "A-USD", within_bps=500)
    drawn = [at(ax, 1.5, price) for price in (99, 100, 101, 104)]
    np.testing.assert_array_equal(drawn, [1.0, 5.0, 0.0, 0.0])
    assert at(ax, 1.5, 105) == 0.0
    np.testing.assert_array_equal([at(ax, 0.5, 105), at(ax, 1.5, 98)], [NAN, NAN])


def test_the_span_is_what_is_asked_for():
    ax = cb.plot.heatmap(book_frame(), "A-USD", within_bps=100)
    low, high = ax.get_ylim()
    assert low <= 100.0 * 0.99 < low + 1
    assert high - 1 <= 100.5 * 1.01 <= high


def test_the_span_is_otherwise_that_of_the_levels():
    low, high = cb.plot.heatmap(book_frame(), "A-USD").get_ylim()
    assert low == pytest.approx(99.5 - 0.5, abs=1.0)  # 50 bps at most
    assert high == pytest.approx(101 + 0.5, abs=1.0)


def test_the_sample_s_sizes_are_drawn():
    book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=50).collect()
    ax = cb.plot.heatmap(book, "SOL-USD", within_bps=15)
    left, right, _, _ = ax.images[0].get_extent()
    when = dates.num2date(left + (right - left) * 600 / 800)
    of_product = book.filter(pl.col("server_time") <= when, pl.col("product_id") == "SOL-USD")
    last = of_product.row(-1, named=True)
    seconds = (when - START).total_seconds() + 0.01
    for i in (1, 3, 7):
        for side in ("bid", "ask"):
            assert at(ax, seconds, last[f"{side}_price_{i}"]) == last[f"{side}_size_{i}"]


# --- mid, trades, veils


def test_mid_is_drawn_where_it_is_proven():
    book = book_frame().with_columns(book_state=pl.Series(["ok", "unproven", "ok"], dtype=BOOK_STATE))
    ax = cb.plot.heatmap(book, "A-USD")
    (line, _) = (line for line in [*ax.lines, None] if line is None or line.get_label() == "mid")
    np.testing.assert_array_equal(line.get_ydata(), [100.0, NAN, 100.5])
    assert line.get_drawstyle() == "steps-post"


def test_the_unproven_stretch_is_veiled():
    book = book_frame().with_columns(book_state=pl.Series(["ok", "unproven", "ok"], dtype=BOOK_STATE))
    ax = cb.plot.heatmap(book, "A-USD")
    (veil,) = (drawn for drawn in ax.collections if drawn.get_label() == "unproven")
    corners = veil.get_paths()[0].vertices
    xs = corners[corners[:, 1] == 1.0, 0]
    begin, end = (dates.date2num(START + timedelta(seconds=s)) for s in (1, 2))
    assert (xs.min(), xs.max()) == pytest.approx((begin, end), rel=1e-15)
    assert veil.get_zorder() > ax.images[0].get_zorder()


def circles(ax) -> dict:
    return {drawn.get_label(): drawn for drawn in ax.collections if drawn.get_label().endswith("aggressor")}


def test_circles_are_the_trades_by_area():
    ax = cb.plot.heatmap(book_frame(), "A-USD", trades=trades_frame(), within_bps=500)
    drawn = circles(ax)
    buy, sell = drawn["buy aggressor"], drawn["sell aggressor"]
    second = dates.date2num(START + timedelta(seconds=1))
    np.testing.assert_allclose(buy.get_offsets().data, [(second, 101.0)], rtol=1e-15)
    assert sell.get_offsets().data[0, 1] == 99.0
    assert buy.get_sizes()[0] == 4 * sell.get_sizes()[0]
    assert not np.allclose(buy.get_facecolor(), sell.get_facecolor())
    assert "largest circle 4 A" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_many_trades_are_summed_into_circles():
    n = 3_000
    trades = trades_frame()[:1].select(pl.all().repeat_by(n).explode()).with_columns(
        trade_time=START + pl.duration(milliseconds=pl.int_range(n) % 1500), price=99.0 + pl.int_range(n) % 2
    )  # fmt: skip
    ax = cb.plot.heatmap(book_frame(), "A-USD", trades=trades, within_bps=500)
    offsets = circles(ax)["buy aggressor"].get_offsets()
    assert 100 < len(offsets) <= 242
    assert len(circles(ax)["sell aggressor"].get_offsets()) == 0


def test_without_trades_there_are_no_circles():
    assert circles(cb.plot.heatmap(book_frame(), "A-USD")) == {}
    none = cb.plot.heatmap(book_frame(), "A-USD", trades=trades_frame().clear())
    assert [len(drawn.get_offsets()) for drawn in circles(none).values()] == [0, 0]


# --- what it says, and how it is called


def test_it_says_what_it_is():
    ax = cb.plot.heatmap(book_frame(), "A-USD", trades=trades_frame(), within_bps=500)
    ax.figure.canvas.draw()
    assert ax.get_title(loc="left") == "A-USD: where does liquidity rest, and what do trades meet?"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("exchange time (UTC)", "price (USD)")
    assert ax.images[0].colorbar.ax.get_ylabel() == "size resting at 1 USD (A)"
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert told == ["mid", "buy aggressor", "sell aggressor", "largest circle 4 A"]


def test_rows_in_any_order_and_of_others_draw_the_same():
    other = book_frame().with_columns(product_id=pl.lit("B-USD"), bid_size_1=77.0)
    plain = cb.plot.heatmap(book_frame(), "A-USD", within_bps=500)
    mixed = cb.plot.heatmap(pl.concat([other, book_frame().reverse()]), "A-USD", within_bps=500)
    np.testing.assert_array_equal(cells(plain), cells(mixed))


def test_it_draws_on_a_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert cb.plot.heatmap(book_frame(), "A-USD", ax=right) is right
    assert not left.images
    assert plt.get_fignums() == [1]


def test_a_year_is_a_picture():
    book = book_frame().with_columns(server_time=START + pl.duration(days=pl.int_range(3) * 180))
    ax = cb.plot.heatmap(book, "A-USD", within_bps=500)
    assert (cells(ax)[:, 0] == 16.0).sum() == 1
    assert (cells(ax)[:, -1] == 32.0).sum() == 1


@pytest.mark.slow
def test_one_row_is_a_picture():
    ax = cb.plot.heatmap(book_frame()[:1], "A-USD", within_bps=500)
    ax.figure.canvas.draw()
    assert np.nansum(cells(ax)[:, 0]) == 23.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"product_id": "B-USD"}, "no book of 'B-USD' to draw"),
        ({"book": book_frame().lazy()}, "not of a LazyFrame: collect it"),
        ({"within_bps": 0}, "within_bps must be a positive distance"),
        ({"book": book_frame().drop("bid_size_2")}, "bid_size_2"),
        ({"book": book_frame().drop("book_state")}, "book_state"),
        ({"book": book_frame().with_columns(ask_price_1=pl.lit(None, pl.Float64))}, "never has both sides"),
    ],
)
def test_bad_use_is_told_before_anything_is_drawn(change, told):
    call = {"book": book_frame(), "product_id": "A-USD"} | change
    with pytest.raises(cb.ConfigError, match=told):
        cb.plot.heatmap(call.pop("book"), call.pop("product_id"), **call)
    assert plt.get_fignums() == []
