"""Reads merchants' feeds and the papers' data sets, in every source format, into a frame of shape ``raw``.

``raw`` has the columns of the products contract before normalisation, one row per input row, and

- ``source_uri``, ``row_number``: the row's file and its number there (null where the format does not number rows);
- ``payload``: the mapped columns as JSON, without pictures, cut to PAYLOAD_CHARS; null for a row that could not be
  parsed and may hold values that must not be read (``attributes_when``);
- ``parse_error``: why the row cannot be used, or null.

A bad row gets a ``parse_error`` and raises nothing. A mapped column that is missing, or has a type that the product
column cannot take, raises DataContractError. All text is made valid UTF-8 here, so that every later reader can decode
it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from catalog_enrichment import contract
from catalog_enrichment.config.fetch import FetchConfig
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest import kept_pictures, source_files
from catalog_enrichment.ingest.column_selectors import SelectedColumn, named_columns, select
from catalog_enrichment.ingest.kept_pictures import IMAGES_TYPE
from catalog_enrichment.ingest.label_files import join_labels, labels_location
from catalog_enrichment.ingest.source_feed import RemoteFeed
from catalog_enrichment.ingest.source_files import locate_files
from catalog_enrichment.ingest.source_frame import CORRUPT, ROW_NUMBER, SOURCE_URI, FileLocation, SourceFrame
from catalog_enrichment.inputs.images import TOO_LARGE
from catalog_enrichment.inputs.picture_sources import picture_sources
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

PAYLOAD_CHARS = 2_000
_JSON = ("jsonl", "json_files", "python_lines", "http_api")
_STRINGS = ("string", "char", "varchar")
_WHOLE_NUMBERS = ("tinyint", "smallint", "int", "bigint", "decimal")
_TIMES = ("date", "timestamp", "timestamp_ntz")
_ATOMS = (*_STRINGS, *_WHOLE_NUMBERS, *_TIMES, "boolean", "float", "double")
_TEXTS = dict.fromkeys(("shop_id", "title", "description", "category", "language"), _ATOMS)
_JOINED_BY = {"description": "\n", "category": "/"}
"""Product columns that take a list of texts -> separator that joins its elements."""
_KNOWN_TIMES = "0001-01-02 00:00:00 UTC", "9999-12-30 23:59:59.999999 UTC"
"""The first and the last day are what programs write for an unknown time, and Python has none before or after them."""
_COLUMN_TYPES: dict[str, tuple[str, ...]] = {
    **_TEXTS,
    **dict.fromkeys(_JOINED_BY, (*_ATOMS, "array<string>")),
    "product_id": (*_STRINGS, *_WHOLE_NUMBERS),  # a float id would come out as 1.0E7
    "image_bytes": ("binary",),
    "image_uris": (*_STRINGS, "array<string>"),
    "opt_out": (*_STRINGS, "boolean", *_WHOLE_NUMBERS),
    "updated_at": (*_STRINGS, *_TIMES),
    "attributes_when": (*_STRINGS, "boolean", *_WHOLE_NUMBERS),
}
"""Product column -> Spark types that it can be read from."""
_ATTRIBUTE_TYPES = (*_ATOMS, *(f"array<{atom}>" for atom in _ATOMS))


def read_source(
    spark: SparkSession,
    source: SourceConfig,
    base: Path,
    images: ImagesConfig | None = None,
    remote: RemoteFeed | None = None,
) -> DataFrame:
    """The source's rows in the shape ``raw``; nothing is filtered, deduplicated or normalised.

    Relative paths start at ``base``. ``images``: says which local pictures may be looked at for their versions; by
    default those in the source's own folders. ``remote``: the source, if it is a database or an API.

    Raises DataContractError for a path that does not exist, an empty folder, a mapped column that is missing or has an
    unusable type, and a labels file that does not belong to the source.
    """
    wanted = _named_columns(source)
    if remote is None:
        location = locate_files(source.path, source.format, base)
        opened = source_files.open_files(spark, source.format, location, source.columns, wanted)
    else:
        location = remote.location
        opened = remote.open(source_files.usable_names(wanted))
    if source.labels:
        opened = join_labels(opened, location, source.labels, base, wanted)
    columns, attributes = _select_columns(source.mapping, opened, location.path)
    mapped = _map_columns(opened.frame, source, columns, attributes, _image_folder(source, location, base))
    if images is None:
        images = ImagesConfig(fetch=FetchConfig(allowed_folders=source.picture_folders(base)))
    checked = _without_large_pictures(mapped, images.max_bytes).select(
        "*",
        _payload(hide_corrupt=bool(source.mapping.attributes_when)).alias("payload"),
        _parse_error(is_json=source.format in _JSON).alias("parse_error"),
    )
    return _with_products_types(_with_images(checked, images), source.mapping)


def fingerprint(
    spark: SparkSession,
    source: SourceConfig,
    base: Path,
    remote: RemoteFeed | None = None,
    imported: str | None = None,
) -> str:
    """Hash of the Delta version or of every file's name, size and time, and of the same for the labels file.

    ``remote``: the source, if it is a database or an API; ``imported``: the hash of the last import.
    """
    if remote is not None:
        labels_files = [_files(spark, labels_location(source.labels, base))] if source.labels else []
        # the remote part alone is compared with that of the last import
        return ":".join([remote.fingerprint((imported or "").partition(":")[0]), *map(stable_hash, labels_files)])
    location = locate_files(source.path, source.format, base)
    with source_files.refused_if_unreadable(location, source.format):
        labels = [_files(spark, labels_location(source.labels, base))] if source.labels else []
        if source.format == "delta":
            table = source_files.delta_table(location.path)
            return stable_hash("delta", table.metadata().id, table.version(), *labels)
        return stable_hash(source.format, _files(spark, location), *labels)


def _files(spark: SparkSession, location: FileLocation) -> list[tuple[str, int, float]]:
    """(path, bytes, modification time in seconds) of every file, sorted."""
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(location.path)
    listing = files.select("path", "length", files.modificationTime.cast("double").alias("at")).collect()
    return sorted(tuple(file) for file in listing)


def _image_folder(source: SourceConfig, location: FileLocation, base: Path) -> str:
    """The folder that relative picture paths start at. If it does not exist, all its pictures count as missing."""
    if not source.image_folder:
        return location.folder
    if "://" in source.image_folder:
        return source.image_folder.rstrip("/")
    return str((base / Path(source.image_folder).expanduser()).resolve())


def _selectors(mapping: MappingConfig) -> dict[str, str]:
    """Product column -> selector, for the columns that the source has."""
    return {name: getattr(mapping, name) for name in _COLUMN_TYPES if getattr(mapping, name)}


def _named_columns(source: SourceConfig) -> set[str]:
    """The columns to read: those that the mapping can name, and the key of the labels."""
    selectors = [*_selectors(source.mapping).values(), *source.mapping.attributes.values()]
    key = {source.labels.key} if source.labels and source.labels.key else set()
    return key.union(*(named_columns(selector) for selector in selectors))


def _select_columns(
    mapping: MappingConfig, source: SourceFrame, path: str
) -> tuple[dict[str, SelectedColumn], dict[str, SelectedColumn]]:
    """The source's column for each mapped product column, and for each attribute.

    Raises DataContractError for a column that is missing or has an unusable type.
    """

    def checked(name: str, selector: str, usable_types: tuple[str, ...]) -> SelectedColumn:
        where = f"source.mapping.{name}: column {selector!r} of {path}"
        selected = select(selector, source, where)
        if selected.type not in usable_types:
            raise DataContractError(
                f"{where} has type {selected.type}, which cannot feed {name}; usable: {', '.join(usable_types)}"
            )
        return selected

    selectors = _selectors(mapping)
    columns = {name: checked(name, selector, _COLUMN_TYPES[name]) for name, selector in selectors.items()}
    attributes = {
        name: checked(f"attributes.{name}", selector, _ATTRIBUTE_TYPES) for name, selector in mapping.attributes.items()
    }
    return columns, attributes


def _map_columns(
    frame: DataFrame,
    source: SourceConfig,
    selected: dict[str, SelectedColumn],
    attributes: dict[str, SelectedColumn],
    image_folder: str,
) -> DataFrame:
    """The product's columns, scalars still as text; ``corrupt`` is the text of a row that could not be parsed."""
    from pyspark.sql import functions as F

    mapping, empty = source.mapping, source.empty_texts

    def text(name: str) -> Column:
        if name not in selected:
            return F.lit(None).cast("string")
        column = selected[name]
        value = F.make_valid_utf8(column.joined(_JOINED_BY[name]) if name in _JOINED_BY else column.text())
        return F.when(~value.isin("", *empty), value)

    flag, when = F.lit(True), text("attributes_when")
    if mapping.attributes_when_values:
        when = F.coalesce(when.isin(mapping.attributes_when_values), F.lit(False)).cast("string")
    if mapping.attributes_when:
        flag = when.try_cast("boolean")
    values = {name: column.texts(empty) for name, column in attributes.items()}
    return frame.select(
        *[text(name).alias(name) for name in (*_TEXTS, "opt_out", "updated_at")],
        when.alias("attributes_when"),
        F.nullif(F.trim(text("product_id")), F.lit("")).alias("product_id"),
        (selected["image_bytes"].column if mapping.image_bytes else F.lit(None).cast("binary")).alias("image_bytes"),
        _absolute_uris(selected.get("image_uris"), empty, image_folder).alias("uris"),
        F.when(flag, _attribute_map(values)).otherwise(_attribute_map({})).alias("merchant_attributes"),
        F.col(SOURCE_URI).alias("source_uri"),
        F.col(ROW_NUMBER).alias("row_number"),
        F.make_valid_utf8(F.col(CORRUPT)).alias("corrupt"),
    )


