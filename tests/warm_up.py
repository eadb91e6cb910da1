"""Compile the kernels once, before several processes of tests each compile all that they use.

``python tests/warm_up.py books`` compiles what reads segments and rebuilds books, ``features`` the others.
They take about equally long.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import book_flows
import cases
import feature_flows
import wire

import cbtools as cb


def books() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "segment_20260304T05_00001.ndjson")
        lines = [wire.snapshot(0), wire.change(1), wire.change(2, side="?")]
        path.write_bytes(wire.segment(*(wire.record(line) for line in lines)))
        cb.read_raw(path)
    level2, _ = book_flows.flow(random.Random(1), 30)
    cb.rebuild_book(level2, bands_bps=(5,)).collect()


def features() -> None:
    dice = random.Random(1)
    rows = feature_flows.book(dice, 120, cases.DEPTH)
    trades = feature_flows.frame_of(feature_flows.trades(dice, rows), "market_trades")
    book = feature_flows.frame_of(rows, "book", cases.DEPTH)
    cb.sample_time(book).collect()
    for family in cases.FAMILIES:
        family.ours(book, trades, cases.names_of(family.cases)).collect()


if __name__ == "__main__":
    {"books": books, "features": features}[sys.argv[1]]()
