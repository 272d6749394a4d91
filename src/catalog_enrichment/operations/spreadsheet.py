"""Cells of CSV files that a spreadsheet would take for a formula begin with an apostrophe (OWASP, CSV injection)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column

FORMULA = "^[\t-\r ]*[=+\\-@\uff1d\uff0b\uff0d\uff20]"
"""What a spreadsheet takes for a formula: a first =, +, - or @, full-width too, also after blanks. The pattern means
the same to Java, to RE2 (Arrow) and to Python."""


def as_text(column: Column) -> Column:
    """``column`` of texts with an apostrophe before what would be a formula."""
    from pyspark.sql import functions as F

    return F.when(column.rlike(FORMULA), F.concat(F.lit("'"), column)).otherwise(column)


def as_text_array(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """:func:`as_text` for Arrow; nulls stay."""
    import pyarrow.compute as pc

    quoted = pc.binary_join_element_wise("'", texts, "")
    return pc.if_else(pc.match_substring_regex(texts, FORMULA), quoted, texts)