def _without_large_pictures(frame: DataFrame, max_bytes: int) -> DataFrame:
    """Adds ``image_version``, and takes away the bytes of pictures with more than ``max_bytes``: no model reads them,
    and a single one can need more memory than Spark has."""
    from pyspark.sql import functions as F

    size = F.octet_length("image_bytes")
    too_large = F.concat(F.lit(TOO_LARGE), size)
    version = F.when(size > max_bytes, too_large).otherwise(F.sha2("image_bytes", 256))
    return frame.withColumns({"image_version": version, "image_bytes": F.when(size <= max_bytes, F.col("image_bytes"))})


def _absolute_uris(selected: SelectedColumn | None, empty: list[str], folder: str) -> Column:
    """array<string> of absolute paths and URIs; relative paths start at ``folder``."""
    from pyspark.sql import functions as F

    if selected is None:
        return F.array().cast("array<string>")
    absolute = r"^(/|[A-Za-z][A-Za-z0-9+.\-]*://)"
    resolved = F.transform(
        selected.texts(empty),
        lambda uri: F.when(uri.rlike(absolute), uri).otherwise(F.concat(F.lit(folder + "/"), uri)),
    )
    return F.coalesce(resolved, F.array().cast("array<string>"))


def _attribute_map(attributes: dict[str, Column]) -> Column:
    """map<string, array<string>>: attribute -> values, without the attributes that have no values."""
    from pyspark.sql import functions as F

    if not attributes:
        return F.create_map().cast("map<string, array<string>>")
    pairs = [part for name, values in attributes.items() for part in (F.lit(name), values)]
    return F.map_filter(F.create_map(*pairs), lambda _, values: F.size(values) > 0)


