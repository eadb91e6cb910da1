"""What raises, what warns, and how its message is made.

Bad data never raises: it becomes rows (rejects, gaps) and counts in a report. What raises is bad use, or a
file that cannot be worked with at all; the message says what was wrong, where, and what to do. A warning is
for a result that is not what it looks like, such as a book that was hardly ever verified; its figures are in
the report, too. A function gives each warning once a call.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable
from typing import Final

_PACKAGE: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120 (as in the frames' file names)


class CbtoolsError(Exception):
    """Base of every error that cbtools raises on purpose."""


class ConfigError(CbtoolsError):
    """An argument or a configuration key that cannot be meant."""


class SegmentError(CbtoolsError):
    """A raw segment that cannot be read, or (with ``strict=True``) holds data not understood."""


class DatasetError(CbtoolsError):
    """A partitioned dataset that is not there, not ours, or does not fit what is asked of it."""


class StateError(CbtoolsError):
    """A saved book state that cannot be read or does not fit."""


class JobError(CbtoolsError):
    """A job that cannot go on: its folder is another's, or its workers are gone."""


class CbtoolsWarning(UserWarning):
    """A result that is not what it looks like: a clock is off, a book not verified, no rows of a product."""


def warn(message: str) -> None:
    """Warn at the line of the caller outside of the package.

    Parameters
    ----------
    message : str
        What is not as it looks, by how much, and what to do.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, CbtoolsWarning, stacklevel=level)


def unknown_name(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """Build the error for a name that is not among the known ones, naming the nearest.

    Parameters
    ----------
    what : str
        What kind of name it is, e.g. ``"channel"``.
    name : str
        The name that was given.
    known : iterable of str
        The names that exist.

    Returns
    -------
    ConfigError
        To be raised by the caller.

    Examples
    --------
    >>> print(unknown_name("channel", "levle2", ["level2", "ticker"]))
    unknown channel 'levle2': did you mean 'level2'? Known: level2, ticker
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"unknown {what} {name!r}:{hint} Known: {', '.join(names)}")
