"""The state of a stream of lines: its connections, and what the frames' counter proves.

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

NO_NUMBER: Final = -1
NO_TIME: Final = int(np.iinfo(np.int64).min)
LAST_TIME: Final = int(np.iinfo(np.int64).max)
REMEMBERED: Final = 1024
"""An exact repeat is looked for among this number of the connection's last frames."""

NO_FEED, ADVANCED, EXCHANGE = range(3)
"""The feed that a line is of; an error frame, or a rejected message without a book, may be of either."""

Numbered = tuple[int, int, int]
"""A frame with a number: this, its server_time, and the digest of its content, by which a repeat is known."""


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
        return Run(later(time, self.name), self.breaks + 1, later(time, self.floor))

    def after(self, first: Run) -> Run:
        """Give the same run in a stream in which its first run is this one."""
        if not self.breaks:
            return first
        floor = max(self.floor, first.floor + self.breaks) if first.breaks else self.floor
        return Run(
            min(max(self.floor, first.name + self.breaks), LAST_TIME), first.breaks + self.breaks, floor
        )


NO_FRAME: Final = (NO_NUMBER, NO_TIME, 0)
"""Stands for a frame that is not there."""


@dataclass
class Stream:
    """The state of the stream between two lines; streams that follow each other can be joined by `then`."""

    connection: int = 1
    last: int = NO_NUMBER
    last_time: int = NO_TIME
    """Receipt of the last frame."""
    sent: int = NO_TIME
    """The latest server_time of the connection; of the one before, where this one has none yet."""
    sent_again: bool = False
    """A new connection began with a server_time of its own."""
    feed: int = NO_FEED
    """That of the last frame of which it is known."""
    first_feed: int = NO_FEED
    """That of the first of them; and when this was received, and sent."""
    feed_time: int = NO_TIME
    feed_sent: int = NO_TIME
    starts: list[Numbered] = field(default_factory=list)
    """The frames that began a connection: the first with a number, and each with which numbers fell back.
    Before all of them NO_FRAME, if the feed changed before the first with a number."""
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
    recent: deque[Numbered] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def lost_line(self) -> None:
        """Note a line of which nothing can be read: the next number will tell whether it was a frame."""
        self.pending = True

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

    def switched_by(self, other: Stream) -> bool:
        """Return whether the other stream's first frame is of another feed than the last one here."""
        return NO_FEED != self.feed != other.first_feed != NO_FEED

    def continued_by(self, other: Stream) -> bool:
        """Return whether the other stream's first frame is the one due here, so that none is missing."""
        if self.switched_by(other):
            return False
        lost = self.pending or other.lost_first
        if other.first == NO_NUMBER or self.last == NO_NUMBER:
            return not lost
        return other.first == self.last + 1 and not (lost and other.unnumbered_first)

    def repeated_by(self, other: Stream) -> bool:
        """Tell whether the other, tracked alone, took a repeat of a frame of this one for a connection."""
        fell_back = other.starts[:1] if other.first <= self.last else other.starts[1:2]
        return not self.switched_by(other) and any(frame in self.recent for frame in fell_back)

    def then(self, other: Stream) -> Stream:
        """Give the stream of this one's lines and then the other's, which was tracked on its own.

        It is that of all lines as one stream; but if the other begins with repeats of frames of this one,
        they count as a new connection.
        """
        if not other.started:
            return replace(self.copy(), pending=self.pending or other.pending)
        if not self.started:
            return replace(other.copy(), lost_first=self.pending or other.lost_first)
        joined, breaks, switched = other.copy(), not self.continued_by(other), self.switched_by(other)
        reconnected = switched or NO_NUMBER < other.first <= self.last
        if other.connection == 1 and not reconnected:
            joined.products = self.products | other.products
            joined.recent = deque((*self.recent, *other.recent), maxlen=REMEMBERED)
        joined.unmarked = other.unmarked | {
            product
            for product in self.unmarked - self.unread.keys()
            if not breaks and other.run_of(product).breaks == 0
        }
        joined.connection = self.connection + other.connection - 1 + reconnected
        joined.unnumbered_first = self.unnumbered_first or (not self.starts and other.unnumbered_first)
        if not other.starts and not switched:
            joined.last = self.last
        if other.last_time == NO_TIME:
            joined.last_time = self.last_time
        joined.lost_first, joined.origin = self.lost_first, self.origin
        within = breaks and other.unnumbered_first and other.starts and self.starts and not switched
        joined.mistaken = self.mistaken or other.mistaken or self.repeated_by(other) or bool(within)
        self._join_starts(joined, other, reconnected)

        def run(product: str | None) -> Run:
            mine = self.run if product is None else self.run_of(product)
            others = other.run if product is None else other.run_of(product)
            time = other.feed_time if switched else other.first_time
            mine = mine.broken(time) if breaks else mine
            return others.after(mine.broken(time) if product in self.unread else mine)

        joined.run = run(None)
        own = (*self.product_runs, *other.product_runs, *self.unread)
        joined.product_runs = {product: run(product) for product in own}
        return joined

    def _join_starts(self, joined: Stream, other: Stream, reconnected: bool) -> None:
        """Fill in what the joined stream knows of the frames that began its feed and its connections."""
        switched, begins = self.switched_by(other), other.starts
        if not reconnected and self.last != NO_NUMBER:
            begins = begins[1:]  # it goes on there
        elif switched and not self.starts:
            begins = [NO_FRAME, *begins]
        joined.starts = [*self.starts, *begins]
        joined.starts[1:] = [frame for frame in joined.starts[1:] if frame != NO_FRAME]
        if self.starts:
            joined.first_time = self.first_time
        sent = other.feed_sent if switched else other.starts[0][1] if reconnected else NO_TIME
        joined.sent_again = self.sent_again or other.sent_again or sent != NO_TIME
        if not other.sent_again and sent == NO_TIME:
            joined.sent = max(self.sent, other.sent)
        joined.feed = other.feed or self.feed
        if self.first_feed != NO_FEED:
            joined.first_feed, joined.feed_time = self.first_feed, self.feed_time
            joined.feed_sent = self.feed_sent


def later(time: int, run: int) -> int:
    """Name the run behind another; the last instant that a column can hold stays the last."""
    return min(max(time, run + 1), LAST_TIME)
