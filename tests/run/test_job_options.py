"""run_job's options, what it would do, who else may work meanwhile, and its command."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jobs
import pytest
import timeline
import wire
from command_line import Done
from jobs import outcomes, put, run, tree

import cbtools as cb

pytestmark = pytest.mark.filterwarnings(  # we do mean to read sys.argv, as the shell's call does
    "ignore:Cyclopts application invoked without tokens:UserWarning"
)

ETH = "ETH-USD"


def frames(first: int, last: int) -> list[bytes]:
    """Give frames of two products by turns, received a second apart; every fifth one is a ticker."""
    lines = []
    for number in range(first, last + 1):
        product_id = ("BTC-USD", ETH)[number % 2]
        frame = wire.ticker(number, product_id) if number % 5 == 4 else wire.change(number, product_id)
        lines.append(timeline.received(frame, number))
    return lines


FIRST, SECOND = frames(0, 9), [*frames(10, 14), b"?", *frames(16, 19)]


# --- a dry run


@pytest.mark.parametrize("again", [False, True])
def test_a_dry_run_changes_nothing(tmp_path, ready, out, again):
    if again:
        put(ready, "c.ndjson", FIRST)
        run(ready, out)
    put(ready, "b.ndjson", FIRST)
    put(ready, "a.ndjson", SECOND)
    put(ready, "d.ndjson", FIRST)
    put(jobs.beside(ready, "processing"), "claimed.ndjson", frames(20, 24))
    before = tree(tmp_path)
    report = run(ready, out, dry_run=True)
    assert tree(tmp_path) == before
    assert (report.done, report.skipped, report.failed) == (0, 0, 0)
    told = outcomes(report)
    assert told.pop("a.ndjson") == told.pop("claimed.ndjson") == "would run"
    assert sorted(told.values()) == (["would skip"] * 2 if again else ["would run", "would skip"])
    really = run(ready, out)
    assert really.segments["source"].to_list() == report.segments["source"].to_list()
    assert really.segments["segment"].to_list() == report.segments["segment"].to_list()
    done = {"would run": "done", "would skip": "skipped"}
    assert really.segments["outcome"].to_list() == [done[name] for name in report.segments["outcome"]]


def test_a_dry_run_of_a_name_used_again_tells_the_other_name(ready, out):
    put(ready, "a.ndjson", FIRST)
    run(ready, out)
    put(ready, "a.ndjson", SECOND)
    report = run(ready, out, dry_run=True)
    name = f"a-{hashlib.sha256(wire.segment(*SECOND)).hexdigest()[:8]}"
    assert report.segments.select("segment", "outcome").rows() == [(name, "would run")]


# --- options


def test_so_many_states_are_kept(ready, out):
    for number in range(4):
        put(ready, f"{number}.ndjson", frames(5 * number, 5 * number + 4))
    run(ready, out, keep_states=2)
    assert jobs.states(out).keys() == {"2", "3"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(
            ({"since": value}, "since")
            for value in ("yesterday", "2026-13-01", "", 5, 1.5, True, b"2026-03-04")
        ),
        *(({"until": value}, "until") for value in ("25:00", "2026-03-04T05:06:07+99:00", 0, ["2026-03-04"])),
        *(({"workers": value}, "workers") for value in (0, -1, 1.5, True, "2")),
        *(({"keep_states": value}, "keep_states") for value in (0, -3, True, 1.0, "3", None)),
        *(({"chunk_bytes": value}, "chunk_bytes") for value in (0, -5, 1.5)),
        *(({"products": value}, "products") for value in ("BTC-USD", [7], 5, [None])),
        ({"channels": ["levle2"]}, "did you mean 'level2'"),
        ({"channels": ["level2", "tickr"]}, "did you mean 'ticker'"),
        *(({"channels": value}, "channels") for value in ("level2", 5, [7])),
        ({"channel_config": {"tikcer": {}}}, "did you mean 'ticker'"),
        ({"channel_config": {"ticker": {"partition": []}}}, "did you mean 'partition_cols'"),
        ({"executor": "threads"}, "executor"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path, ready, out, options, said):
    put(ready, "a.ndjson", FIRST)
    before = tree(tmp_path)
    with pytest.raises(cb.ConfigError, match=re.escape(said)):
        run(ready, out, **options)
    assert tree(tmp_path) == before


def test_progress_goes_to_stderr(ready, out, capsys):
    for number, progress in enumerate((True, False)):
        put(ready, "a.ndjson", frames(10 * number, 10 * number + 4))
        cb.run_job(str(ready), str(out), progress=progress)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert bool(captured.err) is progress


# --- the command


def fails(done: Done, code: int, said: str) -> None:
    assert done.code == code
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err


def test_run_of_a_folder_is_a_job(call, tmp_path, ready, out):
    put(ready, "b.ndjson", FIRST)
    put(ready, "a.ndjson", SECOND)
    done = call("run", ready, "--out", out)
    assert done.code == 0
    assert jobs.places(ready) == {"a.ndjson": ["done"], "b.ndjson": ["done"]}
    assert "a" in done.out
    for name in "ba":
        cb.run_segment(jobs.beside(ready, "done") / f"{name}.ndjson", tmp_path / "whole")
    jobs.same_rows(jobs.tables(out), jobs.tables(tmp_path / "whole"))


def test_run_of_files_leaves_them_where_they_are(call, ready, out):
    put(ready, "b.ndjson", FIRST)
    put(ready, "a.ndjson", SECOND)
    before = tree(ready.parent.parent)
    assert call("run", ready / "b.ndjson", ready / "a.ndjson", "--out", out / "files").code == 0
    assert call("run", ready / "*.ndjson", "--out", out / "pattern").code == 0
    assert tree(ready.parent.parent) == before
    assert jobs.states(out / "files").keys() == {"a", "b"}
    assert jobs.manifests(out / "files") == {}


def test_a_command_with_options(call, tmp_path, ready, out):
    put(ready, "a.ndjson", FIRST)
    put(ready, "b.ndjson", SECOND)
    before = tree(tmp_path)
    done = call("run", ready, "--out", out, "--dry-run")
    assert done.code == 0
    assert "would run" in done.out
    assert tree(tmp_path) == before
    done = call(
        "run", ready, "--out", out, "--until", "2026-03-04T05:00:09.5", "--products", ETH,
        "--channels", "ticker", "--delete-after-processing", "--no-progress",
    )  # fmt: skip
    assert done.code == 0
    assert jobs.places(ready) == {"b.ndjson": ["ready"]}
    found = jobs.tables(out)
    assert found.keys() == {"ticker"}
    assert set(found["ticker"]["product_id"]) == {ETH}


def test_the_exit_codes(call, tmp_path, ready, out):
    put(ready, "a.ndjson", FIRST)
    put(ready, "bad.ndjson", b"no JSON")
    assert call("run", ready, "--out", out).code == 65
    put(ready, "b.ndjson", SECOND)
    fails(call("run", ready, "--out", out, "--strict"), 65, "segment b, line 6 ")
    fails(call("run", tmp_path / "raw" / "nowhere.ndjson", "--out", out), 65, "nowhere.ndjson")
    put(tmp_path / "raw" / "active" / "coinbase", "c.ndjson", FIRST)
    fails(call("run", tmp_path / "raw" / "active" / "coinbase", "--out", out), 78, "active")
    fails(call("run", ready, "--out", out, "--since", "soon"), 78, "since")
    put(ready, "c.ndjson", frames(30, 34))
    fails(call("run", ready, "--out", put(tmp_path, "file", b"in the way")), 74, "file")
    assert call("run", ready, "--out", out).code == 0


class Slow(ThreadPoolExecutor):
    """Lets what is to be run wait."""

    def __init__(self) -> None:
        super().__init__(1)
        self.begun, self.free = threading.Event(), threading.Event()

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self.begun.set()
        assert self.free.wait(60)
        return super().submit(*arguments, **named)


def test_a_second_job_is_told_who_holds_the_folder(call, tmp_path, ready, out):
    put(ready, "a.ndjson", FIRST)
    other = put(tmp_path / "other", "b.ndjson", SECOND).parent
    with Slow() as executor, ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, ready, out, executor=executor)
        assert executor.begun.wait(60)
        try:
            for folder, to in ((ready, tmp_path / "elsewhere"), (other, out)):
                with pytest.raises(cb.JobError, match=str(os.getpid())) as told:
                    run(folder, to)
                assert socket.gethostname() in str(told.value)
            fails(call("run", ready, "--out", out), 75, str(os.getpid()))
        finally:
            executor.free.set()
        assert first.result(60).done == 1
    assert run(other, out).done == 1


def test_status_tells_and_changes_nothing(call, tmp_path, ready, out):
    put(ready, "a.ndjson", FIRST)
    put(ready, "bad.ndjson", b"no JSON")
    run(ready, out)
    put(ready, "waiting.ndjson", SECOND)
    before = tree(tmp_path)
    done = call("status", ready, "--out", out)
    assert done == (0, f"{cb.job_status(ready, out)}\n", "")
    assert re.search(r"\bready\b.*\b1\b", done.out)
    assert re.search(r"\bfailed\b.*\b1\b", done.out)
    assert tree(tmp_path) == before
    fails(call("status", tmp_path / "nowhere", "--out", out), 78, "nowhere")
