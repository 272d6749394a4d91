"""Properties of every certificate that is issued (hypothesis), and the promise by simulation and against MAPIE."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certify import certify_attribute
from catalog_enrichment.precision.classification_metrics import operating_point
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.pool import select_pool
from catalog_enrichment.precision.thresholds import (
    GridSize,
    fixed_sequence,
    last_passed,
    plan_thresholds,
    spent_delta,
    threshold_grid,
)
from catalog_enrichment.precision.units import CertificationScores, Units, UnlabelledProducts, top_candidates
from catalog_enrichment.records import Cardinality, Decision, LabelUse, Modality

from ..sample_certificate import SCORED_BY, STANDARD
from .folds import LABELS, certification, choosing, drawn, unlabelled_products
from .test_certify import BINDING, POOL, RULE, fold_test

N = 600

seeds = st.integers(0, 2**32 - 1)
skills = st.sampled_from([0.8, 0.9, 0.92, 0.95, 0.97, 1.0])
uses = st.integers(1, 12)


def issue(fold: CertificationScores, unlabelled: UnlabelledProducts, use: int = 1) -> Certificate:
    binding = replace(BINDING, use=LabelUse(number=use, certification_round=2))
    return certify_attribute(POOL, fold, unlabelled, RULE, binding)


def alone(seed: int, skill: float) -> tuple[CertificationScores, UnlabelledProducts]:
    """Return products of one category, each in a group of its own."""
    fold = certification(N, seed, skill, categories=[""] * N)
    return fold, unlabelled_products(2000, seed + 1, categories=[""] * 2000)


def grouped(seed: int, skill: float) -> tuple[CertificationScores, UnlabelledProducts]:
    """Return content groups of 1 to 4 products in two categories, which weigh differently among the unlabelled."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(N), rng.integers(1, 5, N))[:N]
    size = np.bincount(groups)[groups]
    categories = np.where(rng.random(N) < 0.3, "bags", "shoes").tolist()
    fold = certification(N, seed, skill, groups=groups, categories=categories, group_sizes=size)
    categories = np.where(rng.random(2000) < 0.5, "bags", "shoes").tolist()
    return fold, unlabelled_products(2000, seed, categories=categories, group_sizes=rng.integers(1, 5, 2000))


@settings(max_examples=40, deadline=None)
@given(seeds, skills, uses)
def test_what_is_certified_passed_its_test_and_so_did_all_before_it(seed: int, skill: float, use: int) -> None:
    issued, delta = issue(*grouped(seed, skill), use), spent_delta(RULE.delta, use)
    assert (issued.tested_at, issued.use_number, issued.certification_round) == (delta, use, 2)
    assert all(step.passed == (step.p_value <= delta) for step in issued.steps)
    assert all(step.passed for step in issued.steps[:-1])
    passed = [step for step in issued.steps if step.passed]
    assert (issued.threshold is None) == (not passed)
    if passed:
        last = passed[-1]
        assert (issued.threshold, issued.accepted, issued.wrong) == (last.threshold, last.accepted, last.wrong)
        assert issued.lower_bound >= RULE.target
    else:
        assert issued.why_abstains
        assert (issued.accepted, issued.lower_bound, issued.accept_rate) == (0, 0.0, 0.0)


@settings(max_examples=25, deadline=None)
@given(seeds, skills, uses)
def test_the_thresholds_are_those_of_the_plan_whatever_the_labels(seed: int, skill: float, use: int) -> None:
    fold, unlabelled = grouped(seed, skill)
    grid = plan_thresholds(POOL, N, unlabelled, RULE, spent_delta(RULE.delta, use)).grid.tolist()
    relabelled = replace(fold, truth=np.roll(fold.truth, 1, axis=0))
    for issued in (issue(fold, unlabelled, use), issue(relabelled, unlabelled, use)):
        tested = [step.threshold for step in issued.steps]
        assert tested == grid[: len(tested)]
        assert issued.threshold is None or issued.threshold in grid
        assert len(tested) == len(grid) or not issued.steps[-1].passed


