"""Exports the values that readers see to one file: CSV, JSON lines or parquet, or a spreadsheet for people.

Cells of CSV files that a spreadsheet would take for a formula begin with an apostrophe (OWASP, CSV injection).
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.part_files import row_groups, rows_per_group
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.operations.spreadsheet import xlsx_writer
from catalog_enrichment.records import Op, RunStatus
from catalog_enrichment.spark import category_filters, value_columns
from catalog_enrichment.spark.frames import streamed

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.dictionary import Dictionary

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

ExportFormat = Literal["csv", "jsonl", "parquet", "xlsx"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("shop_id", pa.string()),
        ("category", pa.string()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("number", pa.float64()),
        ("unit", pa.string()),
        ("source", pa.string()),
        ("score", pa.float64()),
        ("evidence", pa.string()),
        ("model_version", pa.string()),
        ("certificate_id", pa.string()),
        ("run_id", pa.string()),
        ("since", pa.timestamp("us", tz="UTC")),
    ]
)
"""One row per value. Number and unit: of attributes of the kind `number`; null for what a merchant gave that is no
number. For a merchant's value all columns after ``source`` are null; a human's score may be null, and the evidence,
which the proposer of a model's value gave, is."""

TITLED_SCHEMA = SCHEMA.insert(1, pa.field("title", pa.string()))
"""With the product's title."""

FORMULA = "^[\t-\r ]*[=+\\-@\uff1d\uff0b\uff0d\uff20]"
"""What a spreadsheet takes for a formula: a first =, +, - or @, full-width too, also after blanks. The pattern means
the same to Java, to RE2 (Arrow) and to Python."""

PARTITION_ROWS = 100_000
"""About 30 MB; the driver holds two partitions at a time."""
_NAMED_RUNS = 5
"""How many runs a message names."""
_GIVEN = ("product_id", "title", "shop_id", "category", "attribute", "value", "evidence")
"""Columns whose texts come from merchants, people or the dictionary."""
_JSON_ROWS = 10_000
"""Rows that are Python objects at a time."""
_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}

WriteTable = Callable[[pa.Table], None]

OpenWriter = Callable[[Path], AbstractContextManager[WriteTable]]
"""Opens a file, and gives the function that writes a table to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """What to export and where to. An empty restriction means all; several must hold together."""

    target: Path
    kind: ExportFormat
    overwrite: bool = False
    titles: bool = False
    """Add the column `title`. A spreadsheet has it always."""
    attributes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """Category paths, each with all below it."""
    shops: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    """Only values that these runs wrote and readers still see; a backfill stands for its chunks."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of the export."""
        return TITLED_SCHEMA if self.titles or self.kind == "xlsx" else SCHEMA


def check(catalog: Catalog, dictionary: Dictionary, request: ExportRequest) -> None:
    """Check ``request`` without Spark, and make the folder of its target.

    Raises ConfigError for an empty catalog, an unknown attribute, a run that wrote no values, or a target that cannot
    be used.
    """
    if catalog.version("current_values") < 0:
        raise ConfigError(f"there are no values in {catalog.location('current_values')}: run import_products first")
    if unknown := [name for name in request.attributes if name not in dictionary]:
        raise ConfigError(f"no attribute {unknown} in the dictionary; it has {sorted(dictionary.attributes)}")
    _writers(catalog, request.run_ids)
    folder = Path(catalog.location("current_values")).parent
    if request.target.is_relative_to(folder):
        raise ConfigError(f"--output {request.target} lies in the catalog's own folder {folder}; choose another folder")
    require_free(request.target, request.overwrite)


def export_values(catalog: Catalog, request: ExportRequest, say: Say = to_stderr) -> dict[str, Any]:
    """Write the values that readers see to ``request.target``, sorted by product, attribute and value.

    Returns the job's summary. Raises ConfigError for a category or shop that no product has.
    """
    stages = Stages(say)
    with stages("export") as stage:
        _check_products(catalog.read("products", columns=["category", "shop_id"]), request)
        sources = write_values(streamed(_values_seen(catalog, request)), request.target, request.kind, request.schema)
        stage.rows_out = sum(sources.values())
    by_source = ", ".join(f"{source} {count:,}" for source, count in sources.items())
    say(f"wrote {stage.rows_out:,} values{f' ({by_source})' if by_source else ''} to {request.target}")
    return {
        "status": RunStatus.SUCCEEDED,
        "file": str(request.target),
        "format": request.kind,
        "values": stage.rows_out,
        "sources": sources,
        "seconds": stages.seconds,
    }


