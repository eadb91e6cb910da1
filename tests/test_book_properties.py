"""Random order flow: whatever the rows are, and however they are cut, the book is the oracle's.

Short flows are played by hypothesis, so that a failure shrinks; longer ones come from a seed.
"""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import book_laws
import laws
import polars as pl
import pytest
import tiers
import wire
from book_flows import BREAKS, GAPS, NOON, ON, PRODUCTS, SIZES, Feed, cut, flow, frames, lines, options
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from oracles import book as oracle
from oracles import raw

import cbtools as cb
from cbtools.lazy import source

DICE = st.randoms(use_true_random=False)
SEEDS = st.integers(0, 2**32).map(random.Random)


# --- the rows are the oracle's


def starts(rows):
    """Tell where a frame ends and the next begins, both ends of the table included."""
    names = [*oracle.TOLD]
    edges = [k for k in range(1, len(rows)) if any(rows[k][name] != rows[k - 1][name] for name in names)]
    return [0, *edges, len(rows)]


def told(number, rows, product_id="A"):
    """Make a frame of levels: (is_snapshot, side, price, size)."""
    frame = {"sequence_num": number, "server_time": None, "capture_time": NOON + number, "event_time": None}
    frame |= {"product_id": product_id, "stream": None, "connection": 1, "line": number + 1}
    frame |= {"unbroken_since": NOON}
    return [dict(zip(("is_snapshot", "side", "price", "size"), row, strict=True)) | frame for row in rows]


@pytest.mark.slow
@tiers.examples(53, suppress=HealthCheck)
@given(DICE)
def test_short_flows(dice):
    level2, rows = flow(dice, dice.randint(0, 10))
    book_laws.same_as_oracle(level2, rows, **options(dice))


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(SEEDS)
def test_long_flows(dice):
    level2, rows = flow(dice, dice.choice([30, 100, 300]))
    book_laws.same_as_oracle(level2.lazy(), rows, **options(dice))


@tiers.parametrize("on", ON, every=2)
@tiers.parametrize("gaps", GAPS, every=2)
@tiers.parametrize("depth", [1, 2, 10, 40], every=2)
def test_every_option(on, gaps, depth):
    for seed in range(5):
        level2, rows = flow(random.Random(seed), 60)
        book_laws.same_as_oracle(level2, rows, on=on, gaps=gaps, depth=depth, bands_bps=(1, 1e4))


def test_flows_reach_every_state():
    """What the laws here are tried on: else they would hold of nothing."""
    found, counts = {}, dict.fromkeys(("absent_deletes", "early_changes", "snapshots", "breaks"), 0)
    for seed in range(60):
        books = {}
        for row in oracle.rebuild(flow(random.Random(seed), 100)[1], books=books):
            found[row["book_state"]] = found.get(row["book_state"], 0) + 1
        for name in counts:
            counts[name] += sum(getattr(book, name) for book in books.values())
    assert found.keys() == set(book_laws.STATE.categories)
    assert min(found.values()) > 50
    assert min(counts.values()) > 100


@pytest.mark.parametrize("as_decoded", [False, True])
def test_flows_have_every_kind_of_marker(as_decoded):
    """Of a break alone in its frame, before changes, before a snapshot; and snapshots without levels."""
    kinds = Counter()
    for seed in range(60):
        for message in oracle.messages(flow(random.Random(seed), 60, as_decoded=as_decoded)[1]):
            of_rows = ["break" if oracle.is_break(row) else row["is_snapshot"] for row in message]
            markers = [place for place, row in enumerate(message) if oracle.is_marker(row)]
            kinds["only a break"] += oracle.is_only_a_break(message)
            kinds["a break, then changes"] += of_rows[:2] == ["break", False]
            kinds["a break, then a snapshot"] += of_rows[:2] == ["break", True]
            kinds["a break within"] += "break" in of_rows[1:]
            kinds["an empty snapshot"] += of_rows == [True] and markers == [0]
            kinds["a snapshot after another"] += any(
                of_rows[place - 1 : place + 2] == [True] * 3 for place in markers if place
            )
    if as_decoded:
        assert kinds.pop("a break within") == 0
    assert min(kinds.values()) > 20, kinds


