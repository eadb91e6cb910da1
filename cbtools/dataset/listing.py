"""Which datasets and partitions there are, and to have them to oneself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cbtools.dataset import hive
from cbtools.dataset.compacted import Folder
from cbtools.dataset.finished import datasets_in
from cbtools.errors import DatasetError
from cbtools.lock import hold
from cbtools.stores import is_remote

_RUNS: Final = "_runs"


def datasets_under(root: Path, table: str | None) -> list[Path]:
    """Give the datasets that are meant: the table's, the root itself, or all that are in it.

    Raises
    ------
    DatasetError
        If there is none.
    """
    if table is not None:
        folders = [hive.dataset_root(root, table)]
    elif any(True for _ in partitions_in(root)):
        folders = [root]
    else:
        folders = datasets_in(root)
    folders = [folder for folder in folders if any(True for _ in partitions_in(folder))]
    if not folders:
        raise DatasetError(f"no dataset in {hive.dataset_root(root, table)}: no part_*.parquet there")
    return folders


def partitions_in(root: Path) -> Iterator[tuple[tuple[str, ...], Folder]]:
    """List the partitions that have parts."""
    for relative, files in hive.walk(root):
        folder = Folder.of(files)
        if folder.counting:
            yield relative, folder


@contextlib.contextmanager
def alone(root: Path, datasets: Sequence[Path]) -> Iterator[None]:
    """Keep jobs off, and each other, what rewrites parts: of the datasets, and of the output they are in."""
    if is_remote(root):  # where nothing can be locked
        yield
        return
    runs = [folder / _RUNS for folder in (root.absolute().parent, root.absolute())]
    with contextlib.ExitStack() as stack:
        for folder in (*(folder for folder in runs if folder.is_dir()), *datasets):
            stack.enter_context(hold(folder))
        yield
