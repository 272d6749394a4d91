from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from catalog_enrichment.config import PrecisionConfig
from catalog_enrichment.precision.certify import Issue
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.training.certificates import Split, abstention, certify_one, label_set
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluate import ModelScores, certified, confusions, described
from catalog_enrichment.training.folds import Folds

from .toy import DICTIONARY

ALL = np.arange(4)
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
"""Says 0, 0, 1, 0; the truth below is 0, 0, 0 and a value that is not learned."""


def labels(cardinality: Cardinality = Cardinality.ONE) -> Labels:
    truth = np.array([[True, False], [True, False], [True, False], [False, False]])
    everything = np.ones(4, dtype=bool)
    return Labels("color", cardinality, ("Red", "Blue"), truth, everything, np.array([0, 0, 0, 1]), ~everything)


def issue() -> Issue:
    return Issue(
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
    row = described(PROBABILITIES, labels(), ALL)
    assert row["accuracy"] == 0.5
    assert row["r_at_p95_micro"] == 0.5  # two of four true values, above the first wrong score
    assert row["f1_micro"] == 0.5


def test_confusions_name_what_was_missed():
    rows = confusions(PROBABILITIES, labels(), ALL)
    assert {(row["true"], row["said"]) for row in rows} == {("Red", "Blue"), ("(a value not learned)", "Red")}


def test_an_abstention_has_recall_zero_and_no_precision_of_one():
    certificate = abstention("color", "no reason", PrecisionConfig(), issue())
    row = certified(certificate, PROBABILITIES, labels(), ALL, np.ones(4, dtype=bool))
    assert (row["accepted"], row["precision"], row["recall"]) == (0, 0, 0)
    assert (row["precision_low"], row["precision_high"]) == (0, 1)


def split_of(count: int) -> tuple[Split, Labels, ModelScores]:
    """A perfect model of two colours; the certification fold holds every content group twice."""
    truth = np.eye(2, dtype=bool)[np.arange(count) % 2]
    parts = np.split(np.arange(count), [count // 4, count // 2])
    nobody = np.array([], dtype=np.int64)
    folds = Folds(nobody, nobody, parts[0], parts[1], parts[2])
    dataset = Dataset(
        DICTIONARY,
        ids=[f"p{n}" for n in range(count)],
        categories=["Apparel"] * count,
        languages=["en"] * count,
        pictures=[None if n % 10 == 9 else str(n) for n in range(count)],
        merchant=[{"color": ("Red",)}] * count,
    )
    used = np.ones(count, dtype=bool)
    used[parts[2]] = False
    label = Labels("color", Cardinality.ONE, ("Red", "Blue"), truth, used, np.zeros(count, dtype=np.int64), ~used)
    scores = ModelScores(np.arange(count), {"color": np.where(truth, 0.99, 0.01)})
    return Split(dataset, np.arange(count) // 2, folds, seed=0), label, scores


def test_certification_counts_one_product_per_group_with_a_picture():
    split, label, scores = split_of(800)
    certificate = certify_one(split, label, scores, PrecisionConfig(first_expected=60), issue())
    assert certificate.threshold is not None
    assert certificate.accepted == len(np.unique(split.groups[split.folds.certification])) == 100


def test_certification_on_the_calibration_products_is_refused():
    split, label, scores = split_of(800)
    twice = Folds(
        split.folds.train, split.folds.validation, split.folds.calibration, split.folds.calibration, split.folds.test
    )
    with pytest.raises(ValueError, match="content groups"):
        certify_one(Split(split.dataset, split.groups, twice, 0), label, scores, PrecisionConfig(), issue())


def test_a_label_set_is_the_products_of_the_fold_whatever_is_said_about_them():
    split, _, _ = split_of(40)
    before = label_set(split)
    product = int(split.folds.certification[0])
    split.dataset.merchant[product] = {"color": ("Blue",)}
    assert label_set(split) == before
    split.dataset.ids[product] = "another"
    assert label_set(split) != before
