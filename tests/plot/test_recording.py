"""What is covered is what the job's report says."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

import cbtools as cb
from cbtools.schema import TIME

START = datetime(2025, 11, 26, 14, tzinfo=UTC)


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def hours_frame(*rows: tuple[str, int, int, int, int]) -> pl.DataFrame:
    """Make rows of product, hour of the day, minutes, messages and ok."""
    return pl.DataFrame(
        [(name, START.replace(hour=hour), *counts) for name, hour, *counts in rows],
        schema={
            "product_id": pl.String,
            "hour": TIME,
            "minutes": pl.Int64,
            "messages": pl.Int64,
            "ok": pl.Int64,
        },
        orient="row",
    )


def test_coverage_has_a_row_a_product_and_a_column_an_hour():
    frame = hours_frame(("B-USD", 14, 60, 100, 100), ("A-USD", 16, 12, 50, 20), ("A-USD", 14, 30, 9, 0))
    ax = cb.plot.coverage(frame)
    (image,) = ax.images
    drawn = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(drawn, [[30, np.nan, 12], [60, np.nan, np.nan]])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["A-USD", "B-USD"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["14", "15", "16"]
    assert ax.get_xlabel() == "hour (UTC), 2025-11-26"
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == (
        {((0, 1), "100%"), ((2, 0), "40%"), ((0, 0), "0%")}
    )
    assert image.colorbar.ax.get_ylabel() == "minutes with messages"


def test_what_is_not_all_ok_is_not_shown_as_all():
    (text,) = cb.plot.coverage(hours_frame(("A-USD", 14, 60, 1_000_000, 999_999))).texts
    assert text.get_text() == "99.9%"


def test_an_hour_without_messages_is_white():
    ax = cb.plot.coverage(hours_frame(("A-USD", 14, 60, 5, 5), ("B-USD", 14, 0, 0, 0)))
    assert np.ma.filled(ax.images[0].get_array(), np.nan).ravel().tolist()[0] == 60
    assert np.isnan(np.ma.filled(ax.images[0].get_array(), np.nan)[1, 0])
    assert len(ax.texts) == 1


def test_a_large_coverage_has_no_numbers_and_few_hours():
    rows = [(f"P{k:02}-USD", hour, hour, 10, 10) for k in range(30) for hour in range(24)]
    ax = cb.plot.coverage(hours_frame(*rows))
    assert len(ax.texts) == 0
    assert len(ax.get_xticks()) == 12
    assert np.asarray(ax.images[0].get_array()).shape == (30, 24)


def test_no_coverage_is_told():
    with pytest.raises(cb.ConfigError, match="no coverage to draw"):
        cb.plot.coverage(hours_frame())
