"""Forward passes over decoded products: their size, and the repetition of a pass that fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.models import compute_types
from catalog_enrichment.precision.units import NOTHING, top_candidates
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    from catalog_enrichment.models.predictor import Scorer

TOKENS = {"cpu": 8_192, "cuda": 131_072}
"""The most tokens per forward pass, padding included: the longer the texts, the fewer the products."""


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    attribute: str
    value: str
    rank: int
    score: float
    """Calibrated probability."""
    attention: float | None = None
    """Weight on the text, 0..1; None where the fusion has no such weight."""
    evidence: str | None = None
    """Where the value comes from, such as a quote of the text; None where the proposer does not say."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A product's scores, or the reason why it has none."""

    candidates: list[ScoredCandidate]
    modality: str = Modality.BOTH.value
    compute_type: str | None = None
    """The compute type of the scores; None without scores."""
    image_reason: str | None = None
    error: str | None = None
    detail: str | None = None


class ForwardPasses:
    """Scores products by a predictor; after a pass for which the memory was too small, in passes of half its size."""

    def __init__(self, predictor: Scorer, rows: int = 0, without_text: bool = False) -> None:
        """``rows``: most products per pass; 0: :data:`compute_types.ROWS`. ``without_text``: the model does not get
        the texts, as where training masks them; a product without a title is refused nevertheless."""
        device = compute_types.device_of(predictor.compute_type)
        self._predictor, self._without_text = predictor, without_text
        self._tokens = TOKENS[device]
        self.rows = rows or compute_types.ROWS[device]

    def divide(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> list[list[int]]:
        """Return the positions of the products of each pass.

        Texts of like length go together, because a pass is padded to its longest text.
        """
        try:
            lengths = self._predictor.text_lengths(titles, descriptions)
        except (RuntimeError, ValueError, TypeError, AttributeError):  # scoring will refuse the product
            lengths = np.zeros(len(titles), dtype=np.int64)
        passes: list[list[int]] = []
        for position in np.argsort(lengths, kind="stable").tolist():
            last = passes[-1] if passes else []
            if last and len(last) < self.rows and (len(last) + 1) * lengths[position] <= self._tokens:
                last.append(position)
            else:
                passes.append([position])
        return passes

    def score(self, batch: ProductBatch) -> list[ScoredRow]:
        """Return a row per product. A pass that fails is repeated in halves, so that only bad products are lost.

        A pass that was divided before the memory turned out to be too small is not tried in its full size.
        """
        try:
            if len(batch) <= self.rows:
                return self._score(batch)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, MemoryError) as problem:
            if len(batch) == 1:
                return [ScoredRow([], error=Reason.SCORING_FAILED.value, detail=f"{type(problem).__name__}: {problem}")]
            if _is_out_of_memory(problem):
                self.rows = len(batch) - len(batch) // 2
        middle = len(batch) // 2  # not in the handler above: the exception holds the memory of the pass that failed
        return [*self.score(batch.part(0, middle)), *self.score(batch.part(middle, len(batch)))]

    def _score(self, batch: ProductBatch) -> list[ScoredRow]:
        predictor, none = self._predictor, [""] * len(batch)
        scores = predictor.predict(ProductBatch(none, none, batch.pictures) if self._without_text else batch)
        rows: list[list[ScoredCandidate]] = [[] for _ in range(len(batch))]
        for name, of_products in scores.found.items():
            for row, values in zip(rows, of_products, strict=True):
                best = values[0] if values else None
                row.append(
                    ScoredCandidate(name, best.value, 1, best.score, evidence=best.evidence)
                    if best
                    else ScoredCandidate(name, NOTHING, 1, 0.0)
                )
        for name, head in predictor.heads.items():
            if head.is_open:
                continue
            found = top_candidates(scores.probabilities[name], head.labels, head.cardinality)
            for row, candidates, weight in zip(rows, found, scores.attention[name].tolist(), strict=True):
                attention = None if np.isnan(weight) else weight
                row += [ScoredCandidate(name, top.value, top.rank, top.score, attention) for top in candidates]
        return [
            _row(title, picture is not None, candidates, predictor.compute_type)
            for title, picture, candidates in zip(batch.titles, batch.pictures, rows, strict=True)
        ]


def _row(title: str | None, has_picture: bool, candidates: list[ScoredCandidate], compute_type: str) -> ScoredRow:
    if not clean_text(title, max_chars=100):
        return ScoredRow([], error=Reason.EMPTY_TITLE.value, detail="nothing is left of the title after cleaning")
    modality = Modality.BOTH if has_picture else Modality.TEXT_ONLY
    return ScoredRow(candidates, modality.value, compute_type)


def _is_out_of_memory(problem: Exception) -> bool:
    import torch

    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
