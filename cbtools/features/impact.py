"""Price impact: mid against signed volume in intervals of time, and regressions over windows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.features import clock as clocks
from cbtools.features.catalogue import Feature
from cbtools.features.clock import Clock
from cbtools.features.clocks import sample_time
from cbtools.features.define import NOT_COVERED, FrameFeature, of_rows
from cbtools.features.links import ProvenLinks
from cbtools.features.quotes import require
from cbtools.features.stage import Rows, check_frame
from cbtools.features.view import View
from cbtools.features.windows import Sums, Term, product, value
from cbtools.lazy import source
from cbtools.schema import TIME
from cbtools.spans import span_ns

F64 = npt.NDArray[np.float64]

INTERVALS: Final = pl.Schema(
    {
        "product_id": pl.String(),
        "interval_end": TIME,
        "mid": pl.Float64(),
        "proven_since": TIME,
        "mid_change": pl.Float64(),
        "log_return": pl.Float64(),
        "signed_volume": pl.Float64(),
        "signed_sqrt_notional": pl.Float64(),
        "notional": pl.Float64(),
        "n_trades": pl.Int64(),
    }
)
_TIME, _ENDS = "__time", "__ends"
_FLOWS: Final = ("signed_volume", "signed_sqrt_notional", "notional", "n_trades")
_NO_VARIANCE: Final = 1e-25
"""A sum of squares of which less than so much is left beside the mean's is one of rounding."""
_NO_RESIDUAL: Final = 2e-13


