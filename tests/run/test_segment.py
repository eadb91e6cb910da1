"""run_segment: a segment's tables as partitioned Parquet, all or nothing, and the same again and again."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import tiers
import wire

import cbtools as cb
from cbtools.book.rebuilder import Rebuilder
from cbtools.dataset import DatasetWriter
from cbtools.dataset.draft import Draft
from cbtools.dataset.finished import Finished
from cbtools.run import segment as run_segment_module
from cbtools.schema import CHANNELS, schema

ORDER = ["server_time", "sequence_num", "line"]
RAW = ("level2", "market_trades", "ticker")
WRITTEN = (*RAW, "book")
BY_ORDER = ("connection", "unbroken_since")
"""The columns of level2 that depend on the segments before."""


@pytest.fixture(scope="module")
def segments(tmp_path_factory) -> tuple[Path, ...]:
    """Simulate segments with a reconnect, gaps, repeats and bad lines, over midnight."""
    made = cb.simulate_segments(
        tmp_path_factory.mktemp("recording"),
        products=["BTC-USD", "ETH-USD"],
        minutes=0.2,
        seed=11,
        start=datetime(2025, 11, 26, 23, 59, 55, tzinfo=UTC),
        levels=40,
        reconnects=1,
        gaps=2,
        bad_lines=4,
        duplicates=3,
        segment_mb=0.4,
    )
    assert len(made.paths) >= 2
    return made.paths


@pytest.fixture(scope="module")
def one_stream(segments) -> dict[str, dict[str, pl.DataFrame]]:
    """Read all segments as one stream: of each table the rows of each segment, and of the book."""
    tables = cb.read_raw(list(segments), segment=True)
    frames = {table: getattr(tables, table) for table in RAW}
    frames["book"] = cb.rebuild_book(tables.level2).collect()
    message = ["product_id", "connection", "sequence_num", "line"]
    frames["book"] = frames["book"].join(
        tables.level2.select(*message, "segment").unique(), on=message, validate="m:1", maintain_order="left"
    )
    return {
        table: {path.stem: frame.filter(segment=path.stem).drop("segment") for path in segments}
        for table, frame in frames.items()
    }


@pytest.fixture
def segment(segments) -> Path:
    return segments[0]


def tree(root: Path) -> dict[str, bytes]:
    """Every file there is, with its bytes, and every folder."""
    paths = sorted(root.rglob("*")) if root.exists() else []
    return {p.relative_to(root).as_posix(): p.read_bytes() if p.is_file() else b"" for p in paths}


def rows(root: Path, table: str) -> pl.DataFrame:
    return cb.scan_dataset(root, table).select(schema(table).names()).collect()


def count(root: Path, table: str) -> int:
    """Count a table's rows; a table without any has no folder."""
    if not (root / table).exists():
        return 0
    return cb.scan_dataset(root, table).select(pl.len()).collect().item()


def part_rows(root: Path, table: str, segment: Path) -> pl.DataFrame:
    """Give a segment's own rows, in the order of its lines."""
    scan = cb.scan_dataset(root, table, segment=True).filter(pl.col("segment") == segment.stem)
    return scan.select(schema(table).names()).collect().sort("product_id", "line", maintain_order=True)


def in_order(frame: pl.DataFrame, *by: str) -> pl.DataFrame:
    return frame.sort(*by, *ORDER, maintain_order=True)


# --- what is written


@pytest.mark.parametrize("table", CHANNELS)
def test_the_dataset_s_rows_are_the_raw_rows(segment, tmp_path, table):
    cb.run_segment(segment, tmp_path, channel_config={table: {"partition_cols": []}})
    expected = getattr(cb.read_raw(segment), table)
    if expected.is_empty():
        assert tree(tmp_path).keys() <= {
            "_quarantine", f"_quarantine/{segment.stem}.ndjson", "_state", f"_state/{segment.stem}.parquet",
        }  # fmt: skip
    else:
        assert rows(tmp_path, table).equals(in_order(expected))


