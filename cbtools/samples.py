"""A small recording to try things on: `sample_path` finds it, or makes it.

``python -m cbtools.samples FOLDER`` writes it into a folder's ``raw/ready/coinbase``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cbtools.errors import ConfigError
from cbtools.simulate import Simulation, simulate_segments

SAMPLE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "products": ("BTC-USD", "ETH-USD", "SOL-USD"),
        "minutes": 4,
        "activity": 0.4,
        "seed": 20251126,
        "levels": 400,
        "reconnects": 1,
        "gaps": 1,
        "bad_lines": 2,
        "duplicates": 2,
        "segment_mb": 6,
        "compression": "gzip",
    }
)
"""The arguments of `simulate_segments` that make the sample."""

_INSIDE: Final = Path("raw", "ready", "coinbase")
_VERSION: Final = "sample-1"  # of the recording: a new one does not meet an old cache


def sample_path(*, cache: str | Path | None = None) -> Path:
    """Find the sample recording: three products, four minutes, a reconnect and a few faults.

    In a checkout it is ``data_samples/raw/ready/coinbase``. Elsewhere the same recording is simulated, once,
    into a cache folder.

    Parameters
    ----------
    cache : str or Path, optional
        Folder to keep the recording in, used whether or not there is a checkout. By default the platform's
        cache folder: ``$XDG_CACHE_HOME/cbtools`` or ``~/.cache/cbtools`` on Linux.

    Returns
    -------
    Path
        The folder that holds the sample's segments.

    Raises
    ------
    ConfigError
        If the cache folder cannot be written.

    Examples
    --------
    >>> sorted(path.name for path in sample_path().glob("segment_*"))[0]
    'segment_20251126T14_00001.ndjson.gz'
    """
    checkout = Path(__file__).parents[1] / "data_samples"
    if cache is None and any((checkout / _INSIDE).glob("segment_*")):
        return checkout / _INSIDE
    home = (_cache_folder() if cache is None else Path(cache)) / _VERSION
    if not (home / _INSIDE).is_dir():
        try:
            write_sample(home)
        except OSError as error:
            raise ConfigError(
                f"the sample cannot be written to {home} ({error}): give sample_path a cache folder"
            ) from error
    return home / _INSIDE


def write_sample(folder: str | Path) -> Simulation:
    """Simulate the sample into a folder, whole or not at all; what ``raw`` it holds is replaced.

    Parameters
    ----------
    folder : str or Path
        Gets ``raw/ready/coinbase``; made if need be.

    Returns
    -------
    Simulation
        What is truly in it; its paths are those in ``folder``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as fresh:
        done = simulate_segments(fresh, **SAMPLE)
        (Path(fresh) / "raw" / "active" / "coinbase").rmdir()
        (Path(fresh) / "raw" / "active").rmdir()
        _put(Path(fresh) / "raw", folder / "raw", Path(fresh) / "old")
    paths = tuple(folder / _INSIDE / path.name for path in done.paths)
    return Simulation(**{**vars(done), "paths": paths})


def _put(fresh: Path, home: Path, aside: Path) -> None:
    """Rename the new folder into place. Another process may be quicker: its recording is the same one."""
    if home.exists():
        home.rename(aside)
    try:
        fresh.rename(home)
    except OSError:
        if not home.is_dir():
            raise


def _cache_folder() -> Path:
    """Give the folder that the platform keeps caches in, and in it our own."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "cbtools" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "cbtools"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "cbtools"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cbtools.samples FOLDER")
    for written in write_sample(sys.argv[1]).paths:
        print(written)
