"""The text of a zstd file: of all its frames, and of a damaged one up to the block that is at fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from cbtools.raw.parts import MOST, Damage, End, File, Unpacking, goes_on, read_parts

T = TypeVar("T", bytes, bytes | Damage)

ZSTD: Final = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
"""How a frame starts; the second kind holds no text and is skipped: pzstd writes one before each frame."""
_SKIPPABLE: Final = b"\x2a\x4d\x18"
_RAW, _RLE, _RESERVED = 0, 1, 3
_MOST_OF_BLOCK: Final = 1 << 17
_LARGEST: Final = 17
"""The largest window that the decoder takes: 128 MiB, as a power of two behind 1 KiB."""


class _BrokenError(Exception):
    """The decoder's word on bytes that it cannot decode."""


def read_frames(file: File) -> Iterator[bytes | Damage]:
    """Read all text in one go; and if it is damaged frame by frame, from the start on once more.

    So no time is lost with files that are as they should be, and no text with those that are not: the decoder
    drops what it has made of the bytes among which some are at fault.
    """
    size = 0
    try:
        for text in _decoded(file):
            yield text
            size += len(text)
    except _BrokenError:
        yield from _behind(size, read_parts(file, _Frames(file, size)))


def _behind(size: int, found: Iterator[T]) -> Iterator[T]:
    """Leave out text that was read before."""
    for one in found:
        if size and not isinstance(one, Damage):
            yield one[size:]
            size = max(0, size - len(one))
        else:
            yield one


class _Source(Protocol):
    """What the decoder reads from."""

    @property
    def trouble(self) -> Exception | None:
        """An error of the file itself."""

    def read(self, n: int) -> bytes:
        """Read on."""


def _decoded(source: _Source) -> Iterator[bytes]:
    import pyarrow as pa

    stream = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")
    while True:
        try:
            text = stream.read(MOST)
        except (OSError, pa.ArrowException) as error:
            if source.trouble is not None:
                raise
            raise _BrokenError(str(error).splitlines()[0].removeprefix("ZSTD decompress failed: ")) from error
        if not text:
            return
        yield text


class _Frames:
    """The frames of a zstd file, of whose text the first bytes were read before, and so are checked."""

    name, start = "zstd frame", ZSTD

    def __init__(self, file: File, checked: int) -> None:
        self._file, self._unchecked = file, -checked

    def read(self, place: int) -> Unpacking:
        """Read the text of the frame that starts at a place."""
        if self._file.at(place + 1, 3) == _SKIPPABLE:
            behind = self._behind_skippable(place)
            return End(place, f"a skippable {self.name} without an end") if behind is None else End(behind)
        blocks, size = _Blocks(self._file, place), 0
        try:
            for text in _decoded(blocks):
                yield text
                size += len(text)
        except _BrokenError as error:
            self._unchecked = 0  # what was read before ended here
            if blocks.good:  # they once more, without the one at fault: so nothing of them is dropped
                yield from _behind(size, _decoded(_Blocks(self._file, place, most=blocks.good)))
            return End(blocks.block, blocks.fault or str(error))
        self._unchecked += size
        return self._checked(place, blocks, size)

    def is_readable(self, place: int) -> bool:
        """Check a start by its first block, or by what is behind a skippable frame."""
        if self._file.at(place + 1, 3) == _SKIPPABLE:
            return self._behind_skippable(place) is not None
        blocks = _Blocks(self._file, place, most=1)
        try:
            return any(_decoded(blocks)) or not blocks.fault
        except _BrokenError:
            return False

    def _checked(self, place: int, blocks: _Blocks, size: int) -> End:
        """Return the end of a frame of which all blocks were read, so many bytes of text."""
        if blocks.fault:
            return End(blocks.place, blocks.fault)
        if not blocks.header.has_checksum:
            end = End(blocks.place)
        elif len(self._file.at(blocks.place, 4)) < 4:
            fault = f"the checksum of a {self.name} is cut off"
            return End(self._file.end(), fault, whole=True)
        else:
            end = End(blocks.place + 4)
        if blocks.header.size not in (None, size):
            return End(end.place, f"a {self.name} of another size than it says", whole=True)
        if blocks.header.has_checksum and self._unchecked >= 0:
            try:
                for _ in _decoded(_Blocks(self._file, place, checked=True)):
                    pass
            except _BrokenError:
                return End(
                    end.place, f"wrong checksum of a {self.name}, whose text may be altered", whole=True
                )
        return end

    def _behind_skippable(self, place: int) -> int | None:
        head = self._file.at(place, 8)
        behind = place + 8 + int.from_bytes(head[4:], "little")
        if len(head) < 8 or behind > self._file.end() or not goes_on(self._file, self, behind):
            return None
        return behind


