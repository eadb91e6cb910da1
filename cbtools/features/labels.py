"""Labels: what comes after a row. They look ahead on purpose, and their names say so; nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.features import clock as clocks
from cbtools.features import touch
from cbtools.features.catalogue import Chosen, Feature, Table, choose
from cbtools.features.clock import Clock
from cbtools.features.links import NO_TIME, ProvenLinks, times_of
from cbtools.features.quotes import FOUND_BY, FOUND_FOR, Prevailing, require
from cbtools.features.stage import check_frame
from cbtools.lazy import Step, stateful

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]

_BEST: Final = ("bid_price_1", "ask_price_1")
_BOOK: Final = (*_BEST, "book_state", "proven_since")
_TRADES: Final = (*FOUND_FOR, "price", "aggressor_side")


# --- labels of the book


class _Runs:
    """The rows of a book that are in a run, one run behind the other: what labels are computed of."""

    def __init__(self, frame: pl.DataFrame, clock: Clock) -> None:
        from cbtools._kernels import labels

        self.kernels = labels
        links = ProvenLinks(touch.IS_OK)(frame)
        usable = np.flatnonzero(links.usable)
        self.places = usable[np.argsort(links.codes[usable], kind="stable")]
        bid, ask = (frame[name].cast(pl.Float64).to_numpy()[self.places] for name in _BEST)
        self.mid = (bid + ask) / 2.0
        self.time = self._times(frame, clock)[self.places]
        self.ends = np.empty(len(self.places), np.int64)
        labels.lay_runs(self.time, ~links.follows[self.places], self.ends)
        self._moves: dict[tuple[float, float], I64] = {}

    @staticmethod
    def _times(frame: pl.DataFrame, clock: Clock) -> I64:
        if clock == "exchange":
            return times_of(frame, "server_time")
        received = clocks.received(by_product="product_id" in frame.columns)
        return times_of(frame.select(received.alias("received")), "received")

    def first_move(self, bps: float, sign: float) -> I64:
        """Give the first later row of the run that is so far above (sign 1) or below (-1); -1 if none is."""
        if (bps, sign) not in self._moves:
            out, stack = np.empty_like(self.ends), np.empty_like(self.ends)
            self.kernels.first_move(self.mid, self.ends, bps, sign, stack, out)
            self._moves[bps, sign] = out
        return self._moves[bps, sign]


def _return(runs: _Runs, h: int) -> F64:
    later = np.empty(len(runs.mid))
    runs.kernels.later(runs.time, runs.ends, runs.mid, h, later)
    made: F64 = np.log1p((later - runs.mid) / runs.mid)
    return made


def _triple_barrier(runs: _Runs, up: float, down: float, h: int) -> I64:
    out = np.empty_like(runs.time)
    above, below = runs.first_move(up, 1.0), runs.first_move(down, -1.0)
    runs.kernels.triple_barrier(runs.time, runs.ends, above, below, h, out)
    return out


def _time_to_move(runs: _Runs, x: float) -> I64:
    out = np.empty_like(runs.time)
    runs.kernels.time_to_move(runs.time, runs.first_move(x, 1.0), runs.first_move(x, -1.0), out)
    return out


def _label(
    name: str, table: Table, definition: str, compute: Callable[..., Any], *, usual: Sequence[str], null: str,
    unit: str = "", source: str = "", dtype: pl.DataType | None = None,
) -> Feature:  # fmt: skip
    return Feature(
        name, table, definition, unit, source, tuple(usual), null, looks_ahead=True,
        dtype=dtype or pl.Float64(), compute=compute,
    )  # fmt: skip


_ENDS: Final = "book_state is not ok, or the run ends before"

FEATURES: Final = (
    _label(
        "label_return_{h}", "book", "ln(m(t + h) / m), m(t + h) that of the run's last row by then", _return,
        usual=[f"label_return_{h}" for h in ("1s", "10s", "1m")], null=_ENDS,
    ),
    _label(
        "label_triple_barrier_{up}_{down}bps_{h}", "book",
        "1 if the run's later rows by t + h first come to 1e4 (m' - m)/m >= up, -1 if first to <= -down, "
        "0 if to neither", _triple_barrier, source="López de Prado 2018, ch. 3", dtype=pl.Int8(),
        usual=["label_triple_barrier_5_5bps_10s", "label_triple_barrier_10_10bps_1m"], null=_ENDS,
    ),
    _label(
        "label_time_to_move_{x}bps", "book", "time until the run's first later row with 1e4 |m' - m|/m >= x",
        _time_to_move, unit="ns", dtype=pl.Int64(),
        usual=[f"label_time_to_move_{x}bps" for x in (1, 5, 10)], null=_ENDS,
    ),
)  # fmt: skip


def add_labels(
    book: pl.LazyFrame | pl.DataFrame, labels: str | Iterable[str], *, clock: Clock = "exchange"
) -> pl.LazyFrame:
    """Add labels to the rows of a book: what mid does after them. They look ahead.

    Of rows after a row only those of its run count: a run ends at a gap, a snapshot, or a row that is not ok.
    When the query runs, the frame is held in memory, as far as its columns are asked for.

    Parameters
    ----------
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, each product's in the order in which they came, rows that are not ok included.
        Needed are bid_price_1, ask_price_1, book_state, proven_since, the clock's times, and product_id if
        there is more than one.
    labels : str or iterable of str
        Names with their parameters in them, or patterns, which stand for the usual names that they match:
        ``label_return_{h}``, ``label_triple_barrier_{up}_{down}bps_{h}`` and ``label_time_to_move_{x}bps``,
        as ``"label_return_10s"``, ``"label_triple_barrier_10_5bps_1m"``.
    clock : {"exchange", "receive"}
        Whose time horizons are of: server_time, or the time of receipt (capture_time, or server_time where
        that is null). It may step back: its running maximum in the run, of receipt in the product, counts. A
        row without it counts at the time of the row before; before the run's first time it has no labels.

    Returns
    -------
    polars.LazyFrame
        The rows with a column for each label; columns of these names are replaced. A return is Float64; a
        triple barrier Int8: 1, -1 or 0; a time to move Int64, ns. Null where book_state is not ok, and where
        the run ends before the label is known. A barrier that is touched is known, though the run may end
        before the horizon.

    Raises
    ------
    ConfigError
        If a name is not known (it names the nearest), there is no such clock, or the frame lacks a column; at
        once.

    References
    ----------
    López de Prado 2018, ch. 3 (triple barrier).

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"]).pipe(cb.rebuild_book, depth=1)
    >>> labelled = book.pipe(cb.add_labels, ["label_return_10s", "label_triple_barrier_2_2bps_10s"])
    >>> labelled.collect()["label_triple_barrier_2_2bps_10s"].unique().sort().to_list()
    [None, -1, 0, 1]
    """
    schema = check_frame(book, "book")
    chosen = choose(labels, FEATURES, "label")
    times = clocks.times("book", clocks.check_name(clock))
    require(schema, (*_BOOK, *times), "book")
    made = pl.Schema({**schema, **{one.name: one.feature.dtype for one in chosen}})

    def start(columns: list[str]) -> tuple[list[str], Step]:
        asked = [one for one in chosen if one.name in columns]
        kept = [name for name in columns if name not in {one.name for one in asked}]
        used = {*_BOOK, *times, "product_id"} if asked else set()
        batches: list[pl.DataFrame] = []

        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            if batch is not None:
                batches.append(batch)
            if batch is not None or not batches:
                return pl.DataFrame(schema={name: made[name] for name in columns})
            frame = pl.concat(batches)
            batches.clear()
            return frame.with_columns(_labels_of(frame, asked, clock)).select(columns)

        return [name for name in schema if name in used or name in kept], step

    by = "product_id" if "product_id" in schema else None
    return stateful(book.lazy(), start, made, "LABELS of book", by=by)


def _labels_of(frame: pl.DataFrame, chosen: Sequence[Chosen], clock: Clock) -> list[pl.Series]:
    if not chosen:
        return []
    runs = _Runs(frame, clock)
    made = []
    for one in chosen:
        assert one.feature.compute is not None
        with np.errstate(all="ignore"):
            values = one.feature.compute(runs, **one.parameters)
        if values.dtype == np.float64:
            whole = np.full(frame.height, np.nan)
            whole[runs.places] = np.where(np.isfinite(values), values, np.nan)
            column = pl.Series(one.name, whole).fill_nan(None)
        else:
            whole = np.full(frame.height, runs.kernels.MISSING)
            whole[runs.places] = values
            column = pl.Series(one.name, whole)
            column = column.set(column == runs.kernels.MISSING, None)
        made.append(column.cast(one.feature.dtype))
    return made


# --- labels of trades


class _Product(NamedTuple):
    """The rows of a product's book: the time at which each begins to count, its mid, and its snapshot."""

    time: I64
    mid: F64
    since: I64

    def at(self, time: I64) -> tuple[F64, I64]:
        """Return the mid at each time, and which snapshot it rests on; NaN, NO_TIME if the book is not ok."""
        place = np.searchsorted(self.time, time, side="right") - 1
        known = place >= 0
        return np.where(known, self.mid[place], np.nan), np.where(known, self.since[place], NO_TIME)


