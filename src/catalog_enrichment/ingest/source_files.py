"""Opens a source's files, whatever their format, as one frame with the columns that the files have.

Four more columns say where a row stands: ``_source_uri``, ``_row_number`` (where the format tells), ``_file_stem``, and
``_corrupt_record``, the row's text where it could not be parsed. In the text formats every column is text (a JSON list
stays JSON), so that one odd value cannot break a row or a file; the types beside the frame say what the values are.
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
    from pyspark.sql.types import DataType

    Opened = tuple[DataFrame, dict[str, DataType]]
    """The frame, and the types that the columns come in, by name."""

CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM = "_corrupt_record", "_source_uri", "_row_number", "_file_stem"
_RESERVED = (CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM)
_JSON_READER = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": CORRUPT}


@dataclass(frozen=True, slots=True)
class Location:
    """Where files lie, and the folder that they lie in."""

    path: str
    folder: str

    @property
    def is_file(self) -> bool:
        return self.path != self.folder


def locate(path: str, kind: str, base: Path, option: str = "source.path") -> Location:
    """The absolute place of a config's path. Raises DataContractError, naming ``option``, if nothing is there."""
    if "://" in path and not path.startswith("file://"):
        whole = path.rstrip("/")
        is_file = kind != "delta" and "." in whole.rsplit("/", 1)[1]
        return Location(whole, whole.rsplit("/", 1)[0] if is_file else whole)
    local = (base / Path(path.removeprefix("file://")).expanduser()).resolve()
    if not local.exists():
        raise DataContractError(f"{option}: nothing at {local}. Check {option} and root in the config.")
    if local.is_dir() and not any(f.is_file() and not f.name.startswith((".", "_")) for f in local.rglob("*")):
        raise DataContractError(f"{option}: {local} is an empty folder; expected {kind} files in it.")
    return Location(str(local), str(local if local.is_dir() else local.parent))


def open_files(spark: SparkSession, kind: str, location: Location, columns: Sequence[str] = ()) -> Opened:
    """The files as a frame; ``columns`` names those of CSV and TSV files without a header.

    Raises DataContractError for files that are not what ``kind`` says.
    """
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        if kind == "delta":
            return _open_delta(spark, location.path)
        if kind == "parquet":
            frame = spark.read.parquet(location.path)
            return _numbered(frame), _types(frame)
        if kind in ("csv", "tsv"):
            return _open_csv(spark, "\t" if kind == "tsv" else ",", location, columns)
        if kind == "jsonl":
            return _open_jsonl(spark, location.path)
        return _open_documents(spark, kind, location)
    except (PySparkException, Py4JJavaError) as problem:  # the second for what Spark has no Python class for
        java = getattr(problem, "java_exception", None)
        reason = str(java.getMessage() if java is not None else problem).splitlines()[0]
        raise DataContractError(f"{location.path} cannot be read as {kind}: {reason}") from None


def delta_table(path: str) -> Any:
    """The Delta table at ``path``; raises DataContractError if there is none, or one that cannot be read here."""
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
    """The column of this name, whatever characters are in it."""
    from pyspark.sql import functions as F

    return F.col("`" + name.replace("`", "``") + "`")


def _open_delta(spark: SparkSession, path: str) -> Opened:
    from pyspark.sql.types import StructType

    table = delta_table(path)
    schema = StructType.fromJson(json.loads(table.schema().to_json()))
    files = table.file_uris()
    if not files:
        raise DataContractError(f"the Delta table {path} holds no rows (version {table.version()}).")
    frame = spark.read.schema(schema).option("basePath", path).parquet(*files)
    return _numbered(frame), _types(frame)


def _open_csv(spark: SparkSession, separator: str, location: Location, columns: Sequence[str]) -> Opened:
    """Quoted cells may hold line breaks (RFC 4180); every file is read by one task, from its first line to its last."""
    reader = spark.read.options(**_JSON_READER).options(sep=separator, quote='"', escape='"', multiLine=True)
    reader = reader.options(header=not columns, columnPruning=False)  # a row of the wrong length must show always
    if columns:
        names = list(columns)
    else:
        names = [name for name in reader.csv(location.path).schema.fieldNames() if name != CORRUPT]
        if location.is_file:
            # the names are this file's: nothing to compare; and Spark would not know a nameless column again
            reader = reader.options(enforceSchema=True)
        elif nameless := [name for place, name in enumerate(names) if name == f"_c{place}"]:
            raise DataContractError(
                f"{location.path}: {nameless} have no name in the header. The files of a folder are told apart by "
                "their headers: import such files one by one."
            )
        else:
            reader = reader.options(enforceSchema=False)  # a file with another header must not slip in
    return _with_origin(reader.csv(location.path, schema=_all_text(names)), corrupt=None), _as_text(names)


