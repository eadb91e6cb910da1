"""How features are defined: a formula becomes a row of the catalogue, and a public function with its docs."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import polars as pl

from cbtools.features import clock as clocks
from cbtools.features.catalogue import Feature, Names, Table, named, parameters_of
from cbtools.features.stage import Rows, add_columns, needed_columns
from cbtools.features.view import View
from cbtools.features.windows import Term
from cbtools.schema import BOOK_DEPTH

NOT_OK: Final = "book_state is not ok"
NO_ROW_BEFORE: Final = f"{NOT_OK}, or the row before is not of the same run"
NOT_COVERED: Final = "the run does not cover the window, or something in it is undefined"

_PARAMETERS: Final = {
    "k": ("int", "Levels of a side, from the best on (of those that there are); or the rank of a level."),
    "K": ("int", "Rows between two prices that are compared, 2 or more."),
    "w": ("str", "Span of the window, e.g. ``'5s'`` or ``'1m30s'``; it is half-open: (t - w, t]."),
    "notional": ("float", "What is to be filled, quote currency."),
    "decay": ("float", "Distance from mid at which a size counts 1/e, basis points."),
    "levels": ("int", "Levels of a side that the frame shows."),
    "clock": ("str", "Which time the window is of. It may step back: its running maximum counts."),
}
_CLOCK_OF_TRADES: Final = (
    '{"exchange", "receive"}',
    "Whose time the window is of: trade_time, or the time of receipt. Its running maximum counts.",
)
_BOOK = 'book = cb.scan_raw(cb.sample_path(), "level2").pipe(cb.rebuild_book)'
_TRADES = 'trades = cb.scan_raw(cb.sample_path(), "market_trades")'
_EXAMPLES: Final = {
    "book": [_BOOK],
    "market_trades": [_BOOK, _TRADES, "trades = cb.join_quotes(trades, book)"],
    "intervals": [_BOOK, _TRADES, "intervals = cb.impact_intervals(trades, book)"],
    "bars": [_TRADES, 'bars = cb.trade_bars(trades, "time", "10s")'],
}
_SHORT: Final = {"market_trades": "trades"}
_CLOCKS: Final = {"intervals": "interval_end", "market_trades": "exchange"}


class RowFeature(Protocol):
    """A feature of one row: gives an expression."""

    feature: Feature

    def __call__(self, *parameters: Any, **named: Any) -> pl.Expr:
        """Give the expression."""


class FrameFeature(Protocol):
    """A feature of several rows: adds its column to a frame."""

    feature: Feature

    def __call__(self, frame: pl.LazyFrame | pl.DataFrame, *parameters: Any, **named: Any) -> pl.LazyFrame:
        """Add the column."""


def of_row(
    name: str, table: Table, *, definition: str, unit: str = "", source: str = "", usual: Sequence[str] = (),
    null: str = NOT_OK, ok: pl.Expr | None = None, all_levels: bool = False,
) -> Callable[[Callable[..., Any]], RowFeature]:  # fmt: skip
    """Define a feature of one row: the function that is decorated computes it from a `View`.

    It is null where ``ok`` does not hold. ``all_levels`` are needed where no parameter says how many.
    """

    def define(compute: Callable[..., Any]) -> RowFeature:
        feature = Feature(
            name,
            table,
            definition,
            unit,
            source,
            tuple(usual) or (name,),
            null,
            of_one_row=True,
            compute=compute,
        )
        levels = [("levels", BOOK_DEPTH)] if all_levels else []

        def expression(*values: Any, levels: int = 1) -> pl.Expr:
            chosen = named(feature, values)
            depth = chosen.parameters.get("k", levels)
            columns = [name for name in needed_columns(chosen, depth) if name != "book_state"]

            def of_series(series: Sequence[pl.Series]) -> pl.Series:
                frame = pl.DataFrame([s.alias(name) for s, name in zip(series, columns, strict=True)])
                with np.errstate(all="ignore"):
                    made = View(frame, Names(), depth=depth).compute(chosen)
                return pl.Series(made).fill_nan(None)

            made = pl.map_batches(columns, of_series, return_dtype=pl.Float64(), is_elementwise=True)
            return (made if ok is None else pl.when(ok).then(made)).alias(chosen.name)

        public: RowFeature = _public(expression, compute, feature, levels, "polars.Expr")
        return public

    return define


def of_rows(
    name: str, table: Table, rows: Callable[[], Rows], *, definition: str, null: str, unit: str = "",
    source: str = "", usual: Sequence[str] = (), dtype: pl.DataType | None = None,
    terms: Callable[..., Sequence[Term]] | None = None,
) -> Callable[[Callable[..., Any]], FrameFeature]:  # fmt: skip
    """Define a feature of a row and those before it, or, of the ``terms`` of a window, from their sums."""

    def define(compute: Callable[..., Any]) -> FrameFeature:
        feature = Feature(
            name, table, definition, unit, source, tuple(usual) or (name,), null,
            dtype=dtype or pl.Float64(), compute=compute, terms=terms,
        )  # fmt: skip

        def add(frame: pl.LazyFrame | pl.DataFrame, *values: Any, clock: str | None = None) -> pl.LazyFrame:
            of_trades = terms is not None and table == "market_trades"
            time = clocks.of_windows(clock) if of_trades else clock
            return add_columns(frame, [named(feature, values)], rows(), clock=time)

        extra = [("clock", _CLOCKS.get(table, "capture_time"))] if terms is not None else []
        public: FrameFeature = _public(add, compute, feature, extra, "polars.LazyFrame")
        return public

    return define


def _public(
    work: Callable[..., Any], compute: Callable[..., Any], feature: Feature, extra: list[tuple[str, Any]],
    returns: str,
) -> Any:  # fmt: skip
    """Make the public function: the parameters of the name, with defaults as in the first usual name."""
    kind = inspect.Parameter
    defaults = parameters_of(feature)
    parameters = [kind(key, kind.POSITIONAL_OR_KEYWORD, default=value) for key, value in defaults.items()]
    if returns == "polars.LazyFrame":
        parameters.insert(0, kind("frame", kind.POSITIONAL_OR_KEYWORD))
    parameters += [kind(key, kind.KEYWORD_ONLY, default=value) for key, value in extra]
    signature = inspect.Signature(parameters)

    def public(*values: Any, **options: Any) -> Any:
        given = signature.bind(*values, **options)
        given.apply_defaults()
        return work(*given.args, **given.kwargs)

    public.__name__ = public.__qualname__ = compute.__name__
    public.__module__ = compute.__module__
    public.__signature__ = signature  # type: ignore[attr-defined]
    public.__doc__ = _doc(inspect.getdoc(compute) or "", public.__name__, feature, signature, returns)
    public.feature = feature  # type: ignore[attr-defined]
    return public


def _doc(what: str, name: str, feature: Feature, signature: inspect.Signature, returns: str) -> str:
    """Write the docstring, from the one line of what and the row of the catalogue."""
    frame = f"Rows of {feature.table}, in the order in which they came."
    told = {"frame": ("polars.LazyFrame or polars.DataFrame", frame), **_PARAMETERS}
    told |= {"clock": _CLOCK_OF_TRADES} if feature.table == "market_trades" else {}
    first, _, more = what.partition("\n")
    lines = [first, "", *_wrapped(f"``{feature.name}`` = {feature.definition}"), ""]
    lines += [more.strip(), ""] if more else []
    if signature.parameters:
        lines += ["Parameters", "----------"]
        for key in signature.parameters:
            lines += [f"{key} : {told[key][0]}", *_wrapped(told[key][1], "    ")]
        lines.append("")
    unit = f", {feature.unit}" if feature.unit else ""
    null = f"null where {feature.null}" if feature.null else "never null"
    lines += ["Returns", "-------", returns]
    lines += [*_wrapped(f"The column, {feature.dtype}{unit}; {null}.", "    "), ""]
    if feature.source:
        lines += ["References", "----------", f"{feature.source}.", ""]
    call, rows = f"cb.features.{name}", _SHORT.get(feature.table, feature.table)
    used = f"{rows}.select({call}())" if returns == "polars.Expr" else f"{call}({rows})"
    lines += ["Examples", "--------", ">>> import cbtools as cb"]
    lines += [f">>> {line}" for line in _EXAMPLES[feature.table]]
    lines += [f">>> {used}.collect_schema().names()[-1]", repr(feature.usual[0])]
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent)
