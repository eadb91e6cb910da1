"""Level flow: what was added, cancelled and executed at each level of a book, from one row to the next."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.features import clock as clocks
from cbtools.features import touch
from cbtools.features.clock import Clock
from cbtools.features.links import NO_TIME, Links, ProvenLinks, times_of
from cbtools.features.quotes import require
from cbtools.features.stage import check_frame
from cbtools.features.view import SIDES, Side, depth_of
from cbtools.lazy import Step, stateful

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_WHAT: Final = ("added", "cancelled", "executed", "unexplained")
_TIME: Final = "__time"
_MAKER: Final[dict[Side, str]] = {"bid": "buy", "ask": "sell"}
_SIGN: Final[dict[Side, float]] = {"bid": 1.0, "ask": -1.0}
_BOOK: Final = ("product_id", "book_state", "proven_since")
_TRADES: Final = ("product_id", "price", "size", "maker_side", "is_snapshot")


def add_level_flow(
    book: pl.LazyFrame | pl.DataFrame,
    trades: pl.LazyFrame | pl.DataFrame,
    *,
    levels: int = 1,
    clock: Clock = "receive",
) -> pl.LazyFrame:
    """Compute what was added, cancelled and executed at each level of a book since the row before.

    For each side, and each rank k up to ``levels``:

    ``added_{side}_{k}`` : by how much the size grew at the price that stands at rank k now.
    ``executed_{side}_{k}`` : of the decrease at the price that stood at rank k before, what was traded at
    that very price against that side, between the two rows.
    ``cancelled_{side}_{k}`` : the rest of that decrease.
    ``unexplained_{side}_{k}`` : what was traded there beyond the decrease.

    Trades and book travel in separate messages, so that a trade's print and the decrease that it makes may
    fall between different rows (Coinbase sends trades in batches of 250 ms): what was executed then shows as
    cancelled in one row, and unexplained in another. Executed plus unexplained is what was traded, whatever
    the rows; and cancelled less unexplained over many rows is nearer to what was cancelled than cancelled
    alone. The exchange's clock fits better, and so do rows further apart, as `sample_time` gives them. But by
    it a row looks ahead: trades that happened before it are received up to 250 ms after it. So it is not the
    default, and not for what is to be used as a feature. Of what comes and goes between two rows nothing is
    seen.
    Sizes are doubles: where decimals would give 0, some 1e-16 of the sizes may be left.

    Parameters
    ----------
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, each product's in the order in which they came, rows that are not ok included.
        They stream.
    trades : polars.LazyFrame or polars.DataFrame
        Rows of ``market_trades``; those of snapshots are left out. Price, size and time of each are held in
        memory while the query runs.
    levels : int
        Ranks of each side that are followed; the more of them the frame shows, the better is known what
        became of a level that leaves them.
    clock : {"receive", "exchange"}
        The times by which trades are assigned to rows, each to the first that is not before it: by receipt
        (capture_time, or server_time where that is null; of each product the running maximum) or by the
        exchange's, trade_time and server_time. The book's may step back: the running maximum in the run
        counts. A row without it counts at the time of the row before.

    Returns
    -------
    polars.LazyFrame
        The book's rows with the columns above, Float64, base currency; columns of these names are replaced.
        Null where the row before is not of the same run (a gap, a snapshot, a row that is not ok); where
        there is no such level; and where its price lies beyond what the other row shows. What needs trades
        is null, too, before the run's first time.

    Raises
    ------
    ConfigError
        If levels is no whole number from 1 to those that the book shows, there is no such clock, or a frame
        lacks a column; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> flow = cb.rebuild_book(level2, depth=5).pipe(cb.add_level_flow, trades, clock="exchange")
    >>> flow.select(pl.col("executed_bid_1").sum() > 1e6 * pl.col("unexplained_bid_1").sum()).collect().item()
    True
    """
    schema, of_trades = check_frame(book, "book"), check_frame(trades, "market_trades")
    clocks.check_name(clock)
    times = clocks.times("book", clock)
    require(schema, (*_BOOK, *times), "book")
    require(of_trades, (*_TRADES, *clocks.times("market_trades", clock)), "market_trades")
    depth = _check_levels(levels, schema)
    names = [f"{what}_{side}_{k}" for side in SIDES for what in _WHAT for k in range(1, levels + 1)]
    made = pl.Schema({**schema, **dict.fromkeys(names, pl.Float64())})

    def start(columns: list[str]) -> tuple[list[str], Step]:
        kept = [name for name in columns if name not in names]
        asked = len(kept) < len(columns)
        flow = _Flow(_prints_of(trades.lazy(), clock), levels, depth, clock) if asked else None
        used = {*_BOOK, *times, *_columns(depth)} if asked else set()

        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            if batch is None or batch.is_empty():
                return pl.DataFrame(schema={name: made[name] for name in columns})
            return (batch if flow is None else batch.with_columns(flow(batch))).select(columns)

        return [name for name in schema if name in used or name in kept], step

    return stateful(book.lazy(), start, made, "LEVEL FLOW of book", by="product_id")


def _check_levels(levels: int, schema: pl.Schema) -> int:
    depth = depth_of(schema)
    if not depth:
        raise ConfigError("the book frame shows no levels (bid_price_1, ...): give rows of a book")
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise ConfigError(f"levels must be a whole number, 1 or more, not {levels!r}")
    if levels > depth:
        raise ConfigError(
            f"levels={levels} needs as many levels of a side, and the frame has {depth}: "
            f"rebuild_book(..., depth={levels}) shows them"
        )
    return depth


def _columns(depth: int) -> list[str]:
    whats = ("price", "size")
    return [f"{side}_{what}_{k}" for side in SIDES for what in whats for k in range(1, depth + 1)]


class _Prints(NamedTuple):
    """Trades against one side of the books, product by product, each one's in the order of time."""

    time: I64
    price: F64
    size: F64
    spans: dict[str, tuple[int, int]]

    def seen(self, product_id: str, time: I64) -> I64:
        """Count those received by each time, and those of the products before; -1 where there is no time."""
        first, end = self.spans.get(product_id, (0, 0))
        count = first + np.searchsorted(self.time[first:end], time, side="right")
        return np.where(time == NO_TIME, -1, count)


