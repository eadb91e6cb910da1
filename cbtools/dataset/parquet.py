"""One Parquet file of a dataset: encodings, sizes, statistics and what its footer tells about the columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import polars as pl

from cbtools.dataset import hive
from cbtools.errors import DatasetError
from cbtools.schema import SCHEMA_VERSION, Column, columns

ROW_GROUP_BYTES: Final = 48 << 20
ROW_GROUP_ROWS: Final = 131_072
"""A row group has this many rows, or fewer of a wide table: it should fit `ROW_GROUP_BYTES` in memory."""

_FEWEST_ROWS = 8_192
_TEXT_BYTES = 32  # what a text or list is taken to need, in a row
_WIDE = 16  # columns of numbers
_DICTIONARY_BYTES = 256 << 10  # 32 thousand numbers; more are as small and three times as fast without


def encoding(name: str, dtype: pl.DataType, *, table: str | None = None, wide: bool = False) -> str:
    """Choose the encoding of a column: the one table of encodings.

    Times and counters rise by small steps: differences. Sizes, sides and names are few and repeat: a
    dictionary (pyarrow falls back to plain values where they are not few). The rest as it comes; so does what
    repeats from row to row, which zstd alone sees, and the file is smaller and written sooner: the numbers of
    a wide table, as of the book's levels, those of trades, and in level2 what its rows have of their message.
    """
    if (table, name) in _REPEATING or (dtype.is_float() and (wide or table == "market_trades")):
        return "PLAIN"
    if dtype in (pl.Int128, pl.UInt128):
        return "PLAIN"
    if dtype.is_integer() or dtype.is_temporal():
        return "DELTA_BINARY_PACKED"
    if dtype.is_float() or dtype in (pl.String, pl.Enum, pl.Categorical, pl.List(pl.String)):
        return "dictionary"
    return "PLAIN"


_REPEATING: Final = {
    ("level2", name) for name in ("price", "server_time", "capture_time", "connection", "unbroken_since")
}


def row_bytes(schema: Mapping[str, pl.DataType]) -> int:
    """Give what a row needs in memory, roughly, texts and lists apart from their length."""
    return sum(_BYTES.get(dtype.base_type(), _TEXT_BYTES) for dtype in schema.values())


_BYTES: dict[Any, int] = {pl.Boolean: 1, pl.Int8: 1, pl.UInt8: 1, pl.Int16: 2, pl.UInt16: 2, pl.Enum: 4}
_BYTES |= dict.fromkeys((pl.Int32, pl.UInt32, pl.Float32, pl.Date, pl.Categorical), 4)
_BYTES |= dict.fromkeys((pl.Int64, pl.UInt64, pl.Float64, pl.Datetime, pl.Duration, pl.Time), 8)


def row_group_rows(schema: Mapping[str, pl.DataType]) -> int:
    """Give the rows of a row group: of the columns alone, so that no cut of the input moves its borders."""
    return max(_FEWEST_ROWS, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES // max(1, row_bytes(schema))))


def footer(
    *, segment: str, table: str | None, columns: Iterable[Column], partition_by: Mapping[str, pl.DataType]
) -> dict[str, str]:
    """Make a part's key-value metadata: which table and columns, by which program, of which segment."""
    entries = {
        "cbtools.version": package_version(),
        "cbtools.segment": segment,
        "cbtools.partition_by": _json({name: _dtype_name(dtype) for name, dtype in partition_by.items()}),
    }
    if table is not None:
        entries["cbtools.table"] = table
        entries["cbtools.schema_version"] = str(SCHEMA_VERSION)
        entries["cbtools.columns"] = _json([_described(column) for column in columns])
    return entries


def _described(c: Column) -> dict[str, object]:
    return {"name": c.name, "dtype": str(c.dtype), "unit": c.unit, "meaning": c.meaning, "null": c.null}


def check_version(metadata: Mapping[str, str], path: object) -> None:
    """Check that a part is of today's schema version, if it is of a table that has versions.

    Rows of an older version lack what today's readers rely on, and nothing in them would show it.

    Parameters
    ----------
    metadata : mapping of str to str
        The part's key-value metadata.
    path : object
        The part, for the message.

    Raises
    ------
    DatasetError
        If it is of another version.
    """
    version = int(metadata.get("cbtools.schema_version", SCHEMA_VERSION))
    if version < SCHEMA_VERSION:
        raise DatasetError(
            f"{path} is of schema version {version}, and this cbtools reads version {SCHEMA_VERSION}, whose "
            "tables have columns and rows that are not in it: run its segments again, into an empty folder"
        )
    if version > SCHEMA_VERSION:
        raise DatasetError(
            f"{path} is of schema version {version}, and this cbtools reads version {SCHEMA_VERSION}: "
            "install a newer one"
        )


