"""The text of compressed recordings: all that their bytes yield, however damaged they are."""

from __future__ import annotations

import re
import struct
import zlib
from typing import IO, Any, Final

from cbtools.raw.parts import MOST, STEP, Damage, End, File, Unpacking, read_parts
from cbtools.raw.zstd import ZSTD, read_frames

_GZIP: Final = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")


def codec_of(start: bytes) -> str:
    """Return by which codec a file of these first four bytes is compressed, or an empty text."""
    return "gzip" if start.startswith(b"\x1f\x8b") else "zstd" if ZSTD.match(start) else ""


class Unpacked:
    """The text of a compressed file.

    Parameters
    ----------
    file : binary file
        From its first byte on; it must be able to seek.
    codec : str
        As `codec_of` returns it.
    """

    def __init__(self, file: IO[bytes], codec: str) -> None:
        held = File(file)
        self._found = read_parts(held, _Members(held)) if codec == "gzip" else read_frames(held)
        self._text = memoryview(b"")
        self.damage = ""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer from its start on; 0 where the file is damaged, as `damage` says, or ends."""
        self.damage = ""
        while not self._text:
            found = next(self._found, None)
            if isinstance(found, Damage):
                self.damage = str(found)
            if found is None or self.damage:
                return 0
            self._text = memoryview(found)  # type: ignore[arg-type]
        read = min(len(buffer), len(self._text))
        buffer[:read] = self._text[:read]
        self._text = self._text[read:]
        return read


class _Members:
    """The members of a gzip file."""

    name, start = "gzip member", _GZIP

    def __init__(self, file: File) -> None:
        self._file = file

    def read(self, place: int) -> Unpacking:
        """Read the text of the member that starts at a place."""
        place, inflate, crc, size = self._behind_header(place), zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
        while not inflate.eof:
            packed = self._file.at(place, STEP)
            before = inflate.copy()
            try:
                text = inflate.decompress(packed, MOST)
            except zlib.error as error:
                return (yield from _up_to_fault(before, packed, place, str(error)))
            if not packed and not text:
                return End(place, f"a {self.name} is cut off, and its rest is missing")
            crc, size = zlib.crc32(text, crc), size + len(text)
            yield text
            place += len(packed) - len(inflate.unused_data if inflate.eof else inflate.unconsumed_tail)
        trailer = self._file.at(place, 8)
        if len(trailer) < 8:
            fault = f"the checksum of a {self.name} is cut off"
            return End(place + len(trailer), fault, whole=True)
        if trailer != struct.pack("<II", crc, size & 0xFFFFFFFF):
            return End(place + 8, f"wrong checksum of a {self.name}, whose text may be altered", whole=True)
        return End(place + 8)

    def is_readable(self, place: int) -> bool:
        """Check a start by what is behind it: 1 KiB of text, or all of a member with the right checksum."""
        reading, size = self.read(place), 0
        try:
            while size < 1024:
                size += len(next(reading))
        except StopIteration as end:
            return not end.value.fault
        return True

    def _behind_header(self, place: int) -> int:
        flags, place = self._file.at(place, 4)[3], place + 10
        if flags & 4:  # extra fields
            place += 2 + int.from_bytes(self._file.at(place, 2), "little")
        for flag in (8, 16):  # name, comment
            if flags & flag:
                end = self._file.at(place, STEP).find(b"\0")  # to look further made many starts quadratic
                place = place + end + 1 if end >= 0 else self._file.end()
        return place + (flags & 2)  # a checksum of the header


def _up_to_fault(inflate: Any, packed: bytes, place: int, error: str) -> Unpacking:
    """Read text byte by byte, as zlib drops what it has made of bytes among which one is at fault."""
    fault = error.rpartition(": ")[2]
    for k in range(len(packed)):
        try:
            text = inflate.decompress(packed[k : k + 1])
        except zlib.error:
            return End(place + k, fault)
        if text:
            yield text
    return End(place + len(packed), fault)
