from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion.base import EncoderOutput
from catalog_enrichment.models.image_encoders import ImageEncoder, build_image_encoder
from catalog_enrichment.models.spec import (
    AdaptSpec,
    DestructionSpec,
    FitSpec,
    ImageSpec,
    NoiseSpec,
    Recipe,
    SearchSpec,
    TextSpec,
    fusion_files,
)
from catalog_enrichment.models.text_encoders import TextEncoder, Tokens, build_tokenizer
from catalog_enrichment.precision.classification_metrics import pairs_from, r_at_p_micro
from catalog_enrichment.training.examples import Examples, augmented
from catalog_enrichment.training.fit import check_buildable, fit
from catalog_enrichment.training.objectives import targets_of, total_loss
from catalog_enrichment.training.task import Task

from .toy import easy, recipe, silent


@pytest.fixture(scope="module")
def task(toy_task: Callable[..., Task]) -> Task:
    rows = [easy(number) for number in range(240)]
    for row in rows[::4]:
        row["merchant_attributes"] = row["merchant_attributes"][1:]  # every fourth product has no colour
    return toy_task(rows)


def accuracy(network, task: Task) -> float:
    """Share of the held-out products whose colour is found; chance: 0.33, three colours remain."""
    label = task.labels["color"]
    index = task.folds.certification[label.learnable[task.folds.certification]]
    logits = task.examples.outputs(network, index).logits["color"]
    return float((logits.argmax(dim=1).numpy() == label.truth[index].argmax(axis=1)).mean())


@pytest.mark.parametrize("kind", sorted(set(fusion_files()) - {"image_only"}))
def test_every_fusion_learns(kind: str, task: Task) -> None:
    lines: list[str] = []
    fitted = fit(recipe(fusion=kind, epochs=6), task, lines.append)
    assert accuracy(fitted.network, task) > (0.6 if kind == "modality_attention" else 0.5)
    assert len(fitted.history) == len(lines) == 6
    assert all(row["products_per_second"] > 0 for row in fitted.history)


