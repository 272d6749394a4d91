from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.schema import Config, MlflowConfig, PrecisionConfig, TrainingConfig
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact, compute_types, title_words
from catalog_enrichment.models.predictor import Predictor, load_predictor
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.records import EarlierUses, LabelUse, Modality
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.training.certification import EarlierCandidates
from catalog_enrichment.training.train import train

from .toy import DICTIONARY, batches, easy, recipe_toml, silent


def config(folder, **training) -> Config:
    (folder / "toy.toml").write_text(recipe_toml(epochs=4))
    settings = {
        "recipe": "toy.toml",
        "min_label_count": 5,
        "threads": 1,
        "compute_types": ["fp32"],
        "unimodal_baselines": False,
        **training,
    }
    return Config(
        catalog=CatalogConfig(path="lake", dictionary="dictionary.json"),
        mlflow=MlflowConfig(tracking_uri="sqlite:///x.db"),
        root=str(folder),
        training=TrainingConfig(**settings),
        precision=PrecisionConfig(noticeable_share=1.0),  # few products
    )


def catalog() -> list[dict]:
    """700 labelled products, 200 unlabelled, 20 that opted out, 20 labelled without a picture."""
    rows = [easy(n) for n in range(700)]
    rows += [easy(n, merchant_attributes=[]) for n in range(700, 900)]
    rows += [easy(n, opt_out=True) for n in range(900, 920)]
    return rows + [easy(n, images=[]) for n in range(920, 940)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TrainedModel:
    folder = tmp_path_factory.mktemp("job")
    uses: list[tuple[str, int]] = []
    candidates: list[str] = []

    def second_candidate(attribute: str, product_ids: Sequence[str], candidate: str, current: int) -> LabelUse:
        assert candidate not in candidates  # of the same weights, but each attribute and path has its own grid
        candidates.append(candidate)
        assert not (folder / "w" / "artifact" / "certificates.json").exists()  # before the labels are read
        uses.append((attribute, len(set(product_ids))))
        return LabelUse(2, current)

    earlier = EarlierCandidates(use_labels=second_candidate, next_use=lambda *_: 2)
    settings = config(folder, unimodal_baselines=True)
    model = train(batches(catalog()), DICTIONARY, settings, folder / "w", earlier, silent)
    assert uses == [(c.attribute, c.certification_products) for c in model.certificates if c.steps]
    assert [attribute for attribute, _ in uses] == ["color", "material"]
    return model


def test_i2_every_attribute_and_path_has_a_certificate(trained):
    certified_paths = {(certificate.attribute, certificate.modality) for certificate in trained.certificates}
    assert certified_paths == {(name, path) for name in DICTIONARY.enabled for path in Modality}
    by_key = {(certificate.attribute, certificate.modality): certificate for certificate in trained.certificates}
    assert by_key["season", Modality.BOTH].threshold is None
    assert all(by_key[name, Modality.TEXT_ONLY].threshold is None for name in DICTIONARY.enabled)


def color_of(model: TrainedModel) -> Certificate:
    return next(c for c in model.certificates if c.attribute == "color" and c.modality is Modality.BOTH)


def test_the_colour_is_certified_and_precise_on_the_test_fold(trained):
    color = color_of(trained)
    assert color.threshold is not None
    assert color.lower_bound >= 0.95
    assert color.categories == ("Apparel/Topwear",)
    assert color.languages == ("en",)
    assert 0 < color.accept_rate <= 1
    assert sum(color.histogram) == 200  # the unlabelled products with a picture
    assert trained.metrics["color/certified_accepted"] > 0
    assert trained.metrics["color/certified_precision"] >= 0.9


def test_a_second_candidate_on_the_same_labels_is_tested_at_a_sixth_of_delta(trained):
    assert trained.lineage["label_uses"] == {"color": 2, "material": 2, "season": 1}
    assert all(step.p_value <= 0.05 / 6 for step in color_of(trained).steps if step.passed)


def test_what_would_be_written_on_the_test_fold_is_recorded_for_the_promotion_gate(trained):
    color = [row for row in trained.held_out if row.attribute == "color"]
    assert {row.attribute for row in trained.held_out} == {"color", "material"}
    assert len({row.product_id for row in color}) == len(color) == trained.lineage["folds"]["test"]
    assert all(len(row.true_values) == 1 for row in color)
    written = [row for row in color if row.written_values]
    assert 0 < len(written) < len(color)  # products without a picture are not written
    right = sum(row.written_values == row.true_values for row in written)
    assert right / len(color) == pytest.approx(trained.metrics["color/certified_recall"], abs=0.05)


def test_i8_artifact_verifies_and_carries_the_certificates(trained):
    artifact.verify(trained.artifact)
    saved = [Certificate.from_dict(row) for row in json.loads((trained.artifact / "certificates.json").read_text())]
    assert saved == trained.certificates
    assert {c.weights_hash for c in saved} == {artifact.weights_hash(trained.artifact)}
    assert set(Predictor.load(trained.artifact).heads) == {"color", "material"}


def test_counts_add_up_and_certification_shares_no_group(trained):
    """I7 for training: read = opted out + labelled + unlabelled; every labelled product is in a fold."""
    lineage = trained.lineage
    assert lineage["products_read"] == lineage["opted_out"] + lineage["labelled"] + lineage["unlabelled"] == 940
    assert lineage["opted_out"] == 20
    assert sum(lineage["folds"].values()) == lineage["labelled"] == 720
    assert trained.labelled.num_rows == 720
    assert lineage["near_duplicate_rate_test"] == 0
    assert lineage["with_image"] == 900


def test_every_modality_is_reported_with_valid_mlflow_names(trained):
    modalities = {row["modality"] for row in trained.tables["modalities"]}
    assert modalities == {"both", "image_masked", "text_masked", "text_only", "image_only"}
    assert all(re.fullmatch(r"[\w\-./ ]+", name) and np.isfinite(value) for name, value in trained.metrics.items())
    # no picture shows the material
    assert trained.metrics["material/r_at_p95_micro"] > trained.metrics["material/text_masked/r_at_p95_micro"]
    assert set(trained.curves) == {"precision_recall", "reliability", "attention"}
    json.dumps([trained.curves, trained.tables, trained.lineage, trained.params])
    stages = {"load", "split", "fit", "calibrate", "score", "has_value", "certify", "evaluate", "baselines"}
    assert set(trained.seconds) == stages


def test_every_epoch_is_recorded_with_its_recipe_and_stage(trained):
    epochs = trained.tables["epochs"]
    assert [(row["recipe"], row["stage"]) for row in epochs] == [("toy", "toy")] * len(trained.history)
    assert [row["validation_loss"] for row in epochs] == [row["validation_loss"] for row in trained.history]


def test_the_worst_mistakes_on_the_test_fold_are_kept_with_their_pictures(trained):
    wrong = trained.tables["mistakes"]
    assert {row["product_id"] for row in wrong} <= {row.product_id for row in trained.held_out}
    assert 0 < len(wrong) <= 2 * 24  # report.samples per attribute
    assert all(row["predicted"] not in row["true"] for row in wrong)
    with_picture = {row["product_id"] for row in wrong if row["modality"] == "both"}
    assert set(trained.pictures) == with_picture
    assert all(picture.startswith(b"\xff\xd8") for picture in trained.pictures.values())


def first_use(attribute: str, product_ids: Sequence[str], candidate: str, current: int) -> LabelUse:
    return LabelUse(1, current)


FIRST = EarlierCandidates(use_labels=first_use)


def run(folder, rows, progress=silent, earlier=FIRST, workdir="w", **training) -> TrainedModel:
    return train(batches(rows), DICTIONARY, config(folder, **training), folder / workdir, earlier, progress)


PLACEHOLDER = easy(0)["images"]


@pytest.mark.parametrize(
    ("rows", "training", "error", "message"),
    [
        ([easy(n, merchant_attributes=[]) for n in range(30)], {}, DataContractError, r"0 of 30 .*source\.mapping"),
        ([easy(n) for n in range(99)], {}, DataContractError, "training needs at least 100"),
        ([], {}, DataContractError, "0 of 0 products"),
        ([easy(n, images=PLACEHOLDER) for n in range(120)], {}, DataContractError, "placeholder picture"),
        ([easy(n) for n in range(120)], {"min_label_count": 1000}, DataContractError, "min_label_count"),
        ([easy(0)], {"attributes": ["size"]}, ConfigError, r"size.*Enabled"),
    ],
    ids=["no labels", "few labels", "no products", "the same picture", "rare values", "unknown attribute"],
)
def test_data_that_cannot_be_trained_on_are_refused(tmp_path, rows, training, error, message) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path, rows, **training)


