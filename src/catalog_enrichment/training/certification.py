"""Certificates from scores, for every attribute and modality path; an abstention where no threshold is certified.

Products without a usable picture are another population, with a certificate of their own: its pool, grid and test use
only such products (PRECISION, certificate 8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np

from catalog_enrichment.config.schema import Config, PrecisionConfig
from catalog_enrichment.models import artifact
from catalog_enrichment.models.has_value import Heads
from catalog_enrichment.precision import claim, verdict_test
from catalog_enrichment.precision.alike import AlikenessTest
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, ScoredBy
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.precision.certify import (
    CertificateBinding,
    abstention,
    candidate_key,
    certify_attribute,
    why_untestable,
)
from catalog_enrichment.precision.pool import Pool, select_pool, significantly_bad
from catalog_enrichment.precision.thresholds import plan_thresholds, smallest_sample, spent_delta
from catalog_enrichment.precision.units import (
    Bools,
    CertificationScores,
    ChoosingScores,
    Floats,
    Ints,
    UnlabelledProducts,
    units_from,
    writable_values,
)
from catalog_enrichment.records import GOLD_ROUND, EarlierUses, LabelUse, Modality, stable_hash
from catalog_enrichment.training.alikeness import Populations
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index, near_duplicate_rate, where
from catalog_enrichment.training.held_out import decisions_of
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.scoring import SavedVersion
from catalog_enrichment.training.task import Split, not_learned

UseLabels = Callable[[str, Sequence[str], str, int], LabelUse]
"""(attribute, product ids, :func:`candidate_key`, certification round) -> the use, recorded before the labels are
read."""

NextUse = Callable[[str, Sequence[str], str, int], int]
"""The same arguments -> the number that the use would have, without recording it."""

_KEPT = "not tested, to keep the certification labels for a better model"


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierCandidates:
    """The models before a training; training/job.py binds it to the catalog and the registry."""

    use_labels: UseLabels
    next_use: NextUse = lambda *_: 1
    uses: EarlierUses = field(default_factory=EarlierUses)
    refusal: Callable[[str, Sequence[HeldOutDecision]], str] = lambda *_: ""
    """(attribute, what a model would write on its test fold) -> why the promotion gate would refuse it for its recall;
    "" if it would not."""
    lost: Callable[[Mapping[str, Sequence[str]]], str] = lambda _: ""
    """(attribute -> values that a model can write) -> why the gate would refuse it for values that it cannot write."""

    def used_once(self, compute_types: Sequence[str]) -> EarlierCandidates:
        """Return the same for a model that is certified on each of these compute types on the same folds: that is one
        use of the labels, by another candidate than a model with other compute types."""
        if len(compute_types) == 1:
            return self
        known: dict[tuple[str, tuple[str, ...]], LabelUse] = {}

        def use(attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int) -> LabelUse:
            key = (attribute, tuple(product_ids))
            if key not in known:
                of_all = stable_hash(candidate, *compute_types)
                known[key] = self.use_labels(attribute, product_ids, of_all, certification_round)
            return known[key]

        def next_use(attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int) -> int:
            used = known.get((attribute, tuple(product_ids)))
            of_all = stable_hash(candidate, *compute_types)
            return used.number if used else self.next_use(attribute, product_ids, of_all, certification_round)

        return replace(self, use_labels=use, next_use=next_use)


def certifiers(
    split: Split, config: Config, version: SavedVersion, populations: Populations, earlier: EarlierCandidates
) -> list[Certifier]:
    """Return a certifier for every compute type. They use the labels once, and each spends all of delta: a run writes
    by the certificates of a single type, which its hardware chooses (:func:`models.compute_types.choose`)."""
    now = datetime.now(UTC)
    earlier = earlier.used_once([predictor.compute_type for predictor in version.predictors])
    return [
        Certifier(
            split=split,
            scores=scores,
            rule=config.precision,
            scored_by=ScoredBy(
                weights_hash=artifact.weights_hash(version.folder),
                preprocessing_hash=artifact.preprocessing_hash(version.folder),
                max_image_bytes=config.images.max_bytes,
                max_image_pixels=config.images.max_pixels,
                scaled_side=config.images.copy_side,
                compute_type=predictor.compute_type,
            ),
            earlier=earlier,
            issued_at=now,
            populations=populations,
            heads=version.heads,
        )
        for predictor, scores in zip(version.predictors, version.scores, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _LabelledProducts:
    """The products of one attribute and modality path that could test thresholds, before their labels are used."""

    attribute: str
    modality: Modality
    index: Index
    scores: CertificationScores
    unlabelled: UnlabelledProducts
    ids: list[str]
    candidate: str
    certification_round: int
    number: int
    """The number that the use of the labels would have."""


@dataclass(frozen=True)
class Certifier:
    """Issues the certificates of one model."""

    split: Split
    scores: ModelScores
    """Scores of the choosing and certification folds and of the unlabelled products, for the attributes learned."""
    rule: PrecisionConfig
    scored_by: ScoredBy
    earlier: EarlierCandidates
    issued_at: datetime
    populations: Populations
    heads: Heads = field(default_factory=dict)
    """The has-value heads that ``scores`` are multiplied by."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Attribute -> why no label of it can certify."""
    trained_on: str = ""
    """What was declared about the labels that the proposer has seen; "" for a model that was trained here."""

    def certify_all(self, labels: Mapping[str, Labels]) -> list[Certificate]:
        """Return two certificates per attribute, for the paths both and text-only. ``labels``: of every attribute to
        learn."""
        return [self.certify_one(label, modality) for label in labels.values() for modality in Modality]

    def certify_one(self, labels: Labels, modality: Modality) -> Certificate:
        """Choose the pool on the choosing fold and the threshold grid on the unlabelled products, and test the
        thresholds on merchants' labels where these can speak of unlabelled products, else on a gold sample if there is
        any. Only products of the modality path count, all of a content group.

        Which labels are used is decided without reading them.
        """
        path = self.split.dataset.on_path(modality)
        certification = where(self.split.folds.certification, labels.labelled & path)
        products = labels.labelled | labels.unlabelled
        if products.any() and not (products & path).any():
            return self._abstention(labels, modality, certification, claim.NO_PRODUCTS)
        if refused := self.refused.get(labels.attribute):
            return self._abstention(labels, modality, certification, refused)
        if labels.attribute not in self.scores.probabilities:
            why = not_learned({labels.attribute: labels}, self.split.folds.train)
            not_scored = why.get(labels.attribute, "the model does not score it")
            return self._abstention(labels, modality, certification, not_scored)
        choosing = where(self.split.folds.choosing, labels.labelled & path)
        pool = select_pool(ChoosingScores(**self._scored_labels(labels, choosing)), self.rule)
        has_head = (labels.attribute, modality) in self.heads
        comparison = self.populations.comparison(labels, modality, self.scores, pool, has_head)
        certificate = self._by_merchants(labels, modality, certification, pool, comparison)
        if labels.gold is None or certificate.threshold is not None or certificate.steps:
            return certificate
        by_people = self._by_gold_sample(labels, modality, pool, has_head)
        if isinstance(by_people, Certificate):
            return by_people
        return replace(certificate, why_abstains=f"{certificate.why_abstains}. The gold sample: {by_people}")

    def _by_merchants(
        self, labels: Labels, modality: Modality, certification: Index, pool: Pool, comparison: AlikenessTest
    ) -> Certificate:
        """Return the certificate from merchants' labels.

        Where no test could succeed, the unlabelled products are not like the labelled ones, or the test fold already
        shows that the model is too often wrong or that the promotion gate would refuse it, the certification labels are
        not used (PRECISION, certificate 6).
        """
        sizes, current = self.split.folds.sizes(), self.split.certification_round.number
        if not sizes["certification"]:
            needed = smallest_sample(self.rule.target, self.rule.delta)
            return self._abstention(labels, modality, certification, claim.why_no_fold(labels.attribute, needed))
        share = sizes["certification"] / (sum(sizes.values()) + len(self.split.folds.kept))
        products = self._products(labels, modality, pool, certification, current, fold_share=share)
        needed = smallest_sample(self.rule.target, spent_delta(self.rule.delta, products.number))
        if len(certification) < needed:
            count, missing = len(certification), ceil((needed - len(certification)) / share)
            why = (
                f"{count} labelled products {claim.PATHS[modality]} are in the certification fold and at least "
                f"{needed} are needed: about {missing} more such labelled products"
            )
            return self._abstention(labels, modality, certification, why)
        why = (
            why_untestable(pool, products.scores, products.unlabelled, self.rule, products.number)
            or self._unlike(comparison, pool, products)
            or self._poor_on_the_test_fold(labels, modality, pool)
            or self._refused_on_the_test_fold(labels, modality, pool)
        )
        if why:
            return self._abstention(labels, modality, certification, why, alikeness=comparison.result)
        return self._tested(pool, products, comparison)

    def _by_gold_sample(self, labels: Labels, modality: Modality, pool: Pool, has_head: bool) -> Certificate | str:
        """Return the certificate from people's answers about a uniform sample of unlabelled products, which is
        confirmed, or why there is none.

        Products whose content group the fit, the choice or a has-value head has seen are left out: they are easier. The
        answers are not used where merchants' labels would not be, because of the test fold.
        """
        assert labels.gold is not None
        assert labels.gold_truth is not None
        chose = np.isin(self.split.groups, self.split.groups[self.split.folds.choosing])
        fresh = self.populations.untouched(has_head) & ~chose
        index = where(self.scores.index, labels.gold & self.split.dataset.on_path(modality) & fresh)
        truth = labels.gold_truth[index]
        products = self._products(labels, modality, pool, index, GOLD_ROUND, truth=truth, fold_share=1.0, uniform=True)
        why = (
            why_untestable(pool, products.scores, products.unlabelled, self.rule, products.number)
            or self._poor_on_the_test_fold(labels, modality, pool)
            or self._refused_on_the_test_fold(labels, modality, pool)
        )
        return why or self._tested(pool, products, None)

    def _products(
        self, labels: Labels, modality: Modality, pool: Pool, index: Index, certification_round: int, **known: Any
    ) -> _LabelledProducts:
        """Return the products at ``index``, with the use of their labels in view; ``known``: further fields of their
        scores."""
        dataset = self.split.dataset
        scores = CertificationScores(**self._scored_labels(labels, index) | self._strata(index) | known)
        unlabelled = where(self.scores.index, labels.unlabelled & dataset.on_path(modality))
        unlabelled_products = UnlabelledProducts(
            probabilities=self.scores.at(labels.attribute, unlabelled),
            counts=self.represented[unlabelled],
            near_duplicate_rate=near_duplicate_rate(unlabelled, self.split.folds.train, self.split.groups),
            **self._strata(unlabelled),
        )
        ids = [dataset.ids[product] for product in index.tolist()]
        candidate = candidate_key(self.scored_by.weights_hash, pool, len(ids), unlabelled_products, self.rule)
        number = self.earlier.next_use(labels.attribute, ids, candidate, certification_round)
        return _LabelledProducts(
            labels.attribute, modality, index, scores, unlabelled_products, ids, candidate, certification_round, number
        )

    def _tested(self, pool: Pool, products: _LabelledProducts, comparison: AlikenessTest | None) -> Certificate:
        """Use the labels and issue the certificate; ``comparison``: None for a gold sample."""
        fold = (products.attribute, products.ids, products.candidate, products.certification_round)
        binding = self._binding(products.modality, products.index, self.earlier.use_labels(*fold))
        if comparison is None:
            binding = replace(binding, basis=CertificateBasis.GOLD_SAMPLE)
        return certify_attribute(pool, products.scores, products.unlabelled, self.rule, binding, comparison)

    def _unlike(self, comparison: AlikenessTest, pool: Pool, products: _LabelledProducts) -> str:
        """Return why merchants' labels say too little about the unlabelled products, whatever the labels are; "" if
        they say enough."""
        found, attribute = comparison.result, products.attribute
        # verdicts that certify a threshold, without a wrong value and if 2 in 100 are wrong
        verdicts = verdict_test.usual_verdicts(self.rule.target, self.rule.delta)
        if found.alike:
            enough = found.noticeable_share <= self.rule.noticeable_share
            return "" if enough else claim.why_not_compared(attribute, found, verdicts)
        delta = spent_delta(self.rule.delta, products.number)
        plan = plan_thresholds(pool, len(products.index), products.unlabelled, self.rule, delta)
        if min(map(comparison.unexplained, plan.grid.tolist()), default=0.0) < 1 - self.rule.target:
            return ""
        return claim.why_unlike(attribute, found, verdicts)

    def _poor_on_the_test_fold(self, labels: Labels, modality: Modality, pool: Pool) -> str:
        """Return why the labels should be kept for a better model: at the choosing fold's threshold significantly too
        many products of the test fold are wrong. "" if that is not so."""
        if pool.choosing_threshold is None:
            return ""
        test = self._test_fold(labels, modality)
        scores = self.scores.at(labels.attribute, test)
        units = units_from(scores, labels.truth[test], labels.cardinality, pool.mask)
        accepted, wrong = units.counts(pool.choosing_threshold)
        if not significantly_bad(np.array([accepted]), np.array([wrong]), self.rule.target).any():
            return ""
        return f"{_KEPT}: {wrong} of {accepted} products of the test fold are wrong at the choosing fold's threshold"

    def _refused_on_the_test_fold(self, labels: Labels, modality: Modality, pool: Pool) -> str:
        """Return why the promotion gate would refuse the model for its recall, by what it would write to the path's
        products of the test fold at the choosing fold's threshold; "" if it would not.

        The certified threshold is not known before the labels are read. The choosing fold's threshold is an optimistic
        stand-in: it is the lowest that reaches the target on few products, and a certified threshold is usually higher.
        Where no threshold reaches the target there, nothing would be written.
        """
        test = self._test_fold(labels, modality)
        threshold = np.inf if pool.choosing_threshold is None else pool.choosing_threshold
        written = writable_values(self.scores.at(labels.attribute, test), labels.cardinality, pool.mask, threshold)
        why = self.earlier.refusal(labels.attribute, decisions_of(self.split, labels, test, written))
        return f"{_KEPT}: the promotion gate would refuse it. {why}" if why else ""

    def _test_fold(self, labels: Labels, modality: Modality) -> Index:
        return where(self.split.folds.test, labels.labelled & self.split.dataset.on_path(modality))

    def _abstention(
        self, labels: Labels, modality: Modality, certification: Index, why: str, **known: Any
    ) -> Certificate:
        """Return an abstention without a use of the labels; ``known``: further fields."""
        use = LabelUse(number=1, certification_round=self.split.certification_round.number)
        known |= {"certification_products": len(certification)}
        return abstention(labels.attribute, why, self.rule, self._binding(modality, certification, use), **known)

    def _binding(self, modality: Modality, index: Index, use: LabelUse) -> CertificateBinding:
        return CertificateBinding(
            modality=modality,
            scored_by=self.scored_by,
            label_set_hash=label_set(self.split.dataset, index),
            use=use,
            data_window=data_window(self.split.dataset, index),
            issued_at=self.issued_at,
            trained_on=self.trained_on,
        )

    def _scored_labels(self, labels: Labels, index: Index) -> dict[str, Any]:
        return {
            "attribute": labels.attribute,
            "labels": labels.values,
            "cardinality": labels.cardinality,
            "probabilities": self.scores.at(labels.attribute, index),
            "truth": labels.truth[index],
            "groups": self.split.groups[index],
        }

    def _strata(self, index: Index) -> dict[str, Any]:
        return {
            "categories": [self.split.dataset.categories[product] for product in index],
            "languages": [self.split.dataset.languages[product] for product in index],
            "group_sizes": self._group_sizes[index],
        }

    @cached_property
    def _group_sizes(self) -> Ints:
        """(N,): products in each product's content group. Where the unlabelled products are a sample, only labelled
        products and the product itself count, for labelled and unlabelled products alike.

        All labelled products are in the data set. Members of the group that are not in the sample would be missing for
        most unlabelled products and for few labelled products, whose groups would seem larger.
        """
        groups = self.split.groups
        counted = np.ones(len(groups), dtype=bool) if self._sampled == 1 else ~self._unlabelled
        members = np.bincount(groups[counted], minlength=int(groups.max(initial=-1)) + 1)
        return np.asarray(members[groups] + ~counted, dtype=np.int64)

    @cached_property
    def _unlabelled(self) -> Bools:
        return self.split.folds.outside(len(self.split.dataset))

    @cached_property
    def _sampled(self) -> float:
        """Products of the catalog that each unlabelled product stands for: 1 where all are in the data set."""
        return max(self.split.dataset.counts["unlabelled"] / max(int(self._unlabelled.sum()), 1), 1.0)

    @cached_property
    def represented(self) -> Floats:
        """(N,): how many products of the catalog each product stands for."""
        return np.where(self._unlabelled, self._sampled, 1.0)


def label_set(dataset: Dataset, index: Index) -> str:
    """Hash the ids of a certification fold's products. Labels are not included: an edited label makes no new set."""
    return stable_hash(sorted(dataset.ids[product] for product in index.tolist()))


def data_window(dataset: Dataset, index: Index) -> str:
    """Return the first and last `updated_at` date of the products at ``index``, as an ISO interval; "unknown" if none
    has a date."""
    times = [time for product in index.tolist() if (time := dataset.updated_at[product]) is not None]
    return f"{min(times):%Y-%m-%d}/{max(times):%Y-%m-%d}" if times else "unknown"
