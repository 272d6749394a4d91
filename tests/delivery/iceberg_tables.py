"""An Iceberg table to deliver to: in a sqlite catalog, alone or behind a small REST server on loopback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from catalog_enrichment.config.operations import DeliveryConfig, IcebergConfig
from catalog_enrichment.delivery import deliver, iceberg

from .histories import State, Versions


@dataclass
class IcebergTable:
    """A table of its own, and the config that delivers to it."""

    folder: Path
    config: DeliveryConfig

    def table(self) -> Table:
        """As another program opens it."""
        properties = {"uri": f"sqlite:///{self.folder}/catalog.db", "warehouse": f"file://{self.folder}"}
        return load_catalog(iceberg.NAME, **properties).load_table(self.config.iceberg.table)

    def rows(self) -> State:
        """What was delivered, as histories.Versions.seen gives it."""
        found = self.arrow().drop_columns(["version"]).to_pylist()
        rows = {(row.pop("product_id"), row.pop("attribute")): row for row in found}
        assert len(rows) == len(found)
        return rows

    def arrow(self) -> pa.Table:
        return self.table().scan().to_arrow()

    def versions(self, attribute: str = "color") -> dict[str, int]:
        """Product -> the version that changed the row of the attribute last."""
        rows = self.arrow().to_pylist()
        return {row["product_id"]: row["version"] for row in rows if row["attribute"] == attribute}

    def files(self) -> set[str]:
        return {task.file.file_path for task in self.table().scan().plan_files()}

    def summaries(self) -> list[dict[str, str]]:
        """What the snapshots say, oldest first."""
        return [
            dict(snapshot.summary.additional_properties) for snapshot in self.table().snapshots() if snapshot.summary
        ]

    def deliver(self, versions: Versions, **options: Any) -> dict[str, Any]:
        return deliver.deliver_values(versions.catalog, self.config, say=lambda _: None, **options)


def config_of(folder: Path, **settings: Any) -> DeliveryConfig:
    settings = {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}"} | settings
    return DeliveryConfig(sink="iceberg", iceberg=IcebergConfig(**settings))


def new_table(folder: Path, **settings: Any) -> IcebergTable:
    folder.mkdir()
    found = IcebergTable(folder, config_of(folder, **settings))
    deliver.migrate(found.config, say=lambda _: None)
    return found
