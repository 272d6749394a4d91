"""What a source is: it opens as a :class:`SourceFrame`, the columns that the mapping names and five added columns.

The added columns are ``_source_uri``, ``_row_number`` (null where the format does not number rows), ``_file_stem``,
``_source_rows`` (how many rows of the source the row was made of) and ``_corrupt_record``, the text of a row that could
not be parsed. Other columns of the source are not read, whatever
they hold. Names are compared exactly: ``Title`` and ``title`` are two columns.

A selector of the mapping is a column's name, an element of a list, or a template over columns::

    genres                                  a column
    categories[0][-1]                       the last element of the first list; indexes count as in Python
    image_{Image_id}_{categories[0][0]}.jpg a template; null if one of its columns is null or empty
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM = "_corrupt_record", "_source_uri", "_row_number", "_file_stem"
SOURCE_ROWS = "_source_rows"
DELETED_ROW = "_deleted_row"
"""A Boolean column that only sources with a feed of changes add: true for a row that the source deleted."""
RESERVED = (CORRUPT, SOURCE_URI, ROW_NUMBER, FILE_STEM, SOURCE_ROWS, DELETED_ROW)

Position = dict[str, Any]
"""Where a source was when an import looked at it, as plain data: what changes after it can be read alone."""

_ELEMENT = re.compile(r"(.+?)((?:\[-?\d+\])+)")
_BLANKS = r"[\s\p{Z}\p{Cc}\p{Cf}]+"
"""White space and invisible characters, such as no-break spaces and byte order marks."""
_LIST_OPTIONS = {"mode": "PERMISSIVE", "allowBackslashEscapingAnyCharacter": "true"}
"""Spark's JSON options for a list in a text: JSON, or with single quotes as Python writes it (allowed by default)."""

BETWEEN_PICTURES = (
    r"[\s,;|]+(?=(?:https?|s3a?|gs|file)://)"
    r"|(?:(?<=\.jpg)|(?<=\.jpeg)|(?<=\.png)|(?<=\.webp)|(?<=\.gif)|(?<=\.JPG)|(?<=\.PNG))\s*[,;|]\s*"
)
"""What stands between several pictures in one text, for Java and Python: an address may hold commas itself."""

Task = TypeVar("Task")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a source is."""

    path: str
    """Absolute path or URI, for messages."""
    folder: str
    """Where relative paths of pictures start: ``path`` if it is a folder, else the folder that it is in."""
    files: tuple[str, ...] = ()
    """The files of the folder that are read; none for all."""

    @property
    def read_paths(self) -> list[str]:
        """Return what Spark's readers are to read."""
        return [spark_path(path) for path in self.files or (self.path,)]

    @property
    def is_file(self) -> bool:
        return self.path != self.folder


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """The rows of a source."""

    frame: DataFrame
    """The columns that were asked for and exist, and the five added columns."""
    types: dict[str, DataType]
    """Column name -> type of its values, also where ``frame`` holds text. Without the added columns."""
    available: Callable[[], Iterable[str]]
    """Gives the names of all columns of the source, for messages; may read the source."""
    may_lack: bool = False
    """True for a part of a source, of which only other parts may have a column: a missing column is null here."""


class SourceRows(Protocol):
    """Rows of a source."""

    @property
    def location(self) -> Location: ...

    def open(self, names: Sequence[str]) -> SourceFrame:
        """Open the columns ``names``, as far as they exist. The rows must be read before the source is closed."""


class ProductSource(SourceRows, Protocol):
    """A source in one import: files, a database or an API."""

    def fingerprint(self, imported: str) -> str:
        """Return a text that equals that of another import only if both read the same rows.

        ``imported``: the fingerprint of the last import, or "".
        """

    def close(self) -> None:
        """Free what reading needs: the rows are stored."""

    def discard(self) -> None:
        """Remove what was kept for a later attempt: the rows are imported, or cannot be."""


class AllNeeded(Exception):
    """The reason why the changes of a source cannot be told: all of its rows must be read."""


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """The rows of a source that are new or changed since a position."""

    location: Location
    how: str
    """What is read, in words."""
    open_rows: Callable[[Sequence[str]], SourceFrame]
    is_empty: bool = False
    """True if it is known that there are none."""

    def open(self, names: Sequence[str]) -> SourceFrame:
        opened = self.open_rows(names)
        return replace(opened, frame=opened.frame.limit(0)) if self.is_empty else opened


