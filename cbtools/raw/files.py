"""Which files, their names, plain or compressed, and line-aligned pieces of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Final, Protocol

import numpy as np
import numpy.typing as npt

from cbtools.errors import ConfigError, SegmentError
from cbtools.raw.compressed import Unpacked, codec_of
from cbtools.stores import as_place, files_in, matching, open_bytes, told_as_oserror

Buffer = npt.NDArray[np.uint8]

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A segment, a glob pattern, a folder of segments, or a list of these."""

ENDINGS: Final = (".ndjson", ".ndjson.gz", ".ndjson.zst")
PADDING: Final = 64
"""Newlines behind the bytes of a piece, as the scanner needs them."""

_NEWLINE: Final = 10
_STEP: Final = 16_384
_TEXT_BYTES: Final = 1 << 20

MAX_LINE_MB: Final = 256
"""A longer line is not read, by default; MiB."""
KEPT_BYTES: Final = 4096
"""So many bytes of a line that is too long are kept."""


@dataclass(frozen=True)
class Piece:
    """Some whole lines of a segment: the first ``size`` bytes of ``buffer``, which PADDING newlines follow.

    ``last`` marks the segment's last piece. ``damage`` says why the file could not be read on behind it; what
    could be read further on follows. ``fault`` says what is wrong with the line that is alone in a piece, and
    ``left_out`` how many of its bytes that piece is without.
    """

    segment: str
    buffer: Buffer
    size: int
    offset: int
    last: bool = False
    damage: str = ""
    fault: str = ""
    left_out: int = 0


def check_max_line(max_line_mb: float) -> None:
    """Raise a ConfigError if the longest line is not a number above 0."""
    number = isinstance(max_line_mb, int | float) and not isinstance(max_line_mb, bool)
    if not number or not 0 < max_line_mb < float("inf"):
        raise ConfigError(f"max_line_mb must be a number of MiB above 0, e.g. 256, not {max_line_mb!r}")


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


@dataclass(frozen=True)
class _Opened:
    """A segment open for reading: its file, and the text of its lines, where that is compressed."""

    file: IO[bytes]
    unpacked: Unpacked | None

    def fill(self, buffer: Buffer, filled: int, goal: int) -> tuple[int, str | None]:
        """Read up to the goal; the values: how far, and if it stopped there, at what damage ("": the end)."""
        readinto = self.file.readinto if self.unpacked is None else self.unpacked.readinto  # type: ignore[attr-defined]
        with buffer.data as view:
            while filled < goal:
                read = readinto(view[filled:goal])
                if not read:
                    return filled, "" if self.unpacked is None else self.unpacked.damage
                filled += read
        return filled, None


@contextmanager
def _open(path: Path) -> Iterator[_Opened]:
    """Open a segment, to be decompressed if its first bytes say that it is compressed."""
    with open_bytes(path) as file:
        codec = codec_of(file.read(4))
        file.seek(0)
        yield _Opened(file, Unpacked(file, codec) if codec else None)


def read_pieces(
    path: Path,
    piece_bytes: int,
    progress: Progress | None = None,
    spare: deque[Buffer] | None = None,
    max_line_mb: float = MAX_LINE_MB,
) -> Iterator[Piece]:
    """Cut a segment into pieces of whole lines, each of about so many bytes, or of one longer line.

    Of a line that is too long there is a piece with its first bytes: it is never in memory as a whole.

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
    max_line_mb : float
        The longest line that is read, MiB.

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
            reached = 0
            cutter = _Cutter(opened, segment_name(path), piece_bytes, max_line_mb)
            for piece in cutter.pieces(deque() if spare is None else spare):
                yield piece
                if progress is not None:  # damaged files are read from their start once more
                    progress(max(0, opened.file.tell() - reached))
                    reached = max(reached, opened.file.tell())
    except OSError as error:
        raise SegmentError(f"cannot read {path}: {error.strerror or error}") from error


def read_text(path: Path) -> Iterator[tuple[memoryview, str]]:
    """Read a segment's bytes, decompressed, whatever lines they make.

    Yields
    ------
    tuple of memoryview and str
        Some bytes, to be used before the next ones are read; and why the file is damaged behind them.

    Raises
    ------
    SegmentError
        If the file cannot be opened or read.
    """
    buffer = np.empty(_TEXT_BYTES, np.uint8)
    try:
        with told_as_oserror(path), _open(path) as opened:
            damage: str | None = None
            while damage != "":
                filled, damage = opened.fill(buffer, 0, _TEXT_BYTES)
                yield buffer[:filled].data, damage or ""
    except OSError as error:
        raise SegmentError(f"cannot read {path}: {error.strerror or error}") from error


def is_compressed(path: Path) -> bool:
    """Tell whether a segment is compressed, by its first bytes."""
    with open_bytes(path) as file:
        return bool(codec_of(file.read(4)))


def read_end(path: Path, end_bytes: int, most_bytes: int) -> Piece | None:
    """Read the last whole lines of a plain segment, about so many bytes of them; at least one.

    None if the last line alone is longer than ``most_bytes``.

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
                if len(text) >= most_bytes:
                    return None
                offset = max(0, size - end_bytes)
                file.seek(offset)
                text = file.read(size - offset)
                end_bytes *= 4
    except OSError as error:
        raise SegmentError(f"cannot read {path}: {error.strerror or error}") from error
    begin = text[:-1].find(b"\n") + 1 if offset else 0
    whole = np.frombuffer(text[begin:] + b"\n" * PADDING, np.uint8).copy()
    return Piece(segment_name(path), whole, len(text) - begin, offset + begin, last=True)


