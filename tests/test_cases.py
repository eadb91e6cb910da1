"""Breaks and empty snapshots, whatever frame shows them: the rows of level2 and of the book say so at once.

A book must not be taken for verified between the frame that shows a break and the product's next snapshot,
also where none of its own changes says so. Each recording here is read in every way there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import book_laws
import laws
import polars as pl
import pytest
import tiers
import timeline
import wire
from timeline import moment, text

import cbtools as cb
from cbtools import schema

SHARED = Path(__file__).parents[2] / "shared" / "cases"
OK, UNPROVEN = "ok", "unproven"
CONFIG = {table: {} for table in schema.CHANNELS}


@dataclass(frozen=True)
class Case:
    """Lines; rows of level2 and of the book expected, as `told` and `told_book` write them.

    ``dropped``: those rows of the book that ``gaps="drop"`` keeps.
    """

    lines: list[bytes]
    level2: list[str]
    book: list[str]
    dropped: list[str]


def told(level2: pl.DataFrame) -> list[str]:
    """Write each row of level2 as a text: line, product, and the change or what the marker says."""
    return [
        f"{row['line']} {row['product_id']} "
        + ("snapshot " * row["is_snapshot"] + f"{row['side']} {row['price']:g} {row['size']:g}"
           if row["side"] else "empty" if row["is_snapshot"] else "break")
        for row in level2.iter_rows(named=True)
    ]  # fmt: skip


def told_book(book: pl.DataFrame) -> list[str]:
    """Write each row of the book as a text: line, product, state, best bid and ask."""
    return [
        f"{row['line']} {row['product_id']} {row['book_state']} {row['bid_price_1']} {row['ask_price_1']}"
        for row in book.iter_rows(named=True)
    ]


def levels(line: int, product_id: str) -> list[str]:
    """Write the rows of `wire.snapshot`."""
    of_sides = ("bid 99.5 1", "bid 99 2", "ask 100.5 3", "ask 101 4")
    return [f"{line} {product_id} snapshot {level}" for level in of_sides]


def l2(number: int, *events: wire.Json) -> bytes:
    return timeline.received(wire.l2(number, *events), number)


def snapshot_event(*levels: tuple[str, str, str], of: str = "A") -> wire.Json:
    return wire.book(of, *(wire.update(*level) for level in levels), kind="snapshot")


# --- a gap, and what shows it

BAD = wire.book("C", wire.update("bid", "much", "1"))


def frames(number: int) -> dict[str, tuple[wire.Json, list[str]]]:
    """Return frames of this number, each with the rows of level2 that it has itself, without its line."""
    return {
        "trades": (wire.trades(number, wire.trade("1", product_id="A")), []),
        "trades of another product": (wire.trades(number, wire.trade("1", product_id="C")), []),
        "a heartbeat": (wire.heartbeat(number, "now", number), []),
        "a ticker": (wire.ticker(number, "A"), []),
        "candles": (wire.candles(number, wire.candle()), []),
        "status": (wire.status(number, wire.product("A")), []),
        "an ack": (wire.ack(number, level2=["A", "B"]), []),
        "level2 without events": (wire.l2(number), []),
        "an update without changes": (wire.l2(number, wire.book("A")), []),
        "rejected trades": (wire.trades(number, wire.trade("?")), []),
        "a rejected ticker": (wire.ticker(number, price="?"), []),
        "a channel that is not known": (wire.advanced("rfq_matches", number), []),
        "level2 of another product, rejected": (wire.l2(number, BAD), []),
        "level2 of another product": (wire.change(number, "C"), ["C bid 99.5 7"]),
        "a change of the product": (wire.change(number, "A", price="98"), ["A bid 98 7"]),
    }


SHOWN_BY = list(frames(0))


def written(frame: wire.Json, second: float, *, bare: bool) -> bytes:
    """Write a frame in the envelope, as `timeline.received` does, or without it."""
    if not bare:
        return timeline.received(frame, second)
    return wire.line(frame | {"timestamp": timeline.text(timeline.moment(second))})


def gap(shown_by: str, *, bare: bool) -> Case:
    """Two books; a frame after a gap; changes, and the snapshot of one book."""
    frame, own = frames(8)[shown_by]
    changes = [wire.snapshot(0, "A"), wire.snapshot(1, "B"), frame]
    changes += [wire.change(9, "A"), wire.change(10, "B"), wire.snapshot(11, "A")]
    return Case(
        [written(frame, frame["sequence_num"], bare=bare) for frame in changes],
        [
            *levels(1, "A"),
            *levels(2, "B"),
            *("3 A break", "3 B break", *(f"3 {row}" for row in own)),
            *("4 A bid 99.5 7", "5 B bid 99.5 7", *levels(6, "A")),
        ],
        [
            *("1 A ok 99.5 100.5", "2 B ok 99.5 100.5"),
            *("3 A unproven 99.5 100.5", "3 B unproven 99.5 100.5"),
            *("4 A unproven 99.5 100.5", "5 B unproven 99.5 100.5", "6 A ok 99.5 100.5"),
        ],
        [
            *("1 A ok 99.5 100.5", "2 B ok 99.5 100.5"),
            *("3 A unproven 99.5 100.5", "3 B unproven 99.5 100.5", "6 A ok 99.5 100.5"),
        ],
    )


def reconnect(shown_by: str, *, bare: bool, number: int = 0, before: bytes | None = None) -> Case:
    """Two books; the first frame of a new connection; the snapshot of one book, a change of the other."""
    frame, own = frames(number)[shown_by]
    lines = [written(wire.snapshot(k, name), k, bare=bare) for k, name in ((7, "A"), (8, "B"))]
    lines += [before] if before is not None else []
    at = len(lines) + 1
    later = [frame, wire.snapshot(number + 1, "A"), wire.change(number + 2, "B")]
    lines += [written(one, 20 + k, bare=bare) for k, one in enumerate(later)]
    return Case(
        lines,
        [
            *(*levels(1, "A"), *levels(2, "B")),
            *(f"{at} A break", f"{at} B break", *(f"{at} {row}" for row in own)),
            *(*levels(at + 1, "A"), f"{at + 2} B bid 99.5 7"),
        ],
        [
            *("1 A ok 99.5 100.5", "2 B ok 99.5 100.5"),
            *(f"{at} A unproven 99.5 100.5", f"{at} B unproven 99.5 100.5"),
            *(f"{at + 1} A ok 99.5 100.5", f"{at + 2} B unproven 99.5 100.5"),
        ],
        [
            *("1 A ok 99.5 100.5", "2 B ok 99.5 100.5"),
            *(f"{at} A unproven 99.5 100.5", f"{at} B unproven 99.5 100.5", f"{at + 1} A ok 99.5 100.5"),
        ],
    )


# --- lost lines

CHANGE_OF_A = l2(2, wire.book("A", wire.update("bid", "98", "1")))
BOOKS = [timeline.received(wire.snapshot(k, name), k) for k, name in enumerate("AB")]
BOOK_ROWS = [*levels(1, "A"), *levels(2, "B")]
BOTH_OK = ["1 A ok 99.5 100.5", "2 B ok 99.5 100.5"]


def lost(line: bytes, *, at: int, broken: str, next_number: int = 3) -> Case:
    """Two books; a line that is lost; a change of each. The break is shown by this line, or the next."""
    lines = [*BOOKS, line]
    lines += [timeline.received(wire.change(next_number + k, name), 9 + k) for k, name in enumerate("AB")]
    breaks = [f"{at} {name} break" for name in broken]
    ends = [f"{at} {name} unproven 99.5 100.5" for name in broken]
    states = [f"{name} {UNPROVEN if name in broken else OK} 99.5 100.5" for name in "AB"]
    after = [f"{line} {state}" for line, state in zip((4, 5), states, strict=True)]
    book = [*BOTH_OK, *ends, *(row for row in after if row not in ends)]
    dropped = [row for row in book if OK in row.split() or row in ends]
    return Case(lines, [*BOOK_ROWS, *breaks, "4 A bid 99.5 7", "5 B bid 99.5 7"], book, dropped)


def exchange(frame: wire.Json, second: float) -> bytes:
    return timeline.received({"time": None} | frame, second)


CASES: dict[str, Case] = {
    **{f"a gap shown by {name}": gap(name, bare=False) for name in SHOWN_BY},
    "a gap shown by trades, bare": gap("trades", bare=True),
    "a gap shown by rejected trades, bare": gap("rejected trades", bare=True),
    "a gap shown by a heartbeat, bare": gap("a heartbeat", bare=True),
    **{f"a reconnect shown by {name}": reconnect(name, bare=False) for name in SHOWN_BY},
    "a reconnect shown by an ack, bare": reconnect("an ack", bare=True),
    "a reconnect that lacks its first frames": reconnect("trades", bare=False, number=3),
    "a reconnect after an error": reconnect(
        "an ack", bare=False, before=timeline.received(wire.error("slow down"), 19)
    ),
    "a reconnect after a line of zeros": reconnect("trades", bare=True, before=bytes(64)),
    "a level2 line of one product, rejected": lost(
        CHANGE_OF_A.replace(b'"bid"', b'"?"'), at=3, broken="A"
    ),
    "a level2 line that does not tell its products": lost(CHANGE_OF_A[:-60], at=3, broken="AB"),
    "a cut line": lost(CHANGE_OF_A[:60], at=4, broken="AB"),
    "a line of zeros": lost(bytes(99), at=4, broken="AB"),
    "noise, and no frame is missing": Case(
        [*BOOKS, b"?", timeline.received(wire.change(2, "A"), 2)],
        [*BOOK_ROWS, "4 A bid 99.5 7"],
        [*BOTH_OK, "4 A ok 99.5 100.5"],
        [*BOTH_OK, "4 A ok 99.5 100.5"],
    ),
    "breaks after each other have one marker": Case(
        [
            *BOOKS,
            *(timeline.received(wire.heartbeat(n, "now", n), n) for n in (4, 8, 12)),
            timeline.received(wire.change(16, "B"), 16),
            timeline.received(wire.ack(0), 17),
        ],
        [*BOOK_ROWS, "3 A break", "3 B break", "6 B bid 99.5 7", "7 B break"],
        [*BOTH_OK, "3 A unproven 99.5 100.5", "3 B unproven 99.5 100.5", "6 B unproven 99.5 100.5"],
        [*BOTH_OK, "3 A unproven 99.5 100.5", "3 B unproven 99.5 100.5"],
    ),
    "a break before any snapshot": Case(
        [
            timeline.received(wire.change(1, "A"), 1),
            timeline.received(wire.trades(5, wire.trade("1")), 5),
            timeline.received(wire.snapshot(6, "A"), 6),
        ],
        ["1 A bid 99.5 7", "2 A break", *levels(3, "A")],
        ["3 A ok 99.5 100.5"],
        ["3 A ok 99.5 100.5"],
    ),
    "an empty snapshot first": Case(
        [
            l2(0, snapshot_event()),
            l2(1, wire.book("A", wire.update("bid", "10", "1"))),
            l2(2, wire.book("A", wire.update("offer", "11", "1"))),
        ],
        ["1 A empty", "2 A bid 10 1", "3 A ask 11 1"],
        ["1 A empty None None", "2 A one_sided 10.0 None", "3 A ok 10.0 11.0"],
        ["3 A ok 10.0 11.0"],
    ),
    "an empty snapshot later": Case(
        [
            *BOOKS,
            l2(2, snapshot_event()),
            l2(3, wire.book("A", wire.update("bid", "10", "1"))),
            l2(4, wire.book("A", wire.update("offer", "11", "1"))),
        ],
        [*BOOK_ROWS, "3 A empty", "4 A bid 10 1", "5 A ask 11 1"],
        [*BOTH_OK, "3 A empty None None", "4 A one_sided 10.0 None", "5 A ok 10.0 11.0"],
        [*BOTH_OK, "3 A empty None None", "5 A ok 10.0 11.0"],
    ),
    "an empty snapshot in the frame that shows a gap": Case(
        [*BOOKS, l2(9, snapshot_event()), l2(10, wire.book("A", wire.update("bid", "10", "1")))],
        [*BOOK_ROWS, "3 A break", "3 B break", "3 A empty", "4 A bid 10 1"],
        [*BOTH_OK, "3 A empty None None", "3 B unproven 99.5 100.5", "4 A one_sided 10.0 None"],
        [*BOTH_OK, "3 A empty None None", "3 B unproven 99.5 100.5"],
    ),
    "a gap behind an empty snapshot": Case(
        [l2(0, snapshot_event()), timeline.received(wire.heartbeat(5, "now", 5), 5)],
        ["1 A empty", "2 A break"],
        ["1 A empty None None", "2 A unproven None None"],
        ["2 A unproven None None"],
    ),
    "two snapshots of a product in a frame": Case(
        [
            l2(
                0,
                snapshot_event(("bid", "9", "1"), ("offer", "12", "1")),
                wire.book("B", wire.update("bid", "1", "1")),
                snapshot_event(("bid", "10", "1"), ("offer", "11", "1")),
            )
        ],
        [
            *("1 A snapshot bid 9 1", "1 A snapshot ask 12 1", "1 B bid 1 1"),
            *("1 A empty", "1 A snapshot bid 10 1", "1 A snapshot ask 11 1"),
        ],
        ["1 A ok 10.0 11.0"],
        ["1 A ok 10.0 11.0"],
    ),
    "levels, and then an empty snapshot, in a frame": Case(
        [l2(0, snapshot_event(("bid", "9", "1"), ("offer", "12", "1")), snapshot_event())],
        ["1 A snapshot bid 9 1", "1 A snapshot ask 12 1", "1 A empty"],
        ["1 A empty None None"],
        [],
    ),
    "an empty snapshot of the Exchange feed": Case(
        [
            exchange(wire.exchange_snapshot("A"), 1),
            exchange(wire.exchange_snapshot("A", [], []), 2),
            exchange(wire.exchange_update(["buy", "10", "1"], product_id="A"), 3),
        ],
        ["1 A snapshot bid 99.5 1", "1 A snapshot ask 100.5 3", "2 A empty", "3 A bid 10 1"],
        ["1 A ok 99.5 100.5", "2 A empty None None", "3 A one_sided 10.0 None"],
        ["1 A ok 99.5 100.5", "2 A empty None None"],
    ),
    "a lost line of the Exchange feed, shown by a match": Case(
        [
            exchange(wire.exchange_snapshot("A"), 1),
            b"?",
            exchange(wire.match(1, product_id="A"), 3),
            exchange(wire.exchange_update(["buy", "99", "1"], product_id="A"), 4),
            exchange(wire.exchange_snapshot("A"), 5),
        ],
        [
            *("1 A snapshot bid 99.5 1", "1 A snapshot ask 100.5 3", "3 A break", "4 A bid 99 1"),
            *("5 A snapshot bid 99.5 1", "5 A snapshot ask 100.5 3"),
        ],
        ["1 A ok 99.5 100.5", "3 A unproven 99.5 100.5", "4 A unproven 99.5 100.5", "5 A ok 99.5 100.5"],
        ["1 A ok 99.5 100.5", "3 A unproven 99.5 100.5", "5 A ok 99.5 100.5"],
    ),
    "a lost line of the Exchange feed, shown by a change": Case(
        [
            exchange(wire.exchange_snapshot("A"), 1),
            b'{"type":"l2upd',
            exchange(wire.exchange_update(["buy", "100", "1"], product_id="A"), 4),
        ],
        [
            *("1 A snapshot bid 99.5 1", "1 A snapshot ask 100.5 3", "3 A break", "3 A bid 100 1"),
        ],
        ["1 A ok 99.5 100.5", "3 A unproven 100.0 100.5"],
        ["1 A ok 99.5 100.5", "3 A unproven 100.0 100.5"],
    ),
    "a lost line of the Exchange feed, shown behind an error": Case(
        [
            exchange(wire.exchange_snapshot("A"), 1),
            exchange(wire.exchange_update(["buy", "99", "1"], product_id="A"), 2),
            b"?",
            timeline.received(wire.error("slow down"), 4),
            exchange(wire.exchange_heartbeat(product_id="A"), 5),
        ],
        ["1 A snapshot bid 99.5 1", "1 A snapshot ask 100.5 3", "2 A bid 99 1", "5 A break"],
        ["1 A ok 99.5 100.5", "2 A ok 99.5 100.5", "5 A unproven 99.5 100.5"],
        ["1 A ok 99.5 100.5", "2 A ok 99.5 100.5", "5 A unproven 99.5 100.5"],
    ),
}  # fmt: skip

every_case = tiers.parametrize("case", CASES.values(), every=4, ids=list(CASES))


def recording(case: Case, tmp_path: Path) -> Path:
    (path,) = laws.write_segments([wire.segment(*case.lines)], tmp_path)
    return path


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_rows(tmp_path, case):
    """Of level2 and of the book; a marker tells of its own line."""
    path = recording(case, tmp_path)
    raw = laws.same_as_oracle(path, tmp_path)
    assert told(raw.level2) == case.level2
    book = cb.rebuild_book(raw.level2, depth=1).collect()
    assert told_book(book) == case.book
    assert told_book(cb.rebuild_book(raw.level2, depth=1, gaps="drop").collect()) == case.dropped
    unproven = book.filter(pl.col("book_state") == UNPROVEN)
    assert unproven["proven_since"].null_count() == unproven.height
    assert book["proven_since"].null_count() == unproven.height
    markers = raw.level2.filter(pl.col("side").is_null())
    assert markers.select("price", "size", "event_time").null_count().row(0) == (markers.height,) * 3
    assert sum(raw.report.markers.values()) == markers.height


@pytest.mark.more
@every_case
def test_however_it_is_read(tmp_path, case):
    """Scanned, of one product, with each option: the same rows, and those of the oracle."""
    path = recording(case, tmp_path)
    raw = cb.read_raw(path)
    laws.scan_is_read(path, tmp_path, raw)
    rows = book_laws.as_rows(raw.level2)
    for on in ("message", "bbo", "depth"):
        for gaps in ("mark", "drop", "ignore"):
            book = book_laws.same_as_oracle(raw.level2, rows, depth=2, on=on, gaps=gaps)
            for product_id in raw.level2["product_id"].unique():
                one = cb.scan_raw(path, "level2", products=[product_id])
                got = cb.rebuild_book(one, depth=2, on=on, gaps=gaps).collect()
                laws.assert_same(got, book.filter(pl.col("product_id") == product_id), product_id)
    book_laws.dropped_breaks_change_nothing(raw.level2)


@pytest.mark.slow
@every_case
def test_cut_at_every_line(tmp_path, case):
    """Read on, composed, or from a saved state: the state of the whole, and the markers of the whole."""
    path = recording(case, tmp_path)
    whole, level2 = cb.BookState.read(path), cb.read_raw(path).level2.drop("line")
    book = cb.rebuild_book(level2.with_columns(line=pl.lit(1, pl.Int64)), depth=2).collect().drop("line")
    for at in range(len(case.lines) + 1):
        parts = [wire.segment(*case.lines[:at]), wire.segment(*case.lines[at:])]
        first, rest = laws.write_segments(parts, tmp_path / "cut")
        state = cb.BookState.read(first)
        composed = state.then(cb.BookState.read(rest))
        assert composed.products.equals(whole.products), at
        assert composed.levels.equals(whole.levels), at
        if whole.stream.last >= 0:  # without numbers the runs are named otherwise
            assert composed == whole, at
        saved = cb.BookState.load(state.save(tmp_path / "state"))
        assert cb.BookState.read(rest, start=saved) == whole, at
        before = cb.scan_raw(first, "level2")
        after = cb.scan_raw(rest, "level2", start=saved)
        read = [rows.collect().drop("line") for rows in (before, after)]
        laws.assert_same(pl.concat(read), level2, f"level2 cut at {at}")
        books = [
            cb.rebuild_book(rows, depth=2, start=start).collect().drop("line")
            for rows, start in ((before, None), (after, saved))
        ]
        laws.assert_same(pl.concat(books), book, f"book cut at {at}")


@pytest.mark.slow
@every_case
def test_what_a_run_writes(tmp_path, case):
    """Rows of a run, scanned, are those of the recording: of one segment, of two, and of these compacted."""
    path = recording(case, tmp_path)
    raw = cb.read_raw(path)
    expected = {table: getattr(raw, table) for table in CONFIG}
    expected["book"] = cb.rebuild_book(raw.level2).collect()
    cb.run_segment(path, tmp_path / "whole", channel_config=CONFIG)
    same_dataset(tmp_path / "whole", expected)
    middle = len(case.lines) // 2
    parts = [wire.segment(*case.lines[:middle]), wire.segment(*case.lines[middle:])]
    for part in laws.write_segments(parts, tmp_path / "cut"):
        cb.run_segment(part, tmp_path / "parts", channel_config=CONFIG)
    same_dataset(tmp_path / "parts", expected)
    cb.compact_dataset(tmp_path / "parts", grace_seconds=0)
    same_dataset(tmp_path / "parts", expected)


def same_dataset(root: Path, tables: dict[str, pl.DataFrame]) -> None:
    """Check each table of a dataset, and the book rebuilt from its level2: the rows, in their order."""
    for table, expected in tables.items():
        if expected.is_empty():
            continue
        written = cb.scan_dataset(root, table).select(expected.columns)
        rows = written.collect()
        assert rows["stream"].dtype == pl.String
        assert rows["stream"].null_count() == rows.height
        same_by_product(rows, expected, table)
        if table == "level2":
            same_by_product(cb.rebuild_book(written).collect(), tables["book"], "book rebuilt")


def same_by_product(got: pl.DataFrame, expected: pl.DataFrame, what: str) -> None:
    """Compare frames whose products may stand in another order: a dataset has a folder for each."""
    if "product_id" in expected.columns:
        got, expected = (frame.sort("product_id", maintain_order=True) for frame in (got, expected))
    laws.assert_same(got.drop("line"), expected.drop("line"), what)


# --- the inputs of the issue


@pytest.mark.parametrize(
    ("name", "level2", "book"),
    [
        (
            "gap_then_trades",
            ["snapshot", "snapshot", "2 break", "4 change"],
            ["1 A-USD ok 100.0 101.0", "2 A-USD unproven 100.0 101.0", "4 A-USD unproven 100.0 101.0"],
        ),
        (
            "reconnect_then_trades",
            ["snapshot", "snapshot", "2 change", "4 break", "snapshot", "snapshot"],
            [
                *("1 A-USD ok 100.0 101.0", "2 A-USD ok 100.0 101.0", "4 A-USD unproven 100.0 101.0"),
                "6 A-USD ok 100.2 100.9",
            ],
        ),
        (
            "empty_snapshot_first",
            ["1 empty", "2 change", "3 change"],
            ["1 A-USD empty None None", "2 A-USD one_sided 100.0 None", "3 A-USD ok 100.0 101.0"],
        ),
        (
            "empty_snapshot_later",
            ["snapshot", "snapshot", "2 empty", "3 change", "4 change"],
            [
                *("1 A-USD ok 100.0 101.0", "2 A-USD empty None None", "3 A-USD one_sided 50.0 None"),
                "4 A-USD ok 50.0 51.0",
            ],
        ),
    ],
)
def test_the_small_inputs_of_the_issue(tmp_path, name, level2, book):
    path = SHARED / f"{name}.ndjson"
    if not path.is_file():
        pytest.skip("the small inputs (shared/cases beside the checkout) are not here")
    raw = laws.same_as_oracle(path, tmp_path)
    laws.scan_is_read(path, tmp_path, raw)
    kinds = []
    for row in raw.level2.iter_rows(named=True):
        kind = "change" if row["side"] else "empty" if row["is_snapshot"] else "break"
        is_level = row["is_snapshot"] and row["side"]
        kinds.append("snapshot" if is_level else f"{row['line']} {kind}")
    assert kinds == level2
    got = cb.rebuild_book(raw.level2, depth=1).collect()
    assert told_book(got) == book
    ignored = cb.rebuild_book(raw.level2, depth=1, gaps="ignore").collect()
    assert "crossed" not in set(ignored["book_state"])
    if raw.market_trades.is_empty():
        return
    by = pl.coalesce("capture_time", "server_time").alias("received")
    quoted = raw.market_trades.with_columns(by).join_asof(
        got.with_columns(by), on="received", by="product_id", check_sortedness=False
    )
    after = pl.col("line") > (1 if name.startswith("gap") else 3)
    assert set(quoted.filter(after)["book_state"]) == {UNPROVEN}


@pytest.mark.filterwarnings("ignore::cbtools.CbtoolsWarning")
@pytest.mark.parametrize(
    ("name", "rejected", "gaps", "book"),
    [
        ("exchange_other_types", [3, 5, 7], 0, ["1 ok", "2 ok", "4 ok", "6 ok", "8 ok"]),
        ("advanced_unknown_channel_sorted_keys", [2], 0, ["1 ok", "3 ok"]),
        ("advanced_new_header_key", [2], 0, ["1 ok", "3 ok"]),
        ("one_bad_ticker_of_two", [2], 0, ["1 ok", "3 ok"]),
        ("both_feeds_in_one_file", [], 0, ["1 ok", "2 unproven", "3 unproven"]),
        ("product_id_no_folder_can_hold", [3], 0, ["1 ok", "4 ok"]),
        ("huge_sequence_num", [2, 4, 6], 1, []),
    ],
)
def test_the_other_small_inputs_of_the_issue(tmp_path, name, rejected, gaps, book):
    path = SHARED / f"{name}.ndjson"
    if not path.is_file():
        pytest.skip("the small inputs (shared/cases beside the checkout) are not here")
    raw = laws.same_as_oracle(path, tmp_path)
    laws.scan_is_read(path, tmp_path, raw)
    assert (raw.rejects["line"].to_list(), raw.gaps.height) == (rejected, gaps)
    got = cb.rebuild_book(raw.level2, depth=1).collect()
    assert [f"{line} {state}" for line, state in got.select("line", "book_state").iter_rows()] == book
    for _ in range(2):  # the second time beside what the first one left
        report = cb.run_segment(path, tmp_path / "out", channel_config=CONFIG)
        assert report.raw.rejected == len(rejected)
        for table in ("level2", "market_trades", "ticker"):
            if getattr(raw, table).height:
                written = cb.scan_dataset(tmp_path / "out", table).collect()
                assert written["line"].sort().to_list() == getattr(raw, table)["line"].sort().to_list()


def test_no_frame_of_two_connections_in_one_file_is_dropped(tmp_path):
    path = SHARED / "two_connections_in_one_file.ndjson"
    if not path.is_file():
        pytest.skip("the small inputs (shared/cases beside the checkout) are not here")
    raw = laws.same_as_oracle(path, tmp_path)
    changes = raw.level2.filter(pl.col("side").is_not_null())
    assert changes.select(pl.col("line").unique()).to_series().sort().to_list() == [1, 2, 3, 4, 5, 6]
    assert (raw.report.frames, raw.report.duplicates) == (6, 0)


@pytest.mark.parametrize(
    "name", ["gzip_padded_with_zeros.ndjson.gz", "zstd_skippable_frame_first.ndjson.zst"]
)
def test_the_small_compressed_inputs_of_the_issue(name):
    if not (SHARED / name).is_file():
        pytest.skip("the small inputs (shared/cases beside the checkout) are not here")
    raw = cb.read_raw(SHARED / name)
    assert raw.report.frames == 60
    assert raw.rejects.is_empty()


LEFT_OUT = [
    [timeline.received(wire.snapshot(0, "A"), 0), timeline.received(wire.snapshot(1, "B"), 1)],
    [timeline.received(wire.change(n, product), n) for n, product in ((2, "A"), (3, "B"))],
    [timeline.received(wire.ticker(4, product_id="B"), 4), timeline.received(wire.change(5, "A"), 5)],
]
"""Segments without a gap, of which runs leave something out."""


@pytest.mark.parametrize(
    "options", [{"products": ["A"]}, {"channel_config": {"ticker": {}}}, {"products": []}], ids=str
)
def test_behind_a_run_that_left_rows_out_the_books_are_broken(tmp_path, options):
    """Of the products whose rows were left out; the others go on."""
    out = tmp_path / "out"
    paths = [timeline.write(tmp_path, i, *lines) for i, lines in enumerate(LEFT_OUT)]
    for path, more in zip(paths, ({}, options, {}), strict=True):
        cb.run_segment(path, out, **more)
    states = cb.scan_dataset(out, "book").collect().group_by("product_id").agg("line", "book_state")
    found = {product: list(zip(*rows, strict=True)) for product, *rows in states.iter_rows()}
    assert found["B"] == [(2, "ok"), (1, "unproven")]
    is_a_read = options.get("products") == ["A"]
    assert found["A"] == (
        [(1, "ok"), (1, "ok"), (2, "ok")] if is_a_read else [(1, "ok"), (1, "unproven"), (2, "unproven")]
    )
    for level2 in (out, cb.scan_dataset(out, "level2")):
        assert cb.book_at(level2, moment(5), "B").book_state == "unproven"
        assert cb.book_at(level2, moment(5), "A").book_state == ("ok" if is_a_read else "unproven")
    again = cb.BookState.load(out / "_state" / f"{paths[1].stem}.parquet")
    assert again.products.filter("proven")["product_id"].to_list() == ["A"][: int(is_a_read)]


def test_behind_a_run_without_level2_its_rows_are_broken_without_a_book_too(tmp_path):
    out, no_book = tmp_path / "out", {"level2": {"processor_options": {"reconstruct_lob": False}}}
    paths = [timeline.write(tmp_path, i, *lines) for i, lines in enumerate(LEFT_OUT)]
    for path, config in zip(paths, (no_book, {"ticker": {}}, no_book), strict=True):
        cb.run_segment(path, out, channel_config=config)
    level2 = cb.scan_dataset(out, "level2").collect()
    breaks = level2.filter(pl.col("side").is_null()).select("product_id", "line", "is_snapshot")
    assert sorted(breaks.iter_rows()) == [("A", 1, False), ("B", 1, False)]
    book = cb.rebuild_book(level2, depth=1).collect()
    assert set(book.filter(pl.col("capture_time") > moment(3))["book_state"]) == {"unproven"}


def test_days_later_the_first_frame_breaks_what_a_state_has(tmp_path):
    """Whatever its number: a recorder that was off for days goes on at the next number by chance alone."""
    day = 86_400
    first = timeline.write(tmp_path, 0, timeline.received(wire.snapshot(0, "A"), 0))
    second = timeline.write(
        tmp_path, 1, timeline.received(wire.trades(1, wire.trade(1, product_id="A")), 3 * day)
    )
    for path in (first, second):
        cb.run_segment(path, tmp_path / "out")
    book = cb.scan_dataset(tmp_path / "out", "book").collect()
    assert book["book_state"].to_list() == ["ok", "unproven"]


def test_a_gap_shown_by_a_frame_sent_before_the_one_before_it_sorts_behind_it(tmp_path):
    """In a real recording some frames were sent up to 4 ms before the one before them."""
    frames = [
        (wire.snapshot(0, "A"), 1.0),
        (wire.change(1, "A", price="99.9"), 2.0),
        (wire.trades(4, wire.trade(1, product_id="A")), 1.998),
        (wire.ticker(5, product_id="A"), 1.999),
    ]
    lines = [
        wire.record(frame | {"timestamp": text(moment(sent))}, text(moment(3 + i)))
        for i, (frame, sent) in enumerate(frames)
    ]
    path = recording(Case(lines, [], [], []), tmp_path)
    assert laws.same_as_oracle(path, tmp_path).level2["server_time"][-1] == moment(2)
    cb.run_segment(path, tmp_path / "out")
    book = cb.scan_dataset(tmp_path / "out", "book").collect()
    assert book["book_state"].to_list() == ["ok", "ok", "unproven"]
    assert cb.book_at(tmp_path / "out", moment(6), "A").book_state == "unproven"


@pytest.mark.parametrize("segments", [1, 2])
def test_snapshots_without_a_server_time_stay_in_their_place(tmp_path, segments):
    """The Exchange feed sends no time with them: sorted by it, they stood before all changes."""
    lines = [
        wire.record(wire.exchange_snapshot("A", [["100", "1"]], [["101", "1"]]), text(moment(0))),
        exchange(wire.exchange_update(["buy", "100.5", "1"], product_id="A"), 1),
        wire.record(wire.exchange_snapshot("A", [["90", "1"]], [["91", "1"]]), text(moment(2))),
        exchange(wire.exchange_update(["buy", "90.5", "1"], product_id="A"), 3),
    ]
    cut = len(lines) // segments
    paths = [timeline.write(tmp_path, i, *lines[i * cut : (i + 1) * cut]) for i in range(segments)]
    for path in paths:
        cb.run_segment(path, tmp_path / "out")
    truth = cb.scan_raw(paths, "level2").pipe(cb.rebuild_book, depth=1).collect()
    for compacted in (False, True):
        if compacted:
            cb.compact_dataset(tmp_path / "out")
        level2, book = (cb.scan_dataset(tmp_path / "out", table) for table in ("level2", "book"))
        shown = ["line", "bid_price_1", "ask_price_1", "book_state"]
        assert book.select(shown).collect().equals(truth.select(shown))
        assert cb.rebuild_book(level2, depth=1).select(shown).collect().equals(truth.select(shown))
        assert cb.book_at(tmp_path / "out", moment(1.5), "A").bids["price"].to_list() == [100.5, 100.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("price", float("nan")), ("price", float("inf")), ("size", float("nan")), ("size", -1.0)],
)
def test_what_is_no_price_or_size_is_refused(tmp_path, name, value):
    """A frame of a user's own: NaN took quadratic time, and was the best bid."""
    path = recording(Case([timeline.received(wire.snapshot(0, "A"), 0)], [], [], []), tmp_path)
    level2 = cb.scan_raw(path, "level2").with_columns(
        pl.when(side="bid").then(value).otherwise(name).alias(name)
    )
    with pytest.raises(cb.DatasetError, match="line 1 of A: expected finite numbers, and no size below 0"):
        cb.rebuild_book(level2).collect()
