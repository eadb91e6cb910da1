"""Pins the oracle itself: rows written by hand from the facts about the feeds."""

import json

import pytest
import wire
from oracles import raw

from cbtools import schema

SERVER = 1_772_600_767_089_101_000  # wire.TIMESTAMP
CAPTURE = 1_772_600_767_123_456_000  # wire.CAPTURE_TS
EVENT = 1_772_600_766_950_001_000  # wire.EVENT_TIME
FRAME = {
    "server_time": SERVER,
    "capture_time": CAPTURE,
    "stream": None,
    "connection": 1,
    "segment_index": 0,
}
BARE = FRAME | {"capture_time": None}


def at(second, nanos=0):
    return f"2026-03-04T05:06:{second:02d}.{nanos:09d}Z"


def at_ns(second, nanos=0):
    return 1_772_600_760_000_000_000 + second * 1_000_000_000 + nanos


BOM = b"\xef\xbb\xbf"


def decode(*lines):
    return raw.decode([wire.segment(*lines)])


def changes(tables):
    """Return the rows of level2 that are level changes."""
    return [row for row in tables.rows["level2"] if not raw.is_marker(row)]


def decode_one(text):
    return raw.decode([text.encode()]).rows


# --- rows of each channel


def test_level2_as_the_recorder_writes_it():
    rows = decode_one(
        '{"capture_ts":"2026-03-04T05:06:07.123456+00:00","data":{"channel":"l2_data","client_id":"",'
        '"timestamp":"2026-03-04T05:06:07.08910112Z","sequence_num":5,"events":[{"type":"snapshot",'
        '"product_id":"BTC-USD","updates":[{"side":"bid","event_time":"1970-01-01T00:00:00Z",'
        '"price_level":"70010.5","new_quantity":"0.25"},{"side":"offer","event_time":'
        '"2026-03-04T05:06:06.950001Z","price_level":"70011","new_quantity":"0.00000000"}]}]},'
        '"metadata":{"source":"coinbase","channel":"l2_data"}}\n'
    )
    frame = FRAME | {"server_time": SERVER + 120, "sequence_num": 5, "line": 1, "unbroken_since": CAPTURE}
    assert rows["level2"] == [
        {
            "product_id": "BTC-USD",
            "is_snapshot": True,
            "side": "bid",
            "price": 70010.5,
            "size": 0.25,
            "event_time": None,
            **frame,
        },
        {
            "product_id": "BTC-USD",
            "is_snapshot": True,
            "side": "ask",
            "price": 70011.0,
            "size": 0.0,
            "event_time": EVENT,
            **frame,
        },
    ]
    assert not rows["gaps"]
    assert not rows["rejects"]


def test_market_trades_are_sorted_and_the_makers_side_is_turned():
    tables = decode(
        wire.record(wire.trades(0, wire.trade("12", side="SELL"), wire.trade("11"), kind="snapshot")),
        wire.record(wire.trades(1, wire.trade("12"), wire.trade("14"))),
    )
    of_exchange = {"maker_order_id": None, "taker_order_id": None, "sequence": None}
    row = {"product_id": "BTC-USD", "price": 100.0, "size": 0.5, "trade_time": EVENT, **of_exchange}
    buy = {"maker_side": "buy", "aggressor_side": "sell"}
    sell = {"maker_side": "sell", "aggressor_side": "buy"}
    first = {"is_snapshot": True, **FRAME, "sequence_num": 0, "line": 1}
    second = {"is_snapshot": False, **FRAME, "sequence_num": 1, "line": 2}
    assert tables.rows["market_trades"] == [
        {**row, "trade_id": 11, **buy, **first},
        {**row, "trade_id": 12, **sell, **first},
        {**row, "trade_id": 14, **buy, **second},
    ]
    assert tables.duplicate_trades == {"BTC-USD": 1}
    assert tables.duplicates == 0


def test_trades_are_told_apart_by_product_and_anew_in_each_segment():
    one = wire.segment(wire.trades(0, wire.trade("7"), wire.trade("7", product_id="ETH-USD")))
    two = wire.segment(wire.trades(1, wire.trade("7")))
    rows = raw.decode([one, two]).rows["market_trades"]
    assert [(row["product_id"], row["trade_id"], row["segment_index"], row["line"]) for row in rows] == [
        ("BTC-USD", 7, 0, 1),
        ("ETH-USD", 7, 0, 1),
        ("BTC-USD", 7, 1, 1),
    ]


def test_ticker_and_ticker_batch():
    rows = decode(
        wire.ticker(0, best_ask="", best_ask_quantity=None), wire.ticker(1, channel="ticker_batch", price=7)
    ).rows
    common = {
        "product_id": "BTC-USD",
        "volume_24h": 1234.5,
        "low_24h": 90.0,
        "high_24h": 110.0,
        "low_52w": 50.0,
        "high_52w": 150.0,
        "price_pct_chg_24h": -1.25,
        "best_ask": None,
        "best_ask_size": None,
        "open_24h": None,
        "volume_30d": None,
        "last_size": None,
        "side": None,
        "trade_id": None,
        "sequence": None,
        **BARE,
    }
    assert rows["ticker"] == [
        {**common, "price": 100.0, "best_bid": 99.5, "best_bid_size": 1.0, "sequence_num": 0, "line": 1}
    ]
    assert rows["ticker_batch"] == [
        {**common, "price": 7.0, "best_bid": None, "best_bid_size": None, "sequence_num": 1, "line": 2}
    ]


def test_candles_heartbeats_status_subscriptions_errors():
    rows = decode(
        wire.candles(0, wire.candle(), wire.candle(1772600700)),
        wire.heartbeat(1, "2026-03-04 05:06:07.5 +0000 UTC m=+81022.1", "81021"),
        wire.heartbeat(2, 12.5, True),
        wire.status(3, wire.product(status_message=None, min_market_funds="")),
        wire.ack(4, level2=["BTC-USD", "ETH-USD"], heartbeats=[]),
        wire.error("slow down", reason="too many"),
    ).rows
    candle = {
        "product_id": "BTC-USD",
        "start": 1_772_600_700_000_000_000,
        "open": 100.0,
        "high": 110.0,
        "low": 90.0,
        "close": 105.0,
        "volume": 12.5,
        **BARE,
        "sequence_num": 0,
        "line": 1,
    }
    assert rows["candles"] == [candle, candle]
    beat = {"product_id": None, "last_trade_id": None, **BARE}
    assert rows["heartbeats"] == [
        {
            **beat,
            "current_time": "2026-03-04 05:06:07.5 +0000 UTC m=+81022.1",
            "heartbeat_counter": 81021,
            "sequence_num": 1,
            "line": 2,
        },
        {**beat, "current_time": "12.5", "heartbeat_counter": None, "sequence_num": 2, "line": 3},
    ]
    assert rows["status"] == [
        {
            "product_id": "BTC-USD",
            "product_type": "SPOT",
            "base_currency": "BTC",
            "quote_currency": "USD",
            "base_increment": 1e-8,
            "quote_increment": 0.01,
            "display_name": "BTC/USD",
            "status": "online",
            "status_message": None,
            "min_market_funds": None,
            **BARE,
            "sequence_num": 3,
            "line": 4,
        }
    ]
    ack = {**BARE, "sequence_num": 4, "line": 5}
    assert rows["subscriptions"] == [
        {"channel": "level2", "product_ids": ["BTC-USD", "ETH-USD"], **ack},
        {"channel": "heartbeats", "product_ids": [], **ack},
    ]
    assert rows["errors"] == [
        {
            "message": "slow down",
            "reason": "too many",
            **BARE,
            "server_time": None,
            "sequence_num": None,
            "line": 6,
        }
    ]
    assert not rows["rejects"]


