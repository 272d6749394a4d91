from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from catalog_enrichment.config.images import FetchConfig, ImagesConfig
from catalog_enrichment.inference import engine
from catalog_enrichment.inference.engine import UndecodedBatch, score_batches
from catalog_enrichment.inference.forward import ScoredRow
from catalog_enrichment.inputs.images import decode_image, first_usable
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.precision.units import WRITABLE_RANKS

from .. import sample_catalog

LIMITS = ImagesConfig()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    sample = sample_catalog.build(tmp_path_factory.mktemp("engine") / "sample")
    return Predictor.load(sample_catalog.random_artifact(sample, tmp_path_factory.mktemp("artifact"), seed=3))


def batch(numbers: range, picture: bool = True) -> UndecodedBatch:
    rows = [sample_catalog.listing(n) for n in numbers]
    images = [
        [{"bytes": sample_catalog.jpeg((9 * n % 255, 99, 9)), "uri": None, "version": "1"}] if picture else []
        for n in numbers
    ]
    return UndecodedBatch([row["title"] for row in rows], [row["description"] for row in rows], images)


def scores(row: ScoredRow) -> list[float]:
    return [c.score for c in sorted(row.candidates, key=lambda candidate: (candidate.attribute, candidate.value))]


def assert_alike(found: Sequence[ScoredRow], expected: Sequence[ScoredRow]) -> None:
    """Check that values and scores are the same, but for rounding."""
    for row, other in zip(found, expected, strict=True):
        assert [c.value for c in row.candidates] == [c.value for c in other.candidates]
        assert scores(row) == pytest.approx(scores(other), abs=1e-5)


def test_rows_come_back_in_input_order_whatever_the_batches(predictor: Predictor) -> None:
    sizes = [range(0, 5), range(5, 6), range(6, 12)]
    apart = [row for rows in score_batches(predictor, map(batch, sizes), LIMITS) for row in rows]
    (together,) = score_batches(predictor, [batch(range(12))], LIMITS)
    assert len(together) == 12
    assert_alike(apart, together)


def test_batches_are_asked_for_one_ahead_and_no_more(predictor: Predictor) -> None:
    asked: list[int] = []

    def batches():
        for number in range(4):
            asked.append(number)
            yield batch(range(number, number + 1))

    results = score_batches(predictor, batches(), LIMITS)
    next(results)
    assert asked == [0, 1]
    assert len(list(results)) == 3


