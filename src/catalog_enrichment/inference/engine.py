"""The engine under the UDF: decode, tokenize, forward, candidates. Knows neither Spark nor MLflow.

Fetching and decoding the next batch's pictures overlaps with the forward pass of this one. A row never raises: one that
cannot be scored carries a Reason instead of candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.images import first_usable_of_each
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.precision.units import top_candidates
from catalog_enrichment.records import Modality, Reason

if TYPE_CHECKING:
    from catalog_enrichment.models.ensemble import Scorer
    from catalog_enrichment.models.predictor import Scores


@dataclass(frozen=True, slots=True)
class UndecodedBatch:
    """Products to score, as parallel columns; their pictures are not decoded yet."""

    titles: Sequence[str | None]
    descriptions: Sequence[str | None]
    images: Sequence[Sequence[Mapping[str, Any]] | None]
    """Per product, the ordered pictures (contract `products`): structs of bytes, uri, version."""
    contents: Sequence[str] | None = None
    """Per product, the hash of all of these; of products with the same one is scored. None: every product is."""

    def __post_init__(self) -> None:
        if not len(self.titles) == len(self.descriptions) == len(self.images) == len(self.contents or self.titles):
            raise ValueError("the columns of a batch differ in length")

    def __len__(self) -> int:
        return len(self.titles)

    def at(self, positions: Sequence[int]) -> UndecodedBatch:
        """The products at these positions."""
        return UndecodedBatch(
            [self.titles[position] for position in positions],
            [self.descriptions[position] for position in positions],
            [self.images[position] for position in positions],
        )


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
    numeric_path: str | None = None
    """Number type and device that computed the scores; None without scores."""
    image_reason: str | None = None
    error: str | None = None
    detail: str | None = None


REMEMBERED_CONTENTS = 10_000
"""Contents whose rows a task keeps: about 20 MB."""


def score_batches(
    predictor: Scorer, batches: Iterable[UndecodedBatch], limits: ImagesConfig
) -> Iterator[list[ScoredRow]]:
    """Score batches lazily, in order; yields one list per batch, one row per product in input order."""
    scored = _ScoredContents()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as decoder:
        current: tuple[_Share, Future[_DecodedBatch]] | None = None
        for batch in batches:
            share = scored.share(batch)
            following = share, decoder.submit(_decode, batch.at(share.positions), predictor.image_size, limits)
            if current:
                yield scored.rows(current[0], _score_decoded(predictor, current[1].result()))
            current = following
        if current:
            yield scored.rows(current[0], _score_decoded(predictor, current[1].result()))


@dataclass(frozen=True, slots=True)
class _Share:
    """What of a batch has to be scored."""

    contents: Sequence[str]
    """Per product."""
    positions: list[int]
    """Of the products to score: the first of each content that has no row yet."""
    found: dict[str, ScoredRow]
    """Content -> its row, of those scored before."""
    remember: bool
    """Whether later batches may need the rows."""


class _ScoredContents:
    """The rows of the contents scored last: listings of several sellers are often equal."""

    def __init__(self) -> None:
        self._rows: dict[str, ScoredRow] = {}

    def share(self, batch: UndecodedBatch) -> _Share:
        contents = batch.contents or [str(position) for position in range(len(batch))]
        known = self._rows if batch.contents else {}
        first = {content: position for position, content in reversed(list(enumerate(contents)))}
        found = {content: known[content] for content in first if content in known}
        positions = sorted(position for content, position in first.items() if content not in found)
        return _Share(contents, positions, found, remember=batch.contents is not None)

    def rows(self, share: _Share, scored: Sequence[ScoredRow]) -> list[ScoredRow]:
        """A row for every product of the batch; ``scored``: those of the products at ``share.positions``."""
        own = {share.contents[position]: row for position, row in zip(share.positions, scored, strict=True)}
        if share.remember:
            self._rows |= own
        while len(self._rows) > REMEMBERED_CONTENTS:
            del self._rows[next(iter(self._rows))]  # the oldest
        return [own.get(content) or share.found[content] for content in share.contents]


@dataclass(frozen=True, slots=True)
class _DecodedBatch:
    products: ProductBatch
    image_reasons: list[Reason | None]
    """Per product, why no picture of it could be used."""


def _decode(batch: UndecodedBatch, size: int, limits: ImagesConfig) -> _DecodedBatch:
    decoded = first_usable_of_each(batch.images, size, limits)
    products = ProductBatch(batch.titles, batch.descriptions, [picture.pixels for picture in decoded])
    return _DecodedBatch(products, [picture.reason for picture in decoded])


def _score_decoded(predictor: Scorer, batch: _DecodedBatch) -> list[ScoredRow]:
    rows = _score(predictor, batch.products)
    return [
        replace(row, image_reason=reason.value) if reason and row.error is None else row
        for row, reason in zip(rows, batch.image_reasons, strict=True)
    ]


def _score(predictor: Scorer, batch: ProductBatch) -> list[ScoredRow]:
    """Score a batch; if that fails, score its products one by one, so that only the bad one is lost."""
    try:
        scores = predictor.predict(batch)
    except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as problem:
        if len(batch) == 1:
            return [ScoredRow([], error=Reason.SCORING_FAILED.value, detail=f"{type(problem).__name__}: {problem}")]
        return [_score(predictor, batch.row(index))[0] for index in range(len(batch))]
    return [_row(predictor, scores, batch, index) for index in range(len(batch))]


def _row(predictor: Scorer, scores: Scores, batch: ProductBatch, index: int) -> ScoredRow:
    if not clean_text(batch.titles[index], max_chars=100):
        return ScoredRow([], error=Reason.EMPTY_TITLE.value, detail="nothing is left of the title after cleaning")
    candidates = [
        ScoredCandidate(name, candidate.value, candidate.rank, candidate.score, _weight(scores.attention[name][index]))
        for name, head in predictor.heads.items()
        for candidate in top_candidates(scores.probabilities[name][index], head.labels, head.cardinality)
    ]
    modality = Modality.TEXT_ONLY if batch.pictures[index] is None else Modality.BOTH
    return ScoredRow(candidates, modality.value, predictor.numeric_path)


def _weight(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