def test_exchange_feed():
    rows = decode(
        wire.record(wire.exchange_snapshot(bids=[["10.00", "5"]], asks=[["11", "6"], ["12", "0"]])),
        wire.record(wire.exchange_update(["sell", "11", "0.0"], ["buy", "9", "1"])),
        wire.record(wire.match(7, "last_match")),
        wire.record(wire.match(8)),
        wire.record(wire.exchange_ticker()),
        wire.record(wire.exchange_heartbeat()),
        wire.record(wire.exchange_ack({"name": "ticker", "product_ids": ["BTC-USD"]})),
        wire.record({"type": "status", "products": [{"id": "BTC-USD"}], "currencies": [{"id": "BTC"}]}),
    ).rows
    level = {"product_id": "BTC-USD", "unbroken_since": CAPTURE, **FRAME, "sequence_num": None}
    first = {**level, "is_snapshot": True, "event_time": None, "server_time": None, "line": 1}
    second = {**level, "is_snapshot": False, "event_time": EVENT, "server_time": EVENT, "line": 2}
    assert rows["level2"] == [
        {**first, "side": "bid", "price": 10.0, "size": 5.0},
        {**first, "side": "ask", "price": 11.0, "size": 6.0},
        {**first, "side": "ask", "price": 12.0, "size": 0.0},
        {**second, "side": "ask", "price": 11.0, "size": 0.0},
        {**second, "side": "bid", "price": 9.0, "size": 1.0},
    ]
    trades = [(row["trade_id"], row["is_snapshot"], row["maker_side"]) for row in rows["market_trades"]]
    assert trades == [(7, True, "sell"), (8, False, "sell")]
    assert all(row["trade_time"] == row["server_time"] == EVENT for row in rows["market_trades"])
    (ticker,) = rows["ticker"]
    assert (ticker["best_bid"], ticker["best_bid_size"], ticker["low_52w"]) == (99.5, None, None)
    assert (ticker["server_time"], ticker["volume_24h"]) == (EVENT, 1234.5)
    of_exchange = ("open_24h", "volume_30d", "last_size", "side", "trade_id", "sequence")
    assert [ticker[name] for name in of_exchange] == [101.0, 22955.5, 0.04, "buy", 881613, 333938798]
    orders = {
        (row["maker_order_id"], row["taker_order_id"], row["sequence"]) for row in rows["market_trades"]
    }
    assert orders == {
        ("2a0da34e-61f7-4c36-88e5-c9dd15927b16", "3c82abaa-c01e-4608-be59-6a1e69742891", 177100030)
    }
    (beat,) = rows["heartbeats"]
    assert (beat["product_id"], beat["last_trade_id"], beat["current_time"]) == (
        "BTC-USD",
        20,
        wire.EVENT_TIME,
    )
    assert [(row["channel"], row["product_ids"]) for row in rows["subscriptions"]] == [
        ("ticker", ["BTC-USD"])
    ]
    assert [row["product_id"] for row in rows["status"]] == ["BTC-USD"]
    assert not rows["rejects"]


def test_every_row_has_the_columns_of_its_table():
    rows = decode(
        wire.snapshot(3),
        wire.change(5),  # shows a gap: a marker
        wire.trades(6, wire.trade("1")),
        wire.ticker(7),
        wire.ticker(8, channel="ticker_batch"),
        wire.candles(9, wire.candle()),
        wire.heartbeat(10, None, None),
        wire.status(11, wire.product()),
        wire.ack(12, level2=[]),
        wire.error(),
        b"",
    ).rows
    assert set(rows) == set(schema.RAW)
    for table in schema.RAW:
        assert rows[table], table
        for row in rows[table]:
            assert set(row) == {*schema.schema(table), "segment_index"}


# --- numbers and times


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("1e-7", 1e-7),
        ("12", 12.0),
        ("007.50", 7.5),
        ("1E+3", 1000.0),
        ("0e0", 0.0),
        ("0.1234567890123456789", 0.12345678901234568),
        ("138991023.41", 138991023.41),
        ("1e-999", 0.0),
        (3, 3.0),
        (0.5, 0.5),
    ],
)
def test_legal_numbers(value, meaning):
    rows = decode(wire.change(0, price=value)).rows
    assert [row["price"].hex() for row in rows["level2"]] == [meaning.hex()]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "NaN",
            "inf",
            "-1",
            "-0",
            "+1",
            " 1",
            "1 ",
            "1_0",
            ".5",
            "1.",
            "1e",
            "1e999",
            "0x1",
            "1,5",
            "１",
        ),
        *(None, True, False, [], ["1"], {}, -1, -0.0, -1.5),
    ],
)
def test_illegal_numbers(value):
    rows = decode(wire.change(0, size=value)).rows
    assert not rows["level2"]
    assert [row["line"] for row in rows["rejects"]] == [1]


def test_a_json_number_is_its_text():
    before, after = wire.record(wire.change(0, size="@")).split(b'"@"')
    for text, ok in [(b"1e2", 1), (b"-0", 0), (b"-0.0", 0), (b"1e400", 0), (b"0.30000000000000000001", 1)]:
        rows = raw.decode([before + text + after]).rows
        assert [row["size"] for row in rows["level2"]] == [float(text)] * ok


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00.000000000+00:00", None),
        ("1970-01-01T00:00:00-00:00", None),
        ("0001-01-01T00:00:00.000000Z", None),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.9Z", -100_000_000),
        ("2026-03-04T05:06:07Z", 1_772_600_767_000_000_000),
        ("2026-03-04T05:06:07.1Z", 1_772_600_767_100_000_000),
        ("2026-03-04T05:06:07.123456789Z", 1_772_600_767_123_456_789),
        ("2026-03-04T06:36:07.5+01:30", 1_772_600_767_500_000_000),
        ("2026-03-03T23:06:07-06:00", 1_772_600_767_000_000_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        ("2262-04-11T23:47:16.854775807Z", 2**63 - 1),
        ("1677-09-21T00:12:43.145224192Z", -(2**63)),
    ],
)
def test_legal_times(text, nanoseconds):
    rows = decode(wire.change(0, timestamp=text)).rows
    assert [row["server_time"] for row in rows["level2"]] == [nanoseconds]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-03-04T05:06:07",
        "2026-03-04 05:06:07Z",
        "2026-03-04t05:06:07Z",
        "2026-03-04T05:06:07z",
        "2026-03-04T05:06:07.Z",
        "2026-03-04T05:06:07.1234567890Z",
        "2026-03-04T05:06Z",
        "2026-3-4T05:06:07Z",
        "2026-02-29T05:06:07Z",
        "2026-13-01T05:06:07Z",
        "2026-00-01T05:06:07Z",
        "2026-04-31T05:06:07Z",
        "2026-03-04T24:00:00Z",
        "2026-03-04T05:60:07Z",
        "2026-03-04T05:06:60Z",
        "2026-03-04T05:06:07+0000",
        "2026-03-04T05:06:07+24:00",
        "2026-03-04T05:06:07+00:60",
        "2026-03-04T05:06:07Z ",
        " 2026-03-04T05:06:07Z",
        "0001-01-01T00:00:00.1Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "2262-04-11T23:47:16.854775808Z",
        "1677-09-21T00:12:43.145224191Z",
        "２026-03-04T05:06:07Z",
        1772600767,
        True,
    ],
)
def test_illegal_times(text):
    rows = decode(wire.change(0, timestamp=text)).rows
    assert not rows["level2"]
    assert len(rows["rejects"]) == 1


# --- lines


def test_positions_of_rejected_lines():
    lines = [b"", BOM + wire.record(wire.change(0))[:-1], wire.record(wire.change(1)), b"{\r", b" \t"]
    rows = raw.decode([b"\n".join(lines)]).rows
    offsets = [0, 1, 1 + len(lines[1]) + 1 + len(lines[2]) + 1]
    assert [(row["line"], row["byte_offset"], row["size"], row["raw"]) for row in rows["rejects"]] == [
        (1, offsets[0], 0, lines[0]),
        (2, offsets[1], len(lines[1]), lines[1]),
        (4, offsets[2], 2, b"{\r"),
        (5, offsets[2] + 3, 2, b" \t"),
    ]
    assert [row["line"] for row in rows["level2"]] == [3]


def test_a_last_newline_starts_no_line():
    assert raw.lines_of(b"") == []
    assert raw.lines_of(b"\n") == [b""]
    assert raw.lines_of(b"a\nb") == raw.lines_of(b"a\nb\n") == [b"a", b"b"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"error","message":NaN}',
        b'{"type":"error","x":-Infinity}',
        b'{"type":"error","x":01}',
        b'{"type":"error","x":1.}',
        b'{"type":"error",}',
        b'{"type":"error"} {}',
        b'{"type":"error","message":"a\tb"}',
        b'{"type":"error","message":"\\ud800"}',
        b'{"type":"error","message":"\\udc00\\ud800"}',
        b'{"type":"error","\\udfff":1}',
        b'{"type":"error","message":"\\x41"}',
        b'{"type":"error","message":"\xff"}',
        b'{"type":"error","message":"\xed\xa0\x80"}',
        b'{"type":"error","\\u0074ype":"error"}',
        b'{"type":"error","x":[{"a":1,"b":{},"a":1}]}',
        b'{"type":"error"}\x00',
        b"\x00" * 40,
        b"\r",
        BOM,
        BOM + b" \r",
        BOM + BOM + b'{"type":"error"}',
        b" " + BOM + b'{"type":"error"}',
        b'{"type":"error"}' + BOM,
        b'{"type":"error"',
        b"{'type':'error'}",
        b'{"type":"error","x":' + b"[" * 1024 + b"]" * 1024 + b"}",
        b'["error"]',
        b'"error"',
        b"17",
    ],
)
def test_what_is_not_one_json_object(line):
    rows = raw.decode([line]).rows
    assert [row["raw"] for row in rows["rejects"]] == [line]
    assert not rows["errors"]


