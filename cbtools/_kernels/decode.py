"""A scanner over the bytes of a raw segment: the usual lines of the hot channels, straight into columns.

It accepts a strict subset of what the definition (`cbtools.raw.decode`) accepts, and gives the same values
for it; whatever it does not fully understand (an escape, an exponent, an unknown key, an odd order) it leaves
to the definition, by marking the line ODD. A function that reads text takes an index and gives the index
behind what it read, or -1.

The buffer must hold a newline behind the last line and 32 more bytes: a newline is in no token, so that no
loop here can run past it.

Longer than a file should be, since a kernel may only call kernels of its own file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

ODD, READ, SKIPPED = 0, 1, 2  # status of a line
LEVEL2, TRADES, TICKER, TICKER_BATCH = range(4)  # codes of the channels whose bodies are read here
UNKNOWN = 255  # code of a channel that `sheets` was not given
LARGEST_NUMBER = 2**53  # of a frame
NO_TIME = np.iinfo(np.int64).min
NAME_BYTES = 24  # a longer product_id makes a line ODD

# rows of `Sheets.lines`, a column a line
OFFSET, STATUS, CHANNEL, SEQUENCE_NUM, SERVER_TIME, CAPTURE_TIME, LONG_NUMBERS, FORM = range(8)
# bits of a capture_ts that is written in another form than usual: `FORM` of its line
SPACE, NO_ZONE, OFFSET_0000, EPOCH, DOUBLE = 1, 2, 4, 8, 16  # DOUBLE: the number's place stands for its value
# rows of `Sheets.events`, a column an event: its line, its channel, 1 for a snapshot, its product (level2),
# and the end of its rows
EVENT_LINE, EVENT_CHANNEL, EVENT_SNAPSHOT, EVENT_PRODUCT, EVENT_END = range(5)

# numpy's integers: numba would compile a function anew for every value of a Python one
_QUOTE, _COMMA, _COLON, _NEWLINE, _RETURN, _BACKSLASH, _OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = np.array(
    [34, 44, 58, 10, 13, 92, 123, 125, 91, 93]
)
_ZERO, _T = np.int64(0), np.int64(84)
# numba makes a float of an unsigned and a signed integer: words need constants of their own kind
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7 = (np.uint64(n) for n in range(8))
_U8, _U16, _U24, _U32, _U40, _U48, _U56 = (np.uint64(n) for n in range(8, 57, 8))
_LOWS = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONES = np.uint64(0x0101010101010101)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HIGHS, _ZEROS, _TO_HIGH = (
    np.uint64(0x8080808080808080),
    np.uint64(0x3030303030303030),
    np.uint64(0x7676767676767676),
)
_U10, _U15, _U64 = np.uint64(10), np.uint64(15), np.uint64(64)
# to add up the eight digits in a word's bytes: first pairs, then fours
_PAIRS, _OF_FIRST, _OF_SECOND = np.uint64(0xFF000000FF), np.uint64(0xF424000000064), np.uint64(0x271000000001)

_TENS = 10.0 ** np.arange(19)
_POWERS = 10 ** np.arange(19, dtype=np.int64)
_SPLIT, _SLACK = 2.0**27 + 1.0, 2.0**-48
_SECONDS, _MILLISECONDS, _MICROSECONDS = 10**11, 10**14, 10**17  # an epoch in these is below
_LAST_TIME = np.iinfo(np.int64).max
_FEW_DIGITS = 1_000_000_000_000_000  # a number below is an exact double
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


class Rows(NamedTuple):
    """Rows of one kind of object: the members that are integers and those that are floats, (slots, rows)."""

    ints: I64
    floats: F64


class Sheets(NamedTuple):
    """What a piece of a segment is decoded into.

    ``memo`` holds the product names met and what else is remembered; ``ints`` and ``floats`` the object that
    is being read. (A call copies the descriptors of the arrays that it passes on: few are passed where it is
    done for every row.)
    """

    lines: I64
    events: I64
    level2: Rows
    trades: Rows
    tickers: Rows
    ints: I64
    floats: F64
    memo: U64


# what a member holds; a LIST or a BODY is the last one that is read
NUMBER, SIGNED, TIME, INTEGER, ID, TEXT = range(6)
PRODUCT, BOOK_SIDE, TRADE_SIDE, EVENT_TYPE, CHANNEL_NAME, RECEIPT, LIST, BODY = range(6, 14)


# the objects, and the members of each; and the channels' names, each with its code in place of a kind
ENVELOPE, FRAME, METADATA, LEVEL2_EVENT, TRADES_EVENT, TICKER_EVENT, UPDATE, TRADE, TICKER_ROW, NAMES = (
    np.arange(10)
)
_MEMBERS = (
    {"capture_ts": RECEIPT, "data": BODY},
    {"channel": CHANNEL_NAME, "client_id": TEXT, "timestamp": TIME, "sequence_num": INTEGER, "events": LIST},
    {"source": TEXT, "channel": TEXT},
    {"type": EVENT_TYPE, "product_id": PRODUCT, "updates": LIST},
    {"type": EVENT_TYPE, "trades": LIST},
    {"type": EVENT_TYPE, "tickers": LIST},
    {"side": BOOK_SIDE, "event_time": TIME, "price_level": NUMBER, "new_quantity": NUMBER},
    {
        "product_id": PRODUCT, "trade_id": ID, "price": NUMBER, "size": NUMBER, "time": TIME,
        "side": TRADE_SIDE,
    },
    {
        "type": TEXT, "product_id": PRODUCT, "price": NUMBER, "volume_24_h": NUMBER, "low_24_h": NUMBER,
        "high_24_h": NUMBER, "low_52_w": NUMBER, "high_52_w": NUMBER, "price_percent_chg_24_h": SIGNED,
        "best_bid": NUMBER, "best_bid_quantity": NUMBER, "best_ask": NUMBER, "best_ask_quantity": NUMBER,
    },
)  # fmt: skip


@cache
def _dictionary(channels: tuple[tuple[str, int], ...]) -> U64:
    """Return the objects as the memo holds them: where the members of each start; eight words per member.

    The words are three of the key's text, three of its mask, the kind, and the text's length.
    """
    objects = (*_MEMBERS, dict(channels))
    starts = np.cumsum([0, *(len(members) for members in objects)])
    table = [(_DICTIONARY + len(starts) + 8 * starts).astype(np.uint64)]
    for key, kind in (item for members in objects for item in members.items()):
        text = key.encode() + b'"'
        assert len(text) <= 24, "three words hold a key"
        words = text.ljust(24, b"\0") + (b"\xff" * len(text)).ljust(24, b"\0")
        table += [np.frombuffer(words, np.uint64), np.array([kind, len(text)], np.uint64)]
    return np.concatenate(table)


# where in the memo: the last minute's two words and its seconds; the products' count, whether no others
# are wanted; the line's count of long numbers, and its capture_ts's form; the products' names (three words
# each) and hash table; the dictionary of objects
_N_NAMES, _N_SLOTS = 1024, 4096
_MINUTE, _COUNT, ONLY, _LONG, _FORM, _PRODUCTS = 0, 3, 4, 5, 6, 7
_SLOTS = _PRODUCTS + 3 * _N_NAMES
_DICTIONARY = _SLOTS + _N_SLOTS


def sheets(size: int, channels: Mapping[str, int]) -> Sheets:
    """Return room for what a piece of this size can hold; lines beyond it wait for the next call.

    ``channels`` has the code of each channel, by its name on the wire.
    """

    def rows(ints: int, floats: int, least_bytes: int) -> Rows:
        n = size // least_bytes + 1
        return Rows(np.empty((ints, n), np.int64), np.empty((floats, n), np.float64))

    return Sheets(
        lines=np.empty((8, size // 64 + 16), np.int64),
        events=np.empty((5, size // 12 + 1), np.int64),
        level2=rows(2, 2, 48),
        trades=rows(4, 2, 64),
        tickers=rows(1, 12, 28),
        ints=np.empty(16, np.int64),
        floats=np.empty(16, np.float64),
        memo=np.append(np.zeros(_DICTIONARY, np.uint64), _dictionary(tuple(channels.items()))),
    )


def limit_products(room: Sheets, names: Iterable[str]) -> None:
    """Let the kernel take these products only; a name that it cannot hold can be met in ODD lines alone."""
    held = [name for name in dict.fromkeys(names) if 0 < len(name.encode()) <= NAME_BYTES][:_N_NAMES]
    for name in held:
        words = np.frombuffer(name.encode().ljust(NAME_BYTES, b"\0"), np.uint64)
        add_product(room.memo, words[0], words[1], words[2])
    room.memo[ONLY] = 1


def forget_products(room: Sheets) -> None:
    """Empty the memo of products."""
    room.memo[_COUNT] = 0
    room.memo[_SLOTS:_DICTIONARY] = 0


def product_names(room: Sheets) -> list[str]:
    """Give the names of the products met, in the order of their indices."""
    names = room.memo[_PRODUCTS : _PRODUCTS + 3 * int(room.memo[_COUNT])].tobytes()
    return [names[k : k + NAME_BYTES].rstrip(b"\0").decode() for k in range(0, len(names), NAME_BYTES)]


def _text(name: str) -> U8:
    return np.frombuffer(name.encode() + b'"', np.uint8)


_SNAPSHOT, _UPDATED, _METADATA_KEY = _text("snapshot"), _text("update"), _text("metadata")
_BID, _OFFER, _ASK = _text("bid"), _text("offer"), _text("ask")
_BUY, _BUY_LOWER, _SELL, _SELL_LOWER = _text("BUY"), _text("buy"), _text("SELL"), _text("sell")


def _eight(text: str) -> np.uint64:
    """Give eight letters, or fewer, as `_word` reads them."""
    return np.uint64(int.from_bytes(text.encode(), "little"))


_CAPTURE_1, _CAPTURE_2 = _eight('"capture'), _eight('ture_ts"')
# an update as the exchange writes it, by the words between its values
_KEY_SIDE, _OFFER_END = _eight('{"side":'), _eight('offer","')
_BID_END, _FOUR = _eight('bid"'), np.uint64(0xFFFFFFFF)
_ZONE_0000, _FIVE = _eight("+0000"), np.uint64(0xFFFFFFFFFF)
_KEY_TIME_1, _KEY_TIME_2 = _eight(',"event_'), _eight('_time":"')
_KEY_PRICE_1, _KEY_PRICE_2 = _eight(',"price_'), _eight('_level":')
_KEY_SIZE_1, _KEY_SIZE_2 = _eight(',"new_qu'), _eight('antity":')


@inner
def _at(buf: U8, i: int) -> int:
    """One byte, as a signed integer; the index is never negative, which spares numba's check for that."""
    return np.int64(buf[np.uint64(i)])