def test_pictures_that_are_all_missing_are_refused_with_an_example(tmp_path):
    """Not as too few content groups or a modality that does not help, which is what would follow."""
    missing = [{"bytes": None, "uri": str(tmp_path / "elsewhere" / "a.jpg"), "version": "missing"}]
    rows = [easy(n, images=missing) for n in range(120)]
    with pytest.raises(GateRefused, match=r"120 of 120 .* image_not_allowed \(120\), for example /.*/elsewhere/a.jpg"):
        run(tmp_path, rows)
    few = [easy(n) for n in range(80)] + [easy(n, images=missing) for n in range(80, 99)]
    lines: list[str] = []
    with pytest.raises(DataContractError, match="at least 100"):
        run(tmp_path, few, lines.append)
    assert any(line.startswith("warning: 19 of 99 products with pictures have no usable picture") for line in lines)
    with pytest.raises(DataContractError, match="at least 100"):  # the text alone needs no pictures
        run(tmp_path, rows[:99], set={"model.fusion.kind": "text_only"})


def test_config_without_training_section_is_a_config_error(tmp_path):
    settings = replace(config(tmp_path), training=None)
    with pytest.raises(ConfigError, match="training"):
        train(batches([]), DICTIONARY, settings, tmp_path, FIRST, silent)


