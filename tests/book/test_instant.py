"""book_at: the whole book as it was known at an instant, from frames and from what run_segment wrote."""

from __future__ import annotations

import time as clock
from datetime import UTC, date, datetime, time, timedelta, timezone
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
        found = cb.book_at(source, moment(min(second + 0.7, 33)), BTC)
        assert (levels(found), found.age.total_seconds()) == (book, 0.7 if second < 33 else 0)


def test_a_message_counts_from_the_instant_of_its_receipt_on(source):
    instant = timedelta(microseconds=1)
    assert levels(cb.book_at(source, moment(20), BTC)) == BOOKS[20]
    assert levels(cb.book_at(source, moment(20) - instant, BTC)) == BOOKS[14]
    assert levels(cb.book_at(source, moment(24) - instant, BTC)) == BOOKS[20]


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


# --- the age of the book, and the end of the recording


def test_its_age_is_that_of_its_last_message(source):
    """Of its own last one: other products' messages do not make it younger."""
    for product_id, second, age in ((BTC, 14, 0), (BTC, 17.5, 3.5), (ETH, 31.25, 17.25), (ETH, 33, 1)):
        book = cb.book_at(source, moment(second), product_id)
        assert (book.age, book.when) == (timedelta(seconds=age), moment(second))


@pytest.mark.parametrize("oldest", ["3s", "2999ms", timedelta(seconds=3)])
def test_a_book_that_is_too_old(source, oldest):
    assert levels(cb.book_at(source, moment(16.999), BTC, max_age="3s")) == BOOKS[14]
    said = rf"the book of 'BTC-USD' at .* is 3\.5 s old, more than max_age={oldest}: no message of it"
    with pytest.raises(cb.StateError, match=said):
        cb.book_at(source, moment(17.5), BTC, max_age=oldest)


@pytest.mark.parametrize("oldest", ["5", "", "0s", "-5s", 5, timedelta(), timedelta(seconds=-1), True])
def test_an_age_that_is_none(rows, oldest):
    with pytest.raises(cb.ConfigError, match="span"):
        cb.book_at(rows, moment(20), BTC, max_age=oldest)


def test_after_the_end_of_the_recording_there_is_none(source):
    """It ends for all products alike: with the last row of any."""
    assert levels(cb.book_at(source, moment(33), ETH))[0][2] == (96, 0.5)
    for product_id in (BTC, ETH):
        for later in (timedelta(microseconds=1), timedelta(days=40)):
            with pytest.raises(cb.StateError, match=r"after the end of the recording, .* 05:00:33\.0"):
                cb.book_at(source, moment(33) + later, product_id)


def test_rows_of_one_product_do_not_tell_the_end(rows, dataset):
    """For a minute they are trusted to be whole."""
    for given in (rows, rows.lazy(), cb.scan_dataset(dataset, "level2")):
        of_one = given.filter(pl.col("product_id") == ETH)
        book = cb.book_at(of_one, moment(92), ETH)
        assert (book.sequence_num, book.age) == (10, timedelta(minutes=1))
        said = "1 min after the last row, .*all rows are of 'ETH-USD': .*, or the root of the dataset"
        with pytest.raises(cb.StateError, match=said):
            cb.book_at(of_one, moment(92.001), ETH)


def test_frames_without_level2_rows_are_of_the_recording_too(paths, tmp_path):
    """A heartbeat, of which only the state tells; or the manifest, as a job writes it; or a trade."""
    beat = timeline.received(wire.heartbeat(12, "now", 1), 40)
    trade = timeline.received(wire.trades(13, wire.trade("1")), 50)
    for path in (*paths, timeline.write(tmp_path / "raw", 4, beat)):
        cb.run_segment(path, tmp_path)
    assert cb.book_at(tmp_path, moment(40), BTC).age == timedelta(seconds=7)
    with pytest.raises(cb.StateError, match=r"05:00:40\.0"):
        cb.book_at(tmp_path, moment(40.001), BTC)
    for state in (tmp_path / "_state").iterdir():
        state.unlink()
    with pytest.raises(cb.StateError, match=r"05:00:33\.0"):
        cb.book_at(tmp_path, moment(40), BTC)
    runs = tmp_path / "_runs"
    runs.mkdir()
    (runs / "segment.json").write_text(
        '{"time_span": ["2026-03-04T05:00:00+00:00", "2026-03-04T05:00:39+00:00"]}'
    )
    (runs / "none.json").write_text('{"time_span": []}')
    (runs / "junk.json").write_text("{")
    assert cb.book_at(tmp_path, moment(39), BTC).age == timedelta(seconds=6)
    with pytest.raises(cb.StateError, match=r"05:00:39\.0"):
        cb.book_at(tmp_path, moment(39.5), BTC)
    cb.run_segment(timeline.write(tmp_path / "raw", 5, trade), tmp_path, state=cb.BookState())
    for state in (tmp_path / "_state").iterdir():
        state.unlink()
    assert cb.book_at(tmp_path, moment(50), BTC).age == timedelta(seconds=17)
    with pytest.raises(cb.StateError, match=r"05:00:50\.0"):
        cb.book_at(tmp_path, moment(50.001), BTC)


