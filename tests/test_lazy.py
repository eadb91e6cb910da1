"""Generators of frames as lazy sources, and transforms that carry state from row to row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import polars as pl
import pytest

from cbtools.lazy import source, stateful, values_of

NAMES = ["x", "y", "z"]
TOTALS = pl.Schema({"name": pl.String, "n": pl.Int64, "total": pl.Int64, "rows": pl.Int64})


class Totals:
    """A transform: the running total of each name, and at the end a row that counts the rows."""

    def __init__(self) -> None:
        self.started: list[list[str]] = []
        self.batches: list[list[str | None]] = []

    def __call__(self, columns: list[str]) -> tuple[list[str], Any]:
        self.started.append(columns)
        totals: dict[str, int] = {}
        count = 0

        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            nonlocal count
            if batch is None:
                return pl.DataFrame({"name": ["end"], "n": [0], "total": [0], "rows": [count]}, schema=TOTALS)
            self.batches.append(batch["name"].to_list())
            rows = []
            for name, n in batch.select("name", "n").iter_rows():
                totals[name] = totals.get(name, 0) + n
                rows.append((name, n, totals[name], None))
            count += batch.height
            return pl.DataFrame(rows, schema=TOTALS, orient="row")

        return ["name", "n"], step


def frame(rows: int = 9) -> pl.DataFrame:
    return pl.DataFrame(
        {"other": [None] * rows, "n": range(rows), "name": [NAMES[i % 3] for i in range(rows)]}
    )


def expected(rows: int = 9, names: list[str] = NAMES) -> pl.DataFrame:
    n = [i for i in range(rows) if NAMES[i % 3] in names]
    totals = [sum(range(i % 3, i + 1, 3)) for i in n]
    end = ("end", 0, 0, len(n))
    found = [(NAMES[i % 3], i, total, None) for i, total in zip(n, totals, strict=True)]
    return pl.DataFrame([*found, end], schema=TOTALS, orient="row")


def batched(rows: int, size: int, told: list[int] | None = None) -> pl.LazyFrame:
    """Give the frame from a source, in batches of so many rows; ``told`` gets the start of each."""

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        for start in range(0, rows, size):
            if told is not None:
                told.append(start)
            yield frame(rows).slice(start, size)

    return source(batches, frame(1).schema, "BATCHED")


# --- stateful


@pytest.mark.parametrize("size", [1, 2, 5, 9, 100])
def test_state_goes_on_from_batch_to_batch(size):
    assert stateful(batched(9, size), Totals(), TOTALS, "TOTALS").collect().equals(expected())


@pytest.mark.parametrize("rows", [0, 1])
def test_of_nothing_there_is_the_end(rows):
    assert stateful(frame(rows).lazy(), Totals(), TOTALS, "TOTALS").collect().equals(expected(rows))


def test_every_execution_begins_anew():
    totals = Totals()
    query = stateful(frame().lazy(), totals, TOTALS, "TOTALS")
    assert query.collect_schema() == TOTALS
    assert totals.started == []  # nothing is done before the query runs
    for _ in range(3):
        assert query.collect().equals(expected())
    assert len(totals.started) == 3
    assert pl.concat([query, query]).collect().equals(pl.concat([expected()] * 2))


def test_the_columns_that_the_query_needs_are_told():
    totals = Totals()
    query = stateful(frame().lazy(), totals, TOTALS, "TOTALS")
    got = query.filter(pl.col("n") > 3).select("total").collect()
    assert got.equals(expected().filter(pl.col("n") > 3).select("total"))
    assert totals.started == [["n", "total"]]
    assert query.select(pl.len()).collect().item() == 10


def test_a_filter_is_applied_behind_the_transform():
    query = stateful(frame().lazy(), Totals(), TOTALS, "TOTALS")
    for predicate in (pl.col("total") > 5, pl.col("rows").is_not_null(), pl.col("name").is_in([])):
        assert query.filter(predicate).collect().equals(expected().filter(predicate))


@pytest.mark.parametrize(
    ("predicate", "names"),
    [
        (pl.col("name") == "y", ["y"]),
        (pl.col("name").is_in(["z", "x"]), ["x", "z"]),
        ((pl.col("name") == "y") & (pl.col("n") > 2), ["y"]),
        ((pl.col("name") == "x") & (pl.col("name") == "y"), []),
        (pl.col("n") > 2, NAMES),
        (pl.col("name") != "y", NAMES),
    ],
    ids=str,
)
def test_rows_of_names_ruled_out_are_not_read_where_they_do_not_matter(predicate, names):
    totals = Totals()
    query = stateful(batched(9, 2), totals, TOTALS, "TOTALS", by="name").filter(predicate)
    assert query.collect().equals(expected(9, names).filter(predicate))
    assert sorted(name for batch in totals.batches for name in batch) == sorted(names * 3)


def test_else_all_rows_are_read():
    totals = Totals()
    query = stateful(batched(9, 2), totals, TOTALS, "TOTALS").filter(pl.col("name") == "y")
    assert query.collect().equals(expected().filter(name="y"))
    assert sum(len(batch) for batch in totals.batches) == 9


@pytest.mark.parametrize("n", [0, 1, 3, 10, 11])
def test_a_limit(n):
    query = stateful(batched(9, 2), Totals(), TOTALS, "TOTALS")
    assert query.head(n).collect().equals(expected().head(n))
    behind = query.filter(pl.col("name") != "x").head(n)
    assert behind.collect().equals(expected().filter(pl.col("name") != "x").head(n))


def test_a_query_that_has_enough_stops_it():
    told: list[int] = []
    query = stateful(batched(6000, 2, told), Totals(), TOTALS, "TOTALS")
    assert query.head(3).collect().height == 3
    assert len(told) < 1500


def test_transforms_stream_through_each_other():
    once = stateful(batched(9, 2), Totals(), TOTALS, "ONE").filter(pl.col("name") != "end")
    twice = stateful(once.select("name", pl.col("total").alias("n")), Totals(), TOTALS, "OTHER")
    totals = expected().filter(pl.col("name") != "end")
    again = totals.select(pl.col("total").cum_sum().over("name"))["total"]
    assert twice.collect()["total"].to_list() == [*again.to_list(), 0]
    assert twice.collect()["rows"].to_list()[-1] == 9


def test_an_exception_of_the_transform_is_the_query_s():
    class Broken(Exception):
        pass

    def begin(columns: list[str]) -> Any:
        def step(batch: pl.DataFrame | None) -> pl.DataFrame:
            raise Broken

        return ["n"], step

    with pytest.raises(Broken):
        stateful(frame().lazy(), begin, TOTALS, "BROKEN").collect()


def test_its_name_is_in_the_plan():
    assert "TOTALS" in stateful(frame().lazy(), Totals(), TOTALS, "TOTALS").explain()


# --- values_of

A, B = pl.col("a"), pl.col("b")


@pytest.mark.parametrize(
    ("predicate", "values"),
    [
        (A == "x", {"x"}),
        (pl.lit("x") == A, {"x"}),
        (A == 'Ü-€ " \\ \n', {'Ü-€ " \\ \n'}),
        (A == "", {""}),
        (A.is_in(["x", "y"]), {"x", "y"}),
        (A.is_in(("x", "x")), {"x"}),
        (A.is_in({"x"}), {"x"}),
        (A.is_in([]), set()),
        (A.is_in(pl.Series(["x", "y"]).implode()), {"x", "y"}),
        ((A == "x") | (A == "y"), {"x", "y"}),
        ((A == "x") | A.is_in(["y", "z"]), {"x", "y", "z"}),
        ((A == "x") & (B > 1), {"x"}),
        ((B > 1) & (B < 5) & (A == "x"), {"x"}),
        (A.is_in(["x", "y"]) & A.is_in(["y", "z"]), {"y"}),
        ((A == "x") & (A == "y"), set()),
        (((A == "x") & (B > 1)) | ((A == "y") & (B < 1)), {"x", "y"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_texts_that_can_be_told(predicate, values):
    assert values_of(predicate, "a") == values
    assert values_of(predicate, "c") is None


@pytest.mark.parametrize(
    "predicate",
    [
        A != "x",
        ~(A == "x"),
        ~A.is_in(["x"]),
        A > "x",
        A.is_null(),
        A.is_in(["x", None]),
        A.is_in(["x", None], nulls_equal=True),
        A.is_in(B.cast(pl.String).implode()),
        B.cast(pl.String) == A,
        (A == "x") | (B > 1),
        (A == "x") | (B == 5),
        (A == "x") ^ (A == "y"),
        A.eq_missing(pl.lit(None)),
        A.cast(pl.String) == "x",
        (A + "z") == "xz",
        A.str.to_lowercase() == "x",
        A.str.to_lowercase().is_in(["x"]),
        (A == "x").fill_null(value=True),
        pl.when(A == "x").then(B > 1).otherwise(B < 1),
        pl.lit(value=True),
        B > 1,
    ],
    ids=str,
)
def test_what_limits_nothing_for_sure(predicate):
    assert values_of(predicate, "a") is None


@pytest.mark.slow
def test_no_row_that_passes_is_ever_left_out():
    """All predicates of up to three parts, on all rows: what passes is among the texts told."""
    parts = [
        A == "x",
        pl.lit("y") == A,
        A != "x",
        A.is_in(["x", "z"]),
        A.is_in(["x", None], nulls_equal=True),
        A.is_null(),
        B > 1,
        B.is_null(),
        ~(A == "y"),
        A.eq_missing("z"),
    ]
    ways = [
        lambda p, q: p & q,
        lambda p, q: p | q,
        lambda p, q: p ^ q,
        lambda p, q: ~(p & q),
        lambda p, q: p.fill_null(value=False) | q,
        lambda p, q: pl.when(p).then(q),
    ]
    rows = pl.DataFrame(
        list(product(["x", "y", "z", "", None], [0, 2, None])), schema=["a", "b"], orient="row"
    )
    pairs = [way(p, q) for way in ways for p, q in product(parts, parts)]
    predicates = [*parts, *pairs, *(way(p, q) for way in ways[:2] for p, q in product(pairs[::7], parts))]
    told = {i: values for i, p in enumerate(predicates) if (values := values_of(p, "a")) is not None}
    passed = rows.select("a", *(p.alias(str(i)) for i, p in enumerate(predicates)))
    for i, values in told.items():
        assert set(passed.filter(pl.col(str(i)))["a"]) <= values, str(predicates[i])
    assert len(told) > 200
