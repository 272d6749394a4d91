"""Modality collapse: warnings for fused models that use only one of picture and text.

De la Comble et al. 2022, section 4.2: fusion may give one modality a weight close to 1 for almost all products and
neglect the other. The weight is not sufficient evidence, because the neglected modality may carry no information
(pictures rarely show the material). It is therefore compared with the recall lost when a modality is masked, and with
the recall of a model of that modality alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from catalog_enrichment.records import Modality

COLLAPSED_ATTENTION = 0.95
"""An attention weight of at least this much on one modality counts as collapsed."""
COLLAPSED_PRODUCT_SHARE = 0.9
"""The model has collapsed if at least this share of the products has collapsed attention."""
MINIMUM_RECALL_DIFFERENCE = 0.05
"""A smaller difference of R@P95 (or a smaller unimodal R@P95) is within the noise of small test folds."""
NEGLIGIBLE_RECALL_COST = 0.01
"""A modality is hardly used if masking it costs less R@P95 than this."""


class _ModalityName(NamedTuple):
    """A modality as the table's rows name it, and as messages name it."""

    key: str
    text: str


_MODALITIES = (_ModalityName("image", "picture"), _ModalityName("text", "text"))


def collapse_warnings(
    modalities: Sequence[Mapping[str, Any]], attention: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[str]:
    """One warning per attribute whose model has collapsed onto one modality; empty if none has.

    ``modalities``: rows with `attribute`, `modality` and `r_at_p95_micro`; rows of a masked modality or a baseline
    may be missing. ``attention``: attribute -> histogram (`edges`, `counts`) of the weight on the text, for fusions
    that have one. A modality is neglected if either

    - the other has at least COLLAPSED_ATTENTION of the attention for COLLAPSED_PRODUCT_SHARE of the products, masking
      this one loses less than MINIMUM_RECALL_DIFFERENCE, and a model of this one alone, where it was fitted, reaches
      MINIMUM_RECALL_DIFFERENCE; or
    - masking this one loses less than NEGLIGIBLE_RECALL_COST, masking the other at least MINIMUM_RECALL_DIFFERENCE, and
      the recall that is then left is less than half of that of a model of this one alone.
    """
    warnings: list[str] = []
    for attribute in dict.fromkeys(str(row["attribute"]) for row in modalities):
        recall = {row["modality"]: float(row["r_at_p95_micro"]) for row in modalities if row["attribute"] == attribute}
        histogram = attention.get(attribute)
        for weak, strong in (_MODALITIES, _MODALITIES[::-1]):
            share = None if histogram is None else _collapsed_share(strong, histogram)
            if _neglected_by_attention(weak, share, recall) or _neglected_by_masking(weak, strong, recall):
                warnings.append(_message(attribute, weak, strong, share, recall))
    return warnings


def _collapsed_share(modality: _ModalityName, histogram: Mapping[str, Sequence[float]]) -> float:
    """Share of the products with at least COLLAPSED_ATTENTION on ``modality``. ``histogram``: of the text's weight."""
    edges, total = histogram["edges"], sum(histogram["counts"])
    tolerance = 1e-9  # the edges are multiples of 0.05, rounded
    collapsed = sum(
        count
        for low, high, count in zip(edges[:-1], edges[1:], histogram["counts"], strict=True)
        if (
            low >= COLLAPSED_ATTENTION - tolerance
            if modality.key == "text"
            else high <= 1 - COLLAPSED_ATTENTION + tolerance
        )
    )
    return collapsed / total if total else 0.0


def _masking_cost(modality: _ModalityName, recall: Mapping[str, float]) -> float | None:
    """R@P95 lost when ``modality`` is masked; None if it was not measured."""
    masked = recall.get(f"{modality.key}_masked")
    return None if masked is None or Modality.BOTH not in recall else recall[Modality.BOTH] - masked


def _neglected_by_attention(weak: _ModalityName, share: float | None, recall: Mapping[str, float]) -> bool:
    cost, unimodal = _masking_cost(weak, recall), recall.get(f"{weak.key}_only")
    return (
        share is not None
        and share >= COLLAPSED_PRODUCT_SHARE
        and (cost is None or cost < MINIMUM_RECALL_DIFFERENCE)
        and (unimodal is None or unimodal >= MINIMUM_RECALL_DIFFERENCE)
    )


def _neglected_by_masking(weak: _ModalityName, strong: _ModalityName, recall: Mapping[str, float]) -> bool:
    weak_cost, strong_cost = _masking_cost(weak, recall), _masking_cost(strong, recall)
    unimodal = recall.get(f"{weak.key}_only")
    if weak_cost is None or strong_cost is None or unimodal is None:
        return False
    remaining = recall[f"{strong.key}_masked"]
    return (
        weak_cost < NEGLIGIBLE_RECALL_COST
        and min(strong_cost, unimodal) >= MINIMUM_RECALL_DIFFERENCE
        and remaining < unimodal / 2
    )


def _message(
    attribute: str, weak: _ModalityName, strong: _ModalityName, share: float | None, recall: Mapping[str, float]
) -> str:
    evidence = []
    if share is not None and share >= COLLAPSED_PRODUCT_SHARE:
        evidence.append(f"attention on the {strong.text} >= {COLLAPSED_ATTENTION} for {share:.0%} of the products")
    cost, unimodal = _masking_cost(weak, recall), recall.get(f"{weak.key}_only")
    remaining = recall.get(f"{strong.key}_masked")
    if cost is not None:
        lost = f"costs {100 * cost:.1f} points of R@P95" if cost > 0 else "costs no R@P95"
        although = "" if unimodal is None else f" although a model of the {weak.text} alone reaches {unimodal:.1%}"
        evidence.append(f"masking the {weak.text} {lost}{although}")
    elif unimodal is not None:
        evidence.append(f"a model of the {weak.text} alone reaches {unimodal:.1%} R@P95")
    if remaining is not None and unimodal is not None:
        evidence.append(f"with the {strong.text} masked this model reaches {remaining:.1%}")
    if share is None:
        advice = 'Try model.fusion.kind = "modality_attention" with fit.kl_lambda > 0'
    else:
        advice = "Raise fit.kl_lambda, which pulls the weights towards one half"
    unknown = (
        f" It is not known what a model of the {weak.text} alone reaches: set training.unimodal_baselines = true."
        if unimodal is None
        else ""
    )
    return (
        f"{attribute}: the {weak.text} is hardly used ({'; '.join(evidence)}). {advice} (De la Comble et al. 2022, "
        f"section 4.2), and keep it if R@P95 rises.{unknown}"
    )
