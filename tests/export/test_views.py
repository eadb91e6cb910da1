"""DuckDB sees the tables of a root as they are, and scans no file in vain."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
from dataset.frames import NOON, SECOND, level2, ticks

from cbtools.dataset import DatasetWriter, compact_dataset, scan_dataset, write_dataset
from cbtools.errors import ConfigError, DatasetError
from cbtools.export.views import create_views
from cbtools.schema import SIDE

DAY = 86_400 * SECOND


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def days(root: Path, *, products: int = 3, number: int = 4, segment: str = "a") -> list[Path]:
    """Write a table of some products and days, a row each."""
    rows = [(f"P{p}-USD", NOON + day * DAY, day, p + 1) for p in range(products) for day in range(number)]
    written = write_dataset(
        ticks(*rows), root / "ticks", partition_by=["product_id", "date", "hour"], segment=segment
    )
    return [part.path for part in written.parts]


def kinds(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {view}").fetchall()}


def plan(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    return str(connection.execute(f"EXPLAIN {sql}").fetchall()[0][1])


def test_a_view_for_each_table_has_its_rows_and_types(tmp_path: Path, connection) -> None:
    write_dataset(level2(50), tmp_path, table="level2", partition_by=["product_id", "date", "hour"])
    days(tmp_path)
    (tmp_path / "_runs").mkdir()
    assert create_views(connection, tmp_path) == ["level2", "ticks"]
    found = kinds(connection, "level2")
    assert (found["product_id"], found["date"], found["hour"]) == ("VARCHAR", "DATE", "TINYINT")
    assert set(found) == set(scan_dataset(tmp_path, "level2").collect_schema())
    sql = "SELECT product_id, side, price, size, sequence_num, line, date, hour FROM level2 ORDER BY line"
    got = connection.sql(sql).pl()
    expected = scan_dataset(tmp_path, "level2").select(got.columns).sort("line").collect()
    assert got.cast({"side": SIDE}).equals(expected)


def test_partition_columns_have_the_types_they_were_written_with(tmp_path: Path, connection) -> None:
    frame = pl.DataFrame(
        {
            "text": ["007", "2025-11-26", None],
            "flag": [True, None, False],
            "small": pl.Series([-1, None, 127], dtype=pl.Int8),
            "large": pl.Series([2**64 - 1, None, 0], dtype=pl.UInt64),
            "day": [dt.date(1960, 1, 1), None, dt.date(2025, 11, 26)],
            "side": pl.Series(["ask", None, "bid"], dtype=SIDE),
            "i": [0, 1, 2],
        }
    )
    write_dataset(frame, tmp_path / "odd", partition_by=frame.columns[:-1])
    create_views(connection, tmp_path)
    assert kinds(connection, "odd") == {
        "text": "VARCHAR",
        "flag": "BOOLEAN",
        "small": "TINYINT",
        "large": "UBIGINT",
        "day": "DATE",
        "side": "VARCHAR",
        "i": "BIGINT",
    }
    rows = connection.execute(f"SELECT {', '.join(frame.columns)} FROM odd ORDER BY i").fetchall()
    assert rows == frame.rows()


def test_a_query_scans_only_the_files_of_its_partitions(tmp_path: Path, connection) -> None:
    paths = days(tmp_path)
    create_views(connection, tmp_path)
    sql = "SELECT line, sequence_num FROM ticks WHERE product_id = 'P1-USD' AND date = DATE '2025-11-28'"
    assert "Scanning Files: 1/12" in plan(connection, sql)
    assert "Scanning Files: 4/12" in plan(connection, "SELECT line FROM ticks WHERE product_id = 'P1-USD'")
    assert "Scanning Files: 3/12" in plan(connection, "SELECT line FROM ticks WHERE date = '2025-11-28'")
    assert connection.execute(sql).fetchall() == [(2, 2)]
    assert "P1-USD/date=2025-11-28" in paths[6].as_posix()


def test_only_finished_parts_are_read_and_later_ones_too(tmp_path: Path, connection) -> None:
    days(tmp_path, products=1)
    create_views(connection, tmp_path)
    (tmp_path / "ticks/_old/x=1").mkdir(parents=True)
    (tmp_path / "ticks/_old/x=1/part_x.parquet").write_bytes(b"not ours")
    inner = tmp_path / "ticks/product_id=P0-USD/date=2025-11-26/hour=12"
    (inner / "notes.parquet").write_bytes(b"not ours")
    counted = "SELECT count(*) FROM ticks"
    by = ["product_id", "date", "hour"]
    with DatasetWriter(tmp_path / "ticks", partition_by=by, segment="b", buffer_bytes=0) as writer:
        writer.write(ticks(("P0-USD", NOON, 9, 9), ("NEW", NOON, 9, 9)))
        writer.finish()
        assert list(inner.glob(".part_*.tmp"))
        assert connection.execute(counted).fetchone() == (4,)
        writer.publish()
    assert connection.execute(counted).fetchone() == (6,)
    found = connection.execute("SELECT line, date FROM ticks WHERE product_id = 'NEW'").fetchall()
    assert found == [(9, dt.date(2025, 11, 26))]


def test_creating_them_again_replaces_them(tmp_path: Path, connection) -> None:
    days(tmp_path, products=1)
    assert create_views(connection, tmp_path) == create_views(connection, tmp_path) == ["ticks"]
    wider = ticks(("P0-USD", NOON, 1, 1)).with_columns(ofi=pl.lit(1.5))
    write_dataset(wider, tmp_path / "ticks", partition_by=["product_id", "date", "hour"], segment="b")
    assert create_views(connection, tmp_path) == ["ticks"]
    assert connection.execute("SELECT count(*), count(ofi) FROM ticks").fetchone() == (5, 1)
    found = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    assert found == [("ticks",)]


def test_a_compacted_table_has_the_same_rows_and_columns(tmp_path: Path, connection) -> None:
    days(tmp_path, segment="a")
    create_views(connection, tmp_path)
    days(tmp_path, segment="b")
    everything = "SELECT * REPLACE (epoch_ns(server_time) AS server_time) FROM ticks ORDER BY ALL"
    before = connection.execute(everything).fetchall()
    columns = kinds(connection, "ticks")
    compact_dataset(tmp_path)
    assert len(list(tmp_path.rglob("part_*.parquet"))) == 12
    assert connection.execute(everything).fetchall() == before
    create_views(connection, tmp_path)
    assert connection.execute(everything).fetchall() == before
    assert kinds(connection, "ticks") == columns
    assert (len(before), set(columns)) == (24, set(scan_dataset(tmp_path, "ticks").collect_schema()))


def test_a_compaction_that_broke_off_is_told(tmp_path: Path, connection) -> None:
    kept = days(tmp_path, products=1, number=1, segment="a")[0]
    content = kept.read_bytes()
    days(tmp_path, products=1, number=1, segment="b")
    compact_dataset(tmp_path)
    kept.write_bytes(content)
    with pytest.raises(DatasetError, match=r"part_a\.parquet is still there, .*twice\. Call compact_dataset"):
        create_views(connection, tmp_path)
    compact_dataset(tmp_path)
    create_views(connection, tmp_path)
    assert connection.execute("SELECT count(*) FROM ticks").fetchone() == (2,)


def test_a_path_may_hold_any_sign(tmp_path: Path, connection) -> None:
    root = tmp_path / 'it\'s 100%20 [x]*? "ü"' / "run=7" / "more=x"
    days(root)
    days(tmp_path / 'it\'s 100%20 xa "ü"' / "run=7" / "more=x")  # what it would be as a pattern
    write_dataset(pl.DataFrame({"x": [1]}), root / "plain", partition_by=[])
    create_views(connection, root)
    assert connection.execute("SELECT count(*) FROM ticks").fetchone() == (12,)
    assert set(kinds(connection, "ticks")) == set(scan_dataset(root, "ticks").collect_schema())
    assert kinds(connection, "plain") == {"x": "BIGINT"}
    assert "Scanning Files: 4/12" in plan(connection, "SELECT line FROM ticks WHERE product_id = 'P1-USD'")


def test_a_relative_root_stays_where_it_is(tmp_path: Path, connection, monkeypatch) -> None:
    days(tmp_path)
    monkeypatch.chdir(tmp_path)
    create_views(connection, ".")
    monkeypatch.chdir("/")
    assert connection.execute("SELECT count(*) FROM ticks").fetchone() == (12,)


def test_a_root_that_is_a_dataset_is_self(tmp_path: Path, connection) -> None:
    days(tmp_path)
    assert create_views(connection, tmp_path / "ticks") == ["self"]
    assert connection.execute("SELECT count(*) FROM self WHERE date = '2025-11-26'").fetchone() == (3,)


def test_views_may_have_a_schema_of_their_own(tmp_path: Path, connection) -> None:
    days(tmp_path)
    connection.execute("CREATE TABLE ticks AS SELECT 1 AS mine")
    with pytest.raises(ConfigError, match=r"(?s)DuckDB refuses a view of .*ticks.*Give another schema="):
        create_views(connection, tmp_path)
    assert create_views(connection, tmp_path, schema='my "data"') == ["ticks"]
    assert connection.execute('SELECT count(*) FROM "my ""data""".ticks').fetchone() == (12,)
    assert connection.execute("SELECT * FROM ticks").fetchall() == [(1,)]


def test_views_stay_in_a_database_file(tmp_path: Path) -> None:
    days(tmp_path / "root")
    path = str(tmp_path / "a.duckdb")
    with duckdb.connect(path) as connection:
        create_views(connection, tmp_path / "root")
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM ticks").fetchone() == (12,)


def test_a_root_without_tables_is_told(tmp_path: Path, connection) -> None:
    with pytest.raises(DatasetError, match="holds no dataset"):
        create_views(connection, tmp_path)
