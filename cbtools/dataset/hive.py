"""The folders of a dataset: ``column=value`` partitions, parts and their temporary names.

Polars, DuckDB and pyarrow read back alike what is written here: values are URL-quoted, null has Hive's name.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

import polars as pl

from cbtools.errors import ConfigError, DatasetError
from cbtools.schema import LONGEST_NAME, NULL_FOLDER
from cbtools.stores import Entry, as_place, is_remote, remote_tree

Value = str | int | bool | dt.date | None
"""A partition's value."""

_PLAIN_DTYPES = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
DTYPES: Final[Mapping[str, pl.DataType]] = {
    str(dtype): dtype() for dtype in (pl.String, pl.Boolean, pl.Date, *_PLAIN_DTYPES)
}
"""The dtypes a partition column may have, by name."""

_UNFIT = frozenset('/\\=%*?[]{}:"<>|#')
TOKEN_BYTES: Final = 4
_COMPACTED = re.compile(r"part_(?P<first>.+)~[0-9a-f]{8}\.parquet", re.DOTALL)
_TEMPORARY = re.compile(rf"\.part_(?P<segment>.+)\.[0-9a-f]{{{2 * TOKEN_BYTES}}}\.[0-9]+\.tmp", re.DOTALL)


def dataset_root(root: str | os.PathLike[str], table: str | None) -> Path:
    """Give the folder of a dataset: the root, or the table's folder in it.

    Raises
    ------
    ConfigError
        If the table's name is not one folder's.
    """
    if table is None:
        return as_place(root)
    if not table or table[0] in "._" or "=" in table or Path(table).name != table:
        raise ConfigError(f"table {table!r} is not the name of a folder")
    return as_place(root) / table


def part_name(segment: str) -> str:
    """Give the file name of a segment's parts.

    Parameters
    ----------
    segment : str
        Name of the segment.

    Returns
    -------
    str
        ``part_<segment>.parquet``.

    Raises
    ------
    ConfigError
        If the segment's name cannot be part of a file name.

    Examples
    --------
    >>> part_name("segment_20251126T14_00001")
    'part_segment_20251126T14_00001.parquet'
    """
    if not segment or not segment.isprintable() or any(sign in segment for sign in "/\\"):
        raise ConfigError(
            f"segment {segment!r} cannot be part of a file name: it must not be empty, nor hold a path "
            "separator or a control character"
        )
    if compacted_first(f"part_{segment}.parquet") is not None:
        raise ConfigError(
            f"segment {segment!r} ends like the name of a compacted part: give it another name, without ~ "
            "and eight digits at its end"
        )
    if len(os.fsencode(temporary_name(f"{segment}~{0:08}", "0" * 2 * TOKEN_BYTES, 99_999))) > LONGEST_NAME:
        raise ConfigError(f"segment {segment!r} is too long for a file name: give a shorter one")
    return f"part_{segment}.parquet"


def segment_of(name: str) -> str | None:
    """Give the segment of a part by its file name; None if it is not the name of a part."""
    if name.startswith("part_") and name.endswith(".parquet") and len(name) > len("part_.parquet"):
        return name[len("part_") : -len(".parquet")]
    return None


def compacted_name(segments: Sequence[str]) -> str:
    """Give the file name of a part into which those of several segments are put: equal for equal segments."""
    digest = sha256("\n".join(segments).encode()).hexdigest()
    return f"part_{segments[0]}~{digest[:8]}.parquet"


def compacted_first(name: str) -> str | None:
    """Give the first segment of a compacted part by its file name; None if it is not the name of one."""
    match = _COMPACTED.fullmatch(name)
    return match["first"] if match else None


def temporary_name(segment: str, token: str, number: int) -> str:
    """Give a name under which a part is written: hidden and without the ending, so no scanner takes it.

    Each writer has a token of its own: one that was given up, and goes on, does not write into the files of
    the one after it.
    """
    return f".part_{segment}.{token}.{number}.tmp"


def temporary_segment_of(name: str) -> str | None:
    """Give the segment of a temporary file by its name; None if it is not one of ours."""
    match = _TEMPORARY.fullmatch(name)
    return match["segment"] if match else None


