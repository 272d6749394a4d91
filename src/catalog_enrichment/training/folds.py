"""Content groups and folds. Listings of the same content are in one group, and a group is never divided between folds.

The units that a certificate counts must be independent and unseen (PRECISION, "The certificate"). Single listings are
not: the same listing exists in several colours, from several shops, with one studio picture. Two products belong to
one content group if their titles are equal after every spelling of the dictionary and every digit is removed, or if
their pictures are identical, or if a chain of such links connects them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.schema import FoldsConfig
from catalog_enrichment.dictionary import fold
from catalog_enrichment.records import stable_hash

Index = NDArray[np.int64]
"""Positions of products in the data set, ascending."""

_DIGITS = re.compile(r"\d+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f]")
"""Scripts without spaces (kana, Han, Thai): there a spelling is removed anywhere in the text."""


class VariantKey:
    """Maps a title to a key without the dictionary's spellings and digits, in which variants of one listing differ."""

    def __init__(self, words: Iterable[str]) -> None:
        """``words``: folded spellings, of one or several words each (:meth:`Dictionary.words`)."""
        spellings = {word for word in words if word}
        self._phrases = {tuple(word.split()) for word in spellings}
        self._longest = max((len(phrase) for phrase in self._phrases), default=0)
        unspaced = sorted((word for word in spellings if _UNSPACED.search(word)), key=len, reverse=True)
        self._unspaced = re.compile("|".join(map(re.escape, unspaced))) if unspaced else None

    def __call__(self, title: str) -> str:
        """The key; the folded title where nothing would remain, and "" only for a title without a word."""
        folded = fold(title)
        text = self._unspaced.sub(" ", folded) if self._unspaced else folded
        tokens = _DIGITS.sub(" ", text).split()
        kept, position = [], 0
        while position < len(tokens):
            length = self._phrase_length(tokens, position)
            if not length:
                kept.append(tokens[position])
            position += max(length, 1)
        return " ".join(kept) or folded

    def _phrase_length(self, tokens: list[str], start: int) -> int:
        """Number of tokens of the longest spelling that begins at ``start``; 0 if none does."""
        for length in range(min(self._longest, len(tokens) - start), 0, -1):
            if tuple(tokens[start : start + length]) in self._phrases:
                return length
        return 0


def content_groups(titles: Sequence[str], pictures: Sequence[str | None], words: Iterable[str]) -> NDArray[np.int64]:
    """Group number per product, shape (N,): connected components over equal title keys and equal picture hashes.

    An empty title or a missing picture links no products.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    key = VariantKey(words)
    nodes: dict[tuple[str, str], int] = {}
    edges: list[tuple[int, int]] = []
    for product, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
        for kind, content in (("title", key(title)), ("picture", picture)):
            if content:
                edges.append((product, len(titles) + nodes.setdefault((kind, content), len(nodes))))
    size = len(titles) + len(nodes)
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(edges), dtype=np.int8), (rows, columns)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return np.asarray(component[: len(titles)], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Folds:
    """The five disjoint folds of the labelled products, as positions in the data set. No two share a content group."""

    train: Index
    validation: Index
    calibration: Index
    certification: Index
    test: Index

    def items(self) -> Iterator[tuple[str, Index]]:
        """Each fold with its name."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def sizes(self) -> dict[str, int]:
        """Number of products in each fold."""
        return {name: len(index) for name, index in self.items()}


