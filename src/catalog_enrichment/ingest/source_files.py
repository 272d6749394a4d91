"""Opens a source's files in any of the formats as one frame with the columns of the files.

Four columns are added: ``_source_uri``, ``_row_number`` (null where the format does not number rows), ``_file_stem``
and ``_corrupt_record``, the text of a row that could not be parsed. In the text formats every column is read as text (a
JSON list stays JSON), so that one value of another type cannot break a row or a file; ``SourceFrame.types`` has the
types of the values.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import DataContractError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType

CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM = "_corrupt_record", "_source_uri", "_row_number", "_file_stem"
_RESERVED = (CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM)
_READER_OPTIONS = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": CORRUPT}


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A file or folder of the source."""

    path: str
    """Absolute path or URI."""
    folder: str
    """``path`` if it is a folder, else the folder of the file."""

    @property
    def is_file(self) -> bool:
        return self.path != self.folder


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """Rows of a source with the columns described above."""

    frame: DataFrame
    types: dict[str, DataType]
    """Column name -> type of its values, where ``frame`` holds text. Without the four added columns."""


def locate_files(path: str, file_format: str, base: Path, option: str = "source.path") -> FileLocation:
    """The absolute location of a config's path. Raises DataContractError, naming ``option``, if nothing is there."""
    if "://" in path and not path.startswith("file://"):
        uri = path.rstrip("/")
        is_file = file_format != "delta" and "." in uri.rsplit("/", 1)[1]
        return FileLocation(uri, uri.rsplit("/", 1)[0] if is_file else uri)
    local = (base / Path(path.removeprefix("file://")).expanduser()).resolve()
    if not local.exists():
        raise DataContractError(f"{option}: nothing at {local}. Check {option} and root in the config.")
    if local.is_dir() and not any(f.is_file() and not f.name.startswith((".", "_")) for f in local.rglob("*")):
        raise DataContractError(f"{option}: {local} is an empty folder; expected {file_format} files in it.")
    return FileLocation(str(local), str(local if local.is_dir() else local.parent))


def open_files(
    spark: SparkSession, file_format: str, location: FileLocation, columns: Sequence[str] = ()
) -> SourceFrame:
    """The files as a frame; ``columns`` names the columns of CSV and TSV files without a header.

    Raises DataContractError for files that are not of ``file_format``.
    """
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        if file_format == "delta":
            return _open_delta(spark, location.path)
        if file_format == "parquet":
            frame = spark.read.parquet(location.path)
            return SourceFrame(_numbered(frame), _types(frame))
        if file_format in ("csv", "tsv"):
            return _open_csv(spark, "\t" if file_format == "tsv" else ",", location, columns)
        if file_format == "jsonl":
            return _open_jsonl(spark, location.path)
        return _open_documents(spark, file_format, location)
    except (PySparkException, Py4JJavaError) as problem:  # Py4JJavaError: Java errors without a PySpark class
        java = getattr(problem, "java_exception", None)
        reason = str(java.getMessage() if java is not None else problem).splitlines()[0]
        raise DataContractError(f"{location.path} cannot be read as {file_format}: {reason}") from None