@inner
def _is(buf: U8, i: int, text: U8) -> bool:
    """Whether a quoted text, from its opening quote, is this one."""
    for k in range(len(text)):  # noqa: SIM110 (numba has no all() of a generator)
        if _at(buf, i + 1 + k) != text[k]:
            return False
    return True


@inner
def _blank(buf: U8, i: int) -> int:
    """Pass spaces and tabs."""
    while _at(buf, i) == 32 or _at(buf, i) == 9:
        i += 1
    return i


@inner
def _expect(buf: U8, i: int, byte: int) -> int:
    """Pass one byte, and the blanks on both sides of it."""
    if i < 0:
        return -1
    i = _blank(buf, i)
    if _at(buf, i) != byte:
        return -1
    return _blank(buf, i + 1)


@inner
def _plain(buf: U8, i: int) -> int:
    """Pass a quoted text of plain ASCII, from its opening quote."""
    if _at(buf, i) != _QUOTE:
        return -1
    i += 1
    while True:
        c = _at(buf, i)
        if c == _QUOTE:
            return i + 1
        if c < 32 or c > 126 or c == _BACKSLASH:
            return -1
        i += 1


@inner
def _word(buf: U8, at: int) -> np.uint64:
    """Eight bytes as one number (the compiler makes one load of it)."""
    i = np.uint64(at)
    return (
        np.uint64(buf[i])
        | (np.uint64(buf[i + _U1]) << _U8)
        | (np.uint64(buf[i + _U2]) << _U16)
        | (np.uint64(buf[i + _U3]) << _U24)
        | (np.uint64(buf[i + _U4]) << _U32)
        | (np.uint64(buf[i + _U5]) << _U40)
        | (np.uint64(buf[i + _U6]) << _U48)
        | (np.uint64(buf[i + _U7]) << _U56)
    )


