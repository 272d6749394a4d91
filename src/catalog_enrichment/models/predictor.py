"""The predictor, the same for evaluation in training, the batch and the MLflow model (I8).

A model version is a single model or several that vote, with or without experts of titles' words and has-value heads,
an extractor, or both: :func:`load_predictor`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models import artifact, compute_types, has_value, title_words
from catalog_enrichment.models.extraction.extractor import Extractor, Found
from catalog_enrichment.models.fusion.base import majority
from catalog_enrichment.models.image_encoders import fold_batch_norms
from catalog_enrichment.models.network import ModelOutputs, MultiModalNet
from catalog_enrichment.models.preprocess import Preprocessor
from catalog_enrichment.models.spec import Head, ModelSpec
from catalog_enrichment.models.title_words import TitleWords
from catalog_enrichment.records import ANY_VALUE, Cardinality

SQUARE = Square(32)
"""The square of a version without a network: its pictures only tell products with a usable picture from others."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of B products."""

    probabilities: dict[str, np.ndarray]
    """Attribute -> (B, V) float32, calibrated; V in the order of the head's labels. Sums to 1 over V where the
    attribute has one value."""
    attention: dict[str, np.ndarray]
    """Attribute -> (B,) float32, the weight on the text: 1 without a picture, NaN if the fusion has no such weight."""
    has_image: np.ndarray
    """(B,) bool: the product has a usable picture."""
    vectors: np.ndarray
    """(B, D) float32: the encoders' vectors of the texts, then of the picture; 0 where a product has no such part."""
    found: dict[str, list[list[Found]]] = field(default_factory=dict)
    """Attribute without a closed list -> the values that were found in each product's text, the best first."""


class Scorer(Protocol):
    """A model version that scores products."""

    square: Square
    """The square that pictures are fitted into."""
    compute_type: str
    """Number type and device of the computation; certificates name them: other compute types give other scores."""

    @property
    def heads(self) -> dict[str, Head]:
        """Attribute -> its cardinality and labels."""

    def predict(self, batch: ProductBatch) -> Scores:
        """Score B products; pictures of side ``square.side``.

        A product's scores do not depend on the other products of the batch, except for rounding: below
        :data:`compute_types.TOLERANCE`.
        """

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        """Return the tokens of each product's texts, (B,). Batches of products of like length need little padding."""


class Predictor(Scorer):
    """A single model. Not safe for concurrent calls on an instance: its tokenizers keep state."""

    def __init__(
        self,
        net: MultiModalNet,
        tokenizers: Mapping[str, TextTokenizer],
        spec: ModelSpec,
        temperatures: Mapping[str, float],
        device: str = "cpu",
        numbers: str = compute_types.FP32,
    ) -> None:
        self._net = net.to(device).eval()
        self._preprocessor = Preprocessor(tokenizers, spec)
        self._temperatures = dict(temperatures)
        self._device, self._numbers = device, numbers
        self.square = spec.image.square
        self.compute_type = compute_types.name_of(numbers, device)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu", numbers: str = compute_types.FP32) -> Predictor:
        """Load a single model from its folder, offline, to score in ``numbers`` (:mod:`compute_types`).

        Raises ModelContractError if it is damaged.
        """
        # TF32 convolutions give different scores from the fp32 that certificates are bound to
        torch.backends.cudnn.allow_tf32 = False
        loaded = artifact.load(directory)
        if loaded.net.image is not None:
            fold_batch_norms(loaded.net.image, loaded.spec.image.size)
        return cls(loaded.net, loaded.tokenizers, loaded.spec, loaded.temperatures, device, numbers)

    @property
    def heads(self) -> dict[str, Head]:
        return self._net.heads

    def predict(self, batch: ProductBatch) -> Scores:
        inputs = self._preprocessor.inputs(batch, self._device)
        with torch.inference_mode(), compute_types.computing_in(self._numbers, self._device):
            outputs = self._net(inputs)
            probabilities = {name: self._probabilities(name, logits) for name, logits in outputs.logits.items()}
        assert outputs.encoded is not None
        vectors = outputs.encoded.vectors().float().cpu().numpy()
        return Scores(probabilities, self._attention(outputs), inputs.has_image.cpu().numpy(), vectors)

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        return self._preprocessor.text_lengths(titles, descriptions)

    def _probabilities(self, attribute: str, logits: torch.Tensor) -> np.ndarray:
        scaled = logits.float() / self._temperatures[attribute]
        has_single_value = self.heads[attribute].cardinality is Cardinality.ONE
        probabilities: np.ndarray = (scaled.softmax(dim=1) if has_single_value else scaled.sigmoid()).cpu().numpy()
        return probabilities

    def _attention(self, outputs: ModelOutputs) -> dict[str, np.ndarray]:
        if outputs.attention is None:
            batch = len(next(iter(outputs.logits.values())))
            return {name: np.full(batch, np.nan, dtype=np.float32) for name in self.heads}
        return {name: weight.float().cpu().numpy() for name, weight in outputs.attention.items()}


