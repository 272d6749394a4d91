from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.config import FoldsConfig
from catalog_enrichment.training.folds import VariantKey, content_groups, one_per_group, split, twins_share

WORDS = {"red", "navy blue", "blue", "rot", "赤"}
SHARES = FoldsConfig()


def ids(count: int) -> list[str]:
    return [f"p{number:05d}" for number in range(count)]


def test_key_drops_spellings_digits_and_case():
    key = VariantKey(WORDS)
    assert key("Puma Shirt Navy Blue 501") == key("puma  shirt, RED 77") == "puma shirt"


def test_key_takes_out_whole_words_only():
    assert VariantKey(WORDS)("Redskin jacket") == "redskin jacket"


def test_key_takes_spellings_out_of_scripts_without_spaces():
    assert VariantKey(WORDS)("赤ワンピース") == VariantKey(WORDS)("ワンピース")


def test_key_of_a_title_with_nothing_else_is_the_title():
    assert VariantKey(WORDS)("Red 5") == "red 5"


def test_colour_variants_and_equal_pictures_form_one_group():
    groups = content_groups(["hat red", "hat blue", "cap", "scarf"], ["a", "b", "b", "c"], WORDS)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_empty_titles_and_missing_pictures_connect_nothing():
    assert len(set(content_groups(["", "", "!!"], [None, None, None], WORDS).tolist())) == 3


def random_groups(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count // 3, count)


def test_groups_never_split_and_every_product_has_one_fold():
    groups = random_groups(3000)
    folds = split(np.arange(3000), groups, ids(3000), SHARES)
    parts = [folds.train, folds.validation, folds.calibration, folds.certification, folds.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(3000))
    seen = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert twins_share(folds.test, folds.train, groups) == 0


@pytest.mark.parametrize("giant", [0, 200, 700])
def test_shares_are_close_even_with_a_giant_group(giant):
    groups = random_groups(3000)
    groups[:giant] = 10_000
    sizes = split(np.arange(3000), groups, ids(3000), SHARES).sizes()
    for name, size in sizes.items():
        assert abs(size / 3000 - getattr(SHARES, name)) < 0.01


def test_a_group_larger_than_train_leaves_the_other_folds_in_proportion():
    groups = random_groups(1000)
    groups[:800] = 10_000
    sizes = split(np.arange(1000), groups, ids(1000), SHARES).sizes()
    assert sizes["train"] == 800
    assert abs(sizes["certification"] - 200 * 0.22 / 0.5) < 10


def test_seed_decides_the_split_and_order_of_products_does_not():
    groups, names = random_groups(500), ids(500)
    first = split(np.arange(500), groups, names, SHARES)
    back = np.arange(500)[::-1]
    second = split(np.arange(500), groups[back], [names[i] for i in back], SHARES)
    assert {names[i] for i in first.certification} == {names[back[i]] for i in second.certification}
    other = split(np.arange(500), groups, names, FoldsConfig(seed=1))
    assert set(first.test.tolist()) != set(other.test.tolist())


def test_one_per_group_takes_each_group_once():
    groups = random_groups(600)
    index = np.arange(0, 600, 2)
    units = one_per_group(index, groups, ids(600), seed=0)
    assert set(units) <= set(index)
    assert sorted(groups[units]) == sorted(set(groups[index].tolist()))
    assert one_per_group(index, groups, ids(600), seed=0).tolist() == units.tolist()


def test_twins_share_counts_products():
    assert twins_share(np.array([0, 1]), np.array([2]), np.array([5, 6, 5])) == 0.5
    assert twins_share(np.array([], dtype=np.int64), np.array([2]), np.array([5, 6, 5])) == 0