@inner
def _matches(word: np.uint64, byte: int) -> np.uint64:
    """Set the lowest bit of each of a word's eight bytes that is this byte."""
    x = word ^ (_ONES * np.uint64(byte))
    return (~(((x & _LOWS) + _LOWS) | x | _LOWS)) >> _U7


@inner
def _line_end(buf: U8, i: int) -> int:
    """Find the next newline."""
    while _matches(_word(buf, i), _NEWLINE) == _U0:
        i += 8
    while _at(buf, i) != _NEWLINE:
        i += 1
    return i


@inner
def _digits(buf: U8, i: int) -> tuple[int, int]:
    """Read at most eight digits: how many there are, and their number; all at once, in one word."""
    word = _word(buf, i) ^ _ZEROS  # a digit's byte is 0 to 9 now; only behind the first other one may it err
    others = (((word + _TO_HIGH) | word) & _HIGHS) >> _U7
    n = (((((others & (~others + _U1)) - _U1) & _ONES) * _ONES) >> _U56) & _U15
    if n == _U0:
        return 0, 0
    word <<= _U64 - (n << _U3)
    word = word * _U10 + (word >> _U8)
    word = ((word & _PAIRS) * _OF_FIRST + ((word >> _U16) & _PAIRS) * _OF_SECOND) >> _U32
    return np.int64(n), np.int64(word)


@inner
def _decimal(buf: U8, i: int) -> tuple[int, int, int]:
    """Read a decimal up to its closing quote: the index behind that, all digits as a number, the decimals.

    It has at most 18 digits.
    """
    n, mantissa = _digits(buf, i)
    i += n
    if n == 8:
        more, low = _digits(buf, i)
        mantissa = mantissa * _POWERS[more] + low
        n, i = n + more, i + more
    decimals = _ZERO
    if n and _at(buf, i) == 46:
        decimals, low = _digits(buf, i + 1)
        if decimals == 0 or n + decimals > 18:
            return -1, 0, 0
        mantissa = mantissa * _POWERS[decimals] + low
        i += 1 + decimals
        while 48 <= _at(buf, i) <= 57 and n + decimals < 18:
            mantissa = mantissa * 10 + (_at(buf, i) - 48)
            decimals, i = decimals + 1, i + 1
    if n == 0 or _at(buf, i) != _QUOTE:
        return -1, 0, 0
    return i + 1, mantissa, decimals


@inner
def _number(buf: U8, i: int, signed: bool) -> tuple[int, float]:
    """Read a quoted decimal, from its opening quote; at most 15 significant digits and 18 in all.

    Both the digits as an integer and the power of ten are then exact doubles, so that their quotient is the
    double nearest to the text.
    """
    if _at(buf, i) != _QUOTE:
        return -1, 0.0
    i += 1
    negative = signed and _at(buf, i) == 45
    if negative:
        i += 1
    i, mantissa, decimals = _decimal(buf, i)
    if i < 0 or mantissa >= _FEW_DIGITS:
        return -1, 0.0
    value = mantissa / _TENS[decimals]
    return i, -value if negative else value


@inner
def _long_number(buf: U8, i: int, signed: bool, memo: U64) -> tuple[int, float]:
    """Read a quoted decimal of at most 18 digits, from its opening quote, and count it if it is long.

    Of digits and power of ten that are not both exact doubles, the quotient is a sum: that of the digits'
    nearest double, and what this and its rest leave over. Where that sum's last bits, which are not exact,
    could decide to which double it is rounded, the number is left to the definition.
    """
    i += 1
    negative = signed and _at(buf, i) == 45
    if negative:
        i += 1
    i, mantissa, decimals = _decimal(buf, i)
    if i < 0:
        return -1, 0.0
    while decimals > 0 and mantissa % 10 == 0:
        mantissa //= 10
        decimals -= 1
    power = _TENS[decimals]
    value = mantissa / power
    if mantissa >= _FEW_DIGITS:
        memo[_LONG] += _U1
        nearest = np.float64(mantissa)
        value = nearest / power
        rest = np.float64(mantissa - np.int64(nearest)) + _remainder(nearest, value, power)
        low, high = rest / power * (1.0 - _SLACK), rest / power * (1.0 + _SLACK)
        if value + low != value + high:
            return -1, 0.0
        value += low
    return i, -value if negative else value


