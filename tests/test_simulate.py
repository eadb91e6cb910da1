"""The simulated market against its own wire: read with json and dicts alone, the book kept in Decimals."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbtools._simulate.book import Texts
from cbtools._simulate.products import PRODUCTS
from cbtools.errors import ConfigError
from cbtools.simulate import Simulation, simulate_segments

MIX = ("BTC-USD", "ETH-USD", "SHIB-USD", "OP-USD", "ETH-BTC")
PINNED = 4129104187  # crc32 of a recording; it changes with the market only
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z")


def content(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            return bytes(stream.read())
    return path.read_bytes()


def lines(done: Simulation) -> list[bytes]:
    return [line for path in done.paths for line in content(path).splitlines(keepends=True)]


def frames(done: Simulation) -> list[dict[str, Any]]:
    return [json.loads(line)["data"] for line in lines(done)]


def nanoseconds(text: str) -> int:
    whole, _, part = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(part.ljust(9, "0"))


@dataclass
class Replay:
    """A product's book from the wire, and what its trades had to meet."""

    bid: dict[Decimal, Decimal] = field(default_factory=dict)
    offer: dict[Decimal, Decimal] = field(default_factory=dict)
    shown: list[tuple[int, dict[Decimal, Decimal], dict[Decimal, Decimal]]] = field(default_factory=list)
    changed: list[tuple[int, dict[tuple[str, Decimal], Decimal]]] = field(default_factory=list)

    def apply(self, event: dict[str, Any], sent: int) -> Counter[str]:
        kinds: Counter[str] = Counter()
        self.shown.append((sent, self.bid.copy(), self.offer.copy()))
        if event["type"] == "snapshot":
            self.bid, self.offer = {}, {}
        changed = {}
        for update in event["updates"]:
            levels = getattr(self, update["side"])
            price, size = Decimal(update["price_level"]), Decimal(update["new_quantity"])
            changed[update["side"], price] = size
            if size:
                kinds["change" if price in levels else "add"] += 1
                levels[price] = size
            else:
                kinds["delete" if price in levels else "absent"] += 1
                levels.pop(price, None)
        assert len(changed) == len(event["updates"]), "a level more than once in a message"
        self.changed.append((sent, changed))
        return kinds

    def best(self) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        bid, ask = max(self.bid), min(self.offer)
        return bid, self.bid[bid], ask, self.offer[ask]


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    folder = tmp_path_factory.mktemp("mix")
    return simulate_segments(folder, products=MIX, minutes=1, levels=300, seed=11, truth=True)


