"""Pins the oracle of the book itself: what it must give, written out by hand from the meaning of a book."""

import pytest
import wire
from oracles import book as oracle
from oracles import raw
from oracles import trades as trade_oracle

NOON = 1_772_600_767_000_000_000
SECOND = 1_000_000_000
FRAME = {"stream": None, "connection": 1, "product_id": "BTC-USD", "unbroken_since": NOON}


def frame(number, *levels, **more):
    """Write the rows of a frame, a second after the one before it; a level is (side, price, size)."""
    told = {
        "is_snapshot": False,
        "server_time": NOON + number * SECOND,
        "capture_time": NOON + number * SECOND + 7,
        "sequence_num": number,
        "line": number + 1,
    }
    return [
        {**FRAME, **told, "side": side, "price": price, "size": size, **more} for side, price, size in levels
    ]


def snapshot(number, *levels, **more):
    return frame(number, *levels, is_snapshot=True, **more)


NOTHING = (None, None, None)


def gap(number, **more):
    """Write the marker of a break; the run after it is named by the frame."""
    return frame(number, NOTHING, **{"unbroken_since": NOON + number} | more)


def cleared(number, **more):
    """Write the marker of an empty snapshot."""
    return snapshot(number, NOTHING, **more)


def bid(price, size=1.0):
    return ("bid", price, size)


def ask(price, size=1.0):
    return ("ask", price, size)


BOTH = bid(99.0), bid(98.0, 2.0), ask(101.0, 3.0), ask(102.0, 4.0)


def rebuild(*frames, depth=1, **options):
    return oracle.rebuild((row for one in frames for row in one), depth=depth, **options)


