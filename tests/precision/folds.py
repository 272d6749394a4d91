"""Folds of a toy attribute with three values, and refusals, for the tests of certification."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalog_enrichment.precision.certificate import RefusedCategory, RefusedLanguage
from catalog_enrichment.precision.units import CertificationScores, ChoosingScores, UnlabelledProducts
from catalog_enrichment.records import Cardinality

LABELS = ("red", "green", "blue")

FEW: dict[str, Any] = {
    "accepted": 3, "missing": 17, "unlabelled_products": 250, "labelled_missing": 90, "why": "few",
}  # fmt: skip
REFUSED_CATEGORY = RefusedCategory(category="toys", language="en", **FEW)
REFUSED_LANGUAGE = RefusedLanguage(language="fr", **FEW)


def drawn(n: int, seed: int, skill: float = 0.97) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and truth of n products with three values: mostly right at high scores; "blue" is always wrong."""
    rng = np.random.default_rng(seed)
    top, score = rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.beta(6, 1, n)
    probabilities = np.tile(((1 - score) / 2)[:, None], 3)
    probabilities[np.arange(n), top] = score
    right = (rng.random(n) < np.minimum(1, score + skill - 0.9)) & (top != 2)
    return probabilities, np.eye(3, dtype=bool)[np.where(right, top, (top + 1) % 3)]


def choosing(n: int = 800, seed: int = 1, **changes: Any) -> ChoosingScores:
    probabilities, truth = drawn(n, seed)
    content: dict[str, Any] = {
        "attribute": "color", "labels": LABELS, "cardinality": Cardinality.ONE, "probabilities": probabilities,
        "truth": truth, "groups": np.arange(n) - n,  # never shared with certification
    }  # fmt: skip
    return ChoosingScores(**(content | changes))


def certification(n: int = 2000, seed: int = 2, skill: float = 0.97, **changes: Any) -> CertificationScores:
    probabilities, truth = drawn(n, seed, skill)
    content: dict[str, Any] = {
        "attribute": "color", "labels": LABELS, "cardinality": Cardinality.ONE, "probabilities": probabilities,
        "truth": truth, "groups": np.arange(n), "categories": ["shoes", ""] * (n // 2), "languages": ["en"] * n,
        "group_sizes": np.ones(n, dtype=np.int64), "fold_share": 0.22,
    }  # fmt: skip
    return CertificationScores(**(content | changes))


def unlabelled_products(n: int = 5000, seed: int = 3, **changes: Any) -> UnlabelledProducts:
    content: dict[str, Any] = {
        "probabilities": drawn(n, seed)[0], "categories": ["shoes", ""] * (n // 2), "languages": ["en"] * n,
        "group_sizes": np.ones(n, dtype=np.int64), "counts": np.ones(n), "near_duplicate_rate": 0.5,
    }  # fmt: skip
    return UnlabelledProducts(**(content | changes))
