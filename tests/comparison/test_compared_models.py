"""The recipes of `[compare]` as they are fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from catalog_enrichment.comparison.compared_models import compared_models, seeded, with_max_epochs
from catalog_enrichment.errors import ConfigError

from .comparison_samples import COMPARE, config


def test_max_epochs_caps_every_stage_and_seeds_shift_every_stage(tmp_path: Path) -> None:
    stages = 'adapt = { method = "simcse", fit = { epochs = 9, min_steps = 500 } }, image = { epochs = 1, seed = 4 }'
    loaded = config(tmp_path, text=COMPARE.replace('"model.image.size" = 48', stages))
    text, attention, vote = compared_models(loaded)
    (recipe,) = attention.members
    assert recipe.adapt is not None
    assert recipe.image is not None
    assert (recipe.fit.epochs, recipe.adapt.fit.epochs, recipe.image.epochs) == (2, 2, 1)
    assert recipe.adapt.fit.for_products(10).epochs == 2
    assert with_max_epochs(recipe, 0) == recipe
    free = replace(recipe, fit=replace(recipe.fit, min_steps=500, max_epochs=8))
    assert [with_max_epochs(free, limit).fit.for_products(10).epochs for limit in (0, 7, 9)] == [8, 7, 8]
    assert vote.members == (*text.members, recipe)
    shifted = seeded(recipe, 3)
    assert shifted.adapt is not None
    assert shifted.image is not None
    assert (shifted.fit.seed, shifted.adapt.fit.seed, shifted.image.seed) == (3, 3, 7)
    assert replace(shifted, fit=recipe.fit, adapt=recipe.adapt, image=recipe.image) == recipe


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"text_only" }', '"nosuch" }', r"compare\.recipes: text: toy\.toml.*no fusion 'nosuch'"),
        ('"text_only" }', '"text_only", "fit.epoch" = 3 }', r"unknown key 'fit\.epoch'.*'epochs'"),
        ('"text_only" }', '"text_only", "name.x" = 3 }', "'name' is a value, not a table"),
        (
            '"model.image.size" = 48 }',
            '"fit.epochs" = 3 }\nrecipe = "nosuch.toml"',
            r"attention: nosuch\.toml: no such",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in COMPARE
    with pytest.raises(ConfigError, match=message):
        compared_models(config(tmp_path, text=COMPARE.replace(old, new, 1)))
