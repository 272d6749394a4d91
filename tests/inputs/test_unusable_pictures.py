"""Shares of unusable pictures, and what is said about them."""

from __future__ import annotations

import pytest

from catalog_enrichment.inputs.unusable_pictures import MIN_TRIED, UnusablePictures
from catalog_enrichment.records import Reason


def pictures(**by_reason: int) -> UnusablePictures:
    """usable=3, image_missing=2: three usable ones and two that are missing."""
    counted = UnusablePictures()
    for reason, count in by_reason.items():
        counted.add([(None if reason == "usable" else Reason(reason), f"/a/{reason}.jpg: details")] * count)
    return counted


def test_products_without_any_picture_do_not_count() -> None:
    counted = pictures(usable=3, no_image=50, image_missing=2)
    assert (counted.tried, counted.unusable, dict(counted.by_reason)) == (5, 2, {"image_missing": 2})


@pytest.mark.parametrize(
    ("usable", "missing", "max_unusable", "too_many"),
    [
        (2, 18, 0.9, False),
        (1, 19, 0.9, True),
        (0, MIN_TRIED - 1, 0.9, False),
        (0, MIN_TRIED, 0.9, True),
        (0, MIN_TRIED, 1.0, False),
        (20, 1, 0.0, True),
        (21, 0, 0.0, False),
    ],
)
def test_more_than_the_share_of_enough_products_is_too_many(
    usable: int, missing: int, max_unusable: float, too_many: bool
) -> None:
    assert pictures(usable=usable, image_missing=missing).too_many(max_unusable) is too_many


def test_the_sentence_names_the_most_frequent_reason_and_its_first_example() -> None:
    assert pictures(usable=3).sentence() == ""
    assert pictures(image_truncated=2, usable=1, image_missing=5).sentence() == (
        "7 of 8 products with pictures have no usable one, most often image_missing (5), for example "
        "/a/image_missing.jpg: details. Is source.image_folder the right folder, and is it there?"
    )
    assert pictures(image_truncated=1).sentence().endswith("/a/image_truncated.jpg: details.")
