"""Decision-level fusion against sections 3.3.2, 3.4 and 4.1 of Bi et al. 2020."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from catalog_enrichment.models.fusion import build_fusion
from catalog_enrichment.models.fusion.base import EncoderOutputs, Fusion, FusionOutput, HeldOutTargets
from catalog_enrichment.models.spec import FusionSpec, Head
from catalog_enrichment.records import Cardinality

from .plain import (
    HAS_IMAGE,
    HEADS,
    TEXTS,
    B,
    layer_norm,
    linear,
    macro_f1,
    numbers,
    probability,
    randomised,
    scores,
    sizes,
    views,
)

FOLDS = 8


def expert_probabilities(
    fusion: Fusion, encoded: EncoderOutputs, texts: str, attribute: int, product: int
) -> list[np.ndarray]:
    assert encoded.image is not None
    actual = []
    there = [present[product] for present in (*TEXTS[texts], HAS_IMAGE)]
    for number, (view, has) in enumerate(zip((*encoded.texts, encoded.image), there, strict=True)):
        vector = numbers(view.vector)[product]
        x = layer_norm(vector, fusion, f"norms.{number}") if has else np.zeros_like(vector)
        actual.append(probability(linear(x, fusion, f"classifiers.{number}.{attribute}"), HEADS[attribute]))
    return actual


def vote(fusion: Fusion, inputs: np.ndarray, attribute: int, layers: int = 2) -> np.ndarray:
    """Return the counted votes of the eight networks over all class probabilities of a product."""
    head, predicted = HEADS[attribute], []
    for network in range(FOLDS):
        name, encoded = f"policies.{attribute}.{network}", inputs
        if layers == 2:
            name, encoded = f"{name}.2", np.maximum(linear(inputs, fusion, f"{name}.0"), 0)
            assert len(encoded) == 6
        predicted.append(probability(linear(encoded, fusion, name), head))
    counted = np.zeros(len(head.labels))
    for p in predicted:
        counted += np.eye(len(p))[p.argmax()] if head.cardinality is Cardinality.ONE else p >= 0.5
    return (counted + np.mean(predicted, axis=0)) / (FOLDS + 1)


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_decision_is_the_vote_of_eight_networks_over_all_class_probabilities(texts: str, layers: int) -> None:
    fusion, encoded = randomised("decision", texts, options={"layers": layers}), views(texts)
    fusion.get_buffer("settled").fill_(True)
    fused = fusion(encoded)
    assert len(fused.experts) == len(TEXTS[texts]) + 1
    for attribute in range(len(HEADS)):
        for product in range(B):
            inputs = np.concatenate(expert_probabilities(fusion, encoded, texts, attribute, product))
            expected = vote(fusion, inputs, attribute, layers)
            np.testing.assert_allclose(scores(fused, attribute)[product], expected, atol=1e-5)


@pytest.mark.parametrize("texts", TEXTS)
def test_without_fitted_networks_the_mean_of_the_classifiers_is_the_output(texts: str) -> None:
    fusion, encoded = randomised("decision", texts), views(texts)
    fused = fusion(encoded)
    for attribute in range(len(HEADS)):
        for product in range(B):
            expected = np.mean(expert_probabilities(fusion, encoded, texts, attribute, product), axis=0)
            np.testing.assert_allclose(scores(fused, attribute)[product], expected, atol=1e-5)


def test_the_classifiers_get_no_gradient_through_the_policies_nor_these_from_the_loss() -> None:
    fusion = randomised("decision")
    fusion.get_buffer("settled").fill_(True)
    fused = fusion(views())
    assert not any(logits.requires_grad for logits in fused.logits)
    sum(logits.square().sum() for expert in fused.experts for logits in expert).backward()
    for name, value in fusion.named_parameters():
        if name.startswith("policies"):
            assert not value.requires_grad
            assert value.grad is None
        else:
            assert value.grad is not None


def held_out(products: int, seed: int = 0) -> tuple[FusionOutput, list[HeldOutTargets]]:
    """Two classifiers' logits: the text knows the first half of the values, the picture the others."""
    random = np.random.default_rng(seed)
    text, image, known = [], [], []
    for head in HEADS:
        values = len(head.labels)
        if head.cardinality is Cardinality.ONE:
            truth = np.eye(values)[random.integers(values, size=products)]
        else:
            truth = (random.random((products, values)) < 0.4).astype(float)
        read = np.arange(values) < values / 2
        noise = random.normal(size=(2, products, values))
        text.append(torch.from_numpy(3 * (truth - 0.5) * read + noise[0]).float())
        image.append(torch.from_numpy(3 * (truth - 0.5) * ~read + noise[1]).float())
        known.append(HeldOutTargets(torch.from_numpy(truth).float(), torch.ones(products, dtype=torch.bool)))
    return FusionOutput((), experts=(tuple(text), tuple(image))), known


