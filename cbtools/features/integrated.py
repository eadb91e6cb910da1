"""Integrated order flow imbalance: that of several levels in one number, by weights from a past sample."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from cbtools.errors import ConfigError
from cbtools.features import touch
from cbtools.features.catalogue import Feature
from cbtools.features.quotes import require
from cbtools.features.stage import check_frame

_NAME: Final = "integrated_ofi"

FEATURE: Final = Feature(
    _NAME,
    "book",
    "Σ w_i ofi_i / mean depth, w the first principal component of ofi_1, ..., ofi_k, scaled to Σ |w| = 1: "
    "IntegratedOfi.fit on a past sample, apply later",
    "",
    "Cont, Cucuringu & Zhang 2023",
    (_NAME,),
    "an ofi_i is",
)


@dataclass(frozen=True)
class IntegratedOfi:
    """Weights by which the order flow of several levels becomes one number; fitted on a past sample.

    ``weights`` are those of ofi_1, ofi_2, ..., with Σ |w| = 1; ``mean_depth`` is the mean size of a level,
    base currency; ``share`` is the part of the variance that the first principal component explains;
    ``window`` is the span of the flows, if they are sums over windows.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"]).pipe(cb.rebuild_book, depth=3)
    >>> flows = book.pipe(cb.add_book_features, ["ofi_1", "ofi_2", "ofi_3"])
    >>> integrated = cb.IntegratedOfi.fit(flows, levels=3)
    >>> flows.with_columns(integrated.apply()).collect_schema().names()[-1]
    'integrated_ofi'
    """

    weights: tuple[float, ...]
    mean_depth: float
    share: float
    window: str | None = None

    @classmethod
    def fit(
        cls, frame: pl.LazyFrame | pl.DataFrame, levels: int = 10, *, window: str | None = None
    ) -> IntegratedOfi:
        """Fit the weights to a sample: of a time before that in which they are applied, or they look ahead.

        Parameters
        ----------
        frame : polars.LazyFrame or polars.DataFrame
            Rows of one product's ``book`` with ofi_1, ofi_2, ...: from ``add_book_features(book,
            [f"ofi_{k}" for k in range(1, levels + 1)])``. These columns, and the levels' sizes, are held in
            memory.
        levels : int
            How many levels to take.
        window : str, optional
            Take the flows over a window, ofi_1_{window}, ofi_2_{window}, ..., as ``"10s"``.

        Returns
        -------
        IntegratedOfi
            The weights are the first principal component of the covariance of the rows where every ofi is
            defined, with Σ |w| = 1 and Σ w >= 0; mean_depth is the mean of (bid size + ask size) / 2 over the
            rows that are ok and the levels that both sides have.

        Raises
        ------
        ConfigError
            If levels is no whole number above 0, the frame lacks a column, fewer than 2 rows have all flows,
            or these do not vary.

        References
        ----------
        Cont, Cucuringu & Zhang 2023.

        Examples
        --------
        >>> import polars as pl
        >>> sizes = {"bid_size_1": [4.0, 4.0], "ask_size_1": [8.0, 8.0], "book_state": ["ok", "ok"]}
        >>> IntegratedOfi.fit(pl.DataFrame({"ofi_1": [1.0, -2.0], **sizes}), levels=1)
        IntegratedOfi(weights=(1.0,), mean_depth=6.0, share=1.0, window=None)
        """
        schema = check_frame(frame, "book")
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
            raise ConfigError(f"levels must be a whole number, 1 or more, not {levels!r}")
        ranks = range(1, levels + 1)
        flows = [_flow(k, window) for k in ranks]
        for name in flows:
            if name not in schema:
                raise ConfigError(f"the frame lacks {name}: add_book_features(book, [..., {name!r}]) adds it")
        sizes = [f"{side}_size_{k}" for side in ("bid", "ask") for k in ranks]
        require(schema, (*sizes, "book_state"), "book")
        rows = frame.lazy().select(*flows, *sizes, "book_state").collect()
        weights, share = _first_component(rows.select(pl.col(flows).cast(pl.Float64)))
        return cls(weights, _mean_depth(rows, levels), share, window)

    def apply(self) -> pl.Expr:
        """Give the integrated order flow imbalance of a row, from its ofi_1, ofi_2, ...

        Returns
        -------
        polars.Expr
            ``integrated_ofi``, Float64: Σ w_i ofi_i / mean depth; null where any of them is.

        Examples
        --------
        >>> import polars as pl
        >>> integrated = IntegratedOfi(weights=(0.5, 0.5), mean_depth=2.0, share=1.0)
        >>> flows = pl.DataFrame({"ofi_1": [1.0, 2.0], "ofi_2": [3.0, None]})
        >>> flows.select(integrated.apply())["integrated_ofi"].to_list()
        [1.0, None]
        """
        terms = [weight * pl.col(_flow(k, self.window)) for k, weight in enumerate(self.weights, start=1)]
        return (functools.reduce(operator.add, terms) / self.mean_depth).alias(_NAME)


def _flow(k: int, window: str | None) -> str:
    return f"ofi_{k}" if window is None else f"ofi_{k}_{window}"


def _first_component(flows: pl.DataFrame) -> tuple[tuple[float, ...], float]:
    """Give the weights, and the share of the variance that they explain."""
    x = flows.drop_nulls().drop_nans().to_numpy()
    if len(x) < 2:
        raise ConfigError(
            f"only {len(x)} rows have {', '.join(flows.columns)}: give a longer sample, or fewer levels"
        )
    x = x - x.mean(axis=0)
    covariance = x.T @ x / (len(x) - 1)
    total = float(np.trace(covariance))
    if not total > 0.0:
        raise ConfigError("the order flow of the sample does not vary: give a longer one")
    variances, components = np.linalg.eigh(covariance)  # in ascending order
    first = components[:, -1]
    scaled = first / np.abs(first).sum() * (1.0 if first.sum() >= 0.0 else -1.0)
    return tuple(scaled.tolist()), float(variances[-1]) / total


def _mean_depth(rows: pl.DataFrame, levels: int) -> float:
    ok = rows.filter(touch.IS_OK)
    pairs = [(ok[f"bid_size_{k}"] + ok[f"ask_size_{k}"]) / 2.0 for k in range(1, levels + 1)]
    mean = pl.concat([pair.cast(pl.Float64).alias("size") for pair in pairs]).drop_nulls().mean()
    if not isinstance(mean, float) or not mean > 0.0:
        raise ConfigError("no row of the sample is ok and shows sizes of both sides: give rows of a book")
    return mean