def test_same_seed_gives_the_same_weights_and_another_seed_others(task: Task) -> None:
    weights = [fit(recipe(epochs=1, seed=seed), task, silent).network.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_kl_term_keeps_the_attention_near_a_half(task: Task) -> None:
    spread = []
    for weight in (0.0, 20.0):
        fitted = fit(recipe(epochs=2, kl_lambda=weight, image_dropout=0.0), task, silent)
        attention = task.examples.outputs(fitted.network, task.folds.train).attention
        assert attention is not None
        spread.append(float((attention["color"] - 0.5).abs().mean()))
    assert spread[1] < spread[0] / 2


def test_best_epoch_is_kept_and_patience_stops(task: Task) -> None:
    lines: list[str] = []
    diverging = recipe(epochs=15, patience=1, schedule="constant", learning_rate=3.0, text_learning_rate=1.0)
    fitted = fit(diverging, task, lines.append)
    assert len(fitted.history) < 15
    assert "stopped" in lines[-1]
    outputs = task.examples.outputs(fitted.network, task.folds.choosing)
    held_out_loss = float(total_loss(outputs, targets_of(task.labels), torch.from_numpy(task.folds.choosing)))
    assert held_out_loss == pytest.approx(min(row["validation_loss"] for row in fitted.history), rel=1e-4)


def test_lambda_is_the_candidate_that_is_best_on_the_choosing_fold(task: Task) -> None:
    searched = replace(recipe(epochs=2), search=SearchSpec(kl_lambda=(0.0, 50.0)))
    fitted = fit(searched, task, silent)
    recall_by_lambda = {}
    for weight in searched.search.kl_lambda:
        network = fit(recipe(epochs=2, kl_lambda=weight), task, silent).network
        recalls = []
        for name, label in task.labels.items():
            rows = task.folds.choosing[label.labelled[task.folds.choosing]]
            logits = task.examples.outputs(network, rows).logits[name]
            single = label.cardinality == "one"
            scores = (logits.softmax(dim=1) if single else logits.sigmoid()).numpy()
            recalls.append(r_at_p_micro(pairs_from(scores, label.truth[rows], label.cardinality)).recall)
        recall_by_lambda[weight] = float(np.mean(recalls))
    assert [row["kl_lambda"] for row in fitted.search] == [0.0, 50.0]
    assert [row["r_at_p95_micro"] for row in fitted.search] == pytest.approx(list(recall_by_lambda.values()), abs=1e-6)
    assert recall_by_lambda[fitted.chosen["kl_lambda"]] == max(recall_by_lambda.values())


def test_alpha_is_reported_by_attribute(task: Task) -> None:
    fitted = fit(recipe(fusion="late", epochs=1), task, silent)
    assert set(fitted.chosen) == {"color/alpha", "material/alpha"}
    assert fitted.network.fusion.alpha.tolist() == pytest.approx(list(fitted.chosen.values()))


def test_frozen_encoders_keep_the_weights_of_their_own_fits(task: Task, tmp_path) -> None:
    stage = FitSpec(epochs=1, batch_size=16, text_learning_rate=3e-3, image_learning_rate=1e-3)
    frozen = recipe(fusion="hierarchical", epochs=1)
    second = TextSpec(bert=frozen.model.text.bert, pooling="mean", max_length=16, fields="apart", frozen=True)
    model = replace(frozen.model, text=second, second_text=second, image=replace(frozen.model.image, frozen=True))
    destruction = DestructionSpec(fit=stage, patches=4, reach=1)
    whole = replace(frozen, model=model, text=stage, image=stage, destruction=destruction)
    lines: list[str] = []
    told: list[str] = []
    staged = _task_for(whole, task)
    fitted = fit(whole, staged, lines.append, tmp_path, lambda stage, row: told.append(f"{stage} {row['epoch']:.0f}"))
    names = [line.partition(":")[0] for line in lines]
    assert names == ["image", "image destruction", "text", "second_text", "toy"]
    assert [row["stage"] for row in fitted.stages] == names  # an epoch each
    assert told == [f"{name} 1" for name in names]
    assert fitted.stages[-1] == {"stage": "toy", **fitted.history[0]}
    # the checkpoints of the encoders' fits have the weights that were then frozen
    image_weights = torch.load(next(tmp_path.glob("image-destruction-*.pt")), weights_only=True)["best"]
    final = fitted.network.state_dict()
    for name, value in image_weights.items():
        if name.startswith("image."):
            assert torch.equal(final[name], value)
    for name in ("text", "second_text"):
        best = torch.load(next(tmp_path.glob(f"{name}-*.pt")), weights_only=True)["best"]
        weights = {key.removeprefix("texts.text."): value for key, value in best.items() if key.startswith("texts.")}
        assert weights
        assert all(torch.equal(final[f"texts.{name}.{key}"], value) for key, value in weights.items())


VIT = ImageSpec(name="vit_tiny_patch16_224", args={"img_size": 64, "depth": 1, "embed_dim": 24}, size=64)
ONCE = FitSpec(epochs=1)


def changed(part: str, **changes: Any) -> Recipe:
    """Return a recipe with a changed part of its model."""
    original = recipe(epochs=1)
    return replace(original, model=replace(original.model, **{part: replace(getattr(original.model, part), **changes)}))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            replace(changed("image"), model=replace(recipe().model, image=VIT), image=replace(ONCE, picture_size=32)),
            "picture_size is 32, but vit_tiny_patch16_224 reads pictures of 64 pixels",
        ),
        (changed("fusion", options={"hiden": 3}), "hiden"),
        (
            replace(
                changed("fusion", kind="text_only"),
                model=replace(changed("fusion", kind="text_only").model, image=ImageSpec(name="nope", size=32)),
                adapt=AdaptSpec(method="convirt", fit=ONCE),
            ),
            "no image encoder 'nope'",
        ),
        (replace(recipe(), noise=NoiseSpec(fit=ONCE, encoder="nope")), "no image encoder 'nope'"),
        (changed("text", frozen=True), r"model\.text: frozen with random weights"),
        (changed("image", frozen=True), r"model\.image: frozen with random weights"),
        (replace(changed("image", frozen=True), adapt=AdaptSpec(method="simcse", fit=ONCE)), r"model\.image: frozen"),
        (replace(changed("image", frozen_stages=3), image=ONCE), "frozen_stages: the first stages have random weights"),
        (changed("image", frozen=True, weights="some.pth", palette=4), r"model\.image: frozen with random weights"),
    ],
    ids=[
        *("picture size", "option", "adapted encoder", "noise encoder", "frozen text", "frozen image", "simcse"),
        *("frozen stages", "frozen palette"),
    ],
)
def test_a_recipe_that_cannot_be_built_is_refused(bad: Recipe, message: str, task: Task) -> None:
    with pytest.raises(ConfigError, match=f"toy: .*{message}"):
        check_buildable(bad, task)


