"""Writes exported values as a spreadsheet (xlsx) for people: headings in words, a sheet per million rows.

Texts stay as they are and are texts: "007" is no number, "=1+1" no formula and "#N/A" no error. Rows are written as
they come, so that memory does not grow with their number.
https://ecma-international.org/publications-and-standards/standards/ecma-376/ (part 1, 22.9.2.19: escaped characters)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from openpyxl.worksheet._write_only import WriteOnlyWorksheet

MOST_ROWS = 1_048_576
"""Rows of a sheet, the headings among them: the program's limit."""
MOST_CHARACTERS = 32_767
"""Characters of a cell: the program's limit. A longer text ends with an ellipsis."""

HEADINGS = {
    "product_id": ("Product", 18),
    "title": ("Title", 50),
    "shop_id": ("Shop", 14),
    "category": ("Category", 24),
    "attribute": ("Attribute", 18),
    "value": ("Value", 22),
    "number": ("Number", 10),
    "unit": ("Unit", 8),
    "source": ("Given by", 10),
    "score": ("Score", 8),
    "evidence": ("Evidence", 40),
    "model_version": ("Model version", 14),
    "certificate_id": ("Certificate", 16),
    "run_id": ("Run", 30),
    "since": ("Since (UTC)", 20),
}
"""Column of the export -> its heading and width in characters."""

_ESCAPED = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
"""Characters that XML does not have, and the first character of what would be read as an escaped character."""
_FORMULA = re.compile("[=+\\-@\t\r\n ]")
"""The first character of texts that are marked as texts, also for who edits the cell."""
_ROWS_AT_ONCE = 10_000


@contextmanager
def xlsx_writer(file: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Open a spreadsheet, and yield the function that writes a table with the columns of ``schema`` to it."""
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheets = [_new_sheet(book, schema, 1)]
    rows = 1

    def write(table: pa.Table) -> None:
        nonlocal rows
        for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if rows == MOST_ROWS:
                    _filter(sheets[-1], schema, rows)
                    sheets.append(_new_sheet(book, schema, len(sheets) + 1))
                    rows = 1
                sheets[-1].append([_cell(sheets[-1], value) for value in row])
                rows += 1

    try:
        yield write
        _filter(sheets[-1], schema, rows)
        book.save(file)
    finally:
        for sheet in sheets:
            if not sheet.closed:  # after an error: a sheet that is left open fails again when it is collected
                sheet.close()


def _new_sheet(book: Any, schema: pa.Schema, number: int) -> WriteOnlyWorksheet:
    """Return a sheet with the headings in its first row, which stays in sight."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    sheet = book.create_sheet("Values" if number == 1 else f"Values {number}")
    sheet.freeze_panes = "A2"
    headings = []
    for place, name in enumerate(schema.names, start=1):
        heading, width = HEADINGS[name]
        sheet.column_dimensions[get_column_letter(place)].width = width
        cell = WriteOnlyCell(sheet, value=heading)
        cell.font = Font(bold=True)
        headings.append(cell)
    sheet.append(headings)
    return sheet


def _filter(sheet: WriteOnlyWorksheet, schema: pa.Schema, rows: int) -> None:
    """Let people filter the ``rows`` of a sheet by each column."""
    from openpyxl.utils import get_column_letter

    sheet.auto_filter.ref = f"A1:{get_column_letter(len(schema.names))}{rows}"


def _cell(sheet: WriteOnlyWorksheet, value: Any) -> Any:
    if not isinstance(value, str | datetime):
        return value
    from openpyxl.cell import WriteOnlyCell

    if isinstance(value, datetime):
        cell = WriteOnlyCell(sheet, value=value.astimezone(UTC).replace(tzinfo=None, microsecond=0))
        cell.number_format = "yyyy-mm-dd hh:mm:ss"
        return cell
    text = value if len(value) <= MOST_CHARACTERS else value[: MOST_CHARACTERS - 1] + "…"
    cell = WriteOnlyCell(sheet, value=_ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text))
    cell.data_type = "s"
    if _FORMULA.match(text):
        cell.quotePrefix = True
    return cell
