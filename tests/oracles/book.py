"""What the order book is after every message, written to be read: the judge of the package's rebuild.

Plain dicts, `sorted` and float additions; it knows nothing of the package, and it is slow. `rebuild` takes
the rows of the ``level2`` table as dicts, times as integers (ns), and gives the rows of the book as dicts.

Prices are doubles, and equal doubles are equal prices: a dict of floats is exact, and so is sorting them.

A message is all rows of one product in one frame, applied whole. Rows without a side are markers: one with
is_snapshot clears the book, as a snapshot without levels; one without it says that the rows before it and
those after it may not follow each other (a *break*). A change of unbroken_since says the same without a
marker. A break makes a book unproven until the next snapshot. A message of nothing but a break has a book row
only if the break changes the state of the book.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]

TOLD = ("server_time", "capture_time", "sequence_num", "stream", "connection", "line")
"""What a book row tells of its message, behind the product."""

SAME_MESSAGE = (*TOLD, "unbroken_since")


class Unproven(Exception):
    """A row is unproven, and ``gaps`` is "raise"; ``rows`` are those before it."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows


@dataclass
class Book:
    """A product's book; before its first snapshot, what the updates did to a book that is not known.

    Then a deletion is kept as a level of size 0, since it deletes from whatever book lies beneath.

    ``unbroken`` says whether all rows since the last snapshot are known to follow each other (since the first
    row, before a snapshot), and ``breaks`` counts how often they ceased to. ``last`` is the head of the last
    message, or None where its number is not to be compared with the next one's: at first and after a break.
    """

    sides: dict[str, dict[float, float]] = field(default_factory=lambda: {"bid": {}, "ask": {}})
    has_book: bool = False
    proven: bool = False
    snapshot_name: int | None = None
    unbroken: bool = True
    last: Row | None = None
    messages: int = 0
    snapshots: int = 0
    early_changes: int = 0
    absent_deletes: int = 0
    breaks: int = 0

    def apply(self, message: list[Row]) -> None:
        head = message[0]
        last = None if any(is_break(row) for row in message) else self.last
        out_of_order = last is not None and backwards(last, head)
        if last is not None and (another_run(last, head) or out_of_order):
            self.unprove()
        if not self.has_book and not any(row["is_snapshot"] for row in message):
            self.early_changes += sum(not is_break(row) for row in message)
        in_snapshot = False
        for row in message:
            if is_break(row):
                self.unprove()
            if row["is_snapshot"] and (is_marker(row) or not in_snapshot):
                self.clear()
                # part of a snapshot that stands in another order may lack what was before it
                self.unbroken = not out_of_order
            in_snapshot = row["is_snapshot"]
            if not is_marker(row):
                self.change(row)
        if any(row["is_snapshot"] for row in message):
            self.snapshots += 1
            self.snapshot_name = self.next_name(head)
        self.proven = self.has_book and self.unbroken
        self.messages += not is_only_a_break(message)
        self.last = None if is_only_a_break(message) else head

    def unprove(self) -> None:
        if self.unbroken and self.messages > 0:
            self.breaks += 1
        self.unbroken = False

    def clear(self) -> None:
        self.sides["bid"].clear()
        self.sides["ask"].clear()
        self.has_book = True

    def change(self, row: Row) -> None:
        levels = self.sides[row["side"]]
        price, size = row["price"], row["size"]
        if size > 0 or not self.has_book:
            levels[price] = size
        elif price in levels:
            del levels[price]
        elif not row["is_snapshot"]:
            self.absent_deletes += 1

    def next_name(self, head: Row) -> int:
        times = [head["capture_time"], head["server_time"], 0]
        when: int = next(time for time in times if time is not None)
        return when if self.snapshot_name is None else max(when, self.snapshot_name + 1)

    def best_first(self, side: str) -> list[tuple[float, float]]:
        return sorted(self.sides[side].items(), reverse=side == "bid")


def is_marker(row: Row) -> bool:
    return row["side"] is None


def is_break(row: Row) -> bool:
    return is_marker(row) and not row["is_snapshot"]


def is_only_a_break(message: list[Row]) -> bool:
    return all(is_break(row) for row in message)


def another_run(before: Row, message: Row) -> bool:
    return bool(before["unbroken_since"] != message["unbroken_since"])


def backwards(before: Row, message: Row) -> bool:
    """Tell whether a message has a smaller number than the one before it in the same run."""
    numbers = before["sequence_num"], message["sequence_num"]
    if another_run(before, message) or None in numbers:
        return False
    return bool(message["sequence_num"] < before["sequence_num"])


