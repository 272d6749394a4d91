"""The majority vote of Bi et al. 2020, section 3.4, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalog_enrichment.models.vote import majority
from catalog_enrichment.records import Cardinality


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


def test_a_narrow_majority_outranks_a_confident_minority() -> None:
    narrow, sure = [0.51, 0.49], [0.0, 1.0]
    votes = torch.tensor([[narrow]] * 5 + [[sure]] * 3)
    first, second = majority(votes, Cardinality.ONE)[0].tolist()
    assert first > second
    assert sum(narrow[0] for _ in range(5)) / 8 < 0.5  # the mean alone would say the other


@pytest.mark.parametrize("voters", [2, 3, 8])
def test_with_several_values_each_is_voted_on_by_itself(voters: int) -> None:
    random = torch.Generator().manual_seed(voters)
    votes = torch.rand(voters, 300, 4, generator=random)
    ranked = majority(votes, Cardinality.MANY)
    count, mean = (votes >= 0.5).sum(dim=0), votes.mean(dim=0)
    accepted = (2 * count > voters) | ((2 * count == voters) & (mean >= 0.5))
    assert torch.equal(ranked >= 0.5, accepted)
    assert ((ranked >= 0) & (ranked <= 1)).all()
    flat, order = ranked.flatten(), ranked.flatten().argsort()
    assert (count.flatten()[order].diff() >= 0).all()
    assert len(flat) == 1200
