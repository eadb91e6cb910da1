"""A bucket, a recording and its datasets, for the tests of object stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cloud
import jobs
import polars as pl
import pytest
from cloud import Bucket
from cloud_rows import BY, Put

import cbtools as cb


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    with cloud.bucket(monkeypatch, tmp_path / "scratch") as made:
        yield made


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of three segments: plain, gzip and zstd; the second has a line not understood."""
    ready = jobs.recording(tmp_path_factory.mktemp("recording"))
    for path, ending in zip(sorted(ready.iterdir()), ("", ".gz", ".zst"), strict=True):
        jobs.put(ready, path.name + ending, path.read_bytes())
        if ending:
            path.unlink()
    return ready


@pytest.fixture(scope="module")
def whole(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run its segments one by one, on the disk."""
    out = tmp_path_factory.mktemp("whole")
    for path in sorted(recorded.iterdir()):
        cb.run_segment(path, out)
    return out


@pytest.fixture
def put(bucket: Bucket, tmp_path: Path) -> Put:
    """Give a function that writes a segment twice: to the folder "local", and to "lake" in the bucket."""

    def both(segment: str, frame: pl.DataFrame) -> None:
        for root in (tmp_path / "local", bucket.url("lake")):
            cb.write_dataset(frame, root, partition_by=BY, segment=segment)

    return both
