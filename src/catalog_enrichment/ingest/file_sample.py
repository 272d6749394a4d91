"""Reads a bounded sample of the rows of one file, however large it is, without Spark.

If a file has more than SAMPLED_ROWS rows or SAMPLED_BYTES bytes, parts that are spread evenly over it are read, since
files are often sorted; of a compressed text, only the start is read. Columns and rows are those that the import finds.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.csv_rows import COMMAS, Layout, decoded, physical_lines, read_csv, read_header
from catalog_enrichment.ingest.exports import header_names, recognise
from catalog_enrichment.ingest.sniffing import HEADER_RECORDS, decimal_of, encodings_of, header_row, sniff
from catalog_enrichment.ingest.whole_files import read_whole, sheets_of

SAMPLED_ROWS = 20_000
SAMPLED_BYTES = 32 * 2**20
"""Bytes that are read of a text file, and decoded from the texts of a parquet file."""
_PARTS = 16
"""Parts that are read of a larger text file. Of a parquet file, four times as many row groups are read."""
_HEAD = 2**20
_PICTURES = 16
"""Rows whose binary columns are read."""
_LONGEST_TEXT = 2_000
FORMATS = "CSV, TSV, xlsx, JSON lines (an object per line), a JSON list, XML feeds and parquet"
_LARGEST_WHOLE = 2**28
"""Bytes of a file that is parsed as a whole."""
_AROUND = " \t\r\ufeff"
"""White space and byte order mark around a JSON object."""

KNOWN_NAMES = header_names() | frozenset({"id", "sku", "title", "name", "description", "price", "category", "color"})
"""Names of columns in lower case by which a header is told from the lines above it."""

Row = TypeVar("Row")


def _is_export(cells: Sequence[str]) -> bool:
    return recognise(cells) is not None


@dataclass(frozen=True, slots=True)
class FileSample:
    format: str
    """A value of `source.format`."""
    why: str
    """How the format was recognised."""
    rows: int
    """Rows that were read and could be parsed."""
    whole: bool
    """These are all rows of the file."""
    columns: dict[str, list[Any]]
    """Name -> the plain Python value of each row. Binary columns have the values of the first rows only."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Columns that no mapping can name -> why."""
    broken: int = 0
    """Rows that could not be parsed; 0 where only parts were read, which may begin inside a row."""
    layout: Layout = COMMAS
    """How the cells of a CSV, TSV or xlsx file, or the encoding of a JSON list, were found."""


def read_sample(file: Path, columns: Sequence[str] = (), encoding: str = "") -> FileSample:
    """Return the sample.

    ``columns``: the names of all columns of a CSV or TSV file without a header. ``encoding``: that of a text file;
    empty: guessed. Raises ConfigError for a file that does not exist or cannot be opened, and DataContractError for a
    file that is empty, damaged or of an unknown format.
    """
    if file.is_dir():
        raise ConfigError(f"--from {file} is a folder: name one file of it, and put the folder into source.path later")
    if not file.is_file():
        raise ConfigError(f"--from {file}: no such file")
    with _readable(file):
        with file.open("rb") as opened:
            first = opened.read(4)
        if first == b"PAR1":
            sample = _parquet_sample(file)
        elif first == b"PK\x03\x04":
            sample = _sheet_sample(file)
        else:
            sample = _text_sample(file, first, columns, encoding)
    if not sample.columns or not sample.rows:
        broken = ""
        if sample.broken:
            broken = (
                f" ({sample.broken:,} rows cannot be parsed as {sample.format}; a quote in a cell is written twice)"
            )
        raise DataContractError(f"{file} has no rows{broken}: there is nothing to guess from")
    return sample


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn errors of the libraries that read ``file`` into errors of this package."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, EOFError, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise ConfigError(f"--from {file} cannot be read: {os.strerror(problem.errno)}") from None
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:200]
        raise DataContractError(f"{file} cannot be read, it may be cut off or damaged: {reason}") from None


