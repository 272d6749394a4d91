"""The networks that train_model fits, as proposers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.inference import udf
from catalog_enrichment.proposers.protocol import Asked

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.models.spec import Head


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkProposer:
    folder: Path
    """The version's folder (:mod:`models.artifact`)."""
    artifact_hash: str
    heads: dict[str, Head]
    weights_hash: str
    preprocessing_hash: str
    name: str = "the network that was trained here"
    reads: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> NetworkProposer:
        """Return the proposer of a version's folder. Raises ModelContractError for a damaged folder."""
        from catalog_enrichment.models import artifact, version_files

        artifact.verify(folder)
        return cls(
            folder=folder,
            artifact_hash=version_files.artifact_hash(folder),
            heads=artifact.heads(folder),
            weights_hash=artifact.weights_hash(folder),
            preprocessing_hash=artifact.preprocessing_hash(folder),
        )

    def propose(self, products: DataFrame, asked: Asked) -> DataFrame:
        """See :class:`~catalog_enrichment.proposers.protocol.Proposer`."""
        shipped = udf.ship(products.sparkSession, self.folder, self.artifact_hash, asked.numbers)
        return udf.scored(products, shipped, asked.images, asked.forward_rows, asked.without_text)

    def answers(self, catalog: Catalog) -> DataFrame | None:  # noqa: ARG002
        """Return None: a product is scored when asked."""
        return None
