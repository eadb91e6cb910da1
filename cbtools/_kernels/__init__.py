"""numba alone: arrays and scalars in, arrays out. This file holds the jit policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False, "_nrt": False}
_NO_DOORS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: F) -> F:
    """Compile a function that Python calls: cached on disk, without the GIL, bounds unchecked.

    It divides as numpy does. It counts no references, which costs half of the time where arrays travel in
    tuples; so it may allocate nothing: the caller gives the output.
    """
    return cast(F, njit(cache=True, **_OPTIONS)(function))


def inner(function: F) -> F:
    """Compile a function that only kernels of its own file call: as `kernel`, without a door to Python."""
    return cast(F, njit(**_OPTIONS, **_NO_DOORS)(function))
