"""run_segment rebuilds the book: segment by segment the same as over all of them as one stream."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tiers
import timeline
import wire

import cbtools as cb
from cbtools.book.rebuilder import BookOptions
from cbtools.run.features import book_table, of_book
from cbtools.schema import schema

BY = ["product_id", "capture_time", "sequence_num", "line"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"depth": 3, "on": "bbo"},
    {"depth": 2, "on": "depth", "bands_bps": [50]},
    {"gaps": "drop", "bands_bps": [25.5, 5, 400]},
    {"gaps": "ignore", "on": "bbo", "depth": 1},
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> tuple[Path, ...]:
    """Simulate segments: a gap in the second, a reconnect in the third, and two more that go on from it."""
    made = cb.simulate_segments(
        tmp_path_factory.mktemp("recording"),
        products=["BTC-USD", "ETH-USD"],
        minutes=0.25,
        levels=40,
        seed=13,
        gaps=1,
        reconnects=1,
        bad_lines=1,
        duplicates=2,
        segment_mb=0.4,
    )
    assert len(made.paths) == 5
    tables = cb.read_raw(list(made.paths), segment=True)
    assert tables.gaps["segment"].to_list() == [made.paths[1].stem]
    snapshots = tables.level2.filter("is_snapshot")["segment"].unique(maintain_order=True)
    assert snapshots.to_list() == [made.paths[0].stem, made.paths[2].stem]
    return made.paths


@pytest.fixture(scope="module")
def level2(recording) -> pl.DataFrame:
    """Read all segments as one stream."""
    return cb.scan_raw(list(recording), "level2").collect()


@pytest.fixture(scope="module")
def book(level2) -> pl.DataFrame:
    """Rebuild the book over all segments as one stream."""
    book = rebuilt(level2)
    assert set(book["book_state"]) == {"ok", "unproven"}  # both are tried
    return book


def rebuilt(level2: Any, **options: Any) -> pl.DataFrame:
    """Rebuild the book over all rows as one stream, with the features that a run adds."""
    drops = options.get("gaps") == "drop"
    plain = cb.rebuild_book(level2, **(options | ({"gaps": "mark"} if drops else {})))
    names = [one.name for one in of_book(BookOptions(**options))]
    book = cb.add_book_features(plain, names)
    is_ok = pl.col("book_state") == "ok"
    begins = (pl.col("book_state") == "unproven").cast(pl.Int8).diff().over("product_id") == 1
    ends = is_ok.shift(1).over("product_id") | begins
    return (book.filter(is_ok | ends) if drops else book).collect()


def config(by: tuple[str, ...] = ("product_id",), **options: Any) -> dict[str, Any]:
    return {"level2": {"partition_cols": by, "processor_options": options}}


def run(segments, out: Path, channel_config=None, **more: Any) -> list[cb.SegmentReport]:
    channel_config = config() if channel_config is None else channel_config
    return [cb.run_segment(path, out, channel_config=channel_config, **more) for path in segments]


@pytest.fixture(scope="module")
def reports(recording, tmp_path_factory) -> list[cb.SegmentReport]:
    """Run all segments in order, once for all tests that only look at it."""
    return run(recording, tmp_path_factory.mktemp("processed"))


@pytest.fixture(scope="module")
def done(reports) -> Path:
    """Give what was written then."""
    return reports[0].written["level2"].parts[0].path.parents[2]


@pytest.fixture
def mine(done, tmp_path) -> Path:
    """Give a copy of it, to go on with."""
    return Path(shutil.copytree(done, tmp_path / "processed"))


def written(out: Path, table: str = "book") -> pl.DataFrame:
    """Give a table's rows in the order of their receipt."""
    scan = cb.scan_dataset(out, table)
    columns = [name for name in scan.collect_schema() if name not in ("date", "hour")]
    return scan.select(columns).collect().sort(BY, maintain_order=True)


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(BY, maintain_order=True)


def kept(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "_state").iterdir())


def everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- the same as one stream


@pytest.mark.slow
@tiers.parametrize("options", OPTIONS, every=5, ids=str)
def test_segment_by_segment_it_is_the_book_of_one_stream(recording, level2, tmp_path, options):
    """And so is the one rebuilt from the level2 that was written."""
    reports = run(recording, tmp_path, config(("product_id", "date"), **options))
    assert written(tmp_path).equals(in_order(rebuilt(level2, **options)))
    expected = cb.rebuild_book(level2, **options).collect()
    again = cb.scan_dataset(tmp_path, "level2").pipe(cb.rebuild_book, **options)
    assert in_order(again.collect()).equals(in_order(expected))
    one = again.filter(pl.col("product_id") == "ETH-USD").collect()
    assert in_order(one).equals(in_order(expected).filter(product_id="ETH-USD"))
    assert sum(report.rows["book"] for report in reports) == expected.height
    assert [report.started_from for report in reports] == ["nothing", *(p.stem for p in recording[:-1])]


