"""The kernels of the features, interpreted: Python checks every index, and the oracle agrees as before."""

from __future__ import annotations

import random

import cases
import feature_flows
import interpreted
import pytest
import tiers

from cbtools._kernels import flow, levels, windows


def flows() -> None:
    for seed in range(tiers.by_tier(3, 12, 12)):
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


@pytest.mark.ci
@pytest.mark.more
def test_interpreted_they_are_the_oracle_s():
    interpreted.run(__file__)


if __name__ == "__main__":
    kernels = [one for module in (flow, levels, windows) for one in vars(module).values()]
    assert not any(hasattr(kernel, "signatures") for kernel in kernels), "compiled"
    flows()
