"""A raw segment to the same tables as of run_segment, by hand: pyarrow.json, Polars and a book of dicts.

What one would write without cbtools: the columns, features and partitions are those of run_segment's default
configuration. It takes clean recordings alone: a line that is cut stops it, nothing is counted, the whole
file is held in memory, and no state is kept for the next segment.
"""

from __future__ import annotations

import heapq
import shutil
from bisect import bisect_left, insort
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.json
from polars.testing import assert_frame_equal

from cbtools.schema import BOOK_STATE, SIDE, TIME, TRADE_SIDE

DEPTH = 10
LEVELS = range(1, DEPTH + 1)
SIDES = ("bid", "ask")
SHOWN = [f"{side}_{what}_{k}" for side in SIDES for what in ("price", "size") for k in LEVELS]
CHANGE = ("side", "price", "size", "event_time")
NOT_SENT = {  # columns of the Exchange feed alone
    "market_trades": {"maker_order_id": pl.String, "taker_order_id": pl.String, "sequence": pl.Int64},
    "ticker": {
        **dict.fromkeys(("open_24h", "volume_30d", "last_size"), pl.Float64),
        "side": TRADE_SIDE,
        **dict.fromkeys(("trade_id", "sequence"), pl.Int64),
    },
}
FRAME = ("server_time", "capture_time", "sequence_num", "stream", "connection", "line")

# --- raw to tables

_TIME = pa.timestamp("ns", "UTC")


def _texts(*names: str) -> dict[str, pa.DataType]:
    return dict.fromkeys(names, pa.string())


_UPDATE = pa.struct({**_texts("side", "price_level", "new_quantity"), "event_time": _TIME})
_TRADE = pa.struct({**_texts("product_id", "trade_id", "price", "size", "side"), "time": _TIME})
_TICKER = {
    "price": "price",
    "volume_24_h": "volume_24h",
    "low_24_h": "low_24h",
    "high_24_h": "high_24h",
    "low_52_w": "low_52w",
    "high_52_w": "high_52w",
    "price_percent_chg_24_h": "price_pct_chg_24h",
    "best_bid": "best_bid",
    "best_bid_quantity": "best_bid_size",
    "best_ask": "best_ask",
    "best_ask_quantity": "best_ask_size",
}
_EVENT = pa.struct(
    {
        **_texts("type", "product_id"),
        "updates": pa.list_(_UPDATE),
        "trades": pa.list_(_TRADE),
        "tickers": pa.list_(pa.struct(_texts("product_id", *_TICKER))),
    }
)
_DATA = pa.struct(
    {"channel": pa.string(), "timestamp": _TIME, "sequence_num": pa.int64(), "events": pa.list_(_EVENT)}
)
_LINE = pa.schema({"capture_ts": _TIME, "data": _DATA})


def read(path: Path) -> pl.DataFrame:
    """Read the lines, a row an event, with what their numbers tell of connections and gaps."""
    lines = pa.json.read_json(
        path,
        read_options=pa.json.ReadOptions(block_size=32 << 20),  # no line may be longer
        parse_options=pa.json.ParseOptions(explicit_schema=_LINE, unexpected_field_behavior="ignore"),
    )
    frame = pl.from_arrow(lines)
    assert isinstance(frame, pl.DataFrame)
    number = pl.col("sequence_num")
    return (
        frame.lazy()
        .with_row_index("line", offset=1)
        .unnest("data")
        .rename({"timestamp": "server_time", "capture_ts": "capture_time"})
        .with_columns(
            line=pl.col("line").cast(pl.Int64),
            stream=pl.lit(None, pl.String),
            connection=(1 + (number < number.shift()).fill_null(value=False).cum_sum()).cast(pl.Int32),
            unbroken_since=pl.when((number != number.shift() + 1).fill_null(value=True))
            .then("capture_time")
            .forward_fill(),
            breaks=(number != number.shift() + 1).fill_null(value=False),
        )
        .explode("events")
        .unnest("events")
        .with_columns(is_snapshot=pl.col("type") == "snapshot")
        .collect()
    )


def level2_of(events: pl.DataFrame) -> pl.DataFrame:
    changes = changes_of(events)
    return pl.concat([*markers_of(events, changes), changes]).sort("line", maintain_order=True)


