from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models.network import (
    ModelInputs,
    ModelOutputs,
    build_network,
    parameter_groups,
)
from catalog_enrichment.models.preprocess import Preprocessor
from catalog_enrichment.models.spec import FitSpec, Recipe

from .conftest import HEADS, KINDS, VARIANTS, network, tiny, tokenizers_of

HAS_IMAGE = [True, False, True, True, False, True]
HAS_DESCRIPTION = [True, False, True, False, True, True]


def inputs_of(recipe: Recipe, batch: ProductBatch) -> ModelInputs:
    return Preprocessor(tokenizers_of(recipe), recipe.model).inputs(batch)


def learned(outputs: ModelOutputs) -> torch.Tensor:
    """A loss over what is fitted: the experts, where there are any."""
    losses = [logits.square().sum() for expert in outputs.experts or (outputs.logits,) for logits in expert.values()]
    return torch.stack(losses).sum()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_fusion_gives_logits_of_every_attribute_in_one_forward_pass(
    kind: str, variant: str, batch: ProductBatch
) -> None:
    recipe = tiny(kind, variant)
    outputs = network(recipe)(inputs_of(recipe, batch))
    shapes = {name: (6, len(head.labels)) for name, head in HEADS.items()}
    for answers in (outputs.logits, *outputs.experts):
        assert {name: tuple(logits.shape) for name, logits in answers.items()} == shapes
        assert all(torch.isfinite(logits).all() for logits in answers.values())
    assert bool(outputs.experts) == (kind in ("late", "decision", "opinion_pool"))
    assert (outputs.attention is None) == (kind not in ("modality_attention", "opinion_pool"))
    if outputs.attention is not None:
        assert list(outputs.attention) == list(HEADS)
        for weight in outputs.attention.values():
            assert (weight == 1).tolist() == [not has for has in HAS_IMAGE]


