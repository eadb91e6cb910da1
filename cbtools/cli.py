"""The command line: it reads arguments, calls the functions of the package and prints their reports."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

import cbtools as cb
from cbtools.commands import compact, describe, query, repartition
from cbtools.etl.days import Days
from cbtools.raw.files import MAX_LINE_MB, find_segments
from cbtools.stores import as_place

app = App(
    name="cbtools",
    help="From raw recordings of Coinbase's order book to tables that can be trusted.",
    version_flags=["--version"],
)

Raw = Annotated[list[str], Parameter(consume_multiple=True, negative_iterable=())]
Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative_iterable=())]

_SOME_FAILED = 65
_EXIT_CODES = {cb.DatasetError: 74, cb.JobError: 75, cb.ConfigError: 78}
"""As sysexits.h names them: input/output error, try again later, configuration; 65 is bad data."""


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What a job and a watch have in common."""

    channels: Names = None
    """Only these tables, e.g. level2."""
    products: Names = None
    """Only these products, e.g. BTC-USD."""
    workers: int = 1
    """How many segments to work on side by side, each in a process of its own."""
    delete_after_processing: bool = False
    """Delete the segments that are done, instead of moving them to done/."""
    processing_dir: Path | None = None
    """Where segments are claimed to; by default beside ready/."""
    done_dir: Path | None = None
    """Where segments that are done go; by default beside ready/."""
    failed_dir: Path | None = None
    """Where bad segments go; by default beside ready/."""


_JOBS = Jobs()


_ALL_DAYS = Days()


@app.command
def run(
    raw: Raw,
    /,
    *,
    out: str,
    strict: bool = False,
    progress: bool = True,
    max_line_mb: float = MAX_LINE_MB,
    since: str | None = None,
    until: str | None = None,
    dry_run: bool = False,
    jobs: Annotated[Jobs, Parameter(name="*")] = _JOBS,
    of: Annotated[Days, Parameter(name="*")] = _ALL_DAYS,
) -> int:
    """Turn raw segments into partitioned Parquet, with the order book rebuilt.

    A folder is a job: its segments are claimed, each is run exactly once, and moved to done/ (beside ready/;
    bad ones to failed/). Files and glob patterns are run one after the other, and stay where they are; a bad
    one does not stop the others, and the exit code is then 65.

    Parameters
    ----------
    raw
        A folder of closed segments; or segments and glob patterns.
    out
        Root of the datasets: it gets level2/, book/, market_trades/, ticker/, _state/, _runs/, _quarantine/.
    strict
        Stop at the first line that is not understood, or the first bad segment.
    progress
        Show a progress bar, where the output is a terminal.
    max_line_mb
        A longer line, MiB, goes to quarantine with its first 4,096 bytes.
    since
        Of a folder, only segments with frames from this time on, e.g. 2025-11-26T14:00 (UTC).
    until
        Of a folder, only segments with frames before this time.
    dry_run
        Of a folder, tell what would be done, and do nothing.
    """
    shown = progress and sys.stderr.isatty()
    since, until = of.instants(since, until)
    if len(raw) == 1 and as_place(raw[0]).is_dir():
        report = cb.run_job(
            raw[0],
            out,
            strict=strict,
            progress=shown,
            max_line_mb=max_line_mb,
            since=since,
            until=until,
            dry_run=dry_run,
            **vars(jobs),
        )
        print(report)
        if dry_run:
            for segment, outcome in report.segments.select("segment", "outcome").iter_rows():
                print(f"{outcome:<11} {segment}")
        return _SOME_FAILED if report.failed else 0
    if since or until or dry_run or jobs != _JOBS:
        raise cb.ConfigError(
            "since, until, dry-run, mode and the options of jobs are for one folder of segments, not for "
            "files"
        )
    failed = 0
    for path in find_segments(raw):
        try:
            ran = cb.run_segment(path, out, strict=strict, progress=shown, max_line_mb=max_line_mb)
        except cb.SegmentError as error:
            if strict:
                raise
            failed = _SOME_FAILED
            print(f"cbtools: {error}", file=sys.stderr)
        else:
            print(ran, end="\n\n")
    return failed


@app.command
def watch(
    folder: str,
    /,
    *,
    out: str,
    strict: bool = False,
    poll_seconds: float = 1.0,
    heartbeat_seconds: float = 60.0,
    max_line_mb: float = MAX_LINE_MB,
    jobs: Annotated[Jobs, Parameter(name="*")] = _JOBS,
) -> None:
    """Run the segments of a folder as the recorder closes them, until SIGTERM or SIGINT.

    The exit code is 0 if it was stopped by a signal; else as that of any command: 65 for bad data (strict),
    74 for a disk that cannot be written to, 75 where another job holds the folder or the workers died, 78 for
    an option that cannot be meant.

    Parameters
    ----------
    folder
        The folder of closed segments.
    out
        Root of the datasets.
    strict
        Stop at the first bad segment.
    poll_seconds
        How often to look for new segments, seconds.
    heartbeat_seconds
        How often to say that it is alive, seconds.
    max_line_mb
        A longer line, MiB, goes to quarantine with its first 4,096 bytes.
    """
    cb.watch_job(
        folder,
        out,
        strict=strict,
        poll_seconds=poll_seconds,
        heartbeat_seconds=heartbeat_seconds,
        max_line_mb=max_line_mb,
        log=_say,
        **vars(jobs),
    )


