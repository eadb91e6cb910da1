"""The laws that hold for every feature of the catalogue, on random books and trades."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import feature_flows
import laws
import polars as pl
import pytest
import tiers
from cases import BOOK, DEPTH, FAMILIES, INTERVALS, JUDGED_ELSEWHERE, TRADES, Case, Family, differs, names_of
from hypothesis import given
from hypothesis import strategies as st

from cbtools.features.listing import EVERY

Row = dict[str, Any]


def each(families: Sequence[Family]) -> Any:
    return pytest.mark.parametrize("family", families, ids=[family.name for family in families])


each_family = each(FAMILIES)
each_timed_family = each([family for family in FAMILIES if family.time])
each_of_rows = each([family for family in FAMILIES if family.time == "capture_time"])
some = tiers.examples(5, full=60)
# by their seeds: a world of several hundred rows is not made clearer by shrinking
dices = st.builds(random.Random, st.integers(0, 2**32 - 1))


def world(dice: random.Random, rows: int = 120, faults: float = 0.08) -> tuple[list[Row], list[Row]]:
    """Draw a book and trades against it."""
    book = feature_flows.book(dice, dice.choice([3, 30, rows]), DEPTH, faults=dice.choice([0.0, faults]))
    return book, feature_flows.trades(dice, book, faults=dice.choice([0.0, faults]))


def frames(book: list[Row], trades: list[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return feature_flows.frame_of(book, "book", DEPTH), feature_flows.frame_of(trades, "market_trades")


def made(family: Family, book: list[Row], trades: list[Row]) -> pl.DataFrame:
    names = names_of(family.cases)
    return family.ours(*frames(book, trades), names).collect()


@pytest.mark.slow
@each_family
@given(dices)
@some
def test_it_is_the_oracle_s(family: Family, dice: random.Random):
    book, trades = world(dice)
    got = made(family, book, trades)
    expected = family.oracle(book, trades, names_of(family.cases))
    assert got.height == len(expected)
    for case in family.cases:
        for name in case.names:
            for place, (value, row) in enumerate(zip(got[name], expected, strict=True)):
                assert not differs(case, value, row[name]), (name, place, value, row[name])


@pytest.mark.slow
@each_family
@given(dices)
@some
def test_any_cut_gives_the_same(family: Family, dice: random.Random):
    book, trades = world(dice)
    names = names_of(family.cases)
    whole = family.ours(*frames(book, trades), names).collect()
    pieces = [feature_flows.in_pieces(dice, frame) for frame in frames(book, trades)]
    laws.assert_same(family.ours(*pieces, names).collect(), whole, family.name)


@each_family
@given(dices)
@some
def test_products_do_not_mix(family: Family, dice: random.Random):
    book, trades = world(dice)
    whole = made(family, book, trades)
    for product_id in {row["product_id"] for row in book}:
        alone = [[row for row in rows if row["product_id"] == product_id] for rows in (book, trades)]
        of_product = whole.filter(pl.col("product_id") == product_id)
        laws.assert_same(made(family, *alone), of_product, product_id)


@each_timed_family
@given(dices)
@some
def test_the_future_changes_nothing(family: Family, dice: random.Random):
    """What is known at a time is computed of what came until then, and of nothing else."""
    book, trades = world(dice, faults=0.0)  # clocks that step back are another test's
    now = dice.choice([row["capture_time"] for row in book])
    until = [[row for row in rows if row["capture_time"] <= now] for rows in (book, trades)]
    later = made(family, book, trades)
    known = later.filter(pl.col(family.time).cast(pl.Int64) <= now)
    if family.name == "intervals":  # those that the product's last row has reached
        last = {row["product_id"]: row["capture_time"] for row in until[0]}
        reached = pl.col("product_id").replace_strict(last, default=-(2**62), return_dtype=pl.Int64)
        known = known.filter(pl.col(family.time).cast(pl.Int64) <= reached)
    laws.assert_same(made(family, *until), known, family.name)


@each_of_rows
@given(dices)
@some
def test_the_first_rows_are_those_of_the_whole(family: Family, dice: random.Random):
    """Whatever the clock says: a row depends on rows before it."""
    book, trades = world(dice)
    whole, n = made(family, book, trades), dice.randint(0, 120)
    first = (book, trades[:n]) if family.name == "market_trades" else (book[:n], trades)
    laws.assert_same(made(family, *first), whole.head(n), family.name)


# --- symmetry and scale


def scaled(rows: list[Row], price: float, size: float) -> list[Row]:
    def times(name: str, value: Any) -> Any:
        if value is None or not isinstance(value, float):
            return value
        return value * price if "price" in name else value * size if "size" in name else value

    return [{name: times(name, value) for name, value in row.items()} for row in rows]


@each_family
@given(dices)
@some
def test_it_scales_with_prices_and_sizes(family: Family, dice: random.Random):
    """Powers of two: every digit must be the same."""
    book, trades = world(dice)
    price, size = 2.0 ** dice.randint(-6, 6), 2.0 ** dice.randint(-6, 6)
    before = made(family, book, trades)
    after = made(family, scaled(book, price, size), scaled(trades, price, size))
    for case in family.cases:
        if case.price is not None and case.size is not None:
            factor = price**case.price * size**case.size
            for name in case.names:
                values = before[name] if before[name].dtype.is_integer() else before[name] * factor
                assert laws.plain(after[name]) == laws.plain(values), name


@given(dices)
@some
def test_a_sweep_of_as_much_more_in_a_market_of_as_much_more_costs_the_same(dice: random.Random):
    book, trades = world(dice)
    names = ["sweep_buy_300_bps", "sweep_sell_300_bps"]
    factor = 2.0 ** dice.randint(-6, 6)
    family = FAMILIES[0]
    before = family.ours(*frames(book, trades), names).collect()
    after = family.ours(*frames(scaled(book, factor, 1 / factor), trades), names).collect()
    for name in names:
        assert laws.plain(before[name]) == laws.plain(after[name])


SWAPPED = {"bid": "ask", "ask": "bid", "buy": "sell", "sell": "buy"}


def swapped(name: str) -> str:
    return next((name.replace(a, b) for a, b in SWAPPED.items() if a in name), name)


def mirrored_book(rows: list[Row], around: float | None) -> list[Row]:
    """Swap the sides and mirror the prices: around a constant, or (None) each row's around its own mid."""
    made = []
    for row in rows:
        best = [row["bid_price_1"], row["ask_price_1"]]
        total = around if around is not None else 0.0 if None in best else sum(best)
        flipped = {
            swapped(name): total - value if "price" in name and value is not None else value
            for name, value in row.items()
        }
        made.append({name: flipped[name] for name in row})
    return made


