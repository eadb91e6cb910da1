"""Random order flow: the rows of level2 frames, and the lines of recordings.

`Flow` draws the rows of frames directly, also as no feed sends them; `Feed` draws the lines of a recording.
Both take a `random.Random`, which hypothesis may play.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise
from math import nextafter
from typing import Any

import book_laws
import wire

Row = dict[str, Any]

ON = ("message", "bbo", "depth")
GAPS = ("mark", "drop", "ignore")
BANDS = ((), (), (5,), (0.5, 2500), (1e4, 0.001, 33.25))
PRODUCTS = ("BTC-USD", "ETH-USD", "Ü-€", "A")
NOON = 1_772_600_767_000_000_000


def options(dice: random.Random) -> dict[str, Any]:
    """Draw the options of a rebuild."""
    return {
        "depth": dice.choice([1, 2, 3, 10, 25]),
        "on": dice.choice(ON),
        "gaps": dice.choice(GAPS),
        "bands_bps": dice.choice(BANDS),
    }


# --- level2 frames

PRICES = {
    "halves": [90 + k / 2 for k in range(24)],
    "cents": [round(64_930 + k / 100, 2) for k in range(60)],
    "tiny": [5e-324, 1e-300, *(k * 1e-12 for k in range(1, 12)), 1e-8, 1.1e-8],
    "huge": [1e15, 2.0**53, 2.0**53 + 2, 138_991_023.41, 1e22, 1e100, 1e300],
    "near": [0.3, 0.1 + 0.2, nextafter(0.3, 0), 1.0, nextafter(1, 2), nextafter(1, 0)],
    "far": [0.0, 1e-300, 0.01, 1.0, 64_930.57, 138_991_023.41, 1e300],
    "many": [1000 + k * k / 7 for k in range(300)],
}
OPTIONAL = ("sequence_num", "server_time", "capture_time")
SIZES = [1.0, 0.25, 1e-8, 3e10, 0.1, 0.2, 0.3, 1e16, 7.0]


NO_CHANGE = dict.fromkeys(("side", "price", "size"))


class Flow:
    """Draws the rows of level2 frames, also as no feed sends them; ``as_decoded``: markers as in a recording.

    Then there is a marker where a product's run breaks, unless its last row is one, and each other snapshot
    of a product in a frame begins with one. Otherwise they are anywhere, and may be missing.
    """

    def __init__(self, dice: random.Random, *, as_decoded: bool = False) -> None:
        self.dice = dice
        self.as_decoded = as_decoded
        self.products = dice.sample(PRODUCTS, dice.choice([1, 1, 2, 3]))
        self.prices = {product_id: PRICES[dice.choice(list(PRICES))] for product_id in self.products}
        self.crossing = dice.choice([0.0, 0.02, 0.3])
        self.deleting = dice.choice([0.2, 0.4, 0.8])
        self.updating = dice.choice([0.6, 0.9])
        self.breaking = dice.choice([0.0, 0.05, 0.2])
        self.marking = 1.0 if as_decoded else dice.choice([0.0, 0.5, 1.0])
        self.stray = 0.0 if as_decoded else dice.choice([0.0, 0.0, 0.1])
        self.unmarked: set[str] = set()
        self.disorder = dice.choice([0.0, 0.0, 0.1])
        self.missing = {name: dice.choice([0, 0, 0.1, 1]) for name in OPTIONAL}
        self.now = dice.choice([NOON, NOON, NOON, 0, -5])
        self.line = self.highest_line = 0
        self.told = set()
        self.number = dice.choice([0, 7])
        self.connection = 1
        self.runs = dict.fromkeys(self.products, self.now)
        self.old_runs = [self.now]

    def chance(self, of: float) -> bool:
        return of > 0 and self.dice.random() < of

    def frame(self) -> list[Row]:
        self.line += 1
        self.number += 1
        self.now += self.dice.choice([0, 1, 1, 7, 1000])
        broken = self.break_off() if self.chance(self.breaking) else []
        number = self.number - (self.dice.randint(1, 3) if self.chance(self.disorder) else 0)
        received = self.now - (self.dice.randint(1, 9) if self.chance(0.05) else 0)
        told = {
            "sequence_num": number,
            "server_time": received - self.dice.choice([0, 1, 1, 2]),
            "capture_time": received,
        }
        for name, often in self.missing.items():
            if self.chance(often):
                told[name] = None
        if (self.connection, self.line, *told.values()) in self.told:  # no two frames look the same
            self.line = self.highest_line + 1
        self.told.add((self.connection, self.line, *told.values()))
        self.highest_line = max(self.line, self.highest_line)
        told |= {"stream": None, "connection": self.connection, "line": self.line, "event_time": None}
        found = [marker(product_id) for product_id in sorted(broken) if self.chance(self.marking)]
        self.unmarked -= {row["product_id"] for row in found}
        for _ in range(self.dice.choice([0, 1] if found else [1, 1, 1, 2, 3, 4])):
            product_id = self.dice.choice(self.products)
            rows = self.event(product_id)
            again = any(row["is_snapshot"] and row["product_id"] == product_id for row in found)
            if again and rows[0]["is_snapshot"] and rows[0]["side"] and self.chance(self.marking):
                found.append(marker(product_id, is_snapshot=True))
            found += rows
            self.unmarked.add(product_id)
        return [{**row, **told, "unbroken_since": self.runs[row["product_id"]]} for row in found]

    def break_off(self) -> list[str]:
        """Begin a new run: of all products, of one, with a new connection, or an old one again.

        Return the products for which a marker says so.
        """
        old = [] if self.as_decoded else ["old"]
        kind = self.dice.choice(["gap", "gap", "one", "connection", "segment", *old])
        name = max(self.now, *self.runs.values()) + 1
        runs = self.runs.copy()
        if kind == "segment":
            self.now += 1
            self.line = 1
        elif kind == "one":
            self.runs[self.dice.choice(self.products)] = name
        elif kind == "old" and not self.disorder:
            self.runs[self.dice.choice(self.products)] = self.dice.choice(self.old_runs)
        else:
            self.runs = dict.fromkeys(self.products, name)
            if kind == "connection":
                self.connection += 1
                self.number = self.dice.choice([0, 5]) if self.disorder else self.number + 1
        self.old_runs.append(name)
        broken = [product_id for product_id in self.products if self.runs[product_id] != runs[product_id]]
        return [name for name in broken if name in self.unmarked] if self.as_decoded else broken

    def event(self, product_id: str) -> list[Row]:
        """Draw a product's changes or its snapshot, a marker if that has no levels; at least one row."""
        if self.chance(self.stray):
            return [marker(product_id)]
        is_snapshot = not self.chance(self.updating)
        count = self.dice.choice([0, 1, 2, 5, 12] if is_snapshot else [1, 1, 2, 3, 6])
        levels = [
            {"product_id": product_id, "is_snapshot": is_snapshot, **self.level(product_id, is_snapshot)}
            for _ in range(count)
        ]
        return levels or [marker(product_id, is_snapshot=True)]

    def level(self, product_id: str, is_snapshot: bool) -> Row:
        prices = self.prices[product_id]
        middle = len(prices) // 2
        side = self.dice.choice(["bid", "ask"])
        is_low = (side == "bid") != self.chance(self.crossing)
        price = self.dice.choice(prices[:middle] if is_low else prices[middle:])
        deletes = self.chance(0.1 if is_snapshot else self.deleting)
        return {"side": side, "price": price, "size": 0.0 if deletes else self.dice.choice(SIZES)}