def settled(
    encoded: FusionOutput, known: Sequence[HeldOutTargets], seed: int = 0, **options: Any
) -> tuple[Fusion, dict[str, float]]:
    fusion = build_fusion(FusionSpec(kind="decision", options=options), sizes())
    return fusion, dict(fusion.choose_parameters(encoded, known, seed))


def class_probabilities(encoded: FusionOutput, attribute: int) -> np.ndarray:
    """(B, experts x V)"""
    return np.hstack(
        [[probability(row, HEADS[attribute]) for row in numbers(expert[attribute])] for expert in encoded.experts]
    )


def predicted(p: np.ndarray, head: Head) -> np.ndarray:
    """(B, V) bool: the top value, or every value from 1/2 on."""
    return np.eye(p.shape[1], dtype=bool)[p.argmax(axis=1)] if head.cardinality is Cardinality.ONE else p >= 0.5


def policies(fusion: Fusion, attribute: int) -> list[torch.Tensor]:
    """Return all weights of each network in a row."""
    return [
        torch.cat([value.flatten() for value in network.parameters()])
        for network in fusion.get_submodule(f"policies.{attribute}").children()
    ]


def same(first: Fusion, second: Fusion, attribute: int) -> bool:
    return torch.equal(torch.stack(policies(first, attribute)), torch.stack(policies(second, attribute)))


def relabelled(known: Sequence[HeldOutTargets], attribute: int, product: int) -> list[HeldOutTargets]:
    changed = list(copy.deepcopy(known))
    changed[attribute].truth[product] = changed[attribute].truth[product].roll(1)
    return changed


def test_choosing_parameters_fits_the_networks_and_nothing_else() -> None:
    encoded, known = held_out(40)
    fusion = build_fusion(FusionSpec(kind="decision", options={"epochs": 2}), sizes())
    before = copy.deepcopy(fusion.state_dict())
    fusion.choose_parameters(encoded, known, seed=0)
    changed = {name for name, value in fusion.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("policies")} | {"settled"}
    assert not any(value.requires_grad for value in fusion.get_submodule("policies").parameters())
    assert all(value.requires_grad for value in fusion.get_submodule("classifiers").parameters())


@pytest.mark.parametrize("attribute", [0, 1])
def test_each_network_learns_from_all_but_its_own_eighth(attribute: int) -> None:
    """After one epoch there is nothing to choose: a product's label moves all networks but the network it tests."""
    products = 21
    encoded, known = held_out(products)
    options: dict[str, Any] = {"epochs": 1, "layers": 1, "batch_size": 4}  # Adam's first step knows only signs
    known[attribute].truth[:] = torch.eye(len(HEADS[attribute].labels))[
        torch.arange(products) % len(HEADS[attribute].labels)
    ]
    fusion, _ = settled(encoded, known, **options)
    tests: dict[int, list[int]] = {network: [] for network in range(FOLDS)}
    for product in range(products):
        other, _ = settled(encoded, relabelled(known, attribute, product), **options)
        pairs = zip(policies(fusion, attribute), policies(other, attribute), strict=True)
        (tester,) = [network for network, (before, after) in enumerate(pairs) if torch.equal(before, after)]
        tests[tester].append(product)
        assert same(fusion, other, 1 - attribute)
    assert sorted(map(len, tests.values())) == [2, 2, 2, 3, 3, 3, 3, 3]


