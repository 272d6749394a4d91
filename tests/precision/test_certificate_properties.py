"""Properties of every certificate that is issued, and of every decision by it (hypothesis)."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certificate import Certificate, ScoredBy
from catalog_enrichment.precision.certify import (
    CertificateBinding,
    LabelUse,
    certify_attribute,
    grid_size,
    spent_delta,
)
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.grid import threshold_grid
from catalog_enrichment.precision.metrics import p_not_certified
from catalog_enrichment.precision.pool import select_pool
from catalog_enrichment.precision.scored_labels import CertificationScores, UnlabelledProducts
from catalog_enrichment.precision.units import Candidate, accept_scores
from catalog_enrichment.records import Decision, Modality, Reason

from ..sample_certificate import SCORED_BY, STANDARD, certificate
from .folds import LABELS, certification, choosing, unlabelled_products

RULE = PrecisionConfig()
POOL = select_pool(choosing(), RULE)
ISSUED_AT = datetime(2026, 1, 2, tzinfo=UTC)
N = 600

seeds = st.integers(0, 2**32 - 1)
skills = st.sampled_from([0.8, 0.9, 0.92, 0.95, 0.97, 1.0])
uses = st.integers(1, 12)


def issue(fold: CertificationScores, filled: UnlabelledProducts, use: int = 1) -> Certificate:
    binding = CertificateBinding(
        modality=Modality.BOTH, scored_by=SCORED_BY, label_set_hash="l", use=LabelUse(number=use, certification_round=2),
        data_window="all", issued_at=ISSUED_AT,
    )  # fmt: skip
    return certify_attribute(POOL, fold, filled, RULE, binding)


def fold_of(seed: int, skill: float, **changes: Any) -> CertificationScores:
    """Groups of one product and one category."""
    return certification(N, seed, skill, categories=[""] * N, **changes)


def filled_of(seed: int, **changes: Any) -> UnlabelledProducts:
    return unlabelled_products(2000, seed, categories=[""] * 2000, **changes)


def grouped(seed: int, skill: float) -> tuple[CertificationScores, UnlabelledProducts]:
    """Content groups of one to four products, two categories, which weigh differently among the products to fill."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(N), rng.integers(1, 5, N))[:N]
    size = np.bincount(groups)[groups]
    categories = np.where(rng.random(N) < 0.3, "bags", "shoes").tolist()
    fold = certification(N, seed, skill, groups=groups, categories=categories, group_sizes=size)
    filled_categories = np.where(rng.random(2000) < 0.5, "bags", "shoes").tolist()
    return fold, unlabelled_products(2000, seed, categories=filled_categories, group_sizes=rng.integers(1, 5, 2000))


@settings(max_examples=40, deadline=None)
@given(seeds, skills, uses)
def test_what_is_certified_passed_its_test_and_so_did_all_before_it(seed: int, skill: float, use: int) -> None:
    fold, filled = grouped(seed, skill)
    one = issue(fold, filled, use)
    delta = spent_delta(RULE.delta, use)
    assert (one.tested_at, one.use_number, one.certification_round) == (delta, use, 2)
    assert all(step.passed == (step.p_value <= delta) for step in one.steps)
    assert all(step.passed for step in one.steps[:-1])
    passed = [step for step in one.steps if step.passed]
    assert (one.threshold is None) == (not passed)
    if passed:
        last = passed[-1]
        assert (one.threshold, one.accepted, one.wrong) == (last.threshold, last.accepted, last.wrong)
        assert one.lower_bound >= RULE.target
    else:
        assert one.why_abstains
        assert (one.accepted, one.lower_bound, one.accept_rate) == (0, 0.0, 0.0)


@settings(max_examples=25, deadline=None)
@given(seeds, skills, uses)
def test_the_thresholds_are_those_of_the_grid_whatever_the_labels(seed: int, skill: float, use: int) -> None:
    fold, filled = grouped(seed, skill)
    accept = accept_scores(filled.probabilities, POOL.cardinality, POOL.mask)
    size = grid_size(POOL, accept, N, RULE, use)
    grid = threshold_grid(accept, N, size).tolist()
    relabelled = replace(fold, truth=np.roll(fold.truth, 1, axis=0))
    for one in (issue(fold, filled, use), issue(relabelled, filled, use)):
        tested = [step.threshold for step in one.steps]
        assert tested == grid[: len(tested)]
        assert one.threshold is None or one.threshold in grid
        assert len(tested) == len(grid) or not one.steps[-1].passed


@settings(max_examples=25, deadline=None)
@given(seeds, skills)
def test_with_groups_of_one_and_weights_of_one_every_test_is_the_exact_binomial_one(seed: int, skill: float) -> None:
    one = issue(fold_of(seed, skill), filled_of(seed + 1))
    assert one.steps
    for step in one.steps:
        assert step.p_value == pytest.approx(p_not_certified(step.accepted, step.wrong, RULE.target), rel=1e-6)
        assert (step.deff, step.groups) == (pytest.approx(1.0, rel=0.05), step.accepted)


