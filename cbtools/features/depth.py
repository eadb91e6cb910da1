"""Features of the levels that a row of the book shows: how much there is, where, and on which side."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from cbtools.features.define import NOT_OK, of_row
from cbtools.features.touch import IS_OK
from cbtools.features.view import SIDES, Side, View

F64 = npt.NDArray[np.float64]

_BASE, _QUOTE, _BPS = "base currency", "quote currency", "bps of mid"
_CAO = "Cao, Hansch & Wang 2009"
_NAES = "Næs & Skjeltorp 2006"
_FIRST = "the first k levels"


def _sizes(view: View, side: Side, k: int) -> F64:
    """Add up the sizes of the first levels, from the best on."""

    def total() -> F64:
        from cbtools._kernels.levels import add_sizes

        _, size = view.levels(side)
        out = np.zeros(size.shape[1])
        add_sizes(size, k, out)
        return out

    return view.once((side, "size", k), total)


def _notionals(view: View, side: Side, k: int) -> F64:
    """Add up price times size of the first levels, from the best on."""

    def total() -> F64:
        from cbtools._kernels.levels import add_notionals

        price, size = view.levels(side)
        out = np.zeros(size.shape[1])
        add_notionals(price, size, k, out)
        return out

    return view.once((side, "notional", k), total)


def _balance(bid: F64, ask: F64) -> F64:
    return (bid - ask) / (bid + ask)


@of_row(
    "imbalance_{k}", "book", definition=f"(B - A) / (B + A), B and A the size of {_FIRST}", source=_CAO,
    usual=("imbalance_1", "imbalance_3", "imbalance_5", "imbalance_10"), ok=IS_OK,
)  # fmt: skip
def imbalance(view: View, k: int) -> F64:
    """Give by how much the bids' size outweighs the asks': 1 all bids, -1 all asks."""
    return _balance(_sizes(view, "bid", k), _sizes(view, "ask", k))


def _usual(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{k}" for k in (10, 1, 3, 5))


@of_row(
    "bid_depth_{k}", "book", definition=f"Σ size of {_FIRST}", unit=_BASE, usual=_usual("bid_depth"), ok=IS_OK
)
def bid_depth(view: View, k: int) -> F64:
    """Give the size of the best bids."""
    return _sizes(view, "bid", k)


@of_row(
    "ask_depth_{k}", "book", definition=f"Σ size of {_FIRST}", unit=_BASE, usual=_usual("ask_depth"), ok=IS_OK
)
def ask_depth(view: View, k: int) -> F64:
    """Give the size of the best asks."""
    return _sizes(view, "ask", k)


@of_row(
    "bid_depth_notional_{k}", "book", definition=f"Σ price · size of {_FIRST}", unit=_QUOTE,
    usual=_usual("bid_depth_notional"), ok=IS_OK,
)  # fmt: skip
def bid_depth_notional(view: View, k: int) -> F64:
    """Give the value of the best bids."""
    return _notionals(view, "bid", k)


@of_row(
    "ask_depth_notional_{k}", "book", definition=f"Σ price · size of {_FIRST}", unit=_QUOTE,
    usual=_usual("ask_depth_notional"), ok=IS_OK,
)  # fmt: skip
def ask_depth_notional(view: View, k: int) -> F64:
    """Give the value of the best asks."""
    return _notionals(view, "ask", k)


@of_row(
    "vamp_{k}", "book", unit=_QUOTE, usual=_usual("vamp"), ok=IS_OK,
    definition=f"(Vb QA + Va QB) / (QA + QB), V the mean price by size and Q the size of {_FIRST} of a side",
)  # fmt: skip
def vamp(view: View, k: int) -> F64:
    """Give the volume-adjusted mid price: each side's mean price weighted by the other side's size."""
    bids, asks = _sizes(view, "bid", k), _sizes(view, "ask", k)
    bid, ask = _notionals(view, "bid", k) / bids, _notionals(view, "ask", k) / asks
    return (bid * asks + ask * bids) / (asks + bids)


@of_row(
    "center_of_gravity_bps_{k}", "book", unit=_BPS, usual=_usual("center_of_gravity_bps"), ok=IS_OK,
    definition=f"1e4 (Σ p q / Σ q - m) / m over {_FIRST} of both sides",
)  # fmt: skip
def center_of_gravity_bps(view: View, k: int) -> F64:
    """Give how far from mid the mean price of what is shown lies."""
    from cbtools._kernels.levels import add_deviations

    mid = view.mid()
    out = np.zeros(len(mid))
    for side in SIDES:
        add_deviations(*view.levels(side), mid, k, out)
    return 1e4 * (out / (_sizes(view, "bid", k) + _sizes(view, "ask", k))) / mid


def _slope(view: View, side: Side, k: int) -> F64:
    from cbtools._kernels.levels import fit_slopes

    price, size = view.levels(side)
    out = np.empty(size.shape[1])
    fit_slopes(price, size, view.mid(), k, out)
    return out


_SLOPE = f"OLS slope, with intercept, of cumulative size on distance from mid in bps, {_FIRST}"
_FEW = f"{NOT_OK}, or there are fewer than 2 levels"


@of_row(
    "bid_slope_{k}", "book", definition=_SLOPE, unit="base currency / bps", source=_NAES,
    usual=("bid_slope_10", "bid_slope_5"), null=_FEW, ok=IS_OK,
)  # fmt: skip
def bid_slope(view: View, k: int) -> F64:
    """Give how fast the bids' size grows with the distance from mid."""
    return _slope(view, "bid", k)


