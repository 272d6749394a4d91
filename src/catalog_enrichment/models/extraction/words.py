"""The words of products' texts as arrays, and every run of words in them.

A run has the hash of its key (:func:`values.spelling.text_key`: the letters, digits and meaningful signs, in one
spelling) and of its shape, so that a lexicon finds it without building its text. Hashes of concatenated tokens are
polynomials modulo 2**64, which are computed for all runs of a batch at once.

Words that stand together without a space, as in "13w x 4d" and "Hard DrivePart Number", are words of their own: shops'
texts lose spaces and line breaks.

Shapes: T tokens of all texts of a batch, R runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.values.spelling import SAME_SIGNS, carries_meaning, combining_marks, text_key

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Bools = NDArray[np.bool_]

TITLE, DESCRIPTION = 0, 1

_TOKEN = re.compile(rf"[^\W_](?:[^\W_]|[{combining_marks()}])*|[^\w\s]|_")
_BASE = 0x100000001B3
_MASK = (1 << 64) - 1
_SIGN = 5
"""The kind of a token that is a sign."""
_MOST_PIECES = 4
"""A word with more changes between digits, small letters and capitals is a code, and is not cut."""
_MOST_TOKENS = 3
"""Tokens of a run per word, at most, signs included."""
_ATTACHED = frozenset("%+#°*")
"""Signs that belong to the word before them."""
_MOST_ATTACHED = 3
"""Signs that belong to one word: the energy class A+++."""


@dataclass(frozen=True, slots=True)
class Words:
    """The tokens of B products' texts, product by product, the title first."""

    texts: Sequence[tuple[str, str]]
    """(B,) title and description."""
    product: Ints
    """(T,) the product of each token."""
    in_description: Bools
    """(T,)"""
    start: Ints
    """(T,) where the token begins in its text, characters."""
    end: Ints
    """(T,) where it ends."""
    is_word: Bools
    """(T,) letters or digits, not a sign."""
    place: Ints
    """(T,) the number of words before it in its text."""
    left: Ints
    """(T,) the number of words from it to the end of its text, itself included."""
    code: Hashes
    """(T,) hash of what the token adds to a key; 0 for signs without meaning."""
    power: Hashes
    """(T,) the factor of the hash of what stands before it."""
    shape: Hashes
    """(T,) hash of the token's shape: capitals, small letters, digits."""
    kind: Ints
    """(T,) 0 small letters, 1 capitalised, 2 capitals, 3 digits, 4 letters and digits, 5 a sign."""
    identity: Hashes
    """(T,) hash of the token itself, in small letters; signs have one too."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of words; a run does not leave its text."""

    first: Ints
    """(R,) the position of its first token."""
    last: Ints
    """(R,) the position of its last token, a sign that belongs to the word before it included."""
    words: Ints
    """(R,) its number of words."""
    key: Hashes
    """(R,) hash of its key."""
    shape: Hashes
    """(R,) hash of its shape."""


def split(titles: Sequence[str], descriptions: Sequence[str], most: int) -> Words:
    """Return the words of clean texts, at most ``most`` of each text."""
    columns: list[list[int]] = [[] for _ in range(11)]
    product_of, described, starts, ends, places, lefts, codes, powers, shapes, kinds, identities = columns
    texts = list(zip(titles, descriptions, strict=True))
    for product, pair in enumerate(texts):
        for field, text in enumerate(pair):
            plain = text.translate(SAME_SIGNS)
            count, begin = 0, len(starts)
            for at, token in _tokens(plain):
                code, power, shape, kind = _token(token)
                if kind != _SIGN and count == most:
                    break
                identities.append(code)
                if kind == _SIGN and not carries_meaning(plain, at):
                    code, power = 0, 1
                starts.append(at)
                ends.append(at + len(token))
                places.append(count)
                codes.append(code)
                powers.append(power)
                shapes.append(shape)
                kinds.append(kind)
                count += kind != _SIGN
            number = len(starts) - begin
            product_of += [product] * number
            described += [field] * number
            lefts += [count - place for place in places[begin:]]
    kind_of = np.array(kinds, dtype=np.int64)
    return Words(
        texts=texts,
        product=np.array(product_of, dtype=np.int64),
        in_description=np.array(described, dtype=bool),
        start=np.array(starts, dtype=np.int64),
        end=np.array(ends, dtype=np.int64),
        is_word=kind_of != _SIGN,
        place=np.array(places, dtype=np.int64),
        left=np.array(lefts, dtype=np.int64),
        code=np.array(codes, dtype=np.uint64),
        power=np.array(powers, dtype=np.uint64),
        shape=np.array(shapes, dtype=np.uint64),
        kind=kind_of,
        identity=np.array(identities, dtype=np.uint64),
    )


