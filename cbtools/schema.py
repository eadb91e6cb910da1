"""Every table: its columns with dtype, unit, meaning and null rule.

The decoder, the writer, the docs and the tests read the columns from here; a column without a row here cannot
be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import polars as pl

from cbtools.errors import unknown_name

SCHEMA_VERSION: Final = 3
"""Version of the tables' columns, written into every Parquet file's metadata."""

TIME: Final = pl.Datetime("ns", "UTC")
SIDE: Final = pl.Enum(["bid", "ask"])
TRADE_SIDE: Final = pl.Enum(["buy", "sell"])
BOOK_STATE: Final = pl.Enum(["ok", "unproven", "crossed", "one_sided", "empty"])
TEXTS: Final = pl.List(pl.String)


NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
"""Stands for null in the name of a partition's folder."""
LONGEST_NAME: Final = 255
"""Bytes of the longest name of a file or a folder: what Linux, macOS and Windows agree on."""


@dataclass(frozen=True)
class Column:
    """One column of a table: ``null`` says when it is null (empty: never)."""

    name: str
    dtype: pl.DataType | type[pl.DataType]
    unit: str
    meaning: str
    null: str = ""


_NOT_SENT = "not sent"

_PRODUCT = Column("product_id", pl.String, "", "product, as named in the message")

_STREAM = Column("stream", pl.String, "", "feed, replica and shard of the connection", "no id in the file")

FRAME: Final = (
    Column("server_time", TIME, "ns UTC", "when the server sent the frame", _NOT_SENT),
    Column("capture_time", TIME, "ns UTC", "local wall clock after receipt; may step back", "bare frame"),
    Column("sequence_num", pl.Int64, "", "the connection's frame counter", "Exchange feed, or not sent"),
    _STREAM,
    Column("connection", pl.Int32, "", "connections seen so far in the input, this one included (from 1)"),
    Column("line", pl.Int64, "", "line number in the segment (from 1)"),
)
"""The columns that identify the frame of a row; every table of messages ends with them."""


def _quote(name: str, meaning: str, null: str = _NOT_SENT) -> Column:
    return Column(name, pl.Float64, "quote currency", meaning, null)


def _base(name: str, meaning: str, null: str = _NOT_SENT) -> Column:
    return Column(name, pl.Float64, "base currency", meaning, null)


def _text(name: str, meaning: str, null: str = _NOT_SENT) -> Column:
    return Column(name, pl.String, "", meaning, null)


_EXCHANGE_ONLY = "not sent, or Advanced Trade feed"


def _sequence() -> Column:
    meaning = "the product's counter; frames of other channels count, too"
    return Column("sequence", pl.Int64, "", meaning, _EXCHANGE_ONLY)


_MARKER = "marker"
"""When a column of level2 is null: in a row that says what no level change can. With is_snapshot, the book is
empty from here; without, the product's sequence is broken from here (a gap, a reconnect, a lost line)."""

_LEVEL2 = (
    _PRODUCT,
    Column("is_snapshot", pl.Boolean, "", "of a snapshot, which replaces the product's book"),
    Column("side", SIDE, "", "side of the book; null in a marker, which is no change of a level", _MARKER),
    _quote("price", "price of the level", _MARKER),
    _base("size", "size at the level after the change; 0 deletes it", _MARKER),
    Column(
        "event_time", TIME, "ns UTC", "when the level changed, by the engine", "marker, not sent, or epoch"
    ),
    *FRAME,
    Column(
        "unbroken_since",
        TIME,
        "ns UTC",
        "which unbroken run of frames the row is of, named by the receipt of the run's first frame: no gap, "
        "no lost line and no reconnect between two rows of a product that agree in it",
    ),
)

_TRADES = (
    _PRODUCT,
    Column("trade_id", pl.Int64, "", "the exchange's trade number, dense in a product"),
    _quote("price", "price of the trade", ""),
    _base("size", "size of the trade", ""),
    Column("maker_side", TRADE_SIDE, "", "side of the resting order, as sent"),
    Column("aggressor_side", TRADE_SIDE, "", "side of the incoming order: the opposite of maker_side"),
    Column("trade_time", TIME, "ns UTC", "when the trade happened, by the engine", "not sent, or the epoch"),
    Column("is_snapshot", pl.Boolean, "", "first seen in a snapshot (or a last_match) of past trades"),
    _text("maker_order_id", "the resting order", _EXCHANGE_ONLY),
    _text("taker_order_id", "the incoming order", _EXCHANGE_ONLY),
    _sequence(),
    *FRAME,
)

