"""Which files a source names, and their bytes in pieces."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import laws
import polars as pl
import pyarrow as pa
import pytest
import tiers
import wire
from hypothesis import given
from hypothesis import strategies as st
from oracles import raw

import cbtools as cb
from cbtools.raw.files import PADDING, find_segments, read_pieces, segment_name
from cbtools.schema import RAW

LINE = b'{"type":"error","message":"%d"}\n'


@pytest.fixture
def folder(tmp_path):
    for name in ("segment_b.ndjson", "segment_a.ndjson.gz", "segment_c.ndjson.zst", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "segment_d.ndjson").write_bytes(b"")
    return tmp_path


def names(source):
    return [path.name for path in find_segments(source)]


def test_a_folder_is_its_segments_by_name(folder):
    assert names(folder) == ["segment_a.ndjson.gz", "segment_b.ndjson", "segment_c.ndjson.zst"]


def test_a_pattern_is_its_files_by_name(folder):
    assert names(f"{folder}/*.ndjson*") == ["segment_a.ndjson.gz", "segment_b.ndjson", "segment_c.ndjson.zst"]
    assert names(f"{folder}/**/*_d.ndjson") == ["segment_d.ndjson"]


def test_a_list_keeps_its_order(folder):
    assert names([folder / "segment_b.ndjson", str(folder / "notes.txt")]) == [
        "segment_b.ndjson",
        "notes.txt",
    ]


@pytest.mark.parametrize("source", ["nothing.ndjson", "*.nothing", []])
def test_a_source_of_no_file_is_an_error(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cb.SegmentError, match="no s"):
        find_segments(source)


def test_a_folder_without_segments_says_what_it_looks_for(tmp_path):
    with pytest.raises(cb.SegmentError, match=r"\.ndjson\.zst"):
        find_segments(tmp_path)


def test_a_folder_cannot_be_read_as_a_file(folder):
    with pytest.raises(cb.SegmentError, match="cannot read"):
        list(read_pieces(folder / "deeper", 100))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a/b/x.ndjson", "x"),
        ("x.ndjson.gz", "x"),
        ("x.ndjson.zst", "x"),
        ("x.json", "x.json"),
        ("x.y.ndjson", "x.y"),
    ],
)
def test_a_segment_is_named_by_its_file(file, name):
    assert segment_name(Path(file)) == name


@given(content=st.binary(max_size=400).map(lambda b: b"{" + b), size=st.integers(1, 120))
def test_pieces_are_the_file_cut_at_newlines(tmp_path_factory, content, size):
    path = tmp_path_factory.mktemp("pieces") / "x.ndjson"
    path.write_bytes(content)
    found = b""
    for piece in read_pieces(path, size):
        assert piece.offset == len(found)
        assert not piece.damage
        body = bytes(piece.buffer[: piece.size])
        assert bytes(piece.buffer[piece.size : piece.size + PADDING]) == b"\n" * PADDING
        assert piece.last or body.endswith(b"\n")
        found += body
    assert found == content


def test_compression_is_told_by_the_bytes_not_by_the_name(tmp_path):
    lines = b"".join(LINE % k for k in range(5000))
    for name, content in (("a.ndjson", gzip.compress(lines)), ("b.ndjson.gz", lines)):
        (tmp_path / name).write_bytes(content)
        assert cb.read_raw(tmp_path / name).errors.height == 5000


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path, codec):
    """What was lost is said: as a reject behind the last line, and nothing before it is missing."""
    lines = b"".join(LINE % (k * 7919 % 100_003) for k in range(20_000))
    packed = gzip.compress(lines) if codec == "gzip" else pa.Codec("zstd").compress(lines, asbytes=True)
    path = tmp_path / "x.ndjson"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    tables = [cb.read_raw(path, chunk_bytes=chunk) for chunk in (64 << 20, 50_000)]
    assert tables[0].errors.equals(tables[1].errors)
    assert tables[0].rejects.equals(tables[1].rejects)
    errors, rejects = tables[0].errors, tables[0].rejects
    assert 5_000 < errors.height < 20_000
    assert errors["message"].to_list() == [str(k * 7919 % 100_003) for k in range(errors.height)]
    assert rejects["reason"][-1].startswith("damaged file: ")
    assert rejects["line"][-1] == tables[0].report.lines + 1
    (damage,) = tables[0].report.damages.values()
    assert rejects["reason"][-1] == f"damaged file: {damage}"
    assert ("damaged file", f"{tables[0].report.segments[0]}: {damage}") in tables[0].report.items()


def test_a_damaged_file_breaks_the_runs(tmp_path):
    """What a damaged file lost cannot be known: the next file's books are not proven by what went before."""
    first, second = tmp_path / "a.ndjson", tmp_path / "b.ndjson"
    update = (
        b'{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1","2"]],'
        b'"time":"2026-01-01T00:00:0%d.000000Z"}\n'
    )
    packed = gzip.compress(update % 1 * 3_000)
    second.write_bytes(update % 2)
    for content, runs in ((packed, 1), (packed[:-30], 2)):
        first.write_bytes(content)
        assert cb.read_raw([first, second]).level2["unbroken_since"].n_unique() == runs


