"""A partitioned dataset → one lazy frame, which opens only the files that a query needs."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import polars as pl

from cbtools.dataset import compacted, hive
from cbtools.dataset.parquet import check_version, partition_dtypes
from cbtools.dataset.split import DERIVED_DTYPES
from cbtools.errors import DatasetError, unknown_name
from cbtools.schema import NULL_FOLDER, RAW, SEGMENT, TABLES, schema
from cbtools.stores import Entry, as_place, files_in, folders_in, is_remote, tells_trouble

FOOTERS: Final = 256
"""How many footers a scan reads to learn the columns, at about 0.1 ms each."""

_PATH = "__path"
_STREAM = "stream"
_TRIES = 20
_REQUESTS = 16


@dataclass(frozen=True)
class _File:
    relative: tuple[str, ...]
    entry: Entry


@tells_trouble
def scan_dataset(
    root: str | os.PathLike[str],
    table: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    segment: bool = False,
    segments: Sequence[str] | None = None,
    footers: Literal["some", "all"] = "some",
) -> pl.LazyFrame:
    """Scan a partitioned dataset lazily; a query opens only the files of the partitions it asks for.

    Only finished parts (``part_*.parquet`` in folders named ``column=value``) are read, in the order of their
    paths (numbers by value). The rows of a part are in order; those of several are not merged into one order.

    The columns are the table's as `cbtools.schema` lists them, then what else the files hold, then ``date``
    and ``hour`` where they partition the dataset. A part that lacks a column (an older one) gives null. To
    learn what else the files hold, up to 256 footers are read: all of a small dataset; of a large one those
    of the 128 newest files and of 128 others spread evenly. Should another file hold a column besides, the
    query that opens it fails and names the column, rather than leaving it out; ``footers="all"`` finds it.

    Parameters
    ----------
    root : str or os.PathLike
        Folder of the dataset, or of the datasets where `table` is given; or its URL in a store.
    table : str, optional
        Name of the dataset's folder in `root`: a table of `cbtools.schema`, or any other.
    columns : sequence of str, optional
        The columns wanted, in that order; all by default.
    segment : bool, default False
        Whether to add the column ``segment`` (String): the segment whose part the row is of.
    segments : sequence of str, optional
        The segments whose rows are wanted; all by default. Other segments' parts are not opened.
    footers : {"some", "all"}, default "some"
        Whether to read the footers of all files (a second for 10,000).

    Returns
    -------
    polars.LazyFrame
        Partition columns have the dtype they were written with (product_id: String, date: Date, hour: Int8).

    Raises
    ------
    DatasetError
        If there is no dataset, or none of the segments in it; if its folders disagree in their partition
        columns, or its files in a dtype.
    ConfigError
        If there is no such column.

    See Also
    --------
    write_dataset : Write one.

    Notes
    -----
    Other programs read the same rows: ``pyarrow.dataset.dataset(path, partitioning="hive")``, and DuckDB's
    ``read_parquet('path/**/*.parquet', hive_partitioning=true, union_by_name=true)``; by name, since
    compacted parts have a column more (``__segment``). They guess the partition columns' types from the
    folders' names. DuckDB 2 keeps the nanoseconds of times (TIMESTAMPTZ_NS); versions before it cut
    them to microseconds. Both give an Enum as text (pyarrow as a dictionary of text).

    Examples
    --------
    >>> import tempfile
    >>> from cbtools.dataset import write_dataset
    >>> frame = pl.DataFrame({"product_id": ["BTC-USD", "A/B"], "price": [64000.5, 1.0]})
    >>> with tempfile.TemporaryDirectory() as root:
    ...     written = write_dataset(frame, root, partition_by="product_id", segment="s1")
    ...     scan_dataset(root, segment=True).filter(product_id="A/B").collect().rows()
    [(1.0, 'A/B', 's1')]
    """
    folder = hive.dataset_root(root, table)
    files = _find(folder, as_place(root), table)
    if segments is not None:
        files = _of_segments(files, segments, folder)
    by = _partition_columns(folder, files)
    known = dict(schema(table)) if table is not None and table in TABLES else {}
    declared = known if table in RAW else {}  # a book has its own depth
    read = files if footers == "all" else _sample(files)
    inside = _columns(declared, by, read, ours=bool(known))
    if any(hive.compacted_first(file.entry.name) is not None for file in files):
        inside[compacted.SEGMENT] = pl.String()
    if columns is not None and len(read) < len(files) and not set(columns) <= {*by, *inside}:
        inside = _columns(declared, by, files, ours=bool(known))
    types = _partition_types(declared, by, read)
    first = [name for name in known if name in by or name in declared]
    names = [name for name in dict.fromkeys([*first, *inside, *by]) if name != compacted.SEGMENT]
    for name in columns or ():
        if name not in names:
            raise unknown_name("column", name, names)
    if (segment or segments is not None) and SEGMENT.name in names:
        raise DatasetError(f"{folder} has a column {SEGMENT.name} of its own: scan it without segments")
    told = segment or segments is not None
    frame = _scan(folder, _in_order(files, types), types, inside, segment=told, strict=columns is None)
    if segments is not None:
        frame = frame.filter(pl.col(SEGMENT.name).is_in(list(segments)))
    return frame.select([*(names if columns is None else columns), *([SEGMENT.name] if segment else [])])


def _find(folder: Path, root: Path, table: str | None) -> list[_File]:
    files = _list(folder)
    if files:
        return files
    if folder.is_dir():
        what = f"no dataset in {folder}: no part_*.parquet there, nor in folders named column=value"
    else:
        what = f"no dataset in {folder}: there is no such folder"
    near = root
    if not is_remote(root) and not root.is_dir():
        near = next(path for path in root.absolute().parents if path.is_dir())
    there = sorted(path.name for path in (*folders_in(near), *files_in(near)) if path.name[0] not in "._")
    hint = "Write one with write_dataset(frame, root, partition_by=...)"
    if any(next(_parts(near / name), None) for name in there):
        hint = f"Give {'another' if table else 'a'} table: scan_dataset(root, table)"
    raise DatasetError(f"{what}. {near} holds: {', '.join(there) or 'nothing'}. {hint}")


def _of_segments(files: list[_File], segments: Sequence[str], folder: Path) -> list[_File]:
    wanted = set(segments)
    kept = [file for file in files if not wanted.isdisjoint(compacted.segments_in(file.entry.path))]
    if not kept:
        raise DatasetError(f"{folder} has no rows of these segments: {', '.join(sorted(wanted)) or 'none'}")
    return kept


def _list(folder: Path) -> list[_File]:
    """List the parts that count; once more, if one is replaced at this moment."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return [
                _File(relative, entry)
                for relative, entries in hive.walk(folder)
                for entry in compacted.Folder.of(entries).counting
            ]
    raise DatasetError(f"{folder} changes faster than it can be listed: wait until it is compacted")


