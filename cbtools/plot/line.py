"""One column against another, and the line through them."""

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
    canvas.finish(ax, title, label_of(x, xunit), label_of(y, yunit))
    canvas.legend(ax, 2)
    drawn: Any = ax.get_legend()
    drawn.set_in_layout(False)  # where it is wider than the axes there is room, above the colour bar
    return ax


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

    cells: npt.NDArray[np.int32] = np.zeros(both.height, np.int32)
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
