"""The work of a job: each segment of a folder exactly once, whatever happens in between.

Claim, write under temporary names, publish, manifest, state, release: in this order, and each step is on the
disk before the next. What a crash leaves behind tells how far it came: a segment in ``processing/`` whose
manifest and state are there needs only its release; any other is run again, to the same rows.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cbtools.book.states import KeptState, check_state_folder, keep_state, state_path
from cbtools.dataset.finished import datasets_in, remove_drafts, remove_parts
from cbtools.errors import CbtoolsError, DatasetError, SegmentError, StateError
from cbtools.lock import hold
from cbtools.raw.files import segment_name
from cbtools.run.draft import Drafted
from cbtools.run.flight import AHEAD, Flight, Plan, error_of, has_come
from cbtools.run.folders import Content, checksum, ending_of, segments_in
from cbtools.run.job_report import Outcome, RunLog
from cbtools.run.known import Known, name_before
from cbtools.run.manifest import FOLDER as RUNS
from cbtools.run.manifest import manifest_of, parameters_of
from cbtools.run.options import Options
from cbtools.run.order import Waiting, waiting_in
from cbtools.run.pool import WorkerPool, is_trouble
from cbtools.run.quarantine import remove_drafts as remove_quarantine_drafts
from cbtools.run.states import Found, Kept
from cbtools.stores import is_remote

Tell = Callable[[Mapping[str, Any]], object]

_BAD: Final = (SegmentError, StateError)
"""Our errors that are the segment's own. Those of the configuration and of writing are not."""
_PATIENCE: Final = 30.0
"""So many seconds a given executor has to end what it does, when a job is broken off."""


@contextmanager
def begun_job(options: Options, pool: WorkerPool, log: RunLog, tell: Tell) -> Iterator[Job]:
    """Have a job's folders to itself, and its workers; in the end what was not done is given back.

    Raises
    ------
    JobError
        If another job works on one of the folders.
    DatasetError
        If they cannot be written to, or a manifest cannot be read.
    """
    with ExitStack() as stack:
        folders = [options.folders.processing, options.task.root / RUNS]
        folders = [folder for folder in folders if not is_remote(folder)]  # nothing is locked in a store
        for folder in folders:
            stack.enter_context(hold(folder))
        check_state_folder(options.task.root)
        job = Job(options, pool, log, tell)
        stack.callback(job.give_back)
        stack.enter_context(pool)
        pool.check(folders)
        yield job


