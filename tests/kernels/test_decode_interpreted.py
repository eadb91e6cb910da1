"""The scanner's arrays: interpreted, they are what they are compiled; and the limits of their room.

Interpreted by Python the same code checks every index, and writes exactly the cells that the compiled code
writes. The compiled results are compared with the oracle elsewhere; here only at the limits.
"""

from __future__ import annotations

import re
import sys

import interpreted
import laws
import numpy as np
import pytest
import tiers
import wire

from cbtools._kernels import decode
from cbtools.raw.decode import channel_codes
from cbtools.raw.files import PADDING

UNTOUCHED = -7
CODES = channel_codes()


def rec(frame):
    return wire.record(frame)


def usual() -> list[bytes]:
    up = wire.update
    both = wire.book("ETH-USD", up("bid", "1", "2"), up("ask", "0.10", "0.0")), wire.book("BTC-USD")
    return [
        rec(wire.snapshot(0)),
        rec(wire.change(1)),
        rec(wire.l2(2, *both)),
        rec(wire.l2(2, wire.book("BTC-USD", kind="snapshot"))),
        rec(wire.l2(2, *(wire.book("BTC-USD", up("bid", "1", "2"), kind="snapshot") for _ in range(2)))),
        wire.line(wire.change(3)),  # bare
        rec(wire.trades(4, wire.trade("7"), wire.trade("6", side="SELL", time=None))),
        rec(wire.trades(5, kind="snapshot")),
        rec(wire.ticker(6)),
        rec(wire.ticker(7, channel="ticker_batch")),
        rec(wire.candles(8, wire.candle())),
        rec(wire.heartbeat(9, "now", 3)),
        rec(wire.status(10, wire.product())),
        rec(wire.ack(11, level2=["BTC-USD"])),
        rec(wire.error()),
        rec(wire.exchange_update(["buy", "1", "2"])),
    ]


def nasty() -> list[bytes]:
    good = rec(wire.change(1))
    numbers = (
        "",
        "-1",
        "1e5",
        "00.5",
        "1.",
        ".5",
        "9" * 15,
        "9" * 18,
        "9" * 30,
        "110140449.12866127",
        "123456789.000000000",
        "9007199254740993",
        "0.12345678901234567",
        "0." + "0" * 17,
        "0." + "1" * 40,
    )
    times = (
        *(
            "1970-01-01T00:00:00Z",
            "2024-02-29T23:59:59.123456789Z",
            "2100-02-29T00:00:00Z",
            "2199-12-31T23:59:59Z",
        ),
        *("2200-01-01T00:00:00Z", "2026-03-04T05:06:07.1234567890Z", "2026-03-04T05:06:07+00:00", "", "2026"),
        *(
            "2026-03-04T05:06:07+01:00",
            "2026-13-04T05:06:07Z",
            "2026-00-00T24:60:60Z",
            "9999-99-99T99:99:99.9Z",
        ),
    )
    return [
        *(b"", b" ", b"{}", b"[]", b"nul", b'{"', b'{"capture_ts":"', b"\x00\xff\x80", b"{" * 70, b'"' * 70),
        *(good[:k] for k in range(0, len(good), 23)),
        good[:-1] + b"x",
        good + b" ",
        good + good,
        good.replace(b":", b" :\t").replace(b",", b" , "),
        good.replace(b"BTC", rb"\u0042TC"),
        good.replace(b"bid", b"bidd"),
        good.replace(b"bid", b"ask"),
        good.replace(b'"client_id":"",', b""),
        good.replace(b'"sequence_num":1', b'"sequence_num":01'),
        good.replace(b'"sequence_num":1', b'"sequence_num":' + b"9" * 18),
        good.replace(b'"sequence_num":1', b'"sequence_num":' + b"9" * 19),
        good.replace(b'"side"', b'"side":"bid","side"'),
        good.replace(b"]}]}", b",]}]}"),
        good.replace(b"[{", b"[,{"),
        good.replace(b"update", b"something else"),
        *(rec(wire.change(1, price=number)) for number in numbers),
        *(rec(wire.ticker(1, price_percent_chg_24_h=number)) for number in ("-0", "-", "--1", "-0.0001")),
        *(rec(wire.change(1, timestamp=time)) for time in times),
        *(
            rec(wire.trades(1, wire.trade(number)))
            for number in ("0", "007", "1" * 18, "1" * 19, "-1", "x", 5)
        ),
        *(rec(wire.change(1, product_id=name)) for name in ("", "A", "N" * 24, "N" * 25, "É", "A B")),
        rec(wire.ticker(1, best_bid=None)),
    ]


