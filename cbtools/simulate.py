"""A market that behaves, written to the wire format from its own truth.

It knows nothing of how the package reads: what is written here is what the exchange and the recorder would
have written, and what it reports is what really happened. So it can judge the rest.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final, get_args

import polars as pl

from cbtools._simulate.draws import Draws
from cbtools._simulate.exchange import SLOT_US, Exchange
from cbtools._simulate.market import Market
from cbtools._simulate.products import PRODUCTS, Product
from cbtools._simulate.recorder import BAD_LINES, Compression, Fault, FaultKind, Recorder, Segments
from cbtools._simulate.wire import Frame
from cbtools.errors import ConfigError, unknown_name

START: Final = datetime(2025, 11, 26, 14, tzinfo=UTC)
"""When a simulated recording begins, unless told otherwise."""

_MEBI: Final = 1 << 20
_TRUTH: Final = {
    "connection": pl.Int32(),
    "sequence_num": pl.Int64(),
    "product_id": pl.String(),
    "best_bid": pl.Float64(),
    "best_bid_size": pl.Float64(),
    "best_ask": pl.Float64(),
    "best_ask_size": pl.Float64(),
}


@dataclass(frozen=True)
class Counts:
    """What can be read of a product: frames lost or spoiled and repeats are not counted."""

    frames: int
    level_changes: int
    snapshot_levels: int
    trades: int
    snapshot_trades: int
    tickers: int


@dataclass(frozen=True)
class Simulation:
    """A simulated recording and the truth about it.

    Attributes
    ----------
    paths : tuple of Path
        The segments, in order.
    bytes, lines : int
        Of all segments together, decompressed.
    seconds : float
        Market time that has passed.
    connections : int
        Number of connections.
    counts : mapping of str to Counts
        Product → what can be read of it.
    faults : tuple of Fault
        What was put wrong, in order.
    truth : polars.DataFrame or None
        With ``truth=True``, a row for each level2 frame sent, lost ones included: ``connection`` (Int32, from
        1), ``sequence_num`` (Int64), ``product_id`` (String), ``best_bid``, ``best_bid_size``, ``best_ask``,
        ``best_ask_size`` (Float64, never null).
    """

    paths: tuple[Path, ...]
    bytes: int
    lines: int
    seconds: float
    connections: int
    counts: Mapping[str, Counts]
    faults: tuple[Fault, ...]
    truth: pl.DataFrame | None = field(default=None, compare=False, repr=False)

    def to_frame(self) -> pl.DataFrame:
        """Give the counts as a frame, a row a product."""
        return pl.DataFrame([{"product_id": name, **asdict(of)} for name, of in self.counts.items()])

    def _repr_html_(self) -> str:
        faults = Counter(fault.kind for fault in self.faults)
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(faults.items())) or "no faults"
        files = f"{len(self.paths)} segments in {self.paths[0].parent}"
        size = f"{self.lines:,} lines, {self.bytes / 1e6:,.1f} MB, {self.seconds:,.0f} s of market time"
        return f"<p>{html.escape(f'{files}: {size}, {told}')}</p>{self.to_frame()._repr_html_()}"


def simulate_segments(
    folder: str | Path,
    *,
    products: str | Sequence[str] = ("BTC-USD",),
    minutes: float | None = None,
    megabytes: float | None = None,
    seed: int = 0,
    start: datetime = START,
    levels: int | None = None,
    activity: float = 1.0,
    reconnects: int = 0,
    gaps: int = 0,
    bad_lines: int = 0,
    duplicates: int = 0,
    segment_mb: float = 100,
    compression: Compression | None = None,
    truth: bool = False,
) -> Simulation:
    """Simulate a market and record it as the recorder would have, into ``raw/ready/coinbase/`` of a folder.

    Level2, trades and tickers agree with one another: trades print at levels that were shown, and no more
    than was shown; the next update shows what they left; a ticker tells the book's best as of the frames
    before it. The same arguments give the same bytes, on every machine.

    Parameters
    ----------
    folder : str or Path
        Where ``raw/ready/coinbase/segment_YYYYMMDDTHH_NNNNN.ndjson`` go; made if need be. It may not hold
        segments yet.
    products : str or sequence of str
        What is traded, e.g. ``["BTC-USD", "ETH-USD"]``.
    minutes : float, optional
        Market time to simulate. Either this or ``megabytes`` is needed.
    megabytes : float, optional
        Go on until so many MiB (2**20 bytes, before compression) are written.
    seed : int
        Which market it is.
    start : datetime
        When the recording begins, with a time zone.
    levels : int, optional
        Levels a side that each book starts with, at least 20. By default the product's own: 18,000 bids and
        27,000 asks for BTC-USD. A product of few ticks has fewer bids.
    activity : float
        How busy the market is, compared with the usual: above 0, at most 4.
    reconnects : int
        How often the connection is lost and begins anew with snapshots, spread over the time.
    gaps : int
        How often one to five frames get lost after they were numbered.
    bad_lines : int
        How many lines are spoiled: cut, glued to the next, with NULs, with invalid UTF-8, in turn.
    duplicates : int
        How many lines are written twice.
    segment_mb : float
        Size in MiB (before compression) after which a new segment begins.
    compression : {"gzip", "zstd"}, optional
        How the segments are compressed.
    truth : bool
        Whether to keep the true best bid and ask after each level2 frame.

    Returns
    -------
    Simulation
        The segments' paths and what is truly in them.

    Raises
    ------
    ConfigError
        If an argument cannot be meant, a product is not known, or the folder holds segments already.

    Notes
    -----
    A fault still waiting when the time is over is put in before the recording ends, so very short recordings
    with many faults last a little longer than asked for.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = simulate_segments(folder, products="ETH-USD", minutes=0.05, levels=50, seed=7, gaps=1)
    >>> [path.name for path in done.paths]
    ['segment_20251126T14_00001.ndjson']
    >>> done.counts["ETH-USD"].snapshot_levels, done.faults[0].kind
    (100, 'gap')
    """
    names = [products] if isinstance(products, str) else list(products)
    _check_products(names)
    _check_amount(minutes, megabytes, levels, segment_mb, seed)
    if not 0 < activity <= 4:
        raise ConfigError(f"activity is above 0 and at most 4: not {activity}")
    if start.tzinfo is None:
        raise ConfigError("start has no time zone: give e.g. datetime(2025, 11, 26, 14, tzinfo=UTC)")
    if compression not in (None, *get_args(Compression)):
        raise unknown_name("compression", str(compression), get_args(Compression))
    wishes = {"reconnects": reconnects, "gaps": gaps, "bad_lines": bad_lines, "duplicates": duplicates}
    for name, count in wishes.items():
        if count < 0:
            raise ConfigError(f"{name} is a number of times, from 0: not {count}")

    segments = Segments(Path(folder), segment_mb * _MEBI, compression)
    _make_folders(segments)
    plan = _plan_faults(seed, gaps, bad_lines, duplicates)
    recorder = Recorder(segments, seed, plan, truth)
    start_us = (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    exchange = Exchange(
        [Market(_product(name, activity), seed, levels) for name in names], seed, start_us, truth=truth
    )
    with segments:
        _record(exchange, recorder, minutes, megabytes, reconnects)
    return Simulation(
        paths=tuple(segments.paths),
        bytes=segments.bytes_total,
        lines=segments.lines_total,
        seconds=(exchange.now_us - start_us) / 1e6,
        connections=recorder.connection,
        counts=MappingProxyType({name: _counts(recorder, name) for name in names}),
        faults=tuple(recorder.faults),
        truth=None if recorder.truth is None else pl.DataFrame(recorder.truth, schema=_TRUTH, orient="row"),
    )


def _product(name: str, activity: float) -> Product:
    product = PRODUCTS[name]
    return replace(product, activity=product.activity * activity)


def _check_products(names: Sequence[str]) -> None:
    if not names:
        raise ConfigError("no products: name at least one, e.g. products='BTC-USD'")
    for name in names:
        if name not in PRODUCTS:
            raise unknown_name("product", name, PRODUCTS)
    if len(set(names)) < len(names):
        raise ConfigError(f"products are named more than once: {', '.join(names)}")


def _check_amount(
    minutes: float | None, megabytes: float | None, levels: int | None, segment_mb: float, seed: int
) -> None:
    if (minutes is None) == (megabytes is None):
        raise ConfigError("say either how many minutes or how many megabytes to simulate")
    for name, amount in (("minutes", minutes), ("megabytes", megabytes), ("segment_mb", segment_mb)):
        if amount is not None and not 0 < amount < float("inf"):
            raise ConfigError(f"{name} is to be above 0: not {amount}")
    if levels is not None and levels < 20:
        raise ConfigError(f"a book needs 20 levels a side to live: not {levels}")
    if seed < 0:
        raise ConfigError(f"seed is a whole number from 0: not {seed}")


def _make_folders(segments: Segments) -> None:
    segments.active.mkdir(parents=True, exist_ok=True)
    segments.ready.mkdir(parents=True, exist_ok=True)
    if next(segments.ready.glob("segment_*"), None) is not None:
        raise ConfigError(f"{segments.ready} holds segments already: take an empty folder")


def _plan_faults(seed: int, gaps: int, bad_lines: int, duplicates: int) -> list[tuple[float, FaultKind]]:
    """Say at which part of the recording each fault is due, each kind spread over the whole."""
    random = Draws(seed, 1)
    wanted: list[list[FaultKind]] = [
        ["gap"] * gaps,
        [BAD_LINES[i % len(BAD_LINES)] for i in range(bad_lines)],
        ["duplicate"] * duplicates,
    ]
    return sorted(
        (0.95 * (i + place) / len(kinds), kind)
        for kinds in wanted
        for i, (kind, place) in enumerate(zip(kinds, random.fractions(len(kinds)).tolist(), strict=True))
    )


def _counts(recorder: Recorder, name: str) -> Counts:
    found = recorder.counts
    return Counts(
        frames=found[name, "frames"],
        level_changes=found[name, "l2_data"],
        snapshot_levels=found[name, "l2_data snapshot"],
        trades=found[name, "market_trades"],
        snapshot_trades=found[name, "market_trades snapshot"],
        tickers=found[name, "ticker"] + found[name, "ticker snapshot"],
    )


def _record(
    exchange: Exchange, recorder: Recorder, minutes: float | None, megabytes: float | None, reconnects: int
) -> None:
    """Let the market run and send its frames, until the time or the bytes are full."""
    segments = recorder.segments
    first_us = exchange.now_us
    slots = max(1, round((minutes or 0) * 60_000_000 / SLOT_US))
    breaks = [(i + 1) / (reconnects + 1) for i in range(reconnects)]

    def progress() -> float:
        if megabytes is not None:
            return segments.bytes_total / (megabytes * _MEBI)
        return (exchange.now_us - first_us) / (slots * SLOT_US)

    def send(frames: list[Frame]) -> None:
        for frame in frames:
            if megabytes is None or not done():
                recorder.send(frame, progress())

    def done() -> bool:
        return progress() >= 1 and not recorder.plan and recorder.settled and not breaks

    recorder.connect()
    send(exchange.greet())
    while not done():
        if breaks and progress() >= breaks[0] and recorder.settled:
            breaks.pop(0)
            exchange.sleep()
            recorder.connect()
            send(exchange.greet())
        send(exchange.slot())