# --- text files -------------------------------------------------------------------------------------------------------


def _text_sample(file: Path, first: bytes, columns: Sequence[str], encoding: str) -> FileSample:
    """Return the sample of a text file. Raises DataContractError if it is empty or no text."""
    if first.startswith(b"\x1f\x8b") and file.suffix != ".gz":
        raise DataContractError(f"{file} is compressed with gzip: its name must end in .gz for the import to read it")
    parts, whole = _parts(file)
    start = parts[0][:_HEAD]
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataContractError(f"{file} is written in UTF-16: save it as UTF-8")
    if b"\0" in start:
        raise DataContractError(f"{file} is no text and no parquet file. Known formats: {FORMATS}")
    likely = [encoding] if encoding else encodings_of(b"\n".join(parts), file)
    encoding = likely[0]
    text = start.decode(encoding, "replace").removeprefix("\ufeff").lstrip()
    if not text:
        raise DataContractError(f"{file} is empty")
    lines = [line for line in text.split("\n")[:20] if line.strip(_AROUND)]
    if (
        text[0] == "{"
        and not _is_list_around(lines)
        and (_json_object(lines[0]) is not None or sum(map(bool, map(_json_object, lines))) > 1)
    ):
        return _json_lines_sample(file, parts, whole, encoding)
    if text[0] in "[{":
        found = "a JSON list" if text[0] == "[" else "an object with a list"
        return _whole_sample(file, "json_list", f"it holds {found}", Layout(encoding=encoding))
    if text[0] == "<":
        if "<html" in text.lower():
            raise DataContractError(f"{file} is an HTML page: the format is not known. Known formats: {FORMATS}")
        return _whole_sample(file, "xml", "it begins like XML", Layout())
    return _csv_sample(file, parts, whole, _layout(file, text, likely, columns))


def _layout(file: Path, text: str, encodings: Sequence[str], columns: Sequence[str]) -> tuple[Layout, str]:
    """Return how a CSV or TSV file is written, and how it was recognised."""
    sniffed = sniff(text, KNOWN_NAMES, _is_export)
    if sniffed is None:
        raise DataContractError(f"{file}: the format is not known. Known formats: {FORMATS}")
    if not sniffed.header_row and not columns:
        raise DataContractError(
            f"{file} seems to have no line with the columns' names: its first line is {text.splitlines()[0][:80]!r}. "
            "Put such a line above it, or name the columns: --columns NAME,NAME,..."
        )
    layout = Layout(sniffed.separator, encodings[0], sniffed.header_row or 1, tuple(columns))
    doubt = f" or {', '.join(encodings[1:])}, which --encoding can name" if encodings[1:] else ""
    return layout, sniffed.why + (f"; written in {encodings[0]}{doubt}" if encodings[0] != "utf-8" else "")


