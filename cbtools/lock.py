"""One job a folder: a lock that goes with its process, and tells whose it is."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from cbtools.errors import DatasetError, JobError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOCK: Final = ".cbtools.lock"
_HOLDER: Final = ".cbtools.holder.json"
_TRIES: Final = 20
_MOMENT: Final = 0.05  # seconds


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other jobs off a folder while the block runs.

    Raises
    ------
    JobError
        If it is another job's: whose, as far as that is known.
    DatasetError
        If the folder cannot be written to.
    """
    lock = _acquired(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # the disk is gone: so is what it would tell
            (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def _acquired(folder: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout  # 30 ms, which `import cbtools` need not pay

    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        now = f"{datetime.now(UTC):%F %T} UTC"
        me = {"host": socket.gethostname(), "process": os.getpid(), "since": now}
        (folder / _HOLDER).write_bytes(orjson.dumps(me))
    except Timeout:
        whose = _told(folder) or "it does not say whose"
        raise JobError(f"another job works on {folder}: {whose}. Wait for it, or stop it") from None
    except OSError as error:
        lock.release()
        raise DatasetError(f"cannot lock {folder}: {error.strerror or error}") from error
    return lock


def _told(folder: Path) -> str | None:
    """Tell who works on a folder; one who has just begun gets a moment to say so."""
    for _ in range(_TRIES):
        if (whose := holder(folder)) is not None:
            return whose
        time.sleep(_MOMENT)
    return None


def holder(folder: Path) -> str | None:
    """Tell who works on a folder, as far as that can be known without touching it."""
    try:
        told = orjson.loads((folder / _HOLDER).read_bytes())
        here, process = told["host"] == socket.gethostname(), int(told["process"])
        text = f"process {process} on {told['host']}, since {told['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return None if here and not _is_alive(process) else text


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where this signal would be one
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:  # it was killed, and could not say that it no longer holds it
        return False
    except OSError:  # somebody else's
        return True
    return True
