"""Maps a source's columns to those of a product: a row per input row, in the shape ``raw``.

``raw`` has the columns of the products contract before normalisation, and

- ``source_uri``, ``row_number``: the row's file and its number there (null where the format does not number rows);
- ``deleted``: true for a row that deletes its product; all but its id counts for nothing then;
- ``source_rows``: how many rows of the source the row was made of;
- ``payload``: the mapped columns as JSON, without pictures, cut to PAYLOAD_CHARS; null for a row that could not be
  parsed and may hold values that must not be read (``attributes_when``);
- ``parse_error``: why the row cannot be used, or null.

A bad row gets a ``parse_error`` and raises nothing. A mapped column that is missing, or has a type that the product
column cannot take, raises DataContractError. All text is made valid UTF-8, so that every later reader can decode it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.dictionary import LEVELS
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.merchant_values import DECIMAL_MARKS
from catalog_enrichment.ingest.product_pictures import with_images
from catalog_enrichment.ingest.source_frame import (
    BETWEEN_PICTURES,
    CORRUPT,
    DELETED_ROW,
    FILE_STEM,
    RESERVED,
    ROW_NUMBER,
    SOURCE_ROWS,
    SOURCE_URI,
    SelectedColumn,
    SourceFrame,
    SourceRows,
    between_values,
    is_empty,
    named_columns,
    select,
    trimmed,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PAYLOAD_CHARS = 2_000
_JSON = ("jsonl", "json_files", "python_lines", "http_api")
_STRINGS = ("string", "char", "varchar")
_WHOLE_NUMBERS = ("tinyint", "smallint", "int", "bigint", "decimal")
_TIMES = ("date", "timestamp", "timestamp_ntz")
_ATOMS = (*_STRINGS, *_WHOLE_NUMBERS, *_TIMES, "boolean", "float", "double")
_TEXTS = dict.fromkeys(("shop_id", "title", "description", "category", "language"), _ATOMS)
_FLAGS = ("opt_out", "deleted", "attributes_when")
_JOINED_BY = {"description": "\n", "category": "/"}
"""Product columns that take a list of texts -> separator that joins its elements."""
_KNOWN_TIMES = "0001-01-02 00:00:00 UTC", "9999-12-30 23:59:59.999999 UTC"
"""The first and the last day are what programs write for an unknown time, and Python has no times beyond them."""
_COLUMN_TYPES: dict[str, tuple[str, ...]] = {
    **_TEXTS,
    **dict.fromkeys(_JOINED_BY, (*_ATOMS, "array<string>")),
    "product_id": (*_STRINGS, *_WHOLE_NUMBERS),  # a float id would come out as 1.0E7
    "image_bytes": ("binary",),
    "image_uris": (*_STRINGS, "array<string>"),
    **dict.fromkeys(_FLAGS, (*_STRINGS, "boolean", *_WHOLE_NUMBERS)),
    "updated_at": (*_STRINGS, *_TIMES),
}
"""Product column -> Spark types that it can be read from."""
_NUMBERS = frozenset(f"{name}{end}" for name in ("float", "double", "decimal") for end in ("", ">"))
"""Types, and the ends of types of lists, whose texts have a full stop before the decimals."""
_ATTRIBUTE_TYPES = (*_ATOMS, *(f"array<{atom}>" for atom in _ATOMS))


def read_products(source: SourceRows, config: SourceConfig, base: Path, images: ImagesConfig) -> DataFrame:
    """Return the rows of ``source`` in the shape ``raw``; nothing is filtered, deduplicated or normalised.

    Pictures that come as bytes are put into `images.store`. ``base``: the folder that `source.image_folder` starts at.
    ``images``: :meth:`Config.pictures`. Raises DataContractError for a source that cannot be opened, and for a mapped
    column that is missing or has an unusable type.
    """
    opened = source.open(names_to_read(config))
    columns, attributes = _select_columns(config.mapping, opened, source.location.path)
    folders = _PictureFolders(_image_folder(source, config, base), source.location.folder, bool(config.image_folder))
    mapped = _map_columns(opened.frame, config, columns, attributes, folders)
    checked = mapped.select(
        "*",
        _payload(hide_corrupt=bool(config.mapping.attributes_when)).alias("payload"),
        _parse_error(is_json=config.format in _JSON).alias("parse_error"),
    )
    typed = {name: "." for name, column in attributes.items() if column.type.removeprefix("array<") in _NUMBERS}
    read = _with_products_types(with_images(checked, config.mapping, images), config.mapping)
    return read.withMetadata("merchant_attributes", {DECIMAL_MARKS: typed | config.mapping.decimal_marks})


def _image_folder(source: SourceRows, config: SourceConfig, base: Path) -> str:
    """Return the folder that relative picture paths start at. If it does not exist, all its pictures are missing."""
    if not config.image_folder:
        return source.location.folder
    if "://" in config.image_folder:
        return config.image_folder.rstrip("/")
    return str((base / Path(config.image_folder).expanduser()).resolve())


# --- which columns are read -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PictureFolders:
    """The folders that paths of pictures start at."""

    relative: str
    """The folder of relative paths."""
    source: str
    """The folder of the source."""
    given: bool
    """True if `source.image_folder` names ``relative``: paths like /m/1.jpg are below it then."""


def _selectors(mapping: MappingConfig) -> dict[str, list[str]]:
    """Return product column -> selectors, for the columns that the source has."""
    given = {name: getattr(mapping, name) for name in _COLUMN_TYPES}
    return {name: value if isinstance(value, list) else [value] for name, value in given.items() if value}


def names_to_read(config: SourceConfig) -> list[str]:
    """Return the names that the mapping can mean, and the key of the labels. Raises DataContractError for a reserved
    name."""
    names = {config.labels.key} if config.labels and config.labels.key else set()
    for selector in (*chain(*_selectors(config.mapping).values()), *config.mapping.attributes.values()):
        names |= named_columns(selector)
    names.discard(FILE_STEM)
    if reserved := sorted(names & set(RESERVED)):
        raise DataContractError(f"mapped columns may not be called {reserved}: these names are reserved")
    return sorted(names)


def _select_columns(
    mapping: MappingConfig, opened: SourceFrame, path: str
) -> tuple[dict[str, list[SelectedColumn]], dict[str, SelectedColumn]]:
    """Return the source's columns for each mapped product column, and the column for each attribute.

    Raises DataContractError for a column that is missing or has an unusable type.
    """
    complete = replace(opened, may_lack=False)

    def checked(name: str, selector: str, usable_types: tuple[str, ...]) -> SelectedColumn:
        where = f"source.mapping.{name}: column {selector!r} of {path}"
        # rows without an id or a title are no products
        needed = [selector] in (given.get("product_id"), given.get("title"))
        selected = select(selector, complete if needed else opened, where)
        if selected.type not in usable_types:
            raise DataContractError(
                f"{where} has type {selected.type}, which cannot feed {name}; usable: {', '.join(usable_types)}"
            )
        return selected

    given = _selectors(mapping)
    columns = {
        name: [checked(name, selector, _COLUMN_TYPES[name]) for selector in selectors]
        for name, selectors in given.items()
    }
    attributes = {
        name: checked(f"attributes.{name}", selector, _ATTRIBUTE_TYPES) for name, selector in mapping.attributes.items()
    }
    return columns, attributes


# --- their values -----------------------------------------------------------------------------------------------------


def _map_columns(
    frame: DataFrame,
    config: SourceConfig,
    selected: dict[str, list[SelectedColumn]],
    attributes: dict[str, SelectedColumn],
    folders: _PictureFolders,
) -> DataFrame:
    """Return the product's columns, scalars still as text; ``corrupt`` is the text of a row that was not parsed."""
    from pyspark.sql import functions as F

    mapping, empty = config.mapping, config.empty_texts

    def text(name: str) -> Column:
        """Return the first text that a column has; those of a description's columns joined."""
        if name not in selected:
            return F.lit(None).cast("string")
        values = [c.joined(_JOINED_BY[name]) if name in _JOINED_BY else c.text() for c in selected[name]]
        texts = [F.when(~is_empty(trimmed(value), empty), value) for value in map(F.make_valid_utf8, values)]
        return F.coalesce(*texts) if name != "description" else F.nullif(F.concat_ws("\n", *texts), F.lit(""))

    flag, when = F.lit(True), text("attributes_when")
    if mapping.attributes_when_values:
        when = F.coalesce(when.isin(mapping.attributes_when_values), F.lit(False)).cast("string")
    if mapping.attributes_when:
        flag = when.try_cast("boolean")
    values = {
        name: column.texts(empty, between_values(mapping.separators.get(name, "")))
        for name, column in attributes.items()
    }
    image_bytes = selected["image_bytes"][0].column if mapping.image_bytes else F.lit(None).cast("binary")
    columns = {name: text(name) for name in (*_TEXTS, "opt_out", "deleted", "updated_at")}
    if DELETED_ROW in frame.columns:
        columns["deleted"] = F.when(F.col(DELETED_ROW), "true").otherwise(columns["deleted"])
    uris = _absolute_uris(selected.get("image_uris", []), empty, folders)
    kept = ~_is_true(columns["deleted"])
    columns["category"] = _category(columns["category"], mapping.separators.get("category", ""))
    return frame.select(
        *[column.alias(name) for name, column in columns.items()],
        when.alias("attributes_when"),
        _without_point_zero(trimmed(text("product_id"))).alias("product_id"),
        F.when(kept, image_bytes).alias("image_bytes"),  # no picture of a deleted product is opened or stored
        F.when(kept, uris).otherwise(F.array().cast("array<string>")).alias("uris"),
        F.when(flag, _attribute_map(values)).otherwise(_attribute_map({})).alias("merchant_attributes"),
        F.col(SOURCE_URI).alias("source_uri"),
        F.col(ROW_NUMBER).alias("row_number"),
        F.col(SOURCE_ROWS).alias("source_rows"),
        F.make_valid_utf8(F.col(CORRUPT)).alias("corrupt"),
    )


