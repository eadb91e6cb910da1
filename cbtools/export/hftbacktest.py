"""level2 and market_trades → the events of hftbacktest, which backtests strategies on recorded feeds."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np
import polars as pl

from cbtools.book.messages import OF_FRAME, OF_ROW, RUN, read_batch
from cbtools.book.rebuild import check_level2
from cbtools.book.runs import Runs
from cbtools.book.state import BookState
from cbtools.durable import replace_file
from cbtools.errors import ConfigError, DatasetError, unknown_name, warn
from cbtools.export.events import Gaps, depth_array, happened_trades, messages_of, shift_of, with_trades
from cbtools.schema import schema

Frame = pl.LazyFrame | pl.DataFrame

_TRADES: Final = (
    *("product_id", "trade_id", "price", "size", "aggressor_side", "trade_time", "is_snapshot"),
    *("server_time", "capture_time"),
)
_MOST_PAST: Final = 0.25
"""Snapshots may be this share of the trades without a warning: every connection begins with one."""


@dataclass(frozen=True, repr=False)
class HftbacktestFile:
    """What `to_hftbacktest` wrote, and what it left out.

    Attributes
    ----------
    path : Path
        The file.
    events : int
        Its rows.
    messages, snapshots : int
        Messages of level2 whose changes are in it, and how many of these are or hold a snapshot.
    early, unproven : int
        Messages whose changes are not in it: before the first snapshot, and of a book that was not proven.
    trades, past_trades : int
        Trades in it, and those of snapshots, which are left out.
    shift_ns : int
        By how much exchange times are earlier than said, ns, so that nothing is received before it happens.
    """

    path: Path
    events: int
    messages: int
    snapshots: int
    early: int
    unproven: int
    trades: int
    past_trades: int
    shift_ns: int

    def __repr__(self) -> str:
        left_out = [
            f"{count:,} {what}"
            for count, what in (
                (self.early, "messages before the first snapshot"),
                (self.unproven, "messages of a book not proven"),
                (self.past_trades, "trades of snapshots"),
            )
            if count
        ]
        lines = [
            f"{self.events:,} events in {self.path.name}: {self.messages:,} messages "
            f"({self.snapshots:,} of them snapshots) and {self.trades:,} trades"
        ]
        if left_out:
            lines.append(f"left out: {', '.join(left_out)}")
        if self.shift_ns:
            lines.append(f"exchange times are {self.shift_ns / 1e6:,.3f} ms earlier than said")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)).replace(chr(10), '<br>')}</p>"


def to_hftbacktest(
    level2: Frame,
    trades: Frame | None,
    path: str | Path,
    *,
    gaps: Gaps = "drop",
    start: BookState | None = None,
) -> HftbacktestFile:
    """Write a product's level2 and trades as an event file of hftbacktest (``BacktestAsset().data([path])``).

    Its book then is that of `rebuild_book` after every message, for its exchange and for its strategy. A
    message is whole: of several changes of a level in it the last counts, and what it deletes goes first. A
    snapshot is one event that clears both sides, and its levels. After a crossed book, which hftbacktest has
    not (it passes over the older side), the best levels are said again, so that its book is ours once more.

    ``local_ts`` is capture_time (its running maximum, since it may step back). ``exch_ts`` is for a message
    the latest event_time of its changes, or else its server_time, as a running maximum; for a trade its
    trade_time, or else server_time. Where a clock says that something was received before it happened, all
    exchange times are moved to be earlier by the largest such difference: the latencies are those that
    hftbacktest's own converters make by moving the local times. A trade has two events, one for each clock,
    and comes before changes of the same time, which it may have made.

    The file is held in memory while it is made, about 200 bytes an event; hftbacktest holds it too. It wants
    a ``tick_size`` that divides all prices, and a ``lot_size`` no larger than the smallest size.

    Parameters
    ----------
    level2 : polars.LazyFrame or polars.DataFrame
        Rows of ``level2`` of one product in the order of their lines, as `rebuild_book` takes them.
    trades : polars.LazyFrame or polars.DataFrame, or None
        Rows of ``market_trades`` of the same product, in any order. Those of snapshots are left out: they
        happened before they were sent.
    path : path-like
        The file, ``.npz``. It appears whole or not at all, and replaces another.
    gaps : {"drop", "raise", "ignore"}
        What to do where frames are missing: have no book, both sides cleared from the frame that shows it (a
        marker of level2, as `scan_raw` has them) until the next snapshot; raise; or go on with what there is.
    start : BookState, optional
        The book before the first row, where that is no snapshot. Without it there is no book, and no event
        of one, before the first snapshot.

    Returns
    -------
    HftbacktestFile
        What was written and what was left out.

    Warns
    -----
    CbtoolsWarning
        If more than a quarter of the trades are left out, being of snapshots.

    Raises
    ------
    ConfigError
        If an argument cannot be meant, a frame lacks a column or has it in another dtype, or there are
        several products.
    DatasetError
        If no message has a book, or a row has neither capture_time nor server_time, or a null where
        there can be none.
    StateError
        At the first message whose book is not proven, with ``gaps="raise"``.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> level2, trades = (
    ...     cb.scan_raw(cb.sample_path(), channel, products=["BTC-USD"])
    ...     for channel in ("level2", "market_trades")
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_hftbacktest(level2, trades, f"{folder}/btc.npz").snapshots
    2
    """
    file = _checked_path(path)
    if gaps not in get_args(Gaps):
        raise unknown_name("value of gaps", gaps, get_args(Gaps))
    if start is not None and not isinstance(start, BookState):
        raise ConfigError(f"start must be a BookState, not {start!r}")
    changes, executed = _collected(level2, trades)
    product = _one_product(changes, executed)

    first_rows = read_batch(changes, Runs(None)(changes)).first_rows
    message = np.zeros(changes.height, np.int64)
    message[first_rows[1:]] = 1
    changes = changes.with_columns(message=np.cumsum(message))
    messages = messages_of(changes, start, gaps, product)
    before = None if start is None else start.levels.filter(product_id=product)
    happened = None if executed is None else happened_trades(executed)
    shift = shift_of([messages] if happened is None else [messages, happened])
    array = depth_array(changes, messages, before, shift)
    if happened is not None:
        array = with_trades(array, happened, shift)
    with replace_file(file) as draft, draft.open("wb") as out:
        np.savez_compressed(out, data=array)
    written = messages.filter("written")
    _warn_of_past_trades(executed, happened)
    return HftbacktestFile(
        path=file,
        events=len(array),
        messages=written.height,
        snapshots=int(written["snapshot"].sum()),
        early=int(messages["early"].sum()),
        unproven=messages.filter(~(pl.col("written") | pl.col("early") | pl.col("marker"))).height,
        trades=0 if happened is None else happened.height,
        past_trades=0 if executed is None or happened is None else executed.height - happened.height,
        shift_ns=shift,
    )


def _warn_of_past_trades(executed: pl.DataFrame | None, happened: pl.DataFrame | None) -> None:
    """Warn if many trades are left out: a few are as usual, since each connection begins with some."""
    if executed is not None and happened is not None:
        past = executed.height - happened.height
        if past > _MOST_PAST * executed.height:
            warn(
                f"to_hftbacktest leaves out {past:,} of {executed.height:,} trades: they are of snapshots, "
                "which happened before they were sent, so that no strategy could have seen them in time"
            )


def _checked_path(path: str | Path) -> Path:
    if not isinstance(path, str | Path) or Path(path).suffix != ".npz":
        raise ConfigError(f"path must name a file that ends in .npz, as hftbacktest reads it, not {path!r}")
    return Path(path)


def _collected(level2: Frame, trades: Frame | None) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Read of both frames what is needed, having refused what they cannot be."""
    optional = check_level2(level2)
    needed = [*OF_ROW, *OF_FRAME, *([RUN] if RUN in optional else []), "event_time"]
    _check_columns(level2, ["event_time"], "level2")
    if trades is not None:
        if not isinstance(trades, pl.LazyFrame | pl.DataFrame):
            raise ConfigError(
                f"trades must be a Polars frame, e.g. cb.scan_raw(path, 'market_trades'), not {trades!r}"
            )
        _check_columns(trades, _TRADES, "market_trades")
    changes = level2.lazy().select(needed).collect()
    return changes, None if trades is None else trades.lazy().select(_TRADES).collect()


def _check_columns(frame: Frame, names: Iterable[str], table: str) -> None:
    found, expected = frame.lazy().collect_schema(), schema(table)
    for name in names:
        if name not in found:
            raise ConfigError(f"{table} lacks the column {name}: it has {', '.join(found) or 'none'}")
        if found[name] != expected[name]:
            raise ConfigError(f"{name} of {table} must be {expected[name]}, not {found[name]}: cast it")


def _one_product(changes: pl.DataFrame, trades: pl.DataFrame | None) -> str:
    names = set(changes["product_id"].unique()) | set(() if trades is None else trades["product_id"].unique())
    if changes.is_empty():
        raise DatasetError("level2 has no rows: there is no book to write")
    if len(names) > 1:
        raise ConfigError(
            "level2 and trades must be of one product, as a file of hftbacktest is of one asset; "
            f"these are of {', '.join(sorted(map(str, names)))}: filter both by product_id"
        )
    return str(names.pop())
