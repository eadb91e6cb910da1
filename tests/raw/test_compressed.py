"""Compressed files: every form that the formats allow, and all that the bytes of damaged ones yield."""

from __future__ import annotations

import gzip
import io

import packed
import pytest
import tiers
import wire
from hypothesis import given
from hypothesis import strategies as st

import cbtools as cb
from cbtools.raw.compressed import Unpacked, codec_of
from cbtools.raw.files import read_pieces

LINES = [b'{"type":"error","message":"%d"}\n' % (k * 7919 % 100_003) for k in range(600)]
TEXT = b"".join(LINES)
THIRDS = [b"".join(LINES[k : k + 200]) for k in (0, 200, 400)]
PACKS = {"gzip": packed.member, "zstd": packed.frame}
CODECS = pytest.mark.parametrize("codec", PACKS)


def parts_of(file: bytes) -> list[bytes | str]:
    """Return a file's text, with what is said of damage between."""
    unpacked, found, buffer = Unpacked(io.BytesIO(file), codec_of(file[:4])), [b""], bytearray(1000)
    while True:
        read = unpacked.readinto(memoryview(buffer))
        if read:
            found[-1] += bytes(buffer[:read])
        elif unpacked.damage:
            found += [unpacked.damage, b""]
        else:
            return found


def flipped(file: bytes, place: int, bits: int = 0xFF) -> bytes:
    place %= len(file)
    return file[:place] + bytes([file[place] ^ bits]) + file[place + 1 :]


# --- intact files


GZIP = {
    "one member": packed.member(TEXT),
    "several members": b"".join(map(packed.member, THIRDS)),
    "zeros behind": packed.member(TEXT) + bytes(100_000),
    "zeros between": b"".join(packed.member(text) + bytes(k) for k, text in enumerate(THIRDS)),
    "empty members": packed.member(b"") + packed.member(TEXT) + packed.member(b""),
    "all of a header": packed.member(TEXT, extra=b"extra\0", name=b"a\x1f\x8b\x08", header_check=True),
    "of the standard library": gzip.compress(TEXT),
    "no compression": gzip.compress(TEXT, 0),
}
ZSTD = {
    "one frame": packed.frame(TEXT),
    "no checksum": packed.frame(TEXT, checksum=False),
    "with its size": packed.frame(TEXT, size=True),
    "blocks": packed.frame(*THIRDS),
    "raw blocks": packed.raw_frame(*THIRDS),
    "several frames": b"".join(map(packed.frame, THIRDS)),
    "skippable frames": packed.SKIPPED + b"".join(packed.frame(text) + packed.SKIPPED for text in THIRDS),
    "a skippable frame of magic": b"\x5f\x2a\x4d\x18\x04\0\0\0\x28\xb5\x2f\xfd" + packed.frame(TEXT),
    "zeros behind": packed.frame(TEXT) + bytes(100_000),
    "zeros between": b"".join(packed.frame(text) + bytes(k) for k, text in enumerate(THIRDS)),
    "empty frames": packed.frame() + packed.frame(TEXT) + packed.frame(),
}


@pytest.mark.parametrize("file", [*GZIP.values(), *ZSTD.values()], ids=[*GZIP, *ZSTD])
def test_all_text_of_an_intact_file_is_read(file):
    assert parts_of(file) == [TEXT]


@CODECS
def test_a_file_that_swells_is_read_in_steps(codec):
    """Or a few bytes could fill the memory."""
    file = gzip.compress(bytes(1 << 26)) if codec == "gzip" else packed.frame(bytes(1 << 26), checksum=False)
    unpacked, buffer = Unpacked(io.BytesIO(file), codec), bytearray(1 << 25)
    assert 0 < unpacked.readinto(memoryview(buffer)) <= 1 << 18


@pytest.mark.parametrize(
    ("start", "codec"),
    [
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x50\x2a\x4d\x18", "zstd"),
        (b"\x5f\x2a\x4d\x18", "zstd"),
        (b"\x60\x2a\x4d\x18", ""),
        (b'{"ch', ""),
        (b"", ""),
    ],
)
def test_a_codec_is_known_by_the_first_bytes(start, codec):
    assert codec_of(start) == codec


