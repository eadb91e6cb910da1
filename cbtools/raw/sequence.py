"""Connections, gaps, duplicates: what the frames' counter proves about a stream of lines.

A connection numbers all its frames, of all channels and products, from 0 on. What the counter proves is
written into ``unbroken_since`` of the level2 rows, since a book is proven only by a snapshot of the same
unbroken run. (It is in each row, since a filter by side or price leaves no markers, and the numbers of one
channel's frames skip those of the others.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

NO_NUMBER: Final = -1
NO_TIME: Final = int(np.iinfo(np.int64).min)
_LAST_TIME: Final = int(np.iinfo(np.int64).max)
_REMEMBERED: Final = 1024
"""An exact repeat is looked for among so many of the connection's last frames."""


@dataclass
class Lines:
    """A piece's lines, an entry a line: what the sequence is told of them.

    ``framed``: the header is known (understood, or rejected with a header that can be read). ``level2``: of
    that channel. ``lost_products``: line → products of which it holds what is not in the rows, of a rejected
    level2 frame (None: not known).
    ``level2_lines``, ``level2_products``: the lines that have level2 rows, and of which product.
    """

    sequence_num: npt.NDArray[np.int64]
    server_time: npt.NDArray[np.int64]
    capture_time: npt.NDArray[np.int64]
    channel: npt.NDArray[np.uint8]
    framed: npt.NDArray[np.bool_]
    rejected: npt.NDArray[np.bool_]
    level2: npt.NDArray[np.bool_]
    lost_products: dict[int, list[str] | None] = field(default_factory=dict)
    level2_lines: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    level2_products: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sequence_num)


@dataclass
class Tracked:
    """What the sequence says of a piece's lines.

    ``unbroken_since`` holds for all products but those that have runs of their own: ``runs`` is (from which
    line on, product, name of the run), with None where the product is back in the common run. ``gaps``: rows
    of the table. ``markers``: line, product and server_time of each marker of a break, in order.
    """

    connection: npt.NDArray[np.int32]
    repeated: npt.NDArray[np.bool_]
    unbroken_since: npt.NDArray[np.int64]
    runs: list[tuple[int, str, int | None]]
    gaps: list[tuple[int, int, int, int, int, list[str]]] = field(default_factory=list)
    markers: list[tuple[int, str, int]] = field(default_factory=list)


class Run(NamedTuple):
    """An unbroken run of frames, by its name; and how the name comes about, so that streams can be joined.

    Every break names the run behind it by the time of its line, but always later than the run before, so
    that two are never alike. After ``breaks`` of them the name is ``max(floor, first name + breaks)``:
    `after` tells it for another first name.
    """

    name: int = 0
    breaks: int = 0
    floor: int = NO_TIME

    def broken(self, time: int) -> Run:
        """Give the run behind a break."""
        return Run(_later(time, self.name), self.breaks + 1, _later(time, self.floor))

    def after(self, first: Run) -> Run:
        """Give the same run in a stream in which its first run is this one."""
        if not self.breaks:
            return first
        floor = max(self.floor, first.floor + self.breaks) if first.breaks else self.floor
        return Run(
            min(max(self.floor, first.name + self.breaks), _LAST_TIME), first.breaks + self.breaks, floor
        )


