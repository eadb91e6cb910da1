"""book_at: the whole book as it was known at an instant, from frames and from what run_segment wrote."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
import pytest
import tiers
import timeline
import wire
from timeline import moment

import cbtools as cb

BTC, ETH = "BTC-USD", "ETH-USD"
LEVELS = {"price": pl.Float64, "size": pl.Float64}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def level2(number: int | None, second: float, *events: wire.Json) -> bytes:
    return timeline.received(wire.l2(number, *events), second)


def event(*levels: tuple[str, float, float], of: str = BTC, kind: str = "update") -> wire.Json:
    return wire.book(
        of, *(wire.update(side, str(price), str(size)) for side, price, size in levels), kind=kind
    )


FIRST = [
    level2(0, 9, event(("bid", 1, 1))),  # early
    timeline.received(wire.snapshot(1), 10),
    level2(2, 11, event(("bid", 99.75, 5))),
    timeline.received(wire.snapshot(3, ETH), 13),
    level2(
        4,
        14,
        event(("offer", 100.25, 1)),
        event(("bid", 3, 1), of=ETH),
        event(("bid", 99, 0), ("bid", 98, 2)),
    ),
]
SECOND = [
    level2(5, 20, event(("bid", 99.75, 0))),
    timeline.received(wire.heartbeat(6, "now", 1), 22),
    level2(7, 24, event(("bid", 97, 1), ("offer", 103, 1), kind="snapshot")),
    level2(8, 26, event(("offer", 102, 4))),
]
THIRD = [
    level2(9, 30, event(("bid", 97, 9))),
    level2(10, 32, event(("bid", 96, 0.5), of=ETH)),
    level2(11, 33, event(("offer", 103, 0))),
]
SNAPSHOT = ([(99.5, 1), (99, 2)], [(100.5, 3), (101, 4)])
BOOKS = {
    10: SNAPSHOT,
    11: ([(99.75, 5), *SNAPSHOT[0]], SNAPSHOT[1]),
    14: ([(99.75, 5), (99.5, 1), (98, 2)], [(100.25, 1), *SNAPSHOT[1]]),
    20: ([(99.5, 1), (98, 2)], [(100.25, 1), *SNAPSHOT[1]]),
    24: ([(97, 1)], [(103, 1)]),
    26: ([(97, 1)], [(102, 4), (103, 1)]),
    30: ([(97, 9)], [(102, 4), (103, 1)]),
    33: ([(97, 9)], [(102, 4)]),
}
"""The book of BTC-USD: second of each message → bids and asks behind it."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recording")
    return [timeline.write(folder, n, *lines) for n, lines in enumerate((FIRST, SECOND, THIRD), start=1)]


@pytest.fixture(scope="module")
def rows(paths) -> pl.DataFrame:
    return cb.scan_raw(paths, "level2").collect()


@pytest.fixture(scope="module")
def dataset(paths, tmp_path_factory) -> Path:
    """Run the segments one after the other."""
    out = tmp_path_factory.mktemp("processed")
    for path in paths:
        cb.run_segment(path, out)
    return out


@pytest.fixture
def own_dataset(paths, tmp_path) -> Path:
    """Give a dataset that the test may change."""
    for path in paths:
        cb.run_segment(path, tmp_path)
    return tmp_path


def drop_parts(root: Path, number: int) -> None:
    """Remove a segment's rows of level2, and leave its state."""
    parts = list((root / "level2").rglob(f"part_*_{number:05d}.parquet"))
    assert parts
    for part in parts:
        part.unlink()


def levels(book: cb.Book) -> tuple[list[Any], list[Any]]:
    return book.bids.rows(), book.asks.rows()


def same(one: cb.Book, other: cb.Book) -> bool:
    return one.items() == other.items() and levels(one) == levels(other)


# --- the book at an instant


@pytest.fixture(params=["frame", "raw", "scan of the dataset", "folder"])
def source(request, paths, rows, dataset) -> Any:
    return {
        "frame": rows,
        "raw": cb.scan_raw(paths, "level2"),
        "scan of the dataset": cb.scan_dataset(dataset, "level2"),
        "folder": dataset,
    }[request.param]


def test_it_is_that_of_the_messages_received_by_then(source):
    for second, book in BOOKS.items():
        assert levels(cb.book_at(source, moment(second + 0.7), BTC)) == book


def test_a_message_counts_from_the_instant_of_its_receipt_on(source):
    instant = timedelta(microseconds=1)
    assert levels(cb.book_at(source, moment(20), BTC)) == BOOKS[20]
    assert levels(cb.book_at(source, moment(20) - instant, BTC)) == BOOKS[14]
    assert levels(cb.book_at(source, moment(24) - instant, BTC)) == BOOKS[20]


