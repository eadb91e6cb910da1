"""Parts that are on the disk under temporary names: they become the dataset's at once, or go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cbtools.dataset import hive
from cbtools.dataset.compacted import segments_in, write_compacted
from cbtools.dataset.written import Part, Written
from cbtools.durable import sync_files, sync_folders
from cbtools.stores import as_place, discard, files_in, folders_in, put_all, remove_empty


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

    ``compacted`` are the compacted parts in which such rows are. They are looked for again when it is
    published: another segment's writer, or a compaction, may have put others in their place. What they hold
    of other segments is written then, and they go last: before, neither the new parts nor that rest counts.

    It knows nothing but names, so that another process can publish what was written.
    """

    root: Path
    segment: str
    parts: tuple[FinishedPart, ...]
    old: tuple[Path, ...] = ()
    compacted: tuple[Path, ...] = ()
    rest: tuple[FinishedPart, ...] = ()

    def publish(self) -> Written:
        """Give the parts their names, in the place of those of earlier runs; the others of these go."""
        return publish_together({"": self})[""]

    def _prepared(self) -> Finished:
        """Write the rest of the compacted parts that are there now."""
        folders = {path.parent for path in (*self.old, *self.compacted, *(part.path for part in self.parts))}
        compacted = []
        for folder in sorted(folders):
            with contextlib.suppress(FileNotFoundError):
                there = files_in(folder, hive.compacted_first)
                compacted += [path for path in there if is_in(self.segment, path)]
        return replace(self, compacted=tuple(compacted), rest=rest_of(compacted, self.segment))

    def _rename(self) -> Written:
        parts = [Part(part.path, part.rows, part.draft.stat().st_size, part.values) for part in self.parts]
        put_all((part.draft, part.path) for part in self.rest)
        put_all((part.draft, part.path) for part in self.parts)
        now = {part.path for part in parts}
        return Written(tuple(parts), tuple(path for path in self.old if path not in now))

    def _remove(self, written: Written) -> None:
        for path in (*written.removed, *self.compacted):
            path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove the files, and the folders that were made for them."""
        for part in self.parts:
            discard(part.draft, part.path)
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
    prepared: dict[str, Finished] = {}
    try:
        for table, finished in tables.items():
            prepared[table] = finished._prepared()
    except BaseException:
        for finished in prepared.values():
            for part in finished.rest:
                discard(part.draft, part.path)
        raise
    tables = prepared
    try:
        written = {table: finished._rename() for table, finished in tables.items()}
    finally:
        for finished in tables.values():
            for part in finished.rest:  # if it was not published
                discard(part.draft, part.path)
    sync_folders(
        {
            part.path.parent
            for finished in tables.values()
            if finished.compacted
            for part in (*finished.rest, *finished.parts)
        }
    )
    for table, finished in tables.items():
        finished._remove(written[table])
    folders: set[Path] = set()
    for table, finished in tables.items():
        folders.update(
            finished._folders_of(
                [*(part.path for part in finished.parts), *written[table].removed, *finished.compacted]
            )
        )
    sync_folders(folders)
    for table, finished in tables.items():
        inner = finished._folders_of([*written[table].removed, *finished.compacted])
        remove_empty(folder for folder in inner if folder != finished.root)
    return written


def datasets_in(root: Path) -> list[Path]:
    """Give the folders of datasets under a root."""
    return sorted((path for path in folders_in(root) if path.name[0] not in "._"), key=str)


def remove_parts(root: Path, segment: str) -> None:
    """Remove a segment's rows from a dataset."""
    remove_drafts(root, {segment})
    own, shared = parts_of(root, segment)
    Finished(root, segment, (), own, shared).publish()


def parts_of(root: Path, segment: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Find the parts in which a segment has rows: its own, and compacted ones."""
    own: list[Path] = []
    shared: list[Path] = []
    for _, files in hive.walk(root):
        for entry in files:
            if hive.segment_of(entry.name) == segment:
                own.append(as_place(entry.path))
            elif is_in(segment, entry.path):
                shared.append(as_place(entry.path))
    return tuple(own), tuple(shared)


def is_in(segment: str, path: str | Path) -> bool:
    """Tell whether a file is a compacted part that has a segment's rows."""
    name = os.path.basename(str(path))  # noqa: PTH119 (of a URL, too; a large dataset has many)
    return hive.compacted_first(name) is not None and segment in segments_in(path)


def rest_of(compacted: Iterable[Path], segment: str) -> tuple[FinishedPart, ...]:
    """Write what compacted parts hold of other segments, under temporary names."""
    written: list[FinishedPart] = []
    try:
        for part in compacted:
            if set(segments_in(part)) != {segment}:
                draft, path, rows = write_compacted(part.parent, [part], without=segment)
                written.append(FinishedPart(draft, path, rows, {}))
        sync_files(part.draft for part in written)
    except BaseException:
        for one in written:
            discard(one.draft, one.path)
        raise
    return tuple(written)


def remove_drafts(root: Path, segments: Collection[str]) -> set[str]:
    """Remove what writers of these segments left that were given up; tell which segments have files."""
    left: set[str] = set()
    for _, files in hive.walk(root):
        for entry in files:
            drafted = hive.temporary_segment_of(entry.name)
            if drafted in segments:
                as_place(entry.path).unlink(missing_ok=True)
            else:
                left.update((drafted,) if drafted else segments_in(entry.path))
    return left
