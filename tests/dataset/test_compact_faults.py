"""What cannot be compacted is told, and stays as it was."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from dataset.frames import tree
from dataset.small_parts import compacted, files, follow, inodes, put, seen, sorted_rows

from cbtools.dataset import DatasetWriter, compact_dataset, scan_dataset, write_dataset
from cbtools.errors import ConfigError, DatasetError


def test_bad_use_is_told(tmp_path: Path) -> None:
    follow(tmp_path / "a", 2)
    before = tree(tmp_path)
    for target in (0, -1, float("nan"), float("inf"), True, "256", None):
        with pytest.raises(ConfigError, match="target_mb"):
            compact_dataset(tmp_path, target_mb=target)  # type: ignore[arg-type]
    for grace in (-1, float("nan"), float("inf"), "1", None):
        with pytest.raises(ConfigError, match="grace_seconds"):
            compact_dataset(tmp_path, grace_seconds=grace)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="name of a folder"):
        compact_dataset(tmp_path, "a/b")
    assert tree(tmp_path) == before
    for root, table in ((tmp_path / "none", None), (tmp_path, "none")):
        with pytest.raises(DatasetError, match="no dataset"):
            compact_dataset(root, table)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == ["a"]


def test_parts_that_do_not_fit_together_are_told_and_stay(tmp_path: Path) -> None:
    write_dataset(pl.DataFrame({"x": [1]}), tmp_path, partition_by=[], segment="s1")
    write_dataset(pl.DataFrame({"x": ["a"]}), tmp_path, partition_by=[], segment="s2")
    before = inodes(tmp_path)
    with pytest.raises(DatasetError, match=r"x is String in .*part_s2\.parquet, but Int64"):
        compact_dataset(tmp_path)
    assert inodes(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut", "empty", "plain"])
def test_a_compacted_part_that_does_not_tell_its_segments_is_named(tmp_path: Path, damage: str) -> None:
    follow(tmp_path, 2, products="A")
    compact_dataset(tmp_path)
    put(tmp_path, "s5", ("A", 50, 0, 0))
    (part,) = compacted(tmp_path)
    if damage == "plain":
        pl.DataFrame({"x": [1]}).write_parquet(part)
    else:
        part.write_bytes(part.read_bytes()[:-9] if damage == "cut" else b"")
    before = tree(tmp_path)
    calls = [lambda: scan_dataset(tmp_path), lambda: compact_dataset(tmp_path)]
    for call in (*calls, lambda: put(tmp_path, "s0", ("A", 50, 0, 0))):
        with pytest.raises(DatasetError, match=part.name):
            call()
    assert tree(tmp_path).keys() - before.keys() <= {".cbtools.lock"}
    assert tree(tmp_path).items() >= before.items()


def test_a_segment_is_not_named_like_a_compacted_part(tmp_path: Path) -> None:
    for segment in ("x~deadbeef", "~~00000000"):
        with pytest.raises(ConfigError, match="compacted"):
            write_dataset(pl.DataFrame({"x": [1]}), tmp_path, partition_by=[], segment=segment)
    for segment in ("x~deadbee", "x~deadbeeg", "x~deadbeef1", "~", "x~DEADBEEF"):
        write_dataset(pl.DataFrame({"x": [1]}), tmp_path, partition_by=[], segment=segment)
    before = sorted_rows(seen(tmp_path))
    compact_dataset(tmp_path)
    assert sorted_rows(seen(tmp_path)) == before
    assert len(files(tmp_path)) == 1


def test_a_segment_s_name_may_be_as_long_as_a_part_allows(tmp_path: Path) -> None:
    long = 300
    while True:
        try:
            DatasetWriter(tmp_path, partition_by=[], segment="s" * long)
        except ConfigError:
            long -= 1
        else:
            break
    for last in "ab":
        segment = "s" * (long - 1) + last
        write_dataset(pl.DataFrame({"x": [last]}), tmp_path, partition_by=[], segment=segment)
    before = seen(tmp_path)
    compact_dataset(tmp_path)
    assert seen(tmp_path).equals(before)


def test_a_column_of_the_name_that_compacted_parts_need_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="__segment is the column"):
        write_dataset(pl.DataFrame({"k": [1], "__segment": ["s"]}), tmp_path, partition_by="k")


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    for segment in ("s1", "s2"):
        (part,) = write_dataset(
            pl.DataFrame({"k": [1], "x": [1]}), tmp_path, partition_by="k", segment=segment
        ).parts
    part.path.write_bytes(b"PAR1" * 9)
    with pytest.raises(DatasetError, match=r"part_s2\.parquet cannot be read"):
        compact_dataset(tmp_path)