def _open_jsonl(spark: SparkSession, path: str) -> Opened:
    """JSON lines are read twice, the first time for the types alone."""
    reader = spark.read.options(**_JSON_READER)
    found = reader.option("primitivesAsString", True).json(path)
    types = {name: kind for name, kind in _types(found).items() if name != CORRUPT}
    return _with_origin(reader.json(path, schema=_all_text(list(types))), corrupt=None), types


def _open_documents(spark: SparkSession, kind: str, location: Location) -> Opened:
    """Files, or lines, that are a JSON object each once Spark has their text; like JSON lines they are read twice."""
    from pyspark.sql import functions as F

    if kind == "json_files":
        # pictures lie beside the documents: only what is named so is one
        reader = spark.read if location.is_file else spark.read.option("pathGlobFilter", "*.json")
        frame, parse = reader.text(location.path, wholetext=True), whole_json
    else:
        frame, parse = spark.read.text(location.path).where(F.trim("value") != ""), python_to_json
    documents = frame.select("value", F.udf(parse, "string")("value").alias("document"), "_metadata")
    texts = documents.where(F.col("document").isNotNull()).select("document").rdd.map(lambda row: str(row[0]))
    found = spark.read.options(**_JSON_READER).option("primitivesAsString", True).json(texts)
    types = {name: kind for name, kind in _types(found).items() if name != CORRUPT}
    parsed = F.from_json("document", _all_text(list(types)), _JSON_READER)
    rows = documents.select("value", parsed.alias("row"), "_metadata")
    broken = F.col("row").isNull() | F.col("row")[CORRUPT].isNotNull()
    columns = [F.col("row")[name].alias(name) for name in types]
    opened = _with_origin(rows, F.when(broken, F.col("value")), columns)
    return (_with_empty_files(spark, opened, location) if kind == "json_files" else opened), types


def _with_empty_files(spark: SparkSession, frame: DataFrame, location: Location) -> DataFrame:
    """Adds a row for every file of no bytes, which Spark passes over: a record that was lost must not be lost silently.

    Only a local folder is looked through: a store that is named by a URI cannot be listed without a client of its own.
    """
    names = [] if "://" in location.path or location.is_file else sorted(Path(location.path).glob("*.json"))
    empty = [file for file in names if not file.name.startswith((".", "_")) and not file.stat().st_size]
    if not empty:
        return frame
    known = {CORRUPT: "", ROW_NUMBER: None}
    rows = [known | {SOURCE_URI: file.as_uri(), FILE_STEM: file.stem} for file in empty]
    return frame.unionByName(
        spark.createDataFrame([{name: row.get(name) for name in frame.columns} for row in rows], frame.schema)
    )


def whole_json(text: str) -> str | None:
    """The text of a document, if it is one JSON object and nothing after it, else null (runs on executors)."""
    text = text.removeprefix("\ufeff")
    try:
        return text if isinstance(json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None


def python_to_json(text: str) -> str | None:
    """A Python dict literal as JSON, or null for anything else (runs on executors). Nothing in it is executed."""
    try:
        value = ast.literal_eval(text.strip())
        return json.dumps(value, allow_nan=False) if isinstance(value, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _types(frame: DataFrame) -> dict[str, DataType]:
    return {field.name: field.dataType for field in frame.schema}


def _as_text(names: Sequence[str]) -> dict[str, DataType]:
    from pyspark.sql.types import StringType

    return {name: StringType() for name in names}


def _all_text(names: Sequence[str]) -> Any:
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
    """The columns of the files (all of them, if none are named) and the four that say where a row stands."""
    from pyspark.sql import functions as F

    if columns is None:
        columns = [quoted(name) for name in frame.columns if name != CORRUPT]
        if taken := sorted(set(frame.columns) & set(_RESERVED) - {CORRUPT}):
            raise DataContractError(f"columns of the source may not be called {taken}: these names have a meaning here")
    name = F.try_url_decode(F.replace(F.col("_metadata.file_name"), F.lit("+"), F.lit("%2B")))  # + is no space in paths
    return frame.select(
        *columns,
        (F.col(CORRUPT) if corrupt is None else corrupt.cast("string")).alias(CORRUPT),
        F.col("_metadata.file_path").alias(SOURCE_URI),
        (F.lit(None) if row_number is None else row_number).cast("bigint").alias(ROW_NUMBER),
        F.regexp_replace(name, r"(?<=.)\.[^.]*$", "").alias(FILE_STEM),
    )
