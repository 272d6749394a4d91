"""Modality collapse, said in words: does a fused model use both the picture and the text?

De la Comble et al. 2022, section 4.2: fusion may give one modality a weight close to 1 for almost all products and
neglect the other. A weight alone is no proof, because the neglected one may have nothing to say (no picture shows a
material), so it is read beside what hiding a modality costs and what a model of that modality alone reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from catalog_enrichment.records import Modality

ALL_WEIGHT = 0.95
"""Attention of at least this much on one modality leaves next to nothing for the other."""
ALMOST_ALL = 0.9
"""Share of the products from which on such weights are a collapse."""
MATTERS = 0.05
"""A difference of R@P95 (or a unimodal R@P95) below this says little: test folds are small."""
HARDLY = 0.01
"""A modality that costs less R@P95 when it is hidden is hardly used."""


class _Side(NamedTuple):
    """A modality: how rows of the table name it, and how people do."""

    name: str
    people: str


_SIDES = (_Side("image", "picture"), _Side("text", "text"))


def collapse_warnings(
    modalities: Sequence[Mapping[str, Any]], attention: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[str]:
    """One warning per attribute whose model has collapsed onto one modality; none for a healthy model.

    ``modalities``: rows with `attribute`, `modality` and `r_at_p95_micro`; rows of a masked modality or a baseline
    may be missing. ``attention``: attribute -> histogram (`edges`, `counts`) of the weight on the text, for fusions
    that have one. A modality is neglected if either

    - the other has nearly all attention for almost all products, hiding this one costs little, and a model of this
      one alone, where it was fitted, reaches something; or
    - whatever the attention: hiding this one costs next to nothing, hiding the other costs a lot, and what is then
      left is worth less than half of what a model of this one alone reaches.
    """
    found: list[str] = []
    for attribute in dict.fromkeys(str(row["attribute"]) for row in modalities):
        recall = {row["modality"]: float(row["r_at_p95_micro"]) for row in modalities if row["attribute"] == attribute}
        histogram = attention.get(attribute)
        for weak, strong in (_SIDES, _SIDES[::-1]):
            share = None if histogram is None else _share_on(strong, histogram)
            if _ignored(weak, share, recall) or _untaught(weak, strong, recall):
                found.append(_in_words(attribute, weak, strong, share, recall))
    return found


def _share_on(side: _Side, histogram: Mapping[str, Sequence[float]]) -> float:
    """Share of the products with at least ALL_WEIGHT of the attention on ``side``; the weight counted is the text's."""
    edges, total = histogram["edges"], sum(histogram["counts"])
    slack = 1e-9  # of edges that are multiples of 0.05
    inside = sum(
        count
        for low, high, count in zip(edges[:-1], edges[1:], histogram["counts"], strict=True)
        if (low >= ALL_WEIGHT - slack if side.name == "text" else high <= 1 - ALL_WEIGHT + slack)
    )
    return inside / total if total else 0.0


def _cost(side: _Side, recall: Mapping[str, float]) -> float | None:
    """What hiding ``side`` costs in R@P95; None if it was not tried."""
    masked = recall.get(f"{side.name}_masked")
    return None if masked is None or Modality.BOTH not in recall else recall[Modality.BOTH] - masked


def _ignored(weak: _Side, share: float | None, recall: Mapping[str, float]) -> bool:
    cost, alone = _cost(weak, recall), recall.get(f"{weak.name}_only")
    return (
        share is not None
        and share >= ALMOST_ALL
        and (cost is None or cost < MATTERS)
        and (alone is None or alone >= MATTERS)
    )


def _untaught(weak: _Side, strong: _Side, recall: Mapping[str, float]) -> bool:
    cost, dear, alone = _cost(weak, recall), _cost(strong, recall), recall.get(f"{weak.name}_only")
    if cost is None or dear is None or alone is None:
        return False
    left = recall[f"{strong.name}_masked"]
    return cost < HARDLY and min(dear, alone) >= MATTERS and left < alone / 2


def _in_words(attribute: str, weak: _Side, strong: _Side, share: float | None, recall: Mapping[str, float]) -> str:
    because = []
    if share is not None and share >= ALMOST_ALL:
        because.append(f"attention on the {strong.people} >= {ALL_WEIGHT} for {share:.0%} of the products")
    cost, left, alone = _cost(weak, recall), recall.get(f"{strong.name}_masked"), recall.get(f"{weak.name}_only")
    if cost is not None:
        price = f"costs {100 * cost:.1f} points of R@P95" if cost > 0 else "costs no R@P95 at all"
        although = "" if alone is None else f" although a model of the {weak.people} alone reaches {alone:.1%}"
        because.append(f"hiding the {weak.people} {price}{although}")
    elif alone is not None:
        because.append(f"a model of the {weak.people} alone reaches {alone:.1%} R@P95")
    if left is not None and alone is not None:
        because.append(f"with the {strong.people} hidden this model reaches {left:.1%}")
    if share is None:
        advice = 'Try model.fusion.kind = "modality_attention" with fit.kl_lambda > 0'
    else:
        advice = "Raise fit.kl_lambda, which pulls the weights towards one half"
    unknown = (
        f" Whether the {weak.people} has anything to say is not known: training.unimodal_baselines = true would tell."
        if alone is None
        else ""
    )
    return (
        f"{attribute}: the {weak.people} is hardly used ({'; '.join(because)}). {advice} (De la Comble et al. 2022, "
        f"section 4.2), and keep it if R@P95 rises.{unknown}"
    )