@pytest.mark.parametrize(
    "line",
    [
        b' \t{ "type" :\t"error" , "message" : "a\\u0009\\ud83d\\ude00" }  ',
        b'{"type":"error","x":' + b"[" * 1023 + b"]" * 1023 + b"}",
        b'{"type":"error","x":[{"a":1},{"a":1}],"y":{"x":"\\\\ud800"}}',
        '{"type":"error","message":"\ufeff\x7f\u2028"}'.encode(),
    ],
)
def test_what_is_one_json_object(line):
    rows = raw.decode([line]).rows
    assert not rows["rejects"]
    assert len(rows["errors"]) == 1


def test_carriage_returns_and_byte_order_marks_are_counted():
    error = b'{"type":"error"}'
    frame = wire.record(wire.change(1))
    tables = raw.decode(
        [
            wire.segment(error + b"\r", BOM + error, BOM + error + b"\r", error + b"\r\r", BOM + b" " + error)
            + wire.segment(frame + b"\r", frame + b"\r")  # the second is a repeat
            + wire.segment(b"\r", BOM + b"{\r", b"[]\r")
        ]
    )
    assert [row["line"] for row in tables.rows["errors"]] == [1, 2, 3, 4, 5]
    assert (tables.duplicates, len(tables.rows["rejects"])) == (1, 3)
    assert tables.unusual == {"CRLF": 4, "byte order mark": 3}


def test_unknown_keys_are_counted_by_place():
    frame = wire.change(0) | {"foo": 1}
    frame["events"][0]["updates"][0]["foo"] = None
    tables = decode(wire.envelope(frame) | {"foo": {"foo": 2}}, wire.change(1, size="-1") | {"foo": 1})
    assert tables.unknown_keys == {"envelope.foo": 1, "frame.foo": 1, "l2_data.updates.foo": 1}


# --- sequence, connections, unbroken runs


def test_a_gap_and_a_new_connection():
    tables = decode(
        wire.record(wire.snapshot(10, "ETH-USD", at(10))),
        wire.record(wire.change(11, "BTC-USD", timestamp=at(11))),
        wire.record(wire.ticker(14)),
        wire.record(wire.change(15, timestamp=at(15)), "2026-03-04T05:06:15Z"),
        wire.record(wire.change(2, timestamp=at(2)), "2026-03-04T05:06:16Z"),
        wire.record(wire.change(5, timestamp=at(5)), "2026-03-04T05:06:10Z"),
        wire.record(wire.change(0, timestamp=at(0)), None),
    )
    gap = {"capture_time": CAPTURE, "stream": None, "segment_index": 0}
    assert tables.rows["gaps"] == [
        gap | {"connection": 1, "expected": 12, "got": 14, "line": 3, "products": ["BTC-USD", "ETH-USD"]},
        gap
        | {
            "connection": 2,
            "expected": 0,
            "got": 2,
            "line": 5,
            "products": [],
            "capture_time": at_ns(16),
        },
        gap
        | {
            "connection": 2,
            "expected": 3,
            "got": 5,
            "line": 6,
            "products": ["BTC-USD"],
            "capture_time": at_ns(10),
        },
    ]
    assert tables.connections == 3
    runs = [(row["line"], row["connection"], row["unbroken_since"]) for row in changes(tables)[4:]]
    assert runs == [
        (2, 1, CAPTURE),
        (4, 1, CAPTURE + 1),
        (5, 2, at_ns(16)),
        (6, 2, at_ns(16) + 1),
        (7, 3, at_ns(16) + 2),
    ]


def test_exact_repeats_are_dropped_and_others_are_a_new_connection():
    tables = decode(
        wire.change(7, timestamp=at(7)),
        wire.change(8, timestamp=at(8)),
        wire.change(7, timestamp=at(7)),
        wire.ticker(8),
        wire.change(9, timestamp=at(8)),
        wire.change(9, timestamp=at(8)),
        wire.change(9, timestamp=None),
        wire.change(9, timestamp=None),
    )
    assert tables.duplicates == 2  # lines 3 and 6
    rows = [(row["line"], row["connection"]) for row in changes(tables)]
    assert rows == [(1, 1), (2, 1), (5, 2), (7, 3), (8, 4)]
    assert [(row["line"], row["got"]) for row in tables.rows["gaps"]] == [(4, 8), (7, 9), (8, 9)]


def connections(*lines):
    tables = decode(*lines)
    return tables.duplicates, tables.connections


def test_a_repeat_is_the_same_content():
    """The same number, time and channel do not make one; another capture_ts does not unmake one."""
    frame = wire.record(wire.change(7))
    assert connections(frame, wire.record(wire.change(7, size="8"))) == (0, 2)
    for capture_ts in ("2026-03-04T05:06:09Z", "", None, 1772600767.5):
        again = wire.record(wire.change(7), capture_ts)
        assert connections(frame, again) == (capture_ts != "", 1)  # "" rejects it: counted nowhere
    spaced = frame.replace(b'"capture_ts":', b'"capture_ts"\t: ')
    assert connections(spaced, spaced.replace(b"07.12", b"08.12")) == (1, 1)
    assert connections(frame, spaced) == (0, 2)
    assert connections(frame, frame + b"\r") == (0, 2)
    assert connections(frame, wire.line(wire.change(7))) == (0, 2)
    bare = wire.line(wire.change(7))
    assert connections(bare, bare) == (1, 1)


def test_a_repeat_may_follow_other_frames_and_a_rejected_one():
    bad = wire.change(1, side="?")
    lines = [wire.change(0), bad, wire.change(2), wire.change(0), bad, wire.change(2), wire.change(3)]
    assert connections(*lines) == (2, 1)
    other = wire.change(1, side="!")
    assert connections(wire.change(0), bad, wire.change(2), other, wire.change(2)) == (0, 2)


def test_the_content_is_without_the_first_capture_ts():
    line = b'{"a":"capture_ts","capture_ts": "x","capture_ts":1}'
    assert raw.content_of(line) == b'{"a":"capture_ts","capture_ts": ,"capture_ts":1}'
    assert raw.content_of(b'{"capture_ts" :\t17.5 ,"data":1}') == b'{"capture_ts" :\t,"data":1}'
    assert raw.content_of(b'{"data":1,"capture_ts":17}') == b'{"data":1,"capture_ts":}'
    assert raw.content_of(b'{"capture_ts":"x') == b'{"capture_ts":'
    assert raw.content_of(b'{"data":1}') == b'{"data":1}'


def test_frames_of_two_connections_are_all_kept():
    frames = [wire.snapshot(0), wire.snapshot(0, "ETH-USD"), wire.change(1), wire.change(1, "ETH-USD")]
    tables = decode(*(wire.record(frame) for frame in frames))
    assert {row["line"] for row in changes(tables)} == {1, 2, 3, 4}
    assert (tables.duplicates, tables.connections) == (0, 3)


def test_only_the_last_1024_frames_are_remembered():
    frames = [wire.ticker(number) for number in range(1026)]
    assert decode(*frames, wire.ticker(2)).duplicates == 1
    assert decode(*frames, wire.ticker(1)).connections == 2


def test_sequence_and_connection_run_on_over_segments():
    tables = raw.decode(
        [wire.segment(wire.snapshot(0)), wire.segment(wire.change(1)), wire.segment(wire.change(3))]
    )
    assert [(row["line"], row["got"], row["segment_index"]) for row in tables.rows["gaps"]] == [(1, 3, 2)]
    assert [row["unbroken_since"] for row in changes(tables)] == [SERVER] * 5 + [SERVER + 1]


def runs(*lines):
    """Return (line, product, unbroken_since - the first run's name) of the level changes."""
    rows = changes(decode(*lines))
    first = rows[0]["unbroken_since"]
    return [(row["line"], row["product_id"][0], row["unbroken_since"] - first) for row in rows]


def test_a_rejected_level2_line_breaks_its_products_only():
    bad = wire.record(wire.change(1, "ETH-USD", side="buy"))
    lines = [
        wire.record(wire.change(0)),
        bad,
        wire.record(wire.change(2)),
        wire.record(wire.change(3, "ETH-USD")),
    ]
    assert runs(*lines) == [(1, "B", 0), (3, "B", 0), (4, "E", 1)]
    assert raw.outline(bad) == raw.Outline("l2_data", 1, SERVER, CAPTURE, ["ETH-USD"])