def markers_of(events: pl.DataFrame, changes: pl.DataFrame) -> list[pl.DataFrame]:
    """Make the rows for breaks: one for each product that had changes since the break before."""
    begin, made = 0, []
    for line in events.filter("breaks")["line"].unique().sort():
        before = changes.filter(pl.col("line").is_between(begin, line, closed="left"))
        frame = events.filter(line=line).head(1).select(*FRAME, "unbroken_since")
        products = before.select(pl.col("product_id").unique().sort(), is_snapshot=False)
        made.append(products.join(frame, how="cross"))
        begin = line
    nulls = {name: pl.lit(None, dtype) for name, dtype in changes.schema.items() if name in CHANGE}
    return [rows.with_columns(**nulls).select(changes.columns) for rows in made]


def changes_of(events: pl.DataFrame) -> pl.DataFrame:
    updates = events.lazy().filter(pl.col("channel") == "l2_data").explode("updates").unnest("updates")
    return updates.select(
        "product_id",
        "is_snapshot",
        pl.col("side").replace_strict(["bid", "offer"], list(SIDES), return_dtype=SIDE),
        pl.col("price_level").cast(pl.Float64).alias("price"),
        pl.col("new_quantity").cast(pl.Float64).alias("size"),
        pl.when(pl.col("event_time").to_physical() != 0).then("event_time"),
        *FRAME,
        "unbroken_since",
    ).collect()


def trades_of(events: pl.DataFrame) -> pl.DataFrame:
    trades = events.lazy().filter(pl.col("channel") == "market_trades").drop("product_id").explode("trades")
    maker, other = ["BUY", "SELL"], ["SELL", "BUY"]
    words = {"return_dtype": TRADE_SIDE, "new": ["buy", "sell"]}
    return (
        trades.unnest("trades")
        .select(
            "product_id",
            pl.col("trade_id").cast(pl.Int64),
            pl.col("price", "size").cast(pl.Float64),
            pl.col("side").replace_strict(maker, **words).alias("maker_side"),
            pl.col("side").replace_strict(other, **words).alias("aggressor_side"),
            pl.col("time").alias("trade_time"),
            "is_snapshot",
            *not_sent("market_trades"),
            *FRAME,
        )
        .unique(["product_id", "trade_id"], keep="first", maintain_order=True)
        .sort("line", "trade_id")
        .collect()
    )


def ticker_of(events: pl.DataFrame) -> pl.DataFrame:
    tickers = events.lazy().filter(pl.col("channel") == "ticker").drop("product_id").explode("tickers")
    return (
        tickers.unnest("tickers")
        .select(
            "product_id",
            *(pl.col(name).cast(pl.Float64) for name in _TICKER),
            *not_sent("ticker"),
            *FRAME,
        )
        .rename(_TICKER)
        .collect()
    )


def not_sent(table: str) -> list[pl.Expr]:
    return [pl.lit(None, dtype).alias(name) for name, dtype in NOT_SENT[table].items()]


# --- the book


class Book:
    """A product's book: two dicts, price to size. Its best levels are looked for when they are asked for."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.run = self.snapshot = None

    def change(self, are_bids: list[bool], prices: list[float], sizes: list[float]) -> None:
        bids, asks = self.bids, self.asks
        for is_bid, price, size in zip(are_bids, prices, sizes, strict=True):
            side = bids if is_bid else asks
            if size:
                side[price] = size
            else:
                side.pop(price, None)

    def best(self) -> tuple[list[float], list[float]]:
        return heapq.nlargest(DEPTH, self.bids), heapq.nsmallest(DEPTH, self.asks)


class SortedBook(Book):
    """The same, with each side's prices kept in order beside the dict, bids by their negative price."""

    def __init__(self) -> None:
        super().__init__()
        self.bid_keys: list[float] = []
        self.ask_keys: list[float] = []

    def change(self, are_bids: list[bool], prices: list[float], sizes: list[float]) -> None:
        bids, asks, bid_keys, ask_keys = self.bids, self.asks, self.bid_keys, self.ask_keys
        if not bids and not asks:  # a snapshot: sorted at once
            super().change(are_bids, prices, sizes)
            bid_keys.extend(sorted(-price for price in bids))
            ask_keys.extend(sorted(asks))
            return
        for is_bid, price, size in zip(are_bids, prices, sizes, strict=True):
            side, keys, key = (bids, bid_keys, -price) if is_bid else (asks, ask_keys, price)
            if size:
                if price not in side:
                    insort(keys, key)
                side[price] = size
            elif price in side:
                del side[price]
                del keys[bisect_left(keys, key)]

    def best(self) -> tuple[list[float], list[float]]:
        return [-key for key in islice(self.bid_keys, DEPTH)], self.ask_keys[:DEPTH]


