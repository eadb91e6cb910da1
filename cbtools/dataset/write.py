"""Frames → a partitioned dataset: streaming, in bounded memory, each part whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import polars as pl

from cbtools import schema as tables
from cbtools.dataset import hive, split
from cbtools.dataset.compacted import SEGMENT
from cbtools.dataset.draft import Draft, NewFolders, Plan, copied, finish_drafts
from cbtools.dataset.finished import Finished, FinishedPart, is_in
from cbtools.dataset.parquet import check_version, footer
from cbtools.dataset.written import Written
from cbtools.errors import ConfigError, DatasetError
from cbtools.schema import Column
from cbtools.stores import as_place, remove_empty, scratch_for, tells_trouble

BUFFER_BYTES: Final = 192 << 20
"""Rows that wait for their row group to fill need no more than this, over all partitions of a writer."""

_OPEN_FILES: Final = 64
_PIECE_ROWS: Final = 262_144
_UNDIVIDED: Final = 4
"""This part of what may wait does so before it is divided by partitions."""


class DatasetWriter:
    """Write frames into a partitioned dataset, chunk by chunk, and publish them at the end.

    No reader sees anything before `publish`: until then rows lie in temporary files which no scanner takes.
    Leaving a ``with`` block without having published aborts. To publish many tables together, `finish` all of
    them first (what can fail, fails there), then `publish` each.

    A writer is for one thread at a time (any thread: encoding releases the GIL), and a segment's name is for
    one writer at a time. Writers of different segments do not disturb each other.

    Parameters
    ----------
    root : str or os.PathLike
        Folder of the dataset, or of the datasets where `table` is given.
    table : str, optional
        A table of `cbtools.schema`: its dataset is the folder ``root/table``; frames must have its columns.
    partition_by : str or sequence of str
        Partition columns, outermost first: columns of the frames, or ``"date"`` and ``"hour"``, derived from
        server_time (from capture_time where that is null; UTC).
    segment : str, optional
        Name of the segment, which names the parts; ``"data"`` by default.
    columns : sequence of Column, optional
        The table's columns, where `cbtools.schema` does not list the table.
    fresh : bool
        Nothing of this segment is in the dataset: it is not looked for, which in a large one takes time.
    buffer_bytes : int, optional
        Bound of what waits in memory for row groups to fill.

    Raises
    ------
    ConfigError
        If the table is not known, or the segment cannot name a file.
    DatasetError
        If the dataset is partitioned by other columns already.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root, DatasetWriter(root, partition_by="k") as writer:
    ...     writer.write(pl.DataFrame({"k": ["a", "b"], "x": [1, 2]}))
    ...     writer.write(pl.DataFrame({"k": ["a"], "x": [3]}))
    ...     written = writer.publish()
    >>> written.rows, [part.values for part in written.parts]
    (3, [{'k': 'a'}, {'k': 'b'}])
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        table: str | None = None,
        partition_by: str | Sequence[str],
        segment: str | None = None,
        columns: Sequence[Column] | None = None,
        fresh: bool = False,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self._table = table
        self._columns = tuple(columns) if columns else tables.columns(table) if table is not None else ()
        self._root = hive.dataset_root(root, table)
        self._by = [partition_by] if isinstance(partition_by, str) else list(partition_by)
        if len(set(self._by)) < len(self._by):
            raise ConfigError(f"partition_by names a column twice: {', '.join(self._by)}")
        self._segment = "data" if segment is None else segment
        self._name = hive.part_name(self._segment)
        self._limit = buffer_bytes
        self._state: Literal["open", "finished", "published", "aborted"] = "open"
        self._schema: pl.Schema | None = None
        self._plan: Plan | None = None
        self._drafts: dict[tuple[hive.Value, ...], Draft] = {}
        self._open: dict[int, Draft] = {}
        self._undivided = split.Undivided()
        self._waiting_bytes = 0
        self._scratch: Path | None = None
        self._folders = NewFolders()
        self._varies = columns is not None  # by the options of what is written
        self._others: Path | None = None
        self._old: list[Path] = []
        self._compacted: list[Path] = []
        self._look_around(fresh=fresh)

    def _look_around(self, *, fresh: bool) -> None:
        """Find the segment's parts of earlier runs, if there may be any; remove what a crashed one left.

        In a large dataset these are many files, seen with every segment: little is done for each.
        """
        other = ""
        for relative, files in hive.walk(self._root):
            fits = hive.names_of(relative) == tuple(self._by)
            for entry in files:
                name = entry.name
                if name == self._name:
                    self._old.append(as_place(entry.path))
                elif name[0] == ".":
                    if hive.temporary_segment_of(name) == self._segment:
                        as_place(entry.path).unlink(missing_ok=True)
                elif hive.segment_of(name) is not None:
                    if not fits:
                        raise hive.partitioned_otherwise(self._root, relative, self._by, entry.path)
                    other = entry.path
                    if not fresh and is_in(self._segment, other):
                        self._compacted.append(as_place(other))
            if fresh and other:
                break
        self._others = as_place(other) if other else None
        if self._others is not None and self._table is not None:
            with contextlib.suppress(pl.exceptions.PolarsError, OSError):  # who reads it will say so
                check_version(pl.read_parquet_metadata(str(self._others)), self._others)

    def begin(self, schema: Mapping[str, pl.DataType]) -> None:
        """Check the columns of the frames to come; `write` does it with the first frame.

        Parameters
        ----------
        schema : mapping of str to polars.DataType
            Column name → dtype.

        Raises
        ------
        ConfigError
            If a partition column is not there, or cannot be one.
        DatasetError
            If a column of the table is missing, or has another dtype. Columns which the table does not have
            are kept, behind the table's: features ride along.
        """
        split.check_columns(self._table, self._columns, schema)
        if SEGMENT in schema:
            raise ConfigError(
                f"{SEGMENT} is the column that compacted parts have for their segments: rename it"
            )
        types = split.partition_dtypes(self._by, schema)
        ordered = [column.name for column in self._columns]
        self._schema = pl.Schema({name: schema[name] for name in [*ordered, *schema]})
        kept = pl.Schema({name: dtype for name, dtype in self._schema.items() if name not in self._by})
        if not kept:
            raise ConfigError("partition_by names every column: nothing is left to write")
        if self._varies and self._others is not None:
            split.check_same_columns(self._root, self._table, self._others, kept, besides=SEGMENT)
        told = footer(segment=self._segment, table=self._table, columns=self._columns, partition_by=types)
        full = {column.name for column in self._columns if not column.null}
        self._plan = Plan(self._segment, kept, told, self._folders, full)

    def write(self, frame: pl.DataFrame) -> None:
        """Take rows.

        Parameters
        ----------
        frame : polars.DataFrame
            Rows with the columns of the first frame, in any order of the columns.

        Raises
        ------
        ConfigError, DatasetError
            As `begin`; and a DatasetError if the columns change, or if one that is never null holds a null.
        """
        if self._state != "open":
            raise DatasetError(f"this writer is {self._state}: it takes no more rows")
        if self._schema is None:
            self.begin(frame.schema)
        assert self._schema is not None
        split.check_same(self._schema, frame.schema)
        split.check_nulls(self._table, self._columns, frame)
        for piece in split.arranged(frame, self._schema).iter_slices(_PIECE_ROWS):
            if piece.height:
                self._take(split.keys_of(piece, self._by), split.without(piece, self._by))
                self._bound_memory()

    def _take(self, keys: pl.DataFrame, rows: pl.DataFrame) -> None:
        if keys.height <= 1 and not self._undivided:  # the usual case of one product
            self._add(keys.row(0) if self._by else (), rows)
            return
        assert self._plan is not None
        self._undivided.add(keys, rows, self._plan.bytes_of(rows))
        if self._undivided.exceeds(self._limit // _UNDIVIDED):
            self._divide()

    def _divide(self, *, at_end: bool = False) -> None:
        for values, rows in self._undivided.divide():
            self._add(values, rows if at_end else copied(rows))

    def _add(self, values: tuple[hive.Value, ...], rows: pl.DataFrame) -> None:
        assert self._plan is not None
        draft = self._drafts.get(values)
        if draft is None:
            named = dict(zip(self._by, values, strict=True))
            if self._scratch is None:
                self._scratch = scratch_for(self._root)
            draft = self._drafts[values] = Draft(
                self._plan, self._scratch.joinpath(*hive.folder(named).parts), named
            )
        before = draft.waiting_bytes
        draft.add(rows)
        self._waiting_bytes += draft.waiting_bytes - before
        self._bound_files(draft)

    def _bound_memory(self) -> None:
        """Write the drafts with the most rows waiting, until what waits is within the bound."""
        while self._waiting_bytes > self._limit:
            largest = max(self._drafts.values(), key=lambda draft: draft.waiting_bytes)
            self._waiting_bytes -= largest.waiting_bytes
            largest.flush()
            self._bound_files(largest)

    def _bound_files(self, draft: Draft) -> None:
        """Close the file that was written to longest ago, if too many are open."""
        if draft.is_open:
            self._open.pop(id(draft), None)
            self._open[id(draft)] = draft
        if len(self._open) > _OPEN_FILES:
            self._open.pop(next(iter(self._open))).close()

    def finish(self) -> None:
        """Have all rows on the disk, sorted, under temporary names; no more rows can be written then.

        Raises
        ------
        DatasetError
            If the writer was aborted or has published already.
        """
        finish_together([self])

    def _last_drafts(self) -> list[Draft]:
        """Divide what waits, and give all drafts, with their folders made."""
        if self._state == "finished":
            return []
        if self._state != "open":
            raise DatasetError(f"this writer is {self._state}: there is nothing to finish")
        self._divide(at_end=True)
        for draft in self._drafts.values():
            self._folders.make(draft.folder)
        return list(self._drafts.values())

    def hand_over(self) -> Finished:
        """Give what is finished to the caller, who publishes it or drops it; this writer is done with it.

        Returns
        -------
        Finished
            The parts under their temporary names. Another process may publish them.

        Raises
        ------
        DatasetError
            If the writer was aborted or has published already.
        """
        self.finish()
        finished = self._finished()
        self._state = "published"
        return finished

    def _finished(self) -> Finished:
        drafts = sorted(self._drafts.values(), key=lambda draft: draft.folder)
        parts = [
            FinishedPart(
                d.file, self._root.joinpath(*hive.folder(d.values).parts, self._name), d.rows, d.values
            )
            for d in drafts
        ]
        return Finished(self._root, self._segment, tuple(parts), tuple(self._old), tuple(self._compacted))

    def publish(self) -> Written:
        """Make the rows the dataset's: they replace all that this segment had there, and nothing else.

        Returns
        -------
        Written
            The parts now there, and those removed because the segment no longer has rows in them.

        Raises
        ------
        DatasetError
            If the writer was aborted or has published already.
        """
        self.finish()
        written = self._finished().publish()
        self._state = "published"
        return written

    def abort(self) -> None:
        """Remove what was written and is not published; after `publish` there is nothing to do."""
        if self._state == "published":
            return
        self._state = "aborted"
        for draft in self._drafts.values():
            draft.drop()
        self._folders.remove()
        if self._scratch is not None and self._scratch != self._root:
            remove_empty([self._scratch])
        self._drafts, self._open = {}, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def finish_together(writers: Collection[DatasetWriter]) -> None:
    """Finish several writers: the parts of all are encoded side by side, the largest first."""
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:  # encoding releases the GIL
        finish_drafts(
            [draft for drafts in pool.map(DatasetWriter._last_drafts, writers) for draft in drafts], pool
        )
    for writer in writers:
        writer._state = "finished"


@tells_trouble
def write_dataset(
    frame: pl.LazyFrame | pl.DataFrame,
    root: str | os.PathLike[str],
    *,
    partition_by: str | Sequence[str],
    segment: str | None = None,
    table: str | None = None,
    columns: Sequence[Column] | None = None,
) -> Written:
    """Write a frame as a segment of a partitioned dataset; a lazy one is streamed, in bounded memory.

    The parts are ``root[/table]/<column>=<value>/.../part_<segment>.parquet``: zstd, statistics, rows sorted
    by (server_time, sequence_num, line) as far as these columns exist, stably, nulls first. They appear at
    the end, each whole; writing the same segment again replaces its parts and touches no other's. On an
    exception the dataset stays as it was.

    A segment is what one call writes: its parts in all partitions. To add to a dataset, give another segment.

    Parameters
    ----------
    frame : polars.LazyFrame or polars.DataFrame
        The rows. Columns which the table does not have are kept, behind the table's.
    root : str or os.PathLike
        Folder of the dataset, or of the datasets where `table` is given; or its URL in a store
        (``s3://bucket/folder``; ``pip install "cbtools[cloud]"``).
    partition_by : str or sequence of str
        Partition columns, outermost first: columns of the frame (texts, whole numbers, booleans, dates), or
        ``"date"`` (Date) and ``"hour"`` (Int8), derived from server_time (from capture_time where that is
        null; UTC) unless the frame has them. They are in the path only. Empty: one part in the root.
    segment : str, optional
        Name of the segment, which names the parts; ``"data"`` by default. What an earlier call wrote under
        this name is replaced, in all partitions.
    table : str, optional
        A table of `cbtools.schema`: its dataset is the folder ``root/table``, and the frame must have its
        columns.
    columns : sequence of Column, optional
        The table's columns, where `cbtools.schema` does not list the table.

    Returns
    -------
    Written
        The parts, their rows and sizes. Without rows there is no part.

    Raises
    ------
    ConfigError
        If the table or a partition column is not known, or the segment cannot name a file.
    DatasetError
        If a column of the table is missing, has another dtype, or holds a null which it must not; if the
        dataset is partitioned by other columns already.

    Notes
    -----
    A store has no rename. There the parts are written to the disk first, then put, each by one request: each
    is whole or not there, and they appear one after another. If putting breaks off, some of them are there:
    write the segment again. Nothing is locked.

    Examples
    --------
    >>> import tempfile
    >>> frame = pl.DataFrame({"product_id": ["BTC-USD", "A/B"], "price": [64000.5, 1.0]})
    >>> with tempfile.TemporaryDirectory() as root:
    ...     written = write_dataset(frame, root, partition_by="product_id", segment="s1")
    ...     [part.path.relative_to(root).as_posix() for part in written.parts]
    ['product_id=A%2FB/part_s1.parquet', 'product_id=BTC-USD/part_s1.parquet']
    """
    with DatasetWriter(
        root, table=table, partition_by=partition_by, segment=segment, columns=columns
    ) as writer:
        if isinstance(frame, pl.DataFrame):
            writer.write(frame)
        else:
            writer.begin(frame.collect_schema())
            for batch in frame.collect_batches(maintain_order=True):
                writer.write(batch)
        return writer.publish()
