"""What a mapping may say beside a column's name: an element of a list, and a template over columns.

genres                                  a column
categories[0][-1]                       the last element of the first; indexes count as in Python
image_{Image_id}_{categories[0][0]}.jpg a template; nothing, if one of its parts is nothing
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.source_files import FILE_STEM, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

_ELEMENT = re.compile(r"(.+?)((?:\[-?\d+\])+)")
_LIST = {"mode": "PERMISSIVE", "allowBackslashEscapingAnyCharacter": "true"}
"""How a list may be spelled in text: JSON, and with single quotes as Python writes it, which Spark allows anyway."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What a mapping selects in a row."""

    column: Column
    """A column in Spark's own type, or text in which a list is spelled out."""
    type: str
    """Spark's simple name of the type that the values have, without digits of precision and length."""
    is_array: bool = False
    """Whether ``column`` is an array of Spark's, not one spelled out."""

    def text(self) -> Column:
        return self.column.cast("string")

    def joined(self, separator: str) -> Column:
        """Text; the texts of a list, joined by ``separator``."""
        from pyspark.sql import functions as F

        if self.is_array:
            return F.array_join(self.column.cast("array<string>"), separator)
        whole = self.text()
        joined = F.array_join(_spelled(whole), separator)
        if self.type.startswith("array"):
            return joined
        return F.when(whole.rlike(r"^\[[\"']"), F.coalesce(joined, whole)).otherwise(whole)

    def texts(self, empty: list[str]) -> Column:
        """array<string>: the values, each once, without blanks and what counts as ``empty``."""
        from pyspark.sql import functions as F

        values = self.column.cast("array<string>") if self.is_array else _one_or_more(self.text())
        values = F.transform(values, lambda value: F.trim(F.make_valid_utf8(value)))
        return F.array_distinct(F.filter(values, lambda v: v.isNotNull() & ~v.isin("", *empty)))


def select(wanted: str, frame: DataFrame, types: dict[str, DataType], where: str) -> Selected:
    """What ``wanted`` selects; a column of exactly that name goes before any other reading of it.

    Raises DataContractError for a column that does not exist and ConfigError for a template that is none.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType

    if wanted in types or wanted == FILE_STEM:
        kind = frame.schema[wanted].dataType
        return Selected(quoted(wanted), _name(types.get(wanted, kind)), isinstance(kind, ArrayType))
    if "{" in wanted or "}" in wanted:
        parts = []
        for literal, name in _parts(wanted, where):
            parts += [F.lit(literal)] if literal else []
            parts += [F.nullif(_atom(name, frame, types, where).text(), F.lit(""))] if name else []
        return Selected(F.concat(*parts), "string")
    element = _ELEMENT.fullmatch(wanted)
    if element and element[1] in types:
        return _element(select(element[1], frame, types, where), types[element[1]], element[2], f"{where} {wanted!r}")
    raise DataContractError(f"{where}: column {wanted!r} does not exist. Available columns: {sorted(types)}")


def _parts(template: str, where: str) -> list[tuple[str, str]]:
    """Literal text and the column after it, in turn."""
    try:
        parts = [(text, name, spec, how) for text, name, spec, how in string.Formatter().parse(template)]
        if any(name == "" or spec or how for _, name, spec, how in parts):
            raise ValueError("{} holds a column's name and nothing else")
    except ValueError as problem:
        raise ConfigError(f"{where}: {template!r} is not a usable template: {problem}") from None
    return [(text, name or "") for text, name, _, _ in parts]


def _atom(name: str, frame: DataFrame, types: dict[str, DataType], where: str) -> Selected:
    selected = select(name, frame, types, where)
    if re.match("array|map|struct|binary", selected.type):
        raise DataContractError(f"{where}: {name!r} has type {selected.type}, which cannot stand in a template")
    return selected


def _element(selected: Selected, kind: DataType, path: str, where: str) -> Selected:
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, StringType

    text = F.to_json(selected.column) if selected.is_array else selected.text()
    for index in (int(number) for number in re.findall(r"-?\d+", path)):
        if isinstance(kind, ArrayType):
            kind = kind.elementType
        elif not isinstance(kind, StringType):  # text may spell a list
            raise DataContractError(f"{where}: {_name(kind)} has no elements")
        text = F.try_element_at(_spelled(text), F.lit(index if index < 0 else index + 1))
    return Selected(text, _name(kind))


def _spelled(text: Column) -> Column:
    """array<string> that the text spells out, null if it spells none; lists inside it stay text."""
    from pyspark.sql import functions as F

    return F.when(text.rlike(r"^\s*\[(?s:.*)\]\s*$"), F.from_json(text, "array<string>", _LIST))


def _one_or_more(text: Column) -> Column:
    from pyspark.sql import functions as F

    return F.coalesce(_spelled(text), F.array(text))


def _name(kind: DataType) -> str:
    return re.sub(r"\(.*?\)", "", kind.simpleString())  # decimal(10,0), char(8)