def _is_true(text: Column) -> Column:
    """Return the Boolean of a flag's text; false where there is none, or the text is none."""
    from pyspark.sql import functions as F

    return F.coalesce(text.try_cast("boolean"), F.lit(False))


def _category(text: Column, separator: str) -> Column:
    """Return a category path with one slash between its levels, however the source separates them.

    ``separator``: what stands between several paths, of which the one with the most levels is taken; empty: one path.
    """
    from pyspark.sql import functions as F

    def levels(path: Column) -> Column:
        return F.regexp_replace(trimmed(F.regexp_replace(path, LEVELS, "/")), r"^/+|/+$|(?<=/)/+", "")

    def placed(path: Column, place: Column) -> Column:
        return F.struct((-F.size(F.split(path, "/"))).alias("levels"), place.alias("place"), path.alias("path"))

    path = levels(text)
    if separator:
        paths = F.transform(F.split(text, re.escape(separator)), levels)
        path = F.array_min(F.transform(paths, placed)).getField("path")
    return F.nullif(path, F.lit(""))


def _without_point_zero(product_id: Column) -> Column:
    """Return the whole number of an id like 17.0, which programs write for 17 where an id of the column is missing."""
    from pyspark.sql import functions as F

    return F.regexp_replace(product_id, r"^(\d+)\.0$", "$1")