@tiers.parametrize(
    "by", [(), ("date", "hour"), ("is_snapshot", "side"), ("connection", "product_id")], every=2
)
def test_however_it_is_partitioned(recording, tmp_path, by):
    run(recording[:2], tmp_path, config(by))
    expected = rebuilt(cb.scan_raw(list(recording[:2]), "level2"))
    assert written(tmp_path).select(expected.columns).equals(in_order(expected))


def test_level2_goes_on_from_segment_to_segment(level2, done):
    assert written(done, "level2").equals(in_order(level2))
    assert level2["connection"].n_unique() == 2


def test_each_segment_alone_with_its_state_given(recording, book, tmp_path):
    state, parts, started = cb.BookState(), [], set()
    for path in recording:
        (report,) = run([path], tmp_path / path.stem, state=state)
        started.add(report.started_from)
        if report.rows["book"]:
            parts.append(written(tmp_path / path.stem))
        state = cb.BookState.read(path, start=state)
        assert cb.BookState.load(tmp_path / path.stem / "_state" / f"{path.stem}.parquet") == state
    assert in_order(pl.concat(parts)).equals(in_order(book))
    assert started == {"the state given"}


@pytest.mark.ci
def test_the_state_given_goes_before_those_that_are_kept(recording, mine):
    for path in recording:
        run([path], mine, state=cb.BookState())
    alone = [rebuilt(cb.scan_raw(path, "level2")) for path in recording]
    assert written(mine).equals(in_order(pl.concat(alone)))
    assert written(mine).height > 0


def test_the_state_kept_is_that_of_the_segments_so_far(recording, done):
    for n, path in enumerate(recording, start=1):
        state = cb.BookState.load(done / "_state" / f"{path.stem}.parquet")
        assert state == cb.BookState.read(list(recording[:n]))
    assert kept(done) == [f"{path.stem}.parquet" for path in recording]


# --- what is written


@pytest.mark.parametrize("features", [True, False])
def test_the_columns_are_those_of_the_schema(recording, tmp_path, features):
    options = {"depth": 4, "bands_bps": (5, 12.5), "compute_features": features}
    (report,) = run(recording[:1], tmp_path, config(("product_id", "date"), **options))
    shown = BookOptions(depth=4, bands_bps=(5, 12.5) if features else ())
    columns = book_table(shown, features=features)
    expected = {column.name: column.dtype for column in columns if column.name != "product_id"}
    for part in report.written["book"].parts:
        assert pl.read_parquet_schema(part.path) == expected
        assert list(part.values) == ["product_id", "date"]
    scan = cb.scan_dataset(tmp_path, "book").collect_schema()
    assert list(scan) == [*(column.name for column in columns), "date"]
    assert any("bps" in name for name in scan) is features
    assert ("ofi_4" in scan, "ofi_5" in scan, "bid_depth_4" in scan) == (features, False, features)


@tiers.parametrize("other", [{"depth": 2}, {"depth": 4}, {"depth": 3, "bands_bps": [5]}], every=3)
def test_books_of_other_columns_are_not_mixed(recording, tmp_path, other):
    run(recording[:1], tmp_path, config(depth=3))
    before = everything(tmp_path)
    with pytest.raises(cb.DatasetError, match="holds book with other columns: "):
        run(recording[1:2], tmp_path, config(**other))
    assert everything(tmp_path) == before
    run(recording[:1], tmp_path, config(**other))  # all that there is may be written anew
    run(recording[1:2], tmp_path, config(**other))
    expected = rebuilt(cb.scan_raw(list(recording[:2]), "level2"), **other)
    assert written(tmp_path).equals(in_order(expected))


def test_by_default_the_book_lies_beside_the_other_tables(recording, tmp_path):
    report = cb.run_segment(recording[0], tmp_path)
    assert list(report.written) == ["level2", "market_trades", "ticker", "book"]
    assert [list(part.values) for part in report.written["book"].parts] == [["product_id", "date"]] * 2
    expected = rebuilt(cb.scan_raw(recording[0], "level2"))
    assert written(tmp_path).equals(in_order(expected))
    usual = [column.name for column in book_table(BookOptions(), features=True)]
    assert list(written(tmp_path).columns) == usual
    assert usual[: len(schema("book"))] == schema("book").names()


