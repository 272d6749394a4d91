"""The lock of those who move the champion alias: a file beside a sqlite store, else one in the catalog's folder, or a
lease in the catalog's object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog_enrichment.catalog.lease import Lease
from catalog_enrichment.catalog.object_storage import ObjectStorage, storage_of
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.records import stable_hash

StillHeld = Callable[[], None]
"""Raises TemporaryFailure if another process may hold the lock by now."""


@contextmanager
def held(config: Config, beside: Path | None) -> Iterator[StillHeld]:
    """A block that one process at a time can be in. ``beside``: the folder of a sqlite store.

    Raises GateRefused after `mlflow.timeout_seconds`. Where a promotion was killed, its lease has to expire first. What
    it yields is to be called before the alias is moved: MLflow itself cannot keep a process away that has slept past
    its lease.
    """
    from filelock import FileLock, Timeout

    model, seconds, storage = config.mlflow.model_name, config.mlflow.timeout_seconds, storage_of(config)
    if beside is None and isinstance(storage, ObjectStorage):
        lease = _lease(config, storage)
        with lease.held(seconds):
            yield lease.require
        return
    path = (beside or config.path(config.catalog.path)) / f".{model}.promotion.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=seconds):
            yield lambda: None
    except Timeout:
        raise GateRefused(f"another process is promoting {model} ({path}); try again") from None


def _lease(config: Config, storage: ObjectStorage) -> Lease:
    # a model's name may have characters that a key should not have
    name = f"promotion-{stable_hash(config.mlflow.model_name)[:16]}"
    doing = f"another process is promoting {config.mlflow.model_name}"
    return Lease(storage, name, config.catalog.lease_seconds, doing=doing)
