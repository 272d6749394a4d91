"""What a run did not write although it scored it, in words: strata whose scores have drifted, switches that are not on,
and slices that no certificate covers. For the run's summary, its lines on the terminal and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DRIFT, PAUSED, UNSEEN = "drift", "paused", "unseen"
"""Keys in the column `attributes` of a run."""


def drifted(attributes: Mapping[str, Any]) -> list[str]:
    """A line per stratum that the run paused; ``attributes``: the column of its row in `runs`."""
    pauses = attributes.get(DRIFT, {}).get("pauses", [])
    return [f"{row['attribute']} {row['stratum']} is paused: {row['why']}" for row in pauses]


def not_compared(attributes: Mapping[str, Any]) -> list[str]:
    """A line if the run's scores could be compared with those at certification in a part of its strata only."""
    found = attributes.get(DRIFT, {})
    compared, strata = found.get("compared", 0), found.get("strata", 0)
    if compared >= strata:
        return []
    return [
        f"drift: compared {compared} of {strata} strata; the others have fewer than drift.min_products products in "
        "this run or in the model version's reference, or none there"
    ]


def refused(attributes: Mapping[str, Any]) -> list[str]:
    """A line per switch that is not on, but for those of :func:`drifted`, and per attribute with slices that
    certification never saw."""
    own = {f"stratum {line}" for line in drifted(attributes)}
    lines = [f"not on: {line}" for line in attributes.get(PAUSED, []) if line not in own]
    for name, slices in attributes.get(UNSEEN, {}).items():
        named = ", ".join(f"{of} ({products:,} products)" for of, products in slices.items())
        lines.append(f"{name} is not certified for: {named}")
    return lines


def added(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same keys for a backfill, of the columns `attributes` of its chunks in the order in which they finished."""
    unseen: dict[str, dict[str, int]] = {}
    for chunk in chunks:
        for name, slices in chunk.get(UNSEEN, {}).items():
            of_attribute = unseen.setdefault(name, {})
            for of, products in slices.items():
                of_attribute[of] = of_attribute.get(of, 0) + products
    return {
        DRIFT: {"pauses": [pause for chunk in chunks for pause in chunk.get(DRIFT, {}).get("pauses", [])]},
        PAUSED: list(dict.fromkeys(line for chunk in chunks for line in chunk.get(PAUSED, []))),
        UNSEEN: unseen,
    }