def scan(
    lines: list[bytes], only: tuple[str, ...] | None, want: bytes = b"\1" * 256
) -> dict[str, np.ndarray]:
    """Scan lines, the last without a newline; give every cell of the sheets, and of the results."""
    text = b"\n".join(lines)
    buffer = np.frombuffer(text + b"\n" * PADDING, np.uint8).copy()
    sheets = decode.sheets(len(text), CODES)
    cells = {"lines": sheets.lines, "events": sheets.events, "ints": sheets.ints, "floats": sheets.floats}
    for name in ("level2", "trades", "tickers"):
        cells |= {f"{name}_{kind}": array for kind, array in getattr(sheets, name)._asdict().items()}
    for array in cells.values():
        array.fill(UNTOUCHED)
    if only is not None:
        decode.limit_products(sheets, only)
    given, start = [], 0
    while start < len(text):
        start, n, events, rows = decode.decode_lines(
            buffer, start, len(text), np.frombuffer(want, np.uint8), sheets
        )
        given.append((start, n, events, *rows))
    outlined = []
    for line in lines:
        one = decode.sheets(0, CODES)
        one.lines.fill(UNTOUCHED)
        outlined.append(decode.outline(np.frombuffer(line + b"\n" * PADDING, np.uint8).copy(), 0, one))
    ends = np.cumsum([len(line) + 1 for line in lines]) - 1
    digests = np.empty(len(lines), np.int64)
    decode.digest_lines(buffer, np.append(0, ends[:-1] + 1), ends, digests)
    cells["digests"] = digests
    return cells | {"memo": sheets.memo, "given": np.array(given), "outlined": np.array(outlined)}


def cases() -> dict[str, np.ndarray]:
    lines = usual() + nasty()[:: tiers.by_tier(4, 1, 1)]
    tiny = [b""] * 300
    many = [rec(wire.change(1, product_id=f"P{k}")) for k in range(5)]
    runs = {
        "all": scan(lines, None),
        "one": scan(lines, ("ETH-USD", "Ü", "N" * 25)),
        "none": scan(lines, ()),
        "header": scan(lines, None, b"\0" * 256),
        "tiny": scan(tiny, None),
        "many": scan(many, None),
    }
    return {f"{run}.{name}": array for run, arrays in runs.items() for name, array in arrays.items()}


@pytest.mark.slow
@pytest.mark.more
def test_interpreted_it_writes_the_same_cells(tmp_path):
    path = tmp_path / "interpreted.npz"
    interpreted.run(__file__, str(path))
    compiled = cases()
    with np.load(path) as cells:
        assert sorted(cells) == sorted(compiled)
        for name, array in compiled.items():
            np.testing.assert_array_equal(cells[name].view(np.uint8), array.view(np.uint8), err_msg=name)
    statuses = compiled["all.lines"][decode.STATUS]
    assert {decode.ODD, decode.READ} <= set(statuses.tolist())


# --- digests


