"""Lines followed by a stream: connections, gaps, repeats, and the markers of breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cbtools.raw.sequence import (
    LAST_TIME,
    NO_FEED,
    NO_FRAME,
    NO_NUMBER,
    NO_TIME,
    REMEMBERED,
    Run,
    Stream,
    later,
)


@dataclass
class Lines:
    """A piece's lines, one entry per line: what the sequence knows of them.

    ``framed``: the header is known (understood, or rejected with a header that can be read). ``level2``: of
    that channel. ``digests`` computes those of lines, from the bytes of the piece. ``lost_products``: line →
    products of which it holds what is not in the rows, of a rejected level2 frame (None: not known).
    ``level2_lines``, ``level2_products``: the lines that have level2 rows, and of which product.
    """

    sequence_num: npt.NDArray[np.int64]
    server_time: npt.NDArray[np.int64]
    capture_time: npt.NDArray[np.int64]
    feed: npt.NDArray[np.uint8]
    framed: npt.NDArray[np.bool_]
    rejected: npt.NDArray[np.bool_]
    level2: npt.NDArray[np.bool_]
    digests: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
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


def track(stream: Stream, lines: Lines, first_line: int) -> Tracked:
    """Follow a stream through a piece, whose first line has this number in its segment."""
    return _Pass(stream, lines, first_line).run()


class _OwnRuns:
    """The runs that products have of their own, in arrays: a break of all is one step for all of them.

    One by one, 8,000 gaps of 1,000 products that had a rejected line each took 51 s.
    """

    def __init__(self, runs: dict[str, Run], common: int) -> None:
        self._at = {product: k for k, product in enumerate(runs)}
        self._runs = np.array([*runs.values()] or np.empty((0, 3)), np.int64)
        self.other = {product for product, run in runs.items() if run.name != common}
        """Those whose run is not named like the common one."""

    def __getitem__(self, product: str) -> Run:
        return Run(*self._runs[self._at[product]].tolist())

    def get(self, product: str) -> Run | None:
        """Return a product's run, if it has one of its own."""
        return self[product] if product in self._at else None

    def put(self, product: str, run: Run, common: int) -> None:
        """Give a product a run of its own."""
        at = self._at.setdefault(product, len(self._at))
        if at == len(self._runs):
            self._runs = np.concatenate([self._runs, np.zeros((len(self._runs) + 8, 3), np.int64)])
        self._runs[at] = run
        (self.other.discard if run.name == common else self.other.add)(product)

    def break_all(self, time: int, common: int) -> set[str]:
        """Break all runs, as `Run.broken` does; return the products whose runs' names have to be noted."""
        names, breaks, floors = self._runs.T
        for times in (names, floors):
            np.maximum(np.minimum(times, LAST_TIME - 1) + 1, time, out=times)
        breaks += 1
        before, self.other = self.other, set()
        if len(self._at):
            differs = np.flatnonzero(names[: len(self._at)] != common)
            if len(differs):
                products = list(self._at)
                self.other = {products[k] for k in differs.tolist()}
        return before | self.other

    def runs(self) -> dict[str, Run]:
        """Return all of them."""
        return {product: Run(*run) for product, run in zip(self._at, self._runs.tolist(), strict=False)}