# --- the rows -------------------------------------------------------------------------------------------------------


def _values_seen(catalog: Catalog, request: ExportRequest) -> DataFrame:
    """Return the values of ``request``, with the columns of its schema, sorted.

    The partitions have about PARTITION_ROWS: Spark would choose them by their compressed size, and on the way to the
    driver they are not compressed.
    """
    from pyspark.sql import functions as F

    seen = catalog.read("current_values")
    run_ids = _writers(catalog, request.run_ids)
    for name, wanted in {"attribute": request.attributes, "source": request.sources, "run_id": run_ids}.items():
        if wanted:
            seen = seen.where(F.col(name).isin(list(wanted)))
    values = seen.withColumn("value", F.explode("values")).withColumnRenamed("asserted_at", "since")
    key = ["run_id", "product_id", "attribute", "value"]  # with the operation it identifies an event
    asserts = catalog.read("attribute_values").where(F.col("op") == Op.ASSERT.value).select(*key, "score", "evidence")
    of_product = ["product_id", "shop_id", "category", *(["title"] if "title" in request.schema.names else [])]
    products = catalog.read("products", columns=of_product)
    rows = values.join(asserts, key, "left").join(products, "product_id", "left")
    if request.categories:
        rows = rows.where(category_filters.below(request.categories))
    if request.shops:
        rows = rows.where(F.col("shop_id").isin(list(request.shops)))
    rows = rows.withColumns(value_columns.number_and_unit(catalog.dictionary))
    [(most,)] = seen.agg(F.sum(F.size("values"))).collect()
    order = ("product_id", "attribute", "value")
    partitions = max(1, ceil((most or 0) / PARTITION_ROWS))
    return rows.select(*request.schema.names).repartitionByRange(partitions, *order).sortWithinPartitions(*order)


def _check_products(products: DataFrame, request: ExportRequest) -> None:
    from pyspark.sql import functions as F

    category_filters.require_known(products, request.categories, "--category")
    if request.shops:
        found = products.where(F.col("shop_id").isin(list(request.shops))).select("shop_id").distinct().collect()
        if unknown := sorted(set(request.shops) - {row["shop_id"] for row in found}):
            raise ConfigError(f"--shop: no product is of {unknown}. Shop ids are compared as they are in the feed")


def _writers(catalog: Catalog, run_ids: Iterable[str]) -> list[str]:
    """Return the ``run_ids`` with the chunks of backfills. Raises ConfigError for a run that wrote no values."""
    rows = runs.rows(catalog, ["run_id", "parent_run_id", "finished_at"]) if run_ids else []
    writers: list[str] = []
    for run_id in run_ids:
        chunks = {row["run_id"] for row in rows if row["parent_run_id"] == run_id}  # rollbacks wrote no value
        wrote = [name for name in sorted({run_id, *chunks}) if catalog.committed("attribute_values", name)]
        if not wrote:
            newest_first = dict.fromkeys(row["run_id"] for row in reversed(rows))
            did = (name for name in newest_first if catalog.committed("attribute_values", name))
            newest = list(islice(did, _NAMED_RUNS))
            raise ConfigError(f"run {run_id!r} wrote no values. The newest that did: {newest}")
        writers += wrote
    return writers


# --- the file -------------------------------------------------------------------------------------------------------