def _parts(folder: Path) -> Iterator[str]:
    return (e.name for _, files in hive.walk(folder) for e in files if hive.segment_of(e.name))


def _partition_columns(folder: Path, files: Sequence[_File]) -> tuple[str, ...]:
    first = files[0]
    by = hive.names_of(first.relative)
    for file in files:
        if hive.names_of(file.relative) != by:
            raise DatasetError(
                f"{folder} holds parts in different partitions, {first.entry.path} and {file.entry.path}: "
                "they are of different datasets, move one away"
            )
    outer = {part.partition("=")[0] for part in folder.parts if "=" in part}
    if outer & set(by):
        raise DatasetError(
            f"{folder} lies in a folder named like its partitions ({', '.join(sorted(outer & set(by)))}): a "
            "reader cannot tell them apart. Move it, or scan the outer folder"
        )
    return by


def _sample(files: list[_File]) -> list[_File]:
    """Choose whose footers to read: the newest, which have the newest columns, and some of every region."""
    if len(files) <= FOOTERS:
        return files
    half = FOOTERS // 2
    newest = sorted(files, key=lambda file: file.entry.stat().st_mtime_ns)[-half:]
    spread = [files[i * len(files) // half] for i in range(half)]
    return list({file.entry.path: file for file in [*spread, *newest]}.values())


def _columns(
    declared: Mapping[str, pl.DataType], by: Sequence[str], files: Sequence[_File], *, ours: bool
) -> dict[str, pl.DataType]:
    """Give the columns inside the files: the table's, and all that the footers of these files name."""
    found = dict(declared)
    whence = dict.fromkeys(found, "the table")
    unreadable = ""
    for file, there in zip(files, _schemas(files), strict=True):
        if isinstance(there, Exception):  # a query that needs the file will say so
            unreadable = f"{file.entry.path}: {there}"
            continue
        if ours and _STREAM not in there:  # which no part of a table of ours lacks, but those of before
            check_version(pl.read_parquet_metadata(file.entry.path), file.entry.path)
        for name, dtype in there.items():
            if found.setdefault(name, dtype) != dtype:
                raise DatasetError(
                    f"{name} is {dtype} in {file.entry.path}, but {found[name]} in {whence[name]}: "
                    "write the part again with the one dtype"
                )
            whence.setdefault(name, file.entry.path)
    if not found:
        raise DatasetError(f"no part can be read; {unreadable}. Run the segment again")
    return {name: dtype for name, dtype in found.items() if name not in by}


def _schemas(files: Sequence[_File]) -> Iterator[pl.Schema | Exception]:
    """Read the footers; side by side where each is a wait for a store."""

    def one(file: _File) -> pl.Schema | Exception:
        try:
            return pl.scan_parquet(file.entry.path, glob=False, hive_partitioning=False).collect_schema()
        except (pl.exceptions.ComputeError, OSError) as error:
            return error

    if files and is_remote(files[0].entry.path):
        with ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(one, files)
    else:
        yield from map(one, files)


def _partition_types(
    declared: Mapping[str, pl.DataType], by: Sequence[str], files: Sequence[_File]
) -> dict[str, pl.DataType]:
    """Give the dtypes of the partition columns: as the table says, as the writer noted, or text."""
    noted: dict[str, pl.DataType] = {}
    for file in files:
        try:
            metadata = pl.read_parquet_metadata(file.entry.path)
        except (pl.exceptions.ComputeError, OSError):
            continue
        check_version(metadata, file.entry.path)
        noted = partition_dtypes(metadata)
        break
    known = {**DERIVED_DTYPES, **noted, **declared}
    return {name: known.get(name, pl.String()) for name in by}


def _in_order(files: list[_File], types: Mapping[str, pl.DataType]) -> list[str]:
    """Order the files by partition (numbers by value, null first), then by name."""

    def place(file: _File) -> tuple[object, ...]:
        texts = [part.partition("=")[2] for part in file.relative]
        numbers = [
            int(text) if dtype.is_integer() and text != NULL_FOLDER else -math.inf
            for text, dtype in zip(texts, types.values(), strict=True)
        ]
        return (*zip(numbers, texts, strict=True), compacted.place_of(file.entry.name))

    try:
        return [file.entry.path for file in sorted(files, key=place)]
    except ValueError as error:
        raise DatasetError(f"a folder's name is not the whole number it must be: {error}") from error


def _scan(
    folder: Path,
    paths: list[str],
    types: Mapping[str, pl.DataType],
    inside: Mapping[str, pl.DataType],
    *,
    segment: bool,
    strict: bool,
) -> pl.LazyFrame:
    outer = {part.partition("=")[0]: pl.String() for part in folder.parts if "=" in part}
    if clash := outer.keys() & inside.keys():
        raise DatasetError(f"{folder} lies in a folder named like a column, {', '.join(clash)}: move it")
    frame = pl.scan_parquet(
        paths,
        glob=False,
        hive_partitioning=bool(types or outer),
        hive_schema={**outer, **types} or None,
        schema=dict(inside),
        missing_columns="insert",
        extra_columns="raise" if strict else "ignore",
        include_file_paths=_PATH if segment else None,
    )
    if not segment:
        return frame
    named = pl.col(_PATH).str.extract(r"(?s)part_([^/\\]+)\.parquet$")
    told = [pl.col(compacted.SEGMENT)] if compacted.SEGMENT in inside else []
    return frame.with_columns(pl.coalesce(*told, named).alias(SEGMENT.name))
