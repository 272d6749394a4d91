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
    """The four disjoint folds of the labelled products, as positions in the data set. No two share a content group."""

    train: Index
    choosing: Index
    certification: Index
    test: Index

    def items(self) -> Iterator[tuple[str, Index]]:
        """Each fold with its name."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def sizes(self) -> dict[str, int]:
        """Number of products in each fold."""
        return {name: len(index) for name, index in self.items()}


@dataclass(frozen=True, slots=True)
class GroupedProducts:
    """What a division of N products needs to know of them."""

    ids: Sequence[str]
    groups: NDArray[np.int64]  # (N,) content group
    truth: NDArray[np.bool_] | None = None
    """(N, V) the products' values, for stratification."""


def split_folds(labelled: Index, products: GroupedProducts, config: FoldsConfig) -> Folds:
    """Split the labelled products by content group into the configured shares (counted in products).

    Groups are sorted by a hash of the seed and the group's smallest product id, and the sequence is cut at the shares.
    The result is stable (new products move only groups near a cut) and exact to within one group. A group of more than
    half the smallest fold would push others out of it, so its fold is drawn first, with the shares as probabilities,
    and the other groups fill what is left: no group is exempt from certification, however large.

    With ``config.stratify`` the other groups are divided by iterative stratification over the products' values: every
    fold gets its share of every value, as far as groups allow. This is not stable, and exact to about 0.01. Raises
    ValueError if the values are missing then.
    """
    division = Division(products, _large(len(labelled), config), config.stratify, (config.seed,))
    return Folds(*division.parts(labelled, _shares(config)))


def redraw_certification(
    folds: Folds,
    products: GroupedProducts,
    config: FoldsConfig,
    certification_round: int,
    certified_before: NDArray[np.bool_],
) -> Folds:
    """The folds of a later ``certification_round``: a new certification fold of products that never certified, the same test fold.

    ``folds``: the split of certification round 0. ``certified_before`` (N,): products that certified in an earlier certification round. The new
    certification fold is drawn from the content groups without such a product, each with the same probability, large
    ones too, until it has its share; it is smaller if they are fewer. The other groups, but for those of the test
    fold, fill train and choosing by their shares.
    """
    rest = np.sort(np.concatenate([folds.train, folds.choosing, folds.certification]))
    labelled = len(rest) + len(folds.test)
    fresh = never_certified(rest, products.groups, certified_before)
    division = Division(
        products, _large(labelled, config), config.stratify, (config.seed, "certification_round", certification_round)
    )
    share = min(config.certification * labelled / max(len(fresh), 1), 1.0)
    certification, _ = division.parts(fresh, np.array([share, 1 - share]))
    others = np.setdiff1d(rest, certification)
    train, choosing = division.parts(others, _shares(config)[:2] / _shares(config)[:2].sum())
    return Folds(train, choosing, certification, folds.test)


def never_certified(index: Index, groups: NDArray[np.int64], certified_before: NDArray[np.bool_]) -> Index:
    """The products of ``index`` whose content group has no product that certified; ``groups`` and ``certified_before``
    are of all N products.

    A limit: only products that are in the data set now count. The table of uses has ids and no content, so where a
    product that certified has opted out, was deleted or has another id now, its twins count as never certified.
    """
    return index[~np.isin(groups[index], groups[certified_before])]


@dataclass(frozen=True, slots=True)
class Division:
    """Divides products by content group into parts; the same for the same key, products and shares."""

    products: GroupedProducts
    largest: int
    """A group of more products is drawn by itself, before the others."""
    stratify: bool
    key: tuple[int | str, ...]

    def parts(self, index: Index, shares: NDArray[np.float64]) -> list[Index]:
        """``index`` in parts of the given ``shares``, which sum to 1."""
        members: dict[int, list[int]] = {}
        for product in index.tolist():
            members.setdefault(int(self.products.groups[product]), []).append(product)
        first_id = {group: min(self.products.ids[product] for product in inside) for group, inside in members.items()}
        order = sorted(members, key=lambda group: stable_hash(*self.key, first_id[group]))
        small = [members[group] for group in order if len(members[group]) <= self.largest]
        parts: list[list[int]] = [[] for _ in shares]
        for group in order:
            if len(members[group]) > self.largest:
                parts[_draw(shares, self.key, first_id[group])] += members[group]
        target = np.maximum(shares * len(index) - np.array([len(part) for part in parts]), 0.0)
        for inside, part in zip(small, self._divide(small, target), strict=True):
            parts[part] += inside
        return [np.array(sorted(part), dtype=np.int64) for part in parts]

    def _divide(self, groups: Sequence[Sequence[int]], target: NDArray[np.float64]) -> list[int]:
        """The part of each group, so that the parts have ``target`` products."""
        if not self.stratify:
            return _cut(groups, target)
        if self.products.truth is None:
            raise ValueError("folds.stratify needs the products' values")
        return _stratify(groups, self.products.truth, target, self.key)


def _shares(config: FoldsConfig) -> NDArray[np.float64]:
    """The folds' shares, in the order of :class:`Folds`."""
    return np.array([getattr(config, field.name) for field in fields(Folds)])


def _large(labelled: int, config: FoldsConfig) -> int:
    """Half the smallest fold of so many labelled products; a larger group is drawn by itself."""
    return max(1, int(_shares(config).min() * labelled / 2))


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
    part_of_product = np.array(_stratify(members, truth, np.ones(k), (seed,)))[position]
    return [np.sort(index[part_of_product == part]) for part in range(k)]


def _draw(shares: NDArray[np.float64], key: tuple[int | str, ...], first_id: str) -> int:
    """A part drawn with probabilities ``shares``, by a hash: the same for the same key and group."""
    position = int(stable_hash("large group", *key, first_id)[:13], 16) / 16**13
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
    groups: Sequence[Sequence[int]],
    truth: NDArray[np.bool_],
    target: NDArray[np.float64],
    key: tuple[int | str, ...],
) -> list[int]:
    """The fold of each group of products: groups of the rarest value are assigned first, each to the fold that lacks
    most of that value (Sechidis et al. 2011). A group has the values of all its members.

    The algorithm counts groups. The group's size, rounded to a power of two, is added as a value, so that the shares
    also hold in products.
    """
    from iterstrat.ml_stratifiers import IterativeStratification

    if not groups:
        return []
    random = np.random.default_rng(int(stable_hash("stratify", *key)[:15], 16))
    order = random.permutation(len(groups))
    values = np.stack([truth[groups[group]].any(axis=0) for group in order])
    sizes = np.array([len(groups[group]).bit_length() for group in order])
    labels = np.hstack([values, sizes[:, None] == np.unique(sizes)])
    folds = np.empty(len(groups), dtype=np.int64)
    folds[order] = IterativeStratification(labels, target / target.sum(), random)
    return folds.tolist()


def near_duplicate_rate(index: Index, reference: Index, groups: NDArray[np.int64]) -> float:
    """Share of the products at ``index`` whose content group is also in ``reference``; 0 for an empty index."""
    return float(np.isin(groups[index], groups[reference]).mean()) if len(index) else 0.0


def half_of_groups(ids: Sequence[str], groups: NDArray[np.int64], purpose: str) -> NDArray[np.bool_]:
    """(N,): the product's content group is in the half that a hash of its smallest product id and ``purpose`` gives."""
    order = np.lexsort((np.array(ids, dtype=str), groups))
    names, first = np.unique(groups[order], return_index=True)
    half = np.array([int(stable_hash(purpose, ids[product])[:8], 16) % 2 == 0 for product in order[first]], dtype=bool)
    return half[np.searchsorted(names, groups)]
