"""A column over the time of day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.plot.columns import check_frame, label_of, product_of, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = npt.NDArray[np.float64]

_DAY: Final = 86_400_000_000_000
_SECOND: Final = 1_000_000_000
_BANDS: Final = ((0.05, 0.95, 0.25), (0.25, 0.75, 0.45))
"""From and to which quantile, and how dense it is drawn."""
_TICKS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800)
"""Seconds from tick to tick."""


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
    canvas.finish(ax, title, "time of day (UTC)", label_of(value, unit))
    canvas.legend(ax)
    return ax


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