# --- lines that are too long


LIMIT = 300 / 2**20


def told_of(path, piece_bytes, max_line_mb):
    """Return a segment's lines, each with its place, its length, what is kept and the fault; and its size."""
    lines, end = [], 0
    for piece in read_pieces(path, piece_bytes, None, None, max_line_mb):
        assert piece.offset == end
        assert bytes(piece.buffer[piece.size : piece.size + PADDING]) == b"\n" * PADDING
        text = bytes(piece.buffer[: piece.size])
        end += piece.size + piece.left_out
        place = piece.offset
        for line in text.removesuffix(b"\n").split(b"\n") if text else ():
            lines.append((place, len(line) + piece.left_out, line, piece.fault))
            place += len(line) + 1
        assert not piece.fault or text.count(b"\n") <= 1
    assert piece.last
    return lines, end


@tiers.examples(100)
@given(
    lengths=st.lists(st.integers(0, 400) | st.sampled_from([299, 300, 301, 4096, 4097, 20_000]), max_size=8),
    ended=st.booleans(),
    piece_bytes=st.integers(1, 1000) | st.just(1 << 20),
)
def test_lines_over_the_limit_are_pieces_of_their_own(tmp_path_factory, lengths, ended, piece_bytes):
    path = tmp_path_factory.mktemp("long") / "x.ndjson"
    raw = [bytes([97 + k]) * length for k, length in enumerate(lengths)]
    content = b"\n".join(raw) + b"\n" * ended if raw else b""
    path.write_bytes(content)
    raw = content.removesuffix(b"\n").split(b"\n") if content else []
    lines, end = told_of(path, piece_bytes, LIMIT)
    assert end == len(content)
    places = [sum(len(one) + 1 for one in raw[:k]) for k in range(len(raw))]
    assert [line[:2] for line in lines] == list(zip(places, map(len, raw), strict=True))
    for one, (_, length, kept, fault) in zip(raw, lines, strict=True):
        assert kept == (one[:4096] if length > 300 else one)
        assert fault == (f"line too long: {length:,} bytes, more than {SAID}" if length > 300 else "")


SAID = f"max_line_mb={LIMIT:g}"


@pytest.mark.parametrize("chunk_bytes", [40, 10_000, 64 << 20])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_line_that_is_too_long_is_rejected_by_its_size_and_its_beginning(tmp_path, chunk_bytes, pack):
    frames = [wire.snapshot(0), wire.change(1), wire.change(2), wire.change(3)]
    lines = [wire.record(frame) for frame in frames]
    lines[2] = lines[2][:-1] + b" " * 9_000 + b"}"
    lines.insert(3, b"x" * 1_001)
    path = tmp_path / "x.ndjson"
    path.write_bytes(pack(wire.segment(*lines)))
    tables = cb.read_raw(path, chunk_bytes=chunk_bytes, max_line_mb=1_000 / 2**20)
    reasons = [
        f"line too long: {len(lines[k]):,} bytes, more than max_line_mb={1_000 / 2**20:g}" for k in (2, 3)
    ]
    offsets = [sum(len(line) + 1 for line in lines[:k]) for k in (2, 3)]
    assert tables.rejects.drop("stream").rows() == [
        (3, offsets[0], len(lines[2]), reasons[0], lines[2][:4096]),
        (4, offsets[1], 1_001, reasons[1], lines[3]),
    ]
    assert tables.report.raw_bytes == sum(map(len, lines)) + 5
    assert (tables.report.lines, tables.report.frames, tables.report.gaps) == (5, 3, 0)
    assert tables.report.rejects == {"line too long": 2}
    changes = tables.level2.filter(pl.col("side").is_not_null())
    assert changes["line"].unique().to_list() == [1, 2, 5]
    assert changes["unbroken_since"].n_unique() == 2  # what the long line said of the book is not known
    whole = cb.read_raw(path)
    assert whole.report.frames == 4
    assert whole.rejects.select("line", "size").rows() == [(4, 1_001)]


PAD = {"foo": "x" * 5_000}
LONG = {
    "level2": wire.record(wire.change(3, "ETH-USD") | PAD),
    "level2, blanks behind": wire.record(wire.change(3, "ETH-USD"))[:-1] + b" " * 5_000 + b"}",
    "level2, all there": wire.record(wire.change(3, "ETH-USD")) + b" " * 5_000,
    "a ticker": wire.record(wire.ticker(3) | PAD),
    "the padding first": wire.record(PAD | wire.change(3)),
    "of the other feed": wire.record(wire.exchange_update(["buy", "1", "2"]) | PAD),
    "no JSON": b"x" * 5_000,
}


