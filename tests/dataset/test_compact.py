"""Many small parts → few: the same rows, of the same segments, whatever is written before and after."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest
import tiers
from dataset.frames import EVERY, NOON, tree
from dataset.small_parts import compacted, files, follow, inodes, of_size, put, seen, sorted_rows
from hypothesis import example, given
from hypothesis import strategies as st

from cbtools.dataset import compact_dataset, scan_dataset, write_dataset
from cbtools.dataset.finished import remove_parts
from cbtools.errors import DatasetError

ORDER = ["server_time", "sequence_num", "line"]


# --- rows


def test_rows_keep_their_order_and_segment_where_segments_follow_one_another(tmp_path: Path) -> None:
    follow(tmp_path, 5)
    before, plain = seen(tmp_path), scan_dataset(tmp_path).collect()
    done = compact_dataset(tmp_path)
    assert done.groups.select("folder", "parts", "rows").rows() == [
        ("product_id=A", 5, 10),
        ("product_id=B", 5, 10),
    ]
    assert seen(tmp_path).equals(before)
    assert scan_dataset(tmp_path).collect().equals(plain)
    assert [f"{folder}/{name}" for folder, name in done.groups.select("folder", "into").rows()] == files(
        tmp_path
    )
    assert files(tmp_path) == [path.relative_to(tmp_path).as_posix() for path in compacted(tmp_path)]
    assert all(path.name.startswith("part_s0~") for path in compacted(tmp_path))


ROWS = st.lists(
    st.tuples(
        st.sampled_from("AB"),
        st.one_of(st.none(), st.integers(0, 4)),
        st.one_of(st.none(), st.integers(0, 2)),
        st.one_of(st.none(), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@tiers.examples(12, full=20)
@given(st.lists(ROWS, min_size=2, max_size=5))
def test_a_compacted_part_is_the_stable_sort_of_its_segments(
    tmp_path_factory: pytest.TempPathFactory, segments: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("sorted")
    frames = [put(root, f"s{i}", *rows) for i, rows in enumerate(segments)]
    compact_dataset(root)
    whole = pl.concat(frames)
    for product, rows in whole.group_by("product_id"):
        got = seen(root).filter(pl.col("product_id") == product[0]).select(whole.columns)
        if rows["server_time"].null_count():  # one segment behind the other, each in the order of receipt
            expected = pl.concat(
                _as_written(frame.filter(pl.col("product_id") == product[0])) for frame in frames
            )
        else:
            expected = rows.sort(ORDER, nulls_last=False, maintain_order=True)
        assert got.equals(expected)


def _as_written(rows: pl.DataFrame) -> pl.DataFrame:
    by = ["line"] if rows["server_time"].null_count() else ORDER
    return rows.sort(by, nulls_last=False, maintain_order=True)


WRITE = st.tuples(
    st.just("write"), st.integers(0, 4), ROWS, st.sampled_from([(), ("size",), ("size", "note")])
)
REMOVE = st.tuples(st.just("remove"), st.integers(0, 4))
COMPACT = st.tuples(st.just("compact"), st.sampled_from([0.0025, 0.006, 0.02, 256]))
A_ROW = [("A", 0, 0, 0)]


@pytest.mark.ci
@tiers.examples(14, full=20)
@given(st.lists(WRITE, min_size=2, max_size=5), st.lists(st.one_of(COMPACT, WRITE, REMOVE), max_size=8))
@example(
    [("write", i, [*A_ROW, ("B", i, 0, 0)], ()) for i in range(3)],
    [("compact", 256), ("write", 1, A_ROW, ("size",)), ("compact", 256), ("remove", 0), ("compact", 256)],
)
def test_whatever_is_done_the_rows_are_those_of_each_segment_s_last_run(
    tmp_path_factory: pytest.TempPathFactory, first: list[Any], then: list[Any]
) -> None:
    """By any number of writes, removals and compactions, to any target."""
    root, numbers = tmp_path_factory.mktemp("any"), count()
    model: dict[str, pl.DataFrame] = {}
    for step in [*first, *then]:
        segment = f"s{step[1]}"
        if step[0] == "write":
            number = pl.Series([next(numbers) for _ in step[2]])
            model[segment] = put(root, segment, *step[2], number=number, **dict.fromkeys(step[3], number / 8))
        elif step[0] == "remove":
            remove_parts(root, segment)
            model.pop(segment, None)
        elif model:
            compact_dataset(root, target_mb=step[1])
            after = tree(root)
            assert compact_dataset(root, target_mb=step[1]).groups.is_empty()
            assert tree(root) == after
        if not model:
            assert files(root) == []
            continue
        expected = pl.concat(model.values(), how="diagonal").sort("number")
        got = seen(root).sort("number")
        assert got.select(expected.columns).equals(expected)
        gone = got.drop(expected.columns).get_columns()  # columns of rows that are no more
        assert all(column.null_count() == got.height for column in gone)
        assert [name for name in files(root) if name.endswith(".tmp")] == []


def test_rows_of_a_table_without_sort_columns_keep_their_order(tmp_path: Path) -> None:
    for segment, values in (("s1", [3, 1, 2]), ("s2", [0, 9]), ("s3", [5])):
        write_dataset(pl.DataFrame({"x": values}), tmp_path, partition_by=[], segment=segment)
    compact_dataset(tmp_path)
    assert len(files(tmp_path)) == 1
    assert seen(tmp_path)["x"].to_list() == [3, 1, 2, 0, 9, 5]
    assert seen(tmp_path)["segment"].to_list() == ["s1", "s1", "s1", "s2", "s2", "s3"]


@pytest.mark.parametrize("missing", ["note", *ORDER])
@pytest.mark.parametrize("older", ["s1", "s2"])
def test_a_column_that_a_part_lacks_is_null(tmp_path: Path, missing: str, older: str) -> None:
    for segment, second in (("s1", 0), ("s2", 10)):
        time = pl.Series([NOON + second, NOON + second + 1]).cast(pl.Datetime("ns", "UTC"))
        frame = pl.DataFrame(
            {"server_time": time, "sequence_num": [1, 2], "line": [1, 2], "note": ["a", "b"]}
        )
        frame = frame.drop(missing) if segment == older else frame
        write_dataset(frame, tmp_path, partition_by=[], segment=segment)
    before = seen(tmp_path)
    compact_dataset(tmp_path)
    assert len(files(tmp_path)) == 1
    after = seen(tmp_path)
    assert sorted_rows(after) == sorted_rows(before)
    rows = after.select(name for name in ORDER if name in after.columns)
    if missing == "server_time":  # not known of some: one segment behind the other
        assert after["segment"].to_list() == ["s1", "s1", "s2", "s2"]
    else:
        assert rows.equals(rows.sort(rows.columns, nulls_last=False))


def test_every_dtype_stays(tmp_path: Path) -> None:
    for segment in ("s1", "s2"):
        write_dataset(EVERY, tmp_path, partition_by=[], segment=segment)
    before = seen(tmp_path)
    compact_dataset(tmp_path)
    assert len(files(tmp_path)) == 1
    assert seen(tmp_path).equals(before)
    assert seen(tmp_path).schema == before.schema


def test_a_dataset_may_have_a_column_segment_of_its_own(tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        write_dataset(pl.DataFrame({"segment": [name * 2]}), tmp_path, partition_by=[], segment=name)
    compact_dataset(tmp_path)
    assert scan_dataset(tmp_path).collect().rows() == [("s1s1",), ("s2s2",)]
    assert len(files(tmp_path)) == 1


def test_row_groups_of_segments_that_overlap_are_merged(tmp_path: Path) -> None:
    rows = 140_000
    for i in range(2):
        line = pl.int_range(rows, eager=True) * 2 + i
        frame = pl.DataFrame({"server_time": (NOON + line // 3).cast(pl.Datetime("ns", "UTC")), "line": line})
        write_dataset(frame, tmp_path, partition_by=[], segment=f"s{i}")
    compact_dataset(tmp_path)
    assert len(files(tmp_path)) == 1
    after = seen(tmp_path)
    assert after["line"].equals(pl.int_range(2 * rows, eager=True).alias("line"))
    assert (after["segment"] == pl.Series(["s0", "s1"]).gather(after["line"] % 2)).all()


def test_segments_may_be_asked_for_and_other_parts_stay_closed(tmp_path: Path) -> None:
    follow(tmp_path, 3)
    compact_dataset(tmp_path)
    put(tmp_path, "s9", ("A", 99, 0, 0))
    asked = scan_dataset(tmp_path, segment=True, segments=["s1"]).collect()
    assert asked.equals(seen(tmp_path).filter(segment="s1"))
    assert asked.height == 4
    assert scan_dataset(tmp_path, segments=["s9"]).collect().height == 1
    with pytest.raises(DatasetError, match="s7"):
        scan_dataset(tmp_path, segments=["s7"])


# --- which parts


SIZES = st.lists(st.integers(800, 9_000), min_size=2, max_size=12)


@pytest.mark.ci
@tiers.examples(10, full=20)
@given(SIZES, st.integers(3_000, 30_000))
@example([900] * 10, 4_000)
@example([900, 900, 8_000, 900, 8_000, 900, 900], 10_000)
def test_small_neighbours_go_together_up_to_the_target_and_larger_parts_stay(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], target: int
) -> None:
    root = tmp_path_factory.mktemp("sizes")
    size = {f"s{i:02}": of_size(root, f"s{i:02}", wanted) for i, wanted in enumerate(sizes)}
    before, rows = inodes(root), seen(root)
    done = compact_dataset(root, target_mb=target / 1e6)
    assert seen(root).equals(rows)
    small = {segment for segment in size if size[segment] < target / 2}
    for segment in size.keys() - small:
        assert inodes(root)[f"part_{segment}.parquet"] == before[f"part_{segment}.parquet"]
    groups = [pl.read_parquet(path)["__segment"].unique().sort().to_list() for path in compacted(root)]
    assert {segment for group in groups for segment in group} <= small
    assert [len(group) for group in groups] == done.groups["parts"].to_list()
    assert [sum(size[s] for s in group) for group in groups] == done.groups["bytes_before"].to_list()
    assert done.groups["bytes_after"].to_list() == [path.stat().st_size for path in compacted(root)]
    assert all(sum(size[s] for s in group) <= target for group in groups)
    now = [[s] for s in size if s not in {s for group in groups for s in group}] + groups
    for one, other in pairwise(sorted(now)):
        both = [sum(size[s] for s in group) for group in (one, other)]
        assert max(both) >= target / 2 or sum(both) > target, "they could go together"
    assert compact_dataset(root, target_mb=target / 1e6).groups.is_empty()


def test_what_comes_later_is_compacted_and_what_was_before_stays(tmp_path: Path) -> None:
    before = sum(of_size(tmp_path, f"s{i}", 3_000) for i in range(3))
    target = before * 1.1 / 1e6
    compact_dataset(tmp_path, target_mb=target)
    (first,) = inodes(tmp_path).items()
    assert compact_dataset(tmp_path, target_mb=target).groups.is_empty()
    for i in (3, 4):
        of_size(tmp_path, f"s{i}", 1_000)
    rows = seen(tmp_path)
    assert compact_dataset(tmp_path, target_mb=target).groups["parts"].to_list() == [2]
    assert seen(tmp_path).equals(rows)
    assert len(files(tmp_path)) == 2
    assert first in inodes(tmp_path).items()
    assert compact_dataset(tmp_path).groups["parts"].to_list() == [2]
    assert len(files(tmp_path)) == 1
    assert seen(tmp_path).equals(rows)


def test_a_part_that_lost_rows_to_a_later_run_counts_with_what_it_has_left(tmp_path: Path) -> None:
    """Or a dataset whose segments are all run again would fall back into small parts, for good."""
    size = sum(of_size(tmp_path, f"s{i}", 2_000) for i in range(4))
    target = size * 1.2 / 1e6
    compact_dataset(tmp_path, target_mb=target)
    for i in range(3):
        of_size(tmp_path, f"s{i}", 2_000)
    assert len(files(tmp_path)) == 4
    compact_dataset(tmp_path, target_mb=target)
    assert len(files(tmp_path)) == 1


def test_a_dry_run_tells_what_would_be_done_and_touches_nothing(tmp_path: Path) -> None:
    follow(tmp_path / "a", 3)
    follow(tmp_path / "b", 2)
    before, stats = tree(tmp_path), inodes(tmp_path)
    told = compact_dataset(tmp_path, dry_run=True)
    assert (tree(tmp_path), inodes(tmp_path)) == (before, stats)
    assert told.dry_run
    assert told.groups["bytes_after"].null_count() == told.groups.height == 4
    assert repr(told).startswith("would compact 10 parts into 4, 20 rows")
    done = compact_dataset(tmp_path)
    assert not done.dry_run
    assert repr(done).startswith("compacted 10 parts into 4, 20 rows")
    assert done.groups.drop("bytes_after").equals(told.groups.drop("bytes_after"))
    assert repr(compact_dataset(tmp_path)) == "nothing to compact"
    assert repr(compact_dataset(tmp_path, dry_run=True)) == "nothing to compact"


def test_one_table_alone_or_all_of_a_folder(tmp_path: Path) -> None:
    for table in ("a", "b"):
        follow(tmp_path / table, 2, products="A")
    before = seen(tmp_path, "b")
    assert compact_dataset(tmp_path, "a").groups["folder"].to_list() == ["a/product_id=A"]
    assert len(files(tmp_path / "b")) == 2
    assert compact_dataset(tmp_path).groups["folder"].to_list() == ["b/product_id=A"]
    assert seen(tmp_path, "b").equals(before)


# --- others read it


def others(root: Path) -> list[list[Any]]:
    """Read the numbers of lines as DuckDB, pyarrow and Polars alone do, as the manual says."""
    source = f"read_parquet('{root}/**/*.parquet', hive_partitioning=true, union_by_name=true)"
    with duckdb.connect() as connection:
        duck = connection.sql(f"select * from {source}").to_arrow_table()["line"].to_pylist()
    arrow = ds.dataset(root, partitioning="hive").to_table()["line"].to_pylist()
    lenient = {"missing_columns": "insert", "extra_columns": "ignore"}
    alone = pl.scan_parquet(f"{root}/**/*.parquet", hive_partitioning=True, **lenient).collect()
    return [sorted(duck), sorted(arrow), alone["line"].sort().to_list()]


@pytest.mark.parametrize("later", [(), ("s00",), ("s9",), ("s00", "s9")])
def test_other_readers_see_the_same_rows_also_beside_parts_that_are_not_compacted(
    tmp_path: Path, later: tuple[str, ...]
) -> None:
    for i in range(3):
        put(tmp_path, f"s{i}", ("A", i, 0, i), ("B", i, 0, i + 10))
    compact_dataset(tmp_path)
    for number, segment in enumerate(later):
        put(tmp_path, segment, ("A", number, 0, number + 20))
    expected = sorted([0, 1, 2, 10, 11, 12, *range(20, 20 + len(later))])
    assert others(tmp_path) == [expected] * 3
