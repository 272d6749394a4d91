"""Answers of models that were not trained here, read as proposals: values of the dictionary with scores.

An answer about one attribute of a product is a value, a dict with `value` and perhaps `score` and `evidence`, a list of
these (or an array of NumPy), or null: the product has no value. A language model's answer is text with JSON in it.
Nothing is guessed: what cannot be read, is no value of the dictionary or has a score that is none, is counted and is no
proposal.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from catalog_enrichment.dictionary import Dictionary, Spellings
from catalog_enrichment.precision.units import WRITABLE_RANKS, Candidate, as_scores
from catalog_enrichment.records import Cardinality

MOST_EXAMPLES = 50
"""Unmapped values of an attribute that are named, the most frequent first."""

_MOST_DISTINCT = 10_000
"""Unmapped values of an attribute that are told apart; others are counted together."""
_MOST_CHARACTERS = 100
"""Longer values are counted and not named: they are no spelling of a value."""
_MOST_BITS = 64
"""Longer whole numbers are no values; Python does not write very long ones."""
_OBJECT = re.compile(r'\{\s*["}]')
"""Where a JSON object starts."""


class Proposal(NamedTuple):
    """A value that somebody's model proposes for an attribute of a product."""

    candidate: Candidate
    evidence: str | None = None
    """Where the value comes from, such as a quote of the text; None where the answer does not say."""


@dataclass(slots=True)
class Counts:
    """What was read of the answers about an attribute, in products and answers."""

    proposed: int = 0
    """Products with at least one proposal."""
    without_value: int = 0
    """Answers that say that there is no value."""
    unreadable: int = 0
    """Answers, or values of a list, that are in none of the forms."""
    bad_score: int = 0
    """Values with a score that is no number in 0..1, or without a score beside values that have one."""
    unmapped: int = 0
    """Values that the dictionary does not have."""
    _unmapped: Counter[str] = field(default_factory=Counter)

    def examples(self, most: int | None = MOST_EXAMPLES) -> dict[str, int]:
        """Return the most frequent unmapped values -> how often each was proposed; None: all that are told apart."""
        return dict(self._unmapped.most_common(most))

    def add_unmapped(self, value: str) -> None:
        """Count a value that the dictionary does not have."""
        self.unmapped += 1
        if len(value) <= _MOST_CHARACTERS and (value in self._unmapped or len(self._unmapped) < _MOST_DISTINCT):
            self._unmapped[value] += 1


