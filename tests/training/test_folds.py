from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.config.schema import FoldsConfig, TrainingConfig
from catalog_enrichment.precision.earlier_uses import EarlierUses
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.folds import (
    Division,
    Folds,
    GroupedProducts,
    VariantKey,
    content_groups,
    near_duplicate_rate,
    split_folds,
    stratified_parts,
)
from catalog_enrichment.training.task import split_of

from .toy import product

WORDS = {"red", "navy blue", "blue", "rot", "赤"}
SHARES = FoldsConfig()


def ids(count: int) -> list[str]:
    return [f"p{number:05d}" for number in range(count)]


def test_key_removes_spellings_digits_and_case():
    key = VariantKey(WORDS)
    assert key("Puma Shirt Navy Blue 501") == key("puma  shirt, RED 77") == "puma shirt"


def test_key_removes_whole_words_only():
    assert VariantKey(WORDS)("Redskin jacket") == "redskin jacket"


def test_the_longest_spelling_is_removed():
    assert VariantKey({"赤", "赤色", "色"})("赤色ワンピース") == "ワンピース"
    assert VariantKey({"navy", "navy blue", "blue sky"})("navy blue sky hat") == "sky hat"
    assert VariantKey({"blue"})("hat blue") == "hat"


def test_key_removes_spellings_in_scripts_without_spaces():
    assert VariantKey(WORDS)("赤ワンピース") == VariantKey(WORDS)("ワンピース")


def test_key_of_a_title_of_spellings_and_digits_is_the_title():
    assert VariantKey(WORDS)("Red 5") == "red 5"


def test_colour_variants_and_equal_pictures_form_one_group():
    groups = content_groups(["hat red", "hat blue", "cap", "scarf"], ["a", "b", "b", "c"], WORDS)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_empty_titles_and_missing_pictures_link_no_products():
    assert len(set(content_groups(["", "", "!!"], [None, None, None], WORDS).tolist())) == 3


def random_groups(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count // 3, count)


def test_groups_are_not_divided_and_every_product_is_in_one_fold():
    groups = random_groups(3000)
    folds = split_folds(np.arange(3000), GroupedProducts(ids(3000), groups), SHARES)
    parts = [folds.train, folds.choosing, folds.certification, folds.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(3000))
    groups_by_part = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, groups_by_part)) == len(set.union(*groups_by_part))
    assert near_duplicate_rate(folds.test, folds.train, groups) == 0


def fold_of(folds: Folds, product: int) -> str:
    return next(name for name, index in folds.items() if product in index)


def expected_shares(config: FoldsConfig, large: int, count: int, drawn: str) -> dict[str, float]:
    """Each fold's share of the products where ``large`` of them were drawn into one fold."""
    shares = {name: getattr(config, name) for name in ("train", "choosing", "certification", "test")}
    left = {name: max(share - (large / count if name == drawn else 0.0), 0.0) for name, share in shares.items()}
    rest = (count - large) / count / sum(left.values())
    return {name: share * rest + (large / count if name == drawn else 0.0) for name, share in left.items()}


@pytest.mark.parametrize("large", [0, 200, 700])
@pytest.mark.parametrize("stratify", [False, True])
def test_shares_are_close_even_with_a_large_group(large, stratify):
    groups = random_groups(3000)
    groups[:large] = 10_000
    config = FoldsConfig(stratify=stratify)
    folds = split_folds(np.arange(3000), GroupedProducts(ids(3000), groups, values(3000)), config)
    expected = expected_shares(config, large, 3000, fold_of(folds, 0) if large else "")
    for name, size in folds.sizes().items():
        assert abs(size / 3000 - expected[name]) < 0.015


@pytest.mark.parametrize(("stratify", "expected"), [(False, "463c2b94f0082468"), (True, "6b6cfd36057ea1ff")])
def test_the_split_of_epoch_0_stays_the_same(stratify, expected):
    """A change of the hash moves products to other folds: no version can be compared with those trained before it."""
    groups, truth = np.arange(2000) // 3, np.zeros((2000, 12), dtype=bool)
    groups[:300], groups[300:420] = 9000, 9001
    for value in range(12):
        truth[value :: 3 * (value + 2), value] = True
    labelled = np.arange(2000)[np.arange(2000) % 7 != 0]
    shares = FoldsConfig(train=0.50, choosing=0.12, certification=0.30, test=0.08, stratify=stratify, seed=3)
    folds = split_folds(labelled, GroupedProducts(ids(2000), groups, truth), shares)
    assert stable_hash([index.tolist() for _, index in folds.items()])[:16] == expected


