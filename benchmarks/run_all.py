"""Run every benchmark, write RESULTS.md and RESULTS.json, and compare with the last time.

The last time is what is committed. Each benchmark is a process of its own, one after another; of one that
fails the message is told, and the others go on. Names of benchmarks: only these are run, and the figures of
the others stay as they were. ``--quick`` tries all on small inputs, and writes to the folder of the inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import ROOT, Claim, figure, spread

SCRIPTS = (
    "segment",
    "pipeline",
    "decode",
    "damage",
    "filter",
    "book",
    "features",
    "flat",
    "memory",
    "job",
    "storage",
    "query",
    "imports",
    "plots",
)
"""The benchmarks, the most important first."""
SHARED = ("measure", "by_hand", "run_all")
"""The other files here."""
PACKAGES = ("cbtools", "polars", "numba", "numpy", "pyarrow", "orjson")

Results = dict[str, Any]
"""``scripts``: name → date, machine, seconds, claims, tables; or an error."""


# --- running


def machine() -> dict[str, str]:
    """Tell on what is measured."""
    cpu = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if (info := Path("/proc/cpuinfo")).exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        cpu = found[1] if found else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    return {
        "machine": f"{cores} cores of {cpu}, {memory:.0f} GiB, {platform.system()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "commit": git("describe", "--always", "--dirty").strip() or "none",
    }


def git(*arguments: str) -> str:
    """Ask git; nothing where it has no answer."""
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def run(name: str, options: argparse.Namespace) -> Results:
    """Run one benchmark and give what it found."""
    arguments = ["--quick"] if options.quick else []
    arguments += ["--repeat", str(options.repeat)] if options.repeat else []
    arguments += ["--folder", str(options.folder)]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "found.json"
        command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments, "--json", str(told)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        found = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no message"]
        print(done.stderr, file=sys.stderr)
        found = {"error": f"ended with {done.returncode}: {last[0].replace(str(ROOT), '.')}"}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"date": now, "seconds": round(time.perf_counter() - started), **machine(), **found}


# --- comparing


def claims_of(results: Results) -> dict[tuple[str, str], Claim]:
    """Give the claims by script and name."""
    return {
        (script, claim["name"]): Claim(**claim)
        for script, found in results.get("scripts", {}).items()
        for claim in found.get("claims", [])
    }


def level(claim: Claim) -> list[float]:
    """Give what is compared of each run, more being better: the ratio of both sides, else the figure."""
    if claim.theirs:
        return claim.ratios
    return [1 / run if claim.less else run for run in claim.runs if run > 0 or not claim.less]


def change(last: Claim, now: Claim) -> str:
    """Say whether a claim is worse or better than the last time, beyond the spread of both; else nothing."""
    before, after = level(last), level(now)
    if not before or not after:
        return ""
    old, new = statistics.median(before), statistics.median(after)
    if new < min(before) and old > max(after):
        return "worse"
    return "better" if new > max(before) and old < min(after) else ""


def compared(last: Results, now: Results) -> list[str]:
    """Say what has changed since the last time, a line a claim; what got worse comes first.

    On another machine only ratios can be compared, as both sides of them ran there.
    """
    before, after = claims_of(last), claims_of(now)
    if not before:
        return ["There are no results to compare with."]
    moved = {
        script
        for script, found in now["scripts"].items()
        if last["scripts"].get(script, found)["machine"] != found["machine"]
    }
    lines: dict[str, list[str]] = {"worse": [], "better": [], "new": [], "gone": []}
    for (script, name), claim in after.items():
        then = before.get((script, name))
        if then is None:
            lines["new"].append(f"{script}.py, {name}")
        elif (claim.theirs or script not in moved) and (said := change(then, claim)):
            lines[said].append(f"{script}.py, {name}: {shown(then)}, now {shown(claim)}")
    failed = {script for script, found in now["scripts"].items() if "error" in found}
    lines["gone"] = [f"{script}.py, {name}" for script, name in before if (script, name) not in after]
    told = [f"{kind}: {line}" for kind, found in lines.items() for line in found]
    told = [f"FAILED: {script}.py" for script in sorted(failed)] + told
    if moved:
        told.append("Measured on another machine than before: only ratios of two sides are compared.")
    return told or ["No claim has changed beyond its spread."]


def shown(claim: Claim) -> str:
    """Write what a claim is compared by."""
    return f"{spread(claim.ratios)} times" if claim.theirs else f"{spread(claim.runs)} {claim.unit}".rstrip()


# --- writing


def markdown(results: Results, changes: list[str]) -> str:
    """Write the page of results."""
    scripts = {name: results["scripts"][name] for name in SCRIPTS if name in results["scripts"]}
    claims = claims_of(results)
    aimed = {key: claim for key, claim in claims.items() if claim.target is not None}
    missed = [f"- `{s}.py`, {name}: {short(claim)}" for (s, name), claim in aimed.items() if not claim.met]
    newest = max(scripts.values(), key=lambda found: found["date"])
    parts = [
        "# Results\n\nWritten by `python benchmarks/run_all.py`, which repeats all of it. Each figure is the "
        "median of the runs (the least to the most). Where there are two sides, both were measured in turn, "
        "in one run, and the ratio is that of the runs.",
        f"{newest['date']}, commit {newest['commit']}. {newest['machine']}. {newest['versions']}.",
        f"{len(aimed) - len(missed)} of {len(aimed)} targets are met."
        + ("\n\nMissed:\n\n" + "\n".join(missed) if missed else ""),
        *(section(name, found) for name, found in scripts.items()),
        "## A day of all products\n\n" + plan(claims),
        "## Against the results before\n\n" + "\n".join(f"- {line}" for line in changes),
    ]
    return "\n\n".join(parts) + "\n"


def short(claim: Claim) -> str:
    return f"{shown(claim)}, target {claim.aim}"


def section(name: str, found: Mapping[str, Any]) -> str:
    """Write what one benchmark found."""
    text = Path(ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    title = text.removeprefix('"""').split("\n", 1)[0]
    parts = [
        f"## {name}.py\n\n{title}",
        f"`python benchmarks/{name}.py`, {found['date']}, {found['seconds']} s",
    ]
    if "error" in found:
        return "\n\n".join([*parts, f"**Failed**: {found['error']}"])
    rows = []
    for claim in (Claim(**claim) for claim in found["claims"]):
        against = f"{claim.other}: {spread(claim.theirs)} {claim.unit}" if claim.theirs else ""
        times = spread(claim.ratios) if claim.theirs or claim.target is not None else ""
        met = {True: "yes", False: "**no**", None: ""}[claim.met]
        figures = f"{spread(claim.runs)} {claim.unit}".rstrip()
        rows.append([claim.name, figures, against, times, claim.aim, met, str(len(claim.runs))])
    header = ["claim", "figure", "against", "ratio, to that or to the target", "target", "met", "runs"]
    parts.append(grid(header, rows))
    parts += [f"{table['title']}:\n\n{grid(table['header'], table['rows'])}" for table in found["tables"]]
    return "\n\n".join(parts)


