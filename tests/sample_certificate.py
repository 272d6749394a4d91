"""A certificate for tests: color, text and picture, threshold 0.9."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from catalog_enrichment.precision.certificate import Certificate, ScoredBy, Standard
from catalog_enrichment.records import Modality

ISSUED_AT = datetime(2026, 3, 1, tzinfo=UTC)
SCORED_BY = ScoredBy(
    weights_hash="w", preprocessing_hash="p", max_image_bytes=20_000_000, max_image_pixels=50_000_000, scaled_side=288,
    compute_type="fp32-cpu",
)  # fmt: skip
STANDARD = Standard(target=0.95, delta=0.05)


def certificate(**changes: Any) -> Certificate:
    """Return the usual certificate, with some fields changed."""
    content: dict[str, Any] = {
        "attribute": "color", "modality": Modality.BOTH, "values": ("red", "green"), "threshold": 0.9,
        "accepted": 400, "wrong": 8, "groups": 300, "deff": 1.2, "lower_bound": 0.9641, "target": 0.95, "delta": 0.05,
        "use_number": 1, "certification_round": 1, "tested_at": 0.05, "claim": "at least 95.0% are right",
        "label_set_hash": "l", "data_window": "all", "certification_products": 1000, "unlabelled_products": 5000,
        "unlabelled_near_duplicate_rate": 0.5, **asdict(SCORED_BY), "issued_at": ISSUED_AT,
        "expires_at": ISSUED_AT + timedelta(days=90), "suggest_threshold": 0.7, "categories": ("",),
        "languages": ("en",), "accept_rate": 0.4,
    }  # fmt: skip
    return Certificate(**(content | changes))


def abstention(**changes: Any) -> Certificate:
    """Return a certificate that writes nothing."""
    nothing = {"threshold": None, "why_abstains": "poor", "accepted": 0, "wrong": 0, "groups": 0, "lower_bound": 0.0,
               "accept_rate": 0.0}  # fmt: skip
    return certificate(**(nothing | changes))
