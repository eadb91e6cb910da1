"""Start of a process. Targets: import in 0.5 s; `cbtools inspect` of 1 MB in 1.5 s; compilation in 15 s.

The import is counted beside what Python itself needs. `inspect` has its kernels in the cache. Compilation is
that of all kernels which a run needs, to an empty cache, with the run of the sample that needs them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator

from measure import Claim, Table, arguments, child, segment, tell

ALL = """
import tempfile, cbtools as cb
cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"]).collect()
with tempfile.TemporaryDirectory() as out:
    for segment in sorted(cb.sample_path().iterdir()):
        cb.run_segment(segment, out)
"""
INSPECT = "import sys; from cbtools.cli import main; sys.argv[0] = 'cbtools'; main()"


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    path = segment(options.folder, options.megabytes, "SOL-USD")
    inspect = ("-c", INSPECT, "inspect", path)
    child(*inspect)  # from now on the kernels are in the cache
    nothing, package, inspected = [], [], []
    for _ in range(options.repeat):
        nothing.append(child("-c", "pass").seconds)
        package.append(child("-c", "import cbtools").seconds)
        inspected.append(child(*inspect).seconds)
    python = statistics.median(nothing)
    more = [seconds - python for seconds in package]
    yield Claim("import cbtools, more than Python itself", "s", more, 0.5, less=True)
    yield Claim("Python itself", "s", nothing, less=True)
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    yield Claim(f"cbtools inspect of {size}, the whole process", "s", inspected, 1.5, less=True)
    cold, warm = [], []
    for _ in range(1 if options.quick else options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(child("-c", ALL, NUMBA_CACHE_DIR=folder).seconds)
            warm.append(child("-c", ALL, NUMBA_CACHE_DIR=folder).seconds)
    yield Claim("the sample to a dataset, every kernel compiled", "s", cold, 15, less=True)
    yield Claim("the same from the cache", "s", warm, less=True)


def main() -> None:
    options = arguments(__doc__, megabytes=1, quick=1, repeat=10)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
