"""Self-supervision, destruction and construction learning against the printed equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog_enrichment.models.network import MultiModalNet, build_network
from catalog_enrichment.models.spec import (
    AdaptSpec,
    BertSize,
    DestructionSpec,
    FitSpec,
    FusionSpec,
    ImageSpec,
    ModelSpec,
    TextSpec,
)
from catalog_enrichment.training import loop
from catalog_enrichment.training.encoder_objectives import (
    ConVIRT,
    Destruction,
    SimCSE,
    contrast,
    coordinates,
    info_nce,
    rearranged,
    shuffled,
    unshuffled,
)
from catalog_enrichment.training.examples import single_encoder_spec
from catalog_enrichment.training.loop import FitInputs
from catalog_enrichment.training.objectives import Classification, targets_of
from catalog_enrichment.training.task import Task

from .toy import easy, recipe, silent

COUNT = 160
FIT = FitSpec(epochs=4, batch_size=32, image_learning_rate=3e-3, learning_rate=5e-3)
VIT = ImageSpec(name="test_vit", size=32, args={"img_size": 32, "patch_size": 8})
SPEC = DestructionSpec(fit=FIT, patches=4, reach=2, adversarial=0.5, construction=0.25)


def model(kind: str, dropout: float = 0.0) -> ModelSpec:
    bert = BertSize(hidden=32, layers=1, heads=2, intermediate=64, vocab_size=200, dropout=dropout)
    text = TextSpec(bert=bert, pooling="mean", max_length=16, fields="title")
    return replace(recipe().model, text=text, fusion=FusionSpec(kind=kind))


@pytest.fixture(scope="module")
def task(toy_task) -> Task:
    """A tenth of the products has no picture."""
    rows = [easy(number) for number in range(COUNT)]
    for row in rows[5::10]:
        row["images"] = []
    return toy_task(rows, model("concat"))


def network(task: Task, spec: ModelSpec) -> MultiModalNet:
    torch.manual_seed(0)
    return build_network(spec, task.heads, task.tokenizers)


# --- self-supervision --------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_contrast_is_the_printed_equation(tau):
    a, p, o = np.random.default_rng(0).normal(size=(3, 5, 4))
    loss = info_nce(*(torch.from_numpy(x).float() for x in (a, p, o)), tau)
    assert float(loss) == pytest.approx(printed_loss(a, p, o, tau), rel=1e-4)


def test_simcse_is_equation_4_over_two_dropouts_of_one_title(task):
    net, spec = network(task, model("text_only", dropout=0.2)).train(), adapt("simcse")
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
    net, spec = network(task, model("text_only", dropout=0.2)), adapt("simcse")
    objective = contrast(spec, net)
    index = np.arange(20)
    loss = objective.held_out(net, task.examples, index).loss
    with torch.no_grad():
        vectors = objective.project_text(net.encode(task.examples.batch(index)).texts[0].vector).numpy()
    assert loss == pytest.approx(printed_loss(vectors, vectors, vectors, spec.temperature), rel=1e-3)
    assert loss > -1 / spec.temperature  # more dissimilar titles would have a lower loss


def test_convirt_is_equations_6_to_8_over_the_products_with_a_picture(task):
    net, spec = network(task, model("concat")).eval(), adapt("convirt", text_to_image=0.7)
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


@pytest.mark.parametrize(("method", "titles", "pictures"), [("convirt", 4, 0), ("convirt", 4, 1), ("simcse", 1, 1)])
def test_a_batch_without_negatives_has_zero_gradient(task, method, titles, pictures):
    net = network(task, model("concat" if method == "convirt" else "text_only", dropout=0.2)).train()
    objective, index = contrast(adapt(method), net), np.arange(titles)
    inputs = task.examples.batch(index, masked_images=index >= pictures)
    loss = objective(net, inputs, torch.from_numpy(index))
    loss.backward()
    assert float(loss.detach()) == 0
    gradients = [weight.grad for weight in [*net.parameters(), *objective.parameters()] if weight.grad is not None]
    assert gradients
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


def test_products_without_the_text_are_left_out(toy_task):
    rows = [easy(number) for number in range(120)]
    for row in rows[::2]:
        row["description"] = ""
    spec = replace(model("text_only", 0.2), text=replace(model("text_only", 0.2).text, fields="description"))
    task = toy_task(rows, spec)
    net = build_network(spec, task.heads, task.tokenizers)
    objective = contrast(adapt("simcse"), net)
    present = task.examples.batch(np.arange(20)).texts["text"][0].present.numpy()
    assert present.tolist() == [False, True] * 10
    all_products = objective.held_out(net, task.examples, np.arange(20)).loss
    assert all_products == pytest.approx(objective.held_out(net, task.examples, np.arange(20)[present]).loss, rel=1e-4)


def matching_share(net: MultiModalNet, objective: ConVIRT, task: Task, index: np.ndarray) -> float:
    """Share of titles whose nearest picture shows their colour."""
    net.eval()
    with torch.no_grad():
        inputs = task.examples.batch(index)
        views = net.encode(inputs)
        text = torch.nn.functional.normalize(objective.project_text(views.texts[0].vector), dim=1)
        image = torch.nn.functional.normalize(objective.project_image(views.image.vector), dim=1)
    colours = task.labels["color"].truth[index].argmax(axis=1)
    nearest = (text @ image.T).argmax(dim=1).numpy()
    return float((colours[nearest] == colours).mean())


def test_convirt_brings_titles_near_pictures_of_their_colour(task):
    net, spec = network(task, model("concat")), adapt("convirt")
    objective = contrast(spec, net)
    rows = np.flatnonzero(task.examples.has_image)
    train, held_out = rows[rows < 110], rows[rows >= 110]
    before = matching_share(net, objective, task, held_out)
    inputs = FitInputs(name="adapt", examples=task.examples, train=train, held_out=held_out)
    history = loop.run(net, objective, spec.fit, inputs, silent)
    assert min(row["validation_loss"] for row in history[1:]) < history[0]["validation_loss"]
    assert matching_share(net, objective, task, held_out) > max(0.8, before + 0.2)  # chance: 0.25


# --- destruction -------------------------------------------------------------------------------------------------


def image_network(task: Task, image: ImageSpec | None = None) -> MultiModalNet:
    spec = recipe().model
    return network(task, single_encoder_spec(replace(spec, image=image or spec.image), "image"))


def objective_of(task: Task, net: MultiModalNet, spec: DestructionSpec = SPEC) -> Destruction:
    torch.manual_seed(1)
    return Destruction(net, spec, targets_of(task.labels))


@pytest.mark.parametrize(("patches", "reach"), [(7, 2), (4, 1), (5, 4), (2, 1)])
def test_a_shuffle_is_a_permutation_that_moves_patches_by_less_than_twice_the_reach(patches, reach):
    torch.manual_seed(0)
    origins = shuffled(300, patches, reach).numpy()
    assert origins.shape == (300, patches, patches)
    assert (np.sort(origins.reshape(300, -1), axis=1) == np.arange(patches**2)).all()
    row, column = np.mgrid[:patches, :patches]
    down, right = np.abs(origins // patches - row), np.abs(origins % patches - column)
    assert max(down.max(), right.max()) < 2 * reach
    assert min(down.max(), right.max()) >= min(reach, patches - 1)
    assert (origins != np.arange(patches**2).reshape(patches, patches)).mean() > 0.2
    assert not np.array_equal(origins[0], origins[1])


def test_rows_and_columns_are_shuffled_alike():
    """Rows are shuffled first, but patches move equally far in both directions."""
    torch.manual_seed(0)
    origins = shuffled(2000, 7, 2)
    mean_moves = [(positions - torch.arange(7).view(shape)).abs().float().mean() for positions, shape in (
        (origins // 7, (1, 7, 1)), (origins % 7, (1, 1, 7)),
    )]  # fmt: skip
    assert float(mean_moves[0]) == pytest.approx(float(mean_moves[1]), rel=0.03)


@pytest.mark.parametrize("size", [32, 35])
def test_each_position_has_the_patch_of_its_origin(size):
    pixels = torch.rand(3, 3, size, size).contiguous(memory_format=torch.channels_last)
    origins = shuffled(3, 4, 2)
    before, after = pixels.numpy().copy(), rearranged(pixels, origins).numpy()
    margin, side = (size - size // 4 * 4) // 2, size // 4
    for picture in range(3):
        for row in range(4):
            for column in range(4):
                from_row, from_column = divmod(int(origins[picture, row, column]), 4)
                down, right, from_down, from_right = (
                    slice(margin + at * side, margin + (at + 1) * side) for at in (row, column, from_row, from_column)
                )
                assert np.array_equal(after[picture, :, down, right], before[picture, :, from_down, from_right])
    assert np.array_equal(pixels.numpy(), before)  # the input is unchanged
    edge = np.ones((size, size), dtype=bool)
    edge[margin : margin + 4 * side, margin : margin + 4 * side] = False
    assert np.array_equal(after[:, :, edge], before[:, :, edge])


def test_the_identity_is_at_its_original_coordinates_from_minus_one_to_one():
    identity = coordinates(unshuffled(1, 5))[0]
    assert [identity[:, n, n].tolist() for n in (0, 4)] == [[-1, -1], [1, 1]]
    assert identity[:, 1, 3].tolist() == [-0.5, 0.5]
    pixels = torch.rand(2, 3, 30, 30)
    assert torch.equal(rearranged(pixels, unshuffled(2, 7)), pixels)


def entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean softmax cross-entropy, in numpy."""
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(scores)), truth]))