def destination(output: str, given: ExportFormat | None) -> tuple[Path, ExportFormat]:
    """Return the file to write and its format, for the arguments --output and --format.

    A folder, which is there or named with a slash at the end, gets a file ``values.FORMAT``. Without ``given`` the
    file's suffix tells the format; without a suffix it is CSV. Raises ConfigError for another suffix.
    """
    path = Path(output).expanduser().resolve()
    if path.is_dir() or output.endswith(("/", os.sep)):
        return path / f"values.{given or 'csv'}", given or "csv"
    if given is not None:
        return path, given
    of_suffix: dict[str, ExportFormat] = {f".{kind}": kind for kind in EXPORT_FORMATS} | {"": "csv"}
    if (suffix := path.suffix.lower()) not in of_suffix:
        raise ConfigError(f"--output {output}: {suffix} is none of {', '.join(EXPORT_FORMATS)}; give --format")
    return path, of_suffix[suffix]


def require_free(target: Path, overwrite: bool) -> None:
    """Make the folder of ``target``. Raises ConfigError if no file can be there, or a file is, unless ``overwrite``."""
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


def write_values(
    batches: Iterable[pa.RecordBatch], target: Path, kind: ExportFormat, schema: pa.Schema = SCHEMA
) -> dict[str, int]:
    """Write the rows of ``batches``, with the columns of ``schema`` by name, to ``target``. Return source -> rows."""
    writers: dict[ExportFormat, OpenWriter] = {
        "csv": partial(_csv, schema=schema),
        "jsonl": _jsonl,
        "parquet": partial(parquet_writer, schema=schema),
        "xlsx": partial(xlsx_writer, schema=schema),
    }
    return dict(sorted(write_whole(batches, schema, target, writers[kind], "source").items()))


def write_whole(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, target: Path, writer: OpenWriter, counted: str
) -> Counter[str]:
    """Write the rows of ``batches``, with the columns of ``schema`` by name, to ``target``.

    They are written to another file in the same folder, which then replaces ``target``: nobody sees half of them, and
    the earlier file stays where the writing fails. About 16 MiB of rows are held in memory. Return text in the column
    ``counted`` -> rows.
    """
    scratch = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:12]}.tmp")
    counts: Counter[str] = Counter()
    try:
        with writer(scratch) as write:
            for table in row_groups(batches, schema):
                write(table)
                for pair in pc.value_counts(table[counted]).to_pylist():
                    counts[pair["values"]] += pair["counts"]
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return counts


@contextmanager
def _csv(file: Path, schema: pa.Schema) -> Iterator[WriteTable]:
    """Write a header, UTF-8, every text in quotes; null is an empty cell without quotes."""
    from pyarrow.csv import CSVWriter

    def write(table: pa.Table) -> None:
        table = _with_time_as_text(table)
        for name in (name for name in _GIVEN if name in table.schema.names):
            index = table.schema.get_field_index(name)
            table = table.set_column(index, table.field(index), without_formulas(table[name]))
        writer.write_table(table)

    with CSVWriter(str(file), _with_time_as_text(schema.empty_table()).schema) as writer:
        yield write


@contextmanager
def _jsonl(file: Path) -> Iterator[WriteTable]:
    """Write a JSON object per line."""

    def write(table: pa.Table) -> None:
        for batch in _with_time_as_text(table).to_batches(max_chunksize=_JSON_ROWS):
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())

    with file.open("w", encoding="utf-8", newline="\n") as stream:
        yield write


@contextmanager
def parquet_writer(file: Path, schema: pa.Schema) -> Iterator[WriteTable]:
    """Open a parquet file, and yield the function that writes a table to it."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield lambda table: writer.write_table(table, row_group_size=rows_per_group(table))


def _with_time_as_text(table: pa.Table) -> pa.Table:
    """Return the table with ``since`` in ISO 8601, in UTC."""
    index = table.schema.get_field_index("since")
    texts = pc.strftime(table["since"], format="%Y-%m-%dT%H:%M:%SZ")  # %S has the microseconds, too
    return table.set_column(index, pa.field("since", pa.string()), texts)


def without_formulas(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Put an apostrophe before each text that would be a formula; nulls stay."""
    quoted = pc.binary_join_element_wise("'", texts, "")
    return pc.if_else(pc.match_substring_regex(texts, FORMULA), quoted, texts)


def without_formulas_in_spark(column: Column) -> Column:
    """Do the same as :func:`without_formulas` for a column of Spark."""
    from pyspark.sql import functions as F

    return F.when(column.rlike(FORMULA), F.concat(F.lit("'"), column)).otherwise(column)
