"""A book at an instant: how much rests how far from mid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.plot.canvas import currencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def depth(
    bids: pl.DataFrame,
    asks: pl.DataFrame,
    product_id: str,
    *,
    within_bps: float = 50.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw how much rests within a distance of mid, cumulated from the best outwards.

    Parameters
    ----------
    bids, asks : polars.DataFrame
        price and size of each level, best first, as in `cbtools.Book`.
    product_id : str
        Of which product; it names the axes.
    within_bps : float
        How far from mid, basis points.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ConfigError
        If a side is empty, so that there is no mid, or the distance is not positive.

    Examples
    --------
    >>> bids, asks = (pl.DataFrame({"price": [price], "size": [1.0]}) for price in (99.0, 101.0))
    >>> depth(bids, asks, "A-B", within_bps=200).get_xlabel()
    'price (B)'
    """
    if bids.is_empty() or asks.is_empty():
        raise ConfigError(f"the book of {product_id!r} has an empty side: there is no mid to draw around")
    if not isinstance(within_bps, int | float) or not within_bps > 0:
        raise ConfigError(f"within_bps must be a positive distance in basis points, not {within_bps!r}")
    ax = canvas.new_axes(ax)
    mid = (bids["price"][0] + asks["price"][0]) / 2
    base, quote = currencies(product_id)
    for levels, colour, name, outwards in ((bids, canvas.BUY, "bids", -1), (asks, canvas.SELL, "asks", 1)):
        near = levels.filter(outwards * (levels["price"] - mid) / mid * 1e4 <= within_bps)
        edge = mid * (1 + outwards * within_bps / 1e4)
        price = [levels["price"][0], *near["price"], edge]
        size = [0.0, *near["size"].cum_sum(), near["size"].sum()]
        ax.fill_between(price, size, step="post", color=colour, alpha=0.25, linewidth=0)
        ax.step(price, size, where="post", color=colour, linewidth=1.2, label=name)
    ax.axvline(mid, color="0.5", linewidth=0.8, linestyle=":", label=f"mid {mid:,.10g}")
    ax.ticklabel_format(axis="x", useOffset=False, style="plain")
    ax.set_xlim(mid * (1 - within_bps / 1e4), mid * (1 + within_bps / 1e4))
    ax.set_ylim(bottom=0)
    title = f"{product_id}: how much rests within {within_bps:g} bps of mid?"
    canvas.finish(ax, title, f"price ({quote})", f"cumulative size ({base})")
    canvas.legend(ax)
    return ax
