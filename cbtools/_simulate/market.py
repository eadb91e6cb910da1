"""One product's market: the flow that changes its book, and its trades.

A hidden value wanders; who trades, trades towards it, and the quotes follow. Levels come and go near the
best, as many and as far from it as they do in real flow.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from typing import Final, NamedTuple

import numpy as np

from cbtools._simulate.book import Side, Texts
from cbtools._simulate.draws import TABLE_SIZE, Draws, lognormals, normals, quantiles, three_digits
from cbtools._simulate.products import Product

# What real flow looks like: quantiles, between which the tables are log-linear.
_PROBABILITY: Final = (0.0, 0.05, 0.25, 0.50, 0.75, 0.95, 0.985, 1.0)
_CHANGES: Final = (2.0, 5.0, 12.0, 22.0, 45.0, 170.0, 330.0, 700.0)  # level changes a message
_AWAY_BPS: Final = (0.001, 0.03, 1.0, 4.0, 12.5, 58.0, 600.0, 1_500.0)  # distance of a change from the best

_BLOCK: Final = 16_384  # draws made at once
_FINE: Final = 1_000_000  # the value moves in millionths of a tick
_TRADES_KEPT: Final = 100
# Median distance in bps of the levels deep in the book, and the spread of its logarithm.
_BIDS_DEEP: Final = (1_300.0, 0.95)
_ASKS_DEEP: Final = (5_000.0, 1.3)

# Of 1000 changes drawn: so many delete an absent level, so many change a level; the others add or delete one.
_ABSENT: Final = 100
_CHANGE: Final = 105


class Trade(NamedTuple):
    """A print: at ``key`` of the maker's side."""

    trade_id: int
    maker: str
    key: int
    units: int
    time_us: int


