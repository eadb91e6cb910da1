"""BookState: what some segments did to every product's book, and the state that their stream ended in."""

from __future__ import annotations

import html
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
import polars as pl

from cbtools.book.effect import (
    LEVELS,
    PRODUCTS,
    Effect,
    composed,
    effects_of,
    levels_of,
    overlaid,
    products_of,
)
from cbtools.book.ladder import NO_VALUE, Known, Ladder
from cbtools.book.messages import OF_FRAME, OF_ROW, RUN
from cbtools.book.rebuilder import BookOptions, Rebuilder
from cbtools.book.report import BookReport, Tickers, counts_of
from cbtools.durable import replace_file
from cbtools.errors import ConfigError, StateError
from cbtools.raw.files import Source, find_segments
from cbtools.raw.piece import Wanted
from cbtools.raw.scan import stream_of
from cbtools.raw.sequence import Run, Stream
from cbtools.raw.stream import CHUNK_BYTES, Reading
from cbtools.stores import as_place

STATE_VERSION: Final = 3
"""Version of the form in which states are saved."""

_KEY: Final = "cbtools.state"
_SEGMENTS: Final = 256
_SETS: Final = ("products", "unmarked")
"""Fields of a stream that are sets."""
LEVEL2: Final = frozenset((*OF_ROW, *OF_FRAME, RUN))


