"""Rows come from PostgreSQL, SQLite and DuckDB as they are there, by batches; nothing is written there."""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import postgres
import pytest
import tiers

import cbtools as cb
from cbtools.errors import ConfigError, DatasetError
from cbtools.etl import DatabaseReader, ETLPipeline, ParquetWriter

UTC = dt.UTC
NOON = dt.datetime(2025, 11, 26, 12, 0, 0, 123456, tzinfo=UTC)
MANY = 200_000  # some batches


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """Give the URI of a PostgreSQL server of this file's own, with two tables."""
    import adbc_driver_postgresql.dbapi as driver

    with postgres.server() as uri:
        with driver.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(
                """CREATE TABLE trades (
                    id bigint, product_id text, price numeric(20, 8), size double precision, buys boolean,
                    at timestamptz, local timestamp, day date, small smallint, raw bytea, many integer[]
                )"""
            )
            cursor.execute(
                r"""INSERT INTO trades VALUES (
                    9007199254740993, 'BTC-ü', 64000.12345678, 0.1, true, '2025-11-26 14:00:00.123456+02',
                    '2025-11-26 12:00', '2025-11-26', 7, '\x00ff', '{1, null}'
                )"""
            )
            cursor.execute("INSERT INTO trades (id) VALUES (null)")
            cursor.execute("CREATE SEQUENCE counter")
            cursor.execute(f"CREATE TABLE many AS SELECT g AS n FROM generate_series(1, {MANY}) g")
        yield uri


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sqlite") / "it's 100%20 [a]?#.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE trades (id INTEGER, product_id TEXT, price REAL, buys BOOLEAN, raw BLOB)")
    row = (9007199254740993, "BTC-ü", 64000.5, True, b"\x00\xff")
    database.executemany("INSERT INTO trades VALUES (?, ?, ?, ?, ?)", [row, (None,) * 5])
    database.execute("CREATE TABLE many AS SELECT 0 AS n, NULL AS late LIMIT 0")
    database.executemany("INSERT INTO many (n) VALUES (?)", ((n,) for n in range(1, MANY + 1)))
    database.commit()
    database.close()
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("duck") / "it's 100%20 [a]?#.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """CREATE TABLE trades AS SELECT
                9007199254740993::BIGINT AS id, 'BTC-ü' AS product_id, 64000.12345678::DECIMAL(20, 8) price,
                0.1::DOUBLE AS size, true AS buys, TIMESTAMPTZ '2025-11-26 14:00:00.123456+02' AS at,
                TIMESTAMP_NS '2025-11-26 12:00:00.123456789' AS local, DATE '2025-11-26' AS day,
                7::TINYINT AS small, '\\x00\\xFF'::BLOB AS raw, [1, null] AS many"""
        )
        connection.execute("INSERT INTO trades (id) VALUES (null)")
        connection.execute(f"CREATE TABLE many AS SELECT n FROM range(1, {MANY + 1}) t(n)")
    return f"duckdb:///{path}"


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.ci), "sqlite", "duck"])
def uri(request: pytest.FixtureRequest) -> str:
    """Give each of the databases in turn."""
    return str(request.getfixturevalue(request.param))


# --- types


@pytest.mark.ci
def test_postgresql_s_types_come_as_they_are(postgresql: str) -> None:
    frame = DatabaseReader(postgresql, "SELECT * FROM trades ORDER BY id").scan().collect()
    assert dict(frame.schema) == {
        "id": pl.Int64,
        "product_id": pl.String,
        "price": pl.Decimal(20, 8),
        "size": pl.Float64,
        "buys": pl.Boolean,
        "at": pl.Datetime("us", "UTC"),
        "local": pl.Datetime("us"),
        "day": pl.Date,
        "small": pl.Int16,
        "raw": pl.Binary,
        "many": pl.List(pl.Int32),
    }
    noon, day = dt.datetime(2025, 11, 26, 12), dt.date(2025, 11, 26)
    first = (9007199254740993, "BTC-ü", Decimal("64000.12345678"), 0.1, True, NOON, noon, day, 7, b"\x00\xff")
    assert frame.rows() == [(*first, [1, None]), (None,) * 11]


@pytest.mark.ci
def test_postgresql_s_numeric_without_digits_is_exact_text(postgresql: str) -> None:
    query = "SELECT sum(price) AS total, 'NaN'::numeric AS no, 1e-30::numeric AS tiny FROM trades"
    frame = DatabaseReader(postgresql, query).scan().collect()
    assert frame.rows() == [("64000.12345678", "nan", "0." + 29 * "0" + "1")]
    query = "SELECT sum(price)::double precision AS total, 1.5::numeric(40, 2) AS long FROM trades"
    assert DatabaseReader(postgresql, query).scan().collect().rows() == [(64000.12345678, "1.50")]


@pytest.mark.ci
def test_a_decimal_that_is_no_number_is_told(postgresql: str) -> None:
    reader = DatabaseReader(postgresql, "SELECT 'NaN'::numeric(8, 2) AS price")
    with pytest.raises(DatasetError, match=r"broke off after 0 rows: .*nan(?s:.*)CAST"):
        reader.scan().collect()


def test_sqlite_s_types_are_those_of_its_values(sqlite: str) -> None:
    frame = DatabaseReader(sqlite, "SELECT * FROM trades ORDER BY id DESC").scan().collect()
    assert dict(frame.schema) == {
        "id": pl.Int64,
        "product_id": pl.String,
        "price": pl.Float64,
        "buys": pl.Int64,
        "raw": pl.Binary,
    }
    assert frame.rows() == [(9007199254740993, "BTC-ü", 64000.5, 1, b"\x00\xff"), (None,) * 5]


def test_duckdb_s_types_come_as_they_are(duck: str) -> None:
    frame = DatabaseReader(duck, "SELECT * FROM trades ORDER BY id").scan().collect()
    assert dict(frame.schema) == {
        "id": pl.Int64,
        "product_id": pl.String,
        "price": pl.Decimal(20, 8),
        "size": pl.Float64,
        "buys": pl.Boolean,
        "at": pl.Datetime("us", "UTC"),
        "local": pl.Datetime("ns"),
        "day": pl.Date,
        "small": pl.Int8,
        "raw": pl.Binary,
        "many": pl.List(pl.Int32),
    }
    local = frame["local"].cast(pl.Int64)[0]
    assert local == 1_764_158_400_123_456_789
    first = (9007199254740993, "BTC-ü", Decimal("64000.12345678"), 0.1, True, NOON)
    assert frame.drop("local").row(0) == (*first, dt.date(2025, 11, 26), 7, b"\x00\xff", [1, None])
    assert frame.row(1) == (None,) * 11


# --- SQLite, where a column may hold anything


def values(path: Path, *found: object) -> DatabaseReader:
    database = sqlite3.connect(path)
    database.execute("DROP TABLE IF EXISTS t")
    database.execute("CREATE TABLE t (v)")
    database.executemany("INSERT INTO t VALUES (?)", [(value,) for value in found])
    database.commit()
    database.close()
    return DatabaseReader(f"sqlite:///{path}", "SELECT v FROM t")


FULL = 65_536  # a batch


@tiers.parametrize(
    ("found", "dtype", "last"),
    [
        ([1, 1.5], pl.Float64, 1.5),
        ([1.5, None, 2], pl.Float64, 2.0),
        ([1, "x"], pl.String, "x"),
        ([1.23456789012345, "x"], pl.String, "x"),
        ([*[None] * FULL, 7], pl.Int64, 7),
        ([*[None] * FULL, "x"], pl.String, "x"),
        ([*[None] * FULL, b"\x00"], pl.Binary, b"\x00"),
        ([*[None] * FULL, 0.5], pl.Float64, 0.5),
        ([*[0.5] * FULL, 2], pl.Float64, 2.0),
        ([*["x"] * FULL, 2], pl.String, "2"),
        ([*["x"] * FULL, 1.23456789012345], pl.String, "1.23456789012345"),
        ([*[1] * FULL, None], pl.Int64, None),
        ([None], pl.Null, None),
    ],
    every=4,
)
def test_sqlite_s_mixed_columns_lose_nothing(tmp_path: Path, found, dtype, last) -> None:
    frame = values(tmp_path / "a.db", *found).scan().collect()
    assert frame.schema == {"v": dtype}
    assert (frame.height, frame["v"].to_list()[-1]) == (len(found), last)
    assert frame["v"].null_count() == found.count(None)


@pytest.mark.parametrize(
    "found", [[*[1] * FULL, 1.5], [*[1] * FULL, "x"], [*[0.5] * FULL, "x"], [*[b"x"] * FULL, 1]]
)
def test_sqlite_s_value_that_does_not_fit_is_told(tmp_path: Path, found) -> None:
    frame = values(tmp_path / "a.db", *found).scan()
    with pytest.raises(
        DatasetError, match=r"v is \w+ in the first rows, but \w+ from row 65,537 .*CAST\(v AS"
    ):
        frame.collect()


def test_sqlite_s_numbers_and_bytes_in_one_column_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not take the query: .*binary"):
        values(tmp_path / "a.db", 1, b"x").scan()


def test_sqlite_s_empty_result_has_columns(sqlite: str) -> None:
    frame = DatabaseReader(sqlite, 'SELECT id, price AS "a ""b""" FROM trades WHERE false').scan().collect()
    assert frame.schema == {"id": pl.Null, 'a "b"': pl.Null}


