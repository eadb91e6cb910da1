"""What the bytes of a recording mean, written to be read: the judge of the package's decoder.

Plain `json`, `datetime` and integers; it knows nothing of the package, and it is slow. `decode` takes the
decompressed segments of one input in order and gives every table as a list of rows.

A line passes three stations: `read_line` (bytes → JSON value), `understand` (JSON value → `Frame`: the line's
rows, or `Illegal`), `Stream` (sequence, feeds, connections, unbroken runs, duplicates). A line that is
rejected still passes the third if anything can be read of its header (`header_of`): that of a usual header
(`outline`) whatever the bytes after it are, otherwise that of its JSON value.

Besides level changes, level2 holds *markers*: rows without side, price, size and event_time, so that the
table alone says what became of every book.

- With is_snapshot, the book is empty from here: a snapshot without levels, in the place of its event. Before
  the second snapshot of a product in a frame such a row stands too, so that it is seen to replace the first.
- Without is_snapshot, the product's run of rows is broken here: something may be missing before this line.
  Such rows stand before all other rows of the line that shows the break, sorted by product. There is one for
  every product whose run breaks and that has had level2 rows, unless its last row is one already.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
LARGEST_SEQUENCE_NUM = 2**53
LONGEST_LINE = 256 * 2**20
KEPT_OF_A_LONGER_LINE = 4096
DEEPEST = 1024
LONGEST_NAME = 255  # of a file, in bytes
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # what Hive calls the folder of null
REMEMBERED_FRAMES = 1024

TABLES = (
    "level2",
    "market_trades",
    "ticker",
    "ticker_batch",
    "candles",
    "heartbeats",
    "status",
    "subscriptions",
    "errors",
    "gaps",
    "rejects",
)


@dataclass
class Tables:
    """What a recording holds.

    ``markers`` counts the markers of each product, of both kinds; ``unusual`` counts the lines of understood
    frames that are written in an unusual way (a line may count under several kinds).
    """

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {table: [] for table in TABLES})
    markers: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    duplicate_trades: Counter[str] = field(default_factory=Counter)
    unknown_keys: Counter[str] = field(default_factory=Counter)
    unusual: Counter[str] = field(default_factory=Counter)
    connections: int = 0

    def counts(self, table: str) -> Counter[str]:
        """Return the number of rows of each product, as a report counts them: without markers."""
        rows = self.rows[table]
        return Counter(row["product_id"] for row in rows if table != "level2" or not is_marker(row))


class Illegal(Exception):
    """The line is not understood."""


# --- bytes → JSON value


class Number:
    """A JSON number, as its text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        if not isfinite(float(text)):
            raise Illegal("not JSON: a number beyond the largest double")
        self.text = text

    @property
    def whole(self) -> bool:
        """Written as an integer: without a point and without an exponent. Minus nothing is none."""
        return re.fullmatch("-?[0-9]+", self.text) is not None and self.text != "-0"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Illegal("duplicate key")
    return members


def _refuse(literal: str) -> None:
    raise Illegal(f"not JSON: {literal}")


_JSON = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=Number, parse_int=Number, parse_constant=_refuse
)


BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def unmarked(line: bytes) -> tuple[bytes, list[str]]:
    """Return the line without a CR at its end and a byte order mark at its start, and which it had."""
    kinds = []
    if line.endswith(b"\r"):
        kinds.append("CRLF")
        line = line.removesuffix(b"\r")
    if line.startswith(BYTE_ORDER_MARK):
        kinds.append("byte order mark")
        line = line.removeprefix(BYTE_ORDER_MARK)
    return line, kinds


def read_line(line: bytes) -> Any:
    """Read one line (`unmarked`) as one strict JSON value."""
    if not line.strip(b" \t\r"):
        raise Illegal("blank")
    try:
        text = line.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise Illegal("not UTF-8") from error
    deep = text.count("[") + text.count("{") > 500 and nesting(text)
    if deep > DEEPEST:
        raise Illegal("not JSON: nested too deep")
    limit = sys.getrecursionlimit()
    try:
        if deep > 500:
            sys.setrecursionlimit(limit + 4 * DEEPEST)
        value = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise Illegal("not JSON") from error
    finally:
        sys.setrecursionlimit(limit)
    if "\\u" in text and has_lone_surrogate(value):
        raise Illegal("not JSON: half of a surrogate pair")
    return value


def nesting(text: str) -> int:
    """How deep the brackets outside of texts are nested."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[{\]}]", re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def has_lone_surrogate(value: Any) -> bool:
    """Whether a text or a key anywhere in the value holds half of a surrogate pair."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            if any("\ud800" <= letter <= "\udfff" for letter in one):
                return True
        elif isinstance(one, list):
            todo.extend(one)
        elif isinstance(one, dict):
            todo.extend(one.keys())
            todo.extend(one.values())
    return False


# --- values

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_CLOCK = r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
_TIME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T" + _CLOCK + r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))")


def number(value: Any, *, signed: bool = False) -> float:
    """Read a legal number; ``signed`` allows one leading minus."""
    text = value.text if isinstance(value, Number) else value
    if not isinstance(text, str):
        raise Illegal("not a number")
    if not _NUMBER.fullmatch(text.removeprefix("-") if signed else text):
        raise Illegal(f"not a number: {text}")
    if not isfinite(float(text)):
        raise Illegal(f"not finite: {text}")
    return float(text)


def optional_number(value: Any, *, signed: bool = False) -> float | None:
    return None if value is None or value == "" else number(value, signed=signed)