def check_mirror(cases: Sequence[Case], before: pl.DataFrame, after: pl.DataFrame) -> None:
    for case in cases:
        for name in case.names if case.mirror else ():
            other = swapped(name) if case.mirror == "swapped" else name
            sign = -1.0 if case.mirror == "negated" else 1.0
            values = [None if value is None else sign * value for value in before[name]]
            for value, expected in zip(after[other], values, strict=True):
                near = Case(case.feature, case.names, near=max(case.near, 1e-13))
                assert not differs(near, value, expected), (name, value, expected)


@given(dices)
@some
def test_a_mirrored_row_turns_the_sign(dice: random.Random):
    book, _ = world(dice)
    family = FAMILIES[0]
    of_one_row = [case for case in BOOK if not case.feature.startswith(("ofi", "spread_twa"))]
    check_mirror(of_one_row, made(family, book, []), made(family, mirrored_book(book, None), []))


@given(dices)
@some
def test_a_mirrored_book_turns_the_order_flow(dice: random.Random):
    book, _ = world(dice)
    family = FAMILIES[0]
    of_several = [case for case in BOOK if case.feature.startswith(("ofi", "spread_twa"))]
    check_mirror(of_several, made(family, book, []), made(family, mirrored_book(book, 8192.0), []))


def mirrored_trades(rows: list[Row]) -> list[Row]:
    """Swap the sides alone: what was bought is sold, at the same price."""
    return [{n: SWAPPED.get(v, v) if isinstance(v, str) else v for n, v in row.items()} for row in rows]


