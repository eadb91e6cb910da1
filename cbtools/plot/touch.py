"""The best bid and ask over time, with trades on them, or with what may be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.plot.canvas import currencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    quotes = quotes.filter(pl.col("product_id") == product_id).drop_nulls(("best_bid", "best_ask"))
    trades = trades.filter(pl.col("product_id") == product_id, ~pl.col("is_snapshot"))
    if trades.is_empty() and quotes.is_empty():
        raise ConfigError(f"no trades and no quotes of {product_id!r} to draw: see the frames' product_id")
    quotes = canvas.in_order(quotes.select("server_time", "best_bid", "best_ask"), "server_time")
    quotes = canvas.thinned(quotes, "server_time", ("best_bid", "best_ask"))
    ax = canvas.new_axes(ax)
    when = quotes["server_time"].to_numpy()
    bid, ask = quotes["best_bid"].to_numpy(), quotes["best_ask"].to_numpy()
    ax.fill_between(when, bid, ask, step="post", color=canvas.QUOTE, alpha=0.35, linewidth=0)
    ax.step(when, bid, where="post", color=canvas.QUOTE, linewidth=0.9, label="best bid and ask")
    ax.step(when, ask, where="post", color=canvas.QUOTE, linewidth=0.9)
    canvas.draw_trades(ax, trades)
    _finish(ax, f"{product_id}: at which prices do trades happen?", product_id)
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
    columns = ("bid_price_1", "ask_price_1", "book_state")
    book = canvas.rows_of(book, product_id, columns, clock="server_time", what="book")
    ax = canvas.new_axes(ax)
    shown = canvas.thinned(book, "server_time", ("bid_price_1", "ask_price_1"))
    when = shown["server_time"].to_numpy()
    # mostly they are a tick apart and fall together: a thin line on a broad one, so that both are seen
    for side, colour, width, alpha in (("bid", canvas.BUY, 3.2, 0.5), ("ask", canvas.SELL, 1.1, 1.0)):
        ax.step(
            when, shown[f"{side}_price_1"].to_numpy(), where="post",
            color=colour, linewidth=width, alpha=alpha, label=f"best {side}",
        )  # fmt: skip
    canvas.shade(ax, book, "server_time")
    _finish(ax, f"{product_id}: can the best bid and ask be trusted?", product_id)
    return ax


def _finish(ax: Axes, title: str, product_id: str) -> None:
    canvas.time_axis(ax)
    ax.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    canvas.finish(ax, title, canvas.clock_label("server_time"), f"price ({currencies(product_id).quote})")
    canvas.legend(ax)