def test_no_group_is_exempt_from_the_draw_however_large():
    groups = random_groups(1000)
    groups[:400] = 10_000
    drawn = [
        fold_of(split_folds(np.arange(1000), GroupedProducts(ids(1000), groups), FoldsConfig(seed=s)), 0)
        for s in range(200)
    ]
    for name in ("train", "certification", "test"):
        expected = getattr(SHARES, name)
        assert abs(drawn.count(name) / 200 - expected) < 3 * (expected * (1 - expected) / 200) ** 0.5


def test_a_large_group_stays_where_it_was_drawn_when_other_products_come():
    groups = random_groups(1200)
    groups[:300] = 10_000
    few = split_folds(np.arange(1000), GroupedProducts(ids(1200), groups), SHARES)
    many = split_folds(np.arange(1200), GroupedProducts(ids(1200), groups), SHARES)
    assert fold_of(few, 0) == fold_of(many, 0)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_products():
    groups, names = random_groups(500), ids(500)
    first = split_folds(np.arange(500), GroupedProducts(names, groups), SHARES)
    reverse = np.arange(500)[::-1]
    second = split_folds(np.arange(500), GroupedProducts([names[i] for i in reverse], groups[reverse]), SHARES)
    assert {names[i] for i in first.certification} == {names[reverse[i]] for i in second.certification}
    other = split_folds(np.arange(500), GroupedProducts(names, groups), FoldsConfig(seed=1))
    assert set(first.test.tolist()) != set(other.test.tolist())


def test_twins_share_counts_products():
    assert near_duplicate_rate(np.array([0, 1]), np.array([2]), np.array([5, 6, 5])) == 0.5
    assert near_duplicate_rate(np.array([], dtype=np.int64), np.array([2]), np.array([5, 6, 5])) == 0


STRATIFIED = FoldsConfig(stratify=True)


def values(count: int, seed: int = 0) -> np.ndarray:
    """Twelve values, from a third of the products down to five of them."""
    random = np.random.default_rng(seed)
    share = np.geomspace(1 / 3, 5 / count, 12)
    truth = np.zeros((count, 12), dtype=bool)
    for value, part in enumerate(share):
        truth[random.permutation(count)[: round(part * count)], value] = True
    return truth


def unevenness(folds: Folds, truth: np.ndarray, shares: FoldsConfig) -> float:
    """Mean absolute difference, in products, of the folds' counts of the rare values from their shares."""
    rare = truth[:, 6:]
    return float(
        np.mean(
            [
                np.abs(rare[index].sum(axis=0) - getattr(shares, name) * rare.sum(axis=0))
                for name, index in folds.items()
            ]
        )
    )


def test_stratified_folds_have_their_share_of_rare_values():
    hashed, stratified = [], []
    for seed in range(5):
        truth, groups = values(1500, seed), random_groups(1500, seed)
        configs = ((FoldsConfig(seed=seed), hashed), (FoldsConfig(seed=seed, stratify=True), stratified))
        for config, differences in configs:
            folds = split_folds(np.arange(1500), GroupedProducts(ids(1500), groups, truth), config)
            differences.append(unevenness(folds, truth, config))
    assert np.mean(stratified) < 0.6 * np.mean(hashed)
    assert max(stratified) < min(hashed)


@pytest.mark.parametrize("large", [0, 200, 700])
def test_stratified_folds_keep_groups_together_and_shares_close(large):
    groups, truth = random_groups(3000), values(3000)
    groups[:large] = 10_000
    labelled = np.arange(0, 3000)[np.arange(3000) % 10 != 0]
    folds = split_folds(labelled, GroupedProducts(ids(3000), groups, truth), STRATIFIED)
    parts = [index for _, index in folds.items()]
    assert np.array_equal(np.sort(np.concatenate(parts)), labelled)
    assert all((np.diff(part) > 0).all() for part in parts)
    groups_by_part = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, groups_by_part)) == len(set.union(*groups_by_part))
    for name, size in folds.sizes().items():
        assert abs(size / len(labelled) - getattr(STRATIFIED, name)) < 0.02


