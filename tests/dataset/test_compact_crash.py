"""Compactions, and writers of what was compacted, killed before any change, or on a disk that is full.

With ``--ci`` the critical changes; with ``--full`` before every single one.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("resource", reason="there are no limits to set")

from compact_program import Ended, Killable
from dataset.small_parts import files, follow, put, seen, sorted_rows
from tiers import FULL

from cbtools.dataset import compact_dataset, write_dataset

pytestmark = [pytest.mark.ci, pytest.mark.skipif(sys.platform != "linux", reason="it forks")]

STRIDES = 8 if FULL else 2

NEW = [("A", 70, 0, 1), ("A", 71, 0, 2), ("C", 70, 0, 3)]
"""What is written of s1 again: no more rows of B, and some of C."""
COMPACT, REMOVE = "compact_dataset(root)", "remove_parts(root, 's1')"
WRITE = "write_dataset(pl.read_parquet(f'{root}.new'), root, partition_by='product_id', segment='s1')"
KINDS = {
    "compact": COMPACT,
    "compact again": COMPACT,
    "write": WRITE,
    "write beside leftovers": WRITE,
    "remove": REMOVE,
}


@dataclass(frozen=True)
class Scene:
    """What is there before, a statement, and what is there after it when nothing happens."""

    kind: str
    root: Path
    after: Path
    ended: Ended

    @property
    def statement(self) -> str:
        return KINDS[self.kind]

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.root, to)
        shutil.copy(f"{self.root}.new", f"{to}.new")
        return to

    def numbers(self, nth: int) -> Sequence[int]:
        """Give the numbers of changes in strides; by default of those behind the critical ones."""
        if FULL:
            return range(1 + nth, len(self.ended.changes) + 1, STRIDES)
        drafted, named, gone = (self._all("write"), self._all("os.rename"), self._all("os.remove"))
        return [after + 1 for after in (drafted[0], named[0], named[-1], gone[0])][nth::STRIDES]

    def _all(self, event: str) -> list[int]:
        """Give the numbers of the changes that are an event of a part or its draft."""
        return [
            number
            for number, (what, *paths) in enumerate(self.ended.changes, start=1)
            if what == event and "/product_id=" in paths[-1]
        ]


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    program = Killable()
    yield program
    program.close()


@pytest.fixture(scope="module")
def scenes(killable: Killable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    found = {}
    for kind, statement in KINDS.items():
        root = tmp_path_factory.mktemp("scene") / "root"
        follow(root, 3)
        put(root, "s8", ("A", 80, 0, 0))
        if kind != "compact":
            compact_dataset(root)
        if kind == "compact again":
            follow(root, 4)
        if kind == "write beside leftovers":  # as of a compaction that was killed
            beside = root.with_name("beside")
            follow(beside, 3)
            for product in "AB":
                folder = f"product_id={product}"
                shutil.copy(beside / folder / "part_s1.parquet", root / folder / "part_s1.parquet")
        new = put(root.with_name("new"), "s1", *NEW).drop("segment")
        new.write_parquet(f"{root}.new")
        after = root.with_name("after")
        scene = Scene(kind, root, after, Ended(0))
        scene.copy(after)
        ended = killable.run(statement, after)
        assert (ended.signal, ended.error) == (0, ""), ended.trace
        found[kind] = Scene(kind, root, after, ended)
    return found


def same(root: Path, other: Path) -> None:
    """Check that two datasets have the same files, and the same rows in each: nothing else was left."""
    assert files(root) == files(other)
    for path in files(root):
        one, two = (pl.read_parquet(folder / path, hive_partitioning=False) for folder in (root, other))
        assert one.equals(two), path


def rows(root: Path, product: str, *, of: bool) -> list[object]:
    """Give the rows of a partition: those of s1, or those of the others."""
    frame = seen(root).filter(pl.col("product_id") == product, (pl.col("segment") == "s1") == of)
    return sorted_rows(frame)


def check(root: Path, scene: Scene) -> None:
    """Check what a reader sees: in each partition the others' rows, and those of s1 before or after."""
    if scene.statement == COMPACT:
        assert seen(root).equals(seen(scene.root))
    for product in "ABC":
        assert rows(root, product, of=False) == rows(scene.root, product, of=False)
        either = [rows(folder, product, of=True) for folder in (scene.root, scene.after)]
        assert rows(root, product, of=True) in either


def test_the_scenes_are_as_they_are_meant(scenes: dict[str, Scene]) -> None:
    for kind, scene in scenes.items():
        changed = sorted_rows(seen(scene.root)) != sorted_rows(seen(scene.after))
        assert changed == (scene.statement != COMPACT), kind
        assert len(scene.ended.changes) > 9
        assert not [name for name in files(scene.after) if name.endswith(".tmp")]


