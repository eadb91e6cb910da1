"""Places: paths of the disk, and of object stores by their URLs (``s3://bucket/key``), used alike.

A place in a store is fsspec's UPath: it has the methods of `pathlib.Path` that are used here, and is passed
as one. Polars reads Parquet there by a client of its own; both take credentials from the environment.

A store has no rename and no lock. What must appear whole is written to the disk first, and then put there by
one request: the object is there then, all of it, or it is not. So drafts are never seen in a store.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache, wraps
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from cbtools.errors import ConfigError, DatasetError

P = ParamSpec("P")
T = TypeVar("T")

_SCRATCH: Final = "cbtools-scratch-"
_BLOCK: Final = 8 << 20
"""So many bytes of a remote file are asked for at a time."""
_PUTS: Final = 8


def is_remote(place: object) -> bool:
    """Tell whether a place is in a store: a URL, or a UPath of one."""
    if isinstance(place, str):
        return "://" in place
    return not isinstance(place, os.PathLike) and hasattr(place, "fs")


def as_place(place: str | os.PathLike[str]) -> Path:
    """Give a path, or a URL, as a place.

    Raises
    ------
    ConfigError
        If it is neither; if the libraries for URLs are not installed, or the store cannot be reached.
    """
    if isinstance(place, os.PathLike) or (isinstance(place, str) and not is_remote(place)):
        return Path(place)
    url = str(place).rstrip("/")
    if "://" not in url:
        raise ConfigError(f"{place!r} is neither a path nor a URL such as s3://bucket/folder")
    try:
        from upath import UPath

        # what others wrote a moment ago is to be seen
        remote: Any = UPath(url, use_listings_cache=False)
        remote.fs  # noqa: B018 (made at the first use)
    except ImportError as error:
        raise ConfigError(
            f'{url} needs libraries that are not installed: pip install "cbtools[cloud]"'
        ) from error
    except ValueError as error:  # no such protocol
        raise ConfigError(f"{url} is of no store that is known: {error}") from error
    _reach(remote.fs, f"{remote.protocol}://{remote.path.partition('/')[0]}")
    return cast(Path, remote)


@cache
def _reach(store: Any, bucket: str) -> None:
    # who may not ask for the bucket may still read what is in it
    try:
        with told_as_oserror(bucket), suppress(PermissionError):
            store.exists(bucket)
    except OSError as error:
        raise ConfigError(
            f"cannot reach {bucket}: {error}. Credentials, region and endpoint are taken from the "
            "environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL"
        ) from error


@contextmanager
def told_as_oserror(place: object) -> Iterator[None]:
    """Have a store's trouble told as a disk's is."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        if not _is_of_client(error):
            raise
        raise OSError(f"{place}: {error}") from error


def tells_trouble(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function raise a DatasetError for trouble with a store; for that with a disk, what it raises."""

    @wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            place = next((one for one in (*args, *kwargs.values()) if is_remote(one)), None)
            if place is None or not (isinstance(error, OSError) or _is_of_client(error)):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise DatasetError(f"cannot work on {place}: {reason}") from error

    return telling


def _is_of_client(error: Exception) -> bool:
    """Tell whether an error is one that the libraries of a store raise."""
    return type(error).__module__.partition(".")[0] in ("aiohttp", "botocore")


# --- what is in a place


class Stat(Protocol):
    """Size and age of a file."""

    @property
    def st_size(self) -> int:
        """Bytes."""

    @property
    def st_mtime_ns(self) -> int:
        """When it was written."""


class Entry(Protocol):
    """A file of a listing: as `os.DirEntry`, of the disk or of a store."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def path(self) -> str:
        """Its path, or its URL."""

    def stat(self) -> Stat:
        """Give its size and age."""


@dataclass(frozen=True)
class _Listed:
    """An object as a listing tells of it; no request is made for it."""

    name: str
    path: str
    st_size: int
    st_mtime_ns: int

    def stat(self) -> Stat:
        """Give its size and age."""
        return self


def remote_tree(root: Path) -> dict[tuple[str, ...], list[Entry]]:
    """List all files below a place in a store: folder, as its parts → files; by few requests."""
    store, base = cast(Any, root).fs, PurePosixPath(cast(Any, root).path)
    with told_as_oserror(root):
        try:
            found: Mapping[str, Mapping[str, Any]] = store.find(str(base), detail=True)
        except FileNotFoundError:
            found = {}
    tree: dict[tuple[str, ...], list[Entry]] = {}
    for key, told in found.items():
        path = PurePosixPath(key)
        if path != base and not key.endswith("/"):
            inner = path.relative_to(base).parts
            modified = told.get("LastModified")
            age = int(modified.timestamp() * 1e9) if isinstance(modified, datetime) else 0
            entry = _Listed(path.name, "/".join((str(root), *inner)), int(told["size"]), age)
            tree.setdefault(inner[:-1], []).append(entry)
    return tree


def files_in(folder: Path, named: Callable[[str], object] = lambda name: True) -> list[Path]:
    """Give the files in a folder whose names are wanted, those of its sub-folders not.

    There may be many: the rest costs next to nothing.
    """
    if is_remote(folder):
        return [path for path in _listed(folder, "file") if named(path.name)]
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if named(entry.name) and entry.is_file()]


