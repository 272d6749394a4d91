"""What the certificates would write on the test fold: each product by the certificate of its modality path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from catalog_enrichment.precision.certificate import RefusedCategory
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
