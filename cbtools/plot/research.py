"""What research asks of a column: whether another explains it, and how it changes over the day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, unknown_name
from cbtools.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = npt.NDArray[np.float64]

_LINE: Final = ("n", "slope", "intercept", "se", "t", "r2")
_MOST_POINTS: Final = 5_000
"""More points hide one another: they are counted in cells."""
_CELLS: Final = (150, 75)
"""So many in x and in y."""
_SHOWN: Final = 0.998
"""The share of each column's values between the limits of a picture, at least."""
_MARGIN: Final = 0.04
"""So much wider than these values is the picture, on each side."""
_PARTS: Final = (20, 20)
"""So many parts of x at most have a median of y, and so many rows at least in each."""
_ENOUGH: Final = 100_000
"""So many rows tell where the parts begin."""
_COUNTS: Final = "cividis_r"

_DAY: Final = 86_400_000_000_000
_SECOND: Final = 1_000_000_000
_BANDS: Final = ((0.05, 0.95, 0.25), (0.25, 0.75, 0.45))
"""From and to which quantile, and how dense it is drawn."""
_TICKS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800)
"""Seconds from tick to tick."""


def fit(
    frame: pl.DataFrame,
    y: str,
    x: str,
    line: pl.DataFrame,
    *,
    xunit: str | None = None,
    yunit: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one column against another, with the line fitted to them.

    Parameters
    ----------
    frame : polars.DataFrame
        Rows of one product with both columns. Rows in which either is null or not finite are left out.
    y, x : str
        Names of the columns: what is explained, and by what.
    line : polars.DataFrame
        The row that ``regress(frame, y, x).collect()`` gives: n, slope, intercept, se, t, r2. A slope of null
        is drawn as no line.
    xunit, yunit : str, optional
        The columns' units, which are put into the labels of the axes; the catalogue has them.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With a point a row. Of more than 5,000 rows it shows how many fall into each of many cells, on a
        logarithmic scale. The circles are the medians of y in up to 20 parts of x with about equally many
        rows: they leave the line where the relation is not straight. At least 99.8% of each column's values
        are within the limits; how many rows are not is told.

    Raises
    ------
    ConfigError
        If a frame lacks a column, or has one that is not of numbers; if the rows are of several products, or
        the line is not one row, or another product's; or if no row has both columns.

    Examples
    --------
    >>> import cbtools as cb
    >>> rows = pl.DataFrame({"ofi": [0.0, 1.0, 2.0, 3.0], "gain": [0.0, 2.0, 3.0, 7.0]})
    >>> ax = fit(rows, "gain", "ofi", cb.regress(rows, "gain", "ofi").collect(), xunit="BTC")
    >>> ax.get_xlabel(), ax.get_legend().get_texts()[0].get_text()
    ('ofi (BTC)', 'slope 2.2 ± 0.42, t 5.2, R² 0.931, n 4')
    """
    check_frame(frame, "the frame", (y, x), numeric=(y, x))
    check_frame(line, "the line", _LINE)
    product = product_of(frame)
    if line.height != 1:
        raise ConfigError(f"the line has {line.height} rows, not one: filter frame and line to one product")
    of_line = line["product_id"][0] if "product_id" in line.columns else None
    if None not in (product, of_line) and product != of_line:
        raise ConfigError(f"the line is of {of_line!r}, not of the rows' {product!r}: filter both alike")
    both = frame.select(x=pl.col(x).cast(pl.Float64), y=pl.col(y).cast(pl.Float64))
    both = both.filter(pl.col("x").is_finite() & pl.col("y").is_finite())
    if both.is_empty():
        raise ConfigError(f"no row has both {x} and {y}: there is nothing to draw")
    ax = canvas.new_axes(ax, (9, 5.5))
    (left, right), (low, high) = _limits(both["x"]), _limits(both["y"])
    _draw_line(ax, line.row(0, named=True), left, right)
    _draw_rows(ax, both, (left, right), (low, high))
    _draw_medians(ax, both, x)
    outside = ~(pl.col("x").is_between(left, right) & pl.col("y").is_between(low, high))
    n_outside = both.select(outside.sum()).item()
    if n_outside:
        ax.plot([], [], " ", label=f"{n_outside:,} rows lie outside")
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    title = title_of(product, f"does {x} explain {y}?")
    canvas.finish(ax, title, _label(x, xunit), _label(y, yunit))
    canvas.legend(ax, 2)
    ax.set_title(title, loc="left", pad=42)  # above two rows of the legend
    drawn: Any = ax.get_legend()
    drawn.set_in_layout(False)  # where it is wider than the axes there is room, above the colour bar
    return ax


def seasonality(
    frame: pl.DataFrame,
    value: str,
    *,
    every: str = "30m",
    clock: str = "server_time",
    product_id: str | None = None,
    unit: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how a column is distributed at each time of day, over all days of the frame.

    Parameters
    ----------
    frame : polars.DataFrame
        Rows with the clock, the column and, if there are several products, product_id. Rows without a time,
        or in which the column is null or not finite, are left out. Each row counts the same: sample a book by
        time first, as by `cbtools.sample_time`.
    value : str
        Name of the column.
    every : str
        How long a bin is: a time span of which a whole number makes a day, from ``"1s"`` to ``"12h"``.
    clock : str
        The column of times (Datetime, UTC).
    product_id : str, optional
        Which product; needed if there are several.
    unit : str, optional
        The column's unit, which is put into the label of the axis; the catalogue has it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the median of each bin, and bands from the 25% to the 75% and from the 5% to the 95% quantile.
        A bin without rows is a gap. If all rows are within half a day, only that is shown.

    Raises
    ------
    ConfigError
        If the frame lacks a column, or has one of another kind; if every is no such span; if there are
        several products and none is named; or if no row is left.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=1)
    >>> seconds = book.pipe(cb.add_book_features, "spread").pipe(cb.sample_time, "1s").collect()
    >>> ax = cb.plot.seasonality(
    ...     seconds, "spread", every="1m", clock="sample_time", product_id="SOL-USD", unit="USD"
    ... )
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('time of day (UTC)', 'spread (USD)')
    """
    span = _bin_of(every)
    check_frame(frame, "the frame", (clock, value), numeric=(value,))
    kind = frame.schema[clock]
    if not isinstance(kind, pl.Datetime):
        raise ConfigError(f"{clock} must be a column of times (Datetime), not of {kind}")
    if product_id is None:
        product_id = product_of(frame)
    elif "product_id" in frame.columns:
        frame = frame.filter(pl.col("product_id") == product_id)
    bins = _bins(frame, value, clock, span)
    if bins.is_empty():
        whose = "" if product_id is None else f" of {product_id!r}"
        raise ConfigError(f"no row{whose} has both {clock} and {value}: there is nothing to draw")
    ax = canvas.new_axes(ax)
    edges = _edges(bins, span)
    at = bins.join(edges[:-1].to_frame("bin"), on="bin", how="right", maintain_order="right")
    seconds = edges.to_numpy() * (span / _SECOND)
    _draw_bins(ax, at, seconds)
    ax.plot([], [], " ", label=_counted(bins))
    _time_of_day(ax, seconds)
    title = title_of(product_id, f"how does {value} change over the day?")
    canvas.finish(ax, title, "time of day (UTC)", _label(value, unit))
    canvas.legend(ax)
    return ax


def check_frame(frame: pl.DataFrame, what: str, columns: Sequence[str], numeric: Sequence[str] = ()) -> None:
    """Raise ConfigError if a frame lacks a column, or one is not of numbers that must be."""
    if not isinstance(frame, pl.DataFrame):
        raise ConfigError(f"{what} must be a polars.DataFrame: collect it, if it is lazy")
    for name in columns:
        if name not in frame.columns:
            raise unknown_name(f"column of {what}", name, frame.columns)
    for name in numeric:
        if not frame.schema[name].is_numeric():
            raise ConfigError(f"{name} must be a column of numbers, not of {frame.schema[name]}")


def product_of(frame: pl.DataFrame) -> str | None:
    """Give the product that all rows are of, if they tell; raise ConfigError if they are of several."""
    if "product_id" not in frame.columns or frame.is_empty():
        return None
    product = frame["product_id"]
    if product.ne_missing(product[0]).any():
        names = product.drop_nulls().unique().sort().to_list()
        several = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        mend = f"filter it to one product, as by frame.filter(pl.col('product_id') == {names[0]!r})"
        raise ConfigError(f"the frame has several products ({several}): {mend}")
    return product[0]  # type: ignore[no-any-return]


def title_of(product: str | None, question: str) -> str:
    """Begin a question with the product, if there is one."""
    return question[0].upper() + question[1:] if product is None else f"{product}: {question}"


def _label(name: str, unit: str | None) -> str:
    return f"{name} ({unit})" if unit else name


# --- fit


def _limits(values: pl.Series) -> tuple[float, float]:
    """Give the limits within which almost all values are; of up to 1,000, all."""
    tail = (1 - _SHOWN) / 2
    low, high = values.quantile(tail, "lower"), values.quantile(1 - tail, "higher")
    if low == high:
        low, high = values.min(), values.max()  # type: ignore[assignment]
    assert low is not None
    assert high is not None
    margin = _MARGIN * (high - low) or abs(low) or 1.0
    return low - margin, high + margin


def _draw_line(ax: Axes, line: dict[str, Any], left: float, right: float) -> None:
    if line["slope"] is None:
        ax.plot([], [], " ", label=f"no line: {line['n']:,} rows, too few, or x is constant")
        return
    from matplotlib.patheffects import withStroke

    slope, se, t, r2 = (
        "undefined" if line[name] is None else f"{line[name]:{digits}}"
        for name, digits in (("slope", ".3g"), ("se", ".2g"), ("t", ",.1f"), ("r2", ".3g"))
    )
    ends = np.array([left, right])
    ax.plot(
        ends, line["intercept"] + line["slope"] * ends, color=canvas.SELL, linewidth=1.8, zorder=4,
        path_effects=[withStroke(linewidth=3.4, foreground="white")],
        label=f"slope {slope} ± {se}, t {t}, R² {r2}, n {line['n']:,}",
    )  # fmt: skip


def _draw_rows(ax: Axes, both: pl.DataFrame, across: tuple[float, float], up: tuple[float, float]) -> None:
    """Draw a point a row, or of many how many are in each cell."""
    if both.height <= _MOST_POINTS:
        ax.scatter(
            both["x"].to_numpy(), both["y"].to_numpy(), 14.0, color=canvas.QUOTE, alpha=0.6, linewidths=0,
            label="rows", zorder=2,
        )  # fmt: skip
        return
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    cells = np.zeros(both.height, np.int32)
    within = np.ones(both.height, np.bool_)
    for name, (low, high), n in (("x", across, _CELLS[0]), ("y", up, _CELLS[1])):
        part = (both[name].to_numpy() - low) * (n / (high - low))
        within &= (part >= 0) & (part < n)
        cells = cells * n + np.where(within, part, 0).astype(np.int32)
    counts = np.bincount(cells[within], minlength=_CELLS[0] * _CELLS[1]).reshape(_CELLS).T
    image = ax.imshow(
        np.where(counts == 0, np.nan, counts), norm=LogNorm(1, max(2, counts.max())), origin="lower",
        cmap=mpl.colormaps[_COUNTS].with_extremes(bad="none"), aspect="auto", interpolation="nearest",
        extent=(*across, *up), zorder=2,
    )  # fmt: skip
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01, aspect=35)
    bar.set_label("rows a cell")
    bar.outline.set_visible(False)