@pytest.mark.parametrize(
    "good",
    [
        replace(changed("text", frozen=True), text=ONCE),
        replace(changed("text", frozen=True), adapt=AdaptSpec(method="simcse", fit=ONCE)),
        replace(changed("image", frozen=True), adapt=AdaptSpec(method="convirt", fit=ONCE)),
        replace(changed("image", frozen=True), destruction=DestructionSpec(fit=ONCE)),
        replace(changed("image", frozen=True), model=replace(recipe("text_only").model, image=ImageSpec(frozen=True))),
    ],
    ids=["text", "simcse", "convirt", "destruction", "not used"],
)
def test_an_encoder_that_is_fitted_before_or_not_used_may_be_frozen(good: Recipe, task: Task) -> None:
    check_buildable(good, task)


@pytest.mark.parametrize("method", ["simcse", "convirt"])
def test_a_text_model_adapted_with_pictures_has_no_image_encoder(method: str, task: Task) -> None:
    stage = FitSpec(epochs=1, batch_size=16, text_learning_rate=1e-3, image_learning_rate=1e-3)
    adapted = replace(recipe(fusion="text_only", epochs=1), adapt=AdaptSpec(method=method, fit=stage, projection=16))  # type: ignore[arg-type]
    lines: list[str] = []
    fitted = fit(adapted, task, lines.append)
    assert [line.partition(":")[0] for line in lines] == [method, method, "toy"]
    assert [row["stage"] for row in fitted.stages] == [method, "toy"]
    assert fitted.network.image is None
    plain = fit(recipe(fusion="text_only", epochs=1), task, silent)
    first, second = fitted.network.state_dict(), plain.network.state_dict()
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_self_supervision_does_not_use_the_held_out_folds(task: Task) -> None:
    held_out = np.concatenate([index for name, index in task.folds.items() if name != "train"])
    groups = task.groups.copy()
    twin = task.folds.train[0]
    groups[twin] = groups[task.folds.test[0]]  # the same content group as a test product
    used = replace(task, groups=groups).self_supervised
    assert not np.isin(groups[used], groups[held_out]).any()
    assert sorted([*used, twin, *held_out]) == list(range(len(task.examples.dataset)))


def test_self_supervision_does_not_read_the_products_of_a_gold_sample(task: Task) -> None:
    """People's answers about them certify nothing else: half of them would be lost."""
    unlabelled = replace(task, folds=replace(task.folds, train=task.folds.train[:20]))
    read = np.setdiff1d(unlabelled.self_supervised, unlabelled.folds.train)
    assert len(read) > 5
    dataset = task.examples.dataset
    gold = [{"color": ()} if number in read[:3] else {} for number in range(len(dataset))]
    asked = replace(unlabelled, examples=replace(task.examples, dataset=replace(dataset, gold=gold)))
    left = np.setdiff1d(unlabelled.self_supervised, asked.self_supervised)
    assert left.tolist() == np.intersect1d(read, np.flatnonzero(np.isin(task.groups, task.groups[read[:3]]))).tolist()
    assert set(unlabelled.folds.train.tolist()) <= set(asked.self_supervised.tolist())


