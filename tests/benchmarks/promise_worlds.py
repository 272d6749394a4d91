"""Simulated marketplaces whose truth is known, for promise.py.

An attribute has 20 values; the r-th is as frequent as 1/r. The simulated model is right with probability sigmoid(z),
where z is normal with a mean of its own for every value; its score is sigmoid(z + noise). By default it is right in .78
of all cases and the best threshold for 95% precision has a recall of .70; De la Comble et al. 2022 report .66 for
colour and .68 for material.

Shapes: n products, L written ranks per product (1, or 3 for an attribute with several values), V values, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
from scipy import special

from catalog_enrichment.config.folds import FoldsConfig
from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certificate import ScoredBy
from catalog_enrichment.precision.certify import CertificateBinding
from catalog_enrichment.precision.units import (
    Bools,
    CertificationScores,
    ChoosingScores,
    Floats,
    Ints,
    UnlabelledProducts,
)
from catalog_enrichment.records import Cardinality, LabelUse, Modality

VALUES = 20
LABELS = tuple(f"value {rank}" for rank in range(1, VALUES + 1))
TARGET = 0.95
FOLDS = FoldsConfig()
RULE = PrecisionConfig(target=TARGET)
BINDING = CertificateBinding(
    modality=Modality.BOTH,
    scored_by=ScoredBy(
        weights_hash="w",
        preprocessing_hash="p",
        max_image_bytes=1,
        max_image_pixels=1,
        scaled_side=288,
        compute_type="fp32-cpu",
    ),
    label_set_hash="l",
    use=LabelUse(number=1, certification_round=0),
    data_window="simulated",
    issued_at=datetime(2026, 1, 1, tzinfo=UTC),
)
LARGE = 400_000
"""Products of the sample that stands for the population."""
SMALLEST_SHARE = 0.01
"""An oracle accepts at least this share: among the few highest scores the target is reached by chance."""
CATEGORIES = ("A", "B", "C", "D")


@dataclass(frozen=True, kw_only=True)
class World:
    """The population of a scenario."""

    mean: float = 2.5
    value_spread: float = 1.0
    spread: float = 2.5
    noise: float = 1.0
    sizes: tuple[tuple[int, int, float], ...] = ((1, 1, 1.0),)
    """Content groups: smallest and largest size, share of the groups."""
    size_effect: float = 0.0
    """Added to z where the group has 6 products or more; the scores do not show it."""
    correlation: float = 0.0
    """Correlation of the latent normal variables that decide whether a group's products are right; 1: all or none."""
    copies: bool = False
    """The products of a group have the same value and score."""
    category_effects: tuple[float, ...] = (0.0,)
    """Added to z by category, hidden from the scores."""
    tilt: float = 1.0
    """How much more frequent the last category is among the products to fill, the first being the reference."""
    labelled_shares: tuple[float, ...] = ()
    """Shares of the categories among labelled products; empty: equal shares, by ``tilt`` for the products to fill."""
    open_shares: tuple[float, ...] = ()
    later_shares: tuple[float, ...] = ()
    """The same of the products to fill, when it is certified, and later when it is judged; empty: the same."""
    by_language: bool = False
    """The categories are languages of the same category."""
    ranks: int = 1
    decimals: int | None = None
    """Scores are rounded: ties."""
    certain: float | None = None
    """Every value is right with this probability, whatever its score."""
    wrong_labels: float = 0.0
    """Share of the labelled products whose label is wrong, whatever the score: a right value counts as wrong there."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """n products of a world, with the values that can be written."""

    values: Ints  # (n, L)
    scores: Floats  # (n, L)
    right: Bools  # (n, L)
    groups: Ints  # (n,)
    group_sizes: Ints  # (n,)
    categories: Ints  # (n,)
    latent: Floats  # (n, L) z
    label_right: Bools  # (n,)

    def __len__(self) -> int:
        return len(self.values)

    def at(self, index: Ints) -> Sample:
        """The products at ``index``."""
        return Sample(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def draw(
    world: World, rng: np.random.Generator, products: int, *, unlabelled: bool = False, later: bool = False
) -> Sample:
    """Return about ``products`` products: groups are drawn until there are as many, as folds are cut.

    ``unlabelled``: with the categories of the products to fill; ``later``: of the products that judge the certificate.
    """
    sizes = _group_sizes(world, rng, products)
    group = np.repeat(np.arange(len(sizes)), sizes)
    n, ranks = len(group), world.ranks
    category = rng.choice(len(world.category_effects), len(sizes), p=_category_shares(world, unlabelled, later))[group]
    frequency = 1 / np.arange(1, VALUES + 1)
    drawn_by = group if world.copies else np.arange(n)
    keys = rng.random((int(drawn_by.max(initial=-1)) + 1, VALUES)) ** (1 / frequency)
    values = np.argsort(-keys, axis=1)[:, :ranks][drawn_by]  # without replacement, by frequency
    z = world.mean + value_means(world)[values] + world.spread * rng.standard_normal((len(keys), ranks))[drawn_by]
    noise = world.noise * rng.standard_normal((len(keys), ranks))[drawn_by]
    hidden = world.size_effect * (sizes[group] >= 6) + np.array(world.category_effects)[category]
    latent = z + hidden[:, None]
    shared, own = rng.standard_normal((len(sizes), ranks))[group], rng.standard_normal((n, ranks))
    wrong_labels = 0.0 if unlabelled else world.wrong_labels
    return Sample(
        values=values,
        scores=_scores(world, z + noise),
        right=_right(world, latent, shared, own),
        groups=group,
        group_sizes=sizes[group],
        categories=category,
        latent=latent,
        label_right=rng.random(n) >= wrong_labels if wrong_labels else np.ones(n, dtype=bool),
    )


def another_model(world: World, sample: Sample, rng: np.random.Generator, common: Floats) -> Sample:
    """Return another model's scores and errors on the same products, for worlds without hidden effects and correlation.

    ``common`` (n, L): normal; half of the variance that decides whether a model is right is common to all models."""
    own = rng.standard_normal(sample.latent.shape)
    noise = world.noise * rng.standard_normal(sample.latent.shape)
    right = special.ndtr(np.sqrt(0.5) * common + np.sqrt(0.5) * own) < special.expit(sample.latent)
    return replace(sample, scores=_scores(world, sample.latent + noise), right=right)


@cache
def value_means(world: World) -> Floats:
    """(V,) how much easier each value is; the same in every draw."""
    return world.value_spread * np.random.default_rng(7).standard_normal(VALUES)


def _group_sizes(world: World, rng: np.random.Generator, products: int) -> Ints:
    low, high, share = (np.array(column) for column in zip(*world.sizes, strict=True))
    kind = rng.choice(len(low), products, p=share)
    sizes = rng.integers(low[kind], high[kind] + 1)
    # the group at the cut belongs to the fold if its middle does (folds.py)
    return sizes[np.cumsum(sizes) - sizes / 2 <= products]


def _category_shares(world: World, unlabelled: bool, later: bool) -> Floats:
    """(C,) shares of the categories among the products."""
    shares = world.open_shares if unlabelled else world.labelled_shares
    if later and world.later_shares:
        shares = world.later_shares
    count = len(world.category_effects)
    weight = np.array(shares) if shares else np.full(count, 1 / count)
    if unlabelled and not shares:
        weight = weight * world.tilt ** np.linspace(0, 1, count)
    return np.asarray(weight / weight.sum(), dtype=np.float64)


def _scores(world: World, logits: Floats) -> Floats:
    scores = np.clip(special.expit(logits), 0.06, 1.0)
    if world.decimals is not None:
        scores = np.round(scores, world.decimals)
    return scores.astype(np.float32).astype(np.float64)


def _right(world: World, latent: Floats, shared: Floats, own: Floats) -> Bools:
    uniform = special.ndtr(np.sqrt(world.correlation) * shared + np.sqrt(1 - world.correlation) * own)
    probability = special.expit(latent) if world.certain is None else world.certain
    return np.asarray(uniform < probability, dtype=bool)


# --- the project's types ------------------------------------------------------------------------------------------


def cardinality(world: World) -> Cardinality:
    return Cardinality.ONE if world.ranks == 1 else Cardinality.MANY


def _matrix(sample: Sample) -> tuple[Floats, Bools]:
    """(n, V) probabilities and labels: the other values have a score below every written value and are no label."""
    probabilities, truth = np.full((len(sample), VALUES), 0.01), np.zeros((len(sample), VALUES), dtype=bool)
    np.put_along_axis(probabilities, sample.values, sample.scores, axis=1)
    np.put_along_axis(truth, sample.values, sample.right & sample.label_right[:, None], axis=1)
    return probabilities, truth


def choosing_scores(world: World, sample: Sample) -> ChoosingScores:
    probabilities, truth = _matrix(sample)
    return ChoosingScores(
        attribute="simulated", labels=LABELS, cardinality=cardinality(world), probabilities=probabilities, truth=truth,
        groups=-1 - sample.groups,  # no group of the certification fold
    )  # fmt: skip


def certification_scores(world: World, sample: Sample) -> CertificationScores:
    probabilities, truth = _matrix(sample)
    return CertificationScores(
        attribute="simulated", labels=LABELS, cardinality=cardinality(world), probabilities=probabilities, truth=truth,
        groups=sample.groups, categories=category_names(world, sample.categories),
        languages=language_names(world, sample.categories), group_sizes=sample.group_sizes,
        fold_share=FOLDS.certification,
    )  # fmt: skip


def unlabelled_products(world: World, sample: Sample, *, like: Sample | None = None) -> UnlabelledProducts:
    """``like``: take categories from there, as if the products to fill were drawn as those."""
    seen_as = sample if like is None else like
    categories = np.resize(seen_as.categories, len(sample))
    return UnlabelledProducts(
        probabilities=_matrix(sample)[0],
        categories=category_names(world, categories),
        languages=language_names(world, categories),
        group_sizes=np.resize(seen_as.group_sizes, len(sample)),
        counts=np.ones(len(sample)),
        near_duplicate_rate=0.0,
    )


def category_names(world: World, categories: Ints) -> list[str]:
    return [CATEGORIES[0 if world.by_language else category] for category in categories.tolist()]


def language_names(world: World, categories: Ints) -> list[str]:
    return [f"language {category}" if world.by_language else "en" for category in categories.tolist()]


# --- the truth ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Population:
    """A large sample of the products to fill: what is true of a threshold, and the best threshold."""

    sample: Sample
    oracle_right: int
    """Right products that the best threshold accepts; 0 if no threshold reaches the target."""
    oracle_recall: float

    @classmethod
    def of(cls, world: World) -> Population:
        sample = draw(world, np.random.default_rng(12345), LARGE // world.ranks, unlabelled=True, later=True)
        accept, wrong = _units(sample, np.ones(VALUES, dtype=bool), np.ones(len(CATEGORIES), dtype=bool))
        order = np.argsort(-accept)
        accepted = np.arange(1, len(sample) + 1)
        # a product becomes wrong at the score of its best wrong value, which may be lower than its best score
        errors = np.searchsorted(np.sort(-wrong), -accept[order], side="right")
        good = np.flatnonzero((1 - errors / accepted >= TARGET) & (accepted >= SMALLEST_SHARE * len(sample)))
        right = int((accepted - errors)[good].max(initial=0))
        return cls(sample, right, right / max(int(sample.right.any(axis=1).sum()), 1))

    def judge(self, threshold: float, pool: Bools, categories: Bools) -> tuple[float, int]:
        """True precision of the accepted products, and how many are right; ``pool`` (V,), ``categories`` those that
        are not refused."""
        accept, wrong = _units(self.sample, pool, categories)
        accepted, errors = int((accept >= threshold).sum()), int((wrong >= threshold).sum())
        return (1.0 if not accepted else 1 - errors / accepted), accepted - errors


def _units(sample: Sample, pool: Bools, categories: Bools) -> tuple[Floats, Floats]:
    """(n,) best score that can be written, and best score that would be wrong; -inf where there is none."""
    writable = pool[sample.values] & categories[sample.categories][:, None]
    accept = np.where(writable, sample.scores, -np.inf).max(axis=1)
    return accept, np.where(writable & ~sample.right, sample.scores, -np.inf).max(axis=1)