def _parts(file: Path) -> tuple[list[bytes], bool]:
    """Return the parts of a text file that are read, cut at line ends, and whether they are the whole file."""
    with _open(file) as opened:
        if file.suffix == ".gz" or file.stat().st_size <= SAMPLED_BYTES:
            text = opened.read(SAMPLED_BYTES + 1)
            return ([text], True) if len(text) <= SAMPLED_BYTES else ([_whole_lines(text)], False)
        parts, size = [], SAMPLED_BYTES // _PARTS
        for number in range(_PARTS):
            opened.seek(number * (file.stat().st_size - size) // (_PARTS - 1))
            part = opened.read(size)
            parts.append(_whole_lines(part if number == 0 else part.partition(b"\n")[2]))
        return parts, False


def _open(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _whole_lines(text: bytes) -> bytes:
    """Return the text without its last line, which may be cut off."""
    return text.rpartition(b"\n")[0]


def _csv_sample(file: Path, parts: list[bytes], whole: bool, found: tuple[Layout, str]) -> FileSample:
    layout, why = found
    names = list(layout.columns) or read_header(physical_lines(decoded(parts[0], layout.encoding)), layout)
    if names is None:
        raise DataContractError(f"{file}: the header cannot be read: its quotes are broken or never closed")
    rows: list[list[str | None]] = []
    broken = 0
    for number, part in enumerate(parts):
        lines = physical_lines(decoded(part, layout.encoding))
        for record in read_csv(lines, layout if number == 0 else replace(layout, columns=tuple(names)), names):
            broken += record.refused is not None
            rows += [record.cells] if record.refused is None else []
    kept = _spread(rows)
    columns = {name: [cells[place] for cells in kept] for place, name in enumerate(names)}
    all_kept = whole and len(kept) == len(rows)
    kind = "tsv" if layout.separator == "\t" else "csv"
    layout = replace(layout, decimal=decimal_of(list(columns.values())))
    return FileSample(kind, why, len(kept), all_kept, columns, broken=broken if whole else 0, layout=layout)


def _whole_sample(file: Path, kind: str, why: str, layout: Layout) -> FileSample:
    """Return the sample of a file that must be parsed as a whole."""
    if file.stat().st_size > _LARGEST_WHOLE:
        raise DataContractError(
            f"{file} is larger than {_LARGEST_WHOLE:,} bytes, and {kind} can only be read as a whole: "
            "write it as JSON lines or parquet"
        )
    with _open(file) as opened:
        content = opened.read()
    try:
        found = [record for _, record in read_whole(kind, content, layout)]
    except (ValueError, RecursionError, zipfile.BadZipFile) as problem:
        raise DataContractError(f"{file} cannot be read as {kind}: {str(problem)[:300]}") from None
    rows = [record for record in found if isinstance(record, dict)]
    kept = _spread(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in kept] for name in names}
    broken = len(found) - len(rows)
    return FileSample(kind, why, len(kept), len(kept) == len(rows), columns, broken=broken, layout=layout)


def _sheet_sample(file: Path) -> FileSample:
    """Return the sample of an xlsx file's first sheet with a table."""
    try:
        sheets = {
            name: [[cell or "" for cell in row] for row in rows if any(row)]
            for name, rows in sheets_of(file.read_bytes()).items()
        }
    except (ValueError, zipfile.BadZipFile) as problem:
        raise DataContractError(f"{file} is a ZIP archive and no xlsx sheet ({problem}). Known: {FORMATS}") from None
    # a cover sheet has texts in one column
    name = next((name for name, rows in sheets.items() if sum(sum(map(bool, row)) > 1 for row in rows) > 1), "")
    records = sheets[name] if name else []
    first = next(iter(sheets), name)
    row = header_row(records[:HEADER_RECORDS], KNOWN_NAMES, _is_export, has_header=True) or 1
    above = f"; {row - 1} rows are above the columns' names" if row > 1 else ""
    return _whole_sample(
        file, "xlsx", f"it is an Excel sheet{above}", Layout(header_row=row, sheet="" if name == first else str(name))
    )


def _json_lines_sample(file: Path, parts: list[bytes], whole: bool, encoding: str) -> FileSample:
    if encoding != "utf-8":
        raise DataContractError(f"{file} holds JSON lines in {encoding}: JSON is written in UTF-8, save it so")
    lines = [line for part in parts for line in part.decode("utf-8", "replace").split("\n")]
    objects = [_json_object(line) for line in lines if line.strip(_AROUND)]
    rows = [value for value in objects if value is not None]
    broken = len(objects) - len(rows)
    kept = _spread(rows)
    names = dict.fromkeys(name for row in kept for name in row)
    columns = {name: [row.get(name) for row in kept] for name in names}
    unusable = {name: reason for name, values in columns.items() if (reason := _nested(values))}
    usable = {name: values for name, values in columns.items() if name not in unusable}
    all_kept, why = whole and len(kept) == len(rows), "its first line is a JSON object"
    return FileSample("jsonl", why, len(kept), all_kept, usable, unusable, broken if whole else 0)


def _spread(rows: list[Row]) -> list[Row]:
    """Return at most SAMPLED_ROWS of the rows, at equal distances."""
    return rows[:: -(-len(rows) // SAMPLED_ROWS)] if rows else rows


def _is_list_around(lines: Sequence[str]) -> bool:
    """Return whether the only line is an object around a list of objects."""
    found = _json_object(lines[0]) if len(lines) == 1 else None
    lists = [value for value in (found or {}).values() if isinstance(value, list)]
    return any(value and all(isinstance(item, dict) for item in value) for value in lists)


def _json_object(line: str) -> dict[str, Any] | None:
    """Return the object on a line; None where there is none or a key is repeated, as for the import."""

    def without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(content := dict(pairs)) < len(pairs):
            raise ValueError("repeated key")
        return content

    try:
        value = json.loads(line.strip(_AROUND), object_pairs_hook=without_repeated_keys, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _nested(values: Iterable[Any]) -> str:
    """Return why a column of JSON values cannot be mapped; empty if it can."""
    for value in values:
        if isinstance(value, dict):
            return "it holds objects: write the parts that are needed into keys of their own"
        if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
            return "it holds lists of lists or objects; the mapping can name an element, like NAME[0][-1]"
    return ""


# --- parquet ----------------------------------------------------------------------------------------------------------


def _parquet_sample(file: Path) -> FileSample:
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    schema = opened.schema_arrow
    names = Counter(schema.names)
    unusable = {name: "several columns have this name" for name, count in names.items() if count > 1}
    for column in schema:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_nested(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind):
            unusable.setdefault(column.name, f"the import cannot read its type, {str(column.type)[:60]}")
    usable = [column for column in schema if column.name not in unusable]
    pictures = [column.name for column in usable if _is_binary(column.type)]
    others = [column.name for column in usable if not _is_binary(column.type)]
    rows, tables = 0, []
    for part in _parquet_parts(opened, others) if others else ():
        rows += len(part)
        tables.append(pa.Table.from_batches([part]))
    columns: dict[str, list[Any]] = {}
    table = pa.concat_tables(tables) if tables else None
    for column in usable:
        if column.name in pictures:
            columns[column.name] = _first_values(opened, column.name)
        elif table is not None:
            columns[column.name] = table.column(column.name).to_pylist()
    return FileSample("parquet", "it begins with PAR1", rows, rows == opened.metadata.num_rows, columns, unusable)


def _parquet_parts(opened: Any, names: list[str]) -> Iterator[Any]:
    """Yield batches of at most SAMPLED_ROWS rows in all, from row groups all over the file; long texts are cut."""
    groups, total = opened.num_row_groups, opened.metadata.num_rows
    read = list(range(groups))
    if total > SAMPLED_ROWS and groups > 4 * _PARTS:
        read = [number * (groups - 1) // (4 * _PARTS - 1) for number in range(4 * _PARTS)]
    limit = SAMPLED_ROWS // max(len(read), 1) if total > SAMPLED_ROWS else SAMPLED_ROWS
    size = SAMPLED_BYTES // max(len(read), 1)
    for group in read:
        rows = used = 0
        for batch in opened.iter_batches(batch_size=min(limit, 1_000), row_groups=[group], columns=names):
            part = _with_short_texts(batch.slice(0, limit - rows))
            rows, used = rows + len(part), used + part.nbytes
            yield part
            if rows >= limit or used >= size:
                break


def _with_short_texts(batch: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    def short(column: Any) -> Any:
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        return pc.utf8_slice_codeunits(column, 0, _LONGEST_TEXT) if is_text else column

    return pa.record_batch([short(column) for column in batch.columns], names=batch.schema.names)


def _first_values(opened: Any, name: str) -> list[Any]:
    batch = next(opened.iter_batches(batch_size=_PICTURES, columns=[name]), None)
    return [] if batch is None else batch.column(0).to_pylist()


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))
