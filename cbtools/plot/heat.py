"""The whole depth over time, and the trades that met it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.plot.canvas import currencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = npt.NDArray[np.float64]
Times = npt.NDArray[np.datetime64]
Cells = npt.NDArray[np.bool_]

_COLUMNS: Final = 800
"""So many instants are shown; a picture has not many more columns of pixels."""
_SECOND: Final = 1_000_000_000
"""A single row is drawn so wide, nanoseconds."""
_ROWS: Final = 240
"""So many prices are told apart at most."""
_FARTHEST_BPS: Final = 50.0
"""So far from mid it is drawn, unless farther is asked for."""
_SHOWN: Final = (0.3, 0.997)
"""The quantiles of the sizes that get the faintest and the brightest colour."""
_COLOURS: Final = "cividis"
_TRADES: Final = (500, (120, 60))
"""More trades than so many are summed in so many cells of time and of price."""
_LARGEST_CIRCLE: Final = 220.0
"""Its area, square points."""


def heatmap(
    book: pl.DataFrame,
    product_id: str,
    *,
    trades: pl.DataFrame | None = None,
    within_bps: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how much rests at which price over time, with mid and the trades.

    Parameters
    ----------
    book : polars.DataFrame
        Rows of the ``book`` table: product_id, server_time, book_state, and price and size of the first
        levels of both sides, as many as it shows. For a picture that reaches far, rebuild it with
        ``depth=200``. Rows without server_time are left out. Of many rows so many instants are shown as a
        picture has columns; what is drawn there is the book as it was then.
    product_id : str
        Which product.
    trades : polars.DataFrame, optional
        Rows of ``market_trades``: product_id, trade_time, price, size, aggressor_side and is_snapshot. They
        are drawn with areas that grow with their size; trades of a snapshot, and those outside of the
        picture, are left out. More than can be told apart are summed.
    within_bps : float, optional
        How far from the lowest and the highest mid, basis points; by default as far as the levels shown
        reach, half of the time.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With an image of the sizes, summed over prices that fall together, on a logarithmic scale. What lies
        beyond the last level that a row shows is not known, and is left empty. Where the book is not ok, it
        is veiled, and there is no mid.

    Raises
    ------
    ConfigError
        If the frame has no row of the product with a server_time, shows no level of a side in any, or lacks
        a column; or the distance is not positive.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=50).collect()
    >>> ax = cb.plot.heatmap(book, "SOL-USD", within_bps=20)
    >>> ax.get_ylabel(), ax.images[0].colorbar.ax.get_ylabel()
    ('price (USD)', 'size resting at 0.01 USD (SOL)')
    """
    if within_bps is not None and not (isinstance(within_bps, int | float) and within_bps > 0):
        raise ConfigError(f"within_bps must be a positive distance in basis points, not {within_bps!r}")
    canvas.check_columns(book, ["book_state"])
    depth = _depth(book)
    columns = [f"{side}_{of}_{i + 1}" for side, of in _PARTS for i in range(depth)]
    rows = canvas.rows_of(book, product_id, ["book_state", *columns], clock="server_time", what="book")
    edges, instants = _instants(rows)
    bids, asks = (_Side.of(instants, side, depth) for side in ("bid", "ask"))
    low, high = _span(product_id, bids.prices, asks.prices, within_bps)
    prices = _Prices.within(low, high, np.concatenate([bids.prices, asks.prices], axis=1))
    sizes = prices.sum(bids) + prices.sum(asks)
    sizes[prices.below(bids) | prices.above(asks)] = np.nan

    ax = canvas.new_axes(ax, (11, 6))
    _draw_sizes(ax, sizes, edges, prices, product_id)
    _draw_mid(ax, rows)
    if trades is not None:
        at = pl.col("trade_time").is_between(rows["server_time"][0], rows["server_time"][-1])
        met = at & (pl.col("product_id") == product_id) & ~pl.col("is_snapshot")
        met &= pl.col("price").is_between(prices.bottom, prices.top)
        _draw_trades(ax, trades.filter(met), currencies(product_id).base)
    canvas.shade(ax, rows, "server_time", alpha=0.55, zorder=2)
    _finish(ax, edges, prices, product_id)
    return ax


