"""Labelled against unlabelled products of a training, what certificates make of it, and has-value classifiers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.models.has_value import has_value
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, CertificateStatus
from catalog_enrichment.precision.pool import Pool, select_pool
from catalog_enrichment.precision.units import ChoosingScores
from catalog_enrichment.precision.verdict_test import fewest_products
from catalog_enrichment.records import GOLD_ROUND, Modality
from catalog_enrichment.training.alikeness import Populations, TwoSides, compared, head_of
from catalog_enrichment.training.labels import Labels

from .two_colours import RULE, Marketplace, Uses


def uneven(market: Marketplace) -> Marketplace:
    """Scores that differ between products."""
    top = np.random.default_rng(0).beta(20, 1, market.count)
    market.scores = np.where(market.truth, top[:, None], 1 - top[:, None])
    return market


def without_value(share: float, score: float = 0.6) -> Marketplace:
    """A share of the unlabelled products, in whole groups, has no value and a middling score."""
    market = uneven(Marketplace(count=3200))
    none = (market.groups % 100 < 100 * share) & ~market.labelled
    market.scores = np.where(none[:, None], np.array([score, 1 - score]), market.scores)
    return market


def test_where_unlabelled_products_are_alike_merchants_labels_certify() -> None:
    certificate = uneven(Marketplace()).certificate()
    assert certificate.threshold is not None
    assert certificate.basis is CertificateBasis.MERCHANT_LABELS
    assert certificate.alikeness is not None
    assert certificate.alikeness.alike
    assert certificate.unexplained == 0.0
    assert "no difference was found" in certificate.claim


def test_where_unlabelled_products_score_lower_nothing_is_certified_and_no_label_is_used() -> None:
    uses = Uses()
    certificate = without_value(0.5).certificate(uses=uses)
    assert certificate.threshold is None
    assert uses.calls == []
    assert certificate.alikeness is not None
    assert not certificate.alikeness.alike
    assert "products without a color" in certificate.why_abstains
    assert "score below what 90% of those with one reach" in certificate.why_abstains
    assert f"{fewest_products(0.95, 0.05)} verdicts" in certificate.why_abstains
    assert "certify_model --by-verdicts color" in certificate.why_abstains


def test_where_the_vectors_of_unlabelled_products_differ_nothing_is_certified() -> None:
    """Products without a value may have the scores of the others."""
    market = uneven(Marketplace(count=3200))
    vectors = np.random.default_rng(1).standard_normal((market.count, 4)).astype(np.float32)
    alike = market.certificate(vectors=vectors)
    vectors[~market.labelled & (market.groups % 2 == 0), 0] += 3
    unlike = market.certificate(vectors=vectors)
    assert alike.threshold is not None
    assert unlike.threshold is None
    assert "texts, pictures and categories tell products" in unlike.why_abstains


def test_products_that_the_fit_has_seen_are_not_compared() -> None:
    """Vectors of the train fold, and of its twins, differ because the encoders were fitted to them."""
    market = uneven(Marketplace(count=3200))
    vectors = np.random.default_rng(1).standard_normal((market.count, 4)).astype(np.float32)
    twins = np.arange(market.count) >= 2800
    market.groups = np.where(twins, market.groups - 1400, market.groups)
    vectors[market.folds.train, 0] += 5
    vectors[twins, 0] += 5
    certificate = market.certificate(vectors=vectors)
    assert certificate.threshold is not None
    assert certificate.alikeness is not None
    assert certificate.alikeness.unlabelled == (~market.labelled & ~twins & market.dataset.has_image).sum()


def test_too_few_products_to_compare_abstain_by_the_configured_share() -> None:
    market, uses = uneven(Marketplace()), Uses()
    share = market.certificate().alikeness.noticeable_share  # type: ignore[union-attr]
    assert market.certificate(noticeable_share=share * 1.01).threshold is not None
    refused = market.certificate(noticeable_share=share * 0.99, uses=uses)
    assert refused.threshold is None
    assert uses.calls == []
    assert "too few to show that products without a color are like those with one" in refused.why_abstains
    assert "precision.noticeable_share" in refused.why_abstains


def test_a_difference_that_is_found_is_the_reason_also_where_products_are_few() -> None:
    refused = without_value(0.5).certificate(noticeable_share=0.01)
    assert refused.threshold is None
    assert "score below what 90% of those with one reach" in refused.why_abstains
    assert "too few" not in refused.why_abstains


def gold(market: Marketplace, answered: Any, right: Any) -> Labels:
    """The labels with a gold sample: people answered for some products, and the model is right for some of these."""
    truth = market.truth & np.asarray(right)[:, None]
    return replace(market.labels, gold=np.asarray(answered), gold_truth=truth)


def certified(market: Marketplace, labels: Labels, uses: Uses | None = None) -> Certificate:
    return market.certifier(uses).certify_one(labels, Modality.BOTH)


def half_answered() -> tuple[Marketplace, Labels, Any]:
    """Half of the unlabelled products have no value; people answered rightly for half of all. The last item: (N,) of
    the answered products."""
    market = without_value(0.5)
    answered = ~market.labelled & (market.groups % 2 == 0)
    return market, gold(market, answered, market.scores.max(axis=1) != 0.6), answered


def test_a_gold_sample_certifies_what_merchants_labels_cannot() -> None:
    (market, labels, answered), uses = half_answered(), Uses()
    certificate = certified(market, labels, uses)
    assert certificate.threshold is not None
    assert certificate.threshold > 0.6
    assert certificate.certification_round == GOLD_ROUND, "its uses are counted apart"
    assert (certificate.basis, certificate.status) == (CertificateBasis.GOLD_SAMPLE, CertificateStatus.CONFIRMED)
    counted = answered & market.dataset.has_image
    assert certificate.certification_products == counted.sum()
    ((_, product_ids, _),) = uses.calls
    assert set(product_ids) == {market.dataset.ids[product] for product in np.flatnonzero(counted)}
    assert "people's answers" in certificate.claim
    assert certificate.strata == ()


def test_a_gold_sample_counts_products_without_a_value_as_wrong() -> None:
    """The same scores, but people said that the products have none."""
    market = without_value(0.5, score=0.99)
    none = (market.groups % 100 < 50) & ~market.labelled
    market.scores = np.where(none[:, None], np.array([0.99, 0.01]), market.scores)
    answered = ~market.labelled
    certificate = certified(market, gold(market, answered, ~none))
    assert certificate.threshold is None
    assert certificate.why_abstains.endswith('a product without a value counts as wrong, and so does "cannot tell"')


def test_a_small_gold_sample_leaves_the_reason_of_merchants_labels() -> None:
    market, uses = without_value(0.5), Uses()
    answered = ~market.labelled & (market.groups % 40 == 0)
    certificate = certified(market, gold(market, answered, answered), uses)
    assert certificate.threshold is None
    assert certificate.basis is CertificateBasis.MERCHANT_LABELS
    assert "products without a color" in certificate.why_abstains
    assert re.search(r"The gold sample: too few products: of \d+ answers about", certificate.why_abstains)
    assert certificate.why_abstains.endswith("more answers to gold samples would be enough to test it")
    assert uses.calls == []


def test_where_merchants_labels_certify_the_gold_sample_is_kept() -> None:
    market, uses = uneven(Marketplace()), Uses()
    certificate = certified(market, gold(market, ~market.labelled, market.truth.any(axis=1)), uses)
    assert certificate.basis is CertificateBasis.MERCHANT_LABELS
    assert len(uses.calls) == 1


def test_a_category_that_no_gold_product_came_from_is_not_certified() -> None:
    """It may have come into the catalog after the draw."""
    market, labels, _ = half_answered()
    later = ~market.labelled & (market.groups % 4 == 1)
    market.dataset.categories = np.where(later, "Perfume", "Apparel").tolist()
    certificate = certified(market, labels)
    assert certificate.threshold is not None
    assert certificate.categories == ("Apparel",)


def test_a_gold_sample_is_not_used_for_a_model_that_the_promotion_gate_would_refuse() -> None:
    (market, labels, _), uses = half_answered(), Uses()
    folds = replace(market.folds, test=market.folds.train[:400])
    certifier = market.certifier(uses, folds=folds, refusal=lambda *_: "color: 0.500 against 0.700")
    certificate = certifier.certify_one(labels, Modality.BOTH)
    assert certificate.threshold is None
    assert uses.calls == []
    assert "The gold sample: not tested" in certificate.why_abstains


def test_gold_products_of_a_content_group_that_trained_do_not_certify() -> None:
    market, labels, answered = half_answered()
    twins = answered & (np.arange(market.count) >= 2800)
    market.groups = np.where(twins, market.groups - 1400, market.groups)
    certificate = certified(market, labels)
    assert certificate.certification_products == (answered & ~twins & market.dataset.has_image).sum()


def pool_of(market: Marketplace) -> Pool:
    chose = market.folds.choosing
    choosing = ChoosingScores(
        attribute="color", labels=("Red", "Blue"), cardinality=market.labels.cardinality,
        probabilities=market.scores[chose], truth=market.truth[chose], groups=market.groups[chose],
    )  # fmt: skip
    return select_pool(choosing, RULE)


def test_a_head_is_fitted_to_the_choosing_fold_and_half_of_the_unseen_unlabelled_products() -> None:
    market = uneven(Marketplace(count=3200))
    vectors = np.random.default_rng(1).standard_normal((market.count, 4)).astype(np.float32)
    vectors[~market.labelled & (market.groups % 2 == 0), 0] += 4
    split, scores = market.split(), market.model_scores(vectors=vectors)
    populations = Populations(split, ~np.isin(market.groups, market.groups[market.folds.train]))
    heads = populations.heads({"color": market.labels}, scores)
    assert set(heads) == {("color", Modality.BOTH)}, "too few products have no picture"
    assert replace(populations, with_heads=False).heads({"color": market.labels}, scores) == {}
    pool = pool_of(market)
    with_head = populations.comparison(market.labels, Modality.BOTH, scores, pool, has_head=True).result
    without = populations.comparison(market.labels, Modality.BOTH, scores, pool, has_head=False).result
    pictured = market.dataset.has_image
    assert with_head.labelled == pictured[market.folds.certification].sum()
    assert without.labelled == with_head.labelled + pictured[market.folds.choosing].sum()
    assert 0.4 < with_head.unlabelled / without.unlabelled < 0.6
    (row,) = populations.head_table(heads, scores)
    assert row["certification"] > row["unlabelled"] + 0.2


def test_no_head_is_fitted_to_products_of_a_gold_sample() -> None:
    market = Marketplace(count=3200)
    market.dataset.gold = [{"color": ()} if number >= 2800 else {} for number in range(market.count)]
    untouched = Populations(market.split(), ~market.labelled).untouched(has_head=True)
    assert untouched[2800:].all()
    assert 0.3 < untouched[2400:2800].mean() < 0.7


def test_products_like_those_of_a_gold_sample_do_not_count_twice_in_the_comparison() -> None:
    market, read = uneven(Marketplace(count=3200)), []
    for asked in ((), range(2400, 2800)):
        market.dataset.gold = [{"color": ()} if number in asked else {} for number in range(market.count)]
        populations = Populations(market.split(), ~np.isin(market.groups, market.groups[market.folds.train]))
        scores = market.model_scores(vectors=np.zeros((market.count, 1), dtype=np.float32))
        found = populations.comparison(market.labels, Modality.BOTH, scores, pool_of(market), has_head=True)
        read.append(found.result.unlabelled)
    assert read[0] == read[1] > 0


# --- classifiers ----------------------------------------------------------------------------------------------------


def generated(seed: int = 0, without: float = 0.5, apart: float = 4.0, size: int = 600) -> TwoSides:
    """Half labelled, half unlabelled; the vectors of the share of the latter that has no value are ``apart``."""
    rng = np.random.default_rng(seed)
    labelled = np.arange(size) < size // 2
    vectors = rng.standard_normal((size, 6)) * np.array([3.0, 1, 1, 1, 1, 0.1])
    none = ~labelled & (rng.random(size) < without)
    vectors[none, 1] += apart
    return TwoSides(labelled=labelled, vectors=vectors, groups=np.arange(size), weights=np.ones(size))


def test_a_head_gives_products_without_a_value_a_small_probability() -> None:
    products = generated()
    head = head_of(products)
    assert head is not None
    assert head.shape == (7,)
    assert head.dtype == np.float32
    factors = has_value(head, products.vectors)
    none = products.vectors[:, 1] > 2.5
    assert factors[none & ~products.labelled].mean() < 0.2
    assert factors[products.labelled & ~none].mean() > 0.85
    assert factors.max() <= 1.0


def test_there_is_no_head_where_nothing_tells_the_sides_apart_or_for_a_few_products() -> None:
    assert [head_of(generated(seed, without=0.0)) is None for seed in range(10)] == [True] * 10
    assert head_of(generated(size=16)) is None


def test_a_head_does_not_learn_what_the_weights_make_equal() -> None:
    """A difference in the mix of categories is no reason to think that a product has no value."""
    rng = np.random.default_rng(1)
    labelled = np.arange(2000) < 1000
    kind = rng.random(2000) < np.where(labelled, 0.9, 0.1)
    vectors = rng.standard_normal((2000, 3))
    vectors[:, 0] += 3 * kind
    weights = np.where(labelled, np.where(kind, 0.1 / 0.9, 0.9 / 0.1), 1.0)
    plain = TwoSides(labelled=labelled, vectors=vectors, groups=np.arange(2000), weights=np.ones(2000))
    weighted = TwoSides(labelled=labelled, vectors=vectors, groups=np.arange(2000), weights=weights)
    assert head_of(plain) is not None
    assert head_of(weighted) is None


def test_copies_on_both_sides_are_not_told_apart_by_having_been_seen() -> None:
    """A group is in one part of the cross-fit: a classifier never scores a copy of a product that it was fitted to."""
    rng = np.random.default_rng(2)
    vectors = np.repeat(rng.standard_normal((100, 20)), 10, axis=0)
    groups = np.repeat(np.arange(100), 10)
    labelled = groups < 50
    products = TwoSides(labelled=labelled, vectors=vectors, groups=groups, weights=np.ones(1000))
    assert compared(products, np.full(1000, 0.9), [""] * 1000).result.auc < 0.65


def test_the_comparison_reads_scores_and_categories() -> None:
    products = generated(without=0.0)
    nothing = np.full(len(products), 0.9)
    low = np.where(products.labelled, 0.9, np.linspace(0.1, 0.9, len(products)))
    no_value = np.where(products.labelled, 0.9, -np.inf)
    perfume = ~products.labelled & (np.arange(len(products)) % 3 == 0)
    categories, everywhere = np.where(perfume, "Perfume", "Shirts").tolist(), [""] * len(products)
    assert compared(products, nothing, everywhere).result.auc == pytest.approx(0.5, abs=0.06)
    assert compared(products, low, everywhere).result.auc > 0.8
    assert compared(products, no_value, everywhere).result.auc == pytest.approx(1.0)
    assert compared(products, nothing, categories).result.auc > 0.6


def test_a_path_with_products_on_one_side_only_is_not_told_apart() -> None:
    for size in (0, 50):
        vectors = np.random.default_rng(0).standard_normal((size, 3))
        products = TwoSides(np.ones(size, dtype=bool), vectors, np.arange(size), np.ones(size))
        result = compared(products, np.full(size, 0.5), [""] * size).result
        assert (result.auc, result.noticeable_share) == (0.5, 1.0)
