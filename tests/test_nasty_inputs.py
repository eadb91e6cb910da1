"""Nasty inputs that the feeds, the recorder and crashes really produce: each keeps its number in the list.

Every one is also compared, in every table, with the oracle.
"""

import json

import laws
import polars as pl
import pytest
import tiers
import wire

import cbtools as cb

pytestmark = pytest.mark.more

SERVER = 1_772_600_767_089_101_000  # wire.TIMESTAMP
CAPTURE = 1_772_600_767_123_456_000  # wire.CAPTURE_TS
EVENT = 1_772_600_766_950_001_000  # wire.EVENT_TIME


@pytest.fixture
def read(tmp_path):
    """Read lines as one segment; `read_raw`, `scan_raw` and the oracle agree."""

    def _read(*lines):
        return read_segments(wire.segment(*lines))

    def read_segments(*segments):
        got = laws.same_as_oracle(list(segments), tmp_path)
        laws.scan_is_read(list(segments), tmp_path, got)
        return got

    _read.segments = read_segments
    return _read


def at(second):
    return f"2026-03-04T05:06:{second:02d}Z"


def at_ns(second):
    return 1_772_600_760_000_000_000 + second * 1_000_000_000


def column(frame, name):
    return laws.plain(frame[name])


def rows(frame, *names):
    return list(zip(*(column(frame, name) for name in names), strict=True))


def floats(frame, name):
    return frame[name].to_list()


def changes(raw):
    """Return the rows of level2 that change a level: all but the markers."""
    return raw.level2.filter(pl.col("side").is_not_null())


def breaks(raw):
    """Return (line, product) of the markers of breaks."""
    marked = raw.level2.filter(pl.col("side").is_null() & ~pl.col("is_snapshot"))
    return rows(marked, "line", "product_id")


def runs(raw):
    """Return (line, product, run) of the level changes, the runs numbered in the order of their names."""
    names = sorted(set(column(changes(raw), "unbroken_since")))
    return [
        (line, product_id, names.index(name))
        for line, product_id, name in rows(changes(raw), "line", "product_id", "unbroken_since")
    ]


def rejected(raw, *expected):
    """Check the places and bytes of the rejected lines."""
    assert rows(raw.rejects, "line", "byte_offset", "raw") == list(expected)
    assert sum(raw.report.rejects.values()) == len(expected)


# --- 1-5


@pytest.mark.ci
def test_01_a_line_of_5_megabytes(read):
    bids = [wire.update("bid", f"{70000 - 0.01 * level:.2f}", f"0.{level:08d}") for level in range(1, 20_001)]
    asks = [
        wire.update("offer", f"{70000 + 0.01 * level:.2f}", f"1.{level:08d}") for level in range(1, 20_001)
    ]
    big = wire.record(wire.l2(1, wire.book("BTC-USD", *bids, *asks, kind="snapshot")))
    assert len(big) > 4_400_000
    raw = read(
        wire.record(wire.ack(0, level2=["BTC-USD"])), big, wire.record(wire.change(2, price="69999.99"))
    )
    assert raw.level2.height == 40_001
    assert floats(raw.level2[[0, 19_999, 39_999]], "price") == [69999.99, 69800.0, 70200.0]
    assert floats(raw.level2[[0, 19_999, 39_999]], "size") == [1e-8, 0.0002, 1.0002]
    assert column(raw.level2, "line") == [2] * 40_000 + [3]
    assert raw.subscriptions.height == 1


