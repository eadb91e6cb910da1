"""One product's book between two batches: the arrays that the kernels of `_kernels.book` work on."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

NO_VALUE: Final = int(np.iinfo(np.int64).min)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_FRESH: Final = 16_384
"""So many prices not met before are ranked at once."""


class Known(NamedTuple):
    """What is known of a product's book beside its levels; NO_VALUE where something is not.

    ``run`` and ``number`` are of its last message, ``since`` names the last of its ``snapshots``.
    Without a book ``proven`` tells whether one from before would be proven still.
    """

    run: int = NO_VALUE
    number: int = NO_VALUE
    since: int = NO_VALUE
    snapshots: int = 0
    has_book: bool = False
    proven: bool = False


class Ladder:
    """A product's book, without levels at first; ``marks`` are those that the kernels describe."""

    def __init__(self, known: Known | None = None) -> None:
        from cbtools._kernels import book as kernels

        self._kernels = kernels
        self._places = [
            kernels.LAST_RUN,
            kernels.LAST_NUMBER,
            kernels.SINCE,
            kernels.SNAPSHOTS,
            kernels.HAS_BOOK,
            kernels.PROVEN,
        ]
        self.marks = np.zeros(kernels.MARKS, np.int64)
        self.marks[self._places] = Known() if known is None else known
        self._take(1)
        self._settle_at = _FRESH

    def known(self) -> Known:
        """Give what is known of the book beside its levels."""
        run, number, since, snapshots, has_book, proven = self.marks[self._places].tolist()
        return Known(run, number, since, snapshots, bool(has_book), bool(proven))

    def counts(self) -> dict[str, int]:
        """Give what was counted since the ladder was made."""
        kernels = self._kernels
        places = {
            "messages": kernels.MESSAGES,
            "changes": kernels.CHANGES,
            "snapshots": kernels.CLEARED,
            "early_changes": kernels.EARLY,
            "absent_deletes": kernels.ABSENT,
            "breaks": kernels.BREAKS,
        }
        return {name: int(self.marks[place]) for name, place in places.items()}

    def state_counts(self) -> list[int]:
        """Give how many messages left the book in each state, in the order of `schema.BOOK_STATE`."""
        return [int(n) for n in self.marks[self._kernels.STATES :]]

    def fill(self, side: npt.NDArray[np.uint8], price: F64, size: F64) -> None:
        """Put levels in an empty ladder, each price of a side once."""
        prices, slot = np.unique(price, return_inverse=True)
        empty = 0.0 if self.marks[self._kernels.HAS_BOOK] else -1.0
        self.slot_at = np.arange(1, len(prices) + 1, dtype=np.uint32)
        self.level = np.full((len(prices) + 1, 4), empty)
        self.level[1:, self._kernels.PRICE] = prices
        self.level[slot + 1, side] = size
        self.marks[self._kernels.KNOWN] = len(prices)
        self.marks[[self._kernels.BIDS, self._kernels.ASKS]] = np.bincount(side[size > 0], minlength=2)
        self._settle()

    def find(
        self, prices: F64, sides: npt.NDArray[np.uint8], pieces: I64, slots: npt.NDArray[np.uint32]
    ) -> None:
        """Give each row of these pieces its price's slot, and rank the prices not met before."""
        kernels, keys = self._kernels, prices.view(np.uint64)
        if self.marks[kernels.KNOWN] > self._settle_at:
            self._settle()
        rows, at = int((pieces[kernels.TO] - pieces[kernels.FROM]).sum()), np.zeros(2, np.int64)
        while at[0] < pieces.shape[1]:
            known = int(self.marks[kernels.KNOWN])
            self._make_room(known + min(rows, _FRESH))
            n = kernels.find(prices, keys, sides, pieces, at, self._table, self.level, self.marks, slots)
            if n > known:
                order = np.argsort(self.level[known + 1 : n + 1, kernels.PRICE])
                kernels.merge(order, self.price, self.slot_at, self.level, self.marks)
                self._ranked = False
        if not self._ranked:
            kernels.rank(self.slot_at, self.level, self.bits, self.marks)
            self._ranked = True

    def levels(self) -> tuple[npt.NDArray[np.uint8], F64, F64]:
        """Give the levels: side, price and size; bids before asks, prices rising.

        Of a product that had no snapshot these are the changes: a level deleted has the size 0.
        """
        slot_at = self.slot_at[: self.marks[self._kernels.KNOWN]]
        least = 0.0 if self.marks[self._kernels.HAS_BOOK] else -1.0
        size = self.level[slot_at, : self._kernels.PRICE].T
        side, rank = np.nonzero(size > least)
        return side.astype(np.uint8), self.price[rank], size[side, rank]

    def _settle(self) -> None:
        """Leave out the prices that hold nothing."""
        kernels, marks, slot_at, level = self._kernels, self.marks, self.slot_at, self.level
        self._take(int(marks[kernels.KNOWN]))
        keys = self.price.view(np.uint64)
        kernels.settle(slot_at, level, self.price, self.slot_at, self.level, keys, self._table, marks)
        self._settle_at = 3 * int(marks[kernels.KNOWN]) + _FRESH

    def _make_room(self, room: int) -> None:
        """Have room for so many prices."""
        known = int(self.marks[self._kernels.KNOWN])
        if room > len(self.price):
            price, slot_at, level = self.price[:known], self.slot_at[:known], self.level[: known + 1]
            self._take(max(room, 2 * known))
            self.price[:known], self.slot_at[:known], self.level[: known + 1] = price, slot_at, level
            self._kernels.enter(self.price.view(np.uint64), self.slot_at, self._table, self.marks)

    def _take(self, room: int) -> None:
        """Take new arrays; a sixth of the table, at most, will be full: probes are then few."""
        self._table = np.zeros(1 << (6 * room).bit_length(), np.uint32)
        self.price, self.slot_at = np.empty(room), np.empty(room, np.uint32)
        self.level = np.empty((room + 1, 4))
        self.bits = np.empty((2, room // 64 + 1), np.uint64)
        self._ranked = False
