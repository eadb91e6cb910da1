"""10 GB of segments: 100 times as long as 100 MB, and no more memory than 1 GB. Targets: at most 10 % over.

run_segment, one segment of 100 MB after another, into one dataset; each amount in a process of its own, in
turn. The segments are the same one under as many names (a job would see that and skip them). Time is counted
once the kernels are loaded, for 100 MB as the mean of several; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measure import Claim, Table, arguments, child, inputs, speed, tell

import cbtools as cb

TIMES = (1, 10, 100)
"""So many segments."""
QUICK = (1, 3, 9)
MOST = 1.5e9
FEW = 3


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    out = options.folder / "flat-out"
    few, some, many = sizes = QUICK if options.quick else TIMES
    for name, path in inputs(options).items():
        seconds: dict[int, list[float]] = {times: [] for times in sizes}
        peaks: dict[int, list[float]] = {times: [] for times in sizes}
        for _ in range(options.repeat):
            for times in sizes:
                shutil.rmtree(out, ignore_errors=True)
                ran = child(__file__, "--one", path, times, out)
                seconds[times].append(ran.said)
                peaks[times].append(ran.peak)
        shutil.rmtree(out)
        base = statistics.median(seconds[few])
        runs = [run / base / (many / few) for run in seconds[many]]
        yield Claim(
            f"time of {many} segments over {many} times that of one, {name}", "", runs, 1.1, less=True
        )
        runs = [peak / statistics.median(peaks[some]) for peak in peaks[many]]
        yield Claim(f"memory of {many} segments over that of {some}, {name}", "", runs, 1.1, less=True)
        for times in sizes:
            peak = [one / 1e6 for one in peaks[times]]
            target = MOST / 1e6 if times == many else None
            yield Claim(f"peak memory, segments: {times}, {name}", "MB", peak, target, less=True)
        for times in sizes:
            size = times * path.stat().st_size
            yield speed(f"run_segment, segments: {times}, {name}", seconds[times], size)


def one(path: Path, times: int, out: Path) -> None:
    """Run the segment so often, each time under another name, and print the seconds."""
    links = out / "raw"
    links.mkdir(parents=True)
    cb.run_segment(path, out / "warm")

    def run(k: int) -> float:
        link = links / f"{path.stem[:-5]}{k + 1:05}{path.suffix}"
        os.link(path, link)
        started = time.perf_counter()
        cb.run_segment(link, out / "dataset")
        seconds = time.perf_counter() - started
        link.unlink()
        return seconds

    seconds = [run(k) for k in range(max(times, FEW))]
    print(json.dumps(sum(seconds) * times / len(seconds)))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
        return
    options = arguments(__doc__, quick=1)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
