"""How whole a recording is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MOST_CELLS: Final = 120
"""Of more cells the numbers would not be legible."""


def coverage(hours: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw in how many minutes of each hour a product has messages, and how far its book is ok.

    Parameters
    ----------
    hours : polars.DataFrame
        ``JobReport.coverage``: product_id, hour, minutes, messages, ok.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        A row a product, a column an hour; in each cell of a small picture, the share of the messages behind
        which the book is ok. Hours without messages are left white.

    Raises
    ------
    ConfigError
        If the frame has no rows.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> hour = datetime(2025, 11, 26, 14, tzinfo=UTC)
    >>> told = {"product_id": "A-B", "hour": hour, "minutes": 60, "messages": 9, "ok": 9}
    >>> [text.get_text() for text in coverage(pl.DataFrame([told])).texts]
    ['100%']
    """
    if hours.is_empty():
        raise ConfigError("there is no coverage to draw: the job ran no segment with messages")
    products = hours["product_id"].unique().sort().to_list()
    first, last = hours["hour"].sort()[0], hours["hour"].sort()[-1]
    columns = pl.datetime_range(first, last, "1h", eager=True).to_list()
    size = (min(12.0, 3.5 + 0.6 * len(columns)), min(12.0, 1.4 + 0.36 * len(products)))
    ax = canvas.new_axes(ax, size)
    minutes = [[float("nan")] * len(columns) for _ in products]
    small = len(columns) * len(products) <= _MOST_CELLS
    for product, hour, covered, messages, ok in hours.select(
        "product_id", "hour", "minutes", "messages", "ok"
    ).iter_rows():
        if messages:
            row, column = products.index(product), columns.index(hour)
            minutes[row][column] = covered
            if small:
                dark = covered > 30
                ax.text(
                    column, row, f"{_percent(ok / messages)}%", ha="center", va="center",
                    fontsize="small", color="white" if dark else "black",
                )  # fmt: skip
    image = ax.imshow(minutes, aspect="auto", cmap="cividis_r", vmin=0, vmax=60)
    bar = ax.figure.colorbar(image, ax=ax, ticks=range(0, 61, 15))
    bar.set_label("minutes with messages")
    bar.outline.set_visible(False)
    ax.set_yticks(range(len(products)), products)
    step = max(1, len(columns) // 12)
    ax.set_xticks(range(0, len(columns), step), [f"{hour:%H}" for hour in columns[::step]])
    span = f"{first:%F}" if first.date() == last.date() else f"{first:%F} to {last:%F}"
    ax.set_xlabel(f"hour (UTC), {span}")
    ax.set_title("What is covered, and how much of the book is ok?", loc="left", fontsize="medium")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def _percent(share: float) -> str:
    """Show a share in percent; what is not all of it is never shown as 100."""
    return "100" if share == 1.0 else f"{min(99.9, 100 * share):.3g}"