# --- every database


@pytest.mark.ci
def test_rows_come_in_batches_and_a_limit_ends_the_query(uri: str) -> None:
    wide = "x" * 200  # several batches also of PostgreSQL, whose batches have 16 MB
    reader = DatabaseReader(uri, f"SELECT n, '{wide}' AS wide FROM many ORDER BY n")
    frame = reader.scan()
    assert reader.get_stats() == {}
    assert frame.collect()["n"].to_list() == list(range(1, MANY + 1))
    assert reader.get_stats() == {"records_read": MANY}
    reader.reset_stats()
    assert frame.head(3).collect()["n"].to_list() == [1, 2, 3]
    assert 3 <= reader.get_stats()["records_read"] < MANY
    assert frame.filter(pl.col("n") > MANY - 2).select(m=pl.col("n") * 2).collect()["m"].to_list() == [
        2 * MANY - 2,
        2 * MANY,
    ]


def test_a_frame_can_be_written_as_a_dataset(uri: str, tmp_path: Path) -> None:
    frame = DatabaseReader(uri, "SELECT n, n % 3 AS k FROM many").scan()
    written = cb.write_dataset(frame, tmp_path / "out", partition_by="k")
    assert written.rows == MANY
    ones = cb.scan_dataset(tmp_path / "out").filter(k=1).select(pl.col("n").cast(pl.Int64).sum())
    assert ones.collect().item() == sum(range(1, MANY + 1, 3))


