"""Reviewers for tests: they answer what the test says, through the review store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog_enrichment.audit import ingest_verdicts, sampling
from catalog_enrichment.audit.draws import DrawRequest
from catalog_enrichment.audit.review_records import Answer, Item
from catalog_enrichment.audit.review_store import ReviewStore

from ..sample_catalog import SampleCatalog
from .review_samples import verdict

Given = Answer | tuple[str, ...]
"""An answer, or the right values."""


def store_of(sample: SampleCatalog) -> ReviewStore:
    return ReviewStore(Path(sample.config.path(sample.config.audit.store)))


def drawn(sample: SampleCatalog, **given: Any) -> dict[str, Any]:
    """Draw a sample that a single reviewer judges; return the job's summary."""
    request = DrawRequest.of(sample.config.audit, **{"reviewers": 1} | given)
    with store_of(sample) as store:
        return sampling.audit_sample(sample.context(), store, request)


def items_of(sample: SampleCatalog, sample_id: str) -> list[Item]:
    """Return the questions of a sample, in the order of the draw."""
    with store_of(sample) as store:
        return store.items(sample_id)


def judge(sample: SampleCatalog, sample_id: str, answer: Callable[[Item], Given | None], reviewer: str = "ann") -> None:
    """Answer every item for which ``answer`` gives something."""
    with store_of(sample) as store:
        for item in store.items(sample_id):
            if (given := answer(item)) is None:
                continue
            right = given if isinstance(given, tuple) else ()
            chosen = given if isinstance(given, Answer) else Answer.OTHER
            store.add_verdict(verdict(item, reviewer, chosen, *right, answered_at=datetime.now(UTC)))


def ingested(sample: SampleCatalog, said: list[str] | None = None, **given: Any) -> dict[str, Any]:
    """Take in the verdicts; return the job's summary. ``said`` gets the lines that the job prints."""
    context = sample.context()
    with store_of(sample) as store:
        context = context if said is None else replace(context, say=said.append)
        return ingest_verdicts.audit_ingest(context, store, **given)
