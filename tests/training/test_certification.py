"""Certificates from scores and folds: which products count, on which path, and when labels are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Modality
from catalog_enrichment.training.certification import data_window, label_set

from ..sample_certificate import SCORED_BY
from .two_colours import Marketplace, Uses


def test_every_product_with_a_picture_counts_also_several_of_a_group() -> None:
    certificate = Marketplace().certificate()
    assert certificate.threshold is not None
    assert certificate.accepted == certificate.certification_products == 360
    assert certificate.groups == 180
    assert certificate.scored_by == SCORED_BY
    assert certificate.data_window == "2026-01-01/2026-01-09"


def test_products_without_a_picture_have_a_certificate_of_their_own() -> None:
    """Their scores are worse: nothing of it touches the other path."""
    market = Marketplace(without_picture=3)
    without = ~market.dataset.has_image
    wrong = without & (market.groups % 36 == 35)  # a twelfth
    market.scores = np.where(wrong[:, None], 1 - market.scores, market.scores)
    both, text_only = market.certificate(), market.certificate(Modality.TEXT_ONLY)
    assert both.threshold is not None
    assert both.steps[0].wrong == 0
    assert text_only.threshold is None
    assert text_only.steps[0].wrong > 0
    assert text_only.certification_products == without[market.folds.certification].sum()
    market.scores = np.where(market.truth, 0.99, 0.01)
    perfect = market.certificate(Modality.TEXT_ONLY)
    assert perfect.threshold is not None
    assert perfect.modality is Modality.TEXT_ONLY
    assert perfect.accepted == perfect.certification_products
    assert "without a usable picture" in perfect.claim


def test_too_few_products_without_a_picture_abstain_say_how_many_are_missing_and_use_no_labels() -> None:
    uses = Uses()
    certificate = Marketplace().certificate(Modality.TEXT_ONLY, uses=uses)
    assert certificate.threshold is None
    # 40 are in the certification fold, which holds a third of the labelled: 19 more there are 57 more labelled
    assert certificate.why_abstains == (
        "40 labelled products without a usable picture are in the certification fold and at least 59 are needed: about "
        "57 more such labelled products"
    )
    assert uses.calls == []


def test_labelled_products_that_are_kept_for_a_gold_sample_count_where_it_says_how_many_are_missing() -> None:
    market = Marketplace()
    left = replace(market.folds, train=market.folds.train[:200], kept=market.folds.train[200:])
    every, without = (market.certificate(Modality.TEXT_ONLY, folds=folds) for folds in (market.folds, left))
    assert "about 57 more" in every.why_abstains
    assert without.why_abstains == every.why_abstains


def test_products_whose_picture_could_not_be_reached_count_on_no_path() -> None:
    """Enrichment waits for their pictures: they are no products without a picture."""
    market = Marketplace(without_picture=3)
    counted = market.certificate(Modality.TEXT_ONLY)
    without = np.flatnonzero(~market.dataset.has_image)
    unreachable = without[::3]
    for product in unreachable:
        market.dataset.picture_reasons[product] = Reason.IMAGE_UNREACHABLE
    both, text_only = market.certificate(), market.certificate(Modality.TEXT_ONLY)
    in_fold = np.isin(unreachable, market.folds.certification).sum()
    assert in_fold > 0
    assert text_only.certification_products == counted.certification_products - in_fold
    assert text_only.unlabelled_products == counted.unlabelled_products - (unreachable >= 1200).sum()
    assert both.certification_products == market.dataset.has_image[market.folds.certification].sum()


def test_labels_are_used_once_per_certificate_with_the_products_that_are_counted() -> None:
    uses, market = Uses(number=3), Marketplace()
    certificate = market.certificate(uses=uses)
    ((attribute, product_ids, candidate),) = uses.calls
    assert (attribute, len(candidate)) == ("color", 64)
    assert len(product_ids) == certificate.certification_products
    counted = market.folds.certification[market.dataset.has_image[market.folds.certification]]
    assert [market.dataset.ids[product] for product in counted] == product_ids
    assert certificate.label_set_hash == label_set(market.dataset, counted)
    assert (certificate.use_number, certificate.tested_at) == (3, pytest.approx(0.05 / 12))


def test_the_same_weights_by_another_rule_or_on_another_grid_are_another_candidate() -> None:
    """Otherwise more tests on the same labels would be free of charge."""

    def candidate(market: Marketplace, **changes: Any) -> str:
        uses = Uses()
        market.certificate(uses=uses, **changes)
        ((_, _, name),) = uses.calls
        return name

    first = candidate(Marketplace())
    assert candidate(Marketplace()) == first
    rules = [{"step": 1.2}, {"delta": 0.04}, {"target": 0.94}]
    other_scores = Marketplace()
    other_scores.scores[400:] = np.where(other_scores.truth[400:], 0.98, 0.02)
    names = [candidate(Marketplace(), **rule) for rule in rules] + [candidate(other_scores)]
    assert len({first, *names}) == 5


def test_labels_are_kept_where_nothing_could_be_tested() -> None:
    """No pool, nothing to fill, no open product in a certified language, or too few that can be accepted."""
    uses, market = Uses(), Marketplace()
    market.dataset.languages[1200:] = ["ja"] * 400
    assert market.certificate(uses=uses).why_abstains.startswith("no unlabelled product is in a certified language and")
    market = Marketplace()
    market.scores[market.folds.choosing] = 1 - market.scores[market.folds.choosing]
    assert "every value was wrong too often" in market.certificate(uses=uses).why_abstains
    market, filled = Marketplace(), Marketplace().labels
    labels = replace(filled, unlabelled=np.zeros(1600, dtype=bool))
    certificate = market.certifier(uses).certify_one(labels, Modality.BOTH)
    assert "there are no unlabelled products" in certificate.why_abstains
    assert uses.calls == []


@pytest.mark.parametrize(("use", "count", "tested"), [(1, 59, True), (1, 58, False), (2, 94, True), (2, 93, False)])
def test_the_fold_must_have_as_many_products_as_this_use_needs(use: int, count: int, tested: bool) -> None:
    """59 at delta = .05, 94 at delta / 6: exactly so many are enough, also to be told so before a label is used."""
    uses, market = Uses(number=use), Marketplace(without_picture=10**6)
    market.groups = np.arange(market.count)
    folds = replace(market.folds, certification=market.folds.certification[:count])
    certificate = market.certificate(uses=uses, folds=folds)
    assert bool(uses.calls) == tested
    assert (certificate.threshold is not None) == tested
    why = f"{count} labelled products with text and picture are in the certification fold"
    assert (why in certificate.why_abstains) != tested


def test_labels_are_kept_for_a_better_model_where_the_test_fold_is_significantly_poor() -> None:
    uses, market = Uses(), Marketplace()
    test = market.test_folds.test
    market.scores[test[:80]] = 1 - market.scores[test[:80]]
    certificate = market.certificate(uses=uses, folds=market.test_folds)
    assert certificate.threshold is None
    assert certificate.why_abstains.startswith(
        "not tested, to keep the certification labels for a better model: 72 of 360"
    )
    assert uses.calls == []
    market.scores = np.where(market.truth, 0.99, 0.01)
    market.scores[test[:30]] = 1 - market.scores[test[:30]]  # 7.5%: not significantly more than 10%
    assert market.certificate(uses=uses, folds=market.test_folds).threshold is not None
    assert len(uses.calls) == 1


@pytest.mark.parametrize("modality", Modality)
def test_labels_are_kept_for_a_better_model_where_the_promotion_gate_would_refuse_this_one(modality: Modality) -> None:
    """It would by what the model would write on the test fold at the choosing fold's threshold, on this path."""
    uses, market, seen = Uses(), Marketplace(without_picture=3), []
    test = market.test_folds.test
    market.scores[test[::2]] = np.where(market.truth[test[::2]], 0.5, 0.01)  # below the choosing fold's threshold

    def refusal(attribute: str, decisions: Sequence[HeldOutDecision]) -> str:
        seen.extend(decisions)
        return f"{attribute}: 0.500 against 0.700"

    folds = market.test_folds
    low = np.random.default_rng(0).random((200, 1)) < 1 / 3  # as many as of all labelled products
    market.scores[1200:1600:2] = np.where(low, [0.5, 0.01], [0.99, 0.01])
    certificate = market.certificate(modality, uses=uses, folds=folds, refusal=refusal)
    assert certificate.threshold is None
    assert certificate.why_abstains == (
        "not tested, to keep the certification labels for a better model: the promotion gate would refuse it. color: "
        "0.500 against 0.700"
    )
    assert uses.calls == []
    on_path = market.dataset.has_image == (modality is Modality.BOTH)
    assert [row.product_id for row in seen] == [f"p{n}" for n in test if on_path[n]]
    assert {row.modality for row in seen} == {modality}
    assert all(row.attribute == "color" and row.true_values == ("Red",) for row in seen)
    values = {row.product_id: row.written_values for row in seen}
    assert all(values[f"p{n}"] == (() if n % 2 == 0 else ("Blue",)) for n in test if on_path[n])
    assert market.certificate(modality, uses=uses, folds=folds, refusal=lambda *_: "").threshold is not None
    assert len(uses.calls) == 1


