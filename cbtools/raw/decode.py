"""Any line → rows, or a reason why not: the definition of right, by orjson.

The wire's names die here. A line is understood as a whole or not at all. What a row holds is in the order of
its table's columns in `cbtools.schema`, without those of the frame.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson

from cbtools.raw.values import NotUnderstood, dicts, is_long, name_text, number, one_of, time_ns, whole

_SIDES: Final = {"bid": "bid", "offer": "ask", "ask": "ask"}
_EXCHANGE_SIDES: Final = {"buy": "bid", "sell": "ask"}
_TRADE_SIDES: Final = {"BUY": "buy", "buy": "buy", "SELL": "sell", "sell": "sell"}
_OPPOSITE: Final = {"buy": "sell", "sell": "buy"}
_EVENT_TYPES: Final = {"snapshot": True, "update": False}

# the columns of a ticker behind its price, by their names on the wire
_TICKER: Final = (
    "volume_24_h", "low_24_h", "high_24_h", "low_52_w", "high_52_w", "price_percent_chg_24_h",
    "best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity",
)  # fmt: skip
_EXCHANGE_TICKER: Final = (
    "volume_24h", "low_24h", "high_24h", None, None, None,
    "best_bid", "best_bid_size", "best_ask", "best_ask_size",
)  # fmt: skip

_MINUS_ZERO: Final = re.compile(rb"[:,\[\s]-0[\s,}\]]")

Row = tuple[Any, ...]


@dataclass
class Tally:
    """What a line tells besides its rows.

    ``cleared``: the products whose book an empty snapshot cleared, which no row can tell.
    """

    unknown_keys: Counter[str] = field(default_factory=Counter)
    long_numbers: int = 0
    cleared: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.unknown_keys or self.long_numbers)

    def look(self, where: str, found: dict[str, Any], known: frozenset[str]) -> None:
        """Count the keys of an object that are not known."""
        if not found.keys() <= known:
            self.unknown_keys.update(f"{where}.{key}" for key in found.keys() - known)

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        self.unknown_keys.update(other.unknown_keys)
        self.long_numbers += other.long_numbers

    def number(self, found: dict[str, Any], key: str, *, signed: bool = False, optional: bool = False) -> Any:
        """Read a number; an optional one may be missing, null or empty."""
        return self.plain(found.get(key), key, signed=signed, optional=optional)

    def plain(self, value: Any, name: str, *, signed: bool = False, optional: bool = False) -> float | None:
        """Read a number that stands in a list."""
        if optional and (value is None or value == ""):
            return None
        result = number(value, name, signed=signed)
        self.long_numbers += is_long(value)
        return result


@dataclass
class Frame:
    """One understood line: its header and the rows of its table."""

    table: str
    sequence_num: int | None
    server_time: int | None
    capture_time: int | None
    rows: list[Row]
    tally: Tally


def _known(names: str) -> frozenset[str]:
    return frozenset(names.split())


def decode_line(raw: bytes) -> Frame:
    """Decode one line, without its newline.

    Raises
    ------
    NotUnderstood
        With the reason, as it goes into the rejects.
    """
    line = _parse(raw)
    tally = Tally()
    capture_time = None
    frame = line
    if "data" in line:
        tally.look("envelope", line, _known("capture_ts data metadata"))
        capture_time = time_ns(line.get("capture_ts"), "capture_ts")
        metadata = line.get("metadata")
        if type(metadata) is dict:
            tally.look("metadata", metadata, _known("source channel"))
        frame = line["data"]
        if type(frame) is not dict:
            raise NotUnderstood("data is not an object")
    if frame.get("type") == "error" or frame.get("channel") in ("error", "errors"):
        decoded = _error(frame, tally)
    elif "channel" in frame:
        decoded = _advanced(frame, tally)
    elif "type" in frame:
        decoded = _exchange(frame, tally)
    else:
        raise NotUnderstood("no channel and no type")
    decoded.capture_time = capture_time
    return decoded


def _parse(raw: bytes) -> dict[str, Any]:
    """Parse a line as one JSON object without duplicate keys."""
    if not raw.strip(b" \t\r\n"):
        raise NotUnderstood("blank line")
    if raw.endswith(b"\r"):
        raise NotUnderstood("CRLF line end")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise NotUnderstood("byte order mark")
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NotUnderstood("not JSON", error) from None
    if type(parsed) is not dict:
        raise NotUnderstood("not an object")
    # orjson keeps the last of duplicate keys, and forgets the sign of -0; a line that it writes again letter
    # for letter has neither
    if orjson.dumps(parsed) != raw:
        try:
            again = json.loads(raw, object_pairs_hook=_pairs, parse_int=_integer)
        except RecursionError:
            raise NotUnderstood("not JSON", "nested too deeply") from None
        if _MINUS_ZERO.search(raw):
            return cast(dict[str, Any], again)
    return parsed


def _integer(text: str) -> float:
    return -0.0 if text == "-0" else int(text) if len(text) < 30 else float(text)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise NotUnderstood("duplicate key", repr(key))
    return found


def _error(frame: dict[str, Any], tally: Tally) -> Frame:
    tally.look("frame", frame, _known("type channel client_id timestamp sequence_num events message reason"))
    return Frame("errors", None, None, None, [(_text(frame, "message"), _text(frame, "reason"))], tally)


def _text(found: dict[str, Any], key: str) -> str | None:
    """Read a text that may be missing; anything else is kept as its JSON text."""
    value = found.get(key)
    return value if value is None or type(value) is str else orjson.dumps(value).decode()


# --- the Advanced Trade feed


def _advanced(frame: dict[str, Any], tally: Tally) -> Frame:
    tally.look("frame", frame, _known("channel client_id timestamp sequence_num events"))
    channel = frame["channel"]
    table, read_event = one_of(channel, "channel", _ADVANCED)
    sequence_num = frame.get("sequence_num")
    if sequence_num is not None:
        sequence_num = whole(sequence_num, "sequence_num", text=False)
    server_time = time_ns(frame.get("timestamp"), "timestamp")
    rows: list[Row] = []
    for event in dicts(frame.get("events"), "events"):
        rows += read_event(event, channel, tally)
    return Frame(table, sequence_num, server_time, None, rows, tally)


def _level2(event: dict[str, Any], channel: str, tally: Tally) -> list[Row]:
    tally.look(channel, event, _known("type product_id updates"))
    is_snapshot = one_of(event.get("type"), "event type", _EVENT_TYPES)
    product_id = name_text(event.get("product_id"), "product_id")
    rows: list[Row] = []
    for update in dicts(event.get("updates"), "updates"):
        tally.look(f"{channel}.updates", update, _known("side event_time price_level new_quantity"))
        side = one_of(update.get("side"), "side", _SIDES)
        price, size = tally.number(update, "price_level"), tally.number(update, "new_quantity")
        event_time = time_ns(update.get("event_time"), "event_time")
        rows.append((product_id, is_snapshot, side, price, size, event_time))
    if is_snapshot and not rows:
        tally.cleared.append(product_id)
    return rows


def _trade(trade: dict[str, Any], is_snapshot: bool, tally: Tally) -> Row:
    side = one_of(trade.get("side"), "side", _TRADE_SIDES)
    return (
        name_text(trade.get("product_id"), "product_id"),
        whole(trade.get("trade_id"), "trade_id", text=True),
        tally.number(trade, "price"),
        tally.number(trade, "size"),
        side,
        _OPPOSITE[side],
        time_ns(trade.get("time"), "time"),
        is_snapshot,
    )


def _trades(event: dict[str, Any], channel: str, tally: Tally) -> list[Row]:
    tally.look(channel, event, _known("type trades"))
    is_snapshot = one_of(event.get("type"), "event type", _EVENT_TYPES)
    rows = []
    for trade in dicts(event.get("trades"), "trades"):
        tally.look(f"{channel}.trades", trade, _known("product_id trade_id price size side time"))
        rows.append(_trade(trade, is_snapshot, tally))
    return sorted(rows, key=lambda row: row[1])  # within an event, by trade_id


def _ticker_row(ticker: dict[str, Any], keys: tuple[str | None, ...], tally: Tally) -> Row:
    product_id = name_text(ticker.get("product_id"), "product_id")
    price = tally.number(ticker, "price")
    rest = (key and tally.number(ticker, key, signed="percent" in key, optional=True) for key in keys)
    return product_id, price, *rest


def _tickers(event: dict[str, Any], channel: str, tally: Tally) -> list[Row]:
    tally.look(channel, event, _known("type tickers"))
    kind = event.get("type")
    if kind is not None and type(kind) is not str:
        raise NotUnderstood("bad text", f"type={kind!r}")
    rows = []
    for ticker in dicts(event.get("tickers"), "tickers"):
        tally.look(f"{channel}.tickers", ticker, _known("type product_id price " + " ".join(_TICKER)))
        rows.append(_ticker_row(ticker, _TICKER, tally))
    return rows


def _candles(event: dict[str, Any], channel: str, tally: Tally) -> list[Row]:
    tally.look(channel, event, _known("type candles"))
    rows = []
    for candle in dicts(event.get("candles"), "candles"):
        tally.look(f"{channel}.candles", candle, _known("product_id start open high low close volume"))
        start = whole(candle.get("start"), "start", text=True) * 10**9
        if start >= 2**63:
            raise NotUnderstood("bad time", f"start={candle['start']!r}")
        values = (tally.number(candle, key) for key in ("open", "high", "low", "close", "volume"))
        rows.append((name_text(candle.get("product_id"), "product_id"), start, *values))
    return rows


def _heartbeats(event: dict[str, Any], channel: str, tally: Tally) -> list[Row]:
    tally.look(channel, event, _known("type current_time heartbeat_counter"))
    return [(None, _text(event, "current_time"), _counter(event.get("heartbeat_counter")), None)]


def _counter(value: Any) -> int | None:
    """Read a counter of any form: what is no whole number is null."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 30:
        value = int(value)
    return value if type(value) is int and 0 <= value < 2**63 else None


