"""Pins the oracle itself: rows written by hand from the facts about the feeds."""

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
    row = {"product_id": "BTC-USD", "price": 100.0, "size": 0.5, "trade_time": EVENT}
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
    lines = [b"", b"\xef\xbb\xbf" + wire.record(wire.change(0)), wire.record(wire.change(1)), b"{", b" \t"]
    rows = raw.decode([b"\n".join(lines)]).rows
    offsets = [0, 1, 1 + len(lines[1]) + 1 + len(lines[2]) + 1]
    assert [(row["line"], row["byte_offset"], row["raw"]) for row in rows["rejects"]] == [
        (1, offsets[0], lines[0]),
        (2, offsets[1], lines[1]),
        (4, offsets[2], b"{"),
        (5, offsets[2] + 2, b" \t"),
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
        b'{"type":"error"}\r',
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
        wire.change(7, timestamp=at(7), size="99"),
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
    for bad in (whole[:-30], whole + b"\r", whole + whole, whole.replace(b"ETH", b"\\u0045TH")[:-1]):
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
    hidden = b'{"data":' + wire.line(wire.change(1))
    assert runs(wire.change(0), wire.change(0, "ETH-USD"), hidden, wire.change(2)) == [
        (1, "B", 0),
        (4, "B", 1),
    ]


def test_a_rejected_line_stays_open_until_a_frame_tells():
    """A repeat and frames without a number tell nothing."""
    assert runs(wire.change(0), b"", wire.change(0), wire.error(), wire.change(1)) == [
        (1, "B", 0),
        (5, "B", 0),
    ]
    assert runs(wire.change(0), b"", wire.exchange_update(["buy", "1", "1"], time=None), wire.change(1)) == [
        (1, "B", 0),
        (3, "B", 1),
        (4, "B", 1),
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
