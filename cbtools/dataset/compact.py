"""Many small parts → few large ones, without a moment in which a row is there twice or not at all."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from cbtools.dataset import hive
from cbtools.dataset.compacted import Folder, bytes_before, place_of, segments_in, write_compacted
from cbtools.dataset.listing import alone, datasets_under, partitions_in
from cbtools.dataset.written import Headed
from cbtools.durable import sync_files, sync_folders
from cbtools.errors import ConfigError, DatasetError
from cbtools.stores import as_place, discard, put, tells_trouble

GROUPS: Final = pl.Schema(
    {
        "folder": pl.String(),
        "parts": pl.Int64(),
        "into": pl.String(),
        "rows": pl.Int64(),
        "bytes_before": pl.Int64(),
        "bytes_after": pl.Int64(),
    }
)


@dataclass(frozen=True, repr=False)
class Compaction(Headed):
    """What `compact_dataset` did, or would do.

    Attributes
    ----------
    groups : polars.DataFrame
        A row a compacted part: ``folder`` of the partition, below the root; ``parts``, how many there were;
        ``into``, its file's name; ``rows``; ``bytes_before`` of these parts; and ``bytes_after``, null of a
        dry run.
    dry_run : bool
        Whether nothing was done.
    """

    groups: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=GROUPS))
    dry_run: bool = False

    def _headline(self) -> str:
        before, into = int(self.groups["parts"].sum()), self.groups.height
        if not into:
            return "nothing to compact"
        told = f"{before:,} parts into {into:,}, {self.groups['rows'].sum():,} rows"
        before_mb, after_mb = (
            float(self.groups[f"bytes_{when}"].sum()) / 1e6 for when in ("before", "after")
        )
        if self.dry_run:
            return f"would compact {told}, {before_mb:,.2f} MB"
        return f"compacted {told}, {before_mb:,.2f} MB into {after_mb:,.2f} MB"

    def _table(self) -> pl.DataFrame:
        return self.groups


@tells_trouble
def compact_dataset(
    root: str | os.PathLike[str],
    table: str | None = None,
    *,
    target_mb: float = 256,
    grace_seconds: float = 0.0,
    dry_run: bool = False,
) -> Compaction:
    """Merge the small parts of each partition into few large ones; the dataset's rows stay the same.

    In each folder neighbouring parts that are smaller than half the target are put together, up to the
    target. A compacted part is named after its first segment, ``part_<segment>~<8 digits>.parquet``. Its rows
    are sorted as any part's, and each knows its segment (column ``__segment``), which `scan_dataset` gives
    with ``segment=True``. A segment in it can be run again: its rows are replaced, and those of others stay.

    A compacted part counts from its renaming on, and those that it stands for no more: `scan_dataset` sees
    either, never both, whenever it lists the folder, and so it is if this is killed at any moment; the next
    call clears up. What lists files by itself (DuckDB, pyarrow) may see both for a moment, between the
    renaming and the removal. A query that was planned before and opens its files later finds them gone, and
    fails; ``grace_seconds`` keeps them for it. In a store nothing is locked: no job must be at work.

    Parameters
    ----------
    root : str or os.PathLike
        Folder of the dataset; or of several, such as a job's output: then all of them, or that of `table`.
    table : str, optional
        Name of the dataset's folder in `root`.
    target_mb : float
        About how large a compacted part may be, megabytes.
    grace_seconds : float
        How long replaced parts are kept for readers.
    dry_run : bool
        Only tell what would be done.

    Returns
    -------
    Compaction

    Raises
    ------
    ConfigError
        If target_mb is not positive, or grace_seconds negative.
    DatasetError
        If there is no dataset, or its parts do not fit together. What was compacted before stays.
    JobError
        If a job works on it.

    Examples
    --------
    >>> import tempfile
    >>> from cbtools.dataset import scan_dataset, write_dataset
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for segment, price in (("s1", 1.0), ("s2", 2.0)):
    ...         frame = pl.DataFrame({"product_id": ["BTC-USD"], "price": [price]})
    ...         written = write_dataset(frame, root, partition_by="product_id", segment=segment)
    ...     done = compact_dataset(root)
    ...     done.groups["parts"].to_list(), scan_dataset(root, segment=True).collect().rows()
    ([2], [(1.0, 'BTC-USD', 's1'), (2.0, 'BTC-USD', 's2')])
    """
    if isinstance(target_mb, bool) or not isinstance(target_mb, int | float) or not 0 < target_mb < math.inf:
        raise ConfigError(f"target_mb must be a positive size in megabytes, not {target_mb!r}")
    if not isinstance(grace_seconds, int | float) or not 0 <= grace_seconds < math.inf:
        raise ConfigError(f"grace_seconds must be a time in seconds, not {grace_seconds!r}")
    base = as_place(root)
    folders = datasets_under(base, table)
    with contextlib.nullcontext() if dry_run else alone(base, folders):
        rows: list[tuple[object, ...]] = []
        replaced = 0
        for folder in folders:
            for group in _groups(folder, int(target_mb * 1e6)):
                rows.append(group.told(base) if dry_run else group.compact(base))
                replaced += len(group.parts)
        if not dry_run:
            if replaced:
                time.sleep(grace_seconds)
            for folder in folders:
                _clear_up(folder)
    return Compaction(pl.DataFrame(rows, schema=GROUPS, orient="row"), dry_run)


@dataclass(frozen=True)
class _Group:
    """Neighbouring parts of a folder that become one."""

    parts: tuple[Path, ...]

    def told(self, root: Path) -> tuple[str, int, str | None, int, int, int | None]:
        """Tell what would become of them."""
        segments = [segment for part in self.parts for segment in segments_in(part)]
        return self._row(
            root, hive.compacted_name(segments), sum(_rows_in(part) for part in self.parts), None
        )

    def compact(self, root: Path) -> tuple[str, int, str | None, int, int, int | None]:
        """Put one part in the place of them, unless one of them changes meanwhile."""
        before = [_stamp(part) for part in self.parts]
        expected = sum(_rows_in(part) for part in self.parts)
        draft, path, rows = write_compacted(self.parts[0].parent, self.parts)
        try:
            if rows != expected:
                raise DatasetError(
                    f"{draft} has {rows:,} rows, and its parts {expected:,}: nothing was changed"
                )
            sync_files([draft])
            if [_stamp(part) for part in self.parts] != before:
                raise DatasetError(f"parts in {path.parent} were written meanwhile: compact it again")
            told = self._row(root, path.name, rows, draft.stat().st_size)
            put(draft, path)
        except BaseException:
            discard(draft, path)
            raise
        sync_folders([path.parent])
        return told

    def _row(
        self, root: Path, into: str | None, rows: int, after: int | None
    ) -> tuple[str, int, str | None, int, int, int | None]:
        before = sum(part.stat().st_size for part in self.parts)
        return self.parts[0].parent.relative_to(root).as_posix(), len(self.parts), into, rows, before, after


def _stamp(part: Path) -> tuple[int, int, int] | None:
    try:
        stat = part.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _rows_in(part: Path) -> int:
    try:
        scan = pl.scan_parquet(str(part), glob=False, hive_partitioning=False)
        rows: int = scan.select(pl.len()).collect().item()
    except pl.exceptions.ComputeError as error:
        raise DatasetError(f"{part} cannot be read: {error}. Run its segment again") from error
    return rows


def _groups(root: Path, target: int) -> Iterator[_Group]:
    for relative, folder in partitions_in(root):
        parts = sorted((entry.name for entry in folder.counting), key=place_of)
        paths = [root.joinpath(*relative, name) for name in parts]
        yield from _small_neighbours(paths, target)


def _small_neighbours(parts: Sequence[Path], target: int) -> Iterator[_Group]:
    """Group neighbours that are small; what was compacted counts with the size of what it was made of."""
    group: list[Path] = []
    total = 0
    for part in [*parts, None]:
        size = target if part is None else bytes_before(part)
        if total + size > target or size >= target / 2:
            if len(group) > 1:
                yield _Group(tuple(group))
            group, total = [], 0
        if part is not None and size < target / 2:
            group.append(part)
            total += size


def _clear_up(root: Path) -> None:
    """Remove the parts for which others stand, and what a compaction that was killed left."""
    for relative, files in hive.walk(root):
        gone = [as_place(entry.path) for entry in Folder.of(files).replaced]
        for entry in files:
            drafted = hive.temporary_segment_of(entry.name)
            if drafted is not None and hive.compacted_first(f"part_{drafted}.parquet") is not None:
                gone.append(as_place(entry.path))
        for path in gone:
            path.unlink(missing_ok=True)
        if gone:
            sync_folders([root.joinpath(*relative)])
