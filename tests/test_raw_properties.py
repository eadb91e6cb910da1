"""Random and damaged recordings: whatever the bytes are, the package and the oracle read the same.

`Market` writes streams in the recorder's exact form (there the decoder is fast, and must not be lenient);
`Writer` spells the same messages in every way JSON allows; `damage` changes bytes. All take a
`random.Random`, which hypothesis plays, so that a failure shrinks.
"""

import contextlib
import gzip
import json
import random
import re
import warnings
from collections import Counter
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from math import inf, nextafter

import laws
import polars as pl
import pyarrow as pa
import pytest
import tiers
import wire
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from oracles import raw

import cbtools as cb
from cbtools import schema

DICE = st.randoms(use_true_random=False)


# --- values

PRODUCTS = ["BTC-USD", "ETH-USD", "SHIB-USD"]
ODD_PRODUCTS = ["", "Ü-€", "A B", "null", "BTC-USD ", "]", "a,b", '"', "\\", None, 7, "x" * 300]
ODD_PRODUCTS += ["__HIVE_DEFAULT_PARTITION__", "ü" * 40, "ü" * 41]
LEGAL_NUMBERS = [
    *("0", "0.0", "0.00000000", "00", "007.10", "1e-7", "1E+3", "0e9", "123456789012345", "1234567890123456"),
    *("0.1234567890123456789", "9007199254740993", "138991023.41", "1e-400", "5e-324", "1e308", "8.5e-22"),
    *("123456789012345678901234567890", "0.000000000000000000000000000012345678", "70010.123456789012"),
    *(
        "4503599627370496.5",
        "4503599627370497.5",
        "9007199254740991",
        "9007199254740992.0",
        "99999999999999999",
    ),
]
ILLEGAL_NUMBERS = [
    *(
        "",
        "-1",
        "-0",
        "+1",
        " 1",
        "1 ",
        "1_0",
        ".5",
        "1.",
        "1e",
        "e1",
        "1e+",
        "NaN",
        "inf",
        "Infinity",
        "0x1",
    ),
    *("1.2.3", "1,5", "1e400", "1e5.0", "١", "true", "1-", "1:", "1/", None, True, False, [], {}, ["1"]),
]


class Bare(str):
    """A token that is written as it is: a JSON number, or what shall pass for one."""

    __slots__ = ()


class Twin(str):
    """A key that may stand beside the same key in a dict, and so twice in an object."""

    __slots__ = ()

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


LEGAL_TOKENS = [
    Bare(text) for text in ("0", "7", "0.0", "1.5", "1e2", "1E-7", "0.1", "12345678901234567890123")
]
ILLEGAL_TOKENS = [Bare(text) for text in ("-0", "-0.0", "-1", "-1e-9", "1e400")]
NO_TOKENS = [
    Bare(text) for text in ("NaN", "Infinity", "01", "1.", ".5", "+1", "1e", "nul", "True", "", "-", "0x1")
]

LEGAL_TIMES = [
    *("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000+00:00", "0001-01-01T00:00:00.000000Z"),
    *("1970-01-01T00:00:00-00:00", "1970-01-01T00:00:00+01:00", "1969-12-31T23:59:59.999999999Z"),
    *("2024-02-29T23:59:59.5Z", "2000-02-29T00:00:00Z", "2026-03-04T10:36:07.123456789+05:30"),
    *("2026-03-03T23:06:07-06:00", "2262-04-11T23:47:16Z", "1677-09-21T00:12:43.145224193Z"),
    *("2026-12-31T23:59:59.000000001Z", "2026-03-04T05:06:07+23:59", "2026-03-04T05:06:07-23:59"),
]
ILLEGAL_TIMES = [
    *("2026-03-04T05:06:07", "2026-03-04 05:06:07Z", "2026-03-04T05:06:07z", "2026-03-04t05:06:07Z", ""),
    *(
        "2026-03-04T05:06:07.Z",
        "2026-03-04T05:06:07.1234567890Z",
        "2026-03-04T24:00:00Z",
        "2026-03-04T05:60:00Z",
    ),
    *("2026-03-04T05:06:60Z", "2026-02-29T05:06:07Z", "2100-02-29T05:06:07Z", "1900-02-29T05:06:07Z"),
    *("2026-04-31T05:06:07Z", "2026-13-01T05:06:07Z", "2026-00-10T05:06:07Z", "2026-01-00T05:06:07Z"),
    *("2026-03-04T05:06:07+24:00", "2026-03-04T05:06:07+00:60", "2026-03-04T05:06:07+0000"),
    *("2026-03-04T05:06:07+00:00Z", "2262-04-11T23:47:16.854775808Z", "0001-01-01T00:00:00.000000001Z"),
    *("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-3-04T05:06:07Z", "+026-03-04T05:06:07Z"),
    *("2026-03-04T05:06:07Z\x00", "2026-03-04T05:06:0:Z", "2026-03-04T05:06:/7Z", 1772600767, True, []),
]


OTHER_TYPES = ["rfq_match", "received", "open", "done", "change", "activate", "auction", "subscribe"]
ODD_CAPTURE_TS = [
    *(
        0,
        "0",
        "0.0",
        None,
        "",
        True,
        -1,
        Bare("-0"),
        ".5",
        "1.",
        "1e9",
        "+1",
        [],
        Bare("1e400"),
        2**63,
        2**63 - 1,
    ),
    *(
        Bare("1e-10"),
        Bare("1.7726e9"),
        "00017.5",
        "9223372037",
        Bare("9223372036.854776"),
        10**11,
        10**11 - 1,
    ),
    *(10**14, 10**14 - 1, 10**17, 10**17 - 1, "1772600767123456789.9", Bare("1772600767123456789.0")),
    *(
        "2026-03-04",
        "2026-03-04 05:06",
        "2026-03-04T05:06:07+00",
        "2026-03-04 05:06:07+24:00",
        "1970-01-01 00:00:00",
    ),
]


