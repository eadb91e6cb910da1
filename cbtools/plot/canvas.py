"""What all pictures have in common: colours, axes, time, the product's rows, and not more points than pixels.

The colours are Okabe and Ito's, told apart by colour-blind readers, and legible on light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from cbtools.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUY: Final = "#009E73"
SELL: Final = "#D55E00"
QUOTE: Final = "#56B4E9"
LINE: Final = "#0072B2"
NOT_OK: Final = {"unproven": "#999999", "crossed": "#CC79A7", "one_sided": "#E69F00", "empty": "#F0E442"}

MOST_POINTS: Final = 4_000
"""More rows than a picture has columns of pixels are thinned: `thinned`."""
_COLUMNS: Final = 1_000
"""So many stretches of time are told apart then."""
_CELLS: Final = (400, 200)
"""More trades than `MOST_POINTS` are summed in cells, so many in time and in price."""


class Of(NamedTuple):
    """A product's currencies."""

    base: str
    quote: str


def currencies(product_id: str) -> Of:
    """Split BTC-USD into BTC and USD."""
    base, _, quote = product_id.rpartition("-")
    return Of(base, quote)


def new_axes(ax: Axes | None, size: tuple[float, float] = (10, 5)) -> Axes:
    """Give the axes to draw on: the caller's, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def new_panels(
    axes: Sequence[Axes] | None, ratios: Sequence[float], size: tuple[float, float] = (10, 6.5)
) -> tuple[Axes, ...]:
    """Give axes one below the other that share their time: the caller's, or those of a new figure."""
    if axes is not None:
        given = tuple(axes)
        if len(given) != len(ratios):
            raise ConfigError(f"axes must be {len(ratios)}, one a panel, not {len(given)}")
        return given
    import matplotlib.pyplot as plt

    _, made = plt.subplots(
        len(ratios), 1, figsize=size, sharex=True, height_ratios=list(ratios), layout="constrained"
    )
    return tuple(made)


def rows_of(
    frame: pl.DataFrame, product_id: str, columns: Sequence[str], *, clock: str, what: str
) -> pl.DataFrame:
    """Give some columns of a product's rows that have a time, in its order.

    Parameters
    ----------
    frame : polars.DataFrame
        The rows, of one product or more; without a column product_id they are of the product.
    product_id : str
        Which product.
    columns : sequence of str
        Which columns, besides the clock.
    clock : str
        The column of times.
    what : str
        What the rows are, for the message: "book", "bars".

    Returns
    -------
    polars.DataFrame
        Not empty.

    Raises
    ------
    ConfigError
        If the frame lacks a column, or has no such row.
    """
    check_columns(frame, (clock, *columns))
    with_time = pl.col(clock).is_not_null()
    kept = with_time & (pl.col("product_id") == product_id) if "product_id" in frame.columns else with_time
    rows = frame.lazy().filter(kept).select(clock, *columns).collect()
    if rows.is_empty():
        raise ConfigError(f"no {what} of {product_id!r} to draw: see the frame's product_id")
    return in_order(rows, clock)


def in_order(rows: pl.DataFrame, clock: str) -> pl.DataFrame:
    """Sort rows by time, if they are not; those of equal times stay as they stand."""
    return rows if rows[clock].is_sorted() else rows.sort(clock, maintain_order=True)


def check_columns(frame: pl.DataFrame, columns: Sequence[str]) -> None:
    """Raise ConfigError if it is no frame in memory, or lacks a column."""
    if not isinstance(frame, pl.DataFrame):
        raise ConfigError(
            f"a picture is drawn of a polars.DataFrame, not of a {type(frame).__name__}: collect it"
        )
    for name in columns:
        if name not in frame.columns:
            raise unknown_name("column of the frame", name, frame.columns)


