"""Frames ↔ partitioned Parquet."""

from cbtools.dataset.scan import scan_dataset
from cbtools.dataset.write import DatasetWriter, write_dataset
from cbtools.dataset.written import Part, Written

__all__ = ["DatasetWriter", "Part", "Written", "scan_dataset", "write_dataset"]