def test_the_loss_is_the_weighted_sum_of_its_three_parts(task):
    net = image_network(task, VIT).eval()  # its feature map is 4 x 4: a position per patch
    objective = objective_of(task, net)
    torch.nn.init.normal_(objective.position_head.weight, std=3)  # predictions that differ between patches
    index = task.train[:12]
    inputs = task.examples.batch(index)
    with_picture = inputs.has_image
    assert 0 < int((~with_picture).sum()) < 12
    torch.manual_seed(5)
    loss = float(objective(net, inputs, torch.from_numpy(index)).detach())

    torch.manual_seed(5)
    origins = shuffled(int(with_picture.sum()), 4, 2)
    whole = inputs.pixels[with_picture]
    parts = []
    with torch.no_grad():
        for pixels, patch_origins in ((whole, unshuffled(len(whole), 4)), (rearranged(whole, origins), origins)):
            vector, _ = net.image(pixels)
            colour, material = (head(net.fusion.image_norm(vector)).numpy() for head in net.fusion.classifiers)
            tokens = net.image.model.forward_features(pixels)[:, 1:]  # without [CLS]
            features = tokens.numpy().reshape(len(pixels), 4, 4, -1)
            weight, bias = objective.position_head.weight[:, :, 0, 0].numpy(), objective.position_head.bias.numpy()
            predicted = np.tanh(np.einsum("od,brcd->borc", weight, features) + bias[:, None, None])
            position = np.stack([patch_origins.numpy() // 4, patch_origins.numpy() % 4], axis=1) / 1.5 - 1
            parts.append((colour, material, objective.adversarial_head(vector).numpy(), np.abs(predicted - position)))
    colour, material, adversarial, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows = np.tile(index[with_picture.numpy()], 2)
    truth = task.labels["material"].truth[rows]
    binary_losses = np.where(truth, np.log1p(np.exp(-material)), np.log1p(np.exp(material)))
    expected = entropy(colour, task.labels["color"].truth[rows].argmax(axis=1)) + binary_losses.sum(axis=1).mean()
    expected += 0.5 * entropy(adversarial, np.repeat([0, 1], len(whole))) + 0.25 * distance.mean()
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("image", [VIT, ImageSpec(name="lcnet_035", size=32)], ids=lambda image: image.name)
def test_every_weight_has_a_gradient_with_every_encoder(task, image):
    net = image_network(task, image).train()
    objective = objective_of(task, net, replace(SPEC, patches=7))  # 32 pixels are not divisible by 7
    index = task.train[:8]
    objective(net, task.examples.batch(index), torch.from_numpy(index)).backward()
    assert all(weight.grad is not None for weight in [*net.parameters(), *objective.parameters()])


def test_without_any_picture_the_loss_is_zero(task):
    net = image_network(task).train()
    index = task.train[:4]
    inputs = task.examples.batch(index, masked_images=np.ones(4, dtype=bool))
    loss = objective_of(task, net)(net, inputs, torch.from_numpy(index))
    loss.backward()
    assert float(loss.detach()) == 0


def test_the_held_out_loss_is_the_classification_of_whole_pictures(task):
    net = image_network(task)
    targets = targets_of(task.labels)
    held_out = task.folds.choosing[task.examples.has_image[task.folds.choosing]]
    loss = objective_of(task, net).held_out(net, task.examples, held_out)
    assert loss == Classification(targets).held_out(net, task.examples, held_out)


# --- both ----------------------------------------------------------------------------------------------------------


def test_the_identity_depends_on_method_and_settings(task):
    net, images = network(task, model("concat")), image_network(task)
    objectives = [
        contrast(adapt("simcse"), net),
        contrast(adapt("convirt"), net),
        contrast(adapt("simcse", temperature=0.2), net),
        objective_of(task, images),
        objective_of(task, images, replace(SPEC, adversarial=0.1)),
    ]
    assert len({objective.identity() for objective in objectives}) == 5
    assert objective_of(task, images).identity() == objectives[3].identity()


def test_what_an_objective_cannot_use_is_refused(task):
    with pytest.raises(ValueError, match="no image encoder"):
        contrast(adapt("convirt"), network(task, model("text_only")))
    with pytest.raises(ValueError, match="image encoder only"):
        objective_of(task, network(task, recipe().model))
    with pytest.raises(ValueError, match="cannot be cut"):
        rearranged(torch.rand(1, 3, 4, 4), unshuffled(1, 5))