@settings(max_examples=25, deadline=None)
@given(seeds, skills)
def test_neither_the_order_of_products_nor_the_names_of_groups_matter(seed: int, skill: float) -> None:
    rng = np.random.default_rng(seed)

    def shuffled(products: Any) -> Any:
        order = rng.permutation(len(products.group_sizes))
        columns: dict[str, Any] = {
            "probabilities": np.asarray(products.probabilities)[order],
            "group_sizes": products.group_sizes[order],
            "categories": [products.categories[product] for product in order],
        }
        if isinstance(products, CertificationScores):
            columns |= {"truth": products.truth[order], "groups": rng.permutation(10 * N)[products.groups[order]]}
        return replace(products, **columns)

    fold, unlabelled = grouped(seed, skill)
    before, after = issue(fold, unlabelled), issue(shuffled(fold), shuffled(unlabelled))
    assert (after.threshold, after.accepted, after.wrong) == (before.threshold, before.accepted, before.wrong)
    assert after.refused_categories == before.refused_categories
    assert [asdict(step) for step in after.steps] == [pytest.approx(asdict(step)) for step in before.steps]
    assert [asdict(row) for row in after.strata] == [pytest.approx(asdict(row)) for row in before.strata]


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([0.95, 0.97, 1.0]), st.integers(1, 20))
def test_more_errors_among_independent_products_never_certify_more(seed: int, skill: float, more: int) -> None:
    fold, unlabelled = alone(seed, skill)
    right = np.flatnonzero(fold.truth[np.arange(N), fold.probabilities.argmax(axis=1)])
    spoiled = np.random.default_rng(seed).choice(right, more)
    truth = fold.truth.copy()
    truth[spoiled] = np.roll(truth[spoiled], 1, axis=1)
    before, after = issue(fold, unlabelled), issue(replace(fold, truth=truth), unlabelled)
    if before.threshold is None:
        assert after.threshold is None
    assert after.threshold is None or after.threshold >= before.threshold


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(Cardinality))
def test_a_certificate_counts_what_decisions_publish(seed: int, cardinality: Cardinality) -> None:
    """Scores have many ties, so that ``score >= t`` has to be the same comparison on both sides."""
    rng = np.random.default_rng(seed)
    probabilities = np.round(drawn(600, seed)[0], 1)
    truth = np.eye(3, dtype=bool)[probabilities.argmax(axis=1)] ^ (rng.random((600, 3)) < 0.005)
    fold = certification(n=600, probabilities=probabilities, truth=truth, cardinality=cardinality)
    chosen = select_pool(choosing(cardinality=cardinality), RULE)
    issued = certify_attribute(chosen, fold, unlabelled_products(600, seed + 1), RULE, BINDING)
    inputs = DecisionInputs(
        certificate=issued, modality=Modality.BOTH, category=None, language="en", scored_by=SCORED_BY,
        standard=STANDARD, now=issued.issued_at + timedelta(days=1),
    )  # fmt: skip
    published = wrong = 0
    for candidates, right in zip(top_candidates(probabilities, LABELS, cardinality), truth.tolist(), strict=True):
        rows = [row for row in decide(candidates, inputs) if row.decision is Decision.PUBLISH]
        published += bool(rows)
        wrong += any(not right[LABELS.index(row.value)] for row in rows)
    assert (published, wrong) == (issued.accepted, issued.wrong)


def test_certified_thresholds_keep_the_promise_where_plain_ones_break_it() -> None:
    """PRECISION's simulation, smaller: P(correct | s) = s^1.3, s ~ Beta(3, 1); precision above t is known exactly."""
    rng, draws, n = np.random.default_rng(11), 400, 2000
    support = np.sort(rng.beta(3, 1, 400_000))[::-1]
    true_precision = np.cumsum(support**1.3) / np.arange(1, len(support) + 1)
    size = GridSize(first=150, fewest=59, step=1.05)

    def precision_above(t: float) -> float:
        return float(true_precision[max(int(np.searchsorted(-support, -t, side="right")) - 1, 0)])

    certified_below = plain_below = certified = 0
    for _ in range(draws):
        scores = rng.beta(3, 1, n)
        right = rng.random(n) < scores**1.3
        grid = threshold_grid(rng.beta(3, 1, 5000), n, size)
        steps = fixed_sequence(grid, fold_test(Units(scores, np.where(right, -np.inf, scores))))
        if best := last_passed(steps):
            certified += 1
            certified_below += precision_above(best.threshold) < 0.95
        plain = operating_point(scores, right, int(right.sum()), 0.95).threshold
        plain_below += plain is not None and precision_above(plain) < 0.95
    assert certified > 0.4 * draws
    assert certified_below <= 0.05 * draws
    assert plain_below > 0.4 * draws


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_mapie_computes_the_same_p_values(seed: int) -> None:
    """MAPIE's controller for precision: the p-values of the binomial test. Where its product n * (K / n) is rounded up
    they are at most those of one error more."""
    from mapie.risk_control import BinaryClassificationController

    rng = np.random.default_rng(seed)
    scores = rng.beta(6, 1, 1500)
    right = rng.random(1500) < np.minimum(scores + 0.05, 1)
    grid = threshold_grid(scores, 1500, GridSize(first=150, fewest=59, step=1.05))
    controller = BinaryClassificationController(
        predict_function=lambda x: np.column_stack([1 - x[:, 0], x[:, 0]]),
        risk="precision",
        target_level=0.95,
        confidence_level=0.95,
        list_predict_params=grid,
        fwer_method="bonferroni",
    ).calibrate(scores[:, None], right.astype(int))
    test = fold_test(Units(scores, np.where(right, -np.inf, scores)))
    ours = [test(threshold) for threshold in grid.tolist()]
    one_more = np.array([stats.binom.cdf(step.wrong + 1, step.accepted, 0.05) for step in ours])
    p_values = np.array([step.p_value for step in ours])
    theirs = np.asarray(controller.p_values).ravel()
    assert np.isclose(theirs, p_values, rtol=1e-6).mean() > 0.5
    assert (theirs >= p_values * (1 - 1e-6)).all()
    assert (theirs <= one_more * (1 + 1e-6)).all()
