"""The sample catalog of tests/sample_catalog.py with its tables in an object store."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.object_storage import ObjectStorage
from catalog_enrichment.config.load import load_config

if TYPE_CHECKING:
    from .object_store import ObjectStoreServer
    from .sample_catalog import SampleCatalog


def moved(sample: SampleCatalog, server: ObjectStoreServer, name: str = "", lease_seconds: int = 3) -> Catalog:
    """Make the place ``name`` of the store, by default a new place, the catalog of ``sample``'s config file; return it,
    without Spark."""
    uri = server.uri(name or f"sample/{uuid.uuid4()}")
    storage = "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in server.storage().items()) + "}"
    where = f'path = "{uri}"\nlease_seconds = {lease_seconds}\nstorage = {storage}'
    sample.file.write_text(sample.file.read_text().replace('path = "catalog"', where, 1))
    return Catalog.of(load_config(sample.file))


def place(server: ObjectStoreServer, name: str) -> ObjectStorage:
    return ObjectStorage(server.uri(name), server.settings())


def rows(lake: Catalog, table: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    return [row for batch in lake.scan(table, columns) for row in batch.to_pylist()]
