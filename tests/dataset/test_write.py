"""What a run of the writer leaves in the folder, read file by file with pyarrow."""

from __future__ import annotations

import datetime as dt
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import tiers
from dataset.frames import EVERY, NOON, SECOND, level2, part_rows, parts, ticks, tree
from hypothesis import given
from hypothesis import strategies as st

from cbtools import schema
from cbtools.dataset import DatasetWriter, hive, parquet, scan_dataset, write, write_dataset
from cbtools.dataset.parquet import Format
from cbtools.errors import DatasetError
from cbtools.schema import TIME


def test_the_folder_names_the_partition_and_the_file_holds_the_rest(tmp_path: Path) -> None:
    written = write_dataset(
        level2(4), tmp_path, table="level2", partition_by=["product_id", "date"], segment="segment_x_00001"
    )
    assert [part.path.relative_to(tmp_path).as_posix() for part in written.parts] == [
        "level2/product_id=BTC-USD/date=2025-11-26/part_segment_x_00001.parquet",
        "level2/product_id=ETH-USD/date=2025-11-26/part_segment_x_00001.parquet",
    ]
    assert written.parts[1].values == {"product_id": "ETH-USD", "date": dt.date(2025, 11, 26)}
    assert [(part.rows, part.bytes) for part in written.parts] == [
        (2, part.path.stat().st_size) for part in written.parts
    ]
    assert (written.rows, written.bytes) == (4, sum(part.bytes for part in written.parts))
    wanted = [name for name in schema.schema("level2") if name != "product_id"]
    assert pq.ParquetFile(written.parts[0].path).schema_arrow.names == wanted
    assert [row[2:4] for row in part_rows(written.parts[0].path)] == [(100.0, 0.0), (102.0, 0.25)]


@pytest.mark.parametrize(
    ("hours", "folders"),
    [
        ((0, 24), ["date=2025-11-26/hour=12", "date=2025-11-27/hour=12"]),
        ((0, 1, 24), ["date=2025-11-26/hour=12", "date=2025-11-26/hour=13", "date=2025-11-27/hour=12"]),
        ((0, -1, 0), ["date=2025-11-26/hour=11", "date=2025-11-26/hour=12"]),
        (
            (0, None),
            ["date=2025-11-26/hour=12", "date=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__"],
        ),
    ],
)
def test_every_row_goes_to_its_own_hour(
    tmp_path: Path, hours: tuple[int | None, ...], folders: list[str]
) -> None:
    times = [None if hour is None else NOON + hour * 3600 * SECOND for hour in hours]
    frame = ticks(*(("A", time, 1, k) for k, time in enumerate(times)))
    write_dataset(frame, tmp_path, partition_by=["date", "hour"])
    assert sorted(parts(tmp_path)) == [f"{folder}/part_data.parquet" for folder in folders]
    write_dataset(frame, tmp_path / "hours", partition_by="hour")
    by_hour = {folder.partition("/")[2] for folder in folders}
    assert sorted(parts(tmp_path / "hours")) == sorted(f"{hour}/part_data.parquet" for hour in by_hour)


@pytest.mark.parametrize(
    ("server", "capture", "folder"),
    [
        (NOON, 0, "date=2025-11-26/hour=12"),
        (NOON + 12 * 3600 * SECOND - 1, 0, "date=2025-11-26/hour=23"),
        (None, NOON, "date=2025-11-26/hour=12"),
        (-1, NOON, "date=1969-12-31/hour=23"),
        (None, None, "date=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__"),
    ],
)
def test_date_and_hour_are_of_the_server_else_of_the_capture(
    tmp_path: Path, server: int | None, capture: int | None, folder: str
) -> None:
    times = {"server_time": [server], "capture_time": [capture]}
    frame = pl.DataFrame(times, schema=dict.fromkeys(times, pl.Int64)).cast(TIME)
    write_dataset(frame, tmp_path, partition_by=["date", "hour"])
    assert list(parts(tmp_path)) == [f"{folder}/part_data.parquet"]


@pytest.mark.parametrize(("zone", "hour"), [(None, 12), ("UTC", 12), ("America/New_York", 17)])
def test_times_of_other_zones_are_taken_to_utc(tmp_path: Path, zone: str | None, hour: int) -> None:
    noon = pl.Series("capture_time", [dt.datetime(2025, 11, 26, 12)]).dt.replace_time_zone(zone)
    write_dataset(noon.to_frame(), tmp_path, partition_by="hour")
    assert list(parts(tmp_path)) == [f"hour={hour}/part_data.parquet"]


