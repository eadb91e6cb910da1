"""Which of the states kept a segment starts from: the one that its first frame continues."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import polars as pl
import pytest
import timeline
import wire

import cbtools as cb
from cbtools.book.states import FOLDER, keep_state, kept_states
from cbtools.run.states import Found, check_keep, find_state, first_frame

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def keep(tmp_path, root):
    """Keep the state of a stream that ends with this number, or with none, at this second."""

    def keep(name: str, number: int | None, second: float) -> cb.BookState:
        first = [] if number is None else timeline.changes(number - 1, number - 1, second - 1)
        last = timeline.received(wire.change(number), second)
        state = cb.BookState.read(timeline.write(tmp_path / "before", 1, *first, last))
        state.save(root / FOLDER / f"{name}.parquet")
        return state

    return keep


@pytest.fixture
def find(tmp_path, root):
    """Find the state for a segment that begins with this number, or with none, at this second."""

    def find(number: int | None, second: float, *before: bytes, name: str = "now") -> Found:
        first = timeline.received(wire.change(number), second)
        return find_state(root, first_frame(timeline.write(tmp_path / "now", 1, *before, first)), name)

    return find


# --- which one


def test_without_any_it_is_none(find):
    assert find(5, 5) == Found(None, "nothing")


def test_the_one_that_the_first_frame_continues(find, keep):
    keep("a", 1, 1)
    state = keep("b", 4, 4)
    keep("c", 7, 7)
    assert find(5, 5) == Found(state, "b")


def test_the_one_that_it_continues_though_another_is_nearer_in_time(find, keep):
    state = keep("of this connection", 4, 4)
    keep("of another", 90, 9)
    assert find(5, 10) == Found(state, "of this connection")


def test_else_the_latest_before_it(find, keep):
    keep("a", 1, 1)
    state = keep("z", 90, 8)
    keep("m", 50, 5)
    keep("later", 700, 20)
    assert find(5, 10) == Found(state, "z")


def test_a_connection_s_first_frame_continues_none_and_so_the_latest_is_taken(find, keep):
    keep("unnumbered", None, 1)
    state = keep("a", 90, 3)
    assert find(0, 5) == Found(state, "a")


def test_one_that_ended_as_it_begins_is_before_it(find, keep):
    state = keep("a", 90, 5)
    assert find(5, 5) == Found(state, "a")


def test_a_first_frame_without_a_time_continues_by_its_number(root, tmp_path, keep):
    state = keep("before", 4, 4)
    error = wire.line(wire.error(sequence_num=5))
    path = timeline.write(tmp_path / "now", 1, error, timeline.received(wire.change(6), 6))
    assert find_state(root, first_frame(path), "now") == Found(state, "before")


def test_later_ones_are_not_taken(find, keep):
    keep("later", 90, 10.001)
    keep("much later", 5, 50)
    assert find(5, 5) == Found(None, "nothing")


def test_one_of_a_clock_that_was_ahead_is_known_by_its_number(find, keep):
    """The receiver's clock may step back between two segments."""
    state = keep("ahead", 4, 12)
    keep("before", 90, 3)
    assert find(5, 5) == Found(state, "ahead")


@pytest.mark.parametrize("number", [None, 50])
def test_the_latest_is_taken_also_if_the_clock_stepped_back_by_seconds(find, keep, number):
    keep("first", 90, 3)
    state = keep("second", 90, 9.5)
    assert find(number, 5) == Found(state, "second")


@pytest.mark.parametrize("number", [5, 50])
def test_its_own_is_never_taken(find, keep, number):
    keep("now", 4, 4)
    assert find(number, 5, name="now") == Found(None, "nothing")
    state = keep("before", 3, 3)
    assert find(number, 5, name="now") == Found(state, "before")


# --- of several that end at the number before


def test_the_nearest_before_it(find, keep):
    keep("long ago", 4, 1)
    state = keep("z", 4, 4)
    keep("behind it", 4, 6)
    keep("far behind it", 4, HOUR)
    assert find(5, 5) == Found(state, "z")


def test_the_nearest_if_all_are_behind_it(find, keep):
    keep("a", 4, 9)
    state = keep("b", 4, 6)
    keep("c", 4, 30)
    assert find(5, 5) == Found(state, "b")


# --- a day away


@pytest.mark.parametrize("number", [5, 50])
@pytest.mark.parametrize("away", [DAY, DAY + 0.000001, 40 * DAY])
def test_a_state_of_another_day_is_not_continued_whatever_its_number(find, keep, number, away):
    """But its books are known to be broken."""
    state = keep("a", 4, 4)
    found = find(number, 4 + away)
    assert found == Found(state.aged(), "a")
    assert found.state.stream.unread.keys() == found.state.stream.unmarked == {"BTC-USD"}
    assert not found.state.products["proven"].any()


@pytest.mark.parametrize("number", [5, 50])
def test_within_a_day_it_is_taken(find, keep, number):
    state = keep("a", 4, 4)
    assert find(number, 4 + DAY - 0.000001) == Found(state, "a")


@pytest.mark.parametrize("away", [DAY, 40 * DAY])
def test_nor_those_of_a_day_behind_it(find, keep, away):
    keep("a", 4, 4 + away)
    assert find(5, 4) == Found(None, "nothing")


# --- the segment's first frame


