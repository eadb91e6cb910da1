"""run_segment, raw → partitioned Parquet. Targets on two cores: 250 MB/s with the book, 400 MB/s without.

On BTC-USD alone, and on 30 products. Beside it the least that could be done: to read the same lines with
read_raw, and to write the same tables with Polars, one file each.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from measure import alternate, arguments, ratio, segment, table

import cbtools as cb

PRODUCTS = """
BTC ETH SOL XRP DOGE ADA LINK SUI AVAX LTC HBAR XLM SHIB BCH PEPE
UNI AAVE DOT NEAR BONK ICP APT FIL ATOM ARB ETC ALGO INJ OP RENDER
"""
TABLES = ("level2", "market_trades", "ticker")
ALL, BOOK, RUN = "run_segment", "run_segment without features", "run_segment without the book"
PLAIN = "read_raw + write_parquet, unpartitioned"
NO_FEATURES = {
    "level2": {"processor_options": {"compute_features": False}},
    "market_trades": {},
    "ticker": {},
}
NO_BOOK = {"level2": {"processor_options": {"reconstruct_lob": False}}, "market_trades": {}, "ticker": {}}


def plain(path: Path, out: Path) -> None:
    raw = cb.read_raw(path)
    for name in TABLES:
        getattr(raw, name).write_parquet(out / f"{name}.parquet")


def main() -> None:
    options = arguments(__doc__, quick=24)
    out = options.folder / "out"
    for products in (["BTC-USD"], [f"{name}-USD" for name in PRODUCTS.split()]):
        path = segment(options.folder, options.megabytes, products)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        report = cb.run_segment(path, out / "dataset")
        print(f"{len(products)} products: {report.raw.lines:,} lines, {len(report.written)} tables")
        jobs = {
            ALL: lambda path=path: cb.run_segment(path, out / "dataset"),
            BOOK: lambda path=path: cb.run_segment(path, out / "no features", channel_config=NO_FEATURES),
            RUN: lambda path=path: cb.run_segment(path, out / "no book", channel_config=NO_BOOK),
            PLAIN: lambda path=path: plain(path, out),
        }
        seconds = alternate(jobs, options.repeat)
        table(seconds, path.stat().st_size)
        print(f"run_segment without the book: {ratio(seconds, RUN, PLAIN)}\n")
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
