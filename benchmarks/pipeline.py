"""run_segment against the same tables made by hand. Target: 30 times as fast.

`by_hand.py` makes them with pyarrow.json, Polars and a dict book; that both hold the same rows is checked. By
hand there are two books: two dicts whose best ten are looked for after each message, and the same with each
side's prices kept in order by bisect, which takes more thought. All are timed in turn, on the whole file.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from functools import partial

from by_hand import Book, SortedBook, compare, convert
from measure import Claim, Table, alternate, arguments, inputs, table, tell, times_as_fast

import cbtools as cb

OURS, DICT, SORTED = "run_segment", "by hand, dict book", "by hand, dict book kept in order"


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    out, same = options.folder / "pipeline-out", []
    for name, path in inputs(options).items():
        shutil.rmtree(out, ignore_errors=True)
        jobs = {
            OURS: partial(cb.run_segment, path, out / "ours"),
            DICT: partial(convert, path, out / "dict", Book),
            SORTED: partial(convert, path, out / "sorted", SortedBook),
        }
        seconds = alternate(jobs, options.repeat)
        found = compare(out / "ours", out / "dict")
        assert found == compare(out / "ours", out / "sorted")
        same += [
            [name, of, f"{rows:,}", str(exact), str(close)] for of, (rows, exact, close) in found.items()
        ]
        shutil.rmtree(out)
        table(seconds, path.stat().st_size)
        yield times_as_fast(f"run_segment against the same by hand, {name}", seconds, OURS, DICT, 30)
        yield times_as_fast(f"the same, its prices kept in order, {name}", seconds, OURS, SORTED, None)
    yield Table(
        "The same in both: columns equal to the last digit, and within 1e-9 (features)",
        ["input", "table", "rows", "equal columns", "close columns"],
        same,
    )


def main() -> None:
    options = arguments(__doc__, quick=24)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
