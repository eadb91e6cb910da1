"""The objects of the earlier package: they fill arguments and call the functions of `cbtools`."""

from cbtools.etl.channels import Level2Processor, TickerProcessor, TradesProcessor
from cbtools.etl.database import DatabaseReader
from cbtools.etl.jobs import ETLJob
from cbtools.etl.parsers import CoinbaseParser, RawParser, RawProcessor
from cbtools.etl.pipelines import CoinbaseSegmentPipeline, ETLPipeline
from cbtools.etl.processors import BaseProcessor, ProcessorChain
from cbtools.etl.readers import BaseReader, CSVReader, NDJSONReader, ParquetReader
from cbtools.etl.writers import BaseWriter, ParquetWriter

__all__ = [
    "BaseProcessor",
    "BaseReader",
    "BaseWriter",
    "CSVReader",
    "CoinbaseParser",
    "CoinbaseSegmentPipeline",
    "DatabaseReader",
    "ETLJob",
    "ETLPipeline",
    "Level2Processor",
    "NDJSONReader",
    "ParquetReader",
    "ParquetWriter",
    "ProcessorChain",
    "RawParser",
    "RawProcessor",
    "TickerProcessor",
    "TradesProcessor",
]
