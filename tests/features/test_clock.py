"""Trades against the book by the exchange's clock and by receipt: which quote, and no look-ahead."""

from __future__ import annotations

import gzip
import random
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import feature_flows as flows
import interpreted
import laws
import numpy as np
import polars as pl
import pytest
import tiers
from hypothesis import given
from hypothesis import strategies as st
from oracles import clocks as clock_oracle
from oracles import trades as oracle

import cbtools as cb
from cbtools._kernels import quotes as kernels

Row = dict[str, Any]
Clock = Literal["exchange", "receive"]
CLOCKS: tuple[Clock, ...] = ("exchange", "receive")
SECOND, MS = 10**9, flows.MS
NOON = flows.NOON
PRODUCTS = ("A-USD", "B-USD")
WINDOWS = ["vwap_1s", "trade_count_300ms", "volume_2s", "trade_imbalance_1s"]

dices = st.builds(random.Random, st.integers(0, 2**32 - 1))
some = tiers.examples(5, full=60)
each_clock = pytest.mark.parametrize("clock", CLOCKS)


# --- messages of a connection, in the order in which they were received


def at(second: float) -> int:
    return NOON + round(second * SECOND)


def quote(second: float | None, bid: float = 99.0, ask: float = 101.0, **more: Any) -> Row:
    """Write a row of a book, sent and received at a second after noon (None: with no time)."""
    time = None if second is None else at(second)
    levels = {"bid_price_1": bid, "bid_size_1": 2.0, "ask_price_1": ask, "ask_size_1": 3.0}
    told = {"book_state": "ok", "proven_since": NOON, "server_time": time, "capture_time": time}
    return {"product_id": "A-USD", **levels, **told, **more}


def broken(second: float, **more: Any) -> Row:
    """Write the row that says that a gap or a reconnect has been seen: the levels are those of before."""
    return quote(second, book_state="unproven", proven_since=None, **more)


def trade(second: float, price: float = 101.0, side: str = "buy", **more: Any) -> Row:
    maker = {"buy": "sell", "sell": "buy"}[side]
    told = {"price": price, "size": 1.0, "maker_side": maker, "aggressor_side": side, "is_snapshot": False}
    times = {"trade_time": at(second), "server_time": at(second), "capture_time": at(second)}
    return {"product_id": "A-USD", "trade_id": 1, **told, **times, "connection": 1, **more}


def sent(second: float, received: float | None = None) -> Row:
    return {"server_time": at(second), "capture_time": at(second if received is None else received)}


