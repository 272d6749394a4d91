"""The extractor of a model version: the values of its attributes that it finds in texts, each with its evidence.

Its folder loads without network access and without unpickling (I8)::

    model.safetensors      weights
    lexicon.safetensors    values that merchants gave, as hashes, with counts (:mod:`.lexicon`)
    extraction.json        recipe, attributes with their kinds, temperature
    tokenizer/, encoder/config.json   as transformers saves them

Shapes: B products, S segments (a product and attribute each), K kept places of a segment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError, ModelContractError
from catalog_enrichment.inputs.text import TextTokenizer, clean_text
from catalog_enrichment.models import compute_types, self_contained, version_files
from catalog_enrichment.models.extraction.lexicon import Lexicon
from catalog_enrichment.models.extraction.network import ExtractionNet, Kept, PlaceTensors
from catalog_enrichment.models.extraction.places import Own, PlaceFinder, Places
from catalog_enrichment.models.extraction.recipe import ExtractionRecipe
from catalog_enrichment.models.pretrained import UNUSABLE, error_summary, pretrained_config
from catalog_enrichment.models.text_encoders import Tokens, text_encoder_from_config
from catalog_enrichment.values import same
from catalog_enrichment.values.kinds import OpenRule

WEIGHTS, LEXICON, CONTENT = "model.safetensors", "lexicon.safetensors", "extraction.json"
TOKENIZER, ENCODER = "tokenizer", "encoder"

LEAST_PROBABILITY = 1e-3
"""Values that are less probable are not proposed."""
_LEAST_OF_PLACE = 1e-6
"""Places that are less probable do not count: together they are within the tolerance of scores."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value that was found in a product's text."""

    value: str
    """As it is stored (:func:`values.same.stored`)."""
    score: float
    """Calibrated probability that it is the product's value, of all places where the text says it together."""
    evidence: str
    """The part of the text that says it, word for word."""
    in_description: bool
    start: int
    """Where the evidence begins in the cleaned text, in characters."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """What was found in the texts of B products."""

    found: dict[str, list[list[Found]]]
    """Attribute -> product -> the values, the best first."""
    vectors: NDArray[np.float32]
    """(B, H): the encoder's vectors of the texts."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Places of B products, and their logits."""

    places: Places
    kept: Kept
    ranking: torch.Tensor
    """(P,) logits of the first ranking."""
    logits: torch.Tensor
    """(S, K + 1), the last column "none of them"."""
    vectors: torch.Tensor
    """(B, H)"""


