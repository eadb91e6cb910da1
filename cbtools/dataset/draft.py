"""One part of a dataset while it is written: rows that wait, and runs of rows in temporary files."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import polars as pl

from cbtools.dataset import hive, order
from cbtools.dataset.parquet import Format, PartFile, row_bytes, row_group_rows
from cbtools.durable import SYNCS, sync_files
from cbtools.stores import remove_empty

_FEW = 64
_TRIES = 20


class NewFolders:
    """Makes folders, and knows which ones it made."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def make(self, folder: Path) -> None:
        """Make a folder and those above it, which others may remove at this moment, since they are empty."""
        for _ in range(_TRIES):
            if folder.exists():
                return
            self.make(folder.parent)
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                folder.mkdir()
                self._made.append(folder)
        folder.mkdir(exist_ok=True)  # to say why not

    def remove(self) -> None:
        """Remove those that were made and are empty."""
        remove_empty(reversed(self._made))
        self._made = []


class Plan:
    """What the drafts of a writer share: the file's columns and format, and how a folder is made."""

    def __init__(
        self,
        segment: str,
        schema: pl.Schema,
        footer: Mapping[str, str],
        folders: NewFolders,
        never_null: Collection[str] = (),
    ) -> None:
        self.segment = segment
        self.token = secrets.token_hex(hive.TOKEN_BYTES)
        self.folders = folders
        self.sorted_by = order.sort_columns(schema)
        self.form = Format(schema, metadata=footer, sorted_by=self.sorted_by, never_null=never_null)
        self._as_received = partial(
            Format, schema, metadata=footer, sorted_by=[*order.RECEIVED], never_null=never_null
        )
        self.group_rows = row_group_rows(schema)
        self._row_bytes = row_bytes(schema)
        self._texts = [name for name, dtype in schema.items() if dtype in (pl.String, pl.Binary)]

    @cached_property
    def form_as_received(self) -> Format:
        """That of a part in the order of receipt."""
        return self._as_received()

    def bytes_of(self, frame: pl.DataFrame) -> int:
        """Give what rows need in memory."""
        texts = (int(frame[name].cast(pl.Binary).bin.size().sum()) for name in self._texts)
        return frame.height * self._row_bytes + sum(texts)


class Draft:
    """A part before it is published.

    Rows wait in memory until they fill a row group, which is sorted and written. At the end, if the row
    groups do not follow each other in order (or stand in several files), they are merged into a new file.
    """

    def __init__(self, plan: Plan, folder: Path, values: Mapping[str, hive.Value]) -> None:
        self.folder, self.values = folder, values
        self.rows = 0
        self.waiting_bytes = 0
        self._plan = plan
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0
        self._runs: list[order.Run] = []
        self._lines: list[tuple[order.Key, order.Key]] = []  # the first and the last of each run
        self._as_received = self._claimed = False  # whether it is, and whether a file says otherwise
        self._out: PartFile | None = None
        self._files: list[Path] = []

    @property
    def is_open(self) -> bool:
        """Whether it holds a file open."""
        return self._out is not None

    def add(self, frame: pl.DataFrame) -> None:
        """Take rows, and write the row groups they fill."""
        self.rows += frame.height
        self.waiting_bytes += self._plan.bytes_of(frame)
        self._waiting.append(frame)
        self._waiting_rows += frame.height
        if len(self._waiting) > _FEW:  # many small frames need more than their rows
            self._waiting = [pl.concat(self._waiting, rechunk=True)]
        while self._waiting_rows >= self._plan.group_rows:
            self._write_group(self._plan.group_rows)

    def flush(self) -> None:
        """Write the rows that wait, as a smaller row group."""
        if self._waiting_rows:
            self._write_group(self._waiting_rows)

    def _write_group(self, rows: int) -> None:
        frame, by = pl.concat(self._waiting), self._plan.sorted_by
        group, rest = frame.head(rows), frame.slice(rows)
        if by and order.by_receipt(by, group[by[0]].null_count()):
            self._as_received = True
        key = order.RECEIVED if self._as_received else by
        if not order.in_order(group, key):
            group = group.sort(key, nulls_last=False, maintain_order=True)
        if self._out is None:
            self._out = self._create()
        first, last = order.ends(group, by)
        self._runs.append(order.Run(self._out.path, self._out.rows, group.height, first, last))
        if by and by[-1] in order.RECEIVED:
            self._lines.append(order.extremes(group, by[-1]))
        self._out.write(group)
        self.waiting_bytes = self.waiting_bytes * rest.height // frame.height
        self._waiting_rows = rest.height
        self._waiting = [copied(rest)] if rest.height else []

    def _create(self) -> PartFile:
        plan = self._plan
        path = self.folder / hive.temporary_name(plan.segment, plan.token, len(self._files))
        self._files.append(path)
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):  # another segment's writer just tidied it away
                plan.folders.make(self.folder)
                self._claimed = not self._as_received
                return PartFile(path, plan.form if self._claimed else plan.form_as_received)
        raise FileNotFoundError(f"{self.folder} vanishes as soon as it is made")

    def close(self) -> None:
        """Close the file; rows that come later go to another one, and are merged at the end."""
        if self._out is not None:
            out, self._out = self._out, None
            out.close()

    def finish(self) -> None:
        """Have all rows in one file, sorted."""
        self.flush()
        self.close()
        runs, by = self._runs, self._plan.sorted_by
        if self._as_received:
            ends = zip(runs, self._lines, strict=True)
            runs, by = [replace(run, first=low, last=high) for run, (low, high) in ends], [*order.RECEIVED]
        follow = all(order.rank(a.last) <= order.rank(b.first) for a, b in pairwise(runs))
        if len(self._files) == 1 and follow and not (self._as_received and self._claimed):
            return
        self._out = self._create()
        for group in regroup(order.merge(runs, by), self._plan.group_rows):
            self._out.write(group)
        self.close()
        for path in self._files[:-1]:
            path.unlink()
        del self._files[:-1]

    @property
    def file(self) -> Path:
        """The one file of a finished draft."""
        (path,) = self._files
        return path

    def drop(self) -> None:
        """Remove its files."""
        if self._out is not None:
            out, self._out = self._out, None
            with contextlib.suppress(OSError):  # a full disk: the file goes anyway
                out.abandon()
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files, self._waiting = [], []


def finish_drafts(drafts: Sequence[Draft], pool: Executor) -> None:
    """Finish drafts, the largest first, and have them on the disk; one is synced while others are encoded."""
    with ThreadPoolExecutor(SYNCS, "cbtools-sync") as syncs:

        def finish(draft: Draft) -> Future[None]:
            draft.finish()
            return syncs.submit(sync_files, [draft.file])

        for synced in list(pool.map(finish, sorted(drafts, key=lambda draft: -draft.waiting_bytes))):
            synced.result()


def copied(frame: pl.DataFrame) -> pl.DataFrame:
    """Copy the rows: a slice would keep all of the frame it was cut from."""
    return pl.concat([frame.head(1), frame.slice(1)], rechunk=True)


def regroup(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Cut frames anew, into frames of so many rows (the last may have fewer)."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        while sum(piece.height for piece in held) >= rows:
            joined = pl.concat(held)
            yield joined.head(rows)
            held = [joined.slice(rows)]
    if any(piece.height for piece in held):
        yield pl.concat(held)
