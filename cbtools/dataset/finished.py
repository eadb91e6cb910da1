"""Parts that are on the disk under temporary names: they become the dataset's at once, or go."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cbtools.dataset import hive
from cbtools.dataset.written import Part, Written
from cbtools.durable import sync_folders


@dataclass(frozen=True)
class FinishedPart:
    """A part before it is published: its file, its path to be, its rows and its partition's values."""

    draft: Path
    path: Path
    rows: int
    values: Mapping[str, hive.Value]


@dataclass(frozen=True)
class Finished:
    """What a writer has finished and not published; ``old`` are the segment's parts of earlier runs.

    It knows nothing but names, so that another process can publish what was written.
    """

    root: Path
    parts: tuple[FinishedPart, ...]
    old: tuple[Path, ...] = ()

    def publish(self) -> Written:
        """Give the parts their names, in the place of those of earlier runs; the others of these go."""
        return publish_together({"": self})[""]

    def _rename(self) -> Written:
        parts = []
        for part in self.parts:
            part.draft.replace(part.path)
            parts.append(Part(part.path, part.rows, part.path.stat().st_size, part.values))
        now = {part.path for part in parts}
        removed = tuple(path for path in self.old if path not in now)
        for path in removed:
            path.unlink(missing_ok=True)
        return Written(tuple(parts), removed)

    def drop(self) -> None:
        """Remove the files, and the folders that were made for them."""
        for part in self.parts:
            part.draft.unlink(missing_ok=True)
        remove_empty(self._folders_of(part.path for part in self.parts))

    def _folders_of(self, paths: Iterable[Path]) -> list[Path]:
        """Give the folders on the way from the paths up to the root, inner before outer."""
        folders: set[Path] = set()
        for path in paths:
            for folder in path.parents:
                if folder in folders:
                    break
                folders.add(folder)
                if folder == self.root:
                    break
        return sorted(folders, key=lambda folder: -len(folder.parts))


def publish_together(tables: Mapping[str, Finished]) -> dict[str, Written]:
    """Publish several tables' parts, one table after the other; then all of it is on the disk."""
    written = {table: finished._rename() for table, finished in tables.items()}
    folders: set[Path] = set()
    for table, finished in tables.items():
        folders.update(
            finished._folders_of([*(part.path for part in finished.parts), *written[table].removed])
        )
    sync_folders(folders)
    for table, finished in tables.items():
        inner = finished._folders_of(written[table].removed)
        remove_empty(folder for folder in inner if folder != finished.root)
    return written


def datasets_in(root: Path) -> list[Path]:
    """Give the folders of datasets under a root."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in root.iterdir() if path.name[0] not in "._" and path.is_dir())
    return []


def remove_parts(root: Path, segment: str) -> None:
    """Remove a segment's parts from a dataset."""
    parts = [
        Path(entry.path)
        for _, files in hive.walk(root)
        for entry in files
        if hive.segment_of(entry.name) == segment
    ]
    Finished(root, (), tuple(parts)).publish()


def remove_drafts(root: Path, segments: Collection[str]) -> set[str]:
    """Remove what writers of these segments left that were given up; tell which segments have files."""
    left = set()
    for _, files in hive.walk(root):
        for entry in files:
            drafted = hive.temporary_segment_of(entry.name)
            if drafted in segments:
                Path(entry.path).unlink(missing_ok=True)
            else:
                left.add(drafted or hive.segment_of(entry.name) or "")
    return left


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders in which nothing is."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty, or gone
            folder.rmdir()