@each(FAMILIES[1:3])
@given(dices)
@some
def test_swapped_sides_turn_the_sign(family: Family, dice: random.Random):
    book, trades = world(dice)
    cases = TRADES if family.name == "market_trades" else INTERVALS
    check_mirror(cases, made(family, book, trades), made(family, book, mirrored_trades(trades)))


# --- gaps


@pytest.mark.slow
@each_timed_family
@given(dices)
@some
def test_nothing_spans_a_gap(family: Family, dice: random.Random):
    """Whatever was before a gap: what comes behind it is the same."""
    before, other, after = (at_noon(world(dice, 40, faults=0.0)) for _ in range(3))
    end = max(row["capture_time"] for rows in (before, other) for row in rows[0])
    book, trades = ([later(row, end - NOON + 1_700_000_001) for row in rows] for rows in after)
    book = breaks(book) + book
    names = names_of(family.cases)

    def behind(past: tuple[list[Row], list[Row]], product_id: str) -> pl.DataFrame:
        got = made(family, past[0] + book, past[1] + trades)
        first = min(row["capture_time"] for row in book if row["product_id"] == product_id)
        return got.filter(pl.col("product_id") == product_id, pl.col(family.time).cast(pl.Int64) >= first)

    for product_id in {row["product_id"] for row in book}:
        one, two = behind(before, product_id), behind(other, product_id)
        n = min(one.height, two.height)  # intervals between the two have nothing in them
        laws.assert_same(one.tail(n).select(names), two.tail(n).select(names), product_id)


def breaks(rows: list[Row]) -> list[Row]:
    """Draw the row that says that a book's state is no longer known, of each product before its first."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["product_id"], row)
    return [row | {"book_state": "unproven", "proven_since": None} for row in first.values()]


def at_noon(drawn: tuple[list[Row], list[Row]]) -> tuple[list[Row], list[Row]]:
    shift = NOON - min(row["capture_time"] for row in drawn[0])
    return [moved(row, shift) for row in drawn[0]], [moved(row, shift) for row in drawn[1]]


def moved(row: Row, shift: int) -> Row:
    times = {name: row[name] + shift for name in TIMES if row.get(name) is not None}
    return {**row, **times}


def later(row: Row, shift: int) -> Row:
    """Move a row, to another connection."""
    return moved(row, shift) | {"connection": 99}


NOON = feature_flows.NOON
TIMES = ("capture_time", "server_time", "trade_time", "proven_since")


# --- the catalogue and the cases


def test_every_feature_is_a_case_and_every_case_a_feature():
    cases = [case.feature for family in FAMILIES for case in family.cases]
    assert sorted([*cases, *JUDGED_ELSEWHERE]) == sorted(feature.name for feature in EVERY)


ARITHMETIC = (
    *("mid", "spread", "spread_bps", "spread_twa_{w}", "log_return", "return_{w}", "label_return_{h}"),
    *("depth", "notional", "vamp", "sweep", "gravity", "n_bids", "n_asks", "imbalance_{x}bps"),
    *("added", "executed", "cancelled", "unexplained", "label_time_to_move"),
    *("signed_size", "vwap", "volume", "trade_count", "trade_imbalance"),
)
"""What features without a source are: sums and ratios that say themselves what they are."""


def test_every_feature_has_a_definition_and_a_source():
    for feature in EVERY:
        assert feature.definition, feature.name
        assert feature.source or any(word in feature.name for word in ARITHMETIC), feature.name


def test_a_case_s_names_are_of_its_feature():
    by_name = {feature.name: feature for feature in EVERY}
    for family in FAMILIES:
        for case in family.cases:
            for name in case.names:
                assert by_name[case.feature].read(name) is not None, (case.feature, name)


def test_labels_look_ahead_and_nothing_else_does():
    for feature in EVERY:
        assert feature.looks_ahead == feature.name.startswith("label_"), feature.name