@dataclass
class _Read:
    """What was read: ``filled`` bytes, ``cut`` of them whole lines; and at what damage it stopped, if so."""

    buffer: Buffer
    filled: int
    cut: int = 0
    stop: str | None = None


class _Cutter:
    """Cuts the text of a segment."""

    def __init__(self, opened: _Opened, name: str, piece_bytes: int, max_line_mb: float) -> None:
        self._opened, self._name, self._piece_bytes = opened, name, piece_bytes
        self._max_line_mb, self._longest = max_line_mb, int(max_line_mb * 2**20)
        self._most = max(self._longest, KEPT_BYTES)

    def pieces(self, spare: deque[Buffer]) -> Iterator[Piece]:
        """Read the pieces; damage ends one, so that text before it and text behind it make no line."""
        carried: Buffer = np.empty(0, np.uint8)
        offset, stop = 0, None
        while stop != "":
            read = self._read_on(carried, spare.popleft() if spare else carried)
            if not read.cut and read.stop is None:
                kept, length = read.buffer[:KEPT_BYTES].tobytes(), read.filled
                read, more, ended = self._behind_line()
                yield self._long_line(kept, length + more, offset, ended=ended)
                offset += length + more + ended
            stop = read.stop
            size = read.cut if stop is None else read.filled
            carried = read.buffer[size : read.filled].copy()
            read.buffer[size : size + PADDING] = _NEWLINE
            if size or stop is not None:
                whole = Piece(self._name, read.buffer, size, offset, stop == "", stop or "")
                yield from self._apart_from_long_lines(whole)
            offset += size

    def _read_on(self, carried: Buffer, buffer: Buffer) -> _Read:
        """Read on behind the first part of a line, to where one ends or is seen to be too long."""
        filled, wanted, ours = len(carried), self._piece_bytes, False
        read = _Read(_with_room(buffer, 0, filled + wanted), filled)
        read.buffer[:filled] = carried
        while not read.cut and read.stop is None and read.filled <= self._most:
            start = read.filled
            goal = start + min(wanted, max(self._piece_bytes, self._most + 1 - start))
            if ours:  # nobody else has seen it: it grows in place, as two of them are much for a long line
                read.buffer.resize(max(len(read.buffer), goal + PADDING), refcheck=False)
            elif goal + PADDING > len(read.buffer):
                read.buffer, ours = _with_room(read.buffer, start, goal), True
            read.filled, read.stop = self._opened.fill(read.buffer, start, goal)
            read.cut = _behind_last_newline(read.buffer, start, read.filled)
            wanted *= 2  # one line longer than the piece: read on, ever more of it
        return read

    def _behind_line(self) -> tuple[_Read, int, bool]:
        """Read on behind a line; the values: what is there, how many bytes the line had, and if a newline."""
        read, length = _Read(np.empty(self._piece_bytes + PADDING, np.uint8), 0), 0
        while read.stop is None:
            filled, read.stop = self._opened.fill(read.buffer, 0, self._piece_bytes)
            end = _newline(read.buffer, 0, filled)
            length += end
            if end < filled:
                rest = read.buffer[end + 1 : filled].copy()
                read.filled = len(rest)
                read.buffer[: read.filled] = rest
                read.cut = _behind_last_newline(rest, 0, read.filled)
                return read, length, True
        return read, length, False

    def _long_line(self, kept: bytes, length: int, offset: int, *, ended: bool) -> Piece:
        """Return the piece of a line that is too long."""
        buffer = np.frombuffer(kept + b"\n" * (PADDING + 1), np.uint8).copy()
        fault = f"line too long: {length:,} bytes, more than max_line_mb={self._max_line_mb:g}"
        left_out = length - len(kept)
        return Piece(self._name, buffer, len(kept) + ended, offset, fault=fault, left_out=left_out)

    def _apart_from_long_lines(self, whole: Piece) -> Iterator[Piece]:
        """Divide a piece before and behind its lines that are too long, if there are any."""
        buffer, start, place = whole.buffer, 0, 0
        while whole.size - place > self._longest:
            behind = _behind_last_newline(buffer, place, min(place + self._longest + 1, whole.size))
            if behind:
                place = behind
                continue
            end = _newline(buffer, place, whole.size)
            if start < place:
                yield _part(whole, start, place)
            kept = buffer[place : min(end, place + KEPT_BYTES)].tobytes()
            yield self._long_line(kept, end - place, whole.offset + place, ended=end < whole.size)
            start = place = min(end + 1, whole.size)
        yield _part(whole, start, whole.size, last=whole.last, damage=whole.damage) if start else whole


def _part(whole: Piece, start: int, end: int, *, last: bool = False, damage: str = "") -> Piece:
    """Return some lines of a piece."""
    buffer = np.full(end - start + PADDING, _NEWLINE, np.uint8)
    buffer[: end - start] = whole.buffer[start:end]
    return Piece(whole.segment, buffer, end - start, whole.offset + start, last, damage)


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


def _newline(buffer: Buffer, start: int, end: int) -> int:
    """Find the first newline, or else return the end."""
    found = buffer[start:end].tobytes().find(b"\n")
    return start + found if found >= 0 else end


class Progress(Protocol):
    """Called with the bytes read since the last call."""

    def __call__(self, n: int, /) -> object:  # noqa: D102
        ...