_TICKER = (
    _PRODUCT,
    _quote("price", "price of the last trade", ""),
    _base("volume_24h", "volume of the last 24 hours"),
    _quote("low_24h", "lowest price of the last 24 hours"),
    _quote("high_24h", "highest price of the last 24 hours"),
    _quote("low_52w", "lowest price of the last 52 weeks", "not sent, or Exchange feed"),
    _quote("high_52w", "highest price of the last 52 weeks", "not sent, or Exchange feed"),
    Column("price_pct_chg_24h", pl.Float64, "%", "price change of the last 24 hours", _NOT_SENT),
    _quote("best_bid", "best bid price", "not sent, or ticker_batch"),
    _base("best_bid_size", "size at the best bid", "not sent, or ticker_batch"),
    _quote("best_ask", "best ask price", "not sent, or ticker_batch"),
    _base("best_ask_size", "size at the best ask", "not sent, or ticker_batch"),
    _quote("open_24h", "price 24 hours ago", _EXCHANGE_ONLY),
    _base("volume_30d", "volume of the last 30 days", _EXCHANGE_ONLY),
    _base("last_size", "size of the last trade", _EXCHANGE_ONLY),
    Column("side", TRADE_SIDE, "", "side of the last trade's incoming order, as sent", _EXCHANGE_ONLY),
    Column("trade_id", pl.Int64, "", "the last trade's number", _EXCHANGE_ONLY),
    _sequence(),
    *FRAME,
)

_CANDLES = (
    _PRODUCT,
    Column("start", TIME, "ns UTC", "start of the 5-minute bucket"),
    _quote("open", "first price of the bucket", ""),
    _quote("high", "highest price of the bucket", ""),
    _quote("low", "lowest price of the bucket", ""),
    _quote("close", "last price of the bucket so far", ""),
    _base("volume", "volume of the bucket so far", ""),
    *FRAME,
)

_HEARTBEATS = (
    _text("product_id", "product", "Advanced Trade feed"),
    _text("current_time", "the server's clock, as sent (opaque text)"),
    Column("heartbeat_counter", pl.Int64, "", "heartbeats sent so far", "not sent, or not a whole number"),
    Column("last_trade_id", pl.Int64, "", "the product's newest trade", "Advanced Trade feed"),
    *FRAME,
)

_STATUS = (
    _PRODUCT,
    _text("product_type", "SPOT, FUTURE, ..."),
    _text("base_currency", "what is traded"),
    _text("quote_currency", "what it is priced in"),
    _base("base_increment", "smallest step of a size"),
    _quote("quote_increment", "smallest step of a price"),
    _text("display_name", "name for people"),
    _text("status", "online, offline, ..."),
    _text("status_message", "the exchange's remark"),
    _quote("min_market_funds", "smallest order"),
    *FRAME,
)

_SUBSCRIPTIONS = (
    Column("channel", pl.String, "", "channel subscribed to"),
    Column("product_ids", TEXTS, "", "its products, as sent"),
    *FRAME,
)

_ERRORS = (
    _text("message", "what the server said"),
    _text("reason", "why"),
    *FRAME,
)

_GAPS = (
    _STREAM,
    Column("connection", pl.Int32, "", "connection whose sequence broke"),
    Column("expected", pl.Int64, "", "first sequence_num that is missing"),
    Column("got", pl.Int64, "", "sequence_num that came instead; got - expected frames are lost"),
    Column("capture_time", TIME, "ns UTC", "receipt of the frame that came instead", "bare frame"),
    Column("line", pl.Int64, "", "its line number in its segment (from 1)"),
    Column("products", TEXTS, "", "products whose book it unproved"),
)

_REJECTS = (
    Column("line", pl.Int64, "", "line number in the segment (from 1)"),
    Column("byte_offset", pl.Int64, "bytes", "where the line starts in the (decompressed) segment"),
    Column("size", pl.Int64, "bytes", "length of the line, without its newline"),
    _STREAM,
    Column("reason", pl.String, "", "what was not understood: a kind, a colon, the particular"),
    Column("raw", pl.Binary, "", "the line's bytes, without its newline; of one too long the first 4,096"),
)

BOOK_DEPTH: Final = 10
"""Levels of a side that the ``book`` table shows by default."""


