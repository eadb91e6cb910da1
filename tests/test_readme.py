"""The README's examples run as written, and its picture is the one of the chapter that it names."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import cbtools as cb

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Be where a user is: beside a folder of raw segments."""
    monkeypatch.chdir(tmp_path)
    ready = tmp_path / "raw/ready/coinbase"
    ready.mkdir(parents=True)
    for segment in cb.sample_path().iterdir():
        text = gzip.decompress(segment.read_bytes())
        for folder in (ready.parents[1], ready):
            (folder / segment.stem).write_bytes(text)
    yield tmp_path
    plt.close("all")


@pytest.mark.slow
def test_its_python_runs(recorded, capsys):
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    for picture in ("depth.png", "heatmap.png"):
        assert (recorded / picture).stat().st_size > 10_000
    assert names["report"].done == 3
    assert names["flow"].collect().height > 200
    assert "BTC-USD" in capsys.readouterr().out


def test_its_first_example_has_ten_lines():
    block = README.split("## Ten lines")[1].split("```python\n")[1].split("```")[0]
    lines = [line for line in block.splitlines() if line and not line.startswith("import ")]
    assert len(lines) == 10


def test_its_picture_is_that_of_the_chapter():
    """Drawn by a cell that anyone can run, not by hand: the same bytes."""
    cells = json.loads((ROOT / "notebooks/03_order_book.ipynb").read_text(encoding="utf-8"))["cells"]
    (cell,) = (cell for cell in cells if "cb.plot.heatmap(" in "".join(cell["source"]))
    (image,) = (output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output["data"])
    assert base64.b64decode("".join(image)) == (ROOT / "docs/heatmap.png").read_bytes()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!https?:)[^)#]+)\)", README))))
def test_its_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_it_lists_all_chapters():
    for chapter in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        assert f"](notebooks/{chapter.name})" in README
