"""book_at: the book at an instant, in full depth, from the nearest earlier snapshot or saved state."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cbtools import plot
from cbtools.book.messages import OF_FRAME, OF_ROW, RUN, Whole
from cbtools.book.rebuild import check_level2
from cbtools.book.rebuilder import BookOptions, Rebuilder
from cbtools.book.state import BookState
from cbtools.book.states import kept_states
from cbtools.dataset.scan import scan_dataset
from cbtools.errors import ConfigError, DatasetError, StateError
from cbtools.raw.report import as_html, as_text
from cbtools.schema import FRAME
from cbtools.stores import as_place, is_remote, tells_trouble

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOLD: Final = (*(column.name for column in FRAME), "book_state", "proven_since")
_OPTIONS: Final = BookOptions(depth=1)
_OUT_OF_ORDER: Final = 10_000
"""Rows of a dataset, which are in the order of server_time, may be so far from the order of their numbers."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_NS: Final = 86_400 * 10**9
_LAST: Final = 2**63 - 1
_RECEIVED: Final = pl.coalesce("capture_time", "server_time").to_physical().alias("received")


@dataclass(frozen=True, eq=False)
class Book:
    """The whole book of a product after a message.

    Attributes
    ----------
    product_id : str
        The product.
    bids, asks : polars.DataFrame
        price and size of every level, best first.
    book_state : str
        ok, unproven, crossed, one_sided or empty.
    server_time, capture_time, proven_since : datetime or None
        Times of the message, and of the snapshot that the book rests on, to the microsecond; UTC.
    sequence_num : int or None
        Of the message.
    connection, line : int
        Of the message.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.book_at(cb.scan_raw(cb.sample_path(), "level2"), "2025-11-26T14:03:00Z", "BTC-USD")
    >>> book.bids.columns, book.book_state
    (['price', 'size'], 'ok')
    """

    product_id: str
    bids: pl.DataFrame = field(repr=False)
    asks: pl.DataFrame = field(repr=False)
    server_time: datetime | None
    capture_time: datetime | None
    sequence_num: int | None
    connection: int
    line: int
    book_state: str
    proven_since: datetime | None

    def items(self) -> list[tuple[str, str]]:
        """Give the book as pairs of a label and a text, as it is printed."""
        return [
            ("product", self.product_id),
            ("received", _text(self.capture_time)),
            ("sent", _text(self.server_time)),
            ("frame", f"connection {self.connection}, sequence_num {self.sequence_num}, line {self.line}"),
            ("state", self.book_state),
            *((side, _summary(levels)) for side, levels in (("bids", self.bids), ("asks", self.asks))),
        ]

    def plot(self, *, within_bps: float = 50.0, ax: Axes | None = None) -> Axes:
        """Draw the depth on both sides of mid, as `cbtools.plot.depth` does.

        Parameters
        ----------
        within_bps : float
            How far from mid, basis points.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Examples
        --------
        >>> import cbtools as cb
        >>> book = cb.book_at(cb.scan_raw(cb.sample_path(), "level2"), "2025-11-26T14:03:00Z", "BTC-USD")
        >>> book.plot().get_ylabel()
        'cumulative size (BTC)'
        """
        return plot.depth(self.bids, self.asks, self.product_id, within_bps=within_bps, ax=ax)

    def plot_ladder(self, *, levels: int = 15, ax: Axes | None = None) -> Axes:
        """Draw the best levels of both sides, a row a level, as `cbtools.plot.ladder` does.

        Parameters
        ----------
        levels : int
            How many levels of each side at most.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Examples
        --------
        >>> import cbtools as cb
        >>> book = cb.book_at(cb.scan_raw(cb.sample_path(), "level2"), "2025-11-26T14:03:00Z", "BTC-USD")
        >>> book.plot_ladder(levels=5).get_xlabel()
        'size (BTC)'
        """
        return plot.ladder(self.bids, self.asks, self.product_id, levels=levels, ax=ax)

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        return as_html("Book", self.items())


def _text(time: datetime | None) -> str:
    return "not known" if time is None else f"{time:%F %T.%f} UTC"


def _summary(levels: pl.DataFrame) -> str:
    best = f", best {levels['size'][0]:,.10g} at {levels['price'][0]:,.10g}" if levels.height else ""
    return f"{levels.height:,} levels{best}"


