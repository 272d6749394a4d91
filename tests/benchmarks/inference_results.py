"""The arithmetic of the benchmark: rates and their ranges, ratios, differences of predictions, the table, the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from benchmark import markdown
from inference_job import Measured

NOT_INSTALLED = "not installed"


@dataclass
class Outcome:
    """The outcome of a contender in a world."""

    rounds: list[Measured] = field(default_factory=list)
    products: int = 0
    """How many the world has."""
    difference: float | None = None
    """Largest difference of a probability from that of ``plain``, over all rounds; None: not compared."""
    tolerance: float = 0.0
    absent: str = ""
    """Why there are no figures: not installed, or failed."""

    @property
    def agrees(self) -> bool:
        return self.difference is None or self.difference <= self.tolerance


Outcomes = Mapping[str, Mapping[str, Outcome]]
"""World -> contender -> outcome."""


def difference(reference: pa.Table, found: pa.Table, labels: Mapping[str, Sequence[str]]) -> float:
    """The largest difference of ``found`` from ``reference``, which has all probabilities of every product.

    ``labels``: attribute -> its values, in the order of the reference's probabilities. Of a product's best value the
    probability is compared with the reference's of the same value and with the reference's highest. So two values that
    are nearly equal may change places, and no others. Returns infinity if rows, values or numbers are missing.
    """
    reference, found = reference.sort_by("row"), found.sort_by("row")
    if reference["row"].to_pylist() != found["row"].to_pylist():
        return float("inf")
    return max(_attribute_difference(reference, found, name, values) for name, values in labels.items())


def _attribute_difference(reference: pa.Table, found: pa.Table, name: str, values: Sequence[str]) -> float:
    probabilities = np.array(reference[f"{name}_all"].to_pylist())  # (N, V)
    column = {value: number for number, value in enumerate(values)}
    best = found[name].to_pylist()
    if not set(best) <= set(column):
        return float("inf")
    own = probabilities[np.arange(len(best)), [column[value] for value in best]]
    scores = np.array(found[f"{name}_score"].to_pylist(), dtype=float)
    differences = np.maximum(np.abs(scores - own), np.abs(scores - probabilities.max(axis=1)))
    return float(np.nan_to_num(differences, nan=np.inf).max())


def products_per_second(outcome: Outcome) -> list[float]:
    """[min, median, max] over the rounds."""
    rates = [outcome.products / measured.seconds for measured in outcome.rounds]
    return [round(value, 1) for value in (min(rates), median(rates), max(rates))]


def summary(outcomes: Outcomes) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for the JSON line: world -> contender -> rates, ratios of the medians to plain and bare, and peak memory.

    A ratio is None where that other contender was not measured. Contenders without figures are left out.
    """
    return {world: _summary_of(contenders) for world, contenders in outcomes.items()}


def _summary_of(contenders: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    rates = {name: products_per_second(outcome) for name, outcome in contenders.items() if outcome.rounds}

    def ratio(name: str, other: str) -> float | None:
        return round(rates[name][1] / rates[other][1], 3) if other in rates else None

    return {
        name: {
            "products_per_s": found,
            "of_plain": ratio(name, "plain"),
            "of_bare": ratio(name, "bare"),
            "peak_rss_mib": round(max(measured.peak_rss_mib for measured in contenders[name].rounds)),
        }
        for name, found in rates.items()
    }


def table(outcomes: Outcomes) -> str:
    """Return the table for people, with a row per contender and world."""
    columns = ["products/s", "range", "of plain", "of bare", "peak MiB", "difference", "at most", ""]
    lines: list[str] = []
    for world, figures in summary(outcomes).items():
        rows: dict[str, list[object]] = {}
        for name, outcome in outcomes[world].items():
            if outcome.absent:
                rows[name] = [outcome.absent, *[""] * 7]
                continue
            low, middle, high = figures[name]["products_per_s"]
            shares = (figures[name][key] for key in ("of_plain", "of_bare", "peak_rss_mib"))
            too_far = "" if outcome.agrees else "TOO FAR"
            rows[name] = [middle, f"[{low}, {high}]", *shares, outcome.difference, outcome.tolerance, too_far]
        lines += [*markdown(columns, rows, world), ""]
    return "\n".join(lines)
