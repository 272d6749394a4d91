"""Feeds: what merchants send, and what the papers' data sets come as, read into the shape ``raw``.

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

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pandas as pd

from catalog_enrichment import contract
from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest import source_files
from catalog_enrichment.ingest.column_selectors import Selected, select
from catalog_enrichment.ingest.label_files import join_labels, locate_labels
from catalog_enrichment.ingest.source_files import CORRUPT, ROW_NUMBER, SOURCE_URI, Location, locate
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

PAYLOAD_CHARS = 2_000
MISSING = "missing"
"""Version of a local picture that does not exist (yet)."""

_STRINGS = ("string", "char", "varchar")
_WHOLE_NUMBERS = ("tinyint", "smallint", "int", "bigint", "decimal")
_TIMES = ("date", "timestamp", "timestamp_ntz")
_ATOMS = (*_STRINGS, *_WHOLE_NUMBERS, *_TIMES, "boolean", "float", "double")
_TEXTS = dict.fromkeys(("shop_id", "title", "description", "category", "language"), _ATOMS)
_JOINED_BY = {"description": "\n", "category": "/"}
"""Product columns that a list of texts can feed, and what stands between its elements then."""
_USABLE: dict[str, tuple[str, ...]] = {
    **_TEXTS,
    **dict.fromkeys(_JOINED_BY, (*_ATOMS, "array<string>")),
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
    column that is missing or has an unusable type, a labels file that does not belong to the source.
    """
    location = locate(source.path, source.format, base)
    opened = source_files.open_files(spark, source.format, location, source.columns)
    if source.labels:
        opened = join_labels(spark, opened, location, source.labels, base)
    frame, types = opened
    mapped, attributes = _selections(source.mapping, frame, types, location.path)
    given = _given(frame, source, mapped, attributes, _image_folder(source, location, base))
    checked = given.select(
        "*",
        _payload(hide_corrupt=bool(source.mapping.attributes_when)).alias("payload"),
        _parse_error(is_json=source.format in ("jsonl", "json_files", "python_lines")).alias("parse_error"),
    )
    return _with_products_types(_with_images(checked), source.mapping)


def fingerprint(spark: SparkSession, source: SourceConfig, base: Path) -> str:
    """Identity of the input: the Delta version, or every file's name, size and time; with those of its labels."""
    location = locate(source.path, source.format, base)
    labels = [_files(spark, locate_labels(source.labels, base))] if source.labels else []
    if source.format == "delta":
        table = source_files.delta_table(location.path)
        return stable_hash("delta", table.metadata().id, table.version(), *labels)
    return stable_hash(source.format, _files(spark, location), *labels)


def _files(spark: SparkSession, location: Location) -> list[tuple[str, int, float]]:
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(location.path)
    listing = files.select("path", "length", files.modificationTime.cast("double").alias("at")).collect()
    return sorted(tuple(file) for file in listing)


def _image_folder(source: SourceConfig, location: Location, base: Path) -> str:
    """Where relative picture paths start. It need not exist: then every picture of it is missing, row by row."""
    if not source.image_folder:
        return location.folder
    if "://" in source.image_folder:
        return source.image_folder.rstrip("/")
    return str((base / Path(source.image_folder).expanduser()).resolve())


def _selections(
    mapping: MappingConfig, frame: DataFrame, types: dict[str, DataType], path: str
) -> tuple[dict[str, Selected], dict[str, Selected]]:
    """What feeds each product column and each attribute. Raises DataContractError for what is missing or unusable."""

    def usable(name: str, wanted: str, kinds: tuple[str, ...]) -> Selected:
        where = f"source.mapping.{name}: column {wanted!r} of {path}"
        found = select(wanted, frame, types, where)
        if found.type not in kinds:
            raise DataContractError(
                f"{where} has type {found.type}, which cannot feed {name}; usable: {', '.join(kinds)}"
            )
        return found

    named = {name: getattr(mapping, name) for name in _USABLE if getattr(mapping, name)}
    mapped = {name: usable(name, wanted, _USABLE[name]) for name, wanted in named.items()}
    attributes = {
        name: usable(f"attributes.{name}", wanted, _USABLE_ATTRIBUTE) for name, wanted in mapping.attributes.items()
    }
    return mapped, attributes


def _given(
    frame: DataFrame,
    source: SourceConfig,
    mapped: dict[str, Selected],
    attributes: dict[str, Selected],
    image_folder: str,
) -> DataFrame:
    """From the source's columns to the product's, as text still; what the row says where it could be parsed or not."""
    from pyspark.sql import functions as F

    mapping, empty = source.mapping, source.empty_texts

    def text(name: str) -> Column:
        if name not in mapped:
            return F.lit(None).cast("string")
        found = mapped[name]
        value = F.make_valid_utf8(found.joined(_JOINED_BY[name]) if name in _JOINED_BY else found.text())
        return F.when(~value.isin("", *empty), value)

    flag, when = F.lit(True), text("attributes_when")
    if mapping.attributes_when_values:
        when = F.coalesce(when.isin(mapping.attributes_when_values), F.lit(False)).cast("string")
    if mapping.attributes_when:
        flag = when.try_cast("boolean")
    values = {name: found.texts(empty) for name, found in attributes.items()}
    return frame.select(
        *[text(name).alias(name) for name in (*_TEXTS, "opt_out", "updated_at")],
        when.alias("attributes_when"),
        F.nullif(F.trim(text("product_id")), F.lit("")).alias("product_id"),
        (mapped["image_bytes"].column if mapping.image_bytes else F.lit(None).cast("binary")).alias("image_bytes"),
        _uris(mapped.get("image_uris"), empty, image_folder).alias("uris"),
        F.when(flag, _as_map(values)).otherwise(_as_map({})).alias("merchant_attributes"),
        F.col(SOURCE_URI).alias("source_uri"),
        F.col(ROW_NUMBER).alias("row_number"),
        F.make_valid_utf8(F.col(CORRUPT)).alias("corrupt"),
    )


def _uris(found: Selected | None, empty: list[str], folder: str) -> Column:
    """array<string> of absolute paths and URIs."""
    from pyspark.sql import functions as F

    if found is None:
        return F.array().cast("array<string>")
    absolute = r"^(/|[A-Za-z][A-Za-z0-9+.\-]*://)"
    resolved = F.transform(
        found.texts(empty), lambda uri: F.when(uri.rlike(absolute), uri).otherwise(F.concat(F.lit(folder + "/"), uri))
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