RECEIPT = re.compile(rb'"capture_ts"[ \t]*:[ \t]*("[^"]*"|[^,}]*)')
NEARLY = [
    b"", b"x", b'"capture_ts"', b'"capture_ts":', b'"capture_ts":"', b'"capture_ts":"1',
    b'{"capture_ts":"1"}', b'{"capture_ts":"2"}', b'{"capture_ts" :\t"2"}',
    b'{"capture_ts":12,"a":1}', b'{"capture_ts":3,"a":1}', b'{"capture_ts":null}',
    b'{"capture_ts":"1","capture_ts":"2"}', b'{"capture_ts":"1","capture_ts":"3"}',
    b'{"capture_ts","capture_ts":"1"}', b'{"capture_ts","capture_ts":"2"}', b'{"data":1,"capture_ts":"1"}',
    b'{"data":1,"capture_ts":"234"}', b'{"data":2,"capture_ts":"1"}', b"\0" * 7, b"\0" * 8, b"\0" * 9,
    *(b"12345678"[:k] for k in range(9)), *(b"1234567812345678"[:k] for k in range(9, 17)),
]  # fmt: skip


def test_lines_have_the_same_digest_if_only_their_receipt_differs():
    lines = [*NEARLY, *usual(), *(line.replace(b"07.123", b"09.5") for line in usual())]
    buffer = np.frombuffer(b"\n".join(lines) + b"\n" * PADDING, np.uint8).copy()
    ends = np.cumsum([len(line) + 1 for line in lines]) - 1
    digests = np.empty(len(lines), np.int64)
    decode.digest_lines(buffer, np.append(0, ends[:-1] + 1), ends, digests)

    def content(line: bytes) -> tuple[bytes, bytes]:
        found = RECEIPT.search(line)
        return (line[: found.start(1)], line[found.end(1) :]) if found else (line, b"")

    contents: dict[int, set[tuple[bytes, bytes]]] = {}
    for line, digest in zip(lines, digests.tolist(), strict=True):
        contents.setdefault(digest, set()).add(content(line))
    assert all(len(of_digest) == 1 for of_digest in contents.values())
    assert len(contents) == len({content(line) for line in lines}) < len(lines)


# --- the limits of the room


@pytest.mark.parametrize("more", [-1, 0, 1, 2])
def test_as_many_lines_as_there_is_room_for(more):
    """What does not fit waits for the next call."""
    sheets = decode.sheets(1000, CODES)
    room = sheets.lines.shape[1]
    size = room + more
    buffer = np.frombuffer(b"\n" * (size + PADDING), np.uint8).copy()
    want = np.ones(256, np.uint8)
    stops, start = [], 0
    while start < size:
        start, n, *_ = decode.decode_lines(buffer, start, size, want, sheets)
        stops.append((start, n))
        assert sheets.lines[decode.OFFSET, :n].tolist() == list(range(start - n, start))
    assert stops == ([(room, room), (size, more)] if more > 0 else [(size, size)])


SMALLEST = {
    "level2": (
        b'{"type":"update","product_id":"A","updates":[%s]}',
        '{"side":"bid","price_level":"1","new_quantity":"1"}',
    ),
    "market_trades": (
        b'{"type":"update","trades":[%s]}',
        '{"product_id":"A","trade_id":"1","price":"1","size":"1","side":"BUY"}',
    ),
    "ticker": (b'{"type":"","tickers":[%s]}', '{"product_id":"A","price":"1"}'),
}


@pytest.mark.parametrize("rows", [0, 1, 5000])
@pytest.mark.parametrize("channel", SMALLEST)
def test_the_smallest_objects_have_room(channel, rows):
    event, row = SMALLEST[channel]
    frame = b'{"channel":"%s","timestamp":"2026-03-04T05:06:07Z","sequence_num":1,"events":[%s]}'
    with_rows = frame % (channel.encode(), event % b",".join([row.encode()] * rows))
    with_events = frame % (channel.encode(), b",".join([event % b""] * rows))
    for line, n in ((with_rows, (1, rows)), (with_events, (rows, 0))):
        sheets = decode.sheets(len(line), CODES)
        held = {"level2": sheets.level2, "market_trades": sheets.trades, "ticker": sheets.tickers}[channel]
        assert held.ints.shape[1] >= rows or line is with_events
        assert sheets.events.shape[1] >= n[0]
        buffer = np.frombuffer(line + b"\n" * PADDING, np.uint8).copy()
        _, lines, events, counts = decode.decode_lines(buffer, 0, len(line), np.ones(256, np.uint8), sheets)
        assert (lines, events, sum(counts)) == (1, *n)
        assert sheets.lines[decode.STATUS, 0] == decode.READ