def test_without_reconstruct_lob_the_stream_goes_on_all_the_same(recording, level2, tmp_path):
    reports = run(recording, tmp_path, config(reconstruct_lob=False))
    assert [list(report.written) for report in reports] == [["level2"]] * len(recording)
    assert [report.book for report in reports] == [None] * len(recording)
    assert [report.started_from for report in reports] == ["nothing", *(p.stem for p in recording[:-1])]
    assert not (tmp_path / "book").exists()
    assert written(tmp_path, "level2").equals(in_order(level2))
    for n, path in enumerate(recording, start=1):
        state = cb.BookState.load(tmp_path / "_state" / f"{path.stem}.parquet")
        assert state.stream == cb.BookState.read(list(recording[:n])).stream
        assert state.products.is_empty()
        assert state.levels.is_empty()


@pytest.mark.ci
def test_a_book_that_begins_behind_such_a_segment_is_that_of_the_next_snapshot(recording, book, tmp_path):
    run(recording[:1], tmp_path, config(reconstruct_lob=False))
    run(recording[1:], tmp_path)
    found = written(tmp_path)
    reconnected = book.filter(pl.col("connection") == 2)
    snapshots = cb.scan_raw(list(recording), "level2").filter("is_snapshot", connection=2).collect()
    first = snapshots.group_by("product_id").agg(pl.col("sequence_num").min().alias("first"))
    expected = reconnected.join(first, on="product_id").filter(pl.col("sequence_num") >= pl.col("first"))
    assert found.equals(in_order(expected.drop("first")))


def test_tables_without_level2_keep_the_stream_too(recording, tmp_path):
    reports = run(recording[:2], tmp_path, {"ticker": {}})
    assert [report.started_from for report in reports] == ["nothing", recording[0].stem]
    assert written(tmp_path, "ticker").equals(in_order(cb.scan_raw(list(recording[:2]), "ticker").collect()))


def test_the_report_counts_the_messages_of_this_segment_alone(book, reports, recording):
    key = ["product_id", "connection", "sequence_num"]
    changes = cb.scan_raw(recording, "level2").filter(pl.col("side").is_not_null()).collect()
    messages = changes.select(key).unique()
    for state in ("ok", "unproven"):
        found = [sum(c.states.get(state, 0) for c in r.book.products.values()) for r in reports]
        assert (
            sum(found) == book.filter(pl.col("book_state") == state).join(messages, on=key, how="semi").height
        )
    for report in reports:
        states = sum(sum(c.states.values()) for c in report.book.products.values())
        assert states <= report.rows["book"] <= states + sum(report.raw.markers.values())
        assert "book states" in str(report)
        assert f"{report.rows['book']:,} rows" in dict(report.items())["book written"]


# --- a segment alone


def test_in_mid_connection_there_are_no_rows_before_its_first_snapshot(recording, tmp_path):
    tried = 0
    for path in recording[1:]:
        level2 = cb.scan_raw(path, "level2").collect()
        counts_of_changes = dict(level2.group_by("product_id").agg(pl.count("side")).iter_rows())
        first = level2.filter("is_snapshot").group_by("product_id").agg(pl.col("line").min().alias("first"))
        (report,) = run([path], tmp_path / path.stem)
        if first.is_empty():
            assert report.rows["book"] == 0
            assert not (tmp_path / path.stem / "book").exists()
            assert report.book.products.keys() == set(level2["product_id"])
            for product, counts in report.book.products.items():
                assert counts.early_changes == counts.changes == counts_of_changes[product]
            tried += 1
        else:
            found = written(tmp_path / path.stem).join(first, on="product_id", how="left")
            assert (found["line"] >= found["first"]).all()
            assert set(found["product_id"]) == set(first["product_id"])
            tried += int((first["first"] > level2["line"].min()).any())
    assert tried >= 2


# --- other orders, and again


@pytest.mark.ci
@tiers.parametrize("order", [(1, 0, 2, 4, 3), (3, 2, 4, 0, 1)], every=2)
def test_out_of_order_it_is_unproven_or_true_and_mended_in_order(recording, book, tmp_path, order):
    run([recording[k] for k in order], tmp_path)
    found = written(tmp_path)
    proven = found.filter(pl.col("book_state") != "unproven").drop("connection")
    columns = proven.columns
    assert proven.join(book, on=columns, how="anti", nulls_equal=True).is_empty()
    assert proven.height < book.filter(pl.col("book_state") != "unproven").height
    run(recording, tmp_path)
    assert written(tmp_path).equals(in_order(book))


