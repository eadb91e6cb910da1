"""cbtools: from raw recordings of Coinbase's order book to tables that can be trusted."""

from cbtools.errors import CbtoolsError as CbtoolsError
from cbtools.errors import ConfigError as ConfigError
from cbtools.errors import DatasetError as DatasetError
from cbtools.errors import SegmentError as SegmentError
from cbtools.errors import StateError as StateError
from cbtools.schema import describe as describe
from cbtools.raw.scan import RawTables as RawTables
from cbtools.raw.scan import read_raw as read_raw
from cbtools.raw.scan import scan_raw as scan_raw
from cbtools.dataset import scan_dataset as scan_dataset
from cbtools.dataset import write_dataset as write_dataset
from cbtools import plot as plot
from cbtools.book import Book as Book
from cbtools.book import BookState as BookState
from cbtools.book import book_at as book_at
from cbtools.book import rebuild_book as rebuild_book
from cbtools.raw.report import RawReport as RawReport
from cbtools.book.report import BookReport as BookReport
from cbtools.run.report import InspectReport as InspectReport
from cbtools.run.report import SegmentReport as SegmentReport
from cbtools.run.segment import inspect_raw as inspect_raw
from cbtools.run.segment import run_segment as run_segment
from cbtools.simulate import simulate_segments as simulate_segments
from cbtools.samples import sample_path as sample_path
