"""Clock time: what was known at each boundary of a grid, however many rows there were between two."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cbtools.errors import ConfigError
from cbtools.features.links import Products, times_of
from cbtools.features.stage import check_clock, check_frame
from cbtools.lazy import Step, stateful
from cbtools.schema import BOOK_STATE
from cbtools.spans import span_ns

I64 = npt.NDArray[np.int64]

_PRODUCT: Final = "product_id"
_STATE: Final = "book_state"
_MADE: Final = ("sample_time", "staleness_ns", "n_updates")


def sample_time(
    frame: pl.LazyFrame | pl.DataFrame, every: str = "1s", *, clock: str = "capture_time"
) -> pl.LazyFrame:
    """Sample rows at regular times: each product's last row at or before every boundary.

    A boundary is a whole multiple of ``every`` since the epoch. Each one from the product's first row to its
    last has a row, quiet ones too; a gap of a day is 86,400 rows at ``"1s"``. Streaming: a boundary is given
    out when the product's next later row comes, and so holds nothing that was not known then. Gaps and
    snapshots do not matter: an unproven row is given out as what was known. What a row tells of a window, as
    ``ofi_1s``, is of the window that ends at the row's own time, ``staleness_ns`` before the boundary.

    Parameters
    ----------
    frame : polars.LazyFrame or polars.DataFrame
        Rows with a clock, in the order in which they came: of a book, with features or without, of trades or
        tickers. Without a column product_id they are of one product.
    every : str
        Time from boundary to boundary, as ``"1s"`` or ``"500ms"``.
    clock : str
        Which time tells what came before a boundary. It may step back: its running maximum over the
        product's rows counts. Rows without it are left out.

    Returns
    -------
    polars.LazyFrame
        product_id, if the frame has it; ``sample_time`` (Datetime, ns), the boundary; the frame's other
        columns, of the last row at or before it; ``staleness_ns`` (Int64), how old that row is;
        ``n_updates`` (Int64), the rows since the boundary before; of a book, without those with which it
        becomes unproven, which are breaks and no changes. None of the new ones is ever null.
        The rows of a product are in the order of time.

    Raises
    ------
    ConfigError
        If every is no time span, the frame lacks the clock, or already has a column of these names; at once.

    Examples
    --------
    >>> import cbtools as cb
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"])
    >>> seconds = level2.pipe(cb.rebuild_book, depth=1).pipe(cb.sample_time, every="10s")
    >>> seconds.select(pl.col("sample_time").diff().drop_nulls().unique()).collect().to_series().to_list()
    [datetime.timedelta(seconds=10)]
    """
    schema = check_frame(frame, "sampled")
    span = span_ns(every)
    check_clock(schema, clock, "sampled")
    for name in _MADE:
        if name in schema:
            raise ConfigError(
                f"the frame already has a column {name}: rename it, or drop it, to sample again"
            )
    made = _schema(schema, clock)

    def start(columns: list[str]) -> tuple[list[str], Step]:
        sampler = _Sampler(columns, made, clock, span)
        used = {*columns, clock, _PRODUCT, *([_STATE] if "n_updates" in columns else [])}
        return [name for name in schema if name in used], sampler

    by = _PRODUCT if _PRODUCT in schema else None
    return stateful(frame.lazy(), start, made, f"SAMPLE {every}", by=by)


def _schema(schema: pl.Schema, clock: str) -> pl.Schema:
    zone = getattr(schema[clock], "time_zone", None)
    time = {"sample_time": pl.Datetime("ns", zone)}
    product = {_PRODUCT: schema[_PRODUCT]} if _PRODUCT in schema else {}
    return pl.Schema({**product, **time, **schema, "staleness_ns": pl.Int64(), "n_updates": pl.Int64()})


class _Sampler:
    """Gives out boundaries, batch by batch; between two it has each product's last row."""

    def __init__(self, columns: list[str], schema: pl.Schema, clock: str, every: int) -> None:
        from cbtools._kernels import clocks

        self._kernels = clocks
        self._schema = pl.Schema({name: schema[name] for name in columns})
        self._made = {name: schema[name] for name in _MADE}
        self._clock, self._every = clock, every
        self._products = Products()
        self._last = np.zeros((0, 4), np.int64)
        self._rows: pl.DataFrame | None = None  # the last ones, in the order of the products' codes

    def __call__(self, batch: pl.DataFrame | None) -> pl.DataFrame:
        """Take the next rows; give the boundaries that they give out, or at last those of the last rows."""
        if batch is None:
            return self._end()
        if batch[self._clock].null_count():
            batch = batch.filter(pl.col(self._clock).is_not_null())
        if batch.is_empty():
            return pl.DataFrame(schema=self._schema)
        kernels, known = self._kernels, len(self._last)
        codes, time = self._products(batch), times_of(batch, self._clock).copy()
        last = self._begin()
        source, first, updates, count = (np.empty(len(codes), np.int64) for _ in range(4))
        before = last[:known, kernels.TIME].copy()
        unproven = np.zeros(len(codes), np.bool_)
        if batch.schema.get(_STATE) == BOOK_STATE:
            unproven = (batch[_STATE] == "unproven").fill_null(value=False).to_numpy()
        total = kernels.due(codes, time, unproven, self._every, last, known, source, first, updates, count)
        places, *told = (np.empty(total, np.int64) for _ in range(4))
        time = np.concatenate([before, time])
        kernels.lay(source, first, updates, count, time, self._every, places, *told)
        pool = batch if self._rows is None else pl.concat([self._rows, batch])
        self._rows = pool[last[:, kernels.PLACE]]
        return self._told(pool[places], *told)

    def _begin(self) -> I64:
        """Make room for new products; the last rows stand before the batch."""
        last = np.zeros((len(self._products.names), 4), np.int64)
        last[:, self._kernels.TIME] = self._kernels.NONE
        last[: len(self._last)] = self._last
        last[:, self._kernels.PLACE] = np.arange(len(last))
        self._last = last
        return last

    def _end(self) -> pl.DataFrame:
        """Give the boundaries that are at the very time of a product's last row."""
        time, count = self._last[:, self._kernels.TIME], self._last[:, self._kernels.COUNT]
        at = np.flatnonzero(time % self._every == 0)
        if self._rows is None:
            return pl.DataFrame(schema=self._schema)
        return self._told(self._rows[at], time[at], np.zeros_like(at), count[at])

    def _told(self, rows: pl.DataFrame, time: I64, staleness: I64, updates: I64) -> pl.DataFrame:
        made = zip(_MADE, (time, staleness, updates), strict=True)
        columns = [pl.Series(name, values).cast(self._made[name]) for name, values in made]
        return rows.hstack(columns).select(self._schema.names())
