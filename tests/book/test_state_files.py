"""A state on disk: the same state again, or the old file, or an error that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import polars as pl
import pytest
import tiers
import timeline
import wire

import cbtools as cb
from cbtools.book.state import STATE_VERSION
from cbtools.book.states import kept_states

KEY = "cbtools.state"


def state_of(folder: Path, *lines: bytes) -> cb.BookState:
    return cb.BookState.read(timeline.write(folder, 1, *lines))


def level2(number: int | None, *events: wire.Json, second: float | None = None) -> bytes:
    return timeline.received(wire.l2(number, *events), number if second is None else second)


SNAPSHOT = wire.snapshot(0)["events"][0]
ETHER = wire.snapshot(0, "ETH-USD")["events"][0]
RECORDINGS: dict[str, list[bytes]] = {
    "nothing": [],
    "no frame": [b"not JSON"],
    "no level2": [timeline.received(wire.trades(3, wire.trade(1)), 3)],
    "a book": [level2(0, SNAPSHOT), *timeline.changes(1, 5)],
    "an empty book": [
        level2(0, wire.book("BTC-USD", wire.update("bid", "1", "1"), kind="snapshot")),
        level2(1, wire.book("BTC-USD", wire.update("bid", "1", "0"))),
    ],
    "changes without a snapshot, deletes among them": [
        level2(7, wire.book("BTC-USD", wire.update("bid", "99", "0"), wire.update("offer", "101", "2"))),
    ],
    "books of several products, one of them only changed": [
        level2(0, SNAPSHOT, ETHER),
        level2(1, wire.book("Ü-€", wire.update("bid", "0.00000001", "3"))),
        *timeline.changes(2, 4, product_id="ETH-USD"),
    ],
    "a gap": [level2(0, SNAPSHOT), *timeline.changes(5, 6)],
    "a product with a run of its own": [
        level2(0, SNAPSHOT, ETHER),
        level2(1, wire.book("ETH-USD", wire.update("bid", "much", "1"))),
        *timeline.changes(2, 4),
    ],
    "a snapshot without levels": [
        level2(0, SNAPSHOT, ETHER),
        level2(1, wire.book("ETH-USD", kind="snapshot")),
    ],
    "an empty snapshot, and then a change": [
        level2(0, SNAPSHOT),
        level2(1, wire.book("BTC-USD", kind="snapshot")),
        level2(2, wire.book("BTC-USD", wire.update("bid", "50", "1"))),
    ],
    "a break shown by a frame of another channel": [
        level2(0, SNAPSHOT, ETHER),
        timeline.received(wire.heartbeat(5, "now", 5), 5),
    ],
    "a break of one product, with its row behind it": [
        level2(0, SNAPSHOT, ETHER),
        timeline.received(wire.trades(5, wire.trade(1)), 5),
        *timeline.changes(6, 6),
    ],
    "two connections": [level2(0, SNAPSHOT), *timeline.changes(1, 3), level2(0, ETHER, second=9)],
    "no numbers": [timeline.received(wire.exchange_snapshot(), 1)],
    "more frames than are remembered": timeline.changes(0, 1500),
    "a line lost at the end": [level2(0, SNAPSHOT), b'{"channel":"l2_'],
}
"""What is kept in a state, one way or the other."""


@pytest.fixture
def state(tmp_path) -> cb.BookState:
    return state_of(tmp_path, level2(0, SNAPSHOT, ETHER), *timeline.changes(1, 3))


# --- there and back


@pytest.mark.parametrize("lines", RECORDINGS.values(), ids=RECORDINGS.keys())
def test_what_was_saved_is_loaded(tmp_path, lines):
    state = state_of(tmp_path, *lines)
    back = cb.BookState.load(state.save(tmp_path / "state.parquet"))
    assert back == state
    assert back.stream == state.stream
    assert back.stream.recent.maxlen == state.stream.recent.maxlen
    assert back.products.schema == state.products.schema
    assert back.levels.schema == state.levels.schema
    assert repr(back) == repr(state)


@tiers.parametrize("lines", RECORDINGS.values(), every=4, ids=RECORDINGS.keys())
def test_what_was_loaded_goes_on_as_what_was_saved(tmp_path, lines):
    """Behind any state: a repeat, the next frames, a gap, a snapshot."""
    state = state_of(tmp_path, *lines)
    back = cb.BookState.load(state.save(tmp_path / "state.parquet"))
    number = state.stream.last + 1
    more = [
        *lines[-1:],
        *timeline.changes(number, number + 2, second=2000),
        *timeline.changes(number + 9, number + 9, second=2010, product_id="ETH-USD"),
        level2(number + 10, ETHER, second=2011),
    ]
    path = timeline.write(tmp_path, 2, *more)
    for start in (state, back):  # not changed by being started from
        level2_of = cb.scan_raw(path, "level2", start=start)
        assert level2_of.collect().equals(cb.scan_raw(path, "level2", start=state).collect())
        one, other = (cb.rebuild_book(level2_of, start=s).collect() for s in (start, state))
        assert one.equals(other)
        assert cb.BookState.read(path, start=start) == cb.BookState.read(path, start=state)
    alone = cb.BookState.read(path)
    assert back.then(alone) == state.then(alone)
    assert alone.then(back) == alone.then(state)


def test_a_state_without_anything(tmp_path):
    assert cb.BookState.load(cb.BookState().save(tmp_path / "state.parquet")) == cb.BookState()


def test_it_is_a_parquet_file_of_the_levels(state, tmp_path):
    path = state.save(tmp_path / "state.parquet")
    assert pl.read_parquet(path).equals(state.levels)
    told = orjson.loads(pl.read_parquet_metadata(path)[KEY])
    assert told["version"] == STATE_VERSION
    assert told["stream"]["last"] == 3


@pytest.mark.parametrize("kind", [str, Path])
def test_any_kind_of_path_and_folders_are_made(state, tmp_path, kind):
    path = tmp_path / "some" / "where" / "state"
    assert state.save(kind(path)) == path
    assert cb.BookState.load(kind(path)) == state
    assert [one.name for one in path.parent.iterdir()] == ["state"]


def test_equal_states_give_equal_files(state, tmp_path):
    one, other = state.save(tmp_path / "one"), cb.BookState.load(tmp_path / "one").save(tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()


# --- whole, or as before


def test_an_older_file_is_replaced(state, tmp_path):
    path = cb.BookState().save(tmp_path / "kept" / "state.parquet")
    state.save(path)
    assert cb.BookState.load(path) == state
    assert [one.name for one in path.parent.iterdir()] == ["state.parquet"]


@pytest.mark.parametrize("where", ["write_parquet", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_exception_while_writing_leaves_the_old_file(state, tmp_path, monkeypatch, where, error):
    path = cb.BookState().save(tmp_path / "kept" / "state.parquet")
    before = path.read_bytes()

    def breaks(*args, **more):
        raise error

    def breaks_half_way(frame, file, **more):
        Path(file).write_bytes(b"PAR1 and not much")
        raise error

    with monkeypatch.context() as patch:
        if where == "write_parquet":
            patch.setattr(pl.DataFrame, where, breaks_half_way)
        elif where == "fsync":
            patch.setattr(os, where, breaks)
        else:
            patch.setattr(Path, where, breaks)
        expected = cb.StateError if isinstance(error, OSError) else KeyboardInterrupt
        said = "cannot write the state to .*state.parquet: No space left on device"
        with pytest.raises(expected, match=said if expected is cb.StateError else None):
            state.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["state.parquet"]
    assert cb.BookState.load(state.save(path)) == state


@pytest.mark.ci
def test_a_crash_while_writing_leaves_the_old_file(state, tmp_path):
    """The process dies with half of the file written; what it leaves behind is in nobody's way."""
    path = cb.BookState().save(tmp_path / "_state" / "s.parquet")
    program = (
        "import os, sys, pathlib, polars as pl, cbtools as cb\n"
        "def dies(frame, file, **more):\n"
        "    pathlib.Path(file).write_bytes(b'PAR1 and not much')\n"
        "    os._exit(7)\n"
        "state = cb.BookState()\n"
        "pl.DataFrame.write_parquet = dies\n"
        "state.save(sys.argv[1])\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 7
    assert len(list(path.parent.iterdir())) == 2
    assert cb.BookState.load(path) == cb.BookState()
    assert [one.path for one in kept_states(tmp_path)[0]] == [path]
    state.save(path)
    assert cb.BookState.load(path) == state
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("place", ["file/state.parquet", "."])
def test_a_place_that_cannot_be_written_to(state, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(cb.StateError, match="cannot write the state to "):
        state.save(tmp_path / place)
    assert sorted(tmp_path.iterdir()) == before


# --- what cannot be loaded


def with_head(path: Path, told: object) -> Path:
    cb.BookState().levels.write_parquet(path, metadata={KEY: orjson.dumps(told).decode()})
    return path


@pytest.mark.parametrize("version", [STATE_VERSION + 1, 0, None, "1"])
def test_a_state_of_another_version(tmp_path, version):
    path = with_head(tmp_path / "state.parquet", {"version": version})
    with pytest.raises(cb.StateError) as caught:
        cb.BookState.load(path)
    said = str(caught.value)
    assert said.startswith(f"{path} is a state of version {version}, and this cbtools reads version 3, ")
    assert said.endswith(": read its segments again")
    assert STATE_VERSION == 3


def test_a_state_of_the_version_before(state, tmp_path):
    """Whole, but without what the breaks are known by: it is not read as if it were known."""
    path = state.save(tmp_path / "state.parquet")
    told = orjson.loads(pl.read_parquet_metadata(path)[KEY])
    del told["stream"]["unmarked"]
    old = told | {"version": 2}
    state.levels.write_parquet(path, metadata={KEY: orjson.dumps(old).decode()})
    with pytest.raises(cb.StateError, match=r"version 2, .*reads version 3, .*: read its segments again"):
        cb.BookState.load(path)
    lacking = told | {"version": 3}
    state.levels.write_parquet(path, metadata={KEY: orjson.dumps(lacking).decode()})
    with pytest.raises(cb.StateError, match="is damaged"):
        cb.BookState.load(path)


def test_a_state_that_is_not_there(tmp_path):
    path = tmp_path / "nowhere" / "state.parquet"
    with pytest.raises(cb.StateError) as caught:
        cb.BookState.load(path)
    assert str(caught.value) == f"there is no state {path}"


def test_a_parquet_file_that_is_no_state(tmp_path):
    path = tmp_path / "other.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(path)
    with pytest.raises(cb.StateError) as caught:
        cb.BookState.load(path)
    assert str(caught.value) == f"{path} is not a saved BookState"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"junk" * 100])
