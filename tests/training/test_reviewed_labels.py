"""Errors of a perfect model of two colours that people judged: which of them are wrong labels."""

from __future__ import annotations

from dataclasses import replace

from catalog_enrichment.training.reviewed_labels import judged_errors

from .two_colours import Marketplace

RED, BLUE = ("Red",), ("Blue",)


def test_errors_by_the_merchants_own_values_and_those_that_are_wrong_labels() -> None:
    market = Marketplace()
    dataset, split, labels = market.dataset, market.split(), market.labels
    scores = market.model_scores()
    first = int(split.folds.certification[0])
    assert market.truth[first, 0], "the model says Red to it and to every second product after it"
    dataset.reviewed = [{} for _ in range(market.count)]
    assert judged_errors(split, {"color": labels}, scores) == []

    dataset.reviewed[first] = {"color": BLUE}  # overturned: the label is Red now, as the model says
    dataset.reviewed[first + 2] = {"color": RED}  # judged, and the merchant agrees with the model
    dataset.reviewed[int(split.folds.train[0])] = {"color": BLUE}  # not in the fold
    truth = labels.truth.copy()
    truth[[first + 4, first + 6]] = [False, True]  # the merchant says Blue; of the second, two people say so too
    dataset.reviewed[first + 6] = {"color": BLUE}
    row = {"attribute": "color", "products": len(split.folds.certification), "errors": 3, "judged": 2}
    assert judged_errors(split, {"color": replace(labels, truth=truth)}, scores) == [row | {"wrong_labels": 1}]
