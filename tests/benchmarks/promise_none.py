"""Products that have no value: worlds for promise.py in which unlabelled products lack a value because they have none.

Labelled products, and unlabelled products with a value, are drawn from the world of promise_worlds.py. A share of the
unlabelled products has no value: whatever is written to them is wrong. Their scores are low, middling or like those of
the others. A feature tells them from the others with a given area under the ROC curve; the has-value head and the
comparison read it among features that say nothing. In some worlds half of the unlabelled products come from shops that
never fill the attribute: all have a value, but their feature is that of products without a value.

In each draw the product's own functions fit the head, compare, choose, and certify from merchants' labels. Then,
whether or not these certified something, reviewers judge uniformly drawn proposals until verdicts certify a threshold,
and answer a gold sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from promise_verdicts import REVIEWER_NOISE, judged
from promise_worlds import (
    BINDING,
    FOLDS,
    LABELS,
    RULE,
    TARGET,
    Sample,
    World,
    certification_scores,
    choosing_scores,
    draw,
    unlabelled_products,
)
from scipy import special

from catalog_enrichment.models.has_value import has_value
from catalog_enrichment.precision.alike import AlikenessTest, cell_weights
from catalog_enrichment.precision.certify import certify_attribute
from catalog_enrichment.precision.pool import Pool, select_pool
from catalog_enrichment.precision.units import Bools, Floats
from catalog_enrichment.precision.verdict_test import DrawnProducts, run_tests
from catalog_enrichment.training.alikeness import TwoSides, compared, head_of

FEATURES = 8
"""Width of the vectors; the first feature tells products without a value from others, the rest is noise."""
UNLABELLED = 8000
LARGE = 200_000
"""Unlabelled products of the sample that stands for the population."""
MOST_VERDICTS = 1500
BETA = {"low": (2, 3), "middling": (4, 2)}
"""Parameters of the scores of products without a value."""
GOLD = 500
"""Products of a gold sample."""
WORLD = World()


@dataclass(frozen=True, kw_only=True)
class NoneWorld:
    """A world whose unlabelled products may lack a value."""

    share: float = 0.0
    """Share of the unlabelled products that have no value."""
    scores: str = "like"
    """Those of products without a value: low or middling (BETA), or like those of the others."""
    auc: float = 0.5
    """Area under the ROC curve of the feature that tells products without a value from others."""
    never: float = 0.0
    """Share of the unlabelled products from shops that never fill: all have a value, and the feature of products
    without a value."""
    unlabelled: int = UNLABELLED


WORLDS: dict[str, tuple[NoneWorld, int]] = {
    "none without a value, 700 labelled": (NoneWorld(unlabelled=2000), 700),
    "none without a value, 1,500 labelled": (NoneWorld(unlabelled=4000), 1500),
    "none without a value, 10,000 labelled": (NoneWorld(), 10_000),
    **{
        f"{share:.0%} without, {scores} scores, {labelled:,} labelled": (
            NoneWorld(share=share, scores=scores, unlabelled=UNLABELLED if labelled > 2000 else 4000), labelled
        )
        for labelled in (1500, 10_000)
        for share, scores in ((0.05, "middling"), (0.2, "low"), (0.2, "middling"), (0.5, "middling"), (0.9, "low"))
    },
    **{
        f"{share:.0%} without, scores like the labelled, AUC {auc:g}": (NoneWorld(share=share, auc=auc), 10_000)
        for share in (0.05, 0.2, 0.5, 0.9)
        for auc in ((0.6, 0.8, 0.99) if share < 0.9 else (0.8,))
    },
    "20% without, scores like the labelled, nothing tells": (NoneWorld(share=0.2), 10_000),
    "half from shops that never fill, AUC 0.9": (NoneWorld(never=0.5, auc=0.9), 10_000),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The outcome of a draw."""

    certified: bool
    """By merchants' labels."""
    violated: bool
    recall: float
    """Right values written, of the unlabelled products whose value the best threshold would write."""
    written: float
    """Right values written as a share of the unlabelled products."""
    compared_alike: bool
    by_verdicts: bool
    verdict_violated: bool
    verdict_written: float
    verdicts: int
    """Asked until the first threshold was certified, or until they ended."""
    by_gold: bool
    """A gold sample of :data:`GOLD` products certified."""
    gold_violated: bool
    gold_written: float


@dataclass(frozen=True)
class Unlabelled:
    sample: Sample
    features: Floats  # (m, FEATURES)
    right: Bools  # (m,)