def messages(rows: Iterable[Row]) -> list[list[Row]]:
    """Part the rows into messages, in the order of each message's first row."""
    found: list[list[Row]] = []
    newest: dict[str, list[Row]] = {}
    for row in rows:
        message = newest.get(row["product_id"])
        if message is None or any(row[name] != message[0][name] for name in SAME_MESSAGE):
            message = newest[row["product_id"]] = []
            found.append(message)
        message.append(row)
    return found


def state_of(book: Book, *, ignore: bool) -> str:
    if not book.proven and not ignore:
        return "unproven"
    bids, asks = book.sides["bid"], book.sides["ask"]
    if not bids and not asks:
        return "empty"
    if not bids or not asks:
        return "one_sided"
    return "crossed" if max(bids) >= min(asks) else "ok"


def shown(book: Book, depth: int, bands_bps: Sequence[float] = (), *, ignore: bool = False) -> Row:
    """Write down a book: the columns of its row that do not tell of the message."""
    best = {side: book.best_first(side) for side in ("bid", "ask")}
    row: Row = {}
    for side in ("bid", "ask"):
        for place, what in enumerate(("price", "size")):
            for k in range(depth):
                level = best[side][k] if k < len(best[side]) else (None, None)
                row[f"{side}_{what}_{k + 1}"] = level[place]
    state = state_of(book, ignore=ignore)
    row["n_bids"], row["n_asks"] = len(best["bid"]), len(best["ask"])
    row["book_state"] = state
    row["proven_since"] = None if state == "unproven" else book.snapshot_name
    for width in bands_bps:
        row |= band(best["bid"], best["ask"], width, known=state == "ok")
    return row


def band(bids: list[Any], asks: list[Any], width: float, *, known: bool) -> Row:
    """Sum up the sizes within a distance of the mid."""
    names = [f"{what}_{width:g}bps" for what in ("bid_depth", "ask_depth", "imbalance")]
    if not known:
        return dict.fromkeys(names)
    mid = (asks[0][0] + bids[0][0]) / 2
    bid_depth = ask_depth = 0.0
    for price, size in bids:
        if 1e4 * (mid - price) / mid <= width:
            bid_depth += size
    for price, size in asks:
        if 1e4 * (price - mid) / mid <= width:
            ask_depth += size
    total = bid_depth + ask_depth
    imbalance = None if total == 0 else (bid_depth - ask_depth) / total
    return dict(zip(names, (bid_depth, ask_depth, imbalance), strict=True))


def is_told(on: str, before: Row | None, row: Row, depth: int) -> bool:
    """Tell whether the book after a message differs, as ``on`` sees it, from the one before."""
    if on == "message" or before is None:
        return True
    places = range(1, (1 if on == "bbo" else depth) + 1)
    names = [f"{side}_{what}_{k}" for side in ("bid", "ask") for what in ("price", "size") for k in places]
    return any(row[name] != before[name] for name in [*names, "book_state", "proven_since"])


def is_kept(state_before: str | None, state: str) -> bool:
    """Return whether ``gaps="drop"`` keeps a row: of an ok book, or where one ceases to be ok or proven.

    So the last row kept of a product never says ok, or proven, of a book that has ceased to be so.
    """
    return state == "ok" or state_before == "ok" or (state == "unproven" and state_before != "unproven")


def rebuild(
    rows: Iterable[Row],
    *,
    depth: int = 10,
    on: str = "message",
    gaps: str = "mark",
    bands_bps: Sequence[float] = (),
    books: dict[str, Book] | None = None,
) -> list[Row]:
    """Return the rows of the book; ``books`` are those before the first row, and are carried on."""
    books = {} if books is None else books
    ignore = gaps == "ignore"
    found: list[Row] = []
    for message in messages(rows):
        head = message[0]
        book = books.setdefault(head["product_id"], Book())
        state_before = state_of(book, ignore=ignore) if book.has_book else None
        before = shown(book, depth, ignore=ignore) if book.has_book and on != "message" else None
        book.apply(message)
        if not book.has_book:
            continue
        row = shown(book, depth, bands_bps, ignore=ignore)
        if is_only_a_break(message) and row["book_state"] == state_before:
            continue
        if not is_told(on, before, row, depth):
            continue
        if gaps == "raise" and row["book_state"] == "unproven":
            raise Unproven(found)
        if gaps != "drop" or is_kept(state_before, row["book_state"]):
            found.append({"product_id": head["product_id"], **{name: head[name] for name in TOLD}, **row})
    return found


def levels(books: dict[str, Book]) -> list[Row]:
    """Give every level of the books, sorted by product, side (bids first) and price."""
    return [
        {"product_id": product_id, "side": side, "price": price, "size": size}
        for product_id, book in sorted(books.items())
        for side in ("bid", "ask")
        for price, size in sorted(book.sides[side].items())
    ]
