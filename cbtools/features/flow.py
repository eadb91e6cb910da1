"""Features of the change from one row of the book to the next, and their sums over windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from cbtools.features import depth, touch
from cbtools.features.catalogue import Feature
from cbtools.features.define import NO_ROW_BEFORE, NOT_COVERED, of_rows
from cbtools.features.links import ProvenLinks
from cbtools.features.stage import Rows
from cbtools.features.view import SIDES, View
from cbtools.features.windows import Sums, Term, value

F64 = npt.NDArray[np.float64]

_CONT = "Cont, Kukanov & Stoikov 2014"
_XU = "Xu, Gould & Howison 2018"
_BASE = "base currency"
_OFI = (
    "Δbid - Δask; Δbid = qb if b rose, -qb_prev if b fell, qb - qb_prev if equal; Δask = qa if a fell, "
    "-qa_prev if a rose, qa - qa_prev if equal"
)


def book_rows() -> Rows:
    """Give what is to be known of the rows of a book."""
    changes = (ofi.feature, ofi_k.feature, log_return.feature, *_SUMMED)
    return Rows("book", (*touch.FEATURES, *depth.FEATURES, *changes), _linker, touch.IS_OK)


def _linker() -> ProvenLinks:
    return ProvenLinks(touch.IS_OK)


def _order_flow(view: View, k: int) -> F64:
    from cbtools._kernels.flow import order_flow

    bid, bid_size, ask, ask_size = (of(side, k) for side in SIDES for of in (view.price, view.size))
    codes, before, follows, _ = view.links
    last, out = view.carried(("quote", k), (4,)), np.empty(len(bid))
    order_flow(bid, bid_size, ask, ask_size, codes, before, follows, last, out)
    return out


@of_rows("ofi", "book", book_rows, definition=_OFI, unit=_BASE, source=_CONT, null=NO_ROW_BEFORE)
def ofi(view: View) -> F64:
    """Add the order flow imbalance of the best bid and ask since the row before."""
    return view.once(("ofi", 1), lambda: _order_flow(view, 1))


@of_rows(
    "ofi_{k}", "book", book_rows, definition=f"ofi at rank k: {_OFI}", unit=_BASE, source=_XU,
    usual=tuple(f"ofi_{k}" for k in range(1, 6)),
    null=f"{NO_ROW_BEFORE}, or either has no level k",
)  # fmt: skip
def ofi_k(view: View, k: int) -> F64:
    """Add the order flow imbalance of the k-th best levels since the row before."""
    return view.once(("ofi", k), lambda: _order_flow(view, k))


@of_rows("log_return", "book", book_rows, definition="ln(m / m_prev)", null=NO_ROW_BEFORE)
def log_return(view: View) -> F64:
    """Add the log return of mid since the row before."""
    before = view.before("mid")
    return np.where(view.links.follows, np.log1p((view.mid() - before) / before), np.nan)


def _squared_return(view: View) -> F64:
    return view.column("log_return") ** 2


def _product_of_returns(view: View) -> F64:
    return np.abs(view.column("log_return") * view.before("log_return"))


def _summed(name: str, compute: Callable[[View], F64]) -> Feature:
    return Feature(name, "book", "", "", "", (name,), "", compute=compute)


_SUMMED: Final = (
    _summed("squared_return", _squared_return),
    _summed("product_of_returns", _product_of_returns),
)
"""What is only summed over windows."""


def _of_ofi(k: int = 1) -> tuple[Term, ...]:
    return (value(f"ofi_{k}"),)


@of_rows(
    "ofi_{w}", "book", book_rows, definition="Σ ofi over (t - w, t]", unit=_BASE, source=_CONT,
    usual=("ofi_1s", "ofi_10s", "ofi_1m"), null=NOT_COVERED, terms=_of_ofi,
)  # fmt: skip
def ofi_w(sums: Sums) -> F64:
    """Add the order flow imbalance of the best bid and ask over a window."""
    return sums.total[0]


@of_rows(
    "ofi_{k}_{w}", "book", book_rows, definition="Σ ofi_k over (t - w, t]", unit=_BASE, source=_XU,
    usual=tuple(f"ofi_{k}_1s" for k in range(1, 6)), null=NOT_COVERED, terms=_of_ofi,
)  # fmt: skip
def ofi_k_w(sums: Sums, k: int) -> F64:
    """Add the order flow imbalance of the k-th best levels over a window."""
    return sums.total[0]


FEATURES: Final = tuple(function.feature for function in (ofi, ofi_k, log_return, ofi_w, ofi_k_w))
