"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_KEPT: Final = 128 << 10
"""So many free bytes the C library may keep; its own beginning, which by default it raises as it goes."""


@cache
def give_back_memory() -> None:
    """Have glibc give back what is free: over many segments, in many threads, it keeps ever more of it."""
    with suppress(AttributeError, OSError, TypeError):  # another C library has no such function
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, _KEPT)