def test_a_rejected_level2_line_whose_products_are_hidden_breaks_all():
    whole = wire.record(wire.change(1, "ETH-USD"))
    for bad in (whole[:-30], whole + b"x", whole + whole, whole.replace(b"ETH", b"\\u0045TH")[:-1]):
        lines = [wire.record(wire.change(0)), bad, wire.record(wire.change(2)), wire.record(wire.change(2))]
        assert runs(*lines) == [(1, "B", 0), (3, "B", 1)]


def test_a_rejected_line_of_another_channel_counts_and_breaks_nothing():
    bad = wire.record(wire.trades(1, wire.trade("1", side="maker")))
    tables = decode(wire.record(wire.change(0)), bad, wire.record(wire.change(2)))
    assert not tables.rows["gaps"]
    assert len({row["unbroken_since"] for row in tables.rows["level2"]}) == 1
    again = decode(wire.record(wire.change(0)), bad, bad, wire.record(wire.change(2)))
    assert (len(again.rows["rejects"]), again.duplicates, again.connections) == (2, 0, 1)
    ahead = decode(
        wire.record(wire.change(0)), wire.record(wire.advanced("news", 3)), wire.record(wire.change(4))
    )
    assert [(row["line"], row["got"]) for row in ahead.rows["gaps"]] == [(2, 3)]


def test_a_rejected_line_that_was_no_frame_breaks_nothing():
    assert runs(wire.change(0), b"", b"\x00\x00", wire.change(1)) == [(1, "B", 0), (4, "B", 0)]


def test_a_rejected_line_that_hid_a_frame_breaks_all():
    hidden = b'{"data":' + wire.line(wire.change(1))  # one brace is missing
    assert runs(wire.change(0), wire.change(0), hidden, wire.change(2)) == [
        (1, "B", 0),
        (4, "B", 1),
    ]


def test_a_rejected_line_stays_open_until_a_frame_tells():
    """A repeat and frames without a number tell nothing."""
    assert runs(wire.change(0), b"", wire.change(0), wire.error(), wire.change(1)) == [
        (1, "B", 0),
        (5, "B", 0),
    ]
    assert runs(wire.change(0), b"", wire.change(None), wire.ticker(None), wire.change(1)) == [
        (1, "B", 0),
        (3, "B", 1),
        (5, "B", 1),
    ]
    # a rejected level2 frame counts like an understood one, whatever its products are
    bad = wire.change(None, "ETH-USD", side="?")
    assert runs(wire.change(0), b"", bad, wire.change(1)) == [(1, "B", 0), (4, "B", 1)]
    assert runs(wire.change(0), b"", wire.ticker(None, price="?"), wire.change(1)) == [
        (1, "B", 0),
        (4, "B", 0),
    ]


def test_a_rejected_line_in_the_exchange_feed_breaks_all():
    update = wire.exchange_update(["buy", "1", "1"], time=None)
    assert runs(b"?", update, update, b"?", wire.error(), update) == [(2, "B", 0), (3, "B", 0), (6, "B", 1)]


def test_the_names_of_runs_never_fall():
    """Each product's own: that of ETH-USD is as late as its own break, that of BTC-USD is not."""
    lines = [
        wire.record(wire.change(0), "2026-03-04T05:06:20Z"),
        wire.record(wire.change(2), "2026-03-04T05:06:10Z"),
        wire.record(wire.change(3, "ETH-USD", side="?"), "2026-03-04T05:06:30Z"),
        wire.record(wire.change(4, "ETH-USD"), "2026-03-04T05:06:31Z"),
        wire.record(wire.change(6, "BTC-USD"), "2026-03-04T05:06:25Z"),
        wire.record(wire.change(7, "ETH-USD"), "2026-03-04T05:06:25Z"),
    ]
    rows = changes(decode(*lines))
    assert [(row["line"], row["unbroken_since"]) for row in rows] == [
        (1, at_ns(20)),
        (2, at_ns(20) + 1),
        (4, at_ns(30)),
        (5, at_ns(25)),
        (6, at_ns(30) + 1),
    ]


# --- error frames and numbers


def test_error_frames_with_a_number_count_in_the_sequence():
    tables = decode(
        wire.record(wire.change(0)),
        wire.record(wire.error("a", sequence_num=1, timestamp=at(3))),
        wire.record({"channel": "error", "message": "b", "sequence_num": 2, "timestamp": None}),
        wire.record(wire.error("c", sequence_num=None)),
        wire.record(wire.change(3)),
        wire.record({"channel": "errors", "message": "d", "sequence_num": 6, "timestamp": at(6)}),
        wire.record({"channel": "errors", "message": "d", "sequence_num": 6, "timestamp": at(6)}),
    )
    rows = [
        (row["message"], row["sequence_num"], row["server_time"], row["line"])
        for row in tables.rows["errors"]
    ]
    assert rows == [("a", 1, at_ns(3), 2), ("b", 2, None, 3), ("c", None, None, 4), ("d", 6, at_ns(6), 6)]
    assert [(row["line"], row["expected"], row["got"]) for row in tables.rows["gaps"]] == [(6, 4, 6)]
    assert tables.duplicates == 1
    assert kinds(tables.rows["level2"])[-1] == (6, "B", "break")


@pytest.mark.parametrize(
    "more",
    [
        {"sequence_num": -1},
        {"sequence_num": "1"},
        {"sequence_num": 2**53 + 1},
        {"timestamp": "now"},
        {"timestamp": 1772600767},
        {"timestamp": "2026-03-04T05:06:07"},
    ],
)
def test_error_frames_with_an_illegal_number_or_time_are_rejected(more):
    tables = decode(wire.change(0), wire.error("no", **{"sequence_num": 1} | more), wire.change(2))
    assert [row["line"] for row in tables.rows["rejects"]] == [2]
    counts = "timestamp" in more  # its number is legal
    assert [(row["expected"], row["got"]) for row in tables.rows["gaps"]] == ([] if counts else [(1, 2)])


def test_the_largest_number():
    tables = decode(
        wire.change(2**53 - 1), wire.change(2**53), wire.change(2**53 + 1), wire.change(2**63 - 1)
    )
    assert [row["sequence_num"] for row in changes(tables)] == [2**53 - 1, 2**53]
    assert [row["line"] for row in tables.rows["rejects"]] == [3, 4]
    assert not tables.rows["gaps"]
    assert tables.connections == 1
    # they have no number, and break their product
    assert kinds(tables.rows["level2"])[2:] == [(3, "B", "break")]


def test_events_may_be_null_and_not_missing():
    missing = wire.advanced("ticker", 2)
    del missing["events"]
    tables = decode(
        wire.change(0) | {"events": None}, wire.ticker(1) | {"events": None}, missing, wire.change(3)
    )
    assert [row["line"] for row in tables.rows["rejects"]] == [3]
    assert not tables.rows["gaps"]
    assert kinds(tables.rows["level2"]) == [(4, "B", "bid 99.5")]


# --- capture_ts


def captured(capture_ts):
    """Return the capture_time of a line with this capture_ts, written as JSON, and what is unusual of it."""
    line = wire.record(wire.change(0), "@").replace(b'"@"', capture_ts.encode())
    tables = raw.decode([line])
    assert len(tables.rows["level2"]) + len(tables.rows["rejects"]) == 1
    return [row["capture_time"] for row in tables.rows["level2"]], dict(tables.unusual)


SPACE, OFFSET, NO_ZONE, EPOCH = (
    "capture_ts with a space",
    "capture_ts with an offset like +0000",
    "capture_ts without a zone",
    "capture_ts as an epoch",
)


