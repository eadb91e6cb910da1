"""What a run writes: the configuration of its tables, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import polars as pl

from cbtools.errors import ConfigError, unknown_name
from cbtools.schema import CHANNELS, DERIVED, SIDE, TRADE_SIDE, columns

DEFAULT: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "level2": {"partition_cols": ["product_id", "date"], "processor_options": {}},
        "market_trades": {"partition_cols": ["product_id", "date"], "processor_options": {}},
        "ticker": {"partition_cols": ["date", "hour"], "processor_options": {}},
    }
)
"""What `run_segment` writes if it is not told otherwise."""

_KEYS: Final = ("partition_cols", "processor_options")
_PARTITION_TYPES: Final = (pl.String, pl.Boolean, pl.Int8, pl.Int32, pl.Int64, pl.Date, SIDE, TRADE_SIDE)


@dataclass(frozen=True)
class TableConfig:
    """How one table is written."""

    table: str
    partition_by: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


def read_config(channel_config: Mapping[str, Mapping[str, Any]] | None) -> tuple[TableConfig, ...]:
    """Check a channel configuration and fill in the defaults.

    Parameters
    ----------
    channel_config : mapping, or None
        Table → ``{"partition_cols": [...], "processor_options": {...}}``. The tables named are written, no
        others; a key left out has its default. None: `DEFAULT`.

    Returns
    -------
    tuple of TableConfig
        In the order given.

    Raises
    ------
    ConfigError
        For an unknown table, key, option or partition column: it names the nearest known one.

    Examples
    --------
    >>> read_config({"ticker": {}})[0].partition_by
    ('date', 'hour')
    """
    if channel_config is None:
        channel_config = DEFAULT
    if not isinstance(channel_config, Mapping):
        raise ConfigError(f"channel_config must be a dict of tables, not {channel_config!r}")
    return tuple(_read_table(table, config) for table, config in channel_config.items())


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
    options = config.get("processor_options") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"processor_options of {table!r} must be a dict, not {options!r}")
    for option in options:
        raise ConfigError(f"unknown processor option of {table!r} {option!r}: it has none so far")
    return TableConfig(table, tuple(partition_cols), dict(options))
