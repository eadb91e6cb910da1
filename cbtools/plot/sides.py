"""Spread and imbalance over time, alone or below the best bid and ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.plot.touch import quotes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = npt.NDArray[np.float64]
Times = npt.NDArray[np.datetime64]

_CLOCK: Final = "server_time"
_MOST_ROWS: Final = 2_000
"""More rows than that would be a solid block: their mean and extremes are drawn."""
_STRETCHES: Final = 200
"""Of so many stretches of time, each a few pixels wide."""
_EXTREMES: Final = "least to greatest"


def spread(book: pl.DataFrame, product_id: str, *, ax: Axes | None = None) -> Axes:
    """Draw a product's spread over time, in basis points of mid.

    Parameters
    ----------
    book : polars.DataFrame
        Rows of the ``book`` table: product_id, server_time, bid_price_1, ask_price_1, book_state. A row holds
        until the next. Rows without server_time are left out. Of more than 2,000 rows, the line is the mean
        over time in each of 200 equal stretches of time (cut where the book's state changes, unless it does
        so in most of them), with a band from the least to the greatest.
    product_id : str
        Which product.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The line is broken where the book is not ok, and its state is shaded.

    Raises
    ------
    ConfigError
        If the frame has no row of the product with a server_time, or lacks a column.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=1).collect()
    >>> cb.plot.spread(book, "BTC-USD").get_ylabel()
    'spread (bps of mid)'
    """
    rows = _rows(book, product_id, spread=_spread(book))
    ax = canvas.new_axes(ax, (10, 4))
    _draw_spread(ax, rows)
    _finish(ax, f"{product_id}: how wide is the spread?", "spread (bps of mid)")
    canvas.legend(ax)
    return ax


def imbalance(book: pl.DataFrame, product_id: str, *, levels: int = 5, ax: Axes | None = None) -> Axes:
    """Draw which side of a product's book is heavier over time.

    The imbalance is (B - A) / (B + A), where B is the size of the first levels of bids and A that of asks.

    Parameters
    ----------
    book : polars.DataFrame
        Rows of the ``book`` table: product_id, server_time, book_state, and bid_size_1, ask_size_1 and so on,
        as many as there are levels. A row holds until the next. Rows without server_time are left out. A
        message may turn the imbalance over, and many would be a solid block. So of more than 2,000 rows, what
        is filled is the mean over time in each of 200 stretches of time, as of `spread`, on a band from the
        least to the greatest.
    product_id : str
        Which product.
    levels : int
        Of how many levels a side the sizes are summed; one that is not there has none.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Above zero, and in the colour of bids, where more rests on the bids. Empty where the book is not ok;
        its state is shaded.

    Raises
    ------
    ConfigError
        If the frame has no row of the product with a server_time, lacks a column or shows fewer levels, or
        levels is no whole number from 1 on.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=5).collect()
    >>> cb.plot.imbalance(book, "BTC-USD").get_ylabel()
    'imbalance of 5 levels (-1 to 1)'
    """
    rows = _rows(book, product_id, imbalance=_imbalance(book, levels))
    ax = canvas.new_axes(ax, (10, 4))
    _draw_imbalance(ax, rows)
    _finish(ax, f"{product_id}: which side of the book is heavier?", f"imbalance of {_of(levels)} (-1 to 1)")
    canvas.legend(ax)
    return ax


def panels(
    book: pl.DataFrame, product_id: str, *, levels: int = 5, axes: Sequence[Axes] | None = None
) -> tuple[Axes, Axes, Axes]:
    r"""Draw the best bid and ask, the spread and the imbalance one below the other, at the same times.

    Parameters
    ----------
    book : polars.DataFrame
        Rows of the ``book`` table, with the columns that `quotes`, `spread` and `imbalance` draw.
    product_id : str
        Which product.
    levels : int
        Of how many levels a side the imbalance is.
    axes : sequence of matplotlib.axes.Axes, optional
        Where to draw, from the top down; by default on a new figure.

    Returns
    -------
    tuple of matplotlib.axes.Axes
        Three: best bid and ask, spread, imbalance. The title is the first one's, the times are named below
        the last one, and states of the book that are not ok are named above the first.

    Raises
    ------
    ConfigError
        If the frame has no row of the product with a server_time, lacks a column or shows fewer levels;
        levels is no whole number from 1 on; or axes are not three.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=5).collect()
    >>> [ax.get_ylabel().replace("\n", " ") for ax in panels(book, "BTC-USD", levels=3)]
    ['price (USD)', 'spread (bps of mid)', 'imbalance of 3 levels (-1 to 1)']
    """
    values = {"spread": _spread(book), "imbalance": _imbalance(book, levels)}
    rows = _rows(book, product_id, bid_price_1="bid_price_1", ask_price_1="ask_price_1", **values)
    top, middle, bottom = canvas.new_panels(axes, (2, 1, 1), (10, 8))
    quotes(rows, product_id, ax=top)
    _draw_spread(middle, rows)
    _finish(middle, "", "spread\n(bps of mid)")
    _draw_imbalance(bottom, rows)
    _finish(bottom, "", f"imbalance of\n{_of(levels)} (-1 to 1)")
    top.set_title(f"{product_id}: how wide is the spread, and which side is heavier?", loc="left", pad=26)
    for ax in (top, middle):
        ax.set_xlabel("")
    for ax in (middle, bottom):
        _legend_of_its_own(ax)
    top.figure.align_ylabels()
    return top, middle, bottom


# --- the numbers


def _spread(book: pl.DataFrame) -> pl.Expr:
    canvas.check_columns(book, (_CLOCK, "book_state", "bid_price_1", "ask_price_1"))
    bid, ask = (pl.col(f"{side}_price_1").cast(pl.Float64) for side in ("bid", "ask"))
    return (ask - bid) / ((ask + bid) / 2) * 1e4


def _imbalance(book: pl.DataFrame, levels: int) -> pl.Expr:
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise ConfigError(f"levels must be a whole number, 1 or more, not {levels!r}")
    canvas.check_columns(book, (_CLOCK, "book_state", "bid_size_1", "ask_size_1"))
    names = {side: [f"{side}_size_{i + 1}" for i in range(levels)] for side in ("bid", "ask")}
    missing = [name for side in names.values() for name in side if name not in book.columns]
    if missing:
        raise ConfigError(
            f"the frame shows fewer than {levels} levels, it has no {missing[0]}: "
            f"rebuild_book(depth={levels}), or fewer levels"
        )
    bids, asks = (pl.sum_horizontal(pl.col(few).cast(pl.Float64)) for few in names.values())
    return (bids - asks) / (bids + asks)


def _of(levels: int) -> str:
    return "1 level" if levels == 1 else f"{levels} levels"


def _rows(book: pl.DataFrame, product_id: str, **columns: pl.Expr | str) -> pl.DataFrame:
    """Give the rows of a product with some values, null where they are computed and the book is not ok.

    Values are computed before rows are taken: so the columns that they are of, of which there may be many,
    are never copied.
    """
    computed = [name for name, value in columns.items() if isinstance(value, pl.Expr)]
    is_ok = pl.col("book_state") == "ok"
    known = (pl.when(is_ok & pl.col(name).is_finite()).then(name).alias(name) for name in computed)
    kept = [name for name in ("product_id", _CLOCK, "book_state") if name in book.columns]
    few = book.lazy().select(*kept, **columns).with_columns(*known).collect()
    return canvas.rows_of(few, product_id, ["book_state", *columns], clock=_CLOCK, what="book")


class _Course(NamedTuple):
    """A value over time, as it is drawn: each holds until the next time; NaN where it is not known."""

    when: Times
    value: F64
    extremes: tuple[F64, F64] | None


def _course(rows: pl.DataFrame, name: str) -> _Course:
    """Give a column as it is, or of many rows the mean over time, the least and the greatest a stretch."""
    when, value = rows[_CLOCK].to_numpy(), rows[name].to_numpy()
    time = when.astype(np.int64)
    span = int(time[-1] - time[0])
    if rows.height <= _MOST_ROWS or not span:
        return _Course(when, value, None)
    edges = time[0] + np.unique(np.linspace(0, span, _STRETCHES + 1).astype(np.int64))
    edges[-1] = time[-1]
    breaks = time[1:][np.diff(np.isfinite(value))]
    if len(breaks) <= _STRETCHES:  # a line ends where the book's state does, not where a stretch does
        edges = np.union1d(edges, breaks)
    holds = np.searchsorted(time, edges, side="right") - 1
    mean = _mean_over_time(time, value, edges, holds)
    least, greatest = (_extreme(of, time, value, edges) for of in (np.fmin, np.fmax))
    mean = np.clip(mean, least, greatest)  # not a digit beyond, as a sum may be
    to_the_end = (np.append(values, values[-1]) for values in (mean, least, greatest))
    mean, least, greatest = (values[: len(edges)] for values in to_the_end)
    return _Course(edges.astype(when.dtype), mean, (least, greatest))


def _mean_over_time(
    time: npt.NDArray[np.int64], value: F64, edges: npt.NDArray[np.int64], holds: npt.NDArray[np.int64]
) -> F64:
    """Give the mean between each edge and the next, of the time at which the value is known; else NaN."""
    lasting = np.diff(time, append=time[-1])
    known = np.isfinite(value)
    first, last = holds[:-1], holds[1:]
    before, within = edges[:-1] - time[first], edges[1:] - time[last]

    def between_edges(height: F64) -> F64:
        # of a stretch within one row this is too much, but so is the duration, and their ratio is right
        rows: F64 = np.add.reduceat(lasting * height, first)
        rows += within * height[last] - before * height[first]
        return rows

    # the last stretch is until the last row, which lasts no time
    area, duration = between_edges(np.where(known, value, 0.0)), between_edges(known.astype(np.float64))
    mean: F64 = np.divide(area, duration, out=np.full(len(area), np.nan), where=duration > 0)
    return mean


def _extreme(of: Any, time: npt.NDArray[np.int64], value: F64, edges: npt.NDArray[np.int64]) -> F64:
    """Give the least or the greatest value from each edge until the next, with what holds at the first."""
    begins = np.searchsorted(time, edges)
    first = begins[:-1] - (time[begins[:-1]] > edges[:-1])
    # pairs of where a stretch begins and where it ends; the last one ends with the rows
    pairs = np.column_stack([first, begins[1:]]).reshape(-1)[:-1]
    found: F64 = of.reduceat(value, pairs)[::2]
    return found


# --- the ink


def _draw_spread(ax: Axes, rows: pl.DataFrame) -> None:
    course = _course(rows, "spread")
    label = "spread" if course.extremes is None else "spread, mean over time"
    ax.step(course.when, course.value, where="post", color=canvas.LINE, linewidth=1.1, label=label)
    _draw_extremes(ax, course)
    canvas.shade(ax, rows, _CLOCK)
    greatest = course.value if course.extremes is None else course.extremes[1]
    ax.set_ylim(0, 1.08 * np.fmax.reduce(greatest, initial=0.0) or 1.0)  # the spread of an ok book is above 0


def _draw_imbalance(ax: Axes, rows: pl.DataFrame) -> None:
    course = _course(rows, "imbalance")
    height = np.nan_to_num(course.value)  # nothing is drawn of no height: a gap
    for side, colour, part in (
        ("bids", canvas.BUY, height.clip(min=0)),
        ("asks", canvas.SELL, height.clip(max=0)),
    ):
        ax.fill_between(
            course.when, 0, part, step="post",
            color=colour, alpha=0.85, linewidth=0, label=f"more on the {side}",
        )  # fmt: skip
    _draw_extremes(ax, course)
    ax.axhline(0, color="0.5", linewidth=0.8)
    canvas.shade(ax, rows, _CLOCK)
    ax.set_ylim(-1, 1)


def _draw_extremes(ax: Axes, course: _Course) -> None:
    if course.extremes is not None:
        least, greatest = (np.nan_to_num(values) for values in course.extremes)
        ax.fill_between(
            course.when, least, greatest, step="post",
            color=canvas.QUOTE, alpha=0.4, linewidth=0, label=_EXTREMES, zorder=0.5,
        )  # fmt: skip


def _finish(ax: Axes, title: str, ylabel: str) -> None:
    canvas.time_axis(ax)
    canvas.finish(ax, title, canvas.clock_label(_CLOCK), ylabel)


def _legend_of_its_own(ax: Axes) -> None:
    """Name what is drawn, but for the states of the book, which another panel names."""
    states = {state.replace("_", "-") for state in canvas.NOT_OK}
    for drawn in ax.collections:
        if drawn.get_label() in states:
            drawn.set_label(f"_{drawn.get_label()}")
    canvas.legend(ax)
