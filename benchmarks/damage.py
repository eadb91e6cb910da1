"""What bad input costs: lines that are rejected, and gaps. Targets: 100 µs per line; gaps in linear time.

Each is read four times as often as well: what a line or a gap costs must not grow with how many there are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from measure import Claim, Table, alternate, arguments, tell

import cbtools as cb


def change(number: int, side: str = "bid") -> str:
    """Write a frame of one level change."""
    seconds = number / 1000
    time = f"2025-11-26T14:{seconds // 60:02.0f}:{seconds % 60:06.3f}Z"
    update = {"side": side, "event_time": time, "price_level": "100", "new_quantity": "1"}
    event = {"type": "update", "product_id": f"P{number % 30}-USD", "updates": [update]}
    frame = {"channel": "l2_data", "timestamp": time, "sequence_num": number, "events": [event]}
    return json.dumps(frame, separators=(",", ":"))


KINDS: dict[str, Callable[[int], str]] = {
    "an understood line": change,
    "a bad value": partial(change, side="?"),
    "an unknown channel": lambda number: change(number).replace("l2_data", "unknown", 1),
    "keys in another order": lambda number: json.dumps(json.loads(change(number, "?")), sort_keys=True),
    "no JSON": lambda number: change(number)[:-1],
    "a gap": lambda number: change(2 * number),
}


def written(folder: Path, kind: str, lines: int) -> Path:
    path = folder / f"damage_{kind.replace(' ', '_')}_{lines}.ndjson"
    if not path.exists():
        path.write_text("".join(KINDS[kind](number) + "\n" for number in range(lines)))
    return path


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    options.folder.mkdir(parents=True, exist_ok=True)
    few, all_of_them = int(100 * options.megabytes), int(400 * options.megabytes)
    counts = {"few": few, "many": all_of_them}
    jobs = {
        f"{kind}, {more}": partial(cb.read_raw, written(options.folder, kind, lines))
        for kind in KINDS
        for more, lines in counts.items()
    }
    seconds = alternate(jobs, options.repeat)
    for kind in KINDS:
        each, many = (
            [run / lines * 1e6 for run in seconds[f"{kind}, {more}"]] for more, lines in counts.items()
        )
        yield Claim(kind, "µs", many, None if kind == "an understood line" else 100, less=True)
        growth = [after / median(each) for after in many]
        yield Claim(f"{kind}, each of {all_of_them:,} against {few:,}", "", growth, 1.5, less=True)


def main() -> None:
    options = arguments(__doc__, quick=1)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
