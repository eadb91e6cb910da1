"""A dataset read back: the same rows and dtypes, and no file opened in vain."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tiers
from dataset.frames import EVERY, NOON, SECOND, level2, ticks
from hypothesis import given
from hypothesis import strategies as st

from cbtools import schema
from cbtools.dataset import DatasetWriter, scan, scan_dataset, write_dataset
from cbtools.errors import ConfigError, DatasetError

DAY = 86_400 * SECOND


def days(root: Path, products: int = 3, number: int = 4) -> list[Path]:
    """Write a dataset of some products and days, a row each."""
    rows = [(f"P{p}-USD", NOON + day * DAY, day, p + 1) for p in range(products) for day in range(number)]
    written = write_dataset(ticks(*rows), root, partition_by=["product_id", "date"])
    return [part.path for part in written.parts]


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    frame = level2(100)
    write_dataset(frame, tmp_path, table="level2", partition_by=["product_id", "date", "hour"])
    back = scan_dataset(tmp_path, "level2")
    assert back.collect_schema() == {**schema.schema("level2"), "date": pl.Date, "hour": pl.Int8}
    assert back.drop("date", "hour").collect().equals(frame.sort("product_id", maintain_order=True))
    assert back.select("date", "hour").unique().collect().rows() == [(dt.date(2025, 11, 26), 12)]


TEXTS = st.one_of(
    st.none(),
    st.sampled_from(["A/B", "ü", "a=b", "%", " ", "%2F", "..", "007", "2025-11-26", "true", "", "[a]"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
ROWS = st.lists(
    st.tuples(
        TEXTS,
        st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.dates()),
        st.sampled_from([None, "bid", "ask"]),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@tiers.examples(40, full=20)
@given(ROWS, st.permutations(["k", "n", "b", "d", "e"]), st.integers(1, 5))
def test_any_partition_s_value_and_dtype_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], names: list[str], number: int
) -> None:
    root = tmp_path_factory.mktemp("odd") / "ro ot%20[x]"
    dtypes = {"k": pl.String, "n": pl.Int32, "b": pl.Boolean, "d": pl.Date, "e": schema.SIDE}
    frame = pl.DataFrame(rows, schema=dtypes, orient="row").with_row_index("i")
    write_dataset(frame, root, partition_by=names[:number])
    back = scan_dataset(root)
    assert dict(back.collect_schema()) == dict(frame.schema)
    assert back.sort("i").select(frame.columns).collect().equals(frame)
    one = back.filter(pl.col("k").eq_missing(pl.lit(rows[0][0], pl.String))).select("i").sort("i")
    assert one.collect().to_series().to_list() == [i for i, row in enumerate(rows) if row[0] == rows[0][0]]


def test_the_plan_of_a_query_names_only_the_files_of_its_partitions(tmp_path: Path) -> None:
    paths = days(tmp_path)
    query = scan_dataset(tmp_path).filter(
        pl.col("product_id") == "P1-USD", pl.col("date") == dt.date(2025, 11, 28)
    )
    plan = query.explain()
    assert f"Parquet SCAN [{paths[6]}]\n" in plan
    assert [path for path in paths if str(path) in plan] == [paths[6]]
    assert "2 other sources" in scan_dataset(tmp_path).filter(date=dt.date(2025, 11, 26)).explain()


def test_files_of_other_partitions_may_be_garbage(tmp_path: Path) -> None:
    paths = days(tmp_path)
    for path in paths[:6] + paths[7:]:
        path.write_bytes(b"garbage")
    day = pl.col("date") == dt.date(2025, 11, 28)
    query = scan_dataset(tmp_path).filter(day, pl.col("product_id") == "P1-USD")
    assert query.select("line", "sequence_num").collect().rows() == [(2, 2)]
    assert query.collect(engine="streaming").height == 1
    with pytest.raises(pl.exceptions.ComputeError):
        scan_dataset(tmp_path).filter(day).collect()
    paths[6].write_bytes(b"garbage")
    with pytest.raises(DatasetError, match="no part can be read"):
        scan_dataset(tmp_path)


def test_only_finished_parts_are_read(tmp_path: Path) -> None:
    write_dataset(ticks(("A", NOON, 1, 1)), tmp_path, partition_by="product_id", segment="a")
    unfinished = DatasetWriter(tmp_path, partition_by="product_id", segment="b", buffer_bytes=0)
    unfinished.write(ticks(("A", NOON, 2, 2), ("B", NOON, 2, 2)))
    unfinished.finish()
    (tmp_path / "product_id=A" / "notes.parquet").write_bytes(b"not ours")
    (tmp_path / "_runs").mkdir()
    (tmp_path / "_runs" / "part_x.parquet").write_bytes(b"not ours")
    assert scan_dataset(tmp_path).collect().rows() == [(NOON_TIME, 1, 1, "A")]
    unfinished.publish()
    assert scan_dataset(tmp_path).select("line").collect().to_series().to_list() == [1, 2, 2]


NOON_TIME = dt.datetime(2025, 11, 26, 12, tzinfo=dt.UTC)


def test_files_come_by_path_and_numbers_by_value(tmp_path: Path) -> None:
    frame = pl.DataFrame({"hour": [None, 2, 10, 9], "x": [0, 1, 3, 2]})
    write_dataset(frame, tmp_path, partition_by="hour", segment="b")
    write_dataset(frame.with_columns(pl.col("x") + 10), tmp_path, partition_by="hour", segment="a")
    assert scan_dataset(tmp_path).collect()["x"].to_list() == [10, 0, 11, 1, 12, 2, 13, 3]


def test_older_parts_give_null_in_newer_columns(tmp_path: Path) -> None:
    old = level2(4).drop(
        "unbroken_since"
    )  # of another program: a part of ours has all columns of its version
    write_dataset(old, tmp_path / "level2", partition_by="date", segment="a")
    new = level2(2).with_columns(ofi_5s=pl.lit(1.5))
    write_dataset(new, tmp_path, table="level2", partition_by="date", segment="b")
    back = scan_dataset(tmp_path, "level2")
    assert back.collect_schema().names() == [*schema.schema("level2").names(), "ofi_5s", "date"]
    assert back.select("unbroken_since", "ofi_5s").collect().null_count().row(0) == (4, 4)
    only_old = scan_dataset(tmp_path, "level2", segment=True).filter(segment="a")
    assert only_old.select("line", "ofi_5s").collect().rows() == [(1, None), (2, None), (3, None), (4, None)]


def test_columns_of_files_beyond_the_sample_are_never_left_out_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        extra = {5: {"rare": 1.0}, 11: {"newest": 2.0}}.get(number, {})
        frame = pl.DataFrame({"k": [f"{number:02}"], "x": [number], **extra})
        (part,) = write_dataset(frame, tmp_path, partition_by="k", segment=str(number)).parts
        os.utime(part.path, (number, number))
    monkeypatch.setattr(scan, "FOOTERS", 4)
    some = scan_dataset(tmp_path)
    assert some.collect_schema().names() == ["x", "newest", "k"]
    assert some.filter(pl.col("k") > "05").collect()["newest"].to_list() == [None] * 5 + [2.0]
    with pytest.raises(pl.exceptions.SchemaError, match="rare"):
        some.collect()
    every = scan_dataset(tmp_path, footers="all")
    assert every.collect()["rare"].to_list() == [None] * 5 + [1.0] + [None] * 6
    assert scan_dataset(tmp_path, columns=["rare", "x"]).collect()["rare"].drop_nulls().to_list() == [1.0]
    assert scan_dataset(tmp_path, columns=["x"]).collect()["x"].to_list() == list(range(12))


def test_columns_are_given_as_asked(tmp_path: Path) -> None:
    write_dataset(level2(2), tmp_path, table="level2", partition_by="product_id", segment="s_1")
    asked = scan_dataset(tmp_path, "level2", columns=["size", "product_id"], segment=True)
    assert asked.collect().rows() == [(0.0, "BTC-USD", "s_1"), (0.125, "ETH-USD", "s_1")]
    assert "PROJECT 2/13 COLUMNS" in scan_dataset(tmp_path, "level2", columns=["size", "line"]).explain()
    with pytest.raises(ConfigError, match="unknown column 'sise': did you mean 'size'"):
        scan_dataset(tmp_path, "level2", columns=["sise"])


def test_every_dtype_comes_back(tmp_path: Path) -> None:
    write_dataset(EVERY, tmp_path, partition_by=[])
    back = scan_dataset(tmp_path)
    assert back.collect_schema() == EVERY.schema
    assert back.collect().equals(EVERY)
    assert back.filter(enum="bid").select("text").collect().item() == "x" * 1000


def test_a_table_of_another_name_is_read_as_its_files_are(tmp_path: Path) -> None:
    write_dataset(ticks(("007", NOON, 1, 1)), tmp_path / "mine", partition_by=["product_id", "date"])
    back = scan_dataset(tmp_path, "mine").collect()
    assert back.columns == ["server_time", "sequence_num", "line", "product_id", "date"]
    assert back.select("product_id", "date").row(0) == ("007", dt.date(2025, 11, 26))


def test_a_folder_above_may_be_named_like_a_partition(tmp_path: Path) -> None:
    root = tmp_path / "run=7" / "date=today"
    write_dataset(ticks(("A", NOON, 1, 1)), root, partition_by="product_id")
    assert scan_dataset(root).collect().columns == ["server_time", "sequence_num", "line", "product_id"]
    write_dataset(pl.DataFrame({"x": [1]}), tmp_path / "run=8", partition_by=[])
    assert scan_dataset(tmp_path / "run=8").collect().to_dict(as_series=False) == {"x": [1]}
    write_dataset(ticks(("A", NOON, 1, 1)), root / "in", partition_by="date")
    with pytest.raises(DatasetError, match="named like its partitions"):
        scan_dataset(root / "in")
    write_dataset(pl.DataFrame({"run": [1]}), tmp_path / "run=9", partition_by=[])
    with pytest.raises(DatasetError, match="named like a column, run"):
        scan_dataset(tmp_path / "run=9")


def test_relative_roots_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(ticks(("A", NOON, 1, 1)), "set", partition_by="product_id")
    assert scan_dataset("set").collect().height == 1
    assert scan_dataset("./set").filter(product_id="A").collect().height == 1


def test_rows_can_be_written_again_from_a_scan(tmp_path: Path) -> None:
    days(tmp_path)
    before = scan_dataset(tmp_path).collect()
    write_dataset(scan_dataset(tmp_path), tmp_path, partition_by=["product_id", "date"])
    assert scan_dataset(tmp_path).collect().equals(before)


def test_nothing_there_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such folder.*holds: nothing\. Write one with write_dataset"):
        scan_dataset(tmp_path / "none")
    write_dataset(level2(), tmp_path / "out", table="level2", partition_by="date")
    with pytest.raises(DatasetError, match=r"no part_.*holds: level2\. Give a table"):
        scan_dataset(tmp_path / "out")
    with pytest.raises(DatasetError, match=r"no such folder.*holds: level2\. Give another table"):
        scan_dataset(tmp_path / "out", "levle2")
    with pytest.raises(ConfigError, match="not the name of a folder"):
        scan_dataset(tmp_path / "out", "../out")


def test_folders_and_files_that_disagree(tmp_path: Path) -> None:
    write_dataset(ticks(("A", NOON, 1, 1)), tmp_path / "a", partition_by="product_id")
    (tmp_path / "a" / "part_x.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match="different partitions"):
        scan_dataset(tmp_path / "a")
    write_dataset(pl.DataFrame({"x": [1]}), tmp_path / "b", partition_by=[], segment="a")
    write_dataset(pl.DataFrame({"x": ["1"]}), tmp_path / "b", partition_by=[], segment="b")
    with pytest.raises(DatasetError, match=r"x is String in .*part_b.parquet, but Int64 in .*part_a"):
        scan_dataset(tmp_path / "b")
    write_dataset(pl.DataFrame({"price": [1]}), tmp_path / "level2", partition_by=[])
    with pytest.raises(DatasetError, match=r"price is Int64 in .*, but Float64 in the table"):
        scan_dataset(tmp_path, "level2")
    write_dataset(pl.DataFrame({"segment": [1]}), tmp_path / "c", partition_by=[])
    with pytest.raises(DatasetError, match="a column segment of its own"):
        scan_dataset(tmp_path / "c", segment=True)
    (tmp_path / "c" / "part_data.parquet").unlink()
    write_dataset(pl.DataFrame({"n": [1], "x": [1]}), tmp_path / "c", partition_by="n", segment="b")
    (tmp_path / "c" / "n=1").rename(tmp_path / "c" / "n=one")
    with pytest.raises(DatasetError, match="whole number"):
        scan_dataset(tmp_path / "c")
