"""A frame before it is written: whether its columns fit, and which rows go to which partition."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import polars as pl

from cbtools.dataset import hive
from cbtools.errors import DatasetError, unknown_name
from cbtools.schema import DERIVED, Column

DERIVED_DTYPES: Final = {column.name: pl.Schema({"x": column.dtype})["x"] for column in DERIVED}
"""Dtypes of the partition columns that a frame need not have."""

_CLOCKS = ("server_time", "capture_time")
_FEW = 64
_PLACE = "__place"
_HOUR = {"ns": 3600 * 10**9, "us": 3600 * 10**6, "ms": 3600 * 10**3}


def check_columns(table: str | None, columns: Sequence[Column], schema: Mapping[str, pl.DataType]) -> None:
    """Raise a DatasetError unless the columns of the table are there, with their dtypes."""
    missing = [column.name for column in columns if column.name not in schema]
    if missing:
        raise DatasetError(
            f"{table} needs {', '.join(missing)}, which the frame does not have: {', '.join(schema)}"
        )
    wanted = {column.name: column.dtype for column in columns} | (DERIVED_DTYPES if columns else {})
    for name, dtype in wanted.items():
        if name in schema and schema[name] != dtype:
            raise DatasetError(f"{table}.{name} is {schema[name]}, but must be {dtype}: cast it")


def check_same(first: pl.Schema, schema: pl.Schema) -> None:
    """Raise a DatasetError unless a frame has the columns of the first one."""
    if schema == first or dict(schema) == dict(first):
        return
    changes = [f"{name} is missing" for name in first if name not in schema]
    changes += [f"{name} is new" for name in schema if name not in first]
    changes += [
        f"{name} is {schema[name]} and was {dtype}"
        for name, dtype in first.items()
        if name in schema and schema[name] != dtype
    ]
    raise DatasetError(f"the columns differ from those of the frames before: {'; '.join(changes)}")


def check_same_columns(root: Path, table: str | None, part: Path, kept: pl.Schema, *, besides: str) -> None:
    """Refuse columns that another segment's part has not: a null there would be taken for a value's.

    ``besides`` is a column that the part may have, and the rows have not.
    """
    there = pl.scan_parquet(str(part), glob=False, hive_partitioning=False).collect_schema()
    there.pop(besides, None)
    differing = [name for name in {**there, **kept} if (name in there) != (name in kept)]
    if differing:
        more = f" and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise DatasetError(
            f"{root} holds {table} with other columns: {', '.join(differing[:6])}{more} are "
            f"either in {part} or here. Write with the same options, or to another root"
        )


def arranged(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Put a frame's columns in order; they nearly always are, and a query takes time that does nothing."""
    return frame if frame.columns == schema.names() else frame.select(schema.names())


def check_nulls(table: str | None, columns: Sequence[Column], frame: pl.DataFrame) -> None:
    """Raise a DatasetError if a column that is never null holds a null."""
    for column in columns:
        if not column.null and (count := frame[column.name].null_count()):
            raise DatasetError(
                f"{table}.{column.name} is never null, but {count:,} of {frame.height:,} rows have none: "
                "drop these rows, or find out where they come from"
            )


