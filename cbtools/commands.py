"""Commands for datasets: what the command line calls, beside segments and jobs."""

from __future__ import annotations

from typing import Annotated, Literal

import polars as pl
from cyclopts import Parameter

import cbtools as cb
from cbtools.schema import TABLES
from cbtools.stores import as_place

Columns = Annotated[list[str], Parameter(consume_multiple=True, negative_iterable=())]


def describe(what: str | None = None, /) -> None:
    """Describe the columns of a table, all features, or a dataset; or list the tables.

    Parameters
    ----------
    what
        A table, e.g. level2; ``features``, for the catalogue of them; or the folder of a dataset, or of
        several, for what is in it.
    """
    if what is None:
        print("\n".join([*TABLES, "features"]))
    elif what == "features":
        for name, of, definition, unit, _, source in cb.catalogue().iter_rows():
            told = "; ".join(text for text in (definition, unit, source) if text)
            print(f"{name:<40} {of:<13} {told}")
    elif what not in TABLES and as_place(what).is_dir():
        _describe_dataset(what)
    else:
        for column, dtype, unit, meaning, null in cb.describe(what).iter_rows():
            print(f"{column:<18} {dtype:<36} {unit:<15} {meaning}" + (f" (null: {null})" if null else ""))


def _describe_dataset(root: str) -> None:
    report = cb.dataset_report(root)
    print(report)
    if not report.holes.is_empty():
        print("\nmissing:")
        for table, partition, missing in report.holes.iter_rows():
            print(f"  {'/'.join(filter(None, (table, partition)))} {missing}")


def compact(
    root: str,
    /,
    *,
    table: str | None = None,
    target_mb: float = 256.0,
    grace_seconds: float = 10.0,
    dry_run: bool = False,
) -> None:
    """Merge the small parts of each partition into few large ones; the rows stay the same.

    Parameters
    ----------
    root
        The folder of a dataset, or of several, such as a job's output.
    table
        Only this table's dataset.
    target_mb
        About how large a part may become, megabytes.
    grace_seconds
        How long the small parts are kept for queries that have begun.
    dry_run
        Only say what would be done.
    """
    done = cb.compact_dataset(root, table, target_mb=target_mb, grace_seconds=grace_seconds, dry_run=dry_run)
    with pl.Config(tbl_hide_dataframe_shape=True, tbl_rows=-1, fmt_str_lengths=80, tbl_width_chars=150):
        print(done)


def repartition(src: str, dst: str, /, *, by: Columns, table: str | None = None) -> None:
    """Write a dataset's rows to another folder, divided by other columns.

    Parameters
    ----------
    src
        The folder of the dataset, or of the datasets where a table is given.
    dst
        Where the rows go, alike.
    by
        The partition columns, outermost first; none for one part a segment: --by with nothing behind it.
    table
        The table.
    """
    print(cb.repartition_dataset(src, dst, by, table=table))


def query(
    root: str,
    sql: str,
    /,
    *,
    form: Annotated[Literal["table", "csv", "json"], Parameter(name="--format")] = "table",
) -> None:
    """Query the tables of a root by SQL, and print the rows. Only the partitions asked for are read.

    Parameters
    ----------
    root
        Folder of the datasets, such as processed; or of one dataset, whose name is then self.
    sql
        E.g. "SELECT product_id, count(*) FROM level2 WHERE date = '2025-11-26' GROUP BY product_id".
    form
        As a table of up to 50 rows; or all rows, as CSV, or as JSON, an object a line.
    """
    rows = cb.query_dataset(root, sql).collect(engine="streaming")
    if form == "csv":
        nested = [name for name, dtype in rows.schema.items() if dtype.is_nested() or dtype == pl.Binary]
        if nested:
            raise cb.ConfigError(
                f"CSV has no place for {', '.join(nested)}: take --format json, or other columns"
            )
        print(rows.write_csv(), end="")
    elif form == "json":
        print(rows.write_ndjson(), end="")
    else:
        with pl.Config(tbl_rows=50, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=60):
            print(rows)
