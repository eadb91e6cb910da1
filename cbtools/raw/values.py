"""The legal values of the wire: numbers and times, exactly; anything else raises `NotUnderstood`."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from cbtools.schema import LONGEST_NAME, NULL_FOLDER

_NUMBER: Final = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
)
_LOOSE_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})([T ])([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)"
    r"(Z|[+-][0-9]{2}:[0-9]{2}|[+-][0-9]{4})?",
    re.ASCII,
)
_EPOCH: Final = re.compile(r"0*([0-9]{1,19})(?:\.([0-9]+))?", re.ASCII)
_UNITS: Final = ((10**11, 9), (10**14, 6), (10**17, 3))
"""Below which number an epoch is in which unit, by how many digits that is above a nanosecond."""
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_INT64: Final = 2**63
_YEAR_ONE_NS: Final = (date(1, 1, 1).toordinal() - _EPOCH_DAY) * 86_400 * 10**9


class NotUnderstood(Exception):
    """Why a line is not understood: a kind, a colon and the particular."""

    def __init__(self, kind: str, what: object = "", *, most: int = 120) -> None:
        super().__init__(f"{kind}: {str(what)[:most]}" if what != "" else kind)


def number(value: Any, name: str, *, signed: bool = False) -> float:
    """Give the double nearest to a number's text (or to a JSON number)."""
    if type(value) is str:
        match = _NUMBER.fullmatch(value)
        if match and (signed or value[0] != "-"):
            result = float(value)
            if math.isfinite(result):
                return result
    elif type(value) is float or (type(value) is int and abs(value) < _INT64 * 2):
        result = float(value)
        if math.isfinite(result) and (signed or math.copysign(1.0, result) > 0.0):
            return result
    raise NotUnderstood("bad number", f"{name}={value!r}")


def is_long(value: Any) -> bool:
    """Whether a number's text has more significant digits than a double is sure to keep (15)."""
    if type(value) is not str or len(value) <= 15:
        return False
    match = _NUMBER.fullmatch(value)
    if match is None:
        return False
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    return len((whole + fraction).lstrip("0")) > 15


@lru_cache(maxsize=64)
def _days(text: str) -> int | None:
    """Count the days from the epoch to a date; None if the calendar has no such date."""
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH_DAY
    except ValueError:
        return None


def time_ns(value: Any, name: str) -> int | None:
    """Give a time's nanoseconds since the epoch; None for null, the epoch itself and year one's start."""
    if value is None:
        return None
    match = _TIME.fullmatch(value) if type(value) is str else None
    if match is None:
        raise NotUnderstood("bad time", f"{name}={value!r}")
    day, hours, minutes, seconds_text, fraction, sign, offset_hours, offset_minutes = match.groups()
    days, hour, minute, second = _days(day), int(hours), int(minutes), int(seconds_text)
    offset_hour, offset_minute = int(offset_hours or 0), int(offset_minutes or 0)
    if days is None:
        raise NotUnderstood("bad time", f"{name}={value!r}")
    if hour > 23 or minute > 59 or second > 59 or offset_hour > 23 or offset_minute > 59:
        raise NotUnderstood("bad time", f"{name}={value!r}")
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    nanoseconds = seconds * 10**9 + int((fraction or "").ljust(9, "0"))
    offset = (offset_hour * 60 + offset_minute) * 60 * 10**9
    if offset == 0 and nanoseconds in (0, _YEAR_ONE_NS):
        return None
    nanoseconds += offset if sign == "-" else -offset
    if not -_INT64 < nanoseconds < _INT64:
        raise NotUnderstood("bad time", f"{name}={value!r}")
    return nanoseconds


def receipt_ns(value: Any, name: str, unusual: Counter[str]) -> int | None:
    """Return a receipt's nanoseconds since the epoch, in any form that a recorder may write.

    Its clock is the recorder's, whose habits are many: a time with a space, with an offset like +0000 or
    without one, and an epoch in any unit. What is not as of `time_ns` is counted in ``unusual``.
    """
    if type(value) is str:
        match = _LOOSE_TIME.fullmatch(value)
        if match is not None:
            day, between, clock, zone = match.groups()
            if between == " ":
                unusual[f"{name} with a space"] += 1
            if zone is None:
                unusual[f"{name} without a zone"] += 1
            elif len(zone) == 5:
                unusual[f"{name} with an offset like +0000"] += 1
                zone = f"{zone[:3]}:{zone[3:]}"
            try:
                return time_ns(f"{day}T{clock}{zone or 'Z'}", name)
            except NotUnderstood:
                raise NotUnderstood("bad time", f"{name}={value!r}") from None
    elif type(value) is int or type(value) is float:
        text = format(Decimal(repr(value)), "f")  # the shortest decimal that is this double
        return _epoch_ns(text.removeprefix("-") if value == 0 else text, value, name, unusual)
    elif value is None:
        return None
    return _epoch_ns(value, value, name, unusual)


def _epoch_ns(text: Any, value: Any, name: str, unusual: Counter[str]) -> int | None:
    """Return an epoch's nanoseconds; digits below one are cut off, and 0 stands for none."""
    match = _EPOCH.fullmatch(text) if type(text) is str else None
    if match is None:
        raise NotUnderstood("bad time", f"{name}={value!r}")
    unit = next((digits for below, digits in _UNITS if int(match[1]) < below), 0)
    nanoseconds = int(match[1] + (match[2] or "")[:unit].ljust(unit, "0"))
    if nanoseconds >= _INT64:
        raise NotUnderstood("bad time", f"{name}={value!r}")
    unusual[f"{name} as an epoch"] += 1
    return nanoseconds if text.strip("0.") else None


def whole(value: Any, name: str, *, text: bool) -> int:
    """Return a whole number from 0 to 2^63-1: a JSON integer or, where ``text`` allows it, 1 to 19 digits."""
    if text and type(value) is str and 1 <= len(value) <= 19 and value.isascii() and value.isdigit():
        value = int(value)
    if type(value) is int and 0 <= value < _INT64:
        return value
    raise NotUnderstood("bad whole number", f"{name}={value!r}")


def name_text(value: Any, name: str) -> str:
    """Give a text that may not be empty."""
    if type(value) is str and value:
        return value
    raise NotUnderstood("bad text", f"{name}={value!r}")


def product_text(value: Any, name: str) -> str:
    """Return a product's name, which must do for the name of a folder."""
    product = name_text(value, name)
    if not _is_fit(product):
        raise NotUnderstood("bad product", f"no folder can be named by {name}={value!r}")
    return product


@lru_cache(maxsize=4096)
def _is_fit(product: str) -> bool:
    folder = f"product_id={quote(product, safe='')}"
    return len(folder) <= LONGEST_NAME and product != NULL_FOLDER


def one_of(value: Any, name: str, known: dict[str, Any]) -> Any:
    """Give what a text stands for."""
    if type(value) is str and value in known:
        return known[value]
    raise NotUnderstood(f"unknown {name}", repr(value))


def dicts(value: Any, name: str) -> list[dict[str, Any]]:
    """Give a list whose items are all objects."""
    if type(value) is list and all(type(item) is dict for item in value):
        return value
    raise NotUnderstood("not a list of objects", name)
