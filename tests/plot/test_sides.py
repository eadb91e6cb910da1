"""Spread and imbalance are the book's, also where many rows are drawn as their mean and extremes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
import tiers
from matplotlib import dates

import cbtools as cb
from cbtools.schema import BOOK_STATE, TIME

START = datetime(2025, 11, 26, 14, tzinfo=UTC)
NAN = float("nan")
LETTERS = {"o": "ok", "u": "unproven", "c": "crossed", "1": "one_sided", "e": "empty"}
ALL = (cb.plot.spread, cb.plot.imbalance, cb.plot.panels)


def book_frame(states: str = "ooooo", product_id: str = "BTC-USD") -> pl.DataFrame:
    """Make a row a second, mid 100, spreads of 200, 400, 600, ... bps, two levels; bids grow heavier."""
    n = len(states)
    step = pl.int_range(n, eager=True)
    return pl.DataFrame(
        {
            "product_id": [product_id] * n,
            "server_time": pl.Series([START + timedelta(seconds=i) for i in range(n)], dtype=TIME),
            "bid_price_1": 99.0 - step,
            "ask_price_1": 101.0 + step,
            "bid_size_1": step.cast(pl.Float64),
            "bid_size_2": pl.Series([1.0] * n),
            "ask_size_1": pl.Series([2.0] * n),
            "ask_size_2": pl.Series([3.0] * n),
            "book_state": pl.Series([LETTERS[letter] for letter in states], dtype=BOOK_STATE),
        }
    )


def with_spreads(rows: int, bps: pl.Expr, heavier: pl.Expr | None = None) -> pl.DataFrame:
    """Make a row a millisecond: so many bps of spread, and an imbalance of the best level."""
    heavier = pl.lit(0.0) if heavier is None else heavier
    n = pl.int_range(rows)
    return (
        book_frame("o")
        .select(pl.all().repeat_by(rows).explode())
        .with_columns(
            server_time=pl.col("server_time") + pl.duration(milliseconds=n),
            bid_price_1=100.0 * (1 - bps / 2e4),
            ask_price_1=100.0 * (1 + bps / 2e4),
            bid_size_1=1.0 + heavier,
            ask_size_1=1.0 - heavier,
        )
    )


def at(*seconds: float) -> list[float]:
    return [dates.date2num(START + timedelta(seconds=s)) for s in seconds]


def named(ax, label: str):
    (drawn,) = (d for d in (*ax.lines, *ax.collections) if d.get_label() == label)
    return drawn


def course(ax) -> tuple[np.ndarray, np.ndarray]:
    """Give the spread's line: seconds and values."""
    (line,) = (line for line in ax.lines if line.get_label().startswith("spread"))
    assert line.get_drawstyle() == "steps-post"
    when = line.get_xdata() - np.datetime64(START.replace(tzinfo=None), "ns")
    return when / np.timedelta64(1, "s"), line.get_ydata()


def outline(drawn) -> np.ndarray:
    (path,) = drawn.get_paths()
    return path.vertices


def heights(ax, label: str, *seconds: float) -> list[float]:
    """Read how far from zero a filled area reaches at a time: where a vertical there leaves it."""
    corners = outline(named(ax, label))
    reached = []
    for when in at(*seconds):
        a, b = corners[:-1], corners[1:]
        over = (np.minimum(a[:, 0], b[:, 0]) <= when) & (when < np.maximum(a[:, 0], b[:, 0]))
        ys = a[over, 1]
        reached.append(float(ys[np.abs(ys).argmax()]))
    return reached


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


# --- the spread


