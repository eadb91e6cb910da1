"""Which of the states kept between runs a segment starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cbtools.book.state import BookState
from cbtools.book.states import FOLDER, KeptState, kept_states
from cbtools.errors import ConfigError, SegmentError, StateError
from cbtools.raw.delays import LATE
from cbtools.raw.files import MAX_LINE_MB
from cbtools.raw.piece import Wanted
from cbtools.raw.sequence import NO_NUMBER, NO_TIME, Stream
from cbtools.raw.stream import Reading

KEEP_STATES: Final = 32

DAY: Final = 86_400 * 10**9
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


def find_state(root: Path, first: Stream, segment: str) -> Found:
    """Find the state kept under a root that a segment continues, by its first frame: as `Kept.find`."""
    return Kept.under(root).find(first, segment)


@dataclass(frozen=True)
class Kept:
    """The states that a segment may start from, the newest at the end; and how many cannot be read."""

    states: tuple[KeptState, ...] = ()
    unreadable: int = 0

    @classmethod
    def under(cls, root: Path) -> Self:
        """Read what is known of the states under a root."""
        kept, unreadable = kept_states(root)
        return cls(tuple(sorted(kept, key=_written_at)), unreadable)

    def then(self, state: KeptState, keep: int) -> Kept:
        """Give what is kept once this state is, too."""
        others = [one for one in self.states if one.path != state.path]
        return Kept((*others[max(0, len(others) - keep + 1) :], state), self.unreadable)

    def find(self, first: Stream, segment: str) -> Found:
        """Find the state that a segment continues.

        It is the last one of whose frames the segment's first one is a repeat; or the one whose last number
        the first frame follows; or, of those that end before the segment begins, the last one, whose books
        are then unproven, as behind any gap. One that is a day away is not continued, whatever the numbers
        say. None is taken that the segment itself is in, so that running it again gives the same again.
        """
        unreadable = self.unreadable
        for best in self._by_fitness(first, segment):
            try:
                state = best.load()
                return Found(state if self._is_near(best, first) else state.aged(), best.segment)
            except StateError:
                unreadable += 1
        states = f"{unreadable} state{'s'[: unreadable > 1]} in {FOLDER} cannot be read"
        return Found(None, f"nothing ({states})" if unreadable else "nothing")

    def _by_fitness(self, first: Stream, segment: str) -> list[KeptState]:
        kept = [state for state in self.states if segment not in (state.segment, *state.segments)]
        begin = first_time(first)
        timed = [state for state in kept if NO_TIME not in (state.time, begin)]
        before = sorted(timed, key=lambda state: (state.time > begin + LATE, abs(state.time - begin)))
        near = [state for state in before if self._is_near(state, first)]
        frame = first.starts[0] if first.starts and first.starts[0][1] != NO_TIME else None
        repeated = sorted((state for state in near if frame in state.recent), key=_later_first)
        follows = [state for state in near if NO_NUMBER < state.last == first.first - 1]
        # a clock may step back where one ends: the exchange's own did so at 254 of 9,946 real lines
        return repeated or follows or sorted((s for s in timed if s.time <= begin + LATE), key=_later_first)

    @staticmethod
    def _is_near(state: KeptState, first: Stream) -> bool:
        """Whether a state ends within a day of the first frame: their numbers may be of one connection."""
        return abs(first_time(first) - state.time) < DAY


def first_time(first: Stream) -> int:
    """Return when the first frame was received, or sent; of one without a time, when a later one was."""
    time = first.first_time if first.first != NO_NUMBER else first.origin or NO_TIME
    return time if time != NO_TIME else first.last_time


def _written_at(state: KeptState) -> int:
    try:
        return state.path.stat().st_mtime_ns
    except FileNotFoundError:  # gone, by another run's keeping of its own
        return 0


def _later_first(state: KeptState) -> int:
    return -state.time


def first_frame(path: Path) -> Stream:
    """Read a segment until its first frame."""
    return _read_first(path).stream


def first_of_recording(path: Path, max_line_mb: float) -> Stream:
    """Read a segment until its first frame.

    Raises
    ------
    SegmentError
        If it is not a recording: it has lines, and of none of them a frame's header can be read.
    """
    reading = _read_first(path, max_line_mb)
    if why := reading.report.no_recording:
        raise SegmentError(f"{path} is not a recording: {', '.join(why.values())}")
    return reading.stream


def _read_first(path: Path, max_line_mb: float = MAX_LINE_MB) -> Reading:
    # whole: that objects stand one behind the other is seen behind the first one's header
    wanted = Wanted({}, whole=True)
    reading = Reading([path], wanted, chunk_bytes=_FIRST_BYTES, max_line_mb=max_line_mb)
    batches = iter(reading)
    for _ in batches:
        if reading.has_frames and reading.stream.started:
            break
    batches.close()  # type: ignore[attr-defined]
    return reading
