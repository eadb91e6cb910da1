"""The earlier package's configuration of channels, in the words of `cbtools.run_job`."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any, Final

from cbtools.errors import ConfigError
from cbtools.run.config import DEFAULT, read_config

ChannelConfig = Mapping[str, Mapping[str, Any]]

_OTHER_WORDS: Final[Mapping[str, str]] = {"max_levels": "depth"}
_ALWAYS: Final = ("add_derived_fields", "infer_aggressor")
"""Options of the earlier package that a job has no choice in: see `ETLJob`."""


def read_channel_config(config: ChannelConfig | None) -> ChannelConfig | None:
    """Check a configuration, and put it in the words of `cbtools.run_segment`.

    Parameters
    ----------
    config : mapping, optional
        Table → ``{"partition_cols": [...], "processor_options": {...}}``. Of the options, ``max_levels``
        is ``depth``; ``add_derived_fields`` and ``infer_aggressor`` are taken, and change nothing.

    Returns
    -------
    dict, or None

    Raises
    ------
    ConfigError
        If it is not understood.

    Examples
    --------
    >>> read_channel_config({"level2": {"processor_options": {"max_levels": 5}}})
    {'level2': {'processor_options': {'depth': 5}}}
    """
    if isinstance(config, Mapping):
        config = {table: _of_table(table, of_table) for table, of_table in config.items()}
    read_config(config)
    return config


def _of_table(table: str, config: Any) -> Any:
    options = config.get("processor_options") if isinstance(config, Mapping) else None
    if not isinstance(options, Mapping):
        return config
    if table == "ticker" and options.get("add_derived_fields"):
        warnings.warn(
            "a job writes tickers as they were sent: add_derived_fields of ticker adds nothing. Use "
            "TickerProcessor where you read them",
            stacklevel=5,
        )
    renamed: dict[str, Any] = {}
    for name, value in options.items():
        if name in _ALWAYS:
            if not isinstance(value, bool):
                raise ConfigError(f"{name} of {table!r} must be true or false, not {value!r}")
            continue
        plain: str = _OTHER_WORDS.get(name, name) if table == "level2" else name
        if plain in renamed or (plain != name and plain in options):
            raise ConfigError(f"{name} of {table!r} is another word for {plain}: give one of them")
        renamed[plain] = value
    return {**config, "processor_options": renamed}


def of_channels(config: ChannelConfig | None, channels: Collection[str] | None) -> ChannelConfig | None:
    """Leave only these channels in a configuration; None stands for the default one, and for all.

    Raises
    ------
    ConfigError
        If a channel is not known.
    """
    if channels is None:
        return config
    if isinstance(channels, str) or not isinstance(channels, Collection) or not channels:
        raise ConfigError(f"channels must be a list of tables, e.g. ['level2'], not {channels!r}")
    known = DEFAULT if config is None else config
    return {channel: known.get(channel, {}) for channel in channels}