@inner
def _remainder(a: float, quotient: float, b: float) -> float:
    """Give a - quotient * b exactly, the quotient being that of a and b: by halves of the digits (Dekker)."""
    x, y = quotient * _SPLIT, b * _SPLIT
    x_high, y_high = x - (x - quotient), y - (y - b)
    x_low, y_low = quotient - x_high, b - y_high
    product = quotient * b
    error = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low
    return (a - product) - error


@inner
def _integer(buf: U8, i: int, most: int) -> tuple[int, int]:
    """Read at most so many digits."""
    start, value = i, 0
    c = _at(buf, i)
    while 48 <= c <= 57 and i - start <= most:
        value = value * 10 + (c - 48)
        i += 1
        c = _at(buf, i)
    if i == start or i - start > most:
        return -1, 0
    return i, value


@inner
def _id(buf: U8, i: int) -> tuple[int, int]:
    """Read a quoted number of at most 18 digits, from its opening quote."""
    if _at(buf, i) != _QUOTE:
        return -1, 0
    i, value = _integer(buf, i + 1, 18)
    if i < 0 or _at(buf, i) != _QUOTE:
        return -1, 0
    return i + 1, value


@inner
def _pair(buf: U8, i: int) -> int:
    """Two digits as a number, or -1."""
    a, b = _at(buf, i) - 48, _at(buf, i + 1) - 48
    if a < 0 or a > 9 or b < 0 or b > 9:
        return -1
    return a * 10 + b


@inner
def _minute(buf: U8, i: int) -> int:
    """Seconds since the epoch of ``YYYY-MM-DDTHH:MM`` (1970 to 2199; a space for the T), or -1."""
    if _at(buf, i + 10) != _T and _at(buf, i + 10) != 32:
        return -1
    century, year, month, day = _pair(buf, i), _pair(buf, i + 2), _pair(buf, i + 5), _pair(buf, i + 8)
    hour, minute = _pair(buf, i + 11), _pair(buf, i + 14)
    if _at(buf, i + 4) != 45 or _at(buf, i + 7) != 45 or _at(buf, i + 13) != _COLON:
        return -1
    if year < 0 or month < 1 or month > 12 or day < 1 or hour < 0 or hour > 23 or minute < 0 or minute > 59:
        return -1
    year += century * 100
    if year < 1970 or year > 2199:
        return -1
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _MONTH_DAYS[month] and not (leap and month == 2 and day == 29):
        return -1
    # days from civil: March is the year's first month, so that the leap day is its last
    shifted = year - 1 if month <= 2 else year
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719468
    return (days * 24 + hour) * 3600 + minute * 60


@inner
def _clock(buf: U8, i: int, memo: U64) -> tuple[int, int]:
    """Read a time up to its zone, with a T or a space between day and clock, as nanoseconds.

    The memo holds the text and the seconds of the last minute read: most times share it.
    """
    # no check against reading past the line: a newline can stand in none of the places compared
    low, high = _word(buf, i), _word(buf, i + 8)
    if low != memo[_MINUTE] or high != memo[_MINUTE + 1]:
        seconds = _minute(buf, i)
        if seconds < 0:
            return -1, 0
        memo[_MINUTE], memo[_MINUTE + 1], memo[_MINUTE + 2] = low, high, np.uint64(seconds)
    second = _pair(buf, i + 17)
    if _at(buf, i + 16) != _COLON or second < 0 or second > 59:
        return -1, 0
    i += 19
    nanos = 0
    if _at(buf, i) == 46:
        n, nanos = _digits(buf, i + 1)
        i += 1 + n
        if n == 0:
            return -1, 0
        if n == 8 and 48 <= _at(buf, i) <= 57:
            nanos = nanos * 10 + (_at(buf, i) - 48)
            n, i = n + 1, i + 1
        nanos *= _POWERS[9 - n]
    return i, (np.int64(memo[_MINUTE + 2]) + second) * 1_000_000_000 + nanos


@inner
def _utc(buf: U8, i: int) -> int:
    """Pass Z or +00:00."""
    if _at(buf, i) == 90:
        return i + 1
    if (
        _at(buf, i) == 43 and _at(buf, i + 1) == 48 and _at(buf, i + 2) == 48
        and _at(buf, i + 3) == _COLON and _at(buf, i + 4) == 48 and _at(buf, i + 5) == 48
    ):  # fmt: skip
        return i + 6
    return -1


@inner
def _time(buf: U8, i: int, memo: U64) -> tuple[int, int]:
    """Read a quoted time in UTC, from its opening quote, as nanoseconds; the epoch itself is NO_TIME."""
    if _at(buf, i) != _QUOTE:
        return -1, 0
    at, total = _clock(buf, i + 1, memo)
    if at < 0 or _at(buf, i + 11) != _T:
        return -1, 0
    at = _utc(buf, at)
    if at < 0 or _at(buf, at) != _QUOTE:
        return -1, 0
    return at + 1, total if total != 0 else NO_TIME


@inner
def _received(buf: U8, i: int, memo: U64) -> tuple[int, int]:
    """Read a capture_ts in one of the forms that other recorders write, and note the form."""
    if _at(buf, i) != _QUOTE:
        return _epoch(buf, i, False, memo)
    at, total = _clock(buf, i + 1, memo)
    if at < 0:
        at, total = _epoch(buf, i + 1, True, memo)
        return (at + 1, total) if at >= 0 and _at(buf, at) == _QUOTE else (-1, 0)
    form = SPACE if _at(buf, i + 11) != _T else 0
    if _at(buf, at) == _QUOTE:
        form |= NO_ZONE
    elif _word(buf, at) & _FIVE == _ZONE_0000:
        form |= OFFSET_0000
        at += 5
    else:
        at = _utc(buf, at)
        if at < 0:
            return -1, 0
    if _at(buf, at) != _QUOTE:
        return -1, 0
    memo[_FORM] = np.uint64(form)
    return at + 1, total if total != 0 else NO_TIME


