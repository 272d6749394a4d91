"""Certificates from scores: one for every attribute and modality path, an abstention where no threshold is certified.

Products without a usable picture are another population, with a certificate of their own: its pool, grid and test use
only such products (PRECISION, certificate 8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from math import ceil
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.models.has_value import Heads
from catalog_enrichment.precision import claim, verdict_test
from catalog_enrichment.precision.alike import Comparison
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, ScoredBy
from catalog_enrichment.precision.certify import (
    CertificateBinding,
    LabelUse,
    abstention,
    candidate_key,
    certify_attribute,
    spent_delta,
    tested_thresholds,
    why_untestable,
)
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.precision.earlier_uses import GOLD_ROUND, EarlierUses
from catalog_enrichment.precision.grid import smallest_sample
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.precision.pool import Pool, select_pool, significantly_bad
from catalog_enrichment.precision.scored_labels import CertificationScores, ChoosingScores, UnlabelledProducts
from catalog_enrichment.precision.units import units_from, writable_values
from catalog_enrichment.records import Modality, stable_hash
from catalog_enrichment.training.alikeness import Populations
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index, near_duplicate_rate
from catalog_enrichment.training.held_out import decisions_of
from catalog_enrichment.training.task import Split


class UseLabels(Protocol):
    """Records a use of certification labels, before they are read."""

    def __call__(self, attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int) -> LabelUse:
        """The use of the labels of ``product_ids`` by ``candidate``, a :func:`candidate_key`."""


def _no_champion(*_: object) -> str:
    return ""


def _first_use(_attribute: str, _product_ids: Sequence[str], _candidate: str, _round: int) -> int:
    return 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierCandidates:
    """What a training must know of the models before it; training/job.py binds it to the catalog and the registry."""

    use_labels: UseLabels
    next_use: Callable[[str, Sequence[str], str, int], int] = _first_use
    """(attribute, product ids, candidate, certification_round) -> the number that the use would have, without recording one."""
    uses: EarlierUses = field(default_factory=EarlierUses)
    refusal: Callable[[str, Sequence[HeldOutDecision]], str] = _no_champion
    """(attribute, what a model would write on its test fold) -> why the promotion gate would refuse it for its recall;
    "" if it would not."""
    lost: Callable[[Mapping[str, Sequence[str]]], str] = _no_champion
    """(attribute -> values that a model can write) -> why the gate would refuse it for what it cannot write."""

    def used_once(self, compute_types: Sequence[str]) -> EarlierCandidates:
        """The same for a model that is certified on each of these compute types on the same folds: all of that is one
        use of the labels, by another candidate than one with other paths."""
        if len(compute_types) == 1:
            return self
        known: dict[tuple[str, tuple[str, ...]], LabelUse] = {}

        def use(attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int) -> LabelUse:
            key = (attribute, tuple(product_ids))
            if key not in known:
                known[key] = self.use_labels(attribute, product_ids, stable_hash(candidate, *compute_types), certification_round)
            return known[key]

        def next_use(attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int) -> int:
            used = known.get((attribute, tuple(product_ids)))
            of_all = stable_hash(candidate, *compute_types)
            return used.number if used else self.next_use(attribute, product_ids, of_all, certification_round)

        return replace(self, use_labels=use, next_use=next_use)


_KEPT = "not tested, to keep the certification labels for a better model"
NOT_LEARNED_ABSTAINS = "too few labelled products to learn a value of it"


@dataclass(frozen=True)
class Certifier:
    """Issues the certificates of one model."""

    split: Split
    scores: ModelScores
    """Of the choosing and certification folds and of the unlabelled products, for the attributes learned."""
    rule: PrecisionConfig
    scored_by: ScoredBy
    earlier: EarlierCandidates
    issued_at: datetime
    populations: Populations
    heads: Heads = field(default_factory=dict)
    """The has-value heads that ``scores`` are multiplied by."""
    paths: int = 1
    """Compute types that share ``rule.delta``; verdicts certify each one at all of it."""

    def certify_all(self, labels: Mapping[str, Labels]) -> list[Certificate]:
        """Two certificates per attribute, for the paths both and text-only. ``labels``: of every attribute to learn."""
        return [self.certify_one(label, modality) for label in labels.values() for modality in Modality]

    def certify_one(self, labels: Labels, modality: Modality) -> Certificate:
        """Choose the pool on the choosing fold and the threshold grid on the unlabelled products, and test the
        thresholds on merchants' labels where these can speak of unlabelled products, else on a gold sample if there is
        one. Only products of the modality path count, all of a content group.

        Which labels are used is decided without reading them.
        """
        path = self._on_path(modality)
        certification = _where(self.split.folds.certification, labels.labelled & path)
        if labels.attribute not in self.scores.probabilities:
            return self._abstention(labels, modality, certification, NOT_LEARNED_ABSTAINS)
        choosing = _where(self.split.folds.choosing, labels.labelled & path)
        pool = select_pool(ChoosingScores(**self._scored_labels(labels, choosing)), self.rule)
        has_head = (labels.attribute, modality) in self.heads
        comparison = self.populations.comparison(labels, modality, self.scores, pool, has_head)
        certificate = self._by_merchants(labels, modality, pool, comparison)
        if labels.gold is None or certificate.threshold is not None or certificate.steps:
            return certificate
        by_people = self._by_gold_sample(labels, modality, pool, has_head)
        if isinstance(by_people, Certificate):
            return by_people
        return replace(certificate, why_abstains=f"{certificate.why_abstains}. The gold sample: {by_people}")

    def _by_merchants(self, labels: Labels, modality: Modality, pool: Pool, comparison: Comparison) -> Certificate:
        """The certificate from merchants' labels.

        Where no test could succeed, the unlabelled products are not like the labelled ones, or the test fold already
        shows that the model is too often wrong or that the promotion gate would refuse it, the certification labels are
        not used (PRECISION, certificate 6).
        """
        path = self._on_path(modality)
        certification = _where(self.split.folds.certification, labels.labelled & path)
        unlabelled_products, ids = self._unlabelled_products(labels, path), self._ids(certification)
        candidate = candidate_key(self.scored_by.weights_hash, pool, len(ids), unlabelled_products, self.rule)
        number = self.earlier.next_use(labels.attribute, ids, candidate, self.split.certification_round.number)
        needed = smallest_sample(self.rule.target, spent_delta(self.rule.delta, number))
        if len(certification) < needed:
            why = _too_few(len(certification), needed, self._certification_share, modality)
            return self._abstention(labels, modality, certification, why)
        certification_scores = CertificationScores(
            **self._scored_labels(labels, certification),
            categories=[self.split.dataset.categories[product] for product in certification],
            languages=[self.split.dataset.languages[product] for product in certification],
            group_sizes=self._group_sizes[certification],
            fold_share=self._certification_share,
        )
        why = (
            why_untestable(pool, certification_scores, unlabelled_products, self.rule, number)
            or self._unlike(labels.attribute, comparison, pool, certification_scores, unlabelled_products, number)
            or self._poor_on_the_test_fold(labels, path, pool)
            or self._refused_on_the_test_fold(labels, path, pool)
        )
        if why:
            return self._abstention(labels, modality, certification, why, alikeness=comparison.result)
        use = self.earlier.use_labels(labels.attribute, ids, candidate, self.split.certification_round.number)
        binding = self._binding(modality, certification, use)
        return certify_attribute(pool, certification_scores, unlabelled_products, self.rule, binding, comparison)

    def _by_gold_sample(self, labels: Labels, modality: Modality, pool: Pool, has_head: bool) -> Certificate | str:
        """Return the certificate from people's answers about a uniform sample of unlabelled products, which is
        confirmed, or why there is none.

        Products whose content group the fit, the choice or a has-value head has seen are left out: they are easier. The
        answers are not used where merchants' labels would not be, because of the test fold.
        """
        assert labels.gold is not None
        assert labels.gold_truth is not None
        chose = np.isin(self.split.groups, self.split.groups[self.split.folds.choosing])
        fresh, path = self.populations.untouched(has_head) & ~chose, self._on_path(modality)
        index = _where(self.scores.index, labels.gold & path & fresh)
        unlabelled_products, ids = self._unlabelled_products(labels, path), self._ids(index)
        candidate = candidate_key(self.scored_by.weights_hash, pool, len(ids), unlabelled_products, self.rule)
        number = self.earlier.next_use(labels.attribute, ids, candidate, GOLD_ROUND)
        fold = CertificationScores(
            **self._scored_labels(labels, index) | {"truth": labels.gold_truth[index]},
            categories=[self.split.dataset.categories[product] for product in index],
            languages=[self.split.dataset.languages[product] for product in index],
            group_sizes=self._group_sizes[index],
            fold_share=1.0,
            uniform=True,
        )
        why = (
            why_untestable(pool, fold, unlabelled_products, self.rule, number)
            or self._poor_on_the_test_fold(labels, path, pool)
            or self._refused_on_the_test_fold(labels, path, pool)
        )
        if why:
            return why
        use = self.earlier.use_labels(labels.attribute, ids, candidate, GOLD_ROUND)
        binding = replace(self._binding(modality, index, use), basis=CertificateBasis.GOLD_SAMPLE)
        return certify_attribute(pool, fold, unlabelled_products, self.rule, binding)

    def _unlike(
        self,
        attribute: str,
        comparison: Comparison,
        pool: Pool,
        certification: CertificationScores,
        unlabelled_products: UnlabelledProducts,
        number: int,
    ) -> str:
        """Why merchants' labels say too little about the unlabelled products, whatever the labels are; "" if they say
        enough."""
        found = comparison.result
        if found.alike:
            enough = found.noticeable_share <= self.rule.noticeable_share
            return "" if enough else claim.why_not_compared(attribute, found, self._verdicts)
        tested = tested_thresholds(pool, certification, unlabelled_products, self.rule, number)
        if min(map(comparison.unexplained, tested), default=0.0) < 1 - self.rule.target:
            return ""
        return claim.why_unlike(attribute, found, self._verdicts)

    @property
    def _verdicts(self) -> tuple[int, int]:
        """Verdicts that certify a threshold, without a wrong value and if 2 in 100 are wrong."""
        return verdict_test.usual_verdicts(self.rule.target, self.rule.delta * self.paths)

    def _poor_on_the_test_fold(self, labels: Labels, path: NDArray[np.bool_], pool: Pool) -> str:
        """Why the labels should be kept for a better model: at the choosing fold's threshold significantly too many
        products of the test fold are wrong. "" if that is not so."""
        if pool.choosing_threshold is None:
            return ""
        test = _where(self.split.folds.test, labels.labelled & path)
        scores = self.scores.at(labels.attribute, test)
        units = units_from(scores, labels.truth[test], labels.cardinality, pool.mask)
        accepted, wrong = units.counts(pool.choosing_threshold)
        if not significantly_bad(np.array([accepted]), np.array([wrong]), self.rule.target).any():
            return ""
        return f"{_KEPT}: {wrong} of {accepted} products of the test fold are wrong at the choosing fold's threshold"

    def _refused_on_the_test_fold(self, labels: Labels, path: NDArray[np.bool_], pool: Pool) -> str:
        """Why the promotion gate would refuse the model for its recall, by what it would write to the path's products
        of the test fold at the choosing fold's threshold; "" if it would not.

        The certified threshold is not known before the labels are read. The choosing fold's threshold is an optimistic
        stand-in: it is the lowest that reaches the target on few products, and a certified one is usually higher. Where
        no threshold reaches the target there, nothing would be written.
        """
        test = _where(self.split.folds.test, labels.labelled & path)
        threshold = np.inf if pool.choosing_threshold is None else pool.choosing_threshold
        written = writable_values(self.scores.at(labels.attribute, test), labels.cardinality, pool.mask, threshold)
        why = self.earlier.refusal(labels.attribute, decisions_of(self.split, labels, test, written))
        return f"{_KEPT}: the promotion gate would refuse it. {why}" if why else ""

    def _abstention(
        self, labels: Labels, modality: Modality, certification: Index, why: str, **known: Any
    ) -> Certificate:
        """An abstention without a use of the labels; ``known``: further fields."""
        binding = self._binding(
            modality, certification, LabelUse(number=1, certification_round=self.split.certification_round.number)
        )
        known |= {"certification_products": len(certification)}
        return abstention(labels.attribute, why, self.rule, binding, **known)

    def _binding(self, modality: Modality, certification: Index, use: LabelUse) -> CertificateBinding:
        return CertificateBinding(
            modality=modality,
            scored_by=self.scored_by,
            label_set_hash=label_set(self._ids(certification)),
            use=use,
            data_window=data_window(self.split.dataset, certification),
            issued_at=self.issued_at,
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

    def _unlabelled_products(self, labels: Labels, path: NDArray[np.bool_]) -> UnlabelledProducts:
        dataset, groups = self.split.dataset, self.split.groups
        unlabelled = _where(self.scores.index, labels.unlabelled & path)
        return UnlabelledProducts(
            probabilities=self.scores.at(labels.attribute, unlabelled),
            categories=[dataset.categories[product] for product in unlabelled],
            languages=[dataset.languages[product] for product in unlabelled],
            group_sizes=self._group_sizes[unlabelled],
            counts=self.represented[unlabelled],
            near_duplicate_rate=near_duplicate_rate(unlabelled, self.split.folds.train, groups),
        )

    def _ids(self, index: Index) -> list[str]:
        return [self.split.dataset.ids[product] for product in index.tolist()]

    def _on_path(self, modality: Modality) -> NDArray[np.bool_]:
        return self.split.dataset.on_path(modality)

    @cached_property
    def _certification_share(self) -> float:
        """Share of the labelled products that is in the certification fold."""
        sizes = self.split.folds.sizes()
        return sizes["certification"] / sum(sizes.values())

    @cached_property
    def _group_sizes(self) -> NDArray[np.int64]:
        """(N,) products in each product's content group. Where the unlabelled ones are a sample, only labelled ones and
        the product itself count, for labelled and unlabelled products alike.

        All labelled products are in the data set. Members of the group that are not in the sample would be missing for
        most of the unlabelled products and for few of the labelled ones, whose groups would seem larger.
        """
        groups = self.split.groups
        counted = np.ones(len(groups), dtype=bool) if self._sampled == 1 else ~self._unlabelled
        members = np.bincount(groups[counted], minlength=int(groups.max(initial=-1)) + 1)
        return np.asarray(members[groups] + ~counted, dtype=np.int64)

    @cached_property
    def _unlabelled(self) -> NDArray[np.bool_]:
        """(N,): the product is in no fold."""
        unlabelled = np.ones(len(self.split.dataset), dtype=bool)
        unlabelled[np.concatenate([index for _, index in self.split.folds.items()])] = False
        return unlabelled

    @cached_property
    def _sampled(self) -> float:
        """How many products of the catalog each unlabelled product stands for: 1 where all are in the data set."""
        return max(self.split.dataset.counts["unlabelled"] / max(int(self._unlabelled.sum()), 1), 1.0)

    @cached_property
    def represented(self) -> NDArray[np.float64]:
        """(N,) how many products of the catalog each product stands for."""
        return np.where(self._unlabelled, self._sampled, 1.0)


def label_set(product_ids: Sequence[str]) -> str:
    """Hash of a certification fold's product ids. Labels are not included: an edited one makes no new label set."""
    return stable_hash(sorted(product_ids))


def data_window(dataset: Dataset, index: Index) -> str:
    """First and last `updated_at` date of the products at ``index``, as an ISO interval; "unknown" if none has one."""
    times = [time for product in index.tolist() if (time := dataset.updated_at[product]) is not None]
    return f"{min(times):%Y-%m-%d}/{max(times):%Y-%m-%d}" if times else "unknown"


def _too_few(count: int, needed: int, share: float, modality: Modality) -> str:
    """``share``: of the labelled products, that in the certification fold."""
    missing = ceil((needed - count) / share)
    return (
        f"{count} labelled products {PATHS[modality]} are in the certification fold and at least {needed} are needed: "
        f"about {missing} more such labelled products"
    )


def _where(index: Index, mask: NDArray[np.bool_]) -> Index:
    """The products of ``index`` for which ``mask`` (N,) is true."""
    return index[mask[index]]