@pytest.mark.parametrize(
    ("text", "nanoseconds", "kinds_of_it"),
    [
        ("2026-03-04T05:06:07Z", at_ns(7), []),
        ("2026-03-04 05:06:07Z", at_ns(7), [SPACE]),
        ("2026-03-04T05:06:07.5+0000", at_ns(7, 500_000_000), [OFFSET]),
        ("2026-03-04T06:36:07+0130", at_ns(7), [OFFSET]),
        ("2026-03-03T23:06:07-0600", at_ns(7), [OFFSET]),
        ("2026-03-04T05:06:07", at_ns(7), [NO_ZONE]),
        ("2026-03-04T05:06:07.123456789", at_ns(7, 123_456_789), [NO_ZONE]),
        ("2026-03-04 05:06:07.1", at_ns(7, 100_000_000), [SPACE, NO_ZONE]),
        ("2026-03-04 05:06:07+0000", at_ns(7), [SPACE, OFFSET]),
        ("2026-03-04 05:06:07+00:00", at_ns(7), [SPACE]),
        ("1970-01-01 00:00:00", None, [SPACE, NO_ZONE]),
        ("0001-01-01T00:00:00+0000", None, [OFFSET]),
        ("1970-01-01T00:00:00.000000001", 1, [NO_ZONE]),
    ],
)
def test_other_texts_of_capture_ts(text, nanoseconds, kinds_of_it):
    assert captured(f'"{text}"') == ([nanoseconds], dict.fromkeys(kinds_of_it, 1))


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("0", None),
        ("0.0", None),
        ('"0"', None),
        ('"000.000"', None),
        ("-0", None),
        ("1", 1_000_000_000),
        ("1772600767", at_ns(7)),
        ("1772600767.5", at_ns(7, 500_000_000)),
        ('"1772600767.123456789"', at_ns(7, 123_456_789)),
        ('"1772600767.1234567899"', at_ns(7, 123_456_789)),
        ("1772600767.123456789", at_ns(7, 123_456_700)),  # the double nearest is written 1772600767.1234567
        ("1772600767.1", at_ns(7, 100_000_000)),
        ("1.7726007671e9", at_ns(7, 100_000_000)),
        ("1e9", 10**18),
        ("9223372036.8547", 9_223_372_036_854_700_000),
        ("1772600767123", at_ns(7, 123_000_000)),
        ("1772600767123.25", at_ns(7, 123_250_000)),
        ('"1772600767123.456789"', at_ns(7, 123_456_789)),
        ("1772600767123456", at_ns(7, 123_456_000)),
        ('"1772600767123456.789"', at_ns(7, 123_456_789)),
        ("1772600767123456789", at_ns(7, 123_456_789)),
        ('"1772600767123456789.9"', at_ns(7, 123_456_789)),
        ("1772600767123456789.0", 1_772_600_767_123_456_800),
        ("100000000000", 10**17),  # the smallest of ms
        ("9223372036854775807", 2**63 - 1),
        ('"0000000000000000000000000000001.5"', 1_500_000_000),
        ("1e-9", 1),
        ("1.5e-9", 1),
        ("1e-10", 0),  # it is not 0, so it is a time
    ],
)
def test_epochs_of_capture_ts(written, nanoseconds):
    assert captured(written) == ([nanoseconds], {EPOCH: 1})


@pytest.mark.parametrize(
    "written",
    [
        *('""', '"now"', '"2026-03-04"', '"2026-03-04T05:06:07z"', '"2026-03-04t05:06:07Z"'),
        *('"2026-03-04T05:06:07+00"', '"2026-03-04T05:06:07+24:00"', '"2026-03-04T05:06:07+0060"'),
        *(
            '"2026-03-04  05:06:07Z"',
            '"2026-03-04T05:06:07 Z"',
            '"2026-03-04T05:06:07."',
            '"2026-02-29 05:06:07"',
        ),
        *('"2026-03-04T05:06:07.1234567890"', '"2262-04-11T23:47:16.854775808"', '"2026-03-04_05:06:07"'),
        *("true", "false", "[]", "{}", "-1", "-0.5", "1e400", "9223372037", "9223372036854775808", "1e19"),
        *("99999999999.5", "99999999999999", "99999999999999999"),  # the largest of s, ms, us
        *('".5"', '"1."', '"1e9"', '"+1"', '"-1"', '"-0"', '" 1"', '"1 "', '"1.2.3"', '"1_0"', '"١"'),
        *('"9223372036854775808"', "1" * 5000, '"' + "1" * 5000 + '"'),
    ],
)
def test_illegal_capture_ts(written):
    assert captured(written) == ([], {})


def test_capture_ts_is_counted_for_understood_frames_that_are_no_repeats():
    repeat = wire.record(wire.change(0), 1772600767)
    tables = decode(repeat, repeat, wire.record(wire.change(1, side="?"), "2026-03-04 05:06:07"))
    assert tables.duplicates == 1
    assert tables.unusual == {EPOCH: 1}
    # of a bare frame it is an unknown key
    assert decode(wire.change(0) | {"capture_ts": 17}).unusual == {}
    assert decode(wire.envelope(wire.change(0), None)).unusual == {}


# --- fields of trades and tickers


@pytest.mark.parametrize(
    ("trade_id", "meaning"),
    [
        ("1" * 19, int("1" * 19)),
        (str(2**63 - 1), 2**63 - 1),
        ("0" * 18 + "1", 1),
        (2**63 - 1, 2**63 - 1),
        (str(2**63), None),
        ("9" * 19, None),
        ("0" * 19 + "1", None),
        ("", None),
        (2**63, None),
        (1.0, None),
        (-1, None),
        (None, None),
    ],
)
def test_trade_ids(trade_id, meaning):
    rows = decode(wire.trades(0, wire.trade(trade_id))).rows
    assert [row["trade_id"] for row in rows["market_trades"]] == ([] if meaning is None else [meaning])
    assert len(rows["rejects"]) == (meaning is None)


@pytest.mark.parametrize(
    ("product_id", "legal"),
    [
        *(("x" * 244, True), ("x" * 245, False), ("%" * 81, True), ("%" * 82, False), ("_.-~" * 61, True)),
        *(("ü" * 40, True), ("ü" * 41, False), ("/", True), ("..", True), ("null", True), ("", False)),
        *(("__HIVE_DEFAULT_PARTITION__", False), ("__HIVE_DEFAULT_PARTITION_", True)),
    ],
)
def test_products_are_names_of_folders(product_id, legal):
    frames = [
        wire.change(0, product_id),
        wire.trades(1, wire.trade("1", product_id=product_id)),
        wire.ticker(2, product_id),
        wire.candles(3, wire.candle(product_id=product_id)),
        wire.status(4, wire.product(product_id)),
        wire.exchange_heartbeat(product_id=product_id),
        {"type": "status", "products": [wire.product(product_id)]},
    ]
    tables = decode(*frames, wire.exchange_ack({"name": "level2", "product_ids": [product_id]}))
    assert [row["line"] for row in tables.rows["rejects"]] == ([] if legal else [*range(1, 8)])


MATCH = {"maker_order_id": None, "taker_order_id": None, "sequence": None}


@pytest.mark.parametrize(
    ("fields", "legal"),
    [
        ({"maker_order_id": "m", "taker_order_id": "", "sequence": 5}, True),
        ({"sequence": "5"}, True),
        ({"sequence": 2**63 - 1}, True),
        ({"sequence": None, "maker_order_id": None, "taker_order_id": None}, True),
        *(({"sequence": bad}, False) for bad in ("", "x", -1, 1.5, True, 2**63, "9" * 19, [])),
        *(({name: 5}, False) for name in ("maker_order_id", "taker_order_id")),
        ({"maker_order_id": ["m"]}, False),
    ],
)
def test_fields_of_a_match(fields, legal):
    rows = decode({key: one for key, one in wire.match(1).items() if key not in MATCH} | fields).rows
    expected = (
        MATCH | fields | ({"sequence": int(fields["sequence"])} if fields.get("sequence") and legal else {})
    )
    got = [{name: row[name] for name in MATCH} for row in rows["market_trades"]]
    assert got == ([expected] if legal else [])
    assert len(rows["rejects"]) == (not legal)


TICKER = dict.fromkeys(("open_24h", "volume_30d", "last_size", "side", "trade_id", "sequence"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"open_24h": "", "volume_30d": None, "last_size": 2, "side": ""}, {"last_size": 2.0}),
        ({"open_24h": "1.5", "side": "SELL"}, {"open_24h": 1.5, "side": "sell"}),
        ({"side": "buy", "trade_id": "7", "sequence": 8}, {"side": "buy", "trade_id": 7, "sequence": 8}),
        ({"side": None, "trade_id": None, "sequence": None}, {}),
        *(({name: "-1"}, None) for name in ("open_24h", "volume_30d", "last_size", "trade_id", "sequence")),
        *(({name: ""}, None) for name in ("trade_id", "sequence")),
        *(({"side": bad}, None) for bad in ("Buy", "bid", " ", 1)),
    ],
)
def test_fields_of_a_ticker_of_the_exchange_feed(fields, expected):
    frame = {key: one for key, one in wire.exchange_ticker().items() if key not in TICKER} | fields
    rows = decode(frame).rows
    got = [{name: row[name] for name in TICKER} for row in rows["ticker"]]
    assert got == ([] if expected is None else [TICKER | expected])


def test_keys_of_the_exchange_feed_are_unknown_on_advanced():
    one = wire.trade("1") | {"sequence": "x", "maker_order_id": 5}
    tables = decode(wire.trades(0, one), wire.ticker(1, open_24h="x", side=5))
    assert not tables.rows["rejects"]
    assert sum(tables.unknown_keys.values()) == 4


# --- rejected lines without a usual header


