"""A dataset divided anew has the same rows, each of its segment."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools.dataset import repartition_dataset, write_dataset


def rows_of(root, table=None) -> pl.DataFrame:
    frame = cb.scan_dataset(root, table, segment=True).collect()
    names = sorted(frame.columns)
    return frame.select(names).sort(names)


@pytest.fixture
def by_product(tmp_path):
    root = tmp_path / "by_product"
    for k in range(3):
        frame = pl.DataFrame({"product_id": ["A", "B", "A"], "day": [1, 1, 2], "x": [k, k + 10, k + 20]})
        write_dataset(frame, root, partition_by="product_id", segment=f"s{k}")
    return root


def test_the_rows_are_the_same(by_product, tmp_path):
    written = repartition_dataset(by_product, tmp_path / "by_day", ["day", "product_id"])
    assert written.rows == 9
    assert_frame_equal(rows_of(tmp_path / "by_day"), rows_of(by_product), check_dtypes=True)
    assert (tmp_path / "by_day/day=1/product_id=B/part_s2.parquet").is_file()


def test_again_it_changes_nothing_and_a_segment_may_be_run_again(by_product, tmp_path):
    target = tmp_path / "by_day"
    repartition_dataset(by_product, target, "day")
    before = rows_of(target)
    repartition_dataset(by_product, target, "day")
    assert_frame_equal(rows_of(target), before)
    write_dataset(
        pl.DataFrame({"product_id": ["C"], "day": [3], "x": [0]}), target, partition_by="day", segment="s1"
    )
    assert rows_of(target).filter(segment="s1").height == 1
    assert rows_of(target).height == before.height - 2


def test_of_a_compacted_dataset_too(by_product, tmp_path):
    expected = rows_of(by_product)
    cb.compact_dataset(by_product)
    repartition_dataset(by_product, tmp_path / "by_day", "day")
    assert_frame_equal(rows_of(tmp_path / "by_day"), expected)


@pytest.mark.ci
def test_tables_of_an_output(tmp_path):
    for segment in sorted(cb.sample_path().iterdir()):
        cb.run_segment(
            segment, tmp_path / "out", channel_config={"level2": {"processor_options": {"depth": 2}}}
        )
    for table, by in (("level2", ["side"]), ("book", ["book_state", "product_id"])):
        repartition_dataset(tmp_path / "out", tmp_path / "other", by, table=table)
        assert_frame_equal(
            rows_of(tmp_path / "other", table), rows_of(tmp_path / "out", table).drop("date"),
            check_column_order=False,
        )  # fmt: skip


def test_in_place_it_is_refused(by_product):
    with pytest.raises(cb.ConfigError, match="cannot be repartitioned in place"):
        repartition_dataset(by_product, by_product, "day")


def test_what_cannot_be_meant_is_told(by_product, tmp_path):
    with pytest.raises(cb.ConfigError, match="unknown partition column 'dya'"):
        repartition_dataset(by_product, tmp_path / "other", "dya")
    with pytest.raises(cb.DatasetError, match="no dataset in"):
        repartition_dataset(tmp_path / "nowhere", tmp_path / "other", "day")


def test_a_scan_of_some_segments(by_product):
    found = cb.scan_dataset(by_product, segments=["s0", "s2"])
    assert sorted(found.select("x").collect().to_series()) == [0, 2, 10, 12, 20, 22]
    assert "segment" not in found.collect_schema()
    with pytest.raises(cb.DatasetError, match="has no rows of these segments: s9"):
        cb.scan_dataset(by_product, segments=["s9"])