_PARTS: Final = [("bid", "price"), ("bid", "size"), ("ask", "price"), ("ask", "size")]


def _depth(book: pl.DataFrame) -> int:
    found = (re.fullmatch(r"bid_price_(\d+)", name) for name in book.columns)
    return max((int(match[1]) for match in found if match), default=1)


def _instants(rows: pl.DataFrame) -> tuple[Times, pl.DataFrame]:
    """Give the edges of the columns of the picture, and the row that holds where each begins."""
    time = rows["server_time"].to_physical().to_numpy()
    span = int(time[-1] - time[0]) or _SECOND
    edges = time[0] + np.linspace(0, span, _COLUMNS + 1).astype(np.int64)
    holds = np.searchsorted(time, edges[:-1], side="right") - 1
    return edges.astype("datetime64[ns]"), rows[holds]


class _Side(NamedTuple):
    """One side at each instant: a row an instant, a column a level; NaN where there is none."""

    prices: F64
    sizes: F64

    @classmethod
    def of(cls, instants: pl.DataFrame, side: str, depth: int) -> _Side:
        """Take a side out of rows of the book."""
        names = ([f"{side}_{of}_{i + 1}" for i in range(depth)] for of in ("price", "size"))
        return cls(*(instants.select(pl.col(few).cast(pl.Float64)).to_numpy() for few in names))


def _span(product_id: str, bids: F64, asks: F64, within_bps: float | None) -> tuple[float, float]:
    """Give the lowest and the highest price to be shown."""
    mid = (bids[:, 0] + asks[:, 0]) / 2
    both = np.isfinite(mid)
    if not both.any():
        raise ConfigError(f"the book of {product_id!r} never has both sides: there is no mid to draw around")
    mid, bids, asks = mid[both], bids[both], asks[both]
    if within_bps is None:
        reach = (np.nanmax(asks, axis=1) - np.nanmin(bids, axis=1)) / 2 / mid
        within_bps = min(float(np.median(reach)) * 1e4, _FARTHEST_BPS)
    return mid.min() * (1 - within_bps / 1e4), mid.max() * (1 + within_bps / 1e4)


class _Prices(NamedTuple):
    """The rows of the picture: so many of some ticks each, from the bottom up."""

    bottom: float
    step: float
    n: int
    tick: float

    @classmethod
    def within(cls, low: float, high: float, prices: F64) -> _Prices:
        """Lay rows of whole ticks from a price to another, as many as can be told apart."""
        known = np.unique(prices[(prices >= low) & (prices <= high)])
        apart = np.diff(known)
        tick = float(apart.min()) if apart.size else (high - low) or 1.0
        tick = float(f"{tick:.6g}")  # the difference of two doubles is a tick and some dust
        step = tick * max(1, int(np.ceil((high - low) / tick / _ROWS)))
        bottom = (np.floor(low / tick) - 0.5) * tick  # half a tick below, so that no price is on an edge
        return cls(float(bottom), step, int((high - bottom) / step) + 1, tick)

    @property
    def top(self) -> float:
        """The upper edge."""
        return self.bottom + self.step * self.n

    def row_of(self, price: F64) -> F64:
        """Tell in which row a price is; NaN for none."""
        row: F64 = np.floor((price - self.bottom) / self.step)
        return row

    def sum(self, side: _Side) -> F64:
        """Sum the sizes of a side that fall together: a row a price, a column an instant."""
        row = self.row_of(side.prices)
        seen = (row >= 0) & (row < self.n)
        cell = row[seen].astype(np.int64) * len(row) + np.nonzero(seen)[0]
        summed = np.zeros((self.n, len(row)))
        np.add.at(summed.reshape(-1), cell, side.sizes[seen])
        return summed

    def below(self, bids: _Side) -> Cells:
        """Tell what lies below the last bid of those shown; nothing if the row shows the whole side."""
        below: Cells = np.arange(self.n)[:, None] < self.row_of(bids.prices[:, -1])
        return below

    def above(self, asks: _Side) -> Cells:
        """Tell what lies above the last ask of those shown."""
        above: Cells = np.arange(self.n)[:, None] > self.row_of(asks.prices[:, -1])
        return above


