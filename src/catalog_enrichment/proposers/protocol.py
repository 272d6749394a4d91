"""What a run and a certification need of a proposer. Everything after it knows proposals, and not who made them.

    network.py    the models that train_model fits
    pyfunc.py     a model version of MLflow that was made elsewhere
    table.py      answers that were made elsewhere, imported by import_proposals

``open_version`` (:mod:`versions`) opens the proposer of a registered version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from catalog_enrichment.models.compute_types import FP32

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.images import StoredImagesConfig
    from catalog_enrichment.models.spec import Head


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a proposer is told beside the products."""

    catalog: Catalog
    images: StoredImagesConfig
    numbers: str = FP32
    """The number type to compute in, for a proposer that computes in several (:mod:`models.compute_types`)."""
    forward_rows: int = 0
    """Most products per forward pass; 0: as many as suit the device."""
    without_text: bool = False
    """The pictures alone are scored; asked only of a proposer whose drift reference has scores without the texts."""


class Proposer(Protocol):
    """Makes the proposals of a registered version."""

    @property
    def name(self) -> str:
        """Who proposes, for people: "the network that was trained here", "models:/colours/3"."""

    @property
    def heads(self) -> Mapping[str, Head]:
        """Attribute -> its cardinality and the values that can be proposed."""

    @property
    def weights_hash(self) -> str:
        """Hash of all that determines the scores, but for the preprocessing. Certification does not change it."""

    @property
    def preprocessing_hash(self) -> str:
        """Hash of how products become inputs."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns beside the content that a score depends on: a content is scored once for each of their values."""

    def propose(self, products: DataFrame, asked: Asked) -> DataFrame:
        """Return ``products`` without their pictures, with the columns of SCORED_TYPE (:mod:`inference.udf`) added.

        ``products``: product_id, title, description, category, language, images, content_hash, and any others, one row
        per product; so has the result. A product that cannot be scored has an error and no candidates. A scored product
        has for each of ``heads`` its candidates; a candidate of NOTHING (:mod:`precision.units`) where no value is
        proposed; none where there is no answer about this content (yet).
        """

    def answers(self, catalog: Catalog) -> DataFrame | None:
        """Return product_id, content_hash and ``answered``, an array of attributes, if answers come by themselves: an
        attribute that had none is decided once there is one. None: a product is scored when asked."""
