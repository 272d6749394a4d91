"""JSON lines, files of one JSON object, and lines of Python literals as a frame of text columns.

A document is usable if it is exactly one JSON object without a repeated key, at any depth. Everything else is a corrupt
row with its text (I7). The types of the columns are inferred from the usable documents. Everything runs in the JVM,
except that Python literals are converted by Python.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.ingest.source_frame import (
    CORRUPT,
    FILE_STEM,
    SOURCE_ROWS,
    SOURCE_URI,
    Location,
    SourceFrame,
    with_origin,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

_AROUND = " \t\r\n\ufeff"
"""White space and byte order mark."""
_END = "end of document 5f1d3c"
"""Is put behind a document that is parsed: it is the second and last element only after exactly one document."""
_NAMES_IN_A_MESSAGE = 100


def open_json(spark: SparkSession, file_format: str, location: Location, names: Sequence[str]) -> SourceFrame:
    """Open the keys ``names`` that some usable document has. Reads the files twice, the first time for the types alone.

    ``file_format``: jsonl, json_files or python_lines. Blank lines are no rows; a blank file is a row.
    """
    opened = open_documents(_documents(spark, file_format, location), names)
    if file_format != "json_files":
        return opened
    return replace(opened, frame=_with_empty_files(spark, opened.frame, location))


def open_documents(documents: DataFrame, names: Sequence[str]) -> SourceFrame:
    """Open the keys ``names`` that some usable document has. ``documents`` is computed twice.

    ``documents``: one row per document, with its ``text``, its ``path``, the text as JSON in ``document``, and a
    ``row_number``, which may be null.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType, StructField, StructType

    checked = _with_usable(documents)
    usable = checked.where("usable")
    types = _types(usable, names)
    failed = _unused_name(names)
    schema = StructType([StructField(name, StringType()) for name in (*types, failed)])
    parsed = F.from_json("document", schema, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": failed})
    rows = checked.select("text", "path", "row_number", F.when(F.col("usable"), parsed).alias("row"))
    corrupt = F.col("row").isNull() | F.col("row").getField(failed).isNotNull()
    columns = [_without_special_numbers(F.col("row").getField(name)).alias(name) for name in types]
    frame = with_origin(rows, columns, F.when(corrupt, F.col("text")), F.col("path"), F.col("row_number"))
    return SourceFrame(frame, types, lambda: _keys(usable))


def _without_special_numbers(value: Column) -> Column:
    """Return null for NaN and infinite numbers, which Spark reads into a text with quotes around them."""
    from pyspark.sql import functions as F

    return F.when(~value.isin('"NaN"', '"Infinity"', '"-Infinity"', '"+Infinity"'), value)


def _documents(spark: SparkSession, file_format: str, location: Location) -> DataFrame:
    """Return the documents as :func:`open_documents` takes them, without numbers."""
    from pyspark.sql import functions as F

    reader = spark.read
    if file_format == "json_files" and not location.is_file:
        reader = reader.option("pathGlobFilter", "*.json")  # the folder may hold pictures too
    text = reader.text(location.read_paths, wholetext=file_format == "json_files")
    path, number = F.col("_metadata.file_path").alias("path"), F.lit(None).cast("bigint").alias("row_number")
    lines = text.select(F.col("value").alias("text"), path, number)
    document = F.btrim("text", F.lit(_AROUND))
    if file_format != "json_files":
        lines = lines.where(document != "")
    if file_format == "python_lines":
        document = F.udf(python_to_json, "string", useArrow=False)("text")
    return lines.withColumn("document", document)


def _with_usable(documents: DataFrame) -> DataFrame:
    """Add ``usable``, and ``values``, which shows the types and what is usable, not the texts.

    ``values`` is the document without what Spark's JSON reader accepts and a VARIANT does not: NaN and infinite numbers
    are null in it, halves of surrogate pairs are replaced.
    """
    from pyspark.sql import functions as F

    values = documents.withColumn("values", _plain_values(F.col("document")))
    return values.withColumn("usable", F.coalesce(_is_one_object(F.col("values")), F.lit(False)))


def _plain_values(document: Column) -> Column:
    from pyspark.sql import functions as F

    special = reduce(or_, (F.contains(document, F.lit(part)) for part in ("NaN", "Infinity", r"\ud", r"\uD")))
    numbers = F.regexp_replace(document, r"(?<=[:\[,])(\s*)-?(?:NaN|Infinity)(?=\s*[,\]}])", "$1null")
    plain = F.regexp_replace(numbers, r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}", r"\\uFFFD")
    return F.when(special, plain).otherwise(document)


def _is_one_object(document: Column) -> Column:
    """Return whether the text is exactly one JSON object, without repeated keys, which a VARIANT refuses; may be null.

    Spark's parsers ignore what follows the first value. So the document is parsed as the first element of a list.
    """
    from pyspark.sql import functions as F

    elements = F.try_parse_json(F.concat(F.lit("["), document, F.lit(f',"{_END}"]')))
    end = F.try_variant_get(elements, "$[1]", "string")
    more = F.try_variant_get(elements, "$[2]", "variant")
    return F.when(document.startswith("{") & F.is_valid_utf8(document), (end == _END) & more.isNull())


def _types(usable: DataFrame, names: Sequence[str]) -> dict[str, DataType]:
    """Return the type of every key of ``names`` that a usable document has, in the order of ``names``."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructField, StructType, VariantType

    schema = StructType([StructField(name, VariantType()) for name in names])
    parsed = usable.select(F.from_json("values", schema).alias("row"))
    values = [F.col("row").getField(name) for name in names]
    types = [F.schema_of_variant_agg(value) for value in values]
    found = [F.count(value) for value in values]  # a JSON null is a value, a missing key is not
    row = parsed.agg(F.array(*types), F.array(*found)).first()
    pairs = zip(names, row[0], row[1], strict=True) if row else ()
    return {name: _type(variant_type) for name, variant_type, count in pairs if count}


def _type(variant_type: str) -> DataType:
    """Return the type for a VARIANT's: lists stay lists, every single value is a text, also values of several types."""
    from pyspark.sql.types import ArrayType, StringType, StructType

    if variant_type.startswith("ARRAY<"):
        return ArrayType(_type(variant_type.removeprefix("ARRAY<").removesuffix(">")))
    return StructType() if variant_type.startswith("OBJECT<") else StringType()


def _keys(usable: DataFrame) -> Iterable[str]:
    """Return the keys of the documents, for a message."""
    from pyspark.sql import functions as F

    keys = usable.select(F.explode(F.json_object_keys("values")).alias("key")).distinct()
    return [row["key"] for row in keys.limit(_NAMES_IN_A_MESSAGE).collect()]


def _unused_name(names: Sequence[str]) -> str:
    """Return a name for the parser's own column, which must differ from every key that is read."""
    return "_" + "_".join(names)


def _with_empty_files(spark: SparkSession, frame: DataFrame, location: Location) -> DataFrame:
    """Add a corrupt row for every empty file of a local folder, because Spark's reader skips empty files.

    Folders given by a URI are not searched: that needs a client of the store.
    """
    files = [] if "://" in location.path or location.is_file else sorted(Path(location.path).glob("*.json"))
    files = [file for file in files if not location.files or str(file) in location.files]
    empty = [file for file in files if not file.name.startswith((".", "_")) and not file.stat().st_size]
    if not empty:
        return frame
    rows = [{CORRUPT: "", SOURCE_URI: file.as_uri(), FILE_STEM: file.stem, SOURCE_ROWS: 1} for file in empty]
    return frame.unionByName(
        spark.createDataFrame([{name: row.get(name) for name in frame.columns} for row in rows], frame.schema)
    )


def python_to_json(text: str) -> str | None:
    """Return a Python dict literal as JSON; None for any other text, and where a key is repeated at any depth.

    The text is not executed. Runs on executors.
    """
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
