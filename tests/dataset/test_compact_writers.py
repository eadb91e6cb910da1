"""Who writes, reads or compacts while a dataset is compacted, and runs segments again after it."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import jobs
import polars as pl
import pyarrow.parquet as pq
import pytest
import tiers
from dataset.frames import tree
from dataset.small_parts import compacted, files, follow, inodes, put, seen, sorted_rows

import cbtools as cb
from cbtools.dataset import DatasetWriter, compact_dataset, scan_dataset
from cbtools.dataset.finished import remove_parts
from cbtools.errors import DatasetError, JobError

GRACE = 0.8


# --- a segment in a compacted part is run again


@pytest.mark.slow
@tiers.parametrize("segment", ["s1", "s3", "s4"], every=2)
@pytest.mark.parametrize("products", ["A", "BC"])
@tiers.parametrize("again", [False, True], every=2)
def test_a_segment_written_again_replaces_its_rows_alone(
    tmp_path: Path, segment: str, products: str, again: bool
) -> None:
    """Wherever it had rows before, and also if these were compacted twice; s4 is a new one."""
    follow(tmp_path, 2)
    if again:
        compact_dataset(tmp_path)
    put(tmp_path, "s2", ("B", 20, 0, 0))
    put(tmp_path, "s3", ("A", 30, 0, 0))
    compact_dataset(tmp_path)
    before, stats = seen(tmp_path), inodes(tmp_path)
    new = put(tmp_path, segment, *((product, 70, 7, i) for i, product in enumerate(products)))
    others = before.filter(pl.col("segment") != segment)
    assert sorted_rows(seen(tmp_path)) == sorted_rows(pl.concat([others, new.select(others.columns)]))
    had = set(before.filter(segment=segment)["product_id"])
    for path, stat in stats.items():
        assert (inodes(tmp_path).get(path) == stat) == (path[len("product_id=")] not in had)
    rows = seen(tmp_path)
    compact_dataset(tmp_path)
    assert sorted_rows(seen(tmp_path)) == sorted_rows(rows)
    assert len(files(tmp_path)) == seen(tmp_path)["product_id"].n_unique()


@pytest.mark.parametrize("segments", [["s0"], ["s1"], ["s0", "s1"], ["s1", "s0", "s2"], ["s7"]])
def test_a_segment_s_rows_can_be_removed(tmp_path: Path, segments: list[str]) -> None:
    follow(tmp_path, 2)
    put(tmp_path, "s2", ("A", 20, 0, 0))
    compact_dataset(tmp_path)
    before = seen(tmp_path)
    for segment in segments:
        remove_parts(tmp_path, segment)
    left = before.filter(~pl.col("segment").is_in(segments))
    if left.is_empty():
        assert files(tmp_path) == []
    else:
        assert sorted_rows(seen(tmp_path)) == sorted_rows(left)
        assert len(files(tmp_path)) == left["product_id"].n_unique()


def test_writers_of_several_segments_of_a_compacted_part_do_not_disturb_each_other(tmp_path: Path) -> None:
    follow(tmp_path, 3)
    compact_dataset(tmp_path)
    before, frames = seen(tmp_path), []
    writers = [DatasetWriter(tmp_path, partition_by="product_id", segment=f"s{i}") for i in range(2)]
    for i, writer in enumerate(writers):
        frames.append(before.filter(segment=f"s{i}").with_columns(line=pl.col("line") + 100))
        writer.write(frames[-1].drop("segment"))
    for writer in writers:
        writer.finish()
    for writer in writers:
        writer.publish()
    expected = pl.concat([*frames, before.filter(segment="s2")])
    assert sorted_rows(seen(tmp_path)) == sorted_rows(expected)


def test_a_writer_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    follow(tmp_path, 3, rows=200)
    compact_dataset(tmp_path)
    (_, last) = compacted(tmp_path)
    start = pq.read_metadata(last).row_group(0).column(0)
    content = bytearray(last.read_bytes())
    content[4 : start.total_compressed_size] = bytes(len(content[4 : start.total_compressed_size]))
    last.write_bytes(content)  # its footer can be read, its rows cannot
    before = tree(tmp_path)
    with pytest.raises((DatasetError, OSError, pl.exceptions.PolarsError)):
        put(tmp_path, "s1", ("A", 50, 0, 0))
    assert tree(tmp_path) == before


# --- meanwhile


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Have something done at a step of compact_dataset: when a part is drafted, or replaced ones wait."""

    def set_up(step: str, do: Callable[[], object]) -> None:
        target = {"drafted": "sync_files", "waits": "time.sleep"}[step]
        before = {"drafted": cb.durable.sync_files, "waits": time.sleep}[step]

        def then(argument: Any) -> None:
            monkeypatch.undo()
            before(argument if step == "drafted" else 0)
            do()

        monkeypatch.setattr(f"cbtools.dataset.compact.{target}", then)

    return set_up