@dataclass
class Stream:
    """The state of the stream between two lines; streams that follow each other can be joined by `then`."""

    connection: int = 1
    last: int = NO_NUMBER
    last_time: int = NO_TIME
    """Receipt of the last frame."""
    sent: int = NO_TIME
    """The latest server_time of the connection; of the one before, where this one has none yet."""
    starts: list[tuple[int, int, int]] = field(default_factory=list)
    """The frames that began a connection: the first with a number, and each with which numbers fell back."""
    first_time: int = NO_TIME
    """Receipt of the first of them."""
    started: bool = False
    origin: int = 0
    """Name of the run that the first frame began."""
    lost_first: bool = False
    """A line was lost before the first frame."""
    mistaken: bool = False
    """Where streams were joined, repeats were taken for frames of a new connection; or the break is not where
    they join but behind frames of the other feed, which has no numbers: what was proven may not be."""
    unnumbered_first: bool = False
    """Level2 frames without a number came before the first with one."""
    pending: bool = False
    """A line was lost of which the next number will tell whether it was a frame."""
    run: Run = field(default_factory=Run)
    """That of all products but those of ``product_runs``."""
    product_runs: dict[str, Run] = field(default_factory=dict)
    products: set[str] = field(default_factory=set)
    """Those with level2 rows on this connection."""
    unmarked: set[str] = field(default_factory=set)
    """Those whose last level2 row is not the marker of a break: a break gives them one. (A marker for every
    break would be no news, and there would be as many as products times breaks.)"""
    unread: dict[str, bool] = field(default_factory=dict)
    """Those of which rows were left out behind their last one, and whether their book was proven then: the
    next frame breaks them."""
    recent: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def lost_line(self) -> None:
        """Note a line of which nothing can be read: the next number will tell whether it was a frame."""
        self.pending = True

    def track(self, lines: Lines, first_line: int) -> Tracked:
        """Follow the stream through a piece, whose first line has this number in its segment."""
        return _Pass(self, lines, first_line).run()

    def run_of(self, product: str) -> Run:
        """Give the run that a product is in."""
        return self.product_runs.get(product, self.run)

    def copy(self) -> Stream:
        """Give a stream of its own, to be tracked on."""
        return replace(
            self,
            starts=self.starts.copy(),
            product_runs=self.product_runs.copy(),
            products=self.products.copy(),
            unmarked=self.unmarked.copy(),
            unread=self.unread.copy(),
            recent=self.recent.copy(),
        )

    @property
    def first(self) -> int:
        """The first number."""
        return self.starts[0][0] if self.starts else NO_NUMBER

    def continued_by(self, other: Stream) -> bool:
        """Tell whether the other stream's first frame is the one due here, so that none is missing."""
        lost = self.pending or other.lost_first
        if other.first == NO_NUMBER or self.last == NO_NUMBER:
            return not lost
        return other.first == self.last + 1 and not (lost and other.unnumbered_first)

    def repeated_by(self, other: Stream) -> bool:
        """Tell whether the other, tracked alone, took a repeat of a frame of this one for a connection."""
        fell_back = other.starts[:1] if other.first <= self.last else other.starts[1:2]
        return any(frame in self.recent for frame in fell_back)

    def then(self, other: Stream) -> Stream:
        """Give the stream of this one's lines and then the other's, which was tracked on its own.

        It is that of all lines as one stream; but if the other begins with repeats of frames of this one,
        they count as a new connection.
        """
        if not other.started:
            return replace(self.copy(), pending=self.pending or other.pending)
        if not self.started:
            return replace(other.copy(), lost_first=self.pending or other.lost_first)
        joined, breaks = other.copy(), not self.continued_by(other)
        reconnected = NO_NUMBER < other.first <= self.last
        if other.connection == 1 and not reconnected:
            joined.products = self.products | other.products
            joined.recent = deque((*self.recent, *other.recent), maxlen=_REMEMBERED)
        joined.unmarked = other.unmarked | {
            product
            for product in self.unmarked - self.unread.keys()
            if not breaks and other.run_of(product).breaks == 0
        }
        joined.connection = self.connection + other.connection - 1 + reconnected
        joined.starts = [*self.starts, *other.starts[0 if reconnected or not self.starts else 1 :]]
        joined.first_time = self.first_time if self.starts else other.first_time
        joined.unnumbered_first = self.unnumbered_first or (not self.starts and other.unnumbered_first)
        if other.last == NO_NUMBER:
            joined.last = self.last
        if other.last_time == NO_TIME:
            joined.last_time = self.last_time
        if other.sent == NO_TIME or (other.connection == 1 and not reconnected):
            joined.sent = max(self.sent, other.sent)
        joined.lost_first, joined.origin = self.lost_first, self.origin
        within = breaks and other.unnumbered_first and other.starts and self.starts
        joined.mistaken = self.mistaken or other.mistaken or self.repeated_by(other) or bool(within)

        def run(product: str | None) -> Run:
            mine = self.run if product is None else self.run_of(product)
            others = other.run if product is None else other.run_of(product)
            mine = mine.broken(other.first_time) if breaks else mine
            return others.after(mine.broken(other.first_time) if product in self.unread else mine)

        joined.run = run(None)
        own = (*self.product_runs, *other.product_runs, *self.unread)
        joined.product_runs = {product: run(product) for product in own}
        return joined


