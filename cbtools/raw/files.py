"""Which files, their names, plain or compressed, and line-aligned pieces of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from cbtools.errors import SegmentError
from cbtools.stores import as_place, files_in, matching, open_bytes, told_as_oserror

Buffer = npt.NDArray[np.uint8]

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A segment, a glob pattern, a folder of segments, or a list of these."""

ENDINGS: Final = (".ndjson", ".ndjson.gz", ".ndjson.zst")
PADDING: Final = 64
"""Newlines behind the bytes of a piece, as the scanner needs them."""

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_NEWLINE: Final = 10
_STEP: Final = 16_384


@dataclass(frozen=True)
class Piece:
    """Some whole lines of a segment: the first ``size`` bytes of ``buffer``, which PADDING newlines follow.

    ``last`` marks the segment's last piece, and ``damage`` says why its file could not be read to the end.
    """

    segment: str
    buffer: Buffer
    size: int
    offset: int
    last: bool = False
    damage: str = ""


def segment_name(path: str | os.PathLike[str]) -> str:
    """Give a segment's name: its file's without the endings.

    Parameters
    ----------
    path : path-like
        The segment's file.

    Returns
    -------
    str
        E.g. ``"segment_20251126T14_00001"``.

    Examples
    --------
    >>> segment_name("raw/ready/coinbase/segment_20251126T14_00001.ndjson.gz")
    'segment_20251126T14_00001'
    """
    name = PurePath(str(path)).name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return name[: -len(ending)]
    return name


def find_segments(source: Source) -> list[Path]:
    """Give the files that a source names.

    Parameters
    ----------
    source : path-like, or list of path-like
        A file, a glob pattern, or a folder (its ``.ndjson``, ``.ndjson.gz`` and ``.ndjson.zst`` files, those
        of its sub-folders not); a list is taken in its own order.

    Returns
    -------
    list of pathlib.Path
        In the order in which they are read: by file name within a folder or a pattern.

    Raises
    ------
    SegmentError
        If a name stands for no file.
    """
    if isinstance(source, Sequence) and not isinstance(source, str):
        paths = [path for one in source for path in find_segments(one)]
        if not paths:
            raise SegmentError("no segments: the list of sources is empty")
        return paths
    try:
        with told_as_oserror(source):
            return _found(as_place(source))
    except OSError as error:
        raise SegmentError(f"cannot look for {source}: {error.strerror or error}") from error


def _found(path: Path) -> list[Path]:
    if path.is_dir():
        found = files_in(path, lambda name: name.endswith(ENDINGS))
        if not found:
            raise SegmentError(f"no segments in {path}: none of its files ends in {', '.join(ENDINGS)}")
    elif path.exists():
        return [path]
    else:
        found = matching(str(path))
        if not found:
            raise SegmentError(
                f"no such segment: {path} (a path, a glob pattern, a folder or a list of these)"
            )
    return sorted(found, key=lambda file: (file.name, str(file)))


class Stream(Protocol):
    """What bytes are read from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer from its start on; 0 at the end."""


@dataclass(frozen=True)
class _Opened:
    """A segment open for reading: its file, and the stream of its lines' bytes."""

    file: IO[bytes]
    stream: Stream
    codec: str = ""


class _Steps:
    """A decompressed stream, read in steps that are the same for every size of pieces.

    What can be read of a damaged file is lost with the step in which the damage shows: a small one, and so
    placed that the size of the pieces does not change the result.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._step, self._used = stream, b"", 0

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer from its start on, with what is left of the step or else with the next."""
        if self._used == len(self._step):
            self._step, self._used = self._stream.read(_STEP), 0
        read = min(len(buffer), len(self._step) - self._used)
        buffer[:read] = self._step[self._used : self._used + read]
        self._used += read
        return read


@contextmanager
def _open(path: Path) -> Iterator[_Opened]:
    """Open a segment, to be decompressed if its first bytes say that it is compressed."""
    with open_bytes(path) as file:
        start = file.read(4)
        file.seek(0)
        for magic, codec in _MAGIC.items():
            if start.startswith(magic):
                import pyarrow as pa

                yield _Opened(
                    file, _Steps(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)), codec
                )
                return
        yield _Opened(file, file)