@lru_cache(maxsize=100_000)
def _nanoseconds(text: str) -> int | None:
    found = _TIME.fullmatch(text)
    if not found:
        raise Illegal(f"not a time: {text}")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, zone_hour, zone_minute = found.groups()[6:]
    nanos = int((fraction or "").ljust(9, "0"))
    offset = 0 if sign is None else int(zone_hour) * 60 + int(zone_minute)
    if hour > 23 or minute > 59 or second > 59 or (sign and (int(zone_hour) > 23 or int(zone_minute) > 59)):
        raise Illegal(f"not a time: {text}")
    try:
        days = date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError as error:
        raise Illegal(f"not a date: {text}") from error
    midnight = hour == minute == second == nanos == offset == 0
    if midnight and (year, month, day) in ((1970, 1, 1), (1, 1, 1)):
        return None
    minutes = (days * 24 + hour) * 60 + minute - (-offset if sign == "-" else offset)
    total = (minutes * 60 + second) * 1_000_000_000 + nanos
    if not INT64_MIN <= total <= INT64_MAX:
        raise Illegal(f"a time out of range: {text}")
    return total


def time(value: Any) -> int | None:
    """Read a legal time, in ns since the epoch; null for the two times that say "no time"."""
    if not isinstance(value, str):
        raise Illegal("a time that is no text")
    return _nanoseconds(value)


def optional_time(value: Any) -> int | None:
    return None if value is None else time(value)


_CAPTURE_TS = re.compile(r"([0-9-]{10})([T ])(" + _CLOCK + r")(Z|[+-][0-9]{2}:?[0-9]{2}|)")


def capture_time(value: Any) -> tuple[int | None, list[str]]:
    """Read an envelope's capture_ts: also in the ways in which other recorders write it, which it names."""
    if value is None:
        return None, []
    if isinstance(value, Number) or (isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value)):
        return _epoch(value), ["capture_ts as an epoch"]
    found = _CAPTURE_TS.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise Illegal("not a capture_ts")
    day, between, clock, zone = found[1], found[2], found[3], found[8]
    kinds = []
    if between == " ":
        kinds.append("capture_ts with a space")
    if zone == "":
        kinds.append("capture_ts without a zone")
        zone = "Z"
    elif zone != "Z" and ":" not in zone:
        kinds.append("capture_ts with an offset like +0000")
        zone = zone[:3] + ":" + zone[3:]
    return time(f"{day}T{clock}{zone}"), kinds


def _epoch(value: Number | str) -> int | None:
    """Read a number of s, ms, us or ns since the epoch, whichever its size says; 0 is no time."""
    since = _exact(value)
    if since < 0:
        raise Illegal("an epoch below 0")
    if since == 0:
        return None
    if since < 10**11:
        nanoseconds = 10**9
    elif since < 10**14:
        nanoseconds = 10**6
    elif since < 10**17:
        nanoseconds = 10**3
    else:
        nanoseconds = 1
    total = int(since * nanoseconds)  # what is below a nanosecond is cut off
    if total > INT64_MAX:
        raise Illegal("an epoch out of range")
    return total


def _exact(value: Number | str) -> Fraction:
    """Return the number that is meant: of a JSON float the shortest decimal that gives the same double."""
    text = value.text if isinstance(value, Number) else value
    if isinstance(value, Number) and re.search("[.eE]", text):
        if not isfinite(float(text)):
            raise Illegal("an epoch out of range")
        return Fraction(repr(float(text)))
    whole_part, _, fraction = text.partition(".")
    digits = whole_part.removeprefix("-").lstrip("0")
    if len(digits) > 19:  # more than `int` may read, perhaps
        raise Illegal("an epoch out of range")
    below = Fraction(int(fraction[:1000] or "0"), 10 ** len(fraction[:1000]))
    return (int(digits or "0") + below) * (-1 if whole_part.startswith("-") else 1)


def product(value: Any) -> str:
    """Read a product's id: a text that a folder of a dataset can be named by."""
    if not isinstance(value, str) or value == "":
        raise Illegal("no product_id")
    if value == NO_PARTITION or len("product_id=" + quote(value, safe="")) > LONGEST_NAME:
        raise Illegal("a product_id that no folder can be named by")
    return value


def optional_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Illegal("not a text")
    return value


def optional_side(value: Any) -> str | None:
    return None if value is None or value == "" else one_of(value, TRADE_SIDE)


def trade_number(value: Any) -> int:
    """Read a JSON integer from 0 to the largest int64, or a text of 1 to 19 digits that is one."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value) and int(value) <= INT64_MAX:
        return int(value)
    return whole_number(value)


def optional_trade_number(value: Any) -> int | None:
    return None if value is None else trade_number(value)


def sequence_number(value: Any) -> int | None:
    """Read a frame's number: none, or a JSON integer up to 2**53."""
    number = None if value is None else whole_number(value)
    if number is not None and number > LARGEST_SEQUENCE_NUM:
        raise Illegal("a sequence_num above 2**53")
    return number


def int64(text: str) -> int | None:
    """Read a text of digits, with or without a minus; None where it does not fit into 64 bits."""
    digits = text.removeprefix("-").lstrip("0")
    if len(digits) > 19:
        return None
    value = int(digits or "0") * (-1 if text.startswith("-") else 1)
    return value if INT64_MIN <= value <= INT64_MAX else None


def whole(value: Any) -> str | None:
    """Give the text of a JSON integer of either sign, or of a text of digits; None for anything else."""
    if isinstance(value, Number):
        return value.text if value.whole else None
    return value if isinstance(value, str) and re.fullmatch("[0-9]+", value) else None


def whole_number(value: Any) -> int:
    """Read a JSON integer from 0 to the largest int64."""
    fits = int64(value.text) if isinstance(value, Number) and value.whole else None
    if fits is None or fits < 0:
        raise Illegal("not a whole number")
    return fits


def counter(value: Any) -> int | None:
    """Read a heartbeat's counter: null if it is no int64."""
    text = whole(value)
    return None if text is None else int64(text)


def unix_seconds(value: Any) -> int:
    """Read a candle's start, in ns."""
    text = whole(value)
    seconds = None if text is None else int64(text)
    if seconds is None or not 0 <= seconds * 1_000_000_000 <= INT64_MAX:
        raise Illegal("a start that is no number of seconds, or out of range")
    return seconds * 1_000_000_000