def grid(header: list[str], rows: list[list[str]]) -> str:
    """Write a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


MONTH_GB = 1000.0
"""What all of Coinbase's products make of raw recordings in a month, about."""
CORE_HOUR = 0.05
"""What a core costs for an hour at a cloud provider, about, in US dollars: put in yours."""


def plan(claims: Mapping[tuple[str, str], Claim]) -> str:
    """Say what a day of all products costs, by the figures of the mix in large segments."""

    def median(script: str, pattern: str) -> float | None:
        found = [claim for (of, name), claim in claims.items() if of == script and re.search(pattern, name)]
        return statistics.median(found[-1].runs) if found else None

    found = (
        median("job", r"^run_job, one worker, "),
        median("job", r"^run_job, two workers, "),
        median("job", r"^the job's own process"),
        median("segment", r"^Parquet, bytes for each raw byte, 30 products"),
        median("flat", r"^peak memory.*30 products"),
    )
    hand = claims.get(("pipeline", "run_segment against the same by hand, 30 products"))
    if None in found or hand is None:
        return "Not all figures that this is worked out from have been measured."
    one_worker, two_workers, own, parquet, peak = (value or 0.0 for value in found)
    raw = MONTH_GB * 1e3 / 30.4  # MB a day
    segments = raw / (100 * 1.048576)
    workers, speed = max((one_worker, 1), (two_workers, 2))[::-1]
    alone, shared, serial = raw / speed, raw / two_workers / 10, own / 1e3 * segments
    ten = max(shared, serial)
    rows = [
        ["workers", str(workers), "20"],
        ["time for a day", duration(alone), duration(ten)],
        ["of the day", f"{alone / 86_400:.1%}", f"{ten / 86_400:.2%}"],
        ["core hours", figure(alone * 2 / 3600), figure(ten * 20 / 3600)],
        ["dollars", figure(alone * 2 / 3600 * CORE_HOUR), figure(ten * 20 / 3600 * CORE_HOUR)],
        ["peak memory", f"{workers * peak / 1e3:.1f} GB", f"{2 * peak / 1e3:.1f} GB each"],
        ["Parquet", f"{parquet * raw / 1e3:.1f} GB", "the same"],
        ["raw bytes read", f"{figure(speed)} MB/s", f"{figure(raw / ten)} MB/s in all"],
    ]
    return (
        f"On paper, from the figures above. {MONTH_GB:,.0f} GB of raw recordings a month are "
        f"{raw / 1e3:.0f} GB a day, {segments:.0f} segments of 100 MiB. A machine is like this one, and does "
        f"{figure(one_worker)} MB/s of a mix of 30 products with one worker, {figure(two_workers)} MB/s with "
        "two. To bring the raw bytes over a network is not in it. A core is put at "
        f"{CORE_HOUR} US dollars an hour.\n\n"
        + grid(["", "one machine", "ten machines, one job (`executor=`)"], rows)
        + f"\n\nWhat ten machines share is the job's own process, which publishes: {figure(own)} ms of it a "
        f"segment are {duration(serial)} a day, {'more' if serial > shared else 'less'} than the workers' "
        f"{duration(shared)}. By hand (`by_hand.py`) the day takes {figure(statistics.median(hand.ratios))} "
        "times as long as with run_segment, on one machine."
    )


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


