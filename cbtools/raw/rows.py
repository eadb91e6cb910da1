"""What the messages of both feeds hold: trades, tickers, products and subscriptions; and what is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import orjson

from cbtools.raw.values import (
    NotUnderstood,
    dicts,
    is_long,
    name_text,
    number,
    one_of,
    product_text,
    time_ns,
    whole,
)

Row = tuple[Any, ...]

TRADE_SIDES: Final = {"BUY": "buy", "buy": "buy", "SELL": "sell", "sell": "sell"}
_OPPOSITE: Final = {"buy": "sell", "sell": "buy"}


@dataclass
class Tally:
    """What a line holds besides its rows."""

    unknown_keys: Counter[str] = field(default_factory=Counter)
    unusual: Counter[str] = field(default_factory=Counter)
    """What of the line another recorder writes than the usual one: each kind once a line."""
    long_numbers: int = 0

    def __bool__(self) -> bool:
        return bool(self.unknown_keys or self.unusual or self.long_numbers)

    def look(self, where: str, found: dict[str, Any], known: frozenset[str]) -> None:
        """Count the keys of an object that are not known."""
        if not found.keys() <= known:
            self.unknown_keys.update(f"{where}.{key}" for key in found.keys() - known)

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        self.unknown_keys.update(other.unknown_keys)
        self.unusual.update(other.unusual)
        self.long_numbers += other.long_numbers

    def number(self, found: dict[str, Any], key: str, *, signed: bool = False, optional: bool = False) -> Any:
        """Read a number; an optional one may be missing, null or empty."""
        return self.plain(found.get(key), key, signed=signed, optional=optional)

    def plain(self, value: Any, name: str, *, signed: bool = False, optional: bool = False) -> float | None:
        """Read a number that stands in a list."""
        if optional and (value is None or value == ""):
            return None
        result = number(value, name, signed=signed)
        self.long_numbers += is_long(value)
        return result


@dataclass
class Frame:
    """One understood line: its header and the rows of its table; ``feed`` as in `cbtools.raw.sequence`."""

    feed: int
    table: str
    sequence_num: int | None
    server_time: int | None
    capture_time: int | None
    rows: list[Row]
    tally: Tally


def snapshot_rows(product_id: str, levels: list[Row], seen: set[str]) -> list[Row]:
    """Return the rows of a snapshot: a marker where it has no levels or follows another one of its frame.

    Parameters
    ----------
    product_id : str
        The product.
    levels : list of Row
        The rows of its levels.
    seen : set of str
        The products of which the frame has a snapshot before it; the product is added.

    Returns
    -------
    list of Row
        The rows that say, in any selection of the product's rows, that this snapshot replaces its book.
    """
    due = product_id in seen or not levels
    seen.add(product_id)
    return [(product_id, True, None, None, None, None), *levels] if due else levels


@cache
def known(names: str) -> frozenset[str]:
    """Give the names in a text."""
    return frozenset(names.split())


def text_of(found: dict[str, Any], key: str) -> str | None:
    """Read a text that may be missing; anything else is kept as its JSON text."""
    value = found.get(key)
    if value is None or type(value) is str:
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # deeper than it writes
        raise NotUnderstood("bad text", f"{key} is nested too deeply") from None


def trade_row(trade: dict[str, Any], is_snapshot: bool, tally: Tally, more: Row = (None, None, None)) -> Row:
    """Read a trade: either feed sends the maker's side; ``more`` is what only the Exchange feed has."""
    side = one_of(trade.get("side"), "side", TRADE_SIDES)
    return (
        product_text(trade.get("product_id"), "product_id"),
        whole(trade.get("trade_id"), "trade_id", text=True),
        tally.number(trade, "price"),
        tally.number(trade, "size"),
        side,
        _OPPOSITE[side],
        time_ns(trade.get("time"), "time"),
        is_snapshot,
        *more,
    )


def ticker_row(
    ticker: dict[str, Any],
    keys: tuple[str | None, ...],
    tally: Tally,
    more: Row = (None, None, None, None, None, None),
) -> Row:
    """Read a ticker; ``keys`` are the wire's names of the columns behind the price (None: not sent).

    ``more`` is what only the Exchange feed has.
    """
    product_id = product_text(ticker.get("product_id"), "product_id")
    price = tally.number(ticker, "price")
    rest = (key and tally.number(ticker, key, signed="percent" in key, optional=True) for key in keys)
    return product_id, price, *rest, *more


def counter(value: Any) -> int | None:
    """Read a counter of any form: what is no whole number is null."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 30:
        value = int(value)
    return value if type(value) is int and 0 <= value < 2**63 else None


_STATUS_KEYS: Final = known(
    "id product_type base_currency quote_currency base_increment quote_increment display_name status"
    " status_message min_market_funds"
)


def product_rows(products: Any, where: str, tally: Tally) -> list[Row]:
    """Read the products of a status message."""
    rows: list[Row] = []
    for product in dicts(products, "products"):
        tally.look(where, product, _STATUS_KEYS)
        for key in (
            "product_type",
            "base_currency",
            "quote_currency",
            "display_name",
            "status",
            "status_message",
        ):
            if not isinstance(product.get(key), str | None):
                raise NotUnderstood("bad text", f"{key}={product[key]!r}")
        rows.append(
            (
                product_text(product.get("id"), "id"),
                *(product.get(key) for key in ("product_type", "base_currency", "quote_currency")),
                tally.number(product, "base_increment", optional=True),
                tally.number(product, "quote_increment", optional=True),
                *(product.get(key) for key in ("display_name", "status", "status_message")),
                tally.number(product, "min_market_funds", optional=True),
            )
        )
    return rows


def subscription_row(channel: Any, product_ids: Any) -> Row:
    """Read one channel of the subscriptions."""
    if type(product_ids) is not list or not all(type(item) is str for item in product_ids):
        raise NotUnderstood("not a list of texts", "product_ids")
    return name_text(channel, "channel"), product_ids
