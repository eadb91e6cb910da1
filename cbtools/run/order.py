"""In which order segments are run: that of their frames, whatever names and the receiver's clock say."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from cbtools.errors import SegmentError
from cbtools.raw.files import is_compressed, read_end, segment_name
from cbtools.raw.piece import Decoder, Wanted
from cbtools.raw.sequence import NO_NUMBER, NO_TIME, Stream
from cbtools.raw.stream import Reading
from cbtools.raw.tracking import track
from cbtools.run.folders import Folders
from cbtools.run.states import DAY, first_frame, first_time

_END_BYTES: Final = 1 << 18
_LAST: Final = (1 << 63) - 1

Chains = list[list["Waiting"]]


@dataclass(frozen=True)
class Waiting:
    """A segment that waits to be run: its file, its size in bytes, and its first frame, if it has one."""

    path: Path
    source_bytes: int
    first: Stream = field(default_factory=Stream)

    @classmethod
    def at(cls, path: Path) -> Waiting | None:
        """Look at a segment; None if it is gone. One that cannot be read waits, too: its run tells why."""
        try:
            return cls(path, path.stat().st_size, first_frame(path))
        except FileNotFoundError:
            return None
        except SegmentError:
            return cls(path, 0) if path.exists() else None

    @property
    def segment(self) -> str:
        """Name of the segment."""
        return segment_name(self.path)

    @property
    def begin(self) -> int:
        """When its first frame was sent, or received if that is not known; ns."""
        sent = self.first.starts[0][1] if self.first.starts else NO_TIME
        return sent if sent != NO_TIME else first_time(self.first)

    def end(self) -> int:
        """Tell when its last frame was sent, or received."""
        last = last_frames(self.path)
        sent = last.recent[-1][1] if last.recent else NO_TIME
        return sent if sent != NO_TIME else last.last_time


def in_order(waiting: Sequence[Waiting], last: Callable[[Path], Stream] | None = None) -> list[Waiting]:
    """Put segments in the order of their frames.

    A segment whose first frame has the number due behind another's last, or repeats one of its last, follows
    it; else the time of the first frame decides. The streams of two recorders are merged by time. ``last``
    reads a segment's last frames; it is not asked where the first frames' numbers and times agree.
    """
    by_time = sorted(waiting, key=_by_time)
    numbers = [one.first.first for one in by_time if one.first.starts]
    if all(a < b for a, b in pairwise(numbers)):
        return by_time
    return _merged(_chains(by_time, last_frames if last is None else last))


def waiting_in(folders: Folders, takes: Callable[[Waiting], bool]) -> list[Waiting]:
    """Look at the segments that wait, in order: those claimed by an interrupted job, and those asked for."""
    found = (Waiting.at(path) for path in folders.waiting())
    return in_order(
        [one for one in found if one is not None and (folders.is_claimed(one.path) or takes(one))]
    )


def last_frames(path: Path) -> Stream:
    """Read a segment's last frames: `Stream.recent`, the last of them with the number `Stream.last`."""
    if is_compressed(path):
        reading = Reading([path], Wanted({}))
        for _ in reading:
            pass
        return reading.stream
    size = _END_BYTES
    while True:
        piece, stream = read_end(path, size), Stream()
        track(stream, Decoder(Wanted({}))(piece).lines, 1)
        if stream.last != NO_NUMBER or not piece.offset:
            return stream
        size *= 4


def _by_time(one: Waiting) -> tuple[int, str]:
    return (one.begin if one.first.started else _LAST), one.path.name


def _chains(by_time: Sequence[Waiting], last: Callable[[Path], Stream]) -> Chains:
    """Divide segments into those that follow each other."""
    numbered = [one for one in by_time if one.first.starts]
    begins = {one.first.starts[0] for one in numbered}
    ends_at: defaultdict[int, list[Waiting]] = defaultdict(list)
    holds: defaultdict[tuple[int, int, int], list[Waiting]] = defaultdict(list)
    for one in numbered:
        end = last(one.path)
        ends_at[end.last].append(one)
        for frame in begins.intersection(end.recent) - {one.first.starts[0]}:
            holds[frame].append(one)
    behind: dict[Path, Waiting] = {}
    for one in numbered:
        frame = one.first.starts[0]
        before = ends_at[frame[0] - 1] + (holds[frame] if frame[1] != NO_TIME else [])
        near = [b for b in before if abs(one.begin - b.begin) < DAY and b is not one and b.path not in behind]
        if near:
            behind[min(near, key=lambda other: abs(one.begin - other.begin)).path] = one
    linked = {one.path for one in behind.values()}
    chains = [[one] for one in by_time if one.path not in linked]
    for chain in chains:
        while (following := behind.get(chain[-1].path)) is not None:
            chain.append(following)
    reached = {one.path for chain in chains for one in chain}
    return chains + [[one] for one in by_time if one.path not in reached]  # each behind another, in a ring


def _merged(chains: Chains) -> list[Waiting]:
    """Merge chains by time; none goes back behind its own last."""
    ordered: list[Waiting] = []
    heap: list[tuple[int, str, int, int]] = []

    def push(chain: int, place: int, earliest: int) -> None:
        if place < len(chains[chain]):
            time, name = _by_time(chains[chain][place])
            heapq.heappush(heap, (max(time, earliest), name, chain, place))

    for chain in range(len(chains)):
        push(chain, 0, NO_TIME)
    while heap:
        time, _, chain, place = heapq.heappop(heap)
        ordered.append(chains[chain][place])
        push(chain, place + 1, time)
    return ordered
