"""One segment's tables, on the disk under temporary names: all of a run but its last step.

What can fail, fails here, and leaves nothing behind. A draft is names and numbers, so that another process
than the one that wrote it can publish it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from cbtools.book.rebuilder import BookOptions
from cbtools.book.report import BookReport
from cbtools.book.state import LEVEL2, BookState, Follower
from cbtools.dataset import DatasetWriter, Written
from cbtools.dataset.finished import Finished, publish_together
from cbtools.dataset.write import finish_together
from cbtools.errors import DatasetError
from cbtools.raw.files import MAX_LINE_MB
from cbtools.raw.piece import Wanted
from cbtools.raw.report import RawReport
from cbtools.raw.scan import stream_of
from cbtools.raw.stream import Batch, Reading
from cbtools.run.config import Config
from cbtools.run.coverage import Coverage
from cbtools.run.features import Features
from cbtools.run.quarantine import FinishedQuarantine, Quarantine, remove_drafts
from cbtools.schema import CHANNELS, schema

_BEHIND: Final = 3
"""How many batches may wait to be written; a row group of several is encoded at once, in bursts."""
_COUNTED: Final = frozenset({"product_id"})
_WHOLE: Final = ("rejects", "gaps")
_FEATURED: Final = ("market_trades", "book")
_MOST_GAPS: Final = 10_000
"""So many gaps of a segment are told one by one, the first ones; all are counted."""


@dataclass(frozen=True)
class Drafted:
    """What a run wrote of a segment under temporary names, and what it found."""

    segment: str
    raw: RawReport
    book: BookReport | None
    rows: Mapping[str, Mapping[str, int]]
    """Table → product → rows; of the tables that are written."""
    gaps: pl.DataFrame
    coverage: pl.DataFrame
    tables: Mapping[str, Finished]
    quarantine: FinishedQuarantine
    state: BookState
    """The state behind it."""
    source_bytes: int
    seconds: float

    def publish(self) -> tuple[dict[str, Written], Path | None]:
        """Show the tables and the quarantine, in the place of those of an earlier run of the segment."""
        return publish_together(self.tables), self.quarantine.publish()

    def drop(self) -> None:
        """Remove the files."""
        for finished in self.tables.values():
            finished.drop()
        self.quarantine.drop()


@dataclass(frozen=True)
class Task:
    """How segments are run: what is written and where, of which products."""

    root: Path
    config: Config
    chunk_bytes: int
    products: tuple[str, ...] | None = None
    strict: bool = False
    max_line_mb: float = MAX_LINE_MB

    def wanted(self) -> Wanted:
        """Give what is to be decoded."""
        columns = columns_counted()
        columns |= {table.table: frozenset(schema(table.table)) for table in self.config.tables}
        columns |= {table: frozenset(schema(table)) for table in _WHOLE}
        return Wanted(columns, self.products, whole=True)


def columns_counted() -> dict[str, frozenset[str]]:
    """Give, for each channel's table, the columns that its rows are counted by."""
    return {table: _COUNTED & frozenset(schema(table)) for table in CHANNELS}