def test_behind_the_last_message_it_stays(source):
    for days in (0, 40):
        book = cb.book_at(source, moment(33.001) + timedelta(days=days), BTC)
        assert (levels(book), book.line) == (BOOKS[33], 3)


@pytest.mark.parametrize("second", [-100_000, 0, 9, 9.999999])
def test_before_the_first_snapshot_there_is_none(source, second):
    with pytest.raises(
        cb.StateError, match=r"there is no book of 'BTC-USD' at 2026-03-0.*: no snapshot of it was"
    ):
        cb.book_at(source, moment(second), BTC)


def test_of_a_product_that_is_not_there_there_is_none(source):
    with pytest.raises(cb.StateError, match=r"there is no book of 'SOL-USD' at .*have no such product"):
        cb.book_at(source, moment(20), "SOL-USD")


def test_each_product_has_its_own(source):
    with pytest.raises(cb.StateError, match="no book of 'ETH-USD'"):
        cb.book_at(source, moment(12.9), ETH)
    assert levels(cb.book_at(source, moment(13), ETH)) == SNAPSHOT
    assert levels(cb.book_at(source, moment(14), ETH)) == ([*SNAPSHOT[0], (3, 1)], SNAPSHOT[1])
    assert levels(cb.book_at(source, moment(32), ETH)) == ([*SNAPSHOT[0][:2], (96, 0.5), (3, 1)], SNAPSHOT[1])


def test_it_tells_of_its_message(source):
    book = cb.book_at(source, moment(21), BTC)
    assert (book.product_id, book.sequence_num, book.connection, book.line) == (BTC, 5, 1, 1)
    assert (book.capture_time, book.server_time) == (moment(20), moment(20) - timeline.LATENCY)
    assert (book.book_state, book.proven_since) == ("ok", moment(10))
    assert book.bids.schema == book.asks.schema == LEVELS
    assert cb.book_at(source, moment(27), BTC).proven_since == moment(24)


def test_whatever_it_is_read_from_it_is_the_same(rows, dataset):
    for second in (10, 14, 24, 33):
        book = cb.book_at(rows, moment(second), BTC)
        for source in (rows.lazy(), dataset, str(dataset)):
            assert same(cb.book_at(source, moment(second), BTC), book)


# --- what the book may be


def at_once(tmp_path: Path, *lines: bytes, second: float = 99) -> cb.Book:
    path = timeline.write(tmp_path, 1, *lines)
    return cb.book_at(cb.scan_raw(path, "level2"), moment(second), BTC)


def test_an_empty_book_and_an_empty_side(tmp_path):
    begin = level2(0, 1, event(("bid", 1, 1), kind="snapshot"))
    end = level2(1, 2, event(("bid", 1, 0)))
    one = at_once(tmp_path, begin)
    assert (one.book_state, levels(one)) == ("one_sided", ([(1, 1)], []))
    none = at_once(tmp_path, begin, end)
    assert (none.book_state, levels(none)) == ("empty", ([], []))
    assert none.bids.schema == none.asks.schema == LEVELS


def test_a_crossed_book(tmp_path):
    book = at_once(tmp_path, timeline.received(wire.snapshot(0), 1), level2(1, 2, event(("bid", 100.5, 1))))
    assert (book.book_state, book.bids.row(0), book.asks.row(0)) == ("crossed", (100.5, 1), (100.5, 3))


def test_behind_a_gap_it_is_unproven_until_the_next_snapshot(tmp_path):
    lines = [
        timeline.received(wire.snapshot(0), 1),
        level2(2, 2, event(("bid", 98, 1))),
        level2(3, 3, event(("bid", 97, 1))),
        timeline.received(wire.snapshot(4), 4),
        level2(5, 5, event(("bid", 96, 1))),
    ]
    found = [at_once(tmp_path, *lines, second=second) for second in range(1, 6)]
    assert [book.book_state for book in found] == ["ok", "unproven", "unproven", "ok", "ok"]
    since = [moment(1), None, None, moment(4), moment(4)]
    assert [book.proven_since for book in found] == since
    assert found[2].bids.rows() == [*SNAPSHOT[0], (98, 1), (97, 1)]  # as it is known, all the same