def book_of(level2: pl.DataFrame, kind: type[Book] = Book) -> pl.DataFrame:
    """Give the book after each message, and whether it is proven: not from a gap to the next snapshot."""
    head = ["product_id", *FRAME]
    told = [*head, "is_snapshot", "unbroken_since"]
    alone = pl.len().over("product_id", "line") == 1  # a break that a message shows needs no row of its own
    messages = (
        level2.filter(pl.col("side").is_not_null() | alone)
        .group_by(told, maintain_order=True)
        .agg(pl.col("side") == "bid", "price", "size")
    )
    times = pl.col("server_time", "capture_time", "unbroken_since").to_physical()  # no Python objects
    books: dict[str, Book] = {}
    rows = []
    for row in messages.with_columns(times).iter_rows():
        *of_frame, is_snapshot, run, are_bids, prices, sizes = row
        product, capture_time = of_frame[0], of_frame[2]
        if is_snapshot:
            before, books[product] = books.get(product), kind()
            since = before.snapshot if before else None
            books[product].snapshot = capture_time if since is None else max(capture_time, since + 1)
            books[product].run = run
        elif product not in books:
            continue
        book = books[product]
        if are_bids == [None]:
            if not book.run:
                continue
        else:
            book.change(are_bids, prices, sizes)
        if run != book.run:
            book.run = None  # and so until the next snapshot
        bids, asks = book.best()
        state = "ok"
        if not book.run:
            state = "unproven"
        elif not (bids and asks):
            state = "one_sided" if bids or asks else "empty"
        elif bids[0] >= asks[0]:
            state = "crossed"
        levels = []
        for best, side in ((bids, book.bids), (asks, book.asks)):
            none = [None] * (DEPTH - len(best))
            levels += [*best, *none, *(side[price] for price in best), *none]
        since = None if state == "unproven" else book.snapshot
        rows.append((*of_frame, *levels, len(book.bids), len(book.asks), state, since))
    schema = {
        **{name: level2.schema[name] for name in head},
        "server_time": pl.Int64,
        "capture_time": pl.Int64,
        **dict.fromkeys(SHOWN, pl.Float64),
        **{"n_bids": pl.Int32, "n_asks": pl.Int32, "book_state": BOOK_STATE, "proven_since": pl.Int64},
    }
    return pl.DataFrame(rows, schema, orient="row").with_columns(
        pl.col("server_time", "capture_time", "proven_since").cast(TIME)
    )


# --- features


_SUMS = ("depth", "depth_notional")


def _total(values: list[pl.Expr]) -> pl.Expr:
    return pl.sum_horizontal(values)


def _price(side: str, k: int = 1) -> pl.Expr:
    return pl.col(f"{side}_price_{k}")


def _size(side: str, k: int = 1) -> pl.Expr:
    return pl.col(f"{side}_size_{k}")


def _depth(side: str, k: int = DEPTH) -> pl.Expr:
    return _total([_size(side, i) for i in range(1, k + 1)])


def _notional(side: str) -> pl.Expr:
    return _total([_price(side, k) * _size(side, k) for k in LEVELS])


def _balance(bid: pl.Expr, ask: pl.Expr) -> pl.Expr:
    return (bid - ask) / (bid + ask)


def _away(side: str, k: int) -> pl.Expr:
    """Give a level's distance from mid in bps."""
    return pl.col(f"_away_{side}_{k}")


def _sweep(side: str, notional: float) -> pl.Expr:
    """Fill a notional against the levels shown; the mean price, null if they do not suffice."""
    values = [(_price(side, k) * _size(side, k)).fill_null(0.0) for k in LEVELS]
    before = [_total(values[:k]) if k else pl.lit(0.0) for k in range(DEPTH)]
    spent = [
        pl.min_horizontal(notional - so_far, value).clip(0.0)
        for so_far, value in zip(before, values, strict=True)
    ]
    base = _total([cost / _price(side, k) for cost, k in zip(spent, LEVELS, strict=True)])
    return pl.when(_total(values) >= notional).then(notional / base)


