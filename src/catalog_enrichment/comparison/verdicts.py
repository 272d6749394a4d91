"""What a comparison says in words, and its bars: the best model per attribute, the networks against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.comparison.measurements import HEADINGS
from catalog_enrichment.comparison.rankings import SIGNIFICANCE, Ranking, significant
from catalog_enrichment.config.comparison import REFERENCES

if TYPE_CHECKING:
    from catalog_enrichment.comparison.measurements import MetricEstimate
    from catalog_enrichment.precision.bootstrap import Difference

BEST_NOTE = (
    f"A difference is called significant where p < {SIGNIFICANCE}. p is not corrected for the number of models: the "
    "best of many seems better than it is. A reference is TF-IDF of the title, a colour histogram of the picture, or "
    "both, with logistic regression and without a network."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is said about one attribute by one measure, in sentences."""

    measure: str
    best: str
    lead: str
    """The difference to the next model; "" if there is none."""
    reference: str
    """The best network against the best reference; "" if either is missing."""
    reference_wins: bool
    """The best reference is significantly better than every network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One model. All lengths are in per cent of the chart's width."""

    name: str
    text: str
    length: float
    low: float
    high: float
    reference: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BarChart:
    measure: str
    bars: Sequence[Bar]
    """The best first."""
    scale_end: str
    """The value at the right end."""


def verdict(ranking: Ranking) -> Verdict:
    """The sentences about one attribute and measure."""
    measure, best = HEADINGS[ranking.metric], ranking.estimates[ranking.best]
    lead = ranking.network_lead
    if best.estimate == 0:
        nothing = f"{measure} is 0 for every model: there is no best one."
        return Verdict(measure=measure, best=nothing, lead="", reference="", reference_wins=False)
    return Verdict(
        measure=measure,
        best=f"{ranking.best} is best: {estimate_text(best)}.",
        lead=_lead(ranking),
        reference=_against_reference(ranking),
        reference_wins=lead is not None and lead.estimate < 0 and significant(lead),
    )


def _lead(ranking: Ranking) -> str:
    if ranking.lead is None:
        return ""
    difference = difference_text(ranking.lead)
    if significant(ranking.lead):
        return f"The difference to the next, {ranking.next_best}, is significant: {difference}."
    return f"The difference to the next, {ranking.next_best}, is not significant: {difference}."


def _against_reference(ranking: Ranking) -> str:
    lead, network, reference = ranking.network_lead, ranking.best_network, ranking.best_reference
    if lead is None:
        return ""
    if not significant(lead):
        told = f"No network is significantly better than {reference}"
    elif lead.estimate < 0:
        told = f"{reference} is better than every network"
    else:
        told = f"{network} is better than the best reference, {reference}"
    if {network, reference} == {ranking.best, ranking.next_best}:  # the difference was given with the best
        return f"{told}."
    return f"{told}: the difference of {network} is {difference_text(lead)}."


def bar_chart(ranking: Ranking) -> BarChart:
    """A bar per model with its interval; the longest interval ends at the right end."""
    end = max((one.high for one in ranking.estimates.values()), default=0.0) or 1.0
    bars = [
        Bar(
            name=name,
            text=estimate_text(one),
            length=100 * one.estimate / end,
            low=100 * one.low / end,
            high=100 * one.high / end,
            reference=name in REFERENCES,
        )
        for name, one in ranking.estimates.items()
    ]
    return BarChart(measure=HEADINGS[ranking.metric], bars=bars, scale_end=f"{end:.0%}")


def estimate_text(metric: MetricEstimate) -> str:
    """In per cent: 44.2 [41.0, 47.5] ± 0.8"""
    spread = "" if metric.spread is None else f" ± {100 * metric.spread:.1f}"
    return f"{100 * metric.estimate:.1f} [{100 * metric.low:.1f}, {100 * metric.high:.1f}]{spread}"


def difference_text(difference: Difference) -> str:
    """In percentage points: +3.1 [+0.2, +6.0], p 0.030"""
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.estimate:+.1f} [{low:+.1f}, {high:+.1f}], p {difference.p_value:.3f}"