def delta_table(path: str) -> Any:
    """The Delta table at ``path``. Raises DataContractError if there is none or it uses unsupported features."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        table = DeltaTable(path)
    except (TableNotFoundError, DeltaError) as problem:
        raise DataContractError(f"{path} is not a readable Delta table: {problem}") from None
    if unread := set(table.protocol().reader_features or ()) & {"deletionVectors", "columnMapping"}:
        raise DataContractError(f"{path} uses {sorted(unread)}, which cannot be read here; export it as parquet.")
    return table


def quoted(name: str) -> Column:
    """The column of this name, which may hold dots and other special characters."""
    from pyspark.sql import functions as F

    return F.col("`" + name.replace("`", "``") + "`")


def _open_delta(spark: SparkSession, path: str) -> SourceFrame:
    from pyspark.sql.types import StructType

    table = delta_table(path)
    schema = StructType.fromJson(json.loads(table.schema().to_json()))
    files = table.file_uris()
    if not files:
        raise DataContractError(f"the Delta table {path} holds no rows (version {table.version()}).")
    frame = spark.read.schema(schema).option("basePath", path).parquet(*files)
    return SourceFrame(_numbered(frame), _types(frame))


def _open_csv(spark: SparkSession, separator: str, location: FileLocation, columns: Sequence[str]) -> SourceFrame:
    """Quoted cells may hold line breaks (RFC 4180), so one task reads a whole file."""
    from pyspark.sql.types import StringType

    reader = spark.read.options(**_READER_OPTIONS).options(sep=separator, quote='"', escape='"', multiLine=True)
    reader = reader.options(header=not columns, columnPruning=False)  # else a row of the wrong length goes unnoticed
    if columns:
        names = list(columns)
    else:
        names = [name for name in reader.csv(location.path).schema.fieldNames() if name != CORRUPT]
        if location.is_file:
            # the names come from this file's header, so there is nothing to compare; with a comparison Spark would
            # refuse a column without a name
            reader = reader.options(enforceSchema=True)
        elif unnamed := [name for index, name in enumerate(names) if name == f"_c{index}"]:
            raise DataContractError(
                f"{location.path}: {unnamed} have no name in the header. In a folder, the files' headers must "
                "agree: import such files one by one."
            )
        else:
            reader = reader.options(enforceSchema=False)  # Spark compares the headers of the files with the schema
    frame = _with_origin(reader.csv(location.path, schema=_text_schema(names)), corrupt=None)
    return SourceFrame(frame, dict.fromkeys(names, StringType()))


def _open_jsonl(spark: SparkSession, path: str) -> SourceFrame:
    """JSON lines are read twice, the first time for the types alone."""
    reader = spark.read.options(**_READER_OPTIONS)
    types = _types(reader.option("primitivesAsString", True).json(path))
    return SourceFrame(_with_origin(reader.json(path, schema=_text_schema(list(types))), corrupt=None), types)


def _open_documents(spark: SparkSession, file_format: str, location: FileLocation) -> SourceFrame:
    """Files or lines of one document each, which is converted to a JSON object. Read twice, as JSON lines are."""
    from pyspark.sql import functions as F

    if file_format == "json_files":
        # the folder may hold pictures too
        reader = spark.read if location.is_file else spark.read.option("pathGlobFilter", "*.json")
        frame, to_json = reader.text(location.path, wholetext=True), whole_json
    else:
        frame, to_json = spark.read.text(location.path).where(F.trim("value") != ""), python_to_json
    documents = frame.select("value", F.udf(to_json, "string", useArrow=False)("value").alias("document"), "_metadata")
    texts = documents.where(F.col("document").isNotNull()).select("document").rdd.map(lambda row: str(row[0]))
    types = _types(spark.read.options(**_READER_OPTIONS).option("primitivesAsString", True).json(texts))
    parsed = F.from_json("document", _text_schema(list(types)), _READER_OPTIONS)
    rows = documents.select("value", parsed.alias("row"), "_metadata")
    broken = F.col("row").isNull() | F.col("row")[CORRUPT].isNotNull()
    columns = [F.col("row")[name].alias(name) for name in types]
    frame = _with_origin(rows, F.when(broken, F.col("value")), columns)
    return SourceFrame(_with_empty_files(spark, frame, location) if file_format == "json_files" else frame, types)


def _with_empty_files(spark: SparkSession, frame: DataFrame, location: FileLocation) -> DataFrame:
    """Adds a corrupt row for every empty file of a local folder, because Spark's reader skips empty files.

    Folders given by a URI are not searched: that needs a client of the store.
    """
    files = [] if "://" in location.path or location.is_file else sorted(Path(location.path).glob("*.json"))
    empty = [file for file in files if not file.name.startswith((".", "_")) and not file.stat().st_size]
    if not empty:
        return frame
    rows = [{CORRUPT: "", SOURCE_URI: file.as_uri(), FILE_STEM: file.stem} for file in empty]
    return frame.unionByName(
        spark.createDataFrame([{name: row.get(name) for name in frame.columns} for row in rows], frame.schema)
    )


def whole_json(text: str) -> str | None:
    """``text`` without a byte order mark if it is exactly one JSON object, else None (runs on executors)."""
    text = text.removeprefix("\ufeff")
    try:
        return text if isinstance(json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None


def python_to_json(text: str) -> str | None:
    """A Python dict literal as JSON, None for any other text (runs on executors). The text is not executed."""
    try:
        value = ast.literal_eval(text.strip())
        return json.dumps(value, allow_nan=False) if isinstance(value, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _types(frame: DataFrame) -> dict[str, DataType]:
    return {field.name: field.dataType for field in frame.schema if field.name != CORRUPT}


def _text_schema(names: Sequence[str]) -> StructType:
    """Text columns of these names, and the one for corrupt records."""
    from pyspark.sql.types import StringType, StructField, StructType

    return StructType([StructField(name, StringType()) for name in (*names, CORRUPT)])


def _numbered(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    return _with_origin(frame, F.lit(None), row_number=F.col("_metadata.row_index"))


def _with_origin(
    frame: DataFrame,
    corrupt: Column | None,
    columns: Sequence[Column] | None = None,
    row_number: Column | None = None,
) -> DataFrame:
    """``columns`` (by default all of ``frame``) and the four added columns."""
    from pyspark.sql import functions as F

    if columns is None:
        columns = [quoted(name) for name in frame.columns if name != CORRUPT]
        if reserved := sorted(set(frame.columns) & set(_RESERVED) - {CORRUPT}):
            raise DataContractError(f"columns of the source may not be called {reserved}: these names are reserved")
    # file_name is URL-encoded except for +, which try_url_decode would turn into a space
    name = F.try_url_decode(F.replace(F.col("_metadata.file_name"), F.lit("+"), F.lit("%2B")))
    return frame.select(
        *columns,
        (F.col(CORRUPT) if corrupt is None else corrupt.cast("string")).alias(CORRUPT),
        F.col("_metadata.file_path").alias(SOURCE_URI),
        (F.lit(None) if row_number is None else row_number).cast("bigint").alias(ROW_NUMBER),
        F.regexp_replace(name, r"(?<=.)\.[^.]*$", "").alias(FILE_STEM),
    )