@pytest.mark.parametrize("how", ["written", "removed", "grown"])
def test_a_part_that_changes_meanwhile_is_not_replaced(tmp_path: Path, meanwhile: Any, how: str) -> None:
    follow(tmp_path, 3, products="A")
    do = {
        "written": lambda: put(tmp_path, "s1", ("A", 50, 0, 0)),
        "removed": lambda: remove_parts(tmp_path, "s1"),
        "grown": lambda: put(tmp_path, "s1", *(("A", 50, 0, i) for i in range(99))),
    }[how]
    meanwhile("drafted", do)
    with pytest.raises(DatasetError, match="meanwhile"):
        compact_dataset(tmp_path)
    expected = {"written": 5, "removed": 4, "grown": 103}[how]
    assert seen(tmp_path).height == expected
    assert compacted(tmp_path) == []
    compact_dataset(tmp_path)
    assert seen(tmp_path).height == expected
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("products", ["A", "B", "AB"])
def test_a_segment_may_be_written_while_replaced_parts_wait_for_readers(
    tmp_path: Path, meanwhile: Any, products: str
) -> None:
    follow(tmp_path, 3)
    others = seen(tmp_path).filter(pl.col("segment") != "s1")
    new = []
    rows = [(product, 50, 0, 0) for product in products]
    meanwhile("waits", lambda: new.append(put(tmp_path, "s1", *rows)))
    compact_dataset(tmp_path, grace_seconds=GRACE)
    assert sorted_rows(seen(tmp_path)) == sorted_rows(pl.concat([others, new[0].select(others.columns)]))
    compact_dataset(tmp_path)
    assert seen(tmp_path).height == others.height + len(products)


@tiers.parametrize("products", ["A", "AB"], every=2)
@tiers.parametrize("before", ["apart", "compacted"], every=2)
@pytest.mark.parametrize("finished", [False, True])
def test_a_writer_that_began_before_publishes_or_says_that_it_cannot(
    tmp_path: Path, products: str, before: str, finished: bool
) -> None:
    follow(tmp_path, 3)
    if before == "compacted":
        compact_dataset(tmp_path)
        put(tmp_path, "s8", ("A", 80, 0, 0))
    there = seen(tmp_path)
    rows = there.filter(segment="s1", product_id="A").with_columns(line=pl.lit(99, pl.Int64))
    new = pl.concat([rows.with_columns(product_id=pl.lit(product)) for product in products])
    with DatasetWriter(tmp_path, partition_by="product_id", segment="s1") as writer:
        writer.write(new.drop("segment"))
        if finished:
            writer.finish()
        compact_dataset(tmp_path)
        assert sorted_rows(seen(tmp_path)) == sorted_rows(there)
        try:
            writer.publish()
        except (DatasetError, OSError):
            expected = there
        else:
            expected = pl.concat([there.filter(pl.col("segment") != "s1"), new])
    assert sorted_rows(seen(tmp_path)) == sorted_rows(expected)
    compact_dataset(tmp_path)
    assert sorted_rows(seen(tmp_path)) == sorted_rows(expected)


@pytest.mark.parametrize("step", ["drafted", "waits"])
def test_who_compacts_a_table_meanwhile_is_sent_away_or_loses_nothing(
    tmp_path: Path, meanwhile: Any, step: str
) -> None:
    """Also where a run_segment wrote it, and no job: there are no manifests."""
    root, done = tmp_path / "processed", []
    follow(root / "level2", 3)
    before = seen(root, "level2")

    def other() -> None:
        with contextlib.suppress(JobError):
            compact_dataset(root / "level2")
        done.append(seen(root, "level2"))

    meanwhile(step, other)
    with contextlib.suppress(DatasetError):
        compact_dataset(root, grace_seconds=GRACE if step == "waits" else 0)
    compact_dataset(root)
    assert [frame.equals(before) for frame in (*done, seen(root, "level2"))] == [True, True]
    assert len(files(root)) == 2


def test_a_query_planned_before_reads_what_it_saw_while_replaced_parts_wait(
    tmp_path: Path, meanwhile: Any
) -> None:
    follow(tmp_path, 4)
    before, planned, read = seen(tmp_path), scan_dataset(tmp_path, segment=True), []
    meanwhile("waits", lambda: read.extend([planned.collect(), seen(tmp_path)]))
    compact_dataset(tmp_path, grace_seconds=GRACE)
    assert [frame.equals(before) for frame in read] == [True, True]
    with pytest.raises(FileNotFoundError):
        planned.collect()