class Values:
    """Draws values; ``odd`` is how often one is unusual, and half of those are illegal.

    ``faults`` is how often a frame or line is unusual as a whole: of another type, bad, or written otherwise.
    """

    def __init__(self, dice: random.Random, odd: float, faults: float = 0.0) -> None:
        self.dice = dice
        self.odd = odd
        self.faults = faults

    def chance(self, of: float) -> bool:
        return self.dice.random() < of

    def pick(self, usual, legal, illegal):
        if not self.chance(self.odd):
            return usual
        return self.dice.choice(illegal if self.chance(0.2) else legal)

    def number(self, low=0, high=100_000):
        digits = self.dice.choice([0, 1, 2, 2, 5, 8])
        usual = f"{self.dice.randint(low, high)}" + (
            f".{self.dice.randrange(10**digits):0{digits}d}" * (digits > 0)
        )
        return self.pick(usual, LEGAL_NUMBERS + LEGAL_TOKENS, ILLEGAL_NUMBERS + ILLEGAL_TOKENS)

    def size(self):
        return "0" if self.chance(0.3) else self.number(0, 50)

    def signed(self):
        return self.pick(
            self.dice.choice(["-1.25", "0", "3.5"]), ["-0", "", None, Bare("-2.5")], ["--1", "-", "+1"]
        )

    def optional(self):
        return self.pick(self.number(), ["", None], [" ", True])

    def product(self):
        return self.pick(self.dice.choice(PRODUCTS), ["Ü-€", "A B", "]", '"', "\\", "a,b"], ODD_PRODUCTS)

    def time(self, number=None):
        """Draw a time; usual ones go on with the number of the frame."""
        second = self.dice.randrange(60) if number is None else number % 60
        minute = 0 if number is None else number // 60 % 60
        digits = self.dice.choice([0, 3, 6, 6, 6, 8, 9])
        fraction = f".{self.dice.randrange(10**digits):0{digits}d}" if digits else ""
        zone = self.dice.choice(["Z", "Z", "Z", "+00:00"])
        return self.pick(
            f"2026-03-04T05:{minute:02d}:{second:02d}{fraction}{zone}", LEGAL_TIMES, ILLEGAL_TIMES
        )

    def missing_time(self):
        return None if self.chance(0.05) else self.time()

    def trade_id(self):
        near = self.dice.randrange(100, 130)
        return self.pick(
            str(near),
            [near, "0" * 3 + str(near), "9" * 18, "1" * 19, str(2**63 - 1), 2**63 - 1, 0],
            ["", "-1", "1.0", "9" * 19, "0" * 20, -1, 1.5, True, None, 2**63, Bare("1e2"), Bare("100.0")],
        )

    def capture_ts(self, number):
        """Draw a capture_ts: the recorder's, or one in another form."""
        clock = f"05:{number // 60 % 60:02d}:{number % 60:02d}.{self.dice.randrange(10**6):06d}"
        usual = self.pick(f"2026-03-04T{clock}+00:00", LEGAL_TIMES, [""])
        if not self.chance(self.faults):
            return usual
        seconds = 1_772_600_400 + number
        forms = [
            f"2026-03-04 {clock}",
            f"2026-03-04T{clock}",
            f"2026-03-04T{clock}+0000",
            f"2026-03-04 {clock}Z",
        ]
        forms += [f"2026-03-04T{clock}-0130", f"2026-03-04 {clock}+0000", f"2026-03-04 {clock}+00:00"]
        for digits in ("", "123", "123456", "123456789"):
            forms += [int(f"{seconds}{digits}"), f"{seconds}{digits}.125", Bare(f"{seconds}{digits}.1234567")]
        return self.dice.choice(forms + [self.dice.choice(ODD_CAPTURE_TS)] * 4)

    def count(self, usual=2):
        return self.dice.choice([0, 1, 1, 1, usual])


# --- messages