@tiers.parametrize("table", WRITTEN, every=2)
def test_each_part_has_its_partition_s_rows_in_order(segments, one_stream, tmp_path, table):
    for path in segments:
        report = cb.run_segment(path, tmp_path)
        raw = one_stream[table][path.stem].with_columns(
            date=pl.col("server_time").dt.date(), hour=pl.col("server_time").dt.hour()
        )
        expected = {
            values: in_order(frame)
            for values, frame in raw.partition_by(
                [*report.written[table].parts[0].values], as_dict=True, include_key=True
            ).items()
        }
        parts = {tuple(part.values.values()): part for part in report.written[table].parts}
        assert parts.keys() == expected.keys()
        for values, part in parts.items():
            found = pl.read_parquet(part.path, hive_partitioning=False, glob=False)
            raw_columns = [name for name in found.columns if name in raw.columns]
            assert found.select(raw_columns).equals(expected[values].select(raw_columns))
            assert (part.rows, part.bytes) == (found.height, part.path.stat().st_size)


def test_a_part_s_name_gives_its_segment_and_its_folders_the_partition(segments, tmp_path):
    for path in segments:
        cb.run_segment(path, tmp_path)
    product = r"product_id=(BTC|ETH)-USD/date=2025-11-2[67]"
    name = "|".join(re.escape(path.stem) for path in segments)
    form = re.compile(
        rf"((level2|market_trades|book)/{product}|ticker/date=2025-11-2[67]/hour=(23|0))/part_({name})\.parquet"
        rf"|_quarantine/({name})\.ndjson|_state/({name})\.parquet"
    )
    files = [path for path in tree(tmp_path) if (tmp_path / path).is_file()]
    assert [path for path in files if not form.fullmatch(path)] == []
    assert {path.partition("/")[0] for path in files} == {*WRITTEN, "_quarantine", "_state"}
    assert {"ticker/date=2025-11-26/hour=23", "ticker/date=2025-11-27/hour=0"} <= tree(tmp_path).keys()


def test_partitions_are_days_of_the_rows_not_of_the_name(segment, tmp_path):
    other = tmp_path / "segment_20010101T00_00009.ndjson"
    other.write_bytes(segment.read_bytes())
    cb.run_segment(other, tmp_path / "out")
    dates = cb.scan_dataset(tmp_path / "out", "level2").select("date").unique().collect()
    assert dates["date"].dt.year().unique().to_list() == [2025]


@pytest.mark.parametrize(
    ("table", "by"),
    [
        ("market_trades", ["aggressor_side", "hour"]),
        ("level2", ["side"]),
        ("level2", ["is_snapshot", "connection", "product_id"]),
        ("ticker", ["product_id"]),
        ("heartbeats", ["date", "hour"]),
        ("subscriptions", ["channel"]),
    ],
)
def test_other_partitions(segment, tmp_path, table, by):
    report = cb.run_segment(segment, tmp_path, channel_config={table: {"partition_cols": by}})
    expected = getattr(cb.read_raw(segment), table)
    found = rows(tmp_path, table)
    assert list(report.written) == ([table, "book"] if table == "level2" else [table])
    for name, written in report.written.items():
        columns = [column for column in by if column in (*schema(name), "date", "hour")]
        for part in written.parts:
            assert [name.partition("=")[0] for name in part.path.relative_to(tmp_path).parts[1:-1]] == columns
    key = ["line", *(name for name in expected.columns if name not in (*ORDER, "product_ids"))]
    assert found.sort(key).equals(expected.sort(key))


def test_a_segment_without_data_writes_nothing(tmp_path):
    empty = tmp_path / "segment_20251126T14_00001.ndjson"
    empty.write_bytes(b"")
    report = cb.run_segment(empty, tmp_path / "out")
    assert report.rows == dict.fromkeys(WRITTEN, 0)
    assert report.raw.lines == 0
    assert report.book.products == {}
    assert list(tree(tmp_path / "out")) == ["_state", f"_state/{empty.stem}.parquet"]
    assert cb.BookState.load(tmp_path / "out" / "_state" / f"{empty.stem}.parquet") == cb.BookState()
    assert "none" in str(report)


