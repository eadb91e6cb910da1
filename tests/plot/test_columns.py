"""What is drawn of a fit and of a day: the artists hold the numbers, and what is not shown is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
import tiers
from matplotlib import colors

import cbtools as cb
from cbtools.plot import canvas
from cbtools.schema import TIME

START = datetime(2025, 11, 24, tzinfo=UTC)


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def pairs(n: int, *, seed: int = 1) -> pl.DataFrame:
    draws = np.random.default_rng(seed)
    x = draws.standard_t(3, n)
    return pl.DataFrame({"x": x, "y": 1.0 + 2.0 * x + draws.normal(size=n)})


def line_of(frame: pl.DataFrame, y: str = "y", x: str = "x") -> pl.DataFrame:
    return cb.regress(frame, y, x).collect()


def fitted(frame: pl.DataFrame, **options):
    return cb.plot.fit(frame, "y", "x", line_of(frame), **options)


def drawn_line(ax):
    (line,) = (line for line in ax.lines if line.get_label().startswith("slope"))
    return line


def medians(ax):
    (line,) = (line for line in ax.lines if line.get_label().startswith("medians"))
    return line.get_xydata()


# --- fit


def test_the_points_are_the_rows_and_the_line_is_the_regression_s():
    frame = pairs(200)
    ax = fitted(frame)
    (points,) = ax.collections
    np.testing.assert_array_equal(points.get_offsets().data, frame.to_numpy())
    slope, intercept = np.polyfit(frame["x"], frame["y"], 1)
    x, y = drawn_line(ax).get_data()
    np.testing.assert_allclose(y, intercept + slope * x, rtol=1e-12)
    assert tuple(x) == ax.get_xlim()


def test_the_legend_tells_slope_error_t_r2_and_n():
    frame = pl.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [0.0, 2.0, 3.0, 7.0]})
    # by hand: Sxy 11, Sxx 5, Syy 26, residuals' squares 1.8
    assert legend(fitted(frame)) == ["slope 2.2 ± 0.42, t 5.2, R² 0.931, n 4", "rows"]


def test_the_title_asks_and_the_axes_have_their_units():
    frame = pairs(30)
    ax = fitted(frame)
    assert ax.get_title(loc="left") == "Does x explain y?"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    ax = fitted(frame.with_columns(product_id=pl.lit("BTC-USD")), xunit="BTC", yunit="bps of mid")
    assert ax.get_title(loc="left") == "BTC-USD: does x explain y?"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (BTC)", "y (bps of mid)")


def test_rows_without_both_are_left_out_as_by_the_regression():
    frame = pl.DataFrame(
        {
            "x": [1.0, 2.0, None, 4.0, float("inf"), 6.0, 7.0],
            "y": [1.0, None, 3.0, 4.5, 5.0, float("nan"), 7.0],
        }
    )
    ax = fitted(frame)
    np.testing.assert_array_equal(ax.collections[0].get_offsets().data, [[1, 1], [4, 4.5], [7, 7]])
    assert legend(ax)[0].endswith("n 3")


def test_whole_numbers_and_a_column_on_itself_can_be_drawn():
    frame = pl.DataFrame({"x": [1, 2, 3, 5]})
    ax = cb.plot.fit(frame, "x", "x", line_of(frame, "x", "x"))
    np.testing.assert_array_equal(ax.collections[0].get_offsets().data[:, 1], [1, 2, 3, 5])
    assert legend(ax)[0] == "slope 1 ± undefined, t undefined, R² 1, n 4"


@pytest.mark.parametrize("x", [[1.0, 1.0, 1.0], [1.0, 2.0]])
def test_where_no_line_is_defined_none_is_drawn_and_that_is_told(x):
    ax = fitted(pl.DataFrame({"x": x, "y": [1.0, 2.0, 3.0][: len(x)]}))
    assert legend(ax) == [f"no line: {len(x)} rows, too few, or x is constant", "rows"]
    assert not any(len(line.get_xdata()) for line in ax.lines)
    ax.figure.canvas.draw()


def test_up_to_1000_rows_none_lies_outside():
    frame = pairs(999).vstack(pl.DataFrame({"x": [1e6], "y": [-1e6]}))
    ax = fitted(frame)
    assert not any("outside" in text for text in legend(ax))
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x, y = frame["x"], frame["y"]
    assert left < x.min() < x.max() < right
    assert low < y.min() < y.max() < high


@pytest.mark.parametrize("n", [4_000, 20_000])
def test_how_many_rows_lie_outside_is_told(n):
    frame = pairs(n)
    frame = frame.with_columns(y=pl.when(pl.int_range(n) == 5).then(1e6).otherwise("y"))
    ax = fitted(frame)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    within = frame.filter(pl.col("x").is_between(left, right), pl.col("y").is_between(low, high)).height
    assert n * 0.996 <= within < n
    assert legend(ax)[-1] == f"{n - within:,} rows lie outside"


def test_more_than_5000_points_are_counted_in_cells():
    frame = pairs(5_001)
    ax = fitted(frame)
    assert not ax.collections
    (image,) = ax.images
    left, right, low, high = image.get_extent()
    assert (left, right, low, high) == (*ax.get_xlim(), *ax.get_ylim())
    drawn = np.ma.filled(image.get_array(), 0)
    counts, *_ = np.histogram2d(frame["y"], frame["x"], bins=drawn.shape, range=((low, high), (left, right)))
    np.testing.assert_array_equal(drawn, counts)
    assert image.origin == "lower"
    assert isinstance(image.norm, colors.LogNorm)
    assert image.colorbar.ax.get_ylabel() == "rows a cell"
    assert len(fitted(pairs(5_000)).collections) == 1


def test_an_empty_cell_has_no_colour():
    (image,) = fitted(pairs(6_000)).images
    assert np.ma.getmaskarray(np.ma.masked_invalid(image.get_array())).any()
    assert image.get_cmap()(np.nan)[3] == 0.0


def test_the_medians_are_those_of_equal_parts_of_x():
    frame = pairs(4_000)
    drawn = medians(fitted(frame))
    parts = np.array_split(frame.sort("x").to_numpy(), 20)
    np.testing.assert_allclose(drawn, [np.median(part, axis=0) for part in parts], rtol=0.02, atol=0.02)
    assert len(drawn) == 20


def test_the_medians_leave_the_line_where_it_bends():
    frame = pairs(3_000).with_columns(y=pl.col("x") ** 2)
    x, y = medians(fitted(frame)).T
    np.testing.assert_allclose(y, x**2, atol=0.3)
    assert y[0] > y[10] < y[-1]


def test_equal_x_are_in_one_part():
    n = 2_000
    frame = pl.DataFrame(
        {"x": np.where(np.arange(n) % 4 < 3, 0.0, np.arange(n) - n / 2), "y": np.arange(n) * 1.0}
    )
    x = medians(fitted(frame))[:, 0]
    assert len(set(x)) == len(x)
    assert (x == 0).sum() == 1


def test_few_rows_have_no_medians():
    assert not any(text.startswith("medians") for text in legend(fitted(pairs(59))))
    assert legend(fitted(pairs(60)))[-1] == "medians in 3 parts of x"


def test_a_constant_y_is_drawn():
    ax = fitted(pl.DataFrame({"x": [1.0, 2.0, 3.0], "y": [5.0] * 3}))
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert low < 5.0 < high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, _: (f.lazy(), line_of(f)), "the frame must be a polars.DataFrame: collect it"),
        (lambda f, _: (f, cb.regress(f, "y", "x")), "the line must be a polars.DataFrame: collect it"),
        (lambda f, line: (f.drop("x"), line), "unknown column of the frame 'x'"),
        (lambda f, line: (f.with_columns(y=pl.lit("a")), line), "y must be a column of numbers, not of Str"),
        (lambda f, line: (f, line.drop("se")), "unknown column of the line 'se'"),
        (lambda f, line: (f, line.clear()), "the line has 0 rows, not one"),
        (lambda f, line: (f, line.vstack(line)), "the line has 2 rows, not one: filter frame and line"),
        (lambda f, line: (f.clear(), line), "no row has both x and y"),
        (lambda f, line: (f.with_columns(x=None).cast({"x": pl.Float64}), line), "no row has both x and y"),
        (
            lambda f, one: (f.with_columns(product_id=pl.lit("A")), one.select("*", product_id=pl.lit("B"))),
            "the line is of 'B', not of the rows' 'A'",
        ),
        (
            lambda f, line: (f.with_columns(product_id=(pl.col("x") > 0).cast(pl.String)), line),
            r"several products \(false, true\): filter it to one product, as by frame.filter",
        ),
    ],
)  # fmt: skip
def test_a_fit_that_cannot_be_meant_is_told_before_anything_is_drawn(change, message):
    frame = pairs(20)
    frame, line = change(frame, line_of(frame))
    with pytest.raises(cb.ConfigError, match=message):
        cb.plot.fit(frame, "y", "x", line)
    assert plt.get_fignums() == []


# --- seasonality


def day_frame(*rows: tuple[float, float | None], product_id: str | None = None) -> pl.DataFrame:
    """Make rows of hours since a midnight, and a value."""
    frame = pl.DataFrame(
        {
            "server_time": pl.Series([START + timedelta(hours=hour) for hour, _ in rows], dtype=TIME),
            "v": pl.Series([value for _, value in rows], dtype=pl.Float64),
        }
    )
    return frame if product_id is None else frame.with_columns(product_id=pl.lit(product_id))


def steps(ax) -> dict:
    return {patch.get_label(): patch.get_data() for patch in ax.patches}


def ticks(ax) -> list[str]:
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    return [text.get_text() for text in ax.get_xticklabels() if low <= text.get_position()[0] <= high]


def test_a_bin_s_steps_are_its_quantiles_over_all_days():
    draws = np.random.default_rng(3).normal(size=(3, 48, 7))
    rows = [
        (24 * day + bin_ / 2 + k / 14, draws[day, bin_, k])
        for day in range(3) for bin_ in range(48) for k in range(7)
    ]  # fmt: skip
    ax = cb.plot.seasonality(day_frame(*rows), "v")
    drawn = steps(ax)
    assert list(drawn) == ["5–95%", "25–75%", "median"]
    by_bin = np.moveaxis(draws, 1, 0).reshape(48, 21)
    for label, quantiles in (("5–95%", (0.05, 0.95)), ("25–75%", (0.25, 0.75)), ("median", (None, 0.5))):
        below, above = quantiles
        np.testing.assert_allclose(drawn[label].values, np.quantile(by_bin, above, axis=1), rtol=1e-12)
        np.testing.assert_array_equal(drawn[label].edges, np.arange(49) * 1800.0)
        if below is not None:
            np.testing.assert_allclose(drawn[label].baseline, np.quantile(by_bin, below, axis=1), rtol=1e-12)
    assert legend(ax)[-1] == "3 days, 21 rows a bin"


def test_a_bin_without_rows_is_a_gap():
    rows = [(hour, float(hour)) for hour in range(24) if hour not in (3, 4)]
    drawn = steps(cb.plot.seasonality(day_frame(*rows), "v", every="1h"))
    for data in drawn.values():
        assert np.flatnonzero(np.isnan(data.values)).tolist() == [3, 4]
    assert drawn["median"].values[[2, 5, 23]].tolist() == [2.0, 5.0, 23.0]


def test_a_day_is_shown_whole_from_midnight_to_midnight():
    ax = cb.plot.seasonality(day_frame((1, 1.0), (13.6, 2.0), (30, 3.0)), "v")
    assert ax.get_xlim() == (0, 24 * 3600)
    assert ticks(ax) == [f"{hour:02}:00" for hour in range(0, 25, 3)]
    assert legend(ax)[-1] == "2 days, 1 rows a bin"


def test_half_a_day_or_less_is_shown_alone_with_minutes():
    ax = cb.plot.seasonality(day_frame((9.26, 1.0), (9.8, 2.0), (9.9, 3.0)), "v", every="15m")
    assert ax.get_xlim() == (9.25 * 3600, 10 * 3600)
    assert ticks(ax) == [
        "09:15",
        "09:20",
        "09:25",
        "09:30",
        "09:35",
        "09:40",
        "09:45",
        "09:50",
        "09:55",
        "10:00",
    ]
    assert legend(ax)[-1] == "1 day, 1 to 2 rows a bin"


def test_a_few_seconds_are_told_apart():
    ax = cb.plot.seasonality(day_frame((14, 1.0), (14 + 3.5 / 3600, 2.0)), "v", every="1s")
    assert ticks(ax) == ["14:00:00", "14:00:01", "14:00:02", "14:00:03", "14:00:04"]


def test_rows_without_time_or_value_are_left_out():
    frame = day_frame((1, 1.0), (1, None), (1, float("nan")), (1, float("inf")), (1, 3.0))
    lost = frame.head(1).with_columns(server_time=pl.lit(None, dtype=TIME), v=pl.lit(99.0))
    ax = cb.plot.seasonality(frame.vstack(lost), "v")
    assert steps(ax)["median"].values.tolist() == [2.0]
    assert legend(ax)[-1] == "1 day, 2 rows a bin"


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", None])
def test_the_time_of_day_is_that_of_utc(unit, zone):
    frame = day_frame((-25.5, 1.0), (22.6, 2.0))  # the former before midnight of another day
    kind = pl.col("server_time").dt.cast_time_unit(unit)
    frame = frame.with_columns(kind.dt.convert_time_zone(zone) if zone else kind.dt.replace_time_zone(None))
    data = steps(cb.plot.seasonality(frame, "v", every="1h"))["median"]
    assert data.edges.tolist() == [22 * 3600, 23 * 3600]
    assert data.values.tolist() == [1.5]


def test_times_before_1970_fall_into_the_day_too():
    frame = day_frame((0, 1.0)).with_columns(
        pl.lit(datetime(1969, 12, 31, 23, tzinfo=UTC)).alias("server_time")
    )
    assert steps(cb.plot.seasonality(frame, "v", every="1h"))["median"].edges.tolist() == [
        23 * 3600,
        24 * 3600,
    ]


def test_a_product_is_chosen_and_named():
    frame = pl.concat([day_frame((1, 1.0), product_id="A-USD"), day_frame((1, 5.0), product_id="B-USD")])
    ax = cb.plot.seasonality(frame, "v", product_id="B-USD", unit="bps")
    assert steps(ax)["median"].values.tolist() == [5.0]
    assert ax.get_title(loc="left") == "B-USD: how does v change over the day?"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time of day (UTC)", "v (bps)")
    only = cb.plot.seasonality(frame.head(1), "v")
    assert only.get_title(loc="left") == "A-USD: how does v change over the day?"
    nameless = cb.plot.seasonality(frame.head(1).drop("product_id"), "v")
    assert nameless.get_title(loc="left") == "How does v change over the day?"
    assert nameless.get_ylabel() == "v"


def test_the_bands_are_within_the_picture():
    ax = cb.plot.seasonality(day_frame((1, 100.0), (1, 101.0), (2, 300.0), (2, -5.0)), "v")
    low, high = ax.get_ylim()
    shown = steps(ax)["5–95%"]
    assert low < np.nanmin(shown.baseline) < np.nanmax(shown.values) < high
    assert low > -30  # not from zero down, nor far beyond


def test_the_finest_bins_can_be_drawn():
    frame = day_frame((0, 1.0)).select(
        server_time=pl.datetime_range(START, START + timedelta(days=1), "1s", closed="left"),
        v=pl.int_range(86_400).cast(pl.Float64),
    )
    data = steps(cb.plot.seasonality(frame, "v", every="1s"))["median"]
    np.testing.assert_array_equal(data.values, np.arange(86_400.0))


@pytest.mark.parametrize(
    "every", ["7m", "1d", "13h", "500ms", "0s", "-30m", "1mo", "abc", "", "30", 30, None]
)
def test_a_bin_that_divides_no_day_is_refused(every):
    with pytest.raises(cb.ConfigError, match="every must be a span from '1s' to '12h' that divides a day"):
        cb.plot.seasonality(day_frame((1, 1.0)), "v", every=every)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("every", ["1s", "90s", "1h30m", "12h"])
def test_a_bin_that_divides_a_day_is_taken(every):
    edges = steps(cb.plot.seasonality(day_frame((0, 1.0)), "v", every=every))["median"].edges
    assert edges.tolist() == [0, {"1s": 1, "90s": 90, "1h30m": 5_400, "12h": 43_200}[every]]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.lazy(), {}, "the frame must be a polars.DataFrame: collect it"),
        (lambda f: f.drop("v"), {}, "unknown column of the frame 'v'"),
        (lambda f: f, {"clock": "trade_time"}, "unknown column of the frame 'trade_time'"),
        (lambda f: f, {"clock": "v"}, r"v must be a column of times \(Datetime\), not of Float64"),
        (lambda f: f.with_columns(v=pl.lit(True)), {}, "v must be a column of numbers, not of Boolean"),
        (lambda f: f, {}, r"several products \(A-USD, B-USD\)"),
        (lambda f: f, {"product_id": "C-USD"}, "no row of 'C-USD' has both server_time and v"),
        (lambda f: f.clear().drop("product_id"), {}, "no row has both server_time and v"),
    ],
)
def test_a_season_that_cannot_be_meant_is_told_before_anything_is_drawn(change, options, message):
    frame = pl.concat([day_frame((1, 1.0), product_id="A-USD"), day_frame((1, 5.0), product_id="B-USD")])
    with pytest.raises(cb.ConfigError, match=message):
        cb.plot.seasonality(change(frame), "v", **options)
    assert plt.get_fignums() == []


# --- all of them


@pytest.mark.parametrize("name", ["fit", "seasonality"])
def test_it_draws_on_a_given_axes_and_changes_no_frame(name):
    _, (left, right) = plt.subplots(1, 2)
    frame = day_frame(*[(hour, float(hour % 5)) for hour in range(30)]).with_columns(x=pl.int_range(30) % 7)
    before = frame.clone()
    if name == "fit":
        ax = cb.plot.fit(frame, "v", "x", line_of(frame, "v", "x"), ax=right)
    else:
        ax = cb.plot.seasonality(frame, "v", ax=right)
    assert ax is right
    assert not left.has_data()
    assert plt.get_fignums() == [1]
    assert frame.equals(before)


def test_the_colours_are_the_house_s():
    ax = fitted(pairs(100))
    assert drawn_line(ax).get_color() == canvas.SELL
    assert colors.to_hex(ax.collections[0].get_facecolor()[0]).upper() == canvas.QUOTE
    ax = cb.plot.seasonality(day_frame((1, 1.0), (1, 2.0)), "v")
    assert [colors.to_hex(patch.get_edgecolor()).upper() for patch in ax.patches] == [
        canvas.QUOTE, canvas.QUOTE, canvas.SELL
    ]  # fmt: skip
    wide, narrow, _ = (patch.get_alpha() for patch in ax.patches)
    assert wide < narrow


@pytest.mark.slow
@tiers.parametrize("many", [100, 6_000], every=2)
def test_the_pictures_can_be_saved(tmp_path, many):
    axes = {"fit": fitted(pairs(many)), "day": cb.plot.seasonality(day_frame((1, 1.0), (5, 2.0)), "v")}
    for name, ax in axes.items():
        for kind in ("png", "svg", "pdf"):
            ax.figure.savefig(tmp_path / f"{name}.{kind}")
            assert (tmp_path / f"{name}.{kind}").stat().st_size > 1_000


@pytest.mark.ci
def test_the_legend_of_a_fit_does_not_narrow_the_axes():
    frame = pairs(20_000).rename({"x": "the_imbalance_of_the_order_flow_at_all_of_ten_levels_1m30s"})
    ax = cb.plot.fit(frame, "y", frame.columns[0], line_of(frame, "y", frame.columns[0]))
    ax.figure.canvas.draw()
    drawn = ax.get_legend().get_window_extent()
    assert drawn.width > ax.get_window_extent().width  # it is wider than they are
    assert ax.get_position().width > 0.7
