"""Lines that are not understood are kept, byte for byte, with their place and the reason."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import wire

import cbtools as cb
from cbtools.run.quarantine import FOLDER, Quarantine
from cbtools.schema import schema

NO_UTF8 = b'{"channel":"\xff\xfe","sequence_num":3}'
BAD = (b"not JSON at all", NO_UTF8, b"\x00\x00\x00", '{"ü": "€'.encode(), b'{"quoted": "\\"', b"\ttabs\t")


def rejects(*raw: bytes, line: int = 1) -> pl.DataFrame:
    rows = [(line + i, 100 * i, len(text), None, f"not JSON: {i}", text) for i, text in enumerate(raw)]
    return pl.DataFrame(rows, schema=schema("rejects"), orient="row")


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_rows(path: Path) -> list[tuple[int, int, int, str, bytes]]:
    """Read a quarantine back as the rows of the table of rejects."""
    return [
        (
            one["line"],
            one["byte_offset"],
            one["size"],
            one["reason"],
            one["raw"].encode() if "raw" in one else base64.b64decode(one["raw_base64"], validate=True),
        )
        for one in kept(path)
    ]


def everything(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


# --- through run_segment


@pytest.fixture
def segment(tmp_path) -> Path:
    """Good frames with bad lines between them."""
    path = tmp_path / "segment_20260304T05_00001.ndjson"
    good = [wire.record(wire.snapshot(0)), *(wire.record(wire.change(n)) for n in range(1, len(BAD) + 1))]
    path.write_bytes(
        wire.segment(*(line for pair in zip(good, (*BAD, good[0][:-9]), strict=True) for line in pair))
    )
    return path


def test_it_holds_the_rejects(segment, tmp_path):
    report = cb.run_segment(segment, tmp_path / "out")
    tables = cb.read_raw(segment)
    assert report.quarantine == tmp_path / "out" / FOLDER / f"{segment.stem}.ndjson"
    assert as_rows(report.quarantine) == tables.rejects.drop("stream").rows()
    assert tables.rejects.height == len(BAD) + 1 == report.raw.rejected
    assert str(report.quarantine) in str(report)


def test_the_bytes_are_those_of_the_segment_at_the_place_told(segment, tmp_path):
    raw = segment.read_bytes()
    lines = raw.split(b"\n")
    report = cb.run_segment(segment, tmp_path / "out")
    for line, byte_offset, size, reason, text in as_rows(report.quarantine):
        assert lines[line - 1] == text
        assert size == len(text)
        assert raw[byte_offset : byte_offset + len(text)] == text
        assert reason


def test_bytes_that_are_no_utf_8_are_kept_as_base64(segment, tmp_path):
    found = kept(cb.run_segment(segment, tmp_path / "out").quarantine)
    (odd,) = (one for one in found if "raw_base64" in one)
    assert "raw" not in odd
    assert base64.b64decode(odd["raw_base64"]) == NO_UTF8
    assert sum("raw" in one for one in found) == len(BAD)


@pytest.mark.parametrize("chunk_bytes", [1, 300, 1 << 20])
def test_pieces_of_any_size_give_the_same_file(segment, tmp_path, chunk_bytes):
    whole = cb.run_segment(segment, tmp_path / "whole").quarantine
    pieces = cb.run_segment(segment, tmp_path / "pieces", chunk_bytes=chunk_bytes).quarantine
    assert pieces.read_bytes() == whole.read_bytes()


def test_running_again_gives_the_same_file(segment, tmp_path):
    first = cb.run_segment(segment, tmp_path / "out").quarantine.read_bytes()
    there = everything(tmp_path / "out")
    assert cb.run_segment(segment, tmp_path / "out").quarantine.read_bytes() == first
    assert everything(tmp_path / "out") == there


def test_a_segment_without_rejects_has_none(segment, tmp_path):
    segment.write_bytes(wire.segment(wire.record(wire.snapshot(0))))
    report = cb.run_segment(segment, tmp_path / "out")
    assert report.quarantine is None
    assert dict(report.items())["quarantine"] == "none"
    assert FOLDER not in everything(tmp_path / "out")


def test_a_repaired_segment_s_is_removed_and_no_other(segment, tmp_path):
    other = segment.with_name("segment_20260304T05_00002.ndjson")
    other.write_bytes(segment.read_bytes())
    old = cb.run_segment(segment, tmp_path / "out").quarantine
    beside = cb.run_segment(other, tmp_path / "out").quarantine
    before = beside.read_bytes()
    segment.write_bytes(wire.segment(wire.record(wire.snapshot(0))))
    assert cb.run_segment(segment, tmp_path / "out").quarantine is None
    assert not old.exists()
    assert beside.read_bytes() == before


def test_all_of_a_segment_may_be_rejected(tmp_path):
    segment = tmp_path / "notes.ndjson"
    bad = [*BAD, wire.line(wire.ticker(0, price="?"))]  # a frame, though not understood
    segment.write_bytes(b"\n".join(bad))
    report = cb.run_segment(segment, tmp_path / "out")
    assert [row[4] for row in as_rows(report.quarantine)] == bad
    assert report.rows == {"level2": 0, "market_trades": 0, "ticker": 0, "book": 0}
    assert everything(tmp_path / "out") == [
        FOLDER, f"{FOLDER}/notes.ndjson", "_state", "_state/notes.parquet",
    ]  # fmt: skip


# --- alone


def test_nothing_is_seen_before_it_is_published(tmp_path):
    with Quarantine(tmp_path, "s") as quarantine:
        quarantine.write(rejects(b"one"))
        assert list((tmp_path / FOLDER).glob("[!.]*")) == []
        quarantine.write(rejects(b"two", line=2))
        path = quarantine.hand_over().publish()
    assert [row[4] for row in as_rows(path)] == [b"one", b"two"]
    assert everything(tmp_path) == [FOLDER, f"{FOLDER}/s.ndjson"]


def write_and_fail(root: Path) -> None:
    with Quarantine(root, "s") as quarantine:
        quarantine.write(rejects(b"two"))
        raise RuntimeError


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path)
    assert everything(tmp_path) == []


def test_an_exception_leaves_what_was_there(tmp_path):
    with Quarantine(tmp_path, "s") as quarantine:
        quarantine.write(rejects(b"one"))
        path = quarantine.hand_over().publish()
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path)
    assert path.read_bytes() == before
    assert everything(tmp_path) == [FOLDER, f"{FOLDER}/s.ndjson"]


def test_without_rows_there_is_no_file(tmp_path):
    with Quarantine(tmp_path, "s") as quarantine:
        quarantine.write(rejects())
        assert quarantine.hand_over().publish() is None
    assert everything(tmp_path) == []