@inner
def _epoch(buf: U8, i: int, quoted: bool, memo: U64) -> tuple[int, int]:
    """Read an epoch, in s, ms, us or ns by its size, as nanoseconds; digits below one are cut off.

    Of a JSON number its double counts, which is another than a text of more than 15 digits: of one, the place
    is given.
    """
    n, value, start = 0, 0, i
    while 48 <= _at(buf, i) <= 57 and n < 19:
        value = value * 10 + (_at(buf, i) - 48)
        n, i = n + 1, i + 1
    if n == 0 or value <= 0 or _at(buf, i - n) == 48:  # or, of 19 digits, beyond what 64 bits hold
        return -1, 0
    unit = 9 if value < _SECONDS else 6 if value < _MILLISECONDS else 3 if value < _MICROSECONDS else 0
    if value > _LAST_TIME // _POWERS[unit]:
        return -1, 0
    value *= _POWERS[unit]
    if _at(buf, i) == 46:
        decimals, i = 0, i + 1
        while 48 <= _at(buf, i) <= 57:
            if decimals < unit:
                value += (_at(buf, i) - 48) * _POWERS[unit - 1 - decimals]
            decimals, i = decimals + 1, i + 1
        if decimals == 0 or decimals > 100 or value < 0:
            return -1, 0
        if not quoted and n + decimals > 15:
            memo[_FORM] = np.uint64(EPOCH | DOUBLE)
            return i, start
    memo[_FORM] = np.uint64(EPOCH)
    return i, value


@inner
def _find_product(memo: U64, a: np.uint64, b: np.uint64, c: np.uint64) -> int:
    """Index of a product by its name's bytes; -1 if it is not there and may not or cannot be added."""
    mixed = (a ^ (b * _MIX) ^ (c * _MIX * _MIX)) * _MIX
    slot = np.int64(mixed >> _U40) % _N_SLOTS
    while memo[_SLOTS + slot] != _U0:
        k = np.int64(memo[_SLOTS + slot]) - 1
        at = _PRODUCTS + 3 * k
        if memo[at] == a and memo[at + 1] == b and memo[at + 2] == c:
            return k
        slot = (slot + 1) % _N_SLOTS
    k = np.int64(memo[_COUNT])
    if memo[ONLY] != _U0 or k == _N_NAMES:
        return -1
    at = _PRODUCTS + 3 * k
    memo[at], memo[at + 1], memo[at + 2] = a, b, c
    memo[_SLOTS + slot] = memo[_COUNT] = np.uint64(k + 1)
    return k


@inner
def _product(buf: U8, i: int, memo: U64) -> tuple[int, int]:
    """Read a product_id, from its opening quote; the index is -1 for one not wanted."""
    if _at(buf, i) != _QUOTE:
        return -1, 0
    i += 1
    a, b, c = _U0, _U0, _U0
    n = 0
    while _at(buf, i) != _QUOTE:
        byte = _at(buf, i)
        if byte < 32 or byte > 126 or byte == _BACKSLASH or n == NAME_BYTES:
            return -1, 0
        shifted = np.uint64(byte) << np.uint64(8 * (n % 8))
        if n < 8:
            a |= shifted
        elif n < 16:
            b |= shifted
        else:
            c |= shifted
        n += 1
        i += 1
    if n == 0:
        return -1, 0
    k = _find_product(memo, a, b, c)
    if k < 0 and memo[ONLY] == _U0:
        return -1, 0
    return i + 1, k


@inner
def _one_of(buf: U8, i: int, kind: int) -> int:
    """Return the code of a side or an event's type; -1 for a side not known, 0 for any other text."""
    if kind == BOOK_SIDE:
        if _is(buf, i, _BID):
            return 0
        return 1 if _is(buf, i, _OFFER) or _is(buf, i, _ASK) else -1
    if kind == TRADE_SIDE:
        if _is(buf, i, _BUY) or _is(buf, i, _BUY_LOWER):
            return 0
        return 1 if _is(buf, i, _SELL) or _is(buf, i, _SELL_LOWER) else -1
    if kind == EVENT_TYPE:
        if _is(buf, i, _UPDATED):
            return 0
        return 1 if _is(buf, i, _SNAPSHOT) else 2
    return 0


@inner
def _which(buf: U8, i: int, first: int, end: int, guess: int, memo: U64) -> int:
    """Find the member whose key (behind its opening quote) is at i, trying the guess first; or -1."""
    a, b, c = _word(buf, i), _word(buf, i + 8), _word(buf, i + 16)
    k = guess if guess < end else first
    for _ in range(first, end, 8):
        at = np.uint64(k)
        if (
            (a & memo[at + _U3]) == memo[at]
            and (b & memo[at + _U4]) == memo[at + _U1]
            and (c & memo[at + _U5]) == memo[at + _U2]
        ):
            return k
        k = k + 8 if k + 8 < end else first
    return -1


@inner
def _channel(buf: U8, i: int, memo: U64) -> int:
    """Return the code of a channel, whose name's opening quote is at i."""
    first, end = np.int64(memo[_DICTIONARY + NAMES]), np.int64(memo[_DICTIONARY + NAMES + 1])
    member = _which(buf, i + 1, first, end, first, memo)
    return np.int64(memo[np.uint64(member) + _U6]) if member >= 0 else UNKNOWN


