"""How many of a model's errors are wrong labels, as far as people have judged them.

People see where an earlier version and a merchant disagree (audit_sample --of suggestions). Where two of them say that
the merchant is wrong, their value is the label from then on. These rows compare the merchants' own values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import where
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.task import Split


def judged_errors(split: Split, labels: Mapping[str, Labels], scores: ModelScores) -> list[dict[str, Any]]:
    """Return a row per attribute of whose errors on the certification fold people judged some.

    ``products``: labelled there; ``errors``: the value with the highest score is not the merchant's; ``judged``: of
    these, by two people; ``wrong_labels``: of these, they say that the merchant is wrong and the value right.
    """
    rows = []
    for name in scores.probabilities:
        label = labels[name]
        index = where(split.folds.certification, label.labelled)
        best = scores.at(name, index).argmax(axis=1)
        errors = judged = wrong_labels = 0
        for product, column in zip(index.tolist(), best.tolist(), strict=True):
            value, is_right = label.value(product, column), bool(label.truth[product, column])
            if not value:
                continue  # an open attribute for which nothing is proposed
            reviewed = split.dataset.reviewed[product].get(name) if split.dataset.reviewed else None
            attribute = split.dataset.dictionary[name]
            as_given = is_right if reviewed is None else any(attribute.is_same(value, given) for given in reviewed)
            errors += not as_given
            judged += not as_given and reviewed is not None
            wrong_labels += not as_given and is_right
        if judged:
            row = {"products": len(index), "errors": errors, "judged": judged, "wrong_labels": wrong_labels}
            rows.append({"attribute": name, **row})
    return rows
