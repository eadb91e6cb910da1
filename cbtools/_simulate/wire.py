"""A market's state and news in the words of the wire: the ``events`` of each channel's frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cbtools._simulate.book import Side
from cbtools._simulate.market import Market, Trade

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME: Final = "1970-01-01T00:00:00Z"  # what the exchange sends as event_time in a snapshot

Best = tuple[float, float, float, float]


class Frame(NamedTuple):
    """A frame before it is numbered. ``rows`` counts its level changes, trades or tickers."""

    time_ns: int
    channel: str
    product: str
    events: str
    rows: int
    is_snapshot: bool = False
    best: Best | None = None


class Seconds(dict[int, str]):
    """Whole seconds → ``2025-11-26T14:00:00``; only the last few are remembered."""

    def __missing__(self, second: int) -> str:
        """Write the second."""
        if len(self) > 64:
            self.clear()
        text = (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")
        self[second] = text
        return text


_SECONDS: Final = Seconds()


def nanosecond_text(time_ns: int) -> str:
    """Write a server time: nanoseconds without trailing zeros, as Go does."""
    second, part = divmod(time_ns, 1_000_000_000)
    return f"{_SECONDS[second]}.{part:09d}".rstrip("0") + "Z" if part else _SECONDS[second] + "Z"


def microsecond_text(time_us: int) -> str:
    """Write an engine's time: microseconds without trailing zeros."""
    second, part = divmod(time_us, 1_000_000)
    return f"{_SECONDS[second]}.{part:06d}".rstrip("0") + "Z" if part else _SECONDS[second] + "Z"


def capture_text(time_us: int) -> str:
    """Write a receipt time as Python's ``isoformat`` does: six digits, or none at the full second."""
    second, part = divmod(time_us, 1_000_000)
    return f"{_SECONDS[second]}.{part:06d}+00:00" if part else f"{_SECONDS[second]}+00:00"


def best_of(market: Market) -> Best:
    """Give the best bid, its size, the best ask and its size, as the doubles nearest to the texts."""
    bid, ask = market.bids.best(), market.asks.best()
    tick, unit = market.price_texts.one, market.size_texts.one
    return -bid / tick, market.bids.levels[bid] / unit, ask / tick, market.asks.levels[ask] / unit


def level2_snapshot(market: Market) -> tuple[str, int]:
    """Write the whole book, best levels first; also give its number of levels."""
    sides = (market.bids, market.asks)
    updates = [text for side in sides for text in _snapshot_side(market, side)]
    event = f'{{"type":"snapshot","product_id":"{market.product.name}","updates":[{",".join(updates)}]}}'
    return event, len(updates)


def _snapshot_side(market: Market, side: Side) -> Iterable[str]:
    prices, sizes, levels = market.price_texts, market.size_texts, side.levels
    head = f'{{"side":"{side.word}","event_time":"{_NO_TIME}","price_level":"'
    for key in sorted(levels):
        yield f'{head}{prices[key]}","new_quantity":"{sizes[levels[key]]}"}}'


def level2_update(market: Market, now_us: int, lags: Sequence[int]) -> tuple[str, int]:
    """Write the net changes of the last interval; also give their number.

    ``lags`` says how long before ``now_us`` the engine changed each level, in microseconds.
    """
    bids, asks = market.bids, market.asks
    updates = _changes(market, bids, now_us, lags)
    updates += _changes(market, asks, now_us, lags[len(updates) :])
    event = f'{{"type":"update","product_id":"{market.product.name}","updates":[{",".join(updates)}]}}'
    return event, len(updates)


def _changes(market: Market, side: Side, now_us: int, lags: Sequence[int]) -> list[str]:
    prices, sizes, net = market.price_texts, market.size_texts, side.net
    head = f'{{"side":"{side.word}","event_time":"'
    second, part = divmod(now_us, 1_000_000)
    if part > 50_000:  # the usual case made quick: the whole interval lies within one second
        head += _SECONDS[second] + "."
        times = [f"{part - lag:06d}".rstrip("0") + "Z" for lag in lags[: len(net)]]
    else:
        times = [microsecond_text(now_us - lag) for lag in lags[: len(net)]]
    return [
        f'{head}{time}","price_level":"{prices[key]}","new_quantity":"{sizes[units]}"}}'
        for (key, units), time in zip(net.items(), times, strict=True)
    ]


def market_trades(market: Market, trades: Iterable[Trade], *, snapshot: bool = False) -> str:
    """Write trades, the newest first."""
    kind, name = "snapshot" if snapshot else "update", market.product.name
    prices, sizes = market.price_texts, market.size_texts
    texts = [
        f'{{"product_id":"{name}","trade_id":"{trade.trade_id}","price":"{prices[trade.key]}",'
        f'"size":"{sizes[trade.units]}","time":"{microsecond_text(trade.time_us)}","side":"{trade.maker}"}}'
        for trade in reversed(list(trades))
    ]
    return f'{{"type":"{kind}","trades":[{",".join(texts)}]}}'


def ticker(market: Market, *, snapshot: bool = False) -> str:
    """Write the ticker with the book's best as it stands."""
    prices, sizes = market.price_texts, market.size_texts
    bid, ask, base = market.bids.best(), market.asks.best(), market.product.price_ticks
    change = (market.last_price - market.open_price) * 10**10 // market.open_price
    return (
        f'{{"type":"{"snapshot" if snapshot else "update"}","tickers":[{{"type":"ticker",'
        f'"product_id":"{market.product.name}","price":"{prices[market.last_price]}",'
        f'"volume_24_h":"{sizes[market.volume]}","low_24_h":"{prices[market.low]}",'
        f'"high_24_h":"{prices[market.high]}","low_52_w":"{prices[base * 6 // 7]}",'
        f'"high_52_w":"{prices[base * 29 // 20]}",'
        f'"price_percent_chg_24_h":"{"-" if change < 0 else ""}{_percent(abs(change))}",'
        f'"best_bid":"{prices[bid]}","best_bid_quantity":"{sizes[market.bids.levels[bid]]}",'
        f'"best_ask":"{prices[ask]}","best_ask_quantity":"{sizes[market.asks.levels[ask]]}"}}]}}'
    )


def _percent(change: int) -> str:
    return f"{change // 10**8}.{change % 10**8:08d}"


def heartbeat(time_ns: int, counter: int) -> str:
    """Write a heartbeat, with the server's uptime as Go prints it."""
    clock = nanosecond_text(time_ns).replace("T", " ").removesuffix("Z")
    uptime = f"{counter}.{time_ns % 1_000_000_000:09d}"
    return f'{{"current_time":"{clock} +0000 UTC m=+{uptime}","heartbeat_counter":{counter}}}'


def subscriptions(channels: Sequence[str], products: Sequence[str]) -> str:
    """Write the acknowledgement that names all that is subscribed to by now."""
    names, one = "[" + ",".join(f'"{name}"' for name in products) + "]", '["heartbeats"]'
    texts = [f'"{name}":{names if name != "heartbeats" else one}' for name in channels]
    return f'{{"subscriptions":{{{",".join(texts)}}}}}'