class Market(Values):
    """Draws frames of every channel, as dicts."""

    def frame(self, sequence_num):
        kinds = [self.level2] * 8 + [self.trades] * 3 + [self.ticker] * 2
        kinds += [self.candles, self.heartbeat, self.status, self.ack]
        return self.dice.choice(kinds)(sequence_num)

    def level2(self, sequence_num):
        side = ["bid", "offer", "ask"]
        events = [
            wire.book(
                self.product(),
                *(
                    wire.update(
                        self.pick(self.dice.choice(side), side, ["", "buy", "BID", None, 1, "offer "]),
                        self.number(),
                        self.size(),
                        self.missing_time(),
                    )
                    for _ in range(self.dice.choice([0, 1, 1, 2, 3]))
                ),
                kind=self.pick(self.dice.choice(["update", "snapshot"]), ["update"], ["", "l2update", None]),
            )
            for _ in range(self.count(4))
        ]
        return wire.l2(sequence_num, *events, timestamp=self.frame_time(sequence_num))

    def one_trade(self):
        side = ["BUY", "SELL", "buy", "sell"]
        return wire.trade(
            self.trade_id(),
            self.number(),
            self.number(),
            self.pick(self.dice.choice(side[:2]), side, ["Buy", "", None, "bid"]),
            self.missing_time(),
            self.product(),
        )

    def trades(self, sequence_num):
        events = [
            {
                "type": self.dice.choice(["update", "snapshot"]),
                "trades": [self.one_trade() for _ in range(self.count(4))],
            }
            for _ in range(self.count())
        ]
        return wire.advanced("market_trades", sequence_num, *events, timestamp=self.frame_time(sequence_num))

    def ticker(self, sequence_num):
        channel = self.dice.choice(["ticker", "ticker", "ticker_batch"])
        frame = wire.ticker(sequence_num, self.product(), self.number(), channel)
        one = frame["events"][0]["tickers"][0]
        for name in list(one):
            if name not in ("type", "product_id", "price"):
                one[name] = self.signed() if name == "price_percent_chg_24_h" else self.optional()
                if self.chance(self.odd):
                    del one[name]
        return frame | {"timestamp": self.frame_time(sequence_num)}

    def candles(self, sequence_num):
        start = self.pick(
            "1772600700", [1772600700, 0, "0", "9223372036"], ["", "x", 1.5, None, True, "9223372037"]
        )
        candle = wire.candle(start, self.product(), open=self.number(), volume=self.size())
        return wire.candles(sequence_num, *[candle] * self.count())

    def heartbeat(self, sequence_num):
        clock = self.dice.choice(["2026-03-04 05:06:07.5 +0000 UTC m=+8.1", "", None, 17, True, "ü"])
        return wire.heartbeat(
            sequence_num, clock, self.dice.choice(["8", 8, None, "x", 1.5, True, 2**63, "0008"])
        )

    def status(self, sequence_num):
        product = wire.product(self.product(), status_message=self.dice.choice([None, "", "down"]))
        product["base_increment"] = self.optional()
        return wire.status(sequence_num, *[product] * self.count())

    def ack(self, sequence_num):
        return wire.ack(sequence_num, level2=PRODUCTS[: self.count()], heartbeats=[])

    def frame_time(self, sequence_num):
        if self.chance(self.odd / 4):
            return None
        return self.time(sequence_num if isinstance(sequence_num, int) and sequence_num >= 0 else None)

    def flat(self):
        """Draw a message of the Exchange feed."""
        if self.chance(self.faults):
            return self.bad_flat()
        product_id = self.product()
        kind = self.dice.choice(
            ["snapshot", "l2update", "l2update", "match", "last_match", "ticker", "other"]
        )
        if kind == "snapshot":
            levels = [[[self.number(), self.size()] for _ in range(self.count(3))] for _ in range(2)]
            return wire.exchange_snapshot(product_id, *levels)
        if kind == "l2update":
            side = self.pick(self.dice.choice(["buy", "sell"]), ["buy"], ["bid", "BUY", None])
            changes = [[side, self.number(), self.size()] for _ in range(self.count(3))]
            return wire.exchange_update(*changes, product_id=product_id, time=self.missing_time())
        if kind in ("match", "last_match"):
            trade = {
                "price": self.number(),
                "size": self.number(),
                "product_id": product_id,
                "time": self.time(),
                "sequence": self.optional_id(),
                "maker_order_id": self.pick("2a0d-e34e", ["", None, "ü"], [7, ["x"]]),
            }
            return wire.match(self.dice.randrange(100, 130), kind, **trade)
        if kind == "ticker":
            ticker = {name: self.optional() for name in ("best_bid", "open_24h", "volume_30d", "last_size")}
            ticker |= {"trade_id": self.optional_id(), "sequence": self.optional_id()}
            side = self.pick(self.dice.choice(["buy", "sell"]), ["BUY", "SELL", "", None], ["Buy", 1])
            return wire.exchange_ticker(price=self.number(), side=side, time=self.time(), **ticker)
        return self.dice.choice(
            [
                wire.exchange_heartbeat(product_id=product_id, time=self.time()),
                wire.exchange_ack({"name": "level2", "product_ids": PRODUCTS}),
                {"type": "status", "products": [wire.product(product_id)], "currencies": [{"id": "BTC"}]},
                wire.error("slow down"),
                wire.error("slow down", reason="rate limit"),
            ]
        )

    def optional_id(self):
        return None if self.chance(self.odd) else self.trade_id()

    def bad_flat(self):
        """Draw a message of the Exchange feed that is of another type, or bad."""
        product_id = self.dice.choice([*PRODUCTS, *PRODUCTS, "", None, 7])
        other = {"type": self.dice.choice(OTHER_TYPES), "product_id": product_id, "sequence": 5}
        bad_level2 = [
            wire.exchange_update(["buy", "1"], product_id=product_id),
            wire.exchange_update(["bid", "1", "1"], product_id=product_id),
            wire.exchange_snapshot(product_id, bids=7),
            {"type": "l2update"},
            {"type": "l2updat", "product_id": product_id, "changes": []},
            {"product_id": product_id, "asks": []},
            {"type": "open", "product_id": product_id, "events": [{"updates": [], "product_id": product_id}]},
        ]
        bad = [
            wire.match(1, price="x"),
            wire.match(1, sequence="x"),
            wire.exchange_ticker(price=""),
            wire.exchange_ticker(side="x"),
            wire.exchange_ack({"name": "level2", "product_ids": None}),
            {"type": "subscriptions", "channels": None},
            {"type": "status"},
            wire.error("slow down", timestamp="x"),
            other | {"sequence_num": self.dice.choice([0, 7, None, "7"])},
        ]
        return self.dice.choice(
            [other] * 4 + [self.dice.choice(bad_level2)] * 4 + [self.dice.choice(bad)] * 4
        )

    def frames(self, count):
        """Draw frames of both feeds, in a sequence with gaps, repeats, new connections, unnumbered frames."""
        number = self.dice.choice([0] * 6 + [7] * 2 + [15_158] * 2 + [2**53 - 3])
        exchange = self.chance(0.2)
        sent = []
        for _ in range(count):
            exchange ^= self.chance(0.04)
            step = self.dice.randrange(100)
            if step < 8 and sent:
                sent.append(self.dice.choice(sent[-6:]))
                continue
            if step < 11 and sent:
                sent.append(self.with_other_content(self.dice.choice(sent[-6:])))
                continue
            if exchange or step < 14:
                sent.append(self.flat())
                continue
            if step < 20:
                number += self.dice.choice([1, 2, 5])
            elif step < 24:
                number = self.dice.choice([0, 0, 1, number - 1, number - 2]) if number > 2 else 0
            odd = self.chance(self.odd / 3)
            sent.append(self.numbered(self.odd_sequence_num(number) if odd else number))
            number += 1
        return sent

    def odd_sequence_num(self, number):
        odd = [None, str(number), -1, True, Bare(f"{number}.0"), Bare(f"0{number}"), 2**63, []]
        return self.dice.choice([*odd, 2**53 - 1, 2**53, 2**53 + 1])

    def numbered(self, number):
        """Draw a frame of the Advanced Trade feed: now and then an error frame, or a bad one."""
        draw = (
            self.dice.choice([self.error, self.unknown, self.bad]) if self.chance(self.faults) else self.frame
        )
        frame = draw(number)
        return self.rewritten(frame) if self.chance(self.faults) else frame

    def error(self, sequence_num):
        head = self.dice.choice([{"type": "error"}, {"channel": "error"}, {"channel": "errors", "type": "x"}])
        time = {"timestamp": self.frame_time(sequence_num)} if self.chance(0.7) else {}
        return head | {"message": "slow down", "sequence_num": sequence_num} | time

    def unknown(self, sequence_num):
        """Draw a frame of an unknown channel, perhaps with the content of level2."""
        events = self.level2(sequence_num)["events"]
        of_user = [{"type": "snapshot", "orders": []}]
        events = self.dice.choice([events, events, of_user, [{"updates": []}], [*events, 7], None])
        channel = self.dice.choice(["user", "full", "l2_dat", "level2 ", "", None, 7])
        return wire.advanced(channel, sequence_num, timestamp=self.frame_time(sequence_num)) | {
            "events": events
        }

    def bad(self, sequence_num):
        """Draw a frame with something bad in its header, or an event that is none of its channel's."""
        frame = self.frame(sequence_num)
        events = self.level2(sequence_num)["events"]
        fault = self.dice.choice(
            [
                {"events": None},
                {"events": [*frame["events"], {}]},
                {"events": [*frame["events"], 7]},
                {"events": [*frame["events"], wire.book(self.dice.choice([*PRODUCTS, ""]), {"side": "?"})]},
                {"events": [*events, *frame["events"]]},
                {"events": {}},
                {"timestamp": self.dice.choice(["", "now", 17])},
                {"sequence_num": self.dice.choice([-1, "7", 2**53 + 1, 2**63])},
                {"channel": self.dice.choice(["l2_data", "ticker", "status"])},
                {"data": self.dice.choice([None, {}, frame])},
            ]
        )
        frame = frame | fault
        if self.chance(0.1):
            del frame[self.dice.choice(["events", "timestamp", "channel"])]
        return frame

    def rewritten(self, frame):
        """Write a frame's keys in another order, with a new one, or with one that is there already."""
        kind = self.dice.choice(
            ["sorted", "reversed", "number last", "new key", "twice", "twice, deep", "no events"]
        )
        if kind == "sorted":
            return with_sorted_keys(frame)
        if kind == "reversed":
            return dict(reversed(frame.items()))
        if kind == "number last":
            return {key: one for key, one in frame.items() if key != "sequence_num"} | {
                "sequence_num": frame.get("sequence_num")
            }
        if kind == "new key":
            at = self.dice.randint(0, len(frame))
            members = list(frame.items())
            return dict([*members[:at], ("epoch", 1), *members[at:]])
        if kind == "twice":
            key = self.dice.choice(list(frame))
            return frame | {Twin(key): self.dice.choice([frame[key], None, "x"])}
        if kind == "twice, deep":
            return frame | {"foo": [{"a": 1, "b": {Twin("x"): 1, Twin("x"): 2}}]}
        return frame | {"events": None}

    def with_other_content(self, frame):
        """Draw a frame of the same number, time and channel that is another one all the same."""
        if not isinstance(frame.get("events"), list):
            return frame | {"foo": self.dice.randrange(3)}
        return frame | self.dice.choice([{"events": frame["events"] * 2}, {"events": []}, {"client_id": "x"}])