def json_text(value: Any) -> str:
    """Write the value as compact JSON, its numbers as any writer would."""
    if isinstance(value, Number):
        return value.text if value.whole else json.dumps(float(value.text))
    if isinstance(value, dict):
        return "{" + ",".join(json_text(key) + ":" + json_text(one) for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def any_text(value: Any) -> str | None:
    """Give a text as it is, and anything else as its JSON text."""
    if value is None or isinstance(value, str):
        return value
    text = json_text(value)
    if nesting(text) > 254:
        raise Illegal("nested too deep")
    return text


def one_of(value: Any, meaning: dict[str, str]) -> str:
    if not isinstance(value, str) or value not in meaning:
        raise Illegal(f"not one of {', '.join(meaning)}")
    return meaning[value]


def objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Illegal("not a list of objects")
    return value


def texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Illegal("not a list of texts")
    return value


def tuples(value: Any, length: int) -> list[list[Any]]:
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == length for one in value):
        raise Illegal(f"not a list of lists of {length}")
    return value


BOOK_SIDE = {"bid": "bid", "offer": "ask", "ask": "ask"}
CHANGE_SIDE = {"buy": "bid", "sell": "ask"}
TRADE_SIDE = {"BUY": "buy", "SELL": "sell", "buy": "buy", "sell": "sell"}
OPPOSITE = {"buy": "sell", "sell": "buy"}
EVENT_TYPE = {"snapshot": "snapshot", "update": "update"}
ADVANCED_TICKER = {
    "volume_24h": "volume_24_h",
    "low_24h": "low_24_h",
    "high_24h": "high_24_h",
    "low_52w": "low_52_w",
    "high_52w": "high_52_w",
    "price_pct_chg_24h": "price_percent_chg_24_h",
    "best_bid": "best_bid",
    "best_bid_size": "best_bid_quantity",
    "best_ask": "best_ask",
    "best_ask_size": "best_ask_quantity",
}
EXCHANGE_TICKER = {
    "volume_24h": "volume_24h",
    "low_24h": "low_24h",
    "high_24h": "high_24h",
    "low_52w": None,
    "high_52w": None,
    "price_pct_chg_24h": None,
    "best_bid": "best_bid",
    "best_bid_size": "best_bid_size",
    "best_ask": "best_ask",
    "best_ask_size": "best_ask_size",
}

# --- JSON value → frame


@dataclass
class Frame:
    """One line that was understood. ``rows`` are without the columns that tell of the frame.

    ``feed`` is "advanced" or "exchange", or None of a frame that does not show its feed.
    """

    table: str
    rows: list[dict[str, Any]]
    sequence_num: int | None
    server_time: int | None
    feed: str | None
    capture_time: int | None = None
    unknown_keys: Unknown = field(default_factory=lambda: Unknown())
    unusual: list[str] = field(default_factory=list)

    @property
    def is_level2(self) -> bool:
        return self.table == "level2"


class Unknown(Counter[str]):
    """Counts the keys nobody knows."""

    def look(self, where: str, members: dict[str, Any], known: str) -> None:
        self.update(f"{where}.{key}" for key in members if key not in known.split())


def understand(value: Any) -> Frame:
    """Turn a line's JSON value into a frame."""
    if not isinstance(value, dict):
        raise Illegal("not an object")
    unknown = Unknown()
    captured, unusual = None, []
    data = value
    if "data" in value:
        unknown.look("envelope", value, "capture_ts data metadata")
        data = value["data"]
        if not isinstance(data, dict):
            raise Illegal("data is not an object")
        captured, unusual = capture_time(value.get("capture_ts"))
        if isinstance(value.get("metadata"), dict):
            unknown.look("metadata", value["metadata"], "source channel")
    if data.get("type") == "error" or data.get("channel") in ("error", "errors"):
        frame = _error(data, unknown)
    elif "channel" in data:
        frame = _advanced(data, unknown)
    elif "type" in data:
        frame = _exchange(data, unknown)
    else:
        raise Illegal("neither channel nor type")
    frame.capture_time = captured
    frame.unusual = unusual
    frame.unknown_keys = unknown
    return frame


def _error(data: dict[str, Any], unknown: Unknown) -> Frame:
    unknown.look("frame", data, "type channel client_id timestamp sequence_num events message reason")
    row = {"message": any_text(data.get("message")), "reason": any_text(data.get("reason"))}
    sequence_num = sequence_number(data.get("sequence_num"))
    feed = "advanced" if "channel" in data or sequence_num is not None else None
    return Frame("errors", [row], sequence_num, optional_time(data.get("timestamp")), feed)


def _advanced(data: dict[str, Any], unknown: Unknown) -> Frame:
    unknown.look("frame", data, "channel client_id timestamp sequence_num events")
    channel = data["channel"]
    if not isinstance(channel, str) or channel not in ADVANCED:
        raise Illegal("unknown channel")
    sequence_num = sequence_number(data.get("sequence_num"))
    server_time = optional_time(data.get("timestamp"))
    table, read_event = ADVANCED[channel]
    no_events = "events" in data and data["events"] is None
    rows: list[dict[str, Any]] = []
    for event in [] if no_events else objects(data.get("events")):
        of_event = read_event(event, channel, unknown)
        if table == "level2" and is_another_snapshot(of_event, rows):
            rows.append(marker(of_event[0]["product_id"], is_snapshot=True))
        rows += of_event
    return Frame(table, rows, sequence_num, server_time, "advanced")


def marker(product_id: str, *, is_snapshot: bool) -> dict[str, Any]:
    nothing = dict.fromkeys(("side", "price", "size", "event_time"))
    return {"product_id": product_id, "is_snapshot": is_snapshot, **nothing}


