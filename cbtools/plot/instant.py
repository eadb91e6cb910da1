"""A book at an instant: how much rests how far from mid, and at each of the best levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.plot.canvas import currencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PRICES: Final = 20
"""Of a side so many prices at most are written; of more levels, every second, every third, ..."""
_MOST_DECIMALS: Final = 12


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


def ladder(
    bids: pl.DataFrame,
    asks: pl.DataFrame,
    product_id: str,
    *,
    levels: int = 15,
    ax: Axes | None = None,
) -> Axes:
    """Draw the best levels of both sides as a ladder: a row a level, asks above, bids below.

    Parameters
    ----------
    bids, asks : polars.DataFrame
        price and size of each level, best first, as in `cbtools.Book`. One side may be empty.
    product_id : str
        Of which product; it names the axes.
    levels : int
        How many levels of each side at most.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The rows are evenly spaced, whatever their prices: the ladder is not to scale. The spread is written
        between the sides, in the quote currency and in basis points of mid. Of up to 20 levels a side each
        size stands at its bar, with three digits.

    Raises
    ------
    ConfigError
        If both sides are empty, or levels is not a positive whole number.

    Examples
    --------
    >>> bids, asks = (pl.DataFrame({"price": [price], "size": [1.0]}) for price in (99.0, 101.0))
    >>> ladder(bids, asks, "A-B").texts[-1].get_text()
    'spread 2 B = 200 bps'
    """
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise ConfigError(f"levels must be a positive whole number of levels a side, not {levels!r}")
    bids, asks = bids.head(levels), asks.head(levels)
    if bids.is_empty() and asks.is_empty():
        raise ConfigError(f"the book of {product_id!r} has no levels to draw: both sides are empty")
    base, quote = currencies(product_id)
    decimals = max(_decimals(price) for side in (bids, asks) for price in side["price"])
    ax = canvas.new_axes(ax, (7, min(12.0, 1.4 + 0.21 * (bids.height + asks.height + 1))))
    between = (bids.height + asks.height) // 40  # rows of many levels are too low for the text between
    ticks: dict[int, str] = {}
    for side, colour, name, upwards in ((asks, canvas.SELL, "asks", 1), (bids, canvas.BUY, "bids", -1)):
        if side.is_empty():
            continue
        rows = upwards * (between + np.arange(1, side.height + 1))  # row 0 is the spread's
        size = side["size"].to_numpy()
        bars = ax.barh(rows, size, height=0.8, color=colour, linewidth=0, label=name)
        if side.height <= _MOST_PRICES:  # most are small beside the largest: the length alone would not tell
            ax.bar_label(bars, [_short(one) for one in size], padding=3, fontsize="x-small", alpha=0.8)
        for k in range(0, side.height, 1 + (side.height - 1) // _MOST_PRICES):
            ticks[int(rows[k])] = f"{side['price'][k]:,.{decimals}f}"
    ax.text(
        0.02, 0, _spread(bids, asks, quote, decimals),
        transform=ax.get_yaxis_transform(), ha="left", va="center", fontsize="small",
    )  # fmt: skip
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize="small")
    ax.set_ylim(-bids.height - between - 0.7, asks.height + between + 0.7)
    ax.set_xlim(0, 1.1 * max(max(side["size"], default=0.0) for side in (bids, asks)) or 1.0)
    shown = max(bids.height, asks.height)
    what = f"each of the best {shown} levels" if shown > 1 else "the best level"
    title = f"{product_id}: how much rests at {what}?"
    canvas.finish(ax, title, f"size ({base})", f"price ({quote}), a row a level: not to scale")
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    canvas.legend(ax)
    return ax


def _decimals(price: float) -> int:
    """Count the decimals of a price, as it is written."""
    return len(np.format_float_positional(price, _MOST_DECIMALS, trim="-").partition(".")[2])


def _spread(bids: pl.DataFrame, asks: pl.DataFrame, quote: str, decimals: int) -> str:
    """Tell the spread, or which side there is not."""
    if bids.is_empty() or asks.is_empty():
        return "no bids" if bids.is_empty() else "no asks"
    bid, ask = bids["price"][0], asks["price"][0]
    spread = ask - bid
    told = np.format_float_positional(spread, decimals, trim="-")  # it has digits that the prices have not
    bps = _short(spread / ((bid + ask) / 2) * 1e4)
    crossed = "crossed: " if spread < 0 else ""
    return f"{crossed}spread {told} {quote} = {bps} bps"


def _short(number: float) -> str:
    """Write a number with three digits that count, and never as a power of ten."""
    text = np.format_float_positional(number, 3, fractional=False, trim="-")
    whole, _, decimals = text.partition(".")
    return f"{int(whole):,}" if not decimals else text