def odd_keys(value):
    """Sort the keys: so the header of a frame is not a usual one."""
    return json.dumps(value, sort_keys=True).encode()


def header(line):
    """Return what is read of a rejected line: (number, is level2, lost products, feed)."""
    try:
        value = raw.read_line(raw.unmarked(line)[0])
    except raw.Illegal:
        value = None
    found = raw.header_of(line, value)
    return found and (found.sequence_num, found.is_level2, found.products, found.feed)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (wire.change(5, side="?"), (5, True, ["BTC-USD"], "advanced")),
        (wire.ticker(5, price="?"), (5, False, [], "advanced")),
        (wire.advanced("user", 5, {"orders": []}), (5, False, [], "advanced")),
        (wire.advanced("l2_dat", 5, wire.book("A", wire.update("bid", 1, 1))), (5, True, ["A"], "advanced")),
        (wire.advanced("l2_dat", 5, {}, {"updates": None, "product_id": "A"}), (5, True, None, "advanced")),
        (wire.advanced("ticker", 5, {"updates": [], "product_id": "A"}), (5, False, [], "advanced")),
        *(
            ({"type": sent, "channel": "level2", "product_ids": ["A"]}, (None, False, [], None))
            for sent in ("subscribe", "unsubscribe")
        ),
        ({"type": "subscribe", "channel": "l2_dat", "events": [{"updates": 1}]}, (None, False, [], None)),
        (wire.advanced("user", 5) | {"bids": 1}, (5, True, [], "advanced")),
        (wire.change(-1), (None, True, ["BTC-USD"], "advanced")),
        (wire.change(2**53 + 1), (None, True, ["BTC-USD"], "advanced")),
        (wire.change(None, side="?"), (None, True, ["BTC-USD"], "advanced")),
        (wire.l2(5, wire.book("A"), {"product_id": "B"}), (5, True, ["A", "B"], "advanced")),
        *(
            (wire.l2(5, wire.book("A"), {"product_id": bad}), (5, True, None, "advanced"))
            for bad in ("", None, 7, ["A"])
        ),
        (wire.l2(5, wire.book("A")) | {"events": {}}, (5, True, None, "advanced")),
        (wire.l2(-5) | {"events": None}, (None, True, None, "advanced")),
        (wire.l2(5) | {"channel": None, "events": "x"}, (5, False, [], "advanced")),
        (wire.l2(5) | {"channel": ["l2_data"]}, (5, False, [], "advanced")),
        ({"type": "l2update", "product_id": "A", "changes": 7}, (None, True, ["A"], "exchange")),
        ({"type": "snapshot", "product_id": ""}, (None, True, None, "exchange")),
        ({"type": "l2update"}, (None, True, None, "exchange")),
        ({"type": "l2updat", "product_id": "A", "changes": []}, (None, True, ["A"], "exchange")),
        ({"product_id": "A", "asks": []}, (None, True, ["A"], "exchange")),
        ({"type": "open", "events": [{"updates": 1, "product_id": "A"}]}, (None, False, [], None)),
        ({"type": "opem", "events": [{"updates": 1, "product_id": "A"}]}, (None, True, ["A"], "exchange")),
        ({"type": "auction", "product_id": "A", "bids": [], "asks": []}, (None, False, [], None)),
        ({"type": "snapshot", "product_id": "A", "events": 1}, (None, True, None, "exchange")),
        ({"type": "l2update", "product_id": "A", "sequence_num": 5}, (5, True, ["A"], "advanced")),
        *(
            ({"type": kind, "product_id": "A", "sequence": 5}, (None, False, [], None))
            for kind in (
                "rfq_match",
                "received",
                "open",
                "done",
                "change",
                "activate",
                "auction",
                "subscribe",
            )
        ),
        (wire.match(1, price="x"), (None, False, [], None)),
        (wire.exchange_ticker(price=""), (None, False, [], None)),
        (
            {"type": "subscriptions", "channels": [{"name": "full", "product_ids": None}]},
            (None, False, [], None),
        ),
        ({"type": "status"}, (None, False, [], None)),
        (wire.error(timestamp="x"), (None, False, [], None)),
        (wire.error(timestamp="x", sequence_num=5), (5, False, [], "advanced")),
        ({"channel": "error", "timestamp": "x"}, (None, False, [], "advanced")),
        ({}, (None, False, [], None)),
    ],
)
def test_headers_of_json_values(frame, expected):
    assert header(odd_keys(frame)) == expected
    assert header(BOM + odd_keys(wire.envelope(frame)) + b"\r") == expected


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"\r", b"?", b"[]", b"17", b'{"data":null}', b'{"data":[]}', b'{"data":"x"}'),
        b'{"type":"open","type":"open"}',
        b'{"type":"open","x":{"y":[{"a":1,"a":1}]}}',
        b'{"sequence_num":5,"channel":"ticker","x":"\xff"}',
        b'{"sequence_num":5,"channel":"ticker"',
        BOM + BOM + b'{"sequence_num":5,"channel":"ticker"}',
        BOM + wire.record(wire.change(1))[:-1],  # a usual header, but for the mark
    ],
)
def test_lines_of_which_nothing_is_read(line):
    assert header(line) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (wire.record(wire.advanced("user", 5, {"x": 1})), (5, False, [], "advanced")),
        (wire.record(wire.l2(5, wire.book("A")) | {"channel": "l2_dat"}), (5, True, ["A"], "advanced")),
        (wire.record(wire.l2(5, wire.book("A")) | {"channel": "ticker"}), (5, False, [], "advanced")),
        (wire.record(wire.l2(5, wire.book("A")) | {"channel": "l2_dat"})[:-1], (5, False, [], "advanced")),
        (wire.record(wire.l2(5, wire.book("A")))[:-1], (5, True, None, "advanced")),
        (wire.record(wire.l2(5, wire.book("A")))[:-1] + b"}\r", (5, True, ["A"], "advanced")),
        (wire.record(wire.l2(5, wire.book("A") | {"x": 1})), (5, True, ["A"], "advanced")),
        (wire.record(wire.l2(5, wire.book("A" * 25))), (5, True, ["A" * 25], "advanced")),
        (wire.record(wire.l2(5, wire.book("A") | {"x": 1}, {})), (5, True, None, "advanced")),
        (wire.record(wire.l2(5, wire.book("A"))) + b"\x00", (5, True, None, "advanced")),
        # duplicate keys: the structure is read all the same
        (
            wire.record(wire.change(5)).replace(b'"side"', b'"side":"x","side"'),
            (5, True, ["BTC-USD"], "advanced"),
        ),
    ],
)
def test_usual_headers_are_used_whatever_follows_them(line, expected):
    assert header(line) == expected


@pytest.mark.parametrize("number", [b"-0", b"1" * 300, b"1.5e-9999"])
def test_a_number_that_a_double_can_stand_for_is_legal_json(number):
    line = b'{"type":"l2update","product_id":"A","changes":' + number + b"}"
    assert header(line) == (None, True, ["A"], "exchange")


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 5000])
def test_a_number_beyond_the_largest_double_is_not(number):
    line = b'{"type":"l2update","product_id":"A","changes":' + number + b"}"
    assert header(line) is None


def test_times_of_a_rejected_line():
    def times(frame, *capture_ts):
        value = json.loads(odd_keys(wire.envelope(frame, *capture_ts)))
        found = raw.header_of(odd_keys(value), raw.read_line(odd_keys(value)))
        return found.server_time, found.capture_time

    assert times(wire.change(5, side="?")) == (SERVER, CAPTURE)
    assert times(wire.change(5, timestamp="x"), "2026-03-04 05:06:07") == (None, at_ns(7))
    assert times(wire.change(5, timestamp="1969-12-31T23:59:59Z"), "x") == (-1_000_000_000, None)
    assert times(wire.match(1, price="x"), 1772600767) == (EVENT, at_ns(7))
    assert times(wire.match(1, price="x", timestamp=at(9)), None) == (EVENT, None)
    assert times(wire.match(1, time=7, timestamp=at(9)), None) == (None, None)


def test_readable_frames_of_other_types_break_nothing():
    update = wire.exchange_update(["buy", "1", "1"])
    others = [
        {"type": "rfq_match", "product_id": "Z-USD"},
        {"type": "received", "product_id": "BTC-USD", "sequence": 5},
        {"type": "subscribe", "channels": ["full"]},
        wire.match(1, price="x"),
        {"type": "status"},
        wire.exchange_ack({"name": "level2", "product_ids": None}),
    ]
    tables = decode(wire.exchange_snapshot(), *(line for other in others for line in (other, update)))
    assert len(tables.rows["rejects"]) == len(others)
    assert len({row["unbroken_since"] for row in tables.rows["level2"]}) == 1
    assert tables.connections == 1
    # nor does one show that a line before it was lost: the next frame does
    assert level2(update, b"?", others[0], update) == [
        (1, "B", "bid 1"),
        (4, "B", "break"),
        (4, "B", "bid 1"),
    ]


