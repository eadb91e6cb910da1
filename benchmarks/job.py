"""run_job over a night of segments: 200 of 2 MB, 20 of 100 MB. Target: two workers 1.7 times as fast as one.

Each run is a process of its own over hard links of the same segments, the kinds in turn. One worker may use
both cores already; so it is also kept to one core: what two workers are against that is what the second core
gives. Memory is that of the process and its workers, from the first quarter of the segments on; the job is
flat if the last quarter needs no more than the second. Beside it run_segment, called for one segment after
another. What the job's own process has to do for a segment is what workers on other machines wait for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import MIX_ACTIVITY, PRODUCTS, Claim, Table, arguments, child, figure, speed, tell

import cbtools as cb

QUARTERS = 4
ALONE, ONE, ONE_CORE, TWO = (
    "run_segment, one after another",
    "run_job, one worker",
    "run_job, one worker on one core",
    "run_job, two workers",
)
KINDS: dict[str, tuple[int, int | None]] = {
    ALONE: (0, None),
    ONE: (1, None),
    ONE_CORE: (1, 1),
    TWO: (2, None),
}
"""Workers (0: no job), and to how many cores the process is kept."""
SMALL = {"products": ["BTC-USD", "ETH-USD"]}
LARGE = {"products": PRODUCTS["30 products"], "activity": MIX_ACTIVITY}


def recording(folder: Path, megabytes: float, segment_mb: float, **market: Any) -> list[Path]:
    """Give simulated segments, made at the first time."""
    folder = folder / f"job-{len(market['products'])}-{megabytes:g}-{segment_mb:g}"
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        cb.simulate_segments(folder, megabytes=megabytes, segment_mb=segment_mb, seed=1, **market)
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
    started, worked = time.perf_counter(), time.process_time()
    if workers:
        report = cb.run_job(ready, out, workers=workers, progress=False)
        assert report.done == segments
    else:
        for path in sorted(ready.iterdir()):
            cb.run_segment(path, out)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    quarters = [0] * QUARTERS
    for done, size in told:
        quarter = min(QUARTERS - 1, done * QUARTERS // segments)
        quarters[quarter] = max(quarters[quarter], size)
    print(json.dumps({"seconds": seconds, "own": worked / segments, "memory": quarters}))


def run(paths: list[Path], folder: Path, kind: str) -> dict[str, Any]:
    """Run once in a process of its own."""
    workers, cores = KINDS[kind]
    base = folder / "job-run"
    shutil.rmtree(base, ignore_errors=True)
    ready = base / "raw/ready/coinbase"
    ready.mkdir(parents=True)
    for path in paths:
        os.link(path, ready / path.name)
    said: dict[str, Any] = child(__file__, "--one", workers, ready, base / "out", cores=cores).said
    shutil.rmtree(base)
    return said


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    large, each = (64, 16) if options.quick else (5 * options.megabytes, 100)
    for paths in (
        recording(options.folder, options.megabytes, 2, **SMALL),
        recording(options.folder, large, each, **LARGE),
    ):
        size = sum(path.stat().st_size for path in paths)
        name = f"{len(paths)} segments, {size / 1e6:.0f} MB"
        runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for _ in range(options.repeat):
            for kind in KINDS:
                runs[kind].append(run(paths, options.folder, kind))
        seconds = {kind: [one["seconds"] for one in of] for kind, of in runs.items()}
        for other in (ONE_CORE, ONE):
            yield Claim(
                f"two workers against {other.removeprefix('run_job, ')}, {name}",
                *("s", seconds[TWO], 1.7),
                less=True,
                other=other,
                theirs=seconds[other],
            )
        for kind, took in seconds.items():
            yield speed(f"{kind}, {name}", took, size)
        own = [1e3 * one["own"] for one in runs[TWO]]
        yield Claim(f"the job's own process, CPU a segment, {name}", "ms", own, less=True)
        memory = {kind: [max(one["memory"][k] for one in of) for k in range(4)] for kind, of in runs.items()}
        quarters = [f"quarter {k + 1}" for k in range(QUARTERS)]
        rows = [[kind, *(figure(peak / 1e6) for peak in peaks)] for kind, peaks in memory.items()]
        yield Table(f"Peak memory, MB, {name}", ["", *quarters], rows)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        workers, ready, out = sys.argv[2:]
        one_run(Path(ready), Path(out), int(workers))
        return
    options = arguments(__doc__, megabytes=400, quick=16)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