def test_flagged_pictures_are_not_trained_on(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = FitSpec(epochs=1, batch_size=16, image_learning_rate=3e-3)
    noisy = replace(recipe(epochs=1, image_dropout=0.0), noise=NoiseSpec(fit=stage), image=stage)
    flagged = task.train[::3]
    is_flagged = np.isin(np.arange(len(task.examples.dataset)), flagged)
    monkeypatch.setattr("catalog_enrichment.training.fit.flagged_pictures", lambda *_: is_flagged)
    trained_on: dict[bool, set[int]] = {True: set(), False: set()}  # key: after the image encoder's fit
    finished: list[str] = []
    original = Examples.batch

    def recorded_batch(self: Examples, index: Any, masked_images: Any = None, augment: Any = None) -> Any:
        if augment is not None:  # a training batch
            visible = self.has_image[index] & (True if masked_images is None else ~masked_images)
            trained_on["image" in finished] |= set(index[visible].tolist())
        return original(self, index, masked_images, augment)

    monkeypatch.setattr(Examples, "batch", recorded_batch)
    augmenting = replace(noisy, image=replace(stage, augment=True))
    fitted = fit(augmenting, task, lambda line: finished.append("image") if line.startswith("image") else None)
    assert fitted.chosen["noisy_pictures"] == len(flagged)
    for rows in trained_on.values():
        assert rows
        assert not rows & set(flagged.tolist())


def test_outputs_come_in_the_order_of_the_index(task: Task) -> None:
    network = fit(recipe(epochs=1), task, silent).network
    index = np.array([7, 3, 11])
    together = task.examples.outputs(network, index).logits["color"]
    for position, product in enumerate(index):
        single = task.examples.outputs(network, np.array([product])).logits["color"][0]
        torch.testing.assert_close(together[position], single, atol=1e-4, rtol=1e-4)


def test_batches_are_no_wider_than_their_longest_text(task: Task) -> None:
    index = np.argsort(task.examples.lengths)[:5]
    (tokens,) = task.examples.batch(index).texts["text"]
    assert tokens.input_ids.shape[1] == task.examples.lengths[index].max()
    assert tokens.attention_mask.sum(dim=1).tolist() == task.examples.lengths[index].tolist()


def test_masked_pictures_are_zero(task: Task) -> None:
    inputs = task.examples.batch(np.arange(4), masked_images=np.array([True, False, True, False]))
    assert inputs.has_image.tolist() == [False, True, False, True]
    assert inputs.pixels[0].abs().sum() == 0


def test_smaller_pictures_for_one_fit(task: Task) -> None:
    full, small = task.examples.batch(np.arange(3)), task.examples.with_picture_size(16).batch(np.arange(3))
    assert small.pixels.shape == (3, 3, 16, 16)
    torch.testing.assert_close(small.pixels[0, 0, 0, 0], full.pixels[0, 0, :2, :2].mean())


def test_augmentation_mirrors_and_shifts_but_keeps_colours() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (64, 32, 32, 3)).astype(np.uint8)
    result = augmented(pictures, rng)
    assert result.shape == pictures.shape
    assert not np.array_equal(result, pictures)
    for before, after in zip(pictures, result, strict=True):
        colours = {tuple(pixel) for pixel in before.reshape(-1, 3)}
        assert {tuple(pixel) for pixel in after.reshape(-1, 3)} <= colours


def _task_for(whole: Recipe, task: Task) -> Task:
    """Return the same products as the inputs of another model."""
    dataset = task.examples.dataset
    tokenizers = {name: build_tokenizer(text, dataset.titles) for name, text in whole.model.texts.items()}
    return replace(task, examples=Examples.of(dataset, whole.model, tokenizers), tokenizers=tokenizers)


