"""What was traded over windows, at the rows of another frame: of a book, or of a grid of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.features import clock as clocks
from cbtools.features.catalogue import Chosen, Names
from cbtools.features.clock import Clock
from cbtools.features.links import NO_TIME, Products, TradeLinks, order_of, times_of
from cbtools.features.quotes import of_asked, require
from cbtools.features.stage import check_clock, check_frame
from cbtools.features.trades import trade_rows
from cbtools.features.view import View
from cbtools.features.windows import Sums, Term, encoded
from cbtools.lazy import source

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_OF_TRADES: Final = (
    *("product_id", "price", "size", "aggressor_side", "connection", "trade_id", "is_snapshot"),
    *("server_time", "capture_time"),
)


def windows_at(
    trades: pl.LazyFrame | pl.DataFrame,
    at: pl.LazyFrame | pl.DataFrame,
    chosen: Sequence[Chosen],
    *,
    ignore_holes: bool,
    clock: Clock,
    at_clock: str | None,
) -> pl.LazyFrame:
    """Add the trades' windows to the rows of another frame; see `add_trade_features`."""
    for one in chosen:
        if one.feature.terms is None or one.feature.name.startswith("roll_spread"):
            raise ConfigError(
                f"{one.name} belongs to a trade: at other rows there are only sums over windows"
            )
    schema, of_trades = check_frame(at, "at"), check_frame(trades, "market_trades")
    needed = (*_OF_TRADES, *(["trade_time"] if clock == "exchange" else []))
    require(of_trades, needed, "market_trades")
    times = _times_at(schema, clock, at_clock)
    made = pl.Schema({**schema, **{one.name: one.feature.dtype for one in chosen}})

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        asked = [one for one in chosen if one.name in columns]
        names = {one.name for one in asked}
        used = {"product_id", *times} if asked else set()
        shown = [name for name in schema if name in used or name in {*columns} - names]
        rows = of_asked(at.lazy(), predicate).select(shown)
        held = of_asked(trades.lazy(), predicate).select(needed) if asked else None
        windows = None if held is None else _Windows(held.collect(), asked, clock, ignore_holes=ignore_holes)
        for batch in rows.collect_batches(maintain_order=True):
            added = [] if windows is None else windows(batch, times)
            yield batch.with_columns(added).select(columns)

    return source(batches, made, "WINDOWS of market_trades")


def _times_at(schema: pl.Schema, clock: Clock, at_clock: str | None) -> tuple[str, ...]:
    """Return the columns of the times of the other rows."""
    if at_clock is not None and clock == "exchange":
        raise ConfigError(
            f"at_clock={at_clock!r} goes with clock='receive': by the exchange's clock a row of at needs two "
            "times, that at which its window ends (server_time) and that by which trades were received "
            f"(capture_time), and {at_clock} is one"
        )
    times = clocks.RECEIVED if at_clock is None else (at_clock,)
    require(schema, ("product_id",), "at")
    for column in times:
        check_clock(schema, column, "at")
    return times


class _Windows:
    """Sums what was traded over windows that end at the rows of another frame, batch by batch."""

    def __init__(
        self, trades: pl.DataFrame, chosen: Sequence[Chosen], clock: Clock, *, ignore_holes: bool
    ) -> None:
        from cbtools._kernels import flow, windows

        self._flow, self._kernels = flow, windows
        self._clock = clock
        self._features = [(one, *_formula(one)) for one in chosen]
        self._lay(trades, ignore_holes=ignore_holes)
        columns = ("price", "size", "signed_size", "_one")
        view = View(trades[self._order], Names(trade_rows().features))
        with np.errstate(all="ignore"):
            values = np.stack([view.column(name) for name in columns])
        place = {name: i for i, name in enumerate(columns)}
        self._sums: dict[Term, F64] = {}
        for term in {term for _, terms, _ in self._features for term in terms}:
            self._sums[term] = np.empty((len(self._run) + len(self._begins), 4))
            windows.add_up(values, encoded(term, place), self._run, self._sums[term])
        # of the other rows: their products, and when each one's last was received
        self._products, self._reached = Products(), np.zeros(0, np.int64)

    def _lay(self, trades: pl.DataFrame, *, ignore_holes: bool) -> None:
        """Lay out the trades product by product, and in each run by run."""
        products = Products()
        codes = products(trades)
        self._names = products.names
        received = times_of(trades, *clocks.RECEIVED).copy()
        self._flow.reach(codes, received, np.full(len(self._names), NO_TIME))
        self._order = order_of(codes)
        self._ends = np.cumsum([0, *np.bincount(codes, minlength=len(self._names))])
        begins = ~TradeLinks(ignore_holes=ignore_holes)(trades).follows[self._order]
        self._run, self._begins = np.cumsum(begins) - 1, np.flatnonzero(begins)
        self._received = received[self._order]
        self._time = self._received
        if self._clock == "exchange":
            self._time = times_of(trades, "trade_time")[self._order]
            self._flow.reach(self._run, self._time, np.full(len(self._begins), NO_TIME))

    def __call__(self, rows: pl.DataFrame, times: tuple[str, ...]) -> list[pl.Series]:
        """Return the features at the next rows."""
        received, seen = self._receipt(rows, times), np.empty(rows.height, np.int64)
        own = self._products(rows)
        known = np.array([self._names.get(name, -1) for name in self._products.names], np.int64)
        self._kernels.seen_at(known[own], received, self._ends, self._received, seen)
        end = times_of(rows, "server_time") if self._clock == "exchange" else received
        edges: dict[int, tuple[I64, I64]] = {}
        made = []
        for one, terms, compute in self._features:
            span = one.parameters["w"]
            if span not in edges:
                edges[span] = self._edges(seen, end, span)
            with np.errstate(all="ignore"):
                values = compute(self._sums_of(terms, *edges[span], span))
            made.append(pl.Series(one.name, values).fill_nan(None))
        return made

    def _receipt(self, rows: pl.DataFrame, times: tuple[str, ...]) -> I64:
        """Return when each row was received: the running maximum, but of a column that was named."""
        received = times_of(rows, *times).copy()
        if times == clocks.RECEIVED:
            codes = self._products(rows)
            more = np.full(len(self._products.names) - len(self._reached), NO_TIME)
            self._reached = np.concatenate([self._reached, more])
            self._flow.reach(codes, received, self._reached)
        return received

    def _edges(self, seen: I64, end: I64, span: int) -> tuple[I64, I64]:
        first, rows = np.empty(len(seen), np.int64), np.empty(len(seen), np.int64)
        self._kernels.edges_at(self._time, self._run, self._begins, seen, end, span, first, rows)
        return first, rows

    def _sums_of(self, terms: Sequence[Term], first: I64, rows: I64, span: int) -> Sums:
        total: list[F64] = [np.empty(len(rows)) for _ in terms]
        rest: list[F64] = [np.empty(len(rows)) for _ in terms]
        for m, term in enumerate(terms):
            self._kernels.total_at(self._sums[term], self._run, first, rows, total[m], rest[m])
        return Sums(total, rest, rows, span)


def _formula(one: Chosen) -> tuple[Sequence[Term], Callable[[Sums], F64]]:
    """Return the terms of a feature over windows, and what is computed of their sums."""
    assert one.feature.terms is not None
    assert one.feature.compute is not None
    return one.feature.terms(), one.feature.compute
