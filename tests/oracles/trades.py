"""What trades tell, alone and against the book, written to be read: the judge of the package's features.

Rows are dicts, times integers (ns). Sums and differences are exact (rationals of the doubles), rounded once
at the end, and every window is looked for afresh at every row. It knows nothing of the package, and it is
slow.

The clocks are those of `oracles.clocks`. By ``"exchange"`` a trade is compared with the book as the exchange
had it at the time of the trade, as far as it was received before the trade was; by ``"receive"`` with the
book as it was received before the trade. In both, a break hides everything received before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from oracles.clocks import Row, book_times, receive_times, trade_times

UNITS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
DURATION = r"(?:\d+(?:ns|us|ms|s|m|h|d))+"
DIGITS = Context(prec=60)
QUOTE = ("best_bid", "best_bid_size", "best_ask", "best_ask_size", "mid", "quote_time")
Timed = list[tuple[Row, int | None]]
"""Book rows of one product, with their times."""
LATE = 5 * UNITS["s"]
"""A trade sent more than this after it happened has no quote by the exchange's clock."""


def nanoseconds(duration: str) -> int:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ns|us|ms|s|m|h|d)", duration))


def parted(name: str) -> tuple[str, int] | None:
    """Part the name of a windowed feature into what and how long; None if it has no window."""
    match = re.fullmatch(rf"(\w+?)_({DURATION})", name)
    return None if match is None else (match[1], nanoseconds(match[2]))


def known(values: Iterable[float | None]) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def ratio(above: Fraction, below: Fraction) -> float | None:
    return None if below == 0 else float(above / below)


def sign(trade: Row) -> int:
    return 1 if trade["aggressor_side"] == "buy" else -1


def of_product(rows: Iterable[Row], product_id: str) -> list[Row]:
    return [row for row in rows if row["product_id"] == product_id]


def by_product(rows: Sequence[Row], times: Sequence[int | None]) -> dict[str, Timed]:
    """Return the rows of each product with their times, products in order of first appearance."""
    found: dict[str, Timed] = {}
    for row, time in zip(rows, times, strict=True):
        found.setdefault(row["product_id"], []).append((row, time))
    return found


# --- runs: trades of a product of which none is missing between


@dataclass
class Run:
    """Trades of a product that follow each other, and their effective times."""

    number: int
    trades: list[Row] = field(default_factory=list)
    times: list[Any] = field(default_factory=list)

    def add(self, trade: Row, time: int | None) -> None:
        """Add a trade; one without a clock counts at the time of the one before it."""
        self.trades.append(trade)
        told = [one for one in (*self.times[-1:], time) if one is not None]
        self.times.append(max(told, default=None))

    def begin(self) -> int | None:
        """Give the first time that is known."""
        return next((time for time in self.times if time is not None), None)


def follows(run: Run, trade: Row, holes: str) -> bool:
    """Tell whether a trade goes on with a run."""
    last = run.trades[-1]
    if trade["connection"] != last["connection"]:
        return False
    if holes == "restart" and trade["trade_id"] > max(row["trade_id"] for row in run.trades) + 1:
        return False
    return last["is_snapshot"] or not trade["is_snapshot"]


def runs_of(trades: Sequence[Row], times: Sequence[int | None], holes: str) -> list[tuple[Run, int]]:
    """Return the run of every trade, and the trade's place in it."""
    newest: dict[str, Run] = {}
    found = []
    for trade, time in zip(trades, times, strict=True):
        run = newest.get(trade["product_id"])
        if run is None or not follows(run, trade, holes):
            run = newest[trade["product_id"]] = Run(0 if run is None else run.number + 1)
        run.add(trade, time)
        found.append((run, len(run.trades) - 1))
    return found


# --- windows


def window(run: Run, end: int | None, places: Iterable[int], width: int) -> list[int] | None:
    """Give those of the places whose time is in (end - width, end]; None while the run does not cover it."""
    begin = run.begin()
    if end is None or begin is None or end - width < begin:
        return None
    return [j for j in places if run.times[j] is not None and end - width < run.times[j] <= end]


def vwap(run: Run, places: list[int]) -> float | None:
    told = [(run.trades[j]["price"], run.trades[j]["size"]) for j in places]
    if not known(value for pair in told for value in pair):
        return None
    return ratio(
        sum((Fraction(price) * Fraction(size) for price, size in told), Fraction()),
        sum((Fraction(size) for _, size in told), Fraction()),
    )