def _draw_sizes(ax: Axes, sizes: F64, edges: Times, prices: _Prices, product_id: str) -> None:
    import matplotlib as mpl
    from matplotlib.colors import LogNorm
    from matplotlib.dates import date2num

    some = sizes[sizes > 0]
    faintest, brightest = np.quantile(some, _SHOWN) if some.size else (1.0, 1.0)
    if not faintest < brightest:
        faintest, brightest = faintest / 2, faintest * 2
    colours = mpl.colormaps[_COLOURS].with_extremes(bad="none")
    nothing_is_dark = np.where(sizes == 0, faintest / 10, sizes)  # 0 has no logarithm
    left, right = date2num(edges[[0, -1]])  # type: ignore[no-untyped-call]
    image = ax.imshow(
        nothing_is_dark, norm=LogNorm(faintest, brightest), cmap=colours, origin="lower", aspect="auto",
        interpolation="nearest", extent=(left, right, prices.bottom, prices.top),
    )  # fmt: skip
    bar = ax.figure.colorbar(image, ax=ax, extend="both", pad=0.01, aspect=35)
    base, quote = currencies(product_id)
    bar.set_label(f"size resting at {prices.step:.6g} {quote} ({base})")
    bar.outline.set_visible(False)


def _draw_mid(ax: Axes, rows: pl.DataFrame) -> None:
    """Draw mid where it is proven; elsewhere the line is broken."""
    from matplotlib.patheffects import withStroke

    mid = pl.when(pl.col("book_state") == "ok").then((pl.col("bid_price_1") + pl.col("ask_price_1")) / 2)
    line = canvas.thinned(rows.select("server_time", mid=mid), "server_time", ["mid"])
    ax.step(
        line["server_time"].to_numpy(), line["mid"].to_numpy(), where="post",
        color="white", linewidth=1.0, label="mid",
        path_effects=[withStroke(linewidth=2.2, foreground="black")],
    )  # fmt: skip


def _draw_trades(ax: Axes, trades: pl.DataFrame, base: str) -> None:
    """Draw a circle for what was traded near a time and a price, its area proportional to the size."""
    trades = canvas.summed_trades(trades, *_TRADES)
    largest = max(trades["size"], default=1.0)
    for side, colour in (("buy", canvas.BUY), ("sell", canvas.SELL)):
        of_side = trades.filter(pl.col("aggressor_side") == side).sort("size", descending=True)
        ax.scatter(
            of_side["trade_time"].to_numpy(), of_side["price"].to_numpy(),
            (_LARGEST_CIRCLE * of_side["size"] / largest).clip(4.0).to_numpy(), color=colour,
            alpha=0.85, linewidths=0.3, edgecolors="white", label=f"{side} aggressor", zorder=3,
        )  # fmt: skip
    ax.plot([], [], " ", label=f"largest circle {largest:.3g} {base}")


def _finish(ax: Axes, edges: Times, prices: _Prices, product_id: str) -> None:
    canvas.time_axis(ax)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(prices.bottom, prices.top)
    ax.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    title = f"{product_id}: where does liquidity rest, and what do trades meet?"
    canvas.finish(ax, title, canvas.clock_label("server_time"), f"price ({currencies(product_id).quote})")
    ax.grid(visible=False)
    canvas.legend(ax, 5)
