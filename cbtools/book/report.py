"""What was found while the books were rebuilt, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from cbtools.book.ladder import Ladder
from cbtools.raw.report import as_html, as_text, counted
from cbtools.schema import BOOK_STATE

STATES: Final = tuple(BOOK_STATE.categories)

Tickers = Mapping[str, Mapping[str, tuple[int, int]]]
"""Product → book_state → tickers that came while the book was so, and those of them that agree with it."""


@dataclass(frozen=True)
class BookCounts:
    """What one product's book met.

    Attributes
    ----------
    messages, changes : int
        Whole messages, and the level changes in them.
    snapshots : int
        Messages that replaced the book.
    states : dict
        book_state → messages that left the book so.
    early_changes : int
        Changes before the first snapshot: kept in level2, but no book.
    absent_deletes : int
        Deletes of a level that was not there.
    breaks : int
        How often the book ceased to be proven: frames are missing, or the connection is another one. Further
        breaks before the next snapshot do not count.
    tickers, agreeing : dict
        book_state → tickers that name a best bid and ask while the book was so; and those of them that name
        the best prices of the book after the last message before them.
    """

    messages: int = 0
    changes: int = 0
    snapshots: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    early_changes: int = 0
    absent_deletes: int = 0
    breaks: int = 0
    tickers: Mapping[str, int] = field(default_factory=dict)
    agreeing: Mapping[str, int] = field(default_factory=dict)

    @property
    def agreement(self) -> float | None:
        """Share of the tickers beside an ok book that agree with it; None if there are none."""
        tickers = self.tickers.get("ok", 0)
        return self.agreeing.get("ok", 0) / tickers if tickers else None


@dataclass(frozen=True)
class BookReport:
    """What the rebuilt books met, by product."""

    products: Mapping[str, BookCounts] = field(default_factory=dict)

    def items(self) -> list[tuple[str, str]]:
        """Give the report as pairs of a label and a text, as it is printed."""
        all_counts = self.products.values()
        states = {state: sum(counts.states.get(state, 0) for counts in all_counts) for state in STATES}
        shown = [
            (
                "book",
                f"{sum(c.messages for c in all_counts):,} messages, {sum(c.changes for c in all_counts):,} "
                f"changes, {sum(c.snapshots for c in all_counts):,} snapshots",
            ),
            ("book states", counted({state: n for state, n in states.items() if n})),
            ("before a snapshot", self._by_product("early_changes", "changes")),
            ("absent deletes", self._by_product("absent_deletes", "changes")),
            ("breaks met", self._by_product("breaks", "")),
        ]
        for state in STATES:
            found = {
                name: (counts.agreeing.get(state, 0), counts.tickers[state])
                for name, counts in self.products.items()
                if counts.tickers.get(state)
            }
            if found:
                shown.append((f"ticker agrees, {state}", _shares(found)))
        return shown

    @property
    def agreement(self) -> float | None:
        """Share of the tickers beside an ok book that agree with it, of all products; None without any."""
        counts = self.products.values()
        tickers = sum(c.tickers.get("ok", 0) for c in counts)
        return sum(c.agreeing.get("ok", 0) for c in counts) / tickers if tickers else None

    def unverified(self) -> dict[str, tuple[int, int]]:
        """Return the products with an unproven book, or none, at most messages: these, and all messages."""
        none = {name: c.messages - sum(c.states.values()) for name, c in self.products.items()}
        shares = {
            name: (c.states.get("unproven", 0) + none[name], c.messages) for name, c in self.products.items()
        }
        return {name: (n, of) for name, (n, of) in shares.items() if 2 * n > of}

    def _by_product(self, what: str, unit: str) -> str:
        found = {name: getattr(counts, what) for name, counts in self.products.items()}
        text = counted({name: n for name, n in found.items() if n})
        return f"{text} {unit}".rstrip() if text != "none" else text

    def to_frame(self) -> pl.DataFrame:
        """Give the counts as a frame, a row a product.

        Returns
        -------
        polars.DataFrame
            product_id; messages, changes, snapshots; a column for each book_state; early_changes,
            absent_deletes, breaks; tickers, agreeing (of an ok book).

        Examples
        --------
        >>> BookReport({"BTC-USD": BookCounts(messages=2)}).to_frame()["messages"].to_list()
        [2]
        """
        rows = [
            {
                "product_id": name,
                "messages": counts.messages,
                "changes": counts.changes,
                "snapshots": counts.snapshots,
                **{state: counts.states.get(state, 0) for state in STATES},
                "early_changes": counts.early_changes,
                "absent_deletes": counts.absent_deletes,
                "breaks": counts.breaks,
                "tickers": counts.tickers.get("ok", 0),
                "agreeing": counts.agreeing.get("ok", 0),
            }
            for name, counts in self.products.items()
        ]
        counts = ("messages", "changes", "snapshots", *STATES, "early_changes", "absent_deletes", "breaks")
        columns = {"product_id": pl.String(), **dict.fromkeys((*counts, "tickers", "agreeing"), pl.Int64())}
        return pl.DataFrame(rows, schema=columns)

    def __str__(self) -> str:
        return as_text(self.items())

    def _repr_html_(self) -> str:
        return as_html("Book report", self.items())


def _shares(found: Mapping[str, tuple[int, int]], most: int = 5) -> str:
    agreeing, tickers = (sum(counts) for counts in zip(*found.values(), strict=True))
    text = f"{agreeing / tickers:.2%} of {tickers:,}"
    if len(found) > 1:
        worst = sorted(found.items(), key=lambda item: item[1][0] / item[1][1])[:most]
        text += ": " + ", ".join(f"{name} {good / n:.2%}" for name, (good, n) in worst)
    return text


def counts_of(books: Mapping[str, Ladder], tickers: Tickers | None = None) -> BookReport:
    """Read what the kernels counted."""
    made = {}
    for product, ladder in sorted(books.items()):
        found = (tickers or {}).get(product, {})
        made[product] = BookCounts(
            **ladder.counts(),
            states={state: n for state, n in zip(STATES, ladder.state_counts(), strict=True) if n},
            tickers={state: n for state, (n, _) in found.items()},
            agreeing={state: good for state, (_, good) in found.items()},
        )
    return BookReport(made)