def check_column(name: str, dtype: pl.DataType) -> None:
    """Raise a ConfigError unless a column of this name and dtype can be a partition."""
    if (
        not name
        or name[0] in "._"
        or not name.isprintable()
        or any(sign in name for sign in '/\\=%*?[]{}:"<>|#')
    ):
        raise ConfigError(
            f"cannot partition by {name!r}: readers do not agree on such a name as a folder. Rename "
            "it to letters, digits and underscores, not starting with one"
        )
    if not isinstance(dtype, pl.Enum | pl.Categorical) and str(dtype) not in DTYPES:
        raise ConfigError(
            f"cannot partition by {name!r} of dtype {dtype}: a folder's name holds text, whole numbers, "
            "booleans and dates. Partition by 'date' or 'hour' for times; cut a number into classes"
        )


def folder(values: Mapping[str, Value]) -> Path:
    """Give the path of a partition inside its dataset.

    Parameters
    ----------
    values : mapping of str to str, int, bool, date or None
        Partition column → value, outermost first.

    Returns
    -------
    pathlib.Path
        Relative to the dataset's root.

    Raises
    ------
    DatasetError
        If a value is the very text that stands for null.

    Examples
    --------
    >>> folder({"product_id": "A/B", "hour": None}).as_posix()
    'product_id=A%2FB/hour=__HIVE_DEFAULT_PARTITION__'
    """
    return Path(*(f"{name}={_text(name, value)}" for name, value in values.items()))


def text_of(value: Value) -> str | None:
    """Give a value as text, unquoted."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(name: str, value: Value) -> str:
    plain = text_of(value)
    if plain is None:
        return NULL_FOLDER
    if plain == NULL_FOLDER:
        raise DatasetError(
            f"{name} holds {NULL_FOLDER!r}, which stands for null in a folder's name: rename it"
        )
    text = quote(plain, safe="")
    if len(name) + 1 + len(text) > LONGEST_NAME:
        raise DatasetError(f"{name} holds a value too long for a folder's name: {text[:60]}...")
    return text


def names_of(relative: Sequence[str]) -> tuple[str, ...]:
    """Give the partition columns of a folder, from its path's parts inside the dataset."""
    return tuple(part.partition("=")[0] for part in relative)


def partitioned_otherwise(root: Path, relative: Sequence[str], by: Sequence[str], path: str) -> DatasetError:
    """Build the error for a part that lies in other partitions than those that are to be written."""
    return DatasetError(
        f"{root} is partitioned by {', '.join(names_of(relative)) or 'nothing'}, not by "
        f"{', '.join(by) or 'nothing'} ({path} is there): give the same partition_by, or another root"
    )


def walk(root: Path) -> Iterator[tuple[tuple[str, ...], Sequence[Entry]]]:
    """Walk the partition folders of a dataset, outer before inner, sorted by name.

    Parameters
    ----------
    root : pathlib.Path
        The dataset's root; need not exist.

    Yields
    ------
    tuple of (tuple of str, sequence of Entry)
        The folder's path inside the root, as its parts, and the files in it. Only folders named
        ``column=value`` are entered: what else lies in the root is not of the dataset.
    """
    if is_remote(root):
        yield from _walk_remote(root)
        return
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(root.joinpath(*here)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):  # gone, by another segment's writer; or a file
            continue
        inner = [e.name for e in entries if _is_partition(e.name) and e.is_dir()]
        waiting.extend((*here, name) for name in reversed(inner))
        yield here, [e for e in entries if e.is_file()]


def _walk_remote(root: Path) -> Iterator[tuple[tuple[str, ...], Sequence[Entry]]]:
    try:
        tree = remote_tree(root)
    except OSError as error:
        raise DatasetError(f"cannot list {root}: {error}") from error
    for relative, entries in sorted(tree.items()):
        if all(_is_partition(name) for name in relative):
            yield relative, sorted(entries, key=lambda entry: entry.name)


def _is_partition(folder: str) -> bool:
    return "=" in folder and folder[0] not in "._"
