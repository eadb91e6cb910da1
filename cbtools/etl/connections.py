"""A query on a database, by URI: its columns, and its rows in batches. Nothing is written there.

PostgreSQL and DuckDB give Arrow batches through ADBC; SQLite, which has no types for columns, gives rows to
Polars' read_database.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Final, Protocol
from urllib.parse import quote

import polars as pl

from cbtools.errors import ConfigError, DatasetError

BATCH_ROWS: Final = 65_536
"""A batch has at least as many rows, if there are (of SQLite: as many)."""

_LONGEST_DECIMAL: Final = 38
_NUMERIC_HEADER: Final = 4  # PostgreSQL's type modifier of numeric(p, s) is (p << 16 | s) + 4
_FORMS: Final = "postgresql://user:password@host:5432/database, sqlite:///file.db or duckdb:///file.duckdb"
_INSTALL: Final = "install it with: pip install 'cbtools[database]'"
_SQLITE_KINDS: Final = {"integer": pl.Int64(), "real": pl.Float64(), "text": pl.String(), "blob": pl.Binary()}
_FITS: Final[Mapping[pl.DataType, Collection[pl.DataType]]] = {
    pl.Float64(): {pl.Int64()},
    pl.String(): {pl.Int64(), pl.Float64()},
    pl.Binary(): {pl.String()},
}
"""Which other types Polars takes into one, where a batch has values of both: without loss, or as numbers."""


class Result(Protocol):
    """What a query gives."""

    def schema(self) -> pl.Schema:
        """Ask for the columns alone; a ConfigError if the query cannot be run."""

    def frames(self, schema: pl.Schema) -> Iterator[pl.DataFrame]:
        """Run it for its rows; a DatasetError if it breaks off."""


Ask = Callable[[str], AbstractContextManager[Result]]
"""Opens the database for one query; a ConfigError if it cannot be opened."""


def database(uri: str) -> Ask:
    """Find how to ask a database.

    Parameters
    ----------
    uri : str
        ``postgresql://…``, ``sqlite:///…`` or ``duckdb:///…``.

    Returns
    -------
    callable
        Given a query, a context in which the database is open.

    Raises
    ------
    ConfigError
        If the URI is of no such form.

    Examples
    --------
    >>> with database("sqlite:///:memory:")("SELECT 1 AS a") as result:
    ...     dict(result.schema())
    {'a': Int64}
    """
    scheme, separator, rest = uri.partition("://") if isinstance(uri, str) else ("", "", "")
    if separator and rest and scheme in ("postgresql", "postgres"):
        return lambda query: _adbc(uri, query, *_postgresql(uri))
    if separator and len(rest) > 1 and rest[0] == "/" and scheme == "sqlite":
        return lambda query: _sqlite(uri, rest[1:], query)
    if separator and len(rest) > 1 and rest[0] == "/" and scheme == "duckdb":
        return lambda query: _adbc(uri, query, *_duckdb(rest[1:]))
    shown = repr(without_password(uri)) if isinstance(uri, str) else repr(uri)
    raise ConfigError(f"{shown} names no database that can be read: give {_FORMS}")


def without_password(text: str) -> str:
    """Hide the password of URIs in a text.

    Examples
    --------
    >>> without_password("postgresql://me:secret@here/db")
    'postgresql://me:***@here/db'
    """
    return re.sub(r"(?<=password=)[^&\s]+", "***", re.sub(r"(://[^:/@?\s]*:)[^/\s]*@", r"\1***@", text))


def _cannot_open(uri: str, error: Exception) -> ConfigError:
    told = without_password(" ".join(str(error).split()))
    shown = without_password(uri)
    return ConfigError(f"cannot open {shown}: {told}. Check the URI, and that the server or file is there")


def _cannot_run(error: Exception) -> ConfigError:
    return ConfigError(
        f"the database does not take the query: {str(error).strip()}\nGive one SELECT in its own SQL"
    )


def _broke_off(rows: int, error: Exception) -> DatasetError:
    return DatasetError(
        f"the query broke off after {rows:,} rows: {str(error).strip()}\n"
        "Mend the rows or the query (CAST, WHERE), and read again"
    )


# --- through ADBC


def _postgresql(uri: str) -> tuple[Callable[[], Any], tuple[str, ...]]:
    try:
        import adbc_driver_postgresql.dbapi as driver
    except ImportError as error:
        raise ConfigError(f"PostgreSQL is read by adbc-driver-postgresql: {_INSTALL}") from error
    return lambda: driver.connect(uri), ("SET TRANSACTION READ ONLY",)


def _duckdb(path: str) -> tuple[Callable[[], Any], tuple[str, ...]]:
    try:
        import adbc_driver_duckdb
        import adbc_driver_manager.dbapi as driver
    except ImportError as error:
        raise ConfigError(f"DuckDB is read by duckdb and adbc-driver-manager: {_INSTALL}") from error
    options = {
        "driver": adbc_driver_duckdb.driver_path(),
        "entrypoint": "duckdb_adbc_init",
        "db_kwargs": {"path": path, "access_mode": "read_only"},
        "autocommit": True,
    }
    return lambda: driver.connect(**options), ()


@contextmanager
def _adbc(uri: str, query: str, connect: Callable[[], Any], first: tuple[str, ...]) -> Iterator[Result]:
    import adbc_driver_manager

    try:
        connection = connect()
    except adbc_driver_manager.Error as error:
        raise _cannot_open(uri, error) from error
    with connection, connection.cursor() as cursor:
        for statement in first:
            cursor.execute(statement)
        yield _Adbc(cursor, query, adbc_driver_manager.Error)


class _Adbc:
    def __init__(self, cursor: Any, query: str, error: type[Exception]) -> None:
        self._cursor, self._query, self._error = cursor, query, error

    def schema(self) -> pl.Schema:
        try:
            there = self._cursor.adbc_execute_schema(self._query)
        except self._error as error:
            raise _cannot_run(error) from error
        _check_columns(there)
        return _frame(there.empty_table()).schema

    def frames(self, schema: pl.Schema) -> Iterator[pl.DataFrame]:
        import pyarrow as pa

        rows = 0
        try:
            self._cursor.execute(self._query)
            reader = self._cursor.fetch_record_batch()
            for batches in _grouped(reader):
                frame = _frame(pa.Table.from_batches(batches, reader.schema)).match_to_schema(schema)
                yield frame
                rows += frame.height
        except (self._error, OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
            raise _broke_off(rows, error) from error


def _grouped(reader: Any) -> Iterator[list[Any]]:
    """Take small batches (DuckDB's have 2,048 rows) together."""
    waiting: list[Any] = []
    rows = 0
    for batch in reader:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= BATCH_ROWS:
            yield waiting
            waiting, rows = [], 0
    if rows:
        yield waiting


def _check_columns(schema: Any) -> None:
    import pyarrow as pa

    if not len(schema):
        raise ConfigError("the query gives no columns: give a SELECT")
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"the query names a column twice: {', '.join(twice)}. Name one anew: SELECT ... AS ..."
        )
    for column in schema:
        if pa.types.is_interval(column.type):
            raise ConfigError(
                f"{column.name} is an interval, which has no fixed length: "
                f"SELECT CAST({column.name} AS text), or EXTRACT(epoch FROM {column.name}) for seconds"
            )