@runtime_checkable
class ChangeSource(Protocol):
    """A source that can tell its changes."""

    def position(self) -> Position:
        """Return where the source is, before its rows are read."""

    def since(self, position: Position, names: Sequence[str]) -> ChangedRows:
        """Return the rows that changed after ``position``; ``names``: the columns that will be asked for.

        Raises AllNeeded where the changes cannot be told.
        """


@contextmanager
def refused_if_unreadable(path: str, source_format: str) -> Iterator[None]:
    """Turn Spark's errors in a block that opens files into DataContractErrors."""
    import pyarrow as pa

    try:
        yield
    except (*api_mode.reading_errors(), pa.ArrowException) as problem:
        reason = api_mode.message_of(problem).splitlines()[0]
        raise DataContractError(f"{path} cannot be read as {source_format}: {reason}") from None


def quoted(name: str) -> Column:
    """Return the column of this name, which may hold dots and other special characters."""
    from pyspark.sql import functions as F

    return F.col("`" + name.replace("`", "``") + "`")


def spark_path(path: str) -> str:
    """Return the path as Spark's readers take it: the characters of patterns (`products[2].csv`) mean themselves."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)


def between_values(separator: str) -> str:
    """Return a regular expression, for Java and Python, for a separator that no backslash stands before."""
    return r"(?<!\\)" + re.escape(separator) if separator else ""


def trimmed(text: Column) -> Column:
    """Return the text without white space and invisible characters around it."""
    from pyspark.sql import functions as F

    return F.regexp_replace(text, f"^{_BLANKS}|{_BLANKS}$", "")


def is_empty(text: Column, empty: Sequence[str]) -> Column:
    """Return whether a trimmed text means "no value": blank, dashes and question marks, or in ``empty`` in any case."""
    from pyspark.sql import functions as F

    return F.lower(text).isin("", *(given.lower() for given in empty)) | text.rlike(r"^[\p{Pd}_.?!/]+$")


def with_origin(
    frame: DataFrame,
    columns: Iterable[Column],
    corrupt: Column,
    path: Column,
    row_number: Column | None = None,
    rows: Column | None = None,
) -> DataFrame:
    """Select ``columns`` and the five added columns. ``path``: the URL-encoded URI of the row's file."""
    from pyspark.sql import functions as F

    # + is not encoded in it, and try_url_decode would turn it into a space
    encoded = F.replace(F.substring_index(path, "/", -1), F.lit("+"), F.lit("%2B"))
    return frame.select(
        *columns,
        corrupt.cast("string").alias(CORRUPT),
        path.alias(SOURCE_URI),
        (F.lit(None) if row_number is None else row_number).cast("bigint").alias(ROW_NUMBER),
        F.regexp_replace(F.try_url_decode(encoded), r"(?<=.)\.[^.]*$", "").alias(FILE_STEM),
        (F.lit(1) if rows is None else rows).cast("bigint").alias(SOURCE_ROWS),
    )


def parquet_frame(rows: DataFrame, names: Sequence[str], available: list[str]) -> SourceFrame:
    """Return the columns ``names`` of Parquet files that Spark has opened, with their origin."""
    from pyspark.sql import functions as F

    types = {field.name: field.dataType for field in rows.schema if field.name in names}
    file = rows.metadataColumn("_metadata")  # also where a column of the source is called _metadata
    frame = with_origin(
        rows, [quoted(name) for name in types], F.lit(None), file.getField("file_path"), file.getField("row_index")
    )
    return SourceFrame(frame, types, lambda: available)


