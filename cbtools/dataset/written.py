"""What a run wrote, to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cbtools.dataset import hive


@dataclass(frozen=True)
class Part:
    """A file of a dataset: its path, its rows, its size in bytes and its partition's values."""

    path: Path
    rows: int
    bytes: int
    values: Mapping[str, hive.Value]


class Headed:
    """Shows itself as a headline and, where it has rows, a table."""

    def _headline(self) -> str:
        raise NotImplementedError

    def _table(self) -> pl.DataFrame:
        raise NotImplementedError

    def __repr__(self) -> str:
        table = self._table()
        return self._headline() if table.is_empty() else f"{self._headline()}\n{table}"

    def _repr_html_(self) -> str:
        table = self._table()
        return f"<p>{self._headline()}</p>" + ("" if table.is_empty() else table._repr_html_())


@dataclass(frozen=True, repr=False)
class Written:
    """What a run wrote: the parts, in the order of their paths, and the parts removed as out of date."""

    parts: tuple[Part, ...]
    removed: tuple[Path, ...] = ()

    @property
    def rows(self) -> int:
        """Rows written."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes written."""
        return sum(part.bytes for part in self.parts)

    def to_frame(self) -> pl.DataFrame:
        """Give the parts as a frame: the partition columns (String), ``file``, ``rows`` and ``bytes``."""
        names = list(self.parts[0].values) if self.parts else []
        texts = [[hive.text_of(value) for value in part.values.values()] for part in self.parts]
        return pl.DataFrame(
            [
                (*values, part.path.name, part.rows, part.bytes)
                for values, part in zip(texts, self.parts, strict=True)
            ],
            schema={**dict.fromkeys([*names, "file"], pl.String), "rows": pl.Int64, "bytes": pl.Int64},
            orient="row",
        )

    def _headline(self) -> str:
        removed = f", {len(self.removed)} out of date removed" if self.removed else ""
        parts = "1 part" if len(self.parts) == 1 else f"{len(self.parts):,} parts"
        return f"{self.rows:,} rows in {parts}, {self.bytes:,} bytes{removed}"

    def __repr__(self) -> str:
        if not self.parts:
            return self._headline()
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, fmt_str_lengths=60):
            return f"{self._headline()}\n{self.to_frame()}"

    def _repr_html_(self) -> str:
        if not self.parts:
            return f"<p>{self._headline()}</p>"
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, fmt_str_lengths=60):
            return f"<p>{self._headline()}</p>{self.to_frame()._repr_html_()}"
