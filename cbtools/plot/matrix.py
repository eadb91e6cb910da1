"""Which columns go together."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, unknown_name
from cbtools.plot import canvas
from cbtools.plot.columns import check_frame, product_of, title_of
from cbtools.schema import TABLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = npt.NDArray[np.float64]
Method = Literal["spearman", "pearson"]

_SAMPLE: Final = 50_000
"""Of more rows evenly spaced ones are taken; by chance that changes a correlation by some 0.004."""
_MOST_NUMBERS: Final = 15
"""With more columns, the numbers in the cells would not be legible."""
_LEAST_ROWS: Final = 3
"""Two rows are always on a line."""
_RECORDED: Final = {c.name for name in ("level2", "market_trades", "ticker", "book") for c in TABLES[name]}
_NO_FEATURE: Final = re.compile(
    r"(bid|ask)_(price|size)_\d+|mid|microprice|vamp_\d+|vwap(_\w+)?|open|high|low|close"
    r"|bar|run|staleness_ns|n_updates|(first|last)_trade_id"
)
"""Recorded levels, counters, and prices: these wander, and what wanders is correlated with anything."""


def correlations(
    frame: pl.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    method: Method = "spearman",
    ax: Axes | None = None,
) -> Axes:
    """Draw the correlation of each column with each other.

    Parameters
    ----------
    frame : polars.DataFrame
        Rows of one product. Of more than 50,000, evenly spaced ones are taken, as the colour bar tells.
    columns : sequence of str, optional
        Which, in which order: two or more columns of numbers. By default all but what is recorded (times,
        counters, prices and sizes of levels), numbers of bars, what `cbtools.sample_time` adds, and prices.
    method : str
        ``"spearman"``, the correlation of the ranks, which no outlier governs; or ``"pearson"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With an image of the correlations, in numbers too if there are up to 15 columns. Each pair's is that
        of the rows in which both are finite. A cell is left empty, and hatched, where there are fewer than 3
        such rows, or either column is constant in them.

    Raises
    ------
    ConfigError
        If the frame has no rows or is of several products; if it lacks a column, or has one that is not of
        numbers; if there are not two columns; or if there is no such method.

    Examples
    --------
    >>> rows = pl.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 4.0, 9.0, 16.0], "c": [2.0] * 4})
    >>> [text.get_text() for text in correlations(rows).texts]
    ['1', '1.00', '1.00', '1']
    """
    if method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    check_frame(frame, "the frame", ())
    if columns is None:
        columns = _features(frame)
    elif isinstance(columns, str):
        raise ConfigError(f"columns must be a list of names, not {columns!r}")
    check_frame(frame, "the frame", columns, numeric=columns)
    if len(set(columns)) < 2 or len(set(columns)) < len(columns):
        raise ConfigError(f"columns must be two or more, each once, not {list(columns)}")
    product = product_of(frame)
    if frame.is_empty():
        raise ConfigError("the frame has no rows: there is nothing to draw")
    every = _every_of(frame.height)
    rows = frame.lazy().select(pl.col(columns).gather_every(every).cast(pl.Float64)).collect()
    values = np.array(rows.fill_null(float("nan")).to_numpy().T, order="C")  # a copy: ranks are put into it
    ax = canvas.new_axes(ax, _size(len(columns)))
    name = "rank correlation" if method == "spearman" else "correlation"
    told = name if every == 1 else f"{name}, of one row in {every:,}"
    ax.set_title(title_of(product, "which columns move together?"), loc="left")
    _draw_matrix(ax, _matrix(values, ranked=method == "spearman"), columns, told)
    return ax


def _every_of(height: int) -> int:
    """Tell how many rows to go on for an even sample; no step that keeps to one second of the minute."""
    step = -(-height // _SAMPLE)
    while math.gcd(step, 60) > 1:
        step += 1
    return step


def _features(frame: pl.DataFrame) -> list[str]:
    return [
        name
        for name, kind in frame.schema.items()
        if kind.is_numeric() and name not in _RECORDED and not _NO_FEATURE.fullmatch(name)
    ]


def _matrix(values: F64, *, ranked: bool) -> F64:
    """Correlate each row of an array with each, over what is finite in both; NaN where that is undefined."""
    known = np.isfinite(values)
    if ranked:
        for row, finite in zip(values, known, strict=True):
            row[finite] = np.unique(row[finite], return_inverse=True)[1]
    # columns known in the same rows are done together: few have gaps of their own
    alike: dict[bytes, list[int]] = {}
    for i, mask in enumerate(known):
        alike.setdefault(mask.tobytes(), []).append(i)
    groups = list(alike.values())
    found = np.full((len(values),) * 2, np.nan)
    for n, one in enumerate(groups):
        for other in groups[: n + 1]:
            both = np.flatnonzero(known[one[0]] & known[other[0]])
            a, b = (_standardized([values[k].take(both) for k in of], ranked=ranked) for of in (one, other))
            defined = np.outer(a.any(axis=1), b.any(axis=1))
            found[np.ix_(one, other)] = np.where(defined, a @ b.T, np.nan)
            found[np.ix_(other, one)] = found[np.ix_(one, other)].T
    clipped: F64 = np.clip(found, -1.0, 1.0)
    return clipped


def _standardized(values: list[F64], *, ranked: bool) -> F64:
    """Give rows whose products are correlations; zeros for a row of which there is none."""
    out = np.zeros((len(values), len(values[0])))
    for row, made in zip(values, out, strict=True):
        if len(row) >= _LEAST_ROWS and row.min() < row.max():
            part = _ranks(row.astype(np.int64)) if ranked else row / np.abs(row).max()
            part -= part.mean()
            made[:] = part / np.sqrt(part @ part)
    return out


def _ranks(codes: npt.NDArray[np.int64]) -> F64:
    """Rank some whole numbers; equal ones share their mean rank."""
    counts = np.bincount(codes)
    ranks: F64 = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    return ranks


def _size(n: int) -> tuple[float, float]:
    side = min(11.0, 2.8 + 0.42 * n)
    return side + 1.0, side


def _number(value: float) -> str:
    """Write it as the axes write theirs; no negative zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _draw_matrix(ax: Axes, found: F64, columns: Sequence[str], told: str) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    n = len(columns)
    image = ax.imshow(
        found, vmin=-1, vmax=1, cmap=mpl.colormaps["RdBu"].with_extremes(bad="none"), interpolation="nearest"
    )
    bar = ax.figure.colorbar(image, ax=ax, ticks=[-1, -0.5, 0, 0.5, 1], pad=0.02, aspect=30)
    bar.set_label(told)
    bar.outline.set_visible(False)
    if n <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(found):
            if np.isfinite(value):
                ax.text(
                    column, row, _number(value) if row != column else "1", ha="center", va="center",
                    fontsize="small", color="white" if abs(value) > 0.6 else "black",
                )  # fmt: skip
    small = "medium" if n <= 2 * _MOST_NUMBERS else "x-small"
    ax.set_xticks(range(n), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
    ax.set_yticks(range(n), columns, fontsize=small)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if not np.isfinite(found).all():
        below: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.6", "hatch": "////", "linewidth": 0}
        label = "constant, or fewer than 3 rows"
        ax.add_patch(Rectangle((-0.5, -0.5), n, n, zorder=-1, label=label, **below))
        canvas.legend(ax)