def test_beside_a_gpu_as_many_passes_are_decoded_ahead_as_there_are_threads(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(predictor, "compute_type", "fp32-cuda")
    asked: list[int] = []

    def batches():
        for number in range(6):
            asked.append(number)
            yield batch(range(number, number + 1))

    results = score_batches(predictor, batches(), LIMITS)
    first = next(results)
    assert asked == [0, 1, 2, 3]
    found = [*first, *(row for rows in results for row in rows)]
    (expected,) = score_batches(predictor, [batch(range(6))], LIMITS)
    assert_alike(found, expected)


def test_equal_contents_are_decoded_and_scored_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    predict = Predictor.predict

    def counted(self: Predictor, products: ProductBatch) -> Any:
        sizes.append(len(products))
        return predict(self, products)

    def of(numbers: list[int]) -> UndecodedBatch:
        whole = batch(range(8))
        return replace(whole.at(numbers), contents=[f"content {number}" for number in numbers])

    (alone,) = score_batches(predictor, [batch(range(8))], LIMITS)
    monkeypatch.setattr(Predictor, "predict", counted)
    batches = [[0, 1, 0, 2], [2, 3], [1, 1, 0], [4, 3, 0]]
    rows = list(score_batches(predictor, map(of, batches), LIMITS))
    for numbers, found in zip(batches, rows, strict=True):
        assert_alike(found, [alone[number] for number in numbers])
    # the second batch is decoded while the first is scored: content 2 is not known yet
    assert [size for size in sizes if size] == [3, 2, 1]


def test_contents_beyond_the_limit_are_scored_again(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "REMEMBERED_CONTENTS", 1)
    numbers = (0, 1, 1, 1, 0, 0)
    batches = [replace(batch(range(n, n + 1)), contents=[str(n)]) for n in numbers]
    rows = [row for rows in score_batches(predictor, batches, LIMITS) for row in rows]
    (alone,) = score_batches(predictor, [batch(range(2))], LIMITS)
    assert_alike(rows, [alone[number] for number in numbers])


def test_every_head_answers_with_as_many_candidates_as_can_be_written(predictor: Predictor) -> None:
    ((row,),) = score_batches(predictor, [batch(range(1))], LIMITS)
    by_attribute = {name: [c for c in row.candidates if c.attribute == name] for name in predictor.heads}
    assert len(by_attribute["color"]) == 1
    assert len(by_attribute["material"]) == min(WRITABLE_RANKS, 2)
    assert all(0 <= c.score <= 1 and 0 <= c.attention <= 1 for c in row.candidates)


def test_without_a_picture_the_path_is_text_only_and_says_why(predictor: Predictor) -> None:
    ((row,),) = score_batches(predictor, [batch(range(1), picture=False)], LIMITS)
    assert (row.modality, row.image_reason, row.error) == ("text_only", "no_image", None)
    assert all(candidate.attention == 1 for candidate in row.candidates)


def test_without_the_text_the_pictures_alone_decide_and_a_title_is_needed_all_the_same(predictor: Predictor) -> None:
    given = batch(range(3))
    titled = UndecodedBatch([given.titles[0], "x y z", ""], ["other", None, "words"], [given.images[0]] * 3)
    (rows,) = score_batches(predictor, [titled], LIMITS, without_text=True)
    assert scores(rows[0]) == pytest.approx(scores(rows[1]), abs=1e-6), "equal pictures"
    (with_text,) = score_batches(predictor, [titled], LIMITS)
    assert scores(with_text[0]) != pytest.approx(scores(with_text[1]), abs=1e-6)
    picture = first_usable(titled.images[0], predictor.square, LIMITS).pixels
    masked = predictor.predict(ProductBatch([""], [""], [picture])).probabilities["color"][0]
    top = next(candidate for candidate in rows[0].candidates if candidate.attribute == "color")
    assert top.score == pytest.approx(float(masked.max()), abs=1e-6), "as training masks the text"
    assert (rows[0].modality, rows[2].error) == ("both", "empty_title")


def test_the_model_gets_pictures_fitted_as_those_it_learned_from(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide, encoded = Image.new("RGB", (200, 200), (255, 255, 255)), io.BytesIO()
    wide.paste((30, 99, 200), (70, 70, 130, 130))
    wide.save(encoded, "PNG")
    given = UndecodedBatch(["a shirt"], ["words"], [[{"bytes": encoded.getvalue(), "uri": None, "version": "1"}]])
    seen: list[np.ndarray] = []
    predict = Predictor.predict
    monkeypatch.setattr(
        Predictor, "predict", lambda self, products: (seen.append(products.pictures[0]), predict(self, products))[1]
    )
    for trim in (False, True):
        reader = copy.copy(predictor)
        reader.square = replace(predictor.square, trim=trim)
        list(score_batches(reader, [given], LIMITS))
        expected = decode_image(encoded.getvalue(), reader.square, LIMITS).pixels
        np.testing.assert_array_equal(seen[-1], expected)
    assert not np.array_equal(seen[0], seen[-1])


def test_pictures_by_reference_are_fetched_under_the_limits(predictor: Predictor, tmp_path: Path) -> None:
    with_bytes = batch(range(3))
    for number, images in enumerate(with_bytes.images):
        assert images is not None
        (tmp_path / f"{number}.jpg").write_bytes(images[0]["bytes"])
    references = [[{"bytes": None, "uri": str(tmp_path / f"{number}.jpg")}] for number in range(3)]
    (tmp_path / "1.jpg").unlink()
    limits = ImagesConfig(fetch=FetchConfig(allowed_folders=(str(tmp_path),)))
    by_reference = UndecodedBatch(with_bytes.titles, with_bytes.descriptions, references)
    (rows,) = score_batches(predictor, [by_reference], limits)
    (expected,) = score_batches(predictor, [with_bytes], LIMITS)
    assert [row.image_reason for row in rows] == [None, "image_missing", None]
    assert_alike(rows[::2], expected[::2])
    (refused,) = score_batches(predictor, [by_reference], LIMITS)
    assert {row.image_reason for row in refused} == {"image_not_allowed"}


def test_a_title_of_nothing_is_an_error_of_its_row_alone(predictor: Predictor) -> None:
    rows = batch(range(3))
    (scored,) = score_batches(predictor, [replace(rows, titles=["\x00 ", *rows.titles[1:]])], LIMITS)
    assert [row.error for row in scored] == ["empty_title", None, None]
    assert scored[0].candidates == []
    assert scored[0].detail


def test_a_row_that_breaks_the_model_does_not_take_its_batch_along(predictor: Predictor) -> None:
    rows = batch(range(3))
    broken = replace(rows, titles=[rows.titles[0], 3.5, rows.titles[2]])
    (scored,) = score_batches(predictor, [broken], LIMITS)
    assert [row.error for row in scored] == [None, "scoring_failed", None]
    assert scored[1].detail
    (whole,) = score_batches(predictor, [rows], LIMITS)
    assert_alike(scored[::2], whole[::2])  # each with its own texts and picture
    assert scores(scored[0]) != pytest.approx(scores(scored[2]), abs=1e-4)


@pytest.mark.parametrize(
    "problem",
    [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=["Python", "GPU", "CPU"],
)
def test_where_the_memory_is_too_small_the_passes_become_smaller(predictor: Predictor, problem: Exception) -> None:
    small = Small(predictor, 2, problem)
    rows = batch(range(11))
    (scored, again) = score_batches(small, [rows, rows], LIMITS, rows=6)
    (expected,) = score_batches(predictor, [rows], LIMITS)
    for found in (scored, again):
        assert [row.error for row in found] == [None] * 11
        assert [row.compute_type for row in found] == [predictor.compute_type] * 11
        assert_alike(found, expected)
    # 11 in passes of 6 and 5: 6 in halves of 3, those in 1 and 2; later passes have at most the size that was found,
    # those of the batches that were divided before as well
    assert small.asked[:4] == [6, 3, 1, 2]
    assert max(small.asked[4:]) <= 2
    assert sum(small.asked) == 6 + 3 + 22


def test_where_no_product_has_enough_memory_each_says_so(predictor: Predictor) -> None:
    (scored,) = score_batches(Small(predictor, 0, MemoryError("of 64 bytes")), [batch(range(3))], LIMITS)
    assert [(row.error, row.detail) for row in scored] == [("scoring_failed", "MemoryError: of 64 bytes")] * 3


class Small:
    """A predictor with memory for a few products."""

    def __init__(self, predictor: Predictor, most: int, problem: Exception) -> None:
        self._predictor, self._most, self._problem = predictor, most, problem
        self.asked: list[int] = []
        """Products of each pass that was tried."""

    def predict(self, products: ProductBatch) -> Any:
        self.asked.append(len(products))
        if len(products) > self._most:
            raise self._problem
        return self._predictor.predict(products)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        UndecodedBatch(["a", "b"], ["x"], [[], []])
