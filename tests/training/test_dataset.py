from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from catalog_enrichment.catalog.self_derived import COLUMN
from catalog_enrichment.config.images import FetchConfig, ImagesConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.records import Modality
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset

from .toy import COLORS, DICTIONARY, batches, product


def load(rows, workdir: Path, self_derived: dict[str, list[str]] | None = None, **options: Any) -> Dataset:
    """``self_derived``: product id -> attributes, as `catalog.self_derived.scan_products` adds them."""
    usual = {"attributes": ["color", "material"], "square": Square(16), "images": ImagesConfig(), "max_unlabelled": 100}
    found = batches(rows, size=7)
    if self_derived:
        names = [[self_derived.get(name, []) for name in batch.column("product_id").to_pylist()] for batch in found]
        columns = [pa.array(of_batch, pa.list_(pa.string())) for of_batch in names]
        found = [batch.append_column(COLUMN, column) for batch, column in zip(found, columns, strict=True)]
    return load_dataset(found, DICTIONARY, LoadOptions(max_chars=100, workdir=workdir, **(usual | options)))


def test_pictures_are_decoded_into_a_file_at_the_recipes_size(tmp_path):
    dataset = load([product(n) for n in range(20)], tmp_path)
    assert isinstance(dataset.pixels, np.memmap)
    assert dataset.pixels.shape == (20, 16, 16, 3)
    means = dataset.pixels[:4].mean(axis=(1, 2))
    assert np.abs(means - np.array(list(COLORS.values()))).max() < 15


def test_margins_are_cut_where_the_recipe_says_so(tmp_path):
    picture, encoded = Image.new("RGB", (64, 64), (255, 255, 255)), io.BytesIO()
    picture.paste((200, 30, 30), (24, 24, 40, 40))
    picture.save(encoded, "PNG")
    row = product(0, images=[{"bytes": encoded.getvalue(), "uri": None, "version": "1"}])
    red = {
        trim: (load([row], tmp_path / str(trim), square=Square(16, trim)).pixels[0, :, :, 1] < 100).mean()
        for trim in (False, True)
    }
    assert red[False] < 0.1
    assert red[True] > 0.6


def test_unusable_pictures_leave_the_product_without_image(tmp_path):
    broken = [{"bytes": b"no picture", "uri": None, "version": "1"}]
    dataset = load([product(0), product(1, images=broken), product(2, images=[]), product(3, images=None)], tmp_path)
    assert dataset.has_image.tolist() == [True, False, False, False]
    assert dataset.counts["picture_image_not_an_image"] == 1
    assert dataset.counts["picture_no_image"] == 2
    assert (dataset.unusable.tried, dict(dataset.unusable.by_reason)) == (2, {"image_not_an_image": 1})
    assert dataset.pixels[1].max() == 0


def test_a_picture_that_could_not_be_reached_is_on_no_modality_path(tmp_path):
    """Also where an unlabelled product replaced another in the sample."""
    nobody_answers = [{"bytes": None, "uri": "http://127.0.0.1:1/picture.jpg", "version": "1"}]
    pictures = {0: {"images": nobody_answers}, 1: {"images": []}, 2: {}}
    rows = [product(n, labelled=n < 3, **pictures[n % 3]) for n in range(40)]
    reachable = FetchConfig(private_hosts=("127.0.0.1",), retries=0)
    dataset = load(rows, tmp_path, max_unlabelled=8, images=ImagesConfig(fetch=reachable))
    assert len(dataset) == 11
    kind = [int(name[1:]) % 3 for name in dataset.ids]
    assert dataset.on_path(Modality.BOTH).tolist() == [number == 2 for number in kind]
    assert dataset.on_path(Modality.TEXT_ONLY).tolist() == [number == 1 for number in kind]


def test_products_that_opted_out_are_not_read(tmp_path):
    dataset = load([product(0), product(1, opt_out=True), product(2)], tmp_path)
    assert dataset.ids == ["p00000", "p00002"]
    assert dataset.counts["opted_out"] == 1


def test_unlabelled_sample_is_capped_and_does_not_depend_on_the_order(tmp_path):
    rows = [product(n, labelled=n % 3 == 0) for n in range(60)]
    first = load(rows, tmp_path / "a", max_unlabelled=10)
    second = load(rows[::-1], tmp_path / "b", max_unlabelled=10)
    assert len(first) == 30
    assert set(first.ids) == set(second.ids)
    position_of = {name: position for position, name in enumerate(second.ids)}
    for position, name in enumerate(first.ids):  # nothing of a replaced product remains
        assert first.titles[position] == second.titles[position_of[name]]
        assert first.pictures[position] == second.pictures[position_of[name]]
        np.testing.assert_array_equal(first.pixels[position], second.pixels[position_of[name]])