@pytest.mark.parametrize("fields", ["pair", "apart"])
def test_outputs_of_a_frozen_text_encoder_are_computed_once(
    task: Task, fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = replace(recipe().model.text, frozen=True, fields=fields)  # type: ignore[arg-type]
    frozen = replace(recipe(epochs=2), model=replace(recipe().model, text=text), text=FitSpec(epochs=1))
    check_computed_once(frozen, task, monkeypatch, TextEncoder, texts={"pair": 1, "apart": 2}[fields])


@pytest.mark.parametrize("augment", [False, True])
def test_outputs_of_a_frozen_image_encoder_are_computed_once_unless_pictures_are_varied(
    task: Task, augment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = replace(recipe().model.image, frozen=True, palette=8)
    spec = replace(recipe(epochs=2).fit, augment=augment, image_dropout=0.2)
    frozen = replace(recipe(), model=replace(recipe().model, image=image), image=FitSpec(epochs=1), fit=spec)
    check_computed_once(frozen, task, monkeypatch, ImageEncoder, varied=augment)


def check_computed_once(
    frozen: Recipe,
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[TextEncoder | ImageEncoder],
    texts: int = 1,
    varied: bool = False,
) -> None:
    """The losses are those of a fit that computes the outputs in every epoch."""
    task = replace(task, examples=Examples.of(task.examples.dataset, frozen.model, task.tokenizers))
    read: list[int] = []
    forward = kind.forward

    def counted(self: Any, inputs: Any) -> Any:
        count = len(inputs.present) if isinstance(inputs, Tokens) else len(inputs)
        frozen = not any(weight.requires_grad for weight in self.parameters())
        if count > 1 and frozen:  # 1: a new encoder's blank picture
            read.append(count)
        return forward(self, inputs)

    monkeypatch.setattr(kind, "forward", counted)
    kept = fit(frozen, task, silent)
    train, choosing = len(task.train), len(task.folds.choosing)
    if varied:
        assert sum(read) > 1.2 * train + 3 * choosing
        return
    assert sum(read) == texts * (train + 3 * choosing), "the choices after the fit read the choosing fold twice"
    monkeypatch.setattr(Examples, "with_frozen_outputs", lambda self, *_: self)
    again = fit(frozen, task, silent)
    for name in ("train_loss", "validation_loss"):
        losses, expected = ([row[name] for row in fitted.history] for fitted in (kept, again))
        assert losses == pytest.approx(expected, rel=1e-4)


def test_a_masked_picture_is_masked_also_where_its_vector_is_known(task: Task) -> None:
    fitted = fit(recipe(epochs=1), task, silent).network
    assert fitted.image is not None
    fitted.image.requires_grad_(False)
    rows = np.flatnonzero(task.examples.has_image)[:10]
    with_vectors = task.examples.with_frozen_outputs(fitted, rows, pictures=True)
    masked = np.arange(10) % 2 == 0
    known = with_vectors.batch(rows, masked)
    assert known.image is not None
    assert known.has_image.tolist() == (~masked).tolist()
    found, expected = fitted(known).logits["color"], fitted(task.examples.batch(rows, masked)).logits["color"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(found, fitted(task.examples.batch(rows)).logits["color"], atol=1e-3)
    assert task.examples.with_frozen_outputs(fitted, rows, pictures=False) is task.examples


def test_frozen_stages_stay_as_pretrained_through_the_encoders_own_fit_and_the_whole_models(
    task: Task, tmp_path: Path
) -> None:
    image = recipe().model.image
    pretrained = build_image_encoder(image).model.state_dict()
    torch.save(pretrained, tmp_path / "weights.pth")
    stages = replace(image, weights=str(tmp_path / "weights.pth"), frozen_stages=3)
    whole = replace(recipe(epochs=1), model=replace(recipe().model, image=stages), image=ONCE)
    encoder = fit(whole, task, silent).network.image
    assert encoder is not None
    same = {name for name, value in encoder.model.state_dict().items() if torch.equal(value, pretrained[name])}
    assert same >= {name for name in pretrained if name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1."))}
    assert same >= {name for name in pretrained if "running" in name}
    assert not same & {name for name, _ in encoder.model.named_parameters() if name.startswith("blocks.4.")}


def test_texts_of_products_that_were_not_encoded_are_read(task: Task) -> None:
    fitted = fit(recipe(epochs=1), task, silent).network
    fitted.texts.requires_grad_(False)
    rows = np.arange(20)
    with_vectors = task.examples.with_frozen_outputs(fitted, rows[:10], pictures=True)
    for index in (rows[:10], rows[5:15], rows[10:]):
        both = (task.examples, with_vectors)
        expected, found = (examples.outputs(fitted, index).logits["color"] for examples in both)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert isinstance(with_vectors.batch(rows[:10]).texts["text"][0], EncoderOutput)
    assert isinstance(with_vectors.batch(rows[5:15]).texts["text"][0], Tokens)
