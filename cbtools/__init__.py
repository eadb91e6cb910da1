"""cbtools: from raw recordings of Coinbase's order book to tables that can be trusted."""

from cbtools.raw.scan import RawTables as RawTables
from cbtools.raw.scan import read_raw as read_raw
from cbtools.raw.scan import scan_raw as scan_raw
from cbtools.samples import sample_path as sample_path
