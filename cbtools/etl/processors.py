"""The processors: a lazy frame in, a lazy frame out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import Error as CopyError
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import polars as pl

from cbtools.errors import ConfigError
from cbtools.etl.counts import Counted, count_rows, uncounted
from cbtools.lazy import source as lazy_source

Processor = Callable[[pl.LazyFrame], pl.LazyFrame | pl.DataFrame]
"""A function of a lazy frame; a `BaseProcessor` is one, too."""


class BaseProcessor(Counted):
    """A processor: a subclass overrides `process`, or `process_batch`.

    Called with a frame, it counts ``records_processed`` (rows in) and ``records_output`` (rows out).

    Examples
    --------
    >>> class Large(BaseProcessor):
    ...     def process(self, frame):
    ...         return frame.filter(pl.col("size") > 1)
    >>> large = Large()
    >>> large(pl.LazyFrame({"size": [0.5, 2.0, 3.0]})).collect()["size"].to_list()
    [2.0, 3.0]
    >>> large.get_stats()
    {'records_output': 2, 'records_processed': 2}

    The filter is pushed down to the reading of the rows: what it rules out, nobody has processed.
    """

    counters: ClassVar[tuple[str, ...]] = ("stats", "_passed")
    batch_size: ClassVar[int] = 10_000
    """How many records `process_batch` gets at a time; the last batch has fewer."""

    schema: Any = None
    """Of what `process_batch` gives: column → dtype. By default that of the first records that it gives."""

    def __call__(self, frame: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
        """Process a frame, and count its rows."""
        if not isinstance(frame, pl.LazyFrame | pl.DataFrame):
            raise ConfigError(f"{_name(self)} takes a Polars frame, not {type(frame).__name__}")
        return self.follow(frame.lazy(), ())

    def follow(self, frame: pl.LazyFrame, others: Iterable[Counted]) -> pl.LazyFrame:
        """Process a frame that others count while it is read.

        Parameters
        ----------
        frame : polars.LazyFrame
            The rows.
        others : iterable of Counted
            Who do not count what is read to learn the columns that `process_batch` gives.

        Returns
        -------
        polars.LazyFrame
        """
        before = count_rows(frame, lambda: self._passed, "records_processed")
        learns = type(self).process is BaseProcessor.process and self.schema is None
        with uncounted([*others, self] if learns else []):
            made = apply(self.process, before, self)
        return count_rows(made, lambda: self._passed, "records_output")

    @cached_property
    def _passed(self) -> Counter[str]:
        """The rows that passed: apart from what a subclass counts, whatever it does with ``stats``."""
        return Counter()

    def get_stats(self) -> dict[str, Any]:
        """Give what was counted since the last `reset_stats`: what the class counts, and the rows.

        Returns
        -------
        dict
            Name of a count → count; ``records_processed`` and ``records_output`` are the rows in and out.
        """
        return {**self.stats, **self._passed}

    def process(self, frame: pl.LazyFrame) -> pl.LazyFrame | pl.DataFrame:
        """Process a frame; by default with `process_batch`, as a stream.

        Parameters
        ----------
        frame : polars.LazyFrame
            The rows.

        Returns
        -------
        polars.LazyFrame or polars.DataFrame

        Raises
        ------
        ConfigError
            If neither `process` nor `process_batch` is overridden.
        """
        if type(self).process_batch is BaseProcessor.process_batch:
            raise ConfigError(f"{type(self).__name__} must override process(frame) or process_batch(records)")
        schema = self._schema_of(frame) if self.schema is None else pl.Schema(self.schema)

        def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            for records in _records(frame, self.batch_size):
                yield _frame_of(self.process_batch(records), schema, self)

        return lazy_source(batches, schema, type(self).__name__)

    def process_batch(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Process the next records.

        It gets all records in order, `batch_size` of them at a time, and may keep what it needs of them. A
        query that is run twice calls it twice as often. To learn the columns that it gives, a copy of the
        processor is tried before, as far as the first batch for which it gives something, unless the class
        says them as `schema`.

        Parameters
        ----------
        records : list of dict
            Column → value. Times are Python's, to the microsecond: override `process` where that will not do.

        Returns
        -------
        list of dict
            Any number of records, all with the same columns; one that is left out is null.
        """
        raise NotImplementedError

    def _schema_of(self, frame: pl.LazyFrame) -> pl.Schema:
        """Learn the columns from the first records that a copy gives; those that came in keep their dtype."""
        given = frame.collect_schema()
        try:
            tried = deepcopy(self)
        except (CopyError, TypeError) as error:
            raise ConfigError(
                f"{_name(self)} cannot be copied, to learn its columns: say them as its schema ({error})"
            ) from error
        made = (tried.process_batch(records) for records in _records(frame, self.batch_size))
        found = pl.DataFrame(next(filter(None, made), []), infer_schema_length=None).schema
        if not found:
            return given
        schema = {name: given.get(name, dtype) for name, dtype in found.items()}
        if untold := [name for name, dtype in schema.items() if dtype == pl.Null]:
            raise ConfigError(
                f"{type(self).__name__} gives no value of {', '.join(untold)} in its first records, "
                "which tell the dtype: say the columns as the class's schema"
            )
        return pl.Schema(schema)