@pytest.mark.slow
@tiers.examples(40, suppress=HealthCheck)
@given(SEEDS)
def test_without_the_markers_of_breaks_the_other_rows_stay(dice):
    level2, rows = flow(dice, dice.choice([5, 20, 60]), as_decoded=True)
    chosen = options(dice) | {"on": "message", "gaps": dice.choice(["mark", "ignore"])}
    book_laws.dropped_breaks_change_nothing(level2, **chosen)
    book_laws.same_as_oracle(level2, rows, **chosen)


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(SEEDS)
def test_what_drop_leaves_out(dice):
    """The last row kept of a product never says ok, or proven, of a book that has ceased to be so."""
    level2, _ = flow(dice, dice.choice([5, 20, 60]))
    chosen = options(dice) | {"on": "message"}
    marked = cb.rebuild_book(level2, **chosen | {"gaps": "mark"}).collect()
    dropped = cb.rebuild_book(level2, **chosen | {"gaps": "drop"}).collect()
    state, state_before = (c.cast(pl.String) for c in (pl.col("book_state"), pl.col("before")))
    ends = state_before.eq_missing("ok") | ((state == "unproven") & state_before.ne_missing("unproven"))
    before = pl.col("book_state").shift().over("product_id").alias("before")
    kept = marked.with_columns(before).filter((state == "ok") | ends).drop("before")
    laws.assert_same(dropped, kept, "book")


def test_a_message_goes_on_behind_another_product_s_run():
    """A B A in one frame, after a break of B alone: the runs differ, and each product has one message."""
    snapshots = [row for k, name in enumerate("AB") for row in told(k, [(True, "bid", 1.0, 1.0)], name)]
    middle = [row | {"unbroken_since": NOON + 9} for row in told(2, [(False, "bid", 3.0, 1.0)], "B")]
    change = [told(2, [(False, side, 2.0 + k, 1.0)], "A") for k, side in enumerate(("bid", "ask"))]
    rows = [*snapshots, *change[0], *middle, *change[1]]
    got = book_laws.same_as_oracle(book_laws.as_level2(rows), rows, depth=1)
    assert got.select("product_id", "line", "book_state").rows() == [
        ("A", 1, "one_sided"),
        ("B", 2, "one_sided"),
        ("A", 3, "ok"),
        ("B", 3, "unproven"),
    ]


@tiers.examples(17, suppress=HealthCheck)
@given(SEEDS)
def test_raise_at_the_first_unproven_row(dice):
    level2, rows = flow(dice, dice.choice([3, 10, 40]))
    on = dice.choice(ON)
    try:
        expected = oracle.rebuild(rows, depth=3, on=on, gaps="raise")
    except oracle.Unproven:
        with pytest.raises(cb.StateError):
            cb.rebuild_book(level2, depth=3, on=on, gaps="raise").collect()
    else:
        book_laws.same_rows(
            cb.rebuild_book(level2, depth=3, on=on, gaps="raise").collect(), expected, depth=3
        )


# --- books that outgrow what they were


