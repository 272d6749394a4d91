"""Several models that vote as one (Bi et al. 2020, section 3.4), stored in one folder like a single model.

::

    model.json                 name, heads, number of members
    members/00, members/01     a whole model version each (:mod:`catalog_enrichment.models.artifact`)
    certificates.json          of the vote, not of the members
    SHA256SUMS                 of all the others
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.models import artifact, compute_types, has_value
from catalog_enrichment.models.predictor import Predictor, Scores
from catalog_enrichment.models.spec import Head
from catalog_enrichment.models.vote import majority

MEMBERS = artifact.MEMBERS


class Scorer(Protocol):
    """Scores products: one model, or several that vote."""

    compute_type: str
    square: Square

    @property
    def heads(self) -> dict[str, Head]: ...

    def predict(self, batch: ProductBatch) -> Scores: ...

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]: ...


class VotingPredictor:
    """Majority vote of several models. The attention is the mean of the members', NaN if one has none."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        first = members[0]
        if any(member.heads != first.heads or member.square != first.square for member in members):
            raise ModelContractError(
                "the members of an ensemble must have the same attributes, values, model.image.size and trim"
            )
        self._members = list(members)
        self.square = first.square
        self.compute_type = first.compute_type

    @property
    def heads(self) -> dict[str, Head]:
        return self._members[0].heads

    def predict(self, batch: ProductBatch) -> Scores:
        """As :meth:`Predictor.predict`; see :func:`majority` for the scores. The vectors are the first member's."""
        scores = [member.predict(batch) for member in self._members]
        probabilities = {}
        for name, head in self.heads.items():
            votes = torch.from_numpy(np.stack([score.probabilities[name] for score in scores]))
            probabilities[name] = majority(votes, head.cardinality).numpy()
        attention = {name: np.mean([score.attention[name] for score in scores], axis=0) for name in self.heads}
        return Scores(probabilities, attention, scores[0].has_image, scores[0].vectors)

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        """As :meth:`Predictor.text_lengths`, of the first member."""
        return self._members[0].text_lengths(titles, descriptions)


class HasValueScorer:
    """A scorer whose probabilities are multiplied by those of having a value (:mod:`has_value`)."""

    def __init__(self, scorer: Scorer, heads: has_value.Heads) -> None:
        self._scorer, self._has_value = scorer, heads
        self.square, self.compute_type = scorer.square, scorer.compute_type

    @property
    def heads(self) -> dict[str, Head]:
        return self._scorer.heads

    def predict(self, batch: ProductBatch) -> Scores:
        """As :meth:`Predictor.predict`."""
        scores = self._scorer.predict(batch)
        factors = {name: has_value.factors(self._has_value, name, scores.vectors, scores.has_image)
                   for name in scores.probabilities}  # fmt: skip
        probabilities = {name: values * factors[name][:, None] for name, values in scores.probabilities.items()}
        return replace(scores, probabilities=probabilities)

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        """As :meth:`Predictor.text_lengths`."""
        return self._scorer.text_lengths(titles, descriptions)


def save(directory: Path, name: str, members: Sequence[Path]) -> None:
    """Complete the ensemble; :func:`artifact.save` wrote the ``members``, folders in ``directory / MEMBERS``."""
    heads = artifact.heads(members[0])
    content = {"ensemble": name, "members": len(members), "heads": {key: asdict(head) for key, head in heads.items()}}
    artifact.write_model_file(directory, content)


def load(directory: Path, device: str = "cpu", numbers: str = compute_types.FP32) -> Scorer:
    """A model version of either kind, ready to score in ``numbers`` (:mod:`compute_types`), with its has-value heads.

    Raises ModelContractError if it is damaged.
    """
    scorer = _load_members(directory, device, numbers)
    heads = has_value.load(directory)
    return HasValueScorer(scorer, heads) if heads else scorer


def _load_members(directory: Path, device: str, numbers: str) -> Scorer:
    """The model, or the models that vote, without has-value heads."""
    if not (directory / MEMBERS).is_dir():
        return Predictor.load(directory, device, numbers)
    artifact.verify(directory)
    content = json.loads((directory / artifact.MODEL).read_text())
    members = sorted((directory / MEMBERS).iterdir())
    if len(members) != content["members"]:
        raise ModelContractError(f"{directory} has {len(members)} members, not {content['members']}")
    return VotingPredictor([Predictor.load(member, device, numbers) for member in members])
