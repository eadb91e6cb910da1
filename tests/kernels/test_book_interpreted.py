"""The kernels of the book, interpreted: Python checks every index; the rows are the oracle's all the same."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import book_laws
import interpreted
import laws
import polars as pl
import pytest
import tiers
from book_flows import cut, flow, lines, options
from oracles import book as oracle

import cbtools as cb
from cbtools._kernels import book as kernels


def flows() -> None:
    for seed in range(tiers.by_tier(8, 60, 60)):
        dice = random.Random(seed)
        level2, rows = flow(dice, dice.choice([5, 30]))
        book_laws.same_as_oracle(level2, rows, **options(dice))


def recordings(folder: Path) -> None:
    """From state to state, so that what is carried over is interpreted, too."""
    for seed in range(tiers.by_tier(2, 15, 15)):
        dice = random.Random(seed)
        paths = laws.write_segments(cut(dice, lines(dice), 3), folder / str(seed))
        chosen = options(dice)
        rows = book_laws.as_rows(cb.scan_raw(paths, "level2").collect())
        books: dict[str, oracle.Book] = {}
        expected = oracle.rebuild(rows, books=books, **chosen)
        state, parts = cb.BookState(), []
        for path in paths:
            level2 = cb.scan_raw(path, "level2", start=state)
            parts.append(cb.rebuild_book(level2, start=state, **chosen).collect())
            state = cb.BookState.read(path, start=state)
        book_laws.same_rows(pl.concat(parts), expected, chosen["depth"], chosen["bands_bps"])
        book_laws.same_state(state, books)


@pytest.mark.slow
@pytest.mark.more
def test_interpreted_it_is_the_oracle_s():
    interpreted.run(__file__)


if __name__ == "__main__":
    assert not any(hasattr(kernel, "signatures") for kernel in vars(kernels).values()), "compiled"
    flows()
    with tempfile.TemporaryDirectory() as name:
        recordings(Path(name))