@settings(max_examples=25, deadline=None)
@given(seeds, skills)
def test_neither_the_order_of_products_nor_the_names_of_groups_matter(seed: int, skill: float) -> None:
    fold, filled = grouped(seed, skill)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(N), rng.permutation(10 * N)
    shuffled = replace(
        fold,
        probabilities=fold.probabilities[order],
        truth=fold.truth[order],
        groups=names[fold.groups[order]],
        group_sizes=fold.group_sizes[order],
        categories=[fold.categories[product] for product in order],
    )
    filled_order = rng.permutation(2000)
    shuffled_open = replace(
        filled,
        probabilities=np.asarray(filled.probabilities)[filled_order],
        categories=[filled.categories[product] for product in filled_order],
        group_sizes=filled.group_sizes[filled_order],
    )
    before, after = issue(fold, filled), issue(shuffled, shuffled_open)
    assert (after.threshold, after.accepted, after.wrong) == (before.threshold, before.accepted, before.wrong)
    assert after.refused_categories == before.refused_categories
    assert [asdict(step) for step in after.steps] == [pytest.approx(asdict(step)) for step in before.steps]
    assert [asdict(row) for row in after.strata] == [pytest.approx(asdict(row)) for row in before.strata]


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([0.95, 0.97, 1.0]), st.integers(1, 20))
def test_more_errors_among_independent_products_never_certify_more(seed: int, skill: float, more: int) -> None:
    fold, filled = fold_of(seed, skill), filled_of(seed + 1)
    right = np.flatnonzero(fold.truth[np.arange(N), fold.probabilities.argmax(axis=1)])
    spoiled = np.random.default_rng(seed).choice(right, more)
    truth = fold.truth.copy()
    truth[spoiled] = np.roll(truth[spoiled], 1, axis=1)
    before, after = issue(fold, filled), issue(replace(fold, truth=truth), filled)
    if before.threshold is None:
        assert after.threshold is None
    assert after.threshold is None or after.threshold >= before.threshold


@settings(max_examples=25, deadline=None)
@given(seeds, skills, uses)
def test_an_issued_certificate_comes_back_from_strict_json(seed: int, skill: float, use: int) -> None:
    one = issue(*grouped(seed, skill), use)
    back = Certificate.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
    assert back == one
    assert back.certificate_id == one.certificate_id


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_what_decisions_publish_on_the_certification_fold_is_what_the_certificate_counts(seed: int) -> None:
    """``decide`` product by product, and the counts of the certificate (those of refused categories apart)."""
    fold, filled = fold_of(seed, 0.97), filled_of(seed + 1)
    one = issue(fold, filled)
    published = wrong = 0
    for probabilities, truth in zip(fold.probabilities, fold.truth, strict=True):
        top = int(probabilities.argmax())
        (row,) = decide([Candidate(LABELS[top], float(np.float32(probabilities[top])), 1)], inputs(one))
        published += row.decision is Decision.PUBLISH
        wrong += row.decision is Decision.PUBLISH and not truth[top]
    assert (published, wrong) == (one.accepted, one.wrong)


def inputs(one: Certificate, **changes: Any) -> DecisionInputs:
    usual: dict[str, Any] = {
        "certificate": one, "modality": Modality.BOTH, "category": None, "language": "en",
        "now": one.issued_at + timedelta(days=1), "scored_by": SCORED_BY, "standard": STANDARD,
    }  # fmt: skip
    return DecisionInputs(**(usual | changes))


scores = st.floats(0, 1)


@settings(deadline=None)
@given(scores, scores, st.none() | scores)
def test_a_value_of_the_pool_is_published_exactly_from_the_threshold_on(
    score: float, threshold: float, suggest: float | None
) -> None:
    one = certificate(threshold=threshold, suggest_threshold=suggest)
    (row,) = decide([Candidate("red", score, 1)], inputs(one))
    assert (row.decision is Decision.PUBLISH) == (score >= threshold)


@settings(deadline=None)
@given(scores, scores, scores)
def test_a_higher_score_never_turns_publication_into_less(score: float, higher: float, threshold: float) -> None:
    one, rank = certificate(threshold=threshold), [Decision.ABSTAIN, Decision.SUGGEST, Decision.PUBLISH]
    low, high = sorted((score, higher))
    decisions = [decide([Candidate("red", at, 1)], inputs(one))[0].decision for at in (low, high)]
    assert rank.index(decisions[0]) <= rank.index(decisions[1])


@pytest.mark.parametrize("name", [field.name for field in fields(ScoredBy)])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_other_origin_of_the_scores_publishes_nothing_i2(name: str, data: st.DataObject) -> None:
    bound = getattr(SCORED_BY, name)
    values = st.integers(0, 2**40) if isinstance(bound, int) else st.text(max_size=8)
    other = data.draw(values.filter(lambda value: value != bound))
    changed = replace(SCORED_BY, **{name: other})
    for merchant_values in ((), ("green",)):
        case = inputs(certificate(), scored_by=changed, merchant_values=merchant_values)
        (row,) = decide([Candidate("red", 1.0, 1)], case)
        assert (row.decision, row.reason) == (Decision.ABSTAIN, Reason.CERTIFICATE_MISMATCH)
