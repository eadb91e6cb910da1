"""The sample recording: what is committed is what the command makes, and what the cache gets."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cbtools import samples
from cbtools.errors import ConfigError
from cbtools.samples import SAMPLE, sample_path, write_sample
from cbtools.simulate import Simulation

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "data_samples" / "raw" / "ready" / "coinbase"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*"))}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return write_sample(tmp_path_factory.mktemp("fresh"))


def test_the_committed_sample_is_what_the_command_makes(fresh: Simulation) -> None:
    assert contents(COMMITTED) == contents(fresh.paths[0].parent)


def test_the_sample_is_small_and_has_something_to_show(fresh: Simulation) -> None:
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) < 2_000_000
    assert len(fresh.paths) == 3
    assert fresh.connections == 2
    assert set(fresh.counts) == set(SAMPLE["products"])
    assert Counter(fault.kind for fault in fresh.faults) == {"gap": 1, "cut": 1, "glued": 1, "duplicate": 2}


def test_the_readme_tells_seed_and_command() -> None:
    text = (ROOT / "data_samples" / "README.md").read_text()
    assert str(SAMPLE["seed"]) in text
    assert "python -m cbtools.samples data_samples" in text


def test_in_a_checkout_the_committed_sample_is_found() -> None:
    assert sample_path() == COMMITTED


@pytest.mark.ci
def test_elsewhere_it_is_made_once_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Simulation
) -> None:
    monkeypatch.setattr(samples, "__file__", str(tmp_path / "site-packages" / "cbtools" / "samples.py"))
    monkeypatch.setattr(samples, "_cache_folder", lambda: tmp_path / "cache")
    found = sample_path()
    assert found.is_relative_to(tmp_path / "cache")
    assert contents(found) == contents(fresh.paths[0].parent)
    assert [path.name for path in found.parents[2].iterdir()] == ["raw"]  # nothing is left of the making
    monkeypatch.setattr(samples, "write_sample", lambda folder: pytest.fail("made a second time"))
    assert sample_path() == found


def test_a_cache_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SAMPLE", {"products": "OP-USD", "minutes": 0.01, "levels": 20})
    found = sample_path(cache=tmp_path / "mine")
    assert found.is_relative_to(tmp_path / "mine")
    assert [path.name for path in found.iterdir()] == ["segment_20251126T14_00001.ndjson"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="give sample_path a cache folder"):
        sample_path(cache=tmp_path / "file")


def test_a_sample_replaces_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SAMPLE", {"products": "OP-USD", "minutes": 0.01, "levels": 20})
    (tmp_path / "raw" / "ready" / "coinbase").mkdir(parents=True)
    (tmp_path / "raw" / "ready" / "coinbase" / "segment_old.ndjson").write_text("{}")
    (tmp_path / "README.md").write_text("stays")
    done = write_sample(tmp_path)
    assert list((tmp_path / "raw" / "ready" / "coinbase").iterdir()) == list(done.paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "raw"]


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_the_cache_folder_is_the_platforms(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    expected = {
        "linux": tmp_path / "cbtools",
        "darwin": Path.home() / "Library" / "Caches" / "cbtools",
        "win32": tmp_path / "cbtools" / "Cache",
    }
    assert samples._cache_folder() == expected[platform]


@pytest.mark.ci
def test_the_command_writes_and_names_the_segments(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "cbtools.samples", str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    written = [Path(line) for line in ran.stdout.split()]
    assert written == sorted((tmp_path / "raw" / "ready" / "coinbase").iterdir())
    with gzip.open(written[0]) as stream:
        assert json.loads(stream.readline())["data"]["channel"] == "subscriptions"
