"""The states kept beside a dataset, in ``root/_state/``: one after each segment, the newest of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cbtools.book.state import BookState, head
from cbtools.errors import StateError

FOLDER: Final = "_state"


@dataclass(frozen=True)
class KeptState:
    """A state on disk: its last number, when its last frame was received, its last frames, its segments."""

    path: Path
    last: int
    time: int
    recent: frozenset[tuple[int, int, int]]
    segments: tuple[str, ...]

    @property
    def segment(self) -> str:
        """Name of the last segment in it."""
        return self.path.stem

    def load(self) -> BookState:
        """Read it."""
        return BookState.load(self.path)


def kept_states(root: Path) -> tuple[list[KeptState], int]:
    """Give the states kept under a root, and how many more there are that cannot be read."""
    kept, unreadable = [], 0
    for file in sorted((root / FOLDER).glob("*.parquet")):
        try:
            told = head(file)
            stream = told["stream"]
            recent = frozenset((number, time, channel) for number, time, channel in stream["recent"])
            kept.append(KeptState(file, stream["last"], stream["last_time"], recent, tuple(told["segments"])))
        except (StateError, KeyError, TypeError, ValueError):
            unreadable += 1
    return kept, unreadable


def keep_state(root: Path, segment: str, state: BookState, keep: int) -> Path:
    """Keep the state after a segment, and of the others those written last."""
    path = state.save(root / FOLDER / f"{segment}.parquet")
    others = [file for file in (root / FOLDER).glob("*.parquet") if file != path]
    oldest_first = sorted(others, key=lambda file: file.stat().st_mtime_ns)
    for old in oldest_first[: max(0, len(others) - keep + 1)]:
        old.unlink(missing_ok=True)
    return path