_NO_BOOK: Final = _Product(np.full(1, NO_TIME), np.full(1, np.nan), np.full(1, NO_TIME))


class _Mids:
    """The mids of a book: at the quote of each trade, and later."""

    def __init__(self, book: pl.LazyFrame, clock: Clock) -> None:
        rows = book.select(*dict.fromkeys((*FOUND_BY, *_BOOK))).collect()
        self._find, self._since = Prevailing(rows, clock), times_of(rows, "proven_since")
        mid = (pl.col("bid_price_1") + pl.col("ask_price_1")).cast(pl.Float64) / 2.0
        ok = touch.IS_OK & pl.col("proven_since").is_not_null()
        time = clocks.latest(clocks.times("book", clock))
        shown = rows.select("product_id", "proven_since", time=time, mid=pl.when(ok).then(mid))
        self._products = {}
        for (name,), part in shown.filter(pl.col("time").is_not_null()).group_by("product_id"):
            mids = part["mid"].fill_null(np.nan).to_numpy()
            self._products[str(name)] = _Product(times_of(part, "time"), mids, times_of(part, "proven_since"))

    def at(self, trades: pl.DataFrame) -> tuple[I64, I64]:
        """Return the time of each of the next trades, and which snapshot its quote rests on."""
        places, happened = self._find(trades)
        since = np.full(len(places), NO_TIME)
        since[places >= 0] = self._since[places[places >= 0]]
        return happened, since

    def of(self, product_id: str) -> _Product:
        """Return the rows of a product."""
        return self._products.get(product_id, _NO_BOOK)