class Extractor:
    """An extractor in memory. Not safe for concurrent calls on an instance: its tokenizer keeps state."""

    def __init__(
        self,
        recipe: ExtractionRecipe,
        rules: Mapping[str, OpenRule],
        tokenizer: TextTokenizer,
        net: ExtractionNet,
        lexicon: Lexicon,
        temperature: float = 1.0,
        device: str = "cpu",
        numbers: str = compute_types.FP32,
    ) -> None:
        self.recipe, self.rules, self.tokenizer = recipe, dict(rules), tokenizer
        self.net = net.to(device)
        self.finder = PlaceFinder(rules, lexicon, recipe.candidates)
        self.temperature = temperature
        self._device, self._numbers = device, numbers

    @property
    def attributes(self) -> list[str]:
        """The attributes, in the order of the network's vectors."""
        return list(self.rules)

    def cleaned(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> tuple[list[str], list[str]]:
        """Return the texts as they are read."""
        most = self.recipe.text.max_chars
        return [clean_text(text, most) for text in titles], [clean_text(text, most) for text in descriptions]

    def propose(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> Proposed:
        """Return the values that are found in the texts of B products."""
        if not len(titles):  # transformers cannot reshape an empty batch
            nothing = np.zeros((0, self.net.encoder.width), dtype=np.float32)
            return Proposed({name: [] for name in self.rules}, nothing)
        first, second = self.cleaned(titles, descriptions)
        with torch.inference_mode():
            judged = self.judged(first, second)
            probabilities = (judged.logits / self.temperature).softmax(dim=1)[:, :-1].cpu().numpy()
        found: dict[str, list[list[Found]]] = {name: [[] for _ in first] for name in self.rules}
        names, kept = self.attributes, judged.kept
        products, attributes = kept.product.tolist(), kept.attribute.tolist()
        place = kept.place.cpu().numpy()
        for segment in range(len(products)):
            name = names[attributes[segment]]
            found[name][products[segment]] = self._values(
                name, judged.places, place[segment], probabilities[segment], (first, second)
            )
        return Proposed(found, judged.vectors.cpu().numpy())

    def judged(self, titles: Sequence[str], descriptions: Sequence[str], own: Own | None = None) -> Judged:
        """Return the logits of the places of B products with clean texts; ``own``: in training, their labels."""
        places = self.finder.find(titles, descriptions, own)
        columns_of = (places.attribute, places.specific, places.part, places.common, places.words)
        tensors = PlaceTensors(*(torch.from_numpy(column).to(self._device) for column in columns_of))
        columns, token_places = self.tokenizer.encode_with_places(titles, descriptions, self.recipe.text.max_length)
        of_token = {name: torch.from_numpy(column) for name, column in columns.items()}
        present = torch.ones(len(titles), dtype=torch.bool)
        tokens = Tokens(of_token["input_ids"], of_token["attention_mask"], of_token.get("token_type_ids"), present)
        ranking, hidden = self.net.ranked(tensors)
        kept = self._kept(places, ranking.detach().cpu().numpy(), token_places, None if own is None else own.right)
        with compute_types.computing_in(self._numbers, self._device):
            logits, vectors = self.net(tokens.to(self._device), kept, ranking, hidden)
        return Judged(places, kept, ranking, logits.float(), vectors.float())

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        """Return the tokens of each product's texts, (B,)."""
        first, second = self.cleaned(titles, descriptions)
        columns = self.tokenizer.encode(first, second, self.recipe.text.max_length)
        return np.asarray(columns["attention_mask"].sum(axis=1, dtype=np.int64))

    def _values(
        self,
        name: str,
        places: Places,
        kept: NDArray[np.int64],
        probabilities: NDArray[np.float32],
        texts: tuple[Sequence[str], Sequence[str]],
    ) -> list[Found]:
        """Return the values of the places that are kept of one product and attribute, the best first."""
        rule = self.rules[name]
        of_values: list[list[tuple[float, int]]] = []
        looked_at = [
            pair for pair in zip(probabilities.tolist(), kept.tolist(), strict=True) if pair[0] >= _LEAST_OF_PLACE
        ]
        for probability, place in sorted(looked_at, reverse=True):
            of_value = next((known for known in of_values if _say_the_same(places, place, known[0][1], rule)), None)
            if of_value is None:
                of_values.append([(probability, place)])
            else:
                of_value.append((probability, place))
        found = []
        for of_value in of_values:
            _, best = of_value[0]
            field = bool(places.in_description[best])
            start, end = int(places.start[best]), int(places.end[best])
            evidence = texts[field][int(places.product[best])][start:end]
            value = places.value[best] or same.stored(evidence, rule)
            # once through float32, as the scores of a training
            score = float(np.float32(min(sum(probability for probability, _ in of_value), 1.0)))
            if value and score >= LEAST_PROBABILITY:
                found.append(Found(value, score, evidence, field, start))
        return sorted(found, key=lambda each: -each.score)

    def _kept(self, places: Places, ranking: NDArray[np.float32], tokens: Any, right: Any) -> Kept:
        """Return the best places of every product and attribute by the first ranking. ``right``: places that are kept
        whatever their rank, in training."""
        most = self.recipe.candidates.kept
        score = ranking if right is None else np.where(right(places), np.inf, ranking)
        segment_key = places.product * len(self.rules) + places.attribute
        order = np.lexsort((-score, segment_key))
        sorted_key = segment_key[order]
        segments, begin = np.unique(sorted_key, return_index=True)
        rank = np.arange(len(order)) - np.repeat(begin, np.diff(np.append(begin, len(order))))
        row = np.repeat(np.arange(len(segments)), np.diff(np.append(begin, len(order))))
        inside = rank < most
        place = np.zeros((len(segments), most), dtype=np.int64)
        known = np.zeros((len(segments), most), dtype=bool)
        place[row[inside], rank[inside]] = order[inside]
        known[row[inside], rank[inside]] = True
        flat = place.ravel()
        text = places.product[flat] * 2 + places.in_description[flat] if len(places) else flat
        first = tokens.of(text, places.start[flat]) if len(places) else flat
        last = tokens.of(text, places.end[flat] - 1) if len(places) else flat
        tensors = (
            torch.from_numpy(np.asarray(column).reshape(known.shape)).to(self._device) for column in (first, last)
        )
        product, attribute = segments // len(self.rules), segments % len(self.rules)
        return Kept(
            torch.from_numpy(place).to(self._device),
            torch.from_numpy(known).to(self._device),
            torch.from_numpy(product).to(self._device),
            torch.from_numpy(attribute).to(self._device),
            *tensors,
        )

    def save(self, directory: Path) -> None:
        """Write the extractor into a new or empty folder."""
        directory.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.net.state_dict().items()},
                  directory / WEIGHTS)  # fmt: skip
        known = self.finder.lexicon.known
        save_arrays(self.finder.lexicon.arrays(), directory / LEXICON)
        self.tokenizer.save(directory / TOKENIZER)
        self.net.encoder.config.save_pretrained(str(directory / ENCODER))
        plain = self.recipe.to_plain()
        if plain["text"]["name"].startswith((".", "/", "~")):
            plain["text"]["name"] = Path(plain["text"]["name"]).name
        content = {
            "recipe": plain,
            "attributes": {name: asdict(rule) for name, rule in self.rules.items()},
            "logs": {name: list(of.logs) for name, of in known.items()},
            "temperature": self.temperature,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (directory / CONTENT).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, device: str = "cpu", numbers: str = compute_types.FP32) -> Extractor:
        """Read what :meth:`save` wrote, offline, to score in ``numbers``. Raises ModelContractError."""
        try:
            with self_contained.watched(directory):
                return cls._load(directory, device, numbers)
        except (ConfigError, *UNUSABLE) as problem:
            raise ModelContractError(
                f"{directory} cannot be loaded: {error_summary(problem)} {version_files.REMEDY}"
            ) from problem

    @classmethod
    def _load(cls, directory: Path, device: str, numbers: str) -> Extractor:
        content = json.loads((directory / CONTENT).read_text(encoding="utf-8"))
        recipe = strict.build(ExtractionRecipe, content["recipe"], CONTENT)
        rules = {name: OpenRule.of_plain(rule) for name, rule in content["attributes"].items()}
        self_contained.check_configs(directory)
        encoder = text_encoder_from_config(pretrained_config(str(directory / ENCODER), local=True), recipe.text)
        net = ExtractionNet(encoder, len(rules))
        net.load_state_dict(load_file(directory / WEIGHTS))
        lexicon = Lexicon.of_arrays(content["logs"], load_arrays(directory / LEXICON))
        tokenizer = TextTokenizer.load(directory / TOKENIZER)
        return cls(recipe, rules, tokenizer, net.eval(), lexicon, content["temperature"], device, numbers)


def _say_the_same(places: Places, first: int, second: int, rule: OpenRule) -> bool:
    """Return whether two places of a text say the same value: 20 in and 51 cm do."""
    if rule.number is None or places.key[first] == places.key[second]:
        return bool(places.key[first] == places.key[second])
    return rule.number.is_same(float(places.number[first]), float(places.number[second]))
