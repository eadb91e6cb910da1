"""The pipelines: a reader, processors and a writer; and the whole of a Coinbase segment."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import polars as pl

from cbtools.errors import ConfigError
from cbtools.etl.channels import Level2Processor
from cbtools.etl.config import ChannelConfig, of_channels, read_channel_config
from cbtools.etl.counts import Counted
from cbtools.etl.parsers import RawParser
from cbtools.etl.processors import Processor, ProcessorChain
from cbtools.etl.readers import BaseReader, NDJSONReader
from cbtools.etl.writers import BaseWriter
from cbtools.raw.files import segment_name
from cbtools.run.report import SegmentReport
from cbtools.run.segment import run_segment

_PATTERN: Final = re.compile(r"[*?\[]")
_UNFIT: Final = re.compile(r"[^\w.=%~+-]")


@dataclass(frozen=True)
class ETLPipeline:
    """Reads lazily, processes, and writes as a stream: memory is bounded, whatever the size of the data.

    Parameters
    ----------
    reader : BaseReader
        What gives the rows.
    processors : processor, or sequence of them
        `BaseProcessor` or functions of a lazy frame, in the order in which they are called. A `RawParser` is
        the first, and follows an `NDJSONReader`.
    writer : BaseWriter
        What takes the rows.

    Raises
    ------
    ConfigError
        If one of these is none.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> from cbtools.etl import NDJSONReader, ParquetWriter, RawParser
    >>> def large(trades):
    ...     return trades.filter(pl.col("size") > 1)
    >>> parser = RawParser(channel="market_trades")
    >>> pipeline = ETLPipeline(reader=NDJSONReader(), processors=[parser, large], writer=ParquetWriter())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = pipeline.execute(cb.sample_path(), folder, ["product_id", "date"])
    >>> written.rows == pipeline.get_stats()["writer"]["records_written"]
    True
    """

    reader: BaseReader
    processors: Processor | Sequence[Processor]
    writer: BaseWriter

    def __post_init__(self) -> None:
        for name, method in (("reader", "scan"), ("writer", "write")):
            if not callable(getattr(getattr(self, name), method, None)):
                raise ConfigError(f"{name} must have a method {method}, not be {getattr(self, name)!r}")
        for k, processor in enumerate(self.processor.processors):
            if isinstance(processor, RawParser) and (k or not isinstance(self.reader, NDJSONReader)):
                raise ConfigError(
                    "RawParser reads raw segments: it must be the first processor, behind an NDJSONReader"
                )

    @cached_property
    def processor(self) -> ProcessorChain:
        """The processors as one."""
        return ProcessorChain(self.processors)

    def execute(
        self,
        input_path: Any,
        output_path: str | os.PathLike[str],
        partition_cols: Sequence[str] | None = None,
        *,
        segment: str | None = None,
    ) -> Any:
        """Read, process and write.

        Parameters
        ----------
        input_path : path-like, or list of path-like
            What the reader is to read (None, where the reader knows).
        output_path : path-like
            Root of the dataset.
        partition_cols : sequence of str, optional
            Partition columns, as in `ParquetWriter.write`. None: one part in the root.
        segment : str, optional
            Names the parts that are written. By default the input's name: executed again, it replaces what
            had been written of an input of that name, and nothing else.

        Returns
        -------
        Written
            What the writer gives: of a `ParquetWriter` the parts, their rows and sizes.

        Raises
        ------
        ConfigError
            If the output is the input, a processor gives no frame, or a partition column is not known.
        SegmentError, DatasetError
            If the input cannot be read, or the output cannot be written.
        """
        if not isinstance(self.reader, NDJSONReader):
            _check_apart(input_path, Path(str(output_path)))
        name = _name_of(input_path, self.reader) if segment is None else segment
        return self.writer.write(self.scan(input_path), output_path, partition_cols, segment=name)

    def scan(self, input_path: Any = None) -> pl.LazyFrame:
        """Give the rows that `execute` writes, as a lazy frame.

        Parameters
        ----------
        input_path : path-like, or list of path-like
            What the reader is to read.

        Returns
        -------
        polars.LazyFrame
        """
        first, others = self.processor.processors[:1], self.processor.processors[1:]
        for parser in first:
            if isinstance(parser, RawParser) and isinstance(self.reader, NDJSONReader):
                markers = any(isinstance(one, Level2Processor) and one.rebuilds for one in others[:1])
                frame = parser.scan(input_path, self.reader, markers=markers)
                return ProcessorChain(others).follow(frame, [self.reader, parser])
        return self.processor.follow(self.reader.scan(input_path), [self.reader])

    def get_stats(self) -> dict[str, Any]:
        """Give the counts since the last `reset_stats`.

        Returns
        -------
        dict
            ``reader``, ``processor`` and ``writer``: the counts of each.
        """
        return {
            "reader": self.reader.get_stats(),
            "processor": self.processor.get_stats(),
            "writer": self.writer.get_stats(),
        }

    def reset_stats(self) -> None:
        """Have reader, processors and writer count from 0 again."""
        for one in (self.reader, self.processor, self.writer):
            one.reset_stats()


def _paths(source: Any) -> list[str]:
    """Give the paths of a source, as far as it names any."""
    if isinstance(source, str | os.PathLike):
        return [os.fspath(source)]
    return [path for one in source for path in _paths(one)] if isinstance(source, list | tuple) else []


def _check_apart(source: Any, output: Path) -> None:
    """Refuse to write among the files that are read: the new rows would stand beside the old."""
    root = output.absolute()
    for text in _paths(source):
        path = Path(_PATTERN.split(text)[0]).absolute()  # of a pattern, the folder that it begins in
        folder = path if path.is_dir() else path.parent
        deep = "**" in text or not _PATTERN.search(text)
        if folder.is_relative_to(root) or (deep and root.is_relative_to(path)):
            raise ConfigError(f"output_path {output} is not apart from the input {text}: give another folder")


def _name_of(source: Any, reader: BaseReader) -> str:
    """Name what is written by its input: a file or folder, and the partition that it lies in."""
    paths = _paths(source)
    if not paths:
        return f"{type(reader).__name__}-{_digest(reader, source)}"
    path = Path(paths[0]).absolute()
    stem = segment_name(path).removesuffix(".parquet").removesuffix(".csv").removeprefix("part_")
    told = "-".join([stem, *(part for part in path.parts[:-1] if "=" in part)])
    name = _UNFIT.sub("_", told)
    return name if len(paths) == 1 and name == told else f"{name}-{_digest(paths)}"


def _digest(*told: object) -> str:
    return sha256(repr(told).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class CoinbaseSegmentPipeline(Counted):
    """Turns raw segments into all their tables, by `cbtools.run_segment`; the segments stay where they are.

    Parameters
    ----------
    output_dir : path-like
        Root of the datasets.
    channel_config : mapping, optional
        As in `ETLJob`.

    Raises
    ------
    ConfigError
        If the configuration is not understood.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as out:
    ...     pipeline = CoinbaseSegmentPipeline(out)
    ...     report = pipeline.process_segment(sorted(cb.sample_path().iterdir())[0], channels=["ticker"])
    >>> report.rows["ticker"] == pipeline.get_stats()["ticker"]["writer"]["records_written"]
    True
    """

    output_dir: str | os.PathLike[str]
    channel_config: ChannelConfig | None = None

    def __post_init__(self) -> None:
        read_channel_config(self.channel_config)

    def process_segment(
        self, path: str | os.PathLike[str], channels: Collection[str] | None = None
    ) -> SegmentReport:
        """Turn a segment into tables; run again, it replaces what it had written.

        Parameters
        ----------
        path : path-like
            The raw segment: plain, gzip or zstd.
        channels : collection of str, optional
            Write only these tables.

        Returns
        -------
        SegmentReport
            What was found and what was written.

        Raises
        ------
        ConfigError
            If a channel is not known.
        SegmentError, DatasetError
            As `cbtools.run_segment`.
        """
        config = of_channels(read_channel_config(self.channel_config), channels)
        report = run_segment(path, self.output_dir, channel_config=config)
        self.stats["segments"] += 1
        self.stats["lines"] += report.raw.lines
        self.stats["errors"] += report.raw.rejected
        for table, written in report.written.items():
            markers = sum(report.raw.markers.values()) if table == "level2" else 0
            found = sum(report.raw.rows.get(table, {}).values()) + markers
            self.stats[f"{table} processed"] += found if table in report.raw.rows else written.rows
            self.stats[f"{table} written"] += written.rows
            self.stats[f"{table} files"] += len(written.parts)
        return report

    def get_stats(self) -> dict[str, Any]:
        """Give the counts of the tables since the last `reset_stats`.

        Returns
        -------
        dict
            Table → ``reader`` (records_read: lines of the segments; errors: those not understood),
            ``processor`` (records_processed) and ``writer`` (records_written, files_written).
        """
        lines = {"records_read": self.stats["lines"], "errors": self.stats["errors"]}
        tables = [name.removesuffix(" written") for name in self.stats if name.endswith(" written")]
        return {
            table: {
                "reader": dict(lines),
                "processor": {"records_processed": self.stats[f"{table} processed"]},
                "writer": {
                    "records_written": self.stats[f"{table} written"],
                    "files_written": self.stats[f"{table} files"],
                },
            }
            for table in tables
        }
