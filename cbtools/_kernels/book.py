"""The order book of one product, rebuilt over a batch of its level changes.

A hash table gives each price a slot, which holds the price and its size on either side: a change is one
look-up and one store. The slots are ranked by price before a batch is applied, the new ones merged with those
known; a bit for each rank tells whether there is a level, so that the best levels are found by going through
the bits from the best outwards. (Keeping a side as a sorted array costs fifty times as much on a full book,
where an insertion moves thousands of levels.)

A message's rows may lie in several pieces, between rows of other products. Nothing is given out before the
last of them is applied.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbtools._kernels import inner, kernel

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

# Places in `marks`, what is known of a product's book between two calls. KNOWN: prices known; BIDS, ASKS:
# levels; PROVEN: 1 if the last message left the book proven; LAST_RUN, LAST_NUMBER: of the last message;
# SINCE, SNAPSHOTS: name of the last snapshot, and how many there were. Then the fewest levels shown of each
# side; and counts, since the book was begun here: messages, changes in them, snapshots, changes before any
# snapshot, deletes of absent levels, breaks by which it was proven no more; from STATES on, messages by the
# state they left. A marker of a break is neither a message nor a change.
(
    KNOWN, BIDS, ASKS, HAS_BOOK, PROVEN, LAST_RUN, LAST_NUMBER, SINCE, SNAPSHOTS, FEWEST_BIDS, FEWEST_ASKS,
    MESSAGES, CHANGES, CLEARED, EARLY, ABSENT, BREAKS, STATES,
) = np.arange(18)  # fmt: skip
MARKS = STATES + 5

# what stands for the side of a marker, which does not change a level: a snapshot that begins, or a break
NO_SIDE = np.int64(2)
# Columns of `level`, a row a slot (from 1 on); sizes are 0 where there is no level.
BID, ASK, PRICE, RANK = np.arange(4)
# rows of `pieces`, a column a piece: its rows, from and to, and the message they belong to
FROM, TO, MESSAGE = np.arange(3)
# rows of `messages`, a column a message: name of its run, receipt, number, and the row to write
RUN, TIME, NUMBER, ROW = np.arange(4)
# places in `how`: when a row is written (EACH message, a change of the BEST, or of any level SHOWN), levels
# compared and shown of a side, whether gaps are ignored, and whether only rows are written that are ok, or
# the first that are not
WHEN, DEPTH, IGNORE, DROP = np.arange(4)
EACH, BEST, SHOWN = np.arange(3)
# rows of `told`, a column a row of the book
TOLD_BIDS, TOLD_ASKS, TOLD_STATE, TOLD_SINCE, TOLD_KEPT = np.arange(5)

OK, UNPROVEN, CROSSED, ONE_SIDED, EMPTY = np.arange(5)
NONE = np.iinfo(np.int64).min + np.int64(0)

_ZERO, _ONE, _TWO, _SIX, _LOW = np.array([0, 1, 2, 6, 63])
# numba makes a float of an unsigned and a signed integer: words have constants of their own kind
_U0, _U1, _U32, _U58 = (np.uint64(n) for n in (0, 1, 32, 58))
_MIX = np.uint64(0x9E3779B97F4A7C15)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
# a word with one bit set, times that number, has in its six high bits a number of its own for each bit
_BIT = np.argsort([(0x03F79D71B4CB0A89 << bit) % 2**64 >> 58 for bit in range(64)])
_UNTOUCHED = -1.0  # size of a side at a price where, without a book, it was never touched
_MISSING = np.nan


@inner
def _place(key: np.uint64, table: U32) -> np.uint64:
    """Where a price's key is looked for first, by the high bits of a product: the mixed ones."""
    return ((key * _MIX) >> _U32) * np.uint64(len(table)) >> _U32


@kernel
def find(
    prices: F64, keys: U64, sides: U8, pieces: I64, at: I64, table: U32, level: F64, marks: I64, slots: U32
) -> int:
    """Give each row of these pieces its price's slot; prices not met before get the next slots.

    ``keys`` are the bits of the prices. ``table`` holds the slot to which a price's key leads, or 0: slots
    count from 1. It stops where ``level`` is full; ``at`` is the piece and the row to go on from, the rows of
    a piece being counted from its own first one. Returns how many slots are used now.
    """
    last = np.uint64(len(table) - 1)
    n = marks[KNOWN]
    empty = 0.0 if marks[HAS_BOOK] else _UNTOUCHED
    while at[0] < pieces.shape[1]:
        first, end = pieces[FROM, at[0]], pieces[TO, at[0]]
        for i in range(first + at[1], end):
            if sides[i] == NO_SIDE:
                continue
            price = prices[i]
            h = _place(keys[i], table)
            slot = np.uint64(table[h])
            while slot != _U0 and level[slot, PRICE] != price:
                h = (h + _U1) & last
                slot = np.uint64(table[h])
            if slot == _U0:
                if n + 1 == len(level):
                    at[1] = i - first
                    return int(n)
                n += 1
                slot = np.uint64(n)
                level[slot, PRICE], level[slot, BID], level[slot, ASK] = price, empty, empty
                table[h] = np.uint32(n)
            slots[i] = slot
        at[0] += 1
        at[1] = 0
    return int(n)