@dataclass(frozen=True, eq=False)
class BookState:
    """The effect of some segments on every product's book; or, from the beginning on, the books themselves.

    States compose: ``a.then(b)`` is the effect of a's segments and then b's, and ``(a.then(b)).then(c)``
    equals ``a.then(b.then(c))``. So the effects of many segments can be read side by side and composed then.
    ``BookState()`` is the effect of nothing.

    Attributes
    ----------
    products : polars.DataFrame
        A row for each product with level2 rows: ``product_id``; ``has_book``: a snapshot came, so that the
        levels are the whole book; ``proven``: no break of the sequence since the last snapshot (without one:
        a book proven before would be still); ``proven_since``: the last snapshot; ``snapshots``: how many
        there were; ``sequence_num`` of its last message, null after a break.
    levels : polars.DataFrame
        product_id, side, price, size; sorted. Without a snapshot these are the changes: a level deleted has
        size 0.
    stream : Stream
        The connection's state: its last number, its run, and the last frames, to tell repeats by.
    segments : tuple of str
        Names of the last segments it is of, 256 at most. Equality does not ask for them.

    Examples
    --------
    >>> import cbtools as cb
    >>> first, *rest = sorted(cb.sample_path().iterdir())
    >>> state = cb.BookState.read(first)
    >>> state.then(cb.BookState.read(rest)) == cb.BookState.read(rest, start=state)
    True
    """

    products: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PRODUCTS))
    levels: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LEVELS))
    stream: Stream = field(default_factory=Stream)
    segments: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, source: Source, *, start: BookState | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> BookState:
        """Read raw segments for the state after them.

        Parameters
        ----------
        source : path-like, or list of path-like
            As in `cbtools.scan_raw`.
        start : BookState, optional
            The state before them. Without it, the result is their effect alone.
        chunk_bytes : int
            About how much of a file is held at a time, bytes.

        Returns
        -------
        BookState

        Raises
        ------
        ConfigError
            If start is no state, or chunk_bytes is below 1.
        SegmentError
            If the source names no file, or a file cannot be read.

        Examples
        --------
        >>> import cbtools as cb
        >>> state = cb.BookState.read(cb.sample_path())
        >>> state.products["has_book"].all()
        True
        """
        reading = Reading(
            find_segments(source),
            Wanted({"level2": LEVEL2}),
            chunk_bytes=chunk_bytes,
            start=stream_of(start),
        )
        follower = Follower(reading, BookOptions(), start, columns=())
        for batch in reading:
            follower(batch.tables.get("level2"))
        return follower.state()

    def then(self, other: BookState) -> BookState:
        """Give the effect of this one's segments and then the other's.

        Where the other's first frame is not the one due after this one's last, all books are unproven until
        their next snapshot, as they are behind any gap. So they are where the other repeats frames of this
        one, which only reading on (`read` with ``start``) can leave out.

        Parameters
        ----------
        other : BookState
            The effect of the segments that follow, read without ``start``.

        Returns
        -------
        BookState

        Examples
        --------
        >>> import cbtools as cb
        >>> state = cb.BookState.read(cb.sample_path())
        >>> cb.BookState().then(state) == state == state.then(cb.BookState())
        True
        """
        if not isinstance(other, BookState):
            raise ConfigError(f"a BookState is followed by a BookState, not by {other!r}")
        effects = composed(effects_of(self.products), self.stream, effects_of(other.products), other.stream)
        stream = self.stream.then(other.stream)
        if stream.mistaken:
            effects = [effect._replace(proven=False) for effect in effects]
        levels = overlaid(self.levels, other.levels, other.products, effects)
        return BookState(products_of(effects), levels, stream, (*self.segments, *other.segments)[-_SEGMENTS:])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the state to a Parquet file; it appears whole, in the place of an older one, or not at all.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        StateError
            If it cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> import cbtools as cb
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = cb.BookState().save(f"{folder}/state.parquet")
        ...     cb.BookState.load(path) == cb.BookState()
        True
        """
        path = as_place(path)
        try:
            with replace_file(path) as draft:
                self.levels.write_parquet(
                    draft, compression="zstd", compression_level=1, metadata={_KEY: self._as_json()}
                )
        except OSError as error:
            raise StateError(f"cannot write the state to {path}: {error.strerror or error}") from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BookState:
        """Read a state that was saved.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        BookState

        Raises
        ------
        StateError
            If there is no such file, or it is not a state, or one of another version.

        Examples
        --------
        >>> import cbtools as cb
        >>> try:
        ...     cb.BookState.load("nowhere.parquet")
        ... except cb.StateError as error:
        ...     print(error)
        there is no state nowhere.parquet
        """
        told = head(path)
        try:
            levels = pl.read_parquet(str(path), glob=False)
            rows = [Effect(*row) for row in told["products"]]
            stream = _stream(told["stream"])
            state = cls(products_of(rows), levels.select(LEVELS.names()), stream, tuple(told["segments"]))
        except (OSError, pl.exceptions.PolarsError, TypeError, KeyError, ValueError) as error:
            raise _damaged(path, error) from error
        return state

    def aged(self) -> BookState:
        """Return the state as one that no frame continues: its next frame breaks all products."""
        stream, effects = self.stream.copy(), effects_of(self.products)
        for product in stream.unmarked:
            stream.unread.setdefault(product, product not in effects or effects[product].proven)
        broken = [effect._replace(proven=False, sequence_num=None) for effect in effects.values()]
        return BookState(products_of(broken), self.levels, stream, self.segments)

    def ladders(self) -> dict[str, Ladder]:
        """Give the books as the kernels take them, by product."""
        made, unread = {}, self.stream.unread
        for product, effect in effects_of(self.products).items():
            if product in unread:  # until the next frame, which shows it
                effect = effect._replace(proven=unread[product])
            made[product] = Ladder(effect.known(self.stream.run_of(product).name))
        for (product,), levels in self.levels.group_by("product_id"):
            made[str(product)].fill(
                levels["side"].to_physical().to_numpy(), levels["price"].to_numpy(), levels["size"].to_numpy()
            )
        return made

    def begin(self, product: str) -> Ladder:
        """Give the book of a product of which the state knows nothing."""
        run = self.stream.run_of(product)
        return Ladder(Known(run.name, proven=run.breaks == 0))

    def _as_json(self) -> str:
        told = {
            "version": STATE_VERSION,
            "stream": {**vars(self.stream), **{name: sorted(getattr(self.stream, name)) for name in _SETS}},
            "products": list(effects_of(self.products).values()),
            "segments": self.segments,
        }
        return orjson.dumps(told, default=list).decode()  # a list of what is a tuple or a deque

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BookState)
            and self.stream == other.stream
            and self.products.equals(other.products)
            and self.levels.equals(other.levels)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        books = self.products["has_book"].sum()
        return (
            f"BookState({books} books and {self.products.height - books} other products, "
            f"{self.levels.height:,} levels, sequence_num {self.stream.last})"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.products._repr_html_()}"


class Follower:
    """Follows a reading with the books, batch by batch: a rebuilder whose books become a state.

    Without options for the book there are no books, and the state holds the stream alone. ``written`` are the
    products of which rows of level2 are written (None: all). The state has the others' books as they were
    before, unproven, and the next frame breaks them.
    """

    def __init__(
        self,
        reading: Reading,
        options: BookOptions | None,
        start: BookState | None = None,
        *,
        columns: Collection[str] | None = None,
        written: Collection[str] | None = None,
    ) -> None:
        self._reading, self._written = reading, written
        self._start = start if start is not None and start.stream.started else None
        books = {} if self._start is None else self._start.ladders()
        stream = None if self._start is None else self._start.stream
        shown = BookOptions() if options is None else options
        names = shown.schema if columns is None else columns
        self._follows = options is not None
        # no method of its own: in a ring, books and buffers would wait for the garbage collector
        self._rebuilder = Rebuilder(shown, names, stream, books, partial(_begin, reading, self._start))

    def __call__(self, level2: pl.DataFrame | None) -> pl.DataFrame:
        """Take the level2 rows of a batch of the reading, if it has any; give the book's."""
        if level2 is None or not self._follows:
            return self._rebuilder.empty
        return self._rebuilder(level2)

    def state(self) -> BookState:
        """Give the state after what was read so far."""
        stream, effects, levels = self._reading.stream.copy(), [], {}
        left_out = self._left_out()
        stream.unmarked |= left_out
        stream.unread |= dict.fromkeys(left_out, True)
        for product, ladder in sorted(self._rebuilder.books.items()):
            known = ladder.known()
            if product in left_out:
                stream.unread[product] = known.proven
                known = known._replace(proven=False, number=NO_VALUE)
            elif not self._follows:
                continue
            effects.append(Effect.of(product, known))
            levels[product] = ladder.levels()
        before = self._start.segments if self._start is not None else ()
        segments = (*before, *self._reading.report.segments)[-_SEGMENTS:]
        return BookState(products_of(effects), levels_of(levels), stream, segments)

    def _left_out(self) -> set[str]:
        """Return the products whose last written row is from before this reading, and not a marker."""
        if self._written is None or self._start is None:
            return set()
        return self._start.stream.unmarked.difference(self._written)

    def report(self, tickers: Tickers | None = None) -> BookReport:
        """Give what the books met."""
        return counts_of(self._rebuilder.books, tickers)