@tiers.parametrize("snapshots", [10_000, 150], every=2)
def test_prices_that_never_come_again(snapshots):
    """Tens of thousands of prices, a few hundred at a time: those that are gone have to be forgotten."""
    dice = random.Random(snapshots)
    live: list[tuple[str, float]] = []
    rows = []
    for number in range(400):
        is_snapshot = number % snapshots == 0
        gone = [] if is_snapshot else [live.pop(dice.randrange(len(live))) for _ in range(len(live) // 3)]
        sides = [dice.choice(["bid", "ask"]) for _ in range(dice.choice([1, 60, 200]))]
        new = [(side, 1e4 + (dice.random() if side == "ask" else -dice.random())) for side in sides]
        live = [*([] if is_snapshot else live), *new]
        changes = [(*level, 0.0) for level in gone] + [(*level, dice.choice(SIZES)) for level in new]
        rows += told(number, [(is_snapshot, *change) for change in changes])
    rows += told(400, [(False, side, price, 0.0) for side, price in live])
    level2 = book_laws.as_level2(rows)
    assert level2["price"].n_unique() > 30_000
    for table in (level2, batched(dice, level2, 9_000)):
        got = book_laws.same_as_oracle(table, rows, depth=5, bands_bps=(0.5,), on=dice.choice(ON))
        assert got["book_state"][-1] == "empty"


@pytest.mark.parametrize("inwards", [True, False])
def test_a_deep_book_is_swept_and_filled(inwards):
    """Level by level, from the best on to the last one and back again, or the other way round."""
    count = 400
    bids = [("bid", 1000 - k / 8, 1.0 + k) for k in range(count)]
    asks = [("ask", 1001 + k / 8, 2.0 + k) for k in range(count)]
    order = [level for pair in zip(bids, asks, strict=True) for level in pair]
    if inwards:
        order.reverse()
    rows = told(0, [(True, *level) for level in bids + asks])
    rows += [
        row for k, (side, price, _) in enumerate(order, 1) for row in told(k, [(False, side, price, 0.0)])
    ]
    rows += [
        row for k, level in enumerate(reversed(order), len(order) + 1) for row in told(k, [(False, *level)])
    ]
    level2 = book_laws.as_level2(rows)
    got = book_laws.same_as_oracle(level2, rows, depth=3, bands_bps=(10,))
    assert got.height == 1 + 4 * count
    assert got.row(2 * count, named=True)["book_state"] == "empty"
    assert got.row(-1, named=True)["n_bids"] == count


# --- laws of the frame


def chunked(dice, frame):
    """Cut a frame into chunks, which stay as they are."""
    cuts = sorted(dice.randint(0, frame.height) for _ in range(dice.randint(0, 8)))
    parts = [frame[low:high] for low, high in pairwise([0, *cuts, frame.height])]
    return pl.concat(parts, rechunk=False)


def batched(dice, frame, most):
    """Give a frame lazily in batches of a few rows, some of none."""
    cuts = [0]
    while cuts[-1] < frame.height:
        cuts.append(min(frame.height, cuts[-1] + dice.randint(0, most)))

    def batches(columns, predicate):
        for low, high in pairwise(cuts):
            yield frame[low:high]

    return source(batches, frame.schema, "BATCHES")


@pytest.mark.slow
@tiers.examples(10, suppress=HealthCheck)
@given(SEEDS)
def test_the_cut_of_the_frame_does_not_matter(dice):
    level2, _ = flow(dice, dice.choice([3, 10, 30]))
    chosen = options(dice)
    whole = cb.rebuild_book(level2, **chosen).collect()
    cut = chunked(dice, level2)
    for other in (cut, cut.lazy(), batched(dice, level2, dice.choice([1, 2, 5, 20]))):
        laws.assert_same(cb.rebuild_book(other, **chosen).collect(), whole, "book")


@pytest.mark.slow
@tiers.examples(10, suppress=HealthCheck)
@given(SEEDS)
def test_products_do_not_mix(dice):
    level2, rows = flow(dice, dice.choice([5, 20, 60]))
    chosen = options(dice)
    book = cb.rebuild_book(level2, **chosen)
    for product_id in {row["product_id"] for row in rows}:
        is_its = pl.col("product_id") == product_id
        expected = book.collect().filter(is_its)
        laws.assert_same(cb.rebuild_book(level2.filter(is_its), **chosen).collect(), expected, product_id)
        laws.assert_same(cb.rebuild_book(level2.lazy().filter(is_its), **chosen).collect(), expected, "lazy")
        laws.assert_same(book.filter(is_its).collect(), expected, "predicate")


@pytest.mark.slow
@tiers.examples(10, suppress=HealthCheck)
@given(SEEDS)
def test_a_row_depends_on_nothing_later(dice):
    """A prefix of the frames gives a prefix of the rows; and half a message is a message of its own."""
    level2, rows = flow(dice, dice.choice([5, 20, 60]))
    chosen = options(dice)
    whole = cb.rebuild_book(level2, **chosen).collect()
    for _ in range(2):
        edge = dice.choice(starts(rows))
        got = cb.rebuild_book(level2[:edge], **chosen).collect()
        laws.assert_same(got, whole.head(got.height), "book")
        book_laws.same_as_oracle(level2[:edge], rows[:edge], **chosen)
        anywhere = dice.randint(0, len(rows))
        book_laws.same_as_oracle(level2[:anywhere], rows[:anywhere], **chosen)


@pytest.mark.slow
@tiers.examples(10, suppress=HealthCheck)
@given(SEEDS)
def test_a_query_may_be_narrowed(dice):
    """Columns, rows and a limit asked of the book are those of the whole."""
    level2, _ = flow(dice, dice.choice([5, 20, 60]))
    chosen = options(dice)
    book = cb.rebuild_book(batched(dice, level2, 50) if dice.random() < 0.5 else level2, **chosen)
    whole = book.collect()
    assert book.collect_schema() == whole.schema
    columns = dice.sample(whole.columns, dice.randint(1, 5))
    laws.assert_same(book.select(columns).collect(), whole.select(columns), "columns")
    conditions = [
        pl.col("book_state") == "ok",
        pl.col("bid_price_1") > 1,
        pl.col("n_asks") < 3,
        pl.col("product_id") == "BTC-USD",
        pl.col("product_id").is_in(["ETH-USD", "A"]) & (pl.col("line") > 4),
        pl.col("proven_since").is_null(),
    ]
    for condition in dice.sample(conditions, 3):
        laws.assert_same(book.filter(condition).collect(), whole.filter(condition), "rows")
        one = book.filter(condition).select(columns).collect()
        laws.assert_same(one, whole.filter(condition).select(columns), "rows of columns")
        some = book.filter(condition).head(3).collect()
        laws.assert_same(some, whole.filter(condition).head(3), "first of the rows")
    limit = dice.randint(0, 9)
    laws.assert_same(book.head(limit).collect(), whole.head(limit), "limit")
    laws.assert_same(book.select(columns).head(limit).collect(), whole.select(columns).head(limit), "both")
    assert book.select(pl.len()).collect().item() == whole.height


@pytest.mark.slow
@tiers.examples(10, suppress=HealthCheck)
@given(SEEDS)
def test_only_the_columns_of_the_book_are_needed(dice):
    """event_time is not, nor does anything behind the table's columns matter."""
    level2, _ = flow(dice, 20)
    chosen = options(dice)
    expected = cb.rebuild_book(level2, **chosen).collect()
    other = level2.drop("event_time").with_columns(segment=pl.lit("x"))
    laws.assert_same(cb.rebuild_book(other, **chosen).collect(), expected, "book")
    columns = dice.sample(other.columns, other.width)
    laws.assert_same(cb.rebuild_book(other.select(columns), **chosen).collect(), expected, "another order")


# --- the book at an instant


@tiers.examples(17, suppress=HealthCheck)
@given(SEEDS)
def test_book_at_is_the_book_of_the_messages_till_then(dice):
    """Times of receipt grow here, by microseconds, which is as fine as a datetime is."""
    drawn = frames(dice, dice.choice([5, 20, 40]))
    rows, now = [], NOON
    bare = dice.random() < 0.3
    for frame in drawn:
        now += dice.choice([0, 1000, 1000, 5000])
        times = {"server_time": now if bare else now + 10_000, "capture_time": None if bare else now}
        rows += [{**row, **times} for row in frame]
    if not rows:
        return
    level2 = book_laws.as_level2(rows)
    when = NOON + 1000 * dice.randint(-1, (now - NOON) // 1000 + 1)
    product_id = dice.choice(PRODUCTS)
    books: dict[str, oracle.Book] = {}
    till_then = [row for row in rows if (row["server_time"] if bare else row["capture_time"]) <= when]
    told_till_then = oracle.rebuild(till_then, depth=1, books=books)
    book = books.get(product_id, oracle.Book())
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=when // 1000)
    asked = dice.choice([instant, instant.replace(tzinfo=None), instant.isoformat()])
    if when > now and {row["product_id"] for row in rows} != {product_id}:
        with pytest.raises(cb.StateError):  # after the end
            cb.book_at(level2, asked, product_id)
        return
    if not book.has_book:
        with pytest.raises(cb.StateError):
            cb.book_at(level2, asked, product_id)
        return
    got = cb.book_at(dice.choice([level2, level2.lazy()]), asked, product_id)
    for side, frame in (("bid", got.bids), ("ask", got.asks)):
        assert frame.schema == {"price": pl.Float64, "size": pl.Float64}
        assert frame.rows() == book.best_first(side)
    told = oracle.shown(book, 1)
    assert (got.product_id, got.book_state) == (product_id, told["book_state"])
    last = [row for row in told_till_then if row["product_id"] == product_id][-1]
    assert (got.sequence_num, got.connection, got.line) == tuple(
        last[name] for name in ("sequence_num", "connection", "line")
    )


# --- recordings


def decoded(segments):
    """Read level2 with the oracle."""
    return raw.decode(segments).rows["level2"]


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(SEEDS)
def test_recordings(tmp_path, dice):
    """From the bytes to the book, oracle against package."""
    segments = cut(dice, lines(dice), dice.choice([1, 1, 3]))
    paths = laws.write_segments(segments, tmp_path)
    chunk_bytes = dice.choice([1, 150, 1000, 1 << 20])
    level2 = cb.scan_raw(paths, "level2", chunk_bytes=chunk_bytes)
    book_laws.same_as_oracle(level2, decoded(segments), **options(dice))


@pytest.mark.slow
@tiers.examples(10, suppress=HealthCheck)
@given(SEEDS)
def test_a_recording_s_products_do_not_mix(tmp_path, dice):
    paths = laws.write_segments(cut(dice, lines(dice), 2), tmp_path)
    chosen = options(dice)
    whole = cb.rebuild_book(cb.scan_raw(paths, "level2"), **chosen).collect()
    for product_id in PRODUCTS:
        one = cb.scan_raw(paths, "level2", products=[product_id])
        expected = whole.filter(pl.col("product_id") == product_id)
        laws.assert_same(cb.rebuild_book(one, **chosen).collect(), expected, product_id)


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(SEEDS)
def test_a_recording_without_its_markers_of_breaks(tmp_path, dice):
    paths = laws.write_segments([wire.segment(*lines(dice, 40))], tmp_path)
    chosen = options(dice) | {"on": "message", "gaps": dice.choice(["mark", "ignore"])}
    book_laws.dropped_breaks_change_nothing(cb.scan_raw(paths, "level2").collect(), **chosen)


def test_recordings_reach_every_state():
    found: dict[str, int] = {}
    breaks = empty_snapshots = 0
    for seed in range(100):
        level2 = decoded([wire.segment(*lines(random.Random(seed)))])
        breaks += sum(oracle.is_break(row) for row in level2)
        empty_snapshots += sum(oracle.is_marker(row) and row["is_snapshot"] for row in level2)
        for row in oracle.rebuild(level2):
            found[row["book_state"]] = found.get(row["book_state"], 0) + 1
    assert found.keys() == set(book_laws.STATE.categories)
    assert min(*found.values(), breaks, empty_snapshots) > 20


# --- states


@pytest.mark.slow
@tiers.examples(13, suppress=HealthCheck)
@given(SEEDS)
def test_segments_go_on_from_the_state_before(tmp_path, dice):
    """Each from the state after the one before, kept or saved: the rows, and the state, of the whole."""
    segments = cut(dice, lines(dice), dice.choice([2, 3, 5]))
    paths = laws.write_segments(segments, tmp_path)
    chosen = options(dice)
    whole = cb.rebuild_book(cb.scan_raw(paths, "level2"), **chosen).collect()
    state, parts = cb.BookState(), []
    for path in paths:
        level2 = cb.scan_raw(path, "level2", start=state)
        parts.append(cb.rebuild_book(level2, start=state, **chosen).collect())
        state = cb.BookState.read(path, start=state)
        if dice.random() < 0.5:
            state.save(tmp_path / "state")
            loaded = cb.BookState.load(tmp_path / "state")
            assert loaded == state
            state = loaded
    laws.assert_same(pl.concat(parts), whole, "book")
    assert state == cb.BookState.read(paths)


@tiers.examples(10, suppress=HealthCheck)
@given(SEEDS)
def test_raw_tables_go_on_from_the_state_before(tmp_path, dice):
    """Decoding goes on too: connections, runs and repeats are told as in one stream."""
    paths = laws.write_segments(cut(dice, lines(dice), 3), tmp_path)
    whole = cb.read_raw(paths).level2
    state, parts = cb.BookState(), []
    for path in paths:
        parts.append(cb.read_raw(path, start=state).level2)
        state = cb.BookState.read(path, start=state)
    laws.assert_same(pl.concat(parts), whole, "level2")


@tiers.examples(17, suppress=HealthCheck)
@given(SEEDS)
def test_a_state_is_what_the_messages_left(tmp_path, dice):
    segments = cut(dice, lines(dice), dice.choice([1, 2]))
    books: dict[str, oracle.Book] = {}
    oracle.rebuild(decoded(segments), depth=1, books=books)
    paths = laws.write_segments(segments, tmp_path)
    book_laws.same_state(cb.BookState.read(paths), books)
    # alone, the last is an effect: deletions that may hit what lies beneath are part of it
    alone: dict[str, oracle.Book] = {}
    oracle.rebuild(decoded(segments[-1:]), depth=1, books=alone)
    book_laws.same_state(cb.BookState.read(paths[-1]), alone)


@pytest.mark.slow
@tiers.examples(22, suppress=HealthCheck)
@given(SEEDS)
def test_then_is_associative_and_the_empty_state_is_neutral(tmp_path, dice):
    """Of segments that go on from each other, and of any."""
    if dice.random() < 0.5:
        segments = cut(dice, lines(dice, 40), 3)
    else:
        segments = [wire.segment(*lines(dice, 12)) for _ in range(3)]
    a, b, c = (cb.BookState.read(path) for path in laws.write_segments(segments, tmp_path))
    assert a.then(b).then(c) == a.then(b.then(c))
    for one in (a, b.then(c)):
        assert cb.BookState().then(one) == one
        assert one.then(cb.BookState()) == one


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(SEEDS)
def test_effects_side_by_side(tmp_path, dice):
    """What is proven of effects composed is proven of the stream, with the same levels; never more."""
    segments = cut(dice, lines(dice), dice.choice([2, 3]))
    paths = laws.write_segments(segments, tmp_path)
    together = cb.BookState.read(paths)
    composed = cb.BookState()
    for path in paths:
        composed = composed.then(cb.BookState.read(path))
    assert proven(composed) <= proven(together)
    for product_id in proven(composed):
        is_its = pl.col("product_id") == product_id
        laws.assert_same(composed.levels.filter(is_its), together.levels.filter(is_its), product_id)


@pytest.mark.slow
@tiers.examples(17, suppress=HealthCheck)
@given(SEEDS)
def test_then_is_reading_on(tmp_path, dice):
    """Where nothing is wrong around the cuts, the composed state is the stream's, and the stream goes on."""
    feed = Feed(dice, 0.0)
    drawn = [feed.line() for _ in range(dice.randint(2, 25))]
    paths = laws.write_segments(cut(dice, drawn, 3), tmp_path)
    one, other, third = (cb.BookState.read(path) for path in paths)
    state = one.then(other)
    assert state == cb.BookState.read(paths[:2])
    assert state == cb.BookState.read(paths[1], start=one)
    assert state.then(third) == cb.BookState.read(paths)
    chosen = options(dice)
    whole = cb.rebuild_book(cb.scan_raw(paths, "level2"), **chosen).collect()
    level2 = cb.scan_raw(paths[2], "level2", start=state)
    got = cb.rebuild_book(level2, start=state, **chosen).collect()
    laws.assert_same(got, whole.tail(got.height), "book")
    before = cb.rebuild_book(cb.scan_raw(paths[:2], "level2"), **chosen).collect()
    assert got.height + before.height == whole.height


@pytest.mark.slow
@tiers.examples(26, suppress=HealthCheck)
@given(SEEDS)
def test_a_recording_with_breaks_may_be_cut_anywhere(tmp_path, dice):
    """Gaps, connections, lost lines at or beside the cut: composed or read on, the state is the whole's.

    The effect of the rest, read alone, takes a repeat for a new connection; so there are none here.
    """
    feed = Feed(dice, dice.choice([0.1, 0.3, 0.5]))
    feed.kinds = [*BREAKS, "exchange"]
    drawn = [feed.line() for _ in range(dice.randint(2, 20))]
    (path,) = laws.write_segments([wire.segment(*drawn)], tmp_path)
    whole, level2 = cb.BookState.read(path), cb.read_raw(path).level2
    at = dice.randint(0, len(drawn))
    first, rest = laws.write_segments(
        [wire.segment(*drawn[:at]), wire.segment(*drawn[at:])], tmp_path / "cut"
    )
    state = cb.BookState.read(first)
    if dice.random() < 0.5:
        state = cb.BookState.load(state.save(tmp_path / "state"))
    assert state.then(cb.BookState.read(rest)) == whole
    assert cb.BookState.read(rest, start=state) == whole
    got = cb.scan_raw(rest, "level2", start=state).collect()
    laws.assert_same(got.drop("line"), level2.filter(pl.col("line") > at).drop("line"), "level2")


@pytest.mark.slow
@tiers.examples(17, suppress=HealthCheck)
@given(SEEDS)
def test_nothing_is_proven_across_a_gap(tmp_path, dice):
    """A state composed with one that does not go on from it proves only what the later one proves alone."""
    feed = Feed(dice, dice.choice([0.0, 0.1]))
    first = [feed.line() for _ in range(dice.randint(1, 12))]
    feed.number += dice.randint(1, 3)
    feed.faults = 0.0
    second = [feed.line() for _ in range(dice.randint(1, 12))]
    paths = laws.write_segments([wire.segment(*first), wire.segment(*second)], tmp_path)
    one, other = (cb.BookState.read(path) for path in paths)
    assert proven(one.then(other)) == proven(other)
    assert proven(one.then(other)) == proven(cb.BookState.read(paths))


def proven(state):
    """Give the products whose books are proven as of the end of what was read."""
    return set(state.products.filter("has_book", "proven")["product_id"])
