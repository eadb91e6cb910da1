"""Level flow: the oracle's, however the rows are cut, and the same for both sides."""

from __future__ import annotations

import random

import feature_flows as flows
import interpreted
import laws
import polars as pl
import pytest
import tiers
from hypothesis import given
from hypothesis import strategies as st
from oracles import clocks
from oracles import labels as oracle

from cbtools._kernels import level_flow as kernels
from cbtools.errors import ConfigError
from cbtools.features.level_flow import add_level_flow

DEPTH = 3
WHATS = ("added", "cancelled", "executed", "unexplained")
OTHER = {"bid": "ask", "ask": "bid", "buy": "sell", "sell": "buy"}
dices = st.randoms(use_true_random=False)
some = tiers.examples(5, full=60)


def names_of(levels: int) -> list[str]:
    return [f"{what}_{side}_{k}" for side in flows.SIDES for what in WHATS for k in range(1, levels + 1)]


def draw(dice: random.Random) -> tuple[list[flows.Row], list[flows.Row]]:
    book = flows.book(dice, dice.choice([1, 3, 60]), DEPTH, faults=dice.choice([0.0, 0.05, 0.3]))
    return book, flows.trades(dice, book, faults=dice.choice([0.0, 0.2]))


def frames(book: list[flows.Row], trades: list[flows.Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return flows.frame_of(book, "book"), flows.frame_of(trades, "market_trades")


def compare(dice: random.Random) -> None:
    book, trades = draw(dice)
    levels = dice.randint(1, DEPTH)
    clock = dice.choice(["receive", "exchange"])
    got = add_level_flow(*frames(book, trades), levels=levels, clock=clock).collect()
    expected = oracle.level_flow(timed(book, clock), timed(trades, clock), levels, DEPTH, "time")
    assert got.columns == [*book[0], *names_of(levels)]
    flows.same_as_oracle(got, expected, names_of(levels))


def timed(rows: list[flows.Row], clock: str) -> list[flows.Row]:
    """Write the time by a clock into the column ``time``."""
    of_exchange = [row.get("trade_time", row["server_time"]) for row in rows]
    times = of_exchange if clock == "exchange" else clocks.receive_times(rows)
    return [row | {"time": time} for row, time in zip(rows, times, strict=True)]


@given(dices)
@some
def test_it_is_the_oracle_s(dice):
    compare(dice)


@given(dices)
@some
def test_any_cut_gives_the_same(dice):
    book, trades = frames(*draw(dice))
    whole = add_level_flow(book, trades, levels=2).collect()
    pieces = flows.in_pieces(dice, book), flows.in_pieces(dice, trades)
    laws.assert_same(add_level_flow(*pieces, levels=2).collect(), whole, "cut")


@given(dices)
@some
def test_products_do_not_mix(dice):
    book, trades = frames(*draw(dice))
    whole = add_level_flow(book, trades, levels=2).collect()
    for product_id in book["product_id"].unique():
        own = add_level_flow(book.filter(product_id=product_id), trades, levels=2).collect()
        laws.assert_same(whole.filter(product_id=product_id), own, product_id)


@given(dices)
@some
def test_sides_are_alike(dice):
    """Mirrored, bids are asks: what is added there is added here."""
    book, trades = draw(dice)
    expected = add_level_flow(*frames(book, trades), levels=2).collect()
    got = add_level_flow(*frames([mirror(row) for row in book], [mirror(row) for row in trades]), levels=2)
    mirrored = {f"{what}_{side}_{k}": f"{what}_{OTHER[side]}_{k}" for what in WHATS for side in flows.SIDES
                for k in (1, 2)}  # fmt: skip
    found = got.select(pl.col(name).alias(other) for name, other in mirrored.items()).collect()
    laws.assert_same(found, expected.select(found.columns), "mirrored")


def mirror(row: flows.Row) -> flows.Row:
    told = {}
    for name, value in row.items():
        side, _, rest = name.partition("_")
        other = f"{OTHER[side]}_{rest}" if side in flows.SIDES else name
        told[other] = -value if "price" in name and value is not None else OTHER.get(value, value)
    return {name: told[name] for name in row}


@given(dices)
@some
def test_the_future_changes_nothing(dice):
    rows, prints = draw(dice)
    book, trades = frames(rows, prints)
    whole = add_level_flow(book, trades).collect()
    n = dice.randint(0, book.height)
    until = max((time for time in clocks.receive_times(rows[:n]) if time is not None), default=-(2**62))
    times = clocks.receive_times(prints)
    seen = trades.filter([time is not None and time <= until for time in times])
    laws.assert_same(add_level_flow(book.head(n), seen).collect(), whole.head(n), "prefix")


def test_columns_are_asked_for_by_the_query():
    book, trades = frames(*draw(random.Random(9)))
    added = add_level_flow(book, trades, levels=2)
    whole = added.collect()
    assert whole.select(book.columns).equals(book)
    assert added.select(pl.len()).collect().item() == book.height
    laws.assert_same(added.select("executed_ask_2").collect(), whole.select("executed_ask_2"), "projection")
    laws.assert_same(added.select("line").collect(), whole.select("line"), "no flow")
    first = pl.col("product_id") == book["product_id"][0]
    laws.assert_same(added.filter(first).collect(), whole.filter(first), "predicate")
    assert add_level_flow(book.clear(), trades, levels=2).collect().schema == whole.schema
    assert add_level_flow(book, trades.clear()).select(pl.col("executed_bid_1").sum()).collect().item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "levels must be a whole number, 1 or more, not 0"),
        ({"levels": True}, "levels must be a whole number, 1 or more, not True"),
        ({"levels": 4}, r"the frame has 3: rebuild_book\(..., depth=4\) shows them"),
        ({"clock": "trade_time"}, "clock must be 'exchange' .* or 'receive' .*, not 'trade_time'"),
    ],
)
def test_what_cannot_be_meant(options, message):
    book, trades = flows.frame_of([], "book", DEPTH), flows.frame_of([], "market_trades")
    with pytest.raises(ConfigError, match=message):
        add_level_flow(book, trades, **options)


def test_what_is_lacking():
    book, trades = flows.frame_of([], "book", DEPTH), flows.frame_of([], "market_trades")
    with pytest.raises(ConfigError, match="the market_trades frame lacks the column maker_side"):
        add_level_flow(book, trades.drop("maker_side"))
    with pytest.raises(ConfigError, match="the market_trades frame lacks the column trade_time"):
        add_level_flow(book, trades.drop("trade_time"), clock="exchange")
    with pytest.raises(ConfigError, match="the book frame lacks the column proven_since"):
        add_level_flow(book.drop("proven_since"), trades)
    with pytest.raises(ConfigError, match="the book frame shows no levels"):
        add_level_flow(book.drop("bid_price_1"), trades)


@pytest.mark.ci
@pytest.mark.more
def test_interpreted():
    interpreted.run(__file__)


if __name__ == "__main__":
    assert not hasattr(kernels.level_flow, "signatures"), "compiled"
    for seed in range(tiers.by_tier(10, 40, 40)):
        compare(random.Random(seed))
