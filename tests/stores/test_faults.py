"""An object store that fails, and what is there at any moment: all of an object or nothing, no row twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cloud
import jobs
import polars as pl
import pytest
from cloud import CHANGES, Bucket, Failing, Fault
from dataset.small_parts import follow
from tiers import FULL

import cbtools as cb

pytestmark = pytest.mark.ci

SOME = {"level2": {"processor_options": {"reconstruct_lob": False}}, "ticker": {}}
"""Tables enough: level2 of both days and products, and the state after it."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def datasets(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Give the datasets, on the disk, of the first segment, and of the first two."""
    out = tmp_path_factory.mktemp("datasets")
    given: list[Path] = []
    for number, path in enumerate(sorted(recorded.iterdir())[:2]):
        if given:
            shutil.copytree(given[-1], out / str(number))
        cb.run_segment(path, out / str(number), channel_config=SOME)
        given.append(out / str(number))
    return given


@dataclass
class Scene:
    """A bucket with a dataset in ``lake``; what is done to it, and the dataset that is to come of it."""

    bucket: Bucket
    do: Callable[[], object]
    after: Path
    before: dict[str, bytes]

    @property
    def names(self) -> set[str]:
        """All keys there may ever be."""
        return {f"lake/{name}" for name in cloud.files(self.after)} | self.before.keys()

    def again(self) -> None:
        """Put all back as it was."""
        self.bucket.delete(*self.bucket.listed())
        for key, content in self.before.items():
            self.bucket.put(key, content)
        self.bucket.server.log.clear()

    def check_end(self, folder: Path) -> None:
        """Check that all is as on the disk."""
        assert self.bucket.listed() == [f"lake/{name}" for name in cloud.files(self.after)]
        assert self.bucket.uploads() == []
        jobs.same_content(self.bucket.download(folder, "lake"), self.after)


def some(number: int, few: Sequence[int]) -> list[int]:
    """Give the numbers from 1 on; with --ci but a few of them, of which negative ones count from the end."""
    return list(range(1, number + 1)) if FULL else [n if n > 0 else number + 1 + n for n in few]


# --- one segment's run


@pytest.fixture
def second(bucket: Bucket, recorded: Path, datasets: list[Path]) -> Scene:
    """Run the second segment, whose rows are of two days, where the first one's are."""
    bucket.upload(datasets[0], "lake")
    path = sorted(recorded.iterdir())[1]
    return Scene(
        bucket,
        lambda: cb.run_segment(path, bucket.url("lake"), channel_config=SOME),
        datasets[1],
        bucket.objects(),
    )


def test_each_part_appears_once_and_whole_under_its_own_name(second: Scene, tmp_path: Path) -> None:
    bucket, whole = second.bucket, jobs.parts(second.after)
    with bucket.watched() as moments:
        second.do()
    second.check_end(tmp_path / "end")
    new = second.names - second.before.keys()
    assert sorted(bucket.server.asked("put", "part")) == sorted(new)
    assert bucket.server.asked("delete") == []
    assert len(moments) == len(new)
    for number, (one, then) in enumerate(pairwise([second.before, *moments])):
        assert then.items() > one.items()
        jobs.partly(cloud.laid_out(then, "lake", tmp_path / str(number)), whole)


PUT_FAULTS = [
    ("403", "same", (1, -1)),
    ("refused", "all", (4,)),
    ("lost", "same", (5,)),
    ("500", "same", (3,)),
    ("403", "all", (5,)),
]


@pytest.mark.more
@pytest.mark.parametrize(("fault", "then", "few"), PUT_FAULTS if FULL else PUT_FAULTS[:3])
def test_a_run_whose_nth_put_fails_can_be_run_again(
    second: Scene, datasets: list[Path], tmp_path: Path, fault: Fault, then: Any, few: Sequence[int]
) -> None:
    bucket, whole = second.bucket, jobs.parts(second.after)
    puts = len(second.names - second.before.keys())
    for number in some(puts, few):
        second.again()
        rule = Failing(number, fault, then=then)
        with bucket.server.failing(rule), pytest.raises(cb.DatasetError, match=bucket.url("lake")):
            second.do()
        assert rule.hits
        there = bucket.objects()
        assert there.keys() <= second.names
        assert there.items() >= second.before.items()
        if number == 1 and then == "all":
            assert there == second.before
        jobs.partly(bucket.download(tmp_path / f"{number}", "lake"), whole)
        second.do()
        second.check_end(tmp_path / f"{number} again")


@pytest.mark.parametrize("fault", ["403", "refused"])
def test_what_cannot_be_begun_leaves_all_as_it_was(second: Scene, tmp_path: Path, fault: Fault) -> None:
    with (
        second.bucket.server.failing(Failing(1, fault, verbs=CHANGES, then="all")),
        pytest.raises(cb.DatasetError, match=second.bucket.url("lake")),
    ):
        second.do()
    assert second.bucket.objects() == second.before
    second.do()
    second.check_end(tmp_path / "end")


