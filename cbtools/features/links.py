"""Which row of its product a row follows: the one rule by which no feature spans a gap.

A row that follows another goes on with its run; any other begins a new one, of which nothing before is known.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import unknown_name
from cbtools.schema import TIME

B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

Holes = Literal["restart", "ignore"]
"""What a missing trade_id means: that trades are missing, or (of trades that were filtered) nothing."""

NO_TIME: Final = int(np.iinfo(np.int64).min)


class Links(NamedTuple):
    """Of each row: its product's code, the row before it, whether it follows that one, whether it is usable.

    ``before`` is a place in the batch, or -1 - code for the last row of an earlier batch.
    """

    codes: I64
    before: I64
    follows: B1
    usable: B1


class Products:
    """Gives products their codes, in the order in which they come."""

    def __init__(self) -> None:
        from cbtools._kernels import flow

        self._kernels = flow
        self.names: dict[str | None, int] = {}

    def __call__(self, frame: pl.DataFrame) -> I64:
        """Give each row its product's code; a frame without product_id is of one product."""
        if "product_id" not in frame.columns:
            self.names.setdefault(None, 0)
            return np.zeros(frame.height, np.int64)
        product = frame["product_id"]
        if product.is_empty():
            return np.zeros(0, np.int64)
        if bool(product.eq_missing(product.head(1)).all()):
            return np.full(frame.height, self._code(product[0]))
        numbers = product.cast(pl.Categorical()).to_physical().cast(pl.Int64).fill_null(-1).to_numpy() + 1
        codes, first = np.empty(len(numbers), np.int64), np.empty(int(numbers.max()) + 1, np.int64)
        n = self._kernels.encode(numbers, np.full(len(first), -1), codes, first)
        return np.array([self._code(name) for name in product.gather(first[:n])])[codes]

    def _code(self, name: str | None) -> int:
        return self.names.setdefault(name, len(self.names))


class _Linker:
    """Links batches, and keeps of each product's last row what the next one is compared with."""

    columns: tuple[str, ...]
    _width: int

    def __init__(self) -> None:
        from cbtools._kernels import flow

        self._kernels = flow
        self.products = Products()
        self._last = np.zeros((0, self._width), np.int64)

    def _begin(self, frame: pl.DataFrame) -> tuple[I64, I64, I64, B1]:
        """Give codes, what is kept of last rows, and the arrays to be filled: before, follows."""
        codes = self.products(frame)
        last = np.zeros((len(self.products.names), self._width), np.int64)
        last[: len(self._last)] = self._last
        last[:, self._kernels.PLACE] = -1
        self._last = last
        return codes, last, np.empty(len(codes), np.int64), np.empty(len(codes), np.bool_)


class ProvenLinks(_Linker):
    """Links rows of books: each follows the one before if both are ok and rest on the same snapshot."""

    columns: tuple[str, ...] = ("product_id", "proven_since")
    _width = 3

    def __init__(self, ok: pl.Expr) -> None:
        super().__init__()
        self._ok = ok
        self.columns = (*ProvenLinks.columns, *ok.meta.root_names())

    def __call__(self, frame: pl.DataFrame) -> Links:
        """Link the next rows."""
        codes, last, before, follows = self._begin(frame)
        known = pl.col("proven_since").is_not_null()
        usable = frame.select((self._ok & known).fill_null(value=False)).to_series().to_numpy()
        self._kernels.follow(codes, usable, times_of(frame, "proven_since"), last, before, follows)
        return Links(codes, before, follows, usable)


class TradeLinks(_Linker):
    """Links trades: each follows the one before on its connection, if no trade between them is missing."""

    columns = ("product_id", "connection", "trade_id", "is_snapshot")
    _width = 5

    def __init__(self, *, ignore_holes: bool) -> None:
        super().__init__()
        self._ignore_holes = ignore_holes

    def __call__(self, frame: pl.DataFrame) -> Links:
        """Link the next rows."""
        codes, last, before, follows = self._begin(frame)
        connection, trade_id, snapshot = (frame[name].to_numpy() for name in self.columns[1:])
        self._kernels.follow_trades(
            codes, connection.astype(np.int64), trade_id, snapshot, self._ignore_holes, last, before, follows
        )
        return Links(codes, before, follows, np.ones(frame.height, np.bool_))


def ignores(holes: Holes) -> bool:
    """Tell whether holes mean nothing; refuse what is no option."""
    if holes not in get_args(Holes):
        raise unknown_name("value of holes", holes, get_args(Holes))
    return holes == "ignore"


def order_of(codes: I64) -> I64:
    """Return the places of rows product by product, each product's in their order."""
    few = codes.astype(np.uint16) if codes.max(initial=0) < 2**16 else codes  # numpy sorts those by radix
    return np.argsort(few, kind="stable")


def times_of(frame: pl.DataFrame, *columns: str) -> I64:
    """Return times as ns: of each row that of the first column that has one, NO_TIME where none has."""
    time = frame[columns[0]] if len(columns) == 1 else frame.select(pl.coalesce(columns)).to_series()
    return time.cast(TIME).to_physical().fill_null(NO_TIME).to_numpy()
