"""scan_raw as a lazy source: pushdown, chunks, laziness, memory; what it reads is checked elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import polars as pl
import pytest
import tiers
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools.lazy import values_of
from cbtools.raw.stream import Reading
from cbtools.schema import CHANNELS, schema


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    return cb.simulate_segments(
        folder,
        products=["BTC-USD", "ETH-USD", "SOL-USD"],
        minutes=0.4,
        seed=5,
        levels=60,
        segment_mb=1,
        reconnects=1,
        gaps=2,
        bad_lines=3,
        duplicates=2,
    ).paths


@pytest.fixture(scope="module")
def tables(recording):
    return cb.read_raw(recording)


def asked(monkeypatch):
    """Record what each reading is asked for."""
    wanted = []
    start = Reading.__init__

    def spy(self, paths, asked_for, **options):
        wanted.append(asked_for)
        start(self, paths, asked_for, **options)

    monkeypatch.setattr(Reading, "__init__", spy)
    return wanted


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_scan_gives_what_read_raw_gives(recording, tables, channel):
    assert_frame_equal(cb.scan_raw(recording, channel).collect(), getattr(tables, channel))


@tiers.parametrize("chunk_bytes", [50_000, 1, 700, 1_000_000], every=4)
def test_the_size_of_the_chunks_changes_nothing(tmp_path, recording, chunk_bytes):
    few = tmp_path / "segment_20251126T14_00001.ndjson"
    lines = recording[0].read_bytes().split(b"\n")
    few.write_bytes(b"\n".join(lines[:60] + lines[200:] if chunk_bytes > 1 else lines[:60] + lines[200:400]))
    whole, cut = cb.read_raw(few), cb.read_raw(few, chunk_bytes=chunk_bytes)
    assert whole.report == cut.report
    for table in (*CHANNELS, "gaps", "rejects"):
        assert_frame_equal(getattr(whole, table), getattr(cut, table))
    for channel in ("level2", "market_trades"):
        scan = cb.scan_raw(few, channel, chunk_bytes=chunk_bytes).collect()
        assert_frame_equal(scan, getattr(whole, channel))


@tiers.examples(12, full=20)
@given(st.data())
def test_any_projection_and_filter_is_that_of_the_whole(recording, tables, data):
    channel = data.draw(st.sampled_from(["level2", "market_trades", "ticker"]))
    names = data.draw(st.lists(st.sampled_from(list(schema(channel))), min_size=1, unique=True))
    product = data.draw(st.sampled_from(["BTC-USD", "ETH-USD", "NONE-USD"]))
    predicate = data.draw(
        st.sampled_from(
            [
                pl.col("product_id") == product,
                (pl.col("product_id") == product) & (pl.col("price") > 1000),
                (pl.lit(product) == pl.col("product_id")) | (pl.col("product_id") == "SOL-USD"),
                pl.col("product_id").is_in([product, "SOL-USD"]),
                pl.col("product_id").is_in([product]) & ~(pl.col("product_id") == "SOL-USD"),
                pl.col("product_id") != product,
                (pl.col("product_id") == product) | (pl.col("price") > 1000),
                pl.col("product_id").is_null(),
                pl.col("price").is_null(),
                (pl.col("product_id") == product) & pl.col("sequence_num").is_between(1, 2000),
                pl.col("connection") == 2,
            ]
        )
    )
    got = cb.scan_raw(recording, channel).filter(predicate).select(names).collect()
    assert_frame_equal(got, getattr(tables, channel).filter(predicate).select(names))


@pytest.mark.parametrize(
    ("predicate", "products"),
    [
        (pl.col("product_id") == "A", {"A"}),
        (pl.lit("A") == pl.col("product_id"), {"A"}),
        (pl.col("product_id").is_in(["A", "B"]), {"A", "B"}),
        ((pl.col("product_id") == "A") & (pl.col("price") > 1), {"A"}),
        ((pl.col("price") > 1) & (pl.col("product_id") == "A") & (pl.col("size") > 0), {"A"}),
        ((pl.col("product_id") == "A") | (pl.col("product_id") == "B"), {"A", "B"}),
        ((pl.col("product_id") == "A") & (pl.col("product_id") == "B"), set()),
        ((pl.col("product_id") == "A") | (pl.col("price") > 1), None),
        (pl.col("product_id") != "A", None),
        (~(pl.col("product_id") == "A"), None),
        (pl.col("product_id").eq_missing(pl.lit("A")), None),
        (pl.col("product_id").is_in(["A", None], nulls_equal=True), None),
        (pl.col("product_id").str.to_lowercase() == "a", None),
        (pl.col("side") == "bid", None),
    ],
)
def test_only_what_can_be_read_for_sure_rules_products_out(predicate, products):
    assert values_of(predicate, "product_id") == products


def test_the_predicate_and_the_projection_reach_the_decoder(recording, monkeypatch):
    wanted = asked(monkeypatch)
    query = cb.scan_raw(recording, "level2").filter(pl.col("product_id") == "ETH-USD").select("price")
    query.collect()
    assert wanted[0].products == ("ETH-USD",)
    assert wanted[0].columns == {"level2": {"price", "product_id"}}
    assert not wanted[0].whole


def test_products_and_predicate_together_ask_for_what_both_allow(recording, monkeypatch):
    wanted = asked(monkeypatch)
    scan = cb.scan_raw(recording, "level2", products=["ETH-USD", "BTC-USD"])
    scan.filter(pl.col("product_id").is_in(["BTC-USD", "SOL-USD"])).collect()
    assert wanted[0].products == ("BTC-USD",)


def test_bodies_not_asked_for_are_not_parsed(tmp_path, recording):
    """Garbage in the bodies of other channels and products is not even looked at."""
    lines = recording[0].read_bytes().splitlines(keepends=True)[:400]
    spoiled = []
    for line in lines:
        if b'"channel":"l2_data"' not in line.split(b'"events"')[0] or b'"product_id":"BTC-USD"' not in line:
            line = line.replace(b'"price', b'"PRICE').replace(b'"new_quantity":"', b'"new_quantity":#"')
        spoiled.append(line)
    path = tmp_path / "segment_20251126T14_00001.ndjson"
    path.write_bytes(b"".join(spoiled))
    assert cb.read_raw(path).rejects.height > 100
    got = cb.scan_raw(path, "level2", products=["BTC-USD"]).drop("unbroken_since").collect()
    path.write_bytes(b"".join(lines))
    expected = cb.scan_raw(path, "level2", products=["BTC-USD"]).drop("unbroken_since").collect()
    assert_frame_equal(got, expected)
    assert got.height > 1000


@pytest.mark.ci
def test_a_limit_stops_the_reading(recording, monkeypatch):
    pieces = []
    finish = Reading._in_order
    monkeypatch.setattr(Reading, "_in_order", lambda self, d: (pieces.append(1), finish(self, d))[1])
    scan = cb.scan_raw(recording, "level2", chunk_bytes=80_000)
    assert scan.head(3).collect().height == 3
    few = len(pieces)
    scan.collect()
    assert 10 * few < len(pieces) - few


def test_nothing_is_read_before_the_query_runs(tmp_path, recording, tables):
    path = tmp_path / "segment_20251126T14_00001.ndjson"
    path.write_bytes(b"not yet a recording")
    scan = cb.scan_raw(path, "level2")
    path.write_bytes(recording[0].read_bytes())
    assert_frame_equal(scan.head(900).collect(), tables.level2.head(900))


def test_every_execution_starts_anew(recording):
    scan = cb.scan_raw(recording, "market_trades")
    assert_frame_equal(scan.collect(), scan.collect())
    twice = pl.concat([scan, scan]).collect()
    assert twice.height == 2 * scan.collect().height


def test_a_scan_of_nothing_found_has_the_columns(recording):
    got = cb.scan_raw(recording, "candles").collect()
    assert got.schema == schema("candles")
    assert got.height == 0
    none = cb.scan_raw(recording, "level2", products=[]).collect()
    assert none.schema == schema("level2")
    assert none.height == 0


def test_more_products_than_are_looked_for_while_decoding(recording, tables):
    many = ["ETH-USD", *(f"P{k}-USD" for k in range(1_500))]
    got = cb.scan_raw(recording, "level2", products=many).drop("unbroken_since").collect()
    expected = tables.level2.filter(pl.col("product_id") == "ETH-USD").drop("unbroken_since")
    assert_frame_equal(got, expected)


def test_a_scan_streams_into_parquet(recording, tables, tmp_path):
    cb.scan_raw(recording, "level2", chunk_bytes=100_000).sink_parquet(tmp_path / "level2.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "level2.parquet"), tables.level2)


def test_the_segment_of_a_row_is_its_file(recording):
    level2 = cb.scan_raw(recording, "level2", segment=True)
    got = level2.filter(pl.col("side").is_not_null()).select("segment", "line").unique().collect()
    lines = {path.name.removesuffix(".ndjson"): path.read_bytes().split(b"\n") for path in recording}
    assert set(got["segment"]) == set(lines)
    for segment, line in got.sample(50, seed=1).iter_rows():
        assert b"l2_data" in lines[segment][line - 1]


def test_a_run_of_its_own_needs_no_product_column(tmp_path, recording):
    """A line rejected of one product breaks that product's run alone, also where only runs are asked for."""
    lines = recording[0].read_bytes().splitlines(keepends=True)[:300]
    at = next(k for k in range(150, 300) if b'"update","product_id":"ETH-USD"' in lines[k])
    lines[at] = lines[at].replace(b'"side":"', b'"side":"?', 1)
    path = tmp_path / "segment_20251126T14_00001.ndjson"
    path.write_bytes(b"".join(lines))
    level2 = cb.read_raw(path).level2
    runs = level2.group_by("product_id").agg(pl.col("unbroken_since").n_unique()).sort("product_id")
    assert runs["unbroken_since"].to_list() == [1, 2, 1]
    got = cb.scan_raw(path, "level2").select("unbroken_since").collect()
    assert_frame_equal(got, level2.select("unbroken_since"))


