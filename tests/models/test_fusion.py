"""The fusions of vectors against a plain computation of the papers' equations, and what holds for every fusion."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion import build_fusion, fusion_class
from catalog_enrichment.models.fusion.base import FusionShape, kl_to_uniform, majority
from catalog_enrichment.models.spec import FusionSpec, fusion_files
from catalog_enrichment.records import Cardinality

from .plain import (
    HAS_IMAGE,
    HEADS,
    TEXTS,
    B,
    D,
    every_product,
    image_of,
    layer_norm,
    linear,
    numbers,
    probability,
    randomised,
    scores,
    sigmoid,
    sizes,
    text_of,
    views,
    weight,
)

KINDS = list(fusion_files())


@pytest.mark.parametrize("texts", TEXTS)
def test_modality_attention_is_equations_2_and_3_for_every_attribute(texts: str) -> None:
    """De la Comble et al. 2022, section 4.1."""
    fusion, encoded = randomised("modality_attention", texts), views(texts)
    fused = fusion(encoded)
    w, b = weight(fusion, "importance.weight"), weight(fusion, "importance.bias")
    for attribute, head in enumerate(HEADS):
        logits, attention = [], []
        for product in range(B):
            x_txt, x_img = text_of(encoded, fusion, product), image_of(encoded, fusion, product)
            p = sigmoid(sum(w[attribute] * [*x_txt, *x_img]) + b[attribute]) if HAS_IMAGE[product] else 1.0
            attention.append(p)
            logits.append(linear(np.array([*(p * x_txt), *((1 - p) * x_img)]), fusion, f"classifiers.{attribute}"))
        assert fused.logits[attribute].shape == (B, len(head.labels))
        every_product(logits, fused.logits[attribute])
        every_product(attention, fused.attention[:, attribute])
    assert ((fused.attention == 1).numpy() == ~HAS_IMAGE[:, None]).all()


@pytest.mark.parametrize("texts", ["pair", "two encoders apart"])
@pytest.mark.parametrize("hidden", [0, 5])
def test_concat_joins_the_vectors_under_a_linear_head_or_a_perceptron(texts: str, hidden: int) -> None:
    """Concat merger of De la Comble et al. 2022; shallow fusion of Chen et al. 2021, section 3.3.2."""
    fusion, encoded = randomised("concat", texts, options={"hidden": hidden}), views(texts)
    fused = fusion(encoded)
    assert fused.attention is None
    for attribute in range(len(HEADS)):
        expected = []
        for product in range(B):
            x = np.array([*text_of(encoded, fusion, product), *image_of(encoded, fusion, product)])
            if hidden:
                x = np.maximum(linear(x, fusion, "hidden.0"), 0)
                assert len(x) == hidden
            expected.append(linear(x, fusion, f"classifiers.{attribute}"))
        every_product(expected, fused.logits[attribute])


@pytest.mark.parametrize("perceptrons", [1, 2])
def test_an_opinion_pool_is_the_geometric_mean_of_the_merger_and_the_perceptrons(perceptrons: int) -> None:
    options = {"perceptrons": perceptrons, "hidden": 5}
    fusion, encoded = randomised("opinion_pool", options=options).eval(), views()
    fused = fusion(encoded)
    merger = randomised("modality_attention")
    merger.load_state_dict({name: fusion.state_dict()[name] for name in merger.state_dict()})
    merged = merger(encoded)
    assert torch.equal(fused.attention, merged.attention)
    for attribute, head in enumerate(HEADS):
        for product in range(B):
            x = np.array([*text_of(encoded, fusion, product), *image_of(encoded, fusion, product)])
            opinions = [probability(numbers(merged.logits[attribute])[product], head)]
            for number in range(perceptrons):
                name = f"perceptrons.{number}.{attribute}"
                hidden = layer_norm(linear(x, fusion, f"{name}.1"), fusion, f"{name}.2")
                hidden = numbers(torch.nn.functional.gelu(torch.from_numpy(hidden)))
                logits = linear(hidden, fusion, f"{name}.5")
                assert len(hidden) == 5
                np.testing.assert_allclose(numbers(fused.experts[1 + number][attribute])[product], logits, atol=1e-4)
                opinions.append(probability(logits, head))
            geometric = np.exp(np.mean(np.log(opinions), axis=0))
            if head.cardinality is Cardinality.ONE:
                expected = geometric / geometric.sum()
            else:
                against = np.exp(np.mean(np.log1p(-np.array(opinions)), axis=0))
                expected = geometric / (geometric + against)
            np.testing.assert_allclose(scores(fused, attribute)[product], expected, atol=1e-5)


@pytest.mark.parametrize(("dropout", "other"), [("0", "4"), ("4", "0")])
def test_an_opinion_pool_drops_inputs_and_hidden_layer_in_training_alone(dropout: str, other: str) -> None:
    fusion, encoded = randomised("opinion_pool", options={"dropout": 0.5}), views()
    for attribute in range(len(HEADS)):
        fusion.set_submodule(f"perceptrons.0.{attribute}.{other}", torch.nn.Identity())
        assert fusion.get_submodule(f"perceptrons.0.{attribute}.{dropout}").p == 0.5
    assert not torch.equal(fusion(encoded).experts[1][0], fusion(encoded).experts[1][0])
    assert torch.equal(fusion(encoded).experts[0][0], fusion(encoded).experts[0][0])
    fusion.eval()
    assert torch.equal(fusion(encoded).experts[1][0], fusion(encoded).experts[1][0])


@pytest.mark.parametrize(("kind", "vector"), [("text_only", text_of), ("image_only", image_of)])
@pytest.mark.parametrize("texts", ["pair", "two encoders apart"])
def test_a_single_modality_is_a_linear_head_over_its_own_vector(kind: str, vector: Any, texts: str) -> None:
    """Eq. 1 of De la Comble et al. 2022."""
    fusion, encoded = randomised(kind, texts), views(texts)
    fused = fusion(encoded)
    for attribute in range(len(HEADS)):
        expected = [
            linear(vector(encoded, fusion, product), fusion, f"classifiers.{attribute}") for product in range(B)
        ]
        every_product(expected, fused.logits[attribute])
    assert fusion.uses_text == (kind == "text_only")
    assert fusion.uses_image == (kind == "image_only")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", TEXTS)
def test_values_under_a_missing_text_or_picture_have_no_effect(kind: str, texts: str) -> None:
    fusion = randomised(kind, texts).eval()
    empty, filler = fusion(views(texts)), fusion(views(texts, filler=math.nan))
    for attribute in range(len(HEADS)):
        assert torch.isfinite(empty.logits[attribute]).all()
        assert torch.equal(empty.logits[attribute], filler.logits[attribute])
        for first, second in zip(empty.experts, filler.experts, strict=True):
            assert torch.equal(first[attribute], second[attribute])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", TEXTS)
def test_gradients_are_finite_with_missing_texts_and_pictures(kind: str, texts: str) -> None:
    fusion = randomised(kind, texts)
    fused = fusion(views(texts, filler=math.nan))
    learned = fused.experts or (fused.logits,)
    sum(logits.square().sum() for expert in learned for logits in expert).backward()
    gradients = {name: value.grad for name, value in fusion.named_parameters() if value.requires_grad}
    assert gradients
    for name, gradient in gradients.items():
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert "classif" not in name or gradient.any()


def test_a_saturated_attention_differs_from_that_of_a_missing_picture_and_has_a_finite_gradient() -> None:
    fusion = randomised("modality_attention")
    torch.nn.init.constant_(fusion.get_parameter("importance.bias"), 200.0)
    attention = fusion(views()).attention
    assert ((attention < 1).numpy() == HAS_IMAGE[:, None]).all()
    kl_to_uniform(attention).sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in fusion.parameters() if weight.grad is not None)


def test_kl_is_equation_5() -> None:
    for p in (0.5, 0.1, 0.8, 0.999):
        expected = p * math.log(p) + (1 - p) * math.log(1 - p) + math.log(2)
        assert kl_to_uniform(torch.tensor([p])).item() == pytest.approx(expected, abs=1e-6)


def test_kl_is_zero_without_a_picture_and_finite_with_its_gradient_at_the_ends() -> None:
    attention = torch.tensor([1.0, 0.0, 1e-30, 1 - 1e-6, 0.5], requires_grad=True)
    divergence = kl_to_uniform(attention)
    divergence.sum().backward()
    assert divergence[0] == 0
    assert attention.grad is not None
    assert attention.grad[0] == 0
    assert torch.isfinite(divergence).all()
    assert torch.isfinite(attention.grad).all()
    assert divergence[1].item() == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("voters", [2, 3, 8])
def test_more_votes_rank_higher_and_the_mean_probability_breaks_ties(voters: int) -> None:
    random = torch.Generator().manual_seed(voters)
    votes = (5 * torch.randn(voters, 200, 4, generator=random, dtype=torch.float64)).softmax(dim=2)
    ranked = majority(votes, Cardinality.ONE).numpy()
    np.testing.assert_allclose(ranked.sum(axis=1), 1)
    for product in range(200):
        count, mean = np.zeros(4), np.zeros(4)
        for voter in range(voters):
            count[int(votes[voter, product].argmax())] += 1
            mean += votes[voter, product].numpy() / voters
        expected = sorted(range(4), key=lambda value: (count[value], mean[value]))
        assert np.argsort(ranked[product]).tolist() == expected


@pytest.mark.parametrize("voters", [2, 3, 8])
def test_with_several_values_each_is_voted_on_by_itself(voters: int) -> None:
    random = torch.Generator().manual_seed(voters)
    votes = torch.rand(voters, 300, 4, generator=random)
    ranked = majority(votes, Cardinality.MANY)
    count, mean = (votes >= 0.5).sum(dim=0), votes.mean(dim=0)
    accepted = (2 * count > voters) | ((2 * count == voters) & (mean >= 0.5))
    assert torch.equal(ranked >= 0.5, accepted)
    assert ((ranked >= 0) & (ranked <= 1)).all()
    assert (count.flatten()[ranked.flatten().argsort()].diff() >= 0).all()


def test_an_unknown_fusion_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no fusion 'mixture'.*cross_modal.*modality_attention"):
        fusion_class("mixture")
    with pytest.raises(ValueError, match=r"no fusion 'mixture'.*cross_modal.*modality_attention"):
        FusionSpec(kind="mixture")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("concat", {"hiden": 3}, r"options of concat: unknown key 'hiden'\. Available keys: \['hidden'\]"),
        ("text_only", {"hidden": 3}, r"unknown key 'hidden'\. Available keys: \[\]"),
        ("decision", {"layer": 1}, r"unknown key 'layer'\. Available keys: .*'hidden', 'layers', 'learning_rate'"),
        ("decision", {"layers": 3}, "layers must be 1 or 2"),
        ("decision", {"folds": 1}, "folds at least 2"),
        ("decision", {"learning_rate": 0.0}, "the others positive"),
        ("decision", {"epochs": 2.5}, "epochs must be of type int, not 2.5"),
        ("hierarchical", {"texts": "mean"}, r"texts must be one of \['add', 'concat', 'average'\], not 'mean'"),
        ("hierarchical", {"hidden": 0}, "hidden must be positive"),
        ("concat", {"hidden": -1}, "hidden must not be negative"),
        ("opinion_pool", {"perceptrons": 0}, "perceptrons and hidden must be at least 1"),
        ("opinion_pool", {"hidden": 0}, "perceptrons and hidden must be at least 1"),
        ("opinion_pool", {"dropout": 1.0}, r"dropout lie in \[0, 1\)"),
    ],
)
def test_options_that_a_fusion_does_not_have_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_fusion(FusionSpec(kind=kind, options=options), sizes())


@pytest.mark.parametrize("kind", KINDS)
def test_widths_that_a_fusion_does_not_take_are_refused(kind: str) -> None:
    refused = pytest.raises(ConfigError, match=r"\[6, 8\]: choose encoders of the same width")
    with refused if kind in ("cross_modal", "hierarchical") else nullcontext():
        build_fusion(FusionSpec(kind=kind), FusionShape((6, 8), 1, D, HEADS))