def test_half_a_message_is_never_seen(tmp_path):
    """Two parts of one message, and the other product's between them."""
    whole = level2(1, 2, event(("bid", 99.5, 0)), event(("bid", 1, 1), of=ETH), event(("bid", 99.6, 1)))
    lines = [timeline.received(wire.snapshot(0), 1), whole]
    assert at_once(tmp_path, *lines, second=1.9).bids.rows() == SNAPSHOT[0]
    assert at_once(tmp_path, *lines, second=2).bids.rows() == [(99.6, 1), (99, 2)]


def test_a_clock_that_steps_back_ends_it_at_the_first_later_message(tmp_path):
    lines = [
        timeline.received(wire.snapshot(0), 10),
        *timeline.changes(1, 1, 15),
        *timeline.changes(2, 2, 12),
    ]
    assert [at_once(tmp_path, *lines, second=second).sequence_num for second in (12, 14, 15)] == [0, 0, 2]


def test_without_receipt_it_is_the_server_s_time_that_counts(tmp_path):
    lines = [
        wire.line(wire.exchange_snapshot(time=timeline.text(moment(1)))),
        wire.line(wire.exchange_update(["buy", "98", "1"], time=timeline.text(moment(3)))),
        wire.line(wire.exchange_update(["buy", "97", "1"], time=timeline.text(moment(5)))),
    ]
    for second, n_bids in ((1, 1), (2, 1), (3, 2), (4.9, 2), (5, 3)):
        book = at_once(tmp_path, *lines, second=second)
        assert book.bids.height == n_bids
        assert (book.capture_time, book.sequence_num) == (None, None)


def test_rows_that_do_not_name_their_runs(rows):
    """They prove what their own numbers prove: the heartbeat between them looks like a gap."""
    plain = rows.drop("unbroken_since")
    for second, book in BOOKS.items():
        assert levels(cb.book_at(plain, moment(second), BTC)) == book
    states = [cb.book_at(plain, moment(second), BTC).book_state for second in (11, 20, 24, 26)]
    assert states == ["ok", "unproven", "ok", "ok"]


def test_columns_that_are_not_needed_need_not_be_there(rows):
    few = rows.select(sorted(set(rows.columns) - {"event_time"}))
    assert same(cb.book_at(few, moment(20), BTC), cb.book_at(rows, moment(20), BTC))


# --- the instant


@pytest.mark.parametrize(
    "when",
    [
        moment(20),
        moment(20).replace(tzinfo=None),
        moment(20).astimezone(timezone(timedelta(hours=-5, minutes=-30))),
        "2026-03-04T05:00:20Z",
        "2026-03-04T05:00:20+00:00",
        "2026-03-04T05:00:20",
        "2026-03-04 05:00:20.000000",
        "2026-03-04T08:30:20+03:30",
        "20260304T050020",
    ],
)
def test_it_is_utc_unless_it_says_otherwise(rows, dataset, when):
    for source in (rows, dataset):
        assert levels(cb.book_at(source, when, BTC)) == BOOKS[20]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be changed here")