def of(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def best(rows):
    return of(rows, "bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1")


def states(rows):
    return [row["book_state"] for row in rows]


def seconds(rows):
    """Give the names of the snapshots rested on, in seconds (and 7 ns) after noon."""
    names = [row["proven_since"] for row in rows]
    return [None if name is None else (name - 7 - NOON) / SECOND for name in names]


# --- rows and columns


def test_a_row_in_full():
    rows = rebuild(snapshot(0, *BOTH), frame(5, bid(99.5, 0.25), line=3), depth=2, bands_bps=(75, 200.5))
    first = {
        "product_id": "BTC-USD",
        "server_time": NOON,
        "capture_time": NOON + 7,
        "sequence_num": 0,
        "stream": None,
        "connection": 1,
        "line": 1,
        "bid_price_1": 99.0,
        "bid_price_2": 98.0,
        "bid_size_1": 1.0,
        "bid_size_2": 2.0,
        "ask_price_1": 101.0,
        "ask_price_2": 102.0,
        "ask_size_1": 3.0,
        "ask_size_2": 4.0,
        "n_bids": 2,
        "n_asks": 2,
        "book_state": "ok",
        "proven_since": NOON + 7,
        # the mid is 100: bids and asks are 100 and 200 bps from it
        "bid_depth_75bps": 0.0,
        "ask_depth_75bps": 0.0,
        "imbalance_75bps": None,
        "bid_depth_200.5bps": 3.0,
        "ask_depth_200.5bps": 7.0,
        "imbalance_200.5bps": -0.4,
    }
    second = {
        "product_id": "BTC-USD",
        "server_time": NOON + 5 * SECOND,
        "capture_time": NOON + 5 * SECOND + 7,
        "sequence_num": 5,
        "stream": None,
        "connection": 1,
        "line": 3,
        "bid_price_1": 99.5,
        "bid_price_2": 99.0,
        "bid_size_1": 0.25,
        "bid_size_2": 1.0,
        "ask_price_1": 101.0,
        "ask_price_2": 102.0,
        "ask_size_1": 3.0,
        "ask_size_2": 4.0,
        "n_bids": 3,
        "n_asks": 2,
        "book_state": "ok",
        "proven_since": NOON + 7,
        # the mid is 100.25: 74.8 bps to the best, 124.7 and 174.6 to the second, 224.4 to the third bid
        "bid_depth_75bps": 0.25,
        "ask_depth_75bps": 3.0,
        "imbalance_75bps": -2.75 / 3.25,
        "bid_depth_200.5bps": 1.25,
        "ask_depth_200.5bps": 7.0,
        "imbalance_200.5bps": -5.75 / 8.25,
    }
    assert rows == [first, second]
    assert [list(row) for row in rows] == [list(first)] * 2  # the order of the columns, too


def test_a_message_is_one_row_and_nothing_in_between_is_told():
    """Bids move through asks within the message: crossed at no time that counts."""
    rows = rebuild(snapshot(0, *BOTH), frame(1, bid(101.5), ask(101.0, 0.0), ask(103.0), ask(102.0, 0.0)))
    assert best(rows) == [(99.0, 1.0, 101.0, 3.0), (101.5, 1.0, 103.0, 1.0)]
    assert states(rows) == ["ok", "ok"]


def test_two_events_of_a_product_in_a_frame_are_one_message():
    """A B A in one frame: one row of A with both of its events, then one of B."""
    eth = {"product_id": "ETH-USD"}
    rows = rebuild(
        snapshot(0, bid(1.0), ask(2.0), **eth),
        snapshot(1, *BOTH),
        [*frame(2, bid(99.5)), *frame(2, ask(1.5), **eth), *frame(2, ask(100.5))],
    )
    assert of(rows, "product_id", "line") == [("ETH-USD", 1), ("BTC-USD", 2), ("BTC-USD", 3), ("ETH-USD", 3)]
    assert best(rows)[2:] == [(99.5, 1.0, 100.5, 1.0), (1.0, 1.0, 1.5, 1.0)]


@pytest.mark.parametrize(
    "other",
    [
        {"line": 9},
        {"connection": 2},
        {"stream": "a00"},
        {"sequence_num": None},
        {"server_time": None},
        {"capture_time": None},
    ],
)
def test_whatever_tells_frames_apart_tells_messages_apart(other):
    assert len(rebuild(snapshot(0, *BOTH), frame(1, bid(1.0)), frame(1, bid(2.0)))) == 2
    assert len(rebuild(snapshot(0, *BOTH), frame(1, bid(1.0)), frame(1, bid(2.0), **other))) == 3


def test_a_new_run_within_a_frame_is_a_new_message():
    rows = rebuild(snapshot(0, *BOTH), frame(1, bid(1.0)), frame(1, bid(2.0), unbroken_since=NOON + 1))
    assert states(rows) == ["ok", "ok", "unproven"]


def test_fewer_levels_than_columns_are_null():
    (row,) = rebuild(snapshot(0, bid(9.0, 2.0)), depth=2)
    assert of([row], "bid_price_1", "bid_price_2", "bid_size_1", "bid_size_2") == [(9.0, None, 2.0, None)]
    assert of([row], "ask_price_1", "ask_price_2", "ask_size_1", "ask_size_2") == [(None,) * 4]
    assert of([row], "n_bids", "n_asks", "book_state") == [(1, 0, "one_sided")]


# --- applying


def test_the_last_write_wins():
    rows = rebuild(snapshot(0, *BOTH, bid(99.0, 5.0)), frame(1, bid(99.0, 6.0), bid(99.0, 7.0)))
    assert best(rows) == [(99.0, 5.0, 101.0, 3.0), (99.0, 7.0, 101.0, 3.0)]
    rows = rebuild(
        snapshot(0, *BOTH), frame(1, bid(99.0, 0.0), bid(99.0, 8.0), ask(101.0, 9.0), ask(101.0, 0.0))
    )
    assert best(rows)[1:] == [(99.0, 8.0, 102.0, 4.0)]


def test_a_snapshot_replaces_both_sides():
    rows = rebuild(snapshot(0, *BOTH), snapshot(1, bid(50.0)))
    assert of(rows, "bid_price_1", "ask_price_1", "n_bids", "n_asks") == [
        (99.0, 101.0, 2, 2),
        (50.0, None, 1, 0),
    ]


def test_each_run_of_snapshot_rows_in_a_message_clears_anew():
    books = {}
    rows = rebuild(
        [*snapshot(0, bid(90.0)), *frame(0, bid(91.0)), *snapshot(0, ask(95.0)), *snapshot(0, ask(96.0))],
        books=books,
    )
    assert of(rows, "n_bids", "n_asks", "ask_price_1") == [(0, 2, 95.0)]
    assert (books["BTC-USD"].messages, books["BTC-USD"].snapshots) == (1, 1)


def test_a_snapshot_s_level_of_size_0_is_none():
    books = {}
    rows = rebuild(snapshot(0, *BOTH, bid(99.5, 0.0), ask(101.0, 0.0)), books=books)
    assert of(rows, "bid_price_1", "n_bids", "ask_price_1", "n_asks") == [(99.0, 2, 102.0, 1)]
    assert books["BTC-USD"].absent_deletes == 0


def test_absent_deletes_are_counted():
    books = {}
    rebuild(
        frame(0, bid(7.0, 0.0)),  # no book yet
        [*frame(1, bid(7.0, 0.0)), *snapshot(1, *BOTH)],  # nor here
        frame(2, bid(101.0, 0.0), ask(99.0, 0.0)),  # both are levels of the other side
        frame(3, bid(99.0, 0.0), bid(99.0, 0.0)),
        [*snapshot(4, *BOTH), *frame(4, bid(97.0, 0.0), bid(98.0, 0.0))],
        books=books,
    )
    counted = books["BTC-USD"]
    assert (counted.absent_deletes, counted.early_changes) == (2 + 1 + 1, 1)
    assert (counted.messages, counted.snapshots) == (5, 2)


def test_updates_before_the_first_snapshot_give_no_row():
    books = {}
    early = frame(0, *BOTH, bid(97.0, 0.0)), frame(1, bid(1.0))
    assert rebuild(*early, books=books) == []
    assert books["BTC-USD"].early_changes == 6
    assert books["BTC-USD"].absent_deletes == 0
    # what they did is kept, deletions too
    sizes = [(level["side"], level["price"], level["size"]) for level in oracle.levels(books)]
    assert sizes == [
        ("bid", 1.0, 1.0),
        ("bid", 97.0, 0.0),
        ("bid", 98.0, 2.0),
        ("bid", 99.0, 1.0),
        ("ask", 101.0, 3.0),
        ("ask", 102.0, 4.0),
    ]
    # and the snapshot clears all of it
    assert of(rebuild(snapshot(2, bid(5.0)), books=books), "bid_price_1", "n_bids") == [(5.0, 1)]


def test_a_message_that_ends_with_its_first_snapshot_gives_a_row():
    rows = rebuild([*frame(0, bid(200.0)), *snapshot(0, *BOTH), *frame(0, bid(99.5))])
    assert best(rows) == [(99.5, 1.0, 101.0, 3.0)]


def test_prices_are_equal_as_doubles():
    near = 0.1 + 0.2  # not 0.3
    rows = rebuild(snapshot(0, bid(0.3), bid(near, 2.0)), frame(1, bid(near, 0.0)), frame(2, bid(3e-1, 4.0)))
    assert of(rows, "bid_price_1", "bid_size_1", "n_bids") == [(near, 2.0, 2), (0.3, 1.0, 1), (0.3, 4.0, 1)]


def test_levels_are_sorted():
    books = {}
    rebuild(snapshot(0, *BOTH), snapshot(1, bid(1.0), product_id="A"), frame(2, bid(98.0, 0.0)), books=books)
    assert [tuple(level.values()) for level in oracle.levels(books)] == [
        ("A", "bid", 1.0, 1.0),
        ("BTC-USD", "bid", 99.0, 1.0),
        ("BTC-USD", "ask", 101.0, 3.0),
        ("BTC-USD", "ask", 102.0, 4.0),
    ]


# --- states


def test_each_state():
    rows = rebuild(
        snapshot(0, *BOTH),
        frame(1, bid(101.0)),  # bid = ask
        frame(2, bid(102.0)),
        frame(3, ask(101.0, 0.0), ask(102.0, 0.0)),
        frame(4, *(bid(price, 0.0) for price in (98.0, 99.0, 101.0, 102.0))),
        frame(5, ask(7.0)),
        frame(6, bid(6.0)),
    )
    assert states(rows) == ["ok", "crossed", "crossed", "one_sided", "empty", "one_sided", "ok"]
    assert seconds(rows) == [0] * 7
    assert best(rows)[2:4] == [(102.0, 1.0, 101.0, 3.0), (102.0, 1.0, None, None)]


def test_bands_are_null_where_the_book_is_not_ok():
    rows = rebuild(
        snapshot(0, *BOTH),
        frame(1, bid(101.0)),
        frame(2, bid(101.0, 0.0), unbroken_since=NOON + 1),
        bands_bps=(1000,),
    )
    bands = of(rows, "bid_depth_1000bps", "ask_depth_1000bps", "imbalance_1000bps")
    assert bands == [(3.0, 7.0, -0.4), (None, None, None), (None, None, None)]


def test_sums_go_from_the_best_outwards():
    """In the other order the small ones would not get lost."""
    rows = rebuild(
        snapshot(0, *(bid(price, 1.0) for price in range(1, 9)), bid(9.0, 1e16), ask(10.0)), bands_bps=(1e5,)
    )
    assert of(rows, "bid_depth_100000bps") == [(1e16,)]


def test_the_edge_of_a_band_is_within_it():
    rows = rebuild(snapshot(0, *BOTH), bands_bps=(100, 99.99, 0))
    assert of(rows, "bid_depth_100bps", "bid_depth_99.99bps", "bid_depth_0bps") == [(1.0, 0.0, 0.0)]
    assert of(rows, "ask_depth_100bps", "ask_depth_99.99bps", "ask_depth_0bps") == [(3.0, 0.0, 0.0)]


def test_a_gap_unproves_until_the_next_snapshot():
    rows = rebuild(
        snapshot(0, *BOTH),
        frame(1, bid(99.5)),
        frame(3, bid(100.0), unbroken_since=NOON + 3),
        frame(4, bid(100.5), unbroken_since=NOON + 3),
        snapshot(5, *BOTH, unbroken_since=NOON + 3),
        frame(6, bid(99.5), unbroken_since=NOON + 3),
    )
    assert states(rows) == ["ok", "ok", "unproven", "unproven", "ok", "ok"]
    assert seconds(rows) == [0, 0, None, None, 5, 5]
    assert best(rows)[2] == (100.0, 1.0, 101.0, 3.0)  # shown as it is


def test_a_run_that_comes_back_proves_nothing():
    """No stream has such; a frame that belongs to neither run may be missing."""
    rows = rebuild(snapshot(0, *BOTH), frame(1, bid(1.0), unbroken_since=0), frame(2, bid(2.0)))
    assert states(rows) == ["ok", "unproven", "unproven"]


def test_numbers_of_another_run_are_not_compared():
    """A connection in between counts anew, and its own snapshot proves."""
    rows = rebuild(
        snapshot(7, *BOTH),
        frame(8, bid(1.0)),
        snapshot(2, *BOTH, unbroken_since=NOON + 9),
        frame(3, bid(2.0), unbroken_since=NOON + 9),
    )
    assert states(rows) == ["ok", "ok", "ok", "ok"]


def test_another_product_s_gap_is_none():
    rows = rebuild(
        snapshot(0, *BOTH),
        snapshot(1, *BOTH, product_id="A"),
        frame(2, bid(1.0), product_id="A", unbroken_since=NOON + 2),
        frame(3, bid(1.0)),
    )
    assert states(rows) == ["ok", "ok", "unproven", "ok"]


def test_rows_out_of_order_prove_nothing_until_the_next_snapshot():
    rows = rebuild(
        snapshot(0, *BOTH),
        frame(5, bid(1.0)),
        frame(4, bid(2.0)),
        frame(6, bid(3.0)),
        snapshot(3, *BOTH),  # numbered before: it may be a part of one, in the order of another column
        frame(4, bid(1.0)),
        snapshot(7, *BOTH),
        frame(8, bid(1.0)),
    )
    assert states(rows) == ["ok", "ok", *["unproven"] * 4, "ok", "ok"]


@pytest.mark.parametrize(
    "later",
    [
        frame(5, bid(1.0), line=9),  # equal
        frame(4, bid(1.0), sequence_num=None),
        frame(4, bid(1.0), product_id="A"),
    ],
)
def test_what_is_not_out_of_order(later):
    rows = rebuild(snapshot(0, *BOTH), frame(5, bid(1.0)), later, frame(6, bid(2.0)))
    assert set(states(rows)) == {"ok"}


def test_gaps_ignored():
    rows = rebuild(
        snapshot(0, *BOTH),
        frame(5, bid(99.5), unbroken_since=NOON + 5),
        frame(4, bid(101.0), unbroken_since=NOON + 5),
        gaps="ignore",
        bands_bps=(100,),
    )
    assert states(rows) == ["ok", "ok", "crossed"]
    assert seconds(rows) == [0, 0, 0]
    assert of(rows, "bid_depth_100bps") == [(1.0,), (1.0,), (None,)]


def test_gaps_dropped():
    run = {"unbroken_since": NOON + 2}
    frames = snapshot(0, *BOTH), frame(1, bid(101.0)), frame(2, bid(101.0, 0.0)), frame(3, bid(1.0), **run)
    # the rows in which the state ceases to be ok are kept
    assert of(rebuild(*frames, gaps="drop"), "sequence_num") == [(0,), (1,), (2,), (3,)]
    run_9 = {"unbroken_since": NOON + 8}
    frames += (
        frame(4, bid(2.0), **run),
        snapshot(5, bid(1.0), **run),
        frame(6, bid(2.0), **run),
        gap(7),
        gap(8),
        snapshot(9, *BOTH, **run_9),
        frame(10, bid(101.0), **run_9),
        frame(11, bid(101.5), **run_9),
        gap(12),
        snapshot(13, *BOTH, unbroken_since=NOON + 12),
        gap(14),
    )
    # neither unproven rows after the first nor one-sided ones are; that a one-sided book is broken is
    assert of(rebuild(*frames, gaps="drop")[4:], "sequence_num", "book_state") == [
        (7, "unproven"),
        (9, "ok"),
        (10, "crossed"),
        (12, "unproven"),
        (13, "ok"),
        (14, "unproven"),
    ]


def test_gaps_raise():
    frames = snapshot(0, *BOTH), frame(1, bid(101.0)), frame(2, bid(1.0), unbroken_since=NOON + 2)
    assert states(rebuild(*frames[:2], gaps="raise")) == ["ok", "crossed"]
    with pytest.raises(oracle.Unproven) as raised:
        rebuild(*frames, gaps="raise")
    assert of(raised.value.rows, "sequence_num") == [(0,), (1,)]


# --- markers


def test_a_break_alone_is_a_row_where_it_changes_the_state():
    rows = rebuild(
        gap(0),  # no book yet
        snapshot(1, *BOTH, unbroken_since=NOON),
        gap(3),
        gap(4),  # unproven already
        frame(5, bid(100.0), unbroken_since=NOON + 4),
        bands_bps=(1e3,),
    )
    assert of(rows, "sequence_num", "book_state") == [(1, "ok"), (3, "unproven"), (5, "unproven")]
    assert best(rows) == [(99.0, 1.0, 101.0, 3.0)] * 2 + [(100.0, 1.0, 101.0, 3.0)]
    assert seconds(rows) == [1, None, None]
    assert of(rows, "n_bids", "bid_depth_1000bps") == [(2, 3.0), (2, None), (3, None)]
    # the row tells of the frame that shows the break
    assert of(rows, "server_time", "line")[1] == (NOON + 3 * SECOND, 4)


@pytest.mark.parametrize(
    ("levels", "state"),
    [((bid(9.0),), "one_sided"), ((bid(9.0), ask(8.0)), "crossed"), ((NOTHING,), "empty")],
)
def test_every_state_is_ended_by_a_break(levels, state):
    assert states(rebuild(snapshot(0, *levels), gap(1))) == [state, "unproven"]


def test_a_break_and_the_changes_of_its_frame_are_one_message():
    run = {"unbroken_since": NOON + 2}
    rows = rebuild(snapshot(0, *BOTH), [*gap(2), *frame(2, bid(99.5), **run)], frame(3, bid(99.6), **run))
    assert of(rows, "sequence_num", "book_state") == [(0, "ok"), (2, "unproven"), (3, "unproven")]
    assert best(rows)[1] == (99.5, 1.0, 101.0, 3.0)
    # a snapshot in the same frame proves, as it comes after the break
    for levels, state in [(BOTH, "ok"), ((NOTHING,), "empty")]:
        rows = rebuild(snapshot(7, *BOTH), [*gap(2), *snapshot(2, *levels, **run)])
        assert states(rows) == ["ok", state]


def test_a_message_stands_where_its_first_row_does():
    """So a break moves the row of its product before those of the changes in the same frame."""
    eth, run = {"product_id": "ETH-USD"}, {"unbroken_since": NOON + 2}
    first = snapshot(0, *BOTH), snapshot(1, *BOTH, **eth)
    changes = [*frame(2, bid(9.0), **eth, **run), *frame(2, bid(9.0), **run)]
    for rows, products in [
        (rebuild(*first, changes), ["ETH-USD", "BTC-USD"]),
        (rebuild(*first, [*gap(2), *changes]), ["BTC-USD", "ETH-USD"]),
    ]:
        assert of(rows, "product_id", "book_state")[2:] == [(product, "unproven") for product in products]


def test_a_snapshot_after_a_break_proves_whatever_its_number():
    run = {"unbroken_since": NOON}  # one name throughout: only the markers show the breaks
    rows = rebuild(
        snapshot(7, *BOTH), gap(9, **run), snapshot(1, *BOTH), frame(2, bid(1.0)), frame(1, bid(2.0))
    )
    assert states(rows) == ["ok", "unproven", "ok", "ok", "unproven"]
    rows = rebuild(snapshot(7, *BOTH), [*gap(1, **run), *snapshot(1, *BOTH)], frame(2, bid(1.0)))
    assert states(rows) == ["ok", "ok", "ok"]
    # of a break alone, the number is not compared either
    rows = rebuild(snapshot(1, *BOTH), gap(9, **run), snapshot(5, *BOTH))
    assert states(rows) == ["ok", "unproven", "ok"]


def test_another_product_s_break_is_none():
    eth = {"product_id": "ETH-USD"}
    rows = rebuild(snapshot(0, *BOTH), snapshot(1, *BOTH, **eth), [*gap(3), *frame(3, bid(9.0), **eth)])
    assert of(rows, "product_id", "sequence_num", "book_state")[2:] == [
        ("BTC-USD", 3, "unproven"),
        ("ETH-USD", 3, "ok"),
    ]


@pytest.mark.parametrize("on", ["message", "bbo", "depth"])
def test_breaks_with_each_option(on):
    run = {"unbroken_since": NOON + 2}
    frames = snapshot(0, *BOTH), gap(2), snapshot(3, *BOTH, **run), gap(4), gap(5)
    names = "sequence_num", "book_state"
    both = [(0, "ok"), (2, "unproven"), (3, "ok"), (4, "unproven")]
    assert of(rebuild(*frames, on=on), *names) == both
    assert of(rebuild(*frames, on=on, gaps="drop"), *names) == both
    assert of(rebuild(*frames, on=on, gaps="ignore"), *names) == [(0, "ok"), (3, "ok")]
    with pytest.raises(oracle.Unproven) as raised:
        rebuild(*frames, on=on, gaps="raise")
    assert of(raised.value.rows, *names) == both[:1]


def test_breaks_ignored_leave_the_rows_of_changes():
    frames = snapshot(0, *BOTH), [*gap(2), *frame(2, bid(99.5), unbroken_since=NOON + 2)]
    assert states(rebuild(*frames, gaps="ignore")) == ["ok", "ok"]


def test_an_empty_snapshot_clears_and_is_a_row():
    for on in ("message", "bbo", "depth"):
        rows = rebuild(snapshot(0, *BOTH), cleared(1), cleared(2), on=on)
        assert of(rows, "sequence_num", "book_state", "n_bids", "bid_price_1") == [
            (0, "ok", 2, 99.0),
            (1, "empty", 0, None),
            (2, "empty", 0, None),
        ]
        assert seconds(rows) == [0, 1, 2]
    assert of(rebuild(snapshot(0, *BOTH), cleared(1), cleared(2), gaps="drop"), "sequence_num") == [
        (0,),
        (1,),
    ]


def test_an_empty_snapshot_comes_first():
    books = {}
    rows = rebuild(cleared(0), frame(1, bid(100.0)), frame(2, ask(101.0)), books=books)
    assert states(rows) == ["empty", "one_sided", "ok"]
    assert best(rows)[1:] == [(100.0, 1.0, None, None), (100.0, 1.0, 101.0, 1.0)]
    assert (books["BTC-USD"].messages, books["BTC-USD"].snapshots, books["BTC-USD"].early_changes) == (
        3,
        1,
        0,
    )


def test_what_stands_after_an_empty_snapshot_in_its_frame_applies_to_it():
    (_, row) = rebuild(
        snapshot(0, *BOTH), [*frame(1, bid(97.0)), *cleared(1), *frame(1, bid(50.0), ask(51.0))]
    )
    assert of([row], "bid_price_1", "ask_price_1", "n_bids", "book_state") == [(50.0, 51.0, 1, "ok")]


def test_a_marker_between_two_snapshots_of_a_frame_clears_again():
    (row,) = rebuild([*snapshot(0, *BOTH), *cleared(0), *snapshot(0, bid(50.0), ask(51.0))])
    assert of([row], "bid_price_1", "n_bids", "n_asks") == [(50.0, 1, 1)]
    (row,) = rebuild([*snapshot(0, *BOTH), *cleared(0)])
    assert of([row], "n_bids", "book_state") == [(0, "empty")]


def test_breaks_are_counted_and_are_no_messages():
    books = {}
    run, other = {"unbroken_since": NOON + 6}, {"unbroken_since": NOON + 10}

    def counted(*frames):
        rebuild(*frames, books=books)
        book = books["BTC-USD"]
        return book.breaks, book.messages, book.early_changes

    assert counted(gap(0)) == (0, 0, 0)  # nothing before it
    books.clear()
    assert counted(frame(0, bid(1.0))) == (0, 1, 1)
    assert counted([*gap(1, **run), *frame(1, bid(1.0), bid(2.0), **run)]) == (1, 2, 3)
    assert counted(gap(2)) == (1, 2, 3)  # broken already
    assert counted(snapshot(3, *BOTH, **run), gap(6)) == (2, 3, 3)
    assert counted(gap(7), frame(8, bid(1.0), **run)) == (2, 4, 3)
    # healed at once, and met all the same; a change of run and a number that falls are as good as a marker
    assert counted(snapshot(9, *BOTH, **run), [*gap(10), *snapshot(10, *BOTH, **other)]) == (3, 6, 3)
    assert counted(snapshot(11, *BOTH, unbroken_since=NOON + 11)) == (4, 7, 3)
    assert counted(frame(3, bid(1.0), unbroken_since=NOON + 11)) == (5, 8, 3)
    assert counted(snapshot(2, *BOTH, unbroken_since=NOON + 11)) == (5, 9, 3)  # not proven, and was not
    assert counted(snapshot(4, *BOTH, unbroken_since=NOON + 11)) == (5, 10, 3)
    assert books["BTC-USD"].proven


def as_rows(name):
    """Return the level2 rows of one of the recordings below."""
    return raw.decode([wire.segment(*RECORDINGS[name])]).rows["level2"]


def at(second):
    return f"2025-11-26T14:00:{second:02d}Z"


def l2(number, second, *levels, kind="update"):
    event = wire.book("A-USD", *(wire.update(*level) for level in levels), kind=kind)
    return wire.l2(number, event, timestamp=at(second))


def print_of(number, second, happened):
    one = wire.trade(str(number), time=at(happened), product_id="A-USD")
    return wire.trades(number, one, timestamp=at(second))


FULL = ("bid", "100", "1"), ("offer", "101", "1")
RECORDINGS = {
    "gap, then trades": (
        l2(0, 0, *FULL, kind="snapshot"),
        print_of(8, 8, 8),
        print_of(9, 9, 9),
        l2(10, 10, ("bid", "99", "1")),
    ),
    "reconnect, then trades": (
        l2(0, 0, *FULL, kind="snapshot"),
        l2(1, 1, ("bid", "99", "2")),
        print_of(2, 2, 2),
        print_of(0, 20, 0),
        print_of(1, 21, 1),
        l2(2, 22, ("bid", "100.2", "1"), ("offer", "100.9", "1"), kind="snapshot"),
    ),
    "empty snapshot first": (
        l2(0, 0, kind="snapshot"),
        l2(1, 1, ("bid", "100", "1")),
        l2(2, 2, ("offer", "101", "1")),
    ),
    "empty snapshot later": (
        l2(0, 0, *FULL, kind="snapshot"),
        l2(1, 1, kind="snapshot"),
        l2(2, 2, ("bid", "50", "1")),
        l2(3, 3, ("offer", "51", "1")),
    ),
    "reconnect with a snapshot": (l2(0, 0, *FULL, kind="snapshot"), l2(0, 9, *FULL, kind="snapshot")),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gap, then trades", [(1, "ok", 100.0), (2, "unproven", 100.0), (4, "unproven", 100.0)]),
        (
            "reconnect, then trades",
            [(1, "ok", 100.0), (2, "ok", 100.0), (4, "unproven", 100.0), (6, "ok", 100.2)],
        ),
        ("empty snapshot first", [(1, "empty", None), (2, "one_sided", 100.0), (3, "ok", 100.0)]),
        (
            "empty snapshot later",
            [(1, "ok", 100.0), (2, "empty", None), (3, "one_sided", 50.0), (4, "ok", 50.0)],
        ),
        ("reconnect with a snapshot", [(1, "ok", 100.0), (2, "ok", 100.0)]),
    ],
)
def test_books_of_recordings(name, expected):
    rows = as_rows(name)
    book = rebuild(rows)
    assert of(book, "line", "book_state", "bid_price_1") == expected
    # the rows of changes are the same where only the names of the runs tell of the breaks
    breaks = [row for row in rows if oracle.is_break(row)]
    lines = {row["line"] for row in rows if row not in breaks}
    assert rebuild([row for row in rows if row not in breaks]) == [
        row for row in book if row["line"] in lines
    ]
    # nothing but the names of the runs tells that rows are missing where the markers do not
    one_name = [row | {"unbroken_since": NOON} for row in rows]
    assert rebuild(one_name) == book


