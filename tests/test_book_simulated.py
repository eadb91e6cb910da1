"""The book of simulated recordings with every fault: where it says ok, it is the market's own."""

from pathlib import Path

import book_laws
import laws
import polars as pl
import pytest
from oracles import book as oracle

import cbtools as cb

BY = ["connection", "sequence_num", "product_id"]
BEST = {
    "bid_price_1": "best_bid",
    "bid_size_1": "best_bid_size",
    "ask_price_1": "best_ask",
    "ask_size_1": "best_ask_size",
}
RECORDINGS = {
    "faulty": {
        "products": ["BTC-USD", "ETH-USD"],
        "gaps": 2,
        "bad_lines": 4,
        "duplicates": 5,
        "reconnects": 9,
    },
    "gaps": {"products": ["SOL-USD", "BTC-USD"], "gaps": 3, "reconnects": 5, "compression": "zstd"},
    "bad lines": {"products": ["BTC-USD", "DOGE-USD", "ETH-USD"], "bad_lines": 5, "reconnects": 5},
    "sound": {"products": ["BTC-USD", "ETH-USD"], "duplicates": 6, "reconnects": 1, "compression": "gzip"},
}
"""What is put wrong; a reconnect brings new snapshots, which is all that can prove a book again."""


@pytest.fixture(
    scope="module",
    params=["faulty", *(pytest.param(name, marks=pytest.mark.ci) for name in [*RECORDINGS][1:])],
)
def recording(request, tmp_path_factory):
    made = cb.simulate_segments(
        tmp_path_factory.mktemp("recording"),
        **RECORDINGS[request.param],
        minutes=0.4,
        levels=60,
        seed=1,
        segment_mb=0.25,
        truth=True,
    )
    assert len(made.paths) >= 3
    return made


@pytest.fixture(scope="module")
def book(recording) -> pl.DataFrame:
    return cb.scan_raw(recording.paths, "level2").pipe(cb.rebuild_book).collect()


def is_true(book, recording):
    """Check every row called ok against the market itself."""
    ok = book.filter(pl.col("book_state") == "ok")
    both = ok.join(recording.truth, on=BY, how="left", maintain_order="left")
    assert both.height == ok.height
    for ours, true in BEST.items():
        assert both[ours].equals(both[true].alias(ours)), ours


def test_no_row_called_ok_is_wrong(book, recording):
    is_true(book, recording)


def test_most_rows_are_ok(book, recording):
    ok = book.filter(pl.col("book_state") == "ok")
    assert ok.height > book.height / 2
    assert ok["product_id"].n_unique() == len(recording.counts)
    assert set(book["book_state"]) <= {"ok", "unproven"}
    frames = sum(count.frames for count in recording.counts.values())
    level2 = cb.scan_raw(recording.paths, "level2").collect()
    breaks = level2.filter(pl.col("side").is_null() & ~pl.col("is_snapshot")).height
    assert book.height <= frames + breaks
    if not {fault.kind for fault in recording.faults} - {"duplicate"}:  # but reconnects
        assert ok.height == book.height - breaks
        assert breaks == RECORDINGS["sound"]["reconnects"] * len(recording.counts)


def test_every_row_is_the_oracle_s(recording):
    level2 = cb.scan_raw(recording.paths, "level2").collect()
    book_laws.same_as_oracle(level2, book_laws.as_rows(level2), depth=5, bands_bps=(2.5, 40))


@pytest.mark.slow
@pytest.mark.parametrize("saved", [False, True], ids=["kept", "saved"])
def test_segment_by_segment(book, recording, tmp_path, saved):
    """From the state after the segments before, each gives its rows of the whole."""
    state, books, parts = cb.BookState(), {}, []
    for path in recording.paths:
        level2 = cb.scan_raw(path, "level2", start=state)
        parts.append(cb.rebuild_book(level2, start=state).collect())
        oracle.rebuild(book_laws.as_rows(level2.collect()), depth=1, books=books)
        state = cb.BookState.read(path, start=state)
        book_laws.same_state(state, books)
        if saved:
            state.save(tmp_path / "state")
            state = cb.BookState.load(tmp_path / "state")
    laws.assert_same(pl.concat(parts), book, "book")
    assert state == cb.BookState.read(recording.paths)


