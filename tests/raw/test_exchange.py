"""Fields that only the Exchange feed has: in its rows, null in those of Advanced Trade."""

from __future__ import annotations

from typing import Any

import pytest
import tiers
import wire

import cbtools as cb
from cbtools.raw.decode import decode_line
from cbtools.raw.values import NotUnderstood
from cbtools.schema import schema

OF_TRADES = ("maker_order_id", "taker_order_id", "sequence")
OF_TICKERS = ("open_24h", "volume_30d", "last_size", "side", "trade_id", "sequence")
MAKER, TAKER = "2a0da34e-61f7-4c36-88e5-c9dd15927b16", "3c82abaa-c01e-4608-be59-6a1e69742891"


def decoded(frame: wire.Json) -> dict[str, Any]:
    """Decode a frame's only row."""
    found = decode_line(wire.line(frame))
    (row,) = found.rows
    return dict(zip(schema(found.table), row, strict=False))


def read(tmp_path, *frames: wire.Json) -> cb.RawTables:
    path = tmp_path / "a.ndjson"
    path.write_bytes(wire.segment(*frames))
    return cb.read_raw(path)


def test_a_match_has_its_orders_and_its_sequence(tmp_path):
    found = read(
        tmp_path,
        wire.match(7),
        wire.match(8, "last_match", maker_order_id=None, sequence="9223372036854775807"),
        {key: value for key, value in wire.match(9).items() if not key.endswith("order_id")},
    )
    assert found.market_trades.select(OF_TRADES).rows() == [
        (MAKER, TAKER, 177100030),
        (None, TAKER, 2**63 - 1),
        (None, None, 177100030),
    ]
    assert not found.report.unknown_keys
    assert found.market_trades.schema == schema("market_trades")


def test_a_ticker_has_its_last_trade(tmp_path):
    first = {key: value for key, value in wire.exchange_ticker().items() if key not in ("side", "trade_id")}
    empty = dict.fromkeys(("open_24h", "volume_30d", "last_size", "side"), "") | {"sequence": None}
    found = read(tmp_path, wire.exchange_ticker(side="SELL"), first, wire.exchange_ticker(**empty))
    assert found.ticker.select(OF_TICKERS).rows() == [
        (101.0, 22955.5, 0.04, "sell", 881613, 333938798),
        (101.0, 22955.5, 0.04, None, None, 333938798),
        (None, None, None, None, 881613, None),
    ]
    assert not found.report.unknown_keys


def test_the_other_feed_has_none_of_them(tmp_path):
    trade = wire.trade("7") | {"maker_order_id": MAKER}
    odd = wire.ticker(2) | {"more": 1}
    found = read(
        tmp_path,
        wire.trades(0, trade),
        wire.ticker(1, open_24h="3"),
        odd,
        wire.ticker(3, channel="ticker_batch"),
        wire.trades(4, wire.trade("8")),
    )
    assert found.market_trades.select(OF_TRADES).rows() == [(None,) * 3] * 2
    assert found.ticker.select(OF_TICKERS).rows() == [(None,) * 6] * 2
    assert found.ticker_batch.select(OF_TICKERS).rows() == [(None,) * 6]
    assert found.report.unknown_keys == {
        "market_trades.trades.maker_order_id": 1,
        "ticker.tickers.open_24h": 1,
        "frame.more": 1,
    }
    for table in ("market_trades", "ticker", "ticker_batch"):
        assert getattr(found, table).schema == schema(table)


def test_columns_are_built_that_are_asked_for(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(
        wire.segment(wire.trades(0, wire.trade("7")), wire.ticker(1), wire.match(8), wire.exchange_ticker())
    )
    for table, names in (("market_trades", OF_TRADES), ("ticker", OF_TICKERS)):
        every = cb.scan_raw(path, table).collect()
        assert (
            cb.scan_raw(path, table)
            .select(names[-1], names[0])
            .collect()
            .equals(every.select(names[-1], names[0]))
        )
        assert every[names[0]].to_list()[0] is None
        assert every[names[0]].to_list()[1] is not None


@tiers.parametrize(
    ("frame", "reason"),
    [
        (wire.match(7, maker_order_id=5), "bad text: maker_order_id=5"),
        (wire.match(7, taker_order_id=[]), "bad text: taker_order_id="),
        (wire.match(7, sequence=-1), "bad whole number: sequence=-1"),
        (wire.match(7, sequence=1.0), "bad whole number: sequence=1.0"),
        (wire.match(7, sequence=""), "bad whole number: sequence=''"),
        (wire.match(7, sequence="9223372036854775808"), "bad whole number: sequence="),
        (wire.exchange_ticker(open_24h="-1"), "bad number: open_24h="),
        (wire.exchange_ticker(volume_30d="NaN"), "bad number: volume_30d="),
        (wire.exchange_ticker(last_size=True), "bad number: last_size="),
        (wire.exchange_ticker(side="bid"), "unknown side: 'bid'"),
        (wire.exchange_ticker(side=0), "unknown side: 0"),
        (wire.exchange_ticker(trade_id=""), "bad whole number: trade_id=''"),
        (wire.exchange_ticker(sequence=2**63), "bad whole number: sequence="),
    ],
    every=3,
)
def test_values_that_are_not_legal_reject_the_line(frame, reason):
    with pytest.raises(NotUnderstood, match=reason.replace("[", r"\[")):
        decode_line(wire.line(frame))


def test_a_row_is_in_the_order_of_its_table():
    trade, ticker = decoded(wire.match(7)), decoded(wire.exchange_ticker(best_ask_size="3"))
    assert (trade["is_snapshot"], trade["maker_order_id"], trade["sequence"]) == (False, MAKER, 177100030)
    assert (ticker["best_ask_size"], ticker["open_24h"], ticker["sequence"]) == (3.0, 101.0, 333938798)