@pytest.mark.ci
@pytest.mark.parametrize("grace", [0, GRACE])
def test_who_reads_all_the_while_never_sees_a_row_twice_or_not_at_all(tmp_path: Path, grace: float) -> None:
    follow(tmp_path, 12)
    expected, counts, errors = seen(tmp_path).height, [], []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                counts.append(scan_dataset(tmp_path, segment=True).collect().height)
            except Exception as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        compact_dataset(tmp_path, target_mb=0.005, grace_seconds=grace)
        for target in () if grace else (0.01, 0.02, 0.03, 256):  # a writer waits for nobody
            put(tmp_path, "s7", *((product, 14 + j, 0, j) for product in "AB" for j in range(2)))
            compact_dataset(tmp_path, target_mb=target)
    finally:
        done.set()
        reader.join()
    assert set(counts) == {expected}
    assert [error for error in errors if not _is_gone(error)] == []
    assert not (grace and errors)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or "No such file" in str(error)


# --- the output of jobs


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.recording(tmp_path_factory.mktemp("recorded"), megabytes=0.15, segment_mb=0.05, levels=20)


@pytest.fixture(scope="module")
def whole(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    jobs.run(jobs.copy_of(recorded, folder), folder / "out")
    return folder / "out"


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """Give a compacted copy of a job's output."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    done = compact_dataset(out)
    assert {folder.split("/")[0] for folder in done.groups["folder"]} >= {*jobs.TABLES}
    yield out
    assert [path for path in out.rglob("*.tmp") if path.is_file()] == []


@pytest.mark.ci
def test_a_job_s_output_has_the_same_rows_when_it_is_compacted(out: Path, whole: Path) -> None:
    jobs.same_content(out, whole)
    assert len(files(out / "level2")) < len(files(whole / "level2"))


@pytest.mark.ci
@pytest.mark.parametrize("which", [slice(1, 2), slice(0, None)])
def test_segments_of_a_compacted_output_whose_manifests_are_gone_are_run_again(
    recorded: Path, out: Path, whole: Path, tmp_path: Path, which: slice
) -> None:
    ready = jobs.copy_of(recorded, tmp_path)
    names = sorted(path.name.split(".")[0] for path in ready.iterdir())
    again = names[which]
    for name in again:
        (out / "_runs" / f"{name}.json").unlink()
    report = jobs.run(ready, out)
    assert jobs.outcomes(report) == {
        f"{name}.ndjson": "done" if name in again else "skipped" for name in names
    }
    jobs.same_content(out, whole)
    compact_dataset(out)
    jobs.same_content(out, whole)


@pytest.mark.ci
def test_a_segment_is_run_again_and_others_after_it(recorded: Path, out: Path, whole: Path) -> None:
    for path in sorted(recorded.iterdir())[1:]:
        cb.run_segment(path, out)
    jobs.same_rows(jobs.tables(out), jobs.tables(whole))


def test_a_new_segment_goes_beside_compacted_ones(recorded: Path, whole: Path, tmp_path: Path) -> None:
    first, second, third = sorted(recorded.iterdir())
    for path in (first, second):
        cb.run_segment(path, tmp_path)
    compact_dataset(tmp_path)
    cb.run_segment(third, tmp_path)
    jobs.same_rows(jobs.tables(tmp_path), jobs.tables(whole))


class Meddling(Executor):
    """Does what it is given at once, and something else before."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self._meddle = meddle

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self._meddle()
        future: Future[Any] = Future()
        future.set_result(task(*arguments, **named))
        return future


@pytest.mark.parametrize("table", [None, "level2"])
def test_what_a_job_works_on_is_not_compacted(
    recorded: Path, whole: Path, tmp_path: Path, table: str | None
) -> None:
    out, caught = tmp_path / "out", []
    shutil.copytree(whole, out)
    next((out / "_runs").glob("*.json")).unlink()

    def meddle() -> None:
        root = out if table is None else out / table
        with pytest.raises(JobError, match="another job works on"):
            compact_dataset(root)
        caught.append(root)

    jobs.run(jobs.copy_of(recorded, tmp_path), out, executor=Meddling(meddle), workers=1)
    assert caught
    jobs.same_content(out, whole)
    compact_dataset(out, dry_run=True)


def test_no_job_works_on_what_is_compacted(
    recorded: Path, whole: Path, tmp_path: Path, meanwhile: Any
) -> None:
    out, ready, told = tmp_path / "out", jobs.copy_of(recorded, tmp_path), []
    shutil.copytree(whole, out)

    def work() -> None:
        for do in (lambda: jobs.run(ready, out), lambda: compact_dataset(out)):
            with pytest.raises(JobError) as caught:
                do()
            told.append(caught)

    meanwhile("waits", work)
    compact_dataset(out, grace_seconds=GRACE)
    assert len(told) == 2
    jobs.same_content(out, whole)
    assert jobs.places(ready) == {path.name: ["ready"] for path in recorded.iterdir()}
