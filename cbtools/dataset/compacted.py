"""Compacted parts: one file that holds several segments' rows, and stands for their own parts.

A compacted part's footer lists its segments. Where it is, these segments' own parts in its folder count no
more, nor does a compacted part whose segments are all in another. So one rename puts a file in the place of
many, and one removal the many in the place of the one: a reader sees either, whenever it looks.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

import polars as pl

from cbtools.dataset import hive, order
from cbtools.dataset.draft import regroup
from cbtools.dataset.parquet import Format, PartFile, check_version, row_group_rows
from cbtools.errors import DatasetError
from cbtools.stores import Entry, discard, open_bytes, scratch_for

SEGMENT: Final = "__segment"
"""The column of a compacted part that tells whose rows they are."""
_SEGMENTS: Final = "cbtools.segments"
_BYTES: Final = "cbtools.bytes_before"


def segments_in(path: str | Path) -> tuple[str, ...]:
    """Give the segments whose rows are in a part: those of a compacted one, or the one that names it.

    Raises
    ------
    DatasetError
        If the footer of a compacted part cannot be read.
    FileNotFoundError
        If it has just been replaced.
    """
    name = PurePath(str(path)).name
    if hive.compacted_first(name) is None:
        segment = hive.segment_of(name)
        return () if segment is None else (segment,)
    try:
        return tuple(json.loads(pl.read_parquet_metadata(str(path))[_SEGMENTS]))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise DatasetError(
            f"{path} is named like a compacted part, but does not tell its segments ({error}): take it away, "
            "and run its segments again"
        ) from error


def bytes_before(path: Path) -> int:
    """Give the size of what a part was made of; that of the file, if it was not compacted."""
    size = path.stat().st_size
    if hive.compacted_first(path.name) is None:
        return size
    return max(size, int(pl.read_parquet_metadata(str(path)).get(_BYTES, 0)))


@dataclass(frozen=True)
class Folder:
    """The parts in one folder: those that count, and those for which another one stands."""

    counting: tuple[Entry, ...]
    replaced: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, files: Iterable[Entry]) -> Folder:
        """Sort the files of a folder; those that are no parts are left out."""
        parts = [entry for entry in files if hive.segment_of(entry.name) is not None]
        if all(hive.compacted_first(entry.name) is None for entry in parts):
            return cls(tuple(parts))
        held = {entry.name: frozenset(segments_in(entry.path)) for entry in parts}
        large_first = sorted(
            (name for name in held if hive.compacted_first(name) is not None),
            key=lambda name: (-len(held[name]), name),
        )
        standing: list[str] = []
        for name in large_first:
            if not any(held[name] <= held[other] for other in standing):
                standing.append(name)
        covered = frozenset[str]().union(*(held[name] for name in standing))
        counts = {
            name
            for name in held
            if name in standing or (hive.compacted_first(name) is None and not held[name] <= covered)
        }
        return cls(
            tuple(entry for entry in parts if entry.name in counts),
            tuple(entry for entry in parts if entry.name not in counts),
        )


def place_of(name: str) -> str:
    """Give a part's place among those of its folder: a compacted one stands where its first segment's did."""
    first = hive.compacted_first(name)
    return name if first is None else f"part_{first}.parquet"


@dataclass(frozen=True)
class _Rows(order.Run):
    """Rows of a source part, with their segment, and with all columns of the part that they go to."""

    segment: str
    schema: pl.Schema
    without: str | None

    def read(self) -> pl.DataFrame:
        """Read them, without those of a segment that is to be left out."""
        frame = super().read()
        if SEGMENT not in frame.columns:
            frame = frame.with_columns(pl.lit(self.segment).alias(SEGMENT))
        lacking = [
            pl.lit(None, dtype).alias(name)
            for name, dtype in self.schema.items()
            if name not in frame.columns
        ]
        frame = frame.with_columns(lacking).select(self.schema.names())
        return frame if self.without is None else frame.filter(pl.col(SEGMENT) != self.without)


def write_compacted(
    folder: Path, sources: Sequence[Path], *, without: str | None = None
) -> tuple[Path, Path, int]:
    """Write the rows of some parts of a folder into one, under a temporary name; sorted, as parts are.

    Parameters
    ----------
    folder : pathlib.Path
        Where they are.
    sources : sequence of pathlib.Path
        The parts, in their order.
    without : str, optional
        A segment whose rows are left out.

    Returns
    -------
    tuple of (pathlib.Path, pathlib.Path, int)
        The file, the name that it is to have, and its rows.

    Raises
    ------
    DatasetError
        If a column has several dtypes, or the rows are not as many as the sources say.
    """
    segments = [name for path in sources for name in segments_in(path) if name != without]
    schema = _schema_of(sources)
    path = folder / hive.compacted_name(segments)
    number = int(secrets.token_hex(2), 16)
    token = secrets.token_hex(hive.TOKEN_BYTES)
    drafted = str(hive.segment_of(path.name)) if without is None else without  # its next writer removes it
    footers = [pl.read_parquet_metadata(str(source)) for source in sources]
    for source, metadata in zip(sources, footers, strict=True):
        check_version(metadata, source)  # of the parts that become one, the footer names one version
    told = {k: v for k, v in footers[-1].items() if k.startswith("cbtools.")}
    told |= {"cbtools.segment": segments[0], _SEGMENTS: json.dumps(segments)}
    told[_BYTES] = str(sum(_share(source, without) for source in sources))
    by = order_of(sources, schema)
    draft = scratch_for(folder) / hive.temporary_name(drafted, token, number)
    try:
        rows = write_part(draft, _merged(sources, schema, by, without), schema, told, sorted_by=by)
    except BaseException:
        discard(draft, path)
        raise
    return draft, path, rows


def write_part(
    file: Path,
    frames: Iterator[pl.DataFrame],
    schema: pl.Schema,
    footer: Mapping[str, str],
    *,
    sorted_by: list[str],
) -> int:
    """Write frames, whose rows are in order, as a part; gives how many rows there were."""
    out = PartFile(file, Format(schema, metadata=footer, sorted_by=sorted_by))
    try:
        for group in regroup(frames, row_group_rows(schema)):
            out.write(group)
        out.close()
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk: the file is of no use anyway
            out.abandon()
        raise
    return out.rows


def _share(source: Path, without: str | None) -> int:
    """Give the size of what a part was made of, without the share of a segment that is left out."""
    size = bytes_before(source)
    if without is None:
        return size
    scan = pl.scan_parquet(str(source), glob=False, hive_partitioning=False)
    rows, kept = scan.select(pl.len(), kept=(pl.col(SEGMENT) != without).sum()).collect().row(0)
    return int(size * kept // max(1, rows))


def _schema_of(sources: Sequence[Path]) -> pl.Schema:
    """Give the columns of all sources, and last the segment."""
    found: dict[str, pl.DataType] = {}
    for source in sources:
        there = pl.scan_parquet(str(source), glob=False, hive_partitioning=False).collect_schema()
        for name, dtype in there.items():
            if found.setdefault(name, dtype) != dtype:
                raise DatasetError(
                    f"{name} is {dtype} in {source}, but {found[name]} in other parts beside it: write the "
                    "part again with the one dtype"
                )
    found.pop(SEGMENT, None)
    return pl.Schema({**found, SEGMENT: pl.String()})


def order_of(sources: Sequence[Path], schema: Mapping[str, pl.DataType]) -> list[str]:
    """Return the columns by which the rows of parts are merged; none if a part is in the order of receipt.

    Parts are then joined one after another, each in its own order.
    """
    by = order.sort_columns(schema)
    return [] if by and order.by_receipt(by, _count_null(sources, by[0])) else by


def _count_null(sources: Sequence[Path], column: str) -> int:
    """Count the rows of parts that have none in a column."""
    scans = [pl.scan_parquet(str(source), glob=False, hive_partitioning=False) for source in sources]
    counts = [
        scan.select(pl.col(column).null_count() if column in scan.collect_schema() else pl.len())
        for scan in scans
    ]
    return int(sum(counted.item() for counted in pl.collect_all(counts)))


def _merged(
    sources: Sequence[Path], schema: pl.Schema, by: list[str], without: str | None
) -> Iterator[pl.DataFrame]:
    import pyarrow.parquet as pq

    runs = []
    for source in sources:
        segment, offset = segments_in(source)[0], 0
        with open_bytes(source) as file:
            metadata = pq.read_metadata(file)
        scan = pl.scan_parquet(str(source), glob=False, hive_partitioning=False)
        there = scan.collect_schema()
        lacking = [pl.lit(None, schema[name]).alias(name) for name in by if name not in there]
        for i in range(metadata.num_row_groups):
            rows = metadata.row_group(i).num_rows
            keys = scan.with_columns(lacking).select(by).slice(offset, rows)
            first, last = order.ends(pl.concat([keys.head(1), keys.tail(1)]).collect(), by)
            runs.append(_Rows(source, offset, rows, first, last, segment, schema, without))
            offset += rows
    return order.merge(runs, by) if by else (run.read() for run in runs)
