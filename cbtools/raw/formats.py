"""Formats of lines that are not messages of the feed, as other recorders write, and how to convert them.

A reason of the kind `KIND` names the format. It is a guess by the line's first bytes and, where it is JSON,
by what it holds. A cut or glued line of a usual recording is none, nor is a run of NULs, as crashes leave.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

from cbtools.raw.values import NotUnderstood

KIND: Final = "another format"
NO_FRAME: Final = "no channel and no type"

_FROM_2012, _TO_2100 = 1_325_376_000, 4_102_444_800
_HEAD: Final = 256
_TAIL: Final = 64
"""What is looked at of a line's beginning and its end: a line may have megabytes."""
_MOST: Final = 1 << 16
"""A longer line is not parsed again to see whether it is an item of an array."""
_MOST_TOLD: Final = 600

_MORE: Final = "unexpected content after document"
"""What orjson says where something follows a whole JSON value."""
_EXPECTED: Final = "cbtools reads the messages as they came, one JSON object a line"
_TIMED: Final = (
    "a time before the JSON, as cryptofeed, tardis and hftbacktest write; make it capture_ts: "
    r"""sed -E 's/^([^{]*[^{[:space:]:,])[:,]?[[:space:]]*(\{.*)$/{"capture_ts":"\1","data":\2}/'"""
)
_ARRAY: Final = "a JSON array of frames; give each a line: jq -c '.[]'"
_LINES_OF_ARRAY: Final = "a JSON array, an item a line; leave out the commas: jq -c '.[]'"
_SEVERAL_LINES: Final = "JSON over several lines; give each frame a line: jq -c ., or of an array jq -c '.[]'"
_SEVERAL: Final = "JSON objects one after another, without newlines; give each a line: jq -c ."
_PAIR: Final = (
    "a JSON array of a time and a frame; make it an object: jq -c '{capture_ts: .[%d], data: .[%d]}'"
)
_HTML: Final = f"an HTML page; {_EXPECTED}"
_ROUNDED: Final = " (jq 1.7 or later: older ones round it)"
_PYTHON: Final = (
    "a dict as Python prints it; write JSON: "
    """python -c 'import ast, json, sys; [print(json.dumps(ast.literal_eval(l))) for l in sys.stdin]'"""
)
_UTF_16: Final = "UTF-16; write UTF-8: iconv -f UTF-16 -t UTF-8"
_CSV: Final = f"CSV, or the like; {_EXPECTED} (Tardis' CSV files are read by cbtools.read_tardis)"
_BINARY: Final = f"binary data; {_EXPECTED}, plain or compressed by gzip or zstd"
_TEXT: Final = f"text that is not JSON; {_EXPECTED}"
GENERAL: Final = (_BINARY, _TEXT)
"""Formats of which less is known than of the others."""

_TIME_FIRST: Final = re.compile(
    rb"(?:[0-9]{9,19}(?:\.[0-9]{1,9})?"
    rb"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)"
    rb"(?::?[ \t]+|,[ \t]*)\{"
)
_NUMBER: Final = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,19})?", re.ASCII)
_PYTHON_KEY: Final = re.compile(rb"\{\s*'")
_INDENTED: Final = re.compile(rb'[ \t]{2,}["\[\]{}]|\[\r?$')
_CONTROL: Final = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")
_UTF_16_STARTS: Final = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{\x00")
_PACKED: Final = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "a file compressed by xz",
    b"BZh": "a file compressed by bzip2",
    b"\x04\x22\x4d\x18": "a file compressed by lz4",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}
_TABLES: Final = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy file",
}
_MAGIC: Final = {
    **{
        start: f"{what}; unpack it, or compress it by gzip or zstd instead" for start, what in _PACKED.items()
    },
    **{start: f"{what}; {_EXPECTED}" for start, what in _TABLES.items()},
}


def not_json(raw: bytes, error: orjson.JSONDecodeError) -> NotUnderstood:
    """Return why a line that is not JSON was rejected.

    Parameters
    ----------
    raw : bytes
        The line, without its newline.
    error : orjson.JSONDecodeError
        What the parser says.

    Returns
    -------
    NotUnderstood
        With the apparent format, or else with the parser's words.

    Examples
    --------
    >>> try:
    ...     orjson.loads(b'{"type":"heartbeat"}{"type":"heartbeat"}')
    ... except orjson.JSONDecodeError as error:
    ...     print(not_json(b'{"type":"heartbeat"}{"type":"heartbeat"}', error))
    glued records: two on a line
    """
    if raw.startswith(b"{"):
        objects = _objects(raw, error)
        if objects == 2:
            return NotUnderstood("glued records", "two on a line")
        found = _SEVERAL if objects else _of_object(raw)
    else:
        found = _of_bytes(raw)
    if found is None and "UTF-8" in error.msg:  # whose words name no place
        try:
            raw.decode()
        except UnicodeDecodeError as of_bytes:
            return NotUnderstood("not JSON", f"not UTF-8 from byte {of_bytes.start} on")
    return NotUnderstood("not JSON", error) if found is None else _other(found)