# --- the program


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "only", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(SCRIPTS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="small inputs, to see that all of them work")
    parser.add_argument("--repeat", type=int, help="how often each is measured (by default what each says)")
    cache = Path(tempfile.gettempdir()) / "cbtools-benchmarks"
    parser.add_argument("--folder", type=Path, default=cache, help="keeps the inputs (%(default)s)")
    parser.add_argument("--into", type=Path, help="folder of RESULTS.md and .json (benchmarks/)")
    options = parser.parse_args()
    for name in options.only:
        if name not in SCRIPTS:
            parser.error(f"no benchmark {name!r}: there are {', '.join(SCRIPTS)}")
    options.into = options.into or (options.folder if options.quick else ROOT / "benchmarks")
    return options


def main() -> None:
    options = options_of()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.into.mkdir(parents=True, exist_ok=True)
    committed = git("show", "HEAD:benchmarks/RESULTS.json")
    last: Results = json.loads(committed) if committed and not options.quick else {}
    names = options.only or SCRIPTS
    scripts: dict[str, Any] = dict(last.get("scripts", {})) if options.only else {}
    for name in names:
        print(f"\n=== {name}.py", flush=True)
        scripts[name] = run(name, options)
    results = {"scripts": {name: scripts[name] for name in SCRIPTS if name in scripts}}
    changes = compared(last, results)
    (options.into / "RESULTS.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (options.into / "RESULTS.md").write_text(markdown(results, changes), encoding="utf-8")
    print(f"\n=== against the results before; written to {options.into / 'RESULTS.md'}")
    print("\n".join(changes))
    if any("error" in scripts[name] for name in names):
        sys.exit(1)


if __name__ == "__main__":
    main()