def _slope(side: str) -> pl.Expr:
    """Regress cumulative size on the distance from mid."""
    x = [_away(side, k) for k in LEVELS]
    y = [pl.col(f"_so_far_{side}_{k}") for k in LEVELS]
    x_mean, y_mean = pl.mean_horizontal(x), pl.mean_horizontal(y)
    xy = _total([(a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)])
    return pl.when(_size(side, 2).is_not_null()).then(xy / _total([(a - x_mean) ** 2 for a in x]))


def _smart(side: str) -> pl.Expr:
    return _total([_size(side, k) * (-_away(side, k) / 5.0).exp() for k in LEVELS])


def _order_flow(k: int) -> pl.Expr:
    bid, ask, bid_size, ask_size = _price("bid", k), _price("ask", k), _size("bid", k), _size("ask", k)
    before, after = bid_size.shift(), bid_size
    bids = pl.when(bid > bid.shift()).then(after).when(bid < bid.shift()).then(-before)
    asks = pl.when(ask < ask.shift()).then(ask_size).when(ask > ask.shift()).then(-ask_size.shift())
    return bids.otherwise(after - before) - asks.otherwise(ask_size - ask_size.shift())


def book_features(book: pl.DataFrame) -> pl.DataFrame:
    """Add the usual features, step by step: one large expression would take long to plan."""
    bid, ask, mid = _price("bid"), _price("ask"), pl.col("mid")
    bid_size, ask_size = _size("bid"), _size("ask")
    depth = {s: pl.col(f"{s}_depth_{DEPTH}") for s in SIDES}
    notional = {s: pl.col(f"{s}_depth_notional_{DEPTH}") for s in SIDES}
    mean = {s: notional[s] / depth[s] for s in SIDES}
    both, value = depth["bid"] + depth["ask"], notional["bid"] + notional["ask"]
    of_row = {
        "spread": ask - bid,
        "spread_bps": 1e4 * (ask - bid) / mid,
        "microprice": (ask * bid_size + bid * ask_size) / (bid_size + ask_size),
        "microprice_dev_bps": 1e4
        * ((ask - mid) * bid_size + (bid - mid) * ask_size)
        / (bid_size + ask_size)
        / mid,
        **{f"imbalance_{k}": _balance(_depth("bid", k), _depth("ask", k)) for k in (1, 3, 5, 10)},
        **{f"{s}_{what}_{DEPTH}": pl.col(f"{s}_{what}_{DEPTH}") for what in _SUMS for s in SIDES},
        f"vamp_{DEPTH}": (mean["bid"] * depth["ask"] + mean["ask"] * depth["bid"]) / both,
        "sweep_buy_10000_bps": 1e4 * (_sweep("ask", 1e4) - mid) / mid,
        "sweep_sell_10000_bps": 1e4 * (mid - _sweep("bid", 1e4)) / mid,
        **{f"{s}_slope_{DEPTH}": _slope(s) for s in SIDES},
        **{
            f"{s}_concentration_{DEPTH}": _total([(_size(s, k) / depth[s]) ** 2 for k in LEVELS])
            for s in SIDES
        },
        f"center_of_gravity_bps_{DEPTH}": 1e4 * (value / both - mid) / mid,
        f"smart_depth_imbalance_{DEPTH}_5bps": _balance(_smart("bid"), _smart("ask")),
    }
    of_change = {
        "ofi": _order_flow(1),
        **{f"ofi_{k}": _order_flow(k) for k in range(1, 6)},
        "log_return": (mid / mid.shift()).log(),
    }
    is_ok, since, product = pl.col("book_state") == "ok", pl.col("proven_since"), pl.col("product_id")
    follows = is_ok & is_ok.shift() & (since == since.shift()) & (product == product.shift())
    levels = [(s, k) for s in SIDES for k in LEVELS]
    away = {f"_away_{s}_{k}": 1e4 * (_price(s, k) - mid).abs() / mid for s, k in levels}
    so_far = {f"_so_far_{s}_{k}": pl.when(_size(s, k).is_not_null()).then(_depth(s, k)) for s, k in levels}
    sums = {f"{s}_depth_{DEPTH}": _depth(s) for s in SIDES}
    sums |= {f"{s}_depth_notional_{DEPTH}": _notional(s) for s in SIDES}
    made = book.sort("product_id", maintain_order=True).with_columns(
        mid=pl.when(is_ok).then((bid + ask) / 2), **so_far, **sums
    )
    made = made.with_columns(**away).with_columns(
        *(pl.when(is_ok).then(formula).alias(name) for name, formula in of_row.items()),
        *(pl.when(follows).then(formula).alias(name) for name, formula in of_change.items()),
    )
    return made.select(*book.columns, "mid", *of_row, *of_change)


