"""The header of a rejected line, by which it counts in the sequence, and breaks only the books it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cbtools.raw.advanced import EVENT_READERS, number_of
from cbtools.raw.decode import ERROR_CHANNELS
from cbtools.raw.exchange import MESSAGE_READERS
from cbtools.raw.sequence import ADVANCED, EXCHANGE, NO_FEED
from cbtools.raw.values import NotUnderstood, receipt_ns, time_ns

_LEVEL2: Final = tuple(name for name, (table, _) in EVENT_READERS.items() if table == "level2")
_EXCHANGE_LEVEL2: Final = tuple(name for name, (table, *_) in MESSAGE_READERS.items() if table == "level2")

_KNOWN_CHANNELS: Final = (*EVENT_READERS, *ERROR_CHANNELS)
_KNOWN_TYPES: Final = (
    *MESSAGE_READERS, "error", "received", "open", "done", "change", "activate", "auction", "rfq_match",
)  # fmt: skip
"""What the feeds send; a name that is not known may be a damaged one."""
_SENT_BY_CLIENTS: Final = ("subscribe", "unsubscribe")


class Header(NamedTuple):
    """The header of a rejected line; ``products``: those whose changes it holds (None: not known)."""

    feed: int
    sequence_num: int | None
    server_time: int | None
    capture_time: int | None
    level2: bool
    products: list[str] | None = None


def read_header(line: dict[str, Any]) -> Header | None:
    """Return the header of a line that was parsed, however it is written; None if it holds no frame."""
    frame = line.get("data", line)
    if type(frame) is not dict:
        return None
    capture = line.get("capture_ts") if "data" in line else None
    number = _if_legal(lambda: number_of(frame))
    level2 = _holds_level2(frame)
    sent = frame.get("timestamp" if "channel" in frame or frame.get("type") == "error" else "time")
    return Header(
        feed=_feed(frame, number, level2=level2),
        sequence_num=number,
        server_time=_if_legal(lambda: time_ns(sent, "time")),
        capture_time=_if_legal(lambda: receipt_ns(capture, "capture_ts", Counter())),
        level2=level2,
        products=_products(frame),
    )


def _feed(frame: dict[str, Any], number: int | None, *, level2: bool) -> int:
    named = type(frame.get("channel")) is str and frame.get("type") not in _SENT_BY_CLIENTS
    if number is not None or named:
        return ADVANCED
    return EXCHANGE if level2 else NO_FEED


def _if_legal(read: Callable[[], int | None]) -> int | None:
    try:
        return read()
    except NotUnderstood:
        return None


def _holds_level2(frame: dict[str, Any]) -> bool:
    """Return whether a frame is of level2, by its name or by what it holds: the name may be damaged."""
    channel, kind, events = frame.get("channel"), frame.get("type"), frame.get("events")
    if kind in _SENT_BY_CLIENTS:
        return False
    if channel in _LEVEL2 or ("channel" not in frame and kind in _EXCHANGE_LEVEL2):
        return True
    if channel in _KNOWN_CHANNELS or ("channel" not in frame and kind in _KNOWN_TYPES):
        return False
    return not frame.keys().isdisjoint(("changes", "bids", "asks")) or (
        type(events) is list and any(type(event) is dict and "updates" in event for event in events)
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
