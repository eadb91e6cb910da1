"""A book in whole steps of price and size.

A level's *key* is its price in ticks for an ask and minus that for a bid. So the best level of either side is
its smallest key, a level further away has a larger one, and whatever is done to a side is written once.
"""

from __future__ import annotations

import heapq
from typing import Final

_SPARE_TEXTS: Final = 300_000


class Texts(dict[int, str]):
    """Whole steps → decimal text as the exchange writes it; remembers, for levels return again and again."""

    def __init__(self, digits: int) -> None:
        super().__init__()
        self.digits = digits
        self.one = 10**digits

    def __missing__(self, steps: int) -> str:
        """Write the decimal, and forget all when there are too many."""
        whole, part = divmod(abs(steps), self.one)
        text = f"{whole}.{part:0{self.digits}d}".rstrip("0") if part else str(whole)
        if len(self) >= _SPARE_TEXTS:
            self.clear()
        self[steps] = text
        return text


class Side:
    """One side of a book: all its levels, and which of them the quick flow plays with."""

    def __init__(self, word: str, maker: str, near: list[int], levels: dict[int, int]) -> None:
        self.word = word
        self.maker = maker
        self.levels = levels
        self.heap = list(levels)
        heapq.heapify(self.heap)
        self.active = near
        self.active_target = max(len(near), 4)
        self.net: dict[int, int] = {}

    def best(self) -> int:
        """Key of the best level."""
        heap, levels = self.heap, self.levels
        while heap[0] not in levels:
            heapq.heappop(heap)
        return heap[0]

    def put(self, key: int, units: int) -> None:
        """Set a level to a size."""
        if key not in self.levels:
            heapq.heappush(self.heap, key)
            self.active.append(key)
        self.levels[key] = units
        self.net[key] = units

    def remove(self, key: int) -> None:
        """Delete a level that is there; the heap and the active list find out by themselves."""
        del self.levels[key]
        self.net[key] = 0

    def tidy(self) -> None:
        """Drop the keys of deleted levels that the heap and the active list have gathered."""
        if len(self.heap) > 2 * len(self.levels) + 1_000:
            self.heap = list(self.levels)
            heapq.heapify(self.heap)
        if len(self.active) > 2 * self.active_target:
            self.active = [key for key in dict.fromkeys(self.active) if key in self.levels]
