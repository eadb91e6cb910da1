"""The Exchange feed's messages → rows: flat, and without a counter of the connection's frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cbtools.raw.rows import (
    TRADE_SIDES,
    Frame,
    Row,
    Tally,
    counter,
    known,
    product_rows,
    snapshot_rows,
    subscription_row,
    text_of,
    ticker_row,
    trade_row,
)
from cbtools.raw.sequence import EXCHANGE
from cbtools.raw.values import NotUnderstood, dicts, one_of, product_text, time_ns, whole

_SIDES: Final = {"buy": "bid", "sell": "ask"}
_TICKER: Final = (
    "volume_24h", "low_24h", "high_24h", None, None, None,
    "best_bid", "best_bid_size", "best_ask", "best_ask_size",
)  # fmt: skip


def exchange_frame(frame: dict[str, Any], tally: Tally) -> Frame:
    """Read a message of the Exchange feed."""
    kind = frame["type"]
    table, read, keys = one_of(kind, "type", MESSAGE_READERS)
    tally.look("frame", frame, keys)
    server_time = time_ns(frame.get("time"), "time")
    return Frame(EXCHANGE, table, None, server_time, None, read(frame, server_time, tally), tally)


def _changes(value: Any, name: str, width: int) -> list[list[Any]]:
    if type(value) is list and all(type(item) is list and len(item) == width for item in value):
        return value
    raise NotUnderstood("bad list", name)


def _snapshot(frame: dict[str, Any], time: int | None, tally: Tally) -> list[Row]:
    product_id = product_text(frame.get("product_id"), "product_id")
    levels: list[Row] = [
        (product_id, True, side, tally.plain(price, "price"), tally.plain(size, "size"), time)
        for side, key in (("bid", "bids"), ("ask", "asks"))
        for price, size in _changes(frame.get(key), key, 2)
    ]
    return snapshot_rows(product_id, levels, set())


def _update(frame: dict[str, Any], time: int | None, tally: Tally) -> list[Row]:
    product_id = product_text(frame.get("product_id"), "product_id")
    return [
        (
            product_id,
            False,
            one_of(side, "side", _SIDES),
            tally.plain(price, "price"),
            tally.plain(size, "size"),
            time,
        )
        for side, price, size in _changes(frame.get("changes"), "changes", 3)
    ]


def _match(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    more = _order_id(frame, "maker_order_id"), _order_id(frame, "taker_order_id"), _whole(frame, "sequence")
    return [trade_row(frame, frame["type"] == "last_match", tally, more)]


def _ticker(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    numbers = (tally.number(frame, key, optional=True) for key in ("open_24h", "volume_30d", "last_size"))
    side = frame.get("side")
    taker_side = None if side is None or side == "" else one_of(side, "side", TRADE_SIDES)
    more = (*numbers, taker_side, _whole(frame, "trade_id"), _whole(frame, "sequence"))
    return [ticker_row(frame, _TICKER, tally, more)]


def _order_id(frame: dict[str, Any], key: str) -> str | None:
    value = frame.get(key)
    if value is None or type(value) is str:
        return value
    raise NotUnderstood("bad text", f"{key}={value!r}")


def _whole(frame: dict[str, Any], key: str) -> int | None:
    value = frame.get(key)
    return None if value is None else whole(value, key, text=True)


def _heartbeat(frame: dict[str, Any], _: int | None, __: Tally) -> list[Row]:
    product_id = product_text(frame.get("product_id"), "product_id")
    return [(product_id, text_of(frame, "time"), None, counter(frame.get("last_trade_id")))]


def _status(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    return product_rows(frame.get("products"), "status.products", tally)


def _subscriptions(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    rows = []
    for channel in dicts(frame.get("channels"), "channels"):
        tally.look("subscriptions.channels", channel, known("name product_ids"))
        rows.append(subscription_row(channel.get("name"), channel.get("product_ids")))
    return rows


_MATCH: Final = known("type trade_id maker_order_id taker_order_id side size price product_id sequence time")
MESSAGE_READERS: Final[dict[str, tuple[str, Callable[..., list[Row]], frozenset[str]]]] = {
    "snapshot": ("level2", _snapshot, known("type product_id bids asks time")),
    "l2update": ("level2", _update, known("type product_id time changes")),
    "match": ("market_trades", _match, _MATCH),
    "last_match": ("market_trades", _match, _MATCH),
    "ticker": (
        "ticker",
        _ticker,
        known(
            "type sequence product_id price open_24h volume_24h low_24h high_24h volume_30d best_bid"
            " best_bid_size best_ask best_ask_size side time trade_id last_size"
        ),
    ),
    "heartbeat": ("heartbeats", _heartbeat, known("type sequence last_trade_id product_id time")),
    "status": ("status", _status, known("type products currencies time")),
    "subscriptions": ("subscriptions", _subscriptions, known("type channels time")),
}
