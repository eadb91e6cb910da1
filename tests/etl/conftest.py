"""A small recording for the objects of the earlier package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import cbtools as cb


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> Path:
    """Segments of two products, with two lines that are not understood; not to be changed."""
    folder = tmp_path_factory.mktemp("recording")
    made = cb.simulate_segments(
        folder, products=["BTC-USD", "ETH-USD"], minutes=0.1, levels=30, seed=3, bad_lines=2, segment_mb=0.25
    )
    assert len(made.paths) >= 2
    return made.paths[0].parent


@pytest.fixture(scope="session")
def tables(ready) -> cb.RawTables:
    return cb.read_raw(ready)


@pytest.fixture
def input_dir(ready, tmp_path) -> Path:
    """Give a folder of segments of one's own."""
    folder = tmp_path / "raw/ready/coinbase"
    shutil.copytree(ready, folder)
    return folder
