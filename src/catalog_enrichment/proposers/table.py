"""Answers that were made elsewhere and imported into the table `proposals`, as a proposer.

An answer counts for the content that it is about; about a content without an answer nothing is said. Answers that are
imported later belong to the same version of the proposer: the same model and prompt made them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from catalog_enrichment.inference import udf
from catalog_enrichment.inference.forward import ScoredRow
from catalog_enrichment.models import compute_types
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.proposers import given
from catalog_enrichment.proposers.answers import Proposal
from catalog_enrichment.proposers.given import Calibration, Calibrations
from catalog_enrichment.proposers.protocol import Asked
from catalog_enrichment.records import Modality, stable_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.value_names import Names
    from catalog_enrichment.models.spec import Head

TABLE = "proposals"
_CONTENT = ("product_id", "content_hash")
_ANSWERS, _HAS_PICTURE = "_answers", "_has_picture"
"""Columns that only the task sees: an array of struct<attribute, candidates>, null without an answer; a Boolean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableProposer:
    proposer: str
    """Whose answers: `proposals.name` of their import."""
    version: str
    heads: Mapping[str, Head]
    calibrations: Mapping[str, Calibration]
    forms: tuple[str, ...]
    """The forms of the answers that were certified; an answer of another form is none."""
    reads: tuple[str, ...] = ("product_id",)

    @property
    def name(self) -> str:
        return f"answers of {self.proposer} {self.version}"

    @property
    def weights_hash(self) -> str:
        """Hash of whose answers these are, and of how they become scores; not of the answers."""
        heads = {name: (head.cardinality.value, head.labels) for name, head in self.heads.items()}
        calibrations = {name: asdict(calibration) for name, calibration in self.calibrations.items()}
        return stable_hash("table", self.proposer, self.version, heads, calibrations, sorted(self.forms))

    @property
    def preprocessing_hash(self) -> str:
        return stable_hash("table")

    def propose(self, products: DataFrame, asked: Asked) -> DataFrame:
        """See :class:`~catalog_enrichment.proposers.protocol.Proposer`."""
        from pyspark.sql import functions as F
        from pyspark.sql.types import StructField, StructType

        has_picture = F.coalesce(F.size("images") > 0, F.lit(False))
        without_pictures = products.withColumn(_HAS_PICTURE, has_picture).drop("images")
        columns = [name for name in products.columns if name != "images"]
        answers = self._rows(asked.catalog).groupBy(*_CONTENT)
        by_content = answers.agg(F.collect_list(F.struct("attribute", "candidates")).alias(_ANSWERS))
        joined = without_pictures.join(by_content, list(_CONTENT), "left").select(*columns, _HAS_PICTURE, _ANSWERS)
        labels = {name: labels_by_name(name, head, asked.catalog.names) for name, head in self.heads.items()}
        scored = StructType.fromDDL(udf.SCORED_TYPE.removeprefix("struct<").removesuffix(">"))
        # every column of an Arrow batch may be null
        kept = [StructField(field.name, field.dataType) for field in products.select(*columns).schema]
        schema = StructType([*kept, *scored])
        task = partial(score_batches, labels=labels, calibrations=dict(self.calibrations))
        return joined.mapInArrow(task, schema)

    def answers(self, catalog: Catalog) -> DataFrame:
        """See :class:`~catalog_enrichment.proposers.protocol.Proposer`."""
        from pyspark.sql import functions as F

        return self._rows(catalog).groupBy(*_CONTENT).agg(F.collect_set("attribute").alias("answered"))

    def _rows(self, catalog: Catalog) -> DataFrame:
        from pyspark.sql import functions as F

        own = (F.col("proposer") == self.proposer) & (F.col("version") == self.version)
        of_form = F.col("attribute").isin(*self.heads) & F.col("form").isin(*self.forms)
        return catalog.read(TABLE).where(own & of_form)


@dataclass(frozen=True, slots=True)
class Labels:
    """The values of an attribute that can be proposed, by the names that answers may have them under."""

    own: frozenset[str]
    by_current: Mapping[str, str]
    """Name in force -> label."""
    current: Mapping[str, str]
    """Stored name -> name in force, where it is another."""

    def find(self, value: str) -> str | None:
        """Return the label of a stored value; None if it cannot be proposed."""
        return value if value in self.own else self.by_current.get(self.current.get(value, value))


def labels_by_name(attribute: str, head: Head, names: Names) -> Labels:
    """Return the labels of ``head``: an answer and a label that were renamed to the same name are the same value."""
    differing = {was: now for (name, was), now in names.differing().items() if name == attribute}
    by_current = {differing.get(label, label): label for label in reversed(head.labels)}
    return Labels(frozenset(head.labels), by_current, differing)


def score_batches(
    batches: Iterable[pa.RecordBatch], labels: Mapping[str, Labels], calibrations: Calibrations
) -> Iterator[pa.RecordBatch]:
    """Yield the batches with the columns of SCORED_TYPE in place of the answers and of whether there is a picture.

    ``labels``: of each attribute of the proposer.
    """
    import pyarrow as pa

    for batch in batches:
        answers, pictures = batch.column(_ANSWERS).to_pylist(), batch.column(_HAS_PICTURE).to_pylist()
        rows = [scored_row(*row, labels, calibrations) for row in zip(answers, pictures, strict=True)]
        scored = udf.to_arrow(rows)
        kept = [name for name in batch.schema.names if name not in (_ANSWERS, _HAS_PICTURE)]
        columns = {name: batch.column(name) for name in kept}
        columns |= {field.name: scored.field(field.name) for field in scored.type}
        yield pa.RecordBatch.from_pydict(columns)


def scored_row(
    answers: list[dict[str, Any]] | None,
    has_picture: bool,
    labels: Mapping[str, Labels],
    calibrations: Calibrations,
) -> ScoredRow:
    """Return a product's scores. ``answers``: {attribute, candidates} of each attribute about which there is an answer,
    in any order."""
    by_attribute = {answer["attribute"]: answer["candidates"] for answer in answers or ()}
    candidates = [
        candidate
        for attribute, known in labels.items()
        if attribute in by_attribute
        for candidate in given.candidates(
            attribute, _proposals(by_attribute[attribute], known), calibrations.get(attribute)
        )
    ]
    modality = Modality.BOTH if has_picture else Modality.TEXT_ONLY
    return ScoredRow(candidates, modality.value, compute_types.GIVEN)


def _proposals(candidates: Iterable[Mapping[str, Any]], labels: Labels) -> list[Proposal]:
    """Return the stored candidates that can be proposed, best first, each label once."""
    found: dict[str, Proposal] = {}
    for stored in candidates:
        label = labels.find(stored["value"])
        if label is not None and label not in found:
            found[label] = Proposal(Candidate(label, stored["score"], len(found) + 1), stored["evidence"])
    return list(found.values())