class _Pass:
    """One pass over a piece: runs of lines in order at once, the others one by one."""

    def __init__(self, state: Stream, lines: Lines, first_line: int) -> None:
        n = len(lines)
        self.state, self.lines, self.first_line = state, lines, first_line
        self.out = Tracked(
            np.empty(n, np.int32),
            np.zeros(n, np.bool_),
            np.empty(n, np.int64),
            [],
        )
        self.own = _OwnRuns(state.product_runs, state.run.name)
        for product in self.own.other:
            self.name_run(0, product)
        self.seen_to = 0  # the state knows of the level2 rows before this line
        self.numbered = np.flatnonzero(lines.framed & (lines.sequence_num != NO_NUMBER))
        steps = np.diff(lines.sequence_num[self.numbered])
        odd = np.flatnonzero(lines.rejected | ~lines.framed)
        of_feed = np.flatnonzero(lines.feed)
        switches = of_feed[1:][np.diff(lines.feed[of_feed].astype(np.int8)) != 0]
        if len(of_feed) and lines.feed[of_feed[0]] != state.feed:
            switches = np.append(of_feed[0], switches)
        self.stops = np.unique(np.concatenate([odd, switches, self.numbered[1:][steps != 1]])).tolist()
        self.stops.append(n)
        rises = (steps > 0).all() and (lines.sequence_num[self.numbered[:1]] > state.last).all()
        self.digests = self.digested(rising=bool(rises) and not len(switches))

    def digested(self, *, rising: bool) -> npt.NDArray[np.int64]:
        """Return the digests of the lines that may be a repeat, be repeated, or begin a connection.

        Of numbers that only rise, these are the first line and the last ones.
        """
        of = self.numbered
        if rising and len(of) > REMEMBERED:
            of = np.append(of[0], of[-REMEMBERED:])
        digests = np.zeros(len(self.lines), np.int64)
        digests[of] = self.lines.digests(of)
        return digests

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
        state.product_runs = self.own.runs()
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
            tail = numbered[-REMEMBERED:]
            of_frame = self.lines.sequence_num, self.lines.server_time, self.digests
            state.recent.extend(zip(*(values[tail].tolist() for values in of_frame), strict=True))
        elif not state.starts:
            state.unnumbered_first |= bool(self.lines.level2[start:end].any())
        of_feed = np.flatnonzero(self.lines.feed[start:end]) + start
        if len(of_feed):
            self.note_time(int(of_feed[-1]))
            state.sent = max(state.sent, int(self.lines.server_time[of_feed].max()))
        return True

    def step(self, i: int) -> None:
        """Take one line."""
        state, lines = self.state, self.lines
        if not lines.framed[i]:
            state.lost_line()
            return
        if lines.feed[i] == NO_FEED:  # of neither feed's books, and of neither's counter
            return
        if not state.started:
            time = self.time(i)
            state.origin = 0 if time == NO_TIME else time
            state.run = Run(state.origin)
            state.started, state.lost_first, state.pending = True, state.pending, False
        self.switch(i)
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

    def switch(self, i: int) -> None:
        """Begin a new connection where a line is of another feed than those before."""
        state, feed = self.state, int(self.lines.feed[i])
        if NO_FEED != state.feed != feed != NO_FEED:
            if not state.starts:
                state.starts.append(NO_FRAME)
            state.last = NO_NUMBER
            self.reconnect(i)
            self.new_run(i)
            state.pending = False
        state.feed = feed or state.feed
        if state.first_feed == NO_FEED != feed:
            state.first_feed, state.feed_time = feed, self.time(i)
            state.feed_sent = int(self.lines.server_time[i])

    def reconnect(self, i: int) -> None:
        """Leave behind what was known of the connection before."""
        state, sent = self.state, int(self.lines.server_time[i])
        state.connection += 1
        state.recent.clear()
        self.see(i)
        state.products.clear()
        if sent != NO_TIME:
            state.sent, state.sent_again = sent, True

    def numbered_step(self, i: int, number: int) -> bool:
        """Count a line with a number; false for an exact repeat."""
        state = self.state
        frame = (number, int(self.lines.server_time[i]), int(self.digests[i]))
        if state.last == NO_NUMBER:
            if not state.starts:
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
            state.starts.append(frame)
            self.reconnect(i)
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
        for product in self.own.break_all(time, state.run.name):
            self.name_run(i, product)

    def lose(self, i: int, products: list[str] | None) -> None:
        """Break the runs of products of which the rows do not tell all."""
        if products is None:
            self.new_run(i)
            return
        self.see(i)
        self.mark(i, self.state.unmarked.intersection(products))
        for product in dict.fromkeys(products):
            run = self.own.get(product) or self.state.run
            self.own.put(product, run.broken(self.time(i)), self.state.run.name)
            self.name_run(i, product)

    def mark(self, i: int, products: set[str]) -> None:
        """Write the markers of a break, with a server_time by which they sort behind the rows before them.

        It is that of the line, unless it lacks one, or one before it was later: of 30,378 real frames, 25
        were sent up to 4 ms before the one before. (Behind a reconnect, another server's clock counts.)
        """
        sent, latest = int(self.lines.server_time[i]), self.state.sent
        sent = max(sent, latest) if sent != NO_TIME or latest == NO_TIME else later(sent, latest)
        self.out.markers += ((i, product, sent) for product in sorted(products))
        self.state.unmarked -= products

    def see(self, end: int) -> None:
        """Note which products have level2 rows in the lines before this one."""
        products = self.products_from(self.seen_to, end)
        self.state.products |= products
        self.state.unmarked |= products
        self.seen_to = end

    def name_run(self, i: int, product: str) -> None:
        """Note a product's run; where it is named like the common one, the rows need not know."""
        name = self.own[product].name
        self.out.runs.append((i, product, None if name == self.state.run.name else name))

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