@pytest.fixture(scope="module")
def btc(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    folder = tmp_path_factory.mktemp("btc")
    return simulate_segments(folder, products="BTC-USD", minutes=3, levels=1_500, seed=5)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    folder = tmp_path_factory.mktemp("broken")
    return simulate_segments(
        folder, products=["ETH-USD", "SOL-USD"], minutes=1, levels=50, seed=3, reconnects=2, gaps=3,
        bad_lines=6, duplicates=4, segment_mb=1, compression="gzip", truth=True,
    )  # fmt: skip


# --- the book, the trades and the tickers agree ---


@pytest.mark.slow
def test_book_never_crosses_and_is_the_tickers_and_the_truth(mix: Simulation) -> None:
    books: defaultdict[str, Replay] = defaultdict(Replay)
    assert mix.truth is not None
    truth = mix.truth.iter_rows()
    tickers = 0
    for frame in frames(mix):
        (event,) = frame["events"]
        if frame["channel"] == "l2_data":
            name = event["product_id"]
            books[name].apply(event, 0)
            bid, bid_size, ask, ask_size = books[name].best()
            assert 0 < bid < ask
            told = (1, frame["sequence_num"], name, float(bid), float(bid_size), float(ask), float(ask_size))
            assert told == next(truth)
        elif frame["channel"] == "ticker":
            (row,) = event["tickers"]
            keys = ("best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity")
            assert tuple(Decimal(row[key]) for key in keys) == books[row["product_id"]].best()
            tickers += 1
    assert next(truth, None) is None
    assert tickers > 500


@pytest.mark.ci
def test_trades_print_what_was_shown_and_the_next_update_shows_what_they_left(mix: Simulation) -> None:
    assert trades_that_fit(frames(mix)) > 150


def test_trades_fit_the_book_on_every_connection(tmp_path: Path) -> None:
    done = simulate_segments(tmp_path, products=MIX, minutes=0.5, levels=40, seed=8, reconnects=6)
    found = frames(done)
    starts = [i for i, frame in enumerate(found) if frame["sequence_num"] == 0] + [len(found)]
    assert len(starts) == 8
    assert all(trades_that_fit(found[start:stop]) for start, stop in itertools.pairwise(starts))


def trades_that_fit(connection: list[dict[str, Any]]) -> int:
    """Check each trade of a connection against the books before and after it; give how many there were."""
    books: defaultdict[str, Replay] = defaultdict(Replay)
    prints: defaultdict[tuple[str, str, Decimal, str], Decimal] = defaultdict(Decimal)
    for frame in connection:
        for event in frame["events"]:
            if frame["channel"] == "l2_data":
                books[event["product_id"]].apply(event, nanoseconds(frame["timestamp"]))
            elif frame["channel"] == "market_trades" and event["type"] == "update":
                for trade in event["trades"]:
                    side = {"BUY": "bid", "SELL": "offer"}[trade["side"]]  # the maker's, as sent
                    key = (trade["product_id"], side, Decimal(trade["price"]), trade["time"])
                    prints[key] += Decimal(trade["size"])
    checked = 0
    for (name, side, price, time), size in prints.items():
        book, when = books[name], nanoseconds(time)
        after = next((i for i, (sent, _) in enumerate(book.changed) if sent > when), None)
        assert after, "a trade that no update follows, or before the snapshot"
        _, bids, offers = book.shown[after]
        shown = (bids if side == "bid" else offers)[price]
        assert size <= shown
        assert book.changed[after][1][side, price] == shown - size
        best = max(bids) if side == "bid" else min(offers)
        passed = [p for p in (bids if side == "bid" else offers) if abs(p - best) < abs(price - best)]
        assert all(book.changed[after][1].get((side, p)) == 0 for p in passed), "a better level was left"
        checked += 1
    return checked


def test_trade_ids_are_dense_and_descend_in_a_message(mix: Simulation) -> None:
    ids: defaultdict[str, list[int]] = defaultdict(list)
    batches: defaultdict[str, list[int]] = defaultdict(list)
    for frame in frames(mix):
        if frame["channel"] == "market_trades":
            (event,) = frame["events"]
            sent = [int(trade["trade_id"]) for trade in event["trades"]]
            assert sent == sorted(sent, reverse=True)
            name = event["trades"][0]["product_id"]
            ids[name] += reversed(sent)
            if event["type"] == "update":
                batches[name].append(nanoseconds(frame["timestamp"]))
    for name in MIX:
        assert ids[name] == list(range(ids[name][0], ids[name][0] + len(ids[name])))
        assert len(ids[name]) == mix.counts[name].trades + mix.counts[name].snapshot_trades
        assert min(np.diff(batches[name])) > 200_000_000  # one batch every 250 ms at the most


# --- the wire ---


def test_lines_are_as_the_recorder_writes_them(mix: Simulation) -> None:
    bare = zoned = 0
    for line in lines(mix):
        record = json.loads(line)
        assert line == json.dumps(record, separators=(",", ":")).encode() + b"\n"  # compact, keys never twice
        assert list(record) == ["capture_ts", "data", "metadata"]
        data = record["data"]
        assert list(data) == ["channel", "client_id", "timestamp", "sequence_num", "events"]
        assert record["metadata"] == {"source": "coinbase", "channel": data["channel"]}
        captured = datetime.fromisoformat(record["capture_ts"])
        assert record["capture_ts"] == captured.isoformat()  # no fraction when the microsecond is 0
        assert captured.tzinfo == UTC
        bare += captured.microsecond == 0
        assert STAMP.fullmatch(data["timestamp"])
        zoned += "." not in data["timestamp"]
        assert nanoseconds(data["timestamp"]) < int(captured.timestamp() * 1e6 + 0.5) * 1_000
    assert bare >= 3
    assert zoned >= 3


@pytest.mark.ci
def test_times_of_a_connection_ascend_and_events_come_before_their_frame(mix: Simulation) -> None:
    sent = [nanoseconds(frame["timestamp"]) for frame in frames(mix)]
    assert sent == sorted(sent)
    captured = [datetime.fromisoformat(json.loads(line)["capture_ts"]) for line in lines(mix)]
    assert captured == sorted(captured)
    for frame in frames(mix):
        for event in frame["events"]:
            for update in event.get("updates", []):
                assert STAMP.fullmatch(update["event_time"])
                if event["type"] == "snapshot":
                    assert update["event_time"] == "1970-01-01T00:00:00Z"
                else:
                    lag = nanoseconds(frame["timestamp"]) - nanoseconds(update["event_time"])
                    assert 0 < lag < 60_000_000


def test_numbers_are_plain_decimals(mix: Simulation) -> None:
    plain = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
    for frame in frames(mix):
        for event in frame["events"]:
            rows = event.get("updates", []) + event.get("trades", []) + event.get("tickers", [])
            for row in rows:
                for key in ("price_level", "new_quantity", "price", "size", "best_bid", "volume_24_h"):
                    assert plain.fullmatch(row.get(key, "0"))


def test_a_connection_starts_with_acknowledgements_and_snapshots(mix: Simulation) -> None:
    found = frames(mix)
    n = len(MIX)
    start = [(frame["channel"], frame["events"][0].get("type")) for frame in found[: 3 * n + 4]]
    ack = ("subscriptions", None)
    assert start == [
        ack, *[("l2_data", "snapshot")] * n, ack, *[("market_trades", "snapshot")] * n, ack,
        *[("ticker", "snapshot")] * n, ack,
    ]  # fmt: skip
    everything = found[3 * n + 3]["events"][0]["subscriptions"]
    assert everything["level2"] == list(MIX)
    assert everything["heartbeats"] == ["heartbeats"]
    assert [frame["sequence_num"] for frame in found] == list(range(len(found)))


def test_heartbeats_every_second(mix: Simulation) -> None:
    beats = [frame["events"][0] for frame in frames(mix) if frame["channel"] == "heartbeats"]
    counters = [beat["heartbeat_counter"] for beat in beats]
    assert counters == list(range(counters[0], counters[0] + len(beats)))
    assert 58 <= len(beats) <= 60
    assert re.fullmatch(r"2025-11-26 14:00:01(\.\d+)? \+0000 UTC m=\+\d+\.\d+", beats[0]["current_time"])


# --- what the flow looks like ---


@pytest.mark.ci
def test_flow_of_bitcoin_is_like_real_flow(btc: Simulation) -> None:
    book, kinds = Replay(), Counter[str]()
    sizes, away, spreads, mids = [], [], Counter[Decimal](), []
    for frame in frames(btc):
        if frame["channel"] != "l2_data":
            continue
        (event,) = frame["events"]
        if event["type"] == "update":
            bid, _, ask, _ = book.best()
            mid = (bid + ask) / 2
            away += [abs(float(Decimal(u["price_level"]) / mid) - 1) * 1e4 for u in event["updates"]]
            sizes.append(len(event["updates"]))
            kinds += book.apply(event, 0)
            book.shown.clear()
        else:
            book.apply(event, 0)
        spreads[book.best()[2] - book.best()[0]] += 1
        mids.append(float(book.best()[0]))
    assert 19 < len(sizes) / btc.seconds <= 20
    p5, p50, p95 = np.percentile(sizes, [5, 50, 95])
    assert 3 <= p5 <= 8
    assert 18 <= p50 <= 27
    assert 120 <= p95 <= 220
    p25, p50, p95, p99 = np.percentile(away, [25, 50, 95, 99])
    assert 0.6 <= p25 <= 2
    assert 3 <= p50 <= 6
    assert 40 <= p95 <= 90
    assert 400 <= p99 <= 1_600
    share = {kind: count / kinds.total() for kind, count in kinds.items()}
    assert share == pytest.approx({"add": 0.40, "change": 0.12, "delete": 0.39, "absent": 0.09}, abs=0.04)
    assert 0.98 < spreads[Decimal("0.01")] / spreads.total() < 1
    five_seconds = np.diff(np.log(mids[::100])) * 1e4
    assert 0.5 < five_seconds.std() < 5
    assert 0.8 < (len(book.bid) + len(book.offer)) / 3_000 < 1.2  # the book keeps its size


@pytest.mark.ci
def test_trades_come_in_bursts_from_both_sides(btc: Simulation) -> None:
    found = [
        e
        for f in frames(btc)
        if f["channel"] == "market_trades"
        for e in f["events"]
        if e["type"] == "update"
    ]
    sides = Counter(trade["side"] for event in found for trade in event["trades"])
    assert 0.3 < sides["BUY"] / sides.total() < 0.7
    assert 1.5 < btc.counts["BTC-USD"].trades / btc.seconds < 12
    assert max(len(event["trades"]) for event in found) >= 5
    assert max(len({trade["price"] for trade in event["trades"]}) for event in found) >= 4  # sweeps


def test_the_full_book_of_bitcoin(tmp_path: Path) -> None:
    done = simulate_segments(tmp_path, products="BTC-USD", minutes=0.001, seed=1)
    snapshot = next(frame for frame in frames(done) if frame["channel"] == "l2_data")
    updates = snapshot["events"][0]["updates"]
    assert Counter(update["side"] for update in updates) == {"bid": 18_000, "offer": 27_000}
    prices = {update["price_level"] for update in updates}
    assert {"0.01", "138991023.41"} <= prices
    sides = {
        side: [Decimal(u["price_level"]) for u in updates if u["side"] == side] for side in ("bid", "offer")
    }
    assert sides["bid"] == sorted(set(sides["bid"]), reverse=True)
    assert sides["offer"] == sorted(set(sides["offer"]))


@pytest.mark.ci
def test_thirty_products(tmp_path: Path) -> None:
    names = list(PRODUCTS)[:30]
    done = simulate_segments(tmp_path, products=names, minutes=0.1, levels=60, seed=4)
    assert len(PRODUCTS) >= 30
    assert set(done.counts) == set(names)
    flow = [done.counts[name].level_changes for name in names]
    assert flow[0] == max(flow)
    assert min(flow) > 0


# --- faults ---


def _readable(done: Simulation) -> Iterator[tuple[str, int, bytes, dict[str, Any] | None]]:
    for path in done.paths:
        segment = path.name.partition(".")[0]
        for number, line in enumerate(content(path).splitlines(keepends=True), 1):
            try:
                yield segment, number, line, json.loads(line)["data"]
            except ValueError:
                yield segment, number, line, None


def test_without_faults_there_are_none(mix: Simulation) -> None:
    assert mix.faults == ()
    assert mix.connections == 1
    assert all(data is not None for *_, data in _readable(mix))


def test_faults_are_where_the_simulation_says(broken: Simulation) -> None:
    connection, expected, before = 0, 0, b""
    told = {(fault.segment, fault.line): fault for fault in broken.faults}
    seen: Counter[str] = Counter()
    for segment, number, line, data in _readable(broken):
        fault = told.pop((segment, number), None)
        if fault is not None:
            seen[fault.kind] += 1
            assert fault.connection == connection
        if data is None:
            assert fault is not None
            assert fault.kind in ("cut", "glued", "nul", "utf8")
            assert fault.sequence_num == expected
            expected += fault.frames
        elif line == before:
            assert fault is not None
            assert fault.kind == "duplicate"
            assert fault.sequence_num == expected - 1
        else:
            if data["sequence_num"] == 0:
                connection, expected = connection + 1, 0
            if data["sequence_num"] != expected:
                assert fault is not None
                assert (fault.kind, fault.sequence_num) == ("gap", expected)
                assert fault.frames == data["sequence_num"] - expected
            expected = data["sequence_num"] + 1
        before = line
    assert not told
    assert seen == {"gap": 3, "cut": 2, "glued": 2, "nul": 1, "utf8": 1, "duplicate": 4}
    assert connection == broken.connections == 3


def test_counts_are_what_can_be_read(broken: Simulation, mix: Simulation) -> None:
    for done in (broken, mix):
        found: Counter[tuple[str, str]] = Counter()
        before = b""
        for *_, line, data in _readable(done):
            if data is None or line == before:
                continue
            before = line
            for event in data["events"]:
                snapshot = "snapshot_" if event.get("type") == "snapshot" else ""
                for key, kind in (("updates", "levels"), ("trades", "trades"), ("tickers", "tickers")):
                    for row in event.get(key, []):
                        name = event.get("product_id") or row["product_id"]
                        found[name, "tickers" if kind == "tickers" else snapshot + kind] += 1
        for name, counts in done.counts.items():
            assert counts.level_changes == found[name, "levels"]
            assert counts.snapshot_levels == found[name, "snapshot_levels"]
            assert counts.trades == found[name, "trades"]
            assert counts.snapshot_trades == found[name, "snapshot_trades"]
            assert counts.tickers == found[name, "tickers"]
        assert done.lines == sum(1 for _ in _readable(done))
        assert done.bytes == sum(len(content(path)) for path in done.paths)


def test_snapshot_trades_overlap_those_already_sent(broken: Simulation) -> None:
    sent: defaultdict[str, set[str]] = defaultdict(set)
    overlaps = 0
    for *_, data in _readable(broken):
        if data is not None and data["channel"] == "market_trades":
            for event in data["events"]:
                name = event["trades"][0]["product_id"]
                ids = {trade["trade_id"] for trade in event["trades"]}
                overlaps += event["type"] == "snapshot" and bool(ids & sent[name])
                sent[name] |= ids
    assert overlaps == 4  # two products, two reconnects


def test_after_a_reconnect_the_book_is_the_truth_again(broken: Simulation) -> None:
    assert broken.truth is not None
    truth = {row[:3]: row[3:] for row in broken.truth.iter_rows()}
    connection = matched = 0
    books: dict[str, Replay] = {}
    faults = [(fault.connection, fault.sequence_num) for fault in broken.faults if fault.frames]
    for *_, data in _readable(broken):
        if data is None:
            continue
        if data["sequence_num"] == 0:
            connection, books = connection + 1, defaultdict(Replay)
        if data["channel"] != "l2_data":
            continue
        (event,) = data["events"]
        books[event["product_id"]].apply(event, 0)
        if not any(c == connection and number < data["sequence_num"] for c, number in faults):
            best = books[event["product_id"]].best()
            key = (connection, data["sequence_num"], event["product_id"])
            assert truth[key] == tuple(map(float, best))
            matched += 1
    assert matched > 100


# --- files, determinism, arguments ---


def test_the_seed_is_the_market(tmp_path: Path) -> None:
    def run(name: str, seed: int, **more: Any) -> list[bytes]:
        done = simulate_segments(
            tmp_path / name,
            products=["BTC-USD", "XRP-USD"],
            minutes=0.1,
            levels=80,
            seed=seed,
            gaps=1,
            **more,
        )
        return [path.read_bytes() for path in done.paths]

    for compression in (None, "gzip"):
        assert run(f"a{compression}", 1, compression=compression) == run(
            f"b{compression}", 1, compression=compression
        )
    assert run("c", 1) != run("d", 2)


def test_bytes_are_pinned(tmp_path: Path) -> None:
    """The same on every machine; a change of this number makes every sample and benchmark anew."""
    done = simulate_segments(
        tmp_path, products=MIX, minutes=0.1, levels=80, seed=1, bad_lines=4, duplicates=1
    )
    assert zlib.crc32(b"".join(lines(done))) == PINNED


def test_a_products_market_does_not_depend_on_the_others(tmp_path: Path) -> None:
    def snapshot(name: str, products: list[str]) -> Any:
        done = simulate_segments(tmp_path / name, products=products, minutes=0.01, levels=50, seed=9)
        found = frames(done)
        return next(
            f["events"] for f in found if f["channel"] == "l2_data" and "ETH" in f["events"][0]["product_id"]
        )

    assert snapshot("one", ["ETH-USD"]) == snapshot("two", ["BTC-USD", "ETH-USD"])


def test_segments_rotate_by_size_and_are_named_by_the_hour(tmp_path: Path) -> None:
    start = datetime(2025, 12, 31, 23, 59, 45, tzinfo=UTC)
    done = simulate_segments(tmp_path, minutes=0.5, levels=100, seed=2, segment_mb=0.5, start=start)
    names = [path.name for path in done.paths]
    assert len(names) > 4
    hours = [name[8:19] for name in names]
    assert set(hours) == {"20251231T23", "20260101T00"}
    for hour in set(hours):
        numbers = [name[20:25] for name in names if hour in name]
        assert numbers == [f"{i + 1:05d}" for i in range(len(numbers))]
    assert {path.parent for path in done.paths} == {tmp_path / "raw" / "ready" / "coinbase"}
    assert not list((tmp_path / "raw" / "active" / "coinbase").iterdir())
    assert all(path.stat().st_size < 0.5 * 2**20 + 200_000 for path in done.paths)
    first = json.loads(done.paths[-1].read_bytes().splitlines()[0])
    assert first["capture_ts"].replace("-", "").startswith(hours[-1])
    assert [frame["sequence_num"] for frame in frames(done)] == list(range(done.lines))


def test_compressed_content_is_the_plain_content(tmp_path: Path) -> None:
    found = {}
    for compression, suffix in ((None, ".ndjson"), ("gzip", ".ndjson.gz"), ("zstd", ".ndjson.zst")):
        done = simulate_segments(
            tmp_path / suffix, products="SOL-USD", minutes=0.1, levels=50, seed=6, compression=compression
        )
        assert all(path.name.endswith(suffix) for path in done.paths)
        found[suffix] = b"".join(lines(done))
    assert len(set(found.values())) == 1


def test_megabytes(tmp_path: Path) -> None:
    done = simulate_segments(tmp_path, products=["BTC-USD", "ETH-USD"], megabytes=2, levels=100, segment_mb=2)
    assert 2 * 2**20 <= done.bytes < 2 * 2**20 + 200_000
    assert len(done.paths) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"products": "BTC-UDS"}, "did you mean 'BTC-USD'"),
        ({"products": []}, "no products"),
        ({"products": ["BTC-USD", "BTC-USD"]}, "more than once"),
        ({"minutes": None}, "either"),
        ({"megabytes": 1}, "either"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": float("nan")}, "minutes"),
        ({"segment_mb": 0}, "segment_mb"),
        ({"levels": 5}, "20 levels"),
        ({"activity": 0}, "activity"),
        ({"seed": -1}, "seed"),
        ({"gaps": -1}, "gaps"),
        ({"compression": "zip"}, "did you mean 'gzip'"),
        ({"start": datetime(2025, 1, 1)}, "time zone"),
    ],
)
def test_arguments_that_cannot_be_meant(tmp_path: Path, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        simulate_segments(tmp_path, **{"products": "BTC-USD", "minutes": 0.01, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_folder_with_segments_is_left_alone(tmp_path: Path) -> None:
    done = simulate_segments(tmp_path, products="OP-USD", minutes=0.01, levels=20)
    with pytest.raises(ConfigError, match="holds segments already"):
        simulate_segments(tmp_path, products="OP-USD", minutes=0.01, levels=20)
    assert len(done.paths) == 1


@given(steps=st.integers(0, 10**16), digits=st.integers(0, 8))
def test_decimal_texts_are_exact(steps: int, digits: int) -> None:
    text = Texts(digits)[steps]
    assert Decimal(text) == Decimal(steps).scaleb(-digits)
    assert "E" not in text.upper()
    assert text == "0" or not text.startswith("00")
    assert not ("." in text and text.endswith(("0", ".")))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(list(PRODUCTS)),
    seed=st.integers(0, 2**40),
    levels=st.integers(20, 60),
    activity=st.floats(0.05, 4),
    reconnects=st.integers(0, 2),
    faults=st.tuples(*[st.integers(0, 3)] * 3),
)
def test_any_market_is_sound(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    seed: int,
    levels: int,
    activity: float,
    reconnects: int,
    faults: tuple[int, int, int],
) -> None:
    gaps, bad_lines, duplicates = faults
    done = simulate_segments(
        tmp_path_factory.mktemp("any"), products=name, minutes=0.1, seed=seed, levels=levels,
        activity=activity, reconnects=reconnects, gaps=gaps, bad_lines=bad_lines, duplicates=duplicates,
        truth=True,
    )  # fmt: skip
    assert isinstance(done.truth, pl.DataFrame)
    assert done.truth.filter(pl.col("best_bid") >= pl.col("best_ask")).is_empty()
    assert done.truth.null_count().sum_horizontal().item() == 0
    assert done.connections == 1 + reconnects
    kinds = Counter(fault.kind for fault in done.faults)
    assert kinds["gap"] == gaps
    assert kinds["duplicate"] == duplicates
    assert kinds.total() == sum(faults)
