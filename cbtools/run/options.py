"""The options of a job, checked before anything is moved."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from cbtools.errors import ConfigError
from cbtools.raw.files import check_max_line
from cbtools.raw.scan import check_products
from cbtools.raw.stream import check_chunk
from cbtools.run.config import DEFAULT, read_config
from cbtools.run.draft import Task
from cbtools.run.folders import Folders
from cbtools.run.order import Waiting
from cbtools.run.states import check_keep
from cbtools.stores import as_place

Instant = str | date | datetime

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SWITCHES: Final = ("delete_after_processing", "strict")


@dataclass(frozen=True)
class Options:
    """What a job does: where, with which segments, and how; times in ns since 1970, UTC."""

    folders: Folders
    task: Task
    keep_states: int
    delete: bool
    since: int | None = None
    until: int | None = None

    def takes(self, one: Waiting) -> bool:
        """Tell whether a segment has content between since and until; one without frames has none."""
        if self.since is None and self.until is None:
            return True
        if not one.first.started or (self.until is not None and one.begin >= self.until):
            return False
        return self.since is None or one.begin >= self.since or one.end() >= self.since


def read_options(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    channel_config: Mapping[str, Mapping[str, Any]] | None,
    channels: Collection[str] | None,
    products: Collection[str] | None,
    keep_states: int,
    strict: bool,
    chunk_bytes: int,
    max_line_mb: float,
    delete_after_processing: bool,
    processing_dir: str | os.PathLike[str] | None,
    done_dir: str | os.PathLike[str] | None,
    failed_dir: str | os.PathLike[str] | None,
    since: Instant | None = None,
    until: Instant | None = None,
) -> Options:
    """Check a job's arguments.

    Raises
    ------
    ConfigError
        If one cannot be meant.
    """
    config = read_config(_of_channels(channel_config, channels))
    check_keep(keep_states)
    check_chunk(chunk_bytes)
    check_max_line(max_line_mb)
    for name, value in zip(_SWITCHES, (delete_after_processing, strict), strict=True):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, not {value!r}")
    begin, end = _instant("since", since), _instant("until", until)
    if begin is not None and end is not None and begin >= end:
        raise ConfigError(f"since ({since}) must be before until ({until}): nothing is between them")
    return Options(
        folders=Folders.of(input_dir, processing_dir, done_dir, failed_dir),
        task=Task(
            as_place(output_dir).absolute(),
            config,
            chunk_bytes,
            check_products(products),
            strict,
            max_line_mb,
        ),
        keep_states=keep_states,
        delete=delete_after_processing,
        since=begin,
        until=end,
    )


def _of_channels(
    config: Mapping[str, Mapping[str, Any]] | None, channels: Collection[str] | None
) -> Mapping[str, Mapping[str, Any]] | None:
    if channels is None:
        return config
    listed = isinstance(channels, Collection) and not isinstance(channels, str)
    if not listed or not all(isinstance(channel, str) for channel in channels):
        raise ConfigError(f"channels must be a list of tables, e.g. ['level2'], not {channels!r}")
    known = DEFAULT if config is None else config  # a name that is none is told by read_config
    return {channel: known.get(channel, {}) for channel in channels}


def _instant(name: str, value: Instant | None) -> int | None:
    """Read an instant; without a zone it is UTC, a date is its midnight."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ConfigError(f"{name} must be a time as 2025-11-26T14:00 (UTC), not {value!r}") from None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if not isinstance(moment, datetime):
        raise ConfigError(f"{name} must be a datetime, a date or a text, not {value!r}")
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
