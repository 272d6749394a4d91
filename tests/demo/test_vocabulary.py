"""The generated marketplace in other languages: the same products, in words that the dictionary knows."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from catalog_enrichment import dictionary, resources
from catalog_enrichment.demo import marketplace
from catalog_enrichment.demo.marketplace import generate
from catalog_enrichment.demo.vocabulary import COLORS, LANGUAGES, MATERIALS, Material, Noun, Title, Word
from catalog_enrichment.dictionary import Dictionary

OTHERS = [language for language in LANGUAGES if language != "en"]
PRODUCTS = 400


@pytest.fixture(scope="module")
def attributes() -> Dictionary:
    return dictionary.load(resources.locate("schemas:attributes/demo.v1.json"))


@pytest.fixture(scope="module")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The rows in each language, by the same seed; those that can be parsed."""
    feeds = {}
    for language in LANGUAGES:
        market = generate(tmp_path_factory.mktemp(language) / "m", PRODUCTS, language=language, wholesale=50)
        feeds[language] = []
        for line in market.source.read_text(encoding="utf-8").splitlines():
            try:
                feeds[language].append(json.loads(line))
            except ValueError:
                continue
    return feeds


def canonical(attributes: Dictionary, row: dict[str, Any], name: str) -> list[str | None]:
    values = row[name] if isinstance(row[name], list) else [row[name]] if row[name] else []
    return [attributes[name].canonical(value, row["language"]) for value in values]


@pytest.mark.parametrize("language", OTHERS)
def test_every_language_has_as_many_words_as_english(language: str) -> None:
    words, english = LANGUAGES[language], LANGUAGES["en"]
    for name in ("adjectives", "extras", "color_phrases", "material_phrases", "fillers"):
        assert len(set(getattr(words, name))) == len(getattr(english, name)), name
    assert [len(set(words.colors[value])) for value in COLORS] == [3] * len(COLORS)
    assert [len({word.text for word in words.materials[value]}) for value in MATERIALS] == [2] * len(MATERIALS)
    assert words.nouns.keys() == english.nouns.keys()
    assert len({noun.text for noun in words.nouns.values()}) == len(english.nouns)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_dictionary_knows_every_word(language: str, attributes: Dictionary) -> None:
    words = LANGUAGES[language]
    for value, colors in words.colors.items():
        assert {attributes["color"].canonical(color.alone, language) for color in colors} == {value}
    for value, materials in words.materials.items():
        assert {attributes["material"].canonical(material.text, language) for material in materials} == {value}


@pytest.mark.parametrize("language", OTHERS)
def test_products_and_labels_are_those_of_the_english_feed(
    language: str, feeds: dict[str, list[dict[str, Any]]], attributes: Dictionary
) -> None:
    rows, english = feeds[language], feeds["en"]
    assert {row["language"] for row in rows} == {language}
    same = ("id", "shop", "category", "images", "opt_out", "updated_at")
    assert [[row[name] for name in same] for row in rows] == [[row[name] for name in same] for row in english]
    for name in ("color", "material", "country_of_origin"):
        values = [canonical(attributes, row, name) for row in rows]
        assert values == [canonical(attributes, row, name) for row in english]
        assert len({str(value) for value in values}) > 5
    texts = [(row["title"], row["description"]) for row in rows]
    translated = sum(ours != theirs["title"] for (ours, _), theirs in zip(texts, english, strict=True))
    assert translated > 0.95 * len(rows)
    assert not {description for _, description in texts} & {row["description"] for row in english}


def test_the_english_feed_is_the_one_that_was_measured() -> None:
    """docs/measurements has figures of it."""
    listings = [*marketplace._listings(1000, random.Random(7)), *marketplace._wholesale_listings(200, random.Random(9))]
    rows = [marketplace._row(listing, "en", random.Random(f"7-{listing.product_id}")) for listing in listings]
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
    assert digest == "4449ab160b37f5cb4326b73163d58ddd10740a8a7d24e266e49b116a83e8a191"