def impact_intervals(
    trades: pl.LazyFrame | pl.DataFrame,
    book: pl.LazyFrame | pl.DataFrame,
    *,
    every: str = "1s",
    clock: Clock = "exchange",
) -> pl.LazyFrame:
    """Align mid changes with what was traded, in equal intervals of time.

    By the exchange's clock trades, which are sent in batches of 250 ms, do not come after what they did to
    the book. An interval is then complete only when all that was sent up to its end has been received, some
    250 ms later: it is for research, and not for a decision at interval_end.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Rows of ``market_trades``; those of snapshots are left out.
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, of whatever depth.
    every : str
        Length of an interval, as ``"1s"``. Intervals are (t - every, t], t a multiple of it since the epoch.
    clock : {"exchange", "receive"}
        Whose time intervals are of: trade_time of trades and server_time of the book; or the time of receipt
        of both (capture_time, or server_time where that is null). The running maximum counts of the book's
        times, and of those of receipt.

    Returns
    -------
    polars.LazyFrame
        One row per product and interval, in the order of time, from the first boundary at or after the book's
        first row to the last at or before its last: product_id; interval_end (Datetime ns UTC); mid at its
        end, and proven_since of its row of the book; mid_change (quote currency) and log_return over the
        interval, null where a mid is not known (from the last row before a break on, it is not) or the book
        was not the same throughout; signed_volume (Σ D size, base currency), signed_sqrt_notional
        (Σ D √notional), notional (quote currency) and n_trades, of the trades received, 0 where there is
        none. The frames are held in memory while the query runs.

    Raises
    ------
    ConfigError
        If a frame lacks a column, every is no time span, or there is no such clock; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> intervals = cb.impact_intervals(trades, cb.rebuild_book(level2, depth=1), every="10s")
    >>> intervals.select(pl.col("signed_volume").is_not_null().all()).collect().item()
    True
    """
    span = span_ns(every)
    schemas = check_frame(trades, "market_trades"), check_frame(book, "book")
    clocks.check_name(clock)
    of_trades, of_book = clocks.times("market_trades", clock), clocks.times("book", clock)
    flow = ("product_id", "price", "size", "aggressor_side")
    shown = ("product_id", "bid_price_1", "ask_price_1", "book_state", "proven_since")
    require(schemas[0], (*flow, "is_snapshot", *of_trades), "market_trades")
    require(schemas[1], (*shown, *of_book), "book")
    # what happened behind the last row before a break is not known: frames are missing
    ends = (pl.col("book_state").shift(-1).over("product_id") == "unproven").alias(_ENDS)
    timed = book.lazy().select(*shown, ends, clocks.latest(of_book).cast(TIME).alias(_TIME))
    mids = sample_time(timed, every, clock=_TIME)
    # a trade_time counts as it stands: trades are not always sent in the order in which they happened
    time = pl.col("trade_time") if clock == "exchange" else clocks.received()
    done = trades.lazy().with_columns(time.cast(TIME).alias(_TIME))
    live = done.filter(~pl.col("is_snapshot"), pl.col(_TIME).is_not_null()).select(*flow, _TIME)

    def frames(_: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        del predicate
        yield _laid(_mid_changes(mids.collect()), _flows(live.collect(), span))

    return source(frames, INTERVALS, "IMPACT INTERVALS")


def _mid_changes(sampled: pl.DataFrame) -> pl.DataFrame:
    mid = (pl.col("ask_price_1") + pl.col("bid_price_1")) / 2.0
    before = pl.col("mid").shift().over("product_id")
    same = pl.col("proven_since") == pl.col("proven_since").shift().over("product_id")
    change = pl.when(same).then(pl.col("mid") - before)
    known = (pl.col("book_state") == "ok") & (~pl.col(_ENDS).fill_null(False) | (pl.col("staleness_ns") == 0))
    return (
        sampled.with_columns(mid=pl.when(known).then(mid))
        .with_columns(mid_change=change, log_return=(change / before).log1p())
        .rename({"sample_time": "interval_end"})
        .select("product_id", "interval_end", "mid", "proven_since", "mid_change", "log_return")
    )


def _flows(trades: pl.DataFrame, span: int) -> pl.DataFrame:
    """Sum what was traded in each interval, in the order of the trades."""
    end = -(-pl.col(_TIME).to_physical() // span) * span
    keyed = trades.with_columns(end.cast(TIME).alias("interval_end"))
    keyed = keyed.sort("product_id", "interval_end", maintain_order=True)
    side = np.where((keyed["aggressor_side"] == "buy").to_numpy(), 1.0, -1.0)
    size = keyed["size"].to_numpy()
    value = keyed["price"].to_numpy() * size
    with np.errstate(invalid="ignore"):  # of a price below 0 there is no root
        summed = (side * size, side * np.sqrt(value), value, np.ones(len(size)))
    keys = keyed.select("product_id", "interval_end")
    first = keys.select(pl.struct(pl.all()).ne_missing(pl.struct(pl.all()).shift())).to_series()
    starts = first.arg_true().to_numpy()
    sums = [np.add.reduceat(values, starts) if len(starts) else values for values in summed]
    return keys.filter(first).with_columns(
        pl.Series(name, values) for name, values in zip(_FLOWS, sums, strict=True)
    )


def _laid(mids: pl.DataFrame, flows: pl.DataFrame) -> pl.DataFrame:
    both = mids.join(flows, on=("product_id", "interval_end"), how="left", maintain_order="left")
    known = both.with_columns(pl.col(*_FLOWS).fill_null(0.0).fill_nan(None)).cast({"n_trades": pl.Int64()})
    return known.sort("interval_end", "product_id").select(*INTERVALS)


# --- windows of intervals


def interval_rows() -> Rows:
    """Give what is to be known of the rows of intervals: each follows the one before if it has a change."""
    return Rows("intervals", _SUMMED, _linker)


def _linker() -> ProvenLinks:
    return ProvenLinks(pl.col("mid").is_not_null())


def _illiquidity(view: View) -> F64:
    traded = view.raw("notional")
    return np.where(traded > 0.0, np.abs(view.raw("log_return")) / traded, 0.0)


def _traded(view: View) -> F64:
    return np.where(view.raw("notional") > 0.0, 1.0, 0.0)


def _summed(name: str, compute: Callable[[View], F64]) -> Feature:
    return Feature(name, "intervals", "", "", "", (name,), "", compute=compute)


_SUMMED: Final = (_summed("_illiquidity", _illiquidity), _summed("_traded", _traded))


def _window(
    name: str, definition: str, source: str, terms: Sequence[Term], *, unit: str = "", null: str
) -> Callable[[Callable[..., Any]], FrameFeature]:
    usual = [name.replace("{w}", w) for w in ("5m", "1m", "30m")]
    return of_rows(
        name, "intervals", interval_rows, definition=definition, unit=unit, source=source, usual=usual,
        null=f"{NOT_COVERED}, {null}", terms=lambda: terms,
    )  # fmt: skip


def _moments(x: str, y: str) -> tuple[Term, ...]:
    return (value(x), value(y), product(x, x), product(x, y), product(y, y))


def _regressed(sums: Sums) -> tuple[F64, F64, F64, F64]:
    """Give n, and n² times var(x), cov(x, y), var(y); NaN where there are few intervals or x is constant."""
    n = sums.rows.astype(np.float64)
    moments = sums.moments(n)
    varies = (n > 2) & (moments[0] > _NO_VARIANCE * n * sums.total[2])
    return n, np.where(varies, moments[0], np.nan), moments[1], moments[2]


def _residual(xx: F64, xy: F64, yy: F64) -> F64:
    """Give n² times the residual variance, NaN where the fit is perfect."""
    rest = yy - xy * xy / xx
    return np.where(rest > _NO_RESIDUAL * yy, rest, np.nan)


def _standard_error(n: F64, xx: F64, xy: F64, yy: F64) -> F64:
    error: F64 = np.sqrt(_residual(xx, xy, yy) / (n - 2) / xx)
    return error


_KYLE = "Kyle 1985; Hasbrouck 2009"
_OLS = "of the OLS, with intercept, of mid_change on signed_volume over the intervals in (t - w, t]"
_FEW = "there are fewer than 3 intervals, or signed_volume does not vary"
_IMPACT = _moments("signed_volume", "mid_change")
_PRICE = "quote / base currency, per base currency"


@_window("kyle_lambda_{w}", f"slope {_OLS}", _KYLE, _IMPACT, unit=_PRICE, null=_FEW)
def kyle_lambda(sums: Sums) -> F64:
    """Add Kyle's lambda: how far mid moves with a unit of signed volume."""
    _, xx, xy, _ = _regressed(sums)
    return xy / xx


@_window("kyle_lambda_se_{w}", f"standard error of the slope {_OLS}", _KYLE, _IMPACT, unit=_PRICE, null=_FEW)
def kyle_lambda_se(sums: Sums) -> F64:
    """Add the standard error of Kyle's lambda."""
    n, xx, xy, yy = _regressed(sums)
    return _standard_error(n, xx, xy, yy)


@_window("kyle_lambda_t_{w}", f"t-value, slope over standard error, {_OLS}", _KYLE, _IMPACT, null=_FEW)
def kyle_lambda_t(sums: Sums) -> F64:
    """Add the t-value of Kyle's lambda."""
    n, xx, xy, yy = _regressed(sums)
    return xy / xx / _standard_error(n, xx, xy, yy)


@_window("kyle_lambda_r2_{w}", f"R² {_OLS}", _KYLE, _IMPACT, null=f"{_FEW}, or mid_change does not vary")
def kyle_lambda_r2(sums: Sums) -> F64:
    """Add the R² of the regression behind Kyle's lambda."""
    n, xx, xy, yy = _regressed(sums)
    return np.where(yy > _NO_VARIANCE * n * sums.total[4], xy * xy / (xx * yy), np.nan)


@_window(
    "hasbrouck_lambda_{w}",
    "slope of the OLS, with intercept, of log_return on signed_sqrt_notional, over intervals in (t - w, t]",
    "Hasbrouck 2009",
    _moments("signed_sqrt_notional", "log_return"),
    unit="1 / √quote currency",
    null="there are fewer than 3 intervals, or signed_sqrt_notional does not vary",
)
def hasbrouck_lambda(sums: Sums) -> F64:
    """Add Hasbrouck's lambda: the return that a root of signed notional comes with."""
    _, xx, xy, _ = _regressed(sums)
    return xy / xx


@_window(
    "amihud_{w}",
    "mean of |log_return| / notional over the intervals in (t - w, t] in which something was traded",
    "Amihud 2002",
    (value("_illiquidity"), value("_traded")),
    unit="1 / quote currency",
    null="or nothing was traded in it",
)
def amihud(sums: Sums) -> F64:
    """Add Amihud's illiquidity: the absolute return that a unit of notional comes with."""
    return np.where(sums.total[1] > 0.0, sums.total[0] / sums.total[1], np.nan)


FEATURES: Final = tuple(
    function.feature
    for function in (kyle_lambda, kyle_lambda_se, kyle_lambda_t, kyle_lambda_r2, hasbrouck_lambda, amihud)
)
