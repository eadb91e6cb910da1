"""The benchmarks' own tools: what a claim says, what is compared, the page of results, and by_hand.py."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

import cbtools as cb

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def tools():
    """Give the modules of benchmarks/, which are no package."""
    names = ("measure", "run_all", "by_hand")
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


def results(claims: list[Any], script: str = "segment", **more: Any) -> dict[str, Any]:
    """Give results with these claims, as they are read from a file."""
    found = {"date": "2025-11-26 14:00 UTC", "seconds": 5, "machine": "M", "versions": "V", "commit": "abc"}
    found |= {"claims": [vars(claim) for claim in claims], "tables": []}
    return json.loads(json.dumps({"scripts": {script: {**found, **more}}}))


def test_every_benchmark_is_run(tools):
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert files == {*tools.run_all.SCRIPTS, *tools.run_all.SHARED}


def test_every_benchmark_tells_its_claims():
    for path in FOLDER.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ("def measured(options" in text) == ("tell(options, measured(options))" in text), path
    assert (FOLDER / "by_hand.py").read_text(encoding="utf-8").count("__main__") == 0


# --- a claim


@pytest.mark.parametrize(
    ("less", "runs", "target", "met"),
    [
        (False, [299.0, 310.0, 320.0], 300, True),
        (False, [280.0, 290.0, 320.0], 300, False),
        (True, [0.4, 0.5, 9.0], 0.5, True),
        (True, [0.4, 0.51, 0.6], 0.5, False),
        (True, [1.0], None, None),
    ],
)
def test_a_figure_is_held_against_its_target(tools, less, runs, target, met):
    assert tools.measure.Claim("speed", "MB/s", runs, target, less=less).met is met


def test_two_sides_are_compared_run_by_run(tools):
    claim = tools.measure.times_as_fast("x", {"a": [1.0, 2.0, 4.0], "b": [30.0, 60.0, 80.0]}, "a", "b", 30)
    assert claim.ratios == [30, 30, 20]
    assert claim.met
    assert "30.0 (20.0 to 30.0) times as good; target 30.0 times: met" in str(claim)


def test_a_side_that_ran_less_often_counts_by_its_median(tools):
    claim = tools.measure.times_as_fast("x", {"a": [1.0, 2.0, 4.0], "b": [30.0, 50.0]}, "a", "b", 20)
    assert claim.ratios == [40, 20, 10]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.01234, "0.0123"),
        (1.5, "1.50"),
        (12.34, "12.3"),
        (1234.5, "1,234"),
        (9.96, "9.96"),
        (9.999, "10.0"),
        (1e-9, "1e-09"),
    ],
)
def test_figures_have_three_digits(tools, value, text):
    assert tools.measure.figure(value) == text


def test_what_is_told_is_printed_and_written(tools, tmp_path, capsys):
    claim = tools.measure.Claim("speed", "MB/s", [1.0, 2.0, 3.0], 2.5)
    table = tools.measure.Table("Sizes", ["column", "bytes"], [["price", "3.5"]])
    tools.measure.tell(Namespace(json=tmp_path / "found.json"), iter([claim, table]))
    assert capsys.readouterr().out.splitlines() == [
        "speed: 2.00 (1.00 to 3.00) MB/s; target at least 2.50: MISSED",
        "Sizes",
        "column  bytes",
        "price   3.5",
    ]
    found = json.loads((tmp_path / "found.json").read_text())
    assert tools.measure.Claim(**found["claims"][0]) == claim
    assert tools.measure.Table(**found["tables"][0]) == table


# --- against the last time


def compared(tools, last, now):
    return tools.run_all.compared(results(last), results(now))


@pytest.mark.parametrize(
    ("less", "now", "said"),
    [
        (False, [80.0, 85.0, 90.0], "worse"),
        (False, [90.0, 95.0, 120.0], None),  # the last time's median is still reached
        (False, [130.0, 140.0, 150.0], "better"),
        (True, [130.0, 140.0, 150.0], "worse"),
        (True, [80.0, 85.0, 90.0], "better"),
    ],
)
def test_it_says_what_got_worse_beyond_the_spread(tools, less, now, said):
    claim = tools.measure.Claim
    last = [claim("speed", "MB/s", [98.0, 100.0, 110.0], less=less)]
    lines = compared(tools, last, [claim("speed", "MB/s", now, less=less)])
    if said is None:
        assert lines == ["No claim has changed beyond its spread."]
    else:
        middle = f"{now[1]:.{0 if now[1] >= 100 else 1}f}"
        assert len(lines) == 1
        assert lines[0].startswith(f"{said}: segment.py, speed: 100 (98.0 to 110) MB/s, now {middle} (")


def test_of_two_sides_the_ratio_is_compared(tools):
    """A slower machine slows both sides, and that is no change."""
    last = tools.measure.times_as_fast("x", {"a": [1.0, 1.1], "b": [30.0, 33.0]}, "a", "b", 30)
    slow = tools.measure.times_as_fast("x", {"a": [2.0, 2.2], "b": [60.0, 66.0]}, "a", "b", 30)
    worse = tools.measure.times_as_fast("x", {"a": [2.0, 2.2], "b": [30.0, 33.0]}, "a", "b", 30)
    assert compared(tools, [last], [slow]) == ["No claim has changed beyond its spread."]
    assert compared(tools, [last], [worse])[0].startswith("worse: segment.py, x: ")


def test_it_says_what_is_new_gone_and_failed(tools):
    claim = tools.measure.Claim
    last = results([claim("a", "s", [1.0]), claim("b", "s", [1.0])])
    now = results([claim("b", "s", [1.0]), claim("c", "s", [1.0])])
    now["scripts"]["job"] = {**now["scripts"]["segment"], "claims": [], "error": "ended with 1: no disk"}
    assert tools.run_all.compared(last, now) == [
        "FAILED: job.py",
        "new: segment.py, c",
        "gone: segment.py, a",
    ]
    assert tools.run_all.compared({}, now) == ["There are no results to compare with."]


def test_of_another_machine_only_ratios_are_compared(tools):
    measure = tools.measure
    figures = [measure.Claim("speed", "MB/s", [1.0]), measure.Claim("speed", "MB/s", [2.0])]
    ratios = [
        measure.times_as_fast("x", {"a": [1.0], "b": [theirs]}, "a", "b", 30) for theirs in (30.0, 20.0)
    ]
    last, now = results([figures[0], ratios[0]]), results([figures[1], ratios[1]], machine="another")
    assert tools.run_all.compared(last, now) == [
        "worse: segment.py, x: 30.0 times, now 20.0 times",
        "Measured on another machine than before: only ratios of two sides are compared.",
    ]


# --- the page


def test_the_page_tells_each_claim_and_what_is_missed(tools):
    measure = tools.measure
    fast = measure.times_as_fast("against by hand", {"a": [1.0, 1.0], "b": [31.0, 33.0]}, "a", "b", 30)
    slow = measure.Claim("run_segment", "MB/s", [200.0, 210.0, 220.0], 300)
    now = results([fast, slow])
    now["scripts"]["segment"]["tables"] = [
        vars(measure.Table("Sizes", ["column", "a|b"], [["price", "3.5"]]))
    ]
    now["scripts"]["job"] = {**now["scripts"]["segment"], "claims": [], "error": "ended with 1: no disk"}
    page = tools.run_all.markdown(now, ["worse: all"])
    assert "1 of 2 targets are met." in page
    assert "- `segment.py`, run_segment: 210 (200 to 220) MB/s, target at least 300" in page
    assert (
        "| against by hand | 1.00 (1.00 to 1.00) s | b: 32.0 (31.0 to 33.0) s | 32.0 (31.0 to 33.0) " in page
    )
    assert "`python benchmarks/segment.py`, 2025-11-26 14:00 UTC, 5 s" in page
    assert "Sizes:\n\n| column | a\\|b |\n| --- | --- |\n| price | 3.5 |" in page
    assert "**Failed**: ended with 1: no disk" in page
    assert "Not all figures that this is worked out from have been measured." in page
    assert page.endswith("- worse: all\n")


def test_the_plan_is_worked_out_from_the_figures(tools):
    claim, one, of = tools.measure.Claim, "job", "20 segments, 2100 MB"
    figures = {
        (one, f"run_job, two workers, {of}"): claim("", "MB/s", [100.0]),
        (one, f"run_job, one worker, {of}"): claim("", "MB/s", [90.0]),
        (one, f"the job's own process, {of}"): claim("", "ms", [50.0]),
        ("segment", "Parquet, bytes for each raw byte, 30 products"): claim("", "", [0.2]),
        ("flat", "peak memory, segments: 100, 30 products"): claim("", "MB", [700.0]),
        ("pipeline", "run_segment against the same by hand, 30 products"): tools.measure.times_as_fast(
            "", {"a": [1.0], "b": [31.0]}, "a", "b", 30
        ),
    }
    text = tools.run_all.plan(figures)
    assert "33 GB a day, 314 segments" in text
    assert "| time for a day | 5.5 min | 33 s |" in text  # 32,895 MB at 100 MB/s
    assert "| Parquet | 6.6 GB | the same |" in text
    assert "| peak memory | 1.4 GB | 1.4 GB each |" in text
    assert "less than the workers' 33 s" in text
    figures[one, f"the job's own process, {of}"] = claim("", "ms", [1000.0])
    assert "| time for a day | 5.5 min | 5.2 min |" in tools.run_all.plan(figures)  # 314 s of publishing
    figures[one, f"run_job, one worker, {of}"] = claim("", "MB/s", [200.0])
    text = tools.run_all.plan(figures)
    assert "| time for a day | 2.7 min | 5.2 min |" in text
    assert "| peak memory | 0.7 GB | 1.4 GB each |" in text


# --- what is compared does the same


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Give a segment with gaps and a reconnect, and its dataset."""
    folder = tmp_path_factory.mktemp("recorded")
    made = cb.simulate_segments(
        folder, products=["BTC-USD", "XRP-USD"], minutes=0.1, levels=40, seed=5, gaps=2, reconnects=1
    )
    (path,) = made.paths
    report = cb.run_segment(path, folder / "ours")
    written = {table: one.rows for table, one in report.written.items()}
    return SimpleNamespace(path=path, ours=folder / "ours", written=written)


@pytest.mark.parametrize("kind", ["Book", "SortedBook"])
def test_by_hand_gives_the_rows_of_run_segment(tools, recorded, tmp_path, kind):
    tools.by_hand.convert(recorded.path, tmp_path, getattr(tools.by_hand, kind))
    same = tools.by_hand.compare(recorded.ours, tmp_path)
    assert min(recorded.written.values()) > 0
    assert {table: rows for table, (rows, _, _) in same.items()} == recorded.written
    close = {table: close for table, (_, _, close) in same.items()}
    assert close == {"level2": 0, "market_trades": 0, "ticker": 0, "book": 29}
    states = cb.scan_dataset(recorded.ours, "book").collect()["book_state"].unique()
    assert {"ok", "unproven"} <= {*states}


def test_a_digit_that_differs_is_found(tools, recorded, tmp_path):
    tools.by_hand.convert(recorded.path, tmp_path)
    part = min((tmp_path / "book").rglob("*.parquet"))
    book = pl.read_parquet(part)
    book.with_columns(bid_price_10=pl.col("bid_price_10") * (1 + 1e-15)).write_parquet(part)
    with pytest.raises(AssertionError, match="bid_price_10"):
        tools.by_hand.compare(recorded.ours, tmp_path)