# --- again, and beside others


@pytest.mark.slow
def test_running_again_changes_nothing(segments, tmp_path):
    for path in segments:
        cb.run_segment(path, tmp_path)
    before, level2 = tree(tmp_path), rows(tmp_path, "level2")
    for path in segments:
        again = cb.run_segment(path, tmp_path)
        assert [written.removed for written in again.written.values()] == [()] * 4
    assert tree(tmp_path) == before
    assert rows(tmp_path, "level2").equals(level2)


def test_running_a_segment_touches_no_other_s_files(segments, tmp_path):
    cb.run_segment(segments[0], tmp_path)
    before = {path: path.stat() for path in tmp_path.rglob("*") if path.is_file()}
    cb.run_segment(segments[1], tmp_path)
    after = {path: path.stat() for path in before}
    assert {path: (s.st_ino, s.st_mtime_ns) for path, s in after.items()} == {
        path: (s.st_ino, s.st_mtime_ns) for path, s in before.items()
    }


def test_what_a_segment_no_longer_holds_is_removed(segments, tmp_path):
    segment = tmp_path / segments[0].name
    segment.write_bytes(segments[0].read_bytes())
    cb.run_segment(segment, tmp_path / "out")
    kept = [line for line in segment.read_bytes().splitlines(keepends=True) if b"BTC-USD" not in line]
    segment.write_bytes(b"".join(kept))
    report = cb.run_segment(segment, tmp_path / "out")
    assert report.written["level2"].removed
    assert not list((tmp_path / "out").rglob("*BTC-USD*"))
    assert rows(tmp_path / "out", "level2")["product_id"].unique().to_list() == ["ETH-USD"]


@pytest.mark.ci
def test_running_one_in_the_middle_again_changes_nothing(segments, tmp_path):
    """It starts from the state before it again, not from its own, nor from one behind it."""
    for path in segments:
        cb.run_segment(path, tmp_path)
    before = tree(tmp_path)
    for path in (segments[1], segments[0], segments[-1], segments[1]):
        cb.run_segment(path, tmp_path)
        assert tree(tmp_path) == before, path.stem


@pytest.mark.ci
def test_another_order_of_segments_proves_less_and_running_again_in_order_mends_it(segments, tmp_path):
    for path in segments:
        cb.run_segment(path, tmp_path / "forth")
    for path in reversed(segments):
        cb.run_segment(path, tmp_path / "back")
    forth, back = tmp_path / "forth", tmp_path / "back"
    for table in ("market_trades", "ticker"):
        told = [name for name in schema(table) if name not in BY_ORDER]
        assert rows(back, table).select(told).equals(rows(forth, table).select(told))
    fewer = 0
    for path in segments:
        one, other = (part_rows(root, "level2", path).drop(BY_ORDER) for root in (forth, back))
        assert one.equals(other)
        by = [name for name in schema("book") if name != "connection"]
        proven = part_rows(back, "book", path).filter(pl.col("book_state") != "unproven")
        known = part_rows(forth, "book", path)
        assert proven.join(known, on=by, how="anti", nulls_equal=True).is_empty()
        fewer += known.filter(pl.col("book_state") != "unproven").height - proven.height
    assert fewer > 0  # or nothing was tried
    for path in segments:
        cb.run_segment(path, back)
    assert tree(back) == tree(forth)


# --- how the file is packed or cut does not matter


