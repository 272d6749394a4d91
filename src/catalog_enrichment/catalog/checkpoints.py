"""The checkpoints of a run: what it has computed and stored before its commit, for the same run when it starts again.

::

    _staging/RUN_ID/NAME-HASH/     parquet files of a DataFrame; the hash is that of its schema
    _staging/RUN_ID/NAME-note/     a few numbers of the driver's
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.storage import MARKER, DataFile, Storage
from catalog_enrichment.errors import ConfigError, TemporaryFailure
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.locks import FolderLock, Lease

STAGING = "_staging"


class Checkpoints:
    """The checkpoints in ``storage``, of runs that hold ``lock`` when they remove theirs."""

    def __init__(self, storage: Storage, lock: FolderLock | Lease) -> None:
        self._storage, self._lock = storage, lock

    def get_or_compute(self, run_id: str, name: str, df: DataFrame) -> DataFrame:
        """Return ``df``, computed once and stored until :meth:`drop`; ``run_id`` run again reads what is stored."""
        # the shape is part of the name: a program that stores other columns computes again
        place = self._storage.below(f"{_folder(run_id)}/{_simple(name)}-{stable_hash(df.schema.json())[:12]}")
        if place.folder is None:
            return _in_object_store(place, df)
        folder = f"file://{place.folder}"
        # an empty file, as a power failure may leave it, would be read as no rows
        if place.size(MARKER) is None or any(
            file.name.endswith(".parquet") and not file.size for file in place.files()
        ):
            df.write.mode("overwrite").option("compression", "zstd").parquet(folder)
        return df.sparkSession.read.schema(df.schema).parquet(folder)

    def has(self, run_id: str, name: str) -> bool:
        """Return whether :meth:`get_or_compute` would read what is stored, if the columns are the same."""
        start = f"{_folder(run_id)}/{_simple(name)}-"
        return any(
            file.path.startswith(start) and file.name == MARKER and "/" not in file.path[len(start) : -len(MARKER) - 1]
            for file in self._storage.files(_folder(run_id))
        )

    def remember(self, run_id: str, name: str, content: dict[str, Any]) -> dict[str, Any]:
        """Return ``content``, plain data; for ``run_id`` run again, the content of the first time.

        It is kept as a checkpoint is.
        """
        path = f"{_folder(run_id)}/{_simple(name)}-note/note.json"
        with suppress(FileNotFoundError):
            return dict(json.loads(self._storage.read(path)))
        self._storage.put(path, json.dumps(content).encode())
        return content

    def drop(self, run_id: str) -> None:
        """Remove the checkpoints of ``run_id``; nothing happens if it has none."""
        self._storage.discard(_folder(run_id))

    @contextmanager
    def dropping(self, run_id: str, keep: Sequence[str] = ()) -> Iterator[None]:
        """Run the block, then, also after an error, remove the checkpoints of ``run_id`` except those in ``keep``.

        Nothing is removed where another job may work under the same run id by now.
        """
        try:
            yield
        finally:
            inside = len(_folder(run_id)) + 1
            found = self._storage.files(_folder(run_id)) if self._lock_is_held() else ()
            for name in sorted({file.path[inside:].partition("/")[0] for file in found}):
                if name.rpartition("-")[0] not in keep:
                    self._storage.discard(f"{_folder(run_id)}/{name}")

    def _lock_is_held(self) -> bool:
        try:
            self._lock.assert_held()
        except TemporaryFailure:
            return False
        return True


def _in_object_store(place: Storage, df: DataFrame) -> DataFrame:
    from pyspark.sql.pandas.types import to_arrow_schema

    from catalog_enrichment.catalog.part_files import PART_SCHEMA, write_parts
    from catalog_enrichment.catalog.reading import as_nullable, frame_of

    try:
        listed = json.loads(place.read(MARKER))
    except FileNotFoundError:
        task = partial(write_parts, place=place, schema=to_arrow_schema(as_nullable(df.schema), timezone="UTC"))
        parts = df.mapInArrow(task, PART_SCHEMA).collect()
        listed = [[part["name"], part["size"], part["rows"]] for part in parts]
        # last, and with the names: files of tasks that were tried twice, or of a killed attempt, do not belong to it
        place.put(MARKER, json.dumps(listed).encode())
    return frame_of(df.sparkSession, place, [DataFile(*file) for file in listed], df.schema)


def _folder(run_id: str) -> str:
    return f"{STAGING}/{_simple(run_id)}"


def _simple(name: str) -> str:
    """Return ``name`` if it can be a folder's name. Raises ConfigError: a run id like ``..`` must not reach rmtree."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"{name!r} cannot name a checkpoint: letters, digits, '_', '.' and '-' only")
    return name
