"""``cbtools run --mode``: what the earlier package's script did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import cbtools as cb
from cbtools import cli

pytestmark = pytest.mark.filterwarnings(  # we do mean to read sys.argv, as the shell's call does
    "ignore:Cyclopts application invoked without tokens:UserWarning"
)


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command line as the shell does, in this process."""

    def call(*tokens: object) -> Done:
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.setattr(sys, "argv", ["cbtools", *map(str, tokens)])
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def asked(monkeypatch):
    """Note what run_job is asked for, which does not work then."""
    calls = []

    def spy(*args, **options):
        calls.append((args, options["since"], options["until"]))
        return cb.JobReport()

    monkeypatch.setattr(cb, "run_job", spy)
    return calls


@pytest.mark.parametrize(
    ("options", "since", "until"),
    [
        ([], None, None),
        (["--source", "coinbase", "--mode", "all"], None, None),
        (["--mode", "all", "--since", "2025-11-26T14:00"], "2025-11-26T14:00", None),
        (["--mode", "date", "--date", "2025-11-26"], "2025-11-26", "2025-11-27"),
        (
            ["--mode", "range", "--start-date", "2025-11-26", "--end-date", "2025-11-30"],
            "2025-11-26",
            "2025-12-01",
        ),
        (["--mode", "range", "--start-date", "2025-11-26"], "2025-11-26", None),
    ],
)
def test_a_mode_is_a_span_of_days(call, asked, tmp_path, options, since, until):
    done = call("run", tmp_path, "--out", tmp_path / "out", *options)
    assert (done.code, done.err) == (0, "")
    assert asked == [((str(tmp_path), str(tmp_path / "out")), since, until)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "date"], "--mode date needs --date, e.g. --date 2025-11-26"),
        (["--mode", "range", "--end-date", "2025-11-26"], "--mode range needs --start-date"),
        (["--date", "2025-11-26"], "--date is for --mode date, not for --mode all"),
        (
            ["--mode", "date", "--start-date", "2025-11-26"],
            "--start-date is for --mode range, not for --mode",
        ),
        (["--mode", "date", "--date", "26.11.2025"], "must be a day as 2025-11-26"),
        (
            ["--mode", "date", "--date", "2025-11-26", "--since", "2025-11-26"],
            "leave out --since and --until",
        ),
        (
            ["--mode", "range", "--start-date", "2025-11-26", "--end-date", "2025-11-25"],
            "end_date 2025-11-25 comes before start_date 2025-11-26",
        ),
    ],
)
def test_options_that_do_not_fit_are_told(call, asked, tmp_path, options, said):
    done = call("run", tmp_path, "--out", tmp_path / "out", *options)
    assert done.code == 78
    assert said in " ".join(done.err.split())
    assert asked == []


def test_sources_and_modes_that_there_are_not_are_told(call, asked, tmp_path):
    for options in (["--source", "ibkr"], ["--mode", "week"]):
        done = call("run", tmp_path, "--out", tmp_path / "out", *options)
        assert done.code != 0
        assert options[1] in done.err
        assert "Traceback" not in done.err
    assert asked == []


def test_modes_are_for_a_folder(call, ready, tmp_path):
    path = sorted(ready.iterdir())[0]
    done = call("run", path, "--out", tmp_path / "out", "--mode", "date", "--date", "2025-11-26")
    assert done.code == 78
    assert "for one folder of segments" in done.err


@pytest.mark.ci
def test_a_day_without_segments_leaves_them_where_they_are(call, input_dir, tmp_path):
    before = sorted(input_dir.iterdir())
    out = tmp_path / "processed"
    done = call("run", input_dir, "--out", out, "--mode", "date", "--date", "2025-11-25")
    assert (done.code, sorted(input_dir.iterdir())) == (0, before)
    done = call("run", input_dir, "--out", out, "--mode", "date", "--date", "2025-11-26")
    assert (done.code, list(input_dir.iterdir())) == (0, [])
    assert cb.scan_dataset(out, "level2").collect().height > 0
    assert Path(tmp_path / "raw/done/coinbase" / before[0].name).is_file()