@pytest.mark.slow
@tiers.parametrize("chunk_bytes", [50_000, 1, 1_000, 1 << 30], every=4)
def test_the_size_of_chunks_changes_no_row(segments, tmp_path, chunk_bytes):
    few = tmp_path / segments[0].name
    lines = segments[0].read_bytes().splitlines(keepends=True)
    few.write_bytes(b"".join(lines[:150] if chunk_bytes < 1_000 else lines))
    whole = cb.run_segment(few, tmp_path / "whole")
    cut = cb.run_segment(few, tmp_path / "cut", chunk_bytes=chunk_bytes)
    assert cut.raw == whole.raw
    for table in WRITTEN:
        assert rows(tmp_path / "cut", table).equals(rows(tmp_path / "whole", table))


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_compressed_segment_gives_the_same_files(segment, tmp_path, codec):
    plain = segment.read_bytes()
    if codec == "gzip":
        packed = tmp_path / f"{segment.name}.gz"
        packed.write_bytes(gzip.compress(plain))
    else:
        packed = tmp_path / f"{segment.name}.zst"
        packed.write_bytes(pa.Codec("zstd").compress(plain, asbytes=True))
    a = cb.run_segment(segment, tmp_path / "plain")
    b = cb.run_segment(packed, tmp_path / "packed")
    assert tree(tmp_path / "plain") == tree(tmp_path / "packed")
    assert a.raw == b.raw
    assert (a.source_bytes, b.source_bytes) == (len(plain), packed.stat().st_size)


# --- all or nothing


@pytest.fixture
def damaged(segments) -> Path:
    return next(path for path in segments if cb.inspect_raw(path).raw.rejected)


def test_strict_raises_with_the_place_and_leaves_nothing(damaged, tmp_path):
    first = cb.read_raw(damaged).rejects.row(0, named=True)
    place = f"segment {damaged.stem}, line {first['line']} (byte {first['byte_offset']}): {first['reason']}"
    with pytest.raises(cb.SegmentError, match=re.escape(place)):
        cb.run_segment(damaged, tmp_path / "out", strict=True)
    assert tree(tmp_path) == {}


@pytest.mark.ci
@tiers.parametrize("chunk_bytes", [2_000, 1 << 26], every=2)
def test_strict_leaves_an_earlier_run_as_it_was(damaged, segments, tmp_path, chunk_bytes):
    for path in segments:
        cb.run_segment(path, tmp_path)
    before = tree(tmp_path)
    with pytest.raises(cb.SegmentError):
        cb.run_segment(damaged, tmp_path, strict=True, chunk_bytes=chunk_bytes)
    assert tree(tmp_path) == before


def test_strict_writes_a_segment_without_faults(tmp_path):
    made = cb.simulate_segments(tmp_path / "recording", products="ETH-USD", minutes=0.05, levels=20)
    report = cb.run_segment(made.paths[0], tmp_path / "out", strict=True)
    assert (
        report.rows["market_trades"] == made.counts["ETH-USD"].trades + made.counts["ETH-USD"].snapshot_trades
    )


class Broken(Exception):
    """What goes wrong in mid-run."""


def break_after(monkeypatch, method: str, calls: int, owner: type = DatasetWriter) -> None:
    """Let a method raise when it is called once more than so often."""
    whole, count = getattr(owner, method), iter(range(calls))

    def breaks(*args, **kwargs):
        if next(count, None) is None:
            raise Broken
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, method, breaks)


@pytest.mark.slow
@tiers.parametrize(
    ("owner", "method", "calls"),
    [
        (DatasetWriter, "write", 7),
        (Draft, "finish", 3),
        (Rebuilder, "__call__", 2),
    ],
    every=3,
)
@tiers.parametrize("ran_before", [False, True], every=2)
def test_an_exception_in_mid_run_leaves_the_dataset_as_before(
    segments, one_stream, tmp_path, monkeypatch, owner, method, calls, ran_before
):
    for path in segments if ran_before else segments[1:]:
        cb.run_segment(path, tmp_path)
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        break_after(patch, method, calls, owner)
        with pytest.raises(Broken):
            cb.run_segment(segments[0], tmp_path, chunk_bytes=50_000)
    assert tree(tmp_path) == before
    for path in segments:
        cb.run_segment(path, tmp_path)
    for table in ("level2", "book"):
        for path in segments:
            expected = one_stream[table][path.stem].sort("product_id", "line", maintain_order=True)
            assert part_rows(tmp_path, table, path).equals(expected)


