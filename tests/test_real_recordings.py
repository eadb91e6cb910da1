"""Real recordings, where they lie beside the checkout: what nobody made up reads as the oracle reads it."""

from pathlib import Path

import laws
import polars as pl
import pytest

import cbtools as cb

REAL = Path(__file__).parents[2] / "shared" / "real"

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(
        not REAL.is_dir(), reason="the real recordings (shared/real beside the checkout) are not here"
    ),
]

BTCUSDT = [
    REAL / "btcusdt" / "segment_20240808T23_00001.ndjson.gz",
    REAL / "btcusdt" / "segment_20240809T00_00002.ndjson.gz",
]
EXCHANGE = REAL / "coinbase_2021" / "exchange" / "segment_20210417T16_00001.ndjson.gz"
ADVANCED = REAL / "coinbase_2021" / "advanced" / "segment_20210417T16_00001.ndjson.gz"
FULL_BOOK = REAL / "full_book" / "segment_20260807T20_00001.ndjson.gz"


def nothing_wrong(raw):
    assert (raw.rejects.height, raw.gaps.height, raw.report.duplicates, raw.report.connections) == (
        0,
        0,
        0,
        1,
    )
    assert not raw.report.unknown_keys
    assert raw.level2["unbroken_since"].n_unique() == 1


def test_btcusdt_over_two_segments(tmp_path):
    raw = laws.same_as_oracle(BTCUSDT, tmp_path)
    nothing_wrong(raw)
    assert raw.report.lines == 15_158 + 15_220
    assert (raw.level2.height, raw.market_trades.height, raw.ticker.height) == (300_094, 19_903, 3_981)
    assert raw.level2["sequence_num"].n_unique() == 6_493 + 1  # and the snapshot
    assert raw.level2.filter("is_snapshot").height == 2_000
    # sequence_num runs on, and the lines start anew
    second = raw.level2.filter(raw.level2["sequence_num"] >= 15_158)
    assert second["line"].min() == 1
    laws.scan_is_read(BTCUSDT, tmp_path, raw)


@pytest.mark.parametrize("segment", BTCUSDT, ids=["first", "second"])
def test_btcusdt_segment_alone(tmp_path, segment):
    """The second starts in mid-connection: no gap can be told."""
    raw = laws.same_as_oracle(segment, tmp_path)
    nothing_wrong(raw)
    assert laws.without_zeros(raw.report.trade_holes) == {}


def test_the_same_from_plain_files(tmp_path):
    """Uncompressed copies read as the compressed ones; a folder reads as the list of its files."""
    whole = cb.read_raw(BTCUSDT)
    copies = laws.write_segments([laws.read_segment(path) for path in BTCUSDT], tmp_path / "plain")
    laws.scan_is_read(copies, tmp_path, whole)
    assert cb.scan_raw(tmp_path / "plain", "level2").collect().equals(whole.level2)


def test_exchange_feed(tmp_path):
    raw = laws.same_as_oracle(EXCHANGE, tmp_path)
    nothing_wrong(raw)
    assert raw.report.lines == 9_946
    assert (raw.level2.height, raw.market_trades.height, raw.ticker.height) == (18_081, 107, 107)
    assert raw.subscriptions.height == 6
    assert raw.market_trades["is_snapshot"].sum() == 10
    assert raw.level2["product_id"].n_unique() == 10
    laws.scan_is_read(EXCHANGE, tmp_path, raw)


@pytest.mark.slow
def test_the_same_flow_in_the_advanced_shape(tmp_path):
    raw = laws.same_as_oracle(ADVANCED, tmp_path)
    nothing_wrong(raw)
    assert raw.report.lines == 9_943
    assert (raw.level2.height, raw.market_trades.height, raw.ticker.height) == (18_081, 107, 107)
    laws.scan_is_read(ADVANCED, tmp_path, raw)


def test_both_shapes_hold_the_same_flow(tmp_path):
    """Row by row: all that both feeds tell of a level change, a trade and a ticker."""
    exchange = laws.same_as_oracle(EXCHANGE, tmp_path)
    advanced = laws.same_as_oracle(ADVANCED, tmp_path)
    both = {
        "level2": ["product_id", "is_snapshot", "side", "price", "size", "event_time", "capture_time"],
        "market_trades": [
            *("product_id", "trade_id", "price", "size", "maker_side", "aggressor_side"),
            *("trade_time", "is_snapshot", "capture_time"),
        ],
        "ticker": [
            *("product_id", "price", "volume_24h", "low_24h", "high_24h", "best_bid", "best_ask"),
            "capture_time",
        ],
    }
    for table, columns in both.items():
        one, other = getattr(exchange, table), getattr(advanced, table)
        laws.assert_same(one.select(columns), other.select(columns), table)
    assert advanced.level2["sequence_num"].null_count() == 0
    assert exchange.level2["sequence_num"].null_count() == exchange.level2.height


def test_full_book(tmp_path):
    raw = laws.same_as_oracle(FULL_BOOK, tmp_path)
    nothing_wrong(raw)
    assert raw.level2.height == 45_393
    bids = raw.level2.filter(raw.level2["side"] == "bid")
    asks = raw.level2.filter(raw.level2["side"] == "ask")
    assert (bids.height, asks.height) == (18_376, 27_017)
    assert (bids["price"].max(), bids["price"].min()) == (64930.57, 0.01)
    assert (asks["price"].min(), asks["price"].max()) == (64934.09, 138991023.41)
    assert raw.level2["size"].min() == 1e-8
    laws.scan_is_read(FULL_BOOK, tmp_path, raw)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (BTCUSDT, r"100\.00% of the frames of BTC-USDT .* the median delay is -1\.27 s"),
        ([EXCHANGE], r"96\.20% of the frames of NU-GBP \(and of 9 more\) .* is -13\.3 ms"),
    ],
    ids=["btcusdt", "exchange"],
)
def test_a_clock_that_is_off_is_warned_of(source, said):
    with pytest.warns(cb.CbtoolsWarning, match=said):
        report = cb.inspect_raw(source)
    tables, delay = cb.read_raw(source), pl.col("capture_time") - pl.col("server_time")
    rows = [
        frame.select("product_id", delay.alias("min")).drop_nulls()
        for frame in (tables.level2, tables.market_trades.filter(~pl.col("is_snapshot")), tables.ticker)
    ]
    least = pl.concat(rows).group_by("product_id").min().sort("product_id")
    assert report.raw.delays().sort("product_id").select("product_id", "min").equals(least)
    assert report.raw.late_trades == {}


def test_right_clocks_and_tickers_of_another_instant():
    report = cb.inspect_raw(ADVANCED)
    assert not any(delay.is_off for delay in report.raw.receive_delays.values())
    assert report.book.agreement == 100 / 107
    assert "ticker agreement" in dict(report.items())
