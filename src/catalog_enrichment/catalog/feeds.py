"""Feeds: what merchants send (parquet, CSV, TSV, JSON lines, a Delta table), read into the shape ``raw``.

``raw`` is the products contract before normalisation, one row per input row, plus

- ``source_uri``, ``row_number``: where the row stands (the number only where the format tells);
- ``payload``: the mapped columns as JSON, without pictures, clipped; null where the row could not be parsed and may
  hold values that must not be read (``attributes_when``);
- ``parse_error``: why the row cannot be used, or null.

A bad row is a row with a ``parse_error``, never an exception; a source that lacks a mapped column, or has it in a type
that cannot feed the product column, is a DataContractError. Text is made valid UTF-8 here, so that nothing behind this
module meets a string that it cannot decode.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pandas as pd

from catalog_enrichment import contract
from catalog_enrichment.config import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

PAYLOAD_CHARS = 2_000
MISSING = "missing"
"""Version of a local picture that does not exist (yet)."""

_CORRUPT = "_corrupt_record"
_STRINGS = ("string", "char", "varchar")
_WHOLE_NUMBERS = ("tinyint", "smallint", "int", "bigint", "decimal")
_TIMES = ("date", "timestamp", "timestamp_ntz")
_ATOMS = (*_STRINGS, *_WHOLE_NUMBERS, *_TIMES, "boolean", "float", "double")
_TEXTS = dict.fromkeys(("shop_id", "title", "description", "category", "language"), _ATOMS)
_USABLE = _TEXTS | {
    "product_id": (*_STRINGS, *_WHOLE_NUMBERS),  # a float id would come out as 1.0E7
    "image_bytes": ("binary",),
    "image_uris": (*_STRINGS, "array<string>"),
    "opt_out": (*_STRINGS, "boolean", *_WHOLE_NUMBERS),
    "updated_at": (*_STRINGS, *_TIMES),
    "attributes_when": (*_STRINGS, "boolean", *_WHOLE_NUMBERS),
}
"""Product column -> the Spark types that can feed it."""
_USABLE_ATTRIBUTE = (*_ATOMS, *(f"array<{atom}>" for atom in _ATOMS))


def read_source(spark: SparkSession, source: SourceConfig, base: Path) -> DataFrame:
    """The source's rows in the shape ``raw``; nothing is filtered, deduplicated or normalised.

    Relative paths start at ``base``. Raises DataContractError for a path that is not there, an empty folder, a mapped
    column that is missing or has an unusable type.
    """
    location = _locate(source, base)
    frame, types = _open(spark, source.format, location)
    _check_columns(source.mapping, types, location.path)
    return _shape(frame, source, location)


def fingerprint(spark: SparkSession, source: SourceConfig, base: Path) -> str:
    """Identity of the input: the Delta version, or every file's name, size and time."""
    location = _locate(source, base)
    if source.format == "delta":
        table = _delta_table(location.path)
        return stable_hash("delta", table.metadata().id, table.version())
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(location.path)
    listing = files.select("path", "length", files.modificationTime.cast("double").alias("at")).collect()
    return stable_hash(source.format, sorted(tuple(file) for file in listing))


@dataclass(frozen=True, slots=True)
class _Location:
    """Where the source lies, and the folder that its relative picture paths start at."""

    path: str
    folder: str


def _locate(source: SourceConfig, base: Path) -> _Location:
    if "://" in source.path and not source.path.startswith("file://"):
        whole = source.path.rstrip("/")
        is_file = source.format != "delta" and "." in whole.rsplit("/", 1)[1]
        return _Location(whole, whole.rsplit("/", 1)[0] if is_file else whole)
    path = (base / Path(source.path.removeprefix("file://")).expanduser()).resolve()
    if not path.exists():
        raise DataContractError(f"source.path: nothing at {path}. Check source.path and root in the config.")
    if path.is_dir() and not any(f.is_file() and not f.name.startswith((".", "_")) for f in path.rglob("*")):
        raise DataContractError(f"source.path: {path} is an empty folder; expected {source.format} files in it.")
    return _Location(str(path), str(path if path.is_dir() else path.parent))


