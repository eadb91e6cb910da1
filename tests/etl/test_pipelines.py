"""Pipelines and writers: what is written, under which name, and what is counted on the way."""

from __future__ import annotations

import polars as pl
import pytest

import cbtools as cb
from cbtools.etl import (
    BaseReader,
    BaseWriter,
    CoinbaseSegmentPipeline,
    CSVReader,
    ETLPipeline,
    Level2Processor,
    NDJSONReader,
    ParquetReader,
    ParquetWriter,
    ProcessorChain,
    RawParser,
    pipelines,
    writers,
)

ROWS = pl.DataFrame({"k": ["a", "b", "a"], "x": [1, 2, 3]})


# --- ParquetWriter


@pytest.mark.parametrize("data", [ROWS, ROWS.lazy(), ROWS.to_dicts()], ids=["frame", "lazy", "records"])
def test_a_writer_calls_write_dataset(data, tmp_path, monkeypatch):
    calls = []

    def spy(frame, root, **options):
        calls.append((type(frame).__name__, root, options))
        return cb.write_dataset(frame, root, **options)

    monkeypatch.setattr(writers, "write_dataset", spy)
    writer = ParquetWriter(compression="zstd")
    written = writer.write(data, tmp_path, ["k"], segment="s1")
    kind = "LazyFrame" if isinstance(data, pl.LazyFrame) else "DataFrame"
    assert calls == [(kind, tmp_path, {"partition_by": ["k"], "segment": "s1"})]
    assert cb.scan_dataset(tmp_path).select("k", "x").collect().sort("x").equals(ROWS)
    assert writer.get_stats() == {"records_written": 3, "files_written": 2, "bytes_written": written.bytes}


def test_each_write_adds_unless_it_names_a_segment(tmp_path):
    for n in (1, 2):
        ParquetWriter().write(ROWS, tmp_path)
        assert cb.scan_dataset(tmp_path).collect().height == 3 * n
    for _ in range(2):
        ParquetWriter().write(ROWS, tmp_path, segment="s1")
        assert cb.scan_dataset(tmp_path).collect().height == 9
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*.parquet"))


