"""Which models get a warning of modality collapse, and which do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catalog_enrichment.training.modality_collapse import collapse_warnings

EDGES = np.linspace(0, 1, 21).tolist()


def rows(attribute: str = "color", **recall: float) -> list[dict[str, Any]]:
    """Rows of the table `modalities`; R@P95 by modality."""
    return [{"attribute": attribute, "modality": name, "r_at_p95_micro": value} for name, value in recall.items()]


def histogram(*weights: float, attribute: str = "color") -> dict[str, dict[str, list[float]]]:
    counts, _ = np.histogram(weights, bins=20, range=(0, 1))
    return {attribute: {"edges": EDGES, "counts": counts.tolist()}}


COLLAPSED = histogram(*[0.99] * 97, *[0.5] * 3)
SPREAD = histogram(*np.linspace(0.1, 0.9, 100).tolist())
NEGLECTS_PICTURE = {"both": 0.62, "image_masked": 0.618, "text_masked": 0.05, "text_only": 0.61, "image_only": 0.4}
USES_BOTH = {"both": 0.75, "image_masked": 0.55, "text_masked": 0.3, "text_only": 0.6, "image_only": 0.4}


def test_the_warning_has_the_numbers_and_the_advice():
    (warning,) = collapse_warnings(rows(**NEGLECTS_PICTURE), COLLAPSED)
    assert warning.startswith(
        "color: the picture is hardly used (attention on the text >= 0.95 for 97% of the products; masking the picture "
        "costs 0.2 points of R@P95 although a model of the picture alone reaches 40.0%; with the text masked this "
        "model reaches 5.0%). Raise fit.kl_lambda"
    )


def test_the_text_can_be_the_neglected_modality():
    text_neglected = {"both": 0.62, "text_masked": 0.62, "image_masked": 0.05, "text_only": 0.4, "image_only": 0.61}
    (warning,) = collapse_warnings(rows(**text_neglected), histogram(*[0.01] * 95, *[0.5] * 5))
    assert "the text is hardly used (attention on the picture >= 0.95 for 95% of the products" in warning
    assert "masking the text costs no R@P95" in warning


@pytest.mark.parametrize("attention", [SPREAD, {}], ids=["spread", "no attention"])
def test_a_model_that_uses_both_gets_no_warning(attention: dict[str, Any]):
    assert collapse_warnings(rows(**USES_BOTH), attention) == []


@pytest.mark.parametrize(
    ("weight", "neglected"), [(0.96, ["picture"]), (0.94, []), (0.5, []), (0.06, []), (0.04, ["text"])]
)
def test_attention_counts_as_collapsed_from_095_on(weight: float, neglected: list[str]):
    warnings = collapse_warnings(rows(both=0.6, image_masked=0.59, text_masked=0.59), histogram(*[weight] * 100))
    assert [warning.split()[2] for warning in warnings] == neglected


@pytest.mark.parametrize(("extreme", "warned"), [(90, True), (89, False)])
def test_a_model_has_collapsed_from_nine_products_in_ten_on(extreme: int, warned: bool):
    weights = [0.99] * extreme + [0.5] * (100 - extreme)
    assert bool(collapse_warnings(rows(both=0.6, image_masked=0.59), histogram(*weights))) == warned


def test_collapsed_attention_on_different_modalities_is_no_collapse():
    # each product uses one modality, half of them the text and half the picture
    assert (
        collapse_warnings(rows(**NEGLECTS_PICTURE | {"text_masked": 0.3}), histogram(*[0.99] * 50, *[0.01] * 50)) == []
    )


def test_a_modality_without_information_gets_no_warning():
    useless = NEGLECTS_PICTURE | {"image_only": 0.01, "text_masked": 0.0}
    assert collapse_warnings(rows(**useless), COLLAPSED) == []


def test_a_modality_whose_masking_costs_recall_is_used_whatever_its_weight():
    assert collapse_warnings(rows(**NEGLECTS_PICTURE | {"image_masked": 0.5}), COLLAPSED) == []


def test_without_a_baseline_the_warning_names_the_setting_that_fits_one():
    no_baselines = {name: NEGLECTS_PICTURE[name] for name in ("both", "image_masked", "text_masked")}
    (warning,) = collapse_warnings(rows(**no_baselines), COLLAPSED)
    assert "costs 0.2 points of R@P95)" in warning
    assert "set training.unimodal_baselines = true" in warning
    assert "unimodal_baselines" not in collapse_warnings(rows(**NEGLECTS_PICTURE), COLLAPSED)[0]


def test_a_fusion_without_attention_is_judged_by_the_masking_cost():
    (warning,) = collapse_warnings(rows(**NEGLECTS_PICTURE), {})
    assert warning.startswith("color: the picture is hardly used (masking the picture costs 0.2 points")
    assert 'Try model.fusion.kind = "modality_attention"' in warning


@pytest.mark.parametrize(
    "changed",
    [
        {"image_masked": 0.60},  # masking the picture costs two points
        {"text_masked": 0.25},  # the recall left without the text is near that of the picture alone
        {
            "both": 0.3,
            "image_masked": 0.3,
            "text_masked": 0.28,
            "image_only": 0.6,
        },  # masking the text costs little too: the modalities agree
        {"image_only": 0.04},  # the picture carries no information
    ],
)
def test_masking_costs_with_another_explanation_get_no_warning(changed: dict[str, float]):
    assert collapse_warnings(rows(**NEGLECTS_PICTURE | changed), {}) == []


def test_each_attribute_is_judged_separately():
    table = [*rows("color", **USES_BOTH), *rows("material", **NEGLECTS_PICTURE)]
    attention = SPREAD | histogram(*[0.99] * 100, attribute="material")
    (warning,) = collapse_warnings(table, attention)
    assert warning.startswith("material: the picture is hardly used")


def test_no_rows_or_no_attention_give_no_warning():
    assert collapse_warnings([], {}) == []
    assert collapse_warnings(rows(both=0.5), histogram()) == []
