"""Any line → rows, or a reason why not: the definition of right, by orjson.

The wire's names die here and in the modules of the two feeds. A line is understood as a whole or not at all.
What a row holds is in the order of its table's columns in `cbtools.schema`, without those of the frame.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

import orjson

from cbtools.raw.advanced import EVENT_READERS, advanced_frame, number_of
from cbtools.raw.exchange import exchange_frame
from cbtools.raw.formats import NO_FRAME, no_frame, no_object, not_json
from cbtools.raw.rows import Frame, Tally, known, text_of
from cbtools.raw.sequence import ADVANCED, NO_FEED
from cbtools.raw.values import NotUnderstood, receipt_ns, time_ns
from cbtools.schema import CHANNELS

ERROR_CHANNELS: Final = ("error", "errors")

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:]')
_MINUS_ZERO: Final = re.compile(rb"[:,\[\s]-0[\s,}\]]")


def channel_codes() -> dict[str, int]:
    """Return the code of each channel by its name on the wire: the place of its table in `CHANNELS`."""
    tables = {name: table for name, (table, _) in EVENT_READERS.items()}
    tables |= dict.fromkeys(ERROR_CHANNELS, "errors")
    return {name: CHANNELS.index(table) for name, table in tables.items()}


def decode_line(raw: bytes) -> Frame:
    """Decode one line, without its newline.

    Raises
    ------
    NotUnderstood
        With the reason, as it goes into the rejects.
    """
    tally = Tally()
    return decode_object(parse_line(raw, tally), tally)


def decode_object(line: dict[str, Any], tally: Tally) -> Frame:
    """Decode a line that was parsed; raises as `decode_line` does."""
    capture_time = None
    frame = line
    if "data" in line:
        tally.look("envelope", line, known("capture_ts data metadata"))
        capture_time = receipt_ns(line.get("capture_ts"), "capture_ts", tally.unusual)
        metadata = line.get("metadata")
        if type(metadata) is dict:
            tally.look("metadata", metadata, known("source channel"))
        frame = line["data"]
        if type(frame) is not dict:
            raise no_frame(line, "data is not an object")
    if frame.get("type") == "error" or frame.get("channel") in ERROR_CHANNELS:
        decoded = _error(frame, tally)
    elif "channel" in frame:
        decoded = advanced_frame(frame, tally)
    elif "type" in frame:
        decoded = exchange_frame(frame, tally)
    else:
        raise no_frame(line, NO_FRAME)
    decoded.capture_time = capture_time
    return decoded


def parse_line(raw: bytes, tally: Tally) -> dict[str, Any]:
    """Parse a line as one JSON object without duplicate keys."""
    if raw.endswith(b"\r"):
        raw = raw[:-1]  # counted with the lines of the kernel
    if raw.startswith(BYTE_ORDER_MARK):
        tally.unusual["byte order mark"] += 1
        raw = raw.removeprefix(BYTE_ORDER_MARK)
    if not raw.strip(b" \t\r\n"):
        raise NotUnderstood("blank line")
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise not_json(raw, error) from None
    if type(parsed) is not dict:
        raise no_object(parsed)
    try:  # a line that orjson writes again letter for letter has neither of what orjson passes over
        if _dense(orjson.dumps(parsed)) == _dense(raw):
            return parsed
    except orjson.JSONEncodeError:  # nested deeper than it writes
        pass
    _check_keys(raw)
    if _MINUS_ZERO.search(raw):  # orjson forgets the sign
        try:
            return cast(dict[str, Any], json.loads(raw, parse_int=_integer))
        except RecursionError:
            raise NotUnderstood("not JSON", "nested too deeply") from None
    return parsed


def _dense(text: bytes) -> bytes:
    """Return a text without its blanks."""
    return text.translate(None, b" \t")


def _check_keys(raw: bytes) -> None:
    """Refuse duplicate keys, of which orjson keeps the last; the line is JSON, and as deep as it may be."""
    objects: list[set[str]] = []
    previous = b""
    for token in _TOKEN.findall(raw):
        if token in b"{[":
            objects.append(set())
        elif token in b"}]":
            objects.pop()
        elif token == b":":
            key = orjson.loads(previous)
            if key in objects[-1]:
                raise NotUnderstood("duplicate key", repr(key))
            objects[-1].add(key)
        previous = token


def _integer(text: str) -> float:
    """Read a JSON integer as orjson does, but for the sign of -0: what no 64 bits hold is a float."""
    whole = int(text) if len(text) < 30 else None
    if text == "-0" or whole is None or not -(2**63) <= whole < 2**64:
        return float(text)
    return whole


def _error(frame: dict[str, Any], tally: Tally) -> Frame:
    tally.look("frame", frame, known("type channel client_id timestamp sequence_num events message reason"))
    number, server_time = number_of(frame), time_ns(frame.get("timestamp"), "timestamp")
    feed = ADVANCED if "channel" in frame or number is not None else NO_FEED
    row = text_of(frame, "message"), text_of(frame, "reason")
    return Frame(feed, "errors", number, server_time, None, [row], tally)
