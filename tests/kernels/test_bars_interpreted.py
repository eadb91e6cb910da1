"""The kernels of bars, interpreted: Python checks every index; the bars are the oracle's all the same."""

from __future__ import annotations

import random

import bar_flows
import feature_flows
import interpreted
import pytest
import tiers
from oracles import bars as oracle
from oracles import labels as book_oracle

from cbtools._kernels import bars, toxicity
from cbtools.features import open_bars
from cbtools.features.bars import book_bars
from cbtools.features.toxicity import vpin

SECOND = 10**9


SEEDS = tiers.by_tier(2, 8, 25)


def of_trades() -> None:
    for seed in range(SEEDS):
        dice = random.Random(seed)
        rows = bar_flows.trades(dice, dice.choice([5, 60]))
        for by in bar_flows.KINDS:
            bar_flows.same_as_oracle(rows, **bar_flows.options(dice, by, rows))


def of_books() -> None:
    for seed in range(SEEDS):
        rows = feature_flows.book(random.Random(seed), 60, 2, faults=0.2)
        made = book_bars(feature_flows.frame_of(rows, "book", 2), every="1s").collect()
        bar_flows.same_bars(made, book_oracle.book_bars(rows, SECOND))


def of_buckets() -> None:
    for seed in range(SEEDS):
        dice = random.Random(seed)
        rows = bar_flows.trades(dice, 30)
        for classify in ("aggressor", "bulk"):
            options = {"bucket_volume": 1.0, "n_buckets": dice.choice([2, 5]), "classify": classify}
            made = vpin(bar_flows.frame(rows), **options).collect()
            bar_flows.same_bars(made, oracle.vpin(rows, **options), near=1e-12)


@pytest.mark.ci
@pytest.mark.more
def test_interpreted_they_are_the_oracle_s():
    interpreted.run(__file__)


if __name__ == "__main__":
    kernels = [*vars(bars).values(), *vars(toxicity).values()]
    assert not any(hasattr(kernel, "signatures") for kernel in kernels), "compiled"
    open_bars._ROOM = 3  # so that a kernel goes on where the output was full
    of_trades()
    of_books()
    of_buckets()