def features(rng: np.random.Generator, with_value: Bools, auc: float) -> Floats:
    """(n, FEATURES): the first is shifted where products look as if they had a value."""
    found = rng.standard_normal((len(with_value), FEATURES))
    found[:, 0] += np.sqrt(2) * special.ndtri(auc) * with_value  # the distance of the means for this AUC
    return found


def unlabelled(world: NoneWorld, rng: np.random.Generator, size: int) -> Unlabelled:
    """``size`` unlabelled products."""
    sample = draw(WORLD, rng, size, unlabelled=True)
    size = len(sample)
    kind = rng.random(size)
    without, never = kind < world.share, kind > 1 - world.never
    scores = sample.scores.copy()
    if world.scores in BETA:
        scores[without, 0] = np.clip(rng.beta(*BETA[world.scores], int(without.sum())), 0.06, 1)
    right = sample.right & ~without[:, None]
    changed = replace(sample, scores=scores.astype(np.float32).astype(np.float64), right=right)
    return Unlabelled(changed, features(rng, ~without & ~never, world.auc), right[:, 0])


@cache
def population(world: NoneWorld) -> Unlabelled:
    """Return the sample that stands for all unlabelled products of a world."""
    return unlabelled(world, np.random.default_rng(4321), LARGE)


def none_draw(world: NoneWorld, labelled: int, seed: int) -> Outcome:
    """Certify from merchants' labels and by verdicts; judge both by the truth."""
    rng = np.random.default_rng(seed)
    sizes = {name: round(getattr(FOLDS, name) * labelled) for name in ("choosing", "certification", "test")}
    folds = {name: draw(WORLD, rng, size) for name, size in sizes.items()}
    vectors = {name: features(rng, np.ones(len(fold), dtype=bool), world.auc) for name, fold in folds.items()}
    filled = unlabelled(world, rng, world.unlabelled)
    half = np.arange(len(filled.right)) % 2 == 0
    head = head_of(_products(vectors["choosing"], filled.features[half]))

    def scored(sample: Sample, of: Floats) -> Sample:
        return sample if head is None else replace(sample, scores=sample.scores * has_value(head, of)[:, None])

    folds = {name: scored(fold, vectors[name]) for name, fold in folds.items()}
    open_sample = scored(filled.sample, filled.features)
    pool = select_pool(choosing_scores(WORLD, folds["choosing"]), RULE)
    held_out = ["certification", "test"] if head is not None else ["certification", "test", "choosing"]
    compared = ~half if head is not None else np.ones(len(half), dtype=bool)
    comparison = _comparison(
        np.concatenate([folds[name].scores[:, 0] for name in held_out]), open_sample.scores[compared, 0],
        np.concatenate([vectors[name] for name in held_out]), filled.features[compared],
    )  # fmt: skip
    certificate = certify_attribute(
        pool, certification_scores(WORLD, folds["certification"]), unlabelled_products(WORLD, open_sample), RULE,
        BINDING, comparison,
    )  # fmt: skip
    truth = population(world)
    accept = scored(truth.sample, truth.features).scores[:, 0]
    allowed = np.isin(LABELS, list(pool.values))[truth.sample.values[:, 0]]
    accept = np.where(allowed, accept, -np.inf)
    precision, right = _judged(accept, truth.right, certificate.threshold)
    lowest = pool.choosing_threshold if pool.choosing_threshold is not None else (pool.suggest_threshold or 0.0)
    threshold, asked = by_verdicts(rng, accept, truth.right, lowest)
    verdict_precision, verdict_right = _judged(accept, truth.right, threshold)
    gold = _by_gold_sample(world, rng, pool, open_sample, scored)
    gold_precision, gold_right = _judged(accept, truth.right, gold)
    return Outcome(
        certified=certificate.threshold is not None,
        violated=precision < TARGET,
        recall=right / max(_best(accept, truth.right), 1),
        written=right / LARGE,
        compared_alike=comparison.result.alike,
        by_verdicts=threshold is not None,
        verdict_violated=verdict_precision < TARGET,
        verdict_written=verdict_right / LARGE,
        verdicts=asked,
        by_gold=gold is not None,
        gold_violated=gold_precision < TARGET,
        gold_written=gold_right / LARGE,
    )


