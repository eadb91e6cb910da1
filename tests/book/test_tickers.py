"""Tickers beside the book, of frames made by hand; rows of the book without a message end what was proven."""

from __future__ import annotations

import polars as pl
import timeline
import wire

import cbtools as cb
from cbtools.book.tickers import BOOK, TICKER, Agreement
from cbtools.schema import BOOK_STATE

BTC, ETH = "BTC-USD", "ETH-USD"


def book(*rows: tuple[str, int, float | None, float | None, str]) -> pl.DataFrame:
    prices = {"bid_price_1": pl.Float64, "ask_price_1": pl.Float64}
    columns = {"product_id": pl.String, "line": pl.Int64, **prices, "book_state": BOOK_STATE}
    return pl.DataFrame(rows, schema=columns, orient="row").select(BOOK)


def tickers(*rows: tuple[str, int, float | None, float | None]) -> pl.DataFrame:
    columns = {"product_id": pl.String, "line": pl.Int64, "best_bid": pl.Float64, "best_ask": pl.Float64}
    return pl.DataFrame(rows, schema=columns, orient="row").select(TICKER)


def found(*batches: tuple[pl.DataFrame, pl.DataFrame | None]) -> dict[str, dict[str, tuple[int, int]]]:
    agreement = Agreement()
    for one in batches:
        agreement.add(*one)
    return agreement.found()


def test_a_ticker_is_held_against_the_book_of_its_line():
    rows = book((BTC, 1, 99, 101, "ok"), (BTC, 4, 98, 101, "ok"), (ETH, 5, 9, 11, "ok"))
    beside = tickers(
        (BTC, 1, 99, 101), (BTC, 3, 99, 101), (BTC, 4, 99, 101), (BTC, 6, 98, 101), (ETH, 4, 9, 11)
    )
    assert found((rows, beside)) == {BTC: {"ok": (4, 3)}}


def test_behind_a_break_no_ticker_is_beside_an_ok_book():
    """The break is a row of its own, at the line of the frame that shows the gap.

    A ticker in that very frame is beside the unproven book, as are those that follow, until a snapshot.
    """
    rows = book(
        (BTC, 1, 99, 101, "ok"),
        (BTC, 5, 99, 101, "unproven"),  # of the break: the levels are those of before
        (ETH, 2, 9, 11, "ok"),
        (ETH, 5, 9, 11, "unproven"),
        (BTC, 8, 97, 101, "ok"),
    )
    before, at_it, behind = (BTC, 4, 99, 101), (BTC, 5, 98, 101), (BTC, 7, 98, 101)
    beside = tickers(before, at_it, behind, (BTC, 8, 97, 101), (ETH, 5, 9, 11), (ETH, 9, 9, 11))
    expected = {BTC: {"ok": (2, 2), "unproven": (2, 0)}, ETH: {"unproven": (2, 2)}}
    assert found((rows, beside)) == expected
    assert found((rows.reverse(), beside.reverse())) == expected


def test_a_break_holds_from_batch_to_batch():
    """The lines of the next segment begin at 1 again."""
    first = (book((BTC, 90, 99, 101, "ok"), (BTC, 95, 99, 101, "unproven")), None)
    second = (book(), tickers((BTC, 1, 99, 101)))
    third = (book((BTC, 3, 98, 101, "ok")), tickers((BTC, 2, 99, 101), (BTC, 3, 98, 101)))
    assert found(first, second, third) == {BTC: {"unproven": (2, 2), "ok": (1, 1)}}


def test_a_ticker_without_prices_or_before_any_book_is_not_counted():
    rows = book((BTC, 5, 99, 101, "ok"))
    assert found((rows, tickers((BTC, 4, 99, 101), (BTC, 6, None, 101), (ETH, 6, 9, 11)))) == {}
    assert found((book(), tickers((BTC, 1, 99, 101)))) == {}


def test_why_a_share_is_low_is_said(tmp_path):
    def shown(*bids: str) -> dict[str, str]:
        lines = [timeline.received(wire.snapshot(0), 1)]
        lines += [
            timeline.received(wire.ticker(n, best_bid=bid, best_ask="100.5"), 1 + n)
            for n, bid in enumerate(bids, start=1)
        ]
        return dict(cb.inspect_raw(timeline.write(tmp_path, 1, *lines)).items())

    assert shown(*["99.5"] * 99, "99")["ticker agrees, ok"] == "99.00% of 100"
    assert "ticker agreement" not in shown(*["99.5"] * 99, "99")
    assert shown(*["99.5"] * 98, "99")["ticker agreement"].startswith(
        "below 99%: a ticker names the best prices"
    )
    assert "ticker agreement" not in shown()