def test_many_tiny_lines(tmp_path):
    """More lines than the sheets have room for, usual ones between them; the last without its newline."""
    between = [b"" if k % 3 else b"{}" for k in range(400)]
    lines = [line for k in range(5) for line in (*between, rec(wire.change(k)))]
    raw = laws.same_as_oracle(b"\n".join(lines), tmp_path)
    assert raw.level2["line"].to_list() == [401, 802, 1203, 1604, 2005]


@pytest.mark.more
def test_more_products_than_the_memo_holds(tmp_path):
    """From the 1025th on the definition reads them; names of 24 bytes are held, of 25 not."""
    names = [*(f"P{k:04d}-USD" for k in range(1100)), "N" * 24, "N" * 25, "N" * 23 + "M", "N" * 24 + "M"]
    lines = [rec(wire.change(k, product_id=name)) for k, name in enumerate(names)]
    again = [rec(wire.change(len(names) + k, product_id=name)) for k, name in enumerate(reversed(names))]
    tickers = [rec(wire.ticker(2 * len(names) + k, product_id=name)) for k, name in enumerate(names)]
    segment = wire.segment(*lines, *again, *tickers)
    raw = laws.same_as_oracle(segment, tmp_path)
    assert raw.level2["product_id"].to_list() == names + names[::-1]
    laws.scan_is_read(segment, tmp_path, raw)


@pytest.mark.more
@pytest.mark.parametrize("length", [24, 25])
def test_a_long_name(tmp_path, length):
    name = "N" * length
    segment = wire.segment(
        rec(wire.change(0, product_id=name)), rec(wire.change(1, product_id=name[:-1] + "M"))
    )
    raw = laws.same_as_oracle(segment, tmp_path)
    laws.scan_is_read(segment, tmp_path, raw)
    buffer = np.frombuffer(segment + b"\n" * PADDING, np.uint8).copy()
    sheets = decode.sheets(len(segment), CODES)
    decode.decode_lines(buffer, 0, len(segment), np.ones(256, np.uint8), sheets)
    assert sheets.lines[decode.STATUS, :2].tolist() == [decode.READ if length == 24 else decode.ODD] * 2
    assert decode.product_names(sheets) == ([name, name[:-1] + "M"] if length == 24 else [])


@pytest.mark.parametrize("frame", [wire.change(0), wire.trades(0, wire.trade("1")), wire.ticker(0)])
def test_a_line_cut_at_the_very_end(frame, tmp_path):
    """Wherever the last line ends, nothing behind the piece is read as its continuation."""
    line = rec(frame)
    whole = np.frombuffer(line * 2, np.uint8)
    sheets = decode.sheets(len(line), CODES)
    for cut in range(1, len(line) + 1):
        buffer = whole[: cut + PADDING].copy()
        buffer[cut : cut + PADDING] = 10
        stop, n, *_ = decode.decode_lines(buffer, 0, cut, np.ones(256, np.uint8), sheets)
        assert n == 1
        assert stop > cut
        assert sheets.lines[decode.STATUS, 0] == (decode.READ if cut == len(line) else decode.ODD)


if __name__ == "__main__":
    assert not hasattr(decode.decode_lines, "signatures"), "compiled"
    with np.errstate(over="ignore"):  # numpy warns where products are meant to wrap
        np.savez(sys.argv[1], **cases())
