"""The straight line through two columns, with what can be said of it."""

from __future__ import annotations

import polars as pl

from cbtools.errors import ConfigError, unknown_name
from cbtools.features.stage import check_frame


def regress(frame: pl.LazyFrame | pl.DataFrame, y: str, x: str) -> pl.LazyFrame:
    """Regress one column on another, product by product: ordinary least squares with an intercept.

    Parameters
    ----------
    frame : polars.LazyFrame or polars.DataFrame
        Rows with both columns and, if there are several products, product_id. Rows in which either is null
        or not finite are left out.
    y, x : str
        Names of the columns: what is explained, and by what.

    Returns
    -------
    polars.LazyFrame
        A row a product, in their order: product_id (if the frame has it), n (UInt32), slope, intercept, se
        (of the slope; homoscedastic), t (slope / se) and r2 (all Float64). Null where they are not defined:
        fewer than 3 rows, x or y constant, or a fit without residuals.

    Raises
    ------
    ConfigError
        If the frame lacks a column, or it is not one of numbers; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> book = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"]).pipe(cb.rebuild_book)
    >>> seconds = book.pipe(cb.add_book_features, ["ofi_1s", "return_1s"]).pipe(cb.sample_time, "1s")
    >>> cb.regress(seconds, "return_1s", "ofi_1s").select(pl.col("r2") > 0).collect().item()
    True
    """
    schema = check_frame(frame, "frame")
    for name in (y, x):
        if name not in schema:
            raise unknown_name("column of the frame", name, schema)
        if not schema[name].is_numeric():
            raise ConfigError(f"{name} must be a column of numbers, not of {schema[name]}")
    by = [name for name in ("product_id",) if name in schema]
    rows = frame.lazy().select(
        *by,
        y=pl.col(y).cast(pl.Float64),
        x=pl.col(x).cast(pl.Float64),
    )
    of_x, of_y = pl.col("x") - pl.col("x").mean(), pl.col("y") - pl.col("y").mean()
    sums = {
        "n": pl.len(),
        "mean_x": pl.col("x").mean(),
        "mean_y": pl.col("y").mean(),
        "xx": (of_x * of_x).sum(),
        "xy": (of_x * of_y).sum(),
        "yy": (of_y * of_y).sum(),
    }
    rows = rows.filter(pl.col("x").is_finite() & pl.col("y").is_finite())
    summed = rows.group_by(by, maintain_order=True).agg(**sums) if by else rows.select(**sums)
    return _line(summed, by)


def _line(sums: pl.LazyFrame, by: list[str]) -> pl.LazyFrame:
    n, xx, xy, yy = (pl.col(name) for name in ("n", "xx", "xy", "yy"))
    defined = (n > 2) & (xx > 0.0)
    slope = pl.when(defined).then(xy / xx)
    residual = pl.when(defined & (yy > xy * xy / xx)).then(yy - xy * xy / xx)
    se = (residual / (n - 2) / xx).sqrt()
    return sums.select(
        *by,
        "n",
        slope=slope,
        intercept=pl.col("mean_y") - slope * pl.col("mean_x"),
        se=se,
        t=slope / se,
        r2=pl.when(defined & (yy > 0.0)).then(xy * xy / (xx * yy)),
    )
