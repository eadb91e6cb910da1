"""Time spans as texts, such as "500ms" or "1m30s"."""

from __future__ import annotations

import re
from typing import Final

from cbtools.errors import ConfigError

_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
SPAN: Final = r"(?:\d+(?:ns|us|ms|s|m|h|d))+"
"""The pattern of a time span."""


def span_ns(span: str) -> int:
    """Return the nanoseconds of a time span.

    Parameters
    ----------
    span : str
        Numbers with units ns, us, ms, s, m, h or d: ``"500ms"``, ``"1m30s"``.

    Returns
    -------
    int

    Raises
    ------
    ConfigError
        If it is no such text, or the span is zero.

    Examples
    --------
    >>> span_ns("1m30s")
    90000000000
    """
    if not isinstance(span, str) or not re.fullmatch(SPAN, span):
        raise ConfigError(
            f"{span!r} is no time span: write a number with its unit (ns, us, ms, s, m, h or d), "
            "e.g. '500ms' or '1m30s'"
        )
    total = sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ns|us|ms|s|m|h|d)", span))
    if not 0 < total < 2**62:
        raise ConfigError(f"the time span {span!r} must be longer than nothing and shorter than 146 years")
    return total


def span_text(span: int) -> str:
    """Write a time span in the largest unit that divides it."""
    unit = max((u for u in _UNITS if span % _UNITS[u] == 0), key=_UNITS.__getitem__)
    return f"{span // _UNITS[unit]}{unit}"


def about(span: int) -> str:
    """Write a span to three digits, in the unit that suits it.

    Parameters
    ----------
    span : int
        Nanoseconds; below 0 for a span backward.

    Returns
    -------
    str

    Examples
    --------
    >>> about(7_638_581), about(-1_272_500_000), about(0)
    ('7.64 ms', '-1.27 s', '0 s')
    """
    unit = next((unit for unit in reversed(_UNITS) if abs(span) >= _UNITS[unit]), "s")
    value = span / _UNITS[unit]
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {'min' if unit == 'm' else unit}"
