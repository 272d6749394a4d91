"""Content groups, folds and certification rounds. Listings of the same content are in one group, and a group is never
divided between folds.

The units that a certificate counts must be independent and unseen (PRECISION, "The certificate"). Single listings are
not: the same listing exists in several colours, from several shops, with one studio picture. Two products belong to
one content group if their titles are equal after every spelling of the dictionary and every digit is removed, or if
their pictures are identical, or if a chain of such links connects them.

The k-th use of a certification fold may spend only delta / (k (k + 1)). So after `training.label_uses_per_round` uses a
new certification round begins (PRECISION, certificate 6): a new fold is drawn, of products that never certified, and
its first use may spend delta again. The products of the old fold may be trained on from then on. The test fold is the
same in every round: the promotion gate pairs versions on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.folds import FoldsConfig
from catalog_enrichment.config.proposer import ProposerConfig
from catalog_enrichment.config.schema import TrainingConfig
from catalog_enrichment.precision.units import Bools, Floats, Ints
from catalog_enrichment.records import EarlierUses, stable_hash
from catalog_enrichment.values.spelling import UNSPACED, fold

Index = NDArray[np.int64]
"""Positions of products in the data set, ascending."""

_DIGITS = re.compile(r"\d+")
_UNSPACED = re.compile(f"[{UNSPACED}]")
"""In scripts without spaces a spelling is removed anywhere in the text."""


def where(index: Index, mask: Bools) -> Index:
    """Return the products of ``index`` for which ``mask`` (N,) is true."""
    return index[mask[index]]


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
        """Return the key; the folded title where nothing would remain, "" only for a title without a word."""
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
        """Return the number of tokens of the longest spelling that begins at ``start``; 0 if none does."""
        for length in range(min(self._longest, len(tokens) - start), 0, -1):
            if tuple(tokens[start : start + length]) in self._phrases:
                return length
        return 0


def content_groups(titles: Sequence[str], pictures: Sequence[str | None], words: Iterable[str]) -> Ints:
    """Return the group number of each product, (N,): connected components over equal title keys and picture hashes.

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


_NAMES = ("train", "choosing", "certification", "test")