@kernel
def merge(order: I64, price: F64, slot_at: U32, level: F64, marks: I64) -> None:
    """Rank the new slots among the known; ``order`` sorts them. From the top down, so each moves once."""
    known = marks[KNOWN]
    i = known - 1
    to = known + len(order) - 1
    for j in range(len(order) - 1, -1, -1):
        slot = known + 1 + order[j]
        new = level[slot, PRICE]
        while i >= 0 and price[i] > new:
            price[to] = price[i]
            slot_at[to] = slot_at[i]
            i -= 1
            to -= 1
        price[to] = new
        slot_at[to] = slot
        to -= 1
    marks[KNOWN] = known + len(order)


@kernel
def rank(slot_at: U32, level: F64, bits: U64, marks: I64) -> None:
    """Tell each slot its rank, and which ranks hold a level.

    A side's bits are in the order from the best outwards: asks by their ranks, bids by those from the top.
    """
    known = marks[KNOWN]
    for word in range((known >> _SIX) + 1):
        bits[BID, word] = bits[ASK, word] = _U0
    for r in range(known):
        slot = slot_at[r]
        level[slot, RANK] = r
        if level[slot, BID] > 0.0:
            _flip(bits, BID, known - 1 - r)
        if level[slot, ASK] > 0.0:
            _flip(bits, ASK, r)


@inner
def _flip(bits: U64, side: np.int64, place: np.int64) -> None:
    bits[side, place >> _SIX] ^= _U1 << np.uint64(place & _LOW)


@inner
def _next(bits: U64, side: np.int64, place: np.int64, known: np.int64) -> np.int64:
    """Give the first place from here on that holds a level; ``known`` if there is none."""
    last = known >> _SIX
    word = place >> _SIX
    bit = np.uint64(place & _LOW)
    found = (bits[side, word] >> bit) << bit
    while found == _U0:
        word += 1
        if word > last:
            return known
        found = bits[side, word]
    lowest = found & (~found + _U1)
    return np.int64((word << _SIX) + _BIT[(lowest * _DE_BRUIJN) >> _U58])


@kernel
def settle(
    slot_at: U32, level: F64, price: F64, new_slot_at: U32, new_level: F64, keys: U64, table: U32, marks: I64
) -> None:
    """Lay the slots out anew, in the order of their prices and without those that hold nothing.

    ``price``, ``new_slot_at`` and ``new_level`` are to be filled, and ``table``, which is all zero; ``keys``
    are the bits of ``price``.
    """
    least = 0.0 if marks[HAS_BOOK] else _UNTOUCHED
    n = _ZERO
    for r in range(marks[KNOWN]):
        old = slot_at[r]
        bid, ask = level[old, BID], level[old, ASK]
        if bid <= least and ask <= least:
            continue
        price[n] = level[old, PRICE]
        new_slot_at[n] = n + 1
        new_level[n + 1, PRICE], new_level[n + 1, BID], new_level[n + 1, ASK] = price[n], bid, ask
        _enter(keys[n], n + 1, table)
        n += 1
    marks[KNOWN] = n


@kernel
def enter(keys: U64, slot_at: U32, table: U32, marks: I64) -> None:
    """Fill a larger table, all zero, with the prices known; ``keys`` by rank."""
    for r in range(marks[KNOWN]):
        _enter(keys[r], np.int64(slot_at[r]), table)


@inner
def _enter(key: np.uint64, slot: np.int64, table: U32) -> None:
    last = np.uint64(len(table) - 1)
    h = _place(key, table)
    while table[h] != 0:
        h = (h + _U1) & last
    table[h] = slot


@inner
def _clear(level: F64, bits: U64, known: np.int64) -> None:
    """Empty both sides, for a snapshot to fill them."""
    for slot in range(1, known + 1):
        level[slot, BID] = level[slot, ASK] = 0.0
    for word in range((known >> _SIX) + 1):
        bits[BID, word] = bits[ASK, word] = _U0