def reordered(value):
    """Turn the order of the keys of every object round."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(one) for one in value] if isinstance(value, list) else value


PLAIN = [wire.snapshot(0), wire.change(1), wire.trades(2, wire.trade("5"), wire.trade("4")), wire.ticker(3)]


def same_messages(got, expected):
    for table in ("level2", "market_trades", "ticker"):
        laws.assert_same(getattr(got, table), getattr(expected, table), table)
        assert getattr(got, table).height


def test_02_client_id_is_missing(read):
    without = [{key: value for key, value in frame.items() if key != "client_id"} for frame in PLAIN]
    raw = read(*without)
    same_messages(raw, read(*PLAIN))
    assert not raw.report.unknown_keys


def test_02_another_key_order(read):
    raw = read(*(wire.line(reordered(wire.envelope(frame))) for frame in PLAIN))
    same_messages(raw, read(*(wire.record(frame) for frame in PLAIN)))


@pytest.mark.parametrize("style", ["spaces", "tabs", "around"])
def test_02_white_space(read, style):
    if style == "around":
        lines = [b" \t" + wire.record(frame) + b"\t " for frame in PLAIN]
    else:
        separators = (" , ", " : ") if style == "spaces" else ("\t,\t", "\t:")
        lines = [json.dumps(wire.envelope(frame), separators=separators).encode() for frame in PLAIN]
    same_messages(read(*lines), read(*(wire.record(frame) for frame in PLAIN)))


def test_02_unknown_keys_are_counted_and_change_nothing(read):
    frames = [frame | {"foo": {"a": [1, {"b": None}]}} for frame in PLAIN]
    frames[0]["events"] = [event | {"bar": True} for event in frames[0]["events"]]
    frames[1]["events"][0]["updates"][0] = wire.update("bid", "99.5", "7") | {"foo": "x", "": 1}
    lines = [wire.line(wire.envelope(frame) | {"foo": 1.5}) for frame in frames]
    raw = read(*lines)
    same_messages(raw, read(*(wire.record(frame) for frame in PLAIN)))
    counts = raw.report.unknown_keys
    assert (counts["envelope.foo"], counts["frame.foo"], counts["l2_data.updates.foo"]) == (4, 4, 1)
    assert sum(counts.values()) == 4 + 4 + 1 + 1 + 1


def test_02_unknown_keys_of_rejected_lines_are_not_counted(read):
    raw = read(wire.change(0, side="?") | {"foo": 1}, wire.change(1))
    assert not raw.report.unknown_keys


@pytest.mark.parametrize("value", [7, "7", {"": 1}, [{}], None, "x"])
def test_02_a_key_without_a_name_is_an_unknown_key(read, value):
    """It fills no column that the message has no key for."""
    frames = [wire.exchange_ticker(), wire.match(1), wire.change(0)]
    raw = read(*({**frame, "": value} for frame in frames))
    assert raw.rejects.height == 0
    assert raw.ticker.select("low_52w", "high_52w", "price_pct_chg_24h").row(0) == (None, None, None)
    assert sum(raw.report.unknown_keys.values()) == 3


def test_02_unknown_keys_of_dropped_repeats_are_not_counted(read):
    frame = wire.change(0) | {"foo": 1}
    raw = read(frame, frame)
    assert raw.report.duplicates == 1
    assert sum(raw.report.unknown_keys.values()) == 1


def test_02_bare_frames_and_envelopes(read):
    raw = read(wire.change(0), wire.record(wire.change(1)), wire.record(wire.change(2), None))
    assert column(raw.level2, "capture_time") == [None, CAPTURE, None]
    assert column(raw.level2, "unbroken_since") == [SERVER] * 3
    bare = wire.line({"data": wire.change(3)})
    only_source = wire.line(wire.envelope(wire.change(4), metadata={}))
    assert read(bare, only_source).level2.height == 2


def test_03_error_frames(read):
    raw = read(
        wire.record(wire.change(0)),
        wire.record(wire.error("slow down", reason="rate limit")),
        wire.record(wire.error("failure")),
        wire.record(wire.change(1)),
    )
    assert rows(raw.errors, "message", "reason", "sequence_num", "connection", "line") == [
        ("slow down", "rate limit", None, 1, 2),
        ("failure", None, None, 1, 3),
    ]
    assert (raw.report.errors, raw.report.gaps, raw.report.lost_frames) == (2, 0, 0)
    assert runs(raw) == [(1, "BTC-USD", 0), (4, "BTC-USD", 0)]
    assert raw.rejects.height == 0


def test_03_an_error_channel(read):
    raw = read(wire.change(0), {"channel": "error", "message": "no"}, wire.change(1))
    assert rows(raw.errors, "message", "line") == [("no", 2)]
    assert raw.gaps.height == 0


def test_03_error_frames_with_a_number_count_in_the_sequence(read):
    raw = read(
        wire.record(wire.change(0)),
        wire.record(wire.error("failure", sequence_num=1, timestamp=at(3))),
        wire.record({"channel": "error", "message": "no", "sequence_num": 2}),
        wire.record(wire.change(3)),
    )
    assert rows(raw.errors, "message", "sequence_num", "server_time") == [
        ("failure", 1, at_ns(3)),
        ("no", 2, None),
    ]
    assert (raw.report.gaps, raw.rejects.height) == (0, 0)
    assert runs(raw) == [(1, "BTC-USD", 0), (4, "BTC-USD", 0)]


@pytest.mark.parametrize("side", ["buy", "BID", "asks", "", None, 1, "off\\er"])
def test_04_unknown_side(read, side):
    lines = [
        wire.record(wire.l2(0, wire.book("BTC-USD", wire.update("bid", "1", "1")))),
        wire.record(wire.change(1, "ETH-USD")),
        wire.record(
            wire.l2(2, wire.book("ETH-USD", wire.update("bid", "1", "1"), wire.update(side, "2", "1")))
        ),
        wire.record(wire.change(3)),
        wire.record(wire.change(4, "ETH-USD")),
    ]
    raw = read(*lines)
    rejected(raw, (3, len(lines[0]) + len(lines[1]) + 2, lines[2]))
    assert raw.gaps.height == 0
    assert runs(raw) == [(1, "BTC-USD", 0), (2, "ETH-USD", 0), (4, "BTC-USD", 0), (5, "ETH-USD", 1)]
    assert breaks(raw) == [(3, "ETH-USD")]


@pytest.mark.parametrize("name", ["unbroken_since", "price", "line", "connection"])
def test_04_a_scan_of_one_column_knows_the_broken_products(tmp_path, name):
    lines = [wire.change(0), wire.change(1, "ETH-USD", side="?"), wire.change(2, "ETH-USD"), wire.change(4)]
    (path,) = laws.write_segments([wire.segment(*(wire.record(line) for line in lines))], tmp_path)
    whole = laws.same_as_oracle(path, tmp_path).level2
    laws.assert_same(cb.scan_raw(path, "level2").select(name).collect(), whole.select(name), name)


def test_04_ask_is_a_side(read):
    raw = read(wire.change(0, side="offer"), wire.change(1, side="ask"), wire.change(2, side="bid"))
    assert column(raw.level2, "side") == ["ask", "ask", "bid"]


ZEROS = ["0", "0.0", "0.00000000", "00", "0e5", "0.0E-3", "0e+0", 0, 0.0]


@pytest.mark.parametrize("zero", ZEROS)
def test_05_any_spelling_of_zero(read, zero):
    raw = read(wire.record(wire.snapshot(0)), wire.record(wire.change(1, size=zero)))
    assert laws.plain(raw.level2["size"])[-1] == (0.0).hex()
    assert raw.rejects.height == 0


def test_05_an_absent_level_is_deleted(read):
    raw = read(wire.snapshot(0), wire.change(1, price="12345", size="0"))
    assert rows(raw.level2[-1], "side", "line") == [("bid", 2)]
    assert floats(raw.level2[-1], "price") == [12345.0]


# --- 6-10


def test_06_an_update_before_any_snapshot(read):
    raw = read(wire.change(0), wire.snapshot(1))
    assert column(raw.level2, "is_snapshot") == [False, True, True, True, True]
    assert runs(raw)[0] == (1, "BTC-USD", 0)


def test_07_a_jump_of_the_sequence(read):
    raw = read(
        wire.record(wire.snapshot(40), at(1)),
        wire.record(wire.change(41, "ETH-USD"), at(2)),
        wire.record(wire.ticker(42, "SOL-USD"), at(3)),
        wire.record(wire.change(45, "ADA-USD"), at(4)),
        wire.record(wire.change(46), at(5)),
        wire.record(wire.change(48), at(6)),
    )
    assert rows(raw.gaps, "connection", "expected", "got", "capture_time", "line", "products") == [
        (1, 43, 45, at_ns(4), 4, ["BTC-USD", "ETH-USD"]),
        (1, 47, 48, at_ns(6), 6, ["ADA-USD", "BTC-USD", "ETH-USD"]),
    ]
    assert (raw.report.gaps, raw.report.lost_frames, raw.report.connections) == (2, 3, 1)
    names = column(changes(raw), "unbroken_since")
    assert names == [at_ns(1)] * 5 + [at_ns(4)] * 2 + [at_ns(6)]
    assert breaks(raw) == [(4, "BTC-USD"), (4, "ETH-USD"), (6, "ADA-USD"), (6, "BTC-USD")]


def test_07_a_jump_seen_by_a_frame_of_another_channel(read):
    raw = read(wire.snapshot(0), wire.heartbeat(2, "now", 1), wire.change(3))
    assert rows(raw.gaps, "expected", "got", "line", "capture_time") == [(1, 2, 2, None)]
    assert column(raw.level2, "unbroken_since") == [SERVER] * 4 + [SERVER + 1] * 2
    assert rows(raw.level2[4:], "side", "line", "sequence_num") == [(None, 2, 2), ("bid", 3, 3)]


def test_07_a_gap_names_the_products_that_had_rows(read):
    """A rejected line gives no rows."""
    bad = wire.record(wire.change(0, "ETH-USD", side="?"))
    raw = read(bad, bad, wire.record(wire.ticker(1)), wire.record(wire.ticker(3)))
    assert raw.report.connections == 1
    assert rows(raw.gaps, "line", "products") == [(4, [])]
    assert raw.level2.height == 0


def test_08_the_sequence_falls_back_to_0(read):
    raw = read(
        wire.record(wire.snapshot(8), at(1)),
        wire.record(wire.change(9), at(2)),
        wire.record(wire.ack(0, level2=["BTC-USD"]), at(3)),
        wire.record(wire.snapshot(1), at(4)),
    )
    assert raw.gaps.height == 0
    assert raw.report.connections == 2
    assert column(changes(raw), "connection") == [1] * 5 + [2] * 4
    assert column(changes(raw), "unbroken_since") == [at_ns(1)] * 5 + [at_ns(3)] * 4
    assert breaks(raw) == [(3, "BTC-USD")]
    marker = rows(raw.level2[5], "sequence_num", "connection", "unbroken_since", "capture_time")
    assert marker == [(0, 2, at_ns(3), at_ns(3))]
    assert column(raw.subscriptions, "connection") == [2]


def test_08_the_sequence_falls_back_to_a_small_number(read):
    raw = read(
        wire.record(wire.snapshot(8), at(1)),
        wire.record(wire.change(2), at(2)),
        wire.record(wire.change(4), at(3)),
    )
    assert rows(raw.gaps, "connection", "expected", "got", "line", "products") == [
        (2, 0, 2, 2, []),
        (2, 3, 4, 3, ["BTC-USD"]),
    ]
    assert column(changes(raw), "connection")[-2:] == [2, 2]
    assert rows(raw.level2[4:], "line", "side", "connection") == [
        (2, None, 2),
        (2, "bid", 2),
        (3, None, 2),
        (3, "bid", 2),
    ]


def test_08_a_number_seen_before_at_another_time_is_a_new_connection(read):
    raw = read(
        wire.change(0, timestamp=at(1)), wire.change(1, timestamp=at(2)), wire.change(1, timestamp=at(3))
    )
    assert (raw.report.connections, raw.report.duplicates, raw.report.gaps) == (2, 0, 1)
    assert rows(raw.gaps, "connection", "expected", "got") == [(2, 0, 1)]
    assert breaks(raw) == [(3, "BTC-USD")]


def test_09_a_repeat_is_the_same_content(read):
    """Beside capture_ts: another frame with its number, time and channel is one of another connection."""
    frames = [wire.snapshot(0), wire.snapshot(0, "ETH-USD"), wire.change(1, "ETH-USD"), wire.change(1)]
    raw = read(*(wire.record(frame, at(second)) for second, frame in enumerate(frames)))
    assert (raw.report.duplicates, raw.report.connections) == (0, 3)
    assert set(column(changes(raw), "line")) == {1, 2, 3, 4}
    again = read(*(wire.record(wire.change(1), at(second)) for second in range(3)))
    assert (again.report.duplicates, again.report.connections) == (2, 1)


def test_09_exact_repeats(read):
    frames = [wire.record(wire.change(number, timestamp=at(number))) for number in range(5)]
    raw = read(*frames, *frames[2:], wire.record(wire.change(5, timestamp=at(5))))
    assert (raw.report.duplicates, raw.report.connections, raw.report.gaps) == (3, 1, 0)
    assert column(raw.level2, "sequence_num") == [0, 1, 2, 3, 4, 5]
    assert column(raw.level2, "line") == [1, 2, 3, 4, 5, 9]
    assert len(set(column(raw.level2, "unbroken_since"))) == 1


@pytest.mark.parametrize(("number", "repeats"), [(2, 1), (1, 0)])
def test_09_the_last_1024_frames_are_remembered(read, number, repeats):
    lines = [wire.record(wire.heartbeat(one, "now", one)) for one in range(1026)]
    raw = read(*lines, lines[number])
    assert (raw.report.duplicates, raw.report.connections) == (repeats, 2 - repeats)


def test_09_repeats_of_every_channel_are_dropped_whole(read):
    frames = [
        wire.snapshot(0),
        wire.trades(1, wire.trade("5"), wire.trade("6")),
        wire.ticker(2),
        wire.candles(3, wire.candle()),
        wire.heartbeat(4, "now", 1),
        wire.status(5, wire.product()),
        wire.ack(6, level2=["BTC-USD"]),
    ]
    raw = read(*frames, *frames)
    assert (raw.report.duplicates, dict(raw.report.duplicate_trades)) == (7, {})
    assert raw.market_trades.height == 2
    assert raw.heartbeats.height == 1


def test_09_a_rejected_repeat_is_a_reject_and_no_break(read):
    bad = wire.record(wire.change(1, side="?"))
    lines = [wire.record(wire.change(0)), bad, wire.record(wire.change(2)), bad, wire.record(wire.change(3))]
    raw = read(*lines)
    assert (raw.report.duplicates, raw.report.connections) == (0, 1)
    assert column(raw.rejects, "line") == [2, 4]
    assert runs(raw) == [(1, "BTC-USD", 0), (3, "BTC-USD", 1), (5, "BTC-USD", 1)]
    assert breaks(raw) == [(2, "BTC-USD")]


def test_10_a_recording_known_to_lack_frames(read):
    """One frame is swallowed after each subscribe, and the heartbeats are dropped: all is kept and told."""
    raw = read(*(wire.record(wire.change(number), at(number)) for number in (1, 2, 4, 5, 7, 8, 10)))
    assert changes(raw).height == 7
    assert (raw.report.gaps, raw.report.lost_frames) == (3, 3)
    assert [run for _, _, run in runs(raw)] == [0, 0, 1, 1, 2, 2, 3]
    assert breaks(raw) == [(3, "BTC-USD"), (5, "BTC-USD"), (7, "BTC-USD")]
    assert raw.report.markers == {"BTC-USD": 3}
    assert raw.report.rows["level2"] == {"BTC-USD": 7}


# --- 11-15


def test_11_a_snapshot_in_mid_stream(read):
    raw = read(wire.snapshot(0), wire.change(1), wire.snapshot(2), wire.change(3))
    assert column(raw.level2, "is_snapshot") == [True] * 4 + [False] + [True] * 4 + [False]
    assert len(set(column(raw.level2, "unbroken_since"))) == 1


def test_12_an_ack_without_snapshot(read):
    raw = read(wire.snapshot(0), wire.ack(1, level2=["BTC-USD"], ticker=["BTC-USD"]), wire.change(2))
    assert rows(raw.subscriptions, "channel", "product_ids", "sequence_num") == [
        ("level2", ["BTC-USD"], 1),
        ("ticker", ["BTC-USD"], 1),
    ]
    assert len(set(column(raw.level2, "unbroken_since"))) == 1
    assert raw.gaps.height == 0


def test_13_an_unsorted_snapshot_and_a_level_twice(read):
    levels = [
        ("bid", "9", "1"),
        ("offer", "12", "2"),
        ("bid", "10", "3"),
        ("offer", "11", "4"),
        ("bid", "9", "5"),
    ]
    raw = read(wire.l2(0, wire.book("BTC-USD", *(wire.update(*level) for level in levels), kind="snapshot")))
    assert floats(raw.level2, "price") == [9.0, 12.0, 10.0, 11.0, 9.0]
    assert floats(raw.level2, "size") == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert column(raw.level2, "side") == ["bid", "ask", "bid", "ask", "bid"]


def test_14_joke_levels(read):
    prices = ["138991023.41", "0.01", "0.00000001", "99999999999999999999", "123456789012345.67"]
    sizes = ["65000", "0.00000001", "100000000000", "1e-8", "1e11"]
    pairs = zip(prices, sizes, strict=True)
    raw = read(wire.l2(0, wire.book("BTC-USD", *(wire.update("offer", *pair) for pair in pairs))))
    assert floats(raw.level2, "price") == [float(price) for price in prices]
    assert floats(raw.level2, "size") == [float(size) for size in sizes]


@pytest.mark.parametrize(
    "nothing",
    [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:00+00:00",
        "1970-01-01T00:00:00.000000000-00:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00.000000Z",
    ],
)
def test_15_times_that_are_none(read, nothing):
    event = wire.book("BTC-USD", wire.update("bid", "1", "2", nothing), wire.update("bid", "2", "2"))
    raw = read(
        wire.record(wire.l2(0, event, timestamp=nothing), nothing),
        wire.record(wire.trades(1, wire.trade("1", time=nothing))),
    )
    assert column(raw.level2, "event_time") == [None, EVENT]
    assert column(raw.level2, "server_time") == [None, None]
    assert column(raw.level2, "capture_time") == [None, None]
    assert column(raw.level2, "unbroken_since") == [0, 0]
    assert column(raw.market_trades, "trade_time") == [None]
    exchange = read(
        wire.record(wire.exchange_update(["buy", "1", "1"], time=nothing)),
        wire.record(wire.match(3, time=nothing)),
    )
    for table in (exchange.level2, exchange.market_trades):
        assert rows(table, "server_time", "capture_time") == [(None, CAPTURE)]
    assert column(exchange.level2, "event_time") == column(exchange.market_trades, "trade_time") == [None]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00+01:00", -3_600_000_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
    ],
)
def test_15_times_beside_the_epoch(read, text, nanoseconds):
    raw = read(
        wire.record(wire.l2(0, wire.book("BTC-USD", wire.update("bid", "1", "2", text)), timestamp=text))
    )
    assert column(raw.level2, "event_time") == [nanoseconds]
    assert column(raw.level2, "server_time") == [nanoseconds]


# --- 16-20


@pytest.mark.parametrize("zone", ["Z", "+00:00", "-00:00"])
@tiers.parametrize("digits", range(10), every=4)
def test_16_fraction_digits(read, digits, zone):
    fraction = "987654321"[:digits]
    text = "2026-03-04T05:06:07" + ("." + fraction if digits else "") + zone
    nanoseconds = at_ns(7) + int(fraction.ljust(9, "0"))
    event = wire.book("BTC-USD", wire.update("bid", "1", "2", text))
    raw = read(
        wire.record(wire.l2(0, event, timestamp=text), text),
        wire.record(wire.trades(1, wire.trade("1", time=text), timestamp=text), text),
    )
    for name in ("event_time", "server_time", "capture_time", "unbroken_since"):
        assert column(raw.level2, name) == [nanoseconds]
    for name in ("trade_time", "server_time", "capture_time"):
        assert column(raw.market_trades, name) == [nanoseconds]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-03-04T06:06:07+01:00", 7),
        ("2026-03-04T10:36:07+05:30", 7),
        ("2026-03-03T21:06:07-08:00", 7),
        ("2026-03-05T05:05:09+23:59", 9),
        ("2026-03-03T05:07:09-23:59", 9),
    ],
)
def test_16_another_offset_is_converted(read, text, seconds):
    raw = read(wire.record(wire.change(0, timestamp=text), text))
    assert column(raw.level2, "server_time") == [at_ns(seconds)]
    assert column(raw.level2, "capture_time") == [at_ns(seconds)]


ILLEGAL_TIMES = [
    "2026-03-04T05:06:07",
    "2026-03-04T05:06:07.123456",
    "2026-03-04 05:06:07Z",
    "2026-03-04t05:06:07Z",
    "2026-03-04T05:06:07z",
    "2026-03-04T05:06:07.Z",
    "2026-03-04T05:06:07.1234567891Z",
    "2026-03-04T05:06:07+0000",
    "2026-03-04T05:06:07+24:00",
    "2026-02-30T05:06:07Z",
    "2025-02-29T05:06:07Z",
    "2026-03-04T24:00:00Z",
    "2026-03-04T05:06:60Z",
    "2262-04-11T23:47:16.854775808Z",
    "1600-01-01T00:00:00Z",
    "",
    "now",
    1772600767,
    True,
    {},
]


CAPTURE_TS = {
    "2026-03-04T05:06:07": ["capture_ts without a zone"],
    "2026-03-04T05:06:07.123456": ["capture_ts without a zone"],
    "2026-03-04 05:06:07Z": ["capture_ts with a space"],
    "2026-03-04 05:06:07": ["capture_ts with a space", "capture_ts without a zone"],
    "2026-03-04T05:06:07+0000": ["capture_ts with an offset like +0000"],
    "2026-03-04 10:36:07+0530": ["capture_ts with a space", "capture_ts with an offset like +0000"],
    1772600767: ["capture_ts as an epoch"],
    1772600767000: ["capture_ts as an epoch"],
    1772600767000000: ["capture_ts as an epoch"],
    1772600767000000000: ["capture_ts as an epoch"],
    1772600767.123456: ["capture_ts as an epoch"],
    "1772600767123.456": ["capture_ts as an epoch"],
}


@tiers.parametrize("capture_ts", CAPTURE_TS, every=4)
def test_16_other_forms_of_capture_ts_are_read_and_counted(read, capture_ts):
    """Of the recorder's own clock only; an exchange's time in these forms is rejected."""
    raw = read(wire.record(wire.change(0), capture_ts))
    fraction = 123_456_000 if "123" in str(capture_ts) else 0
    assert column(raw.level2, "capture_time") == [at_ns(7) + fraction]
    assert raw.report.unusual == dict.fromkeys(CAPTURE_TS[capture_ts], 1)


@pytest.mark.parametrize("capture_ts", [0, 0.0, "0", None])
def test_16_a_capture_ts_that_is_none(read, capture_ts):
    assert column(read(wire.record(wire.change(0), capture_ts)).level2, "capture_time") == [None]


ILLEGAL_CAPTURE_TS = [
    *(text for text in ILLEGAL_TIMES if not isinstance(text, str | int) or text not in CAPTURE_TS),
    *(-1, 9223372037, 2**63, ".5", "1.", "1e9", "-1", "2026-03-04", "2026-03-04 05:06:07+00"),
]


@tiers.parametrize("capture_ts", ILLEGAL_CAPTURE_TS, every=5)
def test_16_illegal_capture_ts(read, capture_ts):
    line = wire.record(wire.change(0), capture_ts)
    rejected(read(line), (1, 0, line))


@pytest.mark.parametrize("place", ["server", "event", "trade", "exchange"])
@tiers.parametrize("text", ILLEGAL_TIMES, every=5)
def test_16_illegal_times_are_rejected(read, text, place):
    line = {
        "server": wire.record(wire.change(0, timestamp=text)),
        "event": wire.record(wire.l2(0, wire.book("BTC-USD", wire.update("bid", "1", "2", text)))),
        "trade": wire.record(wire.trades(0, wire.trade("1", time=text))),
        "exchange": wire.record(wire.exchange_update(["buy", "1", "1"], time=text)),
    }[place]
    rejected(read(line), (1, 0, line))


@pytest.mark.parametrize(
    ("sent", "clock"),
    [
        ("2026-03-04 05:06:07.5 +0000 UTC m=+81022.1", "2026-03-04 05:06:07.5 +0000 UTC m=+81022.1"),
        ("2026-03-04T05:06:07Z", "2026-03-04T05:06:07Z"),
        ("", ""),
        ("ünï\n", "ünï\n"),
        (1772600767, "1772600767"),
        (True, "true"),
        (None, None),
    ],
)
def test_17_heartbeat_times(read, sent, clock):
    assert column(read(wire.heartbeat(0, sent, 1)).heartbeats, "current_time") == [clock]


@pytest.mark.parametrize(
    ("sent", "counter"),
    [
        (81021, 81021),
        ("81021", 81021),
        (0, 0),
        (None, None),
        ("", None),
        ("many", None),
        ("-1", None),
        (1.5, None),
        (True, None),
        ([], None),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
    ],
)
def test_17_heartbeat_counters(read, sent, counter):
    assert column(read(wire.heartbeat(0, "now", sent)).heartbeats, "heartbeat_counter") == [counter]


def test_17_a_heartbeat_without_fields(read):
    raw = read(wire.advanced("heartbeats", 0, {}))
    assert rows(raw.heartbeats, "current_time", "heartbeat_counter", "line") == [(None, None, 1)]


def test_17_a_heartbeat_of_the_exchange_feed(read):
    raw = read(wire.exchange_heartbeat())
    assert rows(raw.heartbeats, "product_id", "last_trade_id", "current_time", "server_time") == [
        ("BTC-USD", 20, wire.EVENT_TIME, EVENT)
    ]


def test_18_several_events_and_products_in_a_frame(read):
    raw = read(
        wire.l2(
            0,
            wire.book(
                "BTC-USD", wire.update("bid", "1", "1"), wire.update("offer", "2", "1"), kind="snapshot"
            ),
            wire.book("ETH-USD", wire.update("bid", "3", "1")),
            wire.book("BTC-USD", wire.update("bid", "4", "1")),
        ),
        wire.trades(1, wire.trade("8", product_id="ETH-USD"), wire.trade("7"), wire.trade("9")),
        wire.change(2),
    )
    assert rows(raw.level2[:4], "product_id", "is_snapshot", "sequence_num", "line") == [
        ("BTC-USD", True, 0, 1),
        ("BTC-USD", True, 0, 1),
        ("ETH-USD", False, 0, 1),
        ("BTC-USD", False, 0, 1),
    ]
    assert floats(raw.level2[:4], "price") == [1.0, 2.0, 3.0, 4.0]
    assert rows(raw.market_trades, "product_id", "trade_id") == [
        ("BTC-USD", 7),
        ("ETH-USD", 8),
        ("BTC-USD", 9),
    ]
    assert raw.gaps.height == 0


def test_18_trades_are_sorted_in_an_event_and_not_over_events(read):
    events = [{"type": kind, "trades": [wire.trade(one) for one in ids]} for kind, ids in
              (("update", "98"), ("snapshot", "76"))]  # fmt: skip
    raw = read(wire.advanced("market_trades", 0, *events))
    assert rows(raw.market_trades, "trade_id", "is_snapshot") == [
        (8, False),
        (9, False),
        (6, True),
        (7, True),
    ]


@pytest.mark.parametrize("channel", ["l2_data", "market_trades", "ticker", "ticker_batch", "candles"])
def test_19_no_events(read, channel):
    raw = read(wire.record(wire.advanced(channel, 0)), wire.record(wire.change(1)))
    assert (raw.level2.height, raw.rejects.height, raw.gaps.height) == (1, 0, 0)


def test_19_empty_lists_and_sides(read):
    only_bids = wire.book("BTC-USD", wire.update("bid", "1", "1"), kind="snapshot")
    raw = read(
        wire.record(wire.l2(0, wire.book("BTC-USD"), wire.book("ETH-USD", kind="snapshot"))),
        wire.record(wire.l2(1, only_bids)),
        wire.record(wire.trades(2)),
        wire.record(wire.advanced("ticker", 3, {"type": "snapshot", "tickers": []})),
        wire.record(wire.candles(4)),
        wire.record(wire.status(5)),
        wire.record(wire.ack(6)),
    )
    assert (raw.rejects.height, raw.gaps.height) == (0, 0)
    assert rows(raw.level2, "product_id", "is_snapshot", "side", "line") == [
        ("ETH-USD", True, None, 1),  # an update without changes has no row
        ("BTC-USD", True, "bid", 2),
    ]
    assert raw.level2["price"].to_list() == [None, 1.0]
    assert raw.level2["size"].null_count() == 1
    assert raw.report.markers == {"ETH-USD": 1}
    assert raw.report.rows["level2"] == {"BTC-USD": 1}
    assert breaks(raw) == []
    assert len(set(column(raw.level2, "unbroken_since"))) == 1
    assert raw.market_trades.height == raw.ticker.height == raw.subscriptions.height == 0


def test_19_empty_lists_and_sides_of_the_exchange_feed(read):
    raw = read(
        wire.record(wire.exchange_snapshot(bids=[], asks=[["2", "1"]])),
        wire.record(wire.exchange_snapshot(bids=[], asks=[])),
        wire.record(wire.exchange_update()),
    )
    assert rows(raw.level2, "product_id", "is_snapshot", "side", "line") == [
        ("BTC-USD", True, "ask", 1),
        ("BTC-USD", True, None, 2),
    ]
    assert (raw.rejects.height, raw.report.markers) == (0, {"BTC-USD": 1})
    assert len(set(column(raw.level2, "unbroken_since"))) == 1


def test_19_events_may_be_null_and_not_missing(read):
    missing = wire.record(wire.change(2)).replace(b'"events"', b'"event"')
    raw = read(
        wire.record(wire.ticker(0) | {"events": None}), wire.record(wire.l2(1) | {"events": None}), missing
    )
    assert (column(raw.rejects, "line"), raw.gaps.height, raw.level2.height) == ([3], 0, 0)


@pytest.mark.parametrize("events", [{}, "[]", [[]], [None], 0])
def test_19_events_that_are_no_list_of_objects(read, events):
    line = wire.line(wire.change(0) | {"events": events})
    rejected(read(line), (1, 0, line))


def test_20_descending_overlapping_trades_with_holes(read):
    raw = read(
        wire.trades(0, *(wire.trade(str(one)) for one in (13, 12, 10)), kind="snapshot"),
        wire.trades(1, *(wire.trade(str(one)) for one in (15, 14, 13))),
        wire.trades(2, *(wire.trade(str(one)) for one in (20, 12, 14)), kind="snapshot"),
        wire.trades(3, wire.trade(9), wire.trade("5", product_id="ETH-USD")),
    )
    assert rows(raw.market_trades, "product_id", "trade_id", "is_snapshot") == [
        ("BTC-USD", 10, True),
        ("BTC-USD", 12, True),
        ("BTC-USD", 13, True),
        ("BTC-USD", 14, False),
        ("BTC-USD", 15, False),
        ("BTC-USD", 20, True),
        ("ETH-USD", 5, False),
        ("BTC-USD", 9, False),
    ]
    assert laws.without_zeros(raw.report.duplicate_trades) == {"BTC-USD": 3}
    assert laws.without_zeros(raw.report.trade_holes) == {"BTC-USD": 5}  # 11, 16, 17, 18, 19


def test_20_the_first_of_equal_trades_wins(read):
    raw = read(
        wire.trades(0, wire.trade("1", price="3", side="SELL"), wire.trade("01", price="4")),
        wire.trades(1, wire.trade(1, price="5")),
    )
    assert rows(raw.market_trades, "trade_id", "maker_side", "aggressor_side") == [(1, "sell", "buy")]
    assert floats(raw.market_trades, "price") == [3.0]


def test_20_last_match_may_repeat_a_trade(read):
    raw = read(wire.match(7), wire.match(7, "last_match"), wire.match(8, "last_match"), wire.match(8))
    assert rows(raw.market_trades, "trade_id", "is_snapshot") == [(7, False), (8, True)]
    assert laws.without_zeros(raw.report.duplicate_trades) == {"BTC-USD": 2}


@pytest.mark.parametrize(
    "trade_id", ["", "-1", "1.0", "x", "9" * 19, str(2**63), -1, 1.0, True, None, 2**63, [1], " 1"]
)
def test_20_illegal_trade_ids(read, trade_id):
    line = wire.record(wire.trades(0, wire.trade("1"), wire.trade(trade_id)))
    raw = read(line)
    rejected(raw, (1, 0, line))
    assert raw.market_trades.height == 0


@pytest.mark.parametrize(
    ("trade_id", "meaning"),
    [
        ("0", 0),
        ("007", 7),
        ("9" * 18, 10**18 - 1),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
        (0, 0),
    ],
)
def test_20_legal_trade_ids(read, trade_id, meaning):
    assert column(read(wire.trades(0, wire.trade(trade_id))).market_trades, "trade_id") == [meaning]


# --- 21-25


def test_21_the_product_is_the_messages(read):
    raw = read(wire.ack(0, level2=["BTC-USDC"]), wire.snapshot(1, "BTC-USD"), wire.change(2, "BTC-USD"))
    assert set(raw.level2["product_id"]) == {"BTC-USD"}
    assert column(raw.subscriptions, "product_ids") == [["BTC-USDC"]]
    assert laws.without_zeros(raw.report.rows["level2"]) == {"BTC-USD": 5}


@pytest.mark.parametrize("product_id", ["x" * 300, "ü" * 41, "__HIVE_DEFAULT_PARTITION__"])
def test_21_a_product_that_no_folder_can_be_named_by_is_rejected(read, product_id):
    raw = read(
        wire.record(wire.snapshot(0)),
        wire.record(wire.trades(1, wire.trade("1"), wire.trade("2", product_id=product_id))),
        wire.record(wire.change(2, product_id)),
        wire.record(wire.change(3)),
    )
    assert column(raw.rejects, "line") == [2, 3]
    assert (raw.gaps.height, breaks(raw), raw.market_trades.height) == (0, [], 0)


def test_22_a_crossed_book_is_kept_as_sent(read):
    raw = read(wire.snapshot(0), wire.change(1, price="100.5"), wire.change(2, price="500"))
    assert floats(raw.level2, "price")[-2:] == [100.5, 500.0]
    assert (raw.rejects.height, raw.gaps.height) == (0, 0)


LEGAL_NUMBERS = [
    "1e-7",
    "1E-7",
    "1e+2",
    "0.1",
    "00012.500",
    "70010.123456789012345678",
    "0.30000000000000004",
    "123456789012345678901234567890",
    "1e308",
    "5e-324",
    "1e-400",
    "9007199254740993",
    "2.2250738585072011e-308",
    "1.7976931348623157e308",
    "0." + "0" * 40 + "1",
    "8.5e-22",
    12,
    0.1,
    1e-7,
]
ILLEGAL_NUMBERS = [
    *(
        "",
        "NaN",
        "nan",
        "Infinity",
        "inf",
        "-1",
        "-0",
        "-0.0",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1_0",
        ".5",
        "1.",
        "1.e5",
    ),
    *("1e", "1e+", "e5", "0x10", "1,5", "1.2.3", "--1", "1e400", "1.8e308", "１", "1\u0000", "1f", "null"),
    *(None, True, False, [], ["1"], {}, -1, -0.5, -0.0),
]


@tiers.parametrize("value", LEGAL_NUMBERS, every=3)
def test_23_legal_numbers_are_exact(read, value):
    raw = read(
        wire.record(wire.change(0, price=value, size=value)),
        wire.record(wire.trades(1, wire.trade("1", value, value))),
        wire.record(wire.ticker(2, price=value, best_bid=value)),
        wire.record(wire.candles(3, wire.candle(open=value))),
        wire.record(wire.exchange_update(["buy", value, value])),
        wire.record(wire.match(2, price=value)),
    )
    assert raw.rejects.height == 0
    exact = float(value).hex()
    assert column(changes(raw), "price") == column(changes(raw), "size") == [exact] * 2
    assert column(raw.market_trades, "price") == [exact] * 2
    assert column(raw.ticker, "best_bid") == column(raw.candles, "open") == [exact]


@tiers.parametrize("value", ILLEGAL_NUMBERS, every=4)
def test_23_illegal_numbers_reject_the_line(read, value):
    """In each place where a number can be; every bad line is between two good ones."""
    bad = [
        wire.change(1, price=value),
        wire.change(3, size=value),
        wire.trades(5, wire.trade("1", value)),
        wire.ticker(7, price=value),
        wire.candles(9, wire.candle(volume=value)),
    ]
    good = [wire.change(2 * i) for i in range(len(bad) + 1)]
    raw = between(read, good, bad)
    assert (raw.market_trades.height, raw.ticker.height, raw.candles.height, raw.gaps.height) == (0, 0, 0, 0)
    assert breaks(raw) == [(line, "BTC-USD") for line in (2, 4)]
    bad = [
        wire.exchange_update(["buy", "1", value]),
        wire.exchange_snapshot(asks=[[value, "1"]]),
        wire.match(1, size=value),
        wire.exchange_ticker(price=value),
    ]
    raw = between(read, [wire.exchange_update(["buy", "1", "1"])] * (len(bad) + 1), bad)
    assert (raw.market_trades.height, raw.ticker.height) == (0, 0)
    assert breaks(raw) == [(line, "BTC-USD") for line in (2, 4)]


def between(read, good, bad):
    """Read bad lines between good ones: the bad are rejected, and the good have a level change each."""
    lines = [wire.record(good[0])]
    for one, other in zip(bad, good[1:], strict=True):
        lines += [wire.record(one), wire.record(other)]
    raw = read(*lines)
    offsets = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines))]
    rejected(raw, *((i + 1, offsets[i], lines[i]) for i in range(1, len(lines), 2)))
    assert column(changes(raw), "line") == [*range(1, len(lines) + 1, 2)]
    return raw


@pytest.mark.parametrize(
    "text", [b"-0", b"-0.0", b"-0e5", b"1e400", b"-1", b"NaN", b"Infinity", b"01", b"1.", b".5"]
)
def test_23_numbers_that_are_no_text_illegal(read, text):
    before, after = wire.record(wire.change(0, size="@")).split(b'"@"')
    rejected(read(before + text + after), (1, 0, before + text + after))


@pytest.mark.parametrize(
    "text", [b"0", b"0.0", b"0e5", b"1E2", b"0.1", b"12345678901234567890123", b"1e-400"]
)
def test_23_numbers_that_are_no_text_legal(read, text):
    before, after = wire.record(wire.change(0, size="@")).split(b'"@"')
    assert column(read(before + text + after).level2, "size") == [float(text).hex()]


@pytest.mark.parametrize(
    ("value", "meaning"), [("-1.5", -1.5), ("2", 2.0), (-1.5, -1.5), ("", None), (None, None)]
)
def test_23_the_one_field_with_a_sign(read, value, meaning):
    raw = read(wire.ticker(0, price_percent_chg_24_h=value))
    assert floats(raw.ticker, "price_pct_chg_24h") == [meaning]


@pytest.mark.parametrize("value", ["--1", "+1", "- 1", "-", "-1.", "NaN", True])
def test_23_illegal_in_the_field_with_a_sign(read, value):
    line = wire.line(wire.ticker(0, price_percent_chg_24_h=value))
    rejected(read(line), (1, 0, line))


def test_23_optional_numbers_may_be_missing(read):
    short = {"type": "ticker", "product_id": "BTC-USD", "price": "1", "best_bid": "", "best_ask": None}
    raw = read(wire.advanced("ticker", 0, {"tickers": [short]}), {**short, "time": None})
    assert column(raw.ticker, "price") == [(1.0).hex()] * 2
    assert raw.ticker.select("volume_24h", "low_52w", "best_bid", "best_ask").null_count().row(0) == (
        2,
        2,
        2,
        2,
    )


@pytest.mark.parametrize("key", ["side", "price_level", "new_quantity"])
def test_23_required_fields_may_not_be_missing(read, key):
    one = {name: value for name, value in wire.update("bid", "1", "2").items() if name != key}
    line = wire.line(wire.l2(0, wire.book("BTC-USD", one)))
    rejected(read(line), (1, 0, line))


def test_23_long_numbers_are_counted(read):
    sizes = [
        "123456789012345",
        "0.1234567890123456",
        "00000000000000000001.500000000000000000",
        "1.234567890123456",
    ]
    raw = read(*(wire.record(wire.change(number, size=size)) for number, size in enumerate(sizes)))
    assert raw.report.long_numbers == 2


GOOD = [wire.record(wire.change(number), at(number)) for number in range(6)]
CUT = GOOD[2][:-40]
DUPLICATE_KEYS = [
    GOOD[2].replace(b'"side":"bid"', b'"side":"bid","side":"offer"'),
    GOOD[2].replace(b'"side":"bid"', b'"side":"bid","\\u0073ide":"bid"'),
    GOOD[2].replace(b'"client_id":""', b'"client_id":"","client_id":""'),
    GOOD[2].replace(b'"sequence_num":2', b'"sequence_num":2,"sequence_num":2'),
    GOOD[2].replace(b'"metadata"', b'"data":{},"metadata"'),
    GOOD[2].replace(b'"source"', b'"source":"x","source"'),
    GOOD[2].replace(b'"type":"update"', b'"type":"update","type":"update"'),
    GOOD[2].replace(b'"source"', b'"x":{"y":[{"a":1,"a":1}]},"source"'),
]
QUARANTINED = {
    "cut": CUT,
    "glued": CUT + GOOD[2],
    "glued whole": GOOD[2] + GOOD[2],
    "glued with a space": GOOD[2] + b" " + GOOD[2],
    "NUL run": b"\x00" * 4096,
    "NULs behind": GOOD[2] + b"\x00\x00",
    "NULs before": b"\x00\x00" + GOOD[2],
    "blank": b"",
    "spaces": b" \t ",
    "two BOMs": b"\xef\xbb\xbf" * 2 + GOOD[2],
    "BOM behind": GOOD[2] + b"\xef\xbb\xbf",
    "BOM alone": b"\xef\xbb\xbf",
    "BOM and cut": b"\xef\xbb\xbf" + CUT,
    "CR within": GOOD[2].replace(b"BTC-USD", b"BTC\r-USD"),
    "CR alone": b"\r",
    "invalid UTF-8": GOOD[2].replace(b"BTC-USD", b"BTC-\xff\xfeUSD"),
    "overlong UTF-8": GOOD[2].replace(b"BTC-USD", b"BTC-\xc0\xafUSD"),
    "surrogate UTF-8": GOOD[2].replace(b"BTC-USD", b"BTC-\xed\xa0\x80USD"),
    "half an escaped pair": GOOD[2].replace(b"BTC-USD", b"BTC-\\ud800USD"),
    "control character": GOOD[2].replace(b"BTC-USD", b"BTC-\x01USD"),
    "tab in a text": GOOD[2].replace(b'"client_id":""', b'"client_id":"\t"'),
    "bad escape": GOOD[2].replace(b"BTC-USD", b"BTC-\\xUSD"),
    "trailing comma": GOOD[2].replace(b"}]}]}", b"},]}]}"),
    "missing comma": GOOD[2].replace(b',"metadata"', b'"metadata"'),
    "one brace too many": GOOD[2] + b"}",
    "one brace too few": GOOD[2][:-1],
    "not an object": b"[1,2]",
    "text": b'"hello"',
    "number": b"12",
    "null": b"null",
    "words": b"Traceback (most recent call last):",
    "data is a list": b'{"data":[]}',
    "data is null": b'{"data":null}',
    "neither channel nor type": b'{"data":{}}',
    "unknown type": b'{"type":"open","product_id":"BTC-USD"}',
    "null channel": wire.record(wire.change(2) | {"channel": None}),
    **{f"duplicate key {number}": line for number, line in enumerate(DUPLICATE_KEYS, start=1)},
}


@tiers.parametrize("name", QUARANTINED, every=4)
def test_24_the_line_is_quarantined_and_the_rest_is_read(read, name):
    """The bad line stands in for frame 2, which is lost by it: the books are unproven from there on."""
    bad = QUARANTINED[name]
    raw = read(*GOOD[:2], bad, *GOOD[3:])
    rejected(raw, (3, len(GOOD[0]) + len(GOOD[1]) + 2, bad))
    assert column(changes(raw), "line") == [1, 2, 4, 5, 6]
    assert [run for _, _, run in runs(raw)] == [0, 0, 1, 1, 1]
    # its header is as good as ever, or it is legal JSON: it still counts
    assert rows(raw.gaps, "expected", "got", "line") == ([] if has_number(name) else [(2, 3, 4)])
    assert breaks(raw) == [(3 if has_number(name) else 4, "BTC-USD")]


def has_number(name):
    """Return whether the number of frame 2 can still be read of a bad line."""
    usual_header = GOOD[2][: GOOD[2].index(b"[") + 1]
    return QUARANTINED[name].startswith(usual_header) or name == "null channel"


@tiers.parametrize("name", QUARANTINED, every=4)
def test_24_a_bad_line_between_good_ones(read, name):
    """The bad line stands beside frame 2: what is no frame breaks nothing, another frame 2 is a reconnect."""
    bad = QUARANTINED[name]
    raw = read(*GOOD[:3], bad, *GOOD[3:])
    again = int(has_number(name))
    assert column(raw.rejects, "line") == [4]
    assert column(changes(raw), "sequence_num") == [0, 1, 2, 3, 4, 5]
    assert rows(raw.gaps, "connection", "expected", "got", "line") == [(2, 0, 2, 4)] * again
    assert len({run for _, _, run in runs(raw)}) == 1 + again
    assert breaks(raw) == [(4, "BTC-USD")] * again


@pytest.mark.parametrize("name", ["CRLF", "byte order mark", "both"])
def test_24_carriage_returns_and_byte_order_marks_are_read_and_counted(read, name):
    before, behind = b"\xef\xbb\xbf" * (name != "CRLF"), b"\r" * (name != "byte order mark")
    raw = read(*(before + line + behind for line in GOOD))
    same_rows = read(*GOOD)
    laws.assert_same(raw.level2, same_rows.level2, "level2")
    assert (raw.rejects.height, raw.gaps.height) == (0, 0)
    kinds = ["CRLF", "byte order mark"] if name == "both" else [name]
    assert raw.report.unusual == dict.fromkeys(kinds, len(GOOD))
    assert not same_rows.report.unusual


def test_24_the_bytes_of_a_rejected_line_are_the_files(read):
    bad = b"\xef\xbb\xbf{\r"
    raw = read(GOOD[0] + b"\r", bad, b"\r")
    assert rows(raw.rejects, "line", "byte_offset", "size", "raw") == [
        (2, len(GOOD[0]) + 2, 5, bad),
        (3, len(GOOD[0]) + 8, 1, b"\r"),
    ]


def with_sorted_keys(frame):
    return json.dumps(frame, sort_keys=True).encode()


@pytest.mark.parametrize(
    "write", [wire.line, wire.record, with_sorted_keys], ids=["bare", "envelope", "sorted"]
)
@pytest.mark.parametrize(
    "frame",
    [
        wire.advanced("user", 1, {"type": "snapshot", "orders": []}),
        {"channel": "user", "client_id": "", "epoch": 1, "timestamp": at(1), "sequence_num": 1, "events": []},
        wire.ticker(1, price=""),
        wire.trades(1, wire.trade("x")),
        wire.status(1) | {"epoch": 1, "events": 7},
    ],
)
def test_24_a_rejected_frame_of_another_channel_counts_and_breaks_nothing(read, frame, write):
    raw = read(write(wire.change(0)), write(frame), write(wire.change(2)))
    assert column(raw.rejects, "line") == [2]
    assert (raw.gaps.height, breaks(raw)) == (0, [])


@pytest.mark.parametrize(
    "write", [wire.line, wire.record, with_sorted_keys], ids=["bare", "envelope", "sorted"]
)
@pytest.mark.parametrize("channel", ["l2_data", "l2_dat"])
def test_24_a_rejected_frame_with_level2_breaks_its_products(read, channel, write):
    """Also of a channel that nobody knows: a damaged name."""
    bad = wire.change(2, "ETH-USD", side="?") | {"channel": channel}
    raw = read(*(write(frame) for frame in (wire.change(0), wire.change(1, "ETH-USD"), bad, wire.change(3))))
    assert column(raw.rejects, "line") == [3]
    assert (raw.gaps.height, breaks(raw)) == (0, [(3, "ETH-USD")])


OTHER_TYPES = {
    **{
        kind: {"type": kind, "product_id": "BTC-USD", "sequence": 5}
        for kind in ("rfq_match", "received", "open", "done", "change", "activate", "auction")
    },
    "subscribe": {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["level2"]},
    "bad match": wire.match(1, price="x"),
    "bad ticker": wire.exchange_ticker(price=""),
    "ack with null": wire.exchange_ack({"name": "level2", "product_ids": None}),
    "status without products": {"type": "status"},
}


@tiers.parametrize("name", OTHER_TYPES, every=3)
def test_24_a_readable_message_of_another_type_breaks_nothing(read, name):
    update = wire.record(wire.exchange_update(["buy", "1", "1"]))
    raw = read(update, wire.record(OTHER_TYPES[name]), update, wire.line(OTHER_TYPES[name]), update)
    assert column(raw.rejects, "line") == [2, 4]
    assert (breaks(raw), [run for _, _, run in runs(raw)]) == ([], [0] * 3)


def test_24_a_bad_update_of_the_exchange_feed_breaks_its_product(read):
    good = [wire.exchange_update(["buy", "1", "1"], product_id=name) for name in ("BTC-USD", "ETH-USD")]
    bad = wire.exchange_update(["bid", "1", "1"])
    raw = read(*good, bad, *good)
    assert breaks(raw) == [(3, "BTC-USD")]
    del bad["product_id"]
    assert breaks(read(*good, bad, *good)) == [(3, "BTC-USD"), (3, "ETH-USD")]


def test_24_a_switch_between_the_feeds_is_a_new_connection(read):
    raw = read(
        wire.exchange_snapshot(),
        wire.change(7),
        wire.error(),
        {"type": "open"},
        wire.change(8),
        wire.exchange_update(["buy", "1", "1"]),
    )
    assert rows(raw.level2, "line", "connection", "side") == [
        (1, 1, "bid"),
        (1, 1, "ask"),
        (2, 2, None),
        (2, 2, "bid"),
        (5, 2, "bid"),
        (6, 3, None),
        (6, 3, "bid"),
    ]
    assert (raw.gaps.height, raw.report.connections) == (0, 3)


def test_24_numbers_above_two_to_the_53rd_are_none(read):
    raw = read(wire.change(0), wire.change(2**63 - 1), wire.change(1), wire.change(2**53 + 1), wire.change(2))
    assert column(raw.rejects, "line") == [2, 4]
    assert (raw.gaps.height, raw.report.connections) == (0, 1)
    assert breaks(raw) == [(2, "BTC-USD"), (4, "BTC-USD")]


def test_24_a_frame_of_an_unknown_channel_counts_and_breaks_nothing(read):
    bad = wire.record(wire.advanced("full", 2))
    raw = read(*GOOD[:2], bad, *GOOD[3:])
    rejected(raw, (3, len(GOOD[0]) + len(GOOD[1]) + 2, bad))
    assert raw.gaps.height == 0
    assert [run for _, _, run in runs(raw)] == [0] * 5
    assert breaks(raw) == []


@pytest.mark.parametrize("depth", [100, 250, 260, 1000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_24_deep_nesting(read, depth, brackets):
    """A value nobody asked for may be nested as deep as it likes; the lines around it are read."""
    opening, closing = brackets
    deep = opening * depth + (b"1" if closing == b"}" else b"") + closing * depth
    line = wire.line(wire.change(1) | {"foo": "@"}).replace(b'"@"', deep)
    raw = read(wire.change(0), line, wire.change(2))
    assert column(raw.level2, "line") == [1, 2, 3]


@pytest.mark.parametrize(("depth", "rejected"), [(254, 0), (255, 1), (300, 1)])
@pytest.mark.parametrize("frame", [wire.error("@"), wire.error(reason="@"), wire.heartbeat(1, "@", 1)])
def test_24_a_text_that_is_nested_deeply(read, frame, depth, rejected):
    """What is kept as its JSON text is rejected where it is too deep to be written."""
    line = wire.line(frame).replace(b'"@"', b"[" * depth + b"]" * depth)
    raw = read(wire.change(0), line, wire.change(2 - ("type" in frame)))
    assert column(raw.level2, "line") == [1, 3]
    assert len({*column(raw.level2, "unbroken_since")}) == 1
    assert raw.rejects.height == rejected


def test_24_a_cut_last_line(read):
    raw = read.segments(wire.segment(*GOOD[:2]) + CUT)
    rejected(raw, (3, len(GOOD[0]) + len(GOOD[1]) + 2, CUT))


def test_24_a_last_line_without_newline(read):
    raw = read.segments(wire.segment(*GOOD[:2]) + GOOD[2])
    assert raw.level2.height == 3
    assert raw.report.lines == 3


def test_24_nothing_but_bad_lines(read):
    raw = read(b"", b"?", b"{}")
    rejected(raw, (1, 0, b""), (2, 1, b"?"), (3, 3, b"{}"))
    assert raw.level2.height == 0


def test_24_an_empty_segment(read):
    raw = read.segments(b"")
    assert raw.report.lines == 0
    assert all(getattr(raw, table).height == 0 for table in ("level2", "market_trades", "gaps", "rejects"))


def test_24_a_lost_line_in_the_exchange_feed(read):
    """It has no numbers: a line that is not understood may have been an update."""
    update = wire.record(wire.exchange_update(["buy", "1", "1"]))
    raw = read(wire.record(wire.exchange_snapshot()), update, b"?", wire.record(wire.match(1)), update)
    assert rows(raw.rejects, "line", "byte_offset", "raw")[0][0] == 3
    assert [run for _, _, run in runs(raw)] == [0, 0, 0, 1]
    assert breaks(raw) == [(4, "BTC-USD")]  # shown by the first frame behind it


def test_24_a_rejected_line_seen_by_its_header_keeps_the_count(read):
    bad = GOOD[2].replace(b'"99.5"', b'"-99.5"')
    raw = read(*GOOD[:2], bad, *GOOD[3:])
    assert (raw.gaps.height, raw.report.connections) == (0, 1)
    assert [run for _, _, run in runs(raw)] == [0, 0, 1, 1, 1]
    assert breaks(raw) == [(3, "BTC-USD")]


@pytest.mark.parametrize("clock", ["capture", "server"])
@pytest.mark.parametrize(
    "time", ["2026-03-04T05:06:07Z", "2026-03-04T05:06:07.123456789+00:00", "1970-01-01T00:00:00Z"]
)
def test_24_a_header_with_a_usual_time_keeps_the_count(read, time, clock):
    capture, server = (time, wire.TIMESTAMP) if clock == "capture" else (wire.CAPTURE_TS, time)
    bad = wire.record(wire.change(1, "ETH-USD", side="?", timestamp=server), capture)
    raw = read(
        wire.record(wire.change(0)), bad, wire.record(wire.change(2)), wire.record(wire.change(3, "ETH-USD"))
    )
    assert column(raw.rejects, "line") == [2]
    assert raw.gaps.height == 0
    assert [
        row["product_id"] for row in raw.level2.unique("unbroken_since", maintain_order=True).to_dicts()
    ] == [
        "BTC-USD",
        "ETH-USD",
    ]
    assert breaks(raw) == []  # the product has no row before


@pytest.mark.parametrize(
    "time",
    ["1969-12-31T23:59:59.9Z", "1677-09-21T00:12:43.2Z", "2026-03-03T23:06:07-06:00", "2262-04-11T23:47:16Z"],
)
def test_24_a_rejected_line_with_an_unusual_time_hides_no_loss(read, time):
    """Whether its header is read or not: the book it was of is not proven any more."""
    bad = wire.record(wire.change(1, "ETH-USD", side="?"), time)
    raw = read(wire.record(wire.change(0, "ETH-USD")), bad, wire.record(wire.change(2, "ETH-USD")))
    assert column(raw.rejects, "line") == [2]
    assert [run for _, _, run in runs(raw)] == [0, 1]
    assert len(breaks(raw)) == 1


@tiers.parametrize(
    "number", [b"01", b"00", b"-1", b"-0", b"1.0", b"1e0", b'"1"', b"9223372036854775808", b"true"], every=3
)
@pytest.mark.parametrize("bare", [False, True])
def test_24_illegal_sequence_numbers(read, number, bare):
    """The frame is rejected, and counts as none; its product is known where the line is legal JSON."""
    write = wire.line if bare else wire.record
    bad = write(wire.change(1)).replace(b'"sequence_num":1,', b'"sequence_num":' + number + b",")
    raw = read(write(wire.change(0)), bad, write(wire.change(2)))
    assert column(raw.rejects, "raw") == [bad]
    assert rows(raw.gaps, "expected", "got", "line") == [(1, 2, 3)]
    assert breaks(raw) == [(3 if number in (b"01", b"00") else 2, "BTC-USD")]


def test_24_a_rejected_line_can_show_a_gap_and_a_new_connection(read):
    far = wire.record(wire.trades(9, wire.trade("x"), timestamp=at(9)), at(9))
    back = wire.record(wire.ticker(0, price="x"), at(10))
    raw = read(*GOOD[:2], far, back, wire.record(wire.change(1), at(11)))
    assert rows(raw.gaps, "connection", "expected", "got", "capture_time", "line", "products") == [
        (1, 2, 9, at_ns(9), 3, ["BTC-USD"])
    ]
    assert raw.report.connections == 2
    assert breaks(raw) == [(3, "BTC-USD")]  # one is enough until there are changes
    assert column(raw.level2, "unbroken_since") == [at_ns(0), at_ns(0), at_ns(9), at_ns(10)]


def test_25_the_hour_in_the_name_is_not_the_contents(read):
    raw = read(wire.record(wire.change(0, timestamp="2031-12-31T23:59:59Z"), "2031-12-31T23:59:59.5Z"))
    assert raw.level2["server_time"].dt.year().to_list() == [2031]


def test_25_a_segment_that_starts_in_mid_connection(read):
    raw = read(wire.record(wire.change(15158), at(1)), wire.record(wire.change(15159), at(2)))
    assert (raw.gaps.height, raw.report.connections) == (0, 1)
    assert column(raw.level2, "unbroken_since") == [at_ns(1)] * 2


def test_25_the_capture_clock_steps_back(read):
    lines = [wire.record(wire.change(number), at(second)) for number, second in enumerate((30, 10, 20))]
    raw = read(*lines)
    assert column(raw.level2, "sequence_num") == [0, 1, 2]
    assert column(raw.level2, "capture_time") == [at_ns(30), at_ns(10), at_ns(20)]
    assert len(set(column(raw.level2, "unbroken_since"))) == 1


def test_25_runs_keep_different_names_when_the_clock_steps_back(read):
    lines = [
        wire.record(wire.change(number), at(second))
        for number, second in ((0, 30), (2, 10), (4, 10), (6, 40))
    ]
    raw = read(*lines)
    names = [at_ns(30), at_ns(30) + 1, at_ns(30) + 2, at_ns(40)]
    assert column(changes(raw), "unbroken_since") == names
    assert column(raw.level2, "unbroken_since") == [names[0], *(name for name in names[1:] for _ in "mc")]


def test_25_several_segments_are_one_stream(read):
    raw = read.segments(
        wire.segment(
            wire.record(wire.snapshot(0), at(1)), wire.record(wire.trades(1, wire.trade("1")), at(2))
        ),
        wire.segment(wire.record(wire.change(2), at(3)), wire.record(wire.trades(3, wire.trade("1")), at(4))),
        wire.segment(wire.record(wire.change(5), at(5)), wire.record(wire.change(0, timestamp=at(6)), at(6))),
    )
    assert rows(raw.level2[4:], "line", "side", "connection") == [
        (1, "bid", 1),
        (1, None, 1),
        (1, "bid", 1),
        (2, None, 2),
        (2, "bid", 2),
    ]
    assert rows(raw.gaps, "expected", "got", "line", "products") == [(4, 5, 1, ["BTC-USD"])]
    assert column(changes(raw), "unbroken_since") == [at_ns(1)] * 5 + [at_ns(5), at_ns(6)]
    assert rows(raw.market_trades, "trade_id", "line") == [(1, 2), (1, 2)]


def test_25_a_repeat_in_the_next_segment(read):
    raw = read.segments(wire.segment(*GOOD[:3]), wire.segment(*GOOD[2:5]))
    assert column(raw.level2, "sequence_num") == [0, 1, 2, 3, 4]
    assert raw.report.duplicates == 1


@pytest.mark.ci
def test_25_how_the_input_is_cut_changes_nothing(read):
    lines = [*GOOD[:2], b"?", GOOD[2], b"{", *GOOD[4:], *GOOD[:2], CUT, GOOD[3]]
    whole = read(*lines).level2.drop("line")
    for cut in range(len(lines) + 1):
        parts = read.segments(wire.segment(*lines[:cut]), wire.segment(*lines[cut:]))
        laws.assert_same(parts.level2.drop("line"), whole, f"cut before line {cut + 1}")
    assert isinstance(whole, pl.DataFrame)