def trade_features(trades: pl.DataFrame) -> pl.DataFrame:
    """Add what a trade was worth, and its size with the aggressor's sign."""
    sign = pl.when(pl.col("aggressor_side") == "buy").then(1.0).otherwise(-1.0)
    return trades.with_columns(
        (pl.col("price") * pl.col("size")).alias("notional"), (sign * pl.col("size")).alias("signed_size")
    )


# --- tables to files


def write(frame: pl.DataFrame, root: Path, segment: str, by: list[str]) -> None:
    """Write a table, divided by these columns, as run_segment divides it."""
    clock = pl.col("server_time")
    derived = {"date": clock.dt.date(), "hour": clock.dt.hour()}
    frame = frame.sort("server_time", "sequence_num", "line", maintain_order=True)
    keyed = frame.with_columns(**{name: derived[name] for name in by if name in derived})
    for key, part in keyed.partition_by(by, as_dict=True, include_key=False, maintain_order=True).items():
        folder = root.joinpath(*(f"{name}={value}" for name, value in zip(by, key, strict=True)))
        folder.mkdir(parents=True, exist_ok=True)
        part.write_parquet(folder / f"part_{segment}.parquet", compression="zstd", compression_level=1)


def convert(path: Path, root: Path, kind: type[Book] = Book) -> None:
    """Turn a segment into its tables."""
    shutil.rmtree(root, ignore_errors=True)
    events = read(path)
    level2, trades, ticker = level2_of(events), trades_of(events), ticker_of(events)
    del events
    book = book_of(level2, kind)
    tables = {
        "level2": (level2, ["product_id", "date"]),
        "market_trades": (trade_features(trades), ["product_id", "date"]),
        "ticker": (ticker, ["date", "hour"]),
        "book": (book_features(book), ["product_id", "date"]),
    }
    for table, (frame, by) in tables.items():
        write(frame, root / table, path.stem, by)


# --- are they the same?


def compare(ours: Path, theirs: Path) -> dict[str, tuple[int, int, int]]:
    """Check that both roots hold the same rows; give each table's rows, and columns exact and close.

    To the last digit: all columns of level2, ticker and market_trades; of the book what tells of the frame,
    the prices and sizes of all levels, the numbers of levels, and its state. Within 1e-9, relative or
    absolute: features of the book, which sum in another order.
    """
    found = {}
    for table in ("level2", "market_trades", "ticker", "book"):
        left, right = (_rows(root / table) for root in (ours, theirs))
        assert set(left.columns) == set(right.columns), f"{table}: other columns"
        right = right.select(left.columns)
        close = _close(table, left.columns)
        exact = [name for name in left.columns if name not in close]
        assert_frame_equal(left.select(exact), right.select(exact), check_exact=True)
        assert_frame_equal(left.select(close), right.select(close), rel_tol=1e-9, abs_tol=1e-9)
        found[table] = (left.height, len(exact), len(close))
    return found


def _close(table: str, columns: list[str]) -> list[str]:
    if table == "book":
        return columns[columns.index("mid") : columns.index("log_return") + 1]
    return []


def _rows(root: Path) -> pl.DataFrame:
    """Read a table, its parts in the order of their names and their rows as they stand."""
    frame = pl.scan_parquet(root / "**/*.parquet", hive_partitioning=True, try_parse_hive_dates=True)
    words = pl.col(pl.Enum, pl.Categorical).cast(pl.String)
    return frame.with_columns(words).collect()
