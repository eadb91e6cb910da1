"""Frames ↔ partitioned Parquet."""

from cbtools.dataset.write import DatasetWriter, write_dataset
from cbtools.dataset.written import Part, Written

__all__ = ["DatasetWriter", "Part", "Written", "write_dataset"]
