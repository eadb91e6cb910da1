"""Small parts to be compacted, and what is seen of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
from dataset.frames import NOON, SECOND, ticks

from cbtools.dataset import scan_dataset, write_dataset


def put(root: Path, segment: str, *rows: tuple[Any, ...], **more: Any) -> pl.DataFrame:
    """Write rows of (product_id, seconds after noon, sequence_num, line); give them as they are read back."""
    times = [None if time is None else NOON + time * SECOND for _, time, *_ in rows]
    frame = ticks(*((row[0], time, *row[2:]) for row, time in zip(rows, times, strict=True)))
    frame = frame.with_columns(**more)
    write_dataset(frame, root, partition_by="product_id", segment=segment)
    return frame.with_columns(segment=pl.lit(segment))


def follow(root: Path, segments: int, rows: int = 2, products: str = "AB") -> None:
    """Write segments that follow one another in time, each with rows of all products."""
    for i in range(segments):
        lines = [(product, rows * i + j, 0, j) for product in products for j in range(rows)]
        put(root, f"s{i}", *lines)


def of_size(root: Path, segment: str, size: int) -> int:
    """Write a part of about so many bytes; give how many it has."""
    dice = random.Random(segment)
    numbers = [dice.getrandbits(60) for _ in range(max(1, (size - 700) // 8))]
    frame = pl.DataFrame({"x": numbers})
    return write_dataset(frame, root, partition_by=[], segment=segment).bytes


def seen(root: Path, table: str | None = None) -> pl.DataFrame:
    return scan_dataset(root, table, segment=True).collect()


def sorted_rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(frame.select(sorted(frame.columns)).rows(), key=repr)


def files(root: Path) -> list[str]:
    """Give the files that a dataset has, also hidden ones; not the lock, nor who held it and was killed."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith((".lock", ".holder.json")))


def inodes(root: Path) -> dict[str, tuple[int, int]]:
    stats = {path: (root / path).stat() for path in files(root)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def compacted(root: Path) -> list[Path]:
    return sorted(root.rglob("part_*~????????.parquet"))
