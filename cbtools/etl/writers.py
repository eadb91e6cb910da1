"""The writers: frames or records → a partitioned dataset."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from cbtools.dataset import Written, write_dataset
from cbtools.errors import ConfigError
from cbtools.etl.counts import Counted

Data = pl.LazyFrame | pl.DataFrame | Sequence[Mapping[str, Any]]
"""Rows: a Polars frame, or a list of records."""


class BaseWriter(Counted):
    """A writer: a subclass overrides `write`.

    Examples
    --------
    >>> class Shower(BaseWriter):
    ...     def write(self, data, output_path, partition_cols=None, *, segment=None):
    ...         print(data.collect().height, "rows for", output_path)
    >>> Shower().write(pl.LazyFrame({"x": [1, 2]}), "nowhere")
    2 rows for nowhere
    """

    def write(
        self,
        data: Any,
        output_path: Any,
        partition_cols: Sequence[str] | None = None,
        *,
        segment: str | None = None,
    ) -> Any:
        """Write rows.

        Parameters
        ----------
        data : polars.LazyFrame, polars.DataFrame or list of dict
            The rows; an `ETLPipeline` gives a lazy frame.
        output_path : path-like
            Where to.
        partition_cols : sequence of str, optional
            Partition columns, outermost first.
        segment : str, optional
            Names what is written: written again, it replaces what was written under this name.
        """
        raise ConfigError(f"{type(self).__name__} must override write(data, output_path, partition_cols)")


@dataclass(frozen=True)
class ParquetWriter(BaseWriter):
    """Writes partitioned Parquet, by `cbtools.write_dataset`.

    A lazy frame is streamed, in bounded memory. Counted are ``records_written``, ``files_written`` and
    ``bytes_written``.

    Parameters
    ----------
    compression : {"zstd"}
        Kept for code that was written for the earlier package: a dataset's parts are zstd.

    Raises
    ------
    ConfigError
        If another compression is asked for.

    Examples
    --------
    >>> import tempfile
    >>> writer, rows = ParquetWriter(), [{"k": "a", "x": 1}, {"k": "b", "x": 2}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = writer.write(rows, folder, ["k"], segment="s1")
    ...     [part.path.relative_to(folder).as_posix() for part in written.parts]
    ['k=a/part_s1.parquet', 'k=b/part_s1.parquet']
    >>> writer.get_stats()["records_written"]
    2
    """

    compression: Literal["zstd"] = "zstd"

    def __post_init__(self) -> None:
        if self.compression != "zstd":
            raise ConfigError(
                f"compression must be 'zstd', as in every part of ours, not {self.compression!r}"
            )

    def write(
        self,
        data: Data,
        output_path: str | os.PathLike[str],
        partition_cols: Sequence[str] | None = None,
        *,
        segment: str | None = None,
    ) -> Written:
        """Write rows into a dataset; they appear at the end, all of them.

        Parameters
        ----------
        data : polars.LazyFrame, polars.DataFrame or list of dict
            The rows.
        output_path : path-like
            Root of the dataset.
        partition_cols : sequence of str, optional
            Partition columns, outermost first: columns of the frame, or ``"date"`` and ``"hour"``, derived as
            in `cbtools.write_dataset`. None: one part in the root.
        segment : str, optional
            Names the parts: what was written under this name before is replaced. By default a new name, so
            that each call adds its rows.

        Returns
        -------
        Written
            The parts, their rows and sizes.

        Raises
        ------
        ConfigError
            If the rows are no frame and no list of dicts, or a partition column is not known.
        DatasetError
            If the dataset is partitioned by other columns already.
        """
        columns = [] if partition_cols is None else partition_cols
        name = f"data-{secrets.token_hex(8)}" if segment is None else segment
        written = write_dataset(_frame_of(data), output_path, partition_by=columns, segment=name)
        self.stats["records_written"] += written.rows
        self.stats["files_written"] += len(written.parts)
        self.stats["bytes_written"] += written.bytes
        return written


def _frame_of(data: Data) -> pl.LazyFrame | pl.DataFrame:
    if isinstance(data, pl.LazyFrame | pl.DataFrame):
        return data
    listed = isinstance(data, Sequence) and not isinstance(data, str | bytes)
    if not listed or not all(isinstance(record, Mapping) for record in data):
        raise ConfigError(f"data must be a Polars frame or a list of dicts, not {type(data).__name__}")
    if not data:
        raise ConfigError("data is an empty list, which names no columns: give a frame, or do not write")
    return pl.DataFrame(data, infer_schema_length=None)