def test_a_marker_is_read_whatever_columns_are_asked_for(recording, tables):
    """A marker of a break is of no row of its frame: it does not get lost where none of these are read."""
    is_break = pl.col("side").is_null() & ~pl.col("is_snapshot")
    breaks = tables.level2.filter(is_break)
    assert breaks["product_id"].n_unique() == 3
    assert breaks["connection"].n_unique() == 2
    of_one = cb.scan_raw(recording, "level2", products=["SOL-USD"]).filter(is_break)
    expected = breaks.filter(pl.col("product_id") == "SOL-USD")
    for names in (expected.columns, ["line"], ["unbroken_since"]):
        assert_frame_equal(of_one.select(names).collect(), expected.select(names))
    assert cb.scan_raw(recording, "level2").select(pl.len()).collect().item() == tables.level2.height


def test_the_plan_names_the_source(recording):
    assert "RAW level2" in cb.scan_raw(recording, "level2").explain()


def test_bad_use_is_told_at_once(recording):
    with pytest.raises(cb.ConfigError, match="did you mean 'level2'"):
        cb.scan_raw(recording, "levle2")
    with pytest.raises(cb.ConfigError, match=r"\['BTC-USD'\]"):
        cb.scan_raw(recording, "level2", products="BTC-USD")
    with pytest.raises(cb.ConfigError, match="chunk_bytes"):
        cb.scan_raw(recording, "level2", chunk_bytes=0)
    with pytest.raises(cb.SegmentError, match="no such segment"):
        cb.scan_raw("nowhere/*.ndjson", "level2")


