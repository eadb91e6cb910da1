"""The search for the book at an instant: the nearest snapshot or state, and the messages after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from cbtools.book.effect import effects_of
from cbtools.book.ladder import Ladder
from cbtools.book.messages import OF_FRAME, OF_MESSAGE, OF_ROW, RUN, Whole
from cbtools.book.rebuild import check_level2
from cbtools.book.rebuilder import BookOptions, Rebuilder
from cbtools.book.recorded import RECEIVED, moment, others_in, time_text
from cbtools.book.state import BookState
from cbtools.book.states import KeptState
from cbtools.errors import StateError
from cbtools.spans import about

_OF_MESSAGE: Final = ("server_time", "capture_time", "sequence_num", "connection", "line")
_SHOWN: Final = (*_OF_MESSAGE, "book_state", "proven_since")
_OPTIONS: Final = BookOptions(depth=1)
_OUT_OF_ORDER: Final = 10_000
"""Rows of a dataset, which are in the order of server_time, may be so far from the order of their numbers."""
_DAY_NS: Final = 86_400 * 10**9
_OF_ONE_PRODUCT: Final = 60 * 10**9
"""For so long after its last row, rows of one product alone tell its book, nanoseconds. In a quiet market a
product has no change for seconds, and only other products' rows show that the recording went on."""
_TIME: Final = pl.coalesce("capture_time", "server_time").to_physical().alias(RECEIVED)

Sides = tuple[pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True)
class Found:
    """A book: its bids and asks, its message as a row of ``book`` tells it, and when that was received.

    ``changed``: receipt of the last message, which a break is not.
    ``followed``: a message of the product was received later than the instant.
    """

    sides: Sides
    message: dict[str, Any]
    received: int
    changed: int
    followed: bool


