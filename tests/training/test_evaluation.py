from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certify import CertificateBinding
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.training.certification import abstention, certify_one, label_set
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluation import (
    Evaluation,
    ModelScores,
    attribute_metrics,
    certified_metrics,
    confusions,
    intervals,
    measures,
    metrics_by_value,
)
from catalog_enrichment.training.folds import Folds
from catalog_enrichment.training.task import Split

from .toy import DICTIONARY

ALL = np.arange(4)
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
"""Predicts 0, 0, 1, 0; the truth below is 0, 0, 0 and a value that is not learned."""


def labels(cardinality: Cardinality = Cardinality.ONE) -> Labels:
    truth = np.array([[True, False], [True, False], [True, False], [False, False]])
    everything = np.ones(4, dtype=bool)
    return Labels("color", cardinality, ("Red", "Blue"), truth, everything, np.array([0, 0, 0, 1]), ~everything)


def binding() -> CertificateBinding:
    return CertificateBinding(
        modality=Modality.BOTH,
        weights_hash="w",
        numeric_path="fp32",
        preprocessing_hash="p",
        label_set_hash="l",
        use_count=1,
        data_window="unknown",
        issued_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


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


def test_an_abstention_has_recall_and_precision_zero():
    certificate = abstention("color", "no reason", PrecisionConfig(), binding())
    row = certified_metrics(certificate, PROBABILITIES, labels(), ALL, np.ones(4, dtype=bool))
    assert (row["accepted"], row["precision"], row["recall"]) == (0, 0, 0)
    assert (row["precision_low"], row["precision_high"]) == (0, 1)


def split_of(count: int) -> tuple[Split, Labels, ModelScores]:
    """A perfect model of two colours; the certification fold holds every content group twice."""
    truth = np.eye(2, dtype=bool)[np.arange(count) % 2]
    parts = np.split(np.arange(count), [count // 4, count // 2])
    empty = np.array([], dtype=np.int64)
    folds = Folds(empty, empty, parts[0], parts[1], parts[2])
    dataset = Dataset(
        DICTIONARY,
        ids=[f"p{n}" for n in range(count)],
        categories=["Apparel"] * count,
        languages=["en"] * count,
        pictures=[None if n % 10 == 9 else str(n) for n in range(count)],
        merchant=[{"color": ("Red",)}] * count,
    )
    labelled = np.ones(count, dtype=bool)
    labelled[parts[2]] = False
    unlearned = np.zeros(count, dtype=np.int64)
    label = Labels("color", Cardinality.ONE, ("Red", "Blue"), truth, labelled, unlearned, ~labelled)
    scores = ModelScores(np.arange(count), {"color": np.where(truth, 0.99, 0.01)})
    return Split(dataset, np.arange(count) // 2, folds, seed=0), label, scores


def test_certification_counts_one_product_per_group_with_a_picture():
    split, label, scores = split_of(800)
    certificate = certify_one(split, label, scores, PrecisionConfig(first_expected=60), binding())
    assert certificate.threshold is not None
    assert certificate.accepted == len(np.unique(split.groups[split.folds.certification])) == 100


def test_certification_on_the_calibration_products_is_refused():
    split, label, scores = split_of(800)
    same_fold_twice = Folds(
        split.folds.train, split.folds.validation, split.folds.calibration, split.folds.calibration, split.folds.test
    )
    with pytest.raises(ValueError, match="content groups"):
        certify_one(Split(split.dataset, split.groups, same_fold_twice, 0), label, scores, PrecisionConfig(), binding())


def test_a_label_set_is_the_fold_s_product_ids_and_not_their_labels():
    split, _, _ = split_of(40)
    before = label_set(split)
    product = int(split.folds.certification[0])
    split.dataset.merchant[product] = {"color": ("Blue",)}
    assert label_set(split) == before
    split.dataset.ids[product] = "another"
    assert label_set(split) != before
