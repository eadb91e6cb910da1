"""Jobs on small recordings: what they are given, and what they leave behind, compared row for row.

Recordings
    `recording(folder)` simulates one, `long_recording` a longer one, `copy_of(ready, folder)` takes a copy of
    it: all give the folder ``raw/ready/coinbase``; the others are ``beside(ready, "done")`` and so on.
    `put` writes one segment, and `run` runs a job.
What is there
    `tables`, `quarantine`, `manifests`, `states` of an output folder; `same_dataset(out, whole)` checks all
    of them. `places` tells where each source file is; `leftovers` what should not be there.
    `partly(out, whole)` checks what a reader may see at any instant.

`job_process` has processes that run jobs and can be killed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import wire

import cbtools as cb

if TYPE_CHECKING:
    from job_process import Process

Json = dict[str, Any]
Segment = tuple[str, Iterable[bytes]]
"""The name of a segment, and its lines."""

TABLES = ("level2", "book", "market_trades", "ticker")
FOLDERS = ("ready", "processing", "done", "failed")
START = datetime(2025, 11, 26, 23, 59, 59, 300_000, tzinfo=UTC)
REJECTED = b'{"capture_ts":"2025-11-27T00:00:00+00:00","data":{"chan\n'


# --- recordings


def recording(folder: Path, *, rejected: bool = True, **options: Any) -> Path:
    """Simulate a recording of three segments, of two products, over midnight; give its folder ready/coinbase.

    The first segment alone has snapshots: the books of the others rest on it. By default, the second one has
    a line that is not understood, and is otherwise whole. Options are those of `cbtools.simulate_segments`.
    """
    usual = {"products": ["BTC-USD", "ETH-USD"], "start": START, "levels": 40, "seed": 5}
    if "minutes" not in options:
        usual |= {"megabytes": 0.3, "segment_mb": 0.1}
    made = cb.simulate_segments(folder, **(usual | options))
    if rejected:
        path = made.paths[min(1, len(made.paths) - 1)]
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:3], REJECTED, *lines[3:]]))
    return made.paths[0].parent


def long_recording(folder: Path) -> Path:
    """Simulate six segments whose books rest on one another: with a reconnect, gaps, a bad line, repeats."""
    ready = recording(folder, megabytes=0.6, segment_mb=0.1, reconnects=1, gaps=2, duplicates=3)
    assert len(list(ready.iterdir())) >= 6
    return ready


def copy_of(ready: Path, folder: Path) -> Path:
    """Copy what is ready into another recording's folder, and give that one's ready/coinbase."""
    to = folder / "raw" / "ready" / ready.name
    shutil.copytree(ready, to)
    return to


def beside(ready: Path, name: str) -> Path:
    """Give the folder ``processing``, ``done`` or ``failed`` that belongs to a folder ``ready``."""
    return ready.parent.parent / name / ready.name


def put(folder: Path, name: str, lines: Iterable[bytes] | bytes) -> Path:
    """Write a segment's file; its name's ending says how it is compressed."""
    content = lines if isinstance(lines, bytes) else wire.segment(*lines)
    if name.endswith(".gz"):
        content = gzip.compress(content)
    if name.endswith(".zst"):
        content = pa.Codec("zstd").compress(content, asbytes=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return path


def run(ready: Path, out: Path, **options: Any) -> cb.JobReport:
    """Run a job in silence."""
    return cb.run_job(ready, out, progress=False, **options)


def run_one_by_one(whole: Path, *segments: Segment, **options: Any) -> list[str]:
    """Call run_segment for one segment after the other; tell what each of them started from."""
    copies = whole.with_name(f"{whole.name} of")
    return [
        cb.run_segment(put(copies, f"{name}.ndjson", lines), whole, **options).started_from
        for name, lines in segments
    ]


# --- what is there


def tables(out: Path) -> dict[str, pl.DataFrame]:
    """Give all rows of each table that is there, with the column segment, in one order."""
    found = {}
    for folder in sorted(out.glob("[!._]*")):
        if next(folder.rglob("part_*.parquet"), None) is not None:
            found[folder.name] = in_order(cb.scan_dataset(out, folder.name, segment=True).collect())
    return found


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by all their columns: equal frames have the same rows equally often."""
    first = [name for name in ("segment", "product_id", "line") if name in frame.columns]
    others = [n for n, dtype in frame.schema.items() if n not in first and not dtype.is_nested()]
    return frame.sort(*first, *others, maintain_order=True)


def same_rows(a: Mapping[str, pl.DataFrame], b: Mapping[str, pl.DataFrame]) -> None:
    """Check that two results of `tables` hold the same rows."""
    assert a.keys() == b.keys()
    for table in a:
        assert a[table].schema == b[table].schema, table
        counts = [frame.group_by("segment").len().sort("segment").rows() for frame in (a[table], b[table])]
        assert counts[0] == counts[1], table
        assert a[table].equals(b[table]), f"{table}: other values"


def quarantine(out: Path) -> dict[str, bytes]:
    """Give the files of rejected lines: name → content."""
    return {path.name: path.read_bytes() for path in sorted((out / "_quarantine").glob("*"))}


def manifests(out: Path) -> dict[str, Json]:
    """Give the manifests, by the names of their files, without what another run has otherwise."""
    found = {}
    for path in sorted((out / "_runs").glob("[!.]*.json")):
        manifest = json.loads(path.read_bytes())
        found[path.stem] = {k: v for k, v in manifest.items() if k not in ("seconds", "finished_at")}
    return found


def states(out: Path) -> dict[str, cb.BookState]:
    """Load the states that are kept, by segment."""
    return {path.stem: cb.BookState.load(path) for path in sorted((out / "_state").glob("[!.]*.parquet"))}