def read_pieces(
    path: Path, piece_bytes: int, progress: Progress | None = None, spare: deque[Buffer] | None = None
) -> Iterator[Piece]:
    """Cut a segment into pieces of whole lines, each of about so many bytes, or of one longer line.

    Parameters
    ----------
    path : pathlib.Path
        The segment.
    piece_bytes : int
        How much to read for a piece, bytes.
    progress : callable, optional
        Told after each piece how many bytes of the file were read since the last.
    spare : deque of numpy.ndarray, optional
        Buffers of pieces that are done with, to be used again: fresh memory costs as much as decoding.

    Yields
    ------
    Piece
        The last one may be empty.

    Raises
    ------
    SegmentError
        If the file cannot be opened or read.
    """
    try:
        with told_as_oserror(path), _open(path) as opened:
            told = 0
            for piece in _pieces(
                opened, segment_name(path), piece_bytes, deque() if spare is None else spare
            ):
                yield piece
                if progress is not None:
                    progress(opened.file.tell() - told)
                    told = opened.file.tell()
    except OSError as error:
        raise SegmentError(f"cannot read {path}: {error.strerror or error}") from error


def is_compressed(path: Path) -> bool:
    """Tell whether a segment is compressed, by its first bytes."""
    with open_bytes(path) as file:
        start = file.read(4)
    return any(start.startswith(magic) for magic in _MAGIC)


def read_end(path: Path, end_bytes: int) -> Piece:
    """Read the last whole lines of a plain segment, about so many bytes of them; at least one.

    Raises
    ------
    SegmentError
        If the file cannot be opened or read.
    """
    try:
        with told_as_oserror(path), open_bytes(path) as file:
            size = file.seek(0, os.SEEK_END)
            offset, text = size, b""
            while offset and b"\n" not in text[:-1]:
                offset = max(0, size - end_bytes)
                file.seek(offset)
                text = file.read(size - offset)
                end_bytes *= 4
    except OSError as error:
        raise SegmentError(f"cannot read {path}: {error.strerror or error}") from error
    begin = text[:-1].find(b"\n") + 1 if offset else 0
    whole = np.frombuffer(text[begin:] + b"\n" * PADDING, np.uint8).copy()
    return Piece(segment_name(path), whole, len(text) - begin, offset + begin, last=True)


def _pieces(opened: _Opened, name: str, piece_bytes: int, spare: deque[Buffer]) -> Iterator[Piece]:
    carried: Buffer = np.empty(0, np.uint8)
    offset, at_end, damage = 0, False, ""
    while not at_end:
        filled, wanted, cut = len(carried), piece_bytes, 0
        buffer = _with_room(spare.popleft() if spare else carried, 0, filled + piece_bytes)
        buffer[:filled] = carried
        while not cut and not at_end:
            start, goal = filled, filled + wanted
            buffer = _with_room(buffer, filled, goal)
            filled, at_end, damage = _fill(opened, buffer, filled, goal)
            cut = _behind_last_newline(buffer, start, filled)
            wanted *= 2  # one line longer than the piece: read on, ever more of it
        size = filled if at_end else cut
        carried = buffer[size:filled].copy()
        buffer[size : size + PADDING] = _NEWLINE
        yield Piece(name, buffer, size, offset, at_end, damage)
        offset += size


def _with_room(buffer: Buffer, filled: int, size: int) -> Buffer:
    """Give a buffer with room for so many bytes and the padding: this one, or a larger with what it holds."""
    if size + PADDING <= len(buffer):
        return buffer
    larger = np.empty(size + PADDING, np.uint8)
    larger[:filled] = buffer[:filled]
    return larger


def _behind_last_newline(buffer: Buffer, start: int, end: int) -> int:
    """Find where the last line ends, or 0; from the end on in small steps: it is nearly always there."""
    while start < end:
        low = max(start, end - _STEP)
        found = buffer[low:end].tobytes().rfind(b"\n")
        if found >= 0:
            return low + found + 1
        end = low
    return 0


def _fill(opened: _Opened, buffer: Buffer, filled: int, goal: int) -> tuple[int, bool, str]:
    """Read up to the goal; the values: how far, whether the end was met, and what damage ended it."""
    with buffer.data as view:
        while filled < goal:
            try:
                read = opened.stream.readinto(view[filled:goal])
            except OSError as error:
                if not opened.codec:
                    raise
                return filled, True, str(error).splitlines()[0]
            if not read:
                return filled, True, ""
            filled += read
    return filled, False, ""


class Progress(Protocol):
    """Called with the bytes read since the last call."""

    def __call__(self, n: int, /) -> object:  # noqa: D102
        ...