def test_read_iterates_over_rows_as_dicts(uri: str) -> None:
    reader = DatabaseReader(uri, "SELECT id, product_id FROM trades WHERE id IS NOT NULL")
    assert list(reader.read()) == [{"id": 9007199254740993, "product_id": "BTC-ü"}]


def test_another_query_may_be_given(uri: str) -> None:
    reader = DatabaseReader(uri, "SELECT 1 AS a")
    assert reader.scan("SELECT 2 AS b -- of it\n").collect().to_dicts() == [{"b": 2}]
    assert list(reader.read("SELECT 3 AS c;")) == [{"c": 3}]
    assert reader.scan().collect().to_dicts() == [{"a": 1}]


def test_nothing_is_written(uri: str) -> None:
    for query in ("CREATE TABLE mine (i integer)", "DROP TABLE trades", "DELETE FROM trades RETURNING id"):
        with pytest.raises((ConfigError, DatasetError)):
            DatabaseReader(uri, query).scan().collect()
    assert DatabaseReader(uri, "SELECT count(*) AS n FROM trades").scan().collect().item() == 2


@pytest.mark.ci
def test_postgresql_refuses_what_no_rollback_would_undo(postgresql: str) -> None:
    with pytest.raises(DatasetError, match=r"nextval\(\) in a read-only transaction"):
        DatabaseReader(postgresql, "SELECT nextval('counter') AS n").scan().collect()