def test_a_frame_s_own_date_goes_before_the_derived_one(tmp_path: Path) -> None:
    frame = ticks(("a", NOON, 1, 1)).with_columns(date=pl.date(2020, 1, 1))
    write_dataset(frame, tmp_path, partition_by="date")
    assert list(parts(tmp_path)) == ["date=2020-01-01/part_data.parquet"]


def test_without_partitions_there_is_one_part_in_the_root(tmp_path: Path) -> None:
    write_dataset(pl.DataFrame({"x": [1, 2]}), tmp_path / "new" / "root", partition_by=[], segment="s")
    assert parts(tmp_path) == {"new/root/part_s.parquet": [(1,), (2,)]}


TEXTS = st.one_of(
    st.none(),
    st.sampled_from(
        ["A/B", "ü", "a=b", "%", " ", "%2F", ".", "..", "007", "2025-11-26", "e\u0301", "", "+", "~", "*"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)


@pytest.mark.slow
@tiers.examples(40, full=20)
@given(st.lists(st.tuples(TEXTS, st.one_of(st.none(), st.integers(-3, 120)), st.booleans()), max_size=12))
def test_any_value_makes_a_folder_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("odd")
    frame = pl.DataFrame(rows, schema={"k": pl.String, "n": pl.Int16, "b": pl.Boolean}, orient="row")
    written = write_dataset(frame.with_row_index("i"), root, partition_by=["k", "n", "b"])
    got = [
        (part.values["k"], part.values["n"], part.values["b"], i)
        for part in written.parts
        for (i,) in part_rows(part.path)
    ]
    assert sorted(got, key=lambda row: row[-1]) == [(*row, i) for i, row in enumerate(rows)]
    assert len({part.path for part in written.parts}) == len(set(rows))
    assert {part.path for part in written.parts} == {path for path in root.rglob("*") if path.is_file()}


TICKS = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C"]),
        st.one_of(st.none(), st.integers(NOON, NOON + 4)),
        st.one_of(st.none(), st.integers(0, 3)),
        st.integers(0, 3),
    ),
    max_size=40,
)


@pytest.mark.slow
@tiers.examples(60, full=20)
@given(
    TICKS,
    st.lists(st.integers(0, 40)),
    st.sampled_from([0, 300, 10**9]),
    st.integers(1, 9),
    st.integers(1, 2),
)
def test_no_cut_of_the_input_changes_rows_or_their_order(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    cuts: list[int],
    buffer: int,
    group: int,
    files: int,
) -> None:
    """However it is cut, buffered and spilt: a part is the stable sort of its rows, nulls first.

    By line alone, if a row has no server_time.
    """
    root = tmp_path_factory.mktemp("cut")
    frame = ticks(*rows).with_row_index("i")
    borders = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_ROWS", group)
        patch.setattr(parquet, "_FEWEST_ROWS", 1)
        patch.setattr(write, "_OPEN_FILES", files)
        with DatasetWriter(root, partition_by="product_id", buffer_bytes=buffer) as writer:
            for start, stop in pairwise(borders):
                writer.write(frame[start:stop])
            writer.publish()
    wanted: dict[str, list[tuple[Any, ...]]] = {}
    for i, (product, *key) in enumerate(rows):
        wanted.setdefault(f"product_id={product}/part_data.parquet", []).append((i, *key))
    for part in wanted.values():
        first = 3 if any(row[1] is None for row in part) else 1
        part.sort(key=lambda row, first=first: [(value is not None, value) for value in row[first:]])
    assert parts(root) == wanted


def test_row_groups_do_not_depend_on_the_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr(parquet, "_FEWEST_ROWS", 1)
    frame = level2(1234)
    for name, step in {"one": 1234, "many": 7}.items():
        with DatasetWriter(tmp_path, table="level2", partition_by="product_id", segment=name) as writer:
            for batch in frame.iter_slices(step):
                writer.write(batch)
            writer.publish()
    one, many = (
        [pq.ParquetFile(path).metadata for path in sorted(tmp_path.rglob(f"part_{name}.parquet"))]
        for name in ("one", "many")
    )
    sizes = [[part.row_group(i).num_rows for i in range(part.num_row_groups)] for part in one]
    assert sizes == [[100] * 6 + [17]] * 2
    assert sizes == [[part.row_group(i).num_rows for i in range(part.num_row_groups)] for part in many]