@dataclass(frozen=True)
class _Header:
    """A zstd frame's header; ``bare``: the same without the text's size, and without a checksum to come."""

    sent: bytes
    bare: bytes
    size: int | None
    has_checksum: bool

    @classmethod
    def at(cls, file: File, place: int) -> _Header:
        """Read the header of the frame that starts at a place."""
        head = file.at(place, 18).ljust(18, b"\0")
        flags = head[4]
        single, window_at = bool(flags & 0x20), 5
        names_at = window_at + (not single)
        size_at = names_at + (0, 1, 2, 4)[flags & 3]
        length = (single, 2, 4, 8)[flags >> 6]
        size = int.from_bytes(head[size_at : size_at + length], "little") + 256 * (length == 2)
        window = head[window_at : window_at + 1]
        if single:  # the window is as large as the text
            window = bytes([min(max(0, (size - 1).bit_length() - 10), _LARGEST) << 3])
        bare = head[:4] + bytes([flags & 0x1B]) + window + head[names_at:size_at]
        return cls(head[: size_at + length], bare, size if length else None, bool(flags & 4))


class _Blocks:
    """A zstd frame as a file for the decoder: with each call of `read` no more than one of its blocks.

    So what cannot be decoded is the block that was asked for last, and all before it are good. After ``most``
    of them the frame ends.
    """

    closed = False

    def __init__(self, file: File, place: int, *, most: int = -1, checked: bool = False) -> None:
        self._file, self._checked, self._most = file, checked, most
        self.header = _Header.at(file, place)
        self._waiting = self.header.sent if checked else self.header.bare
        self.block = place
        """Where the block begins that was asked for last."""
        self.good = 0
        """How many blocks are before it: more is asked for only when they are decoded."""
        self.place = place + len(self.header.sent)
        self.number, self.fault, self._last = 0, "", False

    @property
    def trouble(self) -> Exception | None:
        """An error of the file itself."""
        return self._file.trouble

    def close(self) -> None:
        """Leave the file open."""

    def read(self, n: int) -> bytes:
        """Return the rest of the header or of a block, or else the next block."""
        if not self._waiting and not self._last:
            self._waiting = self._next()
        handed, self._waiting = self._waiting[:n], self._waiting[n:]
        return handed

    def _next(self) -> bytes:
        self.block, self.good = self.place, self.number
        head = int.from_bytes(self._file.at(self.place, 3), "little")
        kind, size = head >> 1 & 3, head >> 3
        length = 3 + (1 if kind == _RLE else size)
        block = self._file.at(self.place, length)
        cut = len(block) < length
        if kind == _RESERVED or size > _MOST_OF_BLOCK:
            self.fault = "a zstd block of a kind or size that there is not"
        elif cut:
            self.fault = "a zstd frame is cut off, and its rest is missing"
        if self.fault and not (cut and kind == _RAW and len(block) > 3):
            self._last = True
            return b""
        self.number += 1
        self.place += len(block)
        self._last = bool(head & 1) or cut or self.number == self._most
        if self._last and self._checked:
            return block + self._file.at(self.place, 4)
        # of a raw block that is cut off, what is there is text
        head = (len(block) - 3 if kind == _RAW else size) << 3 | kind << 1 | self._last
        return head.to_bytes(3, "little") + block[3:]