def test_a_state_after_which_no_message_came_is_the_book(own_dataset):
    """Its levels are taken, and its message's row is found; where that is gone, it is as old as the state."""
    before = [cb.book_at(own_dataset, moment(second), product) for second, product in ((21, BTC), (28, ETH))]
    assert [book.age.total_seconds() for book in before] == [1, 14]
    drop_parts(own_dataset, 1)
    after = cb.book_at(own_dataset, moment(28), ETH)
    assert (levels(after), after.book_state) == (levels(before[1]), "ok")
    assert (after.sequence_num, after.line, after.capture_time) == (4, None, None)
    assert after.age == timedelta(seconds=2)  # the second segment's state is of 26
    assert dict(after.items())["frame"] == "connection 1, sequence_num 4, line not known"
    drop_parts(own_dataset, 3)
    (own_dataset / "_state" / "segment_20260304T05_00003.parquet").unlink()
    assert cb.book_at(own_dataset, moment(26), BTC).line == 4


# --- what the book may be


def at_once(tmp_path: Path, *lines: bytes, second: float = 59) -> cb.Book:
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


@pytest.mark.skipif(not hasattr(clock, "tzset"), reason="the zone of a process cannot be changed here")
def test_wherever_the_computer_stands(rows, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/St_Johns")
        clock.tzset()
        try:
            assert datetime.now().astimezone().utcoffset() != timedelta()
            for when in ("2026-03-04T05:00:20", moment(20).replace(tzinfo=None)):
                assert levels(cb.book_at(rows, when, BTC)) == BOOKS[20]
        finally:
            patch.undo()
            clock.tzset()


def test_a_text_may_be_a_day(rows):
    shifted = rows.with_columns(
        pl.col("server_time", "capture_time") - pl.duration(seconds=18_020, time_unit="ns")
    )
    for when in ("2026-03-04", date(2026, 3, 4)):
        assert levels(cb.book_at(shifted, when, BTC)) == BOOKS[20]
        with pytest.raises(cb.StateError, match="at 2026-03-04:"):
            cb.book_at(rows, when, BTC)


@pytest.mark.parametrize("when", ["", "noon", "2026-03-04T25:00:00", "2026-02-30"])
def test_a_text_that_is_no_time(rows, when):
    said = f"when must be a time such as 2025-11-26T14:00:00Z, not {when!r}"
    with pytest.raises(cb.ConfigError, match=said):
        cb.book_at(rows, when, BTC)


@pytest.mark.parametrize("when", [None, 0, 1772600420.0, time(5), [moment(20)]])
def test_what_is_no_time(rows, when):
    with pytest.raises(cb.ConfigError, match="when must be a datetime, a date or a text, not "):
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
    for second in (*BOOKS, 13, 22):
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
    path = timeline.write(tmp_path, 1, *lines, timeline.received(wire.heartbeat(5, "now", 1), second + 9))
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
    book = cb.book_at(rows, moment(14.25), BTC)
    assert book.items() == [
        ("product", BTC),
        ("at", "2026-03-04 05:00:14.250000 UTC"),
        ("age", "250 ms"),
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
    assert "age=datetime.timedelta(microseconds=250000)" in repr(book)


def test_what_is_not_known_is_said(tmp_path):
    lines = [
        wire.line(wire.exchange_update(["sell", "2", "1"], time=timeline.text(moment(1)))),
        wire.line(wire.exchange_snapshot(bids=[], asks=[["1e-8", "123456.5"]])),
    ]
    items = dict(at_once(tmp_path, *lines, second=3).items())
    assert items["age"] == "2 s"  # of the last message with a time
    assert (items["received"], items["sent"]) == ("not known", "not known")
    assert (items["bids"], items["asks"]) == ("0 levels", "1 levels, best 123,456.5 at 1e-08")
    assert items["state"] == "one_sided"
    with pytest.raises(cb.StateError, match="neither a capture_time nor a server_time"):
        at_once(tmp_path, lines[1])


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


def test_a_picture_of_a_book_that_is_not_ok_says_so_and_its_title_stays_above_the_legend():
    level2 = cb.scan_raw(cb.sample_path(), "level2")
    places = {}
    for at, state in (("14:00:25.72", ""), ("14:00:25.74", " (unproven)")):
        ax = cb.book_at(level2, f"2025-11-26T{at}Z", "BTC-USD").plot()
        (title,) = (text for text in ax.findobj(type(ax.title)) if text.get_text().startswith("BTC-USD"))
        assert title.get_text().endswith(f"?{state}")
        ax.figure.canvas.draw()
        places[state] = title.get_window_extent().y0
    assert places[""] == places[" (unproven)"]