@inner
def _object(buf: U8, i: int, what: int, ints: I64, floats: F64, memo: U64) -> tuple[int, int]:
    """Read an object up to its end, or to and with the opening of its LIST (up to its BODY).

    Member k of the object goes to ``ints[k]`` or ``floats[k]``. The second value has a bit for each member
    read. No member may come twice, and none that is not known.
    """
    first, end = np.int64(memo[_DICTIONARY + what]), np.int64(memo[_DICTIONARY + what + 1])
    i = _expect(buf, i, _OPEN)
    if i < 0:
        return -1, 0
    if _at(buf, i) == _CLOSE:
        return i + 1, 0
    seen, guess = 0, first
    while _at(buf, i) == _QUOTE:
        member = _which(buf, i + 1, first, end, guess, memo)
        k = (member - first) >> 3
        if member < 0 or (seen >> k) & 1:
            return -1, 0
        seen |= 1 << k
        guess = member + 8
        i = _expect(buf, i + 1 + np.int64(memo[np.uint64(member) + _U7]), _COLON)
        if i < 0:
            return -1, 0
        kind = np.int64(memo[np.uint64(member) + _U6])
        if kind <= SIGNED:
            at, floats[k] = _number(buf, i, kind == SIGNED)
            if at < 0 and _at(buf, i) == _QUOTE:
                at, floats[k] = _long_number(buf, i, kind == SIGNED, memo)
            i = at
        elif kind == TIME:
            i, ints[k] = _time(buf, i, memo)
        elif kind == RECEIPT:
            at, ints[k] = _time(buf, i, memo)
            i, ints[k] = (at, ints[k]) if at >= 0 else _received(buf, i, memo)
        elif kind == PRODUCT:
            i, ints[k] = _product(buf, i, memo)
        elif kind == INTEGER:
            if _at(buf, i) == 48 and 48 <= _at(buf, i + 1) <= 57:  # JSON has no leading zeros
                return -1, 0
            i, ints[k] = _integer(buf, i, 18)
            if ints[k] > LARGEST_NUMBER:
                return -1, 0
        elif kind == ID:
            i, ints[k] = _id(buf, i)
        elif kind == LIST:
            return _expect(buf, i, _OPEN_LIST), seen
        elif kind == BODY:
            return i, seen
        elif kind == CHANNEL_NAME:
            ints[k] = _channel(buf, i, memo)
            i = _plain(buf, i)
        else:
            ints[k] = _one_of(buf, i, kind)
            i = _plain(buf, i) if ints[k] >= 0 else -1
        if i < 0:
            return -1, 0
        i = _blank(buf, i)
        if _at(buf, i) == _CLOSE:
            return i + 1, seen
        i = _expect(buf, i, _COMMA)
        if i < 0:
            return -1, 0
    return -1, 0


@inner
def _next(buf: U8, i: int) -> int:
    """Pass a comma to a list's next value, or stay at its closing bracket."""
    if i < 0:
        return -1
    i = _blank(buf, i)
    if _at(buf, i) == _CLOSE_LIST:
        return i
    i = _expect(buf, i, _COMMA)
    return -1 if i < 0 or _at(buf, i) == _CLOSE_LIST else i


@inner
def _header(buf: U8, i: int, n: int, sheets: Sheets) -> tuple[int, bool]:
    """Read a line up to and with its events' opening bracket; the second value: it has an envelope."""
    lines, ints, floats, memo = sheets.lines, sheets.ints, sheets.floats, sheets.memo
    lines[CAPTURE_TIME, n] = NO_TIME
    start, seen = _object(buf, i, ENVELOPE, ints, floats, memo)
    enveloped = start >= 0 and seen == 3
    if enveloped:
        lines[CAPTURE_TIME, n] = ints[0]
        i = start
    i, seen = _object(buf, i, FRAME, ints, floats, memo)
    if seen | 2 != 31:  # all but client_id
        return -1, False
    lines[CHANNEL, n], lines[SERVER_TIME, n], lines[SEQUENCE_NUM, n] = ints[0], ints[2], ints[3]
    return i, enveloped


@inner
def _footer(buf: U8, i: int, enveloped: bool, sheets: Sheets) -> int:
    """Read what is behind the last event, to the line's end."""
    i = _expect(buf, _expect(buf, i, _CLOSE_LIST), _CLOSE)
    if enveloped and i >= 0:
        if _at(buf, i) == _COMMA:
            i = _blank(buf, i + 1)
            if _at(buf, i) != _QUOTE or not _is(buf, i, _METADATA_KEY):
                return -1
            i = _expect(buf, i + 1 + len(_METADATA_KEY), _COLON)
            i, _ = _object(buf, i, METADATA, sheets.ints, sheets.floats, sheets.memo)
        i = _expect(buf, i, _CLOSE)
    if i >= 0 and _at(buf, i) == _RETURN:
        i += 1
    return i if i >= 0 and _at(buf, i) == _NEWLINE else -1


@inner
def _skip_list(buf: U8, i: int) -> int:
    """Pass a list without reading it: to the first closing bracket, if no text holds that.

    An even number of quotes before the bracket, and no backslash, say that it stands outside of a text.
    """
    quotes = _U0
    while True:
        word = _word(buf, i)
        ends = _matches(word, _CLOSE_LIST) | _matches(word, _NEWLINE) | _matches(word, _BACKSLASH)
        if ends != _U0:
            break
        quotes += (_matches(word, _QUOTE) * _ONES) >> _U56
        i += 8
    while _at(buf, i) != _CLOSE_LIST:
        if _at(buf, i) == _NEWLINE or _at(buf, i) == _BACKSLASH:
            return -1
        if _at(buf, i) == _QUOTE:
            quotes += _U1
        i += 1
    return i if quotes & _U1 == _U0 else -1