def _frame(table: Any) -> pl.DataFrame:
    """Give a table as a frame: decimals as such, times in UTC, of types that Polars lacks what they hold."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(
        _usual(pl.col(column.name), frame.schema[column.name], column.metadata or {})
        for column in table.schema
    )


def _usual(column: pl.Expr, dtype: pl.DataType, told: dict[bytes, bytes]) -> pl.Expr:
    if isinstance(dtype, pl.BaseExtension):
        column = column.ext.storage()
    if told.get(b"POSTGRESQL:type") == b"numeric":
        digits = int(told.get(b"POSTGRESQL:typmod", b"-1")) - _NUMERIC_HEADER
        precision, scale = digits >> 16 & 0xFFFF, digits & 0xFFFF
        if digits >= 0 and scale <= precision <= _LONGEST_DECIMAL:
            return column.cast(pl.Decimal(precision, scale))
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return column.dt.convert_time_zone("UTC")
    return column


# --- SQLite


@contextmanager
def _sqlite(uri: str, path: str, query: str) -> Iterator[Result]:
    try:  # the threads of a Polars query take turns at the connection
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise _cannot_open(uri, error) from error
    with closing(connection):
        try:
            connection.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.Error as error:
            raise _cannot_open(uri, error) from error
        yield _Sqlite(connection, query)


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection, query: str) -> None:
        self._connection, self._query = connection, query

    def schema(self) -> pl.Schema:
        """Give the types of the first batch; of a column that is null in it, that of its first value."""
        try:
            names = [told[0] for told in self._inner("*", "LIMIT 0").description]
            first = next(self._batches(), None)
            types = dict.fromkeys(names, pl.Null()) if first is None else dict(first.schema)
            return pl.Schema({name: self._first_type(name, dtype) for name, dtype in types.items()})
        except (sqlite3.Error, pl.exceptions.PolarsError) as error:
            raise _cannot_run(error) from error

    def frames(self, schema: pl.Schema) -> Iterator[pl.DataFrame]:
        rows = 0
        try:
            for frame in self._batches():
                for name, dtype in frame.schema.items():
                    if dtype not in (schema[name], pl.Null) and dtype not in _FITS.get(schema[name], ()):
                        raise DatasetError(
                            f"{name} is {schema[name]} in the first rows, but {dtype} from row {rows + 1:,} "
                            f"or soon after: SELECT CAST({name} AS ...), as REAL or TEXT"
                        )
                yield frame.cast(schema)
                rows += frame.height
        except (sqlite3.Error, pl.exceptions.PolarsError) as error:
            raise _broke_off(rows, error) from error

    def _batches(self) -> Iterator[pl.DataFrame]:
        return pl.read_database(
            self._query, self._connection, iter_batches=True, batch_size=BATCH_ROWS, infer_schema_length=None
        )

    def _first_type(self, name: str, dtype: pl.DataType) -> pl.DataType:
        if dtype != pl.Null:
            return dtype
        quoted = '"' + name.replace('"', '""') + '"'
        found = self._inner(f"typeof({quoted})", f"WHERE {quoted} IS NOT NULL LIMIT 1").fetchone()
        return _SQLITE_KINDS[found[0]] if found else dtype

    def _inner(self, what: str, rest: str) -> sqlite3.Cursor:
        return self._connection.execute(f"SELECT {what} FROM ({self._query}) {rest}")
