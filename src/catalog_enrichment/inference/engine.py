"""The engine under the UDF: decode, tokenize, forward, candidates. It knows neither Spark nor MLflow.

Pictures of the next forward pass are fetched and decoded during a forward pass. A row never raises: a row that cannot
be scored carries a Reason instead of candidates.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.inference.forward import ForwardPasses, ScoredRow
from catalog_enrichment.inputs.images import Decoded, first_usable_of_each
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import compute_types

if TYPE_CHECKING:
    from catalog_enrichment.models.predictor import Scorer


@dataclass(frozen=True, slots=True)
class UndecodedBatch:
    """Products to score, as parallel columns; their pictures are not decoded yet."""

    titles: Sequence[str | None]
    descriptions: Sequence[str | None]
    images: Sequence[Sequence[Mapping[str, Any]] | None]
    """Per product, the ordered pictures (contract `products`): structs of bytes, uri, version."""
    contents: Sequence[str] | None = None
    """Per product, the hash of all of these. Among products with the same hash, a single product is scored. None: every
    product is scored."""

    def __post_init__(self) -> None:
        if not len(self.titles) == len(self.descriptions) == len(self.images) == len(self.contents or self.titles):
            raise ValueError("the columns of a batch differ in length")

    def __len__(self) -> int:
        return len(self.titles)

    def at(self, positions: Sequence[int]) -> UndecodedBatch:
        """Return the products at these positions."""
        return UndecodedBatch(
            [self.titles[position] for position in positions],
            [self.descriptions[position] for position in positions],
            [self.images[position] for position in positions],
        )


REMEMBERED_CONTENTS = 10_000
"""The contents whose rows a task keeps: about 20 MB."""


def score_batches(
    predictor: Scorer,
    batches: Iterable[UndecodedBatch],
    limits: ImagesConfig,
    rows: int = 0,
    without_text: bool = False,
) -> Iterator[list[ScoredRow]]:
    """Score batches lazily, in order; yield a list per batch, with a row per product in input order.

    A batch is scored in forward passes of at most ``rows`` products (0: :data:`compute_types.ROWS`), sorted by length.
    With ``without_text`` the pictures alone are scored.
    """
    scored, passes = ScoredContents(), ForwardPasses(predictor, rows, without_text)

    def parts() -> Iterator[_Part]:
        for batch in batches:
            share = scored.share(batch.contents, len(batch))
            to_score = batch.at(share.positions)
            divided = passes.divide(to_score.titles, to_score.descriptions) or [[]]
            for number, positions in enumerate(divided, start=1):
                yield _Part(share, to_score.at(positions), positions, is_last=number == len(divided))

    threads = _decoding_threads(predictor.compute_type)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as decoder:
        submitted = (
            (part, decoder.submit(first_usable_of_each, part.batch.images, predictor.square, limits))
            for part in parts()
        )
        found: dict[int, ScoredRow] = {}
        for part, decoded in _taken_ahead(submitted, threads):
            found |= zip(part.positions, _scored(passes, part.batch, decoded.result()), strict=True)
            if part.is_last:
                yield scored.rows(part.share, [found[position] for position in range(len(found))])
                found = {}


T = TypeVar("T")


def _decoding_threads(compute_type: str) -> int:
    """Return the threads that decode the next forward passes' pictures: 1 on a CPU, which has no core to spare, up to 8
    for a GPU."""
    return 1 if compute_types.device_of(compute_type) == "cpu" else min(8, os.cpu_count() or 1)


def _taken_ahead(items: Iterator[T], number: int) -> Iterator[T]:
    """Yield the items; ``number`` more are taken from ``items`` before an item is given."""
    waiting = deque(islice(items, number))
    for item in items:
        waiting.append(item)
        yield waiting.popleft()
    yield from waiting


@dataclass(frozen=True, slots=True)
class _Part:
    """The products of a batch that are scored in a forward pass."""

    share: _Share
    batch: UndecodedBatch
    positions: list[int]
    """The products' positions in ``share.positions``."""
    is_last: bool
    """The part is the last of its batch."""


@dataclass(frozen=True, slots=True)
class _Share:
    """The products of a batch that have to be scored."""

    contents: Sequence[str]
    """The content of each product."""
    positions: list[int]
    """The positions of the products to score: the first of each content that has no row yet."""
    found: dict[str, ScoredRow]
    """Content -> its row, where it was scored before."""
    remember: bool
    """Later batches may need the rows."""


class ScoredContents:
    """The rows of the contents scored last: listings of several sellers are often equal."""

    def __init__(self) -> None:
        self._rows: dict[str, ScoredRow] = {}

    def share(self, given: Sequence[str] | None, products: int) -> _Share:
        """Return which of a batch's products to score. ``given``: the content of each; None: all are scored."""
        contents = given or [str(position) for position in range(products)]
        known = self._rows if given else {}
        first = {content: position for position, content in reversed(list(enumerate(contents)))}
        found = {content: known[content] for content in first if content in known}
        positions = sorted(position for content, position in first.items() if content not in found)
        return _Share(contents, positions, found, remember=given is not None)

    def rows(self, share: _Share, scored: Sequence[ScoredRow]) -> list[ScoredRow]:
        """Return a row for every product of the batch; ``scored``: the rows of the products at ``share.positions``."""
        own = {share.contents[position]: row for position, row in zip(share.positions, scored, strict=True)}
        if share.remember:
            self._rows |= own
        while len(self._rows) > REMEMBERED_CONTENTS:
            del self._rows[next(iter(self._rows))]  # the oldest
        return [own.get(content) or share.found[content] for content in share.contents]


def _scored(passes: ForwardPasses, batch: UndecodedBatch, decoded: Sequence[Decoded]) -> list[ScoredRow]:
    """Score a pass's products, whose pictures are ``decoded``; a row says why no picture could be used."""
    products = ProductBatch(batch.titles, batch.descriptions, [picture.pixels for picture in decoded])
    rows = passes.score(products) if len(products) else []
    return [
        replace(row, image_reason=picture.reason.value) if picture.reason and row.error is None else row
        for row, picture in zip(rows, decoded, strict=True)
    ]
