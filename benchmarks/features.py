"""The features, on rows of a simulated book.

Targets: the usual set over a million rows of depth 10 in 1.0 s on two cores; a window feature in 30 ns a row;
at least 20 times as fast as pandas rolling, where pandas can do it.

On rows of a simulated BTC-USD book, repeated in time until there are a million. A window feature's time is
what it adds to a query that computes the feature it sums; alone, a query also pays for reading its rows.
pandas (of the extra ``bench``) sums the same column over the same windows of time: it has neither runs nor
gaps to look after. And the windows of both are compared where pandas' are covered.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from measure import Claim, Table, alternate, arguments, segment, tell, times_as_fast

import cbtools as cb

WINDOWS = {
    "ofi_10s": "ofi",
    "return_10s": "log_return",
    "realized_variance_10s": "log_return",
    "bipower_variation_10s": "log_return",
    "two_scale_variance_1m_5": "log_return",
    "spread_twa_10s": "log_return",
}
"""A window feature, and the one in the query that it is added to."""


def rows_of(folder: Path, megabytes: float, n: int) -> pl.DataFrame:
    """Give so many rows of one run: those of the recording, again and again, later each time."""
    book = cb.scan_raw(segment(folder, megabytes), "level2").pipe(cb.rebuild_book).collect()
    book = book.filter(pl.col("book_state") == "ok")
    span = book["capture_time"].max() - book["capture_time"].min()  # type: ignore[operator]
    step = span + pd.Timedelta("50ms").to_pytimedelta()  # type: ignore[operator]
    copies = -(-n // book.height)
    parts = [book.with_columns(pl.col("capture_time") + k * step) for k in range(copies)]
    return pl.concat(parts).head(n).with_columns(proven_since=book["proven_since"][0]).rechunk()


def added(book: pl.DataFrame, names: list[str]) -> Callable[[], object]:
    return lambda: cb.add_book_features(book, names).select(names).collect()


def pandas_jobs(made: pl.DataFrame) -> dict[str, Callable[[], object]]:
    """Sum what our windows sum, by pandas."""
    frame = made.select("capture_time", "ofi", "log_return").to_pandas().set_index("capture_time")
    square = frame["log_return"] ** 2
    return {
        "pandas: rolling('10s').sum() of ofi": lambda: frame["ofi"].rolling("10s").sum(),
        "pandas: rolling('10s').sum() of squared returns": lambda: square.rolling("10s").sum(),
        "pandas: the same by rolling('10s').apply": lambda: (
            frame["ofi"].rolling("10s").apply(np.sum, raw=True)
        ),
    }


def compare(book: pl.DataFrame) -> None:
    """Check that both sides sum the same."""
    names = ["ofi", "log_return", "ofi_10s", "realized_variance_10s"]
    made = cb.add_book_features(book, names).select("capture_time", *names).collect()
    frame = made.to_pandas().set_index("capture_time")
    known = made["ofi_10s"].is_not_null().to_numpy()
    theirs = frame["ofi"].rolling("10s").sum().to_numpy()[known]
    ours = made["ofi_10s"].drop_nulls().to_numpy()
    assert np.allclose(theirs, ours, rtol=1e-6, atol=1e-3), "the windows differ"


def options_of() -> argparse.Namespace:
    options = arguments(__doc__, megabytes=32, quick=4)
    options.rows = 100_000 if options.quick else 1_000_000
    return options


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    book = rows_of(options.folder, options.megabytes, options.rows)
    n = book.height
    compare(book.head(100_000))
    usual = cb.add_book_features(book).collect_schema().names()[book.width :]
    print(f"{n:,} rows; the usual set: {len(usual)} features")
    jobs: dict[str, Callable[[], object]] = {
        "the usual set": lambda: cb.add_book_features(book).collect(),
        "ofi": added(book, ["ofi"]),
        "log_return": added(book, ["log_return"]),
        **{name: added(book, [of, name]) for name, of in WINDOWS.items()},
        "ofi_10s alone": added(book, ["ofi_10s"]),
        "realized_variance_10s alone": added(book, ["realized_variance_10s"]),
    }
    made = cb.add_book_features(book.head(min(n, 200_000)), ["ofi", "log_return"]).collect()
    seconds = alternate(jobs, options.repeat)
    theirs = alternate(pandas_jobs(made), options.repeat)
    runs = [run * 1e6 / n for run in seconds["the usual set"]]
    yield Claim("the usual set, a million rows", "s", runs, 1.0, less=True)
    for name, of in WINDOWS.items():
        pairs = zip(seconds[name], seconds[of], strict=True)
        more = [(run - without) / n * 1e9 for run, without in pairs]
        yield Claim(f"{name} adds to a row", "ns", more, 30, less=True)
    for name in ("ofi_10s alone", "realized_variance_10s alone"):
        print(f"{name:28} {min(seconds[name]) / n * 1e9:6.1f} ns a row (best)")
    for name, runs in theirs.items():
        print(f"{name:48} {min(runs) / made.height * 1e9:8.1f} ns a row (best)")
    scaled = {name: [run * n / made.height for run in runs] for name, runs in theirs.items()}
    both = {**seconds, **scaled}
    for ours, name in (
        ("ofi_10s alone", "pandas: rolling('10s').sum() of ofi"),
        ("ofi_10s alone", "pandas: the same by rolling('10s').apply"),
        ("realized_variance_10s alone", "pandas: rolling('10s').sum() of squared returns"),
    ):
        yield times_as_fast(f"{ours} against {name}", both, ours, name, 20)


def main() -> None:
    options = options_of()
    tell(options, measured(options))


if __name__ == "__main__":
    main()
