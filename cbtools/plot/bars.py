"""Bars of trades or of the book as candles, with the volume or the order flow below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.plot.canvas import currencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = npt.NDArray[np.float64]

_PRICES: Final = ("open", "high", "low", "close")
_MOST: Final = 300
"""More bars than can be told to be hollow or filled are merged."""
_SECOND: Final = 1_000_000_000
_APART: Final = 0.12
"""So much of a bar's width is left free, that it does not touch its neighbours."""
_SAME: Final = "#999999"


def candles(bars: pl.DataFrame, product_id: str, *, axes: Sequence[Axes] | None = None) -> tuple[Axes, Axes]:
    """Draw bars as candles, hollow where the price rose and filled where it fell, with the volume below.

    Parameters
    ----------
    bars : polars.DataFrame
        Rows of `cbtools.trade_bars`: product_id, start, first_time, last_time, open, high, low, close,
        volume and, to tell buys from sells, buy_volume; or of `cbtools.book_bars`, with ofi in place of the
        volumes. A bar without prices is left out. Of more than 300 bars, neighbours are merged, as many as
        it takes: the first open, the highest high, the lowest low, the last close, the volumes' sum; the
        legend tells how many. Bars are merged across no restart, if there is a column run.
    product_id : str
        Which product.
    axes : sequence of matplotlib.axes.Axes, optional
        Where to draw, from the top down; by default on a new figure.

    Returns
    -------
    tuple of matplotlib.axes.Axes
        Two: the candles, and the volume or the order flow of each. A bar is as wide as its time: one of time
        as its interval, which is the largest that all starts are multiples of, and any other from its first
        trade to its last.

    Raises
    ------
    ConfigError
        If the frame has no bar of the product with a time and prices, or lacks a column; or axes are not two.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades = cb.scan_raw(cb.sample_path(), "market_trades")
    >>> bars = cb.trade_bars(trades, "time", "10s").collect()
    >>> [ax.get_ylabel() for ax in candles(bars, "BTC-USD")]
    ['price (USD)', 'volume (BTC)']
    """
    of_trades = "volume" in bars.columns or "ofi" not in bars.columns
    needed = ["last_time", *_PRICES, "volume" if of_trades else "ofi"]
    told = [name for name in ("start", "run", "buy_volume" if of_trades else "") if name in bars.columns]
    rows = canvas.rows_of(bars, product_id, [*needed, *told], clock="first_time", what="bars")
    rows, of = _laid_out(rows)  # also those without prices, which tell what an interval is
    rows = rows.filter(pl.all_horizontal(pl.col(_PRICES).is_finite()))
    if rows.is_empty():
        raise ConfigError(f"no bar of {product_id!r} has open, high, low and close: there is none to draw")
    if rows["left"].min() == rows["right"].max():  # one instant
        rows = rows.with_columns(right=pl.col("right") + _SECOND)
    rows, merged = _merged(rows, of)

    upper, lower = canvas.new_panels(axes, (3, 1))
    _draw_candles(upper, rows, merged)
    base, quote = currencies(product_id)
    upper.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    if of_trades:
        _draw_volume(lower, rows)
        title, ylabels = (
            "where does the price go, and on what volume?",
            (f"price ({quote})", f"volume ({base})"),
        )
    else:
        _draw_flow(lower, rows)
        title, ylabels = (
            "where does mid go, and does order flow push it?",
            (f"mid ({quote})", f"order flow\nimbalance ({base})"),
        )
    for ax, head, ylabel in zip((upper, lower), (f"{product_id}: {title}", ""), ylabels, strict=True):
        canvas.time_axis(ax)
        canvas.finish(ax, head, "time (UTC)", ylabel)
        canvas.legend(ax)
    upper.set_xlabel("")
    upper.figure.align_ylabels()
    return upper, lower


# --- the bars