class Job:
    """Takes segments from ready/ and brings them to done/, with their rows in the dataset."""

    def __init__(self, options: Options, pool: WorkerPool, log: RunLog, tell: Tell) -> None:
        self._options, self._pool, self._log, self._tell = options, pool, log, tell
        self._folders, self._root = options.folders, options.task.root
        self._plan = Plan(options.task, pool, options.keep_states)
        self._known = Known(self._root)
        self._kept = Kept.under(self._root)
        self._parameters = parameters_of(options.task)
        self._queue: deque[Waiting] = deque()
        self._sums: dict[Path, Future[Content]] = {}
        self._flights: list[Flight] = []
        self.stopping = False
        """Set to have it finish what is begun, and take no more."""
        self._there = self._tidy_up()

    def _tidy_up(self) -> set[str]:
        """Remove what jobs before left that were killed, also of tables that this one does not write.

        Gives the names of segments of which there is something in the datasets.
        """
        there = set()
        claimed = {segment_name(path) for path in segments_in(self._folders.processing)}
        written = {table.table for table in self._options.task.config.tables}
        names = self._known.names | claimed
        remove_quarantine_drafts(self._root, names)
        for folder in datasets_in(self._root):
            there |= remove_drafts(folder, names)
            for segment in claimed - self._known.names if folder.name not in written else ():
                remove_parts(folder, segment)
        return there

    @property
    def has_in_hand(self) -> bool:
        """Whether segments are claimed."""
        return bool(self._flights)

    def waiting(self) -> list[Waiting]:
        """Give the segments to be run, in order."""
        return waiting_in(self._folders, self._options.takes)

    def work(self, waiting: Sequence[Waiting], pause: float | None = None) -> Iterator[None]:
        """Run segments, step by step; a step waits for the workers, but not for longer than ``pause`` s."""
        self._queue.extend(waiting)
        try:
            while self._flights or (self._queue and not self.stopping):
                self._mend()
                if not self.stopping:
                    self._take()
                if self.stopping:
                    self._let_go()
                else:
                    self._plan.go_on(self._flights, self._kept)
                if not self._land():
                    self._wait(pause)
                yield
        except OSError as error:
            raise DatasetError(f"{error.filename or self._root}: {error.strerror or error}") from error
        finally:
            self._queue.clear()

    def _tasks(self) -> list[Future[Any]]:
        return [*self._sums.values(), *(future for flight in self._flights for future in flight.tasks())]

    def _wait(self, pause: float | None) -> None:
        doing = [future for future in self._tasks() if not future.done()]
        if doing:
            wait(doing, pause, FIRST_COMPLETED)

    def _mend(self) -> None:
        """If workers died, have new ones, and done again what these were at."""
        errors = (error_of(future) for future in self._tasks())
        trouble = next((error for error in errors if error is not None and is_trouble(error)), None)
        if trouble is not None:
            self._pool.mend(trouble)
            self._sums = {path: future for path, future in self._sums.items() if has_come(future)}
            for flight in self._flights:
                flight.repeat()

    # --- taking segments

    def _take(self) -> None:
        """Claim the next ones, as far as there is room; their checksums tell under which names."""
        room = AHEAD * self._pool.size
        for one in list(self._queue)[:room]:
            if one.path not in self._sums:
                self._sums[one.path] = self._pool.submit(checksum, one.path)
        while self._queue and len(self._flights) < room:
            one = self._queue[0]
            future = self._sums.get(one.path)
            if future is None or not future.done() or not self._settle(one, future):
                return
            self._sums.pop(self._queue.popleft().path)

    def _settle(self, one: Waiting, future: Future[Content]) -> bool:
        """Claim a segment, or release it, or what else becomes of it; false if that must wait."""
        error = error_of(future)
        if error is not None:
            if is_trouble(error):
                return False
            if one.path.exists():  # else somebody has taken it away
                self._fail(one.path, one, one.segment, error)
            return True
        content = future.result()
        if any(flight.content == content for flight in self._flights):
            return False  # until it is known what becomes of the other
        if not self._is_there(one, content):
            self._flights.append(self._claimed(one, content))
        return True

    def _is_there(self, one: Waiting, content: Content) -> bool:
        """Release a segment whose content the dataset has."""
        segment = self._known.segment_of(content)
        if segment is None:
            return False
        outcome: Outcome = "skipped"
        reason = self._known.reason(content, self._parameters)
        if self._folders.is_claimed(one.path) and segment == one.segment:
            if not state_path(self._root, segment).exists():
                return False  # the job was interrupted between its manifest and its state
            outcome, reason = "done", "it was published before the job was interrupted"
        self._folders.release(one.path, delete=self._options.delete)
        self._told(outcome, one, one.segment, reason=reason)
        return True

    def _claimed(self, one: Waiting, content: Content) -> Flight:
        if self._folders.is_claimed(one.path):
            source = name_before(one.segment, content) + ending_of(one.path)
            return Flight(one, one.path, source, one.segment, content, shown=True, fresh=False)
        others = {flight.segment for flight in self._flights}
        others |= {other.segment for other in self._queue if self._folders.is_claimed(other.path)}
        segment = self._known.name_for(one.segment, content, others)
        path = self._folders.claim(one.path, segment)
        fresh = segment not in self._there
        self._there.add(segment)
        return Flight(one, path, one.path.name, segment, content, shown=False, fresh=fresh)

    # --- landing them

    def _land(self) -> bool:
        """Publish the first segment in hand, or what else becomes of it; false if it is not so far."""
        if not self._flights:
            return False
        flight = self._flights[0]
        if flight.draft is None or not flight.draft.done():
            return False
        error = error_of(flight.draft)
        if error is not None and is_trouble(error):
            return True  # to be mended
        true = self._kept.find(flight.waiting.first, flight.segment)
        if flight.start != true:
            self._redo(flight, true)
        elif error is None:
            self._publish(flight, flight.draft.result(), true)
        else:
            self._refuse(flight, error)
        return True

    def _redo(self, flight: Flight, start: Found) -> None:
        """Run a segment again, which started from what was told and did not come true."""
        if has_come(flight.draft):
            assert flight.draft is not None
            flight.draft.result().drop()
        flight.start, flight.draft, flight.after = start, None, None
        for other in self._flights:
            if other.draft is None and other is not flight:
                other.start = other.after = None

    def _publish(self, flight: Flight, drafted: Drafted, start: Found) -> None:
        flight.shown = True
        written, quarantine = drafted.publish()
        manifest = manifest_of(
            drafted,
            written,
            quarantine,
            task=self._options.task,
            content=flight.content,
            source=flight.source,
            started_from=start.whence,
        )
        manifest.save(self._root)
        try:
            keep_state(self._root, flight.segment, drafted.state, self._options.keep_states)
        except StateError as error:  # of writing, not of the segment
            raise DatasetError(str(error)) from error
        self._folders.release(flight.path, delete=self._options.delete)
        self._flights.remove(flight)
        self._known.add(flight.content.sha256, flight.segment, self._parameters)
        on_disk = Kept(tuple(replace(one, held=None) for one in self._kept.states), self._kept.unreadable)
        after = KeptState.of(self._root, flight.segment, drafted.state)
        self._kept = on_disk.then(after, self._options.keep_states)
        self._pool.done()
        self._told("done", flight.waiting, flight.segment, drafted=drafted, started_from=start.whence)

    def _refuse(self, flight: Flight, error: BaseException) -> None:
        _raise_unless_its_own(error)
        self._flights.remove(flight)
        if flight.shown:
            for folder in datasets_in(self._root):
                remove_parts(folder, flight.segment)
        self._fail(flight.path, flight.waiting, flight.segment, error)

    def _fail(self, path: Path, one: Waiting, segment: str, error: BaseException) -> None:
        """Put a bad segment aside, with what is wrong with it."""
        _raise_unless_its_own(error)
        ours = isinstance(error, CbtoolsError)
        told = str(error) if ours else "".join(traceback.format_exception(error))
        there = self._folders.fail(path, told)
        reason = str(error) if ours else f"{type(error).__name__}: {error}"
        self._told("failed", one, segment, reason=reason.replace(str(path), str(there)))
        if self._options.task.strict:
            raise error

    def _told(self, outcome: Outcome, one: Waiting, segment: str, **more: Any) -> None:
        row = self._log.add(
            outcome, segment=segment, source=one.path.name, source_bytes=one.source_bytes, **more
        )
        self._tell(row)

    # --- giving them back

    def _let_go(self) -> None:
        """Give back what is claimed and not begun."""
        for flight in [flight for flight in self._flights if flight.draft is None]:
            self._flights.remove(flight)
            if not flight.shown:
                self._folders.give_back(flight.path, flight.source)

    def give_back(self) -> None:
        """Give back all that is claimed, but for what may be published in part: that is the next job's."""
        running = [future for future in self._tasks() if not future.cancel()]
        wait(running, _PATIENCE)
        for flight in self._flights:
            with suppress(OSError):  # a disk that is gone: the segment stays claimed, and is the next job's
                if has_come(flight.draft):
                    assert flight.draft is not None
                    flight.draft.result().drop()
                if not flight.shown:
                    self._folders.give_back(flight.path, flight.source)
        self._flights.clear()


def _raise_unless_its_own(error: BaseException) -> None:
    """Raise what is no fault of a segment: that it cannot be written, the configuration, want of memory."""
    ours = isinstance(error, CbtoolsError) and not isinstance(error, _BAD)
    if ours or isinstance(error, MemoryError | OSError) or not isinstance(error, Exception):
        raise error
