"""What some segments did to one product's book; how effects compose; and their form as frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.book.ladder import NO_VALUE, Known
from cbtools.raw.sequence import Stream
from cbtools.schema import SIDE, TIME

F64 = npt.NDArray[np.float64]

LEVELS: Final = pl.Schema(
    {"product_id": pl.String(), "side": SIDE, "price": pl.Float64(), "size": pl.Float64()}
)
PRODUCTS: Final = pl.Schema(
    {
        "product_id": pl.String(),
        "has_book": pl.Boolean(),
        "proven": pl.Boolean(),
        "proven_since": TIME,
        "snapshots": pl.Int64(),
        "sequence_num": pl.Int64(),
    }
)
_LEVEL: Final = ("product_id", "side", "price")


class Effect(NamedTuple):
    """What became of one product: a row of `BookState.products`, with the time as a whole number."""

    product_id: str
    has_book: bool
    proven: bool
    proven_since: int | None
    snapshots: int
    sequence_num: int | None

    @classmethod
    def of(cls, product: str, known: Known) -> Self:
        """Give the effect that a ladder's marks tell."""
        return cls(
            product,
            known.has_book,
            known.proven,
            known.since if known.since != NO_VALUE else None,
            known.snapshots,
            known.number if known.number != NO_VALUE else None,
        )

    def known(self, run: int) -> Known:
        """Return the marks of a ladder that is in this run."""
        since = NO_VALUE if self.proven_since is None else self.proven_since
        number = NO_VALUE if self.sequence_num is None else self.sequence_num
        return Known(run, number, since, self.snapshots, self.has_book, self.proven)

    def then(self, other: Effect, *, unbroken: bool) -> Effect:
        """Give the effect of this one and then the other, with no frame missing between them, or some."""
        since = other.proven_since
        if self.proven_since is not None:
            later = self.proven_since + other.snapshots  # as `max(time, name before + 1)`, so many times
            since = later if since is None else max(since, later)
        return other._replace(
            has_book=self.has_book or other.has_book,
            proven=other.proven and (other.has_book or (self.proven and unbroken)),
            proven_since=since,
            snapshots=self.snapshots + other.snapshots,
        )


def composed(
    first: Mapping[str, Effect], stream: Stream, second: Mapping[str, Effect], following: Stream
) -> list[Effect]:
    """Compose two streams' effects on all products."""
    unbroken = not (stream.started and following.started) or stream.continued_by(following)
    made = []
    for product in first.keys() | second.keys():
        before = stream.run_of(product).breaks == 0
        a = first.get(product, Effect(product, False, before, None, 0, None))
        b = second.get(product)
        if b is not None:
            made.append(a.then(b, unbroken=unbroken))
        elif unbroken and following.run_of(product).breaks == 0:
            made.append(a)
        else:  # as a marker does it
            made.append(a._replace(proven=False, sequence_num=None))
    return made


def overlaid(
    first: pl.DataFrame, second: pl.DataFrame, seconds: pl.DataFrame, effects: Iterable[Effect]
) -> pl.DataFrame:
    """Lay the second's levels over the first's, of which a snapshot leaves nothing."""
    cleared = seconds.filter("has_book")["product_id"]
    kept = first.filter(~pl.col("product_id").is_in(cleared.implode())).join(second, on=_LEVEL, how="anti")
    whole = pl.Series([effect.product_id for effect in effects if effect.has_book], dtype=pl.String)
    deleted = (pl.col("size") == 0) & pl.col("product_id").is_in(whole.implode())
    return pl.concat([kept, second]).filter(~deleted).sort(_LEVEL)


def effects_of(products: pl.DataFrame) -> dict[str, Effect]:
    """Read the frame of products."""
    rows = products.with_columns(pl.col("proven_since").to_physical()).iter_rows()
    return {row[0]: Effect(*row) for row in rows}


def products_of(effects: Iterable[Effect]) -> pl.DataFrame:
    """Make the frame of products."""
    as_numbers = pl.Schema({**PRODUCTS, "proven_since": pl.Int64()})
    rows = sorted(effects, key=lambda effect: effect.product_id)
    return pl.DataFrame(rows, schema=as_numbers, orient="row").cast(PRODUCTS)


def levels_of(found: Mapping[str, tuple[npt.NDArray[np.uint8], F64, F64]]) -> pl.DataFrame:
    """Make the frame of products' levels: side, price and size of each."""
    if not found:
        return pl.DataFrame(schema=LEVELS)
    products = pl.Series(list(found), dtype=pl.String)
    of_row = np.repeat(np.arange(len(found)), [len(price) for _, price, _ in found.values()])
    side, price, size = (np.concatenate(parts) for parts in zip(*found.values(), strict=True))
    columns = {
        "product_id": products.gather(pl.Series(of_row)),
        "side": pl.Series(side, dtype=pl.UInt8).cat.to(SIDE),
        "price": price,
        "size": size,
    }
    return pl.DataFrame(columns, schema=LEVELS)
