"""The end of a recording, by what lies beside a dataset or by the rows of a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import polars as pl

from cbtools.book.states import KeptState
from cbtools.dataset.hive import segment_of, walk
from cbtools.raw.sequence import NO_TIME
from cbtools.schema import NULL_FOLDER
from cbtools.stores import as_place, open_bytes

RECEIVED: Final = "received"
"""When a row was received, or sent where that is not known; nanoseconds."""

_TABLES: Final = ("level2", "market_trades")
_CLOCKS: Final = ("capture_time", "server_time")
_RUNS: Final = "_runs"
_NO_DAY: Final = f"date={NULL_FOLDER}"
_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_NS: Final = 86_400 * 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Others(NamedTuple):
    """The other products' rows in a frame: whether there are any, and when the last was received."""

    any: bool
    last: int | None


def nanoseconds(time: datetime) -> int:
    """Return a time as nanoseconds since 1970; without a zone it is UTC."""
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def moment(ns: int) -> datetime:
    """Return a time of nanoseconds since 1970, to the microsecond."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def time_text(time: datetime | None) -> str:
    """Show a time."""
    return "not known" if time is None else f"{time:%F %T.%f} UTC"


def others_in(rows: pl.LazyFrame, product_id: str, instant: int) -> Others:
    """Find the last row of all products but one; of a dataset by date, in its last days first."""
    rows = rows.filter(pl.col("product_id") != product_id)
    if "date" in rows.collect_schema():
        near = _last_of(rows.filter(pl.col("date").to_physical() >= instant // _DAY_NS - 1))
        if near.any:
            return near
    return _last_of(rows)


def _last_of(rows: pl.LazyFrame) -> Others:
    n, last = rows.select(pl.len(), pl.col(RECEIVED).max()).collect(engine="streaming").row(0)
    return Others(n > 0, last)


def end_of_dataset(root: Path, kept: Iterable[KeptState]) -> int | None:
    """Return when the last frame under a root was received, by all that tells it; nanoseconds.

    It is the latest of: the ends of the states kept; the ends of the manifests' time spans; and the greatest
    capture_time (server_time where there is none) of the parts of level2 and market_trades, by the statistics
    in their footers. The states tell it of the last segments, the manifests of those that a job ran, the
    parts of any dataset.
    """
    states = [state.time for state in kept if state.time != NO_TIME]
    return max([*states, *_ends_of_manifests(root), *_ends_of_parts(root)], default=None)


def _ends_of_manifests(root: Path) -> Iterator[int]:
    for path in (root / _RUNS).glob("[!.]*.json"):
        try:
            span = orjson.loads(path.read_bytes())["time_span"]
            if span:
                yield nanoseconds(datetime.fromisoformat(span[1]))
        except (ValueError, TypeError, KeyError, IndexError):  # a job refuses it; the others tell the end
            continue


def _ends_of_parts(root: Path) -> Iterator[int]:
    for table in _TABLES:
        parts = [
            (max((name for name in relative if name.startswith("date=")), default=""), entry.path)
            for relative, files in walk(root / table)
            for entry in files
            if segment_of(entry.name) is not None
        ]
        last_day = max((day for day, _ in parts if day != _NO_DAY), default="")
        for day, path in parts:
            if day in (last_day, _NO_DAY):
                yield from _end_of_part(as_place(path))


def _end_of_part(path: Path) -> list[int]:
    """Return the greatest receive time that a part's statistics tell, if they tell one."""
    import pyarrow as pa
    import pyarrow.parquet as pq  # 50 ms, which `import cbtools` need not pay

    try:
        with open_bytes(path) as file:
            metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError):  # a scan of it raises; its rows are not needed here
        return []
    columns = metadata.schema.to_arrow_schema()
    timed = [field.name for field in columns if pa.types.is_timestamp(field.type)]
    for clock in (name for name in _CLOCKS if name in timed):
        place = columns.names.index(clock)
        groups = [metadata.row_group(i).column(place).statistics for i in range(metadata.num_row_groups)]
        ends = [group.max_raw for group in groups if group is not None and group.has_min_max]
        if ends:
            return [max(ends) * _NS[columns.field(clock).type.unit]]
    return []