def no_object(value: Any) -> NotUnderstood:
    """Return why a line that is JSON, but not an object, was rejected."""
    if type(value) is list and len(value) == 2:
        for time, frame in ((0, 1), (1, 0)):
            if _is_time(value[time]) and _is_frame(value[frame]):
                return _other(_PAIR % (time, frame) + _rounded(value[time]))
    first = value[0] if type(value) is list and value else None
    if type(first) is dict:
        inner = first.get("data")
        if _is_frame(first) or _is_frame(inner):
            return _other(_ARRAY)
    return NotUnderstood("not an object")


def no_frame(line: dict[str, Any], reason: str) -> NotUnderstood:
    """Return why an object that is not a frame was rejected: a frame may be in one of its members."""
    for key, value in line.items():
        if key == "metadata":  # of the envelope: it may name the channel
            continue
        if _is_frame(value):
            return _other(_wrapped(line, key, _path(key)))
        if type(value) is str and value.startswith("{") and _names_a_frame(value[:_HEAD]):
            return _other(_wrapped(line, key, f"({_path(key)}|fromjson)"))
    return NotUnderstood(reason)


def _other(found: str) -> NotUnderstood:
    return NotUnderstood(KIND, found, most=_MOST_TOLD)


def _is_frame(value: Any) -> bool:
    return type(value) is dict and ("channel" in value or "type" in value)


def _names_a_frame(text: str) -> bool:
    return '"channel"' in text or '"type"' in text


def _wrapped(line: dict[str, Any], key: str, data: str) -> str:
    """Describe a frame in a member of an object, and by which filter of jq it becomes a line of ours."""
    names = [name for name, value in line.items() if name != key and _is_time(value)]
    capture_ts = f"capture_ts: {_path(names[0])}, " if names else ""
    what = "a frame" if data == _path(key) else "a frame as text"
    rounded = _rounded(line[names[0]]) if names else ""
    return f"{what} in the member {key!r}; rename it: jq -c '{{{capture_ts}data: {data}}}'{rounded}"


def _rounded(time: Any) -> str:
    """Return what must be known of a time that a double cannot hold."""
    return _ROUNDED if type(time) is int and time > 2**53 else ""


def _is_time(value: Any) -> bool:
    """Return whether a value is a time; a number is one from 2012 to 2100, in s, ms, us or ns."""
    if type(value) is str and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) is str:
        return _TIME_FIRST.fullmatch(value[:_HEAD].encode("utf-8", "replace") + b" {") is not None
    is_number = type(value) is int or type(value) is float
    return is_number and any(_FROM_2012 <= value / unit <= _TO_2100 for unit in (1, 10**3, 10**6, 10**9))


def _path(key: str) -> str:
    return f".{key}" if key.isascii() and key.isidentifier() else f".[{json.dumps(key)}]"


def _objects(raw: bytes, error: orjson.JSONDecodeError) -> int:
    """Count whole JSON objects on a line: 0 if one is not whole, or something else follows; at most 3."""
    for n in (1, 2):
        if not error.msg.startswith(_MORE):
            return 0
        raw = raw[error.pos :] if raw.isascii() else raw.decode()[error.pos :].encode()
        if raw[:_HEAD].lstrip()[:1] != b"{":
            return 0
        try:
            orjson.loads(raw)
        except orjson.JSONDecodeError as of_rest:
            error = of_rest
        else:
            return n + 1
    return 3 if error.msg.startswith(_MORE) else 0


def _of_object(raw: bytes) -> str | None:
    """Return what a line is that begins like an object."""
    if _PYTHON_KEY.match(raw[:_HEAD]):
        return _PYTHON
    if raw.startswith(b"{\x00"):
        return _UTF_16
    line = raw.rstrip(b" \t\r")
    if line.endswith(b"},") and len(line) <= _MOST:
        try:
            orjson.loads(line[:-1])
        except orjson.JSONDecodeError:
            return None
        return _LINES_OF_ARRAY
    return None


def _of_bytes(raw: bytes) -> str | None:
    """Return what a line is that does not begin like an object."""
    head, ends = raw[:_HEAD], raw[:_HEAD] + raw[-_TAIL:]
    for start, what in _MAGIC.items():
        if head.startswith(start):
            return what
    if _TIME_FIRST.match(head):
        return _TIMED
    if head.startswith(_UTF_16_STARTS):
        return _UTF_16
    if len(_CONTROL.findall(head)) > 2:
        return _BINARY
    if _INDENTED.match(head):
        return _SEVERAL_LINES
    if head[:_TAIL].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return _HTML
    if any(mark in ends for mark in (b"{", b"}", b"[", b"]", b'":', b"\x00")):  # may be cut out of a frame
        return None
    text = head.strip()
    if max(text.count(mark) for mark in (b",", b";", b"\t")) > 1:
        return _CSV
    return _TEXT if b" " in text and b'"' not in ends else None
