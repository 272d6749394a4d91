"""What a run has computed and stored before its commit, for the same run when it is started again.

::

    _staging/RUN_ID/NAME-HASH/     parquet files of a DataFrame; the hash is that of its schema
    _staging/RUN_ID/NAME-note/     a few numbers of the driver's
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class RunCheckpoints:
    """The part of a :class:`~catalog_enrichment.catalog.base.Catalog` about checkpoints, in its folder ``path``."""

    path: Path

    def checkpoint(self, run_id: str, name: str, df: DataFrame) -> DataFrame:
        # the shape is part of the name: a program that stores other columns computes again
        folder = self._checkpoint_folder(run_id) / f"{_simple(name)}-{stable_hash(df.schema.json())[:12]}"
        if not (folder / "_SUCCESS").is_file():
            df.write.mode("overwrite").option("compression", "zstd").parquet(f"file://{folder}")
        return parquet_files(df.sparkSession, [folder], df.schema)

    def has_checkpoint(self, run_id: str, name: str) -> bool:
        return any(self._checkpoint_folder(run_id).glob(f"{_simple(name)}-*/_SUCCESS"))

    def remember(self, run_id: str, name: str, content: dict[str, Any]) -> dict[str, Any]:
        file = self._checkpoint_folder(run_id) / f"{_simple(name)}-note" / "note.json"
        with suppress(FileNotFoundError):
            return dict(json.loads(file.read_text()))
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_name(f"{uuid.uuid4()}.json")
        whole.write_text(json.dumps(content))
        whole.replace(file)
        return content

    def drop_checkpoints(self, run_id: str) -> None:
        discard_folder(self._checkpoint_folder(run_id))

    @contextmanager
    def dropping_checkpoints(self, run_id: str, keep: Sequence[str] = ()) -> Iterator[None]:
        try:
            yield
        finally:
            for folder in self._checkpoint_folder(run_id).glob("*"):
                if folder.name.rpartition("-")[0] not in keep:
                    discard_folder(folder)

    def _checkpoint_folder(self, run_id: str) -> Path:
        return self.path / "_staging" / _simple(run_id)


def discard_folder(folder: Path) -> None:
    """Remove ``folder``, at once for those who look for it: half of a checkpoint must not be taken for a whole one."""
    gone = folder.with_name(f"_gone-{uuid.uuid4()}")
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def parquet_files(spark: SparkSession, paths: Sequence[Path], schema: Any) -> DataFrame:
    """The rows of local parquet files or folders."""
    return spark.read.schema(schema).parquet(*[f"file://{path}" for path in paths])


def _simple(name: str) -> str:
    """``name`` if it can be a folder's name. Raises ConfigError: a run id like ``..`` must not reach rmtree."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"{name!r} cannot name a checkpoint: letters, digits, '_', '.' and '-' only")
    return name
