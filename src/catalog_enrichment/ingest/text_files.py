"""CSV, TSV, xlsx, JSON list and XML files as a frame of text columns: each file is read by one task, row by row.

Where the config says so, a row is made per product (shop_rows.py). Every row of a file is part of one accepted or
refused row of the frame (I7).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from catalog_enrichment.config.source import KEY
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.csv_rows import COMMAS, Layout, TextRow, decoded, physical_lines, read_csv, read_header
from catalog_enrichment.ingest.shop_rows import ROW_BY_ROW, RowPlan, product_rows
from catalog_enrichment.ingest.source_frame import Location, SourceFrame, spark_path, with_origin
from catalog_enrichment.ingest.whole_files import SUFFIXES, names_of, read_whole, text_rows
from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PATH, _LINE, _TEXT, _ROWS = "path", "line", "text", "rows"
_HEADER_LINES = 100
_BATCH_ROWS, _BATCH_CHARACTERS = 10_000, 16_000_000
_COMMA_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d+")


@dataclass(frozen=True, slots=True)
class TextFiles:
    """Files of one format."""

    spark: SparkSession
    format: str
    """csv, tsv, xlsx, json_list or xml."""
    location: Location
    layout: Layout = COMMAS
    plan: RowPlan = ROW_BY_ROW

    def open(self, names: Sequence[str]) -> SourceFrame:
        """Open the columns ``names``, as far as the files have them.

        In a folder, the columns of CSV and TSV files are those of the first file. A file that lacks one of them, or
        whose header cannot be read, is refused line by line. Raises DataContractError for a header that cannot be read,
        and in a folder for a mapped column without a name.
        """
        from pyspark.sql import functions as F
        from pyspark.sql.types import LongType, StringType, StructField, StructType

        content = self._whole() if self.format in SUFFIXES else self._lines()
        available = self._names(content)
        wanted = {*names, *self.plan.columns()}
        columns = [name for name in available if name in wanted]
        self._check_unnamed(available, columns)
        shown = [name for name in columns if name in names]
        shown += [name for name in names if name.startswith(KEY) and self.plan.has_pairs and name not in shown]
        places = [f"c{place}" for place in range(len(shown))]  # names of the source could clash with the added columns
        fields = [StructField(name, StringType()) for name in (_PATH, _TEXT)]
        fields += [StructField(name, LongType()) for name in (_LINE, _ROWS)]
        schema = StructType([*fields, *(StructField(place, StringType()) for place in places)])
        task = _Task(self.format, self.layout, self.plan, columns, shown)
        rows = (content if self.format in SUFFIXES else _in_file_order(content)).mapInArrow(task, schema)
        selected = [F.col(place).alias(name) for place, name in zip(places, shown, strict=True)]
        frame = with_origin(
            rows, selected, corrupt=F.col(_TEXT), path=F.col(_PATH), row_number=F.col(_LINE), rows=F.col(_ROWS)
        )
        return SourceFrame(frame, dict.fromkeys(shown, StringType()), lambda: available)

    def _lines(self) -> DataFrame:
        return self.spark.read.text(self.location.read_paths, lineSep="\n")

    def _whole(self) -> DataFrame:
        """Return the path and the bytes of each file."""
        from pyspark.sql import functions as F

        reader = self.spark.read.format("binaryFile")
        if not self.location.is_file:
            reader = reader.option("pathGlobFilter", f"*{SUFFIXES[self.format]}").option("recursiveFileLookup", True)
        files = reader.load(self.location.read_paths)
        return files.select(F.col("_metadata.file_path").alias(_PATH), F.col("content").alias(_TEXT))

    def _names(self, content: DataFrame) -> list[str]:
        """Return the names of the columns: of the first file of a format with a header, else of all files."""
        if self.layout.columns:
            return list(self.layout.columns)
        if self.format not in SUFFIXES:
            return self._header(content)
        task = _Task(self.format, self.layout, ROW_BY_ROW, [], [])
        found = content.mapInArrow(task.column_names, "path string, name string, place bigint").collect()
        return list(dict.fromkeys(row["name"] for row in sorted(found, key=lambda row: (row["path"], row["place"]))))

    def _header(self, lines: DataFrame) -> list[str]:
        """Return the names of the columns of the first CSV or TSV file; none if it has no line."""
        from pyspark.sql import functions as F

        paths = [self.location.path] if self.location.is_file else [unquote(u) for u in sorted(lines.inputFiles())]
        first = self.spark.read.text(spark_path(paths[0]), lineSep="\n") if paths else lines
        # a file's first part comes first, and `limit` takes the first rows of the first part
        wanted = _HEADER_LINES + self.layout.header_row
        head = [row[0] for row in first.select(F.col("value").cast("binary")).limit(wanted).collect()]
        text = [line for value in head for line in physical_lines(decoded(value, self.layout.encoding) + "\n")]
        names = read_header(text, self.layout) if text else []
        if names is None:
            raise DataContractError(
                f"{self.location.path}: the header cannot be read: its quotes are broken or never closed, or it is not "
                f'in the encoding {self.layout.encoding} (source.encoding, for example "cp1252").'
            )
        return names

    def _check_unnamed(self, available: list[str], columns: list[str]) -> None:
        unnamed = [name for place, name in enumerate(available) if name == f"_c{place}" and name in columns]
        if unnamed and not self.layout.columns and not self.location.is_file:
            raise DataContractError(
                f"{self.location.path}: {unnamed} have no name in the header. In a folder the columns are found by "
                "their names: import such files one by one."
            )


def _in_file_order(lines: DataFrame) -> DataFrame:
    """Return (path, text as bytes), with every file in one partition and its lines in order."""
    from pyspark.sql import functions as F

    text = F.col("value").cast("binary").alias(_TEXT)  # bytes: what is not in the encoding must reach the task, too
    path, start = F.col("_metadata.file_path").alias(_PATH), F.col("_metadata.file_block_start").alias("start")
    if api_mode.of(lines.sparkSession).is_in_order(lines):
        return lines.select(path, text)
    placed = lines.select(path, text, start, F.monotonically_increasing_id().alias("place"))
    return placed.repartition(_PATH).sortWithinPartitions(_PATH, "start", "place").select(_PATH, _TEXT)


@dataclass(frozen=True, slots=True)
class _Task:
    """What an executor does with batches of (path, bytes): a line of a CSV or TSV file each, or a whole file."""

    format: str
    layout: Layout
    plan: RowPlan
    columns: list[str]
    """The columns that are read from the files."""
    names: list[str]
    """The columns of the result."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches of (path, text, line, rows, columns)."""
        for path, parts in groupby(_pairs(batches), key=itemgetter(0)):
            for rows in _batched(self._products(self._rows(path, (part for _, part in parts)))):
                arrays = {
                    _PATH: pa.array([path] * len(rows), pa.string()),
                    _TEXT: pa.array([row.refused for row in rows], pa.string()),
                    _LINE: pa.array([row.line for row in rows], pa.int64()),
                    _ROWS: pa.array([row.rows for row in rows], pa.int64()),
                    **{f"c{n}": pa.array([row.cells[n] for row in rows], pa.string()) for n in range(len(self.names))},
                }
                yield pa.RecordBatch.from_pydict(arrays)

    def column_names(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield (path, name, place) of the columns of each whole file."""
        for path, content in _pairs(batches):
            with _named(path, self.format):
                found = names_of(read_whole(self.format, content, self.layout))
            yield pa.RecordBatch.from_pydict(
                {"path": [path] * len(found), "name": found, "place": list(range(len(found)))},
                schema=pa.schema({"path": pa.string(), "name": pa.string(), "place": pa.int64()}),
            )

    def _rows(self, path: str, parts: Iterable[bytes]) -> Iterator[TextRow]:
        if self.format not in SUFFIXES:
            lines = (line for part in parts for line in physical_lines(decoded(part, self.layout.encoding) + "\n"))
            yield from read_csv(lines, self.layout, self.columns)
            return
        for content in parts:
            with _named(path, self.format):
                yield from text_rows(read_whole(self.format, content, self.layout), self.columns)

    def _products(self, rows: Iterator[TextRow]) -> Iterator[TextRow]:
        """Return the rows of the products with the columns of the result, and the refused rows as they are."""
        rows = map(self._with_decimal_points, rows) if self.layout.decimal == "," else rows
        if not (self.plan.merges or self.plan.has_pairs):
            yield from rows
            return
        refused: list[TextRow] = []

        def accepted() -> Iterator[tuple[int, dict[str, str | None]]]:
            for row in rows:
                if row.refused is None:
                    yield row.line, dict(zip(self.columns, row.cells, strict=True))
                else:
                    refused.append(replace(row, cells=[None] * len(self.names)))

        for product in product_rows(accepted(), self.plan):
            yield TextRow(product.number, [product.cells.get(name) for name in self.names], rows=product.rows)
        yield from refused

    def _with_decimal_points(self, row: TextRow) -> TextRow:
        cells = [
            cell.replace(".", "").replace(",", ".") if cell and _COMMA_NUMBER.fullmatch(cell.strip()) else cell
            for cell in row.cells
        ]
        return replace(row, cells=cells)


@contextmanager
def _named(path: str, file_format: str) -> Iterator[None]:
    """Turn errors of a parser into a DataContractError that names the file."""
    try:
        yield
    except (ValueError, RecursionError, zipfile.BadZipFile) as problem:
        raise DataContractError(f"{unquote(path)} cannot be read as {file_format}: {str(problem)[:300]}") from None


def _pairs(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, bytes]]:
    for batch in batches:
        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def _batched(rows: Iterable[TextRow]) -> Iterator[list[TextRow]]:
    batch: list[TextRow] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.refused or "") + sum(len(cell or "") for cell in row.cells)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