def test_lines_before_it_that_are_no_frames_do_not_matter(find, keep):
    state = keep("a", 4, 4)
    keep("b", 90, 4.5)
    assert find(5, 5, b"not JSON", b"", b'{"channel":') == Found(state, "a")


def test_it_may_stand_far_behind(find, keep):
    state = keep("a", 4, 4)
    keep("b", 90, 4.5)
    noise = [b"x" * 999] * 700
    assert find(5, 5, *noise) == Found(state, "a")


def test_a_rejected_frame_is_one_if_its_number_can_be_read(find, keep):
    state = keep("a", 4, 4)
    spoiled = timeline.received(wire.change(5, price="much"), 5)
    assert find(6, 6, spoiled) == Found(state, "a")


def test_a_frame_without_number_and_time_before_it_does_not_matter(find, keep):
    state = keep("a", 4, 4)
    keep("b", 90, 4.5)
    assert find(5, 5, wire.line(wire.error())) == Found(state, "a")


def test_a_segment_without_numbers_has_only_its_time(find, keep):
    keep("a", 4, 4)
    state = keep("b", None, 4.5)
    assert find(None, 5) == Found(state, "b")


@pytest.mark.parametrize("lines", [(), (b"",), (b"not JSON", b"{}")])
def test_a_segment_without_frames_starts_from_nothing(root, keep, tmp_path, lines):
    keep("a", 4, 4)
    path = timeline.write(tmp_path / "now", 1, *lines)
    assert find_state(root, first_frame(path), "now") == Found(None, "nothing")


def test_a_compressed_segment(root, keep, tmp_path):
    state = keep("a", 4, 4)
    keep("b", 90, 4.5)
    path = tmp_path / "now.ndjson.gz"
    path.write_bytes(gzip.compress(wire.segment(*timeline.changes(5, 9))))
    assert find_state(root, first_frame(path), "now") == Found(state, "a")


# --- what lies in the folder


def test_a_state_of_no_frames_is_none_to_start_from(root, find):
    cb.BookState().save(root / FOLDER / "empty.parquet")
    assert find(0, 5) == find(5, 5) == Found(None, "nothing")


def test_files_that_cannot_be_read_are_passed_over_and_told(root, find, keep):
    (root / FOLDER).mkdir(parents=True)
    (root / FOLDER / "junk.parquet").write_bytes(b"junk" * 100)
    (root / FOLDER / "none.parquet").touch()
    pl.DataFrame({"x": [1]}).write_parquet(root / FOLDER / "other.parquet")
    pl.DataFrame({"x": [1]}).write_parquet(
        root / FOLDER / "old.parquet", metadata={"cbtools.state": '{"version":0}'}
    )
    (root / FOLDER / "notes.txt").write_text("no state")
    assert find(5, 5) == Found(None, "nothing (4 states in _state cannot be read)")
    state = keep("a", 4, 4)
    assert find(5, 5) == Found(state, "a")


def test_they_are_told_with_others_that_do_not_fit(root, find, keep):
    keep("later", 90, 50)
    (root / FOLDER / "junk.parquet").write_bytes(b"junk" * 100)
    assert find(5, 5) == Found(None, "nothing (1 state in _state cannot be read)")


def test_a_draft_that_was_left_behind_is_no_state(root, find, keep):
    state = keep("a", 4, 4)
    kept = root / FOLDER / "a.parquet"
    kept.rename(root / FOLDER / ".a.parquet.tmp")
    assert kept_states(root) == ([], 0)
    assert find(5, 5) == Found(None, "nothing")
    state.save(kept)
    assert [(one.segment, one.last) for one in kept_states(root)[0]] == [("a", 4)]


# --- how many are kept


@pytest.mark.parametrize("keep", [0, -1, True, 1.0, "3", None])
def test_a_number_of_states_that_is_none(keep):
    with pytest.raises(cb.ConfigError, match="keep_states must be a whole number from 1 on, not "):
        check_keep(keep)


@pytest.mark.parametrize("keep", [1, 2, 3, 16])
def test_the_one_written_and_the_newest_of_the_others_are_kept(root, keep):
    names = ["d", "b", "e", "a", "c"]
    for second, name in enumerate(names):
        path = keep_state(root, name, cb.BookState(), keep)
        set_time(path, second)
    left = sorted(path.stem for path in (root / FOLDER).iterdir())
    assert left == sorted(names[-keep:])
    set_time(
        keep_state(root, left[0], cb.BookState(), keep), 9
    )  # again: it is one of them, and now the newest
    assert sorted(path.stem for path in (root / FOLDER).iterdir()) == left
    assert sorted(path.stem for path in keep_state(root, "z", cb.BookState(), 2).parent.iterdir()) == (
        [left[0], "z"]
    )


def test_what_was_written_is_kept_whatever_the_clock_says(root):
    for name in "ab":
        set_time(keep_state(root, name, cb.BookState(), 2), DAY * 20_000)
    assert keep_state(root, "c", cb.BookState(), 1).exists()
    assert [path.stem for path in (root / FOLDER).iterdir()] == ["c"]


def test_files_that_are_no_states_are_left_alone(root):
    (root / FOLDER).mkdir(parents=True)
    (root / FOLDER / "notes.txt").write_text("mine")
    keep_state(root, "a", cb.BookState(), 1)
    assert sorted(path.name for path in (root / FOLDER).iterdir()) == ["a.parquet", "notes.txt"]


def set_time(path: Path, second: float) -> None:
    os.utime(path, (second, second))
