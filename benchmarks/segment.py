"""run_segment, raw → partitioned Parquet. Target on two cores: 300 MB/s with the book and the usual features.

On BTC-USD alone, and on 30 products. Beside it the same without features, and without the book; and the least
that could be done: to read the same lines with read_raw, and to write the same tables with Polars, one file
each. What run_segment is against the same tables made by hand, tells pipeline.py.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from measure import Claim, Table, alternate, arguments, inputs, ratio, speed, table, tell

import cbtools as cb

TABLES = ("level2", "market_trades", "ticker")
ALL, BOOK, RUN = "run_segment", "run_segment without features", "run_segment without the book"
PLAIN = "read_raw + write_parquet, unpartitioned"
NO_FEATURES = {
    "level2": {"processor_options": {"compute_features": False}},
    "market_trades": {},
    "ticker": {},
}
NO_BOOK = {"level2": {"processor_options": {"reconstruct_lob": False}}, "market_trades": {}, "ticker": {}}
REAL = ["30 products, a real recording", "104.9", "107,200", "600,048", "10,520", "32,668", ""]


def plain(path: Path, out: Path) -> None:
    raw = cb.read_raw(path)
    for name in TABLES:
        getattr(raw, name).write_parquet(out / f"{name}.parquet")


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    out, told = options.folder / "out", []
    for name, path in inputs(options).items():
        size = path.stat().st_size
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        report = cb.run_segment(path, out / "dataset")
        rows = [f"{sum(report.raw.rows[table].values()):,}" for table in TABLES]
        written = sum(one.bytes for one in report.written.values())
        told.append([name, f"{size / 1e6:.1f}", f"{report.raw.lines:,}", *rows, f"{written / size:.3f}"])
        jobs = {
            ALL: lambda path=path: cb.run_segment(path, out / "dataset"),
            BOOK: lambda path=path: cb.run_segment(path, out / "no features", channel_config=NO_FEATURES),
            RUN: lambda path=path: cb.run_segment(path, out / "no book", channel_config=NO_BOOK),
            PLAIN: lambda path=path: plain(path, out),
        }
        print(f"{name}: {report.raw.lines:,} lines")
        seconds = alternate(jobs, options.repeat)
        table(seconds, size)
        print(f"run_segment without the book: {ratio(seconds, RUN, PLAIN)}\n")
        shutil.rmtree(out)
        yield speed(f"{ALL}, {name}", seconds[ALL], size, 300)
        for job in (BOOK, RUN, PLAIN):
            yield speed(f"{job}, {name}", seconds[job], size)
        yield Claim(f"Parquet, bytes for each raw byte, {name}", "", [written / size], less=True)
    header = ["input", "MB", "lines", *(f"{table} rows" for table in TABLES), "Parquet, of raw"]
    yield Table("The inputs", header, [*told, REAL])


def main() -> None:
    options = arguments(__doc__, quick=24)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