def with_sorted_keys(value):
    if isinstance(value, dict):
        return {key: with_sorted_keys(value[key]) for key in sorted(value)}
    return [with_sorted_keys(one) for one in value] if isinstance(value, list) else value


# --- spelling


class Writer:
    """Writes a value as JSON in one of the many ways; ``odd`` is how often it departs from the usual one."""

    def __init__(self, dice: random.Random, odd: float) -> None:
        self.dice = dice
        self.odd = odd

    def strange(self) -> bool:
        return self.dice.random() < self.odd

    def space(self) -> str:
        return self.dice.choice([" ", "\t", "  ", "\r"]) if self.strange() else ""

    def write(self, value) -> str:
        if isinstance(value, Bare):
            return str(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            members = list(value.items())
            if self.strange():
                self.dice.shuffle(members)
            if self.strange() and self.dice.random() < 0.3:
                members.insert(self.dice.randint(0, len(members)), self.extra(members))
            written = [
                self.text(key) + self.space() + ":" + self.space() + self.write(one) for key, one in members
            ]
            return "{" + self.space() + self.comma(written) + self.space() + "}"
        if isinstance(value, list):
            return "[" + self.space() + self.comma([self.write(one) for one in value]) + self.space() + "]"
        return json.dumps(value)

    def comma(self, written: list[str]) -> str:
        return "".join(
            (self.space() + "," + self.space()) * (index > 0) + one for index, one in enumerate(written)
        )

    def extra(self, members):
        """Draw one more member: an unknown key, or one that is already there."""
        if members and self.dice.random() < 0.05:
            return self.dice.choice(members)
        values = [None, "x", "7", 7, [], {"a": [{}, 1]}, True, Bare("-1.5e3"), '\\"]}', [[["]"]]], "é\u2028"]
        key = self.dice.choice(["foo", "", "seq", "side ", "Type", "ключ"])
        return key, self.dice.choice(values[:4] if key == "" else values)

    def text(self, value: str) -> str:
        if self.strange() and value:
            at = self.dice.randrange(len(value))
            if ord(value[at]) < 0x10000:
                head, tail = json.dumps(value[:at]), json.dumps(value[at + 1 :])
                return head[:-1] + f"\\u{ord(value[at]):04x}" + tail[1:]
        return json.dumps(value, ensure_ascii=self.strange())


def usual_lines(dice, count, odd, faults=None):
    """Write frames as the recorder does, some of them bare."""
    faults = dice.choice([0.0, 0.1, 0.3]) if faults is None else faults
    market = Market(dice, odd, faults)
    bare = dice.random() < 0.2
    windows = market.chance(faults / 3)
    lines = []
    for number, frame in enumerate(market.frames(count)):
        line = compact(frame if bare else wire.envelope(frame, market.capture_ts(number)))
        lines.append(with_marks(market, line, windows))
    return lines


def with_marks(market, line, windows=False):
    """Put a byte order mark before a line, or a CR behind it, now and then."""
    if market.chance(market.faults / 3):
        line = market.dice.choice([b"\xef\xbb\xbf"] * 3 + [b" \xef\xbb\xbf", b"\xef\xbb\xbf" * 2]) + line
    if windows or market.chance(market.faults / 3):
        line += market.dice.choice([b"\r"] * 5 + [b"\r\r"])
    return line


def compact(value) -> bytes:
    """Write compact JSON, tokens that are no values included."""
    return Writer(random.Random(0), -1.0).write(value).encode()


def wild_lines(dice, count, odd):
    """Write frames in any spelling JSON allows, and now and then in one that it does not."""
    market = Market(dice, odd / 4, odd / 2)
    writer = Writer(dice, odd)
    lines = []
    written = {}
    for number, frame in enumerate(market.frames(count)):
        if id(frame) in written and market.chance(0.5):  # spelled again, it would be no repeat
            lines.append(written[id(frame)])
            continue
        value = frame
        if dice.random() < 0.7:
            value = wire.envelope(
                frame, market.capture_ts(number) if market.chance(0.5) else market.missing_time()
            )
            if market.chance(odd):
                value["metadata"] = dice.choice([{}, {"source": "x", "channel": "y"}, {"more": 1}, None, "x"])
            if market.chance(odd):
                del value[dice.choice(["capture_ts", "metadata"])]
        text = writer.write(value)
        if market.chance(odd / 2):
            text = (
                text.replace('"', str(dice.choice(NO_TOKENS)), 1)
                if dice.random() < 0.2
                else text + writer.space()
            )
        lines.append(with_marks(market, text.encode()))
        written[id(frame)] = lines[-1]
    return lines


# --- damage

SIGNS = b'{}[]:,"\\0123456789.eE+-TZ \t\r\nabdfilnorstu_\x00\x7f\x80\xc3\xff'
TOKEN = re.compile(rb'"[^"]*"|-?[0-9.]+|[{}\[\]:,]')
STRANGE_TOKENS = [
    *(
        b'"0"',
        b'"1e-7"',
        b'"-1"',
        b'""',
        b"null",
        b"0",
        b"-0",
        b"1.5",
        b"true",
        b"[]",
        b"{}",
        b'"a\\"b"',
        b'"\\u0062id"',
    ),
    *(
        b'"bid"',
        b'"offer"',
        b'"ask"',
        b'"update"',
        b'"snapshot"',
        b'"level2"',
        b'"l2_data"',
        b'"1970-01-01T00:00:00Z"',
    ),
    *(
        b'"2026-03-04T05:06:07+01:00"',
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"",
        b'"\xc3\xbc"',
        b'"\xff"',
        b'"data"',
    ),
    *(
        b'"events"',
        b'"updates"',
        b'"type"',
        b'"channel"',
        b'"1.5" ',
        b"NaN",
        b'"1.50000000000000000"',
        b'"1."',
    ),
]


def damage(dice, segment: bytes) -> bytes:
    """Change a segment in one place."""
    at = dice.randrange(len(segment) + 1)
    rest = segment[at:]
    lines = segment.split(b"\n")
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    kind = dice.choice(
        ["sign", "bit", "delete", "insert", "repeat", "swap", "cut", "glue", "copy"] + ["token"] * 6
    )
    if kind == "sign":
        return segment[:at] + bytes([dice.choice(SIGNS)]) + rest[1:]
    if kind == "bit":
        return segment[:at] + bytes([byte ^ 1 << dice.randrange(8) for byte in rest[:1]]) + rest[1:]
    if kind == "delete":
        return segment[:at] + rest[dice.choice([1, 1, 1, 2, 7]) :]
    if kind == "insert":
        return segment[:at] + bytes([dice.choice(SIGNS)]) + rest
    if kind == "repeat":
        lines.insert(one, lines[other])
    if kind == "swap":
        lines[one], lines[other] = lines[other], lines[one]
    if kind == "cut":
        lines[one] = lines[one][: dice.randint(0, len(lines[one]))]
    if kind == "glue" and one:
        lines[one - 1 : one + 1] = [lines[one - 1] + lines[one]]
    if kind == "copy":
        return segment[:at] + segment[dice.randrange(len(segment) + 1) :][: dice.randrange(60)] + rest
    if kind == "token":
        tokens = list(TOKEN.finditer(lines[one]))
        if tokens:
            start, end = dice.choice(tokens).span()
            lines[one] = lines[one][:start] + strange_token(dice, lines[one][start:end]) + lines[one][end:]
    return b"\n".join(lines)


def strange_token(dice, token: bytes) -> bytes:
    """Put another token in a token's place, or the same one with something beside it."""
    return dice.choice(
        [
            dice.choice(STRANGE_TOKENS),
            token + dice.choice([b" ", b"\t", b"\r", token, b",", token + b":" + token + b","]),
            dice.choice([b" ", b"\t", b"0", b"-", b"."]) + token,
            token[:-1] + dice.choice([b" ", b"0", b".", b"e", b"Z", b"\\"]) + token[-1:],
            token[:1] + dice.choice([b" ", b"0", b"-", b"+", b"."]) + token[1:],
            token[::-1],
        ]
    )


def joined(dice, lines):
    return b"\n".join(lines) + dice.choice([b"\n", b"\n", b""])


# --- laws


def test_streams_have_every_kind_of_marker():
    """What the laws here are tried on: else they would hold of nothing."""
    kinds = Counter()
    for seed in range(50):
        dice = random.Random(seed)
        rows = raw.decode([joined(dice, usual_lines(dice, 12, 0.1))]).rows
        messages = {line: [] for line in sorted({row["line"] for row in rows["level2"]})}
        for row in rows["level2"]:
            messages[row["line"]].append(row)
        rejected = {row["line"] for row in rows["rejects"]}
        for line, message in messages.items():
            markers = [row for row in message if raw.is_marker(row)]
            breaks = [row for row in markers if not row["is_snapshot"]]
            kinds["a break shown by level2"] += 0 < len(breaks) < len(message)
            kinds["a break shown by another frame"] += len(breaks) == len(message) and line not in rejected
            kinds["a break shown by a rejected line"] += bool(breaks) and line in rejected
            kinds["breaks of several products"] += len(breaks) > 1
            kinds["an empty snapshot"] += any(row["is_snapshot"] for row in markers)
            products = [row["product_id"] for row in message if row["is_snapshot"]]
            kinds["a snapshot after another"] += any(
                row["is_snapshot"] and products.count(row["product_id"]) > 2 for row in markers
            )
    assert min(kinds.values()) > 1, kinds


def kinds_of_line(stream, line, seen):
    """Take a line, and name what it is; ``seen`` holds the lines before it."""
    tables, feed, connections = stream.tables, stream.feed, stream.tables.connections
    rejects, repeats, unusual = len(tables.rows["rejects"]), tables.duplicates, tables.unusual.copy()
    stream.take_line(line, 1, 0)
    value = None
    with contextlib.suppress(raw.Illegal):
        value = raw.read_line(raw.unmarked(line)[0])
    outline = raw.outline(line.removesuffix(b"\r"))
    yield from (tables.unusual - unusual).elements()
    if None not in (feed, stream.feed) and feed != stream.feed:
        yield "a switch"
    elif tables.connections > connections > 0 and outline is not None:
        same = (outline.sequence_num, outline.server_time, outline.channel)
        before = filter(None, map(raw.outline, seen))
        if same in [(one.sequence_num, one.server_time, one.channel) for one in before]:
            yield "the same number, time and channel"
    if tables.duplicates > repeats:
        yield "a repeat" if line in seen else "a repeat with another capture_ts"
    if len(tables.rows["rejects"]) > rejects:
        yield from kinds_of_rejected(line, value, outline, tables.rows["rejects"][-1]["reason"])
    elif isinstance(value, dict):
        yield from kinds_of_understood(value.get("data", value), outline)


def kinds_of_rejected(line, value, outline, reason):
    header = raw.header_of(line, value)
    if header is None:
        yield f"nothing is read: {reason if 'duplicate' in reason else ''}"
        return
    if outline is not None:
        yield "a usual header" + (" of a duplicate key" if "duplicate" in reason else "")
    if outline is None:
        number = "a" if header.sequence_num is not None else "no"
        yield f"read as JSON: {number} number, feed {header.feed}, level2 {header.is_level2}"
        data = value.get("data", value)
        if "channel" not in data and "sequence_num" not in data:
            yield f"type {data.get('type')}"
        if isinstance(data.get("sequence_num"), raw.Number) and header.sequence_num is None:
            yield "a number that is none"
    elif outline.channel not in raw.KNOWN_CHANNELS:
        yield f"an unknown channel, level2 {header.is_level2}"
    if header.is_level2:
        yield f"products known {header.products is not None}"


def kinds_of_understood(data, outline):
    if "channel" in data and outline is None:
        yield "understood without a usual header"
    if "events" in data and data["events"] is None:
        yield "events null"
    if data.get("type") == "error" or data.get("channel") in ("error", "errors"):
        yield "an error frame with a number" if data.get("sequence_num") else "an error frame without"
    if isinstance(data.get("sequence_num"), raw.Number) and int(data["sequence_num"].text) > 2**53 - 3:
        yield "a number near 2**53"


KINDS = [
    *("CRLF", "byte order mark", "a switch", "a repeat", "a repeat with another capture_ts"),
    *("capture_ts with a space", "capture_ts with an offset like +0000", "capture_ts without a zone"),
    *("capture_ts as an epoch", "the same number, time and channel", "events null", "a number near 2**53"),
    *("an error frame with a number", "an error frame without", "understood without a usual header"),
    *(
        "nothing is read: ",
        "nothing is read: duplicate key",
        "a usual header",
        "a usual header of a duplicate key",
    ),
    *(
        f"read as JSON: {how} number, feed advanced, level2 {level2}"
        for how in ("a", "no")
        for level2 in (True, False)
    ),
    *(
        "read as JSON: no number, feed exchange, level2 True",
        "read as JSON: no number, feed None, level2 False",
    ),
    *("an unknown channel, level2 True", "an unknown channel, level2 False", "a number that is none"),
    *("products known True", "products known False"),
    *(f"type {kind}" for kind in OTHER_TYPES),
    *(
        f"type {kind}"
        for kind in ("match", "ticker", "subscriptions", "status", "l2update", "snapshot", "error")
    ),
]


def test_streams_have_every_kind_of_line():
    """Those as the recorder writes them: the wild ones are the same frames, spelled otherwise."""
    kinds = Counter()
    for seed in range(70):
        dice = random.Random(seed)
        stream = raw.Stream()
        stream.start_segment()
        seen = []
        for line in usual_lines(dice, 14, 0.02, faults=0.3):
            kinds.update(kinds_of_line(stream, line, seen))
            seen.append(line)
    assert [kind for kind in KINDS if not kinds[kind]] == []


@pytest.mark.slow
@tiers.examples(66, suppress=HealthCheck)
@given(DICE)
def test_usual_streams(tmp_path, dice):
    lines = usual_lines(dice, dice.randint(1, 12), dice.choice([0.0, 0.02, 0.1]))
    laws.same_as_oracle(joined(dice, lines), tmp_path)


@pytest.mark.ci
@tiers.examples(53, suppress=HealthCheck)
@given(DICE)
def test_wild_streams(tmp_path, dice):
    lines = wild_lines(dice, dice.randint(1, 8), dice.choice([0.02, 0.1, 0.3]))
    laws.same_as_oracle(joined(dice, lines), tmp_path)


@pytest.mark.slow
@tiers.examples(110, suppress=HealthCheck)
@given(DICE)
def test_damaged_streams(tmp_path, dice):
    segment = joined(dice, usual_lines(dice, dice.randint(1, 8), 0.0))
    for _ in range(dice.choice([1, 1, 2, 3, 6])):
        segment = damage(dice, segment)
    laws.same_as_oracle(segment, tmp_path)


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(DICE)
def test_damaged_wild_streams(tmp_path, dice):
    segment = joined(dice, wild_lines(dice, dice.randint(1, 6), 0.1))
    for _ in range(dice.choice([1, 2, 3])):
        segment = damage(dice, segment)
    laws.same_as_oracle(segment, tmp_path)


@pytest.mark.slow
@tiers.examples(17, suppress=HealthCheck)
@given(DICE)
def test_scan_is_read(tmp_path, dice):
    lines = usual_lines(dice, dice.randint(1, 10), 0.02) + wild_lines(dice, dice.randint(1, 4), 0.1)
    segment = joined(dice, lines)
    for _ in range(dice.choice([0, 1, 3])):
        segment = damage(dice, segment)
    laws.scan_is_read(segment, tmp_path, laws.same_as_oracle(segment, tmp_path))


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(DICE)
def test_segments_are_one_stream(tmp_path, dice):
    """Cut anywhere between two lines, the level2 rows are the same (their line numbers start anew)."""
    segment = joined(dice, usual_lines(dice, dice.randint(1, 12), 0.02))
    for _ in range(dice.choice([0, 1, 3])):
        segment = damage(dice, segment)
    lines = re.findall(rb"[^\n]*\n|[^\n]+", segment)
    cuts = sorted(dice.randint(0, len(lines)) for _ in range(dice.choice([1, 2])))
    bounds = [0, *cuts, len(lines)]
    parts = [b"".join(lines[low:high]) for low, high in pairwise(bounds)]
    whole = laws.same_as_oracle(segment, tmp_path / "whole")
    cut = laws.same_as_oracle(parts, tmp_path / "parts")
    laws.assert_same(cut.level2.drop("line"), whole.level2.drop("line"), "level2")
    laws.assert_same(cut.gaps.drop("line"), whole.gaps.drop("line"), "gaps")
    laws.assert_same(cut.rejects.select("raw"), whole.rejects.select("raw"), "rejects")


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(DICE)
def test_the_spelling_does_not_matter(tmp_path, dice):
    """The recorder's way of writing and any other give the same tables and the same counts."""
    frames = Market(dice, 0.02).frames(dice.randint(1, 8))
    writer = Writer(dice, dice.choice([0.05, 0.3]))
    writer.extra = lambda members: ("foo", 1)
    lines = [compact(wire.envelope(one)) for one in frames]
    usual = laws.same_as_oracle(wire.segment(*lines), tmp_path)
    # a repeat is the same bytes: each frame is spelled once
    spelling = {
        line: writer.write(wire.envelope(one)).encode() for line, one in zip(lines, frames, strict=True)
    }
    spelled = [spelling[line] for line in lines]
    other = laws.same_as_oracle(wire.segment(*spelled), tmp_path / "spelled")
    if usual.rejects.height or other.rejects.height:
        return
    for table in schema.RAW:
        got, expected = getattr(other, table), getattr(usual, table)
        if table == "subscriptions":  # a map of channels: its order is the rows'
            got, expected = got.sort("line", "channel"), expected.sort("line", "channel")
        laws.assert_same(got, expected, table)
    assert other.report.long_numbers == usual.report.long_numbers
    assert other.report.frames == usual.report.frames
    assert other.report.time_span == usual.report.time_span


WRITE_ALL = {channel: {"partition_cols": []} for channel in schema.CHANNELS} | {
    "level2": {"partition_cols": [], "processor_options": {"reconstruct_lob": False}}
}


@pytest.mark.slow
@tiers.examples(17, suppress=HealthCheck)
@given(DICE)
def test_a_run_writes_the_same_rows(tmp_path_factory, dice):
    """`run_segment` writes of every channel the rows that `read_raw` returns."""
    segment = joined(
        dice, usual_lines(dice, dice.randint(1, 12), 0.02) + wild_lines(dice, dice.randint(0, 4), 0.1)
    )
    for _ in range(dice.choice([0, 1, 3])):
        segment = damage(dice, segment)
    folder = tmp_path_factory.mktemp("run")
    (path,) = laws.write_segments([segment], folder)
    expected = cb.read_raw(path)
    if expected.report.no_recording:
        with pytest.raises(cb.SegmentError, match="is not a recording"):
            cb.run_segment(path, folder / "out", channel_config=WRITE_ALL)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cb.CbtoolsWarning)  # of clocks and books: these are no market
        cb.run_segment(path, folder / "out", channel_config=WRITE_ALL)
    for channel in schema.CHANNELS:
        table = getattr(expected, channel)
        if table.is_empty():
            assert not (folder / "out" / channel).exists(), channel
            continue
        written = cb.scan_dataset(folder / "out", channel).select(table.columns).collect()
        laws.assert_same(written.sort("line", maintain_order=True), table, channel)