_STATUS_KEYS: Final = _known(
    "id product_type base_currency quote_currency base_increment quote_increment display_name status"
    " status_message min_market_funds"
)


def _products(products: Any, where: str, tally: Tally) -> list[Row]:
    rows: list[Row] = []
    for product in dicts(products, "products"):
        tally.look(where, product, _STATUS_KEYS)
        for key in (
            "product_type",
            "base_currency",
            "quote_currency",
            "display_name",
            "status",
            "status_message",
        ):
            if not isinstance(product.get(key), str | None):
                raise NotUnderstood("bad text", f"{key}={product[key]!r}")
        rows.append(
            (
                name_text(product.get("id"), "id"),
                *(product.get(key) for key in ("product_type", "base_currency", "quote_currency")),
                tally.number(product, "base_increment", optional=True),
                tally.number(product, "quote_increment", optional=True),
                *(product.get(key) for key in ("display_name", "status", "status_message")),
                tally.number(product, "min_market_funds", optional=True),
            )
        )
    return rows


def _status(event: dict[str, Any], channel: str, tally: Tally) -> list[Row]:
    tally.look(channel, event, _known("type products"))
    return _products(event.get("products"), f"{channel}.products", tally)


def _subscription(channel: Any, product_ids: Any) -> Row:
    if type(product_ids) is not list or not all(type(item) is str for item in product_ids):
        raise NotUnderstood("not a list of texts", "product_ids")
    return name_text(channel, "channel"), product_ids


