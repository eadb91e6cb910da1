"""The lines of a segment that are not understood, kept as NDJSON beside the datasets."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import orjson
import polars as pl

from cbtools.durable import sync_files, sync_folders
from cbtools.stores import discard, is_remote, put, remove_empty, scratch_for

FOLDER: Final = "_quarantine"


@dataclass(frozen=True)
class FinishedQuarantine:
    """A segment's file of rejects before it is published; ``draft`` is None if there are none."""

    path: Path
    draft: Path | None

    def publish(self) -> Path | None:
        """Show the file, in the place of that of an earlier run; its path, or None if there was nothing."""
        if self.draft is None:
            self.path.unlink(missing_ok=True)
            return None
        put(self.draft, self.path)
        sync_folders([self.path.parent])
        return self.path

    def drop(self) -> None:
        """Remove the file that was not published."""
        if self.draft is not None:
            discard(self.draft, self.path)
            remove_empty([self.path.parent])


class Quarantine:
    """Writes a segment's rejects to ``root/_quarantine/<segment>.ndjson``: whole, at the end, or not at all.

    An object a line: line, byte_offset, size, reason, and the line's bytes as ``raw`` (text) or, where they
    are no UTF-8, ``raw_base64``.
    """

    def __init__(self, root: Path, segment: str) -> None:
        self._path = root / FOLDER / f"{segment}.ndjson"
        self._draft: Path | None = None
        self._file: IO[bytes] | None = None
        self._handed_over = False

    def write(self, rejects: pl.DataFrame) -> None:
        """Add rows of the table of rejects."""
        for row in rejects.iter_rows(named=True):
            if self._file is None:
                self._draft = self._new_draft()
                self._file = self._draft.open("wb")
            self._file.write(orjson.dumps(_as_json(row), option=orjson.OPT_APPEND_NEWLINE))

    def _new_draft(self) -> Path:
        folder = self._path.parent
        if not is_remote(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return scratch_for(folder) / f".{self._path.stem}.{secrets.token_hex(4)}.tmp"

    def hand_over(self) -> FinishedQuarantine:
        """Give the file to the caller, on the disk: who publishes it or drops it."""
        self._handed_over = True
        if self._file is None or self._draft is None:
            return FinishedQuarantine(self._path, None)
        finished = FinishedQuarantine(self._path, self._draft)
        try:
            self._file.close()
            sync_files([self._draft])
        except OSError:
            finished.drop()
            raise
        return finished

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind that was not handed over."""
        if self._draft is not None and not self._handed_over:
            with suppress(OSError):  # a full disk: the file goes anyway
                if self._file is not None:
                    self._file.close()
            FinishedQuarantine(self._path, self._draft).drop()


def remove_drafts(root: Path, segments: Collection[str]) -> None:
    """Remove what runs of these segments left that were given up."""
    for file in (root / FOLDER).glob(".*.tmp"):
        if file.name[1:].rsplit(".", 2)[0] in segments:
            file.unlink(missing_ok=True)


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    raw = row.pop("raw")
    try:
        return {**row, "raw": raw.decode()}
    except UnicodeDecodeError:
        return {**row, "raw_base64": base64.b64encode(raw).decode()}
