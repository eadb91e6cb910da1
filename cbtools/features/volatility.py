"""Features of mid and spread over windows: return, variance and its robust kin, time-weighted spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cbtools.features.define import NOT_COVERED, FrameFeature, of_rows
from cbtools.features.flow import book_rows
from cbtools.features.windows import Sums, Term, integral, log_change, value

F64 = npt.NDArray[np.float64]


def _window(
    name: str, source: str, definition: str, terms: Callable[..., tuple[Term, ...]], *, unit: str = "",
    usual: str = "", null: str = NOT_COVERED,
) -> Callable[[Callable[..., Any]], FrameFeature]:  # fmt: skip
    names = [f"{name.replace('{w}', w).replace('{K}', '5')}" for w in ("1m", "10s", "5m")]
    return of_rows(
        name, "book", book_rows, definition=definition, unit=unit, source=source, usual=names, null=null,
        terms=terms,
    )  # fmt: skip


def _squares() -> tuple[Term, ...]:
    return (value("squared_return"),)


@_window("return_{w}", "", "Σ r over (t - w, t], r the log returns of mid", lambda: (value("log_return"),))
def return_w(sums: Sums) -> F64:
    """Add the log return of mid over a window."""
    return sums.total[0]


_ANDERSEN = "Andersen & Bollerslev 1998"


@_window("realized_variance_{w}", _ANDERSEN, "Σ r² over (t - w, t]", _squares)
def realized_variance(sums: Sums) -> F64:
    """Add the realized variance of mid over a window: the sum of squared returns, not annualised."""
    return sums.total[0]


@_window("realized_volatility_{w}", _ANDERSEN, "√(Σ r² over (t - w, t])", _squares)
def realized_volatility(sums: Sums) -> F64:
    """Add the realized volatility of mid over a window: the root of the realized variance, not annualised."""
    return np.sqrt(sums.total[0])


@_window(
    "bipower_variation_{w}",
    "Barndorff-Nielsen & Shephard 2004",
    "(π/2) Σ |r_i| |r_{i-1}| over the pairs in (t - w, t]",
    lambda: (value("product_of_returns", lag=1),),
    null=f"{NOT_COVERED}, or it has fewer than 2 returns",
)
def bipower_variation(sums: Sums) -> F64:
    """Add the bipower variation of mid over a window, which jumps hardly move; sample the rows first.

    Most rows of a book leave mid where it is, and a product with a return of 0 is 0: take it of rows that
    `cbtools.sample_time` gives, with ``clock="sample_time"``.
    """
    return np.where(sums.rows > 1, np.pi / 2 * sums.total[0], np.nan)


def _two_scales(K: int) -> tuple[Term, ...]:
    return (log_change("mid", K), value("squared_return"))


@_window(
    "two_scale_variance_{w}_{K}",
    "Zhang, Mykland & Aït-Sahalia 2005",
    "(avg - n̄/n Σ r²) / (1 - n̄/n), avg = 1/K Σ (ln m_i - ln m_{i-K})², n̄ = (n - K + 1)/K, over the n returns "
    "in (t - w, t]",
    _two_scales,
    null=f"{NOT_COVERED}, or it has fewer than K returns",
)
def two_scale_variance(sums: Sums, K: int) -> F64:
    """Add the two-scale variance of mid over a window, which noise does not bias (small-sample form)."""
    n = sums.rows.astype(np.float64)
    share = (n - K + 1) / K / n
    variance = (sums.total[0] / K - share * sums.total[1]) / (1 - share)
    return np.where(n >= K, variance, np.nan)


@_window(
    "spread_twa_{w}",
    "",
    "1/w ∫ spread dt over (t - w, t], each row's spread holding until the next row",
    lambda: (integral("spread"),),
    unit="quote currency",
)
def spread_twa(sums: Sums) -> F64:
    """Add the time-weighted mean of the spread over a window."""
    return sums.total[0] / sums.span


FEATURES: Final = tuple(
    function.feature
    for function in (
        return_w,
        realized_variance,
        realized_volatility,
        bipower_variation,
        two_scale_variance,
        spread_twa,
    )
)