def test_a_query_that_cannot_be_run_is_told_at_once(uri: str) -> None:
    for query in ("SELECT 1 FRM nothing", "SELECT * FROM nothing_like_it", "SELECT nothing FROM trades"):
        reader = DatabaseReader(uri, query)
        with pytest.raises(ConfigError, match=r"(?s)does not take the query: .*nothing.*\nGive one SELECT"):
            reader.scan()


def test_a_column_named_twice_is_told(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"twice|more than once"):
        DatabaseReader(uri, "SELECT 1 AS a, 2 AS a").scan()


@tiers.parametrize("which", ["duck", "postgresql"], every=2)
def test_an_interval_is_told(request: pytest.FixtureRequest, which: str) -> None:
    with pytest.raises(ConfigError, match=r"v is an interval.*CAST\(v AS text\)"):
        DatabaseReader(request.getfixturevalue(which), "SELECT INTERVAL '1 day' AS v").scan()


@tiers.parametrize("which", ["duck", "postgresql"], every=2)
def test_a_query_that_breaks_off_is_told(request: pytest.FixtureRequest, which: str) -> None:
    query = f"SELECT CAST(CASE WHEN n < {MANY} THEN '1' ELSE 'x' END AS integer) AS v FROM many ORDER BY n"
    frame = DatabaseReader(request.getfixturevalue(which), query).scan()
    with pytest.raises(
        DatasetError, match=r"(?s)broke off after [\d,]+ rows: .*x.*\nMend the rows or the query"
    ):
        frame.collect()


def test_a_pipeline_reads_from_a_database(uri: str, tmp_path: Path) -> None:
    reader = DatabaseReader(uri, "SELECT n FROM many WHERE n <= 10")
    pipeline = ETLPipeline(reader, [lambda frame: frame.filter(pl.col("n") > 7)], ParquetWriter())
    assert pipeline.execute(None, tmp_path / "out").rows == 3
    assert sorted(cb.scan_dataset(tmp_path / "out").collect()["n"].to_list()) == [8, 9, 10]
    assert pipeline.get_stats()["reader"] == {"records_read": 10}


# --- what cannot be opened


@pytest.mark.parametrize(
    "uri", ["mysql://me:secret@host/db", "trades.db", "sqlite://x.db", "duckdb:///", "", None]
)
def test_another_uri_is_told(uri) -> None:
    with pytest.raises(ConfigError, match=r"names no database that can be read: give postgresql://") as told:
        DatabaseReader(uri, "SELECT 1")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("query", ["", " \n", None, Path("trades.ndjson")])
def test_no_query_is_told(query) -> None:
    with pytest.raises(ConfigError, match="is not a query: give one SELECT"):
        DatabaseReader("sqlite:///trades.db", query)


def test_what_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    for scheme in ("sqlite", "duckdb"):
        path = tmp_path / "none.db"
        with pytest.raises(ConfigError, match=r"(?s)cannot open .*none\.db: .*Check the URI"):
            DatabaseReader(f"{scheme}:///{path}", "SELECT 1").scan()
        assert not path.exists()
        (tmp_path / "text.db").write_text("no database" * 1000)
        with pytest.raises(ConfigError, match=r"(?s)cannot open .*text\.db: .*Check the URI"):
            DatabaseReader(f"{scheme}:///{tmp_path}/text.db", "SELECT 1").scan()


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    uri = f"postgresql://me:secret@/db?host={tmp_path}"
    reader = DatabaseReader(uri, "SELECT 1")
    with pytest.raises(
        ConfigError, match=r"cannot open postgresql://me:\*\*\*@/db\?host=.*Check the URI"
    ) as told:
        reader.scan()
    assert "secret" not in str(told.value) + repr(reader)
    assert repr(reader) == f"DatabaseReader('postgresql://me:***@/db?host={tmp_path}', 'SELECT 1')"
    other = DatabaseReader("postgresql://h/db?user=me&password=secret", "SELECT 1")
    assert repr(other) == "DatabaseReader('postgresql://h/db?user=me&password=***', 'SELECT 1')"


@pytest.mark.parametrize(
    ("uri", "module"),
    [("postgresql://h/db", "adbc_driver_postgresql.dbapi"), ("duckdb:///a.duckdb", "adbc_driver_duckdb")],
)
def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch, uri: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'cbtools\[database\]'"):
        DatabaseReader(uri, "SELECT 1").scan()