def _payload(hide_corrupt: bool) -> Column:
    """The row as JSON, cut to PAYLOAD_CHARS. Of a corrupt row its text, or null if ``hide_corrupt``."""
    from pyspark.sql import functions as F

    names = ["product_id", *_TEXTS, "opt_out", "updated_at"]
    clipped = [F.left(F.col(name), F.lit(PAYLOAD_CHARS)).alias(name) for name in names]
    parsed = F.to_json(F.struct(*clipped, "uris", "merchant_attributes"))
    corrupt = F.lit(None) if hide_corrupt else F.col("corrupt")
    payload = F.when(F.col("corrupt").isNotNull(), corrupt).otherwise(parsed)
    return F.left(payload, F.lit(PAYLOAD_CHARS))


def _parse_error(is_json: bool) -> Column:
    """Why the row cannot be used: it is malformed, or a value does not have its column's type. Null for a good row."""
    from pyspark.sql import functions as F

    def excerpt(name: str) -> Column:
        return F.left(F.col(name), F.lit(80))

    malformed = "malformed row: cut off, broken quoting, or a wrong number of columns"
    error = F.when(F.col("corrupt").isNotNull(), malformed)
    years = F.year(F.col("updated_at").try_cast("timestamp"))  # null where it is no timestamp
    casts = {"opt_out": "boolean", "updated_at": "timestamp", "attributes_when": "boolean"}
    for name, data_type in casts.items():
        invalid = F.col(name).isNotNull() & F.col(name).try_cast(data_type).isNull()
        error = error.when(invalid, F.concat(F.lit(f"{name} is no {data_type}: "), excerpt(name)))
    error = error.when(
        ~years.between(1, 9999), F.concat(F.lit("updated_at is not in the years 1 to 9999: "), excerpt("updated_at"))
    )
    if is_json:  # the reader returns an object or array in a text column as JSON
        for name in ("product_id", *_TEXTS):
            nested = F.col(name).rlike(r'^(\{"|\["|\[\{)') & F.try_parse_json(F.col(name)).isNotNull()
            error = error.when(nested, F.concat(F.lit(f"{name} is no text: "), excerpt(name)))
    return error