def is_marker(row: dict[str, Any]) -> bool:
    return row["side"] is None


def is_another_snapshot(of_event: list[dict[str, Any]], before: list[dict[str, Any]]) -> bool:
    """Return whether an event's rows are the levels of a snapshot, and one of its product is before them."""
    if not of_event or not of_event[0]["is_snapshot"] or is_marker(of_event[0]):
        return False
    return any(row["is_snapshot"] and row["product_id"] == of_event[0]["product_id"] for row in before)


def _level2_event(event: dict[str, Any], channel: str, unknown: Unknown) -> list[dict[str, Any]]:
    unknown.look(channel, event, "type product_id updates")
    is_snapshot = one_of(event.get("type"), EVENT_TYPE) == "snapshot"
    product_id = product(event.get("product_id"))
    rows = []
    for update in objects(event.get("updates")):
        unknown.look(f"{channel}.updates", update, "side event_time price_level new_quantity")
        rows.append(
            {
                "product_id": product_id,
                "is_snapshot": is_snapshot,
                "side": one_of(update.get("side"), BOOK_SIDE),
                "price": number(update.get("price_level")),
                "size": number(update.get("new_quantity")),
                "event_time": optional_time(update.get("event_time")),
            }
        )
    return [marker(product_id, is_snapshot=True)] if is_snapshot and not rows else rows


def _trade(one: dict[str, Any], *, is_snapshot: bool) -> dict[str, Any]:
    maker_side = one_of(one.get("side"), TRADE_SIDE)
    return {
        "product_id": product(one.get("product_id")),
        "trade_id": trade_number(one.get("trade_id")),
        "price": number(one.get("price")),
        "size": number(one.get("size")),
        "maker_side": maker_side,
        "aggressor_side": OPPOSITE[maker_side],
        "trade_time": optional_time(one.get("time")),
        "is_snapshot": is_snapshot,
        "maker_order_id": None,
        "taker_order_id": None,
        "sequence": None,
    }


def _trades_event(event: dict[str, Any], channel: str, unknown: Unknown) -> list[dict[str, Any]]:
    unknown.look(channel, event, "type trades")
    is_snapshot = one_of(event.get("type"), EVENT_TYPE) == "snapshot"
    rows = []
    for one in objects(event.get("trades")):
        unknown.look(f"{channel}.trades", one, "product_id trade_id price size side time")
        rows.append(_trade(one, is_snapshot=is_snapshot))
    return sorted(rows, key=lambda row: row["trade_id"])


def _ticker_row(one: dict[str, Any], names: dict[str, str | None]) -> dict[str, Any]:
    row = {"product_id": product(one.get("product_id")), "price": number(one.get("price"))}
    for column, name in names.items():
        signed = column == "price_pct_chg_24h"
        row[column] = None if name is None else optional_number(one.get(name), signed=signed)
    of_exchange = ("open_24h", "volume_30d", "last_size", "side", "trade_id", "sequence")
    return row | dict.fromkeys(of_exchange)


def _ticker_event(event: dict[str, Any], channel: str, unknown: Unknown) -> list[dict[str, Any]]:
    unknown.look(channel, event, "type tickers")
    optional_text(event.get("type"))
    rows = []
    for one in objects(event.get("tickers")):
        unknown.look(f"{channel}.tickers", one, "type product_id price " + " ".join(ADVANCED_TICKER.values()))
        rows.append(_ticker_row(one, ADVANCED_TICKER))
    return rows


def _candles_event(event: dict[str, Any], channel: str, unknown: Unknown) -> list[dict[str, Any]]:
    unknown.look(channel, event, "type candles")
    rows = []
    for one in objects(event.get("candles")):
        unknown.look(f"{channel}.candles", one, "product_id start open high low close volume")
        row = {"product_id": product(one.get("product_id")), "start": unix_seconds(one.get("start"))}
        row |= {name: number(one.get(name)) for name in ("open", "high", "low", "close", "volume")}
        rows.append(row)
    return rows


def _heartbeats_event(event: dict[str, Any], channel: str, unknown: Unknown) -> list[dict[str, Any]]:
    unknown.look(channel, event, "type current_time heartbeat_counter")
    return [
        {
            "product_id": None,
            "current_time": any_text(event.get("current_time")),
            "heartbeat_counter": counter(event.get("heartbeat_counter")),
            "last_trade_id": None,
        }
    ]


_STATUS_TEXTS = "product_type base_currency quote_currency display_name status status_message"
_STATUS_NUMBERS = "base_increment quote_increment min_market_funds"


def _status_rows(products: Any, where: str, unknown: Unknown) -> list[dict[str, Any]]:
    rows = []
    for one in objects(products):
        unknown.look(where, one, f"id {_STATUS_TEXTS} {_STATUS_NUMBERS}")
        row: dict[str, Any] = {"product_id": product(one.get("id"))}
        row |= {name: optional_text(one.get(name)) for name in _STATUS_TEXTS.split()}
        row |= {name: optional_number(one.get(name)) for name in _STATUS_NUMBERS.split()}
        rows.append(row)
    return rows


def _status_event(event: dict[str, Any], channel: str, unknown: Unknown) -> list[dict[str, Any]]:
    unknown.look(channel, event, "type products")
    return _status_rows(event.get("products"), f"{channel}.products", unknown)


def _subscriptions_event(event: dict[str, Any], channel: str, unknown: Unknown) -> list[dict[str, Any]]:
    unknown.look(channel, event, "type subscriptions")
    if not isinstance(event.get("subscriptions"), dict):
        raise Illegal("no subscriptions")
    return [{"channel": name, "product_ids": texts(ids)} for name, ids in event["subscriptions"].items()]


