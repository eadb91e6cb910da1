"""The states kept beside a dataset, in ``root/_state/``: one after each segment, the newest of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cbtools.book.state import BookState, head
from cbtools.errors import DatasetError, StateError
from cbtools.raw.sequence import Numbered

FOLDER: Final = "_state"


@dataclass(frozen=True)
class KeptState:
    """A state on disk: its last number, when its last frame was received, its last frames, its segments.

    ``held``: the state itself, if it is in memory, and perhaps not yet on the disk.
    """

    path: Path
    last: int
    time: int
    recent: frozenset[Numbered]
    segments: tuple[str, ...]
    held: BookState | None = None

    @classmethod
    def of(cls, root: Path, segment: str, state: BookState) -> Self:
        """Give the state after a segment as one that is kept."""
        stream = state.stream
        path = state_path(root, segment)
        return cls(path, stream.last, stream.last_time, frozenset(stream.recent), state.segments, state)

    @property
    def segment(self) -> str:
        """Name of the last segment in it."""
        return self.path.stem

    def load(self) -> BookState:
        """Read it."""
        return BookState.load(self.path) if self.held is None else self.held


def state_path(root: Path, segment: str) -> Path:
    """Give the file of the state after a segment."""
    return root / FOLDER / f"{segment}.parquet"


def check_state_folder(root: Path) -> None:
    """Refuse a root in which states cannot be kept."""
    if (root / FOLDER).exists() and not (root / FOLDER).is_dir():
        raise DatasetError(f"{root / FOLDER} is no folder, and states are to be kept there: remove it")


def kept_states(root: Path) -> tuple[list[KeptState], int]:
    """Give the states kept under a root, and how many more there are that cannot be read."""
    kept, unreadable = [], 0
    for file in sorted((root / FOLDER).glob("*.parquet"), key=str):
        try:
            told = head(file)
            stream = told["stream"]
            recent = frozenset((number, time, digest) for number, time, digest in stream["recent"])
            kept.append(KeptState(file, stream["last"], stream["last_time"], recent, tuple(told["segments"])))
        except (StateError, KeyError, TypeError, ValueError):
            unreadable += 1
    return kept, unreadable


def keep_state(root: Path, segment: str, state: BookState, keep: int) -> Path:
    """Keep the state after a segment, and of the others those written last."""
    path = state.save(state_path(root, segment))
    others = [file for file in (root / FOLDER).glob("*.parquet") if file != path]
    oldest_first = sorted(others, key=lambda file: file.stat().st_mtime_ns)
    for old in oldest_first[: max(0, len(others) - keep + 1)]:
        old.unlink(missing_ok=True)
    return path