def book_columns(depth: int = BOOK_DEPTH, bands_bps: Sequence[float] = ()) -> tuple[Column, ...]:
    """Give the columns of the ``book`` table for so many levels and these bands.

    Parameters
    ----------
    depth : int
        Levels of a side.
    bands_bps : sequence of float
        Distances from mid, basis points.

    Returns
    -------
    tuple of Column
        In the table's order.

    Examples
    --------
    >>> [column.name for column in book_columns(depth=1, bands_bps=[5])][7:]
    ['bid_price_1', 'bid_size_1', 'ask_price_1', 'ask_size_1', 'n_bids', 'n_asks', 'book_state', \
'proven_since', 'bid_depth_5bps', 'ask_depth_5bps', 'imbalance_5bps']
    """
    levels = [
        kind(f"{side}_{what}_{k}", f"{what} of the {_nth(k)}best {side}", f"fewer than {k} {side}s")
        for side in ("bid", "ask")
        for what, kind in (("price", _quote), ("size", _base))
        for k in range(1, depth + 1)
    ]
    bands = [column for band in bands_bps for column in _band(f"{band:g}bps", f"{band:g} bps")]
    return (
        _PRODUCT,
        *FRAME,
        *levels,
        Column("n_bids", pl.Int32, "levels", "bid levels in the whole book"),
        Column("n_asks", pl.Int32, "levels", "ask levels in the whole book"),
        Column(
            "book_state",
            BOOK_STATE,
            "",
            "unproven: frames are missing since the snapshot that the book rests on (the levels are those "
            "known before); crossed: best bid >= best ask; one_sided: no bids or no asks; empty: neither",
        ),
        Column(
            "proven_since",
            TIME,
            "ns UTC",
            "which snapshot the book rests on, named by its receipt: between two rows of a product that "
            "agree in it, the book was only updated",
            "book_state is unproven",
        ),
        *bands,
    )


_ENDINGS: Final = {1: "st", 2: "nd", 3: "rd"}


def _nth(k: int) -> str:
    return (
        ""
        if k == 1
        else f"{k}{('th', 'st', 'nd', 'rd')[k % 10 if k % 10 < 4 and k % 100 // 10 != 1 else 0]} "
    )


def _band(name: str, distance: str) -> tuple[Column, ...]:
    null = "book_state is not ok"
    return (
        _base(f"bid_depth_{name}", f"size of all bids within {distance} of mid", null),
        _base(f"ask_depth_{name}", f"size of all asks within {distance} of mid", null),
        Column(
            f"imbalance_{name}",
            pl.Float64,
            "",
            "(bid - ask) / (bid + ask) of these",
            f"{null}, or both are 0",
        ),
    )


TABLES: Final[Mapping[str, tuple[Column, ...]]] = MappingProxyType(
    {
        "level2": _LEVEL2,
        "market_trades": _TRADES,
        "ticker": _TICKER,
        "ticker_batch": _TICKER,
        "candles": _CANDLES,
        "heartbeats": _HEARTBEATS,
        "status": _STATUS,
        "subscriptions": _SUBSCRIPTIONS,
        "errors": _ERRORS,
        "gaps": _GAPS,
        "rejects": _REJECTS,
        "book": book_columns(),
    }
)
"""Table name → its columns, in order; of ``book`` those for the usual depth."""

RAW: Final = tuple(name for name in TABLES if name != "book")
"""The tables that are read from raw segments."""

CHANNELS: Final = tuple(name for name in RAW if name not in ("gaps", "rejects"))
"""The tables whose rows are messages: what `scan_raw` takes as a channel."""

SEGMENT: Final = Column("segment", pl.String, "", "file name of the segment, without its endings")
"""Added behind a table's columns on request."""

DERIVED: Final = (
    Column("date", pl.Date, "UTC day", "of server_time (of capture_time where that is null)"),
    Column("hour", pl.Int8, "UTC hour", "of server_time (of capture_time where that is null)"),
)
"""Columns that exist only as partitions."""


def columns(table: str) -> tuple[Column, ...]:
    """Give the columns of a table.

    Parameters
    ----------
    table : str
        A name in `TABLES`.

    Returns
    -------
    tuple of Column
        In the table's order.

    Raises
    ------
    ConfigError
        If there is no such table.

    Examples
    --------
    >>> [column.name for column in columns("rejects")]
    ['line', 'byte_offset', 'size', 'stream', 'reason', 'raw']
    """
    if table not in TABLES:
        raise unknown_name("table", table, TABLES)
    return TABLES[table]


def schema(table: str) -> pl.Schema:
    """Give the Polars schema of a table.

    Parameters
    ----------
    table : str
        A name in `TABLES`.

    Returns
    -------
    polars.Schema
        Column name → dtype, in the table's order.

    Raises
    ------
    ConfigError
        If there is no such table.

    Examples
    --------
    >>> schema("rejects")["byte_offset"]
    Int64
    """
    return pl.Schema({column.name: column.dtype for column in columns(table)})


def describe(table: str) -> pl.DataFrame:
    """Describe the columns of a table, as a frame.

    Parameters
    ----------
    table : str
        A name in `TABLES`.

    Returns
    -------
    polars.DataFrame
        A row a column: ``column``, ``dtype``, ``unit``, ``meaning``, ``null`` (when it is null), all String.

    Raises
    ------
    ConfigError
        If there is no such table.

    Examples
    --------
    >>> describe("rejects").select("column", "dtype").row(0)
    ('line', 'Int64')
    """
    return pl.DataFrame(
        [(c.name, str(c.dtype), c.unit, c.meaning, c.null) for c in columns(table)],
        schema=dict.fromkeys(("column", "dtype", "unit", "meaning", "null"), pl.String),
        orient="row",
    )
