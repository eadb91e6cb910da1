"""Recordings in which time passes: frames of `wire`, each received at a second of one morning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import wire

BEGIN = datetime(2026, 3, 4, 5, 0, tzinfo=UTC)
LATENCY = timedelta(milliseconds=5)


def moment(second: float) -> datetime:
    """Give the instant so many seconds after the beginning."""
    return BEGIN + timedelta(seconds=second)


def text(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}Z"


def received(frame: wire.Json, second: float) -> bytes:
    """Write a frame as the recorder does, received at this second and sent shortly before."""
    sent = text(moment(second) - LATENCY)
    time = "time" if "time" in frame else "timestamp"
    return wire.record(frame | {time: sent}, text(moment(second)))


def write(folder: Path, number: int, *lines: bytes) -> Path:
    """Write a segment; the order of the numbers is that of the names."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"segment_20260304T05_{number:05d}.ndjson"
    path.write_bytes(wire.segment(*lines))
    return path


def changes(first: int, last: int, second: float | None = None, product_id: str = "BTC-USD") -> list[bytes]:
    """Give frames with one new bid each, of these numbers, a second apart; by default at its own number."""
    start = first if second is None else second
    return [
        received(wire.change(n, product_id, price=str(50 + n % 40)), start + n - first)
        for n in range(first, last + 1)
    ]
