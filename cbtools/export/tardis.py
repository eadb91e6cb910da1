"""The CSV files of Tardis: rows of level2 and market_trades become such files, and these such rows."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Final

import polars as pl

from cbtools.book.messages import RUN
from cbtools.durable import replace_file
from cbtools.errors import ConfigError, DatasetError
from cbtools.export.gaps import Gaps, Proven, Snapshots, check_columns, check_gaps
from cbtools.lazy import Step, source, stateful
from cbtools.schema import SIDE, TRADE_SIDE, schema

_I64, _F64, _TEXT = pl.Int64(), pl.Float64(), pl.String()
_OF_ALL: Final = {"exchange": _TEXT, "symbol": _TEXT, "timestamp": _I64, "local_timestamp": _I64}
_LEVELS: Final = {"side": _TEXT, "price": _F64, "amount": _F64}

_TYPES: Final = {
    "level2": ("incremental_book_L2", pl.Schema({**_OF_ALL, "is_snapshot": pl.Boolean(), **_LEVELS})),
    "market_trades": ("trades", pl.Schema({**_OF_ALL, "id": _TEXT, **_LEVELS})),
}
"""Our table → Tardis' name of the data type, and its columns in order."""

_READ: Final = {
    "level2": ("product_id", "is_snapshot", "side", "price", "size", "server_time", "capture_time", "line"),
    "market_trades": (
        *("product_id", "trade_id", "price", "size", "aggressor_side"),
        *("trade_time", "server_time", "capture_time"),
    ),
}
"""The columns of our tables that go into a file."""

_ROW: Final = "line"  # of the CSV; its header is line 1
_LAST_US: Final = (2**63 - 1) // 1000
_ENDINGS: Final = (".csv", ".csv.gz")

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def to_tardis(
    frame: pl.LazyFrame | pl.DataFrame,
    path: str | os.PathLike[str],
    *,
    exchange: str = "coinbase",
    gaps: Gaps = "drop",
) -> Path:
    """Write level2 or market_trades as a CSV file of Tardis: incremental_book_L2, or trades.

    Rows keep their order, and prices and sizes every digit. Times are cut to microseconds: local_timestamp
    is capture_time, timestamp is server_time of a level change and trade_time of a trade; where one is null,
    the other stands for it, as in Tardis' own files. ``side`` of a trade is the aggressor's. Trades of
    snapshots are written like the others: filter by is_snapshot first if these are not wanted.

    The format cannot say that frames are missing. So the rows of a book that is not proven are left out, and
    its first one (the marker of the break) becomes a snapshot of an empty book: a reader of the file has no
    book of the product until its next snapshot. A reader discards its book at a snapshot that follows a
    change: so a snapshot that follows another has a change before it, with price 0 and amount 0, and an empty
    one is such a change and a snapshot of such a level.

    Parameters
    ----------
    frame : polars.LazyFrame or polars.DataFrame
        Rows of level2 or market_trades, in the order of their lines. A lazy frame is streamed.
    path : path-like
        The file to write, which ends in ``.csv`` or ``.csv.gz``. It appears whole or not at all.
    exchange : str
        Goes into the column of that name.
    gaps : {"drop", "raise", "ignore"}
        What to do with level2 rows that rest on no snapshot of the same unbroken run: leave them out as told
        above; raise at the first; or write them like the others.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ConfigError
        If an argument cannot be meant, or the frame is of neither table; at once.
    StateError
        At the first row of an unproven book with ``gaps="raise"``.
    DatasetError
        If a row has no time at all, or lacks its product, side, price or size.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> from cbtools.export.tardis import to_tardis
    >>> level2 = cb.scan_raw(cb.sample_path(), "level2", products=["BTC-USD"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = to_tardis(level2, f"{folder}/coinbase_incremental_book_L2_2025-11-26_BTC-USD.csv")
    ...     with path.open() as lines:
    ...         print(next(lines), next(lines), sep="", end="")
    exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount
    coinbase,BTC-USD,1764165600004461,1764165600011574,true,bid,87012.34,0.10292637
    """
    check_gaps(gaps)
    if not isinstance(exchange, str) or not exchange:
        raise ConfigError(f"exchange must be a name, e.g. 'coinbase', not {exchange!r}")
    target = Path(path)
    if not target.name.endswith(_ENDINGS):
        raise ConfigError(f"{target} must end in {' or '.join(_ENDINGS)}: give it such a name")
    table = _table_of(frame)
    columns = schema(table)
    proven = table == "level2" and gaps != "ignore"
    needed = [*_READ[table], *([RUN] if proven else [])]
    rows = frame.lazy()
    check_columns(rows, table, {name: columns[name] for name in needed})

    def begin(shown: list[str]) -> tuple[list[str], Step]:
        only_proven = Proven(gaps) if proven else None
        snapshots = Snapshots() if table == "level2" else None

        def step(batch: pl.DataFrame | None) -> pl.DataFrame | None:
            if batch is None or batch.is_empty():
                return None
            if only_proven is not None:
                batch = only_proven(batch)
            if snapshots is not None:
                batch = snapshots(batch)
            return _to_csv(batch, table, exchange)

        return needed, step

    lines = stateful(rows, begin, _TYPES[table][1], "TARDIS")
    with replace_file(target) as draft:
        lines.sink_csv(
            draft,
            compression="gzip" if target.suffix == ".gz" else "uncompressed",
            check_extension=False,  # a draft has another name
            float_scientific=False,  # as Tardis writes them
        )
    return target