class _Trades(NamedTuple):
    """Trades of one product with quotes, and that product's book: what labels are computed of."""

    sign: F64
    price: F64
    mid: F64
    time: I64
    since: I64
    book: _Product

    def later(self, h: int) -> F64:
        """Return the mid a horizon later; NaN where the book ends before, or rests on another snapshot."""
        timed = self.time != NO_TIME
        ahead = np.where(timed, self.time, 0) + h
        mid, since = self.book.at(ahead)
        known = timed & (ahead <= self.book.time[-1]) & (self.since == since) & (since != NO_TIME)
        return np.where(known, mid, np.nan)


def _realized_spread(trades: _Trades, h: int) -> F64:
    return 1e4 * 2.0 * trades.sign * (trades.price - trades.later(h)) / trades.mid


def _price_impact(trades: _Trades, h: int) -> F64:
    return 1e4 * 2.0 * trades.sign * (trades.later(h) - trades.mid) / trades.mid


_NOT_LATER: Final = "there is no quote, or the book ends before t + h, or is not proven until then"
_HUANG: Final = "Huang & Stoll 1996"

TRADE_FEATURES: Final = (
    _label(
        "label_realized_spread_{h}_bps", "market_trades",
        "1e4 · 2 D (p - m(t + h)) / m, m the prevailing mid", _realized_spread, unit="bps of mid",
        usual=[f"label_realized_spread_{h}_bps" for h in ("10s", "1m")], null=_NOT_LATER, source=_HUANG,
    ),
    _label(
        "label_price_impact_{h}_bps", "market_trades",
        "1e4 · 2 D (m(t + h) - m) / m, m the prevailing mid", _price_impact, unit="bps of mid",
        usual=[f"label_price_impact_{h}_bps" for h in ("10s", "1m")], null=_NOT_LATER, source=_HUANG,
    ),
)  # fmt: skip


