"""The tables of a root as views in DuckDB."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cbtools.dataset import hive
from cbtools.dataset.compacted import SEGMENT, Folder
from cbtools.dataset.query import SELF, tables_in
from cbtools.dataset.scan import scan_dataset
from cbtools.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TYPES: Final[dict[Any, str]] = {
    pl.String: "VARCHAR",
    pl.Enum: "VARCHAR",
    pl.Boolean: "BOOLEAN",
    pl.Date: "DATE",
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "UTINYINT",
    pl.UInt16: "USMALLINT",
    pl.UInt32: "UINTEGER",
    pl.UInt64: "UBIGINT",
}


def create_views(
    connection: DuckDBPyConnection, root: str | os.PathLike[str], *, schema: str = "main"
) -> list[str]:
    """Create a view in DuckDB for each table of a root; a query of it scans only the files that it needs.

    A view reads the finished parts that are there when it is queried: also those that are written later, in
    new partitions too. Of every part DuckDB reads the footer, to know all columns (one that a part lacks is
    null there); rows it reads of the partitions asked for. If later parts have new columns, create the views
    again: that replaces them. They hold the root's path, so a database in a file has them until it is moved.
    While `compact_dataset` works, a view may see rows twice, since DuckDB lists the files by itself.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where to create them.
    root : str or os.PathLike
        Folder of the datasets, whose folders name the views; or of one dataset, whose view is ``self``.
    schema : str, default "main"
        The schema in which to create them; made if it is not there.

    Returns
    -------
    list of str
        The names of the views, sorted.

    Raises
    ------
    DatasetError
        If there are no tables, or one that cannot be scanned, or one in which a compaction broke off.
    ConfigError
        If DuckDB refuses a view, since there is a table of its name.

    See Also
    --------
    query_dataset : SQL without DuckDB.

    Notes
    -----
    Partition columns have the types that they were written with; an Enum is text in DuckDB. DuckDB 2 keeps
    the nanoseconds of times (TIMESTAMPTZ_NS); versions before it cut them to microseconds.

    Examples
    --------
    >>> import tempfile
    >>> import duckdb
    >>> from cbtools.dataset import write_dataset
    >>> frame = pl.DataFrame({"product_id": ["BTC-USD", "BTC-USD", "ETH-USD"], "price": [2.0, 3.0, 7.0]})
    >>> with tempfile.TemporaryDirectory() as root, duckdb.connect() as connection:
    ...     written = write_dataset(frame, f"{root}/trades", partition_by="product_id")
    ...     views = create_views(connection, root)
    ...     sql = "SELECT count(*), avg(price) FROM trades WHERE product_id = 'BTC-USD'"
    ...     views, connection.execute(sql).fetchall()
    (['trades'], [(2, 2.5)])
    """
    import duckdb

    sources = {name: _source(folder, name) for name, folder in tables_in(root).items()}
    try:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(schema)}")
        for name, source in sources.items():
            connection.execute(f"CREATE OR REPLACE VIEW {_name(schema)}.{_name(name)} AS {source}")
    except duckdb.Error as error:
        raise ConfigError(f"DuckDB refuses a view of {root}: {error}. Give another schema=") from error
    return list(sources)


def _source(folder: Path, name: str) -> str:
    """Write the SELECT of a dataset: of the parts in its partitions, at whatever depth they are."""
    types = (scan_dataset(folder) if name == SELF else scan_dataset(folder.parent, name)).collect_schema()
    folder = folder.absolute()
    by = _partition_columns(folder)
    pattern = "/".join([_literally(folder.as_posix()), *(f"{column}=*" for column in by), "part_*.parquet"])
    options = ["union_by_name = true", f"hive_partitioning = {'true' if by else 'false'}"]
    if by:
        told = ", ".join(f"{_name(column)}: {_TYPES[types[column].base_type()]}" for column in by)
        options.append(f"hive_types = {{{told}}}")
    outer = [part.partition("=")[0] for part in folder.parts if "=" in part] if by else []
    hidden = ", ".join(map(_text, dict.fromkeys([SEGMENT, *outer])))  # which may be there, or not
    shown = f"COLUMNS(lambda name: name NOT IN ({hidden}))"
    return f"SELECT {shown} FROM read_parquet({_text(pattern)}, {', '.join(options)})"


def _partition_columns(folder: Path) -> tuple[str, ...]:
    """Give the partition columns; an error if DuckDB would read rows twice, which lists files by itself."""
    by: tuple[str, ...] = ()
    for relative, files in hive.walk(folder):
        parts = Folder.of(files)
        if parts.replaced:
            raise DatasetError(
                f"{parts.replaced[0].path} is still there, though its rows are in a compacted part: DuckDB "
                "would read them twice. Call compact_dataset, which clears up"
            )
        if parts.counting:
            by = hive.names_of(relative)
    return by


def _literally(path: str) -> str:
    """Take the signs of a pattern for themselves."""
    return re.sub(r"[\[\]*?]", r"[\g<0>]", path)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