@inner
def _usual_update(buf: U8, i: int, row: int, ints: I64, floats: F64, memo: U64) -> int:
    """Read an update that is written as the exchange writes it, letter for letter, into a row; or give -1."""
    if _word(buf, i) != _KEY_SIDE or _at(buf, i + 8) != _QUOTE:
        return -1
    side = _word(buf, i + 9)
    if side & _FOUR == _BID_END:
        ints[0, row], i = 0, i + 13
    elif side == _OFFER_END:
        ints[0, row], i = 1, i + 15
    else:
        return -1
    if _word(buf, i) != _KEY_TIME_1 or _word(buf, i + 7) != _KEY_TIME_2:
        return -1
    i, ints[1, row] = _time(buf, i + 14, memo)
    if i < 0 or _word(buf, i) != _KEY_PRICE_1 or _word(buf, i + 7) != _KEY_PRICE_2:
        return -1
    i, floats[0, row] = _number(buf, i + 15, False)
    if i < 0 or _word(buf, i) != _KEY_SIZE_1 or _word(buf, i + 8) != _KEY_SIZE_2:
        return -1
    i, floats[1, row] = _number(buf, i + 16, False)
    return i + 1 if i >= 0 and _at(buf, i) == _CLOSE else -1


@inner
def _updates(buf: U8, i: int, rows: Rows, r: int, ints: I64, floats: F64, memo: U64) -> tuple[int, int]:
    """Read a list of updates into rows from r on; the second value is the end of the rows."""
    while i >= 0 and _at(buf, i) != _CLOSE_LIST:
        usual = _usual_update(buf, i, r, rows.ints, rows.floats, memo)
        if usual >= 0:
            i, r = usual, r + 1
            if _at(buf, i) == _COMMA and _at(buf, i + 1) == _OPEN:
                i += 1
            else:
                i = _next(buf, i)
            continue
        i, seen = _object(buf, i, UPDATE, ints, floats, memo)
        if seen | 2 != 15:  # all but event_time
            return -1, r
        rows.ints[0, r], rows.ints[1, r] = ints[0], ints[1] if seen & 2 else NO_TIME
        rows.floats[0, r], rows.floats[1, r] = floats[2], floats[3]
        r += 1
        i = _next(buf, i)
    return i, r


@inner
def _trades(buf: U8, i: int, rows: Rows, r: int, ints: I64, floats: F64, memo: U64) -> tuple[int, int]:
    """Read a list of trades into rows from r on; the second value is the end of the rows."""
    while i >= 0 and _at(buf, i) != _CLOSE_LIST:
        i, seen = _object(buf, i, TRADE, ints, floats, memo)
        if seen | 16 != 63:  # all but time
            return -1, r
        if ints[0] >= 0:
            rows.ints[0, r], rows.ints[1, r], rows.ints[2, r] = ints[0], ints[1], ints[5]
            rows.ints[3, r] = ints[4] if seen & 16 else NO_TIME
            rows.floats[0, r], rows.floats[1, r] = floats[2], floats[3]
            r += 1
        i = _next(buf, i)
    return i, r


@inner
def _tickers(buf: U8, i: int, rows: Rows, r: int, ints: I64, floats: F64, memo: U64) -> tuple[int, int]:
    """Read a list of tickers into rows from r on; the second value is the end of the rows."""
    while i >= 0 and _at(buf, i) != _CLOSE_LIST:
        i, seen = _object(buf, i, TICKER_ROW, ints, floats, memo)
        if seen & 6 != 6:  # product_id and price
            return -1, r
        if ints[1] >= 0:
            rows.ints[0, r] = ints[1]
            for k in range(12):
                rows.floats[k, r] = floats[k + 2] if (seen >> (k + 2)) & 1 else np.nan
            r += 1
        i = _next(buf, i)
    return i, r


@inner
def _events(buf: U8, i: int, n: int, event: int, row: int, sheets: Sheets) -> tuple[int, int, int, bool]:
    """Read a frame's events; behind the index: the next free event and row, and whether it was skipped.

    It is skipped if it has none of the wanted products. Of a frame of which only a part is wanted the
    definition is asked: it alone may say that the whole is in order.
    """
    channel, events = sheets.lines[CHANNEL, n], sheets.events
    ints, floats, memo = sheets.ints, sheets.floats, sheets.memo
    what, heads = TICKER_EVENT, 2
    if channel == LEVEL2:
        what, heads = LEVEL2_EVENT, 7
    elif channel == TRADES:
        what, heads = TRADES_EVENT, 3
    wanted, skipped = False, False
    while i >= 0 and _at(buf, i) != _CLOSE_LIST:
        i, seen = _object(buf, i, what, ints, floats, memo)
        if i < 0 or seen & heads != heads:
            return -1, event, row, False
        kind, product = ints[0], ints[1]
        if channel == LEVEL2 and product < 0:
            skipped = True
            i = _skip_list(buf, i)
        elif kind > 1 and channel <= TRADES:
            return -1, event, row, False
        else:
            wanted = True
            if channel == LEVEL2:
                i, row = _updates(buf, i, sheets.level2, row, ints, floats, memo)
            elif channel == TRADES:
                i, row = _trades(buf, i, sheets.trades, row, ints, floats, memo)
            else:
                i, row = _tickers(buf, i, sheets.tickers, row, ints, floats, memo)
            events[EVENT_LINE, event], events[EVENT_CHANNEL, event] = n, channel
            events[EVENT_SNAPSHOT, event], events[EVENT_PRODUCT, event] = kind, product
            events[EVENT_END, event] = row
            event += 1
        i = _next(buf, _expect(buf, _expect(buf, i, _CLOSE_LIST), _CLOSE))
    return -1 if wanted and skipped else i, event, row, skipped


