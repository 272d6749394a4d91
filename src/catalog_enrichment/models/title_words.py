"""A classifier of the words of titles beside the networks, and the pool of both.

Networks read pieces of words, and learn of a word that few products have less than logistic regression on the words
themselves does. The pool is the weighted geometric mean of the probabilities (Heskes 1998, "Selecting weighting factors
in logarithmic opinion pools"). A title without a known word leaves the networks' probabilities as they are, and so does
an attribute without an expert.

Shapes: B products, F terms, V values.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import special
from scipy.sparse import csr_matrix

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.records import Cardinality

WEIGHTS, TERMS = "title_words.safetensors", "title_words.json"
FILES = (WEIGHTS, TERMS)
MOST_TERMS = 30_000
"""Terms of a vocabulary, the most frequent."""
LEAST_TITLES = 2
"""Titles that a term of the vocabulary stands in, at least."""
_MAX_CHARS = 1_000
_LEAST = 1e-12
_WORD = re.compile(r"\w\w+")

Floats = NDArray[np.float32]


def terms_of(title: str | None) -> list[str]:
    """Return the words of a title of two characters and more, and every two that follow each other."""
    words = _WORD.findall(clean_text(title, _MAX_CHARS).casefold())
    return words + [f"{first} {second}" for first, second in pairwise(words)]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Terms, and their inverse document frequencies."""

    terms: tuple[str, ...]
    """(F,)"""
    idf: Floats
    """(F,)"""

    @classmethod
    def of(cls, titles: Sequence[str | None]) -> Vocabulary:
        """Return the most frequent terms of ``titles``; none where no term is in two of them."""
        counts = Counter(term for title in titles for term in set(terms_of(title)))
        kept = sorted((term for term, count in counts.items() if count >= LEAST_TITLES), key=lambda t: (-counts[t], t))
        terms = tuple(sorted(kept[:MOST_TERMS]))
        idf = [np.log((1 + len(titles)) / (1 + counts[term])) + 1 for term in terms]
        return cls(terms, np.array(idf, dtype=np.float32))

    def features(self, titles: Sequence[str | None]) -> Any:
        """(B, F) sparse, float32: TF-IDF with the logarithm of the frequencies, in rows of length one; a row of zeros
        for a title without a term of the vocabulary."""
        column_of = {term: column for column, term in enumerate(self.terms)}
        begins, columns, values = [0], list[int](), list[float]()
        for title in titles:
            counts = Counter(column_of[term] for term in terms_of(title) if term in column_of)
            weights = [(1 + np.log(count)) * self.idf[column] for column, count in counts.items()]
            length = float(np.sqrt(sum(weight * weight for weight in weights))) or 1.0
            columns += counts
            values += [weight / length for weight in weights]
            begins.append(len(columns))
        shape = (len(titles), len(self.terms))
        return csr_matrix((np.array(values, dtype=np.float32), columns, begins), shape=shape)


@dataclass(frozen=True, slots=True)
class WordExpert:
    """Logistic regression on the words of titles, for one attribute, and its share of the pool."""

    weights: Floats
    """(F, V)"""
    bias: Floats
    """(V,)"""
    share: float
    """The weight of its logits; the networks' have the weight 1."""
    temperature: float
    """Divisor of the sum."""

    def pooled(self, probabilities: NDArray[Any], features: Any, cardinality: Cardinality) -> Floats:
        """(B, V) the pool of ``probabilities`` (B, V) and of the expert's for ``features`` (B, F)."""
        said = np.diff(features.indptr) > 0
        own = logits_of(np.asarray(features @ self.weights) + self.bias, cardinality)
        networks = np.log(np.clip(probabilities, _LEAST, None))
        if cardinality is Cardinality.MANY:
            networks -= np.log(np.clip(1 - probabilities, _LEAST, None))
        joined = (networks + self.share * own) / self.temperature
        found = special.softmax(joined, axis=1) if cardinality is Cardinality.ONE else special.expit(joined)
        return np.where(said[:, None], found, probabilities).astype(np.float32)


def logits_of(scores: NDArray[Any], cardinality: Cardinality) -> NDArray[Any]:
    """Return the logarithms of probabilities where an attribute has one value, else the scores: they are log odds."""
    return np.asarray(special.log_softmax(scores, axis=1)) if cardinality is Cardinality.ONE else scores


@dataclass(frozen=True, slots=True)
class TitleWords:
    """The experts of a model version."""

    vocabulary: Vocabulary
    experts: Mapping[str, WordExpert]
    """Attribute -> its expert; an attribute may have none."""

    def pooled(
        self,
        probabilities: Mapping[str, NDArray[Any]],
        cardinalities: Mapping[str, Cardinality],
        titles: Sequence[str | None],
    ) -> dict[str, NDArray[Any]]:
        """Return attribute -> the pooled probabilities (B, V); those of an attribute without an expert as they are."""
        features = self.vocabulary.features(titles)
        return {
            name: self.experts[name].pooled(values, features, cardinalities[name]) if name in self.experts else values
            for name, values in probabilities.items()
        }

    def save(self, directory: Path) -> None:
        """Write the experts into a model version's folder. Its checksums are not renewed."""
        arrays, described = {"idf": self.vocabulary.idf}, {}
        for number, (name, expert) in enumerate(self.experts.items()):
            arrays |= {f"{number}.weights": np.ascontiguousarray(expert.weights), f"{number}.bias": expert.bias}
            described[name] = {"share": expert.share, "temperature": expert.temperature}
        save_file(arrays, directory / WEIGHTS)
        content = {"attributes": described, "terms": self.vocabulary.terms}
        (directory / TERMS).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def load(directory: Path) -> TitleWords | None:
    """Return the experts in a model version's folder, if any. Raises ModelContractError for a damaged file."""
    if not (directory / TERMS).is_file():
        return None
    try:
        content = json.loads((directory / TERMS).read_text(encoding="utf-8"))
        arrays = load_file(directory / WEIGHTS)
        experts = {
            name: WordExpert(arrays[f"{number}.weights"], arrays[f"{number}.bias"], of["share"], of["temperature"])
            for number, (name, of) in enumerate(content["attributes"].items())
        }
        return TitleWords(Vocabulary(tuple(content["terms"]), arrays["idf"]), experts)
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as problem:
        raise ModelContractError(f"{directory / WEIGHTS} cannot be read: {problem!r}") from problem