def test_an_interrupt_while_reading_leaves_nothing(segment, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        whole, count = run_segment_module.Reading.__iter__, iter(range(3))

        def interrupted(reading):
            for batch in whole(reading):
                if next(count, None) is None:
                    raise KeyboardInterrupt
                yield batch

        patch.setattr(run_segment_module.Reading, "__iter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cb.run_segment(segment, tmp_path / "out", chunk_bytes=20_000)
    assert tree(tmp_path) == {}


@pytest.mark.ci
@pytest.mark.parametrize("calls", [1, 3])
def test_a_run_that_broke_while_publishing_is_mended_by_running_again(segments, tmp_path, monkeypatch, calls):
    for path in segments:
        cb.run_segment(path, tmp_path / "whole")
    for path in segments[1:]:
        cb.run_segment(path, tmp_path / "broken")
    with monkeypatch.context() as patch:
        break_after(patch, "_rename", calls, Finished)
        with pytest.raises(Broken):
            cb.run_segment(segments[0], tmp_path / "broken")
    assert not (tmp_path / "broken" / "_state" / f"{segments[0].stem}.parquet").exists()
    for path in segments:  # from the one that broke on: it left no state for those behind it
        cb.run_segment(path, tmp_path / "broken")
    assert tree(tmp_path / "broken") == tree(tmp_path / "whole")


@pytest.mark.ci
def test_a_run_that_broke_before_its_state_was_kept_is_mended_by_running_again(
    segments, tmp_path, monkeypatch
):
    for path in segments:
        cb.run_segment(path, tmp_path / "whole")
        with monkeypatch.context() as patch:
            break_after(patch, "keep_state", 0, run_segment_module)
            with pytest.raises(Broken):
                cb.run_segment(path, tmp_path / "broken")
        cb.run_segment(path, tmp_path / "broken")
    assert tree(tmp_path / "broken") == tree(tmp_path / "whole")


# --- arguments


def test_one_segment_at_a_time(segments, tmp_path):
    with pytest.raises(
        cb.SegmentError, match=f"takes one segment, and .* names {len(segments)}: call it for each"
    ):
        cb.run_segment(segments[0].parent, tmp_path / "out")
    with pytest.raises(cb.SegmentError, match="no such segment"):
        cb.run_segment(tmp_path / "none.ndjson", tmp_path / "out")
    assert tree(tmp_path) == {}


def test_paths_may_be_texts(segment, tmp_path):
    report = cb.run_segment(str(segment), str(tmp_path))
    assert report.written["level2"].parts[0].path.is_relative_to(tmp_path)


def test_other_partitions_than_the_dataset_s_are_refused(segments, tmp_path):
    cb.run_segment(segments[0], tmp_path)
    before = tree(tmp_path)
    with pytest.raises(cb.DatasetError, match="is partitioned by product_id, date, not by date"):
        cb.run_segment(segments[1], tmp_path, channel_config={"level2": {"partition_cols": ["date"]}})
    assert tree(tmp_path) == before


def test_no_tables_may_be_asked_for(damaged, tmp_path):
    report = cb.run_segment(damaged, tmp_path, channel_config={})
    assert report.written == {}
    assert report.quarantine is not None
    assert report.book is None
    assert report.raw == cb.inspect_raw(damaged).raw


@tiers.parametrize("progress", [False, True], every=2)
def test_the_progress_bar_goes_to_stderr_and_changes_nothing(segment, tmp_path, capsys, progress):
    report = cb.run_segment(segment, tmp_path / "out", progress=progress, chunk_bytes=50_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (segment.stem in captured.err) is progress
    assert report.raw == cb.inspect_raw(segment).raw


def test_the_progress_bar_is_closed_by_an_exception(damaged, tmp_path, capsys):
    with pytest.raises(cb.SegmentError):
        cb.run_segment(damaged, tmp_path / "out", progress=True, strict=True)
    assert tree(tmp_path) == {}
    assert damaged.stem in capsys.readouterr().err


# --- the report


def test_the_report_counts_what_is_there(segments, tmp_path):
    for path in segments:
        report = cb.run_segment(path, tmp_path / path.stem)
        assert report.segment == path.stem
        inspected = cb.inspect_raw(path)
        assert report.raw == inspected.raw == cb.read_raw(path).report
        assert report.rows == {table: count(tmp_path / path.stem, table) for table in WRITTEN}
        messages = sum(sum(product.states.values()) for product in report.book.products.values())
        in_raw = {table: sum(report.raw.rows[table].values()) for table in RAW}
        in_raw["level2"] += sum(report.raw.markers.values())
        level2 = cb.read_raw(path).level2
        lines = level2.filter(pl.col("side").is_not_null()).select("product_id", "line")
        breaks = level2.pipe(cb.rebuild_book).collect().join(lines, on=("product_id", "line"), how="anti")
        assert set(breaks["book_state"]) <= {"unproven"}
        assert report.rows == in_raw | {"book": messages + breaks.height}
        assert report.started_from == "nothing"
        for product, counts in report.book.products.items():
            found = inspected.book.products[product]
            assert counts == replace(found, tickers={}, agreeing={})
            assert counts.changes == report.raw.rows["level2"][product]
        assert report.source_bytes == path.stat().st_size
        assert report.raw.frames + report.raw.duplicates + report.raw.rejected == report.raw.lines
        assert report.seconds > 0
        assert report.mb_per_s == report.raw.raw_bytes / 1e6 / report.seconds


def test_what_was_not_written_is_said(segment, tmp_path):
    report = cb.run_segment(segment, tmp_path, channel_config={"ticker": {}})
    tables = cb.read_raw(segment)
    said = dict(report.items())["not written"]
    for table in ("level2", "market_trades", "heartbeats", "subscriptions"):
        assert f"{table} {sum(tables.report.rows[table].values()):,}" in said
    assert "ticker" not in said
    everything = {table: {} for table in CHANNELS}
    assert (
        dict(cb.run_segment(segment, tmp_path / "all", channel_config=everything).items())["not written"]
        == "none"
    )


def test_the_report_as_text_and_as_html(damaged, tmp_path):
    report = cb.run_segment(damaged, tmp_path)
    text, html = str(report), report._repr_html_()
    for label, value in report.items():
        assert re.search(rf"^{re.escape(label)} +{re.escape(value)}$", text, re.MULTILINE)
        assert label in html
    assert html.count("<tr>") == len(report.items()) == len(text.splitlines())
    assert html.startswith("<table>")
    assert f"{report.rows['level2']:,} rows" in dict(report.items())["level2 written"]


def test_html_is_escaped(tmp_path):
    odd = tmp_path / "a<b>&c.ndjson"
    odd.write_bytes(wire.segment(wire.change(0), {"channel": "<script>"}))
    html = cb.run_segment(odd, tmp_path / "out")._repr_html_()
    assert "<script>" not in html
    assert "a&lt;b&gt;&amp;c" in html


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_place_that_cannot_be_written_to_is_an_error_of_ours(damaged, tmp_path, out):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(cb.DatasetError, match="cannot write to"):
        cb.run_segment(damaged, tmp_path / out)


@pytest.mark.parametrize("chunk_bytes", [0, -5, 1.5])
def test_a_size_of_chunks_that_is_none_is_refused(damaged, tmp_path, chunk_bytes):
    with pytest.raises(cb.ConfigError, match="chunk_bytes"):
        cb.run_segment(damaged, tmp_path / "out", chunk_bytes=chunk_bytes)
    with pytest.raises(cb.ConfigError, match="chunk_bytes"):
        cb.inspect_raw(damaged, chunk_bytes=chunk_bytes)