def read_in_tasks(
    spark: SparkSession, name: str, tasks: Sequence[Task], read: Callable[[Task], Iterator[Any]], schema: Any
) -> DataFrame:
    """Return the rows, or Arrow batches, that ``read`` gives for each of ``tasks``, by Spark's Python data source.

    ``name``: that of the data source. ``read`` is sent to the executors with all that it refers to, passwords and
    tokens included, which are so in no option, plan or log.
    """
    from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

    class Reader(DataSourceReader):  # type: ignore[misc]
        def partitions(self) -> Sequence[InputPartition]:
            return [InputPartition(number) for number in range(len(tasks))]

        def read(self, partition: Any) -> Iterator[Any]:
            return read(tasks[partition.value])

    class TaskSource(DataSource):  # type: ignore[misc]
        @classmethod
        def name(cls) -> str:
            return f"catalog_enrichment_{name}"

        def schema(self) -> Any:
            return schema

        def reader(self, schema: Any) -> DataSourceReader:  # noqa: ARG002  the base's signature
            return Reader()

    spark.dataSource.register(TaskSource)
    return spark.read.format(TaskSource.name()).load()


# --- selectors of the mapping -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SelectedColumn:
    """The column that a selector stands for."""

    column: Column
    """The column in its Spark type, or as text that holds a list as JSON or Python would write it."""
    type: str
    """Spark's simple name of the values' type, without precision and length."""
    is_array: bool = False
    """Return whether ``column`` has Spark's array type; False for a list in a text."""

    def text(self) -> Column:
        return self.column.cast("string")

    def joined(self, separator: str) -> Column:
        """Return the text; the elements of a list are joined by ``separator``."""
        from pyspark.sql import functions as F

        if self.is_array:
            return F.array_join(self.column.cast("array<string>"), separator)
        text = self.text()
        joined = F.array_join(_parsed_list(text), separator)
        if self.type.startswith("array"):
            return joined
        return F.when(text.rlike(r"^\[[\"']"), F.coalesce(joined, text)).otherwise(text)

    def texts(self, empty: list[str], split: str = "") -> Column:
        """Return the distinct values, trimmed, without blanks and the texts in ``empty``: array<string>.

        ``split``: a regular expression for what stands between several values in one text.
        """
        from pyspark.sql import functions as F

        values = self.column.cast("array<string>") if self.is_array else self._list_or_text()
        if split:
            values = F.flatten(F.transform(values, lambda value: F.split(value, split)))
            values = F.transform(values, lambda value: F.regexp_replace(value, r"\\([,;|])", "$1"))
        values = F.transform(values, lambda value: trimmed(F.make_valid_utf8(value)))
        return F.array_distinct(F.filter(values, lambda value: value.isNotNull() & ~is_empty(value, empty)))

    def _list_or_text(self) -> Column:
        from pyspark.sql import functions as F

        return F.coalesce(_parsed_list(self.text()), F.array(self.text()))


def named_columns(selector: str) -> set[str]:
    """Return every column of a source that ``selector`` can stand for or use, whether or not it exists."""
    names = {selector}
    if element := _ELEMENT.fullmatch(selector):
        names.add(element[1])
    with suppress(ConfigError):  # `select` reports an invalid template
        for _, name in _template_parts(selector, selector):
            names |= named_columns(name) if name not in ("", selector) else set()
    return names


def select(selector: str, source: SourceFrame, where: str) -> SelectedColumn:
    """Return the column that ``selector`` stands for: a column with exactly that name, else an element or a template.

    ``where`` starts the error messages. Raises DataContractError for a column that does not exist, unless the source
    may lack columns, and ConfigError for an invalid template.
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
    if source.may_lack:
        return SelectedColumn(F.lit(None).cast("string"), "string")
    raise DataContractError(
        f"{where}: column {selector!r} does not exist. Available columns: {sorted(source.available())}"
    )


def _template_parts(template: str, where: str) -> list[tuple[str, str]]:
    """Return (literal text, name of the column after it) pairs; the name is empty after the last text."""
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
    """Return the element at ``indexes`` (``[0][-1]``), as text; null where the list is too short."""
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
    """Return the list that the text holds, null if it holds none: array<string>. Lists inside it stay text."""
    from pyspark.sql import functions as F

    return F.when(text.rlike(r"^\s*\[(?s:.*)\]\s*$"), F.from_json(text, "array<string>", _LIST_OPTIONS))


def _type_name(data_type: DataType) -> str:
    return re.sub(r"\(.*?\)", "", data_type.simpleString())  # decimal(10,0), char(8)
