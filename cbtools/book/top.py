"""The rows of the book that a state ended with: each product's best levels, and whether they are proven."""

from __future__ import annotations

import polars as pl

from cbtools.book.state import BookState
from cbtools.schema import BOOK_STATE, TIME


def top_of(state: BookState, depth: int, *, ignore_gaps: bool = False) -> pl.DataFrame:
    """Give a row a product with a book: product_id, the levels, book_state and proven_since."""
    proven = pl.col("proven") | ignore_gaps
    frames = [state.products.filter("has_book").select("product_id", proven=proven, since="proven_since")]
    for side in ("bid", "ask"):
        both = pl.col("price", "size")  # sorted by price
        best_first = both.tail(depth).reverse() if side == "bid" else both.head(depth)
        levels = state.levels.filter(side=side)
        best = levels.group_by("product_id", maintain_order=True).agg(best_first)
        shown = [
            pl.col(what).list.get(k, null_on_oob=True).alias(f"{side}_{what}_{k + 1}")
            for what in ("price", "size")
            for k in range(depth)
        ]
        frames.append(best.select("product_id", *shown))
    rows = frames[0]
    for frame in frames[1:]:
        rows = rows.join(frame, on="product_id", how="left", maintain_order="left")
    bid, ask = pl.col("bid_price_1"), pl.col("ask_price_1")
    named = (
        pl.when(~pl.col("proven"))
        .then(pl.lit("unproven"))
        .when(bid.is_null() & ask.is_null())
        .then(pl.lit("empty"))
        .when(bid.is_null() | ask.is_null())
        .then(pl.lit("one_sided"))
        .when(bid >= ask)
        .then(pl.lit("crossed"))
        .otherwise(pl.lit("ok"))
    )
    since = pl.when("proven").then("since").cast(TIME)
    return rows.with_columns(book_state=named.cast(BOOK_STATE), proven_since=since).drop("proven", "since")
