"""The folders that segments go through: ready → processing → done, or failed; each step is one rename."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cbtools.durable import replace_file, sync_folders
from cbtools.errors import ConfigError
from cbtools.raw.files import ENDINGS, read_text, segment_name
from cbtools.stores import is_remote

_READY: Final = "ready"


@dataclass(frozen=True)
class Content:
    """What identifies a segment: the checksum of its lines, after decompression, and their size in bytes.

    Of a compressed file that is damaged it is the checksum of the file: who knows what its lines are.
    """

    sha256: str
    raw_bytes: int


def checksum(path: Path) -> Content:
    """Read a segment for its checksum, which of a plain file is what ``sha256sum`` gives."""
    digest, size, damaged = hashlib.sha256(), 0, False
    for text, damage in read_text(path):
        digest.update(text)
        size += len(text)
        damaged |= bool(damage)
    return Content(_of_bytes(path) if damaged else digest.hexdigest(), size)


def _of_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Folders:
    """Where segments are: closed by the recorder, claimed, done, and failed."""

    ready: Path
    processing: Path
    done: Path
    failed: Path

    @classmethod
    def of(
        cls,
        input_dir: str | os.PathLike[str],
        processing: str | os.PathLike[str] | None = None,
        done: str | os.PathLike[str] | None = None,
        failed: str | os.PathLike[str] | None = None,
    ) -> Folders:
        """Give the folders beside ``ready``, or in a folder in whose path there is none, and check them."""
        for given in (input_dir, processing, done, failed):
            if given is not None and is_remote(given):
                raise ConfigError(
                    f"{given} is in a store, and a job claims segments by renaming them, which a store "
                    "cannot: give folders of a disk (output_dir may be in a store), or call run_segment for "
                    "each URL"
                )
        ready = Path(input_dir).absolute()  # workers may be in other folders
        if not ready.is_dir():
            raise ConfigError(
                f"{ready} is no folder: a job takes a folder of closed segments, as raw/ready/coinbase"
            )
        if "active" in ready.parts[-2:]:
            raise ConfigError(f"{ready} holds what is being recorded: give the folder of closed segments")
        if (ready / _READY).is_dir():
            raise ConfigError(f"{ready} is not the folder of closed segments: that is in {ready / _READY}")

        def beside(name: str, given: str | os.PathLike[str] | None) -> Path:
            if given is not None:
                return Path(given).absolute()
            if _READY not in ready.parts:
                return ready / name
            last = len(ready.parts) - 1 - ready.parts[::-1].index(_READY)
            return Path(*ready.parts[:last], name, *ready.parts[last + 1 :])

        folders = cls(ready, beside("processing", processing), beside("done", done), beside("failed", failed))
        folders._check()
        return folders

    def _check(self) -> None:
        device = self.ready.stat().st_dev
        for folder in (self.processing, self.done, self.failed):
            if folder.exists() and not folder.is_dir():
                raise ConfigError(f"{folder} is no folder: segments are to be moved there")
            there = next(path for path in (folder, *folder.parents) if path.exists())
            if there.stat().st_dev != device:
                raise ConfigError(
                    f"{folder} is on another file system than {self.ready}, and a segment moves by one "
                    "rename: give processing_dir, done_dir and failed_dir beside it"
                )
        distinct = {self.ready, self.processing, self.done, self.failed}
        if len(distinct) < 4:
            raise ConfigError(f"the folders of a job must differ: {', '.join(map(str, sorted(distinct)))}")

    def waiting(self) -> list[Path]:
        """Give the files that wait: those that an interrupted job has claimed, then those that are ready."""
        return [*segments_in(self.processing), *segments_in(self.ready)]

    def is_claimed(self, path: Path) -> bool:
        """Tell whether a file is in processing/."""
        return path.parent == self.processing

    def claim(self, path: Path, segment: str) -> Path:
        """Move a segment to processing/, where its file has the name under which it will be known."""
        return _move(path, self.processing / (segment + ending_of(path)))

    def release(self, path: Path, *, delete: bool) -> None:
        """Move a segment to done/, or delete it."""
        if delete:
            path.unlink()
            sync_folders([path.parent])
        else:
            _move(path, _free(self.done / path.name, path))

    def give_back(self, path: Path, name: str) -> None:
        """Move a claimed segment back, unless another has come under its name: then it stays where it is."""
        if not (self.ready / name).exists():
            _move(path, self.ready / name)

    def fail(self, path: Path, error: str) -> Path:
        """Move a segment to failed/, with what is wrong with it beside it; the place."""
        there = _free(self.failed / path.name, path)
        with replace_file(there.with_name(f"{there.name}.error.txt")) as draft:
            draft.write_text(f"{error.replace(str(path), str(there)).rstrip()}\n", encoding="utf-8")
        return _move(path, there)


def segments_in(folder: Path) -> list[Path]:
    """Give the segments' files in a folder, by name; none if there is no such folder."""
    with suppress(FileNotFoundError):
        found = [path for path in folder.iterdir() if path.name.endswith(ENDINGS) and path.name[0] != "."]
        return sorted(path for path in found if path.is_file())
    return []


def ending_of(path: Path) -> str:
    """Give what a segment's file name ends with, behind the segment's name."""
    return path.name[len(segment_name(path)) :]


def _move(path: Path, there: Path) -> Path:
    there.parent.mkdir(parents=True, exist_ok=True)
    path.rename(there)
    sync_folders({there.parent, path.parent})
    return there


def _free(there: Path, path: Path) -> Path:
    """Give a name that is free, or of the same bytes: nothing is overwritten but by itself."""
    name, ending, n = segment_name(there), ending_of(there), 1
    while there.exists() and not _same(there, path):
        n += 1
        there = there.with_name(f"{name}-{n}{ending}")
    return there


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and _of_bytes(one) == _of_bytes(other)