class Asked:
    """The rows that a book is asked of, and the instant: in nanoseconds, and as it was given (``when``)."""

    def __init__(self, level2: Any, product_id: str, when: object, instant: int) -> None:
        self._has_runs = RUN in check_level2(level2)
        self.product_id, self.when, self.instant = product_id, when, instant
        self._every = level2.lazy().with_columns(_TIME)
        self._has_dates = "date" in self._every.collect_schema()
        self._of_product = self._every.filter(pl.col("product_id") == product_id)
        rows = self._of_product
        if self._has_dates:
            rows = rows.filter(pl.col("date").to_physical() <= instant // _DAY_NS + 1)
        self._rows = rows.select(*OF_ROW, *OF_FRAME, *([RUN] if self._has_runs else []), RECEIVED)

    def find(self, kept: Sequence[KeptState]) -> Found:
        """Find the book, from the nearest state or snapshot on."""
        rows, snapshot = self._rows, self._last_snapshot()
        states = [state for state in kept if state.time <= self.instant] if self._has_runs else []
        for state in sorted(states, key=lambda state: -state.time):
            if snapshot is not None and state.time <= (snapshot[RECEIVED] or 0):
                break
            try:
                found = self._from_state(state.load())
            except StateError:  # a damaged one: the rows have all that it held
                continue
            if found is not None:
                return found
        if snapshot is None:
            raise StateError(
                f"there is no book of {self.product_id!r} at {self.when}: no snapshot of it was received by "
                "then, or these rows have no such product"
            )
        if self._has_runs:
            number = snapshot["sequence_num"]
            since = pl.lit(True) if number is None else pl.col("sequence_num") >= number - _OUT_OF_ORDER
            rows = rows.filter(_from(snapshot[RUN], since))
        message, received, changed, followed = self._replayed(rows, rebuilder := Rebuilder(_OPTIONS, _SHOWN))
        if message is None or received is None or changed is None:
            raise StateError(
                f"the rows of {self.product_id!r} have neither a capture_time nor a server_time: it is not "
                f"known which of them were received by {self.when}"
            )
        return Found(_sides(rebuilder.books[self.product_id]), message, received, changed, followed)

    def check_end(self, last: int, end_of_recording: Callable[[], int | None] | None) -> None:
        """Refuse an instant after the recording's end, where no later message of the product is known.

        ``last``: receipt of its last message. ``end_of_recording`` tells that of a dataset's last frame.
        """
        instant, alone = self.instant, False
        if instant <= last:
            return
        end = None if end_of_recording is None else end_of_recording()
        if end is None:
            others = others_in(self._every, self.product_id, instant)
            alone, end = not others.any, others.last
        end = last if end is None else max(last, end)
        if instant <= end + (_OF_ONE_PRODUCT if alone else 0):
            return
        late = f"{self.when} is {about(instant - end)} after"
        if alone:
            raise StateError(
                f"{late} the last row, of {time_text(moment(end))}, and all rows are of {self.product_id!r}: "
                "they do not tell whether the recording went on without a change of it, or ended. Give the "
                "rows of all products, or the root of the dataset"
            )
        raise StateError(
            f"{late} the end of the recording, {time_text(moment(end))}: ask for an earlier instant, or give "
            "the rows of what was recorded later"
        )

    def _last_snapshot(self) -> dict[str, Any] | None:
        """Find the last snapshot before the first message that was received later."""
        later = pl.col(RECEIVED) > self.instant
        names = [name for name in self._rows.collect_schema() if name in (*OF_FRAME, RUN)]
        columns = [pl.col(name).to_physical() for name in names]
        marks = self._rows.filter(pl.col("is_snapshot") | later).select(*columns, RECEIVED)
        found = None
        for batch in marks.collect_batches(maintain_order=True):
            before = batch.head(_first_later(batch, self.instant))
            if before.height:
                found = before.row(-1, named=True)
            if before.height < batch.height:
                break
        return found

    def _from_state(self, state: BookState) -> Found | None:
        """Go on from a state; None if it has no book of the product."""
        if not state.products.filter(pl.col("product_id") == self.product_id)["has_book"].any():
            return None
        later = pl.col("sequence_num") > state.stream.last
        rows = self._rows.filter(_from(state.stream.run_of(self.product_id).name, later))
        rebuilder = Rebuilder(_OPTIONS, _SHOWN, state.stream, state.ladders(), state.begin)
        message, received, changed, followed = self._replayed(rows, rebuilder)
        sides = _sides(rebuilder.books[self.product_id])
        if message is None:
            message, received = self._of_state(state, sides)
        end = state.stream.last_time
        if changed is None:  # in the state
            rows = self._until(end).filter(OF_MESSAGE).select(RECEIVED).tail(1)
            found = rows.collect(engine="streaming")[RECEIVED].to_list()
            changed = found[0] if found else end
        return Found(sides, message, end if received is None else received, changed, followed)

    def _until(self, end: int) -> pl.LazyFrame:
        """Return the product's rows received by the end of a state."""
        rows: pl.LazyFrame = self._of_product.filter(pl.col(RECEIVED) <= end)
        return rows.filter(pl.col("date").to_physical() <= end // _DAY_NS + 1) if self._has_dates else rows

    def _of_state(self, state: BookState, sides: Sides) -> tuple[dict[str, Any], int | None]:
        """Tell of the last message in a state, after which none came: its row is found by its number.

        Where that row is gone, the state's end stands for the message's time.
        """
        effect, end = effects_of(state.products)[self.product_id], state.stream.last_time
        rows = self._until(end)
        if effect.sequence_num is not None:
            rows = rows.filter(pl.col("sequence_num") == effect.sequence_num)
        elif self._has_dates:
            rows = rows.filter(pl.col("date").to_physical() >= end // _DAY_NS - 1)
        row = rows.select(*_OF_MESSAGE, RECEIVED).tail(1).collect(engine="streaming").to_dicts()
        known = {"sequence_num": effect.sequence_num, "connection": state.stream.connection}
        message = row[0] if row else dict.fromkeys(_OF_MESSAGE) | known
        received = message.pop(RECEIVED, None)
        since = moment(effect.proven_since) if effect.proven and effect.proven_since is not None else None
        state_of = _state_of(*sides) if effect.proven else "unproven"
        return message | {"proven_since": since, "book_state": state_of}, received

    def _replayed(
        self, rows: pl.LazyFrame, rebuilder: Rebuilder
    ) -> tuple[dict[str, Any] | None, int | None, int | None, bool]:
        """Apply messages until the first that was received later.

        Returns the last row of the book, if there is one; when the last of the rows applied was received (of
        those with a time), and the last that is no break; and whether one was received later.
        """
        whole, last, received, changed, followed = Whole(), None, None, None, False
        for batch in rows.collect_batches(maintain_order=True):
            before = batch.head(_first_later(batch, self.instant))
            times = before[RECEIVED].drop_nulls()
            received = times[-1] if len(times) else received
            times = before.filter(OF_MESSAGE)[RECEIVED].drop_nulls()
            changed = times[-1] if len(times) else changed
            rows_of_book = [rebuilder(part.drop(RECEIVED)) for part in whole(before)]
            last = next((frame.row(-1, named=True) for frame in reversed(rows_of_book) if frame.height), last)
            if before.height < batch.height:
                followed = True
                break
        for part in whole(None):
            rest = rebuilder(part.drop(RECEIVED))
            last = rest.row(-1, named=True) if rest.height else last
        return last, received, changed, followed


def _from(run: int, later: pl.Expr) -> pl.Expr:
    """Take the rows of later runs, and of this run those that are later; runs are named by rising times."""
    of_run = pl.col(RUN).to_physical()
    return (of_run > run) | ((of_run == run) & later.fill_null(True))


def _first_later(batch: pl.DataFrame, instant: int) -> int:
    later = (batch[RECEIVED] > instant).arg_true()
    return int(later[0]) if len(later) else batch.height


def _sides(ladder: Ladder) -> Sides:
    """Return bids and asks, best first."""
    side, price, size = ladder.levels()
    levels = pl.DataFrame({"price": price, "size": size})
    return levels.filter(pl.Series(side == 0)).reverse(), levels.filter(pl.Series(side == 1))


def _state_of(bids: pl.DataFrame, asks: pl.DataFrame) -> str:
    """Return the state of a book that is proven, by its levels."""
    if bids.is_empty() or asks.is_empty():
        return "empty" if bids.is_empty() and asks.is_empty() else "one_sided"
    return "crossed" if bids["price"][0] >= asks["price"][0] else "ok"