def test_a_file_that_is_no_parquet(tmp_path, content):
    path = tmp_path / "junk.parquet"
    path.write_bytes(content)
    with pytest.raises(cb.StateError, match=r"junk.parquet cannot be read: .*\. Read its segments again"):
        cb.BookState.load(path)


def test_a_folder(tmp_path):
    with pytest.raises(cb.StateError, match="cannot be read"):
        cb.BookState.load(tmp_path)


def test_a_state_that_was_cut_short(state, tmp_path):
    path = state.save(tmp_path / "state.parquet")
    whole = path.read_bytes()
    for n in (1, 8, len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:-n])
        with pytest.raises(cb.StateError, match="cannot be read"):
            cb.BookState.load(path)


def test_a_state_whose_levels_are_damaged(tmp_path):
    """The head can be read: the damage shows with the levels."""
    state = state_of(tmp_path, level2(0, SNAPSHOT), *timeline.changes(1, 900))
    path = state.save(tmp_path / "state.parquet")
    whole = bytearray(path.read_bytes())
    whole[10:100] = bytes(90)
    path.write_bytes(whole)
    with pytest.raises(cb.StateError, match=r"state.parquet is damaged: .*Read its segments again"):
        cb.BookState.load(path)


@pytest.mark.parametrize(
    "told", [{"version": STATE_VERSION}, {"version": STATE_VERSION, "products": [], "stream": {"a": 1}}]
)
def test_a_head_that_lacks_what_belongs_in_it(tmp_path, told):
    with pytest.raises(cb.StateError, match="is damaged"):
        cb.BookState.load(with_head(tmp_path / "state.parquet", told))


def test_a_folder_s_name_is_no_pattern(tmp_path):
    state = cb.BookState.read(cb.sample_path())
    path = state.save(tmp_path / "a[1]*" / "state.parquet")
    assert cb.BookState.load(path) == state
