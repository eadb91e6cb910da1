"""SQL over a root: the rows that Polars' own queries give, and no file opened in vain."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest
from dataset.frames import NOON, SECOND, ticks

from cbtools.dataset import scan_dataset, write_dataset
from cbtools.dataset.query import query_dataset, tables_in
from cbtools.errors import ConfigError, DatasetError
from cbtools.schema import schema

DAY = 86_400 * SECOND
DAYS = [dt.date(2025, 11, 26) + dt.timedelta(day) for day in range(4)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write two tables: three products' ticks of four days, and the products' names."""
    rows = [(f"P{p}-USD", NOON + day * DAY, day, p + 1) for p in range(3) for day in range(4)]
    write_dataset(ticks(*rows), tmp_path / "ticks", partition_by=["product_id", "date"])
    names = pl.DataFrame({"product_id": [f"P{p}-USD" for p in range(3)], "name": ["a", "b", "c"]})
    write_dataset(names, tmp_path / "names", partition_by=[])
    (tmp_path / "_runs").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").write_text("not a table")
    return tmp_path


def test_a_query_gives_what_the_same_in_polars_gives(root: Path) -> None:
    sql = """
        SELECT name, date, sum(line) AS lines FROM ticks JOIN names USING (product_id)
        WHERE date >= '2025-11-28' AND product_id <> 'P1-USD' GROUP BY name, date ORDER BY name, date
    """
    frame = query_dataset(root, sql)
    assert isinstance(frame, pl.LazyFrame)
    expected = (
        scan_dataset(root, "ticks")
        .join(scan_dataset(root, "names"), on="product_id")
        .filter(pl.col("date") >= DAYS[2], pl.col("product_id") != "P1-USD")
        .group_by("name", "date")
        .agg(lines=pl.col("line").sum())
        .sort("name", "date")
    )
    assert frame.collect().equals(expected.collect())
    assert frame.collect().rows() == [(name, day, n) for name, n in (("a", 1), ("c", 3)) for day in DAYS[2:]]


def test_the_files_of_other_partitions_and_tables_may_be_garbage(root: Path) -> None:
    """So none of them is opened."""
    mine = root / "ticks/product_id=P1-USD/date=2025-11-28/part_data.parquet"
    sql = "SELECT line, sequence_num FROM ticks WHERE product_id = 'P1-USD' AND date = '2025-11-28'"
    assert str(mine) in query_dataset(root, sql).explain()
    for path in root.rglob("part_*.parquet"):
        if path != mine:
            path.write_bytes(b"garbage")
    assert query_dataset(root, sql).collect().rows() == [(2, 2)]
    assert query_dataset(root, sql).collect(engine="streaming").rows() == [(2, 2)]
    with pytest.raises(pl.exceptions.ComputeError):
        query_dataset(root, "SELECT line FROM ticks WHERE date = '2025-11-28'").collect()


def test_a_filter_behind_the_query_goes_into_it(root: Path) -> None:
    frame = query_dataset(root, "SELECT * FROM ticks").filter(product_id="P1-USD", date=DAYS[2])
    assert "Parquet SCAN [" + str(root / "ticks/product_id=P1-USD/date=2025-11-28") in frame.explain()
    assert frame.collect().height == 1


def test_a_root_that_is_a_dataset_is_self(root: Path) -> None:
    counted = query_dataset(root / "ticks", "SELECT count(*) AS n FROM self WHERE product_id = 'P0-USD'")
    assert counted.collect().item() == 4


def test_a_table_of_ours_has_its_columns_types(tmp_path: Path) -> None:
    write_dataset(ticks(("A", NOON, 1, 1)), tmp_path / "level2", partition_by=["product_id", "date"])
    found = query_dataset(tmp_path, "SELECT * FROM level2").collect_schema()
    assert dict(found) == {**schema("level2"), "date": pl.Date}


def test_the_tables_of_a_root(root: Path) -> None:
    assert tables_in(root) == {"names": root / "names", "ticks": root / "ticks"}
    assert tables_in(root / "ticks") == {"self": root / "ticks"}


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM tick", r"relation 'tick' was not found\. Tables in .*: names, ticks"),
        ("SELECT nothing FROM ticks", r"nothing.* Tables in .*: names, ticks"),
        ("SELEC line FROM ticks", r"parser error.* Tables in .*: names, ticks"),
        ("DROP TABLE ticks", "gives no columns: give a SELECT of names, ticks"),
        ("", "'' is not a query: give one SELECT"),
        (None, "None is not a query: give one SELECT"),
    ],
)
def test_a_query_that_cannot_be_run_is_told_at_once(root: Path, sql, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        query_dataset(root, sql)
    assert len(str(told.value)) < 300 + len(str(root))


def test_a_root_without_tables_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no dataset: give a root of datasets"):
        query_dataset(tmp_path, "SELECT 1 AS a")
    with pytest.raises(DatasetError, match="is no folder"):
        query_dataset(tmp_path / "none", "SELECT 1 AS a")
