"""One product or one channel out of a raw recording of 30 products. Target: 2 GB/s on two cores.

The lines that are not asked for are skipped behind their header. Also on one core, and beside it the least
that could be done: to read the file's bytes, and to look for the newlines in them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import MIX_ACTIVITY, PRODUCTS, Claim, Table, alternate, arguments, child, segment, tell

import cbtools as cb

SMALL, MIDDLE = "RENDER-USD", "SOL-USD"


def newlines(path: Path) -> int:
    """Read the bytes and count their lines."""
    count = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
    return count


def jobs_on(path: Path) -> dict[str, Callable[[], object]]:
    return {
        "ticker out of all": cb.scan_raw(path, "ticker").collect,
        "trades out of all": cb.scan_raw(path, "market_trades").collect,
        f"level2 of {SMALL} out of all": cb.scan_raw(path, "level2", products=[SMALL]).collect,
        f"level2 of {MIDDLE} out of all": cb.scan_raw(path, "level2", products=[MIDDLE]).collect,
        "level2, nothing skipped": cb.scan_raw(path, "level2").collect,
        "the file's newlines counted, no more": lambda: newlines(path),
    }


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    path = segment(options.folder, options.megabytes, PRODUCTS["30 products"], MIX_ACTIVITY)
    size = path.stat().st_size
    for cores, target in ((1, None), (2, 2.0)):
        told = child(__file__, "--one", path, options.repeat, cores=cores).said
        for name, seconds in told["seconds"].items():
            runs = [size / 1e9 / run for run in seconds]
            claim = f"{name}, {cores} core{'s'[: cores - 1]}"
            yield Claim(claim, "GB/s", runs, target if "out of all" in name else None)
    rows = [[name, f"{count:,}"] for name, count in told["rows"].items()]
    yield Table("The rows that are asked for", ["of", "rows"], rows)


def one(path: Path, repeat: int) -> None:
    """Measure all jobs in this process, and print their seconds."""
    jobs = jobs_on(path)
    report = cb.read_raw(path).report
    rows = {name: job().height for name, job in jobs.items() if "out of all" in name}  # type: ignore[attr-defined]
    rows["all"] = sum(sum(products.values()) for products in report.rows.values())
    print(json.dumps({"seconds": alternate(jobs, repeat), "rows": rows}))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(Path(sys.argv[2]), int(sys.argv[3]))
        return
    options = arguments(__doc__, quick=24)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