@inner
def _show(
    slot_at: U32, level: F64, bits: U64, side: np.int64, best: np.int64, known: np.int64, depth: np.int64,
    top: F64,
) -> tuple[np.int64, np.int64, np.int64]:  # fmt: skip
    """Write the best levels of a side into ``top``: prices, then sizes; NaN where there is none.

    Returns what changed (0: nothing, 1: a level, 2: the best), how many there are, and the place behind which
    a change is not shown.
    """
    changed, n, place, edge = _ZERO, _ZERO, best, known
    while place < known:
        slot = slot_at[known - 1 - place if side == BID else place]
        price, size = level[slot, PRICE], level[slot, side]
        if top[n] != price or top[depth + n] != size:
            changed = _TWO if n == 0 else max(changed, _ONE)
            top[n], top[depth + n] = price, size
        n += 1
        if n == depth:
            edge = place
            break
        place = _next(bits, side, place + 1, known)
    for k in range(n, depth):
        if top[k] != top[k]:
            break
        changed = _TWO if k == 0 else max(changed, _ONE)
        top[k] = top[depth + k] = _MISSING
    return changed, n, edge


@inner
def _state(proven: bool, bid: float, ask: float) -> np.int64:
    """Tell what the book is, by the first that holds; a price is NaN where the side is empty."""
    if not proven:
        return UNPROVEN
    if bid == bid and ask == ask:
        return CROSSED if bid >= ask else OK
    return ONE_SIDED if bid == bid or ask == ask else EMPTY


@inner
def _add_bands(
    slot_at: U32, level: F64, bits: U64, known: np.int64, first_bid: np.int64, first_ask: np.int64,
    mid: float, bands: F64, columns: F64, row: np.int64,
) -> None:  # fmt: skip
    """Write the depth within each distance of mid, afresh from the best outwards; ``bands`` are rising.

    ``mid`` is NaN where there is none to measure from.
    """
    n = len(bands)
    for k in range(3 * n):
        columns[k, row] = _MISSING
    if mid != mid:
        return
    for side in (BID, ASK):
        place, depth = (first_bid if side == BID else first_ask), 0.0
        for k in range(n):
            while place < known:
                slot = slot_at[known - 1 - place if side == BID else place]
                price = level[slot, PRICE]
                distance = 1e4 * ((mid - price) if side == BID else (price - mid)) / mid
                if distance > bands[k]:
                    break
                depth += level[slot, side]
                place = _next(bits, side, place + 1, known)
            columns[3 * k + side, row] = depth
    for k in range(n):
        bid, ask = columns[3 * k, row], columns[3 * k + 1, row]
        if bid + ask > 0.0:
            columns[3 * k + 2, row] = (bid - ask) / (bid + ask)


@inner
def _prove(
    marked: bool, message: bool, snapshot: bool, run: np.int64, time: np.int64, number: np.int64, marks: I64
) -> None:
    """Decide whether the book is proven now: by a snapshot of the same run, and no row out of order since.

    ``marked``: there is a marker of a break; ``message``: and more. After a break no number is out of order.
    """
    broken = marked or run != marks[LAST_RUN]
    backwards = not broken and number != NONE and number < marks[LAST_NUMBER]
    something = marks[MESSAGES] > message or marks[SNAPSHOTS] > 0
    marks[BREAKS] += something and marks[PROVEN] != 0 and (broken or backwards)
    if snapshot:
        marks[SNAPSHOTS] += 1
        marks[CLEARED] += 1
        marks[SINCE] = max(time, marks[SINCE] + 1)
        marks[PROVEN] = _ZERO if backwards else _ONE
    elif broken or backwards:
        marks[PROVEN] = _ZERO
    marks[LAST_RUN], marks[LAST_NUMBER] = run, number if message else NONE