class Market:
    """A product's market; `step` lets one interval pass."""

    def __init__(self, product: Product, seed: int, levels: int | None) -> None:
        self.product = product
        self.start = product.price_ticks
        self.random = Draws(seed, zlib.crc32(product.name.encode()))
        self._roll = self.random.rolls().__next__
        self.price_texts = Texts(product.price_digits)
        self.size_texts = Texts(product.size_digits)
        self._tables()
        self._open_book(levels)
        self.flow_at = _BLOCK
        self.value = self.start * _FINE
        self.heat = 0
        self.trades: list[Trade] = []
        self.history: deque[Trade] = deque(maxlen=_TRADES_KEPT)
        self.next_trade_id = 100_000_000 + 1_000 * (zlib.crc32(product.name.encode()) % 800_000)
        self.last_price = self.start
        self.open_price = self.start * (9_700 + self.random.one_below(600)) // 10_000 + 1
        self.low = self.start * 96 // 100
        self.high = self.start * 104 // 100 + 1
        self.volume = int(400_000 * product.size * product.activity) * 10**product.size_digits + self._size()

    # --- set-up -------------------------------------------------------------------------------------------

    def _tables(self) -> None:
        product = self.product
        ticks_per_bp = self.start / 10_000
        self.away_table = np.array([round(x * ticks_per_bp) for x in quantiles(_PROBABILITY, _AWAY_BPS)])
        median = product.size * 10**product.size_digits
        sizes = [max(1, three_digits(median * x)) for x in lognormals(2.1)]
        # Half the sizes are round, as people's are; the others have every digit the product allows.
        odd = self.random.bits.random_raw(TABLE_SIZE).tolist()
        for i in range(0, TABLE_SIZE, 2):
            sizes[i] += odd[i] % (sizes[i] // 50 + 1)
        self.size_table = np.array(sizes)
        busy = product.activity**1.1
        self.changes_table = np.array([max(1, round(x * busy)) for x in quantiles(_PROBABILITY, _CHANGES)])
        self.value_table = [round(z * 0.2e-4 * self.start * _FINE) for z in normals()]
        self.dead_zone = max(round(0.6e-4 * self.start * _FINE), _FINE * 11 // 10)
        self.coarse = self.start < 20_000
        self.message_chance = round(990 * product.activity**0.37)
        self.trade_chance = round(280 * product.activity**0.75)

    def _open_book(self, levels: int | None) -> None:
        product, ticks = self.product, self.start
        wanted = (product.bids, product.asks) if levels is None else (levels, levels)
        self.bids = self._open_side("bid", "BUY", -ticks, min(wanted[0], ticks * 2 // 3), _BIDS_DEEP)
        self.asks = self._open_side("offer", "SELL", ticks + 1, wanted[1], _ASKS_DEEP)

    def _open_side(self, word: str, maker: str, best: int, count: int, deep: tuple[float, float]) -> Side:
        """Half a book: near levels as the flow would leave them, deep ones behind, jokes at the end."""
        active = min(count // 2, round(450 * max(self.product.activity, 0.15)))
        keys = {best: None}
        for away in self.away_table[self.random.below(TABLE_SIZE, 4 * active)].tolist():
            if len(keys) >= active:
                break
            if best + away < 0 or word == "offer":
                keys[best + away] = None
        near = list(keys)
        jokes = _jokes(word, self.product)[: count // 10]
        median, sigma = deep
        distances = [median * self.start / 10_000 * x for x in lognormals(sigma)]
        steps = [i / TABLE_SIZE for i in range(TABLE_SIZE)]
        for away in np.interp(self.random.fractions(2 * count + 1_000), steps, distances).tolist():
            if len(keys) >= count - len(jokes):  # coarse ticks repeat: then the book has fewer levels
                break
            key = best + round(away)
            if key < 0 or word == "offer":
                keys[key] = None
        sizes = self.size_table[self.random.below(TABLE_SIZE, len(keys))].tolist()
        book = dict(zip(keys, sizes, strict=True))
        joke_size = 65_000 * max(1, round(self.product.size * 50)) * 10**self.product.size_digits
        book.update({key: joke_size // (i + 1) for i, key in enumerate(jokes)})
        return Side(word, maker, near, book)

    def remember_past(self, now_us: int) -> None:
        """Make up the trades of the last seconds before the recording, for the first trades snapshot."""
        for i in range(_TRADES_KEPT):
            side = self.asks if self._roll() & 1 else self.bids
            units = int(self.size_table[self._roll() % TABLE_SIZE])
            ago = (_TRADES_KEPT - i) * 400_000 + self._roll() % 300_000
            self.history.append(Trade(self.next_trade_id, side.maker, side.best(), units, now_us - ago))
            self.next_trade_id += 1
        self.last_price = abs(self.history[-1].key)

    # --- one interval -------------------------------------------------------------------------------------

    def step(self, now_us: int) -> bool:
        """Let the time up to ``now_us`` pass; True if the book has news, which each side's ``net`` holds."""
        self.bids.net = {}
        self.asks.net = {}
        news = self._roll() % 1_000 < self.message_chance
        self.value += self.value_table[self._roll() % TABLE_SIZE] * (6 + self.heat) // 8
        self.value += (self.start * _FINE - self.value) >> 18  # home again, in hours
        self.value = max(self.value, self.start * _FINE // 8)
        mid = (self.asks.best() - self.bids.best()) * _FINE // 2
        news |= self._aggress(self.value - mid, now_us)
        if not news:
            return False
        left = int(self.changes_table[self._roll() % TABLE_SIZE]) - len(self.bids.net) - len(self.asks.net)
        if left > 0:
            on_bids = (left * (384 + self._roll() % 256) + self._roll() % 1_024) // 1_024
            self._flow(self.bids, on_bids)
            self._flow(self.asks, left - on_bids)
        self._close_spread()
        self.bids.tidy()
        self.asks.tidy()
        return bool(self.bids.net or self.asks.net)

    def _aggress(self, pressure: int, now_us: int) -> bool:
        """Trades, and moves of the best: those who take come from where the value pulls."""
        moves = abs(pressure) > self.dead_zone
        trades = (
            self._roll() % 100 < 45 if moves else self._roll() % 16_000 < self.trade_chance * (8 + self.heat)
        )
        self.heat = self.heat * 7 // 8 + 2 * (moves + trades)
        if not (moves or trades):
            return False
        up = pressure > 0 if moves or self._roll() % 100 < 40 else self._roll() & 1 == 1
        taken, other = (self.asks, self.bids) if up else (self.bids, self.asks)
        first = len(self.trades)
        if moves:
            floor = self.value // _FINE  # the best bid wanted; the best ask is a tick above
            self._move(taken, floor + 1 if up else -floor, trades, now_us)
        else:
            self._take(taken, now_us)
        # The quotes follow from behind the aggressor, mostly at once.
        if taken.best() + other.best() > 1 and self._roll() & 1:
            other.put(1 - taken.best(), self._size())
        return moves or len(self.trades) > first

    def _move(self, taken: Side, target: int, trades: bool, now_us: int) -> None:
        """Clear a side up to a key: the first levels by trades, the others by their makers' leaving."""
        sweep = 1 + self._roll() % 5 if trades else 0
        when = now_us - 2_000 - self._roll() % 30_000
        while (best := taken.best()) < target:
            if sweep:
                sweep -= 1
                self._print(taken, best, taken.levels[best], when)
            taken.remove(best)
        if best > target and target not in taken.net:
            taken.put(target, self._size())

    def _take(self, taken: Side, now_us: int) -> None:
        """Take part of the best level, and now and then a level or two before it, in a burst of prints."""
        when = now_us - 2_000 - self._roll() % 30_000
        # A whole level is seldom eaten where ticks are coarse, for then the queues are long.
        for _ in range(self._roll() % 1_000 // (990 if self.coarse else 900)):
            best = taken.best()
            self._print(taken, best, taken.levels[best], when)
            taken.remove(best)
        best = taken.best()
        shown = taken.levels[best]
        eaten = shown * (self._roll() % 600) // 1_000
        for _ in range(1 + self._roll() % 3):
            part = eaten // (1 + self._roll() % 3)
            if part:
                self._print(taken, best, part, when)
                eaten -= part
                shown -= part
        if shown != taken.levels[best]:
            taken.put(best, shown)

    def _print(self, taken: Side, key: int, units: int, when: int) -> None:
        price = abs(key)
        trade = Trade(self.next_trade_id, taken.maker, key, units, when)
        self.next_trade_id += 1
        self.trades.append(trade)
        self.history.append(trade)
        self.last_price = price
        self.low = min(self.low, price)
        self.high = max(self.high, price)
        self.volume += units

    def _size(self) -> int:
        return int(self.size_table[self._roll() % TABLE_SIZE])

    def _draw_flow(self) -> None:
        """Draw the next block of changes: what kind, how far away, how large, which of the active levels."""
        random = self.random
        self.kinds: list[int] = random.below(1_000, _BLOCK).tolist()
        self.aways: list[int] = self.away_table[random.below(TABLE_SIZE, _BLOCK)].tolist()
        self.sizes: list[int] = self.size_table[random.below(TABLE_SIZE, _BLOCK)].tolist()
        self.picks: list[int] = random.below(1 << 30, _BLOCK).tolist()
        self.flow_at = 0

    def _flow(self, side: Side, count: int) -> None:
        """Add, change and delete about ``count`` levels of a side, each at most once (a message is net)."""
        if count <= 0:
            return
        if self.flow_at + count > _BLOCK:
            self._draw_flow()
        start, stop = self.flow_at, min(self.flow_at + count, _BLOCK)
        self.flow_at = stop
        levels, net, active, heap = side.levels, side.net, side.active, side.heap
        best = side.best()
        bound = 0 if side is self.bids else 1 << 62
        # Fewer active levels than usual: more adds. So the book keeps its size, whatever trades eat.
        lack = (side.active_target - len(active)) * 400 // side.active_target
        add_below = _ABSENT + _CHANGE + 400 + max(-250, min(250, lack))
        for kind, away, units, pick in zip(
            self.kinds[start:stop],
            self.aways[start:stop],
            self.sizes[start:stop],
            self.picks[start:stop],
            strict=True,
        ):
            if kind >= add_below or _ABSENT <= kind < _ABSENT + _CHANGE:
                if not active:
                    continue
                at = pick % len(active)
                key = active[at]
                if key not in levels:  # gone by a trade or a move
                    active[at] = active[-1]
                    active.pop()
                elif key in net:
                    continue
                elif kind < add_below or key == best:  # the best leaves by trades and moves only
                    levels[key] = net[key] = units
                else:
                    active[at] = active[-1]
                    active.pop()
                    del levels[key]
                    net[key] = 0
                continue
            key = best + away
            if key in net or key >= bound:
                continue
            if kind < _ABSENT:
                if key not in levels:
                    net[key] = 0
                continue
            if key not in levels:
                heapq.heappush(heap, key)
                active.append(key)
            levels[key] = net[key] = units

    def _close_spread(self) -> None:
        """Bring the best back to a tick apart, nearly always.

        What a trade has taken is shown as gone, not as filled again: then the other side comes nearer.
        """
        bid, ask = self.bids.best(), self.asks.best()
        if bid + ask == 1 or self._roll() % 100 < 15:
            return
        rising = self.value * 2 > (ask - bid) * _FINE
        side, key = (self.bids, 1 - ask) if rising else (self.asks, 1 - bid)
        if key in side.net:
            side, key = (self.asks, 1 - bid) if rising else (self.bids, 1 - ask)
        if key not in side.net:
            side.put(key, self._size())


def _jokes(word: str, product: Product) -> list[int]:
    """Keys of levels that nobody means: bids of a few ticks, asks beyond a thousand times the price."""
    if word == "bid":
        return [-tick for tick in range(1, 7)]
    if product.name == "BTC-USD":
        return [13_899_102_341, 12_903_488_800, 12_381_636_578, 6_253_400_150, 3_000_000_000]
    return [product.price_ticks * times + 7 for times in (1_597, 1_423, 719, 345, 100)]