@dataclass(frozen=True, slots=True)
class Folds:
    """The four disjoint folds of the labelled products, as positions in the data set. No two share a content group."""

    train: Index
    choosing: Index
    certification: Index
    test: Index
    kept: Index = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Labelled products that are in no fold, for the sake of a gold sample (:meth:`without_twins_of`)."""

    def items(self) -> Iterator[tuple[str, Index]]:
        """Yield each fold with its name."""
        return ((name, getattr(self, name)) for name in _NAMES)

    def sizes(self) -> dict[str, int]:
        """Return the number of products in each fold."""
        return {name: len(index) for name, index in self.items()}

    @property
    def held_out(self) -> Index:
        """The products of every fold but train."""
        return np.concatenate([self.choosing, self.certification, self.test])

    def without_twins_of(self, asked: Bools, groups: Ints, labelled: Iterable[Bools]) -> Folds:
        """Return the folds with no product in train or choosing that shares a content group with an ``asked`` (N,)
        product, so that people's answer about it can certify.

        ``labelled``: an (N,) per attribute. The products of an attribute that would lose more than half of train or of
        choosing stay, with their content groups: a sample about a small category must not take its training away.
        """
        twins = np.isin(groups, groups[asked])
        needed = np.zeros(len(groups), dtype=bool)
        for own in labelled:
            of_folds = [where(fold, own) for fold in (self.train, self.choosing)]
            if any(2 * twins[index].sum() > len(index) for index in of_folds):
                needed |= np.isin(groups, groups[own])
        twins &= ~needed
        kept = where(np.concatenate([self.train, self.choosing]), twins)
        train, choosing = where(self.train, ~twins), where(self.choosing, ~twins)
        return replace(self, train=train, choosing=choosing, kept=np.sort(kept))

    def outside(self, count: int) -> Bools:
        """(count,): the product is in no fold, because it has no label of any attribute."""
        outside = np.ones(count, dtype=bool)
        outside[np.concatenate([self.train, self.held_out, self.kept])] = False
        return outside


@dataclass(frozen=True, slots=True)
class GroupedProducts:
    """N products with their content groups, as a division needs them."""

    ids: Sequence[str]
    groups: Ints  # (N,) content group
    truth: Bools | None = None
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
    folds: Folds, products: GroupedProducts, config: FoldsConfig, certification_round: int, certified_before: Bools
) -> Folds:
    """Return the folds of a later ``certification_round``: a new certification fold of products that never certified,
    the same test fold.

    ``folds``: the split of round 0. ``certified_before`` (N,): products that certified in an earlier round. The new
    certification fold is drawn from the content groups without such a product, each with the same probability, large
    groups too, until it has its share; it is smaller if they are fewer. The other groups, but for those of the test
    fold, fill train and choosing by their shares.
    """
    rest = np.sort(np.concatenate([folds.train, folds.choosing, folds.certification]))
    labelled = len(rest) + len(folds.test)
    fresh = never_certified(rest, products.groups, certified_before)
    key = (config.seed, "epoch", certification_round)
    division = Division(products, _large(labelled, config), config.stratify, key)
    share = min(config.certification * labelled / max(len(fresh), 1), 1.0)
    certification, _ = division.parts(fresh, np.array([share, 1 - share]))
    others = np.setdiff1d(rest, certification)
    train, choosing = division.parts(others, _shares(config)[:2] / _shares(config)[:2].sum())
    return Folds(train, choosing, certification, folds.test)


def empty_folds(folds: Folds, config: FoldsConfig) -> list[str]:
    """Return the names of the folds that should have a share of the products and have none."""
    return [name for name, size in folds.sizes().items() if not size and getattr(config, name)]


def never_certified(index: Index, groups: Ints, certified_before: Bools) -> Index:
    """Return the products of ``index`` whose content group has no product that certified; ``groups`` and
    ``certified_before`` are of all N products.

    A limit: only products that are in the data set now count. The table of uses has ids and no content, so where a
    product that certified has opted out, was deleted or has another id now, its twins count as never certified.
    """
    return index[~np.isin(groups[index], groups[certified_before])]


@dataclass(frozen=True, slots=True)
class CertificationRound:
    """The number of the certification fold that a training uses."""

    number: int = 0
    reason: str = ""
    """Why a new fold was drawn, or why the old fold goes on although it was used often; "" if neither is so."""


def folds_of_round(
    labelled: Index,
    products: GroupedProducts,
    settings: TrainingConfig | ProposerConfig,
    attributes: Sequence[str],
    earlier: EarlierUses,
) -> tuple[Folds, CertificationRound]:
    """Return the folds of the certification round that the next training belongs to.

    The attribute of ``attributes`` with the most uses in the newest round decides: if its next use would exceed
    `training.label_uses_per_round`, and the products that never certified are at least as many as the certification
    fold's share, a new round begins; otherwise the newest goes on.
    """
    first, newest = split_folds(labelled, products, settings.folds), earlier.certification_round
    drawn = _folds_of(newest, first, products, settings.folds, earlier)
    name = max(attributes, key=lambda attribute: earlier.uses.get(attribute, 0))
    uses, allowed = earlier.uses.get(name, 0), settings.label_uses_per_round
    if uses < allowed:
        return drawn, CertificationRound(newest)
    why = (
        f"the labels of {name} were used {uses} times in certification round {newest} (label_uses_per_round = "
        f"{allowed})"
    )
    number = newest + 1
    outside = np.setdiff1d(labelled, first.test)
    fresh = never_certified(outside, products.groups, _certified_before(number, products, earlier))
    needed = ceil(settings.folds.certification * len(labelled))
    new = _folds_of(number, first, products, settings.folds, earlier)
    if len(fresh) >= needed and not empty_folds(new, settings.folds):
        size = len(new.certification)
        began = f"{why}: certification round {number} has a new fold of {size} products that never certified"
        return new, CertificationRound(number, began)
    missing = f"{len(fresh)} labelled products outside the test fold never certified, a new fold needs {needed}"
    goes_on = f"{why} and certification round {newest} goes on: {missing}. Label more"
    return drawn, CertificationRound(newest, goes_on)


def _folds_of(number: int, first: Folds, products: GroupedProducts, config: FoldsConfig, earlier: EarlierUses) -> Folds:
    """Return the folds of round ``number``; ``first``: those of round 0."""
    if not number:
        return first
    return redraw_certification(first, products, config, number, _certified_before(number, products, earlier))


def _certified_before(number: int, products: GroupedProducts, earlier: EarlierUses) -> Bools:
    """(N,): the product certified in a round before ``number``."""
    certified = earlier.certified_before(number)
    return np.array([product in certified for product in products.ids], dtype=bool)


def resumed(earlier: EarlierUses, checkpoints: Path | None, fingerprint: str) -> EarlierUses:
    """Return ``earlier``, but for an interrupted training as if its round were the newest and not used yet: its own use
    may be recorded already, and must not make its second start draw other folds.

    ``fingerprint``: a hash of all that the training depends on, under which :func:`remember` stored the round.
    """
    file = _round_file(checkpoints, fingerprint) if checkpoints else None
    if file is None or not file.is_file():
        return earlier
    return replace(earlier, certification_round=int(json.loads(file.read_text())["certification_round"]), uses={})


def remember(certification_round: CertificationRound, checkpoints: Path | None, fingerprint: str) -> None:
    """Store the round of a training, so that the training continues in the same round if it is interrupted."""
    if checkpoints is None:
        return
    file = _round_file(checkpoints, fingerprint)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"certification_round": certification_round.number}))
    partial.replace(file)


def _round_file(checkpoints: Path, fingerprint: str) -> Path:
    return checkpoints / f"certification_round-{fingerprint[:16]}.json"


@dataclass(frozen=True, slots=True)
class Division:
    """Divides products by content group into parts; the same for the same key, products and shares."""

    products: GroupedProducts
    largest: int
    """A group of more products is drawn by itself, before the others."""
    stratify: bool
    key: tuple[int | str, ...]

    def parts(self, index: Index, shares: Floats) -> list[Index]:
        """Divide ``index`` into parts of the given ``shares``, which sum to 1."""
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

    def _divide(self, groups: Sequence[Sequence[int]], target: Floats) -> list[int]:
        """Return the part of each group, so that the parts have ``target`` products."""
        if not self.stratify:
            return _cut(groups, target)
        if self.products.truth is None:
            raise ValueError("folds.stratify needs the products' values")
        return _stratify(groups, self.products.truth, target, self.key)


def _shares(config: FoldsConfig) -> Floats:
    """Return the folds' shares, in the order of :class:`Folds`."""
    return np.array([getattr(config, name) for name in _NAMES])