def split_folds(
    labelled: Index,
    groups: NDArray[np.int64],
    ids: Sequence[str],
    config: FoldsConfig,
    truth: NDArray[np.bool_] | None = None,
) -> Folds:
    """Split the labelled products by content group into the configured shares (counted in products).

    Groups are sorted by a hash of the seed and the group's smallest product id, and the sequence is cut at the shares.
    The result is stable (new products move only groups near a cut) and exact to within one group. A group of more than
    half the smallest fold would push others out of it, so its fold is drawn first, with the shares as probabilities,
    and the other groups fill what is left: no group is exempt from certification, however large.

    With ``config.stratify`` the other groups are divided by iterative stratification over ``truth`` (N, V), the
    products' values: every fold gets its share of every value, as far as groups allow. This is not stable, and exact to
    about 0.01. Raises ValueError if ``truth`` is missing then.
    """
    members: dict[int, list[int]] = {}
    for product in labelled.tolist():
        members.setdefault(int(groups[product]), []).append(product)
    shares = np.array([config.train, config.validation, config.calibration, config.certification, config.test])
    largest = max(1, int(shares.min() * len(labelled) / 2))
    first_id = {group: min(ids[product] for product in products) for group, products in members.items()}
    order = sorted(members, key=lambda group: stable_hash(config.seed, first_id[group]))
    large = [group for group in order if len(members[group]) > largest]
    small = [members[group] for group in order if len(members[group]) <= largest]

    folds: list[list[int]] = [[], [], [], [], []]
    for group in large:
        folds[_draw(shares, config.seed, first_id[group])] += members[group]
    target = np.maximum(shares * len(labelled) - np.array([len(fold) for fold in folds]), 0.0)
    if config.stratify:
        if truth is None:
            raise ValueError("folds.stratify needs the products' values")
        fold_of_group = _stratify(small, truth, target, config.seed)
    else:
        fold_of_group = _cut(small, target)
    for products, fold_index in zip(small, fold_of_group, strict=True):
        folds[fold_index] += products
    return Folds(*(np.array(sorted(part), dtype=np.int64) for part in folds))


def stratified_parts(
    index: Index, groups: NDArray[np.int64], truth: NDArray[np.bool_], k: int, seed: int
) -> list[Index]:
    """``index`` in ``k`` parts of about equal size, each with its share of every value of ``truth`` (N, V); a content
    group is in one part only. Iterative stratification (Sechidis et al. 2011). Raises ValueError for fewer groups
    than parts.
    """
    _, position = np.unique(groups[index], return_inverse=True)
    members: list[list[int]] = [[] for _ in range(int(position.max(initial=-1)) + 1)]
    for product, group in zip(index.tolist(), position.tolist(), strict=True):
        members[group].append(product)
    if len(members) < k:
        raise ValueError(f"{len(members)} content groups cannot be divided into {k} parts")
    part_of_product = np.array(_stratify(members, truth, np.ones(k), seed))[position]
    return [np.sort(index[part_of_product == part]) for part in range(k)]


def _draw(shares: NDArray[np.float64], seed: int, first_id: str) -> int:
    """A fold drawn with probabilities ``shares``, by a hash: the same for the same seed and group."""
    position = int(stable_hash("large group", seed, first_id)[:13], 16) / 16**13
    return min(int(np.searchsorted(np.cumsum(shares), position, side="right")), len(shares) - 1)


def _cut(groups: Sequence[Sequence[int]], target: NDArray[np.float64]) -> list[int]:
    """The fold of each group: the sequence of groups is cut so that fold sizes, in products, are as ``target``."""
    cuts = np.cumsum(target) / max(target.sum(), 1.0) * sum(map(len, groups))
    folds, counted = [], 0
    for products in groups:
        folds.append(min(int(np.searchsorted(cuts, counted + len(products) / 2)), len(target) - 1))
        counted += len(products)
    return folds


def _stratify(
    groups: Sequence[Sequence[int]], truth: NDArray[np.bool_], target: NDArray[np.float64], seed: int
) -> list[int]:
    """The fold of each group of products: groups of the rarest value are assigned first, each to the fold that lacks
    most of that value (Sechidis et al. 2011). A group has the values of all its members.

    The algorithm counts groups. The group's size, rounded to a power of two, is added as a value, so that the shares
    also hold in products.
    """
    from iterstrat.ml_stratifiers import IterativeStratification

    if not groups:
        return []
    random = np.random.default_rng(int(stable_hash("stratify", seed)[:15], 16))
    order = random.permutation(len(groups))
    values = np.stack([truth[groups[group]].any(axis=0) for group in order])
    sizes = np.array([len(groups[group]).bit_length() for group in order])
    labels = np.hstack([values, sizes[:, None] == np.unique(sizes)])
    folds = np.empty(len(groups), dtype=np.int64)
    folds[order] = IterativeStratification(labels, target / target.sum(), random)
    return folds.tolist()


def twins_share(index: Index, reference: Index, groups: NDArray[np.int64]) -> float:
    """Share of the products at ``index`` whose content group is also in ``reference``; 0 for an empty index."""
    return float(np.isin(groups[index], groups[reference]).mean()) if len(index) else 0.0
