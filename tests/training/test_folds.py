"""Content groups, folds, and certification rounds (PRECISION, certificate 6): when a new fold is drawn, and of what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.config.folds import FoldsConfig
from catalog_enrichment.config.schema import TrainingConfig
from catalog_enrichment.records import EarlierUses, stable_hash
from catalog_enrichment.training.folds import (
    CertificationRound,
    Division,
    Folds,
    GroupedProducts,
    Index,
    VariantKey,
    content_groups,
    folds_of_round,
    near_duplicate_rate,
    redraw_certification,
    remember,
    resumed,
    split_folds,
    stratified_parts,
    where,
)
from catalog_enrichment.training.task import split_of

from . import toy

WORDS = {"red", "navy blue", "blue", "rot", "赤"}
SHARES = FoldsConfig()
either_way = pytest.mark.parametrize("stratify", [False, True])


@pytest.mark.parametrize(
    ("words", "title", "key"),
    [
        (WORDS, "Puma Shirt Navy Blue 501", "puma shirt"),
        (WORDS, "puma  shirt, RED 77", "puma shirt"),
        (WORDS, "Redskin jacket", "redskin jacket"),  # whole words only
        (WORDS, "赤ワンピース", "ワンピース"),  # a script without spaces
        ({"\u0e94\u0e87"}, "\u0eaa\u0ead\u0e94\u0e87", "\u0eaa\u0ead"),  # Lao
        (WORDS, "Red 5", "red 5"),  # nothing else would remain
        ({"赤", "赤色", "色"}, "赤色ワンピース", "ワンピース"),  # the longest spelling
        ({"navy", "navy blue", "blue sky"}, "navy blue sky hat", "sky hat"),
        ({"blue"}, "hat blue", "hat"),
    ],
)
def test_a_key_is_the_title_without_spellings_digits_and_case(words: set[str], title: str, key: str) -> None:
    assert VariantKey(words)(title) == key


def test_colour_variants_and_equal_pictures_form_one_group() -> None:
    groups = content_groups(["hat red", "hat blue", "cap", "scarf"], ["a", "b", "b", "c"], WORDS)
    assert groups[0] == groups[1] == groups[2] != groups[3]
    nothing = content_groups(["", "", "!!"], [None, None, None], WORDS)
    assert len(set(nothing.tolist())) == 3, "empty titles and missing pictures link no products"


def ids(count: int) -> list[str]:
    return [f"p{number:05d}" for number in range(count)]


def grouped(groups: np.ndarray, truth: np.ndarray | None = None) -> GroupedProducts:
    return GroupedProducts(ids(len(groups)), groups, truth)


def random_groups(count: int, large: int = 0, seed: int = 0) -> np.ndarray:
    """Draw groups of three products on average; the first ``large`` products are a group."""
    groups = np.random.default_rng(seed).integers(0, count // 3, count)
    groups[:large] = 10_000
    return groups


def values(count: int, seed: int = 0) -> np.ndarray:
    """Draw twelve values, from a third of the products down to five of them."""
    random = np.random.default_rng(seed)
    truth = np.zeros((count, 12), dtype=bool)
    for value, share in enumerate(np.geomspace(1 / 3, 5 / count, 12)):
        truth[random.permutation(count)[: round(share * count)], value] = True
    return truth


def parts_of(folds: Folds) -> list[set[int]]:
    return [set(index.tolist()) for _, index in folds.items()]


def fold_of(folds: Folds, product: int) -> str:
    return next(name for name, index in folds.items() if product in index)


def check_division(parts: Sequence[Index], index: np.ndarray, groups: np.ndarray) -> None:
    """Check that every product is in a part, and no group in two."""
    assert np.array_equal(np.sort(np.concatenate(parts)), index)
    assert all((np.diff(part) > 0).all() for part in parts)
    by_part = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, by_part)) == len(set.union(*by_part))


def expected_shares(config: FoldsConfig, large: int, count: int, drawn: str) -> dict[str, float]:
    """Return each fold's share of the products where ``large`` of them were drawn into the fold ``drawn``."""
    shares = {name: getattr(config, name) for name in ("train", "choosing", "certification", "test")}
    left = {name: max(share - (large / count if name == drawn else 0.0), 0.0) for name, share in shares.items()}
    rest = (count - large) / count / sum(left.values())
    return {name: share * rest + (large / count if name == drawn else 0.0) for name, share in left.items()}