@st.composite
def number_texts(draw):
    """Draw a legal number text: of any length, of any size, near and at the middle between two doubles."""
    kind = draw(st.integers(0, 4))
    if kind == 4:  # the longest that the kernel reads
        digits = f"{draw(st.integers(0, 10**18 - 1)):018d}"[: draw(st.integers(15, 18))]
        cut = draw(st.integers(1, 18))
        return digits[:cut] + "." * bool(digits[cut:]) + digits[cut:]
    if kind == 0:
        whole = draw(st.text("0123456789", min_size=1, max_size=25))
        fraction = draw(st.text("0123456789", max_size=25))
        return whole + "." * bool(fraction) + fraction
    if kind == 1:
        return f"{draw(st.integers(0, 10 ** draw(st.integers(1, 30))))}e{draw(st.integers(-350, 308 - 30))}"
    double = draw(st.floats(0, 1e300))
    if kind == 2:
        return f"{double:.{draw(st.integers(0, 30))}f}"
    middle = (Fraction(double) + Fraction(nextafter(double, inf))) / 2
    scaled = int(middle * 10**40) + draw(st.integers(-1, 1)) * 10 ** draw(st.integers(0, 40))
    text = f"{max(scaled, 0):041d}"
    return text[:-40] + "." + text[-40:]


