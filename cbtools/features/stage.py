"""How features are added to a frame: in one pass, streaming, all that are asked for together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError, unknown_name
from cbtools.features.catalogue import Chosen, Feature, Names
from cbtools.features.links import NO_TIME, Links, order_of, times_of
from cbtools.features.view import Carried, Recorder, View, depth_of
from cbtools.features.windows import Tape, Term, Window
from cbtools.lazy import Step, stateful

F64 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

Clock = str | tuple[str, ...]
"""The column of the time of a row; or those of its receipt, the first that is not null, of which the running
maximum over the product's rows counts."""

_SLICE: Final = 131_072
"""So many rows are taken at a time: more would only need more memory."""
_BLOCK: Final = 32_768
"""So many for features of one row: the levels that they are computed of stay in the cache."""


@dataclass(frozen=True)
class Rows:
    """What the rows of a table are: how they follow one another, and where features of one row are defined.

    ``features`` are those of one row and of a row and those before it; windows are over them.
    """

    what: str
    features: tuple[Feature, ...]
    linker: Callable[[], Any]
    ok: pl.Expr | None = None


def add_columns(
    frame: pl.LazyFrame | pl.DataFrame,
    chosen: Sequence[Chosen],
    rows: Rows,
    *,
    clock: Clock | None = None,
    before: pl.DataFrame | None = None,
) -> pl.LazyFrame:
    """Add the columns of features to a frame; ``before`` are rows that came before it, to go on from."""
    schema = check_frame(frame, rows.what)
    check_chosen(chosen, rows, schema)
    if any(one.feature.terms is not None for one in chosen):
        for column in (clock,) if clock is None or isinstance(clock, str) else clock:
            check_clock(schema, column, rows.what)
    made = pl.Schema({**schema, **{one.name: one.feature.dtype for one in chosen}})

    def start(columns: list[str]) -> tuple[list[str], Step]:
        adder = Adder([one for one in chosen if one.name in columns], rows, schema, clock)
        if before is not None:
            adder(before)
        kept = {*columns} - {*adder.made}
        needed = [name for name in schema if name in adder.needed | kept]

        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            if batch is None or batch.is_empty():
                return pl.DataFrame(schema={name: made[name] for name in columns})
            return batch.with_columns(*adder(batch)).select(columns)

        return needed, step

    by = "product_id" if "product_id" in schema else None
    return stateful(frame.lazy(), start, made, f"FEATURES of {rows.what}", by=by)


def check_frame(frame: pl.LazyFrame | pl.DataFrame, what: str) -> pl.Schema:
    """Refuse what is no frame; give its columns."""
    if not isinstance(frame, pl.LazyFrame | pl.DataFrame):
        raise ConfigError(f"{what} must be a Polars frame, not {frame!r}")
    return frame.lazy().collect_schema()


def check_clock(schema: Mapping[str, pl.DataType], clock: str | None, what: str) -> None:
    """Refuse a clock that the frame does not have."""
    times = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]
    if clock not in times:
        raise unknown_name(f"clock of the {what} frame", str(clock), times)


def check_chosen(chosen: Sequence[Chosen], rows: Rows, schema: pl.Schema) -> None:
    """Refuse features that the frame has not the columns for."""
    depth = depth_of(schema)
    for one in chosen:
        levels = one.parameters.get("k", 0) if rows.what == "book" else 0
        if levels > depth:
            raise ConfigError(
                f"{one.name} needs {levels} levels of a side, and the frame has {depth}: "
                f"rebuild_book(..., depth={levels}) shows them"
            )
        for name in sorted(_used([one], rows, depth) - {*schema}):
            if one.feature.compute is None:
                raise ConfigError(f"{one.name} is not in the frame; it is made by: {one.feature.definition}")
            hint = ": join_quotes adds it" if (rows.what, name) == ("market_trades", "mid") else ""
            raise ConfigError(f"{one.name} needs the column {name}, which the frame lacks{hint}")


def needed_columns(chosen: Chosen, depth: int) -> list[str]:
    """Find the columns that a feature of one row is computed of, by computing it of no rows."""
    recorder = Recorder(Names(), depth)
    recorder.compute(chosen)
    return sorted(recorder.used)


def _used(chosen: Sequence[Chosen], rows: Rows, depth: int) -> set[str]:
    """Find the columns that features are computed of, by computing them of no rows."""
    recorder = Recorder(Names(rows.features), _levels(chosen, depth))
    for one in chosen:
        if one.feature.terms is not None:
            for term in one.feature.terms(**_without_window(one)):
                for column in filter(None, (term.column, term.other)):
                    recorder.column(column)
        elif one.feature.compute is not None:
            recorder.compute(one)
        else:
            recorder.used.add(one.name)
    links = any(not one.feature.of_one_row for one in chosen)
    return recorder.used | ({*rows.linker().columns} - {"product_id"} if links else set())


def _levels(chosen: Sequence[Chosen], depth: int) -> int:
    """Tell of how many levels features are computed; those that do not say take all that there are."""
    return min(depth, max((one.parameters.get("k", depth) for one in chosen), default=depth))


def _without_window(chosen: Chosen) -> dict[str, Any]:
    return {key: value for key, value in chosen.parameters.items() if key != "w"}


