"""What a feature is: its name with parameters in it, definition, unit, source; and how names are read."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, Literal

import polars as pl

from cbtools.errors import ConfigError
from cbtools.schema import Column
from cbtools.spans import SPAN, span_ns, span_text

Table = Literal["book", "market_trades", "intervals", "bars"]

_COUNT: Final = r"\d+"
_NUMBER: Final = r"\d+(?:\.\d+)?"
_KINDS: Final = {
    "k": _COUNT,
    "K": _COUNT,
    "w": SPAN,
    "h": SPAN,
    "x": _NUMBER,
    "notional": _NUMBER,
    "decay": _NUMBER,
    "up": _NUMBER,
    "down": _NUMBER,
}
"""What the parameters in names are: counts, time spans, numbers."""
_PATTERN: Final = frozenset("*?[")


@dataclass(frozen=True)
class Feature:
    """One row of the catalogue; ``usual`` are the names that a pattern is matched with.

    ``compute`` gives the values from a view of the rows and the parameters; of a feature over windows, from
    the window's sums, whose ``terms`` the parameters tell. One that another function makes has neither.
    """

    name: str
    table: Table
    definition: str
    unit: str
    source: str
    usual: tuple[str, ...]
    null: str
    looks_ahead: bool = False
    of_one_row: bool = False
    dtype: pl.DataType = pl.Float64()  # noqa: RUF009 (immutable)
    compute: Callable[..., Any] | None = None
    terms: Callable[..., Sequence[Any]] | None = None

    def read(self, name: str) -> Chosen | None:
        """Read a name for its parameters; None if it is another feature's."""
        parameters = _parameters(self.name, name)
        return None if parameters is None else Chosen(name, self, parameters)


@dataclass(frozen=True)
class Chosen:
    """A feature with its parameters: counts as int, time spans in ns, other numbers as float."""

    name: str
    feature: Feature
    parameters: Mapping[str, Any]

    @property
    def column(self) -> Column:
        """The column that it makes."""
        feature = self.feature
        return Column(self.name, feature.dtype, feature.unit, feature.definition, feature.null)


class Names:
    """Reads names by some features, those that are computed of rows; each name once."""

    def __init__(self, features: Sequence[Feature] = ()) -> None:
        self._features = [f for f in features if f.compute is not None and f.terms is None]
        self._read: dict[str, Chosen | None] = {}

    def __call__(self, name: str) -> Chosen | None:
        """Give the feature that a name is of, if it is one's."""
        if name not in self._read:
            read = (feature.read(name) for feature in self._features)
            self._read[name] = next((chosen for chosen in read if chosen is not None), None)
        return self._read[name]


@lru_cache(maxsize=1 << 14)
def _parameters(template: str, name: str) -> Mapping[str, int | float] | None:
    """Return the parameters of a feature's name, or None if the name does not fit the feature's template.

    Each run asks every feature for every name: without the cache, a tenth of the time of a small segment.
    """
    match = _regex(template).fullmatch(name)
    return None if match is None else {key: _value(key, text) for key, text in match.groupdict().items()}


@cache
def _regex(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    texts = [re.escape(p) if i % 2 == 0 else f"(?P<{p}>{_KINDS[p]})" for i, p in enumerate(parts)]
    return re.compile("".join(texts))


def _value(key: str, text: str) -> int | float:
    if _KINDS[key] == SPAN:
        return span_ns(text)
    return int(text) if _KINDS[key] == _COUNT else float(text)


def parameters_of(feature: Feature) -> dict[str, Any]:
    """Give the parameters in a feature's first usual name, as a caller would write them."""
    chosen = feature.read(feature.usual[0])
    assert chosen is not None, f"{feature.name} does not read its usual name {feature.usual[0]}"
    return {
        key: span_text(value) if _KINDS[key] == SPAN else value for key, value in chosen.parameters.items()
    }


def named(feature: Feature, values: Sequence[Any]) -> Chosen:
    """Put parameters into a feature's name, and read it."""
    name = feature.name
    for key, value in zip(parameters_of(feature), values, strict=True):
        name = name.replace("{" + key + "}", f"{value:.17g}" if isinstance(value, float) else str(value))
    return choose([name], [feature], feature.table)[0]


def choose(names: str | Iterable[str], features: Sequence[Feature], what: str) -> list[Chosen]:
    """Read names and patterns.

    Parameters
    ----------
    names : str or iterable of str
        Names with their parameters in them, as ``"imbalance_5"``, or patterns, as ``"imbalance_*"``, which
        stand for the usual names that they match.
    features : sequence of Feature
        Those that there are.
    what : str
        What they are features of, for the error's message.

    Returns
    -------
    list of Chosen
        Each once, in the order of the names.

    Raises
    ------
    ConfigError
        If a name is not known, or a pattern matches nothing: it names the nearest.

    Examples
    --------
    >>> from cbtools.features.listing import BOOK
    >>> [chosen.name for chosen in choose(["ofi_5s", "imbalance_[13]"], BOOK, "book")]
    ['ofi_5s', 'imbalance_1', 'imbalance_3']
    """
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, Iterable) or isinstance(listed, Mapping):
        raise ConfigError(f"features must be names, e.g. ['mid', 'ofi_5s'], not {names!r}")
    usual = [name for feature in features for name in feature.usual]
    chosen: dict[str, Chosen] = {}
    for name in listed:
        if not isinstance(name, str):
            raise ConfigError(f"a feature is named by a text, e.g. 'ofi_5s', not {name!r}")
        found = fnmatch.filter(usual, name) if _PATTERN & {*name} else [name]
        if not found:
            raise ConfigError(
                f"no {what} feature fits the pattern {name!r}. A pattern is matched with the usual names: "
                f"{', '.join(usual)}"
            )
        for one in found:
            chosen.setdefault(one, _read(one, features, usual, what))
    return list(chosen.values())


def _read(name: str, features: Sequence[Feature], usual: Collection[str], what: str) -> Chosen:
    for feature in features:
        read = feature.read(name)
        if read is not None:
            _check(read)
            return read
    near = difflib.get_close_matches(name, usual, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else "."
    raise ConfigError(
        f"unknown {what} feature {name!r}{hint} cb.catalogue() lists them, with their parameters"
    )


def _check(chosen: Chosen) -> None:
    for key, value in chosen.parameters.items():
        least = 2 if key == "K" else 1
        if isinstance(value, int) and value < least:
            raise ConfigError(f"{chosen.name}: {key} of {chosen.feature.name} must be {least} or more")
        if value == 0:
            raise ConfigError(f"{chosen.name}: {key} of {chosen.feature.name} must be above 0")
