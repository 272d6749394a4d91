"""Checks that a table is whole and that nothing here misreads it: its log, protocol and columns, and its data files.

A table whose file is lost or cut off must not be read as a table with fewer rows: a run would decide on what is left,
and commit it. The checks read what costs little: the log, which is read anyway, sizes and footers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.errors import DataContractError, MissingFileError

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.storage import DataFile, Storage

READER_VERSION, WRITER_VERSION = 1, 2
"""Delta's protocol of the tables here. A table of a later protocol may have deleted rows or renamed columns in ways
that the readers here, Spark's reader of parquet among them, do not see."""

WAY_OUT = "Restore it from a backup, or see 'A table is damaged' in deploy/RUNBOOK.md"

LOG = "_delta_log"


# the log


def check_opened(place: Storage, table: str, delta: DeltaTable) -> None:
    """Raise DataContractError unless ``delta``, a version of ``table`` in ``place``, is read rightly here."""
    import pyarrow as pa

    protocol = delta.protocol()
    if protocol.min_reader_version > READER_VERSION:
        features = f", features {sorted(protocol.reader_features)}" if protocol.reader_features else ""
        raise DataContractError(
            f"{place.uri} needs a reader of Delta's protocol {protocol.min_reader_version}{features}: another program "
            f"changed the table, and its rows would be misread here. {WAY_OUT}"
        )
    stored = pa.schema(delta.schema().to_arrow())
    if not stored.equals(contract.arrow_schema(table)):
        raise DataContractError(
            f"{place.uri} does not have the columns of contract {table}.v1: it has {json.dumps(stored.names)}. A newer "
            "release or another program changed it: use that release, or restore the table"
        )
    if place.folder is not None:  # an object store has an object whole or not at all
        empty = [entry.name for entry in os.scandir(place.folder / LOG) if _is_empty_entry(entry)]
        if empty:
            raise DataContractError(f"{place.uri}/{LOG}/{min(empty)}, an entry of the table's log, is empty. {WAY_OUT}")


def check_writable(place: Storage, delta: DeltaTable) -> None:
    """Raise DataContractError if the table has rules for writers that are not kept here."""
    if (version := delta.protocol().min_writer_version) > WRITER_VERSION:
        raise DataContractError(
            f"{place.uri} needs a writer of Delta's protocol {version}: another program changed the table. {WAY_OUT}"
        )


def check_not_lost(place: Storage) -> None:
    """Raise DataContractError if the folder, in which there is no log, has the files of a table."""
    if place.folder is not None and any(place.folder.glob("*.parquet")):
        raise DataContractError(f"{place.uri} has files of a table, but its log {LOG} is not there. {WAY_OUT}")


def unreadable(place: Storage, problem: Exception) -> DataContractError:
    """Return the error to raise where deltalake cannot open the table in ``place``: it names the entry at fault."""
    reason = next(iter(str(problem).splitlines()), type(problem).__name__)
    entry = _broken_entry(place)
    where = f"{place.uri}/{LOG}/{entry}, an entry of the table's log," if entry else f"the log of {place.uri}"
    return DataContractError(f"{where} cannot be read ({reason[:300]}). {WAY_OUT}")


def _is_empty_entry(entry: os.DirEntry[str]) -> bool:
    with suppress(FileNotFoundError):  # upkeep deletes old entries
        return entry.name.endswith(".json") and entry.name[:20].isdigit() and entry.stat().st_size == 0
    return False


def _broken_entry(place: Storage) -> str | None:
    """Return the name of the first entry of the log that is not there or cannot be read; None if none is found."""
    import pyarrow as pa

    entries = sorted(place.files(LOG), key=lambda stored: stored.name)
    expected = None if any(".checkpoint." in stored.name for stored in entries) else 0
    for stored in entries:
        try:
            if stored.name.endswith(".checkpoint.parquet"):
                place.parquet(stored.path).close()
            if not (stored.name.endswith(".json") and stored.name[:20].isdigit()):
                continue
            if expected is not None and int(stored.name[:20]) != expected:
                return f"{expected:020}.json"
            expected = int(stored.name[:20]) + 1
            [json.loads(line) for line in place.read(stored.path).splitlines() if line.strip()]
        except (ValueError, pa.ArrowException):
            return stored.name
    return None


# the data files


def damaged(place: Storage, name: str, problem: object) -> DataContractError:
    """Return the error to raise for a data file that is not what the log says."""
    reason = next(iter(str(problem).splitlines()), type(problem).__name__)
    return DataContractError(f"{place.uri}/{name} is damaged: {reason[:300]}. {WAY_OUT}")


def _missing(place: Storage, name: str) -> MissingFileError:
    return MissingFileError(f"{place.uri}/{name}, a file that the table's log names, is not there. {WAY_OUT}")


@contextmanager
def opened(place: Storage, name: str, rows: int | None) -> Iterator[pq.ParquetFile]:
    """Open a data file for the block, which reads it and does nothing else.

    ``rows``: its number of rows by the log, None if that does not say. Raises MissingFileError if the file is not
    there, and DataContractError if it cannot be read or has another number of rows.
    """
    import pyarrow as pa

    try:
        with place.parquet(name) as parquet:
            if rows is not None and parquet.metadata.num_rows != rows:
                raise damaged(place, name, f"it has {parquet.metadata.num_rows:,} rows, and the log says {rows:,}")
            yield parquet
    except FileNotFoundError:
        raise MissingFileError(
            f"{place.uri}/{name}, a file that the table's log names, is not there. {WAY_OUT}"
        ) from None
    except MemoryError:  # Arrow's is an ArrowException, too
        raise
    except (pa.ArrowException, KeyError, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:  # a disk or a network, not the content
            raise
        raise damaged(place, name, problem) from problem


def check_files(place: Storage, files: Sequence[DataFile]) -> None:
    """Raise as :func:`opened` if a data file is lost or cut off: Spark reads an empty file as a file without rows.

    Sizes are asked for at every call, footers are read once per file and process: data files never change.
    """
    for file in files:
        size = place.size(file.name)
        if size is None:
            raise _missing(place, file.name)
        if size != file.size:
            raise damaged(place, file.name, f"it has {size:,} bytes, and the log says {file.size:,}")
        _check_footer(place, file)  # type: ignore[arg-type]  # a storage is a frozen dataclass


@lru_cache(maxsize=100_000)
def _check_footer(place: Storage, file: DataFile) -> None:
    with opened(place, file.name, file.rows):
        pass


# the rows


def check_products_unique(products: DataFrame, uri: str) -> None:
    """Raise DataContractError if the table ``products`` at ``uri`` has a product twice. It reads all ids: to be called
    where something does not add up."""
    rows = products.groupBy("product_id").count().where("count > 1").orderBy("product_id").limit(5).collect()
    if rows:
        twice = [row["product_id"] for row in rows]
        raise DataContractError(
            f"{uri} has several rows of the products {twice}: another program added them. {WAY_OUT}"
        )
