"""The Advanced Trade feed's frames → rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cbtools.raw.rows import (
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
from cbtools.raw.sequence import ADVANCED
from cbtools.raw.values import NotUnderstood, dicts, one_of, product_text, time_ns, whole

LARGEST_NUMBER: Final = 2**53

_SIDES: Final = {"bid": "bid", "offer": "ask", "ask": "ask"}
_EVENT_TYPES: Final = {"snapshot": True, "update": False}

# the columns of a ticker behind its price, by their names on the wire
_TICKER: Final = (
    "volume_24_h", "low_24_h", "high_24_h", "low_52_w", "high_52_w", "price_percent_chg_24_h",
    "best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity",
)  # fmt: skip


def advanced_frame(frame: dict[str, Any], tally: Tally) -> Frame:
    """Read a frame of the Advanced Trade feed."""
    tally.look("frame", frame, known("channel client_id timestamp sequence_num events"))
    channel = frame["channel"]
    table, read_event = one_of(channel, "channel", EVENT_READERS)
    sequence_num = number_of(frame)
    server_time = time_ns(frame.get("timestamp"), "timestamp")
    rows: list[Row] = []
    seen: set[str] = set()  # products of which the frame had a snapshot
    if frame.get("events", ()) is not None:  # null, as some languages write an empty list
        for event in dicts(frame.get("events"), "events"):
            rows += read_event(event, channel, tally, seen)
    return Frame(ADVANCED, table, sequence_num, server_time, None, rows, tally)


def number_of(frame: dict[str, Any]) -> int | None:
    """Return a frame's number, up to 2**53: no connection counts further, and other readers use doubles."""
    value = frame.get("sequence_num")
    if value is None:
        return None
    number = whole(value, "sequence_num", text=False)
    if number > LARGEST_NUMBER:
        raise NotUnderstood("bad whole number", f"sequence_num={number}, above 2**53")
    return number


def _level2(event: dict[str, Any], channel: str, tally: Tally, seen: set[str]) -> list[Row]:
    tally.look(channel, event, known("type product_id updates"))
    is_snapshot = one_of(event.get("type"), "event type", _EVENT_TYPES)
    product_id = product_text(event.get("product_id"), "product_id")
    rows: list[Row] = []
    for update in dicts(event.get("updates"), "updates"):
        tally.look(f"{channel}.updates", update, known("side event_time price_level new_quantity"))
        side = one_of(update.get("side"), "side", _SIDES)
        price, size = tally.number(update, "price_level"), tally.number(update, "new_quantity")
        event_time = time_ns(update.get("event_time"), "event_time")
        rows.append((product_id, is_snapshot, side, price, size, event_time))
    return snapshot_rows(product_id, rows, seen) if is_snapshot else rows


def _trades(event: dict[str, Any], channel: str, tally: Tally, _: set[str]) -> list[Row]:
    tally.look(channel, event, known("type trades"))
    is_snapshot = one_of(event.get("type"), "event type", _EVENT_TYPES)
    rows = []
    for trade in dicts(event.get("trades"), "trades"):
        tally.look(f"{channel}.trades", trade, known("product_id trade_id price size side time"))
        rows.append(trade_row(trade, is_snapshot, tally))
    return sorted(rows, key=lambda row: row[1])  # within an event, by trade_id


def _tickers(event: dict[str, Any], channel: str, tally: Tally, _: set[str]) -> list[Row]:
    tally.look(channel, event, known("type tickers"))
    kind = event.get("type")
    if kind is not None and type(kind) is not str:
        raise NotUnderstood("bad text", f"type={kind!r}")
    rows = []
    for ticker in dicts(event.get("tickers"), "tickers"):
        tally.look(f"{channel}.tickers", ticker, known("type product_id price " + " ".join(_TICKER)))
        rows.append(ticker_row(ticker, _TICKER, tally))
    return rows


def _candles(event: dict[str, Any], channel: str, tally: Tally, _: set[str]) -> list[Row]:
    tally.look(channel, event, known("type candles"))
    rows = []
    for candle in dicts(event.get("candles"), "candles"):
        tally.look(f"{channel}.candles", candle, known("product_id start open high low close volume"))
        start = whole(candle.get("start"), "start", text=True) * 10**9
        if start >= 2**63:
            raise NotUnderstood("bad time", f"start={candle['start']!r}")
        values = (tally.number(candle, key) for key in ("open", "high", "low", "close", "volume"))
        rows.append((product_text(candle.get("product_id"), "product_id"), start, *values))
    return rows


def _heartbeats(event: dict[str, Any], channel: str, tally: Tally, _: set[str]) -> list[Row]:
    tally.look(channel, event, known("type current_time heartbeat_counter"))
    return [(None, text_of(event, "current_time"), counter(event.get("heartbeat_counter")), None)]


def _status(event: dict[str, Any], channel: str, tally: Tally, _: set[str]) -> list[Row]:
    tally.look(channel, event, known("type products"))
    return product_rows(event.get("products"), f"{channel}.products", tally)


def _subscriptions(event: dict[str, Any], channel: str, tally: Tally, _: set[str]) -> list[Row]:
    tally.look(channel, event, known("type subscriptions"))
    found = event.get("subscriptions")
    if type(found) is not dict:
        raise NotUnderstood("not an object", "subscriptions")
    return [subscription_row(name, product_ids) for name, product_ids in found.items()]


EVENT_READERS: Final[dict[str, tuple[str, Callable[..., list[Row]]]]] = {
    "l2_data": ("level2", _level2),
    "level2": ("level2", _level2),
    "market_trades": ("market_trades", _trades),
    "ticker": ("ticker", _tickers),
    "ticker_batch": ("ticker_batch", _tickers),
    "candles": ("candles", _candles),
    "heartbeats": ("heartbeats", _heartbeats),
    "status": ("status", _status),
    "subscriptions": ("subscriptions", _subscriptions),
}
"""Channel, by its name on the wire → its table, and what reads an event: the one table of channels."""
