from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.inference import forward
from catalog_enrichment.inference.forward import ForwardPasses


def passes(lengths: list[int], rows: int = 0, device: str = "cpu") -> list[list[int]]:
    """Return the passes of products with texts of ``lengths`` tokens."""
    predictor: Any = SimpleNamespace(compute_type=f"fp32-{device}", text_lengths=lambda *_: np.asarray(lengths))
    names: list[str | None] = [str(number) for number in range(len(lengths))]
    return ForwardPasses(predictor, rows).divide(names, names)


def test_texts_of_like_length_are_scored_together() -> None:
    assert passes([9, 1, 8, 2, 9, 1], rows=2) == [[1, 5], [3, 2], [0, 4]]


def test_a_pass_has_as_many_products_as_suit_the_device_or_the_config() -> None:
    sizes = {device: [len(rows) for rows in passes([1] * 300, device=device)] for device in ("cpu", "cuda")}
    assert sizes == {"cpu": [32] * 9 + [12], "cuda": [256, 44]}
    assert [len(rows) for rows in passes([1] * 300, rows=128)] == [128, 128, 44]


def test_long_texts_make_a_pass_smaller_padding_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TOKENS", {"cpu": 12})
    assert passes([4, 4, 4, 4]) == [[0, 1, 2], [3]]
    assert passes([1, 1, 6, 1]) == [[0, 1, 3], [2]]
    assert passes([100, 100]) == [[0], [1]]  # a single product always fits


def test_products_whose_texts_cannot_be_read_are_passed_on_in_their_order() -> None:
    def refuse(*_: object) -> None:
        raise AttributeError("'float' object has no attribute 'translate'")

    predictor: Any = SimpleNamespace(compute_type="fp32-cpu", text_lengths=refuse)
    assert ForwardPasses(predictor, rows=2).divide(["a", 3.5, "b"], [None] * 3) == [[0, 1], [2]]  # type: ignore[list-item]
