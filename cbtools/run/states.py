"""Which of the states kept between runs a segment starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cbtools.book.state import BookState
from cbtools.book.states import FOLDER, kept_states
from cbtools.errors import ConfigError, StateError
from cbtools.raw.piece import Wanted
from cbtools.raw.sequence import NO_NUMBER, NO_TIME, Stream
from cbtools.raw.stream import Reading

KEEP_STATES: Final = 64

_DAY: Final = 86_400 * 10**9
_FIRST_BYTES: Final = 1 << 18


@dataclass(frozen=True)
class Found:
    """The state that a segment starts from, and of which segment it is; or none, and why."""

    state: BookState | None
    whence: str


def check_keep(keep: int) -> None:
    """Refuse a number of states that is none."""
    if type(keep) is not int or keep < 1:
        raise ConfigError(f"keep_states must be a whole number from 1 on, not {keep!r}")


def find_state(root: Path, path: Path, segment: str) -> Found:
    """Find the state that a segment continues, by its first frame.

    It is the one whose last number the first frame follows; else, of those that end before the segment
    begins, the last one, whose books are then unproven, as behind any gap. Neither is taken that is a day
    away, nor the segment's own, so that running it again gives the same again.
    """
    kept, unreadable = kept_states(root)
    kept = [state for state in kept if state.segment != segment]
    first = _first_frame(path) if kept else Stream()
    begin = first.first_time if first.first != NO_NUMBER else first.origin
    near = [state for state in kept if NO_TIME not in (state.time, begin) and abs(begin - state.time) < _DAY]
    chosen = [state for state in near if state.last != NO_NUMBER and first.first == state.last + 1]
    chosen = chosen or [state for state in near if state.time <= begin]
    for best in sorted(chosen, key=lambda state: (state.time > begin, abs(state.time - begin))):
        try:
            return Found(best.load(), best.segment)
        except StateError:
            unreadable += 1
    states = f"{unreadable} state{'s'[: unreadable > 1]} in {FOLDER} cannot be read"
    return Found(None, f"nothing ({states})" if unreadable else "nothing")


def _first_frame(path: Path) -> Stream:
    """Read a segment until its first frame."""
    reading = Reading([path], Wanted({}), chunk_bytes=_FIRST_BYTES)
    batches = iter(reading)
    for _ in batches:
        if reading.stream.started:
            break
    batches.close()  # type: ignore[attr-defined]
    return reading.stream