def columns_told(table: str, present: Iterable[str], before: str) -> str:
    """Describe columns anew, as far as the table has them today; others as they were described before."""
    known = {c["name"]: c for c in json.loads(before)}
    known |= {column.name: _described(column) for column in columns(table)}
    return _json([known[name] for name in present if name in known])


def _dtype_name(dtype: pl.DataType) -> str | list[str]:
    """Name a partition column's dtype: an Enum by its categories."""
    if isinstance(dtype, pl.Enum):
        return dtype.categories.to_list()
    return "String" if isinstance(dtype, pl.Categorical) else str(dtype)


def partition_dtypes(footer: Mapping[str, str]) -> dict[str, pl.DataType]:
    """Read the dtypes of the partition columns from a part's key-value metadata, as far as noted."""
    named: dict[str, str | list[str]] = json.loads(footer.get("cbtools.partition_by", "{}"))
    return {
        name: pl.Enum(kind) if isinstance(kind, list) else hive.DTYPES.get(kind, pl.String())
        for name, kind in named.items()
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@cache
def package_version() -> str:
    """Give the version of cbtools ("unknown" where it runs without being installed)."""
    try:
        return version("cbtools")
    except PackageNotFoundError:
        return "unknown"


class Format:
    """How the parts of a writer are written: columns, encodings, footer; built once for all of them.

    Columns that are never null say so, which spares a mark for each value.
    """

    def __init__(
        self,
        schema: pl.Schema,
        *,
        metadata: Mapping[str, str],
        sorted_by: list[str],
        never_null: Collection[str] = (),
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq  # 50 ms, which `import cbtools` need not pay

        table = metadata.get("cbtools.table")
        wide = sum(dtype.is_float() for dtype in schema.values()) > _WIDE
        ways = {name: encoding(name, dtype, table=table, wide=wide) for name, dtype in schema.items()}
        names = list(schema)
        self.metadata = dict(metadata)
        self.arrow_schema = pa.schema(
            [
                field.with_nullable(field.name not in never_null)
                for field in _arrow_fields(tuple(schema.items()))
            ]
        )
        self.options = {
            "compression": "zstd",
            "compression_level": 1,
            "use_dictionary": [_leaf(name, schema[name]) for name in names if ways[name] == "dictionary"],
            "column_encoding": {name: way for name, way in ways.items() if way == "DELTA_BINARY_PACKED"},
            "dictionary_pagesize_limit": _DICTIONARY_BYTES,
            "sorting_columns": [pq.SortingColumn(names.index(name), nulls_first=True) for name in sorted_by]
            or None,
        }


class PartFile:
    """A Parquet file being written, a row group a call."""

    def __init__(self, path: Path, form: Format) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.rows = 0
        self._form = form
        self._out = pq.ParquetWriter(path, form.arrow_schema, **form.options)

    def write(self, frame: pl.DataFrame) -> None:
        """Write a frame as one row group."""
        import pyarrow as pa

        table = pa.Table.from_arrays(_arrow(frame).columns, schema=self._form.arrow_schema)
        self._out.write_table(table, row_group_size=max(1, frame.height))
        self.rows += frame.height

    def close(self) -> None:
        """Write the footer."""
        self._out.add_key_value_metadata(self._form.metadata)
        self._out.close()

    def abandon(self) -> None:
        """Close the file, whatever it holds: it is about to be removed."""
        self._out.close()


@lru_cache(maxsize=64)
def _arrow_fields(columns: tuple[tuple[str, pl.DataType], ...]) -> list[Any]:
    """Return the Arrow fields of columns. Making them each time took a seventh of a small segment's time."""
    return list(_arrow(pl.DataFrame(schema=dict(columns))).schema)


def _arrow(frame: pl.DataFrame) -> Any:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())  # text views are not for every reader


def _leaf(name: str, dtype: pl.DataType) -> str:
    return f"{name}.list.element" if isinstance(dtype, pl.List) else name
