"""Rows of a database, by a query: of PostgreSQL, SQLite or DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from cbtools import lazy
from cbtools.errors import ConfigError
from cbtools.etl.connections import database, without_password
from cbtools.etl.readers import BaseReader


@dataclass(frozen=True, repr=False)
class DatabaseReader(BaseReader):
    """Reads what a query gives from PostgreSQL, SQLite or DuckDB, batch by batch, and writes nothing there.

    Of a file, ``sqlite:///trades.db`` lies in the working folder, ``sqlite:////data/trades.db`` does not; so
    with ``duckdb``. A file is opened read-only, and PostgreSQL has the query in a read-only transaction.

    Columns have the database's types. Times with a time zone come in UTC, as precise as they are there
    (PostgreSQL: µs). A PostgreSQL ``numeric(p, s)`` of up to 38 digits is a Decimal; one without digits, as a
    sum's, is exact text, and ``CAST(... AS double precision)`` makes numbers of it. SQLite keeps types of
    values, not of columns: the first 65,536 rows decide, and a value that does not fit them later raises.
    There whole numbers and fractions together are Float64, numbers and texts together String, times the texts
    that they are stored as, and truth is 0 and 1.

    Counted are ``records_read``.

    Parameters
    ----------
    uri : str
        ``postgresql://user:password@host:5432/database``, ``sqlite:///file.db`` or ``duckdb:///file.duckdb``.
        The password is not shown.
    query : str
        One SELECT, in the database's own SQL.

    Raises
    ------
    ConfigError
        If the URI is of none of these forms, or the query is empty.

    Examples
    --------
    >>> import sqlite3, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     database = sqlite3.connect(f"{folder}/trades.db")
    ...     made = database.execute("CREATE TABLE trades AS SELECT 64000.5 AS price, 'BTC-USD' AS product_id")
    ...     database.close()
    ...     reader = DatabaseReader(f"sqlite:///{folder}/trades.db", "SELECT * FROM trades")
    ...     reader.scan().collect().rows()
    [(64000.5, 'BTC-USD')]
    """

    uri: str
    query: str

    def __post_init__(self) -> None:
        database(self.uri)
        _one_query(self.query)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({without_password(self.uri)!r}, {self.query!r})"

    def read(self, source: str | None = None) -> Iterator[dict[str, Any]]:
        """Go through the rows.

        Parameters
        ----------
        source : str, optional
            Another query, in the place of the reader's.

        Yields
        ------
        dict
            A row: column → value. Times are Python's, to the microsecond.

        Raises
        ------
        ConfigError, DatasetError
            As `scan`, and its frame when it is collected.

        Examples
        --------
        >>> next(DatabaseReader("sqlite:///:memory:", "SELECT 1 AS a, NULL AS b").read())
        {'a': 1, 'b': None}
        """
        for batch in self.scan(source).collect_batches(maintain_order=True):
            yield from batch.iter_rows(named=True)

    def scan(self, source: str | None = None) -> pl.LazyFrame:
        """Scan the rows lazily: a query of the frame runs the database's query and takes it by batches.

        The database is asked for the columns at once, and for rows when the frame is collected. What is
        filtered and selected of the frame is filtered and selected here: write it into the query to have the
        database do it. A frame that has enough rows (``head``) ends the query.

        Parameters
        ----------
        source : str, optional
            Another query, in the place of the reader's.

        Returns
        -------
        polars.LazyFrame
            Columns as the query names them, in its order.

        Raises
        ------
        ConfigError
            If the database cannot be opened, or the query cannot be run.
        DatasetError
            When the frame is collected: if the query breaks off, or a value does not fit its column.

        Examples
        --------
        >>> frame = DatabaseReader("sqlite:///:memory:", "SELECT 1 AS a, 'x' AS b").scan()
        >>> dict(frame.collect_schema())
        {'a': Int64, 'b': String}
        """
        query, ask = _one_query(self.query if source is None else source), database(self.uri)
        with ask(query) as result:
            schema = result.schema()

        def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            stats = self.stats  # of this reading: a trial of a processor has others
            stats["records_read"] += 0
            with ask(query) as result:
                for frame in result.frames(schema):
                    stats["records_read"] += frame.height
                    yield frame

        return lazy.source(batches, schema, "DATABASE")


def _one_query(query: object) -> str:
    if not isinstance(query, str) or not query.strip():
        raise ConfigError(f"{query!r} is not a query: give one SELECT, as text")
    return query.strip().rstrip(";") + "\n"  # behind a comment, it may be put into brackets