def test_products_without_a_learnable_label_are_left_out() -> None:
    encoded, known = held_out(30)
    known[0].learnable[[4, 9]] = False
    first, _ = settled(encoded, known, epochs=2)
    second, _ = settled(encoded, relabelled(relabelled(known, 0, 4), 0, 9), epochs=2)
    assert same(first, second, 0)


@pytest.mark.parametrize("attribute", [0, 1])
def test_the_epoch_with_the_best_macro_f1_on_its_own_eighth_is_kept(attribute: int) -> None:
    products, folds = 24, 2
    encoded, known = held_out(products)
    options: dict[str, Any] = {"folds": folds, "layers": 1, "learning_rate": 0.3, "batch_size": 4}
    # only the attribute in question, so that its first network draws the same numbers however long it learns
    known[1 - attribute].learnable[:] = False
    fusion, _ = settled(encoded, known, epochs=1, **options)
    own = []
    for product in range(products):
        other, _ = settled(encoded, relabelled(known, attribute, product), epochs=1, **options)
        if torch.equal(policies(fusion, attribute)[0], policies(other, attribute)[0]):
            own.append(product)
    inputs = class_probabilities(encoded, attribute)[own]

    def reached(fusion: Fusion) -> float:
        p = [probability(linear(row, fusion, f"policies.{attribute}.0"), HEADS[attribute]) for row in inputs]
        return macro_f1(predicted(np.array(p), HEADS[attribute]), known[attribute].truth[own].numpy() > 0.5)

    actual, before = [], None
    for epochs in range(1, 9):
        fusion, _ = settled(encoded, known, epochs=epochs, **options)
        actual.append(reached(fusion))
        if before is not None:
            kept = torch.equal(policies(fusion, attribute)[0], before)
            assert actual[-1] == actual[-2] if kept else actual[-1] > actual[-2]
        before = policies(fusion, attribute)[0]
    assert actual[-1] > actual[0]


def test_the_networks_prefer_the_better_classifier() -> None:
    encoded, known = held_out(160, seed=1)
    fresh, truth = held_out(120, seed=2)
    fusion, chosen = settled(encoded, known, epochs=15, batch_size=16)
    assert set(chosen) == {"policy_f1/0", "policy_f1/1"}
    for attribute, head in enumerate(HEADS):
        right = truth[attribute].truth.numpy() > 0.5
        apart = [class_probabilities(FusionOutput((), experts=(expert,)), attribute) for expert in fresh.experts]
        together = np.array([vote(fusion, inputs, attribute) for inputs in np.hstack(apart)])
        reached, *alone = (macro_f1(predicted(p, head), right) for p in (together, *apart))
        assert reached > max(alone) + 0.03
        assert chosen[f"policy_f1/{attribute}"] == pytest.approx(reached, abs=0.1)


def test_choosing_parameters_is_reproducible_and_does_not_change_the_random_state() -> None:
    encoded, known = held_out(24)
    first, again, other = (settled(encoded, known, seed=seed, epochs=2)[0] for seed in (5, 5, 6))
    for attribute in range(len(HEADS)):
        assert same(first, again, attribute)
        assert not same(first, other, attribute)
        assert len(torch.stack(policies(first, attribute)).unique(dim=0)) == FOLDS
    fusion = build_fusion(FusionSpec(kind="decision", options={"epochs": 1}), sizes())
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fusion.choose_parameters(encoded, known, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_too_few_products_for_eight_networks_leave_the_mean() -> None:
    encoded, known = held_out(12)
    known[1].learnable[7:] = False
    fusion, chosen = settled(encoded, known, epochs=1)
    assert set(chosen) == {"policy_f1/0"}
    assert fusion.get_buffer("settled").tolist() == [True, False]