def test_the_spread_is_in_bps_of_mid_and_holds_until_the_next_row():
    when, drawn = course(cb.plot.spread(book_frame(), "BTC-USD"))
    np.testing.assert_allclose(drawn, [200, 400, 600, 800, 1000], rtol=1e-12)
    np.testing.assert_array_equal(when, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("state", "uc1e")
def test_the_spread_is_broken_and_shaded_where_the_book_is_not_ok(state):
    ax = cb.plot.spread(book_frame(f"oo{state}{state}o"), "BTC-USD")
    np.testing.assert_allclose(course(ax)[1], [200, 400, NAN, NAN, 1000], rtol=1e-12)
    xs = outline(named(ax, LETTERS[state].replace("_", "-")))[:, 0]
    ends = outline(named(ax, LETTERS[state].replace("_", "-")))[:, 1] == 1
    assert (xs[ends].min(), xs[ends].max()) == pytest.approx(tuple(at(2, 4)), rel=1e-15)


def test_the_spread_is_shown_from_zero_to_above_the_greatest():
    bottom, top = cb.plot.spread(book_frame(), "BTC-USD").get_ylim()
    assert bottom == 0
    assert 1000 < top < 1200


def test_a_spread_that_never_changes_is_shown_below_the_top():
    bottom, top = cb.plot.spread(with_spreads(5, pl.lit(0.5)), "BTC-USD").get_ylim()
    assert bottom == 0
    assert 0.5 < top < 0.6


@pytest.mark.parametrize("draw", ALL)
def test_a_book_that_is_never_ok_is_all_shade(draw):
    drawn = draw(book_frame("uuuuu"), "BTC-USD", **({} if draw is cb.plot.spread else {"levels": 2}))
    ax = drawn[0] if isinstance(drawn, tuple) else drawn
    ax.figure.canvas.draw()
    assert "unproven" in texts(ax)


# --- the imbalance


def test_the_imbalance_is_of_the_first_levels_sizes():
    ax = cb.plot.imbalance(book_frame(), "BTC-USD", levels=2)
    bids = [step + 1.0 for step in range(5)]
    expected = [(b - 5) / (b + 5) for b in bids]
    shown = heights(ax, "more on the asks", 0.5, 1.5, 2.5, 3.5)
    np.testing.assert_allclose(shown, expected[:4], rtol=1e-12)
    one = cb.plot.imbalance(book_frame("oooooo"), "BTC-USD", levels=1)
    np.testing.assert_allclose(heights(one, "more on the asks", 0.5, 1.5), [-1, -1 / 3], rtol=1e-12)
    np.testing.assert_allclose(heights(one, "more on the bids", 3.5, 4.5), [1 / 5, 1 / 3], rtol=1e-12)


def test_a_side_that_is_lighter_has_no_area():
    ax = cb.plot.imbalance(book_frame("oooooo"), "BTC-USD", levels=1)
    assert heights(ax, "more on the bids", 0.5, 1.5) == [0, 0]
    assert heights(ax, "more on the asks", 3.5, 4.5) == [0, 0]


def test_a_level_that_is_not_there_has_no_size():
    book = book_frame().with_columns(bid_size_2=pl.lit(None, pl.Float64))
    ax = cb.plot.imbalance(book, "BTC-USD", levels=2)
    np.testing.assert_allclose(heights(ax, "more on the asks", 0.5, 2.5), [-1, -3 / 7], rtol=1e-12)


def test_the_imbalance_is_empty_where_the_book_is_not_ok():
    ax = cb.plot.imbalance(book_frame("oouuo"), "BTC-USD", levels=2)
    assert heights(ax, "more on the asks", 2.5, 3.5) == [0, 0]
    assert heights(ax, "more on the asks", 1.5) == pytest.approx([-3 / 7])
    assert "unproven" in texts(ax)


def test_no_sizes_at_all_are_no_imbalance():
    sizes = [name for name in book_frame().columns if "_size_" in name]
    ax = cb.plot.imbalance(book_frame().with_columns(pl.col(sizes) * 0.0), "BTC-USD", levels=2)
    assert heights(ax, "more on the asks", 0.5, 1.5) == [0, 0]


def test_the_imbalance_is_shown_whole_with_its_zero():
    ax = cb.plot.imbalance(book_frame(), "BTC-USD", levels=2)
    assert ax.get_ylim() == (-1, 1)
    assert [list(line.get_ydata()) for line in ax.lines] == [[0, 0]]


def test_the_sides_differ_in_colour():
    ax = cb.plot.imbalance(book_frame(), "BTC-USD", levels=2)
    bids, asks = (named(ax, f"more on the {side}").get_facecolor() for side in ("bids", "asks"))
    assert not np.allclose(bids, asks)


# --- many rows


def test_of_many_rows_the_line_is_the_mean_over_time():
    """One row in ten is wide, and lasts as long as the others: the mean is a tenth of it more."""
    wide = pl.int_range(100_001) % 10 == 3
    ax = cb.plot.spread(with_spreads(100_001, 1.0 + 10.0 * wide), "BTC-USD")
    when, drawn = course(ax)
    np.testing.assert_allclose(when, np.linspace(0, 100, 201), atol=1e-9)
    np.testing.assert_allclose(drawn, 2.0, rtol=1e-9)
    ys = outline(named(ax, "least to greatest"))[:, 1]
    assert (ys.min(), ys.max()) == pytest.approx((1.0, 11.0))


def test_a_row_counts_by_the_time_that_it_holds():
    """A row of 1 bps holds for a quarter of each second, one of 5 bps for the rest."""
    rows = 3_001
    n = pl.int_range(rows)
    book = with_spreads(rows, 1.0 + 4.0 * (n % 2)).with_columns(
        server_time=START + pl.duration(seconds=n // 2, milliseconds=(n % 2) * 250)
    )
    _, drawn = course(cb.plot.spread(book, "BTC-USD"))
    np.testing.assert_allclose(np.mean(drawn), 0.25 * 1 + 0.75 * 5, rtol=0.02)


def test_a_value_holds_where_no_row_comes():
    """All rows but the last come in a second; the last of them holds for an hour."""
    rows = 3_000
    n = pl.int_range(rows)
    book = with_spreads(rows, pl.when(n == rows - 2).then(7.0).otherwise(3.0)).with_columns(
        server_time=START
        + pl.when(n == rows - 1).then(pl.duration(hours=1)).otherwise(n * pl.duration(microseconds=300))
    )
    when, drawn = course(cb.plot.spread(book, "BTC-USD"))
    np.testing.assert_allclose(drawn[1:], 7.0, rtol=1e-12)
    assert when[-1] == 3600
    lasts = 0.3e-3 * (rows - 2)
    assert drawn[0] == pytest.approx((3 * lasts + 7 * (18 - lasts)) / 18)


@tiers.parametrize("seed", range(3), every=3)
def test_means_and_extremes_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    rows = 2_500
    time = np.sort(rng.integers(0, 4_000, rows)) * 1_000_000  # many at one time, and some stretches without
    time[:5], time[-1] = 0, 4_000_000_000
    bps = rng.integers(1, 50, rows).astype(float)
    is_ok = np.repeat(rng.random(25) < 0.7, 100)
    book = with_spreads(rows, pl.Series(bps)).with_columns(
        server_time=START + pl.duration(nanoseconds=pl.Series(time)),
        book_state=pl.Series(np.where(is_ok, "ok", "crossed"), dtype=BOOK_STATE),
    )
    ax = cb.plot.spread(book, "BTC-USD")
    when, drawn = course(ax)
    edges = np.round(when * 1e9).astype(np.int64)
    assert set(range(0, 4_000_000_001, 20_000_000)) <= set(edges)
    greatest = heights(ax, "least to greatest", *((edges[:-1] + edges[1:]) / 2e9))
    for k, (begin, end) in enumerate(pairwise(edges)):
        total = lasted = 0.0
        seen = []
        for i in range(rows):
            until = time[i + 1] if i + 1 < rows else time[i]
            held = min(until, end) - max(time[i], begin)
            if is_ok[i] and (held > 0 or begin <= time[i] < end or end == time[i] == time[-1]):
                seen.append(bps[i])
            if is_ok[i] and held > 0:
                total, lasted = total + bps[i] * held, lasted + held
        assert drawn[k] == pytest.approx(total / lasted if lasted else NAN, nan_ok=True)
        assert greatest[k] == pytest.approx(max(seen, default=0.0))
    assert np.isnan(drawn).any()


def test_of_many_rows_the_line_ends_where_the_state_does():
    rows = 10_000
    unproven = pl.int_range(rows).is_between(3_333, 4_443)
    book = with_spreads(rows, pl.lit(2.0), pl.lit(-0.5)).with_columns(
        book_state=pl.when(unproven).then(pl.lit("unproven")).otherwise(pl.lit("ok")).cast(BOOK_STATE)
    )
    when, drawn = course(cb.plot.spread(book, "BTC-USD"))
    gap = when[np.isnan(drawn)]
    assert gap[0] == pytest.approx(3.333)
    assert when[when > gap[-1]][0] == pytest.approx(4.444)
    ax = cb.plot.imbalance(book, "BTC-USD", levels=1)
    assert heights(ax, "more on the asks", 3.332, 3.334, 4.443, 4.445) == pytest.approx([-0.5, 0, 0, -0.5])


def test_a_book_whose_state_flickers_is_drawn_in_no_more_stretches():
    rows = 10_000
    flicker = pl.when(pl.int_range(rows) % 2 == 1).then(pl.lit("crossed")).otherwise(pl.lit("ok"))
    book = with_spreads(rows, 1.0 + pl.int_range(rows) % 2).with_columns(book_state=flicker.cast(BOOK_STATE))
    when, drawn = course(cb.plot.spread(book, "BTC-USD"))
    assert len(when) == 201
    np.testing.assert_allclose(drawn, 1.0, rtol=1e-12)  # of the time at which it is ok


def test_of_many_rows_the_imbalance_is_the_mean_between_its_extremes():
    rows = 50_000
    heavier = pl.when(pl.int_range(rows) % 4 == 0).then(-0.8).otherwise(0.6)
    ax = cb.plot.imbalance(with_spreads(rows, pl.lit(1.0), heavier), "BTC-USD", levels=1)
    assert heights(ax, "more on the bids", 1.1, 20.2) == pytest.approx([0.25, 0.25], abs=0.01)
    ys = outline(named(ax, "least to greatest"))[:, 1]
    assert (ys.min(), ys.max()) == pytest.approx((-0.8, 0.6))
    assert named(ax, "least to greatest").get_zorder() < named(ax, "more on the bids").get_zorder()


@pytest.mark.parametrize("rows", [2_000, 2_001])
def test_few_rows_are_drawn_each(rows):
    ax = cb.plot.spread(with_spreads(rows, pl.lit(1.0)), "BTC-USD")
    assert len(course(ax)[0]) == (rows if rows == 2_000 else 201)
    assert texts(ax) == (["spread"] if rows == 2_000 else ["spread, mean over time", "least to greatest"])


def test_many_rows_of_one_instant_are_drawn():
    book = with_spreads(3_000, pl.lit(1.0)).with_columns(server_time=pl.col("server_time").first())
    assert len(course(cb.plot.spread(book, "BTC-USD"))[0]) == 3_000


# --- one below the other


def test_panels_show_what_the_pictures_alone_do():
    book = book_frame("oouuo")
    top, middle, bottom = cb.plot.panels(book, "BTC-USD", levels=2)
    quotes = cb.plot.quotes(book, "BTC-USD")
    for ours, alone in zip(top.lines, quotes.lines, strict=True):
        np.testing.assert_array_equal(ours.get_ydata(), alone.get_ydata())
    np.testing.assert_array_equal(course(middle)[1], course(cb.plot.spread(book, "BTC-USD"))[1])
    alone = cb.plot.imbalance(book, "BTC-USD", levels=2)
    label = "more on the asks"
    assert heights(bottom, label, 0.5, 1.5, 2.5) == heights(alone, label, 0.5, 1.5, 2.5)
    for ax in (top, middle, bottom):
        shaded = [drawn for drawn in ax.collections if drawn.get_transform() == ax.get_xaxis_transform()]
        assert len(shaded) == 1


@pytest.mark.slow
def test_panels_share_their_time_and_say_each_thing_once():
    axes = cb.plot.panels(book_frame("oouuo"), "BTC-USD", levels=2)
    axes[0].figure.canvas.draw()
    assert len({ax.get_xlim() for ax in axes}) == 1
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["BTC-USD: how wide is the spread, and which side is heavier?", "", ""]
    assert [ax.get_xlabel() for ax in axes] == ["", "", "exchange time (UTC)"]
    shown = [any(label.get_visible() for label in ax.get_xticklabels()) for ax in axes]
    assert shown == [False, False, True]
    assert [texts(ax) for ax in axes] == [
        ["best bid", "best ask", "unproven"],
        ["spread"],
        ["more on the bids", "more on the asks"],
    ]


@pytest.mark.ci
def test_panels_do_not_overlap():
    axes = cb.plot.panels(book_frame("oouuo"), "BTC-USD", levels=2)
    axes[0].figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in axes]
    assert boxes[0].y0 >= boxes[1].y1 > boxes[1].y0 >= boxes[2].y1


def test_axes_have_names_and_units():
    book = book_frame(product_id="ETH-BTC")
    spread, imbalance = (
        draw(book, "ETH-BTC", **more) for draw, more in ((ALL[0], {}), (ALL[1], {"levels": 2}))
    )
    assert spread.get_ylabel() == "spread (bps of mid)"
    assert imbalance.get_ylabel() == "imbalance of 2 levels (-1 to 1)"
    assert spread.get_title(loc="left") == "ETH-BTC: how wide is the spread?"
    assert imbalance.get_title(loc="left") == "ETH-BTC: which side of the book is heavier?"
    assert {ax.get_xlabel() for ax in (spread, imbalance)} == {"exchange time (UTC)"}
    told = [ax.get_ylabel() for ax in cb.plot.panels(book, "ETH-BTC", levels=1)]
    assert told == ["price (BTC)", "spread\n(bps of mid)", "imbalance of\n1 level (-1 to 1)"]


# --- how it is called


def test_rows_in_any_order_of_others_and_without_time_draw_the_same():
    other = book_frame("uuuuu", "ETH-USD")
    timeless = book_frame().with_columns(server_time=pl.lit(None, TIME), bid_price_1=1.0)
    mixed = pl.concat([other, timeless, book_frame("oouoo").reverse()])
    plain, ours = (cb.plot.panels(book, "BTC-USD", levels=2) for book in (book_frame("oouoo"), mixed))
    np.testing.assert_array_equal(course(plain[1]), course(ours[1]))
    asks = [outline(named(ax, "more on the asks")) for ax in (plain[2], ours[2])]
    np.testing.assert_array_equal(*asks)


def test_the_sample_s_numbers_are_the_features():
    book = cb.scan_raw(cb.sample_path(), "level2", products=["SOL-USD"]).pipe(cb.rebuild_book, depth=5)
    book = cb.add_book_features(book, ["spread_bps", "imbalance_5"]).collect()[1_400:2_400]
    when, drawn = course(cb.plot.spread(book, "SOL-USD"))
    expected = book["spread_bps"].cast(pl.Float64).to_numpy()
    assert np.isfinite(expected).sum() > 100
    np.testing.assert_allclose(drawn, expected, rtol=1e-9)
    ax = cb.plot.imbalance(book, "SOL-USD")
    seconds = [(a + b) / 2 for a, b in pairwise(when[500:601])]
    shown = np.add(*(heights(ax, f"more on the {side}", *seconds) for side in ("bids", "asks")))
    np.testing.assert_allclose(shown, book["imbalance_5"][500:600].to_numpy(), rtol=1e-9)


def test_they_draw_on_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert cb.plot.spread(book_frame(), "BTC-USD", ax=right) is right
    assert cb.plot.imbalance(book_frame(), "BTC-USD", levels=1, ax=left) is left
    _, axes = plt.subplots(3, 1)
    assert cb.plot.panels(book_frame(), "BTC-USD", levels=1, axes=axes) == tuple(axes)
    assert plt.get_fignums() == [1, 2]


def test_frames_are_not_changed():
    book = book_frame("oouuo")
    cb.plot.panels(book, "BTC-USD", levels=2)
    assert book.equals(book_frame("oouuo"))


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("missing", ["server_time", "book_state"])
def test_a_column_that_is_not_there_is_named(draw, missing):
    with pytest.raises(cb.ConfigError, match=f"unknown column of the frame '{missing}'"):
        draw(book_frame().drop(missing), "BTC-USD", **({} if draw is cb.plot.spread else {"levels": 1}))
    assert plt.get_fignums() == []


@pytest.mark.parametrize("draw", ALL[1:])
@pytest.mark.parametrize(
    ("levels", "told"),
    [
        (3, r"fewer than 3 levels, it has no bid_size_3: rebuild_book\(depth=3\)"),
        (0, "levels must be a whole number, 1 or more, not 0"),
        (1.0, "levels must be a whole number"),
        (True, "levels must be a whole number"),
        ("5", "levels must be a whole number"),
    ],
)
def test_levels_that_cannot_be_drawn_are_refused(draw, levels, told):
    with pytest.raises(cb.ConfigError, match=told):
        draw(book_frame(), "BTC-USD", levels=levels)
    assert plt.get_fignums() == []


def test_other_bad_use_is_told_before_anything_is_drawn():
    for draw in ALL:
        with pytest.raises(cb.ConfigError, match="no book of 'BTC-UDS' to draw"):
            draw(book_frame(), "BTC-UDS", **({} if draw is cb.plot.spread else {"levels": 1}))
    with pytest.raises(cb.ConfigError, match="ask_price_1"):
        cb.plot.spread(book_frame().drop("ask_price_1"), "BTC-USD")
    assert plt.get_fignums() == []
    _, axes = plt.subplots(2, 1)
    with pytest.raises(cb.ConfigError, match="axes must be 3, one a panel, not 2"):
        cb.plot.panels(book_frame(), "BTC-USD", levels=1, axes=axes)
    assert not any(ax.lines for ax in axes)