def _prints_of(trades: pl.LazyFrame, clock: Clock) -> dict[Side, _Prints]:
    """Hold the trades."""
    time = clocks.received() if clock == "receive" else pl.col("trade_time")
    timed = trades.with_columns(time.alias(_TIME)).filter(
        ~pl.col("is_snapshot") & pl.col(_TIME).is_not_null()
    )
    rows = timed.select(*_TRADES, _TIME).sort("product_id", _TIME, maintain_order=True).collect()
    found = {}
    for side, maker in _MAKER.items():
        part = rows.filter(pl.col("maker_side") == maker)
        counts = part.group_by("product_id", maintain_order=True).len()
        ends = counts["len"].cum_sum().to_list()
        spans = dict(zip(counts["product_id"], pairwise([0, *ends]), strict=True))
        price, size = (part[name].cast(pl.Float64).to_numpy() for name in ("price", "size"))
        found[side] = _Prints(times_of(part, _TIME), price, size, spans)
    return found


class _Flow:
    """Compares rows with the rows before, batch by batch; between two it has each product's last row."""

    def __init__(self, prints: dict[Side, _Prints], levels: int, depth: int, clock: Clock) -> None:
        from cbtools._kernels import flow, level_flow

        self._kernels, self._reach = level_flow, flow.reach
        self._prints, self._levels, self._depth, self._clock = prints, levels, depth, clock
        self._linker = ProvenLinks(touch.IS_OK)
        # of each product's last row, by code: the time, and prices and sizes of the levels
        self._time = np.zeros(0, np.int64)
        self._reached = np.zeros(0, np.int64)
        self._levels_of = {side: np.zeros((2, 0, depth)) for side in SIDES}

    def __call__(self, batch: pl.DataFrame) -> list[pl.Series]:
        """Take the next rows, one at least; give their flows."""
        links = self._linker(batch)
        before, now = self._times(batch, links)
        made = []
        for side in SIDES:
            out = self._of_side(batch, side, links, before, now)
            for what, ranks in zip(_WHAT, out, strict=True):
                for k, values in enumerate(ranks, start=1):
                    made.append(pl.Series(f"{what}_{side}_{k}", values).fill_nan(None))
        return made

    def _times(self, batch: pl.DataFrame, links: Links) -> tuple[I64, I64]:
        """Give the effective time of the row before each row, and of the row."""
        carried = np.full(len(self._linker.products.names), NO_TIME)
        carried[: len(self._time)] = self._time
        self._time = carried.copy()
        now = times_of(batch, *clocks.times("book", self._clock)).copy()
        if self._clock == "receive":
            more = np.full(len(carried) - len(self._reached), NO_TIME)
            self._reached = np.concatenate([self._reached, more])
            self._reach(links.codes, now, self._reached)
        self._kernels.advance(links.codes, now, links.follows, self._time)
        place = links.before
        return np.where(place >= 0, now[np.maximum(place, 0)], carried[links.codes]), now

    def _of_side(self, batch: pl.DataFrame, side: Side, links: Links, before: I64, now: I64) -> F64:
        carried, prints = self._levels_of[side], self._prints[side]
        rows = [
            np.stack([batch[f"{side}_{what}_{k}"].cast(pl.Float64).to_numpy() for k in self._ranks], axis=1)
            for what in ("price", "size")
        ]
        prices, sizes = (np.concatenate([kept, new]) for kept, new in zip(carried, rows, strict=True))
        seen_before, seen = self._seen(prints, links.codes, before), self._seen(prints, links.codes, now)
        out = np.empty((len(_WHAT), self._levels, batch.height))
        begin = carried.shape[1]
        self._kernels.level_flow(
            prices, sizes, _SIGN[side], links.before, begin, links.follows, seen_before, seen,
            prints.price, prints.size, out,
        )  # fmt: skip
        last = np.arange(len(self._linker.products.names))
        self._kernels.last_places(links.codes, begin, last)
        self._levels_of[side] = np.stack([prices[last], sizes[last]])
        return out

    @property
    def _ranks(self) -> range:
        return range(1, self._depth + 1)

    def _seen(self, prints: _Prints, codes: I64, time: I64) -> I64:
        seen = np.empty_like(time)
        for name, code in self._linker.products.names.items():
            own = codes == code
            seen[own] = prints.seen(str(name), time[own])
        return seen
