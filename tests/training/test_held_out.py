"""What the certificates would write on the test fold: each product by the certificate of its modality path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from catalog_enrichment.precision.certificate import CertificateBasis, RefusedCategory
from catalog_enrichment.precision.certified_metrics import certified_metrics
from catalog_enrichment.records import Modality, Reason
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.held_out import held_out_decisions
from catalog_enrichment.training.task import Split

from .two_colours import NONE, Marketplace


def test_certified_metrics_are_of_what_may_be_written_on_both_paths() -> None:
    """Of the 400 products 40 have no picture; 100 are of a refused category, 100 of a language never seen."""
    market = Marketplace()
    both, text_only = market.certificate(), market.certificate(Modality.TEXT_ONLY)
    refused = replace(
        both,
        refused_categories=(RefusedCategory("Home", 3, 17, 100, "en", 200, "few"),),
        categories=("Apparel", "Home"),
    )
    market.dataset.categories[:100] = ["Home"] * 100
    market.dataset.languages[100:200] = ["ja"] * 100
    folds = replace(market.folds, train=NONE, test=market.folds.train)
    split = Split(market.dataset, market.groups, folds)
    scores = ModelScores(np.arange(market.count), {"color": market.scores})
    decisions = held_out_decisions(split, {"color": market.labels}, scores, [refused, text_only])
    assert len(decisions) == 400
    may = market.dataset.has_image[:400] & (np.arange(400) >= 200)
    assert [bool(row.written_values) for row in decisions] == may.tolist()
    row = certified_metrics(decisions, np.zeros(400))
    assert (row["products"], row["accepted"]) == (400, may.sum())
    assert row["recall"] == sum(row.written_values == row.true_values for row in decisions) / 400
    certified = replace(both, modality=Modality.TEXT_ONLY)
    with_both = held_out_decisions(split, {"color": market.labels}, scores, [refused, certified])
    assert [bool(row.written_values) for row in with_both] == (np.arange(400) >= 200).tolist()


def test_a_product_whose_picture_could_not_be_reached_is_in_no_test_fold() -> None:
    market = Marketplace()
    unreachable = np.flatnonzero(~market.dataset.has_image[:400])[:3].tolist()
    for product in unreachable:
        market.dataset.picture_reasons[product] = Reason.IMAGE_UNREACHABLE
    split = Split(market.dataset, market.groups, replace(market.folds, train=NONE, test=market.folds.train))
    scores = ModelScores(np.arange(market.count), {"color": market.scores})
    decisions = held_out_decisions(split, {"color": market.labels}, scores, [market.certificate()])
    assert [row.product_id for row in decisions] == [f"p{n}" for n in range(400) if n not in unreachable]


def test_gold_products_that_did_not_certify_are_test_products() -> None:
    """Half of the unlabelled products were answered, a third of these have no value; a twin of a product that trained
    is left out."""
    market = Marketplace()
    answered = ~market.labelled & (market.groups % 2 == 0)
    market.dataset.gold = [
        {} if not one else {"color": () if group % 3 == 0 else (("Red", "Blue")[product % 2],)}
        for product, (one, group) in enumerate(zip(answered.tolist(), market.groups.tolist(), strict=True))
    ]
    market.dataset.merchant = [{"color": ("Red",)} if one else {} for one in market.labelled.tolist()]
    market.groups = np.where(np.arange(market.count) >= 1500, market.groups - 750, market.groups)
    labels = replace(market.labels, gold=answered, gold_truth=market.truth)
    folds = replace(market.folds, test=market.folds.certification[:40])
    split = Split(market.dataset, market.groups, folds)
    scores = ModelScores(np.arange(market.count), {"color": market.scores})
    certificate = market.certificate()
    found = held_out_decisions(split, {"color": labels}, scores, [certificate])
    rows = {row.product_id: row for row in found}
    fresh = answered & (np.arange(market.count) < 1500)
    assert set(rows) == {f"p{n}" for n in np.flatnonzero(fresh)} | {f"p{n}" for n in folds.test}
    (none,) = {rows[f"p{n}"].true_values for n in np.flatnonzero(fresh) if market.dataset.gold[n]["color"] == ()}
    assert none == ()
    written = sum(bool(row.written_values) and not row.true_values for row in found)
    assert written > 0, "the gate sees that a value is written to products that have none"

    by_gold = replace(certificate, basis=CertificateBasis.GOLD_SAMPLE)
    without = held_out_decisions(split, {"color": labels}, scores, [by_gold])
    of_other_path = fresh & ~market.dataset.has_image
    assert {row.product_id for row in without} == {f"p{n}" for n in np.flatnonzero(of_other_path)} | {
        f"p{n}" for n in folds.test
    }
