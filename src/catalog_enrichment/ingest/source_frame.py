"""The frame that every source format is opened as: the columns that the mapping names, and four added columns.

``_source_uri``, ``_row_number`` (null where the format does not number rows), ``_file_stem`` and ``_corrupt_record``,
the text of a row that could not be parsed. Columns of the source that the mapping does not name are not read, whatever
they are called and hold. Names are compared exactly: ``Title`` and ``title`` are two columns
(`spark.sql.caseSensitive`, :mod:`catalog_enrichment.spark.session`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM = "_corrupt_record", "_source_uri", "_row_number", "_file_stem"
RESERVED = (CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM)


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A file or folder of the source."""

    path: str
    """Absolute path or URI."""
    folder: str
    """``path`` if it is a folder, else the folder of the file."""

    @property
    def is_file(self) -> bool:
        return self.path != self.folder


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """Rows of a source with the columns described above."""

    frame: DataFrame
    types: dict[str, DataType]
    """Column name -> type of its values, where ``frame`` holds text. Without the four added columns."""
    available: Callable[[], Iterable[str]]
    """The names of all columns of the source, for messages; may read the source."""


def quoted(name: str) -> Column:
    """The column of this name, which may hold dots and other special characters."""
    from pyspark.sql import functions as F

    return F.col("`" + name.replace("`", "``") + "`")


def with_origin(
    frame: DataFrame, columns: Iterable[Column], corrupt: Column, path: Column, row_number: Column | None = None
) -> DataFrame:
    """``columns`` and the four added columns. ``path``: the URL-encoded URI of the row's file."""
    from pyspark.sql import functions as F

    # + is not encoded in it, and try_url_decode would turn it into a space
    encoded = F.replace(F.substring_index(path, "/", -1), F.lit("+"), F.lit("%2B"))
    return frame.select(
        *columns,
        corrupt.cast("string").alias(CORRUPT),
        path.alias(SOURCE_URI),
        (F.lit(None) if row_number is None else row_number).cast("bigint").alias(ROW_NUMBER),
        F.regexp_replace(F.try_url_decode(encoded), r"(?<=.)\.[^.]*$", "").alias(FILE_STEM),
    )
