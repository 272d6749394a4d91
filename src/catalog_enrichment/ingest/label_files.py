"""Labels that a data set's owner publishes in a file of their own, put beside the rows that they belong to.

Every row of the source stays, once, whatever the labels say: that is checked here, before anything is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.config.source import LabelsConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.source_files import CORRUPT, FILE_STEM, Location, locate, open_files, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from catalog_enrichment.ingest.source_files import Opened

_ROW, _LABEL_CORRUPT = "_label_row", "_label_corrupt_record"


def locate_labels(labels: LabelsConfig, base: Path) -> Location:
    return locate(labels.path, labels.format, base, "source.labels.path")


def join_labels(spark: SparkSession, source: Opened, origin: Location, labels: LabelsConfig, base: Path) -> Opened:
    """The source with the columns of its labels file. A row whose label row cannot be parsed counts as unparsed itself.

    Raises DataContractError if the two files do not belong together: a key that one of them lacks or that comes twice
    among the labels, no label for any row, files that go by their order and have different numbers of rows.
    """
    frame, types = source
    place = locate_labels(labels, base)
    if labels.format == "id_lists":
        rows, label_types = _open_id_lists(spark, place, labels.key)
    else:
        rows, label_types = open_files(spark, labels.format, place, labels.columns)
    added = {name: kind for name, kind in label_types.items() if name not in (*frame.columns, labels.key)}
    columns = [_plain(rows, name).alias(name) for name in added]
    columns.append(quoted(CORRUPT).alias(_LABEL_CORRUPT))
    if labels.key:
        _check_key(labels.key, (frame, types), (rows, label_types), place)
        key = quoted(labels.key).cast("string").alias(_ROW)
        frame, rows = frame.select("*", key), rows.select(key, *columns).where(f"{_ROW} is not null")
        _check_match(labels.key, frame, rows, place)
    else:
        frame, rows = _in_order(frame, origin), _in_order(rows, place).select(_ROW, *columns)
        _check_lengths(frame, rows, origin, place)
    return _coalesced(frame.join(rows, _ROW, "left").drop(_ROW)), types | added


def _open_id_lists(spark: SparkSession, place: Location, key: str) -> Opened:
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType

    whole = spark.read.text(place.path, wholetext=True)
    lists = whole.select(F.explode(F.from_json("value", "map<string, array<string>>")).alias("list", "ids"))
    rows = lists.select("list", F.explode("ids").alias(key), F.lit(None).cast("string").alias(CORRUPT))
    return rows, {"list": StringType(), key: StringType()}


def _plain(rows: DataFrame, name: str) -> Column:
    """A label in a form that two files of different formats share: an array, or text."""
    return quoted(name) if rows.schema[name].dataType.typeName() == "array" else quoted(name).cast("string")


def _check_key(key: str, source: Opened, labels: Opened, place: Location) -> None:
    for (frame, types), file in ((source, "the source"), (labels, place.path)):
        if key not in types and not (key == FILE_STEM and FILE_STEM in frame.columns):
            raise DataContractError(
                f"source.labels.key: {file} has no column {key!r}. Available columns: {sorted(types)}"
            )


def _check_match(key: str, frame: DataFrame, rows: DataFrame, place: Location) -> None:
    twice = [row[0] for row in rows.groupBy(_ROW).count().where("count > 1").select(_ROW).limit(3).collect()]
    if twice:
        raise DataContractError(
            f"{place.path} has more than one row for {key} {', '.join(map(repr, twice))}: which label is right? "
            "source.labels.key must be unique there."
        )
    if rows.join(frame.select(_ROW), _ROW, "left_semi").isEmpty():
        raise DataContractError(
            f"{place.path} has no label for any row of the source. Check source.labels.key ({key})."
        )


def _in_order(frame: DataFrame, place: Location) -> DataFrame:
    """Adds ``_label_row``, the number of the row in its file: one file is one task's (see ``_open_csv``)."""
    from pyspark.sql import functions as F

    if not place.is_file:
        raise DataContractError(
            f"{place.path} is a folder: its rows have no order. Name a file, or a source.labels.key."
        )
    return frame.withColumn(_ROW, F.monotonically_increasing_id())


def _check_lengths(frame: DataFrame, rows: DataFrame, origin: Location, place: Location) -> None:
    counts = frame.count(), rows.count()
    if counts[0] != counts[1]:
        raise DataContractError(
            f"{origin.path} has {counts[0]:,} rows and {place.path} has {counts[1]:,}: they cannot be matched by their "
            "order. If both have a column in common, name it as source.labels.key."
        )


def _coalesced(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    return frame.withColumn(CORRUPT, F.coalesce(CORRUPT, _LABEL_CORRUPT)).drop(_LABEL_CORRUPT)