def test_a_bad_update_of_the_exchange_feed_breaks_its_own_product():
    good = [wire.exchange_update(["buy", "1", "1"], product_id=name) for name in ("BTC-USD", "ETH-USD")]
    bad = wire.exchange_update(["bid", "1", "1"])
    assert level2(*good, bad, *good) == [
        (1, "B", "bid 1"),
        (2, "E", "bid 1"),
        (3, "B", "break"),
        (4, "B", "bid 1"),
        (5, "E", "bid 1"),
    ]
    del bad["product_id"]
    assert level2(*good, bad)[2:] == [(3, "B", "break"), (3, "E", "break")]


def test_rejected_frames_with_other_keys_count_in_the_sequence():
    new_key = {"channel": "user", "epoch": 1, **wire.advanced("user", 1, {"orders": []})}
    tables = decode(
        wire.change(0),
        new_key,
        odd_keys(wire.ticker(2, price="?")),
        odd_keys(wire.change(3, "ETH-USD", side="?")),
        wire.change(4),
    )
    assert not tables.rows["gaps"]
    assert kinds(tables.rows["level2"]) == [(1, "B", "bid 99.5"), (5, "B", "bid 99.5")]
    assert len({row["unbroken_since"] for row in tables.rows["level2"]}) == 1
    assert len(tables.rows["rejects"]) == 3


def test_a_line_that_is_too_long_is_read_by_its_usual_header():
    long = wire.record(wire.change(1) | {"foo": "x" * 5000})
    lines = [wire.change(0), long, wire.change(2)]
    tables = raw.decode([wire.segment(*lines)], longest_line=len(long) - 1)
    assert [(row["size"], row["raw"]) for row in tables.rows["rejects"]] == [(len(long), long[:4096])]
    assert not tables.rows["gaps"]
    assert kinds(tables.rows["level2"]) == [(1, "B", "bid 99.5"), (2, "B", "break"), (3, "B", "bid 99.5")]
    assert not raw.decode([wire.segment(*lines)], longest_line=len(long)).rows["rejects"]


# --- feeds


def test_a_switch_of_the_feed_is_a_new_connection():
    tables = decode(
        wire.record(wire.exchange_snapshot(time=at(1)), at(1)),
        wire.record(wire.change(7, timestamp=at(7)), at(2)),
        wire.record(wire.exchange_update(["buy", "99.5", "0"], time=at(3)), at(3)),
        wire.record(wire.match(1), at(4)),
        wire.record(wire.ticker(3), at(5)),
        wire.record(wire.ticker(5), at(6)),
    )
    assert kinds(tables.rows["level2"]) == [
        (1, "B", "bid 99.5"),
        (1, "B", "ask 100.5"),
        (2, "B", "break"),
        (2, "B", "bid 99.5"),
        (3, "B", "break"),
        (3, "B", "bid 99.5"),
        (5, "B", "break"),
    ]
    places = [(row["connection"], row["server_time"], row["unbroken_since"]) for row in tables.rows["level2"]]
    assert places[2:] == [
        *[(2, at_ns(7), at_ns(2))] * 2,
        *[(3, at_ns(3), at_ns(3))] * 2,
        (4, SERVER, at_ns(5)),
    ]
    # a switch is no gap; its first number is taken as a first one is, the next counts
    assert [
        (row["connection"], row["expected"], row["got"], row["products"]) for row in tables.rows["gaps"]
    ] == [(4, 4, 5, [])]
    assert tables.connections == 4


def test_a_switch_forgets_what_was_before_it():
    update = wire.exchange_update(["buy", "1", "1"])
    frame = wire.change(7)
    # the frames: the second is no repeat of the first
    assert connections(frame, wire.exchange_heartbeat(), frame) == (0, 3)
    # a lost line: the switch has broken all already
    assert level2(frame, b"?", update, update, wire.ticker(0)) == [
        (1, "B", "bid 99.5"),
        (3, "B", "break"),
        (3, "B", "bid 1"),
        (4, "B", "bid 1"),
        (5, "B", "break"),
    ]


def test_what_shows_no_feed_is_no_switch():
    nothing = [wire.error(), {"type": "open"}, b"?", {}, wire.match(1, price="x"), wire.error(timestamp=7)]
    update = wire.exchange_update(["buy", "1", "1"])
    assert connections(update, *nothing, update) == (0, 1)
    assert connections(wire.change(0), *nothing, wire.change(1)) == (0, 1)
    assert connections(*nothing, wire.change(1), *nothing, update) == (0, 2)


@pytest.mark.parametrize(
    ("line", "switch"),
    [
        (wire.change(None), True),
        (wire.error(sequence_num=0), True),
        ({"channel": "error"}, True),
        ({"channel": None}, False),
        ({"type": "open", "sequence_num": 0}, True),
        ({"type": "open", "sequence_num": None}, False),
        ({"type": "open", "sequence_num": "0"}, False),
        (wire.match(1, sequence_num=0), False),  # an unknown key of a frame that is understood
        (wire.line(wire.ticker(1))[:-1], True),
        ({"type": "l2update"}, False),
    ],
)
def test_what_shows_the_advanced_feed(line, switch):
    assert connections(wire.exchange_heartbeat(), line) == (0, 1 + switch)


def test_what_shows_the_exchange_feed():
    for line in (wire.match(1), wire.exchange_ack(), {"type": "l2update"}, {"bids": 1}):
        assert connections(wire.change(0), line) == (0, 2)


# --- markers

NOTHING = {"side": None, "price": None, "size": None, "event_time": None}


def kinds(rows):
    """Return (line, product, kind) of level2 rows."""
    return [(row["line"], row["product_id"][0], kind_of(row)) for row in rows]


def kind_of(row):
    if raw.is_marker(row):
        return "cleared" if row["is_snapshot"] else "break"
    return f"{row['side']} {row['price']:g}"


def level2(*lines):
    return kinds(decode(*lines).rows["level2"])


def event(product_id, *levels, kind="snapshot"):
    return wire.book(product_id, *(wire.update(*level) for level in levels), kind=kind)


BID = ("bid", "99", "1")
ASK = ("offer", "101", "1")


def test_a_gap_is_marked_where_a_frame_of_another_channel_shows_it():
    tables = decode(
        wire.record(wire.l2(0, event("ETH-USD", BID), event("BTC-USD", BID)), "2026-03-04T05:06:01Z"),
        wire.record(wire.trades(8, wire.trade("1"), timestamp=at(8)), "2026-03-04T05:06:08.1Z"),
        wire.record(wire.trades(9, wire.trade("2"), timestamp=at(9)), "2026-03-04T05:06:09.1Z"),
        wire.record(wire.change(10, "BTC-USD", timestamp=at(10)), "2026-03-04T05:06:10.1Z"),
    )
    place = {
        "server_time": at_ns(8),
        "capture_time": at_ns(8, 100_000_000),
        "sequence_num": 8,
        "stream": None,
        "connection": 1,
        "line": 2,
        "unbroken_since": at_ns(8, 100_000_000),
        "segment_index": 0,
    }
    rows = tables.rows["level2"]
    assert rows[2:4] == [
        {"product_id": product_id, "is_snapshot": False, **NOTHING, **place}
        for product_id in ("BTC-USD", "ETH-USD")
    ]
    assert kinds(rows) == [
        (1, "E", "bid 99"),
        (1, "B", "bid 99"),
        (2, "B", "break"),
        (2, "E", "break"),
        (4, "B", "bid 99.5"),
    ]
    assert rows[4]["unbroken_since"] == place["unbroken_since"]
    assert tables.markers == {"BTC-USD": 1, "ETH-USD": 1}
    assert tables.counts("level2") == {"BTC-USD": 2, "ETH-USD": 1}


def test_a_reconnect_is_marked_with_the_new_connection_and_before_the_changes_of_its_line():
    tables = decode(
        wire.snapshot(0, timestamp=at(0)),
        wire.change(1, "ETH-USD", timestamp=at(1)),
        wire.ticker(0),
        wire.snapshot(1, timestamp=at(3)),
        wire.l2(0, event("ETH-USD", BID, kind="update"), event("BTC-USD", BID), timestamp=at(4)),
    )
    assert [
        (*kind, row["connection"]) for kind, row in zip(level2_of(tables), after(tables), strict=True)
    ] == [
        *((3, "B", "break", 2), (3, "E", "break", 2)),
        *((4, "B", f"{side} {price}", 2) for side, price in LEVELS),
        # the last row of ETH-USD is the marker of a break still
        *((5, "B", "break", 3), (5, "E", "bid 99", 3), (5, "B", "bid 99", 3)),
    ]


