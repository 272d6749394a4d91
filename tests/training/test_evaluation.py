"""Metrics on held-out products, and which models get a warning of modality collapse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.evaluation import (
    Evaluation,
    ModelScores,
    attribute_metrics,
    collapse_warnings,
    confusions,
    intervals,
    measures,
    metrics_by_value,
)
from catalog_enrichment.training.labels import Labels

ALL = np.arange(4)
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
"""Predicts 0, 0, 1, 0; the truth below is 0, 0, 0 and a value that is not learned."""


def labels(cardinality: Cardinality = Cardinality.ONE) -> Labels:
    truth = np.array([[True, False], [True, False], [True, False], [False, False]])
    everything = np.ones(4, dtype=bool)
    return Labels("color", cardinality, ("Red", "Blue"), truth, everything, np.array([0, 0, 0, 1]), ~everything)


def test_a_true_value_that_is_not_learned_stays_in_the_denominators():
    row = attribute_metrics(PROBABILITIES, labels(), ALL)
    assert row["accuracy"] == 0.5
    assert row["r_at_p95_micro"] == 0.5  # two of four true values, above the first wrong score
    assert row["f1_micro"] == 0.5


def test_confusions_name_what_was_missed():
    rows = confusions(PROBABILITIES, labels(), ALL)
    assert {(row["true"], row["predicted"]) for row in rows} == {("Red", "Blue"), ("(a value not learned)", "Red")}


def test_head_and_tail_are_by_the_support_of_the_whole_data_set():
    # of all products 8 are Red and 2 are Blue; the fold has a Red and two Blue, all predicted as Blue
    truth = np.eye(2, dtype=bool)[[0] * 8 + [1] * 2]
    everything = np.ones(10, dtype=bool)
    known = Labels("color", Cardinality.ONE, ("Red", "Blue"), truth, everything, np.zeros(10, int), ~everything)
    row = attribute_metrics(np.array([[0.1, 0.9]] * 3), known, np.array([7, 8, 9]))
    assert (row["f1_head"], row["f1_tail"]) == (0.0, pytest.approx(2 * 2 / (3 + 2)))


def test_per_value_precision_and_recall():
    red, blue = metrics_by_value(PROBABILITIES, labels(), ALL)
    assert (red["value"], red["support"], red["precision"], red["recall"]) == ("Red", 3, 2 / 3, 2 / 3)
    assert (blue["value"], blue["support"], blue["precision"], blue["recall"], blue["f1"]) == ("Blue", 0, 0, 0, 0)


def test_the_resampled_measures_are_the_attribute_metrics():
    row = attribute_metrics(PROBABILITIES, labels(), ALL)
    estimates = {name: measure.estimate for name, measure in measures(PROBABILITIES, labels(), ALL).items()}
    assert estimates == pytest.approx({name: value for name, value in row.items() if name != "products"})


def test_intervals_resample_the_groups_of_the_products():
    index, groups = np.array([1, 2, 3]), np.array([9, 4, 4, 4])
    drawn = intervals(PROBABILITIES[1:], labels(), index, groups)["accuracy"]
    assert drawn.low == drawn.high == drawn.estimate == 1 / 3  # there is a single group to draw
    without_groups = intervals(PROBABILITIES[1:], labels(), index)["accuracy"]
    assert (without_groups.low, without_groups.high) == (0.0, 1.0)


ATTENTION = np.array([0.0, 0.25, 0.5, 1.0])


def evaluation(**attention: np.ndarray) -> Evaluation:
    result = Evaluation()
    scores = ModelScores(ALL, {"color": PROBABILITIES}, attention)
    for modality in ("both", "image_masked"):
        result.add_modality(modality, labels(), scores, ALL, groups=np.array([1, 1, 1, 1]))
    return result


def test_the_whole_model_has_intervals_and_masked_inputs_have_none():
    values = evaluation().metrics
    bounds = {name for name in values if name.endswith(("_low", "_high"))}
    names = set(attribute_metrics(PROBABILITIES, labels(), ALL)) - {"products"}
    assert bounds == {f"color/{name}_{end}" for name in names for end in ("low", "high")}
    assert values["color/accuracy_low"] == values["color/accuracy_high"] == values["color/accuracy"] == 0.5


def test_attention_is_reported_as_histogram_and_quantiles():
    histogram = evaluation(color=ATTENTION).curves["attention"]["color"]
    # the four weights are the quantiles 0, 1/3, 2/3 and 1
    assert histogram["quantiles"] == pytest.approx([0.0375, 0.1875, 0.375, 0.625, 0.925])
    assert (sum(histogram["counts"]), histogram["counts"][-1], len(histogram["edges"])) == (4, 1, 21)


def test_undefined_attention_weights_are_left_out():
    partly_defined = evaluation(color=np.array([0.5, np.nan, 0.7, np.nan]))
    assert partly_defined.metrics["color/attention_text_mean"] == pytest.approx(0.6)
    assert sum(partly_defined.curves["attention"]["color"]["counts"]) == 2
    assert "attention" not in evaluation(color=np.full(4, np.nan)).curves


def test_warnings_are_filled_by_the_collapse_check():
    collapsed = evaluation(color=np.full(4, 0.99))
    assert collapsed.warnings == []
    collapsed.check_modality_collapse()
    collapsed.check_modality_collapse()  # called twice, it warns once
    assert [warning.split(" (")[0] for warning in collapsed.warnings] == ["color: the picture is hardly used"]
    uses_both = evaluation(color=ATTENTION)
    uses_both.check_modality_collapse()
    assert uses_both.warnings == []


# --- modality collapse -------------------------------------------------------------------------------------------


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


MODALITIES_AGREE = {"both": 0.3, "image_masked": 0.3, "text_masked": 0.28, "image_only": 0.6}


@pytest.mark.parametrize(
    ("recall", "attention"),
    [
        (USES_BOTH, SPREAD),
        (USES_BOTH, {}),
        (NEGLECTS_PICTURE | {"image_only": 0.01, "text_masked": 0.0}, COLLAPSED),  # it carries no information
        (NEGLECTS_PICTURE | {"image_masked": 0.5}, COLLAPSED),  # masking it costs recall, whatever its weight
        # each product uses a single modality, half of them the text and half the picture
        (NEGLECTS_PICTURE | {"text_masked": 0.3}, histogram(*[0.99] * 50, *[0.01] * 50)),
        ({}, {}),
        ({"both": 0.5}, histogram()),
        # without attention, by the masking cost alone
        (NEGLECTS_PICTURE | {"image_masked": 0.60}, {}),  # masking the picture costs two points
        (NEGLECTS_PICTURE | {"text_masked": 0.25}, {}),  # the recall without the text is near the picture's alone
        (NEGLECTS_PICTURE | MODALITIES_AGREE, {}),  # masking the text costs little too
        (NEGLECTS_PICTURE | {"image_only": 0.04}, {}),  # the picture carries no information
    ],
)
def test_a_model_that_uses_both_or_whose_modality_is_useless_gets_no_warning(
    recall: dict[str, float], attention: dict[str, Any]
):
    assert collapse_warnings(rows(**recall), attention) == []


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


def test_each_attribute_is_judged_separately():
    table = [*rows("color", **USES_BOTH), *rows("material", **NEGLECTS_PICTURE)]
    attention = SPREAD | histogram(*[0.99] * 100, attribute="material")
    (warning,) = collapse_warnings(table, attention)
    assert warning.startswith("material: the picture is hardly used")
