"""Frames ↔ partitioned Parquet."""

from cbtools.dataset.compact import Compaction, compact_dataset
from cbtools.dataset.migrate import Migration, migrate_dataset
from cbtools.dataset.repartition import repartition_dataset
from cbtools.dataset.report import DatasetReport, dataset_report
from cbtools.dataset.scan import scan_dataset
from cbtools.dataset.write import DatasetWriter, write_dataset
from cbtools.dataset.written import Part, Written

__all__ = [
    "Compaction",
    "DatasetReport",
    "DatasetWriter",
    "Migration",
    "Part",
    "Written",
    "compact_dataset",
    "dataset_report",
    "migrate_dataset",
    "repartition_dataset",
    "scan_dataset",
    "write_dataset",
]