def _table_of(frame: object) -> str:
    if isinstance(frame, pl.LazyFrame | pl.DataFrame):
        found = frame.lazy().collect_schema().names()
        for table, mark in (("market_trades", "aggressor_side"), ("level2", "is_snapshot")):
            if mark in found:
                return table
        raise ConfigError(
            f"the frame is neither level2 nor market_trades: its columns are {', '.join(found) or 'none'}"
        )
    raise ConfigError(f"frame must be a Polars frame, e.g. cb.scan_raw(path, 'level2'), not {frame!r}")


def _to_csv(rows: pl.DataFrame, table: str, exchange: str) -> pl.DataFrame:
    times = ["trade_time"] if table == "market_trades" else []
    out = rows.select(
        pl.lit(exchange).alias("exchange"),
        symbol="product_id",
        timestamp=pl.coalesce(*times, "server_time", "capture_time").dt.timestamp("us"),
        local_timestamp=pl.coalesce("capture_time", "server_time", *times).dt.timestamp("us"),
        **({} if times else {"is_snapshot": pl.col("is_snapshot")}),
        **({"id": pl.col("trade_id").cast(_TEXT)} if times else {}),
        side=pl.col("aggressor_side").cast(_TEXT).fill_null("unknown")
        if times
        else pl.col("side").cast(_TEXT),
        price="price",
        amount="size",
    )
    for name in out.columns:
        if name != "id" and out[name].null_count():
            row = rows.row(int(out[name].is_null().arg_max() or 0), named=True)
            raise DatasetError(f"{table} has a row that gives no {name}, which Tardis needs: {row}")
    return out


def read_tardis(path: Files) -> pl.DataFrame:
    """Read CSV files of Tardis as our level2 or market_trades; see `scan_tardis`.

    Parameters
    ----------
    path : path-like, or list of path-like
        Files, or patterns of names.

    Returns
    -------
    polars.DataFrame
        All rows.

    Raises
    ------
    ConfigError, DatasetError
        As `scan_tardis`.

    Examples
    --------
    >>> import tempfile
    >>> import cbtools as cb
    >>> from cbtools.export.tardis import read_tardis, to_tardis
    >>> trades = cb.scan_raw(cb.sample_path(), "market_trades", products=["BTC-USD"]).head(2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = read_tardis(to_tardis(trades, f"{folder}/trades.csv.gz"))
    >>> again.select("trade_id", "price", "size").equals(trades.select("trade_id", "price", "size").collect())
    True
    """
    return scan_tardis(path).collect()


