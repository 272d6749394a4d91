"""What readers see after several model versions have decided, for promise.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from promise_worlds import LABELS, Sample, World, category_names

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.reasons import JUDGED, Reason
from catalog_enrichment.records import Decision, Modality


def visible_precision(versions: Sequence[tuple[Certificate, Sample]]) -> tuple[float, float]:
    """Return the share of right values among the values that readers see after all versions have decided on the same
    products, and the share if the value of an older version stayed active where a newer version abstains."""
    products = len(versions[0][1])
    visible: list[bool | None] = [None] * products  # None: no value; else whether it is right
    active: list[bool | None] = [None] * products
    for certificate, sample in versions:
        for product, (decision, reason) in enumerate(_decisions(certificate, sample)):
            right = bool(sample.right[product, 0])
            if decision is Decision.PUBLISH:
                visible[product] = active[product] = right
            elif reason in JUDGED:
                visible[product] = None
    return _share(visible), _share(active)


def _decisions(certificate: Certificate, sample: Sample) -> list[tuple[Decision, Reason]]:
    categories, decided = category_names(World(), sample.categories), []
    for product in range(len(sample)):
        inputs = DecisionInputs(
            certificate=certificate,
            modality=Modality.BOTH,
            category=categories[product],
            language="en",
            now=certificate.issued_at,
            scored_by=certificate.scored_by,
            standard=certificate.standard,
        )
        candidate = Candidate(LABELS[int(sample.values[product, 0])], float(sample.scores[product, 0]), 1)
        (row,) = decide([candidate], inputs)
        decided.append((row.decision, row.reason))
    return decided


def _share(values: Sequence[bool | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 1.0
