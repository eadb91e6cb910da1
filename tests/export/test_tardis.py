"""level2 and market_trades as CSV files of Tardis, and back: the same book, proven where it was."""

import csv
import gzip
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tiers
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools import lazy, schema
from cbtools.errors import ConfigError, DatasetError, StateError
from cbtools.export.tardis import read_tardis, scan_tardis, to_tardis

LEVEL2_HEADER = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
TRADES_HEADER = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
NOON = 1_772_625_600_000_000  # µs: 2026-03-04 12:00 UTC
REAL = Path(__file__).parents[3] / "shared" / "real"
TIMES = ("server_time", "capture_time", "event_time", "trade_time", "unbroken_since")
LEVELS = [f"{side}_{what}_{k}" for side in ("bid", "ask") for what in ("price", "size") for k in range(1, 11)]


def table(name, rows):
    """Make one of our tables of rows with times in µs."""
    columns = schema.schema(name)
    times = [column for column in columns if column in TIMES]
    numbers = {column: pl.Int64 if column in times else dtype for column, dtype in columns.items()}
    frame = pl.DataFrame(rows, schema=numbers, orient="row")
    return frame.with_columns(pl.col(times).cast(pl.Datetime("us", "UTC"))).cast(dict(columns))


def change(at, side, price, size, *, snapshot=False, product_id="BTC-USD", run=NOON, server=None, capture=0):
    """Give a row of level2: ``at`` is the µs since noon of its frame's receipt, and its number and line."""
    return {
        "product_id": product_id,
        "is_snapshot": snapshot,
        "side": side,
        "price": price,
        "size": size,
        "server_time": NOON + at - 5 if server is None else server,
        "capture_time": NOON + at if capture == 0 else capture,
        "sequence_num": at,
        "connection": 1,
        "line": at,
        "unbroken_since": run,
    }


def book_of(*, product_id="BTC-USD", at=1, run=NOON, bid=99.5, ask=100.5):
    return [
        change(at, "bid", bid, 1.0, snapshot=True, product_id=product_id, run=run),
        change(at, "ask", ask, 2.0, snapshot=True, product_id=product_id, run=run),
    ]