def _open(spark: SparkSession, kind: str, location: _Location) -> tuple[DataFrame, dict[str, DataType]]:
    """The source as a frame with ``_corrupt_record`` for text formats, and the types its columns come in."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        if kind == "delta":
            return _open_delta(spark, location.path)
        if kind == "parquet":
            frame = spark.read.parquet(location.path)
            return frame, {field.name: field.dataType for field in frame.schema}
        return _open_text(spark, kind, location.path)
    except (PySparkException, Py4JJavaError) as problem:  # the second for what Spark has no Python class for
        java = getattr(problem, "java_exception", None)
        reason = str(java.getMessage() if java is not None else problem).splitlines()[0]
        raise DataContractError(f"{location.path} cannot be read as {kind}: {reason}") from None


def _delta_table(path: str) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        table = DeltaTable(path)
    except (TableNotFoundError, DeltaError) as problem:
        raise DataContractError(f"{path} is not a readable Delta table: {problem}") from None
    if unread := set(table.protocol().reader_features or ()) & {"deletionVectors", "columnMapping"}:
        raise DataContractError(f"{path} uses {sorted(unread)}, which cannot be read here; export it as parquet.")
    return table


def _open_delta(spark: SparkSession, path: str) -> tuple[DataFrame, dict[str, DataType]]:
    from pyspark.sql.types import StructType

    table = _delta_table(path)
    schema = StructType.fromJson(json.loads(table.schema().to_json()))
    types = {field.name: field.dataType for field in schema}
    files = table.file_uris()
    if not files:
        raise DataContractError(f"the Delta table {path} holds no rows (version {table.version()}).")
    return spark.read.schema(schema).option("basePath", path).parquet(*files), types


def _open_text(spark: SparkSession, kind: str, path: str) -> tuple[DataFrame, dict[str, DataType]]:
    """CSV, TSV, JSON lines: every column as text, so that one odd value cannot break a row or a file.

    JSON is read twice, the first time for the types alone. Quoted CSV cells may hold line breaks (RFC 4180).
    """
    from pyspark.sql.types import StringType, StructField, StructType

    reader = spark.read.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", _CORRUPT)
    if kind == "jsonl":
        found = reader.option("primitivesAsString", True).json(path).schema
        load = reader.json
    else:
        separator = "\t" if kind == "tsv" else ","
        reader = reader.options(header=True, sep=separator, quote='"', escape='"', multiLine=True)
        # a row of the wrong length shows only if the whole row is parsed; a file with another header must not slip in
        reader = reader.options(columnPruning=False, enforceSchema=False)
        found = reader.csv(path).schema
        load = reader.csv
    types = {field.name: field.dataType for field in found if field.name != _CORRUPT}
    schema = StructType([StructField(name, StringType()) for name in (*types, _CORRUPT)])
    return load(path, schema=schema), types


def _mapped(mapping: MappingConfig) -> dict[str, str]:
    """Product column -> source column, for every column that the mapping names (attributes apart)."""
    names = [f.name for f in fields(mapping) if f.name != "attributes" and not f.name.startswith("default_")]
    return {name: getattr(mapping, name) for name in names if getattr(mapping, name)}


def _check_columns(mapping: MappingConfig, types: dict[str, DataType], path: str) -> None:
    wanted = [(name, column, _USABLE[name]) for name, column in _mapped(mapping).items()]
    wanted += [(f"attributes.{name}", column, _USABLE_ATTRIBUTE) for name, column in mapping.attributes.items()]
    for name, column, usable in wanted:
        where = f"source.mapping.{name}: column {column!r} of {path}"
        if column not in types:
            raise DataContractError(f"{where} does not exist. Available columns: {sorted(types)}")
        given = types[column].simpleString()
        if re.sub(r"\(.*?\)", "", given) not in usable:  # without the digits of decimal(10,0), the length of char(8)
            raise DataContractError(f"{where} has type {given}, which cannot feed {name}; usable: {', '.join(usable)}")


def _shape(frame: DataFrame, source: SourceConfig, location: _Location) -> DataFrame:
    """From the source's columns to the shape ``raw``."""
    from pyspark.sql import functions as F

    mapping, mapped = source.mapping, _mapped(source.mapping)
    is_text = _CORRUPT in frame.columns
    numbered = source.format in ("parquet", "delta")

    def text(name: str) -> Column:
        column = F.make_valid_utf8(_column(mapped[name]).cast("string")) if name in mapped else F.lit(None)
        return F.nullif(column.cast("string"), F.lit(""))

    flag = text("attributes_when").try_cast("boolean") if mapping.attributes_when else F.lit(True)
    attributes = {name: _texts(frame, column) for name, column in mapping.attributes.items()}
    given = frame.select(
        *[text(name).alias(name) for name in (*_TEXTS, "opt_out", "updated_at", "attributes_when")],
        F.nullif(F.trim(text("product_id")), F.lit("")).alias("product_id"),
        (_column(mapping.image_bytes) if mapping.image_bytes else F.lit(None).cast("binary")).alias("image_bytes"),
        _uris(frame, mapping.image_uris, location.folder).alias("uris"),
        F.when(flag, _as_map(attributes)).otherwise(_as_map({})).alias("merchant_attributes"),
        F.col("_metadata.file_path").alias("source_uri"),
        (F.col("_metadata.row_index") if numbered else F.lit(None)).cast("bigint").alias("row_number"),
        (F.make_valid_utf8(F.col(_CORRUPT)) if is_text else F.lit(None).cast("string")).alias("corrupt"),
    )
    checked = given.select(
        "*",
        _payload(hide_corrupt=bool(mapping.attributes_when)).alias("payload"),
        _parse_error(is_json=source.format == "jsonl").alias("parse_error"),
    )
    return _with_products_types(_with_images(checked), mapping)