def test_strict_raises_with_the_place(recording):
    rejects = cb.read_raw(recording[0]).rejects
    assert rejects.height
    with pytest.raises(cb.SegmentError, match=f"line {rejects['line'][0]} "):
        cb.read_raw(recording[0], strict=True)


@pytest.mark.ci
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux tells it")
def test_memory_is_bounded_by_the_chunk(tmp_path, recording):
    """Ten times the file, the same memory: measured in processes of their own."""
    lines = recording[0].read_bytes()
    code = textwrap.dedent("""
        import sys
        import cbtools as cb, polars as pl
        scan = cb.scan_raw(sys.argv[1], "level2", chunk_bytes=4 << 20)
        print(scan.select(pl.col("price").sum()).collect(engine="streaming").item() > 0)
        print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    """)
    peaks = []
    for times in (12, 120):
        path = tmp_path / f"segment_{times}.ndjson"
        path.write_bytes(lines * times)
        done = subprocess.run(
            [sys.executable, "-c", code, os.fspath(path)], capture_output=True, text=True, check=True
        )
        positive, peak = done.stdout.split()
        assert positive == "True"
        peaks.append(int(peak) * 1024)
        path.unlink()
    grown = 108 * len(lines)
    assert peaks[1] - peaks[0] < grown / 4
