"""What other recorders write: CRLF, a byte order mark, capture_ts in any form; read, and counted."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import tiers
import wire

import cbtools as cb
from cbtools.etl import CoinbaseParser, NDJSONReader
from cbtools.raw.decode import BYTE_ORDER_MARK, decode_line
from cbtools.raw.values import NotUnderstood

SECOND = 1_772_687_167
"""2026-03-05T05:06:07Z."""
NS = SECOND * 10**9
TEXT = "2026-03-05T05:06:07"
EPOCH, SPACE = "capture_ts as an epoch", "capture_ts with a space"
OFFSET, NO_ZONE = "capture_ts with an offset like +0000", "capture_ts without a zone"


def received(capture_ts: Any) -> tuple[int | None, dict[str, int]]:
    frame = decode_line(orjson.dumps({"capture_ts": capture_ts, "data": wire.change(1)}))
    return frame.capture_time, dict(frame.tally.unusual)


def read(tmp_path, data: bytes) -> cb.RawTables:
    path = tmp_path / "a.ndjson"
    path.write_bytes(data)
    return cb.read_raw(path)


@pytest.mark.parametrize(
    ("capture_ts", "expected", "kinds"),
    [
        (TEXT + "Z", NS, ()),
        (TEXT + ".000000001+00:00", NS + 1, ()),
        (TEXT, NS, (NO_ZONE,)),
        ("2026-03-05 05:06:07.5", NS + 5 * 10**8, (SPACE, NO_ZONE)),
        ("2026-03-05 05:06:07Z", NS, (SPACE,)),
        ("2026-03-05 06:06:07+01:00", NS, (SPACE,)),
        (TEXT + ".25+0000", NS + 25 * 10**7, (OFFSET,)),
        ("2026-03-05 03:36:07-0130", NS, (SPACE, OFFSET)),
        ("1970-01-01 00:00:00", None, (SPACE, NO_ZONE)),
        (SECOND, NS, (EPOCH,)),
        (SECOND * 1000 + 5, NS + 5 * 10**6, (EPOCH,)),
        (SECOND * 10**6 + 5, NS + 5000, (EPOCH,)),
        (NS + 5, NS + 5, (EPOCH,)),
        (str(NS + 5), NS + 5, (EPOCH,)),
        (f"{SECOND}.123456789987", NS + 123456789, (EPOCH,)),
        (f"{SECOND * 1000}.5", NS + 5 * 10**5, (EPOCH,)),
        (f"{NS}.9", NS, (EPOCH,)),
        (SECOND + 0.123456, NS + 123456000, (EPOCH,)),
        (0.1, 10**8, (EPOCH,)),
        (1e-7, 100, (EPOCH,)),
        (1e-10, 0, (EPOCH,)),
        (10**11, 10**17, (EPOCH,)),
        (10**14, 10**17, (EPOCH,)),
        (10**17, 10**17, (EPOCH,)),
        (2**63 - 1, 2**63 - 1, (EPOCH,)),
        ("0" * 5000 + "1", 10**9, (EPOCH,)),
        (0, None, (EPOCH,)),
        ("0.0", None, (EPOCH,)),
        (-0.0, None, (EPOCH,)),
        (None, None, ()),
    ],
)
def test_a_receipt_in_any_form(capture_ts, expected, kinds):
    assert received(capture_ts) == (expected, dict.fromkeys(kinds, 1))


@tiers.parametrize(
    "capture_ts",
    [
        *(True, False, -1, -0.5, 2**63, 1e19, 1e300, 99_999_999_999, 9_300_000_000),
        *("", "1.", ".5", "1e9", "+1", "-1", "1_000", " 1", "1.5.5", "9" * 5000, str(2**63), "\u0661"),
        *(TEXT + "+00", TEXT + " Z", TEXT + "+24:00", TEXT + "+2400", TEXT + ".", TEXT + ".1234567891"),
        *("2026-02-30 00:00:00", "2026-03-05t05:06:07Z", "2026-03-05  05:06:07", "2026-03-05", [], {}),
    ],
    every=4,
)
def test_what_is_no_receipt_rejects_the_line(capture_ts):
    with pytest.raises(NotUnderstood, match="bad time: capture_ts="):
        received(capture_ts)


def test_times_of_the_exchange_stay_strict():
    for timestamp in (TEXT, TEXT.replace("T", " ") + "Z", TEXT + "+0000", SECOND):
        with pytest.raises(NotUnderstood, match="bad time: timestamp="):
            decode_line(orjson.dumps(wire.change(1) | {"timestamp": timestamp}))


def test_a_line_of_a_windows_recorder(tmp_path):
    lines = [
        BYTE_ORDER_MARK + wire.record(wire.snapshot(0)),
        *map(wire.record, map(wire.change, range(1, 4))),
    ]
    found = read(tmp_path, b"".join(line + b"\r\n" for line in lines))
    plain = read(tmp_path, b"".join(line.removeprefix(BYTE_ORDER_MARK) + b"\n" for line in lines))
    assert found.level2.equals(plain.level2)
    assert not found.report.rejects
    assert found.report.unusual == {"CRLF": 4, "byte order mark": 1}
    assert not plain.report.unusual
    assert dict(found.report.items())["unusual lines"] == "CRLF 4, byte order mark 1"


def test_each_line_may_have_a_mark_and_its_reject_keeps_it(tmp_path):
    bad = BYTE_ORDER_MARK + b"{}\r"
    lines = [wire.record(wire.change(1)), BYTE_ORDER_MARK + wire.record(wire.change(2)), bad]
    lines += [BYTE_ORDER_MARK + b" \r", BYTE_ORDER_MARK * 2 + wire.record(wire.change(3)), b"\r"]
    found = read(tmp_path, b"\n".join(lines))
    assert found.report.unusual == {"byte order mark": 1}
    assert found.rejects["reason"].str.split(":").list.first().to_list() == [
        "no channel and no type",
        "blank line",
        "not JSON",
        "blank line",
    ]
    assert found.rejects["raw"].to_list() == lines[2:]


def test_repeats_are_not_counted(tmp_path):
    line = wire.record(wire.change(1)) + b"\r\n"
    found = read(tmp_path, line * 3)
    assert (found.report.unusual, found.report.duplicates) == ({"CRLF": 1}, 2)


def test_a_trade_id_of_nineteen_digits(tmp_path):
    most = 2**63 - 1
    found = read(tmp_path, wire.segment(wire.trades(1, wire.trade(str(most)), wire.trade("0" * 18 + "7"))))
    assert found.market_trades["trade_id"].to_list() == [7, most]
    for trade_id in (str(most + 1), "0" * 20, "", "1.0", "-1", True):
        with pytest.raises(NotUnderstood, match="bad whole number: trade_id="):
            decode_line(wire.line(wire.trades(1, wire.trade(trade_id))))


def test_the_earlier_package_reads_them(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(BYTE_ORDER_MARK + wire.line(wire.envelope(wire.change(1), capture_ts=SECOND)) + b"\r\n")
    (record,) = NDJSONReader().read(path)
    (row,) = CoinbaseParser().parse_record(record)
    assert row["capture_time"].isoformat() == TEXT + "+00:00"


def test_a_minus_zero_changes_no_other_number():
    """Of the sign, the line is read by another parser than usual."""
    for size in (2**63, 2**64, 10**29, 10**40):
        line = b'{"capture_ts":-0,"data":%s}' % wire.line(wire.change(1, size=size))
        frame = decode_line(line)
        assert (frame.capture_time, frame.rows[0][4]) == (None, float(size))