@tiers.examples(26, suppress=HealthCheck)
@given(st.lists(number_texts(), min_size=1, max_size=60))
def test_numbers_are_the_nearest_doubles(tmp_path, texts):
    updates = [wire.update("bid", price, size) for price, size in zip(texts, texts[::-1], strict=True)]
    segment = wire.segment(wire.record(wire.l2(0, wire.book("BTC-USD", *updates))))
    raw = laws.same_as_oracle(segment, tmp_path)
    assert laws.plain(raw.level2["price"]) == [float(text).hex() for text in texts]


@st.composite
def time_texts(draw):
    """Draw a legal time with any number of digits and any offset."""
    when = draw(st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 31))).isoformat(timespec="seconds")
    fraction = draw(st.text("0123456789", max_size=9))
    hour, minute = draw(st.integers(0, 23)), draw(st.integers(0, 59))
    zone = draw(st.sampled_from(["Z", "+00:00", f"+{hour:02d}:{minute:02d}", f"-{hour:02d}:{minute:02d}"]))
    return when + "." * bool(fraction) + fraction + zone


@tiers.examples(26, suppress=HealthCheck)
@given(st.lists(time_texts(), min_size=1, max_size=40))
def test_times_are_exact(tmp_path, texts):
    updates = [wire.update("bid", "1", "1", text) for text in texts]
    trades = [wire.trade(number, time=text) for number, text in enumerate(texts)]
    lines = [
        wire.record(wire.l2(0, wire.book("BTC-USD", *updates), timestamp=texts[0]), texts[-1]),
        wire.record(wire.trades(1, *trades)),
    ]
    raw = laws.same_as_oracle(wire.segment(*lines), tmp_path)
    assert (raw.level2.height, raw.market_trades.height) == (len(texts), len(texts))


