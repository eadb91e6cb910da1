"""A compressed file as one part after another, and how reading goes on behind a damaged one.

Parts are members of gzip (RFC 1952) or frames of zstd (RFC 8878). Between and behind them zeros are padding.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Final, Protocol

STEP: Final = 1 << 15
"""So many bytes of a file are decompressed at a time, and with gzip looked at one by one where they fail."""
MOST: Final = 1 << 18
"""So many bytes of text are made at a time, whatever a file's bytes swell to."""


class Damage(str):
    """What is wrong with a compressed file at a place, and how much of it could not be read."""

    __slots__ = ()


class File:
    """A file's bytes by their places; ``trouble``: an error of the file itself, not of what is in it."""

    closed = False  # as pyarrow wants it of a file

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._begin, self._held = file, 0, b""
        self.trouble: Exception | None = None

    def read(self, n: int) -> bytes:
        """Read on."""
        try:
            return self._file.read(n)
        except Exception as error:
            self.trouble = error  # pyarrow passes it on, and it must not be taken for damage
            raise

    def close(self) -> None:
        """Leave the file open: it is not ours."""

    def at(self, place: int, n: int) -> bytes:
        """Return so many bytes from a place on, fewer at the file's end."""
        begin = place - self._begin
        if not 0 <= begin <= len(self._held) - n:
            self._file.seek(place)
            self._begin, begin, parts, missing = place, 0, [], max(n, MOST)
            while missing and (part := self.read(missing)):
                parts.append(part)
                missing -= len(part)
            self._held = b"".join(parts)
        return self._held[begin : begin + n]

    def find(self, pattern: re.Pattern[bytes], place: int) -> Iterator[int]:
        """Find where a pattern of up to four bytes matches, from a place on."""
        while text := self.at(place, MOST):
            for match in pattern.finditer(text):
                yield place + match.start()
            if len(text) < 4:
                return
            place += len(text) - 3

    def behind_zeros(self, place: int) -> int:
        """Return the first place from here on that holds no zero; else the file's end."""
        while text := self.at(place, STEP):
            zeros = len(text) - len(text.lstrip(b"\0"))
            place += zeros
            if zeros < len(text):
                break
        return place

    def end(self) -> int:
        """Return the file's size."""
        return self._file.seek(0, 2)


@dataclass(frozen=True)
class End:
    """Where reading a part ended: behind it, or at a fault; ``whole``: all of its text was read."""

    place: int
    fault: str = ""
    whole: bool = False


Unpacking = Generator[bytes, None, End]


class Parts(Protocol):
    """How a codec's parts are read."""

    name: str
    start: re.Pattern[bytes]

    def read(self, place: int) -> Unpacking:
        """Read the text of the part that starts at a place."""

    def is_readable(self, place: int) -> bool:
        """Check whether what looks like a part's start is one."""


def read_parts(file: File, parts: Parts) -> Iterator[bytes | Damage]:
    """Read all text, and where it is damaged a `Damage`."""
    place = start = 0
    while file.at(place, 1):
        end = End(place, f"no {parts.name} begins here")
        if parts.start.match(file.at(place, 4)):
            start = place
            end = yield from parts.read(place)
        following = file.behind_zeros(end.place)
        if end.fault:
            if not (end.whole and goes_on(file, parts, end.place)):
                following = _next_readable(file, parts, start + 1)
            yield _damage(end, following)
        place = following


def goes_on(file: File, parts: Parts, place: int) -> bool:
    """Check whether a part begins at a place or behind its padding, or the file ends there."""
    start = file.at(file.behind_zeros(place), 4)
    return not start or parts.start.match(start) is not None


def _next_readable(file: File, parts: Parts, place: int) -> int:
    """Find the next part from a place on; else return the file's end.

    From right behind the start of the last one on: who knows how far behind its end the damage showed.
    """
    found = (start for start in file.find(parts.start, place) if parts.is_readable(start))
    return next(found, file.end())


def _damage(end: End, following: int) -> Damage:
    lost = max(0, following - end.place)
    more = f"{lost:,} compressed bytes could not be read" if lost else "its text was read to the end"
    fault = f"{end.fault} (byte {end.place:,} of the file)"
    return Damage(f"{fault}; {more}" if lost or end.whole else fault)