@pytest.mark.more
@pytest.mark.parametrize("nth", range(STRIDES))
@pytest.mark.parametrize("kind", KINDS)
def test_killed_before_any_change(
    scenes: dict[str, Scene], killable: Killable, tmp_path: Path, kind: str, nth: int
) -> None:
    """What is seen then is whole; done again, it ends as if nothing had been; so does a compaction first."""
    scene = scenes[kind]
    for number in scene.numbers(nth):
        root = scene.copy(tmp_path / str(number))
        ended = killable.run(scene.statement, root, before=number)
        assert ended.signal == signal.SIGKILL, ended.trace
        check(root, scene)
        other = tmp_path / f"{number} other"
        shutil.copytree(root, other)
        shutil.copy(f"{root}.new", f"{other}.new")

        assert killable.run(scene.statement, root).error == ""
        same(root, scene.after)

        before = sorted_rows(seen(other))
        compact_dataset(other)
        assert sorted_rows(seen(other)) == before
        left = [name for name in files(other) if not Path(name).name.startswith(".part_s1.")]  # a writer's
        expected = [f"product_id={product}" for product in sorted(seen(other)["product_id"].unique())]
        assert [Path(name).parent.name for name in left] == expected
        assert killable.run(scene.statement, other).error == ""
        assert sorted_rows(seen(other)) == sorted_rows(seen(scene.after))
        assert [name for name in files(other) if name.endswith(".tmp")] == []


@pytest.mark.more
@pytest.mark.parametrize("nth", range(STRIDES))
def test_a_segment_is_written_after_a_compaction_that_was_killed(
    scenes: dict[str, Scene], killable: Killable, tmp_path: Path, nth: int
) -> None:
    scene = scenes["compact again"]
    for number in scene.numbers(nth):
        root = scene.copy(tmp_path / str(number))
        assert killable.run(COMPACT, root, before=number).signal == signal.SIGKILL
        others = seen(root).filter(pl.col("segment") != "s1")
        new = pl.read_parquet(f"{root}.new")
        write_dataset(new, root, partition_by="product_id", segment="s1")
        expected = pl.concat([others, new.with_columns(segment=pl.lit("s1")).select(others.columns)])
        for _ in range(2):
            assert sorted_rows(seen(root)) == sorted_rows(expected)
            compact_dataset(root)
        assert len(files(root)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_step_rests_on_is_on_the_disk_before_it(scenes: dict[str, Scene], kind: str) -> None:
    """A power cut forgets what was not synced: files are before their names, names before removals."""
    scene = scenes[kind]
    synced: set[str] = set()
    named: dict[str, set[str]] = {}
    for event, *paths in scene.ended.changes:
        path, folder = paths[-1], str(Path(paths[-1]).parent)
        if event == "fsync":
            synced.add(path)
            named.pop(path, None)
        elif event == "os.rename" and path.endswith(".parquet"):
            assert paths[0] in synced, f"{path} is not on the disk"
            named.setdefault(folder, set()).add(path)
        elif event == "os.remove" and path.endswith(".parquet"):
            assert folder not in named, f"{path} goes before its folder is on the disk"
    assert synced


# --- disks that fail


@pytest.mark.parametrize("limit", [300, 1_000])
@pytest.mark.parametrize("kind", KINDS)
def test_files_that_cannot_grow_leave_all_as_it_was(
    scenes: dict[str, Scene], killable: Killable, tmp_path: Path, kind: str, limit: int
) -> None:
    scene = scenes[kind]
    root = scene.copy(tmp_path / "root")
    ended = killable.run(scene.statement, root, limit=limit)
    assert ended.error in ("DatasetError", "OSError"), ended.trace
    same(root, scene.root)
    assert killable.run(scene.statement, root).error == ""
    same(root, scene.after)


@pytest.mark.more
@pytest.mark.parametrize("nth", range(STRIDES if FULL else 1))
@pytest.mark.parametrize("do", ["full", "read-only"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fails_from_any_change_on(
    scenes: dict[str, Scene], killable: Killable, tmp_path: Path, kind: str, do: str, nth: int
) -> None:
    scene = scenes[kind]
    for number in scene.numbers(nth)[: None if FULL else 1]:
        root = scene.copy(tmp_path / str(number))
        ended = killable.run(scene.statement, root, before=number, do=do)
        assert ended.signal == 0
        assert ended.error in ("DatasetError", "OSError", "FileNotFoundError", ""), ended.trace
        check(root, scene)
        assert killable.run(scene.statement, root).error == ""
        same(root, scene.after)
