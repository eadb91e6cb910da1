"""Compressed files made by hand: members of gzip and frames of zstd, with all that their formats allow."""

from __future__ import annotations

import struct
import zlib

import pyarrow as pa

SKIPPED = b"\x53\x2a\x4d\x18\x04\0\0\0size"
"""A skippable frame, as pzstd writes one before each frame."""

_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_ALL = (1 << 64) - 1


def member(text: bytes, *, extra: bytes = b"", name: bytes = b"", header_check: bool = False) -> bytes:
    """Write a member of gzip."""
    flags = bool(extra) * 4 | bool(name) * 8 | header_check * 2
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\0\x03"
    if extra:
        header += struct.pack("<H", len(extra)) + extra
    if name:
        header += name + b"\0"
    if header_check:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = deflate.compress(text) + deflate.flush()
    return header + packed + struct.pack("<II", zlib.crc32(text), len(text) & 0xFFFFFFFF)


def frame(*blocks: bytes, checksum: bool = True, size: bool = False) -> bytes:
    """Write a frame of zstd, each of these texts in blocks of its own; with their ``size``, in one."""
    text = b"".join(blocks)
    if size:
        packed = pa.Codec("zstd").compress(text, asbytes=True)
    else:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            for block in blocks:
                stream.write(block)
                stream.flush()
        packed = sink.getvalue().to_pybytes()
    if not checksum:
        return packed
    return packed[:4] + bytes([packed[4] | 4]) + packed[5:] + struct.pack("<Q", xxh64(text))[:4]


def raw_frame(*blocks: bytes) -> bytes:
    """Write a frame of zstd whose blocks are the text itself."""
    packed = b"\x28\xb5\x2f\xfd\0\x48"
    for k, block in enumerate(blocks):
        packed += (len(block) << 3 | (k == len(blocks) - 1)).to_bytes(3, "little") + block
    return packed


def xxh64(data: bytes) -> int:
    """Compute the checksum of zstd's frames: XXH64 with the seed 0."""
    rest, total = data, _P5
    if len(data) >= 32:
        lanes = [(_P1 + _P2) & _ALL, _P2, 0, -_P1 & _ALL]
        whole = len(data) // 32 * 32
        for values in struct.iter_unpack("<4Q", data[:whole]):
            lanes = [_round(lane, value) for lane, value in zip(lanes, values, strict=True)]
        total = sum(_turned(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _ALL
        for lane in lanes:
            total = ((total ^ _round(0, lane)) * _P1 + _P4) & _ALL
        rest = data[whole:]
    total = (total + len(data)) & _ALL
    while len(rest) >= 8:
        total = (_turned(total ^ _round(0, struct.unpack("<Q", rest[:8])[0]), 27) * _P1 + _P4) & _ALL
        rest = rest[8:]
    if len(rest) >= 4:
        total = (_turned(total ^ struct.unpack("<I", rest[:4])[0] * _P1 & _ALL, 23) * _P2 + _P3) & _ALL
        rest = rest[4:]
    for byte in rest:
        total = _turned(total ^ byte * _P5 & _ALL, 11) * _P1 & _ALL
    total = (total ^ total >> 33) * _P2 & _ALL
    total = (total ^ total >> 29) * _P3 & _ALL
    return total ^ total >> 32


def _round(lane: int, value: int) -> int:
    return _turned((lane + value * _P2) & _ALL, 31) * _P1 & _ALL


def _turned(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _ALL
