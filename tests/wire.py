"""Lines as they come from the wire, built from plain values.

A frame is a dict; `envelope` wraps it as the recorder does; `line` writes it as the recorder does (compact,
in the order of the keys); `segment` joins lines. Prices, sizes and times are given as they stand in the line.
"""

from __future__ import annotations

import json
from typing import Any

TIMESTAMP = "2026-03-04T05:06:07.089101Z"
CAPTURE_TS = "2026-03-04T05:06:07.123456+00:00"
EVENT_TIME = "2026-03-04T05:06:06.950001Z"

Json = dict[str, Any]


def line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def segment(*lines: bytes | Json) -> bytes:
    """Join lines (frames are written first); every line ends with a newline."""
    return b"".join((one if isinstance(one, bytes) else line(one)) + b"\n" for one in lines)


def envelope(frame: Json, capture_ts: Any = CAPTURE_TS, metadata: Json | None = None) -> Json:
    metadata = {"source": "coinbase"} if metadata is None else metadata
    return {"capture_ts": capture_ts, "data": frame, "metadata": metadata}


def record(frame: Json, capture_ts: Any = CAPTURE_TS) -> bytes:
    """Write a frame as the recorder does: one line, without its newline."""
    return line(envelope(frame, capture_ts))


# --- Advanced Trade feed


def advanced(
    channel: str, sequence_num: int | None, *events: Json, timestamp: str | None = TIMESTAMP
) -> Json:
    return {
        "channel": channel,
        "client_id": "",
        "timestamp": timestamp,
        "sequence_num": sequence_num,
        "events": list(events),
    }


def update(side: str, price: Any, size: Any, event_time: str | None = EVENT_TIME) -> Json:
    return {"side": side, "event_time": event_time, "price_level": price, "new_quantity": size}


def book(product_id: str, *updates: Json, kind: str = "update") -> Json:
    """Build an event of the level2 channel."""
    return {"type": kind, "product_id": product_id, "updates": list(updates)}


def l2(sequence_num: int | None, *events: Json, timestamp: str | None = TIMESTAMP) -> Json:
    return advanced("l2_data", sequence_num, *events, timestamp=timestamp)


def snapshot(
    sequence_num: int | None, product_id: str = "BTC-USD", timestamp: str | None = TIMESTAMP
) -> Json:
    """Build a small level2 snapshot, two levels a side."""
    levels = [("bid", "99.5", "1"), ("bid", "99", "2"), ("offer", "100.5", "3"), ("offer", "101", "4")]
    event = book(product_id, *(update(*level) for level in levels), kind="snapshot")
    return l2(sequence_num, event, timestamp=timestamp)


def change(
    sequence_num: int | None,
    product_id: str = "BTC-USD",
    side: str = "bid",
    price: Any = "99.5",
    size: Any = "7",
    timestamp: str | None = TIMESTAMP,
) -> Json:
    """Build a level2 frame with one level change."""
    return l2(sequence_num, book(product_id, update(side, price, size)), timestamp=timestamp)


def trade(
    trade_id: Any,
    price: Any = "100",
    size: Any = "0.5",
    side: str = "BUY",
    time: str | None = EVENT_TIME,
    product_id: str = "BTC-USD",
) -> Json:
    return {
        "product_id": product_id,
        "trade_id": trade_id,
        "price": price,
        "size": size,
        "time": time,
        "side": side,
    }


def trades(
    sequence_num: int | None, *one: Json, kind: str = "update", timestamp: str | None = TIMESTAMP
) -> Json:
    event = {"type": kind, "trades": list(one)}
    return advanced("market_trades", sequence_num, event, timestamp=timestamp)