@of_row(
    "ask_slope_{k}", "book", definition=_SLOPE, unit="base currency / bps", source=_NAES,
    usual=("ask_slope_10", "ask_slope_5"), null=_FEW, ok=IS_OK,
)  # fmt: skip
def ask_slope(view: View, k: int) -> F64:
    """Give how fast the asks' size grows with the distance from mid."""
    return _slope(view, "ask", k)


def _concentration(view: View, side: Side, k: int) -> F64:
    from cbtools._kernels.levels import add_squares

    _, size = view.levels(side)
    out = np.zeros(size.shape[1])
    add_squares(size, _sizes(view, side, k), k, out)
    return out


_SHARES = f"Σ share², share = level size / side size, of {_FIRST}"


@of_row(
    "bid_concentration_{k}", "book", definition=_SHARES, source="Herfindahl index",
    usual=_usual("bid_concentration"), ok=IS_OK,
)  # fmt: skip
def bid_concentration(view: View, k: int) -> F64:
    """Give how concentrated the bids' size is: 1 all at one level, 1/k evenly spread."""
    return _concentration(view, "bid", k)


@of_row(
    "ask_concentration_{k}", "book", definition=_SHARES, source="Herfindahl index",
    usual=_usual("ask_concentration"), ok=IS_OK,
)  # fmt: skip
def ask_concentration(view: View, k: int) -> F64:
    """Give how concentrated the asks' size is: 1 all at one level, 1/k evenly spread."""
    return _concentration(view, "ask", k)


def _weighted(view: View, side: Side, k: int, decay: float) -> F64:
    from cbtools._kernels.levels import add_weighted

    price, size = view.levels(side)
    out = np.empty(size.shape[1])
    add_weighted(price, size, view.mid(), decay, k, out)
    return out


@of_row(
    "smart_depth_imbalance_{k}_{decay}bps", "book", ok=IS_OK,
    definition="(B - A) / (B + A), sizes weighted by exp(-distance from mid in bps / decay)",
    usual=("smart_depth_imbalance_10_5bps",),
)  # fmt: skip
def smart_depth_imbalance(view: View, k: int, decay: float) -> F64:
    """Give the imbalance of sizes that count less the farther they are from mid."""
    return _balance(_weighted(view, "bid", k, decay), _weighted(view, "ask", k, decay))


def _fill(view: View, side: Side, notional: float) -> F64:
    """Give how far from mid a notional is filled against the levels shown, in bps of it."""
    from cbtools._kernels.levels import fill_notional

    price, size = view.levels(side)
    out = np.empty(size.shape[1])
    fill_notional(price, size, view.mid(), notional, out)
    return 1e4 * out / view.mid()


_SWEEP = "of filling the notional (quote currency) against the levels shown, mean price against mid"
_SHORT = f"{NOT_OK}, or the levels shown do not suffice"


@of_row(
    "sweep_buy_{notional}_bps", "book", definition=f"1e4 (mean - m) / m {_SWEEP}", unit=_BPS,
    usual=("sweep_buy_10000_bps",), null=_SHORT, ok=IS_OK, all_levels=True,
)  # fmt: skip
def sweep_buy_bps(view: View, notional: float) -> F64:
    """Give what buying for a notional at once costs against mid."""
    return _fill(view, "ask", notional)


@of_row(
    "sweep_sell_{notional}_bps", "book", definition=f"1e4 (m - mean) / m {_SWEEP}", unit=_BPS,
    usual=("sweep_sell_10000_bps",), null=_SHORT, ok=IS_OK, all_levels=True,
)  # fmt: skip
def sweep_sell_bps(view: View, notional: float) -> F64:
    """Give what selling for a notional at once costs against mid."""
    return -_fill(view, "bid", notional)


FEATURES: Final = tuple(
    function.feature
    for function in (
        imbalance,
        bid_depth,
        ask_depth,
        bid_depth_notional,
        ask_depth_notional,
        vamp,
        sweep_buy_bps,
        sweep_sell_bps,
        bid_slope,
        ask_slope,
        bid_concentration,
        ask_concentration,
        center_of_gravity_bps,
        smart_depth_imbalance,
    )
)
