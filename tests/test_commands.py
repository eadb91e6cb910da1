"""The commands for datasets."""

from __future__ import annotations

import polars as pl
import pytest

import cbtools as cb

pytestmark = pytest.mark.filterwarnings(  # we do mean to read sys.argv, as the shell's call does
    "ignore:Cyclopts application invoked without tokens:UserWarning"
)


@pytest.fixture
def processed(tmp_path):
    for segment in sorted(cb.sample_path().iterdir()):
        cb.run_segment(segment, tmp_path / "processed", channel_config={"market_trades": {}, "ticker": {}})
    return tmp_path / "processed"


def test_describe_tells_what_is_in_a_dataset(call, processed):
    code, out, err = call("describe", processed)
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if "market_trades" in line)
    assert "2425" in line
    assert "missing" not in out


def test_describe_tells_what_is_missing(call, tmp_path):
    frame = pl.DataFrame({"date": ["2025-11-26", "2025-11-28"], "x": [1, 2]}).with_columns(
        pl.col("date").str.to_date()
    )
    cb.write_dataset(frame, tmp_path / "days", partition_by="date")
    assert "missing:\n  days 2025-11-27\n" in call("describe", tmp_path / "days").out


def test_compact_merges_the_parts(call, processed):
    before = cb.scan_dataset(processed, "ticker", segment=True).collect()
    code, out, err = call("compact", processed, "--table", "ticker", "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("would compact 3 parts into 1, 3,261 rows")
    assert len(list(processed.rglob("part_*"))) == 12
    code, out, err = call("compact", processed, "--table", "ticker", "--grace-seconds", 0)
    assert (code, err) == (0, "")
    assert out.startswith("compacted 3 parts into 1, 3,261 rows")
    assert len(list(processed.rglob("part_*"))) == 10
    assert cb.scan_dataset(processed, "ticker", segment=True).collect().equals(before)
    assert call("compact", processed, "--table", "ticker").out == "nothing to compact\n"


def test_repartition_divides_by_other_columns(call, processed, tmp_path):
    code, out, err = call(
        "repartition",
        processed,
        tmp_path / "other",
        "--by",
        "aggressor_side",
        "date",
        "--table",
        "market_trades",
    )
    assert (code, err) == (0, "")
    assert out.startswith("2,425 rows in 6 parts")
    assert {path.name for path in (tmp_path / "other/market_trades").iterdir()} == {
        "aggressor_side=buy", "aggressor_side=sell",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("csv", "product_id,n\nBTC-USD,1118\nETH-USD,775\nSOL-USD,532\n"),
        ("json", '{"product_id":"BTC-USD","n":1118}\n{"product_id":"ETH-USD","n":775}\n'
                 '{"product_id":"SOL-USD","n":532}\n'),
    ],
)  # fmt: skip
def test_query_prints_the_rows(call, processed, form, expected):
    sql = "SELECT product_id, count(*) AS n FROM market_trades GROUP BY product_id ORDER BY product_id"
    assert call("query", processed, sql, "--format", form) == (0, expected, "")
    assert "1118" in call("query", processed, sql).out


@pytest.mark.parametrize(
    ("tokens", "code", "said"),
    [
        (["query", "nowhere", "SELECT 1"], 74, "nowhere"),
        (["compact", "nowhere"], 74, "no dataset in nowhere"),
        (["compact", ".", "--target-mb", "0"], 78, "target_mb must be a positive size"),
        (["repartition", "nowhere", "other", "--by", "date"], 74, "no dataset in nowhere"),
        (["describe", "nowhere"], 78, "unknown table 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_told(call, tmp_path, monkeypatch, tokens, code, said):
    monkeypatch.chdir(tmp_path)
    done = call(*tokens)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