def draft_segment(
    task: Task,
    path: Path,
    segment: str,
    start: BookState | None,
    progress: Callable[[int], object] | None = None,
    *,
    fresh: bool = False,
) -> Drafted:
    """Write a segment's tables under temporary names, in one pass over its file.

    ``fresh``: nothing of the segment is in the datasets.
    """
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            writers = {
                table.table: stack.enter_context(
                    DatasetWriter(
                        task.root,
                        table=table.table,
                        partition_by=table.partition_by,
                        segment=segment,
                        columns=table.columns,
                        fresh=fresh,
                    )
                )
                for table in task.config.tables
            }
            remove_drafts(task.root, [segment])
            quarantine = stack.enter_context(Quarantine(task.root, segment))
            reading = Reading(
                [path],
                task.wanted(),
                chunk_bytes=task.chunk_bytes,
                max_line_mb=task.max_line_mb,
                progress=progress,
                strict=task.strict,
                start=stream_of(start),
            )
            written = task.products if any(t.table == "level2" for t in task.config.tables) else ()
            follower = Follower(reading, task.config.book, start, written=written)
            tables = _Tables(reading, follower, _features(task.config, start), task.config)
            _write_behind(tables, writers, quarantine)
            state = _finish(writers, follower)
            rejects = quarantine.hand_over()
            finished = {name: writer.hand_over() for name, writer in writers.items()}
    except OSError as error:  # reading raises a SegmentError: this is of writing
        raise DatasetError(f"cannot write to {task.root}: {error.strerror or error}") from error
    return Drafted(
        segment=segment,
        raw=reading.report,
        book=follower.report() if task.config.book else None,
        rows=tables.rows(),
        gaps=tables.gaps(),
        coverage=tables.coverage.frame(),
        tables=finished,
        quarantine=rejects,
        state=state,
        source_bytes=path.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def read_effect(task: Task, path: Path) -> BookState:
    """Read what a segment does to the books, or to the stream alone where no books are kept."""
    columns = {"level2": LEVEL2} if task.config.book else {}
    wanted = Wanted(columns, task.products)
    reading = Reading([path], wanted, chunk_bytes=task.chunk_bytes, max_line_mb=task.max_line_mb)
    follower = Follower(reading, BookOptions() if task.config.book else None, columns=())
    for batch in reading:
        follower(batch.tables.get("level2"))
    return follower.state()


class _Tables:
    """The batches of a reading with the rows of the book; then with features; and what is counted of them."""

    def __init__(
        self, reading: Reading, follower: Follower, features: Features | None, config: Config
    ) -> None:
        self._reading, self._follower, self._features = reading, follower, features
        self._book_rows: Counter[str] = Counter()
        self._gaps: list[pl.DataFrame] = []
        self._tables = [table.table for table in config.tables]
        every = config.book is not None and config.book.on == "message" and config.book.gaps != "drop"
        self.coverage = Coverage(self._tables, book=every)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._reading:
            book = self._follower(batch.tables.get("level2"))
            if book.height:
                batch.tables["book"] = book
            yield batch

    def complete(self, tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        """Give a batch's tables with their features, and count its rows; for one batch after another."""
        made = dict(tables) if self._features is None else self._features(tables)
        self.coverage.add(made)
        if "book" in made:
            self._book_rows.update(dict(made["book"]["product_id"].value_counts().iter_rows()))
        if "gaps" in made:
            self._gaps.append(made["gaps"])
        return made

    def rows(self) -> dict[str, dict[str, int]]:
        """Give table → product → rows, of the tables that are written."""
        raw = self._reading.report
        level2 = Counter(raw.rows.get("level2", {})) + Counter(raw.markers)
        found = {
            **raw.rows,
            "level2": dict(sorted(level2.items())),
            "book": dict(sorted(self._book_rows.items())),
        }
        return {table: dict(found.get(table, {})) for table in self._tables}

    def gaps(self) -> pl.DataFrame:
        """Give the breaks of the sequence, the first ones if they are very many."""
        return pl.concat([pl.DataFrame(schema=schema("gaps")), *self._gaps]).head(_MOST_GAPS)


def _features(config: Config, state: BookState | None) -> Features | None:
    if config.book is None or not config.features:
        return None
    of_trades = any(table.table == "market_trades" for table in config.tables)
    return Features(config.book, state, of_trades=of_trades)


def _finish(writers: Mapping[str, DatasetWriter], follower: Follower) -> BookState:
    """Have all tables on the disk, and meanwhile make the state."""
    with ThreadPoolExecutor(1, "cbtools-finish") as pool:
        finished = pool.submit(finish_together, writers.values())
        state = follower.state()
        finished.result()
    return state


def _write_behind(tables: _Tables, writers: Mapping[str, DatasetWriter], quarantine: Quarantine) -> None:
    """Write batches, in order, in two threads: what gets features by the one, and the rest by the other."""

    def write(frames: Mapping[str, pl.DataFrame]) -> None:
        for table, frame in frames.items():
            if table in writers:
                writers[table].write(frame)
            elif table == "rejects":
                quarantine.write(frame)

    def write_plain(frames: Mapping[str, pl.DataFrame]) -> None:
        write({table: frame for table, frame in frames.items() if table not in _FEATURED})

    def write_featured(frames: Mapping[str, pl.DataFrame]) -> None:
        made = tables.complete(frames)
        write({table: made[table] for table in _FEATURED if table in made})

    with ThreadPoolExecutor(1, "cbtools-write") as plain, ThreadPoolExecutor(1, "cbtools-features") as others:
        waiting: deque[Future[None]] = deque()
        for batch in tables:
            waiting.append(plain.submit(write_plain, batch.tables))
            waiting.append(others.submit(write_featured, batch.tables))
            while len(waiting) > 2 * _BEHIND:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