@pytest.mark.slow
def test_a_vote_of_several_recipes_is_trained_certified_and_saved_as_one_model(tmp_path) -> None:
    (tmp_path / "vote.toml").write_text(
        'name = "vote"\nmembers = ["toy.toml", { recipe = "toy.toml", "fit.seed" = 1, "fit.epochs" = 3, '
        '"model.fusion.kind" = "late" }]\n'
    )
    lines: list[str] = []
    model = run(tmp_path, catalog(), lines.append, recipe="vote.toml")
    assert [line for line in lines if ": model " in line] == ["toy 0: model 1 of 2", "toy 1: model 2 of 2"]
    artifact.verify(model.artifact)
    voters = load_predictor(model.artifact)
    assert {certificate.attribute for certificate in model.certificates} == set(DICTIONARY.enabled)
    assert {certificate.weights_hash for certificate in model.certificates} == {artifact.weights_hash(model.artifact)}
    titles = ["red cotton", "green wool"]
    predicted = voters.predict(ProductBatch(titles, ["", ""], [None, None])).probabilities["color"].argmax(axis=1)
    assert [voters.heads["color"].labels[value] for value in predicted] == ["Red", "Green"]
    assert json.loads(json.dumps(model.params, default=str))["recipe"] == "vote"
    assert [model.params[f"member_{number:02d}.fit.epochs"] for number in (0, 1)] == [4, 3]


def test_the_config_changes_the_recipe_and_a_unimodal_model_is_not_evaluated_with_masked_inputs(tmp_path) -> None:
    changes = {"model.fusion.kind": "text_only", "fit.epochs": 1}
    model = run(tmp_path, catalog(), set=changes, unimodal_baselines=True)
    assert {name: model.params[name] for name in changes} == changes
    assert {row["modality"] for row in model.tables["modalities"]} == {"both"}
    assert model.warnings == []


