"""Files that are on the disk, whole, when we say so."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cbtools.stores import discard, is_remote, put, scratch_for

SYNCS: Final = 8
"""So many files are synced side by side, which mostly is to wait for the disk."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Have a block write a temporary file, which then takes the place of the file; a reader sees either."""
    if not is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    draft = scratch_for(path.parent) / f".{path.name}.tmp"
    try:
        yield draft
        sync_files([draft])
        put(draft, path)
        sync_folders([path.parent])
    finally:
        discard(draft, path)


def sync_files(paths: Iterable[Path]) -> None:
    """Have files on the disk."""
    _side_by_side(lambda path: _sync(path, os.O_RDWR), paths)


def sync_folders(paths: Iterable[Path]) -> None:
    """Have the names in folders on the disk; a folder that was empty may be gone."""

    def one(path: Path) -> None:
        with suppress(FileNotFoundError):
            _sync(path, os.O_RDONLY)

    if os.name != "nt":  # Windows knows no such thing
        _side_by_side(one, (path for path in paths if not is_remote(path)))


def _side_by_side(sync: Callable[[Path], None], paths: Iterable[Path]) -> None:
    """Do with many at once what mostly is to wait for the disk."""
    paths = list(paths)
    if len(paths) == 1:
        sync(paths[0])
    elif paths:
        with ThreadPoolExecutor(min(SYNCS, len(paths))) as pool:
            deque(pool.map(sync, paths), maxlen=0)


def _sync(path: Path, way: int) -> None:
    descriptor = os.open(path, way)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