def partition_dtypes(by: Sequence[str], schema: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """Give the dtypes of the partition columns.

    Raises
    ------
    ConfigError
        If one is neither in the frame nor derived, or cannot be a folder.
    """
    timed = any(isinstance(schema.get(clock), pl.Datetime) for clock in _CLOCKS)
    known = {**(DERIVED_DTYPES if timed else {}), **schema}
    for name in by:
        if name not in known:
            raise unknown_name("partition column", name, [*schema, *known])
        hive.check_column(name, known[name])
    return {name: known[name] for name in by}


def keys_of(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Give the partition columns of a frame, those it has and those derived; one row if all are alike."""
    keys = [_key(name, frame) for name in by]
    if all(len(key) == 1 for key in keys):
        return pl.DataFrame(keys)
    return pl.DataFrame([key if len(key) > 1 else key.new_from_index(0, frame.height) for key in keys])


def without(frame: pl.DataFrame, by: Collection[str]) -> pl.DataFrame:
    """Leave out columns, which a query would take ten times as long to do."""
    return pl.DataFrame([column for column in frame.iter_columns() if column.name not in by])


class Undivided:
    """Rows that wait to be divided by partitions together: it costs by columns and parts, not by rows."""

    def __init__(self) -> None:
        self._bytes = 0
        self._keys: list[pl.DataFrame] = []
        self._rows: list[pl.DataFrame] = []

    def __len__(self) -> int:
        return len(self._rows)

    def exceeds(self, n_bytes: int) -> bool:
        """Tell whether more bytes wait, or so many frames that they need more than their rows."""
        return self._bytes > n_bytes or len(self) > _FEW

    def add(self, keys: pl.DataFrame, rows: pl.DataFrame, n_bytes: int) -> None:
        """Take rows, which need so many bytes, and their partitions."""
        if keys.height < rows.height:
            keys = pl.DataFrame([key.new_from_index(0, rows.height) for key in keys.iter_columns()])
        self._keys.append(keys)
        self._rows.append(rows)
        self._bytes += n_bytes

    def divide(self) -> Iterator[tuple[tuple[hive.Value, ...], pl.DataFrame]]:
        """Divide all rows that wait.

        Yields
        ------
        tuple of (tuple, polars.DataFrame)
            The partition's values and its rows, in their order. The frames are cut from one, which lives as
            long as any of them.
        """
        if not self._rows:
            return
        keys, rows = pl.concat(self._keys), pl.concat(self._rows, rechunk=True)
        self._keys, self._rows, self._bytes = [], [], 0
        places, at = _places(keys), 0
        rows = rows[places.explode()]
        for of_partition in places:
            yield cast("tuple[hive.Value, ...]", keys.row(of_partition[0])), rows.slice(at, len(of_partition))
            at += len(of_partition)


def _places(keys: pl.DataFrame) -> pl.Series:
    """Give the places of each partition's rows, the partitions by their first rows."""
    telling = [name for name in keys.columns if not _is_constant(keys[name])] or keys.columns[:1]
    texts = pl.col(pl.String, pl.Categorical, pl.Enum)  # as numbers they are quicker to tell apart
    numbers = keys.select(telling).with_columns(texts.cast(pl.Categorical()).to_physical())
    return numbers.with_row_index(_PLACE).group_by(telling, maintain_order=True).agg(_PLACE)[_PLACE]


def _is_constant(keys: pl.Series) -> bool:
    if keys.null_count():
        return bool(keys.is_null().all())
    return not keys.len() or bool((keys == keys[0]).all())


def _key(name: str, frame: pl.DataFrame) -> pl.Series:
    """Give a partition column of a frame with rows; its first value alone if all are seen to be alike."""
    if name in frame.columns:
        key = frame[name]
        return key.head(1) if _is_constant(key) else key
    clocks = [clock for clock in _CLOCKS if clock in frame.columns]
    first = frame[clocks[0]]
    if isinstance(first.dtype, pl.Datetime) and not first.null_count():
        ticks, unit = first.to_physical(), _HOUR[first.dtype.time_unit] * (24 if name == "date" else 1)
        low, high = (cast("int", end) // unit for end in (ticks.min(), ticks.max()))
        if low == high:
            value = pl.Series(name, [low if name == "date" else low % 24], pl.Int32)
            return value.cast(DERIVED_DTYPES[name])
    clock = pl.coalesce(_in_utc(pl.col(clock), frame.schema[clock]) for clock in clocks)
    part = clock.dt.date() if name == "date" else clock.dt.hour().cast(DERIVED_DTYPES["hour"])
    return frame.select(part.alias(name)).to_series()


def _in_utc(clock: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Take a time to UTC; one without a zone is taken as UTC."""
    zone = dtype.time_zone if isinstance(dtype, pl.Datetime) else None
    return clock.dt.replace_time_zone("UTC") if zone is None else clock.dt.convert_time_zone("UTC")