class _Pass:
    """One pass over a piece: runs of lines in order at once, the others one by one."""

    def __init__(self, state: Stream, lines: Lines, first_line: int) -> None:
        n = len(lines)
        self.state, self.lines, self.first_line = state, lines, first_line
        self.out = Tracked(
            np.empty(n, np.int32),
            np.zeros(n, np.bool_),
            np.empty(n, np.int64),
            [(0, name, run.name) for name, run in state.product_runs.items() if run.name != state.run.name],
        )
        self.seen_to = 0  # the state knows of the level2 rows before this line
        self.numbered = np.flatnonzero(lines.framed & (lines.sequence_num != NO_NUMBER))
        steps = np.diff(lines.sequence_num[self.numbered])
        told = np.fromiter(lines.lost_products, np.int64)
        odd = np.flatnonzero(lines.rejected | ~lines.framed)
        self.stops = np.unique(np.concatenate([odd, told, self.numbered[1:][steps != 1]])).tolist()
        self.stops.append(n)

    def run(self) -> Tracked:
        i, stop, state = 0, 0, self.state
        while i < len(self.lines):
            while self.stops[stop] < i:
                stop += 1
            end = self.stops[stop]
            if not self.in_order(i, end):
                end = i + 1
                self.step(i)
            self.out.connection[i:end] = state.connection
            self.out.unbroken_since[i:end] = state.run.name
            i = end
        self.see(len(self.lines))
        return self.out

    def in_order(self, start: int, end: int) -> bool:
        """Take lines that continue the sequence at once, if these do."""
        state = self.state
        if start == end or not state.started or state.pending or state.unread:
            return False
        first, last = np.searchsorted(self.numbered, (start, end))
        if first < last:
            numbered = self.numbered[first:last]
            if state.last == NO_NUMBER or self.lines.sequence_num[numbered[0]] != state.last + 1:
                return False
            state.last = int(self.lines.sequence_num[numbered[-1]])
            tail = numbered[-_REMEMBERED:]
            state.recent.extend(
                zip(
                    self.lines.sequence_num[tail].tolist(),
                    self.lines.server_time[tail].tolist(),
                    self.lines.channel[tail].tolist(),
                    strict=True,
                )
            )
        elif not state.starts:
            state.unnumbered_first |= bool(self.lines.level2[start:end].any())
        self.note_time(end - 1)
        state.sent = max(state.sent, int(self.lines.server_time[start:end].max()))
        return True

    def step(self, i: int) -> None:
        """Take one line."""
        state, lines = self.state, self.lines
        if not lines.framed[i]:
            state.lost_line()
            return
        if not state.started:
            time = self.time(i)
            state.origin = 0 if time == NO_TIME else time
            state.run = Run(state.origin)
            state.started, state.lost_first, state.pending = True, state.pending, False
        number = int(lines.sequence_num[i])
        if number == NO_NUMBER:
            state.unnumbered_first |= bool(lines.level2[i]) and not state.starts
            if state.pending and (lines.level2[i] or state.last == NO_NUMBER):
                self.new_run(i)
                state.pending = False
        elif not self.numbered_step(i, number):
            self.out.repeated[i] = True
            return
        self.note_time(i)
        if state.unread:
            unread, state.unread = list(state.unread), {}
            self.lose(i, unread)
        if i in lines.lost_products:
            self.lose(i, lines.lost_products[i])

    def numbered_step(self, i: int, number: int) -> bool:
        """Take a line with a number; false for an exact repeat."""
        state = self.state
        frame = (number, int(self.lines.server_time[i]), int(self.lines.channel[i]))
        if state.last == NO_NUMBER:
            state.first_time = self.time(i)
            state.starts.append(frame)
            if state.pending:
                self.new_run(i)
        elif number > state.last + 1:
            self.gap(i, state.last + 1, number)
            self.new_run(i)
        elif number <= state.last:
            if frame[1] != NO_TIME and frame in state.recent:
                return False
            state.connection += 1
            state.starts.append(frame)
            state.recent.clear()
            self.see(i)
            state.products.clear()
            if frame[1] != NO_TIME:
                state.sent = frame[1]
            if number > 0:
                self.gap(i, 0, number)
            self.new_run(i)
        state.pending = False
        state.last = number
        state.recent.append(frame)
        return True

    def time(self, i: int) -> int:
        capture = int(self.lines.capture_time[i])
        return capture if capture != NO_TIME else int(self.lines.server_time[i])

    def note_time(self, i: int) -> None:
        time = self.time(i)
        self.state.last_time = time if time != NO_TIME else self.state.last_time
        self.state.sent = max(self.state.sent, int(self.lines.server_time[i]))

    def new_run(self, i: int) -> None:
        """Break the runs of all products at a line.

        Each product's run is named by its own runs, so that no other product changes its names.
        """
        state, time = self.state, self.time(i)
        self.see(i)
        self.mark(i, state.unmarked)
        state.run = state.run.broken(time)
        for product, run in state.product_runs.items():
            self.name_run(i, product, run.broken(time))

    def lose(self, i: int, products: list[str] | None) -> None:
        """Break the runs of products of which the rows do not tell all."""
        if products is None:
            self.new_run(i)
            return
        self.see(i)
        self.mark(i, self.state.unmarked.intersection(products))
        for product in dict.fromkeys(products):
            self.name_run(i, product, self.state.run_of(product).broken(self.time(i)))

    def mark(self, i: int, products: set[str]) -> None:
        """Write the markers of a break, with a server_time by which they sort behind the rows before them.

        It is that of the line, unless it lacks one, or one before it was later: of 30,378 real frames, 25
        were sent up to 4 ms before the one before. (Behind a reconnect, another server's clock counts.)
        """
        sent, latest = int(self.lines.server_time[i]), self.state.sent
        sent = max(sent, latest) if sent != NO_TIME or latest == NO_TIME else _later(sent, latest)
        self.out.markers += ((i, product, sent) for product in sorted(products))
        self.state.unmarked -= products

    def see(self, end: int) -> None:
        """Note which products have level2 rows in the lines before this one."""
        products = self.products_from(self.seen_to, end)
        self.state.products |= products
        self.state.unmarked |= products
        self.seen_to = end

    def name_run(self, i: int, product: str, run: Run) -> None:
        """Give a product a run of its own; where it is named like the common one, the rows need not know."""
        self.state.product_runs[product] = run
        self.out.runs.append((i, product, None if run.name == self.state.run.name else run.name))

    def gap(self, i: int, expected: int, got: int) -> None:
        self.see(i)
        self.out.gaps.append(
            (
                self.state.connection,
                expected,
                got,
                int(self.lines.capture_time[i]),
                self.first_line + i,
                sorted(self.state.products),
            )
        )

    def products_from(self, start: int, end: int) -> set[str]:
        """Give the products with level2 rows in these lines."""
        a, b = (int(k) for k in np.searchsorted(self.lines.level2_lines, (start, end)))
        products = self.lines.level2_products[a:b]
        repeated = self.out.repeated[self.lines.level2_lines[a:b]]
        return {product for product, is_repeat in zip(products, repeated, strict=True) if not is_repeat}


def _later(time: int, run: int) -> int:
    """Name the run behind another; the last instant that a column can hold stays the last."""
    return min(max(time, run + 1), _LAST_TIME)
