"""A perfect model of two colours as scores and folds, for the tests of certificates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Cardinality, LabelUse, Modality
from catalog_enrichment.training.alikeness import Populations
from catalog_enrichment.training.certification import Certifier, EarlierCandidates
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Folds
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.task import Split

from ..sample_certificate import SCORED_BY
from .toy import DICTIONARY

RULE = PrecisionConfig(noticeable_share=1.0)
NONE = np.array([], dtype=np.int64)


@dataclass
class Uses:
    """A recorder of the uses of labels; each is the ``number``-th."""

    number: int = 1
    calls: list[tuple[str, list[str], str]] = field(default_factory=list)

    def __call__(
        self, attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int
    ) -> LabelUse:
        self.calls.append((attribute, list(product_ids), candidate))
        return LabelUse(number=self.number, certification_round=certification_round)


@dataclass
class Marketplace:
    """A perfect model of two colours; pairs of products are content groups. The parts of equal size are train,
    choosing, certification and unlabelled."""

    count: int = 1600
    without_picture: int = 10
    """Every so many-th pair has no picture."""

    def __post_init__(self) -> None:
        count, product = self.count, np.arange(self.count)
        parts = np.split(product, 4)
        self.truth = np.eye(2, dtype=bool)[product % 2]
        has_none = product // 2 % self.without_picture == self.without_picture - 1
        self.dataset = Dataset(
            DICTIONARY,
            ids=[f"p{n}" for n in range(count)],
            categories=["Apparel"] * count,
            languages=["en"] * count,
            pictures=[None if none else str(n) for n, none in enumerate(has_none)],
            picture_reasons=[Reason.NO_IMAGE if none else None for none in has_none],
            updated_at=[datetime(2026, 1, 1 + n % 9, tzinfo=UTC) for n in range(count)],
            merchant=[{"color": ("Red",)}] * count,
            gold=[{}] * count,
        )
        self.dataset.counts["unlabelled"] = count // 4
        self.folds = Folds(parts[0], parts[1], parts[2], NONE)
        self.groups = product // 2
        self.labelled = product < parts[3][0]
        self.scores = np.where(self.truth, 0.99, 0.01)

    @property
    def labels(self) -> Labels:
        unlearned = np.zeros(self.count, dtype=np.int64)
        return Labels("color", Cardinality.ONE, ("Red", "Blue"), self.truth, self.labelled, unlearned, ~self.labelled)

    @property
    def test_folds(self) -> Folds:
        """The folds with the train fold as the test fold, which is no fold of a certificate."""
        return replace(self.folds, train=NONE, test=self.folds.train)

    def split(self, folds: Folds | None = None) -> Split:
        return Split(self.dataset, self.groups, folds or self.folds)

    def model_scores(self, **more: Any) -> ModelScores:
        return ModelScores(np.arange(self.count), {"color": self.scores}, **more)

    def certifier(self, uses: Uses | None = None, **changes: Any) -> Certifier:
        split = self.split(changes.pop("folds", None))
        probabilities = changes.pop("probabilities", {"color": self.scores})
        vectors = changes.pop("vectors", np.zeros((self.count, 1), dtype=np.float32))
        model_scores = ModelScores(np.arange(self.count), probabilities, vectors=vectors)
        used = uses or Uses()
        refusal = changes.pop("refusal", lambda *_: "")
        earlier = EarlierCandidates(use_labels=used, next_use=lambda *_: used.number, refusal=refusal)
        issued_at = datetime(2026, 2, 1, tzinfo=UTC)
        unseen = ~np.isin(self.groups, self.groups[split.folds.train])
        rule, populations = replace(RULE, **changes), Populations(split, unseen)
        return Certifier(split, model_scores, rule, SCORED_BY, earlier, issued_at, populations)

    def certificate(self, modality: Modality = Modality.BOTH, **changes: Any) -> Certificate:
        return self.certifier(**changes).certify_one(self.labels, modality)
