"""Lines of other formats: what the reason calls them, and that its advice makes them readable."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import orjson
import polars as pl
import pytest
import tiers
import wire

import cbtools as cb
from cbtools.raw import formats
from cbtools.raw.decode import decode_line
from cbtools.raw.values import NotUnderstood

FRAME = wire.change(1)
LINE = wire.line(FRAME)
RECORD = wire.record(FRAME)
ACCENTS = wire.line(FRAME | {"client_id": "é" * 40})
BIG = wire.line(wire.l2(1, wire.book("BTC-USD", *[wire.update("bid", "1", "2")] * 3000)))


def reason(raw: bytes) -> str:
    with pytest.raises(NotUnderstood) as caught:
        decode_line(raw)
    return str(caught.value)


def parquet() -> bytes:
    pl.DataFrame({"a": [1]}).write_parquet(file := io.BytesIO())
    return file.getvalue()


def zipped() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("a.ndjson", RECORD)
    return file.getvalue()


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"1772687167123456789 " + LINE, "a time before the JSON"),
        (b"1772687167123456 " + LINE, "a time before the JSON"),
        (b"1772687167123\t" + LINE, "a time before the JSON"),
        (b"1772687167.123456: " + LINE, "a time before the JSON"),
        (b"2026-03-05T05:06:07.1234567Z " + LINE, "a time before the JSON"),
        (b"2026-03-05 05:06:07+00:00 " + BIG, "a time before the JSON"),
        (b"1772687167123456789 " + LINE[:-20], "a time before the JSON"),
        (b"[" + LINE + b"," + LINE + b"]", "a JSON array of frames"),
        (b"[" + RECORD + b"]", "a JSON array of frames"),
        (b"[", "JSON over several lines"),
        (LINE + b",", "a JSON array, an item a line"),
        (b'  "channel": "l2_data",', "JSON over several lines"),
        (b"    {", "JSON over several lines"),
        (LINE * 3, "JSON objects one after another"),
        (ACCENTS * 4, "JSON objects one after another"),
        (LINE + b"  " + LINE + b" " + LINE[:-5] + b"]" * 9, "not JSON: unexpected"),
        (BIG * 3, "JSON objects one after another"),
        (repr(FRAME).encode(), "a dict as Python prints it"),
        (b"timestamp,side,price,size", "CSV"),
        (b"1772687167123;buy;100.5;0.5\r", "CSV"),
        (b"coinbase\tBTC-USD\t100", "CSV"),
        (parquet().split(b"\n")[0], "a Parquet file"),
        (zipped().split(b"\n")[0], "a zip archive"),
        (b"\xfd7zXZ\x00\x00\x04", "a file compressed by xz"),
        ("\ufeff{}".encode("utf-16-le"), "UTF-16"),
        (b"{\x00" + "}".encode("utf-16-le"), "UTF-16"),
        (b'\x00{\x00"\x00c\x00h\x00', "UTF-16"),
        (bytes(byte for byte in range(256) if byte != 10), "binary data"),
        (b"Traceback (most recent call last):", "text that is not JSON"),
        ("Verbindung verloren – neu verbunden".encode(), "text that is not JSON"),
    ],
)
def test_the_format_is_named(raw, named):
    told = reason(raw)
    kind = "" if named.startswith("not JSON") else f"{formats.KIND}: "
    assert told.startswith(kind + named)
    assert len(told) < formats._MOST_TOLD


@tiers.parametrize(
    ("raw", "expected"),
    [
        (RECORD[:-40], "not JSON"),
        (RECORD[: RECORD.index(b"},") + 2], "not JSON"),
        (BIG[: BIG.rindex(b"},") + 2], "not JSON"),
        (RECORD[40:], "not JSON"),
        (RECORD[-12:], "not JSON"),
        (b'"price_level":"99.5","new_quantity":"7"', "not JSON"),
        (b"2026-03-04T05:06:07.089101Z", "not JSON"),
        (RECORD[:-40] + RECORD, "not JSON"),
        (RECORD + RECORD[:-40], "not JSON"),
        (RECORD + RECORD, "glued records"),
        (RECORD + b" " + RECORD, "glued records"),
        (ACCENTS + RECORD, "glued records"),
        (ACCENTS + ACCENTS, "glued records"),
        (RECORD + b"}", "not JSON"),
        (RECORD + b"\x00\x00", "not JSON"),
        (b"\x00" * 4096, "not JSON"),
        (b"\x00" * 40 + RECORD, "not JSON"),
        (RECORD[:50] + b"\xff\xc3(" + RECORD[50:], "not JSON"),
        (b"\xff\xc3(" + RECORD[50:], "not JSON"),
        (b"{", "not JSON"),
        (b"12", "not an object"),
        (b'"hello"', "not an object"),
        (b"null", "not an object"),
        (b"[1,2]", "not an object"),
        (b"[]", "not an object"),
        (b'[{"a":1}]', "not an object"),
        (b'{"data":null,"metadata":{"source":"coinbase","channel":"l2_data"}}', "data is not an object"),
        (b'{"data":{},"metadata":{"source":"coinbase","channel":"l2_data"}}', "no channel and no type"),
        (b'{"price":"1","name":"a {brace}"}', "no channel and no type"),
        (b"?", "not JSON"),
    ],
    every=2,
)
def test_what_a_crash_leaves_is_no_format(raw, expected):
    assert reason(raw).partition(":")[0] == expected


def test_no_cut_of_a_record_is_a_format():
    for k in range(1, len(RECORD)):
        for raw in (RECORD[:k], RECORD[k:]):
            assert reason(raw).partition(":")[0] in ("not JSON", "not an object"), raw


@pytest.mark.parametrize(
    ("line", "jq"),
    [
        ({"ts": 1772687167123, "msg": FRAME}, "{capture_ts: .ts, data: .msg}"),
        ({"msg": FRAME, "recv": "2026-03-05T05:06:07Z"}, "{capture_ts: .recv, data: .msg}"),
        ({"n": 5, "msg": FRAME}, "{data: .msg}"),
        ({"conn": 1234567890, "ts": 1772687167.5, "msg": FRAME}, "{capture_ts: .ts, data: .msg}"),
        ({"seq": 100_000_001, "at": 1772687167, "msg": FRAME}, "{capture_ts: .at, data: .msg}"),
        ({"seq": "100000001", "msg": FRAME}, "{data: .msg}"),
        ({"t s": 1772687167.5, "pay-load": FRAME}, '{capture_ts: .["t s"], data: .["pay-load"]}'),
        ({"ts": "1772687167", "raw": LINE.decode()}, "{capture_ts: .ts, data: (.raw|fromjson)}"),
        (
            {"capture_ts": 1772687167, "data": LINE.decode()},
            "{capture_ts: .capture_ts, data: (.data|fromjson)}",
        ),
    ],
)
def test_a_frame_in_a_member_is_found(line, jq):
    told = reason(orjson.dumps(line))
    assert told.startswith("another format: a frame ")
    assert told.endswith(f"rename it: jq -c '{jq}'")


def test_a_pair_of_a_time_and_a_frame():
    for pair, jq in (
        ([1772687167.5, FRAME], ".[0], data: .[1]"),
        ([FRAME, "1772687167"], ".[1], data: .[0]"),
    ):
        told = reason(orjson.dumps(pair))
        assert told.startswith("another format: a JSON array of a time and a frame; ")
        assert told.endswith(f"jq -c '{{capture_ts: {jq}}}'")
    assert reason(orjson.dumps([5, FRAME])) == "not an object"


def test_older_jq_round_nanoseconds():
    for line in ({"ts": 1772687167123456789, "msg": FRAME}, [1772687167123456789, FRAME]):
        assert reason(orjson.dumps(line)).endswith("' (jq 1.7 or later: older ones round it)")


def test_a_page_of_html():
    assert reason(b"<!DOCTYPE html><title>502</title>").startswith("another format: an HTML page; ")


def test_bytes_that_are_not_utf_8():
    assert reason(b'{"type":"heartbeat","x":"\xff"}') == "not JSON: not UTF-8 from byte 25 on"


def test_what_it_advises_can_be_read():
    pattern, replacement = re.search(r"sed -E 's/(.*)/(\{.*\})/'", formats._TIMED).groups()
    for time in ("1772687167123456789 ", "1772687167123  ", "1772687167.5: ", "2026-03-05 05:06:07.5Z\t"):
        line = re.sub(pattern.replace("[:space:]", r"\s"), replacement, time + LINE.decode())
        frame = decode_line(line.encode())
        assert frame.table == "level2"
        assert frame.capture_time // 10**9 == 1772687167


def test_a_long_line_is_looked_at_in_part(monkeypatch):
    """No pattern sees more than the ends of a line."""
    seen: list[int] = []

    class Watched:
        def __init__(self, pattern: re.Pattern[bytes]) -> None:
            self.pattern = pattern

        def match(self, text: bytes) -> Any:
            seen.append(len(text))
            return self.pattern.match(text)

        def findall(self, text: bytes) -> Any:
            seen.append(len(text))
            return self.pattern.findall(text)

    for name, value in vars(formats).copy().items():
        if isinstance(value, re.Pattern):
            monkeypatch.setattr(formats, name, Watched(value))
    for raw in (b"x" * 5_000_000, b"," * 5_000_000, b"{" + b" " * 5_000_000 + b"'", b"\x01" * 5_000_000):
        reason(raw)
    assert len(seen) >= 8
    assert max(seen) <= formats._HEAD


def test_the_report_counts_them_as_one_kind(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(
        wire.segment(wire.change(0), b"1772687167 " + LINE, repr(FRAME).encode(), wire.change(1))
    )
    raw = cb.read_raw(path)
    assert raw.report.rejects == {"another format": 2}
    assert raw.report.no_recording == {}
    assert raw.level2.height == 2
