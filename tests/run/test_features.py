"""The features that a run adds: those of one stream, however it is cut into segments and chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laws
import polars as pl
import pytest
import tiers

import cbtools as cb
from cbtools.book.rebuilder import BookOptions
from cbtools.run.features import of_book

BY = ["product_id", "capture_time", "sequence_num", "line"]
OF_QUOTES = {"best_bid", "best_bid_size", "best_ask", "best_ask_size", "mid", "effective_spread_bps"}


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> list[Path]:
    made = cb.simulate_segments(
        tmp_path_factory.mktemp("recording"), products=["BTC-USD", "ETH-USD"], minutes=0.5, levels=40,
        seed=41, gaps=1, reconnects=2, bad_lines=1, duplicates=2, segment_mb=0.5,
    )  # fmt: skip
    assert len(made.paths) > 4
    return list(made.paths)


@pytest.fixture(scope="module")
def stream(recording) -> dict[str, pl.DataFrame]:
    """Compute what one stream gives, by the public functions."""
    tables = cb.read_raw(recording)
    book = cb.rebuild_book(tables.level2)
    trades = cb.add_trade_features(tables.market_trades)
    return {"book": cb.add_book_features(book).collect(), "market_trades": trades.collect()}


def run(paths: list[Path], out: Path, **options: Any) -> list[cb.SegmentReport]:
    config = {"level2": {}, "market_trades": {}}
    return [cb.run_segment(path, out, channel_config=config, **options) for path in paths]


def written(out: Path, table: str, columns: list[str]) -> pl.DataFrame:
    return cb.scan_dataset(out, table).select(columns).collect().sort(BY, maintain_order=True)


@pytest.mark.slow
@tiers.parametrize("chunk_bytes", [1 << 26, 20_000], every=2)
def test_they_are_those_of_one_stream(recording, stream, tmp_path, chunk_bytes):
    run(recording, tmp_path, chunk_bytes=chunk_bytes)
    for table, expected in stream.items():
        got = written(tmp_path, table, expected.columns)
        laws.assert_same(got, expected.sort(BY, maintain_order=True), table)
    assert stream["book"]["ofi"].count() > 500


def test_a_run_from_a_state_given(recording, stream, tmp_path):
    state = cb.BookState.read(recording[:2])
    run(recording[2:3], tmp_path, state=state)
    for table, expected in stream.items():
        got = written(tmp_path, table, expected.columns)
        keys = got.select("connection", "sequence_num").unique()
        of_segment = expected.join(keys, on=["connection", "sequence_num"], how="semi", maintain_order="left")
        assert got.height > 0
        laws.assert_same(got, of_segment.sort(BY, maintain_order=True), table)


def test_add_book_features_goes_on_from_a_state(recording, stream):
    """The first row of a segment has its order flow, from the row before the first."""
    state = cb.BookState.read(recording[:2])
    level2 = cb.scan_raw(recording[2], "level2", start=state)
    got = cb.add_book_features(cb.rebuild_book(level2, start=state), start=state).collect()
    n = cb.rebuild_book(cb.scan_raw(recording[:2], "level2")).select(pl.len()).collect().item()
    laws.assert_same(got, stream["book"].slice(n, got.height), "book")
    alone = cb.add_book_features(cb.rebuild_book(level2, start=state)).collect()
    assert alone["ofi"].null_count() > got["ofi"].null_count()


def test_a_state_of_nothing_is_no_row_before(recording):
    book = cb.rebuild_book(cb.scan_raw(recording[0], "level2"), depth=2).collect()
    got = cb.add_book_features(book, ["ofi", "mid"], start=cb.BookState()).collect()
    laws.assert_same(got, cb.add_book_features(book, ["ofi", "mid"]).collect(), "book")


def test_no_quotes_are_written_beside_trades(recording, tmp_path):
    """The reader chooses by which clock they prevailed."""
    run(recording[:1], tmp_path)
    trades = cb.scan_dataset(tmp_path, "market_trades").collect()
    assert not OF_QUOTES & {*trades.columns}
    assert trades["notional"].null_count() == trades["signed_size"].null_count() == 0
    quoted = cb.join_quotes(trades, cb.scan_dataset(tmp_path, "book")).collect()
    assert quoted["mid"].count() > 10


def test_options_that_leave_them_out(recording, tmp_path):
    options = {"level2": {"processor_options": {"compute_features": False}}, "market_trades": {}}
    cb.run_segment(recording[0], tmp_path, channel_config=options)
    assert "mid" not in cb.scan_dataset(tmp_path, "book").collect_schema()
    assert "notional" not in cb.scan_dataset(tmp_path, "market_trades").collect_schema()
    with pytest.raises(cb.DatasetError, match="holds market_trades with other columns"):
        cb.run_segment(recording[1], tmp_path)


def test_a_book_without_trades_and_trades_without_a_book(recording, tmp_path):
    cb.run_segment(recording[0], tmp_path / "book", channel_config={"level2": {}})
    assert "ofi" in cb.scan_dataset(tmp_path / "book", "book").collect_schema()
    cb.run_segment(recording[0], tmp_path / "trades", channel_config={"market_trades": {}})
    assert "notional" not in cb.scan_dataset(tmp_path / "trades", "market_trades").collect_schema()


def test_between_rows_of_the_best_alone_deeper_flow_is_not_told():
    names = [one.name for one in of_book(BookOptions(on="bbo"))]
    assert [name for name in names if name.startswith("ofi")] == ["ofi", "ofi_1"]
    names = [one.name for one in of_book(BookOptions(depth=1))]
    assert not any("slope" in name or "_10" in name for name in names if "10000" not in name)
