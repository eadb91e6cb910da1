"""Files that are not recordings: refused before anything is written, with their apparent format."""

from __future__ import annotations

import gzip
from pathlib import Path

import jobs
import pytest
import timeline
import wire
from command_line import Done

import cbtools as cb

pytestmark = pytest.mark.filterwarnings(  # we do mean to read sys.argv, as the shell's call does
    "ignore:Cyclopts application invoked without tokens:UserWarning"
)

LINE = wire.line(wire.change(1))
RECORDS = [timeline.received(wire.snapshot(0), 0), *timeline.changes(1, 9)]
TIMED = b"".join(b"177268716%d.25: %s\n" % (second, LINE) for second in range(9))
OTHERS = {
    "timed": (
        TIMED,
        "of the feed (another format 9); it appears to be a time before the JSON",
    ),
    "csv": (b"time,side,price\n1,buy,2\n2,sell,3\n", "it appears to be CSV"),
    "array": (b'[\n  {\n    "channel": "l2_data",\n', "it appears to be JSON over several lines"),
    "array on a line": (b"[" + LINE + b"," + LINE + b"]", "it appears to be a JSON array of frames"),
    "without newlines": (LINE * 5, "it appears to be JSON objects one after another"),
    "wrapped": (wire.segment({"ts": 1, "msg": wire.change(1)}), "jq -c '{data: .msg}'"),
    "binary": (b"\xfd7zXZ\x00" + bytes(range(256)) * 9, "it appears to be a file compressed by xz"),
    "text": (b"no recording at all\n" * 2 + b"a, b, c\n", "it appears to be CSV"),
    "blank": (b"\n \n", "(blank line 2); the first: blank line"),
    "JSON": (b'{"price":"1"}\n', "(no channel and no type 1)"),
    "cut": (RECORDS[0][:30], "the first: not JSON: "),
}


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(done: Done, said: str) -> None:
    assert (done.code, done.out) == (65, "")
    assert "is not a recording: " in done.err
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_refused_and_nothing_is_written(call, tmp_path, name):
    content, said = OTHERS[name]
    path, out = tmp_path / "a.ndjson", tmp_path / "out"
    path.write_bytes(content)
    refused(call("run", path, "--out", out), said)
    refused(call("inspect", path), said)
    with pytest.raises(cb.SegmentError, match=r"a\.ndjson is not a recording: none of its "):
        cb.run_segment(path, out)
    report = cb.inspect_raw(path).raw
    assert said in report.no_recording["a"]
    assert dict(report.items())["not a recording"] == f"a: {report.no_recording['a']}"
    with pytest.warns(cb.CbtoolsWarning, match="a is not a recording: none of its "):
        assert cb.scan_raw(path, "level2").collect().is_empty()
    assert written(tmp_path) == {"a.ndjson": content}
    assert not out.exists()


def test_what_was_there_stays(call, tmp_path):
    segment, out = tmp_path / "a.ndjson", tmp_path / "out"
    segment.write_bytes(wire.segment(*RECORDS))
    cb.run_segment(segment, out)
    before = written(out)
    segment.write_bytes(TIMED)  # of the same name
    refused(call("run", segment, "--out", out), "a time before the JSON")
    assert written(out) == before


def test_a_large_one_is_looked_at_to_its_end(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(TIMED * 300)
    with pytest.raises(cb.SegmentError, match=r"\(another format 2,700\)"):
        cb.run_segment(path, tmp_path / "out")
    path.write_bytes(TIMED * 300 + wire.segment(*RECORDS))
    with pytest.warns(cb.CbtoolsWarning, match="2,700 appear to be a time before the JSON"):
        assert cb.run_segment(path, tmp_path / "out").raw.rejects == {"another format": 2700}


@pytest.mark.parametrize("kept", [4, 12, 40])
def test_a_damaged_file_of_which_nothing_can_be_read(call, tmp_path, kept):
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(gzip.compress(wire.segment(*RECORDS))[:kept])
    refused(call("run", path, "--out", tmp_path / "out"), "nothing of it can be read (damaged file: ")
    refused(call("inspect", path), "nothing of it can be read (damaged file: ")
    assert list(written(tmp_path)) == ["a.ndjson.gz"]


@pytest.mark.parametrize(
    "lines",
    [[], [timeline.received(wire.change(7, side="?"), 0)], [wire.error()], [*TIMED.splitlines(), RECORDS[0]]],
    ids=["empty", "rejected frames", "an error frame", "one good line"],
)
def test_a_recording_without_rows_is_one(call, tmp_path, lines):
    path = tmp_path / "a.ndjson"
    path.write_bytes(wire.segment(*lines))
    assert call("inspect", path).code == 0
    done = call("run", path, "--out", tmp_path / "out")
    assert done.code == 0
    assert "not a recording" not in done.out + done.err
    assert cb.inspect_raw(path).raw.no_recording == {}


def test_among_recordings_it_is_named_and_does_not_stop_them(call, tmp_path):
    (tmp_path / "a.ndjson").write_bytes(TIMED)
    (tmp_path / "b.ndjson").write_bytes(wire.segment(*RECORDS))
    done = call("inspect", tmp_path)
    assert done.code == 65
    assert "cbtools: a is not a recording: none of its lines" in done.err
    assert "another format 9" in done.out
    assert "9 of the lines: a time before the JSON" in done.out
    done = call("run", tmp_path / "a.ndjson", tmp_path / "b.ndjson", "--out", tmp_path / "out")
    assert done.code == 65
    assert f"{tmp_path / 'a.ndjson'} is not a recording: none of its lines" in done.err
    assert done.out.startswith("segments               b\n")
    strict = call(
        "run", tmp_path / "a.ndjson", tmp_path / "b.ndjson", "--out", tmp_path / "other", "--strict"
    )
    assert (strict.code, strict.out) == (65, "")


def test_a_job_goes_on_with_the_next_segment(ready, out):
    jobs.put(ready, "a.ndjson", TIMED)
    jobs.put(ready, "b.ndjson", wire.segment(*RECORDS))
    report = jobs.run(ready, out)
    assert jobs.outcomes(report) == {"a.ndjson": "failed", "b.ndjson": "done"}
    (reason,) = report.segments.filter(outcome="failed")["reason"]
    assert "a.ndjson is not a recording: none of its lines" in reason
    assert "it appears to be a time before the JSON" in reason
    assert jobs.leftovers(ready, out) == []
    assert not list(out.rglob("*a.*"))