class VotingPredictor(Scorer):
    """The majority vote of several models (Bi et al. 2020, section 3.4); see :func:`majority` for the scores.

    The attention is the mean of the members', NaN if a member has none. The vectors are the first member's.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        first = members[0]
        if any(member.heads != first.heads or member.square != first.square for member in members):
            raise ModelContractError(
                "the members of an ensemble must have the same attributes, values, model.image.size and trim"
            )
        self._members = list(members)
        self.square, self.compute_type = first.square, first.compute_type

    @property
    def heads(self) -> dict[str, Head]:
        return self._members[0].heads

    def predict(self, batch: ProductBatch) -> Scores:
        scores = [member.predict(batch) for member in self._members]
        probabilities = {}
        for name, head in self.heads.items():
            votes = torch.from_numpy(np.stack([score.probabilities[name] for score in scores]))
            probabilities[name] = majority(votes, head.cardinality).numpy()
        attention = {name: np.mean([score.attention[name] for score in scores], axis=0) for name in self.heads}
        return Scores(probabilities, attention, scores[0].has_image, scores[0].vectors)

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        return self._members[0].text_lengths(titles, descriptions)


class _ChangedScorer(Scorer):
    """The base of scorers that change the probabilities of another."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.square, self.compute_type = scorer.square, scorer.compute_type

    @property
    def heads(self) -> dict[str, Head]:
        return self._scorer.heads

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        return self._scorer.text_lengths(titles, descriptions)


class TitleWordsScorer(_ChangedScorer):
    """A scorer whose probabilities are pooled with those of classifiers of the title's words (:mod:`title_words`)."""

    def __init__(self, scorer: Scorer, words: TitleWords) -> None:
        super().__init__(scorer)
        self._words = words

    def predict(self, batch: ProductBatch) -> Scores:
        scores = self._scorer.predict(batch)
        cardinalities = {name: head.cardinality for name, head in self.heads.items()}
        return replace(scores, probabilities=self._words.pooled(scores.probabilities, cardinalities, batch.titles))


class HasValueScorer(_ChangedScorer):
    """A scorer whose probabilities are multiplied by the probability of having a value (:mod:`has_value`)."""

    def __init__(self, scorer: Scorer, heads: has_value.Heads) -> None:
        super().__init__(scorer)
        self._has_value = heads

    def predict(self, batch: ProductBatch) -> Scores:
        scores = self._scorer.predict(batch)
        probabilities = {
            name: values * has_value.factors(self._has_value, name, scores.vectors, scores.has_image)[:, None]
            for name, values in scores.probabilities.items()
        }
        return replace(scores, probabilities=probabilities)


class ExtractingScorer(Scorer):
    """An extractor for the attributes without a closed list, beside a ``scorer`` for the others, if there is any.

    The probability of an open attribute is that of the best value that was found, 0 where none was.
    """

    def __init__(self, scorer: Scorer | None, extractor: Extractor, compute_type: str) -> None:
        self._scorer, self._extractor = scorer, extractor
        self.square = scorer.square if scorer else SQUARE
        self.compute_type = compute_type

    @property
    def heads(self) -> dict[str, Head]:
        own = {name: Head(Cardinality.ONE, (ANY_VALUE,)) for name in self._extractor.attributes}
        return (self._scorer.heads if self._scorer else {}) | own

    def predict(self, batch: ProductBatch) -> Scores:
        proposed = self._extractor.propose(batch.titles, batch.descriptions)
        pictured = np.array([picture is not None for picture in batch.pictures], dtype=bool)
        scores = self._scorer.predict(batch) if self._scorer else Scores({}, {}, pictured, proposed.vectors)
        probabilities = {
            name: np.array([[found[0].score if found else 0.0] for found in of_products], dtype=np.float32)
            for name, of_products in proposed.found.items()
        }
        unknown = {name: np.full(len(batch), np.nan, dtype=np.float32) for name in probabilities}
        return replace(
            scores,
            probabilities=scores.probabilities | probabilities,
            attention=scores.attention | unknown,
            found=proposed.found,
        )

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        return (self._scorer or self._extractor).text_lengths(titles, descriptions)


def load_predictor(directory: Path, device: str = "cpu", numbers: str = compute_types.FP32) -> Scorer:
    """Load a model version of any kind, with all that belongs to it, to score in ``numbers`` (:mod:`compute_types`).

    Raises ModelContractError if it is damaged.
    """
    artifact.verify(directory)
    scorer = _networks(directory, device, numbers) if artifact.has_network(directory) else None
    if not (directory / artifact.EXTRACTION).is_dir():
        assert scorer is not None, "a version without an extractor has a network"
        return scorer
    extractor = Extractor.load(directory / artifact.EXTRACTION, device, numbers)
    return ExtractingScorer(scorer, extractor, compute_types.name_of(numbers, device))


def _networks(directory: Path, device: str, numbers: str) -> Scorer:
    """Load the network, or the networks that vote, with the experts of words and the has-value heads."""
    scorer: Scorer
    if (directory / artifact.MEMBERS).is_dir():
        content = json.loads((directory / artifact.MODEL).read_text())
        members = sorted((directory / artifact.MEMBERS).iterdir())
        if len(members) != content["members"]:
            raise ModelContractError(f"{directory} has {len(members)} members, not {content['members']}")
        scorer = VotingPredictor([Predictor.load(member, device, numbers) for member in members])
    else:
        scorer = Predictor.load(directory, device, numbers)
    if (words := title_words.load(directory)) is not None:
        scorer = TitleWordsScorer(scorer, words)
    heads = has_value.load(directory)
    return HasValueScorer(scorer, heads) if heads else scorer
