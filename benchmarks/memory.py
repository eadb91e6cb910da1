"""Read a large segment lazily, and rebuild its book. Target: 2 GB under 1 GB of memory.

The segment is a recording of 100 MB as often as need be: each time a new connection, with its snapshot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from measure import Claim, Table, arguments, child, segment, tell

READ = """
import sys, polars as pl, cbtools as cb
sums = cb.scan_raw(sys.argv[1], "level2").select(pl.len(), pl.col("price", "size").sum()).collect()
print("rows, sum of prices, sum of sizes:", *sums.row(0))
"""
BOOK = """
import sys, cbtools as cb
cb.scan_raw(sys.argv[1], "level2").pipe(cb.rebuild_book).sink_parquet(sys.argv[2])
print("level2 to a file of the book, depth 10")
"""


def repeated(path: Path, times: int) -> Path:
    """Write a segment several times over, into one file in the folder of its recording."""
    large = path.parents[3] / f"{times}-times.ndjson"
    if not large.exists():
        unfinished = large.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            for _ in range(times):
                file.write(path.read_bytes())
        unfinished.rename(large)
    return large


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    each = min(100, options.megabytes)
    path = repeated(segment(options.folder / "memory", each), round(options.megabytes / each))
    out = options.folder / "memory" / "book.parquet"
    for name, code in (("read", READ), ("its book into a file", BOOK)):
        peaks = [child("-c", code, path, out).peak / 1e6 for _ in range(options.repeat)]
        claim = f"peak memory, a segment of {path.stat().st_size / 1e9:.1f} GB, {name}"
        yield Claim(claim, "MB", peaks, 1000, less=True)
    out.unlink()


def main() -> None:
    options = arguments(__doc__, megabytes=2000, quick=200)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