def folders_in(folder: Path) -> list[Path]:
    """Give the folders in a folder; none, if there is no such folder."""
    if is_remote(folder):
        return _listed(folder, "directory")
    with suppress(FileNotFoundError):
        return [path for path in folder.iterdir() if path.is_dir()]
    return []


def _listed(folder: Path, kind: str) -> list[Path]:
    place: Any = folder
    with told_as_oserror(folder):
        try:
            found = place.fs.ls(place.path, detail=True)
        except FileNotFoundError:
            return []
    base = PurePosixPath(place.path)
    paths = [PurePosixPath(one["name"]) for one in found if one["type"] == kind]
    return [folder / path.name for path in paths if path != base]


def matching(pattern: str) -> list[Path]:
    """Give the files that a glob pattern names; of a store, too."""
    if not is_remote(pattern):
        paths = [Path(name) for name in glob(pattern, recursive=True)]  # noqa: PTH207 (it may be absolute)
        return [path for path in paths if path.is_file()]
    place: Any = as_place(pattern)
    with told_as_oserror(pattern):
        found = place.fs.glob(place.path, detail=True)
    keys = [key for key, told in found.items() if told["type"] == "file"]
    if "/." not in pattern:  # hidden files are to be named, as on a disk
        keys = [key for key in keys if "/." not in key]
    return [as_place(f"{place.protocol}://{key}") for key in keys]


def open_bytes(path: Path) -> Any:
    """Open a file for reading, in large steps where it is remote."""
    if not is_remote(path):
        return path.open("rb", buffering=0)
    with told_as_oserror(path):
        return cast(Any, path).open("rb", block_size=_BLOCK)


# --- what appears whole


def scratch_for(folder: Path) -> Path:
    """Give where drafts of a folder's files are written: there, or, of a remote one, on the disk."""
    return Path(tempfile.mkdtemp(prefix=_SCRATCH)) if is_remote(folder) else folder


def put(draft: Path, path: Path) -> None:
    """Show a draft under its name, whole, in the place of what was there; the draft is gone then."""
    if not is_remote(path):
        draft.replace(path)
        return
    try:
        with told_as_oserror(path):
            cast(Any, path).fs.put_file(str(draft), cast(Any, path).path)
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}") from error
    discard(draft, path)


def put_all(drafts: Iterable[tuple[Path, Path]]) -> None:
    """Show drafts under their names: in this order on the disk, side by side in a store."""
    drafts = list(drafts)
    if any(is_remote(path) for _, path in drafts):
        with ThreadPoolExecutor(min(_PUTS, len(drafts))) as pool:
            for done in [pool.submit(put, draft, path) for draft, path in drafts]:
                done.result()
    else:
        for draft, path in drafts:
            put(draft, path)


def discard(draft: Path, path: Path) -> None:
    """Remove a draft of a file, and the folders that were made for it on the disk if that file is remote."""
    draft.unlink(missing_ok=True)
    if is_remote(path):
        for folder in draft.parents:
            with suppress(OSError):  # others are in it
                folder.rmdir()
            if folder.name.startswith(_SCRATCH):
                break


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders in which nothing is."""
    for folder in folders:
        if not is_remote(folder):  # a store has no folders, but names that hold a slash
            with suppress(OSError):  # not empty, or gone
                folder.rmdir()
