"""Decode level2 to typed columns. Targets: 4 times pyarrow.json + Polars casts; 1 GB/s on one core.

Both give the same rows, which is checked first. pyarrow.json is told the schema, so that it passes over what
level2 does not need, and reads the times itself; we also tell connections and unbroken runs apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.json
from measure import Claim, Table, alternate, arguments, segment, table, tell, times_as_fast
from polars.testing import assert_frame_equal

import cbtools as cb
from cbtools.raw.decode import channel_codes
from cbtools.raw.files import Piece, read_pieces
from cbtools.raw.piece import Decoder, Wanted
from cbtools.schema import SIDE, schema

TIME = pa.timestamp("ns", "UTC")
UPDATE = pa.struct(
    {"side": pa.string(), "event_time": TIME, "price_level": pa.string(), "new_quantity": pa.string()}
)
EVENT = pa.struct({"type": pa.string(), "product_id": pa.string(), "updates": pa.list_(UPDATE)})
FRAME = pa.struct(
    {"channel": pa.string(), "timestamp": TIME, "sequence_num": pa.int64(), "events": pa.list_(EVENT)}
)
LINE = pa.schema({"capture_ts": TIME, "data": FRAME})


def ours(path: Path) -> pl.DataFrame:
    return cb.scan_raw(path, "level2").collect()


def theirs(path: Path) -> pl.DataFrame:
    """Decode level2 as far as pyarrow.json can: without connection and unbroken_since."""
    read = pa.json.read_json(
        path,
        read_options=pa.json.ReadOptions(block_size=32 << 20),  # no line may be longer
        parse_options=pa.json.ParseOptions(explicit_schema=LINE, unexpected_field_behavior="ignore"),
    )
    frame = pl.from_arrow(read)
    assert isinstance(frame, pl.DataFrame)
    return (
        frame.lazy()
        .with_row_index("line", offset=1)
        .unnest("data")
        .filter(pl.col("channel") == "l2_data")
        .explode("events")
        .unnest("events")
        .explode("updates")
        .unnest("updates")
        .select(
            "product_id",
            is_snapshot=pl.col("type") == "snapshot",
            side=pl.col("side").replace_strict(["bid", "offer"], ["bid", "ask"], return_dtype=SIDE),
            price=pl.col("price_level").cast(pl.Float64),
            size=pl.col("new_quantity").cast(pl.Float64),
            event_time=pl.when(pl.col("event_time").to_physical() != 0).then("event_time"),
            server_time="timestamp",
            capture_time="capture_ts",
            sequence_num="sequence_num",
            line=pl.col("line").cast(pl.Int64),
        )
        .collect()
    )


def on_one_core(path: Path, repeat: int) -> Iterator[Claim]:
    """Decode pieces one after another; timed in seconds of the processor, of all threads together."""
    from cbtools._kernels.decode import LEVEL2, decode_lines, sheets

    pieces = [piece for piece in read_pieces(path, 16 << 20) if piece.size]
    room = sheets(max(piece.size for piece in pieces), channel_codes())
    want = np.zeros(256, np.uint8)
    want[LEVEL2] = 1
    decoder = Decoder(Wanted({"level2": frozenset(schema("level2"))}))

    def kernel(piece: Piece) -> None:
        start, text = 0, np.frombuffer(piece.buffer, np.uint8)
        while start < piece.size:
            start, *_ = decode_lines(text, start, piece.size, want, room)

    for name, job, target in (("kernel alone", kernel, None), ("kernel and columns", decoder, 1.0)):
        seconds = []
        for _ in range(repeat + 1):
            start = time.process_time()
            for piece in pieces:
                job(piece)
            seconds.append(time.process_time() - start)
        runs = [path.stat().st_size / 1e9 / run for run in seconds[1:]]
        yield Claim(f"level2, a core, {name}", "GB/s", runs, target)


def measured(options: argparse.Namespace) -> Iterator[Claim | Table]:
    path = segment(options.folder, options.megabytes)
    mine, other = ours(path), theirs(path)
    assert_frame_equal(mine.select(other.columns), other)
    print(f"the same {mine.height:,} rows")
    del mine, other

    jobs = {
        "scan_raw, level2, all columns": partial(ours, path),
        "pyarrow.json + Polars": partial(theirs, path),
        "level2 skipped (ticker alone)": cb.scan_raw(path, "ticker").collect,
        "product skipped (another's level2)": cb.scan_raw(path, "level2", products=["ETH-USD"]).collect,
    }
    seconds = alternate(jobs, options.repeat)
    table(seconds, path.stat().st_size)
    yield times_as_fast("level2 against pyarrow.json and Polars casts", seconds, *list(jobs)[:2], 4)
    yield from on_one_core(path, options.repeat)


def main() -> None:
    options = arguments(__doc__)
    tell(options, measured(options))


if __name__ == "__main__":
    main()