@st.composite
def files(draw):
    """Build a file of lines, in parts that are cut anywhere, with padding and skippable frames; its text."""
    codec = draw(st.sampled_from(sorted(PACKS)))
    filler = st.integers(0, 50).map(bytes)
    if codec == "zstd":
        filler |= st.binary(max_size=20).map(lambda b: b"\x57\x2a\x4d\x18%c\0\0\0" % len(b) + b)
    cuts = sorted(draw(st.lists(st.integers(0, len(TEXT)), max_size=5)))
    file = draw(st.sampled_from([b"", packed.SKIPPED])) if codec == "zstd" else b""
    for start, end in zip([0, *cuts], [*cuts, len(TEXT)], strict=True):
        file += PACKS[codec](TEXT[start:end]) + draw(filler)
    return file


@tiers.examples(60)
@given(files())
def test_parts_and_padding_do_not_change_the_text(file):
    assert parts_of(file) == [TEXT]


# --- damaged files


@CODECS
def test_a_wrong_checksum_loses_no_line(tmp_path, codec):
    path = tmp_path / "x.ndjson"
    path.write_bytes(flipped(PACKS[codec](TEXT), -8 if codec == "gzip" else -1))
    tables = cb.read_raw(path)
    assert tables.errors.height == len(LINES)
    (reject,) = tables.rejects.iter_rows(named=True)
    assert reject["reason"].startswith(f"damaged file: wrong checksum of a {codec} ")
    assert reject["reason"].endswith("; its text was read to the end")
    assert (reject["byte_offset"], reject["size"], reject["raw"]) == (len(TEXT), 0, b"")


def test_a_size_that_is_not_the_text_s_loses_no_line():
    whole = packed.frame(TEXT, size=True, checksum=False)
    for file in (flipped(whole, 5, 1), flipped(packed.member(TEXT), -1)):
        text, damage, rest = parts_of(file)
        assert (text, rest) == (TEXT, b"")
        assert damage.endswith("its text was read to the end")


@CODECS
def test_a_part_that_is_cut_off_is_read_as_far_as_it_goes(codec):
    """Wherever it is cut: only the block of zstd in which that is cannot be read."""
    blocks = THIRDS if codec == "zstd" else [TEXT]
    file, before = PACKS[codec](*blocks), 0
    for end in range(4, len(file)):
        found = parts_of(file[:end])
        assert len(found) == 3 or end < 10
        assert TEXT.startswith(found[0])
        assert len(found[0]) >= before
        assert "cut off" in found[1] or found[1].startswith("no gzip member begins")
        before = len(found[0])
    assert before == len(TEXT)


def test_of_a_raw_block_that_is_cut_off_the_rest_is_read():
    text, damage, _ = parts_of(packed.raw_frame(*THIRDS)[:-5000])
    assert text == TEXT[:-5000]
    assert damage.startswith("a zstd frame is cut off")