def _begin(reading: Reading, start: BookState | None, product: str) -> Ladder:
    """Give the book of a product that was not there."""
    if start is None:  # perhaps all its messages are of the run that the first frame began
        return Ladder(Known(reading.stream.origin, proven=True))
    return start.begin(product)


def head(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a saved state tells beside its levels: version, stream and products."""
    try:
        told = pl.read_parquet_metadata(str(path)).get(_KEY)
    except FileNotFoundError:
        raise StateError(f"there is no state {path}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StateError(f"{path} cannot be read: {error}. Read its segments again") from error
    if told is None:
        raise StateError(f"{path} is not a saved BookState")
    try:
        known = dict(orjson.loads(told))
        version = known["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error
    if version != STATE_VERSION:
        raise StateError(
            f"{path} is a state of version {version}, and this cbtools reads version {STATE_VERSION}, whose "
            "states know the feed, and repeats by their content: read its segments again"
        )
    return known


def _damaged(path: str | os.PathLike[str], error: Exception) -> StateError:
    return StateError(f"{path} is damaged: {error}. Read its segments again, and remove it")


def _stream(told: dict[str, Any]) -> Stream:
    stream = Stream(**told)
    stream.run = Run(*told["run"])
    stream.product_runs = {product: Run(*run) for product, run in told["product_runs"].items()}
    stream.starts = [tuple(frame) for frame in told["starts"]]
    for name in _SETS:
        setattr(stream, name, set(told[name]))
    recent = Stream().recent
    recent.extend(tuple(frame) for frame in told["recent"])
    stream.recent = recent
    return stream