def test_side_by_side(recording):
    """Each segment's effect alone, and then composed: the state of the stream.

    A segment that begins with a repeat of a frame before it does not go on from that frame, as far as its
    effect can tell: then less is proven, and never more.
    """
    composed = cb.BookState()
    begins_with_repeat = {f.segment for f in recording.faults if (f.kind, f.line) == ("duplicate", 1)}
    goes_on = True
    for last, path in enumerate(recording.paths):
        composed = composed.then(cb.BookState.read(path))
        together = cb.BookState.read(recording.paths[: last + 1])
        goes_on = goes_on and path.name.partition(".")[0] not in begins_with_repeat
        assert composed == together or not goes_on
        proven = composed.products.filter("has_book", "proven")["product_id"].to_list()
        assert set(proven) <= set(together.products.filter("has_book", "proven")["product_id"])
        is_its = pl.col("product_id").is_in(proven)
        laws.assert_same(composed.levels.filter(is_its), together.levels.filter(is_its), "levels")


@pytest.mark.slow
def test_run_segment_writes_the_same_book(book, recording, tmp_path):
    """Segment by segment, from the state that the run before has kept; and any segment again."""
    options = {"reconstruct_lob": True, "compute_features": False}
    config = {"level2": {"processor_options": options}}
    by = ["product_id", "server_time", "sequence_num", "line", "connection"]

    def written() -> pl.DataFrame:
        return cb.scan_dataset(tmp_path, "book").select(book.columns).collect().sort(by)

    for path in recording.paths:
        cb.run_segment(path, tmp_path, channel_config=config)
    laws.assert_same(written(), book.sort(by), "book")
    for path in (recording.paths[1], recording.paths[0]):
        cb.run_segment(path, tmp_path, channel_config=config)
        laws.assert_same(written(), book.sort(by), "book again")
    assert (Path(tmp_path) / "_state").is_dir()


@pytest.mark.ci
def test_the_book_at_an_instant(recording, tmp_path):
    """From the raw rows, and from what was written of them, beside which the states are kept."""
    level2 = cb.scan_raw(recording.paths, "level2").collect()
    rows = book_laws.as_rows(level2)
    for path in recording.paths:
        cb.run_segment(path, tmp_path)
    for part in (0.0, 0.62):
        when = level2["capture_time"][int(part * level2.height)]
        till_then = level2["capture_time"].search_sorted(when, side="right")
        books = {}
        told = oracle.rebuild(rows[:till_then], depth=1, books=books)
        last = {row["product_id"]: row for row in told}
        for product_id, book in books.items():
            if not book.has_book:
                continue
            for source in (level2, tmp_path):
                got = cb.book_at(source, when, product_id)
                assert (got.bids.rows(), got.asks.rows()) == (book.best_first("bid"), book.best_first("ask"))
                assert got.book_state == oracle.shown(book, 1)["book_state"]
                assert got.sequence_num == last[product_id]["sequence_num"]


def test_a_segment_that_is_missing_leaves_nothing_proven(recording, tmp_path):
    """The state of an earlier segment, which this one does not go on from, proves nothing by itself."""
    first, *_, last = recording.paths
    state = cb.BookState.read(first)
    level2 = cb.scan_raw(last, "level2", start=state)
    got = cb.rebuild_book(level2, start=state).collect()
    assert got.height > 0
    snapshots = cb.scan_raw(last, "level2").filter("is_snapshot").collect()
    for product_id in recording.counts:
        rows = got.filter(pl.col("product_id") == product_id)
        of = snapshots.filter(pl.col("product_id") == product_id)
        before = rows if of.is_empty() else rows.filter(pl.col("line") < of["line"].min())
        assert set(before["book_state"]) <= {"unproven"}