def _laid_out(rows: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Say from when to when each bar is, in columns left and right, and number what they are of.

    That are intervals, of bars of time, or else the bars. Two bars of one interval, with a restart between
    them, share it.
    """
    first, last = (pl.col(f"{end}_time").dt.timestamp("ns") for end in ("first", "last"))
    every = _interval(rows)
    if every:
        start = pl.col("start").dt.timestamp("ns")
        rows = rows.with_columns(
            left=pl.when(start == start.shift()).then(first).otherwise(start),
            right=pl.when(start == start.shift(-1)).then(last).otherwise(start + every),
            number=(start - start.min()) // every,
        )
    else:
        rows = rows.with_columns(left=first, right=last, number=pl.int_range(pl.len()))
    return rows, "intervals" if every else "bars"


def _interval(rows: pl.DataFrame) -> int:
    """Give the length of the interval of bars of time, ns; 0 if they are of something else, or one alone."""
    if "start" not in rows.columns or rows["start"].null_count():
        return 0
    starts = rows["start"].dt.timestamp("ns").unique().sort().to_numpy()
    return int(np.gcd.reduce(np.diff(starts)))


def _merged(rows: pl.DataFrame, of: str) -> tuple[pl.DataFrame, str]:
    """Merge neighbours if they are too many; say what is one now, if so."""
    if rows.height <= _MOST:
        return rows, ""
    together = -(-(int(rows["number"].max()) + 1) // _MOST)  # type: ignore[arg-type]
    sums = [name for name in ("volume", "buy_volume", "ofi") if name in rows.columns]
    runs = [pl.col("run").rle_id()] if "run" in rows.columns else []
    merged = rows.group_by(*runs, pl.col("number") // together, maintain_order=True).agg(
        pl.col("left", "open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("right", "close").last(),
        pl.col(sums).sum(),
    )
    return merged, f"a candle is {together} {of}"


# --- the ink


def _sides(rows: pl.DataFrame) -> tuple[F64, F64]:
    """Give where bars begin and end on the axis of time, a little apart."""
    from matplotlib.dates import date2num

    left, right = (
        date2num(rows[name].to_numpy().astype("datetime64[ns]"))  # type: ignore[no-untyped-call]
        for name in ("left", "right")
    )
    free = (right - left) * _APART / 2
    return left + free, right - free


def _draw_boxes(ax: Axes, rows: pl.DataFrame, low: F64, high: F64, **look: Any) -> None:
    from matplotlib.collections import PolyCollection

    left, right = _sides(rows)
    corners = np.array([[left, low], [right, low], [right, high], [left, high]])
    # edges, so that a bar of no width or height is seen
    ax.add_collection(PolyCollection(list(corners.transpose(2, 0, 1)), linewidth=0.9, **look))


def _draw_candles(ax: Axes, rows: pl.DataFrame, merged: str) -> None:
    from matplotlib.collections import LineCollection

    ax.xaxis_date()
    change = (pl.col("close") - pl.col("open")).sign()
    kinds = (
        (1, canvas.BUY, "none", "closed higher"),
        (-1, canvas.SELL, canvas.SELL, "closed lower"),
        (0, _SAME, _SAME, "closed as it opened"),
    )
    for sign, colour, face, label in kinds:
        some = rows.filter(change == sign)
        if some.is_empty():
            continue
        opens, high, low, close = (some[name].cast(pl.Float64).to_numpy() for name in _PRICES)
        bottom, top = np.minimum(opens, close), np.maximum(opens, close)
        middle = np.mean(_sides(some), axis=0)
        # not through the body, which may be hollow
        wicks = [np.array([[middle, ends[0]], [middle, ends[1]]]) for ends in ((low, bottom), (top, high))]
        lines = np.concatenate([ends.transpose(2, 0, 1) for ends in wicks])
        ax.add_collection(LineCollection(list(lines), colors=colour, linewidth=0.9))
        _draw_boxes(ax, some, bottom, top, facecolor=face, edgecolor=colour, label=label)
    if merged:
        ax.plot([], [], " ", label=merged)
    ax.autoscale_view()


def _draw_volume(ax: Axes, rows: pl.DataFrame) -> None:
    ax.xaxis_date()
    volume = rows["volume"].cast(pl.Float64).fill_null(0.0).to_numpy()
    if "buy_volume" in rows.columns:
        bought = np.minimum(rows["buy_volume"].cast(pl.Float64).fill_null(0.0).to_numpy(), volume)
        look = {"facecolor": (canvas.BUY, 0.35), "edgecolor": canvas.BUY, "label": "buy aggressor"}
        _draw_boxes(ax, rows, np.zeros_like(volume), bought, **look)
        look = {"facecolor": canvas.SELL, "edgecolor": canvas.SELL, "label": "sell aggressor"}
        _draw_boxes(ax, rows, bought, volume, **look)
    else:
        look = {"facecolor": canvas.LINE, "edgecolor": canvas.LINE, "label": "volume"}
        _draw_boxes(ax, rows, np.zeros_like(volume), volume, **look)
    ax.autoscale_view()
    ax.set_ylim(0, 1.05 * volume.max() or 1.0)


def _draw_flow(ax: Axes, rows: pl.DataFrame) -> None:
    ax.xaxis_date()
    flow = rows["ofi"].cast(pl.Float64).fill_null(0.0).to_numpy()
    for is_side, colour, face, label in (
        (flow > 0, canvas.BUY, "none", "net buying"),
        (flow < 0, canvas.SELL, canvas.SELL, "net selling"),
    ):
        height = flow[is_side]
        some = rows.filter(pl.Series(is_side))
        _draw_boxes(ax, some, np.zeros_like(height), height, facecolor=face, edgecolor=colour, label=label)
    ax.axhline(0, color="0.5", linewidth=0.8)
    ax.autoscale_view()