def test_i8_words_of_titles_are_pooled_with_the_network_in_training_and_in_the_version(tmp_path) -> None:
    changes = {"title_words": True, "fit.epochs": 1, "model.fusion.kind": "image_only"}  # titles alone tell materials
    model = run(tmp_path, catalog(), set=changes)
    experts = title_words.load(model.artifact)
    assert experts is not None
    assert "material" in experts.experts
    assert model.metrics["material/r_at_p95_micro"] > 0.9
    certificate = next(c for c in model.certificates if (c.attribute, c.modality) == ("material", Modality.BOTH))
    assert certificate.weights_hash == artifact.weights_hash(model.artifact)
    assert certificate.threshold is not None
    batch = ProductBatch(["red wool kalomi"], [""], [np.full((32, 32, 3), 128, dtype=np.uint8)])
    materials = load_predictor(model.artifact).predict(batch).probabilities["material"][0]
    assert materials.argmax() == artifact.heads(model.artifact)["material"].labels.index("Wool")
    assert materials.max() > 0.9


def test_a_feed_without_pictures_is_measured_on_its_texts_and_says_what_it_does_not_learn(tmp_path) -> None:
    rows = [easy(n, images=[]) for n in range(500)] + [easy(n, images=[], merchant_attributes=[]) for n in range(99)]
    for row in rows[:500]:
        row["merchant_attributes"] = [*row["merchant_attributes"], ("season", ["Summer"])]
    lines: list[str] = []
    model = run(tmp_path, rows, lines.append, set={"model.fusion.kind": "text_only"}, unimodal_baselines=True)
    assert model.metrics["color/products"] == model.lineage["folds"]["test"] > 0
    assert model.metrics["color/accuracy"] > 0.5
    assert max(row["f1"] for row in model.tables["values"]) > 0
    assert {row["modality"] for row in model.tables["modalities"]} == {"both"}
    assert {of.why_abstains for of in model.certificates if of.modality is Modality.BOTH} == {claim.NO_PRODUCTS}
    why = "all 500 products with a value of the dictionary have 'Summer', and a model tells two apart"
    assert {of.why_abstains for of in model.certificates if of.attribute == "season"} == {claim.NO_PRODUCTS, why}
    said = lines.index(f"warning: season is not learned: {why}")
    assert said < min(number for number, line in enumerate(lines) if ": epoch 1/" in line)


def test_pictures_that_no_product_has_are_neither_masked_nor_fitted_alone(tmp_path) -> None:
    rows = [easy(n, images=[]) for n in range(200)]
    model = run(tmp_path, rows, set={"fit.epochs": 1}, unimodal_baselines=True)
    assert {row["modality"] for row in model.tables["modalities"]} == {"both"}
    assert model.warnings == []


def test_an_interrupted_training_continues(tmp_path) -> None:
    settings = {"checkpoints": "checkpoints", "label_uses_per_round": 1}

    class Killed(Exception):
        pass

    def kill(line: str) -> None:
        if "epoch 3/" in line:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, catalog(), kill, **settings)
    lines: list[str] = []
    # its first start has recorded its use: without its checkpoint it would draw a new certification fold
    own_use = EarlierUses(uses={"color": 1}, first_round={"p00000": 0})
    again = EarlierCandidates(use_labels=first_use, uses=own_use)
    resumed = run(tmp_path, catalog(), lines.append, again, "w2", **settings)
    assert (resumed.lineage["certification_round"], resumed.lineage["certification_round_reason"]) == (0, "")
    assert {certificate.certification_round for certificate in resumed.certificates} == {0}
    assert any("continues after epoch 2" in line for line in lines)
    fresh = run(tmp_path, catalog(), workdir="w3")
    assert artifact.weights_hash(resumed.artifact) == artifact.weights_hash(fresh.artifact)