@pytest.mark.slow
@tiers.examples(13, suppress=HealthCheck)
@given(DICE)
def test_a_scan_may_be_narrowed(tmp_path, dice):
    """Columns, rows and a limit asked of the scan are those of the whole table."""
    segments = [joined(dice, usual_lines(dice, dice.randint(1, 8), 0.02)) for _ in range(2)]
    paths = laws.write_segments(segments, tmp_path)
    whole = cb.read_raw(paths)
    for channel in ("level2", "market_trades", "heartbeats"):
        table = getattr(whole, channel)
        scan = cb.scan_raw(paths, channel)
        columns = dice.sample(table.columns, dice.randint(1, 3))
        laws.assert_same(scan.select(columns).collect(), table.select(columns), "columns")
        for condition in (
            pl.col("connection") == 1,
            pl.col("sequence_num") > 8,
            pl.col("product_id") == "BTC-USD",
        ):
            laws.assert_same(scan.filter(condition).collect(), table.filter(condition), "rows")
            one = scan.filter(condition).select(columns[0]).collect()
            laws.assert_same(one, table.filter(condition).select(columns[0]), "rows of a column")
        limit = dice.randint(0, 6)
        laws.assert_same(scan.head(limit).collect(), table.head(limit), "limit")
        assert scan.select(pl.len()).collect().item() == table.height
        named = cb.scan_raw(paths, channel, segment=True).collect()
        assert named.columns == [*table.columns, "segment"]
        laws.assert_same(named.drop("segment"), table, "with segment")
        assert set(named["segment"]) <= {path.name.removesuffix(".ndjson") for path in paths}


