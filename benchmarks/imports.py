"""Start of a process. Targets: import cbtools in 0.5 s; the first compilation of the kernels in 15 s."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

ALL = """
import tempfile, cbtools as cb
cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"]).collect()
with tempfile.TemporaryDirectory() as out:
    for segment in sorted(cb.sample_path().iterdir()):
        cb.run_segment(segment, out)
"""


def seconds(code: str, **environment: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three processes instead of ten, for CI")
    repeat = 3 if parser.parse_args().quick else 10
    nothing, package = [], []
    for _ in range(repeat):
        nothing.append(seconds("pass"))
        package.append(seconds("import cbtools"))
    python, ours = statistics.median(nothing), statistics.median(package)
    print(
        f"import cbtools: {ours - python:.3f} s (median), beside {python:.3f} s for Python itself; target 0.5"
    )
    with tempfile.TemporaryDirectory() as folder:
        cold = seconds(ALL, NUMBA_CACHE_DIR=folder)
        warm = min(seconds(ALL, NUMBA_CACHE_DIR=folder) for _ in range(2))
    print(
        f"the sample to a dataset with the book, every kernel compiled: {cold:.1f} s; from the cache: "
        f"{warm:.1f} s; target 15"
    )


if __name__ == "__main__":
    main()
