"""Destruction and construction learning: the shuffle, the loss, the held-out loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog_enrichment.models.encoders import feature_map
from catalog_enrichment.models.network import MultiModalNet, build_network
from catalog_enrichment.models.spec import DestructionSpec, FitSpec, ImageSpec
from catalog_enrichment.training import loop
from catalog_enrichment.training.destruction import (
    Destruction,
    coordinates,
    rearranged,
    shuffled,
    unshuffled,
)
from catalog_enrichment.training.fit import set_threads
from catalog_enrichment.training.loop import FitInputs
from catalog_enrichment.training.objectives import Classification, targets_of
from catalog_enrichment.training.single_encoder import heads_of, single_encoder_spec
from catalog_enrichment.training.task import Task

from .toy import easy, recipe, silent

FIT = FitSpec(epochs=4, batch_size=32, image_learning_rate=3e-3, learning_rate=5e-3)
VIT = ImageSpec(name="test_vit", size=32, args={"img_size": 32, "patch_size": 8})
SPEC = DestructionSpec(fit=FIT, patches=4, reach=2, adversarial=0.5, construction=0.25)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def task(toy_task) -> Task:
    rows = [easy(number) for number in range(160)]
    for row in rows[5::10]:
        row["images"] = []
    return toy_task(rows)


def network(task: Task, image: ImageSpec | None = None) -> MultiModalNet:
    torch.manual_seed(0)
    model = recipe().model
    model = single_encoder_spec(replace(model, image=image or model.image), "image")
    return build_network(model, heads_of(task.labels), task.tokenizers)


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
                new, old = (
                    (
                        slice(margin + r * side, margin + (r + 1) * side),
                        slice(margin + c * side, margin + (c + 1) * side),
                    )
                    for r, c in ((row, column), (from_row, from_column))
                )
                assert np.array_equal(after[picture][:, *new], before[picture][:, *old])
    assert np.array_equal(pixels.numpy(), before)  # the input is unchanged
    edge = np.ones((size, size), dtype=bool)
    edge[margin : margin + 4 * side, margin : margin + 4 * side] = False
    assert np.array_equal(after[:, :, edge], before[:, :, edge])


def test_identity_origins_leave_the_picture_unchanged():
    pixels = torch.rand(2, 3, 30, 30)
    assert torch.equal(rearranged(pixels, unshuffled(2, 7)), pixels)


def test_a_picture_with_fewer_pixels_than_patches_is_refused():
    with pytest.raises(ValueError, match="cannot be cut"):
        rearranged(torch.rand(1, 3, 4, 4), unshuffled(1, 5))


def test_coordinates_are_minus_one_to_one_from_first_to_last():
    identity = coordinates(unshuffled(1, 5))[0]
    assert identity[:, 0, 0].tolist() == [-1, -1]
    assert identity[:, 4, 4].tolist() == [1, 1]
    assert identity[:, 1, 3].tolist() == [-0.5, 0.5]


def entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean softmax cross-entropy, in numpy."""
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(scores)), truth]))


def test_the_loss_is_the_weighted_sum_of_its_three_parts(task):
    net = network(task, VIT).eval()  # its feature map is 4 x 4: one position per patch
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
    expected = entropy(colour, task.labels["color"].classes[rows]) + binary_losses.sum(axis=1).mean()
    expected += 0.5 * entropy(adversarial, np.repeat([0, 1], len(whole))) + 0.25 * distance.mean()
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "image",
    [VIT, ImageSpec(name="lcnet_035", size=32)],
    ids=lambda image: image.name,
)
def test_every_weight_has_a_gradient_with_every_encoder(task, image):
    net = network(task, image).train()
    objective = objective_of(task, net, replace(SPEC, patches=7))  # 32 pixels are not divisible by 7
    index = task.train[:8]
    objective(net, task.examples.batch(index), torch.from_numpy(index)).backward()
    assert all(weight.grad is not None for weight in [*net.parameters(), *objective.parameters()])


def test_without_any_picture_the_loss_is_zero(task):
    net = network(task).train()
    index = task.train[:4]
    inputs = task.examples.batch(index, masked_images=np.ones(4, dtype=bool))
    loss = objective_of(task, net)(net, inputs, torch.from_numpy(index))
    loss.backward()
    assert float(loss.detach()) == 0


def test_the_held_out_loss_is_the_classification_of_whole_pictures(task):
    net = network(task)
    targets = targets_of(task.labels)
    held_out = task.folds.choosing[task.examples.has_image[task.folds.choosing]]
    loss = objective_of(task, net).held_out(net, task.examples, held_out)
    assert loss == Classification(targets).held_out(net, task.examples, held_out)


def test_a_network_with_a_text_encoder_is_refused(task):
    net = build_network(recipe().model, heads_of(task.labels), task.tokenizers)
    with pytest.raises(ValueError, match="image encoder only"):
        objective_of(task, net)


def test_patch_positions_are_learned(toy_task):
    """The pictures' shade depends on the position: greener to the right, redder below."""
    random = np.random.default_rng(0)
    task = toy_task([easy(number) for number in range(160)])
    row, column = np.mgrid[0:1:32j, 0:1:32j]
    shade = np.stack([row, column, np.zeros_like(row)], axis=2) * 200
    task.examples.dataset.pixels = (shade + random.integers(0, 50, (160, 32, 32, 3))).astype(np.uint8)
    spec = replace(SPEC, fit=replace(FIT, epochs=10), construction=1.0)
    net = network(task, VIT)
    objective = objective_of(task, net, spec)

    def position_error() -> float:
        net.eval()
        torch.manual_seed(9)
        origins = shuffled(len(task.folds.test), 4, 2)
        pixels = rearranged(task.examples.batch(task.folds.test).pixels, origins)
        with torch.no_grad():
            predicted = objective.predicted_positions(feature_map(net.image(pixels)[1]))
        return float((predicted - coordinates(origins)).abs().mean())

    before = position_error()
    inputs = FitInputs(name="destruction", examples=task.examples, train=task.train, held_out=task.folds.choosing)
    loop.run(net, objective, replace(spec.fit, schedule="constant"), inputs, silent)
    assert position_error() < before / 2


def test_the_identity_depends_on_the_settings(task):
    net = network(task)
    assert objective_of(task, net).identity() == objective_of(task, net).identity()
    assert objective_of(task, net).identity() != objective_of(task, net, replace(SPEC, adversarial=0.1)).identity()