def marker(product_id: str, *, is_snapshot: bool = False) -> Row:
    """Return what a marker says: of a break, or that the book is empty from here."""
    return {"product_id": product_id, "is_snapshot": is_snapshot, **NO_CHANGE}


def frames(dice, count, *, as_decoded=False):
    flow = Flow(dice, as_decoded=as_decoded)
    return [flow.frame() for _ in range(count)]


def flow(dice, count, *, as_decoded=False):
    """Draw frames; return their rows, as a table and as the oracle takes them."""
    rows = [row for frame in frames(dice, count, as_decoded=as_decoded) for row in frame]
    return book_laws.as_level2(rows), rows


# --- recordings

BREAKS = ("gap", "connection", "cut", "noise", "spoiled")
"""What can go wrong with lines so that frames are missing, or are of a new connection."""
FAULTS = (*BREAKS, "repeat", "error")


class Feed:
    """Draws the lines of a recording: books in both shapes, and all that can go wrong with lines."""

    PRICES = ("99", "99.5", "100", "100.50", "101", "1e2", "64930.57")

    def __init__(self, dice: random.Random, faults: float, *, mixed: bool = True) -> None:
        self.dice = dice
        self.faults = faults
        self.kinds = [*FAULTS, *(["bare", "exchange"] if mixed else [])]
        self.products = dice.sample(PRODUCTS, dice.choice([1, 2, 3]))
        self.number = dice.choice([0, 0, 15_158])
        self.now = 0
        self.sent: list[bytes] = []

    def time(self) -> str:
        """Give a time that no other line has."""
        self.now += 1
        return f"2026-03-04T05:06:07.{self.now:06d}Z"

    def line(self) -> bytes:
        if self.dice.random() < self.faults:
            return self.fault()
        kind = self.dice.choice(["book"] * 10 + ["trades", "heartbeat", "ack"])
        time, number = self.time(), self.number
        self.number += 1
        if kind == "trades":
            frame = wire.trades(number, wire.trade(str(number)), timestamp=time)
        elif kind == "heartbeat":
            frame = wire.heartbeat(number, "now", number) | {"timestamp": time}
        elif kind == "ack":
            frame = wire.ack(number, level2=self.products) | {"timestamp": time}
        else:
            events = [self.event() for _ in range(self.dice.choice([0, 1, 1, 1, 2, 3]))]
            frame = wire.l2(number, *events, timestamp=time)
        line = wire.record(frame, time)
        self.sent.append(line)
        return line

    def event(self):
        kind = "snapshot" if self.dice.random() < 0.25 else "update"
        levels = [self.level() for _ in range(self.dice.choice([0, 1, 1, 2, 4]))]
        return wire.book(self.dice.choice(self.products), *levels, kind=kind)

    def level(self):
        return wire.update(self.dice.choice(["bid", "offer"]), self.dice.choice(self.PRICES), self.size())

    def size(self):
        return self.dice.choice(["0", "0.00", "1", "2.5", "0.00000001"])

    def fault(self) -> bytes:
        kind = self.dice.choice(self.kinds)
        if kind == "gap":
            self.number += self.dice.randint(1, 5)
        elif kind == "connection":
            self.number = self.dice.choice([0, 0, 3])
        elif kind == "repeat" and self.sent:
            return self.dice.choice(self.sent[-4:])
        elif kind == "noise":
            return self.dice.choice([b"", b"\x00\x00", b"{", b"[]", b'{"type":"other"}'])
        elif kind == "error":
            return wire.record(wire.error(), self.time())
        elif kind in ("exchange", "bare"):
            return self.flat()
        elif kind in ("cut", "spoiled"):
            line = self.line()
            at = self.dice.randint(0, len(line))
            return line[:at] if kind == "cut" else re.sub(b'"(price_level|trade_id)":"', rb"\g<0>x", line)
        return self.line()

    def flat(self) -> bytes:
        time, product_id = self.time(), self.dice.choice(self.products)
        levels = [[self.dice.choice(self.PRICES), self.size()] for _ in range(self.dice.randint(0, 3))]
        if self.dice.random() < 0.3:
            return wire.record(wire.exchange_snapshot(product_id, levels, levels[:1]), time)
        changes = [[self.dice.choice(["buy", "sell"]), *level] for level in levels]
        frame = wire.exchange_update(*changes, product_id=product_id, time=time)
        return wire.line(frame) if self.dice.random() < 0.5 else wire.record(frame, time)


def lines(dice, most=25, *, mixed=True):
    feed = Feed(dice, dice.choice([0.0, 0.1, 0.4]), mixed=mixed)
    return [feed.line() for _ in range(dice.randint(0, most))]


def cut(dice, lines, parts):
    """Cut lines into segments, some of them maybe without a line."""
    cuts = sorted(dice.randint(0, len(lines)) for _ in range(parts - 1))
    return [wire.segment(*lines[low:high]) for low, high in pairwise([0, *cuts, len(lines)])]
