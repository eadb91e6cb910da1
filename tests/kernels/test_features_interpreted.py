"""The kernels of the features, interpreted: Python checks every index, and the oracle agrees as before."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import cases
import feature_flows

from cbtools._kernels import flow, levels, windows

TESTS = Path(__file__).parents[1]


def flows() -> None:
    for seed in range(12):
        dice = random.Random(seed)
        book = feature_flows.book(dice, dice.choice([5, 50]), cases.DEPTH)
        trades = feature_flows.trades(dice, book)
        frames = [
            feature_flows.in_pieces(dice, frame)
            for frame in (
                feature_flows.frame_of(book, "book", cases.DEPTH),
                feature_flows.frame_of(trades, "market_trades"),
            )
        ]
        for family in cases.FAMILIES[:3]:
            names = cases.names_of(family.cases)
            got = family.ours(*frames, names).collect()
            expected = family.oracle(book, trades, names)
            for case in family.cases:
                for name in case.names:
                    for value, row in zip(got[name], expected, strict=True):
                        assert not cases.differs(case, value, row[name]), (seed, name, value, row[name])


def test_interpreted_they_are_the_oracle_s():
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    kernels = [one for module in (flow, levels, windows) for one in vars(module).values()]
    assert not any(hasattr(kernel, "signatures") for kernel in kernels), "compiled"
    flows()