def apply(process: Processor, frame: pl.LazyFrame, shown: object) -> pl.LazyFrame:
    """Call a processor, and refuse what is no frame."""
    made = process(frame)
    if not isinstance(made, pl.LazyFrame | pl.DataFrame):
        raise ConfigError(f"{_name(shown)} must give a Polars frame, not {type(made).__name__}")
    return made.lazy()


def _records(frame: pl.LazyFrame, size: int) -> Iterator[list[dict[str, Any]]]:
    """Give the rows as records, so many at a time, however the query cuts them."""
    waiting = frame.collect_schema().to_frame()
    for batch in frame.collect_batches(maintain_order=True):
        waiting = pl.concat([waiting, batch])
        while waiting.height >= size:
            yield waiting.head(size).to_dicts()
            waiting = waiting.slice(size)
    if waiting.height:
        yield waiting.to_dicts()


def _frame_of(records: Any, schema: pl.Schema, shown: object) -> pl.DataFrame:
    if not isinstance(records, list):
        raise ConfigError(f"{_name(shown)}.process_batch must give a list of dicts, not {records!r}")
    if unknown := {name for record in records for name in record} - schema.keys():
        raise ConfigError(
            f"{_name(shown)} gives {', '.join(sorted(unknown))}, which its first records had not: say the "
            "columns as the class's schema"
        )
    return pl.DataFrame(records, schema=schema)


def _name(shown: object) -> str:
    return str(getattr(shown, "__name__", type(shown).__name__))


class _Plain(BaseProcessor):
    """A plain function as a processor, so that its rows are counted."""

    def __init__(self, function: Processor) -> None:
        self.function = function
        self.__name__ = _name(function)

    def process(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        return apply(self.function, frame, self)


@dataclass(frozen=True, init=False)
class ProcessorChain(BaseProcessor):
    """Several processors, one after the other: each a `BaseProcessor` or any function of a frame.

    Parameters
    ----------
    processors : sequence of BaseProcessor or callable
        In the order in which they are called. A chain among them is taken apart.

    Raises
    ------
    ConfigError
        If one of them cannot be called with a frame.

    Examples
    --------
    >>> def large(frame):
    ...     return frame.filter(pl.col("size") > 1)
    >>> chain = ProcessorChain([large, lambda frame: frame.select(pl.sum("size"))])
    >>> chain(pl.DataFrame({"size": [0.5, 2.0, 3.0]})).collect().item()
    5.0
    >>> chain.get_stats()["large"]
    {'records_output': 2, 'records_processed': 2}
    """

    processors: tuple[BaseProcessor, ...]

    def __init__(self, processors: Processor | Sequence[Processor]) -> None:
        made: list[BaseProcessor] = []
        for one in [processors] if callable(processors) else processors:
            if isinstance(one, ProcessorChain):
                made += one.processors
            elif isinstance(one, BaseProcessor):
                made.append(one)
            elif callable(one) and not isinstance(one, type):
                made.append(_Plain(one))
            else:
                raise ConfigError(
                    f"a processor must be a function of a frame or a BaseProcessor, not {one!r}"
                )
        object.__setattr__(self, "processors", tuple(made))

    def process(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Process a frame.

        Parameters
        ----------
        frame : polars.LazyFrame
            The rows.

        Returns
        -------
        polars.LazyFrame
            What the last processor gives.
        """
        return self.follow(frame, ())

    def follow(self, frame: pl.LazyFrame, others: Iterable[Counted]) -> pl.LazyFrame:
        """Process a frame that others count while it is read."""
        before = list(others)
        for processor in self.processors:
            frame = processor.follow(frame, before)
            before.append(processor)
        return frame

    def get_stats(self) -> dict[str, Any]:
        """Give ``records_processed`` of the first and ``records_output`` of the last, and each one's counts.

        Returns
        -------
        dict
            These, and name of a processor → its counts (``_2`` at the second of a name).
        """
        if not self.processors:
            return {}
        first, last = self.processors[0], self.processors[-1]
        ends = {name: one.get_stats().get(name, 0) for name, one in zip(_ENDS, (first, last), strict=True)}
        return {**ends, **named(self.processors)}

    def reset_stats(self) -> None:
        """Have all processors count from 0 again."""
        for processor in self.processors:
            processor.reset_stats()


_ENDS = ("records_processed", "records_output")


def named(processors: Iterable[BaseProcessor]) -> dict[str, dict[str, Any]]:
    """Give the counts of processors by their names."""
    found: dict[str, dict[str, Any]] = {}
    for processor in processors:
        name, n = _name(processor), 1
        while (shown := name if n == 1 else f"{name}_{n}") in found:
            n += 1
        found[shown] = processor.get_stats()
    return found