def test_a_lazy_frame_gives_the_same_file_as_an_eager_one(tmp_path: Path) -> None:
    for name, frame in {"eager": level2(100), "lazy": level2(100).lazy()}.items():
        write_dataset(frame, tmp_path / name, table="level2", partition_by="product_id")
    assert tree(tmp_path / "eager") == tree(tmp_path / "lazy")


def test_the_same_rows_again_give_the_same_bytes_and_double_nothing(tmp_path: Path) -> None:
    write_dataset(level2(), tmp_path, partition_by=["product_id", "date"])
    once = tree(tmp_path)
    write_dataset(level2(), tmp_path, partition_by=["product_id", "date"])
    assert tree(tmp_path) == once


@pytest.mark.parametrize("other", ["a", "a_b.0", "a_b_c", "data", "b"])
def test_a_segment_replaces_its_own_parts_and_no_others(tmp_path: Path, other: str) -> None:
    by = ["product_id", "hour"]
    write_dataset(ticks(("A", NOON, 1, 1), ("B", NOON, 2, 2)), tmp_path, partition_by=by, segment=other)
    write_dataset(ticks(("A", NOON, 1, 1), ("B", NOON, 2, 2)), tmp_path, partition_by=by, segment="a_b")
    before = parts(tmp_path)
    written = write_dataset(ticks(("B", NOON, 3, 3)), tmp_path, partition_by=by, segment="a_b")
    gone = "product_id=A/hour=12/part_a_b.parquet"
    assert written.removed == (tmp_path / gone,)
    new = {"product_id=B/hour=12/part_a_b.parquet": [(NOON, 3, 3)]}
    assert parts(tmp_path) == {name: rows for name, rows in (before | new).items() if name != gone}


def test_a_run_without_rows_takes_the_segment_away(tmp_path: Path) -> None:
    write_dataset(level2(), tmp_path / "set", partition_by=["product_id", "date"])
    written = write_dataset(level2(0), tmp_path / "set", partition_by=["product_id", "date"])
    assert written.parts == ()
    assert list((tmp_path / "set").iterdir()) == []
    assert repr(written) == "0 rows in 0 parts, 0 bytes, 2 out of date removed"


def failing(good: pl.DataFrame) -> pl.LazyFrame:
    def batches(*_: object) -> Iterator[pl.DataFrame]:
        yield from [good] * 20
        raise RuntimeError("the disk of the source is gone")

    return pl.io.plugins.register_io_source(batches, schema=good.schema)


@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_in_mid_stream_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 1)
    monkeypatch.setattr(parquet, "_FEWEST_ROWS", 1)
    root = tmp_path / "set"
    if existing:
        write_dataset(level2(2), root, partition_by="product_id", segment="s")
    before = tree(tmp_path)
    with pytest.raises(RuntimeError, match="source is gone"):
        write_dataset(failing(level2(4)), root, partition_by="product_id", segment="s")
    assert tree(tmp_path) == before


def test_leaving_the_block_without_publishing_leaves_everything_as_it_was(tmp_path: Path) -> None:
    write_dataset(level2(2), tmp_path, partition_by="product_id")
    before = tree(tmp_path)
    with DatasetWriter(tmp_path, partition_by="product_id", buffer_bytes=0) as writer:
        writer.write(level2())
        assert len(tree(tmp_path)) == len(before) + 2
    assert tree(tmp_path) == before
    with pytest.raises(DatasetError, match="aborted"):
        writer.write(level2())
    with pytest.raises(DatasetError, match="aborted"):
        writer.publish()


def test_what_a_crashed_run_left_is_cleared_by_the_next_of_the_same_segment(tmp_path: Path) -> None:
    crashed = {}
    for segment in ("s", "s.0", "s_1"):
        crashed[segment] = DatasetWriter(tmp_path, partition_by="product_id", segment=segment, buffer_bytes=0)
        crashed[segment].write(level2())
        crashed[segment].finish()
    left = [name for name in tree(tmp_path) if name.endswith(".tmp")]
    assert len(left) == 6
    assert all(Path(name).name.startswith(".") for name in left)
    write_dataset(level2(1), tmp_path, partition_by="product_id", segment="s")
    names = [Path(name).name for name in tree(tmp_path) if (tmp_path / name).is_file()]
    others = [name for name in left if ".part_s.0." in name or ".part_s_1." in name]
    assert sorted(names) == sorted([Path(name).name for name in others] + ["part_s.parquet"])
    assert len(others) == 4


