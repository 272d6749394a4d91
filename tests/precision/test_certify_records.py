"""What certificates record beside their test, and what makes a candidate another one."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.precision import certify
from catalog_enrichment.precision.certificate import UnseenSlice
from catalog_enrichment.precision.certify import LabelUse, score_histogram
from catalog_enrichment.precision.grid import threshold_grid
from catalog_enrichment.precision.pool import select_pool
from catalog_enrichment.precision.units import Units, accept_scores
from catalog_enrichment.records import Modality

from ..sample_certificate import SCORED_BY
from .folds import certification, choosing, unlabelled_products
from .test_certify import BINDING, RULE, issue, sequencer

POOL = select_pool(choosing(), RULE)


def test_an_abstention_claims_counts_and_lists_nothing() -> None:
    binding = replace(BINDING, use=LabelUse(number=2, certification_round=3), modality=Modality.TEXT_ONLY)
    given = certify.abstention("color", "poor", RULE, binding).to_dict()
    given.pop("certificate_id")
    empty = ("values", "strata", "refused_categories", "refused_languages", "unseen_slices", "categories", "languages")
    zero = (
        "accepted", "wrong", "groups", "certification_products", "unlabelled_products", "lower_bound", "accept_rate",
        "certification_near_duplicate_rate", "unlabelled_near_duplicate_rate",
    )  # fmt: skip
    assert given == {
        "contract": 2, "attribute": "color", "modality": "text_only", "threshold": None, "why_abstains": "poor",
        "score_type": "float64 of float32", "unit": "product", "status": "provisional",
        "basis": "merchant_labels", "deff": 1.0, "alikeness": None, "unexplained": 0.0,
        "suggest_threshold": None, "histogram": [0] * 20, "steps": [], **dict.fromkeys(zero, 0),
        **{name: [] for name in empty},
        "target": 0.95, "delta": 0.05, "use_number": 2, "certification_round": 3, "tested_at": 0.05 / 6,
        "claim": "Nothing is claimed: color is not written for products without a usable picture.",
        "label_set_hash": "l", "data_window": "all", **asdict(SCORED_BY),
        "issued_at": "2026-01-02T00:00:00.000000+00:00", "expires_at": "2026-04-02T00:00:00.000000+00:00",
    }  # fmt: skip


def test_a_certificate_expires_after_the_configured_days() -> None:
    rule = replace(RULE, valid_days=7)
    issued = certify.certify_attribute(POOL, certification(), unlabelled_products(), rule, BINDING)
    assert issued.expires_at == BINDING.issued_at + timedelta(days=7)


def test_a_certificate_has_the_numbers_of_its_last_passed_step() -> None:
    issued = issue(certification())
    best = certify.last_passed(issued.steps)
    assert best is not None
    assert len([step for step in issued.steps if step.passed]) > 1
    numbers = ("threshold", "accepted", "wrong", "groups", "deff", "lower_bound")
    assert [getattr(issued, name) for name in numbers] == [getattr(best, name) for name in numbers]
    assert isinstance(issued.unlabelled_products, int)


def test_an_untestable_attribute_has_no_steps_and_says_what_is_asked_before_its_labels_are_used() -> None:
    few, filled = certification(n=40), unlabelled_products()
    why = certify.why_untestable(POOL, few, filled, RULE, 1)
    abstained = issue(few, pool=POOL)
    assert abstained.why_abstains == why
    assert "too few products" in why
    assert abstained.steps == ()
    assert isinstance(abstained.unlabelled_products, int)
    assert certify.why_untestable(POOL, certification(), filled, RULE, 1) == ""
    assert certify.why_untestable(POOL, certification(n=100), filled, RULE, 1) == ""
    # a later use needs more products
    assert "too few products" in certify.why_untestable(POOL, certification(n=100), filled, RULE, 10)


def test_what_makes_a_candidate_another_one() -> None:
    def key(weights: str = "w", n: int = 2000, filled: Any = None, **changes: Any) -> str:
        pool = replace(POOL, **{name: changes.pop(name) for name in ("deff", "mask", "units") if name in changes})
        return certify.candidate_key(weights, pool, n, filled or unlabelled_products(), replace(RULE, **changes))

    keys = [
        key(), key("x"), key(n=1000), key(filled=unlabelled_products(seed=9)), key(target=0.9), key(delta=0.1), key(step=1.2),
        key(units=replace(POOL.units, error=POOL.units.accept)), key(deff=2.0),
        key(mask=np.array([True, False, False])),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key() == key(valid_days=1)


def test_the_grid_of_a_candidate_is_that_of_a_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few products only a first use has thresholds to test."""
    hashed: list[tuple[Any, ...]] = []
    monkeypatch.setattr(certify, "stable_hash", lambda *parts: hashed.append(parts))
    certify.candidate_key("w", POOL, 100, unlabelled_products(), RULE)
    ((weights, settings, values, deff, grid, version),) = hashed
    assert (weights, values, deff, version) == ("w", POOL.values, POOL.deff, certify.TEST_VERSION)
    assert settings == (RULE.target, RULE.delta, RULE.step)
    accept = accept_scores(unlabelled_products().probabilities, POOL.cardinality, POOL.mask)
    assert grid == threshold_grid(accept, 100, certify.grid_size(POOL, accept, 100, RULE, 1)).tolist()
    assert len(grid) > 1
    assert not len(threshold_grid(accept, 100, certify.grid_size(POOL, accept, 100, RULE, 2)))


