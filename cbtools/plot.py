"""Frames → matplotlib Axes. Every function takes frames and returns Axes, and loads matplotlib when called.

The colours are Okabe and Ito's, told apart by colour-blind readers, and legible on light and dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from cbtools.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUY: Final = "#009E73"
SELL: Final = "#D55E00"
QUOTE: Final = "#56B4E9"

_NOT_OK: Final = {"unproven": "#999999", "crossed": "#CC79A7", "one_sided": "#E69F00", "empty": "#F0E442"}

_MOST_CELLS: Final = 120
"""Of more cells the numbers would not be legible."""
_MOST_POINTS: Final = 4_000
"""More quotes than a picture has columns of pixels are thinned to about so many."""


def trades_on_quotes(
    trades: pl.DataFrame, quotes: pl.DataFrame, product_id: str, *, ax: Axes | None = None
) -> Axes:
    """Draw a product's trades, by aggressor and size, on the best bid and ask.

    Parameters
    ----------
    trades : polars.DataFrame
        Rows of the ``market_trades`` table: product_id, trade_time, price, size, aggressor_side and
        is_snapshot. Trades of a snapshot, which happened before they were asked for, are left out.
    quotes : polars.DataFrame
        Rows of the ``ticker`` table: product_id, server_time, best_bid, best_ask. Rows without either are
        left out; more than a picture can show are thinned, evenly.
    product_id : str
        Which product.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ConfigError
        If neither frame has a row of the product.

    Examples
    --------
    >>> import cbtools as cb
    >>> tables = cb.read_raw(cb.sample_path())
    >>> cb.plot.trades_on_quotes(tables.market_trades, tables.ticker, "BTC-USD").get_ylabel()
    'price (USD)'
    """
    trades = trades.filter(pl.col("product_id") == product_id, ~pl.col("is_snapshot")).sort("trade_time")
    quotes = quotes.filter(pl.col("product_id") == product_id).drop_nulls(("best_bid", "best_ask"))
    quotes = _thinned(quotes.sort("server_time"))
    if trades.is_empty() and quotes.is_empty():
        raise ConfigError(f"no trades and no quotes of {product_id!r} to draw: see the frames' product_id")
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    when = quotes["server_time"].to_numpy()
    bid, ask = quotes["best_bid"].to_numpy(), quotes["best_ask"].to_numpy()
    ax.fill_between(when, bid, ask, step="post", color=QUOTE, alpha=0.35, linewidth=0)
    ax.step(when, bid, where="post", color=QUOTE, linewidth=0.9, label="best bid and ask")
    ax.step(when, ask, where="post", color=QUOTE, linewidth=0.9)
    largest = trades["size"].max() or 1.0
    for side, colour, marker in (("buy", BUY, "^"), ("sell", SELL, "v")):
        of_side = trades.filter(pl.col("aggressor_side") == side)
        area = 8.0 + 110.0 * (of_side["size"] / largest).sqrt().to_numpy()
        ax.scatter(
            of_side["trade_time"].to_numpy(), of_side["price"].to_numpy(), area,
            color=colour, marker=marker, alpha=0.65, linewidths=0, label=f"{side} aggressor", zorder=3,
        )  # fmt: skip
    _finish_time(ax, f"{product_id}: at which prices do trades happen?", product_id)
    return ax


def quotes(book: pl.DataFrame, product_id: str, *, ax: Axes | None = None) -> Axes:
    """Draw a product's best bid and ask over time, and shade where its book is not ok.

    Parameters
    ----------
    book : polars.DataFrame
        Rows of the ``book`` table: product_id, server_time, bid_price_1, ask_price_1, book_state. A row holds
        until the next; so does the shade of a state. Rows without server_time are left out; more than a
        picture can show are thinned, evenly, but not their shades.
    product_id : str
        Which product.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ConfigError
        If the frame has no row of the product with a server_time.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=1, on="bbo").collect()
    >>> ax = cb.plot.quotes(book, "BTC-USD")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['best bid', 'best ask', 'unproven']
    """
    of_product = (pl.col("product_id") == product_id) & pl.col("server_time").is_not_null()
    book = book.filter(of_product).sort("server_time", maintain_order=True)
    if book.is_empty():
        raise ConfigError(f"no book of {product_id!r} to draw: see the frame's product_id")
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    shown = _thinned(book)
    when = shown["server_time"].to_numpy()
    # mostly they are a tick apart and fall together: a thin line on a broad one, so that both are seen
    for side, colour, width, alpha in (("bid", BUY, 3.2, 0.5), ("ask", SELL, 1.1, 1.0)):
        ax.step(
            when, shown[f"{side}_price_1"].to_numpy(), where="post",
            color=colour, linewidth=width, alpha=alpha, label=f"best {side}",
        )  # fmt: skip
    begins = pl.col("book_state").ne_missing(pl.col("book_state").shift())
    changes = pl.concat([book.filter(begins), book.tail(1)])
    states = changes["book_state"].cast(pl.String)
    lasting = changes["server_time"] < book["server_time"][-1]  # behind the last row, nothing is known
    for state, colour in _NOT_OK.items():
        so = (lasting & (states == state)).to_numpy()
        if so.any():
            ax.fill_between(
                changes["server_time"].to_numpy(), 0, so, step="post", transform=ax.get_xaxis_transform(),
                color=colour, alpha=0.3, linewidth=0, zorder=0, label=state.replace("_", "-"),
            )  # fmt: skip
    _finish_time(ax, f"{product_id}: can the best bid and ask be trusted?", product_id)
    return ax


def _thinned(quotes: pl.DataFrame) -> pl.DataFrame:
    """Take every so manieth row, and the last, where there are more than a picture can show."""
    every = -(-quotes.height // _MOST_POINTS)
    return quotes if every < 2 else pl.concat([quotes.gather_every(every), quotes.tail(1)])


def _finish_time(ax: Axes, title: str, product_id: str) -> None:
    import matplotlib.dates as dates

    locator = dates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    ax.set_title(title, loc="left")
    ax.set_xlabel("exchange time (UTC)")
    ax.set_ylabel(f"price ({product_id.rpartition('-')[2]})")
    ax.grid(alpha=0.25, linewidth=0.5)
    ax.margins(x=0.01)
    ax.spines[["top", "right"]].set_visible(False)
    legend = ax.legend(
        frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2
    )
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([45.0])  # one size, whatever the first trade's was


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
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    mid = (bids["price"][0] + asks["price"][0]) / 2
    base, _, quote = product_id.rpartition("-")
    for levels, colour, name, outwards in ((bids, BUY, "bids", -1), (asks, SELL, "asks", 1)):
        near = levels.filter(outwards * (levels["price"] - mid) / mid * 1e4 <= within_bps)
        edge = mid * (1 + outwards * within_bps / 1e4)
        price = [levels["price"][0], *near["price"], edge]
        size = [0.0, *near["size"].cum_sum(), near["size"].sum()]
        ax.fill_between(price, size, step="post", color=colour, alpha=0.25, linewidth=0)
        ax.step(price, size, where="post", color=colour, linewidth=1.2, label=name)
    ax.axvline(mid, color="0.5", linewidth=0.8, linestyle=":", label=f"mid {mid:,.10g}")
    ax.yaxis.set_label_text(f"cumulative size ({base})")
    ax.set_xlabel(f"price ({quote})")
    ax.set_title(f"{product_id}: how much rests within {within_bps:g} bps of mid?", loc="left")
    ax.ticklabel_format(axis="x", useOffset=False, style="plain")
    ax.set_xlim(mid * (1 - within_bps / 1e4), mid * (1 + within_bps / 1e4))
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.25, linewidth=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return ax


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
    import matplotlib.pyplot as plt

    products = hours["product_id"].unique().sort().to_list()
    first, last = hours["hour"].sort()[0], hours["hour"].sort()[-1]
    columns = pl.datetime_range(first, last, "1h", eager=True).to_list()
    if ax is None:
        size = (min(12.0, 3.5 + 0.6 * len(columns)), min(12.0, 1.4 + 0.36 * len(products)))
        _, ax = plt.subplots(figsize=size, layout="constrained")
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