def _with_images(frame: DataFrame, images: ImagesConfig) -> DataFrame:
    """Adds ``images``: the picture in ``image_bytes`` first, then one struct per URI.

    Where the catalog keeps pictures (`images.store`), the bytes go there, and the struct has the version alone.
    """
    from pyspark.sql import functions as F

    def versions(uris: pd.Series) -> pd.Series:
        return uri_versions(uris, images)

    # of a URI on the web the version is the URI: only rows with others pass through Python
    others = F.when(F.exists("uris", lambda uri: ~uri.rlike("^https?://")), F.col("uris"))
    looked_up = F.coalesce(F.pandas_udf(versions, "array<string>")(others), "uris")
    versioned = frame.withColumn("uri_versions", looked_up)
    data, version = F.col("image_bytes"), F.col("image_version")
    if images.store:
        version = kept_pictures.version_of_kept(version, data, StoredPictures.of(images))
        data = F.lit(None).cast("binary")
    image = F.struct(data.alias("bytes"), F.lit(None).cast("string").alias("uri"), version.alias("version"))
    with_bytes = F.when(F.col("image_version").isNotNull(), F.array(image)).otherwise(F.array()).cast(IMAGES_TYPE)
    with_uris = F.zip_with(
        "uris",
        "uri_versions",
        lambda uri, version: F.struct(
            F.lit(None).cast("binary").alias("bytes"), uri.alias("uri"), version.alias("version")
        ),
    ).cast(IMAGES_TYPE)
    return versioned.withColumn("images", F.concat(with_bytes, with_uris))


def uri_versions(uris: pd.Series, images: ImagesConfig) -> pd.Series:
    """The version of every URI in every row's list (runs on executors): :meth:`PictureSources.version`."""
    sources, realpath = picture_sources(images), cache(os.path.realpath)
    return uris.map(lambda row: [sources.version(uri, realpath) for uri in row], na_action="ignore")


def _with_products_types(frame: DataFrame, mapping: MappingConfig) -> DataFrame:
    """The columns of the products contract in their types, and the four that only ``raw`` has."""
    from pyspark.sql import functions as F

    time = F.col("updated_at").try_cast("timestamp")
    hashed = F.struct(
        F.coalesce("title", F.lit("")).alias("title"),
        F.coalesce("description", F.lit("")).alias("description"),
        F.transform("images", lambda image: image["version"]).alias("images"),
    )
    columns = {
        "shop_id": F.coalesce("shop_id", F.lit(mapping.default_shop)),
        "language": F.coalesce("language", F.lit(mapping.default_language)),
        "opt_out": F.coalesce(F.col("opt_out").try_cast("boolean"), F.lit(False)),
        "updated_at": F.when(time.between(*_KNOWN_TIMES), time),
        "content_hash": F.sha2(F.to_json(hashed), 256),  # JSON: different contents give different texts
        "imported_by": F.lit(None),  # set when the row is written
    }
    schema = contract.spark_schema("products")
    typed = [columns.get(f.name, F.col(f.name)).cast(f.dataType).alias(f.name) for f in schema]
    return frame.select(*typed, "source_uri", "row_number", "payload", "parse_error")