ADVANCED = {
    "l2_data": ("level2", _level2_event),
    "level2": ("level2", _level2_event),
    "market_trades": ("market_trades", _trades_event),
    "ticker": ("ticker", _ticker_event),
    "ticker_batch": ("ticker_batch", _ticker_event),
    "candles": ("candles", _candles_event),
    "heartbeats": ("heartbeats", _heartbeats_event),
    "status": ("status", _status_event),
    "subscriptions": ("subscriptions", _subscriptions_event),
}


def _exchange(data: dict[str, Any], unknown: Unknown) -> Frame:
    kind = data["type"]
    if not isinstance(kind, str) or kind not in EXCHANGE:
        raise Illegal("unknown type")
    table, known, read_rows = EXCHANGE[kind]
    unknown.look("frame", data, f"type {known}")
    server_time = optional_time(data.get("time")) if "time" in known.split() else None
    return Frame(table, read_rows(data, server_time, unknown), None, server_time, "exchange")


def _exchange_snapshot(data: dict[str, Any], _: int | None, unknown: Unknown) -> list[dict[str, Any]]:
    product_id = product(data.get("product_id"))
    event_time = optional_time(data.get("time"))
    rows = [
        {
            "product_id": product_id,
            "is_snapshot": True,
            "side": side,
            "price": number(price),
            "size": number(size),
            "event_time": event_time,
        }
        for side, levels in (("bid", data.get("bids")), ("ask", data.get("asks")))
        for price, size in tuples(levels, 2)
    ]
    return rows or [marker(product_id, is_snapshot=True)]


def _exchange_update(data: dict[str, Any], server_time: int | None, unknown: Unknown) -> list[dict[str, Any]]:
    product_id = product(data.get("product_id"))
    return [
        {
            "product_id": product_id,
            "is_snapshot": False,
            "side": one_of(side, CHANGE_SIDE),
            "price": number(price),
            "size": number(size),
            "event_time": server_time,
        }
        for side, price, size in tuples(data.get("changes"), 3)
    ]


def _exchange_match(data: dict[str, Any], _: int | None, unknown: Unknown) -> list[dict[str, Any]]:
    order_ids = {name: optional_text(data.get(name)) for name in ("maker_order_id", "taker_order_id")}
    sequence = optional_trade_number(data.get("sequence"))
    return [_trade(data, is_snapshot=data["type"] == "last_match") | order_ids | {"sequence": sequence}]


def _exchange_ticker(data: dict[str, Any], _: int | None, unknown: Unknown) -> list[dict[str, Any]]:
    row = _ticker_row(data, EXCHANGE_TICKER)
    row |= {name: optional_number(data.get(name)) for name in ("open_24h", "volume_30d", "last_size")}
    row |= {name: optional_trade_number(data.get(name)) for name in ("trade_id", "sequence")}
    return [row | {"side": optional_side(data.get("side"))}]


def _exchange_heartbeat(data: dict[str, Any], _: int | None, unknown: Unknown) -> list[dict[str, Any]]:
    last = counter(data.get("last_trade_id"))
    return [
        {
            "product_id": product(data.get("product_id")),
            "current_time": data.get("time"),
            "heartbeat_counter": None,
            "last_trade_id": None if last is None or last < 0 else last,
        }
    ]


def _exchange_status(data: dict[str, Any], _: int | None, unknown: Unknown) -> list[dict[str, Any]]:
    return _status_rows(data.get("products"), "status.products", unknown)


def _exchange_subscriptions(data: dict[str, Any], _: int | None, unknown: Unknown) -> list[dict[str, Any]]:
    rows = []
    for one in objects(data.get("channels")):
        unknown.look("subscriptions.channels", one, "name product_ids")
        if not isinstance(one.get("name"), str):
            raise Illegal("a channel without a name")
        rows.append({"channel": one["name"], "product_ids": texts(one.get("product_ids"))})
    return rows


_MATCH_KEYS = "trade_id side size price product_id time maker_order_id taker_order_id sequence"
_TICKER_KEYS = (
    "product_id price volume_24h low_24h high_24h best_bid best_bid_size best_ask best_ask_size "
    "open_24h volume_30d side trade_id last_size sequence time"
)
EXCHANGE = {
    "snapshot": ("level2", "product_id bids asks time", _exchange_snapshot),
    "l2update": ("level2", "product_id changes time", _exchange_update),
    "match": ("market_trades", _MATCH_KEYS, _exchange_match),
    "last_match": ("market_trades", _MATCH_KEYS, _exchange_match),
    "ticker": ("ticker", _TICKER_KEYS, _exchange_ticker),
    "heartbeat": ("heartbeats", "product_id last_trade_id time sequence", _exchange_heartbeat),
    "status": ("status", "products currencies", _exchange_status),
    "subscriptions": ("subscriptions", "channels", _exchange_subscriptions),
}

# --- the header of a line that is not understood


@dataclass
class Header:
    """What can be read of a rejected line.

    ``is_level2``: it has, or may have, held changes of books: those of ``products``, which is None when they
    are not known (it may be any). ``feed`` is that of a `Frame`.
    """

    sequence_num: int | None
    server_time: int | None
    capture_time: int | None
    is_level2: bool
    products: list[str] | None
    feed: str | None


def header_of(line: bytes, value: Any) -> Header | None:
    """Read what can be read of a rejected line: of its bytes, else of its JSON value.

    ``value`` is None where the line is not legal JSON. None is returned where nothing can be read.
    """
    data = value.get("data", value) if isinstance(value, dict) else None
    data = data if isinstance(data, dict) else None
    usual = outline(line.removesuffix(b"\r"))
    if usual is not None:
        return header_of_outline(usual, data)
    if data is None:
        return None
    number = unless_illegal(sequence_number, data.get("sequence_num"))
    sent_by_client = data.get("type") in ("subscribe", "unsubscribe")
    if "channel" in data:
        is_level2, is_known = data["channel"] in LEVEL2_CHANNELS, data["channel"] in KNOWN_CHANNELS
    else:
        is_level2, is_known = data.get("type") in ("snapshot", "l2update"), data.get("type") in KNOWN_TYPES
    is_level2 = not sent_by_client and (is_level2 or (not is_known and holds_level2(data)))
    feed = None
    if number is not None or (isinstance(data.get("channel"), str) and not sent_by_client):
        feed = "advanced"
    elif is_level2:
        feed = "exchange"
    is_advanced = "channel" in data or data.get("type") == "error"
    captured = unless_illegal(capture_time, value.get("capture_ts")) if "data" in value else None
    return Header(
        sequence_num=number,
        server_time=unless_illegal(optional_time, data.get("timestamp" if is_advanced else "time")),
        capture_time=None if captured is None else captured[0],
        is_level2=is_level2,
        products=lost_products(data) if is_level2 else [],
        feed=feed,
    )


