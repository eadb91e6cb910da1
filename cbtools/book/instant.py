"""book_at: the book at an instant, in full depth, from the nearest earlier snapshot or saved state."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cbtools import plot
from cbtools.book.recorded import end_of_dataset, nanoseconds, time_text
from cbtools.book.search import Asked
from cbtools.book.states import KeptState, kept_states
from cbtools.dataset.scan import scan_dataset
from cbtools.errors import ConfigError, DatasetError, StateError
from cbtools.raw.report import as_html, as_text
from cbtools.spans import about, span_ns
from cbtools.stores import as_place, is_remote, tells_trouble

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LAST: Final = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Book:
    """The whole book of a product, as it was known at an instant.

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
    connection : int
        Of the message.
    line : int or None
        Of the message; None if a saved state alone tells the book, and its row is gone.
    when : datetime
        The instant, to the microsecond; UTC.
    age : timedelta
        How old the book is at that instant: the time since the last message applied was received (of those
        with a known time), to the microsecond. A break of the sequence that is known without a message of the
        product (a marker in level2) makes the book unproven, and no younger.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.book_at(cb.scan_raw(cb.sample_path(), "level2"), "2025-11-26T14:03:00.02Z", "BTC-USD")
    >>> book.bids.columns, book.book_state, book.age
    (['price', 'size'], 'ok', datetime.timedelta(microseconds=11409))
    """

    product_id: str
    bids: pl.DataFrame = field(repr=False)
    asks: pl.DataFrame = field(repr=False)
    server_time: datetime | None
    capture_time: datetime | None
    sequence_num: int | None
    connection: int
    line: int | None
    book_state: str
    proven_since: datetime | None
    when: datetime
    age: timedelta

    def items(self) -> list[tuple[str, str]]:
        """Return the book as pairs of a label and a text, as it is printed."""
        line = "not known" if self.line is None else self.line
        return [
            ("product", self.product_id),
            ("at", time_text(self.when)),
            ("age", about(self.age // timedelta(microseconds=1) * 1000)),
            ("received", time_text(self.capture_time)),
            ("sent", time_text(self.server_time)),
            ("frame", f"connection {self.connection}, sequence_num {self.sequence_num}, line {line}"),
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
        return self._marked(plot.depth(self.bids, self.asks, self.product_id, within_bps=within_bps, ax=ax))

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
        return self._marked(plot.ladder(self.bids, self.asks, self.product_id, levels=levels, ax=ax))

    def _marked(self, ax: Axes) -> Axes:
        """Say in the title of a picture that the book is not ok."""
        if self.book_state != "ok":
            title = ax.get_title(loc="left")
            # `set_title` would move it onto the legend
            for text in ax.findobj(lambda artist: getattr(artist, "get_text", str)() == title):
                text.set_text(f"{title} ({self.book_state})")  # type: ignore[attr-defined]
        return ax

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        return as_html("Book", self.items())


def _summary(levels: pl.DataFrame) -> str:
    best = f", best {levels['size'][0]:,.10g} at {levels['price'][0]:,.10g}" if levels.height else ""
    return f"{levels.height:,} levels{best}"


@tells_trouble
def book_at(
    level2: pl.LazyFrame | pl.DataFrame | str | os.PathLike[str],
    when: datetime | date | str,
    product_id: str,
    *,
    max_age: str | timedelta | None = None,
) -> Book:
    """Return the whole book of a product as it was known at an instant.

    Messages are applied in order until the first one that was received (capture_time; server_time where that
    is null) later than the instant. Changes are read from the nearest earlier snapshot on, or from the
    nearest state kept beside the dataset, not from the beginning.

    An instant after the recording's end has no book. Of a dataset's root, the end is the latest that its kept
    states, its manifests and the statistics of its parts of level2 and market_trades tell. Of a frame, it is
    the latest receipt in all its rows, of all products. Rows of one product alone do not tell whether the
    recording went on: they give its book until 60 s after the last of them.

    Parameters
    ----------
    level2 : polars.LazyFrame, polars.DataFrame or path-like
        Rows of the ``level2`` table, as for `rebuild_book`; or the folder that `run_segment` wrote to.
    when : datetime, date or str
        The instant; without a zone it is UTC. A date is its midnight. A text is in ISO 8601.
    product_id : str
        Which product.
    max_age : str or timedelta, optional
        Raise if the book is older: ``"5s"``, ``"1m30s"``.

    Returns
    -------
    Book

    Raises
    ------
    ConfigError
        If an argument is invalid.
    StateError
        If no snapshot of the product was received by then, the instant is after the recording's end, or the
        book is older than max_age.
    DatasetError
        If there is no dataset.

    Examples
    --------
    >>> import cbtools as cb
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2")
    >>> cb.book_at(level2, "2025-11-26T14:03:00Z", "BTC-USD", max_age="1s").book_state
    'ok'
    """
    moment, oldest = _moment(when), _oldest(max_age)
    instant = max(-_LAST, min(nanoseconds(moment), _LAST))
    if not isinstance(product_id, str):
        raise ConfigError(f"product_id must be one product's name, e.g. 'BTC-USD', not {product_id!r}")
    kept: list[KeptState] = []
    given: Any = level2
    root = None
    if isinstance(given, str | os.PathLike) or is_remote(given):
        root = as_place(given)
        kept = kept_states(root)[0]
        given = _dataset(root)
    asked = Asked(given, product_id, when, instant)
    found = asked.find(kept)
    if not found.followed:
        end = None if root is None else partial(end_of_dataset, root, kept)
        asked.check_end(found.received, end)
    age = instant - found.changed
    if oldest is not None and age > oldest:
        raise StateError(
            f"the book of {product_id!r} at {when} is {about(age)} old, more than max_age={max_age}: no "
            "message of it was received since. Ask for another instant or a greater max_age; cb.inspect_raw "
            "shows breaks in the recording"
        )
    return Book(
        product_id, *found.sides, **found.message, when=moment, age=timedelta(microseconds=age // 1000)
    )


def _dataset(root: Path) -> pl.LazyFrame:
    try:
        return scan_dataset(root, "level2")
    except DatasetError as error:
        raise DatasetError(
            f"{error}. For raw segments, give their rows: cb.book_at(cb.scan_raw(path, 'level2'), ...)"
        ) from None


def _moment(when: datetime | date | str) -> datetime:
    """Read an instant; without a zone it is UTC."""
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise ConfigError(f"when must be a time such as 2025-11-26T14:00:00Z, not {when!r}") from None
    if isinstance(when, date) and not isinstance(when, datetime):
        when = datetime.combine(when, time())
    if not isinstance(when, datetime):
        raise ConfigError(f"when must be a datetime, a date or a text, not {when!r}")
    if when.tzinfo is None:
        return when.replace(tzinfo=UTC)
    try:
        return when.astimezone(UTC)
    except OverflowError:  # within a day of the first or last year
        return when


def _oldest(max_age: str | timedelta | None) -> int | None:
    """Read the greatest age, nanoseconds."""
    if max_age is None or isinstance(max_age, str):
        return None if max_age is None else span_ns(max_age)
    if not isinstance(max_age, timedelta) or max_age <= timedelta():
        raise ConfigError(f"max_age must be a span above zero, e.g. '5s' or a timedelta, not {max_age!r}")
    return max_age // timedelta(microseconds=1) * 1000