def volume(run: Run, places: list[int]) -> float | None:
    sizes = [run.trades[j]["size"] for j in places]
    return math.fsum(sizes) if known(sizes) else None


def trade_count(run: Run, places: list[int]) -> int:
    return len(places)


def trade_imbalance(run: Run, places: list[int]) -> float | None:
    told = [run.trades[j] for j in places]
    if not known(trade["size"] for trade in told):
        return None
    signed = sum((sign(trade) * Fraction(trade["size"]) for trade in told), Fraction())
    return ratio(signed, sum((Fraction(trade["size"]) for trade in told), Fraction()))


def roll_spread(run: Run, places: list[int]) -> float | None:
    """Give Roll's spread. A pair is the change of price at a place and that before it: three prices."""
    prices = [trade["price"] for trade in run.trades]
    pairs = []
    for j in places:
        if j < 2:  # no pair, which is not an undefined one
            continue
        if not known(prices[j - 2 : j + 1]):
            return None
        before, middle, now = (Fraction(price) for price in prices[j - 2 : j + 1])
        pairs.append((now - middle, middle - before))
    n = len(pairs)
    if n < 2:
        return None
    mean_x = sum(x for x, _ in pairs) / n
    mean_y = sum(y for _, y in pairs) / n
    covariance = Fraction(sum((x - mean_x) * (y - mean_y) for x, y in pairs)) / (n - 1)
    return None if covariance >= 0 else 2 * math.sqrt(-covariance)


WINDOWS: dict[str, Callable[[Run, list[int]], float | None]] = {
    "vwap": vwap,
    "volume": volume,
    "trade_count": trade_count,
    "trade_imbalance": trade_imbalance,
    "roll_spread": roll_spread,
}


def windowed(run: Run, end: int | None, places: Iterable[int], name: str) -> float | None:
    what, width = parted(name) or ("", 0)
    if what not in WINDOWS or width == 0:
        raise ValueError(name)
    inside = window(run, end, places, width)
    return WINDOWS[what](run, inside) if inside else None


# --- features of every trade


def tick_rule(run: Run, place: int) -> int | None:
    """Give the sign of the last change of price that is not 0."""
    for j in range(place, 0, -1):
        before, now = run.trades[j - 1]["price"], run.trades[j]["price"]
        if known((before, now)) and before != now:
            return 1 if now > before else -1
    return None


def lee_ready(run: Run, place: int) -> int | None:
    price, mid = run.trades[place]["price"], run.trades[place]["mid"]
    if not known((price, mid)):
        return None
    if price == mid:
        return tick_rule(run, place)
    return 1 if price > mid else -1


def bps_of(signed: int, above: float, below: float, mid: float) -> float | None:
    """Give 1e4 * 2 * D * (above - below) / mid."""
    if not known((above, below, mid)):
        return None
    return ratio(20_000 * signed * (Fraction(above) - Fraction(below)), Fraction(mid))


def feature(run: Run, place: int, name: str) -> float | None:
    trade = run.trades[place]
    if name == "notional":
        return trade["price"] * trade["size"] if known((trade["price"], trade["size"])) else None
    if name == "signed_size":
        return sign(trade) * trade["size"] if known((trade["size"],)) else None
    if name == "tick_rule":
        return tick_rule(run, place)
    if name == "lee_ready":
        return lee_ready(run, place)
    if name == "effective_spread_bps":
        return bps_of(sign(trade), trade["price"], trade["mid"], trade["mid"])
    return windowed(run, run.times[place], range(place + 1), name)


def trade_features(
    trades: Sequence[Row], names: Sequence[str], clock: str = "exchange", holes: str = "restart"
) -> list[Row]:
    """Return the features of every trade; those against the quote need the columns of `join_quotes`.

    A window ends at the latest time that its run has reached, and holds the trades of the run up to the row.
    """
    return [
        {name: feature(run, place, name) for name in names}
        for run, place in runs_of(trades, trade_times(trades, clock), holes)
    ]


def trade_features_at(
    trades: Sequence[Row],
    at_rows: Sequence[Row],
    names: Sequence[str],
    clock: str = "exchange",
    holes: str = "restart",
) -> list[Row]:
    """Return the windows of trades at other rows, such as those of a book.

    By the exchange's clock a window ends at the other row's server_time, as it stands; by the other, at its
    receive time. Either way, only trades received by the row's receive time count.
    """
    runs = runs_of(trades, trade_times(trades, clock), holes)
    received = receive_times(trades)
    found = []
    for at, at_received in zip(at_rows, receive_times(at_rows), strict=True):
        run, places = run_at(runs, received, at["product_id"], at_received)
        end = at["server_time"] if clock == "exchange" else at_received
        found.append({name: windowed(run, end, places, name) if places else None for name in names})
    return found