def thinned(rows: pl.DataFrame, clock: str, values: Sequence[str]) -> pl.DataFrame:
    """Take fewer rows that draw the same lines: in each stretch of time the first, the last and the extremes.

    Parameters
    ----------
    rows : polars.DataFrame
        Sorted by clock; up to `MOST_POINTS` rows are given back as they are.
    clock : str
        The column of times.
    values : sequence of str
        The columns whose smallest and largest value of each stretch are kept.

    Returns
    -------
    polars.DataFrame
        Rows of the frame, in its order.
    """
    if rows.height <= MOST_POINTS:
        return rows
    time = pl.col(clock).to_physical()
    width = -(-(time.last() - time.first() + 1) // _COLUMNS)
    index = pl.int_range(pl.len(), dtype=pl.UInt32)
    extremes = [
        pl.col("index").get(getattr(pl.col(name), arg)(), null_on_oob=True).alias(f"{name}_{arg}")
        for name in values
        for arg in ("arg_min", "arg_max")
    ]
    kept = (
        rows.lazy()
        .select(*values, index=index, column=(time - time.first()) // width)
        .group_by("column")
        .agg(pl.col("index").first().alias("first"), pl.col("index").last().alias("last"), *extremes)
        .select(pl.concat_list(pl.exclude("column")).explode().drop_nulls().unique().sort())
    )
    return rows[kept.collect().to_series()]


def summed_trades(
    trades: pl.DataFrame, most: int = MOST_POINTS, cells: tuple[int, int] = _CELLS
) -> pl.DataFrame:
    """Sum what would lie on one spot: more trades than ``most`` by cells of time and price, and by side.

    The columns are trade_time, price, size and aggressor_side; a sum stands at its cell's mean price and
    time, by size.
    """
    if trades.height <= most:
        return trades
    time, price, size, since = (pl.col(name) for name in ("trade_time", "price", "size", "since"))
    across, up = cells
    return (
        trades.lazy()
        .with_columns(first=time.min(), since=(time - time.min()).dt.total_nanoseconds())
        .group_by("aggressor_side", _cell(since, across).alias("column"), _cell(price, up).alias("row"))
        .agg(
            trade_time=pl.col("first").first()
            + pl.duration(nanoseconds=((since * size).sum() / size.sum()).cast(pl.Int64)),
            price=(price * size).sum() / size.sum(),
            size=size.sum(),
        )
        .select("trade_time", "price", "size", "aggressor_side")
        .sort("trade_time", "price", "aggressor_side")
        .collect()
    )


def _cell(value: pl.Expr, n: int) -> pl.Expr:
    """Tell in which of so many equal parts of a column's range a value is."""
    part = (value - value.min()) / (value.max() - value.min())
    return (part * n).fill_nan(0.0).cast(pl.Int32)


def draw_trades(ax: Axes, trades: pl.DataFrame) -> None:
    """Draw trades by aggressor, an area that grows with the size of each: buys upwards, sells downwards."""
    trades = in_order(summed_trades(trades), "trade_time")
    largest = trades["size"].max() or 1.0
    for side, colour, marker in (("buy", BUY, "^"), ("sell", SELL, "v")):
        of_side = trades.filter(pl.col("aggressor_side") == side)
        area = 8.0 + 110.0 * (of_side["size"] / largest).sqrt().to_numpy()
        ax.scatter(
            of_side["trade_time"].to_numpy(), of_side["price"].to_numpy(), area,
            color=colour, marker=marker, alpha=0.65, linewidths=0, label=f"{side} aggressor", zorder=3,
        )  # fmt: skip


def shade(ax: Axes, rows: pl.DataFrame, clock: str, **look: Any) -> None:
    """Shade the stretches of time in which a book is not ok, and name them for the legend.

    A row's state holds until the next row; behind the last one nothing is known. The rows are sorted.
    """
    begins = pl.col("book_state").ne_missing(pl.col("book_state").shift())
    changes = pl.concat(
        [rows.select(clock, "book_state").filter(begins), rows[-1:].select(clock, "book_state")]
    )
    states = changes["book_state"].cast(pl.String)
    lasting = changes[clock] < rows[clock][-1]
    look = {"alpha": 0.3, "linewidth": 0, "zorder": 0, **look}
    for state, colour in NOT_OK.items():
        so = (lasting & (states == state)).to_numpy()
        if so.any():
            ax.fill_between(
                changes[clock].to_numpy(), 0, so, step="post", transform=ax.get_xaxis_transform(),
                color=colour, label=state.replace("_", "-"), **look,
            )  # fmt: skip


def finish(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Say what the picture answers, and what its axes are; no ink that says nothing."""
    ax.set_title(title, loc="left")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.25, linewidth=0.5)
    ax.spines[["top", "right"]].set_visible(False)


def time_axis(ax: Axes) -> None:
    """Write times as short as they can be told apart."""
    import matplotlib.dates as dates

    locator = dates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    locator.intervald[dates.MINUTELY] = [1, 2, 5, 10, 15, 30]  # else ten minutes have two ticks
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.margins(x=0.01)


def legend(ax: Axes, columns: int = 6) -> None:
    """Name what is drawn, between the title and the axes, where it hides nothing."""
    drawn = ax.legend(
        frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2,
        borderpad=0.1, handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip
    rows = -(-len(drawn.get_texts()) // columns)
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=11 + 15 * rows)
    for handle in drawn.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([45.0])  # one size, whatever the first trade's was


def clock_label(clock: str) -> str:
    """Name an axis of times: what the exchange says, or when it was received."""
    kind = {"capture_time": "time of receipt", "sample_time": "time"}.get(clock, "exchange time")
    return f"{kind} (UTC)"