def frames(book: Sequence[Row], trades: Sequence[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    numbered = [row | {"trade_id": n} for n, row in enumerate(trades, start=1)]
    return flows.frame_of(numbered, "market_trades"), flows.frame_of(book, "book", 1)


def mids(trades: Sequence[Row], book: Sequence[Row], **options: Any) -> list[float | None]:
    return cb.join_quotes(*frames(book, trades), **options).collect()["mid"].to_list()


def stream(dice: random.Random, length: int, *, steps: bool) -> list[tuple[str, Row]]:
    """Draw book rows and trades in the order of receipt: the latter happened up to 250 ms before, and more.

    With ``steps`` the local clock steps back now and then, and the server's, too; times are missing, and
    several messages are received at one time.
    """
    made, now, off = [], 0.0, 0.0
    for _ in range(length):
        now += dice.choice([0.0 if steps else 0.002, 0.001, 0.05, 0.05, 0.25, 3.0])
        off -= dice.choice([0.0] * 20 + [0.3, 2.0]) if steps else 0.0
        back = dice.choice([0.0] * 9 + [0.2, 4.0]) if steps else 0.0
        told = sent(now - back, now + 0.02 + off)
        if steps and dice.random() < 0.1:
            told[dice.choice(["server_time", "capture_time"])] = None
        product_id = dice.choice(PRODUCTS)
        if dice.random() < 0.5:
            ago = dice.choice([0.0, 0.01, 0.1, 0.25, 1.0, 4.9, 6.0])
            happened = {"trade_time": None if dice.random() < 0.03 else at(now - ago)}
            price, is_snapshot = dice.choice([98.5, 99.0, 101.0]), dice.random() < 0.05
            of_trade = {"product_id": product_id, "is_snapshot": is_snapshot, **happened, **told}
            made.append(("trades", trade(0, price, dice.choice(["buy", "sell"]), **of_trade)))
        else:
            state = dice.choice(["ok"] * 7 + ["unproven", "crossed", "one_sided"])
            since = None if state == "unproven" else NOON
            middle = dice.randint(90, 110)
            shown = {"product_id": product_id, "book_state": state, "proven_since": since, **told}
            made.append(("book", quote(0, middle - 1.0, middle + 1.0, **shown)))
    return made


def split(messages: Sequence[tuple[str, Row]]) -> tuple[list[Row], list[Row]]:
    """Return the rows of the book, and the trades, numbered."""
    book, trades = ([row for kind, row in messages if kind == what] for what in ("book", "trades"))
    return book, [row | {"trade_id": n} for n, row in enumerate(trades, start=1)]


# --- laws


def compare(dice: random.Random) -> None:
    """Check quotes, windows at a book's rows, and intervals against plain loops, whatever the cut."""
    book, trades = split(stream(dice, dice.choice([5, 60]), steps=True))
    clock, old = dice.choice(CLOCKS), dice.choice([None, SECOND])
    if not book or not trades:
        return
    pieces = [flows.in_pieces(dice, frame) for frame in frames(book, trades)]
    quoted = cb.join_quotes(*pieces, clock=clock, tolerance=None if old is None else "1s").collect()
    flows.same_as_oracle(quoted, oracle.join_quotes(trades, book, old, clock), oracle.QUOTE)
    windows = cb.add_trade_features(pieces[0], WINDOWS, at=pieces[1], clock=clock).collect()
    flows.same_as_oracle(windows, oracle.trade_features_at(trades, book, WINDOWS, clock), WINDOWS)
    intervals = cb.impact_intervals(*pieces, clock=clock).collect()
    expected = oracle.impact_intervals(trades, book, SECOND, clock)
    expected.sort(key=lambda row: (row["interval_end"], row["product_id"]))
    exact = [name for name in intervals.columns if name != "signed_sqrt_notional"]
    flows.same_as_oracle(intervals, expected, exact)
    roots = [row["signed_sqrt_notional"] for row in expected]
    assert np.allclose(intervals["signed_sqrt_notional"], roots, rtol=1e-12, atol=1e-12)


@given(dices)
@some
def test_they_are_the_oracle_s_however_the_rows_are_cut(dice):
    compare(dice)


@each_clock
@given(dices)
@some
def test_a_recording_cut_after_any_message_gives_the_first_rows_of_the_whole(clock, dice):
    messages = stream(dice, 60, steps=False)
    n = dice.randint(0, len(messages))
    (book, trades), (first_book, first_trades) = split(messages), split(messages[:n])
    if not first_book or not first_trades:
        return
    whole, first = frames(book, trades), frames(first_book, first_trades)
    quoted = cb.join_quotes(*whole, clock=clock).collect().head(len(first_trades))
    laws.assert_same(cb.join_quotes(*first, clock=clock).collect(), quoted, "quotes")
    for at_rows in (0, 1):  # at the trades' own rows, too, which are rows with both times
        windows, until = (
            cb.add_trade_features(one[0], WINDOWS, at=one[1 - at_rows], clock=clock).select(WINDOWS).collect()
            for one in (whole, first)
        )
        laws.assert_same(until, windows.head(until.height), "windows")


@each_clock
@given(dices)
@some
def test_no_quote_depends_on_what_was_received_after_the_trade(clock, dice):
    """Whatever the clocks do: a row whose receipt is later than the trade's changes nothing."""
    book, trades = split(stream(dice, 60, steps=True))
    if not book or not trades:
        return
    n = dice.randint(1, len(trades))
    whole = cb.join_quotes(*frames(book, trades), clock=clock).collect()
    for product_id in PRODUCTS:
        mine = [row for row in trades[:n] if row["product_id"] == product_id]
        received = [time for time in clock_oracle.receive_times(mine) if time is not None]
        until = max(received, default=-(2**62))
        known = [
            row
            for row, time in zip(book, clock_oracle.receive_times(book), strict=True)
            if time is None or time <= until
        ]
        if not mine or not known:
            continue
        of_first = whole.head(n).filter(product_id=product_id).drop("trade_id")
        got = cb.join_quotes(*frames(known, mine), clock=clock).collect().drop("trade_id")
        laws.assert_same(got, of_first, product_id)


def test_a_server_s_clock_that_is_off_does_not_make_the_search_slow():
    """Each row of the book is looked at once, and the quote of each trade is found by halves.

    The server's clock is ahead of the trades' by a day, so that no row was ever sent by then; and it steps
    back all the time, so that each row hides the one before it.
    """
    n = 200_000
    time = NOON + np.arange(n) * MS
    columns = {"product_id": "A-USD", "bid_price_1": 99.0, "bid_size_1": 1.0, "ask_price_1": 101.0,
               "ask_size_1": 1.0, "book_state": "ok"}  # fmt: skip
    book = pl.DataFrame({"server_time": time, "capture_time": time}).with_columns(
        pl.all().cast(pl.Datetime("ns", "UTC")), *(pl.lit(v).alias(k) for k, v in columns.items())
    )
    trades = book.select("product_id", "server_time", "capture_time", trade_time="server_time")
    trades = trades.with_columns(is_snapshot=pl.lit(value=False))
    day = pl.duration(days=1)
    ahead = cb.join_quotes(trades, book.with_columns(pl.col("server_time") + day)).collect()
    assert ahead["mid"].null_count() == n
    stepping = cb.join_quotes(trades, book.with_columns(pl.col("server_time").reverse())).collect()
    assert stepping["mid"].null_count() == n // 2


# --- a gap, a reconnect, what is late


@each_clock
def test_a_trade_in_or_after_a_gap_has_no_quote(clock):
    """A frame that is missing is seen at :08; until the next snapshot nothing is known."""
    book = [quote(0), broken(8), quote(10, 99.0, 101.0, book_state="unproven", proven_since=None)]
    trades = [trade(1), trade(5, **sent(8.1)), trade(8), trade(9), trade(9.5, **sent(10.1))]
    assert mids(trades, book, clock=clock) == [100.0, None, None, None, None]
    book += [quote(20, 100.0, 102.0, proven_since=at(20))]
    after = [
        trade(20.5),
        trade(19, **sent(20.1)),
    ]  # the latter happened in the gap, and came after the snapshot
    expected = {"exchange": [101.0, None], "receive": [101.0, 101.0]}[clock]
    assert mids([*trades, *after], book, clock=clock)[5:] == expected


@each_clock
def test_a_trade_of_a_new_connection_does_not_meet_the_old_one_s_book(clock):
    book = [quote(0), quote(1), broken(20), quote(22, 100.2, 100.9, proven_since=at(22))]
    times = [sent(2), sent(20), sent(21), sent(22.5)]
    trades = [trade(s, **t) for s, t in zip((2, 0, 1, 22.2), times, strict=True)]
    assert mids(trades, book, clock=clock) == [100.0, None, None, pytest.approx(100.55)]


@each_clock
def test_bare_frames_have_no_capture_time(clock):
    bare = {"capture_time": None}
    book = [quote(0, **bare), broken(8, **bare), quote(10, 100.0, 102.0, **bare)]
    trades = [trade(s, **bare) for s in (1, 8, 9, 11)]
    assert mids(trades, book, clock=clock) == [100.0, None, None, 101.0]


def test_a_trade_meets_the_book_as_it_was_when_it_happened_and_not_when_it_was_received():
    """A buyer takes the ask at :01, the book moves up, and the trade is received 250 ms later."""
    book = [quote(0.9, 99.0, 101.0), quote(1.05, 101.0, 103.0), quote(1.2, 102.0, 104.0)]
    trades = [trade(1, 101.0, **sent(1.25))]
    quoted = [cb.join_quotes(*frames(book, trades), clock=clock) for clock in CLOCKS]
    spreads = [cb.add_trade_features(one, "effective_spread_bps").collect() for one in quoted]
    assert spreads[0]["effective_spread_bps"].item() == 200.0
    assert spreads[1]["effective_spread_bps"].item() < 0.0
    assert spreads[0]["quote_time"].cast(pl.Int64).to_list() == [at(0.9)]


def test_a_trade_sent_more_than_five_seconds_late_has_no_quote_by_the_exchange_s_clock():
    trades = [trade(1, **sent(6)), trade(1, **sent(6.001)), trade(1, **sent(9), is_snapshot=True)]
    assert mids(trades, [quote(0)]) == [100.0, None, None]
    assert mids(trades, [quote(0)], clock="receive") == [100.0, 100.0, None]
    for clock in CLOCKS:
        audit = cb.side_audit(cb.join_quotes(*frames([quote(0)], trades), clock=clock), clock=clock).collect()
        assert audit.select("n_trades", "n_late").row(0) == (2, 1)
        assert audit["n_late"].dtype == pl.UInt32


def test_a_row_without_server_time_counts_at_that_of_the_row_before_it():
    """As a snapshot of the Exchange feed, which has no time of the server's; the first is no quote."""
    bare = {"server_time": None}
    book = [quote(1, **bare), quote(2, 98.0, 100.0), quote(3, 97.0, 99.0, **bare), broken(4, **bare)]
    trades = [trade(0.5, **sent(1.5)), trade(2, **sent(2.5)), trade(2, **sent(3.5)), trade(3, **sent(4.5))]
    quoted = cb.join_quotes(*frames(book, trades)).collect()
    assert quoted["mid"].to_list() == [None, 99.0, 98.0, None]
    assert quoted["quote_time"].cast(pl.Int64).to_list() == [None, at(2), None, None]
    assert mids(trades, book, tolerance="1s") == [None, 99.0, 98.0, None]


def test_a_trade_whose_book_is_not_there_has_no_quote():
    other = [trade(1), trade(1, product_id="B-USD"), trade(1, product_id="C-USD")]
    assert mids(other, [quote(0), quote(0, 9.0, 11.0, product_id="B-USD")]) == [100.0, 10.0, None]
    no_book = flows.frame_of([], "book", 1)
    assert cb.join_quotes(frames([], other)[0], no_book).collect()["mid"].to_list() == [None] * 3


def test_columns_and_products_are_those_that_the_query_asks_for():
    trades, book = frames([quote(0)], [trade(1), trade(1, product_id="B-USD")])
    asked: list[tuple[str, int]] = []

    def spied(name: str, frame: pl.DataFrame) -> pl.LazyFrame:
        def batches(columns, predicate):
            part = frame if predicate is None else frame.filter(predicate)
            asked.append((name, part.height))
            yield part.select(columns)

        return cb.lazy.source(batches, frame.schema, "SPY")

    quoted = cb.join_quotes(spied("trades", trades), spied("book", book))
    whole = quoted.collect()
    assert whole.columns == [*trades.columns, *oracle.QUOTE]
    laws.assert_same(quoted.select("mid").collect(), whole.select("mid"), "projection")
    asked.clear()
    assert quoted.select("price").collect().height == 2
    assert asked == [("trades", 2)]  # no book for what is no quote
    asked.clear()
    only = quoted.filter(pl.col("product_id") == "B-USD").collect()
    laws.assert_same(only, whole.filter(product_id="B-USD"), "B-USD")
    assert sorted(asked) == [("book", 0), ("trades", 1)]
    again = cb.join_quotes(whole, book).collect()
    laws.assert_same(again, whole, "joined again")


# --- windows at other rows


def test_a_trade_that_happened_before_a_row_and_was_received_after_it_is_not_in_its_window():
    trades = [trade(0), trade(1, **sent(1)), trade(1.1, **sent(1.25))]
    rows = [quote(1.2), quote(1.3), quote(1.2, **sent(1.2, 1.4))]
    got = cb.add_trade_features(*frames(rows, trades)[:1], "trade_count_1s", at=frames(rows, trades)[1])
    assert got.collect()["trade_count_1s"].to_list() == [1.0, 2.0, 2.0]


def test_rows_between_do_not_delay_trades():
    """A trade of 1.0 that was received after the row of 1.2 leaves the window of 1 s at 2.0, not at 2.2."""
    trades = [trade(0), trade(1, **sent(1.25))]
    book = frames([quote(1.2), quote(1.9), quote(2.0), quote(2.1)], trades)[1]
    got = cb.add_trade_features(frames([], trades)[0], "volume_1s", at=book).collect()
    assert got["volume_1s"].to_list() == [None, 1.0, None, None]


# --- the sample


@pytest.fixture(scope="module")
def sample() -> tuple[pl.DataFrame, pl.DataFrame]:
    trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    return trades.collect(), cb.rebuild_book(level2, depth=1).collect()


def test_no_effective_spread_of_the_sample_is_negative(sample):
    by_exchange, by_receipt = (
        cb.add_trade_features(cb.join_quotes(*sample, clock=clock), "effective_spread_bps").collect()
        for clock in CLOCKS
    )
    spread = by_exchange["effective_spread_bps"]
    assert spread.count() > 1000
    assert spread.min() >= 0.0
    audit = cb.side_audit(cb.join_quotes(*sample)).collect()
    assert audit["agreement"].to_list() == [1.0, 1.0, 1.0]
    share = by_receipt.select((pl.col("effective_spread_bps").drop_nulls() < 0).mean()).item()
    assert 0.4 < share < 0.5  # what docs/clocks.md says


@pytest.mark.slow
def test_a_recording_cut_at_every_line_in_a_burst_of_trades_gives_the_same_rows(tmp_path):
    """Segments of one line each, of which the trades' order and the book's do not depend."""
    first = min(cb.sample_path().iterdir())
    lines = gzip.decompress(first.read_bytes()).splitlines(keepends=True)[:160]
    whole, cut = ([b"".join(lines)], lines)
    made = {}
    for name, parts in (("whole", whole), ("cut", cut)):
        paths = laws.write_segments(parts, tmp_path / name)
        trades, level2 = (cb.scan_raw(paths, channel) for channel in ("market_trades", "level2"))
        book = cb.rebuild_book(level2, depth=1)
        made[name] = [cb.join_quotes(trades, book, clock=clock).drop("line").collect() for clock in CLOCKS]
    assert made["whole"][0]["mid"].count() > 10
    for one, other in zip(made["whole"], made["cut"], strict=True):
        laws.assert_same(one, other, "cut at every line")


@pytest.mark.ci
@pytest.mark.more
def test_interpreted():
    interpreted.run(__file__)


if __name__ == "__main__":
    assert not hasattr(kernels.prevailing, "signatures"), "compiled"
    for seed in range(tiers.by_tier(10, 40, 40)):
        compare(random.Random(seed))


@pytest.mark.parametrize(
    ("of", "name", "wrong"),
    [
        ("trades", "trade_time", pl.col("trade_time").dt.replace_time_zone(None)),
        ("trades", "trade_time", pl.col("trade_time").dt.convert_time_zone("Europe/Berlin")),
        ("trades", "trade_time", pl.col("trade_time").cast(pl.String)),
        ("book", "server_time", pl.col("server_time").cast(pl.Int64)),
        ("book", "book_state", pl.col("book_state").to_physical()),
    ],
)
def test_times_and_states_of_another_form_are_refused(of, name, wrong):
    book, trades = frames([quote(1)], [trade(2)])[::-1]
    made = {"book": book, "trades": trades}
    made[of] = made[of].with_columns(wrong)
    with pytest.raises(cb.ConfigError, match=rf"{name} of the .* frame must be .*: cast it"):
        cb.join_quotes(made["trades"], made["book"])


@pytest.mark.parametrize(("past", "warns"), [(1, False), (2, True)])
def test_many_trades_of_snapshots_are_told(past, warns):
    trades = [trade(2, is_snapshot=i < past) for i in range(4)]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", cb.CbtoolsWarning)
        cb.join_quotes(*frames([quote(1)], trades)).collect()
    said = [str(one.message) for one in found if issubclass(one.category, cb.CbtoolsWarning)]
    assert len(said) == warns
    assert all(one.startswith(f"join_quotes: {past} of 4 trades came in snapshots") for one in said)