def parts(out: Path) -> dict[str, pl.DataFrame]:
    """Read every part that is seen, by its path in the dataset."""
    found = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("part_*.parquet"))}
    return {
        name: pl.read_parquet(path, hive_partitioning=False, glob=False)
        for name, path in found.items()
        if not any(folder[0] in "._" for folder in Path(name).parts)
    }


def same_content(out: Path, whole: Path) -> None:
    """Check that two datasets hold the same rows, rejected lines and states."""
    same_rows(tables(out), tables(whole))
    assert quarantine(out) == quarantine(whole)
    assert states(out) == states(whole)


def same_as_segments(out: Path, folder: Path, *segments: Segment, **options: Any) -> None:
    """Check a dataset against that of run_segment, called for one segment after the other."""
    run_one_by_one(folder / "whole", *segments, **options)
    same_content(out, folder / "whole")


def same_dataset(out: Path, whole: Path) -> None:
    """Check that two datasets are the same, also in their manifests; and that these fit what is there."""
    same_content(out, whole)
    assert manifests(out) == manifests(whole)
    listed: dict[str, tuple[int, int]] = {}
    for segment in manifests(out):
        for path, told in listed_parts(out, segment).items():
            assert path not in listed, f"two manifests list {path}"
            listed[path] = told
    there = {name: (frame.height, (out / name).stat().st_size) for name, frame in parts(out).items()}
    assert listed == there


def listed_parts(out: Path, segment: str) -> dict[str, tuple[int, int]]:
    """Give what a segment's manifest lists: path → rows and bytes."""
    manifest = json.loads((out / "_runs" / f"{segment}.json").read_bytes())
    listed = [part for table in manifest["tables"].values() for part in table["parts"]]
    return {part["path"]: (part["rows"], part["bytes"]) for part in listed}


def partly(out: Path, whole: Mapping[str, pl.DataFrame]) -> None:
    """Check what a reader sees at any instant, against the `parts` of the whole dataset.

    Each part is there whole or not at all, and those of a segment with a manifest all are; a table's scan
    succeeds and has no row twice.
    """
    there = parts(out)
    assert there.keys() <= whole.keys()
    for name, frame in there.items():
        assert frame.equals(whole[name]), f"{name} is there in part"
    for segment in manifests(out):
        assert listed_parts(out, segment).keys() <= there.keys(), f"{segment} has a manifest, and lacks parts"
        of_it = {name for name in whole if name.endswith(f"/part_{segment}.parquet")}
        assert listed_parts(out, segment).keys() == of_it
    for table in TABLES:
        expected = sum(frame.height for name, frame in there.items() if name.startswith(f"{table}/"))
        if expected:
            assert cb.scan_dataset(out, table).select(pl.len()).collect().item() == expected


def places(ready: Path) -> dict[str, list[str]]:
    """Tell where each source file is: name → which of the folders ready, processing, done, failed."""
    found: dict[str, list[str]] = {}
    for name in FOLDERS:
        folder = ready if name == "ready" else beside(ready, name)
        for path in sorted(folder.glob("[!.]*")):
            if path.is_file():
                found.setdefault(path.name, []).append(name)
    return found


def checksums(ready: Path) -> dict[str, str]:
    """Give the checksum of each plain file in a folder, as manifests have it."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(ready.glob("[!.]*"))
        if path.is_file()
    }


def leftovers(ready: Path, out: Path) -> list[str]:
    """Give what no job may leave behind: temporary files, and what lies in processing."""
    raw = ready.parent.parent
    temporary = [path for root in (raw, out) for path in root.rglob("*") if path.name.endswith(".tmp")]
    held = [path for path in beside(ready, "processing").rglob("[!.]*") if path.is_file()]
    return [str(path.relative_to(raw.parent)) for path in (*temporary, *held)]


def outcomes(report: cb.JobReport) -> dict[str, str]:
    """Give what became of each source file."""
    return dict(report.segments.select("source", "outcome").iter_rows())


def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Give everything there is, folders too, with when it was changed."""
    paths = sorted(root.rglob("*")) if root.exists() else []
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in paths
    }


def ended_well(ready: Path, out: Path, whole: Path, *, names: Iterable[str], deleted: bool = False) -> None:
    """Check that all is as after an undisturbed run: the dataset, the source files, nothing left behind."""
    same_dataset(out, whole)
    assert leftovers(ready, out) == []
    assert places(ready) == ({} if deleted else {name: ["done"] for name in names})


class Place:
    """A copy of the recording, with an output folder."""

    def __init__(self, recorded: Path, folder: Path, whole: Path) -> None:
        self.whole = whole
        self.names = {path.name for path in recorded.iterdir()}
        self.ready, self.out = copy_of(recorded, folder), folder / "out"

    def begin(self, process: Process, **how: Any) -> Process:
        return process.begin(self.ready, self.out, **how)

    def run(self, **options: Any) -> cb.JobReport:
        return run(self.ready, self.out, **options)

    def check(self) -> None:
        """Check that nothing is there in part or twice, and no source is lost, nor taken to be bad."""
        partly(self.out, parts(self.whole))
        known = {manifest["source"]["name"] for manifest in manifests(self.out).values()}
        found = places(self.ready)
        assert found.keys() == self.names
        for name, where in found.items():
            assert where in (["ready"], ["processing"], ["done"])
            assert where != ["done"] or name in known

    def check_end(self) -> None:
        """Check that all is as if nothing had been."""
        ended_well(self.ready, self.out, self.whole, names=self.names)

    def mend(self) -> None:
        """Run it again, and check that all is as if nothing had been."""
        assert set(self.run().segments["outcome"]) <= {"done", "skipped"}
        self.check_end()