@pytest.mark.parametrize(
    ("variant", "widths", "tokens"),
    [
        ("pair lcnet", [16], 1 + 1),
        ("apart second vit", [16] * 4, 1 + 4),
        ("pair regions", [16], 1 + 4),
        ("pair second vit", [16] * 2, 1 + 4),
    ],
)
def test_the_fusion_gets_each_text_and_the_whole_picture_before_its_positions(
    variant: str, widths: list[int], tokens: int, batch: ProductBatch
) -> None:
    recipe = tiny("cross_modal", variant)
    net = network(recipe)
    encoded = net.encode(inputs_of(recipe, batch))
    assert [view.vector.shape[1] for view in encoded.texts] == widths
    present = [[True] * 6, HAS_DESCRIPTION] if "apart" in variant else [[True] * 6]
    assert [view.present.tolist() for view in encoded.texts] == present * (len(widths) // len(present))
    assert encoded.image is not None
    assert net.image is not None
    assert encoded.image.tokens.shape == (6, tokens, net.image.token_width)
    assert encoded.image.present.tolist() == HAS_IMAGE
    for view in (*encoded.texts, encoded.image):
        assert (view.vector[~view.present] == 0).all()
        assert (view.tokens[~view.present] == 0).all()
        assert view.mask.any(dim=1).equal(view.present)


def test_two_text_encoders_read_the_same_fields() -> None:
    recipe = tiny("concat", "apart second vit")
    assert recipe.model.second_text is not None
    model = replace(recipe.model, second_text=replace(recipe.model.second_text, fields="pair"))
    with pytest.raises(ConfigError, match="apart, or neither"):
        build_network(model, HEADS, tokenizers_of(recipe))


def test_values_under_a_missing_picture_do_not_change_the_batch_statistics(batch: ProductBatch) -> None:
    inputs = inputs_of(tiny(), batch)
    noisy = inputs.pixels.clone()
    noisy[~inputs.has_image] = 1e3
    nets = [network(tiny()).train() for _ in range(2)]
    for net, pixels in zip(nets, (inputs.pixels, noisy), strict=True):
        torch.manual_seed(0)
        net(replace(inputs, pixels=pixels))
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("variant", ["pair lcnet", "apart second vit"])
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"image_only"}))
def test_a_training_batch_without_any_picture_trains(kind: str, variant: str, batch: ProductBatch) -> None:
    recipe = tiny(kind, variant)
    net = network(recipe).train()
    learned(net(replace(inputs_of(recipe, batch), has_image=torch.zeros(6, dtype=torch.bool)))).backward()
    gradients = {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert any(gradient.any() for name, gradient in gradients.items() if name.startswith("texts."))


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_encoders_stay_as_they_are(kind: str, batch: ProductBatch) -> None:
    recipe = tiny(kind, "pair second vit")
    assert recipe.model.second_text is not None
    model = replace(
        recipe.model,
        text=replace(recipe.model.text, frozen=True),
        second_text=replace(recipe.model.second_text, frozen=True),
        image=replace(recipe.model.image, frozen=True),
    )
    net = build_network(model, HEADS, tokenizers_of(recipe)).train()
    assert net.training
    assert not any(encoder.training for encoder in net.encoders().values())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(net, FitSpec(epochs=1, learning_rate=0.1)))
    learned(net(inputs_of(recipe, batch))).backward()
    optimizer.step()
    changed = {
        name.partition(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"fusion"}


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_groups_hold_every_weight_once_at_its_parts_rate(kind: str) -> None:
    net = network(tiny(kind, "pair second vit"))
    fit = FitSpec(epochs=1, text_learning_rate=1e-5, image_learning_rate=2e-3, learning_rate=3e-2, weight_decay=0.1)
    groups = parameter_groups(net, fit)
    held = [id(weight) for group in groups for weight in group["params"]]
    fitted = {name: weight for name, weight in net.named_parameters() if not name.startswith("fusion.policies.")}
    assert sorted(held) == sorted(id(weight) for weight in fitted.values())
    rate = {id(weight): (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}
    rates = {"texts": 1e-5, "image": 2e-3, "fusion": 3e-2}
    for name, weight in fitted.items():
        assert rate[id(weight)] == (rates[name.partition(".")[0]], 0.1 if weight.ndim > 1 else 0.0)


def test_each_text_encoder_reads_by_its_own_tokenizer(batch: ProductBatch) -> None:
    recipe = tiny("concat", "apart second vit")
    inputs = inputs_of(recipe, batch)
    assert {name: len(texts) for name, texts in inputs.texts.items()} == {"text": 2, "second_text": 2}
    titles, descriptions = inputs.texts["second_text"]
    tokenizer = tokenizers_of(recipe)["second_text"]
    assert titles.input_ids[0].tolist()[:4] != inputs.texts["text"][0].input_ids[0].tolist()[:4]
    expected = tokenizer.encode(["navy shirt"], [""], 16)["input_ids"][0]
    assert titles.input_ids[0][: len(expected)].tolist() == expected.tolist()
    assert descriptions.present.tolist() == HAS_DESCRIPTION
    assert titles.present.all()


def test_pixels_are_normalised_by_the_spec_and_blank_without_a_picture(batch: ProductBatch) -> None:
    inputs, spec = inputs_of(tiny(), batch), tiny().model.image
    expected = (batch.pictures[0].astype(np.float64) / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(inputs.pixels[0].numpy(), expected.transpose(2, 0, 1), atol=1e-5)
    assert (inputs.pixels[1] == 0).all()
    assert inputs.has_image.tolist() == HAS_IMAGE


def test_inputs_that_do_not_fit_are_refused(tokenizers: dict[str, TextTokenizer]) -> None:
    with pytest.raises(ValueError, match="picture 0"):
        Preprocessor(tokenizers, tiny().model).inputs(ProductBatch(["a"], [""], [np.zeros((8, 8, 3), dtype=np.uint8)]))


def test_all_inputs_move_to_a_device(batch: ProductBatch) -> None:
    moved = inputs_of(tiny("concat", "apart second vit"), batch).to("meta")
    assert len(moved) == 6
    tensors = [moved.pixels, moved.has_image]
    for texts in moved.texts.values():
        for tokens in texts:
            assert tokens.token_type_ids is not None
            tensors += [tokens.input_ids, tokens.attention_mask, tokens.token_type_ids, tokens.present]
    assert len(tensors) == 2 + 4 * 4
    assert {tensor.device.type for tensor in tensors} == {"meta"}