def written(tmp_path, *lines, header=LEVEL2_HEADER, name="file.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *lines, ""]))
    return path


def line(at, flag, side, price, amount, symbol="BTC-USD"):
    return f"coinbase,{symbol},{NOON + at - 5},{NOON + at},{flag},{side},{price},{amount}"


def books(level2):
    return level2.lazy().pipe(cb.rebuild_book).collect()


def in_pieces(frame, rows):
    """Give a frame lazily, so many rows at a time."""
    pieces = frame.iter_slices

    def batches(columns, predicate):
        yield from (piece.select(columns) for piece in pieces(rows))

    return lazy.source(batches, frame.schema, "PIECES")


def same_books(level2, again):
    """Check that a book that was read again is the one that was written, in all that was proven of it."""
    expected = books(level2).filter(pl.col("book_state") != "unproven")
    got = books(again).filter(pl.col("n_bids") + pl.col("n_asks") > 0)
    told = ["product_id", *LEVELS, "n_bids", "n_asks", "book_state"]
    assert got.height
    assert_frame_equal(got.select(told), expected.select(told), check_exact=True)
    for time in ("server_time", "capture_time"):
        want = expected.select(pl.coalesce(time, "server_time", "capture_time"))[time]
        assert got[time].equals(want.dt.truncate("1us"))


# --- what is written


def test_a_level_change_is_a_line_of_incremental_book_l2(tmp_path):
    rows = table("level2", [*book_of(), change(7, "bid", 99.5, 0.0), change(8, "ask", 1e-8, 1234567.125)])
    path = to_tardis(rows, tmp_path / "book.csv")
    assert path.read_text().splitlines() == [
        LEVEL2_HEADER,
        "coinbase,BTC-USD,1772625599999996,1772625600000001,true,bid,99.5,1",
        "coinbase,BTC-USD,1772625599999996,1772625600000001,true,ask,100.5,2",
        "coinbase,BTC-USD,1772625600000002,1772625600000007,false,bid,99.5,0",
        "coinbase,BTC-USD,1772625600000003,1772625600000008,false,ask,0.00000001,1234567.125",
    ]


TRADE = {
    "product_id": "BTC-USD",
    "trade_id": 77,
    "price": 100.25,
    "size": 0.5,
    "maker_side": "buy",
    "aggressor_side": "sell",
    "trade_time": NOON + 3,
    "is_snapshot": False,
    "server_time": NOON + 4,
    "capture_time": NOON + 9,
    "sequence_num": 5,
    "connection": 1,
    "line": 6,
}


def test_a_trade_is_a_line_of_trades_with_the_side_of_the_aggressor(tmp_path):
    path = to_tardis(table("market_trades", [TRADE]), tmp_path / "trades.csv", exchange="coinbase-pro")
    assert path.read_text().splitlines() == [
        TRADES_HEADER,
        f"coinbase-pro,BTC-USD,{NOON + 3},{NOON + 9},77,sell,100.25,0.5",
    ]


@pytest.mark.parametrize(
    ("missing", "timestamp", "local"),
    [
        ({"trade_time"}, 4, 9),
        ({"trade_time", "server_time"}, 9, 9),
        ({"capture_time"}, 3, 4),
        ({"capture_time", "server_time"}, 3, 3),
    ],
)
def test_where_a_time_is_missing_another_stands_for_it(tmp_path, missing, timestamp, local):
    rows = table("market_trades", [{**TRADE, **dict.fromkeys(missing)}])
    path = to_tardis(rows, tmp_path / "trades.csv")
    assert path.read_text().splitlines()[1].split(",")[2:4] == [str(NOON + timestamp), str(NOON + local)]


def test_what_a_trade_does_not_tell_is_written_as_tardis_does(tmp_path):
    rows = table("market_trades", [{**TRADE, "trade_id": None, "maker_side": None, "aggressor_side": None}])
    path = to_tardis(rows, tmp_path / "trades.csv")
    assert path.read_text().splitlines()[1].split(",")[4:6] == ["", "unknown"]
    again = read_tardis(path)
    assert again.select("trade_id", "maker_side", "aggressor_side").row(0) == (None, None, None)


def test_compressed_is_the_same_file(tmp_path):
    rows = table("level2", book_of())
    plain, packed = (to_tardis(rows, tmp_path / name) for name in ("a.csv", "a.csv.gz"))
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.csv.gz"]


@pytest.mark.ci
def test_a_file_is_written_while_its_rows_are_read(tmp_path):
    rows = table("level2", [*book_of(), *(change(k, "bid", 99.5, float(k)) for k in range(2, 200_000))])
    sizes = []

    def batches(columns, predicate):
        for piece in rows.iter_slices(10_000):
            sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
            yield piece.select(columns)

    path = to_tardis(lazy.source(batches, rows.schema, "WATCHED"), tmp_path / "book.csv")
    assert max(sizes) > path.stat().st_size / 2


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = to_tardis(table("level2", book_of()), tmp_path / "book.csv")
    before = path.read_bytes()
    timeless = change(5, "bid", 99.0, 1.0, server=None, capture=None) | {"server_time": None}
    with pytest.raises(DatasetError, match="gives no timestamp"):
        to_tardis(table("level2", [*book_of(), timeless]), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["book.csv"]


@pytest.mark.parametrize("name", ["product_id", "is_snapshot", "side", "price", "size"])
def test_a_level_change_that_lacks_what_it_must_have_is_refused(tmp_path, name):
    rows = table("level2", [*book_of(), change(5, "bid", 99.0, 1.0) | {name: None}])
    with pytest.raises(DatasetError, match="which Tardis needs"):
        to_tardis(rows, tmp_path / "book.csv", gaps="ignore")


# --- gaps


def broken():
    """Give two products; the run of one breaks, and goes on to a new snapshot."""
    return table(
        "level2",
        [
            *book_of(),
            *book_of(product_id="ETH-USD", at=2),
            change(3, "bid", 99.0, 1.0),
            change(4, "bid", 98.0, 1.0, run=NOON + 4),
            change(5, "bid", 98.5, 1.0, product_id="ETH-USD"),
            change(6, "ask", 99.0, 7.0, run=NOON + 4),
            *book_of(at=7, run=NOON + 4, bid=50.0, ask=51.0),
            change(8, "bid", 50.5, 3.0, run=NOON + 4),
        ],
    )


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
def test_a_book_that_is_not_proven_is_cleared_and_left_out_until_its_next_snapshot(tmp_path, rows):
    path = to_tardis(in_pieces(broken(), rows), tmp_path / "book.csv")
    told = [",".join(text.split(",")[1:2] + text.split(",")[4:]) for text in path.read_text().splitlines()]
    assert told[5:] == [
        "BTC-USD,false,bid,99,1",
        "BTC-USD,false,bid,0,0",  # behind a change, a snapshot discards the book:
        "BTC-USD,true,bid,0,0",  # it is empty from here on
        "ETH-USD,false,bid,98.5,1",
        "BTC-USD,true,bid,50,1",
        "BTC-USD,true,ask,51,2",
        "BTC-USD,false,bid,50.5,3",
    ]
    of_btc = books(read_tardis(path)).filter(product_id="BTC-USD")
    assert of_btc["book_state"].to_list() == ["ok", "ok", "empty", "ok", "ok"]
    same_books(broken(), read_tardis(path))


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_snapshot_that_follows_another_is_told_from_it(tmp_path, rows):
    """A reader discards its book at a snapshot that follows a change; a marker is an empty snapshot."""
    empty = change(5, None, None, None) | {"is_snapshot": True}
    level2 = table(
        "level2", [*book_of(), *book_of(at=3, bid=50.0, ask=51.0), empty, *book_of(at=6, bid=60.0, ask=61.0)]
    )
    path = to_tardis(in_pieces(level2, rows), tmp_path / "book.csv")
    told = [",".join(text.split(",")[4:]) for text in path.read_text().splitlines()[1:]]
    assert told == [
        *("true,bid,99.5,1", "true,ask,100.5,2"),
        *("false,bid,0,0", "true,bid,50,1", "true,ask,51,2"),
        *("false,bid,0,0", "true,bid,0,0"),
        *("true,bid,60,1", "true,ask,61,2"),
    ]
    again = books(read_tardis(path))
    assert again.select(LEVELS).equals(books(level2).select(LEVELS))
    assert again["book_state"].to_list() == ["ok", "ok", "empty", "ok"]


def test_changes_before_the_first_snapshot_are_of_no_proven_book(tmp_path):
    rows = table("level2", [change(1, "bid", 99.0, 1.0), change(2, "bid", 98.0, 1.0), *book_of(at=3)])
    path = to_tardis(rows, tmp_path / "book.csv")
    assert path.read_text().splitlines()[1:] == [
        line(3, "true", "bid", "99.5", 1),
        line(3, "true", "ask", "100.5", 2),
    ]


def test_gaps_can_be_refused_or_ignored(tmp_path):
    with pytest.raises(StateError, match=r"BTC-USD is unproven at 2026-03-04 11:59:59.999999.*gaps='drop'"):
        to_tardis(broken(), tmp_path / "book.csv", gaps="raise")
    assert not list(tmp_path.iterdir())
    whole = table("level2", [*book_of(), change(3, "bid", 99.0, 1.0)])
    same_books(whole, read_tardis(to_tardis(whole, tmp_path / "whole.csv", gaps="raise")))
    path = to_tardis(broken().drop("unbroken_since"), tmp_path / "book.csv", gaps="ignore")
    assert_frame_equal(
        read_tardis(path).select("product_id", "is_snapshot", "side", "price", "size"),
        broken().select("product_id", "is_snapshot", "side", "price", "size"),
    )


# --- there and back


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Simulate two products with a gap, a reconnect and bad lines."""
    done = cb.simulate_segments(
        tmp_path_factory.mktemp("raw"),
        products=("BTC-USD", "ETH-USD"),
        minutes=1,
        activity=0.3,
        seed=7,
        levels=200,
        gaps=1,
        reconnects=1,
        bad_lines=1,
    )
    return list(done.paths)


@pytest.mark.parametrize("name", ["book.csv", "book.csv.gz"])
def test_the_book_of_a_recording_is_the_same_there_and_back(tmp_path, recording, name):
    level2 = cb.scan_raw(recording, "level2")
    states = books(level2)["book_state"]
    assert {"ok", "unproven"} <= set(states)
    same_books(level2, scan_tardis(to_tardis(level2, tmp_path / name)))


def test_the_trades_of_a_recording_are_the_same_there_and_back(tmp_path, recording):
    trades = cb.scan_raw(recording, "market_trades").collect()
    again = read_tardis(to_tardis(trades, tmp_path / "trades.csv.gz"))
    assert again.schema == trades.schema
    kept = ["product_id", "trade_id", "price", "size", "maker_side", "aggressor_side", "capture_time"]
    assert trades.height > 50
    assert_frame_equal(again.select(kept), trades.select(kept), check_exact=True)
    assert again["trade_time"].equals(trades["trade_time"].dt.truncate("1us"))
    assert again["server_time"].null_count() == again["sequence_num"].null_count() == again.height


@pytest.mark.parametrize("seed", range(4))
def test_prices_and_sizes_come_back_bit_for_bit(tmp_path, seed):
    dice = random.Random(seed)
    numbers = [5e-324, 1e-8, 0.1 + 0.2, 138_991_023.41, 2.0**53 + 2, 1e22, 1.7976931348623157e308]
    numbers += [dice.random() * 10.0 ** dice.randint(-12, 12) for _ in range(300)]
    numbers += [round(dice.uniform(0, 1e5), dice.randint(0, 8)) for _ in range(300)]
    rows = table("level2", [change(1, "bid", x, dice.choice(numbers), snapshot=True) for x in numbers])
    again = read_tardis(to_tardis(rows, tmp_path / "book.csv.gz"))
    assert again.select("price", "size").equals(rows.select("price", "size"))


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real recordings (shared/real beside the checkout) are not here"
)
@pytest.mark.parametrize("feed", ["exchange", "advanced"])
def test_the_book_of_a_real_recording_is_the_same_there_and_back(tmp_path, feed):
    segment = REAL / "coinbase_2021" / feed / "segment_20210417T16_00001.ndjson.gz"
    level2 = cb.scan_raw(segment, "level2").head(200_000).collect()
    same_books(level2, scan_tardis(to_tardis(level2, tmp_path / "book.csv.gz")))


@pytest.mark.ci
def test_hftbacktests_own_reader_of_tardis_files_reads_ours(tmp_path, recording, capsys):
    from hftbacktest.data.utils.tardis import convert

    level2, trades = (
        cb.scan_raw(recording, name, products=["BTC-USD"]) for name in ("level2", "market_trades")
    )
    trades = trades.filter(~pl.col("is_snapshot")).collect()
    files = [to_tardis(trades, tmp_path / "trades.csv.gz")]
    files.append(to_tardis(level2, tmp_path / "book.csv.gz", gaps="ignore"))  # it forgets a last snapshot
    events = convert([str(file) for file in files], buffer_size=200_000, ss_buffer_size=10_000)
    capsys.readouterr()
    kind, received = events["ev"] & 0xFF, events["ev"] & (1 << 30) != 0
    book = read_tardis(files[1])
    for of_kind, rows in (((1, 4), book), ((2,), trades)):
        kept = received & np.isin(kind, of_kind)
        pairs = list(zip(events["px"][kept].tolist(), events["qty"][kept].tolist(), strict=True))
        assert len(pairs) > 50
        assert sorted(pairs) == sorted(rows.select("price", "size").rows())


# --- what is read


def test_rows_of_one_time_are_one_message_and_its_line_leads_to_the_file(tmp_path):
    lines = [
        line(1, "true", "bid", 99, 1),
        line(1, "true", "ask", 101, 1, symbol="ETH-USD"),
        line(1, "true", "ask", 101, 1),
        line(6, "false", "bid", 99, 0),
        line(6, "false", "bid", 98, 1),
        f"coinbase,BTC-USD,{NOON + 3},{NOON + 6},false,bid,97,1",  # another timestamp: another message
        line(9, "false", "bid", 96, 1),
    ]
    level2 = read_tardis(written(tmp_path, *lines))
    assert level2.schema == schema.schema("level2")
    assert level2["line"].to_list() == [2, 2, 2, 5, 5, 7, 8]
    assert level2.select("event_time", "sequence_num").null_count().row(0) == (7, 7)
    assert books(level2)["product_id"].to_list() == ["BTC-USD", "ETH-USD", "BTC-USD", "BTC-USD", "BTC-USD"]


def test_columns_are_found_by_name_and_others_left_alone(tmp_path):
    path = written(
        tmp_path,
        f"5,bid,BTC-USD,x,true,{NOON + 1},{NOON},deribit,100",
        header="amount,side,symbol,more,is_snapshot,local_timestamp,timestamp,exchange,price",
    )
    row = read_tardis(path).row(0, named=True)
    assert (row["price"], row["size"], row["side"], row["product_id"]) == (100, 5, "bid", "BTC-USD")
    assert row["capture_time"].microsecond == 1


def test_an_id_that_is_no_number_is_null(tmp_path):
    texts = ["12", "ccc3c1fa-212c-e8b0-1706-9b9c4f3d5ecf", "", "7"]
    lines = [f"bitmex,XBTUSD,{NOON},{NOON + 1},{text},sell,8531.5,2152" for text in texts]
    trades = read_tardis(written(tmp_path, *lines, header=TRADES_HEADER))
    assert trades.schema == schema.schema("market_trades")
    assert trades["trade_id"].to_list() == [12, None, None, 7]
    assert trades["line"].to_list() == [2, 3, 4, 5]
    assert trades.select("maker_side", "aggressor_side", "is_snapshot").row(0) == ("buy", "sell", False)


def test_every_snapshot_begins_a_run_and_proves_the_book(tmp_path):
    lines = [
        line(1, "false", "bid", 90, 1),
        line(2, "true", "bid", 99, 1),
        line(2, "true", "ask", 101, 1),
        line(3, "false", "bid", 98, 1),
        line(4, "true", "bid", 50, 1),
        line(4, "true", "ask", 51, 1),
        line(5, "true", "bid", 60, 1),  # behind another, and it replaces that, too
        line(5, "true", "ask", 61, 1),
    ]
    level2 = read_tardis(written(tmp_path, *lines))
    assert (level2["unbroken_since"].dt.timestamp("us") - NOON).to_list() == [1, 2, 2, 2, 4, 4, 5, 5]
    book = books(level2)
    assert book["book_state"].to_list() == ["ok"] * 4
    assert book["bid_price_1"].to_list() == [99, 99, 50, 60]
    assert book["n_bids"].to_list() == [1, 2, 1, 1]


def test_a_message_that_updates_before_its_snapshot_is_still_of_one_run(tmp_path):
    lines = [
        line(1, "true", "bid", 99, 1),
        line(1, "true", "ask", 101, 1),
        line(2, "false", "bid", 98, 1),
        line(2, "true", "bid", 97, 1),
        line(2, "true", "ask", 102, 1),
        line(3, "false", "bid", 96, 1),
    ]
    book = books(read_tardis(written(tmp_path, *lines)))
    assert book["book_state"].to_list() == ["ok"] * 3
    assert book["bid_price_1"].to_list() == [99, 97, 97]


def test_a_file_proves_nothing_about_the_next(tmp_path):
    one = written(tmp_path, line(1, "true", "bid", 99, 1), line(1, "true", "ask", 101, 1), name="day_1.csv")
    two = written(
        tmp_path,
        line(5, "false", "bid", 98, 1),
        line(6, "true", "bid", 97, 1),
        line(6, "true", "ask", 102, 1),
        name="day_2.csv",
    )
    level2 = read_tardis([one, two])
    assert level2["connection"].to_list() == [1, 1, 2, 2, 2]
    assert level2["line"].to_list() == [2, 2, 2, 3, 3]
    assert books(level2)["book_state"].to_list() == ["ok", "unproven", "ok"]
    assert_frame_equal(read_tardis(str(tmp_path / "day_*.csv")), level2)
    assert read_tardis([two, one])["price"].to_list() == [98, 97, 102, 99, 101]


def expected_places(path):
    """Read a file plainly: the message and the run of each row."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    begins, run = [], {}
    for k, row in enumerate(rows):
        same = k and all(row[name] == rows[k - 1][name] for name in ("timestamp", "local_timestamp"))
        begins.append(begins[-1] if same else k + 2)
    snapshots = {
        (begin, row["symbol"])
        for begin, row in zip(begins, rows, strict=True)
        if row["is_snapshot"] == "true"
    }
    places = []
    for begin, row in zip(begins, rows, strict=True):
        key = row["symbol"]
        if (begin, key) in snapshots or key not in run:
            run[key] = int(row["local_timestamp"])
        places.append((begin, run[key]))
    return places


@pytest.mark.ci
@tiers.parametrize("seed", range(3), every=3)
def test_how_a_file_is_cut_changes_nothing(tmp_path, seed):
    dice, at, lines = random.Random(seed), 0, []
    for _ in range(3000):
        at += dice.choice([1, 1, 7])
        n = dice.choice([1, 2, 5, 40]) if dice.random() < 0.995 else 4000
        flag = dice.choice([0, 0, 0, 0, 0.5, 1])
        for _ in range(n):
            kind = "true" if dice.random() < flag else "false"
            lines.append(line(at, kind, dice.choice(["bid", "ask"]), 100, 1, dice.choice(["A", "B", "C"])))
    path = written(tmp_path, *lines)
    level2 = read_tardis(path)
    run = level2["unbroken_since"].dt.timestamp("us")
    assert list(zip(level2["line"], run, strict=True)) == expected_places(path)
    few = scan_tardis(path).filter(pl.col("product_id") == "B", pl.col("line") > 900).select("line", "side")
    wanted = level2.filter(pl.col("product_id") == "B", pl.col("line") > 900).select("line", "side")
    assert_frame_equal(few.collect(), wanted)
    assert_frame_equal(scan_tardis(path).slice(5000, 10).collect(), level2.slice(5000, 10))


def test_only_as_much_is_read_as_is_asked_for(tmp_path):
    lines = [line(k, "false", "bid", 99, 1) for k in range(300_000)]
    path = written(tmp_path, *lines, "this is", "no row")
    assert scan_tardis(path).head(10).collect().height == 10
    with pytest.raises(DatasetError, match="line 300002: no row of incremental_book_L2"):
        scan_tardis(path).select(pl.len()).collect()


def test_an_empty_file_has_no_rows(tmp_path):
    assert read_tardis(written(tmp_path)).schema == schema.schema("level2")
    assert read_tardis(to_tardis(table("level2", []), tmp_path / "none.csv.gz")).is_empty()


def test_rows_go_on_into_a_dataset(tmp_path, recording):
    trades = cb.scan_raw(recording, "market_trades")
    again = scan_tardis(to_tardis(trades, tmp_path / "trades.csv"))
    cb.write_dataset(
        again, tmp_path / "out" / "market_trades", partition_by=["product_id", "date"], segment="tardis"
    )
    back = cb.scan_dataset(tmp_path / "out", "market_trades").select(pl.len()).collect().item()
    assert back == trades.select(pl.len()).collect().item() > 0


# --- what is refused


@pytest.mark.parametrize(
    "row",
    [
        line(2, "true", "offer", 99, 1),
        line(2, "true", "", 99, 1),
        line(2, "", "bid", 99, 1),
        line(2, "true", "bid", "", 1),
        line(2, "true", "bid", "nan", 1),
        line(2, "true", "bid", 99, "inf"),
        line(2, "true", "bid", 99, -1),
        line(2, "true", "bid", 99, 1, symbol=""),
        f"coinbase,BTC-USD,,{NOON},true,bid,99,1",
        f"coinbase,BTC-USD,{NOON},-1,true,bid,99,1",
        f"coinbase,BTC-USD,{NOON},{NOON}000,true,bid,99,1",
    ],
)
def test_a_row_that_is_none_is_refused_with_its_place(tmp_path, row):
    path = written(tmp_path, line(1, "true", "bid", 98, 1), row, row)
    with pytest.raises(DatasetError, match=r"file\.csv, line 3: no row of incremental_book_L2"):
        read_tardis(path)


@pytest.mark.parametrize("row", [line(2, "maybe", "bid", 99, 1), line(2, "true", "bid", "a", 1), "x,y"])
def test_what_is_no_number_is_refused_with_its_file(tmp_path, row):
    path = written(tmp_path, line(1, "true", "bid", 98, 1), row)
    with pytest.raises(DatasetError, match=r"file\.csv"):
        read_tardis(path)


def test_a_trade_with_another_side_is_refused(tmp_path):
    path = written(tmp_path, f"c,BTC-USD,{NOON},{NOON},1,BUY,9,1", header=TRADES_HEADER)
    with pytest.raises(DatasetError, match="line 2: no row of trades"):
        read_tardis(path)


def test_exchanges_are_not_mixed(tmp_path):
    one = written(tmp_path, line(1, "true", "bid", 98, 1), name="a.csv")
    two = written(tmp_path, line(1, "true", "bid", 98, 1).replace("coinbase", "okex"), name="b.csv")
    with pytest.raises(DatasetError, match=r"b\.csv is not of coinbase alone.*read them apart"):
        read_tardis([one, two])


def test_files_that_do_not_fit_are_refused_at_once(tmp_path):
    book = written(tmp_path, name="a.csv")
    trades = written(tmp_path, header=TRADES_HEADER, name="b.csv")
    other = written(tmp_path, header="exchange,symbol,ask_price,bid_price", name="c.csv")
    nothing = tmp_path / "d.csv"
    nothing.touch()
    with pytest.raises(
        ConfigError, match=r"a\.csv is incremental_book_L2, but .*b\.csv is trades: read them apart"
    ):
        scan_tardis([book, trades])
    with pytest.raises(
        ConfigError, match=r"c\.csv is neither of the types.*header is exchange, symbol, ask_price"
    ):
        scan_tardis(other)
    with pytest.raises(ConfigError, match=r"d\.csv cannot be read as CSV"):
        scan_tardis(nothing)
    with pytest.raises(ConfigError, match=r"is a folder: name its files by a pattern, e\.g\. .*\*\.csv\.gz"):
        scan_tardis(tmp_path)
    for none in (tmp_path / "e.csv", str(tmp_path / "e*.csv"), []):
        with pytest.raises(ConfigError, match="no such file"):
            scan_tardis(none)


def test_bad_use_of_the_writer_is_refused_before_anything_is_read(tmp_path):
    rows = table("level2", book_of())
    path = tmp_path / "book.csv"
    with pytest.raises(ConfigError, match="unknown value of gaps 'dorp': did you mean 'drop'"):
        to_tardis(rows, path, gaps="dorp")
    with pytest.raises(ConfigError, match=r"must end in \.csv or \.csv\.gz"):
        to_tardis(rows, tmp_path / "book.parquet")
    with pytest.raises(ConfigError, match="exchange must be a name"):
        to_tardis(rows, path, exchange="")
    with pytest.raises(ConfigError, match="frame must be a Polars frame"):
        to_tardis([1], path)
    with pytest.raises(ConfigError, match="neither level2 nor market_trades: its columns are a"):
        to_tardis(pl.DataFrame({"a": [1]}), path)
    with pytest.raises(ConfigError, match="level2 lacks the column unbroken_since"):
        to_tardis(rows.drop("unbroken_since"), path)
    with pytest.raises(ConfigError, match="price of level2 must be Float64, not String: cast it"):
        to_tardis(rows.with_columns(pl.col("price").cast(pl.String)), path)
    assert not list(tmp_path.iterdir())
