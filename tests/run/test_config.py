"""What is to be written is checked before anything is read, and a wrong name is answered with the nearest."""

from __future__ import annotations

import pytest

import cbtools as cb
from cbtools.book.rebuilder import BookOptions
from cbtools.run.config import DEFAULT, Config, TableConfig, read_config
from cbtools.run.features import book_table, trades_table
from cbtools.schema import CHANNELS, book_columns, columns


def with_options(**options):
    """Give a configuration of level2 alone, with these options."""
    return {"level2": {"processor_options": options}}


def test_by_default_the_three_tables_of_the_market_are_written_and_the_book():
    assert read_config(None) == Config(
        (
            TableConfig("level2", ("product_id", "date")),
            TableConfig("market_trades", ("product_id", "date"), trades_table(features=True)),
            TableConfig("ticker", ("date", "hour")),
            TableConfig("book", ("product_id", "date"), book_table(BookOptions(), features=True)),
        ),
        BookOptions(depth=10, on="message", gaps="mark", bands_bps=()),
        features=True,
    )


def test_the_default_can_be_given():
    assert read_config(DEFAULT) == read_config(None)


def test_the_tables_named_are_written_and_no_others_but_the_book_of_level2():
    tables = [config.table for config in read_config({"ticker": {}, "level2": {}}).tables]
    assert tables == ["ticker", "level2", "book"]
    assert read_config({"ticker": {}}) == Config((TableConfig("ticker", ("date", "hour")),), None)
    assert read_config({}) == Config((), None)


@pytest.mark.parametrize("table", CHANNELS)
def test_a_table_has_default_partitions(table):
    config, *more = read_config({table: {}}).tables
    assert config.table == table
    assert config.partition_by == tuple(DEFAULT.get(table, {"partition_cols": ["date"]})["partition_cols"])
    assert [one.table for one in more] == (["book"] if table == "level2" else [])


@pytest.mark.parametrize(
    "by", [[], ["hour"], ("aggressor_side",), ["date", "hour", "product_id", "is_snapshot"]]
)
def test_partitions_are_any_columns_and_date_and_hour_in_the_order_given(by):
    (config,) = read_config({"market_trades": {"partition_cols": by}}).tables
    assert config.partition_by == tuple(by)


@pytest.mark.parametrize(
    ("by", "of_the_book"),
    [
        ([], ()),
        (["date"], ("date",)),
        (["hour", "product_id"], ("hour", "product_id")),
        (["side"], ()),
        (["is_snapshot", "connection", "date", "side"], ("connection", "date")),
    ],
)
def test_the_book_is_partitioned_as_level2_by_the_columns_that_it_has(by, of_the_book):
    level2, book = read_config({"level2": {"partition_cols": by}}).tables
    assert level2 == TableConfig("level2", tuple(by))
    assert book == TableConfig("book", of_the_book, book_table(BookOptions(), features=True))


# --- the options of level2: what the book is


@pytest.mark.parametrize("options", [{}, None])
@pytest.mark.parametrize("table", ["level2", "ticker"])
def test_no_options(options, table):
    assert read_config({table: {"processor_options": options}}) == read_config({table: {}})


def test_the_book_has_its_options():
    given = {"depth": 3, "on": "bbo", "gaps": "drop", "bands_bps": [5, 12.5]}
    config = read_config(with_options(**given))
    assert config.book == BookOptions(**given)
    assert config.tables[1].columns == book_table(BookOptions(**given), features=True)


def test_an_option_left_out_has_its_default():
    assert read_config(with_options(depth=3)).book == BookOptions(depth=3)
    assert read_config(with_options(bands_bps=(7,))).book == BookOptions(bands_bps=(7,))


def test_without_compute_features_there_are_none_and_no_bands():
    config = read_config(with_options(depth=2, bands_bps=[5], compute_features=False))
    assert config.book == BookOptions(depth=2)
    assert config.tables[1].columns == book_columns(2)
    assert not config.features


def test_trades_have_features_if_the_book_has():
    plain = tuple(columns("market_trades"))
    for options, has in (
        ({}, True),
        ({"compute_features": False}, False),
        ({"reconstruct_lob": False}, False),
    ):
        config = read_config({"market_trades": {}, "level2": {"processor_options": options}})
        assert (config.tables[0].columns == plain) is not has
    assert read_config({"market_trades": {}}).tables[0].columns == plain


@pytest.mark.parametrize("more", [{}, {"depth": 2, "bands_bps": [5]}])
def test_without_reconstruct_lob_there_is_no_book(more):
    config = read_config(with_options(reconstruct_lob=False, **more))
    assert config == Config((TableConfig("level2", ("product_id", "date")),), None)


def test_bands_that_cannot_be_meant_are_refused_though_they_are_not_wanted():
    with pytest.raises(cb.ConfigError, match="bands_bps names a distance twice"):
        read_config(with_options(bands_bps=[5, 5.0], compute_features=False))


def test_the_configuration_given_is_not_kept():
    by, bands = ["date"], [5]
    config = read_config({"level2": {"partition_cols": by, "processor_options": {"bands_bps": bands}}})
    by.append("hour")
    bands.append(9)
    assert config.tables[0].partition_by == ("date",)
    assert config.book == BookOptions(bands_bps=(5,))
    assert config.tables[1].columns == book_table(BookOptions(bands_bps=(5,)), features=True)


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
        (with_options(dept=10), "unknown processor option of 'level2' 'dept': did you mean 'depth'"),
        (with_options(reconstruct_book=True), r"did you mean 'reconstruct_lob'\?.* Known: reconstruct_lob"),
        (with_options(bands=[5]), r"did you mean 'bands_bps'\?"),
        (with_options(reconstruct_lob=1), "reconstruct_lob of 'level2' must be true or false, not 1"),
        (with_options(compute_features=None), "compute_features of 'level2' must be true or false, not None"),
        (with_options(depth=0), "depth must be a number of levels, 1 to 10,000, not 0"),
        (with_options(depth="10"), "depth must be a number of levels, 1 to 10,000, not '10'"),
        (with_options(depth=True), "depth must be a number of levels"),
        (with_options(on="mesage"), r"unknown value of on 'mesage': did you mean 'message'\?"),
        (with_options(gaps="raises"), r"unknown value of gaps 'raises': did you mean 'raise'\?"),
        (with_options(bands_bps=5), "bands_bps must be a list of distances from mid in basis points"),
        (with_options(bands_bps=[0]), "bands_bps must be a list of distances"),
        (with_options(bands_bps=["5"]), "bands_bps must be a list of distances"),
        (with_options(bands_bps=[float("nan")]), "bands_bps must be a list of distances"),
        ({"level2": {"processor_options": ["depth"]}}, "processor_options of 'level2' must be a dict, not"),
        ({"ticker": {"processor_options": {"depth": 1}}}, "option of 'ticker' 'depth': it has none"),
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