@pytest.mark.ci
def test_all_run_twice(recording, book, mine):
    before = everything(mine)
    run(recording, mine)
    assert everything(mine) == before
    assert written(mine).equals(in_order(book))


@pytest.mark.parametrize("which", [0, 1, -1])
def test_one_run_again(recording, mine, which):
    before = everything(mine)
    run([recording[which]], mine)
    assert everything(mine) == before


@pytest.mark.ci
def test_behind_a_segment_that_is_missing_nothing_is_proven(recording, book, tmp_path):
    """Put in afterwards, and run in order from there, all is proven again."""
    *before, left_out, last = recording
    run([*before, last], tmp_path)
    behind = pl.col("capture_time") > cb.scan_raw(left_out, "level2").collect()["capture_time"].max()
    truth, found = in_order(book).filter(behind), written(tmp_path).filter(behind)
    shown = found.join(truth, on=BY, how="anti")  # the gap, before any message, to a product at least
    assert 0 < shown.height <= found["product_id"].n_unique()
    assert found.join(shown, on=BY, how="anti").select(BY).equals(truth.select(BY))
    assert (set(found["book_state"]), set(truth["book_state"])) == ({"unproven"}, {"ok"})
    run([left_out, last], tmp_path)
    assert written(tmp_path).equals(in_order(book))


def test_a_later_connection_that_ended_at_the_same_number_is_not_gone_on_from(tmp_path):
    """A segment run again starts from the state before it, though a later one has the number, too."""
    first = timeline.write(tmp_path, 1, timeline.received(wire.snapshot(0), 0), *timeline.changes(1, 3))
    second = timeline.write(tmp_path, 2, *timeline.changes(4, 5))
    third = timeline.write(
        tmp_path, 3, timeline.received(wire.snapshot(0), 10), *timeline.changes(1, 3, second=11)
    )
    segments, out = [first, second, third], tmp_path / "out"
    run(segments, out)
    before = everything(out)
    (report,) = run([second], out)
    assert report.started_from == first.stem
    assert everything(out) == before
    assert written(out).equals(in_order(rebuilt(cb.scan_raw(segments, "level2"))))


# --- which states are kept


@tiers.parametrize("keep", [1, 2], every=2)
def test_only_the_newest_states_are_kept(recording, tmp_path, keep):
    for n, path in enumerate(recording[:4], start=1):
        run([path], tmp_path, keep_states=keep)
        for k, name in enumerate(kept(tmp_path)):  # written one after the other, whatever the clock's grain
            os.utime(tmp_path / "_state" / name, (n, n - len(kept(tmp_path)) + k))
        assert kept(tmp_path) == [f"{path.stem}.parquet" for path in recording[max(0, n - keep) : n]]
    expected = rebuilt(cb.scan_raw(list(recording[:4]), "level2"))
    assert written(tmp_path).equals(in_order(expected))


@pytest.mark.parametrize("keep", [0, -3, True, 2.0, "4"])
def test_a_number_of_states_that_is_none(recording, tmp_path, keep):
    with pytest.raises(cb.ConfigError, match="keep_states must be a whole number from 1 on"):
        run(recording[:1], tmp_path, keep_states=keep)
    assert everything(tmp_path) == {}


@pytest.fixture(scope="module")
def other_state(tmp_path_factory) -> cb.BookState:
    """Give the state after another recording of the same products, an hour before."""
    made = cb.simulate_segments(
        tmp_path_factory.mktemp("other"),
        products=["BTC-USD", "ETH-USD"],
        minutes=0.05,
        levels=40,
        seed=99,
        start=datetime(2025, 11, 26, 13, tzinfo=UTC),
    )
    state = cb.BookState.read(made.paths)
    assert state.products["proven"].to_list() == [True, True]
    return state


@pytest.mark.parametrize("is_given", [True, False])
def test_the_state_of_another_recording_proves_nothing(recording, other_state, tmp_path, is_given):
    if not is_given:
        other_state.save(tmp_path / "_state" / "other.parquet")
    (report,) = run(recording[3:4], tmp_path, state=other_state if is_given else None)
    assert report.started_from == ("the state given" if is_given else "other")
    messages = cb.scan_raw(recording[3], "level2").select("product_id", "line").unique().collect()
    found = written(tmp_path)
    markers = other_state.products.filter("has_book").height
    assert found.height == messages.height + markers
    assert set(found["book_state"]) == {"unproven"}
    assert set(found["proven_since"]) == {None}
    assert report.book.products["BTC-USD"].breaks == 1


