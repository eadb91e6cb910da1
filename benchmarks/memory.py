"""Read a large segment lazily, and rebuild its book. Target: 2 GB under 1 GB of memory.

The segment is a recording of 100 MB as often as need be: each time a new connection, with its snapshot.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from measure import arguments, segment

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
UNIT = 1 if sys.platform == "darwin" else 1024


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


def main() -> None:
    options = arguments(__doc__, megabytes=2000, quick=200)
    each = min(100, options.megabytes)
    path = repeated(segment(options.folder / "memory", each), round(options.megabytes / each))
    out = options.folder / "memory" / "book.parquet"
    for code in (READ, BOOK):  # the peak is of all so far, and the second needs more
        subprocess.run([sys.executable, "-c", code, path, out], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT
        print(f"{path.stat().st_size / 1e6:.0f} MB in at most {peak / 1e6:.0f} MB; target 1000 MB for 2 GB")
    out.unlink()


if __name__ == "__main__":
    main()
