"""Processors: a lazy frame in, a lazy frame out, and what passes is counted."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools.etl import (
    BaseProcessor,
    Level2Processor,
    ProcessorChain,
    TickerProcessor,
    TradesProcessor,
    channels,
)

FRAME = pl.LazyFrame({"x": [1, 2, 3, 4], "k": ["a", "b", "a", "b"]})


class Doubled(BaseProcessor):
    def process(self, frame):
        return frame.with_columns(pl.col("x") * 2)


class Odd(BaseProcessor):
    """Was written without a call of the parent's __init__, and gives a frame that is not lazy."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def process(self, frame):
        return frame.filter(pl.col("x") % 2 == 1).collect()


class Totals(BaseProcessor):
    """Keeps a running total from batch to batch."""

    batch_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def process_batch(self, records):
        made = []
        for record in records:
            self.total += record["x"]
            made.append({"k": record["k"], "total": self.total})
        return made


def test_rows_in_and_rows_out_are_counted_when_the_query_runs():
    odd = Odd()
    frame = odd(FRAME)
    assert frame.collect()["x"].to_list() == [1, 3]
    assert odd.get_stats() == {"records_processed": 2, "records_output": 2}  # 2 were never asked for
    odd.reset_stats()
    assert odd.get_stats() == {}


def test_counting_lets_columns_and_filters_through():
    doubled = Doubled()
    plan = doubled(FRAME).filter(pl.col("k") == "a").select("x")
    assert plan.collect()["x"].to_list() == [2, 6]
    assert doubled.get_stats() == {"records_processed": 2, "records_output": 2}


def test_records_are_given_in_batches_of_one_size_and_in_order():
    seen = []

    class Seeing(Totals):
        def process_batch(self, records):
            seen.append(len(records))
            return super().process_batch(records)

    parts = [pl.LazyFrame({"x": [k], "k": ["a"]}) for k in range(1, 8)]
    totals = Seeing()
    assert totals(pl.concat(parts)).collect()["total"].to_list() == [1, 3, 6, 10, 15, 21, 28]
    assert seen[1:] == [3, 3, 1]  # the first was tried to learn the columns
    assert totals.total == 28  # by a copy


def test_records_keep_the_dtypes_that_they_came_with(tables):
    class Same(BaseProcessor):
        def process_batch(self, records):
            return records

    level2 = tables.level2.with_columns(pl.col(pl.Datetime).dt.truncate("1us"))
    assert_frame_equal(Same()(level2).collect(), level2)


def test_columns_can_be_said_beforehand():
    class Sometimes(BaseProcessor):
        batch_size = 2

        def process_batch(self, records):
            return [{"x": r["x"], "large": True} if r["x"] > 2 else {"x": r["x"]} for r in records]

    class Said(Sometimes):
        schema = {"x": pl.Int64, "large": pl.Boolean}  # noqa: RUF012

    with pytest.raises(cb.ConfigError, match="gives large, which its first records had not"):
        Sometimes()(FRAME).collect()
    assert Said()(FRAME).collect()["large"].to_list() == [None, None, True, True]


def test_a_column_without_a_value_has_no_dtype():
    class Nothing(BaseProcessor):
        def process_batch(self, records):
            return [{"y": None} for _ in records]

    with pytest.raises(cb.ConfigError, match="Nothing gives no value of y"):
        Nothing()(FRAME)


def test_columns_are_learnt_from_the_first_records_that_there_are():
    class Late(BaseProcessor):
        batch_size = 1

        def process_batch(self, records):
            return [{"y": r["x"] / 2} for r in records if r["x"] > 2]

    assert Late()(FRAME).collect()["y"].to_list() == [1.5, 2.0]
    assert Late()(FRAME.filter(pl.col("x") < 2)).collect().is_empty()


def test_what_cannot_be_copied_says_its_columns(tmp_path):
    class Noting(BaseProcessor):
        def __init__(self, file):
            self.file = file

        def process_batch(self, records):
            self.file.write(f"{len(records)}\n")
            return records

    class Said(Noting):
        schema = FRAME.collect_schema()

    with (tmp_path / "notes").open("w", encoding="utf-8") as file:
        with pytest.raises(cb.ConfigError, match="cannot be copied"):
            Noting(file)(FRAME)
        assert Said(file)(FRAME).collect().equals(FRAME.collect())
    assert (tmp_path / "notes").read_text(encoding="utf-8") == "4\n"


def test_counts_of_a_processors_own_do_not_disturb_those_of_rows():
    class Old(BaseProcessor):
        """Counts as it did in the earlier package."""

        batch_size = 3

        def process_batch(self, records):
            self.stats["records_processed"] = len(records)
            self.stats["seen"] += len(records)
            return records

    old = Old()
    old(FRAME).collect()
    assert old.get_stats()["seen"] == old.get_stats()["records_output"] == 4
    assert old.get_stats()["records_processed"] == 4  # what was tried, to learn the columns, is not counted
    with pytest.raises(cb.ConfigError, match="Old takes a Polars frame, not list"):
        old([{"x": 1}])


def test_what_gives_no_frame_is_named():
    class Lists(BaseProcessor):
        def process(self, frame):
            return [1]

    class Wrong(BaseProcessor):
        schema = {"x": pl.Int64}  # noqa: RUF012

        def process_batch(self, records):
            return None

    class Nothing(BaseProcessor):
        pass

    def swallow(frame):
        return None

    for processor in (Lists(), ProcessorChain([swallow]), Nothing()):
        with pytest.raises(cb.ConfigError, match=r"Lists|swallow|Nothing"):
            processor(FRAME)
    with pytest.raises(cb.ConfigError, match=r"Wrong\.process_batch must give a list of dicts"):
        Wrong()(FRAME).collect()