@kernel
def decode_lines(
    buf: U8, start: int, end: int, want: U8, sheets: Sheets
) -> tuple[int, int, int, tuple[int, int, int]]:
    """Decode lines into columns, until the end or until no place for a line is left.

    ``want`` says for each channel whether its rows are wanted: a line of another is SKIPPED behind its
    header. With the memo's ONLY set, no product beyond those known is wanted. Gives where it stopped, and
    how many lines, events, and level changes, trades and tickers it wrote.
    """
    lines = sheets.lines
    n = events = level2 = trades = tickers = _ZERO
    i = start
    while i < end and n < lines.shape[1]:
        lines[OFFSET, n], lines[STATUS, n] = i, ODD
        sheets.memo[_LONG] = sheets.memo[_FORM] = _U0
        at, enveloped = _header(buf, i, n, sheets)
        if at >= 0:
            channel = lines[CHANNEL, n]
            if not want[channel]:
                lines[STATUS, n] = SKIPPED
            elif channel <= TICKER_BATCH:
                row = level2 if channel == LEVEL2 else trades if channel == TRADES else tickers
                at, event, row, skipped = _events(buf, at, n, events, row, sheets)
                at = _footer(buf, at, enveloped, sheets)
                if at >= 0:
                    lines[STATUS, n] = SKIPPED if skipped else READ
                    events = event
                    if channel == LEVEL2:
                        level2 = row
                    elif channel == TRADES:
                        trades = row
                    else:
                        tickers = row
        lines[LONG_NUMBERS, n], lines[FORM, n] = sheets.memo[_LONG], sheets.memo[_FORM]
        i = _line_end(buf, max(i, at)) + 1
        n += 1
    return i, n, events, (level2, trades, tickers)


@kernel
def spread(values: I64, counts: I64, out: I64) -> None:
    """Repeat each value as often as its count says."""
    at = 0
    for k in range(len(values)):
        for _ in range(counts[k]):
            out[at] = values[k]
            at += 1


@kernel
def add_product(memo: U64, a: np.uint64, b: np.uint64, c: np.uint64) -> int:
    """Note a product by its name's bytes."""
    return _find_product(memo, a, b, c)


@kernel
def outline(buf: U8, start: int, sheets: Sheets) -> tuple[bool, bool]:
    """Read what can still be read of a line that was rejected.

    The first value: its header is legal, and stands in ``lines``. The second: it is a level2 frame's, and
    the structure of its events is legal; their products are then added to the memo.
    """
    sheets.memo[_FORM] = _U0
    i, enveloped = _header(buf, start, _ZERO, sheets)
    sheets.lines[FORM, 0] = np.int64(sheets.memo[_FORM])
    if i < 0 or sheets.lines[CHANNEL, 0] != LEVEL2:
        return i >= 0, False
    while i >= 0 and _at(buf, i) != _CLOSE_LIST:
        i, seen = _object(buf, i, LEVEL2_EVENT, sheets.ints, sheets.floats, sheets.memo)
        if i < 0 or seen != 7:
            return True, False
        i = _skip_list(buf, i)
        i = _next(buf, _expect(buf, _expect(buf, i, _CLOSE_LIST), _CLOSE))
    return True, _footer(buf, i, enveloped, sheets) >= 0


@inner
def _receipt(buf: U8, i: int, end: int) -> tuple[int, int]:
    """Find where the value of capture_ts stands in a line, and its end; the line's end for both if nowhere.

    It is a quoted text, or else whatever stands before the next comma or closing brace.
    """
    while i < end:
        if _at(buf, i) != _QUOTE or _word(buf, i) != _CAPTURE_1 or _word(buf, i + 4) != _CAPTURE_2:
            i += 1
            continue
        at = _blank(buf, i + 12)
        i += 1
        if _at(buf, at) != _COLON:
            continue
        at = _blank(buf, at + 1)
        last = at
        if _at(buf, at) == _QUOTE:
            last += 1
            while last < end and _at(buf, last) != _QUOTE:
                last += 1
            if last < end:
                return at, last + 1
            last = at
        while last < end and _at(buf, last) != _COMMA and _at(buf, last) != _CLOSE:
            last += 1
        return at, last
    return end, end


@inner
def _mix(digest: np.uint64, word: np.uint64) -> np.uint64:
    """Mix a word into a digest, so that its high bits reach the low ones, too."""
    digest = (digest ^ word) * _MIX
    return digest ^ (digest >> _U32)


@inner
def _mixed(buf: U8, i: int, end: int, digest: np.uint64) -> np.uint64:
    """Mix bytes into a digest, and how many they are; four words side by side take a third of the time."""
    digest = _mix(digest, np.uint64(end - i))
    a, b, c, d = digest, ~digest, digest ^ _LOWS, digest ^ _HIGHS
    while end - i >= 32:
        a, b = _mix(a, _word(buf, i)), _mix(b, _word(buf, i + 8))
        c, d = _mix(c, _word(buf, i + 16)), _mix(d, _word(buf, i + 24))
        i += 32
    digest = _mix(_mix(_mix(a, b), c), d)
    while i < end:
        word = _word(buf, i)
        if end - i < 8:
            word &= (_U1 << np.uint64(8 * (end - i))) - _U1
        digest = _mix(digest, word)
        i += 8
    return digest


@kernel
def digest_lines(buf: U8, starts: I64, ends: I64, out: I64) -> None:
    """Compute a digest of each line's bytes without its capture_ts, by which repeats are known.

    Lines that differ have the same one by chance alone, once in 2**64.
    """
    for k in range(len(starts)):
        first, last = _receipt(buf, starts[k], ends[k])
        digest = _mixed(buf, starts[k], first, _U0)
        out[k] = np.int64(_mixed(buf, last, ends[k], digest))