def test_a_writer_that_was_given_up_and_goes_on_spoils_nothing_of_the_next(tmp_path: Path) -> None:
    old, new = (DatasetWriter(tmp_path, partition_by="product_id", segment="s") for _ in range(2))
    new.write(level2(2))
    new.finish()
    old.write(level2(4))
    old.finish()
    assert new.publish().rows == 2
    assert scan_dataset(tmp_path).collect().height == 2


def test_what_is_finished_can_be_published_elsewhere(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, partition_by="product_id", segment="s") as writer:
        writer.write(level2())
        finished = pickle.loads(pickle.dumps(writer.hand_over()))
    assert parts(tmp_path) == {}
    assert finished.publish().rows == level2().height
    assert len(parts(tmp_path)) == len(finished.parts)
    assert [name for name in tree(tmp_path) if name.endswith(".tmp")] == []


def test_a_fresh_segment_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for segment in "abc":
        write_dataset(level2(), tmp_path, partition_by="product_id", segment=segment)
    listed: list[Path] = []
    scandir = os.scandir

    def spy(path: Path) -> Any:
        listed.append(Path(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    with DatasetWriter(tmp_path, partition_by="product_id", segment="d", fresh=True) as writer:
        assert len(listed) == 2  # the root, and the first partition: the others are like it
        writer.write(level2())
        assert writer.publish().rows == level2().height
    with pytest.raises(DatasetError, match="is partitioned by product_id, not by date"):
        DatasetWriter(tmp_path, partition_by="date", segment="e", fresh=True)


def test_what_is_finished_can_be_dropped(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "set", partition_by="product_id", segment="s") as writer:
        writer.write(level2())
        finished = writer.hand_over()
    finished.drop()
    assert tree(tmp_path) == {}
    with pytest.raises(DatasetError, match="published"):
        writer.write(level2())


def test_several_tables_appear_together_or_not_at_all(tmp_path: Path) -> None:
    trades = pl.DataFrame({"message": ["x"], "reason": [None]}, schema_overrides={"reason": pl.String})
    frame = level2(1).select(*schema.schema("errors").names()[2:])
    errors = pl.concat([trades, frame], how="horizontal")
    with (
        DatasetWriter(tmp_path, table="level2", partition_by="product_id") as first,
        DatasetWriter(tmp_path, table="errors", partition_by="date") as second,
    ):
        first.write(level2())
        second.write(errors)
        first.finish()
        second.finish()
        assert parts(tmp_path) == {}
        assert first.publish().rows + second.publish().rows == 7
    assert [name.partition("/")[0] for name in parts(tmp_path)] == ["errors", "level2", "level2"]
    with pytest.raises(DatasetError, match="published"):
        first.publish()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file is meant")
def test_a_part_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    fsync, replace = os.fsync, Path.replace

    def spy_on_fsync(descriptor: int) -> None:
        calls.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def spy_on_replace(old: Path, new: Path) -> Path:
        calls.append((old, new))
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", spy_on_fsync)
    monkeypatch.setattr(Path, "replace", spy_on_replace)
    (part,) = write_dataset(level2(1), tmp_path / "set", partition_by="product_id").parts
    temporary = calls[0]
    assert hive.temporary_segment_of(temporary.name) == "data"
    assert calls[:2] == [temporary, (temporary, part.path)]
    assert set(calls[2:]) == {part.path.parent, tmp_path / "set"}


def test_the_footer_tells_what_the_columns_are(tmp_path: Path) -> None:
    frame = level2().with_columns(feature=1.5)
    (part, _) = write_dataset(frame, tmp_path, table="level2", partition_by="product_id", segment="s").parts
    metadata = {k.decode(): v.decode() for k, v in pq.ParquetFile(part.path).metadata.metadata.items()}
    assert metadata["cbtools.segment"] == "s"
    assert metadata["cbtools.table"] == "level2"
    assert metadata["cbtools.schema_version"] == str(schema.SCHEMA_VERSION)
    assert metadata["cbtools.version"] == parquet.package_version()
    assert json.loads(metadata["cbtools.partition_by"]) == {"product_id": "String"}
    told = json.loads(metadata["cbtools.columns"])
    assert [(c["name"], c["unit"], c["meaning"]) for c in told] == [
        (c.name, c.unit, c.meaning) for c in schema.columns("level2")
    ]
    assert pq.ParquetFile(part.path).schema_arrow.names[-1] == "feature"


def test_compression_statistics_encodings_and_order_are_set(tmp_path: Path) -> None:
    (part,) = write_dataset(level2(), tmp_path, table="level2", partition_by="date").parts
    file = pq.ParquetFile(part.path)
    group = file.metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert all(column.statistics.has_min_max for name, column in columns.items() if name != "stream")
    assert (columns["line"].statistics.min, columns["line"].statistics.max) == (1, 6)
    for name in ("event_time", "sequence_num", "line"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
    for name in ("side", "size", "product_id"):
        assert "RLE_DICTIONARY" in columns[name].encodings
    for name in ("server_time", "capture_time", "connection", "unbroken_since", "price"):
        assert set(columns[name].encodings) <= {"PLAIN", "RLE"}
    full = {column.name for column in schema.columns("level2") if not column.null}
    assert {field.name for field in file.schema_arrow if not field.nullable} == full - {"date"}
    names = file.schema_arrow.names
    order = [(names[c.column_index], c.descending, c.nulls_first) for c in group.sorting_columns]
    assert order == [("server_time", False, True), ("sequence_num", False, True), ("line", False, True)]


def test_every_dtype_comes_back_as_it_was(tmp_path: Path) -> None:
    (part,) = write_dataset(EVERY, tmp_path, partition_by=[]).parts
    back = pl.read_parquet(part.path)
    assert back.schema == EVERY.schema
    assert back.equals(EVERY)


def test_what_was_written_shows_as_a_small_table(tmp_path: Path) -> None:
    written = write_dataset(level2(), tmp_path, partition_by=["product_id", "hour"])
    text, page = repr(written), written._repr_html_()
    assert text.splitlines()[0] == f"6 rows in 2 parts, {written.bytes:,} bytes"
    for word in ("BTC-USD", "12", "part_data.parquet"):
        assert word in text
        assert word in page
    assert written.to_frame().columns == ["product_id", "hour", "file", "rows", "bytes"]


def test_segments_written_side_by_side_do_not_disturb_each_other(tmp_path: Path) -> None:
    def come_and_go(segment: str) -> None:
        for rows in [2, 0] * 8 + [1]:  # without rows its folders go, too
            write_dataset(level2(rows), tmp_path, partition_by=["product_id", "hour"], segment=segment)

    with ThreadPoolExecutor() as pool:
        list(pool.map(come_and_go, "abc"))
    folder = "product_id=BTC-USD/hour=12"
    assert [name for name in tree(tmp_path) if "part" in name] == [
        f"{folder}/part_{s}.parquet" for s in "abc"
    ]


MEMORY = """
import resource, sys
import polars as pl
from polars.io.plugins import register_io_source
from cbtools.dataset import write_dataset
ROWS = 100_000
def batches(*_):
    for number in range(int(sys.argv[2])):
        line = pl.int_range(number * ROWS, (number + 1) * ROWS, eager=True)
        columns = {f"x{i}": (line * (i + 3) % 1000).cast(pl.Float64) for i in range(8)}
        yield pl.DataFrame({"k": line % 3, "line": line, **columns})
frame = register_io_source(batches, schema=next(batches()).schema)
write_dataset(frame, sys.argv[1], partition_by="k")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@pytest.mark.ci
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    def peak(batches: int) -> int:
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(batches)), str(batches)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    pytest.importorskip("resource")
    less, more = peak(12), peak(72)  # 96 MB and 576 MB of columns
    assert more - less < 150, f"{less} MB of 12 batches, {more} MB of 72"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pl.Enum(["a"]), pl.Enum(["b"])),
        (pl.Datetime("ns", "UTC"), pl.Datetime("ns")),
        (pl.Datetime("ns"), pl.Datetime("us")),
        (pl.Decimal(20, 8), pl.Decimal(20, 2)),
        (pl.List(pl.Int8), pl.List(pl.Int16)),
    ],
)
def test_columns_that_differ_only_in_a_parameter_keep_their_own_format(one, other):
    """Check this, since the Arrow fields of equal columns are made once."""
    for dtype in (one, other):
        made = Format(pl.Schema({"x": dtype}), metadata={}, sorted_by=[]).arrow_schema
        frame = pl.DataFrame(schema={"x": dtype}).to_arrow(compat_level=pl.CompatLevel.oldest())
        assert made.equals(frame.schema)
