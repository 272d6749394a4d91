"""What a run has computed and stored before its commit, for the same run when it is started again.

::

    _staging/RUN_ID/NAME-HASH/     parquet files of a DataFrame; the hash is that of its schema
    _staging/RUN_ID/NAME-note/     a few numbers of the driver's
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.storage import MARKER, Storage
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


STAGING = "_staging"


class RunCheckpoints:
    """The part of a :class:`~catalog_enrichment.catalog.base.Catalog` about checkpoints, in its ``storage``."""

    storage: Storage

    def may_clean_up(self) -> bool:
        """False where another job may work under the same run id by now."""
        return True

    def checkpoint(self, run_id: str, name: str, df: DataFrame) -> DataFrame:
        # the shape is part of the name: a program that stores other columns computes again
        path = f"{_folder(run_id)}/{_simple(name)}-{stable_hash(df.schema.json())[:12]}"
        place = self.storage.below(path)
        if place.folder is None:
            from catalog_enrichment.catalog import object_frames

            return object_frames.checkpoint(place, df)
        if place.size(MARKER) is None:
            df.write.mode("overwrite").option("compression", "zstd").parquet(f"file://{place.folder}")
        return parquet_files(df.sparkSession, [place.folder], df.schema)

    def has_checkpoint(self, run_id: str, name: str) -> bool:
        start = f"{_folder(run_id)}/{_simple(name)}-"
        return any(
            one.path.startswith(start) and one.name == MARKER and "/" not in one.path[len(start) : -len(MARKER) - 1]
            for one in self.storage.files(_folder(run_id))
        )

    def remember(self, run_id: str, name: str, content: dict[str, Any]) -> dict[str, Any]:
        path = f"{_folder(run_id)}/{_simple(name)}-note/note.json"
        with suppress(FileNotFoundError):
            return dict(json.loads(self.storage.read(path)))
        self.storage.put(path, json.dumps(content).encode())
        return content

    def drop_checkpoints(self, run_id: str) -> None:
        self.storage.discard(_folder(run_id))

    @contextmanager
    def dropping_checkpoints(self, run_id: str, keep: Sequence[str] = ()) -> Iterator[None]:
        try:
            yield
        finally:
            inside = len(_folder(run_id)) + 1
            found = self.storage.files(_folder(run_id)) if self.may_clean_up() else ()
            for name in sorted({one.path[inside:].partition("/")[0] for one in found}):
                if name.rpartition("-")[0] not in keep:
                    self.storage.discard(f"{_folder(run_id)}/{name}")


def _folder(run_id: str) -> str:
    return f"{STAGING}/{_simple(run_id)}"


def parquet_files(spark: SparkSession, paths: Sequence[Path], schema: Any) -> DataFrame:
    """The rows of local parquet files or folders."""
    return spark.read.schema(schema).parquet(*[f"file://{path}" for path in paths])


def _simple(name: str) -> str:
    """``name`` if it can be a folder's name. Raises ConfigError: a run id like ``..`` must not reach rmtree."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"{name!r} cannot name a checkpoint: letters, digits, '_', '.' and '-' only")
    return name
