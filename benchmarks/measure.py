"""What the benchmarks share: their input, and clocks that are fair to both sides."""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

import cbtools as cb

_SETTLE = 0.3


def arguments(text: str | None, megabytes: float = 100, quick: float = 8) -> argparse.Namespace:
    """Parse the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=megabytes, help="size of the input (%(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"small: {quick} MB, for CI")
    parser.add_argument("--repeat", type=int, default=5, help="how often each is measured (%(default)s)")
    cache = Path(tempfile.gettempdir()) / "cbtools-benchmarks"
    parser.add_argument("--folder", type=Path, default=cache, help="keeps the input (%(default)s)")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.repeat = quick, min(options.repeat, 2)
    return options


def segment(folder: Path, megabytes: float, products: str | Sequence[str] = "BTC-USD") -> Path:
    """Give one simulated segment of so many MiB, made at the first time."""
    names = [products] if isinstance(products, str) else products
    folder = folder / f"{names[0]}-{len(names)}-{megabytes:g}"
    done = folder / "done"
    if not done.exists():
        if folder.exists():
            raise SystemExit(f"{folder} is unfinished: remove it")
        cb.simulate_segments(folder, products=names, megabytes=megabytes, seed=1, segment_mb=1e6)
        done.touch()
    (path,) = (folder / "raw/ready/coinbase").iterdir()
    return path


def alternate(jobs: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Time jobs in turn, so that what else the machine does meets all of them; seconds, of each run.

    Each runs once before, for what is done only once. Between two runs the allocators get the time to give
    back what the last one used: else that work would be counted as the next one's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for k in range(repeat + 1):
        for name, job in jobs.items():
            gc.collect()
            pa.default_memory_pool().release_unused()
            time.sleep(_SETTLE)
            start = time.perf_counter()
            job()
            if k:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def table(seconds: Mapping[str, list[float]], n_bytes: int) -> None:
    """Print the best and the median of each job, as time and as speed."""
    print(f"{n_bytes / 1e6:.0f} MB".ljust(44), "best s  median s   MB/s (best)  MB/s (median)")
    for name, runs in seconds.items():
        best, median = min(runs), statistics.median(runs)
        print(
            f"{name:42} {best:8.3f} {median:9.3f} {n_bytes / best / 1e6:13.0f} {n_bytes / median / 1e6:14.0f}"
        )


def ratio(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> str:
    """Say how many times as fast ours is."""
    best = min(seconds[theirs]) / min(seconds[ours])
    median = statistics.median(seconds[theirs]) / statistics.median(seconds[ours])
    return f"{best:.1f} times as fast (best), {median:.1f} times (median)"