def test_stratified_folds_depend_on_the_seed_and_not_on_the_order_of_products():
    groups, names, truth = random_groups(500), ids(500), values(500)
    first = split_folds(np.arange(500), GroupedProducts(names, groups, truth), STRATIFIED)
    reverse = np.arange(500)[::-1]
    second = split_folds(
        np.arange(500), GroupedProducts([names[i] for i in reverse], groups[reverse], truth[reverse]), STRATIFIED
    )
    assert {names[i] for i in first.certification} == {names[reverse[i]] for i in second.certification}
    other = split_folds(np.arange(500), GroupedProducts(names, groups, truth), FoldsConfig(stratify=True, seed=-1))
    assert set(first.test.tolist()) != set(other.test.tolist())


def test_a_group_of_exactly_half_the_smallest_fold_is_not_drawn_by_itself():
    """Groups of 3 that are cut at the shares fill both parts exactly; drawn by themselves they would not."""
    groups = np.arange(300) // 3
    products = GroupedProducts(ids(300), groups)
    halves = np.array([0.5, 0.5])
    assert [len(part) for part in Division(products, 3, False, (0,)).parts(np.arange(300), halves)] == [150, 150]
    assert [len(part) for part in Division(products, 2, False, (0,)).parts(np.arange(300), halves)] != [150, 150]


def test_stratification_needs_values():
    with pytest.raises(ValueError, match="values"):
        split_folds(np.arange(10), GroupedProducts(ids(10), np.arange(10)), STRATIFIED)


def test_values_do_not_change_folds_without_stratification():
    groups = random_groups(400)
    plain = split_folds(np.arange(400), GroupedProducts(ids(400), groups), SHARES)
    with_values = split_folds(np.arange(400), GroupedProducts(ids(400), groups, values(400)), SHARES)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(plain.items(), with_values.items(), strict=True))


@pytest.mark.parametrize("columns", [0, 1, 12])
def test_parts_are_even_and_no_group_is_in_two(columns):
    groups, truth = random_groups(900), values(900)[:, :columns]
    index = np.arange(0, 900, 2)
    parts = stratified_parts(index, groups, truth, 4, seed=0)
    assert np.array_equal(np.sort(np.concatenate(parts)), index)
    groups_by_part = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, groups_by_part)) == len(set.union(*groups_by_part))
    assert max(map(len, parts)) - min(map(len, parts)) < 0.1 * len(index)
    if columns:
        counts = np.array([truth[part].sum(axis=0) for part in parts])
        assert (counts.max(axis=0) - counts.min(axis=0) <= np.maximum(4, 0.3 * truth[index].sum(axis=0))).all()


def test_four_products_of_a_rare_value_go_to_four_parts():
    truth = np.zeros((100, 2), dtype=bool)
    truth[:4, 0] = True
    for seed in range(10):
        parts = stratified_parts(np.arange(100), np.arange(100), truth, 4, seed)
        assert [int(truth[part, 0].sum()) for part in parts] == [1, 1, 1, 1]


def test_the_parts_depend_on_the_seed():
    first, again, other = (stratified_parts(np.arange(60), np.arange(60), values(60), 3, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_fewer_groups_than_parts_are_refused():
    with pytest.raises(ValueError, match="2 content groups"):
        stratified_parts(np.arange(10), np.arange(10) % 2, np.zeros((10, 1), dtype=bool), 3, seed=0)


def test_the_config_sets_stratification(toy_task):
    dataset = toy_task([product(number) for number in range(240)]).examples.dataset
    test_fold = {}
    for stratify in (False, True):
        shares = FoldsConfig(stratify=stratify)
        settings = TrainingConfig(recipe="any", attributes=["color", "material"], folds=shares, min_label_count=1)
        result = split_of(dataset, settings, EarlierUses())
        truth = np.hstack([dataset.labels(name).truth for name in settings.attributes])
        expected = split_folds(np.arange(240), GroupedProducts(dataset.ids, result.groups, truth), shares)
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(result.folds.items(), expected.items(), strict=True))
        test_fold[stratify] = set(result.folds.test.tolist())
    assert test_fold[False] != test_fold[True]