@pytest.mark.parametrize("large", [0, 200, 700])
@either_way
def test_groups_are_not_divided_and_shares_are_close_even_with_a_large_group(large: int, stratify: bool) -> None:
    groups, config = random_groups(3000, large), FoldsConfig(stratify=stratify)
    folds = split_folds(np.arange(3000), grouped(groups, values(3000)), config)
    check_division([index for _, index in folds.items()], np.arange(3000), groups)
    assert near_duplicate_rate(folds.test, folds.train, groups) == 0
    expected = expected_shares(config, large, 3000, fold_of(folds, 0) if large else "")
    assert {name: size / 3000 for name, size in folds.sizes().items()} == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    ("stratify", "expected"),
    [(False, ["463c2b94f0082468", "e6094bbea64af723"]), (True, ["6b6cfd36057ea1ff", "79285d054a2419e5"])],
)
def test_the_splits_of_the_rounds_stay_the_same(stratify: bool, expected: list[str]) -> None:
    """A change of the hash moves products to other folds: no version can be compared with those trained before it."""
    groups, truth = np.arange(2000) // 3, np.zeros((2000, 12), dtype=bool)
    groups[:300], groups[300:420] = 9000, 9001
    for value in range(12):
        truth[value :: 3 * (value + 2), value] = True
    labelled = np.arange(2000)[np.arange(2000) % 7 != 0]
    shares = FoldsConfig(train=0.50, choosing=0.12, certification=0.30, test=0.08, stratify=stratify, seed=3)
    first = split_folds(labelled, grouped(groups, truth), shares)
    certified = np.isin(np.arange(2000), first.certification)
    second = redraw_certification(first, grouped(groups, truth), shares, 1, certified)
    found = [stable_hash([index.tolist() for _, index in folds.items()])[:16] for folds in (first, second)]
    assert found == expected


def test_twins_of_a_gold_sample_neither_train_nor_choose() -> None:
    groups, labelled = np.arange(300) // 3, np.arange(300) % 3 < 2  # the last of three listings has no label
    folds = split_folds(np.flatnonzero(labelled).astype(np.int64), grouped(groups), SHARES)
    asked = np.isin(np.arange(300), np.arange(2, 300, 12))
    left = folds.without_twins_of(asked, groups, [labelled])
    assert (left.certification.tolist(), left.test.tolist()) == (folds.certification.tolist(), folds.test.tolist())
    for fold, before in ((left.train, folds.train), (left.choosing, folds.choosing)):
        assert fold.tolist() == [product for product in before.tolist() if groups[product] % 4]
        assert len(fold) < len(before)
    assert left.outside(300).tolist() == folds.outside(300).tolist(), "they are labelled all the same"


@pytest.mark.parametrize("fold", ["train", "choosing"])
def test_an_attribute_keeps_its_products_where_a_gold_sample_would_take_more_than_half(fold: str) -> None:
    """Another attribute's are left out all the same: here half of the products have a color, half have a length."""
    groups, labelled = np.arange(600) // 3, np.arange(600) % 3 < 2
    color, length = labelled & (np.arange(600) < 300), labelled & (np.arange(600) >= 300)
    folds = split_folds(np.flatnonzero(labelled).astype(np.int64), grouped(groups), SHARES)
    of_length = groups[where(getattr(folds, fold), length)]
    asked = (np.arange(600) % 3 == 2) & (np.isin(groups, of_length) | (groups < 20))
    left = folds.without_twins_of(asked, groups, [color, length])
    taken = np.concatenate([where(each, groups < 20) for each in (folds.train, folds.choosing)])
    assert left.kept.tolist() == np.sort(taken).tolist()
    assert len(taken)
    for name, before in (("train", folds.train), ("choosing", folds.choosing)):
        assert getattr(left, name).tolist() == where(before, groups >= 20).tolist()


def test_no_group_is_exempt_from_the_draw_however_large() -> None:
    products = grouped(random_groups(1000, large=400))
    drawn = [fold_of(split_folds(np.arange(1000), products, FoldsConfig(seed=seed)), 0) for seed in range(200)]
    for name in ("train", "certification", "test"):
        expected = getattr(SHARES, name)
        assert abs(drawn.count(name) / 200 - expected) < 3 * (expected * (1 - expected) / 200) ** 0.5


def test_a_large_group_stays_where_it_was_drawn_when_other_products_come() -> None:
    products = grouped(random_groups(1200, large=300))
    few, many = (split_folds(np.arange(count), products, SHARES) for count in (1000, 1200))
    assert fold_of(few, 0) == fold_of(many, 0)