@kernel
def rebuild(
    slots: U32, sides: U8, sizes: F64, snapshots: U8, pieces: I64, messages: I64, slot_at: U32, level: F64,
    bits: U64, marks: I64, how: I64, top: F64, shown: I64, bands: F64, columns: F64, told: I64,
) -> None:  # fmt: skip
    """Apply a product's messages to its book, and write a row for each that is asked for.

    ``columns`` are those of ``shown`` (places in ``top``: bid prices, bid sizes, ask prices, ask sizes, each
    of DEPTH) and behind them three a band. ``told`` says for every message whether it has a row.
    """
    depth, known = how[DEPTH], marks[KNOWN]
    bids, asks = top[: 2 * depth], top[2 * depth :]
    first_bid, first_ask = _next(bits, BID, _ZERO, known), _next(bits, ASK, _ZERO, known)
    _, n_bids, bid_edge = _show(slot_at, level, bits, BID, first_bid, known, depth, bids)
    _, n_asks, ask_edge = _show(slot_at, level, bits, ASK, first_ask, known, depth, asks)
    ignore, had_book, has_book = how[IGNORE] != 0, marks[HAS_BOOK] != 0, marks[HAS_BOOK] != 0
    state, since = _state(ignore or marks[PROVEN] != 0, bids[0], asks[0]), marks[SINCE]
    levels_bid, levels_ask = marks[BIDS], marks[ASKS]
    snapshot, in_snapshot, dirty_bids, dirty_asks, rows, absent = False, False, False, False, _ZERO, _ZERO
    marked, unproved = False, False
    for p in range(pieces.shape[1]):
        for i in range(pieces[FROM, p], pieces[TO, p]):
            is_marker = sides[i] == NO_SIDE
            if snapshots[i] and (is_marker or not in_snapshot):
                _clear(level, bits, known)
                snapshot = has_book = dirty_bids = dirty_asks = True
                unproved = False
                levels_bid, levels_ask, first_bid, first_ask = _ZERO, _ZERO, known, known
            in_snapshot = snapshots[i] != 0
            if is_marker:
                if not in_snapshot:
                    marked = unproved = True
                continue
            rows += _ONE
            slot, new, side = slots[i], sizes[i], np.int64(sides[i])
            old = level[slot, side]
            level[slot, side] = new if new > 0.0 else 0.0
            step = np.int64(new > 0.0) - np.int64(old > 0.0)
            absent += has_book and not (new > 0.0 or old > 0.0 or in_snapshot)
            place = np.int64(level[slot, RANK])
            if side == BID:
                place = known - 1 - place
                levels_bid += step
                dirty_bids |= place <= bid_edge
                first_bid = min(first_bid, place) if new > 0.0 else first_bid
            else:
                levels_ask += step
                dirty_asks |= place <= ask_edge
                first_ask = min(first_ask, place) if new > 0.0 else first_ask
            bits[side, place >> _SIX] ^= np.uint64(step != 0) << np.uint64(place & _LOW)
        m = pieces[MESSAGE, p]
        if p + 1 < pieces.shape[1] and pieces[MESSAGE, p + 1] == m:
            continue
        row = messages[ROW, m]
        told[TOLD_KEPT, row] = _ZERO
        message = snapshot or rows > 0
        marks[MESSAGES] += message
        marks[CHANGES] += rows
        marks[ABSENT] += absent
        marks[EARLY] += _ZERO if has_book else rows
        _prove(marked, message, snapshot, messages[RUN, m], messages[TIME, m], messages[NUMBER, m], marks)
        changed = _ZERO
        if dirty_bids:
            first_bid = _next(bits, BID, first_bid, known)
            changed, n_bids, bid_edge = _show(slot_at, level, bits, BID, first_bid, known, depth, bids)
        if dirty_asks:
            first_ask = _next(bits, ASK, first_ask, known)
            of_asks, n_asks, ask_edge = _show(slot_at, level, bits, ASK, first_ask, known, depth, asks)
            changed = max(changed, of_asks)
        marks[PROVEN] *= not unproved  # else a snapshot healed the break
        snapshot, in_snapshot, dirty_bids, dirty_asks, rows, absent = False, False, False, False, _ZERO, _ZERO
        marked = unproved = False
        if not has_book:
            continue
        was, was_since = state, since
        state, since = _state(ignore or marks[PROVEN] != 0, bids[0], asks[0]), marks[SINCE]
        marks[STATES + state] += message
        restated = not had_book or state != was or since != was_since
        before = was if had_book else EMPTY
        ends = before == OK or (state == UNPROVEN and before != UNPROVEN)
        had_book = True
        if not restated and (not message or (how[WHEN] == BEST and changed < _TWO)):
            continue
        if not restated and how[WHEN] == SHOWN and changed < _ONE:
            continue
        if how[DROP] and state != OK and not ends:
            continue
        told[TOLD_KEPT, row] = _ONE
        told[TOLD_BIDS, row], told[TOLD_ASKS, row] = levels_bid, levels_ask
        told[TOLD_STATE, row] = state
        told[TOLD_SINCE, row] = NONE if state == UNPROVEN else since
        for k in range(len(shown)):
            columns[k, row] = top[shown[k]]
        if len(bands):
            mid = (asks[0] + bids[0]) / 2.0 if state == OK else _MISSING
            _add_bands(
                slot_at, level, bits, known, first_bid, first_ask, mid, bands, columns[len(shown) :], row
            )
        marks[FEWEST_BIDS] = min(marks[FEWEST_BIDS], n_bids)
        marks[FEWEST_ASKS] = min(marks[FEWEST_ASKS], n_asks)
    marks[BIDS], marks[ASKS], marks[HAS_BOOK] = levels_bid, levels_ask, has_book