def header_of_outline(usual: Outline, data: dict[str, Any] | None) -> Header:
    """Return the header of a line with a usual one; ``data`` is None where its JSON value says nothing."""
    is_level2 = usual.channel in LEVEL2_CHANNELS
    products = usual.products
    if data is not None:
        is_damaged = usual.channel not in KNOWN_CHANNELS and data.get("type") not in (
            "subscribe",
            "unsubscribe",
        )
        is_level2 = is_level2 or (is_damaged and holds_level2(data))
        products = lost_products(data) if products is None else products
    return Header(
        sequence_num=usual.sequence_num,
        server_time=usual.server_time,
        capture_time=usual.capture_time,
        is_level2=is_level2,
        products=products if is_level2 else [],
        feed="advanced",
    )


LEVEL2_CHANNELS = ("l2_data", "level2")
KNOWN_TYPES = (
    *(
        "snapshot",
        "l2update",
        "match",
        "last_match",
        "ticker",
        "heartbeat",
        "status",
        "subscriptions",
        "error",
    ),
    *("received", "open", "done", "change", "activate", "auction", "rfq_match"),
)
KNOWN_CHANNELS = (*ADVANCED, "error", "errors")


def unless_illegal(read: Callable[[Any], T], value: Any) -> T | None:
    try:
        return read(value)
    except Illegal:
        return None


def holds_level2(data: dict[str, Any]) -> bool:
    """Return whether the content is that of level2, whatever the channel or type: a name may be damaged."""
    if not {"changes", "bids", "asks"}.isdisjoint(data):
        return True
    events = data.get("events")
    return isinstance(events, list) and any(isinstance(one, dict) and "updates" in one for one in events)


def lost_products(data: dict[str, Any]) -> list[str] | None:
    """Return the products whose changes a rejected level2 line has held; None when they are not known."""
    bearers = [data]
    if "channel" in data or "events" in data:
        if not isinstance(data.get("events"), list):
            return None
        bearers = data["events"]
    names = [one.get("product_id") if isinstance(one, dict) else None for one in bearers]
    return names if all(isinstance(name, str) and name for name in names) else None


@dataclass
class Outline:
    """A usual header, and the products of the structure after it; None when they cannot be told."""

    channel: str
    sequence_num: int
    server_time: int | None
    capture_time: int | None
    products: list[str] | None


class Unreadable(Exception):
    """The bytes do not go on as asked."""


class Cursor:
    """Reads tokens from the left; spaces and tabs may stand before each."""

    PLAIN = re.compile(rb'"([\x20-\x21\x23-\x5b\x5d-\x7e]*)"')
    DIGITS = re.compile(rb"(0|[1-9][0-9]{0,17})(?![0-9])")

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.at = 0

    def skip_space(self) -> None:
        while self.line[self.at : self.at + 1] in (b" ", b"\t"):
            self.at += 1

    def has(self, token: bytes) -> bool:
        """Take the token if it comes next."""
        self.skip_space()
        found = self.line.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def take(self, *tokens: bytes) -> None:
        for token in tokens:
            if not self.has(token):
                raise Unreadable

    def match(self, pattern: re.Pattern[bytes]) -> str:
        self.skip_space()
        found = pattern.match(self.line, self.at)
        if not found:
            raise Unreadable
        self.at = found.end()
        return found[1].decode("ascii")

    def text(self) -> str:
        return self.match(self.PLAIN)

    def digits(self) -> int:
        return int(self.match(self.DIGITS))


def outlined_time(text: str) -> int | None:
    """Read a time of a header: of those that a line may have only the usual, in UTC and of 1970 to 2199."""
    if not text.endswith(("Z", "+00:00")) or not "1970" <= text[:4] <= "2199":
        raise Unreadable
    return time(text)


def outlined_receipt(cursor: Cursor) -> int | None:
    """Read the capture_ts of a header: in UTC, or an epoch of plain digits that is not 0."""
    cursor.skip_space()
    if cursor.line[cursor.at : cursor.at + 1] != b'"':
        number = cursor.match(re.compile(rb"([0-9]+(?:\.[0-9]+)?)(?![0-9.eE])"))
        return outlined_epoch(number, Number(number))
    text = cursor.text()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return outlined_epoch(text, text)
    found = re.fullmatch(r"(.{10})[T ](.*?)(Z|\+00:?00|)", text)
    if not found:
        raise Unreadable
    return outlined_time(f"{found[1]}T{found[2]}Z")


def outlined_epoch(text: str, value: Number | str) -> int | None:
    whole = text.split(".")[0]
    if text[0] == "0" or len(whole) > 19 or len(text) - len(whole) > 101:
        raise Unreadable
    return _epoch(value)


