"""The best model of every attribute, whether it is really better than the next, and the networks against the reference.

"Really": the paired bootstrap of the difference, over content groups. The p-values are not corrected for the number of
models that the best one was chosen from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from catalog_enrichment.comparison.measurements import Measurements, MetricEstimate, MetricKey
from catalog_enrichment.comparison.results import FittedModels
from catalog_enrichment.config.comparison import REFERENCES, Metric
from catalog_enrichment.precision.bootstrap import Difference

RANKED_BY: tuple[Metric, ...] = ("r_at_p95_micro", "f1_macro")
"""The measures that name a best model; the first is the one that certification profits from."""
SIGNIFICANCE = 0.05
"""A difference with a smaller p-value is called significant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """The models of one attribute by one measure."""

    attribute: str
    metric: Metric
    estimates: dict[str, MetricEstimate]
    """Model -> its estimate, the best first; equal ones in the order of the config."""
    lead: Difference | None
    """The best less the next; None if there is one model only."""
    best_network: str
    best_reference: str
    """The best of TF-IDF, colour histogram and both; either is "" if there is none."""
    network_lead: Difference | None
    """The best network less the best reference; None if either is missing."""

    @property
    def best(self) -> str:
        return next(iter(self.estimates))

    @property
    def next_best(self) -> str:
        """The second; "" if there is one model only."""
        return next(iter(list(self.estimates)[1:]), "")


def rank_models(fitted: FittedModels, measurements: Measurements) -> list[Ranking]:
    """A ranking per attribute and measure. ``fitted`` has a model at least; the references always are."""
    return [_ranking(attribute, metric, fitted, measurements) for attribute in fitted.labels for metric in RANKED_BY]


def significant(difference: Difference) -> bool:
    return difference.p_value < SIGNIFICANCE


def _ranking(attribute: str, metric: Metric, fitted: FittedModels, measurements: Measurements) -> Ranking:
    keys = {name: MetricKey(name, attribute, metric) for name in fitted.models}
    unsorted = {name: measurements.estimate(key) for name, key in keys.items()}
    names = sorted(unsorted, key=lambda name: -unsorted[name].estimate)  # stable: equal ones keep their order
    network = _first(name for name in names if name not in REFERENCES)
    reference = _first(name for name in names if name in REFERENCES)
    return Ranking(
        attribute=attribute,
        metric=metric,
        estimates={name: unsorted[name] for name in names},
        lead=measurements.difference(keys[names[0]], names[1]) if len(names) > 1 else None,
        best_network=network,
        best_reference=reference,
        network_lead=measurements.difference(keys[network], reference) if network and reference else None,
    )


def _first(names: Iterable[str]) -> str:
    return next(iter(names), "")
