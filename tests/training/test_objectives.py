from __future__ import annotations

import numpy as np
import pytest
import torch

from catalog_enrichment.models.network import ModelOutputs
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.objectives import Classification, Target, attribute_loss, total_loss


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


def test_loss_without_any_label_is_zero_with_zero_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = attribute_loss(logits, target(Cardinality.ONE), torch.tensor([3, 3]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_losses_match_their_formulas_and_smoothing_moves_a_share_of_the_truth_to_all_values(smoothing):
    logits, index, scores = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]), np.array([2.0, 0, -1])
    truth = np.array([1.0, 0, 0]) * (1 - smoothing)
    single, many = (float(attribute_loss(logits, target(kind), index, smoothing)) for kind in Cardinality)
    log_softmax = np.log(np.exp(scores) / np.exp(scores).sum())
    assert single == pytest.approx(-((truth + smoothing / 3) * log_softmax).sum(), rel=1e-5)
    log_sigmoid, log_rest = -np.log1p(np.exp(-scores)), -np.log1p(np.exp(scores))
    smoothed = truth + smoothing / 2
    assert many == pytest.approx(-(smoothed * log_sigmoid + (1 - smoothed) * log_rest).sum(), rel=1e-5)


def with_refused(cardinality: Cardinality) -> Target:
    """The third value of the last product is refused, all values of the second, and the first value of the third, whose
    right value is known."""
    known = target(cardinality)
    refused = torch.tensor([[False] * 3, [True] * 3, [True, False, False], [False, False, True]])
    learnable = torch.tensor([True, False, True, False])
    return Target(cardinality, known.truth, learnable, refused)


def test_a_refused_value_is_the_likelihood_of_all_others():
    logits = torch.tensor([[2.0, 0.0, -1.0], [1.0, 1.0, 1.0], [0.0, 3.0, 0.5], [1.0, -2.0, 0.5]], requires_grad=True)
    softmax = np.exp(logits.detach().numpy()) / np.exp(logits.detach().numpy()).sum(axis=1, keepdims=True)
    sigmoid = 1 / (1 + np.exp(-logits.detach().numpy()))
    first, third = -np.log(softmax[0, 0]), -np.log(softmax[2, 2])
    single = attribute_loss(logits, with_refused(Cardinality.ONE), torch.arange(4))
    refused = -np.log(softmax[3, 0] + softmax[3, 1])
    assert float(single.detach()) == pytest.approx((first + third + refused) / 3, rel=1e-5)
    single.backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().sum() == 0, "where all learned values are refused nothing is learned"
    assert logits.grad[3, 2] > 0, "the refused value becomes less probable"

    many = attribute_loss(logits[[3, 1]], with_refused(Cardinality.MANY), torch.tensor([3, 1]))
    no = -np.log(1 - sigmoid[3, 2]), -np.log(1 - sigmoid[1]).sum()
    assert float(many.detach()) == pytest.approx(sum(no) / 2, rel=1e-5)


@pytest.mark.parametrize("cardinality", list(Cardinality))
def test_refused_values_of_other_products_change_nothing(cardinality):
    logits, index = torch.randn(2, 3), torch.tensor([0, 2])
    assert float(attribute_loss(logits, with_refused(cardinality), index)) == float(
        attribute_loss(logits, target(cardinality), index)
    )


def test_refused_values_are_part_of_the_identity():
    plain, refused = target(Cardinality.ONE), with_refused(Cardinality.ONE)
    without = Target(Cardinality.ONE, refused.truth, refused.learnable)
    assert Classification({"color": refused}).identity() != Classification({"color": without}).identity()
    assert Classification({"color": plain}).identity() == Classification({"color": without}).identity()


def test_total_loss_is_equation_4_as_a_mean():
    p = torch.tensor([0.9, 0.2])
    outputs = ModelOutputs({"color": torch.zeros(2, 3)}, {"color": p})
    kl = (p * p.log() + (1 - p) * (1 - p).log() + np.log(2)).mean()
    plain = total_loss(outputs, {"color": target(Cardinality.ONE)}, torch.tensor([0, 1]))
    assert float(plain) == pytest.approx(np.log(3), rel=1e-5)
    regularised = total_loss(outputs, {"color": target(Cardinality.ONE)}, torch.tensor([0, 1]), kl_lambda=0.5)
    assert float(regularised - plain) == pytest.approx(0.5 * float(kl), rel=1e-4)


def test_with_decision_fusion_the_loss_is_of_every_classifier_and_not_of_the_mixture():
    fused = torch.zeros(2, 3, requires_grad=True)
    text, image = torch.randn(2, 3), torch.randn(2, 3)
    targets, index = {"color": target(Cardinality.ONE)}, torch.tensor([0, 1])
    outputs = ModelOutputs({"color": fused}, None, ({"color": text}, {"color": image}))
    separate = [float(total_loss(ModelOutputs({"color": logits}, None), targets, index)) for logits in (text, image)]
    together = total_loss(outputs, targets, index)
    assert float(together) == pytest.approx(sum(separate), rel=1e-6)
    assert not together.requires_grad
