"""The command line: it reads arguments, calls the functions of the package and prints their reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import cbtools as cb
from cbtools.raw.files import find_segments
from cbtools.schema import TABLES

app = App(
    name="cbtools",
    help="From raw recordings of Coinbase's order book to tables that can be trusted.",
    version_flags=["--version"],
)

Raw = Annotated[list[Path], Parameter(consume_multiple=True, negative_iterable=())]


@app.command
def run(raw: Raw, /, *, out: Path, strict: bool = False, progress: bool = True) -> None:
    """Turn raw segments into partitioned Parquet, one after the other, with the order book rebuilt.

    Parameters
    ----------
    raw
        Segments, folders of segments, or glob patterns.
    out
        Root of the datasets: it gets level2/, book/, market_trades/, ticker/, _state/ and _quarantine/.
    strict
        Stop at the first line that is not understood.
    progress
        Show a progress bar, where the output is a terminal.
    """
    for path in find_segments(raw):
        print(cb.run_segment(path, out, strict=strict, progress=progress and sys.stderr.isatty()), end="\n\n")


@app.command
def inspect(raw: Raw, /, *, progress: bool = True) -> None:
    """Tell what is in raw segments and how far the tickers agree with the books, and write nothing.

    Parameters
    ----------
    raw
        Segments, folders of segments, or glob patterns; read as one stream, in this order.
    progress
        Show a progress bar, where the output is a terminal.
    """
    print(cb.inspect_raw(raw, progress=progress and sys.stderr.isatty()))


@app.command
def describe(table: str | None = None, /) -> None:
    """Describe the columns of a table, or all features, or list the tables.

    Parameters
    ----------
    table
        E.g. level2; or ``features``, for the catalogue of them.
    """
    if table is None:
        print("\n".join([*TABLES, "features"]))
        return
    if table == "features":
        for name, of, definition, unit, _, source in cb.catalogue().iter_rows():
            told = "; ".join(text for text in (definition, unit, source) if text)
            print(f"{name:<40} {of:<13} {told}")
        return
    for column, dtype, unit, meaning, null in cb.describe(table).iter_rows():
        print(f"{column:<18} {dtype:<36} {unit:<15} {meaning}" + (f" (null: {null})" if null else ""))


@app.command
def simulate(
    folder: Path,
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
    pictures = _draw(out)
    print(f"dataset  {out / 'processed'}")
    print("\n".join(f"picture  {picture}" for picture in pictures), end="\n\n")
    print("Try next:")
    print(f"  cbtools inspect {sample}")
    print("  cbtools describe book")
    print(f"  cbtools run {sample} --out processed")
    print('  python -c "import cbtools as cb; print(cb.scan_dataset(')
    print(f"      {str(out / 'processed')!r}, 'market_trades').head().collect())\"")
    print('  jupyter lab notebooks/01_quickstart.ipynb    (pip install -e ".[lab]")')


def _draw(out: Path) -> list[Path]:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    tables = ("market_trades", "ticker", "book")
    trades, tickers, book = (cb.scan_dataset(out / "processed", table).collect() for table in tables)
    pictures = [out / "trades.png", out / "quotes.png"]
    for picture in pictures:
        figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
        if picture.stem == "trades":
            cb.plot.trades_on_quotes(trades, tickers, "BTC-USD", ax=axes)
        else:
            cb.plot.quotes(book, "BTC-USD", ax=axes)
        figure.savefig(picture, dpi=150)
    return pictures


def main() -> None:
    """Run the command line; an error of ours is a message and exit code 1, without a traceback."""
    try:
        app()
    except cb.CbtoolsError as error:
        print(f"cbtools: {error}", file=sys.stderr)
        sys.exit(1)
