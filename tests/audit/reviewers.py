"""Reviewers for tests: they answer what the test says, through the review store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog_enrichment.audit import ingest, sampling
from catalog_enrichment.audit.items import Answer, Item, Verdict
from catalog_enrichment.audit.review_store import ReviewStore

from ..sample_catalog import SampleCatalog

Said = Answer | tuple[str, ...]
"""An answer, or the right values."""


def store_of(sample: SampleCatalog) -> ReviewStore:
    return ReviewStore(Path(sample.config.path(sample.config.audit.store)))


def drawn(sample: SampleCatalog, **given: Any) -> dict[str, Any]:
    """Draw a sample that one reviewer judges; returns the job's summary."""
    request = sampling.DrawRequest.of(sample.config.audit, **{"reviewers": 1} | given)
    with store_of(sample) as store:
        return sampling.audit_sample(sample.context(), store, request)


def items_of(sample: SampleCatalog, sample_id: str) -> list[Item]:
    """The questions of a sample, in the order of the draw."""
    with store_of(sample) as store:
        return store.items(sample_id)


def judge(sample: SampleCatalog, sample_id: str, answer: Callable[[Item], Said | None], reviewer: str = "ann") -> None:
    """Answer every item for which ``answer`` gives something."""
    with store_of(sample) as store:
        for item in store.items(sample_id):
            if (said := answer(item)) is None:
                continue
            right = said if isinstance(said, tuple) else ()
            store.add_verdict(
                Verdict(
                    item_id=item.item_id,
                    reviewer=reviewer,
                    answer=Answer.OTHER if isinstance(said, tuple) else said,
                    right_values=right,
                    answered_at=datetime.now(UTC),
                    seconds=1.0,
                )
            )


def ingested(sample: SampleCatalog, **given: Any) -> dict[str, Any]:
    with store_of(sample) as store:
        return ingest.audit_ingest(sample.context(), store, **given)
