"""Days, and the options of the earlier package's script that say which."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from cbtools.errors import ConfigError

_DAYS: Final = ("date", "start_date", "end_date")
_MODES: Final[dict[str, tuple[str | None, tuple[str, ...]]]] = {
    "all": (None, ()),
    "date": ("date", ("date",)),
    "range": ("start_date", ("start_date", "end_date")),
}
"""Which option a mode needs, and which it takes."""


def day_of(name: str, value: str | date) -> date:
    """Read a day: ``"2025-11-26"``, a date, or the day of a datetime (UTC).

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : str, datetime.date or datetime.datetime
        The day. A datetime without a zone is UTC.

    Returns
    -------
    datetime.date

    Raises
    ------
    ConfigError
        If it is none.

    Examples
    --------
    >>> day_of("date", "2025-11-26")
    datetime.date(2025, 11, 26)
    """
    try:
        if isinstance(value, str):
            return date.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{name} must be a day as 2025-11-26, not {value!r}") from None
    if isinstance(value, datetime):
        return (value if value.tzinfo is None else value.astimezone(UTC)).date()
    if isinstance(value, date):
        return value
    raise ConfigError(f"{name} must be a day as 2025-11-26, a date or a datetime, not {value!r}")


def days(start: str | date, end: str | date | None = None) -> tuple[date, date]:
    """Give the first day, and the day after the last, both of which are included.

    Parameters
    ----------
    start, end : str, datetime.date or datetime.datetime
        The first and the last day, UTC; without an end, the first alone.

    Returns
    -------
    tuple of datetime.date
        As `cbtools.run_job` takes them: since and until.

    Raises
    ------
    ConfigError
        If one is no day, or the last comes before the first.

    Examples
    --------
    >>> [str(day) for day in days("2025-11-26", "2025-11-27")]
    ['2025-11-26', '2025-11-28']
    """
    first = day_of("start_date", start)
    last = first if end is None else day_of("end_date", end)
    if last < first:
        raise ConfigError(f"end_date {last} comes before start_date {first}: no day is between them")
    return first, last + timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Days:
    """Which days, in the words of the earlier package's script."""

    source: Literal["coinbase"] = "coinbase"
    """Whose recording."""
    mode: Literal["all", "date", "range"] = "all"
    """Of a folder, all segments, those of one day, or those from one day to another."""
    date: str | None = None
    """The day of --mode date, e.g. 2025-11-26 (UTC)."""
    start_date: str | None = None
    """The first day of --mode range."""
    end_date: str | None = None
    """The last day of --mode range, included; without it, up to the newest segment."""

    def instants(self, since: str | None, until: str | None) -> tuple[str | None, str | None]:
        """Give since and until, as `cbtools.run_job` takes them.

        Parameters
        ----------
        since, until : str, optional
            What else was said of them; only a mode of all days leaves room for it.

        Returns
        -------
        tuple of str or None

        Raises
        ------
        ConfigError
            If the mode lacks a day, an option is not the mode's, or a day is none.

        Examples
        --------
        >>> Days(mode="date", date="2025-11-26").instants(None, None)
        ('2025-11-26', '2025-11-27')
        """
        told = {name: value for name in _DAYS if (value := getattr(self, name)) is not None}
        needed, options = _MODES[self.mode]
        if unfit := [name for name in told if name not in options]:
            modes = [mode for mode, (_, names) in _MODES.items() if unfit[0] in names]
            raise ConfigError(f"{_option(unfit[0])} is for --mode {modes[0]}, not for --mode {self.mode}")
        if needed is None:
            return since, until
        if needed not in told:
            raise ConfigError(
                f"--mode {self.mode} needs {_option(needed)}, e.g. {_option(needed)} 2025-11-26"
            )
        if since or until:
            raise ConfigError(f"--mode {self.mode} tells the days: leave out --since and --until")
        first, behind = days(told[needed], told.get("end_date"))
        return str(first), None if self.mode == "range" and self.end_date is None else str(behind)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
