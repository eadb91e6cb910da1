"""Parts of an older schema version → the version of today, part by part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from cbtools import schema
from cbtools.dataset import hive, order
from cbtools.dataset.compacted import SEGMENT, order_of, write_part
from cbtools.dataset.listing import alone, datasets_under, partitions_in
from cbtools.dataset.parquet import columns_told, package_version
from cbtools.dataset.written import Headed
from cbtools.durable import sync_files, sync_folders
from cbtools.errors import DatasetError
from cbtools.schema import RAW
from cbtools.stores import as_place, discard, put, scratch_for, tells_trouble

Step = Callable[[str, pl.LazyFrame], pl.LazyFrame]

STEPS: Final[dict[int, Step]] = {}
"""Version → what makes of a table's rows (its name, the rows of one part) those of the next version.

It keeps the rows and their order. Columns that partition the dataset are not among them.
"""

PARTS: Final = pl.Schema(
    {
        "table": pl.String(),
        "part": pl.String(),
        "version": pl.Int64(),
        "rows": pl.Int64(),
        "bytes_before": pl.Int64(),
        "bytes_after": pl.Int64(),
    }
)
_VERSION: Final = "cbtools.schema_version"


@dataclass(frozen=True, repr=False)
class Migration(Headed):
    """What `migrate_dataset` did, or would do.

    Attributes
    ----------
    parts : polars.DataFrame
        A row a part of an older version: ``table``, the dataset's folder; ``part``, its path in that folder;
        ``version``, which it was of; ``rows``; ``bytes_before``; and ``bytes_after``, null of a dry run.
    dry_run : bool
        Whether nothing was done.
    """

    parts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PARTS))
    dry_run: bool = False

    def _headline(self) -> str:
        if self.parts.is_empty():
            return f"nothing to migrate: all is of version {schema.SCHEMA_VERSION}"
        told = f"{self.parts.height:,} parts, {self.parts['rows'].sum():,} rows, to {schema.SCHEMA_VERSION}"
        return f"would migrate {told}" if self.dry_run else f"migrated {told}"

    def _table(self) -> pl.DataFrame:
        return self.parts


@tells_trouble
def migrate_dataset(
    root: str | os.PathLike[str], table: str | None = None, *, dry_run: bool = False
) -> Migration:
    """Bring the parts of an older schema version to that of today (`cbtools.schema.SCHEMA_VERSION`).

    Part by part: each is written anew beside itself, checked, and put in the place of the old one, whole. If
    this is killed, parts of both versions are there; call it again. Parts of today's version are not touched,
    nor are those of tables that are not ours, which tell no version.

    Parameters
    ----------
    root : str or os.PathLike
        Folder of the dataset; or of several, such as a job's output: then all of them, or that of `table`.
    table : str, optional
        Name of the dataset's folder in `root`.
    dry_run : bool
        Only tell what would be done.

    Returns
    -------
    Migration

    Raises
    ------
    DatasetError
        If there is no dataset; if a part is of a later version than this cbtools knows, or of one from which
        no way leads; or if rows were lost on the way. What was migrated before stays.
    JobError
        If a job works on it.

    See Also
    --------
    repartition_dataset : The same rows, divided by other columns.

    Notes
    -----
    No way leads from version 1 to 2, nor from 2 to 3: rows of version 1 do not say where the sequence broke,
    and those of version 2 lack fields of the Exchange feed and the breaks where a recording goes from one
    feed to the other. Only the raw segments tell these. Run them again.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> with tempfile.TemporaryDirectory() as root:
    ...     report = cb.run_segment(sorted(cb.sample_path().iterdir())[0], root)
    ...     migrate_dataset(root)
    nothing to migrate: all is of version 3
    """
    base = as_place(root)
    folders = datasets_under(base, table)
    with contextlib.nullcontext() if dry_run else alone(base, folders):
        old = [part for folder in folders for part in _old_parts(folder)]
        rows = [part.told(None) if dry_run else part.migrate() for part in old]
    return Migration(pl.DataFrame(rows, schema=PARTS, orient="row"), dry_run)


@dataclass(frozen=True)
class _Part:
    """A part of an older version."""

    root: Path
    relative: tuple[str, ...]
    name: str
    footer: Mapping[str, str]

    @property
    def path(self) -> Path:
        return self.root.joinpath(*self.relative, self.name)

    @property
    def version(self) -> int:
        return int(self.footer[_VERSION])

    @property
    def table(self) -> str:
        return self.footer["cbtools.table"]

    def told(self, after: int | None) -> tuple[str, str, int, int, int, int | None]:
        rows = self._rows().select(pl.len()).collect().item()
        part = "/".join((*self.relative, self.name))
        return self.root.name, part, self.version, rows, self.path.stat().st_size, after

    def _rows(self) -> pl.LazyFrame:
        return pl.scan_parquet(str(self.path), glob=False, hive_partitioning=False)

    def migrate(self) -> tuple[str, str, int, int, int, int | None]:
        """Write it anew, and put it in its own place."""
        path = self.path
        frame = self._migrated()
        columns = frame.collect_schema()
        self._check(columns)
        footer = {name: text for name, text in self.footer.items() if name.startswith("cbtools.")}
        footer |= {_VERSION: str(schema.SCHEMA_VERSION), "cbtools.version": package_version()}
        footer["cbtools.columns"] = columns_told(self.table, columns, footer["cbtools.columns"])
        token = secrets.token_hex(hive.TOKEN_BYTES)
        draft = scratch_for(path.parent) / hive.temporary_name(str(hive.segment_of(self.name)), token, 0)
        try:
            by = order_of([path], columns)
            rows = write_part(
                draft, frame.collect_batches(maintain_order=True), columns, footer, sorted_by=by
            )
            told = self.told(draft.stat().st_size)
            if rows != told[3]:
                raise DatasetError(f"{path} has {told[3]:,} rows, and {rows:,} in the new version: it stays")
            sync_files([draft])
            put(draft, path)
        finally:
            discard(draft, path)
        sync_folders([path.parent])
        return told

    def _migrated(self) -> pl.LazyFrame:
        """Give its rows in the version of today."""
        frame = self._rows()
        for version in range(self.version, schema.SCHEMA_VERSION):
            if version not in STEPS:
                raise DatasetError(
                    f"{self.path} is of version {self.version}, and no way leads from {version} to "
                    f"{version + 1}: run its segment again"
                )
            frame = STEPS[version](self.table, frame)
        return frame

    def _check(self, columns: Mapping[str, pl.DataType]) -> None:
        """Refuse rows that are not as the table is today."""
        by = hive.names_of(self.relative)
        wanted = schema.schema(self.table) if self.table in RAW else {}  # a book has a depth of its own
        wrong = [
            f"{name} is {columns.get(name, 'missing')}"
            for name, dtype in wanted.items()
            if name not in by and columns.get(name) != dtype
        ]
        if wrong or (SEGMENT in self._rows().collect_schema()) != (SEGMENT in columns):
            raise DatasetError(
                f"{self.path} is not of version {schema.SCHEMA_VERSION} after its steps: "
                f"{'; '.join(wrong) or SEGMENT}"
            )
        old = order.sort_columns(self._rows().collect_schema())
        if order.sort_columns(columns) != old:
            raise DatasetError(f"{self.path}: a step changed the columns that the rows are sorted by")


def _old_parts(root: Path) -> Iterator[_Part]:
    for relative, folder in partitions_in(root):
        for entry in folder.counting:
            try:
                footer = pl.read_parquet_metadata(entry.path)
            except (OSError, pl.exceptions.PolarsError) as error:
                raise DatasetError(f"{entry.path} cannot be read: {error}. Run its segment again") from error
            if _VERSION not in footer:
                continue
            version = int(footer[_VERSION])
            if version > schema.SCHEMA_VERSION:
                raise DatasetError(
                    f"{entry.path} is of version {version}, and this cbtools knows {schema.SCHEMA_VERSION}: "
                    "install a newer one"
                )
            if version < schema.SCHEMA_VERSION:
                yield _Part(root, relative, entry.name, footer)