@pytest.mark.ci
def test_a_line_of_many_megabytes(tmp_path):
    """Lines longer than any piece the package reads at once, whole and cut."""
    long = wire.line(wire.change(1) | {"foo": "x" * 40_000_000})
    before = wire.segment(wire.change(0), long, wire.change(2))
    segment = before + wire.segment(b"y" * 20_000_000, wire.change(3)) + long[:-1]
    raw = laws.same_as_oracle(segment, tmp_path)
    assert raw.level2["line"].to_list() == [1, 2, 3, 5, 6]  # the cut line has number 1 again: a reconnect
    assert raw.rejects["byte_offset"].to_list() == [len(before), len(segment) - len(long) + 1]


def long_segment(seed, lines):
    dice = random.Random(seed)
    segment = []
    while len(segment) < lines:
        segment += usual_lines(dice, 400, 0.001)
        segment += wild_lines(dice, 10, 0.1)
        segment += damage(dice, joined(dice, usual_lines(dice, 5, 0.0))).split(b"\n")
    return b"\n".join(segment)


@pytest.mark.ci
def test_a_long_segment(tmp_path):
    """Wherever the package cuts its input into pieces, no line is lost and none is read twice."""
    segment = long_segment(1, 6_000)
    laws.scan_is_read(segment, tmp_path, laws.same_as_oracle(segment, tmp_path))


@pytest.mark.more
@pytest.mark.slow
@tiers.parametrize("ending", ["gz", "zst", "two members"], every=3)
def test_a_compressed_segment_is_the_same(tmp_path, ending):
    segment = long_segment(2, 2_000)
    plain = laws.same_as_oracle(segment, tmp_path)
    if ending == "zst":
        path = tmp_path / "segment_20260304T05_00002.ndjson.zst"
        path.write_bytes(pa.Codec("zstd").compress(segment, asbytes=True))
    elif ending == "gz":
        path = tmp_path / "segment_20260304T05_00002.ndjson.gz"
        path.write_bytes(gzip.compress(segment))
    else:
        path = tmp_path / "segment_20260304T05_00002.ndjson.gz"
        path.write_bytes(gzip.compress(segment[:50_000]) + gzip.compress(segment[50_000:]))
    laws.scan_is_read(path, tmp_path, plain)
