"""Which models are said to have collapsed onto one modality, and which are not."""

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


def test_a_collapsed_model_is_told_with_its_numbers_and_what_to_do():
    (warning,) = collapse_warnings(rows(**NEGLECTS_PICTURE), COLLAPSED)
    assert warning.startswith(
        "color: the picture is hardly used (attention on the text >= 0.95 for 97% of the products; hiding the picture "
        "costs 0.2 points of R@P95 although a model of the picture alone reaches 40.0%; with the text hidden this "
        "model reaches 5.0%). Raise fit.kl_lambda"
    )


def test_the_text_can_be_the_neglected_one():
    turned = {"both": 0.62, "text_masked": 0.62, "image_masked": 0.05, "text_only": 0.4, "image_only": 0.61}
    (warning,) = collapse_warnings(rows(**turned), histogram(*[0.01] * 95, *[0.5] * 5))
    assert "the text is hardly used (attention on the picture >= 0.95 for 95% of the products" in warning
    assert "hiding the text costs no R@P95 at all" in warning


@pytest.mark.parametrize("attention", [SPREAD, {}], ids=["spread", "no attention"])
def test_a_healthy_model_gets_no_warning(attention: dict[str, Any]):
    assert collapse_warnings(rows(**USES_BOTH), attention) == []


@pytest.mark.parametrize(
    ("weight", "neglected"), [(0.96, ["picture"]), (0.94, []), (0.5, []), (0.06, []), (0.04, ["text"])]
)
def test_the_weights_count_from_095_on(weight: float, neglected: list[str]):
    found = collapse_warnings(rows(both=0.6, image_masked=0.59, text_masked=0.59), histogram(*[weight] * 100))
    assert [warning.split()[2] for warning in found] == neglected


@pytest.mark.parametrize(("extreme", "warned"), [(90, True), (89, False)])
def test_almost_all_products_are_nine_in_ten(extreme: int, warned: bool):
    weights = [0.99] * extreme + [0.5] * (100 - extreme)
    assert bool(collapse_warnings(rows(both=0.6, image_masked=0.59), histogram(*weights))) == warned


def test_weights_on_both_ends_are_a_choice_and_no_collapse():
    # every product leans on one modality, but not all on the same
    assert (
        collapse_warnings(rows(**NEGLECTS_PICTURE | {"text_masked": 0.3}), histogram(*[0.99] * 50, *[0.01] * 50)) == []
    )


def test_a_picture_that_shows_nothing_is_rightly_left_alone():
    useless = NEGLECTS_PICTURE | {"image_only": 0.01, "text_masked": 0.0}
    assert collapse_warnings(rows(**useless), COLLAPSED) == []


def test_a_modality_that_is_dear_to_hide_is_used_whatever_its_weight():
    assert collapse_warnings(rows(**NEGLECTS_PICTURE | {"image_masked": 0.5}), COLLAPSED) == []


def test_without_a_baseline_the_warning_says_how_to_know_more():
    no_baselines = {name: NEGLECTS_PICTURE[name] for name in ("both", "image_masked", "text_masked")}
    (warning,) = collapse_warnings(rows(**no_baselines), COLLAPSED)
    assert "costs 0.2 points of R@P95)" in warning
    assert "training.unimodal_baselines = true would tell" in warning
    assert "unimodal_baselines" not in collapse_warnings(rows(**NEGLECTS_PICTURE), COLLAPSED)[0]


def test_a_fusion_without_attention_is_judged_by_what_hiding_costs():
    (warning,) = collapse_warnings(rows(**NEGLECTS_PICTURE), {})
    assert warning.startswith("color: the picture is hardly used (hiding the picture costs 0.2 points")
    assert 'Try model.fusion.kind = "modality_attention"' in warning


@pytest.mark.parametrize(
    "changed",
    [
        {"image_masked": 0.60},  # hiding the picture costs two points
        {"text_masked": 0.25},  # what is left without the text is near what the picture can do
        {
            "both": 0.3,
            "image_masked": 0.3,
            "text_masked": 0.28,
            "image_only": 0.6,
        },  # hiding the text costs little too: both say it
        {"image_only": 0.04},  # the picture has nothing to say
    ],
)
def test_hidden_modalities_alone_must_leave_no_other_explanation(changed: dict[str, float]):
    assert collapse_warnings(rows(**NEGLECTS_PICTURE | changed), {}) == []


def test_attributes_are_judged_one_by_one():
    table = [*rows("color", **USES_BOTH), *rows("material", **NEGLECTS_PICTURE)]
    attention = SPREAD | histogram(*[0.99] * 100, attribute="material")
    (warning,) = collapse_warnings(table, attention)
    assert warning.startswith("material: the picture is hardly used")


def test_nothing_described_is_nothing_to_warn_of():
    assert collapse_warnings([], {}) == []
    assert collapse_warnings(rows(both=0.5), histogram()) == []
