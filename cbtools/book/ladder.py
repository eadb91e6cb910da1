"""One product's book between two batches: the arrays that the kernels of `_kernels.book` work on."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

NO_VALUE: Final = int(np.iinfo(np.int64).min)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_SPARE: Final = 4096


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
        self.marks[[kernels.BEST_BID, kernels.BEST_ASK]] = NO_VALUE
        self.marks[self._places] = Known() if known is None else known
        self.price, self.size = np.empty(0), np.empty((2, 0))
        self._settle(0)

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
        prices, place = np.unique(price, return_inverse=True)
        empty = 0.0 if self.marks[self._kernels.HAS_BOOK] else -1.0
        self.price, self.size = prices, np.full((2, len(prices)), empty)
        self.size[side, place] = size
        self.marks[self._kernels.KNOWN] = len(prices)
        self._settle(0)

    def find(self, bits: I64, pieces: I64, slots: npt.NDArray[np.int32], fresh: I64) -> None:
        """Give each row of these pieces its price's slot, with ranks for the prices not met before."""
        kernels = self._kernels
        rows = int((pieces[kernels.TO] - pieces[kernels.FROM]).sum())
        known = int(self.marks[kernels.KNOWN])
        if known + rows > len(self.price) or known > self._settle_at:
            self._settle(rows)
        n = kernels.find(bits, pieces, self._table, self.marks, slots, fresh)
        if n:
            new = fresh[:n].view(np.float64)
            order = np.argsort(new)
            kernels.merge(new, order, self.price, self.size, self._slot_at, self.rank_of, self.marks)

    def levels(self) -> tuple[npt.NDArray[np.uint8], F64, F64]:
        """Give the levels: side, price and size; bids before asks, prices rising.

        Of a product that had no snapshot these are the changes: a level deleted has the size 0.
        """
        known = self.marks[self._kernels.KNOWN]
        least = 0.0 if self.marks[self._kernels.HAS_BOOK] else -1.0
        side, rank = np.nonzero(self.size[:, :known] > least)
        return side.astype(np.uint8), self.price[rank], self.size[side, rank]

    def _settle(self, rows: int) -> None:
        """Leave out the prices that hold nothing, and make room for those of so many rows."""
        kernels, marks = self._kernels, self.marks
        live = marks[kernels.BIDS] + marks[kernels.ASKS]
        kept = int(live if marks[kernels.HAS_BOOK] and live else marks[kernels.KNOWN])
        room = 2 * kept + rows + _SPARE
        self._table = np.zeros(2 << int(room + room // 2 - 1).bit_length(), np.int64)
        self._slot_at, self.rank_of = np.empty(room, np.int32), np.empty(room, np.int32)
        price, size = np.empty(room), np.empty((2, room))
        bits = price.view(np.int64)
        kernels.settle(
            self.price, self.size, self._table, bits, price, size, self._slot_at, self.rank_of, marks
        )
        self.price, self.size = price, size
        self._settle_at = 2 * int(marks[kernels.KNOWN]) + _SPARE