def run_at(
    runs: list[tuple[Run, int]], received: Sequence[int | None], product_id: str, at: int | None
) -> tuple[Run, list[int]]:
    """Return the run of a product's last trade received by a time, and the places of it received by then."""
    now, places = Run(0), list[int]()
    for (run, place), time in zip(runs, received, strict=True):
        if run.trades[place]["product_id"] == product_id and was_received(time, at):
            places = [*places, place] if run is now else [place]
            now = run
    return now, places


def was_received(time: int | None, at: int | None) -> bool:
    return time is not None and at is not None and time <= at


# --- the quote


@dataclass
class Quote:
    """A book row that is the quote of a trade.

    ``time`` is that by which its age is measured: by the exchange's clock that at which the row counts (None:
    before all times), by the other its receive time. ``column`` is what is written as quote_time.
    """

    row: Row
    time: int | None
    column: int | None


def mid_of(row: Row) -> float:
    mid: float = (row["bid_price_1"] + row["ask_price_1"]) / 2
    return mid


def is_late(trade: Row) -> bool:
    """Return whether a trade was sent long after it happened, where both are known."""
    sent, happened = trade["server_time"], trade["trade_time"]
    return sent is not None and happened is not None and sent - happened > LATE


def prevailing(trade: Row, received: Timed, clock: str) -> Quote | None:
    """Return the quote of a trade, given the book rows received by then and their receive times.

    Only one row can be the quote. If its book is not ok there is none, even if the book was ok before.
    """
    if trade["is_snapshot"]:
        return None
    found = last_sent(trade, received) if clock == "exchange" else last_received(received)
    return found if found is not None and found.row["book_state"] == "ok" else None


def last_received(received: Timed) -> Quote | None:
    if not received:
        return None
    row, time = received[-1]
    return Quote(row, time, time)


def last_sent(trade: Row, received: Timed) -> Quote | None:
    """Return the last row, since the last break, that the exchange had sent by the time of the trade.

    The last is that which stands last, also where server_time steps back. A row without a server_time counts
    at the server_time of the row before it, and never if none since the break has one: whether it was sent
    before the trade is then not known.
    """
    if trade["trade_time"] is None or is_late(trade):
        return None
    found = None
    time = None
    for row, _ in received:
        if row["book_state"] == "unproven":  # a break: nothing before it is a quote any more
            found = time = None
            continue
        time = time if row["server_time"] is None else row["server_time"]
        if time is not None and time <= trade["trade_time"]:
            found = Quote(row, time, row["server_time"])
    return found


def quotes_of(trades: Sequence[Row], book: Sequence[Row], clock: str) -> list[Quote | None]:
    """Return the quote of every trade."""
    timed = by_product(book, receive_times(book))
    found = []
    for trade, at in zip(trades, receive_times(trades), strict=True):
        rows = timed.get(trade["product_id"], [])
        received = [(row, time) for row, time in rows if was_received(time, at)]
        found.append(prevailing(trade, received, clock))
    return found


def join_quotes(
    trades: Sequence[Row],
    book: Sequence[Row],
    tolerance_ns: int | None = None,
    clock: str = "exchange",
) -> list[Row]:
    """Return the trades with their quotes; one that is older than the tolerance is none."""
    found = []
    times = trade_times(trades, clock)
    for trade, quote, at in zip(trades, quotes_of(trades, book, clock), times, strict=True):
        if quote is None or (tolerance_ns is not None and older(quote, at, tolerance_ns)):
            found.append(trade | dict.fromkeys(QUOTE))
            continue
        row = quote.row
        sides = [row[f"{side}_{what}_1"] for side in ("bid", "ask") for what in ("price", "size")]
        found.append(trade | dict(zip(QUOTE, (*sides, mid_of(row), quote.column), strict=True)))
    return found


def older(quote: Quote, at: int | None, tolerance_ns: int) -> bool:
    return quote.time is None or at is None or at - quote.time > tolerance_ns