def test_trades_after_a_break_have_no_quote():
    for name, expected in [
        ("gap, then trades", [None, None]),
        ("reconnect, then trades", [100.5, None, None]),
    ]:
        tables = raw.decode([wire.segment(*RECORDINGS[name])]).rows
        book = rebuild(tables["level2"])
        for clock in ("exchange", "receive"):
            joined = trade_oracle.join_quotes(tables["market_trades"], book, clock=clock)
            assert [row["mid"] for row in joined] == expected


# --- the name of the snapshot that a book rests on


def test_a_snapshot_is_named_by_its_receipt():
    bare = {"capture_time": None}
    rows = rebuild(
        snapshot(0, *BOTH), snapshot(1, *BOTH, **bare), snapshot(2, *BOTH, **bare, server_time=None)
    )
    assert of(rows, "proven_since") == [(NOON + 7,), (NOON + SECOND,), (NOON + SECOND + 1,)]
    (row,) = rebuild(snapshot(0, *BOTH, **bare, server_time=None))
    assert row["proven_since"] == 0


def test_names_always_grow():
    rows = rebuild(
        snapshot(5, *BOTH),
        snapshot(5, *BOTH, line=8),  # received at the same time
        snapshot(4, *BOTH, sequence_num=6),  # and earlier
        snapshot(5, *BOTH, sequence_num=6),  # as the first
        [*snapshot(6, *BOTH), *frame(6, bid(1.0)), *snapshot(6, *BOTH)],  # two in one message
    )
    name = NOON + 5 * SECOND + 7
    assert of(rows, "proven_since") == [(name,), (name + 1,), (name + 2,), (name + 3,), (name + SECOND,)]
    rows = rebuild(snapshot(5, *BOTH), snapshot(6, *BOTH, product_id="A", capture_time=3))
    assert of(rows, "proven_since") == [(name,), (3,)]


