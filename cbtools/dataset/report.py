"""What a dataset holds, as its files' footers tell: partitions, rows, bytes, times, and what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from cbtools.dataset import hive
from cbtools.dataset.listing import datasets_under, partitions_in
from cbtools.errors import DatasetError
from cbtools.schema import NULL_FOLDER, TIME
from cbtools.stores import as_place, open_bytes, tells_trouble

PARTITIONS: Final = pl.Schema(
    {
        "table": pl.String(),
        "partition": pl.String(),
        **dict.fromkeys(("parts", "rows", "bytes"), pl.Int64()),
        **dict.fromkeys(("first_time", "last_time"), TIME),
    }
)
HOLES: Final = pl.Schema({"table": pl.String(), "partition": pl.String(), "missing": pl.String()})
_CLOCK: Final = "server_time"
_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000}
_SPANS: Final = {"date": "1d", "hour": "1h"}


@dataclass(frozen=True, repr=False)
class DatasetReport:
    """What `dataset_report` found.

    Attributes
    ----------
    partitions : polars.DataFrame
        A row a partition: ``table``, the dataset's folder; ``partition``, its values as in the path;
        ``parts``, ``rows`` and ``bytes``; ``first_time`` and ``last_time``, by server_time; null where the
        files have none.
    holes : polars.DataFrame
        A row a partition that is missing between the first and the last one of its kind: of datasets that
        are divided by date, the days, or by date and hour, the hours. ``partition`` are the other values.
    """

    partitions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PARTITIONS))
    holes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=HOLES))

    def to_frame(self) -> pl.DataFrame:
        """Give a row a table: its partitions, parts, rows, bytes, times and holes."""
        tables = self.partitions.group_by("table", maintain_order=True).agg(
            pl.len().cast(pl.Int64).alias("partitions"),
            pl.sum("parts", "rows", "bytes"),
            pl.min("first_time"),
            pl.max("last_time"),
        )
        holes = self.holes.group_by("table").agg(pl.len().cast(pl.Int64).alias("holes"))
        return tables.join(holes, on="table", how="left", maintain_order="left").with_columns(
            pl.col("holes").fill_null(0)
        )

    def __repr__(self) -> str:
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_width_chars=160, tbl_rows=40):
            return str(self.to_frame())

    def _repr_html_(self) -> str:
        return self.to_frame()._repr_html_()


@tells_trouble
def dataset_report(root: str | os.PathLike[str], table: str | None = None) -> DatasetReport:
    """Tell what a dataset holds, by its files' names and footers: no row is read.

    Parameters
    ----------
    root : str or os.PathLike
        Folder of the dataset; or of several, such as a job's output: then all of them, or that of `table`.
    table : str, optional
        Name of the dataset's folder in `root`.

    Returns
    -------
    DatasetReport

    Raises
    ------
    DatasetError
        If there is no dataset, or a footer cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from cbtools.dataset import write_dataset
    >>> frame = pl.DataFrame({"product_id": ["A-B", "C-D", "C-D"], "price": [1.0, 2.0, 3.0]})
    >>> with tempfile.TemporaryDirectory() as root:
    ...     written = write_dataset(frame, root, partition_by="product_id", segment="s1")
    ...     dataset_report(root).partitions.select("partition", "parts", "rows").rows()
    [('product_id=A-B', 1, 1), ('product_id=C-D', 1, 2)]
    """
    rows: list[tuple[Any, ...]] = []
    holes: list[tuple[str, str, str]] = []
    for folder in datasets_under(as_place(root), table):
        there = []
        for relative, parts in partitions_in(folder):
            there.append(relative)
            paths = [as_place(entry.path) for entry in parts.counting]
            rows.append((folder.name, "/".join(relative), len(paths), *_told(paths)))
        holes += [(folder.name, *hole) for hole in _holes(there)]
    return DatasetReport(
        pl.DataFrame(rows, schema=PARTITIONS, orient="row"), pl.DataFrame(holes, schema=HOLES, orient="row")
    )


def _told(paths: list[Path]) -> tuple[int, int, int | None, int | None]:
    """Give rows, bytes and the ends of the times, nanoseconds, by the footers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, size, ends = 0, 0, []
    for path in paths:
        try:
            with open_bytes(path) as file:
                metadata = pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{path} cannot be read: {error}. Run its segment again") from error
        rows += metadata.num_rows
        size += path.stat().st_size
        names = metadata.schema.names
        if _CLOCK in names:
            column = names.index(_CLOCK)
            ns = _NS[metadata.schema.to_arrow_schema().field(_CLOCK).type.unit]
            for i in range(metadata.num_row_groups):
                told = metadata.row_group(i).column(column).statistics
                if told is not None and told.has_min_max:
                    ends += [told.min_raw * ns, told.max_raw * ns]
    return rows, size, min(ends, default=None), max(ends, default=None)


def _holes(there: list[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Give what is missing between the first and the last day, or hour, of each group of partitions."""
    groups: dict[str, list[datetime]] = {}
    span = ""
    for relative in there:
        values = dict(
            zip(hive.names_of(relative), (part.partition("=")[2] for part in relative), strict=True)
        )
        timed = [name for name in _SPANS if name in values]
        if "date" not in timed or NULL_FOLDER in (values[name] for name in timed):
            continue
        span = _SPANS[timed[-1]]
        other = "/".join(part for part in relative if part.partition("=")[0] not in timed)
        hour = int(values.get("hour", 0))
        groups.setdefault(other, []).append(datetime.fromisoformat(values["date"]).replace(hour=hour))
    for other, moments in groups.items():
        expected = pl.datetime_range(min(moments), max(moments), span, eager=True)
        for moment in expected.filter(~expected.is_in(moments)):
            yield other, f"{moment:%F}" if span == "1d" else f"{moment:%F %H}"
