"""The four usages of the earlier package's manual, as they are written there, with another import."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path

import polars as pl
import pytest

import cbtools as cb
from cbtools.etl import (
    BaseProcessor,
    ETLJob,
    ETLPipeline,
    NDJSONReader,
    ParquetReader,
    ParquetWriter,
    RawParser,
)


def rows(root: Path, table: str | None = None) -> pl.DataFrame:
    return cb.scan_dataset(root, table).collect()


@pytest.mark.slow
def test_usage_1_simple(input_dir, tmp_path, tables):
    output_dir = tmp_path / "processed"
    job = ETLJob(input_dir, output_dir)
    job.process_all()
    for table in ("level2", "market_trades", "ticker"):
        assert rows(output_dir, table).height == getattr(tables, table).height > 0
    assert rows(output_dir, "book")["book_state"].eq("ok").any()
    assert list(input_dir.iterdir()) == []
    assert sorted((tmp_path / "raw/done/coinbase").iterdir())  # kept: nothing said to delete it


def test_usage_2_configured(input_dir, tmp_path):
    output_dir = tmp_path / "processed"
    job = ETLJob(
        input_dir,
        output_dir,
        channel_config={
            "level2": {
                "partition_cols": ["product_id", "date"],
                "processor_options": {"reconstruct_lob": True, "compute_features": True},
            }
        },
    )
    job.process_all()
    assert {path.name for path in output_dir.iterdir() if path.name[0] != "_"} == {"level2", "book"}
    assert rows(output_dir, "book")["microprice"].null_count() < rows(output_dir, "book").height
    assert (output_dir / "level2/product_id=BTC-USD").is_dir()


class CustomProcessor(BaseProcessor):
    def process(self, frame):
        large = pl.col("size") > pl.col("size").mean().over("channel")
        return frame.filter(pl.col("channel").is_in(["level2", "market_trades"]), large)


def test_usage_3_custom(ready, tmp_path, tables):
    pipeline = ETLPipeline(
        reader=NDJSONReader(), processors=[RawParser(), CustomProcessor()], writer=ParquetWriter()
    )
    pipeline.execute(ready, tmp_path / "large", partition_cols=["channel", "product_id"])
    found = rows(tmp_path / "large")
    for channel in ("level2", "market_trades"):
        table = getattr(tables, channel)
        assert (found["channel"] == channel).sum() == (table["size"] > table["size"].mean()).sum() > 0


class Records(BaseProcessor):
    """As most processors of the earlier package were written."""

    def process_batch(self, records: list[dict]) -> list[dict]:
        kept = [record for record in records if record["channel"] == "market_trades"]
        self.stats["trades_seen"] += len(kept)
        return [
            {"product_id": r["product_id"], "trade_id": r["trade_id"], "notional": r["price"] * r["size"]}
            for r in kept
        ]


def test_usage_3_with_a_processor_of_records(ready, tmp_path, tables):
    pipeline = ETLPipeline(reader=NDJSONReader(), processors=[RawParser(), Records()], writer=ParquetWriter())
    pipeline.execute(ready, tmp_path / "trades", partition_cols=["product_id"])
    trades = tables.market_trades
    expected = trades.select("product_id", "trade_id", notional=pl.col("price") * pl.col("size"))
    assert (
        rows(tmp_path / "trades")
        .sort("product_id", "trade_id")
        .select(expected.columns)
        .equals(expected.sort("product_id", "trade_id"))
    )
    stats = pipeline.get_stats()
    assert (
        stats["reader"]["records_read"] == tables.report.lines
    )  # once, though the columns were learnt before
    assert stats["reader"]["errors"] == stats["processor"]["RawParser"]["errors"] == tables.report.rejected
    assert stats["processor"]["Records"]["trades_seen"] == trades.height


class AdvancedProcessor(BaseProcessor):
    def process(self, frame):
        return frame.pipe(cb.rebuild_book, depth=3).pipe(cb.add_book_features, ["mid", "imbalance_3"])


def test_usage_4_reprocess(ready, tmp_path, tables):
    cb.write_dataset(tables.level2, tmp_path / "level2", partition_by=["product_id", "date"])
    pipeline = ETLPipeline(
        reader=ParquetReader(use_polars=True), processors=[AdvancedProcessor()], writer=ParquetWriter()
    )
    pipeline.execute(tmp_path / "level2", tmp_path / "features", partition_cols=["product_id", "date"])
    found = rows(tmp_path / "features").sort("product_id", "sequence_num")
    expected = AdvancedProcessor().process(tables.level2.lazy()).collect().sort("product_id", "sequence_num")
    assert set(found["date"]) == {date(2025, 11, 26)}
    assert found.select(expected.columns).equals(expected)


ENVIRONMENT = {**os.environ, "POLARS_MAX_THREADS": "2"}
REPROCESS = textwrap.dedent(
    """
    import resource, sys
    import polars as pl
    from cbtools.etl import BaseProcessor, ETLPipeline, ParquetReader, ParquetWriter

    class AdvancedProcessor(BaseProcessor):
        def process(self, frame):
            return frame.select(total=pl.sum_horizontal(pl.all()))

    def data_bytes():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))

    small, large, output, how = sys.argv[1:]
    pipeline = ETLPipeline(
        reader=ParquetReader(use_polars=True), processors=[AdvancedProcessor()], writer=ParquetWriter()
    )
    pipeline.execute(small, output)  # what the libraries themselves need is there now
    limit = data_bytes() + (400 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if how == "streamed":
        print(pipeline.execute(large, output).rows)
    else:
        print(ParquetReader().scan(large).collect().height)
    """
)


@pytest.mark.ci
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_usage_4_reprocesses_more_than_fits_in_memory(tmp_path):
    """768 MB of rows under a limit of 400 MB, in which they cannot be had at once."""
    n, files = 500_000, 12
    i = pl.int_range(n, eager=True)
    part = pl.DataFrame({f"x{k}": (i % (100 + k)).cast(pl.Float64) for k in range(16)})
    small, large = tmp_path / "small", tmp_path / "large"
    for folder in (small, large):
        folder.mkdir()
    part.head(100).write_parquet(small / "0.parquet")
    part.write_parquet(large / "0.parquet", row_group_size=20_000, compression="lz4")
    for k in range(1, files):
        (large / f"{k}.parquet").hardlink_to(large / "0.parquet")
    assert part.estimated_size() * files > 700e6

    def run(how: str) -> subprocess.CompletedProcess[str]:
        code = [sys.executable, "-c", REPROCESS, small, large, tmp_path / "out", how]
        return subprocess.run(
            code,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            check=False,
            cwd=Path(cb.__file__).parents[1],
        )

    done = run("streamed")
    assert (done.returncode, done.stdout.strip()) == (0, str(n * files)), done.stderr[-2000:]
    assert run("at once").returncode != 0
    found = cb.scan_dataset(tmp_path / "out", segment=True).filter(segment="large")
    sums = found.select(pl.sum("total")).collect().item()
    assert sums == files * sum(part[name].sum() for name in part.columns)
