"""One product-day out of 400. Target: 50 times as fast as a scan of a flat copy of the same rows.

The rows are of 20 products and 20 days. The dataset is partitioned by both; the flat copy is one Parquet file
of the same table in the order of time, as it comes from a recording. A scan of it looks at all rows for the
product, and for the day of their time. Beside it: the flat copy asked for a range of time, so that Polars
leaves out other days by the statistics of its row groups; what it costs to call scan_dataset each time, which
looks around once for many queries; and DuckDB, on the views of create_views.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from measure import Claim, Table, alternate, arguments, tell, times_as_fast

import cbtools as cb
from cbtools.dataset import DatasetWriter
from cbtools.dataset.query import query_dataset
from cbtools.export.views import create_views
from cbtools.lazy import source
from cbtools.schema import SIDE, TIME

PRODUCTS = [f"P{k:02}-USD" for k in range(20)]
DAYS = [dt.date(2025, 11, 20) + dt.timedelta(k) for k in range(20)]
DAY = dt.date(2025, 11, 27)
DAY_NS = 86_400 * 10**9
ROW_BYTES = 15  # in the flat copy
COUNT = "SELECT count(*) AS n, avg(price) AS price FROM"
SQL = f"{COUNT} ticks WHERE product_id = 'P07-USD' AND date = '{DAY}'"
SQL_FLAT = (
    f"{COUNT} flat.ticks WHERE product_id = 'P07-USD' AND epoch_ns(server_time) // {DAY_NS} = "
    f"{(DAY - dt.date(1970, 1, 1)).days}"
)

READY, ANEW, SCAN = "dataset", "dataset, scan_dataset each time", "flat copy, scanned"
STATISTICS, DUCK, DUCK_FLAT = (
    "flat copy, a range of time",
    "dataset, DuckDB's view",
    "flat copy, DuckDB's view",
)
READY_ROWS, SCAN_ROWS = "dataset: all columns", "flat copy, scanned: all columns"


def day(k: int, rows: int) -> pl.DataFrame:
    """Draw a day of level changes, of all products, in the order of time."""
    draw = np.random.default_rng(k)
    start = (DAYS[k] - dt.date(1970, 1, 1)).days * DAY_NS
    return pl.DataFrame(
        {
            "product_id": pl.Series(PRODUCTS).gather(draw.integers(0, len(PRODUCTS), rows)),
            "side": pl.Series(["bid", "ask"], dtype=SIDE).gather(draw.integers(0, 2, rows)),
            "price": draw.normal(100, 1, rows).round(2),
            "size": draw.exponential(1, rows).round(6),
            "server_time": pl.Series(start + np.sort(draw.integers(0, DAY_NS, rows))).cast(TIME),
            "sequence_num": np.arange(rows),
            "line": np.arange(rows),
        }
    )


def datasets(folder: Path, megabytes: float) -> tuple[Path, Path]:
    """Give the dataset's root and the flat copy's, made at the first time."""
    folder = folder / f"query-{megabytes:g}"
    parts, flat, done = folder / "parts", folder / "flat", folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        rows = int(megabytes * 1e6 / ROW_BYTES / len(DAYS))
        with DatasetWriter(parts / "ticks", partition_by=["product_id", "date"]) as writer:
            for k in range(len(DAYS)):
                writer.write(day(k, rows))
            assert len(writer.publish().parts) == len(PRODUCTS) * len(DAYS)

        def days(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            return (day(k, rows) for k in range(len(DAYS)))

        (flat / "ticks").mkdir(parents=True)
        file = flat / "ticks/part_data.parquet"
        source(days, day(0, 1).schema, "DAYS").sink_parquet(file, row_group_size=131_072)
        done.touch()
    return parts, flat


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    parts, flat = datasets(options.folder, options.megabytes)
    ready = query_dataset(parts, SQL)
    rows = cb.scan_dataset(parts, "ticks").filter(product_id="P07-USD", date=DAY)
    file = flat / "ticks/part_data.parquet"
    start = dt.datetime(DAY.year, DAY.month, DAY.day, tzinfo=dt.UTC)
    product, time = pl.col("product_id") == "P07-USD", pl.col("server_time")
    scanned = pl.scan_parquet(file).filter(product, time.dt.date() == DAY)
    ranged = pl.scan_parquet(file).filter(product, time >= start, time < start + dt.timedelta(1))
    wanted = pl.len().alias("n"), pl.col("price").mean()
    with duckdb.connect() as connection:
        create_views(connection, parts)
        create_views(connection, flat, schema="flat")
        jobs = {
            READY: ready.collect,
            ANEW: lambda: query_dataset(parts, SQL).collect(),
            SCAN: scanned.select(*wanted).collect,
            STATISTICS: ranged.select(*wanted).collect,
            DUCK: lambda: connection.sql(SQL).pl(),
            DUCK_FLAT: lambda: connection.sql(SQL_FLAT).pl(),
            READY_ROWS: rows.collect,
            SCAN_ROWS: scanned.collect,
        }
        found = {jobs[name]().height for name in (READY_ROWS, SCAN_ROWS)}
        found |= {job().item(0, "n") for name, job in jobs.items() if "columns" not in name}
        (asked,) = found
        seconds = alternate(jobs, options.repeat)
    total = pl.scan_parquet(file).select(pl.len()).collect().item()
    print(f"{total:,} rows, of them {asked:,} asked for; flat copy {file.stat().st_size / 1e6:.0f} MB")
    print("".ljust(36), "best ms  median ms")
    for name, runs in seconds.items():
        print(f"{name:34} {1e3 * min(runs):9.1f} {1e3 * statistics.median(runs):10.1f}")
    for name, ours, theirs in (
        ("dataset, against a scan of the flat copy", READY, SCAN),
        ("the same, all columns", READY_ROWS, SCAN_ROWS),
        ("dataset, against a range of time of the flat copy", READY, STATISTICS),
        ("scan_dataset each time, against a scan of the flat copy", ANEW, SCAN),
    ):
        yield times_as_fast(name, seconds, ours, theirs, 50 if (ours, theirs) == (READY, SCAN) else None)


def main() -> None:
    options = arguments(__doc__, megabytes=360, quick=24)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
