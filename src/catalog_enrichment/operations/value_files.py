"""Writes exported values to one file: CSV, JSON lines or parquet, the same columns in each."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from catalog_enrichment.catalog.part_files import row_groups, rows_per_group
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import spreadsheet

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("shop_id", pa.string()),
        ("category", pa.string()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("score", pa.float64()),
        ("model_version", pa.string()),
        ("certificate_id", pa.string()),
        ("run_id", pa.string()),
        ("since", pa.timestamp("us", tz="UTC")),
    ]
)
"""One row per value. Of a merchant's value everything after ``source`` is null, of a human's the score may be."""

_GIVEN = ("product_id", "shop_id", "category", "attribute", "value")
"""Columns whose texts come from merchants, people or the dictionary."""
_TEXT_SCHEMA = SCHEMA.set(SCHEMA.get_field_index("since"), pa.field("since", pa.string()))
_JSON_ROWS = 10_000
"""Rows that are Python objects at a time."""
_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}

_Write = Callable[[pa.Table], None]


def destination(output: str, given: Format | None) -> tuple[Path, Format]:
    """The file to write and its format, for the arguments --output and --format.

    A folder, which is there or named with a slash at the end, gets a file ``values.FORMAT``. Without ``given`` the
    file's suffix tells the format; without a suffix it is CSV. Raises ConfigError for another suffix.
    """
    path = Path(output).expanduser().resolve()
    if path.is_dir() or output.endswith(("/", os.sep)):
        return path / f"values.{given or 'csv'}", given or "csv"
    if given is not None:
        return path, given
    of_suffix: dict[str, Format] = {f".{kind}": kind for kind in FORMATS} | {"": "csv"}
    if (suffix := path.suffix.lower()) not in of_suffix:
        raise ConfigError(f"--output {output}: {suffix} is none of {', '.join(FORMATS)}; give --format")
    return path, of_suffix[suffix]


def require_free(target: Path, overwrite: bool) -> None:
    """Make the folder of ``target``. Raises ConfigError if there is a file already, unless ``overwrite``, or there
    cannot be one."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        taken = target.exists()
    except OSError as problem:
        if problem.errno not in _NO_FOLDER:
            raise
        raise ConfigError(f"--output {target} cannot be written: {os.strerror(problem.errno or 0)}") from problem
    if target.is_dir():
        raise ConfigError(f"--output {target} is a folder; choose another file")
    if taken and not overwrite:
        raise ConfigError(f"--output {target} is there already; choose another file, or replace it with --overwrite")


def write_values(batches: Iterable[pa.RecordBatch], target: Path, kind: Format) -> dict[str, int]:
    """Write the rows of ``batches``, with the columns of SCHEMA by name, to ``target``; returns source -> rows.

    They are written to another file in the same folder, which then takes the place of ``target``: nobody sees half of
    them, and what was there stays where the writing fails. About 16 MiB of rows are held in memory.
    """
    scratch = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:12]}.tmp")
    sources: Counter[str] = Counter()
    try:
        with _WRITERS[kind](scratch) as write:
            for table in row_groups(batches, SCHEMA):
                write(table)
                for pair in pc.value_counts(table["source"]).to_pylist():
                    sources[pair["values"]] += pair["counts"]
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return dict(sorted(sources.items()))


@contextmanager
def _csv(file: Path) -> Iterator[_Write]:
    """With a header, in UTF-8, every text in quotes; null is an empty cell without quotes."""
    from pyarrow.csv import CSVWriter

    def write(table: pa.Table) -> None:
        table = _with_time_as_text(table)
        for name in _GIVEN:
            index = table.schema.get_field_index(name)
            table = table.set_column(index, table.field(index), spreadsheet.as_text_array(table[name]))
        writer.write_table(table)

    with CSVWriter(str(file), _TEXT_SCHEMA) as writer:
        yield write


@contextmanager
def _jsonl(file: Path) -> Iterator[_Write]:
    """A JSON object per line."""

    def write(table: pa.Table) -> None:
        for batch in _with_time_as_text(table).to_batches(max_chunksize=_JSON_ROWS):
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())

    with file.open("w", encoding="utf-8", newline="\n") as stream:
        yield write


@contextmanager
def _parquet(file: Path) -> Iterator[_Write]:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        yield lambda table: writer.write_table(table, row_group_size=rows_per_group(table))


def _with_time_as_text(table: pa.Table) -> pa.Table:
    """``since`` in ISO 8601, in UTC."""
    index = table.schema.get_field_index("since")
    texts = pc.strftime(table["since"], format="%Y-%m-%dT%H:%M:%SZ")  # %S has the microseconds, too
    return table.set_column(index, _TEXT_SCHEMA.field(index), texts)


_WRITERS: dict[Format, Callable[[Path], AbstractContextManager[_Write]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