def test_files_that_cannot_be_read_are_passed_over_and_told(recording, tmp_path):
    (tmp_path / "_state").mkdir()
    (tmp_path / "_state" / "junk.parquet").write_bytes(b"junk" * 100)
    (tmp_path / "_state" / "empty.parquet").touch()
    first, second = run(recording[:2], tmp_path)
    assert first.started_from == "nothing (2 states in _state cannot be read)"
    assert dict(first.items())["started from"] == first.started_from
    assert second.started_from == recording[0].stem


def test_a_state_that_was_cut_short_is_passed_over(recording, tmp_path):
    run(recording[:1], tmp_path)
    state = tmp_path / "_state" / f"{recording[0].stem}.parquet"
    state.write_bytes(state.read_bytes()[:-7])
    (report,) = run(recording[1:2], tmp_path)
    assert report.started_from == "nothing (1 state in _state cannot be read)"


# --- what cannot be meant


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reconstruct_bok": True}, "unknown processor option of 'level2' 'reconstruct_bok': did you mean"),
        ({"dept": 3}, r"'dept': did you mean 'depth'\?"),
        ({"depth": "3"}, "depth must be a number of levels"),
        ({"depth": 0}, "depth must be a number of levels"),
        ({"reconstruct_lob": "yes"}, "reconstruct_lob of 'level2' must be true or false"),
        ({"on": "bob"}, r"unknown value of on 'bob': did you mean 'bbo'\?"),
        ({"gaps": None}, "unknown value of gaps None"),
        ({"bands_bps": 5}, "bands_bps must be a list"),
        ({"bands_bps": [-1]}, "bands_bps must be a list"),
    ],
)
def test_options_that_cannot_be_meant(recording, tmp_path, options, said):
    with pytest.raises(cb.ConfigError, match=said):
        run(recording[:1], tmp_path, config(**options))
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("state", ["x", 5, {}, pl.DataFrame()])
def test_a_state_that_is_none(recording, tmp_path, state):
    with pytest.raises(cb.ConfigError, match="must be a BookState"):
        run(recording[:1], tmp_path, state=state)
    assert everything(tmp_path) == {}


# --- gaps="raise"


@pytest.mark.ci
def test_with_raise_nothing_is_left_of_a_segment_with_a_gap(recording, book, tmp_path):
    raising = config(gaps="raise")
    run(recording[:1], tmp_path, raising)
    before = everything(tmp_path)
    row = book.filter(pl.col("book_state") == "unproven").row(0, named=True)
    said = rf"the book of {row['product_id']} is unproven at line {row['line']} \(connection 1, "
    with pytest.raises(
        cb.StateError, match=said + rf"sequence_num {row['sequence_num']}\): frames are missing"
    ):
        run([recording[1]], tmp_path, raising)
    assert everything(tmp_path) == before
    run(recording, tmp_path)
    assert written(tmp_path).equals(in_order(book))


def test_with_raise_a_first_run_leaves_nothing_at_all(recording, tmp_path):
    with pytest.raises(cb.StateError):
        run(
            [recording[1]],
            tmp_path / "out",
            config(gaps="raise"),
            state=cb.BookState.read(recording[0]),
        )
    assert list(tmp_path.iterdir()) == []


def test_with_raise_an_earlier_run_stays(recording, mine):
    before = everything(mine)
    with pytest.raises(cb.StateError):
        run([recording[1]], mine, config(gaps="raise"), chunk_bytes=20_000)
    assert everything(mine) == before


# --- repeats where a segment begins


@pytest.mark.ci
def test_a_segment_that_begins_with_repeats_of_the_one_before(tmp_path):
    """Of its last frame or of an earlier one; and each run again starts from the same state again."""
    lines = [timeline.received(wire.snapshot(0), 0), *timeline.changes(1, 9)]
    cuts = [lines[:4], [lines[2], *lines[4:6]], [lines[5], *lines[6:8]], [lines[1], lines[7], *lines[8:]]]
    segments = [timeline.write(tmp_path, n, *cut) for n, cut in enumerate(cuts, start=1)]
    reports = run(segments, tmp_path / "out")
    before = ["nothing", *(path.stem for path in segments[:-1])]
    assert [report.started_from for report in reports] == before
    rows = written(tmp_path / "out")
    assert rows["sequence_num"].to_list() == list(range(10))
    assert set(rows["book_state"]) == {"ok"}
    one_stream = rebuilt(cb.scan_raw(segments, "level2"))
    assert rows.equals(in_order(one_stream))
    for which in (2, 0, 3, 1):
        (again,) = run([segments[which]], tmp_path / "out")
        assert again.started_from == before[which]
    assert written(tmp_path / "out").equals(rows)
