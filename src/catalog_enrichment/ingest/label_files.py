"""Joins a separate labels file (config section source.labels) to the rows of the source.

Every row of the source stays, exactly once: that is checked here, before anything is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.config.source import LabelsConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.source_files import locate_files, open_files
from catalog_enrichment.ingest.source_frame import (
    CORRUPT,
    FILE_STEM,
    ROW_NUMBER,
    SOURCE_URI,
    FileLocation,
    SourceFrame,
    quoted,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_ROW, _LABEL_CORRUPT = "_label_row", "_label_corrupt_record"


def labels_location(labels: LabelsConfig, base: Path) -> FileLocation:
    """The labels file. Raises DataContractError if it does not exist."""
    return locate_files(labels.path, labels.format, base, "source.labels.path")


def join_labels(
    source: SourceFrame, source_location: FileLocation, labels: LabelsConfig, base: Path, wanted: Iterable[str]
) -> SourceFrame:
    """The source with those columns of its labels file that are in ``wanted``.

    A row whose label row is corrupt is corrupt itself. Raises DataContractError if the two files do not belong
    together: the key is missing in one of them or is not unique in the labels, no row has a label, or files joined by
    row order have different numbers of rows.
    """
    location = labels_location(labels, base)
    if labels.format == "id_lists":
        opened = _open_id_lists(source.frame.sparkSession, location, labels.key)
    else:
        opened = open_files(source.frame.sparkSession, labels.format, location, labels.columns, wanted)
    frame, rows = source.frame, opened.frame
    added = {name: data_type for name, data_type in opened.types.items() if name not in (*frame.columns, labels.key)}
    columns = [_array_or_text(rows, name).alias(name) for name in added]
    columns.append(quoted(CORRUPT).alias(_LABEL_CORRUPT))
    if labels.key:
        _check_key(labels.key, source, opened, location)
        key = quoted(labels.key).cast("string").alias(_ROW)
        frame, rows = frame.select("*", key), rows.select(key, *columns).where(f"{_ROW} is not null")
        _check_match(labels.key, frame, rows, location)
    else:
        frame = _with_row_order(frame, source_location)
        rows = _with_row_order(rows, location).select(_ROW, *columns)
        _check_lengths(frame, rows, source_location, location)
    joined = frame.join(rows, _ROW, "left").drop(_ROW)
    return SourceFrame(
        _with_corrupt_labels(joined), source.types | added, lambda: {*source.available(), *opened.available()}
    )


def _open_id_lists(spark: SparkSession, location: FileLocation, key: str) -> SourceFrame:
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType

    documents = spark.read.text(location.path, wholetext=True)
    lists = documents.select(F.explode(F.from_json("value", "map<string, array<string>>")).alias("list", "ids"))
    rows = lists.select("list", F.explode("ids").alias(key), F.lit(None).cast("string").alias(CORRUPT))
    return SourceFrame(rows, {"list": StringType(), key: StringType()}, lambda: ["list", key])


def _array_or_text(rows: DataFrame, name: str) -> Column:
    """The column as it is if it is an array, else as text, as in a source of a text format."""
    return quoted(name) if rows.schema[name].dataType.typeName() == "array" else quoted(name).cast("string")


def _check_key(key: str, source: SourceFrame, labels: SourceFrame, location: FileLocation) -> None:
    for opened, file in ((source, "the source"), (labels, location.path)):
        if key not in opened.types and not (key == FILE_STEM and FILE_STEM in opened.frame.columns):
            raise DataContractError(
                f"source.labels.key: {file} has no column {key!r}. Available columns: {sorted(opened.available())}"
            )


def _check_match(key: str, frame: DataFrame, rows: DataFrame, location: FileLocation) -> None:
    repeated = [row[0] for row in rows.groupBy(_ROW).count().where("count > 1").select(_ROW).limit(3).collect()]
    if repeated:
        raise DataContractError(
            f"{location.path} has more than one row for {key} {', '.join(map(repr, repeated))}. "
            "source.labels.key must be unique there."
        )
    if rows.join(frame.select(_ROW), _ROW, "left_semi").isEmpty():
        raise DataContractError(
            f"{location.path} has no label for any row of the source. Check source.labels.key ({key})."
        )


def _with_row_order(frame: DataFrame, location: FileLocation) -> DataFrame:
    """Adds ``_label_row``, which numbers the rows of the file, those that could not be parsed too."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if not location.is_file:
        raise DataContractError(
            f"{location.path} is a folder: its rows have no order. Name a file, or a source.labels.key."
        )
    in_order = Window.partitionBy(SOURCE_URI).orderBy(ROW_NUMBER)
    return frame.withColumn(_ROW, F.row_number().over(in_order))


def _check_lengths(frame: DataFrame, rows: DataFrame, source_location: FileLocation, location: FileLocation) -> None:
    source_rows, label_rows = frame.count(), rows.count()
    if source_rows != label_rows:
        raise DataContractError(
            f"{source_location.path} has {source_rows:,} rows and {location.path} has {label_rows:,}: they cannot be "
            "matched by their order. If both have a column in common, name it as source.labels.key."
        )


def _with_corrupt_labels(frame: DataFrame) -> DataFrame:
    """A row with a corrupt label row becomes corrupt."""
    from pyspark.sql import functions as F

    return frame.withColumn(CORRUPT, F.coalesce(CORRUPT, _LABEL_CORRUPT)).drop(_LABEL_CORRUPT)