def test_a_training_after_the_last_use_of_a_certification_fold_draws_a_new_one_and_says_so(tmp_path) -> None:
    lines: list[str] = []
    certified: list[tuple[str, int]] = []

    def use(attribute: str, product_ids: Sequence[str], candidate: str, current: int) -> LabelUse:
        certified.extend((product, current) for product in product_ids)
        return LabelUse(1, current)

    uses = EarlierUses(certification_round=0, uses={"material": 5}, first_round={f"p{n:05d}": 0 for n in range(150)})
    earlier = EarlierCandidates(use_labels=use, uses=uses)
    model = run(tmp_path, catalog(), lines.append, earlier, set={"fit.epochs": 3})
    assert model.lineage["certification_round"] == 1
    assert {certificate.certification_round for certificate in model.certificates} == {1}
    reason = model.lineage["certification_round_reason"]
    assert [line for line in lines if line.startswith("certification labels: ")] == [f"certification labels: {reason}"]
    assert "the labels of material were used 5 times in certification round 0" in reason
    assert all(product not in uses.first_round and used == 1 for product, used in certified)


def test_a_model_that_lacks_values_of_the_champion_keeps_the_certification_labels_and_says_so(tmp_path) -> None:
    """For every attribute, also those of which it has all values: the gate refuses a model as a whole."""
    lines: list[str] = []
    seen: list[Mapping[str, Sequence[str]]] = []

    def lost(labels: Mapping[str, Sequence[str]]) -> str:
        seen.append(labels)
        return "season: the candidate cannot write ['Autumn'], the champion can"

    def no_use(*_: object) -> LabelUse:
        raise AssertionError("a label was used")

    earlier = EarlierCandidates(use_labels=no_use, lost=lost)
    model = run(tmp_path, catalog(), lines.append, earlier, set={"fit.epochs": 3})
    heads = load_predictor(model.artifact).heads
    assert seen == [{name: head.labels for name, head in heads.items()}]
    [warning] = [line for line in lines if "cannot write ['Autumn']" in line]
    assert warning.startswith("warning: nothing will be certified")
    assert all(certificate.threshold is None for certificate in model.certificates)
    kept = [c.attribute for c in model.certificates if "cannot write ['Autumn']" in c.why_abstains]
    assert {"color", "material"} <= set(kept)


def test_a_number_type_that_this_machine_does_not_multiply_is_refused_before_anything_is_read(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda numbers, _: "no bf16 here" if numbers == "bf16" else "")
    with pytest.raises(ConfigError, match=r"training\.compute_types: not bf16 on this machine: no bf16 here"):
        run(tmp_path, [], compute_types=["fp32", "bf16"])


def test_every_compute_type_is_certified_by_one_use_of_the_labels_and_compared(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda *_: "")  # processors without bf16 compute it slowly
    uses: list[str] = []

    def first_use(attribute: str, product_ids: Sequence[str], candidate: str, current: int) -> LabelUse:
        uses.append(attribute)
        return LabelUse(len(uses), current)

    earlier = EarlierCandidates(use_labels=first_use, next_use=lambda *_: len(uses) + 1)
    model = run(tmp_path, catalog(), earlier=earlier, compute_types=["fp32", "bf16"], attributes=["color"])
    color = [c for c in model.certificates if c.modality is Modality.BOTH]
    assert [c.compute_type for c in color] == ["fp32-cpu", "bf16-cpu"]
    assert all(c.threshold is not None and c.steps for c in color)
    assert uses == ["color"]  # both tests read the same labels
    assert {(c.use_number, c.delta) for c in color} == {(1, 0.05)}  # the hardware chooses a run's, not the results
    (row,) = model.tables["compute_types"]
    assert (row["attribute"], row["path"], row["reference"]) == ("color", "bf16-cpu", "fp32-cpu")
    assert 0 < row["mean_difference"] <= row["max_difference"] <= row["tolerance"]
    accepted = row["accepted_by_both"], row["accepted_by_reference_only"], row["accepted_by_path_only"]
    assert 0 < sum(accepted) <= row["products"]
    by_reference = {row.product_id for row in model.held_out if row.written_values}
    assert by_reference  # the gate compares the decisions of the first compute type