class AnswerReader:
    """Reads answers by a dictionary and counts what it reads."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._spellings = Spellings(dictionary)
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        """Attribute -> what was read of the answers about it."""

    def proposals(self, attribute: str, answers: Sequence[object], language: str | None = None) -> list[Proposal]:
        """Return the proposals for ``attribute`` of a product, best first, at most as many as can be written.

        ``answers``: the product's answers, one or several. Values without scores have the share of the answers that
        give them, which is 1 for a single answer; an answer that cannot be read gives none. Of several scores of a
        value the highest counts. Equal scores keep the order of the answers; two best values of an attribute that has
        one are no proposal.

        Raises KeyError for an attribute that the dictionary does not have.
        """
        ranks = 1 if self._dictionary[attribute].cardinality is Cardinality.ONE else WRITABLE_RANKS
        counts = self.counts[attribute]
        given = [entry for number, answer in enumerate(answers) for entry in self._entries(attribute, answer, number)]
        read = self._mapped(attribute, given, language)
        best: dict[str, tuple[float, str | None]] = {}
        if any(entry.has_score for entry in given):
            for entry in read:
                if entry.score is None:
                    counts.bad_score += 1
                elif entry.value not in best or entry.score > best[entry.value][0]:
                    best[entry.value] = (entry.score, entry.evidence)
        else:
            votes = Counter(value for value, _ in dict.fromkeys((entry.value, entry.answer) for entry in read))
            evidence = {entry.value: entry.evidence for entry in reversed(read) if entry.evidence}
            best = {value: (number / len(answers), evidence.get(value)) for value, number in votes.items()}
        order = sorted(best.items(), key=lambda item: -item[1][0])
        if ranks == 1 and len(order) > 1 and order[0][1][0] == order[1][1][0]:
            counts.unreadable += 1  # two values for one: which was meant is not guessed
            order = []
        counts.proposed += bool(order)
        order = order[:ranks]
        return [
            Proposal(Candidate(value, float(as_scores(score)), rank), evidence)
            for rank, (value, (score, evidence)) in enumerate(order, start=1)
        ]

    def _entries(self, attribute: str, answer: object, number: int) -> list[_Entry]:
        """Return the values of an answer, which is the ``number``-th of its product."""
        counts = self.counts[attribute]
        answer = _of_python(answer)
        values = [_of_python(value) for value in (answer if isinstance(answer, list | tuple) else [answer])]
        if all(map(_is_empty, values)):
            counts.without_value += 1
            return []
        entries = [_entry(value, number) for value in values]
        counts.unreadable += entries.count(None)
        return [entry for entry in entries if entry is not None]

    def _mapped(self, attribute: str, entries: Sequence[_Entry], language: str | None) -> list[_Entry]:
        """Return the entries whose value is a spelling of a value of the dictionary, with that value.

        Numbers and texts that are the same value have the first one's spelling. A number that is no text, such as 1.299
        in JSON, is read without the language.
        """
        mapped: list[_Entry] = []
        is_quantity = self._dictionary[attribute].number is not None
        for entry in entries:
            own = None if entry.is_number and is_quantity else language
            value = self._spellings.canonical(attribute, own, entry.value)
            if value is None:
                self.counts[attribute].add_unmapped(entry.value)
            else:
                known = (each.value for each in mapped if self._dictionary.is_same(attribute, each.value, value))
                mapped.append(entry._replace(value=next(known, value)))
        return mapped


class _Entry(NamedTuple):
    """A value of an answer."""

    value: str
    score: float | None
    """A number in 0..1; None for any other score, and where there is none."""
    has_score: bool
    evidence: str | None
    answer: int
    """The answer's number among those of the product."""
    is_number: bool = False
    """The value was given as a number, and not as a text."""


def _is_empty(given: object) -> bool:
    """Return whether a value, or an object with `value`, says that there is none."""
    value = given["value"] if isinstance(given, Mapping) and "value" in given else given
    return value is None or (isinstance(value, str) and not value)


def _entry(given: object, answer: int) -> _Entry | None:
    """Return a value of an answer; None for anything that is in none of the forms.

    A whole number has no decimals: a column of whole numbers with nulls comes as 36.0.
    """
    content = given if isinstance(given, Mapping) else {"value": given}
    value, score, evidence = (_of_python(content.get(name)) for name in ("value", "score", "evidence"))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return None
    text = str(value).strip()
    if not text:
        return None
    said = evidence if isinstance(evidence, str) else None
    return _Entry(text, _score(score), score is not None, said, answer, not isinstance(value, str))


def _of_python(given: object) -> object:
    """Return arrays and numbers of NumPy, which models return, as lists and numbers of Python."""
    if isinstance(given, np.ndarray):
        return [_of_python(value) for value in given] if given.ndim else _of_python(given[()])
    if isinstance(given, np.floating):
        return float(str(given))  # the number as it is written: 36.1 is not 36.099998
    return given.item() if isinstance(given, np.generic) else given


def _score(given: object) -> float | None:
    """Return a score in 0..1; None for anything else, also for text."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return float(given) if 0 <= given <= 1 else None  # False for NaN


def read_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a language model's answer; None if there is none, or it cannot be read.

    Code fences and sentences around it do not count. Which of several things was meant is not guessed: an object that
    is cut off, a key that is repeated, NaN, and a second object with another content cannot be read.
    """
    decoder = _decoder()
    found: dict[str, Any] | None = None
    place = 0
    while start := _OBJECT.search(text, place):
        try:
            content, place = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            return None
        if found is not None and json.dumps(content, sort_keys=True) != json.dumps(found, sort_keys=True):
            return None
        found = content
    return found


def read_json(text: str) -> Any:
    """Return the content of a text that is JSON and nothing else; None if it is none, as :func:`read_object` says."""
    try:
        return _decoder().decode(text)
    except (ValueError, RecursionError):
        return None


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_without_repetition, parse_constant=_refused, parse_float=_finite)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is repeated")
    return content


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is too large")
    return value


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