@pytest.mark.parametrize("language", OTHERS)
def test_merchants_write_the_first_word_of_their_language(
    language: str, feeds: dict[str, list[dict[str, Any]]]
) -> None:
    words = LANGUAGES[language]
    given = {row["color"].lower() for row in feeds[language] if row["color"]} - {"see picture"}
    assert given == {colors[0].alone.lower() for colors in words.colors.values()}
    of_material = {value.lower() for row in feeds[language] for value in row["material"] or ()} - {"see picture"}
    assert of_material == {materials[0].text.lower() for materials in words.materials.values()}
    origins = {row["country_of_origin"].lower() for row in feeds[language] if row["country_of_origin"]}
    assert origins - {"see picture"} == {
        words.origins.get(value, value).lower() for value in ("China", "India", "Italy", "Portugal", "Turkey")
    }


def test_japanese_has_no_spaces_but_around_brand_and_extra(feeds: dict[str, list[dict[str, Any]]]) -> None:
    assert not any(" " in row["description"] for row in feeds["ja"])
    titles = [row["title"] for row in feeds["ja"] if isinstance(row["title"], str) and row["title"].strip()]
    assert {title.count(" ") for title in titles} == {1, 2}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_wholesalers_descriptions_name_colour_and_material(
    language: str, feeds: dict[str, list[dict[str, Any]]]
) -> None:
    words = LANGUAGES[language]
    rows = [row for row in feeds[language] if row["shop"] == "granary"]
    assert len(rows) == 50
    colors = [color.alone for values in words.colors.values() for color in values]
    materials = [material.text for values in words.materials.values() for material in values]
    for named in (colors, materials):
        assert 40 < sum(any(word in row["description"] for word in named) for row in rows) <= 50


@pytest.mark.parametrize(
    ("language", "title"),
    [
        ("en", "Arden slim navy cotton shirt unisex"),
        ("de", "Arden schmales marineblaues Baumwollhemd unisex"),
        ("fr", "Arden chemise ajustée bleu marine en coton unisexe"),
        ("es", "Arden camisa entallada azul marino de algodón unisex"),
        ("ja", "Arden 細身のネイビー綿シャツ 男女兼用"),
    ],
)
def test_a_title_has_the_order_and_the_endings_of_its_language(language: str, title: str) -> None:
    words = LANGUAGES[language]
    parts = Title(
        brand="Arden",
        adjective=words.adjectives[1],
        noun=words.nouns["shirt"],
        color=words.colors["Blue"][1],
        material=words.materials["Cotton"][0],
        extra=words.extras[3],
    )
    assert words.title(parts) == title


def test_a_japanese_colour_has_a_particle_beside_a_noun_only() -> None:
    black = LANGUAGES["ja"].colors["Black"][0]
    assert (black.alone, black.beside(Noun("シャツ"))) == ("黒", "黒の")


def test_a_noun_and_a_material_that_are_joined_keep_a_hyphen() -> None:
    parts = Title(brand="A", adjective=Word("b"), noun=Noun("Hose", 1), color=None, material=None, extra="")
    title = LANGUAGES["de"].title
    assert title(parts) == "A b Hose"
    for in_title, noun in (("Leder", "Lederhose"), ("Denim-", "Denim-Hose")):
        assert title(Title("A", Word("b"), Noun("Hose", 1), None, Material("x", in_title), "")) == f"A b {noun}"


def test_pictures_and_truth_do_not_depend_on_the_language(tmp_path: Path) -> None:
    english, french = (generate(tmp_path / language, 30, language=language) for language in ("en", "fr"))
    assert pq.read_table(english.truth).equals(pq.read_table(french.truth))
    for file in (tmp_path / "en/images").iterdir():
        assert file.read_bytes() == (tmp_path / "fr/images" / file.name).read_bytes()
