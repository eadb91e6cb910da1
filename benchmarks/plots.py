"""Draw 10 million rows with each function of cbtools.plot, saved as PNG. Target: under 3 s each.

Best bid and ask are drawn without thinning, too, by matplotlib alone.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from measure import Claim, Table, alternate, arguments, tell, times_as_fast

import cbtools as cb
from cbtools.schema import BOOK_STATE, TIME, TRADE_SIDE

LEVELS = 10
PRODUCT = "BTC-USD"


def book(n: int, random: np.random.Generator) -> pl.DataFrame:
    """Make a book that walks for a day, and is not proven in a twentieth of it."""
    mid = 87_000 + np.cumsum(random.choice([-0.01, 0.0, 0.01], n))
    state = np.where(np.arange(n) % 200_000 < 10_000, "unproven", "ok")
    levels = {}
    for i in range(LEVELS):
        for side, sign in (("bid", -1), ("ask", 1)):
            levels[f"{side}_price_{i + 1}"] = mid + sign * (i + 0.5) * 0.01
            levels[f"{side}_size_{i + 1}"] = random.exponential(1.0, n)
    frame = pl.DataFrame({"server_time": times(n), **levels}).with_columns(
        product_id=pl.lit(PRODUCT),
        book_state=pl.Series(state, dtype=BOOK_STATE),
    )
    return frame.with_columns(
        mid=(pl.col("bid_price_1") + pl.col("ask_price_1")) / 2,
        ofi=pl.col("bid_size_1") - pl.col("ask_size_1"),
    )


def times(n: int) -> pl.Series:
    start = np.datetime64("2025-11-26T00:00:00", "ns").astype(np.int64)
    day = 86_400_000_000_000
    return pl.Series(start + np.arange(n) * (day // n)).cast(TIME)


def trades(n: int, random: np.random.Generator) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "trade_time": times(n),
            "price": np.round(87_000 + np.cumsum(random.choice([-0.01, 0.0, 0.01], n)), 2),
            "size": random.exponential(0.1, n),
            "aggressor_side": pl.Series(random.choice(["buy", "sell"], n), dtype=TRADE_SIDE),
        }
    ).with_columns(product_id=pl.lit(PRODUCT), is_snapshot=pl.lit(value=False))


def of_feed(trades: pl.DataFrame) -> pl.DataFrame:
    """Add what bars look at, too: numbers without a hole, one connection."""
    return trades.with_row_index("trade_id").with_columns(
        pl.col("trade_id").cast(pl.Int64), connection=pl.lit(1, pl.Int32)
    )


def saved(draw: Callable[[], object]) -> Callable[[], None]:
    """Draw and save: what is drawn is worked out only when it is saved."""

    def job() -> None:
        draw()
        plt.savefig(io.BytesIO(), dpi=100)
        plt.close("all")

    return job


def unthinned(rows: pl.DataFrame) -> None:
    _, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    for column in ("bid_price_1", "ask_price_1"):
        ax.step(rows["server_time"].to_numpy(), rows[column].to_numpy(), where="post")


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    n = 100_000 if options.quick else 10_000_000
    mpl.use("Agg")
    random = np.random.default_rng(1)
    rows, met = book(n, random), trades(n, random)
    tickers = rows.select(
        "product_id", "server_time", best_bid=pl.col("bid_price_1"), best_ask=pl.col("ask_price_1")
    )
    line = cb.regress(rows, "mid", "ofi").collect()
    bars = cb.trade_bars(of_feed(met), "tick", 10).collect()
    columns = [f"{side}_size_{i}" for side in ("bid", "ask") for i in range(1, 9)]
    jobs = {
        "heatmap": lambda: cb.plot.heatmap(rows, PRODUCT, trades=met),
        "quotes": lambda: cb.plot.quotes(rows, PRODUCT),
        "trades_on_quotes": lambda: cb.plot.trades_on_quotes(met, tickers, PRODUCT),
        "panels": lambda: cb.plot.panels(rows, PRODUCT),
        "candles": lambda: cb.plot.candles(bars, PRODUCT),
        "fit": lambda: cb.plot.fit(rows, "mid", "ofi", line),
        "seasonality": lambda: cb.plot.seasonality(rows, "ofi"),
        "correlations": lambda: cb.plot.correlations(rows, columns),
        "matplotlib alone": lambda: unthinned(rows),
    }
    seconds = alternate({name: saved(draw) for name, draw in jobs.items()}, options.repeat)
    print(f"{n:,} rows; candles: {bars.height:,} bars")
    for name, runs in seconds.items():
        yield Claim(f"plot, {name}", "s", runs, None if "alone" in name else 3, less=True)
    yield times_as_fast("plot, quotes against matplotlib alone", seconds, "quotes", "matplotlib alone", None)


def main() -> None:
    options = arguments(__doc__)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
