"""numba alone: arrays and scalars in, arrays out. This file holds the jit policy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import parent_process
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import event

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


class _Notice(event.Listener):
    """Says why it takes seconds, to who looks at a terminal or a notebook, when a kernel is not in the cache.

    It is said once a process, not by workers, and not where ``CBTOOLS_QUIET`` is set.
    """

    def __init__(self) -> None:
        self._said = bool(os.environ.get("CBTOOLS_QUIET"))

    def on_start(self, event: Any) -> None:
        """See a compilation begin."""
        module = event.data["dispatcher"].py_func.__module__ or ""  # that of a generated function is none
        ours = module.startswith(f"{__name__}.")
        seen = sys.stderr.isatty() or "ipykernel" in sys.modules
        if ours and seen and not self._said and parent_process() is None:
            self._said = True
            print("cbtools: compiling kernels (once)", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        """See it end."""


event.register("numba:compile", _Notice())  # type: ignore[no-untyped-call]