def test_wherever_the_computer_stands(rows, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/St_Johns")
        time.tzset()
        try:
            assert datetime.now().astimezone().utcoffset() != timedelta()
            for when in ("2026-03-04T05:00:20", moment(20).replace(tzinfo=None)):
                assert levels(cb.book_at(rows, when, BTC)) == BOOKS[20]
        finally:
            patch.undo()
            time.tzset()


def test_a_text_may_be_a_day(rows):
    assert levels(cb.book_at(rows, "2026-03-05", BTC)) == BOOKS[33]
    with pytest.raises(cb.StateError, match="at 2026-03-04:"):
        cb.book_at(rows, "2026-03-04", BTC)


@pytest.mark.parametrize("when", ["", "noon", "2026-03-04T25:00:00", "2026-02-30"])
def test_a_text_that_is_no_time(rows, when):
    said = f"when must be a time such as 2025-11-26T14:00:00Z, not {when!r}"
    with pytest.raises(cb.ConfigError, match=said):
        cb.book_at(rows, when, BTC)


@pytest.mark.parametrize("when", [None, 0, 1772600420.0, date(2026, 3, 4), [moment(20)]])
def test_what_is_no_time(rows, when):
    with pytest.raises(cb.ConfigError, match="when must be a datetime or a text, not "):
        cb.book_at(rows, when, BTC)


# --- what cannot be meant


@pytest.mark.parametrize("product_id", [None, 5, [BTC], b"BTC-USD"])
def test_a_product_that_is_none(rows, dataset, product_id):
    for source in (rows, dataset):
        with pytest.raises(cb.ConfigError, match="product_id must be one product's name"):
            cb.book_at(source, moment(20), product_id)


@pytest.mark.parametrize("source", [None, 5, [], {"product_id": [BTC]}])
def test_what_is_no_frame(source):
    with pytest.raises(cb.ConfigError, match="level2 must be a Polars frame"):
        cb.book_at(source, moment(20), BTC)


def test_another_table(paths, rows):
    with pytest.raises(cb.ConfigError, match="level2 lacks the column side: it has product_id, trade_id"):
        cb.book_at(cb.scan_raw(paths, "market_trades"), moment(20), BTC)
    with pytest.raises(cb.ConfigError, match="price of level2 must be Float64, not String: cast it"):
        cb.book_at(rows.with_columns(pl.col("price").cast(pl.String)), moment(20), BTC)


def test_a_folder_without_a_dataset(tmp_path, paths):
    for folder in (tmp_path / "nowhere", tmp_path, paths[0].parent, str(paths[0])):
        with pytest.raises(cb.DatasetError, match=r"no dataset in .*cb\.book_at\(cb\.scan_raw\("):
            cb.book_at(folder, moment(20), BTC)


# --- from a state that is kept beside the dataset


def test_the_messages_before_a_state_are_not_read(own_dataset):
    """They are gone, and the book is the same."""
    drop_parts(own_dataset, 1)
    book = cb.book_at(own_dataset, moment(20), BTC)
    assert levels(book) == BOOKS[20]
    assert (book.book_state, book.proven_since, book.sequence_num) == ("ok", moment(10), 5)
    assert levels(cb.book_at(own_dataset, moment(32), ETH)) == (
        [*SNAPSHOT[0], (96, 0.5), (3, 1)],
        SNAPSHOT[1],
    )
    with pytest.raises(cb.StateError):  # it was before the state
        cb.book_at(own_dataset, moment(13), BTC)


def test_without_the_state_they_are_missed(own_dataset):
    drop_parts(own_dataset, 1)
    for state in (own_dataset / "_state").iterdir():
        state.unlink()
    with pytest.raises(cb.StateError, match="no snapshot of it was received by then"):
        cb.book_at(own_dataset, moment(20), BTC)
    assert levels(cb.book_at(own_dataset, moment(24), BTC)) == BOOKS[24]


def test_the_latest_state_is_taken(own_dataset):
    drop_parts(own_dataset, 1)
    drop_parts(own_dataset, 2)
    for second in (30, 33):
        book = cb.book_at(own_dataset, moment(second), BTC)
        assert (levels(book), book.book_state, book.proven_since) == (BOOKS[second], "ok", moment(24))


def test_a_snapshot_behind_the_state_is_nearer(own_dataset):
    """From it on, neither the state nor anything before is needed."""
    for part in [
        *(own_dataset / "level2").rglob("part_*_00001.parquet"),
        *(own_dataset / "_state").iterdir(),
    ]:
        part.unlink()
    for second in (24, 26, 30, 33):
        assert levels(cb.book_at(own_dataset, moment(second), BTC)) == BOOKS[second]


@pytest.mark.ci
def test_states_make_no_difference(dataset, own_dataset):
    for state in (own_dataset / "_state").iterdir():
        state.unlink()
    for second in (*BOOKS, 13, 22, 40):
        for product_id in (BTC, ETH) if second >= 13 else (BTC,):
            one, other = (cb.book_at(root, moment(second), product_id) for root in (dataset, own_dataset))
            assert same(one, other)


def test_a_state_behind_which_a_segment_is_missing_proves_nothing(paths, tmp_path):
    """The third segment goes on from the first one's state, which is not the one before it."""
    for path in (paths[0], paths[2]):
        cb.run_segment(path, tmp_path)
    for is_there in (True, False):
        if not is_there:
            drop_parts(tmp_path, 1)
        book = cb.book_at(tmp_path, moment(30), BTC)
        assert (book.book_state, book.proven_since) == ("unproven", None)
        assert book.bids.row(2) == (98, 2)


def test_states_that_cannot_be_read_are_passed_over(own_dataset):
    (own_dataset / "_state" / "junk.parquet").write_bytes(b"junk" * 100)
    for second, book in BOOKS.items():
        assert levels(cb.book_at(own_dataset, moment(second), BTC)) == book


def test_a_state_without_a_book_of_the_product_is_passed_over(own_dataset, paths):
    """It was kept by a run that rebuilt no book; the rows have it all the same."""
    config = {"level2": {"processor_options": {"reconstruct_lob": False}}}
    for path in paths:
        cb.run_segment(path, own_dataset, channel_config=config)
    for second, book in BOOKS.items():
        assert levels(cb.book_at(own_dataset, moment(second), BTC)) == book


@tiers.parametrize("lost", [[], [b"not JSON"]], every=2)
def test_of_frames_without_numbers(tmp_path, lost):
    """Only the time tells which rows a state is of; in one run, or in two."""
    lines = [timeline.received(wire.exchange_snapshot(), 1), *lost]
    lines += [timeline.received(wire.exchange_update(["buy", str(90 - n), "1"]), n) for n in range(2, 10)]
    for number, part in enumerate((lines[:3], lines[3:6], lines[6:]), start=1):
        cb.run_segment(timeline.write(tmp_path, number, *part), tmp_path / "out")
    for second in range(1, 10):
        bids = [(99.5, 1), *((90 - n, 1) for n in range(2, second + 1))]
        book = cb.book_at(tmp_path / "out", moment(second), BTC)
        assert (book.bids.rows(), book.proven_since) == (bids, None if lost and second > 1 else moment(1))


def test_over_midnight(tmp_path):
    """The day of a part is that of its rows' server_time; the receipt may be of the next."""
    begin = datetime(2026, 3, 4, 23, 59, 58, tzinfo=UTC)
    second = (begin - timeline.BEGIN).total_seconds()
    lines = [timeline.received(wire.snapshot(0), second), *timeline.changes(1, 4, second + 1.001)]
    path = timeline.write(tmp_path, 1, *lines)
    cb.run_segment(path, tmp_path / "out")
    assert len(list((tmp_path / "out" / "level2").rglob("date=*"))) == 2
    for n in range(5):
        for ms in (1, 4, 7, 900):
            when = begin + timedelta(seconds=n, milliseconds=ms)
            assert cb.book_at(tmp_path / "out", when, BTC).sequence_num == n


@tiers.parametrize("by", [[], ["hour", "product_id"]], every=2)
def test_however_the_dataset_is_partitioned(paths, tmp_path, by):
    for path in paths:
        cb.run_segment(path, tmp_path, channel_config={"level2": {"partition_cols": by}})
    for second, book in BOOKS.items():
        assert levels(cb.book_at(tmp_path, moment(second), BTC)) == book


# --- shown


def test_it_is_printed(rows):
    book = cb.book_at(rows, moment(14), BTC)
    assert book.items() == [
        ("product", BTC),
        ("received", "2026-03-04 05:00:14.000000 UTC"),
        ("sent", "2026-03-04 05:00:13.995000 UTC"),
        ("frame", "connection 1, sequence_num 4, line 5"),
        ("state", "ok"),
        ("bids", "3 levels, best 5 at 99.75"),
        ("asks", "3 levels, best 1 at 100.25"),
    ]
    text = str(book).splitlines()
    assert [line.split(maxsplit=1) for line in text] == [list(item) for item in book.items()]
    assert all(shown in book._repr_html_() for item in book.items() for shown in item)
    assert "bids" not in repr(book)


def test_what_is_not_known_is_said(tmp_path):
    line = wire.line(wire.exchange_snapshot(bids=[], asks=[["1e-8", "123456.5"]]))
    items = dict(at_once(tmp_path, line).items())
    assert (items["received"], items["sent"]) == ("not known", "not known")
    assert (items["bids"], items["asks"]) == ("0 levels", "1 levels, best 123,456.5 at 1e-08")
    assert items["state"] == "one_sided"


def test_its_plot_is_plot_depth(rows):
    book = cb.book_at(rows, moment(14), BTC)
    _, (left, right) = plt.subplots(1, 2)
    assert book.plot(within_bps=80, ax=left) is left
    assert cb.plot.depth(book.bids, book.asks, BTC, within_bps=80, ax=right) is right
    for one, other in zip(left.lines, right.lines, strict=True):
        assert one.get_xydata().tolist() == other.get_xydata().tolist()
    assert left.get_title(loc="left") == right.get_title(loc="left")


def test_its_plot_by_default(rows):
    ax = cb.book_at(rows, moment(14), ETH).plot()
    assert isinstance(ax, plt.Axes)
    assert ax.get_ylabel() == "cumulative size (ETH)"
    assert "within 50 bps" in ax.get_title(loc="left")


@pytest.mark.parametrize("side", ["bid", "offer"])
def test_a_book_with_an_empty_side_has_no_plot(tmp_path, side):
    book = at_once(tmp_path, level2(0, 1, event((side, 1, 1), kind="snapshot")))
    with pytest.raises(cb.ConfigError, match="the book of 'BTC-USD' has an empty side"):
        book.plot()
    assert plt.get_fignums() == []
