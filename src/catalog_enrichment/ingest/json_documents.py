"""JSON lines, files of one JSON object, and lines of Python literals as a frame of text columns.

A document is usable if it is exactly one JSON object without a repeated key, at any depth. Everything else is a corrupt
row with its text (I7). The types of the columns are inferred from the usable documents. All of it runs in the JVM; only
Python literals are converted by Python.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.ingest.source_frame import (
    CORRUPT,
    FILE_STEM,
    SOURCE_URI,
    FileLocation,
    SourceFrame,
    with_origin,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

_AROUND = " \t\r\n\ufeff"
"""White space and byte order mark."""
_END = "end of document 5f1d3c"
"""Follows the document where it is parsed: it is the second and last element only after exactly one document."""
_NAMES_IN_A_MESSAGE = 100


def open_json(spark: SparkSession, file_format: str, location: FileLocation, wanted: Sequence[str]) -> SourceFrame:
    """The keys of ``wanted`` that some usable document has. Read twice, the first time for the types alone.

    ``file_format``: jsonl, json_files or python_lines. Blank lines are no rows; a blank file is one.
    """
    opened = open_documents(_documents(spark, file_format, location), wanted)
    if file_format != "json_files":
        return opened
    return replace(opened, frame=_with_empty_files(spark, opened.frame, location))


def open_documents(lines: DataFrame, wanted: Sequence[str]) -> SourceFrame:
    """The keys of ``wanted`` that some usable document has. Computed twice, the first time for the types alone.

    ``lines``: one row per document, its ``text``, ``path`` and ``document``, the text as JSON; a ``row_number`` if the
    documents are numbered.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType, StructField, StructType

    documents = _with_usable(lines)
    usable = documents.where("usable")
    types = _types(usable, wanted)
    failed = _unused_name(wanted)
    schema = StructType([StructField(name, StringType()) for name in (*types, failed)])
    parsed = F.from_json("document", schema, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": failed})
    numbered = "row_number" in documents.columns
    number = F.col("row_number") if numbered else None
    rows = documents.select(
        "text", "path", F.when(F.col("usable"), parsed).alias("row"), *(["row_number"] if numbered else [])
    )
    corrupt = F.col("row").isNull() | F.col("row").getField(failed).isNotNull()
    columns = [F.col("row").getField(name).alias(name) for name in types]
    frame = with_origin(rows, columns, F.when(corrupt, F.col("text")), F.col("path"), number)
    return SourceFrame(frame, types, lambda: _keys(usable))


def _documents(spark: SparkSession, file_format: str, location: FileLocation) -> DataFrame:
    """One row per document: text, path of its file, document (the text as JSON)."""
    from pyspark.sql import functions as F

    reader = spark.read
    if file_format == "json_files" and not location.is_file:
        reader = reader.option("pathGlobFilter", "*.json")  # the folder may hold pictures too
    text = reader.text(location.path, wholetext=file_format == "json_files")
    lines = text.select(F.col("value").alias("text"), F.col("_metadata.file_path").alias("path"))
    document = F.btrim("text", F.lit(_AROUND))
    if file_format != "json_files":
        lines = lines.where(document != "")
    if file_format == "python_lines":
        document = F.udf(python_to_json, "string", useArrow=False)("text")
    return lines.withColumn("document", document)


def _with_usable(documents: DataFrame) -> DataFrame:
    """Adds ``values`` and ``usable``.

    ``values`` is the document without what Spark's JSON reader takes and a VARIANT does not: NaN and infinite numbers
    are null in it, halves of surrogate pairs are replaced. It shows what is usable and the types, not the texts.
    """
    from pyspark.sql import functions as F

    values = documents.withColumn("values", _plain_values(F.col("document")))
    return values.withColumn("usable", F.coalesce(_is_one_object(F.col("values")), F.lit(False)))


def _plain_values(document: Column) -> Column:
    from pyspark.sql import functions as F

    special = [F.contains(document, F.lit(part)) for part in ("NaN", "Infinity", r"\ud", r"\uD")]
    numbers = F.regexp_replace(document, r"(?<=[:\[,])(\s*)-?(?:NaN|Infinity)(?=\s*[,\]}])", "$1null")
    plain = F.regexp_replace(numbers, r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}", r"\\uFFFD")
    return F.when(special[0] | special[1] | special[2] | special[3], plain).otherwise(document)


def _is_one_object(document: Column) -> Column:
    """Whether the text is exactly one JSON object; a VARIANT takes no repeated keys. Null counts as false.

    Spark's parsers ignore what follows the first value. So the document is parsed as the first element of a list.
    """
    from pyspark.sql import functions as F

    elements = F.try_parse_json(F.concat(F.lit("["), document, F.lit(f',"{_END}"]')))
    end = F.try_variant_get(elements, "$[1]", "string")
    more = F.try_variant_get(elements, "$[2]", "variant")
    return F.when(document.startswith("{"), (end == _END) & more.isNull())


def _types(usable: DataFrame, wanted: Sequence[str]) -> dict[str, DataType]:
    """Type of every key of ``wanted`` that a usable document has, in the order of ``wanted``."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructField, StructType, VariantType

    schema = StructType([StructField(name, VariantType()) for name in wanted])
    parsed = usable.select(F.from_json("values", schema).alias("row"))
    values = [F.col("row").getField(name) for name in wanted]
    types = [F.schema_of_variant_agg(value) for value in values]
    found = [F.count(value) for value in values]  # a JSON null is a value, a missing key is not
    row = parsed.agg(F.array(*types), F.array(*found)).first()
    pairs = zip(wanted, row[0], row[1], strict=True) if row else ()
    return {name: _type(variant_type) for name, variant_type, count in pairs if count}


def _type(variant_type: str) -> DataType:
    """Of a VARIANT's type: lists stay lists, every single value is a text, values of several types are texts."""
    from pyspark.sql.types import ArrayType, StringType, StructType

    if variant_type.startswith("ARRAY<"):
        return ArrayType(_type(variant_type.removeprefix("ARRAY<").removesuffix(">")))
    return StructType() if variant_type.startswith("OBJECT<") else StringType()


def _keys(usable: DataFrame) -> Iterable[str]:
    """The keys of the documents, for a message."""
    from pyspark.sql import functions as F

    keys = usable.select(F.explode(F.json_object_keys("values")).alias("key")).distinct()
    return [row["key"] for row in keys.limit(_NAMES_IN_A_MESSAGE).collect()]


def _unused_name(wanted: Sequence[str]) -> str:
    """For the parser's own column, which must not be called as a key that is read."""
    return "_" + "_".join(wanted)


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


def python_to_json(text: str) -> str | None:
    """A Python dict literal as JSON, None for any other text, and where a key is repeated at any depth (runs on
    executors). The text is not executed."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        if any(_repeats_a_key(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)):
            return None
        value = ast.literal_eval(tree)
        return json.dumps(value, allow_nan=False) if isinstance(value, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _repeats_a_key(literal: ast.Dict) -> bool:
    return len({ast.literal_eval(key) for key in literal.keys if key}) < len(literal.keys)
