"""What the objects of this package count while they work, and how the rows of a lazy frame are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import polars as pl

from cbtools.lazy import source


class Counted:
    """An object with counts. They stand beside its fields: a frozen dataclass has them too.

    Examples
    --------
    >>> counted = Counted()
    >>> counted.stats["records_read"] += 3
    >>> counted.get_stats()
    {'records_read': 3}
    >>> counted.reset_stats()
    >>> counted.get_stats()
    {}
    """

    counters: ClassVar[tuple[str, ...]] = ("stats",)
    """The attributes that hold counts."""

    @cached_property
    def stats(self) -> Counter[str]:
        """The counts, to be added to."""
        return Counter()

    def get_stats(self) -> dict[str, Any]:
        """Give what was counted since the last `reset_stats`.

        A lazy frame is counted when its query runs. Rows that a query's filter or limit leaves unread are not
        counted.

        Returns
        -------
        dict
            Name of a count → count.
        """
        return dict(self.stats)

    def reset_stats(self) -> None:
        """Count from 0 again."""
        for name in self.counters:
            vars(self).pop(name, None)


@contextmanager
def uncounted(objects: Iterable[Counted]) -> Iterator[None]:
    """Have what these objects count in the block forgotten, also what its queries count after it.

    Parameters
    ----------
    objects : iterable of Counted
        Whose counts stay as they are. A query counts where the counts were when it began.

    Examples
    --------
    >>> counted = Counted()
    >>> with uncounted([counted]):
    ...     counted.stats["records_read"] += 3
    >>> counted.get_stats()
    {}
    """
    held = [(vars(one), {name: vars(one).pop(name, None) for name in one.counters}) for one in objects]
    try:
        yield
    finally:
        for attributes, counters in held:
            for name, counter in counters.items():
                attributes.pop(name, None)
                if counter is not None:
                    attributes[name] = counter


def count_rows(frame: pl.LazyFrame, stats: Callable[[], Counter[str]], name: str) -> pl.LazyFrame:
    """Count the rows of a lazy frame while a query reads them.

    Parameters
    ----------
    frame : polars.LazyFrame
        The rows. What the query needs of them (columns, predicate) goes through to it.
    stats : callable
        Gives the counts to add to, when a query begins.
    name : str
        Name of the count.

    Returns
    -------
    polars.LazyFrame
        The same rows.

    Examples
    --------
    >>> stats = Counter()
    >>> frame = count_rows(pl.LazyFrame({"a": [1, 2, 3]}), lambda: stats, "rows")
    >>> frame.filter(pl.col("a") > 1).collect().height, stats["rows"]
    (2, 2)
    """

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        counts = stats()
        counts[name] += 0
        rows = frame if predicate is None else frame.filter(predicate)
        for batch in rows.select(columns).collect_batches(maintain_order=True):
            counts[name] += batch.height
            yield batch

    return source(batches, frame.collect_schema(), "COUNT")
