"""Column selectors of a source mapping: a column's name, an element of a list, or a template over columns.

genres                                  a column
categories[0][-1]                       the last element of the first list; indexes count as in Python
image_{Image_id}_{categories[0][0]}.jpg a template; null if one of its columns is null or empty
"""

from __future__ import annotations

import re
import string
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.source_frame import FILE_STEM, SourceFrame, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column
    from pyspark.sql.types import DataType

_ELEMENT = re.compile(r"(.+?)((?:\[-?\d+\])+)")
_LIST_OPTIONS = {"mode": "PERMISSIVE", "allowBackslashEscapingAnyCharacter": "true"}
"""Spark's JSON options for a list in a text: JSON, or with single quotes as Python writes it (allowed by default)."""


@dataclass(frozen=True, slots=True)
class SelectedColumn:
    """The column that a selector stands for."""

    column: Column
    """In its Spark type, or text that holds a list as JSON or Python would write it."""
    type: str
    """Spark's simple name of the values' type, without precision and length."""
    is_array: bool = False
    """Whether ``column`` has Spark's array type; False for a list in a text."""

    def text(self) -> Column:
        return self.column.cast("string")

    def joined(self, separator: str) -> Column:
        """Text; the elements of a list are joined by ``separator``."""
        from pyspark.sql import functions as F

        if self.is_array:
            return F.array_join(self.column.cast("array<string>"), separator)
        text = self.text()
        joined = F.array_join(_parsed_list(text), separator)
        if self.type.startswith("array"):
            return joined
        return F.when(text.rlike(r"^\[[\"']"), F.coalesce(joined, text)).otherwise(text)

    def texts(self, empty: list[str]) -> Column:
        """array<string>: the distinct values, trimmed, without blanks and the texts in ``empty``."""
        from pyspark.sql import functions as F

        values = self.column.cast("array<string>") if self.is_array else _list_or_single(self.text())
        values = F.transform(values, lambda value: F.trim(F.make_valid_utf8(value)))
        return F.array_distinct(F.filter(values, lambda v: v.isNotNull() & ~v.isin("", *empty)))


def named_columns(selector: str) -> set[str]:
    """Every column of a source that ``selector`` can stand for or use, whether or not it exists."""
    names = {selector}
    if element := _ELEMENT.fullmatch(selector):
        names.add(element[1])
    with suppress(ConfigError):  # `select` reports an invalid template
        for _, name in _template_parts(selector, selector):
            names |= named_columns(name) if name not in ("", selector) else set()
    return names


def select(selector: str, source: SourceFrame, where: str) -> SelectedColumn:
    """The column that ``selector`` stands for; a column with exactly that name goes before element and template.

    ``where`` starts the error messages. Raises DataContractError for a column that does not exist and ConfigError for
    an invalid template.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType

    types = source.types
    if selector in types or selector == FILE_STEM:
        data_type = source.frame.schema[selector].dataType
        type_name = _type_name(types.get(selector, data_type))
        return SelectedColumn(quoted(selector), type_name, isinstance(data_type, ArrayType))
    if "{" in selector or "}" in selector:
        parts = []
        for literal, name in _template_parts(selector, where):
            parts += [F.lit(literal)] if literal else []
            parts += [F.nullif(_template_column(name, source, where).text(), F.lit(""))] if name else []
        return SelectedColumn(F.concat(*parts), "string")
    element = _ELEMENT.fullmatch(selector)
    if element and element[1] in types:
        list_column = select(element[1], source, where)
        return _element(list_column, types[element[1]], element[2], f"{where} {selector!r}")
    raise DataContractError(
        f"{where}: column {selector!r} does not exist. Available columns: {sorted(source.available())}"
    )


def _template_parts(template: str, where: str) -> list[tuple[str, str]]:
    """(literal text, name of the column after it) pairs; the name is empty after the last text."""
    try:
        fields = list(string.Formatter().parse(template))
        if any(name == "" or format_spec or conversion for _, name, format_spec, conversion in fields):
            raise ValueError("{} holds a column's name and nothing else")
    except ValueError as problem:
        raise ConfigError(f"{where}: {template!r} is not a usable template: {problem}") from None
    return [(literal, name or "") for literal, name, _, _ in fields]


def _template_column(name: str, source: SourceFrame, where: str) -> SelectedColumn:
    selected = select(name, source, where)
    if re.match("array|map|struct|binary", selected.type):
        raise DataContractError(f"{where}: {name!r} has type {selected.type}, which cannot be used in a template")
    return selected


def _element(selected: SelectedColumn, data_type: DataType, indexes: str, where: str) -> SelectedColumn:
    """The element at ``indexes`` (``[0][-1]``), as text; null where the list is too short."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, StringType

    text = F.to_json(selected.column) if selected.is_array else selected.text()
    for index in (int(number) for number in re.findall(r"-?\d+", indexes)):
        if isinstance(data_type, ArrayType):
            data_type = data_type.elementType
        elif not isinstance(data_type, StringType):  # a text may hold a list
            raise DataContractError(f"{where}: {_type_name(data_type)} has no elements")
        text = F.try_element_at(_parsed_list(text), F.lit(index if index < 0 else index + 1))
    return SelectedColumn(text, _type_name(data_type))


def _parsed_list(text: Column) -> Column:
    """array<string>: the list that the text holds, null if it holds none; lists inside it stay text."""
    from pyspark.sql import functions as F

    return F.when(text.rlike(r"^\s*\[(?s:.*)\]\s*$"), F.from_json(text, "array<string>", _LIST_OPTIONS))


def _list_or_single(text: Column) -> Column:
    """array<string>: the list that the text holds, else the text as the only element."""
    from pyspark.sql import functions as F

    return F.coalesce(_parsed_list(text), F.array(text))


def _type_name(data_type: DataType) -> str:
    return re.sub(r"\(.*?\)", "", data_type.simpleString())  # decimal(10,0), char(8)
