"""The recorder: numbers and wraps frames, loses or spoils a few on request, and writes segments."""

from __future__ import annotations

import gzip
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cbtools._simulate.draws import Draws
from cbtools._simulate.wire import Frame, capture_text, nanosecond_text

Compression = Literal["gzip", "zstd"]
FaultKind = Literal["gap", "cut", "glued", "nul", "utf8", "duplicate"]
BAD_LINES: Final[tuple[FaultKind, ...]] = ("cut", "glued", "nul", "utf8")
SUFFIXES: Final = {None: "", "gzip": ".gz", "zstd": ".zst"}

_CALM = 3  # sound frames before the next fault, so that each can be told from the others
_TruthRow = tuple[int, int, str, float, float, float, float]


@dataclass(frozen=True)
class Fault:
    """A fault that was put into a recording.

    ``kind`` is ``gap`` (frames never written), ``cut``, ``glued`` (a cut line run into the next), ``nul``,
    ``utf8`` (bytes that are not UTF-8) or ``duplicate`` (a line written twice). ``sequence_num`` is of the
    first frame concerned and ``frames`` the number of frames lost by it. ``segment`` (its
    name without endings) and ``line`` (from 1) tell where: the spoiled line, the repetition, or the first
    line after a gap.
    """

    kind: FaultKind
    connection: int
    sequence_num: int
    frames: int
    segment: str
    line: int


class Segments:
    """Files that follow one another by size, named by the hour of opening and a counter within it."""

    def __init__(self, root: Path, limit: float, compression: Compression | None) -> None:
        self.active = root / "raw" / "active" / "coinbase"
        self.ready = root / "raw" / "ready" / "coinbase"
        self.limit = limit
        self.compression = compression
        self.paths: list[Path] = []
        self.counts: Counter[str] = Counter()
        self.bytes_total = 0
        self.bytes_here = 0
        self.lines_here = 0
        self.lines_total = 0
        self.open_files: list[Any] = []

    @property
    def name(self) -> str:
        """Name of the newest segment."""
        return self.paths[-1].name

    def write(self, line: bytes, capture_us: int) -> None:
        """Write a line, which may first open a new segment."""
        if not self.open_files or self.bytes_here >= self.limit:
            self.close()
            self._open(capture_us)
        self.open_files[-1].write(line)
        self.bytes_here += len(line)
        self.bytes_total += len(line)
        self.lines_here += 1
        self.lines_total += 1

    def _open(self, capture_us: int) -> None:
        text = capture_text(capture_us)
        hour = text[:13].replace("-", "")
        self.counts[hour] += 1
        path = self.ready / f"segment_{hour}_{self.counts[hour]:05d}.ndjson{SUFFIXES[self.compression]}"
        raw = (self.active / path.name).open("wb")
        self.open_files = [raw]
        if self.compression == "gzip":  # neither name nor time in the header: equal content, equal bytes
            self.open_files.append(
                gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)
            )
        elif self.compression == "zstd":
            import pyarrow as pa

            self.open_files.append(pa.CompressedOutputStream(raw, "zstd"))
        self.paths.append(path)
        self.bytes_here = self.lines_here = 0

    def close(self) -> None:
        """Close the segment and hand it over, as the recorder does: by moving it from active to ready."""
        if self.open_files:
            self._close_files()
            (self.active / self.name).rename(self.paths[-1])

    def _close_files(self) -> None:
        while self.open_files:
            self.open_files.pop().close()

    def __enter__(self) -> Segments:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """Hand the last segment over; after a failure it stays in active, as after a crash."""
        if failure is None:
            self.close()
        else:
            self._close_files()