def outline(line: bytes) -> Outline | None:
    """Read the usual header of a rejected line, and its products; None when it has none.

    The header is used whatever follows it, also if the rest of the line is damaged.
    """
    cursor = Cursor(line)
    captured = None
    enveloped = False
    try:
        cursor.take(b"{")
        if cursor.has(b'"capture_ts"'):
            enveloped = True
            cursor.take(b":")
            captured = outlined_receipt(cursor)
            cursor.take(b",", b'"data"', b":", b"{")
        header: dict[str, Any] = {}
        while (name := cursor.text()) != "events":
            if name not in ("channel", "client_id", "timestamp", "sequence_num") or name in header:
                raise Unreadable
            cursor.take(b":")
            header[name] = cursor.digits() if name == "sequence_num" else cursor.text()
            cursor.take(b",")
        cursor.take(b":", b"[")
        if not {"channel", "timestamp", "sequence_num"} <= header.keys():
            raise Unreadable
        if header["sequence_num"] > LARGEST_SEQUENCE_NUM:
            raise Unreadable
        server_time = outlined_time(header["timestamp"])
    except (Unreadable, Illegal):
        return None
    try:
        products = _outlined_products(cursor, enveloped=enveloped)
    except Unreadable:
        products = None
    return Outline(header["channel"], header["sequence_num"], server_time, captured, products)


def _outlined_products(cursor: Cursor, *, enveloped: bool) -> list[str]:
    """Read the products of the events to the end of the line; the cursor stands behind ``"events":[``."""
    products = []
    if not cursor.has(b"]"):
        while True:
            cursor.take(b"{")
            head: dict[str, str] = {}
            while (name := cursor.text()) != "updates":
                if name not in ("type", "product_id") or name in head:
                    raise Unreadable
                cursor.take(b":")
                head[name] = cursor.text()
                cursor.take(b",")
            cursor.take(b":", b"[")
            if len(head) < 2 or not 1 <= len(head["product_id"]) <= 24:
                raise Unreadable
            products.append(head["product_id"])
            end = cursor.line.find(b"]", cursor.at)
            skipped = cursor.line[cursor.at : end]
            if end < 0 or b"\\" in skipped or skipped.count(b'"') % 2:
                raise Unreadable
            cursor.at = end
            cursor.take(b"]", b"}")
            if cursor.has(b"]"):
                break
            cursor.take(b",")
    cursor.take(b"}")
    if enveloped:
        if cursor.has(b","):
            _outlined_metadata(cursor)
        cursor.take(b"}")
    cursor.skip_space()
    if cursor.at != len(cursor.line):
        raise Unreadable
    return products


def _outlined_metadata(cursor: Cursor) -> None:
    cursor.take(b'"metadata"', b":", b"{")
    if cursor.has(b"}"):
        return
    seen: set[str] = set()
    while True:
        name = cursor.text()
        if name not in ("source", "channel") or name in seen:
            raise Unreadable
        seen.add(name)
        cursor.take(b":")
        cursor.text()
        if cursor.has(b"}"):
            return
        cursor.take(b",")


# --- the stream: sequence, feeds, connections, unbroken runs, duplicates

_VALUE_OF_CAPTURE_TS = re.compile(rb'"capture_ts"[ \t]*:[ \t]*("[^"]*"|[^,}]*)')


def content_of(line: bytes) -> bytes:
    """Return the bytes of a line without the value of its capture_ts."""
    found = _VALUE_OF_CAPTURE_TS.search(line)
    return line[: found.start(1)] + line[found.end(1) :] if found else line


