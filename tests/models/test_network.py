from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.network import ModelInputs, MultiModalNet, build_network, parameter_groups
from catalog_enrichment.models.preprocess import Preprocessor
from catalog_enrichment.models.spec import FitSpec

from .conftest import HEADS, network, tiny


def inputs_of(tokenizer: TextTokenizer, batch: Any, kind: str = "modality_attention") -> ModelInputs:
    return Preprocessor(tokenizer, tiny(kind).model).inputs(*batch)


@pytest.mark.parametrize("kind", ["modality_attention", "concat", "text_only", "image_only"])
def test_every_fusion_answers_every_attribute_in_one_forward(kind: str, tokenizer: TextTokenizer, batch: Any) -> None:
    outputs = network(tiny(kind), tokenizer)(inputs_of(tokenizer, batch))
    assert {name: tuple(logits.shape) for name, logits in outputs.logits.items()} == {
        name: (6, len(head.labels)) for name, head in HEADS.items()
    }
    assert (outputs.attention is None) == (kind != "modality_attention")
    if outputs.attention is not None:
        assert list(outputs.attention) == list(HEADS)
        for weight in outputs.attention.values():
            assert (weight == 1).tolist() == [False, True, False, False, True, False]


def test_a_single_modality_builds_only_its_own_encoder(tokenizer: TextTokenizer) -> None:
    text_only, image_only = (network(tiny(kind), tokenizer) for kind in ("text_only", "image_only"))
    assert text_only.image is None
    assert image_only.text is None
    assert not any(name.startswith("image.") for name in text_only.state_dict())
    assert not any(name.startswith("text.") for name in image_only.state_dict())


def test_text_only_does_not_look_at_pictures_and_image_only_not_at_text(tokenizer: TextTokenizer, batch: Any) -> None:
    inputs = inputs_of(tokenizer, batch)
    other_picture = replace(inputs, pixels=inputs.pixels + 1)
    other_text = replace(inputs, input_ids=inputs.input_ids.flip(0))
    for kind, other in (("text_only", other_picture), ("image_only", other_text)):
        net = network(tiny(kind), tokenizer)
        first, second = net(inputs).logits, net(other).logits
        assert all(torch.equal(first[name], second[name]) for name in HEADS)


def test_what_lies_under_a_missing_picture_reaches_neither_scores_nor_batch_statistics(
    tokenizer: TextTokenizer, batch: Any
) -> None:
    inputs = inputs_of(tokenizer, batch)
    noisy = inputs.pixels.clone()
    noisy[~inputs.has_image] = 1e3
    nets = [network(tiny(), tokenizer).train() for _ in range(2)]
    for net, pixels in zip(nets, (inputs.pixels, noisy), strict=True):
        torch.manual_seed(0)
        net(replace(inputs, pixels=pixels))
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_batch_without_any_picture_trains(tokenizer: TextTokenizer, batch: Any) -> None:
    inputs = inputs_of(tokenizer, batch)
    net = network(tiny(), tokenizer).train()
    outputs = net(replace(inputs, has_image=torch.zeros(6, dtype=torch.bool)))
    sum(logits.sum() for logits in outputs.logits.values()).backward()
    assert net.text is not None
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.text.parameters())


def test_frozen_encoders_stay_as_they_are(tokenizer: TextTokenizer, batch: Any) -> None:
    recipe = tiny()
    model = replace(
        recipe.model, text=replace(recipe.model.text, frozen=True), image=replace(recipe.model.image, frozen=True)
    )
    net = build_network(model, HEADS, tokenizer).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(net, FitSpec(epochs=1, learning_rate=0.1)))
    outputs = net(inputs_of(tokenizer, batch))
    sum(logits.square().sum() for logits in outputs.logits.values()).backward()
    optimizer.step()
    changed = {
        name.partition(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"fusion", "classifiers"}


def test_parameter_groups_hold_every_weight_once_at_its_parts_rate(net: MultiModalNet) -> None:
    fit = FitSpec(epochs=1, text_learning_rate=1e-5, image_learning_rate=2e-3, learning_rate=3e-2, weight_decay=0.1)
    groups = parameter_groups(net, fit)
    held = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in net.parameters())
    rate = {id(weight): (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}
    assert net.text is not None
    assert net.image is not None
    assert {rate[id(weight)][0] for weight in net.text.parameters()} == {1e-5}
    assert {rate[id(weight)][0] for weight in net.image.parameters()} == {2e-3}
    assert {rate[id(weight)][0] for weight in net.classifiers.parameters()} == {3e-2}
    assert rate[id(net.classifiers[0].weight)] == (3e-2, 0.1)
    assert rate[id(net.classifiers[0].bias)] == (3e-2, 0.0)


def test_inputs_move_as_one(tokenizer: TextTokenizer, batch: Any) -> None:
    moved = inputs_of(tokenizer, batch).to("meta")
    assert {moved.input_ids.device.type, moved.pixels.device.type, moved.has_image.device.type} == {"meta"}
    assert len(moved) == 6


def test_pixels_are_normalised_by_the_spec_and_blank_without_a_picture(tokenizer: TextTokenizer, batch: Any) -> None:
    inputs, spec = inputs_of(tokenizer, batch), tiny().model.image
    expected = (batch[2][0].astype(np.float64) / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(inputs.pixels[0].numpy(), expected.transpose(2, 0, 1), atol=1e-5)
    assert (inputs.pixels[1] == 0).all()
    assert inputs.has_image.tolist() == [True, False, True, True, False, True]


def test_inputs_that_do_not_fit_are_refused(tokenizer: TextTokenizer) -> None:
    preprocessor = Preprocessor(tokenizer, tiny().model)
    with pytest.raises(ValueError, match="2 titles"):
        preprocessor.inputs(["a", "b"], [""], [None])
    with pytest.raises(ValueError, match="picture 0"):
        preprocessor.inputs(["a"], [""], [np.zeros((8, 8, 3), dtype=np.uint8)])