@either_way
def test_the_split_depends_on_the_seed_and_not_on_the_order_of_products(stratify: bool) -> None:
    groups, names, truth, config = random_groups(500), ids(500), values(500), FoldsConfig(stratify=stratify)
    first = split_folds(np.arange(500), GroupedProducts(names, groups, truth), config)
    reverse = np.arange(500)[::-1]
    reordered = GroupedProducts([names[i] for i in reverse], groups[reverse], truth[reverse])
    second = split_folds(np.arange(500), reordered, config)
    assert {names[i] for i in first.certification} == {names[reverse[i]] for i in second.certification}
    other = split_folds(np.arange(500), GroupedProducts(names, groups, truth), replace(config, seed=-1))
    assert set(first.test.tolist()) != set(other.test.tolist())


def test_the_near_duplicate_rate_counts_products() -> None:
    assert near_duplicate_rate(np.array([0, 1]), np.array([2]), np.array([5, 6, 5])) == 0.5
    assert near_duplicate_rate(np.array([], dtype=np.int64), np.array([2]), np.array([5, 6, 5])) == 0


def unevenness(folds: Folds, truth: np.ndarray, shares: FoldsConfig) -> float:
    """Mean absolute difference, in products, of the folds' counts of the rare values from their shares."""
    rare = truth[:, 6:]
    expected = {name: getattr(shares, name) * rare.sum(axis=0) for name in folds.sizes()}
    return float(np.mean([np.abs(rare[index].sum(axis=0) - expected[name]) for name, index in folds.items()]))


def test_stratified_folds_have_their_share_of_rare_values() -> None:
    differences: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(5):
        truth, groups = values(1500, seed), random_groups(1500, seed=seed)
        for stratify, found in differences.items():
            config = FoldsConfig(seed=seed, stratify=stratify)
            found.append(unevenness(split_folds(np.arange(1500), grouped(groups, truth), config), truth, config))
    assert np.mean(differences[True]) < 0.6 * np.mean(differences[False])
    assert max(differences[True]) < min(differences[False])


