"""SimCSE and ConVIRT against the printed equations, and their effect on a toy catalog."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog_enrichment.models.network import MultiModalNet, build_network
from catalog_enrichment.models.spec import AdaptSpec, BertSize, FitSpec, FusionSpec, TextSpec
from catalog_enrichment.training import loop
from catalog_enrichment.training.fit import set_threads
from catalog_enrichment.training.loop import FitInputs
from catalog_enrichment.training.self_supervision import ConVIRT, SimCSE, contrast, info_nce
from catalog_enrichment.training.single_encoder import heads_of
from catalog_enrichment.training.task import Task

from .toy import easy, recipe, silent

COUNT = 160


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


def model(kind: str, dropout: float = 0.0):
    spec = recipe().model
    bert = BertSize(hidden=32, layers=1, heads=2, intermediate=64, vocab_size=200, dropout=dropout)
    text = TextSpec(bert=bert, pooling="mean", max_length=16, fields="title")
    return replace(spec, text=text, fusion=FusionSpec(kind=kind))


@pytest.fixture(scope="module")
def task(toy_task) -> Task:
    rows = [easy(number) for number in range(COUNT)]
    for row in rows[5::10]:
        row["images"] = []
    return toy_task(rows, model("concat"))


def network(task: Task, kind: str, dropout: float = 0.0) -> MultiModalNet:
    torch.manual_seed(0)
    return build_network(model(kind, dropout), heads_of(task.labels), task.tokenizers)


def adapt(method: str, **changes) -> AdaptSpec:
    fit = FitSpec(epochs=20, batch_size=32, text_learning_rate=3e-3, image_learning_rate=3e-3, learning_rate=3e-3)
    return AdaptSpec(**{"method": method, "fit": fit, "projection": 16, **changes})


def cosine(a, b) -> float:
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def printed_loss(anchors, positives, others, tau: float) -> float:
    """Eq. 3 and 4 (and 6) as printed, in numpy loops."""
    total = 0.0
    for i in range(len(anchors)):
        numerator = np.exp(cosine(anchors[i], positives[i]) / tau)
        denominator = sum(np.exp(cosine(anchors[i], others[j]) / tau) for j in range(len(others)) if j != i)
        total += -np.log(numerator / denominator)
    return total / len(anchors)


def rows_with_pictures(task: Task) -> np.ndarray:
    return np.flatnonzero(task.examples.has_image)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_contrast_is_the_printed_equation(tau):
    a, p, o = np.random.default_rng(0).normal(size=(3, 5, 4))
    loss = info_nce(*(torch.from_numpy(x).float() for x in (a, p, o)), tau)
    assert float(loss) == pytest.approx(printed_loss(a, p, o, tau), rel=1e-4)


def test_simcse_is_equation_4_over_two_dropouts_of_one_title(task):
    net, spec = network(task, "text_only", dropout=0.2).train(), adapt("simcse")
    objective = contrast(spec, net)
    assert isinstance(objective, SimCSE)
    index = np.arange(8)
    inputs = task.examples.batch(index)
    torch.manual_seed(3)
    loss = float(objective(net, inputs, torch.from_numpy(index)).detach())
    torch.manual_seed(3)
    with torch.no_grad():
        first, second = (objective.project_text(net.encode(inputs).texts[0].vector).numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    assert loss == pytest.approx(printed_loss(first, second, first, spec.temperature), rel=1e-3)


def test_the_held_out_loss_of_simcse_is_without_dropout(task):
    net, spec = network(task, "text_only", dropout=0.2), adapt("simcse")
    objective = contrast(spec, net)
    index = np.arange(20)
    loss = objective.held_out(net, task.examples, index).loss
    with torch.no_grad():
        vectors = objective.project_text(net.encode(task.examples.batch(index)).texts[0].vector).numpy()
    assert loss == pytest.approx(printed_loss(vectors, vectors, vectors, spec.temperature), rel=1e-3)
    assert loss > -1 / spec.temperature  # more dissimilar titles would have a lower loss


def test_convirt_is_equations_6_to_8_over_the_products_with_a_picture(task):
    net, spec = network(task, "concat").eval(), adapt("convirt", text_to_image=0.7)
    objective = contrast(spec, net)
    assert isinstance(objective, ConVIRT)
    index = np.arange(12)
    inputs = task.examples.batch(index)
    usable = inputs.has_image.numpy()
    assert 0 < (~usable).sum() < 12
    with torch.no_grad():
        views = net.encode(inputs)
        text = objective.project_text(views.texts[0].vector).numpy()[usable]
        image = objective.project_image(views.image.vector).numpy()[usable]
        loss = float(objective(net, inputs, torch.from_numpy(index)))
    expected = 0.7 * printed_loss(text, image, image, 0.1) + 0.3 * printed_loss(image, text, text, 0.1)
    assert loss == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("with_picture", [0, 1])
def test_a_batch_with_fewer_than_two_pictures_has_zero_gradient(task, with_picture):
    net = network(task, "concat").train()
    objective = contrast(adapt("convirt"), net)
    index = np.arange(4)
    inputs = task.examples.batch(index, masked_images=index >= with_picture)
    loss = objective(net, inputs, torch.from_numpy(index))
    loss.backward()
    assert float(loss.detach()) == 0
    gradients = [weight.grad for weight in [*net.parameters(), *objective.parameters()] if weight.grad is not None]
    assert gradients
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


def test_one_title_has_zero_loss(task):
    net = network(task, "text_only", dropout=0.2).train()
    loss = contrast(adapt("simcse"), net)(net, task.examples.batch(np.array([0])), torch.tensor([0]))
    loss.backward()
    assert float(loss.detach()) == 0


def test_products_without_the_text_are_left_out(toy_task):
    rows = [easy(number) for number in range(120)]
    for row in rows[::2]:
        row["description"] = ""
    spec = replace(model("text_only", 0.2), text=replace(model("text_only", 0.2).text, fields="description"))
    task = toy_task(rows, spec)
    net = build_network(spec, heads_of(task.labels), task.tokenizers)
    objective = contrast(adapt("simcse"), net)
    present = task.examples.batch(np.arange(20)).texts["text"][0].present.numpy()
    assert present.tolist() == [False, True] * 10
    all_products = objective.held_out(net, task.examples, np.arange(20)).loss
    assert all_products == pytest.approx(objective.held_out(net, task.examples, np.arange(20)[present]).loss, rel=1e-4)


def test_convirt_needs_an_image_encoder(task):
    with pytest.raises(ValueError, match="no image encoder"):
        contrast(adapt("convirt"), network(task, "text_only"))


def matching_share(net: MultiModalNet, objective: ConVIRT, task: Task, index: np.ndarray) -> float:
    """Share of titles whose nearest picture shows their colour."""
    net.eval()
    with torch.no_grad():
        inputs = task.examples.batch(index)
        views = net.encode(inputs)
        text = torch.nn.functional.normalize(objective.project_text(views.texts[0].vector), dim=1)
        image = torch.nn.functional.normalize(objective.project_image(views.image.vector), dim=1)
    colours = task.labels["color"].classes[index]
    nearest = (text @ image.T).argmax(dim=1).numpy()
    return float((colours[nearest] == colours).mean())


def test_convirt_brings_titles_near_pictures_of_their_colour(task):
    net, spec = network(task, "concat"), adapt("convirt")
    objective = contrast(spec, net)
    rows = rows_with_pictures(task)
    train, held_out = rows[rows < 110], rows[rows >= 110]
    before = matching_share(net, objective, task, held_out)
    inputs = FitInputs(name="adapt", examples=task.examples, train=train, held_out=held_out)
    history = loop.run(net, objective, spec.fit, inputs, silent)
    assert min(row["validation_loss"] for row in history[1:]) < history[0]["validation_loss"]
    assert matching_share(net, objective, task, held_out) > max(0.8, before + 0.2)  # chance: 0.25


def test_simcse_moves_titles_apart_and_keeps_two_encodings_of_a_title_near(task):
    net, spec = network(task, "text_only", dropout=0.1), adapt("simcse")
    objective = contrast(spec, net)
    index = np.arange(110, COUNT)
    before = objective.held_out(net, task.examples, index).loss
    inputs = FitInputs(name="adapt", examples=task.examples, train=np.arange(110), held_out=index)
    loop.run(net, objective, spec.fit, inputs, silent)
    assert objective.held_out(net, task.examples, index).loss < before - 1
    inputs = task.examples.batch(index)
    net.train()
    with torch.no_grad():
        first, second = (objective.project_text(net.encode(inputs).texts[0].vector) for _ in range(2))
    similar = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=2)
    assert (similar.argmax(dim=1) == torch.arange(len(index))).float().mean() > 0.8


def test_the_identity_depends_on_the_method_and_the_temperature(task):
    net = network(task, "concat")
    identities = {contrast(adapt(*setting), net).identity() for setting in (("simcse",), ("convirt",))}
    identities.add(contrast(adapt("simcse", temperature=0.2), net).identity())
    assert len(identities) == 3