def test_what_cannot_be_written_is_told(tmp_path):
    class Nothing(BaseWriter):
        pass

    for data in (3, "text", [1, 2], []):
        with pytest.raises(cb.ConfigError, match="data "):
            ParquetWriter().write(data, tmp_path)
    with pytest.raises(cb.ConfigError, match="compression must be 'zstd'"):
        ParquetWriter(compression="snappy")
    with pytest.raises(cb.ConfigError, match="Nothing must override write"):
        Nothing().write(ROWS, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- ETLPipeline


def test_counts_of_a_run_add_up(ready, tmp_path, tables):
    def bids(frame):
        return frame.filter(
            pl.col("side").cast(pl.String).str.starts_with("b").map_elements(bool, pl.Boolean)
        )

    pipeline = ETLPipeline(NDJSONReader(), [RawParser(channel="level2"), bids], ParquetWriter())
    written = pipeline.execute(ready, tmp_path, ["product_id", "date"])
    stats = pipeline.get_stats()
    n = (tables.level2["side"] == "bid").sum()
    assert stats["reader"] == {
        "files_processed": len(list(ready.iterdir())),
        "records_read": tables.report.lines,
        "errors": 2,
    }
    assert stats["processor"]["RawParser"]["records_output"] == tables.level2["side"].count()
    assert stats["processor"]["bids"]["records_output"] == n
    assert (stats["processor"]["records_processed"], stats["processor"]["records_output"]) == (
        tables.report.lines,
        n,
    )
    assert written.rows == stats["writer"]["records_written"] == n
    assert isinstance(pipeline.processor, ProcessorChain)
    pipeline.reset_stats()
    assert pipeline.get_stats()["reader"] == pipeline.get_stats()["writer"] == {}


def test_a_pipeline_is_lazy(ready):
    pipeline = ETLPipeline(
        NDJSONReader(), [RawParser(channel="level2"), Level2Processor(True)], ParquetWriter()
    )
    frame = pipeline.scan(ready)
    assert "records_read" not in pipeline.get_stats()["reader"]
    expected = cb.rebuild_book(cb.scan_raw(ready, "level2")).pipe(
        cb.add_book_features, ["mid", "spread", "spread_bps"]
    )
    assert frame.collect().equals(expected.collect())


def test_a_chain_and_a_function_are_processors(ready, tmp_path, tables):
    chain = ProcessorChain([RawParser(channel="ticker"), lambda frame: frame.select("price")])
    ETLPipeline(reader=NDJSONReader(), processors=chain, writer=ParquetWriter()).execute(
        ready, tmp_path / "a"
    )
    assert cb.scan_dataset(tmp_path / "a").collect().equals(tables.ticker.select("price"))
    cb.write_dataset(ROWS, tmp_path / "b", partition_by=[])
    pipeline = ETLPipeline(ParquetReader(), lambda frame: frame.select(pl.sum("x")), ParquetWriter())
    assert pipeline.execute(tmp_path / "b", tmp_path / "c").rows == 1


def test_segments_stand_side_by_side_and_one_executed_again_replaces_its_rows(ready, tmp_path, tables):
    pipeline = ETLPipeline(NDJSONReader(), [RawParser(channel="market_trades")], ParquetWriter())
    paths = sorted(ready.iterdir())
    for path in [*paths, paths[0]]:
        pipeline.execute(path, tmp_path, ["product_id", "date"])
    found = cb.scan_dataset(tmp_path, segment=True).collect()
    assert set(found["segment"]) <= {path.stem for path in paths}
    assert found.height == sum(
        RawParser(channel="market_trades").scan(path).collect().height for path in paths
    )


def test_parts_of_one_name_in_several_partitions_do_not_replace_each_other(tmp_path):
    cb.write_dataset(ROWS, tmp_path / "a", partition_by="k")
    pipeline = ETLPipeline(ParquetReader(), [], ParquetWriter())
    for path in (tmp_path / "a").rglob("*.parquet"):
        pipeline.execute(path, tmp_path / "b")
    assert cb.scan_dataset(tmp_path / "b").collect().sort("x").select("k", "x").equals(ROWS)


def test_any_input_gives_a_name_that_a_part_can_have(tmp_path):
    for name in ("a b.csv", "c.csv"):
        (tmp_path / name).write_text("x\n1\n", encoding="utf-8")
    pipeline = ETLPipeline(CSVReader(), [], ParquetWriter())
    sources = [tmp_path / "a b.csv", tmp_path / "c.csv", f"{tmp_path}/*.csv"]
    sources += [[tmp_path / "c.csv", tmp_path / "a b.csv"], [tmp_path / "c.csv"]]
    for source in [*sources, *sources]:
        pipeline.execute(source, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 4  # the file alone, and in a list, is the same
    assert cb.scan_dataset(tmp_path / "out").collect().height == 1 + 1 + 2 + 2


def test_a_reader_that_knows_its_source_needs_none(tmp_path):
    class Numbers(BaseReader):
        def __init__(self, n):
            self.n = n

        def __repr__(self):
            return f"Numbers({self.n})"

        def scan(self, source):
            assert source is None
            return pl.LazyFrame({"x": range(self.n)})

    for n in (2, 3, 3):
        ETLPipeline(Numbers(n), [], ParquetWriter()).execute(None, tmp_path)
    assert cb.scan_dataset(tmp_path).collect().height == 5


def test_a_pipeline_does_not_write_among_what_it_reads(tmp_path):
    cb.write_dataset(ROWS, tmp_path / "a", partition_by="k")
    pipeline = ETLPipeline(ParquetReader(), [], ParquetWriter())
    for source, output in (
        ("a", "a"),
        ("a", "a/b"),
        ("a/k=a", "a"),
        ("a/k=a/part_data.parquet", "a"),
        ("a/*/*.parquet", "a"),
    ):
        with pytest.raises(cb.ConfigError, match="is not apart from the input"):
            pipeline.execute(tmp_path / source, tmp_path / output)
    assert pipeline.execute(tmp_path / "a", tmp_path / "ab", ["k"]).rows == 3


def test_a_failing_processor_leaves_the_dataset_as_it_was(tmp_path):
    def fails(frame):
        return frame.with_columns(pl.col("x").map_batches(lambda s: s / "no", pl.Float64))

    cb.write_dataset(ROWS, tmp_path / "a", partition_by="k")
    ETLPipeline(ParquetReader(), [], ParquetWriter()).execute(tmp_path / "a", tmp_path / "b")
    with pytest.raises(Exception, match="no"):
        ETLPipeline(ParquetReader(), [fails], ParquetWriter()).execute(tmp_path / "a", tmp_path / "b")
    assert cb.scan_dataset(tmp_path / "b").collect().height == 3
    assert len(list((tmp_path / "b").iterdir())) == 1


@pytest.mark.parametrize(
    ("reader", "processors", "writer", "said"),
    [
        (ParquetReader(), [RawParser()], ParquetWriter(), "behind an NDJSONReader"),
        (NDJSONReader(), [len, RawParser()], ParquetWriter(), "must be the first processor"),
        ("a.parquet", [], ParquetWriter(), "reader must have a method scan"),
        (ParquetReader(), [], "out", "writer must have a method write"),
        (ParquetReader(), [3], ParquetWriter(), "a processor must be"),
    ],
)
def test_a_pipeline_that_cannot_be_meant_is_refused(reader, processors, writer, said):
    with pytest.raises(cb.ConfigError, match=said):
        ETLPipeline(reader=reader, processors=processors, writer=writer)


# --- CoinbaseSegmentPipeline


def test_a_segment_pipeline_calls_run_segment(ready, tmp_path, monkeypatch):
    calls = []

    def spy(path, out, **options):
        calls.append((path, out, options))
        return cb.run_segment(path, out, **options)

    monkeypatch.setattr(pipelines, "run_segment", spy)
    path = sorted(ready.iterdir())[0]
    config = {"ticker": {"partition_cols": ["date"]}, "market_trades": {}}
    pipeline = CoinbaseSegmentPipeline(output_dir=tmp_path, channel_config=config)
    report = pipeline.process_segment(path, channels=["ticker"])
    assert calls == [(path, tmp_path, {"channel_config": {"ticker": {"partition_cols": ["date"]}}})]
    assert path.exists()
    n = cb.scan_dataset(tmp_path, "ticker").collect().height
    assert report.rows == {"ticker": n}
    assert pipeline.get_stats() == {
        "ticker": {
            "reader": {"records_read": report.raw.lines, "errors": report.raw.rejected},
            "processor": {"records_processed": n},
            "writer": {"records_written": n, "files_written": 1},
        }
    }
    pipeline.process_segment(path)
    assert set(pipeline.get_stats()) == {"ticker", "market_trades"}


def test_a_segment_pipeline_writes_everything_by_default(ready, tmp_path):
    pipeline = CoinbaseSegmentPipeline(tmp_path)
    pipeline.process_segment(sorted(ready.iterdir())[0], channels=None)
    stats = pipeline.get_stats()
    assert set(stats) == {"level2", "book", "market_trades", "ticker"}
    for table, counts in stats.items():
        n = cb.scan_dataset(tmp_path, table).collect().height
        assert counts["writer"]["records_written"] == counts["processor"]["records_processed"] == n


def test_a_segment_pipeline_refuses_channels_that_there_are_not(ready, tmp_path):
    with pytest.raises(cb.ConfigError, match="did you mean 'level2'"):
        CoinbaseSegmentPipeline(tmp_path, {"levle2": {}})
    for channels in (["tikcer"], "ticker", []):
        with pytest.raises(cb.ConfigError):
            CoinbaseSegmentPipeline(tmp_path).process_segment(sorted(ready.iterdir())[0], channels=channels)
