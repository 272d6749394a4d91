"""A classifier of the words of titles beside the networks, and the pool of both.

Networks read pieces of words, and learn less about a word that few products have than logistic regression on the words
does. The pool is the weighted geometric mean of the probabilities (Heskes 1998, "Selecting weighting factors
in logarithmic opinion pools"). A title without a known word leaves the networks' probabilities as they are, and so does
an attribute without an expert.

Shapes: B products, F terms, V values.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.models.spec import TITLE_CHARS
from catalog_enrichment.records import Cardinality
from catalog_enrichment.values.spelling import SAME_SIGNS, UNSPACED, combining_marks, without_invisible

WEIGHTS, TERMS = "title_words.safetensors", "title_words.json"
FILES = (WEIGHTS, TERMS)
MOST_TERMS = 30_000
"""Terms of a vocabulary, the most frequent."""
LEAST_TITLES = 2
"""Titles that a term of the vocabulary stands in, at least."""
_LEAST = 1e-12
_WORD = re.compile(rf"[{UNSPACED}]+|[^\W{UNSPACED}](?:[{combining_marks()}]|[^\W{UNSPACED}])+")
_UNSPACED = re.compile(f"[{UNSPACED}]")

Floats = NDArray[np.float32]


def terms_of(title: str | None) -> list[str]:
    """Return the words of a title of two characters and more, and every two that follow each other.

    In scripts without spaces every two characters that follow each other stand for a word, and single characters are
    terms too: a Han character is often a word. Half-width kana and full-width Latin letters are the usual ones.
    A space of zero width ends a word; soft hyphens and other characters of zero width are left out.
    """
    words, characters = list[str](), list[str]()
    visible = without_invisible(clean_text(title, TITLE_CHARS).replace("\u200b", " "))
    plain = unicodedata.normalize("NFKC", visible.translate(SAME_SIGNS)).casefold()
    for word in _WORD.findall(plain):
        if _UNSPACED.match(word):
            characters += word
            words += map("".join, pairwise(word))
        else:
            words.append(word)
    return words + [f"{first} {second}" for first, second in pairwise(words)] + characters


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Terms, and their inverse document frequencies."""

    terms: tuple[str, ...]
    """(F,)"""
    idf: Floats
    """(F,)"""
    column_of: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """Term -> its position in ``terms``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "column_of", {term: column for column, term in enumerate(self.terms)})

    @classmethod
    def of(cls, titles: Sequence[str | None], most: int = MOST_TERMS) -> Vocabulary:
        """Return the terms of ``titles``, the ``most`` frequent; none where no term is in two of them."""
        counts = Counter(term for title in titles for term in set(terms_of(title)))
        kept = sorted((term for term, count in counts.items() if count >= LEAST_TITLES), key=lambda t: (-counts[t], t))
        terms = tuple(sorted(kept[:most]))
        idf = [np.log((1 + len(titles)) / (1 + counts[term])) + 1 for term in terms]
        return cls(terms, np.array(idf, dtype=np.float32))

    def features(self, titles: Sequence[str | None]) -> Any:
        """(B, F) sparse, float32: TF-IDF with the logarithm of the frequencies, in rows of length one; a row of zeros
        for a title without a term of the vocabulary."""
        from scipy.sparse import csr_matrix

        begins, columns, counts = [0], list[int](), list[int]()
        for title in titles:
            found = Counter(self.column_of[term] for term in terms_of(title) if term in self.column_of)
            columns += found
            counts += found.values()
            begins.append(len(columns))
        rows = np.repeat(np.arange(len(titles)), np.diff(begins))
        values = (1 + np.log(np.array(counts, dtype=np.float64))) * self.idf[np.array(columns, dtype=np.int64)]
        values /= np.sqrt(np.bincount(rows, values**2, minlength=len(titles)))[rows]
        return csr_matrix((values.astype(np.float32), columns, begins), shape=(len(titles), len(self.terms)))


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
        from scipy import special

        said = np.diff(features.indptr) > 0
        own = np.asarray(features @ self.weights, dtype=np.float64) + self.bias
        if cardinality is Cardinality.ONE:
            own = special.log_softmax(own, axis=1)
        joined = (logits_of(probabilities, cardinality) + self.share * own) / self.temperature
        found = special.softmax(joined, axis=1) if cardinality is Cardinality.ONE else special.expit(joined)
        return np.where(said[:, None], found, probabilities).astype(np.float32)


def logits_of(probabilities: NDArray[Any], cardinality: Cardinality) -> NDArray[np.float64]:
    """Return the logarithms of probabilities where an attribute has one value, else their log odds; finite also for
    probabilities of 0 and 1."""
    exact = np.asarray(probabilities, dtype=np.float64)
    logits = np.log(np.clip(exact, _LEAST, None))
    return logits if cardinality is Cardinality.ONE else logits - np.log(np.clip(1 - exact, _LEAST, None))


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
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
        raise ModelContractError(f"{directory / WEIGHTS} cannot be read: {problem!r}") from problem
