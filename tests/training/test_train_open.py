"""Training with attributes that no closed list holds: they are learned, certified and found beside the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inference.engine import UndecodedBatch, score_batches
from catalog_enrichment.models import artifact
from catalog_enrichment.models.predictor import load_predictor
from catalog_enrichment.records import ANY_VALUE, LabelUse, Modality
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.training.certification import EarlierCandidates
from catalog_enrichment.training.fit import Fitted
from catalog_enrichment.training.train import train

from .open_products import CLOSED, MIXED, OPEN, brand_of, config, listing, listings, width_of
from .toy import batches, silent


def trained_with(words: Dictionary, folder: Path) -> TrainedModel:
    earlier = EarlierCandidates(use_labels=lambda _a, _p, _c, current: LabelUse(1, current))
    return train(batches(listings()), words, config(folder), folder / "w", earlier, silent)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return trained_with(MIXED, tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def only_open(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return trained_with(OPEN, tmp_path_factory.mktemp("open"))


def scored(model: TrainedModel, rows: list[dict]) -> list[dict[str, tuple[str, float, str | None]]]:
    predictor = load_predictor(model.artifact)
    batch = UndecodedBatch(*([row[name] for row in rows] for name in ("title", "description", "images")))
    (found,) = list(score_batches(predictor, [batch], ImagesConfig()))
    return [{c.attribute: (c.value, c.score, c.evidence) for c in row.candidates} for row in found]


def test_open_attributes_are_certified_for_any_value(mixed: TrainedModel) -> None:
    for name in ("width", "brand"):
        certificate = next(c for c in mixed.certificates if (c.attribute, c.modality) == (name, Modality.BOTH))
        assert certificate.threshold is not None, certificate.why_abstains
        assert certificate.values == (ANY_VALUE,)
        assert certificate.covers("17.3 cm")
        assert certificate.lower_bound >= 0.95
    width = artifact.heads(mixed.artifact)["width"]
    assert (width.is_open, width.rule) == (True, MIXED["width"].rule())
    assert not artifact.heads(mixed.artifact)["color"].is_open


def test_values_that_no_product_had_are_found_with_their_evidence(mixed: TrainedModel) -> None:
    rows = [listing(number, labelled=False) for number in range(2001, 2041) if number % 10 != 7]
    numbers = [int(row["product_id"][1:]) for row in rows]
    found = scored(mixed, rows)
    widths = [each["width"][0] == f"{width_of(number)} cm" for each, number in zip(found, numbers, strict=True)]
    new = [number for number in numbers if number % 3 == 0]
    brands = [
        each["brand"][0] == brand_of(number) for each, number in zip(found, numbers, strict=True) if number in new
    ]
    assert np.mean(widths) > 0.9
    assert np.mean(brands) > 0.9
    for each, row in zip(found, rows, strict=True):
        for value, score, evidence in (each["width"], each["brand"]):
            assert evidence in row["title"]
            assert 0 < score <= 1
            assert value
    in_mm = next(each["width"] for each, number in zip(found, numbers, strict=True) if number % 4 == 0)
    assert in_mm[2].endswith(" mm")


def test_a_product_whose_text_says_nothing_is_not_written(mixed: TrainedModel) -> None:
    certificates = {c.attribute: c for c in mixed.certificates if c.modality is Modality.BOTH}
    for each in scored(mixed, [listing(number, labelled=False) for number in range(2007, 2207, 10)]):
        for name in ("width", "brand"):
            assert each[name][1] < certificates[name].threshold


def test_where_nothing_is_found_the_proposal_is_nothing(mixed: TrainedModel) -> None:
    predictor = load_predictor(mixed.artifact)
    (found,) = list(score_batches(predictor, [UndecodedBatch(["shelf"], [None], [[]])], ImagesConfig()))
    candidates = {c.attribute: c for c in found[0].candidates}
    assert set(candidates) == {"color", "width", "brand"}
    assert (candidates["width"].value, candidates["width"].rank, candidates["width"].score) == ("", 1, 0.0)


def test_closed_attributes_are_what_they_are_without_the_open_ones(mixed: TrainedModel, tmp_path: Path) -> None:
    alone = trained_with(CLOSED, tmp_path)
    rows = [listing(number, labelled=False) for number in range(2000, 2040)]
    first = [each["color"][:2] for each in scored(alone, rows)]
    assert [each["color"][:2] for each in scored(mixed, rows)] == first
    of_color = [[c for c in model.certificates if c.attribute == "color"] for model in (alone, mixed)]
    (threshold,) = {certificates[0].threshold for certificates in of_color}
    assert threshold is not None


def test_a_version_of_open_attributes_alone_has_no_network(only_open: TrainedModel) -> None:
    assert not artifact.has_network(only_open.artifact)
    assert set(artifact.heads(only_open.artifact)) == {"width", "brand"}
    (found,) = scored(only_open, [listing(2001, labelled=False)])
    assert found["width"][0] == f"{width_of(2001)} cm"
    assert {c.attribute for c in only_open.certificates if c.threshold is not None} == {"width", "brand"}


def test_held_out_rows_name_what_was_proposed(mixed: TrainedModel) -> None:
    rows = [row for row in mixed.held_out if row.attribute == "width"]
    right = [row for row in rows if row.written_values and row.written_values == row.true_values]
    assert len(right) > 0.7 * len(rows)
    assert all(value.endswith(" cm") for row in rows for value in row.written_values)


def test_weights_of_the_extractor_are_part_of_the_versions_identity(mixed: TrainedModel, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(mixed.artifact, copy)
    before = artifact.weights_hash(copy)
    content = copy / artifact.EXTRACTION / "extraction.json"
    content.write_text(content.read_text().replace('"temperature"', '"temperature" '))
    assert artifact.weights_hash(copy) != before


def test_mistakes_of_open_attributes_are_shown(mixed: TrainedModel) -> None:
    for row in mixed.tables["mistakes"]:
        if row["attribute"] == "width":
            assert row["predicted"] != row["true"][0]


def test_an_encoder_that_cannot_be_loaded_ends_the_training_before_anything_is_fitted(tmp_path: Path) -> None:
    settings = config(tmp_path)
    (tmp_path / "extract.toml").write_text('name = "lost"\n[text]\nname = "./nothing_here"\n')
    earlier = EarlierCandidates(use_labels=lambda _a, _p, _c, current: LabelUse(1, current))

    def fit(*_args: object, **_named: object) -> Fitted:
        raise AssertionError("a network was fitted")

    with pytest.raises(ConfigError, match=r"lost: model\.text\.name: .*nothing_here"):
        train(batches(listings()[:300]), MIXED, settings, tmp_path / "w", earlier, silent, fit)