def _large(labelled: int, config: FoldsConfig) -> int:
    """Return half the smallest fold of so many labelled products; a larger group is drawn by itself."""
    shares = _shares(config)
    return max(1, int(shares[shares > 0].min() * labelled / 2))


def stratified_parts(index: Index, groups: Ints, truth: Bools, k: int, seed: int) -> list[Index]:
    """Divide ``index`` into ``k`` parts of about equal size, each with its share of every value of ``truth`` (N, V); a
    content group is in one part only. Iterative stratification (Sechidis et al. 2011). Raises ValueError for fewer
    groups than parts.
    """
    _, position = np.unique(groups[index], return_inverse=True)
    members: list[list[int]] = [[] for _ in range(int(position.max(initial=-1)) + 1)]
    for product, group in zip(index.tolist(), position.tolist(), strict=True):
        members[group].append(product)
    if len(members) < k:
        raise ValueError(f"{len(members)} content groups cannot be divided into {k} parts")
    part_of_product = np.array(_stratify(members, truth, np.ones(k), (seed,)))[position]
    return [np.sort(index[part_of_product == part]) for part in range(k)]


def _draw(shares: Floats, key: tuple[int | str, ...], first_id: str) -> int:
    """Draw a part with probabilities ``shares``, by a hash: the same for the same key and group."""
    position = int(stable_hash("large group", *key, first_id)[:13], 16) / 16**13
    return min(int(np.searchsorted(np.cumsum(shares), position, side="right")), len(shares) - 1)


def _cut(groups: Sequence[Sequence[int]], target: Floats) -> list[int]:
    """Return the fold of each group: the sequence of groups is cut so that the folds have ``target`` products."""
    cuts = np.cumsum(target) / max(target.sum(), 1.0) * sum(map(len, groups))
    folds, counted = [], 0
    for products in groups:
        folds.append(min(int(np.searchsorted(cuts, counted + len(products) / 2)), len(target) - 1))
        counted += len(products)
    return folds


def _stratify(
    groups: Sequence[Sequence[int]],
    truth: Bools,
    target: Floats,
    key: tuple[int | str, ...],
) -> list[int]:
    """Return the fold of each group of products: groups of the rarest value are assigned first, each to the fold that
    lacks most of that value (Sechidis et al. 2011). A group has the values of all its members.

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


def near_duplicate_rate(index: Index, reference: Index, groups: Ints) -> float:
    """Return the share of the products at ``index`` whose content group is also in ``reference``; 0 for none."""
    return float(np.isin(groups[index], groups[reference]).mean()) if len(index) else 0.0


def half_of_groups(ids: Sequence[str], groups: Ints, purpose: str) -> Bools:
    """(N,): the product's content group is in the half that a hash of its smallest product id and ``purpose`` gives."""
    order = np.lexsort((np.array(ids, dtype=str), groups))
    names, first = np.unique(groups[order], return_index=True)
    half = np.array([int(stable_hash(purpose, ids[product])[:8], 16) % 2 == 0 for product in order[first]], dtype=bool)
    return half[np.searchsorted(names, groups)]
