"""CSV and TSV files as a frame of text columns. Each file is read by one task, because cells may hold line breaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.csv_records import CsvRow, physical_lines, read_csv, read_header
from catalog_enrichment.ingest.source_frame import FileLocation, SourceFrame, with_origin

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PATH, _LINE, _TEXT = "path", "line", "text"
_HEADER_LINES = 100
_BATCH_ROWS, _BATCH_CHARACTERS = 10_000, 16_000_000


def open_csv(
    spark: SparkSession, separator: str, location: FileLocation, columns: Sequence[str], wanted: Sequence[str]
) -> SourceFrame:
    """The columns of ``wanted`` that the files have; ``columns``: the names of all columns of files without a header.

    In a folder the columns are those of the first file. A file that lacks one of them, or whose header cannot be read,
    is refused line by line. Raises DataContractError for a header that cannot be read, and in a folder for a mapped
    column without a name.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import LongType, StringType, StructField, StructType

    lines = spark.read.text(location.path, lineSep="\n")
    names = list(columns) or _header(spark, lines, separator, location)
    read = [name for name in names if name in wanted]
    unnamed = [name for place, name in enumerate(names) if name == f"_c{place}" and name in read]
    if unnamed and not columns and not location.is_file:
        raise DataContractError(
            f"{location.path}: {unnamed} have no name in the header. In a folder the columns are found by their names: "
            "import such files one by one."
        )
    places = [f"c{place}" for place in range(len(read))]  # names of the source could clash with the added columns
    schema = StructType(
        [*[StructField(name, StringType()) for name in (_PATH, _TEXT)], StructField(_LINE, LongType())]
        + [StructField(place, StringType()) for place in places]
    )
    task = partial(_parse, separator=separator, names=list(columns) or None, wanted=read)
    rows = _in_file_order(lines).mapInArrow(task, schema)
    selected = [F.col(place).alias(name) for place, name in zip(places, read, strict=True)]
    frame = with_origin(rows, selected, corrupt=F.col(_TEXT), path=F.col(_PATH), row_number=F.col(_LINE))
    return SourceFrame(frame, dict.fromkeys(read, StringType()), lambda: names)


def _header(spark: SparkSession, lines: DataFrame, separator: str, location: FileLocation) -> list[str]:
    """The names of the columns of the first file; none if there is no line."""
    from pyspark.sql import functions as F

    files = [location.path] if location.is_file else [unquote(uri) for uri in sorted(lines.inputFiles())]
    first = spark.read.text(files[0], lineSep="\n") if files else lines
    # a file's first part comes first, and `limit` takes the first rows of the first part
    head = [row[0] for row in first.select(F.col("value").cast("binary")).limit(_HEADER_LINES).collect()]
    text = [line for value in head for line in physical_lines(_decoded(value))]
    names = read_header(text, separator) if text else []
    if names is None:
        raise DataContractError(f"{location.path}: the header cannot be read: its quotes are broken or never closed.")
    return names


def _in_file_order(lines: DataFrame) -> DataFrame:
    """(path, text as bytes): every file in one partition, its lines in order."""
    from pyspark.sql import functions as F

    text = F.col("value").cast("binary").alias(_TEXT)  # bytes: what is no valid UTF-8 must reach the task, too
    path, start = F.col("_metadata.file_path").alias(_PATH), F.col("_metadata.file_block_start").alias("start")
    if lines.rdd.getNumPartitions() <= 1:
        return lines.select(path, text)
    placed = lines.select(path, text, start, F.monotonically_increasing_id().alias("place"))
    return placed.repartition(_PATH).sortWithinPartitions(_PATH, "start", "place").select(_PATH, _TEXT)


def _parse(
    batches: Iterable[pa.RecordBatch], separator: str, names: list[str] | None, wanted: list[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of (path, text, line, wanted columns...) from batches of (path, text) (runs on executors)."""

    def source() -> Iterator[tuple[str, bytes]]:
        for batch in batches:
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)

    for path, lines in groupby(source(), key=itemgetter(0)):
        text = (line for _, value in lines for line in physical_lines(_decoded(value)))
        for rows in _batched(read_csv(text, separator, names, wanted)):
            columns = [
                pa.array([path] * len(rows), pa.string()),
                pa.array([row.refused for row in rows], pa.string()),
                pa.array([row.line for row in rows], pa.int64()),
                *[pa.array([row.cells[place] for row in rows], pa.string()) for place in range(len(wanted))],
            ]
            places = [f"c{place}" for place in range(len(wanted))]
            yield pa.RecordBatch.from_arrays(columns, [_PATH, _TEXT, _LINE, *places])


def _batched(rows: Iterable[CsvRow]) -> Iterator[list[CsvRow]]:
    batch: list[CsvRow] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.refused or "") + sum(len(cell or "") for cell in row.cells)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _decoded(line: bytes) -> str:
    """A line with its end, which Spark took away."""
    return line.decode("utf-8", "replace") + "\n"
