"""The order book on one core. Targets: 60 ns a level change with top 10 after each message, 30 ns best only.

On a simulated BTC-USD book of 45,000 levels and 100 MB of its updates, from level2 in memory to the book's
rows; linear: the same for a fourth and a sixteenth of the messages. And against two books that keep each side
sorted, on the first of these messages, with the same rows given out: sortedcontainers' SortedDict (target: 20
times as fast) and the C package order-book (5 times), of the extra ``bench``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from itertools import islice

if hasattr(os, "sched_setaffinity"):  # before any thread is started: one core
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import polars as pl
from measure import Claim, Table, alternate, arguments, segment, tell, times_as_fast
from order_book import SortedDict as OrderBookSide
from sortedcontainers import SortedDict

import cbtools as cb

DEPTH = 10
TOP = [
    f"{side}_{what}_{k + 1}" for side in ("bid", "ask") for what in ("price", "size") for k in range(DEPTH)
]
BEST = ["bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1"]
FEW = 1_000
"""So many messages are given to order-book, which takes milliseconds for each."""


def rebuilt(level2: pl.DataFrame, columns: list[str], depth: int) -> pl.DataFrame:
    return cb.rebuild_book(level2, depth=depth).select("sequence_num", *columns).collect()


Message = list[tuple[bool, float, float]]
Row = tuple[float, ...]


def messages(level2: pl.DataFrame) -> list[Message]:
    """Give each message's changes as what a plain program would hold: is it a bid, price, size."""
    rows = level2.select("line", pl.col("side") == "bid", "price", "size").iter_rows()
    whole: list[Message] = []
    last = None
    for line, *change in rows:
        if line != last:
            whole.append([])
        last = line
        whole[-1].append(tuple(change))
    return whole


def sorted_dict(whole: list[Message]) -> list[Row]:
    """Keep the book in two of sortedcontainers' dicts, bids by their negative price."""
    bids, asks, rows = SortedDict(), SortedDict(), []
    for message in whole:
        for is_bid, price, size in message:
            side, key = (bids, -price) if is_bid else (asks, price)
            if size:
                side[key] = size
            else:
                side.pop(key, None)
        top_bids, top_asks = list(islice(bids.items(), DEPTH)), list(islice(asks.items(), DEPTH))
        rows.append((
            *(-price for price, _ in top_bids), *(size for _, size in top_bids),
            *(price for price, _ in top_asks), *(size for _, size in top_asks),
        ))  # fmt: skip
    return rows


def order_book(whole: list[Message]) -> list[Row]:
    """Keep the book in two of order-book's dicts."""
    bids, asks, rows = OrderBookSide(ordering="DESC"), OrderBookSide(ordering="ASC"), []
    for message in whole:
        for is_bid, price, size in message:
            side = bids if is_bid else asks
            if size:
                side[price] = size
            elif price in side:
                del side[price]
        top_bids, top_asks = ([side.index(k) for k in range(DEPTH)] for side in (bids, asks))
        rows.append((
            *(price for price, _ in top_bids), *(size for _, size in top_bids),
            *(price for price, _ in top_asks), *(size for _, size in top_asks),
        ))  # fmt: skip
    return rows


def prefix(level2: pl.DataFrame, n_messages: int) -> pl.DataFrame:
    lines = level2["line"].unique(maintain_order=True)
    return level2.filter(pl.col("line") <= lines[min(n_messages, len(lines) - 1)])


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    level2 = cb.scan_raw(segment(options.folder, options.megabytes), "level2").collect().rechunk()
    lines = level2["line"].n_unique()
    first = level2.filter(pl.col("is_snapshot"))
    print(
        f"{level2.height:,} changes in {lines:,} messages; the first is a snapshot of {first.height:,} levels"
    )
    parts = {n: prefix(level2, lines // n) for n in (16, 4, 1)}
    jobs: dict[str, Callable[[], object]] = {}
    for n, part in parts.items():
        jobs[f"top 10, 1/{n} of the messages"] = lambda part=part: rebuilt(part, TOP, DEPTH)
        jobs[f"best only, 1/{n} of the messages"] = lambda part=part: rebuilt(part, BEST, 1)
    seconds = alternate(jobs, options.repeat)
    for (name, runs), changes in zip(
        seconds.items(), np.repeat([p.height for p in parts.values()], 2), strict=True
    ):
        target = None if "1/1 " not in name else 60 if name.startswith("top") else 30
        yield Claim(f"a change, {name}", "ns", [run / changes * 1e9 for run in runs], target, less=True)

    for name, target, theirs, n in (
        ("sortedcontainers", 20, sorted_dict, lines),
        ("order-book", 5, order_book, FEW),
    ):
        yield compare(prefix(level2, n), name, theirs, target, options.repeat)


def compare(
    level2: pl.DataFrame, name: str, theirs: Callable[[list[Message]], list[Row]], target: int, repeat: int
) -> Claim:
    """Run both on the same messages, from a form that each can begin with at once."""
    whole = messages(level2)
    assert rebuilt(level2, TOP, DEPTH).select(TOP).rows() == theirs(whole), "the books differ"
    jobs = {"cbtools": lambda: rebuilt(level2, TOP, DEPTH), name: lambda: theirs(whole)}
    seconds = alternate(jobs, repeat)
    print(f"{level2.height:,} changes in {len(whole):,} messages, the same rows of both")
    return times_as_fast(f"rebuild_book against {name}", seconds, "cbtools", name, target)


def main() -> None:
    options = arguments(__doc__)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
