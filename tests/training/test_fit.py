from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog_enrichment.config import FoldsConfig, ImagesConfig
from catalog_enrichment.models.encoders import build_tokenizer
from catalog_enrichment.models.network import ModelOutputs
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.dataset import LoadOptions, load_dataset
from catalog_enrichment.training.examples import Examples, vary
from catalog_enrichment.training.fit import (
    Target,
    Task,
    attribute_loss,
    fit,
    learning_rate_factor,
    set_threads,
    total_loss,
)
from catalog_enrichment.training.folds import content_groups, split

from .toy import DICTIONARY, batches, easy, recipe, silent


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    spec = recipe().model
    options = LoadOptions(
        attributes=["color", "material"],
        image_size=32,
        max_chars=80,
        images=ImagesConfig(),
        workdir=tmp_path_factory.mktemp("fit"),
        max_unlabelled=0,
    )
    rows = [easy(n) for n in range(240)]
    for row in rows[::4]:
        row["merchant_attributes"] = row["merchant_attributes"][1:]  # every fourth product has no colour
    dataset = load_dataset(batches(rows), DICTIONARY, options)
    groups = content_groups(dataset.titles, dataset.pictures, [])
    tokenizer = build_tokenizer(spec.text, dataset.titles)
    labels = {name: dataset.labels(name) for name in ("color", "material")}
    folds = split(np.arange(len(dataset)), groups, dataset.ids, FoldsConfig())
    return Task(Examples.of(dataset, spec, tokenizer), tokenizer, labels, folds)


def accuracy(network, task: Task, name: str) -> float:
    index = task.folds.certification[task.labels[name].learnable[task.folds.certification]]
    logits = task.examples.outputs(network, index).logits[name]
    return float((logits.argmax(dim=1).numpy() == task.labels[name].classes[index]).mean())


def test_learning_beats_chance_on_products_it_never_saw(task):
    lines: list[str] = []
    fitted = fit(recipe(epochs=6), task, lines.append)
    assert accuracy(fitted.network, task, "color") > 0.6  # chance: 0.33, three colours are left
    assert len(fitted.history) == len(lines) == 6
    assert all(row["products_per_second"] > 0 for row in fitted.history)


def test_same_seed_gives_the_same_weights_and_another_seed_others(task):
    weights = [fit(recipe(epochs=1, seed=seed), task, silent).network.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_kl_term_keeps_the_attention_near_a_half(task):
    index = task.folds.train
    spread = []
    for weight in (0.0, 20.0):
        fitted = fit(recipe(epochs=2, kl_lambda=weight, image_dropout=0.0), task, silent)
        attention = task.examples.outputs(fitted.network, index).attention
        assert attention is not None
        spread.append(float((attention["color"] - 0.5).abs().mean()))
    assert spread[1] < spread[0] / 2


def test_best_epoch_is_kept_and_patience_stops(task):
    lines: list[str] = []
    hopeless = recipe(epochs=8, patience=1, schedule="constant", learning_rate=3.0, text_learning_rate=1.0)
    fitted = fit(hopeless, task, lines.append)
    assert len(fitted.history) < 8
    assert "stopped" in lines[-1]
    outputs = task.examples.outputs(fitted.network, task.folds.validation)
    targets = {
        name: Target(label.cardinality, torch.from_numpy(label.truth).float(), torch.from_numpy(label.learnable))
        for name, label in task.labels.items()
    }
    kept = float(total_loss(outputs, targets, torch.from_numpy(task.folds.validation)))
    assert kept == pytest.approx(min(row["validation_loss"] for row in fitted.history), rel=1e-4)


def target(cardinality: Cardinality) -> Target:
    truth = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    return Target(cardinality, truth, truth.any(dim=1))


@pytest.mark.parametrize("cardinality", list(Cardinality))
def test_loss_ignores_products_without_a_label(cardinality):
    logits = torch.randn(4, 3, requires_grad=True)
    attribute_loss(logits, target(cardinality), torch.arange(4)).backward()
    assert logits.grad is not None
    assert logits.grad[3].abs().sum() == 0
    assert (logits.grad[:3].abs().sum(dim=1) > 0).all()


def test_loss_without_any_label_is_zero_and_moves_nothing():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = attribute_loss(logits, target(Cardinality.ONE), torch.tensor([3, 3]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_losses_match_their_formulas():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    index = torch.tensor([0])
    softmax = np.exp([2.0, 0, -1]) / np.exp([2.0, 0, -1]).sum()
    sigmoid = 1 / (1 + np.exp([-2.0, 0, 1]))
    one = attribute_loss(logits, target(Cardinality.ONE), index)
    many = attribute_loss(logits, target(Cardinality.MANY), index)
    assert float(one) == pytest.approx(-np.log(softmax[0]), rel=1e-5)
    assert float(many) == pytest.approx(-np.log([sigmoid[0], 1 - sigmoid[1], 1 - sigmoid[2]]).sum(), rel=1e-5)


def test_total_loss_is_equation_4_as_a_mean():
    p = torch.tensor([0.9, 0.2])
    outputs = ModelOutputs({"color": torch.zeros(2, 3)}, {"color": p})
    kl = (p * p.log() + (1 - p) * (1 - p).log() + np.log(2)).mean()
    plain = total_loss(outputs, {"color": target(Cardinality.ONE)}, torch.tensor([0, 1]))
    assert float(plain) == pytest.approx(np.log(3), rel=1e-5)
    regularised = total_loss(outputs, {"color": target(Cardinality.ONE)}, torch.tensor([0, 1]), kl_lambda=0.5)
    assert float(regularised - plain) == pytest.approx(0.5 * float(kl), rel=1e-4)


def test_schedule_warms_up_then_falls_along_a_cosine():
    spec = replace(recipe().fit, warmup_share=0.1)
    factors = [learning_rate_factor(step, 100, spec) for step in range(101)]
    assert factors[:11] == pytest.approx([*np.arange(1, 11) / 10, 1.0])
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
    assert learning_rate_factor(3, 100, replace(spec, schedule="constant")) == 1


def test_batches_are_no_wider_than_their_longest_text(task):
    index = np.argsort(task.examples.lengths)[:5]
    inputs = task.examples.batch(index)
    assert inputs.input_ids.shape[1] == task.examples.lengths[index].max()
    assert inputs.attention_mask.sum(dim=1).tolist() == task.examples.lengths[index].tolist()


def test_hidden_pictures_are_not_seen(task):
    inputs = task.examples.batch(np.arange(4), hidden=np.array([True, False, True, False]))
    assert inputs.has_image.tolist() == [False, True, False, True]
    assert inputs.pixels[0].abs().sum() == 0


def test_outputs_come_in_the_order_of_the_index(task):
    network = fit(recipe(epochs=1), task, silent).network
    index = np.array([7, 3, 11])
    together = task.examples.outputs(network, index).logits["color"]
    for position, product in enumerate(index):
        alone = task.examples.outputs(network, np.array([product])).logits["color"][0]
        torch.testing.assert_close(together[position], alone, atol=1e-4, rtol=1e-4)


def test_augmentation_mirrors_and_shifts_but_keeps_colours():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (64, 32, 32, 3)).astype(np.uint8)
    varied = vary(pictures, rng)
    assert varied.shape == pictures.shape
    assert not np.array_equal(varied, pictures)
    for before, after in zip(pictures, varied, strict=True):
        colours = {tuple(pixel) for pixel in before.reshape(-1, 3)}
        assert {tuple(pixel) for pixel in after.reshape(-1, 3)} <= colours
