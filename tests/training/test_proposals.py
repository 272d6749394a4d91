"""Certification of proposals that were made elsewhere: what certifies, what is left out, what a score may be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.config.proposer import NOTHING_SEEN, ProposerConfig
from catalog_enrichment.config.schema import Config, MlflowConfig
from catalog_enrichment.models import version_files
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.proposers.given import Calibration, Calibrations
from catalog_enrichment.records import EarlierUses, Modality
from catalog_enrichment.registry.trained_model import TrainedModel, model_card, require_certificates
from catalog_enrichment.training import proposals
from catalog_enrichment.training.certification import EarlierCandidates
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import content_groups
from catalog_enrichment.training.seen_products import Declaration, leak_check

from .toy import COLORS, DICTIONARY, batches, easy, silent
from .two_colours import Uses

LABELLED, PRODUCTS = 1200, 2000
SETTINGS = ProposerConfig(kind="table", name="rule", version="1", trained_on=NOTHING_SEEN)
MADE_AT = datetime(2026, 6, 1, tzinfo=UTC)

Rows = Mapping[str, Sequence[tuple[str, str, float]]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """1,200 labelled products, half of them first imported after :data:`MADE_AT`, and 800 unlabelled products."""
    rows = []
    for number in range(PRODUCTS):
        month = 1 + 11 * (number % 2)
        changes: dict[str, Any] = {"images": [], "first_imported_at": datetime(2026, month, 1, tzinfo=UTC)}
        row = easy(number)
        given = row["merchant_attributes"] if number < LABELLED else []
        rows.append(row | changes | {"merchant_attributes": given})
    options = LoadOptions(
        attributes=["color", "material", "season"],
        square=None,
        max_chars=200,
        images=ImagesConfig(),
        workdir=tmp_path_factory.mktemp("dataset"),
        max_unlabelled=PRODUCTS,
    )
    return load_dataset(batches(rows), DICTIONARY, options)


def color(number: int) -> str:
    return list(COLORS)[number % len(COLORS)]


def right(number: int) -> list[tuple[str, str, float]]:
    """The colour, with scores between .90 and .99."""
    return [("color", color(number), 0.90 + 0.09 * (number * 7919 % 1000) / 1000)]


@dataclass
class Certified:
    """A certification of the toy catalog."""

    dataset: Dataset
    folder: Path
    calibration: str = "platt"
    trained_on: str = NOTHING_SEEN
    uses: Uses = field(default_factory=Uses)

    def by(self, propose: Callable[[int], Sequence[tuple[str, str, float]]]) -> TrainedModel:
        config = Config(
            catalog=CatalogConfig(path="catalog", dictionary="attributes.json"),
            mlflow=MlflowConfig(tracking_uri="sqlite:///m.db"),
            proposer=ProposerConfig(
                kind="table", name="rule", version="1", trained_on=self.trained_on, calibration=self.calibration
            ),  # type: ignore[arg-type]
        )

        def save(folder: Path, calibrations: Calibrations) -> Any:
            folder.mkdir(parents=True)
            self.calibrations = calibrations
            return SimpleNamespace(weights_hash=str(sorted(calibrations.items())), preprocessing_hash="p")

        def answers(ids: Sequence[str]) -> tuple[Rows, Mapping[str, Any]]:
            return {name: propose(int(name[1:])) for name in ids}, {"products": len(ids)}

        source = proposals.Source(
            name="answers of rule 1",
            declared=Declaration.of(self.trained_on, config),
            made_at=MADE_AT,
            propose=answers,
            save=save,
            facts={"kind": "table"},
        )
        earlier = EarlierCandidates(use_labels=self.uses)
        return proposals.certify(self.dataset, config, source, self.folder, earlier, Stages(silent))

    def certificate(
        self, propose: Callable[[int], Sequence[tuple[str, str, float]]], attribute: str = "color"
    ) -> Certificate:
        return one(self.by(propose), attribute)


def one(certified: TrainedModel, attribute: str = "color") -> Certificate:
    [found] = [
        each for each in certified.certificates if (each.attribute, each.modality) == (attribute, Modality.TEXT_ONLY)
    ]
    return found


@pytest.fixture
def certified(dataset: Dataset, tmp_path: Path) -> Certified:
    return Certified(dataset, tmp_path)


def test_right_proposals_are_certified_and_the_version_says_who_made_them(certified: Certified) -> None:
    version = certified.by(right)
    certificate = one(version)
    assert certificate.threshold is not None
    assert certificate.wrong == 0
    assert certificate.accepted > 600  # of the 65% of 1,200
    assert certificate.compute_type == "given"
    assert "no label of this catalog" in certificate.claim
    require_certificates(["color", "material", "season"], version.certificates)
    stored = [Certificate.from_dict(each) for each in version_files.read_certificates(version.artifact)]
    assert stored == version.certificates
    assert "answers of rule 1" in model_card(version)
    assert "no label of this catalog" in model_card(version)
    assert version.lineage["folds"]["train"] == 0
    assert [call[0] for call in certified.uses.calls] == ["color"]
    assert json.dumps(version.lineage)  # it is logged as JSON


def test_an_attribute_without_proposals_or_labels_abstains(certified: Certified) -> None:
    version = certified.by(right)
    assert one(version, "material").threshold is None
    assert one(version, "season").threshold is None
    assert one(version, "season").why_abstains


def test_scores_that_are_all_one_are_certified_only_if_what_they_write_is_right(certified: Certified) -> None:
    assert certified.certificate(lambda number: [("color", color(number), 1.0)]).threshold == 1.0


def test_scores_that_are_all_one_and_wrong_too_often_are_not_certified(certified: Certified) -> None:
    wrong = lambda number: [("color", color(number + (number // 4 % 8 == 0)), 1.0)]  # noqa: E731
    certificate = certified.certificate(wrong)
    assert certificate.threshold is None
    assert certificate.why_abstains


def test_the_map_of_the_scores_changes_no_certificate(dataset: Dataset, tmp_path: Path) -> None:
    """A third are wrong below .93 and 1% above. The logistic map and squares accept the products that the scores do."""

    def some_wrong(number: int) -> list[tuple[str, str, float]]:
        [(name, value, score)] = right(number)
        is_wrong = (score < 0.93 and number // 4 % 3 == 1) or number // 4 % 100 == 7
        return [(name, color(number + 1) if is_wrong else value, score)]

    platt = Certified(dataset, tmp_path / "platt")
    mapped = platt.certificate(some_wrong)
    plain = Certified(dataset, tmp_path / "plain", calibration="none").certificate(some_wrong)
    squared = Certified(dataset, tmp_path / "squared", calibration="none").certificate(
        lambda number: [(name, value, score**2) for name, value, score in some_wrong(number)]
    )
    assert set(platt.calibrations) == {"color"}
    assert mapped.threshold != plain.threshold
    found = {(each.accepted, each.wrong, each.accept_rate) for each in (mapped, plain, squared)}
    assert len(found) == 1
    assert plain.threshold is not None
    assert 0.91 < plain.threshold < 0.95


def test_what_the_proposer_has_seen_certifies_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """It is right for the products that it has seen, and wrong for a third of the others."""

    def by_heart(number: int) -> list[tuple[str, str, float]]:
        return [("color", color(number + 2 * (number % 2 and number // 4 % 3 == 0)), 0.9)]

    declared = Certified(dataset, tmp_path / "declared", trained_on="2026-06-01")
    version = declared.by(by_heart)
    assert one(version).threshold is None
    assert version.lineage["folds"]["train"] == LABELLED // 2
    assert "2026-06-01" in model_card(version)
    hidden = Certified(dataset, tmp_path / "hidden").certificate(by_heart)
    assert hidden.threshold is None


def test_labels_that_were_seen_and_not_declared_are_noticed(dataset: Dataset, tmp_path: Path) -> None:
    """4 of 100 later products are wrong, and no earlier product: alone it would be certified."""
    later_wrong = lambda number: [("color", color(number + (number % 2 and number // 4 % 25 == 3)), 0.9)]  # noqa: E731
    found = Certified(dataset, tmp_path).certificate(later_wrong)
    assert found.threshold is None
    assert "more often" in found.why_abstains


def test_the_check_reads_no_label_of_the_certification_fold(dataset: Dataset, tmp_path: Path) -> None:
    """Their use is counted; here every later product of that fold is wrong, and no other."""
    first = Certified(dataset, tmp_path / "first").by(right)
    split = proposals.split_of(
        dataset, {"color": dataset.labels("color", 0)}, SETTINGS, content_groups(dataset.titles, dataset.pictures, []),
        np.zeros(len(dataset), dtype=bool), EarlierUses(),
    )  # fmt: skip
    assert one(first).threshold is not None
    labels, index = dataset.labels("color", 0), np.arange(len(dataset))
    given = labels.truth.astype(float) * 0.9
    for product in split.folds.certification.tolist():
        if product % 2:
            given[product] = np.roll(given[product], 1)
    check = leak_check(labels, ModelScores(index, {"color": given}), split, MADE_AT)
    assert not check.refusal
    assert check.result is not None
    assert check.result.wrong_earlier == 0


def test_twins_of_a_gold_sample_do_not_choose(dataset: Dataset) -> None:
    labels, seen = {"color": dataset.labels("color", 0)}, np.zeros(len(dataset), dtype=bool)
    groups = np.arange(len(dataset))
    arguments = (labels, SETTINGS, groups, seen, EarlierUses())
    before = proposals.split_of(dataset, *arguments).folds
    twin, asked = int(before.choosing[0]), int(np.flatnonzero(before.outside(len(dataset)))[0])
    groups[asked] = groups[twin]
    answered = replace(dataset, gold=[{"color": ()} if row == asked else {} for row in range(len(dataset))])
    after = proposals.split_of(answered, *arguments).folds
    assert np.setdiff1d(before.choosing, after.choosing).tolist() == [twin]
    assert twin not in after.train, "the proposer has not seen it"


def test_few_labelled_products_that_were_not_seen_abstain_and_use_no_label(dataset: Dataset, tmp_path: Path) -> None:
    everything = Certified(dataset, tmp_path, trained_on="2027-01-01")
    version = everything.by(right)
    assert one(version).threshold is None
    assert "by people's verdicts" in one(version).why_abstains
    assert everything.uses.calls == []


def test_a_product_without_a_proposal_is_not_written_and_not_wrong(certified: Certified) -> None:
    """Every other product has none, and its first column is a value."""
    nothing = [("color", "", 0.0)]
    certificate = certified.certificate(lambda number: right(number) if number // 4 % 2 else nothing)
    assert certificate.threshold is not None
    assert certificate.threshold > 0
    assert certificate.wrong == 0
    assert 0.45 < certificate.accept_rate < 0.55


def test_products_about_which_there_is_no_answer_do_not_count(certified: Certified) -> None:
    """There are answers about all labelled products, and half of the others."""
    certificate = certified.certificate(lambda number: right(number) if number < LABELLED or number // 4 % 2 else [])
    assert certificate.threshold is not None
    assert certificate.unlabelled_products == (PRODUCTS - LABELLED) // 2
    assert certificate.accept_rate > 0.9


@pytest.mark.parametrize("scores", [[0.2, 0.5, 0.9, 0.97], [1e-7, 1 - 1e-7], [0.0, 1.0, 0.3]])
def test_a_calibration_keeps_the_order_of_the_scores_and_its_ends(scores: list[float]) -> None:
    calibration = Calibration(slope=0.7, intercept=-1.2)
    mapped = [calibration(score) for score in sorted(scores)]
    assert mapped == sorted(set(mapped))
    assert calibration(0.0) == 0.0
    assert calibration(1.0) == 1.0
    assert calibration(0.5) == pytest.approx(1 / (1 + np.exp(1.2)), rel=1e-6)


def test_scores_that_a_calibration_would_make_equal_stay_as_they_are() -> None:
    flat = Calibration(slope=1e-9, intercept=0.0)
    assert not proposals.keeps_apart(flat, np.array([0.3, 0.30001]))
    assert proposals.keeps_apart(Calibration(2.0, 0.1), np.array([0.3, 0.4, 0.4]))
