"""Features of trades: their value and sign, and what was traded over windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.features.catalogue import Feature
from cbtools.features.define import NOT_COVERED, FrameFeature, of_row, of_rows
from cbtools.features.links import TradeLinks
from cbtools.features.stage import Rows
from cbtools.features.view import View
from cbtools.features.windows import Sums, Term, product, value

F64 = npt.NDArray[np.float64]

_BASE, _QUOTE = "base currency", "quote currency"
_NO_QUOTE = "there is no quote"
_SIGN = pl.Int8()
_ROUNDING: Final = 1e-12
"""A covariance smaller than so much of the variance is one of rounding."""


def trade_rows(*, ignore_holes: bool = False) -> Rows:
    """Give what is to be known of the rows of trades."""
    of_trades = (notional.feature, signed_size.feature, effective_spread_bps.feature, tick_rule.feature)
    return Rows("market_trades", (*of_trades, *_SUMMED), partial(TradeLinks, ignore_holes=ignore_holes))


def _direction(view: View) -> F64:
    return np.where(view.is_value("aggressor_side", "buy"), 1.0, -1.0)


@of_row("notional", "market_trades", definition="price · size", unit=_QUOTE, null="")
def notional(view: View) -> F64:
    """Give the value of a trade."""
    return view.column("price") * view.column("size")


@of_row(
    "signed_size", "market_trades", definition="D · size, D = +1 for a buy aggressor, -1 for a sell",
    unit=_BASE, null="",
)  # fmt: skip
def signed_size(view: View) -> F64:
    """Give the size of a trade, negative if the aggressor sold."""
    return _direction(view) * view.column("size")


@of_row(
    "effective_spread_bps", "market_trades", definition="1e4 · 2 D (p - m) / m, m the prevailing mid",
    unit="bps of mid", source="Huang & Stoll 1996", null=_NO_QUOTE,
)  # fmt: skip
def effective_spread_bps(view: View) -> F64:
    """Give twice what the aggressor paid beyond the mid that `cbtools.join_quotes` found."""
    mid = view.raw("mid")
    return 1e4 * 2.0 * _direction(view) * (view.column("price") - mid) / mid


@of_rows(
    "tick_rule", "market_trades", trade_rows, dtype=_SIGN, source="Lee & Ready 1991",
    definition="sign of the last price change that was not zero: +1 a buy, -1 a sell",
    null="no price has changed yet in the run",
)  # fmt: skip
def tick_rule(view: View) -> F64:
    """Add the aggressor's sign by the tick rule."""
    from cbtools._kernels.flow import tick_signs

    change = view.column("price_change")
    out = np.empty(len(change))
    tick_signs(change, view.links.codes, view.links.follows, view.carried("tick sign"), out)
    return out


@of_rows(
    "lee_ready", "market_trades", trade_rows, dtype=_SIGN, source="Lee & Ready 1991",
    definition="sign of price - mid of the prevailing quote; at mid, the tick rule", null=_NO_QUOTE,
)  # fmt: skip
def lee_ready(view: View) -> F64:
    """Add the aggressor's sign by the quote that `cbtools.join_quotes` found, and by the tick rule at mid."""
    beyond = view.column("price") - view.raw("mid")
    return np.where(beyond == 0.0, view.column("tick_rule"), np.sign(beyond))


# --- what is summed over windows, beside the features above


def _price_change(view: View) -> F64:
    return np.where(view.links.follows, view.column("price") - view.before("price"), np.nan)


def _pair(view: View) -> F64:
    """Give 1 where a price change has one before it in the run, else 0."""
    both = view.column("price_change") * view.before("price_change")
    return np.where(view.links.follows & np.isfinite(both), 1.0, 0.0)


def _in_pair(view: View) -> F64:
    return np.where(view.column("_pair") == 1.0, view.column("price_change"), 0.0)


def _in_pair_before(view: View) -> F64:
    return np.where(view.column("_pair") == 1.0, view.before("price_change"), 0.0)


def _summed(name: str, compute: Callable[[View], F64]) -> Feature:
    return Feature(name, "market_trades", "", "", "", (name,), "", compute=compute)


_SUMMED: Final = (
    _summed("price_change", _price_change),
    _summed("_one", lambda view: np.where(np.isnan(view.raw("trade_id")), 0.0, 1.0)),
    _summed("_pair", _pair),
    _summed("_in_pair", _in_pair),
    _summed("_in_pair_before", _in_pair_before),
)


# --- windows

_EMPTY = f"{NOT_COVERED}, or there is no trade in it"


def _window(
    name: str, definition: str, terms: tuple[Term, ...], *, unit: str = "", source: str = "",
    null: str = _EMPTY,
) -> Callable[[Callable[..., Any]], FrameFeature]:  # fmt: skip
    usual = [name.replace("{w}", w) for w in ("1m", "10s", "5m")]
    return of_rows(
        name, "market_trades", trade_rows, definition=definition, unit=unit, source=source, usual=usual,
        null=null, terms=lambda: terms,
    )  # fmt: skip


def _unless_empty(values: F64, count: F64) -> F64:
    return np.where(count > 0.0, values, np.nan)


@_window("vwap_{w}", "Σ p q / Σ q over (t - w, t]", (product("price", "size"), value("size")), unit=_QUOTE)
def vwap(sums: Sums) -> F64:
    """Add the volume-weighted mean price over a window."""
    return sums.total[0] / sums.total[1]


@_window("volume_{w}", "Σ q over (t - w, t]", (value("size"), value("_one")), unit=_BASE)
def volume(sums: Sums) -> F64:
    """Add what was traded over a window."""
    return _unless_empty(sums.total[0], sums.total[1])


@_window("trade_count_{w}", "trades in (t - w, t]", (value("_one"),), unit="trades")
def trade_count(sums: Sums) -> F64:
    """Add how many trades there were over a window."""
    return _unless_empty(sums.total[0], sums.total[0])


@_window(
    "trade_imbalance_{w}",
    "(Vbuy - Vsell) / (Vbuy + Vsell) over (t - w, t]",
    (value("signed_size"), value("size")),
)
def trade_imbalance(sums: Sums) -> F64:
    """Add by how much buying outweighed selling over a window: 1 all buys, -1 all sells."""
    return sums.total[0] / sums.total[1]


_PAIRS = (
    value("_in_pair"),
    value("_in_pair_before"),
    product("_in_pair", "_in_pair"),
    product("_in_pair", "_in_pair_before"),
    product("_in_pair_before", "_in_pair_before"),
    value("_pair"),
)


@_window(
    "roll_spread_{w}",
    "2 √(-cov(Δp_t, Δp_{t-1})) over the trades in (t - w, t], the covariance that of a sample (n - 1)",
    _PAIRS,
    unit=_QUOTE,
    source="Roll 1984",
    null=f"{NOT_COVERED}, it has fewer than 2 pairs, or the covariance is not negative",
)
def roll_spread(sums: Sums) -> F64:
    """Add the spread that the bounce of trade prices implies."""
    pairs = sums.total[5]
    moments = sums.moments(pairs)
    covariance = moments[1] / (pairs * (pairs - 1))
    bounces = (pairs > 1) & (moments[1] < -_ROUNDING * moments[0])
    return np.where(bounces, 2 * np.sqrt(-covariance), np.nan)


FEATURES: Final = tuple(
    function.feature
    for function in (
        notional,
        signed_size,
        effective_spread_bps,
        tick_rule,
        lee_ready,
        vwap,
        volume,
        trade_count,
        trade_imbalance,
        roll_spread,
    )
)