def scan_tardis(path: Files) -> pl.LazyFrame:
    """Read CSV files of Tardis lazily: incremental_book_L2 as level2, trades as market_trades.

    Which of both it is, the header tells. All columns of our table are there; what Tardis does not have is
    null (event_time of level2, server_time of trades, sequence_num; aggressor_side where it is "unknown",
    trade_id where ``id`` is no whole number). Rows of one ``timestamp`` and ``local_timestamp`` are one
    message, and ``line`` is where it begins in its file, so that `rebuild_book` takes it whole.

    Tardis has no numbers that tell of lost frames, but begins anew with a snapshot after each. So every
    snapshot begins a run of its own, named in unbroken_since, and so does every file: a book is proven from
    the first snapshot in a file on. ``connection`` is the number of the file. A message with a snapshot
    replaces the book, also behind another such: who divides a snapshot among messages must join them first.

    Parameters
    ----------
    path : path-like, or list of path-like
        Files, plain or compressed, or patterns of names, which stand for files in the order of their names.
        A list is read in its own order.

    Returns
    -------
    polars.LazyFrame
        Rows of level2 or of market_trades, in the order of the files. It streams.

    Raises
    ------
    ConfigError
        If there is no such file, or the files are not all of one of the two types; at once.
    DatasetError
        If a row cannot be understood, or is of another exchange than the first, when the query runs.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import cbtools as cb
    >>> from cbtools.export.tardis import scan_tardis
    >>> text = '''exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount
    ... deribit,BTC-PERPETUAL,1585699200245000,1585699200250000,true,bid,6425.5,12010
    ... deribit,BTC-PERPETUAL,1585699200245000,1585699200250000,true,ask,6426,5000
    ... deribit,BTC-PERPETUAL,1585699200291000,1585699200297000,false,bid,6425.5,0
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "book.csv")
    ...     _ = path.write_text(text)
    ...     book = scan_tardis(path).pipe(cb.rebuild_book, depth=1).collect()
    >>> book["book_state"].to_list()
    ['ok', 'one_sided']
    """
    files = _files(path)
    tables = {file: _table_in(file) for file in files}
    table = tables[files[0]]
    for file, found in tables.items():
        if found != table:
            raise ConfigError(
                f"{files[0]} is {_TYPES[table][0]}, but {file} is {_TYPES[found][0]}: read them apart"
            )

    def batches(columns: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
        exchange: str | None = None
        for number, file in enumerate(files, 1):
            begin = _Level2() if table == "level2" else _trades
            with closing(_rows(file, table)) as rows:
                for batch in rows:
                    exchange = exchange or batch["exchange"][0]
                    if (batch["exchange"] != exchange).any():
                        raise DatasetError(
                            f"{file} is not of {exchange} alone, as the first row is: read them apart"
                        )
                    yield _of_table(begin(batch), table, number).select(columns)
                if isinstance(begin, _Level2) and begin.holds:
                    yield _of_table(begin(None), table, number).select(columns)

    return source(batches, schema(table), "TARDIS")


def _files(path: Files) -> list[Path]:
    if not isinstance(path, str | os.PathLike):
        found = [file for one in path for file in _files(one)]
    elif (one := Path(path)).is_file():
        return [one]
    elif one.is_dir():
        raise ConfigError(f"{one} is a folder: name its files by a pattern, e.g. {one / '*.csv.gz'}")
    else:
        found = [Path(name) for name in glob(os.fspath(path))] if has_magic(os.fspath(path)) else []  # noqa: PTH207
        found.sort(key=lambda file: (file.name, str(file)))
    if not found:
        raise ConfigError(f"no such file: {path!r} (a path, a pattern of names, or a list of these)")
    return found


def _table_in(file: Path) -> str:
    """Tell by its header of which type a file is."""
    try:
        found = pl.scan_csv(file, infer_schema=False, glob=False).collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{file} cannot be read as CSV: {error}") from error
    for table, (_, columns) in _TYPES.items():
        if not columns.keys() - found.keys():
            return table
    known = "; ".join(f"{name} has {', '.join(columns)}" for name, columns in _TYPES.values())
    raise ConfigError(
        f"{file} is neither of the types that are read: its header is {', '.join(found)}. {known}"
    )


def _rows(file: Path, table: str) -> Generator[pl.DataFrame]:
    """Give a file's rows with their line numbers, each one checked."""
    kind, columns = _TYPES[table]
    sides = SIDE.categories.to_list() if table == "level2" else [*TRADE_SIDE.categories, "unknown"]
    good = (
        pl.col("symbol", "exchange").is_not_null(),
        pl.col("timestamp", "local_timestamp").is_between(0, _LAST_US),
        pl.col("side").is_in(sides),
        pl.col("price").is_finite(),
        pl.col("amount").is_finite() & (pl.col("amount") >= 0),
        *([pl.col("is_snapshot").is_not_null()] if table == "level2" else []),
    )
    lines = pl.scan_csv(
        file, schema_overrides=columns, row_index_name=_ROW, row_index_offset=2, glob=False, low_memory=True
    ).select(_ROW, *columns, good=pl.all_horizontal(*(one.fill_null(False) for one in good)))
    try:
        for batch in lines.collect_batches(maintain_order=True):
            if not batch["good"].all():
                row = batch.filter(~pl.col("good")).row(0, named=True)
                told = {name: row[name] for name in columns}
                raise DatasetError(f"{file}, line {row[_ROW]}: no row of {kind}: {told}")
            if batch.height:
                yield batch.with_columns(pl.col(_ROW).cast(pl.Int64))
    except (OSError, pl.exceptions.PolarsError) as error:
        what = str(error).partition("\n")[0]  # behind it Polars tells of its own options
        raise DatasetError(f"{file} cannot be read as {kind}: {what}") from error


def _of_table(rows: pl.DataFrame, table: str, number: int) -> pl.DataFrame:
    """Give our columns."""
    local, time = (_time(name) for name in ("local_timestamp", "timestamp"))
    known: dict[str, Any] = {
        "product_id": pl.col("symbol"),
        "size": pl.col("amount"),
        "capture_time": local,
        "connection": pl.lit(number),
    }
    if table == "level2":
        known |= {"server_time": time, RUN: _time("run")}
    else:
        opposite = {"buy": "sell", "sell": "buy"}
        known |= {
            "trade_id": pl.col("id").cast(pl.Int64, strict=False),
            "maker_side": pl.col("side").replace_strict(opposite, default=None),
            "aggressor_side": pl.col("side").replace("unknown", None),
            "trade_time": time,
            "is_snapshot": pl.lit(False),
        }
    same = ("side", "price", "is_snapshot", _ROW)
    return rows.select(
        known.get(name, pl.col(name) if name in same else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema(table).items()
    )


def _time(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Datetime("us", "UTC"))


def _trades(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


class _Level2:
    """Divides the rows of a file into messages and runs, batch by batch; the last message is held back."""

    def __init__(self) -> None:
        self._held = pl.DataFrame()
        self._runs: dict[str, int] = {}

    @property
    def holds(self) -> bool:
        """Tell whether there is a message that is held back."""
        return not self._held.is_empty()

    def __call__(self, rows: pl.DataFrame | None) -> pl.DataFrame:
        """Take the next rows, or None at their end; give those of whole messages."""
        frames = [frame for frame in (self._held, rows) if frame is not None and frame.width]
        batch = pl.concat(frames)
        times = pl.struct("timestamp", "local_timestamp")
        starts = batch.select(((times != times.shift(1)).fill_null(True)).alias("starts"))["starts"]
        cut = batch.height if rows is None else int(starts.arg_true()[-1])
        self._held = batch.slice(cut)
        return self._named(batch.head(cut), starts.head(cut))

    def _named(self, rows: pl.DataFrame, starts: pl.Series) -> pl.DataFrame:
        """Name each row's message by its first line, and its run by the receipt of the last snapshot."""
        local = pl.col("local_timestamp")
        rows = rows.with_columns(pl.when(starts).then(_ROW).forward_fill().alias(_ROW))
        known = pl.col("symbol").replace_strict(self._runs, default=None, return_dtype=pl.Int64)
        if not rows["is_snapshot"].any():
            run = known
        else:
            snapshot = pl.col("is_snapshot").any().over("symbol", _ROW)
            run = pl.coalesce(pl.when(snapshot).then(local).forward_fill().over("symbol"), known)
        rows = rows.with_columns(run=pl.coalesce(run, local.first().over("symbol")))
        self._runs |= dict(rows.group_by("symbol").agg(pl.last("run")).iter_rows())
        return rows
