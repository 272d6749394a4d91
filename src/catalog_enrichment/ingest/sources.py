"""Opens what the config's section `[source]` names: files of any format, a database or an API, and the labels file.

Files and Parquet are opened here; text_files.py, json_files.py, delta_source.py, postgres_source.py and api_source.py
open the other formats. In the text formats every column is read as text (a JSON list stays JSON), so that a value of
another type cannot break a row or a file; ``SourceFrame.types`` has the types of the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.remote_sources import ApiConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.config.source import ROW_FORMATS, LabelsConfig, MappingConfig, SourceConfig
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError, GateRefused
from catalog_enrichment.failures import recognised
from catalog_enrichment.ingest.csv_rows import COMMAS, Layout
from catalog_enrichment.ingest.json_files import open_json
from catalog_enrichment.ingest.labelled_source import LabelledSource
from catalog_enrichment.ingest.shop_rows import ROW_BY_ROW, RowPlan
from catalog_enrichment.ingest.source_frame import (
    CORRUPT,
    AllNeeded,
    ChangedRows,
    Location,
    Position,
    ProductSource,
    SourceFrame,
    named_columns,
    parquet_frame,
    quoted,
    refused_if_unreadable,
    spark_path,
)
from catalog_enrichment.ingest.text_files import TextFiles
from catalog_enrichment.monitoring.stages import Say
from catalog_enrichment.records import stable_hash
from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MOST_FILES = 10_000
"""Files of a folder that an import remembers, in its row of `runs`."""

_SAME_COLUMNS = ("csv", "tsv", "parquet", "id_lists")
"""Formats whose files have the same columns each; in the others, a column is one that some file has."""


@contextmanager
def opened_source(spark: SparkSession, config: Config, say: Say) -> Iterator[ProductSource]:
    """Open the config's source for one import, and close it when the block ends.

    What it keeps for a later attempt is discarded when the block ends well or the rows are refused: the next import
    must look at new rows then. An error that a task raised is raised as the driver would raise it. Raises
    DataContractError if there is nothing at the source's path.
    """
    source = _source(spark, config, say)
    try:
        yield source
    except (DataContractError, GateRefused):
        source.discard()
        raise
    except CatalogEnrichmentError:
        raise
    except Exception as problem:
        if known := recognised(problem):
            raise known from problem
        raise
    else:
        source.discard()
    finally:
        source.close()


def source_config(config: Config) -> SourceConfig:
    """Return the section `[source]`. Raises ConfigError if the config has none."""
    if config.source is None:
        raise ConfigError("the config has no [source] section (format, path, mapping): there is nothing to import")
    return config.source


def _source(spark: SparkSession, config: Config, say: Say) -> ProductSource:
    given, base = source_config(config), config.path(".")
    source: ProductSource
    if given.postgres is not None:
        from catalog_enrichment.ingest.postgres_source import postgres_source

        source = postgres_source(spark, given.path, given.postgres, say, given.watermark, given.watermark_overlap)
    elif given.api is not None:
        from catalog_enrichment.ingest.api_source import api_source

        source = api_source(spark, given.path, given.api, _pages_folder(config, given.api), say)
    else:
        location = locate_files(given.path, given.format, base)
        source = opened_files(spark, given.format, location, _layout(given), RowPlan.of(given), given.mapping)
    if given.labels is None:
        return source
    location = locate_files(given.labels.path, given.labels.format, base, "source.labels.path")
    labels = FileSource(spark, given.labels.format, location, _layout(given.labels))
    return LabelledSource(source, labels, given.labels.key)


def key_columns(mapping: MappingConfig) -> frozenset[str]:
    """Return every column that the product id can be made of."""
    given = mapping.product_id
    return frozenset().union(*map(named_columns, [given] if isinstance(given, str) else given))


def opened_files(
    spark: SparkSession,
    file_format: str,
    location: Location,
    layout: Layout = COMMAS,
    plan: RowPlan = ROW_BY_ROW,
    mapping: MappingConfig | None = None,
) -> ProductSource:
    """Return the source of files of a format. ``mapping``: of a source that can be asked for its changes.

    Raises DataContractError for a Delta table that cannot be read.
    """
    if file_format != "delta":
        return FileSource(spark, file_format, location, layout, plan)
    from catalog_enrichment.ingest.delta_source import DeltaSource

    return DeltaSource(spark, location, frozenset() if mapping is None else key_columns(mapping))


def _layout(given: SourceConfig | LabelsConfig) -> Layout:
    """Return how the cells of the files are found."""
    if isinstance(given, LabelsConfig):
        columns = ("list", given.key) if given.format == "id_lists" else tuple(given.columns)
        return Layout("\t" if given.format == "tsv" else ",", columns=columns)
    separator = "\t" if given.format == "tsv" else given.separator or ","
    return Layout(separator, given.encoding, given.header_row, tuple(given.columns), given.decimal, given.sheet)


def _pages_folder(config: Config, api: ApiConfig) -> Path:
    """Return the folder of an API's pages, by default that of the checkpoints, which maintain_catalog cleans up."""
    if "://" in config.catalog.path and not api.pages_folder:
        raise ConfigError("source.api.pages_folder is needed: a folder for pages, as catalog.path is in no folder")
    return config.path(api.pages_folder or f"{config.catalog.path}/_staging")