class Recorder:
    """Takes frames in the order they are sent; `connect` begins a new connection."""

    def __init__(
        self, segments: Segments, seed: int, plan: Sequence[tuple[float, FaultKind]], truth: bool
    ) -> None:
        self.segments = segments
        self.random = Draws(seed, 0)
        self.latencies: list[int] = []
        self.plan = deque(plan)
        self.truth: list[_TruthRow] | None = [] if truth else None
        self.connection = 0
        self.sequence_num = 0
        self.captured_us = 0
        self.calm = 0
        self.losing = 0
        self.gap: tuple[int, int] | None = None
        self.half: tuple[bytes, int] | None = None
        self.faults: list[Fault] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def settled(self) -> bool:
        """Whether no fault is half done: a fault is told by the sound frame after it."""
        return self.calm > 0

    def connect(self) -> None:
        """Begin a new connection: the sequence starts at 0."""
        self.connection += 1
        self.sequence_num = 0
        self.calm = 0

    def send(self, frame: Frame, progress: float) -> None:
        """Give a frame its number, and write it, or do to it what the plan says is due by now."""
        number = self.sequence_num
        self.sequence_num += 1
        if self.truth is not None and frame.best is not None:
            self.truth.append((self.connection, number, frame.product, *frame.best))
        if self.losing:
            self.losing -= 1
            return
        due = self.calm >= _CALM and bool(self.plan) and self.plan[0][0] <= progress
        if not due or frame.is_snapshot or not frame.rows:
            self._write(frame, number)
        elif self.plan[0][1] == "gap":
            self.losing = self.random.one_below(5)
            self.gap = (number, self.losing + 1)
            self.calm = 0
            self.plan.popleft()
        else:
            self._spoil(frame, number, self.plan.popleft()[1])

    def _write(self, frame: Frame, number: int) -> None:
        capture_us = self._capture(frame)
        line = _line(frame, number, capture_us)
        if self.half is not None:
            start, first = self.half
            self.half = None
            self.segments.write(start + line, capture_us)
            self._note("glued", first, number - first + 1)
            return
        self.segments.write(line, capture_us)
        if self.gap is not None:
            self._note("gap", *self.gap)
            self.gap = None
        self.calm += 1
        self._count(frame)

    def _spoil(self, frame: Frame, number: int, kind: FaultKind) -> None:
        capture_us = self._capture(frame)
        line = _line(frame, number, capture_us)
        if kind == "duplicate":
            self.segments.write(line, capture_us)
            self.segments.write(line, capture_us)
            self._count(frame)
            self._note(kind, number, 0)
            return
        at = len(line) // 3 + self.random.one_below(len(line) // 2)
        if kind == "glued":
            self.half = (line[:at], number)
            self.calm = 0
            return
        harm = {"cut": b"\n", "nul": bytes(64) + line[at:], "utf8": b"\xff\xc3(" + line[at:]}
        self.segments.write(line[:at] + harm[kind], capture_us)
        self._note(kind, number, 1)

    def _note(self, kind: FaultKind, number: int, frames: int) -> None:
        where = self.segments
        self.faults.append(
            Fault(kind, self.connection, number, frames, where.name.partition(".")[0], where.lines_here)
        )
        self.calm = 0

    def _count(self, frame: Frame) -> None:
        self.counts[frame.product, "frames"] += 1
        self.counts[frame.product, frame.channel + (" snapshot" if frame.is_snapshot else "")] += frame.rows

    def _capture(self, frame: Frame) -> int:
        """Receipt: the server's time and the way here; frames of one connection come in order."""
        if not self.latencies:
            delays = 7_000 + self.random.below(1_500, 4_096) ** 2 // 900
            self.latencies = delays.tolist()
        sent = frame.time_ns // 1_000 + 1
        capture = max(self.captured_us, sent + self.latencies.pop())
        # A microsecond of exactly 0 is one frame in a million, and written without fraction. So that small
        # recordings have it too, what comes in the last moments of every tenth second is held up to its end.
        if capture % 10_000_000 > 9_955_000:
            capture += -capture % 10_000_000
        self.captured_us = capture
        return capture


def _line(frame: Frame, number: int, capture_us: int) -> bytes:
    channel = frame.channel
    return (
        f'{{"capture_ts":"{capture_text(capture_us)}","data":{{"channel":"{channel}","client_id":"",'
        f'"timestamp":"{nanosecond_text(frame.time_ns)}","sequence_num":{number},"events":[{frame.events}]}},'
        f'"metadata":{{"source":"coinbase","channel":"{channel}"}}}}\n'
    ).encode()
