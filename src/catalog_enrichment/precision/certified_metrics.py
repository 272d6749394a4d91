"""What a version's certificates would write on its test fold, in numbers (PRECISION, "Reporting").

Every labelled product of the fold counts, by the decisions that the promotion gate compares: with the categories and
languages that certificates refuse, on both modality paths. Intervals are by content group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.precision import bootstrap
from catalog_enrichment.precision.cluster import AcceptedSample, group_numbers, precision_interval
from catalog_enrichment.precision.paired_recall import HeldOutDecision


def certified_metrics(decisions: Sequence[HeldOutDecision], in_training: ArrayLike) -> dict[str, float]:
    """Certified recall, precision of the written products and share with a twin in training, of one attribute's n
    ``decisions``, with 95% intervals; ``in_training`` (n,): whether a product of the content group is in training.

    Recall is the share of the true (product, value) pairs that are written; a product is wrong if any value written to
    it is wrong. Recall and twin share have bootstrap intervals. Precision has the interval of Korn and Graubard (1998),
    because a bootstrap of products without an error would be a point. Precision is 0 where nothing is written.
    """
    groups = group_numbers([row.group for row in decisions])
    true = [len(row.true_values) for row in decisions]
    right = [len(set(row.true_values) & set(row.written_values)) for row in decisions]
    written = np.array([bool(row.written_values) for row in decisions], dtype=bool)
    wrong = np.array([not set(row.written_values) <= set(row.true_values) for row in decisions], dtype=bool)
    measures = {
        "recall": bootstrap.ratio_of_sums(right, true),
        "near_duplicate_rate": bootstrap.ratio_of_sums(in_training, np.ones(len(decisions))),
    }
    accepted, mistaken = int(written.sum()), int(wrong.sum())
    low, high = precision_interval(AcceptedSample.of(written, wrong, groups))
    found = {
        "products": float(len(decisions)),
        "accepted": float(accepted),
        "wrong": float(mistaken),
        "precision": (accepted - mistaken) / accepted if accepted else 0.0,
        "precision_low": low,
        "precision_high": high,
    }
    for name, interval in bootstrap.intervals(measures, bootstrap.Resamples(groups)).items():
        found |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return found