class Adder:
    """Computes features batch by batch; between two batches it has what the next one's may need."""

    def __init__(
        self, chosen: Sequence[Chosen], rows: Rows, schema: pl.Schema, clock: Clock | None = None
    ) -> None:
        computed = [one for one in chosen if one.feature.compute is not None]
        self.made = [one.name for one in computed]
        self._dtypes = {one.name: one.feature.dtype for one in computed}
        self._of_rows = [one for one in computed if one.feature.of_one_row]
        self._of_changes = [
            one for one in computed if one.feature.terms is None and not one.feature.of_one_row
        ]
        self._of_windows = [one for one in computed if one.feature.terms is not None]
        self._rows, self._clock = rows, clock
        self._names, self._linker, self._carried = Names(rows.features), rows.linker(), Carried()
        self._depth = _levels(computed, depth_of(schema))
        self._tapes: dict[int, Tape] = {}
        self._plan()
        ok = {*rows.ok.meta.root_names()} if rows.ok is not None and self._of_rows else set()
        self.needed = _used(computed, rows, depth_of(schema)) | (ok & {*schema})
        self._linked = any(not one.feature.of_one_row for one in computed)
        if self._linked:
            self.needed |= {"product_id"} & {*schema}
        if self._of_windows and clock is not None:
            self.needed |= {clock} if isinstance(clock, str) else {*clock}
        self._reached = np.zeros(0, np.int64)

    def _plan(self) -> None:
        """Find the windows: one a span, with what is summed in it for all features together."""
        terms: dict[int, dict[Term, int]] = {}
        self._sources: list[tuple[Chosen, int, list[int]]] = []
        for one in self._of_windows:
            assert one.feature.terms is not None
            span = one.parameters["w"]
            of_span = terms.setdefault(span, {})
            places = [of_span.setdefault(t, len(of_span)) for t in one.feature.terms(**_without_window(one))]
            self._sources.append((one, list(terms).index(span), places))
        self._windows = [Window(span, tuple(of_span)) for span, of_span in terms.items()]
        summed = [name for w in self._windows for term in w.terms for name in (term.column, term.other)]
        self._summed = list(dict.fromkeys(name for name in summed if name))

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Take the next rows; give their features."""
        if batch.is_empty():
            return pl.DataFrame(schema=self._dtypes)
        parts = [self._add(batch.slice(k, _SLICE)) for k in range(0, batch.height, _SLICE)]
        made = (
            parts[0]
            if len(parts) == 1
            else {name: np.concatenate([part[name] for part in parts]) for name in self.made}
        )
        frame = pl.DataFrame({name: made[name] for name in self.made}).fill_nan(None)  # all at once
        others = {name: dtype for name, dtype in self._dtypes.items() if dtype != pl.Float64}
        return frame.cast(others) if others else frame  # type: ignore[arg-type]

    def _add(self, frame: pl.DataFrame) -> dict[str, F64]:
        links = self._linker(frame) if self._linked else None
        view = View(frame, self._names, links, self._carried, self._depth)
        with np.errstate(all="ignore"):
            made = self._add_to_rows(frame)
            made |= {one.name: view.compute(one) for one in self._of_changes}
            if links is not None and self._of_windows:
                made |= self._add_windows(view, links)
        return made

    def _add_to_rows(self, frame: pl.DataFrame) -> dict[str, F64]:
        """Compute the features of one row, block by block; null where the rows are not ok."""
        if not self._of_rows:
            return {}
        made: dict[str, F64] = {one.name: np.empty(frame.height) for one in self._of_rows}
        for k in range(0, frame.height, _BLOCK):
            block = frame.slice(k, _BLOCK)
            view, ok = View(block, self._names, depth=self._depth), self._ok(block)
            for one in self._of_rows:
                values = view.compute(one)
                made[one.name][k : k + _BLOCK] = values if ok is None else np.where(ok, values, np.nan)
        return made

    def _ok(self, frame: pl.DataFrame) -> B1 | None:
        """Tell where features of one row are defined; None if everywhere."""
        if self._rows.ok is None:
            return None
        ok = frame.select(self._rows.ok.fill_null(value=False)).to_series()
        return None if ok.all() else ok.to_numpy()

    def _add_windows(self, view: View, links: Links) -> dict[str, F64]:
        n = view.frame.height
        made: dict[str, F64] = {}
        columns = [view.column(name) for name in self._summed]
        time = self._times(view.frame, links)
        for code, places in _by_code(links):
            if code not in self._tapes:
                self._tapes[code] = Tape(self._summed, self._windows)
            sums = self._tapes[code](time[places], [c[places] for c in columns], ~links.follows[places])
            for one, window, terms in self._sources:
                assert one.feature.compute is not None
                values = one.feature.compute(sums[window].of(terms), **_without_window(one))
                if len(values) == n:
                    made[one.name] = values
                else:
                    made.setdefault(one.name, np.full(n, np.nan))[places] = values
        return made if made else {one.name: np.full(n, np.nan) for one in self._of_windows}

    def _times(self, frame: pl.DataFrame, links: Links) -> I64:
        """Return the time of each row."""
        assert self._clock is not None
        if isinstance(self._clock, str):
            return times_of(frame, self._clock)
        from cbtools._kernels.flow import reach

        time = times_of(frame, *self._clock).copy()
        more = int(links.codes.max(initial=-1)) + 1 - len(self._reached)
        self._reached = np.concatenate([self._reached, np.full(max(more, 0), NO_TIME)])
        reach(links.codes, time, self._reached)
        return time


def _by_code(links: Links) -> Iterator[tuple[int, Any]]:
    """Give each product's usable rows: as a slice where it has all of them, else as places."""
    codes = links.codes
    if not links.usable.any():
        return
    if links.usable.all() and (codes == codes[0]).all():
        yield int(codes[0]), slice(None)
        return
    usable = np.flatnonzero(links.usable)
    codes = codes[usable]
    order = usable[order_of(codes)]
    counts = np.bincount(codes)
    for code, places in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        if counts[code]:
            yield code, places