def test_without_a_choosing_threshold_nothing_would_be_written_to_the_test_fold() -> None:
    """7% of each value are wrong on the choosing fold, all with one score: too many, but not significantly bad."""
    market, seen = Marketplace(), []
    wrong = market.folds.choosing[::28], market.folds.choosing[1::28]
    for index in wrong:
        market.scores[index] = 1 - market.scores[index]
    folds = market.test_folds
    market.certificate(folds=folds, refusal=lambda _, decisions: seen.extend(decisions) or "")
    assert len(seen) == 360
    assert not any(row.written_values for row in seen)


def test_an_attribute_that_was_not_learned_abstains_and_uses_no_labels() -> None:
    uses = Uses()
    market = Marketplace()
    too_few = replace(market.labels, too_few="all 9 products have 'Red'")
    for labels, why in ((too_few, "all 9 products have 'Red'"), (market.labels, "the model does not score it")):
        certificates = market.certifier(uses, probabilities={}).certify_all({"color": labels})
        assert [certificate.modality for certificate in certificates] == list(Modality)
        assert {certificate.why_abstains for certificate in certificates} == {why}
    assert uses.calls == []


@pytest.mark.parametrize(("without_picture", "missing"), [(1, Modality.BOTH), (10_000, Modality.TEXT_ONLY)])
def test_a_path_that_no_product_is_on_asks_for_no_labels(without_picture: int, missing: Modality) -> None:
    """A count of labels that are missing would be no advice; pages leave the path out."""
    market = Marketplace(without_picture=without_picture)
    by_path = {of.modality: of for of in market.certifier().certify_all({"color": market.labels})}
    (shown,) = claim.about_products(by_path.values())
    assert by_path[missing].why_abstains == claim.NO_PRODUCTS
    assert by_path[missing].threshold is None
    assert shown.modality is not missing
    nowhere = replace(market.labels, labelled=market.labelled & False, unlabelled=market.labelled & False)
    of_none = market.certifier(probabilities={}).certify_all({"color": replace(nowhere, too_few="no product")})
    assert {certificate.why_abstains for certificate in of_none} == {"no product"}, "an attribute is not left out"