def test_the_slices_are_sorted_and_those_that_no_product_has_are_named() -> None:
    fold = certification(languages=["nl"] * 500 + ["en"] * 500 + ["fr"] * 1000, categories=["shoes", "bags"] * 1000)
    without = np.array([not (language == "nl" and name == "bags") for language, name in zip(
        fold.languages, fold.categories, strict=True)])  # fmt: skip
    kept = certification(
        n=int(without.sum()), probabilities=fold.probabilities[without], truth=fold.truth[without],
        groups=fold.groups[without],
        categories=[name for name, keep in zip(fold.categories, without, strict=True) if keep],
        languages=[name for name, keep in zip(fold.languages, without, strict=True) if keep],
    )  # fmt: skip
    issued = issue(kept, categories=["shoes", "bags"] * 2500, languages=["nl"] * 1000 + ["fr", "fr", "en", "en"] * 1000)
    assert issued.languages == ("en", "fr", "nl")
    assert issued.categories == ("bags", "shoes")
    assert issued.unseen_slices == (UnseenSlice("nl", "bags"),)
    apart = {"languages": ["en", "fr", "nl", "pl"] * 500, "categories": ["a", "b", "c", "d"] * 500}
    issued = issue(certification(**apart), n=2000, **apart)
    pairs = [(language, name) for language in ("en", "fr", "nl", "pl") for name in "abcd"]
    assert [(row.language, row.category) for row in issued.unseen_slices] == [
        pair for number, pair in enumerate(pairs) if number % 5
    ]


def test_the_histogram_counts_each_products_best_score_in_twentieths_of_0_to_1() -> None:
    assert score_histogram([0.0, 0.02, 0.05, 0.5, 0.99, 1.0]) == (2, 1, *[0] * 8, 1, *[0] * 8, 2)
    assert score_histogram([0.31, 0.56]) == (*[0] * 6, 1, *[0] * 4, 1, *[0] * 8)
    issued = issue(certification())
    assert issued.histogram == score_histogram(unlabelled_products().probabilities.astype(np.float32).max(axis=1))


def test_equal_thresholds_are_no_sequence_and_a_p_value_of_exactly_delta_passes() -> None:
    sequence = sequencer(Units(np.full(100, 0.9), np.where(np.arange(100) < 1, 0.9, -np.inf)))
    with pytest.raises(ValueError, match="strictly decreasing"):
        sequence.fixed_sequence(np.array([0.9, 0.9]), 0.95, 0.05)
    exactly = sequence.test(0.9, 0.95, 0.05).p_value
    (step,) = sequence.fixed_sequence(np.array([0.9]), 0.95, exactly)
    assert step.passed
    assert np.sum([stratum.accepted for stratum in sequence.weighting(0.9).strata]) == 100
