"""What the benchmarks share: their input, clocks that are fair to both sides, and what they found as data."""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

import cbtools as cb

ROOT = Path(__file__).parents[1]
SOME = """
BTC ETH SOL XRP DOGE ADA LINK SUI AVAX LTC HBAR XLM SHIB BCH PEPE
UNI AAVE DOT NEAR BONK ICP APT FIL ATOM ARB ETC ALGO INJ OP RENDER
"""
PRODUCTS = {"BTC-USD": ["BTC-USD"], "30 products": [f"{name}-USD" for name in SOME.split()]}
"""The inputs by their names."""
MIX_ACTIVITY = 0.85
"""As busy a market of 30 products has, in 100 MiB, as many changes, tickers and trades as a real one."""

_SETTLE = 0.3
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


# --- what was found


@dataclass(frozen=True)
class Claim:
    """A figure of each run, and what it is held against.

    That is the other side's figure in the same runs, where there is one: ``target`` is then how many times as
    good ours is to be. Else ``target`` is a figure, too. ``less``: less is better.
    """

    name: str
    unit: str
    runs: list[float]
    target: float | None = None
    less: bool = False
    other: str = ""
    theirs: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times as good as the other side, or else as the target, each run is."""
        if self.theirs and len(self.theirs) == len(self.runs):
            against = self.theirs
        elif self.theirs:
            against = [statistics.median(self.theirs)] * len(self.runs)
        else:
            against = [1.0 if self.target is None else self.target] * len(self.runs)
        pairs = zip(self.runs, against, strict=True)
        return [theirs / ours if self.less else ours / theirs for ours, theirs in pairs]

    @property
    def met(self) -> bool | None:
        """Whether the median run reaches the target; None if there is none."""
        if self.target is None:
            return None
        return statistics.median(self.ratios) >= (self.target if self.theirs else 1.0)

    @property
    def aim(self) -> str:
        """The target in words."""
        if self.target is None:
            return ""
        if self.theirs:
            return f"{figure(self.target)} times"
        return f"{'at most' if self.less else 'at least'} {figure(self.target)}"

    def __str__(self) -> str:
        said = f"{self.name}: {spread(self.runs)} {self.unit}".rstrip()
        if self.theirs:
            said += f", {self.other} {spread(self.theirs)}: {spread(self.ratios)} times as good"
        if self.target is None:
            return said
        return f"{said}; target {self.aim}: {'met' if self.met else 'MISSED'}"


@dataclass(frozen=True)
class Table:
    """Figures that are no claims: what the claims are made of."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        told = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, *told])


def figure(value: float) -> str:
    """Write three digits of a number."""
    rounded = float(f"{value:.3g}")
    if abs(rounded) < 1:
        return f"{rounded:.3g}"
    return f"{value:,.{max(0, 3 - len(str(int(abs(rounded)))))}f}"


def spread(runs: Sequence[float]) -> str:
    """Write the median, and the least and the most."""
    low, high = figure(min(runs)), figure(max(runs))
    return figure(statistics.median(runs)) + (f" ({low} to {high})" if len(runs) > 1 else "")


def tell(options: argparse.Namespace, found: Iterable[Claim | Table]) -> None:
    """Print what a benchmark finds as it comes, and write it as JSON if that is asked for."""
    claims, tables = [], []
    for one in found:
        print(one, flush=True)
        (claims if isinstance(one, Claim) else tables).append(asdict(one))
    if options.json:
        options.json.write_text(json.dumps({"claims": claims, "tables": tables}, indent=1), encoding="utf-8")


def speed(name: str, runs: Sequence[float], n_bytes: float, target: float | None = None) -> Claim:
    """Claim a speed in MB/s, of runs that took so many seconds for so many bytes."""
    return Claim(name, "MB/s", [n_bytes / 1e6 / run for run in runs], target)


def times_as_fast(
    name: str, seconds: Mapping[str, list[float]], ours: str, theirs: str, target: float | None
) -> Claim:
    """Claim to be so many times as fast."""
    return Claim(name, "s", seconds[ours], target, less=True, other=theirs, theirs=seconds[theirs])


# --- options and input


def arguments(
    text: str | None, megabytes: float = 100, quick: float = 8, repeat: int = 5
) -> argparse.Namespace:
    """Parse the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=megabytes, help="size of the input (%(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"small: {quick} MB, for CI")
    parser.add_argument("--repeat", type=int, default=repeat, help="how often each is measured (%(default)s)")
    cache = Path(tempfile.gettempdir()) / "cbtools-benchmarks"
    parser.add_argument("--folder", type=Path, default=cache, help="keeps the input (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there, too")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.repeat = quick, min(options.repeat, 2)
    return options


def segment(
    folder: Path, megabytes: float, products: str | Sequence[str] = "BTC-USD", activity: float = 1.0
) -> Path:
    """Give one simulated segment of so many MiB, made at the first time."""
    names = [products] if isinstance(products, str) else products
    busy = "" if activity == 1 else f"-{activity:g}"
    folder = folder / f"{names[0]}-{len(names)}-{megabytes:g}{busy}"
    done = folder / "done"
    if not done.exists():
        if folder.exists():
            raise SystemExit(f"{folder} is unfinished: remove it")
        cb.simulate_segments(
            folder, products=names, megabytes=megabytes, seed=1, segment_mb=1e6, activity=activity
        )
        done.touch()
    (path,) = (folder / "raw/ready/coinbase").iterdir()
    return path


def inputs(options: argparse.Namespace) -> dict[str, Path]:
    """Give the segment of BTC-USD and that of 30 products."""
    return {
        name: segment(
            options.folder, options.megabytes, products, 1.0 if len(products) == 1 else MIX_ACTIVITY
        )
        for name, products in PRODUCTS.items()
    }


# --- clocks


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


@dataclass(frozen=True)
class Child:
    """What a process gave: seconds from start to end, peak memory (bytes), and what its last line said."""

    seconds: float
    peak: int
    said: Any


def child(*arguments: object, cores: int | None = None, **environment: str) -> Child:
    """Run Python with these arguments; the last line that it prints may be JSON. At most on so many cores.

    It keeps and finds bytecode, as an installed package's is.
    """
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def limit() -> None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit if cores else None,
    )
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for: Popen need not
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))[:200]} ended with {process.returncode}")
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = None
    return Child(seconds, usage.ru_maxrss * _RSS_UNIT, said)


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