class Stream:
    """The state that runs from line to line, over all segments."""

    def __init__(self, longest_line: int = LONGEST_LINE) -> None:
        self.longest_line = longest_line
        self.tables = Tables()
        self.started = False
        self.last: int | None = None
        self.feed: str | None = None  # the latest that is known
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED_FRAMES)
        self.connection_products: set[str] = set()
        self.pending = False
        self.run = 0
        self.product_runs: dict[str, int] = {}
        self.unmarked: set[str] = set()  # products whose last level2 row is not the marker of a break
        self.broken: set[str] = set()  # those of them whose runs the present line has broken
        self.sent: int | None = None  # the latest server_time of the connection, or of the one before
        self.segment_index = -1
        self.seen_trades: set[tuple[str, int]] = set()

    def start_segment(self) -> None:
        self.segment_index += 1
        self.seen_trades = set()

    def add(self, table: str, row: dict[str, Any]) -> None:
        self.tables.rows[table].append({**row, "segment_index": self.segment_index})

    def add_level2(self, row: dict[str, Any], place: dict[str, Any]) -> None:
        product_id = row["product_id"]
        self.add("level2", {**row, **place, "unbroken_since": self.product_runs.get(product_id, self.run)})
        if is_marker(row):
            self.tables.markers[product_id] += 1

    # -- names of unbroken runs

    # A product's run is named by the time of the break, but always later than that product's run before. Each
    # product has its own history of breaks; one that has had none of its own has the history of all.

    def next_name(self, name: int, frame: Frame | Header) -> int:
        when = frame.server_time if frame.capture_time is None else frame.capture_time
        return min(name + 1 if when is None else max(when, name + 1), INT64_MAX)

    def break_all(self, frame: Frame | Header) -> None:
        self.broken |= self.unmarked
        self.run = self.next_name(self.run, frame)
        self.product_runs = {p: self.next_name(name, frame) for p, name in self.product_runs.items()}

    def break_products(self, products: list[str], frame: Frame | Header) -> None:
        self.broken |= self.unmarked & set(products)
        for product_id in dict.fromkeys(products):
            name = self.product_runs.get(product_id, self.run)
            self.product_runs[product_id] = self.next_name(name, frame)

    def mark_breaks(self, place: dict[str, Any]) -> None:
        """Write the markers of what the present line has broken; they name the runs that begin here."""
        if self.sent is not None:  # so that they sort behind the rows before them
            sent = place["server_time"]
            place = {**place, "server_time": self.sent + 1 if sent is None else max(sent, self.sent)}
        for product_id in sorted(self.broken):
            self.add_level2(marker(product_id, is_snapshot=False), place)
        self.unmarked -= self.broken
        self.broken = set()

    def start(self, frame: Frame | Header) -> None:
        when = frame.server_time if frame.capture_time is None else frame.capture_time
        self.run = 0 if when is None else when
        self.started = True
        self.pending = False
        self.tables.connections = 1

    # -- sequence

    def gap(self, expected: int, frame: Frame | Header, line: int, products: set[str]) -> None:
        self.add(
            "gaps",
            {
                "stream": None,
                "connection": self.tables.connections,
                "expected": expected,
                "got": frame.sequence_num,
                "capture_time": frame.capture_time,
                "line": line,
                "products": sorted(products),
            },
        )

    def new_connection(self, frame: Frame | Header) -> None:
        self.tables.connections += 1
        self.connection_products = set()
        self.recent.clear()
        self.sent = self.sent if frame.server_time is None else frame.server_time

    def follow_feed(self, frame: Frame | Header) -> None:
        """Begin a new connection where the frame is of another feed than the latest that is known."""
        if frame.feed is None:
            return
        if self.feed not in (None, frame.feed):
            self.new_connection(frame)
            self.last = None
            self.break_all(frame)
            self.pending = False
        self.feed = frame.feed

    def is_repeat(self, frame: Frame | Header, content: bytes, line: int) -> bool:
        """Count the frame in; True for an exact repeat, which changes nothing."""
        if frame.feed is None:  # an error frame without a number
            return False
        if not self.started:
            self.start(frame)
        self.follow_feed(frame)
        number = frame.sequence_num
        if number is None:
            if self.pending and (frame.is_level2 or self.last is None):
                self.break_all(frame)
                self.pending = False
            return False
        key = (number, content)
        if self.last is None:
            if self.pending:
                self.break_all(frame)
        elif number == self.last + 1:
            pass
        elif number > self.last + 1:
            self.gap(self.last + 1, frame, line, self.connection_products)
            self.break_all(frame)
        elif frame.server_time is not None and key in self.recent:
            return True
        else:
            self.new_connection(frame)
            if number > 0:
                self.gap(0, frame, line, set())
            self.break_all(frame)
        self.pending = False
        self.last = number
        self.recent.append(key)
        return False

    # -- lines

    def note_sent(self, frame: Frame | Header) -> None:
        if frame.server_time is not None and frame.feed is not None:
            self.sent = frame.server_time if self.sent is None else max(self.sent, frame.server_time)

    def place(self, frame: Frame | Header, line: int) -> dict[str, Any]:
        """Return what every row of a line tells of it."""
        return {
            "server_time": frame.server_time,
            "capture_time": frame.capture_time,
            "sequence_num": frame.sequence_num,
            "stream": None,
            "connection": max(1, self.tables.connections),
            "line": line,
        }

    def take_line(self, raw: bytes, line: int, byte_offset: int) -> None:
        if len(raw) > self.longest_line:
            self.take_longer(raw, line, byte_offset)
            return
        value = None
        try:
            text, unusual = unmarked(raw)
            value = read_line(text)
            frame = understand(value)
        except Illegal as reason:
            self.reject(raw, len(raw), line, byte_offset, str(reason))
            self.take_header(header_of(raw, value), content_of(raw), line)
        else:
            frame.unusual += unusual
            self.take_frame(frame, content_of(raw), line)

    def take_longer(self, raw: bytes, line: int, byte_offset: int) -> None:
        """Take a line that is too long to be read: only its first bytes are."""
        kept = raw[:KEPT_OF_A_LONGER_LINE]
        self.reject(kept, len(raw), line, byte_offset, "too long")
        usual = outline(kept)
        if usual is not None:
            usual.products = None
        header = None if usual is None else header_of_outline(usual, None)
        self.take_header(header, content_of(kept), line)

    def reject(self, raw: bytes, size: int, line: int, byte_offset: int, reason: str) -> None:
        row = {"line": line, "byte_offset": byte_offset, "size": size, "stream": None}
        self.add("rejects", row | {"reason": reason, "raw": raw})

    def take_header(self, header: Header | None, content: bytes, line: int) -> None:
        """Take what is known of a rejected line; None: something may have been lost with it."""
        if header is None:
            self.pending = True
            return
        if header.feed is None:  # of neither feed's books, and of neither's counter
            return
        if self.is_repeat(header, content, line):
            return
        if header.is_level2:
            if header.products is None:
                self.break_all(header)
            else:
                self.break_products(header.products, header)
        self.mark_breaks(self.place(header, line))
        self.note_sent(header)

    def take_frame(self, frame: Frame, content: bytes, line: int) -> None:
        if self.is_repeat(frame, content, line):
            self.tables.duplicates += 1
            return
        self.tables.unknown_keys.update(frame.unknown_keys)
        self.tables.unusual.update(frame.unusual)
        place = self.place(frame, line)
        self.mark_breaks(place)
        self.note_sent(frame)
        for row in frame.rows:
            product_id = row.get("product_id")
            if frame.table == "market_trades":
                if (product_id, row["trade_id"]) in self.seen_trades:
                    self.tables.duplicate_trades[product_id] += 1
                    continue
                self.seen_trades.add((product_id, row["trade_id"]))
            if frame.table == "level2":
                self.connection_products.add(product_id)
                self.unmarked.add(product_id)
                self.add_level2(row, place)
            else:
                self.add(frame.table, {**row, **place})


def lines_of(segment: bytes) -> list[bytes]:
    """Split at newlines; the last newline ends the last line and starts no new one."""
    lines = segment.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def decode(segments: list[bytes], longest_line: int = LONGEST_LINE) -> Tables:
    """Decode the decompressed segments of one input, in order."""
    stream = Stream(longest_line)
    for segment in segments:
        stream.start_segment()
        byte_offset = 0
        for number_of_line, raw in enumerate(lines_of(segment), start=1):
            stream.take_line(raw, number_of_line, byte_offset)
            byte_offset += len(raw) + 1
    return stream.tables
