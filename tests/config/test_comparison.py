"""The section `[compare]` is checked when the config is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog_enrichment import resources
from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import ConfigError

from ..comparison.comparison_samples import COMPARE, config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipes = ["text", "attention", "vote"', 'recipes = ["text", "nosuch"', r"no such recipe \['nosuch'\]"),
        ('members = ["text", "attention"]', 'members = ["text", "nosuch"]', r"members of vote: no such.*'attention'"),
        ('metrics = ["accuracy"]', 'metrics = ["bleu"]', "bleu"),
        ('baseline = "text"', 'baseline = "vot"', "baseline 'vot' is not one of its recipes"),
        ('kind = "modalities"', 'kind = "modalitys"', "modalitys"),
        ('name = "vote"', 'name = "text"', "different names"),
        ('name = "vote"', 'name = "status"', "'status' cannot be a model's name"),
        ('name = "vote"', 'name = "reference_text"', "'reference_text' cannot be"),
        ('name = "vote"', 'name = "vote"\nnmae = "x"', r"unknown key 'compare\.recipes\.2\.nmae'.*'members'"),
        ('members = ["text", "attention"]', 'members = ["text"]', "at least two models"),
        ('label_share_recipes = ["text"]', "label_share_recipes = []", "no such recipe"),
        ("label_shares = [0.5, 1.0]", "label_shares = []", "needs compare.label_shares"),
        ("label_shares = [0.5, 1.0]", "label_shares = [1.5]", r"lie in \(0, 1\]"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "different numbers"),
        ('folds = ["test"]', 'folds = ["certification"]', "certification"),
        ('folds = ["test"]', 'folds = ["validation"]', "validation"),
        ('kind = "label_shares"', 'kind = "mergers"', "needs a baseline"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_section_is_a_config_error(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in COMPARE
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, text=COMPARE.replace(old, new, 1))


def test_recipes_are_not_chosen_on_the_test_fold_unless_the_config_says_so(tmp_path: Path) -> None:
    """PRECISION, "Promotion": the gate compares versions on it."""
    settings = config(tmp_path, text=COMPARE.replace('folds = ["test"]\n', "")).compare
    assert settings is not None
    assert settings.folds == ["choosing"]


@pytest.mark.parametrize("name", ["compare_demo", "compare_fashion"])
def test_the_shipped_comparisons_leave_the_test_fold_alone(name: str) -> None:
    settings = load_config(resources.locate(f"config:{name}.toml")).compare
    assert settings is not None
    assert settings.folds == ["choosing"]
