"""New certification folds (PRECISION, certificate 6): when one is drawn, and of what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from catalog_enrichment.training.certification_rounds import CertificationRound, folds_of_round, remember, resumed
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.config.schema import FoldsConfig, TrainingConfig
from catalog_enrichment.precision.earlier_uses import EarlierUses
from catalog_enrichment.training.folds import Folds, GroupedProducts, Index, redraw_certification, split_folds

SHARES = FoldsConfig(train=0.50, choosing=0.12, certification=0.30, test=0.08)
SETTINGS = TrainingConfig(recipe="any", label_uses_per_round=2, folds=SHARES)
COLOR = ("color",)


@dataclass
class Catalog:
    """Labelled products in content groups of up to five, trainings of a new candidate each, and the uses of labels."""

    count: int = 1000
    seed: int = 0
    settings: TrainingConfig = SETTINGS
    uses: list[tuple[str, int, int]] = field(default_factory=list)
    """Product id, certification round, number of the candidate."""
    candidates: int = 0

    def products(self, count: int | None = None) -> tuple[Index, GroupedProducts]:
        n = count or self.count
        random = np.random.default_rng(self.seed)
        groups = np.repeat(np.arange(n), random.integers(1, 6, n))[:n]
        truth = random.random((n, 4)) < 0.2
        return np.arange(n), GroupedProducts([f"p{number:05d}" for number in range(n)], groups, truth)

    @property
    def earlier(self) -> EarlierUses:
        newest = max((current for _, current, _ in self.uses), default=0)
        counts: dict[str, int] = {}
        first: dict[str, int] = {}
        for product, current, _ in self.uses:
            counts[product] = counts.get(product, 0) + (current == newest)
            first[product] = min(current, first.get(product, current))
        return EarlierUses(certification_round=newest, uses={"color": max(counts.values(), default=0)}, first_round=first)

    def train(self) -> tuple[Folds, CertificationRound]:
        labelled, products = self.products()
        folds, current = folds_of_round(labelled, products, self.settings, COLOR, self.earlier)
        self.candidates += 1
        self.uses += [(products.ids[product], current.number, self.candidates) for product in folds.certification]
        return folds, current


def parts(folds: Folds) -> list[set[int]]:
    return [set(index.tolist()) for _, index in folds.items()]


def test_rounds_follow_each_other_until_too_few_products_never_certified() -> None:
    """The certification fold has 30%, the test fold 8%: three folds, then the last one goes on."""
    catalog = Catalog()
    trained = [catalog.train() for _ in range(11)]
    assert [current.number for _, current in trained] == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    reasons = [current.reason for _, current in trained]
    assert reasons[1] == reasons[3] == ""
    drawn = len(trained[2][0].certification)
    assert reasons[2] == (
        "the labels of color were used 2 times in certification round 0 (training.label_uses_per_round = 2): certification round 1 has a new fold "
        f"of {drawn} products that never certified"
    )
    assert "used 2 times in certification round 2" in reasons[6]
    assert "certification round 2 goes on: " in reasons[6]
    assert "never certified, a new fold needs 300" in reasons[6]
    catalog.count = 2000  # a thousand more labelled products
    assert catalog.train()[1].number == 3


def test_a_new_fold_is_of_products_that_never_certified_and_the_test_fold_stays() -> None:
    catalog = Catalog()
    first, _ = catalog.train()
    catalog.train()
    second, _ = catalog.train()
    labelled, products = catalog.products()
    assert np.array_equal(first.test, second.test)
    assert not np.isin(products.groups[second.certification], products.groups[first.certification]).any()
    assert set(first.certification) < set(np.concatenate([second.train, second.choosing]))
    assert sorted(np.concatenate([index for _, index in second.items()])) == labelled.tolist()
    groups = [set(products.groups[index].tolist()) for _, index in second.items()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for name, size in second.sizes().items():
        assert size == pytest.approx(1000 * getattr(SETTINGS.folds, name), abs=15)


def test_within_an_epoch_the_fold_stays_though_its_products_have_certified_in_it() -> None:
    catalog = Catalog()
    folds = [catalog.train()[0] for _ in range(4)]
    assert parts(folds[0]) == parts(folds[1]) != parts(folds[2]) == parts(folds[3])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 3))
def test_no_product_certifies_in_two_rounds_and_no_group_is_in_two_folds(seed: int, stratify: bool, uses: int) -> None:
    config = replace(SETTINGS, folds=FoldsConfig(seed=seed % 100, stratify=stratify), label_uses_per_round=uses)
    catalog = Catalog(count=400, seed=seed, settings=config)
    for _ in range(6):
        folds, current = catalog.train()
        _, products = catalog.products()
        groups = [set(products.groups[index].tolist()) for _, index in folds.items()]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert current.number <= catalog.candidates // uses
    assert len({(product, number) for product, number, _ in catalog.uses}) == len(
        {product for product, _, _ in catalog.uses}
    )


@pytest.mark.parametrize(
    ("uses", "number"),
    [({}, 0), ({"color": 1}, 0), ({"color": 2}, 1), ({"material": 2}, 0), ({"color": 1, "size": 2}, 1)],
)
def test_the_attribute_with_the_most_uses_decides_of_those_that_are_trained(uses: dict[str, int], number: int) -> None:
    labelled, products = Catalog().products()
    earlier = EarlierUses(uses=uses, first_round={"p00000": 0})
    assert folds_of_round(labelled, products, SETTINGS, ("color", "size"), earlier)[1].number == number


def test_as_many_products_as_the_folds_share_are_enough() -> None:
    """Every product is a group; 920 are outside the test fold, the share of the certification fold is 300."""
    labelled = np.arange(1000)
    products = GroupedProducts([f"p{number:05d}" for number in range(1000)], np.arange(1000))
    outside = np.setdiff1d(labelled, split_folds(labelled, products, SETTINGS.folds).test)
    for fresh, number in ((300, 1), (299, 0)):
        certified = {products.ids[product]: 0 for product in outside[fresh:]}
        earlier = EarlierUses(uses={"color": 2}, first_round=certified)
        assert folds_of_round(labelled, products, SETTINGS, COLOR, earlier)[1].number == number


def test_where_a_fold_would_be_empty_the_old_epoch_goes_on() -> None:
    """One group has 700 products and certified; a new fold would leave no product for the choosing fold."""
    groups = np.concatenate([np.zeros(700, dtype=np.int64), np.arange(1, 226)])
    labelled, products = np.arange(925), GroupedProducts([f"p{number:05d}" for number in range(925)], groups)
    first = split_folds(labelled, products, SETTINGS.folds)
    certified = labelled < 700
    assert not np.isin(first.test, np.flatnonzero(certified)).any()
    assert all(first.sizes().values())
    assert not all(redraw_certification(first, products, SETTINGS.folds, 1, certified).sizes().values())
    earlier = EarlierUses(uses={"color": 2}, first_round={products.ids[n]: 0 for n in np.flatnonzero(certified)})
    folds, current = folds_of_round(labelled, products, SETTINGS, COLOR, earlier)
    assert current.number == 0
    assert parts(folds) == parts(first)


def test_the_draws_of_different_rounds_are_independent() -> None:
    labelled, products = Catalog().products()
    first, nobody = split_folds(labelled, products, SETTINGS.folds), np.zeros(1000, dtype=bool)
    drawn = [
        set(redraw_certification(first, products, SETTINGS.folds, current, nobody).certification) for current in (1, 2)
    ]
    assert len(drawn[0] & drawn[1]) == pytest.approx(300 * 300 / 920, abs=40)


def test_large_groups_are_drawn_for_a_new_fold_with_the_same_probability_as_products() -> None:
    drawn: list[bool] = []
    expected: list[float] = []
    groups = np.maximum(np.arange(1000) - 199, 0)
    products = GroupedProducts([f"p{number:05d}" for number in range(1000)], groups)
    for seed in range(200):
        config = FoldsConfig(seed=seed)
        first = split_folds(np.arange(1000), products, config)
        if 0 not in first.test and 0 not in first.certification:
            certified = np.isin(np.arange(1000), first.certification)
            drawn.append(0 in redraw_certification(first, products, config, 1, certified).certification)
            expected.append(300 / (1000 - len(first.test) - len(first.certification)))
    assert len(drawn) > 100
    assert np.mean(drawn) == pytest.approx(np.mean(expected), abs=0.12)


def test_a_training_that_was_interrupted_goes_on_in_its_epoch(tmp_path: Path) -> None:
    own_use = EarlierUses(certification_round=1, uses={"color": 2}, first_round={"a": 0, "b": 1})
    assert resumed(own_use, tmp_path / "checkpoints", "f") == own_use
    remember(CertificationRound(1), tmp_path / "checkpoints", "f")
    assert resumed(own_use, tmp_path / "checkpoints", "f") == replace(own_use, uses={})
    assert resumed(own_use, tmp_path / "checkpoints", "another") == own_use
    later = replace(own_use, certification_round=2, uses={"color": 1})
    assert resumed(later, tmp_path / "checkpoints", "f").certification_round == 1
    remember(CertificationRound(1), None, "f")
    assert resumed(own_use, None, "f") == own_use
