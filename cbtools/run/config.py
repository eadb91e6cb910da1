"""What a run writes: the configuration of its tables, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import polars as pl

from cbtools.book.rebuilder import BookOptions
from cbtools.errors import ConfigError, unknown_name
from cbtools.run.features import book_table, trades_table
from cbtools.schema import (
    BOOK_DEPTH,
    CHANNELS,
    DERIVED,
    SIDE,
    TRADE_SIDE,
    Column,
    columns,
)

DEFAULT: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "level2": {
            "partition_cols": ["product_id", "date"],
            "processor_options": {
                "reconstruct_lob": True,
                "compute_features": True,
                "depth": BOOK_DEPTH,
                "on": "message",
                "gaps": "mark",
                "bands_bps": (),
            },
        },
        "market_trades": {"partition_cols": ["product_id", "date"], "processor_options": {}},
        "ticker": {"partition_cols": ["date", "hour"], "processor_options": {}},
    }
)
"""What `run_segment` writes if it is not told otherwise.

Of the options of level2, ``reconstruct_lob`` has the table ``book`` written beside it; ``depth``, ``on``,
``gaps`` and ``bands_bps`` are those of `cbtools.rebuild_book`; ``compute_features`` adds features to the rows
of the book, and notional and signed_size to trades. Without it there are no bands either.
"""

_KEYS: Final = ("partition_cols", "processor_options")
_SWITCHES: Final = frozenset({"reconstruct_lob", "compute_features"})
_PARTITION_TYPES: Final = (pl.String, pl.Boolean, pl.Int8, pl.Int32, pl.Int64, pl.Date, SIDE, TRADE_SIDE)


@dataclass(frozen=True)
class TableConfig:
    """How one table is written; ``columns`` where the schema does not tell them."""

    table: str
    partition_by: tuple[str, ...]
    columns: tuple[Column, ...] | None = None


@dataclass(frozen=True)
class Config:
    """Which tables are written, and how; ``book`` tells of the book, if it is rebuilt."""

    tables: tuple[TableConfig, ...]
    book: BookOptions | None = None
    features: bool = False


def read_config(channel_config: Mapping[str, Mapping[str, Any]] | None) -> Config:
    """Check a channel configuration and fill in the defaults.

    Parameters
    ----------
    channel_config : mapping, or None
        Table → ``{"partition_cols": [...], "processor_options": {...}}``. The tables named are written, no
        others; a key left out has its default. None: `DEFAULT`.

    Returns
    -------
    Config
        The tables in the order given, the book behind them.

    Raises
    ------
    ConfigError
        For an unknown table, key, option or partition column: it names the nearest known one.

    Examples
    --------
    >>> read_config({"ticker": {}}).tables[0].partition_by
    ('date', 'hour')
    """
    if channel_config is None:
        channel_config = DEFAULT
    if not isinstance(channel_config, Mapping):
        raise ConfigError(f"channel_config must be a dict of tables, not {channel_config!r}")
    tables, book, features = [], None, False
    for table, config in channel_config.items():
        tables.append(_read_table(table, config))
        options = _read_options(table, config.get("processor_options"))
        if table == "level2":  # its options are checked, though there may be no book
            book = _book_options(options)
            book = book if options["reconstruct_lob"] else None
            features = book is not None and options["compute_features"]
    tables = [_with_columns(config, features=features) for config in tables]
    if book is not None:
        (level2,) = (config for config in tables if config.table == "level2")
        of_book = book_table(book, features=features)
        known = {column.name for column in (*DERIVED, *columns("book"))}
        tables.append(TableConfig("book", tuple(n for n in level2.partition_by if n in known), of_book))
    return Config(tuple(tables), book, features)


def _with_columns(config: TableConfig, *, features: bool) -> TableConfig:
    """Say which columns trades have, which are not always the same."""
    if config.table != "market_trades":
        return config
    return replace(config, columns=trades_table(features=features))


def _read_table(table: str, config: Mapping[str, Any]) -> TableConfig:
    if table not in CHANNELS:
        raise unknown_name("table in channel_config", table, CHANNELS)
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"channel_config[{table!r}] must be a dict with {' and '.join(_KEYS)}, not {config!r}"
        )
    for key in config:
        if key not in _KEYS:
            raise unknown_name(f"key in channel_config[{table!r}]", key, _KEYS)
    default = DEFAULT.get(table, {"partition_cols": ["date"]})
    partition_cols = config.get("partition_cols", default["partition_cols"])
    if not isinstance(partition_cols, list | tuple) or not all(isinstance(n, str) for n in partition_cols):
        raise ConfigError(
            f"partition_cols of {table!r} must be a list of column names, not {partition_cols!r}: "
            f"e.g. {default['partition_cols']!r}"
        )
    known = [column.name for column in (*DERIVED, *columns(table)) if column.dtype in _PARTITION_TYPES]
    for name in partition_cols:
        if name not in known:
            raise unknown_name(f"partition column of {table!r}", name, known)
    return TableConfig(table, tuple(partition_cols))


def _read_options(table: str, options: Any) -> dict[str, Any]:
    """Fill in the defaults of a table's processor_options."""
    default = DEFAULT.get(table, {}).get("processor_options", {})
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise ConfigError(f"processor_options of {table!r} must be a dict, not {options!r}")
    for option in options:
        if not default:
            raise ConfigError(f"unknown processor option of {table!r} {option!r}: it has none")
        if option not in default:
            raise unknown_name(f"processor option of {table!r}", option, default)
    for option in _SWITCHES & options.keys():
        if not isinstance(options[option], bool):
            raise ConfigError(f"{option} of {table!r} must be true or false, not {options[option]!r}")
    return {**default, **options}


def _book_options(options: Mapping[str, Any]) -> BookOptions:
    shown = {name: value for name, value in options.items() if name not in _SWITCHES}
    made = BookOptions(**shown)  # with the bands checked, though they may not be wanted
    return made if options["compute_features"] else replace(made, bands_bps=())
