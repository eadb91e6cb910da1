"""What a notebook shows of our own objects: a table whose numbers are those of the object."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import cbtools as cb


class Page(HTMLParser):
    """Reads HTML; what is opened must be closed, in order."""

    EMPTY = frozenset({"br", "hr", "img", "col"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells = 0
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.cells += tag in ("td", "th")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data + "\n"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Give an object of each kind that a user gets, and a text that its page must have."""
    folder = tmp_path_factory.mktemp("reprs <&>")  # a name that is no HTML
    made = cb.simulate_segments(folder, minutes=0.2, seed=1, bad_lines=1)
    (path,) = made.paths
    tables, state = cb.read_raw(path), cb.BookState.read(path)
    segment = cb.run_segment(path, folder / "out")
    job = cb.run_job(path.parent, folder / "job", progress=False)
    inspected = cb.inspect_raw(folder / "raw/done/coinbase")
    level2 = tables.level2.lazy()
    lines = f"{made.lines:,} lines"
    return {
        "Simulation": (made, lines),
        "RawTables": (tables, f"{made.lines:,}"),
        "RawReport": (tables.report, f"{made.lines:,}"),
        "BookReport": (inspected.book, "BTC-USD"),
        "InspectReport": (inspected, f"{made.lines:,}"),
        "BookState": (state, f"{state.levels.height:,} levels"),
        "Book": (cb.book_at(level2, "2025-11-26T14:00:10Z", "BTC-USD"), "BTC-USD"),
        "SegmentReport": (segment, f"{segment.rows['level2']:,} rows"),
        "Written": (cb.write_dataset(tables.ticker, folder / "t", partition_by=["date"]), "date"),
        "JobReport": (job, path.stem),
        "JobStatus": (cb.job_status(path.parent, folder / "job"), "1 segment"),
    }


KINDS = [
    "Simulation",
    "RawTables",
    "RawReport",
    "BookReport",
    "InspectReport",
    "BookState",
    "Book",
    "SegmentReport",
    "Written",
    "JobReport",
    "JobStatus",
]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_table_with_its_numbers(kind, shown):
    value, told = shown[kind]
    assert type(value).__name__ == kind
    page = Page(value._repr_html_())
    assert page.open == []
    assert page.cells >= 6
    assert told in page.text


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_short(kind, shown):
    page = Page(shown[kind][0]._repr_html_())
    assert len(page.text) < 6_000
    assert page.cells < 400