def _column(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.col("`" + name.replace("`", "``") + "`")


def _texts(frame: DataFrame, name: str) -> Column:
    """A column of strings or arrays as array<string> without blanks. Text may spell an array as JSON: ["a", "b"]."""
    from pyspark.sql import functions as F

    column = _column(name)
    if frame.schema[name].dataType.typeName() == "array":
        values = column.cast("array<string>")
    else:
        one = column.cast("string")
        spelled = F.when(one.startswith("["), F.from_json(one, "array<string>", {"mode": "PERMISSIVE"}))
        values = F.coalesce(spelled, F.array(one))
    values = F.transform(values, lambda value: F.trim(F.make_valid_utf8(value)))
    return F.array_distinct(F.filter(values, lambda value: value.isNotNull() & (value != "")))


def _uris(frame: DataFrame, name: str, folder: str) -> Column:
    """array<string> of absolute paths and URIs."""
    from pyspark.sql import functions as F

    if not name:
        return F.array().cast("array<string>")
    absolute = r"^(/|[A-Za-z][A-Za-z0-9+.\-]*://)"
    resolved = F.transform(
        _texts(frame, name), lambda uri: F.when(uri.rlike(absolute), uri).otherwise(F.concat(F.lit(folder + "/"), uri))
    )
    return F.coalesce(resolved, F.array().cast("array<string>"))


def _as_map(attributes: dict[str, Column]) -> Column:
    """map<attribute, values> of the attributes that have values."""
    from pyspark.sql import functions as F

    if not attributes:
        return F.create_map().cast("map<string, array<string>>")
    pairs = [part for name, values in attributes.items() for part in (F.lit(name), values)]
    return F.map_filter(F.create_map(*pairs), lambda _, values: F.size(values) > 0)


def _payload(hide_corrupt: bool) -> Column:
    """The row for people. An unparsed row may hold attributes that must not be read: then it is only pointed at."""
    from pyspark.sql import functions as F

    names = ["product_id", *_TEXTS, "opt_out", "updated_at"]
    clipped = [F.left(F.col(name), F.lit(PAYLOAD_CHARS)).alias(name) for name in names]
    whole = F.to_json(F.struct(*clipped, "uris", "merchant_attributes"))
    unparsed = F.lit(None) if hide_corrupt else F.col("corrupt")
    payload = F.when(F.col("corrupt").isNotNull(), unparsed).otherwise(whole)
    return F.left(payload, F.lit(PAYLOAD_CHARS))


def _parse_error(is_json: bool) -> Column:
    """What is wrong with the row as such: it is malformed, or a value has another type than its column."""
    from pyspark.sql import functions as F

    def excerpt(name: str) -> Column:
        return F.left(F.col(name), F.lit(80))

    malformed = "malformed row: cut off, broken quoting, or a wrong number of columns"
    error = F.when(F.col("corrupt").isNotNull(), malformed)
    casts = {"opt_out": "boolean", "updated_at": "timestamp", "attributes_when": "boolean"}
    for name, kind in casts.items():
        lost = F.col(name).isNotNull() & F.col(name).try_cast(kind).isNull()
        error = error.when(lost, F.concat(F.lit(f"{name} is no {kind}: "), excerpt(name)))
    if is_json:  # an object or array where text belongs arrives as its own JSON
        for name in ("product_id", *_TEXTS):
            nested = F.col(name).rlike(r'^(\{"|\["|\[\{)') & F.try_parse_json(F.col(name)).isNotNull()
            error = error.when(nested, F.concat(F.lit(f"{name} is no text: "), excerpt(name)))
    return error


def _with_images(frame: DataFrame) -> DataFrame:
    """Adds ``images``: the carried picture first, then one struct per URI."""
    from pyspark.sql import functions as F

    versioned = frame.withColumn("uri_versions", F.pandas_udf(uri_versions, "array<string>")("uris"))
    kind = "array<struct<bytes: binary, uri: string, version: string>>"
    image = F.struct(
        F.col("image_bytes").alias("bytes"),
        F.lit(None).cast("string").alias("uri"),
        F.sha2("image_bytes", 256).alias("version"),
    )
    carried = F.when(F.col("image_bytes").isNotNull(), F.array(image).cast(kind)).otherwise(F.array().cast(kind))
    fetched = F.zip_with(
        "uris",
        "uri_versions",
        lambda uri, version: F.struct(
            F.lit(None).cast("binary").alias("bytes"), uri.alias("uri"), version.alias("version")
        ),
    ).cast(kind)
    return versioned.withColumn("images", F.concat(carried, fetched))


def uri_versions(uris: pd.Series) -> pd.Series:
    """Version of each picture (runs on executors): a local file's size and time, or a remote URI itself."""
    return uris.map(lambda row: [uri_version(uri) for uri in row])


def uri_version(uri: str) -> str:
    """Changes when the picture behind ``uri`` changes, as far as can be told without fetching it."""
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme not in ("", "file"):
        return uri
    path = unquote(urlsplit(uri).path) if scheme else uri
    try:
        found = os.stat(path)  # noqa: PTH116  os.stat takes what Path would choke on
    except (OSError, ValueError):  # not there, not allowed, too long, a NUL inside
        return MISSING
    return f"{found.st_size}-{found.st_mtime_ns}"


def _with_products_types(frame: DataFrame, mapping: MappingConfig) -> DataFrame:
    """The columns of the products contract in its types, and those that only ``raw`` has."""
    from pyspark.sql import functions as F

    hashed = F.struct(
        F.coalesce("title", F.lit("")).alias("title"),
        F.coalesce("description", F.lit("")).alias("description"),
        F.transform("images", lambda image: image["version"]).alias("images"),
    )
    columns = {
        "shop_id": F.coalesce("shop_id", F.lit(mapping.default_shop)),
        "language": F.coalesce("language", F.lit(mapping.default_language)),
        "opt_out": F.coalesce(F.col("opt_out").try_cast("boolean"), F.lit(False)),
        "updated_at": F.col("updated_at").try_cast("timestamp"),
        "content_hash": F.sha2(F.to_json(hashed), 256),  # JSON keeps the parts apart: no two contents, one text
    }
    schema = contract.spark_schema("products")
    typed = [columns.get(f.name, F.col(f.name)).cast(f.dataType).alias(f.name) for f in schema]
    return frame.select(*typed, "source_uri", "row_number", "payload", "parse_error")