def side_audit(joined: Sequence[Row], clock: str = "exchange") -> list[Row]:
    """Compare sides with quotes, per product and day of the trades' clock, in order of appearance.

    Trades of snapshots are left out: a day that has no others has no row. Those without a time are counted,
    under no date.
    """
    days: dict[tuple[str, str | None], list[Row]] = {}
    for trade, time in zip(joined, trade_times(joined, clock), strict=True):
        if not trade["is_snapshot"]:
            days.setdefault((trade["product_id"], date_of(time)), []).append(trade)
    found = []
    for (product_id, date), trades in days.items():
        quoted = [trade for trade in trades if trade["mid"] is not None]
        aside = [trade for trade in quoted if trade["price"] != trade["mid"]]
        agree = [trade for trade in aside if (trade["price"] > trade["mid"]) == (sign(trade) == 1)]
        counts = {
            "n_trades": len(trades),
            "n_late": sum(is_late(trade) for trade in trades),
            "n_quoted": len(quoted),
            "n_at_mid": len(quoted) - len(aside),
            "n_agree": len(agree),
        }
        agreement = len(agree) / len(aside) if aside else None
        found.append({"product_id": product_id, "date": date, **counts, "agreement": agreement})
    return found


def date_of(time: int | None) -> str | None:
    return None if time is None else datetime.fromtimestamp(time // UNITS["s"], UTC).date().isoformat()


# --- labels: they look ahead


def trade_labels(
    joined: Sequence[Row], book: Sequence[Row], names: Sequence[str], clock: str = "exchange"
) -> list[Row]:
    """Return the labels of every trade; ``joined`` has the columns of `join_quotes`."""
    quotes = quotes_of(joined, book, clock)
    times = trade_times(joined, clock)
    timed = by_product(book, book_times(book, clock))
    return [
        {name: label(trade, quote, at, timed.get(trade["product_id"], []), name) for name in names}
        for trade, quote, at in zip(joined, quotes, times, strict=True)
    ]


def label(trade: Row, quote: Quote | None, at: int | None, timed: Timed, name: str) -> float | None:
    """Return a label: what became of the mid at the end of a horizon.

    The mid at the end is that of the last book row at that time, if it is ok and of the same book as the
    quote of the trade. Whether a later row would change it must be known: the book reaches the end.
    """
    match = re.fullmatch(rf"label_(realized_spread|price_impact)_({DURATION})_bps", name)
    if match is None:
        raise ValueError(name)
    if trade["mid"] is None or quote is None or at is None:
        return None
    ahead = at + nanoseconds(match[2])
    if not any(time is not None and time >= ahead for _, time in timed):
        return None
    then = last_row(timed, ahead)
    if then is None or then["book_state"] != "ok" or not same_book(quote.row, then):
        return None
    if match[1] == "realized_spread":
        return bps_of(sign(trade), trade["price"], mid_of(then), trade["mid"])
    return bps_of(sign(trade), mid_of(then), trade["mid"], trade["mid"])


def last_row(timed: Timed, at: int) -> Row | None:
    """Return the last of the rows (of one product) whose time has come; the times never fall."""
    found = [row for row, time in timed if time is not None and time <= at]
    return found[-1] if found else None


def last_known(timed: Timed, at: int) -> Row | None:
    """Return the last row; unproven if it is older, and the next one shows that frames are missing."""
    found = [i for i, (_, time) in enumerate(timed) if time is not None and time <= at]
    if not found:
        return None
    (row, time), later = timed[found[-1]], timed[found[-1] + 1 :]
    is_broken = bool(later) and later[0][0]["book_state"] == "unproven" and time is not None and time < at
    return {**row, "book_state": "unproven"} if is_broken else row


def same_book(before: Row | None, row: Row | None) -> bool:
    if before is None or row is None or row["proven_since"] is None:
        return False
    return bool(row["proven_since"] == before["proven_since"])


# --- the impact of trades, by intervals of time


def impact_intervals(
    trades: Sequence[Row], book: Sequence[Row], every_ns: int, clock: str = "exchange"
) -> list[Row]:
    """Return an interval for every boundary between the first and the last time of a product's book.

    A trade counts in the interval of its own time. Whether trades are missing is not considered.
    """
    timed_trades = list(zip(trades, trade_times(trades, clock), strict=True))
    found = []
    for product_id, timed in by_product(book, book_times(book, clock)).items():
        times = [time for _, time in timed if time is not None]
        if not times:
            continue
        end = -(-times[0] // every_ns) * every_ns
        while end <= times[-1]:
            now, before = last_known(timed, end), last_known(timed, end - every_ns)
            inside = [
                trade
                for trade, time in timed_trades
                if trade["product_id"] == product_id
                and not trade["is_snapshot"]
                and time is not None
                and end - every_ns < time <= end
            ]
            found.append({"product_id": product_id, "interval_end": end, **interval(inside, before, now)})
            end += every_ns
    return found


def interval(inside: list[Row], before: Row | None, now: Row | None) -> Row:
    """Return an interval: its trades, and the change of the mid between the book rows at its two ends."""
    mid = mid_of(now) if now is not None and now["book_state"] == "ok" else None
    mid_before = mid_of(before) if before is not None and before["book_state"] == "ok" else None
    change = log_return = None
    if mid is not None and mid_before is not None and same_book(before, now):
        change = mid - mid_before
        # with the difference, not the ratio: near 1 the ratio has lost what the logarithm is about
        log_return = math.log1p((mid - mid_before) / mid_before) if mid_before > 0 and mid > 0 else None
    return {
        "mid": mid,
        "proven_since": None if now is None else now["proven_since"],
        "mid_change": change,
        "log_return": log_return,
        "signed_volume": math.fsum(sign(t) * t["size"] for t in inside),
        "signed_sqrt_notional": float(sum(sign(t) * root_of_notional(t) for t in inside)),
        "notional": float(sum(Fraction(t["price"]) * Fraction(t["size"]) for t in inside)),
        "n_trades": len(inside),
    }


def root_of_notional(trade: Row) -> Decimal:
    """Give it with many digits: sums of them, bought and sold, nearly cancel."""
    return DIGITS.sqrt(DIGITS.multiply(Decimal(trade["price"]), Decimal(trade["size"])))


def impact_features(intervals: Sequence[Row], names: Sequence[str], every_ns: int) -> list[Row]:
    return [{name: impact(intervals, i, name, every_ns) for name in names} for i in range(len(intervals))]


def impact(intervals: Sequence[Row], i: int, name: str, every_ns: int) -> float | None:
    what, width = parted(name) or ("", 0)
    if what not in ("hasbrouck_lambda", "amihud", *KYLE) or width == 0 or width % every_ns:
        raise ValueError(name)
    rows = last_of_run(intervals[: i + 1], width // every_ns, every_ns)
    if rows is None:
        return None
    if what == "amihud":
        told = [(row["log_return"], row["notional"]) for row in rows if row["notional"] > 0]
        if not told or not known(value for pair in told for value in pair):
            return None
        return math.fsum(abs(log_return) / notional for log_return, notional in told) / len(told)
    if what == "hasbrouck_lambda":
        # the same regression as Kyle's: with an intercept, and null below three intervals
        return fit(rows, "signed_sqrt_notional", "log_return")["kyle_lambda"]
    return fit(rows, "signed_volume", "mid_change")[what]


def last_of_run(intervals: Sequence[Row], n: int, every_ns: int) -> list[Row] | None:
    """Give a product's last n intervals, if they stand side by side and the mid's change is known in each."""
    rows = of_product(intervals, intervals[-1]["product_id"])[-n:]
    if len(rows) < n or any(row["mid_change"] is None for row in rows):
        return None
    ends = [row["interval_end"] for row in rows]
    return rows if all(b - a == every_ns for a, b in pairwise(ends)) else None


KYLE = ("kyle_lambda", "kyle_lambda_se", "kyle_lambda_t", "kyle_lambda_r2")


def fit(rows: list[Row], x_name: str, y_name: str) -> dict[str, float | None]:
    """Fit y = intercept + slope * x by least squares; Sxx, Sxy, Syy and RSS are exact."""
    none: dict[str, float | None] = dict.fromkeys(KYLE)
    n = len(rows)
    if n < 3 or not known(row[name] for row in rows for name in (x_name, y_name)):
        return none
    xs, ys = ([Fraction(row[name]) for row in rows] for name in (x_name, y_name))
    mean_x, mean_y = sum(xs) / n, sum(ys) / n
    sxx = sum((x - mean_x) ** 2 for x in xs)
    syy = sum((y - mean_y) ** 2 for y in ys)
    sxy = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    if sxx == 0:
        return none
    slope = sxy / sxx
    rss = syy - sxy**2 / sxx
    se = math.sqrt(rss / (n - 2) / sxx) if rss > 0 else None
    return {
        "kyle_lambda": float(slope),
        "kyle_lambda_se": se,
        "kyle_lambda_t": None if se is None else float(slope) / se,
        "kyle_lambda_r2": float(sxy**2 / (sxx * syy)) if syy > 0 else None,
    }