@pytest.mark.parametrize("long", LONG.values(), ids=LONG)
@pytest.mark.parametrize("chunk_bytes", [50, 1 << 20])
def test_of_a_line_that_is_too_long_the_usual_header_is_known(tmp_path, long, chunk_bytes):
    path = tmp_path / "x.ndjson"
    frames = [wire.snapshot(0), wire.snapshot(1, "ETH-USD"), wire.change(2)]
    behind = [wire.change(4), wire.change(5, "ETH-USD")]
    lines = [*map(wire.record, frames), long, *map(wire.record, behind)]
    path.write_bytes(wire.segment(*lines))
    got = cb.read_raw(path, chunk_bytes=chunk_bytes, max_line_mb=4_500 / 2**20)
    expected = raw.decode([path.read_bytes()], longest_line=4_500)
    assert got.rejects.height == 1
    for table in RAW:
        laws.same_table(table, getattr(got, table), expected.rows[table])


def test_a_damaged_file_may_end_in_a_line_that_is_too_long(tmp_path):
    path = tmp_path / "x.ndjson.gz"
    path.write_bytes(gzip.compress(LINE % 1 + b"y" * 50_000, 0)[:-9_000])
    for chunk in (10, 1 << 20):
        rejects = cb.read_raw(path, chunk_bytes=chunk, max_line_mb=LIMIT).rejects
        assert [reason.split(":")[0] for reason in rejects["reason"]] == ["line too long", "damaged file"]
        long, damage = rejects.select("line", "byte_offset", "size").rows()
        assert long[:2] == (2, len(LINE % 1))
        assert 40_000 < long[2] < 42_000
        assert damage == (3, sum(long[1:]), 0)


@pytest.mark.parametrize("value", [0, -1, "256", True, None, float("nan"), float("inf")])
def test_a_longest_line_that_is_none_is_refused(tmp_path, value):
    path = tmp_path / "ready" / "x.ndjson"
    path.parent.mkdir()
    path.write_bytes(LINE % 1)
    out = tmp_path / "out"
    for call in (
        lambda: cb.read_raw(path, max_line_mb=value),
        lambda: cb.scan_raw(path, "errors", max_line_mb=value),
        lambda: cb.inspect_raw(path, max_line_mb=value),
        lambda: cb.run_segment(path, out, max_line_mb=value),
        lambda: cb.run_job(path.parent, out, max_line_mb=value, progress=False),
        lambda: cb.watch_job(path.parent, out, max_line_mb=value),
    ):
        with pytest.raises(cb.ConfigError, match="max_line_mb must be a number of MiB above 0"):
            call()
    assert not out.exists()


def test_what_writes_passes_the_longest_line_on(tmp_path):
    path = tmp_path / "ready" / "x.ndjson"
    path.parent.mkdir()
    path.write_bytes(wire.segment(wire.record(wire.snapshot(0)), b"x" * 10_000))
    report = cb.run_segment(path, tmp_path / "one", max_line_mb=0.005)
    (one,) = map(json.loads, report.quarantine.read_text().splitlines())
    assert (one["line"], one["size"], one["raw"]) == (2, 10_000, "x" * 4096)
    assert one["reason"] == "line too long: 10,000 bytes, more than max_line_mb=0.005"
    job = cb.run_job(path.parent, tmp_path / "job", max_line_mb=0.005, progress=False)
    assert job.quarantine["reason"].to_list() == ["line too long"]
    frames = cb.scan_raw(tmp_path / "**" / "x.ndjson", "level2", max_line_mb=1e-6)
    assert frames.collect().is_empty()
    assert cb.inspect_raw(tmp_path / "**" / "x.ndjson", max_line_mb=1e-6).raw.frames == 0


# not ru_maxrss: that of a child begins with what its parent had, and a test's process may have more
PEAK = """
import re, sys
import cbtools as cb
tables = cb.read_raw(sys.argv[1])
assert tables.rejects["size"].to_list() == [1 << 30]
print(int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1]) >> 10)
"""


@pytest.mark.ci
def test_a_line_of_a_gigabyte_is_never_in_memory(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux says how much memory a process had at most")
    path = tmp_path / "x.ndjson.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        for _ in range(1 << 10):
            stream.write(b"a" * (1 << 20))
    assert path.stat().st_size < 40_000
    short = tmp_path / "short.ndjson"
    short.write_bytes(b"a" * 9_999)
    assert (
        cb.read_raw(short, max_line_mb=0.001).rejects.height == 1
    )  # so that nothing has to be compiled there
    command = [sys.executable, "-c", PEAK, str(path)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < 700, f"{peak} MB"
