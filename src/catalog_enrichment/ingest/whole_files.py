"""Reads the records of files that can only be parsed as a whole: JSON lists, xlsx sheets, and XML feeds. No Spark.

A record is a dict of texts; a list of texts stays a JSON list in its cell, as in the other text formats. What is no
record becomes a refused row with its text, and a file that cannot be parsed raises ValueError.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

from catalog_enrichment.ingest.csv_rows import Layout, TextRow, header_names

Record = dict[str, str | None]

SUFFIXES = {"json_list": ".json", "xlsx": ".xlsx", "xml": ".xml"}
"""Format -> how the names of such files end in a folder, which may hold pictures too."""
_DEPTH = 2
"""Levels of objects in objects that become columns."""
_PRODUCTS = ("item", "entry", "product", "offer")
"""Names of elements of products."""
_LISTS = ("products", "items", "data", "results", "entries", "rows")
"""Keys of a JSON object that are looked at first for the list of products."""


def read_whole(file_format: str, content: bytes, layout: Layout) -> Iterator[tuple[int, Record | str]]:
    """Yield (number, record) pairs; the text of what is no record in place of the record.

    Raises ValueError for a file that is not of the format.
    """
    reader = {"json_list": _json_list, "xlsx": _sheet, "xml": _elements}[file_format]
    return reader(content, layout)


def text_rows(records: Iterator[tuple[int, Record | str]], names: Sequence[str]) -> Iterator[TextRow]:
    """Yield the records as rows with the columns ``names``."""
    for number, record in records:
        if isinstance(record, str):
            yield TextRow(number, [None] * len(names), record)
        else:
            yield TextRow(number, [record.get(name) or None for name in names])


# --- JSON lists -------------------------------------------------------------------------------------------------------


def _json_list(content: bytes, layout: Layout) -> Iterator[tuple[int, Record | str]]:
    encoding = "utf-8-sig" if layout.encoding.casefold() in ("utf-8", "utf8") else layout.encoding
    # numbers stay as they are written, and NaN is no value
    value = json.loads(
        content.decode(encoding),
        parse_float=str,
        parse_int=str,
        parse_constant=lambda _: None,
        object_pairs_hook=_object,
    )
    for number, item in enumerate(_items(value)):
        if isinstance(item, dict):
            yield number, _flat(item)
        else:
            yield number, json.dumps(item, ensure_ascii=False)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(content := dict(pairs)) < len(pairs):
        raise ValueError(f"a key is repeated in one object: {sorted(content)[:10]}")
    return content


def _items(value: Any) -> Sequence[Any]:
    """Return the list of products: the content itself, or the list in an object around it."""
    if isinstance(value, list):
        return value
    lists = {name: item for name, item in value.items() if isinstance(item, list)} if isinstance(value, dict) else {}
    found = [lists[name] for name in _LISTS if name in lists] or list(lists.values())
    if not found or (len(lists) > 1 and not set(lists) & set(_LISTS)):
        raise ValueError("the file is neither a list of objects nor an object with one such list")
    return found[0]


def _flat(item: Mapping[str, Any], before: str = "") -> Record:
    """Return an object's cells: what is in an object inside it becomes `category.name`; of a list of objects their
    addresses or names, unless they are pairs, which stay JSON."""
    cells: Record = {}
    for name, value in item.items():
        column = f"{before}{name}"
        if isinstance(value, dict) and column.count(".") < _DEPTH and not (before or _are_pairs(value)):
            cells |= _flat(value, f"{column}.")
        elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            cells[column] = _cell(_parts(value))
        else:
            cells[column] = _cell(value)
    return cells


def _are_pairs(value: Mapping[str, Any]) -> bool:
    """Return whether an object's keys are attributes: it has several, and none that objects of a shop have."""
    return len(value) > 1 and not {"id", "name", "slug", "src", "url", "href"} & {key.casefold() for key in value}


def _parts(value: Sequence[Mapping[str, Any]]) -> Any:
    for names, others in ((("src", "url", "href"), ()), (("name", "title"), ("value", "values", "option", "options"))):
        for name in names:
            if all(isinstance(part.get(name), str) and not set(others) & set(part) for part in value):
                return [part[name] for part in value]
    return value


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)


