"""The readers: records of files, one after the other or as a lazy frame."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from cbtools.dataset import hive, scan_dataset
from cbtools.dataset.parquet import partition_dtypes
from cbtools.errors import ConfigError, DatasetError, SegmentError
from cbtools.etl.counts import Counted, count_rows
from cbtools.lazy import source as lazy_source
from cbtools.raw.decode import BYTE_ORDER_MARK
from cbtools.raw.files import Piece, Source, find_segments, read_pieces
from cbtools.raw.stream import CHUNK_BYTES
from cbtools.stores import as_place

LINES = pl.Schema({"segment": pl.String(), "line": pl.Int64(), "byte_offset": pl.Int64(), "raw": pl.Binary()})
"""The columns of `NDJSONReader.scan`."""

_PIECE_BYTES = CHUNK_BYTES // 8


class BaseReader(Counted):
    """A reader: a subclass overrides `scan`, or `read`, or both.

    Each is made of the other: `read` goes through the rows of `scan`, and `scan` makes a frame of the records
    of `read`, which are then held in memory.

    Examples
    --------
    >>> class Numbers(BaseReader):
    ...     def read(self, source):
    ...         yield from ({"n": n} for n in range(source))
    >>> Numbers().scan(3).collect()["n"].to_list()
    [0, 1, 2]
    """

    def read(self, source: Any) -> Iterator[dict[str, Any]]:
        """Go through the records.

        Parameters
        ----------
        source : path-like, or list of path-like
            What to read.

        Yields
        ------
        dict
            A record: column → value. Times are Python's, to the microsecond.
        """
        if type(self).scan is BaseReader.scan:
            raise ConfigError(f"{type(self).__name__} must override read(source) or scan(source)")
        for batch in self.scan(source).collect_batches(maintain_order=True):
            yield from batch.iter_rows(named=True)

    def scan(self, source: Any) -> pl.LazyFrame:
        """Scan the records lazily.

        Parameters
        ----------
        source : path-like, or list of path-like
            What to read.

        Returns
        -------
        polars.LazyFrame
        """
        if type(self).read is BaseReader.read:
            raise ConfigError(f"{type(self).__name__} must override read(source) or scan(source)")
        records = list(self.read(source))
        self.stats["records_read"] += len(records)
        return pl.LazyFrame(records, infer_schema_length=None)


@dataclass(frozen=True)
class NDJSONReader(BaseReader):
    """Reads raw segments: plain, gzip or zstd.

    In an `ETLPipeline` a `RawParser` behind it makes tables of the segments. Counted are ``files_processed``,
    ``records_read`` (lines) and ``errors`` (lines that are not understood).

    Parameters
    ----------
    strict : bool
        Raise at the first line that is not understood, where it would else be counted.

    Examples
    --------
    >>> import cbtools as cb
    >>> reader = NDJSONReader()
    >>> sum(1 for record in reader.read(cb.sample_path()) if record["data"]["channel"] == "market_trades")
    886
    >>> reader.get_stats()["errors"]
    2
    """

    strict: bool = False

    def read(self, source: Source) -> Iterator[dict[str, Any]]:
        """Go through the raw messages, as JSON; whether they can be meant, a parser tells.

        Parameters
        ----------
        source : path-like, or list of path-like
            As in `cbtools.scan_raw`.

        Yields
        ------
        dict
            A line.

        Raises
        ------
        SegmentError
            If the source names no file, a file cannot be read, or (strict) a line is no JSON object.
        """
        paths = find_segments(source)
        return self._records(paths)

    def _records(self, paths: list[Path]) -> Iterator[dict[str, Any]]:
        for path in paths:
            self.stats["files_processed"] += 1
            for piece, first in _numbered(path):
                for k, raw in enumerate(_lines(piece)):
                    self.stats["records_read"] += 1
                    try:
                        record = orjson.loads(raw.removeprefix(BYTE_ORDER_MARK))
                        reason = piece.fault or ("" if isinstance(record, dict) else "not an object")
                    except orjson.JSONDecodeError as error:
                        record, reason = None, piece.fault or f"not JSON: {error}"
                    if reason:
                        self._refuse(path, first + k, reason)
                    else:
                        yield record
                if piece.damage:
                    self._refuse(path, first + k + 1 if piece.size else first, f"damaged: {piece.damage}")

    def _refuse(self, path: Path, line: int, reason: str) -> None:
        self.stats["errors"] += 1
        if self.strict:
            raise SegmentError(f"{path}, line {line}: {reason}; without strict=True it would be counted")

    def scan(self, source: Source) -> pl.LazyFrame:
        """Scan the lines lazily, as they are.

        Parameters
        ----------
        source : path-like, or list of path-like
            As in `cbtools.scan_raw`, which makes a table of the lines of a channel.

        Returns
        -------
        polars.LazyFrame
            ``segment`` (String), ``line`` (Int64, from 1), ``byte_offset`` (Int64, in the decompressed
            segment) and ``raw`` (Binary, without the newline).

        Raises
        ------
        SegmentError
            If the source names no file (at once), or a file cannot be read to its end (when the query runs).
        """
        paths = find_segments(source)

        def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            stats = self.stats
            for path in paths:
                stats["files_processed"] += 1
                for piece, first in _numbered(path):
                    if piece.damage:
                        raise SegmentError(f"{path} is damaged behind line {first - 1}: {piece.damage}")
                    if piece.fault:
                        raise SegmentError(f"{path}, line {first}: {piece.fault}")
                    yield _frame_of(piece, first)

        return count_rows(lazy_source(batches, LINES, "LINES"), lambda: self.stats, "records_read")


def _numbered(path: Path) -> Iterator[tuple[Piece, int]]:
    """Give the pieces of a segment, each with the number of its first line."""
    first = 1
    for piece in read_pieces(path, _PIECE_BYTES):
        yield piece, first
        first += len(_lines(piece))


def _lines(piece: Piece) -> list[bytes]:
    return piece.buffer[: piece.size].tobytes().removesuffix(b"\n").split(b"\n") if piece.size else []


def _frame_of(piece: Piece, first: int) -> pl.DataFrame:
    raw = pl.Series("raw", _lines(piece), pl.Binary)
    ends = (raw.bin.size().cast(pl.Int64) + 1).cum_sum()
    lines = pl.int_range(first, first + len(raw), eager=True)
    return pl.DataFrame(
        {
            "segment": pl.repeat(piece.segment, len(raw), eager=True),
            "line": lines,
            "byte_offset": piece.offset + ends.shift(1, fill_value=0),
            "raw": raw,
        },
        schema=LINES,
    )


@dataclass(frozen=True)
class ParquetReader(BaseReader):
    """Reads Parquet: a dataset of ours, any folder of files, a pattern, or one file.

    Counted are ``records_read``.

    Parameters
    ----------
    use_polars : bool
        Kept for code that was written for the earlier package: Polars reads in either case, lazily.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cb.write_dataset(pl.DataFrame({"k": ["a", "b"], "x": [1, 2]}), folder, partition_by="k")
    ...     list(ParquetReader().read(folder))
    [{'x': 1, 'k': 'a'}, {'x': 2, 'k': 'b'}]
    """

    use_polars: bool = True

    def scan(self, source: str | os.PathLike[str]) -> pl.LazyFrame:
        """Scan the rows lazily: a query opens only the files that it needs.

        Parameters
        ----------
        source : path-like
            The folder of a dataset, which `cbtools.scan_dataset` reads; any other folder, a pattern or a
            file, with ``column=value`` folders as columns.

        Returns
        -------
        polars.LazyFrame

        Raises
        ------
        DatasetError
            If there are no Parquet files.
        """
        return count_rows(_scan_parquet(source), lambda: self.stats, "records_read")


def _scan_parquet(source: str | os.PathLike[str]) -> pl.LazyFrame:
    text, path = str(source), as_place(source)
    if path.is_dir():
        if any(hive.segment_of(entry.name) for _, files in hive.walk(path) for entry in files):
            return scan_dataset(path)
        files = sorted(str(file) for file in path.rglob("*.parquet"))
        if not files:
            raise DatasetError(f"no Parquet in {text}: none of its files ends in .parquet")
        return pl.scan_parquet(files, glob=False, hive_partitioning=True)
    if path.is_file():
        types: Mapping[str, pl.DataType] = {}
        if path.suffix == ".parquet" and any("=" in part for part in path.parts):
            types = partition_dtypes(pl.read_parquet_metadata(str(path)))
        return pl.scan_parquet(str(path), glob=False, hive_partitioning=True, hive_schema=dict(types) or None)
    frame = pl.scan_parquet(text, hive_partitioning=True)
    try:
        frame.collect_schema()
    except (FileNotFoundError, pl.exceptions.ComputeError) as error:
        raise DatasetError(f"no Parquet in {text}: {error}") from error
    return frame


@dataclass(frozen=True)
class CSVReader(BaseReader):
    r"""Reads CSV files with a header: plain, gzip or zstd.

    Counted are ``records_read``.

    Parameters
    ----------
    separator : str
        What stands between two fields.
    schema : mapping of str to polars.DataType, optional
        Dtypes of columns; those of the others are inferred from the first 10,000 rows. A field that is not of
        its column's dtype makes the query fail.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.csv").write_text("product_id,price\nBTC-USD,64000.5\n")
    ...     list(CSVReader().read(f"{folder}/a.csv"))
    [{'product_id': 'BTC-USD', 'price': 64000.5}]
    """

    separator: str = ","
    schema: Mapping[str, Any] | None = None

    def scan(self, source: Source) -> pl.LazyFrame:
        """Scan the rows lazily.

        Parameters
        ----------
        source : path-like, or list of path-like
            A file, a pattern, or a list of files.

        Returns
        -------
        polars.LazyFrame

        Raises
        ------
        DatasetError
            If there is no such file.
        """
        paths = [str(p) for p in source] if isinstance(source, list | tuple) else str(source)
        frame = pl.scan_csv(
            paths,
            separator=self.separator,
            schema_overrides=dict(self.schema) if self.schema else None,
            infer_schema_length=10_000,
            try_parse_dates=True,
        )
        try:
            return count_rows(frame, lambda: self.stats, "records_read")
        except (FileNotFoundError, pl.exceptions.ComputeError) as error:
            raise DatasetError(f"cannot read {source}: {error}") from error
