"""Gaps over time: a stem a gap, as high as the frames that it cost. And coverage, of many hours and days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib import dates

import cbtools as cb
from cbtools.schema import TIME, schema

START = datetime(2025, 11, 26, 14, tzinfo=UTC)
BTC = ["BTC-USD"]


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def gaps_frame(*rows: tuple[float | None, int, int, list[str]]) -> pl.DataFrame:
    """Make rows of minute, expected, got and products."""
    return pl.DataFrame(
        [
            (None, 1, expected, got, None if minute is None else at(minute), line, products)
            for line, (minute, expected, got, products) in enumerate(rows)
        ],
        schema=schema("gaps"),
        orient="row",
    )


def hours_frame(*rows: tuple[str, int, int]) -> pl.DataFrame:
    """Make rows of product, hour of the day, messages."""
    return pl.DataFrame(
        [(product, START.replace(hour=hour), messages) for product, hour, messages in rows],
        schema={"product_id": pl.String, "hour": TIME, "messages": pl.Int64},
        orient="row",
    )


def points(ax) -> dict[str, list[tuple[float, float]]]:
    """Kind → minutes and heights of the markers."""
    drawn = {}
    for one in ax.collections:
        if ": " in one.get_label():
            xy = one.get_offsets().data
            minutes = (xy[:, 0] - dates.date2num(START)) * 24 * 60
            kind = one.get_label().partition(":")[0]
            drawn[kind] = [*zip(minutes.round(3).tolist(), xy[:, 1].tolist(), strict=True)]
    return drawn


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def shaded(ax) -> list[float]:
    """Give the hours of the day that are shaded."""
    return [round((patch.get_x() - dates.date2num(START)) * 24 + 14, 6) for patch in ax.patches]


def span(ax) -> tuple[float, float]:
    low, high = ax.get_xlim()
    return tuple(round((x - dates.date2num(START)) * 24 * 60, 3) for x in (low, high))


THREE_KINDS = gaps_frame((30, 7, 12, BTC), (2, 100, 101, []), (10, 0, 3, []), (5, 40, 440, BTC))


# --- what is drawn


def test_a_point_is_a_gap_with_its_lost_frames():
    assert points(cb.plot.gaps(THREE_KINDS)) == {
        "unproved a book": [(5, 400), (30, 5)],
        "start of a connection": [(10, 3)],
        "before any book": [(2, 1)],
    }


def test_each_point_has_a_stem_down_to_the_axis():
    ax = cb.plot.gaps(THREE_KINDS)
    floor = ax.get_ylim()[0]
    tops = []
    for stems in (one for one in ax.collections if hasattr(one, "get_segments")):
        for (x, low), (same, top) in stems.get_segments():
            assert x == same
            assert low == floor
            tops.append(top)
    assert sorted(tops) == [1, 3, 5, 400]


def test_the_kinds_differ_in_colour_and_shape_and_are_counted_in_the_legend():
    ax = cb.plot.gaps(THREE_KINDS)
    assert legend(ax) == [
        "unproved a book: 2 gaps, 405 frames",
        "start of a connection: 1 gap, 3 frames",
        "before any book: 1 gap, 1 frame",
    ]
    markers = [one for one in ax.collections if ": " in one.get_label()]
    assert len({tuple(one.get_facecolor()[0]) for one in markers}) == 3
    assert len({one.get_paths()[0].vertices.tobytes() for one in markers}) == 3


def test_a_connection_that_cost_a_book_counts_as_that():
    assert list(points(cb.plot.gaps(gaps_frame((1, 0, 3, BTC))))) == ["unproved a book"]


@pytest.mark.slow
def test_the_axis_is_logarithmic_in_plain_numbers_and_shows_all():
    ax = cb.plot.gaps(gaps_frame((1, 0, 1, BTC), (2, 0, 25_000, BTC)))
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert 0 < low < 1
    assert high > 25_000
    ax.figure.canvas.draw()
    shown = [text.get_text() for text in ax.get_yticklabels()]
    assert {"1", "10,000"} <= set(shown)


def test_a_gap_of_one_frame_is_seen_on_an_axis_of_some_length():
    ax = cb.plot.gaps(gaps_frame((1, 4, 5, BTC)))
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert high >= 10
    shown = [
        t.get_text() for t, y in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True) if low < y < high
    ]
    assert shown[:3] == ["1", "2", "5"]
    assert span(ax) == pytest.approx((1 - 1 / 60, 1 + 1 / 60), abs=2e-3)


def test_it_says_what_it_is():
    ax = cb.plot.gaps(THREE_KINDS)
    assert ax.get_title(loc="left") == "When were frames lost, and how many?"
    assert ax.get_xlabel() == "time of receipt (UTC)"
    assert ax.get_ylabel() == "frames lost in a gap"


def test_the_sample_s_gaps_are_drawn():
    tables = cb.read_raw(cb.sample_path())
    ax = cb.plot.gaps(tables.gaps)
    (drawn,) = points(ax).values()
    assert [lost for _, lost in drawn] == (tables.gaps["got"] - tables.gaps["expected"]).to_list()
    assert sum(lost for _, lost in drawn) == tables.report.lost_frames


def test_many_gaps_are_thinned_and_the_largest_stays():
    n = 9_000
    many = pl.concat([gaps_frame((0, 10, 11, BTC))] * n).with_columns(
        capture_time=pl.col("capture_time") + pl.duration(seconds=pl.int_range(n)),
        got=pl.when(pl.int_range(n) == 4_321).then(510).otherwise("got"),
    )
    ax = cb.plot.gaps(many)
    (drawn,) = points(ax).values()
    assert 1_000 <= len(drawn) <= 4_000
    assert max(drawn, key=lambda point: point[1]) == pytest.approx((4_321 / 60, 500), abs=2e-3)
    assert legend(ax) == ["unproved a book: 9,000 gaps, 9,499 frames"]


# --- when


def test_the_hours_without_messages_are_shaded():
    hours = hours_frame(("A-USD", 14, 9), ("B-USD", 15, 1), ("B-USD", 16, 0), ("A-USD", 18, 9))
    ax = cb.plot.gaps(THREE_KINDS, hours=hours)
    assert shaded(ax) == [16, 17]
    assert span(ax) == (0, 300)
    assert legend(ax)[-1] == "no messages in this hour"


def test_hours_that_all_have_messages_shade_nothing():
    ax = cb.plot.gaps(THREE_KINDS, hours=hours_frame(("A-USD", 14, 9), ("A-USD", 15, 9)))
    assert shaded(ax) == []
    assert span(ax) == (0, 120)


def test_a_span_goes_before_the_hours_and_leaves_gaps_outside_out():
    hours = hours_frame(("A-USD", 14, 9), ("A-USD", 15, 9))
    ax = cb.plot.gaps(THREE_KINDS, hours=hours, span=(at(-60), at(20)))
    assert span(ax) == (-60, 20)
    assert points(ax)["unproved a book"] == [(5, 400)]
    assert legend(ax)[0] == "unproved a book: 1 gap, 400 frames"
    assert shaded(ax) == [13]


def test_times_without_a_zone_are_utc():
    plain = tuple(time.replace(tzinfo=None) for time in (at(0), at(20)))
    assert span(cb.plot.gaps(THREE_KINDS, span=plain)) == (0, 20)


@pytest.mark.parametrize("wrong", [(at(5), at(5)), (at(6), at(5))])
def test_a_span_that_does_not_go_forwards_is_refused(wrong):
    with pytest.raises(cb.ConfigError, match="the earlier first"):
        cb.plot.gaps(THREE_KINDS, span=wrong)
    assert plt.get_fignums() == []


# --- none, and none that can be drawn


@pytest.mark.parametrize("told", ["span", "hours"])
def test_no_gaps_are_an_empty_picture_that_says_so(told):
    options = {"span": (at(0), at(60))} if told == "span" else {"hours": hours_frame(("A-USD", 14, 9))}
    ax = cb.plot.gaps(THREE_KINDS.clear(), **options)
    assert [text.get_text() for text in ax.texts] == ["no gaps"]
    assert points(ax) == {}
    assert ax.get_legend() is None
    assert span(ax) == (0, 60)
    ax.figure.canvas.draw()


def test_gaps_all_outside_of_the_span_are_none():
    ax = cb.plot.gaps(THREE_KINDS, span=(at(40), at(60)))
    assert [text.get_text() for text in ax.texts] == ["no gaps"]


def test_no_gaps_at_no_known_time_are_refused():
    for hours in (None, hours_frame(), hours_frame(("A-USD", 14, 0))):
        with pytest.raises(cb.ConfigError, match=r"give span=\(first, last\)"):
            cb.plot.gaps(THREE_KINDS.clear(), hours=hours)
    assert plt.get_fignums() == []


def test_gaps_of_bare_frames_have_no_time_to_be_drawn_at():
    with pytest.raises(cb.ConfigError, match="no capture_time, as those of bare frames"):
        cb.plot.gaps(gaps_frame((None, 1, 2, BTC)), span=(at(0), at(1)))
    assert plt.get_fignums() == []


def test_how_many_have_no_time_is_told_beside_those_that_have():
    ax = cb.plot.gaps(gaps_frame((None, 1, 2, BTC), (3, 1, 2, BTC), (None, 5, 6, [])))
    assert points(ax) == {"unproved a book": [(3, 1)]}
    assert legend(ax)[-1] == "not drawn: 2 gaps without time of receipt"


# --- how it is called


@pytest.mark.parametrize("column", ["expected", "got"])
def test_a_gap_has_both_numbers(column):
    with pytest.raises(cb.ConfigError, match="a gap has no expected or got"):
        cb.plot.gaps(THREE_KINDS.with_columns(pl.lit(None, dtype=pl.Int64).alias(column)))
    assert plt.get_fignums() == []


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(cb.ConfigError, match="products"):
        cb.plot.gaps(THREE_KINDS.drop("products"))
    with pytest.raises(cb.ConfigError, match="messages"):
        cb.plot.gaps(THREE_KINDS, hours=hours_frame(("A-USD", 14, 9)).drop("messages"))
    assert plt.get_fignums() == []


def test_it_draws_on_a_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert cb.plot.gaps(THREE_KINDS, ax=right) is right
    assert not left.collections
    assert plt.get_fignums() == [1]


def test_the_order_of_rows_does_not_matter():
    ours, theirs = (points(cb.plot.gaps(frame)) for frame in (THREE_KINDS, THREE_KINDS.reverse()))
    assert ours == theirs
    np.testing.assert_array_equal(THREE_KINDS["capture_time"][0], at(30))  # the frame is not changed


# --- coverage, of many hours and days


def coverage_frame(products: int, hours: int, first: datetime = START) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (f"P{k:02}-USD", first + timedelta(hours=hour), 60, 10, 9)
            for k in range(products)
            for hour in range(hours)
        ],
        schema={"product_id": pl.String, "hour": TIME}
        | dict.fromkeys(("minutes", "messages", "ok"), pl.Int64),
        orient="row",
    )


@pytest.mark.parametrize(
    ("products", "hours", "legible"), [(6, 24, True), (26, 26, True), (27, 2, False), (2, 27, False)]
)
def test_a_day_of_some_products_shows_its_shares_and_the_title_promises_no_more(products, hours, legible):
    ax = cb.plot.coverage(coverage_frame(products, hours))
    assert [text.get_text() for text in ax.texts] == ["90%"] * (products * hours if legible else 0)
    title = "What is covered, and how much of the book is ok?" if legible else "What is covered?"
    assert ax.get_title(loc="left") == title


def test_the_hours_of_more_days_name_the_day_where_it_begins():
    ax = cb.plot.coverage(coverage_frame(1, 48, START.replace(hour=0)))
    ticks = [text.get_text() for text in ax.get_xticklabels()]
    assert ticks[:2] == ["00\n11-26", "04"]
    assert ticks[6:8] == ["00\n11-27", "04"]
    assert ax.get_xlabel() == "hour (UTC), 2025-11-26 to 2025-11-27"


def test_between_two_cells_is_a_line():
    ax = cb.plot.coverage(coverage_frame(2, 3))
    assert (list(ax.get_xticks(minor=True)), list(ax.get_yticks(minor=True))) == ([0.5, 1.5], [0.5])