def _draw_medians(ax: Axes, both: pl.DataFrame, x: str) -> None:
    """Draw the median of y in parts of x of about equally many rows; equal x are never parted."""
    parts = min(_PARTS[0], both.height // _PARTS[1])
    if parts < 3:
        return
    some = both["x"].gather_every(-(-both.height // _ENOUGH)).to_numpy()
    begins = np.unique(np.quantile(some, np.arange(1, parts) / parts, method="higher"))
    part = pl.lit(pl.Series(begins)).search_sorted(pl.col("x"), side="right")
    medians = both.lazy().group_by(part.alias("part")).agg(pl.median("x", "y"), rows=pl.len()).sort("part")
    shown = medians.filter(pl.col("rows") >= _PARTS[1] // 2).collect()
    ax.plot(
        shown["x"].to_numpy(), shown["y"].to_numpy(), "o", markersize=5.5, markerfacecolor="white",
        markeredgecolor="black", zorder=5, label=f"medians in {shown.height} parts of {x}",
    )  # fmt: skip


# --- seasonality


def _bin_of(every: str) -> int:
    """Give the nanoseconds of a bin."""
    try:
        epoch = pl.lit(0).cast(pl.Datetime("ns"))
        span: int = pl.select(epoch.dt.offset_by(every).to_physical()).item()
    except (pl.exceptions.PolarsError, TypeError):
        span = 0
    if not _SECOND <= span <= _DAY // 2 or _DAY % span:
        raise ConfigError(f"every must be a span from '1s' to '12h' that divides a day, not {every!r}")
    return span


def _bins(frame: pl.DataFrame, value: str, clock: str, span: int) -> pl.DataFrame:
    """Give the quantiles of each bin of the day that has rows, and on how many days there are rows."""
    unit = {"ns": 1, "us": 1_000, "ms": 1_000_000}[frame.schema[clock].time_unit]  # type: ignore[attr-defined]
    time, day = pl.col(clock).to_physical(), _DAY // unit
    number = pl.col(value).cast(pl.Float64)
    rows = (
        frame.lazy()
        .filter(pl.col(clock).is_not_null(), number.is_finite())
        .select(bin=(time % day) * unit // span, day=time // day, value=number)
        .with_columns(days=pl.col("day").n_unique())
        .group_by("bin")
        .agg(pl.col("value").sort(), rows=pl.len(), days=pl.col("days").first())
        .sort("bin")
        .collect()
    )
    # one sort for all quantiles: with many bins, a call for each would take long
    values, n = rows["value"].explode().to_numpy(), rows["rows"].cast(pl.Int64).to_numpy()
    first = np.cumsum(n) - n
    made = {}
    for q in (0.5, *(q for low, high, _ in _BANDS for q in (low, high))):
        below = np.floor(q * (n - 1)).astype(np.int64)
        low, high = values[first + below], values[first + np.minimum(below + 1, n - 1)]
        made[f"{q}"] = low + (high - low) * (q * (n - 1) - below)
    return rows.drop("value").with_columns(**made)


def _edges(bins: pl.DataFrame, span: int) -> pl.Series:
    """Give the bounds of the bins to be shown, in bins: of the whole day, or of the part that has rows."""
    first, last = bins["bin"][0], bins["bin"][-1] + 1
    if (last - first) * span > _DAY // 2:
        first, last = 0, _DAY // span
    return pl.int_range(first, last + 1, eager=True)


def _draw_bins(ax: Axes, at: pl.DataFrame, seconds: F64) -> None:
    """Draw the bands and the median, which are broken where a bin has no rows."""
    from matplotlib.patches import StepPatch

    made: Any = StepPatch  # its stubs know no baseline but a number
    for low, high, alpha in _BANDS:
        look = {"color": canvas.QUOTE, "alpha": alpha, "linewidth": 0, "fill": True}
        look["label"] = f"{low * 100:.0f}–{high * 100:.0f}%"
        # as ax.stairs does, but that walks along each corner for the limits
        ax.add_artist(made(at[f"{high}"].to_numpy(), seconds, baseline=at[f"{low}"].to_numpy(), **look))
    look = {"color": canvas.SELL, "linewidth": 1.8, "label": "median", "fill": False}
    ax.add_artist(made(at["0.5"].to_numpy(), seconds, baseline=None, **look))
    ends = at.select(pl.col(f"{_BANDS[0][0]}").min(), pl.col(f"{_BANDS[0][1]}").max()).row(0)
    ax.update_datalim([*zip(seconds[[0, -1]], ends, strict=True)])
    ax.autoscale_view()


def _counted(bins: pl.DataFrame) -> str:
    days, counts = bins["days"][0], bins["rows"].to_list()
    fewest, most = min(counts), max(counts)
    rows = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{days:,} day{'s' if days != 1 else ''}, {rows} rows a bin"


def _time_of_day(ax: Axes, seconds: F64) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    step = next(step for step in _TICKS if (seconds[-1] - seconds[0]) / step <= 9)

    def clock(second: float, _: object) -> str:
        minute, rest = divmod(round(second), 60)
        text = f"{minute // 60:02}:{minute % 60:02}"
        return f"{text}:{rest:02}" if step < 60 else text

    ax.xaxis.set_major_locator(MultipleLocator(step))
    ax.xaxis.set_major_formatter(FuncFormatter(clock))
    ax.set_xlim(seconds[0], seconds[-1])
