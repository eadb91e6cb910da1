"""A file is there whole, or as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cbtools.durable import replace_file, sync_files, sync_folders


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Broken(Exception):
    """What goes wrong in the block."""


@pytest.mark.parametrize("before", [None, b"old"])
def test_the_file_is_what_the_block_wrote(tmp_path, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with replace_file(path) as draft:
        draft.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_its_folders_are_made(tmp_path):
    with replace_file(tmp_path / "some" / "where" / "file") as draft:
        draft.write_bytes(b"new")
    assert (tmp_path / "some" / "where" / "file").read_bytes() == b"new"


def test_until_the_end_of_the_block_there_is_the_old_one(tmp_path):
    path = tmp_path / "file.parquet"
    path.write_bytes(b"old")
    with replace_file(path) as draft:
        draft.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert draft.parent == path.parent  # a rename, not a copy
        assert list(tmp_path.glob("*.parquet")) == [path]
        assert draft.name.startswith(".")


def test_who_reads_the_old_one_reads_on(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old and long")
    with path.open("rb") as reader:
        assert reader.read(4) == b"old "
        with replace_file(path) as draft:
            draft.write_bytes(b"new")
        assert reader.read() == b"and long"


def write_and_fail(path: Path, *, wrote: bool = True) -> None:
    with replace_file(path) as draft:
        if wrote:
            draft.write_bytes(b"half of the")
        raise Broken


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("wrote", [True, False])
def test_an_exception_leaves_what_was_there(tmp_path, before, wrote):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(Broken):
        write_and_fail(path, wrote=wrote)
    assert names(tmp_path) == (["file"] if before else [])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize(("owner", "method"), [(os, "fsync"), (Path, "replace")])
def test_so_does_one_on_the_way_to_the_disk(tmp_path, monkeypatch, owner, method):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def breaks(*_: object) -> None:
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, breaks)
        with pytest.raises(Broken), replace_file(path) as draft:
            draft.write_bytes(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replace_file(path):
        pass
    assert path.read_bytes() == b"old"


def test_what_a_crash_left_behind_is_written_over(tmp_path):
    path = tmp_path / "file"
    with replace_file(path) as draft:
        draft.write_bytes(b"new")
    draft.write_bytes(b"a longer one, of a process that was killed")
    with replace_file(path) as again:
        assert again == draft
        again.write_bytes(b"newer")
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["file"]


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    """In this order: the draft is synced, renamed, and its folder synced."""
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    with replace_file(tmp_path / "file") as draft:
        draft.write_bytes(b"new")
    assert done == ["file", "rename"] + ["folder"] * (os.name != "nt")


def test_syncing_takes_many_and_forgives_a_folder_that_is_gone_but_no_file(tmp_path):
    files = [tmp_path / str(n) for n in range(20)]
    for file in files:
        file.write_bytes(b"x")
    sync_files(files)
    sync_folders([tmp_path, tmp_path / "gone"])
    with pytest.raises(FileNotFoundError):
        sync_files([*files, tmp_path / "gone"])