# --- which messages are told

CHANGES = (
    snapshot(0, *BOTH),  # told
    frame(1, bid(97.0)),  # third bid
    frame(2, bid(98.0, 5.0)),  # size of the second
    frame(3, bid(99.0, 1.5)),  # size of the best
    frame(4, ask(100.5)),  # best ask
    frame(5, ask(100.5, 0.0)),
    frame(6, ask(102.0, 0.0)),  # second ask gone
    snapshot(7, bid(99.0, 1.5), bid(98.0, 5.0), ask(101.0, 3.0)),  # the name alone
    frame(8, bid(90.0), unbroken_since=NOON + 8),  # the state alone
    frame(9, bid(80.0), unbroken_since=NOON + 8),
)


@pytest.mark.parametrize(
    ("on", "depth", "told"),
    [
        ("message", 2, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("bbo", 2, [0, 3, 4, 5, 7, 8]),
        ("bbo", 1, [0, 3, 4, 5, 7, 8]),
        ("depth", 1, [0, 3, 4, 5, 7, 8]),
        ("depth", 2, [0, 2, 3, 4, 5, 6, 7, 8]),
        ("depth", 3, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("depth", 4, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_told_are(on, depth, told):
    assert of(rebuild(*CHANGES, depth=depth, on=on), "sequence_num") == [(number,) for number in told]
    # a row is told as it is, however few are
    every = rebuild(*CHANGES, depth=depth)
    assert rebuild(*CHANGES, depth=depth, on=on) == [every[number] for number in told]


def test_told_are_changes_since_the_message_before_not_since_the_row_before():
    """What is dropped, and what another product does, still counts as before."""
    eth = {"product_id": "ETH-USD"}
    frames = (
        snapshot(0, *BOTH),
        snapshot(1, *BOTH, **eth),
        frame(2, bid(1.0)),
        frame(3, bid(101.0)),
        frame(4, bid(1.5)),
    )
    assert of(rebuild(*frames, on="bbo"), "sequence_num") == [(0,), (1,), (3,)]
    assert of(rebuild(*frames, on="bbo", gaps="drop"), "sequence_num") == [(0,), (1,), (3,)]
    frames += frame(5, bid(101.5)), frame(6, bid(101.5, 0.0), bid(101.0, 0.0)), frame(7, bid(2.0))
    kept = rebuild(*frames, on="bbo", gaps="drop")
    assert of(kept, "sequence_num") == [(0,), (1,), (3,), (6,)]


def test_a_gap_ignored_is_no_change():
    rows = rebuild(*CHANGES, on="bbo", gaps="ignore")
    assert of(rows, "sequence_num") == [(0,), (3,), (4,), (5,), (7,)]


@pytest.mark.parametrize("on", ["message", "bbo", "depth"])
@pytest.mark.parametrize("cut", range(len(CHANGES) + 1))
def test_it_goes_on_from_the_books_before(on, cut):
    books = {}
    first = rebuild(*CHANGES[:cut], depth=2, on=on, books=books)
    second = rebuild(*CHANGES[cut:], depth=2, on=on, books=books)
    assert first + second == rebuild(*CHANGES, depth=2, on=on)
