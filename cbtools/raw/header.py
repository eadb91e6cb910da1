"""The header of a rejected line, by which it counts in the sequence, and breaks only the books it must."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cbtools.raw.advanced import EVENT_READERS, number_of
from cbtools.raw.decode import parse_line
from cbtools.raw.exchange import MESSAGE_READERS
from cbtools.raw.rows import Tally
from cbtools.raw.sequence import ADVANCED, EXCHANGE, NO_FEED
from cbtools.raw.values import NotUnderstood, receipt_ns, time_ns

_LEVEL2: Final = tuple(name for name, (table, _) in EVENT_READERS.items() if table == "level2")
_EXCHANGE_LEVEL2: Final = tuple(name for name, (table, *_) in MESSAGE_READERS.items() if table == "level2")


class Header(NamedTuple):
    """The header of a rejected line; ``products``: those whose changes it holds (None: not known)."""

    feed: int
    sequence_num: int | None
    server_time: int | None
    capture_time: int | None
    level2: bool
    products: list[str] | None = None


def read_header(raw: bytes) -> Header | None:
    """Return the header of a line that is JSON, however it is written; None if there is no frame in it."""
    uncounted = Tally()
    try:
        line = parse_line(raw, uncounted)
    except NotUnderstood:
        return None
    frame = line.get("data", line)
    if type(frame) is not dict:
        return None
    capture = line.get("capture_ts") if "data" in line else None
    number = _if_legal(lambda: number_of(frame))
    level2 = _holds_level2(frame)
    sent = frame.get("timestamp" if "channel" in frame else "time")
    return Header(
        feed=ADVANCED if "channel" in frame or number is not None else EXCHANGE if level2 else NO_FEED,
        sequence_num=number,
        server_time=_if_legal(lambda: time_ns(sent, "time")),
        capture_time=_if_legal(lambda: receipt_ns(capture, "capture_ts", uncounted.unusual)),
        level2=level2,
        products=_products(frame) if level2 else None,
    )


def _if_legal(read: Callable[[], int | None]) -> int | None:
    try:
        return read()
    except NotUnderstood:
        return None


def _holds_level2(frame: dict[str, Any]) -> bool:
    """Return whether a frame is of level2, by its name or by what it holds: the name may be damaged."""
    events = frame.get("events")
    return (
        frame.get("channel") in _LEVEL2
        or ("channel" not in frame and frame.get("type") in _EXCHANGE_LEVEL2)
        or not frame.keys().isdisjoint(("changes", "bids", "asks"))
        or (type(events) is list and any(type(event) is dict and "updates" in event for event in events))
    )


def _products(frame: dict[str, Any]) -> list[str] | None:
    """Return the products of a level2 frame; None if one of them is not known."""
    events: Any = [frame]
    if "channel" in frame or "events" in frame:
        events = frame.get("events")
    if type(events) is not list or not all(type(event) is dict for event in events):
        return None
    products: list[Any] = [event.get("product_id") for event in events]
    return products if all(type(product) is str and product for product in products) else None
