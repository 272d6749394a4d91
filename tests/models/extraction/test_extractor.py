"""The extractor: what it finds, with its evidence, the same whatever the batch, and from its folder alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError, DataContractError, ModelContractError
from catalog_enrichment.models.extraction.extractor import CONTENT, WEIGHTS, Extractor
from catalog_enrichment.models.extraction.recipe import ExtractionRecipe, load_extraction_recipe
from catalog_enrichment.training.extraction_fit import fit_extractor
from catalog_enrichment.training.loop import ignored
from catalog_enrichment.values.kinds import Kind, NumberRule, OpenRule

RULES = {
    "width": OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="cm", low=1, high=500)),
    "brand": OpenRule(kind=Kind.TEXT),
}
RECIPE = strict.build(
    ExtractionRecipe,
    {
        "name": "toy",
        "text": {
            "bert": {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 64, "vocab_size": 200, "dropout": 0.0},
            "pooling": "mean",
            "max_length": 32,
        },
        "fit": {"epochs": 6, "min_steps": 0, "batch_size": 16, "text_learning_rate": 3e-3, "learning_rate": 5e-3},
    },
    "toy",
)


def title(number: int) -> str:
    brand, width = f"Brand{chr(97 + number % 26)}{number // 26}", 20 + number % 150
    return f"{brand} shelf {width} cm wide, {300 + number} mm high"


def labels(numbers: range) -> dict[str, list[tuple[str, ...] | None]]:
    return {
        "width": [(f"{20 + number % 150} cm",) for number in numbers],
        "brand": [(f"Brand{chr(97 + number % 26)}{number // 26}",) for number in numbers],
    }


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    numbers = range(300)
    titles = [title(number) for number in numbers]
    return fit_extractor(
        RECIPE,
        titles,
        [""] * len(titles),
        labels(numbers),
        RULES,
        train=np.arange(250),
        validation=np.arange(250, 300),
        progress=ignored,
    )


def test_values_are_found_with_the_words_that_say_them(extractor: Extractor) -> None:
    text = "Brandz99 shelf 77 cm wide, 310 mm high"
    found = extractor.propose([text], [None]).found
    best = {name: found[name][0][0] for name in RULES}
    assert (best["width"].value, best["width"].evidence) == ("77 cm", "77 cm")
    assert (best["brand"].value, best["brand"].evidence) == ("Brandz99", "Brandz99")
    assert text[best["width"].start :].startswith("77 cm")
    assert sum(each.score for each in found["width"][0]) <= 1 + 1e-6
    assert [each.score for each in found["width"][0]] == sorted([each.score for each in found["width"][0]])[::-1]


def test_a_value_that_the_text_says_twice_is_one_value(extractor: Extractor) -> None:
    found = extractor.propose(["Brandz99 shelf 77 cm wide"], ["0.77 m wide"]).found["width"][0]
    assert [each.value for each in found].count("77 cm") == 1


def test_a_text_without_words_has_no_value(extractor: Extractor) -> None:
    found = extractor.propose([None, "...", "\u200b"], [None, "", None]).found
    assert found == {name: [[], [], []] for name in RULES}
    empty = extractor.propose([], [])
    assert (empty.found, len(empty.vectors)) == ({name: [] for name in RULES}, 0)


def test_scores_do_not_depend_on_the_batch(extractor: Extractor) -> None:
    titles = [title(number) for number in range(400, 420)] + [f"{title(430)} {'very long text ' * 30}"]
    together = extractor.propose(titles, [None] * len(titles))
    for number, text in enumerate(titles):
        alone = extractor.propose([text], [None])
        for name in RULES:
            pairs = zip(alone.found[name][0], together.found[name][number], strict=True)
            for one, other in pairs:
                assert (one.value, one.evidence) == (other.value, other.evidence)
                assert one.score == pytest.approx(other.score, abs=1e-4)
        assert alone.vectors[0] == pytest.approx(together.vectors[number], abs=1e-4)


def test_the_folder_is_all_it_needs(extractor: Extractor, tmp_path: Path) -> None:
    extractor.save(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    again = Extractor.load(tmp_path / "moved")
    titles = [title(number) for number in range(400, 410)]
    assert again.propose(titles, [""] * 10).found == extractor.propose(titles, [""] * 10).found
    assert (again.attributes, again.temperature) == (["width", "brand"], extractor.temperature)
    assert again.rules == extractor.rules


@pytest.mark.parametrize("file", [CONTENT, WEIGHTS, "lexicon.safetensors"])
def test_a_damaged_folder_is_refused(extractor: Extractor, tmp_path: Path, file: str) -> None:
    extractor.save(tmp_path)
    (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(ModelContractError, match="cannot be loaded"):
        Extractor.load(tmp_path)


def test_a_fit_without_labels_is_refused() -> None:
    with pytest.raises(DataContractError, match="no product of the train fold has a value of width"):
        fit_extractor(
            RECIPE,
            ["Lamp"],
            [""],
            {"width": [()]},
            {"width": RULES["width"]},
            train=np.arange(1),
            validation=np.arange(0),
            progress=ignored,
        )


def test_the_same_fit_gives_the_same_extractor() -> None:
    numbers = range(60)
    found = []
    for _ in range(2):
        fitted = fit_extractor(
            RECIPE,
            [title(number) for number in numbers],
            [""] * 60,
            labels(numbers),
            RULES,
            train=np.arange(50),
            validation=np.arange(50, 60),
            progress=ignored,
        )
        found.append(fitted.propose([title(500)], [""]).found)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('name = "x"\n[text]\nname = "y"\nfields = "apart"', "text.fields must be 'pair'"),
        ('name = "x"\n[text]\nname = "y"\n[candidates]\nkept = 1', r"candidates.kept must lie in \[2, 100\]"),
        ('name = "x"\n[text]\nname = "y"\n[fit]\nlearning_rate = 0.0', "must be positive"),
        ('name = "x"\n[text]\nname = "y"\n[fit]\nunknown_share = 1.5', r"fit.unknown_share must lie in \[0, 1\]"),
        ('name = "x"\nwords = 3\n[text]\nname = "y"', "unknown key 'words'"),
    ],
)
def test_a_bad_recipe_is_a_config_error(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "bad.toml").write_text(content)
    with pytest.raises(ConfigError, match=complaint):
        load_extraction_recipe(tmp_path / "bad.toml")


def test_the_shipped_recipe_is_usable() -> None:
    recipe = load_extraction_recipe("recipes:extract.toml")
    assert recipe.candidates.kept == 20
    assert recipe.fit.passes(100_000) == 3
    assert recipe.fit.passes(64) == 12, "few products are seen four times as often"


def test_a_width_in_several_units_is_one_value_with_all_of_its_probability(extractor: Extractor) -> None:
    text = "20 in wide (51 cm, or 50.8 cm), 30 cm high"
    places = extractor.finder.find([text], [""])
    mine = np.flatnonzero(places.attribute == list(RULES).index("width"))
    assert [places.value[place] for place in mine] == ["50.8 cm", "51 cm", "50.8 cm", "30 cm"]
    probabilities = np.array([0.1, 0.1, 0.1, 0.05], dtype=np.float32)
    first, second = extractor._values("width", places, mine, probabilities, ([text], [""]))
    assert (first.score, second.score) == (float(np.float32(0.3)), float(np.float32(0.05))), "scores are float32"
    assert (first.value, second.value, second.evidence) == ("50.8 cm", "30 cm", "30 cm")


def test_what_cannot_be_found_in_any_text_is_learned_as_nothing() -> None:
    """Not even a number stands in the texts; or only in those that train."""
    count = 60
    given = {"width": [(f"{20 + number} cm",) for number in range(count)]}
    fold = {"train": np.arange(50), "validation": np.arange(50, count)}
    rules = {"width": RULES["width"]}
    without = ["oak shelf for the wall"] * count
    nothing = fit_extractor(RECIPE, without, [""] * count, given, rules, **fold, progress=ignored)
    assert nothing.propose(["oak shelf 51 cm"], [""]).found["width"][0][0].score < 1
    some = [f"shelf {20 + number} cm" for number in range(50)] + without[50:]
    found = fit_extractor(RECIPE, some, [""] * count, given, rules, **fold, progress=ignored)
    assert found.propose(["shelf 44 cm"], [""]).found["width"][0][0].value == "44 cm"


def test_an_alias_is_found_as_what_it_means() -> None:
    rules = {"brand": OpenRule(kind=Kind.TEXT, aliases={"HP": "Hewlett-Packard"})}
    count = 200
    brands = [["HP", "Acme", "Bosch", "Hewlett-Packard"][number % 4] for number in range(count)]
    titles = [f"{brand} printer model {number}" for number, brand in enumerate(brands)]
    given = {"brand": [("Hewlett-Packard" if brand == "HP" else brand,) for brand in brands]}
    fitted = fit_extractor(
        RECIPE, titles, [""] * count, given, rules, train=np.arange(160), validation=np.arange(160, count),
        progress=ignored,
    )  # fmt: skip
    (best, *_) = fitted.propose(["HP printer model 900"], [""]).found["brand"][0]
    assert (best.value, best.evidence) == ("Hewlett-Packard", "HP")
    (best, *_) = fitted.propose(["HP printer model 901, by Hewlett-Packard"], [""]).found["brand"][0]
    assert best.value == "Hewlett-Packard"
    assert best.score > 0.9
