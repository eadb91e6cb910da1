"""The exchange: all markets side by side, and the frames that a connection gets of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cbtools._simulate.draws import Draws
from cbtools._simulate.market import Market
from cbtools._simulate.wire import (
    Frame,
    best_of,
    heartbeat,
    level2_snapshot,
    level2_update,
    market_trades,
    subscriptions,
    ticker,
)

SLOT_US: Final = 50_000
"""Level2 news of a product come at most once a slot."""

_UPTIME: Final = 81_000  # seconds that the server has been running at the start
_QUOTE_TICKERS: Final = 900  # of 1000 changes of the best, so many are told by a ticker
_CHANNELS: Final = ("level2", "market_trades", "ticker", "heartbeats")


class Exchange:
    """All markets side by side, and the frames that a connection gets of them."""

    def __init__(self, markets: Sequence[Market], seed: int, start_us: int, *, truth: bool) -> None:
        self.truth = truth
        self.markets = markets
        self.now_us = start_us
        self.start_us = start_us
        self.beaten = 0
        self.random = Draws(seed, 2)
        self._roll = self.random.rolls().__next__
        self.quotes = [(0, 0, 0, 0)] * len(markets)
        self.lags: list[int] = []
        self.lag_at = 0
        for market in markets:
            market.remember_past(start_us)

    def _lags(self, count: int) -> list[int]:
        if self.lag_at + count > len(self.lags):
            self.lags = (1_000 + self.random.below(47_000, max(16_384, 2 * count))).tolist()
            self.lag_at = 0
        self.lag_at += count
        return self.lags[self.lag_at - count : self.lag_at]

    def greet(self) -> list[Frame]:
        """Begin a connection: each channel's acknowledgement and snapshots."""
        bare: list[tuple[str, str, str, int, bool]] = []
        names = [market.product.name for market in self.markets]
        for i, channel in enumerate(_CHANNELS):
            bare.append(("subscriptions", "", subscriptions(_CHANNELS[: i + 1], names), 0, False))
            bare += [row for market in self.markets for row in _snapshot(channel, market)]
        frames = []
        for i, (channel, name, events, rows, snapshot) in enumerate(bare):
            time_ns = (self.now_us + 1_000 + 45_000 * i // len(bare)) * 1_000 + self._roll() % 1_000
            best = best_of(self.markets[names.index(name)]) if channel == "l2_data" and self.truth else None
            frames.append(Frame(time_ns, channel, name, events, rows, snapshot, best))
        for market in self.markets:
            market.trades = []
        self.now_us += 2 * SLOT_US  # so that whatever comes next has happened after the snapshots
        return frames

    def sleep(self) -> None:
        """Let one to three seconds pass with nobody listening; the trades stay for the next snapshot."""
        for _ in range(20 + self._roll() % 40):
            for market in self.markets:
                market.step(self.now_us + 40_000)
            self.now_us += SLOT_US

    def slot(self) -> list[Frame]:
        """Let 50 ms pass and give the frames sent meanwhile, in order of time."""
        frames = list(self._heartbeat())
        count = len(self.markets)
        batch = self.now_us // SLOT_US % 5
        for i, market in enumerate(self.markets):
            # A product has its own place in the slot, so that its news and what follows them stay in order.
            now_us = self.now_us + 22_000 * i // count + 1_000 + self._roll() % 1_000
            trades_before = len(market.trades)
            if market.step(now_us):
                frames.append(self._level2(market, now_us))
                if len(market.trades) > trades_before or self._quote_is_news(i, market):
                    frames.append(self._frame(now_us, "ticker", market, ticker(market)))
            if market.trades and batch == i % 5:
                events = market_trades(market, market.trades)
                frames.append(self._frame(now_us, "market_trades", market, events, len(market.trades)))
                market.trades = []
        frames.sort(key=_time)
        self.now_us += SLOT_US
        return frames

    def _level2(self, market: Market, now_us: int) -> Frame:
        count = len(market.bids.net) + len(market.asks.net)
        events, rows = level2_update(market, now_us, self._lags(count))
        time_ns = now_us * 1_000 + self._roll() % 1_000
        best = best_of(market) if self.truth else None
        return Frame(time_ns, "l2_data", market.product.name, events, rows, best=best)

    def _frame(self, now_us: int, channel: str, market: Market, events: str, rows: int = 1) -> Frame:
        """Make a frame that follows the product's level2 frame, still within the slot."""
        time_ns = (now_us + 300 + self._roll() % 20_000) * 1_000 + self._roll() % 1_000
        return Frame(time_ns, channel, market.product.name, events, rows)

    def _quote_is_news(self, i: int, market: Market) -> bool:
        """Tell whether a ticker is sent without a trade: sometimes, when the best has changed."""
        bids, asks = market.bids, market.asks
        bid, ask = bids.best(), asks.best()
        before, self.quotes[i] = self.quotes[i], (bid, bids.levels[bid], ask, asks.levels[ask])
        return before != self.quotes[i] and self._roll() % 1_000 < _QUOTE_TICKERS

    def _heartbeat(self) -> Iterator[Frame]:
        second = (self.now_us - self.start_us) // 1_000_000
        if second > self.beaten:
            self.beaten = second
            counter = _UPTIME + second
            late_ns = 0 if counter % 10 == 0 else self._roll()  # now and then a time without fraction
            time_ns = self.now_us * 1_000 + late_ns
            yield Frame(time_ns, "heartbeats", "", heartbeat(time_ns, counter), 0)


def _time(frame: Frame) -> int:
    return frame.time_ns


def _snapshot(channel: str, market: Market) -> Iterator[tuple[str, str, str, int, bool]]:
    """Give what a channel sends of a product right after the subscription."""
    name = market.product.name
    if channel == "level2":
        events, rows = level2_snapshot(market)
        yield "l2_data", name, events, rows, True
    elif channel == "market_trades":
        events = market_trades(market, market.history, snapshot=True)
        yield "market_trades", name, events, len(market.history), True
    elif channel == "ticker":
        yield "ticker", name, ticker(market, snapshot=True), 1, True