def test_a_group_of_exactly_half_the_smallest_fold_is_not_drawn_by_itself() -> None:
    """Groups of 3 that are cut at the shares fill both parts exactly; drawn by themselves they would not."""
    products, halves = grouped(np.arange(300) // 3), np.array([0.5, 0.5])
    assert [len(part) for part in Division(products, 3, False, (0,)).parts(np.arange(300), halves)] == [150, 150]
    assert [len(part) for part in Division(products, 2, False, (0,)).parts(np.arange(300), halves)] != [150, 150]


def test_without_a_train_fold_the_others_have_their_shares_to_within_a_group() -> None:
    """Nothing is fitted to a model that was made elsewhere; pairs are no large groups for that."""
    shares = FoldsConfig(train=0.0, choosing=0.2, certification=0.65, test=0.15)
    sizes = split_folds(np.arange(400), grouped(np.arange(400) // 2), shares).sizes()
    assert sizes == {"train": 0, "choosing": 80, "certification": 260, "test": 60}


def test_only_stratification_needs_and_reads_values() -> None:
    with pytest.raises(ValueError, match="values"):
        split_folds(np.arange(10), grouped(np.arange(10)), FoldsConfig(stratify=True))
    groups = random_groups(400)
    plain, with_values = (split_folds(np.arange(400), grouped(groups, v), SHARES) for v in (None, values(400)))
    assert parts_of(plain) == parts_of(with_values)


@pytest.mark.parametrize("columns", [0, 1, 12])
def test_stratified_parts_are_even_and_no_group_is_in_two(columns: int) -> None:
    groups, truth, index = random_groups(900), values(900)[:, :columns], np.arange(0, 900, 2)
    parts = stratified_parts(index, groups, truth, 4, seed=0)
    check_division(parts, index, groups)
    assert max(map(len, parts)) - min(map(len, parts)) < 0.1 * len(index)
    if columns:
        counts = np.array([truth[part].sum(axis=0) for part in parts])
        assert (counts.max(axis=0) - counts.min(axis=0) <= np.maximum(4, 0.3 * truth[index].sum(axis=0))).all()


def test_four_products_of_a_rare_value_go_to_four_parts_which_depend_on_the_seed() -> None:
    truth = np.zeros((100, 2), dtype=bool)
    truth[:4, 0] = True
    found = [stratified_parts(np.arange(100), np.arange(100), truth, 4, seed) for seed in (*range(10), 0)]
    assert all([int(truth[part, 0].sum()) for part in parts] == [1, 1, 1, 1] for parts in found)
    first, other, again = ([part.tolist() for part in found[number]] for number in (0, 1, -1))
    assert first == again != other


def test_fewer_groups_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 content groups"):
        stratified_parts(np.arange(10), np.arange(10) % 2, np.zeros((10, 1), dtype=bool), 3, seed=0)


@either_way
def test_the_config_sets_stratification(toy_task, stratify: bool) -> None:
    dataset = toy_task([toy.product(number) for number in range(240)]).examples.dataset
    shares = FoldsConfig(stratify=stratify)
    settings = TrainingConfig(recipe="any", attributes=["color", "material"], folds=shares, min_label_count=1)
    result = split_of(dataset, settings, EarlierUses())
    truth = np.hstack([dataset.labels(name).truth for name in settings.attributes])
    products = GroupedProducts(dataset.ids, result.groups, truth)
    expected, other = (
        split_folds(np.arange(240), products, replace(shares, stratify=s)) for s in (stratify, not stratify)
    )
    assert parts_of(result.folds) == parts_of(expected) != parts_of(other)


# --- certification rounds ----------------------------------------------------------------------------------------


SETTINGS = TrainingConfig(
    recipe="any",
    label_uses_per_round=2,
    folds=FoldsConfig(train=0.50, choosing=0.12, certification=0.30, test=0.08),
)


@dataclass
class Trainings:
    """Labelled products in content groups of up to five, trainings of a new candidate each, and the uses of labels."""

    count: int = 1000
    seed: int = 0
    settings: TrainingConfig = SETTINGS
    uses: list[tuple[str, int, int]] = field(default_factory=list)
    """Product id, certification round, number of the candidate."""
    candidates: int = 0

    def products(self) -> GroupedProducts:
        random = np.random.default_rng(self.seed)
        groups = np.repeat(np.arange(self.count), random.integers(1, 6, self.count))[: self.count]
        return grouped(groups, random.random((self.count, 4)) < 0.2)

    @property
    def earlier(self) -> EarlierUses:
        newest = max((current for _, current, _ in self.uses), default=0)
        counts: dict[str, int] = {}
        first: dict[str, int] = {}
        for name, current, _ in self.uses:
            counts[name] = counts.get(name, 0) + (current == newest)
            first[name] = min(current, first.get(name, current))
        uses = {"color": max(counts.values(), default=0)}
        return EarlierUses(certification_round=newest, uses=uses, first_round=first)

    def train(self) -> tuple[Folds, CertificationRound]:
        products = self.products()
        folds, current = folds_of_round(np.arange(self.count), products, self.settings, ["color"], self.earlier)
        self.candidates += 1
        self.uses += [(products.ids[product], current.number, self.candidates) for product in folds.certification]
        return folds, current


def test_rounds_follow_each_other_until_too_few_products_never_certified() -> None:
    """The certification fold has 30%, the test fold 8%: three folds, then the last goes on."""
    catalog = Trainings()
    trained = [catalog.train() for _ in range(11)]
    assert [current.number for _, current in trained] == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    reasons = [current.reason for _, current in trained]
    assert reasons[1] == reasons[3] == ""
    assert reasons[2] == (
        "the labels of color were used 2 times in certification round 0 (label_uses_per_round = 2): "
        f"certification round 1 has a new fold of {len(trained[2][0].certification)} products that never certified"
    )
    assert "used 2 times in certification round 2" in reasons[6]
    assert "certification round 2 goes on: " in reasons[6]
    assert "never certified, a new fold needs 300" in reasons[6]
    catalog.count = 2000  # a thousand more labelled products
    assert catalog.train()[1].number == 3


def test_a_new_fold_is_of_products_that_never_certified_and_the_test_fold_stays() -> None:
    catalog = Trainings()
    first, again, second, last = (catalog.train()[0] for _ in range(4))
    assert parts_of(first) == parts_of(again) != parts_of(second) == parts_of(last), "two uses per round"
    groups = catalog.products().groups
    assert np.array_equal(first.test, second.test)
    assert not np.isin(groups[second.certification], groups[first.certification]).any()
    assert set(first.certification) < set(np.concatenate([second.train, second.choosing]))
    check_division([index for _, index in second.items()], np.arange(1000), groups)
    for name, size in second.sizes().items():
        assert size == pytest.approx(1000 * getattr(SETTINGS.folds, name), abs=15)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 3))
def test_no_product_certifies_in_two_rounds_and_no_group_is_in_two_folds(seed: int, stratify: bool, uses: int) -> None:
    config = replace(SETTINGS, folds=FoldsConfig(seed=seed % 100, stratify=stratify), label_uses_per_round=uses)
    catalog = Trainings(count=400, seed=seed, settings=config)
    for _ in range(6):
        folds, current = catalog.train()
        check_division([index for _, index in folds.items()], np.arange(400), catalog.products().groups)
        assert current.number <= catalog.candidates // uses
    rounds = {(product, number) for product, number, _ in catalog.uses}
    assert len(rounds) == len({product for product, _ in rounds})


@pytest.mark.parametrize(
    ("uses", "number"),
    [({}, 0), ({"color": 1}, 0), ({"color": 2}, 1), ({"material": 2}, 0), ({"color": 1, "size": 2}, 1)],
)
def test_the_attribute_with_the_most_uses_of_those_that_are_trained_decides(uses: dict[str, int], number: int) -> None:
    earlier = EarlierUses(uses=uses, first_round={"p00000": 0})
    _, current = folds_of_round(np.arange(1000), Trainings().products(), SETTINGS, ["color", "size"], earlier)
    assert current.number == number


@pytest.mark.parametrize(("fresh", "number"), [(300, 1), (299, 0)])
def test_as_many_products_as_the_folds_share_are_enough(fresh: int, number: int) -> None:
    """Every product is a group; 920 are outside the test fold, the share of the certification fold is 300."""
    labelled, products = np.arange(1000), grouped(np.arange(1000))
    outside = np.setdiff1d(labelled, split_folds(labelled, products, SETTINGS.folds).test)
    certified = {products.ids[product]: 0 for product in outside[fresh:]}
    earlier = EarlierUses(uses={"color": 2}, first_round=certified)
    assert folds_of_round(labelled, products, SETTINGS, ["color"], earlier)[1].number == number


def test_where_a_fold_would_be_empty_the_old_round_goes_on() -> None:
    """A group has 700 products and certified; a new fold would leave no product for the choosing fold."""
    labelled, products = np.arange(925), grouped(np.maximum(np.arange(925) - 699, 0))
    first, certified = split_folds(labelled, products, SETTINGS.folds), labelled < 700
    assert not certified[first.test].any()
    assert all(first.sizes().values())
    assert not all(redraw_certification(first, products, SETTINGS.folds, 1, certified).sizes().values())
    earlier = EarlierUses(uses={"color": 2}, first_round={products.ids[n]: 0 for n in np.flatnonzero(certified)})
    folds, current = folds_of_round(labelled, products, SETTINGS, ["color"], earlier)
    assert current.number == 0
    assert parts_of(folds) == parts_of(first)


def test_the_draws_of_different_rounds_are_independent() -> None:
    products, nobody = Trainings().products(), np.zeros(1000, dtype=bool)
    first = split_folds(np.arange(1000), products, SETTINGS.folds)
    drawn = [set(redraw_certification(first, products, SETTINGS.folds, n, nobody).certification) for n in (1, 2)]
    assert len(drawn[0] & drawn[1]) == pytest.approx(300 * 300 / 920, abs=40)


def test_large_groups_are_drawn_for_a_new_fold_with_the_same_probability_as_products() -> None:
    drawn: list[bool] = []
    expected: list[float] = []
    products = grouped(np.maximum(np.arange(1000) - 199, 0))
    for seed in range(200):
        config = FoldsConfig(seed=seed)
        first = split_folds(np.arange(1000), products, config)
        if 0 not in first.test and 0 not in first.certification:
            certified = np.isin(np.arange(1000), first.certification)
            drawn.append(0 in redraw_certification(first, products, config, 1, certified).certification)
            expected.append(300 / (1000 - len(first.test) - len(first.certification)))
    assert len(drawn) > 100
    assert np.mean(drawn) == pytest.approx(np.mean(expected), abs=0.12)


def test_a_training_that_was_interrupted_goes_on_in_its_round(tmp_path: Path) -> None:
    own_use = EarlierUses(certification_round=1, uses={"color": 2}, first_round={"a": 0, "b": 1})
    folder = tmp_path / "checkpoints"
    assert resumed(own_use, folder, "f") == own_use
    remember(CertificationRound(1), folder, "f")
    assert resumed(own_use, folder, "f") == replace(own_use, uses={})
    assert resumed(own_use, folder, "another") == own_use
    later = replace(own_use, certification_round=2, uses={"color": 1})
    assert resumed(later, folder, "f").certification_round == 1
    remember(CertificationRound(1), None, "f")
    assert resumed(own_use, None, "f") == own_use