@pytest.mark.parametrize("fault", ["500", "lost"])
def test_a_put_that_fails_once_is_tried_again(
    second: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Fault
) -> None:
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    rule = Failing(4, fault, then="once")
    with cloud.opened_anew(), second.bucket.server.failing(rule):
        second.do()
    assert rule.hits == 1
    second.check_end(tmp_path / "end")


# --- a segment run again, with fewer rows


@pytest.fixture
def fewer(bucket: Bucket, recorded: Path, datasets: list[Path], tmp_path: Path) -> Scene:
    """Run the second segment again, of one product only."""
    bucket.upload(datasets[1], "lake")
    path = sorted(recorded.iterdir())[1]
    shutil.copytree(datasets[1], tmp_path / "after")
    only: dict[str, Any] = {"channel_config": SOME, "products": ["ETH-USD"]}
    cb.run_segment(path, tmp_path / "after", **only)
    return Scene(
        bucket,
        lambda: cb.run_segment(path, bucket.url("lake"), **only),
        tmp_path / "after",
        bucket.objects(),
    )


def held_by_others(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    return {key: content for key, content in objects.items() if "23_00002" not in key}


def test_what_a_segment_has_no_more_goes_last(fewer: Scene, tmp_path: Path) -> None:
    with fewer.bucket.watched() as moments:
        fewer.do()
    fewer.check_end(tmp_path / "end")
    changes = [one.verb for one in fewer.bucket.server.log if one.verb in CHANGES]
    parts = [
        one for one in fewer.bucket.server.log if one.verb in CHANGES and "/product_id=" in str(one.keys)
    ]
    verbs = [one.verb for one in parts]
    assert verbs == sorted(verbs, reverse=True)
    assert {"put", "delete"} == set(changes)
    gone = fewer.before.keys() - {f"lake/{name}" for name in cloud.files(fewer.after)}
    assert sorted(fewer.bucket.server.asked("delete")) == sorted(gone)
    for moment in moments:
        assert moment.keys() <= fewer.before.keys()
        assert held_by_others(moment) == held_by_others(fewer.before)


@pytest.mark.more
@pytest.mark.parametrize("then", ["same", "all"] if FULL else ["same"])
def test_a_run_that_fails_at_its_nth_change_can_be_run_again(fewer: Scene, tmp_path: Path, then: Any) -> None:
    with fewer.bucket.watched() as moments:
        fewer.do()
    for number in some(len(moments), (-1,)):
        fewer.again()
        rule = Failing(number, "403", verbs=CHANGES, then=then)
        with (
            fewer.bucket.server.failing(rule),
            pytest.raises(cb.DatasetError, match=fewer.bucket.url("lake")),
        ):
            fewer.do()
        assert rule.hits
        there = fewer.bucket.objects()
        assert there.keys() <= fewer.names
        assert held_by_others(there) == held_by_others(fewer.before)
        fewer.do()
        fewer.check_end(tmp_path / f"{number}")


def test_writers_of_several_segments_do_not_disturb_one_another(bucket: Bucket) -> None:
    def write(segment: int) -> None:
        rows = pl.DataFrame({"k": ["a", "b"] * 50, "x": pl.int_range(100, eager=True) + 100 * segment})
        for _ in range(2):
            cb.write_dataset(rows, bucket.url("lake"), partition_by="k", segment=f"s{segment}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(6)))
    rows = cb.scan_dataset(bucket.url("lake")).collect()
    assert sorted(rows["x"]) == list(range(600))
    assert len(bucket.listed("lake/")) == 12


# --- compaction


@pytest.fixture
def small(bucket: Bucket, tmp_path: Path) -> Scene:
    """Compact the parts of three segments, each with rows of two products."""
    follow(tmp_path / "small" / "t", 3)
    shutil.copytree(tmp_path / "small", tmp_path / "compacted")
    cb.compact_dataset(tmp_path / "compacted")
    bucket.upload(tmp_path / "small", "lake")
    return Scene(
        bucket, lambda: cb.compact_dataset(bucket.url("lake")), tmp_path / "compacted", bucket.objects()
    )


@pytest.fixture
def replaced(bucket: Bucket, tmp_path: Path) -> Scene:
    """Write a segment again that is in compacted parts, with the same rows."""
    follow(tmp_path / "compacted" / "t", 3)
    rows = cb.scan_dataset(tmp_path / "compacted", "t", segments=["s1"]).collect()
    cb.compact_dataset(tmp_path / "compacted")
    bucket.upload(tmp_path / "compacted", "lake")
    how = {"partition_by": "product_id", "segment": "s1"}
    cb.write_dataset(rows, tmp_path / "compacted" / "t", **how)
    return Scene(
        bucket,
        lambda: cb.write_dataset(rows, bucket.url("lake/t"), **how),
        tmp_path / "compacted",
        bucket.objects(),
    )


@pytest.mark.parametrize("which", ["small", "replaced"])
def test_a_reader_sees_each_row_once(request: pytest.FixtureRequest, tmp_path: Path, which: str) -> None:
    scene: Scene = request.getfixturevalue(which)
    bucket, expected = scene.bucket, jobs.tables(scene.bucket.download(tmp_path / "before", "lake"))
    with bucket.watched() as moments:
        scene.do()
    scene.check_end(tmp_path / "end")
    assert len(moments) >= 4
    for number, moment in enumerate(moments):
        assert moment.keys() <= scene.names
        jobs.same_rows(jobs.tables(cloud.laid_out(moment, "lake", tmp_path / str(number))), expected)
    verbs = [one.verb for one in bucket.server.log if one.verb in CHANGES]
    if which == "replaced":
        assert verbs == sorted(verbs, reverse=True), "all that is new comes before the removals"


def test_a_scan_there_sees_each_row_once_between_a_put_and_the_removals(small: Scene) -> None:
    bucket, seen = small.bucket, []

    def scan() -> pl.DataFrame:
        return jobs.in_order(cb.scan_dataset(bucket.url("lake"), "t", segment=True).collect())

    def look(request: cloud.Request) -> None:
        if request.verb in CHANGES:
            seen.append(scan())

    expected = scan()
    bucket.server.after = look
    small.do()
    bucket.server.after = None
    assert len(seen) >= 4
    assert all(frame.equals(expected) for frame in seen)


REQUESTS = [
    ("replaced", CHANGES, "same", (-1,)),
    ("small", CHANGES, "all", (2,)),
    ("replaced", ("list",), "same", (-1,)),
    ("small", ("get", "head"), "same", (4,)),
]
OTHER = {"small": "replaced", "replaced": "small"}


@pytest.mark.more
@pytest.mark.parametrize(
    ("which", "verbs", "then", "few"),
    REQUESTS + [(OTHER[which], *rest) for which, *rest in REQUESTS] if FULL else REQUESTS,
)
def test_what_fails_at_any_request_changes_no_row(
    request: pytest.FixtureRequest, tmp_path: Path, which: str, verbs: Any, then: Any, few: Sequence[int]
) -> None:
    scene: Scene = request.getfixturevalue(which)
    bucket, expected = scene.bucket, jobs.tables(scene.bucket.download(tmp_path / "before", "lake"))
    count = Failing(10**9, "403", verbs=verbs)
    with bucket.server.failing(count):
        scene.do()
    for number in some(count.seen, few):
        scene.again()
        rule = Failing(number, "403", verbs=verbs, then=then)
        with bucket.server.failing(rule), pytest.raises(cb.DatasetError, match=bucket.url("lake")):
            scene.do()
        assert rule.hits
        assert set(bucket.listed()) <= scene.names
        jobs.same_rows(jobs.tables(bucket.download(tmp_path / str(number), "lake")), expected)
        scene.do()
        scene.check_end(tmp_path / f"{number} again")


# --- jobs

FEW = ["market_trades", "ticker"]


@pytest.mark.more
@pytest.mark.parametrize(
    ("fault", "then", "few"), [("403", "same", (8,)), *([("refused", "all", (-1,))] if FULL else [])]
)
def test_a_job_whose_nth_put_fails_loses_nothing(
    bucket: Bucket, recorded: Path, tmp_path: Path, fault: Fault, then: Any, few: Sequence[int]
) -> None:
    """It is no segment's fault: nothing goes to failed; and the next job ends as if nothing had been."""
    names = {path.name for path in recorded.iterdir()}
    jobs.run(jobs.copy_of(recorded, tmp_path), tmp_path / "whole", channels=FEW)
    whole = jobs.parts(tmp_path / "whole")
    puts = len(cloud.files(tmp_path / "whole"))
    for number in some(puts, few):
        bucket.delete(*bucket.listed())
        ready = jobs.copy_of(recorded, tmp_path / str(number))
        rule = Failing(number, fault, then=then)
        with bucket.server.failing(rule), pytest.raises(cb.DatasetError, match=bucket.url("lake")):
            jobs.run(ready, bucket.url("lake"), channels=FEW)
        assert rule.hits
        jobs.partly(bucket.download(tmp_path / f"{number} failed", "lake"), whole)
        assert jobs.places(ready).keys() == names
        assert "failed" not in {place for places in jobs.places(ready).values() for place in places}
        report = jobs.run(ready, bucket.url("lake"), channels=FEW)
        assert report.failed == 0
        out = bucket.download(tmp_path / f"{number} again", "lake")
        jobs.ended_well(ready, out, tmp_path / "whole", names=names)


def test_a_job_s_objects_appear_under_their_own_names(bucket: Bucket, recorded: Path, tmp_path: Path) -> None:
    jobs.run(jobs.copy_of(recorded, tmp_path), tmp_path / "whole", channels=FEW)
    whole = jobs.parts(tmp_path / "whole")
    ready = jobs.copy_of(recorded, tmp_path / "mine")
    with bucket.watched() as moments:
        jobs.run(ready, bucket.url("lake"), channels=FEW)
    names = [f"lake/{name}" for name in cloud.files(tmp_path / "whole")]
    assert sorted(set(bucket.server.asked("put", "part"))) == names == bucket.listed()
    for number, moment in enumerate(moments if FULL else moments[::9]):
        jobs.partly(cloud.laid_out(moment, "lake", tmp_path / str(number)), whole)