LEVELS = [("bid", "99.5"), ("bid", "99"), ("ask", "100.5"), ("ask", "101")]


def after(tables):
    """Return the level2 rows after the first two lines."""
    return [row for row in tables.rows["level2"] if row["line"] > 2]


def level2_of(tables):
    return kinds(after(tables))


def test_only_products_with_rows_are_marked_and_only_once():
    lines = [
        wire.ticker(5),
        wire.ticker(7),
        wire.change(9),
        wire.ticker(11),
        wire.ticker(13),
        wire.change(15),
    ]
    assert level2(*lines) == [(3, "B", "bid 99.5"), (4, "B", "break"), (6, "B", "bid 99.5")]
    # the run goes on being broken all the same
    assert [row["unbroken_since"] - SERVER for row in decode(*lines).rows["level2"]] == [2, 3, 5]


def test_markers_are_written_across_segments():
    tables = raw.decode([wire.segment(wire.snapshot(0)), wire.segment(wire.ticker(5), wire.ticker(9))])
    assert [(row["segment_index"], *kinds([row])[0]) for row in tables.rows["level2"]][4:] == [
        (1, 1, "B", "break")
    ]


def test_a_repeat_marks_nothing():
    bad = wire.change(1, "ETH-USD", side="?")
    lines = [wire.change(0, "ETH-USD"), bad, wire.change(2, "ETH-USD"), bad, wire.change(2, "ETH-USD")]
    assert level2(*lines) == [(1, "E", "bid 99.5"), (2, "E", "break"), (3, "E", "bid 99.5")]


def test_a_rejected_level2_line_marks_its_products_only():
    bad = wire.record(wire.change(2, "ETH-USD", side="?", timestamp=at(29)), "2026-03-04T05:06:30Z")
    tables = decode(wire.change(0), wire.change(1, "ETH-USD"), bad, wire.change(3), wire.change(4, "ETH-USD"))
    assert level2_of(tables) == [(3, "E", "break"), (4, "B", "bid 99.5"), (5, "E", "bid 99.5")]
    mark = after(tables)[0]
    assert (mark["server_time"], mark["capture_time"], mark["sequence_num"]) == (at_ns(29), at_ns(30), 2)
    assert mark["unbroken_since"] == after(tables)[2]["unbroken_since"] == at_ns(30)
    # without rows of the product before, there is nothing to mark
    assert level2(wire.change(1), bad, wire.change(3)) == [(1, "B", "bid 99.5"), (3, "B", "bid 99.5")]


def test_a_rejected_line_that_shows_a_gap_too_marks_each_product_once():
    bad = wire.change(5, "ETH-USD", side="?")
    tables = decode(wire.change(0), wire.change(1, "ETH-USD"), bad, wire.change(6), wire.change(7, "ETH-USD"))
    assert level2_of(tables)[:2] == [(3, "B", "break"), (3, "E", "break")]
    # the marker names the run after both breaks
    assert [row["unbroken_since"] - SERVER for row in after(tables)] == [1, 2, 1, 2]


def test_a_rejected_line_without_a_header_is_marked_where_the_next_frame_shows_the_break():
    assert level2(wire.change(0), b"", wire.ticker(1), wire.change(2)) == [
        (1, "B", "bid 99.5"),
        (4, "B", "bid 99.5"),
    ]
    assert level2(wire.change(0), b"", wire.ticker(2), wire.change(3)) == [
        (1, "B", "bid 99.5"),
        (3, "B", "break"),
        (4, "B", "bid 99.5"),
    ]
    update = wire.exchange_update(["buy", "1", "1"])
    assert level2(update, b"?", wire.match(1), update) == [
        (1, "B", "bid 1"),
        (3, "B", "break"),
        (4, "B", "bid 1"),
    ]


def test_an_empty_snapshot_is_a_marker_and_breaks_nothing():
    tables = decode(
        wire.record(wire.l2(0, event("BTC-USD"), timestamp=at(0))),
        wire.record(wire.change(1)),
        wire.record(
            wire.l2(2, event("ETH-USD", BID), event("BTC-USD"), event("ETH-USD", ASK, kind="update"))
        ),
        wire.record(wire.change(3)),
    )
    rows = tables.rows["level2"]
    assert rows[0] == {
        "product_id": "BTC-USD",
        "is_snapshot": True,
        **NOTHING,
        **FRAME,
        "server_time": at_ns(0),
        "sequence_num": 0,
        "line": 1,
        "unbroken_since": CAPTURE,
    }
    assert kinds(rows) == [
        (1, "B", "cleared"),
        (2, "B", "bid 99.5"),
        (3, "E", "bid 99"),
        (3, "B", "cleared"),
        (3, "E", "ask 101"),
        (4, "B", "bid 99.5"),
    ]
    assert {row["unbroken_since"] for row in rows} == {CAPTURE}
    assert tables.markers["BTC-USD"] == 2
    # an update without levels is nothing
    assert level2(wire.l2(0, event("BTC-USD", kind="update"))) == []


def test_a_break_after_an_empty_snapshot_is_marked():
    lines = wire.l2(0, event("BTC-USD")), wire.ticker(2), wire.l2(4, event("BTC-USD"))
    assert level2(*lines) == [(1, "B", "cleared"), (2, "B", "break"), (3, "B", "cleared")]


def test_an_empty_snapshot_of_the_exchange_feed():
    rows = decode(
        wire.exchange_snapshot(bids=[], asks=[], time=at(1)),
        wire.exchange_snapshot(bids=[["1", "0"]], asks=[]),
    ).rows["level2"]
    assert kinds(rows) == [(1, "B", "cleared"), (2, "B", "bid 1")]
    assert (rows[0]["server_time"], rows[0]["event_time"]) == (at_ns(1), None)


def test_a_second_snapshot_in_a_frame_begins_with_a_marker():
    assert level2(
        wire.l2(
            0,
            event("BTC-USD", BID),
            event("ETH-USD", BID),
            event("BTC-USD", BID, kind="update"),
            event("BTC-USD", ASK),
            event("BTC-USD"),
            event("BTC-USD", ASK),
        ),
        wire.l2(1, event("BTC-USD", BID)),
        wire.l2(2, event("BTC-USD"), event("BTC-USD"), event("BTC-USD", BID)),
    ) == [
        (1, "B", "bid 99"),
        (1, "E", "bid 99"),
        (1, "B", "bid 99"),
        (1, "B", "cleared"),
        (1, "B", "ask 101"),
        (1, "B", "cleared"),
        (1, "B", "cleared"),
        (1, "B", "ask 101"),
        (2, "B", "bid 99"),
        *[(3, "B", "cleared")] * 3,
        (3, "B", "bid 99"),
    ]


# --- headers of rejected lines


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b'{"channel":"x","timestamp":"2026-03-04T05:06:07Z","sequence_num":5,"events":[', True),
        (b'{ "sequence_num" : 5 ,\t"timestamp":"2026-03-04T05:06:07Z","channel":"x", "events" : [', True),
        (
            b'{"channel":"x","client_id":"","timestamp":"1970-01-01T00:00:00Z","sequence_num":0,"events":[',
            True,
        ),
        (b'{"channel":"x","timestamp":"2026-03-04T05:06:07","sequence_num":5,"events":[', False),
        (b'{"channel":"x","timestamp":"2026-03-04T05:06:07Z","sequence_num":05,"events":[', False),
        (b'{"channel":"x","timestamp":"2026-03-04T05:06:07Z","sequence_num":5.0,"events":[', False),
        (
            b'{"channel":"x","timestamp":"2026-03-04T05:06:07Z","sequence_num":1234567890123456789,"events":[',
            False,
        ),
        (b'{"channel":"\\u0078","timestamp":"2026-03-04T05:06:07Z","sequence_num":5,"events":[', False),
        (b'{"channel":"x","timestamp":"2026-03-04T05:06:07Z","events":[', False),
        (b'{"channel":"x","timestamp":"2026-03-04T05:06:07Z","events":[],"sequence_num":5', False),
        (
            b'{"channel":"x","channel":"x","timestamp":"2026-03-04T05:06:07Z","sequence_num":5,"events":[',
            False,
        ),
        (b'{"channel":"x","foo":1,"timestamp":"2026-03-04T05:06:07Z","sequence_num":5,"events":[', False),
        (b'{"data":{"channel":"x","timestamp":"2026-03-04T05:06:07Z","sequence_num":5,"events":[', False),
    ],
)
def test_headers_that_can_be_read(line, read):
    assert (raw.outline(line) is not None) == read