def runs(words: Words, most: int) -> Runs:
    """Return every run of 1 to ``most`` words."""
    tokens = len(words.start)
    text = words.product * 2 + words.in_description
    begin = np.flatnonzero(words.is_word)
    key, shape = words.code[begin].copy(), words.shape[begin].copy()
    count = np.ones(len(begin), dtype=np.int64)
    found = [(begin, begin, count.copy(), key.copy(), shape.copy())]
    alive = np.arange(len(begin))
    for step in range(1, most * _MOST_TOKENS):
        at = begin[alive] + step
        alive = alive[at < tokens]
        at = begin[alive] + step
        alive = alive[(text[at] == text[begin[alive]]) & (count[alive] + words.is_word[at] <= most)]
        if not len(alive):
            break
        at = begin[alive] + step
        key[alive] = key[alive] * words.power[at] + words.code[at]
        shape[alive] = shape[alive] * np.uint64(_BASE) + words.shape[at]
        count[alive] += words.is_word[at]
        ends = alive[words.is_word[at]]
        found.append((begin[ends], begin[ends] + step, count[ends].copy(), key[ends].copy(), shape[ends].copy()))
    first, last, number, keys, shapes = (np.concatenate(column) for column in zip(*found, strict=True))
    for _ in range(_MOST_ATTACHED):
        last, keys = _with_attached_sign(words, last, keys)
    order = np.lexsort((number, first))
    return Runs(first[order], last[order], number[order], keys[order], shapes[order])


def _with_attached_sign(words: Words, last: Ints, key: Hashes) -> tuple[Ints, Hashes]:
    """Return the last tokens and keys of runs with the next sign that belongs to their last word: 4", A+, A-, 50%."""
    if not len(last):
        return last, key
    after = np.minimum(last + 1, len(words.start) - 1)
    text = words.product * 2 + words.in_description
    touches = (text[after] == text[last]) & (words.start[after] == words.end[last])
    follows = (after > last) & touches & ~words.is_word[after]
    belongs = np.zeros(len(words.start), dtype=bool)
    for token in np.unique(after[follows]).tolist():
        at, read = int(words.start[token]), words.texts[words.product[token]][int(words.in_description[token])]
        before, sign = read[at - 1 : at + 1].translate(SAME_SIGNS)
        is_grade = sign == "-" and before.isalpha() and bool(words.code[token])
        belongs[token] = sign in _ATTACHED or is_grade or (sign in "\"'" and before.isdigit())
    attached = follows & belongs[after]
    with_sign = np.where(attached, after, last)
    return with_sign, np.where(attached, key * words.power[after] + words.code[after], key)


def _tokens(plain: str) -> Iterator[tuple[int, str]]:
    """Yield the tokens of a text with the positions where they begin."""
    for match in _TOKEN.finditer(plain):
        at = match.start()
        for piece in _pieces(match.group()):
            yield at, piece
            at += len(piece)


@lru_cache(maxsize=200_000)
def _pieces(token: str) -> tuple[str, ...]:
    """Return a token cut where a letter follows a digit, or a capital follows a small letter."""
    if token.isalpha() and (token.islower() or token[1:].islower()):
        return (token,)
    cuts = [
        at
        for at in range(1, len(token))
        if (token[at].isalpha() and token[at - 1].isdigit()) or (token[at].isupper() and token[at - 1].islower())
    ]
    if not 0 < len(cuts) < _MOST_PIECES:
        return (token,)
    return tuple(token[start:end] for start, end in zip([0, *cuts], [*cuts, len(token)], strict=True))


@lru_cache(maxsize=200_000)
def _token(token: str) -> tuple[int, int, int, int]:
    """Return hash, power, hash of the shape and kind of a token."""
    kind = _kind(token)
    code, length = _hashed(text_key(token) if kind != _SIGN else unicodedata.normalize("NFKC", token).casefold())
    return code, pow(_BASE, length, _MASK + 1), _hashed(_shape(token, kind))[0], kind


def _kind(token: str) -> int:
    if not token[0].isalnum():
        return _SIGN
    digits = sum(char.isdigit() for char in token)
    if digits == len(token):
        return 3
    if digits:
        return 4
    if token.isupper():
        return 2
    return 1 if token[0].isupper() else 0


def _shape(token: str, kind: int) -> str:
    """Return the token with classes for letters and digits; words without digits have one shape for every length."""
    if kind == _SIGN:
        return token
    if kind < 3:
        return "aAB"[kind]
    return "".join("9" if char.isdigit() else "A" if char.isupper() else "a" for char in token)


def _hashed(text: str) -> tuple[int, int]:
    """Return the polynomial hash of a text, and the number of its characters."""
    code = 0
    for char in text:
        code = (code * _BASE + ord(char) + 1) & _MASK
    return code, len(text)


@lru_cache(maxsize=100_000)
def key_of(value: str) -> int:
    """Return the hash of a stored text's key, as :class:`Runs` has it."""
    return _hashed(text_key(value))[0]


def shape_of(value: str) -> int:
    """Return the hash of a stored text's shape, as :class:`Runs` has it."""
    found = 0
    for _, token in _tokens(value.translate(SAME_SIGNS)):
        found = (found * _BASE + _token(token)[2]) & _MASK
    return found