@pytest.fixture
def mixed(tmp_path):
    rows = [product(n) for n in range(8)]
    rows += [
        product(8, merchant_attributes=[("color", ["Mauve"])]),  # in the dictionary, too rare to be learned
        product(9, merchant_attributes=[("color", ["sort of red"])]),  # not in the dictionary
        product(10, merchant_attributes=[("color", ["Red", "Blue"])]),  # several values, where one is allowed
        product(11, merchant_attributes=[("color", None), ("material", ["Wool", "Tweed", None])]),
        product(12, labelled=False),
    ]
    return load(rows, tmp_path)


def test_single_valued_labels(mixed):
    labels = mixed.labels("color", min_count=2)
    assert labels.values == tuple(COLORS)
    assert [np.flatnonzero(row).tolist() for row in labels.truth] == [[0], [1], [2], [3]] * 2 + [[]] * 5
    assert labels.labelled.tolist() == [True] * 10 + [False] * 3
    assert labels.unlearned.tolist() == [0] * 8 + [1, 1, 0, 0, 0]
    assert labels.unlabelled.tolist() == [False] * 11 + [True, True]


def test_multi_valued_labels(mixed):
    labels = mixed.labels("material", min_count=1)
    assert labels.values == ("Cotton", "Leather", "Wool")
    assert labels.truth[0].tolist() == [True, False, True]
    assert labels.truth[11].tolist() == [False, False, True]
    assert labels.unlearned[11] == 1
    assert not labels.learnable[8:11].any()
    assert labels.unlabelled[8:11].all()


def test_attribute_without_a_label_has_no_values(mixed):
    labels = mixed.labels("season")
    assert labels.values == ()
    assert not labels.labelled.any()


def test_a_self_derived_value_is_no_label_and_its_product_is_not_unlabelled_either(tmp_path):
    rows = [product(n) for n in range(8)]
    self_derived = {"p00001": ["color"], "p00002": ["material"], "p00003": ["color", "material"], "p00004": ["season"]}
    dataset = load(rows, tmp_path, self_derived)
    position = {name: dataset.ids.index(name) for name in self_derived}
    color, material = dataset.labels("color"), dataset.labels("material", min_count=1)
    for labels, out in ((color, {"p00001", "p00003"}), (material, {"p00002", "p00003"})):
        assert {name for name in self_derived if not labels.labelled[position[name]]} == out
        assert not labels.truth[[position[name] for name in out]].any()
        assert not labels.unlearned.any()
        assert not labels.unlabelled.any()
    assert color.truth.sum() == 6
    assert (dataset.counts["labelled"], dataset.counts["unlabelled"], dataset.counts["self_derived"]) == (7, 1, 3)


def test_values_that_are_only_self_derived_are_not_learned(tmp_path):
    rows = [product(n) for n in range(8)]
    self_derived = {f"p{n:05d}": ["color"] for n in range(0, 8, 4)}
    dataset = load(rows, tmp_path, self_derived, attributes=["color"], max_unlabelled=0)
    assert len(dataset) == 6
    assert dataset.labels("color").values == tuple(COLORS)[1:]


@pytest.mark.parametrize(
    ("given", "attribute", "why"),
    [
        ([["Red"], ["Blue"]], "color", ""),
        ([["Cotton"], []], "material", ""),
        ([["Red"], ["Red"]], "color", "all 8 products with a value of the dictionary have 'Red', and a model tells"),
        ([["Red"], ["Ruby"]], "color", "all 4 products with a value of the dictionary have 'Red', and a model tells"),
        ([["Ruby"], ["Ruby"]], "color", "none of its 8 labelled products has a value of the dictionary"),
        ([[], []], "color", "no product has a value of it"),
        ([["Cotton"], ["Wool"]], "material", "0 of 3 values have enough labelled products (training.min_label_count), "
         "and 1 are needed: the most frequent, 'Cotton', has 4"),
        ([["Red"] , ["Red"], ["Red"], ["Blue"]], "color", "1 of 5 values have enough labelled products "
         "(training.min_label_count), and 2 are needed: the most frequent, 'Red', has 6"),
    ],
)  # fmt: skip
def test_why_an_attribute_cannot_be_learned(given: list[list[str]], attribute: str, why: str, tmp_path: Path) -> None:
    """Few labels are the reason of two of them."""
    rows = [product(n, merchant_attributes=[(attribute, given[n % len(given)])]) for n in range(8)]
    labels = load(rows, tmp_path).labels(attribute, 5 if "min_label_count" in why else 1)
    assert labels.too_few[: len(why)] == why
    assert bool(labels.too_few) == bool(why)


def test_copies_that_are_smaller_than_the_model_reads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set images.scaled_side = 384"):
        load([], tmp_path, square=Square(384))
    with pytest.raises(ConfigError, match=r"twice that: set images.scaled_side = 448"):
        load([], tmp_path, square=Square(224, trim=True))
    load([], tmp_path, square=Square(384), images=ImagesConfig(keep_scaled=False))
    load([], tmp_path, square=Square(384), images=ImagesConfig(scaled_side=384))
