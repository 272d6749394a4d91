"""Opens a source's files in any of the formats as one frame (:mod:`catalog_enrichment.ingest.source_frame`).

In the text formats every column is read as text (a JSON list stays JSON), so that one value of another type cannot
break a row or a file; ``SourceFrame.types`` has the types of the values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.csv_files import open_csv
from catalog_enrichment.ingest.json_documents import open_json
from catalog_enrichment.ingest.source_frame import FILE_STEM, RESERVED, FileLocation, SourceFrame, quoted, with_origin

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def locate_files(path: str, file_format: str, base: Path, option: str = "source.path") -> FileLocation:
    """The absolute location of a config's path. Raises DataContractError, naming ``option``, if nothing is there."""
    if "://" in path and not path.startswith("file://"):
        uri = path.rstrip("/")
        is_file = file_format != "delta" and "." in uri.rsplit("/", 1)[1]
        return FileLocation(uri, uri.rsplit("/", 1)[0] if is_file else uri)
    local = (base / Path(path.removeprefix("file://")).expanduser()).resolve()
    if not local.exists():
        raise DataContractError(f"{option}: nothing at {local}. Check {option} and root in the config.")
    if local.is_dir() and not any(f.is_file() and not f.name.startswith((".", "_")) for f in local.rglob("*")):
        raise DataContractError(f"{option}: {local} is an empty folder; expected {file_format} files in it.")
    return FileLocation(str(local), str(local if local.is_dir() else local.parent))


def open_files(
    spark: SparkSession, file_format: str, location: FileLocation, columns: Sequence[str], wanted: Iterable[str]
) -> SourceFrame:
    """The files as a frame with those columns of ``wanted`` that exist.

    ``columns`` names all columns of CSV and TSV files without a header, and is empty otherwise. Raises
    DataContractError for files that are not of ``file_format``, and for a reserved name in ``wanted``.
    """
    names = usable_names(wanted)
    with refused_if_unreadable(location, file_format):
        if file_format == "delta":
            return _open_delta(spark, location.path, names)
        if file_format == "parquet":
            return _open_parquet(spark, location, names)
        if file_format in ("csv", "tsv"):
            return open_csv(spark, "\t" if file_format == "tsv" else ",", location, columns, names)
        return open_json(spark, file_format, location, names)


def usable_names(wanted: Iterable[str]) -> list[str]:
    """The names of ``wanted`` that are looked for in the source. Raises DataContractError for a reserved one."""
    names = sorted(set(wanted) - {FILE_STEM})
    if reserved := sorted(set(names) & set(RESERVED)):
        raise DataContractError(f"mapped columns may not be called {reserved}: these names are reserved")
    return names


@contextmanager
def refused_if_unreadable(location: FileLocation, file_format: str) -> Iterator[None]:
    """A block in which Spark opens the files at ``location``: its errors become DataContractErrors."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as problem:  # Py4JJavaError: Java errors without a PySpark class
        java = getattr(problem, "java_exception", None)
        reason = str(java.getMessage() if java is not None else problem).splitlines()[0]
        raise DataContractError(f"{location.path} cannot be read as {file_format}: {reason}") from None


def delta_table(path: str) -> Any:
    """The Delta table at ``path``. Raises DataContractError if there is none or it uses unsupported features."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        table = DeltaTable(path)
    except (TableNotFoundError, DeltaError) as problem:
        raise DataContractError(f"{path} is not a readable Delta table: {problem}") from None
    if unread := set(table.protocol().reader_features or ()) & {"deletionVectors", "columnMapping"}:
        raise DataContractError(f"{path} uses {sorted(unread)}, which cannot be read here; export it as parquet.")
    return table


def _open_delta(spark: SparkSession, path: str, wanted: Sequence[str]) -> SourceFrame:
    from pyspark.sql.types import StructType

    table = delta_table(path)
    fields = json.loads(table.schema().to_json())["fields"]
    files = table.file_uris()
    if not files:
        raise DataContractError(f"the Delta table {path} holds no rows (version {table.version()}).")
    schema = StructType.fromJson({"type": "struct", "fields": [field for field in fields if field["name"] in wanted]})
    opened = _parquet(spark.read.schema(schema).option("basePath", path).parquet(*files), wanted)
    return SourceFrame(opened.frame, opened.types, lambda: [field["name"] for field in fields])


def _open_parquet(spark: SparkSession, location: FileLocation, wanted: Sequence[str]) -> SourceFrame:
    """Local files are read also where other columns have types that Spark does not know, such as nanoseconds."""
    import pyarrow.parquet as pq
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import StructField, StructType

    try:
        return _parquet(spark.read.parquet(location.path), wanted)
    except PySparkException:
        file = Path(location.path)
        files = [file] if location.is_file else sorted(file.rglob("[!._]*.parquet"))
        if "://" in location.path or not files or not pq.read_metadata(files[0]).num_columns:
            raise
        columns = pq.read_schema(files[0])
        read = [field for field in columns if field.name in wanted]
        schema = StructType([StructField(field.name, from_arrow_type(field.type)) for field in read])
        opened = _parquet(spark.read.schema(schema).parquet(location.path), wanted)
        return SourceFrame(opened.frame, opened.types, lambda: columns.names)


def _parquet(rows: DataFrame, wanted: Sequence[str]) -> SourceFrame:
    from pyspark.sql import functions as F

    types = {field.name: field.dataType for field in rows.schema if field.name in wanted}
    file = rows.metadataColumn("_metadata")  # also where a column of the source is called _metadata
    frame = with_origin(
        rows, [quoted(name) for name in types], F.lit(None), file.getField("file_path"), file.getField("row_index")
    )
    return SourceFrame(frame, types, lambda: rows.columns)
