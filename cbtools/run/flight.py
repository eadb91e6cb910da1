"""Segments in hand: from which state each starts, and which task comes next.

A segment's rows depend on those before it by one thing alone, the state that it starts from. So that several
can be run side by side, that is told ahead of time: by the effects of the segments in between, which are read
many times as fast as the segments are run, and composed. What was told is compared with what came of it
before anything is published: so the rows are those of one segment after another, whatever was told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cbtools.book.state import BookState
from cbtools.book.states import KeptState
from cbtools.errors import SegmentError
from cbtools.raw.report import counted
from cbtools.run.draft import Drafted, Task, draft_segment, read_effect
from cbtools.run.folders import Content
from cbtools.run.order import Waiting
from cbtools.run.pool import WorkerPool
from cbtools.run.states import Found, Kept

AHEAD: Final = 2
"""So many times as many segments as there are workers are in hand."""


@dataclass(eq=False)
class Flight:
    """A claimed segment: ``source`` is its file's name before, ``segment`` that under which it is run."""

    waiting: Waiting
    path: Path
    source: str
    segment: str
    content: Content
    shown: bool
    """Parts of it may be published: an interrupted job had claimed it, or it is being published."""
    fresh: bool
    """Nothing of it is in the datasets, not even of an attempt."""
    start: Found | None = None
    draft: Future[Drafted] | None = None
    effect: Future[BookState] | None = None
    after: KeptState | None = None
    """The state behind it: first as told by its effect, then as it came out."""

    def tasks(self) -> Iterator[Future[Any]]:
        """Give what is done for it, or was."""
        yield from (future for future in (self.draft, self.effect) if future is not None)

    def repeat(self) -> None:
        """Have done again what did not come to its end."""
        self.draft = self.draft if has_come(self.draft) else None
        self.effect = self.effect if has_come(self.effect) else None


class Plan:
    """Decides which task comes next, over the segments in hand, in their order."""

    def __init__(self, task: Task, pool: WorkerPool, keep: int) -> None:
        self._task, self._pool, self._keep = task, pool, keep

    def go_on(self, flights: Sequence[Flight], kept: Kept) -> None:
        """Give the workers what can be done now: runs first, then effects that others wait for."""
        self._look_ahead(flights, kept)
        idle = self._pool.size - sum(
            1 for flight in flights for future in flight.tasks() if not future.done()
        )
        for flight in flights:
            if idle > 0 and flight.draft is None and flight.start is not None:
                flight.draft = self._pool.submit(
                    draft_recording,
                    self._task,
                    flight.path,
                    flight.segment,
                    flight.start.state,
                    fresh=flight.fresh,
                )
                flight.fresh = False
                idle -= 1
        for flight in flights[:-1]:
            if idle > 0 and flight.after is None and flight.effect is None:
                flight.effect = self._pool.submit(read_effect, self._task, flight.path)
                idle -= 1

    def _look_ahead(self, flights: Sequence[Flight], kept: Kept) -> None:
        """Tell the starts, as far as the states behind those before are known."""
        for flight in flights:
            if flight.start is None:
                flight.start = kept.find(flight.waiting.first, flight.segment)
            if flight.draft is not None and error_of(flight.draft) is not None:
                continue  # it leaves no state
            if flight.draft is not None and has_come(flight.draft):
                flight.after = self._kept(flight, flight.draft.result().state)
            elif flight.after is None and flight.effect is not None and has_come(flight.effect):
                before = BookState() if flight.start.state is None else flight.start.state
                flight.after = self._kept(flight, before.then(flight.effect.result()))
            if flight.after is None:
                return
            kept = kept.then(flight.after, self._keep)

    def _kept(self, flight: Flight, state: BookState) -> KeptState:
        if flight.after is not None and flight.after.held is state:
            return flight.after
        return KeptState.of(self._task.root, flight.segment, state)


def draft_recording(task: Task, path: Path, segment: str, start: BookState | None, *, fresh: bool) -> Drafted:
    """Write a segment's tables under temporary names, if it is a recording."""
    drafted = draft_segment(task, path, segment, start, fresh=fresh)
    raw = drafted.raw
    if (raw.rejects or raw.damages) and not (raw.frames or raw.duplicates or raw.errors):
        drafted.drop()
        why = ", ".join(raw.no_recording.values())
        why = why or f"none of its lines is understood ({counted(raw.rejects)})"
        raise SegmentError(f"{path} is not a recording: {why}")
    return drafted


def error_of(future: Future[Any]) -> BaseException | None:
    """Give what a task has failed by; None if it has not, or not yet."""
    if future.cancelled():
        return CancelledError("a task was cancelled")
    return future.exception() if future.done() else None


def has_come(future: Future[Any] | None) -> bool:
    """Tell whether a task has its result."""
    return future is not None and future.done() and error_of(future) is None