def _subscriptions(event: dict[str, Any], channel: str, tally: Tally) -> list[Row]:
    tally.look(channel, event, _known("type subscriptions"))
    found = event.get("subscriptions")
    if type(found) is not dict:
        raise NotUnderstood("not an object", "subscriptions")
    return [_subscription(name, product_ids) for name, product_ids in found.items()]


_ADVANCED: Final[dict[str, tuple[str, Callable[..., list[Row]]]]] = {
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


# --- the Exchange feed: flat messages, no counter


def _exchange(frame: dict[str, Any], tally: Tally) -> Frame:
    kind = frame["type"]
    table, read, keys = one_of(kind, "type", _EXCHANGE)
    tally.look("frame", frame, keys)
    server_time = time_ns(frame.get("time"), "time")
    return Frame(table, None, server_time, None, read(frame, server_time, tally), tally)


def _changes(value: Any, name: str, width: int) -> list[list[Any]]:
    if type(value) is list and all(type(item) is list and len(item) == width for item in value):
        return value
    raise NotUnderstood("bad list", name)


def _exchange_snapshot(frame: dict[str, Any], time: int | None, tally: Tally) -> list[Row]:
    product_id = name_text(frame.get("product_id"), "product_id")
    rows = [
        (product_id, True, side, tally.plain(price, "price"), tally.plain(size, "size"), time)
        for side, key in (("bid", "bids"), ("ask", "asks"))
        for price, size in _changes(frame.get(key), key, 2)
    ]
    if not rows:
        tally.cleared.append(product_id)
    return rows


def _exchange_update(frame: dict[str, Any], time: int | None, tally: Tally) -> list[Row]:
    product_id = name_text(frame.get("product_id"), "product_id")
    return [
        (
            product_id,
            False,
            one_of(side, "side", _EXCHANGE_SIDES),
            tally.plain(price, "price"),
            tally.plain(size, "size"),
            time,
        )
        for side, price, size in _changes(frame.get("changes"), "changes", 3)
    ]


def _exchange_match(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    return [_trade(frame, frame["type"] == "last_match", tally)]


def _exchange_ticker(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    return [_ticker_row(frame, _EXCHANGE_TICKER, tally)]


def _exchange_heartbeat(frame: dict[str, Any], _: int | None, __: Tally) -> list[Row]:
    product_id = name_text(frame.get("product_id"), "product_id")
    return [(product_id, _text(frame, "time"), None, _counter(frame.get("last_trade_id")))]


def _exchange_status(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    return _products(frame.get("products"), "status.products", tally)


def _exchange_subscriptions(frame: dict[str, Any], _: int | None, tally: Tally) -> list[Row]:
    rows = []
    for channel in dicts(frame.get("channels"), "channels"):
        tally.look("subscriptions.channels", channel, _known("name product_ids"))
        rows.append(_subscription(channel.get("name"), channel.get("product_ids")))
    return rows


_MATCH: Final = _known("type trade_id maker_order_id taker_order_id side size price product_id sequence time")
_EXCHANGE: Final[dict[str, tuple[str, Callable[..., list[Row]], frozenset[str]]]] = {
    "snapshot": ("level2", _exchange_snapshot, _known("type product_id bids asks time")),
    "l2update": ("level2", _exchange_update, _known("type product_id time changes")),
    "match": ("market_trades", _exchange_match, _MATCH),
    "last_match": ("market_trades", _exchange_match, _MATCH),
    "ticker": (
        "ticker",
        _exchange_ticker,
        _known(
            "type sequence product_id price open_24h volume_24h low_24h high_24h volume_30d best_bid"
            " best_bid_size best_ask best_ask_size side time trade_id last_size"
        ),
    ),
    "heartbeat": ("heartbeats", _exchange_heartbeat, _known("type sequence last_trade_id product_id time")),
    "status": ("status", _exchange_status, _known("type products currencies time")),
    "subscriptions": ("subscriptions", _exchange_subscriptions, _known("type channels time")),
}