def add_trade_labels(
    trades: pl.LazyFrame | pl.DataFrame,
    book: pl.LazyFrame | pl.DataFrame,
    labels: str | Iterable[str],
    *,
    clock: Clock = "exchange",
) -> pl.LazyFrame:
    """Add labels to trades: how mid moved after them. They look ahead.

    The effective spread is what is realized and what the price impact takes: the two labels add up to it.
    The trades stream; of the book, times and mid of each row are held in memory while the query runs.

    Parameters
    ----------
    trades : polars.LazyFrame or polars.DataFrame
        Trades with quotes, from `join_quotes` with the same clock, each product's in the order in which they
        came.
    book : polars.LazyFrame or polars.DataFrame
        Rows of ``book``, of whatever depth, each product's in the order in which they came.
    labels : str or iterable of str
        Names with the horizon in them, or patterns, which stand for the usual names that they match:
        ``label_realized_spread_{h}_bps`` and ``label_price_impact_{h}_bps``, h as ``10s`` or ``1m30s``.
    clock : {"exchange", "receive"}
        By the exchange's clock the horizon is counted from trade_time, and mid is that of the book by
        server_time. By receipt both are of the time of receipt (capture_time, or server_time where that is
        null). Of the book's times the running maximum counts.

    Returns
    -------
    polars.LazyFrame
        The trades with a column for each label, Float64, bps of the prevailing mid; columns of these names
        are replaced. The mid at t + h is that of the last row of the product's book by then. Null where the
        trade has no quote; where the book ends before t + h; and where it is not ok then, or does not rest on
        the same snapshot as the quote.

    Raises
    ------
    ConfigError
        If a name is not known (it names the nearest), there is no such clock, or a frame lacks a column; at
        once.

    References
    ----------
    Huang & Stoll 1996.

    Examples
    --------
    >>> import cbtools as cb
    >>> trades, level2 = (cb.scan_raw(cb.sample_path(), name) for name in ("market_trades", "level2"))
    >>> book = cb.rebuild_book(level2, depth=1, on="bbo").collect()
    >>> quoted = cb.join_quotes(trades, book)
    >>> labelled = quoted.pipe(cb.add_trade_labels, book, "label_price_impact_10s_bps")
    >>> labelled.select(pl.col("label_price_impact_10s_bps").mean() > 0).collect().item()
    True
    """
    schema, of_book = check_frame(trades, "market_trades"), check_frame(book, "book")
    clocks.check_name(clock)
    chosen = choose(labels, TRADE_FEATURES, "trade label")
    require(schema, _TRADES, "market_trades")
    require(of_book, (*FOUND_BY, *_BOOK), "book")
    if "mid" not in schema:
        raise ConfigError("the market_trades frame lacks the column mid: join_quotes(trades, book) adds it")
    made = pl.Schema({**schema, **{one.name: one.feature.dtype for one in chosen}})

    def start(columns: list[str]) -> tuple[list[str], Step]:
        asked = [one for one in chosen if one.name in columns]
        kept = [name for name in columns if name not in {one.name for one in asked}]
        used = {*_TRADES, "mid"} if asked else set()
        mids = _Mids(book.lazy(), clock) if asked else None

        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            if batch is None:
                return pl.DataFrame(schema={name: made[name] for name in columns})
            labelled = () if mids is None else _trade_labels_of(batch, mids, asked, clock)
            return batch.with_columns(labelled).select(columns)

        return [name for name in schema if name in used or name in kept], step

    return stateful(trades.lazy(), start, made, "LABELS of market_trades", by="product_id")


def _trade_labels_of(
    frame: pl.DataFrame, mids: _Mids, chosen: Sequence[Chosen], clock: Clock
) -> list[pl.Series]:
    made = {one.name: np.full(frame.height, np.nan) for one in chosen}
    price, mid = (frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("price", "mid"))
    sign = np.where((frame["aggressor_side"] == "buy").to_numpy(), 1.0, -1.0)
    time, since = mids.at(frame)
    for (name,), of_product in frame.select("product_id").with_row_index().group_by("product_id"):
        k = of_product["index"].to_numpy()
        trades = _Trades(sign[k], price[k], mid[k], time[k], since[k], mids.of(str(name)))
        for one in chosen:
            assert one.feature.compute is not None
            made[one.name][k] = one.feature.compute(trades, **one.parameters)
    return [pl.Series(name, values).fill_nan(None) for name, values in made.items()]
