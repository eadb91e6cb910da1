"""Which files a source names, and their bytes in pieces."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cbtools as cb
from cbtools.raw.files import PADDING, find_segments, read_pieces, segment_name

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
    assert tables[0].report.rejects["damaged file"] == 1


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