def _by_gold_sample(
    world: NoneWorld,
    rng: np.random.Generator,
    pool: Pool,
    open_sample: Sample,
    scored: Callable[[Sample, Floats], Sample],
) -> float | None:
    """The threshold that reviewers' answers about unlabelled products certify; a wrong answer is another value, or that
    the product has none."""
    drawn = unlabelled(world, rng, GOLD)
    wrong = judged(~drawn.right, REVIEWER_NOISE, rng)
    sample = scored(replace(drawn.sample, right=~wrong[:, None]), drawn.features)
    fold = replace(certification_scores(WORLD, sample), fold_share=1.0, uniform=True)
    return certify_attribute(pool, fold, unlabelled_products(WORLD, open_sample), RULE, BINDING).threshold


def by_verdicts(rng: np.random.Generator, accept: Floats, right: Bools, lowest: float) -> tuple[float | None, int]:
    """Return the threshold that verdicts certify, and how many were asked until the first certificate."""
    reachable = np.flatnonzero(accept >= lowest)
    if len(reachable) < MOST_VERDICTS:
        return None, 0
    places = rng.choice(reachable, MOST_VERDICTS, replace=False)
    wrong = judged(~right[places], REVIEWER_NOISE, rng)
    scores = accept[places]

    def tested(asked: int) -> float | None:
        drawn = DrawnProducts(
            scores=scores, wrong_scores=np.where(wrong, scores, -np.inf), settled=np.arange(len(scores)) < asked,
            lowest=np.full(len(scores), lowest), samples=np.zeros(len(scores), dtype=np.int64),
            product_ids=tuple(map(str, range(len(scores)))),
        )  # fmt: skip
        test = run_tests(drawn, TARGET, RULE.delta, RULE.step)
        return None if test is None or test.certified is None else test.certified.threshold

    found = tested(MOST_VERDICTS)
    if found is None:
        return None, MOST_VERDICTS
    low, high = 0, MOST_VERDICTS  # what is certified stays certified
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tested(middle) is not None else (middle, high)
    return found, high


def _products(labelled: Floats, others: Floats) -> TwoSides:
    count = len(labelled) + len(others)
    weights = np.concatenate(cell_weights([""] * len(labelled), [""] * len(others)))
    return TwoSides(
        labelled=np.arange(count) < len(labelled), vectors=np.concatenate([labelled, others]),
        groups=np.arange(count), weights=weights,
    )  # fmt: skip


def _comparison(scores: Floats, others: Floats, vectors: Floats, of_others: Floats) -> AlikenessTest:
    products, both = _products(vectors, of_others), np.concatenate([scores, others])
    return compared(products, both, [""] * len(both))


def _judged(accept: Floats, right: Bools, threshold: float | None) -> tuple[float, int]:
    """Return the true precision of the values at the threshold, and how many are right; (1, 0) without a threshold."""
    if threshold is None:
        return 1.0, 0
    accepted = accept >= threshold
    count = int(right[accepted].sum())
    return (count / int(accepted.sum()) if accepted.any() else 1.0), count


def _best(accept: Floats, right: Bools) -> int:
    """Right values that the best threshold would write."""
    order = np.argsort(-accept)
    found = np.cumsum(right[order])
    good = (found / np.arange(1, len(order) + 1) >= TARGET) & (np.arange(len(order)) >= LARGE // 100)
    return int(found[good].max(initial=0))


COLUMNS = ("violations", "recall_vs_oracle", "abstain", "written", "alike", "verdict_violations", "verdict_written",
           "verdict_abstain", "verdicts", "gold_violations", "gold_written", "gold_abstain", "draws")  # fmt: skip
"""The keys of :func:`rates`, in the order of the table."""


def rates(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the row of a world."""

    def mean(name: str) -> float:
        return round(float(np.mean([getattr(outcome, name) for outcome in outcomes])), 4)

    same = {
        "violations": "violated", "recall_vs_oracle": "recall", "written": "written", "alike": "compared_alike",
        "verdict_violations": "verdict_violated", "verdict_written": "verdict_written",
        "gold_violations": "gold_violated", "gold_written": "gold_written",
    }  # fmt: skip
    opposite = {"abstain": "certified", "verdict_abstain": "by_verdicts", "gold_abstain": "by_gold"}
    row: dict[str, Any] = {column: mean(name) for column, name in same.items()}
    row |= {column: round(1 - mean(name), 4) for column, name in opposite.items()}
    certified = [outcome.verdicts for outcome in outcomes if outcome.by_verdicts]
    row |= {"verdicts": float(np.median(certified)) if certified else None, "draws": len(outcomes)}
    return {column: row[column] for column in COLUMNS}
