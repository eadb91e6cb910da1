"""migrate_dataset, with a made-up version 4: trades have a notional there, and no trade_id."""

from __future__ import annotations

import itertools
from pathlib import Path

import cloud
import polars as pl
import pytest
import tiers
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools import schema
from cbtools.dataset import migrate, parquet
from cbtools.dataset.parquet import package_version

NOTIONAL = schema.Column("notional", pl.Float64(), "quote", "price times size")
SEGMENTS = sorted(cb.sample_path().iterdir())


@pytest.fixture
def root(tmp_path):
    for segment in SEGMENTS:
        cb.run_segment(segment, tmp_path, channel_config={"market_trades": {}, "ticker": {}})
    return tmp_path


def later(monkeypatch, step=None, version=4):
    """Have a later version of the tables, and the step that leads to it."""
    trades = [column for column in schema.TABLES["market_trades"] if column.name != "trade_id"]
    for module in (schema, parquet):
        monkeypatch.setattr(module, "SCHEMA_VERSION", version)
    monkeypatch.setattr(schema, "TABLES", {**schema.TABLES, "market_trades": (*trades, NOTIONAL)})
    if step is not None:
        monkeypatch.setitem(migrate.STEPS, version - 1, step)


def with_notional(table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
    if table != "market_trades":
        return rows
    return rows.with_columns(notional=pl.col("price") * pl.col("size")).drop("trade_id")


def rows_of(root: Path, table: str = "market_trades") -> pl.DataFrame:
    frames = [
        pl.read_parquet(path, hive_partitioning=False, glob=False).with_columns(
            part=pl.lit(path.relative_to(root).as_posix())
        )
        for path in sorted((root / table).rglob("part_*.parquet"))
    ]
    return pl.concat(frames)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_today_there_is_nothing_to_do(root):
    before = files(root)
    done = cb.migrate_dataset(root)
    assert done.parts.is_empty()
    assert repr(done) == "nothing to migrate: all is of version 3"
    assert {name: data for name, data in files(root).items() if ".cbtools." not in name} == before


def test_each_part_becomes_one_of_the_later_version(root, monkeypatch):
    before, tickers = rows_of(root), rows_of(root, "ticker")
    later(monkeypatch, with_notional)
    done = cb.migrate_dataset(root)
    expected = before.with_columns(notional=pl.col("price") * pl.col("size")).drop("trade_id")
    assert_frame_equal(rows_of(root), expected, check_column_order=False)
    assert_frame_equal(rows_of(root, "ticker"), tickers)
    parts = sorted((root / "market_trades").rglob("part_*.parquet"))
    assert done.parts.filter(table="market_trades").height == len(parts)
    assert done.parts.filter(table="market_trades")["rows"].sum() == before.height
    assert done.parts["version"].unique().to_list() == [3]
    for path in parts:
        footer = pl.read_parquet_metadata(path)
        assert footer["cbtools.schema_version"] == "4"
        assert footer["cbtools.version"] == package_version()
        assert "trade_id" not in footer["cbtools.columns"]
        assert "price times size" in footer["cbtools.columns"]
        assert done.parts.filter(part=path.relative_to(root / "market_trades").as_posix())[
            "bytes_after"
        ].to_list() == [path.stat().st_size]
    scanned = cb.scan_dataset(root, "market_trades").collect()
    assert scanned["notional"].null_count() == 0
    assert scanned.height == before.height
    assert not list(root.rglob(".part_*"))


@pytest.mark.ci
def test_again_nothing_is_left_to_do(root, monkeypatch):
    later(monkeypatch, with_notional)
    cb.migrate_dataset(root)
    before = files(root)
    assert cb.migrate_dataset(root).parts.is_empty()
    assert files(root) == before


@pytest.mark.ci
def test_in_a_store_it_is_the_same(root, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("store")
    with cloud.bucket(monkeypatch, elsewhere / "scratch") as bucket:
        bucket.upload(root, "lake")
        names = bucket.listed()
        later(monkeypatch, with_notional)
        there, here = cb.migrate_dataset(bucket.url("lake")), cb.migrate_dataset(root)
        assert_frame_equal(there.parts, here.parts)
        assert bucket.listed() == names
        copy = bucket.download(elsewhere / "copy", "lake")
        assert_frame_equal(rows_of(copy), rows_of(root))
        assert cb.migrate_dataset(bucket.url("lake")).parts.is_empty()


@pytest.mark.ci
def test_a_dry_run_changes_nothing(root, monkeypatch):
    later(monkeypatch, with_notional)
    before = files(root)
    planned = cb.migrate_dataset(root, dry_run=True)
    assert files(root) == before
    done = cb.migrate_dataset(root)
    assert_frame_equal(planned.parts.drop("bytes_after"), done.parts.drop("bytes_after"))
    assert planned.parts["bytes_after"].null_count() == planned.parts.height


@pytest.mark.ci
def test_compacted_parts_keep_their_segments(root, monkeypatch):
    before = cb.scan_dataset(root, "market_trades", segment=True).collect()
    cb.compact_dataset(root)
    later(monkeypatch, with_notional)
    cb.migrate_dataset(root)
    after = cb.scan_dataset(root, "market_trades", segment=True).collect()
    kept = [name for name in before.columns if name != "trade_id"]
    assert_frame_equal(after.select(kept).sort(pl.all()), before.select(kept).sort(pl.all()))


@pytest.mark.ci
def test_what_breaks_off_is_ended_by_calling_it_again(root, monkeypatch):
    before = rows_of(root)
    calls = itertools.count()

    def failing(table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return with_notional(table, rows)

    later(monkeypatch, failing)
    with pytest.raises(KeyboardInterrupt):
        cb.migrate_dataset(root)
    versions = {
        pl.read_parquet_metadata(path)["cbtools.schema_version"] for path in root.rglob("part_*.parquet")
    }
    assert versions == {"3", "4"}
    cb.migrate_dataset(root)
    expected = before.with_columns(notional=pl.col("price") * pl.col("size")).drop("trade_id")
    assert_frame_equal(rows_of(root), expected, check_column_order=False)
    assert not list(root.rglob(".part_*"))


@tiers.parametrize(
    ("step", "told"),
    [
        (None, "no way leads from 3 to 4"),
        (lambda table, rows: rows, "notional is missing"),
        (lambda table, rows: with_notional(table, rows).head(3), "3 in the new version: it stays"),
        (
            lambda table, rows: with_notional(table, rows).with_columns(price=pl.lit("1")),
            "price is String",
        ),
        (lambda table, rows: with_notional(table, rows).drop("line"), "line is missing"),
    ],
    every=3,
)
def test_a_step_that_does_not_lead_there_changes_nothing(root, monkeypatch, step, told):
    before = rows_of(root)
    later(monkeypatch, step)
    with pytest.raises(cb.DatasetError, match=told):
        cb.migrate_dataset(root, "market_trades")
    assert_frame_equal(rows_of(root), before)
    assert not list(root.rglob(".part_*"))


@pytest.mark.ci
def test_steps_follow_each_other(root, monkeypatch):
    def renamed(table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.rename({"price": "cost"}) if table == "market_trades" else rows

    def back(table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
        return with_notional(table, renamed_back(rows) if table == "market_trades" else rows)

    def renamed_back(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.rename({"cost": "price"})

    before = rows_of(root)
    monkeypatch.setitem(migrate.STEPS, 3, renamed)
    later(monkeypatch, back, version=5)
    cb.migrate_dataset(root, "market_trades")
    assert rows_of(root)["price"].equals(before["price"])
    assert cb.migrate_dataset(root, "ticker").parts["version"].unique().to_list() == [3]


def test_a_later_version_than_ours_is_refused(root, monkeypatch):
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 0)
    with pytest.raises(cb.DatasetError, match="is of version 3, and this cbtools knows 0: install a newer"):
        cb.migrate_dataset(root)


def test_tables_of_others_stay(tmp_path, monkeypatch):
    cb.write_dataset(pl.DataFrame({"a": [1]}), tmp_path / "mine", partition_by=[])
    later(monkeypatch, with_notional)
    before = files(tmp_path)
    assert cb.migrate_dataset(tmp_path).parts.is_empty()
    assert {name: data for name, data in files(tmp_path).items() if ".cbtools." not in name} == before