def test_a_chain_calls_its_processors_in_order_functions_too():
    def plus_one(frame):
        return frame.with_columns(pl.col("x") + 1)

    chain = ProcessorChain([Doubled(), ProcessorChain([plus_one]), Odd(), Doubled()])
    assert chain(FRAME).collect()["x"].to_list() == [6, 10, 14, 18]
    stats = chain.get_stats()
    assert list(stats) == ["records_processed", "records_output", "Doubled", "plus_one", "Odd", "Doubled_2"]
    assert stats["plus_one"] == {"records_processed": 4, "records_output": 4}
    chain.reset_stats()
    assert chain.get_stats()["Doubled"] == {}
    assert ProcessorChain([])(FRAME).collect().equals(FRAME.collect())
    for wrong in ([Doubled], [3]):
        with pytest.raises(cb.ConfigError, match="a processor must be a function of a frame"):
            ProcessorChain(wrong)


# --- of channels


@pytest.fixture
def called(monkeypatch):
    """Spy on the functions that work."""
    calls = []
    for name in ("rebuild_book", "add_book_features", "add_trade_features"):
        function = getattr(cb, name)

        def spy(*args, name=name, function=function, **options):
            calls.append((name, args[1:], options))
            return function(*args, **options)

        monkeypatch.setattr(channels, name, spy)
    return calls


def test_level2_calls_what_rebuilds_and_what_adds(tables, called):
    made = Level2Processor(reconstruct_lob=True, compute_features=True, max_levels=3)(tables.level2)
    assert called == [("rebuild_book", (), {"depth": 3}), ("add_book_features", (), {})]
    expected = cb.rebuild_book(tables.level2, depth=3).pipe(cb.add_book_features).collect()
    assert made.collect().equals(expected)


@pytest.mark.parametrize("derived", [True, False])
def test_level2_derives_mid_and_spread_of_a_book_alone(tables, called, derived):
    book = Level2Processor(reconstruct_lob=True, add_derived_fields=derived)(tables.level2)
    features = [("add_book_features", (("mid", "spread", "spread_bps"),), {})]
    assert called == [("rebuild_book", (), {"depth": 10}), *(features if derived else [])]
    assert ("mid" in book.collect_schema()) == derived
    plain = Level2Processor(add_derived_fields=derived)(tables.level2)
    assert plain.collect().equals(tables.level2)


def test_features_ask_for_a_book_and_a_book_is_not_rebuilt(tables, called):
    of_level2 = Level2Processor(compute_features=True)(tables.level2).collect()
    book = cb.rebuild_book(tables.level2)
    called.clear()
    of_book = Level2Processor(reconstruct_lob=True, compute_features=True)(book).collect()
    assert [name for name, *_ in called] == ["add_book_features"]
    assert of_book.equals(of_level2)


def test_trades_get_their_features(tables, called):
    made = TradesProcessor()(tables.market_trades)
    assert called == [("add_trade_features", (), {})]
    assert made.collect().equals(cb.add_trade_features(tables.market_trades).collect())
    kept = TradesProcessor(add_derived_fields=False, infer_aggressor=True)(tables.market_trades)
    assert kept.collect().equals(tables.market_trades)


def test_tickers_tell_mid_spread_and_range():
    tickers = pl.DataFrame(
        {
            "best_bid": [99.0, 100.0, 101.0, None, 99.0],
            "best_ask": [101.0, 100.0, 100.0, 101.0, 101.0],
            "low_24h": [80.0, 80.0, 0.0, None, 50.0],
            "high_24h": [100.0, 100.0, 10.0, 100.0, 50.0],
        }
    )
    found = TickerProcessor()(tickers).drop(tickers.columns).collect()
    assert found.columns == ["mid", "spread", "spread_bps", "range_24h", "range_24h_pct"]
    assert found.rows() == [
        (100.0, 2.0, 200.0, 20.0, 25.0),
        (None, None, None, 20.0, 25.0),  # locked
        (None, None, None, 10.0, None),  # crossed; nothing to relate the range to
        (None, None, None, None, None),
        (100.0, 2.0, 200.0, 0.0, 0.0),
    ]
    assert TickerProcessor(add_derived_fields=False)(tickers).collect().equals(tickers)


def test_a_ticker_has_the_books_mid(tables):
    tickers = TickerProcessor()(tables.ticker).collect()
    quotes = tickers.select("best_bid", "best_ask", "mid").drop_nulls()
    assert quotes.height > 0
    assert quotes["mid"].equals((quotes["best_bid"] + quotes["best_ask"]) / 2)


def test_arguments_that_cannot_be_meant_are_refused(tables):
    for make in (
        lambda: Level2Processor(reconstruct_lob="yes"),
        lambda: Level2Processor(max_levels=0),
        lambda: TradesProcessor(add_derived_fields=1),
        lambda: TickerProcessor(add_derived_fields=None),
        lambda: TickerProcessor()(tables.level2),
        lambda: Level2Processor(reconstruct_lob=True)(tables.ticker),
        lambda: TradesProcessor()(tables.ticker),
    ):
        with pytest.raises(cb.ConfigError):
            make()