# --- xlsx -------------------------------------------------------------------------------------------------------------


def _sheet(content: bytes, layout: Layout) -> Iterator[tuple[int, Record | str]]:
    rows = sheet_rows(content, layout.sheet)
    filled = [(number, row) for number, row in enumerate(rows) if any(cell is not None for cell in row)]
    if len(filled) < layout.header_row:
        return
    names = header_names([cell or "" for cell in filled[layout.header_row - 1][1]])
    for number, row in filled[layout.header_row :]:
        yield number, dict(zip(names, row, strict=False))


def sheet_rows(content: bytes, sheet: str) -> list[list[str | None]]:
    """Return the cells of a sheet as texts, the first sheet where no name is given. Raises ValueError without it."""
    sheets = sheets_of(content, sheet or 0)
    return sheets[sheet or 0]


def sheets_of(content: bytes, sheet: str | int | None = None) -> dict[str | int, list[list[str | None]]]:
    """Return name -> cells of all sheets, or of one. Raises ValueError for other files, and without the sheet."""
    import pandas as pd

    try:
        frames = pd.read_excel(
            BytesIO(content),
            sheet_name=sheet if sheet is None else [sheet],
            header=None,
            dtype=object,
            na_filter=False,
            engine="openpyxl",
        )
    except (KeyError, OSError) as problem:  # openpyxl's errors for a damaged archive
        raise ValueError(f"no xlsx file: {problem}") from None
    return {
        name: [[_sheet_cell(cell) for cell in row] for row in frame.itertuples(index=False, name=None)]
        for name, frame in frames.items()
    }


def _sheet_cell(value: Any) -> str | None:
    """Return a cell's text; sheets keep whole numbers as floats."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return str(value)


# --- XML --------------------------------------------------------------------------------------------------------------


def _elements(content: bytes, layout: Layout) -> Iterator[tuple[int, Record | str]]:  # noqa: ARG001  the readers' signature
    if b"<!ENTITY" in content:
        raise ValueError(
            "XML with <!ENTITY is not read: entities can be used to attack its readers. Delete these lines"
        )
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as problem:
        raise ValueError(f"no XML: {problem}") from None
    for number, element in enumerate(_products(root)):
        cells: dict[str, list[str]] = {}
        for name, value in element.attrib.items():
            cells.setdefault(_local(name), []).append(value)
        for child in element:
            if not len(child):  # an element with elements in it has no text of its own
                text = (child.text or child.attrib.get("href") or "").strip()
                named = child.attrib.get("name", "")  # <param name="Color">Red</param>
                cells.setdefault(named or _local(child.tag), []).extend([text] if text else [])
            elif pair := _pair(child):
                cells.setdefault(pair[0], []).append(pair[1])
        yield number, {name: _joined(values) for name, values in cells.items()}


def _pair(element: ElementTree.Element) -> tuple[str, str] | None:
    """Return name and value of an element that holds an element for each, such as PARAM_NAME and VAL."""
    texts = {_local(child.tag).casefold(): (child.text or "").strip() for child in element}
    name = next((text for tag, text in texts.items() if "name" in tag), "")
    value = next((text for tag, text in texts.items() if "val" in tag), "")
    return (name, value) if name and value else None


def _products(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the products' elements: of a telling name, or those that are most often repeated below an element."""
    found: tuple[bool, int] = (False, 1)
    products: list[ElementTree.Element] = []
    for parent in root.iter():
        names = Counter(_local(child.tag) for child in parent if len(child) or child.attrib)
        for name, number in names.items():
            if (rank := (name in _PRODUCTS, number)) > found:
                found, products = rank, [child for child in parent if _local(child.tag) == name]
    if not products:
        raise ValueError("no element is repeated: there are no products in it")
    return products


def _joined(values: list[str]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if len(values) > 1 else next(iter(values), None)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def names_of(records: Iterator[tuple[int, Mapping[str, Any] | str]]) -> list[str]:
    """Return the names of the columns that some record has, in the order in which they come up."""
    return list(dict.fromkeys(name for _, record in records if not isinstance(record, str) for name in record))
