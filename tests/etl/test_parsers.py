"""Parsers: the tables of scan_raw and read_raw, also as one table and message by message."""

from __future__ import annotations

import polars as pl
import pytest
import wire

import cbtools as cb
from cbtools.etl import CoinbaseParser, NDJSONReader, RawParser, RawProcessor
from cbtools.etl.parsers import MIXED, mixed_schema
from cbtools.schema import CHANNELS, schema


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_parser_of_a_channel_gives_what_scan_raw_gives(ready, channel):
    expected = cb.scan_raw(ready, channel)
    if channel == "level2":
        expected = expected.filter(pl.col("side").is_not_null())
    found = RawParser(source="coinbase", channel=channel).scan(ready)
    assert found.collect_schema() == expected.collect_schema()
    assert found.collect().equals(expected.collect())


def test_a_parser_without_channel_gives_all_of_them_in_the_order_of_their_lines(ready, tables):
    found = RawParser().scan(ready).collect()
    assert found.schema == mixed_schema()
    for channel in MIXED:
        table = getattr(tables, channel)
        if channel == "level2":
            table = table.filter(pl.col("side").is_not_null())
        rows = found.filter(channel=channel)
        if "ticker" in channel:
            table = table.rename({"side": "taker_side"})
        assert rows.select(table.columns).equals(table)
        others = [name for name in found.columns if name not in {"channel", *table.columns}]
        assert sum(rows.select(others).null_count().row(0)) == rows.height * len(others)
    first = RawParser().scan(sorted(ready.iterdir())[0]).collect()
    assert first["line"].is_sorted()
    assert first["channel"].n_unique() > 2


def test_no_dtype_is_lost_in_the_table_of_all_channels():
    for channel in MIXED:
        names = {
            name: "taker_side" if ("ticker" in channel) and name == "side" else name
            for name in schema(channel)
        }
        assert {own: mixed_schema()[name] for own, name in names.items()} == schema(channel)


def test_the_side_of_a_ticker_is_not_that_of_a_level(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(
        wire.segment(wire.exchange_update(["sell", "2", "1"]), wire.exchange_ticker(side="sell"))
    )
    every = RawParser().scan(path).collect()
    assert every.select("channel", "side", "taker_side").rows() == [
        ("level2", "ask", None),
        ("ticker", None, "sell"),
    ]
    assert RawParser().scan(path).select("side").collect().equals(every.select("side"))
    assert RawParser().scan(path).select("taker_side").collect().equals(every.select("taker_side"))
    own = RawParser(channel="ticker").scan(path).collect()
    assert own["side"].to_list() == ["sell"]
    (row,) = CoinbaseParser().parse_record(wire.exchange_ticker(side="sell"))
    assert (row["channel"], row["side"], row["trade_id"]) == ("ticker", "sell", 881613)


def test_columns_channels_and_products_reach_the_decoder(ready, tables):
    frame = (
        RawParser().scan(ready).filter(pl.col("channel") == "ticker", pl.col("product_id").is_in(["BTC-USD"]))
    )
    parser = RawParser()
    chosen = parser.scan(ready).filter(channel="ticker", product_id="BTC-USD").select("price", "channel")
    expected = tables.ticker.filter(product_id="BTC-USD").rename({"side": "taker_side"})
    assert frame.select(expected.columns).collect().equals(expected)
    assert chosen.collect()["price"].equals(expected["price"])
    assert parser.get_stats()["records_output"] == expected.height
    assert parser.get_stats()["records_processed"] == tables.report.lines


def test_what_is_not_understood_is_counted_whatever_is_asked_for(ready, tables):
    parser = RawParser(channel="ticker")
    parser.scan(ready).filter(product_id="nobody's").collect()
    assert parser.get_stats() == {
        "records_output": 0,
        "records_processed": tables.report.lines,
        "errors": tables.report.rejected,
        "duplicates": tables.report.duplicates + sum(tables.report.duplicate_trades.values()),
    }
    assert parser.get_stats()["errors"] == 2
    parser.reset_stats()
    assert parser.get_stats() == {}


def test_a_strict_reader_makes_the_parser_strict(ready):
    with pytest.raises(cb.SegmentError, match=r"segment .*, line "):
        RawParser().scan(ready, NDJSONReader(strict=True)).collect()


def test_a_parser_takes_no_frame(ready):
    with pytest.raises(cb.ConfigError, match="directly behind an NDJSONReader"):
        RawParser()(NDJSONReader().scan(ready))


def test_unknown_sources_and_channels_are_named():
    with pytest.raises(cb.ConfigError, match="unknown source 'databento'"):
        RawParser(source="databento")
    with pytest.raises(cb.ConfigError, match="did you mean 'level2'"):
        RawParser(channel="levle2")
    assert RawProcessor is RawParser


def test_a_message_alone_gives_its_rows(ready, tables):
    parser, found = CoinbaseParser(), {}
    for record in NDJSONReader().read(ready):
        for row in parser.parse_record(record):
            found.setdefault(row.pop("channel"), []).append(row)
    lost = tables.report.rejected
    assert parser.get_stats()["records_processed"] == tables.report.lines - lost
    ticker = tables.ticker.drop("stream", "connection", "line")
    us = [pl.col(name).dt.cast_time_unit("us") for name in ("server_time", "capture_time")]
    assert found["ticker"] == ticker.with_columns(us).to_dicts()
    assert len(found["level2"]) == tables.level2["side"].count()
    assert {row["subscribed"] for row in found["subscriptions"]} >= {"level2", "ticker"}
    assert set(found["level2"][0]) == set(schema("level2")) - {
        "stream",
        "connection",
        "line",
        "unbroken_since",
    }


def test_a_bare_message_gives_its_rows():
    trade = {"product_id": "BTC-USD", "trade_id": "7", "price": "1.5", "size": "2", "side": "BUY"}
    trade["time"] = "2025-11-26T14:00:00Z"
    message = {
        "channel": "market_trades",
        "timestamp": "2025-11-26T14:00:00.1Z",
        "sequence_num": 3,
        "events": [{"type": "update", "trades": [trade]}],
    }
    (row,) = CoinbaseParser().parse_record(message)
    assert (row["channel"], row["price"], row["size"], row["trade_id"]) == ("market_trades", 1.5, 2.0, 7)
    assert (row["maker_side"], row["aggressor_side"], row["sequence_num"]) == ("buy", "sell", 3)
    assert row["capture_time"] is None


def test_a_message_that_is_not_understood_raises_and_is_counted():
    parser = CoinbaseParser()
    with pytest.raises(cb.SegmentError, match="no channel and no type"):
        parser.parse_record({"data": {}})
    with pytest.raises(cb.ConfigError, match="must be a dict"):
        parser.parse_record("{}")
    assert parser.get_stats() == {"records_processed": 1, "errors": 1}
