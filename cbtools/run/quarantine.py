"""The lines of a segment that are not understood, kept as NDJSON beside the datasets."""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import orjson
import polars as pl

from cbtools.durable import sync_files, sync_folders

FOLDER: Final = "_quarantine"


class Quarantine:
    """Writes a segment's rejects to ``root/_quarantine/<segment>.ndjson``: whole, at the end, or not at all.

    An object a line: line, byte_offset, reason, and the line's bytes as ``raw`` (text) or, where they are no
    UTF-8, ``raw_base64``.
    """

    def __init__(self, root: Path, segment: str) -> None:
        self._path = root / FOLDER / f"{segment}.ndjson"
        self._draft = self._path.with_name(f".{segment}.ndjson.tmp")
        self._file: IO[bytes] | None = None

    def write(self, rejects: pl.DataFrame) -> None:
        """Add rows of the table of rejects."""
        for row in rejects.iter_rows(named=True):
            if self._file is None:
                self._draft.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._draft.open("wb")
            self._file.write(orjson.dumps(_as_json(row), option=orjson.OPT_APPEND_NEWLINE))

    def publish(self) -> Path | None:
        """Show the file, in the place of that of an earlier run; its path, or None if there was nothing."""
        if self._file is None:
            self._path.unlink(missing_ok=True)
            return None
        self._file.close()
        self._file = None
        sync_files([self._draft])
        self._draft.replace(self._path)
        sync_folders([self._path.parent])
        return self._path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind that was not published."""
        if self._file is not None:
            self._file.close()
            self._draft.unlink(missing_ok=True)
            with suppress(OSError):  # others may have files there
                self._path.parent.rmdir()


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    raw = row.pop("raw")
    try:
        return {**row, "raw": raw.decode()}
    except UnicodeDecodeError:
        return {**row, "raw_base64": base64.b64encode(raw).decode()}
