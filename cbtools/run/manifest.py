"""The record of each segment's run, in ``root/_runs/``: that it is there tells that its rows are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import polars as pl

from cbtools.dataset import Written
from cbtools.dataset.parquet import package_version
from cbtools.durable import replace_file
from cbtools.errors import DatasetError
from cbtools.run.draft import Drafted, Task
from cbtools.run.folders import Content
from cbtools.schema import SCHEMA_VERSION

FOLDER: Final = "_runs"
VERSION: Final = 1
"""Version of the form of manifests."""

_TIME: Final = "%Y-%m-%dT%H:%M:%S%.9fZ"


@dataclass(frozen=True)
class Manifest:
    """What is known of a segment that was run: the object of its file."""

    told: Mapping[str, Any]

    @property
    def segment(self) -> str:
        """Name of the segment."""
        return str(self.told["segment"])

    @property
    def sha256(self) -> str:
        """Checksum of its content."""
        return str(self.told["source"]["sha256"])

    @property
    def parameters(self) -> dict[str, Any]:
        """What it was run with."""
        return dict(self.told["parameters"])

    @property
    def rows(self) -> int:
        """Rows of all its tables."""
        tables = self.told["tables"].values()
        return sum(part["rows"] for table in tables for part in table["parts"])

    def save(self, root: Path) -> None:
        """Put it on the disk, whole or not at all."""
        with replace_file(manifest_path(root, self.segment)) as draft:
            draft.write_bytes(orjson.dumps(self.told, option=orjson.OPT_INDENT_2))


def manifest_of(
    drafted: Drafted,
    written: Mapping[str, Written],
    quarantine: Path | None,
    *,
    task: Task,
    content: Content,
    source: str,
    started_from: str,
) -> Manifest:
    """Record a segment whose rows are published."""
    raw, root = drafted.raw, task.root

    def table(name: str) -> dict[str, Any]:
        parts = [
            {"path": part.path.relative_to(root).as_posix(), "rows": part.rows, "bytes": part.bytes}
            for part in written[name].parts
        ]
        return {"rows": drafted.rows[name], "parts": parts}

    return Manifest(
        {
            "version": VERSION,
            "segment": drafted.segment,
            "source": {
                "name": source,
                "size": drafted.source_bytes,
                "sha256": content.sha256,
                "raw_bytes": content.raw_bytes,
            },
            "time_span": [moment.isoformat() for moment in raw.time_span or ()],
            "started_from": started_from,
            "tables": {name: table(name) for name in written},
            "lines": raw.lines,
            "frames": raw.frames,
            "connections": raw.connections,
            "lost_frames": raw.lost_frames,
            "duplicates": raw.duplicates,
            "rejects": dict(raw.rejects),
            "quarantine": quarantine.relative_to(root).as_posix() if quarantine else None,
            "parameters": parameters_of(task),
            "software": package_version(),
            "schema": SCHEMA_VERSION,
            "seconds": round(drafted.seconds, 3),
            "finished_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "gaps": _rows(drafted.gaps),
            "coverage": _rows(drafted.coverage),
        }
    )


def manifest_path(root: Path, segment: str) -> Path:
    """Give the file of a segment's manifest."""
    return root / FOLDER / f"{segment}.json"


def read_manifests(root: Path) -> Iterator[Manifest]:
    """Read the manifests under a root, one after the other.

    Raises
    ------
    DatasetError
        At a file that is none: without it, it is not known whether its segment's rows are there.
    """
    for path in sorted((root / FOLDER).glob("[!.]*.json"), key=str):
        try:
            manifest = Manifest(dict(orjson.loads(path.read_bytes())))
            known = manifest.segment == path.stem and manifest.sha256 and manifest.parameters
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise DatasetError(
                f"{path} is no manifest, and so it is not known what the dataset has of that segment: put it "
                "right, or remove it to have the segment run again"
            )
        yield manifest


def parameters_of(task: Task) -> dict[str, Any]:
    """Give what a segment is run with, as far as it changes the rows."""
    book = task.config.book
    return {
        "tables": {table.table: list(table.partition_by) for table in task.config.tables},
        "book": None
        if book is None
        else {"depth": book.depth, "on": book.on, "gaps": book.gaps, "bands_bps": list(book.bands_bps)},
        "features": task.config.features,
        "products": None if task.products is None else list(task.products),
        "max_line_mb": task.max_line_mb,
    }


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Give a frame's rows as objects, with times as texts."""
    return frame.with_columns(pl.selectors.datetime().dt.strftime(_TIME)).to_dicts()