def ticker(
    sequence_num: int | None,
    product_id: str = "BTC-USD",
    price: Any = "100",
    channel: str = "ticker",
    **more: Any,
) -> Json:
    """Build a ticker with every field of its channel; a keyword replaces a field."""
    fields = {
        "type": "ticker",
        "product_id": product_id,
        "price": price,
        "volume_24_h": "1234.5",
        "low_24_h": "90",
        "high_24_h": "110",
        "low_52_w": "50",
        "high_52_w": "150",
        "price_percent_chg_24_h": "-1.25",
    }
    if channel == "ticker":
        fields |= {
            "best_bid": "99.5",
            "best_bid_quantity": "1",
            "best_ask": "100.5",
            "best_ask_quantity": "3",
        }
    return advanced(channel, sequence_num, {"type": "update", "tickers": [fields | more]})


def candles(sequence_num: int | None, *one: Json) -> Json:
    return advanced("candles", sequence_num, {"type": "update", "candles": list(one)})


def candle(start: Any = "1772600700", product_id: str = "BTC-USD", **more: Any) -> Json:
    prices = {"high": "110", "low": "90", "open": "100", "close": "105", "volume": "12.5"}
    return {"start": start, **prices, "product_id": product_id} | more


def heartbeat(sequence_num: int | None, current_time: Any, counter: Any) -> Json:
    event = {"current_time": current_time, "heartbeat_counter": counter}
    return advanced("heartbeats", sequence_num, event)


def status(sequence_num: int | None, *products: Json) -> Json:
    return advanced("status", sequence_num, {"type": "snapshot", "products": list(products)})


def product(product_id: str = "BTC-USD", **more: Any) -> Json:
    """Build a product of the status channel."""
    return {
        "product_type": "SPOT",
        "id": product_id,
        "base_currency": "BTC",
        "quote_currency": "USD",
        "base_increment": "0.00000001",
        "quote_increment": "0.01",
        "display_name": "BTC/USD",
        "status": "online",
        "status_message": "",
        "min_market_funds": "1",
    } | more


def ack(sequence_num: int | None, **channels: list[str]) -> Json:
    return advanced("subscriptions", sequence_num, {"subscriptions": channels})


def error(message: str = "rate limit exceeded", **more: Any) -> Json:
    return {"type": "error", "message": message} | more


# --- Exchange feed


def exchange_snapshot(
    product_id: str = "BTC-USD",
    bids: list[list[Any]] | None = None,
    asks: list[list[Any]] | None = None,
    **more: Any,
) -> Json:
    bids = [["99.5", "1"]] if bids is None else bids
    asks = [["100.5", "3"]] if asks is None else asks
    return {"type": "snapshot", "product_id": product_id, "asks": asks, "bids": bids} | more


def exchange_update(
    *changes: list[Any], product_id: str = "BTC-USD", time: str | None = EVENT_TIME, **more: Any
) -> Json:
    """Build an l2update; a change is [buy or sell, price, size]."""
    return {"type": "l2update", "product_id": product_id, "changes": list(changes), "time": time} | more


def match(trade_id: Any, kind: str = "match", **more: Any) -> Json:
    return {
        "type": kind,
        "trade_id": trade_id,
        "maker_order_id": "2a0da34e-61f7-4c36-88e5-c9dd15927b16",
        "taker_order_id": "3c82abaa-c01e-4608-be59-6a1e69742891",
        "side": "sell",
        "size": "0.5",
        "price": "100",
        "product_id": "BTC-USD",
        "sequence": 177100030,
        "time": EVENT_TIME,
    } | more


def exchange_ticker(**more: Any) -> Json:
    return {
        "type": "ticker",
        "sequence": 333938798,
        "product_id": "BTC-USD",
        "price": "100",
        "open_24h": "101",
        "volume_24h": "1234.5",
        "low_24h": "90",
        "high_24h": "110",
        "volume_30d": "22955.5",
        "best_bid": "99.5",
        "best_ask": "100.5",
        "side": "buy",
        "time": EVENT_TIME,
        "trade_id": 881613,
        "last_size": "0.04",
    } | more


def exchange_heartbeat(**more: Any) -> Json:
    return {
        "type": "heartbeat",
        "sequence": 90,
        "last_trade_id": 20,
        "product_id": "BTC-USD",
        "time": EVENT_TIME,
    } | more


def exchange_ack(*channels: Json) -> Json:
    return {"type": "subscriptions", "channels": list(channels)}
