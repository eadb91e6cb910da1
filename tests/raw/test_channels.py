"""The one table of channels: what the kernel knows of them is derived from it, however many there are."""

from __future__ import annotations

from types import MappingProxyType

import polars as pl
import pytest
import wire
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools import schema
from cbtools._kernels import decode as kernels
from cbtools.raw import advanced, counts, piece, scan, stream
from cbtools.raw import decode as definition
from cbtools.raw.decode import channel_codes
from cbtools.raw.files import find_segments
from cbtools.raw.piece import Wanted
from cbtools.raw.stream import Reading

NEW = {"user": "orders", "futures_balance_summary": "balances"}


def test_the_kernel_s_codes_are_the_places_of_the_tables():
    hot = [kernels.LEVEL2, kernels.TRADES, kernels.TICKER, kernels.TICKER_BATCH]
    assert [schema.CHANNELS[code] for code in hot] == ["level2", "market_trades", "ticker", "ticker_batch"]
    assert kernels.UNKNOWN not in channel_codes().values()
    assert set(channel_codes().values()) == set(range(len(schema.CHANNELS)))


@pytest.fixture
def two_more(monkeypatch):
    """Add two channels, as a developer would: a table of their columns, and what reads an event."""
    what = schema.Column("what", pl.String, "", "what it says")
    columns = dict.fromkeys(NEW.values(), (what, *schema.FRAME))
    monkeypatch.setattr(schema, "TABLES", MappingProxyType({**schema.TABLES, **columns}))
    channels = (*schema.CHANNELS, *NEW.values())
    for module in (schema, counts, piece, scan, stream, definition):
        monkeypatch.setattr(module, "CHANNELS", channels)
    for name, table in NEW.items():
        reader = (table, lambda event, *_: [(event["what"],)])
        monkeypatch.setitem(advanced.EVENT_READERS, name, reader)


@pytest.mark.parametrize("bare", [True, False])
def test_two_channels_more(two_more, tmp_path, bare):
    frames = [
        wire.snapshot(0),
        wire.advanced("user", 1, {"what": "a"}),
        wire.advanced("futures_balance_summary", 2, {"what": "b"}, {"what": "c"}),
        wire.advanced("nobody_knows", 3),
        wire.error("later", channel="errors", sequence_num=4),
        wire.advanced("user", 5, {"what": "d"}),
        wire.change(6),
    ]
    path = tmp_path / "segment_20260304T05_00001.ndjson"
    path.write_bytes(wire.segment(*(frame if bare else wire.record(frame) for frame in frames)))
    tables = (*schema.RAW, *NEW.values())
    wanted = Wanted({table: frozenset(schema.schema(table)) for table in tables}, whole=True)
    read: dict[str, list[pl.DataFrame]] = {table: [] for table in tables}
    for batch in Reading(find_segments(path), wanted):
        for table, frame in batch.tables.items():
            read[table].append(frame)
    for channel in schema.CHANNELS:
        got = cb.scan_raw(path, channel).collect()
        assert_frame_equal(got, pl.concat([got.clear(), *read[channel]]))
    assert cb.scan_raw(path, "orders").collect()["what"].to_list() == ["a", "d"]
    assert cb.scan_raw(path, "balances").collect()["sequence_num"].to_list() == [2, 2]
    assert cb.scan_raw(path, "errors").collect()["sequence_num"].to_list() == [4]
    assert cb.scan_raw(path, "level2").collect()["unbroken_since"].n_unique() == 1
    assert not read["gaps"]
    assert pl.concat(read["rejects"])["line"].to_list() == [4]