def test_twins_in_training_are_counted_among_the_open_products() -> None:
    market = Marketplace()
    market.groups[1200:1300] = market.groups[0]
    certificate = market.certificate()
    open_with_picture = market.dataset.has_image[1200:]
    assert certificate.unlabelled_near_duplicate_rate == pytest.approx(
        open_with_picture[:100].sum() / open_with_picture.sum()
    )
    assert certificate.certification_near_duplicate_rate == 0


def test_group_sizes_are_counted_over_labelled_and_unlabelled_products() -> None:
    market = Marketplace()
    before = market.certificate()
    assert [stratum.name for stratum in before.strata] == ["Apparel, groups of 2-5"]
    market.groups[1200:1400] = np.repeat(market.groups[800:840:2], 10)  # twenty certification groups grow to 12
    sizes = [stratum.name for stratum in market.certificate().strata]
    assert sizes == ["Apparel, groups of 2-5", "Apparel, groups of 6+"]


def test_where_unlabelled_products_are_a_sample_group_sizes_count_the_labelled_and_the_product_itself() -> None:
    """Half of the certification products are alone, half in groups of 10. Half of the open ones are pairs without a
    labelled product, of which the sample shows some; the others are in the groups of 10."""
    market = Marketplace(without_picture=10**6)
    market.groups[800:1200] = np.concatenate([10_000 + np.arange(200), 20_000 + np.arange(200) // 10])
    market.groups[1200:1600] = np.concatenate([30_000 + np.arange(200) // 2, 20_000 + np.arange(200) // 10])
    market.dataset.counts["unlabelled"] = 4000
    rows = {row.name: (row.certification_products, row.unlabelled_share) for row in market.certificate().strata}
    assert rows == {"Apparel, groups of 1": (200, 0.5), "Apparel, groups of 6+": (200, 0.5)}
    assert market.certificate().steps[0].groups == 220
    market.dataset.counts["unlabelled"] = 400  # all are there: the pairs are pairs, and none to fill is alone
    assert market.certificate().steps[0].groups == 20


@pytest.mark.parametrize(("counted", "represented"), [(4000, 3600), (100, 360)])
def test_unlabelled_products_stand_for_those_that_were_not_kept_and_at_least_for_themselves(
    counted: int, represented: int
) -> None:
    """400 are in no fold. More may be so than are counted: another attribute's value makes a product labelled."""
    market = Marketplace()
    market.dataset.counts["unlabelled"] = counted
    assert market.certificate().unlabelled_products == represented


def test_certification_on_the_choosing_products_is_refused() -> None:
    market = Marketplace()
    same_fold_twice = replace(market.folds, certification=market.folds.choosing)
    with pytest.raises(ValueError, match="content groups are in both"):
        market.certificate(folds=same_fold_twice)


def test_a_label_set_is_the_product_ids_in_any_order_and_a_data_window_without_times_unknown() -> None:
    market = Marketplace()
    first, again, other = (label_set(market.dataset, np.array(index)) for index in ([0, 1], [1, 0], [0, 2]))
    assert first == again != other
    market.dataset.updated_at[:] = [None] * market.count
    assert data_window(market.dataset, np.arange(5)) == "unknown"
