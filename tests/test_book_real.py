"""Real recordings, where they lie beside the checkout: the book is the oracle's, and the exchange's own."""

import subprocess
import sys
from pathlib import Path

import book_laws
import laws
import polars as pl
import pytest
from oracles import book as oracle

import cbtools as cb

REAL = Path(__file__).parents[2] / "shared" / "real"

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(
        not REAL.is_dir(), reason="the real recordings (shared/real beside the checkout) are not here"
    ),
]

BTCUSDT = [
    REAL / "btcusdt" / "segment_20240808T23_00001.ndjson.gz",
    REAL / "btcusdt" / "segment_20240809T00_00002.ndjson.gz",
]
EXCHANGE = REAL / "coinbase_2021" / "exchange" / "segment_20210417T16_00001.ndjson.gz"
ADVANCED = REAL / "coinbase_2021" / "advanced" / "segment_20210417T16_00001.ndjson.gz"
FULL_BOOK = REAL / "full_book" / "segment_20260807T20_00001.ndjson.gz"

BEST = {
    "bid_price_1": "bid",
    "bid_size_1": "bid_size",
    "ask_price_1": "ask",
    "ask_size_1": "ask_size",
}


def level2_of(source):
    level2 = cb.scan_raw(source, "level2").collect()
    return level2, book_laws.as_rows(level2)


@pytest.fixture(scope="module")
def stream():
    """Rebuild both segments of btcusdt as one stream."""
    return cb.scan_raw(BTCUSDT, "level2").pipe(cb.rebuild_book).collect()


@pytest.fixture(scope="module")
def segment_by_segment(tmp_path_factory):
    """Run each segment in a process of its own, which finds the state that the one before has kept."""
    out = tmp_path_factory.mktemp("processed")
    program = (
        "import sys, cbtools as cb\n"
        "options = {'reconstruct_lob': True, 'compute_features': False}\n"
        "level2 = {'level2': {'processor_options': options}}\n"
        "cb.run_segment(sys.argv[1], sys.argv[2], channel_config=level2)\n"
    )
    for path in BTCUSDT:
        command = [sys.executable, "-c", program, str(path), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return out


def agreement(book):
    """Tell of how many of the exchange's own bests the book agrees with, and how many there are."""
    theirs = pl.read_csv(
        REAL / "btcusdt" / "bbo.csv.gz", schema_overrides=dict.fromkeys(BEST.values(), pl.Float64)
    )
    both = theirs.join(book, on="sequence_num", how="left", maintain_order="left")
    assert both.height == theirs.height
    same = pl.all_horizontal(pl.col(ours) == pl.col(name) for ours, name in BEST.items())
    return both.select(same.fill_null(value=False).sum()).item(), theirs.height


def test_btcusdt_over_two_segments(stream):
    level2, rows = level2_of(BTCUSDT)
    books = {}
    book_laws.same_rows(stream, oracle.rebuild(rows, books=books))
    assert set(stream["book_state"]) == {"ok"}
    assert stream.height == 6_493 + 1  # and the snapshot
    assert level2.height == 300_094
    book_laws.same_state(cb.BookState.read(BTCUSDT), books)


def test_btcusdt_is_what_the_exchange_said(stream):
    same, every = agreement(stream)
    assert every == 6_493
    assert same >= 0.999 * every


def test_btcusdt_run_segment_by_segment(stream, segment_by_segment):
    book = cb.scan_dataset(segment_by_segment, "book").select(stream.columns).collect()
    same, every = agreement(book)
    assert same >= 0.999 * every
    by = ["server_time", "sequence_num", "line"]
    laws.assert_same(book.sort(by), stream.sort(by), "book")
    assert book["server_time"].dt.date().n_unique() == 2


def test_btcusdt_the_second_segment_alone_is_early(tmp_path):
    """Without the state of the first there is no book, and nothing pretends that there is."""
    assert cb.scan_raw(BTCUSDT[1], "level2").pipe(cb.rebuild_book).collect().is_empty()


@pytest.mark.parametrize("on", ["bbo", "depth"])
def test_btcusdt_told_less_often(stream, on):
    """Rows are those of every message whose top differs from the message before."""
    told = cb.scan_raw(BTCUSDT, "level2").pipe(cb.rebuild_book, on=on).collect()
    depth = 1 if on == "bbo" else 10
    shown = [f"{name}_{k}" for name in book_laws.PER_LEVEL for k in range(1, depth + 1)]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in shown)
    laws.assert_same(told, stream.filter(differs | (pl.int_range(pl.len()) == 0)), on)
    assert told.height < stream.height


@pytest.mark.parametrize("feed", [EXCHANGE, ADVANCED], ids=["exchange", "advanced"])
def test_coinbase(feed):
    level2, rows = level2_of(feed)
    got = book_laws.same_as_oracle(level2, rows, depth=25, bands_bps=(50,) if feed is EXCHANGE else ())
    assert got["product_id"].n_unique() == 10
    assert got.height == 9_729


@pytest.mark.slow
def test_both_shapes_give_the_same_books():
    names = book_laws.book_schema().names()
    shown = ["product_id", "capture_time", *names[names.index("line") + 1 :]]
    one, other = (
        cb.scan_raw(feed, "level2").pipe(cb.rebuild_book).select(shown).collect()
        for feed in (EXCHANGE, ADVANCED)
    )
    laws.assert_same(one, other, "book")


def test_full_book():
    level2, rows = level2_of(FULL_BOOK)
    got = book_laws.same_as_oracle(level2, rows, depth=1000, bands_bps=(1, 10, 2500, 1e9))
    assert got.select("n_bids", "n_asks", "bid_price_1", "ask_price_1").rows() == [
        (18_376, 27_017, 64_930.57, 64_934.09)
    ]
    state = cb.BookState.read(FULL_BOOK)
    expected = level2.select("product_id", "side", "price", "size").sort("product_id", "side", "price")
    laws.assert_same(state.levels.select(expected.columns), expected, "levels")
