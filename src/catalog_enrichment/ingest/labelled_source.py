"""A source with the columns of a second file, for example the labels of a challenge (config `[source.labels]`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.source_frame import (
    CORRUPT,
    FILE_STEM,
    ROW_NUMBER,
    SOURCE_URI,
    Location,
    ProductSource,
    SourceFrame,
    quoted,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_LABEL_ROW, _LABEL_CORRUPT = "_label_row", "_label_corrupt_record"


@dataclass(frozen=True, slots=True)
class LabelledSource:
    """A source with the columns of its labels file."""

    source: ProductSource
    labels: ProductSource
    key: str
    """The column with the product's key in both; empty: the rows are in the same order."""

    @property
    def location(self) -> Location:
        return self.source.location

    def fingerprint(self, imported: str) -> str:
        # a source compares its own part with that of the last import
        return f"{self.source.fingerprint(imported.partition(':')[0])}:{self.labels.fingerprint('')}"

    def open(self, names: Sequence[str]) -> SourceFrame:
        """Join the columns ``names`` of both. A row whose label row is corrupt is corrupt itself.

        Raises DataContractError if the two do not belong together: the key is missing in one of them or is not unique
        in the labels, no row has a label, or files joined by row order have different numbers of rows.
        """
        source, labels = self.source.open(names), self.labels.open(names)
        frame, rows = source.frame, labels.frame
        added = {name: kind for name, kind in labels.types.items() if name not in (*frame.columns, self.key)}
        columns = [_array_or_text(rows, name).alias(name) for name in added]
        columns.append(quoted(CORRUPT).alias(_LABEL_CORRUPT))
        if self.key:
            self._check_key(source, labels)
            key = quoted(self.key).cast("string").alias(_LABEL_ROW)
            frame, rows = frame.select("*", key), rows.select(key, *columns).where(f"{_LABEL_ROW} is not null")
            self._check_match(frame, rows)
        else:
            frame = _with_row_order(frame, self.source.location)
            rows = _with_row_order(rows, self.labels.location).select(_LABEL_ROW, *columns)
            self._check_lengths(frame, rows)
        joined = _with_corrupt_labels(frame.join(rows, _LABEL_ROW, "left").drop(_LABEL_ROW))
        return SourceFrame(joined, source.types | added, lambda: {*source.available(), *labels.available()})

    def close(self) -> None:
        self.source.close()

    def discard(self) -> None:
        self.source.discard()

    def _check_key(self, source: SourceFrame, labels: SourceFrame) -> None:
        for opened, place in ((source, "the source"), (labels, self.labels.location.path)):
            if self.key not in opened.types and not (self.key == FILE_STEM and FILE_STEM in opened.frame.columns):
                raise DataContractError(
                    f"source.labels.key: {place} has no column {self.key!r}. "
                    f"Available columns: {sorted(opened.available())}"
                )

    def _check_match(self, frame: DataFrame, rows: DataFrame) -> None:
        repeated = [
            row[0] for row in rows.groupBy(_LABEL_ROW).count().where("count > 1").select(_LABEL_ROW).limit(3).collect()
        ]
        if repeated:
            raise DataContractError(
                f"{self.labels.location.path} has more than one row for {self.key} {', '.join(map(repr, repeated))}. "
                "source.labels.key must be unique there."
            )
        if rows.join(frame.select(_LABEL_ROW), _LABEL_ROW, "left_semi").isEmpty():
            raise DataContractError(
                f"{self.labels.location.path} has no label for any row of the source. "
                f"Check source.labels.key ({self.key})."
            )

    def _check_lengths(self, frame: DataFrame, rows: DataFrame) -> None:
        source_rows, label_rows = frame.count(), rows.count()
        if source_rows != label_rows:
            raise DataContractError(
                f"{self.source.location.path} has {source_rows:,} rows and {self.labels.location.path} has "
                f"{label_rows:,}: they cannot be matched by their order. If both have a column in common, name it as "
                "source.labels.key."
            )


def _array_or_text(rows: DataFrame, name: str) -> Column:
    """Return the column as it is if it is an array, else as text, as in a source of a text format."""
    return quoted(name) if rows.schema[name].dataType.typeName() == "array" else quoted(name).cast("string")


def _with_row_order(frame: DataFrame, location: Location) -> DataFrame:
    """Add ``_label_row``, which numbers the rows of the file, also those that could not be parsed."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if not location.is_file:
        raise DataContractError(
            f"{location.path} is a folder: its rows have no order. Name a file, or a source.labels.key."
        )
    in_order = Window.partitionBy(SOURCE_URI).orderBy(ROW_NUMBER)
    return frame.withColumn(_LABEL_ROW, F.row_number().over(in_order))


def _with_corrupt_labels(frame: DataFrame) -> DataFrame:
    """Make a row with a corrupt label row corrupt."""
    from pyspark.sql import functions as F

    return frame.withColumn(CORRUPT, F.coalesce(CORRUPT, _LABEL_CORRUPT)).drop(_LABEL_CORRUPT)
