"""What bars tell: VPIN, of buckets of equal volume; the spread that highs and lows imply."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, unknown_name
from cbtools.features.bars import amount, trade_bars, whole_number
from cbtools.features.catalogue import choose
from cbtools.features.define import of_rows
from cbtools.features.links import Holes, Links, Products, ProvenLinks
from cbtools.features.open_bars import BARS, schema_of
from cbtools.features.stage import Rows, add_columns, check_frame
from cbtools.features.view import View
from cbtools.lazy import Step, stateful
from cbtools.schema import TIME, Column

F64 = npt.NDArray[np.float64]

Classify = Literal["aggressor", "bulk"]

VPIN: Final = Column(
    "vpin", pl.Float64, "", "mean of |Vb - Vs| / V over the last buckets of the run", "there are fewer in it"
)
"""The column that `vpin` adds to bars."""

_OF_BUCKETS: Final = ("product_id", "run", "close", "volume", "buy_volume")


def vpin(
    trades: pl.LazyFrame | pl.DataFrame,
    bucket_volume: float,
    *,
    n_buckets: int = 50,
    classify: Classify = "aggressor",
    holes: Holes = "restart",
    clock: str = "trade_time",
) -> pl.LazyFrame:
    """Give the volume-synchronized probability of informed trading, after each bucket of equal volume.

    ``vpin`` = the mean of |Vb - Vs| / V over the last buckets, Vb bought and Vs = V - Vb sold in a bucket of
    volume V. Trades are split at the edge of a bucket.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Rows of ``market_trades``, each product's in the order in which they came.
    bucket_volume : float
        V, base currency.
    n_buckets : int
        Buckets that the mean is over.
    classify : {"aggressor", "bulk"}
        What was bought: by the aggressors that the exchange names; or V Φ(Δp / σ), as if they were not known:
        Δp the change of the close from the bucket before, σ the sample standard deviation of the last
        ``n_buckets`` of them, this one included (where it is 0: V / 2).
    holes : {"restart", "ignore"}
        What a missing trade_id means, as in `trade_bars`.
    clock : str
        Which time first_time and last_time are of.

    Returns
    -------
    polars.LazyFrame
        The complete volume bars, as of `trade_bars`, with vpin (Float64, from 0 to 1), null until the run has
        n_buckets buckets (bulk: 2 n_buckets, since σ needs as many changes). A restart begins a new run; what
        does not fill a bucket before it is left out.

    Raises
    ------
    ConfigError
        If an argument cannot be meant, or the frame lacks a column; at once.
    DatasetError
        If a price or size is null or not finite, or a size is negative; when the query runs.

    References
    ----------
    Easley, López de Prado & O'Hara 2012.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades = cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"])
    >>> buckets = cb.vpin(trades, 0.5, n_buckets=10)
    >>> buckets.select(pl.col("vpin").drop_nulls().is_between(0, 1).all()).collect().item()
    True
    """
    bucket_volume = amount("bucket_volume", bucket_volume)
    if classify not in get_args(Classify):
        raise unknown_name("value of classify", classify, get_args(Classify))
    n = whole_number("n_buckets", n_buckets)
    if classify == "bulk" and n < 2:
        raise ConfigError("n_buckets must be 2 or more with classify='bulk': one change has no deviation")
    bars = trade_bars(trades, "volume", bucket_volume, holes=holes, clock=clock).filter("is_complete")
    made = schema_of((*BARS, VPIN))

    def start(columns: list[str]) -> tuple[list[str], Step]:
        kept = [name for name in columns if name != VPIN.name]
        if VPIN.name not in columns:
            return kept, lambda batch: _nothing(made, kept) if batch is None else batch
        buckets = _Buckets(n, by_price=classify == "bulk")
        needed = [name for name in made if name in {*kept, *_OF_BUCKETS}]

        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            if batch is None or batch.is_empty():
                return _nothing(made, columns)
            return batch.with_columns(buckets(batch)).select(columns)

        return needed, step

    return stateful(bars, start, made, "VPIN", by="product_id")


def _nothing(schema: pl.Schema, columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(schema={name: schema[name] for name in columns})


class _Buckets:
    """The last buckets of each product, batch by batch."""

    def __init__(self, n: int, *, by_price: bool) -> None:
        from cbtools._kernels import toxicity

        self._kernels, self._n, self._by_price = toxicity, n, by_price
        self._products = Products()
        self._counts: npt.NDArray[np.int64] = np.zeros((0, 3), np.int64)
        self._close: F64 = np.zeros(0)
        self._shares: F64 = np.zeros((0, n))
        self._changes: F64 = np.zeros((0, n))

    def __call__(self, bars: pl.DataFrame) -> pl.Series:
        codes = self._products(bars)
        self._make_room(len(self._products.names))
        run, close, volume, bought = (bars[name].to_numpy() for name in _OF_BUCKETS[1:])
        out = np.empty(bars.height)
        self._kernels.vpin(
            codes, run, close, volume, bought, self._by_price, self._counts, self._close, self._shares,
            self._changes, out,
        )  # fmt: skip
        return pl.Series(VPIN.name, out).fill_nan(None)

    def _make_room(self, codes: int) -> None:
        """Let there be so many products."""
        new = codes - len(self._counts)
        if new <= 0:
            return
        counts = np.zeros((new, 3), np.int64)
        counts[:, self._kernels.RUN] = -1
        self._counts = np.concatenate([self._counts, counts])
        self._close = np.concatenate([self._close, np.zeros(new)])
        rings = np.zeros((new, self._n))
        self._shares, self._changes = (
            np.concatenate([ring, rings]) for ring in (self._shares, self._changes)
        )


# --- features of a bar and the one before it


class _BarLinks:
    """Links bars: each follows the one before if both are complete, and of the same run."""

    columns = ("product_id", "run", "is_complete")

    def __init__(self) -> None:
        self._links = ProvenLinks(pl.col("is_complete"))

    def __call__(self, frame: pl.DataFrame) -> Links:
        # what the snapshot is to rows of a book, the run is to bars
        return self._links(frame.with_columns(proven_since=pl.col("run").cast(TIME)))


def bar_rows() -> Rows:
    """Give what is to be known of the rows of bars."""
    return Rows("bars", (), _BarLinks)


@of_rows(
    "corwin_schultz", "bars", bar_rows, source="Corwin & Schultz 2012",
    definition="2 (e^α - 1) / (1 + e^α), α = (√(2β) - √β) / (3 - 2√2) - √(γ / (3 - 2√2)), β = ln²(H₁/L₁) + "
    "ln²(H₂/L₂), γ = ln²(max H / min L), of this bar and the one before",
    null="the bar or the one before is not complete, they are not of one run, a price is not above 0, or the "
    "spread were negative",
)  # fmt: skip
def corwin_schultz(view: View) -> F64:
    """Add the spread, relative to the price, that the highs and lows of two bars in a row imply."""
    high, low = view.column("high"), view.column("low")
    high_before, low_before = view.before("high"), view.before("low")
    highest, lowest = np.maximum(high, high_before), np.minimum(low, low_before)
    beta = _log(high_before, low_before) ** 2 + _log(high, low) ** 2
    # as 3 - 2√2 = (√2 - 1)², α = (1 + √2) (√β - √γ); and 2 (e^α - 1) / (1 + e^α) = 2 tanh(α / 2)
    alpha = (1.0 + np.sqrt(2.0)) * (np.sqrt(beta) - _log(highest, lowest))
    return np.where(view.links.follows & (lowest > 0.0) & (alpha >= 0.0), 2.0 * np.tanh(alpha / 2.0), np.nan)


def _log(high: F64, low: F64) -> F64:
    return np.log1p((high - low) / low)


FEATURES: Final = (corwin_schultz.feature,)


def add_bar_features(bars: pl.LazyFrame | pl.DataFrame, features: str | Iterable[str] = "*") -> pl.LazyFrame:
    """Add features to bars of trades.

    Parameters
    ----------
    bars : polars.LazyFrame or polars.DataFrame
        From `trade_bars`, those that are not complete included.
    features : str or iterable of str
        Names and patterns, as in `add_book_features`; by default all that there are.

    Returns
    -------
    polars.LazyFrame
        The rows with a column for each feature, Float64, null where the bar or the one before it is not
        complete, or they are not of one run.

    Raises
    ------
    ConfigError
        If a name is not known (it names the nearest), or the frame lacks what a feature needs; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> bars = cb.trade_bars(cb.scan_raw(cb.sample_path(), "market_trades"), "time", "10s")
    >>> cb.add_bar_features(bars).select(pl.col("corwin_schultz").drop_nulls().max() < 0.01).collect().item()
    True
    """
    check_frame(bars, "bars")
    return add_columns(bars, choose(features, FEATURES, "bar"), bar_rows())