@app.command
def status(folder: str, /, *, out: str) -> None:
    """Tell how far the jobs on a folder are.

    Parameters
    ----------
    folder
        The folder of closed segments.
    out
        Root of the datasets.
    """
    print(cb.job_status(folder, out))


def _say(line: str) -> None:
    print(line, flush=True)


@app.command
def inspect(raw: Raw, /, *, progress: bool = True, max_line_mb: float = MAX_LINE_MB) -> None:
    """Tell what is in raw segments and how far the tickers agree with the books, and write nothing.

    The exit code is 65 if one is not a recording: of none of its lines a frame's header can be read.

    Parameters
    ----------
    raw
        Segments, folders of segments, or glob patterns; read as one stream, in this order.
    progress
        Show a progress bar, where the output is a terminal.
    max_line_mb
        A longer line, MiB, is rejected.
    """
    report = cb.inspect_raw(raw, progress=progress and sys.stderr.isatty(), max_line_mb=max_line_mb)
    if not report.raw.frames:
        _refuse(report.raw.no_recording)
    print(report)
    _refuse(report.raw.no_recording)


def _refuse(no_recording: Mapping[str, str]) -> None:
    """Raise if segments are not recordings."""
    if no_recording:
        found = (f"{segment} is not a recording: {why}" for segment, why in no_recording.items())
        raise cb.SegmentError("\n".join(found))


@app.command
def simulate(
    folder: str,
    /,
    *,
    products: Annotated[list[str] | None, Parameter(consume_multiple=True, negative_iterable=())] = None,
    minutes: float = 5.0,
    seed: int = 1,
    reconnects: int = 0,
    gaps: int = 0,
    bad_lines: int = 0,
    duplicates: int = 0,
    compression: Literal["gzip", "zstd"] | None = None,
) -> None:
    """Simulate a recording: a market whose book, trades and tickers agree, in the wire format.

    Parameters
    ----------
    folder
        Where to make the recorder's folders.
    products
        Product ids; BTC-USD and ETH-USD if none are given.
    minutes
        Minutes of market.
    seed
        Equal seeds give equal bytes.
    reconnects
        How often the connection is lost and made again.
    gaps
        How often some frames are lost.
    bad_lines
        How many lines are cut, glued or garbled.
    duplicates
        How many lines are written twice.
    compression
        Compress the segments.
    """
    made = cb.simulate_segments(
        folder,
        products=products or ["BTC-USD", "ETH-USD"],
        minutes=minutes,
        seed=seed,
        reconnects=reconnects,
        gaps=gaps,
        bad_lines=bad_lines,
        duplicates=duplicates,
        compression=compression,
    )
    print("\n".join(str(path) for path in made.paths))


@app.command
def demo(out: Path = Path("cbtools-demo"), /) -> None:
    """Run the main job on the sample recording: reports, two pictures, and what to try next.

    Parameters
    ----------
    out
        Where to put the dataset and the pictures.
    """
    sample = cb.sample_path()
    print(f"The sample recording is {sample}.\nThe first run compiles its kernels: some seconds, once.\n")
    for path in find_segments(sample):
        print(cb.run_segment(path, out / "processed"), end="\n\n")
    pictures = _draw(sample, out)
    print(f"dataset  {out / 'processed'}")
    print("\n".join(f"picture  {picture}" for picture in pictures), end="\n\n")
    print("Try next:")
    print(f"  cbtools inspect {sample}")
    print("  cbtools describe book")
    print(f"  cbtools run {sample}/* --out processed")
    print('  python -c "import cbtools as cb; print(cb.scan_dataset(')
    print(f"      {str(out / 'processed')!r}, 'market_trades').head().collect())\"")
    print('  jupyter lab notebooks/01_quickstart.ipynb    (pip install -e ".[lab]")')


def _draw(sample: Path, out: Path) -> list[Path]:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    product, tables = "BTC-USD", ("market_trades", "ticker", "book")
    trades, tickers, book = (cb.scan_dataset(out / "processed", table).collect() for table in tables)
    whole = cb.scan_raw(sample, "level2", products=[product]).pipe(cb.rebuild_book, depth=400).collect()
    draw: dict[str, Callable[[], object]] = {
        "heatmap": lambda: cb.plot.heatmap(whole, product, trades=trades, within_bps=8),
        "quotes": lambda: cb.plot.quotes(book, product),
        "trades": lambda: cb.plot.trades_on_quotes(trades, tickers, product),
    }
    pictures = [out / f"{name}.png" for name in draw]
    for picture, drawn in zip(pictures, draw.values(), strict=True):
        drawn()
        plt.savefig(picture, dpi=150)
        plt.close()
    return pictures


for command in (describe, query, compact, repartition):
    app.command(command)


def main() -> None:
    """Run the command line; an error of ours is a message and an exit code, without a traceback."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show(warnings.showwarning)
            code = app(result_action="return_value") or 0
    except cb.CbtoolsError as error:
        print(f"cbtools: {error}", file=sys.stderr)
        code = _EXIT_CODES.get(type(error), _SOME_FAILED)
    sys.exit(code)


def _show(others: Callable[..., None]) -> Callable[..., None]:
    """Show our warnings as lines, without the place in the source; the others as they were."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, cb.CbtoolsWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            others(message, category, *place, **more)

    return show