def _absolute_uris(selected: list[SelectedColumn], empty: list[str], folders: _PictureFolders) -> Column:
    """Return absolute paths and URIs of all columns: array<string>."""
    from pyspark.sql import functions as F

    none = F.array().cast("array<string>")
    if not selected:
        return none
    scheme = r"^[A-Za-z][A-Za-z0-9+.\-]*://"

    def absolute(uri: Column) -> Column:
        below = F.concat(F.lit(folders.relative), F.when(~uri.startswith("/"), "/").otherwise(""), uri)
        rooted = uri.startswith("/")
        if folders.given:  # a shop system writes paths below its folder of pictures with a leading slash
            known = [uri.startswith(folder + "/") for folder in {folders.relative, folders.source} - {""}]
            rooted = rooted & reduce(or_, known)
        return (
            F.when(uri.startswith("//"), F.concat(F.lit("https:"), uri))
            .when(uri.rlike(scheme) | rooted, uri)
            .otherwise(below)
        )

    uris = [F.coalesce(column.texts(empty, BETWEEN_PICTURES), none) for column in selected]
    return F.transform(F.array_distinct(F.concat(*uris)), absolute)


def _attribute_map(attributes: dict[str, Column]) -> Column:
    """Return attribute -> values, without the attributes that have no values: map<string, array<string>>."""
    from pyspark.sql import functions as F

    if not attributes:
        return F.create_map().cast("map<string, array<string>>")
    pairs = [part for name, values in attributes.items() for part in (F.lit(name), values)]
    return F.map_filter(F.create_map(*pairs), lambda _, values: F.size(values) > 0)


