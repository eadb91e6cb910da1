"""Jobs on disks that are full or read-only, and with files in the way.

When that is mended, running again ends with the dataset of a run undisturbed.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jobs
import pytest
from job_process import Ended, Process
from job_program import Change
from jobs import Place
from tiers import FULL

import cbtools as cb

resource = pytest.importorskip("resource", reason="there are no limits to set")
pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are watched by way of /proc"),
]

STRIDES = 20 if FULL else 2


def is_dataset_error(ended: Ended, *words: str) -> None:
    assert ended.error == "DatasetError", ended.trace or "there was no error"
    for word in words:
        assert word in ended.message


@pytest.fixture(scope="module")
def changes(recorded, whole, helper, tmp_path_factory) -> dict[str, tuple[Change, ...]]:
    """Give the changes of a run undisturbed: of the output alone, and of the recording's folders, too."""
    found = {}
    for where in ("out", "all"):
        place = Place(recorded, tmp_path_factory.mktemp("counted"), whole)
        found[where] = place.begin(helper, where=where).answer().changes
        place.check_end()
    return found


def some_of(changes: tuple[Change, ...], nth: int) -> Sequence[int | str]:
    """Give numbers of changes, each in strides. With --ci one, and first that which is critical.

    That is where the second segment has its manifest, and not its state yet.
    """
    if FULL:
        return range(1 + nth, len(changes) + 1, STRIDES)
    return [1 + nth * len(changes) // STRIDES] if nth else ["^fsync .*/_state/[^/]*23_00002[^/]*$"]


@pytest.mark.more
@pytest.mark.parametrize("nth", range(STRIDES))
@pytest.mark.parametrize(("do", "where"), [("full", "out"), ("read-only", "out"), ("full", "all")])
def test_a_disk_that_fails_from_any_change_on(recorded, whole, helper, changes, tmp_path, do, where, nth):
    """It is no segment's fault: nothing goes to failed, and all that was claimed stays or is given back."""
    for run, number in enumerate(some_of(changes[where], nth)):
        place = Place(recorded, tmp_path / str(run), whole)
        ended = place.begin(helper, before=number, do=do, where=where).answer()
        if ended.error or not FULL:  # what fails at the very end may be no harm
            is_dataset_error(ended, os.strerror(errno.ENOSPC if do == "full" else errno.EROFS))
        place.check()
        place.mend()


@pytest.mark.more
@pytest.mark.parametrize("nth", range(STRIDES))
def test_a_job_interrupted_before_any_change(recorded, whole, helper, changes, tmp_path, nth):
    """As by Ctrl-C: it may give back what it has claimed, and nothing is lost."""
    for run, number in enumerate(some_of(changes["all"], nth)):
        place = Place(recorded, tmp_path / str(run), whole)
        ended = place.begin(helper, before=number, do="interrupt").answer()
        assert ended.error in ("KeyboardInterrupt", ""), ended.trace
        place.check()
        place.mend()


@contextmanager
def limited(process: Process, size: int) -> Iterator[None]:
    """Limit the size of the files that a process writes."""
    was = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, was[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, was)


@pytest.mark.parametrize(("size", "workers"), [(0, 1), (20_000, 1), (10_000, 2)])
def test_files_that_cannot_grow(place, helper, size, workers):
    """A limit on the size of files fails as a full disk does, wherever files are written."""
    with limited(helper, size):
        ended = place.begin(helper, workers=workers).answer()
    is_dataset_error(ended)
    place.check()
    place.mend()


@pytest.mark.parametrize(
    "blocked", ["", "book", "level2/product_id=ETH-USD", "_quarantine", "_runs", "_state"]
)
def test_a_file_where_a_folder_should_be(place, blocked):
    in_the_way = place.out / blocked
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("in the way")
    with pytest.raises(cb.DatasetError) as caught:
        place.run()
    assert str(place.out) in str(caught.value)
    in_the_way.unlink()
    place.check()
    place.mend()


@pytest.fixture(scope="module")
def apart(recorded, tmp_path_factory) -> Iterator[Process]:
    """Give a process that sees disks that nobody else sees."""
    within = ["unshare", "--map-root-user", "--mount"]
    probe = [*within, "mount", "-t", "tmpfs", "none", str(tmp_path_factory.mktemp("probe"))]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here: it needs root, or namespaces for users")
    process = Process(recorded, within)
    yield process
    process.close()


def mount(out: Path, options: str) -> str:
    """Write the statements that mount a disk in memory at the output folder, or mount it anew."""
    out.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(out)]
    return f"import subprocess; subprocess.run({command}, check=True)"


def look_into(place: Place, process: Process) -> None:
    """See the output folder as the process sees it."""
    place.out = Path(f"/proc/{process.pid}/root{place.out}")


@pytest.mark.parametrize("size", ["100k", "320k"])
def test_a_small_disk(place, apart, size):
    """It is full in the first segment, or when that is done."""
    out = place.out
    is_dataset_error(place.begin(apart, first=mount(out, f"size={size}")).answer(), os.strerror(errno.ENOSPC))
    look_into(place, apart)
    place.check()
    if size == "320k":
        assert list(jobs.manifests(place.out)) == ["segment_20251126T23_00001"]
    mended = apart.begin(place.ready, out, first=mount(out, "remount,size=32m")).answer()
    assert mended.error == "", mended.trace
    place.check_end()


@pytest.mark.parametrize("done", [0, 1])
def test_a_disk_that_is_read_only(place, apart, done):
    """It is when the job begins; or it becomes so (as ext4 does after an error) when a segment is done."""
    out, later = place.out, sorted(path.name for path in place.ready.iterdir())[done:]
    aside = place.ready.with_name("aside")
    aside.mkdir()
    for name in later:
        (place.ready / name).rename(aside / name)
    assert place.begin(apart, first=mount(out, "size=32m")).answer().error == ""
    for name in later:
        (aside / name).rename(place.ready / name)
    refused = place.begin(apart, first=mount(out, "remount,ro")).answer()
    is_dataset_error(refused, os.strerror(errno.EROFS))
    mended = place.begin(apart, first=mount(out, "remount,rw")).answer()
    assert mended.error == "", mended.trace
    look_into(place, apart)
    place.check_end()
