"""The engine under the UDF: decode, tokenize, forward, candidates. Knows neither Spark nor MLflow.

Decoding the next batch's pictures overlaps with the forward pass of this one. A row never raises: one that cannot
be scored carries a Reason instead of candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.images import Decoded, first_usable
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.precision.units import top_candidates
from catalog_enrichment.records import Modality, Reason

if TYPE_CHECKING:
    from catalog_enrichment.models.ensemble import Scorer
    from catalog_enrichment.models.predictor import Scores


@dataclass(frozen=True, slots=True)
class Batch:
    """Products to score, as parallel columns."""

    titles: Sequence[str | None]
    descriptions: Sequence[str | None]
    images: Sequence[Sequence[Mapping[str, Any]] | None]
    """Per product, the ordered pictures (contract `products`): structs of bytes, uri, version."""

    def __len__(self) -> int:
        return len(self.titles)

    def row(self, index: int) -> Batch:
        return Batch([self.titles[index]], [self.descriptions[index]], [self.images[index]])


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    attribute: str
    value: str
    rank: int
    score: float
    """Calibrated probability."""
    attention: float | None
    """Weight on the text, 0..1; None where the fusion has no such weight."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One product's scores, or the reason why it has none."""

    candidates: list[ScoredCandidate]
    modality: str = Modality.BOTH.value
    image_reason: str | None = None
    error: str | None = None
    detail: str | None = None


COLUMNS = [field.name for field in fields(ScoredRow)]
"""The columns of one scored product, in the order of ScoredRow."""


def score_batches(predictor: Scorer, batches: Iterable[Batch], limits: ImagesConfig) -> Iterator[list[ScoredRow]]:
    """Score batches lazily, in order; yields one list per batch, one row per product in input order."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as decoder:
        ahead: tuple[Batch, Future[list[Decoded]]] | None = None
        for batch in batches:
            decoding = decoder.submit(_decode, batch, predictor.image_size, limits)
            if ahead:
                yield _score(predictor, ahead[0], ahead[1].result())
            ahead = (batch, decoding)
        if ahead:
            yield _score(predictor, ahead[0], ahead[1].result())


def _decode(batch: Batch, size: int, limits: ImagesConfig) -> list[Decoded]:
    return [first_usable(images if images is not None else (), size, limits) for images in batch.images]


def _score(predictor: Scorer, batch: Batch, decoded: list[Decoded]) -> list[ScoredRow]:
    """Score a batch; if the batch fails, score its rows one by one, so that only the bad row is lost."""
    try:
        scores = predictor.predict(
            ProductBatch(batch.titles, batch.descriptions, [picture.pixels for picture in decoded])
        )
    except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as problem:
        if len(batch) == 1:
            return [ScoredRow([], error=Reason.SCORING_FAILED.value, detail=f"{type(problem).__name__}: {problem}")]
        return [_score(predictor, batch.row(i), [decoded[i]])[0] for i in range(len(batch))]
    return [_row(predictor, scores, i, decoded[i], batch.titles[i]) for i in range(len(batch))]


def _row(predictor: Scorer, scores: Scores, index: int, picture: Decoded, title: str | None) -> ScoredRow:
    if not clean_text(title, max_chars=100):
        return ScoredRow([], error=Reason.EMPTY_TITLE.value, detail="nothing is left of the title after cleaning")
    candidates = [
        ScoredCandidate(name, candidate.value, candidate.rank, candidate.score, _weight(scores.attention[name][index]))
        for name, head in predictor.heads.items()
        for candidate in top_candidates(scores.probabilities[name][index], head.labels, head.cardinality)
    ]
    modality = Modality.BOTH if picture.pixels is not None else Modality.TEXT_ONLY
    return ScoredRow(candidates, modality.value, picture.reason.value if picture.reason else None)


def _weight(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
