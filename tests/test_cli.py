"""The command line: arguments in, files and text out, and a message instead of a traceback."""

from __future__ import annotations

import gzip
import shlex
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest
import wire
from command_line import Done

import cbtools as cb
from cbtools.schema import TABLES

pytestmark = pytest.mark.filterwarnings(  # we do mean to read sys.argv, as the shell's call does
    "ignore:Cyclopts application invoked without tokens:UserWarning"
)

PNG = b"\x89PNG\r\n\x1a\n"
COMMANDS = (
    "run",
    "watch",
    "status",
    "inspect",
    "describe",
    "query",
    "compact",
    "repartition",
    "simulate",
    "demo",
)


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Two segments, with a line that is not understood in each of them."""
    folder = tmp_path_factory.mktemp("recording")
    made = cb.simulate_segments(
        folder, products=["BTC-USD", "ETH-USD"], minutes=0.1, levels=30, seed=3, bad_lines=2, segment_mb=0.25
    )
    assert len(made.paths) >= 2
    return made.paths[0].parent


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def fails(done: Done, code: int, *said: str) -> None:
    assert done.code == code
    assert done.out == ""
    assert "Traceback" not in done.err
    text = " ".join(done.err.replace("│", " ").split())  # as it was before it was framed
    for part in said:
        assert part in text


# --- demo


@pytest.mark.slow
def test_demo_leaves_a_dataset_and_pictures_and_what_it_says_to_try_next_works(
    call, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    out, done = Path("cbtools-demo"), call("demo")
    assert (done.code, done.err) == (0, "")
    for name in ("heatmap", "quotes", "trades"):
        assert (out / f"{name}.png").read_bytes().startswith(PNG)
        assert str(out / f"{name}.png") in done.out
    tables = cb.read_raw(cb.sample_path())
    for table in ("level2", "market_trades", "ticker"):
        rows = cb.scan_dataset(out / "processed", table).select(pl.len()).collect().item()
        assert rows == getattr(tables, table).height
    book = cb.scan_dataset(out / "processed", "book").select(pl.len()).collect().item()
    assert book == cb.rebuild_book(tables.level2).select(pl.len()).collect().item()
    assert len(list((out / "processed" / "_quarantine").iterdir())) == 2
    assert str(out / "processed") in done.out
    segments = [path.name.partition(".")[0] for path in sorted(cb.sample_path().iterdir())]
    assert done.out.count("level2 written") == done.out.count("book written") == len(segments)
    started = [line.split()[-1] for line in done.out.splitlines() if line.startswith("started from")]
    assert started == ["nothing", *segments[:-1]]
    said = done.out.partition("Try next:")[2]
    commands = [shlex.split(line)[1:] for line in said.splitlines() if line.strip().startswith("cbtools ")]
    assert {tokens[0] for tokens in commands} >= {"inspect", "describe", "run"}
    for tokens in commands:
        assert call(*tokens).code == 0
    source = said.partition('python -c "')[2].partition('"\n')[0]
    exec(compile(source, "said", "exec"), {})
    assert "trade_id" in capsys.readouterr().out


@pytest.mark.ci
def test_demo_again_leaves_the_same_files(call, tmp_path):
    first = call("demo", tmp_path / "demo")
    there = files(tmp_path)
    second = call("demo", tmp_path / "demo")
    assert (first.code, second.code) == (0, 0)
    assert files(tmp_path) == there


# --- run, inspect, describe, simulate


@pytest.mark.slow
def test_run_writes_what_run_segment_writes(call, recording, tmp_path):
    done = call("run", recording / "*", "--out", tmp_path / "by command")
    for segment in sorted(recording.iterdir()):
        cb.run_segment(segment, tmp_path / "by function")
    assert (done.code, done.err) == (0, "")
    assert files(tmp_path / "by command") == files(tmp_path / "by function")
    for table in ("level2", "market_trades", "ticker", "book"):
        a, b = (cb.scan_dataset(tmp_path / name, table).collect() for name in ("by command", "by function"))
        assert a.equals(b)
    for segment in sorted(recording.iterdir()):
        assert segment.stem in done.out


@pytest.mark.ci
def test_run_takes_several_segments_and_patterns(call, recording, tmp_path):
    first, second = sorted(recording.iterdir())[:2]
    done = call("run", first, second, "--out", tmp_path / "named", "--no-progress")
    assert done.code == 0
    done = call("run", recording / "segment_*.ndjson", "--out", tmp_path / "pattern")
    assert done.code == 0
    assert set(files(tmp_path / "named")) <= set(files(tmp_path / "pattern"))


def test_run_strict_stops_with_the_place_and_writes_nothing(call, recording, tmp_path):
    rejects = cb.read_raw(recording, segment=True).rejects
    segment, line = rejects.row(0, named=True)["segment"], rejects.row(0, named=True)["line"]
    done = call("run", recording / f"{segment}.ndjson", "--out", tmp_path / "out", "--strict")
    fails(done, 65, f"segment {segment}, line {line} ")
    assert files(tmp_path) == []


def test_inspect_prints_the_report_and_writes_nothing(call, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("inspect", recording)
    assert done == (0, f"{cb.inspect_raw(recording)}\n", "")
    assert "ticker agrees, ok" in done.out
    assert list(tmp_path.iterdir()) == []


def test_the_longest_line_is_an_option(call, tmp_path):
    path = tmp_path / "ready" / "x.ndjson"
    path.parent.mkdir()
    path.write_bytes(b"x" * 2_000 + b"\n" + wire.record(wire.snapshot(0)) + b"\n")
    for command in (["inspect", path], ["run", path, "--out", tmp_path / "one"]):
        assert "line too long" not in call(*command).out
        assert "line too long" in call(*command, "--max-line-mb", "0.001").out
    fails(call("inspect", path, "--max-line-mb", "0"), 78, "max_line_mb must be a number of MiB above 0")
    call("run", path.parent, "--out", tmp_path / "job", "--max-line-mb", "0.001")
    assert "line too long" in next((tmp_path / "job" / "_quarantine").iterdir()).read_text()


def test_inspect_takes_compressed_segments(call, recording, tmp_path):
    first = sorted(recording.iterdir())[0]
    packed = tmp_path / f"{first.name}.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    assert call("inspect", packed) == call("inspect", first)


def test_describe_lists_the_tables(call):
    assert call("describe") == (0, "".join(f"{table}\n" for table in (*TABLES, "features")), "")


def test_describe_lists_the_features(call):
    code, printed, _ = call("describe", "features")
    assert code == 0
    assert [line.split()[0] for line in printed.splitlines()] == cb.catalogue()["name"].to_list()
    assert "Cont, Kukanov & Stoikov 2014" in printed


@pytest.mark.parametrize("table", TABLES)
def test_describe_says_every_column(call, table):
    done = call("describe", table)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    frame = cb.describe(table)
    assert [line.split()[0] for line in lines] == frame["column"].to_list()
    for line, meaning, null in zip(lines, frame["meaning"], frame["null"], strict=True):
        assert meaning in line
        assert not null or line.endswith(f"(null: {null})")


def test_simulate_makes_the_recording_that_the_function_makes(call, tmp_path):
    done = call(
        "simulate", tmp_path / "a", "--products", "ETH-USD", "SOL-USD", "--minutes", 0.02, "--seed", 5,
        "--gaps", 1, "--bad-lines", 1, "--duplicates", 1, "--reconnects", 1, "--compression", "gzip",
    )  # fmt: skip
    made = cb.simulate_segments(
        tmp_path / "b", products=["ETH-USD", "SOL-USD"], minutes=0.02, seed=5,
        gaps=1, bad_lines=1, duplicates=1, reconnects=1, compression="gzip",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    written = [Path(line) for line in done.out.splitlines()]
    assert [path.name for path in written] == [path.name for path in made.paths]
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in made.paths]


# --- help and version


@pytest.mark.parametrize("tokens", [(), ("--help",), ("-h",)])
def test_help_names_every_command(call, tokens):
    done = call(*tokens)
    assert (done.code, done.err) == (0, "")
    for command in COMMANDS:
        assert f" {command} " in done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_its_arguments(call, command):
    done = call(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Usage: cbtools {command}" in done.out
    assert "Arguments" in done.out or "Parameters" in done.out


def test_version_is_the_package_s(call):
    assert call("--version") == (0, f"{version('cbtools')}\n", "")


# --- what goes wrong is a message


@pytest.mark.parametrize("command", ["inspect", "run"])
def test_a_path_that_is_not_there(call, command, tmp_path):
    out = ("--out", tmp_path / "out") if command == "run" else ()
    fails(call(command, tmp_path / "nowhere.ndjson", *out), 65, "cbtools: no such segment", "nowhere.ndjson")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_segments(call, tmp_path):
    fails(call("inspect", tmp_path), 65, "cbtools: no segments in", ".ndjson")


def test_a_table_that_is_not_there(call):
    fails(call("describe", "tikcer"), 78, "cbtools: unknown table 'tikcer'", "did you mean 'ticker'?")


def test_a_product_that_is_not_there(call, tmp_path):
    fails(call("simulate", tmp_path, "--products", "BTC-UDS"), 78, "did you mean 'BTC-USD'?")


def test_a_dataset_partitioned_otherwise(call, recording, tmp_path):
    first, second = sorted(recording.iterdir())[:2]
    cb.run_segment(first, tmp_path, channel_config={"level2": {"partition_cols": ["date"]}})
    there = files(tmp_path)
    fails(call("run", second, "--out", tmp_path), 74, "is partitioned by date, not by product_id, date")
    assert files(tmp_path) == there


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("inspct", "x"), 'Did you mean "inspect"?'),
        (("inspect",), "RAW requires an argument"),
        (("run", "x.ndjson"), "--out requires an argument"),
        (("inspect", "x.ndjson", "--chunk", "3"), "Unknown option: --chunk"),
        (("simulate", "x", "--minutes", "nine"), 'unable to convert "nine"'),
        (("simulate", "x", "--compression", "xz"), 'Choose from: "gzip", "zstd"'),
        (("describe", "level2", "ticker"), "ticker"),
    ],
)
def test_arguments_that_cannot_be_meant(call, tokens, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*tokens)
    assert done.code not in (0, None)
    fails(done, done.code, said)
    assert list(tmp_path.iterdir()) == []
