"""What a run warns of: rejected lines, a clock that is off, books that were hardly ever verified, no rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cbtools.book.report import BookReport
from cbtools.errors import warn
from cbtools.raw.delays import ReceiveDelay, off_text
from cbtools.raw.report import RawReport, counted, listed

Rows = Mapping[str, Mapping[str, int]]
"""Table → product → rows."""


def warn_of_clock(delays: Mapping[str, ReceiveDelay], where: str) -> None:
    """Warn if the recorder's clock must be off."""
    wrong = off_text(delays)
    if wrong:
        warn(
            f"{where}: the recorder's clock is off: {wrong}. By capture_time, rows are shifted against the "
            "exchange's times; synchronize the recorder's clock (NTP)"
        )


def warn_of_lines(raw: RawReport, where: str) -> None:
    """Warn of a damaged file, and of lines of which more than a quarter was rejected."""
    for damage in raw.damages.values():
        warn(f"{where}: the file is damaged: {damage}. All lines that its bytes yield were read")
    if raw.rejected > raw.lines / 4:
        formats = "".join(f"; {n:,} appear to be {what}" for what, n in raw.formats.items())
        warn(
            f"{where}: {raw.rejected:,} of {raw.lines:,} lines were rejected ({counted(raw.rejects)})"
            f"{formats}. Their bytes are in quarantine, each with its reason"
        )


def warn_of_books(book: BookReport | None, where: str) -> None:
    """Warn of products that had no verified book for most of their messages."""
    found = {} if book is None else book.unverified()
    if found:
        shares = sorted(((n / of, name, of) for name, (n, of) in found.items()), reverse=True)
        shown = listed(f"{name} ({share:.0%} of {of:,})" for share, name, of in shares)
        warn(
            f"{where}: for most messages, there was no verified book: {shown}. Frames are missing, or no "
            "snapshot came (run the segment before it first). Give all rows to cbtools' functions, which "
            "leave out what is unproven: without these rows they see no breaks"
        )


def warn_of_no_rows(rows: Rows, products: Collection[str], tables: Collection[str], where: str) -> None:
    """Warn of products that were asked for and have no rows in any table; or else of tables without rows."""
    found = [(table, product) for table, of in rows.items() for product, n in of.items() if n]
    missing = sorted(set(products) - {product for _, product in found})
    empty = [table for table in tables if table not in {table for table, _ in found}]
    if missing:
        _warn_of_no_product(missing, where)
    elif empty:
        warn(f"{where}: no rows of {listed(empty)}: was the channel recorded, and of these products?")


def warn_of_job(clock: str, missing: Collection[str]) -> None:
    """Warn once of all segments of a job: of clocks that are off, and of products without rows."""
    if clock:
        warn(f"the recorder's clock is off {clock}. Synchronize it (NTP); by capture_time, rows are shifted")
    if missing:
        _warn_of_no_product(sorted(missing), "all segments that were run")


def _warn_of_no_product(products: list[str], where: str) -> None:
    warn(f"{where}: no rows of {listed(products)}: is the name right (as BTC-USD), and was it recorded?")