def _payload(hide_corrupt: bool) -> Column:
    """Return the row as JSON, cut to PAYLOAD_CHARS. A corrupt row has its text, or null if ``hide_corrupt``."""
    from pyspark.sql import functions as F

    names = ["product_id", *_TEXTS, "opt_out", "updated_at"]
    clipped = [F.left(F.col(name), F.lit(PAYLOAD_CHARS)).alias(name) for name in names]
    parsed = F.to_json(F.struct(*clipped, "uris", "merchant_attributes"))
    corrupt = F.lit(None) if hide_corrupt else F.col("corrupt")
    payload = F.when(F.col("corrupt").isNotNull(), corrupt).otherwise(parsed)
    return F.left(payload, F.lit(PAYLOAD_CHARS))


def _parse_error(is_json: bool) -> Column:
    """Return why the row cannot be used, null for a good row: it is malformed, or a value is of a wrong type.

    A row that deletes its product is good if its id and its flag are.
    """
    from pyspark.sql import functions as F

    def excerpt(name: str) -> Column:
        return F.left(F.col(name), F.lit(80))

    malformed = (
        "malformed row: cut off, broken quoting, a wrong number of columns, or bytes that are not in source.encoding"
    )
    error = F.when(F.col("corrupt").isNotNull(), malformed)
    rounded = F.col("product_id").rlike(r"^\d(?:\.\d+[eE]\+?|[eE]\+)\d+$")
    error = error.when(rounded, F.concat(F.lit("product_id is a rounded number: "), excerpt("product_id")))
    years = F.year(F.col("updated_at").try_cast("timestamp"))  # null where it is no timestamp
    kept = ~_is_true(F.col("deleted"))
    casts = {"deleted": "boolean", "opt_out": "boolean", "updated_at": "timestamp", "attributes_when": "boolean"}
    for name, data_type in casts.items():
        invalid = kept & F.col(name).isNotNull() & F.col(name).try_cast(data_type).isNull()
        error = error.when(invalid, F.concat(F.lit(f"{name} is no {data_type}: "), excerpt(name)))
    error = error.when(
        kept & ~years.between(1, 9999),
        F.concat(F.lit("updated_at is not in the years 1 to 9999: "), excerpt("updated_at")),
    )
    if is_json:  # the reader returns an object or array in a text column as JSON
        for name in ("product_id", *_TEXTS):
            nested = F.col(name).rlike(r'^(\{"|\["|\[\{)') & F.try_parse_json(F.col(name)).isNotNull()
            error = error.when(
                nested if name == "product_id" else kept & nested,
                F.concat(F.lit(f"{name} is no text: "), excerpt(name)),
            )
    return error


# --- the products contract --------------------------------------------------------------------------------------------


def _with_products_types(frame: DataFrame, mapping: MappingConfig) -> DataFrame:
    """Return the columns of the products contract in their types, and those that only ``raw`` has."""
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
        "opt_out": _is_true(F.col("opt_out")),
        "updated_at": F.when(time.between(*_KNOWN_TIMES), time),
        "content_hash": F.sha2(F.to_json(hashed), 256),  # JSON: different contents give different texts
        **dict.fromkeys(("first_imported_at", "imported_by"), F.lit(None)),  # set when the row is written
        "missed_imports": F.lit(0),
    }
    schema = contract.spark_schema("products")
    typed = [columns.get(f.name, F.col(f.name)).cast(f.dataType).alias(f.name) for f in schema]
    own = _is_true(F.col("deleted")).alias("deleted")
    return frame.select(*typed, own, "source_uri", "row_number", "source_rows", "payload", "parse_error")
