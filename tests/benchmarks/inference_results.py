"""The arithmetic of the benchmark: rates and their ranges, ratios, differences of predictions, the table, the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from inference_job import Measured

NOT_INSTALLED = "not installed"


@dataclass
class Outcome:
    """What became of one contender in one world."""

    rounds: list[Measured] = field(default_factory=list)
    products: int = 0
    """Of the world."""
    difference: float | None = None
    """Largest difference of a probability from that of ``plain``, over all rounds; None: not compared."""
    tolerance: float = 0.0
    batch: int = 0
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
    rates = [outcome.products / one.seconds for one in outcome.rounds]
    return [round(value, 1) for value in (min(rates), median(rates), max(rates))]


def summary(outcomes: Outcomes) -> dict[str, dict[str, dict[str, Any]]]:
    """The JSON line: world -> contender -> rates, ratios of the medians to those of plain and bare, and peak memory.

    A ratio is None where that other contender was not measured. Contenders without figures are left out.
    """
    return {world: _of_world(contenders) for world, contenders in outcomes.items()}


def _of_world(contenders: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    rates = {name: products_per_second(one) for name, one in contenders.items() if one.rounds}

    def ratio(name: str, other: str) -> float | None:
        return round(rates[name][1] / rates[other][1], 3) if other in rates else None

    return {
        name: {
            "products_per_s": found,
            "of_plain": ratio(name, "plain"),
            "of_bare": ratio(name, "bare"),
            "peak_rss_mib": round(max(one.peak_rss_mib for one in contenders[name].rounds)),
        }
        for name, found in rates.items()
    }


def table(outcomes: Outcomes) -> str:
    """One row per contender and world."""
    figures = summary(outcomes)
    lines = []
    for world, contenders in outcomes.items():
        lines.append(
            f"{world:<20}{'products/s':>10} {'range':>17} {'of plain':>9} {'of bare':>8} {'peak MiB':>9} {'batch':>6} "
            f"{'difference':>11} {'at most':>8}"
        )
        for name, outcome in contenders.items():
            if outcome.absent:
                lines.append(f"{name:<20}{outcome.absent}")
                continue
            found = figures[world][name]
            low, middle, high = found["products_per_s"]
            extent = f"[{low:.1f}, {high:.1f}]"
            lines.append(
                f"{name:<20}{middle:>10.1f} {extent:>17} {_number(found['of_plain'], 9, 2)} "
                f"{_number(found['of_bare'], 8, 2)} {found['peak_rss_mib']:>9,} {outcome.batch:>6} "
                f"{_number(outcome.difference, 11, 6)} {outcome.tolerance:>8g}{'' if outcome.agrees else '  TOO FAR'}"
            )
        lines.append("")
    return "\n".join(lines)


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"


def fastest(batches: Sequence[int], seconds: Sequence[float]) -> int:
    """The batch size of the shortest pass. ``batches`` and ``seconds`` are of the same passes; a size may repeat."""
    return min(zip(seconds, batches, strict=True))[1]
