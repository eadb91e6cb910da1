"""Frames ↔ partitioned Parquet."""

from cbtools.dataset.compact import Compaction, compact_dataset
from cbtools.dataset.repartition import repartition_dataset
from cbtools.dataset.report import DatasetReport, dataset_report
from cbtools.dataset.scan import scan_dataset
from cbtools.dataset.write import DatasetWriter, write_dataset
from cbtools.dataset.written import Part, Written

__all__ = [
    "Compaction",
    "DatasetReport",
    "DatasetWriter",
    "Part",
    "Written",
    "compact_dataset",
    "dataset_report",
    "repartition_dataset",
    "scan_dataset",
    "write_dataset",
]
