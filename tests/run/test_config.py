"""What is to be written is checked before anything is read, and a wrong name is answered with the nearest."""

from __future__ import annotations

import pytest

import cbtools as cb
from cbtools.run.config import DEFAULT, TableConfig, read_config
from cbtools.schema import CHANNELS


def test_by_default_the_three_tables_of_the_market_are_written():
    assert read_config(None) == (
        TableConfig("level2", ("product_id", "date")),
        TableConfig("market_trades", ("product_id", "date")),
        TableConfig("ticker", ("date", "hour")),
    )


def test_the_default_can_be_given():
    assert read_config(DEFAULT) == read_config(None)


def test_the_tables_named_are_written_and_no_others():
    assert [config.table for config in read_config({"ticker": {}, "level2": {}})] == ["ticker", "level2"]
    assert read_config({}) == ()


@pytest.mark.parametrize("table", CHANNELS)
def test_a_table_has_default_partitions(table):
    (config,) = read_config({table: {}})
    assert config.partition_by == tuple(DEFAULT.get(table, {"partition_cols": ["date"]})["partition_cols"])


@pytest.mark.parametrize(
    "by", [[], ["hour"], ("aggressor_side",), ["date", "hour", "product_id", "is_snapshot"]]
)
def test_partitions_are_any_columns_and_date_and_hour_in_the_order_given(by):
    assert read_config({"market_trades": {"partition_cols": by}})[0].partition_by == tuple(by)


@pytest.mark.parametrize("options", [{}, None])
def test_no_options(options):
    assert read_config({"level2": {"processor_options": options}})[0].options == {}


def test_the_configuration_given_is_not_kept():
    by = ["date"]
    (config,) = read_config({"level2": {"partition_cols": by}})
    by.append("hour")
    assert config.partition_by == ("date",)


@pytest.mark.parametrize(
    ("channel_config", "said"),
    [
        ({"levle2": {}}, "unknown table in channel_config 'levle2': did you mean 'level2'?"),
        ({"l2_data": {}}, "unknown table in channel_config 'l2_data'.* Known: level2, market_trades"),
        ({"rejects": {}}, "unknown table in channel_config 'rejects'"),
        ({"level2": {"partition_col": ["date"]}}, r"'partition_col': did you mean 'partition_cols'\?"),
        ({"level2": {"options": {}}}, "unknown key in channel_config.'level2'. 'options'.*processor_options"),
        (
            {"level2": {"partition_cols": ["product"]}},
            r"partition column of 'level2' 'product': did you mean 'product_id'\?",
        ),
        ({"ticker": {"partition_cols": ["dat"]}}, r"did you mean 'date'\? Known: date, hour, product_id"),
        ({"level2": {"partition_cols": ["server_time"]}}, "unknown partition column .* Known: date, hour"),
        ({"level2": {"partition_cols": ["date", "aggressor_side"]}}, "of 'level2' 'aggressor_side'"),
        ({"level2": {"partition_cols": "date"}}, "must be a list of column names, not 'date'"),
        ({"level2": {"partition_cols": [1]}}, "must be a list of column names"),
        ({"level2": {"processor_options": {"depth": 10}}}, "unknown processor option of 'level2' 'depth'"),
        ({"level2": ["date"]}, r"channel_config\['level2'\] must be a dict with partition_cols and"),
        (["level2"], "channel_config must be a dict of tables"),
        ("level2", "channel_config must be a dict of tables"),
    ],
)
def test_what_cannot_be_meant(channel_config, said, tmp_path):
    with pytest.raises(cb.ConfigError, match=said):
        read_config(channel_config)
    # at once: the segment, which is not there, is not looked for
    with pytest.raises(cb.ConfigError, match=said):
        cb.run_segment(tmp_path / "none.ndjson", tmp_path / "out", channel_config=channel_config)
    assert list(tmp_path.iterdir()) == []
