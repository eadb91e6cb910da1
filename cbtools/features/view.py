"""A batch of rows as arrays: its columns, and the features computed of them, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.features.catalogue import Chosen, Names
from cbtools.features.links import Links

F64 = npt.NDArray[np.float64]
Side = Literal["bid", "ask"]
SIDES: Final[tuple[Side, ...]] = ("bid", "ask")


class Carried:
    """What is kept of each product's last row, by the name of what it is and the product's code."""

    def __init__(self) -> None:
        self._values: dict[object, F64] = {}

    def __call__(self, key: object, n: int, shape: tuple[int, ...] = ()) -> F64:
        """Give the values for so many codes, to be read and overwritten; NaN where there is none."""
        values = self._values.get(key, np.full((0, *shape), np.nan))
        if len(values) < n:
            more = np.full((n - len(values), *shape), np.nan)
            values = self._values[key] = np.concatenate([values, more])
        return values


class View:
    """The rows of a batch; NaN stands for null. ``used`` are the columns of the frame that were asked for."""

    def __init__(
        self,
        frame: pl.DataFrame,
        names: Names,
        links: Links | None = None,
        carried: Carried | None = None,
        depth: int = 0,
    ) -> None:
        from cbtools._kernels import flow

        self._flow = flow
        self.frame, self.depth = frame, depth
        nothing = np.zeros(0, np.int64)
        self.links = links or Links(nothing, nothing, nothing.astype(bool), nothing.astype(bool))
        self.used: set[str] = set()
        self._names, self._carried = names, Carried() if carried is None else carried
        self._known: dict[object, F64] = {}
        self._codes = int(self.links.codes.max(initial=-1)) + 1

    def once(self, key: object, compute: Callable[[], F64]) -> F64:
        """Give what is computed once for the batch; read only, as what comes of Polars mostly is.

        (A kernel would be compiled anew for the others.)
        """
        if key not in self._known:
            self._known[key] = compute()
            self._known[key].flags.writeable = False
        return self._known[key]

    def column(self, name: str) -> F64:
        """Give a feature, by its name, or a column of the frame."""
        return self.once(name, lambda: self._column(name))

    def _column(self, name: str) -> F64:
        chosen = self._names(name)
        return self.raw(name) if chosen is None else self.compute(chosen)

    def raw(self, name: str) -> F64:
        """Give a column of the frame."""
        self.used.add(name)
        return self.frame[name].cast(pl.Float64).to_numpy()

    def compute(self, chosen: Chosen) -> F64:
        """Give a feature of the rows, or of the rows and those before them."""
        assert chosen.feature.compute is not None
        return self.once(chosen.name, lambda: chosen.feature.compute(self, **chosen.parameters))  # type: ignore[misc]

    def mid(self) -> F64:
        """Give the mid of the best bid and ask."""
        return self.once("mid of the best", lambda: (self.price("ask") + self.price("bid")) / 2.0)

    def is_value(self, name: str, value: str) -> npt.NDArray[np.bool_]:
        """Tell where a column of texts has this value."""
        self.used.add(name)
        return (self.frame[name] == value).fill_null(value=False).to_numpy()

    def before(self, name: str) -> F64:
        """Give what a column or feature was in the product's row before."""

        def lagged() -> F64:
            values = self.column(name)
            out = np.empty(len(values))
            self._flow.lag(values, self.links.codes, self.links.before, self._carried(name, self._codes), out)
            return out

        return self.once((name, "before"), lagged)

    def carried(self, key: object, shape: tuple[int, ...] = ()) -> F64:
        """Give what a kernel keeps of each product's last row, to be overwritten."""
        return self._carried(key, self._codes, shape)

    # --- the levels of a book

    def price(self, side: Side, k: int = 1) -> F64:
        """Give the price of a level."""
        return self.column(f"{side}_price_{k}")

    def size(self, side: Side, k: int = 1) -> F64:
        """Give the size of a level."""
        return self.column(f"{side}_size_{k}")

    def levels(self, side: Side) -> tuple[F64, F64]:
        """Give prices and sizes of all levels that are needed, a row a level."""
        prices = self.once((side, "prices"), lambda: self._stacked(f"{side}_price_"))
        return prices, self.once((side, "sizes"), lambda: self._stacked(f"{side}_size_"))

    def _stacked(self, prefix: str) -> F64:
        columns = [self.column(f"{prefix}{k}") for k in range(1, self.depth + 1)]
        return np.stack(columns)


class Recorder(View):
    """A view of no rows, by which is found out what columns a feature is computed of: see ``used``."""

    def __init__(self, names: Names, depth: int = 1) -> None:
        super().__init__(pl.DataFrame(), names, depth=depth)

    def raw(self, name: str) -> F64:
        """Note the column."""
        self.used.add(name)
        return np.empty(0)

    def is_value(self, name: str, value: str) -> npt.NDArray[np.bool_]:
        """Note the column."""
        self.used.add(name)
        return np.empty(0, np.bool_)


def depth_of(schema: Mapping[str, object]) -> int:
    """Tell how many levels of a side a frame has."""
    k = 0
    while all(f"{name}_{k + 1}" in schema for name in ("bid_price", "bid_size", "ask_price", "ask_size")):
        k += 1
    return k
