"""run_job over a night of small segments: 200 of 2 MB. Targets: two workers ≥ 1.6 × one, and flat memory.

Each run is a process of its own over hard links of the same segments, the two kinds in turn. Memory is that
of the process and its workers, from the first quarter of the segments on; the job is flat if the last quarter
needs no more than the second. Beside it run_segment, called for one segment after another.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from measure import arguments

import cbtools as cb

SEGMENT_MB = 2
QUARTERS = 4


def recording(folder: Path, megabytes: float) -> list[Path]:
    """Give simulated segments of 2 MB, made at the first time."""
    folder = folder / f"job-{megabytes:g}"
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        cb.simulate_segments(
            folder, products=["BTC-USD", "ETH-USD"], megabytes=megabytes, segment_mb=SEGMENT_MB, seed=1
        )
        done.touch()
    return sorted((folder / "raw/ready/coinbase").iterdir())


def resident(process: int) -> int:
    """Give the resident memory of a process and its children, bytes (Linux)."""
    own = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return own + sum(resident(int(child)) for child in children)


def one_run(ready: Path, out: Path, workers: int) -> None:
    """Run a job, or run_segment for each (0 workers), and print its time and memory as JSON."""
    segments, told = len(list(ready.iterdir())), []

    def sample() -> None:
        while True:
            parts = out.glob("ticker/*/*/part_*.parquet")
            done = (
                len({path.name for path in parts})
                if workers == 0
                else len(list((out / "_runs").glob("s*.json")))
            )
            try:
                told.append((done, resident(os.getpid())))
            except OSError:
                continue  # a child came or went just now
            time.sleep(0.1)

    warm = sorted(ready.iterdir())[0]
    cb.run_segment(warm, out.with_name("warm"))
    threading.Thread(target=sample, daemon=True).start()
    started = time.perf_counter()
    if workers:
        report = cb.run_job(ready, out, workers=workers, progress=False)
        assert report.done == segments
    else:
        for path in sorted(ready.iterdir()):
            cb.run_segment(path, out)
    seconds = time.perf_counter() - started
    quarters = [0] * QUARTERS
    for done, size in told:
        quarter = min(QUARTERS - 1, done * QUARTERS // segments)
        quarters[quarter] = max(quarters[quarter], size)
    print(json.dumps({"seconds": seconds, "memory": quarters}))


def measured(paths: list[Path], folder: Path, workers: int) -> dict:
    """Run once in a process of its own."""
    base = folder / "job-run"
    shutil.rmtree(base, ignore_errors=True)
    ready = base / "raw/ready/coinbase"
    ready.mkdir(parents=True)
    for path in paths:
        os.link(path, ready / path.name)
    command = [sys.executable, __file__, "--one", str(workers), str(ready), str(base / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(base)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        workers, ready, out = sys.argv[2:]
        one_run(Path(ready), Path(out), int(workers))
        return
    options: argparse.Namespace = arguments(__doc__, megabytes=200 * SEGMENT_MB, quick=20 * SEGMENT_MB)
    paths = recording(options.folder, options.megabytes)
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} segments, {size / 1e6:.0f} MB")
    names = {0: "run_segment, one after another", 1: "run_job, one worker", 2: "run_job, two workers"}
    runs: dict[int, list[dict]] = {workers: [] for workers in names}
    for _ in range(options.repeat):
        for workers in names:
            runs[workers].append(measured(paths, options.folder, workers))
    print("".ljust(34), "best s  median s  MB/s (best)   peak memory by quarter of the segments, MB")
    for workers, name in names.items():
        seconds = [run["seconds"] for run in runs[workers]]
        memory = [max(run["memory"][k] for run in runs[workers]) / 1e6 for k in range(QUARTERS)]
        shown = " ".join(f"{peak:6.0f}" for peak in memory)
        best, median = min(seconds), statistics.median(seconds)
        print(f"{name:34} {best:6.2f} {median:9.2f} {size / best / 1e6:12.1f}   {shown}")
    one, two = ([run["seconds"] for run in runs[workers]] for workers in (1, 2))
    print(
        f"two workers: {min(one) / min(two):.2f} times as fast as one (best), "
        f"{statistics.median(one) / statistics.median(two):.2f} times (median)"
    )


if __name__ == "__main__":
    main()
