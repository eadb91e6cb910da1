"""The book as LOBSTER's pair of files: every digit, every level, and only what a feed of levels can tell."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools import lazy, schema
from cbtools.errors import ConfigError, DatasetError, StateError
from cbtools.export.lobster import to_lobster

TEN = 1_772_618_400_000_000_000  # ns: 2026-03-04 10:00 UTC
SECOND = 1_000_000_000
NAME = "BTC-USD_2026-03-04_0_86400000_{}_{}.csv"
REAL = Path(__file__).parents[3] / "shared" / "real"
TIMES = ("server_time", "capture_time", "proven_since")


def row(at=0, *, product_id="BTC-USD", state="ok", bids=((99.5, 1.0),), asks=((100.25, 2.0),), depth=2):
    """Give a row of the book, so many ns after ten; prices and sizes from the best level on."""
    levels = {
        f"{side}_{what}_{k + 1}": found[k][place] if k < len(found) else None
        for side, found in (("bid", bids), ("ask", asks))
        for place, what in enumerate(("price", "size"))
        for k in range(depth)
    }
    times = {"server_time": TEN + at, "capture_time": TEN + at + 5, "proven_since": TEN}
    told = {"sequence_num": 1, "connection": 1, "line": 1, "n_bids": len(bids), "n_asks": len(asks)}
    return {"product_id": product_id, "book_state": state, **times, **told, **levels}


def book(*rows, depth=2):
    columns = {column.name: column.dtype for column in schema.book_columns(depth)}
    numbers = {name: pl.Int64 if name in TIMES else dtype for name, dtype in columns.items()}
    return pl.DataFrame(list(rows), schema=numbers, orient="row").cast(columns)


def in_pieces(frame, rows):
    """Give a frame lazily, so many rows at a time."""

    def batches(columns, predicate):
        yield from (piece.select(columns) for piece in frame.iter_slices(rows))

    return lazy.source(batches, frame.schema, "PIECES")


def texts(folder, kind, depth=2):
    return (folder / NAME.format(kind, depth)).read_text().splitlines()


def test_a_row_of_the_book_is_a_line_of_both_files(tmp_path):
    rows = book(
        row(bids=[(99.5, 0.25), (99.0, 7.0)], asks=[(100.25, 1e-8), (101.0, 1234567.125)]),
        row(1_000_000_001, bids=[(99.75, 3.0), (99.0, 7.0)], asks=[(100.25, 2.0), (101.0, 4.0)]),
    )
    paths = to_lobster(rows, tmp_path)
    assert paths == [tmp_path / NAME.format(kind, 2) for kind in ("message", "orderbook")]
    assert texts(tmp_path, "orderbook") == [
        "1002500,0.00000001,995000,0.25,1010000,1234567.125,990000,7",
        "1002500,2,997500,3,1010000,4,990000,7",
    ]
    assert texts(tmp_path, "message") == ["36000.000000000,0,0,0,0,0", "36001.000000001,0,0,0,0,0"]


def test_a_level_that_is_not_there_has_lobsters_price_and_no_size(tmp_path):
    to_lobster(book(row(), row(1, bids=(), asks=(), state="empty")), tmp_path)
    assert texts(tmp_path, "orderbook") == [
        "1002500,2,995000,1,9999999999,0,-9999999999,0",
        "9999999999,0,-9999999999,0,9999999999,0,-9999999999,0",
    ]


def test_sizes_can_be_whole_numbers_too(tmp_path):
    to_lobster(book(row(bids=[(99.5, 0.1)], asks=[(100.25, 1e-8)])), tmp_path, size_scale=10**8)
    assert texts(tmp_path, "orderbook") == ["1002500,1,995000,10000000,9999999999,0,-9999999999,0"]


@pytest.mark.parametrize("price", [0.00001234, 87024.43, 138_991_023.41, 0.1 + 0.2, 1e300])
def test_a_price_is_whole_by_its_scale_or_refused(tmp_path, price):
    rows = book(row(), row(3, asks=[(price, 1.0)]), row(4, asks=[(price, 1.0)]))
    if round(price, 4) == price < 1e9:
        to_lobster(rows, tmp_path)
        assert int(texts(tmp_path, "orderbook")[1].split(",")[0]) / 10_000 == price
    else:
        refused = r"ask_price_1 of BTC-USD at 2026-03-04 10:00:00.* no whole number by price_scale=10000"
        with pytest.raises(DatasetError, match=refused):
            to_lobster(rows, tmp_path)
        assert not list(tmp_path.iterdir())


def test_a_finer_scale_takes_the_smallest_prices(tmp_path):
    to_lobster(book(row(bids=[(1e-8, 1e11)], asks=[(2.5e-7, 0.3)])), tmp_path, price_scale=10**8)
    assert texts(tmp_path, "orderbook") == ["25,0.3,1,100000000000,9999999999,0,-9999999999,0"]


def test_a_size_that_is_not_whole_by_its_scale_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"bid_size_1 of BTC-USD .* is 0\.25, .* by size_scale=10"):
        to_lobster(book(row(bids=[(99.5, 0.25)])), tmp_path, size_scale=10)


def test_each_product_and_day_has_its_files(tmp_path):
    midnight = 14 * 3600 * SECOND
    rows = book(
        row(midnight - 1),
        row(midnight - 1, product_id="A/B é"),
        row(midnight),
        row(midnight + 1500 * SECOND),
    )
    to_lobster(rows, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "A%2FB%20%C3%A9_2026-03-04_0_86400000_message_2.csv",
        "A%2FB%20%C3%A9_2026-03-04_0_86400000_orderbook_2.csv",
        "BTC-USD_2026-03-04_0_86400000_message_2.csv",
        "BTC-USD_2026-03-04_0_86400000_orderbook_2.csv",
        "BTC-USD_2026-03-05_0_86400000_message_2.csv",
        "BTC-USD_2026-03-05_0_86400000_orderbook_2.csv",
    ]
    assert texts(tmp_path, "message") == ["86399.999999999,0,0,0,0,0"]
    next_day = tmp_path / "BTC-USD_2026-03-05_0_86400000_message_2.csv"
    assert next_day.read_text().split() == ["0.000000000,0,0,0,0,0", "1500.000000000,0,0,0,0,0"]


def test_a_row_without_server_time_is_placed_by_its_receipt(tmp_path):
    to_lobster(book(row() | {"server_time": None}), tmp_path)
    assert texts(tmp_path, "message") == ["36000.000000005,0,0,0,0,0"]
    timeless = row() | {"server_time": None, "capture_time": None}
    with pytest.raises(DatasetError, match="a row without a time, which LOBSTER needs"):
        to_lobster(book(row(), timeless, timeless), tmp_path)


def test_rows_that_are_not_proven_are_left_out_or_refused_or_written(tmp_path):
    rows = book(row(), row(1, state="unproven"), row(2, state="unproven"), row(3, state="crossed"))
    for pieces in (1, 2, 4):
        to_lobster(in_pieces(rows, pieces), tmp_path)
        times = [text[:15] for text in texts(tmp_path, "message")]
        assert times == ["36000.000000000", "36000.000000001", "36000.000000003"]
        shown = texts(tmp_path, "orderbook")
        assert set(shown[1].split(",")) <= {"9999999999", "-9999999999", "0", "0.0"}  # no book from here on
        assert all(text.startswith("1002500,2,995000,1,") for text in (shown[0], shown[2]))
    to_lobster(rows, tmp_path, gaps="ignore")
    assert len(texts(tmp_path, "message")) == len(texts(tmp_path, "orderbook")) == 4
    with pytest.raises(StateError, match=r"BTC-USD is unproven at 2026-03-04 10:00.*gaps='drop'"):
        to_lobster(rows, tmp_path, gaps="raise")
    assert len(texts(tmp_path, "message")) == 4


def test_files_appear_whole_or_not_at_all(tmp_path):
    to_lobster(book(row()), tmp_path)
    before = texts(tmp_path, "orderbook")
    with pytest.raises(DatasetError):
        to_lobster(in_pieces(book(row(1), row(2, bids=[(1e-8, 1.0)])), 1), tmp_path)
    assert texts(tmp_path, "orderbook") == before
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_run_left_is_not_taken_over(tmp_path):
    (tmp_path / f".{NAME.format('orderbook', 2)}.tmp").write_text("of a killed run\n")
    to_lobster(book(row()), tmp_path)
    assert len(texts(tmp_path, "orderbook")) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_book_without_rows_gives_no_files(tmp_path):
    assert to_lobster(book(), tmp_path / "new") == []


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
def test_how_the_book_is_cut_changes_nothing(tmp_path, rows):
    products = ["BTC-USD", "ETH-USD", "A"]
    whole = book(*(row(k * 2000 * SECOND, product_id=products[k * k % 3], depth=2) for k in range(60)))
    one, cut = tmp_path / "one", tmp_path / "cut"
    to_lobster(whole, one)
    to_lobster(in_pieces(whole, rows), cut)
    assert len(list(one.iterdir())) > 6
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in cut.iterdir()
    }


def read_back(paths, depth, scale):
    """Read pairs of files plainly, as the columns of the book that they hold."""
    frames = []
    columns = [f"{s}_{w}_{k}" for k in range(1, depth + 1) for s in ("ask", "bid") for w in ("price", "size")]
    for messages, orders in zip(paths[::2], paths[1::2], strict=True):
        product_id, date, *_ = messages.name.split("_")
        seconds = [text.split(",")[0].split(".") for text in messages.read_text().split()]
        ns = [int(whole) * SECOND + int(fraction) for whole, fraction in seconds]
        lines = [text.split(",") for text in orders.read_text().split()]
        levels = {
            name: [number(name, text, scale) for text in column]
            for name, column in zip(columns, zip(*lines, strict=True), strict=True)
        }
        midnight = pl.Series([date]).str.to_date().cast(pl.Datetime("ns", "UTC"))
        time = (pl.Series(ns) + midnight.to_physical()[0]).cast(schema.TIME)
        frames.append(pl.DataFrame({"product_id": [product_id] * len(ns), "server_time": time, **levels}))
    return pl.concat(frames)


def number(name, text, scale):
    if "size" in name:
        return float(text) or None
    return None if abs(int(text)) == 9_999_999_999 else int(text) / scale


def same_book(rows, folder, depth, scale):
    got = read_back(to_lobster(rows, folder, price_scale=scale), depth, scale)
    unproven = pl.col("book_state") == "unproven"
    ends = unproven & ~unproven.shift(1).over("product_id").fill_null(True)
    kept = [name for name in got.columns if "_price_" in name or "_size_" in name]
    shown = [pl.when(~unproven).then(name).alias(name) for name in kept]
    expected = rows.filter(~unproven | ends).with_columns(shown).sort("product_id", maintain_order=True)
    assert got.height
    assert_frame_equal(got, expected.select(got.columns), check_exact=True)


def test_every_digit_of_a_recordings_book_is_there(tmp_path):
    rows = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book, depth=5, on="depth").collect()
    assert {"ok", "unproven"} <= set(rows["book_state"])
    same_book(rows, tmp_path, 5, 10_000)


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real recordings (shared/real beside the checkout) are not here"
)
def test_every_digit_of_a_real_book_is_there(tmp_path):
    segment = REAL / "coinbase_2021" / "advanced" / "segment_20210417T16_00001.ndjson.gz"
    rows = cb.scan_raw(segment, "level2").pipe(cb.rebuild_book, depth=3).head(5000).collect()
    same_book(rows, tmp_path, 3, 10**8)


def test_bad_use_is_refused_before_anything_is_read(tmp_path):
    rows = book(row())
    with pytest.raises(ConfigError, match="unknown value of gaps 'mark'"):
        to_lobster(rows, tmp_path, gaps="mark")
    for scale in (0, -1, 1.5, True, None):
        with pytest.raises(ConfigError, match="price_scale must be a whole number above 0"):
            to_lobster(rows, tmp_path, price_scale=scale)
    with pytest.raises(ConfigError, match="size_scale must be a whole number above 0"):
        to_lobster(rows, tmp_path, size_scale=0)
    with pytest.raises(ConfigError, match="book must be a Polars frame"):
        to_lobster("book.parquet", tmp_path)
    with pytest.raises(ConfigError, match="book lacks the column book_state"):
        to_lobster(rows.drop("book_state"), tmp_path)
    with pytest.raises(ConfigError, match="book lacks the column ask_price_1"):
        to_lobster(
            cb.scan_raw(cb.sample_path(), "level2").with_columns(book_state=pl.lit("ok", schema.BOOK_STATE)),
            tmp_path,
        )
    with pytest.raises(ConfigError, match="bid_size_2 of book must be Float64, not Float32: cast it"):
        to_lobster(rows.with_columns(pl.col("bid_size_2").cast(pl.Float32)), tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is a file: give a folder"):
        to_lobster(rows, file)
    assert list(tmp_path.iterdir()) == [file]
