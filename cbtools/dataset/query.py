"""SQL over the tables of a root, lazily: Polars' own, which opens only the files that a query needs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import polars as pl

from cbtools.dataset import hive
from cbtools.dataset.finished import datasets_in
from cbtools.dataset.scan import scan_dataset
from cbtools.errors import ConfigError, DatasetError
from cbtools.stores import as_place, tells_trouble

SELF: Final = "self"
"""The name of a dataset that is not in a folder of a root, but is the root itself (as in `LazyFrame.sql`)."""


@tells_trouble
def tables_in(root: str | os.PathLike[str]) -> dict[str, Path]:
    """Find the tables of a root.

    Parameters
    ----------
    root : str or os.PathLike
        Folder of the datasets, or of one dataset.

    Returns
    -------
    dict of str to pathlib.Path
        Name → folder, sorted by name: every folder in which there are parts. Of a root that is itself a
        dataset, ``"self"``.

    Raises
    ------
    DatasetError
        If there are none.

    Examples
    --------
    >>> import tempfile
    >>> from cbtools.dataset import write_dataset
    >>> with tempfile.TemporaryDirectory() as root:
    ...     written = write_dataset(pl.DataFrame({"a": [1]}), f"{root}/mine", partition_by=[])
    ...     list(tables_in(root)), list(tables_in(f"{root}/mine"))
    (['mine'], ['self'])
    """
    folder = as_place(root)
    if _holds_parts(folder):
        return {SELF: folder}
    found = {path.name: path for path in datasets_in(folder) if _holds_parts(path)} if folder.is_dir() else {}
    if not found:
        what = "holds no dataset" if folder.is_dir() else "is no folder"
        raise DatasetError(f"{folder} {what}: give a root of datasets, as write_dataset and run_segment make")
    return found


def _holds_parts(folder: Path) -> bool:
    return any(hive.segment_of(entry.name) for _, files in hive.walk(folder) for entry in files)


def _scan(root: str | os.PathLike[str], name: str) -> pl.LazyFrame:
    return scan_dataset(root) if name == SELF else scan_dataset(root, name)


@tells_trouble
def query_dataset(root: str | os.PathLike[str], sql: str) -> pl.LazyFrame:
    """Query the tables of a root by SQL; nothing is read but the files of the partitions that it asks for.

    The SQL is Polars' (``polars.SQLContext``): SELECT with JOIN, GROUP BY, WITH, UNION and usual functions.
    Each table is scanned as `scan_dataset` does, so partition columns are columns, as ``product_id`` and
    ``date``. A date or a time may be compared with a text, as in ``date >= '2025-11-26'``.

    Parameters
    ----------
    root : str or os.PathLike
        Folder of the datasets, whose folders' names are the tables'; or of one dataset, which is named
        ``self``.
    sql : str
        One query.

    Returns
    -------
    polars.LazyFrame
        Collect it, or go on: filters that come behind the query go into it.

    Raises
    ------
    DatasetError
        If there are no tables, or one of the query's cannot be scanned.
    ConfigError
        If the query cannot be run: another table, another column, another syntax.

    See Also
    --------
    scan_dataset : A table as a lazy frame.

    Examples
    --------
    >>> import tempfile
    >>> from cbtools.dataset import write_dataset
    >>> frame = pl.DataFrame({"product_id": ["BTC-USD", "BTC-USD", "ETH-USD"], "price": [2.0, 3.0, 7.0]})
    >>> with tempfile.TemporaryDirectory() as root:
    ...     written = write_dataset(frame, f"{root}/trades", partition_by="product_id")
    ...     sql = "SELECT count(*) AS n, avg(price) AS price FROM trades WHERE product_id = 'BTC-USD'"
    ...     query_dataset(root, sql).collect().row(0)
    (2, 2.5)
    """
    if not isinstance(sql, str) or not sql.strip():
        raise ConfigError(f"{sql!r} is not a query: give one SELECT, as text")
    tables = tables_in(root)
    asked = [name for name in tables if re.search(rf"\b{re.escape(name)}\b", sql, re.IGNORECASE)]
    context = pl.SQLContext({name: _scan(root, name) for name in asked})  # no footers read in vain
    try:
        frame = context.execute(sql, eager=False)
        columns = frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        told = str(error).split("\n\n")[0]
        there = f"Tables in {root}: {', '.join(tables)}"
        raise ConfigError(f"cannot run the query: {told}. {there}") from error
    if not columns:
        raise ConfigError(f"the query gives no columns: give a SELECT of {', '.join(tables)}")
    return frame