def locate_files(path: str, file_format: str, base: Path, option: str = "source.path") -> Location:
    """Return the absolute location of a config's path. Raises DataContractError, naming ``option``, if it is empty."""
    if "://" in path and not path.startswith("file://"):
        uri = path.rstrip("/")
        is_file = file_format != "delta" and "." in uri.rsplit("/", 1)[1]
        return Location(uri, uri.rsplit("/", 1)[0] if is_file else uri)
    local = (base / Path(path.removeprefix("file://")).expanduser()).resolve()
    if not local.exists():
        raise DataContractError(f"{option}: nothing at {local}. Check {option} and root in the config.")
    if local.is_dir() and not any(_files_below(local)):
        raise DataContractError(f"{option}: {local} is an empty folder; expected {file_format} files in it.")
    return Location(str(local), str(local if local.is_dir() else local.parent))


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files that Spark's readers do not skip."""
    return (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith((".", "_")))


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files of one format."""

    spark: SparkSession
    format: str
    """One of `source.format` and `source.labels.format`."""
    location: Location
    layout: Layout = COMMAS
    plan: RowPlan = ROW_BY_ROW

    def fingerprint(self, imported: str = "") -> str:  # noqa: ARG002  the protocol's signature
        """Return a hash of the path, size and time of every file."""
        with refused_if_unreadable(self.location.path, self.format):
            return stable_hash(self.format, self._listing())

    def open(self, names: Sequence[str]) -> SourceFrame:
        """Open the columns ``names``, as far as they exist. Raises DataContractError for files of another format."""
        with refused_if_unreadable(self.location.path, self.format):
            if self.format == "parquet":
                return _open_parquet(self.spark, self.location, names)
            if self.format == "id_lists":
                return _open_id_lists(self.spark, self.location, *self.layout.columns)
            if self.format in ROW_FORMATS:
                return TextFiles(self.spark, self.format, self.location, self.layout, self.plan).open(names)
            return open_json(self.spark, self.format, self.location, names)

    def position(self) -> Position:
        """Return a short hash of the path, size and time of every file."""
        listing = self._listing()
        return {"files": sorted(map(_file_hash, listing)) if len(listing) <= MOST_FILES else []}

    def since(self, position: Position, names: Sequence[str]) -> ChangedRows:  # noqa: ARG002  the protocol's signature
        """Return the rows of the files that are new since ``position``, or have another size or time.

        Raises AllNeeded for a single file, where all files are new, and where files are too many to be remembered.
        """
        known, listing = set(position["files"]), self._listing()
        new = [file for file in listing if _file_hash(file) not in known]
        if self.location.is_file:
            raise AllNeeded("the source is one file")
        if len(listing) > MOST_FILES:
            raise AllNeeded(f"the folder has more than {MOST_FILES:,} files")
        if len(new) == len(listing):
            raise AllNeeded("all files are new")
        paths = tuple(path for path, _, _ in new)
        part = replace(self, location=replace(self.location, files=paths))

        def opened(asked: Sequence[str]) -> SourceFrame:
            return replace(part.open(asked), may_lack=self.format not in _SAME_COLUMNS)

        how = f"{len(new):,} new or changed of {len(listing):,} files"
        return ChangedRows(self.location, how, opened if new else self.open, is_empty=not new)

    def close(self) -> None:
        """Do nothing: files need not be closed."""

    def discard(self) -> None:
        """Do nothing: nothing was kept."""

    def _listing(self) -> list[tuple[str, int, float]]:
        """Return the path, bytes and modification time of every file, sorted."""
        if "://" not in self.location.path:
            path = Path(self.location.path)
            found = []
            for file in [path] if self.location.is_file else _files_below(path):
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    found.append((str(file), file.stat().st_size, file.stat().st_mtime))
            return sorted(found)
        files = self.spark.read.format("binaryFile").option("recursiveFileLookup", True)
        files = files.load(spark_path(self.location.path))
        listing = files.select("path", "length", files.modificationTime.cast("double").alias("at")).collect()
        return sorted(tuple(file) for file in listing)


def _file_hash(file: tuple[str, int, float]) -> str:
    return stable_hash(*file)[:12]


def _open_parquet(spark: SparkSession, location: Location, names: Sequence[str]) -> SourceFrame:
    """Open local files also where other columns have types that Spark does not know.

    Raises DataContractError for a column of ``names`` whose type differs between the files of a local folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import StructField, StructType

    # times in nanoseconds are numbers for Spark then, instead of an error
    api_mode.of(spark).set("spark.sql.legacy.parquet.nanosAsLong", "true")
    paths, file = location.read_paths, Path(location.path)
    reader = spark.read.option("basePath", location.folder) if location.files else spark.read
    if "://" in location.path:
        rows = reader.parquet(*paths)
        return parquet_frame(rows, names, rows.columns)
    files = [file] if location.is_file else sorted(file.rglob("[!._]*.parquet"))
    files = [file for file in files if not location.files or str(file) in location.files]
    types = _parquet_types(files, names)
    nanoseconds = {name for name, kind in types.items() if pa.types.is_timestamp(kind) and kind.unit == "ns"}
    try:
        rows = reader.parquet(*paths)
        available = rows.columns
    except PySparkException:
        if not files or not pq.read_metadata(files[0]).num_columns:
            raise
        kinds = {name: pa.int64() if name in nanoseconds else kind for name, kind in types.items()}
        schema = StructType([StructField(name, from_arrow_type(kind)) for name, kind in kinds.items()])
        rows, available = reader.schema(schema).parquet(*paths), pq.read_schema(files[0]).names
    opened = parquet_frame(rows, names, available)
    times = {name: F.timestamp_micros(F.floor(quoted(name) / 1000)) for name in nanoseconds & set(opened.types)}
    frame = opened.frame.withColumns(times) if times else opened.frame
    return SourceFrame(frame, {name: frame.schema[name].dataType for name in opened.types}, opened.available)


def _parquet_types(files: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    """Return name -> Arrow type of the columns ``names``. Raises DataContractError where two files differ in a type."""
    import pyarrow.parquet as pq

    found: dict[str, tuple[Any, Path]] = {}
    for file in files:
        for field in pq.read_schema(file):
            kind, first = found.setdefault(field.name, (field.type, file))
            if field.name in names and kind != field.type:
                raise DataContractError(
                    f"column {field.name!r} is {kind} in {first} and {field.type} in {file}: write both with one type, "
                    "or import them one by one"
                )
    return {name: found[name][0] for name in names if name in found}


def _open_id_lists(spark: SparkSession, location: Location, name: str, key: str) -> SourceFrame:
    """Open a JSON object of lists, {name: [id, ...]}, as rows of ``name`` and ``key``."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType

    documents = spark.read.text(spark_path(location.path), wholetext=True)
    lists = documents.select(F.explode(F.from_json("value", "map<string, array<string>>")).alias(name, "ids"))
    rows = lists.select(name, F.explode("ids").alias(key), F.lit(None).cast("string").alias(CORRUPT))
    return SourceFrame(rows, {name: StringType(), key: StringType()}, lambda: [name, key])
