"""A dataset divided by other columns: the same rows, segment by segment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cbtools.dataset import hive
from cbtools.dataset.compacted import Folder, segments_in
from cbtools.dataset.scan import scan_dataset
from cbtools.dataset.write import write_dataset
from cbtools.dataset.written import Written
from cbtools.errors import ConfigError, DatasetError
from cbtools.schema import DERIVED, RAW, TABLES
from cbtools.stores import tells_trouble


@tells_trouble
def repartition_dataset(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    partition_by: str | Sequence[str],
    *,
    table: str | None = None,
) -> Written:
    """Write a dataset's rows to another folder, divided by other columns; streaming, segment by segment.

    Every row keeps its segment, so that it can be traced, and run again there. What breaks off is ended by
    calling it again: each segment is written whole or not at all, and in the place of what it had there.

    Parameters
    ----------
    src : str or os.PathLike
        Folder of the dataset, or of the datasets where `table` is given.
    dst : str or os.PathLike
        Where the rows go, alike. Other segments' rows there stay.
    partition_by : str or sequence of str
        Partition columns, outermost first, as in `write_dataset`.
    table : str, optional
        Name of the dataset's folder in both.

    Returns
    -------
    Written
        All parts that were written.

    Raises
    ------
    ConfigError
        If a partition column is not known, or both folders are the same.
    DatasetError
        If there is no dataset, or the other one is partitioned by other columns already.

    Examples
    --------
    >>> import tempfile, polars as pl
    >>> frame = pl.DataFrame({"product_id": ["A-B", "C-D"], "price": [1.0, 2.0], "day": [1, 1]})
    >>> with tempfile.TemporaryDirectory() as root:
    ...     written = write_dataset(frame, f"{root}/by_product", partition_by="product_id", segment="s1")
    ...     written = repartition_dataset(f"{root}/by_product", f"{root}/by_day", "day")
    ...     [part.path.parent.name for part in written.parts], written.rows
    (['day=1'], 2)
    """
    source, target = hive.dataset_root(src, table), hive.dataset_root(dst, table)
    if source.resolve() == target.resolve():
        raise ConfigError(
            f"{source} cannot be repartitioned in place: give another folder, then exchange them"
        )
    listed = {
        segment: None
        for _, files in hive.walk(source)
        for entry in Folder.of(files).counting
        for segment in segments_in(entry.path)
    }
    if not listed:
        raise DatasetError(f"no dataset in {source}: no part_*.parquet there")
    known = table if table in RAW else None  # a book has a depth of its own
    written = []
    for segment in sorted(listed):
        rows = scan_dataset(src, table, segments=[segment], footers="all")
        if table in TABLES:  # of these it is derived anew, where it is wanted
            rows = rows.drop(column.name for column in DERIVED if column.name in rows.collect_schema())
        to = dst if known is not None else target
        written.append(write_dataset(rows, to, partition_by=partition_by, segment=segment, table=known))
    return Written(
        tuple(part for one in written for part in one.parts),
        tuple(path for one in written for path in one.removed),
    )
