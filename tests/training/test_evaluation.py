from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.evaluation import (
    Evaluation,
    ModelScores,
    attribute_metrics,
    confusions,
    intervals,
    measures,
    metrics_by_value,
)

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
    assert {(row["true"], row["said"]) for row in rows} == {("Red", "Blue"), ("(a value not learned)", "Red")}


def test_head_and_tail_are_by_the_support_of_the_whole_data_set():
    # of all products 8 are Red and 2 are Blue; the fold has one Red and two Blue, all predicted as Blue
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
    assert (estimates["accuracy"], estimates["r_at_p95_micro"]) == (0.5, 0.5)


def test_intervals_resample_the_groups_of_the_products():
    index, groups = np.array([1, 2, 3]), np.array([9, 4, 4, 4])
    one_group = intervals(PROBABILITIES[1:], labels(), index, groups)["accuracy"]
    assert one_group.low == one_group.high == one_group.estimate == 1 / 3  # there is only one group to draw
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