@CODECS
def test_damage_in_one_part_costs_none_of_the_others(codec):
    parts = [PACKS[codec](text) for text in THIRDS]
    file = b"".join([parts[0], flipped(parts[1], len(parts[1]) // 2, 0x55), parts[2]])
    found = parts_of(file)
    assert len(found) == 3
    assert found[0].startswith(THIRDS[0])
    assert found[2] == THIRDS[2]


def test_damage_of_a_block_costs_none_before_it():
    parts = [packed.frame(text) for text in THIRDS]
    start = packed.frame(*THIRDS[:2], checksum=False)
    end = len(packed.frame(THIRDS[0], checksum=False)) - 3  # without the empty block at its end
    text, damage, rest = parts_of(start[:end] + b"\xff" * 9 + start[end + 9 :] + parts[2])
    assert text == THIRDS[0]
    assert rest == THIRDS[2]
    lost = f"(byte {end:,} of the file); {len(start) - end:,} compressed bytes could not be read"
    assert damage == f"a zstd block of a kind or size that there is not {lost}"


@CODECS
@pytest.mark.parametrize(
    "garbage", [b"garbage", b"\0\0\0garbage", b"\x1f\x8b\x08\0" * 3, b"\x28\xb5\x2f\xfd" * 3]
)
def test_what_is_no_part_is_said_and_left_out(codec, garbage):
    part = PACKS[codec](TEXT)
    for behind in (b"", part, bytes(9) + part):
        found = parts_of(part + garbage + behind)
        assert b"".join(found[::2]) == TEXT * (2 if behind else 1)
        assert all(found[1::2])
        assert len(found) >= 3


@CODECS
def test_text_before_damage_and_text_behind_it_are_not_one_line(tmp_path, codec):
    """Here the two would make a line that nobody wrote."""
    line = wire.record(wire.error("rate limit"))
    first = packed.raw_frame(line[:50]) if codec == "zstd" else gzip.compress(line[:50], 0)
    first = first[:-1] if codec == "zstd" else first[:-9]
    path = tmp_path / "x.ndjson"
    path.write_bytes(first + PACKS[codec](line[49:] + b"\n" + line + b"\n"))
    for chunk in (1 << 20, 8):
        tables = cb.read_raw(path, chunk_bytes=chunk)
        assert tables.errors["line"].to_list() == [3]
        cut, damaged, rest = tables.rejects["raw"]
        assert (cut[:49], damaged, rest) == (line[:49], b"", line[49:])
        assert tables.rejects["line"].to_list() == [1, 2, 2]
        assert tables.rejects["byte_offset"].to_list() == [0, 50, 50]


@CODECS
@pytest.mark.parametrize("piece_bytes", [1, 77, 5000])
def test_the_size_of_pieces_changes_nothing_that_is_read_of_a_damaged_file(tmp_path, codec, piece_bytes):
    parts = [PACKS[codec](text) for text in THIRDS]
    path = tmp_path / "x.ndjson"
    path.write_bytes(b"noise".join([*parts, flipped(parts[0], len(parts[0]) // 2), parts[1][:-20]]))

    def read(size):
        lines, damages = [], []
        for piece in read_pieces(path, size):
            raw = bytes(piece.buffer[: piece.size])
            lines += raw.splitlines(keepends=True)
            if piece.damage:
                damages.append((len(lines), piece.offset + piece.size, piece.damage))
        assert piece.last
        return lines, damages

    whole = read(1 << 20)
    assert len(whole[1]) >= 4
    assert read(piece_bytes) == whole


def test_a_wrong_checksum_behind_a_damaged_frame_is_found():
    first = packed.frame(*THIRDS)
    found = parts_of(first[:-20] + flipped(packed.frame(LINES[0]), -1) + packed.frame(LINES[1]))
    assert found[2] == LINES[0]
    assert found[3].startswith("wrong checksum")
    assert found[4] == LINES[1]


@CODECS
def test_a_file_without_text_before_its_damage_is_one_segment(tmp_path, codec):
    part = PACKS[codec](TEXT)
    path = tmp_path / "x.ndjson"
    path.write_bytes((flipped(part, 2) if codec == "gzip" else part[:9]) + part)
    tables = cb.read_raw(path, segment=True)
    assert tables.report.segments == ("x",)
    assert tables.errors["line"].to_list() == list(range(1, len(LINES) + 1))
    assert list(tables.report.damages) == ["x"]
    assert tables.report.rejects == {}


@CODECS
def test_trouble_with_the_file_is_not_taken_for_damage(codec):
    class Broken(io.BytesIO):
        def read(self, n=-1, /):
            if self.tell():
                raise OSError(5, "the disk is on fire")
            return super().read(min(n, 1000))

    unpacked = Unpacked(Broken(PACKS[codec](TEXT)), codec)
    with pytest.raises(OSError, match="on fire"):
        any(unpacked.readinto(memoryview(bytearray(1000))) == 0 for _ in TEXT)


@tiers.examples(120)
@given(data=st.data())
def test_whatever_is_wrong_with_one_part_the_others_are_read(data):
    """A bit is flipped, or the file is cut off: never a crash, and nothing that is wrong goes unsaid."""
    codec = data.draw(st.sampled_from(sorted(PACKS)))
    n = data.draw(st.integers(1, 6))
    texts = [b"".join(LINES[k * 600 // n : (k + 1) * 600 // n]) for k in range(n)]
    parts = [PACKS[codec](text) for text in texts]
    file = b"".join(parts)
    place = data.draw(st.integers(4, len(file) - 1))
    hit = next(k for k in range(n) if place < sum(map(len, parts[: k + 1])))
    before, behind = b"".join(texts[:hit]), b"".join(texts[hit + 1 :])
    if data.draw(st.booleans()):
        found = parts_of(file[:place])
        assert TEXT.startswith(b"".join(found[::2]))
        assert b"".join(found[::2]).startswith(before)
        assert len(found) == 3 or place == sum(map(len, parts[:hit]))
    else:
        found = parts_of(flipped(file, place, 1 << data.draw(st.integers(0, 7))))
        assert b"".join(found[::2]).startswith(before)
        assert b"".join(found[::2]).endswith(behind)
        assert found == [TEXT] or len(found) > 1