@tells_trouble
def book_at(
    level2: pl.LazyFrame | pl.DataFrame | str | os.PathLike[str], when: datetime | str, product_id: str
) -> Book:
    """Give the whole book of a product as it was known at an instant.

    Messages are applied in order until the first one that was received (capture_time; server_time where that
    is null) later than the instant. Changes are read from the nearest earlier snapshot on, or from the
    nearest state kept beside the dataset, not from the beginning.

    Parameters
    ----------
    level2 : polars.LazyFrame, polars.DataFrame or path-like
        Rows of the ``level2`` table, as for `rebuild_book`; or the folder that `run_segment` wrote to.
    when : datetime or str
        The instant; without a zone it is UTC. A text is in ISO 8601.
    product_id : str
        Which product.

    Returns
    -------
    Book

    Raises
    ------
    ConfigError
        If an argument cannot be meant.
    StateError
        If no snapshot of the product was received by then.
    DatasetError
        If there is no dataset.

    Examples
    --------
    >>> import cbtools as cb
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2")
    >>> cb.book_at(level2, "2025-11-26T14:03:00Z", "BTC-USD").book_state
    'ok'
    """
    instant = _nanoseconds(when)
    if not isinstance(product_id, str):
        raise ConfigError(f"product_id must be one product's name, e.g. 'BTC-USD', not {product_id!r}")
    kept = []
    given: Any = level2
    if isinstance(given, str | os.PathLike) or is_remote(given):
        root = as_place(given)
        kept = [state for state in kept_states(root)[0] if state.time <= instant]
        given = _dataset(root)
    has_runs = RUN in check_level2(given)
    rows = given.lazy().filter(pl.col("product_id") == product_id)
    if "date" in rows.collect_schema():
        day_after = instant // _DAY_NS + 1
        rows = rows.filter(pl.col("date").to_physical() <= day_after)
    rows = rows.select(*OF_ROW, *OF_FRAME, *([RUN] if has_runs else [])).with_columns(_RECEIVED)
    snapshot = _last_snapshot(rows, instant)
    for state in sorted(kept, key=lambda state: -state.time) if has_runs else ():
        if snapshot is not None and state.time <= snapshot["received"]:
            break
        try:
            book = _from_state(rows, instant, product_id, state.load())
        except StateError:  # a damaged one: the rows have all that it held
            continue
        if book is not None:
            return book
    if snapshot is None:
        raise StateError(
            f"there is no book of {product_id!r} at {when}: no snapshot of it was received by then, or these "
            "rows have no such product"
        )
    if has_runs:
        number = snapshot["sequence_num"]
        since = pl.lit(True) if number is None else pl.col("sequence_num") >= number - _OUT_OF_ORDER
        rows = rows.filter(_from(snapshot[RUN], since))
    book = _replayed(rows, instant, product_id, Rebuilder(_OPTIONS, _TOLD))
    assert book is not None
    return book


def _dataset(root: Path) -> pl.LazyFrame:
    try:
        return scan_dataset(root, "level2")
    except DatasetError as error:
        raise DatasetError(
            f"{error}. For raw segments, give their rows: cb.book_at(cb.scan_raw(path, 'level2'), ...)"
        ) from None


def _nanoseconds(when: datetime | str) -> int:
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise ConfigError(f"when must be a time such as 2025-11-26T14:00:00Z, not {when!r}") from None
    if not isinstance(when, datetime):
        raise ConfigError(f"when must be a datetime or a text, not {when!r}")
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH
    instant = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    return max(-_LAST, min(instant, _LAST))


def _from(run: int, later: pl.Expr) -> pl.Expr:
    """Take the rows of later runs, and of this run those that are later; runs are named by rising times."""
    of_run = pl.col(RUN).to_physical()
    return (of_run > run) | ((of_run == run) & later.fill_null(True))


def _last_snapshot(rows: pl.LazyFrame, instant: int) -> dict[str, Any] | None:
    """Find the last snapshot before the first message that was received later."""
    later = pl.col("received") > instant
    names = [name for name in rows.collect_schema() if name in (*OF_FRAME, RUN)]
    columns = [pl.col(name).to_physical() for name in names]
    marks = rows.filter(pl.col("is_snapshot") | later).select(*columns, "received")
    found = None
    for batch in marks.collect_batches(maintain_order=True):
        before = batch.head(_first_later(batch, instant))
        if before.height:
            found = before.row(-1, named=True)
        if before.height < batch.height:
            break
    return found


def _first_later(batch: pl.DataFrame, instant: int) -> int:
    later = (batch["received"] > instant).arg_true()
    return int(later[0]) if len(later) else batch.height


def _from_state(rows: pl.LazyFrame, instant: int, product_id: str, state: BookState) -> Book | None:
    """Go on from a state; None if it has no book of the product, or no message followed."""
    if not state.products.filter(pl.col("product_id") == product_id)["has_book"].any():
        return None
    later = pl.col("sequence_num") > state.stream.last
    rows = rows.filter(_from(state.stream.run_of(product_id).name, later))
    rebuilder = Rebuilder(_OPTIONS, _TOLD, state.stream, state.ladders(), state.begin)
    return _replayed(rows, instant, product_id, rebuilder)


def _replayed(rows: pl.LazyFrame, instant: int, product_id: str, rebuilder: Rebuilder) -> Book | None:
    """Apply messages until the first that was received later; None if that left no row."""
    whole, last = Whole(), None
    for batch in rows.collect_batches(maintain_order=True):
        before = batch.head(_first_later(batch, instant))
        told = [rebuilder(part.drop("received")) for part in whole(before)]
        last = next((frame.row(-1, named=True) for frame in reversed(told) if frame.height), last)
        if before.height < batch.height:
            break
    for part in whole(None):
        rest = rebuilder(part.drop("received"))
        last = rest.row(-1, named=True) if rest.height else last
    if last is None:
        return None
    side, price, size = rebuilder.books[product_id].levels()
    levels = pl.DataFrame({"price": price, "size": size})
    bids, asks = levels.filter(pl.Series(side == 0)), levels.filter(pl.Series(side == 1))
    return Book(product_id, bids.reverse(), asks, **last)
